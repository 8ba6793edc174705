//! How a store behaves.

use super::packing;
use crate::background;
use crate::error::{Error, Result};
use crate::fs::{Fs, RealFs};
use crate::sync_policy::SyncPolicy;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a store behaves. The defaults are the configuration block of ADR-0002 where that says something, and
/// Badger's where it does not.
#[derive(Clone, Debug)]
pub struct Options {
    /// When the write-ahead log is synced without being asked. Default: every second.
    pub sync: SyncPolicy,
    /// How often `Async` writes are put into the log. Default: one second.
    pub flush_interval: Duration,
    /// Bytes of a memtable, overhead included, before the next is begun. Default: 64 MiB.
    pub memtable_size: usize,
    /// Memtables in memory at most, the one that is written among them; at least 2. Writes are slowed when the last of them is
    /// half full, and wait when it is full. Default: 5.
    pub memtables: usize,
    /// Tables in level 0 that call for a compaction. Default: 5.
    pub level0_tables: usize,
    /// Tables in level 0 from which on writes are slowed. Default: 10.
    pub level0_slow: usize,
    /// Tables in level 0 at which writes wait. Default: 15.
    pub level0_stall: usize,
    /// How much larger a level is than the one above it; at least 2. Default: 10.
    pub level_multiplier: u64,
    /// Bytes of the first level below level 0 that holds anything. Default: 64 MiB.
    pub base_level_size: u64,
    /// Bytes of a table in that level; each level below doubles it. One that came in order is as long as it was in level 0.
    /// Default: 8 MiB.
    pub table_size: u64,
    /// Values of so many bytes and more go to the value log. Default: 1024.
    pub value_threshold: usize,
    /// Share of a value log file that must be garbage before it is collected, 0 to 1. Default: 0.5.
    pub collect_ratio: f64,
    /// Bytes a second that compactions take in at most; 0 for no limit. Default: 0.
    pub compaction_rate: u64,
    /// Bytes that the manifest must have, and four times what it had, to be rewritten. Default: 64 KiB.
    pub manifest_size: u64,
    /// Bytes of a block before compression. Default: 4096.
    pub block_size: usize,
    /// Bits of the Bloom filter for each key; 0 for no filter. 11 err for less than one key in a hundred. Default: 11.
    pub bloom_bits_per_key: usize,
    /// How blocks are compressed, and long records of the log. Default: Snappy.
    pub compression: Compression,
    /// Records of the log of so many bytes and more are compressed, up to 16 MiB: a batch is one record. Shorter ones would cost
    /// more time than they give back. Default: 4096.
    pub pack_log_from: usize,
    /// Bytes of blocks kept in memory, and of memory kept for blocks to come. Default: 256 MiB.
    pub block_cache: u64,
    /// Bytes of indexes and filters kept in memory. Default: 128 MiB.
    pub index_cache: u64,
    /// Threads that compact, but no more than half of the processors, and behind all other threads of the process when these
    /// want the processors. Default: 4.
    pub compactors: usize,
    /// Whether threads of the store flush, sync and compact when due. Without them the owner calls
    /// [`super::Store::maintain`], and a write that finds no room does what it waits for.
    pub background: bool,
    /// What time it is, for values that expire.
    pub clock: Clock,
    /// Where the bytes go.
    pub fs: Arc<dyn Fs>,
}

/// How blocks and long records of the log are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 blocks.
    Lz4,
    /// Raw Snappy.
    #[default]
    Snappy,
    /// Zstandard at its default level. Needs the feature `zstd`.
    Zstd,
}

impl Compression {
    pub(super) fn byte(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Snappy => 2,
            Compression::Zstd => 3,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Compression::None, Compression::Lz4, Compression::Snappy, Compression::Zstd].into_iter().find(|c| c.byte() == byte)
    }
}

/// A source of Unix time in seconds.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// A clock that answers what this function does.
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(super) fn now(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(background::unix_seconds)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::EVERY_SECOND,
            flush_interval: Duration::from_secs(1),
            memtable_size: 64 << 20,
            memtables: 5,
            level0_tables: 5,
            level0_slow: 10,
            level0_stall: 15,
            level_multiplier: 10,
            base_level_size: 64 << 20,
            table_size: 8 << 20,
            value_threshold: 1024,
            collect_ratio: 0.5,
            compaction_rate: 0,
            manifest_size: 64 << 10,
            block_size: 4096,
            bloom_bits_per_key: 11,
            compression: Compression::Snappy,
            pack_log_from: 4096,
            block_cache: 256 << 20,
            index_cache: 128 << 20,
            compactors: 4,
            background: true,
            clock: Clock::default(),
            fs: Arc::new(RealFs),
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |option, value: String, why| Err(Error::Option { option, value, why });
        let at_least = [
            ("memtable_size", self.memtable_size, 1 << 10, "it must be at least 1024 bytes"),
            ("memtables", self.memtables, 2, "one is written while another is flushed, so it must be at least 2"),
            ("level0_tables", self.level0_tables, 1, "it must be at least 1"),
            ("block_size", self.block_size, 64, "it must be at least 64 bytes"),
            ("value_threshold", self.value_threshold, 1, "it must be at least 1"),
            ("compactors", self.compactors, 1, "it must be at least 1"),
        ];
        for (option, value, least, why) in at_least {
            if value < least {
                return refuse(option, value.to_string(), why);
            }
        }
        if self.level0_slow < self.level0_tables || self.level0_stall <= self.level0_slow {
            let why = "writes must be slowed after compaction begins and before they stall";
            return refuse("level0_slow", self.level0_slow.to_string(), why);
        }
        if self.level_multiplier < 2 {
            return refuse("level_multiplier", self.level_multiplier.to_string(), "it must be at least 2");
        }
        if self.table_size == 0 || self.base_level_size < self.table_size {
            return refuse("table_size", self.table_size.to_string(), "it must be more than zero and fit into base_level_size");
        }
        if !(self.collect_ratio > 0.0 && self.collect_ratio <= 1.0) {
            return refuse("collect_ratio", self.collect_ratio.to_string(), "it must be more than 0 and at most 1");
        }
        if self.flush_interval.is_zero() {
            return refuse("flush_interval", "0".to_owned(), "it must be longer than zero");
        }
        packing::check(self.compression)?;
        self.sync.check()
    }
}
