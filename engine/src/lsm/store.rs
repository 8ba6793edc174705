//! The store: opening, writing, and the work behind the writer's back, one step at a time.
//!
//! Writers take turns: a turn numbers the write, appends it to the log and puts it into the memtable; waiting for
//! the device comes after the turn, so that many share a sync. Readers take no lock: they load a [`View`].
//!
//! **Invariant:** the order of sequence numbers is the order of the log. A number is visible only when all up to it
//! are in the memtable.

use super::compaction::{self, Place, Rules, Written};
use super::cursor::{Cursor, Direction, MemtableCursor, Merge};
use super::entry::Changes;
use super::file::Way;
use super::manifest::{self, Manifest};
use super::names::{Names, missing};
use super::options::{Compression, Options};
use super::packing::Packer;
use super::pick::{self, Shape, Task};
use super::sstable::{self, Caches, TableCursor};
use super::transaction::Recent;
use super::version::{Edit, Levels, Version};
use super::view::View;
use super::wal::{self, Memory, Spare};
use crate::background::{self, Bell, Workers};
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock};
use crate::log::{Cut, Log, remove_leftover, take_lock};
use crate::sync_policy::{Durability, SyncPolicy};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes of writes after which slowed ones rest, if memtables are not small. By bytes, not by writes: what flushes and compactions
/// cannot follow is a rate of bytes, and small writes at a moderate rate would otherwise pile up behind rests that the store
/// does not need.
const STRIDE: usize = 16 << 10;
/// How long they rest when they begin to be slowed.
const SLOW: Duration = Duration::from_micros(100);
/// How many rests a write can leave behind: those that come after a long batch wait for no more than these.
const RESTS: usize = 64;
/// How often a rest is doubled at most, as it grows tighter.
const DOUBLINGS: u32 = 5;
/// How long a worker rests now and then while it frees a memtable.
const REST: Duration = Duration::from_micros(500);
/// How long a stalled write waits before it looks again.
const PATIENCE: Duration = Duration::from_millis(100);

/// After so many scans a worker looks whether they are worth a compaction.
const SCANS: u64 = 256;

/// What all handles of an open store share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) caches: Arc<Caches>,
    sync: ArcSwap<SyncPolicy>,
    /// Bytes a second that compactions may write; 0 for no limit.
    compaction_rate: AtomicU64,
    /// Held by the compaction that rests.
    pacing: Mutex<()>,
    writer: Mutex<Writer>,
    view: ArcSwap<View>,
    /// What readers saw before, until nobody does: to free a memtable or remove a file takes milliseconds, and
    /// whoever reads must not be the last to let go.
    past: Mutex<Vec<Arc<View>>>,
    /// Held by whoever lets go of what was seen before.
    forgetting: Mutex<()>,
    visible: AtomicU64,
    /// Held by the writer that rests.
    resting: Mutex<()>,
    /// What nobody compresses writes with just now; no more than there are processors.
    packers: Mutex<Vec<Packer>>,
    /// Sequence numbers of open snapshots and how many have each.
    snapshots: Mutex<BTreeMap<u64, usize>>,
    manifest: Mutex<Manifest>,
    busy: Mutex<Busy>,
    /// Held by whoever waits until everything is merged.
    merging: Mutex<()>,
    merge: Mutex<MergeAll>,
    flushing: Mutex<()>,
    preparing: Mutex<()>,
    /// The segment of the next memtable, made in advance.
    spare: Mutex<Option<Spare>>,
    numbers: AtomicU64,
    /// Memtables whose log is no longer written and may not be synced yet, from the oldest.
    older: Mutex<Vec<Arc<Memory>>>,
    older_count: AtomicUsize,
    /// Whether memtables hold writes that found no room in the log, and that nobody waited for.
    ahead_of_log: AtomicBool,
    /// What transactions may conflict with.
    pub(super) recent: Recent,
    poison: OnceLock<Error>,
    stopping: AtomicBool,
    timer: Mutex<Timer>,
    /// Rings when there is work, and when work was done.
    pub(super) bell: Bell,
    pub(super) counts: Counts,
    pub(super) cut: Option<(PathBuf, Cut)>,
    background_error: Mutex<Option<Error>>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// Whose turn it is to write.
#[derive(Debug)]
struct Writer {
    memory: Arc<Memory>,
    next_seq: u64,
    /// Bytes that slowed writes brought and that nobody rested for yet.
    unrested: usize,
}

/// What compactions are at work on.
#[derive(Debug, Default)]
struct Busy {
    tables: BTreeSet<u64>,
    /// Whether it is the whole store: what comes of it may lie anywhere, so nothing else is begun, not even with tables that
    /// are new.
    all: bool,
}

/// The last merge of everything that was asked for.
#[derive(Debug, Default)]
struct MergeAll {
    /// Counts them: what began for an earlier one says nothing about a later one.
    ticket: u64,
    /// Until it is begun.
    wanted: bool,
    /// How it ended, until whoever waits is told.
    ended: Option<Result<()>>,
}

/// When flush and sync last happened, since the store was opened.
#[derive(Debug, Default)]
struct Timer {
    flushed: Duration,
    clean: Duration,
}

/// What the store has done since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) flushes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) collections: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) slowed: AtomicU64,
    /// Bytes that writes brought.
    pub(super) written: AtomicU64,
    /// Bytes that flushes wrote into tables and value log files.
    pub(super) flushed: AtomicU64,
    /// Bytes that compactions wrote into them.
    pub(super) compacted: AtomicU64,
    /// Nanoseconds that workers spent on compactions.
    pub(super) compacting: AtomicU64,
}

