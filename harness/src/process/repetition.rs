//! One repetition of a benchmark: one process with one directory on the real disk.

use super::child::{FillTask, StoreSpec, Task, ordered_of};
use super::supervisor::{Ended, start};
use crate::measure::clock::Clock;
use crate::measure::counters::{Calls, CountingFs};
use crate::measure::histogram::Latencies;
use crate::measure::process::{Usage, space, usage};
use crate::result::{Point, Projection, Role, Whole};
use crate::scenario::BenchPlan;
use crate::subject::{Overwriting, Registry, Session, SubjectError};
use crate::workload::Workload;
use crate::workload::db_bench::{self, DbBench};
use crate::workload::growth::{self, Compaction, Recovery};
use crate::workload::outcome::{PhaseSample, Repetition};
use crate::workload::queue_bench::{self, Progress, QueueBench, Step};
use crate::workload::random::mix;
use crate::workload::stream::{Action, Call, Held, Stream};
use crate::workload::ttfp::{self, Simulated, TtfpSpec};
use crate::workload::ycsb::{self, Ycsb};
use crate::workload::{go_persist, load};
use engine::SyncPolicy;
use engine::fs::RealFs;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Limit on filling a store.
const LIMIT: Duration = Duration::from_secs(900);

/// One repetition of a bench cell, as told to a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BenchTask {
    /// The store.
    pub store: StoreSpec,
    /// How to measure.
    pub plan: BenchPlan,
    /// Seed of the cell.
    pub seed: u64,
    /// Number of the repetition.
    pub repetition: u64,
    /// Whether to measure the bare generation of operations too.
    pub generate: bool,
    /// Where to write the [`Repetition`].
    pub out: PathBuf,
}

/// Runs one repetition and writes down what it measured.
pub fn run(registry: &Registry, task: &BenchTask) -> Result<(), SubjectError> {
    if let Workload::Ttfp(spec) = &task.store.workload {
        return write_out(task, vec![first_payments(registry, task, spec)?]);
    }
    let fs = CountingFs::new(Arc::new(RealFs));
    let open = || task.store.open(registry, Arc::new(fs.clone()));
    let seed = mix(task.seed, &[task.repetition]);
    let meter = || Meter { fs: &fs, calls: fs.calls(), usage: usage() };
    let level = task.store.level();
    if let Workload::DbBench(spec) = &task.store.workload {
        return write_out(task, db_bench(spec, task, &open, &meter, seed)?);
    }
    if let Workload::QueueBench(spec) = &task.store.workload {
        return write_out(task, queue_bench(spec, task, &open, &meter)?);
    }
    if let Workload::Recovery(spec) = &task.store.workload {
        let (phases, measured) = recovery(spec, registry, task, &meter, seed)?;
        return write_all_out(task, phases, vec![growth::opening(measured, spec.to_bytes)]);
    }
    if let Workload::Compaction(spec) = &task.store.workload {
        let (phases, projections) = compaction(spec, registry, task, &meter, seed)?;
        return write_all_out(task, phases, projections);
    }
    if let Workload::Ycsb(spec) = &task.store.workload {
        return write_out(task, ycsb(spec, task, &open, &meter, seed)?);
    }
    let mut phases = Vec::new();
    let mut session = open()?;
    match &task.store.workload {
        Workload::GoPersist(spec) => {
            let records = session.records().ok_or(SubjectError::Unsupported("records of the go-persist struct"))?;
            let before = meter();
            phases.push(before.read(go_persist::prefill(spec, records, level)?));
            if task.generate {
                let before = meter();
                phases.push(before.read(go_persist::generate(spec, seed)));
            }
            let before = meter();
            phases.push(before.read(go_persist::run(spec, records, level, seed)?));
        }
        Workload::Load(spec) => {
            let before = meter();
            phases.push(before.read(load::write(spec, &*session, level)?));
        }
        stream => {
            if task.generate {
                let before = meter();
                phases.push(before.read(calls(&*session, stream, task, seed, "generate", task.plan.seconds)?));
            }
            if task.plan.warm_up_seconds > 0.0 {
                calls(&*session, stream, task, mix(seed, &[1]), "warm-up", task.plan.warm_up_seconds)?;
            }
            let before = meter();
            phases.push(before.read(calls(&*session, stream, task, seed, "run", task.plan.seconds)?));
        }
    }
    phases.push(timed("close", &meter(), || session.close())?.with_space(space(&task.store.dir)));
    session = match &task.store.workload {
        Workload::Load(spec) if keeps_files(registry, task) => {
            let before = meter();
            let clock = Clock::start();
            let session = open()?;
            load::read_one(spec, &*session)?;
            let one = PhaseSample::new("open-and-read-one", clock.now(), spec.records.max(1));
            phases.push(before.read(one));
            if spec.records == 0 {
                let before = meter();
                let clock = Clock::start();
                let operations = load::read_many(spec, &*session)?;
                phases.push(before.read(PhaseSample::new("read-40000", clock.now(), operations)));
            }
            session
        }
        _ if task.plan.shrink && keeps_files(registry, task) => open()?,
        _ => return write_out(task, phases),
    };
    if task.plan.shrink {
        let before = meter();
        let clock = Clock::start();
        if session.shrink()? {
            let shrink = PhaseSample::new("shrink", clock.now(), 1);
            phases.push(before.read(shrink));
        }
    }
    session.close()?;
    if let Some(close) = phases.iter_mut().find(|p| p.name == "close") {
        close.shrunk = Some(space(&task.store.dir).0);
    }
    write_out(task, phases)
}

