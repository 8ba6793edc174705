//! Which compaction is due: a pure decision over [`Levels`], so that it can be simulated without a file.
//!
//! Levels have targets that follow the size of the last one (RocksDB's dynamic level targets): the last level
//! holds most of the data, each level above a tenth of the next, down to `base_level_size`; level 0 goes
//! straight to the first level that this leaves. So little of the data is stale, whatever its size.

use super::options::Options;
use super::version::{LEVELS, Levels, TableMeta};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A compaction: tables that become others in a level below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// The tables that it is about, of all levels.
    pub(super) inputs: Vec<u64>,
    /// Where their successors go.
    pub(super) output: usize,
    /// Bytes at which a successor ends.
    pub(super) table_size: u64,
    /// Value log files whose values move to a new one.
    pub(super) collect: BTreeSet<u64>,
    /// Inputs that only change their level, because they overlap nothing: RocksDB's trivial moves. What comes in order is so
    /// never written again.
    pub(super) moved: BTreeSet<u64>,
    /// Whether these are all tables there are. Then those that are to move are read first, and written again after all if that
    /// drops anything.
    pub(super) all: bool,
}

/// What of the options shapes the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) level0_tables: usize,
    pub(super) multiplier: u64,
    pub(super) base_size: u64,
    pub(super) table_size: u64,
    pub(super) collect_ratio: f64,
}

impl Shape {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            level0_tables: options.level0_tables,
            multiplier: options.level_multiplier,
            base_size: options.base_level_size,
            table_size: options.table_size,
            collect_ratio: options.collect_ratio,
        }
    }
}

/// How large each level may grow, and which one level 0 goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) bytes: [u64; LEVELS],
    pub(super) base: usize,
}

impl Targets {
    pub(super) fn new(levels: &Levels, shape: &Shape) -> Self {
        // Above the last level everything is on its way there, so the largest level says how much data there is.
        let mut target = (1..LEVELS).map(|level| levels.size(level)).max().unwrap_or(0);
        let (mut bytes, mut base) = ([0; LEVELS], 0);
        for level in (1..LEVELS).rev() {
            bytes[level] = target.max(shape.base_size);
            if base == 0 && target <= shape.base_size {
                base = level;
            }
            target /= shape.multiplier;
        }
        Self { bytes, base: base.max(1) }
    }

    /// Bytes of a table in this level.
    pub(super) fn table_size(&self, level: usize, shape: &Shape) -> u64 {
        shape.table_size << level.saturating_sub(self.base).min(20)
    }
}

/// The compaction that is most due, leaving out tables that are at work already. Level 0 comes first, before it slows writes,
/// unless the level it goes to must shrink before; and while one below is in its way, none is begun that would be, too.
pub(super) fn pick(levels: &Levels, shape: &Shape, busy: &BTreeSet<u64>) -> Option<Task> {
    let targets = Targets::new(levels, shape);
    let mut due: Vec<(f64, usize)> = (0..LEVELS - 1).map(|level| (score(levels, shape, &targets, busy, level), level)).collect();
    due.retain(|(score, _)| *score >= 1.0);
    due.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut kept_free = None;
    for (score, level) in due {
        if level == 0 {
            let task = from_level0(levels, shape, &targets, busy);
            if task.is_some() {
                return task;
            }
            let is_at_work = levels.tables[0].iter().any(|t| busy.contains(&t.number));
            kept_free = (score == FIRST && !is_at_work).then(|| output_of_level0(levels, &targets));
        } else if kept_free.is_none_or(|output| level != output && level + 1 != output) {
            let task = from_level(levels, shape, &targets, busy, level);
            if task.is_some() {
                return task;
            }
        }
    }
    if kept_free.is_some() { None } else { collection(levels, shape, &targets, busy) }
}

/// The score of what goes before all else.
const FIRST: f64 = f64::INFINITY;

/// Bytes of the level that level 0 goes to, for each of level 0, up to which that goes first. With more it would cost too much:
/// each time, all of that level is written again. Of 0, 1, 1.5, 2, 3, 4 and no limit, simulations of writes that compactions
/// cannot follow end soonest with 2, and those at half of that rate are never slowed.
const DRAGGED: u64 = 2;

