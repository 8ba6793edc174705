//! `bench` cells: what the repetitions of a cell say together.

use crate::measure::histogram::{Latencies, median};
use crate::result::{Bench, Counters, OpStats, Phase, Space};
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
    Bench { repetitions: repetitions.len() as u64, threads, phases: phases.collect() }
}

fn merge_phase(samples: &[&PhaseSample]) -> Phase {
    let middle = |of: &dyn Fn(&PhaseSample) -> u64| median(&samples.iter().map(|s| of(s) as f64).collect::<Vec<_>>()) as u64;
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
