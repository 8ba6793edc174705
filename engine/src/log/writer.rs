//! Appending: `submit` gives a place in the order, `commit_step` puts what is pending into the kernel,
//! `sync_step` onto the device. The blocking calls only wrap these three.
//!
//! Positions are logical: they only grow, also when a shrink replaces the file beneath them.
//!
//! **Invariant:** after a failed sync, or a failed write that could not be cut back, the log is
//! poisoned: it accepts and acknowledges nothing more.

use super::group_commit::{Outcomes, SyncQueue};
use super::{Framing, MAX_RECORD};
use crate::error::{Error, Result, is_full};
use crate::fs::{File, read_full_at, write_all_at};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Looks at a leader's progress before sleeping: about as long as a `write` takes.
const SPINS: u32 = 200;

/// An appendable log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    framing: Framing,
    poison: OnceLock<Error>,
    pending: OwnLine<Mutex<Pending>>,
    tail: OwnLine<Mutex<Tail>>,
    outcomes: OwnLine<Outcomes>,
    syncing: OwnLine<SyncQueue>,
    /// Bytes of the file that an earlier process wrote and nothing says were synced.
    inherited: Mutex<Range<u64>>,
    synced: AtomicU64,
    syncs: AtomicU64,
    lost_unwaited: AtomicBool,
}

/// Keeps what one thread writes off the cache lines that others only read.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OwnLine<T>(T);

/// Records that have a place but are not in the kernel yet.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// Calls of `submit` that the pending bytes answer.
    members: u64,
    /// Whether nobody waits for some of the records.
    unwaited: bool,
    /// Logical position of the first pending byte.
    start: u64,
    /// Logical position behind the last submitted record.
    end: u64,
    /// The synced position that the last mark told of.
    marked: u64,
    records: u64,
}

/// Records that one `write` puts into the kernel.
struct Group {
    bytes: Vec<u8>,
    members: u64,
    unwaited: bool,
    records: u64,
    positions: Range<u64>,
}

impl Pending {
    /// Takes everything that is pending; `None` if there is nothing.
    fn take(&mut self, tail: &mut Tail) -> Option<Group> {
        if self.bytes.is_empty() {
            return None;
        }
        Some(Group {
            bytes: std::mem::replace(&mut self.bytes, std::mem::take(&mut tail.spare)),
            members: std::mem::take(&mut self.members),
            unwaited: std::mem::take(&mut self.unwaited),
            records: std::mem::take(&mut self.records),
            positions: std::mem::replace(&mut self.start, self.end)..self.end,
        })
    }
}

/// The file and where it ends.
#[derive(Debug)]
struct Tail {
    file: Arc<dyn File>,
    end: u64,
    /// The length of the file, behind the end if room was made in advance.
    len: u64,
    /// Bytes of room to make at a time; 0 to let writes lengthen the file.
    step: u64,
    /// How long making room may make the file.
    most: u64,
    /// The buffer that the next group takes.
    spare: Vec<u8>,
    records: u64,
    writes: u64,
    bytes: u64,
}

impl Tail {
    fn of(file: Arc<dyn File>, end: u64) -> Self {
        let (spare, most) = (Vec::new(), u64::MAX);
        Self { file, end, len: end, step: 0, most, spare, records: 0, writes: 0, bytes: 0 }
    }

    /// Makes room for bytes up to `end` and for more to come. Nothing depends on it: without the room the write
    /// lengthens the file, or says why it cannot.
    fn make_room(&mut self, end: u64) {
        if end <= self.len || self.step == 0 {
            return;
        }
        let len = (end + self.step).min(self.most).max(end);
        self.len = self.file.set_len(len).map_or(end, |()| len);
        self.file.will_fill(self.end..self.len);
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records written.
    pub records: u64,
    /// Calls of `write`.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs of the file.
    pub syncs: u64,
    /// Length of the file in bytes.
    pub len: u64,
}

/// A record that is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it ends in the order, for [`Log::wait_synced`].
    pub position: u64,
    /// Where the file ended when it was there: with this record, if nobody else wrote meanwhile.
    pub end: u64,
}

/// A submitted record: where it ends in the order. Waited for once.
#[derive(Debug)]
pub struct Ticket {
    end: u64,
}

