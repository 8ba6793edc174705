//! The engine's FIFO store.
//!
//! `fifo` runs with the store's defaults; `fifo-small` with files so small that a hundred entries fill and empty
//! several of them: what crashes have to meet.

use super::{Contents, End, Half, Promise, Session, Site, Subject, SubjectError, line};
use crate::subject;
use engine::fifo::{Entry, Options, Reader, Store, Writer};
use engine::{Durability, SyncPolicy};
use std::time::Duration;

/// The FIFO store.
#[derive(Clone, Copy, Debug)]
pub struct Fifo {
    small: bool,
}

impl Fifo {
    /// With the store's defaults.
    pub const DEFAULT: Self = Self { small: false };
    /// With everything small.
    pub const SMALL: Self = Self { small: true };
}

struct FifoSession(Store);

impl Subject for Fifo {
    fn name(&self) -> &str {
        if self.small { "fifo-small" } else { "fifo" }
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn about(&self) -> String {
        let size = if self.small { "everything small, so that crashes meet the change of files" } else { "its defaults" };
        format!("the engine's FIFO store with {size}")
    }

    fn supports(&self, _: SyncPolicy) -> bool {
        true
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        Promise::of_contract(policy, level)
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn shrinks(&self) -> bool {
        true
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        Ok(Box::new(FifoSession(Store::open(site.dir, self.options(site))?)))
    }

    fn open_half(&self, site: &Site<'_>, half: Half) -> Result<Box<dyn Session>, SubjectError> {
        let options = self.options(site);
        Ok(match half {
            Half::Producer => Box::new(Producer(Writer::open(site.dir, options)?)),
            Half::Consumer => Box::new(Consumer(Reader::open(site.dir, options)?)),
        })
    }
}

impl Fifo {
    fn options(self, site: &Site<'_>) -> Options {
        let options = Options { sync: site.sync, background: site.background, fs: site.fs.clone(), ..Options::default() };
        match self.small {
            true => Options { max_file_size: 4 << 10, max_chunk: 4 << 10, indexer: Some(Duration::from_millis(1)), ..options },
            false => options,
        }
    }
}

impl Session for FifoSession {
    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.0.sync()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let mut entries = Vec::new();
        self.0.for_each(|index, value| {
            entries.push((index, String::from_utf8_lossy(value).into_owned()));
            Ok(())
        })?;
        let counted = self.0.len()?;
        if counted != entries.len() as u64 {
            return Err(SubjectError::Store(format!("{counted} entries are counted and {} found", entries.len())));
        }
        let oldest = self.0.oldest()?.map(|entry| entry.index);
        if oldest != entries.first().map(|(index, _)| *index) {
            return Err(SubjectError::Store(format!("the oldest entry is {oldest:?}, and another is found first")));
        }
        Ok(line(entries))
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        self.0.prune(Some(0), Durability::Write)?;
        Ok(true)
    }

    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        Ok(Some(self.0.maintain(now)?))
    }

    fn repaired(&self) -> Option<String> {
        let cuts = self.0.cut();
        let words = cuts.iter().map(|(file, cut)| format!("{} at byte {}: {}", file.display(), cut.offset, cut.what));
        (!cuts.is_empty()).then(|| words.collect::<Vec<_>>().join("; "))
    }

    fn fifo(&self) -> Option<&dyn subject::Fifo> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(self.0.close()?)
    }
}

impl subject::Fifo for FifoSession {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        let indexes = match (end, values) {
            (End::Back, [one]) => return Ok(self.0.write_at(one, level)?),
            (End::Back, many) => self.0.write_many(many, level)?,
            (End::Front, values) => self.0.write_in_front(values, level)?,
        };
        Ok(indexes.start)
    }

    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        pop(&self.0, most, level, look)
    }

    fn hold(&self, look: &mut dyn FnMut(u64, &[u8])) -> Result<bool, SubjectError> {
        hold(&self.0, look)
    }

    fn acknowledge(&self, index: u64, level: Durability) -> Result<(), SubjectError> {
        Ok(self.0.delete(&[index], level)?)
    }
}

fn pop(reader: &Reader, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
    let mut show = |entry: &Entry| look(entry.index, &entry.value);
    if most == 1 {
        let popped = reader.pop(level)?;
        popped.iter().for_each(&mut show);
        return Ok(usize::from(popped.is_some()));
    }
    let popped = reader.pop_many(most, level)?;
    popped.iter().for_each(show);
    Ok(popped.len())
}

fn hold(reader: &Reader, look: &mut dyn FnMut(u64, &[u8])) -> Result<bool, SubjectError> {
    let held = reader.hold()?;
    held.iter().for_each(|entry| look(entry.index, &entry.value));
    Ok(held.is_some())
}

/// The writing half.
struct Producer(Writer);

/// The reading half.
struct Consumer(Reader);

impl Session for Producer {
    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.0.sync()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Err(SubjectError::Unsupported("contents: it only writes"))
    }

    fn fifo(&self) -> Option<&dyn subject::Fifo> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(self.0.close()?)
    }
}

impl subject::Fifo for Producer {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        let indexes = match end {
            End::Back => self.0.write_many(values, level)?,
            End::Front => self.0.write_in_front(values, level)?,
        };
        Ok(indexes.start)
    }

    fn pop(&self, _: usize, _: Durability, _: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        Err(SubjectError::Unsupported("pop: it only writes"))
    }
}

impl Session for Consumer {
    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.0.sync()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Err(SubjectError::Unsupported("contents while another process writes"))
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        self.0.prune(Some(0), Durability::Write)?;
        Ok(true)
    }

    fn fifo(&self) -> Option<&dyn subject::Fifo> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(self.0.close()?)
    }
}

impl subject::Fifo for Consumer {
    fn push(&self, _: &[&[u8]], _: End, _: Durability) -> Result<u64, SubjectError> {
        Err(SubjectError::Unsupported("push: it only reads"))
    }

    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        pop(&self.0, most, level, look)
    }

    fn hold(&self, look: &mut dyn FnMut(u64, &[u8])) -> Result<bool, SubjectError> {
        hold(&self.0, look)
    }

    fn acknowledge(&self, index: u64, level: Durability) -> Result<(), SubjectError> {
        Ok(self.0.delete(&[index], level)?)
    }
}
