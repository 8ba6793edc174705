//! Reading and deleting entries: which is the oldest, where it lies, which files are needed no more.
//!
//! What is deleted stands in a log of its own, so that writer and reader may be two processes. Entries are read in
//! chunks and in order; whoever wants one at random has its file indexed first.
//!
//! **Invariant:** a file is removed only when the deletes of all its entries are on the device.

use super::indexes::Indexes;
use super::options::Options;
use super::place::{Place, Role};
use super::record::{BACK, DELETE, Entries, FRONT, Front, Link, MARK, encode_deletes, read_deletes};
use super::segment::Segment;
use super::writer::{Writing, lock};
use crate::background::Bell;
use crate::error::{Error, Result};
use crate::fs::{File, Lock, read_full_at};
use crate::log::{Cut, Framing, Header, Log, LogReader, Mode, Parsed, Replayed, create_segment, draft_segment, identify};
use crate::log::{publish_segment, replay};
use crate::sync_policy::{Durability, SyncPolicy};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// `Async` deletes that wait in memory at most.
const BUFFER: u64 = 250;

/// Bytes by which the log of deletes grows: ten thousand entries taken out one by one.
const ROOM: u64 = 256 << 10;

/// An entry of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the store calls it. No other entry is ever called so.
    pub index: u64,
    /// What was written.
    pub value: Vec<u8>,
}

/// The reading half of a store.
#[derive(Debug)]
pub(super) struct Reading {
    place: Place,
    options: Options,
    state: Mutex<State>,
    /// Held by whoever removes files.
    reclaiming: Mutex<()>,
    deletes: Log,
    writing: Option<Arc<Writing>>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    /// Rings when there may be something new to read.
    pub(super) news: Bell,
    pub(super) cut: Option<(PathBuf, Cut)>,
}

#[derive(Debug)]
struct State {
    /// Those that are there, ascending.
    segments: VecDeque<Segment>,
    deleted: Indexes,
    /// Deletes that are not in the kernel yet.
    buffered: Indexes,
    /// Handed out, and neither deleted nor given back.
    held: BTreeSet<u64>,
    /// Given back: in front of what was never handed out.
    returned: BTreeSet<u64>,
    fronts: Vec<Front>,
    /// How often something was put in front when the writer of this process was asked last.
    fronts_seen: u64,
    cursor: Cursor,
    chunk: Chunk,
}

/// Where reading in order has come to.
#[derive(Debug, Default)]
struct Cursor {
    segment: u64,
    /// Where the next record begins.
    offset: u64,
    /// Where in the chunk the body of the current record lies, and those of its entries that are still to come.
    record: Option<(Range<usize>, Entries)>,
    /// The entry that reading has come to, and where in the chunk it lies.
    head: Option<(u64, Range<usize>)>,
}

/// A stretch of a segment in memory.
#[derive(Debug, Default)]
struct Chunk {
    segment: u64,
    base: u64,
    bytes: Vec<u8>,
}

/// What the log of deletes says; nothing if there is none.
pub(super) fn read_deleted(place: &Place) -> Result<Indexes> {
    let path = place.deletes();
    match place.fs.open(&path) {
        Ok(file) => Ok(replay_deletes(&*file, &path, Mode::Strict)?.0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Indexes::default()),
        Err(e) => Err(Error::io("open", &path, e)),
    }
}

pub(super) fn replay_deletes(file: &dyn File, path: &Path, mode: Mode) -> Result<(Indexes, Replayed)> {
    let mut deleted = Indexes::default();
    if identify(file, path)? != Some(Header::Deletes) {
        return Err(Error::corrupt(path, 0, "it is no log of deletes"));
    }
    let len = file.len().map_err(|e| Error::io("read", path, e))?;
    let start = Header::Deletes.line().len() as u64;
    let replayed = replay(file, path, Framing::Binary, start..len, mode, |offset, kind, body| {
        let ranges = match kind {
            DELETE => read_deletes(body),
            MARK => Some(Vec::new()),
            _ => None,
        };
        let ranges = ranges.ok_or_else(|| Error::corrupt(path, offset, "a record that makes no sense"))?;
        ranges.into_iter().for_each(|range| deleted.insert(range));
        Ok(())
    })?;
    Ok((deleted, replayed))
}

