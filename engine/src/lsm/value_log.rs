//! The value log: large values, each in a record of its own, so that compactions move keys and not values.
//!
//! A file is written once, by a flush or a compaction, and synced before the manifest names it. A version in a
//! table points to its record. Values leave a file only when a compaction rewrites the versions that point to it,
//! which keep their place in history: collection cannot bring a deleted key back.
//!
//! ```text
//! file   = "values 1\n", record*
//! record = binary framing of the log, kind V, body = tag: u64 LE, key length: varint, key, value
//! ```

use super::entry::{Tag, sized};
use super::file::{FileBuilder, Way};
use crate::codec::{push_varint, read_varint};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, read_full_at};
use crate::log::{Framing, Header, Parsed};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The name of a file of values.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.val")
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) file: u64,
    pub(super) offset: u64,
    /// Length of the record in bytes.
    pub(super) len: u64,
}

impl Pointer {
    pub(super) fn push(self, out: &mut Vec<u8>) {
        [self.file, self.offset, self.len].into_iter().for_each(|number| push_varint(out, number));
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (file, at) = read_varint(bytes)?;
        let (offset, len) = read_varint(&bytes[at..])?;
        let at = at + len;
        let (len, _) = read_varint(&bytes[at..])?;
        Some(Self { file, offset, len })
    }
}

/// A file of values that is being written.
#[derive(Debug)]
pub(super) struct ValueBuilder {
    file: FileBuilder,
    pub(super) number: u64,
}

impl ValueBuilder {
    pub(super) fn create(fs: &dyn Fs, dir: &Path, number: u64, way: Way) -> Result<Self> {
        let mut file = FileBuilder::create(fs, dir.join(file_name(number)), way)?;
        file.append(|bytes| bytes.extend_from_slice(Header::Values.line()))?;
        Ok(Self { file, number })
    }

    pub(super) fn add(&mut self, key: &[u8], tag: Tag, value: &[u8]) -> Result<Pointer> {
        let mut body = Vec::with_capacity(key.len() + value.len() + 12);
        body.extend_from_slice(&tag.to_bits().to_le_bytes());
        push_varint(&mut body, key.len() as u64);
        body.extend_from_slice(key);
        body.extend_from_slice(value);
        let offset = self.file.len();
        self.file.append(|bytes| Framing::Binary.encode(bytes, b'V', &body, Framing::checksum(b'V', &body), None))?;
        Ok(Pointer { file: self.number, offset, len: self.file.len() - offset })
    }

    /// Ends the file and syncs it; its length in bytes.
    pub(super) fn finish(self) -> Result<u64> {
        self.file.finish()
    }
}

/// A file of values.
#[derive(Debug)]
pub(super) struct ValueFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    size: u64,
    file: OnceLock<Arc<dyn File>>,
    retired: AtomicBool,
}

impl ValueFile {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: &Path, number: u64, size: u64) -> Self {
        Self { fs, path: dir.join(file_name(number)), size, file: OnceLock::new(), retired: AtomicBool::new(false) }
    }

    /// The file goes when its last reader is done.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
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

    /// The value of this version of this key.
    pub(super) fn read(&self, pointer: Pointer, key: &[u8], tag: Tag) -> Result<Vec<u8>> {
        let corrupt = |what: &str| Error::corrupt(&self.path, pointer.offset, what);
        if pointer.offset.checked_add(pointer.len).is_none_or(|end| end > self.size) {
            return Err(corrupt("a value should lie here, and the file is shorter"));
        }
        let mut bytes = vec![0; pointer.len as usize];
        let got = read_full_at(&**self.file()?, &mut bytes, pointer.offset).map_err(|e| Error::io("read", &self.path, e))?;
        let Parsed::Record(frame) = Framing::Binary.parse(&bytes[..got]) else {
            return Err(corrupt("the checksum of a value does not match"));
        };
        let body = &bytes[frame.body];
        let found = body.split_first_chunk().and_then(|(bits, rest)| Some((u64::from_le_bytes(*bits), sized(rest)?)));
        match found {
            Some((bits, (found, value))) if bits == tag.to_bits() && found == key => Ok(value.to_vec()),
            _ => Err(corrupt("the value of another key lies here")),
        }
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            // What stays is removed when the store is opened next: the manifest does not name it.
            let _ = self.fs.remove(&self.path);
        }
    }
}
