//! A directory of its own for each test, and the harness run inside it.

use harness::result::{Cell, Results, load};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A directory in which the harness is run.
pub(crate) struct Sandbox {
    dir: TempDir,
    program: PathBuf,
}

/// How a run of the harness ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<u8>,
    /// What it wrote to stdout.
    pub(crate) out: String,
    /// What it wrote to stderr.
    pub(crate) err: String,
}

impl Sandbox {
    /// With the bundled subjects.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), program: env!("CARGO_BIN_EXE_harness").into() }
    }

    /// With the subjects of one of the examples.
    pub(crate) fn of_example(name: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_harness")).with_file_name("examples").join(name);
        assert!(program.exists(), "{} is missing: `cargo test -p harness` builds the examples too", program.display());
        Self { program, ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The harness with arguments, not started yet.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("HARNESS_CHILD_EXE").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the harness to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let done = self.command(args).output().unwrap();
        Ended {
            code: done.status.code().map(|code| u8::try_from(code).unwrap()),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Starts the harness and does not wait for it.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The result in a run's folder.
    pub(crate) fn result(&self, out: &str) -> Results {
        load(&self.path(out)).unwrap()
    }

    /// Every file and directory of a folder, by name.
    pub(crate) fn list(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The only cell of a subject.
pub(crate) fn cell_of<'r>(results: &'r Results, subject: &str) -> &'r Cell {
    let mut cells = results.cells.iter().filter(|cell| cell.subject == subject);
    let cell = cells.next().unwrap_or_else(|| panic!("no cell of {subject}"));
    assert!(cells.next().is_none(), "several cells of {subject}");
    cell
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// One small measurement: a scenario that takes a fraction of a second.
pub(crate) const TINY: &str = r#"
schema = 1
name = "tiny"
title = "Does it run?"
kinds = ["bench"]
subjects = ["typed"]
sync = ["never"]
levels = ["write"]

[workload]
kind = "commit"
clients = 1
keys = 10
value-bytes = 10

[bench]
seconds = 0.02
warm-up-seconds = 0.0
repetitions = 1

[kill]
random = 2
aimed = 0
"#;

/// Few kills of a store that does everything; `subjects` and what else is needed come on top.
pub(crate) const KILLS: &str = r#"
schema = 1
name = "kills"
title = "What does a kill take?"
kinds = ["kill"]
levels = ["mixed"]

[workload]
kind = "mixed"
clients = 3
keys = 16
value-bytes = 400
big-every = 40
delete-percent = 15
batch-percent = 20
async-percent = 10
sync-percent = 5
"#;
