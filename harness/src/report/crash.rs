//! What crashes and faults took, as tables.
//!
//! A fault model that the contract of a cell's policy does not cover is shown with what it takes, and is
//! never a verdict: nobody promised anything against it.

use super::tables::{
    Column, Row, Section, Table, Value, columns, commands_of, figure, kills, maybe, named, pairs, place, positive, row, some,
    text, time, window,
};
use super::words;
use crate::result::{Cell, CellKind, Crash, FaultCounts, Finding, Loss, ModelCounts, Power, Results, Role, Ttfp, Verdict};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Every cell that crashed a store, and how its crashes were made.
pub(super) fn crashes(results: &Results) -> Section {
    let mut tables: Vec<Table> = some(every_cell(results));
    tables.extend(
        [moments(results), states(results), models(results), faults(results), canaries(results)].map(some).into_iter().flatten(),
    );
    Section {
        id: "crashes",
        title: "Crashes",
        intro: "Where the crashes fell, and what was there after reopening.",
        tables,
        points: Vec::new(),
    }
}

fn every_cell(results: &Results) -> Table {
    let cells = results.cells.iter().filter(|cell| cell.kind != CellKind::Bench);
    let rows = cells.clone().map(|cell| {
        let tried = cell.crash.as_ref().filter(|crash| crash.cases > 0);
        // A failing call or a flipped bit has no moment from which a window could be counted.
        let timed = tried.filter(|_| matches!(cell.kind, CellKind::Kill | CellKind::Power));
        let n = |pick: fn(&Crash) -> u64| maybe(tried.map(pick), words::count);
        let bad = tried.map(|crash| {
            format!("{} / {} / {}", words::count(crash.corrupt), words::count(crash.unopenable), words::count(crash.hung))
        });
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                Value::Text(place(&cell.scenario, &cell.group)),
                text(words::kind(cell.kind)),
                Value::Verdict(cell.verdict),
                n(|crash| crash.cases),
                n(|crash| crash.acked),
                n(|crash| crash.promised),
                n(|crash| crash.lost_promised),
                maybe(timed.map(|crash| crash.lost_acked_max), words::count),
                maybe(timed.map(|crash| crash.loss_window_ms_max), window),
                maybe(bad, |bad| bad),
                maybe(tried.and_then(|crash| positive(crash.recovery_ns_p50)), time),
                maybe(tried.and_then(|crash| positive(crash.recovery_ns_max)), time),
            ],
        )
    });
    let heads = [
        "store",
        "sync",
        "scenario",
        "crash",
        "verdict",
        "cases",
        "acked",
        "promised",
        "promised lost",
        "acked lost",
        "loss window",
        "corrupt / unopenable / hung",
        "reopen p50",
        "reopen max",
    ];
    let mut notes = vec![
        "Acked lost: the most acknowledged operations that one crash took. Loss window: the longest time between the acknowledgement of a lost operation and the crash."
            .to_owned(),
    ];
    // Only kills fall at random: crash states are picked, so their number bounds no chance.
    let survived = |cell: &&Cell| cell.role != Role::Canary && cell.kind == CellKind::Kill && cell.verdict == Verdict::Survived;
    let tried = sum(cells.clone().filter(survived).filter_map(|cell| cell.crash.as_ref()).map(|crash| crash.cases));
    if tried > 0 {
        notes.push(format!(
            "No loss in n kills bounds the chance of one at 3/n with 95 % confidence; the surviving cells together had {} kills.",
            words::count(tried)
        ));
    }
    Table {
        title: "Every cell".to_owned(),
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, cells),
    }
}

