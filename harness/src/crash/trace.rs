//! A recorded run: the files it began with, every call, and every promise, in one order.

use engine::fs::{FsOp, Recorded};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

/// Files by path.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A recorded run. Positions are those of the recorder's counter: each begin, end and mark has its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Directories that were there when it began.
    pub dirs: Vec<PathBuf>,
    /// Files that were there when it began, numbered in this order; all on the device.
    #[serde(with = "file_bytes")]
    pub files: Files,
    /// Changing calls and syncs in the order of their beginnings.
    pub calls: Vec<Call>,
    /// What the driver noted in between.
    pub marks: Vec<(u64, Mark)>,
    /// The first position behind everything.
    pub end: u64,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// Position of its beginning.
    pub begun: u64,
    /// Position of its end; `None` if it never returned.
    pub ended: Option<u64>,
    /// Whether it succeeded.
    pub ok: bool,
}

/// A call's arguments. Files are numbers, because names move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are the arguments of the call")]
pub enum Op {
    Write {
        file: usize,
        offset: u64,
        #[serde(with = "bytes")]
        bytes: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
        data_only: bool,
    },
    Create {
        path: PathBuf,
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
}

/// A note of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named by what happened: a client's operation, by client and number")]
pub enum Mark {
    Begin {
        client: usize,
        number: usize,
    },
    Acked {
        client: usize,
        number: usize,
    },
    Failed {
        client: usize,
        number: usize,
    },
    /// Virtual time, nanoseconds since the run began.
    Time(u64),
    /// The store is open.
    Opened,
    /// Something that is no client's operation begins: a shrink, a sync, a close.
    Work,
}

/// The number of a file that was there or was created.
fn file(numbers: &BTreeMap<u64, usize>, inode: u64) -> usize {
    numbers.get(&inode).copied().unwrap_or(inode as usize)
}

impl Trace {
    /// A trace of what a recorder saw since it began with these files.
    pub fn new(dirs: Vec<PathBuf>, files: Files, entries: Vec<Recorded>) -> Self {
        let mut trace = Trace { dirs, files, ..Trace::default() };
        // In the order in which they appear: beside each other two creations may be numbered in one order and recorded in
        // the other.
        let mut numbers: BTreeMap<u64, usize> = (0..trace.files.len()).map(|file| (file as u64, file)).collect();
        for entry in entries {
            trace.end = trace.end.max(entry.begun + 1).max(entry.ended.map_or(0, |e| e + 1));
            let op = match entry.op {
                FsOp::Note { text } => {
                    trace.marks.extend(Mark::parse(&text).map(|mark| (entry.begun, mark)));
                    continue;
                }
                FsOp::Open { .. } => continue,
                FsOp::Create { path, inode } => {
                    let next = numbers.len();
                    match numbers.entry(inode) {
                        // An existing file keeps its number and is emptied, as O_TRUNC does.
                        Entry::Occupied(known) => Op::SetLen { file: *known.get(), len: 0 },
                        Entry::Vacant(new) => Op::Create { path, file: *new.insert(next) },
                    }
                }
                FsOp::Rename { from, to } => Op::Rename { from, to },
                FsOp::Link { from, to } => Op::Link { from, to },
                FsOp::Remove { path } => Op::Remove { path },
                FsOp::CreateDir { path } => Op::CreateDir { path },
                FsOp::SyncDir { dir } => Op::SyncDir { dir },
                FsOp::Write { inode, offset, bytes } => Op::Write { file: file(&numbers, inode), offset, bytes },
                FsOp::SetLen { inode, len } => Op::SetLen { file: file(&numbers, inode), len },
                FsOp::SyncData { inode } => Op::Sync { file: file(&numbers, inode), data_only: true },
                FsOp::SyncAll { inode } => Op::Sync { file: file(&numbers, inode), data_only: false },
            };
            trace.calls.push(Call { op, begun: entry.begun, ended: entry.ended, ok: entry.ok });
        }
        trace
    }

    /// The trace without some of its calls, as if the store had not made them.
    pub fn without(&self, dropped: &[usize]) -> Self {
        let mut trace = self.clone();
        let mut number = 0;
        trace.calls.retain(|_| {
            number += 1;
            !dropped.contains(&(number - 1))
        });
        trace
    }

    /// The trace with one more call, begun and ended right before `position`. Positions behind it move.
    pub fn with(&self, op: Op, position: u64) -> Self {
        let mut trace = self.clone();
        let moved = |p: u64| if p >= position { p + 2 } else { p };
        for call in &mut trace.calls {
            call.begun = moved(call.begun);
            call.ended = call.ended.map(moved);
        }
        for (at, _) in &mut trace.marks {
            *at = moved(*at);
        }
        trace.end += 2;
        let call = Call { op, begun: position, ended: Some(position + 1), ok: true };
        let place = trace.calls.partition_point(|c| c.begun < position);
        trace.calls.insert(place, call);
        trace
    }

