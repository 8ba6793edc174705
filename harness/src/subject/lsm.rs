//! The engine's LSM store.
//!
//! Tables of a workload are prefixes of keys. `lsm` runs with the store's defaults; `lsm-small` with memtables,
//! tables and levels so small that a hundred writes bring flushes, compactions and collections of the value log
//! about, with batches that are transactions, and with a backup restored before each shrink: what crashes have to meet.

use super::restored::Restored;
use super::{Change, Contents, Ordered, Overwriting, Promise, Session, Site, Subject, SubjectError, Tree};
use engine::lsm::{Batch, Compression, Options, Pace, Simulation, Store};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::time::Duration;

/// The LSM store.
#[derive(Clone, Copy, Debug)]
pub struct Lsm(Size);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Default,
    Lz4,
    Small,
}

impl Lsm {
    /// With the store's defaults.
    pub const DEFAULT: Self = Self(Size::Default);
    /// With LZ4 where the default is Snappy, to be compared with stores that have that.
    pub const LZ4: Self = Self(Size::Lz4);
    /// With everything small.
    pub const SMALL: Self = Self(Size::Small);

    fn options(self, site: &Site<'_>) -> Options {
        let options = Options { sync: site.sync, background: site.background, fs: site.fs.clone(), ..Options::default() };
        match self.0 {
            Size::Default => return options,
            Size::Lz4 => return Options { compression: Compression::Lz4, ..options },
            Size::Small => {}
        }
        Options {
            memtable_size: 3 << 10,
            memtables: 3,
            level0_tables: 2,
            level0_slow: 4,
            level0_stall: 6,
            level_multiplier: 3,
            base_level_size: 4 << 10,
            table_size: 1 << 10,
            value_threshold: 300,
            collect_ratio: 0.4,
            manifest_size: 2 << 10,
            block_size: 512,
            pack_log_from: 256,
            block_cache: 16 << 10,
            index_cache: 16 << 10,
            compactors: 2,
            ..options
        }
    }
}

struct LsmSession {
    store: Store,
    prefixes: Vec<String>,
    /// For crashes to meet it: a copy into which a backup is restored before each shrink. Batches are transactions then.
    restored: Option<Restored>,
}

