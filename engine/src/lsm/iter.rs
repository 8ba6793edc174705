//! Keys and values in order, forward or reverse, as of one sequence number.

use super::cursor::{Direction, Merge};
use super::entry::{Tag, unpack};
use super::store::Core;
use super::view::View;
use crate::error::Result;
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

/// Bounds of keys.
pub(super) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Keys and values of a range in order. Sees the store as it was when the iterator was made, whatever is written
/// meanwhile.
pub struct Iter {
    core: Arc<Core>,
    view: Arc<View>,
    merge: Merge<'static>,
    direction: Direction,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    seq: u64,
    now: u64,
    begun: bool,
    done: bool,
    /// The last key that was looked at; versions of it that follow are older.
    key: Vec<u8>,
    /// Whether the merge still stands at the version that was shown last, with its value.
    lags: bool,
    /// The value that was shown last, where it does not.
    value: Vec<u8>,
}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").field("seq", &self.seq).field("direction", &self.direction).finish_non_exhaustive()
    }
}

impl Iter {
    pub(super) fn new(core: Arc<Core>, view: Arc<View>, seq: u64, range: KeyRange, direction: Direction) -> Self {
        let merge = view.merge(direction, 0);
        let now = core.options.clock.now();
        let (start, end) = range;
        Self {
            core,
            view,
            merge,
            direction,
            start,
            end,
            seq,
            now,
            begun: false,
            done: false,
            key: Vec::new(),
            lags: false,
            value: Vec::new(),
        }
    }

    /// The next key and value, without copying them out.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`]; after an error the iterator has ended.
    pub fn advance(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.done {
            return Ok(None);
        }
        let found = self.find();
        self.done = !matches!(found, Ok(true));
        found.map(|found| found.then_some((&self.key[..], self.shown())))
    }

    /// The value of the version that was found last: in its block or memtable, if it can be looked at there.
    fn shown(&self) -> &[u8] {
        let here = if self.lags { self.merge.current() } else { None };
        here.and_then(|(_, tag, stored)| unpack(tag, stored)).map_or(&self.value[..], |(_, value)| value)
    }

    fn find(&mut self) -> Result<bool> {
        if !self.begun {
            self.begun = true;
            self.core.scanned(&self.view.version);
            self.place()?;
            return if self.direction == Direction::Forward { self.forward(false) } else { self.reverse() };
        }
        if std::mem::take(&mut self.lags) {
            self.merge.step()?;
        }
        if self.direction == Direction::Forward { self.forward(true) } else { self.reverse() }
    }

    fn place(&mut self) -> Result<()> {
        let first = Tag::newest_of((1 << 56) - 1);
        match (self.direction, &self.start, &self.end) {
            (Direction::Forward, Bound::Unbounded, _) => self.merge.place(|c| c.first()),
            (Direction::Forward, Bound::Included(key), _) => self.merge.place(|c| c.seek(key, first)),
            (Direction::Forward, Bound::Excluded(key), _) => self.merge.place(|c| c.seek(&[key, &[0][..]].concat(), first)),
            (Direction::Reverse, _, Bound::Unbounded) => self.merge.place(|c| c.last()),
            (Direction::Reverse, _, Bound::Excluded(key)) => self.merge.place(|c| c.seek_before(key, first)),
            (Direction::Reverse, _, Bound::Included(key)) => {
                self.merge.place(|c| c.seek_before(&[key, &[0][..]].concat(), first))
            }
        }
    }

    fn forward(&mut self, mut seen: bool) -> Result<bool> {
        loop {
            let Some((key, tag, stored)) = self.merge.current() else { return Ok(false) };
            if tag.seq() <= self.seq && !(seen && key == &self.key[..]) {
                if is_behind(&self.end, key) {
                    return Ok(false);
                }
                self.key.clear();
                self.key.extend_from_slice(key);
                seen = true;
                match self.view.value_of(&self.core.dir, key, tag, stored, self.now)? {
                    None => {}
                    Some(Cow::Borrowed(_)) => {
                        self.lags = true;
                        return Ok(true);
                    }
                    Some(Cow::Owned(value)) => {
                        self.value = value;
                        self.merge.step()?;
                        return Ok(true);
                    }
                }
            }
            self.merge.step()?;
        }
    }

    /// Versions of a key come from the oldest on: the last that is not too new counts.
    fn reverse(&mut self) -> Result<bool> {
        loop {
            let Some((key, ..)) = self.merge.current() else { return Ok(false) };
            if is_before(&self.start, key) {
                return Ok(false);
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            let mut shown = false;
            while let Some((key, tag, stored)) = self.merge.current() {
                if key != &self.key[..] {
                    break;
                }
                if tag.seq() <= self.seq {
                    let value = self.view.value_of(&self.core.dir, key, tag, stored, self.now)?;
                    shown = value.is_some();
                    if let Some(value) = value {
                        self.value.clear();
                        self.value.extend_from_slice(&value);
                    }
                }
                self.merge.step()?;
            }
            if shown {
                return Ok(true);
            }
        }
    }
}

impl Iterator for Iter {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|found| found.map(|(key, value)| (key.to_vec(), value.to_vec()))).transpose()
    }
}

fn is_behind(end: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match end {
        Bound::Unbounded => false,
        Bound::Included(end) => key > &end[..],
        Bound::Excluded(end) => key >= &end[..],
    }
}

fn is_before(start: &Bound<Vec<u8>>, key: &[u8]) -> bool {
    match start {
        Bound::Unbounded => false,
        Bound::Included(start) => key < &start[..],
        Bound::Excluded(start) => key <= &start[..],
    }
}

/// The keys that begin with a prefix.
pub(super) fn prefix(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}
