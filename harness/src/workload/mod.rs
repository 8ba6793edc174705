//! Seeded generators of operations, one file for each family of workloads.

pub mod go_persist;
pub mod outcome;
pub mod random;