    /// The path a file had last, for words about it.
    pub fn name_of(&self, file: usize) -> String {
        let mut path = self.files.keys().nth(file).cloned();
        for call in &self.calls {
            match &call.op {
                Op::Create { path: p, file: f } if *f == file => path = Some(p.clone()),
                Op::Rename { from, to } if path.as_ref() == Some(from) => path = Some(to.clone()),
                _ => {}
            }
        }
        path.map_or_else(|| format!("file {file}"), |p| short(&p))
    }

    /// A call in words, with its number.
    pub fn describe(&self, call: usize) -> String {
        let words = match &self.calls[call].op {
            Op::Write { file, offset, bytes } => {
                format!("write of {} bytes at {offset} of {}", bytes.len(), self.name_of(*file))
            }
            Op::SetLen { file, len } => format!("truncation of {} to {len} bytes", self.name_of(*file)),
            Op::Sync { file, .. } => format!("sync of {}", self.name_of(*file)),
            Op::Create { path, .. } => format!("creation of {}", short(path)),
            Op::Rename { from, to } => format!("rename of {} to {}", short(from), short(to)),
            Op::Link { from, to } => format!("link of {} to {}", short(to), short(from)),
            Op::Remove { path } => format!("removal of {}", short(path)),
            Op::CreateDir { path } => format!("creation of directory {}", short(path)),
            Op::SyncDir { dir } => format!("sync of directory {}", short(dir)),
        };
        format!("call {call}: {words}")
    }
}

/// The last component; the directory that the store was given has no name of interest.
fn short(path: &std::path::Path) -> String {
    if path.parent() == Some(std::path::Path::new("/")) {
        return "of the store".to_owned();
    }
    path.file_name().map_or_else(|| ".".to_owned(), |n| n.to_string_lossy().into_owned())
}

impl Op {
    /// Whether it changes nothing but durability.
    pub fn is_sync(&self) -> bool {
        matches!(self, Op::Sync { .. } | Op::SyncDir { .. })
    }
}

impl Mark {
    /// The note that a recorder keeps.
    pub fn note(self) -> String {
        match self {
            Mark::Begin { client, number } => format!("b {client} {number}"),
            Mark::Acked { client, number } => format!("a {client} {number}"),
            Mark::Failed { client, number } => format!("f {client} {number}"),
            Mark::Time(ns) => format!("t {ns}"),
            Mark::Opened => "o".to_owned(),
            Mark::Work => "w".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(match kind {
            "b" => Mark::Begin { client: number()? as usize, number: number()? as usize },
            "a" => Mark::Acked { client: number()? as usize, number: number()? as usize },
            "f" => Mark::Failed { client: number()? as usize, number: number()? as usize },
            "t" => Mark::Time(number()?),
            "o" => Mark::Opened,
            "w" => Mark::Work,
            _ => return None,
        })
    }
}

/// Bytes in JSON: as text where they are text, else in hexadecimal.
mod bytes {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Readable {
        Text(String),
        Hex(String),
    }

    pub(super) fn shown(bytes: &[u8]) -> Readable {
        match std::str::from_utf8(bytes) {
            Ok(text) => Readable::Text(text.to_owned()),
            Err(_) => Readable::Hex(bytes.iter().map(|b| format!("{b:02x}")).collect()),
        }
    }

    pub(super) fn read(readable: Readable) -> Option<Vec<u8>> {
        match readable {
            Readable::Text(text) => Some(text.into_bytes()),
            Readable::Hex(hex) => {
                let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
                let digits = digits.filter(|d| d.len().is_multiple_of(2))?;
                Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        shown(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        read(Readable::deserialize(from)?).ok_or_else(|| serde::de::Error::custom("bytes in hexadecimal have two digits each"))
    }
}

/// Whole files in JSON.
mod file_bytes {
    use super::bytes::{Readable, read, shown};
    use super::{BTreeMap, Deserialize, Deserializer, Files, PathBuf, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(files: &Files, to: S) -> Result<S::Ok, S::Error> {
        files.iter().map(|(path, bytes)| (path, shown(bytes))).collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Files, D::Error> {
        let files = BTreeMap::<PathBuf, Readable>::deserialize(from)?;
        let read = |(path, readable)| read(readable).map(|bytes| (path, bytes));
        files
            .into_iter()
            .map(read)
            .collect::<Option<_>>()
            .ok_or_else(|| serde::de::Error::custom("a file's bytes cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads create files: the second number is recorded first.
    #[test]
    fn creations_may_be_recorded_in_another_order_than_they_were_numbered() {
        let call = |op, begun| Recorded { op, begun, ended: Some(begun + 1), ok: true };
        let create = |name: &str, inode, begun| call(FsOp::Create { path: PathBuf::from(name), inode }, begun);
        let entries = vec![create("/b", 1, 0), create("/a", 0, 2), call(FsOp::SyncData { inode: 0 }, 4), create("/a", 0, 6)];
        let ops: Vec<Op> = Trace::new(Vec::new(), Files::new(), entries).calls.into_iter().map(|call| call.op).collect();
        let created = |name: &str, file| Op::Create { path: PathBuf::from(name), file };
        let sync = Op::Sync { file: 1, data_only: true };
        assert_eq!(ops, [created("/b", 0), created("/a", 1), sync, Op::SetLen { file: 1, len: 0 }]);
    }
}
