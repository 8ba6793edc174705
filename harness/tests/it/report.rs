//! Reports: whatever a run found, every format shows it, and nothing in it can break a page.

use harness::report::{self, words};
use harness::result::{
    Aimed, Bench, Calibration, Cell, CellKind, Counters, Crash, Criterion, Explanation, FaultCounts, Finding, Host, Loss, Metric,
    Model, ModelCheck, ModelCounts, Money, OpStats, Percentiles, Phase, Point, Power, Projection, ProjectionUnit, Results, Role,
    Run, RunStatus, SCHEMA_VERSION, ScenarioNote, Space, Spread, Storage, Ttfp, Verdict, Warning, Whole,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const POLICIES: [&str; 4] = ["never", "manual", "interval:100ms", "always"];

/// One of everything a run can find.
fn sample() -> Results {
    let mut cells = Vec::new();
    for (i, sync) in POLICIES.into_iter().enumerate() {
        let slow = [1.0, 1.05, 1.4, 120.0][i];
        for (subject, factor) in [("typed", 1.0), ("lsm", 1.9)] {
            cells.push(bench_cell(subject, Role::Store, sync, 2_900.0 * slow * factor, [0.0, 0.0, 0.002, 1.0][i]));
        }
        cells.push(ttfp_cell(
            sync,
            [84_100_000, 84_900_000, 88_000_000, 231_000_000][i],
            [Some(84_100_000), None, Some(86_500_000), Some(247_000_000)][i],
            false,
        ));
        cells.push(ttfp_cell(sync, [83_000_000, 83_500_000, 86_000_000, 240_000_000][i], None, true));
        for (subject, lost) in [("typed", [940, 941, 88, 0][i]), ("lsm", [1220, 1000, 61, 0][i])] {
            cells.push(kill_cell(subject, Role::Store, sync, Verdict::Survived, lost));
        }
    }
    cells.push(bench_cell("hashmap", Role::Baseline, "never", 310.0, 0.0));
    cells.push(bench_cell("sharded-map", Role::Baseline, "never", 140.0, 0.0));
    let mut null = bench_cell("null", Role::Null, "never", 48.0, 0.0);
    if let Some(phase) = null.bench.as_mut().and_then(|bench| bench.phases.last_mut()) {
        phase.space = None;
    }
    cells.push(null);
    let mut canary = kill_cell("ack-early", Role::Canary, "always", Verdict::Lost, 37);
    if let Some(crash) = canary.crash.as_mut() {
        crash.lost_promised = 412;
        crash.findings.push(finding("c-7", Verdict::Lost, "acknowledged before it wrote"));
    }
    cells.push(canary);
    let mut power = kill_cell("typed", Role::Store, "always", Verdict::NotMeasured, 0);
    power.kind = CellKind::Power;
    power.reason = Some("no FUSE here".to_owned());
    power.crash = None;
    cells.push(power);
    let mut rot = kill_cell("lsm", Role::Store, "always", Verdict::Survived, 0);
    rot.kind = CellKind::Rot;
    cells.push(rot);
    let mut results = empty();
    results.run.cells_planned = cells.len() as u64;
    results.cells = cells;
    results.not_tested =
        vec!["Power loss: simulated nowhere in this run.".to_owned(), "Disks other than the one named above.".to_owned()];
    results.warnings = vec![
        Warning {
            code: "W003".to_owned(),
            cell: Some("put-small//lsm/always/bench".to_owned()),
            text: "Repetitions differ by more than 10 %.".to_owned(),
        },
        Warning { code: "W010".to_owned(), cell: None, text: "The processor changed its clock during the run.".to_owned() },
    ];
    results
}

/// The same, ended early, with promises broken and a canary acquitted.
fn bad_sample() -> Results {
    let mut results = sample();
    results.run.status = RunStatus::Interrupted;
    results.run.cells_planned += 9;
    let verdicts = [Verdict::Lost, Verdict::Corrupt, Verdict::Unopenable, Verdict::Hung];
    let kills = results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Kill && cell.role == Role::Store);
    for (cell, verdict) in kills.zip(verdicts) {
        cell.verdict = verdict;
        if let Some(crash) = cell.crash.as_mut() {
            crash.lost_promised = 3;
            crash.findings.push(finding("f-1", verdict, "key k17 promised at op 4,211 is missing"));
        }
    }
    results
}

/// Power cut under every policy, calls that fail and bytes that rot, beside all of [`sample`].
fn power_sample() -> Results {
    let mut results = sample();
    results.cells.retain(|cell| !matches!(cell.kind, CellKind::Power | CellKind::Rot));
    for (i, sync) in POLICIES.into_iter().enumerate() {
        let mut cell =
            power_cell("typed", Role::Store, sync, [9_870.0, 9_640.0, 104.0, 0.0][i], [None, None, Some(110.0), None][i]);
        if sync == "always" {
            let power = power_of(&mut cell);
            power.redundant_syncs = vec!["sync of directory `db` after call 3".to_owned()];
        }
        results.cells.push(cell);
        let faults = ["EIO on write", "ENOSPC on write", "short write"].map(|name| (name.to_owned(), faulty(12, 0)));
        results.cells.push(fault_cell("typed", CellKind::Error, sync, faults.into()));
        results.cells.push(fault_cell(
            "typed",
            CellKind::Rot,
            sync,
            BTreeMap::from([("flipped byte".to_owned(), faulty(40, 0))]),
        ));
    }
    let mut canary = power_cell("skip-sync", Role::Canary, "always", 31.0, None);
    canary.verdict = Verdict::Lost;
    if let Some(crash) = canary.crash.as_mut() {
        crash.lost_promised = 9;
        let found = finding("put-small//skip-sync/always/power#1", Verdict::Lost, "key k3 promised at op 17 is missing");
        crash.findings.push(Finding {
            profile: "ext4-ordered".to_owned(),
            models: vec!["btrfs".to_owned(), "ext4-ordered".to_owned()],
            explanation: Some(Explanation {
                lost_effects: vec!["write of 64 bytes at 4096 of `wal/1`".to_owned()],
                operations: vec!["put k3".to_owned(), "put k4".to_owned()],
                barrier: Some("sync file `wal/1` after call 17, before call 21".to_owned()),
                verified: true,
            }),
            ..found
        });
    }
    results.cells.push(canary);
    results.run.cells_planned = results.cells.len() as u64;
    results
}

/// A store that lost what its policy promised, to failing calls and to power cuts.
fn bad_power_sample() -> Results {
    let mut results = power_sample();
    for cell in results.cells.iter_mut().filter(|cell| cell.role == Role::Store && cell.sync == "always") {
        let Some(crash) = cell.crash.as_mut() else { continue };
        match (cell.kind, &mut crash.power) {
            (CellKind::Power, Some(power)) => {
                cell.verdict = Verdict::Corrupt;
                let xfs = power.by_model.get_mut("xfs").unwrap();
                (xfs.survived, xfs.lost, xfs.corrupt) = (xfs.survived - 5, 3, 2);
                let found = finding("put-small//typed/always/power#1", Verdict::Corrupt, "a value that was never written");
                crash.findings.push(Finding { profile: "xfs".to_owned(), models: vec!["xfs".to_owned()], ..found });
                (crash.corrupt, crash.lost_promised) = (2, 3);
            }
            (CellKind::Error, _) => {
                cell.verdict = Verdict::Lost;
                crash.faults.insert("EIO on sync".to_owned(), faulty(12, 4));
            }
            _ => {}
        }
    }
    results
}

