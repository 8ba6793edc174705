//! Compressing blocks. Zstandard is a C library and comes with a feature; the rest is always there.

use super::super::options::Compression;

/// Whether this build has it.
pub(in crate::lsm) fn is_built_in(compression: Compression) -> bool {
    compression != Compression::Zstd || cfg!(feature = "zstd")
}

pub(super) fn compress(compression: Compression, bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = match compression {
        Compression::None => return None,
        Compression::Lz4 => lz4_flex::block::compress_prepend_size(bytes),
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(bytes).ok()?,
        Compression::Zstd => zstd(bytes)?,
    };
    // A block that hardly shrinks is faster to read as it is.
    (packed.len() < bytes.len() - bytes.len() / 8).then_some(packed)
}

pub(super) fn decompress(compression: u8, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match Compression::from_byte(compression) {
        Some(Compression::None) => Ok(bytes),
        Some(Compression::Lz4) => lz4_flex::block::decompress_size_prepended(&bytes).map_err(|e| e.to_string()),
        Some(Compression::Snappy) => snap::raw::Decoder::new().decompress_vec(&bytes).map_err(|e| e.to_string()),
        Some(Compression::Zstd) => unzstd(&bytes),
        None => Err(format!("no compression has the number {compression}")),
    }
}

#[cfg(feature = "zstd")]
fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(bytes, 0).ok()
}

#[cfg(feature = "zstd")]
fn unzstd(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let most = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().ok_or("a block without its length")?;
    zstd::bulk::decompress(bytes, usize::try_from(most).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: &[u8]) -> Option<Vec<u8>> {
    None
}

#[cfg(not(feature = "zstd"))]
fn unzstd(_: &[u8]) -> Result<Vec<u8>, String> {
    Err("it is compressed with Zstandard, which this build lacks: build the engine with its feature zstd".to_owned())
}
