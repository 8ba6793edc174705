//! What a queue costs: entries in and out one by one and by the hundred, at each level of durability.
//!
//! Every step begins with an empty queue, or empties what the step before put in. Entries begin with their number, so
//! that whoever takes them out sees whether any is missing or out of order. What a queue does not have is left out.

use super::outcome::PhaseSample;
use crate::measure::clock::Clock;
use crate::measure::histogram::Latencies;
use crate::subject::{End, Fifo, SubjectError};
use engine::Durability;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueBench {
    /// What to run, in order.
    pub list: Vec<Step>,
    /// Entries of a step; a hundredth of them where each waits for the device.
    pub num: u64,
    /// Bytes of an entry, at least 8.
    pub value_bytes: u64,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// One by one, at the cell's level.
    Enqueue,
    /// A hundred at once, at the cell's level.
    #[serde(rename = "enqueue100")]
    Enqueue100,
    /// One by one, buffered.
    EnqueueAsync,
    /// One by one, each on the device.
    EnqueueSync,
    /// A hundred at once, each hundred on the device.
    #[serde(rename = "enqueue100-sync")]
    Enqueue100Sync,
    /// One by one, at the cell's level.
    Dequeue,
    /// A hundred at once, at the cell's level.
    #[serde(rename = "dequeue100")]
    Dequeue100,
    /// One by one; where it has come to is written now and then.
    DequeueAsync,
    /// One by one, each on the device.
    DequeueSync,
    /// One producer and one consumer beside each other, at the cell's level.
    #[serde(rename = "1:1")]
    OneToOne,
    /// Two producers and two consumers.
    #[serde(rename = "2:2")]
    TwoToTwo,
    /// Closing, opening with the backlog that is there, and taking out one entry.
    Reopen,
}

impl Step {
    /// Its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            Step::Enqueue => "enqueue",
            Step::Enqueue100 => "enqueue100",
            Step::EnqueueAsync => "enqueue-async",
            Step::EnqueueSync => "enqueue-sync",
            Step::Enqueue100Sync => "enqueue100-sync",
            Step::Dequeue => "dequeue",
            Step::Dequeue100 => "dequeue100",
            Step::DequeueAsync => "dequeue-async",
            Step::DequeueSync => "dequeue-sync",
            Step::OneToOne => "1:1",
            Step::TwoToTwo => "2:2",
            Step::Reopen => "reopen",
        }
    }

    fn level(self, level: Durability) -> Durability {
        match self {
            Step::EnqueueAsync | Step::DequeueAsync => Durability::Async,
            Step::EnqueueSync | Step::Enqueue100Sync | Step::DequeueSync => Durability::Sync,
            _ => level,
        }
    }
}

/// How far producers and consumers have come.
#[derive(Debug, Default)]
pub struct Progress {
    put: u64,
    taken: u64,
}

/// Runs one step; `None` if the queue does not have what it takes.
pub fn run(
    spec: &QueueBench,
    step: Step,
    queue: &dyn Fifo,
    level: Durability,
    progress: &mut Progress,
) -> Result<Option<PhaseSample>, SubjectError> {
    let level = step.level(level);
    let mut service = Latencies::default();
    let clock = Clock::start();
    let count = match step {
        Step::EnqueueSync | Step::DequeueSync => spec.num.div_ceil(100),
        _ => spec.num,
    };
    let done = match step {
        Step::Enqueue | Step::EnqueueAsync | Step::EnqueueSync => {
            put(spec, queue, level, progress, count, 1, &clock, &mut service)
        }
        Step::Enqueue100 | Step::Enqueue100Sync => put(spec, queue, level, progress, count, 100, &clock, &mut service),
        Step::Dequeue | Step::DequeueAsync | Step::DequeueSync => take(queue, level, progress, count, 1, &clock, &mut service),
        Step::Dequeue100 => take(queue, level, progress, count, 100, &clock, &mut service),
        Step::OneToOne => beside(spec, queue, level, progress, 1),
        Step::TwoToTwo => beside(spec, queue, level, progress, 2),
        Step::Reopen => take(queue, level, progress, 1, 1, &clock, &mut service),
    };
    let operations = match done {
        Err(SubjectError::Unsupported(_)) => return Ok(None),
        done => done?,
    };
    let phase = PhaseSample::new(step.name(), clock.now(), operations);
    let phase = PhaseSample { writes: operations, calls: operations, ..phase };
    Ok(Some(phase.with_op(step.name(), &service, None, 0)))
}

