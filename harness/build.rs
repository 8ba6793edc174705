//! Notes what the harness is built with and from: reports name both.

use std::path::Path;
use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!("cargo::rustc-env=HARNESS_RUSTC={}", said(&rustc, &["--version"]));
    println!("cargo::rustc-env=HARNESS_COMMIT={}", said("git", &["describe", "--always", "--abbrev=7", "--dirty=, changed"]));
    // A commit, a checkout, or a change that is not committed.
    for path in ["../.git/logs/HEAD", "../engine/src", "../Cargo.lock", "src", "build.rs"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The first line that a program says; nothing if it cannot be asked, as where there is no repository.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.lines().next().unwrap_or_default().trim().to_owned()
}