/// Policy × moment: how many crashes were seen to fall there.
fn moments(results: &Results) -> Table {
    let cells: Vec<(&Cell, &Crash)> = results
        .cells
        .iter()
        .filter_map(|cell| cell.crash.as_ref().filter(|crash| !crash.aimed.is_empty()).map(|crash| (cell, crash)))
        .collect();
    let moments: BTreeSet<&String> = cells.iter().flat_map(|(_, crash)| crash.aimed.keys()).collect();
    let most = cells.iter().flat_map(|(_, crash)| crash.aimed.values()).map(|aimed| aimed.observed).max().unwrap_or(0).max(1);
    let rows = cells.iter().map(|(cell, crash)| {
        let mut values = vec![
            Value::Text(named(&cell.subject, cell.role)),
            text(&cell.sync),
            text(words::kind(cell.kind)),
            Value::Verdict(cell.verdict),
        ];
        values.extend(moments.iter().map(|moment| match crash.aimed.get(*moment) {
            Some(aimed) => Value::Heat(
                format!("{}/{}", words::count(aimed.observed), words::count(aimed.tried)),
                aimed.observed as f64 / most as f64,
                cell.verdict,
            ),
            None => Value::Missing,
        }));
        row(cell, values)
    });
    let mut heads: Vec<String> = ["store", "sync", "crash", "verdict"].map(str::to_owned).into();
    heads.extend(moments.iter().map(|moment| words::line(moment)));
    let mut columns: Vec<Column> = heads.into_iter().map(|name| Column { name, figures: true }).collect();
    columns.iter_mut().take(4).for_each(|column| column.figures = false);
    let notes = vec![
        "Observed/aimed: crashes seen to have fallen at that moment, of those aimed at it. The verdict is the whole row's."
            .to_owned(),
    ];
    Table {
        title: "Crash matrix: policy × moment".to_owned(),
        columns,
        rows: rows.collect(),
        notes,
        commands: commands_of(results, cells.iter().map(|(cell, _)| *cell)),
    }
}

/// Fault × policy, a table for each store: what survived of what was tried.
pub(super) fn matrices(results: &Results) -> Vec<Table> {
    let pairs: Vec<(&str, &str)> =
        pairs(results).into_iter().filter(|(.., role)| *role != Role::Null).map(|(subject, sync, _)| (subject, sync)).collect();
    let mut subjects: Vec<&str> = pairs.iter().map(|(subject, _)| *subject).collect();
    subjects.dedup();
    let tables = subjects.into_iter().filter_map(|subject| {
        let crashed = |cell: &&Cell| cell.kind != CellKind::Bench && cell.subject == subject && cell.role != Role::Canary;
        let cells: Vec<&Cell> = results.cells.iter().filter(crashed).collect();
        let mut rows: BTreeSet<Fault<'_>> = BTreeSet::new();
        for cell in &cells {
            match (cell.kind, &cell.crash) {
                (CellKind::Kill, _) => drop(rows.insert((cell.kind, 0, "SIGKILL"))),
                (kind, Some(Crash { power: Some(power), .. })) => {
                    rows.extend(power.by_model.keys().map(|model| (kind, words::model_rank(model), model.as_str())));
                }
                (kind, Some(crash)) if !crash.faults.is_empty() => {
                    rows.extend(crash.faults.keys().map(|fault| (kind, 0, fault.as_str())));
                }
                (kind, _) => drop(rows.insert((kind, u8::MAX, ""))),
            }
        }
        // Kills alone stand in the table above already.
        if rows.iter().all(|(kind, _, name)| *kind == CellKind::Kill || name.is_empty()) {
            return None;
        }
        let kinds: BTreeSet<CellKind> = rows.iter().filter(|(.., name)| !name.is_empty()).map(|(kind, ..)| *kind).collect();
        rows.retain(|(kind, _, name)| !name.is_empty() || !kinds.contains(kind));
        let tried = |sync: &&str| cells.iter().any(|cell| cell.sync == *sync);
        let syncs: Vec<&str> = pairs.iter().filter(|(s, _)| *s == subject).map(|(_, sync)| *sync).filter(tried).collect();
        let filled = rows.iter().map(|fault| {
            let (kind, _, name) = *fault;
            let mut values = vec![text(words::kind(kind)), if name.is_empty() { Value::Missing } else { text(name) }];
            values.extend(syncs.iter().map(|sync| {
                let here: Vec<&Cell> = cells.iter().copied().filter(|cell| cell.sync == *sync && cell.kind == kind).collect();
                entry(results, &here, fault)
            }));
            Row { aside: false, values }
        });
        let heads = ["crash".to_owned(), "fault".to_owned()].into_iter().chain(syncs.iter().map(|sync| words::line(sync)));
        let notes = vec!["In brackets: how many crashes, crash states or faults the store survived, of those judged. Not promised: the contract of the policy does not cover that fault model, so what it takes is no verdict.".to_owned()];
        Some(Table {
            title: format!("Crash matrix: {}, fault × policy", words::line(subject)),
            columns: heads.map(|name| Column { name, figures: false }).collect(),
            rows: filled.collect(),
            notes,
            commands: commands_of(results, cells.iter().copied()),
        })
    });
    tables.collect()
}

