//! `rot` cells: the files of a small store are damaged byte by byte, and opened again. Damage must be detected
//! or harmless, never silently wrong.
//!
//! Two images are damaged: one that was closed, in which all was synced and the store had the chance to say
//! so, and one whose process died. There, what no later record of a sync covers cannot be told from a torn
//! tail: it may be cut, and the store must say that it did.

use super::power::campaign::Floors;
use super::power::record::{HOME, Opener, Pace, Recording, files, record, steps};
use super::power::recover::recover;
use crate::crash::{Layout, Mark, Model, Op, Trace, View};
use crate::oracle::kv::Written;
use crate::oracle::{Judge, queue};
use crate::result::{Crash, FaultCounts, Finding, Role, Verdict};
use crate::scenario::CellPlan;
use crate::subject::{Contents, Subject};
use crate::workload::random::mix;
use engine::Durability;
use engine::fs::MemFs;
use std::path::PathBuf;

/// Findings kept in the result; the counts cover all.
const FINDINGS: usize = 12;
/// Blocks that change places with their older selves.
const BLOCK: usize = 512;

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize, u8),
    Zero(usize),
    Cut(usize),
    /// The block at this offset is as it was in the middle of the run.
    Stale(usize),
}

impl Damage {
    fn name(self) -> &'static str {
        match self {
            Damage::Flip(_, 0xff) => "flip-byte",
            Damage::Flip(..) => "flip-bit",
            Damage::Zero(_) => "zero-byte",
            Damage::Cut(_) => "cut-tail",
            Damage::Stale(_) => "stale-block",
        }
    }

    /// All that can be done to a file of these bytes, `older` in the middle of the run.
    fn all(bytes: &[u8], older: &[u8]) -> Vec<Damage> {
        let mut all = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            all.extend([Damage::Flip(at, 0xff), Damage::Flip(at, 1 << (at % 8))]);
            all.extend((*byte != 0).then_some(Damage::Zero(at)));
            all.push(Damage::Cut(at));
        }
        let differs = |at: &usize| older.len() > *at && block(bytes, *at) != block(older, *at);
        all.extend((0..bytes.len()).step_by(BLOCK).filter(differs).map(Damage::Stale));
        all
    }

    fn apply(self, bytes: &[u8], older: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        match self {
            Damage::Flip(at, mask) => damaged[at] ^= mask,
            Damage::Zero(at) => damaged[at] = 0,
            Damage::Cut(at) => damaged.truncate(at),
            Damage::Stale(at) => {
                let end = (at + BLOCK).min(damaged.len());
                let mut stale = block(older, at).to_vec();
                stale.resize(end - at, 0);
                damaged[at..end].copy_from_slice(&stale);
            }
        }
        damaged
    }

    fn offset(self) -> usize {
        let (Damage::Flip(at, _) | Damage::Zero(at) | Damage::Cut(at) | Damage::Stale(at)) = self;
        at
    }
}

/// How far a file is written: what lies behind it are zeros of room that was made in advance.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Where the last write to a file of these bytes began, if it was shorter than a block; else its last byte. A block that reaches
/// so far leaves no whole record behind itself that could tell what is missing.
fn last_write(trace: &Trace, bytes: &[u8]) -> usize {
    let end = written(bytes);
    let began = trace.calls.iter().rev().find_map(|call| match &call.op {
        Op::Write { offset, bytes: last, .. } => {
            let at = usize::try_from(*offset).ok()?;
            let stands = at < end && at + last.len() >= end && bytes.get(at..at + last.len()) == Some(last);
            (stands && last.len() < BLOCK).then_some(at)
        }
        _ => None,
    });
    began.unwrap_or(end.saturating_sub(1))
}

fn block(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..(at + BLOCK).min(bytes.len())]
}

/// An image to damage, and what it must show.
struct Specimen {
    name: &'static str,
    files: Vec<(PathBuf, Vec<u8>)>,
    older: Vec<(PathBuf, Vec<u8>)>,
    contents: Contents,
    /// From where each write may not be cut off any more.
    covered: Vec<Vec<Option<u64>>>,
}

