//! Recording a run: one store on a traced file system in memory, driven by a list of steps.
//!
//! Everything happens on one thread and in virtual time, so that the same steps give the same trace: steps
//! arrive at random moments of a seed, a sync takes as long as the plan says, and what the store has to do
//! by itself is done when it is due. Requests that arrive while the store is busy wait.

use crate::crash::{Files, Mark, Trace};
use crate::history::{Outcome, Slot};
use crate::oracle::kv::Written;
use crate::scenario::CellPlan;
use crate::subject::{Contents, Session, Site, Subject, SubjectError};
use crate::workload::Workload;
use crate::workload::random::rng;
use crate::workload::script::{Owner, Pop, ScriptStep};
use crate::workload::stream::{Action, Call, Held};
use engine::Durability;
use engine::fs::{Fs, MemFs, TraceFs};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the store lives in the file system in memory.
pub(crate) const HOME: &str = "/in-memory";

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client's call.
    Call { client: usize, call: Call },
    /// The owner asks for everything to be made durable.
    Sync,
    /// The store is told to reclaim space.
    Shrink,
    /// The store is closed and opened again.
    Reopen,
}

/// How time passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Steps a second.
    pub(crate) rate: f64,
    /// What a sync takes.
    pub(crate) sync_ns: u64,
    /// For the moments of arrival.
    pub(crate) seed: u64,
}

/// A recorded run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recording {
    /// Every call and promise, in order.
    pub(crate) trace: Trace,
    /// What the clients asked for, by client, with positions of the trace.
    pub(crate) writes: Vec<Vec<Written>>,
    /// Syncs that the owner asked for.
    pub(crate) syncs: Vec<Slot>,
    /// What the store held when it was first opened.
    pub(crate) base: Contents,
    /// The position at which it was first open.
    pub(crate) opened: u64,
    /// What went wrong although nothing was made to fail.
    pub(crate) error: Option<String>,
}

/// How to open the store.
#[derive(Clone, Copy)]
pub(crate) struct Opener<'a> {
    /// The store.
    pub(crate) subject: &'a dyn Subject,
    /// Its cell, for policy and tables.
    pub(crate) cell: &'a CellPlan,
    /// The tables.
    pub(crate) tables: &'a [crate::subject::Table],
}

impl Opener<'_> {
    /// Opens the store in this file system.
    pub(crate) fn open(&self, fs: Arc<dyn Fs>) -> Result<Box<dyn Session>, SubjectError> {
        let site = Site { dir: Path::new(HOME), fs, sync: self.cell.sync.0, tables: self.tables, background: false };
        self.subject.open(&site)
    }
}

/// The files of a scenario, in the store's directory.
pub(crate) fn files(cell: &CellPlan) -> Files {
    let home = |(name, text): (&String, &String)| (Path::new(HOME).join(name), text.clone().into_bytes());
    cell.plan.power.files.iter().map(home).collect()
}

/// A file system that holds these files, and the store's directory.
pub(crate) fn disk(files: &Files) -> MemFs {
    let parents = files.keys().filter_map(|path| path.parent()).map(Path::to_owned);
    MemFs::with_files(parents.chain([PathBuf::from(HOME)]), files.clone())
}

/// The steps of the n-th run of a cell: the clients' streams, interleaved by the seed, and what the plan
/// puts in between.
pub(crate) fn steps(cell: &CellPlan, number: u64, calls: u64) -> Vec<Step> {
    let plan = &cell.plan.power;
    if let Workload::Script(script) = &cell.plan.workload {
        return script.steps.iter().filter_map(scripted).collect();
    }
    let level = cell.level.parse().unwrap_or(Durability::Write);
    let clients = cell.plan.workload.clients();
    let streams = (0..clients).map(|c| cell.plan.workload.stream(level, cell.seed, number, c).into_iter().flatten());
    let mut streams: Vec<_> = streams.collect();
    let mut turns = rng(cell.seed, &[number, u64::MAX]);
    let mut steps = Vec::new();
    for n in 1..=calls {
        let client = turns.random_range(0..clients) as usize;
        let Some(call) = streams[client].next() else { continue };
        steps.push(Step::Call { client, call });
        let due = |every: u64| every > 0 && n.is_multiple_of(every);
        let extra = [(plan.sync_every, Step::Sync), (plan.shrink_every, Step::Shrink), (plan.reopen_every, Step::Reopen)];
        steps.extend(extra.into_iter().filter(|(every, _)| due(*every)).map(|(_, step)| step));
    }
    steps
}

