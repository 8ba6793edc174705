//! A key-value store of pages that are never overwritten while they count: copy on write, in one file.
//!
//! | page | holds |
//! |---|---|
//! | 0, 1, 2 | slots for roots; the newest whole one counts |
//! | from 3 | entries, in runs of pages; a run holds one bucket of the keys |
//!
//! A commit writes the changed buckets into free pages, syncs, writes a root that names them into a slot
//! that counts for nothing, and syncs again. Two slots would do for that; the third keeps the last durable root
//! when commits are not synced, so that power loss takes them and nothing else.
//!
//! **Invariant:** neither the newest root nor the newest durable one, nor any page they name, is overwritten.

use super::super::{Change, Contents, Session, Site, SubjectError};
use super::bytes::{broken, damage, full_or_broken, is_full, push_change, read_u64, read_whole, replay};
use engine::background::Workers;
use engine::codec::{crc32c, read_u32};
use engine::fs::{File, write_all_at};
use engine::{Durability, SyncPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Leaves out the sync between the pages and the root.
    OneSync,
    /// Sets the file's length after that sync, and lets the root count on it.
    SizeTrusted,
    /// Takes pages for free that the root in force still names.
    FreedPageReused,
}

/// As large as the sector that a device writes whole.
const PAGE: usize = 512;
const SLOTS: usize = 3;
const BUCKETS: usize = 16;
/// The file grows by so many pages at once.
const GROWTH: usize = 16;
/// Buffered changes are committed this often.
const FLUSH: Duration = Duration::from_secs(1);
const MAGIC: u32 = u32::from_le_bytes(*b"CPAG");
/// Magic, checksum, generation, pages, whether the pages were synced before it.
const HEADER: usize = 24;

/// Where the entries of one bucket are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Extent {
    start: u32,
    /// In bytes; zero for an empty bucket, which has no pages.
    len: u32,
    sum: u32,
}

impl Extent {
    fn pages(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + (self.len as usize).div_ceil(PAGE)
    }

    /// Its bytes in the file, if they are there and are what was written.
    fn bytes<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let bytes = file.get(self.start as usize * PAGE..)?.get(..self.len as usize)?;
        (crc32c(bytes) == self.sum).then_some(bytes)
    }
}

#[derive(Clone, Debug, Default)]
struct Root {
    generation: u64,
    /// Pages that it counts on.
    pages: usize,
    /// Whether everything that it names was synced before it was written.
    is_ordered: bool,
    buckets: [Extent; BUCKETS],
}

impl Root {
    fn block(&self) -> Vec<u8> {
        let mut block = MAGIC.to_le_bytes().to_vec();
        block.extend_from_slice(&[0; 4]);
        block.extend_from_slice(&self.generation.to_le_bytes());
        block.extend_from_slice(&(self.pages as u32).to_le_bytes());
        block.extend_from_slice(&u32::from(self.is_ordered).to_le_bytes());
        for Extent { start, len, sum } in self.buckets {
            [start, len, sum].iter().for_each(|n| block.extend_from_slice(&n.to_le_bytes()));
        }
        block.resize(PAGE, 0);
        let sum = crc32c(&block[8..]);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn parse(file: &[u8], slot: usize) -> Option<Self> {
        let block = file.get(slot * PAGE..(slot + 1) * PAGE)?;
        if read_u32(block, 0)? != MAGIC || read_u32(block, 4)? != crc32c(&block[8..]) {
            return None;
        }
        let mut buckets = [Extent::default(); BUCKETS];
        for (n, bucket) in buckets.iter_mut().enumerate() {
            let at = HEADER + 12 * n;
            *bucket = Extent { start: read_u32(block, at)?, len: read_u32(block, at + 4)?, sum: read_u32(block, at + 8)? };
        }
        let pages = read_u32(block, 16)? as usize;
        if buckets.iter().any(|bucket| bucket.pages().end > pages) {
            return None;
        }
        Some(Self { generation: read_u64(block, 8)?, pages, is_ordered: read_u32(block, 20)? == 1, buckets })
    }

    /// Everything it names; `None` if some of it is not what was written.
    fn contents(&self, file: &[u8], tables: usize) -> Option<Contents> {
        let mut maps = vec![BTreeMap::new(); tables];
        if file.len() < self.pages.checked_mul(PAGE)? {
            return None;
        }
        for extent in &self.buckets {
            replay(extent.bytes(file)?, &mut |table, key, value| {
                maps.get_mut(table)?.insert(key, value?);
                Some(())
            })?;
        }
        Some(maps)
    }
}

fn bucket_of(table: usize, key: &str) -> usize {
    (crc32c(key.as_bytes()) as usize).wrapping_add(table) % BUCKETS
}

struct PageSession {
    core: Arc<Core>,
    workers: Option<Workers>,
}

struct Core {
    file: Arc<dyn File>,
    bug: Option<Bug>,
    policy: SyncPolicy,
    repaired: Option<String>,
    state: Mutex<State>,
}

struct State {
    maps: Contents,
    /// Buckets with changes that no root has.
    dirty: BTreeSet<usize>,
    newest: Root,
    durable: Root,
    newest_slot: usize,
    durable_slot: usize,
    /// A second slot has a root that names the same.
    has_twin: bool,
    /// The generation in each slot; zero if there is none.
    slots: [u64; SLOTS],
    /// The highest generation ever tried.
    generation: u64,
    poisoned: Option<String>,
    flush_due: Duration,
    sync_due: Duration,
}

/// Opens or creates the store.
pub(super) fn open(site: &Site<'_>, bug: Option<Bug>) -> Result<Box<dyn Session>, SubjectError> {
    let path = site.dir.join("pages.db");
    let file = match site.fs.open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            site.fs.create_dir_all(site.dir).map_err(|e| broken("create the directory", &e))?;
            site.fs.create(&path).map_err(|e| full_or_broken("create the file", &e))?
        }
        other => other.map_err(|e| broken("open the file", &e))?,
    };
    let bytes = read_whole(&*file).map_err(|e| broken("read the file", &e))?;
    let (state, repaired) = load(&bytes, site.tables.len())?;
    let core = Arc::new(Core { file, bug, policy: site.sync, repaired, state: Mutex::new(state) });
    core.settle(bytes.len())?;
    site.fs.sync_dir(site.dir).map_err(|e| broken("sync the directory", &e))?;
    let mut workers = None;
    if site.background {
        let core = Arc::clone(&core);
        workers.insert(Workers::new()).start(move |now| match core.maintain(now) {
            // A full disk may have room again; any other error has stopped the store for good.
            Err(SubjectError::Full(_)) => Some(now + FLUSH),
            next => next.ok(),
        });
    }
    Ok(Box::new(PageSession { core, workers }))
}

