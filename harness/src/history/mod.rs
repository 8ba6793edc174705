//! What was asked, and what was promised, in a memory-mapped file that outlives the process writing it.
//!
//! Each client has a row of slots, one for each call of its stream: when the call began, and when and
//! how it ended; of a call on a queue also which entry it was about. Marking a call is a few plain stores to memory,
//! so the writer runs at its own speed.
//! A header word tells in which of the moments that kills are aimed at the process is right now.

use crate::measure::clock::boot_ns;
use memmap2::{MmapOptions, MmapRaw};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared history.
#[derive(Debug)]
pub struct History {
    map: MmapRaw,
    clients: u64,
    capacity: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Acknowledged at this time.
    Acked(u64),
    /// The store said that it failed.
    Failed(u64),
    /// In flight when the process died.
    Unknown,
}

/// A call that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// When, on the monotonic clock.
    pub begin: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Slot {
    /// When it was acknowledged, if that was before the moment `until`.
    pub fn acked_by(&self, until: u64) -> Option<u64> {
        if let Outcome::Acked(at) = self.outcome { Some(at).filter(|at| *at < until) } else { None }
    }
}

/// Which entry of a queue a call was about: enough to tell it from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its index; of a batch, that of the first.
    pub index: u64,
    /// The [`fingerprint`] of its text, if it was taken out.
    pub text: u64,
}

/// A number that tells texts apart (XXH3).
pub fn fingerprint(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// A moment that a kill can be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Moment {
    /// None of those below.
    Elsewhere = 0,
    /// Inside a write of at least one mebibyte.
    InsideWrite = 1,
    /// Inside the copying of a shrink.
    ShrinkCopy = 2,
    /// Between a rename and the sync of its directory.
    AfterRename = 3,
    /// Inside the opening of a store that exists.
    Recovery = 4,
    /// Right after the store was created.
    Creation = 5,
    /// In front of a write, so that what needs several writes is caught between them.
    BeforeWrite = 6,
}

impl Moment {
    /// The moments that kills are aimed at.
    pub const AIMED: [Moment; 6] =
        [Moment::InsideWrite, Moment::ShrinkCopy, Moment::AfterRename, Moment::Recovery, Moment::Creation, Moment::BeforeWrite];

    /// Whether it only exists while a store shrinks.
    pub fn needs_shrink(self) -> bool {
        matches!(self, Moment::ShrinkCopy | Moment::AfterRename)
    }

    /// Its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Moment::Elsewhere => "anywhere",
            Moment::InsideWrite => "inside-1mib-write",
            Moment::ShrinkCopy => "inside-shrink-copy",
            Moment::AfterRename => "after-rename",
            Moment::Recovery => "inside-recovery",
            Moment::Creation => "after-creation",
            Moment::BeforeWrite => "before-write",
        }
    }

    fn from_word(word: u64) -> Self {
        Self::AIMED.into_iter().find(|m| *m as u64 == word).unwrap_or(Moment::Elsewhere)
    }
}

const HEADER: u64 = 16;
/// Words of a slot: begin, end, index of an entry and one, fingerprint of its text.
const SLOT: u64 = 4;
const MOMENT: u64 = 0;
const READY: u64 = 1;
const LINGERING: u64 = 2;

impl History {
    /// Creates an empty history in `path` with a row of `capacity` slots for each client.
    pub fn create(path: &Path, clients: u64, capacity: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        // Allocated, not only sized: a hole that finds no room when it is written to kills the writer.
        let bytes = (HEADER + clients * capacity * SLOT) * 8;
        nix::fcntl::posix_fallocate(&file, 0, bytes as i64)?;
        drop(file);
        Self::open(path, clients, capacity)
    }

    /// Opens a history that another process created with the same numbers.
    pub fn open(path: &Path, clients: u64, capacity: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = (HEADER + clients * capacity * SLOT) * 8;
        if file.metadata()?.len() != bytes {
            return Err(io::Error::other("the history has another size than expected"));
        }
        let map = MmapOptions::new().len(bytes as usize).map_raw(&file)?;
        Ok(Self { map, clients, capacity })
    }