/// A step as it stands in a script.
pub(crate) fn as_script(step: &Step) -> ScriptStep {
    let owner = |owner| ScriptStep { owner: Some(owner), ..ScriptStep::default() };
    match step {
        Step::Sync => owner(Owner::Sync),
        Step::Shrink => owner(Owner::Shrink),
        Step::Reopen => owner(Owner::Reopen),
        Step::Call { client, call } => match &call.action {
            Action::Get { table, key } => {
                ScriptStep { client: *client, get: Some((*table, key.clone())), ..ScriptStep::default() }
            }
            Action::Write { changes, level } => {
                ScriptStep { client: *client, changes: changes.clone(), level: Some(level.to_string()), ..ScriptStep::default() }
            }
            Action::Push { values, end, level } => ScriptStep {
                client: *client,
                push: values.clone(),
                end: *end,
                level: Some(level.to_string()),
                ..ScriptStep::default()
            },
            Action::Pop { level, acknowledged } => {
                let pop = Some(if *acknowledged { Pop::Acknowledge } else { Pop::Take });
                ScriptStep { client: *client, pop, level: Some(level.to_string()), ..ScriptStep::default() }
            }
            Action::Hold => ScriptStep { client: *client, pop: Some(Pop::Hold), ..ScriptStep::default() },
            Action::Acknowledge { level } => {
                ScriptStep { client: *client, pop: Some(Pop::Held), level: Some(level.to_string()), ..ScriptStep::default() }
            }
        },
    }
}

fn scripted(step: &ScriptStep) -> Option<Step> {
    match step.owner {
        Some(Owner::Sync) => Some(Step::Sync),
        Some(Owner::Shrink) => Some(Step::Shrink),
        Some(Owner::Reopen) => Some(Step::Reopen),
        None => step.call().map(|call| Step::Call { client: step.client, call }),
    }
}

/// Runs the steps on a store that begins with `files`, and closes it.
pub(crate) fn record(opener: &Opener<'_>, files: &Files, steps: &[Step], pace: Pace) -> Result<Recording, SubjectError> {
    let base = if files.is_empty() {
        vec![Default::default(); opener.tables.len()]
    } else {
        opener.open(Arc::new(disk(files)))?.contents()?
    };
    let mem = disk(files);
    let dirs = mem.dirs();
    let fs = TraceFs::over(&mem);
    let mut run = Run::new(opener, fs, pace, steps)?;
    let mut error = None;
    for step in steps {
        if let Err(e) = run.step(step) {
            error.get_or_insert(e.to_string());
        }
    }
    run.note(Mark::Work);
    if let Some(session) = run.session.take()
        && let Err(e) = session.close()
    {
        error.get_or_insert(e.to_string());
    }
    let trace = Trace::new(dirs, files.clone(), run.fs.recorder().entries());
    let (writes, syncs) = slots(&trace, run.writes, run.syncs);
    let opened = trace.marks.iter().find(|(_, m)| *m == Mark::Opened).map_or(0, |(at, _)| *at);
    Ok(Recording { trace, writes, syncs, base, opened, error })
}

/// A run under way.
pub(crate) struct Run<'a> {
    opener: &'a Opener<'a>,
    pub(crate) fs: TraceFs,
    pace: Pace,
    arrivals: crate::workload::random::Rng,
    pub(crate) session: Option<Box<dyn Session>>,
    /// Virtual time since the run began.
    now: u64,
    arrival: f64,
    opened_at: u64,
    due: Option<u64>,
    pub(crate) writes: Vec<Vec<Written>>,
    /// What was handed out to each client.
    held: Vec<Held>,
    pub(crate) syncs: Vec<(usize, usize)>,
    syncs_seen: usize,
    seen: usize,
}

/// The client number under which syncs of the owner are noted.
const OWNER: usize = usize::MAX >> 1;

impl<'a> Run<'a> {
    pub(crate) fn new(opener: &'a Opener<'a>, fs: TraceFs, pace: Pace, steps: &[Step]) -> Result<Self, SubjectError> {
        let clients = steps.iter().filter_map(|s| if let Step::Call { client, .. } = s { Some(client + 1) } else { None });
        let mut run = Self {
            opener,
            fs,
            pace,
            arrivals: rng(pace.seed, &[0xa7]),
            session: None,
            now: 0,
            arrival: 0.0,
            opened_at: 0,
            due: None,
            writes: vec![Vec::new(); clients.max().unwrap_or(0)],
            held: Vec::new(),
            syncs: Vec::new(),
            syncs_seen: 0,
            seen: 0,
        };
        run.open()?;
        Ok(run)
    }

    pub(crate) fn note(&self, mark: Mark) {
        self.fs.recorder().note(mark.note());
    }

    fn open(&mut self) -> Result<(), SubjectError> {
        self.note(Mark::Work);
        self.session = Some(self.opener.open(Arc::new(self.fs.clone()))?);
        // A store that is opened again has handed out nothing.
        self.held = std::iter::repeat_with(Held::default).take(self.writes.len()).collect();
        self.spend_syncs();
        self.note(Mark::Opened);
        self.opened_at = self.now;
        self.due = Some(0);
        Ok(())
    }

