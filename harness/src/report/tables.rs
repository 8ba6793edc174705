//! What a report says, as tables of values; the formats only lay them out.
//!
//! Three rules of meaning stand here: an absent value is [`Value::Missing`], never zero; a latency of a
//! write has the syncs per write beside it; a null subject is the harness's own cost and is never ranked.

use super::{crash, words};
use crate::result::{
    Bench, Cell, CellKind, Counters, Crash, Model, OpStats, Percentiles, Phase, Projection, ProjectionUnit, Results, Role, Space,
    Ttfp, Verdict, Whole,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A heading with what belongs under it.
pub(super) struct Section {
    /// Anchor on the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the reader sees here, in a sentence.
    pub(super) intro: &'static str,
    pub(super) tables: Vec<Table>,
    /// Sentences below the tables.
    pub(super) points: Vec<String>,
}

/// Rows of values under named columns.
#[derive(Default)]
pub(super) struct Table {
    /// Empty when the section's title says it already.
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// How to read it.
    pub(super) notes: Vec<String>,
    /// Commands that repeat it, the first for all of it.
    pub(super) commands: Vec<String>,
}

impl Table {
    /// Leaves only the columns that `kept` says yes to.
    pub(super) fn keep(&mut self, kept: impl Fn(usize) -> bool) {
        fn pick<T>(all: &mut Vec<T>, kept: &impl Fn(usize) -> bool) {
            let mut i = 0;
            all.retain(|_| {
                i += 1;
                kept(i - 1)
            });
        }
        pick(&mut self.columns, &kept);
        self.rows.iter_mut().for_each(|row| pick(&mut row.values, &kept));
    }
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) figures: bool,
}

pub(super) struct Row {
    /// Stands apart from the ranked rows.
    pub(super) aside: bool,
    pub(super) values: Vec<Value>,
}

/// One value of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Figure(String),
    Code(String),
    Verdict(Verdict),
    /// A verdict with the counts behind it.
    Judged(Verdict, String),
    /// A count in a heat map, with its share of the whole.
    Heat(String, f64, Verdict),
    Missing,
}

impl Value {
    /// The value in plain words.
    pub(super) fn words(&self) -> String {
        match self {
            Value::Text(text) | Value::Figure(text) | Value::Code(text) | Value::Heat(text, ..) => text.clone(),
            Value::Verdict(verdict) => format!("{} {}", words::sign(*verdict), words::verdict(*verdict)),
            Value::Judged(verdict, counts) => format!("{} ({counts})", Value::Verdict(*verdict).words()),
            Value::Missing => words::MISSING.to_owned(),
        }
    }
}

/// Every section that has something to say, in reading order.
pub(super) fn sections(results: &Results) -> Vec<Section> {
    let mut all = vec![
        promise(results),
        criteria(results),
        ttfp(results),
        money(results),
        speed(results),
        growth(results),
        own_cost(results),
    ];
    all.extend([crash::crashes(results), crash::findings(results), gaps(results)]);
    all.retain(|section| !section.tables.is_empty() || !section.points.is_empty());
    for section in &mut all {
        section.tables.iter_mut().for_each(drop_empty_columns);
        let mut said = BTreeSet::new();
        section.tables.iter_mut().for_each(|table| table.notes.retain(|note| said.insert(note.clone())));
    }
    all
}

/// What the scenarios demand, and what was found.
fn criteria(results: &Results) -> Section {
    let judged = || results.cells.iter().filter(|cell| !cell.criteria.is_empty());
    let rows = judged().flat_map(|cell| cell.criteria.iter().map(move |criterion| (cell, criterion)));
    let rows = rows.map(|(cell, criterion)| {
        let found = criterion.found.map_or(Value::Missing, |found| Value::Figure(words::metric(criterion.metric, found)));
        let bound = |sign: &str, bound: Option<f64>| bound.map(|b| format!("{sign} {}", words::metric(criterion.metric, b)));
        let demanded = bound("≥", criterion.at_least).into_iter().chain(bound("≤", criterion.at_most)).collect::<Vec<_>>();
        let says = format!("{} ({})", words::line(&criterion.says), words::line(&criterion.phase));
        let holds = if criterion.holds { "✓ holds" } else { "✗ missed" };
        row(
            cell,
            vec![text(holds), text(&says), text(&cell.subject), text(&cell.sync), Value::Figure(demanded.join(", ")), found],
        )
    });
    let heads = ["", "criterion (phase)", "store", "sync", "demanded", "found"];
    let table = Table {
        columns: columns(&heads),
        rows: rows.collect(),
        notes: vec!["Rate: of the slowest repetition. Percentiles: of the worst kind of operation. A missed criterion ends the run with exit code 3.".to_owned()],
        commands: commands_of(results, judged()),
        ..Table::default()
    };
    let tables = if table.rows.is_empty() { Vec::new() } else { vec![table] };
    Section {
        id: "criteria",
        title: "Criteria",
        intro: "What the scenario demands, and what was found.",
        tables,
        points: Vec::new(),
    }
}

/// A figure of a projection with its unit.
pub(super) fn projected(unit: ProjectionUnit, value: f64) -> String {
    match unit {
        ProjectionUnit::Seconds => words::ns(value * 1e9),
        ProjectionUnit::Ratio => words::ratio(value),
    }
}

