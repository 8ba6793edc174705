//! The harness with other people's stores beside the bundled ones: same command line, children, oracle and reports.
//!
//! `cargo run --release --manifest-path peers/rust/Cargo.toml -- run db-bench --subject lsm-lz4,fjall`
//!
//! RocksDB comes with `--features rocksdb`: a quarter of an hour of C++ (needs `libclang-dev`).

mod bytes;
mod fjall_store;
#[cfg(feature = "rocksdb")]
mod rocksdb_store;

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    harness::main_with(vec![
        Arc::new(fjall_store::Fjall),
        #[cfg(feature = "rocksdb")]
        Arc::new(rocksdb_store::RocksDb),
    ])
}
