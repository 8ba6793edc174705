//! The newest versions, in memory, in order: sorted leaves under a lock.
//!
//! A skip list needs no lock, but visits a cache line for each comparison and spends pointers on each version. Here a
//! version is 32 bytes in a sorted array, with the head of its key, and its other bytes follow one another in blocks: a
//! search is two bisections, and what is written in order is only appended. Readers hold the lock for one search or for
//! a handful of versions, which they copy.

use super::entry::{Head, Tag, head};
use super::sstable::hash;
use crate::codec::{push_varint, read_varint};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Memory};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Versions in a leaf at most. More of them make inserts at random move more, fewer make the list of leaves long.
const LEAF: usize = 128;

/// Bytes of a block. A version that is larger than an eighth has a block of its own, so that little is left over.
const BLOCK: usize = 64 << 10;

/// What a version costs beside its bytes, with their lengths: its place in a leaf that is two thirds full, as leaves are
/// on average after inserts at random.
const NODE: usize = size_of::<Version>() * 3 / 2;

/// Bytes that are freed without a rest: about a tenth of a millisecond's work.
const SLICE: usize = 1 << 20;

/// Keys for each word of the filter: about eleven bits a key, in one word so that a question costs one access to memory.
const FILTER_KEYS: usize = 6;

/// Bytes that are copied out together at most, but for one version.
const COPY: usize = 64 << 10;

/// A version of a key: enough to find its place, and where the rest of it lies.
#[derive(Clone, Copy, Debug)]
struct Version {
    head: Head,
    tag: Tag,
    place: Place,
}

/// The block of a version's bytes, where they begin in it, and the class of its key.
#[derive(Clone, Copy, Debug)]
struct Place(u64);

/// The length of a key that the head holds whole; one more for any that is longer. Keys with the same head order by it.
type Class = u8;

const LONG: Class = size_of::<Head>() as Class + 1;

fn class(key: &[u8]) -> Class {
    key.len().min(LONG.into()) as Class
}

impl Place {
    fn new(block: usize, at: usize, class: Class) -> Self {
        Self((block as u64) << 32 | (at as u64) << 8 | u64::from(class))
    }

    fn block(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn at(self) -> usize {
        (self.0 as u32 >> 8) as usize
    }

    fn class(self) -> Class {
        self.0 as u8
    }
}

/// Something to search for: a key, and the newest tag that counts.
#[derive(Clone, Copy, Debug)]
struct Probe<'k> {
    head: Head,
    class: Class,
    /// What the head does not hold.
    tail: &'k [u8],
    tag: Tag,
}

impl<'k> Probe<'k> {
    fn new(key: &'k [u8], tag: Tag) -> Self {
        Self { head: head(key), class: class(key), tail: key.get(size_of::<Head>()..).unwrap_or_default(), tag }
    }
}

/// Versions in order.
#[derive(Debug)]
pub(super) struct Memtable {
    sorted: RwLock<Sorted>,
    /// Which keys it certainly does not hold.
    filter: Box<[AtomicU64]>,
    bytes: AtomicUsize,
}

/// **Invariant:** no leaf is empty. All leaves but the first begin with the version that `firsts` says; what it says of
/// the first leaf means nothing, because that takes whatever is before the second.
#[derive(Debug, Default)]
struct Sorted {
    firsts: Vec<Version>,
    leaves: Vec<Vec<Version>>,
    /// A version's bytes are `[key length: varint,] stored length: varint, [rest of the key,] stored`; what stands in
    /// brackets only if the head does not hold the key.
    blocks: Vec<Vec<u8>>,
    /// The block that takes the next bytes.
    open: Option<usize>,
    /// Bytes in blocks, with what is left over at their ends.
    held: usize,
    /// Inserts so far: places that were found before another one mean nothing.
    changes: u64,
}

/// Where a version is: its leaf, and its place in that.
type At = (usize, usize);

impl Sorted {
    /// What the head of a version does not hold of its key, and its stored value.
    fn rest(&self, version: &Version) -> (&[u8], &[u8]) {
        let mut bytes = &self.blocks[version.place.block()][version.place.at()..];
        // What was written here is read here: there is no length without its bytes.
        let mut len = || {
            let (len, read) = read_varint(bytes).unwrap_or_default();
            bytes = &bytes[read..];
            len as usize
        };
        let tail = if version.place.class() == LONG { len() - size_of::<Head>() } else { 0 };
        let stored = len();
        (&bytes[..tail], &bytes[tail..tail + stored])
    }

