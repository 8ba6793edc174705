//! What users hold: a store that writes and reads, or one half of it for each of two processes.

use super::options::Options;
use super::reader::{Entry, Reading};
use super::writer::{Writing, lock};
use crate::background::{Bell, Workers};
use crate::error::{Error, Result};
use crate::log::Cut;
use crate::sync_policy::{Durability, SyncPolicy};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often to look whether there is much to sync.
const AHEAD: Duration = Duration::from_millis(10);
/// When to look again for work that comes unasked.
const PATIENCE: Duration = Duration::from_millis(100);

/// A store: a first-in-first-out sequence of entries that is larger than memory. What reads and deletes is
/// [`Reader`]'s. Dropping it syncs and closes; [`Store::close`] does the same and says whether it worked.
#[derive(Debug)]
pub struct Store {
    writing: Arc<Writing>,
    reader: Reader,
}

/// The writing half of a store, for a process whose entries another one reads.
#[derive(Debug)]
pub struct Writer {
    writing: Arc<Writing>,
    upkeep: Arc<Upkeep>,
    workers: Option<Workers>,
}

/// The reading half of a store. Entries of a writer in another process come in sight when the indexer, or whoever
/// calls [`Reader::update_indexes`], has seen them.
#[derive(Debug)]
pub struct Reader {
    reading: Arc<Reading>,
    upkeep: Arc<Upkeep>,
    workers: Option<Workers>,
}

/// What a store does unasked, for the halves that this process has.
#[derive(Debug)]
struct Upkeep {
    writing: Option<Arc<Writing>>,
    reading: Option<Arc<Reading>>,
    options: Options,
    timer: Mutex<Timer>,
    /// What went wrong where nobody waited for it.
    trouble: Mutex<Option<Error>>,
}

/// When which work was done last, since the workers began.
#[derive(Debug, Default)]
struct Timer {
    flushed: Duration,
    synced: Duration,
}

/// What a store has in memory and on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of its files.
    pub disk: u64,
    /// Bytes of entries and indexes in memory.
    pub memory: u64,
}

impl Upkeep {
    fn of(writing: Option<&Arc<Writing>>, reading: Option<&Arc<Reading>>, options: Options) -> Arc<Self> {
        let (writing, reading) = (writing.cloned(), reading.cloned());
        Arc::new(Self { writing, reading, options, timer: Mutex::default(), trouble: Mutex::default() })
    }

    fn flush(&self) -> Result<()> {
        let written = self.writing.as_ref().map_or(Ok(false), |writing| writing.flush()).map(drop);
        let read = self.reading.as_ref().map_or(Ok(()), |reading| reading.flush());
        written.and(read)
    }

    fn sync(&self) -> Result<()> {
        let written = self.writing.as_ref().map_or(Ok(()), |writing| writing.sync());
        let read = self.reading.as_ref().map_or(Ok(()), |reading| reading.sync());
        written.and(read)
    }

    /// Does what is due and says when the next is.
    fn maintain(&self, now: Duration) -> Result<Duration> {
        let (flush, sync) = {
            let mut timer = lock(&self.timer);
            let flush = now.saturating_sub(timer.flushed) >= self.options.flush_interval;
            let sync = self.options.sync.due(Some(timer.synced), now);
            if flush {
                timer.flushed = now;
            }
            if sync {
                timer.synced = now;
            }
            (flush, sync)
        };
        let flushed = if flush { self.flush() } else { Ok(()) };
        let synced = if sync { self.sync() } else { Ok(()) };
        let reclaimed = self.reclaim();
        flushed.and(synced).and(reclaimed)?;
        let timer = lock(&self.timer);
        let next = timer.flushed + self.options.flush_interval;
        Ok(match self.options.sync {
            SyncPolicy::Interval(interval) => next.min(timer.synced + interval),
            _ => next,
        })
    }

    /// Removes files that are needed no more; the last one too, once it is a quarter full and all of it is gone.
    fn reclaim(&self) -> Result<()> {
        self.reading.as_ref().map_or(Ok(()), |reading| self.leave_and_remove(reading, self.options.max_file_size / 4))
    }

    fn leave_and_remove(&self, reading: &Reading, least: u64) -> Result<()> {
        if let Some(writing) = &self.writing
            && reading.is_drained()
            && writing.leave(least)?
        {
            reading.look()?;
        }
        reading.reclaim().map(drop)
    }

    fn close(&self) -> Result<()> {
        let written = self.writing.as_ref().map_or(Ok(()), |writing| writing.close());
        let read = self.reading.as_ref().map_or(Ok(()), |reading| reading.close());
        let trouble = lock(&self.trouble).take().map_or(Ok(()), Err);
        written.and(read).and(trouble)
    }

    fn note(&self, e: Error) {
        lock(&self.trouble).get_or_insert(e);
    }