impl Core {
    pub(super) fn open(dir: &Path, options: Options) -> Result<Arc<Self>> {
        options.check()?;
        let fs = Arc::clone(&options.fs);
        fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let lock = take_lock(&*fs, &dir.join("lock"), dir)?;
        let mut names = Names::read(&*fs, dir)?;
        let caches = Arc::new(Caches::new(options.block_cache, options.index_cache));
        if !names.manifest {
            create(&*fs, dir, &names, options.memtable_size)?;
            names = Names::read(&*fs, dir)?;
        }
        let manifest = Manifest::open(&*fs, dir)?;
        names.check(dir, &manifest.levels)?;
        names.remove_orphans(&*fs, dir, &manifest.levels)?;
        let flushed = manifest.levels.all().map(|t| t.max_seq).max().unwrap_or(0);
        let segments: Vec<u64> = names.logs.iter().copied().filter(|n| *n >= manifest.levels.log).collect();
        let mut recovered = wal::recover(&*fs, dir, &segments, flushed, options.memtable_size)?;
        if matches!(options.sync, SyncPolicy::Always | SyncPolicy::Interval(_)) {
            // What survived a killed process may be in the kernel only; show nothing that power loss could take back.
            for Memory { log, .. } in &recovered.memories {
                if log.synced_through() < log.written_through() { log.sync_step() } else { log.sync_again() }?;
            }
        }
        let numbers = manifest.levels.next.max(names.greatest() + 1);
        let Some(active) = recovered.memories.pop().map(Arc::new) else {
            return Err(missing(dir, &wal::file_name(manifest.levels.log)));
        };
        let older: Vec<_> = recovered.memories.into_iter().map(Arc::new).collect();
        let version = Version::new(manifest.levels.clone(), None, &fs, dir, &caches);
        let view =
            View { active: Arc::clone(&active), immutable: older.iter().rev().cloned().collect(), version: Arc::new(version) };
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            writer: Mutex::new(Writer { memory: active, next_seq: recovered.max_seq + 1, unrested: 0 }),
            view: ArcSwap::from_pointee(view),
            past: Mutex::default(),
            forgetting: Mutex::default(),
            visible: AtomicU64::new(recovered.max_seq),
            resting: Mutex::default(),
            packers: Mutex::default(),
            snapshots: Mutex::default(),
            manifest: Mutex::new(manifest),
            busy: Mutex::default(),
            merging: Mutex::default(),
            merge: Mutex::default(),
            flushing: Mutex::default(),
            preparing: Mutex::default(),
            spare: Mutex::default(),
            numbers: AtomicU64::new(numbers),
            older_count: AtomicUsize::new(older.len()),
            ahead_of_log: AtomicBool::new(false),
            older: Mutex::new(older),
            recent: Recent::default(),
            poison: OnceLock::new(),
            stopping: AtomicBool::new(false),
            timer: Mutex::default(),
            bell: Bell::default(),
            counts: Counts::default(),
            cut: recovered.cut,
            background_error: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            sync: ArcSwap::from_pointee(options.sync),
            compaction_rate: AtomicU64::new(options.compaction_rate),
            pacing: Mutex::default(),
            caches,
            options,
        }))
    }

    /// What readers see now.
    pub(super) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// The sequence number up to which everything is visible. To be asked after the view was loaded: then the
    /// view holds all of it that was there when the reader began.
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Fails when the store is poisoned or closed.
    pub(super) fn check(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Makes several changes that happen together or not at all. `admit` is asked in the writer's turn whether
    /// they still may.
    pub(super) fn write(&self, changes: &mut Changes, level: Durability, admit: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.pack(changes);
        let level = self.sync.load().raise(level);
        let (memory, position) = loop {
            let mut writer = lock(&self.writer);
            self.check()?;
            let (seen, mut is_slowed) = (self.bell.count(), false);
            let bytes = writer.memory.table.bytes();
            match self.pressure(bytes) {
                Pressure::None => writer.unrested = 0,
                Pressure::Slow(rest) if writer.unrested >= stride(&self.options) && self.options.background => {
                    writer.unrested -= stride(&self.options);
                    drop(writer);
                    self.counts.slowed.fetch_add(1, Ordering::Relaxed);
                    // One after the other, so that all who write are slowed; but nobody else waits for them.
                    let _resting = lock(&self.resting);
                    background::pause(rest);
                    continue;
                }
                Pressure::Slow(_) => is_slowed = true,
                Pressure::Stall => {
                    drop(writer);
                    self.make_room(seen)?;
                    continue;
                }
            }
            if bytes >= self.options.memtable_size {
                self.rotate(&mut writer)?;
            }
            self.catch_up(&mut writer)?;
            admit()?;
            if changes.len() == 0 {
                // Nothing to write, but a promise to keep: what was seen is as durable as was asked.
                let position = if level == Durability::Async { 0 } else { self.settled(&writer.memory)? };
                break (Arc::clone(&writer.memory), position);
            }
            let first = writer.next_seq;
            let last = first + u64::from(changes.len()) - 1;
            self.counts.written.fetch_add(changes.bytes() as u64, Ordering::Relaxed);
            let (kind, body) = changes.number(first);
            let log = &writer.memory.log;
            let position = match level {
                Durability::Async => log.submit_unwaited(kind, body).map(|()| 0),
                Durability::Write | Durability::Sync => log.append(kind, body).map(|written| written.position),
            };
            let position = position.map_err(|e| self.note_failure(log, e))?;
            let versions = (first..).zip(changes.iter()).map(|(seq, (kind, key, stored))| (key, kind.tag(seq), stored));
            writer.memory.table.insert(versions);
            self.recent.note(changes.iter().map(|(_, key, _)| key), last);
            writer.next_seq = last + 1;
            if is_slowed {
                writer.unrested = (writer.unrested + changes.bytes()).min(RESTS * stride(&self.options));
            }
            self.visible.store(last, Ordering::Release);
            if writer.memory.log.lost_unwaited() {
                // Earlier writes may have been lost between the look at that and this one's place in the log.
                self.ahead_of_log.store(true, Ordering::Release);
                self.catch_up(&mut writer)?;
            }
            break (Arc::clone(&writer.memory), position);
        };
        if level == Durability::Sync {
            self.sync_through(&memory, position)?;
        }
        Ok(())
    }

    /// Compresses a long write, before its turn.
    fn pack(&self, changes: &mut Changes) {
        if self.options.compression == Compression::None || changes.bytes() < self.options.pack_log_from {
            return;
        }
        let mut packer = lock(&self.packers).pop().unwrap_or_else(|| Packer::new(self.options.compression));
        changes.pack(&mut packer);
        packer.shrink();
        let mut packers = lock(&self.packers);
        if packers.len() < background::processors() {
            packers.push(packer);
        }
    }

    /// Does something while nobody writes.
    pub(super) fn in_turn<R>(&self, act: impl FnOnce() -> R) -> R {
        let _turn = lock(&self.writer);
        act()
    }

    /// Puts what is pending into the kernel; the position to which the log is written then.
    fn settled(&self, memory: &Memory) -> Result<u64> {
        memory.log.commit_step().map_err(|e| self.note_failure(&memory.log, e))?;
        Ok(memory.log.written_through())
    }

    fn note_failure(&self, log: &Log, e: Error) -> Error {
        if log.lost_unwaited() {
            self.ahead_of_log.store(true, Ordering::Release);
        }
        self.note_poison(e)
    }

    /// Makes good for writes that are in memory but found no room in the log: they go into tables, before anything else is
    /// acknowledged.
    fn catch_up(&self, writer: &mut Writer) -> Result<()> {
        if !self.ahead_of_log.load(Ordering::Acquire) {
            return Ok(());
        }
        self.flush_in_turn(writer)?;
        self.ahead_of_log.store(false, Ordering::Release);
        Ok(())
    }

    /// The memtable that is written, after all writes in it are in its log or in a table.
    fn caught_up(&self) -> Result<Arc<Memory>> {
        let mut writer = lock(&self.writer);
        self.catch_up(&mut writer)?;
        Ok(Arc::clone(&writer.memory))
    }

    /// What a write into a memtable that holds so many bytes meets.
    fn pressure(&self, bytes: usize) -> Pressure {
        let view = self.view.load();
        Pressure::of(&self.options, view.version.levels.tables[0].len(), view.immutable.len() + 1, bytes)
    }

    /// Waits for room, or makes it if no worker does.
    fn make_room(&self, seen: u64) -> Result<()> {
        self.counts.stalls.fetch_add(1, Ordering::Relaxed);
        if !self.options.background {
            return self.step().map(drop);
        }
        lock(&self.background_error).take().map_or(Ok(()), Err)?;
        self.bell.wait(seen, PATIENCE);
        lock(&self.background_error).take().map_or(Ok(()), Err)
    }

    /// Begins a memtable and its segment.
    fn rotate(&self, writer: &mut Writer) -> Result<()> {
        self.settled(&writer.memory)?;
        let size = self.options.memtable_size;
        // One that was overtaken while it was made would come too early in the order of numbers.
        let spare = lock(&self.spare).take().filter(|spare| spare.number > writer.memory.number);
        let begun = match &spare {
            Some(spare) => wal::begin_in(spare, &self.dir, writer.next_seq, &writer.memory, size),
            None => wal::begin(&*self.options.fs, &self.dir, self.number(), writer.next_seq, Some(&writer.memory), size),
        };
        let fresh = match begun {
            Ok(fresh) => Arc::new(fresh),
            // It was not begun.
            Err(e @ Error::Full { .. }) => {
                *lock(&self.spare) = spare;
                return Err(e);
            }
            Err(e) => return Err(self.stop(e)),
        };
        let old = std::mem::replace(&mut writer.memory, Arc::clone(&fresh));
        {
            let mut older = lock(&self.older);
            older.push(Arc::clone(&old));
            self.older_count.store(older.len(), Ordering::Release);
        }
        self.view.rcu(|view| {
            let immutable = std::iter::once(&old).chain(&view.immutable).cloned().collect();
            View { active: Arc::clone(&fresh), immutable, version: Arc::clone(&view.version) }
        });
        self.bell.ring();
        Ok(())
    }

    /// Makes the segment of the next memtable before it is needed; whether that was due.
    fn prepare_segment(&self) -> Result<bool> {
        let Ok(_one) = self.preparing.try_lock() else { return Ok(false) };
        let half = self.view.load().active.table.bytes() >= self.options.memtable_size / 2;
        if !half || lock(&self.spare).is_some() {
            return Ok(false);
        }
        match wal::prepare(&*self.options.fs, &self.dir, self.number(), self.options.memtable_size) {
            Ok(spare) => {
                *lock(&self.spare) = Some(spare);
                Ok(true)
            }
            // Whoever needs it will try for himself.
            Err(Error::Full { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::AcqRel)
    }

    /// Waits until a position of a memtable's log is on the device, and everything before it.
    fn sync_through(&self, memory: &Memory, position: u64) -> Result<()> {
        self.sync_older(memory.number)?;
        memory.log.wait_synced(position).map_err(|e| self.note_poison(e))
    }

    /// Syncs the segments before this one.
    fn sync_older(&self, number: u64) -> Result<()> {
        if self.older_count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut older = lock(&self.older);
        while let Some(memory) = older.first().filter(|m| m.number < number) {
            memory.log.sync_step().map_err(|e| self.note_poison(e))?;
            older.remove(0);
            self.older_count.store(older.len(), Ordering::Release);
        }
        Ok(())
    }

    /// Changes the sync policy. Under the new one holds from the start what it promises: everything is synced first
    /// if it ever syncs by itself.
    pub(super) fn set_sync(&self, policy: SyncPolicy) -> Result<()> {
        policy.check()?;
        self.sync.store(Arc::new(policy));
        if matches!(policy, SyncPolicy::Always | SyncPolicy::Interval(_)) { self.sync() } else { Ok(()) }
    }

    pub(super) fn set_compaction_rate(&self, rate: u64) {
        self.compaction_rate.store(rate, Ordering::Relaxed);
    }

    /// Rests after compactions wrote so many bytes, for as long as the rate demands.
    fn pace(&self, bytes: u64) {
        let _resting = lock(&self.pacing);
        let mut left = bytes as f64;
        loop {
            let rate = self.compaction_rate.load(Ordering::Relaxed);
            if rate == 0 || left <= 0.0 || self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let rest = Duration::from_secs_f64(left / rate as f64).min(Duration::from_millis(50));
            background::pause(rest);
            left -= rest.as_secs_f64() * rate as f64;
        }
    }

    /// Puts every `Async` write into the kernel; under `always` onto the device.
    pub(super) fn flush_log(&self) -> Result<()> {
        self.check()?;
        let memory = self.caught_up()?;
        let position = self.settled(&memory)?;
        if **self.sync.load() == SyncPolicy::Always { self.sync_through(&memory, position) } else { Ok(()) }
    }

    /// Makes everything durable that was written before.
    pub(super) fn sync(&self) -> Result<()> {
        self.check()?;
        let memory = self.caught_up()?;
        let position = self.settled(&memory)?;
        self.sync_through(&memory, position)
    }

    pub(super) fn flush_due(&self, now: Duration) -> Result<Duration> {
        let next = lock(&self.timer).flushed + self.options.flush_interval;
        if now < next {
            return Ok(next);
        }
        lock(&self.timer).flushed = now;
        self.flush_log()?;
        Ok(now + self.options.flush_interval)
    }

    /// Syncs when the interval says so. The oldest unsynced write cannot be older than the last moment at which
    /// the log was clean.
    pub(super) fn sync_due(&self, now: Duration) -> Result<Duration> {
        let policy = **self.sync.load();
        let SyncPolicy::Interval(interval) = policy else {
            return Ok(now + Duration::from_millis(100));
        };
        let clean = lock(&self.timer).clean;
        if !policy.due(Some(clean), now) {
            return Ok(clean + interval);
        }
        lock(&self.timer).clean = now;
        let memory = self.caught_up()?;
        let log = &memory.log;
        if self.older_count.load(Ordering::Acquire) > 0 || log.written_through() > log.synced_through() {
            self.check()?;
            self.sync_through(&memory, log.written_through())?;
        }
        Ok(now + interval)
    }

    /// Lets go of what readers saw before and nobody sees any more: of files at once, of memory with a `rest` now and
    /// then. When it returns, files that no view holds any more are gone, whoever was at it.
    pub(super) fn forget(&self, rest: impl Fn()) {
        let memories: Vec<_> = {
            let _others_wait = lock(&self.forgetting);
            let gone: Vec<_> = lock(&self.past).extract_if(.., |view| Arc::strong_count(view) == 1).collect();
            let memories = |View { active, immutable, .. }| std::iter::once(active).chain(immutable);
            gone.into_iter().filter_map(Arc::into_inner).flat_map(memories).collect()
        };
        // Of what another view holds too, the last of them is the one to free it.
        memories.into_iter().filter_map(Arc::into_inner).for_each(|memory| memory.table.free(&rest));
    }

    /// Lets those go on who read and write, if work is done beside them and nobody waits for its end.
    fn rest(&self) {
        if self.options.background && !self.stopping.load(Ordering::Relaxed) {
            background::pause(REST);
        }
    }

    /// One step of what is due: a flush, a compaction or a collection. Whether there was any.
    pub(super) fn step(&self) -> Result<bool> {
        Ok(self.flush_step()? || self.compact_step()?)
    }

    /// Makes a segment in advance or flushes a memtable, if that is due; whether it was.
    fn flush_step(&self) -> Result<bool> {
        self.check()?;
        let done = self.prepare_segment().and_then(|prepared| if prepared { Ok(true) } else { self.flush_one() });
        self.forget(|| self.rest());
        done.map_err(|e| self.settle_background(e))
    }

    /// Makes a compaction or a collection, if one is due; whether it was.
    fn compact_step(&self) -> Result<bool> {
        self.check()?;
        let done = self.compact_due().map_err(|e| self.settle_background(e))?;
        if done {
            self.forget(|| self.rest());
        }
        Ok(done)
    }

    /// Flushes the oldest memtable that is full; whether there was one.
    pub(super) fn flush_one(&self) -> Result<bool> {
        let Ok(_one) = self.flushing.try_lock() else { return Ok(false) };
        // To hold the view all the time would keep files that a compaction has done with.
        let (memory, oldest_log) = {
            let view = self.view.load();
            let Some(memory) = view.immutable.last() else { return Ok(false) };
            let newer = view.immutable.iter().rev().nth(1).unwrap_or(&view.active);
            (Arc::clone(memory), newer.number)
        };
        let mut source = Merge::new(vec![Box::new(MemtableCursor::new(Arc::clone(&memory)))], Direction::Forward);
        source.place(|cursor| cursor.first())?;
        let seen = self.boundaries();
        let rules = Rules::all_of(&seen, self.options.clock.now());
        let written = self.build(&mut source, &rules, Way::Sent, &|_| ())?;
        self.counts.flushed.fetch_add(bytes_of(&written), Ordering::Relaxed);
        let add = written.tables.into_iter().map(|table| (0, table)).collect();
        let edit = Edit { add, add_values: written.values, log: Some(oldest_log), ..Edit::default() };
        self.install(edit, Some(memory.number))?;
        {
            let mut older = lock(&self.older);
            older.retain(|m| m.number != memory.number);
            self.older_count.store(older.len(), Ordering::Release);
        }
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(wal::file_name(memory.number));
        self.options.fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        Ok(true)
    }

    /// Makes the compaction that is most due; whether there was one.
    fn compact_due(&self) -> Result<bool> {
        let scans = self.view.load().version.scans.load(Ordering::Relaxed);
        let pick = |levels: &Levels, shape: &Shape, busy: &BTreeSet<u64>| {
            pick::pick(levels, shape, busy).or_else(|| pick::for_scans(levels, shape, busy, scans))
        };
        let wanted = {
            let merge = lock(&self.merge);
            merge.wanted.then_some(merge.ticket)
        };
        match wanted {
            Some(ticket) => Ok(self.merge_everything(ticket)),
            None => self.compact_one(pick),
        }
    }

    /// Notes that a scan begins, which has to look into each table of level 0.
    pub(super) fn scanned(&self, version: &Version) {
        if !version.tables[0].is_empty() && version.scans.fetch_add(1, Ordering::Relaxed) % SCANS == SCANS - 1 {
            self.bell.ring();
        }
    }

    /// Picks a compaction and makes it; whether there was one.
    pub(super) fn compact_one(&self, pick: impl FnOnce(&Levels, &Shape, &BTreeSet<u64>) -> Option<Task>) -> Result<bool> {
        let (task, version) = {
            let mut busy = lock(&self.busy);
            if busy.all {
                return Ok(false);
            }
            let version = Arc::clone(&self.view.load().version);
            let Some(task) = pick(&version.levels, &Shape::of(&self.options), &busy.tables) else { return Ok(false) };
            busy.tables.extend(&task.inputs);
            busy.all = task.all;
            (task, version)
        };
        let done = self.compact(&task, &version);
        // Whoever finds that nobody is busy may count on it that nobody holds on to old files either.
        drop(version);
        {
            let mut busy = lock(&self.busy);
            busy.tables.retain(|number| !task.inputs.contains(number));
            busy.all &= !task.all;
        }
        self.bell.ring();
        done.map(|()| true)
    }

    fn compact(&self, task: &Task, version: &Version) -> Result<()> {
        let seen = self.boundaries();
        let is_last = |key: &[u8]| task.output > 0 && !version.levels.is_below(task.output, key);
        let rules = Rules {
            seen: &seen,
            keeps: &|_| true,
            is_last: &is_last,
            backup: version.levels.backup.unwrap_or(u64::MAX),
            now: self.options.clock.now(),
            collect: &task.collect,
            table_size: task.table_size,
            fences: &[],
            read: &|pointer, key, tag| version.value(&self.dir, pointer, key, tag),
        };
        let pace = |bytes| self.pace(bytes);
        let is_settled = |table: &Arc<sstable::Table>| {
            let mut source = versions_of(&[table])?;
            self.in_place(Way::Synced, &pace, |place| compaction::is_settled(&mut source, &rules, place))
        };
        let (mut merged, mut moved) = (Vec::new(), Vec::new());
        for (level, tables) in version.tables.iter().enumerate() {
            for table in tables.iter().filter(|t| task.inputs.contains(&t.meta.number)) {
                let may_move = task.moved.contains(&table.meta.number);
                if may_move && (!task.all || is_settled(table)?) {
                    moved.push((level, table));
                } else {
                    merged.push(table);
                }
            }
        }
        let mut edit = Edit { remove: merged.iter().map(|t| t.meta.number).collect(), ..Edit::default() };
        for (_, table) in moved.iter().filter(|(level, _)| *level != task.output) {
            edit.remove.push(table.meta.number);
            edit.add.push((task.output, table.meta.clone()));
        }
        if !merged.is_empty() {
            let others = version.tables[task.output].iter().filter(|t| task.output > 0 && !task.inputs.contains(&t.meta.number));
            let mut fences: Vec<&[u8]> =
                others.chain(moved.iter().map(|(_, table)| *table)).map(|t| &t.meta.smallest[..]).collect();
            fences.sort_unstable();
            let rules = Rules { fences: &fences, ..rules };
            let written = self.build(&mut versions_of(&merged)?, &rules, Way::Synced, &pace)?;
            self.counts.compacted.fetch_add(bytes_of(&written), Ordering::Relaxed);
            let counter = if task.collect.is_empty() { &self.counts.compactions } else { &self.counts.collections };
            counter.fetch_add(1, Ordering::Relaxed);
            edit.add.extend(written.tables.into_iter().map(|table| (task.output, table)));
            (edit.add_values, edit.dropped) = (written.values, written.dropped);
        }
        // An owner may ask to have merged what needs no merging.
        if edit.remove.is_empty() { Ok(()) } else { self.install(edit, None) }
    }

    fn build(&self, source: &mut Merge<'_>, rules: &Rules<'_>, way: Way, pace: &dyn Fn(u64)) -> Result<Written> {
        self.in_place(way, pace, |place| compaction::write(source, rules, place))
    }

    /// Does something with the place where tables are written.
    fn in_place<R>(&self, way: Way, pace: &dyn Fn(u64), act: impl FnOnce(&Place<'_>) -> R) -> R {
        act(&Place {
            fs: &*self.options.fs,
            dir: &self.dir,
            options: &self.options,
            way,
            number: &|| self.number(),
            stopped: &|| self.stopping.load(Ordering::Relaxed),
            pace,
        })
    }

    /// Makes an edit durable and shows it to readers.
    fn install(&self, mut edit: Edit, flushed: Option<u64>) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        self.check()?;
        edit.next = Some(self.numbers.load(Ordering::Acquire));
        // Value log files that no table points to any more go with the edit that takes the last pointer.
        let after = manifest.levels.apply(&edit).map_err(|why| edit_refused(&self.dir, why))?;
        edit.remove_values = after.live_values().into_iter().filter(|(_, live)| *live == 0).map(|(number, _)| number).collect();
        manifest.apply(&*self.options.fs, &edit, self.options.manifest_size)?;
        self.show(manifest.levels.clone(), flushed);
        drop(manifest);
        self.bell.ring();
        Ok(())
    }

    /// Shows new levels to readers, without the memtable that was flushed. The caller has the manifest's lock; when he lets
    /// go of it, nobody holds on to what was seen before but who still reads it.
    fn show(&self, levels: Levels, flushed: Option<u64>) {
        let before = Arc::clone(&self.view.load().version);
        let version = Arc::new(Version::new(levels, Some(&before), &self.options.fs, &self.dir, &self.caches));
        version.retire(&before);
        let past = self.view.rcu(|view| {
            let immutable = view.immutable.iter().filter(|m| Some(m.number) != flushed).cloned().collect();
            View { active: Arc::clone(&view.active), immutable, version: Arc::clone(&version) }
        });
        lock(&self.past).push(past);
    }

    /// Notes that a backup holds everything up to this version.
    pub(super) fn remember_backup(&self, through: u64) -> Result<()> {
        self.install(Edit { backup: Some(through), ..Edit::default() }, None).map_err(|e| self.settle_background(e))
    }

    /// Sequence numbers that somebody may read at, ascending.
    fn boundaries(&self) -> Vec<u64> {
        let snapshots = lock(&self.snapshots);
        let mut seen: Vec<u64> = snapshots.keys().copied().chain([self.visible()]).collect();
        seen.dedup();
        seen
    }

    /// Keeps what is visible now from being compacted away.
    pub(super) fn hold(&self) -> u64 {
        let mut snapshots = lock(&self.snapshots);
        let seq = self.visible();
        *snapshots.entry(seq).or_default() += 1;
        seq
    }

    pub(super) fn release(&self, seq: u64) {
        let mut snapshots = lock(&self.snapshots);
        if let Some(count) = snapshots.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&seq);
            }
        }
    }

    /// Ends the memtable that is written and flushes all.
    pub(super) fn flush(&self) -> Result<()> {
        {
            let mut writer = lock(&self.writer);
            self.check()?;
            if !writer.memory.table.is_empty() {
                self.rotate(&mut writer)?;
            }
        }
        self.flush_full()
    }

    /// Flushes all memtables while nobody writes.
    fn flush_in_turn(&self, writer: &mut Writer) -> Result<()> {
        if !writer.memory.table.is_empty() {
            self.rotate(writer)?;
        }
        self.flush_full()
    }

    /// Flushes the memtables that nobody writes any more.
    fn flush_full(&self) -> Result<()> {
        while !self.view.load().immutable.is_empty() {
            self.check()?;
            let seen = self.bell.count();
            if !self.flush_one().map_err(|e| self.settle_background(e))? {
                // A worker is at it.
                self.bell.wait(seen, PATIENCE);
            }
        }
        self.forget(|| ());
        Ok(())
    }

    /// Removes the keys that begin with a prefix, in one step. Tables that hold nothing else go unread.
    pub(super) fn drop_prefix(&self, prefix: &[u8]) -> Result<()> {
        let mut writer = lock(&self.writer);
        self.check()?;
        self.flush_in_turn(&mut writer)?;
        // Nothing is in memory, and the writer's turn is ours; no compaction may be at work on what goes.
        let version = loop {
            self.check()?;
            let seen = self.bell.count();
            let mut busy = lock(&self.busy);
            if busy.tables.is_empty() && !busy.all {
                let version = Arc::clone(&self.view.load().version);
                busy.tables.extend(version.levels.all().map(|t| t.number));
                busy.all = true;
                break version;
            }
            drop(busy);
            self.bell.wait(seen, PATIENCE);
        };
        let seq = writer.next_seq;
        let done = self.install_without(prefix, &version, seq);
        // As after a compaction: nobody holds on to old files when nobody is busy any more.
        drop(version);
        *lock(&self.busy) = Busy::default();
        self.bell.ring();
        if done.is_ok() {
            // A version of its own, so that what was read before conflicts with it.
            writer.next_seq = seq + 1;
            self.recent.note_all(seq);
            self.visible.store(seq, Ordering::Release);
        }
        self.forget(|| ());
        done.map_err(|e| self.settle_background(e))
    }

    fn install_without(&self, prefix: &[u8], version: &Version, seq: u64) -> Result<()> {
        let mut edit = Edit { dropped: Some(seq), ..Edit::default() };
        let seen = self.boundaries();
        let keeps = |key: &[u8]| !key.starts_with(prefix);
        let rules = Rules { keeps: &keeps, ..Rules::all_of(&seen, self.options.clock.now()) };
        for (level, tables) in version.tables.iter().enumerate() {
            for table in tables {
                let inside = |key: &[u8]| key.starts_with(prefix);
                let (smallest, largest) = (&table.meta.smallest, &table.meta.largest);
                if prefix > &largest[..] || (prefix < &smallest[..] && !inside(smallest)) {
                    continue;
                }
                edit.remove.push(table.meta.number);
                if inside(smallest) && inside(largest) {
                    continue;
                }
                let written = self.build(&mut versions_of(&[table])?, &rules, Way::Sent, &|_| ())?;
                edit.add.extend(written.tables.into_iter().map(|table| (level, table)));
                edit.add_values.extend(written.values);
            }
        }
        self.install(edit, None)
    }

    /// Flushes, then merges everything into one level, dropping what nobody can see any more. A worker does it if there
    /// are any.
    pub(super) fn compact_all(&self) -> Result<()> {
        self.flush()?;
        let _others_wait = lock(&self.merging);
        let ticket = {
            let mut merge = lock(&self.merge);
            *merge = MergeAll { ticket: merge.ticket + 1, wanted: true, ended: None };
            merge.ticket
        };
        self.bell.ring();
        let merged = self.wait_merged(ticket);
        lock(&self.merge).wanted = false;
        self.forget(|| ());
        merged
    }

    fn wait_merged(&self, ticket: u64) -> Result<()> {
        loop {
            self.check()?;
            let seen = self.bell.count();
            if !self.options.background {
                self.merge_everything(ticket);
            }
            if let Some(ended) = lock(&self.merge).ended.take() {
                return ended;
            }
            self.bell.wait(seen, PATIENCE);
        }
    }

    /// Merges everything if that is still wanted, unless compactions are at work, and tells whoever waits how it ended;
    /// whether it did.
    fn merge_everything(&self, ticket: u64) -> bool {
        let begin = |levels: &Levels, shape: &Shape, busy: &BTreeSet<u64>| {
            let mut merge = lock(&self.merge);
            if !merge.wanted || merge.ticket != ticket {
                return None;
            }
            let task = pick::everything(levels, shape, busy)?;
            merge.wanted = false;
            Some(task)
        };
        let done = self.compact_one(begin).map_err(|e| self.settle_background(e));
        let begun = !matches!(done, Ok(false));
        if !begun && !self.is_empty_and_idle() {
            return false;
        }
        let merged = matches!(done, Ok(true));
        let mut merge = lock(&self.merge);
        if merge.ticket == ticket && (begun || merge.wanted) {
            (merge.wanted, merge.ended) = (false, Some(done.map(drop)));
        }
        drop(merge);
        self.bell.ring();
        merged
    }

    /// Whether there are no tables, and no compaction that still holds on to some.
    fn is_empty_and_idle(&self) -> bool {
        lock(&self.busy).tables.is_empty() && self.view.load().version.levels.all().next().is_none()
    }

    /// What a failure in the background means for the store: a failed sync poisons it, the rest is tried again.
    fn settle_background(&self, e: Error) -> Error {
        match e {
            Error::Io { op: "sync", .. } | Error::Poisoned { .. } | Error::Corrupt { .. } => self.stop(e),
            e => e,
        }
    }

    /// Stops the store for good.
    fn stop(&self, e: Error) -> Error {
        let error = match e {
            Error::Io { op, path, source } => Error::Poisoned { path, op, source },
            e => e,
        };
        let error = self.poison.get_or_init(|| error).clone();
        self.bell.ring();
        error
    }

    fn note_poison(&self, e: Error) -> Error {
        if matches!(e, Error::Poisoned { .. }) { self.stop(e) } else { e }
    }

    fn note(&self, e: Error) {
        *lock(&self.background_error) = Some(e);
        self.bell.ring();
    }

    pub(super) fn background_error(&self) -> Option<String> {
        let last = lock(&self.background_error).as_ref().map(ToString::to_string);
        last.or_else(|| self.poison.get().map(ToString::to_string))
    }

    /// Tells the workers to end, in the middle of a compaction too.
    pub(super) fn stop_work(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// A clean end: everything on the device, and a mark that says so. No worker may be left: whoever takes the lock
    /// next gives away the same file numbers.
    pub(super) fn close(&self) -> Result<()> {
        let outcome = self.finish();
        self.forget(|| ());
        self.poison.get_or_init(|| Error::Closed { path: self.dir.clone() });
        drop(lock(&self.lock).take());
        outcome
    }

    fn finish(&self) -> Result<()> {
        self.check()?;
        let memory = self.caught_up()?;
        self.settled(&memory)?;
        if memory.log.stats().records > 0 || self.older_count.load(Ordering::Acquire) > 0 {
            self.sync_through(&memory, memory.log.written_through())?;
        }
        memory.log.close_marked()?;
        memory.log.trim()?;
        if let Some(spare) = lock(&self.spare).take() {
            remove_leftover(&*self.options.fs, &self.dir.join(wal::file_name(spare.number)))?;
        }
        lock(&self.manifest).close()
    }
}

