//! A wrapper that fails the n-th call of a kind, as told.
//!
//! A failed sync follows what ext4, XFS and btrfs do ("fsyncgate"): the error is reported once, and a
//! later sync succeeds although the bytes of the failed one may never have reached the device.

use super::{File, Fs, LockOutcome, read_full_at, write_all_at};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the calls are")]
pub enum CallKind {
    Open,
    Create,
    Rename,
    Link,
    Remove,
    SyncDir,
    Read,
    Write,
    SetLen,
    /// Syncs of files, and what goes to the device ahead of one.
    Sync,
}

/// What happens instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device fails (`EIO`); nothing is done. After a failed sync the pages stay as they are, clean, as on
    /// ext4 and XFS.
    Eio,
    /// A sync fails and the file's pages go back to what was last synced, as on btrfs; every other call as [`Fault::Eio`].
    EioReverts,
    /// No room (`ENOSPC`); nothing is done.
    Enospc,
    /// A write takes only this many bytes (at most one less than given), then the next finds no room.
    Short(usize),
}

/// Fail calls of `kind`: the first `skip` succeed, the next `times` fail, the rest succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained above, together")]
pub struct Plan {
    pub kind: CallKind,
    pub skip: u64,
    pub times: u64,
    pub fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    plan: Mutex<Option<Plan>>,
    seen: AtomicU64,
    fired: AtomicU64,
    /// A short write leaves the disk full for the call that follows it.
    full_next: AtomicU64,
}

/// A file system that fails on purpose.
#[derive(Clone, Debug)]
pub struct FailingFs {
    inner: Arc<dyn Fs>,
    state: Arc<State>,
}

#[derive(Debug)]
struct FailingFile {
    inner: Arc<dyn File>,
    state: Arc<State>,
    /// What the file held when it was last synced through this handle, or opened.
    synced: Mutex<Vec<u8>>,
}

impl FailingFs {
    /// Passes every call on to `inner` until told otherwise.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Arms a plan; calls are counted from now on.
    pub fn arm(&self, plan: Plan) {
        *self.state.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        self.state.seen.store(0, Ordering::SeqCst);
        self.state.fired.store(0, Ordering::SeqCst);
    }

    /// How many calls the plan has failed since it was armed.
    pub fn fired(&self) -> u64 {
        self.state.fired.load(Ordering::SeqCst)
    }

    fn file(&self, inner: Arc<dyn File>) -> io::Result<Arc<dyn File>> {
        let file = FailingFile { inner, state: Arc::clone(&self.state), synced: Mutex::default() };
        file.keep_synced()?;
        Ok(Arc::new(file))
    }

    /// Lets every call through again.
    pub fn disarm(&self) {
        *self.state.plan.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl State {
    fn fault(&self, kind: CallKind) -> Option<Fault> {
        let plan = (*self.plan.lock().unwrap_or_else(PoisonError::into_inner))?;
        if plan.kind != kind {
            return None;
        }
        let n = self.seen.fetch_add(1, Ordering::SeqCst);
        let fault = (n >= plan.skip && n < plan.skip + plan.times).then_some(plan.fault);
        self.fired.fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        fault
    }

    fn check(&self, kind: CallKind) -> io::Result<()> {
        match self.fault(kind) {
            None => Ok(()),
            Some(Fault::Eio | Fault::EioReverts) => Err(io::Error::other("injected EIO")),
            Some(Fault::Enospc | Fault::Short(_)) => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }
}

impl Fs for FailingFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.state.check(CallKind::Open)?;
        self.file(self.inner.open(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.state.check(CallKind::Create)?;
        self.file(self.inner.create(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.check(CallKind::Rename)?;
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.check(CallKind::Link)?;
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.check(CallKind::Remove)?;
        self.inner.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state.check(CallKind::SyncDir)?;
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock(path)
    }
}

impl File for FailingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.state.check(CallKind::Read)?;
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.state.full_next.swap(0, Ordering::SeqCst) == 1 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        match self.state.fault(CallKind::Write) {
            None => self.inner.write_at(bytes, offset),
            Some(Fault::Eio | Fault::EioReverts) => Err(io::Error::other("injected EIO")),
            Some(Fault::Enospc) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(Fault::Short(n)) => {
                self.state.full_next.store(1, Ordering::SeqCst);
                self.inner.write_at(&bytes[..n.min(bytes.len().saturating_sub(1))], offset)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.check(CallKind::SetLen)?;
        self.inner.set_len(len)
    }

    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        self.check_sync()?;
        self.inner.write_back(range)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|file| file.sync_all())
    }
}

impl FailingFile {
    /// Fails as a sync does, if it is its turn.
    fn check_sync(&self) -> io::Result<()> {
        if let Err(e) = self.state.check(CallKind::Sync) {
            if self.reverts() {
                let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
                self.inner.set_len(0)?;
                write_all_at(&*self.inner, &synced, 0)?;
            }
            return Err(e);
        }
        Ok(())
    }

    fn sync(&self, sync: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        self.check_sync()?;
        sync(&*self.inner)?;
        self.keep_synced()
    }

    fn reverts(&self) -> bool {
        let plan = self.state.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.is_some_and(|plan| plan.fault == Fault::EioReverts)
    }

    fn keep_synced(&self) -> io::Result<()> {
        if self.reverts() {
            let mut bytes = vec![0; self.inner.len()? as usize];
            let got = read_full_at(&*self.inner, &mut bytes, 0)?;
            bytes.truncate(got);
            *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        }
        Ok(())
    }
}
