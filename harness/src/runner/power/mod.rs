//! `power` cells: a run is recorded once and crashed everywhere.
//!
//! **Invariant:** one thread, virtual time, seeded choices: with a count budget the same seed gives the same
//! result, but for the timings `states_per_second` and `opened_per_second`.

mod again;
pub(super) mod campaign;
mod explain;
mod free;
mod loss;
pub(super) mod record;
pub(super) mod recover;

use crate::crash::{Files, Layout, MODELS, Model, Trace, View};
use crate::measure::clock::Clock;
use crate::result::{Crash, Finding, Power, Role, Verdict};
use crate::scenario::CellPlan;
use crate::subject::{Subject, SubjectError};
use crate::workload::random::mix;
use crate::workload::script::Script;
use crate::workload::stream::OwnedChange;
use campaign::{Budget, Campaign, Floors, Hit, Tally};
use record::{Opener, Pace, Recording, files, record, steps};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Findings kept in the result; the counts cover all.
const FINDINGS: usize = 12;

/// A canary may take so many times the states of a store before it counts as having got away.
const CANARY_PATIENCE: u64 = 20;

/// Places in a run at which the process is killed before the power is cut.
const KILLS: usize = 24;

/// What is kept of a finding.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// A crash state, and the run it comes from.
    State(Box<Evidence>),
    /// The files that a first crash left; what fails is their further use.
    SecondCrash {
        /// The files, as those of a trace without calls.
        disk: Trace,
        /// The write that was missing then and is asked for again.
        retry: Vec<OwnedChange>,
    },
}

/// Everything it takes to see a crash state again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// Number of the recorded run within the cell.
    run: u64,
    recording: Recording,
    /// The fault model it was found under.
    model: String,
    /// The crash falls right before this position of the trace.
    at: u64,
    state: crate::crash::State,
    /// The crashes of recoveries that follow.
    nested: Vec<campaign::Nested>,
}

