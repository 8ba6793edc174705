//! The typed store: as simple as a map, typed, persistent.
//!
//! Values live in memory as native Rust values; JSON appears only in the file, a readable log of
//! `S key` / JSON / `D key` lines that an editor can open (`docs/typed_log.md`).
//!
//! ```
//! # fn main() -> engine::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("accounts.db");
//! use engine::typed::{Options, Store};
//!
//! let store = Store::open(&path, Options::default())?;
//! let balances = store.map::<i64>("balances")?;
//! balances.set("alice", 10)?;                        // survives SIGKILL when it returns
//! balances.set_sync("bob", 20)?;                     // survives power loss when it returns
//! let mut transfer = store.batch();                  // all or nothing after any crash
//! transfer.set(&balances, "alice", 5)?;
//! transfer.set(&balances, "bob", 25)?;
//! transfer.commit()?;
//! assert_eq!(balances.get("bob"), Some(25));
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** for every key the order of its records in the log is the order of its changes in
//! memory: both happen under the lock of the key's shard.

mod batch;
mod compact;
mod load;
mod map;
mod name;
mod salvage;
mod store;
mod table;

pub use batch::Batch;
pub use map::{Change, Map};
pub use salvage::{Salvaged, salvage};
pub use store::{AutoShrink, Options, Stats, Store};
