//! Compactions without files: the same pure `pick` over levels of imagined tables.
//!
//! Keys are written uniformly at random. A table is a row of pieces: ranges of keys, and how many of them it holds, because it
//! is dense where two runs met and thin where only one had anything. When runs merge, the keys they share count once: of `U`
//! keys in a range, runs with `n₁, n₂, …` of them hold together `U (1 − (1 − n₁/U)(1 − n₂/U)…)`. A compaction begins when it is
//! due and a thread is free for it, and takes as long as the [`Pace`] says: writes that come in meanwhile are slowed and held
//! up as a store does it.

use super::memtable::Memtable;
use super::options::Options;
use super::pick::{self, Shape, Task};
use super::store;
use super::version::{Edit, LEVELS, Levels, TableMeta};
use std::collections::{BTreeMap, BTreeSet};

/// Levels that grow as those of a store would.
#[derive(Clone, Debug)]
pub struct Simulation {
    levels: Levels,
    /// What is in each table, by its number.
    pieces: BTreeMap<u64, Vec<Piece>>,
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

/// A range of keys, its end excluded, and how many of them a table holds, as dense in one part as in another.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: u64,
    to: u64,
    held: f64,
}

impl Piece {
    fn density(&self) -> f64 {
        self.held / (self.to - self.from).max(1) as f64
    }
}

/// Pieces of a table at most.
const PIECES: usize = 8;

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
            pieces: BTreeMap::new(),
            shape: Shape::of(options),
            keys: keys.max(1) as f64,
            logged: entry as f64 + LOG_BYTES,
            stored: stored.max(1.0),
            flush: (options.memtable_size / Memtable::weight(entry as usize)).max(1) as u64,
            crowded: (options.level0_slow, options.level0_stall),
            stride: store::stride(options).max(1) as f64,
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
            let table = self.table(vec![Piece { from: 0, to: u64::MAX, held: distinct }]);
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
                if !self.apply(&done.edit) {
                    return;
                }
                continue;
            }
            if self.running.len() >= self.compactors {
                return;
            }
            let busy: BTreeSet<u64> = self.running.iter().flat_map(|running| running.inputs.iter().copied()).collect();
            let Some(task) = pick::pick(&self.levels, &self.shape, &busy) else { return };
            let (edit, bytes) = self.outcome(&task);
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

    /// Makes an edit if it fits, and says so; it does, if tables are cut one behind the other.
    fn apply(&mut self, edit: &Edit) -> bool {
        let Ok(levels) = self.levels.apply(edit) else { return false };
        self.levels = levels;
        let stays = |number| edit.add.iter().any(|(_, table)| table.number == number);
        edit.remove.iter().filter(|number| !stays(**number)).for_each(|number| drop(self.pieces.remove(number)));
        true
    }

    fn table(&mut self, pieces: Vec<Piece>) -> TableMeta {
        let number = self.next;
        self.next += 1;
        let entries: f64 = pieces.iter().map(|piece| piece.held).sum();
        let bound = |key: Option<u64>| key.unwrap_or_default().to_be_bytes().to_vec();
        let table = TableMeta {
            number,
            size: (entries * self.stored) as u64,
            entries: entries as u64,
            max_seq: number,
            smallest: bound(pieces.first().map(|first| first.from)),
            largest: bound(pieces.last().map(|last| last.to - 1)),
            ..TableMeta::default()
        };
        self.pieces.insert(number, fewer(pieces));
        table
    }

    /// What a compaction does, and the bytes that it writes.
    fn outcome(&mut self, task: &Task) -> (Edit, f64) {
        if task.moved.len() == task.inputs.len() {
            let inputs = self.levels.all().filter(|t| task.inputs.contains(&t.number));
            let add = inputs.map(|table| (task.output, (**table).clone())).collect();
            return (Edit { add, remove: task.inputs.clone(), ..Edit::default() }, 0.0);
        }
        let inputs: Vec<Piece> = task.inputs.iter().filter_map(|number| self.pieces.get(number)).flatten().copied().collect();
        let per_table = (task.table_size as f64 / self.stored).max(1.0);
        let (mut add, mut bytes) = (Vec::new(), 0.0);
        let mut end = |simulation: &mut Self, pieces: &mut Vec<Piece>| {
            let table = simulation.table(std::mem::take(pieces));
            bytes += table.size as f64;
            add.push((task.output, table));
        };
        let (mut pieces, mut held) = (Vec::new(), 0.0);
        for mut piece in self.union(inputs) {
            // A table ends in the middle of a piece.
            while held + piece.held >= per_table && piece.to - piece.from > 1 {
                let share = (per_table - held) / piece.held;
                let cut = piece.from.saturating_add(((piece.to - piece.from) as f64 * share) as u64);
                let cut = cut.clamp(piece.from + 1, piece.to - 1);
                pieces.push(Piece { to: cut, held: per_table - held, ..piece });
                end(self, &mut pieces);
                piece = Piece { from: cut, held: piece.held - (per_table - held), ..piece };
                held = 0.0;
            }
            held += piece.held;
            pieces.push(piece);
        }
        if held >= 1.0 {
            end(self, &mut pieces);
        }
        (Edit { add, remove: task.inputs.clone(), ..Edit::default() }, bytes)
    }

    /// What runs hold together, in order.
    fn union(&self, mut inputs: Vec<Piece>) -> Vec<Piece> {
        inputs.sort_by_key(|piece| piece.from);
        let mut cuts: Vec<u64> = inputs.iter().flat_map(|piece| [piece.from, piece.to]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let (mut rest, mut here) = (inputs.into_iter().peekable(), Vec::<Piece>::new());
        let mut union = Vec::new();
        for pair in cuts.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            here.retain(|piece| piece.to > from);
            here.extend(std::iter::from_fn(|| rest.next_if(|piece| piece.from <= from)));
            let all = self.keys * (to - from) as f64 / u64::MAX as f64;
            let without = here.iter().fold(1.0, |left, piece| {
                let held = piece.density() * (to - from) as f64;
                left * (1.0 - (held / all.max(f64::MIN_POSITIVE)).min(1.0))
            });
            if without < 1.0 {
                union.push(Piece { from, to, held: all * (1.0 - without) });
            }
        }
        union
    }
}

/// The same with few pieces: neighbours of about the same density become one.
fn fewer(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut tolerance = 0.05;
    loop {
        pieces = pieces.into_iter().fold(Vec::new(), |mut kept: Vec<Piece>, piece| {
            match kept.last_mut() {
                Some(last) if last.to == piece.from && (last.density() / piece.density()).ln().abs() <= tolerance => {
                    *last = Piece { to: piece.to, held: last.held + piece.held, ..*last };
                }
                _ => kept.push(piece),
            }
            kept
        });
        if pieces.len() <= PIECES || tolerance > 100.0 {
            return pieces;
        }
        tolerance *= 2.0;
    }
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

    /// Where a thin part of a table counted as dense as the rest of it, keys wandered, met others too often, and a seventh was
    /// lost: more than there are versions to lose.
    #[test]
    fn no_key_is_lost_between_the_levels() {
        let keys = 43_000_000;
        let pace = Pace { write: 1.0 / 650e3, compaction: 1.0 / 130e6 };
        let mut simulation = Simulation::new(&Options::default(), keys, 116, 118.0).at_pace(pace);
        simulation.write(2 * keys);
        simulation.settle();
        let space = simulation.space_amplification();
        assert!(space > 1.0 && space < 1.2, "{space:.2}");
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
