//! Who waits for whom: many writers share one `write`, and many syncers one sync.
//!
//! Writes: records gather in the pending group; whoever holds the file takes the whole group and
//! answers all of its members at once. Syncs: one leader syncs while others gather behind it; when it
//! is done it releases those that it covered and elects one of the rest.

use crate::error::Error;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// Records that are written by one call and share its outcome.
#[derive(Debug, Default)]
pub(super) struct Group {
    outcome: OnceLock<Result<(), Error>>,
}

impl Group {
    pub(super) fn outcome(&self) -> Option<Result<(), Error>> {
        self.outcome.get().cloned()
    }

    pub(super) fn settle(&self, outcome: Result<(), Error>) {
        let first = self.outcome.set(outcome).is_ok();
        debug_assert!(first, "a group is written once");
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
