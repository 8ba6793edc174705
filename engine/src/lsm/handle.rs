//! What users hold: the store, batches, snapshots.

use super::backup::{self, Backup};
use super::checkpoint;
use super::cursor::Direction;
use super::entry::Changes;
use super::export::{self, Format};
use super::iter::{self, Iter, KeyRange};
use super::options::Options;
use super::pick::{self, Shape};
use super::store::{self, Core};
use super::transaction::Transaction;
use super::version::LEVELS;
use crate::background::Workers;
use crate::error::{Error, Result};
use crate::log::Cut;
use crate::sync_policy::{Durability, SyncPolicy};
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Keys are shorter than this many bytes.
const MAX_KEY: usize = 1 << 16;

/// A store. Dropping it syncs and closes; [`Store::close`] does the same and says whether it worked.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    workers: Option<Workers>,
}

impl Store {
    /// Opens or creates the store in the directory `dir`.
    ///
    /// What a crash left of unfinished work is removed, a torn tail of the log is cut off (see [`Stats::cut`]).
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`] with its remedy, [`Error::Format`], [`Error::Io`], [`Error::Option`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let core = Core::open(dir.as_ref(), options)?;
        let workers = core.options.background.then(|| store::start_workers(&core));
        Ok(Self { core, workers })
    }

    /// Sets a value. In the kernel when it returns; on the device under `always`.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for an empty or overlong key, [`Error::Full`], [`Error::Poisoned`], [`Error::Closed`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_at(key, value, Durability::Write)
    }

    /// As [`Store::put`], at a durability level.
    pub fn put_at(&self, key: &[u8], value: &[u8], level: Durability) -> Result<()> {
        check_key(key)?;
        let mut changes = Changes::with_capacity(key.len() + value.len() + 16);
        changes.put(key, value, None);
        self.core.write(&mut changes, level, &mut || Ok(()))
    }

    /// Deletes a key, whether or not it has a value. Durable as [`Store::put`].
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.delete_at(key, Durability::Write)
    }

    /// As [`Store::delete`], at a durability level.
    pub fn delete_at(&self, key: &[u8], level: Durability) -> Result<()> {
        check_key(key)?;
        let mut changes = Changes::with_capacity(key.len() + 16);
        changes.delete(key);
        self.core.write(&mut changes, level, &mut || Ok(()))
    }

    /// Makes the changes of a batch: all or none of them, whatever crashes. An empty batch changes nothing, and
    /// returns when what was acknowledged before it is as durable as the level asks.
    pub fn write(&self, mut batch: Batch, level: Durability) -> Result<()> {
        batch.refused.take().map_or(Ok(()), Err)?;
        self.core.write(&mut batch.changes, level, &mut || Ok(()))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// Looks at the value of a key in place.
    pub fn get_with<R>(&self, key: &[u8], look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let view = self.core.view();
        let seq = self.core.visible();
        view.get(&self.core.dir, key, seq, self.core.options.clock.now(), look)
    }

    /// The values of several keys as of one moment.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let view = self.core.view();
        let (seq, now) = (self.core.visible(), self.core.options.clock.now());
        keys.iter().map(|key| view.get(&self.core.dir, key.as_ref(), seq, now, <[u8]>::to_vec)).collect()
    }

    /// All keys and values in order.
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// The keys of a range with their values, in order.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_in(owned(&range), Direction::Forward)
    }

    /// As [`Store::range`], from the greatest key to the least.
    pub fn range_reverse<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_in(owned(&range), Direction::Reverse)
    }

    /// The keys that begin with a prefix, in order.
    pub fn prefix(&self, prefix: &[u8]) -> Iter {
        self.iter_in(iter::prefix(prefix), Direction::Forward)
    }

    fn iter_in(&self, range: KeyRange, direction: Direction) -> Iter {
        let view = Arc::clone(&self.core.view());
        let seq = self.core.visible();
        Iter::new(Arc::clone(&self.core), view, seq, range, direction)
    }

    /// The store as it is now, for as long as the snapshot is held.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { seq: self.core.hold(), core: Arc::clone(&self.core) }
    }

    /// A transaction over the store as it is now.
    pub fn transaction(&self) -> Transaction {
        Transaction::begin(&self.core)
    }

    /// Writes a backup of the store as it is now, while writes go on: whole with `since` 0, else what changed after
    /// the version up to which an earlier backup goes ([`Backup::through`]). What it holds is on the device of this
    /// store when it returns, so that no crash takes back what an incremental backup builds on.
    ///
    /// # Errors
    /// [`Error::Option`] when deletes behind `since` are gone, [`Error::Io`] of the stream, [`Error::Corrupt`]; as
    /// [`Store::sync`].
    pub fn backup(&self, out: &mut dyn std::io::Write, since: u64) -> Result<Backup> {
        backup::write(&self.core, out, since)
    }

    /// Writes what a backup holds into this store, as so many writes of this level: first a whole one into an empty
    /// store, then the incremental ones in their order. Not atomic: after an error, begin again with an empty store.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::Corrupt`] naming the place in the stream, and as [`Store::write`].
    pub fn load(&self, input: &mut dyn std::io::Read, level: Durability) -> Result<Backup> {
        backup::load(&self.core, input, level)
    }

    /// Makes a second store in the empty directory `dir` that holds everything acknowledged so far, with hard links
    /// to the files of this one: it takes no room until they part. Writes go on meanwhile. Durable on return.
    ///
    /// # Errors
    /// [`Error::Option`] for a directory that is not empty; [`Error::Io`], also for another file system (make a
    /// backup instead); as [`Store::flush`]. What was linked before an error stays and is no store.
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<()> {
        checkpoint::write(&self.core, dir.as_ref())
    }

    /// Writes every key and value as of now in a format that other programs read, while writes go on; how many
    /// there are.
    ///
    /// # Errors
    /// [`Error::Io`] of the stream, [`Error::Corrupt`].
    pub fn export(&self, out: &mut dyn std::io::Write, format: Format) -> Result<u64> {
        export::write(&self.core, out, format)
    }

    /// Puts every entry of an export into this store; how many there were. Not atomic: a mebibyte at a time.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the number of the entry that cannot be read; as [`Store::write`].
    pub fn import(&self, input: &mut dyn std::io::Read, format: Format, level: Durability) -> Result<u64> {
        export::read(&self.core, input, format, level)
    }

    /// Removes all keys: see [`Store::drop_prefix`].
    pub fn drop_all(&self) -> Result<()> {
        self.drop_prefix(b"")
    }

    /// Removes the keys that begin with a prefix: all or none of them, whatever crashes, and durable on return. Much
    /// faster than to delete them: tables that hold nothing else are let go of unread. Writes wait meanwhile.
    ///
    /// It reaches into the past: snapshots do not see the keys any more, and open transactions conflict.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn drop_prefix(&self, prefix: &[u8]) -> Result<()> {
        self.core.drop_prefix(prefix)
    }

    /// Puts every `Async` write into the kernel; under `always` onto the device.
    pub fn flush_log(&self) -> Result<()> {
        self.core.flush_log()
    }

    /// Makes everything durable that was acknowledged before: with `manual`, the end of a run loop.
    pub fn sync(&self) -> Result<()> {
        self.core.sync()
    }

    /// Writes all memtables into tables.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Merges everything into one level and drops what no snapshot can see any more. A table of some length that overlaps no
    /// other and points to no value log file is read, and stays as it is if nothing in it is to be dropped: what options say
    /// about blocks and filters changes only what is written. When it returns, no file is left that nobody reads. A thread of
    /// the store does it if it has any, behind those who read and write.
    ///
    /// # Errors
    /// As [`Store::flush`], and [`Error::Corrupt`]. What was not merged stays as it was.
    pub fn compact(&self) -> Result<()> {
        self.core.compact_all()
    }

    /// Reads every table and value from end to end and checks what it finds.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the first thing that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        let view = Arc::clone(&self.core.view());
        view.version.tables.iter().flatten().try_for_each(|table| table.check())?;
        let mut entries = self.iter();
        while entries.advance()?.is_some() {}
        Ok(())
    }

    /// Does what is due at `now`, a time since opening, one flush or compaction at most, and returns when it wants
    /// to be called next. For owners without background threads.
    pub fn maintain(&self, now: Duration) -> Result<Duration> {
        let timed = self.core.flush_due(now)?.min(self.core.sync_due(now)?);
        Ok(if self.core.step()? { now } else { timed })
    }

    /// Changes how many bytes of blocks, and of indexes and filters, stay in memory.
    pub fn resize_caches(&self, blocks: u64, indexes: u64) {
        self.core.caches.resize(blocks, indexes);
    }

    /// Changes when the log is synced without being asked. When it returns, the store keeps what the new policy
    /// promises; an interval begins within a tenth of a second.
    ///
    /// # Errors
    /// [`Error::Option`] for an interval of zero; as [`Store::sync`], when the policy holds already.
    pub fn set_sync_policy(&self, policy: SyncPolicy) -> Result<()> {
        self.core.set_sync(policy)
    }

    /// Changes how many bytes a second compactions take in at most; 0 for no limit.
    pub fn set_compaction_rate(&self, rate: u64) {
        self.core.set_compaction_rate(rate);
    }

    /// What the store holds and has done.
    pub fn stats(&self) -> Stats {
        let core = &self.core;
        let view = core.view();
        let levels = &view.version.levels;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let cached = core.caches.usage();
        let memories = std::iter::once(&view.active).chain(&view.immutable);
        Stats {
            levels: (0..LEVELS)
                .map(|n| Level {
                    tables: levels.tables[n].len() as u64,
                    bytes: levels.size(n),
                    entries: levels.tables[n].iter().map(|t| t.entries).sum(),
                })
                .collect(),
            value_log: levels.values.values().sum(),
            value_log_live: levels.live_values().values().sum(),
            pending: pick::pending(levels, &Shape::of(&core.options)),
            memtables: 1 + view.immutable.len() as u64,
            memtable_bytes: memories.map(|m| m.table.bytes() as u64).sum(),
            flushes: count(&core.counts.flushes),
            compactions: count(&core.counts.compactions),
            collections: count(&core.counts.collections),
            stalls: count(&core.counts.stalls),
            slowed: count(&core.counts.slowed),
            written: count(&core.counts.written),
            flushed: count(&core.counts.flushed),
            compacted: count(&core.counts.compacted),
            compacting: Duration::from_nanos(count(&core.counts.compacting)),
            cache_hits: cached.hits,
            cache_misses: cached.misses,
            cached_blocks: cached.blocks,
            spare_blocks: cached.spare,
            cached_indexes: cached.indexes,
            cut: core.cut.clone(),
            background_error: core.background_error(),
        }
    }

    /// Syncs under every policy and lets go of the files. Memtables stay in the log.
    ///
    /// # Errors
    /// Whatever kept the last changes from the device. The files are let go of all the same.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.core.stop_work();
        drop(self.workers.take());
        self.core.close()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // `close` reports what this cannot; after it, there is nothing left to do.
        let _ = self.finish();
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Changes,
    refused: Option<Error>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value. A key that is not allowed is refused when the batch is written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        if self.allows(key) {
            self.changes.put(key, value, None);
        }
    }

    /// Sets a value that ends at a Unix time in seconds: from then on the key has none.
    pub fn put_until(&mut self, key: &[u8], value: &[u8], end: u64) {
        if self.allows(key) {
            self.changes.put(key, value, Some(end));
        }
    }

    /// Deletes a key.
    pub fn delete(&mut self, key: &[u8]) {
        if self.allows(key) {
            self.changes.delete(key);
        }
    }

    /// Changes so far.
    pub fn len(&self) -> usize {
        self.changes.len() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn allows(&mut self, key: &[u8]) -> bool {
        match check_key(key) {
            Ok(()) => true,
            Err(e) => {
                self.refused.get_or_insert(e);
                false
            }
        }
    }
}

