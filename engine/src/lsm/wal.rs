//! The write-ahead log: one segment for each memtable.
//!
//! Segments are chained. The first record of each says where the one before it ended, how far that was synced
//! and which sequence number comes next. A power loss may keep a later segment and take the end of an earlier one;
//! then the chain is broken there, and what follows is given up, because it was not promised: a sync of a segment
//! waits for all before it.
//!
//! A segment is made in advance, with its name and first room on the device, because that takes a journal commit and
//! writers must not wait for one. It begins with its link, which is synced with the first writes behind it: what is
//! left without a link was never begun, or nothing of it was promised.
//!
//! ```text
//! segment = "wal 1\n", [link, write*]        (binary framing of the log)
//! link    = kind L: first sequence number, segment before, its end, how far it was synced; u64 LE each
//! write   = kind W, or P if it is packed: see `entry::Changes`
//! ```

use super::entry::{PACKED, WRITE, packed_with, read_write, unpack_write};
use super::memtable::Memtable;
use super::packing;
use crate::error::{Error, Result};
use crate::fs::{File, Fs, write_all_at};
use crate::log::{Cut, Framing, Header, Log, Mode, create_segment, identify, remove_leftover, replay};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A memtable and the segment that holds the same.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) table: Memtable,
    pub(super) log: Log,
    /// The segment's number.
    pub(super) number: u64,
}

/// The first record of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    first_seq: u64,
    /// Zero if there is none.
    before: u64,
    end: u64,
    synced: u64,
}

impl Link {
    /// The link of a segment behind another whose writes are all in the kernel; behind none, of the first.
    fn behind(before: Option<&Memory>, first_seq: u64) -> Self {
        let none = Self { first_seq, ..Self::default() };
        before.map_or(none, |before| {
            let (end, synced) = before.log.end_and_synced();
            Self { before: before.number, end, synced, ..none }
        })
    }

    /// The record, as it stands behind the header.
    fn record(self) -> Vec<u8> {
        let (mut record, body) = (Vec::new(), self.encode());
        Framing::Binary.encode(&mut record, b'L', &body, Framing::checksum(b'L', &body), None);
        record
    }

    fn encode(self) -> Vec<u8> {
        [self.first_seq, self.before, self.end, self.synced].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut numbers = body.chunks_exact(8).filter_map(|c| c.first_chunk().map(|b| u64::from_le_bytes(*b)));
        let link = Self { first_seq: numbers.next()?, before: numbers.next()?, end: numbers.next()?, synced: numbers.next()? };
        (body.len() == 32).then_some(link)
    }
}

/// Bytes by which a segment grows: ten thousand writes, and little room that stays unused.
const ROOM: usize = 2 << 20;

/// By how much the segment of a memtable of so many bytes grows, and how long it is from the start.
fn room(size: usize) -> u64 {
    size.min(ROOM) as u64
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.wal")
}

/// The number in the name of a file with this extension.
pub(super) fn number_of(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Begins a memtable of so many bytes and its segment, behind another whose writes are all in the kernel.
pub(super) fn begin(
    fs: &dyn Fs,
    dir: &Path,
    number: u64,
    first_seq: u64,
    before: Option<&Memory>,
    size: usize,
) -> Result<Memory> {
    let path = dir.join(file_name(number));
    let file = create_segment(fs, &path, Header::Wal, &Link::behind(before, first_seq).record(), room(size))?;
    let end = segment_start();
    let log = Log::new(&path, Framing::Binary, file, end, end).with_room(room(size), room(size));
    Ok(Memory { table: Memtable::new(size), log, number })
}

/// A segment that was made in advance.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) number: u64,
    file: Arc<dyn File>,
}

/// Makes a segment that is to be begun later, of so many bytes.
pub(super) fn prepare(fs: &dyn Fs, dir: &Path, number: u64, size: usize) -> Result<Spare> {
    let file = create_segment(fs, &dir.join(file_name(number)), Header::Wal, &[], room(size))?;
    Ok(Spare { number, file })
}

/// Begins a memtable of so many bytes in a segment that was made in advance. Its link is in the kernel.
pub(super) fn begin_in(spare: &Spare, dir: &Path, first_seq: u64, before: &Memory, size: usize) -> Result<Memory> {
    write_link(&spare.file, dir.join(file_name(spare.number)), spare.number, Link::behind(Some(before), first_seq), size)
}

fn write_link(file: &Arc<dyn File>, path: PathBuf, number: u64, link: Link, size: usize) -> Result<Memory> {
    let start = Header::Wal.line().len() as u64;
    write_all_at(&**file, &link.record(), start).map_err(|e| Error::io("write to", &path, e))?;
    let log = Log::new(&path, Framing::Binary, Arc::clone(file), start, segment_start()).with_room(room(size), room(size));
    Ok(Memory { table: Memtable::new(size), log, number })
}

/// What the segments held.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// From the oldest to the newest.
    pub(super) memories: Vec<Memory>,
    pub(super) max_seq: u64,
    /// What a crash left behind and was cut off.
    pub(super) cut: Option<(PathBuf, Cut)>,
}