impl Reading {
    /// Opens the reading half; with the writing half, if that is in the same process.
    pub(super) fn open(dir: &Path, options: &Options, writing: Option<Arc<Writing>>) -> Result<Self> {
        let place = Place::new(dir, options)?;
        let held = if options.locking { Some(place.lock(Role::Reader)?) } else { None };
        place.remove_drafts(Role::Reader)?;
        place.sync()?;
        let path = place.deletes();
        let (deleted, deletes, cut) = open_deletes(&path, options)?;
        let state = State {
            segments: VecDeque::new(),
            deleted,
            buffered: Indexes::default(),
            held: BTreeSet::new(),
            returned: BTreeSet::new(),
            fronts: Vec::new(),
            fronts_seen: 0,
            cursor: Cursor::default(),
            chunk: Chunk::default(),
        };
        let cut = cut.map(|cut| (path, cut));
        let reading = Self {
            place,
            options: options.clone(),
            state: Mutex::new(state),
            reclaiming: Mutex::default(),
            deletes,
            news: writing.as_ref().map_or_else(Bell::default, |writing| writing.news.clone()),
            writing,
            lock: Mutex::new(held),
            cut,
        };
        if matches!(options.sync, SyncPolicy::Always | SyncPolicy::Interval(_)) {
            // What is not shown now must not be back after a power loss, whoever took it.
            reading.sync_written()?;
        }
        {
            let mut state = lock(&reading.state);
            let links = reading.refresh(&mut state)?;
            reading.check_files(&state, &links)?;
            if let Some(writing) = &reading.writing {
                state.fronts = writing.fronts();
            }
        }
        Ok(reading)
    }

    /// Every entry that no file has must be deleted.
    fn check_files(&self, state: &State, links: &[Link]) -> Result<()> {
        let mut next = 0;
        for (segment, link) in state.segments.iter().zip(links) {
            if !state.deleted.covers(next..link.before_next) {
                let gone = state.deleted.next_gap(next);
                return Err(segment.corrupt(0, format!("the file with entry {gone}, which was before it, is not there")));
            }
            next = segment.next;
        }
        if state.segments.is_empty() && state.deleted.count() > 0 {
            return Err(Error::corrupt(&self.place.segment(1), 0, "the files of the entries are not there"));
        }
        Ok(())
    }