/// What writes meet when flushes and compactions do not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressure {
    None,
    /// They rest so long after each [`stride`].
    Slow(Duration),
    /// They wait for a flush or a compaction.
    Stall,
}

impl Pressure {
    /// With so many tables in level 0, so many memtables, and so many bytes in the one that is written. The last memtable
    /// that there may be is filled ever more slowly from its middle on, so that writes are held up little by little.
    fn of(options: &Options, level0: usize, memtables: usize, bytes: usize) -> Self {
        let is_last = memtables >= options.memtables;
        if level0 >= options.level0_stall || (is_last && bytes >= options.memtable_size) {
            return Pressure::Stall;
        }
        let eighths = if is_last { bytes.saturating_mul(8) / options.memtable_size } else { 0 };
        let rest = slowing(level0, options.level0_slow).max(doubled((eighths + 1).saturating_sub(4)));
        if rest.is_zero() { Pressure::None } else { Pressure::Slow(rest) }
    }
}

/// Bytes of writes after which slowed ones rest: a memtable takes some rests.
pub(super) fn stride(options: &Options) -> usize {
    STRIDE.min(options.memtable_size / 16)
}

/// How long writes rest after each [`stride`] while level 0 has so many tables, if so many of them slow writes down.
pub(super) fn slowing(level0: usize, slow: usize) -> Duration {
    doubled((level0 + 1).saturating_sub(slow))
}

