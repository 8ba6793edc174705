//! A file that is written once, from front to back, and synced before anything names it.

use crate::error::{Error, Result};
use crate::fs::{File, Fs, write_all_at};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes gathered for one `write`.
const GATHER: usize = 256 << 10;

/// How a file gets to the device while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Step by step without a promise: for flushes, which writers may wait for.
    Sent,
    /// Synced at each step. It takes three times as long, and others have the processor meanwhile: for compactions, which
    /// go on for seconds. Without these waits, answers at half load took up to 100 ms on two processors, not 20.
    Synced,
}

impl Way {
    /// Bytes that go to the device together, and the next of them only when these are there: more at once keep it from
    /// readers and from syncs of the log.
    fn step(self) -> u64 {
        match self {
            Self::Sent => 1 << 20,
            Self::Synced => 2 << 20,
        }
    }
}

/// Writes a file.
#[derive(Debug)]
pub(super) struct FileBuilder {
    file: Arc<dyn File>,
    path: PathBuf,
    way: Way,
    gathered: Vec<u8>,
    written: u64,
    /// Where the bytes begin that were sent to the device last, and where they end.
    sent: (u64, u64),
}

impl FileBuilder {
    pub(super) fn create(fs: &dyn Fs, path: PathBuf, way: Way) -> Result<Self> {
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(Self { file, path, way, gathered: Vec::with_capacity(GATHER), written: 0, sent: (0, 0) })
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
        if self.written - end < self.way.step() {
            return Ok(());
        }
        self.sent = (end, self.written);
        let done = match self.way {
            Way::Sent => self.file.write_back(begin..self.written),
            Way::Synced => self.file.sync_data(),
        };
        done.map_err(|e| Error::io("sync", &self.path, e))
    }

    /// Ends the file and syncs it; its length in bytes. Its name is durable when the directory is synced.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.write()?;
        // A file whose sync failed is never used: whoever builds it writes a new one or stops the store.
        self.file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.written)
    }
}