    /// Slots in a row.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Marks a call as begun.
    pub fn begin(&self, client: u64, call: u64) {
        self.word(self.slot(client, call)).store(boot_ns(), Ordering::Release);
    }

    /// Marks a call as acknowledged or failed.
    pub fn end(&self, client: u64, call: u64, acked: bool) {
        self.word(self.slot(client, call) + 1).store(boot_ns() << 1 | u64::from(!acked), Ordering::Release);
    }

    /// Says which entry a call was about, before it is marked as ended.
    pub fn note(&self, client: u64, call: u64, note: Note) {
        self.word(self.slot(client, call) + 3).store(note.text, Ordering::Release);
        self.word(self.slot(client, call) + 2).store(note.index + 1, Ordering::Release);
    }

    /// Which entry a call was about; `None` if none was noted.
    pub fn noted(&self, client: u64, call: u64) -> Option<Note> {
        let word = |n| self.word(self.slot(client, call) + n).load(Ordering::Acquire);
        Some(Note { index: word(2).checked_sub(1)?, text: word(3) })
    }

    /// The calls of a client that began, in order.
    pub fn row(&self, client: u64) -> Vec<Slot> {
        let read = |call| {
            let begin = self.word(self.slot(client, call)).load(Ordering::Acquire);
            let outcome = match self.word(self.slot(client, call) + 1).load(Ordering::Acquire) {
                0 => Outcome::Unknown,
                end if end & 1 == 0 => Outcome::Acked(end >> 1),
                end => Outcome::Failed(end >> 1),
            };
            (begin != 0).then_some(Slot { begin, outcome })
        };
        (0..self.capacity).map_while(read).collect()
    }

    /// Says in which moment the process is.
    pub fn enter(&self, moment: Moment) {
        self.word(MOMENT).store(moment as u64, Ordering::Release);
    }

    /// In which moment the process is, or was when it died.
    pub fn moment(&self) -> Moment {
        Moment::from_word(self.word(MOMENT).load(Ordering::Acquire))
    }

    /// Says that the clients are running.
    pub fn set_ready(&self) {
        self.word(READY).store(1, Ordering::Release);
    }

    /// Whether the clients are running.
    pub fn is_ready(&self) -> bool {
        self.word(READY).load(Ordering::Acquire) == 1
    }

    /// Says that the process waits inside the moment that the kill is aimed at.
    pub fn set_lingering(&self) {
        self.word(LINGERING).store(1, Ordering::Release);
    }

    /// Whether the process waits to be killed.
    pub fn is_lingering(&self) -> bool {
        self.word(LINGERING).load(Ordering::Acquire) == 1
    }

    fn slot(&self, client: u64, call: u64) -> u64 {
        assert!(client < self.clients && call < self.capacity, "slot {call} of client {client} does not exist");
        HEADER + (client * self.capacity + call) * SLOT
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        debug_assert!(((index + 1) * 8) as usize <= self.map.len());
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and holds at least `index + 1`
        // words: `open` checked its size, `slot` its bounds. Both processes access it through atomics only.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index as usize)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let writer = History::create(&path, 2, 4).unwrap();
        writer.begin(1, 0);
        writer.end(1, 0, true);
        writer.begin(1, 1);
        writer.end(1, 1, false);
        writer.begin(1, 2);
        writer.enter(Moment::AfterRename);
        let judge = History::open(&path, 2, 4).unwrap();
        let outcomes: Vec<Outcome> = judge.row(1).iter().map(|s| s.outcome).collect();
        assert!(matches!(outcomes[..], [Outcome::Acked(_), Outcome::Failed(_), Outcome::Unknown]), "{outcomes:?}");
        assert!(judge.row(0).is_empty());
        assert_eq!(judge.moment(), Moment::AfterRename);
        assert!(History::open(&path, 2, 5).is_err());
    }
}
