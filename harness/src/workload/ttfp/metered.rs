//! How long syncs take during the run itself: a disk that others use too is slower than its calibration.

use crate::measure::clock::Clock;
use engine::fs::{File, Fs, LockOutcome};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes every call on and times the syncs of files. Clones share their figures.
#[derive(Clone, Debug)]
pub(super) struct MeteredFs {
    inner: Arc<dyn Fs>,
    clock: Clock,
    spent: Arc<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    syncs: AtomicU64,
    ns: AtomicU64,
}

#[derive(Debug)]
struct MeteredFile {
    inner: Arc<dyn File>,
    clock: Clock,
    spent: Arc<Spent>,
}

impl MeteredFs {
    pub(super) fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, clock: Clock::start(), spent: Arc::default() }
    }

    /// Syncs that are done, and the nanoseconds they took together.
    pub(super) fn spent(&self) -> (u64, u64) {
        (self.spent.syncs.load(Ordering::Relaxed), self.spent.ns.load(Ordering::Relaxed))
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MeteredFile { inner, clock: self.clock, spent: Arc::clone(&self.spent) })
    }
}

impl MeteredFile {
    fn time(&self, sync: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let began = self.clock.now();
        sync(&*self.inner)?;
        self.spent.ns.fetch_add(self.clock.now() - began, Ordering::Relaxed);
        self.spent.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Fs for MeteredFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.inner.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.inner.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
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
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock(path)
    }
}

impl File for MeteredFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn written_len(&self) -> io::Result<u64> {
        self.inner.written_len()
    }

    fn will_fill(&self, range: Range<u64>) {
        self.inner.will_fill(range);
    }

    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        self.inner.write_back(range)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.time(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.time(|file| file.sync_all())
    }
}