fn entry(number: u64, bytes: u64) -> Vec<u8> {
    let mut entry = number.to_le_bytes().to_vec();
    entry.resize((bytes as usize).max(8), b'x');
    entry
}

#[expect(clippy::too_many_arguments, reason = "one loop of a benchmark: what it does, how often, and where it notes it")]
fn put(
    spec: &QueueBench,
    queue: &dyn Fifo,
    level: Durability,
    progress: &mut Progress,
    count: u64,
    batch: u64,
    clock: &Clock,
    service: &mut Latencies,
) -> Result<u64, SubjectError> {
    let mut entries: Vec<Vec<u8>> = (0..batch).map(|n| entry(n, spec.value_bytes)).collect();
    let mut now = clock.now();
    for _ in 0..count / batch {
        for (number, entry) in (progress.put..).zip(&mut entries) {
            entry[..8].copy_from_slice(&number.to_le_bytes());
        }
        match &entries[..] {
            [one] => queue.push(&[one], End::Back, level)?,
            many => queue.push(&many.iter().map(Vec::as_slice).collect::<Vec<_>>(), End::Back, level)?,
        };
        progress.put += batch;
        let end = clock.now();
        service.record(end - now);
        now = end;
    }
    Ok(count / batch * batch)
}

fn take(
    queue: &dyn Fifo,
    level: Durability,
    progress: &mut Progress,
    count: u64,
    batch: u64,
    clock: &Clock,
    service: &mut Latencies,
) -> Result<u64, SubjectError> {
    let until = progress.put.min(progress.taken + count);
    let before = progress.taken;
    let mut wrong = None;
    let mut now = clock.now();
    while progress.taken < until {
        let most = batch.min(until - progress.taken) as usize;
        let taken = queue.pop(most, level, &mut |_, value| {
            let number = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if number != Some(progress.taken) {
                wrong.get_or_insert((progress.taken, number));
            }
            progress.taken += 1;
        })?;
        if let Some((expected, found)) = wrong {
            return Err(SubjectError::Store(format!("entry {expected} was due and {found:?} came")));
        }
        if taken == 0 {
            let missing = until - progress.taken;
            return Err(SubjectError::Store(format!("{missing} entries are missing from the queue")));
        }
        let end = clock.now();
        service.record(end - now);
        now = end;
    }
    Ok(progress.taken - before)
}

/// So many producers and consumers; the entries are in when all are out.
fn beside(
    spec: &QueueBench,
    queue: &dyn Fifo,
    level: Durability,
    progress: &mut Progress,
    each: u64,
) -> Result<u64, SubjectError> {
    let share = spec.num / each;
    let taken = AtomicU64::new(0);
    let parts: Vec<(bool, u64)> = (0..each).flat_map(|n| [(true, n), (false, n)]).collect();
    let results = engine::background::in_parallel(parts, |(produces, n)| -> Result<(), SubjectError> {
        if produces {
            let mut value = entry(0, spec.value_bytes);
            for number in 0..share {
                value[..8].copy_from_slice(&(progress.put + n * share + number).to_le_bytes());
                queue.push(&[&value], End::Back, level)?;
            }
            return Ok(());
        }
        while taken.load(Ordering::Relaxed) < share * each {
            if queue.pop(1, level, &mut |_, _| ())? == 0 {
                std::thread::yield_now();
            } else {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    });
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    progress.put += share * each;
    progress.taken += share * each;
    Ok(share * each)
}
