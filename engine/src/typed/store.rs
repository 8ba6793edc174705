//! The store: one file, one log, many maps.

use super::batch::Batch;
use super::compact::{self, Compacted};
use super::load::{self, RawMaps};
use super::map::{AnyMap, Map, MapCore};
use super::name;
use crate::background::Workers;
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock, RealFs, parent};
use crate::log::{Cut, Framing, Header, Log, LogStats, Mode, create_segment, identify, replay, take_lock};
use crate::log::{beside, changes, remove_leftover};
use crate::sync_policy::{Durability, SyncPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// When the log is synced without being asked. Default: every second.
    pub sync: SyncPolicy,
    /// How often `*_async` changes are put into the log. Default: one second.
    pub flush_interval: Duration,
    /// When the log is rewritten without being asked. `None` for never.
    pub auto_shrink: Option<AutoShrink>,
    /// Shards per map, a power of two. More shards let more threads in at once and cost about 200 bytes each.
    pub shards: usize,
    /// Whether threads of the store flush, sync and shrink when due. Without them the owner calls
    /// [`Store::maintain`].
    pub background: bool,
    /// Where the bytes go.
    pub fs: Arc<dyn Fs>,
}

/// The rule for shrinking by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoShrink {
    /// Shrink when the log holds this many records for each live key; more than 1.
    pub ratio: f64,
    /// But not below this many bytes.
    pub min_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::EVERY_SECOND,
            flush_interval: Duration::from_secs(1),
            auto_shrink: Some(AutoShrink { ratio: 3.0, min_bytes: 64 << 20 }),
            shards: 256,
            background: true,
            fs: Arc::new(RealFs),
        }
    }
}

impl Options {
    /// The defaults under another sync policy.
    pub fn with_sync(sync: SyncPolicy) -> Self {
        Self { sync, ..Self::default() }
    }

    fn check(&self) -> Result<()> {
        let refuse = |option, value: String, why| Err(Error::Option { option, value, why });
        if !self.shards.is_power_of_two() || self.shards > 1 << 16 {
            return refuse("shards", self.shards.to_string(), "it must be a power of two up to 65536");
        }
        if self.flush_interval.is_zero() {
            return refuse("flush_interval", "0".to_owned(), "it must be longer than zero");
        }
        self.sync.check()?;
        match self.auto_shrink {
            Some(AutoShrink { ratio, .. }) if !(ratio > 1.0 && ratio.is_finite()) => {
                refuse("auto_shrink.ratio", ratio.to_string(), "it must be more than 1, or every shrink would call for the next")
            }
            _ => Ok(()),
        }
    }
}

/// What a store holds and has done.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Keys that have a value. Maps that were not opened yet count their records instead.
    pub live: u64,
    /// Records in the log file, superseded ones included.
    pub records: u64,
    /// Calls and bytes of the log since the store was opened, and the length of its file.
    pub log: LogStats,
    /// The torn tail that was cut off at opening.
    pub cut: Option<Cut>,
    /// The last failure of a background flush, sync or shrink.
    pub background_error: Option<String>,
}

/// A store. Dropping it flushes, syncs and closes; [`Store::close`] does the same and says whether it worked.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    workers: Option<Workers>,
}

/// What maps, batches and workers share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    pub(super) log: Log,
    maps: Mutex<Maps>,
    /// The header that is on disk; a go-persist file is converted by the first write.
    foreign: AtomicBool,
    converting: Mutex<()>,
    /// Records that the file holds beyond those that the log has counted since it was opened.
    carried: AtomicI64,
    shrinking: AtomicBool,
    timer: Mutex<Timer>,
    cut: Option<Cut>,
    background_error: Mutex<Option<String>>,
    /// Until the store is closed.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

#[derive(Debug, Default)]
struct Maps {
    raw: RawMaps,
    open: BTreeMap<Option<String>, Arc<dyn AnyMap>>,
}

/// When flush and sync last happened, since the store was opened.
#[derive(Debug, Default)]
struct Timer {
    flushed: Duration,
    /// The log was clean, or a sync of it began, at this time.
    clean: Duration,
}

