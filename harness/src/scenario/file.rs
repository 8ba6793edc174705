//! Scenario files as typed.
//!
//! A file is a TOML table. `extends` names another one whose keys it overrides; each `[[variant]]`
//! overrides the file, and `[profile.NAME]` overrides both. Merging happens on tables, before anything
//! is checked; the merged result knows every key, so a misspelt one is an error wherever it stood.

use crate::crash::{MODELS, Model};
use crate::hint::did_you_mean;
use crate::result::{CellKind, Metric};
use crate::subject::{SyncPolicyText, Table as StoreTable};
use crate::workload::Workload;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::{Table, Value};

/// The scenarios that come with the binary.
const BUILTIN: [(&str, &str); 15] = [
    ("quick", include_str!("../../../scenarios/quick.toml")),
    ("hub", include_str!("../../../scenarios/hub.toml")),
    ("kill", include_str!("../../../scenarios/kill.toml")),
    ("commit", include_str!("../../../scenarios/commit.toml")),
    ("go-persist", include_str!("../../../scenarios/go-persist.toml")),
    ("ttfp", include_str!("../../../scenarios/ttfp.toml")),
    ("power", include_str!("../../../scenarios/power.toml")),
    ("faults", include_str!("../../../scenarios/faults.toml")),
    ("lsm", include_str!("../../../scenarios/lsm.toml")),
    ("fifo", include_str!("../../../scenarios/fifo.toml")),
    ("queue", include_str!("../../../scenarios/queue.toml")),
    ("load", include_str!("../../../scenarios/load.toml")),
    ("db-bench", include_str!("../../../scenarios/db-bench.toml")),
    ("adr-0002", include_str!("../../../scenarios/adr-0002.toml")),
    ("ycsb", include_str!("../../../scenarios/ycsb.toml")),
];

/// How much to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Minutes: for looking.
    #[default]
    Quick,
    /// For every change.
    Ci,
    /// As long as it takes.
    Nightly,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Quick => "quick",
            Profile::Ci => "ci",
            Profile::Nightly => "nightly",
        })
    }
}

/// A scenario as typed, one variant of it, profile applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// Version of the file format: 1.
    pub schema: u32,
    /// The scenario's name.
    pub name: String,
    /// The question it answers, in one sentence.
    pub title: String,
    /// The variant, such as `A`; empty if there is one only.
    #[serde(default)]
    pub variant: String,
    /// Kinds of cells.
    pub kinds: Vec<CellKind>,
    /// Subjects by name.
    pub subjects: Vec<String>,
    /// Sync policies.
    pub sync: Vec<SyncPolicyText>,
    /// Durability levels of the workload's writes; `mixed` where it chooses itself.
    pub levels: Vec<String>,
    /// What the clients do.
    pub workload: Workload,
    /// How it is measured.
    #[serde(default)]
    pub bench: BenchPlan,
    /// How it is killed.
    #[serde(default)]
    pub kill: KillPlan,
    /// How its power is cut.
    #[serde(default)]
    pub power: PowerPlan,
    /// What a `bench` cell must reach.
    #[serde(default)]
    pub criteria: Vec<CriterionPlan>,
    /// Sync policies of single tables, for stores that can.
    #[serde(default)]
    pub table_sync: BTreeMap<String, SyncPolicyText>,
    /// What this scenario says nothing about, in sentences.
    #[serde(default)]
    pub not_tested: Vec<String>,
    /// Where it was read from: a built-in name or a path.
    #[serde(default, rename = "read-from")]
    pub source: String,
}

impl Plan {
    /// The workload's tables, with their policies.
    pub fn tables(&self) -> Vec<StoreTable> {
        let mut tables = self.workload.tables();
        for table in &mut tables {
            table.sync = self.table_sync.get(&table.name).copied();
        }
        tables
    }
}

/// A figure that a `bench` cell must reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CriterionPlan {
    /// The demand in a sentence.
    pub says: String,
    /// The phase it is about.
    pub phase: String,
    /// The figure.
    pub metric: Metric,
    /// The least that holds.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// The most that holds.
    #[serde(default)]
    pub at_most: Option<f64>,
}

