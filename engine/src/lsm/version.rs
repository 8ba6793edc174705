//! Which tables make up the store: levels as plain values, and the files behind them.

use super::cursor::{Cursor, LevelCursor};
use super::entry::Tag;
use super::names::missing;
use super::sstable::{Caches, Table, TableCursor};
use super::value_log::{self, Pointer, ValueFile};
use crate::error::Result;
use crate::fs::Fs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Levels of a store.
pub(super) const LEVELS: usize = 7;

/// What is known of a table without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableMeta {
    pub(super) number: u64,
    /// Length of the file in bytes.
    pub(super) size: u64,
    pub(super) entries: u64,
    /// Of these, deletes.
    pub(super) deletes: u64,
    pub(super) min_seq: u64,
    pub(super) max_seq: u64,
    #[serde(with = "hex")]
    pub(super) smallest: Vec<u8>,
    #[serde(with = "hex")]
    pub(super) largest: Vec<u8>,
    /// Bytes of records in value log files that its entries point to, by file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) values: BTreeMap<u64, u64>,
}

impl TableMeta {
    pub(super) fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        &self.smallest[..] <= largest && smallest <= &self.largest[..]
    }
}

/// A change of what makes up the store: one record of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// Tables that come, with their level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) add: Vec<(usize, TableMeta)>,
    /// Tables that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) remove: Vec<u64>,
    /// Value log files that come, with their length in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) add_values: Vec<(u64, u64)>,
    /// Value log files that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) remove_values: Vec<u64>,
    /// The oldest log segment that is still needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<u64>,
    /// A file number above all that were given away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<u64>,
    /// The last version that a backup holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<u64>,
    /// The greatest version among deletes that were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dropped: Option<u64>,
}

/// What makes up the store, as plain values: what the manifest says and what compactions are picked from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels {
    /// Tables by level; in level 0 from the newest versions to the oldest, elsewhere in the order of their keys. What an edit
    /// does not touch is shared with what was before.
    pub(super) tables: Vec<Arc<Vec<Arc<TableMeta>>>>,
    /// Lengths of value log files.
    pub(super) values: BTreeMap<u64, u64>,
    pub(super) log: u64,
    pub(super) next: u64,
    /// The last version that a backup holds: later deletes are kept for the next one. `None` before the first.
    pub(super) backup: Option<u64>,
    /// Deletes up to this version may have been dropped.
    pub(super) dropped: u64,
}

impl Levels {
    pub(super) fn new() -> Self {
        Self { tables: vec![Arc::default(); LEVELS], next: 1, ..Self::default() }
    }

    /// These levels after an edit; what is wrong with the edit if it does not fit.
    pub(super) fn apply(&self, edit: &Edit) -> std::result::Result<Self, String> {
        let mut next = self.clone();
        let gone: BTreeSet<u64> = edit.remove.iter().copied().collect();
        let mut found = 0;
        for level in &mut next.tables {
            let here = level.iter().filter(|table| gone.contains(&table.number)).count();
            if here > 0 {
                Arc::make_mut(level).retain(|table| !gone.contains(&table.number));
            }
            found += here;
        }
        if found != gone.len() {
            return Err("a table is removed that is not there".to_owned());
        }
        for (level, table) in &edit.add {
            let Some(tables) = next.tables.get_mut(*level) else {
                return Err(format!("there is no level {level}"));
            };
            let table = Arc::new(table.clone());
            let at = if *level == 0 {
                tables.partition_point(|t| t.max_seq > table.max_seq)
            } else {
                tables.partition_point(|t| t.smallest < table.smallest)
            };
            let before = at.checked_sub(1).and_then(|before| tables.get(before));
            let overlaps_before = before.is_some_and(|before| before.largest >= table.smallest);
            if *level > 0 && (overlaps_before || tables.get(at).is_some_and(|after| table.largest >= after.smallest)) {
                return Err("tables of one level overlap".to_owned());
            }
            next.next = next.next.max(table.number + 1);
            Arc::make_mut(tables).insert(at, table);
        }
        for (number, size) in &edit.add_values {
            next.values.insert(*number, *size);
            next.next = next.next.max(number + 1);
        }
        for number in &edit.remove_values {
            next.values.remove(number).ok_or("a value log file is removed that is not there")?;
        }
        next.log = edit.log.unwrap_or(next.log);
        next.next = edit.next.unwrap_or(next.next).max(next.next);
        next.backup = edit.backup.max(next.backup);
        next.dropped = edit.dropped.unwrap_or(0).max(next.dropped);
        Ok(next)
    }

