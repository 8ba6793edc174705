//! A key-value store that is a log: segments of checksummed records, a snapshot of what older segments
//! said, and a manifest that names what counts.
//!
//! | file | holds |
//! |---|---|
//! | `wal-0001.log`, … | a header that names the segment before it, then records; only the last one is appended to |
//! | `snapshot-0002` | all entries as they were when the first live segment began |
//! | `manifest` | the snapshots and the first live segment that count, and the next file number |
//!
//! A record carries a mark: how far its segment was synced when it was written. Damage that no later mark
//! covers, at the end of the last segment, is a torn tail and is cut. All other damage is an error.
//!
//! **Invariant:** a segment begins only when the one before it is synced; so only the last can be torn.
//! **Invariant:** nothing is removed before the manifest that no longer names it is durable.

use super::super::{Change, Contents, Session, Site, SubjectError};
use super::bytes::{broken, damage, full_or_broken, is_full, push_change, read_u64, read_whole, replay};
use engine::background::Workers;
use engine::codec::{crc32c, crc32c_append, read_u32};
use engine::fs::{File, Fs, write_all_at};
use engine::{Durability, SyncPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Acknowledges when a change is in the kernel; syncs only when asked to by name.
    AckBeforeSync,
    /// Syncs no file at all.
    FlushInsteadOfSync,
    /// Group commit with a comparison that is off by one.
    FollowerAckedEarly,
    /// Writes nothing before `close`.
    CommitOnClose,
    /// Does not sync the directory after creating a segment.
    NoDirSyncAfterCreate,
    /// Does not sync the directory after renaming the manifest.
    NoDirSyncAfterRename,
    /// Renames files that were not synced.
    RenameWithoutSync,
    /// Overwrites the manifest.
    ManifestInPlace,
    /// Removes old segments as the first step of a compaction.
    WalRemovedBeforeManifest,
    /// Ignores the checksums of records.
    UncheckedRecord,
    /// Ignores the checksums of snapshots.
    UncheckedSnapshot,
    /// Writes a batch as one record a change.
    BatchWithoutEnd,
    /// Writes a batch that does not fit as two records, one in each of two segments.
    BatchSplitOverSegments,
    /// Cuts wherever it finds damage.
    RotAsTornTail,
    /// Takes a segment that cannot be read for one that ends.
    ReadErrorAsEnd,
    /// Ignores failed syncs.
    SyncErrorIgnored,
    /// Tries a failed sync once more.
    SyncErrorRetried,
    /// Does not cut what a failed write left.
    PartialRecordLeft,
    /// Takes the next file number from the manifest, which is only written by a compaction.
    FileNumberReused,
    /// Compacts into a further snapshot on top of the older ones, without deletes.
    TombstoneDropped,
    /// Does not sync the cut of a torn tail.
    TruncateNotSynced,
    /// Syncs nothing while it opens.
    RecoveryNotSynced,
}

/// A segment of this size is full. Small, so that a crash test of a few dozen calls sees several.
const SEGMENT: u64 = 1 << 10;
/// So many live segments are compacted, unless they are small beside the snapshot.
const LIVE: usize = 4;
/// Buffered changes are written out this often.
const FLUSH: Duration = Duration::from_secs(1);

const MANIFEST: &str = "manifest";
/// Magic, number of the segment, number of the one before it, checksum.
const HEADER: usize = 24;
/// Magic, length of the payload, mark, checksum.
const FRAME: usize = 16;
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"CSEG");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"CREC");
const SNAPSHOT_MAGIC: u32 = u32::from_le_bytes(*b"CSNP");
const MANIFEST_MAGIC: u32 = u32::from_le_bytes(*b"CMAN");

fn segment_name(number: u64) -> String {
    format!("wal-{number:04}.log")
}

fn snapshot_name(number: u64) -> String {
    format!("snapshot-{number:04}")
}