/// A row of the matrix: kind, rank within the kind, name; no name where nothing was tried.
type Fault<'a> = (CellKind, u8, &'a str);

/// One place of the matrix, over all cells of one kind and policy.
fn entry(results: &Results, cells: &[&Cell], (kind, _, name): &Fault<'_>) -> Value {
    let Some(worst) = cells.iter().map(|cell| cell.verdict).max() else { return Value::Missing };
    if worst == Verdict::HarnessBroken {
        return Value::Verdict(worst);
    }
    let crashes = || cells.iter().filter_map(|cell| cell.crash.as_ref());
    let untried = || if worst == Verdict::NotMeasured { Value::Verdict(worst) } else { Value::Missing };
    match kind {
        CellKind::Kill => {
            let (subject, sync) = cells.first().map_or(("", ""), |cell| (&cell.subject, &cell.sync));
            kills(results, subject, sync).map_or(Value::Missing, |(verdict, crash)| killed(verdict, &crash))
        }
        CellKind::Power => {
            let found: Vec<&ModelCounts> = crashes()
                .filter_map(|crash| crash.power.as_ref()?.by_model.get(*name))
                .filter(|counts| judged(counts) > 0)
                .collect();
            let covered = found.iter().any(|counts| counts.covered);
            let of = |pick: fn(&ModelCounts) -> u64| {
                sum(found.iter().filter(|counts| counts.covered == covered).map(|counts| pick(counts)))
            };
            let tally = Tally {
                survived: of(|counts| counts.survived),
                lost: of(|counts| counts.lost),
                corrupt: of(|counts| counts.corrupt),
                unopenable: of(|counts| counts.unopenable),
                hung: of(|counts| counts.hung),
            };
            match found.is_empty() {
                true => untried(),
                false if covered => Value::Judged(tally.verdict(), tally.words()),
                false => Value::Text(format!("{} ({})", words::NOT_PROMISED, tally.words())),
            }
        }
        _ => {
            let found: Vec<&FaultCounts> =
                crashes().filter_map(|crash| crash.faults.get(*name)).filter(|fault| fault.cases > 0).collect();
            let of = |pick: fn(&FaultCounts) -> u64| sum(found.iter().map(|fault| pick(fault)));
            let (lost, corrupt) = (of(|fault| fault.lost), of(|fault| fault.corrupt));
            let (unopenable, hung) = (of(|fault| fault.unopenable), of(|fault| fault.hung));
            let bad = sum([lost, corrupt, unopenable, hung].into_iter());
            let tally = Tally { survived: of(|fault| fault.cases).saturating_sub(bad), lost, corrupt, unopenable, hung };
            if found.is_empty() { untried() } else { Value::Judged(tally.verdict(), tally.words()) }
        }
    }
}

