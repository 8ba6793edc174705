//! The LSM engine: ordered keys and values of bytes, larger than memory.
//!
//! A write goes to the write-ahead log and into a memtable. Full memtables become tables in level 0, and
//! compactions merge tables into larger ones, level by level; large values lie in a value log beside them
//! (`docs/lsm_format.md`). Every version of a key carries a sequence number, so that a snapshot is a number.
//!
//! ```
//! # fn main() -> engine::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("ledger");
//! use engine::lsm::{Batch, Options, Store};
//! use engine::Durability;
//!
//! let store = Store::open(&path, Options::default())?;
//! store.put(b"alice", b"10")?;                              // survives SIGKILL when it returns
//! store.put_at(b"bob", b"20", Durability::Sync)?;           // survives power loss when it returns
//! let mut transfer = Batch::new();                          // all or nothing after any crash
//! transfer.put(b"alice", b"5");
//! transfer.put(b"bob", b"25");
//! store.write(transfer, Durability::Write)?;
//! assert_eq!(store.get(b"bob")?.as_deref(), Some(&b"25"[..]));
//! let keys: Vec<_> = store.iter().map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?;
//! assert_eq!(keys, [b"alice".to_vec(), b"bob".to_vec()]);
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** what a file says is believed only when its checksum was; a file is named in the manifest only
//! when it is durable, and removed only when no durable manifest names it.

mod backup;
mod checkpoint;
mod compaction;
mod cursor;
mod entry;
mod export;
mod file;
mod handle;
mod iter;
mod manifest;
mod memtable;
mod metrics;
mod names;
mod options;
mod packing;
mod pick;
mod salvage;
mod simulate;
mod sstable;
mod store;
mod transaction;
mod value_log;
mod version;
mod view;
mod wal;

pub use backup::Backup;
pub use export::Format;
pub use handle::{Batch, Snapshot, Stats, Store};
pub use iter::Iter;
pub use options::{Clock, Compression, Options};
pub use salvage::{Loss, Salvage, Salvaged};
pub use simulate::{Pace, Simulation};
pub use transaction::Transaction;