/// LevelDB's benchmarks, one after the other; those that begin with an empty store get one.
fn db_bench<'f>(
    spec: &DbBench,
    task: &BenchTask,
    open: &dyn Fn() -> Result<Box<dyn Session>, SubjectError>,
    meter: &dyn Fn() -> Meter<'f>,
    seed: u64,
) -> Result<Vec<PhaseSample>, SubjectError> {
    let mut session = open()?;
    let mut phases: Vec<PhaseSample> = Vec::new();
    for (number, &name) in spec.list.iter().enumerate() {
        if name.is_fresh() && number > 0 {
            session.close()?;
            std::fs::remove_dir_all(&task.store.dir)?;
            std::fs::create_dir_all(&task.store.dir)?;
            session = open()?;
        }
        let store = ordered_of(&*session)?;
        let before = meter();
        let sample = before.read(db_bench::run(spec, name, store, task.store.level(), mix(seed, &[number as u64]))?);
        let again = phases.iter().filter(|p| p.name.split('-').next() == Some(name.text())).count();
        let name = if again == 0 { sample.name.clone() } else { format!("{}-{}", sample.name, again + 1) };
        phases.push(PhaseSample { name, ..sample }.with_space(space(&task.store.dir)));
    }
    phases.extend(close_and_open(session, task, open, meter)?);
    Ok(phases)
}

/// The steps of a queue; to reopen it is one of them.
fn queue_bench<'f>(
    spec: &QueueBench,
    task: &BenchTask,
    open: &dyn Fn() -> Result<Box<dyn Session>, SubjectError>,
    meter: &dyn Fn() -> Meter<'f>,
) -> Result<Vec<PhaseSample>, SubjectError> {
    let (mut session, mut progress) = (open()?, Progress::default());
    let mut phases: Vec<PhaseSample> = Vec::new();
    for &step in &spec.list {
        let (before, mut opening) = (meter(), 0);
        if step == Step::Reopen {
            session.close()?;
            let clock = Clock::start();
            session = open()?;
            opening = clock.now();
        }
        let queue = session.fifo().ok_or(SubjectError::Unsupported("queue"))?;
        let Some(sample) = queue_bench::run(spec, step, queue, task.store.level(), &mut progress)? else { continue };
        let sample = before.read(PhaseSample { duration_ns: sample.duration_ns + opening, ..sample });
        phases.push(sample.with_space(space(&task.store.dir)));
    }
    phases.push(timed("close", &meter(), || session.close())?.with_space(space(&task.store.dir)));
    Ok(phases)
}

