//! The store under test, as the harness sees it.
//!
//! A [`Subject`] is a kind of store; opening it at a [`Site`] gives a [`Session`] that many threads
//! use at once. A store of your own comes in by implementing both and handing it to
//! [`crate::main_with`]; `harness/examples/toy_store.rs` shows one.

pub mod baseline;
pub mod canary;
pub mod durostore;
pub mod fifo;
pub mod lsm;
mod registry;
mod restored;
pub mod typed;

pub use registry::{Registry, UnknownSubject};

use crate::result::{CellKind, Role};
use engine::fs::Fs;
use engine::{Durability, SyncPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A kind of store.
pub trait Subject: Send + Sync {
    /// The name on the command line and in reports: lower case, digits, dashes.
    fn name(&self) -> &str;

    /// Its version, as its makers count.
    fn version(&self) -> String;

    /// One sentence for `harness list`.
    fn about(&self) -> String;

    /// What it is here for.
    fn role(&self) -> Role {
        Role::Store
    }

    /// For a canary: the kind of cell that must convict it; it runs in no other. `None` for any.
    fn convicted_by(&self) -> Option<CellKind> {
        None
    }

    /// Whether the store can run under this policy.
    fn supports(&self, policy: SyncPolicy) -> bool;

    /// What an acknowledged change of this level survives under this policy.
    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise;

    /// Whether unsynced changes, buffered ones aside, are lost only from the end.
    fn keeps_prefix(&self) -> bool {
        false
    }

    /// Whether [`Session::shrink`] does something, so that kills can be aimed into it.
    fn shrinks(&self) -> bool {
        false
    }

    /// Write and space amplification that the store expects; `None` for one that cannot say.
    fn expect(&self, _: &Overwriting) -> Option<(f64, f64)> {
        None
    }

    /// Opens or creates the store.
    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError>;

    /// Opens one half of a queue, for a process that only puts in or only takes out, beside another one.
    fn open_half(&self, site: &Site<'_>, half: Half) -> Result<Box<dyn Session>, SubjectError> {
        let _ = (site, half);
        Err(SubjectError::Unsupported("halves for two processes"))
    }
}

/// A half of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// Puts entries in.
    Producer,
    /// Takes them out.
    Consumer,
}

/// What an acknowledged change survives; ordered by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Nothing.
    None,
    /// The death of the process.
    Process,
    /// Power loss.
    Power,
}

impl Promise {
    /// What the durability contract says of a change of this level under this policy (`docs/durability_contract.md`).
    pub fn of_contract(policy: SyncPolicy, level: Durability) -> Self {
        match policy.raise(level) {
            Durability::Async => Promise::None,
            Durability::Write => Promise::Process,
            Durability::Sync => Promise::Power,
        }
    }
}

/// Where and how a store is opened.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// A directory of its own.
    pub dir: &'a Path,
    /// What to write through, for subjects that can: counted, traced or in memory.
    pub fs: Arc<dyn Fs>,
    /// The store's policy.
    pub sync: SyncPolicy,
    /// The tables the workload uses, by index.
    pub tables: &'a [Table],
    /// Whether the store's own threads run. Without them the caller drives [`Session::maintain`].
    pub background: bool,
}

/// A named collection of keys, such as a map, bucket or tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// A policy of its own, for stores that can.
    pub sync: Option<SyncPolicyText>,
}

/// A sync policy by its name in scenario files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SyncPolicyText(pub SyncPolicy);

impl TryFrom<String> for SyncPolicyText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(SyncPolicyText)
    }
}

impl From<SyncPolicyText> for String {
    fn from(policy: SyncPolicyText) -> String {
        policy.0.to_string()
    }
}

/// A change of one key: `value` is `None` for a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Index into [`Site::tables`].
    pub table: usize,
    /// The key.
    pub key: &'a str,
    /// The new value.
    pub value: Option<&'a str>,
}

/// All keys and values of a store, by table index.
pub type Contents = Vec<BTreeMap<String, String>>;

/// An open store. All methods may be called from many threads.
pub trait Session: Send + Sync {
    /// Makes one change and returns when it is as durable as `level` and policy demand.
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        let _ = (change, level);
        Err(SubjectError::Unsupported("keys"))
    }

    /// Makes several changes that happen together or not at all.
    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let _ = (changes, level);
        Err(SubjectError::Unsupported("batches"))
    }

    /// Looks at a value; whether it is there.
    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        let _ = (table, key, look);
        Err(SubjectError::Unsupported("keys"))
    }

    /// Makes everything durable that was acknowledged before the call.
    fn sync(&self) -> Result<(), SubjectError>;

    /// Everything in the store. An inconsistency that the store notices is an error.
    fn contents(&self) -> Result<Contents, SubjectError>;

    /// Reclaims space; `false` if the store has no such thing.
    fn shrink(&self) -> Result<bool, SubjectError> {
        Ok(false)
    }

    /// Does what is due at this time since opening, for sessions without background threads, and says
    /// when it wants to be called next; `None` for a store that has nothing to do by itself.
    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        let _ = now;
        Ok(None)
    }

    /// What opening had to cut off or repair, in words; `None` if it took the files as they were.
    fn repaired(&self) -> Option<String> {
        None
    }

    /// The native interface for the go-persist benchmark, which measures no serialisation that the
    /// store itself does not do.
    fn records(&self) -> Option<&dyn Records> {
        None
    }

    /// Puts into its place all that is in memory, waits until no compaction is due, and says what the tree of tables
    /// has become; `None` for a store without one.
    fn settle(&self) -> Result<Option<Tree>, SubjectError> {
        Ok(None)
    }

    /// The interface of a store of ordered bytes, for the benchmarks of such stores.
    fn ordered(&self) -> Option<&dyn Ordered> {
        None
    }

    /// The interface of a queue, for workloads of queues. Its [`Session::contents`] are a [`line`].
    fn fifo(&self) -> Option<&dyn Fifo> {
        None
    }

    /// Ends the session and says whether everything reached its place.
    fn close(self: Box<Self>) -> Result<(), SubjectError>;
}

