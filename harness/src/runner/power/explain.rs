//! How a finding comes about: the fewest lost effects that still show it, the barrier that would have kept
//! them, and the shortest run that has it; and the opposite, syncs that nobody would miss.

use super::campaign::{Budget, Campaign, Floors, Hit, points};
use super::record::{Opener, Pace, Recording, Step, files, record};
use crate::crash::{Effect, Layout, Model, Op, State, Strategy, Trace, View, effects, omitting};
use crate::result::{Audit, Explanation};
use std::collections::{BTreeMap, BTreeSet};

/// Strategies that need few states and find most.
const TELLING: [Strategy; 10] = [
    Strategy::KeepNone,
    Strategy::KeepAll,
    Strategy::NamesOnly,
    Strategy::DataOnly,
    Strategy::SizeWithoutData,
    Strategy::DataWithoutSize,
    Strategy::OmitOne,
    Strategy::KeepOne,
    Strategy::FilePrefix,
    Strategy::TornLast,
];

const BUDGET: Budget = Budget { states: u64::MAX, until_ns: 0, depth: 1, random: 0, findings: 1, again: false };

/// Explains a hit on a recording.
pub(crate) fn explain(opener: &Opener<'_>, recording: &Recording, hit: &Hit) -> Explanation {
    let layout = Layout::new(&recording.trace);
    let floors = Floors::new(opener, recording);
    let models = [hit.model];
    let mut campaign = Campaign::new(opener, recording, &floors, &layout, &models, 0, BUDGET);
    let view = View::new(&layout, hit.model, hit.at);
    let lost = fewest(&mut campaign, &view, &hit.state);
    let calls: BTreeSet<usize> = lost.iter().map(|e| e.call(&layout)).collect();
    let lost_effects = calls.iter().map(|c| recording.trace.describe(*c)).collect();
    let suspects = suspects(opener, recording, &layout, hit);
    let barrier = suspects.then(|| barrier(opener, recording, &layout, hit, &lost)).flatten();
    let verified = barrier.is_some();
    Explanation { lost_effects, operations: Vec::new(), barrier, verified }
}

/// The fewest volatile effects whose loss still breaks a promise; empty if it is not a matter of whole calls.
fn fewest(campaign: &mut Campaign<'_>, view: &View<'_, '_>, state: &State) -> Vec<Effect> {
    let mut lost: Vec<Effect> = effects(view).into_iter().filter(|e| e.is_missing(view, state)).collect();
    let mut fails = |lost: &[Effect]| campaign.verdict_of(view, &view.settle(omitting(view, lost))).is_some();
    if !fails(&lost) {
        return Vec::new();
    }
    let mut at = 0;
    while at < lost.len() {
        let mut fewer = lost.clone();
        fewer.remove(at);
        if fails(&fewer) { lost = fewer } else { at += 1 }
    }
    lost
}

/// Whether the states that a cure is held against break a promise without it; if they do not, any sync would
/// look like one.
fn suspects(opener: &Opener<'_>, recording: &Recording, layout: &Layout<'_>, hit: &Hit) -> bool {
    let floors = Floors::new(opener, recording);
    let models = [hit.model];
    let mut campaign = Campaign::new(opener, recording, &floors, layout, &models, 0, BUDGET);
    let view = View::new(layout, hit.model, hit.at);
    TELLING.iter().any(|strategy| strategy.states(&view, 0, 0).any(|state| campaign.verdict_of(&view, &state).is_some()))
}

/// The sync that was missing: added to the trace, no state at the crash point breaks a promise any more.
fn barrier(opener: &Opener<'_>, recording: &Recording, layout: &Layout<'_>, hit: &Hit, lost: &[Effect]) -> Option<String> {
    for effect in lost {
        let call = effect.call(layout);
        for op in effect.syncs(layout) {
            // As early as can be, then as late as it still helps.
            let cures = |at: u64| is_cured(opener, recording, &op, at, hit);
            let Some(after) = recording.trace.calls[call].ended.map(|ended| ended + 1) else { continue };
            if after > hit.at || !cures(after) {
                continue;
            }
            let later: Vec<usize> =
                (call + 1..recording.trace.calls.len()).filter(|c| recording.trace.calls[*c].begun < hit.at).collect();
            let helps = later.partition_point(|c| cures(recording.trace.calls[*c].begun));
            let before = later.get(helps).map_or_else(
                || "before the write is acknowledged".to_owned(),
                |next| format!("before {}", recording.trace.describe(*next)),
            );
            let what = match &op {
                Op::SyncDir { .. } => "sync the directory".to_owned(),
                Op::Sync { file, .. } => format!("sync {}", recording.trace.name_of(*file)),
                _ => continue,
            };
            return Some(format!("{what} after {}, {before}", recording.trace.describe(call)));
        }
    }
    None
}

