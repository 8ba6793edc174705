//! Writing a table, block by block.

use super::super::entry::Tag;
use super::super::options::Options;
use super::super::version::TableMeta;
use super::block::BlockBuilder;
use super::packing::compress;
use super::{FOOTER, Handle, MAGIC, block_crc, filter, path};
use crate::codec::{crc32c, push_varint};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, write_all_at};
use crate::lsm::options::Compression;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes gathered for one `write`.
const GATHER: usize = 256 << 10;
/// Bytes that may wait for a sync: more of them at once keep the device from readers for longer than 10 ms.
const UNSYNCED: u64 = 2 << 20;

/// A table that is being written.
#[derive(Debug)]
pub(in crate::lsm) struct TableBuilder {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u64,
    block_size: usize,
    compression: Compression,
    bits_per_key: usize,
    block: BlockBuilder,
    index: BlockBuilder,
    hashes: Vec<u64>,
    out: Vec<u8>,
    written: u64,
    synced: u64,
    last_tag: Tag,
    meta: TableMeta,
}

impl TableBuilder {
    pub(in crate::lsm) fn create(fs: &dyn Fs, dir: &Path, number: u64, options: &Options) -> Result<Self> {
        let path = path(dir, number);
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(Self {
            file,
            path,
            number,
            block_size: options.block_size,
            compression: options.compression,
            bits_per_key: options.bloom_bits_per_key,
            block: BlockBuilder::new(16),
            index: BlockBuilder::new(1),
            hashes: Vec::new(),
            out: Vec::new(),
            written: 0,
            synced: 0,
            last_tag: Tag::newest_of(0),
            meta: TableMeta { number, ..TableMeta::default() },
        })
    }

    /// Adds a version; they come in order.
    pub(in crate::lsm) fn add(&mut self, key: &[u8], tag: Tag, stored: &[u8]) -> Result<()> {
        let hash = filter::hash(key);
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
        if self.meta.entries == 0 {
            self.meta.smallest = key.to_vec();
            self.meta.min_seq = u64::MAX;
        }
        self.meta.entries += 1;
        self.meta.min_seq = self.meta.min_seq.min(tag.seq());
        self.meta.max_seq = self.meta.max_seq.max(tag.seq());
        self.meta.deletes += u64::from(tag.kind() == super::super::entry::Kind::Delete);
        self.block.add(key, tag, stored);
        self.last_tag = tag;
        if self.block.len() >= self.block_size { self.end_block() } else { Ok(()) }
    }

    /// Length of the file so far, in bytes.
    pub(in crate::lsm) fn len(&self) -> u64 {
        self.written + self.out.len() as u64 + self.block.len() as u64
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let last = self.block.last_key().to_vec();
        let handle = self.put_finished_block()?;
        let mut stored = Vec::new();
        push_varint(&mut stored, handle.offset);
        push_varint(&mut stored, u64::from(handle.len));
        self.index.add(&last, self.last_tag, &stored);
        self.meta.largest = last;
        Ok(())
    }

    fn put_finished_block(&mut self) -> Result<Handle> {
        let contents = self.block.finish();
        match compress(self.compression, &contents) {
            Some(packed) => self.put(&packed, self.compression),
            None => self.put(&contents, Compression::None),
        }
    }

    fn put(&mut self, contents: &[u8], compression: Compression) -> Result<Handle> {
        let handle = Handle { offset: self.written + self.out.len() as u64, len: contents.len() as u32 };
        self.out.extend_from_slice(contents);
        self.out.push(compression.byte());
        let crc = block_crc(contents, compression.byte(), self.number, handle.offset);
        self.out.extend_from_slice(&crc.to_le_bytes());
        if self.out.len() >= GATHER { self.write().map(|()| handle) } else { Ok(handle) }
    }

    fn write(&mut self) -> Result<()> {
        write_all_at(&*self.file, &self.out, self.written).map_err(|e| Error::io("write to", &self.path, e))?;
        self.written += self.out.len() as u64;
        self.out.clear();
        if self.written - self.synced < UNSYNCED {
            return Ok(());
        }
        self.synced = self.written;
        self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Ends the table and syncs it. Its name is durable when the directory is synced.
    pub(in crate::lsm) fn finish(mut self) -> Result<TableMeta> {
        self.end_block()?;
        let index = self.index.finish();
        let index = self.put(&index, Compression::None)?;
        let bits = if self.bits_per_key == 0 { Vec::new() } else { filter::build(&self.hashes, self.bits_per_key) };
        let bits = self.put(&bits, Compression::None)?;
        let mut footer = Vec::with_capacity(FOOTER);
        for handle in [index, bits] {
            footer.extend_from_slice(&handle.offset.to_le_bytes());
            footer.extend_from_slice(&handle.len.to_le_bytes());
        }
        let crc = footer_crc(&footer, self.number);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(MAGIC);
        self.out.extend_from_slice(&footer);
        self.write()?;
        // A table whose sync failed is never used: whoever builds it writes a new file or stops the store.
        self.file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
        self.meta.size = self.written;
        Ok(self.meta)
    }
}

pub(super) fn footer_crc(handles: &[u8], number: u64) -> u32 {
    crate::codec::crc32c_append(crc32c(handles), &number.to_le_bytes())
}
