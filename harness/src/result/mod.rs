//! What a run found: the only serialised types, and the only thing a report reads.
//!
//! The schema is versioned and stands in `docs/result.schema.json`. Within a version fields are only
//! added. Absent means "not measured here", never zero. Times are nanoseconds, sizes bytes.

mod store;

pub use store::{LoadError, load, save};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the types below.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything one run found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The run itself.
    pub run: Run,
    /// The machine.
    pub host: Host,
    /// The directory the stores were in, and how fast it syncs.
    pub storage: Storage,
    /// One entry for each cell, in the order of the matrix.
    pub cells: Vec<Cell>,
    /// What this run says nothing about, in sentences.
    #[serde(default)]
    pub not_tested: Vec<String>,
    /// Remarks that limit what the figures mean.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// The run itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Name of the run's folder.
    pub id: String,
    /// How it ended.
    pub status: RunStatus,
    /// The seed all cells' seeds derive from.
    pub seed: u64,
    /// The command, without the program's name.
    pub argv: Vec<String>,
    /// Version of the harness, and the commit it was built from where that is known.
    pub version: String,
    /// `quick`, `ci` or `nightly`.
    pub profile: String,
    /// Wall time so far.
    pub duration_ns: u64,
    /// Cells planned; fewer in `cells` means that the run did not finish.
    pub cells_planned: u64,
    /// The scenarios that were run.
    pub scenarios: Vec<ScenarioNote>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// Every planned cell is there.
    Complete,
    /// Written while the run goes on, or left by a run that was killed.
    Partial,
    /// Ended by Ctrl-C or a termination signal; the cells that are there are whole.
    Interrupted,
}

/// A scenario's name and the question it answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioNote {
    /// As in `harness run NAME`.
    pub name: String,
    /// One sentence.
    pub title: String,
    /// Where it was read from: a built-in name or a path.
    #[serde(default)]
    pub source: String,
}

/// The machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Processors available to the run.
    pub cores: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// The compiler the harness was built with, when known.
    #[serde(default)]
    pub rustc: String,
}

/// Where the stores were.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Storage {
    /// File system type, such as `ext4`.
    pub filesystem: String,
    /// Mount options.
    pub mount: String,
    /// What a sync costs in this directory, measured before the cells.
    pub calibration: Calibration,
}

/// What a sync costs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// Median of `fdatasync` after 4 KiB were appended.
    pub fdatasync_4k_p50_ns: u64,
    /// The distribution of the same.
    pub fdatasync_4k: Percentiles,
}

/// A remark with a code that `harness show CODE` explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// Such as `W001`.
    pub code: String,
    /// The cell it concerns, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// One sentence.
    pub text: String,
}

/// One (scenario, subject, policy, kind, seed) of the matrix.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// `scenario/group/subject/sync/level/kind`.
    pub id: String,
    /// The scenario.
    pub scenario: String,
    /// A table or variant within the scenario, such as `A`; empty when there is one only.
    #[serde(default)]
    pub group: String,
    /// The store under test.
    pub subject: String,
    /// Its version.
    pub subject_version: String,
    /// What the subject is here for.
    pub role: Role,
    /// Sync policy.
    pub sync: String,
    /// Durability level that the workload's writes ask for: `async`, `write`, `sync` or `mixed`.
    pub level: String,
    /// Kind of cell.
    pub kind: CellKind,
    /// Seed of this cell.
    pub seed: u64,
    /// The judgement.
    pub verdict: Verdict,
    /// Why, when the verdict needs a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The command that repeats this cell.
    pub reproduce: String,
    /// Measurements of a `bench` cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<Bench>,
    /// What the scenario demands of a `bench` cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Criterion>,
    /// Findings of a cell that crashes the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash: Option<Crash>,
}

/// A demand of the scenario, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Criterion {
    /// The demand in a sentence.
    pub says: String,
    /// The phase it is about.
    pub phase: String,
    /// The figure.
    pub metric: Metric,
    /// The least that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The most that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// What was found; absent when it was not measured, and then nothing holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<f64>,
    /// Whether the figure is within the bounds.
    pub holds: bool,
}

