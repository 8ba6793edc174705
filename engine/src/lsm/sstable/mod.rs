//! Sorted tables: immutable files of versions in order.
//!
//! ```text
//! table  = data block*, index block, filter block, footer
//! block  = contents (compressed or not), compression: u8, crc: u32 LE
//! crc    = CRC32C over contents, compression, number of the table: u64 LE, offset of the block: u64 LE
//! index  = an entry for each data block: its last version, and offset: varint, length: varint (of contents)
//! footer = offset: u64 LE and length: u32 LE of index and of filter, crc: u32 LE over these 24 bytes and the number, "sstable1"
//! ```
//!
//! The checksum covers where a block belongs, so that a block of another place or table is not taken for it.
//!
//! **Invariant:** no byte of a table is believed before its checksum was.

mod block;
mod builder;
mod cache;
mod directory;
mod filter;
mod reader;

pub(super) use builder::TableBuilder;
pub(super) use cache::Caches;
pub(super) use filter::hash;
pub(super) use reader::{Lost, Table, TableCursor};

use crate::codec::{crc32c, crc32c_append};
use std::path::{Path, PathBuf};

const FOOTER: usize = 36;
const MAGIC: &[u8; 8] = b"sstable1";
/// Compression and checksum behind a block's contents.
const TRAILER: usize = 5;

/// The name of a table's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.sst")
}

/// Where a table lies.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

/// Where a block lies in its file; the length is that of its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Handle {
    offset: u64,
    len: u32,
}

fn block_crc(contents: &[u8], compression: u8, number: u64, offset: u64) -> u32 {
    let crc = crc32c_append(crc32c(contents), &[compression]);
    crc32c_append(crc32c_append(crc, &number.to_le_bytes()), &offset.to_le_bytes())
}