/// Chooses the root that counts. A root that is not whole was being written when the store died; one whose
/// pages are not whole was never made durable, unless it says that they were synced before it.
fn load(file: &[u8], tables: usize) -> Result<(State, Option<String>), SubjectError> {
    let mut roots: Vec<(usize, Root)> = (0..SLOTS).filter_map(|slot| Some((slot, Root::parse(file, slot)?))).collect();
    roots.sort_by_key(|(_, root)| std::cmp::Reverse(root.generation));
    if roots.is_empty() && file.len() > SLOTS * PAGE {
        return Err(damage("no root of pages.db is whole"));
    }
    let mut slots = [0; SLOTS];
    roots.iter().for_each(|(slot, root)| slots[*slot] = root.generation);
    let generation = roots.first().map_or(0, |(_, root)| root.generation);
    let fits = |root: &Root| root.is_ordered && root.pages <= file.len() / PAGE;
    let durable = roots.iter().find(|(_, root)| fits(root)).cloned();
    let has_twin = matches!(&roots[..], [(_, a), (_, b), ..] if a.is_ordered && b.is_ordered && a.buckets == b.buckets);
    // Without a root the store was being created: it starts from the root of nothing.
    let mut chosen = (0, Root { pages: SLOTS, ..Root::default() }, vec![BTreeMap::new(); tables]);
    let mut passed = Vec::new();
    for (slot, root) in roots {
        match root.contents(file, tables) {
            Some(maps) => {
                chosen = (slot, root, maps);
                break;
            }
            None if root.is_ordered => {
                return Err(damage(format!("a page that root {} of pages.db names is damaged", root.generation)));
            }
            None => passed.push(root.generation.to_string()),
        }
    }
    let is_torn = |slot: &usize| {
        let block = file.get(slot * PAGE..(slot + 1) * PAGE).unwrap_or_default();
        Root::parse(file, *slot).is_none() && block.iter().any(|b| *b != 0)
    };
    passed.extend((0..SLOTS).filter(is_torn).map(|slot| format!("a torn one in slot {slot}")));
    let (newest_slot, newest, maps) = chosen;
    let (durable_slot, durable) = durable.unwrap_or_else(|| (newest_slot, newest.clone()));
    let repaired = (!passed.is_empty()).then(|| format!("passed over roots that were never synced whole: {}", passed.join(", ")));
    let state = State {
        maps,
        dirty: BTreeSet::new(),
        newest,
        durable,
        newest_slot,
        durable_slot,
        has_twin,
        slots,
        generation,
        poisoned: None,
        flush_due: FLUSH,
        sync_due: Duration::ZERO,
    };
    Ok((state, repaired))
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Makes durable what opening shows. Written again, not just synced: after a sync that failed in an
    /// earlier life the bytes may be in the kernel, marked clean, and never have reached the device.
    fn settle(&self, len: usize) -> Result<(), SubjectError> {
        let state = &mut *self.state();
        if let SyncPolicy::Interval(every) = self.policy {
            state.sync_due = every;
        }
        let root = state.newest.clone();
        if root.generation == 0 {
            // All slots take their room now, so that a commit never has to find it.
            let empty = vec![0; SLOTS * PAGE];
            write_all_at(&*self.file, &empty, 0).map_err(|e| full_or_broken("create the file", &e))?;
        } else if len > root.pages * PAGE {
            self.set_len(root.pages)?;
        }
        if root.generation == state.generation && root.is_ordered {
            let at = (state.newest_slot * PAGE) as u64;
            write_all_at(&*self.file, &root.block(), at).map_err(|e| full_or_broken("write the root again", &e))?;
            self.sync_file()?;
            (state.durable, state.durable_slot) = (root, state.newest_slot);
            return Ok(());
        }
        state.dirty.extend(0..BUCKETS);
        self.commit(state, true)
    }

    fn set_len(&self, pages: usize) -> Result<(), SubjectError> {
        self.file.set_len((pages * PAGE) as u64).map_err(|e| full_or_broken("change the length of the file", &e))
    }

    fn sync_file(&self) -> Result<(), SubjectError> {
        self.file.sync_data().map_err(|e| broken("sync the file", &e))
    }

    /// Writes what has changed, and a root for it. `Full` leaves the last root in force.
    fn commit(&self, state: &mut State, is_synced: bool) -> Result<(), SubjectError> {
        if state.dirty.is_empty() && (!is_synced || state.durable.generation == state.newest.generation) {
            return Ok(());
        }
        let generation = state.generation.saturating_add(1);
        let mut root = Root { generation, is_ordered: is_synced, ..state.newest.clone() };
        let mut used = vec![false; root.pages];
        used[..SLOTS].fill(true);
        for (n, extent) in state.newest.buckets.iter().enumerate() {
            if !(self.has(Bug::FreedPageReused) && state.dirty.contains(&n)) {
                used[extent.pages()].fill(true);
            }
        }
        if !self.has(Bug::FreedPageReused) {
            for extent in &state.durable.buckets {
                let pages = extent.pages();
                used.resize(used.len().max(pages.end), false);
                used[pages].fill(true);
            }
        }
        let mut writes = Vec::new();
        for &bucket in &state.dirty {
            let bytes = bucket_bytes(&state.maps, bucket);
            if bytes.is_empty() {
                root.buckets[bucket] = Extent::default();
                continue;
            }
            let start = free_run(&mut used, bytes.len().div_ceil(PAGE));
            root.buckets[bucket] = Extent { start: start as u32, len: bytes.len() as u32, sum: crc32c(&bytes) };
            writes.push((start, bytes));
        }
        let has_grown = used.len() > root.pages;
        if has_grown {
            root.pages = used.len().next_multiple_of(GROWTH);
            if !self.has(Bug::SizeTrusted) {
                self.grow(root.pages)?;
            }
        }
        for (start, mut bytes) in writes {
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
            let written = write_all_at(&*self.file, &bytes, (start * PAGE) as u64);
            written.map_err(|e| full_or_broken("write pages", &e))?;
        }
        if is_synced && !self.has(Bug::OneSync) {
            self.sync_file()?;
        }
        if has_grown && self.has(Bug::SizeTrusted) {
            self.grow(root.pages)?;
        }
        self.write_newest(state, root, is_synced)?;
        state.dirty.clear();
        Ok(())
    }

    /// Writes a root into a slot that counts for nothing; from then on it is the newest.
    fn write_newest(&self, state: &mut State, root: Root, is_synced: bool) -> Result<(), SubjectError> {
        state.generation = root.generation;
        // Two of three slots may be spoken for.
        let is_free = |slot: &usize| *slot != state.newest_slot && *slot != state.durable_slot;
        let slot = (0..SLOTS).filter(is_free).min_by_key(|&slot| state.slots[slot]).unwrap_or_default();
        self.write_root(slot, &root)?;
        state.slots[slot] = root.generation;
        (state.newest, state.newest_slot, state.has_twin) = (root, slot, false);
        if is_synced {
            self.sync_file()?;
            (state.durable, state.durable_slot) = (state.newest.clone(), slot);
        }
        Ok(())
    }

    fn grow(&self, pages: usize) -> Result<(), SubjectError> {
        let len = self.file.len().map_err(|e| broken("measure the file", &e))?;
        if len < (pages * PAGE) as u64 { self.set_len(pages) } else { Ok(()) }
    }

    /// A root that was written in part is wiped out: it could turn out whole and name pages that a later commit
    /// takes.
    fn write_root(&self, slot: usize, root: &Root) -> Result<(), SubjectError> {
        let (block, at) = (root.block(), (slot * PAGE) as u64);
        let written = self.file.write_at(&block, at).map_err(|e| full_or_broken("write a root", &e))?;
        let Err(e) = write_all_at(&*self.file, &block[written..], at + written as u64) else { return Ok(()) };
        if is_full(&e) {
            write_all_at(&*self.file, &[0; PAGE], at).map_err(|e| broken("wipe out half a root", &e))?;
            self.sync_file()?;
        }
        Err(full_or_broken("write a root", &e))
    }

    /// Takes a step that changes the file. Whatever fails, a full disk aside, stops the store.
    fn step<R>(&self, state: &mut State, step: impl FnOnce(&mut State) -> Result<R, SubjectError>) -> Result<R, SubjectError> {
        if let Some(why) = &state.poisoned {
            return Err(SubjectError::Store(format!("stopped after an error ({why}); reopen it to see what survived")));
        }
        let result = step(state);
        if let Err(e @ SubjectError::Store(_)) = &result {
            state.poisoned = Some(e.to_string());
        }
        result
    }

    fn change(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let level = self.policy.raise(level);
        let mut state = self.state();
        self.step(&mut state, |state| {
            let before = state.dirty.clone();
            let mut undo = Vec::new();
            for change in changes {
                let Some(map) = state.maps.get_mut(change.table) else { continue };
                let old = match change.value {
                    Some(value) => map.insert(change.key.to_owned(), value.to_owned()),
                    None => map.remove(change.key),
                };
                undo.push((change.table, change.key, old));
                state.dirty.insert(bucket_of(change.table, change.key));
            }
            if level == Durability::Async {
                return Ok(());
            }
            self.commit(state, level == Durability::Sync).inspect_err(|e| {
                // After any other error the store is read as the call left it, until it is opened again.
                if matches!(e, SubjectError::Full(_)) {
                    state.dirty = before;
                    for (table, key, old) in undo.into_iter().rev() {
                        match old {
                            Some(old) => drop(state.maps[table].insert(key.to_owned(), old)),
                            None => drop(state.maps[table].remove(key)),
                        }
                    }
                }
            })
        })
    }

    fn maintain(&self, now: Duration) -> Result<Duration, SubjectError> {
        let mut state = self.state();
        let mut next = Duration::MAX;
        if let SyncPolicy::Interval(every) = self.policy {
            if now >= state.sync_due {
                state.sync_due = now + every;
                self.step(&mut state, |state| self.commit(state, true))?;
            }
            next = state.sync_due;
        }
        if now >= state.flush_due {
            state.flush_due = now + FLUSH;
            self.step(&mut state, |state| self.commit(state, self.policy == SyncPolicy::Always))?;
        }
        Ok(next.min(state.flush_due))
    }

    fn close(&self) -> Result<(), SubjectError> {
        let mut state = self.state();
        let is_synced = matches!(self.policy, SyncPolicy::Always | SyncPolicy::Interval(_));
        self.step(&mut state, |state| {
            self.commit(state, is_synced)?;
            if !is_synced || state.has_twin {
                return Ok(());
            }
            // The same root once more: without a twin, rot in the newest would look like a root that was being written.
            match self.write_newest(state, Root { generation: state.generation.saturating_add(1), ..state.newest.clone() }, true)
            {
                Err(SubjectError::Full(_)) => Ok(()),
                other => other.map(|()| state.has_twin = true),
            }
        })
    }
}

