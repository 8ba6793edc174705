//! A file system that tells, through the shared history, in which moment the store is.
//!
//! The engine knows nothing of it. When a kill is aimed at a moment too short to be met by chance, the
//! probe lingers there, inside the call, until it is killed or patience ends; a write of a mebibyte
//! takes long enough by itself and is killed inside the kernel.

use crate::history::{History, Moment};
use engine::fs::{File, FileLayer, Fs, FsLayer, LockOutcome};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Writes of at least this size are "inside a 1 MiB write".
const BIG: usize = 1 << 20;
/// How long the probe waits to be killed.
const PATIENCE: Duration = Duration::from_millis(200);

/// Which occurrence of which moment the kill is aimed at.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// The moment.
    pub moment: Moment,
    /// Occurrences to let pass.
    pub skip: u64,
}

/// A file system that announces moments.
#[derive(Clone, Debug)]
pub struct ProbeFs {
    inner: Arc<dyn Fs>,
    probe: Arc<Probe>,
}

#[derive(Debug)]
struct Probe {
    history: Arc<History>,
    aim: Option<Aim>,
    seen: AtomicU64,
    opening: AtomicBool,
    /// Files created after the store was opened and not renamed yet.
    drafts: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug)]
struct ProbeFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    probe: Arc<Probe>,
}

impl ProbeFs {
    /// Announces the moments of calls made through it, and lingers where `aim` says.
    pub fn new(inner: Arc<dyn Fs>, history: Arc<History>, aim: Option<Aim>) -> Self {
        let probe = Probe { history, aim, seen: AtomicU64::new(0), opening: AtomicBool::new(false), drafts: Mutex::default() };
        Self { inner, probe: Arc::new(probe) }
    }

    /// Around the opening of a store that exists: everything inside is recovery.
    pub fn opening(&self, is_recovery: bool) {
        self.probe.opening.store(true, Ordering::SeqCst);
        if is_recovery {
            self.probe.history.enter(Moment::Recovery);
        }
    }

    /// The store is open; if it was `created` just now, that is a moment of its own.
    pub fn opened(&self, created: bool) {
        self.probe.opening.store(false, Ordering::SeqCst);
        self.probe.history.enter(Moment::Elsewhere);
        if created {
            self.probe.at(Moment::Creation, || ());
        }
    }
}

impl Probe {
    /// Announces a moment, unless another thread waits in its own to be killed.
    fn enter(&self, moment: Moment) {
        if !self.history.is_lingering() {
            self.history.enter(moment);
        }
    }

    /// Runs a call in the moment; lingers before it if the kill is aimed here.
    fn at<R>(&self, moment: Moment, call: impl FnOnce() -> R) -> R {
        self.enter(moment);
        self.linger(moment);
        let result = call();
        self.enter(Moment::Elsewhere);
        result
    }

    fn linger(&self, moment: Moment) {
        if let Some(aim) = self.aim
            && aim.moment == moment
            && self.seen.fetch_add(1, Ordering::SeqCst) == aim.skip
        {
            self.history.set_lingering();
            thread::sleep(PATIENCE);
        }
    }

    /// Every call while opening is a place to be killed in recovery.
    fn recovering(&self) {
        if self.opening.load(Ordering::Relaxed) && self.history.moment() == Moment::Recovery {
            self.linger(Moment::Recovery);
        }
    }

    fn is_draft(&self, path: &Path) -> bool {
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }
}

impl FsLayer for ProbeFs {
    fn below(&self) -> &dyn Fs {
        &*self.inner
    }

    fn over(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(ProbeFile { inner, path: path.to_owned(), probe: Arc::clone(&self.probe) })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.probe.recovering();
        Ok(self.over(path, self.inner.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.probe.recovering();
        if !self.probe.opening.load(Ordering::SeqCst) {
            self.probe.drafts.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        }
        Ok(self.over(path, self.inner.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.probe.recovering();
        self.inner.rename(from, to)?;
        let was_draft = self.probe.drafts.lock().unwrap_or_else(PoisonError::into_inner).remove(from);
        if was_draft {
            // Left when the directory is synced.
            self.probe.enter(Moment::AfterRename);
            self.probe.linger(Moment::AfterRename);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.probe.recovering();
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.probe.recovering();
        let result = self.inner.sync_dir(dir);
        if self.probe.history.moment() == Moment::AfterRename {
            self.probe.enter(Moment::Elsewhere);
        }
        result
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.probe.recovering();
        self.inner.lock(path)
    }
}

impl FileLayer for ProbeFile {
    fn below(&self) -> &dyn File {
        &*self.inner
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.probe.recovering();
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.probe.opening.load(Ordering::Relaxed) {
            self.probe.recovering();
            return self.inner.write_at(bytes, offset);
        }
        if self.probe.is_draft(&self.path) {
            return self.probe.at(Moment::ShrinkCopy, || self.inner.write_at(bytes, offset));
        }
        if self.probe.aim.is_some_and(|aim| aim.moment == Moment::BeforeWrite) {
            return self.probe.at(Moment::BeforeWrite, || self.inner.write_at(bytes, offset));
        }
        if bytes.len() < BIG {
            return self.inner.write_at(bytes, offset);
        }
        // No lingering: the kernel itself is at work long enough, and cuts the write where it is killed.
        self.probe.enter(Moment::InsideWrite);
        let result = self.inner.write_at(bytes, offset);
        self.probe.enter(Moment::Elsewhere);
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.probe.recovering();
        self.inner.set_len(len)
    }

    fn sync(&self, sync: &dyn Fn(&dyn File) -> io::Result<()>) -> io::Result<()> {
        self.probe.recovering();
        sync(&*self.inner)
    }
}
