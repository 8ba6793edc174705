//! The storage seam: every byte a store keeps goes through these two traits.
//!
//! Each verb says what it promises about durability, because crash states are derived from exactly
//! these calls. Nobody writes in another way: [`RealFs`] may put the bytes of a [`File::write_at`] where they belong
//! through a mapping, but a store never gets hold of one, because a trace could not see its writes.
//!
//! **Invariant:** a name becomes durable only by [`Fs::sync_dir`] of its directory; bytes and length
//! only by a sync of their file.

mod failing;
mod layer;
mod mem;
mod real;
mod room;
mod trace;
mod write_back;

pub use failing::{CallKind, FailingFs, Fault, Plan};
pub use layer::{FileLayer, FsLayer};
pub use mem::MemFs;
pub use real::RealFs;
pub use trace::{FsOp, Recorded, Recorder, TraceFs};

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Names: files in directories.
pub trait Fs: Send + Sync + Debug {
    /// Opens an existing file for reading and writing. Changes nothing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates an empty file, or empties an existing one. The name is volatile until
    /// [`Fs::sync_dir`], the emptying until a sync of the file.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing `to` atomically for whoever looks. Volatile until the directory is
    /// synced; the contents are not synced by it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must be free. Volatile until the directory of `to` is synced.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Volatile until the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents. Volatile until their parents are synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Makes every name created, renamed or removed in `dir` before this call durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock that `path` stands for, creating the file. Held until the returned
    /// value is dropped or the process ends, however it ends. Promises nothing about durability.
    fn lock(&self, path: &Path) -> io::Result<LockOutcome>;
}

/// The bytes of one file. Handles stay valid when the file is renamed or removed.
#[expect(clippy::len_without_is_empty, reason = "a length that can fail; nobody asks whether a log is empty")]
pub trait File: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes at `offset`; zero at or past the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes bytes at `offset`, possibly fewer than given. In the kernel when it returns: survives
    /// the process, not power loss.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Where that ends which was ever written: from there to the length the file reads as zeros. For whoever would
    /// read a long stretch only to find nothing; to say the length is never wrong.
    fn written_len(&self) -> io::Result<u64> {
        self.len()
    }
    /// Cuts the file, or extends it with zeros. Volatile until a sync.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Says that small writes are going to fill bytes that the file already has, and that nobody will cut the file but
    /// through this handle. Changes nothing, and promises nothing; they may cost less.
    fn will_fill(&self, _range: Range<u64>) {}
    /// Waits for what of these bytes is on its way to the device, and sends the rest on its way. For whoever writes much and
    /// syncs at the end: the device has less to do then, and never so much at once that readers wait for it. Makes nothing
    /// durable; an error is that of a failed sync, and no later sync tells it again.
    fn write_back(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }
    /// Makes bytes and length written before this call durable (`fdatasync`). After an error nothing
    /// written since the last successful sync may be treated as durable, even if a later sync works.
    fn sync_data(&self) -> io::Result<()>;
    /// As [`File::sync_data`], and the rest of the inode too (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}

/// What became of an attempt to take a lock.
#[derive(Debug)]
pub enum LockOutcome {
    /// It is ours until this value is dropped.
    Held(Box<dyn Lock>),
    /// Somebody else has it.
    Busy {
        /// The process that holds it, when the file says so.
        pid: Option<u32>,
    },
}

/// A lock that is held; dropping it releases it.
pub trait Lock: Send + Sync + Debug {}

/// Writes all of `bytes` at `offset`, going on after short writes. On error the bytes before the
/// failing call are in the file.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills as much of `buf` as the file has at `offset`; the number of bytes read.
pub fn read_full_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}
