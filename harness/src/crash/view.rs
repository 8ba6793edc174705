//! A model applied to one crash point: what is stable there, what is volatile, and which choices among the
//! volatile are legal.
//!
//! **Invariant:** [`View::violation`] is the only reader of the rules; [`View::settle`] takes away from a
//! choice what it forbids, one violation at a time, so that whatever is settled is legal.

use super::layout::{FileLog, Layout, NameOp, PAGE, SECTOR, SyncOf};
use super::model::{Model, Names, Sizes};
use super::state::{FileState, State, apply};
use std::ops::Range;

/// One crash point under one model.
#[derive(Debug)]
pub struct View<'l, 't> {
    /// The trace's effects.
    pub layout: &'l Layout<'t>,
    /// The model.
    pub model: &'static Model,
    /// The crash falls right before this position.
    pub at: u64,
    /// For each name operation that began: whether it certainly survives.
    pub stable_names: Vec<bool>,
    /// For each file.
    pub files: Vec<FileView>,
}

/// A file at a crash point.
#[derive(Debug, Default)]
pub struct FileView {
    /// Operations that began.
    pub ops: u32,
    /// For each of them: whether it certainly survives.
    pub stable: Vec<bool>,
    /// Operations below this number are all stable.
    pub from: u32,
    /// The contents after these.
    pub base: Vec<u8>,
    /// Blocks from here on were not allocated by anything stable.
    pub fresh_from: u64,
}

/// A rule that a choice breaks, and what to take away from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the assumption.
    pub rule: &'static str,
    fix: Fix,
}

#[derive(Debug, PartialEq, Eq)]
enum Fix {
    Name(usize),
    Size { file: usize, to: u32 },
    Data { file: usize, to: u32 },
    Sectors { file: usize, sectors: Range<usize>, to: u32 },
    Untear,
}

impl<'l, 't> View<'l, 't> {
    /// Looks at the crash point right before position `at`.
    pub fn new(layout: &'l Layout<'t>, model: &'static Model, at: u64) -> Self {
        let names = &layout.names[..layout.names.partition_point(|n| n.begun < at)];
        let stable_names = stable_names(layout, names, model, at);
        let files = layout.files.iter().map(|log| file_view(log, model, at)).collect();
        Self { layout, model, at, stable_names, files }
    }

    /// Nothing volatile survives.
    pub fn none(&self) -> State {
        let file = |f: &FileView| FileState { size: f.from, data: f.from, ..FileState::default() };
        let mut state =
            State { names: self.stable_names.clone(), files: self.files.iter().map(file).collect(), ..State::default() };
        self.keep_stable(&mut state);
        state
    }

    /// Everything volatile survives.
    pub fn all(&self) -> State {
        let file = |f: &FileView| FileState { size: f.ops, data: f.ops, ..FileState::default() };
        State { names: vec![true; self.stable_names.len()], files: self.files.iter().map(file).collect(), ..State::default() }
    }

    /// Whether the model allows this state here.
    pub fn is_legal(&self, state: &State) -> bool {
        self.violation(state).is_none()
    }

    /// Takes away what the model does not allow.
    pub fn settle(&self, mut state: State) -> State {
        for (number, stable) in self.stable_names.iter().enumerate() {
            state.names[number] |= stable;
        }
        for (file, known) in state.files.iter_mut().zip(&self.files) {
            file.size = file.size.clamp(known.from, known.ops);
            file.data = file.data.clamp(known.from, known.ops);
            file.sectors.values_mut().for_each(|bound| *bound = (*bound).clamp(known.from, known.ops));
            file.sectors.retain(|_, bound| *bound != file.data);
        }
        self.keep_stable(&mut state);
        // Each turn takes something away; the bound is for stable operations behind volatile ones, which a
        // failed sync or overlapping calls may leave and which are put back.
        for _ in 0..10_000 {
            let Some(violation) = self.violation(&state) else { break };
            match violation.fix {
                Fix::Name(number) => state.names[number] = false,
                Fix::Size { file, to } => state.files[file].size = to,
                Fix::Data { file, to } => {
                    let file = &mut state.files[file];
                    file.data = file.data.min(to);
                    file.sectors.values_mut().for_each(|bound| *bound = (*bound).min(to));
                }
                Fix::Sectors { file, sectors, to } => {
                    for sector in sectors {
                        let bound = state.files[file].at(sector).min(to);
                        state.files[file].sectors.insert(sector as u32, bound);
                    }
                }
                Fix::Untear => (state.tear, state.garbage) = (None, None),
            }
            self.keep_stable(&mut state);
        }
        state
    }

