//! A map of a store: native values in memory, every change in the log.

use super::name;
use super::store::Core;
use super::table::{Order, Place, Shard, Table};
use crate::error::{Error, Result};
use crate::sync_policy::{Durability, SyncPolicy};
use compact_str::CompactString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, type_name};
use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::sync::{Arc, RwLockWriteGuard};

/// A handle of a map; clones share it.
pub struct Map<V> {
    core: Arc<Core>,
    map: Arc<MapCore<V>>,
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), map: Arc::clone(&self.map) }
    }
}

/// What an update wants done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<V> {
    /// Leave it as it is: nothing is written.
    Keep,
    /// Give it this value.
    Set(V),
    /// Remove it.
    Delete,
}

pub(super) struct MapCore<V> {
    name: String,
    /// What stands before each key in the log: the name and a colon, or nothing for the store's own keys.
    prefix: String,
    /// Order of opening; batches lock maps in this order.
    id: usize,
    sync: SyncPolicy,
    table: Table<V>,
}

impl<V> Debug for MapCore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "map {:?} of {}", self.name, type_name::<V>())
    }
}

impl<V> Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

thread_local! {
    /// Encoding needs no allocation once a thread has written before.
    static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Map<V> {
    pub(super) fn new(core: Arc<Core>, map: Arc<MapCore<V>>) -> Self {
        Self { core, map }
    }

    /// A copy of the value. A value is visible as soon as it is in the kernel, which for `set_sync` is
    /// before it is on the device.
    pub fn get(&self, key: &str) -> Option<V>
    where
        V: Clone,
    {
        self.get_with(key, V::clone)
    }

    /// Looks at the value without copying it. `look` must not change this map: it holds a lock.
    pub fn get_with<R>(&self, key: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        let place = self.map.table.place(key);
        self.map.table.read(place.shard).get(place).map(look)
    }

    /// Whether the key has a value.
    pub fn contains(&self, key: &str) -> bool {
        self.get_with(key, |_| ()).is_some()
    }

    /// How many keys have values. Counts shard by shard.
    pub fn len(&self) -> usize {
        self.map.table.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies of all keys and values, in no order. Taken shard by shard: not one moment of the whole map.
    pub fn iter(&self) -> impl Iterator<Item = (String, V)> + '_
    where
        V: Clone,
    {
        (0..self.map.table.shards()).flat_map(|shard| {
            let shard = self.map.table.read(shard);
            shard.iter().map(|slot| (slot.key.as_str().to_owned(), slot.value.clone())).collect::<Vec<_>>()
        })
    }

    /// Looks at all keys and values without copying, in no order. `look` must not change this map.
    pub fn for_each(&self, mut look: impl FnMut(&str, &V)) {
        for shard in 0..self.map.table.shards() {
            self.map.table.read(shard).iter().for_each(|slot| look(&slot.key, &slot.value));
        }
    }

    /// Sets a value in memory; the next flush puts it into the log. Lost if the process dies before.
    ///
    /// # Errors
    /// [`Error::InvalidKey`]; [`Error::Poisoned`].
    pub fn set_async(&self, key: &str, value: V) -> Result<()> {
        name::check_key(key)?;
        self.core.log.check()?;
        let place = self.map.table.place(key);
        let _order = self.map.table.order(place.shard);
        self.map.table.write(place.shard).put_buffered(place, value);
        Ok(())
    }

    /// Sets a value. In the kernel when it returns: survives SIGKILL. On the device under `always`.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::Value`] when the value has no JSON form, [`Error::Full`],
    /// [`Error::Io`], [`Error::Poisoned`]. On error the map is unchanged, except that after a failed
    /// sync the value is in memory and in the kernel.
    pub fn set(&self, key: &str, value: V) -> Result<()> {
        self.set_at(key, value, Durability::Write)
    }

    /// Sets a value. On the device when it returns: survives power loss. Concurrent callers share syncs.
    pub fn set_sync(&self, key: &str, value: V) -> Result<()> {
        self.set_at(key, value, Durability::Sync)
    }

    /// Sets a value with the durability asked for.
    pub fn set_at(&self, key: &str, value: V, level: Durability) -> Result<()> {
        if level == Durability::Async {
            return self.set_async(key, value);
        }
        name::check_key(key)?;
        let place = self.map.table.place(key);
        let position = with_body(|body| {
            // Encoded before the lock is taken: others wait only for the write.
            self.map.push_set(body, key, &value)?;
            let _order = self.map.table.order(place.shard);
            let position = self.core.write(b'S', body)?;
            self.map.table.write(place.shard).put_logged(place, value);
            Ok(position)
        })?;
        self.core.settle(position, self.map.sync.raise(level))
    }

    /// Removes a key from memory; the next flush logs it. Whether it was there.
    pub fn delete_async(&self, key: &str) -> Result<bool> {
        name::check_key(key)?;
        self.core.log.check()?;
        let place = self.map.table.place(key);
        let _order = self.map.table.order(place.shard);
        Ok(self.map.table.write(place.shard).remove_buffered(place))
    }

    /// Removes a key; whether it was there. If it was not, nothing is written, and what made it so is as
    /// durable as [`Map::set`] is.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.delete_at(key, Durability::Write)
    }

    /// Removes a key; whether it was there. Durable as [`Map::set_sync`].
    pub fn delete_sync(&self, key: &str) -> Result<bool> {
        self.delete_at(key, Durability::Sync)
    }

    /// Removes a key with the durability asked for; whether it was there.
    pub fn delete_at(&self, key: &str, level: Durability) -> Result<bool> {
        if level == Durability::Async {
            return self.delete_async(key);
        }
        self.update_at(key, level, |value| (Change::Delete, value.is_some()))
    }

    /// Reads and changes a key in one step that no other change can come between; buffered.
    pub fn update_async<R>(&self, key: &str, change: impl FnOnce(Option<&V>) -> (Change<V>, R)) -> Result<R> {
        self.update_at(key, Durability::Async, change)
    }

    /// Reads and changes a key in one step. Durable as [`Map::set`].
    pub fn update<R>(&self, key: &str, change: impl FnOnce(Option<&V>) -> (Change<V>, R)) -> Result<R> {
        self.update_at(key, Durability::Write, change)
    }

    /// Reads and changes a key in one step. Durable as [`Map::set_sync`].
    pub fn update_sync<R>(&self, key: &str, change: impl FnOnce(Option<&V>) -> (Change<V>, R)) -> Result<R> {
        self.update_at(key, Durability::Sync, change)
    }

    /// Reads and changes a key in one step with the durability asked for.
    pub fn update_at<R>(&self, key: &str, level: Durability, change: impl FnOnce(Option<&V>) -> (Change<V>, R)) -> Result<R> {
        name::check_key(key)?;
        let level = self.map.sync.raise(level);
        let place = self.map.table.place(key);
        let table = &self.map.table;
        let order = table.order(place.shard);
        let (change, answer, absent, gone) = {
            let shard = table.read(place.shard);
            let value = shard.get(place);
            let (change, answer) = change(value);
            (change, answer, value.is_none(), shard.is_gone(key))
        };
        let position = match change {
            // Nothing to write; but what this call saw, and all before it, it vouches for as any other does.
            Change::Keep => self.core.log.written_through(),
            // A delete of an absent key says nothing new, unless the log still holds the key.
            Change::Delete if absent && (level == Durability::Async || !gone) => {
                self.core.log.check()?;
                self.core.log.written_through()
            }
            Change::Set(value) if level == Durability::Async => {
                self.core.log.check()?;
                table.write(place.shard).put_buffered(place, value);
                return Ok(answer);
            }
            Change::Delete if level == Durability::Async => {
                self.core.log.check()?;
                table.write(place.shard).remove_buffered(place);
                return Ok(answer);
            }
            Change::Set(value) => {
                let position = self.map.with_set(key, &value, |body| self.core.write(b'S', body))?;
                table.write(place.shard).put_logged(place, value);
                position
            }
            Change::Delete => {
                let position = self.map.with_delete(key, |body| self.core.write(b'D', body))?;
                table.write(place.shard).remove_logged(place);
                position
            }
        };
        drop(order);
        self.core.settle(position, level)?;
        Ok(answer)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn map(&self) -> &Arc<MapCore<V>> {
        &self.map
    }
}

impl<V: Serialize> MapCore<V> {
    pub(super) fn new(name: Option<&str>, id: usize, sync: SyncPolicy, table: Table<V>) -> Self {
        let prefix = name.map_or(String::new(), |name| format!("{name}:"));
        Self { name: name.unwrap_or_default().to_owned(), prefix, id, sync, table }
    }

    /// Appends the key's line as it stands in the log.
    pub(super) fn push_key(&self, out: &mut Vec<u8>, key: &str) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(key.as_bytes());
        out.push(b'\n');
    }

    /// Appends key and value as they stand in the log.
    pub(super) fn push_set(&self, out: &mut Vec<u8>, key: &str, value: &V) -> Result<()> {
        let refuse = |why: String| Error::Value { map: self.name.clone(), key: key.to_owned(), why };
        self.push_key(out, key);
        let json = out.len();
        serde_json::to_writer(&mut *out, value).map_err(|e| refuse(e.to_string()))?;
        if memchr::memchr(b'\n', &out[json..]).is_some() {
            return Err(refuse("its JSON spans several lines".to_owned()));
        }
        out.push(b'\n');
        Ok(())
    }

    fn with_set<R>(&self, key: &str, value: &V, then: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_body(|body| {
            self.push_set(body, key, value)?;
            then(body)
        })
    }

    fn with_delete<R>(&self, key: &str, then: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        with_body(|body| {
            self.push_key(body, key);
            then(body)
        })
    }
}

/// Lends the thread's encoding buffer; a value's `Serialize` that comes back here gets a fresh one.
fn with_body<R>(then: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut body = BODY.with(|body| body.try_borrow_mut().map(|mut b| std::mem::take(&mut *b)).unwrap_or_default());
    body.clear();
    let result = then(&mut body);
    if body.capacity() <= 1 << 20 {
        BODY.with(|home| {
            if let Ok(mut home) = home.try_borrow_mut() {
                *home = body;
            }
        });
    }
    result
}

/// A map whose value type is not known here.
pub(super) trait AnyMap: Send + Sync + Debug {
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    fn value_type(&self) -> &'static str;
    fn id(&self) -> usize;
    fn sync(&self) -> SyncPolicy;
    fn len(&self) -> usize;
    fn shard_of(&self, key: &str) -> usize;
    /// Logs what is buffered; whether there was anything. A value that has no JSON form stays buffered
    /// and is the error, after everything else was logged.
    fn flush(&self, core: &Core) -> Result<bool>;
    /// Takes the right to change keys of a shard.
    fn order(&self, shard: usize) -> Order<'_>;
    /// Locks a shard's memory against readers.
    fn lock(&self, shard: usize) -> Box<dyn LockedShard + '_>;
}

/// A shard held by a batch.
pub(super) trait LockedShard {
    /// Applies a change whose record is in the log; `None` removes.
    fn apply(&mut self, key: &str, value: Option<Box<dyn Any + Send>>);
}

struct Held<'a, V> {
    table: &'a Table<V>,
    shard: RwLockWriteGuard<'a, Shard<V>>,
}

