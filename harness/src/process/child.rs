//! What the harness's own child processes do: write until killed, dump a recovered store, or run one
//! repetition of a benchmark.
//!
//! **Invariant:** a child checks nothing. It does as told and leaves the judging to a process that was
//! never killed.

use super::probe::{Aim, ProbeFs};
use crate::history::{History, Moment, Note, fingerprint};
use crate::measure::clock::Clock;
use crate::subject::{Contents, Half, Ordered, Registry, Session, Site, SubjectError, SyncPolicyText, Table};
use crate::workload::Workload;
use crate::workload::growth::{self, Recovery};
use crate::workload::stream::{Answer, Held};
use engine::Durability;
use engine::fs::{Fs, RealFs};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The environment variable that tells a child who started it.
pub const PARENT: &str = "HARNESS_PARENT";

/// What a child is told, as JSON in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Make calls until killed.
    Write(WriteTask),
    /// Open the store twice and write down what is in it.
    Dump(DumpTask),
    /// One repetition of a benchmark.
    Bench(super::repetition::BenchTask),
    /// Fill a store and die without a word.
    Fill(FillTask),
}

/// The store that a child works on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreSpec {
    /// Name of the subject.
    pub subject: String,
    /// Sync policy.
    pub sync: SyncPolicyText,
    /// Durability level of workloads that do not choose it themselves.
    pub level: String,
    /// The workload, for its calls.
    pub workload: Workload,
    /// Its tables, with their policies.
    pub tables: Vec<Table>,
    /// The store's directory.
    pub dir: PathBuf,
}

/// Make calls until killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WriteTask {
    /// The store.
    pub store: StoreSpec,
    /// Seed of the cell.
    pub seed: u64,
    /// Number of the round, so that values of different rounds differ.
    pub round: u64,
    /// The shared history.
    pub history: PathBuf,
    /// Slots in each of its rows.
    pub capacity: u64,
    /// Where to linger: index into [`Moment::AIMED`], and occurrences to let pass.
    pub aim: Option<(usize, u64)>,
    /// Ask the store to shrink over and over.
    pub shrink: bool,
    /// The half of a queue to be, if another process is the other one.
    pub half: Option<Half>,
}

/// Open the store twice and write down what is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DumpTask {
    /// The store.
    pub store: StoreSpec,
    /// Where to write the [`Dump`].
    pub out: PathBuf,
}

/// Fill a store and die without a word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FillTask {
    /// The store.
    pub store: StoreSpec,
    /// What to fill it with.
    pub spec: Recovery,
    /// How many records.
    pub records: u64,
    /// Seed of the values.
    pub seed: u64,
}

/// What was in a recovered store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dump {
    /// How long opening took.
    pub open_ns: u64,
    /// What the first opening found, or why it did not open.
    pub contents: Result<Contents, String>,
    /// Whether a second opening found the same; absent if the first failed.
    pub second_agrees: Option<bool>,
}

impl StoreSpec {
    /// The level by its name.
    pub fn level(&self) -> Durability {
        self.level.parse().unwrap_or(Durability::Write)
    }

    /// Opens the store through `fs`.
    pub fn open(&self, registry: &Registry, fs: Arc<dyn Fs>) -> Result<Box<dyn Session>, SubjectError> {
        self.open_as(registry, fs, None)
    }

    /// Opens the store, or a half of it.
    fn open_as(&self, registry: &Registry, fs: Arc<dyn Fs>, half: Option<Half>) -> Result<Box<dyn Session>, SubjectError> {
        let subject = registry.get(&self.subject).map_err(|e| SubjectError::Store(e.to_string()))?;
        let site = Site { dir: &self.dir, fs, sync: self.sync.0, tables: &self.tables, background: true };
        half.map_or_else(|| subject.open(&site), |half| subject.open_half(&site, half))
    }
}

/// Does what the task file says. Returns when done; a writer returns only if nobody kills it.
pub fn run(registry: &Registry, task: &Path) -> Result<(), SubjectError> {
    die_with_parent()?;
    let text = std::fs::read_to_string(task)?;
    match serde_json::from_str(&text).map_err(|e| SubjectError::Store(format!("task file: {e}")))? {
        Task::Write(task) => write(registry, &task),
        Task::Dump(task) => dump(registry, &task),
        Task::Bench(task) => super::repetition::run(registry, &task),
        Task::Fill(task) => fill(registry, &task),
    }
}

/// Whatever kills the harness must not leave its children at work.
pub fn die_with_parent() -> Result<(), SubjectError> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)?;
    if std::env::var(PARENT).is_ok_and(|pid| pid != std::os::unix::process::parent_id().to_string()) {
        // It died before it could be watched.
        return Err(SubjectError::Store("the harness that started this child is gone".to_owned()));
    }
    Ok(())
}

