//! A wrapper that records every changing call with its bytes, as issued and in order.
//!
//! Loss is not decided here: a fault model reads the trace later. Events share one counter, so begins
//! and ends of concurrent calls, and whatever else a test notes in between, have one total order.

use super::{File, Fs, LockOutcome, MemFs};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One changing call. Files are named by `inode`, a number given at creation or first opening, because
/// names move.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments of the call of the same name")]
pub enum FsOp {
    Open {
        path: PathBuf,
        inode: u64,
    },
    Create {
        path: PathBuf,
        inode: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    Write {
        inode: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        inode: u64,
        len: u64,
    },
    SyncData {
        inode: u64,
    },
    SyncAll {
        inode: u64,
    },
    /// Not a call: a note of the test, such as "client 3 was acknowledged".
    Note {
        text: String,
    },
}

impl FsOp {
    /// Whether it changes names, bytes or sizes, rather than only their durability.
    pub fn changes(&self) -> bool {
        use FsOp::{Create, CreateDir, Link, Remove, Rename, SetLen, Write};
        matches!(
            self,
            Create { .. } | CreateDir { .. } | Link { .. } | Remove { .. } | Rename { .. } | SetLen { .. } | Write { .. }
        )
    }
}

/// One entry of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What was called.
    pub op: FsOp,
    /// Position of its begin in the total order.
    pub begun: u64,
    /// Position of its end; `None` while in flight.
    pub ended: Option<u64>,
    /// Whether it succeeded; for a write, how many bytes were taken is in `op`.
    pub ok: bool,
}

/// The shared record of a traced file system.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    entries: Vec<Recorded>,
    inodes: Vec<(PathBuf, u64)>,
    next_inode: u64,
}

impl Recorder {
    /// Everything recorded so far.
    pub fn entries(&self) -> Vec<Recorded> {
        self.state().entries.clone()
    }

    /// How many syncs there are among the entries from `from` on, and how many entries there are.
    pub fn syncs_since(&self, from: usize) -> (u64, usize) {
        let state = self.state();
        let is_sync = |e: &&Recorded| matches!(e.op, FsOp::SyncData { .. } | FsOp::SyncAll { .. } | FsOp::SyncDir { .. });
        (state.entries[from..].iter().filter(is_sync).count() as u64, state.entries.len())
    }

    /// Gives files that exist already their numbers, counted up in this order.
    fn know<'p>(&self, paths: impl IntoIterator<Item = &'p PathBuf>) {
        let mut state = self.state();
        for path in paths {
            let inode = state.next_inode;
            state.next_inode += 1;
            state.inodes.push((path.clone(), inode));
        }
    }

    /// Puts a note of the test into the total order.
    pub fn note(&self, text: impl Into<String>) {
        let slot = self.begin(FsOp::Note { text: text.into() });
        self.end(slot, true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, op: FsOp) -> usize {
        let mut state = self.state();
        let begun = state.clock;
        state.clock += 1;
        state.entries.push(Recorded { op, begun, ended: None, ok: false });
        state.entries.len() - 1
    }

    fn end(&self, slot: usize, ok: bool) {
        let mut state = self.state();
        let ended = state.clock;
        state.clock += 1;
        state.entries[slot].ended = Some(ended);
        state.entries[slot].ok = ok;
    }

    fn call<T>(&self, op: FsOp, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let slot = self.begin(op);
        let result = call();
        self.end(slot, result.is_ok());
        result
    }

    fn inode(&self, path: &Path, fresh: bool) -> u64 {
        let mut state = self.state();
        if !fresh && let Some((_, inode)) = state.inodes.iter().find(|(p, _)| p == path) {
            return *inode;
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.retain(|(p, _)| p != path);
        state.inodes.push((path.to_owned(), inode));
        inode
    }

    fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.state();
        state.inodes.retain(|(p, _)| p != to);
        for entry in &mut state.inodes {
            if entry.0 == from {
                to.clone_into(&mut entry.0);
            }
        }
    }

    fn linked(&self, from: &Path, to: &Path) {
        let inode = self.inode(from, false);
        self.state().inodes.push((to.to_owned(), inode));
    }

    fn removed(&self, path: &Path) {
        self.state().inodes.retain(|(p, _)| p != path);
    }
}

/// A file system whose changing calls are recorded.
#[derive(Clone, Debug)]
pub struct TraceFs {
    inner: Arc<dyn Fs>,
    recorder: Recorder,
}

#[derive(Debug)]
struct TraceFile {
    inner: Arc<dyn File>,
    inode: u64,
    recorder: Recorder,
}

impl TraceFs {
    /// Records the calls made through it and passes them on to `inner`.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, recorder: Recorder::default() }
    }

    /// A traced file system over one in memory, whose files are numbered in the order of their paths.
    pub fn over(files: &MemFs) -> Self {
        Self::through(Arc::new(files.clone()), files)
    }

    /// As [`TraceFs::over`], with something in between, such as a file system that fails.
    pub fn through(inner: Arc<dyn Fs>, files: &MemFs) -> Self {
        let fs = Self::new(inner);
        fs.recorder.know(&files.paths());
        fs
    }

    /// The record.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn file(&self, inner: Arc<dyn File>, inode: u64) -> Arc<dyn File> {
        Arc::new(TraceFile { inner, inode, recorder: self.recorder.clone() })
    }
}

impl Fs for TraceFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path)?;
        let inode = self.recorder.inode(path, false);
        self.recorder.call(FsOp::Open { path: path.to_owned(), inode }, || Ok(()))?;
        Ok(self.file(inner, inode))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        // Creating over an existing name empties the same inode, as O_TRUNC does.
        let fresh = self.inner.open(path).is_err();
        let inode = self.recorder.inode(path, fresh);
        let inner = self.recorder.call(FsOp::Create { path: path.to_owned(), inode }, || self.inner.create(path))?;
        Ok(self.file(inner, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = FsOp::Rename { from: from.to_owned(), to: to.to_owned() };
        self.recorder.call(op, || self.inner.rename(from, to))?;
        self.recorder.renamed(from, to);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = FsOp::Link { from: from.to_owned(), to: to.to_owned() };
        self.recorder.call(op, || self.inner.link(from, to))?;
        self.recorder.linked(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.recorder.call(FsOp::Remove { path: path.to_owned() }, || self.inner.remove(path))?;
        self.recorder.removed(path);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.recorder.call(FsOp::CreateDir { path: path.to_owned() }, || self.inner.create_dir_all(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.recorder.call(FsOp::SyncDir { dir: dir.to_owned() }, || self.inner.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock(path)
    }
}

impl File for TraceFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let slot = self.recorder.begin(FsOp::Write { inode: self.inode, offset, bytes: bytes.to_vec() });
        let result = self.inner.write_at(bytes, offset);
        if let Ok(taken) = result
            && let FsOp::Write { bytes, .. } = &mut self.recorder.state().entries[slot].op
        {
            bytes.truncate(taken);
        }
        self.recorder.end(slot, result.is_ok());
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.recorder.call(FsOp::SetLen { inode: self.inode, len }, || self.inner.set_len(len))
    }

    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        // It changes nothing that a crash could show, unless it fails: then it was a sync that failed.
        let done = self.inner.write_back(range);
        if done.is_ok() { done } else { self.recorder.call(FsOp::SyncData { inode: self.inode }, || done) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.recorder.call(FsOp::SyncData { inode: self.inode }, || self.inner.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.recorder.call(FsOp::SyncAll { inode: self.inode }, || self.inner.sync_all())
    }
}