/// A second store beside the first under every policy, in one chart with it.
fn crowded_sample() -> Results {
    let mut results = power_sample();
    for (i, sync) in POLICIES.into_iter().enumerate() {
        results.cells.push(power_cell(
            "lsm",
            Role::Store,
            sync,
            [9_990.0, 9_700.0, 131.0, 0.0][i],
            [None, None, Some(110.0), None][i],
        ));
    }
    results
}

fn power_of(cell: &mut Cell) -> &mut Power {
    cell.crash.as_mut().and_then(|crash| crash.power.as_mut()).unwrap()
}

fn faulty(cases: u64, lost: u64) -> FaultCounts {
    FaultCounts { cases, reported: cases - lost, harmless: 0, cut: 1, lost, ..FaultCounts::default() }
}

fn fault_cell(subject: &str, kind: CellKind, sync: &str, faults: BTreeMap<String, FaultCounts>) -> Cell {
    let mut cell = cell("put-small", subject, Role::Store, sync, kind);
    let cases = faults.values().map(|fault| fault.cases).sum();
    cell.crash = Some(Crash { cases, acked: 900, promised: 300, faults, ..Crash::default() });
    cell
}

/// A lying disk takes something under every policy, and nobody promised otherwise.
fn power_cell(subject: &str, role: Role, sync: &str, worst_ms: f64, bound_ms: Option<f64>) -> Cell {
    let mut cell = cell("put-small", subject, role, sync, CellKind::Power);
    let spread = |share: f64| Some(Spread { p50: worst_ms * share * 0.5, p99: worst_ms * share * 0.98, max: worst_ms * share });
    let counts = |share: f64, taken: u64| ModelCounts {
        covered: taken == 0,
        states_tried: 900,
        states_distinct: 400,
        by_strategy: BTreeMap::from([("keep-none".to_owned(), 300), ("torn-last".to_owned(), 100)]),
        survived: 400 - taken,
        lost: taken,
        lost_promised: taken.min(2),
        lost_acked: spread(share),
        loss_window_ms: spread(share),
        best_loss_window_ms: spread(share * 0.25),
        ..ModelCounts::default()
    };
    let by_model = [("process", 0.0, 0), ("ext4-ordered", 0.9, 0), ("xfs", 0.95, 0), ("posix", 1.0, 0), ("torn", 1.0, 0)];
    let by_model = by_model.into_iter().chain([("lying-disk", 40.0, 77)]);
    let unbounded = matches!(sync, "never" | "manual");
    let power = Power {
        traces: 3,
        calls: 4_211,
        crash_points: 1_870,
        states_tried: 5_400,
        states_distinct: 2_400,
        by_depth: vec![2_100, 300],
        left_out: 17,
        ended_by: "count".to_owned(),
        states_per_second: 9_812.0,
        opened_per_second: 812.0,
        by_model: by_model.map(|(name, share, taken)| (name.to_owned(), counts(share, taken))).collect(),
        by_strategy: BTreeMap::from([("keep-none".to_owned(), 1_800), ("torn-last".to_owned(), 420), ("random".to_owned(), 180)]),
        loss: Some(Loss {
            rate_per_s: 1_000.0,
            sync_latency_ns: 2_000_000,
            duration_ns: 10_000_000_000,
            acked: 10_012,
            moments: 250,
            bound_ms,
            unbounded,
            worst_ops: worst_ms as u64,
            worst_ms,
        }),
        audit: Vec::new(),
        redundant_syncs: Vec::new(),
    };
    cell.crash = Some(Crash {
        cases: power.states_tried,
        acked: 10_012,
        promised: 9_100,
        lost_acked_max: worst_ms as u64,
        loss_window_ms_max: worst_ms,
        power: Some(power),
        ..Crash::default()
    });
    cell
}

fn empty() -> Results {
    Results {
        schema_version: SCHEMA_VERSION,
        run: Run {
            id: "quick-0001".to_owned(),
            status: RunStatus::Complete,
            seed: 42,
            argv: ["run", "quick", "--subject", "typed,lsm", "--out", "my reports"].map(str::to_owned).into(),
            version: "0.1.0".to_owned(),
            profile: "quick".to_owned(),
            duration_ns: 118_400_000_000,
            cells_planned: 0,
            scenarios: vec![
                ScenarioNote {
                    name: "put-small".to_owned(),
                    title: "What does a small acknowledged write cost?".to_owned(),
                    source: "put-small".to_owned(),
                },
                ScenarioNote {
                    name: "ttfp".to_owned(),
                    title: "How long does a payer wait for the first payment?".to_owned(),
                    source: "ttfp.toml".to_owned(),
                },
            ],
        },
        host: Host {
            os: "Linux".to_owned(),
            kernel: "6.18.1".to_owned(),
            cpu: "Example 9000 CPU @ 3.2 GHz".to_owned(),
            cores: 8,
            memory_bytes: 32 << 30,
            rustc: "rustc 1.95.0".to_owned(),
        },
        storage: Storage {
            filesystem: "ext4".to_owned(),
            mount: "rw,relatime".to_owned(),
            calibration: Calibration { fdatasync_4k_p50_ns: 348_000, fdatasync_4k: percentiles(348_000.0, 4.0) },
        },
        cells: Vec::new(),
        not_tested: Vec::new(),
        warnings: Vec::new(),
    }
}

fn cell(scenario: &str, subject: &str, role: Role, sync: &str, kind: CellKind) -> Cell {
    let id = format!("{scenario}//{subject}/{sync}/{}", words::kind(kind));
    Cell {
        reproduce: format!("harness run {scenario} --subject {subject} --sync {sync} --only {} --seed 42", words::kind(kind)),
        id,
        scenario: scenario.to_owned(),
        group: String::new(),
        subject: subject.to_owned(),
        subject_version: "0.1.0".to_owned(),
        role,
        sync: sync.to_owned(),
        level: "write".to_owned(),
        kind,
        seed: 7,
        verdict: Verdict::Survived,
        reason: None,
        bench: None,
        criteria: Vec::new(),
        crash: None,
    }
}

