//! A file system that counts what a store calls for: the syncs behind each acknowledgement are part of
//! every latency that is compared.

use engine::fs::{File, Fs, LockOutcome};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
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

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CountingFile { inner, cells: Arc::clone(&self.cells) })
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

impl Fs for CountingFs {
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
        self.cells.dir_syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock(path)
    }
}

impl File for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let taken = self.inner.write_at(bytes, offset)?;
        self.cells.add_bytes(taken as u64);
        Ok(taken)
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
        self.cells.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.cells.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_all()
    }
}
