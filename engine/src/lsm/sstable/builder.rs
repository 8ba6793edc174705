//! Writing a table, block by block.

use super::super::entry::Tag;
use super::super::options::Options;
use super::super::packing::Packer;
use super::super::version::TableMeta;
use super::block::BlockBuilder;
use super::{FOOTER, Handle, MAGIC, block_crc, filter, path};
use crate::codec::{crc32c, push_varint};
use crate::error::Result;
use crate::fs::Fs;
use crate::lsm::file::{FileBuilder, Way};
use crate::lsm::options::Compression;
use std::path::Path;

/// A table that is being written.
#[derive(Debug)]
pub(in crate::lsm) struct TableBuilder {
    file: FileBuilder,
    number: u64,
    block_size: usize,
    packer: Packer,
    bits_per_key: usize,
    block: BlockBuilder,
    index: BlockBuilder,
    hashes: Vec<u64>,
    last_tag: Tag,
    meta: TableMeta,
}

impl TableBuilder {
    pub(in crate::lsm) fn create(fs: &dyn Fs, dir: &Path, number: u64, options: &Options, way: Way) -> Result<Self> {
        Ok(Self {
            file: FileBuilder::create(fs, path(dir, number), way)?,
            number,
            block_size: options.block_size,
            packer: Packer::new(options.compression),
            bits_per_key: options.bloom_bits_per_key,
            block: BlockBuilder::new(16),
            index: BlockBuilder::new(1),
            hashes: Vec::new(),
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
        self.file.len() + self.block.len() as u64
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
        let (contents, compression) = self.packer.pack(self.block.finish());
        let handle = put(&mut self.file, self.number, contents, compression);
        self.block.clear();
        handle
    }

    /// Ends the table and syncs it. Its name is durable when the directory is synced.
    pub(in crate::lsm) fn finish(mut self) -> Result<TableMeta> {
        self.end_block()?;
        let index = put(&mut self.file, self.number, self.index.finish(), Compression::None)?;
        let bits = if self.bits_per_key == 0 { Vec::new() } else { filter::build(&self.hashes, self.bits_per_key) };
        let bits = put(&mut self.file, self.number, &bits, Compression::None)?;
        let mut footer = Vec::with_capacity(FOOTER);
        for handle in [index, bits] {
            footer.extend_from_slice(&handle.offset.to_le_bytes());
            footer.extend_from_slice(&handle.len.to_le_bytes());
        }
        let crc = footer_crc(&footer, self.number);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(MAGIC);
        self.file.append(|bytes| bytes.extend_from_slice(&footer))?;
        self.meta.size = self.file.finish()?;
        Ok(self.meta)
    }
}

fn put(file: &mut FileBuilder, number: u64, contents: &[u8], compression: Compression) -> Result<Handle> {
    let handle = Handle { offset: file.len(), len: contents.len() as u32 };
    let crc = block_crc(contents, compression.byte(), number, handle.offset);
    file.append(|bytes| {
        bytes.extend_from_slice(contents);
        bytes.push(compression.byte());
        bytes.extend_from_slice(&crc.to_le_bytes());
    })?;
    Ok(handle)
}

pub(super) fn footer_crc(handles: &[u8], number: u64) -> u32 {
    crate::codec::crc32c_append(crc32c(handles), &number.to_le_bytes())
}