fn bench_cell(subject: &str, role: Role, sync: &str, ns_per_op: f64, syncs_per_write: f64) -> Cell {
    let operations = 200_000;
    let median = 1e9 / ns_per_op;
    let fill = Phase {
        name: "prefill".to_owned(),
        duration_ns: 5_000_000,
        operations: 1000,
        throughput_per_s: 200_000.0,
        ..Phase::default()
    };
    let put = OpStats {
        count: operations * 5,
        errors: 0,
        service: percentiles(ns_per_op * 0.9, 6.0),
        response: Some(percentiles(ns_per_op * 1.3, 11.0)),
    };
    let get = OpStats { count: operations, errors: 0, service: percentiles(210.0, 3.0), response: None };
    let phase = Phase {
        name: "run".to_owned(),
        duration_ns: (ns_per_op * operations as f64) as u64,
        operations,
        throughput_per_s: median,
        throughput_samples: [0.93, 0.99, 1.0, 1.02, 1.06].map(|f| f * median).into(),
        ops: BTreeMap::from([("put".to_owned(), put), ("get".to_owned(), get)]),
        ttfp: None,
        counters: Counters {
            calls: 0,
            syncs: (syncs_per_write * operations as f64) as u64,
            writes: operations,
            bytes_written: operations * 64,
            device_bytes: operations * 80,
            cpu_user_ns: operations * 31,
            cpu_system_ns: operations * 12,
            rss_peak: 48 << 20,
            rss_end: 44 << 20,
        },
        space: Some(Space {
            apparent: 14 << 20,
            allocated: 14 << 20,
            apparent_after_shrink: (role == Role::Store).then_some(3 << 20),
        }),
    };
    let mut cell = cell("put-small", subject, role, sync, CellKind::Bench);
    let whole = Whole { device_bytes: operations * 180, cpu_ns: operations * 95, rss_peak: 48 << 20 };
    cell.bench =
        Some(Bench { repetitions: 5, threads: 1, phases: vec![fill, phase], whole: Some(whole), projections: Vec::new() });
    cell
}

fn ttfp_cell(sync: &str, ns: u64, published_ns: Option<u64>, modelled: bool) -> Cell {
    let mut cell = cell("ttfp", "typed", Role::Store, sync, CellKind::Bench);
    cell.group = if modelled { "model".to_owned() } else { String::new() };
    let model = Model {
        cpu_per_message_ns: 400_000,
        sync_latency_ns: 3_100_000,
        message_latency_ns: 10_000_000,
        fitted: vec!["sync latency to always".to_owned()],
    };
    let ttfp = Ttfp {
        count: 620,
        p50: ns,
        p99: Some(ns * 3 / 2),
        mean: ns as f64 * 1.04,
        curve: percentiles(ns as f64, 1.5).curve,
        syncs_on_path: if sync == "always" { 41.0 } else { 0.0 },
        hub_busy: 0.31,
        hub_queue_p99: 2_100_000,
        model: modelled.then_some(model),
        check: (!modelled && sync == "always").then_some(ModelCheck { expected_ns: 143e6, observed_ns: 146.9e6 }),
        published_ns,
    };
    let phase = Phase {
        name: "run".to_owned(),
        duration_ns: 60_000_000_000,
        operations: 620,
        throughput_per_s: 10.3,
        throughput_samples: vec![10.3],
        ttfp: Some(ttfp),
        ..Phase::default()
    };
    cell.bench = Some(Bench { repetitions: 1, threads: 8, phases: vec![phase], ..Bench::default() });
    cell
}

fn kill_cell(subject: &str, role: Role, sync: &str, verdict: Verdict, lost: u64) -> Cell {
    let mut cell = cell("put-small", subject, role, sync, CellKind::Kill);
    cell.verdict = verdict;
    let moments = ["any", "after-ack", "before-sync", "compaction", "rename"];
    cell.crash = Some(Crash {
        cases: 120,
        acked: 1_204_331,
        promised: 1_100_200,
        lost_acked_max: lost,
        lost_acked: lost * 90,
        loss_window_ms_max: lost as f64 * 1.07,
        recovery_ns_p50: 3_400_000,
        recovery_ns_max: 19_000_000,
        aimed: moments
            .into_iter()
            .enumerate()
            .map(|(i, m)| (m.to_owned(), Aimed { tried: 24, observed: 24 - 5 * i as u64 }))
            .collect(),
        money: (subject == "typed").then(|| Money {
            payments_acked: 51_200,
            payments_lost: lost / 10,
            amount_lost: lost * 1400,
            vouchers_unredeemable: lost / 100,
            half_states: BTreeMap::from([("c3".to_owned(), lost / 200), ("c5".to_owned(), 1)]),
        }),
        ..Crash::default()
    });
    cell
}

fn finding(id: &str, verdict: Verdict, summary: &str) -> Finding {
    Finding {
        id: id.to_owned(),
        verdict,
        profile: "process".to_owned(),
        summary: summary.to_owned(),
        replay: format!("harness replay {id}"),
        models: Vec::new(),
        explanation: None,
    }
}

fn percentiles(p50: f64, tail: f64) -> Percentiles {
    let at = |fraction: f64| p50 * (1.0 + (tail - 1.0) * ((1.0 / (1.0 - fraction)).log10() / 3.0).powf(1.6));
    let curve =
        [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999].map(|f| (f, at(f) as u64)).into();
    Percentiles {
        p50: at(0.5) as u64,
        p90: at(0.9) as u64,
        p99: Some(at(0.99) as u64),
        p99_9: Some(at(0.999) as u64),
        max: at(0.99999) as u64,
        mean: p50 * 1.1,
        curve,
    }
}

fn all_formats(results: &Results) -> [String; 4] {
    [report::terminal(results, Some(100), false), report::markdown(results), report::html(results), report::json(results)]
}

/// Writes the sample pages to `target/sample-report`, for `scripts/check_page.py` and for people.
#[test]
fn sample_pages_can_be_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sample-report");
    std::fs::create_dir_all(&folder).unwrap();
    let pages = [
        ("report", sample()),
        ("bad", bad_sample()),
        ("power", power_sample()),
        ("bad-power", bad_power_sample()),
        ("crowded", crowded_sample()),
        ("empty", empty()),
    ];
    for (name, results) in pages {
        if let Some(chart) = report::chart(&results) {
            std::fs::write(folder.join(name).with_extension("svg"), chart).unwrap();
        }
        std::fs::write(folder.join(name).with_extension("html"), report::html(&results)).unwrap();
        std::fs::write(folder.join(name).with_extension("md"), report::markdown(&results)).unwrap();
        std::fs::write(folder.join(name).with_extension("txt"), report::terminal(&results, Some(100), false)).unwrap();
    }
    std::fs::write(folder.join("result.json"), report::json(&sample())).unwrap();
    std::fs::write(folder.join("result.schema.json"), report::schema()).unwrap();
}

#[test]
fn every_cell_is_in_every_format() {
    let results = sample();
    for text in all_formats(&results) {
        for cell in &results.cells {
            assert!(text.contains(&cell.subject) && text.contains(&cell.sync), "{} is missing", cell.id);
        }
    }
    for text in [report::markdown(&results), report::html(&results)] {
        for cell in &results.cells {
            let command = cell.reproduce.replace('&', "&amp;");
            assert!(text.contains(&command), "the command of {} is missing", cell.id);
        }
    }
}

