//! What was read of tables, as long as it fits, and the memory of blocks that went.
//!
//! An allocator keeps what is freed for the threads that had taken it, and cuts the place of a longer block up for shorter
//! ones: a cache whose blocks come and go takes up to half as much again as it holds. So the memory of a block that goes is
//! kept for one that comes.
//!
//! **Invariant:** blocks and kept memory together are no more than what the cache may hold, but for blocks that are read
//! right now.

use super::block::Block;
use super::directory::Directory;
use quick_cache::sync::Cache;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Lengths of memory are multiples of it, so that blocks that hardly differ can follow each other.
const STEP: usize = 64;

/// The number of a table and where a block begins in it.
pub(super) type Key = (u64, u64);

/// What was read of tables.
#[derive(Debug)]
pub(in crate::lsm) struct Caches {
    blocks: Cache<Key, Block, Weights, foldhash::fast::FixedState, Held>,
    /// What the cache of blocks holds, and what is put into it right now.
    held: Held,
    indexes: Cache<u64, Arc<Directory>, Weights, foldhash::fast::FixedState>,
    spare: Mutex<Spare>,
    /// Bytes that blocks and spare memory may take together.
    limit: AtomicU64,
}

/// What caches hold, in bytes, and how they fared.
#[derive(Clone, Copy, Debug)]
pub(in crate::lsm) struct Usage {
    pub(in crate::lsm) hits: u64,
    pub(in crate::lsm) misses: u64,
    pub(in crate::lsm) blocks: u64,
    pub(in crate::lsm) spare: u64,
    pub(in crate::lsm) indexes: u64,
}

#[derive(Clone, Debug)]
struct Weights;

/// What an entry of a cache costs beside what it holds: its place in a list and in a table, half as much again for the keys
/// of those that went, the counts of an [`Arc`] and what an allocator adds.
const ENTRY: usize = 112;

/// What a block of so many bytes costs in the cache; its spare memory counts as much, so that it may become one.
fn weight(len: usize) -> u64 {
    (len + size_of::<Block>() + ENTRY) as u64
}

impl quick_cache::Weighter<Key, Block> for Weights {
    fn weight(&self, _: &Key, block: &Block) -> u64 {
        weight(block.memory())
    }
}

impl quick_cache::Weighter<u64, Arc<Directory>> for Weights {
    fn weight(&self, _: &u64, found: &Arc<Directory>) -> u64 {
        (found.memory() + ENTRY) as u64
    }
}

/// Takes account of the blocks in the cache, because to ask the cache takes a lock for each of its shards, and hands out
/// those that had to go.
#[derive(Clone, Debug, Default)]
struct Held(Arc<AtomicU64>);

impl Held {
    fn add(&self, block: &Block) {
        self.0.fetch_add(weight(block.memory()), Ordering::Relaxed);
    }

