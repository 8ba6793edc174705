//! Places in sorted sources, and several sources as one.

use super::entry::{Head, Tag, head, order};
use super::memtable::{Bound, Copied};
use super::sstable::{Table, TableCursor};
use super::wal::Memory;
use crate::error::Result;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::Arc;

/// A place among versions in order. A cursor that has run off either end shows nothing until it is placed again.
pub(super) trait Cursor {
    /// To the first version.
    fn first(&mut self) -> Result<()>;
    /// To the last version.
    fn last(&mut self) -> Result<()>;
    /// To the first version at or behind this one.
    fn seek(&mut self, key: &[u8], tag: Tag) -> Result<()>;
    /// To the last version before this one.
    fn seek_before(&mut self, key: &[u8], tag: Tag) -> Result<()>;
    fn next(&mut self) -> Result<()>;
    fn prev(&mut self) -> Result<()>;
    /// One further; the head of the key there.
    fn step(&mut self, direction: Direction) -> Result<Option<Head>> {
        match direction {
            Direction::Forward => self.next()?,
            Direction::Reverse => self.prev()?,
        }
        Ok(self.current().map(|(key, ..)| head(key)))
    }
    /// Key, tag and stored value.
    fn current(&self) -> Option<(&[u8], Tag, &[u8])>;
}

/// A place in a memtable. Versions are copied out a few at a time, more the further it goes; what is written
/// meanwhile is newer than whoever reads may see.
#[derive(Debug)]
pub(super) struct MemtableCursor {
    memory: Arc<Memory>,
    chunk: Copied,
    /// What the chunk was before, so that its memory is used again.
    spare: Copied,
    at: usize,
    direction: Direction,
}

/// The least and the most versions that are copied out together.
const CHUNK: (usize, usize) = (4, 128);

thread_local! {
    /// Memory that cursors left to those that come after them. Growing it anew for each scan would take time, and leave holes
    /// of odd sizes among the blocks that are cached meanwhile.
    static LEFT: RefCell<Vec<Copied>> = const { RefCell::new(Vec::new()) };
}

/// The most that is left: for scans of as many memtables as a store has, mostly.
const LEFT_MOST: usize = 8;

impl MemtableCursor {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let take = |left: &RefCell<Vec<Copied>>| left.borrow_mut().pop();
        let [chunk, spare] = std::array::from_fn(|_| LEFT.try_with(take).ok().flatten().unwrap_or_default());
        Self { memory, chunk, spare, at: 0, direction: Direction::Forward }
    }

    fn fill(&mut self, from: Bound<'_>, direction: Direction) {
        self.chunk.clear();
        copy(&self.memory, from, direction, CHUNK.0, &mut self.chunk);
        (self.at, self.direction) = (0, direction);
    }

    fn go(&mut self, direction: Direction) {
        if direction == self.direction && self.at + 1 < self.chunk.len() {
            self.at += 1;
            return;
        }
        if self.chunk.len() == 0 {
            return;
        }
        let limit = if direction == self.direction { (2 * self.chunk.len()).clamp(CHUNK.0, CHUNK.1) } else { CHUNK.0 };
        self.spare.clear();
        copy(&self.memory, Bound::Behind(&self.chunk, self.at), direction, limit, &mut self.spare);
        std::mem::swap(&mut self.chunk, &mut self.spare);
        (self.at, self.direction) = (0, direction);
    }
}

impl Drop for MemtableCursor {
    fn drop(&mut self) {
        // In a thread that is about to end there is nobody to leave it to.
        let _ = LEFT.try_with(|left| {
            let mut left = left.borrow_mut();
            for mut copied in [std::mem::take(&mut self.chunk), std::mem::take(&mut self.spare)] {
                if left.len() < LEFT_MOST && copied.is_modest() {
                    copied.clear();
                    left.push(copied);
                }
            }
        });
    }
}

fn copy(memory: &Memory, from: Bound<'_>, direction: Direction, limit: usize, into: &mut Copied) {
    match direction {
        Direction::Forward => memory.table.after(from, limit, into),
        Direction::Reverse => memory.table.before(from, limit, into),
    }
}

impl Cursor for MemtableCursor {
    fn first(&mut self) -> Result<()> {
        self.fill(Bound::End, Direction::Forward);
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        self.fill(Bound::End, Direction::Reverse);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        self.fill(Bound::At(key, tag), Direction::Forward);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        self.fill(Bound::At(key, tag), Direction::Reverse);
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.go(Direction::Forward);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.go(Direction::Reverse);
        Ok(())
    }

    fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        self.chunk.get(self.at)
    }
}

/// A place in tables that do not overlap, in order.
#[derive(Debug)]
pub(super) struct LevelCursor {
    tables: Vec<Arc<Table>>,
    /// The table that the cursor is in.
    at: usize,
    inner: Option<TableCursor>,
    keep: bool,
}