/// Opens or creates the store.
pub(super) fn open(site: &Site<'_>, bug: Option<Bug>) -> Result<Box<dyn Session>, SubjectError> {
    let place = Place { fs: Arc::clone(&site.fs), dir: site.dir.to_owned(), bug };
    let mut repaired = None;
    let mut state = place.load(site.tables.len(), &mut repaired)?;
    state.sync_due = match site.sync {
        SyncPolicy::Interval(every) => every,
        _ => Duration::MAX,
    };
    let core = Arc::new(Core { place, policy: site.sync, repaired, state: Mutex::new(state), synced: Condvar::new() });
    let mut workers = None;
    if site.background {
        let core = Arc::clone(&core);
        workers.insert(Workers::new()).start(move |now| match core.maintain(now) {
            // A full disk may have room again; any other error has stopped the store for good.
            Err(SubjectError::Full(_)) => Some(now + FLUSH),
            next => next.ok(),
        });
    }
    Ok(Box::new(LogSession { core, workers }))
}

struct LogSession {
    core: Arc<Core>,
    workers: Option<Workers>,
}

struct Core {
    place: Place,
    policy: SyncPolicy,
    repaired: Option<String>,
    state: Mutex<State>,
    /// Somebody's sync ended.
    synced: Condvar,
}

/// Where the files are. It holds no state, so that creating, recovering and running share their steps.
struct Place {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    bug: Option<Bug>,
}

struct State {
    memory: Memory,
    /// Payloads that are in memory only, oldest first.
    pending: Vec<Vec<u8>>,
    /// The segment that is appended to.
    file: Arc<dyn File>,
    number: u64,
    /// Where its whole records end.
    end: u64,
    /// Where its last record with changes ends; zero if it has none.
    data_end: u64,
    /// How far it is synced.
    mark: u64,
    /// The highest mark that stands in one of its records.
    covered: u64,
    /// The live segments, oldest first.
    live: Vec<u64>,
    snapshots: Vec<u64>,
    /// The next file number; segments and snapshots share the count.
    next: u64,
    /// Bytes in live segments, and in the last snapshot.
    logged: u64,
    snapshot_len: u64,
    /// Records written since opening, and how many of them are synced.
    written: u64,
    synced: u64,
    /// A leader is in a sync.
    syncing: bool,
    poisoned: Option<String>,
    flush_due: Duration,
    sync_due: Duration,
}

/// What readers see.
struct Memory {
    maps: Contents,
    /// Keys changed in live segments. Only the bug that compacts them alone wants to know.
    touched: Option<BTreeSet<(usize, String)>>,
}

impl Memory {
    fn change(&mut self, table: usize, key: String, value: Option<String>) -> Option<()> {
        let map = self.maps.get_mut(table)?;
        if let Some(touched) = &mut self.touched {
            touched.insert((table, key.clone()));
        }
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
        Some(())
    }
}

/// Which files count.
struct Manifest {
    snapshots: Vec<u64>,
    first: u64,
    next: u64,
}

impl Manifest {
    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.first, self.next].into_iter().chain(self.snapshots.iter().copied());
        sealed(MANIFEST_MAGIC, &numbers.flat_map(u64::to_le_bytes).collect::<Vec<_>>())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let body = unsealed(MANIFEST_MAGIC, bytes, true)?;
        let numbers: Vec<u64> = (0..body.len() / 8).filter_map(|n| read_u64(body, 8 * n)).collect();
        match &numbers[..] {
            [first, next, snapshots @ ..] => Some(Self { snapshots: snapshots.to_vec(), first: *first, next: *next }),
            _ => None,
        }
    }
}

/// A file of one piece: magic, checksum, body.
fn sealed(magic: u32, body: &[u8]) -> Vec<u8> {
    [&magic.to_le_bytes()[..], &crc32c(body).to_le_bytes(), body].concat()
}

fn unsealed(magic: u32, bytes: &[u8], is_checked: bool) -> Option<&[u8]> {
    let body = bytes.get(8..)?;
    let is_whole = read_u32(bytes, 0)? == magic && (!is_checked || read_u32(bytes, 4)? == crc32c(body));
    is_whole.then_some(body)
}

fn segment_header(number: u64, before: u64) -> Vec<u8> {
    let mut header = SEGMENT_MAGIC.to_le_bytes().to_vec();
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&before.to_le_bytes());
    let sum = crc32c(&header);
    header.extend_from_slice(&sum.to_le_bytes());
    header
}

