//! Transactions: reads of one moment, and changes that hold only if what was read still stands.
//!
//! Conflicts are found when a transaction commits, in the writer's turn: it fails if a key that it read, or a key
//! in a range that it read, was written after its snapshot (backward validation; Kung and Robinson, "On Optimistic
//! Methods for Concurrency Control", 1981). What commits is serialisable: write skew is caught, phantoms too.

use super::cursor::Direction;
use super::entry::{Changes, has_ended};
use super::handle::{check_key, owned};
use super::iter::{Iter, KeyRange};
use super::store::{Core, lock};
use crate::error::{Error, Result};
use crate::sync_policy::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Keys that were written while transactions were open, with the number of their last write.
#[derive(Debug, Default)]
pub(super) struct Recent {
    open: AtomicUsize,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// Sequence numbers that open transactions read at, and how many do.
    starts: BTreeMap<u64, usize>,
    keys: BTreeMap<Vec<u8>, u64>,
    /// The last write that may have changed any key.
    all: u64,
    /// Keys at which the map is gone through for what nobody asks about any more.
    prune_at: usize,
}

const PRUNE: usize = 4096;

impl Recent {
    /// To be called in the writer's turn, so that no write goes unnoticed.
    fn begin(&self, start: u64) {
        *lock(&self.written).starts.entry(start).or_default() += 1;
        self.open.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self, start: u64) {
        let mut written = lock(&self.written);
        if let Some(count) = written.starts.get_mut(&start) {
            *count -= 1;
            if *count == 0 {
                written.starts.remove(&start);
            }
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
        if written.starts.is_empty() {
            written.keys.clear();
        }
    }

    /// Notes what a write changed, in the writer's turn.
    pub(super) fn note<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, seq: u64) {
        if self.open.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut written = lock(&self.written);
        for key in keys {
            match written.keys.get_mut(key) {
                Some(last) => *last = seq,
                None => drop(written.keys.insert(key.to_vec(), seq)),
            }
        }
        if written.keys.len() > written.prune_at.max(PRUNE) {
            let oldest = written.starts.keys().next().copied().unwrap_or(u64::MAX);
            written.keys.retain(|_, seq| *seq > oldest);
            written.prune_at = 2 * written.keys.len();
        }
    }

    /// Notes that any key may have been changed.
    pub(super) fn note_all(&self, seq: u64) {
        lock(&self.written).all = seq;
    }

    /// Whether anything that was read was written after `start`.
    fn conflicts(&self, start: u64, keys: &BTreeSet<Vec<u8>>, ranges: &[KeyRange]) -> bool {
        let written = lock(&self.written);
        if written.all > start {
            return true;
        }
        let later = |seq: &u64| *seq > start;
        keys.iter().any(|key| written.keys.get(key).is_some_and(later))
            || ranges
                .iter()
                .filter(|range| is_range(range))
                .any(|range| written.keys.range(range.clone()).any(|(_, seq)| later(seq)))
    }
}

/// Whether a map can be asked for it: an empty or inverted range holds nothing.
fn is_range((start, end): &KeyRange) -> bool {
    match (start, end) {
        (Bound::Included(a), Bound::Included(b)) => a <= b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a < b,
        _ => true,
    }
}

/// What a change makes of a key: a value and when it ends, or nothing.
type Change = Option<(Vec<u8>, Option<u64>)>;

/// What a change lets its own transaction see at a time.
fn shown(change: &Change, now: u64) -> Option<Vec<u8>> {
    change.as_ref().filter(|(_, end)| !has_ended(*end, now)).map(|(value, _)| value.clone())
}

/// A transaction. It sees the store as it was when it began, and its own changes. Dropping it changes nothing.
#[derive(Debug)]
pub struct Transaction {
    core: Arc<Core>,
    start: u64,
    keys: BTreeSet<Vec<u8>>,
    ranges: Vec<KeyRange>,
    changes: BTreeMap<Vec<u8>, Change>,
}

impl Transaction {
    pub(super) fn begin(core: &Arc<Core>) -> Self {
        let start = core.in_turn(|| {
            let start = core.hold();
            core.recent.begin(start);
            start
        });
        Self { core: Arc::clone(core), start, keys: BTreeSet::new(), ranges: Vec::new(), changes: BTreeMap::new() }
    }

    /// The value of a key: of this transaction, or of the moment it began.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let now = self.core.options.clock.now();
        if let Some(change) = self.changes.get(key) {
            return Ok(shown(change, now));
        }
        self.keys.insert(key.to_vec());
        self.core.view().get(&self.core.dir, key, self.start, now, <[u8]>::to_vec)
    }

    /// The keys of a range with their values, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let range = owned(&range);
        self.ranges.push(range.clone());
        let view = Arc::clone(&self.core.view());
        let stored = Iter::new(Arc::clone(&self.core), view, self.start, range.clone(), Direction::Forward);
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = stored.collect::<Result<_>>()?;
        let now = self.core.options.clock.now();
        for (key, change) in self.changes.iter().filter(|(key, _)| range.contains(*key)) {
            match shown(change, now) {
                Some(value) => drop(found.insert(key.clone(), value)),
                None => drop(found.remove(key)),
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Sets a value when it commits.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(key, Some((value.to_vec(), None)))
    }

    /// As [`Transaction::put`], until a Unix time in seconds.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn put_until(&mut self, key: &[u8], value: &[u8], end: u64) -> Result<()> {
        self.change(key, Some((value.to_vec(), Some(end))))
    }

    /// Deletes a key when it commits.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.change(key, None)
    }

    fn change(&mut self, key: &[u8], change: Change) -> Result<()> {
        check_key(key)?;
        self.changes.insert(key.to_vec(), change);
        Ok(())
    }

    /// Makes the changes, all or none.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something it read was changed meanwhile: begin again. As [`super::Store::write`]
    /// besides.
    pub fn commit(mut self, level: Durability) -> Result<()> {
        let mut changes = Changes::default();
        for (key, change) in std::mem::take(&mut self.changes) {
            match change {
                Some((value, end)) => changes.put(&key, &value, end),
                None => changes.delete(&key),
            }
        }
        // One that changes nothing saw one moment: it stands there in the order, whatever came later.
        let only_reads = changes.len() == 0;
        let admit = &mut || match !only_reads && self.core.recent.conflicts(self.start, &self.keys, &self.ranges) {
            true => Err(Error::Conflict),
            false => Ok(()),
        };
        self.core.write(&mut changes, level, admit)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.core.recent.end(self.start);
        self.core.release(self.start);
    }
}