/// What grows with the data: measured, and expected of larger stores.
fn growth(results: &Results) -> Section {
    let found = results.cells.iter().filter_map(|cell| Some((cell, cell.bench.as_ref()?)));
    let all = found.flat_map(|(cell, bench)| bench.projections.iter().map(move |projection| (cell, projection)));
    let table = |(cell, projection): (&Cell, &Projection)| {
        let measured_at = |bytes| projection.measured.iter().filter(|p| p.bytes == bytes).map(|p| p.value).collect::<Vec<_>>();
        let mut sizes: Vec<u64> = projection.measured.iter().chain(&projection.predicted).map(|p| p.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let rows = sizes.into_iter().map(|bytes| {
            let figure = |value: f64| Value::Figure(projected(projection.unit, value));
            let mut measured = measured_at(bytes);
            measured.sort_by(f64::total_cmp);
            let measured = match (measured.first(), measured.last()) {
                (Some(least), Some(most)) if least == most => figure(*least),
                (Some(least), Some(most)) => Value::Figure([*least, *most].map(|v| projected(projection.unit, v)).join(" to ")),
                _ => Value::Missing,
            };
            let expected = projection.predicted.iter().find(|p| p.bytes == bytes).map_or(Value::Missing, |p| figure(p.value));
            row(cell, vec![Value::Figure(words::bytes(bytes as f64)), measured, expected])
        });
        Table {
            title: format!("{}: {}, {}", words::line(&projection.title), words::line(&cell.subject), words::line(&cell.sync)),
            columns: columns(&["data", "measured", "expected"]),
            rows: rows.collect(),
            notes: vec![words::line(&projection.assumes)],
            commands: commands_of(results, std::iter::once(cell)),
        }
    };
    let tables = all.map(table).collect();
    Section {
        id: "growth",
        title: "What grows with the data",
        intro: "Measured at sizes that fit here, and expected of larger stores.",
        tables,
        points: Vec::new(),
    }
}

/// A column without a single value becomes a note.
fn drop_empty_columns(table: &mut Table) {
    let empty = |i: &usize| table.rows.iter().all(|row| matches!(row.values.get(*i), None | Some(Value::Missing)));
    let drop: Vec<usize> = (0..table.columns.len()).filter(empty).collect();
    if drop.is_empty() {
        return;
    }
    let names: Vec<&str> = drop.iter().filter_map(|i| table.columns.get(*i)).map(|column| column.name.as_str()).collect();
    table.notes.push(format!("{} in every row: {}.", words::MISSING, names.join(", ")));
    table.keep(|i| !drop.contains(&i));
}

/// The command of every cell.
pub(super) fn commands(results: &Results) -> Table {
    let rows = results.cells.iter().map(|cell| row(cell, vec![text(&cell.id), Value::Code(words::line(&cell.reproduce))]));
    Table { columns: columns(&["cell", "command"]), rows: rows.collect(), ..Table::default() }
}

/// The machine, a line each: name and words.
pub(super) fn machine(results: &Results) -> Vec<(&'static str, String)> {
    let known = |text: &str| if text.trim().is_empty() { words::MISSING.to_owned() } else { words::line(text) };
    let (host, storage) = (&results.host, &results.storage);
    let sync = &storage.calibration;
    let median = positive(sync.fdatasync_4k_p50_ns).map_or(words::MISSING.to_owned(), time);
    let tail = sync.fdatasync_4k.p99.map_or(words::MISSING.to_owned(), time);
    let memory = positive(host.memory_bytes).map_or(words::MISSING.to_owned(), size);
    let cores = positive(host.cores).map_or("cores n/a".to_owned(), |n| words::counted(n, "core"));
    let mount = if storage.mount.is_empty() { String::new() } else { format!(" ({})", words::line(&storage.mount)) };
    vec![
        ("sync of 4 KiB here", format!("p50 {median}, p99 {tail} (fdatasync after an append, measured before the cells)")),
        ("storage", known(&storage.filesystem) + &mount),
        ("processor", format!("{}, {cores}, {memory} memory", known(&host.cpu))),
        ("system", format!("{} {}", known(&host.os), words::line(&host.kernel))),
        (
            "harness",
            format!(
                "{}, {}, profile {}, seed {}",
                known(&results.run.version),
                known(&host.rustc),
                known(&results.run.profile),
                results.run.seed
            ),
        ),
        (
            "run",
            format!(
                "{}, {} cells in {}",
                known(&results.run.id),
                words::count(results.cells.len() as u64),
                time(results.run.duration_ns)
            ),
        ),
    ]
}

/// (scenario, group) pairs in the order of the matrix.
pub(super) fn groups(results: &Results) -> Vec<(&str, &str)> {
    let mut seen = BTreeSet::new();
    let all = results.cells.iter().map(|cell| (cell.scenario.as_str(), cell.group.as_str()));
    all.filter(|pair| seen.insert(*pair)).collect()
}

/// A scenario and its group as one name.
pub(super) fn place(scenario: &str, group: &str) -> String {
    words::line(&if group.is_empty() { scenario.to_owned() } else { format!("{scenario} {group}") })
}

/// Bench cells of one (scenario, group) with their measurements.
pub(super) fn benches<'a>(
    results: &'a Results,
    scenario: &'a str,
    group: &'a str,
) -> impl Iterator<Item = (&'a Cell, &'a Bench)> + Clone {
    let here = move |cell: &&Cell| cell.scenario == scenario && cell.group == group;
    results.cells.iter().filter(here).filter_map(|cell| cell.bench.as_ref().map(|bench| (cell, bench)))
}

