//! Cells that need no disk: each runs in a child process, so that a store that never ends, eats memory or
//! brings the process down costs its own cell only.

use super::{error, power, rot};
use crate::measure::clock::Clock;
use crate::process::child::die_with_parent;
use crate::process::supervisor::{Ended, start};
use crate::result::{CellKind, Crash, Finding, Verdict};
use crate::scenario::CellPlan;
use crate::subject::{Registry, SubjectError};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Address space of a child: a store that opens a damaged file must not ask for the memory that the damage names.
const MEMORY: u64 = 8 << 30;
/// How often a child shows that it is alive, at most.
const SIGN_EVERY_NS: u64 = 200_000_000;

/// What a child is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct SimulateTask {
    /// Tells this task from those of other children.
    simulate: CellPlan,
    /// Where findings leave their traces.
    traces: PathBuf,
    /// Where the outcome goes.
    out: PathBuf,
    /// Whose length grows as long as the child is alive.
    signs: PathBuf,
}

/// What a cell found: the figures, the verdict, and why if it needs a reason.
pub type Outcome = (Crash, Verdict, Option<String>);

/// Runs a cell in a child. `stopped` is asked now and then whether to end it.
pub fn run(cell: &CellPlan, traces: &Path, work: &Path, stopped: &dyn Fn() -> bool) -> io::Result<Outcome> {
    let dir = work.join("simulated");
    fs::create_dir_all(&dir)?;
    let (out, signs) = (dir.join("outcome.json"), dir.join("signs"));
    fs::write(&signs, b"")?;
    let task = SimulateTask { simulate: cell.clone(), traces: traces.to_owned(), out: out.clone(), signs: signs.clone() };
    let mut child = start(&task, &dir)?;
    let clock = Clock::start();
    let (mut seen, mut seen_at) = (0, 0);
    let outcome = loop {
        if let Some(ended) = child.try_ended()? {
            break read(cell, ended, &out);
        }
        let length = fs::metadata(&signs)?.len();
        if length != seen {
            (seen, seen_at) = (length, clock.now());
        }
        if clock.now() - seen_at > cell.plan.kill.timeout_ms * 1_000_000 {
            child.kill()?;
            let limit = cell.plan.kill.timeout_ms / 1000;
            break dead(cell, Verdict::Hung, format!("opening or reading a crash state did not end within {limit} s"));
        }
        if stopped() {
            child.kill()?;
            break (Crash::default(), Verdict::NotMeasured, Some("interrupted".to_owned()));
        }
        thread::sleep(Duration::from_millis(2));
    };
    fs::remove_dir_all(&dir)?;
    Ok(outcome)
}

fn read(cell: &CellPlan, ended: Ended, out: &Path) -> Outcome {
    match (ended, fs::read(out).map(|json| serde_json::from_slice(&json))) {
        (Ended::Exited(status, _), Ok(Ok(outcome))) if status.success() => outcome,
        (Ended::Exited(status, words), _) => {
            let words = words.lines().last().unwrap_or_default().to_owned();
            dead(cell, Verdict::Unopenable, format!("the process that opened a crash state died ({status}): {words}"))
        }
        (Ended::TimedOut, _) => dead(cell, Verdict::Hung, "the cell did not end".to_owned()),
    }
}

/// A store that took its process down with it.
fn dead(cell: &CellPlan, verdict: Verdict, words: String) -> Outcome {
    let kind = format!("{:?}", cell.kind).to_lowercase();
    let finding = Finding {
        id: format!("{}#process", cell.id),
        verdict,
        profile: kind.clone(),
        summary: words,
        replay: format!("harness run {} --only {kind} --subject {} --sync {}", cell.plan.source, cell.subject, cell.sync.0),
        models: Vec::new(),
        explanation: None,
    };
    let (hung, unopenable) = (u64::from(verdict == Verdict::Hung), u64::from(verdict != Verdict::Hung));
    (Crash { findings: vec![finding], hung, unopenable, ..Crash::default() }, verdict, None)
}

/// What the child does if the task file is of this kind; `None` if it is of another.
pub fn child(registry: &Registry, task: &Path) -> Option<Result<(), SubjectError>> {
    let text = fs::read_to_string(task).ok()?;
    let task: SimulateTask = serde_json::from_str(&text).ok()?;
    Some(simulate(registry, &task))
}

fn simulate(registry: &Registry, task: &SimulateTask) -> Result<(), SubjectError> {
    die_with_parent()?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).map_err(io::Error::from)?;
    let cell = &task.simulate;
    let subject = registry.get(&cell.subject).map_err(|e| SubjectError::Store(e.to_string()))?;
    let signs = fs::OpenOptions::new().append(true).open(&task.signs)?;
    let (clock, last) = (Clock::start(), Cell::new(0));
    let mut alive = || {
        if clock.now() - last.get() > SIGN_EVERY_NS {
            last.set(clock.now());
            // A sign that cannot be given only makes the parent impatient.
            let _ = io::Write::write_all(&mut &signs, b".");
        }
        true
    };
    let outcome: Outcome = match cell.kind {
        CellKind::Error => error::run(cell, &*subject, &mut alive),
        CellKind::Rot => rot::run(cell, &*subject, &mut alive),
        _ => power::run(cell, &*subject, &task.traces, &mut alive)?,
    };
    fs::write(&task.out, serde_json::to_vec(&outcome).map_err(io::Error::other)?)?;
    Ok(())
}