/// The number of the segment is part of the checksum: what another segment left is no record of this one.
fn record_sum(number: u64, len_and_mark: &[u8], payload: &[u8]) -> u32 {
    crc32c_append(crc32c_append(crc32c(&number.to_le_bytes()), len_and_mark), payload)
}

fn push_record(out: &mut Vec<u8>, number: u64, mark: u64, payload: &[u8]) {
    let at = out.len();
    out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&(mark as u32).to_le_bytes());
    let sum = record_sum(number, &out[at + 4..], payload);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(payload);
}

/// The record at the start of `bytes`: its mark and payload.
fn read_record(bytes: &[u8], number: u64, is_checked: bool) -> Option<(u64, &[u8])> {
    if read_u32(bytes, 0)? != RECORD_MAGIC {
        return None;
    }
    let payload = bytes.get(FRAME..)?.get(..read_u32(bytes, 4)? as usize)?;
    if is_checked && read_u32(bytes, 12)? != record_sum(number, &bytes[4..12], payload) {
        return None;
    }
    Some((u64::from(read_u32(bytes, 8)?), payload))
}

/// The highest mark of any record that begins at or behind `from`; `None` if there is no record.
fn mark_behind(bytes: &[u8], from: usize, number: u64) -> Option<u64> {
    let magic = RECORD_MAGIC.to_le_bytes();
    let tail = bytes.get(from..)?;
    let starts = tail.windows(magic.len()).enumerate().filter(|(_, window)| *window == magic);
    starts.filter_map(|(at, _)| read_record(&tail[at..], number, true).map(|(mark, _)| mark)).max()
}

fn payload(changes: &[Change<'_>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for change in changes {
        push_change(&mut payload, change.table, change.key, change.value);
    }
    payload
}

/// What a segment came to.
struct Scanned {
    /// Where its whole records end; zero if not even its header is whole.
    end: u64,
    data_end: u64,
    /// The highest mark in it.
    covered: u64,
}

impl Place {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn sync_file(&self, file: &dyn File) -> Result<(), SubjectError> {
        let synced = match self.bug {
            Some(Bug::FlushInsteadOfSync) => Ok(()),
            Some(Bug::SyncErrorIgnored) => {
                let _ = file.sync_data();
                Ok(())
            }
            Some(Bug::SyncErrorRetried) => file.sync_data().or_else(|_| file.sync_data()),
            _ => file.sync_data(),
        };
        synced.map_err(|e| broken("sync a file", &e))
    }

    fn sync_dir(&self) -> Result<(), SubjectError> {
        self.fs.sync_dir(&self.dir).map_err(|e| broken("sync the directory", &e))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fs.remove(&self.dir.join(name))
    }

