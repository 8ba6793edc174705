//! `error` cells: a call fails, at each place at which it can; the store must say so, keep what it promised,
//! and acknowledge nothing that it lost.
//!
//! After each failure the run goes on, and three things are judged: what the living store shows, what a killed
//! process leaves, and what a power loss leaves, in which the pages of a failed sync may be missing for ever.

use super::power::campaign::{Budget, Campaign, Floors};
use super::power::record::{Opener, Pace, Recording, Run, Step, disk, files, slots, steps};
use super::power::recover::{guarded, recover};
use crate::crash::{Call, Layout, Mark, Model, Op, Strategy, Trace, View};
use crate::history::Outcome;
use crate::oracle::Judge;
use crate::oracle::kv::Written;
use crate::result::{Crash, FaultCounts, Finding, Role, Verdict};
use crate::scenario::CellPlan;
use crate::subject::{Contents, Subject};
use crate::workload::random::mix;
use engine::Durability;
use engine::fs::{CallKind, FailingFs, Fault, Plan, TraceFs};
use std::sync::Arc;

/// Findings kept in the result; the counts cover all.
const FINDINGS: usize = 12;

/// What is made to fail, under the name it has in results.
const FAULTS: [(&str, CallKind, Fault); 13] = [
    ("eio-open", CallKind::Open, Fault::Eio),
    ("eio-create", CallKind::Create, Fault::Eio),
    ("eio-read", CallKind::Read, Fault::Eio),
    ("eio-write", CallKind::Write, Fault::Eio),
    ("eio-sync", CallKind::Sync, Fault::Eio),
    ("eio-sync-reverts", CallKind::Sync, Fault::EioReverts),
    ("eio-sync-dir", CallKind::SyncDir, Fault::Eio),
    ("eio-rename", CallKind::Rename, Fault::Eio),
    ("eio-remove", CallKind::Remove, Fault::Eio),
    ("eio-truncate", CallKind::SetLen, Fault::Eio),
    ("enospc-create", CallKind::Create, Fault::Enospc),
    ("enospc-write", CallKind::Write, Fault::Enospc),
    ("short-write", CallKind::Write, Fault::Short(7)),
];

/// What one failure showed.
struct Case {
    verdict: Verdict,
    words: String,
    /// Somebody was told.
    reported: bool,
}

/// Fails every call of the cell's run in turn.
pub fn run(cell: &CellPlan, subject: &dyn Subject, go_on: &mut dyn FnMut() -> bool) -> (Crash, Verdict, Option<String>) {
    let tables = cell.plan.tables();
    let opener = Opener { subject, cell, tables: &tables };
    let steps = steps(cell, 0, cell.plan.power.calls);
    let mut crash = Crash::default();
    let mut worst = Verdict::Survived;
    for (name, kind, fault) in FAULTS {
        let counts = crash.faults.entry(name.to_owned()).or_default();
        for skip in 0.. {
            if !go_on() {
                return (crash, worst.max(Verdict::NotMeasured), None);
            }
            let plan = Plan { kind, skip, times: 1, fault };
            let Some(case) = fail(&opener, &steps, plan) else { break };
            count(counts, &case);
            crash.cases += 1;
            worst = worst.max(case.verdict);
            if case.verdict > Verdict::NotMeasured && crash.findings.len() < FINDINGS {
                crash.findings.push(finding(cell, name, skip, &case));
            }
            if case.verdict > Verdict::NotMeasured && cell.role == Role::Canary {
                return (crash, worst, None);
            }
        }
    }
    for counts in crash.faults.values() {
        crash.corrupt += counts.corrupt;
        crash.unopenable += counts.unopenable;
        crash.hung += counts.hung;
        crash.lost_promised += counts.lost;
    }
    if crash.cases == 0 {
        let why = "the store makes no calls that could fail: it does not write through the file system it is given";
        return (crash, Verdict::NotMeasured, Some(why.to_owned()));
    }
    (crash, worst, None)
}

