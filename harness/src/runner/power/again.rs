//! A second crash: a store that has recovered is used again, and crashed again.
//!
//! Some bugs need it: a torn tail that was cut but not synced comes back between later records; what a
//! restarted process showed its readers was never on the device.

use super::campaign::{Budget, Campaign, Floors};
use super::record::{Opener, Pace, Recording, Run, Step, record, slots};
use super::recover::{guarded, recover};
use crate::crash::{Files, Layout, Mark, Model, Node, Op, State, Strategy, Trace, View};
use crate::oracle::kv::Written;
use crate::oracle::queue;
use crate::result::Verdict;
use crate::subject::{End, Promise};
use crate::workload::Workload;
use crate::workload::stream::{Call, OwnedChange};
use engine::Durability;
use engine::fs::{MemFs, TraceFs};
use std::collections::BTreeMap;
use std::path::PathBuf;

const PACE: Pace = Pace { rate: 20.0, sync_ns: 0, seed: 0 };

const STRATEGIES: [Strategy; 6] =
    [Strategy::KeepNone, Strategy::KeepAll, Strategy::NamesOnly, Strategy::DataOnly, Strategy::OmitOne, Strategy::FilePrefix];

/// What a client does with a store that has recovered: it asks for a write again that is missing, which may
/// fit exactly into the place of the lost one; then a write, a batch over all tables, a write that waits for
/// the device.
fn steps(opener: &Opener<'_>, retry: &[OwnedChange]) -> Vec<Step> {
    let put =
        |table: usize, key: &str| OwnedChange { table, key: format!("again-{key}"), value: Some(format!("again|{key}|{table}")) };
    if let Workload::Queue(_) = opener.cell.plan.workload {
        return queue_steps(retry);
    }
    let tables = opener.tables.len();
    let calls = [
        Call::batch("again", Durability::Write, vec![put(0, "a")]),
        Call::batch(
            "again",
            Durability::Write,
            (0..tables.max(2)).map(|t| put(t % tables, if t < tables { "b" } else { "c" })).collect(),
        ),
        Call::batch("again", Durability::Sync, vec![put(tables - 1, "d")]),
    ];
    let retry = (!retry.is_empty()).then(|| Call::batch("retry", Durability::Write, retry.to_vec()));
    retry.into_iter().chain(calls).map(|call| Step::Call { client: 0, call }).collect()
}

/// The same on a queue: entries at its back and in front, taken out and put in.
fn queue_steps(retry: &[OwnedChange]) -> Vec<Step> {
    let text = |name: &str| format!("again|{name}");
    let push = |level, names: &[&str], end| Call::push("again", level, names.iter().map(|n| text(n)).collect(), end);
    let calls = [
        push(Durability::Write, &["a"], End::Back),
        Call::pop("again", Durability::Write, false),
        push(Durability::Write, &["b", "c"], End::Back),
        push(Durability::Sync, &["d"], End::Front),
        Call::pop("again", Durability::Sync, true),
    ];
    // No entry may be there twice, so it is another of the same length.
    let other = |text: &String| format!("A{}", text.get(1..).unwrap_or_default());
    let retry: Vec<String> = retry.iter().filter_map(|change| change.value.as_ref().map(other)).collect();
    let retry = (!retry.is_empty()).then(|| Call::push("retry", Durability::Write, retry, End::Back));
    retry.into_iter().chain(calls).map(|call| Step::Call { client: 0, call }).collect()
}

/// A write to be asked for again; of entries that were put into a queue, their texts.
pub(crate) fn again(write: &Written) -> Vec<OwnedChange> {
    match &write.queue {
        Some(queue::Call::Push { values, .. }) => {
            let text = |value: &String| OwnedChange { table: 0, key: String::new(), value: Some(value.clone()) };
            values.iter().map(text).collect()
        }
        _ => write.changes.clone(),
    }
}

/// Uses a store that recovers from these files, and cuts the power again; what breaks a promise then.
pub(crate) fn after_power_loss(opener: &Opener<'_>, files: &Files, retry: &[OwnedChange]) -> Option<(Verdict, String)> {
    let recording =
        guarded(|| record(opener, files, &steps(opener, retry), PACE).map_err(|e| (Verdict::Unopenable, e.to_string())));
    let recording = match recording {
        Ok(recording) => recording,
        Err((verdict, words)) => return Some((verdict, format!("used again: {words}"))),
    };
    if let Some(error) = recording.error {
        return Some((Verdict::Corrupt, format!("used again, it fails: {error}")));
    }
    judge(opener, &recording, recording.opened)
}

