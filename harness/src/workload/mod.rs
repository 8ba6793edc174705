//! Seeded generators of operations, one file for each family of workloads.

pub mod ttfp;
