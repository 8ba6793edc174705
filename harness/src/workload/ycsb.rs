//! YCSB's core workloads A to F (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010), as
//! `CoreWorkload.java` and its generators have them (d9faaac), on a store of ordered bytes.
//!
//! A record is one value: its fields one after the other. An update replaces one field, so it reads the record,
//! patches it and writes it whole, as the RocksDB binding does; the variant `blob` writes a new record without
//! reading it, and is not YCSB. Reads look at what they find: a record that is not there, or of another length,
//! ends the run.

use super::outcome::PhaseSample;
use super::random::{Rng, mix, rng};
use crate::measure::clock::Clock;
use crate::measure::histogram::Latencies;
use crate::subject::{Ordered, SubjectError};
use engine::Durability;
use rand::{Rng as _, RngExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Parameters. What is not here is as YCSB's files have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ycsb {
    /// Which of the six.
    pub core: Core,
    /// Records that are loaded. YCSB's files say 1,000, and mean that it is always overridden.
    #[serde(default = "million")]
    pub records: u64,
    /// Operations, all threads together.
    #[serde(default = "million")]
    pub operations: u64,
    /// Client threads.
    #[serde(default = "one")]
    pub threads: u64,
    /// Fields of a record.
    #[serde(default = "ten")]
    pub fields: u64,
    /// Bytes of a field.
    #[serde(default = "hundred")]
    pub field_bytes: u64,
    /// Whether an update writes a new record without reading the old one. Not YCSB.
    #[serde(default)]
    pub blob: bool,
    /// A second run at a fixed rate: this share of what the first reached, 0 to 1; 0 for none.
    #[serde(default)]
    pub rate_share: f64,
    /// More runs at that rate, each with such work done over and over beside it.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// Whether the store reclaims all the space it can at the end.
    #[serde(default)]
    pub compact: bool,
}

/// What goes on beside the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Beside {
    /// A backup of everything.
    Backup,
    /// A compaction of everything.
    Compact,
}

impl Beside {
    /// Its name as an operation, and the phase with it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Beside::Backup => ("backup", "at-rate-beside-backup"),
            Beside::Compact => ("compact", "at-rate-beside-compact"),
        }
    }

    fn work(self, store: &dyn Ordered) -> Result<(), SubjectError> {
        match self {
            Beside::Backup => store.backup(),
            Beside::Compact => store.compact(),
        }
    }
}

fn million() -> u64 {
    1_000_000
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}

fn hundred() -> u64 {
    100
}

impl Ycsb {
    /// Bytes of the keys and values that are loaded; what D and E insert comes on top.
    pub fn live_bytes(&self) -> u64 {
        let keys: u64 = (0..self.records).map(|number| key(number).len() as u64).sum();
        keys + self.records * self.fields * self.field_bytes
    }
}

/// A core workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named as YCSB names them; see `Core::shares`")]
pub enum Core {
    A,
    B,
    C,
    D,
    E,
    F,
}

/// A kind of operation, in the order in which YCSB lays out its shares.
const OPS: [&str; 5] = ["read", "update", "insert", "scan", "read-modify-write"];

/// Longest scan of workload E.
const MAX_SCAN: u64 = 100;

impl Core {
    /// Shares of the operations, in the order of [`OPS`].
    fn shares(self) -> [f64; 5] {
        match self {
            Core::A => [0.5, 0.5, 0.0, 0.0, 0.0],
            Core::B => [0.95, 0.05, 0.0, 0.0, 0.0],
            Core::C => [1.0, 0.0, 0.0, 0.0, 0.0],
            Core::D => [0.95, 0.0, 0.05, 0.0, 0.0],
            Core::E => [0.0, 0.0, 0.05, 0.95, 0.0],
            Core::F => [0.5, 0.0, 0.0, 0.0, 0.5],
        }
    }

    /// The kind of operation that a number from 0 to 1 stands for: an index into [`OPS`].
    fn choose(self, draw: f64) -> usize {
        let mut sum = 0.0;
        let shares = self.shares();
        let found = shares.iter().position(|share| {
            sum += share;
            *share > 0.0 && draw < sum
        });
        // Rounding may leave a sliver above the last share.
        found.unwrap_or_else(|| shares.iter().rposition(|share| *share > 0.0).unwrap_or(0))
    }
}

