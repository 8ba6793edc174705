//! A store of the engine on a file system that leaves one kind of call out, makes it too late or too early, or
//! mends checksums before the store sees them. Nothing in the engine is edited, and each of these must be
//! convicted, or what it leaves out would be superfluous.

use crate::subject::fifo::Fifo;
use crate::subject::lsm::Lsm;
use crate::subject::typed::Typed;
use crate::subject::{Session, Site, Subject, SubjectError};
use engine::fs::{File, FileLayer, Fs, FsLayer, read_full_at, write_all_at};
use engine::log::{Framing, Header, Parsed};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What is left out or misplaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Syncs of files whose names end like this.
    FileSync(&'static str),
    /// Syncs of the directory.
    DirSync,
    /// The directory is synced only after something was removed.
    LateDirSync,
    /// Files whose names end like this are synced only after something was removed.
    LateFileSync(&'static str),
    /// Making a file shorter.
    Truncate,
    /// Renames.
    Rename,
    /// Comparing a record with its checksum.
    Checksum,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Typed,
    Lsm,
    Fifo,
}

pub(super) fn open(site: &Site<'_>, victim: Victim, bug: Bug) -> Result<Box<dyn Session>, SubjectError> {
    let fs = Arc::new(MutantFs { inner: Arc::clone(&site.fs), bug, late: Late::default() });
    let site = Site { fs, ..site.clone() };
    match victim {
        Victim::Typed => Typed.open(&site),
        Victim::Lsm => Lsm::SMALL.open(&site),
        Victim::Fifo => Fifo::SMALL.open(&site),
    }
}

#[derive(Debug)]
struct MutantFs {
    inner: Arc<dyn Fs>,
    bug: Bug,
    late: Late,
}

/// What is to be synced after the next removal.
#[derive(Clone, Debug, Default)]
struct Late(Arc<Mutex<Vec<Due>>>);

#[derive(Debug)]
enum Due {
    Dir(PathBuf),
    File(Arc<dyn File>),
}

impl Late {
    fn put_off(&self, due: Due) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(due);
        Ok(())
    }

    fn take(&self) -> Vec<Due> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct MutantFile {
    inner: Arc<dyn File>,
    /// The bug, if it is one of this file.
    bug: Option<Bug>,
    late: Late,
}

impl FsLayer for MutantFs {
    fn below(&self) -> &dyn Fs {
        &*self.inner
    }

    fn over(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let concerns = match self.bug {
            Bug::FileSync(ending) | Bug::LateFileSync(ending) => {
                // A draft is the file that it becomes.
                let name = path.as_os_str().as_encoded_bytes();
                name.strip_suffix(b".new").unwrap_or(name).ends_with(ending.as_bytes())
            }
            _ => true,
        };
        Arc::new(MutantFile { inner, bug: concerns.then_some(self.bug), late: self.late.clone() })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.inner.open(path)?;
        if self.bug == Bug::Checksum {
            mend(&*file)?;
        }
        Ok(self.over(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.bug == Bug::Rename { Ok(()) } else { self.inner.rename(from, to) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        self.late.take().into_iter().try_for_each(|due| match due {
            Due::Dir(dir) => self.inner.sync_dir(&dir),
            Due::File(file) => file.sync_all(),
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.bug {
            Bug::DirSync => Ok(()),
            Bug::LateDirSync => self.late.put_off(Due::Dir(dir.to_owned())),
            _ => self.inner.sync_dir(dir),
        }
    }
}

impl FileLayer for MutantFile {
    fn below(&self) -> &dyn File {
        &*self.inner
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.bug == Some(Bug::Truncate) && len < self.inner.len()? { Ok(()) } else { self.inner.set_len(len) }
    }

    fn sync(&self, sync: &dyn Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        match self.bug {
            Some(Bug::FileSync(_)) => Ok(()),
            Some(Bug::LateFileSync(_)) => self.late.put_off(Due::File(Arc::clone(&self.inner))),
            _ => sync(&*self.inner),
        }
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