    /// Puts back what is stable although something volatile came before it: with a sector, and unless pages
    /// tear with a page, survives all that was done to it before.
    fn keep_stable(&self, state: &mut State) {
        for (file, known) in self.files.iter().enumerate() {
            let behind = (known.from..known.ops).filter(|&n| known.stable[n as usize]);
            for number in behind {
                let op = &self.layout.files[file].ops[number as usize];
                let unit = if self.model.torn { SECTOR } else { PAGE };
                let start = op.offset / unit * (unit / SECTOR);
                let end = if op.bytes.is_some() { op.end().div_ceil(unit) * (unit / SECTOR) } else { start };
                let chosen = &mut state.files[file];
                for sector in start as usize..end as usize {
                    let bound = chosen.at(sector).max(number + 1);
                    if bound != chosen.at(sector) {
                        chosen.sectors.insert(sector as u32, bound);
                    }
                }
                if op.resizes {
                    chosen.size = chosen.size.max(number + 1);
                }
            }
        }
    }

    /// The first rule that a choice breaks.
    pub fn violation(&self, state: &State) -> Option<Violation> {
        if (state.tear.is_some() || state.garbage.is_some()) && !self.model.torn {
            return Some(Violation { rule: "T1", fix: Fix::Untear });
        }
        self.names_violation(state)
            .or_else(|| (0..self.files.len()).find_map(|file| self.file_violation(state, file)))
            .or_else(|| self.truncations_before_names(state))
            .or_else(|| self.renames_bring_contents(state))
    }

    /// E1: a name operation survives only with everything that ended before it began.
    fn names_violation(&self, state: &State) -> Option<Violation> {
        if self.model.names == Names::Slots {
            return None;
        }
        let names = &self.layout.names;
        let missing = |before: u64, end: usize| (0..end).any(|a| !state.names[a] && names[a].ended <= before);
        let volatile = (0..state.names.len()).filter(|&n| state.names[n] && !self.stable_names[n]);
        volatile.into_iter().find(|&n| missing(names[n].begun, n)).map(|n| Violation { rule: "E1", fix: Fix::Name(n) })
    }

    /// Whether all names survive that were there before a position.
    fn has_names_before(&self, state: &State, position: u64) -> bool {
        let names = self.layout.names[..state.names.len()].iter().zip(&state.names);
        names.take_while(|(op, _)| op.begun < position).all(|(op, &kept)| kept || op.ended > position)
    }

    fn file_violation(&self, state: &State, file: usize) -> Option<Violation> {
        let (log, known, chosen) = (&self.layout.files[file], &self.files[file], &state.files[file]);
        if known.from == known.ops {
            return None;
        }
        let broken = |rule, fix| Some(Violation { rule, fix });
        if self.model.keeps_completed {
            // Calls in flight reach some page each; their order of beginning is taken as the kernel's.
            let lowest = chosen.sectors.values().copied().fold(chosen.data, u32::min);
            if chosen.highest() > lowest {
                return broken("C10", Fix::Data { file, to: lowest });
            }
            if chosen.size > chosen.data {
                return broken("C10", Fix::Size { file, to: chosen.data });
            }
            if chosen.data > chosen.size {
                return broken("C10", Fix::Data { file, to: chosen.size });
            }
        }
        let volatile = |bound: u32| (known.from..bound.min(known.ops)).filter(|&n| !known.stable[n as usize]);
        // C4: what is written behind a truncation survives only with the truncation.
        let cuts = |bound| volatile(bound).filter(|&n| log.ops[n as usize].bytes.is_none());
        let highest = chosen.highest();
        if let Some(cut) = cuts(highest).find(|&cut| cut >= chosen.size && log.ops[cut as usize].cuts) {
            return broken("C4", Fix::Data { file, to: cut });
        }
        if self.model.names != Names::Slots {
            let kept_before = |cut: u32| {
                let mut sectors = (0..log.sectors.len()).filter(|&s| log.sectors[s].binary_search(&cut).is_ok());
                sectors.any(|s| chosen.at(s) <= cut)
            };
            if let Some(cut) = cuts(chosen.size).find(|&cut| kept_before(cut)) {
                return broken("E8", Fix::Size { file, to: cut });
            }
        }
        if self.model.sizes != Sizes::Free && !self.model.keeps_completed {
            let sizes = volatile(chosen.size).filter(|&n| log.ops[n as usize].resizes);
            let mut last = None;
            for n in sizes {
                if !self.has_names_before(state, log.ops[n as usize].begun) {
                    return broken("E1", Fix::Size { file, to: n });
                }
                last = Some(n);
            }
            if let Some(last) = last {
                match self.model.sizes {
                    Sizes::Allocation => {
                        if let Some(first) = unwritten(log, known, chosen, last) {
                            return broken("E4", Fix::Size { file, to: first });
                        }
                    }
                    Sizes::Completion => {
                        let op = &log.ops[last as usize];
                        if op.bytes.is_some() && chosen.at(((op.end() - 1) / SECTOR) as usize) <= last {
                            return broken("X3", Fix::Size { file, to: last });
                        }
                    }
                    Sizes::Free => {}
                }
            }
        }
        if self.model.data_needs_names {
            let lonely = volatile(highest).find(|&n| !self.has_names_before(state, log.ops[n as usize].begun));
            if let Some(to) = lonely {
                return broken("B2", Fix::Data { file, to });
            }
        }
        if !self.model.torn && !chosen.sectors.is_empty() {
            let rule = if self.model.overwrites_tear { "C2" } else { "B4" };
            let pages = chosen.sectors.keys().map(|s| u64::from(*s) * SECTOR / PAGE);
            let whole = |page: &u64| !self.model.overwrites_tear || page * PAGE >= known.fresh_from;
            let torn = pages.filter(whole).find_map(|page| torn_page(log, chosen, page));
            if let Some((sectors, to)) = torn {
                return broken(rule, Fix::Sectors { file, sectors, to });
            }
        }
        None
    }

