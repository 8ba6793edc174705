//! `bench` cells: what the repetitions of a cell say together, and whether that is what the scenario demands.

use crate::measure::histogram::{Latencies, median};
use crate::result::{Bench, Counters, Criterion, Metric, OpStats, Phase, Projection, Space, Whole};
use crate::scenario::CriterionPlan;
use crate::workload::growth;
use crate::workload::outcome::{PhaseSample, Repetition};
use std::collections::BTreeMap;

/// All repetitions of a cell as one result: medians for what a repetition has once, merged histograms
/// for what it has often.
pub fn merge(repetitions: &[Repetition], threads: u64) -> Bench {
    let first = repetitions.first().map_or(&[][..], |r| &r.phases[..]);
    let phases = first.iter().map(|phase| {
        let samples: Vec<&PhaseSample> =
            repetitions.iter().filter_map(|r| r.phases.iter().find(|p| p.name == phase.name)).collect();
        merge_phase(&samples)
    });
    Bench {
        repetitions: repetitions.len() as u64,
        threads,
        phases: phases.collect(),
        whole: (!repetitions.is_empty()).then(|| merge_whole(repetitions)),
        projections: merge_projections(repetitions),
    }
}

fn merge_whole(repetitions: &[Repetition]) -> Whole {
    let middle = |of: fn(&Whole) -> u64| middle(repetitions, |r| of(&r.whole));
    Whole { device_bytes: middle(|w| w.device_bytes), cpu_ns: middle(|w| w.cpu_ns), rss_peak: middle(|w| w.rss_peak) }
}

/// The median of a figure that each of them has.
fn middle<T>(all: &[T], of: impl Fn(&T) -> u64) -> u64 {
    median(&all.iter().map(|one| of(one) as f64).collect::<Vec<_>>()) as u64
}

/// Holds what was measured to what the scenario demands. A figure that is missing holds nothing.
pub fn judge(bench: &Bench, criteria: &[CriterionPlan], live_bytes: Option<u64>) -> Vec<Criterion> {
    let judged = criteria.iter().map(|plan| {
        let phase = bench.phases.iter().find(|phase| phase.name == plan.phase);
        let projection = bench.projections.iter().find(|projection| projection.name == plan.phase);
        let found = match plan.metric {
            Metric::Projected | Metric::PredictionError => projection.and_then(|p| projected(p, plan.metric)),
            metric => phase.and_then(|phase| figure(phase, metric, live_bytes)),
        };
        let within =
            |found: f64| plan.at_least.is_none_or(|least| found >= least) && plan.at_most.is_none_or(|most| found <= most);
        Criterion {
            says: plan.says.clone(),
            phase: plan.phase.clone(),
            metric: plan.metric,
            at_least: plan.at_least,
            at_most: plan.at_most,
            found,
            holds: found.is_some_and(within),
        }
    });
    judged.collect()
}

/// The projections of all repetitions, each as one.
fn merge_projections(repetitions: &[Repetition]) -> Vec<Projection> {
    let first = repetitions.first().map_or(&[][..], |r| &r.projections[..]);
    let of = |name: &str| repetitions.iter().flat_map(|r| &r.projections).filter(|p| p.name == name).collect::<Vec<_>>();
    first.iter().filter_map(|projection| growth::merge(&of(&projection.name))).collect()
}

fn projected(projection: &Projection, metric: Metric) -> Option<f64> {
    if metric == Metric::Projected {
        return projection.predicted.last().map(|point| point.value);
    }
    let at = |bytes: u64| projection.predicted.iter().find(|p| p.bytes == bytes).map(|p| p.value);
    let errors: Option<Vec<f64>> = projection.measured.iter().map(|m| Some((at(m.bytes)? - m.value).abs() / m.value)).collect();
    errors?.into_iter().reduce(f64::max)
}

fn figure(phase: &Phase, metric: Metric, live_bytes: Option<u64>) -> Option<f64> {
    let worst = |of: &dyn Fn(&OpStats) -> Option<u64>| {
        // Work beside the operations has no time at which it was due, and is no operation then.
        let is_due = phase.ops.values().any(|op| op.response.is_some());
        let of_all: Option<Vec<u64>> = phase.ops.values().filter(|op| op.response.is_some() || !is_due).map(of).collect();
        of_all?.into_iter().max().map(|ns| ns as f64 / 1e6)
    };
    match metric {
        Metric::Rate => phase.throughput_samples.iter().copied().reduce(f64::min),
        Metric::ServiceP99Ms => worst(&|op| op.service.p99),
        Metric::ResponseP99Ms => worst(&|op| op.response.as_ref()?.p99),
        Metric::SpaceRatio => Some(phase.space.as_ref()?.allocated as f64 / live_bytes? as f64),
        Metric::PeakMib => Some(phase.counters.rss_peak as f64 / f64::from(1 << 20)),
        Metric::Seconds => Some(phase.duration_ns as f64 / 1e9),
        Metric::Projected | Metric::PredictionError => None,
    }
}

