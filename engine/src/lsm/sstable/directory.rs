//! Where the blocks of a table lie, and which keys it does not hold.

use super::super::entry::{Head, Tag, head, order};
use super::block::{Block, BlockCursor, Nonsense};
use super::{Handle, filter};
use crate::codec::read_varint;
use std::sync::Arc;

/// What is read of a table before its blocks.
#[derive(Debug)]
pub(super) struct Directory {
    index: Block,
    /// For each data block, the head of its last key: most searches need nothing else.
    heads: Vec<Head>,
    handles: Vec<Handle>,
    filter: Arc<[u8]>,
}

impl Directory {
    /// Reads what the index says.
    pub(super) fn new(index: Block, filter: Arc<[u8]>) -> Result<Self, Nonsense> {
        let (mut heads, mut handles) = (Vec::new(), Vec::new());
        let mut cursor = BlockCursor::new(index.clone());
        cursor.first()?;
        while let Some((key, _, stored)) = cursor.current() {
            heads.push(head(key));
            handles.push(read_handle(stored).ok_or(Nonsense)?);
            cursor.next()?;
        }
        Ok(Self { index, heads, handles, filter })
    }

    /// Memory in bytes.
    pub(super) fn memory(&self) -> usize {
        self.index.memory() + self.filter.len() + self.heads.len() * (size_of::<Head>() + size_of::<Handle>())
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Where a block lies.
    pub(super) fn handle(&self, at: usize) -> Option<Handle> {
        self.handles.get(at).copied()
    }

    /// Where the blocks begin.
    pub(super) fn offsets(&self) -> impl Iterator<Item = u64> {
        self.handles.iter().map(|handle| handle.offset)
    }

    /// False if the table certainly does not hold a key with this hash.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        filter::may_hold(&self.filter, hash)
    }

    /// Which block holds the first version at or behind this one; as many as there are if none does.
    pub(super) fn block_of(&self, key: &[u8], tag: Tag) -> Result<usize, Nonsense> {
        let head = head(key);
        let mut at = self.heads.partition_point(|last| *last < head);
        // Among last keys with its head, the whole keys decide.
        let mut end = at + self.heads[at..].partition_point(|last| *last == head);
        while at < end {
            let middle = usize::midpoint(at, end);
            match order(self.last_of(middle)?, (key, tag)) {
                std::cmp::Ordering::Less => at = middle + 1,
                _ => end = middle,
            }
        }
        Ok(at)
    }

    /// The last version in a block.
    pub(super) fn last_of(&self, at: usize) -> Result<(&[u8], Tag), Nonsense> {
        self.index.whole(at).ok_or(Nonsense)
    }
}

fn read_handle(stored: &[u8]) -> Option<Handle> {
    let (offset, at) = read_varint(stored)?;
    let (len, _) = read_varint(&stored[at..])?;
    Some(Handle { offset, len: u32::try_from(len).ok()? })
}
