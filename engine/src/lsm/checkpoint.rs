//! Checkpoints: a second store with the same tables, made of hard links, while writes go on.
//!
//! Tables and value log files never change once they have a name, so that two stores can share them; what is
//! in memory is flushed first. The manifest comes last: until it has its name there is no store to open.

use super::manifest::Manifest;
use super::store::Core;
use super::version::Levels;
use super::{sstable, value_log, wal};
use crate::error::{Error, Result};
use crate::fs::parent;
use std::path::Path;

/// Makes a store in the empty directory `dir` that holds everything acknowledged so far. It is durable on return.
pub(super) fn write(core: &Core, dir: &Path) -> Result<()> {
    core.flush()?;
    let version = core.view().version.clone();
    let fs = &*core.options.fs;
    fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    if !fs.list(dir).map_err(|e| Error::io("list", dir, e))?.is_empty() {
        let why = "the directory of a checkpoint must be empty";
        return Err(Error::Option { option: "dir", value: dir.display().to_string(), why });
    }
    let levels = &version.levels;
    let tables = levels.all().map(|t| sstable::file_name(t.number));
    for name in tables.chain(levels.values.keys().map(|n| value_log::file_name(*n))) {
        let to = dir.join(&name);
        fs.link(&core.dir.join(&name), &to).map_err(|e| Error::io("link", &to, e))?;
    }
    let log = levels.next.max(core.number());
    let last = levels.all().map(|t| t.max_seq).max().unwrap_or(0);
    wal::begin(fs, dir, log, last + 1, None, core.options.memtable_size)?;
    Manifest::create(fs, dir, Levels { log, next: log + 1, backup: None, ..levels.clone() })?;
    fs.sync_dir(parent(dir)).map_err(|e| Error::io("sync", parent(dir), e))
}