    fn start_workers(self: &Arc<Self>) -> Option<Workers> {
        if !self.options.background {
            return None;
        }
        let mut workers = Workers::new();
        let upkeep = Arc::downgrade(self);
        workers.start(move |now| {
            let upkeep = upkeep.upgrade()?;
            let next = upkeep.maintain(now).unwrap_or_else(|e| {
                // What finds no room is tried again, and closing says so if there is still none.
                if !matches!(e, Error::Full { .. }) {
                    upkeep.note(e);
                }
                now + PATIENCE
            });
            Some(next.min(now + PATIENCE))
        });
        // Who has the writer in the same process sees everything at once.
        if let Some(writing) = &self.writing {
            let (writing, upkeep) = (Arc::downgrade(writing), Arc::downgrade(self));
            workers.start(move |now| {
                if let Err(e) = writing.upgrade()?.sync_ahead() {
                    upkeep.upgrade()?.note(e);
                }
                Some(now + AHEAD)
            });
        }
        if let (Some(rate), Some(_), None) = (self.options.indexer, &self.reading, &self.writing) {
            let upkeep = Arc::downgrade(self);
            workers.start(move |now| {
                let upkeep = upkeep.upgrade()?;
                if let Some(Err(e)) = upkeep.reading.as_ref().map(|reading| reading.look()) {
                    upkeep.note(e);
                }
                Some(now + rate)
            });
        }
        Some(workers)
    }
}

impl Store {
    /// Opens or creates the store in the directory `dir`, to write and to read.
    ///
    /// A torn tail that a crash left is cut off (see [`Reader::cut`]).
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`] with its remedy, [`Error::Format`], [`Error::Io`], [`Error::Option`].
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let writing = Arc::new(Writing::open(dir.as_ref(), &options)?);
        let reading = Arc::new(Reading::open(dir.as_ref(), &options, Some(Arc::clone(&writing)))?);
        let upkeep = Upkeep::of(Some(&writing), Some(&reading), options);
        let workers = upkeep.start_workers();
        Ok(Self { writing, reader: Reader { reading, upkeep, workers } })
    }

    /// Puts an entry behind all others and returns its index. In the kernel when it returns; on the device under
    /// `always`.
    ///
    /// # Errors
    /// [`Error::NoRoom`] before anything is written, [`Error::TooLarge`], [`Error::Full`], [`Error::Poisoned`],
    /// [`Error::Closed`].
    pub fn write(&self, entry: &[u8]) -> Result<u64> {
        self.write_at(entry, Durability::Write)
    }

    /// As [`Store::write`], at a durability level.
    pub fn write_at(&self, entry: &[u8], level: Durability) -> Result<u64> {
        self.put(&[entry], false, level).map(|indexes| indexes.start)
    }

    /// Puts entries behind all others, all or none of them, with one write and at most one sync.
    pub fn write_many<E: AsRef<[u8]>>(&self, entries: &[E], level: Durability) -> Result<Range<u64>> {
        self.put(entries, false, level)
    }

    /// Puts entries in front of all others, the first of them foremost. They get new indexes. `Async` is raised to
    /// `Write`.
    pub fn write_in_front<E: AsRef<[u8]>>(&self, entries: &[E], level: Durability) -> Result<Range<u64>> {
        self.put(entries, true, level)
    }

    fn put<E: AsRef<[u8]>>(&self, entries: &[E], front: bool, level: Durability) -> Result<Range<u64>> {
        let reading = &self.reader.reading;
        let indexes = match self.writing.write(entries, front, level) {
            Ok(indexes) => indexes,
            // There may be files that hold nothing any more.
            Err(Error::NoRoom { .. }) if reading.reclaim()? > 0 => self.writing.write(entries, front, level)?,
            Err(e) => return Err(e),
        };
        if self.reader.upkeep.options.sync.raise(level) == Durability::Sync {
            // What survives power loss carries everything before it, and so what was taken out.
            reading.sync_written()?;
        }
        Ok(indexes)
    }

    /// Syncs and closes.
    ///
    /// # Errors
    /// What the last sync says, or else what went wrong earlier where nobody waited for it.
    pub fn close(self) -> Result<()> {
        self.reader.close()
    }
}

impl Deref for Store {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Writer {
    /// Opens or creates the store in the directory `dir`, to write.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Locked`] if there is another writer.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let writing = Arc::new(Writing::open(dir.as_ref(), &options)?);
        let upkeep = Upkeep::of(Some(&writing), None, options);
        let workers = upkeep.start_workers();
        Ok(Self { writing, upkeep, workers })
    }

    /// As [`Store::write_at`].
    pub fn write_at(&self, entry: &[u8], level: Durability) -> Result<u64> {
        self.writing.write(&[entry], false, level).map(|indexes| indexes.start)
    }

    /// As [`Store::write_many`].
    pub fn write_many<E: AsRef<[u8]>>(&self, entries: &[E], level: Durability) -> Result<Range<u64>> {
        self.writing.write(entries, false, level)
    }

    /// As [`Store::write_in_front`].
    pub fn write_in_front<E: AsRef<[u8]>>(&self, entries: &[E], level: Durability) -> Result<Range<u64>> {
        self.writing.write(entries, true, level)
    }

    /// As [`Reader::sync`].
    pub fn sync(&self) -> Result<()> {
        self.upkeep.sync()
    }

    /// As [`Reader::maintain`].
    pub fn maintain(&self, now: Duration) -> Result<Duration> {
        self.upkeep.maintain(now)
    }

    /// As [`Store::close`].
    pub fn close(mut self) -> Result<()> {
        self.workers.take();
        self.upkeep.close()
    }
}