    /// Removes what no durable manifest names. What stays behind is ignored and removed by a later opening.
    fn remove_all(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let _ = self.remove(&name);
        }
    }

    /// Creates a segment whose header and name are durable. `Full` leaves no trace of it.
    fn create_segment(&self, number: u64, before: u64, is_recovery: bool) -> Result<Arc<dyn File>, SubjectError> {
        let name = segment_name(number);
        let file = self.fs.create(&self.dir.join(&name)).map_err(|e| full_or_broken("create a segment", &e))?;
        if let Err(e) = write_all_at(&*file, &segment_header(number, before), 0) {
            if is_full(&e) {
                // An unfinished segment behind one that is still appended to would end the log too early.
                self.remove(&name).map_err(|e| broken("remove an unfinished segment", &e))?;
                self.sync_dir()?;
            }
            return Err(full_or_broken("begin a segment", &e));
        }
        self.sync_file(&*file)?;
        let is_forgotten = self.has(Bug::NoDirSyncAfterCreate) || (is_recovery && self.has(Bug::RecoveryNotSynced));
        if !is_forgotten {
            self.sync_dir()?;
        }
        Ok(file)
    }

    /// Puts a file of one piece in its place, durably and at once. `Full` leaves what was there.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), SubjectError> {
        let is_manifest = name == MANIFEST;
        let draft = if is_manifest && self.has(Bug::ManifestInPlace) { name.to_owned() } else { format!("{name}.tmp") };
        let written = self.fs.create(&self.dir.join(&draft)).and_then(|file| write_all_at(&*file, bytes, 0).map(|()| file));
        let file = written.map_err(|e| {
            self.remove_all([draft.clone()]);
            full_or_broken("write a snapshot or the manifest", &e)
        })?;
        if !self.has(Bug::RenameWithoutSync) {
            self.sync_file(&*file)?;
        }
        if draft != name {
            let renamed = self.fs.rename(&self.dir.join(&draft), &self.dir.join(name));
            renamed.map_err(|e| broken("rename a file into place", &e))?;
        }
        if is_manifest && self.has(Bug::NoDirSyncAfterRename) {
            return Ok(());
        }
        self.sync_dir()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, SubjectError> {
        let file = match self.fs.open(&self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damage(format!("{name} is missing"))),
            other => other.map_err(|e| broken("open a file", &e))?,
        };
        read_whole(&*file).map_err(|e| broken("read a file", &e))
    }

    fn load(&self, tables: usize, repaired: &mut Option<String>) -> Result<State, SubjectError> {
        let names = match self.fs.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.fs.create_dir_all(&self.dir).map_err(|e| broken("create the directory", &e))?;
                Vec::new()
            }
            other => other.map_err(|e| broken("list the directory", &e))?,
        };
        let names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        let numbered = |prefix: &str, suffix: &str| -> Vec<u64> {
            let number = |name: &String| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u32>().ok();
            let mut numbers: Vec<u64> = names.iter().filter_map(number).map(u64::from).collect();
            numbers.sort_unstable();
            numbers
        };
        let (segments, snapshots) = (numbered("wal-", ".log"), numbered("snapshot-", ""));
        let touched = self.has(Bug::TombstoneDropped).then(BTreeSet::new);
        let mut memory = Memory { maps: vec![BTreeMap::new(); tables], touched: None };
        if !names.iter().any(|name| name == MANIFEST) {
            memory.touched = touched;
            return self.create(memory, &segments);
        }
        let Some(manifest) = Manifest::parse(&self.read(MANIFEST)?) else {
            return Err(damage("the manifest is damaged"));
        };
        let mut snapshot_len = 0;
        for &number in &manifest.snapshots {
            let bytes = self.read(&snapshot_name(number))?;
            snapshot_len = bytes.len() as u64;
            let is_checked = !self.has(Bug::UncheckedSnapshot);
            let damaged = || damage(format!("{} is damaged", snapshot_name(number)));
            let body = unsealed(SNAPSHOT_MAGIC, &bytes, is_checked).ok_or_else(damaged)?;
            if replay(body, &mut |t, k, v| memory.change(t, k, v)).is_none() && is_checked {
                return Err(damaged());
            }
        }
        memory.touched = touched;
        let mut live: Vec<u64> = segments.iter().copied().filter(|&number| number >= manifest.first).collect();
        let mut state = self.recover(&mut live, &manifest, memory, repaired)?;
        let highest = segments.iter().chain(&snapshots).max().copied().unwrap_or_default();
        // A number is taken as soon as a file has it, whether a manifest says so or not.
        let next = manifest.next.max(highest + 1);
        state.next = if self.has(Bug::FileNumberReused) { manifest.next } else { next };
        state.snapshot_len = snapshot_len;
        if !self.has(Bug::RecoveryNotSynced) {
            // Names that a killed process left may be volatile still; nothing is built on them before they are
            // durable, and nothing that they replace is removed.
            self.sync_dir()?;
        }
        let old = segments.iter().filter(|&&number| number < manifest.first).map(|&number| segment_name(number));
        let drafts = names.iter().filter(|name| name.ends_with(".tmp")).cloned();
        let unnamed = snapshots.iter().filter(|number| !manifest.snapshots.contains(number)).map(|&number| snapshot_name(number));
        self.remove_all(old.chain(drafts).chain(unnamed));
        if repaired.is_some() && state.end > HEADER as u64 {
            // A segment that was cut once is not appended to: nothing ever stands behind the place of a tear.
            match self.roll(&mut state, true) {
                Err(SubjectError::Full(_)) => {}
                other => other?,
            }
        }
        Ok(state)
    }

    /// Begins a store. The manifest comes last: without one there is no store.
    fn create(&self, memory: Memory, segments: &[u64]) -> Result<State, SubjectError> {
        for &number in segments {
            if mark_behind(&self.read(&segment_name(number))?, 0, number).is_some() {
                return Err(damage(format!("the manifest is missing, and {} has records", segment_name(number))));
            }
        }
        let file = self.create_segment(1, 0, false)?;
        self.replace(MANIFEST, &Manifest { snapshots: Vec::new(), first: 1, next: 2 }.bytes())?;
        let scanned = Scanned { end: HEADER as u64, data_end: 0, covered: 0 };
        Ok(State::new(memory, file, vec![1], Vec::new(), &scanned))
    }

    /// Replays the live segments, repairs the end of the last one and makes durable what it shows.
    fn recover(
        &self,
        live: &mut Vec<u64>,
        manifest: &Manifest,
        mut memory: Memory,
        repaired: &mut Option<String>,
    ) -> Result<State, SubjectError> {
        if live.first() != Some(&manifest.first) {
            return Err(damage(format!("{} is missing", segment_name(manifest.first))));
        }
        let (mut before, mut logged, mut at) = (None, 0, 0);
        let (number, file, mut bytes, scanned) = loop {
            let number = live[at];
            let file = self.fs.open(&self.dir.join(segment_name(number))).map_err(|e| broken("open a segment", &e))?;
            let (bytes, is_cut) = match read_whole(&*file) {
                Err(_) if self.has(Bug::ReadErrorAsEnd) => (Vec::new(), true),
                other => (other.map_err(|e| broken("read a segment", &e))?, false),
            };
            let is_last = at + 1 == live.len();
            let forgives = is_cut || self.has(Bug::RotAsTornTail);
            let scanned = self.scan(&bytes, number, before, is_last, forgives, &mut memory)?;
            logged += scanned.end;
            if is_last || (forgives && scanned.end < bytes.len() as u64) || is_cut {
                break (number, file, bytes, scanned);
            }
            before = Some(number);
            at += 1;
        };
        // Segments behind the last one are left only by a store that forgives what it must not.
        self.remove_all(live.drain(at + 1..).map(segment_name));
        let end = scanned.end.max(HEADER as u64);
        let len = bytes.len() as u64;
        if scanned.end < len {
            let (cut, name) = (len - scanned.end, segment_name(number));
            *repaired = Some(format!("cut {cut} bytes at offset {} of {name}", scanned.end));
        }
        bytes.truncate(scanned.end as usize);
        if scanned.end == 0 {
            bytes = segment_header(number, before.unwrap_or_default());
        }
        let cut = || if end < len { file.set_len(end).map_err(|e| broken("cut a torn tail", &e)) } else { Ok(()) };
        if !self.has(Bug::TruncateNotSynced) {
            cut()?;
        }
        if !self.has(Bug::RecoveryNotSynced) {
            // Written again, not just synced: after a sync that failed in an earlier life the bytes may be in the
            // kernel, marked clean, and never have reached the device.
            let from = if scanned.end == 0 { 0 } else { scanned.covered };
            let tail = bytes.get(from as usize..).unwrap_or_default();
            write_all_at(&*file, tail, from).map_err(|e| full_or_broken("write the end of the log again", &e))?;
            self.sync_file(&*file)?;
        } else if scanned.end == 0 {
            write_all_at(&*file, &bytes, 0).map_err(|e| full_or_broken("write a header again", &e))?;
        }
        if self.has(Bug::TruncateNotSynced) {
            cut()?;
        }
        let mut state = State::new(memory, file, live.clone(), manifest.snapshots.clone(), &Scanned { end, ..scanned });
        state.logged = logged;
        Ok(state)
    }

    /// Replays the whole records of a segment. Damage is an error unless it can be a torn tail.
    fn scan(
        &self,
        bytes: &[u8],
        number: u64,
        before: Option<u64>,
        is_last: bool,
        forgives: bool,
        memory: &mut Memory,
    ) -> Result<Scanned, SubjectError> {
        let rot = |at: usize| damage(format!("{} is damaged at byte {at}", segment_name(number)));
        let named = read_u64(bytes, 12).unwrap_or_default();
        let is_whole = bytes.get(..HEADER).is_some_and(|header| header == segment_header(number, named));
        if !is_whole {
            // Records come only after a header that is synced.
            let is_torn = is_last && mark_behind(bytes, 0, number).is_none();
            let nothing = Scanned { end: 0, data_end: 0, covered: 0 };
            return if is_torn || forgives { Ok(nothing) } else { Err(rot(0)) };
        }
        if before.is_some_and(|before| before != named) {
            return Err(damage(format!("{}, named by {}, is missing", segment_name(named), segment_name(number))));
        }
        let is_checked = !self.has(Bug::UncheckedRecord);
        let (mut at, mut data_end, mut covered) = (HEADER, 0, 0);
        while at < bytes.len() {
            let Some((mark, payload)) = read_record(&bytes[at..], number, is_checked) else {
                let is_torn = is_last && mark_behind(bytes, at + 1, number).is_none_or(|mark| mark <= at as u64);
                if is_torn || forgives || !is_checked {
                    break;
                }
                return Err(rot(at));
            };
            if replay(payload, &mut |t, k, v| memory.change(t, k, v)).is_none() && is_checked {
                return Err(rot(at));
            }
            at += FRAME + payload.len();
            covered = covered.max(mark);
            if !payload.is_empty() {
                data_end = at as u64;
            }
        }
        Ok(Scanned { end: at as u64, data_end, covered: covered.min(at as u64) })
    }

    /// Begins the next segment, when the one before it is synced.
    fn roll(&self, state: &mut State, is_recovery: bool) -> Result<(), SubjectError> {
        self.write_out(state)?;
        if state.mark < state.end {
            self.sync_file(&*state.file)?;
            state.all_synced();
        }
        let number = state.next;
        state.file = self.create_segment(number, state.number, is_recovery)?;
        state.next = state.next.saturating_add(1);
        state.live.push(number);
        state.number = number;
        (state.end, state.data_end, state.mark, state.covered) = (HEADER as u64, 0, HEADER as u64, 0);
        state.logged += HEADER as u64;
        Ok(())
    }

    /// Begins a new segment if this one is full, and compacts if there are many.
    fn make_room(&self, state: &mut State) -> Result<(), SubjectError> {
        if state.end < SEGMENT {
            return Ok(());
        }
        if state.live.len() < LIVE || state.logged < state.snapshot_len {
            return self.roll(state, false);
        }
        match self.compact(state) {
            // There is room for the record, if not for the snapshot: the next full segment tries again.
            Err(SubjectError::Full(_)) if state.end < SEGMENT => Ok(()),
            other => other,
        }
    }

    /// Writes what the live segments say into a snapshot and lets go of them.
    fn compact(&self, state: &mut State) -> Result<(), SubjectError> {
        self.roll(state, false)?;
        let old: Vec<u64> = state.live.iter().copied().filter(|&number| number != state.number).collect();
        if self.has(Bug::WalRemovedBeforeManifest) {
            self.remove_all(old.iter().map(|&number| segment_name(number)));
        }
        let (number, mut body) = (state.next, Vec::new());
        state.next = state.next.saturating_add(1);
        for (table, map) in state.memory.maps.iter().enumerate() {
            for (key, value) in map {
                let touched = &state.memory.touched;
                if touched.as_ref().is_none_or(|touched| touched.contains(&(table, key.clone()))) {
                    push_change(&mut body, table, key, Some(value));
                }
            }
        }
        let bytes = sealed(SNAPSHOT_MAGIC, &body);
        self.replace(&snapshot_name(number), &bytes)?;
        let mut manifest = Manifest { snapshots: vec![number], first: state.number, next: state.next };
        if state.memory.touched.is_some() {
            manifest.snapshots.splice(0..0, state.snapshots.iter().copied());
        }
        self.replace(MANIFEST, &manifest.bytes()).inspect_err(|e| {
            if matches!(e, SubjectError::Full(_)) {
                self.remove_all([snapshot_name(number)]);
            }
        })?;
        let unnamed: Vec<u64> = state.snapshots.iter().copied().filter(|n| !manifest.snapshots.contains(n)).collect();
        self.remove_all(old.into_iter().map(segment_name).chain(unnamed.into_iter().map(snapshot_name)));
        state.live = vec![state.number];
        state.snapshots = manifest.snapshots;
        (state.logged, state.snapshot_len) = (state.end, bytes.len() as u64);
        if let Some(touched) = &mut state.memory.touched {
            touched.clear();
        }
        Ok(())
    }

    /// Writes buffered records to the segment, in one go. `Full` leaves them in the buffer and none of them in
    /// the file.
    fn write_out(&self, state: &mut State) -> Result<(), SubjectError> {
        if state.pending.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for payload in &state.pending {
            push_record(&mut bytes, state.number, state.mark, payload);
        }
        if let Err(e) = write_all_at(&*state.file, &bytes, state.end) {
            if !is_full(&e) {
                return Err(broken("write to the log", &e));
            }
            if self.has(Bug::PartialRecordLeft) {
                state.end = state.file.len().map_err(|e| broken("measure the log", &e))?;
            } else {
                state.file.set_len(state.end).map_err(|e| broken("cut the log back", &e))?;
                self.sync_file(&*state.file)?;
                state.all_synced();
            }
            return Err(full_or_broken("append to the log", &e));
        }
        state.end += bytes.len() as u64;
        state.logged += bytes.len() as u64;
        if state.pending.iter().any(|payload| !payload.is_empty()) {
            state.data_end = state.end;
        }
        state.covered = state.mark;
        state.written += state.pending.len() as u64;
        state.pending.clear();
        Ok(())
    }
}

