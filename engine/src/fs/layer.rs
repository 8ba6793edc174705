//! File systems over others, for whoever counts, watches or changes some calls and leaves the rest as they are.
//!
//! A call that a layer does not mention goes to what is below it: a new one needs no change in any layer, and none can
//! forget to hand it on. Calls that no layer has a way of its own with always do.

use super::{File, Fs, LockOutcome};
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// An [`Fs`] that hands every call to the one below, but for those that it has a way of its own with.
pub trait FsLayer: Send + Sync + Debug {
    /// What does the work.
    fn below(&self) -> &dyn Fs;

    /// What is handed out in place of a file that was opened or created at `path`.
    fn over(&self, _path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        file
    }

    /// As [`Fs::open`].
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.below().open(path).map(|file| self.over(path, file))
    }

    /// As [`Fs::create`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.below().create(path).map(|file| self.over(path, file))
    }

    /// As [`Fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.below().rename(from, to)
    }

    /// As [`Fs::remove`].
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.below().remove(path)
    }

    /// As [`Fs::sync_dir`].
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.below().sync_dir(dir)
    }

    /// As [`Fs::lock`].
    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.below().lock(path)
    }
}

impl<L: FsLayer> Fs for L {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        FsLayer::open(self, path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        FsLayer::create(self, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsLayer::rename(self, from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.below().link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FsLayer::remove(self, path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.below().create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.below().list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        FsLayer::sync_dir(self, dir)
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        FsLayer::lock(self, path)
    }
}

/// A [`File`] that hands every call to the one below, but for those that it has a way of its own with.
pub trait FileLayer: Send + Sync + Debug {
    /// What does the work.
    fn below(&self) -> &dyn File;

    /// As [`File::read_at`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.below().read_at(buf, offset)
    }

    /// As [`File::write_at`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.below().write_at(bytes, offset)
    }

    /// As [`File::written_len`].
    fn written_len(&self) -> io::Result<u64> {
        self.below().written_len()
    }

    /// As [`File::set_len`].
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below().set_len(len)
    }

    /// Both [`File::sync_data`] and [`File::sync_all`]: `sync` makes the same call of a file.
    fn sync(&self, sync: &dyn Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        sync(self.below())
    }
}

impl<L: FileLayer> File for L {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileLayer::read_at(self, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileLayer::write_at(self, bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.below().len()
    }

    fn written_len(&self) -> io::Result<u64> {
        FileLayer::written_len(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        FileLayer::set_len(self, len)
    }

    fn will_fill(&self, range: Range<u64>) {
        self.below().will_fill(range);
    }

    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        self.below().write_back(range)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(&|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(&|file| file.sync_all())
    }
}
