//! Compactions without files: the same pure `pick` over levels of imagined tables.
//!
//! Keys are written uniformly at random. A table is a range of keys and how many of them it holds; when runs merge,
//! the keys they share count once: of `U` keys in a range, runs with `n₁, n₂, …` of them hold together
//! `U (1 − (1 − n₁/U)(1 − n₂/U)…)`. A compaction begins when it is due and a thread is free for it, and takes as long as
//! the [`Pace`] says: writes that come in meanwhile are slowed and held up as a store does it.

use super::memtable::Memtable;
use super::options::Options;
use super::pick::{self, Shape, Task};
use super::store;
use super::version::{Edit, LEVELS, Levels, TableMeta};
use std::collections::BTreeSet;

/// Levels that grow as those of a store would.
#[derive(Clone, Debug)]
pub struct Simulation {
    levels: Levels,
    shape: Shape,
    /// Keys that are written, each as often as any other.
    keys: f64,
    /// Bytes that a write brings to the log.
    logged: f64,
    /// Bytes of a version in a table.
    stored: f64,
    /// Writes that fill a memtable.
    flush: u64,
    /// Tables of level 0 that slow writes, and that hold them up.
    crowded: (usize, usize),
    /// Bytes of writes after which slowed ones rest.
    stride: f64,
    /// Compactions at a time.
    compactors: usize,
    pace: Pace,
    /// Seconds that have gone by.
    now: f64,
    running: Vec<Running>,
    pending: u64,
    writes: u64,
    flushed: f64,
    compacted: f64,
    next: u64,
}

/// How fast a store writes and compacts. By default its compactions take no time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Seconds from one write to the next, if nothing holds it up.
    pub write: f64,
    /// Seconds that a compaction takes for each byte that it writes.
    pub compaction: f64,
}

/// A compaction at work.
#[derive(Clone, Debug)]
struct Running {
    inputs: Vec<u64>,
    /// What it will have done at this time.
    edit: Edit,
    ends: f64,
}

/// Body of a log record beside key and value, for keys and values of up to 127 bytes: number, count, kind, lengths.
const LOG_BYTES: f64 = 15.0;

impl Simulation {
    /// An empty store with these options, whose writes go to `keys` keys. `entry` is the length of a key and its
    /// value, `stored` what both take in a table, on average, in bytes.
    pub fn new(options: &Options, keys: u64, entry: u64, stored: f64) -> Self {
        Self {
            levels: Levels::new(),
            shape: Shape::of(options),
            keys: keys.max(1) as f64,
            logged: entry as f64 + LOG_BYTES,
            stored: stored.max(1.0),
            flush: (options.memtable_size / Memtable::weight(entry as usize)).max(1) as u64,
            crowded: (options.level0_slow, options.level0_stall),
            stride: store::stride(options) as f64,
            compactors: store::compactors(options),
            pace: Pace::default(),
            now: 0.0,
            running: Vec::new(),
            pending: 0,
            writes: 0,
            flushed: 0.0,
            compacted: 0.0,
            next: 1,
        }
    }

    /// The same at this pace.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Writes so many times to keys at random, and compacts what is due.
    pub fn write(&mut self, writes: u64) {
        let mut left = writes;
        while left > 0 {
            let level0 = self.levels.tables[0].len();
            let (slow, stall) = self.crowded;
            if level0 >= stall && self.wait_for_one() {
                continue;
            }
            let each = self.pace.write + store::slowing(level0, slow).as_secs_f64() * self.logged / self.stride;
            let until_one_ends = self.next_end().map_or(u64::MAX, |ends| ((ends - self.now) / each).ceil() as u64);
            let some = left.min(self.flush - self.pending).min(until_one_ends.max(1));
            self.now += some as f64 * each;
            self.writes += some;
            self.pending += some;
            left -= some;
            if self.pending == self.flush {
                self.flush_pending();
            }
            self.advance();
        }
    }

    /// Writes what is in memory into a table, and waits until nothing is due any more.
    pub fn settle(&mut self) {
        self.flush_pending();
        self.advance();
        while self.wait_for_one() {}
    }

    fn flush_pending(&mut self) {
        let writes = std::mem::take(&mut self.pending);
        let distinct = self.keys * -(-(writes as f64) / self.keys).exp_m1();
        if distinct >= 1.0 {
            let table = self.table(0, u64::MAX, distinct);
            self.flushed += table.size as f64;
            self.apply(&Edit { add: vec![(0, table)], ..Edit::default() });
        }
    }