/// Continues a run whose process died before position `at`, with all it had done still in the kernel, in a new
/// process; then cuts the power. What the new process showed must not be lost if the policy promises that
/// of a write.
pub(crate) fn after_kill(opener: &Opener<'_>, recording: &Recording, layout: &Layout<'_>, at: u64) -> Option<(Verdict, String)> {
    if opener.subject.promise(opener.cell.sync.0, Durability::Write) < Promise::Power {
        return None;
    }
    let process = Model::named("process")?;
    let view = View::new(layout, process, at);
    let (dirs, files) = view.all().image(&view);
    let disk = MemFs::with_files(dirs.clone(), files.clone());
    let shown = recover(opener, &MemFs::with_files(dirs, files.clone())).contents.ok()?;
    let fs = TraceFs::over(&disk);
    let steps = steps(opener, &[]);
    let mut run = Run::new(opener, fs, PACE, &steps).ok()?;
    for step in &steps {
        if let Err(e) = run.step(step) {
            return Some((Verdict::Corrupt, format!("restarted, it fails: {e}")));
        }
    }
    let later = Trace::new(recording.trace.dirs.clone(), files.into_iter().collect(), run.fs.recorder().entries());
    let trace = continued(layout, &view.all(), at, &later);
    let (writes, syncs) = slots(&trace, std::mem::take(&mut run.writes), std::mem::take(&mut run.syncs));
    let opened = trace.marks.iter().find(|(_, m)| *m == Mark::Opened).map_or(at, |(p, _)| *p);
    let recording = Recording { trace, writes, syncs, base: shown, opened, error: None };
    judge(opener, &recording, opened)
        .map(|(verdict, words)| (verdict, format!("killed, restarted, and then the power cut: {words}")))
}

/// The calls up to a position, followed by those of a later process on the same files.
fn continued(layout: &Layout<'_>, state: &State, at: u64, later: &Trace) -> Trace {
    let mut trace = layout.trace.clone();
    trace.calls.retain(|c| c.begun < at);
    trace.calls.iter_mut().for_each(|c| c.ended = Some(c.ended.filter(|e| *e < at).unwrap_or(at)));
    trace.marks.clear();
    // The later trace numbers files by the order of their paths.
    let mut names = layout.initial.clone();
    for op in &layout.names[..state.names.len()] {
        for (path, node) in &op.sets {
            match node {
                Some(node) => drop(names.insert(path.clone(), *node)),
                None => drop(names.remove(path)),
            }
        }
    }
    let known: BTreeMap<&PathBuf, Node> = names.iter().map(|(path, node)| (path, *node)).collect();
    let first_new = layout.files.len();
    let number = |file: usize| match later.files.keys().nth(file).and_then(|path| known.get(path)) {
        Some(Node::File(number)) => *number,
        _ => first_new + file,
    };
    for call in &later.calls {
        let mut call = call.clone();
        call.begun += at + 1;
        call.ended = call.ended.map(|e| e + at + 1);
        match &mut call.op {
            Op::Write { file, .. } | Op::SetLen { file, .. } | Op::Sync { file, .. } | Op::Create { file, .. } => {
                *file = number(*file)
            }
            Op::Rename { .. } | Op::Link { .. } | Op::Remove { .. } | Op::CreateDir { .. } | Op::SyncDir { .. } => {}
        }
        trace.calls.push(call);
    }
    trace.marks.extend(later.marks.iter().map(|(p, mark)| (p + at + 1, *mark)));
    trace.end = at + 1 + later.end;
    trace
}

fn judge(opener: &Opener<'_>, recording: &Recording, from: u64) -> Option<(Verdict, String)> {
    let layout = Layout::new(&recording.trace);
    let floors = Floors::new(opener, recording);
    let posix = Model::named("posix")?;
    let models = [posix];
    let budget = Budget { states: u64::MAX, until_ns: 0, depth: 0, random: 0, findings: 1, again: false };
    let mut campaign = Campaign::new(opener, recording, &floors, &layout, &models, 0, budget);
    // After each promise, and at the end; what lies in between has less to lose.
    let acked =
        recording.trace.marks.iter().filter(|(_, m)| matches!(m, Mark::Acked { .. } | Mark::Opened)).map(|(at, _)| at + 1);
    for at in acked.chain([recording.trace.end]).filter(|at| *at > from) {
        let view = View::new(&layout, posix, at);
        for strategy in STRATEGIES {
            for state in strategy.states(&view, 0, 0).take(12) {
                let broken = campaign.verdict_of(&view, &state);
                if broken.is_some() {
                    return broken.map(|(verdict, words)| (verdict, format!("used again and crashed again: {words}")));
                }
            }
        }
    }
    None
}
