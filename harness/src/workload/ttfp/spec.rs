//! What can be asked of the workload, and what is refused.

use super::books::TABLES;
use crate::subject::{SubjectError, SyncPolicyText, Table};
use engine::SyncPolicy;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Parameters; the defaults are those of the source's published run, with one minute cut to ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TtfpSpec {
    /// Intermediaries. Everybody has a ledger channel with each.
    pub hubs: u32,
    /// Who opens channels.
    pub payers: u32,
    /// Who is paid.
    pub payees: u32,
    /// Channels that one payer has under way at a time.
    pub jobs: u32,
    /// How long payers start new channels, on the real disk.
    pub duration_ms: u64,
    /// Delay of a message.
    pub message_latency_us: u64,
    /// Most that the delay deviates, either way.
    pub jitter_us: u64,
    /// Fewest payments of a channel after the first.
    pub more_payments_min: u32,
    /// Most payments of a channel after the first.
    pub more_payments_max: u32,
    /// Pause between the last payment and closing.
    pub hold_ms: u64,
    /// A payer starts at most one channel in this time.
    pub tick_ms: u64,
    /// Payers begin at random moments of this stretch; zero makes them move in step.
    pub stagger_ms: u64,
    /// How often a payer looks whether its channel is open; zero means that it is told at once.
    pub poll_us: u64,
    /// As the source behaved: ownership of channels is never synced, and reloaded virtual defunds of
    /// the ends write one consensus channel too many.
    pub bug_compatible: bool,
    /// Vouchers are kept in the store, as the source did later.
    pub persist_vouchers: bool,
    /// An objective and its channels are written as one atomic batch.
    pub batch: bool,
    /// The loop syncs once for each message, before answers leave. Needs the policy `manual`.
    pub sync_at_end: bool,
    /// Policies of single tables.
    pub per_store: BTreeMap<String, SyncPolicyText>,
    /// Virtual time instead of real threads and disk.
    #[serde(rename = "virtual", skip_serializing_if = "Option::is_none")]
    pub simulated: Option<Simulated>,
    /// Same seed, same choices.
    pub seed: u64,
}

/// The modelled machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Simulated {
    /// Processor time for each message.
    pub cpu_per_message_us: u64,
    /// What a sync takes on an idle disk.
    pub sync_latency_us: u64,
    /// Whether syncs of different parties wait for each other.
    pub disk: Disk,
    /// How long payers start new channels.
    pub duration_ms: u64,
    /// First fits processor time and sync latency to the published figures of `never` and `always`;
    /// the two numbers given here then do not count.
    pub fit: bool,
}

/// What happens to syncs that meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// One after the other, in order of arrival.
    Shared,
    /// Beside each other, as a journal that commits for many at once comes close to.
    #[default]
    Parallel,
}

impl Default for TtfpSpec {
    fn default() -> Self {
        Self {
            hubs: 1,
            payers: 2,
            payees: 5,
            jobs: 3,
            duration_ms: 10_000,
            message_latency_us: 10_000,
            jitter_us: 1_000,
            more_payments_min: 1,
            more_payments_max: 4,
            hold_ms: 250,
            tick_ms: 50,
            stagger_ms: 50,
            poll_us: 500,
            bug_compatible: false,
            persist_vouchers: false,
            batch: false,
            sync_at_end: false,
            per_store: BTreeMap::new(),
            simulated: None,
            seed: 1,
        }
    }
}