    /// E8: a truncation has its place in the order of names.
    fn truncations_before_names(&self, state: &State) -> Option<Violation> {
        if self.model.names == Names::Slots || self.model.keeps_completed {
            return None;
        }
        for (file, known) in self.files.iter().enumerate() {
            let lost = known.from.max(state.files[file].size)..known.ops;
            let log = &self.layout.files[file];
            let cut = lost.filter(|&n| !known.stable[n as usize]).map(|n| &log.ops[n as usize]).find(|op| op.bytes.is_none());
            let Some(cut) = cut else { continue };
            let later = |n: &usize| state.names[*n] && !self.stable_names[*n] && self.layout.names[*n].begun >= cut.ended;
            if let Some(name) = (0..state.names.len()).find(later) {
                return Some(Violation { rule: "E8", fix: Fix::Name(name) });
            }
        }
        None
    }

    /// E5: a rename over an existing file survives only with what had been written to the new one.
    fn renames_bring_contents(&self, state: &State) -> Option<Violation> {
        if !self.model.rename_flushes || self.model.keeps_completed {
            return None;
        }
        for (number, op) in self.layout.names[..state.names.len()].iter().enumerate() {
            let Some(file) = op.file.filter(|_| op.replaces && state.names[number] && !self.stable_names[number]) else {
                continue;
            };
            let (log, known, chosen) = (&self.layout.files[file], &self.files[file], &state.files[file]);
            let written = (known.from..known.ops).rfind(|&n| log.ops[n as usize].ended <= op.begun);
            let Some(last) = written else { continue };
            if chosen.size <= last || unwritten(log, known, chosen, last).is_some() {
                return Some(Violation { rule: "E5", fix: Fix::Name(number) });
            }
        }
        None
    }
}

/// The first operation up to `last` whose bytes in a fresh block do not survive.
fn unwritten(log: &FileLog<'_>, known: &FileView, chosen: &FileState, last: u32) -> Option<u32> {
    if chosen.sectors.is_empty() && chosen.data > last {
        return None;
    }
    let first = (known.fresh_from / SECTOR) as usize;
    let lost = |sector: usize| {
        let (bound, ops) = (chosen.at(sector), &log.sectors[sector]);
        ops[ops.partition_point(|&op| op < bound)..].first().copied().filter(|&op| op <= last)
    };
    (first..log.sectors.len()).filter_map(lost).min()
}

/// A page whose sectors do not show it at one moment: its sectors, and the earliest bound among them.
fn torn_page(log: &FileLog<'_>, chosen: &FileState, page: u64) -> Option<(Range<usize>, u32)> {
    let per_page = (PAGE / SECTOR) as usize;
    let sectors = page as usize * per_page..(page as usize + 1) * per_page;
    let shown = |s: usize, bound: u32| log.last_touching(s, bound);
    let newest = sectors.clone().filter_map(|s| shown(s, chosen.at(s))).max()?;
    let torn = sectors.clone().any(|s| shown(s, newest + 1) != shown(s, chosen.at(s)));
    let earliest = sectors.clone().map(|s| chosen.at(s)).min()?;
    torn.then_some((sectors, earliest))
}