    /// The edit that makes these levels out of nothing.
    pub(super) fn whole(&self) -> Edit {
        let level =
            |(level, tables): (usize, &Arc<Vec<Arc<TableMeta>>>)| tables.iter().map(move |t| (level, (**t).clone())).collect();
        Edit {
            add: self.tables.iter().enumerate().flat_map::<Vec<_>, _>(level).collect(),
            add_values: self.values.iter().map(|(number, size)| (*number, *size)).collect(),
            log: Some(self.log),
            next: Some(self.next),
            backup: self.backup,
            dropped: (self.dropped > 0).then_some(self.dropped),
            ..Edit::default()
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.tables.iter().flat_map(|level| level.iter())
    }

    pub(super) fn size(&self, level: usize) -> u64 {
        self.tables[level].iter().map(|t| t.size).sum()
    }

    /// Bytes of each value log file that some table still points to.
    pub(super) fn live_values(&self) -> BTreeMap<u64, u64> {
        let mut live: BTreeMap<u64, u64> = self.values.keys().map(|number| (*number, 0)).collect();
        for (number, bytes) in self.all().flat_map(|t| &t.values) {
            *live.entry(*number).or_default() += bytes;
        }
        live
    }

    /// The tables of a level below level 0 that may hold keys from the first to the last.
    pub(super) fn overlapping(&self, level: usize, first: &[u8], last: &[u8]) -> &[Arc<TableMeta>] {
        let tables = &self.tables[level];
        let from = tables.partition_point(|t| &t.largest[..] < first);
        let to = tables.partition_point(|t| &t.smallest[..] <= last);
        &tables[from..to.max(from)]
    }

    /// Whether a level below this one may hold the key.
    pub(super) fn is_below(&self, level: usize, key: &[u8]) -> bool {
        self.tables.iter().skip(level + 1).any(|tables| {
            let at = tables.partition_point(|t| &t.largest[..] < key);
            tables.get(at).is_some_and(|t| &t.smallest[..] <= key)
        })
    }
}

/// Levels and their files. Files that a later version has no use for are removed when the last reader of
/// an earlier one is done.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) levels: Levels,
    pub(super) tables: Vec<Vec<Arc<Table>>>,
    pub(super) values: BTreeMap<u64, Arc<ValueFile>>,
    /// Scans that looked into the tables of level 0.
    pub(super) scans: AtomicU64,
}

impl Version {
    /// The files of these levels; those that `before` has already are taken from it.
    pub(super) fn new(levels: Levels, before: Option<&Version>, fs: &Arc<dyn Fs>, dir: &Path, caches: &Arc<Caches>) -> Self {
        let known: BTreeMap<u64, &Arc<Table>> =
            before.iter().flat_map(|v| v.tables.iter().flatten()).map(|t| (t.meta.number, t)).collect();
        let table = |meta: &Arc<TableMeta>| match known.get(&meta.number) {
            Some(table) => Arc::clone(table),
            None => Arc::new(Table::new(Arc::clone(fs), dir, (**meta).clone(), Arc::clone(caches))),
        };
        let tables = levels.tables.iter().map(|level| level.iter().map(table).collect()).collect();
        let value = |(number, size): (&u64, &u64)| {
            let known = before.and_then(|v| v.values.get(number));
            let file = known.map_or_else(|| Arc::new(ValueFile::new(Arc::clone(fs), dir, *number, *size)), Arc::clone);
            (*number, file)
        };
        let values = levels.values.iter().map(value).collect();
        // Work in other levels does not make the scans undone that looked into this one.
        let same = before.filter(|before| before.levels.tables[0] == levels.tables[0]);
        let scans = AtomicU64::new(same.map_or(0, |before| before.scans.load(Ordering::Relaxed)));
        Self { levels, tables, values, scans }
    }