/// The store as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    core: Arc<Core>,
    seq: u64,
}

impl Snapshot {
    /// The value that a key had.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.core.view().get(&self.core.dir, key, self.seq, self.core.options.clock.now(), <[u8]>::to_vec)
    }

    /// The keys of a range with the values they had, in order.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        let view = Arc::clone(&self.core.view());
        Iter::new(Arc::clone(&self.core), view, self.seq, owned(&range), Direction::Forward)
    }

    /// As [`Snapshot::range`], from the greatest key to the least.
    pub fn range_reverse<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        let view = Arc::clone(&self.core.view());
        Iter::new(Arc::clone(&self.core), view, self.seq, owned(&range), Direction::Reverse)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.core.release(self.seq);
    }
}

/// What a store holds and has done since it was opened; sizes in bytes.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// From level 0 down.
    pub levels: Vec<Level>,
    /// Value log files.
    pub value_log: u64,
    /// Of these, what a table still points to.
    pub value_log_live: u64,
    /// What levels hold above their targets.
    pub pending: u64,
    /// Memtables, the one that is written among them.
    pub memtables: u64,
    /// Their memory.
    pub memtable_bytes: u64,
    /// Memtables that became tables.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Compactions that moved values out of value log files.
    pub collections: u64,
    /// Times that a write waited for room.
    pub stalls: u64,
    /// Times that a write was slowed.
    pub slowed: u64,
    /// What writes brought.
    pub written: u64,
    /// What flushes wrote.
    pub flushed: u64,
    /// What compactions wrote.
    pub compacted: u64,
    /// Time that threads of the store spent on compactions, one beside the other counted together.
    pub compacting: Duration,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks read.
    pub cache_misses: u64,
    /// Memory of blocks in the cache.
    pub cached_blocks: u64,
    /// Memory that is kept for blocks to come; with [`Stats::cached_blocks`] it is within [`Options::block_cache`].
    pub spare_blocks: u64,
    /// Memory of indexes and filters in theirs.
    pub cached_indexes: u64,
    /// What a crash had left and opening cut off, and of which file.
    pub cut: Option<(PathBuf, Cut)>,
    /// The last failure of a background flush, sync or compaction.
    pub background_error: Option<String>,
}