/// FNV-1a over the bytes of a number, the least significant first, made positive.
fn fnvhash64(number: u64) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for octet in number.to_le_bytes() {
        hash = (hash ^ u64::from(octet)).wrapping_mul(1_099_511_628_211);
    }
    (hash as i64).unsigned_abs()
}

/// The key of a record.
fn key(number: u64) -> String {
    format!("user{}", fnvhash64(number))
}

/// Zipf's distribution with a constant of 0.99 over 0..items, from the most frequent on (Gray et al., "Quickly
/// Generating Billion-Record Synthetic Databases", 1994).
#[derive(Clone, Debug)]
struct Zipfian {
    /// Items when it was made: `eta` goes on using them.
    items: u64,
    /// Items that `zetan` is of.
    counted: u64,
    zetan: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipfian {
    fn new(items: u64) -> Self {
        Self::with_zetan(items, zeta(0..items, 0.0))
    }

    fn with_zetan(items: u64, zetan: f64) -> Self {
        Self { items, counted: items, zetan, eta: eta(items, zetan) }
    }

    /// A number below `items`, which may have grown.
    fn next(&mut self, items: u64, draw: f64) -> u64 {
        if items > self.counted {
            self.zetan = zeta(self.counted..items, self.zetan);
            self.counted = items;
            self.eta = eta(self.items, self.zetan);
        }
        let uz = draw * self.zetan;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        (items as f64 * (self.eta * draw - self.eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64
    }
}

fn zeta(items: Range<u64>, before: f64) -> f64 {
    items.fold(before, |sum, n| sum + ((n + 1) as f64).powf(-THETA))
}

fn eta(items: u64, zetan: f64) -> f64 {
    let zeta2 = 1.0 + 0.5f64.powf(THETA);
    (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - zeta2 / zetan)
}

/// Items of the distribution behind the scrambled one, and its zeta, as YCSB has it.
const SCRAMBLED: (u64, f64) = (10_000_000_001, 26.469_028_201_783_02);

/// Which record an operation goes to.
#[derive(Clone, Debug)]
enum Chooser {
    /// Frequent ones are scattered among all; the number of slots.
    Scrambled(Zipfian, u64),
    /// The last written are the most frequent.
    Latest(Zipfian),
}

impl Chooser {
    fn new(spec: &Ycsb) -> Self {
        if spec.core == Core::D {
            return Chooser::Latest(Zipfian::new(spec.records.max(1)));
        }
        let inserts = spec.core.shares()[2];
        let expected = (spec.operations as f64 * inserts * 2.0) as u64;
        Chooser::Scrambled(Zipfian::with_zetan(SCRAMBLED.0, SCRAMBLED.1), spec.records + expected + 1)
    }

    /// The number of a record that is there; `last` is the last that was acknowledged.
    fn next(&mut self, last: u64, rng: &mut Rng) -> u64 {
        loop {
            let number = match self {
                Chooser::Scrambled(zipfian, slots) => fnvhash64(zipfian.next(SCRAMBLED.0, unit(rng))) % *slots,
                Chooser::Latest(zipfian) => last - zipfian.next(last.max(1), unit(rng)).min(last),
            };
            if number <= last {
                return number;
            }
        }
    }
}

/// A number from 0 to below 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.random::<f64>()
}

/// Numbers of inserts: given away in order, visible when all before them were acknowledged.
#[derive(Debug)]
struct Inserts {
    next: AtomicU64,
    last: AtomicU64,
    early: Mutex<BTreeSet<u64>>,
}

impl Inserts {
    fn behind(records: u64) -> Self {
        Self { next: AtomicU64::new(records), last: AtomicU64::new(records.saturating_sub(1)), early: Mutex::default() }
    }

    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }

    fn acknowledge(&self, number: u64) {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.insert(number);
        while early.remove(&(self.last() + 1)) {
            self.last.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The last record that readers may ask for.
    fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

/// Printable bytes, six of each 32 bits that are drawn: they pack to about two thirds.
fn fill(bytes: &mut [u8], rng: &mut Rng) {
    const PARTS: [(u32, u32); 6] = [(0, 31), (5, 63), (10, 95), (15, 31), (20, 63), (25, 95)];
    for six in bytes.chunks_mut(6) {
        let bits = rng.next_u32();
        for (byte, (shift, mask)) in six.iter_mut().zip(PARTS) {
            *byte = ((bits >> shift & mask) + 32) as u8;
        }
    }
}

/// One thread's way through the operations.
struct Client<'w> {
    spec: &'w Ycsb,
    store: &'w dyn Ordered,
    level: Durability,
    inserts: &'w Inserts,
    chooser: Chooser,
    rng: Rng,
    record: Vec<u8>,
}

impl Client<'_> {
    fn insert(&mut self, number: u64) -> Result<(), SubjectError> {
        fill(&mut self.record, &mut self.rng);
        self.store.put(key(number).as_bytes(), &self.record, self.level)
    }

    fn read(&mut self, number: u64) -> Result<(), SubjectError> {
        let (record, mut len) = (&mut self.record, 0);
        let found = self.store.get(key(number).as_bytes(), &mut |value| {
            len = value.len();
            if len == record.len() {
                record.copy_from_slice(value);
            }
        })?;
        if found && len == self.record.len() {
            return Ok(());
        }
        let what = if found { format!("has {len} bytes instead of {}", self.record.len()) } else { "is not there".to_owned() };
        Err(SubjectError::Store(format!("record {number} was acknowledged and {what}")))
    }

    fn update(&mut self, number: u64) -> Result<(), SubjectError> {
        if self.spec.blob {
            fill(&mut self.record, &mut self.rng);
        } else {
            self.read(number)?;
            let field = self.rng.random_range(0..self.spec.fields) as usize;
            let bytes = self.spec.field_bytes as usize;
            fill(&mut self.record[field * bytes..(field + 1) * bytes], &mut self.rng);
        }
        self.store.put(key(number).as_bytes(), &self.record, self.level)
    }

    fn scan(&mut self, number: u64) -> Result<(), SubjectError> {
        let limit = self.rng.random_range(1..=MAX_SCAN);
        let found = self.store.scan(key(number).as_bytes(), limit as usize, false, &mut |_, value| {
            std::hint::black_box(value.len());
        })?;
        // A scan begins at a record that is there.
        if found == 0 { Err(SubjectError::Store(format!("a scan from record {number} found nothing"))) } else { Ok(()) }
    }

    /// Makes the next operation; its kind.
    fn operate(&mut self) -> Result<usize, SubjectError> {
        let op = self.spec.core.choose(unit(&mut self.rng));
        if OPS[op] == "insert" {
            let number = self.inserts.begin();
            self.insert(number)?;
            self.inserts.acknowledge(number);
            return Ok(op);
        }
        let number = self.chooser.next(self.inserts.last(), &mut self.rng);
        match OPS[op] {
            "read" => self.read(number)?,
            "update" => self.update(number)?,
            "scan" => self.scan(number)?,
            _ => {
                self.read(number)?;
                self.update(number)?;
            }
        }
        Ok(op)
    }
}

/// What one thread measured: times of service and of response by kind of operation.
type Measured = [(Latencies, Latencies); 5];

/// Measures a phase: runs it with whatever counts beside it.
pub type Measure<'a> = dyn FnMut(&Phase<'_>) -> Result<PhaseSample, SubjectError> + 'a;

/// A phase that is to be measured.
pub type Phase<'a> = dyn Fn() -> Result<PhaseSample, SubjectError> + 'a;

/// Loads the records, runs the operations, and once more at a fixed rate if that is asked. `phase` measures one.
pub fn run(
    spec: &Ycsb,
    store: &dyn Ordered,
    level: Durability,
    seed: u64,
    phase: &mut Measure<'_>,
) -> Result<Vec<PhaseSample>, SubjectError> {
    let inserts = Inserts::behind(spec.records);
    let chooser = Chooser::new(spec);
    let client = |part: u64| Client {
        spec,
        store,
        level,
        inserts: &inserts,
        chooser: chooser.clone(),
        rng: rng(seed, &[part]),
        record: vec![0; (spec.fields * spec.field_bytes) as usize],
    };
    let mut phases = vec![phase(&|| load(spec, &client))?];
    let closed = phase(&|| operations(spec, "run", 0.0, &client))?;
    let reached = closed.operations as f64 * 1e9 / closed.duration_ns.max(1) as f64;
    phases.push(closed);
    if spec.rate_share > 0.0 {
        let rate = reached * spec.rate_share;
        phases.push(phase(&|| operations(spec, "at-rate", rate, &client))?);
        for work in &spec.beside {
            phases.push(phase(&|| beside(*work, store, &|name| operations(spec, name, rate, &client)))?);
        }
    }
    if spec.compact {
        let compact = || {
            let clock = Clock::start();
            store.compact()?;
            Ok(sample("compact", clock.now(), 1, 0))
        };
        phases.push(phase(&compact)?);
    }
    Ok(phases)
}

/// Measures operations while other work is done over and over.
fn beside(
    work: Beside,
    store: &dyn Ordered,
    operations: &(dyn Fn(&str) -> Result<PhaseSample, SubjectError> + Sync),
) -> Result<PhaseSample, SubjectError> {
    let (name, phase) = work.names();
    let done = AtomicBool::new(false);
    let (sample, worked) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let (clock, mut service) = (Clock::start(), Latencies::default());
            while !done.load(Ordering::Acquire) {
                let begin = clock.now();
                work.work(store)?;
                service.record(clock.now() - begin);
            }
            Ok::<_, SubjectError>(service)
        });
        let sample = operations(phase);
        done.store(true, Ordering::Release);
        (sample, worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    Ok(sample?.with_op(name, &worked?, None, 0))
}

