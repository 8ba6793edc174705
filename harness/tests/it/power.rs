//! Power, error and rot cells end to end: what they find, what they let pass, and that a seed is a run.

use crate::support::{Sandbox, cell_of};
use harness::exit_code;
use harness::result::{Cell, CellKind, Results, Role, Verdict};
use std::collections::BTreeMap;

/// A short run of a store that does everything, crashed everywhere.
const POWER: &str = r#"
schema = 1
name = "cuts"
title = "What does a power loss leave?"
kinds = ["power"]
subjects = ["typed"]
sync = ["never", "every-second", "always"]
levels = ["mixed"]

[workload]
kind = "mixed"
clients = 2
keys = 8
value-bytes = 300
delete-percent = 15
batch-percent = 20
async-percent = 10
sync-percent = 8

[power]
calls = 40
states = 2500
shrink-every = 17
reopen-every = 29
"#;

/// A script with one write that asks for the device.
const SCRIPT: &str = r#"
schema = 1
name = "script"
title = "Is it there?"
kinds = ["power"]
sync = ["always"]
levels = ["mixed"]

[workload]
kind = "script"
tables = ["left"]
steps = [
  { changes = [{ table = 0, key = "a", value = "1" }] },
  { get = [0, "a"] },
  { changes = [{ table = 0, key = "b", value = "1" }, { table = 0, key = "a" }], level = "sync" },
  { owner = "sync" },
]
"#;

fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn without_timings(mut results: Results) -> String {
    for cell in &mut results.cells {
        if let Some(power) = cell.crash.as_mut().and_then(|crash| crash.power.as_mut()) {
            (power.states_per_second, power.opened_per_second) = (0.0, 0.0);
        }
    }
    serde_json::to_string(&results.cells).unwrap()
}

#[test]
fn a_seed_and_a_count_budget_are_a_result() {
    let sandbox = Sandbox::new();
    sandbox.write("cuts.toml", POWER);
    let run = |out, seed| {
        let ended = sandbox.run(&["run", "cuts.toml", "--out", out, "--seed", seed]);
        assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
        without_timings(sandbox.result(out))
    };
    assert_eq!(run("one", "3"), run("two", "3"));
    assert_ne!(run("three", "4"), run("four", "5"));
}

#[test]
fn the_typed_store_keeps_its_promises_and_the_counts_add_up() {
    let sandbox = Sandbox::new();
    sandbox.write("cuts.toml", POWER);
    assert_eq!(sandbox.run(&["run", "cuts.toml", "--out", "out"]).code, Some(exit_code::OK));
    for cell in sandbox.result("out").cells {
        let crash = cell.crash.as_ref().unwrap();
        let power = crash.power.as_ref().unwrap();
        assert_eq!((cell.verdict, crash.lost_promised, crash.corrupt, crash.findings.len()), (Verdict::Survived, 0, 0, 0));
        assert!(power.crash_points > 50 && power.states_distinct > 150, "{}: {power:?}", cell.id);
        assert_eq!(power.by_strategy.values().sum::<u64>(), power.states_distinct);
        assert_eq!(power.by_model.values().map(|m| m.states_tried).sum::<u64>(), power.states_tried);
        assert!(power.by_depth.len() >= 2 && power.by_depth[1] > 0, "recoveries were crashed: {:?}", power.by_depth);
        // What a crashed recovery leaves is mostly what a crash of the run leaves too: it must not count twice.
        let nested = power.by_strategy["recovery-crashed"];
        assert!(nested * 3 < power.states_distinct, "{}: {nested} of {}", cell.id, power.states_distinct);
        for (name, model) in &power.by_model {
            let judged = model.survived + model.lost + model.corrupt + model.unopenable + model.hung;
            assert_eq!(judged, model.states_tried, "{name}");
            assert_eq!(model.by_strategy.values().sum::<u64>(), model.states_distinct, "{name}");
            assert_eq!(model.covered, name != "lying-disk");
        }
        // A disk that lies takes what even `always` promised: the judge can tell.
        let lying = &power.by_model["lying-disk"];
        assert!(lying.lost + lying.corrupt + lying.unopenable > 0, "{}: {lying:?}", cell.id);
    }
}

