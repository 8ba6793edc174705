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
use crate::fs::{File, write_all_at};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Looks at a leader's progress before sleeping: about as long as a `write` takes.
const SPINS: u32 = 400;

/// An appendable log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    framing: Framing,
    pending: Mutex<Pending>,
    tail: Mutex<Tail>,
    outcomes: Outcomes,
    syncing: SyncQueue,
    written: AtomicU64,
    synced: AtomicU64,
    poison: OnceLock<Error>,
    counters: Counters,
}

/// Records that have a place but are not in the kernel yet.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// Calls of `submit` that the pending bytes answer.
    members: u64,
    /// Logical position of the first pending byte.
    start: u64,
    /// Logical position behind the last submitted record.
    end: u64,
    /// The synced position that the last mark told of.
    marked: u64,
    records: u64,
}

/// The file and where it ends.
#[derive(Debug)]
struct Tail {
    file: Arc<dyn File>,
    end: u64,
    /// The buffer that the next group takes.
    spare: Vec<u8>,
}

#[derive(Debug, Default)]
struct Counters {
    writes: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records submitted.
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

/// A submitted record: where it ends in the order. Waited for once.
#[derive(Debug)]
pub struct Ticket {
    end: u64,
}

impl Log {
    /// A log that goes on at byte `end` of `file`. What lies before is taken as written, not as synced.
    pub fn new(path: &Path, framing: Framing, file: Arc<dyn File>, end: u64) -> Self {
        Self {
            path: path.to_owned(),
            framing,
            pending: Mutex::new(Pending { bytes: Vec::new(), members: 0, start: end, end, marked: 0, records: 0 }),
            tail: Mutex::new(Tail { file, end, spare: Vec::new() }),
            outcomes: Outcomes::from(end),
            syncing: SyncQueue::default(),
            written: AtomicU64::new(end),
            synced: AtomicU64::new(0),
            poison: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    /// Gives a record its place behind all earlier ones. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Io`] for a record that is too long to be read again.
    pub fn submit(&self, kind: u8, body: &[u8]) -> Result<Ticket> {
        self.check_len(body)?;
        let crc = Framing::checksum(kind, body);
        self.check()?;
        let mut pending = lock(&self.pending);
        self.append(&mut pending, kind, body, crc);
        pending.members += 1;
        Ok(Ticket { end: pending.end })
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
        let mut pending = lock(&self.pending);
        for (kind, body) in records {
            let crc = Framing::checksum(kind, body);
            self.append(&mut pending, kind, body, crc);
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

    fn append(&self, pending: &mut Pending, kind: u8, body: &[u8], crc: u32) {
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
        self.synced.load(Ordering::Acquire) > lock(&self.pending).marked
    }

    /// Puts what is pending into the kernel with one `write`. On a full disk the file is cut back to
    /// its last whole record and every member of the group gets [`Error::Full`].
    pub fn commit_step(&self) -> Result<()> {
        self.commit(&mut lock(&self.tail))
    }

    /// The position up to which everything is in the kernel.
    pub fn written_through(&self) -> u64 {
        self.written.load(Ordering::Acquire)
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
        for spin in 0..SPINS {
            if self.outcomes.is_settled(end) {
                break;
            }
            if spin % 16 == 0
                && let Ok(mut tail) = self.tail.try_lock()
            {
                let _ = self.commit(&mut tail);
                break;
            }
            std::hint::spin_loop();
        }
        if !self.outcomes.is_settled(end) {
            let mut tail = lock(&self.tail);
            if !self.outcomes.is_settled(end) {
                let _ = self.commit(&mut tail);
            }
        }
        self.outcomes.take(end).map(|()| end)
    }

    /// Waits until everything up to `position` is on the device, sharing the sync with whoever else waits.
    pub fn wait_synced(&self, position: u64) -> Result<()> {
        let done = || {
            if self.synced_through() >= position {
                return Some(Ok(()));
            }
            self.poison.get().map(|e| Err(e.clone()))
        };
        self.syncing.wait(position, done, |covers| self.sync_covering(covers))
    }

    /// Syncs everything that is in the kernel now. A failure poisons the log.
    pub fn sync_step(&self) -> Result<()> {
        self.wait_synced(self.written_through())
    }

    fn sync_covering(&self, covers: &dyn Fn(u64)) -> Result<()> {
        self.check()?;
        let (file, target) = {
            let tail = lock(&self.tail);
            (Arc::clone(&tail.file), self.written_through())
        };
        covers(target);
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        match file.sync_data() {
            Ok(()) => {
                self.synced.fetch_max(target, Ordering::AcqRel);
                Ok(())
            }
            Err(e) => Err(self.poison("sync", e)),
        }
    }

    fn commit(&self, tail: &mut Tail) -> Result<()> {
        let (mut bytes, members, positions) = {
            let mut pending = lock(&self.pending);
            if pending.bytes.is_empty() {
                return Ok(());
            }
            let bytes = std::mem::replace(&mut pending.bytes, std::mem::take(&mut tail.spare));
            let positions = pending.start..pending.end;
            pending.start = pending.end;
            (bytes, std::mem::take(&mut pending.members), positions)
        };
        let outcome = self.check().and_then(|()| self.write(tail, &bytes));
        match &outcome {
            Ok(()) => self.written.store(positions.end, Ordering::Release),
            // The cut synced all that lies before it. Positions must not lag behind by the lost bytes:
            // later marks would tell of less than was synced.
            Err(Error::Full { .. }) => {
                self.written.store(positions.end, Ordering::Release);
                self.synced.fetch_max(positions.end, Ordering::AcqRel);
            }
            Err(_) => {}
        }
        self.outcomes.settle(positions, members, &outcome);
        bytes.clear();
        if bytes.capacity() <= 1 << 20 {
            tail.spare = bytes;
        }
        outcome
    }

    fn write(&self, tail: &mut Tail, bytes: &[u8]) -> Result<()> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        match write_all_at(&*tail.file, bytes, tail.end) {
            Ok(()) => {
                tail.end += bytes.len() as u64;
                self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(e) if is_full(&e) => {
                // Synced, because a crash could otherwise mix these bytes with those of the next append.
                tail.file.set_len(tail.end).and_then(|()| tail.file.sync_data()).map_err(|e| self.poison("cut", e))?;
                Err(Error::Full { path: self.path.clone() })
            }
            Err(e) => Err(self.poison("write", e)),
        }
    }

    /// Replaces the file: `build` gets the current file and its end, writes the successor, makes it
    /// durable under the log's name, and returns it with its length. No record is written meanwhile.
    /// When `build` fails the log goes on with the old file, unless the failure says otherwise.
    pub(crate) fn replace(&self, build: impl FnOnce(&Arc<dyn File>, u64) -> Result<(Arc<dyn File>, u64)>) -> Result<()> {
        let mut tail = lock(&self.tail);
        self.check()?;
        self.commit(&mut tail)?;
        let (file, end) = build(&tail.file, tail.end)?;
        tail.file = file;
        tail.end = end;
        // The successor was synced whole.
        self.synced.fetch_max(self.written_through(), Ordering::AcqRel);
        Ok(())
    }

    /// The file and its end, for reading what is already written.
    pub(crate) fn snapshot(&self) -> (Arc<dyn File>, u64) {
        let tail = lock(&self.tail);
        (Arc::clone(&tail.file), tail.end)
    }

    /// Counters since opening.
    pub fn stats(&self) -> LogStats {
        let load = |c: &AtomicU64| c.load(Ordering::Relaxed);
        // One lock after the other: writers take the tail before the pending group, so holding both
        // here in the order of the fields would be a deadlock.
        let len = lock(&self.tail).end;
        let records = lock(&self.pending).records;
        let counters = &self.counters;
        LogStats { records, writes: load(&counters.writes), bytes: load(&counters.bytes), syncs: load(&counters.syncs), len }
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
        let mut tail = lock(&self.tail);
        let outcome = self.commit(&mut tail);
        // Set with the file held, so that no write is under way when this returns.
        self.poison.get_or_init(|| Error::Closed { path: self.path.clone() });
        outcome
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