    fn first_byte(&self, version: &Version) -> u8 {
        self.blocks[version.place.block()][version.place.at()]
    }

    fn order_of_keys(&self, version: &Version, probe: &Probe<'_>) -> Ordering {
        let class = version.place.class();
        // A key that ends within the head comes before all that go on.
        let heads = version.head.cmp(&probe.head).then_with(|| class.cmp(&probe.class));
        heads.then_with(|| if class == LONG { self.rest(version).0.cmp(probe.tail) } else { Ordering::Equal })
    }

    fn order(&self, version: &Version, probe: &Probe<'_>) -> Ordering {
        self.order_of_keys(version, probe).then_with(|| probe.tag.cmp(&version.tag))
    }

    /// The place of the first version that is not before the probe; behind the last of a leaf, if the next one begins
    /// with it.
    fn search(&self, probe: &Probe<'_>) -> At {
        let before = |version: &Version| self.order(version, probe) == Ordering::Less;
        let leaf = self.firsts.get(1..).map_or(0, |later| later.partition_point(before));
        (leaf, self.leaves.get(leaf).map_or(0, |leaf| leaf.partition_point(before)))
    }

    /// The place of the first version at or behind the probe, if there is one.
    fn at_or_behind(&self, probe: &Probe<'_>) -> Option<At> {
        self.there(self.onward(self.search(probe), 0))
    }

    /// The place, if a version is there.
    fn there(&self, (leaf, at): At) -> Option<At> {
        (leaf < self.leaves.len()).then_some((leaf, at))
    }

    /// The place behind one that was copied.
    fn behind(&self, copied: &Copied, at: usize) -> Option<At> {
        if let Some((changes, next)) = copied.next
            && changes == self.changes
            && at + 1 == copied.len()
        {
            return self.there(next);
        }
        let (key, tag, _) = copied.get(at)?;
        // Versions are never taken out, so it is still there.
        let here = self.at_or_behind(&Probe::new(key, tag))?;
        self.there(self.onward(here, 1))
    }

    /// The place so many versions further; the start of a leaf rather than the end of the one before.
    fn onward(&self, (mut leaf, mut at): At, by: usize) -> At {
        at += by;
        while let Some(len) = self.leaves.get(leaf).map(Vec::len)
            && at >= len
        {
            (leaf, at) = (leaf + 1, at - len);
        }
        (leaf, at)
    }

    fn insert(&mut self, key: &[u8], tag: Tag, stored: &[u8]) {
        self.changes += 1;
        let probe = Probe::new(key, tag);
        let place = self.push(&probe, key.len(), stored);
        let version = Version { head: probe.head, tag, place };
        let last = self.leaves.last().and_then(|leaf| leaf.last());
        if last.is_none_or(|last| self.order(last, &probe) == Ordering::Less) {
            // In order: leaves are filled to the brim.
            match self.leaves.last_mut() {
                Some(leaf) if leaf.len() < LEAF => leaf.push(version),
                _ => self.begin(self.leaves.len(), [version]),
            }
            return;
        }
        let (mut leaf, mut at) = self.search(&probe);
        if self.leaves[leaf].len() == LEAF {
            let upper: [Version; LEAF / 2] = std::array::from_fn(|n| self.leaves[leaf][LEAF / 2 + n]);
            self.leaves[leaf].truncate(LEAF / 2);
            self.begin(leaf + 1, upper);
            if at > LEAF / 2 {
                (leaf, at) = (leaf + 1, at - LEAF / 2);
            }
        }
        self.leaves[leaf].insert(at, version);
    }

    /// Memory in bytes, all but what is left in the last leaf and the open block.
    fn memory(&self) -> usize {
        let places = (self.changes as usize).max(self.leaves.len().saturating_sub(1) * LEAF);
        let leaf = size_of::<Version>() + size_of::<Vec<Version>>();
        places * size_of::<Version>() + self.leaves.len() * leaf + self.held
    }

    /// Begins a leaf.
    fn begin<const N: usize>(&mut self, leaf: usize, versions: [Version; N]) {
        let mut all = Vec::with_capacity(LEAF);
        all.extend_from_slice(&versions);
        self.firsts.insert(leaf, versions[0]);
        self.leaves.insert(leaf, all);
    }

