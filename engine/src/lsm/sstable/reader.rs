//! Reading a table: by key, and in order.

use super::super::cursor::Cursor;
use super::super::entry::{Head, Tag, head, order};
use super::super::version::TableMeta;
use super::block::{Block, BlockCursor, KEPT, Nonsense};
use super::builder::footer_crc;
use super::packing::decompress;
use super::{FOOTER, Handle, MAGIC, TRAILER, block_crc, filter, path};
use crate::codec::{read_u32, read_varint};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, read_full_at};
use quick_cache::sync::Cache;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

thread_local! {
    /// What lies on the device of the block that is read, until it is checked and decompressed.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was read of tables, as long as it fits.
#[derive(Debug)]
pub(in crate::lsm) struct Caches {
    blocks: Cache<(u64, u64), Block, Weights, foldhash::fast::FixedState>,
    indexes: Cache<u64, Arc<Directory>, Weights, foldhash::fast::FixedState>,
}

#[derive(Clone, Debug)]
struct Weights;

impl quick_cache::Weighter<(u64, u64), Block> for Weights {
    fn weight(&self, _: &(u64, u64), block: &Block) -> u64 {
        block.memory() as u64 + 64
    }
}

impl quick_cache::Weighter<u64, Arc<Directory>> for Weights {
    fn weight(&self, _: &u64, found: &Arc<Directory>) -> u64 {
        let blocks = found.heads.len() * (size_of::<Head>() + size_of::<Handle>());
        (found.index.memory() + found.filter.len() + blocks) as u64 + 64
    }
}

impl Caches {
    /// Caches of so many bytes each.
    pub(in crate::lsm) fn new(blocks: u64, indexes: u64) -> Self {
        let hash = foldhash::fast::FixedState::default;
        let items = |bytes: u64, each: u64| (bytes / each).clamp(16, 1 << 20) as usize;
        Self {
            blocks: Cache::with(items(blocks, 4096), blocks, Weights, hash(), Default::default()),
            indexes: Cache::with(items(indexes, 64 << 10), indexes, Weights, hash(), Default::default()),
        }
    }

    /// Changes how much they hold, in bytes.
    pub(in crate::lsm) fn resize(&self, blocks: u64, indexes: u64) {
        self.blocks.set_capacity(blocks);
        self.indexes.set_capacity(indexes);
    }

    /// Lets go of what was read of a table: nobody asks for it again, and it would take others' place until it is old.
    fn forget(&self, table: u64) {
        match self.indexes.remove(&table) {
            Some((_, directory)) => directory.handles.iter().for_each(|handle| drop(self.blocks.remove(&(table, handle.offset)))),
            // It was never read, or not for long: who knows what is left of it.
            None => self.blocks.retain(|(other, _), _| *other != table),
        }
    }

    /// Hits and misses of blocks, and bytes held by blocks and by indexes.
    pub(in crate::lsm) fn usage(&self) -> (u64, u64, u64, u64) {
        (self.blocks.hits(), self.blocks.misses(), self.blocks.weight(), self.indexes.weight())
    }
}

/// Where the blocks of a table lie, and which keys it does not hold.
#[derive(Debug)]
pub(super) struct Directory {
    index: Block,
    /// For each data block, the head of its last key: most searches need nothing else.
    heads: Vec<Head>,
    handles: Vec<Handle>,
    filter: Arc<[u8]>,
}

impl Directory {
    /// Which block holds the first version at or behind this one; as many as there are if none does.
    fn block_of(&self, key: &[u8], tag: Tag) -> std::result::Result<usize, Nonsense> {
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
    fn last_of(&self, at: usize) -> std::result::Result<(&[u8], Tag), Nonsense> {
        self.index.whole(at).ok_or(Nonsense)
    }
}

fn read_handle(stored: &[u8]) -> Option<Handle> {
    let (offset, at) = read_varint(stored)?;
    let (len, _) = read_varint(&stored[at..])?;
    Some(Handle { offset, len: u32::try_from(len).ok()? })
}

/// A table's file.
#[derive(Debug)]
pub(in crate::lsm) struct Table {
    pub(in crate::lsm) meta: TableMeta,
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: OnceLock<Arc<dyn File>>,
    caches: Arc<Caches>,
    retired: AtomicBool,
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            self.caches.forget(self.meta.number);
            // What stays is removed when the store is opened next: the manifest does not name it.
            let _ = self.fs.remove(&self.path);
        }
    }
}

impl Table {
    /// The file goes when its last reader is done.
    pub(in crate::lsm) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(in crate::lsm) fn new(fs: Arc<dyn Fs>, dir: &Path, meta: TableMeta, caches: Arc<Caches>) -> Self {
        Self { path: path(dir, meta.number), meta, fs, file: OnceLock::new(), caches, retired: AtomicBool::new(false) }
    }

    fn file(&self) -> Result<&Arc<dyn File>> {
        match self.file.get() {
            Some(file) => Ok(file),
            None => {
                let file = self.fs.open(&self.path).map_err(|e| Error::io("open", &self.path, e))?;
                Ok(self.file.get_or_init(|| file))
            }
        }
    }

    fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let got = read_full_at(&**self.file()?, bytes, offset).map_err(|e| Error::io("read", &self.path, e))?;
        if got < bytes.len() {
            return Err(self.corrupt(offset, format!("{} bytes should lie here and {got} do", bytes.len())));
        }
        Ok(())
    }

    /// The contents of a block, checked.
    fn contents(&self, Handle { offset, len }: Handle) -> Result<Arc<[u8]>> {
        if offset + u64::from(len) + TRAILER as u64 > self.meta.size {
            return Err(self.corrupt(offset, "a block that lies outside its file"));
        }
        let len = len as usize;
        STORED.with_borrow_mut(|memory| {
            memory.resize(memory.len().max(len + TRAILER), 0);
            let stored = &mut memory[..len + TRAILER];
            self.read(stored, offset)?;
            let (stored, trailer) = stored.split_at(len);
            if read_u32(trailer, 1) != Some(block_crc(stored, trailer[0], self.meta.number, offset)) {
                return Err(self.corrupt(offset, "the checksum of a block does not match"));
            }
            let contents = decompress(trailer[0], stored).map_err(|why| self.corrupt(offset, why));
            memory.truncate(KEPT);
            memory.shrink_to(KEPT);
            contents
        })
    }

    fn load_block(&self, handle: Handle) -> Result<Block> {
        Block::new(self.contents(handle)?).ok_or_else(|| self.nonsense(handle.offset))
    }

    fn nonsense(&self, offset: u64) -> Error {
        self.corrupt(offset, "a block whose checksum holds but whose entries make no sense")
    }

    fn block(&self, handle: Handle, keep: bool) -> Result<Block> {
        let key = (self.meta.number, handle.offset);
        if let Some(block) = self.caches.blocks.get(&key) {
            return Ok(block);
        }
        let block = self.load_block(handle)?;
        if keep {
            self.caches.blocks.insert(key, block.clone());
        }
        Ok(block)
    }

    fn directory(&self) -> Result<Arc<Directory>> {
        if let Some(found) = self.caches.indexes.get(&self.meta.number) {
            return Ok(found);
        }
        let at = self.meta.size.saturating_sub(FOOTER as u64);
        let mut footer = [0; FOOTER];
        self.read(&mut footer, at)?;
        let (handles, rest) = footer.split_at(24);
        if read_u32(rest, 0) != Some(footer_crc(handles, self.meta.number)) || !rest.ends_with(MAGIC) {
            return Err(self.corrupt(at, "the footer of the table does not match its checksum"));
        }
        let handle = |bytes: &[u8]| Handle {
            offset: bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)),
            len: read_u32(bytes, 8).unwrap_or_default(),
        };
        let index = self.load_block(handle(handles))?;
        let filter = self.contents(handle(&handles[12..]))?;
        let (mut heads, mut handles) = (Vec::new(), Vec::new());
        let mut cursor = BlockCursor::new(index.clone());
        let mut step = cursor.first();
        while let (Ok(()), Some((key, _, stored))) = (&step, cursor.current()) {
            heads.push(head(key));
            handles.push(self.handle(stored)?);
            step = cursor.next();
        }
        step.map_err(|Nonsense| self.nonsense(at))?;
        let found = Arc::new(Directory { index, heads, handles, filter });
        self.caches.indexes.insert(self.meta.number, Arc::clone(&found));
        Ok(found)
    }

    /// Shows the newest version of a key that is not above `tag`, if the table has one.
    pub(in crate::lsm) fn get<R>(
        &self,
        key: &[u8],
        hash: u64,
        tag: Tag,
        look: impl FnOnce(Tag, &[u8]) -> R,
    ) -> Result<Option<R>> {
        let found = self.directory()?;
        if !filter::may_hold(&found.filter, hash) {
            return Ok(None);
        }
        let nonsense = |Nonsense| self.nonsense(0);
        let Some(handle) = found.handles.get(found.block_of(key, tag).map_err(nonsense)?) else { return Ok(None) };
        let block = self.block(*handle, true)?;
        Ok(block.find(key, tag).map_err(nonsense)?.map(|(tag, stored)| look(tag, stored)))
    }

    fn handle(&self, stored: &[u8]) -> Result<Handle> {
        read_handle(stored).ok_or_else(|| self.corrupt(0, "an index entry without a place"))
    }

    /// Checks the parts without which none of it can be read.
    pub(in crate::lsm) fn probe(&self) -> Result<()> {
        self.directory().map(drop)
    }

    /// Reads and checks everything.
    pub(in crate::lsm) fn check(self: &Arc<Self>) -> Result<()> {
        let mut cursor = TableCursor::new(Arc::clone(self), false);
        let mut entries = 0;
        let mut last: Option<(Vec<u8>, Tag)> = None;
        cursor.first()?;
        while let Some((key, tag, _)) = cursor.current() {
            if let Some((before, newer)) = &last
                && super::super::entry::order((before, *newer), (key, tag)) != std::cmp::Ordering::Less
            {
                return Err(self.corrupt(0, "versions out of order"));
            }
            last = Some((key.to_vec(), tag));
            entries += 1;
            cursor.next()?;
        }
        if entries != self.meta.entries {
            return Err(self.corrupt(0, format!("{entries} versions, and the manifest says {}", self.meta.entries)));
        }
        Ok(())
    }
}