/// What a tree of sorted tables has cost since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tree {
    /// Bytes that flushes and compactions wrote for each byte that came in.
    pub write_amplification: f64,
    /// Versions in tables.
    pub versions: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Seconds that compactions took for each byte that they wrote; 0 if there were none.
    pub compaction_s: f64,
}

/// Writes at random, and what is known of the store that takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overwriting {
    /// Keys, each written as often as any other.
    pub keys: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of a key and its value.
    pub entry: u64,
    /// Bytes that both take in a table.
    pub stored: f64,
    /// Seconds from one write to the next, if nothing holds it up.
    pub write_s: f64,
    /// Seconds that compactions take for each byte that they write.
    pub compaction_s: f64,
}

/// The struct of go-persist's benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// A number.
    pub field1: i64,
    /// A short text.
    pub field2: String,
}

/// A map of native values.
pub trait Records: Send + Sync {
    /// Sets a value.
    fn set(&self, key: &str, value: Record, level: Durability) -> Result<(), SubjectError>;

    /// Looks at a value in place and returns its number.
    fn read(&self, key: &str) -> Option<i64>;
}

/// A store of bytes in the order of their keys.
pub trait Ordered: Send + Sync {
    /// Sets a value.
    fn put(&self, key: &[u8], value: &[u8], level: Durability) -> Result<(), SubjectError>;

    /// Deletes a key.
    fn delete(&self, key: &[u8], level: Durability) -> Result<(), SubjectError>;

    /// Sets several values that are there together or not at all.
    fn write(&self, puts: &[(&[u8], &[u8])], level: Durability) -> Result<(), SubjectError>;

    /// Looks at a value; whether it is there.
    fn get(&self, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool, SubjectError>;

    /// Looks at up to `limit` entries from a key on, upwards or downwards; how many there were.
    fn scan(&self, from: &[u8], limit: usize, reverse: bool, look: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, SubjectError>;

    /// Reclaims all the space it can.
    fn compact(&self) -> Result<(), SubjectError>;

    /// Writes a backup of everything to nowhere.
    fn backup(&self) -> Result<(), SubjectError> {
        Err(SubjectError::Unsupported("backups"))
    }
}

/// A queue. Entries have an index that no other entry of it ever has.
pub trait Fifo: Send + Sync {
    /// Puts entries in, all or none, and returns the index of the first; the others follow it.
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError>;

    /// Takes up to `most` of the oldest entries out and looks at each; how many there were.
    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError>;

    /// Hands the oldest entry out without taking it; whether there was one.
    fn hold(&self, look: &mut dyn FnMut(u64, &[u8])) -> Result<bool, SubjectError> {
        let _ = look;
        Err(SubjectError::Unsupported("acknowledgements"))
    }

    /// Takes out an entry that was handed out.
    fn acknowledge(&self, index: u64, level: Durability) -> Result<(), SubjectError> {
        let _ = (index, level);
        Err(SubjectError::Unsupported("acknowledgements"))
    }
}

/// Where a push puts its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Behind everything that is there.
    #[default]
    Back,
    /// In front of everything that is there.
    Front,
}

/// The contents of a queue: one table, from the place in the line to the index and the text of the entry.
pub fn line(entries: impl IntoIterator<Item = (u64, String)>) -> Contents {
    let row = |(place, (index, text)): (usize, (u64, String))| (format!("{place:010}"), format!("{index} {text}"));
    vec![entries.into_iter().enumerate().map(row).collect()]
}

/// The entries of such contents, in their order: index and text.
pub fn entries_of(line: &Contents) -> Vec<(u64, &str)> {
    let row = |row: &'_ String| row.split_once(' ').and_then(|(index, _)| index.parse().ok());
    let entry = |text| Some((row(text)?, &text[text.find(' ')? + 1..]));
    line.iter().flat_map(BTreeMap::values).filter_map(entry).collect()
}

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// The store said so.
    #[error("{0}")]
    Store(String),
    /// There is no room on the device.
    #[error("{0}")]
    Full(String),
    /// The store has no such operation.
    #[error("the store has no {0}")]
    Unsupported(&'static str),
}

impl From<engine::Error> for SubjectError {
    fn from(e: engine::Error) -> Self {
        match e {
            engine::Error::Full { .. } => SubjectError::Full(e.to_string()),
            e => SubjectError::Store(e.to_string()),
        }
    }
}

impl From<std::io::Error> for SubjectError {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => SubjectError::Full(e.to_string()),
            _ => SubjectError::Store(e.to_string()),
        }
    }
}
