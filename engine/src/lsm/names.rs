//! What lies in the directory of a store.

use super::version::Levels;
use super::{sstable, value_log, wal};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::log::remove_leftover;
use std::collections::BTreeSet;
use std::path::Path;

/// What lies in the directory of a store.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) manifest: bool,
    pub(super) tables: BTreeSet<u64>,
    pub(super) values: BTreeSet<u64>,
    pub(super) logs: BTreeSet<u64>,
    /// Drafts that never got their name.
    pub(super) drafts: Vec<String>,
}

impl Names {
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let mut names = Self::default();
        for name in fs.list(dir).map_err(|e| Error::io("list", dir, e))? {
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = wal::number_of(name, "sst") {
                names.tables.insert(number);
            } else if let Some(number) = wal::number_of(name, "val") {
                names.values.insert(number);
            } else if let Some(number) = wal::number_of(name, "wal") {
                names.logs.insert(number);
            } else if name.strip_suffix(".new").is_some_and(|n| n == "manifest" || wal::number_of(n, "wal").is_some()) {
                names.drafts.push(name.to_owned());
            }
            names.manifest |= name == "manifest";
        }
        Ok(names)
    }

    /// The greatest number that a file has.
    pub(super) fn greatest(&self) -> u64 {
        let all = [&self.tables, &self.values, &self.logs].into_iter().flatten();
        all.copied().max().unwrap_or(0)
    }

    /// Everything that the manifest names must be there.
    pub(super) fn check(&self, dir: &Path, levels: &Levels) -> Result<()> {
        let table = levels.all().map(|t| t.number).find(|n| !self.tables.contains(n)).map(sstable::file_name);
        let value = || levels.values.keys().find(|n| !self.values.contains(n)).map(|n| value_log::file_name(*n));
        let log = || (!self.logs.contains(&levels.log)).then(|| wal::file_name(levels.log));
        table.or_else(value).or_else(log).map_or(Ok(()), |name| Err(missing(dir, &name)))
    }

    /// What a crash left of work that was not finished, and what the manifest has let go of.
    pub(super) fn remove_orphans(&self, fs: &dyn Fs, dir: &Path, levels: &Levels) -> Result<()> {
        let named: BTreeSet<u64> = levels.all().map(|t| t.number).collect();
        let tables = self.tables.difference(&named).map(|n| sstable::file_name(*n));
        let values = self.values.iter().filter(|n| !levels.values.contains_key(n)).map(|n| value_log::file_name(*n));
        let logs = self.logs.iter().filter(|n| **n < levels.log).map(|n| wal::file_name(*n));
        for name in tables.chain(values).chain(logs).chain(self.drafts.iter().cloned()) {
            remove_leftover(fs, &dir.join(name))?;
        }
        Ok(())
    }
}

/// A file is not there that the store needs.
pub(super) fn missing(dir: &Path, name: &str) -> Error {
    Error::Corrupt {
        file: dir.join(name),
        offset: 0,
        what: "the file is not there, and the store needs it".to_owned(),
        remedy: "put it back, or open the store with salvage to keep what is intact".to_owned(),
    }
}
