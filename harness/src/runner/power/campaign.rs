//! One recorded run, crashed everywhere: states are built, told apart by image, opened once, and judged
//! against what was promised at each crash point at which they may arise.

use super::again::{after_power_loss, again};
use super::record::{HOME, Opener, Recording};
use super::recover::{Recovered, recover};
use crate::crash::{Files, Layout, Model, State, Strategy, Trace, View};
use crate::measure::clock::Clock;
use crate::oracle::Judge;
use crate::oracle::contract::{Promises, promised_from};
use crate::oracle::kv::Written;
use crate::result::{ModelCounts, Verdict};
use crate::subject::{Contents, Promise};
use crate::workload::stream::OwnedChange;
use engine::fs::MemFs;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::path::PathBuf;
use xxhash_rust::xxh3::Xxh3;

/// How much to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// States to build.
    pub(crate) states: u64,
    /// When to stop, on the campaign's clock; 0 for never.
    pub(crate) until_ns: u64,
    /// How often a recovery is crashed again.
    pub(crate) depth: u64,
    /// Random states at each crash point.
    pub(crate) random: u64,
    /// Stop at so many findings.
    pub(crate) findings: usize,
    /// Whether recovered stores are used again and crashed a second time.
    pub(crate) again: bool,
}

/// What a campaign counted. Campaigns of one cell add to one tally.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) crash_points: u64,
    pub(crate) tried: u64,
    pub(crate) judged_ns: u64,
    pub(crate) left_out: u64,
    pub(crate) ended_by: &'static str,
    pub(crate) by_model: HashMap<&'static str, ModelTally>,
    pub(crate) by_strategy: HashMap<&'static str, u64>,
    pub(crate) by_depth: Vec<u64>,
    seen: HashSet<u128, BuildHasherDefault<Identity>>,
}

/// What was counted under one model.
#[derive(Default)]
pub(crate) struct ModelTally {
    pub(crate) counts: ModelCounts,
    seen: HashSet<u128, BuildHasherDefault<Identity>>,
}

impl Tally {
    /// Different images so far.
    pub(crate) fn distinct(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// Digests are hashes already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| h.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}

/// A crash state that broke a promise.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) verdict: Verdict,
    pub(crate) words: String,
    pub(crate) model: &'static Model,
    pub(crate) strategy: Strategy,
    /// The crash falls right before this position of the workload's trace.
    pub(crate) at: u64,
    pub(crate) state: State,
    /// Crashes of the recoveries that follow.
    pub(crate) nested: Vec<Nested>,
}

/// A recovered store that broke a promise when it was used again and crashed again.
pub(crate) struct SecondCrash {
    pub(crate) verdict: Verdict,
    pub(crate) words: String,
    /// What the first crash left.
    pub(crate) files: Files,
    /// The write that was missing then and was asked for again.
    pub(crate) retry: Vec<OwnedChange>,
}

/// A crash of a recovery.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Nested {
    /// What the recovery did.
    pub(crate) recovery: Trace,
    /// The crash falls right before this position of it.
    pub(crate) at: u64,
    /// What survives.
    pub(crate) state: State,
}

/// The files of a crash state, by path.
type ImageFiles = Vec<(PathBuf, Vec<u8>)>;

/// What is known of an image.
struct Known {
    outcome: Outcome,
    /// Images that crashes of its recovery leave, by the crash.
    children: Vec<(u32, u64, State)>,
}

enum Outcome {
    /// Index into the contents that were met.
    Shows(u32),
    /// It shows them, but something is wrong besides.
    Wrong(u32, String),
    Fails(Verdict, String),
}

/// What was found out about some contents at a crash point.
#[derive(Clone)]
struct Judged {
    verdict: Verdict,
    words: String,
    lost_promised: u64,
}

/// Strategies by which recoveries are crashed: they are short.
const NESTED: [Strategy; 6] =
    [Strategy::KeepNone, Strategy::KeepAll, Strategy::NamesOnly, Strategy::DataOnly, Strategy::OmitOne, Strategy::FilePrefix];

/// Recovered stores that each strategy sets aside for a second crash, of those whose recovery changed something.
const SECOND_CRASHES: usize = 24;