fn file_view(log: &FileLog<'_>, model: &Model, at: u64) -> FileView {
    let ops = log.ops.partition_point(|op| op.begun < at) as u32;
    let is_stable = |ended: u64| match model {
        _ if model.keeps_completed => ended < at,
        _ if model.syncs_lie => false,
        _ => survives_by(ended, log.syncs.iter(), at),
    };
    let stable: Vec<bool> = log.ops[..ops as usize].iter().map(|op| is_stable(op.ended)).collect();
    let from = stable.iter().position(|s| !s).unwrap_or(ops as usize) as u32;
    let mut base = log.initial.to_vec();
    for op in &log.ops[..from as usize] {
        apply(&mut base, op, 0, u64::MAX);
        let size = op.size_after(base.len() as u64);
        base.resize(size as usize, 0);
    }
    let cuts = log.ops[from as usize..ops as usize].iter().filter(|op| op.bytes.is_none());
    let kept = cuts.map(|op| op.offset).fold(base.len() as u64, u64::min);
    FileView { ops, stable, from, base, fresh_from: kept.div_ceil(PAGE) * PAGE }
}

/// C1 and C1b: the first sync that began after `ended` and is done decides.
fn survives_by<'s>(ended: u64, syncs: impl Iterator<Item = &'s SyncOf>, at: u64) -> bool {
    let mut done = syncs.filter(|s| s.begun > ended && s.ended < at);
    done.next().is_some_and(|s| s.ok)
}

fn stable_names(layout: &Layout<'_>, names: &[NameOp], model: &Model, at: u64) -> Vec<bool> {
    if model.keeps_completed {
        return names.iter().map(|n| n.ended < at).collect();
    }
    if model.syncs_lie {
        return vec![false; names.len()];
    }
    if model.names == Names::Slots {
        // A failed sync of a directory is mended by a later one: its entries stay dirty in the journal.
        let good = |dir: usize| layout.dir_syncs.iter().filter(move |s| s.target == dir && s.ok);
        let synced = |n: &NameOp, dir: &usize| survives_by(n.ended, good(*dir), at);
        return names.iter().map(|n| n.dirs.iter().all(|dir| synced(n, dir))).collect();
    }
    let file_syncs = layout.files.iter().flat_map(|f| &f.syncs).map(|s| (true, s));
    let mut syncs: Vec<_> = file_syncs.chain(layout.dir_syncs.iter().map(|s| (false, s))).collect();
    syncs.retain(|(_, s)| s.ok && s.ended < at);
    syncs.sort_by_key(|(_, s)| s.ended);
    let mut stable = vec![false; names.len()];
    for (of_file, sync) in syncs {
        let before = |n: &NameOp| n.ended < sync.begun;
        let touches = |n: &NameOp| if of_file { n.file == Some(sync.target) } else { n.dirs.contains(&sync.target) };
        let pending = of_file && has_pending(&layout.files[sync.target], sync);
        match model.names {
            Names::Journal => {
                let dirty = pending || (0..names.len()).any(|n| !stable[n] && before(&names[n]) && touches(&names[n]));
                (0..names.len()).filter(|&n| dirty && before(&names[n])).for_each(|n| stable[n] = true);
            }
            Names::Log => {
                let last =
                    if pending { Some(names.len()) } else { names.iter().rposition(|n| before(n) && touches(n)).map(|n| n + 1) };
                (0..last.unwrap_or(0)).filter(|&n| before(&names[n])).for_each(|n| stable[n] = true);
            }
            Names::CommitAndTree => {
                let mut logged = vec![false; names.len()];
                let mut waiting: Vec<usize> = (0..names.len()).filter(|&n| before(&names[n]) && touches(&names[n])).collect();
                waiting.iter().for_each(|&n| logged[n] = true);
                // With a name goes what stood in its place, and the directories above it.
                while let Some(of) = waiting.pop() {
                    stable[of] = true;
                    for &other in layout.above[of].iter().filter(|&&o| o < names.len() && before(&names[o])) {
                        if !std::mem::replace(&mut logged[other], true) {
                            waiting.push(other);
                        }
                    }
                }
            }
            Names::Slots => {}
        }
    }
    stable
}

/// E2: whether a sync of this file has metadata to commit that no earlier sync has: sizes, and for fsync
/// anything at all.
fn has_pending(log: &FileLog<'_>, sync: &SyncOf) -> bool {
    let covered = |ended: u64| log.syncs.iter().any(|s| s.ok && s.begun > ended && s.ended < sync.begun);
    log.ops.iter().any(|op| op.ended < sync.begun && (op.resizes || !sync.data_only) && !covered(op.ended))
}