/// The entries of a bucket as it is stored.
fn bucket_bytes(maps: &Contents, bucket: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (table, map) in maps.iter().enumerate() {
        for (key, value) in map.iter().filter(|(key, _)| bucket_of(table, key) == bucket) {
            push_change(&mut bytes, table, key, Some(value));
        }
    }
    bytes
}

/// Takes the first `need` free pages in a row, at the end if there are none.
fn free_run(used: &mut Vec<bool>, need: usize) -> usize {
    let mut start = 0;
    for (at, is_used) in used.iter().enumerate() {
        if *is_used {
            start = at + 1;
        } else if at + 1 - start == need {
            break;
        }
    }
    used.resize(used.len().max(start + need), false);
    used[start..start + need].fill(true);
    start
}

impl Session for PageSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        self.core.change(&[change], level)
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        self.core.change(changes, level)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        let state = self.core.state();
        Ok(state.maps.get(table).and_then(|map| map.get(key)).map(|value| look(value)).is_some())
    }

    fn sync(&self) -> Result<(), SubjectError> {
        let mut state = self.core.state();
        self.core.step(&mut state, |state| self.core.commit(state, true))
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(self.core.state().maps.clone())
    }

    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        self.core.maintain(now).map(Some)
    }

    fn repaired(&self) -> Option<String> {
        self.core.repaired.clone()
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        let Self { core, workers } = *self;
        drop(workers);
        core.close()
    }
}
