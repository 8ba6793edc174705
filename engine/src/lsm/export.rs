//! Export and import in formats that other programs read: JSON Lines and Protocol Buffers.
//!
//! ```text
//! JSON Lines: {"key":"text","value":"text","end":1800000000} LF; "key64" and "value64" hold bytes that are no
//!             UTF-8, as Base64; "end" is the Unix time in seconds at which the value ends, if it does
//! Protobuf:   message Entry { bytes key = 1; bytes value = 2; optional uint64 end = 3; }, each behind its length as varint
//! ```

use super::backup::{Intake, each_change};
use super::handle::check_key;
use super::store::Core;
use crate::error::{Error, Result};
use crate::sync_policy::Durability;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// A format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    JsonLines,
    /// Length-delimited Protocol Buffers.
    Protobuf,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(uint64, optional, tag = "3")]
    end: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
}

/// Text as it is, other bytes as Base64.
fn pack(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(e) => (None, Some(STANDARD.encode(e.as_bytes()))),
    }
}

fn unpack(text: Option<String>, base64: Option<String>, of: &str) -> std::result::Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => STANDARD.decode(base64).map_err(|e| format!("{of}64 is no Base64: {e}")),
        _ => Err(format!("it must have either {of} or {of}64")),
    }
}

/// Writes every key as of now; how many there are.
pub(super) fn write(core: &Core, out: &mut dyn Write, format: Format) -> Result<u64> {
    let through = core.hold();
    let view = Arc::clone(&core.view());
    let mut count = 0;
    let written = each_change(core, &view, 0, through, &mut |key, end, value| {
        let Some(value) = value else { return Ok(()) };
        let entry = Entry { key: key.to_vec(), value: value.to_vec(), end };
        let bytes = match format {
            Format::Protobuf => entry.encode_length_delimited_to_vec(),
            Format::JsonLines => line_of(entry),
        };
        count += 1;
        out.write_all(&bytes).map_err(|e| Error::io("write to", stream(), e))
    });
    core.release(through);
    written?;
    out.flush().map_err(|e| Error::io("write to", stream(), e))?;
    Ok(count)
}

fn line_of(entry: Entry) -> Vec<u8> {
    let ((key, key64), (value, value64)) = (pack(entry.key), pack(entry.value));
    // Plain strings and a number: there is nothing that JSON could refuse.
    let mut line = serde_json::to_vec(&Line { key, key64, value, value64, end: entry.end }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Puts every entry of an export into the store, a mebibyte at a time; how many there were.
pub(super) fn read(core: &Core, input: &mut dyn Read, format: Format, level: Durability) -> Result<u64> {
    let mut input = BufReader::new(input);
    let (mut intake, mut count) = (Intake::new(core, level), 0);
    loop {
        let entry = match format {
            Format::JsonLines => next_line(&mut input, count)?,
            Format::Protobuf => next_message(&mut input, count)?,
        };
        let Some(Entry { key, value, end }) = entry else { break };
        check_key(&key)?;
        intake.change(key.len() + value.len(), |changes| changes.put(&key, &value, end))?;
        count += 1;
    }
    intake.end()?;
    Ok(count)
}

fn next_line(input: &mut dyn BufRead, count: u64) -> Result<Option<Entry>> {
    let mut text = Vec::new();
    loop {
        text.clear();
        if input.read_until(b'\n', &mut text).map_err(|e| Error::io("read", stream(), e))? == 0 {
            return Ok(None);
        }
        if !text.iter().all(u8::is_ascii_whitespace) {
            break;
        }
    }
    let wrong = |why: String| wrong(count, why);
    let line: Line = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    let key = unpack(line.key, line.key64, "key").map_err(wrong)?;
    let value = unpack(line.value, line.value64, "value").map_err(wrong)?;
    Ok(Some(Entry { key, value, end: line.end }))
}

fn next_message(input: &mut dyn BufRead, count: u64) -> Result<Option<Entry>> {
    let io = |e| Error::io("read", stream(), e);
    let (mut len, mut shift) = (0u64, 0);
    loop {
        let Some(&byte) = input.fill_buf().map_err(io)?.first() else {
            return if shift == 0 { Ok(None) } else { Err(wrong(count, "it ends within a length".to_owned())) };
        };
        input.consume(1);
        len |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 56 {
            return Err(wrong(count, "its length makes no sense".to_owned()));
        }
    }
    let mut bytes = Vec::new();
    // Grows as bytes come, so that a length that lies does not take the memory.
    (&mut *input).take(len).read_to_end(&mut bytes).map_err(io)?;
    if (bytes.len() as u64) < len {
        return Err(wrong(count, "it ends before the entry does".to_owned()));
    }
    Entry::decode(&bytes[..]).map(Some).map_err(|e| wrong(count, e.to_string()))
}

/// What stands for the stream in messages.
fn stream() -> &'static Path {
    Path::new("the export")
}

fn wrong(count: u64, why: String) -> Error {
    Error::Corrupt {
        file: stream().to_owned(),
        offset: count,
        what: format!("entry {} cannot be read: {why}", count + 1),
        remedy: "mend the entry and import it into an empty store: the entries before it were imported".to_owned(),
    }
}