/// Opening stores of several sizes, each filled by a process that died.
fn recovery<'f>(
    spec: &Recovery,
    registry: &Registry,
    task: &BenchTask,
    meter: &dyn Fn() -> Meter<'f>,
    seed: u64,
) -> Result<(Vec<PhaseSample>, Vec<Point>), SubjectError> {
    let (mut phases, mut points) = (Vec::new(), Vec::new());
    for &records in &spec.records {
        let dir = task.store.dir.join(records.to_string());
        let store = StoreSpec { dir: dir.join("store"), ..task.store.clone() };
        std::fs::create_dir_all(&store.dir)?;
        let fill = Task::Fill(FillTask { store: store.clone(), spec: spec.clone(), records, seed });
        match start(&fill, &dir)?.wait(LIMIT)? {
            Ended::Exited(status, _) if status.signal() == Some(Signal::SIGABRT as i32) => {}
            Ended::Exited(status, words) => return Err(SubjectError::Store(format!("filling it failed ({status}): {words}"))),
            Ended::TimedOut => return Err(SubjectError::Store("filling it did not end in time".to_owned())),
        }
        let (before, clock) = (meter(), Clock::start());
        let session = store.open(registry, Arc::new(before.fs.clone()))?;
        let ordered = ordered_of(&*session)?;
        // Open is what answers.
        ordered.get(&crate::workload::db_bench::key(0), &mut |_| ())?;
        let duration_ns = clock.now();
        let phase = PhaseSample::new(format!("open-{records}"), duration_ns, 1);
        phases.push(before.read(phase).with_space(space(&store.dir)));
        points.push(Point { bytes: records * (16 + spec.value_bytes), value: duration_ns as f64 / 1e9 });
        growth::check(records, ordered)?;
        session.close()?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok((phases, points))
}

/// Amplification of stores of several sizes, beside what the store itself expects.
fn compaction<'f>(
    spec: &Compaction,
    registry: &Registry,
    task: &BenchTask,
    meter: &dyn Fn() -> Meter<'f>,
    seed: u64,
) -> Result<(Vec<PhaseSample>, Vec<Projection>), SubjectError> {
    let subject = registry.get(&task.store.subject).map_err(|e| SubjectError::Store(e.to_string()))?;
    let entry = 16 + spec.value_bytes;
    let mut phases = Vec::new();
    let mut projections = growth::AMPLIFICATIONS.map(growth::amplification);
    let mut known = Overwriting { entry, write_s: f64::INFINITY, ..Overwriting::default() };
    for &records in &spec.records {
        let store = StoreSpec { dir: task.store.dir.join(records.to_string()), ..task.store.clone() };
        std::fs::create_dir_all(&store.dir)?;
        let before = meter();
        let session = store.open(registry, Arc::new(before.fs.clone()))?;
        let ordered = ordered_of(&*session)?;
        let clock = Clock::start();
        let writes = growth::overwrite(spec, records, ordered, task.store.level(), seed)?;
        let duration_ns = clock.now();
        let tree = session.settle()?.ok_or(SubjectError::Unsupported("tree of tables"))?;
        let phase = PhaseSample { writes, ..PhaseSample::new(format!("overwrite-{records}"), duration_ns, writes) };
        phases.push(before.read(phase).with_space(space(&store.dir)));
        session.close()?;
        std::fs::remove_dir_all(&store.dir)?;
        let distinct = records as f64 * -(-(writes as f64) / records as f64).exp_m1();
        known.stored = tree.bytes as f64 / (tree.versions as f64).max(1.0);
        known.compaction_s = tree.compaction_s;
        known.write_s = known.write_s.min(duration_ns as f64 / 1e9 / writes as f64);
        let figures = [tree.write_amplification, tree.versions as f64 / distinct];
        for (projection, value) in projections.iter_mut().zip(figures) {
            projection.measured.push(Point { bytes: records * entry, value });
        }
    }
    let least = spec.records.iter().min().copied().unwrap_or(1) * entry;
    let drawn = growth::sizes(least, spec.to_bytes).into_iter().map(|bytes| bytes / entry);
    let mut sizes: Vec<u64> = spec.records.iter().copied().chain(drawn).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for records in sizes {
        let expected = subject.expect(&Overwriting { keys: records, writes: records * spec.writes_per_key, ..known });
        let (write, space) = expected.ok_or(SubjectError::Unsupported("simulation of its compactions"))?;
        for (projection, value) in projections.iter_mut().zip([write, space]) {
            projection.predicted.push(Point { bytes: records * entry, value });
        }
    }
    Ok((phases, projections.into()))
}

/// A core workload of YCSB.
fn ycsb<'f>(
    spec: &Ycsb,
    task: &BenchTask,
    open: &dyn Fn() -> Result<Box<dyn Session>, SubjectError>,
    meter: &dyn Fn() -> Meter<'f>,
    seed: u64,
) -> Result<Vec<PhaseSample>, SubjectError> {
    let session = open()?;
    let store = ordered_of(&*session)?;
    let mut phases = ycsb::run(spec, store, task.store.level(), seed, &mut |phase| {
        let before = meter();
        Ok(before.read(phase()?).with_space(space(&task.store.dir)))
    })?;
    phases.extend(close_and_open(session, task, open, meter)?);
    Ok(phases)
}