impl State {
    /// A store whose last segment is synced as far as `scanned` says.
    fn new(memory: Memory, file: Arc<dyn File>, live: Vec<u64>, snapshots: Vec<u64>, scanned: &Scanned) -> Self {
        let number = live.last().copied().unwrap_or_default();
        Self {
            memory,
            pending: Vec::new(),
            file,
            number,
            end: scanned.end,
            data_end: scanned.data_end,
            mark: scanned.end,
            covered: scanned.covered,
            live,
            snapshots,
            next: number + 1,
            logged: scanned.end,
            snapshot_len: 0,
            written: 0,
            synced: 0,
            syncing: false,
            poisoned: None,
            flush_due: FLUSH,
            sync_due: Duration::MAX,
        }
    }

    fn check(&self) -> Result<(), SubjectError> {
        match &self.poisoned {
            None => Ok(()),
            Some(why) => Err(SubjectError::Store(format!("stopped after an error ({why}); reopen it to see what survived"))),
        }
    }

    fn all_synced(&mut self) {
        self.mark = self.end;
        self.synced = self.written;
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, bug: Bug) -> bool {
        self.place.has(bug)
    }

    /// Takes a step that changes files. Whatever fails, a full disk aside, stops the store.
    fn step<R>(&self, state: &mut State, step: impl FnOnce(&mut State) -> Result<R, SubjectError>) -> Result<R, SubjectError> {
        state.check()?;
        let result = step(state);
        if let Err(e @ SubjectError::Store(_)) = &result {
            state.poisoned = Some(e.to_string());
            self.synced.notify_all();
        }
        result
    }

