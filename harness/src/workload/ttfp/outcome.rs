//! What a run found, and how it is checked and shown.

use super::spec::{Simulated, TtfpSpec};
use crate::measure::histogram::{Latencies, median};
use crate::result::{Model, ModelCheck, Ttfp};
use engine::SyncPolicy;
use serde::{Deserialize, Serialize};

/// Everything that a run found. Outcomes of repetitions can be merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// One for each channel, in the order of their first payments.
    pub samples: Vec<Sample>,
    /// Payments made.
    pub payments: u64,
    /// Messages that parties took, from each other and from the programs that use them.
    pub messages: u64,
    /// Acknowledged changes of all stores.
    pub writes: u64,
    /// Syncs of files and directories, all stores.
    pub syncs: u64,
    /// What the syncs of files took, all together, with what they waited for each other.
    pub sync_ns: u64,
    /// Bytes that all stores wrote.
    pub bytes: u64,
    /// Share of the time that the busiest hub was at work.
    pub hub_busy: f64,
    /// How long each message waited until a hub took it, in nanoseconds.
    pub hub_waits_ns: Vec<u64>,
    /// From the first tick's clock to the last message.
    pub wall_ns: u64,
    /// The modelled machine of a run in virtual time.
    pub simulated: Option<Simulated>,
}

/// The time to first payment of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which payer, from zero.
    pub payer: u32,
    /// From the wish to open the channel to the first payment.
    pub ttfp_ns: u64,
    /// Syncs on the path: those done at each party of the chain of messages that ended in the channel
    /// being open, from the arrival of the chain's message to the departure of its answer. The chain
    /// is followed backwards from the message that completed the objective at the payer. In virtual
    /// time a sync that was under way on arrival counts by what was left of it.
    pub syncs: f64,
}

impl Outcome {
    /// The distribution of times to first payment.
    pub fn ttfp(&self) -> Latencies {
        let mut latencies = Latencies::default();
        self.samples.iter().for_each(|s| latencies.record(s.ttfp_ns));
        latencies
    }

    /// Mean time to first payment of each payer that opened a channel, by payer.
    pub fn payer_means_ns(&self) -> Vec<f64> {
        let mut sums = std::collections::BTreeMap::<u32, (f64, f64)>::new();
        for sample in &self.samples {
            let (sum, n) = sums.entry(sample.payer).or_default();
            *sum += sample.ttfp_ns as f64;
            *n += 1.0;
        }
        sums.values().map(|(sum, n)| sum / n).collect()
    }

    /// Mean of the payers' means: the figure that the source published.
    pub fn mean_ns(&self) -> f64 {
        mean(self.payer_means_ns().into_iter())
    }

    /// Median time to first payment.
    pub fn median_ns(&self) -> f64 {
        median(&self.samples.iter().map(|s| s.ttfp_ns as f64).collect::<Vec<_>>())
    }

    /// Mean over channels of the syncs on the path.
    pub fn syncs_on_path(&self) -> f64 {
        mean(self.samples.iter().map(|s| s.syncs))
    }

    /// What a sync took in this run, mean; zero when there was none. On a disk that is shared this is
    /// more than the disk's latency when idle.
    pub fn mean_sync_ns(&self) -> u64 {
        self.sync_ns.checked_div(self.syncs).unwrap_or(0)
    }

    /// Adds a repetition of the same run.
    pub fn merge(&mut self, other: Outcome) {
        let time = |a: f64, wall: u64| a * wall as f64;
        let wall_ns = self.wall_ns + other.wall_ns;
        if wall_ns > 0 {
            self.hub_busy = (time(self.hub_busy, self.wall_ns) + time(other.hub_busy, other.wall_ns)) / wall_ns as f64;
        }
        self.wall_ns = wall_ns;
        self.samples.extend(other.samples);
        self.hub_waits_ns.extend(other.hub_waits_ns);
        self.payments += other.payments;
        self.messages += other.messages;
        self.writes += other.writes;
        self.syncs += other.syncs;
        self.sync_ns += other.sync_ns;
        self.bytes += other.bytes;
        self.simulated = self.simulated.take().or(other.simulated);
    }

    /// As a report shows it. The check of a single job is the caller's to add.
    pub fn to_result(&self, spec: &TtfpSpec, sync: SyncPolicy) -> Ttfp {
        let p = self.ttfp().percentiles();
        let mut waits = Latencies::default();
        self.hub_waits_ns.iter().for_each(|&ns| waits.record(ns));
        Ttfp {
            count: self.samples.len() as u64,
            p50: p.p50,
            p99: p.p99,
            mean: self.mean_ns(),
            curve: p.curve,
            syncs_on_path: self.syncs_on_path(),
            hub_busy: self.hub_busy,
            hub_queue_p99: if waits.count() > 0 { waits.quantile(0.99) } else { 0 },
            model: self.simulated.as_ref().map(|s| Model {
                cpu_per_message_ns: s.cpu_per_message_us * 1_000,
                sync_latency_ns: s.sync_latency_us * 1_000,
                message_latency_ns: spec.message_latency_us * 1_000,
                fitted: Vec::new(),
            }),
            check: None,
            published_ns: spec.is_published_setting().then(|| published_ns(sync)).flatten(),
        }
    }
}

/// What go-nitro's ADR published for this policy, as the mean of the payers' means.
pub fn published_ns(sync: SyncPolicy) -> Option<u64> {
    match sync {
        SyncPolicy::Never => Some(84_100_000),
        SyncPolicy::EVERY_SECOND => Some(86_500_000),
        SyncPolicy::Always => Some(247_000_000),
        _ => None,
    }
}

/// Compares what `always` adds to the time to first payment with what its syncs should take. Meaningful
/// for a single job of a single payer: with more, messages queue at the hub for longer than they sync.
/// `sync_ns` is best taken from the run itself, see [`Outcome::mean_sync_ns`].
pub fn check(never: &Outcome, always: &Outcome, sync_ns: u64) -> ModelCheck {
    ModelCheck {
        expected_ns: (always.syncs_on_path() - never.syncs_on_path()) * sync_ns as f64,
        observed_ns: always.median_ns() - never.median_ns(),
    }
}

/// Zero for no values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    if n == 0.0 { 0.0 } else { sum / n }
}