#[test]
fn the_first_line_says_how_it_ended_and_what_was_found() {
    let first = |results: &Results| report::terminal(results, None, false).lines().next().unwrap_or_default().to_owned();
    check_line(
        &first(&sample()),
        &["✓ Every promise held", "2 stores", "4 sync policies", "960 kills, 120 faults", "1 of 1 canary convicted."],
    );
    check_line(&first(&bad_sample()), &["INTERRUPTED: 30 of 39 planned cells.", "Durability violated", "hung", "3 more"]);
    check_line(&first(&empty()), &["Nothing was measured"]);
    let mut partial = sample();
    partial.run.status = RunStatus::Partial;
    partial.cells.retain(|cell| cell.kind == CellKind::Bench);
    check_line(&first(&partial), &["PARTIAL: 19 of 30", "says nothing about durability"]);
}

#[test]
fn a_canary_that_survives_breaks_the_harness() {
    let mut results = sample();
    results.cells.iter_mut().filter(|cell| cell.role == Role::Canary).for_each(|cell| cell.verdict = Verdict::Survived);
    assert_eq!(words::headline(&results).tone, words::Tone::Broken);
    for text in [report::terminal(&results, Some(100), false), report::markdown(&results), report::html(&results)] {
        check_line(&text, &["HARNESS BROKEN", "ack-early"]);
    }
    let mut results = sample();
    results.cells.retain(|cell| cell.role != Role::Canary);
    check_line(&words::headline(&results).sentence, &["No canary was tried"]);
    let convicted = words::headline(&sample()).canaries;
    assert_eq!(convicted, ["Canary ack-early under always convicted (lost) in 120 kills: 412 promised operations lost."]);
}

#[test]
fn the_null_subject_is_taken_off_and_never_ranked() {
    let mut results = empty();
    results.cells = vec![
        bench_cell("slow", Role::Store, "never", 450.0, 0.0),
        bench_cell("map", Role::Baseline, "never", 250.0, 0.0),
        bench_cell("nothing", Role::Null, "never", 50.0, 0.0),
    ];
    let row = |text: &str, name: &str| {
        text.lines().find(|line| line.starts_with(&format!("| {name} | never | write"))).map(str::to_owned)
    };
    let text = report::markdown(&results);
    // (250 - 50) / (450 - 50)
    check_line(&row(&text, "slow").unwrap(), &["0.50 ×"]);
    check_line(&row(&text, "map (baseline)").unwrap(), &["1.00 ×"]);
    check_line(&row(&text, "nothing (null)").unwrap(), &["| n/a |"]);
    assert!(text.find("| nothing (null) | never | write") > text.find("| slow | never | write"), "the null subject comes last");
    results.cells.pop();
    let text = report::markdown(&results);
    check_line(&text, &["no null subject ran"]);
    check_line(&row(&text, "slow").unwrap(), &["0.56 ×"]);
}

#[test]
fn what_was_not_measured_is_not_zero() {
    let mut results = empty();
    let mut cell = bench_cell("typed", Role::Store, "always", 1000.0, 1.0);
    for phase in cell.bench.iter_mut().flat_map(|bench| &mut bench.phases) {
        phase.space = None;
        phase.counters = Counters::default();
        phase.ops.values_mut().for_each(|op| {
            op.service.p99 = None;
            op.response = None;
        });
    }
    results.cells = vec![cell];
    results.storage = Storage::default();
    let text = report::terminal(&results, Some(100), false);
    check_line(
        &text,
        &[
            "sync of 4 KiB here: p50 n/a, p99 n/a",
            "n/a in every row: verdict, kills, promised lost, acked lost, p99, syncs/write, file.",
        ],
    );
    let page = report::html(&results);
    assert!(!page.contains(">0 ns") && !page.contains(">0 B<"), "a missing figure is shown as zero");
}

#[test]
fn hostile_names_stay_text() {
    let evil = "</script><b onclick=\"x\">&'|`\n| x |\u{1b}[31m<img src=http://evil.example/x>\u{2028}";
    let mut results = bad_power_sample();
    results.run.argv.push(evil.to_owned());
    results.run.id = evil.to_owned();
    results.host.cpu = evil.to_owned();
    results.not_tested.push(evil.to_owned());
    results.warnings.push(Warning { code: evil.to_owned(), cell: Some(evil.to_owned()), text: evil.to_owned() });
    for cell in &mut results.cells {
        for text in [
            &mut cell.subject,
            &mut cell.scenario,
            &mut cell.group,
            &mut cell.sync,
            &mut cell.reproduce,
            &mut cell.id,
            &mut cell.level,
        ] {
            text.push_str(evil);
        }
        cell.reason = Some(evil.to_owned());
        if let Some(crash) = &mut cell.crash {
            crash.aimed.insert(evil.to_owned(), Aimed { tried: 1, observed: 1 });
            crash.findings.push(Finding {
                id: evil.to_owned(),
                profile: evil.to_owned(),
                replay: evil.to_owned(),
                models: vec![evil.to_owned()],
                explanation: Some(Explanation {
                    lost_effects: vec![evil.to_owned()],
                    operations: vec![evil.to_owned()],
                    barrier: Some(evil.to_owned()),
                    verified: false,
                }),
                ..finding("f", Verdict::Lost, evil)
            });
            if !crash.faults.is_empty() {
                crash.faults.insert(evil.to_owned(), faulty(3, 1));
            }
            if let Some(power) = &mut crash.power {
                let counts = power.by_model["posix"].clone();
                power.by_model.insert(evil.to_owned(), counts);
                power.by_strategy.insert(evil.to_owned(), 7);
                power.redundant_syncs.push(evil.to_owned());
                power.ended_by = evil.to_owned();
            }
        }
    }
    results.storage.filesystem = evil.to_owned();
    let chart = report::chart(&results).unwrap();
    assert!(!chart.contains("<b") && !chart.contains("<img") && !chart.contains("</script"), "markup got through");
    // Labels are cut short, so their beginning has to do.
    check_line(
        &chart,
        &["always&lt;/script", "aria-label=\"What each sync policy costs, and what a power loss takes: put-small&lt;/script"],
    );
    let tags = chart.matches('<').count();
    assert_eq!(tags, chart.matches('>').count(), "every < of the picture opens a tag");
    let page = report::html(&results);
    assert!(!page.contains("<b onclick") && !page.contains("<img"), "markup got through");
    assert_eq!(page.matches("</script>").count(), 1, "the data ends where the page says");
    let data =
        page.split_once("id=\"result\">").and_then(|(_, rest)| rest.split_once("</script>")).map(|(data, _)| data).unwrap();
    let read: Results = serde_json::from_str(data).unwrap();
    assert_eq!(read.run.id, evil);
    tables_are_whole(&report::markdown(&results));
    let text = report::terminal(&results, Some(100), false);
    assert!(!text.contains('\u{1b}'), "an escape sequence reached the terminal");
    for format in all_formats(&empty()) {
        assert!(!format.is_empty());
    }
}

#[test]
fn a_page_loads_nothing() {
    for results in [sample(), bad_sample(), power_sample(), empty()] {
        let page = report::html(&results);
        for needle in ["http://", "https://", "@import", "url(", "src="] {
            assert!(!page.contains(needle), "the page contains {needle}");
        }
        let scripts = page.matches("<script").count();
        assert_eq!((scripts, page.matches("<script type=\"application/json\"").count()), (1, 1));
    }
}

