//! Writing entries: who gets which index, and when the next segment begins.
//!
//! **Invariant:** the order of indexes is the order of the log; an index that a reader has seen is never given again.

use super::options::Options;
use super::place::{Place, Role};
use super::reader::read_deleted;
use super::record::{BACK, FRONT, Front, LINK, Link, encode_entries};
use super::segment::Segment;
use super::shown::{End, Shown};
use crate::background::Bell;
use crate::error::{Error, Result};
use crate::fs::Lock;
use crate::log::{Cut, Framing, Header, Log, draft_segment, publish_segment};
use crate::sync_policy::{Durability, SyncPolicy};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of `Async` entries that wait in memory at most.
const BUFFER: u64 = 64 << 10;

/// Bytes that are worth a sync ahead of time.
const AHEAD: u64 = 4 << 20;

/// Bytes by which a file of entries grows, within its most: ten thousand entries.
const ROOM: u64 = 1 << 20;

/// The end of the store.
#[derive(Debug)]
struct Tail {
    log: Arc<Log>,
    segment: u64,
    /// The index of the segment's first entry.
    first: u64,
    /// The index of the next entry.
    next: u64,
    /// Where the file ends, with all that is in the kernel.
    end: u64,
    /// The records that are not in the kernel, to be written again if the disk was full.
    waiting: Waiting,
    /// All that was put in front in segments that are still there.
    fronts: Vec<Front>,
    body: Vec<u8>,
}

/// Bodies of records, one behind the other.
#[derive(Debug, Default)]
struct Waiting {
    bodies: Vec<u8>,
    ends: Vec<usize>,
    /// What they take in the file, or a little more.
    bytes: u64,
}

impl Waiting {
    fn push(&mut self, body: &[u8], bytes: u64) {
        self.bodies.extend_from_slice(body);
        self.ends.push(self.bodies.len());
        self.bytes += bytes;
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.bodies.clear();
        self.bodies.shrink_to(1 << 20);
        self.ends.clear();
        self.bytes = 0;
    }

    fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bodies[start..*end])
    }
}

/// The writing half of a store.
#[derive(Debug)]
pub(super) struct Writing {
    place: Place,
    options: Options,
    tail: Mutex<Tail>,
    /// What a reader of the same process may see: everything that is in the kernel.
    shown: Shown,
    /// What was put in front since a reader asked last.
    new_fronts: Mutex<Vec<Front>>,
    /// How often something was put in front.
    fronts_put: AtomicU64,
    pub(super) news: Bell,
    lock: Mutex<Option<Box<dyn Lock>>>,
    pub(super) cut: Option<(PathBuf, Cut)>,
}

impl Writing {
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self> {
        let place = Place::new(dir, options)?;
        let held = if options.locking { Some(place.lock(Role::Writer)?) } else { None };
        place.remove_drafts(Role::Writer)?;
        // A process that died may have left a name that is not on the device, and what follows goes behind it.
        place.sync()?;
        let deleted = read_deleted(&place)?.end();
        let (mut fronts, mut cut, mut last) = (Vec::new(), None, None);
        if let Some(&number) = place.segments()?.last() {
            let (mut segment, link) = Segment::open(&place, number)?;
            let scan = segment.scan()?;
            fronts = link.fronts;
            fronts.extend(scan.fronts);
            if let Some(torn) = scan.replayed.cut {
                let cut_back = segment.file.set_len(segment.end).and_then(|()| segment.file.sync_all());
                cut_back.map_err(|e| Error::io("cut", &segment.path, e))?;
                cut = Some((segment.path.clone(), torn));
            }
            let synced = scan.replayed.synced.max(segment.start);
            let log = Log::new(&segment.path, Framing::Binary, Arc::clone(&segment.file), synced, segment.end);
            let log = log.with_room(segment.len()?, ROOM).at_most(options.max_file_size);
            last = Some((segment, log));
        } else if deleted > 0 {
            return Err(Error::corrupt(&place.segment(1), 0, "the file is not there, and the store needs it"));
        }
        let (log, segment, first, next) = match last {
            Some((segment, log)) => (log, segment.number, segment.first, segment.next),
            None => (begin(&place, 1, &Link::default(), options, None)?, 1, 0, 0),
        };
        let end = log.end();
        let log = Arc::new(log);
        let tail = Tail { log, segment, first, next, end, waiting: Waiting::default(), fronts, body: Vec::new() };
        let writing = Self {
            place,
            options: options.clone(),
            tail: Mutex::new(tail),
            shown: Shown::at(End { segment, offset: end, next }),
            new_fronts: Mutex::default(),
            fronts_put: AtomicU64::new(0),
            news: Bell::default(),
            lock: Mutex::new(held),
            cut,
        };
        if matches!(options.sync, SyncPolicy::Always | SyncPolicy::Interval(_)) {
            // What is shown now must not be gone after a power loss, whoever wrote it.
            writing.sync_written()?;
        }
        // Entries that were taken and then lost by a power loss: their indexes are used up.
        if deleted > next {
            let mut tail = lock(&writing.tail);
            tail.next = deleted;
            writing.begin_next(&mut tail, next)?;
        }
        Ok(writing)
    }