impl Reader {
    /// Opens the store in the directory `dir`, to read and to delete what another process writes.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Locked`] if there is another reader.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let reading = Arc::new(Reading::open(dir.as_ref(), &options, None)?);
        let upkeep = Upkeep::of(None, Some(&reading), options);
        let workers = upkeep.start_workers();
        Ok(Self { reading, upkeep, workers })
    }

    /// The oldest entry, which stays where it is; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn oldest(&self) -> Result<Option<Entry>> {
        self.reading.oldest()
    }

    /// The entry of an index.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Corrupt`], [`Error::Io`].
    pub fn read(&self, index: u64) -> Result<Vec<u8>> {
        self.reading.read(index).map(|entry| entry.value)
    }

    /// Takes out the oldest entry: reads and deletes it. That it is gone is as durable as the level says; a crash may
    /// bring it back until then.
    pub fn pop(&self, level: Durability) -> Result<Option<Entry>> {
        self.reading.pop(level)
    }

    /// Takes out so many of the oldest entries at most, with one write.
    pub fn pop_many(&self, most: usize, level: Durability) -> Result<Vec<Entry>> {
        self.reading.pop_many(most, level)
    }

    /// Hands out the oldest entry without deleting it: nobody else gets it until [`Reader::release`]; deleting it ends
    /// that. A store that is opened again has handed out nothing.
    pub fn hold(&self) -> Result<Option<Entry>> {
        self.reading.hold()
    }

    /// Takes back an entry that was handed out, so that it is delivered again before all later ones; whether it was.
    pub fn release(&self, index: u64) -> bool {
        self.reading.release(index)
    }

    /// Deletes the entries of these indexes, all or none.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the first that is not there; then nothing was deleted. [`Error::Full`],
    /// [`Error::Poisoned`].
    pub fn delete(&self, indexes: &[u64], level: Durability) -> Result<()> {
        self.reading.delete(indexes, level)
    }

    /// Deletes all entries below an index, or all, and removes the files that are needed no more; how many entries
    /// went.
    pub fn prune(&self, below: Option<u64>, level: Durability) -> Result<u64> {
        let gone = self.reading.delete_below(below, level)?;
        let least = if below.is_none() { 0 } else { u64::MAX };
        self.upkeep.leave_and_remove(&self.reading, least).map(|()| gone)
    }

    /// All entries in the order in which they would be taken out. Nothing else is read meanwhile.
    pub fn for_each(&self, mut look: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.reading.list(&mut look)
    }

    /// How many entries there are.
    pub fn len(&self) -> Result<u64> {
        self.reading.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// What it takes on disk and in memory.
    pub fn size(&self) -> Result<Size> {
        self.reading.size().map(|(disk, memory)| Size { disk, memory })
    }

    /// Lets go of entries and indexes in memory; they are read again when they are wanted.
    pub fn unload(&self) {
        self.reading.unload();
    }

    /// Looks for entries of another process, and finds out where entries lie, one file in a call; how many there are.
    pub fn update_indexes(&self) -> Result<u64> {
        self.reading.update_indexes()
    }

    /// Puts on the device what was acknowledged before the call, `Async` calls included.
    pub fn sync(&self) -> Result<()> {
        self.upkeep.sync()
    }

    /// Does what is due at this time since opening, for stores without background threads; when it wants to be called
    /// next.
    pub fn maintain(&self, now: Duration) -> Result<Duration> {
        self.upkeep.maintain(now)
    }

    /// What a crash left behind and was cut off when it was opened: the file and the stretch.
    pub fn cut(&self) -> Vec<(PathBuf, Cut)> {
        let written = self.upkeep.writing.as_ref().and_then(|writing| writing.cut.clone());
        written.into_iter().chain(self.reading.cut.clone()).collect()
    }

    /// Rings when there may be something new to read.
    pub(super) fn news(&self) -> &Bell {
        &self.reading.news
    }

    /// As [`Store::close`].
    pub fn close(mut self) -> Result<()> {
        self.workers.take();
        self.upkeep.close()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.workers.take();
        let _ = self.upkeep.close();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.workers.take();
        let _ = self.upkeep.close();
    }
}
