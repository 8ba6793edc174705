//! How much a crash takes: crashes at uniform moments of a longer run in virtual time, each with the best and
//! the worst state that a model allows.
//!
//! The worst state keeps nothing volatile, the best keeps everything. Requests arrive at random moments; those
//! that arrive while the store is busy with a sync of its own are served when it is done.

use super::campaign::{Budget, Campaign, Floors, Tally};
use super::record::{Opener, Pace, Recording, Step, files, record};
use crate::crash::{Layout, Mark, Model, State, Trace, View};
use crate::result::{Crash, Finding, Loss, Power, Spread, Verdict};
use crate::subject::SubjectError;
use crate::workload::random::{mix, rng};
use engine::SyncPolicy;
use rand::RngExt;
use std::collections::BTreeMap;
use std::time::Duration;

/// Number of the run among the cell's, apart from those that are crashed everywhere.
const RUN: u64 = 1 << 32;

/// Measures the loss window of the cell, adds it to the result, and holds it against what the policy promises.
pub(crate) fn measure(
    opener: &Opener<'_>,
    models: &[&'static Model],
    crash: &mut Crash,
    power: &mut Power,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), SubjectError> {
    let plan = &opener.cell.plan.power;
    let policy = opener.cell.sync.0;
    let interval = if let SyncPolicy::Interval(d) = policy { d } else { Duration::ZERO };
    let seconds = plan.loss.seconds.max(12.0 * interval.as_secs_f64());
    // Requests come at random moments: more than fit, so that the run is as long as it says.
    let calls = (seconds * plan.loss.rate * 1.3).ceil() as u64 + 50;
    let steps: Vec<Step> = super::record::steps(opener.cell, RUN, calls);
    let sync_ns = plan.sync_latency_us * 1000;
    let seed = mix(opener.cell.seed, &[RUN]);
    let recording = record(opener, &files(opener.cell), &steps, Pace { rate: plan.loss.rate, sync_ns, seed })?;
    let layout = Layout::new(&recording.trace);
    let times = Times::new(&recording.trace, sync_ns);
    let floors = Floors::new(opener, &recording);
    let budget = Budget { states: u64::MAX, until_ns: 0, depth: 0, random: 0, findings: usize::MAX, again: false };
    let mut campaign = Campaign::new(opener, &recording, &floors, &layout, models, seed, budget);
    let last = times.at(closing(&recording)).min((seconds * 1e9) as u64);
    let end = times.position(last).min(closing(&recording));
    let mut moments = rng(seed, &[1]);
    let moments: Vec<u64> = (0..plan.loss.moments).map(|_| moments.random_range(0..last.max(1))).collect();
    let bound_ms = bound(opener, sync_ns);
    let mut loss = Loss {
        rate_per_s: plan.loss.rate,
        sync_latency_ns: sync_ns,
        duration_ns: last,
        acked: recording.writes.iter().flatten().filter(|w| w.slot.acked_by(end).is_some()).count() as u64,
        moments: moments.len() as u64,
        bound_ms,
        unbounded: bound_ms.is_none() && matches!(policy, SyncPolicy::Never | SyncPolicy::Manual),
        ..Loss::default()
    };
    let mut tally = Tally::default();
    for &model in models {
        let (mut ops, mut worst, mut best) = (Vec::new(), Vec::new(), Vec::new());
        for &moment in &moments {
            if !go_on() {
                return Ok(());
            }
            let at = times.position(moment).min(end);
            let view = View::new(&layout, model, at);
            let mut window = |state: State| {
                let found = campaign.lost_at(&view, &state, &mut tally)?;
                let age = found.1.map_or(0, |acked| moment.saturating_sub(times.at(acked)));
                Some((found.0 as f64, age as f64 / 1e6))
            };
            // A state that cannot be read is a finding of the campaign, not a loss that could be measured.
            let (Some((lost, ms)), Some((_, least))) = (window(view.none()), window(view.all())) else { continue };
            ops.push(lost);
            worst.push(ms);
            best.push(least);
        }
        let counts = power.by_model.entry(model.name.to_owned()).or_default();
        counts.covered = model.is_covered();
        counts.lost_acked = spread(ops);
        counts.loss_window_ms = spread(worst);
        counts.best_loss_window_ms = spread(best);
        if model.is_covered() {
            loss.worst_ops = loss.worst_ops.max(counts.lost_acked.map_or(0, |s| s.max as u64));
            loss.worst_ms = loss.worst_ms.max(counts.loss_window_ms.map_or(0.0, |s| s.max));
        }
    }
    crash.lost_acked_max = crash.lost_acked_max.max(loss.worst_ops);
    crash.loss_window_ms_max = crash.loss_window_ms_max.max(loss.worst_ms);
    if let Some(bound) = bound_ms.filter(|bound| loss.worst_ms > bound + 1e-6) {
        crash.lost_promised = crash.lost_promised.max(1);
        crash.findings.push(beyond(opener, &loss, bound));
    }
    power.loss = Some(loss);
    Ok(())
}

fn beyond(opener: &Opener<'_>, loss: &Loss, bound: f64) -> Finding {
    Finding {
        id: format!("{}#loss", opener.cell.id),
        verdict: Verdict::Lost,
        profile: "loss window".to_owned(),
        summary: format!(
            "a crash takes acknowledgements {:.1} ms old, and {} promises {bound:.1} ms at most",
            loss.worst_ms, opener.cell.sync.0
        ),
        replay: format!(
            "harness run {} --only power --subject {} --sync {}",
            opener.cell.plan.source, opener.cell.subject, opener.cell.sync.0
        ),
        models: Vec::new(),
        explanation: None,
    }
}

/// What the policy promises in milliseconds: the interval and the sync that ends it. Asked only of workloads
/// whose every write is held to the store's own policy.
fn bound(opener: &Opener<'_>, sync_ns: u64) -> Option<f64> {
    if opener.cell.level != "write" && opener.cell.level != "sync" || !opener.cell.plan.table_sync.is_empty() {
        return None;
    }
    match opener.cell.sync.0 {
        _ if opener.cell.level == "sync" => Some(0.0),
        SyncPolicy::Always => Some(0.0),
        SyncPolicy::Interval(d) => Some((d.as_nanos() as u64 + sync_ns) as f64 / 1e6),
        SyncPolicy::Never | SyncPolicy::Manual => None,
    }
}

/// Where the closing of the store begins: after the last request there is nothing left to crash.
fn closing(recording: &Recording) -> u64 {
    let works = recording.trace.marks.iter().filter(|(_, m)| *m == Mark::Work);
    works.map(|(at, _)| *at).max().unwrap_or(recording.trace.end)
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    Some(Spread { p50: at(0.5)?, p99: at(0.99)?, max: *values.last()? })
}

/// When each position of a trace was, in virtual time.
struct Times(BTreeMap<u64, u64>);

impl Times {
    fn new(trace: &Trace, sync_ns: u64) -> Self {
        // Position, and what happens to the time there.
        let mut events: Vec<(u64, Option<u64>)> = Vec::new();
        events
            .extend(trace.marks.iter().filter_map(|(at, m)| if let Mark::Time(ns) = m { Some((*at, Some(*ns))) } else { None }));
        events.extend(trace.calls.iter().filter(|c| c.op.is_sync()).filter_map(|c| c.ended).map(|at| (at, None)));
        events.sort_unstable();
        let mut now = 0;
        let step = |(at, to): (u64, Option<u64>)| {
            now = to.map_or(now + sync_ns, |ns| now.max(ns));
            (at, now)
        };
        Self(events.into_iter().map(step).collect())
    }

    fn at(&self, position: u64) -> u64 {
        self.0.range(..=position).next_back().map_or(0, |(_, ns)| *ns)
    }

    /// The first position that is later than a moment: a crash at this moment falls right before it.
    fn position(&self, moment: u64) -> u64 {
        self.0.iter().find(|(_, ns)| **ns > moment).map_or(u64::MAX, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{Call, Op};

    #[test]
    fn a_sync_takes_its_time() {
        let call = Call { op: Op::Sync { file: 0, data_only: true }, begun: 3, ended: Some(5), ok: true };
        let trace = Trace {
            calls: vec![call],
            marks: vec![(1, Mark::Time(100)), (7, Mark::Time(120)), (9, Mark::Time(500))],
            ..Trace::default()
        };
        let times = Times::new(&trace, 50);
        assert_eq!([0, 1, 4, 5, 7, 8, 9].map(|p| times.at(p)), [0, 100, 100, 150, 150, 150, 500]);
        // In the middle of the sync: the crash falls before its end.
        assert_eq!((times.position(120), times.position(150), times.position(999)), (5, 9, u64::MAX));
    }

    #[test]
    fn a_spread_is_read_off_sorted_values() {
        let s = spread((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((s.p50, s.p99, s.max), (50.0, 99.0, 100.0));
        assert_eq!(spread(Vec::new()), None);
    }
}