/// SIGKILL counts operations where it lost any: how many of the kills took them is not known.
fn killed(verdict: Verdict, crash: &Crash) -> Value {
    let of = words::count(crash.cases);
    match verdict {
        Verdict::Survived if crash.cases > 0 => return Value::Judged(verdict, format!("{of} of {of}")),
        Verdict::Survived | Verdict::NotMeasured => return Value::Verdict(Verdict::NotMeasured),
        _ => {}
    }
    let lost = (crash.lost_promised > 0).then(|| format!("{} lost", words::counted(crash.lost_promised, "operation")));
    let rest = named_counts([(crash.corrupt, "corrupt"), (crash.unopenable, "unopenable"), (crash.hung, "hung")]);
    let what: Vec<String> = lost.into_iter().chain(rest).collect();
    let kills = words::counted(crash.cases, words::case(CellKind::Kill));
    Value::Judged(verdict, if what.is_empty() { kills } else { format!("{kills}: {}", what.join(", ")) })
}

/// Crash states or faults by what came of them.
struct Tally {
    survived: u64,
    lost: u64,
    corrupt: u64,
    unopenable: u64,
    hung: u64,
}

impl Tally {
    fn verdict(&self) -> Verdict {
        match self {
            Tally { hung: 1.., .. } => Verdict::Hung,
            Tally { unopenable: 1.., .. } => Verdict::Unopenable,
            Tally { corrupt: 1.., .. } => Verdict::Corrupt,
            Tally { lost: 1.., .. } => Verdict::Lost,
            Tally { survived: 1.., .. } => Verdict::Survived,
            _ => Verdict::NotMeasured,
        }
    }

    fn words(&self) -> String {
        let all = sum([self.survived, self.lost, self.corrupt, self.unopenable, self.hung].into_iter());
        let bad =
            named_counts([(self.lost, "lost"), (self.corrupt, "corrupt"), (self.unopenable, "unopenable"), (self.hung, "hung")]);
        let bad: Vec<String> = bad.collect();
        let rest = if bad.is_empty() { String::new() } else { format!("; {}", bad.join(", ")) };
        format!("{} of {}{rest}", words::count(self.survived), words::count(all))
    }
}

fn named_counts<const N: usize>(counts: [(u64, &str); N]) -> impl Iterator<Item = String> {
    counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{} {name}", words::count(n)))
}

