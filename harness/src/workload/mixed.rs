//! Everything a key-value store promises, in small: puts, deletes and batches over few keys, at mixed
//! durability levels, now and then a value of one mebibyte. Made for crashing, not for measuring.

use super::random::{Rng, rng};
use super::stream::{Call, OwnedChange, Stream, value};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mixed {
    /// Client threads.
    pub clients: u64,
    /// Keys of each client in each table.
    pub keys: u64,
    /// Largest ordinary value.
    pub value_bytes: u64,
    /// One write in so many is one mebibyte long; 0 for none.
    #[serde(default)]
    pub big_every: u64,
    /// Shares in per cent; the rest are puts.
    pub delete_percent: u64,
    /// Batches of two to five changes.
    pub batch_percent: u64,
    /// Writes that are only buffered.
    pub async_percent: u64,
    /// Writes that wait for the device.
    pub sync_percent: u64,
}

/// The tables.
pub const TABLES: [&str; 2] = ["left", "right"];

/// The calls of one client in one round.
pub fn stream(spec: &Mixed, seed: u64, round: u64, client: u64) -> Stream {
    let mut client = Client { spec: spec.clone(), rng: rng(seed, &[round, client]), round, client, number: 0 };
    Box::new(std::iter::from_fn(move || Some(client.next_call())))
}

struct Client {
    spec: Mixed,
    rng: Rng,
    round: u64,
    client: u64,
    number: u64,
}

impl Client {
    fn next_call(&mut self) -> Call {
        self.number += 1;
        let level = self.level();
        let draw = self.rng.random_range(0..100);
        if draw < self.spec.batch_percent {
            let changes = (0..self.rng.random_range(2..=5)).map(|_| self.change(30)).collect();
            let level = level.max(Durability::Write);
            return Call::batch("batch", level, changes).ends();
        }
        if self.spec.big_every > 0 && self.number.is_multiple_of(self.spec.big_every) {
            let text = value("big", self.round, self.client, self.number, 1 << 20);
            let level = level.max(Durability::Write);
            return Call::write("put-1mib", level, 0, format!("c{}-big", self.client), Some(text)).ends();
        }
        let deletes = self.spec.delete_percent * 100 / (100 - self.spec.batch_percent).max(1);
        let change = self.change(deletes);
        let op = if change.value.is_some() { "put" } else { "delete" };
        Call::batch(op, level, vec![change]).ends()
    }

    fn change(&mut self, delete_percent: u64) -> OwnedChange {
        let table = self.rng.random_range(0..TABLES.len());
        let key = format!("c{}-k{}", self.client, self.rng.random_range(0..self.spec.keys.max(1)));
        if self.rng.random_range(0..100) < delete_percent {
            return OwnedChange { table, key, value: None };
        }
        // Numbered apart from the call, because a batch may write one key twice.
        self.number += 1;
        let size = self.rng.random_range(0..=self.spec.value_bytes);
        let text = value("mix", self.round, self.client, self.number, size as usize);
        OwnedChange { table, key, value: Some(text) }
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
