//! In which order the states of a crash point are tried: cheap and telling ones first.
//!
//! The order is that of `facts` gathered from ALICE (omit one operation), CrashMonkey and SQLite's crash
//! tests (torn writes): what is kept whole or lost whole first, single effects next, pairs and chance last.

use super::layout::{Layout, SECTOR};
use super::state::{State, Tear};
use super::trace::Op;
use super::view::View;
use crate::workload::random::{Rng, rng};
use rand::RngExt;

/// A way to choose states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// Nothing volatile survives.
    KeepNone,
    /// Everything survives.
    KeepAll,
    /// All names, no data.
    NamesOnly,
    /// All data, no names.
    DataOnly,
    /// All names and sizes, no data; or the first calls' data only.
    SizeWithoutData,
    /// All names and data, no sizes.
    DataWithoutSize,
    /// All but one call.
    OmitOne,
    /// One call only.
    KeepOne,
    /// The first calls on one file, and all or nothing of the others.
    FilePrefix,
    /// The last write in pieces.
    TornLast,
    /// All but one sector.
    TornSector,
    /// Garbage where sizes survive and data does not.
    Garbage,
    /// All but two calls.
    OmitTwo,
    /// By chance.
    Random,
}

/// One state to try.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    None,
    All,
    NamesOnly,
    DataOnly,
    Sizes { file: usize, data: u32 },
    DataWithoutSize,
    Omit(Effect),
    Keep(Effect),
    Prefix { file: usize, ops: u32, others: bool },
    Torn { file: usize, first: u32, last: u32, cut: Cut },
    Sector { file: usize, sector: usize },
    Garbage { file: usize, data: u32, seed: u64 },
    OmitTwo(Effect, Effect),
    Random(u64),
}

/// What a call did to names or to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// On names: index into the layout's name operations.
    Name(usize),
    /// On a file: its first and last operation.
    #[expect(missing_docs, reason = "explained above, together")]
    Data { file: usize, first: u32, last: u32 },
}

impl Effect {
    /// The call, as an index into the trace's.
    pub fn call(self, layout: &Layout<'_>) -> usize {
        match self {
            Effect::Name(name) => layout.names[name].call,
            Effect::Data { file, first, .. } => layout.files[file].ops[first as usize].call,
        }
    }

    /// Whether a state lacks some of it.
    pub fn is_missing(self, view: &View<'_, '_>, state: &State) -> bool {
        match self {
            Effect::Name(name) => !state.names[name],
            Effect::Data { file, first, last } => {
                let (log, chosen) = (&view.layout.files[file], &state.files[file]);
                let resizes = (first..=last).any(|n| log.ops[n as usize].resizes && chosen.size <= n);
                let touched = |n: &u32, s: &usize| log.sectors[*s].binary_search(n).is_ok() && chosen.at(*s) <= *n;
                resizes || (first..=last).any(|n| (0..log.sectors.len()).any(|s| touched(&n, &s)))
            }
        }
    }

    /// The syncs that would make it durable.
    pub fn syncs(self, layout: &Layout<'_>) -> Vec<Op> {
        match self {
            Effect::Name(name) => {
                layout.names[name].dirs.iter().map(|dir| Op::SyncDir { dir: layout.dir_path(*dir).to_owned() }).collect()
            }
            Effect::Data { file, .. } => vec![Op::Sync { file, data_only: true }],
        }
    }
}

/// Everything survives but these effects; not settled.
pub fn omitting(view: &View<'_, '_>, lost: &[Effect]) -> State {
    let mut state = view.all();
    lost.iter().for_each(|effect| omit(&mut state, view, *effect));
    state
}

/// How a write is torn: which of its sectors arrive, or which bytes of its last one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    First(usize),
    AllButFirst,
    Last,
    Bytes(u16, u16),
}