/// Records the cell's runs and crashes them. Findings leave their traces below `evidence`. `go_on` is asked
/// now and then whether to continue.
pub fn run(
    cell: &CellPlan,
    subject: &dyn Subject,
    evidence: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<(Crash, Verdict, Option<String>)> {
    let tables = cell.plan.tables();
    let opener = Opener { subject, cell, tables: &tables };
    let models = models(cell);
    let plan = &cell.plan.power;
    let clock = Clock::start();
    let mut tally = Tally::default();
    let mut crash = Crash::default();
    let mut power = Power::default();
    for number in 0..plan.traces {
        let recording = match take(&opener, number) {
            Ok(recording) => recording,
            Err(e) => return Ok((crash, Verdict::NotMeasured, Some(format!("the store does not run in memory: {e}")))),
        };
        if let Some(error) = &recording.error {
            return Ok((
                crash,
                Verdict::HarnessBroken,
                Some(format!("a call failed although nothing was made to fail: {error}")),
            ));
        }
        if recording.trace.calls.is_empty() {
            let why = "the store does not write through the file system that it is given";
            return Ok((crash, Verdict::NotMeasured, Some(why.to_owned())));
        }
        power.traces += 1;
        power.calls += recording.trace.calls.len() as u64;
        let layout = Layout::new(&recording.trace);
        let floors = Floors::new(&opener, &recording);
        let budget = Budget {
            states: plan.states,
            until_ns: (plan.seconds * 1e9) as u64,
            depth: plan.depth,
            random: plan.random,
            findings: if cell.role == Role::Canary { 1 } else { FINDINGS },
            again: true,
        };
        let seed = mix(cell.seed, &[number]);
        let mut campaign = Campaign::new(&opener, &recording, &floors, &layout, &models, seed, budget);
        campaign.run(&mut tally, clock, &mut *go_on);
        let mut second = if campaign.hits.is_empty() { campaign.use_again(go_on) } else { None };
        if cell.role == Role::Canary && campaign.hits.is_empty() && second.is_none() {
            // It may hide in rarer states.
            let budget = Budget { states: plan.states * CANARY_PATIENCE, ..budget };
            campaign = Campaign::new(&opener, &recording, &floors, &layout, &models, seed, budget);
            campaign.run(&mut tally, clock, &mut *go_on);
            second = if campaign.hits.is_empty() { campaign.use_again(go_on) } else { None };
        }
        let end = campaign.at_the_end();
        crash.acked += end.0;
        crash.promised += end.1;
        let hits = std::mem::take(&mut campaign.hits);
        for hit in hits {
            if crash.findings.len() >= FINDINGS || !go_on() {
                break;
            }
            let mut finding = report(cell, number, &recording, &layout, &hit, crash.findings.len(), evidence)?;
            finding.explanation = hit.nested.is_empty().then(|| explain::explain(&opener, &recording, &hit));
            if let Some(explanation) = &mut finding.explanation
                && cell.role == Role::Store
            {
                explanation.operations = operations(&opener, number, &hit, go_on);
            }
            crash.findings.push(finding);
        }
        if crash.findings.is_empty()
            && let Some(second) = second
        {
            let id = format!("{}#{}", cell.id, crash.findings.len());
            let disk = Trace { files: second.files, ..Trace::default() };
            keep(evidence, &id, &Kept::SecondCrash { disk, retry: second.retry })?;
            crash.findings.push(second_crash(
                &id,
                "two power losses",
                second.verdict,
                &second.words,
                format!("harness replay RUN '{id}'"),
            ));
        }
        if crash.findings.is_empty()
            && let Some((verdict, words)) = killed_then_cut(&opener, &recording, &layout)
        {
            let again =
                format!("harness run {} --only power --subject {} --sync {}", cell.plan.source, cell.subject, cell.sync.0);
            let id = format!("{}#{}", cell.id, crash.findings.len());
            crash.findings.push(second_crash(&id, "process killed, then power cut", verdict, &words, again));
        }
        if !crash.findings.is_empty() || !go_on() {
            break;
        }
    }
    power.crash_points = tally.crash_points;
    power.states_tried = tally.tried;
    power.states_distinct = tally.distinct();
    power.by_depth = tally.by_depth.clone();
    power.left_out = tally.left_out;
    power.ended_by = tally.ended_by.to_owned();
    let opened: u64 = tally.by_depth.iter().sum();
    let seconds = tally.judged_ns.max(1) as f64 / 1e9;
    power.states_per_second = tally.tried as f64 / seconds;
    power.opened_per_second = opened as f64 / seconds;
    power.by_strategy = tally.by_strategy.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    crash.cases = tally.tried;
    for (name, model) in tally.by_model {
        let mut counts = model.counts;
        counts.covered = Model::named(name).is_some_and(Model::is_covered);
        if counts.covered {
            crash.corrupt += counts.corrupt;
            crash.unopenable += counts.unopenable;
            crash.hung += counts.hung;
            crash.lost_promised = crash.lost_promised.max(counts.lost_promised);
        }
        power.by_model.insert(name.to_owned(), counts);
    }
    if plan.audit && crash.findings.is_empty() && go_on() {
        match take(&opener, 0) {
            Ok(recording) => power.audit = explain::audit(&opener, &recording, &models, go_on),
            Err(e) => return Ok((crash, Verdict::HarnessBroken, Some(format!("the run for the audit failed: {e}")))),
        }
        let missed = |a: &&crate::result::Audit| a.convicted == 0 && a.call.starts_with("sync");
        power.redundant_syncs = power.audit.iter().filter(missed).map(|a| a.call.clone()).collect();
    }
    if plan.loss.moments > 0
        && cell.role == Role::Store
        && go_on()
        && let Err(e) = loss::measure(&opener, &models, &mut crash, &mut power, go_on)
    {
        return Ok((crash, Verdict::HarnessBroken, Some(format!("the run for the loss window failed: {e}"))));
    }
    let worst = crash.findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Survived);
    crash.power = Some(power);
    if worst == Verdict::Survived && crash.acked == 0 {
        return Ok((crash, Verdict::HarnessBroken, Some("no write was acknowledged: the cell proves nothing".to_owned())));
    }
    let whole = go_on();
    Ok((crash, if whole || worst != Verdict::Survived { worst } else { Verdict::NotMeasured }, None))
}

/// The shortest run that still shows a hit, a line for each step.
fn operations(opener: &Opener<'_>, run: u64, hit: &Hit, go_on: &mut dyn FnMut() -> bool) -> Vec<String> {
    let (all, pace) = (steps(opener.cell, run, opener.cell.plan.power.calls), pace(opener.cell, run));
    let mut fails = |steps: &[record::Step]| go_on() && explain::still_fails(opener, steps, pace, hit.model, 2_000);
    if !fails(&all) {
        return Vec::new();
    }
    let words =
        |step: &record::Step| toml::to_string(&record::as_script(step)).unwrap_or_default().replace('\n', " ").trim().to_owned();
    explain::shortest(&all, fails).iter().map(words).collect()
}

