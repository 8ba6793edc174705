//! Hub-heavy payment traffic: many payers, few hubs, payment channels opened, paid through and closed,
//! with the store calls that go-nitro makes for them.
//!
//! Funding a channel at the hub is five `SetObjective`s of four writes (objective, channel, both
//! ledgers); a payment reads and writes the voucher at the sender's and at the receiver's side;
//! closing is five `SetObjective`s of three writes. Upstream makes each write on its own, which leaves
//! half states after a crash; with `batch` each `SetObjective` is one atomic batch.

use super::random::{Rng, rng};
use super::stream::{Call, Meaning, OwnedChange, Stream, skewed, value};
use crate::result::Money;
use crate::subject::Contents;
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Parameters. Sizes are those measured on go-nitro's JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Hub {
    /// Hubs; few.
    pub hubs: u64,
    /// Payers; many. Each belongs to one client thread.
    pub payers: u64,
    /// Payees.
    pub payees: u64,
    /// Client threads.
    pub clients: u64,
    /// How unevenly hubs and payees are chosen: 0 evenly, 1 as Zipf has it.
    #[serde(default)]
    pub skew: f64,
    /// Payments through a channel after the first: 1 to this many.
    #[serde(default = "four")]
    pub payments: u64,
    /// Each `SetObjective` as one batch.
    #[serde(default)]
    pub batch: bool,
    /// Bytes of a voucher.
    #[serde(default = "voucher_bytes")]
    pub voucher_bytes: u64,
    /// Bytes of a channel's state.
    #[serde(default = "channel_bytes")]
    pub channel_bytes: u64,
    /// Bytes of an objective.
    #[serde(default = "objective_bytes")]
    pub objective_bytes: u64,
    /// Bytes of a ledger channel without guarantees.
    #[serde(default = "ledger_bytes")]
    pub ledger_bytes: u64,
}

fn four() -> u64 {
    4
}

fn voucher_bytes() -> u64 {
    390
}

fn channel_bytes() -> u64 {
    2_400
}

fn objective_bytes() -> u64 {
    1_500
}

fn ledger_bytes() -> u64 {
    1_000
}

/// Bytes that an open guarantee adds to a ledger channel.
const GUARANTEE_BYTES: u64 = 323;

/// The tables, named as go-nitro's files.
pub const TABLES: [&str; 5] = ["objectives", "channels", "consensus_channels", "channel_to_objective", "vouchers"];
const OBJECTIVES: usize = 0;
const CHANNELS: usize = 1;
const LEDGERS: usize = 2;
const OWNERS: usize = 3;
const VOUCHERS: usize = 4;

/// Steps of an objective at the hub.
const STEPS: u64 = 5;

/// The calls of one client in one round.
pub fn stream(spec: &Hub, level: Durability, seed: u64, round: u64, client: u64) -> Stream {
    let mut client = Client {
        spec: spec.clone(),
        level,
        rng: rng(seed, &[round, client]),
        round,
        client,
        number: 0,
        channels: 0,
        ready: VecDeque::new(),
    };
    Box::new(std::iter::from_fn(move || {
        while client.ready.is_empty() {
            client.channel();
        }
        client.ready.pop_front()
    }))
}

struct Client {
    spec: Hub,
    level: Durability,
    rng: Rng,
    round: u64,
    client: u64,
    number: u64,
    channels: u64,
    ready: VecDeque<Call>,
}

/// The parties and names of one payment channel.
struct Channel {
    id: String,
    left: String,
    right: String,
}

impl Client {
    /// The whole life of one channel.
    fn channel(&mut self) {
        let own = (self.spec.payers / self.spec.clients.max(1)).max(1);
        let payer = self.client + self.spec.clients * self.rng.random_range(0..own);
        let hub = skewed(&mut self.rng, self.spec.hubs.max(1), self.spec.skew);
        let payee = skewed(&mut self.rng, self.spec.payees.max(1), self.spec.skew);
        self.channels += 1;
        let channel = Channel {
            id: format!("0x{:08x}{:04x}{:04x}{:048x}", self.round, self.client, payer, self.channels),
            left: format!("h{hub}-p{payer}"),
            right: format!("h{hub}-q{payee}-c{}", self.client),
        };
        for step in 1..=STEPS {
            self.objective("open", "fund", &channel, step, 1);
        }
        for _ in 0..=self.rng.random_range(1..=self.spec.payments.max(1)) {
            self.pay(&channel);
        }
        for step in 1..=STEPS {
            self.objective("close", "defund", &channel, step, 0);
        }
        for side in ["payer", "payee"] {
            let call = Call::write("close", self.level, VOUCHERS, format!("{}-{side}", channel.id), None);
            self.ready.push_back(call);
        }
        self.end_operation();
    }