/// How a workload is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BenchPlan {
    /// Processes, each with a directory of its own.
    pub repetitions: u64,
    /// Length of the measured phase of workloads without an end of their own.
    pub seconds: f64,
    /// Calls of the same kind before the clock starts.
    pub warm_up_seconds: f64,
    /// Operations a second of all clients together; 0 for as fast as answers come.
    pub rate: f64,
    /// Whether the store is shrunk at the end, to see its smallest size.
    pub shrink: bool,
}

impl Default for BenchPlan {
    fn default() -> Self {
        Self { repetitions: 3, seconds: 2.0, warm_up_seconds: 0.2, rate: 0.0, shrink: true }
    }
}

/// How a workload is killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct KillPlan {
    /// Kills at a random moment.
    pub random: u64,
    /// Kills aimed at each moment.
    pub aimed: u64,
    /// Kills of one store before the next starts from nothing.
    pub rounds: u64,
    /// A random kill falls this long, in milliseconds, after the clients started, at most.
    pub window_ms: u64,
    /// Limit on opening and reading a store.
    pub timeout_ms: u64,
}

impl Default for KillPlan {
    fn default() -> Self {
        Self { random: 10, aimed: 2, rounds: 5, window_ms: 25, timeout_ms: 30_000 }
    }
}

/// How a workload's power is cut: what is recorded, and how many of its crash states are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PowerPlan {
    /// Recorded runs, each with a seed of its own.
    pub traces: u64,
    /// Calls of the workload in one of them.
    pub calls: u64,
    /// Crash states to try in one of them.
    pub states: u64,
    /// Time budget of the cell; 0 for none. It makes a result depend on the machine, and is said if it ends a search.
    pub seconds: f64,
    /// How often a recovery is crashed again.
    pub depth: u64,
    /// Random states at each crash point.
    pub random: u64,
    /// Fault models by name; empty for all.
    pub models: Vec<String>,
    /// Whether clients run free, each in a thread of its own, and the owner beside them; else the seed interleaves
    /// whole calls. The seed does not determine such a run; its saved trace does.
    pub threads: bool,
    /// A shrink after so many calls; 0 for none.
    pub shrink_every: u64,
    /// A sync of the whole store after so many calls; 0 for none.
    pub sync_every: u64,
    /// A close and a new opening after so many calls; 0 for none.
    pub reopen_every: u64,
    /// Calls a second in virtual time, at random moments.
    pub rate: f64,
    /// What a sync takes in virtual time, in microseconds.
    pub sync_latency_us: u64,
    /// Whether every sync, rename, removal and truncation of the first run is dropped in turn, to see whether
    /// it is missed.
    pub audit: bool,
    /// Files that are there before the store is opened for the first time.
    pub files: BTreeMap<String, String>,
    /// How much a crash takes.
    pub loss: LossPlan,
}

impl Default for PowerPlan {
    fn default() -> Self {
        Self {
            traces: 1,
            calls: 100,
            states: 5_000,
            seconds: 0.0,
            depth: 2,
            random: 20,
            models: Vec::new(),
            threads: false,
            shrink_every: 0,
            sync_every: 0,
            reopen_every: 0,
            rate: 20.0,
            sync_latency_us: 1_000,
            audit: false,
            files: BTreeMap::new(),
            loss: LossPlan::default(),
        }
    }
}

/// How the loss window is measured: crashes at uniform moments of a longer run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LossPlan {
    /// Crashes; 0 for not measuring it.
    pub moments: u64,
    /// Length of the run in virtual time; at least twelve intervals are run whatever stands here.
    pub seconds: f64,
    /// Calls a second.
    pub rate: f64,
}

impl Default for LossPlan {
    fn default() -> Self {
        Self { moments: 0, seconds: 12.0, rate: 50.0 }
    }
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is none of this name.
    #[error("there is no scenario {name:?}{hint}; `harness list scenarios` shows all, a path ending in .toml names a file")]
    Unknown {
        /// The name.
        name: String,
        /// Perhaps what was meant.
        hint: String,
    },
    /// The file cannot be read.
    #[error("cannot read scenario {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file does not say what it should.
    #[error("scenario {name}: {what}")]
    Content {
        /// The scenario.
        name: String,
        /// What is wrong, and perhaps what was meant.
        what: String,
    },
}

