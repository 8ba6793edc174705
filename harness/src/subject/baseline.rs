//! Something to compare with: maps in memory that keep no promise, a bare append loop, and nothing at all.

use super::{Change, Contents, End, Fifo, Promise, Record, Records, Session, Site, Subject, SubjectError};
use crate::result::Role;
use engine::fs::File;
use engine::{Durability, SyncPolicy};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The bundled baselines.
pub fn all() -> Vec<Arc<dyn Subject>> {
    vec![
        Arc::new(Null),
        Arc::new(BareAppend),
        baseline::<scc::HashMap<String, Record, RandomState>>("map-scc", "scc::HashMap, bucket locks"),
        baseline::<papaya::HashMap<String, Record, RandomState>>("map-papaya", "papaya::HashMap, lock-free"),
        baseline::<dashmap::DashMap<String, Record, RandomState>>("map-dashmap", "dashmap::DashMap, sharded locks"),
        baseline::<Sharded>("map-sharded", "64 parking_lot::RwLock over hashbrown::HashMap"),
        baseline::<RwLock<HashMap<String, Record, RandomState>>>("map-rwlock", "one std::sync::RwLock over hashbrown::HashMap"),
    ]
}

/// A map in memory of the go-persist struct.
trait MemoryMap: Default + Send + Sync + 'static {
    fn put(&self, key: &str, value: Record);
    fn look(&self, key: &str) -> Option<i64>;
}

impl MemoryMap for scc::HashMap<String, Record, RandomState> {
    fn put(&self, key: &str, value: Record) {
        self.upsert_sync(key.to_owned(), value);
    }

    fn look(&self, key: &str) -> Option<i64> {
        self.read_sync(key, |_, record| record.field1)
    }
}

impl MemoryMap for papaya::HashMap<String, Record, RandomState> {
    fn put(&self, key: &str, value: Record) {
        self.pin().insert(key.to_owned(), value);
    }

    fn look(&self, key: &str) -> Option<i64> {
        self.pin().get(key).map(|record| record.field1)
    }
}

impl MemoryMap for dashmap::DashMap<String, Record, RandomState> {
    fn put(&self, key: &str, value: Record) {
        self.insert(key.to_owned(), value);
    }

    fn look(&self, key: &str) -> Option<i64> {
        self.get(key).map(|record| record.field1)
    }
}

impl MemoryMap for RwLock<HashMap<String, Record, RandomState>> {
    fn put(&self, key: &str, value: Record) {
        self.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value);
    }

    fn look(&self, key: &str) -> Option<i64> {
        self.read().unwrap_or_else(PoisonError::into_inner).get(key).map(|record| record.field1)
    }
}

struct Sharded {
    hasher: RandomState,
    shards: Vec<parking_lot::RwLock<HashMap<String, Record, RandomState>>>,
}

impl Default for Sharded {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: (0..64).map(|_| Default::default()).collect() }
    }
}

impl Sharded {
    fn shard(&self, key: &str) -> &parking_lot::RwLock<HashMap<String, Record, RandomState>> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % self.shards.len()]
    }
}

impl MemoryMap for Sharded {
    fn put(&self, key: &str, value: Record) {
        self.shard(key).write().insert(key.to_owned(), value);
    }

    fn look(&self, key: &str) -> Option<i64> {
        self.shard(key).read().get(key).map(|record| record.field1)
    }
}

struct Baseline {
    name: &'static str,
    about: &'static str,
    open: fn() -> Box<dyn Session>,
}

fn baseline<M: MemoryMap>(name: &'static str, about: &'static str) -> Arc<dyn Subject> {
    Arc::new(Baseline { name, about, open: || Box::new(MapSession(M::default())) })
}

struct MapSession<M>(M);

impl Subject for Baseline {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> String {
        "in memory".to_owned()
    }

    fn about(&self) -> String {
        format!("baseline without promises: {}", self.about)
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == SyncPolicy::Never
    }

    fn promise(&self, _: SyncPolicy, _: Durability) -> Promise {
        Promise::None
    }

    fn open(&self, _: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        Ok((self.open)())
    }
}

impl<M: MemoryMap> Session for MapSession<M> {
    fn apply(&self, _: Change<'_>, _: Durability) -> Result<(), SubjectError> {
        Err(SubjectError::Unsupported("tables; it runs the go-persist workload only"))
    }

    fn get(&self, _: usize, _: &str, _: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        Err(SubjectError::Unsupported("tables; it runs the go-persist workload only"))
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(())
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(Contents::new())
    }