impl Strategy {
    /// All of them in the order of trying.
    pub const ALL: [Strategy; 14] = [
        Strategy::KeepNone,
        Strategy::KeepAll,
        Strategy::NamesOnly,
        Strategy::DataOnly,
        Strategy::SizeWithoutData,
        Strategy::DataWithoutSize,
        Strategy::OmitOne,
        Strategy::KeepOne,
        Strategy::FilePrefix,
        Strategy::TornLast,
        Strategy::TornSector,
        Strategy::Garbage,
        Strategy::OmitTwo,
        Strategy::Random,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::KeepNone => "keep-none",
            Strategy::KeepAll => "keep-all",
            Strategy::NamesOnly => "names-only",
            Strategy::DataOnly => "data-only",
            Strategy::SizeWithoutData => "size-without-data",
            Strategy::DataWithoutSize => "data-without-size",
            Strategy::OmitOne => "omit-one",
            Strategy::KeepOne => "keep-one",
            Strategy::FilePrefix => "file-prefix",
            Strategy::TornLast => "torn-last-write",
            Strategy::TornSector => "torn-sector",
            Strategy::Garbage => "torn-garbage",
            Strategy::OmitTwo => "omit-two",
            Strategy::Random => "random",
        }
    }

    /// Whether it cuts writes in pieces or leaves the choice to chance.
    pub fn is_torn_or_random(self) -> bool {
        matches!(self, Strategy::TornLast | Strategy::TornSector | Strategy::Garbage | Strategy::Random)
    }

    /// The states it tries at a crash point; of the random ones `chances`.
    pub fn states<'v>(self, view: &'v View<'_, '_>, seed: u64, chances: u64) -> impl ExactSizeIterator<Item = State> + 'v {
        picks(self, view, seed, chances).into_iter().map(move |pick| view.settle(pick.state(view, seed)))
    }
}

fn picks(strategy: Strategy, view: &View<'_, '_>, seed: u64, chances: u64) -> Vec<Pick> {
    let effects = effects(view);
    if effects.is_empty() {
        return if strategy == Strategy::KeepNone { vec![Pick::None] } else { Vec::new() };
    }
    let files = || (0..view.files.len()).filter(|&f| view.files[f].from < view.files[f].ops);
    let calls = |file: usize| {
        effects.iter().filter_map(move |e| match *e {
            Effect::Data { file: f, first, last } if f == file => Some((first, last)),
            _ => None,
        })
    };
    let names = view.stable_names.iter().any(|s| !s);
    let lone = effects.len() == 1;
    match strategy {
        Strategy::KeepNone => vec![Pick::None],
        Strategy::KeepAll => vec![Pick::All],
        Strategy::NamesOnly if names => vec![Pick::NamesOnly],
        Strategy::DataOnly if names => vec![Pick::DataOnly],
        Strategy::NamesOnly | Strategy::DataOnly => Vec::new(),
        Strategy::SizeWithoutData => {
            files().flat_map(|file| calls(file).map(move |(first, _)| Pick::Sizes { file, data: first })).collect()
        }
        Strategy::DataWithoutSize => vec![Pick::DataWithoutSize],
        Strategy::OmitOne | Strategy::KeepOne if lone => Vec::new(),
        Strategy::OmitOne => effects.into_iter().map(Pick::Omit).collect(),
        Strategy::KeepOne => effects.into_iter().map(Pick::Keep).collect(),
        Strategy::FilePrefix => {
            let several = files().count() > 1 || names;
            let one = |file: usize, ops: u32| {
                [true, false].into_iter().filter(move |o| *o || several).map(move |others| Pick::Prefix { file, ops, others })
            };
            files().flat_map(|file| calls(file).flat_map(move |(first, _)| one(file, first))).collect()
        }
        Strategy::TornLast => files()
            .filter_map(|file| Some((file, calls(file).next_back()?)))
            .flat_map(|(file, call)| torn(view, file, call))
            .collect(),
        Strategy::TornSector => files()
            .flat_map(|file| {
                let log = &view.layout.files[file];
                let known = &view.files[file];
                let touched = move |s: &usize| log.last_touching(*s, known.ops).is_some_and(|op| op >= known.from);
                (0..log.sectors.len()).filter(touched).map(move |sector| Pick::Sector { file, sector })
            })
            .collect(),
        Strategy::Garbage if view.model.torn => files()
            .flat_map(|file| {
                let last: Vec<(u32, u32)> = calls(file).collect();
                let from = last.len().saturating_sub(3);
                last.into_iter().skip(from).map(move |(first, _)| Pick::Garbage {
                    file,
                    data: first,
                    seed: seed ^ u64::from(first),
                })
            })
            .collect(),
        Strategy::Garbage => Vec::new(),
        Strategy::OmitTwo => {
            let pairs = (0..effects.len()).flat_map(|a| (a + 1..effects.len()).map(move |b| (a, b)));
            pairs.map(|(a, b)| Pick::OmitTwo(effects[a], effects[b])).collect()
        }
        Strategy::Random => (0..chances).map(Pick::Random).collect(),
    }
}