/// How due a level is: from 1 on it is.
fn score(levels: &Levels, shape: &Shape, targets: &Targets, busy: &BTreeSet<u64>, level: usize) -> f64 {
    let free = levels.tables[level].iter().filter(|t| !busy.contains(&t.number));
    let tables = free.clone().count();
    let bytes: u64 = free.map(|t| t.size).sum();
    if level == 0 {
        let comes_first = tables >= shape.level0_tables && levels.size(output_of_level0(levels, targets)) <= DRAGGED * bytes;
        return if comes_first { FIRST } else { tables as f64 / shape.level0_tables as f64 };
    }
    if level < targets.base {
        // A level that the targets have left behind.
        return if bytes > 0 { 1.0 + bytes as f64 / shape.base_size as f64 } else { 0.0 };
    }
    bytes as f64 / targets.bytes[level] as f64
}

/// Bytes that levels hold above their targets.
pub(super) fn pending(levels: &Levels, shape: &Shape) -> u64 {
    let targets = Targets::new(levels, shape);
    let level0 = if levels.tables[0].len() < shape.level0_tables { 0 } else { levels.size(0) };
    let above = |level| {
        let target = if level < targets.base { 0 } else { targets.bytes[level] };
        levels.size(level).saturating_sub(target)
    };
    level0 + (1..LEVELS - 1).map(above).sum::<u64>()
}

/// Bytes whose compaction costs as much as one scan's visit to one table: LevelDB measured 40 KB for a seek and reckons
/// with this, to be on the safe side (`version_set.cc`).
const VISIT: u64 = 16 << 10;

/// Empties level 0 when scans have spent as much on its tables as that costs. Gets have filters, but a scan has to look
/// into each of them.
pub(super) fn for_scans(levels: &Levels, shape: &Shape, busy: &BTreeSet<u64>, scans: u64) -> Option<Task> {
    let tables = levels.tables[0].len();
    let spent = scans.saturating_mul(tables as u64 * VISIT);
    if spent < levels.size(0) {
        // An idle worker asks often.
        return None;
    }
    let task = from_level0(levels, shape, &Targets::new(levels, shape), busy)?;
    let merged = |t: &&Arc<TableMeta>| task.inputs.contains(&t.number) && !task.moved.contains(&t.number);
    let bytes: u64 = levels.all().filter(merged).map(|t| t.size).sum();
    let fewer = tables + usize::from(!levels.tables[task.output].is_empty()) > 1;
    (fewer && spent >= bytes).then_some(task)
}

fn from_level0(levels: &Levels, shape: &Shape, targets: &Targets, busy: &BTreeSet<u64>) -> Option<Task> {
    // Tables of level 0 overlap: one that stayed would hide newer versions, so they go together.
    let tables = &levels.tables[0];
    if tables.iter().any(|t| busy.contains(&t.number)) {
        return None;
    }
    task(levels, shape, targets, busy, tables, output_of_level0(levels, targets))
}

/// Levels above the base must not hold older versions that would come to lie above newer ones.
fn output_of_level0(levels: &Levels, targets: &Targets) -> usize {
    (1..targets.base).find(|level| !levels.tables[*level].is_empty()).unwrap_or(targets.base)
}

fn from_level(levels: &Levels, shape: &Shape, targets: &Targets, busy: &BTreeSet<u64>, level: usize) -> Option<Task> {
    // The table that drags the fewest bytes along for each of its own; the oldest of equals. Both levels are in order.
    let below = &levels.tables[level + 1];
    let mut first = 0;
    let cost = |t: &Arc<TableMeta>| {
        first += below[first..].iter().take_while(|o| o.largest < t.smallest).count();
        let overlapping = below[first..].iter().take_while(|o| o.smallest <= t.largest);
        overlapping.map(|o| o.size).sum::<u64>() as f64 / t.size.max(1) as f64
    };
    let costs = levels.tables[level].iter().map(cost).zip(levels.tables[level].iter());
    let mut free: Vec<_> = costs.filter(|(_, t)| !busy.contains(&t.number)).collect();
    free.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.number.cmp(&b.1.number)));
    free.into_iter().find_map(|(_, t)| task(levels, shape, targets, busy, std::slice::from_ref(t), level + 1))
}

