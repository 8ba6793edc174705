//! The files of a log: headers, names, and how one comes into being.

use super::Framing;
use crate::error::{Error, Result};
use crate::fs::{File, Fs, Lock, LockOutcome, parent, read_full_at, write_all_at};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Readable records of the typed store.
    TypedLog,
    /// A file of go-persist.
    GoPersist,
    /// Binary records of a store's write-ahead log.
    Wal,
    /// Binary records that say which files make up a store.
    Manifest,
    /// Binary records of large values.
    Values,
    /// Binary records of a queue's entries.
    Fifo,
    /// Binary records that say which entries of a queue are gone.
    Deletes,
}

impl Header {
    const ALL: [Header; 7] =
        [Header::TypedLog, Header::GoPersist, Header::Wal, Header::Manifest, Header::Values, Header::Fifo, Header::Deletes];

    /// The line, newline included.
    pub fn line(self) -> &'static [u8] {
        match self {
            Header::TypedLog => b"typed-log 1\n",
            Header::GoPersist => b"go-persist 1\n",
            Header::Wal => b"wal 1\n",
            Header::Manifest => b"manifest 1\n",
            Header::Values => b"values 1\n",
            Header::Fifo => b"fifo 1\n",
            Header::Deletes => b"deletes 1\n",
        }
    }

    /// The framing of what follows.
    pub fn framing(self) -> Framing {
        match self {
            Header::TypedLog => Framing::Text,
            Header::GoPersist => Framing::GoPersist,
            Header::Wal | Header::Manifest | Header::Values | Header::Fifo | Header::Deletes => Framing::Binary,
        }
    }
}

/// Reads the header of a log. `None` for an empty file.
///
/// # Errors
/// [`Error::Format`] when it is not a log of ours, [`Error::Io`].
pub fn identify(file: &dyn File, path: &Path) -> Result<Option<Header>> {
    let mut head = [0; 32];
    let n = read_full_at(file, &mut head, 0).map_err(|e| Error::io("read", path, e))?;
    if n == 0 {
        return Ok(None);
    }
    let found = Header::ALL.into_iter().find(|h| head[..n].starts_with(h.line()));
    found
        .map(Some)
        .ok_or_else(|| Error::Format { file: path.to_owned(), found: String::from_utf8_lossy(&head[..n.min(16)]).into_owned() })
}

/// Creates a log that holds `content` behind its header, so that no crash leaves a partial one: it is
/// written and synced under another name, renamed, and the directory synced. It is `room` bytes long from the start,
/// zeros at its end, for logs whose framing can tell: a sync that changes no length is a third faster on ext4.
pub fn create_segment(fs: &dyn Fs, path: &Path, header: Header, content: &[u8], room: u64) -> Result<Arc<dyn File>> {
    let file = draft_segment(fs, path, header, content, room)?;
    publish_segment(fs, path)?;
    Ok(file)
}

/// The first half of [`create_segment`]: the whole log, synced, under a draft's name. Whatever goes wrong, nothing
/// happened to `path`.
pub(crate) fn draft_segment(fs: &dyn Fs, path: &Path, header: Header, content: &[u8], room: u64) -> Result<Arc<dyn File>> {
    let draft = beside(path, "new");
    let file = fs.create(&draft).map_err(|e| Error::io("create", &draft, e))?;
    let whole = [header.line(), content].concat();
    let longer = || if room > whole.len() as u64 { file.set_len(room) } else { Ok(()) };
    let written = write_all_at(&*file, &whole, 0).and_then(|()| longer()).and_then(|()| file.sync_all());
    written.map_err(|e| Error::io("write to", &draft, e))?;
    Ok(file)
}

/// The second half of [`create_segment`]. After a failure nobody knows which file the name is of.
pub(crate) fn publish_segment(fs: &dyn Fs, path: &Path) -> Result<()> {
    publish(fs, &beside(path, "new"), path)
}

/// Renames a synced file to its final name and makes the name durable.
pub(crate) fn publish(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    fs.rename(from, to).map_err(|e| Error::io("rename", from, e))?;
    fs.sync_dir(parent(to)).map_err(|e| Error::io("sync", parent(to), e))
}

/// `path` with a further extension: the names of a log's companions.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// Removes a leftover, which need not exist.
pub(crate) fn remove_leftover(fs: &dyn Fs, path: &Path) -> Result<()> {
    match fs.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Takes the lock of a store, for as long as it is open.
pub(crate) fn take_lock(fs: &dyn Fs, file: &Path, store: &Path) -> Result<Box<dyn Lock>> {
    match fs.lock(file).map_err(|e| Error::io("lock", file, e))? {
        LockOutcome::Held(lock) => Ok(lock),
        LockOutcome::Busy { pid } => Err(Error::Locked { path: store.to_owned(), pid }),
    }
}

/// The name of the n-th segment of a sequence; names sort as numbers do.
pub fn segment_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The number of a segment, if the name is one.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}
