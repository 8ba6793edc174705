//! Writing tables out of versions in order, for flushes and compactions alike: which versions still matter, and
//! where their values lie.

use super::cursor::Merge;
use super::entry::{Kind, Tag, has_ended, push_expiry, unpack};
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
    /// Keys that no table reaches across, ascending: where others lie in the output's level.
    pub(super) fences: &'a [&'a [u8]],
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
            fences: &[],
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

/// Whether to write these versions again would change nothing: all of them still matter, and none of their values moves.
pub(super) fn is_settled(source: &mut Merge<'_>, rules: &Rules<'_>, place: &Place<'_>) -> Result<bool> {
    let mut sieve = Sieve::new(rules);
    each(source, place, |found, tag, stored| {
        sieve.next_key(found);
        let moves = |value: &[u8]| tag.kind() == Kind::Pointer || value.len() >= place.options.value_threshold;
        Ok(matches!(sieve.fate(found, tag, stored), Some(Fate::Stays(_, value)) if !moves(value)))
    })
}

/// Goes through versions until one of them is answered with false; whether none was. Rests as the place demands.
fn each(source: &mut Merge<'_>, place: &Place<'_>, mut visit: impl FnMut(&[u8], Tag, &[u8]) -> Result<bool>) -> Result<bool> {
    let (mut count, mut bytes) = (0u32, 0);
    while let Some((found, tag, stored)) = source.current() {
        count = count.wrapping_add(1);
        bytes += (found.len() + stored.len()) as u64;
        if count.is_multiple_of(1024) {
            if (place.stopped)() {
                return Err(Error::Closed { path: place.dir.to_owned() });
            }
            (place.pace)(std::mem::take(&mut bytes));
        }
        if !visit(found, tag, stored)? {
            return Ok(false);
        }
        source.step()?;
    }
    Ok(true)
}

/// What becomes of versions that come in their order.
struct Sieve<'r> {
    rules: &'r Rules<'r>,
    key: Option<Vec<u8>>,
    is_first: bool,
    /// The span between two of `rules.seen` that the last version of the key fell into.
    span: usize,
}

enum Fate<'v> {
    /// Nobody asks for it any more.
    Hidden,
    /// A delete that hides nothing any more.
    Dropped,
    /// It was deleted, or its time has come; older versions are still there.
    Ended,
    /// It stays, and ends then.
    Stays(Option<u64>, &'v [u8]),
}

impl<'r> Sieve<'r> {
    fn new(rules: &'r Rules<'r>) -> Self {
        Self { rules, key: None, is_first: false, span: usize::MAX }
    }

    /// Takes note of the key of the next version; whether it is another than before.
    fn next_key(&mut self, found: &[u8]) -> bool {
        self.is_first = self.key.as_deref() != Some(found);
        if self.is_first {
            let last = self.key.get_or_insert_default();
            last.clear();
            last.extend_from_slice(found);
        }
        self.is_first
    }

