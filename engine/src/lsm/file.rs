//! A file that is written once, from front to back, and synced before anything names it.

use crate::error::{Error, Result};
use crate::fs::{File, Fs, write_all_at};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes gathered for one `write`.
const GATHER: usize = 256 << 10;

/// Bytes that are sent to the device together, and the next of them only when these are there: more at once keep it from
/// readers and from syncs of the log.
const STEP: u64 = 1 << 20;

/// Writes a file.
#[derive(Debug)]
pub(super) struct FileBuilder {
    file: Arc<dyn File>,
    path: PathBuf,
    gathered: Vec<u8>,
    written: u64,
    /// Where the bytes begin that were sent to the device last, and where they end.
    sent: (u64, u64),
}

impl FileBuilder {
    pub(super) fn create(fs: &dyn Fs, path: PathBuf) -> Result<Self> {
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(Self { file, path, gathered: Vec::with_capacity(GATHER), written: 0, sent: (0, 0) })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Appends what is pushed to the end of the bytes that were gathered.
    pub(super) fn append(&mut self, push: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        push(&mut self.gathered);
        if self.gathered.len() >= GATHER { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        write_all_at(&*self.file, &self.gathered, self.written).map_err(|e| Error::io("write to", &self.path, e))?;
        self.written += self.gathered.len() as u64;
        self.gathered.clear();
        let (begin, end) = self.sent;
        if self.written - end < STEP {
            return Ok(());
        }
        self.sent = (end, self.written);
        self.file.write_back(begin..self.written).map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Ends the file and syncs it; its length in bytes. Its name is durable when the directory is synced.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.write()?;
        // A file whose sync failed is never used: whoever builds it writes a new one or stops the store.
        self.file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.written)
    }
}