    fn records(&self) -> Option<&dyn Records> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}

impl<M: MemoryMap> Records for MapSession<M> {
    fn set(&self, key: &str, value: Record, _: Durability) -> Result<(), SubjectError> {
        self.0.put(key, value);
        Ok(())
    }

    fn read(&self, key: &str) -> Option<i64> {
        self.0.look(key)
    }
}

/// Takes every operation and does nothing: what remains is the harness's own cost.
struct Null;

impl Subject for Null {
    fn name(&self) -> &str {
        "null"
    }

    fn version(&self) -> String {
        "-".to_owned()
    }

    fn about(&self) -> String {
        "does nothing: its figures are the harness's own cost".to_owned()
    }

    fn role(&self) -> Role {
        Role::Null
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == SyncPolicy::Never
    }

    fn promise(&self, _: SyncPolicy, _: Durability) -> Promise {
        Promise::None
    }

    fn open(&self, _: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        Ok(Box::new(Null))
    }
}

impl Session for Null {
    fn apply(&self, change: Change<'_>, _: Durability) -> Result<(), SubjectError> {
        std::hint::black_box(change);
        Ok(())
    }

    fn batch(&self, changes: &[Change<'_>], _: Durability) -> Result<(), SubjectError> {
        std::hint::black_box(changes);
        Ok(())
    }

    fn get(&self, table: usize, key: &str, _: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        std::hint::black_box((table, key));
        Ok(true)
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(())
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(Contents::new())
    }

    fn records(&self) -> Option<&dyn Records> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}

impl Records for Null {
    fn set(&self, key: &str, value: Record, _: Durability) -> Result<(), SubjectError> {
        std::hint::black_box((key, value));
        Ok(())
    }

    fn read(&self, key: &str) -> Option<i64> {
        std::hint::black_box(key);
        Some(0)
    }
}

/// Appends each change to one file and syncs it, with nothing around: the floor for a durable write.
struct BareAppend;

struct BareSession {
    file: Arc<dyn File>,
    end: Mutex<(u64, Vec<u8>)>,
    sync: SyncPolicy,
}

impl Subject for BareAppend {
    fn name(&self) -> &str {
        "bare-append"
    }

    fn version(&self) -> String {
        "-".to_owned()
    }

    fn about(&self) -> String {
        "appends the same bytes as the typed store to one file, with fdatasync where a sync is due, and nothing else".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        matches!(policy, SyncPolicy::Never | SyncPolicy::Always)
    }

    fn promise(&self, _: SyncPolicy, _: Durability) -> Promise {
        Promise::None
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let file = site.fs.create(&site.dir.join("append.log"))?;
        site.fs.sync_dir(site.dir)?;
        Ok(Box::new(BareSession { file, end: Mutex::default(), sync: site.sync }))
    }
}

impl Session for BareSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, line) = &mut *end;
        line.clear();
        // As long as the typed store's record: kind, token, mark, table, key and quoted value.
        line.extend_from_slice(b"S=00000000@ commit:");
        line.extend_from_slice(change.key.as_bytes());
        line.extend_from_slice(b"\n\"");
        line.extend_from_slice(change.value.unwrap_or_default().as_bytes());
        line.extend_from_slice(b"\"\n");
        engine::fs::write_all_at(&*self.file, line, *at)?;
        *at += line.len() as u64;
        if self.sync.raise(level) == Durability::Sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn get(&self, _: usize, _: &str, _: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        Err(SubjectError::Unsupported("reads"))
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.file.sync_data()?)
    }

    fn fifo(&self) -> Option<&dyn Fifo> {
        Some(self)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(vec![BTreeMap::new()])
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}

/// One `write` for each entry, and for each batch; nothing is ever taken out.
impl Fifo for BareSession {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        if end == End::Front || level == Durability::Async {
            return Err(SubjectError::Unsupported("front, and no buffer"));
        }
        let mut at = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, batch) = &mut *at;
        let bytes = match values {
            [one] => one,
            many => {
                batch.clear();
                many.iter().for_each(|value| batch.extend_from_slice(value));
                &batch[..]
            }
        };
        engine::fs::write_all_at(&*self.file, bytes, *at)?;
        *at += bytes.len() as u64;
        if self.sync.raise(level) == Durability::Sync {
            self.file.sync_data()?;
        }
        Ok(0)
    }

    fn pop(&self, _: usize, _: Durability, _: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        Err(SubjectError::Unsupported("reads"))
    }
}
