//! The newest versions, in memory, in order: a B-tree under a lock.
//!
//! A skip list needs no lock, but visits a cache line for each comparison; the nodes of a B-tree hold eleven
//! versions side by side, each with the head of its key, and cost half the time of a random insert. Readers hold the
//! lock for one search or for a handful of versions, never while they look at a value.

use super::entry::{Head, Tag, head, order_behind_head};
use super::sstable::hash;
use bytes::{Bytes, BytesMut};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Memory};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A version of a key, with its value.
#[derive(Clone, Debug)]
pub(super) struct Versioned {
    head: Head,
    tag: Tag,
    key: u32,
    /// The key, then the stored value. A version that is only searched for has no bytes if its head says all.
    bytes: Option<Bytes>,
}

/// What a version costs beside its bytes: its place in a node that is two thirds full.
const NODE: usize = size_of::<Versioned>() * 3 / 2;

/// Versions take their bytes from blocks of this size, so that neither to write one nor to free one asks the allocator,
/// whose lock writers would share with the worker who frees a memtable.
const BLOCK: usize = 64 << 10;

impl Versioned {
    /// A version whose bytes come from `block`, or from a new one if it has no room for them.
    fn new(key: &[u8], tag: Tag, stored: &[u8], block: &mut BytesMut) -> Self {
        let len = key.len() + stored.len();
        let mut own = BytesMut::new();
        let block = match block.capacity() {
            // A large one has a block of its own, so that little of a shared one is left over.
            _ if len > BLOCK / 8 => &mut own,
            left if left < len => {
                *block = BytesMut::with_capacity(BLOCK);
                block
            }
            _ => block,
        };
        block.reserve(len);
        block.extend_from_slice(key);
        block.extend_from_slice(stored);
        Self { head: head(key), tag, key: key.len() as u32, bytes: Some(block.split().freeze()) }
    }

    fn probe(key: &[u8], tag: Tag) -> Self {
        let bytes = (key.len() > size_of::<Head>()).then(|| Bytes::copy_from_slice(key));
        Self { head: head(key), tag, key: key.len() as u32, bytes }
    }

    /// Key, tag and stored value.
    pub(super) fn parts(&self) -> (&[u8], Tag, &[u8]) {
        let (key, stored) = self.bytes.as_deref().unwrap_or_default().split_at(self.key_len());
        (key, self.tag, stored)
    }

    fn key_len(&self) -> usize {
        if self.bytes.is_some() { self.key as usize } else { 0 }
    }

    fn has_key(&self, key: &[u8]) -> bool {
        self.parts().0 == key
    }
}

impl Ord for Versioned {
    fn cmp(&self, other: &Self) -> Ordering {
        let behind = || {
            let short = size_of::<Head>() as u32;
            if self.key <= short && other.key <= short {
                return self.key.cmp(&other.key);
            }
            order_behind_head(self.parts().0, other.parts().0)
        };
        self.head.cmp(&other.head).then_with(behind).then_with(|| other.tag.cmp(&self.tag))
    }
}

impl PartialOrd for Versioned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Versioned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Versioned {}

/// Bytes that are freed without a rest: about a tenth of a millisecond's work.
const SLICE: usize = 1 << 20;

/// Keys for each word of the filter: about eleven bits a key, in one word so that a question costs one access to memory.
const FILTER_KEYS: usize = 6;

/// Versions in order.
#[derive(Debug)]
pub(super) struct Memtable {
    sorted: RwLock<Sorted>,
    /// Which keys it certainly does not hold.
    filter: Box<[AtomicU64]>,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Sorted {
    versions: BTreeSet<Versioned>,
    /// Where the next versions' bytes go.
    block: BytesMut,
}

impl Memtable {
    /// An empty memtable with a filter for as many keys as fit into so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let words = (bytes / (NODE + 32) / FILTER_KEYS).next_power_of_two();
        Self { sorted: RwLock::default(), filter: (0..words).map(|_| AtomicU64::new(0)).collect(), bytes: AtomicUsize::new(0) }
    }

    /// What a version of so many bytes of key and value takes.
    pub(super) fn weight(bytes: usize) -> usize {
        NODE + bytes
    }