    /// Puts entries into the store, all or none, and returns their indexes.
    pub(super) fn write<E: AsRef<[u8]>>(&self, entries: &[E], front: bool, level: Durability) -> Result<Range<u64>> {
        let level = self.options.sync.raise(level);
        let mut turn = lock(&self.tail);
        let tail = &mut *turn;
        if entries.is_empty() {
            let indexes = tail.next..tail.next;
            drop(turn);
            // A call that puts nothing in still carries all earlier ones.
            return if level == Durability::Sync { self.sync_written().map(|()| indexes) } else { Ok(indexes) };
        }
        // The frame, two numbers, and the lengths of all entries but the last.
        let bytes: u64 = entries.iter().map(|entry| entry.as_ref().len() as u64 + 5).sum::<u64>() + 64;
        self.make_room(tail, bytes)?;
        if front || (level == Durability::Async && tail.waiting.bytes > BUFFER) {
            // The place of what is put in front must be known. What is buffered must not grow without bound; this call
            // is told of a full disk before any of it is taken.
            self.flush_tail(tail)?;
        }
        encode_entries(&mut tail.body, tail.next - tail.first, entries);
        let indexes = tail.next..tail.next + entries.len() as u64;
        let kind = if front { FRONT } else { BACK };
        if level == Durability::Async && !front {
            tail.log.submit_unwaited(kind, &tail.body)?;
            tail.waiting.push(&tail.body, bytes);
            tail.next = indexes.end;
            return Ok(indexes);
        }
        let offset = tail.end;
        let written = tail.log.append(kind, &tail.body).inspect_err(|e| submit_again(tail, e))?;
        tail.next = indexes.end;
        let put = front.then_some(Front { first: indexes.start, count: entries.len() as u64, segment: tail.segment, offset });
        tail.fronts.extend(put);
        self.show(tail, written.end, put);
        if tail.body.capacity() > 1 << 20 {
            tail.body = Vec::new();
        }
        let log = (level == Durability::Sync).then(|| Arc::clone(&tail.log));
        // Others may write while this one waits for the device.
        drop(turn);
        log.map_or(Ok(()), |log| log.wait_synced(written.position)).map(|()| indexes)
    }

    /// Tells readers what is in the kernel.
    fn show(&self, tail: &mut Tail, end: u64, front: Option<Front>) {
        tail.waiting.clear();
        tail.end = end;
        let end = End { segment: tail.segment, offset: tail.end, next: tail.next };
        if front.is_some() {
            // Shown in the same turn, so that whoever sees the end knows what was put in front before it.
            let mut fronts = lock(&self.new_fronts);
            fronts.extend(front);
            self.shown.show(end);
            self.fronts_put.fetch_add(1, Ordering::Release);
        } else {
            self.shown.show(end);
        }
        self.news.ring();
    }

    fn flush_tail(&self, tail: &mut Tail) -> Result<()> {
        if !tail.waiting.is_empty() {
            // A log that failed has let go of what waits here, and has nothing to write.
            tail.log.check()?;
            tail.log.commit_step().inspect_err(|e| submit_again(tail, e))?;
            self.show(tail, tail.log.end(), None);
        }
        Ok(())
    }

    /// Begins the next segment if so many bytes do not fit into this one.
    fn make_room(&self, tail: &mut Tail, bytes: u64) -> Result<()> {
        let most = self.options.max_file_size;
        if tail.end + tail.waiting.bytes + bytes <= most {
            return Ok(());
        }
        let empty = Header::Fifo.line().len() as u64 + 64;
        if bytes + empty > most {
            return Err(Error::TooLarge { len: bytes, limit: most - empty });
        }
        self.flush_tail(tail)?;
        let files = self.place.segments()?.len();
        if files >= self.options.max_files {
            return Err(Error::NoRoom { path: self.place.dir.clone(), files });
        }
        let before_next = tail.next;
        self.begin_next(tail, before_next)
    }