    /// One `SetObjective`, with the ownership that goes with its first and last steps.
    fn objective(&mut self, op: &'static str, kind: &str, channel: &Channel, step: u64, guarantees: u64) {
        let id = format!("{kind}-{}", channel.id);
        let ledger = self.spec.ledger_bytes + guarantees * GUARANTEE_BYTES;
        let mut changes = vec![self.put(OBJECTIVES, &id, &format!("{kind}-{step}"), self.spec.objective_bytes)];
        if kind == "fund" {
            changes.push(self.put(CHANNELS, &channel.id, &format!("{kind}-{step}"), self.spec.channel_bytes));
        }
        changes.push(self.put(LEDGERS, &channel.left, &format!("{kind}-{step}"), ledger));
        changes.push(self.put(LEDGERS, &channel.right, &format!("{kind}-{step}"), ledger));
        // Approved from the second step on: then the objective owns its channel, until it is complete.
        if step == 2 {
            changes.push(self.put(OWNERS, &channel.id, kind, 80));
        }
        if step == STEPS {
            changes.push(OwnedChange { table: OWNERS, key: channel.id.clone(), value: None });
        }
        if self.spec.batch {
            self.ready.push_back(Call::batch(op, self.level, changes).meaning(Meaning::Objective));
        } else {
            for change in changes {
                let call = Call::batch(op, self.level, vec![change]).meaning(Meaning::Objective);
                self.ready.push_back(call);
            }
        }
        if step == STEPS && kind == "fund" {
            self.end_operation();
        }
    }

    fn pay(&mut self, channel: &Channel) {
        let wei = 1_000 + self.rng.random_range(0..1_000);
        for side in ["payer", "payee"] {
            let key = format!("{}-{side}", channel.id);
            self.ready.push_back(Call::get("pay", VOUCHERS, key.clone()));
            let change = self.put(VOUCHERS, &key, &format!("voucher-{wei}"), self.spec.voucher_bytes);
            let meaning = if side == "payee" { Meaning::Voucher { wei } } else { Meaning::None };
            self.ready.push_back(Call::batch("pay", self.level, vec![change]).meaning(meaning));
        }
        self.end_operation();
    }

    fn end_operation(&mut self) {
        if let Some(call) = self.ready.back_mut() {
            call.last = true;
        }
    }

    fn put(&mut self, table: usize, key: &str, tag: &str, size: u64) -> OwnedChange {
        self.number += 1;
        let text = value(tag, self.round, self.client, self.number, size as usize);
        OwnedChange { table, key: key.to_owned(), value: Some(text) }
    }
}

/// Reads half states and worthless vouchers off a recovered store, by the crash points of the source.
///
/// c1: an objective and its channel are at different steps. c5: an objective that was never approved.
/// c7: an approved objective that does not own its channel. (c2, c3, c4 and c8 need messages, the chain
/// or direct funding, which this workload does not have; c6 is counted from the history.)
pub fn half_states(contents: &Contents, money: &mut Money) {
    let step = |text: &str| {
        text.split('|').next().and_then(|tag| tag.rsplit_once('-')).map(|(kind, n)| (kind.to_owned(), n.parse().unwrap_or(0u64)))
    };
    let table = |n: usize| contents.get(n);
    for (id, objective) in table(OBJECTIVES).into_iter().flatten() {
        let (Some((kind, at)), Some((_, channel_id))) = (step(objective), id.split_once('-')) else { continue };
        let mut count = |state: &str| *money.half_states.entry(state.to_owned()).or_default() += 1;
        let channel = table(CHANNELS).and_then(|t| t.get(channel_id)).and_then(|text| step(text));
        if kind == "fund" && channel.is_none_or(|(_, n)| n != at) {
            count("c1");
        }
        if at == 1 {
            count("c5");
        }
        let owned = table(OWNERS).is_some_and(|t| t.contains_key(channel_id));
        if (2..STEPS).contains(&at) && !owned {
            count("c7");
        }
    }
    for key in table(VOUCHERS).into_iter().flatten().map(|(key, _)| key) {
        let channel = key.rsplit_once('-').map_or(key.as_str(), |(channel, _)| channel);
        let funded = table(CHANNELS).and_then(|t| t.get(channel)).and_then(|text| step(text)).is_some_and(|(_, n)| n == STEPS);
        if key.ends_with("payee") && !funded {
            money.vouchers_unredeemable += 1;
        }
    }
}
