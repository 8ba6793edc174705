//! RocksDB: a block cache of 256 MiB that holds indexes and filters too, LZ4 on every level, Bloom filters of 10 bits
//! a key, its own defaults besides. A `Write` is in the write-ahead log in the kernel when it returns, a `Sync` ends
//! with `fdatasync` of the log.

use crate::bytes::{ByteSession, Bytes};
use engine::{Durability, SyncPolicy};
use harness::subject::{Ordered, Promise, Session, Site, Subject, SubjectError};
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch, WriteOptions};

/// RocksDB.
pub(crate) struct RocksDb;

struct Store {
    database: DB,
    policy: SyncPolicy,
}

fn failed(e: impl std::fmt::Display) -> SubjectError {
    SubjectError::Store(e.to_string())
}

impl Subject for RocksDb {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn version(&self) -> String {
        "11.8 (crate 0.25)".to_owned()
    }

    fn about(&self) -> String {
        "RocksDB, an LSM store in C++".to_owned()
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        !matches!(policy, SyncPolicy::Interval(_))
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        match policy.raise(level) {
            Durability::Async | Durability::Write => Promise::Process,
            Durability::Sync => Promise::Power,
        }
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&Cache::new_lru_cache(256 << 20));
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_block_based_table_factory(&tables);
        options.set_max_background_jobs(2);
        let database = DB::open(&options, site.dir.join("rocksdb")).map_err(failed)?;
        Ok(Box::new(ByteSession::new(Store { database, policy: site.sync }, site.tables)))
    }
}

impl Store {
    fn options(&self, level: Durability) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.policy.raise(level) == Durability::Sync);
        options
    }
}

impl Ordered for Store {
    fn put(&self, key: &[u8], value: &[u8], level: Durability) -> Result<(), SubjectError> {
        self.database.put_opt(key, value, &self.options(level)).map_err(failed)
    }

    fn delete(&self, key: &[u8], level: Durability) -> Result<(), SubjectError> {
        self.database.delete_opt(key, &self.options(level)).map_err(failed)
    }

    fn write(&self, puts: &[(&[u8], &[u8])], level: Durability) -> Result<(), SubjectError> {
        let mut batch = WriteBatch::default();
        puts.iter().for_each(|(key, value)| batch.put(key, value));
        self.database.write_opt(batch, &self.options(level)).map_err(failed)
    }

    fn get(&self, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool, SubjectError> {
        let found = self.database.get_pinned(key).map_err(failed)?;
        found.iter().for_each(|value| look(value));
        Ok(found.is_some())
    }

    fn scan(&self, from: &[u8], limit: usize, reverse: bool, look: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, SubjectError> {
        let direction = if reverse { Direction::Reverse } else { Direction::Forward };
        let mut seen = 0;
        for entry in self.database.iterator(IteratorMode::From(from, direction)).take(limit) {
            let (key, value) = entry.map_err(failed)?;
            look(&key, &value);
            seen += 1;
        }
        Ok(seen)
    }

    fn compact(&self) -> Result<(), SubjectError> {
        self.database.compact_range::<&[u8], &[u8]>(None, None);
        Ok(())
    }
}

impl Bytes for Store {
    fn change(&self, changes: &[(Vec<u8>, Option<&str>)], level: Durability) -> Result<(), SubjectError> {
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.database.write_opt(batch, &self.options(level)).map_err(failed)
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.database.flush_wal(true).map_err(failed)
    }
}