/// A segment as it was read.
struct Segment {
    path: PathBuf,
    file: Arc<dyn File>,
    number: u64,
    /// `None` for one that was never begun.
    link: Option<Link>,
    table: Memtable,
    max_seq: u64,
    end: u64,
    synced: u64,
    cut: Option<Cut>,
    /// What salvage left out.
    dropped: Vec<Cut>,
}

impl Segment {
    fn first_seq(&self) -> u64 {
        self.link.map_or(0, |link| link.first_seq)
    }
}

/// Reads the segments with these numbers and cuts off what a crash left of their end. Writes up to `flushed`
/// are in tables.
pub(super) fn recover(fs: &dyn Fs, dir: &Path, numbers: &[u64], flushed: u64, size: usize) -> Result<Recovered> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut broken: Option<String> = None;
    let mut given_up = Vec::new();
    let (mut first, mut unused) = (None, Vec::new());
    for &number in numbers {
        let segment = read(fs, dir.join(file_name(number)), number, size, Mode::Strict)?;
        if segment.link.is_none() {
            // Made in advance; or begun, and then neither it nor what is linked to it was ever synced.
            if segment.cut.is_some() {
                given_up.push(segment.path.clone());
            }
            if numbers.first() == Some(&number) {
                broken = Some(format!("segment {number} was never begun"));
                first = Some(segment);
            } else {
                unused.push(segment.path);
            }
            continue;
        }
        if broken.is_none()
            && let Some(last) = segments.last()
        {
            broken = breach(&segment, last)?;
            if broken.is_some() && segment.max_seq < segment.first_seq() {
                // Begun, but never used: the next one continues the same segment.
                broken = None;
                given_up.push(segment.path);
                continue;
            }
        }
        if broken.is_none() {
            segments.push(segment);
        } else {
            refuse_synced(&segment, segments.last())?;
            given_up.push(segment.path);
        }
    }
    let mut recovered = Recovered { max_seq: flushed, ..Recovered::default() };
    if let Some(path) = given_up.first() {
        let what = broken.unwrap_or_else(|| "a segment that was never used".to_owned());
        recovered.cut = Some((path.clone(), Cut { offset: 0, len: 0, what }));
    }
    let first_path = first.as_ref().map(|segment| &segment.path);
    let gone: Vec<&PathBuf> = given_up.iter().chain(&unused).filter(|path| first_path != Some(*path)).collect();
    if !gone.is_empty() {
        // Before anything is appended to the segment in front: it might come to end where its successor says.
        for path in gone {
            remove_leftover(fs, path)?;
        }
        fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    }
    if let Some(Segment { path, file, number, .. }) = first {
        // The manifest names it, so it stays, and begins now; of what it held nothing was promised.
        let start = Header::Wal.line().len() as u64;
        file.set_len(start).and_then(|()| file.set_len(room(size))).map_err(|e| Error::io("cut", &path, e))?;
        let memory = write_link(&file, path.clone(), number, Link { first_seq: flushed + 1, ..Link::default() }, size)?;
        file.sync_all().map_err(|e| Error::io("sync", &path, e))?;
        recovered.memories.push(memory);
    }
    for segment in segments {
        let Segment { path, file, number, table, max_seq, end, synced, cut, .. } = segment;
        if let Some(cut) = cut {
            file.set_len(end).and_then(|()| file.sync_all()).map_err(|e| Error::io("cut", &path, e))?;
            recovered.cut = Some((path.clone(), cut));
        }
        recovered.max_seq = recovered.max_seq.max(max_seq);
        let len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let log = Log::new(&path, Framing::Binary, file, synced, end).with_room(len, room(size));
        recovered.memories.push(Memory { table, log, number });
    }
    Ok(recovered)
}

/// What cannot be read: file, offset, and what stands there.
pub(super) type Gap = (PathBuf, u64, String);

/// The gap that a refusal tells of; any other error stays one.
pub(super) fn gap_of(e: Error) -> Result<Gap> {
    match e {
        Error::Corrupt { file, offset, what, .. } => Ok((file, offset, what)),
        Error::Format { file, found } => Ok((file, 0, format!("it starts with {found:?}"))),
        e => Err(e),
    }
}