fn count(counts: &mut FaultCounts, case: &Case) {
    counts.cases += 1;
    match case.verdict {
        Verdict::Lost => counts.lost += 1,
        Verdict::Unopenable => counts.unopenable += 1,
        Verdict::Hung => counts.hung += 1,
        Verdict::Survived if case.reported => counts.reported += 1,
        Verdict::Survived => counts.harmless += 1,
        _ => counts.corrupt += 1,
    }
}

fn finding(cell: &CellPlan, fault: &str, skip: u64, case: &Case) -> Finding {
    Finding {
        id: format!("{}#{fault}-{skip}", cell.id),
        verdict: case.verdict,
        profile: fault.to_owned(),
        summary: format!("{} (call {skip} of its kind failed)", case.words),
        replay: format!("harness run {} --only error --subject {} --sync {}", cell.plan.source, cell.subject, cell.sync.0),
        models: Vec::new(),
        explanation: None,
    }
}

/// Runs the steps with one planned failure; `None` if the run has no such call any more.
fn fail(opener: &Opener<'_>, steps: &[Step], plan: Plan) -> Option<Case> {
    let start = files(opener.cell);
    let mem = disk(&start);
    let failing = FailingFs::new(Arc::new(mem.clone()));
    let fs = TraceFs::through(Arc::new(failing.clone()), &mem);
    let pace = Pace {
        rate: opener.cell.plan.power.rate,
        sync_ns: opener.cell.plan.power.sync_latency_us * 1000,
        seed: mix(opener.cell.seed, &[0]),
    };
    let reads = matches!(plan.kind, CallKind::Read | CallKind::Open);
    if !reads {
        failing.arm(plan);
    }
    let mut told = Vec::new();
    let verdict = |verdict, words: String, told: &[String]| Some(Case { verdict, words, reported: !told.is_empty() });
    let mut run = match guarded(|| Run::new(opener, fs.clone(), pace, steps).map_err(|e| (Verdict::Survived, e.to_string()))) {
        Ok(run) => run,
        Err((Verdict::Survived, words)) => {
            // It could not be opened and said so; without the failure it must open again.
            told.push(words);
            failing.disarm();
            let (after, words) = match recover(opener, &mem).contents {
                Ok(_) => (Verdict::Survived, String::new()),
                Err((verdict, words)) => (verdict, format!("after a failed opening: {words}")),
            };
            return verdict(after, words, &told);
        }
        Err((panicked, words)) => return verdict(panicked, words, &told),
    };
    for step in steps {
        match guarded(|| run.step(step).map_err(|e| (Verdict::Survived, e.to_string()))) {
            Ok(()) => {}
            Err((Verdict::Survived, words)) => told.push(words),
            Err((panicked, words)) => return verdict(panicked, words, &told),
        }
    }
    if reads {
        // What is there must be read again: the store is reopened, and that fails.
        failing.arm(plan);
        match guarded(|| run.step(&Step::Reopen).map_err(|e| (Verdict::Survived, e.to_string()))) {
            Ok(()) => {}
            Err((Verdict::Survived, words)) => told.push(words),
            Err((panicked, words)) => return verdict(panicked, words, &told),
        }
    }
    if failing.fired() == 0 {
        return None;
    }
    failing.disarm();
    let living =
        run.session.as_ref().map(|session| guarded(|| session.contents().map_err(|e| (Verdict::Corrupt, e.to_string()))));
    let image = mem.image();
    let end = fs.recorder().entries();
    let closed = run.session.take().map_or(Ok(()), |session| session.close());
    told.extend(closed.err().map(|e| e.to_string()));
    let trace = Trace::new(mem.dirs(), start.clone(), end);
    let (writes, syncs) = slots(&trace, std::mem::take(&mut run.writes), std::mem::take(&mut run.syncs));
    let base = if start.is_empty() {
        vec![Default::default(); opener.tables.len()]
    } else {
        recover(opener, &disk(&start)).contents.unwrap_or_default()
    };
    let mut recording = Recording { trace, writes, syncs, base, opened: 0, error: None };
    if plan.fault == Fault::EioReverts {
        leave_in_doubt(opener, &mut recording);
    }
    let floors = Floors::new(opener, &recording);
    if let Some(Ok(contents)) = &living
        && let Some((found, words)) = alive(opener, &recording, contents, !told.is_empty())
    {
        return verdict(found, format!("the store goes on and shows something else: {words}"), &told);
    }
    let layout = Layout::new(&recording.trace);
    let torn = Model::named("torn")?;
    let models = [torn];
    let budget = Budget { states: u64::MAX, until_ns: 0, depth: 1, random: 0, findings: 1, again: true };
    let mut campaign = Campaign::new(opener, &recording, &floors, &layout, &models, pace.seed, budget);
    let left: Vec<_> = image.into_iter().collect();
    if let Some((found, words)) = campaign.verdict_of_image(mem.dirs(), left, true, recording.trace.end) {
        return verdict(found, format!("after a restart: {words}"), &told);
    }
    let opened = recording.trace.marks.iter().filter(|(_, mark)| *mark == Mark::Opened).count();
    if plan.fault == Fault::EioReverts && opened > 1 {
        // What the kernel took back is in no trace, so what a later process wrote over it cannot be told apart.
        return verdict(Verdict::Survived, String::new(), &told);
    }
    // The last crash point has all the promises; those before it belong to power cells.
    let view = View::new(&layout, torn, recording.trace.end);
    for strategy in [Strategy::KeepNone, Strategy::KeepAll, Strategy::OmitOne, Strategy::FilePrefix, Strategy::TornSector] {
        for state in strategy.states(&view, pace.seed, 0) {
            if let Some((found, words)) = campaign.verdict_of(&view, &state) {
                return verdict(found, format!("after a power loss: {words}"), &told);
            }
        }
    }
    verdict(Verdict::Survived, String::new(), &told)
}