/// The rest at this step: none at 0, then [`SLOW`], then twice that, and so on.
fn doubled(step: usize) -> Duration {
    step.checked_sub(1).map_or(Duration::ZERO, |times| SLOW * (1 << (times as u32).min(DOUBLINGS)))
}

/// How many threads compact. Half of the processors at most: the other half is for flushes and for those who read and write,
/// and an allocator keeps memory for each thread that ever compacted.
pub(super) fn compactors(options: &Options) -> usize {
    options.compactors.min((background::processors() / 2).max(1))
}

/// Threads that do what is due: one flushes and one syncs the log on time, one flushes memtables, and the others compact,
/// behind everybody else: whoever reads and writes on all processors must not wait for a compaction's slice of time.
pub(super) fn start_workers(core: &Arc<Core>) -> Workers {
    type Timed = fn(&Core, Duration) -> Result<Duration>;
    let timed: [(Timed, Duration); 2] =
        [(Core::flush_due, core.options.flush_interval), (Core::sync_due, Duration::from_millis(100))];
    let mut workers = Workers::new();
    for (task, patience) in timed {
        let core = Arc::downgrade(core);
        workers.start(move |now| {
            let core = core.upgrade()?;
            Some(task(&core, now).unwrap_or_else(|e| {
                core.note(e);
                now + patience
            }))
        });
    }
    workers.start(whenever_due(core, Core::flush_step, |_, _| ()));
    for _ in 0..compactors(&core.options) {
        let note = |core: &Core, spent: Duration| {
            core.counts.compacting.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed);
        };
        workers.start_behind(whenever_due(core, Core::compact_step, note));
    }
    workers
}