fn judged(counts: &ModelCounts) -> u64 {
    sum([counts.survived, counts.lost, counts.corrupt, counts.unopenable, counts.hung].into_iter())
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Power cells with how their crash states were made, in the order of the matrix.
fn powers(results: &Results) -> impl Iterator<Item = (&Cell, &Power)> + Clone {
    results.cells.iter().filter_map(|cell| cell.crash.as_ref()?.power.as_ref().map(|power| (cell, power)))
}

/// Models of a cell in rising order of what they let a crash take.
fn ranked(power: &Power) -> Vec<(&String, &ModelCounts)> {
    let mut all: Vec<_> = power.by_model.iter().collect();
    all.sort_by_key(|(name, _)| words::model_rank(name));
    all
}

/// The fault model whose crashes took the most of what its contract covers.
pub(super) fn worst_model(power: &Power) -> Option<&ModelCounts> {
    let most = |counts: &ModelCounts| counts.loss_window_ms.map_or(-1.0, |window| window.max);
    let covered = power.by_model.values().filter(|counts| counts.covered);
    covered.max_by(|a, b| most(a).total_cmp(&most(b)))
}

/// Whether no crash took anything that had been acknowledged.
pub(super) fn nothing_lost(loss: &Loss) -> bool {
    !loss.unbounded && loss.worst_ops == 0 && loss.worst_ms <= 0.0
}

/// What the policy promises that a power loss takes at most.
fn promised(loss: &Loss) -> String {
    match loss.bound_ms {
        _ if loss.unbounded => words::UNBOUNDED.to_owned(),
        Some(bound) if bound > 0.0 => words::ms(bound),
        _ => "nothing".to_owned(),
    }
}

/// How the loss was simulated, in a sentence.
pub(super) fn simulation(loss: &Loss) -> String {
    let moments =
        if loss.moments > 0 { format!(", crashed at {}", words::counted(loss.moments, "moment")) } else { String::new() };
    format!(
        "Simulated: {} requests a second at random times, {} for a sync, a run of {}{moments}.",
        words::figure(loss.rate_per_s),
        time(loss.sync_latency_ns),
        time(loss.duration_ns)
    )
}

/// How much a power loss takes under each policy, beside what the policy promises.
pub(super) fn loss_window(results: &Results) -> Table {
    let found: Vec<(&Cell, &Power, &Loss)> = powers(results)
        .filter(|(cell, _)| cell.role != Role::Canary)
        .filter_map(|(cell, power)| Some((cell, power, power.loss.as_ref()?)))
        .collect();
    let mut notes = vec!["A power loss takes what was acknowledged and not yet on the device. Lost at worst: the most operations, and the age of the oldest, over all moments and all fault models that the policy's contract covers. Median moment: the worst state there under the model that takes the most. Best case: the same, in the state that kept the most.".to_owned()];
    let mut simulations: Vec<String> = found.iter().map(|(.., loss)| simulation(loss)).collect();
    simulations.dedup();
    notes.extend(simulations);
    if found.iter().any(|(.., loss)| loss.unbounded) {
        notes.push(
            "Unbounded: nothing ends the loss but the end of the run, so its figures grow with the run's length.".to_owned(),
        );
    }
    let ttfp = ttfp_beside(results, &found.iter().map(|(cell, ..)| cell.sync.as_str()).collect());
    if let Some((scenario, group, simulated)) = ttfp {
        let how = if simulated { "simulated" } else { "measured" };
        notes.push(format!("TTFP p50: median time to first payment, {how}, from {}.", place(scenario, group)));
    }
    let ms = |ms: f64| if ms > 0.0 || ms.is_nan() { words::ms(ms) } else { "nothing".to_owned() };
    let rows = found.iter().map(|(cell, power, loss)| {
        let best = worst_model(power).and_then(|counts| counts.best_loss_window_ms).map(|window| window.p50);
        let first = ttfp.and_then(|at| first_payment(results, at, &cell.subject, &cell.sync));
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                Value::Text(place(&cell.scenario, &cell.group)),
                Value::Verdict(cell.verdict),
                Value::Text(promised(loss)),
                figure(words::count(loss.worst_ops)),
                if nothing_lost(loss) { figure("nothing".to_owned()) } else { figure(words::ms(loss.worst_ms)) },
                maybe(worst_model(power).and_then(|counts| counts.loss_window_ms).map(|window| window.p50), ms),
                maybe(best, ms),
                maybe(first, |ttfp| time(ttfp.p50)),
            ],
        )
    });
    let heads = [
        "store",
        "sync",
        "scenario",
        "verdict",
        "promised at most",
        "ops lost at worst",
        "lost at worst",
        "median moment",
        "best case",
        "TTFP p50",
    ];
    let mut table = Table {
        title: "Loss window".to_owned(),
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, found.iter().map(|(cell, ..)| *cell)),
    };
    if ttfp.is_none() {
        table.keep(|i| i + 1 < heads.len());
    }
    table
}

/// Cells of time to first payment: scenario, group and whether it is simulated.
type TtfpPlace<'a> = (&'a str, &'a str, bool);

fn ttfps(results: &Results) -> impl Iterator<Item = (&Cell, &Ttfp)> {
    let phases = results.cells.iter().filter_map(|cell| Some((cell, cell.bench.as_ref()?)));
    let all = phases.flat_map(|(cell, bench)| bench.phases.iter().filter_map(move |phase| Some((cell, phase.ttfp.as_ref()?))));
    all.filter(|(_, ttfp)| ttfp.count > 0)
}