/// The names of the built-in scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// The text of a built-in scenario.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Reads a scenario by name or path and gives its variants under a profile; those of all scenarios
/// that it lists as `suite`, if it is one.
pub fn load(name: &str, profile: Profile) -> Result<Vec<Plan>, ScenarioError> {
    let table = read(name, 0)?;
    let Some(suite) = table.get("suite").cloned() else { return plans(name, table, profile) };
    let content = |what: String| ScenarioError::Content { name: name.to_owned(), what };
    let members: Vec<String> = suite.try_into().map_err(|e| content(format!("suite: {e}")))?;
    let mut all = Vec::new();
    for member in members {
        all.extend(plans(&member, read(&member, 0)?, profile)?);
    }
    Ok(all)
}

fn read(name: &str, depth: u32) -> Result<Table, ScenarioError> {
    let content = |what: String| ScenarioError::Content { name: name.to_owned(), what };
    let text = match builtin(name) {
        Some(text) => text.to_owned(),
        None if name.ends_with(".toml") => {
            std::fs::read_to_string(name).map_err(|source| ScenarioError::Read { path: Path::new(name).to_owned(), source })?
        }
        None => return Err(ScenarioError::Unknown { name: name.to_owned(), hint: did_you_mean(name, names()) }),
    };
    let mut table = Table::from_str(&text).map_err(|e| content(e.to_string()))?;
    let Some(base) = table.remove("extends") else { return Ok(table) };
    let base = base.as_str().ok_or_else(|| content("extends must name a scenario".to_owned()))?.to_owned();
    if depth == 8 {
        return Err(content("extends more than eight scenarios deep; does it extend itself?".to_owned()));
    }
    // A path is meant relative to the file that names it.
    let base = match Path::new(name).parent() {
        Some(dir) if base.ends_with(".toml") => dir.join(base).to_string_lossy().into_owned(),
        _ => base,
    };
    let mut merged = read(&base, depth + 1)?;
    merge(&mut merged, table);
    Ok(merged)
}