/// A recorded run under the judge.
pub(crate) struct Campaign<'a> {
    opener: &'a Opener<'a>,
    layout: &'a Layout<'a>,
    judge: Judge<'a>,
    /// The same history held against a killed process.
    process: Judge<'a>,
    models: &'a [&'static Model],
    seed: u64,
    budget: Budget,
    images: HashMap<u128, u32, BuildHasherDefault<Identity>>,
    known: Vec<Known>,
    contents: Vec<Contents>,
    contents_seen: HashMap<u128, u32, BuildHasherDefault<Identity>>,
    judged: HashMap<(u32, bool, u64), Judged>,
    /// Files of stores that are to be used again after their recovery, and the number of what they show.
    samples: Vec<(Files, u32)>,
    /// How many the strategy at work has set aside.
    sampled: usize,
    pub(crate) hits: Vec<Hit>,
}

/// The moments from which each write must survive a power loss, and a killed process.
pub(crate) struct Floors {
    pub(crate) power: Vec<Vec<Option<u64>>>,
    process: Vec<Vec<Option<u64>>>,
}

impl Floors {
    /// From what the subject promises under the cell's policies.
    pub(crate) fn new(opener: &Opener<'_>, recording: &Recording) -> Self {
        let policy = |table: usize| opener.tables[table].sync.map_or(opener.cell.sync.0, |p| p.0);
        let of = |write: &Written| {
            if write.queue.is_some() {
                return opener.subject.promise(opener.cell.sync.0, write.level);
            }
            let promises = write.changes.iter().map(|c| opener.subject.promise(policy(c.table), write.level));
            promises.max().unwrap_or(Promise::None)
        };
        let keeps_prefix = opener.subject.keeps_prefix();
        let floor = |crash| promised_from(&recording.writes, &Promises { crash, of: &of, keeps_prefix, syncs: &recording.syncs });
        Self { power: floor(Promise::Power), process: floor(Promise::Process) }
    }
}

