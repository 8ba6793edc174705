//! Crash-tests and benchmarks embedded stores: what each sync policy costs and what a crash takes.
pub mod measure;
pub mod report;
pub mod result;
pub mod scenario;
pub mod subject;
pub mod workload;