#[test]
fn every_chart_has_data_a_label_and_a_caption() {
    let page = report::html(&sample());
    let figures: Vec<&str> = page.split("<figure ").skip(1).filter_map(|rest| rest.split("</figure>").next()).collect();
    for id in [
        "chart-cost-and-loss",
        "chart-throughput",
        "chart-latency",
        "chart-latency-2",
        "chart-size",
        "chart-ttfp",
        "chart-ttfp-curve",
    ] {
        assert!(figures.iter().any(|figure| figure.starts_with(&format!("id=\"{id}\""))), "{id} is missing");
    }
    for figure in &figures {
        check_line(figure, &["<svg role=\"img\" aria-label=\"", "<figcaption>", "harness run"]);
        assert!(!figure.contains("{label}") && !figure.contains("NaN") && !figure.contains("#01"), "{figure}");
    }
    assert!(!report::html(&empty()).contains("<figure"), "a chart without data is left out");
}

/// Lines of a table's rows that begin with this.
fn rows<'a>(markdown: &'a str, table: &str, begin: &str) -> Vec<&'a str> {
    let table = markdown.split(&format!("\n### {table}")).nth(1).unwrap_or_else(|| panic!("no table {table}"));
    let table = table.split("\n#").next().unwrap_or_default();
    table.lines().filter(|line| line.starts_with(begin)).collect()
}

fn row<'a>(markdown: &'a str, table: &str, begin: &str) -> &'a str {
    let found = rows(markdown, table, begin);
    assert_eq!(found.len(), 1, "{begin} in {table}: {found:?}");
    found[0]
}

#[test]
fn what_processes_used_over_all_phases_is_a_table_of_its_own() {
    let mut results = sample();
    let mut devices = [300 << 20, 100 << 20, 200 << 20].into_iter().cycle();
    for bench in results.cells.iter_mut().filter_map(|cell| cell.bench.as_mut()).filter(|bench| bench.phases.len() > 1) {
        let run = bench.phases.last().unwrap();
        bench.phases.push(Phase { name: "again".to_owned(), ..run.clone() });
        bench.whole = devices.next().map(|device_bytes| Whole { device_bytes, cpu_ns: 1_500_000_000, rss_peak: 48 << 20 });
    }
    let table = |results: &Results| rows(&report::markdown(results), "put-small: all phases together", "| ").join("\n");
    let whole = table(&results);
    let at = |figure: &str| whole.find(figure).unwrap_or_else(|| panic!("{figure} is not in {whole}"));
    assert!(at("100 MiB") < at("200 MiB") && at("200 MiB") < at("300 MiB"), "{whole}");
    check_line(&whole, &["1.50 s", "48.0 MiB"]);
    // Results of an earlier version do not say.
    results.cells.iter_mut().filter_map(|cell| cell.bench.as_mut()).for_each(|bench| bench.whole = None);
    assert!(!report::markdown(&results).contains("all phases together"));
}

/// Where a text of a picture begins.
fn place_of(picture: &str, text: &str) -> (f64, f64) {
    let before = picture.split(&format!(">\n{text}\n</text>")).next().filter(|before| before.len() < picture.len());
    let tag = before.unwrap_or_else(|| panic!("{text} is not in the picture")).rsplit("<text ").next().unwrap();
    let number = |name: &str| tag.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    (number("x"), number("y"))
}

#[test]
fn the_chart_of_cost_and_loss_comes_first_and_stands_alone() {
    let first = |results: &Results| {
        let page = report::html(results);
        page.split("<figure id=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    assert_eq!(first(&power_sample()).as_deref(), Some("chart-tradeoff"));
    assert_eq!(first(&sample()).as_deref(), Some("chart-cost-and-loss"), "without power data, the chart of kills is the first");
    assert!(report::chart(&sample()).is_none() && report::chart(&empty()).is_none(), "a picture without data");
    let chart = report::chart(&power_sample()).unwrap();
    assert!(chart.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\""));
    assert!(!chart.contains("var(--") && !chart.contains("{label}") && !chart.contains("#01"), "a colour that only a page knows");
    for policy in POLICIES {
        place_of(&chart, policy);
        check_line(&report::html(&power_sample()), &[&format!(">\n{policy}\n</text>")]);
    }
    check_line(
        &chart,
        &[
            "fill=\"#fff\"",
            "What each sync policy costs, and what a power loss takes: put-small",
            "unbounded (run of 10 s)",
            "p99 of an acknowledged write on the real disk (logarithmic)",
            "Loss window: age of the oldest acknowledged write",
            "put of put-small on ext4, where a sync of 4 KiB takes 348 µs (median)",
            "1,000 requests a second at random times, 2.00 ms",
            "p99 13.2 µs · 104 ms lost",
        ],
    );
}

#[test]
fn slow_stands_right_and_safe_stands_low() {
    // The lower edge of the upper band, and the upper edge of the lower one, by the words in their upper corners.
    let band = |chart: &str, unbounded: f64| {
        (
            place_of(chart, "unbounded (run of 10 s)").1 + (15.0 + 34.0 * unbounded) * 4.0,
            place_of(chart, "nothing lost").1 - 11.0 * 4.0,
        )
    };
    let chart = report::chart(&power_sample()).unwrap();
    let (top, bottom) = band(&chart, 2.0);
    let [never, _, interval, always] = POLICIES.map(|policy| place_of(&chart, policy));
    assert!(never.1 < top && top < interval.1 && interval.1 < bottom && bottom < always.1, "{never:?} {interval:?} {always:?}");
    assert!(always.0 > interval.0, "{interval:?} {always:?}");
    // Something lost, however little, is not nothing; and what has no bound stands at the edge, however little it was.
    let mut results = power_sample();
    let power_cells = |results: &mut Results, sync: &str, change: fn(&mut Loss)| {
        for cell in results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Power && cell.sync == sync) {
            change(power_of(cell).loss.as_mut().unwrap());
        }
    };
    power_cells(&mut results, "always", |loss| (loss.worst_ops, loss.worst_ms) = (1, 0.001));
    power_cells(&mut results, "interval:100ms", |loss| (loss.unbounded, loss.worst_ms, loss.worst_ops) = (true, 0.0, 0));
    let chart = report::chart(&results).unwrap();
    let (top, bottom) = band(&chart, 3.0);
    let [_, _, interval, always] = POLICIES.map(|policy| place_of(&chart, policy));
    assert!(always.1 > top && always.1 < bottom && interval.1 < top, "{interval:?} {always:?}");
    // Without a p99 there is no place, and the picture says so.
    let mut results = power_sample();
    for cell in results.cells.iter_mut().filter(|cell| cell.sync == "never" && cell.subject == "typed") {
        let phases = cell.bench.iter_mut().flat_map(|bench| &mut bench.phases);
        phases.for_each(|phase| phase.ops.values_mut().for_each(|op| op.service.p99 = None));
    }
    check_line(&report::chart(&results).unwrap(), &["Not drawn, for want of a p99: typed under never."]);
}