    /// Lets the time of the syncs since last time pass.
    fn spend_syncs(&mut self) {
        let (syncs, seen) = self.fs.recorder().syncs_since(self.seen);
        self.seen = seen;
        self.now += syncs * self.pace.sync_ns;
        self.syncs_seen += syncs as usize;
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), SubjectError> {
        let gap: f64 = self.arrivals.random_range(f64::EPSILON..1.0);
        self.arrival += -gap.ln() / self.pace.rate * 1e9;
        let maintained = self.maintain_until(self.arrival as u64);
        self.now = self.now.max(self.arrival as u64);
        self.note(Mark::Time(self.now));
        let done = self.act(step);
        self.spend_syncs();
        maintained.and(done)
    }

    fn act(&mut self, step: &Step) -> Result<(), SubjectError> {
        if self.session.is_none() {
            self.open()?;
        }
        let Some(session) = &self.session else { return Ok(()) };
        match step {
            Step::Call { client, call } => {
                let (client, held) = (*client, &mut self.held[*client]);
                let Some(write) = Written::of(call, held.due(call)) else { return call.make(&**session, held).map(drop) };
                let number = self.writes[client].len();
                self.writes[client].push(write);
                self.fs.recorder().note(Mark::Begin { client, number }.note());
                let done = call.make(&**session, held);
                if let Ok(answer) = &done {
                    self.writes[client][number].answered(call, answer);
                }
                self.note(if done.is_ok() { Mark::Acked { client, number } } else { Mark::Failed { client, number } });
                done.map(drop)
            }
            Step::Sync => {
                let number = self.syncs.len();
                self.syncs.push((OWNER, number));
                self.note(Mark::Begin { client: OWNER, number });
                let done = session.sync();
                self.note(if done.is_ok() {
                    Mark::Acked { client: OWNER, number }
                } else {
                    Mark::Failed { client: OWNER, number }
                });
                done
            }
            Step::Shrink => {
                self.note(Mark::Work);
                session.shrink().map(drop)
            }
            Step::Reopen => {
                self.note(Mark::Work);
                let closed = self.session.take().map_or(Ok(()), |session| session.close());
                self.spend_syncs();
                closed.and(self.open())
            }
        }
    }

    /// Does what the store has to do by itself up to a moment.
    fn maintain_until(&mut self, moment: u64) -> Result<(), SubjectError> {
        let mut outcome = Ok(());
        while let (Some(due), Some(session)) = (self.due, &self.session) {
            let due = due + self.opened_at;
            if due > moment {
                break;
            }
            self.now = self.now.max(due);
            self.note(Mark::Time(self.now));
            self.note(Mark::Work);
            let age = self.now - self.opened_at;
            match session.maintain(Duration::from_nanos(age)) {
                // A store that asks to be called at once is called a millisecond later.
                Ok(next) => self.due = next.map(|n| (n.as_nanos() as u64).max(age + 1_000_000)),
                Err(e) => {
                    self.due = Some(age + 1_000_000_000);
                    outcome = outcome.and(Err(e));
                }
            }
            self.spend_syncs();
        }
        outcome
    }
}

/// Fills in when each call began and how it ended, from the marks of the trace.
pub(crate) fn slots(trace: &Trace, mut writes: Vec<Vec<Written>>, syncs: Vec<(usize, usize)>) -> (Vec<Vec<Written>>, Vec<Slot>) {
    let mut owner = vec![Slot { begin: u64::MAX, outcome: Outcome::Unknown }; syncs.len()];
    for &(at, mark) in &trace.marks {
        let (Mark::Begin { client, number } | Mark::Acked { client, number } | Mark::Failed { client, number }) = mark else {
            continue;
        };
        let slot = if client == OWNER { &mut owner[number] } else { &mut writes[client][number].slot };
        match mark {
            Mark::Begin { .. } => slot.begin = at,
            Mark::Acked { .. } => slot.outcome = Outcome::Acked(at),
            _ => slot.outcome = Outcome::Failed(at),
        }
    }
    (writes, owner)
}

/// A recording's writes and syncs as they stand when a call is put into its trace before position `at`.
pub(crate) fn moved(recording: &Recording, at: u64) -> (Vec<Vec<Written>>, Vec<Slot>) {
    let moved = |p: u64| if p >= at && p != u64::MAX { p + 2 } else { p };
    let slot = |s: &Slot| Slot {
        begin: moved(s.begin),
        outcome: match s.outcome {
            Outcome::Acked(p) => Outcome::Acked(moved(p)),
            Outcome::Failed(p) => Outcome::Failed(moved(p)),
            Outcome::Unknown => Outcome::Unknown,
        },
    };
    let write = |w: &Written| Written { slot: slot(&w.slot), ..w.clone() };
    (recording.writes.iter().map(|c| c.iter().map(write).collect()).collect(), recording.syncs.iter().map(slot).collect())
}
