//! The harness with other people's stores beside the bundled ones: same command line, children, oracle and reports.
//!
//! `cargo run --release --manifest-path peers/rust/Cargo.toml -- run db-bench --subject lsm-lz4,fjall`

mod bytes;
mod fjall_store;

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    harness::main_with(vec![Arc::new(fjall_store::Fjall)])
}