impl<'a> Campaign<'a> {
    /// A campaign over one recording.
    pub(crate) fn new(
        opener: &'a Opener<'a>,
        recording: &'a Recording,
        floors: &'a Floors,
        layout: &'a Layout<'a>,
        models: &'a [&'static Model],
        seed: u64,
        budget: Budget,
    ) -> Self {
        let prefix = opener.subject.keeps_prefix();
        let judge = |from| Judge::new(&recording.base, &recording.writes, from, prefix);
        Self {
            opener,
            layout,
            judge: judge(&floors.power),
            process: judge(&floors.process),
            models,
            seed,
            budget,
            images: HashMap::default(),
            known: Vec::new(),
            contents: Vec::new(),
            contents_seen: HashMap::default(),
            judged: HashMap::new(),
            samples: Vec::new(),
            sampled: 0,
            hits: Vec::new(),
        }
    }

    /// Tries states until all are tried or the budget ends.
    pub(crate) fn run(&mut self, tally: &mut Tally, clock: Clock, mut go_on: impl FnMut() -> bool) {
        let rounds: Vec<(&'static Model, Vec<u64>)> =
            self.models.iter().map(|&model| (model, points(self.layout, model.keeps_completed))).collect();
        let all: HashSet<u64> = rounds.iter().flat_map(|(_, points)| points).copied().collect();
        tally.crash_points += all.len() as u64;
        let (began, mut tried, mut ended_by) = (clock.now(), 0, "exhausted");
        'search: for strategy in Strategy::ALL {
            self.sampled = 0;
            for (model, points) in &rounds {
                for &at in points {
                    let view = View::new(self.layout, model, at);
                    let states = strategy.states(&view, self.seed, self.budget.random);
                    // No contract covers a disk that lies: a glance at what it takes is enough.
                    if !model.is_covered()
                        && tally.by_model.get(model.name).is_some_and(|m| m.counts.states_tried >= self.budget.states / 20)
                    {
                        continue;
                    }
                    if tried >= self.budget.states && ended_by == "exhausted" && states.len() > 0 {
                        ended_by = "count";
                    }
                    if ended_by != "exhausted" {
                        tally.left_out += if strategy == Strategy::Random { 0 } else { states.len() as u64 };
                        continue;
                    }
                    for state in states {
                        tried += 1;
                        self.try_state(&view, state, strategy, tally);
                    }
                    if self.budget.until_ns > 0 && clock.now() > self.budget.until_ns {
                        ended_by = "time";
                    } else if self.hits.len() >= self.budget.findings {
                        ended_by = "findings";
                        break 'search;
                    } else if !go_on() {
                        ended_by = "stopped";
                        break 'search;
                    }
                }
            }
        }
        // The worst of all traces is what a reader has to know.
        let order = ["", "exhausted", "count", "findings", "time", "stopped"];
        let rank = |name: &str| order.iter().position(|o| *o == name);
        if rank(ended_by) > rank(tally.ended_by) {
            tally.ended_by = ended_by;
        }
        tally.tried += tried;
        tally.judged_ns += clock.now() - began;
    }

    /// Whether no state of these strategies breaks a promise, trying so many at most. For asking what a
    /// changed trace would show.
    pub(crate) fn is_clean(&mut self, strategies: &[Strategy], states: u64) -> bool {
        let mut tally = Tally::default();
        let mut tried = 0;
        for &model in self.models {
            let points = points(self.layout, model.keeps_completed);
            for &strategy in strategies {
                for &at in &points {
                    let view = View::new(self.layout, model, at);
                    for state in strategy.states(&view, self.seed, self.budget.random) {
                        self.try_state(&view, state, strategy, &mut tally);
                        tried += 1;
                        if !self.hits.is_empty() {
                            return false;
                        }
                        if tried >= states {
                            return true;
                        }
                    }
                }
            }
        }
        true
    }

    /// Judges one state; `Some` if a promise is broken.
    pub(crate) fn verdict_of(&mut self, view: &View<'_, '_>, state: &State) -> Option<(Verdict, String)> {
        let (dirs, files) = state.image(view);
        self.verdict_of_image(dirs, files, view.model.keeps_completed, view.at)
    }

    /// Judges an image as left by a crash before position `at`; `Some` if a promise is broken.
    pub(crate) fn verdict_of_image(
        &mut self,
        dirs: Vec<PathBuf>,
        files: Vec<(PathBuf, Vec<u8>)>,
        process: bool,
        at: u64,
    ) -> Option<(Verdict, String)> {
        let (image, _) = self.look(dirs, files, 0, "minimizing", &mut Tally::default());
        self.judge_image(image, process, at, 0).0.map(|judged| (judged.verdict, judged.words))
    }

    /// How many acknowledged writes a state has lost, and where the oldest of them was acknowledged; `None` if
    /// the store cannot be read.
    pub(crate) fn lost_at(&mut self, view: &View<'_, '_>, state: &State, tally: &mut Tally) -> Option<(u64, Option<u64>)> {
        let (dirs, files) = state.image(view);
        let (image, _) = self.look(dirs, files, 0, "loss-window", tally);
        let (Outcome::Shows(number) | Outcome::Wrong(number, _)) = self.known[image as usize].outcome else { return None };
        let found = self.judge.judge(&self.contents[number as usize], view.at);
        Some((found.lost_acked, found.oldest_lost))
    }

    /// Writes acknowledged by the end of the recording, and how many of them are promised then.
    pub(crate) fn at_the_end(&self) -> (u64, u64) {
        let end = self.judge.judge(&Contents::new(), u64::MAX);
        (end.acked, end.promised)
    }

    fn try_state(&mut self, view: &View<'_, '_>, state: State, strategy: Strategy, tally: &mut Tally) {
        let (dirs, files) = state.image(view);
        let (image, digest) = self.look(dirs, files, 0, strategy.name(), tally);
        let model = tally.by_model.entry(view.model.name).or_default();
        model.counts.states_tried += 1;
        if model.seen.insert(digest) {
            model.counts.states_distinct += 1;
            *model.counts.by_strategy.entry(strategy.name().to_owned()).or_default() += 1;
        }
        let (broken, path) = self.judge_image(image, view.model.keeps_completed, view.at, 0);
        let model = tally.by_model.entry(view.model.name).or_default();
        let Some(judged) = broken else {
            model.counts.survived += 1;
            return;
        };
        match judged.verdict {
            Verdict::Lost => model.counts.lost += 1,
            Verdict::Unopenable => model.counts.unopenable += 1,
            Verdict::Hung => model.counts.hung += 1,
            _ => model.counts.corrupt += 1,
        }
        model.counts.lost_promised = model.counts.lost_promised.max(judged.lost_promised);
        if !view.model.is_covered() {
            return;
        }
        // One finding for each way of failing, under the weakest models that show it; the counts cover all.
        let known =
            |h: &Hit| h.verdict == judged.verdict && view.model.includes(h.model) && h.nested.is_empty() == path.is_empty();
        if !self.hits.iter().any(known) {
            let nested = self.nested(view, &state, path);
            let hit =
                Hit { verdict: judged.verdict, words: judged.words, model: view.model, strategy, at: view.at, state, nested };
            self.hits.push(hit);
        }
    }

    /// The crashes of recoveries on a path, with what each recovery did, found out by running it again.
    fn nested(&self, view: &View<'_, '_>, state: &State, path: Vec<(u32, usize)>) -> Vec<Nested> {
        let mut disk = state.disk(view);
        let mut nested = Vec::new();
        for (image, child) in path {
            let (_, at, state) = &self.known[image as usize].children[child];
            let Some(recovery) = recover(self.opener, &disk).recovery else { break };
            if let Some(model) = Model::named("posix") {
                let layout = Layout::new(&recovery);
                disk = state.disk(&View::new(&layout, model, *at));
            }
            nested.push(Nested { recovery, at: *at, state: state.clone() });
        }
        nested
    }

    /// The image's number, opening it if it is new, and its recoveries' crashes with it. An image counts for
    /// what led to it first, before its own recoveries are crashed.
    fn look(&mut self, dirs: Vec<PathBuf>, files: ImageFiles, depth: u64, how: &'static str, tally: &mut Tally) -> (u32, u128) {
        let digest = digest(&dirs, &files);
        if tally.seen.insert(digest) {
            *tally.by_strategy.entry(how).or_default() += 1;
        }
        if let Some(&image) = self.images.get(&digest) {
            return (image, digest);
        }
        if tally.by_depth.len() <= depth as usize {
            tally.by_depth.resize(depth as usize + 1, 0);
        }
        tally.by_depth[depth as usize] += 1;
        let kept = (self.budget.again && depth == 0).then(|| files.clone());
        let disk = MemFs::with_files(dirs, files);
        let Recovered { contents, second, repaired, recovery } = recover(self.opener, &disk);
        let outcome = match contents {
            Err((verdict, words)) => Outcome::Fails(verdict, words),
            Ok(contents) => {
                let number = self.intern(contents);
                match second {
                    None => Outcome::Shows(number),
                    Some(words) => Outcome::Wrong(number, words),
                }
            }
        };
        if let Some(files) = kept
            && let Outcome::Shows(shown) = outcome
            && self.is_sampled(digest, recovery.is_some() || repaired.is_some())
        {
            self.sampled += 1;
            self.samples.push((files.into_iter().collect(), shown));
        }
        let image = self.known.len() as u32;
        self.images.insert(digest, image);
        self.known.push(Known { outcome, children: Vec::new() });
        if depth < self.budget.depth
            && let Some(recovery) = recovery
        {
            self.known[image as usize].children = self.crash_recovery(&recovery, image, depth, tally);
        }
        (image, digest)
    }

    /// Whether to use a recovered store again: the first of those whose recovery changed something, or said that it
    /// did, and a few of all.
    fn is_sampled(&mut self, digest: u128, changed: bool) -> bool {
        (changed && self.sampled < SECOND_CRASHES) || digest.is_multiple_of(251)
    }

    /// Uses the recovered stores that were set aside again, and crashes them a second time.
    pub(crate) fn use_again(&mut self, go_on: &mut dyn FnMut() -> bool) -> Option<SecondCrash> {
        let samples = std::mem::take(&mut self.samples);
        samples.into_iter().take_while(|_| go_on()).find_map(|(files, shown)| {
            let retry = self.first_missing(shown);
            let (verdict, words) = after_power_loss(self.opener, &files, &retry)?;
            Some(SecondCrash { verdict, words, files, retry })
        })
    }

    /// The oldest write that is certainly missing: what a client would ask for again.
    fn first_missing(&self, shown: u32) -> Vec<OwnedChange> {
        let writes = self.judge.writes();
        let missing = self.judge.judge(&self.contents[shown as usize], u64::MAX).missing;
        let lost = writes.iter().zip(&missing).flat_map(|(client, missing)| client.iter().zip(missing));
        let lost = lost.filter(|(_, missing)| **missing).map(|(write, _)| write);
        lost.min_by_key(|write| write.slot.begin).map(again).unwrap_or_default()
    }

    fn crash_recovery(&mut self, recovery: &Trace, parent: u32, depth: u64, tally: &mut Tally) -> Vec<(u32, u64, State)> {
        let layout = Layout::new(recovery);
        let Some(model) = Model::named("posix") else { return Vec::new() };
        let mut children: Vec<(u32, u64, State)> = Vec::new();
        for at in points(&layout, false) {
            let view = View::new(&layout, model, at);
            for strategy in NESTED {
                for state in strategy.states(&view, self.seed, 0).take(16) {
                    let (dirs, files) = state.image(&view);
                    let (image, _) = self.look(dirs, files, depth + 1, "recovery-crashed", tally);
                    if image != parent && children.iter().all(|(known, ..)| *known != image) {
                        children.push((image, at, state));
                    }
                }
            }
        }
        children
    }

    fn intern(&mut self, contents: Contents) -> u32 {
        let mut hash = Xxh3::new();
        for (table, keys) in contents.iter().enumerate() {
            hash.update(&(table as u64).to_le_bytes());
            for (key, value) in keys {
                hash.update(&(key.len() as u64).to_le_bytes());
                hash.update(key.as_bytes());
                hash.update(&(value.len() as u64).to_le_bytes());
                hash.update(value.as_bytes());
            }
        }
        let next = self.contents.len() as u32;
        let number = *self.contents_seen.entry(hash.digest128()).or_insert(next);
        if number == next {
            self.contents.push(contents);
        }
        number
    }

    /// What is wrong with an image at a crash point, and through which crashes of recoveries it is reached.
    fn judge_image(&mut self, image: u32, process: bool, at: u64, depth: u64) -> (Option<Judged>, Vec<(u32, usize)>) {
        let own = match &self.known[image as usize].outcome {
            Outcome::Fails(verdict, words) => Some(Judged { verdict: *verdict, words: words.clone(), lost_promised: 0 }),
            Outcome::Wrong(number, words) => {
                let (number, words) = (*number, words.clone());
                let judged = self.judge_contents(number, process, at);
                let wrong = Judged { verdict: Verdict::Corrupt, words, lost_promised: 0 };
                Some(if judged.verdict > Verdict::Corrupt { judged } else { wrong })
            }
            Outcome::Shows(number) => {
                let number = *number;
                Some(self.judge_contents(number, process, at)).filter(|j| j.verdict > Verdict::NotMeasured)
            }
        };
        if let Some(judged) = own {
            return (Some(judged), Vec::new());
        }
        if process || depth >= self.budget.depth {
            return (None, Vec::new());
        }
        for child in 0..self.known[image as usize].children.len() {
            let (next, ..) = self.known[image as usize].children[child];
            let (broken, mut path) = self.judge_image(next, process, at, depth + 1);
            if broken.is_some() {
                path.insert(0, (image, child));
                return (broken, path);
            }
        }
        (None, Vec::new())
    }

    fn judge_contents(&mut self, number: u32, process: bool, at: u64) -> Judged {
        if let Some(judged) = self.judged.get(&(number, process, at)) {
            return judged.clone();
        }
        let judge = if process { &self.process } else { &self.judge };
        let found = judge.judge(&self.contents[number as usize], at);
        let words = match found.wrong.first() {
            Some(wrong) => wrong.clone(),
            None if found.lost_promised > 0 => {
                format!("{} of {} promised writes are missing", found.lost_promised, found.promised)
            }
            None => String::new(),
        };
        let judged = Judged { verdict: found.verdict(), words, lost_promised: found.lost_promised };
        self.judged.insert((number, process, at), judged.clone());
        judged
    }
}

