//! Crash-tests and benchmarks embedded stores: what each sync policy costs and what a crash takes.
//!
//! A store of your own comes in as a [`subject::Subject`] that a three-line `main` hands to
//! [`main_with`]: the whole command line, children, oracle and reports come with it.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     harness::main_with(vec![])
//! }
//! ```

mod cli;
pub mod crash;
pub mod exit_code;
pub mod hint;
pub mod history;
pub mod measure;
pub mod oracle;
pub mod process;
pub mod report;
pub mod result;
pub mod runner;
pub mod scenario;
pub mod subject;
pub mod workload;

use std::process::ExitCode;
use std::sync::Arc;

/// The whole program, with the caller's subjects beside the bundled ones.
pub fn main_with(subjects: Vec<Arc<dyn subject::Subject>>) -> ExitCode {
    cli::main(&subject::Registry::new(subjects))
}