/// A worker that makes one step after the other while any is due, until the store stops, and has noted how long each took.
fn whenever_due(
    core: &Arc<Core>,
    step: fn(&Core) -> Result<bool>,
    note: fn(&Core, Duration),
) -> impl FnMut(Duration) -> Option<Duration> + Send + 'static {
    let (core, bell) = (Arc::downgrade(core), core.bell.clone());
    let mut began = None;
    move |now| {
        let strong = core.upgrade()?;
        if let Some(began) = began.take() {
            note(&strong, now.saturating_sub(began));
        }
        if strong.stopping.load(Ordering::Acquire) || strong.poison.get().is_some() {
            return None;
        }
        let seen = strong.bell.count();
        match step(&strong) {
            Ok(true) => began = Some(now),
            Ok(false) => {
                drop(strong);
                bell.wait(seen, PATIENCE);
            }
            Err(_) if strong.stopping.load(Ordering::Acquire) => return None,
            Err(e) => {
                strong.note(e);
                drop(strong);
                background::pause(PATIENCE);
            }
        }
        Some(now)
    }
}

/// Makes an empty store: a first segment, then the manifest, whose name says that the store exists.
fn create(fs: &dyn Fs, dir: &Path, names: &Names, memtable_size: usize) -> Result<()> {
    let only_first = names.logs.iter().all(|n| *n == 1) && names.tables.is_empty() && names.values.is_empty();
    if !only_first {
        return Err(missing(dir, "manifest"));
    }
    wal::begin(fs, dir, 1, 1, None, memtable_size)?;
    let parent = crate::fs::parent(dir);
    fs.sync_dir(parent).map_err(|e| Error::io("sync", parent, e))?;
    Manifest::create(fs, dir, Levels { log: 1, ..Levels::new() })
}

