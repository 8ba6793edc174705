//! Backups: what a store held at one moment, or what changed since an earlier one, as a stream, while writes go on.
//!
//! ```text
//! backup = "lsm-backup 1" LF, (set | delete)*, end         (binary framing of the log)
//! set    = kind S, body: end of the value as Unix time: varint (0 for none), key length: varint, key, value
//! delete = kind D, body: key                               (in incremental backups only)
//! end    = kind E, body: since, through, records; u64 LE each
//! ```
//!
//! An incremental backup needs the deletes of its span. Compactions keep those that no backup has yet, from the first
//! backup on; the manifest says up to where deletes were dropped.

use super::cursor::{Cursor, Direction};
use super::entry::{Changes, sized};
use super::store::Core;
use super::view::{View, end_of};
use crate::codec::{push_varint, read_varint};
use crate::error::{Error, Result};
use crate::log::{Framing, Parsed};
use crate::sync_policy::Durability;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

const HEADER: &[u8] = b"lsm-backup 1\n";
/// Bytes that are written together: of a backup to its stream, and of what is taken in to the store.
const GATHER: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// The version that it begins behind; 0 for a whole one.
    pub since: u64,
    /// The version up to which it holds everything: the `since` of the next incremental one.
    pub through: u64,
    /// Keys in it, deleted ones included.
    pub records: u64,
}

/// Writes everything that changed after version `since`.
pub(super) fn write(core: &Core, out: &mut dyn Write, since: u64) -> Result<Backup> {
    let through = core.hold();
    // What a crash takes is numbered anew: an incremental backup behind it would miss what came then.
    let written = core.sync().and_then(|()| write_held(core, out, since, through));
    core.release(through);
    let backup = written?;
    core.remember_backup(through)?;
    Ok(backup)
}

fn write_held(core: &Core, out: &mut dyn Write, since: u64, through: u64) -> Result<Backup> {
    let view = Arc::clone(&core.view());
    let dropped = view.version.levels.dropped;
    if since > 0 && since < dropped {
        let why = "deletes behind it were compacted away; make a whole backup, with since = 0";
        return Err(Error::Option { option: "since", value: since.to_string(), why });
    }
    let mut frames = Frames { out, buffer: HEADER.to_vec() };
    let mut backup = Backup { since, through, records: 0 };
    each_change(core, &view, since, through, &mut |key, end, value| {
        let mut body = Vec::new();
        match value {
            None if since == 0 => return Ok(()),
            None => body.extend_from_slice(key),
            Some(value) => {
                push_varint(&mut body, end.unwrap_or(0));
                push_varint(&mut body, key.len() as u64);
                body.extend_from_slice(key);
                body.extend_from_slice(value);
            }
        }
        backup.records += 1;
        frames.push(if value.is_some() { b'S' } else { b'D' }, &body)
    })?;
    let end: Vec<u8> = [backup.since, backup.through, backup.records].into_iter().flat_map(u64::to_le_bytes).collect();
    frames.push(b'E', &end)?;
    frames.flush()?;
    Ok(backup)
}

/// Is shown a key, when its value ends, and the value, `None` for a deleted one.
pub(super) type Show<'a> = dyn FnMut(&[u8], Option<u64>, Option<&[u8]>) -> Result<()> + 'a;

/// Shows, in order, every key that was written after version `since`, as of version `through`.
pub(super) fn each_change(core: &Core, view: &View, since: u64, through: u64, show: &mut Show<'_>) -> Result<()> {
    let mut merge = view.merge(Direction::Forward, since);
    merge.place(|cursor: &mut dyn Cursor| cursor.first())?;
    let (now, mut last) = (core.options.clock.now(), None::<Vec<u8>>);
    while let Some((key, tag, stored)) = merge.current() {
        if tag.seq() <= through && last.as_deref() != Some(key) {
            last = Some(key.to_vec());
            if tag.seq() > since {
                match view.value_of(&core.dir, key, tag, stored, now)? {
                    None => show(key, None, None)?,
                    Some(value) => show(key, end_of(tag, stored), Some(&value))?,
                }
            }
        }
        merge.step()?;
    }
    Ok(())
}

