//! Running cells: the only place where scenarios, subjects, measurement, oracle and results meet.

pub mod bench;
pub mod error;
pub mod kill;
pub mod power;
pub mod rot;
pub mod simulated;

use crate::exit_code;
use crate::measure::clock::Clock;
use crate::measure::host;
use crate::process::child::{StoreSpec, Task};
use crate::process::repetition::BenchTask;
use crate::process::supervisor::{Ended, start};
use crate::result::{self, Cell, CellKind, Results, Role, Run, RunStatus, SCHEMA_VERSION, ScenarioNote, Verdict, Warning};
use crate::scenario::{CellPlan, Profile};
use crate::subject::Registry;
use crate::workload::outcome::Repetition;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What to run and where.
pub struct Job {
    /// The cells, in order.
    pub cells: Vec<CellPlan>,
    /// The folder of the run.
    pub out: PathBuf,
    /// Where stores are created; on the file system that is to be measured.
    pub work: PathBuf,
    /// The run's seed.
    pub seed: u64,
    /// The profile the cells were planned under.
    pub profile: Profile,
    /// The command, without the program's name.
    pub argv: Vec<String>,
    /// Set to a signal's number to end after the current step.
    pub stop: Arc<AtomicUsize>,
}

/// What a run tells about its progress.
pub trait Progress {
    /// A cell begins; `steps` of it will be reported.
    fn begin(&self, cell: &CellPlan, steps: u64);
    /// One more step is done.
    fn step(&self);
    /// A cell is done.
    fn end(&self, cell: &Cell);
}

/// Steps of all cells together: repetitions and kills.
pub fn steps(cells: &[CellPlan]) -> u64 {
    cells.iter().map(cell_steps).sum()
}

fn cell_steps(cell: &CellPlan) -> u64 {
    match cell.kind {
        CellKind::Bench => cell.plan.bench.repetitions,
        CellKind::Kill => kill::planned(cell),
        _ => 1,
    }
}

/// Runs all cells. The result is saved after each of them, so whatever ends the run leaves a valid one.
pub fn run(job: &Job, registry: &Registry, progress: &dyn Progress) -> io::Result<Results> {
    let clock = Clock::start();
    fs::create_dir_all(&job.out)?;
    let work = tempfile::Builder::new().prefix("harness-").tempdir_in(&job.work)?;
    let mut results = Results {
        schema_version: SCHEMA_VERSION,
        run: Run {
            id: job.out.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned()),
            status: RunStatus::Partial,
            seed: job.seed,
            argv: job.argv.clone(),
            version: host::version(),
            profile: job.profile.to_string(),
            duration_ns: 0,
            cells_planned: job.cells.len() as u64,
            scenarios: scenario_notes(&job.cells),
        },
        host: host::host(),
        storage: host::storage(work.path(), 400)?,
        cells: Vec::new(),
        not_tested: not_tested(&job.cells),
        warnings: Vec::new(),
    };
    results.warnings.extend(environment_warnings(&results));
    let path = job.out.join("result.json");
    for batch in batches(&job.cells) {
        let cells = match batch[0].kind {
            CellKind::Bench => bench_batch(batch, registry, work.path(), job, progress)?,
            CellKind::Kill => vec![kill_cell(&batch[0], registry, work.path(), job, progress)?],
            CellKind::Power | CellKind::Error | CellKind::Rot => {
                vec![simulated_cell(&batch[0], registry, work.path(), job, progress)?]
            }
        };
        for cell in cells {
            progress.end(&cell);
            results.cells.push(cell);
        }
        results.run.duration_ns = clock.now();
        result::save(&results, &path)?;
        if job.stop.load(Ordering::Relaxed) != 0 {
            break;
        }
    }
    convict_harness(&mut results);
    let stopped = job.stop.load(Ordering::Relaxed) != 0;
    results.run.status = if stopped { RunStatus::Interrupted } else { RunStatus::Complete };
    results.run.duration_ns = clock.now();
    result::save(&results, &path)?;
    Ok(results)
}

/// Bench cells of one variant are repeated in turn, so that a machine that grows slower hits all alike;
/// every other cell stands alone.
fn batches(cells: &[CellPlan]) -> Vec<&[CellPlan]> {
    cells
        .chunk_by(|a, b| {
            a.kind == CellKind::Bench
                && b.kind == CellKind::Bench
                && a.plan.name == b.plan.name
                && a.plan.variant == b.plan.variant
        })
        .collect()
}