    /// Puts the bytes of a version into a block.
    fn push(&mut self, probe: &Probe<'_>, key_len: usize, stored: &[u8]) -> Place {
        // With two lengths of at most five bytes, because no record of the log is longer than a gibibyte.
        let len = 10 + probe.tail.len() + stored.len();
        let block = match self.open {
            _ if len > BLOCK / 8 => {
                self.blocks.push(Vec::with_capacity(len));
                self.blocks.len() - 1
            }
            Some(open) if self.blocks[open].len() + len <= BLOCK => open,
            full => {
                self.held += full.map_or(0, |full| BLOCK - self.blocks[full].len());
                self.blocks.push(Vec::with_capacity(BLOCK));
                *self.open.insert(self.blocks.len() - 1)
            }
        };
        let bytes = &mut self.blocks[block];
        let place = Place::new(block, bytes.len(), probe.class);
        if probe.class == LONG {
            push_varint(bytes, key_len as u64);
        }
        push_varint(bytes, stored.len() as u64);
        bytes.extend_from_slice(probe.tail);
        bytes.extend_from_slice(stored);
        self.held += bytes.len() - place.at();
        place
    }
}

impl Memtable {
    /// An empty memtable with a filter for as many keys with short values as fit into so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let words = (bytes / Self::weight(64) / FILTER_KEYS).next_power_of_two();
        Self { sorted: RwLock::default(), filter: (0..words).map(|_| AtomicU64::new(0)).collect(), bytes: AtomicUsize::new(0) }
    }

    /// What a version of so many bytes of key and value takes, about, if keys come at random.
    pub(super) fn weight(bytes: usize) -> usize {
        NODE + bytes.saturating_sub(size_of::<Head>())
    }

    /// Puts versions in their places. Readers see all of them or none.
    pub(super) fn insert<'a>(&self, versions: impl Iterator<Item = (&'a [u8], Tag, &'a [u8])>) {
        let mut sorted = self.sorted.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds the lock is the only one to change filter and size: no atomic read-modify-write is needed.
        for (key, tag, stored) in versions {
            let (word, bits) = self.mark(hash(key));
            word.store(word.load(Memory::Relaxed) | bits, Memory::Relaxed);
            sorted.insert(key, tag, stored);
        }
        self.bytes.store(sorted.memory(), Memory::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, Sorted> {
        self.sorted.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word of the filter that knows a key, and the bits by which it does.
    fn mark(&self, hash: u64) -> (&AtomicU64, u64) {
        let bits = (0..4).fold(0, |bits, n| bits | 1 << (hash >> (6 * n) & 63));
        (&self.filter[(hash >> 32) as usize & (self.filter.len() - 1)], bits)
    }

    /// Tag and stored value of the newest version of a key with this hash that is not above `tag`.
    pub(super) fn get(&self, key: &[u8], hash: u64, tag: Tag) -> Option<(Tag, Vec<u8>)> {
        let (word, bits) = self.mark(hash);
        if word.load(Memory::Relaxed) & bits != bits {
            return None;
        }
        let probe = Probe::new(key, tag);
        let sorted = self.read();
        let (leaf, at) = sorted.at_or_behind(&probe)?;
        let version = &sorted.leaves[leaf][at];
        (sorted.order_of_keys(version, &probe) == Ordering::Equal).then(|| (version.tag, sorted.rest(version).1.to_vec()))
    }

    /// Memory in bytes, overhead included, but not the filter's, which is always the same.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Memory::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Copies up to `limit` versions from a place on, upwards.
    pub(super) fn after(&self, from: Bound<'_>, limit: usize, into: &mut Copied) {
        let sorted = self.read();
        let start = match from {
            Bound::End => Some((0, 0)).filter(|_| !sorted.leaves.is_empty()),
            Bound::At(key, tag) => sorted.at_or_behind(&Probe::new(key, tag)),
            Bound::Behind(copied, at) => sorted.behind(copied, at),
        };
        let Some((leaf, at)) = start else { return };
        into.copy(&sorted, sorted.leaves[leaf..].iter().flatten().skip(at).take(limit));
        into.next = Some((sorted.changes, sorted.onward((leaf, at), into.len())));
    }

    /// Copies up to `limit` versions in front of a place, downwards.
    pub(super) fn before(&self, to: Bound<'_>, limit: usize, into: &mut Copied) {
        let sorted = self.read();
        let (leaf, at) = match to {
            Bound::End => (sorted.leaves.len(), 0),
            Bound::At(key, tag) => sorted.search(&Probe::new(key, tag)),
            Bound::Behind(copied, at) => copied.get(at).map_or((0, 0), |(key, tag, _)| sorted.search(&Probe::new(key, tag))),
        };
        let here = sorted.leaves.get(leaf).map_or(&[][..], |leaf| &leaf[..at]);
        let versions = here.iter().rev().chain(sorted.leaves[..leaf].iter().rev().flat_map(|leaf| leaf.iter().rev())).take(limit);
        into.copy(&sorted, versions);
    }

    /// Frees the versions, and calls `rest` now and then.
    ///
    /// Their memory goes back to the threads that wrote them, under the lock under which these take new memory: many
    /// megabytes in one go would keep them waiting.
    pub(super) fn free(self, rest: impl Fn()) {
        let Sorted { leaves, blocks, .. } = self.sorted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut freed = 0;
        let mut count = |bytes: usize| {
            freed += bytes;
            if freed >= SLICE {
                freed = 0;
                rest();
            }
        };
        leaves.into_iter().for_each(|leaf| count(leaf.capacity() * size_of::<Version>()));
        blocks.into_iter().for_each(|block| count(block.capacity()));
    }
}

/// From where to copy versions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound<'k> {
    /// From the first, or the last, of all.
    End,
    /// From a version on, or from what comes in its place; downwards from what is before it.
    At(&'k [u8], Tag),
    /// From the next one in the direction of the walk, seen from one that was copied.
    Behind(&'k Copied, usize),
}

/// Versions that were copied out of a memtable.
#[derive(Debug, Default)]
pub(super) struct Copied {
    versions: Vec<(Tag, Range<usize>, Range<usize>)>,
    bytes: Vec<u8>,
    /// Where what follows upwards stood when the memtable had seen so many changes.
    next: Option<(u64, At)>,
}

impl Copied {
    pub(super) fn clear(&mut self) {
        self.versions.clear();
        self.bytes.clear();
        self.next = None;
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether its memory is worth keeping: some, but not that of a single large value.
    pub(super) fn is_modest(&self) -> bool {
        (1..=2 * COPY).contains(&self.bytes.capacity())
    }

    /// Key, tag and stored value of one of them.
    pub(super) fn get(&self, at: usize) -> Option<(&[u8], Tag, &[u8])> {
        let (tag, key, stored) = self.versions.get(at)?;
        Some((&self.bytes[key.clone()], *tag, &self.bytes[stored.clone()]))
    }

    fn copy<'v>(&mut self, sorted: &Sorted, versions: impl Iterator<Item = &'v Version> + Clone) {
        // Their bytes lie scattered: asked for together, they come together.
        std::hint::black_box(versions.clone().fold(0, |all, version| all ^ sorted.first_byte(version)));
        for version in versions {
            let [high, low] = version.head.map(u64::to_be_bytes);
            let (tail, stored) = sorted.rest(version);
            let key = self.bytes.len();
            self.bytes.extend_from_slice(&high);
            self.bytes.extend_from_slice(&low);
            self.bytes.truncate(key + usize::from(version.place.class()).min(size_of::<Head>()));
            self.bytes.extend_from_slice(tail);
            let value = self.bytes.len();
            self.bytes.extend_from_slice(stored);
            self.versions.push((version.tag, key..value, value..self.bytes.len()));
            if self.bytes.len() >= COPY {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    fn tag(seq: u64) -> Tag {
        Tag::new(seq, Kind::Value, false)
    }

    /// Key and sequence number of a version, and its value.
    type Whole = ((Vec<u8>, Reverse<u64>), Vec<u8>);

    /// All versions, copied out so many at a time; `between` is called before each.
    fn walk(
        table: &Memtable,
        step: fn(&Memtable, Bound<'_>, usize, &mut Copied),
        limit: usize,
        between: impl Fn(),
    ) -> Vec<Whole> {
        let (mut all, mut last) = (Vec::<Whole>::new(), Copied::default());
        loop {
            between();
            let mut copied = Copied::default();
            step(table, last.len().checked_sub(1).map_or(Bound::End, |at| Bound::Behind(&last, at)), limit, &mut copied);
            if copied.len() == 0 {
                return all;
            }
            assert!(copied.bytes.len() < COPY + BLOCK, "more than is copied together");
            let whole = |(key, tag, value): (&[u8], Tag, &[u8])| ((key.to_vec(), Reverse(tag.seq())), value.to_vec());
            all.extend((0..copied.len()).filter_map(|at| copied.get(at)).map(whole));
            last = copied;
        }
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
            prop_assert_eq!(&walk(&table, Memtable::after, chunk, || ()), &wanted[..]);
            prop_assert!(walk(&table, Memtable::before, chunk, || ()).iter().eq(wanted.iter().rev()));
            for ((key, seq), value) in &wanted {
                let mut at = Copied::default();
                table.after(Bound::At(key, tag(seq.0)), 1, &mut at);
                prop_assert_eq!(at.get(0), Some((&key[..], tag(seq.0), &value[..])));
            }
            // Newer versions come in front of those that were there, and places move.
            let newer = Cell::new(keys.len() as u64);
            let write = || {
                newer.set(newer.get() + 1);
                let key = &keys[newer.get() as usize % keys.len()];
                table.insert(std::iter::once((&key[..], tag(newer.get()), &[][..])));
            };
            if !keys.is_empty() {
                let old = |(at, _): &Whole| at.1.0 <= keys.len() as u64;
                prop_assert!(walk(&table, Memtable::after, chunk, write).into_iter().filter(old).eq(wanted));
            }
            for (n, key) in keys.iter().enumerate() {
                let newest = keys[..=n].iter().rposition(|k| k == key).unwrap() as u64 + 1;
                let found = table.get(key, hash(key), Tag::newest_of(n as u64 + 1)).map(|(tag, _)| tag.seq());
                prop_assert_eq!(found, Some(newest));
                prop_assert_eq!(table.get(&[9], hash(&[9]), Tag::newest_of(9)), None);
            }
        }
    }

    #[test]
    fn freeing_rests_behind_each_slice() {
        let table = Memtable::new(1 << 20);
        let keys: Vec<_> = (0..20u8).map(|n| [n]).collect();
        table.insert(keys.iter().map(|key| (&key[..], tag(1), &[7; SLICE / 4][..])));
        let rests = Cell::new(0);
        table.free(|| rests.set(rests.get() + 1));
        assert_eq!(rests.get(), 5);
    }

    #[test]
    fn many_leaves_and_blocks_hold_what_was_put_into_them() {
        let table = Memtable::new(1 << 20);
        let count = 40 * LEAF as u32;
        // In order, in reverse, and both mixed: by turns at the end, at the start and between.
        let places = (0..count).map(|n| match n % 3 {
            0 => n,
            1 => count - n,
            _ => n.wrapping_mul(0x9e37_79b1) % count,
        });
        let mut model = BTreeMap::new();
        for (seq, place) in (1..).zip(places) {
            // Keys that the head holds, keys with the same head, and values that need a block of their own.
            let key = format!("{:0width$}", place, width = [8, 20][place as usize % 2]);
            let value = vec![seq as u8; if seq % 500 == 0 { BLOCK / 4 } else { seq as usize % 200 }];
            table.insert(std::iter::once((key.as_bytes(), tag(seq), &value[..])));
            model.insert((key.into_bytes(), Reverse(seq)), value);
        }
        assert!(walk(&table, Memtable::after, usize::MAX, || ()) == model.into_iter().collect::<Vec<_>>());
        let sorted = table.read();
        assert!(sorted.leaves.len() > 40 && sorted.leaves.iter().all(|leaf| (1..=LEAF).contains(&leaf.len())));
    }

    #[test]
    fn it_takes_the_memory_that_it_says() {
        let count = 100_000u32;
        let keys: [&dyn Fn(u32) -> u32; 2] = [&|n| n, &|n| n.wrapping_mul(0x9e37_79b1)];
        let [in_order, at_random] = keys.map(|key| {
            let table = Memtable::new(1 << 20);
            for n in 0..count {
                let value = vec![0; if n % 100 == 0 { BLOCK / 8 - 100 } else { 100 }];
                table.insert(std::iter::once((format!("{:016}", key(n)).as_bytes(), tag(n.into()), &value[..])));
            }
            let sorted = table.read();
            let leaves: usize = sorted.leaves.iter().map(|leaf| leaf.capacity() * size_of::<Version>()).sum();
            let held: usize = sorted.blocks.iter().map(Vec::capacity).sum();
            let off = table.bytes() as f64 / (leaves + held) as f64;
            assert!((0.98..1.02).contains(&off), "{off}");
            table.bytes()
        });
        assert!(in_order < at_random, "{in_order}, {at_random}");
        let mean = 16 + 100 + (BLOCK / 8 - 200) / 100;
        let off = (Memtable::weight(mean) * count as usize) as f64 / at_random as f64;
        assert!((0.95..1.05).contains(&off), "{off}");
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
                let mut all = Copied::default();
                table.after(Bound::End, usize::MAX, &mut all);
                met = all.len();
                assert!(met.is_multiple_of(2) && (0..met).filter_map(|at| all.get(at)).all(|(key, _, value)| key == value));
            }
        });
    }
}