/// Names of the phases worth a table of their own: preparation only when there is nothing else.
pub(super) fn phases<'a>(cells: impl Iterator<Item = (&'a Cell, &'a Bench)>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in cells.flat_map(|(_, bench)| &bench.phases) {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    let aside = |name: &&str| matches!(*name, "prefill" | "generate" | "warmup" | "open" | "close" | "shrink");
    if names.iter().all(aside) { names } else { names.into_iter().filter(|name| !aside(name)).collect() }
}

/// The phase of that name.
pub(super) fn phase<'a>(bench: &'a Bench, name: &str) -> Option<&'a Phase> {
    bench.phases.iter().find(|phase| phase.name == name)
}

/// Whether all there is to say on a phase is its time to first payment.
pub(super) fn paced(results: &Results, scenario: &str, group: &str, name: &str) -> bool {
    let mut all = benches(results, scenario, group).filter_map(|(_, bench)| phase(bench, name));
    all.all(|phase| phase.ttfp.is_some() && phase.ops.is_empty())
}

/// The operation that stands for a phase: its payment, its most frequent write, otherwise its most frequent operation.
pub(super) fn main_op(phase: &Phase) -> Option<(&str, &OpStats)> {
    let tried = phase.ops.iter().filter(|(_, op)| op.count > 0);
    tried.max_by_key(|(name, op)| (is_write(name), *name == "pay", op.count)).map(|(name, op)| (name.as_str(), op))
}

/// The bench cell and phase that say what an acknowledged write of (subject, sync) costs.
pub(super) fn cost<'a>(results: &'a Results, subject: &str, sync: &str) -> Option<(&'a Cell, &'a Phase, &'a OpStats)> {
    let same = |cell: &&Cell| cell.subject == subject && cell.kind == CellKind::Bench;
    // One scenario for all policies of a subject, or its rows could not be compared: the one that covers most of them.
    let mut covered: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for cell in results.cells.iter().filter(same).filter(|cell| writes(cell).is_some()) {
        covered.entry((&cell.scenario, &cell.group, &cell.level)).or_default().insert(&cell.sync);
    }
    let first = |key: &(&str, &str, &str)| {
        results.cells.iter().position(|c| (c.scenario.as_str(), c.group.as_str(), c.level.as_str()) == *key)
    };
    let lead =
        covered.iter().max_by_key(|(key, syncs)| (syncs.len(), key.2 == "write", Reverse(first(key)))).map(|(key, _)| *key)?;
    let at_lead = |cell: &&Cell| (cell.scenario.as_str(), cell.group.as_str(), cell.level.as_str()) == lead && cell.sync == sync;
    let cell = results.cells.iter().filter(same).find(at_lead)?;
    writes(cell).map(|(phase, _, op)| (cell, phase, op))
}

/// The phase of a bench cell that stands for its writes, with the write and its name.
fn writes(cell: &Cell) -> Option<(&Phase, &str, &OpStats)> {
    let phases = cell.bench.iter().flat_map(|bench| &bench.phases);
    let phases = phases.filter(|phase| !matches!(phase.name.as_str(), "prefill" | "warmup"));
    let candidates =
        phases.filter_map(|phase| main_op(phase).filter(|(name, _)| is_write(name)).map(|(name, op)| (phase, name, op)));
    candidates.max_by_key(|(phase, _, op)| (phase.name == "run", op.count))
}

/// What a write costs where a cell was crashed: the bench cell of the same scenario, subject and policy,
/// of the same group and level if there is one.
pub(super) fn cost_beside<'a>(results: &'a Results, crashed: &Cell) -> Option<(&'a Cell, &'a str, &'a OpStats)> {
    let same = |cell: &&Cell| {
        (&cell.scenario, &cell.subject, &cell.sync, cell.kind)
            == (&crashed.scenario, &crashed.subject, &crashed.sync, CellKind::Bench)
    };
    let found = results.cells.iter().filter(same).filter_map(|cell| writes(cell).map(|(_, name, op)| (cell, name, op)));
    let near = |cell: &Cell| (cell.group == crashed.group, cell.level == crashed.level);
    found.enumerate().max_by_key(|(i, (cell, ..))| (near(cell), Reverse(*i))).map(|(_, found)| found)
}

/// (subject, sync) of every cell that is no canary: stores first, then baselines, then null, policies from weak to strong.
pub(super) fn pairs(results: &Results) -> Vec<(&str, &str, Role)> {
    let mut out: Vec<(&str, &str, Role)> = Vec::new();
    for cell in results.cells.iter().filter(|cell| cell.role != Role::Canary) {
        if !out.iter().any(|(subject, sync, _)| (*subject, *sync) == (cell.subject.as_str(), cell.sync.as_str())) {
            out.push((&cell.subject, &cell.sync, cell.role));
        }
    }
    let order: Vec<&str> = out.iter().map(|(subject, ..)| *subject).collect();
    out.sort_by_key(|(subject, sync, role)| (*role, order.iter().position(|s| s == subject), words::policy_rank(sync)));
    out
}