/// The cells of all bundled scenarios that crash in memory, at their quick size.
fn quick() -> Results {
    let sandbox = Sandbox::new();
    let ended = sandbox.run(&["run", "power", "faults", "lsm", "--only", "power,error,rot", "--sync", "always", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    sandbox.result("out")
}

#[test]
fn every_canary_is_convicted_and_every_store_is_green() {
    let results = quick();
    let mut canaries = BTreeMap::new();
    for cell in &results.cells {
        match cell.role {
            Role::Canary => drop(canaries.insert(cell.subject.clone(), cell)),
            _ => assert_eq!(cell.verdict, Verdict::Survived, "{}: {:?}", cell.id, cell.crash.as_ref().unwrap().findings.first()),
        }
    }
    let expected = harness::subject::canary::CANARIES.iter().filter(|c| c.exposed_by != harness::subject::canary::Fault::Kill);
    for canary in expected {
        let cell = canaries.get(canary.name).unwrap_or_else(|| panic!("{} was not tried", canary.name));
        assert!((Verdict::Lost..Verdict::HarnessBroken).contains(&cell.verdict), "{}: {:?}", cell.id, cell.verdict);
    }
    let models = |name: &str| canaries[name].crash.as_ref().unwrap().findings[0].models.clone();
    // The weakest fault is named, not just any that shows it.
    assert_eq!(models("canary-tombstone-dropped"), ["process"]);
    assert_eq!(models("canary-ack-before-sync"), ["ext4-ordered", "xfs", "btrfs"]);
    let barrier = |name: &str| canaries[name].crash.as_ref().unwrap().findings[0].explanation.clone().unwrap();
    let missing = barrier("canary-ack-before-sync");
    assert!(
        missing.verified && missing.barrier.unwrap().starts_with("sync wal-0001.log after call"),
        "{:?}",
        missing.lost_effects
    );
    assert_eq!(missing.lost_effects.len(), 1);
}

#[test]
fn a_finding_is_replayed_from_its_trace_and_shrunk() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "cuts.toml",
        &with(&with(POWER, "[\"typed\"]", "[\"canary-ack-before-sync\", \"typed\"]"), "calls = 40", "calls = 20"),
    );
    assert_eq!(sandbox.run(&["run", "cuts.toml", "--sync", "always", "--out", "out"]).code, Some(exit_code::OK));
    let results = sandbox.result("out");
    let finding = &cell_of(&results, "canary-ack-before-sync").crash.as_ref().unwrap().findings[0];
    let replayed = sandbox.run(&["replay", "out", &finding.id]);
    assert_eq!(replayed.code, Some(exit_code::DURABILITY), "{replayed:?}");
    assert!(replayed.out.starts_with("lost: "), "{replayed:?}");
    let folders = sandbox.list("reports/out/replay");
    assert_eq!(sandbox.list(&format!("reports/out/replay/{}", folders[0])), ["manifest", "wal-0001.log"]);
    let shrunk = sandbox.run(&["shrink", "out", &finding.id, "--out", "small.toml"]);
    assert_eq!(shrunk.code, Some(exit_code::OK), "{shrunk:?}");
    assert_eq!(shrunk.out.matches("[[workload.steps]]").count(), 1, "one write is enough: {}", shrunk.out);
    let again = sandbox.run(&["run", "small.toml", "--out", "again"]);
    assert_eq!(again.code, Some(exit_code::NOTHING), "a canary alone judges nobody: {again:?}");
    let unknown = sandbox.run(&["shrink", "out", "cuts/typed#7"]);
    assert_eq!(unknown.code, Some(exit_code::USAGE), "{unknown:?}");
}