fn merge_phase(samples: &[&PhaseSample]) -> Phase {
    let middle = |of: &dyn Fn(&PhaseSample) -> u64| middle(samples, |s| of(s));
    let throughput: Vec<f64> = samples.iter().map(|s| s.operations as f64 * 1e9 / s.duration_ns.max(1) as f64).collect();
    let mut ops: BTreeMap<String, (Latencies, Option<Latencies>, u64)> = BTreeMap::new();
    for sample in samples {
        for (name, op) in &sample.ops {
            let total = ops.entry(name.clone()).or_default();
            total.0.merge(&Latencies::from(&op.service));
            if let Some(response) = &op.response {
                total.1.get_or_insert_default().merge(&Latencies::from(response));
            }
            total.2 += op.errors;
        }
    }
    let stats = |(service, response, errors): (Latencies, Option<Latencies>, u64)| OpStats {
        count: service.count(),
        errors,
        service: service.percentiles(),
        response: response.map(|r| r.percentiles()),
    };
    let first = samples.first();
    Phase {
        name: first.map_or(String::new(), |s| s.name.clone()),
        duration_ns: middle(&|s| s.duration_ns),
        operations: middle(&|s| s.operations),
        throughput_per_s: median(&throughput),
        throughput_samples: throughput,
        ops: ops.into_iter().map(|(name, op)| (name, stats(op))).collect(),
        ttfp: first.and_then(|s| s.ttfp.clone()),
        counters: Counters {
            syncs: middle(&|s| s.syncs),
            writes: middle(&|s| s.writes),
            calls: middle(&|s| s.calls),
            bytes_written: middle(&|s| s.bytes_written),
            device_bytes: middle(&|s| s.device_bytes),
            cpu_user_ns: middle(&|s| s.cpu_user_ns),
            cpu_system_ns: middle(&|s| s.cpu_system_ns),
            rss_peak: middle(&|s| s.rss_peak),
            rss_end: middle(&|s| s.rss_end),
        },
        space: first.filter(|s| s.space.is_some()).map(|_| Space {
            apparent: middle(&|s| s.space.map_or(0, |x| x.0)),
            allocated: middle(&|s| s.space.map_or(0, |x| x.1)),
            apparent_after_shrink: first.and_then(|s| s.shrunk).map(|_| middle(&|s| s.shrunk.unwrap_or(0))),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Percentiles, Point};

    fn bench() -> Bench {
        let p99 = |ms: u64| Percentiles { p99: Some(ms * 1_000_000), ..Percentiles::default() };
        let op = |service, response| OpStats { service: p99(service), response: Some(p99(response)), ..OpStats::default() };
        let phase = Phase {
            name: "run".into(),
            duration_ns: 2_000_000_000,
            throughput_samples: vec![300.0, 100.0, 200.0],
            ops: [("read".to_owned(), op(1, 2)), ("update".to_owned(), op(3, 9))].into(),
            counters: Counters { rss_peak: 64 << 20, ..Counters::default() },
            space: Some(Space { allocated: 1_300, ..Space::default() }),
            ..Phase::default()
        };
        Bench { phases: vec![phase], ..Bench::default() }
    }

    fn judged(metric: Metric, at_least: Option<f64>, at_most: Option<f64>) -> Criterion {
        let plan = CriterionPlan { says: "x".into(), phase: "run".into(), metric, at_least, at_most };
        judge(&bench(), &[plan], Some(1_000)).remove(0)
    }

    #[test]
    fn a_criterion_is_held_to_the_worst_figure() {
        let found = |metric| judged(metric, Some(0.0), None).found;
        assert_eq!(found(Metric::Rate), Some(100.0));
        assert_eq!(found(Metric::ServiceP99Ms), Some(3.0));
        assert_eq!(found(Metric::ResponseP99Ms), Some(9.0));
        assert_eq!(found(Metric::SpaceRatio), Some(1.3));
        assert_eq!(found(Metric::PeakMib), Some(64.0));
        assert_eq!(found(Metric::Seconds), Some(2.0));
    }

    #[test]
    fn a_criterion_holds_up_to_its_bounds() {
        assert!(judged(Metric::Rate, Some(100.0), None).holds && !judged(Metric::Rate, Some(101.0), None).holds);
        assert!(judged(Metric::SpaceRatio, None, Some(1.3)).holds && !judged(Metric::SpaceRatio, None, Some(1.2)).holds);
        assert!(!judged(Metric::PeakMib, Some(1.0), Some(63.0)).holds);
    }

    #[test]
    fn a_projection_is_held_to_its_end_and_to_what_was_measured() {
        let points = |values: [f64; 3]| values.iter().zip([10, 20, 1_000]).map(|(v, bytes)| Point { bytes, value: *v }).collect();
        let mut measured: Vec<Point> = points([4.0, 5.0, 0.0]);
        measured.truncate(2);
        let projection =
            Projection { name: "run".into(), measured, predicted: points([4.4, 4.5, 29.0]), ..Projection::default() };
        let bench = Bench { projections: vec![projection], ..bench() };
        let found = |metric| {
            let plan = CriterionPlan { says: "x".into(), phase: "run".into(), metric, at_least: None, at_most: Some(30.0) };
            judge(&bench, &[plan], None).remove(0).found.unwrap()
        };
        assert!((found(Metric::Projected) - 29.0).abs() < 1e-9 && (found(Metric::PredictionError) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let plan = |phase: &str, metric| CriterionPlan {
            says: "x".into(),
            phase: phase.into(),
            metric,
            at_least: Some(0.0),
            at_most: None,
        };
        let mut bench = bench();
        bench.phases[0].ops.values_mut().for_each(|op| op.response = None);
        bench.phases[0].space = None;
        let plans = [plan("elsewhere", Metric::Rate), plan("run", Metric::ResponseP99Ms), plan("run", Metric::SpaceRatio)];
        assert!(judge(&bench, &plans, Some(1_000)).iter().all(|c| c.found.is_none() && !c.holds));
    }
}