/// Whether with one more sync no state at the hit's crash point breaks a promise.
fn is_cured(opener: &Opener<'_>, recording: &Recording, op: &Op, at: u64, hit: &Hit) -> bool {
    let mut cured = recording.clone();
    cured.trace = recording.trace.with(op.clone(), at);
    let (writes, syncs) = super::record::moved(recording, at);
    (cured.writes, cured.syncs) = (writes, syncs);
    let layout = Layout::new(&cured.trace);
    let floors = Floors::new(opener, &cured);
    let models = [hit.model];
    let mut campaign = Campaign::new(opener, &cured, &floors, &layout, &models, 0, BUDGET);
    let view = View::new(&layout, hit.model, if hit.at >= at { hit.at + 2 } else { hit.at });
    TELLING.iter().all(|strategy| strategy.states(&view, 0, 0).all(|state| campaign.verdict_of(&view, &state).is_none()))
}

/// Whether a run of these steps breaks a promise under the model, looking at so many states.
pub(crate) fn still_fails(opener: &Opener<'_>, steps: &[Step], pace: Pace, model: &'static Model, states: u64) -> bool {
    let Ok(recording) = record(opener, &files(opener.cell), steps, pace) else { return false };
    let layout = Layout::new(&recording.trace);
    let floors = Floors::new(opener, &recording);
    let models = [model];
    let mut campaign = Campaign::new(opener, &recording, &floors, &layout, &models, pace.seed, BUDGET);
    !campaign.is_clean(&TELLING, states)
}

/// The shortest run that still fails: whole stretches of steps are left out as long as it does.
pub(crate) fn shortest(steps: &[Step], mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps.to_vec();
    let mut stretch = steps.len().div_ceil(2);
    while stretch > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + stretch).min(steps.len()));
            if fails(&fewer) { steps = fewer } else { at += stretch }
        }
        stretch = if stretch == 1 { 0 } else { stretch.div_ceil(2) };
    }
    steps
}

/// Drops every sync, rename, removal and truncation from the recording, one at a time, and judges again:
/// which of them carry the promises.
pub(crate) fn audit(
    opener: &Opener<'_>,
    recording: &Recording,
    models: &[&'static Model],
    go_on: &mut dyn FnMut() -> bool,
) -> Vec<Audit> {
    let covered: Vec<&'static Model> = models.iter().filter(|m| m.is_covered() && !m.keeps_completed).copied().collect();
    let trace = &recording.trace;
    let mut kinds: BTreeMap<String, Audit> = BTreeMap::new();
    for call in (0..trace.calls.len()).filter(|c| trace.calls[*c].ok) {
        let counts = matches!(
            trace.calls[call].op,
            Op::Sync { .. } | Op::SyncDir { .. } | Op::Rename { .. } | Op::Link { .. } | Op::Remove { .. } | Op::SetLen { .. }
        );
        if !counts || !go_on() {
            continue;
        }
        let kind = kind_of(trace, call);
        let row = kinds.entry(kind.clone()).or_insert_with(|| Audit { call: kind, ..Audit::default() });
        row.dropped += 1;
        row.convicted += u64::from(is_missed(opener, recording, &covered, call, go_on));
    }
    kinds.into_values().collect()
}

/// States that are tried at most to see whether one dropped call is missed.
const AUDIT_STATES: u64 = 50_000;

/// Whether a promise is broken without this call. Only what comes after it can have changed.
fn is_missed(
    opener: &Opener<'_>,
    recording: &Recording,
    models: &[&'static Model],
    call: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> bool {
    let dropped = Recording { trace: recording.trace.without(&[call]), ..recording.clone() };
    let from = recording.trace.calls[call].begun;
    let layout = Layout::new(&dropped.trace);
    let floors = Floors::new(opener, &dropped);
    let mut campaign = Campaign::new(opener, &dropped, &floors, &layout, models, 0, BUDGET);
    let mut tried = 0;
    for strategy in TELLING {
        for &model in models {
            for at in points(&layout, false).into_iter().filter(|at| *at > from) {
                // Each look is a sign of life: a store with many calls takes its time here.
                if !go_on() {
                    return false;
                }
                let view = View::new(&layout, model, at);
                for state in strategy.states(&view, 0, 0) {
                    tried += 1;
                    if tried > AUDIT_STATES {
                        return false;
                    }
                    if campaign.verdict_of(&view, &state).is_some() {
                        return true;
                    }
                }
            }
        }
    }
    false
}

/// A call as one of its kind: what it does, and to what, without its figures.
fn kind_of(trace: &Trace, call: usize) -> String {
    let words = trace.describe(call);
    let words = words.split_once(": ").map_or(words.as_str(), |(_, words)| words);
    let figure = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    let words: Vec<&str> = words.split(' ').filter(|w| !figure(w) && *w != "bytes" && *w != "at").collect();
    words.join(" ").trim_end_matches(" to").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_run_keeps_what_it_takes() {
        let steps: Vec<Step> = (0..37)
            .map(|n| {
                if n == 20 {
                    Step::Shrink
                } else if n == 5 {
                    Step::Reopen
                } else {
                    Step::Sync
                }
            })
            .collect();
        let fails = |s: &[Step]| s.contains(&Step::Shrink) && s.contains(&Step::Reopen);
        assert_eq!(shortest(&steps, fails), [Step::Reopen, Step::Shrink]);
    }
}