#[test]
fn a_damaged_trace_is_refused_with_a_remedy() {
    let sandbox = Sandbox::new();
    sandbox.write("cuts.toml", &with(POWER, "[\"typed\"]", "[\"canary-ack-before-sync\", \"typed\"]"));
    sandbox.run(&["run", "cuts.toml", "--sync", "always", "--out", "out"]);
    let results = sandbox.result("out");
    let finding = &cell_of(&results, "canary-ack-before-sync").crash.as_ref().unwrap().findings[0];
    let trace = sandbox.list("out/traces").remove(0);
    sandbox.write(&format!("out/traces/{trace}"), "{\"state\":");
    let refused = sandbox.run(&["replay", "out", &finding.id]);
    assert_eq!(refused.code, Some(exit_code::USAGE), "{refused:?}");
    assert!(refused.err.contains(&trace) && refused.err.contains("run the cell again"), "{refused:?}");
}

#[test]
fn a_script_says_each_step() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "script.toml",
        &(SCRIPT.to_owned() + "\n[power]\nstates = 500\n").replace("levels", "subjects = [\"typed\"]\nlevels"),
    );
    assert_eq!(sandbox.run(&["run", "script.toml", "--out", "out"]).code, Some(exit_code::OK));
    let results = sandbox.result("out");
    assert_eq!(cell_of(&results, "typed").crash.as_ref().unwrap().acked, 2);
    for (bad, words) in [
        ("{ get = [0, \"a\"] }", "step 1 of the script must have exactly one of changes, get, push, pop and owner"),
        ("{ get = [3, \"a\"] }", "uses table 3, but there are 1"),
    ] {
        let bad = if bad.contains("[0") { "{ get = [0, \"a\"], owner = \"sync\" }" } else { bad };
        sandbox
            .write("bad.toml", &with(&SCRIPT.replace("levels", "subjects = [\"typed\"]\nlevels"), "{ get = [0, \"a\"] }", bad));
        let refused = sandbox.run(&["run", "bad.toml"]);
        assert_eq!(refused.code, Some(exit_code::USAGE), "{refused:?}");
        assert!(refused.err.contains(words), "{refused:?}");
    }
}