/// All kill cells of (subject, sync) in one: the worst verdict, sums and maxima.
pub(super) fn kills(results: &Results, subject: &str, sync: &str) -> Option<(Verdict, Crash)> {
    let here = |cell: &&Cell| cell.kind == CellKind::Kill && cell.subject == subject && cell.sync == sync;
    let worst = results.cells.iter().filter(here).map(|cell| cell.verdict).max()?;
    let mut sum = Crash::default();
    for crash in results.cells.iter().filter(here).filter_map(|cell| cell.crash.as_ref()) {
        sum.cases = sum.cases.saturating_add(crash.cases);
        sum.acked = sum.acked.saturating_add(crash.acked);
        sum.promised = sum.promised.saturating_add(crash.promised);
        sum.lost_promised = sum.lost_promised.saturating_add(crash.lost_promised);
        sum.lost_acked = sum.lost_acked.saturating_add(crash.lost_acked);
        sum.lost_acked_max = sum.lost_acked_max.max(crash.lost_acked_max);
        sum.loss_window_ms_max = sum.loss_window_ms_max.max(crash.loss_window_ms_max);
        sum.corrupt = sum.corrupt.saturating_add(crash.corrupt);
        sum.unopenable = sum.unopenable.saturating_add(crash.unopenable);
        sum.hung = sum.hung.saturating_add(crash.hung);
    }
    Some((worst, sum))
}

/// The worst verdict of (subject, sync) over every kind of crash; a cell that could not be tried hides none that was judged.
fn worst(results: &Results, subject: &str, sync: &str) -> Option<Verdict> {
    let here = |cell: &&Cell| cell.kind != CellKind::Bench && cell.subject == subject && cell.sync == sync;
    results.cells.iter().filter(here).map(|cell| cell.verdict).max_by_key(|verdict| (*verdict != Verdict::NotMeasured, *verdict))
}

/// Throughput with the null subject's time per operation taken off: operations per second.
pub(super) fn net_throughput(phase: &Phase, null: Option<&Phase>) -> Option<f64> {
    let net = ns_per_op(phase)? - null.and_then(ns_per_op).unwrap_or(0.0);
    (net > 0.0).then(|| 1e9 / net)
}

/// Wall time of one operation.
pub(super) fn ns_per_op(phase: &Phase) -> Option<f64> {
    (phase.operations > 0 && phase.duration_ns > 0).then(|| phase.duration_ns as f64 / phase.operations as f64)
}

/// The phase's throughput: median, least and most of the repetitions.
pub(super) fn spread(phase: &Phase) -> Option<(f64, f64, f64)> {
    let sane = |rate: &f64| rate.is_finite() && *rate > 0.0;
    let median = Some(phase.throughput_per_s).filter(sane)?;
    let samples = phase.throughput_samples.iter().copied().filter(sane);
    Some((median, samples.clone().fold(median, f64::min), samples.fold(median, f64::max)))
}

/// Syncs the store called for, for each acknowledged write.
pub(super) fn syncs_per_write(counters: &Counters) -> Option<f64> {
    (counters.writes > 0).then(|| counters.syncs as f64 / counters.writes as f64)
}

/// The cell's files at the end of the phase, or at the last one that looked.
pub(super) fn space<'a>(bench: &'a Bench, phase: &'a Phase) -> Option<&'a Space> {
    phase.space.as_ref().or_else(|| bench.phases.iter().rev().find_map(|phase| phase.space.as_ref()))
}

