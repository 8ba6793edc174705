//! A file of entries: how it begins, what is known of it, how it is read.
//!
//! **Invariant:** a segment is whole and synced before its successor begins. So only the last one can have a torn tail,
//! and damage in any other is an error.

use super::place::Place;
use super::record::{BACK, Entries, FRONT, Front, LINK, Link, MARK};
use crate::error::{Error, Result};
use crate::fs::File;
use crate::log::{Framing, Header, LogReader, Mode, Replayed, identify, replay};
use std::path::PathBuf;
use std::sync::Arc;

/// A segment, as far as it is known.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// The index of its first entry.
    pub(super) first: u64,
    /// Where its entries begin.
    pub(super) start: u64,
    /// How far it may be read: its end, if it has a successor.
    pub(super) end: u64,
    /// The index behind the last entry before `end`.
    pub(super) next: u64,
    /// Where its records begin, for reading at random: first entry's distance from `first`, offset.
    pub(super) records: Vec<(u32, u32)>,
    /// How far `records` goes.
    pub(super) indexed: u64,
}

/// What a scan found.
pub(super) struct Scan {
    pub(super) replayed: Replayed,
    pub(super) fronts: Vec<Front>,
}

impl Segment {
    /// Opens a segment and reads how it begins.
    pub(super) fn open(place: &Place, number: u64) -> Result<(Self, Link)> {
        let path = place.segment(number);
        let file = place.fs.open(&path).map_err(|e| Error::io("open", &path, e))?;
        if identify(&*file, &path)? != Some(Header::Fifo) {
            return Err(Error::corrupt(&path, 0, "it is no file of entries"));
        }
        let len = file.len().map_err(|e| Error::io("read", &path, e))?;
        let from = Header::Fifo.line().len() as u64;
        let read = |most: u64| {
            let mut reader = LogReader::new(&*file, &path, Framing::Binary, from, len.min(most));
            let found = reader.next_record()?;
            Ok(found.map(|(_, frame, body)| (frame.kind, Link::read(body), from + frame.len as u64)))
        };
        // Most links are short, and there may be a thousand files.
        let found = read(4 << 10).or_else(|e: Error| if len > 4 << 10 { read(len) } else { Err(e) })?;
        let Some((LINK, Some(link), start)) = found else {
            return Err(Error::corrupt(&path, from, "a first record that makes no sense"));
        };
        let first = link.first;
        let segment = Self { number, path, file, first, start, end: start, next: first, records: Vec::new(), indexed: start };
        Ok((segment, link))
    }

    pub(super) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|e| Error::io("read", &self.path, e))
    }

    pub(super) fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }

    /// Reads on from `end` through what is whole, and moves `end` and `next` behind it.
    pub(super) fn scan(&mut self) -> Result<Scan> {
        let (len, mut fronts) = (self.len()?, Vec::new());
        let (path, number, first) = (&self.path, self.number, self.first);
        let mut next = self.next;
        let replayed = replay(&*self.file, path, Framing::Binary, self.end..len, Mode::Strict, |offset, kind, body| {
            if kind == MARK {
                return Ok(());
            }
            let entries = Entries::read(body).filter(|_| matches!(kind, BACK | FRONT));
            let Some(entries) = entries else { return Err(Error::corrupt(path, offset, "a record that makes no sense")) };
            let from = first + entries.delta;
            if from != next {
                return Err(Error::corrupt(path, offset, format!("entry {from} stands where entry {next} belongs")));
            }
            next = from + entries.left;
            if kind == FRONT {
                fronts.push(Front { first: from, count: entries.left, segment: number, offset });
            }
            Ok(())
        })?;
        self.next = next;
        self.end = replayed.end;
        Ok(Scan { replayed, fronts })
    }

    /// Learns from how a later segment begins where this one ends: that it is whole by now.
    pub(super) fn seal(&mut self, link: &Link) -> Result<()> {
        if link.before != self.number {
            // Those in between are gone. What it should have held, the deletes tell.
            return match self.scan()?.replayed.cut {
                Some(cut) => Err(self.corrupt(cut.offset, cut.what)),
                None => Ok(()),
            };
        }
        let (end, next) = (link.before_end, link.before_next);
        let len = self.len()?;
        if len < end || end < self.end || next < self.next {
            return Err(self.corrupt(len.min(end), format!("it had {end} bytes and the entries up to {next} once")));
        }
        (self.end, self.next) = (end, next);
        Ok(())
    }

    /// Finds out where its records lie, as far as it may be read.
    pub(super) fn index(&mut self) -> Result<()> {
        if self.indexed >= self.end {
            return Ok(());
        }
        let mut reader = LogReader::new(&*self.file, &self.path, Framing::Binary, self.indexed, self.end);
        while let Some((offset, frame, body)) = reader.next_record()? {
            let Some(entries) = Entries::read(body).filter(|_| frame.kind != MARK) else { continue };
            self.records.push((entries.delta as u32, offset as u32));
        }
        self.indexed = self.end;
        Ok(())
    }

    /// Where the record with an entry begins, once the segment is indexed.
    pub(super) fn offset_of(&self, index: u64) -> Option<u64> {
        let delta = index.checked_sub(self.first)?;
        let at = self.records.partition_point(|(first, _)| u64::from(*first) <= delta);
        Some(u64::from(self.records.get(at.checked_sub(1)?)?.1))
    }
}