    /// Puts versions in their places. Readers see all of them or none.
    pub(super) fn insert<'a>(&self, versions: impl Iterator<Item = (&'a [u8], Tag, &'a [u8])>) {
        let mut sorted = self.sorted.write().unwrap_or_else(PoisonError::into_inner);
        let Sorted { versions: all, block } = &mut *sorted;
        // Whoever holds the lock is the only one to change filter and size: no atomic read-modify-write is needed.
        let mut bytes = self.bytes.load(Memory::Relaxed);
        for (key, tag, stored) in versions {
            let (word, bits) = self.mark(hash(key));
            word.store(word.load(Memory::Relaxed) | bits, Memory::Relaxed);
            bytes += Self::weight(key.len() + stored.len());
            all.insert(Versioned::new(key, tag, stored, block));
        }
        self.bytes.store(bytes, Memory::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, Sorted> {
        self.sorted.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word of the filter that knows a key, and the bits by which it does.
    fn mark(&self, hash: u64) -> (&AtomicU64, u64) {
        let bits = (0..4).fold(0, |bits, n| bits | 1 << (hash >> (6 * n) & 63));
        (&self.filter[(hash >> 32) as usize & (self.filter.len() - 1)], bits)
    }

    /// The newest version of a key with this hash that is not above `tag`.
    pub(super) fn get(&self, key: &[u8], hash: u64, tag: Tag) -> Option<Versioned> {
        let (word, bits) = self.mark(hash);
        if word.load(Memory::Relaxed) & bits != bits {
            return None;
        }
        let probe = Versioned::probe(key, tag);
        self.read().versions.range(probe..).next().filter(|found| found.has_key(key)).cloned()
    }

    /// Memory in bytes, overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Memory::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Up to `limit` versions from a bound on, upwards.
    pub(super) fn after(&self, from: Bound<&Versioned>, limit: usize, into: &mut Vec<Versioned>) {
        into.extend(self.read().versions.range((from, Bound::Unbounded)).take(limit).cloned());
    }

    /// Up to `limit` versions from a bound on, downwards.
    pub(super) fn before(&self, to: Bound<&Versioned>, limit: usize, into: &mut Vec<Versioned>) {
        into.extend(self.read().versions.range((Bound::Unbounded, to)).rev().take(limit).cloned());
    }

    /// Frees the versions, and calls `rest` now and then.
    ///
    /// Their memory goes back to the threads that wrote them, under the lock under which these take new memory: a
    /// hundred thousand versions in one go would keep them waiting for a tenth of a second.
    pub(super) fn free(self, rest: impl Fn()) {
        let mut freed = 0;
        for version in self.sorted.into_inner().unwrap_or_else(PoisonError::into_inner).versions {
            freed += Self::weight(version.bytes.as_deref().map_or(0, <[u8]>::len));
            drop(version);
            if freed >= SLICE {
                freed = 0;
                rest();
            }
        }
    }

    /// Something to search for.
    pub(super) fn place(key: &[u8], tag: Tag) -> Versioned {
        Versioned::probe(key, tag)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    fn tag(seq: u64) -> Tag {
        Tag::new(seq, Kind::Value, false)
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_of_versions(
            keys in prop::collection::vec(prop::collection::vec(0u8..3, 1..20), 0..200),
            chunk in 1usize..7,
        ) {
            let table = Memtable::new(1 << 10);
            let mut model = BTreeMap::new();
            for (seq, key) in keys.iter().enumerate() {
                let (seq, value) = (seq as u64 + 1, seq.to_string().into_bytes());
                table.insert(std::iter::once((&key[..], tag(seq), &value[..])));
                model.insert((key.clone(), Reverse(seq)), value);
            }
            let wanted: Vec<_> = model.into_iter().collect();
            let whole = |v: &Versioned| {
                let (key, tag, value) = v.parts();
                ((key.to_vec(), Reverse(tag.seq())), value.to_vec())
            };
            let (mut forward, mut backward) = (Vec::new(), Vec::new());
            while forward.len() < keys.len() {
                let last: Option<Versioned> = forward.last().cloned();
                table.after(last.as_ref().map_or(Bound::Unbounded, Bound::Excluded), chunk, &mut forward);
            }
            while backward.len() < keys.len() {
                let last: Option<Versioned> = backward.last().cloned();
                table.before(last.as_ref().map_or(Bound::Unbounded, Bound::Excluded), chunk, &mut backward);
            }
            backward.reverse();
            prop_assert_eq!(forward.iter().map(whole).collect::<Vec<_>>(), &wanted[..]);
            prop_assert_eq!(backward.iter().map(whole).collect::<Vec<_>>(), &wanted[..]);
            for (n, key) in keys.iter().enumerate() {
                let newest = keys[..=n].iter().rposition(|k| k == key).unwrap() as u64 + 1;
                let found = table.get(key, hash(key), Tag::newest_of(n as u64 + 1)).map(|v| v.parts().1.seq());
                prop_assert_eq!(found, Some(newest));
                prop_assert_eq!(table.get(&[9], hash(&[9]), Tag::newest_of(9)), None);
            }
        }
    }

    #[test]
    fn freeing_rests_behind_each_slice_and_leaves_what_a_reader_holds() {
        let table = Memtable::new(1 << 20);
        let keys: Vec<_> = (0..20u8).map(|n| [n]).collect();
        table.insert(keys.iter().map(|key| (&key[..], tag(1), &[7; SLICE / 4][..])));
        let held = table.get(&keys[0], hash(&keys[0]), Tag::newest_of(1)).unwrap();
        let rests = std::cell::Cell::new(0);
        table.free(|| rests.set(rests.get() + 1));
        assert_eq!((rests.get(), held.parts().2.len()), (5, SLICE / 4));
        assert!(held.bytes.as_ref().is_some_and(Bytes::is_unique));
    }

    #[test]
    fn readers_see_writes_whole_while_one_writes() {
        let table = Memtable::new(1 << 20);
        let writes = 1_000u32;
        crate::background::in_parallel(vec![true, false, false], |writing| {
            if writing {
                for n in 0..writes {
                    let (a, b) = (n.wrapping_mul(0x9e37_79b1).to_be_bytes(), n.wrapping_mul(0x85eb_ca6b).to_be_bytes());
                    let both = [[b"a", &a[..]].concat(), [b"b", &b[..]].concat()];
                    table.insert(both.iter().map(|key| (&key[..], tag(1), &key[..])));
                }
                return;
            }
            let mut met = 0;
            while met < 2 * writes as usize {
                let mut all = Vec::new();
                table.after(Bound::Unbounded, usize::MAX, &mut all);
                met = all.len();
                assert!(met.is_multiple_of(2) && all.iter().all(|v| v.parts().0 == v.parts().2));
            }
        });
    }
}