/// Reads what can be read of the segments with these numbers, changing nothing, and says what cannot. A segment from
/// the number `first` on that one of them follows, and of which nothing is left, is lost.
pub(super) fn salvage(fs: &dyn Fs, dir: &Path, numbers: &[u64], first: u64, size: usize) -> Result<(Vec<Memory>, Vec<Gap>)> {
    let (mut memories, mut gaps): (Vec<Memory>, Vec<Gap>) = Default::default();
    let mut last: Option<(PathBuf, u64, u64)> = None;
    // Segments that were begun, and those that were told of.
    let mut known: BTreeSet<u64> = (!numbers.contains(&first)).then_some(first).into_iter().collect();
    for &number in numbers {
        let path = dir.join(file_name(number));
        let strict = read(fs, path.clone(), number, size, Mode::Strict);
        let segment = match strict {
            Err(Error::Corrupt { .. } | Error::Format { .. }) => read(fs, path, number, size, Mode::Salvage),
            other => other,
        };
        let segment = match segment {
            Ok(segment) => segment,
            Err(e) => {
                gaps.push(gap_of(e)?);
                known.insert(number);
                last = None;
                continue;
            }
        };
        // A torn tail may have been whole once.
        gaps.extend(segment.dropped.iter().chain(&segment.cut).map(|d| (segment.path.clone(), d.offset, d.what.clone())));
        let Some(link) = segment.link else { continue };
        if let Some((path, before, end)) = last.take()
            && before == link.before
            && end < link.end
        {
            gaps.push((path, end, format!("it ended at byte {} once", link.end)));
        }
        known.insert(number);
        if link.before >= first && link.end > segment_start() && known.insert(link.before) {
            gaps.push((dir.join(file_name(link.before)), 0, format!("segment {number} follows it, and nothing is left of it")));
        }
        last = Some((segment.path.clone(), number, segment.end));
        let log = Log::new(&segment.path, Framing::Binary, segment.file, segment.synced, segment.end);
        memories.push(Memory { table: segment.table, log, number });
    }
    Ok((memories, gaps))
}

/// Why a segment does not continue the one before it; `None` if it does.
///
/// # Errors
/// [`Error::Corrupt`] when the end that is missing was synced.
fn breach(segment: &Segment, last: &Segment) -> Result<Option<String>> {
    let link = segment.link.unwrap_or_default();
    if link.before == last.number && link.end == last.end {
        return Ok(None);
    }
    if link.before == last.number && last.end < link.synced {
        return Err(Error::corrupt(&last.path, last.end, format!("it was synced to byte {}", link.synced)));
    }
    let why = format!("segment {} ended at byte {}, and it ends at {} now", link.before, link.end, last.end);
    refuse_synced(segment, Some(last))?;
    Ok(Some(why))
}

/// A segment that was synced after it was begun vouches for all before it.
fn refuse_synced(segment: &Segment, last: Option<&Segment>) -> Result<()> {
    if segment.synced > segment_start() {
        let (path, offset) = last.map_or((&segment.path, 0), |last| (&last.path, last.end));
        return Err(Error::corrupt(
            path,
            offset,
            format!("{} was synced after it, and does not follow it", segment.path.display()),
        ));
    }
    Ok(())
}

/// Where the writes of a segment begin.
fn segment_start() -> u64 {
    (Header::Wal.line().len() + Link::default().record().len()) as u64
}

/// Reads a segment into a memtable of so many bytes. Its header was synced before it got its name.
fn read(fs: &dyn Fs, path: PathBuf, number: u64, size: usize, mode: Mode) -> Result<Segment> {
    let file = fs.open(&path).map_err(|e| Error::io("open", &path, e))?;
    if identify(&*file, &path)? != Some(Header::Wal) {
        return Err(Error::corrupt(&path, 0, "it is no segment of a write-ahead log"));
    }
    let len = file.len().map_err(|e| Error::io("read", &path, e))?;
    let start = Header::Wal.line().len() as u64;
    let table = Memtable::new(size);
    let (mut link, mut max_seq) = (None, 0);
    let found = replay(&*file, &path, Framing::Binary, start..len, mode, |offset, kind, body| {
        let wrong = |what: &str| Error::corrupt(&path, offset, what);
        match (kind, link) {
            (b'L', None) => link = Some(Link::read(body).ok_or_else(|| wrong("a first record that makes no sense"))?),
            (WRITE | PACKED, Some(_)) => {
                if kind == PACKED {
                    // Nothing is wrong with the file: another build reads it, and salvage must not leave it out.
                    packed_with(body).map_or(Ok(()), packing::check)?;
                }
                let unpacked = (kind == PACKED).then(|| unpack_write(body)).transpose();
                let unpacked = unpacked.map_err(|why| wrong(&format!("a write that cannot be unpacked: {why}")))?;
                let body = unpacked.as_deref().unwrap_or(body);
                let (first, count, changes) = read_write(body).ok_or_else(|| wrong("a write that makes no sense"))?;
                if first <= max_seq {
                    return Err(wrong("a write that is older than the one before it"));
                }
                table.insert((first..).zip(changes).map(|(seq, (kind, key, stored))| (key, kind.tag(seq), stored)));
                max_seq = first + u64::from(count).max(1) - 1;
            }
            // Says nothing but how far the log was synced.
            (b'M', Some(_)) => {}
            _ => return Err(wrong("a record that does not belong here")),
        }
        Ok(())
    })?;
    let synced = found.synced.max(start);
    let max_seq = max_seq.max(link.map_or(0, |link: Link| link.first_seq.saturating_sub(1)));
    Ok(Segment { path, file, number, link, table, max_seq, end: found.end, synced, cut: found.cut, dropped: found.dropped })
}