/// One place for all policies, or their times could not be compared: the one that has most of them, measured before simulated.
fn ttfp_beside<'a>(results: &'a Results, syncs: &BTreeSet<&str>) -> Option<TtfpPlace<'a>> {
    let mut places: Vec<(TtfpPlace<'a>, BTreeSet<&str>)> = Vec::new();
    for (cell, ttfp) in ttfps(results).filter(|(cell, _)| syncs.contains(cell.sync.as_str())) {
        let key = (cell.scenario.as_str(), cell.group.as_str(), ttfp.model.is_some());
        match places.iter_mut().find(|(place, _)| *place == key) {
            Some((_, policies)) => drop(policies.insert(&cell.sync)),
            None => places.push((key, BTreeSet::from([cell.sync.as_str()]))),
        }
    }
    let (place, _) = places.into_iter().enumerate().max_by_key(|(i, (key, policies))| (policies.len(), !key.2, Reverse(*i)))?.1;
    Some(place)
}

fn first_payment<'a>(results: &'a Results, place: TtfpPlace<'_>, subject: &str, sync: &str) -> Option<&'a Ttfp> {
    let here = |(cell, ttfp): &(&Cell, &Ttfp)| {
        (cell.scenario.as_str(), cell.group.as_str(), ttfp.model.is_some()) == place
            && cell.sync == sync
            && cell.subject == subject
    };
    ttfps(results).find(here).map(|(_, ttfp)| ttfp)
}

/// How many crash states each power cell tried, and what it left out.
fn states(results: &Results) -> Table {
    let rows = powers(results).map(|(cell, power)| {
        let all = sum(power.by_strategy.values().copied());
        let odd = |name: &str| ["torn", "random", "garbage"].iter().any(|word| name.contains(word));
        let odd = sum(power.by_strategy.iter().filter(|(name, _)| odd(name)).map(|(_, n)| *n));
        let depths: Vec<String> = power.by_depth.iter().map(|n| words::count(*n)).collect();
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                Value::Text(place(&cell.scenario, &cell.group)),
                figure(words::count(power.traces)),
                figure(words::count(power.calls)),
                figure(words::count(power.crash_points)),
                figure(words::count(power.states_tried)),
                figure(words::count(power.states_distinct)),
                maybe((!depths.is_empty()).then(|| depths.join(" / ")), |depths| depths),
                maybe((all > 0).then(|| odd as f64 / all as f64), words::percent),
                figure(words::count(power.left_out)),
                if power.ended_by.is_empty() { Value::Missing } else { text(&power.ended_by) },
                maybe((power.states_per_second > 0.0).then_some(power.states_per_second), words::rate),
                maybe((power.opened_per_second > 0.0).then_some(power.opened_per_second), words::rate),
            ],
        )
    });
    let heads = [
        "store",
        "sync",
        "scenario",
        "traces",
        "calls",
        "crash points",
        "tried",
        "distinct",
        "by depth",
        "torn or random",
        "left out",
        "ended by",
        "judged",
        "opened",
    ];
    let notes = vec!["A crash state is one image that a power loss may leave behind; distinct ones are opened once. By depth: distinct images left by a crash of the workload, then by a crash of its recovery, and so on. Torn or random: share of the distinct images that a strategy with torn, random or garbage writes found first. Left out: states that the strategies would still have tried, random ones aside. Ended by: exhausted when none was left, otherwise the budget of count or time. Judged and opened: states judged, and distinct images opened for it, a second on one thread.".to_owned()];
    Table {
        title: "Crash states".to_owned(),
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, powers(results).map(|(cell, _)| cell)),
    }
}

fn models(results: &Results) -> Table {
    let rows = powers(results).flat_map(|(cell, power)| ranked(power).into_iter().map(move |found| (cell, found)));
    let rows = rows.map(|(cell, (model, counts))| {
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                Value::Text(place(&cell.scenario, &cell.group)),
                text(model),
                Value::Text(if counts.covered { "covered" } else { words::NOT_PROMISED }.to_owned()),
                figure(words::count(counts.states_tried)),
                figure(words::count(counts.states_distinct)),
                figure(words::count(counts.survived)),
                figure(words::count(counts.lost)),
                figure(format!(
                    "{} / {} / {}",
                    words::count(counts.corrupt),
                    words::count(counts.unopenable),
                    words::count(counts.hung)
                )),
                maybe(counts.lost_acked.map(|lost| lost.max), words::figure),
                maybe(counts.loss_window_ms.map(|ms| ms.max), window),
            ],
        )
    });
    let heads = [
        "store",
        "sync",
        "scenario",
        "fault model",
        "contract",
        "tried",
        "distinct",
        "survived",
        "lost",
        "corrupt / unopenable / hung",
        "acked lost",
        "loss window",
    ];
    let notes = vec!["Fault models in rising order of what they let a crash take. Not promised: the contract of the policy does not cover the model, so nothing it takes counts against the store. Acked lost and loss window: the most in one crash state.".to_owned()];
    Table {
        title: "Crash states by fault model".to_owned(),
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, powers(results).map(|(cell, _)| cell)),
    }
}

