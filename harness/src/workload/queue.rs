//! Producers and consumers of one queue, for crashes and for measuring: one to one, many to many, bursts, slow consumers
//! with a growing backlog, batches, the outbox of a hub.

use super::random::{Rng, rng};
use super::stream::{Call, Stream, value};
use crate::subject::{End, Half};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Queue {
    /// Clients that put entries in.
    pub producers: u64,
    /// Clients that take entries out. Where there are none, the producers do that in between.
    pub consumers: u64,
    /// Whether producers and consumers are two processes, for kills.
    #[serde(default)]
    pub two_processes: bool,
    /// Bytes of an entry at most; of all, if `size` is `fixed`.
    pub value_bytes: u64,
    /// Whether entries are all as long as they may be.
    #[serde(default)]
    pub fixed: bool,
    /// Entries of a batch at most.
    #[serde(default = "one")]
    pub batch: u64,
    /// Batches among the pushes, in per cent.
    #[serde(default)]
    pub batch_percent: u64,
    /// Pushes to the front, in per cent.
    #[serde(default)]
    pub front_percent: u64,
    /// Pops among the calls of a producer, in per cent.
    #[serde(default)]
    pub pop_percent: u64,
    /// Pops that are handed out first and acknowledged in a later call of the client, in per cent.
    #[serde(default)]
    pub acknowledged_percent: u64,
    /// Calls that are only buffered, in per cent.
    #[serde(default)]
    pub async_percent: u64,
    /// Calls that wait for the device, in per cent.
    #[serde(default)]
    pub sync_percent: u64,
}

fn one() -> u64 {
    1
}

/// Where entries stand in a result.
pub const TABLES: [&str; 1] = ["queue"];

impl Queue {
    /// Client threads.
    pub fn clients(&self) -> u64 {
        (self.producers + self.consumers).max(1)
    }
}

impl Queue {
    /// The clients of a half.
    pub fn half(&self, half: Half) -> Range<u64> {
        match half {
            Half::Producer => 0..self.producers,
            Half::Consumer => self.producers..self.clients(),
        }
    }
}

/// The calls of one client in one round: producers come first.
pub fn stream(spec: &Queue, seed: u64, round: u64, client: u64) -> Stream {
    let mut client = Client { spec: spec.clone(), rng: rng(seed, &[round, client]), round, client, number: 0, held: 0 };
    Box::new(std::iter::from_fn(move || Some(client.next_call())))
}

struct Client {
    spec: Queue,
    rng: Rng,
    round: u64,
    client: u64,
    number: u64,
    /// Calls that handed something out, if there was anything, and are to be acknowledged.
    held: u64,
}

impl Client {
    fn next_call(&mut self) -> Call {
        let consumes = self.client >= self.spec.producers.max(1) || self.draws(self.spec.pop_percent);
        let level = self.level();
        if consumes {
            // What was handed out is mostly acknowledged next, and sometimes after more was handed out.
            if self.held > 0 && self.draws(80) {
                self.held -= 1;
                return Call::acknowledge("acknowledge", level).ends();
            }
            if self.draws(self.spec.acknowledged_percent) {
                self.held += 1;
                return Call::hold("hold").ends();
            }
            return Call::pop("pop", level, false).ends();
        }
        let end = if self.draws(self.spec.front_percent) { End::Front } else { End::Back };
        let batched = self.spec.batch > 1 && self.draws(self.spec.batch_percent);
        let count = if batched { self.rng.random_range(2..=self.spec.batch) } else { 1 };
        let values = (0..count).map(|_| self.value()).collect();
        Call::push(if count > 1 { "push-batch" } else { "push" }, level, values, end).ends()
    }

    fn value(&mut self) -> String {
        self.number += 1;
        let most = self.spec.value_bytes;
        let size = if self.spec.fixed { most } else { self.rng.random_range(0..=most) };
        value("item", self.round, self.client, self.number, size as usize)
    }

    fn draws(&mut self, percent: u64) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }

    fn level(&mut self) -> Durability {
        let draw = self.rng.random_range(0..100);
        if draw < self.spec.async_percent {
            Durability::Async
        } else if draw < self.spec.async_percent + self.spec.sync_percent {
            Durability::Sync
        } else {
            Durability::Write
        }
    }
}