    /// Looks for what was written since; how the segments begin that were not known.
    fn refresh(&self, state: &mut State) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let shown = self.writing.as_ref().map(|writing| (writing.fronts_put(), writing.shown()));
        let known = state.segments.back().map_or(0, |segment| segment.number);
        let newest = shown.as_ref().map_or(u64::MAX, |(_, (end, _))| end.segment);
        if newest > known {
            for number in self.place.segments()?.into_iter().filter(|number| (known + 1..=newest).contains(number)) {
                let (segment, link) = Segment::open(&self.place, number)?;
                if let Some(last) = state.segments.back_mut() {
                    last.seal(&link)?;
                }
                state.deleted.insert(link.before_next..link.first);
                if shown.is_none() {
                    state.fronts.clone_from(&link.fronts);
                }
                state.segments.push_back(segment);
                links.push(link);
            }
        }
        let Some(last) = state.segments.back_mut() else { return Ok(links) };
        match shown {
            Some((fronts_put, (end, fronts))) => {
                state.fronts.extend(fronts);
                state.fronts_seen = fronts_put;
                (last.end, last.next) = (end.offset, end.next);
            }
            None => {
                // What cannot be read may still be on its way here; whether it is rot, a mark behind it tells.
                let scan = last.scan()?;
                state.fronts.extend(scan.fronts);
            }
        }
        Ok(links)
    }

    /// As [`Reading::refresh`], including what the writer of this process still has in memory.
    fn refresh_all(&self, state: &mut State) -> Result<()> {
        if let Some(writing) = &self.writing {
            writing.flush()?;
        }
        self.refresh(state).map(drop)
    }

    /// Looks for what was written since, and finds out where it lies; how many entries there are.
    pub(super) fn update_indexes(&self) -> Result<u64> {
        let mut state = lock(&self.state);
        self.refresh_all(&mut state)?;
        index_next(&mut state)?;
        Ok(length(&state))
    }

    /// Looks for what was written since, finds out where it lies, and tells whoever waits for it.
    pub(super) fn look(&self) -> Result<()> {
        let next = |state: &State| state.segments.back().map_or(0, |last| last.next);
        let mut state = lock(&self.state);
        let before = next(&state);
        self.refresh(&mut state)?;
        let news = next(&state) > before;
        index_next(&mut state)?;
        drop(state);
        if news && self.writing.is_none() {
            self.news.ring();
        }
        Ok(())
    }

    /// Entries that are there.
    pub(super) fn len(&self) -> Result<u64> {
        let mut state = lock(&self.state);
        self.refresh_all(&mut state)?;
        Ok(length(&state))
    }

    /// Bytes on disk, and bytes in memory.
    pub(super) fn size(&self) -> Result<(u64, u64)> {
        let mut state = lock(&self.state);
        self.refresh(&mut state)?;
        let disk = state.segments.iter().map(Segment::len).sum::<Result<u64>>()? + self.deletes.end();
        let indexes: usize = state.segments.iter().map(|segment| segment.records.capacity() * 8).sum();
        let ranges = (state.deleted.len() + state.buffered.len()) * 32;
        Ok((disk, (state.chunk.bytes.capacity() + indexes + ranges) as u64))
    }

    /// Lets go of what is held in memory.
    pub(super) fn unload(&self) {
        let mut state = lock(&self.state);
        state.cursor = Cursor::default();
        state.chunk = Chunk::default();
        for segment in &mut state.segments {
            segment.records = Vec::new();
            segment.indexed = segment.start;
        }
    }

    /// The oldest entry that is neither deleted nor handed out.
    pub(super) fn oldest(&self) -> Result<Option<Entry>> {
        self.next_oldest(&mut lock(&self.state))
    }

    /// Takes the oldest entry out.
    pub(super) fn pop(&self, level: Durability) -> Result<Option<Entry>> {
        let mut state = lock(&self.state);
        let Some(entry) = self.next_oldest(&mut state)? else {
            drop(state);
            return self.settle(0, level).map(|()| None);
        };
        let taken = entry.index..entry.index + 1;
        let position = self.delete_ranges(&mut state, std::slice::from_ref(&taken), level)?;
        drop(state);
        self.settle(position, level)?;
        Ok(Some(entry))
    }

    /// Takes the oldest entries out, so many at most, with one write.
    pub(super) fn pop_many(&self, most: usize, level: Durability) -> Result<Vec<Entry>> {
        let mut state = lock(&self.state);
        let mut entries = Vec::new();
        let outcome = self.hold_oldest(&mut state, most, &mut entries);
        for entry in &entries {
            state.held.remove(&entry.index);
        }
        if let Err(e) = outcome {
            state.returned.extend(entries.iter().map(|entry| entry.index));
            return Err(e);
        }
        let deleted = self.delete_all(&mut state, entries.iter().map(|entry| entry.index), level);
        let position = deleted.inspect_err(|_| state.returned.extend(entries.iter().map(|entry| entry.index)))?;
        drop(state);
        self.settle(position, level)?;
        Ok(entries)
    }

    fn hold_oldest(&self, state: &mut State, most: usize, entries: &mut Vec<Entry>) -> Result<()> {
        while entries.len() < most {
            let Some(entry) = self.next_oldest(state)? else { break };
            state.returned.remove(&entry.index);
            state.held.insert(entry.index);
            entries.push(entry);
        }
        Ok(())
    }

    /// Hands out the oldest entry: nobody else gets it until it is given back.
    pub(super) fn hold(&self) -> Result<Option<Entry>> {
        let mut entries = Vec::new();
        self.hold_oldest(&mut lock(&self.state), 1, &mut entries)?;
        Ok(entries.pop())
    }

    /// Takes back an entry that was handed out; whether it was.
    pub(super) fn release(&self, index: u64) -> bool {
        let mut state = lock(&self.state);
        let held = state.held.remove(&index);
        if held {
            state.returned.insert(index);
        }
        drop(state);
        if held {
            self.news.ring();
        }
        held
    }

    /// The entry of an index.
    pub(super) fn read(&self, index: u64) -> Result<Entry> {
        let mut state = lock(&self.state);
        self.check_live(&mut state, index)?;
        self.read_at(&mut state, index)
    }

    /// All entries in the order in which they would be taken out.
    pub(super) fn list(&self, look: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut state = lock(&self.state);
        self.refresh_all(&mut state)?;
        let fronts: Vec<Front> = state.fronts.iter().rev().copied().collect();
        for index in fronts.iter().flat_map(|front| front.first..front.first + front.count) {
            if !state.deleted.contains(index) {
                let entry = self.read_at(&mut state, index)?;
                look(entry.index, &entry.value)?;
            }
        }
        let State { segments, deleted, .. } = &mut *state;
        for segment in segments {
            if deleted.covers(segment.first..segment.next) {
                continue;
            }
            let mut reader = LogReader::new(&*segment.file, &segment.path, Framing::Binary, segment.start, segment.end);
            while let Some((offset, frame, body)) = reader.next_record()? {
                if frame.kind != BACK {
                    continue;
                }
                let wrong = || segment.corrupt(offset, "a record that makes no sense");
                let mut entries = Entries::read(body).ok_or_else(wrong)?;
                while let Some((delta, range)) = entries.next(body) {
                    let index = segment.first + delta;
                    if !deleted.contains(index) {
                        look(index, &body[range])?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_live(&self, state: &mut State, index: u64) -> Result<()> {
        if state.segments.back().is_none_or(|last| index >= last.next) {
            self.refresh_all(state)?;
        }
        let known = state.segments.back().is_some_and(|last| index < last.next);
        match known && !state.deleted.contains(index) {
            true => Ok(()),
            false => Err(Error::NotFound { path: self.place.dir.clone(), index }),
        }
    }

    /// Deletes entries, all or none.
    pub(super) fn delete(&self, indexes: &[u64], level: Durability) -> Result<()> {
        let mut state = lock(&self.state);
        indexes.iter().try_for_each(|index| self.check_live(&mut state, *index))?;
        let position = self.delete_all(&mut state, indexes.iter().copied(), level)?;
        drop(state);
        self.settle(position, level)
    }

    /// Deletes every entry below an index, or all of them; how many that were.
    pub(super) fn delete_below(&self, index: Option<u64>, level: Durability) -> Result<u64> {
        let mut state = lock(&self.state);
        self.refresh_all(&mut state)?;
        let (Some(first), Some(last)) = (state.segments.front(), state.segments.back()) else { return Ok(0) };
        let range = first.first..index.unwrap_or(last.next).min(last.next);
        if range.is_empty() {
            return Ok(0);
        }
        let gone = range.end - range.start - state.deleted.count_in(range.clone());
        let position = self.delete_ranges(&mut state, &[range], level)?;
        drop(state);
        self.settle(position, level)?;
        Ok(gone)
    }

    fn delete_all(&self, state: &mut State, indexes: impl Iterator<Item = u64>, level: Durability) -> Result<u64> {
        let mut all = Indexes::default();
        indexes.for_each(|index| all.insert(index..index + 1));
        self.delete_ranges(state, &all.ranges().collect::<Vec<_>>(), level)
    }

    /// Writes a delete of these ranges, which ascend, then believes it; the position to wait for.
    fn delete_ranges(&self, state: &mut State, ranges: &[Range<u64>], level: Durability) -> Result<u64> {
        self.deletes.check()?;
        if ranges.is_empty() {
            return Ok(0);
        }
        if self.options.sync.raise(level) == Durability::Async {
            for range in ranges {
                state.buffered.insert(range.clone());
                forget(state, range.clone());
            }
            return if state.buffered.count() >= BUFFER { self.flush_deletes(state) } else { Ok(0) };
        }
        let position = if state.buffered.count() == 0 {
            self.deletes.append(DELETE, &encode_deletes(ranges.iter().cloned()))?.position
        } else {
            let mut all = state.buffered.clone();
            ranges.iter().for_each(|range| all.insert(range.clone()));
            let written = self.deletes.append(DELETE, &encode_deletes(all.ranges()))?;
            state.buffered = Indexes::default();
            written.position
        };
        ranges.iter().for_each(|range| forget(state, range.clone()));
        Ok(position)
    }

    fn flush_deletes(&self, state: &mut State) -> Result<u64> {
        if state.buffered.count() == 0 {
            return Ok(0);
        }
        let written = self.deletes.append(DELETE, &encode_deletes(state.buffered.ranges()))?;
        state.buffered = Indexes::default();
        Ok(written.position)
    }

    /// Waits for the device if the level asks for it. What survives power loss carries everything before it, and so
    /// what was written.
    fn settle(&self, position: u64, level: Durability) -> Result<()> {
        if self.options.sync.raise(level) < Durability::Sync {
            return Ok(());
        }
        self.writing.as_ref().map_or(Ok(()), |writing| writing.sync_written())?;
        // A call that finds nothing to take out still carries all earlier ones.
        self.deletes.wait_synced(position.max(self.deletes.written_through()))
    }

    /// Puts on the device what is in the kernel.
    pub(super) fn sync_written(&self) -> Result<()> {
        self.deletes.check()?;
        self.deletes.sync_step()
    }

    /// Puts deletes that wait in memory into the kernel.
    pub(super) fn flush(&self) -> Result<()> {
        self.flush_deletes(&mut lock(&self.state)).map(drop)
    }

    /// Puts all deletes onto the device.
    pub(super) fn sync(&self) -> Result<()> {
        self.flush()?;
        self.sync_written()
    }

    /// Whether all that there is has been deleted.
    pub(super) fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.segments.back().is_some_and(|last| last.next > last.first && state.deleted.covers(last.first..last.next))
    }

    /// Removes the files whose entries are all deleted, and shortens the log of deletes; how many files went.
    pub(super) fn reclaim(&self) -> Result<u64> {
        let _one = lock(&self.reclaiming);
        let gone: Vec<u64> = {
            let mut state = lock(&self.state);
            if self.deletes.end() >= (self.options.max_file_size / 16).max(64 * state.deleted.len() as u64) {
                self.flush_deletes(&mut state)?;
                self.shorten(&state)?;
            }
            let last = state.segments.back().map_or(0, |last| last.number);
            let done = |s: &&Segment| s.number < last && state.deleted.covers(s.first..s.next);
            state.segments.iter().filter(done).map(|s| s.number).collect()
        };
        if gone.is_empty() {
            return Ok(0);
        }
        // Readers go on meanwhile.
        self.sync()?;
        for number in &gone {
            let path = self.place.segment(*number);
            self.place.fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        let mut state = lock(&self.state);
        let State { fronts, deleted, segments, .. } = &mut *state;
        segments.retain(|segment| !gone.contains(&segment.number));
        fronts.retain(|front| !deleted.covers(front.first..front.first + front.count));
        drop(state);
        self.place.sync()?;
        Ok(gone.len() as u64)
    }

    /// Writes the log of deletes anew, with as many ranges as there are.
    fn shorten(&self, state: &State) -> Result<()> {
        self.deletes.replace(|_, _| {
            let path = self.place.deletes();
            let body = encode_deletes(state.deleted.ranges());
            let mut content = Vec::new();
            Framing::Binary.encode(&mut content, DELETE, &body, Framing::checksum(DELETE, &body), None);
            // The file is synced before it has its name: damage in it is no torn tail.
            Framing::Binary.encode(&mut content, MARK, &[], Framing::checksum(MARK, &[]), Some(0));
            let file = draft_segment(&*self.place.fs, &path, Header::Deletes, &content, 0)?;
            publish_segment(&*self.place.fs, &path)
                .map_err(|e| self.deletes.poison("rename", io::Error::other(e.to_string())))?;
            Ok((file, Header::Deletes.line().len() as u64 + content.len() as u64))
        })
    }

    pub(super) fn close(&self) -> Result<()> {
        let outcome = self.sync().and_then(|()| self.deletes.close_marked()).and_then(|()| self.deletes.trim());
        lock(&self.lock).take();
        outcome
    }

    /// The oldest entry that is neither deleted nor handed out.
    fn next_oldest(&self, state: &mut State) -> Result<Option<Entry>> {
        let fronts_put = self.writing.as_ref().map_or(0, |writing| writing.fronts_put());
        if !state.fronts.is_empty() || !state.returned.is_empty() || state.fronts_seen != fronts_put {
            self.refresh_all(state)?;
            let gone = |front: &Front, deleted: &Indexes| deleted.covers(front.first..front.first + front.count);
            while state.fronts.last().is_some_and(|front| gone(front, &state.deleted)) {
                state.fronts.pop();
            }
            let in_front = state.fronts.iter().rev().flat_map(|front| front.first..front.first + front.count);
            let found = in_front.chain(state.returned.iter().copied()).find(|index| !state.is_gone(*index));
            if let Some(index) = found {
                return self.read_at(state, index).map(Some);
            }
        }
        let found = self.seek(state)?;
        Ok(found.map(|(index, range)| Entry { index, value: state.chunk.bytes[range].to_vec() }))
    }

    /// Moves to the oldest entry at the back that is neither deleted nor handed out: its index, and where in the
    /// chunk it lies.
    fn seek(&self, state: &mut State) -> Result<Option<(u64, Range<usize>)>> {
        let mut refreshed = false;
        loop {
            if let Some((index, range)) = &state.cursor.head {
                if !state.is_gone(*index) {
                    return Ok(Some((*index, range.clone())));
                }
                state.cursor.head = None;
            }
            let Some(at) = self.segment_at_cursor(state) else {
                if std::mem::replace(&mut refreshed, true) {
                    return Ok(None);
                }
                self.refresh_all(state)?;
                continue;
            };
            let first = state.segments[at].first;
            if let Some((body, entries)) = &mut state.cursor.record {
                match entries.next(&state.chunk.bytes[body.clone()]) {
                    Some((delta, range)) => {
                        state.cursor.head = Some((first + delta, body.start + range.start..body.start + range.end));
                    }
                    None => state.cursor.record = None,
                }
                continue;
            }
            self.next_record(state, at)?;
        }
    }

    /// Where in the list the segment is in which the cursor has something to read; `None` if there is nothing left.
    fn segment_at_cursor(&self, state: &mut State) -> Option<usize> {
        let mut at = state.segments.partition_point(|segment| segment.number < state.cursor.segment);
        loop {
            let segment = state.segments.get(at)?;
            let is_last = at + 1 == state.segments.len();
            if segment.number != state.cursor.segment {
                state.cursor = Cursor { segment: segment.number, offset: segment.start, record: None, head: None };
            }
            let more = state.cursor.record.is_some() || state.cursor.offset < segment.end;
            if more && (is_last || !state.deleted.covers(segment.first..segment.next)) {
                return Some(at);
            }
            if is_last {
                return None;
            }
            at += 1;
        }
    }

    /// Reads the record at the cursor.
    fn next_record(&self, state: &mut State, at: usize) -> Result<()> {
        let State { segments, cursor, chunk, .. } = state;
        let segment = &segments[at];
        let mut want = self.options.max_chunk as u64;
        loop {
            if chunk.segment != segment.number || cursor.offset < chunk.base {
                (chunk.segment, chunk.base) = (segment.number, cursor.offset);
                chunk.bytes.clear();
            }
            let from = ((cursor.offset - chunk.base) as usize).min(chunk.bytes.len());
            match Framing::Binary.parse(&chunk.bytes[from..]) {
                Parsed::Record(frame) => {
                    let body = from + frame.body.start..from + frame.body.end;
                    let offset = cursor.offset;
                    cursor.offset += frame.len as u64;
                    if matches!(frame.kind, MARK | FRONT) {
                        return Ok(());
                    }
                    let entries = Entries::read(&chunk.bytes[body.clone()]).filter(|_| frame.kind == BACK);
                    let entries = entries.filter(|e| segment.first + e.delta + e.left <= segment.next);
                    let wrong = || segment.corrupt(offset, "a record that makes no sense");
                    cursor.record = Some((body, entries.ok_or_else(wrong)?));
                    return Ok(());
                }
                Parsed::Damaged(damage) => return Err(segment.corrupt(cursor.offset, damage.what)),
                Parsed::Incomplete => {}
            }
            // More of the file, from the record on; a record that is longer than a chunk takes what it needs.
            let held = (chunk.bytes.len() - from) as u64;
            if held >= want {
                want = held * 2;
            }
            let most = want.min(segment.end - cursor.offset);
            if most <= held {
                return Err(segment.corrupt(cursor.offset, format!("a record that ends after {held} bytes")));
            }
            chunk.base = cursor.offset;
            chunk.bytes.clear();
            if most < self.options.max_chunk as u64 && chunk.bytes.capacity() > 2 * self.options.max_chunk {
                chunk.bytes = Vec::new();
            }
            chunk.bytes.resize(most as usize, 0);
            let got = read_full_at(&*segment.file, &mut chunk.bytes, chunk.base);
            let got = got.map_err(|e| Error::io("read", &segment.path, e))?;
            if (got as u64) < most {
                return Err(segment.corrupt(chunk.base + got as u64, "the file ends before it should"));
            }
        }
    }

    /// Reads an entry wherever it lies.
    fn read_at(&self, state: &mut State, index: u64) -> Result<Entry> {
        let missing = || Error::NotFound { path: self.place.dir.clone(), index };
        let at = state.segments.partition_point(|segment| segment.first <= index).checked_sub(1).ok_or_else(missing)?;
        let segment = &mut state.segments[at];
        segment.index()?;
        let offset = segment.offset_of(index).ok_or_else(missing)?;
        let mut reader = LogReader::new(&*segment.file, &segment.path, Framing::Binary, offset, segment.end).in_chunks(4 << 10);
        let wrong = || segment.corrupt(offset, format!("entry {index} is not where it was"));
        let (_, _, body) = reader.next_record()?.ok_or_else(wrong)?;
        let mut entries = Entries::read(body).ok_or_else(wrong)?;
        loop {
            let (delta, range) = entries.next(body).ok_or_else(wrong)?;
            if segment.first + delta == index {
                return Ok(Entry { index, value: body[range].to_vec() });
            }
        }
    }
}

impl State {
    /// Whether an entry is deleted or handed out.
    fn is_gone(&self, index: u64) -> bool {
        self.deleted.contains(index) || (!self.held.is_empty() && self.held.contains(&index))
    }
}

/// Believes that the entries of a range are gone.
fn forget(state: &mut State, range: Range<u64>) {
    if !state.held.is_empty() || !state.returned.is_empty() {
        for set in [&mut state.held, &mut state.returned] {
            while let Some(index) = set.range(range.clone()).next().copied() {
                set.remove(&index);
            }
        }
    }
    state.deleted.insert(range);
}

/// Finds out where the entries of one file lie: readers must not wait for a thousand.
fn index_next(state: &mut State) -> Result<()> {
    state.segments.iter_mut().find(|segment| segment.indexed < segment.end).map_or(Ok(()), Segment::index)
}

fn length(state: &State) -> u64 {
    let (Some(first), Some(last)) = (state.segments.front(), state.segments.back()) else { return 0 };
    let range = first.first..last.next;
    range.end - range.start - state.deleted.count_in(range)
}

/// Opens or creates the log of deletes.
fn open_deletes(path: &Path, options: &Options) -> Result<(Indexes, Log, Option<Cut>)> {
    let (fs, room) = (&*options.fs, ROOM.min(options.max_file_size));
    let start = Header::Deletes.line().len() as u64;
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let file = create_segment(fs, path, Header::Deletes, &[], room)?;
            let log = Log::new(path, Framing::Binary, file, start, start).with_room(room, room);
            return Ok((Indexes::default(), log, None));
        }
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let (deleted, replayed) = replay_deletes(&*file, path, Mode::Strict)?;
    if replayed.cut.is_some() {
        file.set_len(replayed.end).and_then(|()| file.sync_all()).map_err(|e| Error::io("cut", path, e))?;
    }
    let len = file.len().map_err(|e| Error::io("read", path, e))?;
    let log = Log::new(path, Framing::Binary, file, replayed.synced.max(start), replayed.end).with_room(len, room);
    Ok((deleted, log, replayed.cut))
}