impl Subject for Lsm {
    fn name(&self) -> &str {
        match self.0 {
            Size::Default => "lsm",
            Size::Lz4 => "lsm-lz4",
            Size::Small => "lsm-small",
        }
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn about(&self) -> String {
        let size = match self.0 {
            Size::Default => "its defaults",
            Size::Lz4 => "its defaults, but LZ4",
            Size::Small => "everything small, so that crashes meet flushes and compactions",
        };
        format!("the engine's LSM store with {size}")
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

    fn expect(&self, of: &Overwriting) -> Option<(f64, f64)> {
        if self.0 == Size::Small {
            return None;
        }
        let pace = Pace { write: of.write_s, compaction: of.compaction_s };
        let mut simulation = Simulation::new(&Options::default(), of.keys, of.entry, of.stored).at_pace(pace);
        simulation.write(of.writes);
        simulation.settle();
        Some((simulation.write_amplification(), simulation.space_amplification()))
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let store = Store::open(site.dir.join("lsm"), self.options(site))?;
        let prefixes: Vec<_> = site.tables.iter().map(|table| format!("{}/", table.name)).collect();
        let restored = match self.0 {
            Size::Small => Some(Restored::open(site.dir.join("copy"), self.options(site), prefixes.clone())?),
            Size::Default | Size::Lz4 => None,
        };
        Ok(Box::new(LsmSession { store, prefixes, restored }))
    }
}

impl LsmSession {
    fn key(&self, table: usize, key: &str) -> Vec<u8> {
        [self.prefixes[table].as_bytes(), key.as_bytes()].concat()
    }

    fn transact(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        loop {
            let mut transaction = self.store.transaction();
            for change in changes {
                let key = self.key(change.table, change.key);
                transaction.get(&key)?;
                match change.value {
                    Some(value) => transaction.put(&key, value.as_bytes())?,
                    None => transaction.delete(&key)?,
                }
            }
            match transaction.commit(level) {
                Err(engine::Error::Conflict) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Session for LsmSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        let key = self.key(change.table, change.key);
        let done = match change.value {
            Some(value) => self.store.put_at(&key, value.as_bytes(), level),
            None => self.store.delete_at(&key, level),
        };
        Ok(done?)
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        if self.restored.is_some() {
            return self.transact(changes, level);
        }
        let mut batch = Batch::new();
        for change in changes {
            let key = self.key(change.table, change.key);
            match change.value {
                Some(value) => batch.put(&key, value.as_bytes()),
                None => batch.delete(&key),
            }
        }
        Ok(self.store.write(batch, level)?)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        let found = self.store.get_with(&self.key(table, key), |value| std::str::from_utf8(value).map(&mut *look).is_ok())?;
        match found {
            Some(false) => Err(SubjectError::Store(format!("the value of {key:?} is not text"))),
            found => Ok(found.is_some()),
        }
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.store.sync()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let mut contents = Contents::new();
        for (table, prefix) in self.prefixes.iter().enumerate() {
            let mut keys = BTreeMap::new();
            let mut entries = self.store.prefix(prefix.as_bytes());
            while let Some((key, value)) = entries.advance()? {
                let key = text(&key[prefix.len()..])?;
                let value = text(value)?;
                // A scan and a read go different ways to the same value.
                let agrees = self.store.get_with(&self.key(table, &key), |found| found == value.as_bytes())?;
                if agrees != Some(true) {
                    return Err(SubjectError::Store(format!("a scan finds {key:?} with a value that a read does not find")));
                }
                keys.insert(key, value);
            }
            contents.push(keys);
        }
        Ok(contents)
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        // A compaction puts on the device what a backup holds: every other time nothing comes between that one and the next.
        if let Some(restored) = &self.restored
            && restored.renew(&self.store)? % 2 == 1
        {
            return Ok(true);
        }
        self.store.compact()?;
        Ok(true)
    }

    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        Ok(Some(self.store.maintain(now)?))
    }

    fn repaired(&self) -> Option<String> {
        let (path, cut) = self.store.stats().cut?;
        Some(format!("cut {} bytes at offset {} of {}: {}", cut.len, cut.offset, path.display(), cut.what))
    }

    fn settle(&self) -> Result<Option<Tree>, SubjectError> {
        self.store.flush()?;
        // Two looks at the same state, far enough apart for a compaction to begin and show.
        let mut before = None;
        loop {
            let stats = self.store.stats();
            let now = (stats.flushes, stats.compactions);
            if stats.pending == 0 && before == Some(now) {
                return Ok(Some(Tree {
                    write_amplification: stats.write_amplification(),
                    versions: stats.levels.iter().map(|level| level.entries).sum(),
                    bytes: stats.levels.iter().map(|level| level.bytes).sum(),
                    compaction_s: stats.compacting.as_secs_f64() / (stats.compacted as f64).max(1.0),
                }));
            }
            before = Some(now);
            engine::background::pause(Duration::from_millis(500));
        }
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(self.store.close()?)
    }
}

impl Ordered for LsmSession {
    fn put(&self, key: &[u8], value: &[u8], level: Durability) -> Result<(), SubjectError> {
        Ok(self.store.put_at(key, value, level)?)
    }

    fn delete(&self, key: &[u8], level: Durability) -> Result<(), SubjectError> {
        Ok(self.store.delete_at(key, level)?)
    }

    fn write(&self, puts: &[(&[u8], &[u8])], level: Durability) -> Result<(), SubjectError> {
        let mut batch = Batch::new();
        puts.iter().for_each(|(key, value)| batch.put(key, value));
        Ok(self.store.write(batch, level)?)
    }

    fn get(&self, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool, SubjectError> {
        Ok(self.store.get_with(key, look)?.is_some())
    }

    fn scan(&self, from: &[u8], limit: usize, reverse: bool, look: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, SubjectError> {
        let mut entries = if reverse { self.store.range_reverse(..=from) } else { self.store.range(from..) };
        let mut seen = 0;
        while seen < limit as u64
            && let Some((key, value)) = entries.advance()?
        {
            look(key, value);
            seen += 1;
        }
        Ok(seen)
    }

    fn compact(&self) -> Result<(), SubjectError> {
        Ok(self.store.compact()?)
    }

    fn backup(&self) -> Result<(), SubjectError> {
        self.store.backup(&mut std::io::sink(), 0)?;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String, SubjectError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| SubjectError::Store("a key or value that is not text".to_owned()))
}