/// A figure that a criterion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Operations a second; of several repetitions the slowest.
    Rate,
    /// 99th percentile from call to return, in milliseconds; of several operations the worst.
    ServiceP99Ms,
    /// 99th percentile from the intended start to the return, in milliseconds; of several operations the worst.
    ResponseP99Ms,
    /// Allocated bytes at the end of the phase for each byte of keys and values that are there.
    SpaceRatio,
    /// Largest resident set so far, in MiB.
    PeakMib,
    /// Wall time in seconds.
    Seconds,
    /// What the projection of this name expects at its largest size, in its unit.
    Projected,
    /// How far the projection of this name was from what was measured, at worst: a share of the measured figure.
    PredictionError,
}

/// What a subject is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A store somebody would use.
    Store,
    /// Something to compare with that keeps no promise, such as a map in memory.
    Baseline,
    /// Does nothing: its figures are the harness's own cost.
    Null,
    /// Broken on purpose: it must be convicted.
    Canary,
}

/// Kind of cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CellKind {
    /// Speed, size and memory on the real disk.
    Bench,
    /// SIGKILL of the writing process.
    Kill,
    /// Power loss.
    Power,
    /// Failing calls.
    Error,
    /// Flipped bits.
    Rot,
}

/// The judgement of a cell; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing promised was lost; for a bench cell, it ran through.
    Survived,
    /// Could not be tried here; never a pass.
    NotMeasured,
    /// A promised operation is missing.
    Lost,
    /// Something is there that was never written, or half of what belongs together.
    Corrupt,
    /// The store does not open again.
    Unopenable,
    /// Opening or reading did not end in time.
    Hung,
    /// The harness convicted nobody it should have, or failed itself: no verdict of the run counts.
    HarnessBroken,
}

/// Measurements of a `bench` cell.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Bench {
    /// Processes the cell was repeated in, each with a directory of its own.
    pub repetitions: u64,
    /// Client threads.
    pub threads: u64,
    /// What was measured, in order.
    pub phases: Vec<Phase>,
    /// What the process used from its start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// What is said of stores larger than any that was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projections: Vec<Projection>,
}

/// What a process used from its start to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Whole {
    /// Bytes meant for the device, less those of files that were removed before they were sent. That may be in a later phase:
    /// only in the whole is what was written for nothing taken off in full.
    pub device_bytes: u64,
    /// Processor time, in the program and in the kernel.
    pub cpu_ns: u64,
    /// Largest resident set.
    pub rss_peak: u64,
}

/// A figure against the size of the data: where it was measured, and what is expected of larger stores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Projection {
    /// Its name in criteria.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The figure's unit.
    pub unit: ProjectionUnit,
    /// Measured points.
    pub measured: Vec<Point>,
    /// Expected ones, from the smallest size on.
    pub predicted: Vec<Point>,
    /// How they were expected and under which assumptions.
    pub assumes: String,
}

/// Unit of a projection's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionUnit {
    /// Seconds.
    #[default]
    Seconds,
    /// So many times.
    Ratio,
}

/// A figure at a size of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The figure.
    pub value: f64,
}

/// One measured stretch of a workload, over all repetitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// Such as `prefill`, `run`, `close`.
    pub name: String,
    /// Median wall time.
    pub duration_ns: u64,
    /// Operations in one repetition.
    pub operations: u64,
    /// Median throughput.
    pub throughput_per_s: f64,
    /// Throughput of each repetition, in order.
    pub throughput_samples: Vec<f64>,
    /// Operations by name.
    pub ops: BTreeMap<String, OpStats>,
    /// Time to first payment, where the workload has payments to open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttfp: Option<Ttfp>,
    /// What the process used, median over repetitions.
    pub counters: Counters,
    /// Files at the end of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
}

/// Latencies of one kind of operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct OpStats {
    /// Operations measured, all repetitions together.
    pub count: u64,
    /// Operations that failed.
    pub errors: u64,
    /// From the start of the call to its return.
    pub service: Percentiles,
    /// From the intended start to the return, where the workload has a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Percentiles>,
}

/// A distribution in nanoseconds. A percentile with too few samples behind it is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %; from 368 samples on.
    pub p99: Option<u64>,
    /// 99.9 %; from 3,688 samples on.
    pub p99_9: Option<u64>,
    /// Largest.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// The curve for the percentile chart: (fraction, value), rising.
    #[serde(default)]
    pub curve: Vec<(f64, u64)>,
}

