//! The harness with other people's stores beside the bundled ones: same command line, children, oracle and reports.
//!
//! `cargo run --release --manifest-path peers/rust/Cargo.toml -- run db-bench --subject lsm-lz4,fjall`
//!
//! `cargo run --release --manifest-path peers/rust/Cargo.toml -- run peers/rust/queue.toml`
//!
//! RocksDB comes with `--features rocksdb`: a quarter of an hour of C++ (needs `libclang-dev`).

mod bytes;
mod fjall_store;
mod queues;
#[cfg(feature = "rocksdb")]
mod rocksdb_store;

use harness::subject::Subject;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let mut subjects: Vec<Arc<dyn Subject>> = vec![
        Arc::new(fjall_store::Fjall),
        #[cfg(feature = "rocksdb")]
        Arc::new(rocksdb_store::RocksDb),
    ];
    subjects.extend(queues::QUEUES.map(|queue| Arc::new(queue) as Arc<dyn Subject>));
    harness::main_with(subjects)
}