fn pace(cell: &CellPlan, run: u64) -> Pace {
    let plan = &cell.plan.power;
    Pace { rate: plan.rate, sync_ns: plan.sync_latency_us * 1000, seed: mix(cell.seed, &[run]) }
}

/// Kills the process in the middle of some calls, restarts it, and cuts the power.
fn killed_then_cut(opener: &Opener<'_>, recording: &Recording, layout: &Layout<'_>) -> Option<(Verdict, String)> {
    let inside: Vec<u64> = campaign::points(layout, true).into_iter().filter(|at| *at > recording.opened).collect();
    let step = inside.len().div_ceil(KILLS).max(1);
    inside.into_iter().step_by(step).find_map(|at| {
        let (verdict, words) = again::after_kill(opener, recording, layout, at)?;
        Some((verdict, format!("{words} (killed before position {at})")))
    })
}

/// A finding that takes a second crash.
fn second_crash(id: &str, profile: &str, verdict: Verdict, words: &str, replay: String) -> Finding {
    Finding {
        id: id.to_owned(),
        verdict,
        profile: profile.to_owned(),
        summary: words.to_owned(),
        replay,
        models: vec!["posix".to_owned()],
        explanation: None,
    }
}

fn keep(folder: &Path, id: &str, kept: &Kept) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(evidence_file(folder, id), serde_json::to_string(kept)?)
}

/// Where the evidence of a finding lies within the folder for it.
pub fn evidence_file(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{}.json", id.replace(['/', '#', ':'], "-")))
}

/// The models a cell is tried under.
fn models(cell: &CellPlan) -> Vec<&'static Model> {
    let named = &cell.plan.power.models;
    MODELS.iter().filter(|m| named.is_empty() || named.iter().any(|n| n == m.name)).collect()
}

fn take(opener: &Opener<'_>, number: u64) -> Result<Recording, SubjectError> {
    let steps = steps(opener.cell, number, opener.cell.plan.power.calls);
    if opener.cell.plan.power.threads {
        return free::record(opener, &steps);
    }
    record(opener, &files(opener.cell), &steps, pace(opener.cell, number))
}

fn report(
    cell: &CellPlan,
    run: u64,
    recording: &Recording,
    layout: &Layout<'_>,
    hit: &Hit,
    number: usize,
    evidence: &Path,
) -> io::Result<Finding> {
    let id = format!("{}#{number}", cell.id);
    let kept = Evidence {
        run,
        recording: recording.clone(),
        model: hit.model.name.to_owned(),
        at: hit.at,
        state: hit.state.clone(),
        nested: hit.nested.clone(),
    };
    keep(evidence, &id, &Kept::State(Box::new(kept)))?;
    let models = weakest(layout, hit);
    let again = if hit.nested.is_empty() { "" } else { ", and the recovery crashed again" };
    Ok(Finding {
        verdict: hit.verdict,
        profile: models.join(" or "),
        summary: format!("{} (power cut before position {} of run {run}{again}; {})", hit.words, hit.at, hit.strategy.name()),
        replay: format!("harness replay RUN '{id}'"),
        models,
        explanation: None,
        id,
    })
}

/// Every minimal model under which the hit's image may arise.
fn weakest(layout: &Layout<'_>, hit: &Hit) -> Vec<String> {
    let view = View::new(layout, hit.model, hit.at);
    let (dirs, files) = hit.state.image(&view);
    let image = campaign::digest(&dirs, &files);
    let shows = |model: &&'static Model| {
        let view = View::new(layout, model, hit.at);
        let (dirs, files) = hit.state.image(&view);
        (*model == hit.model || view.is_legal(&hit.state)) && campaign::digest(&dirs, &files) == image
    };
    // Recoveries are crashed as POSIX has it, so what takes such a crash takes at least that.
    let wide = |model: &&'static Model| {
        hit.nested.is_empty() || model.name == "posix" || !Model::named("posix").is_some_and(|p| p.includes(model))
    };
    let all: Vec<&Model> = MODELS.iter().filter(shows).filter(wide).collect();
    crate::crash::minimal(&all).into_iter().map(|m| m.name.to_owned()).collect()
}