impl Stats {
    /// Bytes that flushes and compactions wrote for each byte that came in; 0 before the first flush.
    pub fn write_amplification(&self) -> f64 {
        if self.written == 0 { 0.0 } else { (self.flushed + self.compacted) as f64 / self.written as f64 }
    }

    /// Sorted runs that a point read may have to ask, at worst: memtables, tables of level 0, and levels that hold
    /// anything. Filters keep it from most of them.
    pub fn read_amplification(&self) -> u64 {
        let level0 = self.levels.first().map_or(0, |level| level.tables);
        self.memtables + level0 + self.levels.iter().skip(1).filter(|level| level.tables > 0).count() as u64
    }

    /// Bytes in tables for each byte in the last level that holds any, most of which is current; 1 for an empty store.
    pub fn space_amplification(&self) -> f64 {
        let all: u64 = self.levels.iter().map(|level| level.bytes).sum();
        let last = self.levels.iter().rev().map(|level| level.bytes).find(|bytes| *bytes > 0);
        last.map_or(1.0, |last| all as f64 / last as f64)
    }
}

/// What a level holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Tables.
    pub tables: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Versions in them.
    pub entries: u64,
}

pub(super) fn check_key(key: &[u8]) -> Result<()> {
    let why = match key.len() {
        0 => "it must not be empty",
        n if n >= MAX_KEY => "it must be shorter than 65536 bytes",
        _ => return Ok(()),
    };
    Err(Error::InvalidKey { key: String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned(), why })
}