    fn log(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let level = self.policy.raise(level);
        let mut guard = self.state();
        let state = &mut *guard;
        let is_late = level == Durability::Async || self.has(Bug::CommitOnClose);
        self.step(state, |state| {
            if !is_late {
                self.place.make_room(state)?;
            }
            // Only a bug writes a batch in more than one piece.
            let piece = match self.place.bug {
                Some(Bug::BatchWithoutEnd) => 1,
                Some(Bug::BatchSplitOverSegments) if state.end + payload(changes).len() as u64 >= SEGMENT => {
                    changes.len().div_ceil(2)
                }
                _ => changes.len(),
            };
            for (n, piece) in changes.chunks(piece.max(1)).enumerate() {
                if n > 0 && !is_late && self.has(Bug::BatchSplitOverSegments) {
                    self.place.roll(state, false)?;
                }
                state.pending.push(payload(piece));
                if !is_late {
                    // What was buffered before stays so; this call never was.
                    self.place.write_out(state).inspect_err(|_| drop(state.pending.pop()))?;
                }
            }
            Ok(())
        })?;
        for change in changes {
            state.memory.change(change.table, change.key.to_owned(), change.value.map(str::to_owned));
        }
        if level == Durability::Sync && !self.has(Bug::AckBeforeSync) && !self.has(Bug::CommitOnClose) {
            let target = state.written;
            self.wait_synced(guard, target)?;
        }
        Ok(())
    }