    fn subtract(&self, block: &Block) {
        self.0.fetch_sub(weight(block.memory()), Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl quick_cache::Lifecycle<Key, Block> for Held {
    /// Mostly one goes for one that comes; it goes under a lock, where nothing should be allocated.
    type RequestState = (Option<Block>, Vec<Block>);

    fn begin_request(&self) -> Self::RequestState {
        Default::default()
    }

    fn on_evict(&self, (first, more): &mut Self::RequestState, _: Key, block: Block) {
        self.subtract(&block);
        match first {
            None => *first = Some(block),
            Some(_) => more.push(block),
        }
    }
}

/// The share of the limit that blocks leave to spare memory: enough for what goes while others come.
const LEFT: u64 = 64;

impl Caches {
    /// Caches of so many bytes each.
    pub(in crate::lsm) fn new(blocks: u64, indexes: u64) -> Self {
        let hash = foldhash::fast::FixedState::default;
        let items = |bytes: u64, each: u64| (bytes / each).clamp(16, 1 << 20) as usize;
        let held = Held::default();
        Self {
            blocks: Cache::with(items(blocks, 4096), blocks - blocks / LEFT, Weights, hash(), held.clone()),
            held,
            indexes: Cache::with(items(indexes, 64 << 10), indexes, Weights, hash(), Default::default()),
            spare: Mutex::default(),
            limit: AtomicU64::new(blocks),
        }
    }

    /// Changes how much they hold, in bytes.
    pub(in crate::lsm) fn resize(&self, blocks: u64, indexes: u64) {
        let mut spare = self.spare();
        self.limit.store(blocks, Ordering::Relaxed);
        self.blocks.set_capacity(blocks - blocks / LEFT);
        self.indexes.set_capacity(indexes);
        let freed = self.make_room(&mut spare, 0);
        drop(spare);
        drop(freed);
    }

    pub(super) fn block(&self, key: Key) -> Option<Block> {
        self.blocks.get(&key)
    }

    pub(super) fn keep_block(&self, key: Key, block: Block) {
        self.held.add(&block);
        let (first, more) = self.blocks.insert_with_lifecycle(key, block);
        first.into_iter().chain(more).for_each(|gone| self.recycle(gone));
    }

    pub(super) fn directory(&self, table: u64) -> Option<Arc<Directory>> {
        self.indexes.get(&table)
    }

    pub(super) fn keep_directory(&self, table: u64, directory: Arc<Directory>) {
        self.indexes.insert(table, directory);
    }

    /// Lets go of what was read of a table: nobody asks for it again, and it would take others' place until it is old.
    pub(super) fn forget(&self, table: u64) {
        match self.indexes.remove(&table) {
            Some((_, directory)) => directory.offsets().for_each(|offset| self.forget_block((table, offset))),
            // It was never read, or not for long: who knows what is left of it.
            None => self.blocks.retain(|(other, _), block| {
                let stays = *other != table;
                if !stays {
                    self.held.subtract(block);
                }
                stays
            }),
        }
    }

    fn forget_block(&self, key: Key) {
        if let Some((_, block)) = self.blocks.remove(&key) {
            self.held.subtract(&block);
            self.recycle(block);
        }
    }

    /// Memory for a block of so many bytes, or a few more.
    pub(super) fn memory(&self, len: usize) -> Arc<[u8]> {
        let len = len.next_multiple_of(STEP);
        let mut freed = Vec::new();
        if let Some(mut spare) = self.spare_now() {
            if let Some(piece) = spare.take(len) {
                return piece;
            }
            freed = self.make_room(&mut spare, weight(len));
        }
        drop(freed);
        zeros(len)
    }

    /// Keeps the memory of a block that was let go of, if it was the last to have it and there is room.
    pub(super) fn recycle(&self, block: Block) {
        let Some(piece) = block.into_memory() else { return };
        if let Some(mut spare) = self.spare_now()
            && self.has_room(&spare, weight(piece.len()))
        {
            spare.put(piece);
        }
    }

    /// Takes spare memory out, to be freed, until so many bytes more are within the limit.
    #[must_use]
    fn make_room(&self, spare: &mut Spare, bytes: u64) -> Vec<Arc<[u8]>> {
        std::iter::from_fn(|| if self.has_room(spare, bytes) { None } else { spare.take_longest() }).collect()
    }

    /// Whether so many bytes more are within the limit.
    fn has_room(&self, spare: &Spare, bytes: u64) -> bool {
        self.held.bytes() + spare.weight + bytes <= self.limit.load(Ordering::Relaxed)
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare memory, unless another thread is at it. That may be a compaction, which runs behind everybody else: to
    /// allocate takes less time than to wait for it.
    fn spare_now(&self) -> Option<MutexGuard<'_, Spare>> {
        match self.spare.try_lock() {
            Ok(spare) => Some(spare),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(in crate::lsm) fn usage(&self) -> Usage {
        Usage {
            hits: self.blocks.hits(),
            misses: self.blocks.misses(),
            blocks: self.held.bytes(),
            spare: self.spare().weight,
            indexes: self.indexes.weight(),
        }
    }
}

/// Fresh memory.
pub(super) fn zeros(len: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, len).collect()
}

/// Memory of blocks that went, by length.
#[derive(Default)]
struct Spare {
    pieces: BTreeMap<usize, Vec<Arc<[u8]>>>,
    weight: u64,
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").field("weight", &self.weight).finish_non_exhaustive()
    }
}

impl Spare {
    /// The shortest piece that is long enough, unless too much of it would be left over.
    fn take(&mut self, len: usize) -> Option<Arc<[u8]>> {
        let (&found, _) = self.pieces.range(len..=len + len / 8).next()?;
        self.take_one(found)
    }

    fn put(&mut self, piece: Arc<[u8]>) {
        self.weight += weight(piece.len());
        self.pieces.entry(piece.len()).or_default().push(piece);
    }

    fn take_longest(&mut self) -> Option<Arc<[u8]>> {
        let (&longest, _) = self.pieces.last_key_value()?;
        self.take_one(longest)
    }

    fn take_one(&mut self, len: usize) -> Option<Arc<[u8]>> {
        let pieces = self.pieces.get_mut(&len)?;
        let piece = pieces.pop()?;
        if pieces.is_empty() {
            self.pieces.remove(&len);
        }
        self.weight -= weight(len);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockBuilder;
    use super::*;
    use crate::background::in_parallel;
    use crate::lsm::entry::{Kind, Tag};
    use proptest::prelude::*;

    /// A block of about so many bytes in memory of the caches, which say `fill`, and where it lies.
    fn placed(caches: &Caches, len: usize, fill: u8) -> (Block, *const u8) {
        let mut builder = BlockBuilder::new(16);
        builder.add(b"key", Tag::new(1, Kind::Value, false), &vec![fill; len]);
        let bytes = builder.finish();
        let mut memory = caches.memory(bytes.len());
        let at = memory.as_ptr();
        Arc::get_mut(&mut memory).unwrap()[..bytes.len()].copy_from_slice(bytes);
        (Block::new(memory, bytes.len()).unwrap(), at)
    }

    fn block(caches: &Caches, len: usize) -> Block {
        placed(caches, len, 1).0
    }

    #[test]
    fn a_block_takes_the_memory_of_one_that_went_but_not_of_one_that_is_read() {
        let caches = Caches::new(1 << 20, 1 << 20);
        let (first, at) = placed(&caches, 4000, 1);
        caches.recycle(first);
        assert_ne!(placed(&caches, 4100, 1).1, at, "it is too short");
        assert_ne!(placed(&caches, 100, 1).1, at, "most of it would be left over");
        let (again, same) = placed(&caches, 3990, 1);
        assert_eq!(same, at);
        let reader = again.clone();
        caches.recycle(again);
        assert_eq!(caches.usage().spare, 0, "somebody reads it");
        caches.recycle(reader);
        assert!(caches.usage().spare > 4000);
        assert_eq!(placed(&caches, 4000, 1).1, at);
    }

    /// What the account says, and what is there.
    fn sums(caches: &Caches) -> ((u64, u64), (u64, u64)) {
        let spare = caches.spare();
        let pieces = spare.pieces.iter().map(|(len, pieces)| weight(*len) * pieces.len() as u64).sum();
        ((caches.held.bytes(), spare.weight), (caches.blocks.weight(), pieces))
    }

    proptest! {
        #[test]
        fn blocks_and_spare_memory_stay_within_the_limit(
            steps in prop::collection::vec((0u64..40, 200usize..5000, 0u8..8), 1..400), resized in 8u64..64
        ) {
            let caches = Caches::new(64 << 10, 0);
            let mut limit = 64 << 10;
            for (n, (offset, len, what)) in steps.into_iter().enumerate() {
                match what {
                    0 => caches.recycle(block(&caches, len)),
                    1 if n % 50 == 49 => {
                        limit = resized << 10;
                        caches.resize(limit, 0);
                    }
                    1 if n % 20 == 19 => caches.forget(offset % 3),
                    2 => caches.forget_block((offset % 3, offset)),
                    _ => caches.keep_block((offset % 3, offset), block(&caches, len)),
                }
                let (said, there) = sums(&caches);
                prop_assert_eq!(said, there);
                prop_assert!(said.0 + said.1 <= limit, "{said:?} of {limit}");
            }
        }
    }

    #[test]
    fn the_account_includes_what_the_cache_itself_takes() {
        let caches = Caches::new(8 << 20, 0);
        (0..6_000).for_each(|offset| caches.keep_block((1, offset), block(&caches, 4_000)));
        let (len, own) = (caches.blocks.len(), caches.blocks.memory_used().total());
        // Two counts of an `Arc`, and the head of a piece of memory, whose length is a multiple of 16.
        let all = own + len * (16 + 8 + 8);
        let said = len * (size_of::<Block>() + ENTRY);
        assert!(len > 1_500 && all <= said && said < all * 5 / 4, "{all} for {len}, not {said}");
    }

    #[test]
    fn threads_read_what_they_look_for_in_memory_that_goes_from_one_to_the_other() {
        let limit = 4 << 20;
        let caches = Caches::new(limit, 0);
        assert!(caches.blocks.num_shards() > 1);
        in_parallel((0..4u64).collect(), |thread| {
            let mut state = thread + 1;
            for _ in 0..20_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let offset = (state >> 33) % 2000;
                let (len, fill) = (3000 + (offset as usize * 7) % 2000, offset as u8);
                let found = caches.block((1, offset)).unwrap_or_else(|| {
                    let (read, _) = placed(&caches, len, fill);
                    caches.keep_block((1, offset), read.clone());
                    read
                });
                let (_, stored) = found.find(b"key", Tag::newest_of(1)).unwrap().unwrap();
                assert!(stored.len() == len && stored.iter().all(|byte| *byte == fill));
                if offset.is_multiple_of(100) {
                    caches.forget_block((1, offset));
                }
            }
        });
        let (said, there) = sums(&caches);
        assert_eq!(said, there);
        assert!(said.0 + said.1 <= limit + 4 * weight(5000) && said.1 > 0, "{said:?}");
    }
}
