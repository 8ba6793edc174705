//! Kills end to end: who is right survives, who is broken is convicted, and a judge who convicts nobody
//! is not believed.

use crate::support::{Ended, KILLS, Sandbox, cell_of};
use harness::exit_code;
use harness::history::Moment;
use harness::result::{CellKind, Results, Verdict};
use harness::subject::canary::{CANARIES, Fault, QUEUE_CANARIES};
use std::collections::BTreeMap;

/// Runs `subjects` through kills and gives how it ended and what it found.
fn killed(sandbox: &Sandbox, subjects: &[&str], sync: &[&str], rest: &str) -> (Ended, Results) {
    sandbox.write("kills.toml", &format!("subjects = {subjects:?}\nsync = {sync:?}\n{KILLS}\n{rest}\n"));
    let ended = sandbox.run(&["run", "kills.toml", "--out", "out"]);
    (ended, sandbox.result("out"))
}

#[test]
fn typed_survives_under_every_policy_and_at_every_moment() {
    let policies = ["never", "interval:10ms", "every-second", "always", "manual"];
    let (ended, results) = killed(&Sandbox::new(), &["typed"], &policies, "[kill]\nrandom = 3\naimed = 2\nrounds = 5");
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    assert_eq!(results.cells.len(), policies.len());
    let mut observed: BTreeMap<&str, u64> = BTreeMap::new();
    for cell in &results.cells {
        assert_eq!((cell.kind, cell.verdict), (CellKind::Kill, Verdict::Survived), "{cell:?}");
        let crash = cell.crash.as_ref().unwrap();
        assert!(crash.findings.is_empty() && crash.lost_promised == 0, "{cell:?}");
        assert!(0 < crash.promised && crash.promised <= crash.acked, "{cell:?}");
        assert!(0 < crash.recovery_ns_p50 && crash.recovery_ns_p50 <= crash.recovery_ns_max, "{cell:?}");
        assert_eq!(crash.cases, 3 + 2 * Moment::AIMED.len() as u64, "{cell:?}");
        for moment in Moment::AIMED {
            let aimed = crash.aimed[moment.name()];
            assert_eq!(aimed.tried, 2, "{} of {}", moment.name(), cell.id);
            *observed.entry(moment.name()).or_default() += aimed.observed;
        }
    }
    for moment in Moment::AIMED {
        assert!(observed[moment.name()] > 0, "no kill met {}: {observed:?}", moment.name());
    }
}

/// Those that a kill exposes; the others are for stronger faults.
#[test]
fn every_canary_is_convicted() {
    let canaries: Vec<&str> = CANARIES.iter().filter(|c| c.exposed_by == Fault::Kill).map(|c| c.name).collect();
    assert!(canaries.len() >= 4, "{canaries:?}");
    let subjects: Vec<&str> = ["typed", "control-log", "control-pages"].into_iter().chain(canaries.iter().copied()).collect();
    let (ended, results) = killed(&Sandbox::new(), &subjects, &["never"], "[kill]\nrandom = 2\naimed = 0");
    assert_eq!(ended.code, Some(exit_code::OK), "a convicted canary is no violation: {ended:?}");
    for control in &subjects[..3] {
        assert_eq!(cell_of(&results, control).verdict, Verdict::Survived, "{control}");
    }
    for canary in canaries {
        let cell = cell_of(&results, canary);
        assert!((Verdict::Lost..=Verdict::Hung).contains(&cell.verdict), "{canary}: {:?}", cell.verdict);
        let crash = cell.crash.as_ref().unwrap();
        let [finding] = &crash.findings[..] else { panic!("one finding ends a canary's cell: {crash:?}") };
        assert_eq!(finding.verdict, cell.verdict);
        assert!(!finding.summary.is_empty() && finding.id.starts_with(&format!("{}#", cell.id)), "{finding:?}");
    }
}

#[test]
fn a_canary_that_gets_away_breaks_the_run() {
    let sandbox = Sandbox::of_example("broken_stores");
    let (ended, results) = killed(&sandbox, &["typed", "innocent"], &["never"], "[kill]\nrandom = 2\naimed = 0");
    assert_eq!(ended.code, Some(exit_code::HARNESS), "{ended:?}");
    let innocent = cell_of(&results, "innocent");
    assert_eq!(innocent.verdict, Verdict::HarnessBroken);
    assert!(innocent.reason.as_ref().is_some_and(|reason| reason.contains("no verdict of this run counts")), "{innocent:?}");
    assert_eq!(cell_of(&results, "typed").verdict, Verdict::Survived);
    assert!(ended.out.contains("harness-broken"), "the report says so: {ended:?}");
}

#[test]
fn a_broken_harness_wins_over_a_broken_store() {
    let sandbox = Sandbox::of_example("broken_stores");
    let (ended, results) = killed(&sandbox, &["moody", "innocent"], &["never"], "[kill]\nrandom = 2\naimed = 0");
    assert_eq!(cell_of(&results, "moody").verdict, Verdict::Unopenable);
    assert_eq!(ended.code, Some(exit_code::HARNESS), "{ended:?}");
}