    /// What becomes of the next version; `None` if its value makes no sense.
    fn fate<'v>(&mut self, found: &[u8], tag: Tag, stored: &'v [u8]) -> Option<Fate<'v>> {
        let rules = self.rules;
        let here = rules.seen.partition_point(|seen| *seen < tag.seq());
        let hidden = !self.is_first && here == self.span && here < rules.seen.len();
        self.span = here;
        if hidden || !(rules.keeps)(found) {
            return Some(Fate::Hidden);
        }
        let (expires, value) = unpack(tag, stored)?;
        if tag.kind() != Kind::Delete && !has_ended(expires, rules.now) {
            return Some(Fate::Stays(expires, value));
        }
        // A delete that everybody sees hides nothing any more if nothing older is left.
        let nothing_left = here == 0 && tag.seq() <= rules.backup && (rules.is_last)(found);
        Some(if nothing_left { Fate::Dropped } else { Fate::Ended })
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
        let (mut sieve, mut passed) = (Sieve::new(rules), 0);
        each(source, self.place, |found, tag, stored| {
            if sieve.next_key(found) {
                let fences = rules.fences[passed..].iter().take_while(|fence| **fence <= found).count();
                passed += fences;
                // Versions of one key stay in one table.
                if fences > 0 || self.table.as_ref().is_some_and(|t| t.len() >= rules.table_size) {
                    self.end_table()?;
                }
            }
            match sieve.fate(found, tag, stored).ok_or_else(|| self.nonsense())? {
                Fate::Hidden => {}
                Fate::Dropped => self.written.dropped = self.written.dropped.max(Some(tag.seq())),
                Fate::Ended => self.add(found, Tag::new(tag.seq(), Kind::Delete, false), &[])?,
                Fate::Stays(expires, value) => self.keep(found, tag, stored, expires, value, rules)?,
            }
            Ok(true)
        })
        .map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    /// What stays of versions of one key (number, kind, end), newest first, as a compaction would write them.
    fn kept(rules: &Rules<'_>, versions: &[(u64, Kind, Option<u64>)]) -> Vec<(u64, Kind)> {
        let mut sieve = Sieve::new(rules);
        let mut kept = Vec::new();
        for (seq, kind, end) in versions {
            sieve.next_key(b"key");
            let mut stored = Vec::new();
            push_expiry(&mut stored, *end);
            match sieve.fate(b"key", Tag::new(*seq, *kind, end.is_some()), &stored).unwrap() {
                Fate::Hidden | Fate::Dropped => {}
                Fate::Ended => kept.push((*seq, Kind::Delete)),
                Fate::Stays(..) => kept.push((*seq, *kind)),
            }
        }
        kept
    }

    fn rules<'a>(seen: &'a [u64], is_last: &'a dyn Fn(&[u8]) -> bool) -> Rules<'a> {
        Rules { is_last, backup: u64::MAX, ..Rules::all_of(seen, NOW) }
    }

    const PUT: Kind = Kind::Value;
    const DELETE: Kind = Kind::Delete;

    /// Badger's `TestDiscardTs`.
    #[test]
    fn of_the_versions_between_two_snapshots_the_newest_stays() {
        let versions = [9, 8, 6, 5, 3, 2].map(|seq| (seq, PUT, None));
        let of = |seen: &[u64]| kept(&rules(seen, &|_| true), &versions).into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
        assert_eq!(of(&[9]), [9]);
        assert_eq!(of(&[5, 9]), [9, 5]);
        assert_eq!(of(&[2, 7, 9]), [9, 6, 2]);
        assert_eq!(of(&[1, 9]), [9], "nobody who sees less sees anything");
        // What is written meanwhile is seen by somebody to come.
        assert_eq!(of(&[5]), [9, 8, 6, 5]);
    }

    /// Badger's `TestCompaction`.
    #[test]
    fn a_delete_goes_when_nothing_older_is_left_and_stays_while_there_is() {
        let versions = [(9, DELETE, None), (8, PUT, None)];
        let of = |is_last: bool, seen: &[u64], backup| kept(&Rules { backup, ..rules(seen, &|_| is_last) }, &versions);
        assert_eq!(of(true, &[9], 9), []);
        assert_eq!(of(false, &[9], 9), [(9, DELETE)], "its key lies deeper");
        assert_eq!(of(true, &[8, 9], 9), [(9, DELETE), (8, PUT)], "somebody sees what it hides");
        assert_eq!(of(true, &[9], 8), [(9, DELETE)], "the next backup has to tell of it");
        assert_eq!(of(true, &[7], 9), [(9, DELETE), (8, PUT)], "not everybody sees it yet");
    }

    #[test]
    fn what_has_ended_is_a_delete() {
        let of = |end, is_last: bool| kept(&rules(&[9], &|_| is_last), &[(9, PUT, Some(end)), (8, PUT, None)]);
        assert_eq!([of(NOW + 1, true), of(NOW + 1, false)], [[(9, PUT)]; 2]);
        assert_eq!((of(NOW, true), of(NOW, false)), (vec![], vec![(9, DELETE)]));
    }

    #[test]
    fn what_is_not_to_be_kept_goes_whoever_sees_it() {
        let all = [(9, DELETE, None), (8, PUT, None)];
        assert_eq!(kept(&Rules { keeps: &|key| key != b"key", ..rules(&[8, 9], &|_| false) }, &all), []);
    }
}