impl Log {
    /// A log that goes on at byte `end` of `file`. What lies before `synced` is known to be on the device; the
    /// rest is taken as written only, and written once more before the first sync: if an earlier process met
    /// a failed sync, the kernel holds pages for clean that never reached the device, and no sync would
    /// write them (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    pub fn new(path: &Path, framing: Framing, file: Arc<dyn File>, synced: u64, end: u64) -> Self {
        let synced = synced.min(end);
        let pending = Pending { bytes: Vec::new(), members: 0, unwaited: false, start: end, end, marked: synced, records: 0 };
        Self {
            path: path.to_owned(),
            framing,
            poison: OnceLock::new(),
            pending: OwnLine(Mutex::new(pending)),
            tail: OwnLine(Mutex::new(Tail::of(file, end))),
            outcomes: OwnLine(Outcomes::from(end)),
            syncing: OwnLine::default(),
            inherited: Mutex::new(synced..end),
            synced: AtomicU64::new(synced),
            syncs: AtomicU64::new(0),
            lost_unwaited: AtomicBool::new(false),
        }
    }

    /// The same log over a file of `len` bytes, zeros behind its end, that grows by `step` bytes at a time: a sync that
    /// changes no length is a third faster on ext4, and a record that has its place already costs no system call. For
    /// framings that can tell room from records.
    pub fn with_room(mut self, len: u64, step: u64) -> Self {
        let tail = self.tail.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        (tail.len, tail.step) = (len.max(tail.end), step);
        tail.file.will_fill(tail.end..tail.len);
        self
    }

    /// The same log, whose room makes the file no longer than so many bytes. Records may, if the store lets them.
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.tail.0.get_mut().unwrap_or_else(PoisonError::into_inner).most = bytes;
        self
    }

    /// Gives a record its place behind all earlier ones. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Io`] for a record that is too long to be read again.
    pub fn submit(&self, kind: u8, body: &[u8]) -> Result<Ticket> {
        self.check_len(body)?;
        let crc = Framing::checksum(kind, body);
        self.check()?;
        let mut pending = lock(&self.pending.0);
        self.encode(&mut pending, kind, body, crc);
        pending.members += 1;
        Ok(Ticket { end: pending.end })
    }

    /// As [`Log::submit`] for a record that nobody waits for: it is written with whatever comes next.
    ///
    /// # Errors
    /// As [`Log::submit`]; a failure to write it is told to whoever writes it.
    pub fn submit_unwaited(&self, kind: u8, body: &[u8]) -> Result<()> {
        let crc = Framing::checksum(kind, body);
        self.check_len(body)?;
        self.check()?;
        let mut pending = lock(&self.pending.0);
        self.encode(&mut pending, kind, body, crc);
        pending.unwaited = true;
        Ok(())
    }

    /// Submits a record and waits until it is in the kernel: [`Log::submit`] and [`Log::wait_written`] in
    /// one, which saves a lone writer half of the locking.
    pub fn append(&self, kind: u8, body: &[u8]) -> Result<Written> {
        let crc = Framing::checksum(kind, body);
        self.check_len(body)?;
        self.check()?;
        let mut pending = lock(&self.pending.0);
        self.encode(&mut pending, kind, body, crc);
        pending.members += 1;
        let position = pending.end;
        // Against the usual order of the two locks, and so only if nobody holds it.
        if let Ok(mut tail) = self.tail.0.try_lock() {
            let group = pending.take(&mut tail);
            drop(pending);
            if let Some(group) = group {
                let _ = self.write_group(&mut tail, group);
            }
            let end = tail.end;
            drop(tail);
            return self.outcomes.0.take(position).map(|()| Written { position, end });
        }
        drop(pending);
        self.wait_written(Ticket { end: position }).map(|position| Written { position, end: self.end() })
    }

    /// Submits several records that share one fate: none lies between them, one `write` takes them all.
    pub fn submit_all<'a>(&self, records: impl IntoIterator<Item = (u8, &'a [u8])>) -> Result<Ticket> {
        self.check()?;
        let records: Vec<_> = records.into_iter().collect();
        records.iter().try_for_each(|(_, body)| self.check_len(body))?;
        if records.is_empty() {
            // Nobody would ever write, and so answer, a group without records: it is settled from the start.
            return Ok(Ticket { end: 0 });
        }
        let mut pending = lock(&self.pending.0);
        for (kind, body) in records {
            let crc = Framing::checksum(kind, body);
            self.encode(&mut pending, kind, body, crc);
        }
        pending.members += 1;
        Ok(Ticket { end: pending.end })
    }

    fn check_len(&self, body: &[u8]) -> Result<()> {
        // Kind, token and mark take less than 64 bytes in either framing.
        if body.len() <= MAX_RECORD - 64 {
            return Ok(());
        }
        let why = format!("a record of {} bytes is longer than the {MAX_RECORD} that can be read again", body.len());
        Err(Error::io("write to", &self.path, io::Error::new(io::ErrorKind::InvalidInput, why)))
    }

    fn encode(&self, pending: &mut Pending, kind: u8, body: &[u8], crc: u32) {
        let synced = self.synced.load(Ordering::Acquire);
        let mark = (synced > pending.marked).then(|| pending.end.saturating_sub(synced));
        if mark.is_some() {
            pending.marked = synced;
        }
        let before = pending.bytes.len();
        self.framing.encode(&mut pending.bytes, kind, body, crc, mark);
        pending.end += (pending.bytes.len() - before) as u64;
        pending.records += 1;
    }

    /// Whether a mark would tell something new: the log was synced further than the last mark says.
    pub fn mark_is_due(&self) -> bool {
        self.synced.load(Ordering::Acquire) > lock(&self.pending.0).marked
    }

    /// Puts what is pending into the kernel with one `write`. On a full disk the file is cut back to
    /// its last whole record and every member of the group gets [`Error::Full`].
    pub fn commit_step(&self) -> Result<()> {
        self.commit(&mut lock(&self.tail.0))
    }

    /// The position up to which everything is in the kernel.
    pub fn written_through(&self) -> u64 {
        self.outcomes.0.written()
    }

    /// The position up to which everything is on the device.
    pub fn synced_through(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Waits until the record is in the kernel; writes the group itself if nobody else does.
    /// Returns the record's position, for [`Log::wait_synced`].
    pub fn wait_written(&self, ticket: Ticket) -> Result<u64> {
        let end = ticket.end;
        // The outcome of the group tells what became of this record; `commit` tells of another group, maybe.
        let mut seen = None;
        for _ in 0..SPINS {
            let settled = self.outcomes.0.settled();
            if settled >= end {
                break;
            }
            // Only when a leader has finished is there a chance to become one; to look more often would
            // take the lock's cache line away from him.
            if seen.replace(settled) != Some(settled)
                && let Ok(mut tail) = self.tail.0.try_lock()
            {
                let _ = self.commit(&mut tail);
                break;
            }
            std::hint::spin_loop();
        }
        if self.outcomes.0.settled() < end {
            let mut tail = lock(&self.tail.0);
            if self.outcomes.0.settled() < end {
                let _ = self.commit(&mut tail);
            }
        }
        self.outcomes.0.take(end).map(|()| end)
    }

    /// Waits until everything up to `position` is on the device, sharing the sync with whoever else waits.
    pub fn wait_synced(&self, position: u64) -> Result<()> {
        let done = || {
            if self.synced_through() >= position {
                return Some(Ok(()));
            }
            self.poison.get().map(|e| Err(e.clone()))
        };
        self.syncing.0.wait(position, done, |covers| self.sync_covering(covers))
    }

    /// Syncs everything that is in the kernel now. A failure poisons the log.
    pub fn sync_step(&self) -> Result<()> {
        self.wait_synced(self.written_through())
    }

    /// Syncs the file although the log has nothing to sync, for what somebody else may have changed in it.
    pub(crate) fn sync_again(&self) -> Result<()> {
        let (file, _) = self.snapshot();
        file.sync_data().map_err(|e| self.poison("sync", e))
    }

    fn sync_covering(&self, covers: &dyn Fn(u64)) -> Result<()> {
        self.check()?;
        let (file, target) = {
            let tail = lock(&self.tail.0);
            (Arc::clone(&tail.file), self.written_through())
        };
        covers(target);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match self.rewrite_inherited(&*file).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.synced.fetch_max(target, Ordering::AcqRel);
                Ok(())
            }
            Err(e) => Err(self.poison("sync", e)),
        }
    }

    /// Writes what an earlier process left unsynced where it stands, so that the next sync has it to write.
    fn rewrite_inherited(&self, file: &dyn File) -> io::Result<()> {
        let mut inherited = lock(&self.inherited);
        let mut chunk = vec![0; (1 << 20).min(inherited.end.saturating_sub(inherited.start)) as usize];
        while inherited.start < inherited.end {
            let most = chunk.len().min((inherited.end - inherited.start) as usize);
            let got = read_full_at(file, &mut chunk[..most], inherited.start)?;
            write_all_at(file, &chunk[..got], inherited.start)?;
            inherited.start += got.max(1) as u64;
        }
        Ok(())
    }

    fn commit(&self, tail: &mut Tail) -> Result<()> {
        let group = lock(&self.pending.0).take(tail);
        match group {
            Some(group) => self.write_group(tail, group),
            None => Ok(()),
        }
    }

    fn write_group(&self, tail: &mut Tail, group: Group) -> Result<()> {
        let Group { mut bytes, members, unwaited, records, positions } = group;
        let outcome = self.check().and_then(|()| self.write(tail, &bytes));
        match &outcome {
            Ok(()) => {
                tail.records += records;
                self.outcomes.0.wrote(positions.end);
            }
            // The cut synced all that lies before it. Positions must not lag behind by the lost bytes:
            // later marks would tell of less than was synced.
            Err(Error::Full { .. }) => {
                if unwaited {
                    self.lost_unwaited.store(true, Ordering::Release);
                }
                self.outcomes.0.wrote(positions.end);
                if lock(&self.inherited).is_empty() {
                    self.synced.fetch_max(positions.end, Ordering::AcqRel);
                }
            }
            Err(_) => {}
        }
        self.outcomes.0.settle(positions, members, &outcome);
        bytes.clear();
        if bytes.capacity() <= 1 << 20 {
            tail.spare = bytes;
        }
        outcome
    }

    fn write(&self, tail: &mut Tail, bytes: &[u8]) -> Result<()> {
        tail.writes += 1;
        let end = tail.end + bytes.len() as u64;
        tail.make_room(end);
        match write_all_at(&*tail.file, bytes, tail.end) {
            Ok(()) => {
                tail.end = end;
                tail.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(e) if is_full(&e) => {
                // Synced, because a crash could otherwise mix these bytes with those of the next append.
                let file = &*tail.file;
                let rewritten = |()| match self.rewrite_inherited(file) {
                    // It stays to be done, and what is synced now vouches for nothing.
                    Err(e) if is_full(&e) => Ok(()),
                    other => other,
                };
                let cut = file.set_len(tail.end).and_then(rewritten).and_then(|()| file.sync_data());
                cut.map_err(|e| self.poison("cut", e))?;
                tail.len = tail.end;
                Err(Error::Full { path: self.path.clone() })
            }
            Err(e) => Err(self.poison("write", e)),
        }
    }

    /// Replaces the file: `build` gets the current file and its end, writes the successor, makes it
    /// durable under the log's name, and returns it with its length. No record is written meanwhile.
    /// When `build` fails the log goes on with the old file, unless the failure says otherwise.
    pub(crate) fn replace(&self, build: impl FnOnce(&Arc<dyn File>, u64) -> Result<(Arc<dyn File>, u64)>) -> Result<()> {
        let mut tail = lock(&self.tail.0);
        self.check()?;
        self.commit(&mut tail)?;
        let (file, end) = build(&tail.file, tail.end)?;
        (tail.file, tail.end, tail.len) = (file, end, end);
        // The successor was written by this process.
        *lock(&self.inherited) = 0..0;
        // The successor was synced whole.
        self.synced.fetch_max(self.written_through(), Ordering::AcqRel);
        Ok(())
    }

    /// The file and its end, for reading what is already written.
    pub(crate) fn snapshot(&self) -> (Arc<dyn File>, u64) {
        let tail = lock(&self.tail.0);
        (Arc::clone(&tail.file), tail.end)
    }

    /// Where the file ends, with all that is in the kernel.
    pub(crate) fn end(&self) -> u64 {
        lock(&self.tail.0).end
    }

    /// Whether records that nobody waited for found no room once. They are not in the file and never will be.
    pub(crate) fn lost_unwaited(&self) -> bool {
        self.lost_unwaited.load(Ordering::Acquire)
    }

    /// Where the file ends, and how far it is on the device; less of it, if writes go on. Positions are no offsets: what
    /// found no room has some, but no place in the file.
    pub(crate) fn end_and_synced(&self) -> (u64, u64) {
        let tail = lock(&self.tail.0);
        let unsynced = self.written_through().saturating_sub(self.synced_through());
        (tail.end, tail.end.saturating_sub(unsynced))
    }

    /// Counters since opening.
    pub fn stats(&self) -> LogStats {
        let tail = lock(&self.tail.0);
        let syncs = self.syncs.load(Ordering::Relaxed);
        LogStats { records: tail.records, writes: tail.writes, bytes: tail.bytes, syncs, len: tail.end }
    }

    /// Fails when the log is poisoned.
    pub fn check(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(e) => Err(e.clone()),
        }
    }

    /// Writes what is pending and accepts nothing more.
    pub(crate) fn close(&self) -> Result<()> {
        let mut tail = lock(&self.tail.0);
        let outcome = self.commit(&mut tail);
        // Set with the file held, so that no write is under way when this returns.
        self.poison.get_or_init(|| Error::Closed { path: self.path.clone() });
        outcome
    }

    /// As [`Log::close`] of a binary log, with a mark at its end if that tells something new: damage in front of it is
    /// then no torn tail.
    pub(crate) fn close_marked(&self) -> Result<()> {
        if self.mark_is_due() {
            self.submit_unwaited(b'M', b"")?;
        }
        self.close()
    }

    /// Gives back the room behind the last record. The log must be closed.
    pub(crate) fn trim(&self) -> Result<()> {
        let tail = lock(&self.tail.0);
        if tail.len == tail.end {
            return Ok(());
        }
        tail.file.set_len(tail.end).map_err(|e| Error::io("cut", &self.path, e))
    }

    /// Stops the log for good and says why.
    pub(crate) fn poison(&self, op: &'static str, source: io::Error) -> Error {
        let error = Error::Poisoned { path: self.path.clone(), op, source: Arc::new(source) };
        self.poison.get_or_init(|| error).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
