//! LevelDB's db_bench by name (`benchmarks/db_bench.cc`, 78a352f): its operations, key and value shapes and
//! defaults, on a store of ordered bytes.
//!
//! Keys are `%016d`. Values are cut from a pool of a mebibyte whose pieces of 100 bytes repeat themselves, so that
//! they compress to about half. Names that begin with a fill start from an empty store; the others go on with what
//! is there. `scan100` (seek, then a hundred entries) and `deleteall` are ours.

use super::outcome::PhaseSample;
use super::random::{Rng, rng};
use crate::measure::clock::Clock;
use crate::measure::histogram::Latencies;
use crate::subject::{Ordered, SubjectError};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DbBench {
    /// What to run, in order.
    pub list: Vec<Name>,
    /// Keys.
    #[serde(default = "num")]
    pub num: u64,
    /// Reads of each reading benchmark; 0 for as many as keys.
    #[serde(default)]
    pub reads: u64,
    /// Bytes of a value.
    #[serde(default = "value_bytes")]
    pub value_bytes: u64,
    /// Threads of each benchmark, which share its operations; db_bench lets each do all of them.
    #[serde(default = "one")]
    pub threads: u64,
}

fn num() -> u64 {
    1_000_000
}

fn value_bytes() -> u64 {
    100
}

fn one() -> u64 {
    1
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named as db_bench names them; see `Name::about`")]
pub enum Name {
    FillSeq,
    FillBatch,
    FillRandom,
    FillSync,
    Fill100K,
    Overwrite,
    ReadSeq,
    ReadReverse,
    ReadRandom,
    ReadMissing,
    ReadHot,
    SeekRandom,
    Scan100,
    DeleteSeq,
    DeleteRandom,
    DeleteAll,
    ReadWhileWriting,
    Compact,
}

impl Name {
    /// As db_bench spells it.
    pub fn text(self) -> &'static str {
        match self {
            Name::FillSeq => "fillseq",
            Name::FillBatch => "fillbatch",
            Name::FillRandom => "fillrandom",
            Name::FillSync => "fillsync",
            Name::Fill100K => "fill100k",
            Name::Overwrite => "overwrite",
            Name::ReadSeq => "readseq",
            Name::ReadReverse => "readreverse",
            Name::ReadRandom => "readrandom",
            Name::ReadMissing => "readmissing",
            Name::ReadHot => "readhot",
            Name::SeekRandom => "seekrandom",
            Name::Scan100 => "scan100",
            Name::DeleteSeq => "deleteseq",
            Name::DeleteRandom => "deleterandom",
            Name::DeleteAll => "deleteall",
            Name::ReadWhileWriting => "readwhilewriting",
            Name::Compact => "compact",
        }
    }

    /// Whether it begins with an empty store.
    pub fn is_fresh(self) -> bool {
        matches!(self, Name::FillSeq | Name::FillBatch | Name::FillRandom | Name::FillSync | Name::Fill100K)
    }
}

/// Values that compress to about half.
struct Values {
    pool: Vec<u8>,
    at: usize,
}

const POOL: usize = 1 << 20;
const PIECE: usize = 100;

impl Values {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed, &[301]);
        let mut pool = Vec::with_capacity(POOL + PIECE);
        while pool.len() < POOL {
            let half: Vec<u8> = (0..PIECE / 2).map(|_| rng.random_range(b' '..=b'~')).collect();
            pool.extend_from_slice(&half);
            pool.extend_from_slice(&half);
        }
        Self { pool, at: 0 }
    }

    fn next(&mut self, len: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(len);
        while value.len() < len {
            if self.at >= self.pool.len() {
                self.at = 0;
            }
            let take = (len - value.len()).min(self.pool.len() - self.at);
            value.extend_from_slice(&self.pool[self.at..self.at + take]);
            self.at += take;
        }
        value
    }
}