    fn begin_next(&self, tail: &mut Tail, before_next: u64) -> Result<()> {
        tail.log.check()?;
        tail.log.sync_step()?;
        let numbers = self.place.segments()?;
        tail.fronts.retain(|front| numbers.binary_search(&front.segment).is_ok());
        let (first, before_end) = (tail.next, tail.end);
        let link = Link { first, before: tail.segment, before_next, before_end, fronts: tail.fronts.clone() };
        let number = tail.segment + 1;
        let log = begin(&self.place, number, &link, &self.options, Some(&tail.log))?;
        tail.log.close()?;
        // Its room is nobody's business any more: the link says where it ends.
        let _ = tail.log.trim();
        (tail.log, tail.segment, tail.first) = (Arc::new(log), number, tail.next);
        self.show(tail, tail.log.end(), None);
        Ok(())
    }

    /// Begins the next segment if the last one holds something, so that it can be removed; whether it did.
    pub(super) fn leave(&self, least: u64) -> Result<bool> {
        let mut tail = lock(&self.tail);
        self.flush_tail(&mut tail)?;
        if tail.next == tail.first || tail.end < least {
            return Ok(false);
        }
        let before_next = tail.next;
        self.begin_next(&mut tail, before_next).map(|()| true)
    }

    /// How far readers may see, and what was put in front before that; each front is told once.
    pub(super) fn shown(&self) -> (End, Vec<Front>) {
        let mut fronts = lock(&self.new_fronts);
        (self.shown.get(), std::mem::take(&mut *fronts))
    }

    /// How often something was put in front.
    pub(super) fn fronts_put(&self) -> u64 {
        self.fronts_put.load(Ordering::Acquire)
    }

    /// All that was put in front in segments that are still there.
    pub(super) fn fronts(&self) -> Vec<Front> {
        lock(&self.tail).fronts.clone()
    }

    /// Puts what is buffered into the kernel; whether there was anything.
    pub(super) fn flush(&self) -> Result<bool> {
        let mut tail = lock(&self.tail);
        let any = !tail.waiting.is_empty();
        self.flush_tail(&mut tail).map(|()| any)
    }

    /// Puts what was written before onto the device.
    pub(super) fn sync(&self) -> Result<()> {
        self.flush()?;
        self.sync_written()
    }

    /// Puts on the device what is in the kernel.
    pub(super) fn sync_written(&self) -> Result<()> {
        let log = {
            let tail = lock(&self.tail);
            // Asked in the writer's turn: as soon as the next file begins this log is closed, with all of it synced.
            tail.log.check()?;
            Arc::clone(&tail.log)
        };
        log.sync_step()
    }

    /// Syncs what is in the kernel if it is much: a file is synced before the next one begins, and then a writer waits.
    pub(super) fn sync_ahead(&self) -> Result<()> {
        let log = Arc::clone(&lock(&self.tail).log);
        let much = log.written_through().saturating_sub(log.synced_through()) >= AHEAD;
        // A log that is poisoned, or closed because the next one has begun, says so to those who write.
        if much && log.check().is_ok() { log.sync_step() } else { Ok(()) }
    }

    pub(super) fn close(&self) -> Result<()> {
        let outcome = self.sync().and_then(|()| {
            let tail = lock(&self.tail);
            tail.log.close_marked()?;
            tail.log.trim()
        });
        lock(&self.lock).take();
        outcome
    }
}

/// A full disk took what was buffered, and its indexes were told: it goes with what is written next.
fn submit_again(tail: &Tail, e: &Error) {
    if matches!(e, Error::Full { .. }) {
        // A log that takes no more has said so to the caller.
        let _ = tail.waiting.bodies().try_for_each(|body| tail.log.submit_unwaited(BACK, body));
    }
}

/// Begins a segment behind another one. If nobody can tell whether that worked, the log before must stop: what it
/// took from now on might stand in two files.
fn begin(place: &Place, number: u64, link: &Link, options: &Options, before: Option<&Log>) -> Result<Log> {
    let path = place.segment(number);
    let mut content = Vec::new();
    let body = link.encode();
    Framing::Binary.encode(&mut content, LINK, &body, Framing::checksum(LINK, &body), None);
    let end = Header::Fifo.line().len() as u64 + content.len() as u64;
    let room = ROOM.min(options.max_file_size).max(end);
    let file = draft_segment(&*place.fs, &path, Header::Fifo, &content, room)?;
    if let Err(e) = publish_segment(&*place.fs, &path) {
        let why = io::Error::other(e.to_string());
        return Err(before.map_or(e, |log| log.poison("rename", why)));
    }
    Ok(Log::new(&path, Framing::Binary, file, end, end).with_room(room, ROOM).at_most(options.max_file_size))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
