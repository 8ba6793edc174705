//! Reading a damaged store: everything that is provably intact, and a report of the rest. Nothing is changed.
//!
//! An entry is *certain* when nothing that was lost could hold a later version of its key: every loss says which keys
//! it may concern and up to which version. Without a readable manifest nobody knows which tables were current, so
//! all that is found is shown, and nothing of it is certain: a deleted key may be back.

use super::cursor::{Cursor, Direction, MemtableCursor, Merge};
use super::entry::Tag;
use super::manifest::Manifest;
use super::names::{Names, missing};
use super::options::Options;
use super::sstable::{self, Caches, Lost, Table, TableCursor};
use super::store::lock;
use super::value_log::{self, ValueFile};
use super::version::{Levels, TableMeta};
use super::view::{end_of, value_of};
use super::wal::{self, Memory};
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock};
use crate::log::take_lock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A damaged store, open for reading. Holds the store's lock.
#[derive(Debug)]
pub struct Salvage {
    tables: Vec<Arc<Table>>,
    values: BTreeMap<u64, ValueFile>,
    dir: PathBuf,
    memories: Vec<Arc<Memory>>,
    now: u64,
    losses: Vec<Loss>,
    entries: u64,
    _lock: Box<dyn Lock>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What was found there.
    pub what: String,
    /// The first and the last key that it may have held; `None` for any.
    pub keys: Option<(Vec<u8>, Vec<u8>)>,
    /// The latest version that it may have held.
    through: u64,
}

impl Loss {
    fn of(e: Error, keys: Option<(Vec<u8>, Vec<u8>)>, through: u64) -> Result<Self> {
        let (file, offset, what) = wal::gap_of(e)?;
        Ok(Self { file, offset, what, keys, through })
    }

    fn concerns(&self, key: &[u8], tag: Tag) -> bool {
        let here = self.keys.as_ref().is_none_or(|(first, last)| &first[..] <= key && key <= &last[..]);
        here && tag.seq() <= self.through
    }
}

/// An intact key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The key.
    pub key: Vec<u8>,
    /// A value that was written to it.
    pub value: Vec<u8>,
    /// The Unix time in seconds at which it ends.
    pub end: Option<u64>,
    /// Whether it is the last one that was written. Otherwise a later value, or a delete, may be among what is lost.
    pub certain: bool,
}

impl Salvage {
    /// Opens the store in the directory `dir`, however damaged it is, and reads all of it once.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::Io`] when files cannot be read at all.
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let dir = dir.as_ref();
        let fs = &options.fs;
        let names = Names::read(&**fs, dir)?;
        let held = take_lock(&**fs, &dir.join("lock"), dir)?;
        let mut losses = Vec::new();
        let levels = match Manifest::peek(&**fs, dir) {
            Ok(levels) => Some(levels),
            Err(e) => {
                losses.push(Loss::of(e, None, u64::MAX)?);
                None
            }
        };
        if let Some(first) = levels.as_ref().map(|levels| levels.log).filter(|log| !names.logs.contains(log)) {
            losses.push(Loss::of(missing(dir, &wal::file_name(first)), None, u64::MAX)?);
        }
        let caches = Arc::new(Caches::new(options.block_cache, options.index_cache));
        let mut tables = Vec::new();
        for meta in metas(fs, dir, &names, levels.as_ref())? {
            let table = Arc::new(Table::new(Arc::clone(fs), dir, meta, Arc::clone(&caches)));
            let there = names.tables.contains(&table.meta.number);
            let probed = if there { table.probe() } else { Err(missing(dir, &sstable::file_name(table.meta.number))) };
            match probed {
                Ok(()) => tables.push(table),
                Err(e) => {
                    let keys = levels.is_some().then(|| (table.meta.smallest.clone(), table.meta.largest.clone()));
                    losses.push(Loss::of(e, keys, table.meta.max_seq)?);
                }
            }
        }
        let mut values = BTreeMap::new();
        for &number in &names.values {
            let size = length(&**fs, &dir.join(value_log::file_name(number)))?;
            values.insert(number, ValueFile::new(Arc::clone(fs), dir, number, size));
        }
        let oldest = levels.as_ref().map(|levels| levels.log);
        let numbers: Vec<u64> = names.logs.iter().copied().filter(|n| oldest.is_none_or(|oldest| *n >= oldest)).collect();
        // Without a manifest nobody can tell a lost segment from one that was flushed.
        let (memories, gaps) = wal::salvage(&**fs, dir, &numbers, oldest.unwrap_or(u64::MAX), options.memtable_size)?;
        losses.extend(gaps.into_iter().map(|(file, offset, what)| Loss { file, offset, what, keys: None, through: u64::MAX }));
        let now = options.clock.now();
        let memories = memories.into_iter().map(Arc::new).collect();
        let mut salvage = Self { tables, values, dir: dir.to_owned(), memories, now, losses, entries: 0, _lock: held };
        // Which losses there are is known only when everything was read.
        let found = Arc::new(Mutex::new(Vec::new()));
        let mut pass = salvage.pass(&found)?;
        let mut entries = 0;
        while pass.next()?.is_some() {
            entries += 1;
        }
        drop(pass);
        salvage.losses.append(&mut lock(&found));
        salvage.entries = entries;
        Ok(salvage)
    }

    /// What could not be read. Empty for a store that is whole.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// How many entries are intact.
    pub fn len(&self) -> u64 {
        self.entries
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Every intact key with its latest intact value, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<Salvaged>> + '_> {
        // The same losses are met once more.
        let mut pass = self.pass(&Arc::default())?;
        Ok(std::iter::from_fn(move || {
            let found = pass.next().transpose()?;
            Some(found.map(|Found { key, tag, value, end }| {
                let certain = !self.losses.iter().any(|loss| loss.concerns(&key, tag));
                Salvaged { key, value, end, certain }
            }))
        }))
    }

    fn pass(&self, losses: &Arc<Mutex<Vec<Loss>>>) -> Result<Pass<'_>> {
        let mut sources: Vec<Box<dyn Cursor + Send>> = Vec::new();
        for memory in &self.memories {
            sources.push(Box::new(MemtableCursor::new(Arc::clone(memory))));
        }
        for table in &self.tables {
            let (losses, through) = (Arc::clone(losses), table.meta.max_seq);
            let lost: Lost = Box::new(move |e, keys| {
                lock(&losses).push(Loss::of(e, Some(keys), through)?);
                Ok(())
            });
            sources.push(Box::new(TableCursor::salvaging(Arc::clone(table), lost)));
        }
        let mut merge = Merge::new(sources, Direction::Forward);
        merge.place(|cursor| cursor.first())?;
        Ok(Pass { salvage: self, merge, last: None, losses: Arc::clone(losses) })
    }
}

