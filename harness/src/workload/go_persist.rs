//! go-persist's own benchmark, operation for operation, on any map of its struct.
//!
//! Threads draw a key uniformly, write it with the given share or read it in place; the wall clock runs
//! from before they start to after the last is done, as upstream's driver does. Upstream draws from one
//! locked generator, which caps every row; here each thread has its own.

use super::outcome::PhaseSample;
use super::random::{Rng, rng};
use crate::measure::clock::Clock;
use crate::measure::histogram::Latencies;
use crate::subject::{Record, Records, SubjectError};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Parameters of one of the tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GoPersist {
    /// Keys `"0"` to `keys - 1`, all written before the clock starts.
    pub keys: u64,
    /// Operations of all threads together, or at least so many when `seconds` is given.
    pub operations: u64,
    /// Goes on at least so long.
    #[serde(default)]
    pub seconds: f64,
    /// Threads.
    pub threads: u64,
    /// Share of writes in per cent.
    pub write_percent: u64,
    /// Time one operation in so many; the clock costs more than a read of a map.
    #[serde(default = "default_sample")]
    pub sample: u64,
}

fn default_sample() -> u64 {
    16
}

/// Writes every key once, in order, with the level of the run.
pub fn prefill(spec: &GoPersist, records: &dyn Records, level: Durability) -> Result<PhaseSample, SubjectError> {
    let clock = Clock::start();
    for i in 0..spec.keys {
        records.set(&i.to_string(), Record { field1: i as i64, field2: "example struct".to_owned() }, level)?;
    }
    Ok(PhaseSample {
        name: "prefill".into(),
        duration_ns: clock.now(),
        operations: spec.keys,
        writes: spec.keys,
        ..PhaseSample::default()
    })
}

/// The timed run.
pub fn run(spec: &GoPersist, records: &dyn Records, level: Durability, seed: u64) -> Result<PhaseSample, SubjectError> {
    let threads = parallel(spec, seed, |thread| thread.run(records, level));
    let mut phase = threads.phase("run");
    let (mut reads, mut writes) = (Latencies::default(), Latencies::default());
    for thread in threads.results {
        let thread = thread?;
        reads.merge(&thread.reads);
        writes.merge(&thread.writes);
        phase.operations += thread.operations;
        phase.writes += thread.written;
        phase.calls += thread.operations;
    }
    Ok(phase.with_op("get", &reads, None, 0).with_op("set", &writes, None, 0))
}

/// Generates the same operations and drops them, unmeasured: what is left of the `null` subject's cost
/// above this is the harness's own.
pub fn generate(spec: &GoPersist, seed: u64) -> PhaseSample {
    let threads = parallel(spec, seed, |thread| thread.generate());
    let mut phase = threads.phase("generate");
    phase.operations = threads.results.iter().sum();
    phase
}

struct Threads<R> {
    duration_ns: u64,
    results: Vec<R>,
}

impl<R> Threads<R> {
    fn phase(&self, name: &str) -> PhaseSample {
        PhaseSample { name: name.to_owned(), duration_ns: self.duration_ns, ..PhaseSample::default() }
    }
}

/// Runs `work` on the spec's threads, each with its share of the operations.
fn parallel<R: Send>(spec: &GoPersist, seed: u64, work: impl Fn(Thread<'_>) -> R + Sync) -> Threads<R> {
    let clock = Clock::start();
    let until = Duration::from_secs_f64(spec.seconds.max(0.0)).as_nanos() as u64;
    let share = spec.operations / spec.threads.max(1);
    let parts = (0..spec.threads.max(1)).map(|t| {
        let rest = if t == spec.threads.max(1) - 1 { spec.operations % spec.threads.max(1) } else { 0 };
        Thread { spec, rng: rng(seed, &[t]), operations: share + rest, until, clock }
    });
    let results = engine::background::in_parallel(parts.collect(), work);
    Threads { duration_ns: clock.now(), results }
}

struct Thread<'s> {
    spec: &'s GoPersist,
    rng: Rng,
    operations: u64,
    until: u64,
    clock: Clock,
}

#[derive(Default)]
struct ThreadResult {
    reads: Latencies,
    writes: Latencies,
    operations: u64,
    written: u64,
}

/// Operations between two looks at the clock of a run with a duration.
const BLOCK: u64 = 1024;

impl Thread<'_> {
    fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        let (mut left, until, clock) = (self.operations, self.until, self.clock);
        std::iter::from_fn(move || {
            let over = left == 0 && (until == 0 || clock.now() >= until);
            let block = if left > 0 { left.min(BLOCK) } else { BLOCK };
            left = left.saturating_sub(block);
            (!over).then_some(block)
        })
    }

    /// Draws the next operation: a key, and whether to write it.
    fn draw(&mut self, key: &mut Key) -> (i64, bool) {
        let number = self.rng.random_range(0..self.spec.keys);
        key.set(number);
        (number as i64, self.rng.random_range(0..100) < self.spec.write_percent)
    }

    fn run(mut self, records: &dyn Records, level: Durability) -> Result<ThreadResult, SubjectError> {
        let mut result = ThreadResult::default();
        let mut key = Key::default();
        for block in self.blocks() {
            for _ in 0..block {
                let timed = result.operations % self.spec.sample == 0;
                let start = if timed { self.clock.now() } else { 0 };
                let (number, write) = self.draw(&mut key);
                if write {
                    records.set(key.text(), Record { field1: number, field2: "updated struct".to_owned() }, level)?;
                    result.written += 1;
                } else if records.read(key.text()).is_none() {
                    return Err(SubjectError::Store(format!("key {:?} is missing", key.text())));
                }
                if timed {
                    let ns = self.clock.now() - start;
                    if write { result.writes.record(ns) } else { result.reads.record(ns) }
                }
                result.operations += 1;
            }
        }
        Ok(result)
    }

    fn generate(mut self) -> u64 {
        let mut key = Key::default();
        let mut operations = 0;
        for block in self.blocks() {
            for _ in 0..block {
                let (number, write) = self.draw(&mut key);
                if write {
                    std::hint::black_box(Record { field1: number, field2: "updated struct".to_owned() });
                }
                std::hint::black_box(key.text());
                operations += 1;
            }
        }
        operations
    }
}

/// A decimal number as text, without allocating.
#[derive(Default)]
struct Key {
    digits: [u8; 20],
    start: usize,
}

impl Key {
    fn set(&mut self, mut number: u64) {
        self.start = self.digits.len();
        loop {
            self.start -= 1;
            self.digits[self.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_decimals() {
        let mut key = Key::default();
        for n in [0, 7, 10, 99_999, u64::MAX] {
            key.set(n);
            assert_eq!(key.text(), n.to_string());
        }
    }
}