/// These tables and what they overlap in the output level; `None` if some of it is busy.
fn task(
    levels: &Levels,
    shape: &Shape,
    targets: &Targets,
    busy: &BTreeSet<u64>,
    tables: &[Arc<TableMeta>],
    output: usize,
) -> Option<Task> {
    let smallest = tables.iter().map(|t| &t.smallest).min()?;
    let largest = tables.iter().map(|t| &t.largest).max()?;
    let below = levels.overlapping(output, smallest, largest);
    let table_size = targets.table_size(output, shape);
    let apart = apart(tables.iter().chain(below));
    // What lies between the tables stays where it is; but short ones become longer ones with what comes between them.
    let stays = |t: &&Arc<TableMeta>| apart.contains(&t.number) && is_long(t, table_size);
    let touched = below.iter().filter(|t| !stays(t));
    let inputs: Vec<u64> = tables.iter().chain(touched).map(|t| t.number).collect();
    if inputs.iter().any(|number| busy.contains(number)) {
        return None;
    }
    let one = inputs.len() == 1;
    let moves = |t: &&Arc<TableMeta>| apart.contains(&t.number) && t.deletes == 0 && (one || is_long(t, table_size));
    let moved = tables.iter().filter(moves).map(|t| t.number).collect();
    Some(Task { inputs, output, table_size, collect: BTreeSet::new(), moved, all: false })
}

/// Whether a table is long enough to stay one: many short ones would make a level a long list.
fn is_long(table: &TableMeta, table_size: u64) -> bool {
    table.size >= table_size / 2
}

/// The tables that overlap none of the others.
fn apart<'t>(tables: impl Iterator<Item = &'t Arc<TableMeta>>) -> BTreeSet<u64> {
    let mut tables: Vec<_> = tables.collect();
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    let mut before: Option<&[u8]> = None;
    let mut found = BTreeSet::new();
    for (at, table) in tables.iter().enumerate() {
        let next = tables.get(at + 1).map(|next| &next.smallest);
        if before.is_none_or(|before| before < &table.smallest[..]) && next.is_none_or(|next| *next > table.largest) {
            found.insert(table.number);
        }
        before = before.max(Some(&table.largest[..]));
    }
    found
}

/// Rewrites a table that points to a value log file of which too much is garbage: its values move to a new file,
/// and when the last table has let go of the old one it is removed. Keys keep their versions, so nothing that
/// was deleted can return.
fn collection(levels: &Levels, shape: &Shape, targets: &Targets, busy: &BTreeSet<u64>) -> Option<Task> {
    let live = levels.live_values();
    let wasteful = live.into_iter().filter(|(number, live)| {
        let size = levels.values.get(number).copied().unwrap_or(0);
        *live > 0 && size.saturating_sub(*live) as f64 >= shape.collect_ratio * size as f64
    });
    for (file, _) in wasteful {
        for (level, tables) in levels.tables.iter().enumerate() {
            if let Some(table) = tables.iter().find(|t| t.values.contains_key(&file) && !busy.contains(&t.number)) {
                let table_size = if level == 0 { u64::MAX } else { targets.table_size(level, shape).max(table.size * 2) };
                return Some(Task {
                    inputs: vec![table.number],
                    output: level,
                    table_size,
                    collect: BTreeSet::from([file]),
                    moved: BTreeSet::new(),
                    all: false,
                });
            }
        }
    }
    None
}

/// Everything into one level, for an owner who asks.
pub(super) fn everything(levels: &Levels, shape: &Shape, busy: &BTreeSet<u64>) -> Option<Task> {
    if !busy.is_empty() {
        return None;
    }
    let inputs: Vec<u64> = levels.all().map(|t| t.number).collect();
    let output = LEVELS - 1;
    let targets = Targets { bytes: [0; LEVELS], base: LEVELS - 3 };
    let table_size = targets.table_size(output, shape);
    let apart = apart(levels.all());
    let moves =
        |t: &&Arc<TableMeta>| apart.contains(&t.number) && t.deletes == 0 && t.values.is_empty() && is_long(t, table_size);
    let moved = levels.all().filter(moves).map(|t| t.number).collect();
    let collect = levels.values.keys().copied().collect();
    (!inputs.is_empty()).then_some(Task { inputs, output, table_size, collect, moved, all: true })
}

#[cfg(test)]
mod tests {
    use super::super::version::Edit;
    use super::*;

    const SHAPE: Shape = Shape { level0_tables: 2, multiplier: 10, base_size: 100, table_size: 20, collect_ratio: 0.5 };

    fn table(number: u64, size: u64, keys: (u8, u8)) -> TableMeta {
        TableMeta {
            number,
            size,
            entries: 1,
            max_seq: number,
            smallest: vec![keys.0],
            largest: vec![keys.1],
            ..TableMeta::default()
        }
    }

    fn levels(tables: &[(usize, TableMeta)]) -> Levels {
        Levels::new().apply(&Edit { add: tables.to_vec(), ..Edit::default() }).unwrap()
    }

