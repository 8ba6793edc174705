//! Reading a log from its start, and the rule for what to do at damage.
//!
//! Damage below the highest mark lies in what was once synced: an error. Damage above it is what a
//! crash leaves: the log ends there, what follows is cut and reported. A mark is believed only from a
//! record whose checksum holds. A binary log may end in zeros: it was made longer than what it holds.

use super::{Damage, Frame, Framing, Parsed};
use crate::error::{Error, Result};
use crate::fs::{File, read_full_at};
use std::ops::Range;
use std::path::Path;

const CHUNK: usize = 1 << 20;

/// What a reader does at damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Cut a torn tail, refuse rot.
    Strict,
    /// Keep every record that can be read, and report the rest.
    Salvage,
}

/// The end of a log that a crash left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the last whole record ends.
    pub offset: u64,
    /// How many bytes follow it.
    pub len: u64,
    /// What stood there.
    pub what: String,
}

/// A stretch that salvage could not read.
pub type Dropped = Cut;

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Where the last whole record ends: the place of the next append once the file is cut to it.
    pub end: u64,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
    /// What salvage left out.
    pub dropped: Vec<Dropped>,
    /// Records seen, blank lines and marks aside.
    pub records: u64,
    /// Up to where marks say that the log was synced; to its end, if the last record is nothing but a mark that
    /// vouches for all before it.
    pub synced: u64,
}

/// Reads records in order, in chunks.
#[derive(Debug)]
pub struct LogReader<'f> {
    file: &'f dyn File,
    path: &'f Path,
    framing: Framing,
    buf: Vec<u8>,
    /// Consumed bytes of `buf`.
    at: usize,
    /// File offset of `buf[0]`.
    base: u64,
    /// Where to stop, at most the file's length.
    end: u64,
    /// Bytes to read at once.
    chunk: usize,
}

/// What stands at the reader's position.
enum Step {
    Record(Frame),
    /// Nothing more, and nothing left over.
    End,
    Damaged(Damage),
}

impl<'f> LogReader<'f> {
    /// A reader of the records between two file offsets.
    pub fn new(file: &'f dyn File, path: &'f Path, framing: Framing, start: u64, end: u64) -> Self {
        Self { file, path, framing, buf: Vec::new(), at: 0, base: start, end, chunk: CHUNK }
    }

    /// The same reader, with so many bytes read at once, for whoever wants but a few records.
    pub fn in_chunks(self, bytes: usize) -> Self {
        Self { chunk: bytes, ..self }
    }

    /// The next record with its file offset, or `None` at the end. Bytes that are no record end the
    /// reading with [`Error::Corrupt`]: for logs that are known to be whole.
    pub fn next_record(&mut self) -> Result<Option<(u64, Frame, &[u8])>> {
        let offset = self.offset();
        match self.step()? {
            Step::End => Ok(None),
            Step::Damaged(damage) => Err(corrupt(self.path, offset, &damage)),
            Step::Record(frame) => {
                let start = self.at;
                self.at += frame.len;
                let body = &self.buf[start + frame.body.start..start + frame.body.end];
                Ok(Some((offset, frame, body)))
            }
        }
    }

    fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    fn step(&mut self) -> Result<Step> {
        loop {
            match self.framing.parse(&self.buf[self.at..]) {
                Parsed::Record(frame) => return Ok(Step::Record(frame)),
                Parsed::Damaged(damage) => return Ok(Step::Damaged(damage)),
                Parsed::Incomplete if !self.fill()? => {
                    return Ok(match self.buf.len() - self.at {
                        0 => Step::End,
                        n => Step::Damaged(Damage::new(format!("a record that ends after {n} bytes"))),
                    });
                }
                Parsed::Incomplete => {}
            }
        }
    }

    /// Reads more; at least doubles what is held of the current record, so that long records cost
    /// linear time. False at the end.
    fn fill(&mut self) -> Result<bool> {
        self.buf.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        let held = self.buf.len();
        let from = self.base + held as u64;
        let want = (self.chunk.max(held) as u64).min(self.end.saturating_sub(from)) as usize;
        self.buf.resize(held + want, 0);
        let got = read_full_at(self.file, &mut self.buf[held..], from).map_err(|e| Error::io("read", self.path, e))?;
        self.buf.truncate(held + got);
        Ok(got > 0)
    }

    /// Whether nothing but zeros follows: room that was not used when it was read. Only what was read counts, because a
    /// look at the file may find what another process has put there since.
    fn is_blank(&mut self) -> Result<bool> {
        loop {
            if self.buf[self.at..].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if !self.fill()? {
                return Ok(true);
            }
        }
    }

    /// Forgets what was read ahead, to read on from here as the file is now, up to `end`.
    fn look_again(&mut self, end: u64) {
        self.base = self.offset();
        self.end = end;
        self.buf.clear();
        self.at = 0;
    }