/// Damages the cell's store everywhere.
pub fn run(cell: &CellPlan, subject: &dyn Subject, go_on: &mut dyn FnMut() -> bool) -> (Crash, Verdict, Option<String>) {
    let tables = cell.plan.tables();
    let opener = Opener { subject, cell, tables: &tables };
    let plan = &cell.plan.power;
    let pace = Pace { rate: plan.rate, sync_ns: plan.sync_latency_us * 1000, seed: mix(cell.seed, &[0]) };
    let mut crash = Crash::default();
    let mut worst = Verdict::Survived;
    let recording = match record(&opener, &files(cell), &steps(cell, 0, plan.calls), pace) {
        Ok(recording) => recording,
        Err(e) => return (crash, Verdict::NotMeasured, Some(format!("the store does not run in memory: {e}"))),
    };
    let specimens = match specimens(&opener, &recording) {
        Ok(specimens) => specimens,
        Err((verdict, words)) => return (crash, verdict, Some(words)),
    };
    for specimen in specimens {
        for file in 0..specimen.files.len() {
            let (path, bytes) = &specimen.files[file];
            let older = specimen.older.iter().find(|(p, _)| p == path).map_or(&[][..], |(_, bytes)| bytes);
            let last = last_write(&recording.trace, bytes);
            for damage in Damage::all(bytes, older) {
                if crash.cases.is_multiple_of(500) && !go_on() {
                    return (crash, worst.max(Verdict::NotMeasured), None);
                }
                let mut damaged = specimen.files.clone();
                damaged[file].1 = damage.apply(bytes, older);
                let name = format!("{}-{}", damage.name(), specimen.name);
                let counts = crash.faults.entry(name.clone()).or_default();
                let (verdict, words) = judge(&opener, &recording, &specimen, damaged, (damage, last), counts);
                crash.cases += 1;
                worst = worst.max(verdict);
                if verdict > Verdict::NotMeasured {
                    if crash.findings.len() < FINDINGS {
                        let place = format!("byte {} of {}", damage.offset(), path.file_name().unwrap_or_default().display());
                        crash.findings.push(finding(cell, &name, verdict, &format!("{words} ({place})"), crash.cases));
                    }
                    if cell.role == Role::Canary {
                        return (crash, worst, None);
                    }
                }
            }
        }
    }
    for counts in crash.faults.values() {
        crash.corrupt += counts.corrupt;
        crash.unopenable += counts.unopenable;
        crash.hung += counts.hung;
        crash.lost_promised += counts.lost;
    }
    (crash, worst, None)
}

fn finding(cell: &CellPlan, fault: &str, verdict: Verdict, words: &str, number: u64) -> Finding {
    Finding {
        id: format!("{}#{fault}-{number}", cell.id),
        verdict,
        profile: fault.to_owned(),
        summary: words.to_owned(),
        replay: format!("harness run {} --only rot --subject {} --sync {}", cell.plan.source, cell.subject, cell.sync.0),
        models: Vec::new(),
        explanation: None,
    }
}

/// The store after it was closed, and as its process left it before.
fn specimens(opener: &Opener<'_>, recording: &Recording) -> Result<Vec<Specimen>, (Verdict, String)> {
    let layout = Layout::new(&recording.trace);
    let Some(model) = Model::named("process") else { return Ok(Vec::new()) };
    let at = |position: u64| {
        let view = View::new(&layout, model, position);
        view.all().image(&view).1
    };
    let works = recording.trace.marks.iter().filter(|(_, mark)| *mark == Mark::Work);
    let closing = works.map(|(at, _)| *at).max().unwrap_or(recording.trace.end);
    let older = at(closing / 2);
    let floors = Floors::new(opener, recording);
    let make = |name, position: u64, covered| {
        let files = at(position);
        let disk = MemFs::with_files([PathBuf::from(HOME)], files.clone());
        let contents = recover(opener, &disk).contents?;
        Ok(Specimen { name, files, older: older.clone(), contents, covered })
    };
    let acked = |w: &Written| w.slot.acked_by(u64::MAX);
    let all = recording.writes.iter().map(|c| c.iter().map(acked).collect()).collect();
    Ok(vec![make("closed", recording.trace.end, all)?, make("killed", closing, covered(recording, &floors))?])
}