fn bench_batch(
    cells: &[CellPlan],
    registry: &Registry,
    work: &Path,
    job: &Job,
    progress: &dyn Progress,
) -> io::Result<Vec<Cell>> {
    let mut repetitions: Vec<Result<Vec<Repetition>, String>> = vec![Ok(Vec::new()); cells.len()];
    let most = cells.iter().map(|c| c.plan.bench.repetitions).max().unwrap_or(0);
    for repetition in 0..most {
        for (cell, done) in cells.iter().zip(&mut repetitions) {
            if job.stop.load(Ordering::Relaxed) != 0 || repetition >= cell.plan.bench.repetitions {
                continue;
            }
            progress.begin(cell, 1);
            if let Ok(list) = done {
                match bench_repetition(cell, repetition, work)? {
                    Ok(sample) => list.push(sample),
                    Err(why) => *done = Err(why),
                }
            }
            progress.step();
        }
    }
    let merged = cells.iter().zip(repetitions).filter_map(|(cell, done)| match done {
        Ok(list) if list.is_empty() => None,
        Ok(list) => {
            let mut result = blank(cell, registry, Verdict::Survived, None);
            let measured = bench::merge(&list, cell.plan.workload.clients());
            result.criteria = bench::judge(&measured, &cell.plan.criteria, cell.plan.workload.live_bytes());
            result.bench = Some(measured);
            Some(result)
        }
        Err(why) => Some(blank(cell, registry, Verdict::NotMeasured, Some(why))),
    });
    Ok(merged.collect())
}

fn bench_repetition(cell: &CellPlan, repetition: u64, work: &Path) -> io::Result<Result<Repetition, String>> {
    let dir = work.join("bench");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("store"))?;
    let out = dir.join("repetition.json");
    let task = Task::Bench(BenchTask {
        store: StoreSpec {
            subject: cell.subject.clone(),
            sync: cell.sync,
            level: cell.level.clone(),
            workload: cell.plan.workload.clone(),
            tables: cell.plan.tables(),
            dir: dir.join("store"),
        },
        plan: cell.plan.bench.clone(),
        seed: cell.seed,
        repetition,
        generate: cell.role == Role::Null,
        out: out.clone(),
    });
    let limit = Duration::from_secs(900) + Duration::from_secs_f64(10.0 * cell.plan.bench.seconds.max(0.0));
    let ended = start(&task, &dir)?.wait(limit)?;
    let outcome = match ended {
        Ended::TimedOut => Err("a repetition did not end in time".to_owned()),
        Ended::Exited(status, words) if status.code() == Some(i32::from(exit_code::BUDGET)) => {
            return Err(io::Error::new(io::ErrorKind::StorageFull, words));
        }
        Ended::Exited(status, words) if !status.success() => Err(format!("a repetition failed ({status}): {words}")),
        Ended::Exited(..) => serde_json::from_slice(&fs::read(&out)?).map_err(|e| format!("a repetition left no result: {e}")),
    };
    fs::remove_dir_all(&dir)?;
    Ok(outcome)
}

fn kill_cell(cell: &CellPlan, registry: &Registry, work: &Path, job: &Job, progress: &dyn Progress) -> io::Result<Cell> {
    let subject = registry.get(&cell.subject).map_err(io::Error::other)?;
    progress.begin(cell, cell_steps(cell));
    let dir = work.join("kill");
    fs::create_dir_all(&dir)?;
    let evidence = job.out.join("findings");
    let mut step = |_| {
        progress.step();
        job.stop.load(Ordering::Relaxed) == 0
    };
    let (crash, verdict) = kill::run(cell, &*subject, &dir, &evidence, &mut step)?;
    fs::remove_dir_all(&dir)?;
    let mut result = blank(cell, registry, verdict, None);
    if verdict == Verdict::HarnessBroken {
        result.reason = Some("no kill met an acknowledged write: the cell proves nothing".to_owned());
    }
    result.crash = Some(crash);
    Ok(result)
}

