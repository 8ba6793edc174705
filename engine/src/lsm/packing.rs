//! Compressing blocks and long records of the log. Zstandard is a C library and comes with a feature; the rest is always there.

use super::options::Compression;
use crate::error::Error;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::fmt;
use std::sync::Arc;

/// Bytes of memory that are kept from one block to the next: a single value may make one much longer.
pub(super) const KEPT: usize = 1 << 20;

/// Refuses what this build does not have.
///
/// # Errors
/// [`Error::Option`].
pub(super) fn check(compression: Compression) -> Result<(), Error> {
    if compression != Compression::Zstd || cfg!(feature = "zstd") {
        return Ok(());
    }
    let why = "this build has no Zstandard; build the engine with its feature zstd";
    Err(Error::Option { option: "compression", value: "zstd".to_owned(), why })
}

/// Compresses one block after the other, with the same memory but for Zstandard.
pub(super) struct Packer {
    compression: Compression,
    lz4: CompressTable,
    snappy: snap::raw::Encoder,
    packed: Vec<u8>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Packer {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, lz4: CompressTable::default(), snappy: snap::raw::Encoder::new(), packed: Vec::new() }
    }

    /// What to store of a block, and how it is compressed.
    pub(super) fn pack<'a>(&'a mut self, bytes: &'a [u8]) -> (&'a [u8], Compression) {
        // A block that hardly shrinks is faster to read as it is.
        let worth = bytes.len() - bytes.len() / 8;
        match self.compress(bytes) {
            Some(len) if len < worth => (&self.packed[..len], self.compression),
            _ => (bytes, Compression::None),
        }
    }

    /// Gives back the memory that a long block took.
    pub(super) fn shrink(&mut self) {
        self.packed.truncate(KEPT);
        self.packed.shrink_to(KEPT);
    }

    /// The length to which the block was compressed, in `packed`.
    fn compress(&mut self, bytes: &[u8]) -> Option<usize> {
        self.shrink();
        match self.compression {
            Compression::None => None,
            Compression::Lz4 => {
                self.packed.resize(4 + get_maximum_output_size(bytes.len()), 0);
                let (len, packed) = self.packed.split_first_chunk_mut()?;
                *len = (bytes.len() as u32).to_le_bytes();
                let len = compress_into_with_table(bytes, packed, &mut self.lz4).ok()?;
                if matches!(self.lz4, CompressTable::Large(_)) {
                    // For a block that was long; the next one compresses as if it were the first.
                    self.lz4 = CompressTable::default();
                }
                Some(4 + len)
            }
            Compression::Snappy => {
                self.packed.resize(snap::raw::max_compress_len(bytes.len()), 0);
                self.snappy.compress(bytes, &mut self.packed).ok()
            }
            Compression::Zstd => {
                self.packed = zstd(bytes)?;
                Some(self.packed.len())
            }
        }
    }
}

/// The length of what was stored, before it was compressed.
pub(super) fn unpacked_len(compression: Compression, stored: &[u8]) -> Result<usize, String> {
    let len = match compression {
        Compression::None => stored.len(),
        Compression::Lz4 => lz4_flex::block::uncompressed_size(stored).map_err(|e| e.to_string())?.0,
        Compression::Snappy => snap::raw::decompress_len(stored).map_err(|e| e.to_string())?,
        Compression::Zstd => unzstd_len(stored)?,
    };
    // LZ4 and Snappy put at most 255 bytes into one.
    let most = if compression == Compression::Zstd { u32::MAX as usize } else { 64 + 256 * stored.len() };
    if len <= most { Ok(len) } else { Err(format!("{} bytes that say they were {len}", stored.len())) }
}

/// The compression with this number.
pub(super) fn compression_of(byte: u8) -> Result<Compression, String> {
    Compression::from_byte(byte).ok_or_else(|| format!("no compression has the number {byte}"))
}

/// What was stored of a block as it was before, at the start of memory for so many bytes that is asked for, and its length.
pub(super) fn decompress(
    compression: Compression,
    stored: &[u8],
    memory: impl FnOnce(usize) -> Arc<[u8]>,
) -> Result<(Arc<[u8]>, usize), String> {
    // Memory is made before a byte of it is known to be there.
    let len = unpacked_len(compression, stored)?;
    let mut bytes = memory(len);
    let into = &mut Arc::make_mut(&mut bytes)[..len];
    let written = match compression {
        Compression::None => {
            into.copy_from_slice(stored);
            len
        }
        Compression::Lz4 => lz4_flex::block::decompress_into(&stored[4..], into).map_err(|e| e.to_string())?,
        Compression::Snappy => snap::raw::Decoder::new().decompress(stored, into).map_err(|e| e.to_string())?,
        Compression::Zstd => unzstd(stored, into)?,
    };
    if written == len { Ok((bytes, len)) } else { Err(format!("{written} bytes where {len} were stored")) }
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(bytes, 0).ok()
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: &[u8]) -> Option<Vec<u8>> {
    None
}

#[cfg(feature = "zstd")]
fn unzstd_len(stored: &[u8]) -> Result<usize, String> {
    let len = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten().ok_or("a block without its length")?;
    usize::try_from(len).map_err(|e| e.to_string())
}

#[cfg(feature = "zstd")]
fn unzstd(stored: &[u8], into: &mut [u8]) -> Result<usize, String> {
    zstd::bulk::decompress_to_buffer(stored, into).map_err(|e| e.to_string())
}

#[cfg(not(feature = "zstd"))]
fn unzstd_len(_: &[u8]) -> Result<usize, String> {
    Err("it is compressed with Zstandard, which this build lacks: build the engine with its feature zstd".to_owned())
}

#[cfg(not(feature = "zstd"))]
fn unzstd(_: &[u8], _: &mut [u8]) -> Result<usize, String> {
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_is_made_for_more_than_a_block_can_hold() {
        let lz4 = [&u32::MAX.to_le_bytes()[..], &[0x1f, 7, 1, 0, 255, 255]].concat();
        let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 7];
        for (compression, stored) in [(Compression::Lz4, &lz4[..]), (Compression::Snappy, &snappy[..])] {
            let none = |len: usize| -> Arc<[u8]> { panic!("asked for {len} bytes") };
            let why = decompress(compression, stored, none).unwrap_err();
            assert_eq!(why, format!("{} bytes that say they were {}", stored.len(), u32::MAX));
        }
    }

    #[test]
    fn what_shrinks_as_far_as_it_can_comes_back() {
        let bytes = vec![7; 3 << 20];
        for compression in [Compression::None, Compression::Lz4, Compression::Snappy] {
            let mut packer = Packer::new(compression);
            let (stored, compression) = packer.pack(&bytes);
            let (found, len) = decompress(compression, stored, |len| vec![1; len + 5].into()).unwrap();
            assert_eq!((&found[..len], len), (&bytes[..], bytes.len()));
        }
    }
}