impl Store {
    /// Opens or creates the store in the file `path`. Its directory must exist.
    ///
    /// A torn tail is cut off (see [`Stats::cut`]). Leftovers of an interrupted shrink are removed.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`] with its remedy, [`Error::Io`],
    /// [`Error::Option`].
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        options.check()?;
        let fs = Arc::clone(&options.fs);
        let lock = take_lock(&*fs, &beside(path, "lock"), path)?;
        remove_leftover(&*fs, &beside(path, "new"))?;
        remove_leftover(&*fs, &compact::draft(path))?;
        let existing = match fs.open(path) {
            Ok(file) => match identify(&*file, path)? {
                Some(header @ (Header::TypedLog | Header::GoPersist)) => Some((file, header)),
                Some(other) => {
                    let found = String::from_utf8_lossy(other.line()).trim_end().to_owned();
                    return Err(Error::Format { file: path.to_owned(), found });
                }
                None => None,
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("open", path, e)),
        };
        let (file, header) = match existing {
            Some(existing) => {
                // A process that died between a rename and the sync of the directory left a name that power
                // loss could take back, together with everything that is about to be built on it.
                fs.sync_dir(parent(path)).map_err(|e| Error::io("sync", parent(path), e))?;
                existing
            }
            None => (create_segment(&*fs, path, Header::TypedLog, b"", 0)?, Header::TypedLog),
        };
        let mut raw = RawMaps::new();
        let mut last = None;
        let len = file.len().map_err(|e| Error::io("read", path, e))?;
        let found = replay(&*file, path, header.framing(), header.line().len() as u64..len, Mode::Strict, |_, kind, body| {
            for (key, json) in changes(kind, body) {
                load::add(&mut raw, &mut last, key, json);
            }
            Ok(())
        })?;
        if found.cut.is_some() {
            file.set_len(found.end).and_then(|()| file.sync_all()).map_err(|e| Error::io("cut", path, e))?;
        }
        // The header was synced before the file got its name.
        let synced = found.synced.max(header.line().len() as u64);
        let log = Log::new(path, Framing::Text, file, synced, found.end);
        if matches!(options.sync, SyncPolicy::Always | SyncPolicy::Interval(_)) {
            // What survived a killed process, or was changed in an editor, may be in the kernel only; show nothing
            // that power loss could take back.
            if log.synced_through() < found.end { log.sync_step() } else { log.sync_again() }?;
        }
        let core = Arc::new(Core {
            path: path.to_owned(),
            log,
            maps: Mutex::new(Maps { raw, open: BTreeMap::new() }),
            foreign: AtomicBool::new(header == Header::GoPersist),
            converting: Mutex::new(()),
            carried: AtomicI64::new(found.records as i64),
            shrinking: AtomicBool::new(false),
            timer: Mutex::default(),
            cut: found.cut,
            background_error: Mutex::default(),
            options,
            lock: Mutex::new(Some(lock)),
        });
        let workers = core.options.background.then(|| start_workers(&core));
        Ok(Self { core, workers })
    }

    /// The map of this name with values of type `V`, under the store's sync policy. Opening it again
    /// with the same type gives the same map.
    ///
    /// # Errors
    /// [`Error::Value`] naming the key whose stored value is no `V`: the file stays as it is.
    /// [`Error::MapType`] when the map is open with another type, [`Error::InvalidName`].
    pub fn map<V: Serialize + DeserializeOwned + Send + Sync + 'static>(&self, name: &str) -> Result<Map<V>> {
        self.open_map(name, None)
    }

    /// As [`Store::map`], under a sync policy of its own.
    pub fn map_with_sync<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &self,
        name: &str,
        sync: SyncPolicy,
    ) -> Result<Map<V>> {
        self.open_map(name, Some(sync))
    }

    fn open_map<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &self,
        name: &str,
        sync: Option<SyncPolicy>,
    ) -> Result<Map<V>> {
        name::check_map(name)?;
        sync.map_or(Ok(()), SyncPolicy::check)?;
        let map = self.core.map(Some(name), sync)?;
        Ok(Map::new(Arc::clone(&self.core), map))
    }

    fn own(&self) -> Result<Map<Box<RawValue>>> {
        let map = self.core.map(None, None)?;
        Ok(Map::new(Arc::clone(&self.core), map))
    }

    /// A value of the store itself, for configuration. `None` when absent.
    ///
    /// # Errors
    /// [`Error::Value`] when it is no `T`, [`Error::InvalidKey`].
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        name::check_own_key(key)?;
        let decode = |json: &RawValue| serde_json::from_str(json.get());
        self.own()?.get_with(key, |json| decode(json)).transpose().map_err(|e| value_error(key, &e))
    }

    /// Sets a value of the store itself. In the kernel when it returns; on the device under `always`.
    pub fn set<T: Serialize>(&self, key: &str, value: &T) -> Result<()> {
        name::check_own_key(key)?;
        let json = serde_json::value::to_raw_value(value).map_err(|e| value_error(key, &e))?;
        self.own()?.set(key, json)
    }

    /// Deletes a value of the store itself; whether it was there. Durable as [`Store::set`].
    pub fn delete(&self, key: &str) -> Result<bool> {
        name::check_own_key(key)?;
        self.own()?.delete(key)
    }

    /// An empty batch: changes across maps that become visible and durable together or not at all.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.core))
    }

    /// Puts every `*_async` change into the kernel; under `always` onto the device.
    pub fn flush(&self) -> Result<()> {
        self.core.flush()
    }

    /// Flushes, then makes everything durable: with `manual`, the end of a run loop.
    pub fn sync(&self) -> Result<()> {
        let flushed = self.core.flush_what_can_be()?;
        self.core.log.sync_step()?;
        flushed
    }

    /// Rewrites the log so that it holds one record per live key, in the order of their last change,
    /// while readers and writers go on. A crash at any step leaves the old or the new log, whole.
    ///
    /// # Errors
    /// [`Error::ShrinkInProgress`]; [`Error::Full`] and [`Error::Io`] leave the old log in use.
    pub fn shrink(&self) -> Result<()> {
        self.core.shrink()
    }

    /// Does what is due at `now`, a time since opening, and returns when it wants to be called next.
    /// For owners without background threads. Does not shrink.
    pub fn maintain(&self, now: Duration) -> Result<Duration> {
        Ok(self.core.flush_due(now)?.min(self.core.sync_due(now)?))
    }

    /// What the store holds and has done.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Flushes, syncs under every policy, and lets go of the file. Handles of its maps can be read
    /// afterwards; changing them is [`Error::Closed`].
    ///
    /// # Errors
    /// Whatever kept the last changes from the device. The file is let go of all the same.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(workers) = self.workers.take() {
            drop(workers);
        }
        let outcome = self.core.close();
        let written = self.core.log.close();
        drop(self.core.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        outcome.and(written)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // `close` reports what this cannot; after it, there is nothing left to do.
        let _ = self.finish();
    }
}