#[test]
fn a_store_that_loses_is_convicted_and_replayed() {
    let sandbox = Sandbox::of_example("broken_stores");
    let (ended, results) = killed(&sandbox, &["forgets"], &["never"], "[kill]\nrandom = 6\naimed = 0");
    assert_eq!(ended.code, Some(exit_code::DURABILITY), "{ended:?}");
    let cell = cell_of(&results, "forgets");
    assert!(matches!(cell.verdict, Verdict::Lost | Verdict::Corrupt), "{cell:?}");
    let crash = cell.crash.as_ref().unwrap();
    assert!(0 < crash.lost_promised && crash.lost_promised <= crash.lost_acked && crash.loss_window_ms_max > 0.0, "{crash:?}");
    let finding = crash.findings.first().unwrap();
    assert_eq!(finding.replay, format!("harness replay RUN '{}'", finding.id));
    assert!(ended.out.contains(&finding.replay), "the report has the command: {ended:?}");
    let number = finding.id.rsplit_once('#').unwrap().1;
    let kept = format!("out/findings/{}-{number}", cell.id.replace('/', "-"));
    assert_eq!(sandbox.list(&kept), ["toy.log"], "the files of the failed store are kept");
    let replay = sandbox.run(&["replay", "out", &finding.id]);
    assert_eq!(replay.code, Some(exit_code::DURABILITY), "{replay:?}");
    assert!(replay.out.starts_with("lost: ") || replay.out.starts_with("corrupt: "), "{replay:?}");
    assert!(replay.err.contains("shown again in attempt"), "{replay:?}");
}

#[test]
fn each_way_to_fail_has_its_verdict() {
    let sandbox = Sandbox::of_example("broken_stores");
    let subjects = ["moody", "slow", "silent"];
    let (ended, results) = killed(&sandbox, &subjects, &["never"], "[kill]\nrandom = 3\naimed = 0\ntimeout-ms = 300");
    assert_eq!(ended.code, Some(exit_code::DURABILITY), "{ended:?}");
    let expected = [
        ("moody", Verdict::Unopenable, "not today"),
        ("slow", Verdict::Hung, "did not end"),
        ("silent", Verdict::Corrupt, "a second opening finds something else"),
    ];
    for (subject, verdict, words) in expected {
        let cell = cell_of(&results, subject);
        assert_eq!(cell.verdict, verdict, "{cell:?}");
        let crash = cell.crash.as_ref().unwrap();
        assert!(crash.findings.iter().any(|finding| finding.summary.contains(words)), "{crash:?}");
        assert_eq!(crash.cases, 3, "a store is judged to the end: {crash:?}");
    }
}

/// Half states are what separate writes leave and batches cannot.
#[test]
fn batches_leave_no_half_open_channel() {
    let sandbox = Sandbox::new();
    let scenario = r#"
        extends = "hub"
        name = "money"
        kinds = ["kill"]
        sync = ["never"]
        kill.random = 6
        [[variant]]
        name = "batched"
        workload.batch = true
    "#;
    sandbox.write("money.toml", scenario);
    let ended = sandbox.run(&["run", "money.toml", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    let results = sandbox.result("out");
    let money = cell_of(&results, "typed").crash.as_ref().unwrap().money.as_ref().unwrap();
    assert!(money.payments_acked > 0 && money.payments_lost == 0 && money.amount_lost == 0, "{money:?}");
    assert!(!money.half_states.contains_key("c1") && !money.half_states.contains_key("c7"), "{money:?}");
}

/// Few kills of a queue; who puts in and who takes out comes on top.
const QUEUES: &str = r#"
schema = 1
name = "queues"
title = "What does a kill take from a queue?"
kinds = ["kill"]
sync = ["never"]
levels = ["mixed"]

[workload]
kind = "queue"
value-bytes = 200
batch = 5
batch-percent = 30
acknowledged-percent = 20
"#;

/// Queues: the store survives in one process and in two, and those that are broken on purpose do not.
#[test]
fn queues_are_killed_and_judged() {
    let sandbox = Sandbox::new();
    let canaries: Vec<&str> = QUEUE_CANARIES.iter().filter(|c| c.exposed_by == Fault::Kill).map(|c| c.name).collect();
    assert_eq!(canaries.len(), 5);
    let subjects: Vec<&str> = ["fifo-small"].into_iter().chain(canaries.iter().copied()).collect();
    let queue = |subjects: &[&str]| format!("subjects = {subjects:?}\n{QUEUES}\n");
    let one = format!("{}front-percent = 15\nproducers = 3\nconsumers = 0\npop-percent = 45\n", queue(&subjects));
    sandbox.write("one.toml", &format!("{one}[kill]\nrandom = 4\naimed = 1\n"));
    let ended = sandbox.run(&["run", "one.toml", "--out", "one"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    let results = sandbox.result("one");
    let cell = cell_of(&results, "fifo-small");
    let crash = cell.crash.as_ref().unwrap();
    assert_eq!(cell.verdict, Verdict::Survived, "{cell:?}");
    assert!(crash.promised > 100 && !crash.aimed.contains_key("inside-1mib-write"), "{crash:?}");
    for canary in canaries {
        let verdict = cell_of(&results, canary).verdict;
        assert!((Verdict::Lost..=Verdict::Hung).contains(&verdict), "{canary}: {verdict:?}");
    }
    let two = format!("{}two-processes = true\nproducers = 2\nconsumers = 2\n", queue(&["fifo-small"]));
    sandbox.write("two.toml", &format!("{two}[kill]\nrandom = 4\naimed = 1\n"));
    let ended = sandbox.run(&["run", "two.toml", "--out", "two"]);
    assert!(ended.err.contains("survived"), "{ended:?}");
    let results = sandbox.result("two");
    let crash = cell_of(&results, "fifo-small").crash.as_ref().unwrap().clone();
    assert!(crash.promised > 100 && crash.lost_promised == 0 && crash.findings.is_empty(), "{crash:?}");
}