fn plans(name: &str, mut table: Table, profile: Profile) -> Result<Vec<Plan>, ScenarioError> {
    let content = |what: String| ScenarioError::Content { name: name.to_owned(), what };
    let profiles = take_table(&mut table, "profile").map_err(content)?;
    check_profiles(profiles.keys()).map_err(content)?;
    let variants = match table.remove("variant") {
        None => vec![Table::new()],
        Some(Value::Array(list)) => {
            list.into_iter().map(|v| v.try_into().map_err(|e| content(format!("variant: {e}")))).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(content("variants are written as [[variant]]".to_owned())),
    };
    let mut plans = Vec::new();
    for mut variant in variants {
        let only: Option<Vec<String>> = match variant.remove("profiles") {
            Some(list) => Some(list.try_into().map_err(|e| content(format!("profiles: {e}")))?),
            None => None,
        };
        let own_profiles = take_table(&mut variant, "profile").map_err(content)?;
        check_profiles(own_profiles.keys().chain(only.iter().flatten())).map_err(content)?;
        if let Some(name) = variant.remove("name") {
            variant.insert("variant".to_owned(), name);
        }
        let mut merged = table.clone();
        // A variant of another kind of workload replaces it; the keys of two kinds do not mix.
        let kind = |t: &Table| t.get("workload").and_then(|w| w.get("kind")).cloned();
        if kind(&variant).is_some_and(|k| Some(k) != kind(&merged)) {
            merged.remove("workload");
        }
        merge(&mut merged, variant);
        // What another profile gets wrong is told too, before that profile is needed.
        for each in [Profile::Quick, Profile::Ci, Profile::Nightly] {
            let mut typed = merged.clone();
            for profiles in [&profiles, &own_profiles] {
                if let Some(Value::Table(overrides)) = profiles.get(&each.to_string()) {
                    merge(&mut typed, overrides.clone());
                }
            }
            let plan = Plan::deserialize(typed).map_err(|e| content(explain(&e)))?;
            check(&plan).map_err(content)?;
            if each == profile && only.as_ref().is_none_or(|only| only.contains(&profile.to_string())) {
                plans.push(Plan { source: name.to_owned(), ..plan });
            }
        }
    }
    Ok(plans)
}

fn check(plan: &Plan) -> Result<(), String> {
    if plan.schema != 1 {
        return Err(format!("schema = {} is not known to this version, which reads schema = 1", plan.schema));
    }
    for level in &plan.levels {
        if level != "mixed" && level.parse::<engine::Durability>().is_err() {
            let hint = did_you_mean(level, ["async", "write", "sync", "mixed"].into_iter());
            return Err(format!("unknown level {level:?}{hint}"));
        }
    }
    if plan.kinds.contains(&CellKind::Kill) && plan.workload.stream(engine::Durability::Write, 0, 0, 0).is_none() {
        return Err("a workload of this kind can be measured but not killed: take \"kill\" out of kinds".to_owned());
    }
    let crashes = [CellKind::Power, CellKind::Error, CellKind::Rot];
    if plan.kinds.iter().any(|k| crashes.contains(k)) && plan.workload.stream(engine::Durability::Write, 0, 0, 0).is_none() {
        return Err("a workload of this kind can be measured but not crashed: leave power, error and rot out of kinds".to_owned());
    }
    for criterion in &plan.criteria {
        let bounds = [criterion.at_least, criterion.at_most];
        if bounds.iter().all(Option::is_none) || bounds.iter().flatten().any(|bound| !bound.is_finite()) {
            return Err(format!("criterion {:?} needs at-least or at-most, a number", criterion.says));
        }
        if criterion.metric == Metric::SpaceRatio && plan.workload.live_bytes().is_none() {
            return Err("space-ratio needs a workload that knows how much it leaves: db-bench or ycsb".to_owned());
        }
    }
    if let Workload::Script(script) = &plan.workload {
        script.check()?;
    }
    if let Workload::Ycsb(ycsb) = &plan.workload
        && !ycsb.beside.is_empty()
        && ycsb.rate_share <= 0.0
    {
        return Err("beside needs a rate-share above 0: it says what goes on beside operations that are due".to_owned());
    }
    for name in &plan.power.models {
        if Model::named(name).is_none() {
            let hint = did_you_mean(name, MODELS.iter().map(|m| m.name));
            return Err(format!("unknown fault model {name:?}{hint}"));
        }
    }
    if plan.power.traces == 0 || plan.power.calls == 0 {
        return Err("power.traces and power.calls must be at least 1".to_owned());
    }
    let known: Vec<String> = plan.workload.tables().into_iter().map(|t| t.name).collect();
    for table in plan.table_sync.keys() {
        if !known.contains(table) {
            let hint = did_you_mean(table, known.iter().map(String::as_str));
            return Err(format!("table-sync names no table of this workload: {table:?}{hint}"));
        }
    }
    if plan.bench.repetitions == 0 || plan.kill.rounds == 0 {
        return Err("repetitions and rounds must be at least 1".to_owned());
    }
    let durations =
        [plan.bench.seconds, plan.bench.warm_up_seconds, plan.bench.rate, plan.power.seconds, plan.power.loss.seconds];
    if durations.iter().any(|d| !d.is_finite() || *d < 0.0) {
        return Err("seconds, warm-up-seconds and rate must not be negative".to_owned());
    }
    if [plan.power.rate, plan.power.loss.rate].iter().any(|r| !r.is_finite() || *r <= 0.0) {
        return Err("power.rate and power.loss.rate must be more than 0".to_owned());
    }
    Ok(())
}

fn check_profiles<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    const KNOWN: [&str; 3] = ["quick", "ci", "nightly"];
    match names.find(|name| !KNOWN.contains(&name.as_str())) {
        Some(unknown) => Err(format!("unknown profile {unknown:?}{}", did_you_mean(unknown, KNOWN.into_iter()))),
        None => Ok(()),
    }
}

fn take_table(table: &mut Table, key: &str) -> Result<Table, String> {
    match table.remove(key) {
        None => Ok(Table::new()),
        Some(Value::Table(t)) => Ok(t),
        Some(_) => Err(format!("{key} must be a table")),
    }
}

/// Puts `over` on top of `base`: tables key by key, everything else as a whole.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// The parser's words, and what may have been meant by an unknown key.
fn explain(e: &toml::de::Error) -> String {
    let text = e.message().to_owned();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) if text.starts_with("unknown") => {
            let hint = did_you_mean(unknown, known.iter().copied());
            format!("{text}{hint}")
        }
        _ => text,
    }
}
