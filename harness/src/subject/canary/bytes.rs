//! How the canaries' stores write changes, and read them back from bytes that may be damaged.
//!
//! **Invariant:** no length that was read makes anything larger than the bytes that are there.

use super::super::SubjectError;
use engine::codec::{push_varint, read_varint};
use engine::fs::{File, read_full_at};
use std::io;

/// Appends a change: table, key, and the value after a one, or a zero for a delete.
pub(super) fn push_change(out: &mut Vec<u8>, table: usize, key: &str, value: Option<&str>) {
    push_varint(out, table as u64);
    push_text(out, key);
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        push_text(out, value);
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Hands the changes in `bytes` to `each` in order. `None` as soon as the bytes are no changes, or `each`
/// refuses one.
pub(super) fn replay(mut bytes: &[u8], each: &mut dyn FnMut(usize, String, Option<String>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let table = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let key = take_text(&mut bytes)?;
        let value = match take(&mut bytes, 1)?[0] {
            0 => None,
            1 => Some(take_text(&mut bytes)?),
            _ => return None,
        };
        each(table, key, value)?;
    }
    Some(())
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (value, len) = read_varint(bytes)?;
    take(bytes, len)?;
    Some(value)
}

/// Text that a checksum vouches for is what was written; for a store that checks nothing any bytes are text.
fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    Some(String::from_utf8_lossy(take(bytes, len)?).into_owned())
}

/// Reads a little-endian `u64` at `at`. `None` past the end.
pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The whole file.
pub(super) fn read_whole(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.len()? as usize];
    let found = read_full_at(file, &mut bytes, 0)?;
    bytes.truncate(found);
    Ok(bytes)
}

/// Whether the error says that there is no room, as opposed to a broken device.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error after which nobody knows what is on the device.
pub(super) fn broken(what: &str, e: &io::Error) -> SubjectError {
    SubjectError::Store(format!("cannot {what}: {e}"))
}

/// A full disk is an error that changes nothing; any other stops the store.
pub(super) fn full_or_broken(what: &str, e: &io::Error) -> SubjectError {
    if is_full(e) { SubjectError::Full(format!("no space left to {what}")) } else { broken(what, e) }
}

/// Bytes that are not what was written.
pub(super) fn damage(what: impl std::fmt::Display) -> SubjectError {
    SubjectError::Store(format!("{what}; the files were left as they are"))
}
