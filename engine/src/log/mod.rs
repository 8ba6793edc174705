//! One log for all stores: two framings, one writer, one reader, one damage rule.
//!
//! A log is a header followed by records. A record has a kind (one byte), a body, a CRC32C over both,
//! and sometimes a *mark*: how far the log was synced when the record was submitted. Marks let the
//! reader tell a torn tail, which it cuts, from rot in what was once synced, which is an error.
//!
//! **Invariant:** nothing is ever appended behind damage, and a cut is synced before the next append,
//! so that bytes of an abandoned tail cannot come back between the bytes of a new one.

mod group_commit;
mod reader;
mod record;
mod segment;
mod text;
mod writer;

pub use reader::{Cut, Dropped, LogReader, Mode, Replayed, replay};
pub use segment::{Header, create_segment, identify, segment_name, segment_number};
pub(crate) use segment::{beside, draft_segment, publish, publish_segment, remove_leftover, take_lock};
pub(crate) use text::changes;
pub use writer::{Log, LogStats, Ticket, Written};

use std::ops::Range;

/// How records become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Length, checksum, kind, body: for stores whose files no person reads.
    Binary,
    /// Lines of text that a person can read and write.
    Text,
    /// Lines of text without checksums, as go-persist writes them. Read only.
    GoPersist,
}

/// A record as it lies in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the record says, a letter in the text framing.
    pub kind: u8,
    /// Where its body lies in the buffer.
    pub body: Range<usize>,
    /// Distance in bytes from the record's start back to the end of what was synced when it was
    /// submitted.
    pub mark: Option<u64>,
    /// Whether a checksum vouches for it.
    pub checked: bool,
    /// Length of the whole record in bytes.
    pub len: usize,
}

/// What stands at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole record.
    Record(Frame),
    /// The beginning of a record, or nothing: more bytes are needed to tell.
    Incomplete,
    /// Not a record.
    Damaged(Damage),
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What was found, in words.
    pub what: String,
    /// The checksum token of a record that is well formed but not what its checksum says: it was
    /// edited, not torn.
    pub edited: Option<String>,
}

impl Damage {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), edited: None }
    }
}

/// A record longer than this is damage: a length field or a missing newline gone wrong.
pub const MAX_RECORD: usize = 1 << 30;

impl Framing {
    /// Reads the record at the start of `bytes`.
    pub fn parse(self, bytes: &[u8]) -> Parsed {
        let parsed = match self {
            Framing::Binary => record::parse(bytes),
            Framing::Text => text::parse(bytes),
            Framing::GoPersist => text::parse_go_persist(bytes),
        };
        match parsed {
            Parsed::Incomplete if bytes.len() > MAX_RECORD => Parsed::Damaged(Damage::new("a record without end")),
            other => other,
        }
    }

    /// Appends a record. `crc` is [`Framing::checksum`] of the same kind and body.
    pub fn encode(self, out: &mut Vec<u8>, kind: u8, body: &[u8], crc: u32, mark: Option<u64>) {
        match self {
            Framing::Binary => record::encode(out, kind, body, crc, mark),
            Framing::Text | Framing::GoPersist => text::encode(out, kind, body, crc, mark),
        }
    }

    /// The part of a record's checksum that does not depend on its mark, so that it can be computed
    /// before the log is locked.
    pub fn checksum(kind: u8, body: &[u8]) -> u32 {
        crate::codec::crc32c_append(crate::codec::crc32c(&[kind]), body)
    }

    /// Offsets after `from` at which a record may start, for finding the next one behind damage.
    fn candidates(self, bytes: &[u8], from: usize) -> impl Iterator<Item = usize> + '_ {
        (from..bytes.len()).filter(move |&at| match self {
            // No record is of length zero, and kinds are letters: what looks like random may be searched at every byte.
            Framing::Binary => {
                bytes[at..].first_chunk() != Some(&[0; 4]) && bytes.get(at + 8).is_none_or(u8::is_ascii_alphabetic)
            }
            Framing::Text | Framing::GoPersist => at > 0 && bytes[at - 1] == b'\n',
        })
    }
}