/// The interface of ordered bytes, for a workload that cannot do without.
pub(super) fn ordered_of(session: &dyn Session) -> Result<&dyn Ordered, SubjectError> {
    session.ordered().ok_or(SubjectError::Unsupported("ordered keys of bytes"))
}

fn fill(registry: &Registry, task: &FillTask) -> Result<(), SubjectError> {
    let session = task.store.open(registry, Arc::new(RealFs))?;
    let store = ordered_of(&*session)?;
    growth::fill(&task.spec, task.records, store, task.store.level(), task.seed)?;
    // No destructor runs, as under SIGKILL.
    std::process::abort()
}

fn write(registry: &Registry, task: &WriteTask) -> Result<(), SubjectError> {
    let clients = task.store.workload.clients();
    let history = Arc::new(History::open(&task.history, clients, task.capacity)?);
    let aim = task.aim.and_then(|(moment, skip)| Some(Aim { moment: *Moment::AIMED.get(moment)?, skip }));
    let fs = ProbeFs::new(Arc::new(RealFs), Arc::clone(&history), aim);
    let fresh = std::fs::read_dir(&task.store.dir)?.next().is_none();
    fs.opening(!fresh);
    let session = task.store.open_as(registry, Arc::new(fs.clone()), task.half)?;
    fs.opened(fresh);
    history.set_ready();
    let session = &*session;
    let own = match (&task.store.workload, task.half) {
        (Workload::Queue(spec), Some(half)) => spec.half(half),
        _ => 0..clients,
    };
    let mut jobs: Vec<Option<u64>> = own.map(Some).collect();
    if task.shrink {
        jobs.push(None);
    }
    engine::background::in_parallel(jobs, |job| {
        let ended = match job {
            Some(client) => call_until_full(session, &history, task, client),
            None => shrink_for_ever(session),
        };
        if let Err(e) = ended {
            // The other clients would go on until killed; the supervisor must hear of this now.
            let _ = writeln!(std::io::stderr(), "error: {e}");
            std::process::exit(1);
        }
    });
    Ok(())
}

fn shrink_for_ever(session: &dyn Session) -> Result<(), SubjectError> {
    loop {
        session.shrink()?;
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn call_until_full(session: &dyn Session, history: &History, task: &WriteTask, client: u64) -> Result<(), SubjectError> {
    let stream = task.store.workload.stream(task.store.level(), task.seed, task.round, client);
    let stream = stream.ok_or(SubjectError::Unsupported("stream of calls"))?;
    let mut held = Held::default();
    for (number, call) in stream.enumerate() {
        let number = number as u64;
        if number == history.capacity() {
            // Calls stop rather than go unrecorded; the supervisor kills a full history as it does a running one.
            std::thread::sleep(Duration::from_secs(3600));
        }
        history.begin(client, number);
        if let Some((index, text)) = held.due(&call) {
            // Noted before: a kill in the middle must not hide which entry it was.
            history.note(client, number, Note { index: *index, text: fingerprint(text) });
        }
        let answer = call.make(session, &mut held);
        if let Ok(answer) = &answer {
            note(history, client, number, answer);
        }
        history.end(client, number, answer.is_ok());
    }
    Ok(())
}

/// Notes which entry of a queue a call was about.
fn note(history: &History, client: u64, call: u64, answer: &Answer) {
    match answer {
        Answer::Pushed(index) => history.note(client, call, Note { index: *index, text: 0 }),
        Answer::Popped(Some((index, text))) => history.note(client, call, Note { index: *index, text: fingerprint(text) }),
        Answer::Popped(None) | Answer::Done => {}
    }
}

fn dump(registry: &Registry, task: &DumpTask) -> Result<(), SubjectError> {
    let clock = Clock::start();
    let opened = task.store.open(registry, Arc::new(RealFs));
    let open_ns = clock.now();
    let read = |session: Box<dyn Session>| {
        let contents = session.contents();
        let closed = session.close();
        contents.and_then(|c| closed.map(|()| c))
    };
    let contents = match opened.and_then(read) {
        // A full disk is nobody's verdict.
        Err(e @ SubjectError::Full(_)) => return Err(e),
        other => other.map_err(|e| e.to_string()),
    };
    let second_agrees = contents.as_ref().ok().map(|first| {
        let second = task.store.open(registry, Arc::new(RealFs)).and_then(read);
        second.is_ok_and(|second| second == *first)
    });
    let json = serde_json::to_vec(&Dump { open_ns, contents, second_agrees }).map_err(|e| SubjectError::Store(e.to_string()))?;
    Ok(std::fs::write(&task.out, json)?)
}
