//! What a reader sees: the memtables and the tables of one moment.

use super::cursor::{Cursor, Direction, MemtableCursor, Merge};
use super::entry::{Kind, Tag, has_ended, unpack};
use super::sstable::hash;
use super::value_log::Pointer;
use super::version::Version;
use super::wal::Memory;
use crate::error::{Error, Result};
use std::borrow::Cow;
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

impl View {
    /// Shows the value of a key as of a sequence number, if it has one.
    pub(super) fn get<R>(&self, dir: &Path, key: &[u8], seq: u64, now: u64, look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let (tag, hash) = (Tag::newest_of(seq), hash(key));
        let mut look = Some(look);
        let mut show = |tag: Tag, stored: &[u8]| -> Result<Option<R>> {
            let value = self.value_of(dir, key, tag, stored, now)?;
            Ok(value.and_then(|value| look.take().map(|look| look(&value))))
        };
        let memories = std::iter::once(&self.active).chain(&self.immutable);
        let found = memories.filter(|m| !m.table.is_empty()).find_map(|m| m.table.get(key, hash, tag));
        match found {
            Some((tag, stored)) => show(tag, &stored),
            None => self.version.get(key, hash, tag, &mut show)?.unwrap_or(Ok(None)),
        }
    }

    /// The value of a version at a time; `None` for one that is deleted or has ended.
    pub(super) fn value_of<'s>(
        &self,
        dir: &Path,
        key: &[u8],
        tag: Tag,
        stored: &'s [u8],
        now: u64,
    ) -> Result<Option<Cow<'s, [u8]>>> {
        value_of(dir, key, tag, stored, now, |pointer| self.version.value(dir, pointer, key, tag))
    }

    /// All versions in order; those up to `since` may be left out.
    pub(super) fn merge<'a>(&self, direction: Direction, since: u64) -> Merge<'a> {
        let memories = std::iter::once(&self.active).chain(&self.immutable).filter(|m| !m.table.is_empty());
        let memories = memories.map(|m| Box::new(MemtableCursor::new(Arc::clone(m))) as Box<dyn Cursor + Send + 'a>);
        Merge::new(memories.chain(self.version.cursors(since)).collect(), direction)
    }
}

/// The value of a version at a time; `None` for one that is deleted or has ended. `read` fetches what lies elsewhere.
pub(super) fn value_of<'s>(
    dir: &Path,
    key: &[u8],
    tag: Tag,
    stored: &'s [u8],
    now: u64,
    read: impl FnOnce(Pointer) -> Result<Vec<u8>>,
) -> Result<Option<Cow<'s, [u8]>>> {
    let nonsense = || Error::corrupt(dir, 0, format!("the value of key {:?} makes no sense", String::from_utf8_lossy(key)));
    let (end, value) = unpack(tag, stored).ok_or_else(nonsense)?;
    match tag.kind() {
        Kind::Delete => Ok(None),
        _ if has_ended(end, now) => Ok(None),
        Kind::Value => Ok(Some(Cow::Borrowed(value))),
        Kind::Pointer => read(Pointer::read(value).ok_or_else(nonsense)?).map(|value| Some(Cow::Owned(value))),
    }
}

/// The Unix time in seconds at which a version ends.
pub(super) fn end_of(tag: Tag, stored: &[u8]) -> Option<u64> {
    unpack(tag, stored).and_then(|(end, _)| end)
}
