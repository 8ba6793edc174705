//! Who waits for whom: many writers share one `write`, and many syncers one sync.
//!
//! Writes: records gather in the pending group; whoever holds the file takes the whole group and
//! answers all of its members at once. Syncs: one leader syncs while others gather behind it; when it
//! is done it releases those that it covered and elects one of the rest.

use crate::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What became of the groups. Nearly all are written, and then one number says so.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Records up to this position have been written or have failed.
    settled: AtomicU64,
    /// Everything up to this position that did not fail is in the kernel.
    written: AtomicU64,
    failing: AtomicBool,
    failed: Mutex<Vec<FailedGroup>>,
}

/// A group that could not be written. It is forgotten when each of its members has been told.
#[derive(Debug)]
struct FailedGroup {
    positions: Range<u64>,
    untold: u64,
    error: Error,
}

impl Outcomes {
    pub(super) fn from(position: u64) -> Self {
        Self { settled: AtomicU64::new(position), written: AtomicU64::new(position), ..Self::default() }
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(super) fn wrote(&self, end: u64) {
        self.written.store(end, Ordering::Release);
    }

    /// Tells everybody who waits for these positions. Groups are settled in order.
    pub(super) fn settle(&self, positions: Range<u64>, members: u64, outcome: &Result<(), Error>) {
        if let Err(error) = outcome
            && members > 0
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(FailedGroup { positions: positions.clone(), untold: members, error: error.clone() });
            self.failing.store(true, Ordering::Release);
        }
        self.settled.store(positions.end, Ordering::Release);
    }

    /// What became of the record that ends at `end`, once it is settled. To be asked once a record.
    pub(super) fn take(&self, end: u64) -> Result<(), Error> {
        if !self.failing.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = failed.iter().position(|g| g.positions.start < end && end <= g.positions.end) else { return Ok(()) };
        let error = failed[at].error.clone();
        failed[at].untold = failed[at].untold.saturating_sub(1);
        if failed[at].untold == 0 {
            failed.remove(at);
            self.failing.store(!failed.is_empty(), Ordering::Release);
        }
        Err(error)
    }
}

/// The turnstile before the device: at most one sync at a time, everybody else waits for the one that
/// covers him.
#[derive(Debug, Default)]
pub(super) struct SyncQueue {
    state: Mutex<QueueState>,
    /// Waiters of even and of odd rounds; those of the round in flight sit on one, later ones on the other.
    rounds: [Condvar; 2],
}

#[derive(Debug, Default)]
struct QueueState {
    round: u64,
    leading: bool,
    /// Written positions up to here are covered by the round in flight.
    covers: u64,
}

impl SyncQueue {
    /// Returns once `position` is durable by `done`, or fails as `sync` does. `sync` tells through its
    /// first argument which position it will cover before it starts, and is called by one thread at a time.
    pub(super) fn wait(
        &self,
        position: u64,
        done: impl Fn() -> Option<Result<(), Error>>,
        sync: impl Fn(&dyn Fn(u64)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        loop {
            if let Some(outcome) = done() {
                if !state.leading {
                    // This waiter may have been the one elected to lead; pass the turn on.
                    self.rounds[((state.round + 1) % 2) as usize].notify_one();
                }
                return outcome;
            }
            if !state.leading {
                state.leading = true;
                state.round += 1;
                state.covers = 0;
                drop(state);
                let result = sync(&|covers| lock().covers = covers);
                state = lock();
                state.leading = false;
                self.rounds[(state.round % 2) as usize].notify_all();
                self.rounds[((state.round + 1) % 2) as usize].notify_one();
                result?;
                continue;
            }
            let covered = position <= state.covers;
            let seat = if covered { state.round } else { state.round + 1 };
            state = self.rounds[(seat % 2) as usize].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