fn parts(total: u64, threads: u64) -> Vec<(u64, Range<u64>)> {
    (0..threads).map(|n| (n, total * n / threads..total * (n + 1) / threads)).collect()
}

fn load<'w>(spec: &Ycsb, client: &(dyn Fn(u64) -> Client<'w> + Sync)) -> Result<PhaseSample, SubjectError> {
    let clock = Clock::start();
    let threads = spec.threads.max(1);
    let results = engine::background::in_parallel(parts(spec.records, threads), |(n, part)| {
        let (mut client, mut service) = (client(mix(n, &[1])), Latencies::default());
        let mut now = clock.now();
        for number in part {
            client.insert(number)?;
            let end = clock.now();
            service.record(end - now);
            now = end;
        }
        Ok::<_, SubjectError>(service)
    });
    let mut service = Latencies::default();
    for result in results {
        service.merge(&result?);
    }
    let phase = sample("load", clock.now(), spec.records, spec.records);
    Ok(phase.with_op("insert", &service, None, 0))
}

fn operations<'w>(
    spec: &Ycsb,
    name: &str,
    rate: f64,
    client: &(dyn Fn(u64) -> Client<'w> + Sync),
) -> Result<PhaseSample, SubjectError> {
    let threads = spec.threads.max(1);
    // Under a rate each thread is due at fixed times, whether or not the last answer has come.
    let tick = if rate > 0.0 { (threads as f64 * 1e9 / rate) as u64 } else { 0 };
    let clock = Clock::start();
    let results = engine::background::in_parallel(parts(spec.operations, threads), |(n, part)| {
        let (mut client, mut measured) = (client(mix(n, &[if tick > 0 { 3 } else { 2 }])), Measured::default());
        let (mut now, mut due) = (clock.now(), tick * n / threads);
        for _ in part {
            if tick > 0 {
                clock.sleep_until(due);
                now = clock.now();
            }
            let op = client.operate()?;
            let end = clock.now();
            measured[op].0.record(end - now);
            measured[op].1.record(end.saturating_sub(due));
            now = end;
            due += tick;
        }
        Ok::<_, SubjectError>(measured)
    });
    let wall = clock.now();
    let mut all = Measured::default();
    for result in results {
        for (total, part) in all.iter_mut().zip(result?) {
            total.0.merge(&part.0);
            total.1.merge(&part.1);
        }
    }
    let writes = [1, 2, 4].into_iter().map(|op: usize| all[op].0.count()).sum();
    let phase = sample(name, wall, spec.operations, writes);
    let with = |phase: PhaseSample, (name, (service, response)): (&str, &(Latencies, Latencies))| {
        phase.with_op(name, service, (tick > 0).then_some(response), 0)
    };
    Ok(OPS.into_iter().zip(&all).fold(phase, with))
}

