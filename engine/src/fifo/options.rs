//! How a store behaves.

use crate::error::{Error, Result};
use crate::fs::{Fs, RealFs};
use crate::sync_policy::SyncPolicy;
use std::sync::Arc;
use std::time::Duration;

/// How a store behaves. Writer and reader of one directory may differ in everything but `prefix`.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the names of the files begin with: letters, digits and `_`. Default: `fifo`.
    pub prefix: String,
    /// Files of entries at most; at least 2, so that one can be emptied while the next is filled. Default: 1024.
    pub max_files: usize,
    /// Bytes of such a file at most, 4 KiB to 1 GiB. No write makes one longer. Default: 64 MiB.
    pub max_file_size: u64,
    /// Bytes of entries that are held in memory, at least 4 KiB. An entry that is longer is read for its caller alone.
    /// Default: 1 MiB.
    pub max_chunk: usize,
    /// Whether a second writer, and a second reader, is kept out. Without it the caller vouches for that. Default: yes.
    pub locking: bool,
    /// How often a thread of a reader looks for entries that another process wrote, and where they lie; `None` for a
    /// reader that looks only when it is asked. Who has the writer in the same process needs none. Default: 10 ms.
    pub indexer: Option<Duration>,
    /// When files are synced without being asked. Default: every second.
    pub sync: SyncPolicy,
    /// How often `Async` writes and deletes are put into their files. Default: one second.
    pub flush_interval: Duration,
    /// Whether threads of the store flush, sync and index when due. Without them the owner calls `maintain`.
    pub background: bool,
    /// Where the bytes go.
    pub fs: Arc<dyn Fs>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "fifo".to_owned(),
            max_files: 1024,
            max_file_size: 64 << 20,
            max_chunk: 1 << 20,
            locking: true,
            indexer: Some(Duration::from_millis(10)),
            sync: SyncPolicy::EVERY_SECOND,
            flush_interval: Duration::from_secs(1),
            background: true,
            fs: Arc::new(RealFs),
        }
    }
}

impl Options {
    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |option, value: String, why| Err(Error::Option { option, value, why });
        if self.prefix.is_empty() || !self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse("prefix", format!("{:?}", self.prefix), "a prefix is made of letters, digits and _");
        }
        if self.max_files < 2 {
            return refuse(
                "max_files",
                self.max_files.to_string(),
                "one file must be free to be filled while another is emptied",
            );
        }
        if !(4 << 10..=1 << 30).contains(&self.max_file_size) {
            return refuse("max_file_size", self.max_file_size.to_string(), "a file holds 4 KiB to 1 GiB");
        }
        if self.max_chunk < 4 << 10 {
            return refuse("max_chunk", self.max_chunk.to_string(), "memory for entries is at least 4 KiB");
        }
        if self.indexer == Some(Duration::ZERO) {
            return refuse("indexer", "0s".to_owned(), "a rate of zero would keep a thread spinning; use none for no indexer");
        }
        if self.flush_interval.is_zero() {
            return refuse("flush_interval", "0s".to_owned(), "an interval must be longer than zero");
        }
        self.sync.check()
    }
}