/// The versions in these tables, in their order, from the first on.
fn versions_of<'a>(tables: &[&Arc<sstable::Table>]) -> Result<Merge<'a>> {
    let cursor = |table: &&Arc<sstable::Table>| Box::new(TableCursor::new(Arc::clone(table), false)) as Box<dyn Cursor + Send>;
    let mut versions = Merge::new(tables.iter().map(cursor).collect(), Direction::Forward);
    versions.place(|cursor| cursor.first())?;
    Ok(versions)
}

fn edit_refused(dir: &Path, why: String) -> Error {
    Error::corrupt(&manifest::path(dir), 0, why)
}

fn bytes_of(written: &Written) -> u64 {
    written.tables.iter().map(|t| t.size).chain(written.values.iter().map(|(_, size)| *size)).sum()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{File, FsLayer, MemFs};
    use std::fmt;
    use std::io;

    type Act = Box<dyn FnOnce() + Send>;

    /// Does something once, when the next table is created.
    #[derive(Clone, Default)]
    struct Between {
        below: MemFs,
        act: Arc<Mutex<Option<Act>>>,
    }

    impl fmt::Debug for Between {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Between")
        }
    }

    impl FsLayer for Between {
        fn below(&self) -> &dyn Fs {
            &self.below
        }

        fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            let act = path.extension().is_some_and(|e| e == "sst").then(|| lock(&self.act).take()).flatten();
            act.into_iter().for_each(|act| act());
            self.below.create(path)
        }
    }

    fn put(core: &Core, key: &[u8]) {
        let mut changes = Changes::with_capacity(64);
        changes.put(key, b"value", None);
        core.write(&mut changes, Durability::Write, &mut || Ok(())).unwrap();
    }

    /// Two tables below level 0 with a gap between them, and room for level 0 to be due with one.
    fn with_a_gap(fs: &Between) -> Arc<Core> {
        let options = Options {
            sync: SyncPolicy::Never,
            level0_tables: 1,
            background: false,
            fs: Arc::new(fs.clone()),
            ..Options::default()
        };
        let core = Core::open(Path::new("/db"), options).unwrap();
        for key in [b"a", b"z"] {
            put(&core, key);
            core.flush().unwrap();
            assert!(core.compact_one(pick::pick).unwrap());
        }
        assert_eq!(core.view().version.levels.all().count(), 2);
        core
    }

    /// What comes of everything may lie anywhere: a table that moved into a gap meanwhile was in its way, and the store stopped
    /// for an edit that did not fit.
    #[test]
    fn nothing_is_compacted_beside_everything() {
        let fs = Between::default();
        let core = with_a_gap(&fs);
        let other = Arc::clone(&core);
        *lock(&fs.act) = Some(Box::new(move || {
            put(&other, b"m");
            other.flush().unwrap();
            assert!(!other.compact_one(pick::pick).unwrap());
        }));
        assert!(core.compact_one(pick::everything).unwrap());
        assert!(core.compact_one(pick::pick).unwrap(), "and is afterwards");
        core.check().unwrap();
    }

    /// Badger's `TestVlogGCRaceDeletedKeyReappears`, again and again.
    #[test]
    fn a_key_that_is_deleted_while_its_value_moves_stays_away() {
        let fs = Between::default();
        let options = || Options {
            sync: SyncPolicy::Never,
            value_threshold: 100,
            collect_ratio: 0.3,
            background: false,
            fs: Arc::new(fs.clone()),
            ..Options::default()
        };
        let core = Core::open(Path::new("/db"), options()).unwrap();
        let change = |core: &Core, key: u8, value: Option<u8>| {
            let mut changes = Changes::default();
            match value {
                Some(value) => changes.put(&[key], &[value; 200], None),
                None => changes.delete(&[key]),
            }
            core.write(&mut changes, Durability::Write, &mut || Ok(())).unwrap();
        };
        let shown = |core: &Core, key: u8| {
            let seq = core.visible.load(Ordering::Acquire);
            core.view().get(&core.dir, &[key], seq, 0, |value| value[0]).unwrap()
        };
        for round in 0..5 {
            (0..10).for_each(|key| change(&core, key, Some(round)));
            core.flush().unwrap();
            (0..5).for_each(|key| change(&core, key, None));
            core.flush().unwrap();
            // What the deleted keys point to is known to be dead once they are merged, and then the rest of the file moves.
            assert!(
                core.compact_one(|levels, shape, busy| {
                    let task = pick::everything(levels, shape, busy);
                    task.map(|task| pick::Task { collect: BTreeSet::new(), ..task })
                })
                .unwrap()
            );
            let before = core.counts.collections.load(Ordering::Relaxed);
            let other = Arc::clone(&core);
            *lock(&fs.act) = Some(Box::new(move || {
                change(&other, 7, None);
                other.flush().unwrap();
                change(&other, 8, None);
            }));
            assert!(core.compact_one(pick::pick).unwrap());
            assert_eq!(core.counts.collections.load(Ordering::Relaxed), before + 1);
            assert!(lock(&fs.act).is_none(), "keys were deleted meanwhile");
            let present = |core: &Core| (0..10).filter(|key| shown(core, *key).is_some()).collect::<Vec<_>>();
            assert_eq!(present(&core), [5, 6, 9], "round {round}");
            core.compact_all().unwrap();
            assert_eq!(present(&core), [5, 6, 9], "round {round}, merged");
            let image = MemFs::from_image(&fs.below.image());
            let again = Core::open(Path::new("/db"), Options { fs: Arc::new(image), ..options() }).unwrap();
            assert_eq!(present(&again), [5, 6, 9], "round {round}, opened again");
        }
    }

    #[test]
    fn everything_is_merged_once_for_each_who_asks() {
        let fs = Between::default();
        let core = with_a_gap(&fs);
        *lock(&core.merge) = MergeAll { ticket: 7, wanted: true, ended: None };
        let other = Arc::clone(&core);
        *lock(&fs.act) = Some(Box::new(move || assert!(!lock(&other.merge).wanted, "it is begun")));
        assert!(!core.merge_everything(6));
        assert!(core.merge_everything(7));
        assert!(!core.merge_everything(7), "another worker comes late");
        assert!(matches!(lock(&core.merge).ended, Some(Ok(()))) && lock(&fs.act).is_none());
    }

    #[test]
    fn slowed_writes_rest_for_their_bytes_not_for_their_number() {
        let options = Options {
            sync: SyncPolicy::Never,
            level0_tables: 1,
            level0_slow: 2,
            fs: Arc::new(MemFs::default()),
            ..Options::default()
        };
        let core = Core::open(Path::new("/db"), options).unwrap();
        let slowed = || core.counts.slowed.load(Ordering::Relaxed);
        let write = |bytes| {
            let mut changes = Changes::with_capacity(bytes);
            changes.put(b"key", &vec![b'v'; bytes], None);
            core.write(&mut changes, Durability::Async, &mut || Ok(())).unwrap();
        };
        for _ in 0..2 {
            write(3 * STRIDE);
            core.flush().unwrap();
        }
        assert_eq!(slowed(), 0);
        let before = core.counts.written.load(Ordering::Relaxed);
        while core.counts.written.load(Ordering::Relaxed) - before < STRIDE as u64 {
            assert_eq!(slowed(), 0, "what was written before is not held against anybody");
            write(100);
        }
        write(100);
        assert_eq!(slowed(), 1);
        write(3 * STRIDE);
        assert_eq!(slowed(), 1);
        write(100);
        assert_eq!(slowed(), 4);
        write(100 * STRIDE);
        write(100);
        assert_eq!(slowed(), 4 + RESTS as u64, "nor is more than some of what was");
    }

    #[test]
    fn writes_slow_before_they_stall() {
        let options = Options { memtable_size: 1000, memtables: 3, level0_slow: 5, level0_stall: 8, ..Options::default() };
        let of = |level0, memtables, bytes| Pressure::of(&options, level0, memtables, bytes);
        let slow = |times| Pressure::Slow(SLOW * times);
        assert_eq!([of(4, 2, 1000), of(4, 3, 499)], [Pressure::None; 2]);
        assert_eq!([of(5, 1, 0), of(6, 1, 0), of(7, 1, 0)], [slow(1), slow(2), slow(4)]);
        assert_eq!([of(0, 3, 500), of(0, 3, 625), of(0, 3, 750), of(0, 3, 999)], [slow(1), slow(2), slow(4), slow(8)]);
        assert_eq!([of(7, 3, 500), of(5, 3, 999)], [slow(4), slow(8)], "whatever is tighter");
        assert_eq!([of(8, 1, 0), of(0, 3, 1000)], [Pressure::Stall; 2]);
        assert_eq!(slowing(1000, 5), SLOW * 32, "and no longer");
    }
}
