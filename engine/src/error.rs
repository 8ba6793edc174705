//! What can go wrong in a store, said so that a person can act on it.
//!
//! Every message names the thing (a path, a key, an offset) and, where there is one, the remedy.
//! Errors are cheap to clone because one failed group commit answers many callers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call; nothing of the operation is promised.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: `open`, `write to`, `sync`, …
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own words.
        source: Arc<io::Error>,
    },
    /// No room on the device. The log was cut back to its last whole record and the store goes on
    /// as soon as there is room.
    #[error("no space left for {}; nothing of this write was kept, free some space and try again", path.display())]
    Full {
        /// The log that could not grow.
        path: PathBuf,
    },
    /// Bytes that were once written whole are not what they were.
    #[error("{} is damaged at byte {offset}: {what}; {remedy}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Offset of the first damaged byte's record.
        offset: u64,
        /// What was found.
        what: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// A sync, or the repair of a failed write, failed earlier: what is on the device is unknown.
    #[error("store {} stopped after a failed {op} ({source}); reopen it to see what survived", path.display())]
    Poisoned {
        /// The store's file.
        path: PathBuf,
        /// The call that failed: `sync`, `write`, …
        op: &'static str,
        /// The failure that poisoned the store.
        source: Arc<io::Error>,
    },
    /// The store was closed while a handle of one of its maps was still in use.
    #[error("store {} is closed; nothing was changed", path.display())]
    Closed {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the store open.
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    Locked {
        /// The store's file.
        path: PathBuf,
        /// The process that holds it, when it could be read.
        pid: Option<u32>,
    },
    /// A key that would break the format or alias another map.
    #[error("key {key:?} is not allowed: {why}")]
    InvalidKey {
        /// The refused key.
        key: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A map name that would break the format or alias another map.
    #[error("map name {name:?} is not allowed: {why}")]
    InvalidName {
        /// The refused name.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A value that does not become, or no longer comes from, its stored form.
    #[error("value of key {key:?} in map {map:?} does not fit its type: {why}; the file was left as it is")]
    Value {
        /// The map; empty for the store's own keys.
        map: String,
        /// The key.
        key: String,
        /// The serialiser's own words.
        why: String,
    },
    /// A map was opened a second time with another value type.
    #[error("map {map:?} is already open with values of type {open}")]
    MapType {
        /// The map.
        map: String,
        /// The type it was opened with.
        open: &'static str,
    },
    /// The file is not one of ours.
    #[error("{} is not a store this version can open: it starts with {found:?}; a typed store starts with \"typed-log 1\" or \"go-persist 1\", an LSM store's manifest with \"manifest 1\", a file of a queue with \"fifo 1\" or \"deletes 1\"", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// A queue has as many files as it may have, and the last one is full.
    #[error("{} is full: it has all of its {files} files; take entries out, or raise max_files; nothing was written", path.display())]
    NoRoom {
        /// The store's directory.
        path: PathBuf,
        /// How many files there are.
        files: usize,
    },
    /// An entry or a batch that no file of the queue can hold.
    #[error("{len} bytes are more than the {limit} that one write may have; raise max_file_size or write less at once")]
    TooLarge {
        /// Bytes, with their framing.
        len: u64,
        /// The most that fits.
        limit: u64,
    },
    /// No entry has this index: it is deleted, or was never written.
    #[error("{} has no entry {index}", path.display())]
    NotFound {
        /// The store's directory.
        path: PathBuf,
        /// The index.
        index: u64,
    },
    /// An entry that does not become, or no longer comes from, its stored form.
    #[error("an entry does not fit its type: {why}; nothing was changed")]
    Entry {
        /// The serialiser's own words.
        why: String,
    },
    /// Something that the transaction read was changed by another one that committed first.
    #[error("the transaction conflicts with one that committed first; nothing was changed, run it again")]
    Conflict,
    /// A shrink is already running on this store.
    #[error("a shrink of {} is already running", path.display())]
    ShrinkInProgress {
        /// The store's file.
        path: PathBuf,
    },
    /// An option that makes no sense.
    #[error("option {option} = {value} is not valid: {why}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The value given.
        value: String,
        /// The rule it breaks.
        why: &'static str,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}; close it first"),
        None => "another process; close it first".to_owned(),
    }
}

impl Error {
    /// Wraps a failed call on `path`.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Error::Full { path: path.to_owned() };
        }
        Error::Io { op, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Bytes of a store's file that are not what was written there.
    pub(crate) fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        let remedy = "open it with salvage to keep what is intact".to_owned();
        Error::Corrupt { file: file.to_owned(), offset, what: what.into(), remedy }
    }
}

/// Whether the system says that there is no room (`ENOSPC`, `EDQUOT`), as opposed to a broken device.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
