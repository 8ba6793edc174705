//! Calls of a store, generated from a seed: the same seed gives the same calls, so that whoever judges
//! a crash can say what each client had asked for.
//!
//! **Invariant:** clients own their keys: no two streams of a workload write the same key.

use super::random::Rng;
use crate::subject::{Change, End, Session, SubjectError};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One call of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation it belongs to, for latencies.
    pub op: &'static str,
    /// Whether the operation is done when this call returns.
    pub last: bool,
    /// What to do.
    pub action: Action,
    /// What it means to the payment network, if anything.
    pub meaning: Meaning,
}

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads a key.
    Get {
        /// The table.
        table: usize,
        /// The key.
        key: String,
    },
    /// Writes one key, or several as one batch.
    Write {
        /// The changes.
        changes: Vec<OwnedChange>,
        /// The durability asked for.
        level: Durability,
    },
    /// Puts entries into a queue, all or none.
    Push {
        /// Their texts.
        values: Vec<String>,
        /// Where.
        end: End,
        /// The durability asked for.
        level: Durability,
    },
    /// Takes the oldest entry out of a queue.
    Pop {
        /// The durability asked for.
        level: Durability,
        /// Whether it is handed out first and taken out when that is acknowledged, which is one call here.
        acknowledged: bool,
    },
    /// Hands the oldest entry of a queue out, which stays in it.
    Hold,
    /// Takes out of a queue what was handed out to this client, the oldest first; nothing if there is none.
    Acknowledge {
        /// The durability asked for.
        level: Durability,
    },
}

/// What was handed out to a client and not yet acknowledged: index and text, the oldest first.
#[derive(Debug, Default)]
pub struct Held(VecDeque<(u64, String)>);

impl Held {
    /// What this call is going to acknowledge.
    pub fn due(&self, call: &Call) -> Option<&(u64, String)> {
        self.0.front().filter(|_| matches!(call.action, Action::Acknowledge { .. }))
    }
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing that a judge wants to know.
    Done,
    /// The index of the first entry that was put in.
    Pushed(u64),
    /// The entry that was taken or handed out: its index and text.
    Popped(Option<(u64, String)>),
}

/// A change that owns its strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedChange {
    /// The table.
    pub table: usize,
    /// The key.
    pub key: String,
    /// The new value; `None` deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl OwnedChange {
    fn borrow(&self) -> Change<'_> {
        Change { table: self.table, key: &self.key, value: self.value.as_deref() }
    }
}

/// What a write means to the payment network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing that a report counts.
    #[default]
    None,
    /// The receiver's voucher of a payment of this many wei: the payment counts when it is acknowledged.
    Voucher {
        /// The amount.
        wei: u64,
    },
    /// A step of an objective.
    Objective,
}

impl Call {
    /// A write of one key.
    pub fn write(op: &'static str, level: Durability, table: usize, key: String, value: Option<String>) -> Self {
        Self::batch(op, level, vec![OwnedChange { table, key, value }])
    }

    /// A write of several keys.
    pub fn batch(op: &'static str, level: Durability, changes: Vec<OwnedChange>) -> Self {
        Self { op, last: false, action: Action::Write { changes, level }, meaning: Meaning::None }
    }

    /// Entries that are put into a queue.
    pub fn push(op: &'static str, level: Durability, values: Vec<String>, end: End) -> Self {
        Self { op, last: false, action: Action::Push { values, end, level }, meaning: Meaning::None }
    }

    /// The oldest entry of a queue that is taken out.
    pub fn pop(op: &'static str, level: Durability, acknowledged: bool) -> Self {
        Self { op, last: false, action: Action::Pop { level, acknowledged }, meaning: Meaning::None }
    }

    /// The oldest entry of a queue that is handed out.
    pub fn hold(op: &'static str) -> Self {
        Self { op, last: false, action: Action::Hold, meaning: Meaning::None }
    }

    /// What was handed out, taken out.
    pub fn acknowledge(op: &'static str, level: Durability) -> Self {
        Self { op, last: false, action: Action::Acknowledge { level }, meaning: Meaning::None }
    }

    /// A read.
    pub fn get(op: &'static str, table: usize, key: String) -> Self {
        Self { op, last: false, action: Action::Get { table, key }, meaning: Meaning::None }
    }