    fn next_end(&self) -> Option<f64> {
        self.running.iter().map(|running| running.ends).min_by(f64::total_cmp)
    }

    /// Lets time go by until a compaction has ended; whether there was one.
    fn wait_for_one(&mut self) -> bool {
        let end = self.next_end();
        self.now = end.unwrap_or(self.now).max(self.now);
        self.advance();
        end.is_some()
    }

    /// Ends the compactions whose time has come and begins those that are due.
    fn advance(&mut self) {
        loop {
            if let Some(done) = self.running.iter().position(|running| running.ends <= self.now) {
                let done = self.running.swap_remove(done);
                self.apply(&done.edit);
                continue;
            }
            let busy: BTreeSet<u64> = self.running.iter().flat_map(|running| running.inputs.iter().copied()).collect();
            let free = self.running.len() < self.compactors;
            let Some(task) = pick::pick(&self.levels, &self.shape, &busy).filter(|_| free) else { return };
            let (edit, bytes) = self.outcome(&task);
            if self.levels.apply(&edit).is_err() {
                return;
            }
            self.compacted += bytes;
            self.running.push(Running { inputs: task.inputs, edit, ends: self.now + bytes * self.pace.compaction });
        }
    }

    /// Bytes that flushes and compactions wrote for each byte that came to the log.
    pub fn write_amplification(&self) -> f64 {
        (self.flushed + self.compacted) / (self.writes as f64 * self.logged).max(1.0)
    }

    /// Versions in tables for each key that is in one.
    pub fn space_amplification(&self) -> f64 {
        let versions: f64 = self.levels.all().map(|t| t.entries as f64).sum();
        let flushed = (self.writes - self.pending) as f64;
        versions / (self.keys * -(-flushed / self.keys).exp_m1()).max(1.0)
    }

    /// Bytes in tables.
    pub fn bytes(&self) -> u64 {
        (0..LEVELS).map(|level| self.levels.size(level)).sum()
    }

    /// Makes an edit if it fits; it does, if tables are cut one behind the other.
    fn apply(&mut self, edit: &Edit) {
        if let Ok(levels) = self.levels.apply(edit) {
            self.levels = levels;
        }
    }

    fn table(&mut self, from: u64, to: u64, entries: f64) -> TableMeta {
        let number = self.next;
        self.next += 1;
        TableMeta {
            number,
            size: (entries * self.stored) as u64,
            entries: entries as u64,
            max_seq: number,
            smallest: from.to_be_bytes().to_vec(),
            largest: to.to_be_bytes().to_vec(),
            ..TableMeta::default()
        }
    }

    /// What a compaction does, and the bytes that it writes.
    fn outcome(&mut self, task: &Task) -> (Edit, f64) {
        let inputs: Vec<TableMeta> =
            self.levels.all().filter(|t| task.inputs.contains(&t.number)).map(|t| (**t).clone()).collect();
        if task.moved.len() == task.inputs.len() {
            let add = inputs.into_iter().map(|table| (task.output, table)).collect();
            return (Edit { add, remove: task.inputs.clone(), ..Edit::default() }, 0.0);
        }
        let ranges: Vec<(u64, u64, f64)> =
            inputs.iter().map(|t| (number(&t.smallest), number(&t.largest), t.entries as f64)).collect();
        let mut cuts: Vec<u64> = ranges.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let per_table = (task.table_size as f64 / self.stored).max(1.0);
        let (mut add, mut held) = (Vec::new(), 0.0);
        let mut begin = cuts.first().copied().unwrap_or(0);
        for pair in cuts.windows(2) {
            let (mut from, to) = (pair[0], pair[1]);
            let mut left = self.union(&ranges, from, to);
            // A table ends in the middle of a stretch of even density.
            while held + left >= per_table {
                let share = (per_table - held) / left;
                let cut = (from + ((to - from) as f64 * share) as u64).clamp(from.max(begin), to);
                let table = self.table(begin, cut, per_table);
                add.push((task.output, table));
                left -= per_table - held;
                (held, begin, from) = (0.0, cut.saturating_add(1), cut);
            }
            held += left;
        }
        let end = cuts.last().copied().unwrap_or(u64::MAX);
        if held >= 1.0 && begin <= end {
            let table = self.table(begin, end, held);
            add.push((task.output, table));
        }
        let bytes = add.iter().map(|(_, table)| table.size as f64).sum();
        (Edit { add, remove: task.inputs.clone(), ..Edit::default() }, bytes)
    }