/// The volatile calls of a view, names first, then file by file.
pub fn effects(view: &View<'_, '_>) -> Vec<Effect> {
    let mut effects: Vec<Effect> = (0..view.stable_names.len()).filter(|&n| !view.stable_names[n]).map(Effect::Name).collect();
    for (file, known) in view.files.iter().enumerate() {
        let log = &view.layout.files[file];
        for number in (known.from..known.ops).filter(|&n| !known.stable[n as usize]) {
            let call = log.ops[number as usize].call;
            match effects.last_mut() {
                Some(Effect::Data { file: f, last, .. }) if *f == file && log.ops[*last as usize].call == call => *last = number,
                _ => effects.push(Effect::Data { file, first: number, last: number }),
            }
        }
    }
    effects
}

/// How a write's sectors may arrive: the first so many, all but the first, the last only; under a model
/// that tears sectors, some bytes of the last one.
fn torn(view: &View<'_, '_>, file: usize, (first, last): (u32, u32)) -> Vec<Pick> {
    let log = &view.layout.files[file];
    let (start, end) = (log.ops[first as usize].offset, log.ops[last as usize].end());
    if log.ops[first as usize].bytes.is_none() || start == end {
        return Vec::new();
    }
    let sectors = (end.div_ceil(SECTOR) - start / SECTOR) as usize;
    // A write of many sectors is cut at 32 places, evenly.
    let step = sectors.div_ceil(32).max(1);
    let mut cuts: Vec<Cut> = (1..sectors).step_by(step).map(Cut::First).collect();
    if sectors > 1 {
        cuts.extend([Cut::AllButFirst, Cut::Last]);
    }
    if view.model.torn {
        let tail = (end - (end - 1) / SECTOR * SECTOR) as u16;
        let head = if sectors == 1 { (start % SECTOR) as u16 } else { 0 };
        let middle = head.midpoint(tail);
        cuts.extend(
            [(head, head + 1), (head, middle), (head, tail - 1), (middle, tail), (head + 1, tail)].map(|(a, b)| Cut::Bytes(a, b)),
        );
    }
    cuts.into_iter().map(|cut| Pick::Torn { file, first, last, cut }).collect()
}

impl Pick {
    fn state(self, view: &View<'_, '_>, seed: u64) -> State {
        let all_names = |mut state: State| {
            state.names.fill(true);
            state
        };
        match self {
            Pick::None => view.none(),
            Pick::All => view.all(),
            Pick::NamesOnly => all_names(view.none()),
            Pick::DataOnly => State { names: view.stable_names.clone(), ..view.all() },
            Pick::Sizes { file, data } => {
                let mut state = view.all();
                state.files[file].data = data;
                state
            }
            Pick::DataWithoutSize => {
                let mut state = view.all();
                state.files.iter_mut().zip(&view.files).for_each(|(file, known)| file.size = known.from);
                state
            }
            Pick::Omit(effect) => {
                let mut state = view.all();
                omit(&mut state, view, effect);
                state
            }
            Pick::OmitTwo(one, other) => {
                let mut state = view.all();
                omit(&mut state, view, one);
                omit(&mut state, view, other);
                state
            }
            Pick::Keep(effect) => keep(view, effect),
            Pick::Prefix { file, ops, others } => {
                let mut state = if others { view.all() } else { all_names(view.none()) };
                state.files[file].size = ops;
                state.files[file].data = ops;
                state
            }
            Pick::Torn { file, first, last, cut } => {
                let mut state = view.all();
                let log = &view.layout.files[file];
                let start = (log.ops[first as usize].offset / SECTOR) as usize;
                let end = log.ops[last as usize].end().div_ceil(SECTOR) as usize;
                let mut lose = |sectors: std::ops::Range<usize>| {
                    state.files[file].sectors.extend(sectors.map(|s| (s as u32, first)));
                };
                match cut {
                    Cut::First(n) => lose(start + n..end),
                    Cut::AllButFirst => lose(start..start + 1),
                    Cut::Last => lose(start..end - 1),
                    Cut::Bytes(from, to) => state.tear = Some(Tear { file, sector: end as u32 - 1, from, to }),
                }
                state
            }
            Pick::Sector { file, sector } => {
                let mut state = view.all();
                state.files[file].sectors.insert(sector as u32, view.files[file].from);
                state
            }
            Pick::Garbage { file, data, seed } => {
                let mut state = view.all();
                state.files[file].data = data;
                state.garbage = Some(seed);
                state
            }
            Pick::Random(number) => random(view, &mut rng(seed, &[view.at, number])),
        }
    }
}