#[test]
fn names_in_the_chart_do_not_cover_each_other() {
    let chart = report::chart(&crowded_sample()).unwrap();
    let names = ["typed", "lsm"].iter().flat_map(|subject| POLICIES.map(|sync| format!("{sync} · {subject}")));
    let places: Vec<(f64, f64)> = names.map(|name| place_of(&chart, &name)).collect();
    for (i, a) in places.iter().enumerate() {
        for b in &places[..i] {
            // Two lines are 30 pixels high, and figures of some 24 characters 150 wide; a picture has four units to a pixel.
            assert!((a.1 - b.1).abs() >= 100.0 || (a.0 - b.0).abs() >= 500.0, "{a:?} covers {b:?}");
        }
    }
}

#[test]
fn a_broken_promise_is_seen_in_the_chart() {
    let chart = report::chart(&bad_power_sample()).unwrap();
    check_line(&chart, &["always · ✗ corrupt"]);
    assert!(!report::chart(&power_sample()).unwrap().contains('✗'));
}

#[test]
fn the_bench_cell_of_the_same_group_says_what_it_costs() {
    let mut results = power_sample();
    for cell in results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Power) {
        cell.group = "batch".to_owned();
    }
    check_line(&report::chart(&results).unwrap(), &["p99 13.2 µs · 104 ms lost"]);
    let mut other = bench_cell("typed", Role::Store, "interval:100ms", 40_000.0, 0.002);
    other.group = "batch".to_owned();
    results.cells.push(other);
    let chart = report::html(&results);
    check_line(&chart, &["takes: put-small batch", "p99 130 µs · 104 ms lost"]);
    assert!(!chart.contains("p99 13.2 µs · 104 ms lost"), "the other group's figure");
}

#[test]
fn a_model_that_is_not_covered_is_never_a_failure() {
    let row_of_page = |results: &Results| {
        let page = report::html(results);
        let row = page.split("<tr>").find(|row| row.contains("<td>power</td><td>lying-disk</td>"));
        row.unwrap_or_else(|| panic!("no row of the matrix")).split("</tr>").next().unwrap().to_owned()
    };
    let table = "Crash matrix: typed, fault × policy";
    let mut results = power_sample();
    let text = report::markdown(&results);
    check_line(row(&text, table, "| power | lying-disk"), &["not promised (323 of 400; 77 lost)"]);
    assert!(!row(&text, table, "| power | lying-disk").contains('✗') && !row_of_page(&results).contains("fault\""));
    check_line(row(&text, table, "| power | xfs"), &["✓ survived (400 of 400)"]);
    check_line(&words::headline(&results).sentence, &["Every promise held", "21,600 crash states"]);
    // Nor does it widen the loss of those that are.
    check_line(row(&text, "Loss window", "| typed | interval:100ms"), &["52.0 ms | 13.0 ms"]);
    for cell in results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Power) {
        power_of(cell).by_model.get_mut("lying-disk").unwrap().covered = true;
    }
    let text = report::markdown(&results);
    check_line(row(&text, table, "| power | lying-disk"), &["✗ lost (323 of 400; 77 lost)"]);
    assert!(row_of_page(&results).contains("fault\""));
    check_line(row(&text, "Loss window", "| typed | interval:100ms"), &["2.08 s"]);
}

#[test]
fn the_matrix_has_every_fault_and_policy() {
    let text = report::markdown(&bad_power_sample());
    let table = "Crash matrix: typed, fault × policy";
    check_line(row(&text, table, "| crash | fault"), &["| never | manual | interval:100ms | always |"]);
    check_line(row(&text, table, "| kill | SIGKILL"), &["| ✓ survived (120 of 120) | ✓"]);
    check_line(row(&text, table, "| power | xfs"), &["| ✓ survived (400 of 400) | ✗ corrupt (395 of 400; 3 lost, 2 corrupt) |"]);
    check_line(row(&text, table, "| error | EIO on sync"), &["| n/a | n/a | n/a | ✗ lost (8 of 12; 4 lost) |"]);
    check_line(row(&text, table, "| rot | flipped byte"), &["✓ survived (40 of 40)"]);
    let models: Vec<&str> = rows(&text, table, "| power").iter().map(|row| row.split(" | ").nth(1).unwrap()).collect();
    assert_eq!(models, ["process", "ext4-ordered", "xfs", "posix", "torn", "lying-disk"], "from the mildest to the worst");
    assert!(!report::markdown(&sample()).contains("fault × policy"), "kills alone have no matrix");
    // A cell that could not be tried is neither a pass nor a gap.
    let mut results = power_sample();
    for cell in results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Error && cell.sync == "manual") {
        (cell.verdict, cell.crash) = (Verdict::NotMeasured, None);
    }
    check_line(
        row(&report::markdown(&results), table, "| error | short write"),
        &["✓ survived (12 of 12) | ? not-measured | ✓ survived (12 of 12)"],
    );
}

#[test]
fn the_loss_window_stands_beside_the_promise_and_the_first_payment() {
    let text = report::markdown(&power_sample());
    let of = |sync: &str| row(&text, "Loss window", &format!("| typed | {sync} ")).to_owned();
    check_line(&of("never"), &["✓ survived | unbounded | 9,870 | 9.87 s | 4.93 s |", "| 84.1 ms |"]);
    check_line(&of("interval:100ms"), &["| 110 ms | 104 | 104 ms | 52.0 ms | 13.0 ms | 88.0 ms |"]);
    check_line(&of("always"), &["| nothing | 0 | nothing | nothing | nothing | 231 ms |"]);
    check_line(&text, &["a run of 10.0 s, crashed at 250 moments", "measured, from ttfp."]);
    let mut results = power_sample();
    results.cells.retain(|cell| cell.scenario != "ttfp");
    let text = report::markdown(&results);
    assert!(!text.contains("TTFP"), "a column without anything to say");
    for cell in results.cells.iter_mut().filter(|cell| cell.kind == CellKind::Power) {
        power_of(cell).loss = None;
    }
    assert!(!report::markdown(&results).contains("### Loss window"), "a loss that was not measured");
}

#[test]
fn crash_states_are_counted_by_what_made_them() {
    let text = report::markdown(&power_sample());
    check_line(
        row(&text, "Crash states\n", "| typed | always"),
        &["| 3 | 4,211 | 1,870 | 5,400 | 2,400 | 2,100 / 300 | 25.0 % | 17 | count | 9.81k/s | 812/s |"],
    );
    check_line(
        row(&text, "Crash states by fault model", "| skip-sync (canary) | always | put-small | xfs"),
        &["| covered | 900 |"],
    );
    let lying = rows(&text, "Crash states by fault model", "| typed | always").into_iter().find(|row| row.contains("lying-disk"));
    check_line(lying.unwrap(), &["| not promised | 900 | 400 | 323 | 77 | 0 / 0 / 0 |"]);
    check_line(
        row(
            &report::markdown(&bad_power_sample()),
            "Faults: failing calls and rot",
            "| typed | always | put-small | error | EIO on sync",
        ),
        &["| 12 | 8 | 0 | 1 | 4 | 0 | 0 | 0 |"],
    );
}