fn promise(results: &Results) -> Section {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rows = Vec::new();
    for (subject, sync, role) in pairs(results) {
        let verdict = worst(results, subject, sync).map_or(Value::Missing, Value::Verdict);
        let crash = kills(results, subject, sync).map(|(_, crash)| crash).filter(|crash| crash.cases > 0);
        let cost = cost(results, subject, sync);
        let latency = |pick: fn(&Percentiles) -> Option<u64>| {
            cost.and_then(|(_, _, op)| pick(&op.service)).map_or(Value::Missing, |ns| figure(time(ns)))
        };
        let of_crash = |pick: fn(&Crash) -> u64| crash.as_ref().map_or(Value::Missing, |crash| figure(words::count(pick(crash))));
        let files = cost.and_then(|(cell, phase, _)| cell.bench.as_ref().and_then(|bench| space(bench, phase)));
        rows.push(Row {
            aside: role != Role::Store,
            values: vec![
                Value::Text(named(subject, role)),
                text(sync),
                verdict,
                of_crash(|crash| crash.cases),
                of_crash(|crash| crash.lost_promised),
                of_crash(|crash| crash.lost_acked_max),
                latency(|p| Some(p.p50)),
                latency(|p| p.p99),
                maybe(cost.and_then(|(_, phase, _)| spread(phase)), |(median, ..)| words::rate(median)),
                maybe(cost.and_then(|(_, phase, _)| syncs_per_write(&phase.counters)), words::figure),
                maybe(files, |space| size(space.apparent)),
            ],
        });
        if let Some((cell, phase, _)) = cost {
            let place = format!(
                "{} ({} level, phase {})",
                place(&cell.scenario, &cell.group),
                words::line(&cell.level),
                words::line(&phase.name)
            );
            places.entry(place).or_default().insert(words::line(subject));
        }
    }
    let mut notes = vec!["Verdict: the worst of all crashes and faults that were judged. Kills: SIGKILL of the writing process, to which the next two columns belong. Promised lost: operations whose survival this policy promised. Acked lost: the most acknowledged operations that one kill took. p50 and p99: from the call of a write to its acknowledgement.".to_owned()];
    for (place, subjects) in places {
        notes.push(format!("Speed and size from {place}: {}.", subjects.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let heads =
        ["store", "sync", "verdict", "kills", "promised lost", "acked lost", "p50", "p99", "throughput", "syncs/write", "file"];
    let table = Table { columns: columns(&heads), rows, notes, commands: vec![words::command(results)], ..Table::default() };
    let mut tables = some(table);
    tables.extend(crash::matrices(results));
    tables.extend(some(crash::loss_window(results)));
    Section {
        id: "promise",
        title: "What each policy costs and what a crash takes",
        intro: "One row for each store and sync policy: the verdict of its crashes, and what an acknowledged write costs.",
        tables,
        points: words::score(results).into_iter().chain(words::headline(results).canaries).collect(),
    }
}

fn ttfp(results: &Results) -> Section {
    let mut tables = Vec::new();
    for (scenario, group) in groups(results) {
        let found = benches(results, scenario, group)
            .flat_map(|(cell, bench)| bench.phases.iter().filter_map(move |phase| phase.ttfp.as_ref().map(|ttfp| (cell, ttfp))));
        let found: Vec<(&Cell, &Ttfp)> = found.collect();
        let mut notes = vec!["Time to first payment (TTFP): from the wish to open a channel to its first payment. The model check puts serial syncs × sync latency beside TTFP minus TTFP under never.".to_owned()];
        for model in found.iter().filter_map(|(_, ttfp)| ttfp.model.as_ref()).map(model_note) {
            if !notes.contains(&model) {
                notes.push(model);
            }
        }
        let rows = found.iter().map(|(cell, ttfp)| {
            let vs = ttfp.published_ns.filter(|p| *p > 0 && ttfp.mean > 0.0).map(|p| ttfp.mean / p as f64);
            let check =
                ttfp.check.as_ref().map(|check| format!("{} / {}", words::ns(check.expected_ns), words::ns(check.observed_ns)));
            let timing = |ns: u64| if ttfp.count > 0 { figure(time(ns)) } else { Value::Missing };
            row(
                cell,
                vec![
                    Value::Text(named(&cell.subject, cell.role)),
                    text(&cell.sync),
                    text(if ttfp.model.is_some() { "simulated" } else { "measured" }),
                    figure(words::count(ttfp.count)),
                    timing(ttfp.p50),
                    maybe(ttfp.p99, time),
                    if ttfp.count > 0 { figure(words::ns(ttfp.mean)) } else { Value::Missing },
                    maybe(ttfp.published_ns, time),
                    maybe(vs, words::ratio),
                    figure(words::figure(ttfp.syncs_on_path)),
                    figure(words::percent(ttfp.hub_busy)),
                    timing(ttfp.hub_queue_p99),
                    maybe(check, |check| check),
                ],
            )
        });
        let heads = [
            "store",
            "sync",
            "how",
            "channels",
            "p50",
            "p99",
            "mean",
            "published",
            "vs published",
            "syncs on path",
            "hub busy",
            "hub queue p99",
            "check expected / seen",
        ];
        let commands = commands_of(results, found.iter().map(|(cell, _)| *cell));
        tables.extend(some(Table {
            title: place(scenario, group),
            columns: columns(&heads),
            rows: rows.collect(),
            notes,
            commands,
        }));
    }
    Section {
        id: "ttfp",
        title: "Time to first payment",
        intro: "How long a payer waits until the first payment through a newly opened channel.",
        tables,
        points: Vec::new(),
    }
}

fn model_note(model: &Model) -> String {
    let fitted = if model.fitted.is_empty() {
        "nothing fitted".to_owned()
    } else {
        format!("fitted: {}", words::line(&model.fitted.join(", ")))
    };
    let (cpu, sync, net) = (time(model.cpu_per_message_ns), time(model.sync_latency_ns), time(model.message_latency_ns));
    format!("Simulated with {cpu} processor time for each message, {sync} for a sync, {net} on the network; {fitted}.")
}

fn money(results: &Results) -> Section {
    let cells = results.cells.iter().filter_map(|cell| cell.crash.as_ref()?.money.as_ref().map(|money| (cell, money)));
    let rows = cells.clone().map(|(cell, money)| {
        let states: Vec<String> = money
            .half_states
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(name, n)| format!("{} {}", words::line(name), words::count(*n)))
            .collect();
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                text(words::kind(cell.kind)),
                figure(words::count(money.payments_acked)),
                figure(words::count(money.payments_lost)),
                figure(words::count(money.amount_lost)),
                figure(words::count(money.vouchers_unredeemable)),
                Value::Text(if states.is_empty() { "none".to_owned() } else { states.join(", ") }),
            ],
        )
    });
    let heads = [
        "store",
        "sync",
        "crash",
        "payments acked",
        "payments lost",
        "wei lost",
        "vouchers unredeemable",
        "channels in a half state",
    ];
    let notes = vec!["Payments lost: acknowledged to their payers, but the hub no longer has the voucher. Half states are named after the crash points c1 to c8.".to_owned()];
    let table = Table {
        columns: columns(&heads),
        rows: rows.collect(),
        notes,
        commands: commands_of(results, cells.map(|(cell, _)| cell)),
        ..Table::default()
    };
    Section {
        id: "money",
        title: "What the losses mean in money",
        intro: "The same crashes, counted in payments and wei.",
        tables: some(table),
        points: Vec::new(),
    }
}

