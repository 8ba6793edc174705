//! Processes: the child that writes, the probe that tells where it is, and the supervisor that kills it.

pub mod child;
pub mod probe;
pub mod repetition;
pub mod supervisor;