#[test]
fn a_finding_says_how_it_comes_about() {
    for text in [report::markdown(&power_sample()).replace('\\', ""), report::html(&power_sample())] {
        check_line(
            &text,
            &[
                "Lost effects: write of 64 bytes at 4096 of `wal/1`.",
                "Shortest sequence of operations: put k3; put k4.",
                "Missing barrier: sync file `wal/1` after call 17, before call 21 (verified, with it nothing is found any more).",
                "Redundant sync (typed under always, put-small): sync of directory `db` after call 3.",
                "ext4-ordered, btrfs",
            ],
        );
    }
    let mut results = power_sample();
    for finding in results.cells.iter_mut().filter_map(|cell| cell.crash.as_mut()).flat_map(|crash| &mut crash.findings) {
        finding.explanation.iter_mut().for_each(|why| why.verified = false);
    }
    let text = report::terminal(&results, None, false);
    check_line(&text, &["before call 21 (not verified)."]);
    assert!(!report::markdown(&bad_sample()).contains("how it comes about"), "kills have no explanation");
}

#[test]
fn canaries_are_counted_and_say_what_convicted_them() {
    let mut results = power_sample();
    check_line(&words::headline(&results).sentence, &["Every promise held", "2 of 2 canaries convicted."]);
    check_line(&words::headline(&bad_power_sample()).sentence, &["Durability violated", "2 of 2 canaries convicted."]);
    let text = report::markdown(&results);
    check_line(
        row(&text, "2 of 2 canaries convicted", "| skip-sync"),
        &["| power | ✗ lost | ext4-ordered, btrfs | key k3 promised"],
    );
    check_line(row(&text, "2 of 2 canaries convicted", "| ack-early"), &["| kill | ✗ lost | process |"]);
    let sentences = words::headline(&results).canaries;
    assert_eq!(sentences[1], "Canary skip-sync under always convicted (lost) in 5,400 crash states: 9 promised operations lost.");
    for cell in results.cells.iter_mut().filter(|cell| cell.subject == "skip-sync") {
        cell.verdict = Verdict::Survived;
    }
    assert_eq!(words::headline(&results).tone, words::Tone::Broken);
    let text = report::markdown(&results);
    let acquitted = row(&text, "1 of 2 canaries convicted", "| skip-sync");
    assert!(acquitted.contains("✓ survived | n/a | n/a |"), "{acquitted}");
}

#[test]
fn what_was_tried_is_not_called_untested() {
    let sentence = "Power loss: simulated nowhere in this run.";
    assert!(report::markdown(&sample()).contains(sentence), "a cell that could not be tried tests nothing");
    let text = report::markdown(&power_sample());
    assert!(!text.contains(sentence) && text.contains("Disks other than the one named above."));
}

#[test]
fn tables_fit_a_hundred_columns() {
    for results in [sample(), bad_sample(), power_sample(), bad_power_sample()] {
        for line in report::terminal(&results, Some(100), false).lines() {
            assert!(line.chars().count() <= 100 || line.contains("harness "), "{line}");
        }
    }
    let plain = report::terminal(&bad_sample(), Some(100), false);
    let mut coloured = report::terminal(&bad_sample(), Some(100), true);
    assert!(coloured.contains("\u{1b}[31m✗ lost\u{1b}[0m"));
    for code in ["0", "1", "2", "4", "31", "32", "33", "1;31", "1;32", "1;33"] {
        coloured = coloured.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, coloured, "colour changes nothing but colour");
}

#[test]
fn markdown_tables_are_whole() {
    for results in [sample(), bad_sample(), power_sample(), bad_power_sample(), empty()] {
        tables_are_whole(&report::markdown(&results));
    }
}

#[test]
fn figures_have_three_digits() {
    let ns = [
        (0.4, "0.4 ns"),
        (7.0, "7 ns"),
        (850.0, "850 ns"),
        (999.6, "1.00 µs"),
        (12_340.0, "12.3 µs"),
        (999_999.0, "1.00 ms"),
        (3.456e6, "3.46 ms"),
        (1.2e9, "1.20 s"),
        (1.5e12, "1,500 s"),
    ];
    ns.into_iter().for_each(|(value, text)| assert_eq!(words::ns(value), text));
    let bytes = [(0.0, "0 B"), (512.0, "512 B"), (1536.0, "1.50 KiB"), (14_680_064.0, "14.0 MiB")];
    bytes.into_iter().for_each(|(value, text)| assert_eq!(words::bytes(value), text));
    let rates = [(830.0, "830/s"), (12_400.0, "12.4k/s"), (7_142_857.0, "7.14M/s")];
    rates.into_iter().for_each(|(value, text)| assert_eq!(words::rate(value), text));
    for nothing in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(
            (words::ns(nothing).as_str(), words::rate(nothing).as_str(), words::ratio(nothing).as_str()),
            ("n/a", "n/a", "n/a")
        );
    }
    assert_eq!((words::count(1_234_567), words::rates(321e3, 366e3)), ("1,234,567".to_owned(), "321..366k/s".to_owned()));
    assert_eq!(
        (words::ratio(0.0004), words::ratio(0.032), words::ratio(1.5)),
        ("1/2,500 ×".to_owned(), "0.032 ×".to_owned(), "1.50 ×".to_owned())
    );
}

#[test]
fn the_schema_in_the_docs_is_the_schema_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/result.schema.json");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == report::schema(),
        "docs/result.schema.json is not the schema of the types; run: harness show schema > docs/result.schema.json"
    );
}

#[test]
fn json_reads_back() {
    let results = bad_sample();
    let text = report::json(&results);
    let read: Results = serde_json::from_str(&text).unwrap();
    assert_eq!(report::markdown(&results), report::markdown(&read));
    assert!(text.ends_with("}\n"));
}