fn simulated_cell(cell: &CellPlan, registry: &Registry, work: &Path, job: &Job, progress: &dyn Progress) -> io::Result<Cell> {
    progress.begin(cell, cell_steps(cell));
    let stopped = || job.stop.load(Ordering::Relaxed) != 0;
    let (crash, verdict, reason) = simulated::run(cell, &std::path::absolute(job.out.join("traces"))?, work, &stopped)?;
    progress.step();
    let mut result = blank(cell, registry, verdict, reason);
    result.crash = Some(crash);
    Ok(result)
}

fn blank(cell: &CellPlan, registry: &Registry, verdict: Verdict, reason: Option<String>) -> Cell {
    Cell {
        id: cell.id.clone(),
        scenario: cell.plan.name.clone(),
        group: cell.plan.variant.clone(),
        subject: cell.subject.clone(),
        subject_version: registry.get(&cell.subject).map_or(String::new(), |s| s.version()),
        role: cell.role,
        sync: cell.sync.0.to_string(),
        level: cell.level.clone(),
        kind: cell.kind,
        seed: cell.seed,
        verdict,
        reason,
        reproduce: format!(
            "harness run {} --only {} --subject {} --sync {}",
            cell.plan.source,
            format!("{:?}", cell.kind).to_lowercase(),
            cell.subject,
            cell.sync.0
        ),
        bench: None,
        criteria: Vec::new(),
        crash: None,
    }
}

/// A canary that survived has shown that the suite is blind.
fn convict_harness(results: &mut Results) {
    for cell in &mut results.cells {
        if cell.role == Role::Canary && cell.kind != CellKind::Bench && cell.verdict == Verdict::Survived {
            cell.verdict = Verdict::HarnessBroken;
            cell.reason = Some("a store that is broken on purpose was not convicted; no verdict of this run counts".to_owned());
        }
    }
}

fn scenario_notes(cells: &[CellPlan]) -> Vec<ScenarioNote> {
    let mut notes: Vec<ScenarioNote> = Vec::new();
    for cell in cells {
        if notes.iter().all(|n| n.name != cell.plan.name) {
            notes.push(ScenarioNote {
                name: cell.plan.name.clone(),
                title: cell.plan.title.clone(),
                source: cell.plan.source.clone(),
            });
        }
    }
    notes
}

fn not_tested(cells: &[CellPlan]) -> Vec<String> {
    let said: BTreeSet<&String> = cells.iter().flat_map(|c| &c.plan.not_tested).collect();
    let mut sentences: Vec<String> = said.into_iter().cloned().collect();
    if cells.iter().all(|c| c.kind == CellKind::Bench) {
        sentences.push("Crashes of any kind: this run only measured.".to_owned());
    }
    sentences
}

fn environment_warnings(results: &Results) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, text: String| warnings.push(Warning { code: code.to_owned(), cell: None, text });
    let storage = &results.storage;
    if matches!(storage.filesystem.as_str(), "tmpfs" | "ramfs") {
        warn("W001", format!("the stores were on {}: a sync costs nothing there and proves nothing", storage.filesystem));
    }
    let sync = &storage.calibration;
    if sync.fdatasync_4k_p50_ns < 20_000 {
        warn("W002", "a sync of this directory takes under 20 µs: the device caches, or does not sync at all".to_owned());
    }
    if sync.fdatasync_4k.p90 > 4 * sync.fdatasync_4k_p50_ns {
        warn(
            "W003",
            "sync latency varies more than fourfold between its median and its 90th percentile: somebody else uses the disk"
                .to_owned(),
        );
    }
    if cfg!(debug_assertions) {
        warn("W004", "the harness was built without optimisation: its figures say nothing about speed".to_owned());
    }
    warnings
}

/// What each warning means and what to do about it.
pub const WARNINGS: [(&str, &str); 4] = [
    ("W001", "The stores were created in memory. Choose a directory on a disk with --dir."),
    (
        "W002",
        "Syncs are suspiciously fast. Either the device has a protected cache, or something between here and the device ignores flushes. Figures of syncing policies are then lower bounds.",
    ),
    (
        "W003",
        "Something else uses the disk, so latencies of syncing policies are noisy. Run again when the machine is quiet, or with more repetitions.",
    ),
    ("W004", "Build with --release."),
];