    /// Waits until the first `target` records are synced. Whoever finds no sync running leads one for all; the
    /// others wait for it, and look again.
    fn wait_synced<'a>(&'a self, mut state: MutexGuard<'a, State>, target: u64) -> Result<(), SubjectError> {
        loop {
            let reach = state.synced + u64::from(self.has(Bug::FollowerAckedEarly));
            if reach >= target {
                return Ok(());
            }
            state.check()?;
            if state.syncing {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let (file, number, end, written) = (Arc::clone(&state.file), state.number, state.end, state.written);
            drop(state);
            let result = self.place.sync_file(&*file);
            state = self.state();
            state.syncing = false;
            self.synced.notify_all();
            self.step(&mut state, |state| {
                result?;
                state.synced = state.synced.max(written);
                if state.number == number {
                    state.mark = state.mark.max(end);
                }
                Ok(())
            })?;
        }
    }

    fn sync(&self) -> Result<(), SubjectError> {
        if self.has(Bug::CommitOnClose) {
            return Ok(());
        }
        let mut state = self.state();
        self.step(&mut state, |state| self.place.write_out(state))?;
        let target = state.written;
        self.wait_synced(state, target)
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        let mut state = self.state();
        self.step(&mut state, |state| self.place.compact(state))?;
        Ok(true)
    }