/// Where the power is cut, as positions of the trace: the crash falls right before them.
///
/// Between two events of the file system all positions leave the same states, and the last of them has the
/// most promises to keep; so it stands for all. To a power loss it makes no difference whether a call that
/// changes something has returned, only whether it began; a sync counts when it has returned. To a killed
/// process both ends of a change matter, and syncs do not.
pub(crate) fn points(layout: &Layout<'_>, process: bool) -> Vec<u64> {
    let point = |call: &crate::crash::Call| match (call.op.is_sync(), process) {
        (true, true) => [None, None],
        (true, false) => [call.ended, None],
        (false, true) => [Some(call.begun), call.ended],
        (false, false) => [Some(call.begun), None],
    };
    let mut points: Vec<u64> = layout.trace.calls.iter().flat_map(point).flatten().chain([layout.trace.end]).collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// Tells images apart.
pub(crate) fn digest(dirs: &[PathBuf], files: &[(PathBuf, Vec<u8>)]) -> u128 {
    let mut hash = Xxh3::new();
    for dir in dirs.iter().filter(|d| d.as_os_str() != HOME) {
        hash.update(b"d");
        hash.update(dir.as_os_str().as_encoded_bytes());
    }
    for (path, bytes) in files {
        hash.update(b"f");
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.digest128()
}
