//! The judge: whether a recovered store keeps what was promised.
//!
//! **Invariant:** pure. It gets the history and the recovered contents and does no I/O, so every check
//! can be tried on made-up cases.

pub mod contract;
pub mod kv;
pub mod queue;