    fn maintain(&self, now: Duration) -> Result<Duration, SubjectError> {
        if self.has(Bug::CommitOnClose) {
            return Ok(now + FLUSH);
        }
        let mut state = self.state();
        let mut is_due = false;
        if now >= state.flush_due {
            state.flush_due = now + FLUSH;
            is_due = self.policy == SyncPolicy::Always && !state.pending.is_empty();
            self.step(&mut state, |state| self.place.write_out(state))?;
        }
        if let SyncPolicy::Interval(every) = self.policy
            && now >= state.sync_due
        {
            state.sync_due = now + every;
            is_due = true;
        }
        let (next, target) = (state.flush_due.min(state.sync_due), state.written);
        if is_due {
            self.wait_synced(state, target)?;
        }
        Ok(next)
    }

    fn close(&self) -> Result<(), SubjectError> {
        let mut state = self.state();
        self.step(&mut state, |state| {
            self.place.write_out(state)?;
            if !matches!(self.policy, SyncPolicy::Always | SyncPolicy::Interval(_)) {
                return Ok(());
            }
            if state.mark < state.end {
                self.place.sync_file(&*state.file)?;
                state.all_synced();
            }
            if state.covered < state.data_end {
                // A record without changes, for its mark: without it rot in the last record with changes would look
                // like a torn tail.
                state.pending.push(Vec::new());
                let marked = self.place.write_out(state);
                state.pending.clear();
                match marked {
                    Err(SubjectError::Full(_)) => return Ok(()),
                    other => other?,
                }
                self.place.sync_file(&*state.file)?;
            }
            Ok(())
        })
    }
}

impl Session for LogSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        self.core.log(&[change], level)
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        self.core.log(changes, level)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        let state = self.core.state();
        Ok(state.memory.maps.get(table).and_then(|map| map.get(key)).map(|value| look(value)).is_some())
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.core.sync()
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(self.core.state().memory.maps.clone())
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        self.core.shrink()
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
