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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks that differ by less take the same memory.
const STEP: usize = 64;

/// The number of a table and where a block begins in it.
pub(super) type Key = (u64, u64);

/// What was read of tables.
#[derive(Debug)]
pub(in crate::lsm) struct Caches {
    blocks: Cache<Key, Block, Weights, foldhash::fast::FixedState, Evicted>,
    indexes: Cache<u64, Arc<Directory>, Weights, foldhash::fast::FixedState>,
    spare: Mutex<Spare>,
    /// Bytes that blocks and spare memory may take together.
    limit: AtomicU64,
}

#[derive(Clone, Debug)]
struct Weights;

/// What an entry of a cache costs beside what it holds.
const ENTRY: usize = 64;

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

/// Hands out the blocks that had to go.
#[derive(Clone, Debug)]
struct Evicted;

impl quick_cache::Lifecycle<Key, Block> for Evicted {
    type RequestState = Vec<Block>;

    fn begin_request(&self) -> Vec<Block> {
        Vec::new()
    }

    fn on_evict(&self, gone: &mut Vec<Block>, _: Key, block: Block) {
        gone.push(block);
    }
}

/// The share of the limit that blocks leave to spare memory: enough for what goes while others come.
const LEFT: u64 = 64;

impl Caches {
    /// Caches of so many bytes each.
    pub(in crate::lsm) fn new(blocks: u64, indexes: u64) -> Self {
        let hash = foldhash::fast::FixedState::default;
        let items = |bytes: u64, each: u64| (bytes / each).clamp(16, 1 << 20) as usize;
        Self {
            blocks: Cache::with(items(blocks, 4096), blocks - blocks / LEFT, Weights, hash(), Evicted),
            indexes: Cache::with(items(indexes, 64 << 10), indexes, Weights, hash(), Default::default()),
            spare: Mutex::default(),
            limit: AtomicU64::new(blocks),
        }
    }

    /// Changes how much they hold, in bytes.
    pub(in crate::lsm) fn resize(&self, blocks: u64, indexes: u64) {
        self.limit.store(blocks, Ordering::Relaxed);
        self.blocks.set_capacity(blocks - blocks / LEFT);
        self.indexes.set_capacity(indexes);
        self.make_room(&mut self.spare(), 0);
    }

    pub(super) fn block(&self, key: Key) -> Option<Block> {
        self.blocks.get(&key)
    }

    pub(super) fn keep_block(&self, key: Key, block: Block) {
        self.blocks.insert_with_lifecycle(key, block).into_iter().for_each(|gone| self.recycle(gone));
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
            Some((_, directory)) => directory
                .offsets()
                .filter_map(|offset| self.blocks.remove(&(table, offset)))
                .for_each(|(_, block)| self.recycle(block)),
            // It was never read, or not for long: who knows what is left of it.
            None => self.blocks.retain(|(other, _), _| *other != table),
        }
    }

    /// Memory for a block of so many bytes, or a few more.
    pub(super) fn memory(&self, len: usize) -> Arc<[u8]> {
        let len = len.next_multiple_of(STEP);
        {
            let mut spare = self.spare();
            if let Some(piece) = spare.take(len) {
                return piece;
            }
            self.make_room(&mut spare, weight(len));
        }
        std::iter::repeat_n(0, len).collect()
    }

    /// Keeps the memory of a block that was let go of, if it was the last to have it and there is room.
    pub(super) fn recycle(&self, block: Block) {
        let Some(piece) = block.into_memory() else { return };
        let mut spare = self.spare();
        if self.blocks.weight() + spare.weight + weight(piece.len()) <= self.limit.load(Ordering::Relaxed) {
            spare.put(piece);
        }
    }

    /// Frees spare memory until so many bytes more are within the limit.
    fn make_room(&self, spare: &mut Spare, bytes: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        while spare.weight > 0 && self.blocks.weight() + spare.weight + bytes > limit {
            spare.free_one();
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hits and misses of blocks, and bytes held by blocks and by indexes.
    pub(in crate::lsm) fn usage(&self) -> (u64, u64, u64, u64) {
        (self.blocks.hits(), self.blocks.misses(), self.blocks.weight(), self.indexes.weight())
    }
}

/// Memory of blocks that went, by length.
#[derive(Debug, Default)]
struct Spare {
    pieces: BTreeMap<usize, Vec<Arc<[u8]>>>,
    weight: u64,
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

    fn free_one(&mut self) {
        if let Some((&longest, _)) = self.pieces.last_key_value() {
            self.take_one(longest);
        }
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
    use crate::lsm::entry::Tag;
    use proptest::prelude::*;

    /// A block of about so many bytes in memory of the caches, and where it lies.
    fn placed(caches: &Caches, len: usize) -> (Block, *const u8) {
        let mut builder = BlockBuilder::new(16);
        builder.add(b"key", Tag::newest_of(1), &vec![1; len]);
        let bytes = builder.finish();
        let mut memory = caches.memory(bytes.len());
        Arc::make_mut(&mut memory)[..bytes.len()].copy_from_slice(bytes);
        let at = memory.as_ptr();
        (Block::new(memory, bytes.len()).unwrap(), at)
    }

    fn block(caches: &Caches, len: usize) -> Block {
        placed(caches, len).0
    }

    #[test]
    fn a_block_takes_the_memory_of_one_that_went_but_not_of_one_that_is_read() {
        let caches = Caches::new(1 << 20, 1 << 20);
        let (first, at) = placed(&caches, 4000);
        caches.recycle(first);
        assert_ne!(placed(&caches, 4100).1, at, "it is too short");
        let (again, same) = placed(&caches, 3990);
        assert_eq!(same, at);
        let reader = again.clone();
        caches.recycle(again);
        let (other, elsewhere) = placed(&caches, 4000);
        assert_ne!(elsewhere, at, "somebody reads it");
        caches.recycle(reader);
        assert_ne!(placed(&caches, 100).1, at, "most of it would be left over");
        assert_eq!(placed(&caches, 4000).1, at);
        drop(other);
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
                    2 => caches.blocks.remove(&(1, offset)).into_iter().for_each(|(_, gone)| caches.recycle(gone)),
                    _ => caches.keep_block((1, offset), block(&caches, len)),
                }
                let spare = caches.spare();
                let pieces = spare.pieces.iter().map(|(len, pieces)| weight(*len) * pieces.len() as u64).sum::<u64>();
                prop_assert_eq!(spare.weight, pieces);
                prop_assert!(caches.blocks.weight() + spare.weight <= limit);
            }
        }
    }
}
