//! go-persist's load benchmark: write collections, open and read one value, open and read 40,000.

use super::outcome::PhaseSample;
use super::random::rng;
use super::stream::value;
use crate::measure::clock::Clock;
use crate::subject::{Change, Record, Session, SubjectError};
use engine::Durability;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Load {
    /// Values in each of the five collections; upstream has 40,960, 81,920 and 163,840.
    #[serde(default)]
    pub per_collection: u64,
    /// Bytes of a value.
    #[serde(default = "value_bytes")]
    pub value_bytes: u64,
    /// Instead of collections: so many records of the go-persist struct, to see how fast they load and
    /// how much memory they take.
    #[serde(default)]
    pub records: u64,
}

fn value_bytes() -> u64 {
    1_215
}

/// The collections.
pub const TABLES: [&str; 5] = ["map1", "map2", "map3", "map4", "map5"];
const THIRD: usize = 2;
/// Values of the third collection that the long reading phase reads.
const MANY: u64 = 40_000;

/// Writes everything.
pub fn write(spec: &Load, session: &dyn Session, level: Durability) -> Result<PhaseSample, SubjectError> {
    let clock = Clock::start();
    let mut operations = 0;
    if spec.records > 0 {
        let records = session.records().ok_or(SubjectError::Unsupported("records of the go-persist struct"))?;
        for i in 0..spec.records {
            records.set(&i.to_string(), Record { field1: i as i64, field2: "example struct".to_owned() }, level)?;
        }
        operations = spec.records;
    } else {
        for (table, name) in TABLES.into_iter().enumerate() {
            for i in 0..spec.per_collection {
                let text = value(name, 0, 0, i, spec.value_bytes as usize);
                session.apply(Change { table, key: &format!("key-{i}"), value: Some(&text) }, level)?;
                operations += 1;
            }
        }
    }
    Ok(PhaseSample { writes: operations, ..PhaseSample::new("write", clock.now(), operations) })
}

/// Reads one value of the third collection, or the last record.
pub fn read_one(spec: &Load, session: &dyn Session) -> Result<(), SubjectError> {
    if spec.records > 0 {
        let found = session.records().and_then(|records| records.read(&(spec.records - 1).to_string()));
        return found.map(drop).ok_or_else(|| SubjectError::Store("the last record is missing".to_owned()));
    }
    read(session, MANY.min(spec.per_collection - 1))
}

/// Reads many values of the third collection in random order; how many.
pub fn read_many(spec: &Load, session: &dyn Session) -> Result<u64, SubjectError> {
    let count = MANY.min(spec.per_collection);
    let mut order: Vec<u64> = (0..count).collect();
    let mut rng = rng(42, &[]);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order.into_iter().try_for_each(|i| read(session, i))?;
    Ok(count)
}

fn read(session: &dyn Session, number: u64) -> Result<(), SubjectError> {
    let key = format!("key-{number}");
    let mut right = false;
    session.get(THIRD, &key, &mut |text| right = text.starts_with(TABLES[THIRD]))?;
    if right { Ok(()) } else { Err(SubjectError::Store(format!("{key} of {} is missing or wrong", TABLES[THIRD]))) }
}
