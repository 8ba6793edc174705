//! What a reader sees: the memtables and the tables of one moment.

use super::cursor::{Cursor, Direction, MemtableCursor, Merge};
use super::entry::{Kind, Tag, unpack};
use super::sstable::hash;
use super::value_log::Pointer;
use super::version::Version;
use super::wal::Memory;
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Memtables and tables of one moment. Its files stay as long as somebody holds it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) active: Arc<Memory>,
    /// From the newest to the oldest.
    pub(super) immutable: Vec<Arc<Memory>>,
    pub(super) version: Arc<Version>,
}

/// What a version says, as far as the tables tell.
pub(super) enum Said<R> {
    Nothing,
    Value(R),
    /// The value lies elsewhere.
    At(Pointer, Tag),
}

impl View {
    /// Shows the value of a key as of a sequence number, if it has one.
    pub(super) fn get<R>(&self, dir: &Path, key: &[u8], seq: u64, now: u64, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let (tag, hash) = (Tag::newest_of(seq), hash(key));
        let mut look = Some(look);
        let mut said = |tag: Tag, stored: &[u8]| -> Result<Said<R>> {
            let nonsense = || nonsense(dir, key);
            let (expires, value) = unpack(tag, stored).ok_or_else(nonsense)?;
            if tag.kind() == Kind::Delete || expires.is_some_and(|at| at <= now) {
                return Ok(Said::Nothing);
            }
            if tag.kind() == Kind::Pointer {
                return Ok(Said::At(Pointer::read(value).ok_or_else(nonsense)?, tag));
            }
            Ok(look.take().map_or(Said::Nothing, |look| Said::Value(look(value))))
        };
        let memories = std::iter::once(&self.active).chain(&self.immutable);
        let found = memories.filter(|m| !m.table.is_empty()).find_map(|m| m.table.get(key, hash, tag));
        let said = match found {
            Some(found) => {
                let (_, tag, stored) = found.parts();
                said(tag, stored)?
            }
            None => self.version.get(key, hash, tag, &mut said)?.transpose()?.unwrap_or(Said::Nothing),
        };
        match said {
            Said::Nothing => Ok(None),
            Said::Value(found) => Ok(Some(found)),
            Said::At(pointer, tag) => {
                let value = self.pointed(dir, pointer, key, tag)?;
                Ok(look.take().map(|look| look(&value)))
            }
        }
    }

    /// The value that a version points to.
    pub(super) fn pointed(&self, dir: &Path, pointer: Pointer, key: &[u8], tag: Tag) -> Result<Vec<u8>> {
        match self.version.values.get(&pointer.file) {
            Some(file) => file.read(pointer, key, tag),
            None => Err(nonsense(dir, key)),
        }
    }

    /// All versions in order; those up to `since` may be left out.
    pub(super) fn merge<'a>(&self, direction: Direction, since: u64) -> Merge<'a> {
        let memories = std::iter::once(&self.active).chain(&self.immutable).filter(|m| !m.table.is_empty());
        let memories = memories.map(|m| Box::new(MemtableCursor::new(Arc::clone(m))) as Box<dyn Cursor + Send + 'a>);
        Merge::new(memories.chain(self.version.cursors(since)).collect(), direction)
    }
}

pub(super) fn nonsense(dir: &Path, key: &[u8]) -> Error {
    Error::corrupt(dir, 0, format!("the value of key {:?} makes no sense", String::from_utf8_lossy(key)))
}