impl<V: 'static> LockedShard for Held<'_, V> {
    fn apply(&mut self, key: &str, value: Option<Box<dyn Any + Send>>) {
        let place: Place<'_> = self.table.place(key);
        match value.map(|v| v.downcast::<V>()) {
            Some(Ok(value)) => self.shard.put_logged(place, *value),
            Some(Err(_)) => debug_assert!(false, "a batch keeps values with their own map"),
            None => {
                self.shard.remove_logged(place);
            }
        }
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> AnyMap for MapCore<V> {
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn value_type(&self) -> &'static str {
        type_name::<V>()
    }

    fn id(&self) -> usize {
        self.id
    }

    fn sync(&self) -> SyncPolicy {
        self.sync
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    fn shard_of(&self, key: &str) -> usize {
        self.table.place(key).shard
    }

    fn flush(&self, core: &Core) -> Result<bool> {
        let mut wrote = false;
        let mut refused = None;
        for shard in 0..self.table.shards() {
            if !self.table.read(shard).has_buffered() {
                continue;
            }
            let _order = self.table.order(shard);
            let mut bytes = Vec::new();
            let mut ends: Vec<(u8, usize)> = Vec::new();
            let mut kept = Vec::new();
            for (key, value) in self.table.read(shard).buffered() {
                let start = bytes.len();
                let Some(value) = value else {
                    self.push_key(&mut bytes, key);
                    ends.push((b'D', bytes.len()));
                    continue;
                };
                match self.push_set(&mut bytes, key, value) {
                    Ok(()) => ends.push((b'S', bytes.len())),
                    Err(e) => {
                        bytes.truncate(start);
                        kept.push(CompactString::new(key));
                        refused.get_or_insert(e);
                    }
                }
            }
            wrote |= !ends.is_empty();
            let mut start = 0;
            let bodies = ends.iter().map(|&(kind, end)| (kind, &bytes[std::mem::replace(&mut start, end)..end]));
            core.write_all(bodies)?;
            self.table.write(shard).all_logged(kept);
        }
        refused.map_or(Ok(wrote), Err)
    }

    fn order(&self, shard: usize) -> Order<'_> {
        self.table.order(shard)
    }

    fn lock(&self, shard: usize) -> Box<dyn LockedShard + '_> {
        Box::new(Held { table: &self.table, shard: self.table.write(shard) })
    }
}
