//! The typed store on a file system that leaves one kind of call out, or that mends checksums before the store
//! sees them: the store without its syncs, its renames, its cuts, its comparison. Nothing in the engine
//! is edited, and each of them must be convicted, or what it leaves out would be superfluous.

use crate::subject::typed::Typed;
use crate::subject::{Session, Site, Subject, SubjectError};
use engine::fs::{File, Fs, LockOutcome, read_full_at, write_all_at};
use engine::log::{Framing, Header, Parsed};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Syncs of files.
    FileSync,
    /// Syncs of the directory.
    DirSync,
    /// Making a file shorter.
    Truncate,
    /// Renames.
    Rename,
    /// Comparing a record with its checksum.
    Checksum,
}

pub(super) fn open(site: &Site<'_>, bug: Bug) -> Result<Box<dyn Session>, SubjectError> {
    Typed.open(&Site { fs: Arc::new(MutantFs { inner: Arc::clone(&site.fs), bug }), ..site.clone() })
}

#[derive(Debug)]
struct MutantFs {
    inner: Arc<dyn Fs>,
    bug: Bug,
}

#[derive(Debug)]
struct MutantFile {
    inner: Arc<dyn File>,
    bug: Bug,
}

impl MutantFs {
    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MutantFile { inner, bug: self.bug })
    }
}

impl Fs for MutantFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.inner.open(path)?;
        if self.bug == Bug::Checksum {
            mend(&*file)?;
        }
        Ok(self.file(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.bug == Bug::Rename { Ok(()) } else { self.inner.rename(from, to) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.bug == Bug::DirSync { Ok(()) } else { self.inner.sync_dir(dir) }
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock(path)
    }
}

impl File for MutantFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.bug == Bug::Truncate && len < self.inner.len()? { Ok(()) } else { self.inner.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.bug == Bug::FileSync { Ok(()) } else { self.inner.sync_data() }
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.bug == Bug::FileSync { Ok(()) } else { self.inner.sync_all() }
    }
}

/// Gives every record that has the shape of one the checksum of what it holds, so that comparing them finds
/// nothing.
fn mend(file: &dyn File) -> io::Result<()> {
    let mut bytes = vec![0; file.len()? as usize];
    let got = read_full_at(file, &mut bytes, 0)?;
    bytes.truncate(got);
    let mut at = Header::TypedLog.line().len();
    if !bytes.starts_with(Header::TypedLog.line()) {
        return Ok(());
    }
    while at < bytes.len() {
        at += match Framing::Text.parse(&bytes[at..]) {
            Parsed::Record(frame) => frame.len,
            _ => {
                let Some(mended) = with_checksum(&bytes[at..]) else { break };
                write_all_at(file, &mended, at as u64)?;
                mended.len()
            }
        };
    }
    Ok(())
}

/// The record at the start of these bytes under a checksum of its own, if it has the shape of one.
fn with_checksum(bytes: &[u8]) -> Option<Vec<u8>> {
    let space = bytes.iter().take(28).position(|&b| b == b' ')?;
    let token = std::str::from_utf8(bytes.get(2..space)?).ok()?;
    let mark = match token.get(8..)?.strip_prefix('@') {
        Some("") => Some(0),
        Some(digits) => Some(u64::from_str_radix(digits, 16).ok()?),
        None => None,
    };
    let start = space + 1;
    let ends = bytes[start..].iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(n, _)| start + n + 1);
    // A batch of many changes has many lines; no record of the workloads has more.
    ends.take(64).find_map(|end| {
        let (kind, body) = (bytes[0], &bytes[start..end]);
        let mut record = Vec::new();
        Framing::Text.encode(&mut record, kind, body, Framing::checksum(kind, body), mark);
        let whole = matches!(Framing::Text.parse(&record), Parsed::Record(frame) if frame.len == record.len());
        (whole && record.len() == end).then_some(record)
    })
}