    /// Marks the files that only `before` has: they go when nobody reads them any more.
    pub(super) fn retire(&self, before: &Version) {
        let kept: BTreeSet<u64> = self.levels.all().map(|t| t.number).collect();
        before.tables.iter().flatten().filter(|t| !kept.contains(&t.meta.number)).for_each(|t| t.retire());
        before.values.iter().filter(|(n, _)| !self.values.contains_key(n)).for_each(|(_, file)| file.retire());
    }

    /// Shows the newest version of a key with this hash that is not above `tag`.
    pub(super) fn get<R>(&self, key: &[u8], hash: u64, tag: Tag, look: &mut dyn FnMut(Tag, &[u8]) -> R) -> Result<Option<R>> {
        for table in &self.tables[0] {
            if table.meta.overlaps(key, key)
                && let Some(found) = table.get(key, hash, tag, &mut *look)?
            {
                return Ok(Some(found));
            }
        }
        for tables in &self.tables[1..] {
            let at = tables.partition_point(|table| &table.meta.largest[..] < key);
            if let Some(table) = tables.get(at).filter(|table| &table.meta.smallest[..] <= key)
                && let Some(found) = table.get(key, hash, tag, &mut *look)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The value that a version points to.
    pub(super) fn value(&self, dir: &Path, pointer: Pointer, key: &[u8], tag: Tag) -> Result<Vec<u8>> {
        match self.values.get(&pointer.file) {
            Some(file) => file.read(pointer, key, tag),
            None => Err(missing(dir, &value_log::file_name(pointer.file))),
        }
    }

    /// Cursors over every table that has versions after `since`.
    pub(super) fn cursors<'a>(&self, since: u64) -> Vec<Box<dyn Cursor + Send + 'a>> {
        let later = |t: &&Arc<Table>| t.meta.max_seq > since;
        let mut cursors: Vec<Box<dyn Cursor + Send + 'a>> = Vec::new();
        for table in self.tables[0].iter().filter(later) {
            cursors.push(Box::new(TableCursor::new(Arc::clone(table), true)));
        }
        for level in &self.tables[1..] {
            let tables: Vec<_> = level.iter().filter(later).cloned().collect();
            if !tables.is_empty() {
                cursors.push(Box::new(LevelCursor::new(tables, true)));
            }
        }
        cursors
    }
}

/// Keys as hexadecimal text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok());
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.filter(|_| text.len().is_multiple_of(2)).ok_or_else(|| serde::de::Error::custom("a key is not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u64, smallest: u8, largest: u8) -> TableMeta {
        TableMeta { number, max_seq: number, smallest: vec![smallest], largest: vec![largest], ..TableMeta::default() }
    }

    #[test]
    fn an_edit_that_does_not_fit_is_refused() {
        let levels = |edit: &Edit| Levels::new().apply(edit).unwrap();
        let adding =
            |level, tables: &[TableMeta]| Edit { add: tables.iter().map(|t| (level, t.clone())).collect(), ..Edit::default() };
        let before = levels(&adding(6, &[table(1, 10, 20), table(2, 40, 50)]));
        let refused = |edit: &Edit| before.apply(edit).err();
        for (smallest, largest) in [(20, 30), (30, 40), (12, 13), (0, 60), (10, 10)] {
            let why = refused(&adding(6, &[table(3, smallest, largest)]));
            assert_eq!(why.as_deref(), Some("tables of one level overlap"), "{smallest} to {largest}");
            assert_eq!(refused(&adding(5, &[table(3, smallest, largest)])), None, "of another level");
        }
        assert_eq!(refused(&adding(6, &[table(3, 30, 31), table(4, 31, 32)])).as_deref(), Some("tables of one level overlap"));
        assert_eq!(refused(&adding(0, &[table(3, 0, 60), table(4, 0, 60)])), None);
        assert_eq!(
            refused(&Edit { remove: vec![1, 3], ..Edit::default() }).as_deref(),
            Some("a table is removed that is not there")
        );
        let after = before.apply(&Edit { remove: vec![1], ..adding(6, &[table(3, 0, 39)]) }).unwrap();
        assert_eq!((after.all().map(|t| t.number).collect::<Vec<_>>(), after.next), (vec![3, 2], 4));
    }
}