/// Time to first payment (TTFP): from the wish to open a channel to its first payment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Ttfp {
    /// Payment channels opened.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99 %.
    pub p99: Option<u64>,
    /// Mean of the payers' means, as the source's dashboard has it.
    pub mean: f64,
    /// The distribution's curve: (fraction, value), rising.
    #[serde(default)]
    pub curve: Vec<(f64, u64)>,
    /// Syncs one after the other on the way to the first payment, mean.
    pub syncs_on_path: f64,
    /// Share of the time the busiest hub was at work.
    pub hub_busy: f64,
    /// How long a message waited at the hub, 99 %.
    pub hub_queue_p99: u64,
    /// Simulated, not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// A single job's check of itself against the sync latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ModelCheck>,
    /// What the source published for this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_ns: Option<u64>,
}

/// The inputs of a simulated time to first payment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Processor time a message costs.
    pub cpu_per_message_ns: u64,
    /// What a sync takes when the disk is idle.
    pub sync_latency_ns: u64,
    /// Delay of a message on the network.
    pub message_latency_ns: u64,
    /// Which of the three were fitted to published figures, and to which.
    pub fitted: Vec<String>,
}

/// TTFP(always) − TTFP(never) against serial syncs × sync latency.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelCheck {
    /// Serial syncs × measured sync latency.
    pub expected_ns: f64,
    /// The difference of the medians.
    pub observed_ns: f64,
}

/// What a phase used.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Syncs of files and directories that the store called for.
    pub syncs: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Calls of the store; an operation may take several. Zero where they are not counted.
    #[serde(default)]
    pub calls: u64,
    /// Bytes the store handed to the operating system.
    pub bytes_written: u64,
    /// Bytes meant for the device, whichever way they were written; a page counts once until it is written back. Zero
    /// where the system does not say.
    #[serde(default)]
    pub device_bytes: u64,
    /// Processor time in the program.
    pub cpu_user_ns: u64,
    /// Processor time in the kernel.
    pub cpu_system_ns: u64,
    /// Largest resident set since the process began.
    pub rss_peak: u64,
    /// Resident set at the end of the phase.
    pub rss_end: u64,
}

/// Size of a store's files.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Space {
    /// Sum of lengths.
    pub apparent: u64,
    /// Sum of allocated blocks.
    pub allocated: u64,
    /// Sum of lengths after the store was asked to shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparent_after_shrink: Option<u64>,
}

/// Findings of a cell that crashes the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Crash {
    /// Crashes.
    pub cases: u64,
    /// Operations acknowledged before the crashes.
    pub acked: u64,
    /// Of these, operations whose survival was promised.
    pub promised: u64,
    /// Promised operations that are missing.
    pub lost_promised: u64,
    /// Most acknowledged operations lost in one crash.
    pub lost_acked_max: u64,
    /// Acknowledged operations lost, all crashes together.
    pub lost_acked: u64,
    /// Longest time between the acknowledgement of a lost operation and the crash.
    pub loss_window_ms_max: f64,
    /// Crashes that left something wrong in the store.
    pub corrupt: u64,
    /// Crashes after which the store did not open.
    pub unopenable: u64,
    /// Crashes after which opening or reading did not end in time.
    pub hung: u64,
    /// Median time of reopening after a crash.
    pub recovery_ns_p50: u64,
    /// Longest time of reopening after a crash.
    pub recovery_ns_max: u64,
    /// Crashes by the moment they were aimed at.
    pub aimed: BTreeMap<String, Aimed>,
    /// What was found wrong.
    pub findings: Vec<Finding>,
    /// What the losses mean in payments, where the workload has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<Money>,
    /// Power cells: how the crash states were made and how they were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// Error and rot cells: what became of each fault, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, FaultCounts>,
}

/// Power loss: one recorded run, crashed everywhere.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Power {
    /// Recorded runs.
    pub traces: u64,
    /// File-system calls in them.
    pub calls: u64,
    /// Places in the traces at which the power was cut.
    pub crash_points: u64,
    /// Crash states that were built.
    pub states_tried: u64,
    /// Of these, different images of the disk.
    pub states_distinct: u64,
    /// Different images by how often recovery had been crashed before: the first entry is the workload's own crash.
    pub by_depth: Vec<u64>,
    /// States that the strategies would still have tried had the budget allowed; random ones aside, which never end.
    pub left_out: u64,
    /// What ended the search: `exhausted`, `count`, `time`, `findings` or `stopped`.
    pub ended_by: String,
    /// States built and judged a second, on one thread; a timing.
    pub states_per_second: f64,
    /// Distinct images opened a second, each of them twice, on the same thread in the same time; a timing.
    #[serde(default)]
    pub opened_per_second: f64,
    /// By fault model.
    pub by_model: BTreeMap<String, ModelCounts>,
    /// Different images by the strategy that found them first.
    pub by_strategy: BTreeMap<String, u64>,
    /// How much a crash takes, measured in virtual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Calls that were dropped from the trace, one at a time, and whether they were missed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<Audit>,
    /// Syncs whose removal changes no verdict, with the words that name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redundant_syncs: Vec<String>,
}

