//! What grows with the data: how long opening takes after a process was killed, and how often compactions rewrite it.
//!
//! Both measure a few sizes that fit the machine and say what they expect of larger ones, with their assumptions.

use super::db_bench;
use super::random::rng;
use crate::result::{Point, Projection, ProjectionUnit};
use crate::subject::{Ordered, SubjectError};
use engine::Durability;
use rand::{Rng as _, RngExt};
use serde::{Deserialize, Serialize};

/// Opening a store whose process was killed, at several sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recovery {
    /// Records of each store.
    pub records: Vec<u64>,
    /// Bytes of a value; keys have 16.
    #[serde(default = "hundred")]
    pub value_bytes: u64,
    /// Bytes of keys and values that are overwritten after everything was compacted: they are in the log and in
    /// memory when the process dies.
    #[serde(default = "unflushed")]
    pub unflushed_bytes: u64,
    /// Bytes of data to which the line is drawn.
    #[serde(default = "hundred_gigabytes")]
    pub to_bytes: u64,
}

/// Write and space amplification of random overwriting, beside what a simulation says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Compaction {
    /// Keys of each store that is really written.
    pub records: Vec<u64>,
    /// Writes for each key, to keys at random.
    #[serde(default = "two")]
    pub writes_per_key: u64,
    /// Bytes of a value; keys have 16.
    #[serde(default = "hundred")]
    pub value_bytes: u64,
    /// Bytes of keys and values to which the simulation goes.
    #[serde(default = "terabyte")]
    pub to_bytes: u64,
}

fn two() -> u64 {
    2
}

fn hundred() -> u64 {
    100
}

fn unflushed() -> u64 {
    24 << 20
}

fn hundred_gigabytes() -> u64 {
    100_000_000_000
}

fn terabyte() -> u64 {
    1_000_000_000_000
}

/// Writes every record, reclaims all space, and overwrites so many bytes on top.
pub fn fill(spec: &Recovery, records: u64, store: &dyn Ordered, level: Durability, seed: u64) -> Result<(), SubjectError> {
    let mut rng = rng(seed, &[records]);
    let mut value = vec![0; spec.value_bytes as usize];
    let mut put = |number: u64| {
        rng.fill_bytes(&mut value);
        store.put(&db_bench::key(number), &value, level)
    };
    (0..records).try_for_each(&mut put)?;
    store.compact()?;
    let overwritten = spec.unflushed_bytes / (16 + spec.value_bytes);
    (0..overwritten).try_for_each(|n| put(n * 7_919 % records.max(1)))
}

/// Reads every hundredth record: the store must have kept all of them.
pub fn check(records: u64, store: &dyn Ordered) -> Result<(), SubjectError> {
    for number in (0..records).step_by(100) {
        if !store.get(&db_bench::key(number), &mut |_| ())? {
            return Err(SubjectError::Store(format!("record {number} of {records} is gone after the process was killed")));
        }
    }
    Ok(())
}

/// Overwrites keys at random.
pub fn overwrite(
    spec: &Compaction,
    records: u64,
    store: &dyn Ordered,
    level: Durability,
    seed: u64,
) -> Result<u64, SubjectError> {
    let mut rng = rng(seed, &[records]);
    let mut value = vec![0; spec.value_bytes as usize];
    let writes = records * spec.writes_per_key;
    for _ in 0..writes {
        rng.fill_bytes(&mut value);
        store.put(&db_bench::key(rng.random_range(0..records)), &value, level)?;
    }
    Ok(writes)
}

/// Sizes from a little above the measured ones to the last, a few for each power of ten.
pub fn sizes(from: u64, to: u64) -> Vec<u64> {
    let steps = ((to as f64 / from.max(1) as f64).log10() * 3.0).ceil().max(1.0) as i32;
    (0..=steps).map(|n| (from as f64 * (to as f64 / from.max(1) as f64).powf(f64::from(n) / f64::from(steps))) as u64).collect()
}

/// The line through what was measured (least squares), drawn to a larger store.
pub fn line(measured: &[Point], to: u64) -> Vec<Point> {
    let n = measured.len() as f64;
    let mean = |of: &dyn Fn(&Point) -> f64| measured.iter().map(of).sum::<f64>() / n.max(1.0);
    let (x, y) = (mean(&|p| p.bytes as f64), mean(&|p| p.value));
    let spread = mean(&|p| (p.bytes as f64 - x).powi(2));
    let slope = if spread > 0.0 { mean(&|p| (p.bytes as f64 - x) * (p.value - y)) / spread } else { 0.0 };
    // A store does not open faster for being larger: what says so is noise.
    let slope = slope.max(0.0);
    let from = measured.iter().map(|p| p.bytes).min().unwrap_or(1);
    sizes(from, to).into_iter().map(|bytes| Point { bytes, value: y + slope * (bytes as f64 - x) }).collect()
}

/// Name of the projection of opening.
const OPENING: &str = "opening";

/// What is projected of opening.
pub fn opening(measured: Vec<Point>, to: u64) -> Projection {
    Projection {
        name: OPENING.to_owned(),
        title: "Time to open after the process was killed".to_owned(),
        unit: ProjectionUnit::Seconds,
        predicted: line(&measured, to),
        measured,
        assumes: "The dashed line is fitted by least squares and never falls. Opening replays the write-ahead log, which does not grow \
                  with the data, and reads the manifest and the names of the directory, which grow with the number of tables; that \
                  this goes on in a straight line beyond the largest store measured is an assumption."
            .to_owned(),
    }
}

/// One projection of several repetitions: every point that was measured, and the line fitted anew where there is one.
pub fn merge(same: &[&Projection]) -> Option<Projection> {
    let first = *same.first()?;
    let measured: Vec<Point> = same.iter().flat_map(|p| p.measured.clone()).collect();
    match first.predicted.last() {
        Some(last) if first.name == OPENING => Some(opening(measured, last.bytes)),
        _ => Some(Projection { measured, ..first.clone() }),
    }
}

/// Names and titles of the projections of amplification.
pub const AMPLIFICATIONS: [(&str, &str); 2] = [
    ("write-amplification", "Write amplification of random overwriting"),
    ("space-amplification", "Space amplification of random overwriting"),
];

/// A projection of amplification without its points.
pub fn amplification((name, title): (&str, &str)) -> Projection {
    Projection {
        name: name.to_owned(),
        title: title.to_owned(),
        unit: ProjectionUnit::Ratio,
        assumes: "The dashed line is a simulation: the same choice of compactions over imagined tables of uniformly random keys. It \
                  takes from the largest measured store how many bytes a version takes in a table and how long a compaction takes for \
                  each byte it writes, and from the fastest one how fast writes come in if nothing holds them up; that a larger store \
                  keeps this pace is an assumption."
            .to_owned(),
        ..Projection::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_points_that_lie_on_one() {
        let measured: Vec<Point> = [1_000, 5_000, 9_000].map(|bytes| Point { bytes, value: 2.0 + 0.001 * bytes as f64 }).into();
        let line = line(&measured, 1_000_000);
        assert_eq!((line[0].bytes, line.last().unwrap().bytes), (1_000, 1_000_000));
        assert!(line.iter().all(|p| (p.value - 2.0 - 0.001 * p.bytes as f64).abs() < 1e-6));
    }

    #[test]
    fn a_line_never_falls() {
        let measured = [Point { bytes: 1_000, value: 3.0 }, Point { bytes: 2_000, value: 1.0 }];
        assert!(line(&measured, 10_000).iter().all(|p| p.value == 2.0));
    }
}