fn speed(results: &Results) -> Section {
    let mut tables = Vec::new();
    for (scenario, group) in groups(results) {
        let cells = benches(results, scenario, group);
        let names = phases(cells.clone());
        for name in &names {
            let title = if names.len() > 1 {
                format!("{}: {}", place(scenario, group), words::line(name))
            } else {
                place(scenario, group)
            };
            if paced(results, scenario, group, name) {
                continue;
            }
            tables.extend(some(speed_of(results, scenario, group, name, title.clone())));
            tables.extend(by_operation(results, scenario, group, name, format!("{title}, by operation")));
        }
        if names.len() > 1 {
            tables.extend(some(whole_of(results, scenario, group)));
        }
    }
    Section {
        id: "speed",
        title: "Speed, size and memory",
        intro: "Measured on the real disk, fastest first; the same operations for every subject of a table.",
        tables,
        points: Vec::new(),
    }
}

fn speed_of(results: &Results, scenario: &str, group: &str, name: &str, title: String) -> Table {
    let found: Vec<(&Cell, &Bench, &Phase)> =
        benches(results, scenario, group).filter_map(|(cell, bench)| Some((cell, bench, phase(bench, name)?))).collect();
    let null_of = |sync: &str| {
        let nulls = || found.iter().filter(|(cell, ..)| cell.role == Role::Null);
        nulls().find(|(cell, ..)| cell.sync == sync).or_else(|| nulls().next()).map(|(_, _, phase)| *phase)
    };
    let net = |cell: &Cell, phase: &Phase| net_throughput(phase, null_of(&cell.sync));
    let best = found
        .iter()
        .filter(|(cell, ..)| cell.role == Role::Baseline)
        .filter_map(|(cell, _, phase)| net(cell, phase))
        .fold(None, |best: Option<f64>, rate| Some(best.map_or(rate, |b| b.max(rate))));
    let mut rows: Vec<(u8, f64, Row)> = Vec::new();
    for (cell, bench, phase) in &found {
        let rank = match cell.role {
            Role::Store | Role::Baseline => 0,
            Role::Canary => 1,
            Role::Null => 2,
        };
        let ratio = if rank == 0 { best.and_then(|best| Some(net(cell, phase)? / best)) } else { None };
        let op = main_op(phase);
        let latency = |pick: fn(&Percentiles) -> Option<u64>| maybe(op.and_then(|(_, op)| pick(&op.service)), time);
        let median = spread(phase).map_or(0.0, |(median, ..)| median);
        let values = vec![
            Value::Text(named(&cell.subject, cell.role)),
            text(&cell.sync),
            text(&cell.level),
            maybe(spread(phase), |(median, ..)| words::rate(median)),
            maybe(spread(phase).filter(|_| phase.throughput_samples.len() > 1), |(_, least, most)| words::rates(least, most)),
            maybe(ratio, words::ratio),
            maybe(ns_per_op(phase), words::ns),
            latency(|p| Some(p.p50)),
            latency(|p| p.p99),
            latency(|p| p.p99_9),
            maybe(syncs_per_write(&phase.counters), words::figure),
            maybe(positive(phase.counters.device_bytes), size),
            maybe(space(bench, phase), |space| size(space.apparent)),
            maybe(positive(phase.counters.rss_peak), size),
        ];
        rows.push((rank, median, Row { aside: cell.role != Role::Store, values }));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut notes = Vec::new();
    if best.is_some() {
        notes.push(match null_of("") {
            Some(_) => "× base: net throughput of the row over net throughput of the fastest baseline here; net means that the null subject's time per operation (the harness's own) was taken off both.".to_owned(),
            None => "× base: throughput of the row over throughput of the fastest baseline here; no null subject ran, so the harness's own time is in both.".to_owned(),
        });
    }
    let ops: BTreeSet<&str> = found.iter().filter_map(|(_, _, phase)| main_op(phase)).map(|(name, _)| name).collect();
    let shape: BTreeSet<(u64, u64)> = found.iter().map(|(_, bench, _)| (bench.repetitions, bench.threads)).collect();
    let shape: Vec<String> = shape
        .into_iter()
        .map(|(n, threads)| format!("{} with {}", words::counted(n, "repetition"), words::counted(threads, "thread")))
        .collect();
    let ops: Vec<String> = ops.into_iter().map(words::line).collect();
    let latencies =
        if ops.is_empty() { String::new() } else { format!("; latencies of {}, from call to return", ops.join(", ")) };
    notes.push(format!("Median of {}{latencies}.", shape.join(", ")));
    let heads = [
        "subject",
        "sync",
        "level",
        "throughput",
        "least..most",
        "× base",
        "time/op",
        "p50",
        "p99",
        "p99.9",
        "syncs/write",
        "to device",
        "file",
        "peak RSS",
    ];
    let commands = commands_of(results, found.iter().map(|(cell, ..)| *cell));
    Table { title, columns: columns(&heads), rows: rows.into_iter().map(|(.., row)| row).collect(), notes, commands }
}

/// What each process used, over all phases: the least first.
fn whole_of(results: &Results, scenario: &str, group: &str) -> Table {
    let mut found: Vec<(&Cell, &Whole)> =
        benches(results, scenario, group).filter_map(|(cell, bench)| Some((cell, bench.whole.as_ref()?))).collect();
    found.sort_by_key(|(cell, whole)| (cell.role != Role::Store, whole.device_bytes));
    let rows = found.iter().map(|(cell, whole)| {
        let values = vec![
            Value::Text(named(&cell.subject, cell.role)),
            text(&cell.sync),
            text(&cell.level),
            maybe(positive(whole.device_bytes), size),
            figure(time(whole.cpu_ns)),
            maybe(positive(whole.rss_peak), size),
        ];
        row(cell, values)
    });
    let note = "From the start of a process to its end, medians. To the device: less what was removed before it was sent, which may have been written phases before.";
    Table {
        title: format!("{}: all phases together", place(scenario, group)),
        columns: columns(&["subject", "sync", "level", "to device", "processor", "peak RSS"]),
        rows: rows.collect(),
        notes: vec![note.to_owned()],
        commands: commands_of(results, found.iter().map(|(cell, _)| *cell)),
    }
}

/// One row for each operation, where a phase mixes several or has a rate to keep.
fn by_operation(results: &Results, scenario: &str, group: &str, name: &str, title: String) -> Option<Table> {
    let found: Vec<(&Cell, &Phase)> =
        benches(results, scenario, group).filter_map(|(cell, bench)| Some((cell, phase(bench, name)?))).collect();
    let needed = |phase: &Phase| phase.ops.len() > 1 || phase.ops.values().any(|op| op.response.is_some() || op.errors > 0);
    if !found.iter().any(|(_, phase)| needed(phase)) {
        return None;
    }
    let mut rows = Vec::new();
    for (cell, phase) in &found {
        for (name, op) in &phase.ops {
            let of = |p: Option<&Percentiles>, pick: fn(&Percentiles) -> Option<u64>| {
                maybe(p.filter(|_| op.count > 0).and_then(pick), time)
            };
            rows.push(row(
                cell,
                vec![
                    Value::Text(named(&cell.subject, cell.role)),
                    text(&cell.sync),
                    text(name),
                    figure(words::count(op.count)),
                    figure(words::count(op.errors)),
                    of(Some(&op.service), |p| Some(p.p50)),
                    of(Some(&op.service), |p| p.p99),
                    of(Some(&op.service), |p| Some(p.max)),
                    of(op.response.as_ref(), |p| Some(p.p50)),
                    of(op.response.as_ref(), |p| p.p99),
                    of(op.response.as_ref(), |p| Some(p.max)),
                    if is_write(name) {
                        maybe(syncs_per_write(&phase.counters), words::figure)
                    } else {
                        Value::Text("–".to_owned())
                    },
                ],
            ));
        }
    }
    let heads = [
        "subject",
        "sync",
        "operation",
        "count",
        "errors",
        "service p50",
        "service p99",
        "service max",
        "response p50",
        "response p99",
        "response max",
        "syncs/write",
    ];
    let notes = vec!["Service: from call to return. Response: from the moment the call was due, so that waiting behind a slow call counts; n/a where the workload keeps no rate.".to_owned()];
    let commands = commands_of(results, found.iter().map(|(cell, _)| *cell));
    Some(Table { title, columns: columns(&heads), rows, notes, commands })
}

fn own_cost(results: &Results) -> Section {
    let nulls = results.cells.iter().filter(|cell| cell.role == Role::Null);
    let mut rows = Vec::new();
    for cell in nulls.clone() {
        for phase in
            cell.bench.iter().flat_map(|bench| &bench.phases).filter(|phase| phase.operations > 0 && !phase.ops.is_empty())
        {
            let op = main_op(phase).map(|(_, op)| op);
            let cpu = phase.counters.cpu_user_ns.saturating_add(phase.counters.cpu_system_ns);
            let cpu = positive(cpu).map(|cpu| cpu as f64 / phase.operations as f64);
            let drawn = cell.bench.as_ref().and_then(|bench| self::phase(bench, "generate")).filter(|p| p.operations > 0);
            let drawn = drawn.map(|p| (p.counters.cpu_user_ns + p.counters.cpu_system_ns) as f64 / p.operations as f64);
            let calls = phase.counters.calls.max(phase.operations) as f64 / phase.operations as f64;
            let own = cpu.zip(drawn).map(|(cpu, drawn)| (cpu - drawn).max(0.0) / calls);
            rows.push(Row {
                aside: false,
                values: vec![
                    text(&cell.subject),
                    text(&cell.sync),
                    Value::Text(place(&cell.scenario, &cell.group)),
                    text(&phase.name),
                    maybe(ns_per_op(phase), words::ns),
                    maybe(cpu, words::ns),
                    maybe(drawn, words::ns),
                    maybe(own, words::ns),
                    maybe(op, |op| time(op.service.p50)),
                    maybe(op.and_then(|op| op.service.p99), time),
                ],
            });
        }
    }
    let heads = ["subject", "sync", "scenario", "phase", "time/op", "cpu/op", "generating", "own cost/call", "p50", "p99"];
    let notes = vec![
        "The null subject does nothing: what is left is the harness itself, present in every figure above.".to_owned(),
        "Own cost: measuring and recording, as processor time for each call of the null subject, less that of generating it."
            .to_owned(),
    ];
    let table = Table { columns: columns(&heads), rows, notes, commands: commands_of(results, nulls), ..Table::default() };
    Section {
        id: "own-cost",
        title: "What the harness itself costs",
        intro: "The clock, the generator and the call, measured with a store that does nothing.",
        tables: some(table),
        points: Vec::new(),
    }
}

/// Warnings, cells without figures, and what the run says nothing about.
fn gaps(results: &Results) -> Section {
    let warnings = results.warnings.iter().map(|warning| {
        row_of(vec![text(&warning.code), warning.cell.as_deref().map_or(Value::Text("–".to_owned()), text), text(&warning.text)])
    });
    let mut warned = Table {
        title: "Warnings".to_owned(),
        columns: columns(&["code", "cell", "warning"]),
        rows: warnings.collect(),
        ..Table::default()
    };
    if !warned.rows.is_empty() {
        warned.notes.push("harness show CODE explains a warning.".to_owned());
    }
    let bare = |cell: &&Cell| {
        cell.verdict == Verdict::NotMeasured || cell.reason.is_some() || (cell.bench.is_none() && cell.crash.is_none())
    };
    let rows = results.cells.iter().filter(bare).map(|cell| {
        let reason = cell.reason.as_deref().map_or(Value::Missing, text);
        row(
            cell,
            vec![
                Value::Text(named(&cell.subject, cell.role)),
                text(&cell.sync),
                Value::Text(place(&cell.scenario, &cell.group)),
                text(words::kind(cell.kind)),
                Value::Verdict(cell.verdict),
                reason,
            ],
        )
    });
    let reasons = Table {
        title: "Cells with a remark".to_owned(),
        columns: columns(&["store", "sync", "scenario", "kind", "verdict", "reason"]),
        rows: rows.collect(),
        ..Table::default()
    };
    let tables = some(warned).into_iter().chain(some(reasons)).collect();
    let untested = results.not_tested.iter().filter(|sentence| !refuted(results, sentence));
    let points = untested.map(|sentence| format!("Not tested: {}", words::line(sentence))).collect();
    Section {
        id: "gaps",
        title: "Warnings, and what was not tested",
        intro: "Read these before you rely on a figure.",
        tables,
        points,
    }
}

/// Whether this result judged what the sentence says was not tested: each scenario speaks for itself alone,
/// and the cells of another may stand beside it.
fn refuted(results: &Results, sentence: &str) -> bool {
    let judged = |kind: CellKind| {
        let tried = |cell: &Cell| cell.crash.as_ref().is_some_and(|crash| crash.cases > 0);
        results.cells.iter().any(|cell| cell.kind == kind && cell.verdict != Verdict::NotMeasured && tried(cell))
    };
    let (all, any): (&[CellKind], bool) = match sentence {
        s if s.starts_with("Power loss") => (&[CellKind::Power], false),
        s if s.starts_with("Failing devices, full disks and flipped bits") => (&[CellKind::Error, CellKind::Rot], false),
        s if s.starts_with("Crashes of any kind") => (&[CellKind::Kill, CellKind::Power, CellKind::Error, CellKind::Rot], true),
        _ => return false,
    };
    if any { all.iter().any(|kind| judged(*kind)) } else { all.iter().all(|kind| judged(*kind)) }
}

/// The run's command, and one cell's as the way to repeat a part.
pub(super) fn commands_of<'a>(results: &Results, cells: impl Iterator<Item = &'a Cell>) -> Vec<String> {
    let mut all = vec![words::command(results)];
    all.extend(cells.map(|cell| words::line(&cell.reproduce)).find(|command| !command.is_empty()));
    all
}

