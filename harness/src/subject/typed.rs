//! The engine's typed store.

use super::{Change, Contents, Promise, Record, Records, Session, Site, Subject, SubjectError};
use engine::typed::{Map, Options, Store};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::time::Duration;

/// The typed store. Tables are maps of strings; the go-persist benchmark gets a map of its struct.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed;

struct TypedSession {
    store: Store,
    maps: Vec<Map<String>>,
    records: RecordMap,
}

struct RecordMap(Map<Record>);

/// go-persist's name for the map of its struct benchmark.
const RECORDS: &str = "test_struct";

impl Subject for Typed {
    fn name(&self) -> &str {
        "typed"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn about(&self) -> String {
        "the engine's typed store: maps in memory, truth in a readable log".to_owned()
    }

    fn supports(&self, _: SyncPolicy) -> bool {
        true
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        Promise::of_contract(policy, level)
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn shrinks(&self) -> bool {
        true
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let mut options = Options { sync: site.sync, background: site.background, fs: site.fs.clone(), ..Options::default() };
        if !site.background {
            // Whoever drives the store by hand has one thread, and opens it thousands of times a second.
            (options.shards, options.auto_shrink) = (1, None);
        }
        let store = Store::open(site.dir.join("typed.db"), options)?;
        let map = |table: &super::Table| match table.sync {
            Some(policy) => store.map_with_sync(&table.name, policy.0),
            None => store.map(&table.name),
        };
        let maps = site.tables.iter().map(map).collect::<Result<_, _>>()?;
        let records = RecordMap(store.map(RECORDS)?);
        Ok(Box::new(TypedSession { store, maps, records }))
    }
}

impl Session for TypedSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        let map = &self.maps[change.table];
        match change.value {
            Some(value) => map.set_at(change.key, value.to_owned(), level)?,
            None => drop(map.delete_at(change.key, level)?),
        }
        Ok(())
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let mut batch = self.store.batch();
        for change in changes {
            match change.value {
                Some(value) => batch.set(&self.maps[change.table], change.key, value.to_owned())?,
                None => batch.delete(&self.maps[change.table], change.key)?,
            }
        }
        Ok(batch.commit_at(level)?)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        Ok(self.maps[table].get_with(key, |value| look(value)).is_some())
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.store.sync()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let contents: Contents = self.maps.iter().map(|map| map.iter().collect::<BTreeMap<_, _>>()).collect();
        for (map, table) in self.maps.iter().zip(&contents) {
            let found = map.len();
            if found != table.len() || table.keys().any(|key| !map.contains(key)) {
                return Err(SubjectError::Store(format!("a scan finds {} keys, len() says {found}", table.len())));
            }
        }
        Ok(contents)
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        // The store may be shrinking by itself; then this one comes after it.
        loop {
            match self.store.shrink() {
                Err(engine::Error::ShrinkInProgress { .. }) => std::thread::sleep(Duration::from_millis(1)),
                done => return Ok(done.map(|()| true)?),
            }
        }
    }

    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        Ok(Some(self.store.maintain(now)?))
    }

    fn repaired(&self) -> Option<String> {
        let cut = self.store.stats().cut?;
        Some(format!("cut {} bytes at offset {}: {}", cut.len, cut.offset, cut.what))
    }

    fn records(&self) -> Option<&dyn Records> {
        Some(&self.records)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        let Self { store, .. } = *self;
        Ok(store.close()?)
    }
}

impl Records for RecordMap {
    fn set(&self, key: &str, value: Record, level: Durability) -> Result<(), SubjectError> {
        Ok(self.0.set_at(key, value, level)?)
    }

    fn read(&self, key: &str) -> Option<i64> {
        self.0.get_with(key, |record| record.field1)
    }
}