    /// Makes the call, for a client to whom `held` was handed out.
    pub fn make(&self, session: &dyn Session, held: &mut Held) -> Result<Answer, SubjectError> {
        let fifo = || session.fifo().ok_or(SubjectError::Unsupported("queue"));
        let black_box = |text: &str| {
            std::hint::black_box(text);
        };
        match &self.action {
            Action::Get { table, key } => session.get(*table, key, &mut { black_box }).map(|_| Answer::Done),
            Action::Write { changes, level } => match &changes[..] {
                [one] => session.apply(one.borrow(), *level),
                many => session.batch(&many.iter().map(OwnedChange::borrow).collect::<Vec<_>>(), *level),
            }
            .map(|()| Answer::Done),
            Action::Push { values, end, level } => {
                let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
                fifo()?.push(&values, *end, *level).map(Answer::Pushed)
            }
            Action::Pop { level, acknowledged } => {
                let mut taken = None;
                let mut look = |index, value: &[u8]| taken = Some((index, String::from_utf8_lossy(value).into_owned()));
                if *acknowledged {
                    fifo()?.hold(&mut look)?;
                    taken.iter().try_for_each(|(index, _)| fifo()?.acknowledge(*index, *level))?;
                } else {
                    fifo()?.pop(1, *level, &mut look)?;
                }
                Ok(Answer::Popped(taken))
            }
            Action::Hold => {
                let mut handed = None;
                let mut look = |index, value: &[u8]| handed = Some((index, String::from_utf8_lossy(value).into_owned()));
                fifo()?.hold(&mut look)?;
                held.0.extend(handed.clone());
                Ok(Answer::Popped(handed))
            }
            Action::Acknowledge { level } => {
                // Whatever becomes of this call, nobody knows any more whether the entry is still handed out.
                let Some((index, _)) = held.0.pop_front() else { return Ok(Answer::Done) };
                fifo()?.acknowledge(index, *level).map(|()| Answer::Done)
            }
        }
    }

    /// The same call with a meaning.
    pub fn meaning(mut self, meaning: Meaning) -> Self {
        self.meaning = meaning;
        self
    }

    /// The same call as the last of its operation.
    pub fn ends(mut self) -> Self {
        self.last = true;
        self
    }
}

/// An endless stream of calls of one client.
pub type Stream = Box<dyn Iterator<Item = Call> + Send>;

/// A value that says which write it is: no other write of the run has it. Of `size` characters, or as
/// few as the description takes.
pub fn value(tag: &str, round: u64, client: u64, number: u64, size: usize) -> String {
    let mut text = format!("{tag}|r{round:x}|c{client}|n{number}|");
    let filler = "the quick brown fox jumps over the lazy dog 0123456789 ";
    while text.len() < size {
        let left = size - text.len();
        text.push_str(&filler[..left.min(filler.len())]);
    }
    text
}

/// Picks below `n` with Zipf-like skew: 0 is uniform, 1 the classical law; by inversion of the continuous
/// distribution, which is close enough for choosing hubs and payees.
pub fn skewed(rng: &mut Rng, n: u64, skew: f64) -> u64 {
    if n <= 1 {
        return 0;
    }
    let u: f64 = rng.random();
    let n_f = n as f64;
    let x = if (skew - 1.0).abs() < 1e-9 {
        n_f.powf(u) - 1.0
    } else {
        let e = 1.0 - skew;
        ((n_f + 1.0).powf(e) - 1.0).mul_add(u, 1.0).powf(1.0 / e) - 1.0
    };
    (x as u64).min(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::random::rng;

    #[test]
    fn values_have_the_size_asked_for() {
        for size in [60, 61, 390, 2_400, 1 << 20] {
            assert_eq!(value("k", 7, 3, 12, size).len(), size);
        }
        assert!(value("k", 7, 3, 12, 0).starts_with("k|r7|c3|n12|"));
    }

    #[test]
    fn skew_prefers_the_first() {
        let mut rng = rng(1, &[]);
        for skew in [0.0, 0.8, 1.0, 1.2] {
            let mut hits = [0u32; 10];
            (0..20_000).for_each(|_| hits[skewed(&mut rng, 10, skew) as usize] += 1);
            if skew == 0.0 {
                assert!(hits.iter().all(|&h| (1_800..2_200).contains(&h)), "{hits:?}");
            } else {
                assert!(hits[0] > 2 * hits[9], "{skew}: {hits:?}");
            }
        }
    }
}