impl LevelCursor {
    pub(super) fn new(tables: Vec<Arc<Table>>, keep: bool) -> Self {
        Self { at: tables.len(), tables, inner: None, keep }
    }

    fn enter(&mut self, at: usize, place: impl FnOnce(&mut TableCursor) -> Result<()>) -> Result<bool> {
        if at != self.at || self.inner.is_none() {
            self.inner = self.tables.get(at).map(|table| TableCursor::new(Arc::clone(table), self.keep));
            self.at = at;
        }
        self.inner.as_mut().map_or(Ok(()), place)?;
        Ok(self.current().is_some())
    }

    fn leave(&mut self) {
        self.inner = None;
        self.at = self.tables.len();
    }
}

impl Cursor for LevelCursor {
    fn first(&mut self) -> Result<()> {
        self.enter(0, TableCursor::first).map(drop)
    }

    fn last(&mut self) -> Result<()> {
        self.enter(self.tables.len().wrapping_sub(1), TableCursor::last).map(drop)
    }

    fn seek(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        let at = self.tables.partition_point(|table| &table.meta.largest[..] < key);
        if !self.enter(at, |table| table.seek(key, tag))? && at < self.tables.len() {
            // Behind the last version of that table's last key.
            self.enter(at + 1, TableCursor::first)?;
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        let behind = self.tables.partition_point(|table| &table.meta.smallest[..] <= key);
        let Some(at) = behind.checked_sub(1) else {
            self.leave();
            return Ok(());
        };
        if !self.enter(at, |table| table.seek_before(key, tag))? && at > 0 {
            self.enter(at - 1, TableCursor::last)?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let Some(inner) = &mut self.inner else { return Ok(()) };
        inner.next()?;
        if inner.current().is_none() {
            self.enter(self.at + 1, TableCursor::first)?;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let Some(inner) = &mut self.inner else { return Ok(()) };
        inner.prev()?;
        if inner.current().is_none() {
            match self.at.checked_sub(1) {
                Some(at) => drop(self.enter(at, TableCursor::last)?),
                None => self.leave(),
            }
        }
        Ok(())
    }

    fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        self.inner.as_ref()?.current()
    }
}

/// Which way a merge goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Reverse,
}

/// Several sources as one, in one direction.
pub(super) struct Merge<'a> {
    sources: Vec<Box<dyn Cursor + Send + 'a>>,
    /// The sources that show something, the next version's first, each with the head of its key.
    waiting: Vec<(Head, usize)>,
    direction: Direction,
}

impl<'a> Merge<'a> {
    pub(super) fn new(sources: Vec<Box<dyn Cursor + Send + 'a>>, direction: Direction) -> Self {
        Self { waiting: Vec::with_capacity(sources.len()), sources, direction }
    }

    /// Places every source and finds the first version.
    pub(super) fn place(&mut self, mut to: impl FnMut(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        self.waiting.clear();
        for n in 0..self.sources.len() {
            to(&mut *self.sources[n])?;
            if let Some((key, ..)) = self.sources[n].current() {
                self.waiting.push((head(key), n));
                self.settle(self.waiting.len() - 1);
            }
        }
        Ok(())
    }

    /// Moves the source at this place of the waiting list forward to where it belongs.
    fn settle(&mut self, mut at: usize) {
        while at > 0 && self.comes_first(self.waiting[at], self.waiting[at - 1]) {
            self.waiting.swap(at, at - 1);
            at -= 1;
        }
    }

    fn comes_first(&self, a: (Head, usize), b: (Head, usize)) -> bool {
        let whole = || {
            let (Some(a), Some(b)) = (self.sources[a.1].current(), self.sources[b.1].current()) else { return Ordering::Equal };
            order((a.0, a.1), (b.0, b.1))
        };
        let ordered = a.0.cmp(&b.0).then_with(whole);
        ordered == if self.direction == Direction::Forward { Ordering::Less } else { Ordering::Greater }
    }

    /// To the next version in the merge's direction.
    pub(super) fn step(&mut self) -> Result<()> {
        let Some(&(_, top)) = self.waiting.first() else { return Ok(()) };
        match self.sources[top].step(self.direction)? {
            Some(head) => self.waiting[0].0 = head,
            None => {
                self.waiting.remove(0);
                return Ok(());
            }
        }
        // Mostly the same source goes on.
        let mut at = 0;
        while at + 1 < self.waiting.len() && self.comes_first(self.waiting[at + 1], self.waiting[at]) {
            self.waiting.swap(at, at + 1);
            at += 1;
        }
        Ok(())
    }

    pub(super) fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        self.sources[self.waiting.first()?.1].current()
    }
}