    #[test]
    fn level_0_goes_to_the_base_level_as_a_whole() {
        let two = [(0, table(1, 50, (0, 9))), (0, table(2, 50, (5, 20)))];
        assert_eq!(pick(&levels(&two[..1]), &SHAPE, &BTreeSet::new()), None);
        let tree = levels(&[&two[..], &[(6, table(3, 50, (9, 9))), (6, table(4, 50, (21, 30)))]].concat());
        let task = pick(&tree, &SHAPE, &BTreeSet::new()).unwrap();
        assert_eq!((task.inputs, task.output), (vec![2, 1, 3], 6));
        assert_eq!(pick(&tree, &SHAPE, &BTreeSet::from([3])), None);
    }

    /// However much there is, level 0 goes to a level (Badger's `TestBaseLevelZeroBySize`).
    #[test]
    fn the_base_level_is_never_level_0() {
        let huge = u64::MAX / 4;
        for shape in [SHAPE, Shape { base_size: 1, multiplier: 2, ..SHAPE }] {
            let tree = levels(&[(0, table(1, 50, (0, 9))), (0, table(2, 50, (5, 20))), (6, table(3, huge, (0, 30)))]);
            assert_eq!(Targets::new(&tree, &shape).base, 1);
            assert_eq!(pick(&tree, &shape, &BTreeSet::new()).map(|task| (task.inputs, task.output)), Some((vec![2, 1], 1)));
        }
    }

    #[test]
    fn level_0_goes_first_unless_what_it_goes_to_is_too_large() {
        let below = [(5, table(1, 400, (0, 9))), (5, table(2, 400, (20, 29))), (6, table(3, 1_000, (0, 4)))];
        let of = |tables: &[u64], bytes, busy: &[u64]| {
            let above: Vec<_> = tables.iter().map(|number| (0, table(*number, bytes, (0, 9)))).collect();
            let tree = levels(&[&above[..], &below].concat());
            pick(&tree, &SHAPE, &busy.iter().copied().collect()).map(|task| (task.inputs[0], task.output))
        };
        let two = [10, 11];
        assert_eq!((of(&two, 199, &[]), of(&two, 200, &[])), (Some((2, 6)), Some((11, 5))), "level 5 is due eight times");
        // What level 0 needs is at work: nothing else is begun that it will need.
        assert_eq!((of(&two, 199, &[1]), of(&two, 200, &[1])), (Some((2, 6)), None));
        // It is at work itself, and what came meanwhile waits anyway.
        assert_eq!(of(&[10, 11, 12, 13], 200, &[10, 11, 1]), Some((2, 6)));
    }

    #[test]
    fn scans_empty_level_0_when_they_have_spent_as_much() {
        let one = [(0, table(1, 3 * VISIT, (0, 9)))];
        let below = [(6, table(2, VISIT, (5, 6))), (6, table(3, 9 * VISIT, (10, 30)))];
        let shape = Shape { base_size: 1 << 20, ..SHAPE };
        let due = |tables: &[(usize, TableMeta)], scans| for_scans(&levels(tables), &shape, &BTreeSet::new(), scans);
        assert_eq!(due(&[&one[..], &below].concat(), 3), None);
        assert_eq!(due(&[&one[..], &below].concat(), 4).unwrap().inputs, [1, 2]);
        assert_eq!(due(&[&one[..], &[(0, table(4, VISIT, (0, 9)))], &below].concat(), 3).unwrap().inputs, [4, 1, 2]);
        // Nothing would be gained.
        assert_eq!((due(&one, u64::MAX), due(&below, u64::MAX)), (None, None));
    }

    #[test]
    fn targets_follow_the_last_level() {
        let tree = levels(&[(6, table(1, 5_000, (0, 9)))]);
        let targets = Targets::new(&tree, &SHAPE);
        assert_eq!((targets.base, &targets.bytes[4..]), (4, &[100, 500, 5_000][..]));
        assert_eq!(Targets::new(&Levels::new(), &SHAPE).base, 6);
        assert_eq!([3, 4, 5, 6].map(|l| targets.table_size(l, &SHAPE)), [20, 20, 40, 80]);
    }

    #[test]
    fn a_full_level_gives_the_table_that_drags_least() {
        let tree = levels(&[
            (5, table(1, 300, (0, 9))),
            (5, table(2, 300, (10, 19))),
            (6, table(3, 4_000, (5, 12))),
            (6, table(4, 1_000, (13, 19))),
        ]);
        let task = pick(&tree, &SHAPE, &BTreeSet::new()).unwrap();
        assert_eq!((task.inputs, task.output, task.moved), (vec![1, 3], 6, BTreeSet::new()));
        // Its input is at work: the other table would drag the same one along.
        assert_eq!(pick(&tree, &SHAPE, &BTreeSet::from([3])), None);
    }

