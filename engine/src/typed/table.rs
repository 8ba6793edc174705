//! The map in memory: shards, each a hash table under its own lock.
//!
//! Many shards keep a thread that is descheduled inside one from stopping the others. Hash seeds are
//! fixed because the order of shards reaches the file when buffered changes are flushed.

use compact_str::CompactString;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const HASHER: FixedState = FixedState::with_seed(0x7479_7065_6473_746f);

/// A key with its value.
#[derive(Debug)]
pub(super) struct Slot<V> {
    pub(super) key: CompactString,
    pub(super) value: V,
    /// Changed since its last record in the log.
    dirty: bool,
}

/// A shard's contents and what of it the log does not know yet.
#[derive(Debug)]
pub(super) struct Shard<V> {
    slots: HashTable<Slot<V>>,
    /// Keys of dirty slots, in the order in which they became dirty.
    dirty: Vec<CompactString>,
    /// Keys that were removed without a record.
    gone: BTreeSet<CompactString>,
}

/// On a line of its own, so that threads in neighbouring shards do not disturb each other.
#[derive(Debug)]
#[repr(align(128))]
struct Cell<V> {
    /// Held from a change's place in the log until it is in memory. Readers never wait for it, so
    /// they never wait for a device.
    order: Mutex<()>,
    shard: RwLock<Shard<V>>,
}

/// The right to change keys of a shard; see [`Table::order`].
pub(super) type Order<'a> = MutexGuard<'a, ()>;

/// All shards of a map.
#[derive(Debug)]
pub(super) struct Table<V> {
    cells: Box<[Cell<V>]>,
}

/// A key with the hash that finds its shard and its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'k> {
    pub(super) key: &'k str,
    hash: u64,
    pub(super) shard: usize,
}

impl<V> Table<V> {
    /// A table of `shards` shards, a power of two.
    pub(super) fn new(shards: usize) -> Self {
        debug_assert!(shards.is_power_of_two());
        let shard = || Shard { slots: HashTable::new(), dirty: Vec::new(), gone: BTreeSet::new() };
        let cell = |_| Cell { order: Mutex::new(()), shard: RwLock::new(shard()) };
        Self { cells: (0..shards).map(cell).collect() }
    }

    pub(super) fn place<'k>(&self, key: &'k str) -> Place<'k> {
        let hash = HASHER.hash_one(key);
        // The table inside uses the lowest and the highest seven bits; shards take bits between.
        Place { key, hash, shard: (hash >> 32) as usize & (self.cells.len() - 1) }
    }

    pub(super) fn shards(&self) -> usize {
        self.cells.len()
    }

    /// Serialises the changes of a shard: whoever changes a key holds this from before he takes a place
    /// in the log until the change is in memory, so both have the same order.
    pub(super) fn order(&self, shard: usize) -> Order<'_> {
        self.cells[shard].order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard<V>> {
        self.cells[shard].shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard<V>> {
        self.cells[shard].shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        (0..self.shards()).map(|shard| self.read(shard).slots.len()).sum()
    }
}

impl<V> Shard<V> {
    pub(super) fn get(&self, place: Place<'_>) -> Option<&V> {
        self.slots.find(place.hash, |slot| slot.key == place.key).map(|slot| &slot.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        self.slots.iter()
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.slots.reserve(additional, |slot| HASHER.hash_one(slot.key.as_str()));
    }

    /// Sets a value whose record is in the log.
    pub(super) fn put_logged(&mut self, place: Place<'_>, value: V) {
        self.put(place, value, false);
        self.logged(place);
    }

    /// Sets a value that the next flush will log.
    pub(super) fn put_buffered(&mut self, place: Place<'_>, value: V) {
        let was_dirty = self.put(place, value, true);
        if !was_dirty {
            self.dirty.push(CompactString::new(place.key));
        }
        if !self.gone.is_empty() {
            self.gone.remove(place.key);
        }
    }

    /// Inserts the value; whether a dirty slot was there before.
    fn put(&mut self, place: Place<'_>, value: V, dirty: bool) -> bool {
        let entry = self.slots.entry(place.hash, |slot| slot.key == place.key, |slot| HASHER.hash_one(slot.key.as_str()));
        match entry {
            Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                slot.value = value;
                std::mem::replace(&mut slot.dirty, dirty)
            }
            Entry::Vacant(slot) => {
                slot.insert(Slot { key: CompactString::new(place.key), value, dirty });
                false
            }
        }
    }

    /// Inserts a value found in the log unless a later one is already there. Used while loading
    /// backwards; whether `decode` was called.
    pub(super) fn load_with<E>(&mut self, place: Place<'_>, decode: impl FnOnce() -> Result<V, E>) -> Result<bool, E> {
        let entry = self.slots.entry(place.hash, |slot| slot.key == place.key, |slot| HASHER.hash_one(slot.key.as_str()));
        match entry {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(slot) => {
                slot.insert(Slot { key: CompactString::new(place.key), value: decode()?, dirty: false });
                Ok(true)
            }
        }
    }

    /// Removes a key whose delete record is in the log; whether it was there.
    pub(super) fn remove_logged(&mut self, place: Place<'_>) -> bool {
        let removed = self.take(place);
        self.logged(place);
        removed
    }

    /// Removes a key; the next flush will log it. Whether it was there.
    pub(super) fn remove_buffered(&mut self, place: Place<'_>) -> bool {
        let removed = self.take(place);
        if removed {
            self.gone.insert(CompactString::new(place.key));
        }
        removed
    }

    fn take(&mut self, place: Place<'_>) -> bool {
        match self.slots.find_entry(place.hash, |slot| slot.key == place.key) {
            Ok(slot) => {
                slot.remove();
                true
            }
            Err(_) => false,
        }
    }

    fn logged(&mut self, place: Place<'_>) {
        if !self.gone.is_empty() {
            self.gone.remove(place.key);
        }
    }

    /// Whether the key was removed without a record so far.
    pub(super) fn is_gone(&self, key: &str) -> bool {
        !self.gone.is_empty() && self.gone.contains(key)
    }

    pub(super) fn has_buffered(&self) -> bool {
        !self.dirty.is_empty() || !self.gone.is_empty()
    }

    /// Everything the log does not know yet, in order: key, and value or `None` for a removal.
    pub(super) fn buffered(&self) -> impl Iterator<Item = (&str, Option<&V>)> {
        let sets = self.dirty.iter().filter_map(|key| {
            let slot = self.slots.find(HASHER.hash_one(key.as_str()), |slot| slot.key == *key)?;
            slot.dirty.then_some((key.as_str(), Some(&slot.value)))
        });
        sets.chain(self.gone.iter().map(|key| (key.as_str(), None)))
    }

    /// Forgets what was buffered: it is in the log now, but for these keys.
    pub(super) fn all_logged(&mut self, but: Vec<CompactString>) {
        for key in std::mem::replace(&mut self.dirty, but) {
            if self.dirty.contains(&key) {
                continue;
            }
            if let Some(slot) = self.slots.find_mut(HASHER.hash_one(key.as_str()), |slot| slot.key == key) {
                slot.dirty = false;
            }
        }
        self.gone.clear();
    }
}
