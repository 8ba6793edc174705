//! Writing tables out of versions in order, for flushes and compactions alike: which versions still matter, and
//! where their values lie.

use super::cursor::Merge;
use super::entry::{Kind, Tag, push_expiry, unpack};
use super::file::Way;
use super::options::Options;
use super::sstable::{self, TableBuilder};
use super::value_log::{self, Pointer, ValueBuilder};
use super::version::TableMeta;
use crate::error::{Error, Result};
use crate::fs::Fs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which versions a reader may still ask for.
pub(super) struct Rules<'a> {
    /// Sequence numbers of open snapshots and of what everybody sees, ascending.
    pub(super) seen: &'a [u64],
    /// Whether a key stays at all.
    pub(super) keeps: &'a dyn Fn(&[u8]) -> bool,
    /// Whether no older version of a key can lie below the output.
    pub(super) is_last: &'a dyn Fn(&[u8]) -> bool,
    /// Deletes above this version are kept for the next backup.
    pub(super) backup: u64,
    /// Unix time in seconds.
    pub(super) now: u64,
    /// Value log files whose values move.
    pub(super) collect: &'a BTreeSet<u64>,
    /// Bytes at which a table ends.
    pub(super) table_size: u64,
    /// Reads a value that is to move.
    pub(super) read: &'a ReadValue<'a>,
}

/// No value log file.
static NONE: BTreeSet<u64> = BTreeSet::new();

impl<'a> Rules<'a> {
    /// Everything that somebody may still see stays, deletes too, in one table; no value moves from file to file.
    pub(super) fn all_of(seen: &'a [u64], now: u64) -> Self {
        Self {
            seen,
            keeps: &|_| true,
            is_last: &|_| false,
            backup: 0,
            now,
            collect: &NONE,
            table_size: u64::MAX,
            read: &|_, _, _| Ok(Vec::new()),
        }
    }
}

/// Reads the value that a version of a key points to.
pub(super) type ReadValue<'a> = dyn Fn(Pointer, &[u8], Tag) -> Result<Vec<u8>> + 'a;

/// Where tables are written.
pub(super) struct Place<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) options: &'a Options,
    pub(super) way: Way,
    /// Gives away file numbers.
    pub(super) number: &'a dyn Fn() -> u64,
    /// Whether to give up, because the store is closing.
    pub(super) stopped: &'a dyn Fn() -> bool,
    /// Is told now and then how many bytes came in since, and may rest.
    pub(super) pace: &'a dyn Fn(u64),
}

/// Files that were written and synced. Their names are durable once the directory is synced.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) tables: Vec<TableMeta>,
    /// Value log files with their lengths.
    pub(super) values: Vec<(u64, u64)>,
    /// The greatest version among deletes that were dropped.
    pub(super) dropped: Option<u64>,
}

/// Writes what still matters of these versions. After an error nothing is left of it.
pub(super) fn write(source: &mut Merge<'_>, rules: &Rules<'_>, place: &Place<'_>) -> Result<Written> {
    let mut output =
        Output { place, written: Written::default(), table: None, values: None, pointed: BTreeMap::new(), begun: Vec::new() };
    match output.take_all(source, rules).and_then(|()| output.end()) {
        Ok(()) => Ok(output.written),
        Err(e) => {
            for path in &output.begun {
                // What stays is removed when the store is opened next: the manifest does not name it.
                let _ = place.fs.remove(path);
            }
            Err(e)
        }
    }
}

struct Output<'a> {
    place: &'a Place<'a>,
    written: Written,
    table: Option<TableBuilder>,
    values: Option<ValueBuilder>,
    /// Bytes of values that the table's entries point to.
    pointed: BTreeMap<u64, u64>,
    begun: Vec<PathBuf>,
}