pub(super) fn owned<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> KeyRange {
    let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
    (own(range.start_bound()), own(range.end_bound()))
}

#[cfg(test)]
mod tests {
    use super::super::options::Compression;
    use super::super::pick;
    use super::*;
    use crate::fs::MemFs;
    use std::cell::Cell;

    #[test]
    fn files_are_gone_before_memory_is_freed() {
        let fs = MemFs::new();
        let options = Options {
            memtable_size: 2 << 20,
            value_threshold: 1 << 20,
            compression: Compression::None,
            background: false,
            fs: Arc::new(fs.clone()),
            ..Options::default()
        };
        let store = Store::open("/db", options).unwrap();
        for round in 0..3u8 {
            (0..25u8).for_each(|n| store.put(&[n], &vec![round; 100 << 10]).unwrap());
            store.core.flush_one().unwrap();
        }
        assert!(store.core.compact_one(pick::everything).unwrap());
        let tables = || fs.paths().iter().filter(|path| path.extension().is_some_and(|e| e == "sst")).count();
        assert!(tables() > 2, "{}", tables());
        let rests = Cell::new(0);
        store.core.forget(|| {
            assert_eq!(tables(), 1);
            rests.set(rests.get() + 1);
        });
        assert!(rests.get() > 1);
    }
}