/// The end of a run: closing, with the size of what it leaves, and opening once more.
fn close_and_open<'f>(
    session: Box<dyn Session>,
    task: &BenchTask,
    open: &dyn Fn() -> Result<Box<dyn Session>, SubjectError>,
    meter: &dyn Fn() -> Meter<'f>,
) -> Result<[PhaseSample; 2], SubjectError> {
    let close = timed("close", &meter(), || session.close())?.with_space(space(&task.store.dir));
    let (before, clock) = (meter(), Clock::start());
    let session = open()?;
    let opened = PhaseSample::new("open", clock.now(), 1);
    let opened = before.read(opened);
    session.close()?;
    Ok([close, opened])
}

/// Time to first payment: here or in virtual time, fitted or as told.
fn first_payments(registry: &Registry, task: &BenchTask, spec: &TtfpSpec) -> Result<PhaseSample, SubjectError> {
    let failed = |e: ttfp::TtfpError| SubjectError::Store(e.to_string());
    let subject = registry.get(&task.store.subject).map_err(|e| SubjectError::Store(e.to_string()))?;
    let (mut spec, sync) = (spec.clone(), task.store.sync.0);
    let mut fitted = Vec::new();
    if let Some(machine) = spec.simulated.clone().filter(|machine| machine.fit) {
        let fit = ttfp::fit(&spec, &*subject).map_err(failed)?;
        fitted.push(format!(
            "{} µs of processor time a message, fitted to {:.1} ms under never",
            fit.cpu_per_message_us, fit.never_ms
        ));
        fitted.push(format!("{} µs a sync, fitted to {:.1} ms under always", fit.sync_latency_us, fit.always_ms));
        let (cpu_per_message_us, sync_latency_us) = (fit.cpu_per_message_us, fit.sync_latency_us);
        spec.simulated = Some(Simulated { cpu_per_message_us, sync_latency_us, ..machine });
    }
    let before = usage();
    let outcome = match spec.simulated {
        Some(_) => ttfp::run_virtual(&spec, &*subject, sync),
        None => ttfp::run_real(&spec, &*subject, sync, &task.store.dir),
    }
    .map_err(failed)?;
    let now = usage();
    let mut result = outcome.to_result(&spec, sync);
    if let Some(model) = &mut result.model {
        model.fitted = fitted;
    } else if sync == SyncPolicy::Always && spec.jobs * spec.payers == 1 {
        // One job alone queues nowhere, so the difference between the policies should be its syncs.
        let dir = task.store.dir.join("never");
        std::fs::create_dir_all(&dir)?;
        let never = ttfp::run_real(&spec, &*subject, SyncPolicy::Never, &dir).map_err(failed)?;
        result.check = Some(ttfp::check(&never, &outcome, outcome.mean_sync_ns()));
    }
    Ok(PhaseSample {
        name: "run".into(),
        duration_ns: outcome.wall_ns,
        operations: result.count,
        writes: outcome.writes,
        syncs: outcome.syncs,
        bytes_written: outcome.bytes,
        device_bytes: now.device_bytes.saturating_sub(before.device_bytes),
        cpu_user_ns: now.cpu_user_ns - before.cpu_user_ns,
        cpu_system_ns: now.cpu_system_ns - before.cpu_system_ns,
        rss_peak: now.rss_peak,
        rss_end: now.rss,
        ttfp: Some(result),
        ..PhaseSample::default()
    })
}

fn keeps_files(registry: &Registry, task: &BenchTask) -> bool {
    registry.get(&task.store.subject).is_ok_and(|s| s.role() == Role::Store)
}

fn timed(name: &str, before: &Meter<'_>, work: impl FnOnce() -> Result<(), SubjectError>) -> Result<PhaseSample, SubjectError> {
    let clock = Clock::start();
    work()?;
    Ok(before.read(PhaseSample::new(name, clock.now(), 1)))
}

fn write_out(task: &BenchTask, phases: Vec<PhaseSample>) -> Result<(), SubjectError> {
    write_all_out(task, phases, Vec::new())
}

fn write_all_out(task: &BenchTask, phases: Vec<PhaseSample>, projections: Vec<Projection>) -> Result<(), SubjectError> {
    let now = usage();
    let whole = Whole { device_bytes: now.device_bytes, cpu_ns: now.cpu_user_ns + now.cpu_system_ns, rss_peak: now.rss_peak };
    let json = serde_json::to_vec(&Repetition { phases, projections, whole }).map_err(|e| SubjectError::Store(e.to_string()))?;
    Ok(std::fs::write(&task.out, json)?)
}

/// The counters at the begin of a phase.
struct Meter<'f> {
    fs: &'f CountingFs,
    calls: Calls,
    usage: Usage,
}

