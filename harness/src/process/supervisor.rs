//! Starting children, waiting for them with a limit on every wait, and killing them.
//!
//! Each child leads a process group of its own, so that whatever it started dies with it, and is told
//! to die if the harness dies first.

use super::child::PARENT;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// A running child of the harness.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

/// How a child ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, with this status and these last words.
    Exited(ExitStatus, String),
    /// It did not end in time and was killed.
    TimedOut,
}

/// Starts this very program as a child with a task. `dir` takes its task file and its log.
pub fn start(task: &impl Serialize, dir: &Path) -> io::Result<Running> {
    let task_file = dir.join("task.json");
    fs::write(&task_file, serde_json::to_vec(task).map_err(io::Error::other)?)?;
    let log = dir.join("child.log");
    let program = std::env::var_os("HARNESS_CHILD_EXE").map_or_else(std::env::current_exe, |exe| Ok(PathBuf::from(exe)))?;
    let mut command = Command::new(program);
    command.env(PARENT, std::process::id().to_string());
    command
        .arg("child")
        .arg(&task_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .process_group(0);
    Ok(Running { child: command.spawn()?, log })
}

impl Running {
    /// Kills the child's whole group with SIGKILL and waits until it is gone.
    pub fn kill(mut self) -> io::Result<()> {
        self.kill_group();
        self.child.wait().map(drop)
    }

    /// How it ended, if it has.
    pub fn try_ended(&mut self) -> io::Result<Option<Ended>> {
        let status = self.child.try_wait()?;
        Ok(status.map(|status| Ended::Exited(status, self.last_words())))
    }

    /// Waits for its end, at most so long.
    pub fn wait(mut self, limit: Duration) -> io::Result<Ended> {
        let step = Duration::from_micros(500);
        for _ in 0..limit.as_micros() / step.as_micros() {
            if let Some(ended) = self.try_ended()? {
                return Ok(ended);
            }
            thread::sleep(step);
        }
        self.kill_group();
        self.child.wait()?;
        Ok(Ended::TimedOut)
    }

    fn kill_group(&self) {
        // The group is gone already if the child ended by itself.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        let _ = fs::File::open(&self.log).and_then(|mut log| log.read_to_string(&mut text));
        let tail: Vec<&str> = text.lines().rev().take(3).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}
