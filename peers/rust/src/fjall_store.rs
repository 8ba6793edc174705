//! fjall: a cache of 256 MiB, LZ4 on every level, its own defaults besides. A `Write` is handed to the operating
//! system when it returns, a `Sync` ends with `fdatasync` of the journal.

use crate::bytes::{ByteSession, Bytes};
use engine::{Durability, SyncPolicy};
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use harness::subject::{Ordered, Promise, Session, Site, Subject, SubjectError};
use std::ops::Bound;

/// fjall.
pub(crate) struct Fjall;

struct Store {
    database: Database,
    keys: Keyspace,
    policy: SyncPolicy,
}

fn failed(e: impl std::fmt::Display) -> SubjectError {
    SubjectError::Store(e.to_string())
}

impl Subject for Fjall {
    fn name(&self) -> &str {
        "fjall"
    }

    fn version(&self) -> String {
        "3.1".to_owned()
    }

    fn about(&self) -> String {
        "fjall, an LSM store in Rust".to_owned()
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
        let database = Database::builder(site.dir.join("fjall")).cache_size(256 << 20).open().map_err(failed)?;
        let lz4 = || KeyspaceCreateOptions::default().data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
        let keys = database.keyspace("keys", lz4).map_err(failed)?;
        Ok(Box::new(ByteSession::new(Store { database, keys, policy: site.sync }, site.tables)))
    }
}

impl Store {
    fn settle(&self, level: Durability) -> Result<(), SubjectError> {
        match self.policy.raise(level) {
            Durability::Sync => self.database.persist(PersistMode::SyncData).map_err(failed),
            Durability::Async | Durability::Write => Ok(()),
        }
    }
}

impl Ordered for Store {
    fn put(&self, key: &[u8], value: &[u8], level: Durability) -> Result<(), SubjectError> {
        self.keys.insert(key, value).map_err(failed)?;
        self.settle(level)
    }

    fn delete(&self, key: &[u8], level: Durability) -> Result<(), SubjectError> {
        self.keys.remove(key).map_err(failed)?;
        self.settle(level)
    }

    fn write(&self, puts: &[(&[u8], &[u8])], level: Durability) -> Result<(), SubjectError> {
        let mut batch = self.database.batch();
        puts.iter().for_each(|(key, value)| batch.insert(&self.keys, *key, *value));
        batch.commit().map_err(failed)?;
        self.settle(level)
    }

    fn get(&self, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool, SubjectError> {
        let found = self.keys.get(key).map_err(failed)?;
        found.iter().for_each(|value| look(value));
        Ok(found.is_some())
    }

    fn scan(&self, from: &[u8], limit: usize, reverse: bool, look: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, SubjectError> {
        let mut seen = 0;
        let mut show = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(failed)?;
            look(&key, &value);
            seen += 1;
            Ok::<(), SubjectError>(())
        };
        if reverse {
            let range = (Bound::Unbounded, Bound::Included(from));
            self.keys.range::<&[u8], _>(range).rev().take(limit).try_for_each(&mut show)?;
        } else {
            self.keys.range(from..).take(limit).try_for_each(&mut show)?;
        }
        Ok(seen)
    }

    fn compact(&self) -> Result<(), SubjectError> {
        self.keys.rotate_memtable_and_wait().map_err(failed)?;
        self.keys.major_compact().map_err(failed)
    }
}

impl Bytes for Store {
    fn change(&self, changes: &[(Vec<u8>, Option<&str>)], level: Durability) -> Result<(), SubjectError> {
        let mut batch = self.database.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keys, &key[..], value.as_bytes()),
                None => batch.remove(&self.keys, &key[..]),
            }
        }
        batch.commit().map_err(failed)?;
        self.settle(level)
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.database.persist(PersistMode::SyncAll).map_err(failed)
    }
}