/// Is told of a block that cannot be read, and the first and last key that it may hold.
pub(in crate::lsm) type Lost = Box<dyn FnMut(Error, (Vec<u8>, Vec<u8>)) -> Result<()> + Send>;

/// A place in a table.
pub(in crate::lsm) struct TableCursor {
    table: Arc<Table>,
    directory: Option<Arc<Directory>>,
    /// Which block it is in; as many as there are, or more, for none.
    at: usize,
    block: Option<BlockCursor>,
    /// Whether blocks that are read for it stay in the cache.
    keep: bool,
    /// What becomes of damage; without it, damage is an error. For one way forward only.
    lost: Option<Lost>,
}

impl std::fmt::Debug for TableCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableCursor").field("table", &self.table.path).finish_non_exhaustive()
    }
}

impl TableCursor {
    /// Nowhere in the table yet.
    pub(in crate::lsm) fn new(table: Arc<Table>, keep: bool) -> Self {
        Self { table, directory: None, at: 0, block: None, keep, lost: None }
    }

    /// A cursor that goes forward, past blocks that cannot be read.
    pub(in crate::lsm) fn salvaging(table: Arc<Table>, lost: Lost) -> Self {
        Self { table, directory: None, at: 0, block: None, keep: false, lost: Some(lost) }
    }

    /// Enters a block; whether there is one.
    fn enter(&mut self, which: impl FnOnce(&Directory) -> std::result::Result<usize, Nonsense>) -> Result<bool> {
        let directory = match &self.directory {
            Some(directory) => directory,
            None => self.directory.insert(self.table.directory()?),
        };
        self.at = which(directory).map_err(|Nonsense| self.table.nonsense(0))?;
        loop {
            let Some(&handle) = self.directory.as_ref().and_then(|directory| directory.handles.get(self.at)) else {
                self.block = None;
                return Ok(false);
            };
            match (self.table.block(handle, self.keep), &mut self.block) {
                (Ok(block), Some(cursor)) => cursor.reset(block),
                (Ok(block), none) => *none = Some(BlockCursor::new(block)),
                (Err(e), _) => {
                    self.pass_over(e)?;
                    continue;
                }
            }
            return Ok(true);
        }
    }

    /// Goes on behind a block that cannot be read, if that is allowed.
    fn pass_over(&mut self, e: Error) -> Result<()> {
        let (Some(lost), Some(directory)) = (&mut self.lost, &self.directory) else { return Err(e) };
        let key_of = |at| directory.last_of(at).map(|(key, _)| key.to_vec()).map_err(|Nonsense| self.table.nonsense(0));
        // The index names the last key of each block. Versions of one key may go on in the next block, so the last key of
        // the block before counts.
        let first = self.at.checked_sub(1).map_or_else(|| Ok(Vec::new()), key_of)?;
        lost(e, (first, key_of(self.at)?))?;
        self.at += 1;
        Ok(())
    }

    fn enter_next(&mut self) -> Result<bool> {
        let next = self.at.saturating_add(1);
        self.enter(|_| Ok(next))
    }

    fn enter_before(&mut self) -> Result<bool> {
        // There is none of the greatest number.
        let before = self.at.checked_sub(1).unwrap_or(usize::MAX);
        self.enter(|_| Ok(before))
    }

    /// Moves in the block; whether it has something there.
    fn step(&mut self, step: impl FnOnce(&mut BlockCursor) -> std::result::Result<(), Nonsense>) -> Result<bool> {
        let Some(block) = &mut self.block else { return Ok(false) };
        step(block).map_err(|Nonsense| self.table.nonsense(0))?;
        Ok(block.current().is_some())
    }
}

impl Cursor for TableCursor {
    fn first(&mut self) -> Result<()> {
        if self.enter(|_| Ok(0))? {
            self.step(BlockCursor::first)?;
        }
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        if self.enter(|directory| Ok(directory.handles.len().wrapping_sub(1)))? {
            self.step(BlockCursor::last)?;
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        if self.enter(|directory| directory.block_of(key, tag))? {
            self.step(|block| block.seek(key, tag))?;
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], tag: Tag) -> Result<()> {
        if !self.enter(|directory| directory.block_of(key, tag))? {
            return self.last();
        }
        if !self.step(|block| block.seek_before(key, tag))? && self.enter_before()? {
            self.step(BlockCursor::last)?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if !self.step(BlockCursor::next)? && self.enter_next()? {
            self.step(BlockCursor::first)?;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if !self.step(BlockCursor::prev)? && self.enter_before()? {
            self.step(BlockCursor::last)?;
        }
        Ok(())
    }

    fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        self.block.as_ref()?.current()
    }
}