/// A promised write is safe from being cut when a record written after its sync could tell of it: in the same file, so
/// that what was put into a queue says nothing of what was taken out.
fn covered(recording: &Recording, floors: &Floors) -> Vec<Vec<Option<u64>>> {
    let logged = |w: &&Written| w.level != Durability::Async && w.slot.acked_by(u64::MAX).is_some();
    let takes = |w: &Written| w.queue.as_ref().is_some_and(|call| !matches!(call, queue::Call::Push { .. }));
    let told = |w: &&Written| !w.queue.as_ref().is_some_and(queue::Call::is_idle);
    let last = |took: bool| {
        let same = recording.writes.iter().flatten().filter(logged).filter(told).filter(|w| takes(w) == took);
        same.map(|w| w.slot.begin).max().unwrap_or(0)
    };
    let last = [last(false), last(true)];
    let safe = |(from, w): (&Option<u64>, &Written)| from.filter(|from| *from < last[usize::from(takes(w))]);
    let clients = floors.power.iter().zip(&recording.writes);
    clients.map(|(floors, writes)| floors.iter().zip(writes).map(safe).collect()).collect()
}

fn judge(
    opener: &Opener<'_>,
    recording: &Recording,
    specimen: &Specimen,
    damaged: Vec<(PathBuf, Vec<u8>)>,
    (damage, last): (Damage, usize),
    counts: &mut FaultCounts,
) -> (Verdict, String) {
    counts.cases += 1;
    let recovered = recover(opener, &MemFs::with_files([PathBuf::from(HOME)], damaged));
    let contents = match recovered.contents {
        Ok(contents) => contents,
        // A refusal is the answer that is wanted; a panic or worse is not.
        Err((Verdict::Hung, words)) => {
            counts.hung += 1;
            return (Verdict::Hung, words);
        }
        Err((verdict, words)) if words.starts_with("it panicked") => {
            counts.unopenable += 1;
            return (verdict, words);
        }
        Err(_) => {
            counts.reported += 1;
            return (Verdict::Survived, String::new());
        }
    };
    if let Some(words) = recovered.second {
        counts.corrupt += 1;
        return (Verdict::Corrupt, words);
    }
    if contents == specimen.contents {
        counts.harmless += 1;
        return (Verdict::Survived, String::new());
    }
    // With its tail a file loses the records that tell what was synced; a tail that is older than the rest too.
    let tail = matches!(damage, Damage::Cut(_)) || matches!(damage, Damage::Stale(at) if at + BLOCK > last);
    let nothing: Vec<Vec<Option<u64>>> = recording.writes.iter().map(|client| vec![None; client.len()]).collect();
    let floors = if tail { &nothing } else { &specimen.covered };
    let found = Judge::new(&recording.base, &recording.writes, floors, opener.subject.keeps_prefix()).judge(&contents, u64::MAX);
    if tail && found.phantoms == 0 {
        // What is left may lack anything, a part of a batch too if the log was rewritten since; but it must not
        // hold what nobody wrote.
        counts.cut += 1;
        return (Verdict::Survived, String::new());
    }
    if let Some(wrong) = found.wrong.first() {
        counts.corrupt += 1;
        return (Verdict::Corrupt, wrong.clone());
    }
    if found.lost_promised > 0 {
        counts.lost += 1;
        return (Verdict::Lost, format!("{} writes that had been synced are missing, and nothing was said", found.lost_promised));
    }
    // A block that is older than it should be may be a whole record of its time; nobody can tell unless a later
    // record does, and then it would have been missed above.
    if recovered.repaired.is_none() && !matches!(damage, Damage::Stale(_)) {
        counts.corrupt += 1;
        return (Verdict::Corrupt, "the store shows something else than was written and does not say so".to_owned());
    }
    counts.cut += 1;
    (Verdict::Survived, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Call;

    #[test]
    fn room_made_in_advance_is_not_written() {
        assert_eq!([written(b""), written(b"\0\0"), written(b"a\0b"), written(b"a\0b\0\0")], [0, 0, 3, 3]);
    }

    #[test]
    fn the_last_write_is_that_which_the_file_ends_with() {
        let write = |offset, bytes: &[u8]| Call {
            op: Op::Write { file: 0, offset, bytes: bytes.to_vec() },
            begun: 0,
            ended: Some(1),
            ok: true,
        };
        let long = [7; BLOCK];
        let calls = vec![write(0, b"header"), write(6, b"one"), write(9, b"two"), write(9, &long)];
        let trace = Trace { calls, ..Trace::default() };
        let last = |bytes: &[u8]| last_write(&trace, bytes);
        assert_eq!([last(b"headeronetwo\0\0"), last(b"headerone\0"), last(b"headersix")], [9, 6, 8]);
        // A long one may hold records that tell of those before them.
        assert_eq!(last(&[&b"headerone"[..], &long].concat()), 9 + BLOCK - 1);
    }
}