/// Whether an operation changes the store.
fn is_write(name: &str) -> bool {
    !matches!(
        name,
        "get"
            | "read"
            | "scan"
            | "list"
            | "peek"
            | "iterate"
            | "iter"
            | "contains"
            | "count"
            | "len"
            | "load"
            | "open"
            | "close"
            | "dump"
    )
}

pub(super) fn named(subject: &str, role: Role) -> String {
    let subject = words::line(subject);
    match role {
        Role::Store => subject,
        Role::Baseline => format!("{subject} (baseline)"),
        Role::Null if subject == "null" => subject,
        Role::Null => format!("{subject} (null)"),
        Role::Canary => format!("{subject} (canary)"),
    }
}

/// A loss window; zero means that nothing was lost.
pub(super) fn window(ms: f64) -> String {
    if ms == 0.0 { "none".to_owned() } else { words::ns(ms * 1e6) }
}

/// Names that hold words; all other columns hold figures and are aligned right.
pub(super) fn columns(names: &[&str]) -> Vec<Column> {
    const WORDS: &[&str] = &[
        "store",
        "subject",
        "sync",
        "level",
        "verdict",
        "how",
        "scenario",
        "crash",
        "phase",
        "operation",
        "cell",
        "command",
        "code",
        "warning",
        "kind",
        "reason",
        "channels in a half state",
        "canary",
        "fault",
        "fault model",
        "contract",
        "promised at most",
        "ended by",
        "convicted by",
        "what happened",
    ];
    names.iter().map(|name| Column { name: (*name).to_owned(), figures: !WORDS.contains(name) }).collect()
}

pub(super) fn some(table: Table) -> Vec<Table> {
    if table.rows.is_empty() { Vec::new() } else { vec![table] }
}

pub(super) fn row(cell: &Cell, values: Vec<Value>) -> Row {
    Row { aside: cell.role != Role::Store, values }
}

fn row_of(values: Vec<Value>) -> Row {
    Row { aside: false, values }
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(words::line(text))
}

pub(super) fn figure(text: String) -> Value {
    if text == words::MISSING { Value::Missing } else { Value::Figure(text) }
}

pub(super) fn maybe<T>(value: Option<T>, show: impl Fn(T) -> String) -> Value {
    value.map_or(Value::Missing, |value| figure(show(value)))
}

pub(super) fn positive(n: u64) -> Option<u64> {
    (n > 0).then_some(n)
}

pub(super) fn time(ns: u64) -> String {
    words::ns(ns as f64)
}

fn size(bytes: u64) -> String {
    words::bytes(bytes as f64)
}