impl Default for Simulated {
    fn default() -> Self {
        Self { cpu_per_message_us: 1_000, sync_latency_us: 1_000, disk: Disk::default(), duration_ms: 60_000, fit: false }
    }
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum TtfpError {
    /// The parameters make no sense.
    #[error("ttfp: {0}")]
    Spec(String),
    /// A party's store failed.
    #[error("ttfp: the store of party {party}: {source}")]
    Store {
        /// Hubs come first, then payers, then payees.
        party: u32,
        /// What it said.
        source: SubjectError,
    },
    /// Messages ran out, or time did, with channels half open.
    #[error("ttfp: {open} channels neither opened nor closed to the end")]
    Stuck {
        /// Channels still under way.
        open: usize,
    },
    /// No channel was opened in the time given.
    #[error("ttfp: no channel was opened; the duration is shorter than the first tick")]
    Nothing,
}

impl TtfpSpec {
    /// Whether the parameters make sense, together with the policy of the stores.
    pub fn validate(&self, sync: SyncPolicy) -> Result<(), TtfpError> {
        let refuse = |what: String| Err(TtfpError::Spec(what));
        for (name, n) in [("hubs", self.hubs), ("payers", self.payers), ("payees", self.payees), ("jobs", self.jobs)] {
            if !(1..=100_000).contains(&n) {
                return refuse(format!("`{name}` is {n}, not between 1 and 100000"));
            }
        }
        const DAY_MS: u64 = 86_400_000;
        let simulated = self.simulated.clone().unwrap_or_default();
        let times = [
            ("duration-ms", self.duration_ms),
            ("virtual.duration-ms", simulated.duration_ms),
            ("message-latency-us", self.message_latency_us / 1000),
            ("hold-ms", self.hold_ms),
            ("tick-ms", self.tick_ms),
            ("stagger-ms", self.stagger_ms),
            ("poll-us", self.poll_us / 1000),
            ("virtual.cpu-per-message-us", simulated.cpu_per_message_us / 1000),
            ("virtual.sync-latency-us", simulated.sync_latency_us / 1000),
        ];
        if let Some((name, _)) = times.iter().find(|(_, ms)| *ms > DAY_MS) {
            return refuse(format!("`{name}` is longer than a day"));
        }
        if self.tick_ms == 0 {
            return refuse("`tick-ms` is zero".into());
        }
        if self.jitter_us > self.message_latency_us {
            return refuse("`jitter-us` exceeds `message-latency-us`: messages would arrive before they are sent".into());
        }
        if self.more_payments_min > self.more_payments_max || self.more_payments_max > 10_000 {
            return refuse("`more-payments-min` to `more-payments-max` is no range below 10000".into());
        }
        if let Some(name) = self.per_store.keys().find(|name| !TABLES.contains(&name.as_str())) {
            let hint = crate::hint::did_you_mean(name, TABLES.iter().copied());
            return refuse(format!("`per-store` names no table {name:?}{hint}"));
        }
        if self.sync_at_end && sync != SyncPolicy::Manual {
            return refuse(format!("`sync-at-end` needs the policy manual, not {sync}"));
        }
        Ok(())
    }

    /// The tables of every party's store, with their own policies.
    pub fn tables(&self) -> Vec<Table> {
        let policy = |name: &str| {
            let ownership_bug = self.bug_compatible && name == "chan_to_obj";
            self.per_store.get(name).copied().or(ownership_bug.then_some(SyncPolicyText(SyncPolicy::Never)))
        };
        TABLES.iter().map(|name| Table { name: (*name).to_owned(), sync: policy(name) }).collect()
    }

    /// How many parties there are.
    pub(super) fn parties(&self) -> u32 {
        self.hubs + self.payers + self.payees
    }

    /// Whether these are the parties and the network of the published run.
    pub(super) fn is_published_setting(&self) -> bool {
        let of = |s: &Self| (s.hubs, s.payers, s.payees, s.jobs, s.message_latency_us, s.jitter_us, s.hold_ms, s.tick_ms);
        let variant = self.batch || self.persist_vouchers || self.sync_at_end || !self.per_store.is_empty();
        of(self) == of(&Self::default()) && !variant
    }

    /// A stream of random numbers for one purpose.
    pub(super) fn random(&self, purpose: Purpose) -> Pcg64Mcg {
        let part = match purpose {
            Purpose::Network => 1,
            Purpose::Maintenance => 2,
            Purpose::Payer(i) => 3 + u64::from(i),
        };
        Pcg64Mcg::seed_from_u64(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What random numbers are drawn for: each has a stream of its own, so that a change in one leaves the
/// others as they were.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Network,
    Maintenance,
    Payer(u32),
}
