//! Which processor and which disk explain the published figures.

use super::outcome::{Outcome, published_ns};
use super::simulated::run_virtual;
use super::spec::{Simulated, TtfpError, TtfpSpec};
use crate::subject::Subject;
use engine::SyncPolicy;
use serde::{Deserialize, Serialize};

/// Two numbers fitted to two published figures, and the third figure that they predict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// Processor time for each message, fitted to the figure of `never`.
    pub cpu_per_message_us: u64,
    /// Latency of a sync, fitted to the figure of `always`.
    pub sync_latency_us: u64,
    /// Time to first payment under `never` on that machine.
    pub never_ms: f64,
    /// Time to first payment under `every-second` on that machine; nothing was fitted to it.
    pub every_second_ms: f64,
    /// Time to first payment under `always` on that machine.
    pub always_ms: f64,
}

/// No message takes longer than this, and no sync.
const MOST_US: u64 = 50_000;

/// Fits processor and disk, in virtual time, in the published setting: one hub, two payers with three
/// jobs each, five payees, bug for bug. Taken from `spec` are the kind of disk, the duration and the seed.
pub fn fit(spec: &TtfpSpec, subject: &dyn Subject) -> Result<Fitted, TtfpError> {
    let machine = spec.simulated.clone().unwrap_or_default();
    let published = TtfpSpec { bug_compatible: true, seed: spec.seed, ..TtfpSpec::default() };
    let run = |sync, cpu_per_message_us, sync_latency_us| -> Result<Outcome, TtfpError> {
        let simulated = Some(Simulated { cpu_per_message_us, sync_latency_us, ..machine.clone() });
        run_virtual(&TtfpSpec { simulated, ..published.clone() }, subject, sync)
    };
    let cpu = closest(SyncPolicy::Never, |cpu| run(SyncPolicy::Never, cpu, 0))?;
    let sync = closest(SyncPolicy::Always, |sync| run(SyncPolicy::Always, cpu, sync))?;
    let ms = |policy| run(policy, cpu, sync).map(|outcome| outcome.mean_ns() / 1e6);
    Ok(Fitted {
        cpu_per_message_us: cpu,
        sync_latency_us: sync,
        never_ms: ms(SyncPolicy::Never)?,
        every_second_ms: ms(SyncPolicy::EVERY_SECOND)?,
        always_ms: ms(SyncPolicy::Always)?,
    })
}

/// The number of microseconds that comes closest to the figure published for a policy, by bisection. The
/// figure does not rise evenly, so the best of all that were tried counts, not the last.
fn closest(policy: SyncPolicy, run: impl Fn(u64) -> Result<Outcome, TtfpError>) -> Result<u64, TtfpError> {
    let target = published_ns(policy).unwrap_or(0) as f64;
    let (mut low, mut high) = (0, MOST_US);
    let mut best = (f64::INFINITY, high);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        let mean = run(middle)?.mean_ns();
        if (mean - target).abs() < best.0 {
            best = ((mean - target).abs(), middle);
        }
        if mean < target { low = middle } else { high = middle }
    }
    Ok(best.1)
}