    /// Keys that the runs together hold between two keys.
    fn union(&self, ranges: &[(u64, u64, f64)], from: u64, to: u64) -> f64 {
        let all = self.keys * (to - from) as f64 / u64::MAX as f64;
        let without =
            ranges.iter().filter(|(first, last, _)| *first <= from && to <= *last).fold(1.0, |left, (first, last, n)| {
                let here = n * (to - from) as f64 / ((last - first) as f64).max(1.0);
                left * (1.0 - (here / all.max(f64::MIN_POSITIVE)).min(1.0))
            });
        all * (1.0 - without)
    }
}

fn number(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Options {
        Options { memtable_size: 1 << 20, base_level_size: 1 << 20, table_size: 256 << 10, ..Options::default() }
    }

    #[test]
    fn what_is_written_once_is_in_tables_once() {
        // So many keys that hardly any is written twice.
        let mut simulation = Simulation::new(&small(), 1 << 50, 116, 100.0);
        simulation.write(400_000);
        let written = (simulation.writes - simulation.pending) as f64 * 100.0;
        assert!((simulation.bytes() as f64 / written - 1.0).abs() < 0.01, "{} of {written}", simulation.bytes());
        assert!((simulation.space_amplification() - 1.0).abs() < 0.01);
        assert!(simulation.write_amplification() > 1.0);
    }

    #[test]
    fn overwriting_does_not_let_it_grow() {
        let mut simulation = Simulation::new(&small(), 50_000, 116, 100.0);
        let mut most: f64 = 0.0;
        for _ in 0..60 {
            simulation.write(50_000);
            most = most.max(simulation.space_amplification());
        }
        assert!(simulation.space_amplification() >= 1.0 && most < 2.5, "{most}");
    }

    #[test]
    fn compactions_that_lag_behind_rewrite_less_and_hold_writes_up() {
        let (write, keys) = (1e-6, 1_000_000);
        let run = |compaction: f64| {
            let mut simulation = Simulation::new(&small(), keys, 116, 100.0).at_pace(Pace { write, compaction });
            let mut most = 0;
            for _ in 0..2_000 {
                simulation.write(keys / 1_000);
                most = most.max(simulation.levels.tables[0].len());
            }
            let took = simulation.now;
            simulation.settle();
            assert_eq!(pick::pick(&simulation.levels, &simulation.shape, &BTreeSet::new()).map(|task| task.output), None);
            (simulation.write_amplification(), took, most)
        };
        let (at_once, slow) = (run(0.0), run(1e-8));
        assert!(slow.0 < at_once.0 * 0.95, "{slow:?}, {at_once:?}");
        assert!(slow.1 > 2.0 * at_once.1 && (at_once.1 - 2.0).abs() < 0.01, "{slow:?}, {at_once:?}");
        let options = small();
        assert!(at_once.2 < options.level0_tables + 1 && slow.2 > options.level0_tables && slow.2 <= options.level0_stall);
    }

    /// A gibibyte at the defaults, 36,000 of a million records of 1,000 bytes written each second, and compactions of 100 MB/s.
    #[test]
    fn compactions_that_can_follow_never_let_level_0_slow_writes() {
        let (options, records) = (Options::default(), 1_000_000);
        let pace = Pace { write: 1.0 / 36e3, compaction: 1e-8 };
        let mut simulation = Simulation::new(&options, records, 1_016, 1_016.0).at_pace(pace);
        let mut most = 0;
        for _ in 0..4 * records / 1_000 {
            simulation.write(1_000);
            most = most.max(simulation.levels.tables[0].len());
        }
        assert!(most > options.level0_tables && most < options.level0_slow, "{most}");
    }

    #[test]
    fn more_data_is_rewritten_more_often() {
        let amplification = |keys: u64| {
            let mut simulation = Simulation::new(&small(), keys, 116, 100.0);
            simulation.write(keys * 2);
            simulation.write_amplification()
        };
        let (little, more, much) = (amplification(40_000), amplification(400_000), amplification(4_000_000));
        assert!(little < more && more < much, "{little:.1}, {more:.1}, {much:.1}");
    }
}
