//! How long syncs take during the run itself: a disk that others use too is slower than its calibration.

use crate::measure::clock::Clock;
use engine::fs::{File, FileLayer, Fs, FsLayer};
use std::io;
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
}

impl FsLayer for MeteredFs {
    fn below(&self) -> &dyn Fs {
        &*self.inner
    }

    fn over(&self, _: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MeteredFile { inner, clock: self.clock, spent: Arc::clone(&self.spent) })
    }
}

impl FileLayer for MeteredFile {
    fn below(&self) -> &dyn File {
        &*self.inner
    }

    fn sync(&self, sync: &dyn Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let began = self.clock.now();
        sync(&*self.inner)?;
        self.spent.ns.fetch_add(self.clock.now() - began, Ordering::Relaxed);
        self.spent.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