/// Failing calls and rot: what became of each fault.
fn faults(results: &Results) -> Table {
    let cells = results.cells.iter().filter_map(|cell| cell.crash.as_ref().map(|crash| (cell, &crash.faults)));
    let cells = cells.filter(|(_, faults)| !faults.is_empty());
    let rows =
        cells.clone().flat_map(|(cell, faults)| faults.iter().map(move |found| (cell, found))).map(|(cell, (name, fault))| {
            let of = |n: u64| if fault.cases > 0 { figure(words::count(n)) } else { Value::Missing };
            row(
                cell,
                vec![
                    Value::Text(named(&cell.subject, cell.role)),
                    text(&cell.sync),
                    Value::Text(place(&cell.scenario, &cell.group)),
                    text(words::kind(cell.kind)),
                    text(name),
                    of(fault.cases),
                    of(fault.reported),
                    of(fault.harmless),
                    of(fault.cut),
                    of(fault.lost),
                    of(fault.corrupt),
                    of(fault.unopenable),
                    of(fault.hung),
                ],
            )
        });
    let heads = [
        "store",
        "sync",
        "scenario",
        "crash",
        "fault",
        "cases",
        "reported",
        "harmless",
        "cut",
        "lost",
        "corrupt",
        "unopenable",
        "hung",
    ];
    let notes = vec!["Reported: the store said so with an error. Harmless: nothing missing, nothing wrong. Cut: only what no later sync had covered is gone, and the store said so. Lost, corrupt, unopenable and hung are failures.".to_owned()];
    Table {
        title: "Faults: failing calls and rot".to_owned(),
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, cells.map(|(cell, _)| cell)),
    }
}

/// Which fault convicted each canary.
fn canaries(results: &Results) -> Table {
    let cells = results.cells.iter().filter(|cell| cell.role == Role::Canary && cell.kind != CellKind::Bench);
    let rows = cells.clone().map(|cell| {
        let convicted = cell.verdict > Verdict::NotMeasured && cell.verdict != Verdict::HarnessBroken;
        let found = cell.crash.iter().flat_map(|crash| &crash.findings);
        let mut by: BTreeSet<&str> = found.clone().flat_map(weakest).collect();
        for (name, fault) in cell.crash.iter().flat_map(|crash| &crash.faults) {
            if sum([fault.lost, fault.corrupt, fault.unopenable, fault.hung].into_iter()) > 0 {
                by.insert(name);
            }
        }
        let mut by: Vec<&str> = by.into_iter().collect();
        by.sort_by_key(|name| words::model_rank(name));
        let first = found.clone().next().map(|finding| words::line(&finding.summary));
        let values = vec![
            text(&cell.subject),
            text(&cell.sync),
            Value::Text(place(&cell.scenario, &cell.group)),
            text(words::kind(cell.kind)),
            Value::Verdict(cell.verdict),
            if convicted && !by.is_empty() { text(&by.join(", ")) } else { Value::Missing },
            first.filter(|_| convicted).map_or(Value::Missing, Value::Text),
        ];
        Row { aside: false, values }
    });
    let heads = ["canary", "sync", "scenario", "crash", "verdict", "convicted by", "what happened"];
    Table {
        title: words::score(results).map_or("Canaries".to_owned(), |score| score.trim_end_matches('.').to_owned()),
        columns: columns(&heads),
        rows: rows.collect(),
        notes: vec!["A canary is a store broken on purpose; one that survives makes the run harness-broken. Convicted by: the weakest fault models, or the faults, that show its bug.".to_owned()],
        commands: commands_of(results, cells),
    }
}