struct Frames<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl Frames<'_> {
    fn push(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        Framing::Binary.encode(&mut self.buffer, kind, body, Framing::checksum(kind, body), None);
        if self.buffer.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.out.write_all(&self.buffer).and_then(|()| self.out.flush()).map_err(|e| Error::io("write to", stream(), e))?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes what a backup holds into the store, a mebibyte at a time.
pub(super) fn load(core: &Core, input: &mut dyn Read, level: Durability) -> Result<Backup> {
    let mut reader = Reader { input, buffer: Vec::new(), at: 0, offset: 0 };
    while reader.buffer.len() < HEADER.len() && reader.fill()? {}
    if !reader.buffer.starts_with(HEADER) {
        let found = String::from_utf8_lossy(&reader.buffer[..reader.buffer.len().min(16)]).into_owned();
        return Err(Error::Format { file: stream().to_owned(), found });
    }
    reader.skip(HEADER.len());
    let (mut intake, mut records) = (Intake::new(core, level), 0);
    loop {
        let offset = reader.offset;
        let wrong = |what: &str| corrupt(offset, what);
        let (kind, body) = reader.next()?.ok_or_else(|| wrong("it ends without its last record"))?;
        match kind {
            b'S' => {
                let (expires, at) = read_varint(&body).ok_or_else(|| wrong("a value without a key"))?;
                let (key, value) = sized(&body[at..]).ok_or_else(|| wrong("a value without a key"))?;
                intake.change(body.len(), |changes| changes.put(key, value, (expires > 0).then_some(expires)))?;
            }
            b'D' => intake.change(body.len(), |changes| changes.delete(&body))?,
            b'E' => {
                let mut numbers = body.chunks_exact(8).filter_map(|c| c.first_chunk().map(|b| u64::from_le_bytes(*b)));
                let mut number = || numbers.next().ok_or_else(|| wrong("a last record that makes no sense"));
                let backup = Backup { since: number()?, through: number()?, records: number()? };
                if backup.records != records {
                    return Err(wrong("it has lost some of its records"));
                }
                intake.end()?;
                return Ok(backup);
            }
            _ => return Err(wrong("a record that does not belong here")),
        }
        records += 1;
    }
}

/// Changes that come in a long row and are written a mebibyte at a time.
pub(super) struct Intake<'a> {
    core: &'a Core,
    level: Durability,
    changes: Changes,
    held: usize,
}

impl<'a> Intake<'a> {
    pub(super) fn new(core: &'a Core, level: Durability) -> Self {
        Self { core, level, changes: Changes::default(), held: 0 }
    }

    /// Takes a change of about so many bytes.
    pub(super) fn change(&mut self, bytes: usize, make: impl FnOnce(&mut Changes)) -> Result<()> {
        make(&mut self.changes);
        self.held += bytes;
        if self.held >= GATHER { self.write() } else { Ok(()) }
    }

    /// Writes what is left. Even nothing settles what was acknowledged before.
    pub(super) fn end(mut self) -> Result<()> {
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.held = 0;
        self.core.write(&mut std::mem::take(&mut self.changes), self.level, &mut || Ok(()))
    }
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    buffer: Vec<u8>,
    at: usize,
    offset: u64,
}

impl Reader<'_> {
    /// Reads more; false at the end.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..std::mem::take(&mut self.at));
        let held = self.buffer.len();
        self.buffer.resize(held + GATHER.max(held), 0);
        let got = loop {
            match self.input.read(&mut self.buffer[held..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let got = got.map_err(|e| Error::io("read", stream(), e))?;
        self.buffer.truncate(held + got);
        Ok(got > 0)
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        self.offset += bytes as u64;
    }

    fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            match Framing::Binary.parse(&self.buffer[self.at..]) {
                Parsed::Record(frame) => {
                    let body = self.buffer[self.at + frame.body.start..self.at + frame.body.end].to_vec();
                    self.skip(frame.len);
                    return Ok(Some((frame.kind, body)));
                }
                Parsed::Damaged(damage) => return Err(corrupt(self.offset, &damage.what)),
                Parsed::Incomplete if !self.fill()? => return Ok(None),
                Parsed::Incomplete => {}
            }
        }
    }
}

/// What stands for the stream in messages.
fn stream() -> &'static Path {
    Path::new("the backup")
}

fn corrupt(offset: u64, what: &str) -> Error {
    Error::Corrupt {
        file: stream().to_owned(),
        offset,
        what: what.to_owned(),
        remedy: "load another backup into an empty store: what came before this place was loaded".to_owned(),
    }
}