impl Meter<'_> {
    /// The phase with what was used since.
    fn read(&self, phase: PhaseSample) -> PhaseSample {
        let now = usage();
        PhaseSample {
            cpu_user_ns: now.cpu_user_ns.saturating_sub(self.usage.cpu_user_ns),
            cpu_system_ns: now.cpu_system_ns.saturating_sub(self.usage.cpu_system_ns),
            rss_peak: now.rss_peak,
            rss_end: now.rss,
            device_bytes: now.device_bytes.saturating_sub(self.usage.device_bytes),
            ..phase
        }
        .with_calls(self.fs.calls().since(self.calls))
    }
}

#[derive(Default)]
struct Client {
    ops: Vec<Op>,
    operations: u64,
    writes: u64,
    calls: u64,
}

/// One kind of operation of one client. There are few kinds, so looking them up in turn is fastest.
#[derive(Default)]
struct Op {
    name: &'static str,
    service: Latencies,
    response: Latencies,
    errors: u64,
}

impl Client {
    fn op(&mut self, name: &'static str) -> &mut Op {
        let at = self.ops.iter().position(|op| op.name == name).unwrap_or_else(|| {
            self.ops.push(Op { name, ..Op::default() });
            self.ops.len() - 1
        });
        &mut self.ops[at]
    }
}

/// Lets every client make its calls for so long. The phase `generate` draws the calls and drops them.
fn calls(
    session: &dyn Session,
    workload: &Workload,
    task: &BenchTask,
    seed: u64,
    name: &str,
    seconds: f64,
) -> Result<PhaseSample, SubjectError> {
    let level = task.store.level();
    let count = workload.clients();
    let until = (seconds.max(0.0) * 1e9) as u64;
    // Under a rate each client is due at fixed times, whether or not the last answer has come.
    let tick = if task.plan.rate > 0.0 { (count as f64 * 1e9 / task.plan.rate) as u64 } else { 0 };
    let clock = Clock::start();
    let results = engine::background::in_parallel((0..count).collect(), |client| {
        let stream = workload.stream(level, seed, mix(seed, &[task.repetition]), client);
        let mut stream = stream.ok_or(SubjectError::Unsupported("stream of calls"))?;
        let mut done = Client::default();
        let mut operation = Vec::new();
        let (mut now, mut due) = (clock.now(), tick * client / count);
        while now < until {
            operation.clear();
            draw(&mut stream, &mut operation);
            done.operations += 1;
            if name == "generate" {
                std::hint::black_box(&operation);
                now = if done.operations.is_multiple_of(64) { clock.now() } else { now };
                continue;
            }
            if tick > 0 {
                clock.sleep_until(due);
            }
            now = perform_timed(session, &operation, &clock, (tick > 0).then_some(due), &mut done);
            due += tick;
        }
        Ok::<_, SubjectError>(done)
    });
    let mut phase = PhaseSample::new(name, clock.now(), 0);
    let mut all = Client::default();
    for client in results {
        let client = client?;
        phase.operations += client.operations;
        phase.writes += client.writes;
        phase.calls += client.calls;
        for op in client.ops {
            let total = all.op(op.name);
            total.service.merge(&op.service);
            total.response.merge(&op.response);
            total.errors += op.errors;
        }
    }
    for op in &all.ops {
        phase = phase.with_op(op.name, &op.service, (tick > 0).then_some(&op.response), op.errors);
    }
    Ok(phase)
}

/// Draws one operation: all calls up to the one that ends it.
fn draw(stream: &mut Stream, operation: &mut Vec<Call>) {
    for call in stream.by_ref() {
        let last = call.last;
        operation.push(call);
        if last {
            return;
        }
    }
}

/// Makes the calls of one operation, drawn before the clock started; the time at which the last returned.
fn perform_timed(session: &dyn Session, operation: &[Call], clock: &Clock, due: Option<u64>, done: &mut Client) -> u64 {
    let start = clock.now();
    // A failed call does not keep the rest from being made.
    let mut held = Held::default();
    let failed = operation.iter().filter(|call| call.make(session, &mut held).is_err()).count() > 0;
    let end = clock.now();
    done.writes += operation.iter().filter(|call| !matches!(call.action, Action::Get { .. })).count() as u64;
    done.calls += operation.len() as u64;
    let op = done.op(operation.last().map_or("none", |call| call.op));
    op.service.record(end - start);
    if let Some(due) = due {
        op.response.record(end.saturating_sub(due));
    }
    op.errors += u64::from(failed);
    end
}

impl PhaseSample {
    fn with_space(mut self, space: (u64, u64)) -> Self {
        self.space = Some(space);
        self
    }
}
