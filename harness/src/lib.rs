//! Crash-tests and benchmarks embedded stores: what each sync policy costs and what a crash takes.
pub mod report;
pub mod result;