#[test]
fn the_loss_window_tells_policies_apart_and_keeps_its_bound() {
    let sandbox = Sandbox::new();
    let text = with(POWER, "levels = [\"mixed\"]", "levels = [\"write\"]");
    let hub = "kind = \"hub\"\nhubs = 2\npayers = 8\npayees = 4\nclients = 2\nskew = 0.8\n\n[power]";
    let start = text.find("kind = \"mixed\"").unwrap();
    let end = text.find("[power]").unwrap() + "[power]".len();
    let loss = "\n[power.loss]\nmoments = 60\nseconds = 12.0\nrate = 20.0\n";
    sandbox.write(
        "loss.toml",
        &(text[..start].to_owned() + hub + &text[end..] + loss)
            .replace("states = 2500\nshrink-every = 17\nreopen-every = 29", "states = 100"),
    );
    let ended = sandbox.run(&["run", "loss.toml", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    let results = sandbox.result("out");
    let loss = |sync: &str| {
        let cell: &Cell = results.cells.iter().find(|c| c.sync == sync).unwrap();
        cell.crash.as_ref().unwrap().power.as_ref().unwrap().loss.clone().unwrap()
    };
    let (never, second, always) = (loss("never"), loss("interval:1s"), loss("always"));
    assert!(never.unbounded && never.bound_ms.is_none() && never.worst_ms > 6_000.0, "{never:?}");
    assert_eq!(second.bound_ms, Some(1_001.0));
    assert!(second.worst_ms > 500.0 && second.worst_ms <= 1_001.0, "{second:?}");
    assert!(second.duration_ns > 10_000_000_000, "ten intervals or more: {second:?}");
    assert_eq!((always.worst_ops, always.worst_ms, always.bound_ms), (0, 0.0, Some(0.0)));
}

#[test]
fn every_regression_stays_away() {
    let folder = crate::support::root().join("scenarios/regression");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    let scenarios = files.iter().filter(|p| p.extension().is_some_and(|e| e == "toml"));
    let mut ran = 0;
    for scenario in scenarios {
        let sandbox = Sandbox::new();
        let ended = sandbox.run(&["run", scenario.to_str().unwrap(), "--out", "out"]);
        assert_eq!(ended.code, Some(exit_code::OK), "{}: {ended:?}", scenario.display());
        assert!(sandbox.result("out").cells.iter().all(|c| c.kind != CellKind::Bench && c.verdict == Verdict::Survived));
        ran += 1;
    }
    assert!(ran >= 3);
}

#[test]
fn an_unknown_fault_model_is_an_error_with_a_hint() {
    let sandbox = Sandbox::new();
    sandbox.write("cuts.toml", &(POWER.to_owned() + "models = [\"ext4\"]\n"));
    let refused = sandbox.run(&["run", "cuts.toml"]);
    assert_eq!(refused.code, Some(exit_code::USAGE), "{refused:?}");
    assert!(refused.err.contains("unknown fault model \"ext4\""), "{refused:?}");
    sandbox.write("cuts.toml", &with(POWER, "[workload]", "[table-sync]\nlefft = \"always\"\n\n[workload]"));
    let refused = sandbox.run(&["run", "cuts.toml"]);
    assert!(refused.err.contains("table-sync names no table") && refused.err.contains("did you mean \"left\""), "{refused:?}");
}

#[test]
fn a_store_that_never_opens_again_or_never_ends_costs_its_own_cell_only() {
    let sandbox = Sandbox::of_example("broken_stores");
    let text = with(&with(POWER, "[\"typed\"]", "[\"slow\", \"moody\", \"typed\"]"), "calls = 40", "calls = 10");
    sandbox.write("cuts.toml", &(text.replace("reopen-every = 29", "") + "\n[kill]\ntimeout-ms = 1500\n"));
    let ended = sandbox.run(&["run", "cuts.toml", "--sync", "never", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::DURABILITY), "{ended:?}");
    let results = sandbox.result("out");
    assert_eq!(cell_of(&results, "slow").verdict, Verdict::Hung);
    assert!(cell_of(&results, "slow").crash.as_ref().unwrap().findings[0].summary.contains("did not end within 1 s"));
    assert_eq!(cell_of(&results, "moody").verdict, Verdict::Unopenable);
    assert_eq!(cell_of(&results, "typed").verdict, Verdict::Survived);
}

#[test]
fn clients_that_run_free_are_judged_and_replayed_from_their_trace() {
    let sandbox = Sandbox::new();
    let text = with(POWER, "[\"typed\"]", "[\"canary-ack-before-sync\", \"typed\"]") + "threads = true\n";
    // How many different states so many tries find depends on how the threads take turns.
    let text = with(&text, "states = 2500", "states = 8000");
    sandbox.write("cuts.toml", &with(&text, "reopen-every = 29", ""));
    let ended = sandbox.run(&["run", "cuts.toml", "--sync", "always", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    let results = sandbox.result("out");
    let crash = cell_of(&results, "typed").crash.as_ref().unwrap();
    assert!(crash.acked > 20 && crash.power.as_ref().unwrap().states_distinct > 150, "{crash:?}");
    // The run would not come out the same again; its trace does.
    let finding = &cell_of(&results, "canary-ack-before-sync").crash.as_ref().unwrap().findings[0];
    for _ in 0..2 {
        let replayed = sandbox.run(&["replay", "out", &finding.id]);
        assert_eq!(replayed.code, Some(exit_code::DURABILITY), "{replayed:?}");
    }
}
