//! The FIFO store: entries in the order in which they came, larger than memory, and a queue on top of it.
//!
//! Entries lie in a sequence of files; what is taken out stands in a log of deletes beside them (`docs/fifo_format.md`).
//! Writer and reader may be one process or two. A file is removed when all it holds is deleted. An index is never
//! given to a second entry that anybody could have seen.
//!
//! ```
//! # fn main() -> engine::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("outbox");
//! use engine::Durability;
//! use engine::fifo::{Options, Store};
//!
//! let store = Store::open(&path, Options::default())?;
//! let first = store.write(b"one")?;                              // survives SIGKILL when it returns
//! store.write_many(&["two", "three"], Durability::Sync)?;        // all or none; survives power loss when it returns
//! assert_eq!(store.read(first)?, b"one");
//! let oldest = store.pop(Durability::Write)?.unwrap();           // does not come back after SIGKILL
//! assert_eq!((oldest.index, &oldest.value[..]), (first, &b"one"[..]));
//! assert_eq!(store.len()?, 2);
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** a file is whole and synced before the next one begins, and removed only when the deletes of all its
//! entries are on the device.

mod indexes;
mod options;
mod place;
mod queue;
mod reader;
mod record;
mod salvage;
mod segment;
mod shown;
mod store;
mod typed;
mod writer;

pub use options::Options;
pub use queue::{Delivery, Item, Placement, Queue, QueueOptions};
pub use reader::Entry;
pub use salvage::{Loss, Salvaged, salvage, salvage_typed};
pub use store::{Reader, Size, Store, Writer};
pub use typed::{Encoding, Typed};
