//! Embedded stores under configurable sync policies, in reading order from the bytes up.
//!
//! **Invariant:** the engine does not know that it is being tested: there are no fail points and no
//! `cfg(test)` in its write paths. Whoever wants faults hands in another [`fs::Fs`].
//!
//! **Invariant:** outside `background` nothing starts a thread, reads a clock or draws a random number.

pub mod background;
pub mod codec;
mod error;
pub mod fifo;
pub mod fs;
pub mod log;
pub mod lsm;
mod sync_policy;
pub mod typed;

pub use error::{Error, Result};
pub use sync_policy::{Durability, SyncPolicy};
