//! A file system that counts what a store calls for: the syncs behind each acknowledgement are part of
//! every latency that is compared.

use engine::fs::{File, FileLayer, Fs, FsLayer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a store called for so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Bytes written.
    pub bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
}

#[derive(Debug, Default)]
struct Cells {
    bytes: [Stripe; STRIPES],
    syncs: AtomicU64,
    dir_syncs: AtomicU64,
}

/// Threads add to different cache lines, so that counting bytes does not slow down what it measures.
const STRIPES: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Cells {
    fn add_bytes(&self, bytes: u64) {
        thread_local!(static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        self.bytes[STRIPE.with(|stripe| *stripe)].0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Passes every call on and counts it. Clones share their counters.
#[derive(Clone, Debug)]
pub struct CountingFs {
    inner: Arc<dyn Fs>,
    cells: Arc<Cells>,
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn File>,
    cells: Arc<Cells>,
}

impl CountingFs {
    /// Counts the calls that are made through it to `inner`.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, cells: Arc::default() }
    }

    /// The counters now.
    pub fn calls(&self) -> Calls {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let cells = &*self.cells;
        Calls {
            bytes: cells.bytes.iter().map(|stripe| load(&stripe.0)).sum(),
            syncs: load(&cells.syncs),
            dir_syncs: load(&cells.dir_syncs),
        }
    }
}

impl Calls {
    /// What was called for between `earlier` and now.
    pub fn since(self, earlier: Calls) -> Calls {
        Calls {
            bytes: self.bytes - earlier.bytes,
            syncs: self.syncs - earlier.syncs,
            dir_syncs: self.dir_syncs - earlier.dir_syncs,
        }
    }
}

impl FsLayer for CountingFs {
    fn below(&self) -> &dyn Fs {
        &*self.inner
    }

    fn over(&self, _: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CountingFile { inner, cells: Arc::clone(&self.cells) })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.cells.dir_syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_dir(dir)
    }
}

impl FileLayer for CountingFile {
    fn below(&self) -> &dyn File {
        &*self.inner
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let taken = self.inner.write_at(bytes, offset)?;
        self.cells.add_bytes(taken as u64);
        Ok(taken)
    }

    fn sync(&self, sync: &dyn Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        self.cells.syncs.fetch_add(1, Ordering::Relaxed);
        sync(&*self.inner)
    }
}