    #[test]
    fn a_table_that_overlaps_nothing_moves() {
        let tree = |deletes| {
            let free = TableMeta { deletes, ..table(3, 60, (20, 21)) };
            levels(&[(5, table(2, 50, (0, 9))), (5, free), (6, table(4, 1_000, (0, 9)))])
        };
        let task = pick(&tree(0), &SHAPE, &BTreeSet::new()).unwrap();
        assert_eq!((task.inputs, task.output, task.moved), (vec![3], 6, BTreeSet::from([3])));
        // Its deletes have nothing left to hide: it is written again without them.
        assert_eq!(pick(&tree(1), &SHAPE, &BTreeSet::new()).unwrap().moved, BTreeSet::new());
    }

    #[test]
    fn what_comes_in_order_moves_out_of_level_0() {
        let of = |last, below, busy: &[u64]| {
            let above = [(0, table(1, 50, (0, 9))), (0, table(2, 5, (10, 19))), (0, table(3, 50, last))];
            let tree = levels(&[&above[..], &[(6, table(9, below, (20, 29)))]].concat());
            let task = pick(&tree, &SHAPE, &busy.iter().copied().collect());
            task.map(|task| (task.inputs, task.moved))
        };
        // The second is too short to be a table of its own; what lies between them stays, if it is long.
        assert_eq!(of((30, 39), 10, &[9]), Some((vec![3, 2, 1], BTreeSet::from([1, 3]))));
        assert_eq!(of((30, 39), 9, &[]), Some((vec![3, 2, 1, 9], BTreeSet::from([1, 3]))));
        assert_eq!(of((30, 39), 9, &[9]), None);
        assert_eq!(of((25, 39), 10, &[]), Some((vec![3, 2, 1, 9], BTreeSet::from([1]))));
    }

    #[test]
    fn a_table_inside_another_is_not_apart() {
        let apart = |ranges: &[(u8, u8)]| {
            let tables: Vec<_> = (1..).zip(ranges).map(|(number, keys)| Arc::new(table(number, 1, *keys))).collect();
            super::apart(tables.iter())
        };
        assert_eq!(apart(&[(0, 9), (2, 3), (5, 5), (10, 11), (12, 20), (20, 21), (22, 22)]), BTreeSet::from([4, 7]));
        assert_eq!(apart(&[(3, 3), (1, 1), (2, 2)]), BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn an_owner_who_asks_has_merged_only_what_overlaps() {
        let shape = Shape { table_size: 10, ..SHAPE };
        let deleting = TableMeta { deletes: 1, ..table(5, 60, (50, 59)) };
        let pointing = TableMeta { values: [(9, 4)].into(), ..table(6, 60, (60, 69)) };
        let tables = [
            (0, table(1, 60, (0, 9))),
            (0, table(2, 60, (10, 29))),
            (6, table(3, 60, (20, 39))),
            (6, table(4, 60, (40, 49))),
            (6, deleting),
            (6, pointing),
            (6, table(7, 19, (70, 79))),
        ];
        let tree = levels(&tables).apply(&Edit { add_values: vec![(9, 4)], ..Edit::default() }).unwrap();
        let task = everything(&tree, &shape, &BTreeSet::new()).unwrap();
        assert_eq!((task.inputs.len(), task.output, task.moved), (7, 6, BTreeSet::from([1, 4])));
        assert!(task.all);
        assert_eq!(everything(&tree, &shape, &BTreeSet::from([1])), None);
        assert_eq!(everything(&Levels::new(), &shape, &BTreeSet::new()), None);
    }

    #[test]
    fn garbage_in_the_value_log_is_collected_table_by_table() {
        let pointing = |number, keys, bytes| TableMeta { values: [(9, bytes)].into(), ..table(number, 10, keys) };
        let tree = levels(&[(6, pointing(1, (0, 3), 20)), (6, pointing(2, (4, 7), 20))]);
        let of = |size| tree.apply(&Edit { add_values: vec![(9, size)], ..Edit::default() }).unwrap();
        assert_eq!(pick(&of(79), &SHAPE, &BTreeSet::new()), None);
        let task = pick(&of(80), &SHAPE, &BTreeSet::new()).unwrap();
        assert_eq!((task.inputs, task.output, task.collect), (vec![1], 6, BTreeSet::from([9])));
        assert_eq!(pick(&of(80), &SHAPE, &BTreeSet::from([1])).unwrap().inputs, [2]);
    }
}