/// The weakest faults that show a finding: no model of these contains another.
fn weakest(finding: &Finding) -> Vec<&str> {
    let mut all: Vec<&str> = finding.models.iter().map(String::as_str).collect();
    if !all.contains(&finding.profile.as_str()) {
        all.push(&finding.profile);
    }
    all.retain(|name| !name.is_empty());
    all.sort_by_key(|name| words::model_rank(name));
    all
}

/// The column of [`findings`] that says how they come about.
const EXPLANATION: usize = 6;

/// What was found wrong, with the way it comes about.
pub(super) fn findings(results: &Results) -> Section {
    let cells = results.cells.iter().filter_map(|cell| cell.crash.as_ref().map(|crash| (cell, crash)));
    let found = cells.flat_map(|(cell, crash)| crash.findings.iter().map(move |finding| (cell, crash, finding)));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(cell, _, finding)| (cell.role == Role::Canary, Reverse(finding.verdict)));
    let rows = found.into_iter().map(|(cell, crash, finding)| {
        let weakest = weakest(finding);
        let covers =
            |name: &&str| crash.power.as_ref().and_then(|power| power.by_model.get(*name)).is_none_or(|model| model.covered);
        let nobodys = !weakest.is_empty() && !weakest.iter().any(covers);
        let values = vec![
            text(&finding.id),
            Value::Text(named(&cell.subject, cell.role)),
            text(&cell.sync),
            if nobodys { Value::Text(words::NOT_PROMISED.to_owned()) } else { Value::Verdict(finding.verdict) },
            if weakest.is_empty() { Value::Missing } else { text(&weakest.join(", ")) },
            text(&finding.summary),
            explained(finding).map_or(Value::Missing, Value::Text),
            Value::Code(words::line(&finding.replay)),
        ];
        row(cell, values)
    });
    let heads = ["finding", "store", "sync", "verdict", "weakest fault", "what happened", "how it comes about", "see it again"];
    let mut columns = columns(&heads);
    columns.iter_mut().for_each(|column| column.figures = false);
    let mut table = Table { columns, rows: rows.collect(), ..Table::default() };
    // A kill has no explanation, and a run of kills need not say so.
    if table.rows.iter().all(|row| row.values.get(EXPLANATION) == Some(&Value::Missing)) {
        table.keep(|i| i != EXPLANATION);
    }
    let points = powers(results).flat_map(|(cell, power)| {
        let place = place(&cell.scenario, &cell.group);
        let who = format!("{} under {}, {place}", named(&cell.subject, cell.role), words::line(&cell.sync));
        power.redundant_syncs.iter().map(move |sync| {
            format!("Redundant sync ({who}): {}. Without it no verdict changes.", words::line(sync).trim_end_matches('.'))
        })
    });
    Section {
        id: "findings",
        title: "Findings",
        intro: "What was found wrong, and the command that shows it again.",
        tables: some(table),
        points: points.collect(),
    }
}

/// Lost effects, operations and the missing barrier as sentences.
fn explained(finding: &Finding) -> Option<String> {
    let why = finding.explanation.as_ref()?;
    let listed = |what: &str, lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| words::line(line)).collect();
        (!lines.is_empty()).then(|| format!("{what}: {}.", lines.join("; ")))
    };
    let barrier = why.barrier.as_ref().map(|barrier| {
        let proof = if why.verified { "verified, with it nothing is found any more" } else { "not verified" };
        format!("Missing barrier: {} ({proof}).", words::line(barrier))
    });
    let parts = [listed("Lost effects", &why.lost_effects), listed("Shortest sequence of operations", &why.operations), barrier];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}
