//! Reading a table: by key, and in order.

use super::super::cursor::Cursor;
use super::super::entry::Tag;
use super::super::packing::{compression_of, decompress};
use super::super::version::TableMeta;
use super::block::{Block, BlockCursor, Nonsense};
use super::builder::footer_crc;
use super::cache::{Caches, zeros};
use super::directory::Directory;
use super::{FOOTER, Handle, MAGIC, TRAILER, block_crc, path};
use crate::codec::read_u32;
use crate::error::{Error, Result};
use crate::fs::{File, Fs, read_full_at};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes that a thread keeps to read blocks into: those of indexes and filters may be much longer, but are read once.
const STORED_MOST: usize = 64 << 10;

thread_local! {
    /// What lies on the device of the block that is read, until it is checked and decompressed.
    static STORED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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

    /// The contents of a block, checked, at the start of memory that is asked for.
    fn contents(&self, Handle { offset, len }: Handle, memory: impl FnOnce(usize) -> Arc<[u8]>) -> Result<(Arc<[u8]>, usize)> {
        if offset + u64::from(len) + TRAILER as u64 > self.meta.size {
            return Err(self.corrupt(offset, "a block that lies outside its file"));
        }
        // Whoever reads in the middle of this, or at the end of a thread, takes memory of its own.
        let mut bytes = STORED.try_with(Cell::take).unwrap_or_default();
        bytes.resize(bytes.len().max(len as usize + TRAILER), 0);
        let contents = self.contents_by(&mut bytes[..len as usize + TRAILER], offset, memory);
        if bytes.len() <= STORED_MOST {
            let _ = STORED.try_with(|stored| stored.set(bytes));
        }
        contents
    }

    fn contents_by(&self, bytes: &mut [u8], offset: u64, memory: impl FnOnce(usize) -> Arc<[u8]>) -> Result<(Arc<[u8]>, usize)> {
        self.read(bytes, offset)?;
        let (stored, trailer) = bytes.split_at(bytes.len() - TRAILER);
        if read_u32(trailer, 1) != Some(block_crc(stored, trailer[0], self.meta.number, offset)) {
            return Err(self.corrupt(offset, "the checksum of a block does not match"));
        }
        let unpacked = compression_of(trailer[0]).and_then(|compression| decompress(compression, stored, memory));
        unpacked.map_err(|why| self.corrupt(offset, why))
    }

    fn load_block(&self, handle: Handle, memory: impl FnOnce(usize) -> Arc<[u8]>) -> Result<Block> {
        let (bytes, len) = self.contents(handle, memory)?;
        Block::new(bytes, len).ok_or_else(|| self.nonsense(handle.offset))
    }

    fn nonsense(&self, offset: u64) -> Error {
        self.corrupt(offset, "a block whose checksum holds but whose entries make no sense")
    }

    fn block(&self, handle: Handle, keep: bool) -> Result<Block> {
        let key = (self.meta.number, handle.offset);
        if let Some(block) = self.caches.block(key) {
            return Ok(block);
        }
        let block = self.load_block(handle, |len| self.caches.memory(len))?;
        if keep {
            self.caches.keep_block(key, block.clone());
        }
        Ok(block)
    }

    fn directory(&self) -> Result<Arc<Directory>> {
        if let Some(found) = self.caches.directory(self.meta.number) {
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
        let index = self.load_block(handle(handles), zeros)?;
        let (filter, _) = self.contents(handle(&handles[12..]), zeros)?;
        let found = Arc::new(Directory::new(index, filter).map_err(|Nonsense| self.nonsense(at))?);
        self.caches.keep_directory(self.meta.number, Arc::clone(&found));
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
        if !found.may_hold(hash) {
            return Ok(None);
        }
        let nonsense = |Nonsense| self.nonsense(0);
        let Some(handle) = found.handle(found.block_of(key, tag).map_err(nonsense)?) else { return Ok(None) };
        let block = self.block(handle, true)?;
        Ok(block.find(key, tag).map_err(nonsense)?.map(|(tag, stored)| look(tag, stored)))
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
            let Some(handle) = self.directory.as_ref().and_then(|directory| directory.handle(self.at)) else {
                self.leave();
                return Ok(false);
            };
            match (self.table.block(handle, self.keep), &mut self.block) {
                (Ok(block), Some(cursor)) => self.table.caches.recycle(cursor.reset(block)),
                (Ok(block), none) => *none = Some(BlockCursor::new(block)),
                (Err(e), _) => {
                    self.pass_over(e)?;
                    continue;
                }
            }
            return Ok(true);
        }
    }

    /// Lets go of the block it is in.
    fn leave(&mut self) {
        if let Some(cursor) = self.block.take() {
            self.table.caches.recycle(cursor.into_block());
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

impl Drop for TableCursor {
    fn drop(&mut self) {
        self.leave();
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
        if self.enter(|directory| Ok(directory.len().wrapping_sub(1)))? {
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
