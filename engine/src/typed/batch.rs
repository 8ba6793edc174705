//! Changes across maps that happen together or not at all.
//!
//! A batch is one record of the log. It takes the shards it touches always in the same order, so
//! batches cannot wait for each other in a circle, and becomes visible while all of them are locked.

use super::map::{AnyMap, LockedShard, Map};
use super::name;
use super::store::Core;
use super::table::Order;
use crate::error::Result;
use crate::sync_policy::{Durability, SyncPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A batch under construction. Nothing happens before it is committed; dropping it does nothing.
#[derive(Debug)]
pub struct Batch {
    core: Arc<Core>,
    changes: Vec<BatchChange>,
    /// The lines of the changes as they stand in the log.
    lines: Vec<u8>,
}

#[derive(Debug)]
struct BatchChange {
    map: Arc<dyn AnyMap>,
    key: String,
    value: Option<Box<dyn Any + Send>>,
}

impl Batch {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, changes: Vec::new(), lines: Vec::new() }
    }

    /// Sets a key when the batch is committed. Later changes of the same key win.
    ///
    /// # Errors
    /// [`crate::Error::InvalidKey`], [`crate::Error::Value`]; the batch stays as it was.
    ///
    /// # Panics
    /// When `map` belongs to another store: no batch can span two files.
    pub fn set<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &mut self,
        map: &Map<V>,
        key: &str,
        value: V,
    ) -> Result<()> {
        name::check_key(key)?;
        self.check_home(map.core());
        let start = self.lines.len();
        self.lines.extend_from_slice(b"s ");
        if let Err(e) = map.map().push_set(&mut self.lines, key, &value) {
            self.lines.truncate(start);
            return Err(e);
        }
        self.push(map.map(), key, Some(Box::new(value)));
        Ok(())
    }

    /// Deletes a key when the batch is committed. Deleting an absent key is not an error.
    pub fn delete<V: Serialize + DeserializeOwned + Send + Sync + 'static>(&mut self, map: &Map<V>, key: &str) -> Result<()> {
        name::check_key(key)?;
        self.check_home(map.core());
        self.lines.extend_from_slice(b"d ");
        map.map().push_key(&mut self.lines, key);
        self.push(map.map(), key, None);
        Ok(())
    }

    /// Commits. In the kernel when it returns: survives SIGKILL, all of it or nothing. On the device if
    /// a map it touches is under `always`.
    ///
    /// # Errors
    /// As [`Map::set`]; no change of the batch happened.
    pub fn commit(self) -> Result<()> {
        self.commit_at(Durability::Write)
    }

    /// Commits. On the device when it returns: survives power loss.
    pub fn commit_sync(self) -> Result<()> {
        self.commit_at(Durability::Sync)
    }

    /// Commits with the durability asked for; a batch is never buffered, so `Async` means `Write`.
    pub fn commit_at(self, level: Durability) -> Result<()> {
        if self.changes.is_empty() {
            return self.core.settle(self.core.log.written_through(), level);
        }
        let mut body = format!("{}\n", self.changes.len()).into_bytes();
        body.extend_from_slice(&self.lines);
        let strictest = self.changes.iter().map(|c| c.map.sync()).fold(SyncPolicy::Never, SyncPolicy::stricter);
        let maps: Vec<Arc<dyn AnyMap>> = self.changes.iter().map(|c| Arc::clone(&c.map)).collect();
        let mut shards: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (i, change) in self.changes.iter().enumerate() {
            shards.entry((change.map.id(), change.map.shard_of(&change.key))).or_insert(i);
        }
        // A BTreeMap iterates, and so locks, in order.
        let order: Vec<Order<'_>> = shards.iter().map(|(place, &i)| maps[i].order(place.1)).collect();
        let position = self.core.write(b'B', &body)?;
        let mut held: BTreeMap<(usize, usize), Box<dyn LockedShard + '_>> =
            shards.iter().map(|(&place, &i)| (place, maps[i].lock(place.1))).collect();
        for change in self.changes {
            if let Some(shard) = held.get_mut(&(change.map.id(), change.map.shard_of(&change.key))) {
                shard.apply(&change.key, change.value);
            }
        }
        drop(held);
        drop(order);
        self.core.settle(position, strictest.raise(level.max(Durability::Write)))
    }

    fn push(&mut self, map: &Arc<impl AnyMap + 'static>, key: &str, value: Option<Box<dyn Any + Send>>) {
        self.changes.push(BatchChange { map: Arc::clone(map) as Arc<dyn AnyMap>, key: key.to_owned(), value });
    }

    fn check_home(&self, core: &Arc<Core>) {
        assert!(
            Arc::ptr_eq(&self.core, core),
            "a batch of {} was given a map of {}",
            self.core.path.display(),
            core.path.display()
        );
    }
}
