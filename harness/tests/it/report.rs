//! Reports: whatever a run found, every format shows it, and nothing in it can break a page.

use harness::report::{self, words};
use harness::result::{
    Aimed, Bench, Calibration, Cell, CellKind, Counters, Crash, Finding, Host, Model, ModelCheck, Money, OpStats, Percentiles,
    Phase, Results, Role, Run, RunStatus, SCHEMA_VERSION, ScenarioNote, Space, Storage, Ttfp, Verdict, Warning,
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
                ScenarioNote { name: "put-small".to_owned(), title: "What does a small acknowledged write cost?".to_owned() },
                ScenarioNote { name: "ttfp".to_owned(), title: "How long does a payer wait for the first payment?".to_owned() },
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
            syncs: (syncs_per_write * operations as f64) as u64,
            writes: operations,
            bytes_written: operations * 64,
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
    cell.bench = Some(Bench { repetitions: 5, threads: 1, phases: vec![fill, phase] });
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
    cell.bench = Some(Bench { repetitions: 1, threads: 8, phases: vec![phase] });
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

/// Writes the sample pages for `scripts/check_page.py`.
#[test]
fn sample_pages_can_be_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sample-report");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, results) in [("report", sample()), ("bad", bad_sample()), ("empty", empty())] {
        std::fs::write(folder.join(name).with_extension("html"), report::html(&results)).unwrap();
        std::fs::write(folder.join(name).with_extension("md"), report::markdown(&results)).unwrap();
        std::fs::write(folder.join(name).with_extension("txt"), report::terminal(&results, Some(100), false)).unwrap();
    }
    std::fs::write(folder.join("result.json"), report::json(&sample())).unwrap();
}