/// Breaks `results` in a way that a run never should: extreme, absent and impossible figures.
fn distort(results: &mut Results, choices: &[u8]) {
    let mut choices = choices.iter().copied().cycle();
    let mut pick = move || choices.next().unwrap_or(0);
    let whole = |n: u8| [0, 1, 7, 1000, u64::MAX / 2, u64::MAX][usize::from(n) % 6];
    let real = |n: u8| [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300, 3.5][usize::from(n) % 7];
    for cell in &mut results.cells {
        cell.verdict = [
            Verdict::Survived,
            Verdict::NotMeasured,
            Verdict::Lost,
            Verdict::Corrupt,
            Verdict::Unopenable,
            Verdict::Hung,
            Verdict::HarnessBroken,
        ][usize::from(pick()) % 7];
        cell.role = [Role::Store, Role::Baseline, Role::Null, Role::Canary][usize::from(pick()) % 4];
        cell.kind = [CellKind::Bench, CellKind::Kill, CellKind::Power, CellKind::Error, CellKind::Rot][usize::from(pick()) % 5];
        for phase in cell.bench.iter_mut().flat_map(|bench| &mut bench.phases) {
            phase.duration_ns = whole(pick());
            phase.operations = whole(pick());
            phase.throughput_per_s = real(pick());
            phase.throughput_samples = vec![real(pick()), real(pick())];
            phase.counters = Counters {
                syncs: whole(pick()),
                writes: whole(pick()),
                cpu_user_ns: whole(pick()),
                cpu_system_ns: whole(pick()),
                device_bytes: whole(pick()),
                rss_peak: whole(pick()),
                ..Counters::default()
            };
            for op in phase.ops.values_mut() {
                op.count = whole(pick());
                op.service.p50 = whole(pick());
                op.service.curve =
                    vec![(real(pick()), whole(pick())), (0.5, whole(pick())), (1.0, whole(pick())), (0.99, whole(pick()))];
            }
            if let Some(ttfp) = &mut phase.ttfp {
                ttfp.mean = real(pick());
                ttfp.published_ns = Some(whole(pick()));
                ttfp.hub_busy = real(pick());
                ttfp.curve = vec![(real(pick()), whole(pick())), (0.1, whole(pick()))];
            }
            if let Some(space) = &mut phase.space {
                space.apparent = whole(pick());
                space.apparent_after_shrink = Some(whole(pick()));
            }
        }
        if let Some(crash) = &mut cell.crash {
            crash.cases = whole(pick());
            crash.lost_promised = whole(pick());
            crash.lost_acked_max = whole(pick());
            crash.loss_window_ms_max = real(pick());
            crash.aimed.insert("any".to_owned(), Aimed { tried: whole(pick()), observed: whole(pick()) });
            for fault in crash.faults.values_mut() {
                (fault.cases, fault.lost, fault.hung) = (whole(pick()), whole(pick()), whole(pick()));
            }
            if let Some(power) = &mut crash.power {
                power.states_per_second = real(pick());
                power.opened_per_second = real(pick());
                power.by_depth = vec![whole(pick()); usize::from(pick()) % 3];
                power.by_strategy.insert("random".to_owned(), whole(pick()));
                for counts in power.by_model.values_mut() {
                    counts.covered = pick() % 2 == 0;
                    (counts.survived, counts.lost, counts.corrupt) = (whole(pick()), whole(pick()), whole(pick()));
                    let spread = Spread { p50: real(pick()), p99: real(pick()), max: real(pick()) };
                    counts.loss_window_ms = (pick() % 3 > 0).then_some(spread);
                    counts.best_loss_window_ms = (pick() % 3 > 0).then_some(spread);
                    counts.lost_acked = Some(spread);
                }
                if let Some(loss) = &mut power.loss {
                    (loss.worst_ms, loss.worst_ops, loss.unbounded) = (real(pick()), whole(pick()), pick() % 3 == 0);
                    (loss.bound_ms, loss.rate_per_s) = (Some(real(pick())), real(pick()));
                    (loss.duration_ns, loss.moments) = (whole(pick()), whole(pick()));
                }
            }
        }
        if pick() % 5 == 0 {
            cell.bench = None;
            cell.crash = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_result_makes_a_report_panic(choices in proptest::collection::vec(any::<u8>(), 1..400), width in 0usize..220) {
        let mut results = if choices.len() % 2 == 0 { bad_sample() } else { bad_power_sample() };
        distort(&mut results, &choices);
        let chart = report::chart(&results).unwrap_or_default();
        prop_assert!(!chart.contains("NaN") && !chart.contains("inf\"") && !chart.contains("var(--"));
        let page = report::html(&results);
        prop_assert!(!page.contains("NaN") && !page.contains(">inf"));
        tables_are_whole(&report::markdown(&results));
        for cell in &results.cells {
            prop_assert!(page.contains(&cell.subject) && page.contains(&cell.sync));
        }
        prop_assert!(!report::terminal(&results, Some(width), true).is_empty());
        prop_assert!(!report::json(&results).is_empty());
    }
}

fn check_line(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "{needle:?} is not in {text}");
    }
}

/// Every row of a table has as many cells as its header.
fn tables_are_whole(markdown: &str) {
    let mut columns = None;
    for line in markdown.lines() {
        if !line.starts_with('|') {
            columns = None;
            continue;
        }
        let pipes = line.replace("\\|", "").matches('|').count();
        assert_eq!(*columns.get_or_insert(pipes), pipes, "{line}");
    }
}

fn judged(holds: bool) -> Results {
    let mut cell = bench_cell("lsm", Role::Store, "every-second", 2_900.0, 0.0);
    let criterion = |says: &str, metric, at_least, at_most, found, holds| Criterion {
        says: says.to_owned(),
        phase: "run".to_owned(),
        metric,
        at_least,
        at_most,
        found,
        holds,
    };
    cell.criteria = vec![
        criterion("more than 50,000 writes a second", Metric::Rate, Some(50_000.0), None, Some(344_828.0), true),
        criterion("opens within half a minute", Metric::Seconds, None, Some(30.0), Some(if holds { 2.0 } else { 40.0 }), holds),
    ];
    if let Some(bench) = &mut cell.bench {
        let points = |of: &[(u64, f64)]| of.iter().map(|(bytes, value)| Point { bytes: *bytes, value: *value }).collect();
        bench.projections.push(Projection {
            name: "opening".to_owned(),
            title: "Time to open".to_owned(),
            unit: ProjectionUnit::Seconds,
            measured: points(&[(10_000_000, 0.2), (100_000_000, 0.3)]),
            predicted: points(&[(10_000_000, 0.21), (1_000_000_000, 1.1), (100_000_000_000, 9.5)]),
            assumes: "A straight line & nothing else.".to_owned(),
        });
    }
    Results { cells: vec![cell], ..empty() }
}

#[test]
fn criteria_head_the_report() {
    let held = judged(true);
    let text = report::terminal(&held, None, false);
    assert!(text.starts_with("? 2 of 2 criteria hold."), "{text}");
    assert!(text.contains("✓ holds") && text.contains("344.8k/s") || text.contains("345k/s"), "{text}");
    let missed = judged(false);
    for text in [report::terminal(&missed, None, false), report::markdown(&missed), report::html(&missed)] {
        assert!(text.contains("1 of 2 criteria hold."), "{text}");
        assert!(text.contains("✗ missed"), "{text}");
    }
    assert!(report::terminal(&missed, None, false).starts_with("✗ "));
}

#[test]
fn a_projection_shows_its_points_and_its_assumptions() {
    let results = judged(true);
    let page = report::html(&results);
    assert!(page.contains("chart-opening") && page.contains("A straight line &amp; nothing else."));
    let text = report::markdown(&results);
    let row = text.lines().find(|line| line.contains("95.4 MiB")).expect("a row for what was measured");
    assert!(row.contains("300 ms") && row.ends_with("n/a |"), "{row}");
    assert!(text.lines().any(|line| line.contains("93.1 GiB") && line.contains("n/a") && line.contains("9.50 s")), "{text}");
}