/// Takes a call away: its sectors go back to what they were before it.
fn omit(state: &mut State, view: &View<'_, '_>, effect: Effect) {
    match effect {
        Effect::Name(name) => state.names[name] = false,
        Effect::Data { file, first, last } => {
            let log = &view.layout.files[file];
            for (number, op) in (first..=last).map(|n| (n, &log.ops[n as usize])) {
                if op.bytes.is_none() {
                    state.files[file].size = state.files[file].size.min(number);
                }
                let end = if op.bytes.is_some() { op.end().div_ceil(SECTOR) as usize } else { log.sectors.len() };
                for sector in (op.offset / SECTOR) as usize..end {
                    let bound = state.files[file].at(sector).min(first);
                    state.files[file].sectors.insert(sector as u32, bound);
                }
            }
            if last + 1 == view.files[file].ops {
                state.files[file].size = state.files[file].size.min(first);
            }
        }
    }
}

/// Keeps one call, and the names it takes to be found.
fn keep(view: &View<'_, '_>, effect: Effect) -> State {
    let mut state = view.none();
    let names = &view.layout.names;
    let (begun, own) = match effect {
        Effect::Name(name) => (names[name].begun, Some(name)),
        Effect::Data { file, first, .. } => (view.layout.files[file].ops[first as usize].begun, None),
    };
    for (number, kept) in state.names.iter_mut().enumerate() {
        *kept |= names[number].ended < begun || Some(number) == own;
    }
    if let Effect::Data { file, first, last } = effect {
        let log = &view.layout.files[file];
        for op in &log.ops[first as usize..=last as usize] {
            let end = if op.bytes.is_some() { op.end().div_ceil(SECTOR) as usize } else { log.sectors.len() };
            for sector in (op.offset / SECTOR) as usize..end {
                state.files[file].sectors.insert(sector as u32, last + 1);
            }
        }
        state.files[file].size = last + 1;
    }
    state
}

fn random(view: &View<'_, '_>, rng: &mut Rng) -> State {
    let mut state = view.none();
    let kept = rng.random_range(1..100);
    for name in &mut state.names {
        *name |= rng.random_range(0..100) < kept;
    }
    for (file, known) in view.files.iter().enumerate().filter(|(_, known)| known.from < known.ops) {
        let chosen = &mut state.files[file];
        chosen.data = rng.random_range(known.from..=known.ops);
        chosen.size = if rng.random_bool(0.5) { known.ops } else { rng.random_range(known.from..=known.ops) };
        let log = &view.layout.files[file];
        // Whole pages or single sectors, some of them at another moment than the rest.
        let unit = if rng.random_bool(0.5) { 8 } else { 1 };
        for start in (0..log.sectors.len()).step_by(unit) {
            let touched = log.last_touching(start, known.ops).is_some_and(|op| op >= known.from);
            if touched && rng.random_bool(0.3) {
                let bound = rng.random_range(known.from..=known.ops);
                chosen.sectors.extend((start..log.sectors.len().min(start + unit)).map(|s| (s as u32, bound)));
            }
        }
    }
    if view.model.torn && rng.random_bool(0.2) {
        state.garbage = Some(rng.random());
    }
    state
}