    /// Everything from the current position to the end.
    fn rest(&mut self) -> Result<&[u8]> {
        while self.fill()? {}
        Ok(&self.buf[self.at..])
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

/// Reads the records of a file within `range` and hands each record to `apply` as (file offset, kind, body), applying
/// the damage rule.
///
/// # Errors
/// [`Error::Corrupt`] for rot and for edited records in [`Mode::Strict`]; [`Error::Io`]; whatever
/// `apply` returns.
pub fn replay(
    file: &dyn File,
    path: &Path,
    framing: Framing,
    range: Range<u64>,
    mode: Mode,
    mut apply: impl FnMut(u64, u8, &[u8]) -> Result<()>,
) -> Result<Replayed> {
    let mut found = Replayed { end: range.start, ..Replayed::default() };
    // Room that was made in advance is not read: its pages would stay in the kernel, in folios so large that each small
    // write to one of them costs a walk over all of its blocks.
    let mut end = range.end;
    if framing == Framing::Binary {
        end = end.min(file.written_len().map_err(|e| Error::io("read", path, e))?);
    }
    let mut reader = LogReader::new(file, path, framing, range.start, end);
    // Where something looked like rot that another process may have been writing.
    let mut doubted = None;
    loop {
        let offset = reader.offset();
        match reader.step()? {
            Step::End => return Ok(found),
            Step::Record(frame) => {
                if let Some(distance) = frame.mark {
                    found.synced = found.synced.max(offset.saturating_sub(distance));
                }
                if !matches!(frame.kind, b'\n' | b'M') || framing == Framing::Binary {
                    found.records += 1;
                    let body = &reader.buf[reader.at + frame.body.start..reader.at + frame.body.end];
                    apply(offset, frame.kind, body)?;
                }
                reader.skip(frame.len);
                found.end = reader.offset();
                if frame.kind == b'M' && framing == Framing::Text && frame.mark == Some(0) && reader.offset() == range.end {
                    found.synced = found.end;
                }
            }
            Step::Damaged(_) if framing == Framing::Binary && reader.is_blank()? => return Ok(found),
            // Zeros at the end of a record may be a hole by now, if somebody copied the file.
            Step::Damaged(_) if end < range.end => {
                end = range.end;
                reader.look_again(end);
            }
            Step::Damaged(damage) => {
                let rest = reader.rest()?;
                if mode == Mode::Strict {
                    if damage.edited.is_some() || is_handwritten(framing, rest) || rots(framing, rest, offset) {
                        // A mark that was read later than the damage may tell of what was written in between.
                        if framing == Framing::Binary && doubted.replace(offset) != Some(offset) {
                            reader.look_again(end);
                            continue;
                        }
                        return Err(corrupt(path, offset, &damage));
                    }
                    found.cut = Some(Cut { offset, len: rest.len() as u64, what: damage.what });
                    return Ok(found);
                }
                let next = framing.candidates(rest, 1).find(|&at| matches!(framing.parse(&rest[at..]), Parsed::Record(_)));
                let dropped = next.unwrap_or(rest.len());
                found.dropped.push(Dropped { offset, len: dropped as u64, what: damage.what });
                reader.skip(dropped);
            }
        }
    }
}

/// Whether the damaged line was written by a person: the store itself puts a token into every line, and
/// a crash does not take it out. Nothing written by hand is ever cut as a torn tail.
fn is_handwritten(framing: Framing, rest: &[u8]) -> bool {
    framing == Framing::Text && matches!(rest, [b'S' | b'D' | b'B', b' ', ..])
}

/// Whether a believable mark behind the damage at `offset` says that the damaged bytes were synced.
/// A record without a checksum says it too: the store writes none, so somebody edited the file after
/// the last crash, and it is not a tail. A go-persist file has no others.
fn rots(framing: Framing, rest: &[u8], offset: u64) -> bool {
    let covers = |at: usize| match framing.parse(&rest[at..]) {
        Parsed::Record(Frame { kind: b'S' | b'D' | b'B', checked: false, .. }) => true,
        Parsed::Record(Frame { mark: Some(distance), checked: true, .. }) => {
            (offset + at as u64).saturating_sub(distance) > offset
        }
        _ => false,
    };
    framing.candidates(rest, 1).any(covers) || (framing == Framing::Text && lost_newlines(rest).any(covers))
}

/// Where a record starts in the middle of a line because the newline before it, the last byte of the
/// damaged record at the start of `rest`, is another byte now. That the damaged record is whole but
/// for this byte keeps a key that reads like a record from being taken for one.
fn lost_newlines(rest: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let starts = memchr::memchr_iter(b'=', rest).filter_map(|equals| equals.checked_sub(1)).filter(|&at| at > 0);
    starts.filter(|&at| {
        let token = rest.get(at + 2..at + 10).and_then(crate::codec::parse_hex);
        if token.is_none() || !b"SDBM".contains(&rest[at]) {
            return false;
        }
        let mended = [&rest[..at - 1], b"\n"].concat();
        matches!(Framing::Text.parse(&mended), Parsed::Record(Frame { checked: true, len, .. }) if len == at)
    })
}

fn corrupt(path: &Path, offset: u64, damage: &Damage) -> Error {
    let remedy = match &damage.edited {
        Some(token) => format!(
            "if it was edited by hand, delete {token:?} from its first line to accept the edit, otherwise open it with salvage to keep what is intact"
        ),
        None => "open it with salvage to keep what is intact".to_owned(),
    };
    Error::Corrupt { file: path.to_owned(), offset, what: damage.what.clone(), remedy }
}
