//! The `harness` binary with the bundled subjects.

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main_with(vec![])
}