/// After a failed sync some kernels take back the pages that it was to write: whatever was not on the device by
/// then is gone, for a process that opens the store again too. The store has said so, and is not held to it.
fn leave_in_doubt(opener: &Opener<'_>, recording: &mut Recording) {
    let is_failed = |c: &&Call| !c.ok && matches!(c.op, Op::Sync { .. });
    let Some(failed) = recording.trace.calls.iter().find(is_failed).map(|c| c.begun) else { return };
    let floors = Floors::new(opener, recording);
    for (client, floors) in recording.writes.iter_mut().zip(&floors.power) {
        for (write, floor) in client.iter_mut().zip(floors) {
            if write.slot.begin < failed && floor.is_none_or(|floor| floor > failed) {
                write.slot.outcome = Outcome::Unknown;
            }
        }
    }
}

/// What is wrong with what the living store shows: whatever it acknowledged must be there, buffered writes aside
/// once an error was told, as it may have been theirs.
fn alive(opener: &Opener<'_>, recording: &Recording, contents: &Contents, told: bool) -> Option<(Verdict, String)> {
    let acked = |w: &Written| w.slot.acked_by(u64::MAX).filter(|_| !told || w.level != Durability::Async);
    let shown: Vec<Vec<Option<u64>>> = recording.writes.iter().map(|c| c.iter().map(acked).collect()).collect();
    let keeps_prefix = opener.subject.keeps_prefix();
    let found = Judge::new(&recording.base, &recording.writes, &shown, keeps_prefix).judge(contents, u64::MAX);
    match (found.wrong.first(), found.lost_promised) {
        (Some(wrong), _) => Some((Verdict::Corrupt, wrong.clone())),
        (None, 0) => None,
        (None, n) => Some((Verdict::Lost, format!("{n} acknowledged writes are missing"))),
    }
}