impl Core {
    /// The map of this name, decoding what the log holds of it on first use.
    fn map<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &self,
        name: Option<&str>,
        sync: Option<SyncPolicy>,
    ) -> Result<Arc<MapCore<V>>> {
        let mut maps = self.maps();
        let key = name.map(str::to_owned);
        if let Some(open) = maps.open.get(&key) {
            return Arc::clone(open)
                .as_any()
                .downcast()
                .map_err(|_| Error::MapType { map: key.unwrap_or_default(), open: open.value_type() });
        }
        let table = match maps.raw.get(&key) {
            Some(raw) => raw.decode(name.unwrap_or_default(), self.options.shards)?,
            None => super::table::Table::new(self.options.shards),
        };
        maps.raw.remove(&key);
        let map = Arc::new(MapCore::new(name, maps.open.len(), sync.unwrap_or(self.options.sync), table));
        maps.open.insert(key, Arc::clone(&map) as Arc<dyn AnyMap>);
        Ok(map)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_maps(&self) -> Vec<Arc<dyn AnyMap>> {
        self.maps().open.values().cloned().collect()
    }

    /// Gives a change its place in the log and waits until it is in the kernel. Returns the position to
    /// wait for if it must reach the device.
    pub(super) fn write(&self, kind: u8, body: &[u8]) -> Result<u64> {
        self.log.check()?;
        if self.foreign.load(Ordering::Acquire) {
            self.convert()?;
        }
        self.log.append(kind, body).map(|written| written.position)
    }

    /// As [`Core::write`] for several records at once.
    pub(super) fn write_all<'a>(&self, records: impl IntoIterator<Item = (u8, &'a [u8])>) -> Result<u64> {
        if self.foreign.load(Ordering::Acquire) {
            self.convert()?;
        }
        self.log.check()?;
        let ticket = self.log.submit_all(records)?;
        self.log.wait_written(ticket)
    }

    /// Waits for the device if the level asks for it.
    pub(super) fn settle(&self, position: u64, level: Durability) -> Result<()> {
        if level == Durability::Sync { self.log.wait_synced(position) } else { Ok(()) }
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.flush_what_can_be()?
    }

    /// Flushes. The outer error is the log's; the inner one names a value that has no JSON form, which
    /// must not keep the rest from the file.
    fn flush_what_can_be(&self) -> Result<Result<()>> {
        let mut strictest = self.options.sync;
        let mut wrote = false;
        let mut refused = Ok(());
        for map in self.open_maps() {
            let flushed = match map.flush(self) {
                Err(e @ Error::Value { .. }) => {
                    refused = refused.and(Err(e));
                    true
                }
                other => other?,
            };
            if flushed {
                wrote = true;
                strictest = strictest.stricter(map.sync());
            }
        }
        if wrote && strictest == SyncPolicy::Always {
            self.log.sync_step()?;
        }
        Ok(refused)
    }

    fn flush_due(&self, now: Duration) -> Result<Duration> {
        let next = self.timer().flushed + self.options.flush_interval;
        if now < next {
            return Ok(next);
        }
        self.timer().flushed = now;
        self.flush()?;
        Ok(now + self.options.flush_interval)
    }

    /// Syncs when the strictest interval says so. The oldest unsynced write cannot be older than the
    /// last moment at which the log was clean.
    fn sync_due(&self, now: Duration) -> Result<Duration> {
        let policies = self.open_maps().into_iter().map(|map| map.sync());
        let strictest = policies.fold(self.options.sync, SyncPolicy::stricter);
        let SyncPolicy::Interval(interval) = strictest else {
            return Ok(now + Duration::from_millis(100));
        };
        let clean = self.timer().clean;
        if strictest.due(Some(clean), now) {
            self.timer().clean = now;
            if self.log.written_through() > self.log.synced_through() {
                self.log.sync_step()?;
            }
            return Ok(now + interval);
        }
        Ok(clean + interval)
    }

    fn timer(&self) -> MutexGuard<'_, Timer> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shrink_due(&self) -> Result<()> {
        let Some(rule) = self.options.auto_shrink else {
            return Ok(());
        };
        let stats = self.stats();
        let crowded = stats.records as f64 >= rule.ratio * stats.live.max(1) as f64;
        if crowded && stats.log.len >= rule.min_bytes { self.shrink() } else { Ok(()) }
    }

    fn shrink(&self) -> Result<()> {
        if self.foreign.load(Ordering::Acquire) {
            return self.convert();
        }
        self.compact(Header::TypedLog)
    }

    /// Rewrites a go-persist file in our format, before our first record.
    fn convert(&self) -> Result<()> {
        let _one = self.converting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.foreign.load(Ordering::Acquire) {
            self.compact(Header::GoPersist)?;
            self.foreign.store(false, Ordering::Release);
        }
        Ok(())
    }

    fn compact(&self, from: Header) -> Result<()> {
        self.log.check()?;
        if self.shrinking.swap(true, Ordering::AcqRel) {
            return Err(Error::ShrinkInProgress { path: self.path.clone() });
        }
        let result = compact::compact(&*self.options.fs, &self.path, from, &self.log);
        self.shrinking.store(false, Ordering::Release);
        let Compacted { read, kept } = result?;
        // Records written meanwhile were carried over on top of those kept. There may be more kept than
        // read: a batch is one record and becomes one for each of its keys.
        self.carried.fetch_add(kept as i64 - read as i64, Ordering::Relaxed);
        Ok(())
    }

    fn stats(&self) -> Stats {
        // Counted without the registry: whoever holds a shard may be waiting for it.
        let open: usize = self.open_maps().into_iter().map(|map| map.len()).sum();
        let raw: usize = self.maps().raw.values().map(load::RawMap::records).sum();
        let log = self.log.stats();
        Stats {
            live: (open + raw) as u64,
            records: self.carried.load(Ordering::Relaxed).saturating_add_unsigned(log.records).max(0) as u64,
            log,
            cut: self.cut.clone(),
            background_error: self.background_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// A clean end: everything on the device, and a mark that says so, so that damage anywhere before
    /// it can be told from a torn tail.
    fn close(&self) -> Result<()> {
        self.log.check()?;
        let flushed = self.flush_what_can_be()?;
        if self.foreign.load(Ordering::Acquire) {
            return flushed;
        }
        if self.log.written_through() > self.log.synced_through() && self.log.stats().records > 0 {
            self.log.sync_step()?;
        }
        if self.log.mark_is_due() {
            let ticket = self.log.submit(b'M', b"synced\n")?;
            self.log.wait_written(ticket)?;
        }
        flushed
    }

    fn note(&self, outcome: Result<()>) {
        if let Err(e) = outcome {
            *self.background_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
        }
    }
}

/// Flush, sync and shrink each have a thread: none may be late because another is at work.
fn start_workers(core: &Arc<Core>) -> Workers {
    type Task = fn(&Core, Duration) -> Result<Duration>;
    let mut tasks: Vec<(Task, Duration)> =
        vec![(Core::flush_due, core.options.flush_interval), (Core::sync_due, Duration::from_millis(100))];
    if core.options.auto_shrink.is_some() {
        tasks.push((|core, now| core.shrink_due().map(|()| now + Duration::from_secs(1)), Duration::from_secs(1)));
    }
    let mut workers = Workers::new();
    for (task, patience) in tasks {
        let core = Arc::downgrade(core);
        workers.start(move |now| {
            let core = core.upgrade()?;
            let next = task(&core, now);
            let time = next.as_ref().map_or(now + patience, |time| *time);
            core.note(next.map(|_| ()));
            Some(time)
        });
    }
    workers
}

fn value_error(key: &str, e: &serde_json::Error) -> Error {
    Error::Value { map: String::new(), key: key.to_owned(), why: e.to_string() }
}