/// A key as db_bench writes it.
pub fn key(number: u64) -> [u8; 16] {
    let mut key = [b'0'; 16];
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// What one thread of a benchmark did.
#[derive(Default)]
struct Done {
    operations: u64,
    writes: u64,
    service: Latencies,
}

/// Runs one benchmark.
pub fn run(spec: &DbBench, name: Name, store: &dyn Ordered, level: Durability, seed: u64) -> Result<PhaseSample, SubjectError> {
    let clock = Clock::start();
    let threads = spec.threads.max(1);
    let total = match name {
        Name::FillSync | Name::Fill100K => spec.num / 1000,
        Name::ReadRandom | Name::ReadMissing | Name::ReadHot | Name::ReadWhileWriting if spec.reads > 0 => spec.reads,
        Name::SeekRandom | Name::Scan100 => (if spec.reads > 0 { spec.reads } else { spec.num }) / 20,
        Name::ReadSeq | Name::ReadReverse | Name::Compact => 1,
        _ => spec.num,
    };
    let stop = AtomicBool::new(false);
    let mut parts: Vec<Option<Range<u64>>> = (0..threads).map(|n| Some(total * n / threads..total * (n + 1) / threads)).collect();
    if name == Name::ReadWhileWriting {
        parts.push(None);
    }
    let results = engine::background::in_parallel(parts, |part| match part {
        Some(part) => {
            let done = one_thread(spec, name, store, level, seed, part, &clock);
            stop.store(true, Ordering::Release);
            done
        }
        None => write_until(spec, store, level, seed, &stop),
    });
    let mut all = Done::default();
    for done in results {
        let done = done?;
        all.operations += done.operations;
        all.writes += done.writes;
        all.service.merge(&done.service);
    }
    let phase = PhaseSample::new(name.text(), clock.now(), all.operations);
    let phase = PhaseSample { writes: all.writes, calls: all.operations, ..phase };
    Ok(phase.with_op(name.text(), &all.service, None, 0))
}

/// The writer beside the readers; what it writes does not count.
fn write_until(
    spec: &DbBench,
    store: &dyn Ordered,
    level: Durability,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Done, SubjectError> {
    let (mut rng, mut values) = (rng(seed, &[999]), Values::new(seed));
    while !stop.load(Ordering::Acquire) {
        store.put(&key(rng.random_range(0..spec.num)), &values.next(spec.value_bytes as usize), level)?;
    }
    Ok(Done::default())
}

fn one_thread(
    spec: &DbBench,
    name: Name,
    store: &dyn Ordered,
    level: Durability,
    seed: u64,
    part: Range<u64>,
    clock: &Clock,
) -> Result<Done, SubjectError> {
    let mut rng: Rng = rng(seed, &[part.start]);
    let mut values = Values::new(seed);
    let len = if name == Name::Fill100K { 100_000 } else { spec.value_bytes as usize };
    let mut done = Done::default();
    let mut seen = 0u64;
    let mut look = |bytes: &[u8]| {
        std::hint::black_box(bytes.len());
    };
    let mut at = part.start;
    // The clock is read once an operation: the end of one is the beginning of the next.
    let mut now = clock.now();
    while at < part.end {
        let mut step = 1;
        match name {
            Name::FillSeq => store.put(&key(at), &values.next(len), level)?,
            Name::FillRandom | Name::Overwrite | Name::Fill100K => {
                store.put(&key(rng.random_range(0..spec.num)), &values.next(len), level)?;
            }
            Name::FillSync => store.put(&key(rng.random_range(0..spec.num)), &values.next(len), Durability::Sync)?,
            Name::FillBatch => {
                step = 1000.min(part.end - at);
                let puts: Vec<_> = (at..at + step).map(|_| (key(rng.random_range(0..spec.num)), values.next(len))).collect();
                let puts: Vec<(&[u8], &[u8])> = puts.iter().map(|(k, v)| (&k[..], &v[..])).collect();
                store.write(&puts, level)?;
            }
            Name::DeleteSeq | Name::DeleteAll => store.delete(&key(at), level)?,
            Name::DeleteRandom => store.delete(&key(rng.random_range(0..spec.num)), level)?,
            Name::ReadRandom | Name::ReadWhileWriting => {
                seen += u64::from(store.get(&key(rng.random_range(0..spec.num)), &mut look)?);
            }
            Name::ReadMissing => seen += u64::from(store.get(&key(rng.random_range(0..spec.num))[..15], &mut look)?),
            Name::ReadHot => seen += u64::from(store.get(&key(rng.random_range(0..spec.num.div_ceil(100))), &mut look)?),
            Name::SeekRandom | Name::Scan100 => {
                let limit = if name == Name::Scan100 { 100 } else { 1 };
                seen += store.scan(&key(rng.random_range(0..spec.num)), limit, false, &mut |_, value| look(value))?;
            }
            Name::ReadSeq | Name::ReadReverse => {
                let from = if name == Name::ReadSeq { &b"0"[..] } else { &b":"[..] };
                let read = store.scan(from, usize::MAX, name == Name::ReadReverse, &mut |_, value| look(value))?;
                done.operations += read - 1;
            }
            Name::Compact => store.compact()?,
        }
        at += step;
        done.operations += step;
        let end = clock.now();
        done.service.record(end - now);
        now = end;
    }
    if matches!(name, Name::ReadRandom | Name::ReadHot | Name::Scan100) && seen == 0 {
        return Err(SubjectError::Store(format!("{} found nothing", name.text())));
    }
    if name == Name::ReadMissing && seen > 0 {
        return Err(SubjectError::Store(format!("{seen} keys are there that nobody wrote")));
    }
    let writes = !matches!(
        name,
        Name::ReadSeq
            | Name::ReadReverse
            | Name::ReadRandom
            | Name::ReadMissing
            | Name::ReadHot
            | Name::SeekRandom
            | Name::Scan100
            | Name::ReadWhileWriting
            | Name::Compact
    );
    done.writes = if writes { done.operations } else { 0 };
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_the_shapes_of_db_bench() {
        assert_eq!(&key(1_234), b"0000000000001234");
        let mut values = Values::new(1);
        let value = values.next(100);
        assert_eq!(value[..50], value[50..]);
        assert_eq!(values.next(100_000).len(), 100_000);
        assert_ne!(values.next(100), value);
    }

    #[test]
    fn names_are_spelled_one_way() {
        let spec: DbBench = toml::from_str("list = [\"fillseq\", \"readwhilewriting\", \"fill100k\"]").unwrap();
        assert!(spec.list.iter().all(|name| toml::Value::try_from(name).unwrap().as_str() == Some(name.text())));
        assert_eq!((spec.num, spec.value_bytes), (1_000_000, 100));
    }
}