/// Calls of one kind that were dropped from a trace, one at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    /// What they do.
    pub call: String,
    /// How many were dropped.
    pub dropped: u64,
    /// Of these, how many were missed: a promise was broken without them.
    pub convicted: u64,
}

/// Crash states of one fault model.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelCounts {
    /// Whether the contract of the cell's policy covers this model: what a lying disk takes is nobody's fault.
    pub covered: bool,
    /// Crash states that were built.
    pub states_tried: u64,
    /// Of these, different images of the disk.
    pub states_distinct: u64,
    /// Different images by strategy.
    pub by_strategy: BTreeMap<String, u64>,
    /// Judged and found right.
    pub survived: u64,
    /// A promised operation is missing.
    pub lost: u64,
    /// Something is wrong in the store.
    pub corrupt: u64,
    /// The store does not open.
    pub unopenable: u64,
    /// Opening or reading did not end in time.
    pub hung: u64,
    /// Promised operations that are missing, in the worst state.
    pub lost_promised: u64,
    /// Acknowledged operations lost: over the moments, in the worst state of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_acked: Option<Spread>,
    /// Age of the oldest lost acknowledgement in milliseconds: over the moments, in the worst state of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_window_ms: Option<Spread>,
    /// As `loss_window_ms`, in the best state of each moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_loss_window_ms: Option<Spread>,
}

/// A distribution in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// How the loss window was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Requests a second, at random times.
    pub rate_per_s: f64,
    /// What a sync takes in the simulation.
    pub sync_latency_ns: u64,
    /// Length of the run in virtual time.
    pub duration_ns: u64,
    /// Acknowledged operations in it.
    pub acked: u64,
    /// Crashes, uniformly over the run.
    pub moments: u64,
    /// What the policy promises at most, where it promises a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_ms: Option<f64>,
    /// No bound: the loss grows with the run.
    pub unbounded: bool,
    /// The worst over all models that the contract covers: acknowledged operations.
    pub worst_ops: u64,
    /// The worst over all models that the contract covers: age of the oldest lost acknowledgement.
    pub worst_ms: f64,
}

/// What became of one kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultCounts {
    /// Places at which it was tried.
    pub cases: u64,
    /// The store said so with an error.
    pub reported: u64,
    /// Nothing was missing and nothing wrong.
    pub harmless: u64,
    /// Only what no later sync had covered is gone, and the store said so.
    pub cut: u64,
    /// A promised operation is missing.
    pub lost: u64,
    /// Something is wrong in the store and it did not say so.
    pub corrupt: u64,
    /// The store does not open although it must.
    pub unopenable: u64,
    /// Opening or reading did not end in time.
    pub hung: u64,
}

/// Crashes aimed at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Aimed {
    /// Crashes that were aimed there.
    pub tried: u64,
    /// Crashes that were seen to have fallen there.
    pub observed: u64,
}

/// Something found wrong, and how to see it again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Argument of `harness replay`.
    pub id: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// The weakest fault that shows it.
    pub profile: String,
    /// One sentence.
    pub summary: String,
    /// The command that shows it again.
    pub replay: String,
    /// Every minimal fault model that shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// How it comes about, as far as the harness could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

/// How a finding comes about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The smallest set of effects whose loss still shows it, one line each.
    pub lost_effects: Vec<String>,
    /// The shortest sequence of operations that still shows it, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// The missing barrier, such as "sync directory `wal/` after call 17, before call 21".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<String>,
    /// Whether the barrier was added to the trace and nothing was found any more.
    pub verified: bool,
}

/// What a crash of the hub means in money.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// Payments acknowledged to their payers.
    pub payments_acked: u64,
    /// Of these, payments whose voucher the hub no longer has.
    pub payments_lost: u64,
    /// Sum of the lost payments, in wei.
    pub amount_lost: u64,
    /// Vouchers that the hub has but can no longer redeem, because their channel is gone or older.
    pub vouchers_unredeemable: u64,
    /// Channels left in a half state, by the crash points of the source (`c1` to `c8`).
    pub half_states: BTreeMap<String, u64>,
}