fn sample(name: &str, duration_ns: u64, operations: u64, writes: u64) -> PhaseSample {
    PhaseSample { writes, calls: operations, ..PhaseSample::new(name, duration_ns, operations) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(core: Core) -> Ycsb {
        Ycsb {
            core,
            records: 2_000,
            operations: 20_000,
            threads: 1,
            fields: 10,
            field_bytes: 100,
            blob: false,
            rate_share: 0.0,
            beside: Vec::new(),
            compact: false,
        }
    }

    /// A map that notes what is done to it.
    #[derive(Default)]
    struct Noted {
        map: Mutex<std::collections::BTreeMap<Vec<u8>, Vec<u8>>>,
        /// For each write of a key that was there: how many fields it changed.
        changed: Mutex<Vec<usize>>,
        scans: Mutex<Vec<usize>>,
        missing: AtomicU64,
    }

    impl Ordered for Noted {
        fn put(&self, key: &[u8], value: &[u8], _: Durability) -> Result<(), SubjectError> {
            let before = self.map.lock().unwrap().insert(key.to_vec(), value.to_vec());
            if let Some(before) = before {
                let fields = before.chunks(100).zip(value.chunks(100));
                self.changed.lock().unwrap().push(fields.filter(|(a, b)| a != b).count());
            }
            Ok(())
        }
        fn delete(&self, _: &[u8], _: Durability) -> Result<(), SubjectError> {
            Err(SubjectError::Unsupported("delete"))
        }
        fn write(&self, _: &[(&[u8], &[u8])], _: Durability) -> Result<(), SubjectError> {
            Err(SubjectError::Unsupported("batch"))
        }
        fn get(&self, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool, SubjectError> {
            let map = self.map.lock().unwrap();
            let found = map.get(key);
            if let Some(value) = found {
                look(value);
            }
            self.missing.fetch_add(u64::from(found.is_none()), Ordering::Relaxed);
            Ok(found.is_some())
        }
        fn scan(&self, from: &[u8], limit: usize, _: bool, look: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, SubjectError> {
            self.scans.lock().unwrap().push(limit);
            let map = self.map.lock().unwrap();
            Ok(map.range(from.to_vec()..).take(limit).map(|(key, value)| look(key, value)).count() as u64)
        }
        fn compact(&self) -> Result<(), SubjectError> {
            Ok(())
        }
    }

    fn run_on(store: &Noted, spec: &Ycsb) -> Vec<PhaseSample> {
        run(spec, store, Durability::Write, 7, &mut |phase| phase()).unwrap()
    }

    #[test]
    fn hashes_and_keys_are_those_of_ycsb() {
        assert_eq!(fnvhash64(0), 6_284_781_860_667_377_211);
        assert_eq!(fnvhash64(1), 8_517_097_267_634_966_620);
        assert_eq!(key(0), "user6284781860667377211");
        assert!((0..100_000).map(key).all(|key| (5..=23).contains(&key.len())));
    }

    #[test]
    fn zeta_has_the_published_values() {
        for (items, value) in [(1_000, 7.728_95), (100_000, 12.778_34), (1_000_000, 15.391_85)] {
            assert!((zeta(0..items, 0.0) - value).abs() < 1e-4, "{items}");
        }
        // Extended, it is what it would have been from the start.
        let mut grown = Zipfian::new(1_000);
        grown.next(100_000, 0.5);
        assert!((grown.zetan - 12.778_34).abs() < 1e-4);
    }

    /// Shares of the hottest record and of the top hundredth, of draws over a million records.
    fn skew(mut draw: impl FnMut(&mut Rng) -> u64) -> (f64, f64) {
        let (mut counts, mut rng) = (vec![0u32; 1_000_001], rng(3, &[]));
        let draws = 2_000_000;
        (0..draws).for_each(|_| counts[draw(&mut rng) as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = counts[..10_000].iter().sum();
        (100.0 * f64::from(counts[0]) / f64::from(draws), 100.0 * f64::from(top) / f64::from(draws))
    }

    #[test]
    fn the_scrambled_distribution_is_as_skewed_as_that_of_ycsb() {
        let mut chooser = Chooser::new(&Ycsb { records: 1_000_000, ..spec(Core::C) });
        let (hottest, top) = skew(|rng| chooser.next(999_999, rng));
        assert!((hottest - 3.78).abs() < 0.1 && (top - 40.2).abs() < 0.5, "{hottest:.2} % and {top:.1} %");
    }

    #[test]
    fn the_latest_distribution_is_zipfs_from_the_end() {
        let mut chooser = Chooser::new(&Ycsb { records: 1_000_000, ..spec(Core::D) });
        let (hottest, top) = skew(|rng| 999_999 - chooser.next(999_999, rng));
        assert!((hottest - 6.51).abs() < 0.1 && (top - 67.2).abs() < 0.5, "{hottest:.2} % and {top:.1} %");
    }

    #[test]
    fn each_workload_has_the_shares_of_its_operations() {
        for core in [Core::A, Core::B, Core::C, Core::D, Core::E, Core::F] {
            let phases = run_on(&Noted::default(), &spec(core));
            assert_eq!(phases.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["load", "run"]);
            for (op, share) in OPS.into_iter().zip(core.shares()) {
                let count = phases[1].ops.get(op).map_or(0, |op| Latencies::from(&op.service).count());
                let wanted = share * 20_000.0;
                // Four standard deviations.
                let margin = 4.0 * (wanted * (1.0 - share)).sqrt();
                assert!((count as f64 - wanted).abs() <= margin, "{core:?} {op}: {count} of {wanted}");
            }
        }
    }

    #[test]
    fn nothing_is_read_that_was_not_acknowledged() {
        for core in [Core::D, Core::E] {
            let store = Noted::default();
            run_on(&store, &Ycsb { threads: 3, ..spec(core) });
            assert_eq!(store.missing.into_inner(), 0);
            assert!(store.map.into_inner().unwrap().len() > 2_500, "inserts came to it");
        }
    }

    #[test]
    fn an_update_touches_one_field_and_a_blob_all() {
        for core in [Core::A, Core::F] {
            let store = Noted::default();
            run_on(&store, &spec(core));
            let changed = store.changed.into_inner().unwrap();
            assert!(changed.len() > 5_000 && changed.iter().all(|fields| *fields == 1));
        }
        let store = Noted::default();
        run_on(&store, &Ycsb { blob: true, ..spec(Core::A) });
        assert!(store.changed.into_inner().unwrap().iter().all(|fields| *fields == 10));
    }

    #[test]
    fn scans_are_as_long_as_any_number_up_to_a_hundred() {
        let store = Noted::default();
        run_on(&store, &spec(Core::E));
        let scans = store.scans.into_inner().unwrap();
        let count = |limit: usize| scans.iter().filter(|l| **l == limit).count() as f64;
        let expected = scans.len() as f64 / 100.0;
        let chi2: f64 = (1..=100).map(|limit| (count(limit) - expected).powi(2) / expected).sum();
        // 99 degrees of freedom: one in a thousand is above 149.
        assert!(chi2 < 149.0 && scans.iter().all(|l| (1..=100).contains(l)), "{chi2:.0}");
    }

    #[test]
    fn a_record_that_is_gone_ends_the_run() {
        let store = Noted::default();
        let mut phases = 0;
        let outcome = run(&spec(Core::C), &store, Durability::Write, 7, &mut |phase| {
            phases += 1;
            let sample = phase();
            store.map.lock().unwrap().retain(|key, _| key.last() != Some(&b'7'));
            sample
        });
        assert!(matches!(&outcome, Err(SubjectError::Store(why)) if why.contains("is not there")), "{outcome:?}");
        assert_eq!(phases, 2);
    }

    #[test]
    fn a_share_of_the_rate_is_a_run_of_its_own() {
        let phases = run_on(&Noted::default(), &Ycsb { rate_share: 0.5, operations: 2_000, ..spec(Core::A) });
        assert_eq!(phases.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["load", "run", "at-rate"]);
        assert!(phases[1].ops["read"].response.is_none() && phases[2].ops["read"].response.is_some());
    }

    #[test]
    fn values_are_printable() {
        let mut bytes = [0; 1_000];
        fill(&mut bytes, &mut rng(1, &[]));
        assert!(bytes.iter().all(|b| (32..=127).contains(b)));
        assert!(bytes.iter().collect::<BTreeSet<_>>().len() > 80);
    }
}