/// A finding seen again: the files its crash leaves, written below `to`, and what the store makes of them now.
/// The workload is not run again.
pub fn replay(cell: &CellPlan, subject: &dyn Subject, kept: &Kept, to: &Path) -> io::Result<Option<(Verdict, String)>> {
    let tables = cell.plan.tables();
    let opener = Opener { subject, cell, tables: &tables };
    let kept = match kept {
        Kept::State(kept) => kept,
        Kept::SecondCrash { disk, retry } => {
            write_image(&[], &disk.files, to)?;
            return Ok(again::after_power_loss(&opener, &disk.files, retry));
        }
    };
    let model = Model::named(&kept.model).ok_or_else(|| io::Error::other(format!("unknown fault model {:?}", kept.model)))?;
    let layout = Layout::new(&kept.recording.trace);
    let floors = Floors::new(&opener, &kept.recording);
    let models = [model];
    let budget = Budget { states: 0, until_ns: 0, depth: 0, random: 0, findings: 1, again: false };
    let mut campaign = Campaign::new(&opener, &kept.recording, &floors, &layout, &models, 0, budget);
    let (mut dirs, mut files) = kept.state.image(&View::new(&layout, model, kept.at));
    for nested in &kept.nested {
        let recovery = Layout::new(&nested.recovery);
        let Some(posix) = Model::named("posix") else { continue };
        (dirs, files) = nested.state.image(&View::new(&recovery, posix, nested.at));
    }
    write_image(&dirs, &files.iter().cloned().collect(), to)?;
    Ok(campaign.verdict_of_image(dirs, files, model.keeps_completed, kept.at))
}

fn write_image(dirs: &[PathBuf], files: &Files, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for dir in dirs {
        fs::create_dir_all(to.join(below_home(dir)))?;
    }
    files.iter().try_for_each(|(path, bytes)| fs::write(to.join(below_home(path)), bytes))
}

fn below_home(path: &Path) -> &Path {
    path.strip_prefix(record::HOME).unwrap_or(path)
}

/// The finding's run cut down to the steps it takes, as a scenario; `None` if it does not show again when the
/// run is recorded anew, as may be with clients that run free.
pub fn shrink(cell: &CellPlan, subject: &dyn Subject, kept: &Kept, name: &str) -> Option<String> {
    let Kept::State(kept) = kept else { return None };
    let tables = cell.plan.tables();
    let opener = Opener { subject, cell, tables: &tables };
    let pace = pace(cell, kept.run);
    let model = Model::named(&kept.model)?;
    let all = steps(cell, kept.run, cell.plan.power.calls);
    let fails = |steps: &[record::Step]| explain::still_fails(&opener, steps, pace, model, 4_000);
    if !fails(&all) {
        return None;
    }
    let few = explain::shortest(&all, fails);
    let tables: Vec<String> = tables.iter().map(|t| t.name.clone()).collect();
    let script = Script { tables, steps: few.iter().map(record::as_script).collect() };
    regression(cell, name, &script)
}

fn regression(cell: &CellPlan, name: &str, script: &Script) -> Option<String> {
    let mut power = toml::Table::new();
    power.insert("rate".into(), cell.plan.power.rate.into());
    power.insert("sync-latency-us".into(), (cell.plan.power.sync_latency_us as i64).into());
    if !cell.plan.power.files.is_empty() {
        power.insert("files".into(), toml::Value::try_from(&cell.plan.power.files).ok()?);
    }
    let mut workload = toml::Table::try_from(script).ok()?;
    workload.insert("kind".into(), "script".into());
    let mut table = toml::Table::new();
    table.insert("schema".into(), 1.into());
    table.insert("name".into(), name.into());
    table.insert(
        "title".into(),
        format!("Does {} keep its promises in the run that once broke one in {}?", cell.subject, cell.id).into(),
    );
    table.insert("kinds".into(), toml::Value::try_from(["power"]).ok()?);
    table.insert("subjects".into(), toml::Value::try_from([&cell.subject]).ok()?);
    table.insert("sync".into(), toml::Value::try_from([cell.sync.0.to_string()]).ok()?);
    table.insert("levels".into(), toml::Value::try_from([&cell.level]).ok()?);
    if !cell.plan.table_sync.is_empty() {
        table.insert("table-sync".into(), toml::Value::try_from(&cell.plan.table_sync).ok()?);
    }
    table.insert("workload".into(), workload.into());
    table.insert("power".into(), power.into());
    toml::to_string(&table).ok()
}