impl Output<'_> {
    fn take_all(&mut self, source: &mut Merge<'_>, rules: &Rules<'_>) -> Result<()> {
        let mut key: Option<Vec<u8>> = None;
        // The span between two of `rules.seen` that the last version of the key fell into.
        let mut span = usize::MAX;
        let (mut count, mut bytes) = (0u32, 0);
        while let Some((found, tag, stored)) = source.current() {
            count = count.wrapping_add(1);
            bytes += (found.len() + stored.len()) as u64;
            if count.is_multiple_of(1024) {
                if (self.place.stopped)() {
                    return Err(Error::Closed { path: self.place.dir.to_owned() });
                }
                (self.place.pace)(std::mem::take(&mut bytes));
            }
            let fresh = key.as_deref() != Some(found);
            if fresh {
                let last = key.get_or_insert_default();
                last.clear();
                last.extend_from_slice(found);
                // Versions of one key stay in one table.
                if self.table.as_ref().is_some_and(|t| t.len() >= rules.table_size) {
                    self.end_table()?;
                }
            }
            let here = rules.seen.partition_point(|seen| *seen < tag.seq());
            let hidden = !fresh && here == span && here < rules.seen.len();
            span = here;
            if !hidden && (rules.keeps)(found) {
                let (expires, value) = unpack(tag, stored).ok_or_else(|| self.nonsense())?;
                let ended = tag.kind() == Kind::Delete || expires.is_some_and(|at| at <= rules.now);
                // A delete that everybody sees hides nothing any more if nothing older is left.
                if ended && here == 0 && tag.seq() <= rules.backup && (rules.is_last)(found) {
                    self.written.dropped = self.written.dropped.max(Some(tag.seq()));
                } else if ended {
                    self.add(found, Tag::new(tag.seq(), Kind::Delete, false), &[])?;
                } else {
                    self.keep(found, tag, stored, expires, value, rules)?;
                }
            }
            source.step()?;
        }
        Ok(())
    }

    /// Adds a version that is not deleted, its value where it belongs.
    fn keep(&mut self, key: &[u8], tag: Tag, stored: &[u8], expires: Option<u64>, value: &[u8], rules: &Rules<'_>) -> Result<()> {
        let moved = match tag.kind() {
            Kind::Value if value.len() >= self.place.options.value_threshold => Some(value.to_vec()),
            Kind::Pointer => {
                let pointer = Pointer::read(value).ok_or_else(|| self.nonsense())?;
                if rules.collect.contains(&pointer.file) {
                    Some((rules.read)(pointer, key, tag)?)
                } else {
                    *self.pointed.entry(pointer.file).or_default() += pointer.len;
                    None
                }
            }
            _ => None,
        };
        let Some(value) = moved else { return self.add(key, tag, stored) };
        let tag = Tag::new(tag.seq(), Kind::Pointer, expires.is_some());
        let pointer = self.values()?.add(key, tag, &value)?;
        *self.pointed.entry(pointer.file).or_default() += pointer.len;
        let mut stored = Vec::new();
        push_expiry(&mut stored, expires);
        pointer.push(&mut stored);
        self.add(key, tag, &stored)
    }

    fn add(&mut self, key: &[u8], tag: Tag, stored: &[u8]) -> Result<()> {
        let table = match &mut self.table {
            Some(table) => table,
            none => {
                let number = (self.place.number)();
                self.begun.push(sstable::path(self.place.dir, number));
                none.insert(TableBuilder::create(self.place.fs, self.place.dir, number, self.place.options, self.place.way)?)
            }
        };
        table.add(key, tag, stored)
    }

    fn values(&mut self) -> Result<&mut ValueBuilder> {
        match &mut self.values {
            Some(values) => Ok(values),
            none => {
                let number = (self.place.number)();
                self.begun.push(self.place.dir.join(value_log::file_name(number)));
                Ok(none.insert(ValueBuilder::create(self.place.fs, self.place.dir, number, self.place.way)?))
            }
        }
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some(table) = self.table.take() {
            let mut meta = table.finish()?;
            meta.values = std::mem::take(&mut self.pointed);
            self.written.tables.push(meta);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.end_table()?;
        if let Some(values) = self.values.take() {
            let number = values.number;
            self.written.values.push((number, values.finish()?));
        }
        if !self.begun.is_empty() {
            self.place.fs.sync_dir(self.place.dir).map_err(|e| Error::io("sync", self.place.dir, e))?;
        }
        Ok(())
    }

    fn nonsense(&self) -> Error {
        Error::corrupt(self.place.dir, 0, "a version whose value makes no sense")
    }
}