/// One way through everything that can be read.
struct Pass<'s> {
    salvage: &'s Salvage,
    merge: Merge<'static>,
    last: Option<Vec<u8>>,
    losses: Arc<Mutex<Vec<Loss>>>,
}

struct Found {
    key: Vec<u8>,
    tag: Tag,
    value: Vec<u8>,
    end: Option<u64>,
}

impl Pass<'_> {
    fn next(&mut self) -> Result<Option<Found>> {
        loop {
            let Some((key, tag, stored)) = self.merge.current() else { return Ok(None) };
            let mut found = None;
            if self.last.as_deref() != Some(key) {
                match self.value(key, tag, stored) {
                    Ok(None) => self.last = Some(key.to_vec()),
                    Ok(Some((value, end))) => {
                        found = Some(Found { key: key.to_vec(), tag, value, end });
                        self.last = Some(key.to_vec());
                    }
                    // The version before it may still be there.
                    Err(e) => {
                        let loss = Loss::of(e, Some((key.to_vec(), key.to_vec())), tag.seq())?;
                        lock(&self.losses).push(loss);
                    }
                }
            }
            self.merge.step()?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The value of a version and when it ends; `None` for one that has none.
    fn value(&self, key: &[u8], tag: Tag, stored: &[u8]) -> Result<Option<(Vec<u8>, Option<u64>)>> {
        let dir = &self.salvage.dir;
        let value = value_of(dir, key, tag, stored, self.salvage.now, |pointer| {
            let missing = || missing(dir, &value_log::file_name(pointer.file));
            self.salvage.values.get(&pointer.file).ok_or_else(missing)?.read(pointer, key, tag)
        })?;
        Ok(value.map(|value| (value.into_owned(), end_of(tag, stored))))
    }
}

/// The tables that make up the store; without a manifest, all that are there.
fn metas(fs: &Arc<dyn Fs>, dir: &Path, names: &Names, levels: Option<&Levels>) -> Result<Vec<TableMeta>> {
    if let Some(levels) = levels {
        return Ok(levels.all().map(|meta| (**meta).clone()).collect());
    }
    let found = names.tables.iter().map(|&number| {
        let size = length(&**fs, &sstable::path(dir, number))?;
        Ok(TableMeta { number, size, max_seq: u64::MAX, ..TableMeta::default() })
    });
    found.collect()
}

fn length(fs: &dyn Fs, path: &Path) -> Result<u64> {
    fs.open(path).and_then(|file| file.len()).map_err(|e| Error::io("read", path, e))
}
