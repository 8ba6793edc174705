//! Time to first payment: store calls as in the source's inventory, a reproducible simulation, and the
//! published figures.

use engine::{Durability, SyncPolicy};
use harness::subject::typed::Typed;
use harness::subject::{Change, Contents, Promise, Session, Site, Subject, SubjectError};
use harness::workload::ttfp::{Disk, Outcome, Simulated, TABLES, TtfpError, TtfpSpec, check, fit, run_real, run_virtual};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The typed store with a list of the calls that change something.
#[derive(Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Clone, Debug)]
struct Call {
    party: u32,
    table: &'static str,
    key: String,
    value: Option<String>,
    batched: bool,
}

struct RecordedSession {
    party: u32,
    inner: Box<dyn Session>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Subject for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }
    fn version(&self) -> String {
        Typed.version()
    }
    fn about(&self) -> String {
        Typed.about()
    }
    fn supports(&self, policy: SyncPolicy) -> bool {
        Typed.supports(policy)
    }
    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        Typed.promise(policy, level)
    }
    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let name = site.dir.file_name().unwrap().to_str().unwrap();
        let party = name.strip_prefix("party-").unwrap().parse().unwrap();
        Ok(Box::new(RecordedSession { party, inner: Typed.open(site)?, calls: Arc::clone(&self.calls) }))
    }
}

impl RecordedSession {
    fn record(&self, change: Change<'_>, batched: bool) {
        let call = Call {
            party: self.party,
            table: TABLES[change.table],
            key: change.key.to_owned(),
            value: change.value.map(str::to_owned),
            batched,
        };
        self.calls.lock().unwrap().push(call);
    }
}

impl Session for RecordedSession {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        self.record(change, false);
        self.inner.apply(change, level)
    }
    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        changes.iter().for_each(|change| self.record(*change, true));
        self.inner.batch(changes, level)
    }
    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        self.inner.get(table, key, look)
    }
    fn sync(&self) -> Result<(), SubjectError> {
        self.inner.sync()
    }
    fn contents(&self) -> Result<Contents, SubjectError> {
        self.inner.contents()
    }
    fn shrink(&self) -> Result<bool, SubjectError> {
        self.inner.shrink()
    }
    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        self.inner.maintain(now)
    }
    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        self.inner.close()
    }
}

/// One hub (party 0), one payer (1), one payee (2), one channel from beginning to end.
fn one_channel() -> TtfpSpec {
    TtfpSpec { payers: 1, payees: 1, jobs: 1, stagger_ms: 0, ..on(machine(0, 0), 60) }
}

fn machine(cpu_per_message_us: u64, sync_latency_us: u64) -> Simulated {
    Simulated { cpu_per_message_us, sync_latency_us, ..Simulated::default() }
}

fn on(machine: Simulated, duration_ms: u64) -> TtfpSpec {
    TtfpSpec { bug_compatible: true, simulated: Some(Simulated { duration_ms, ..machine }), ..TtfpSpec::default() }
}

fn single_job(cpu_us: u64, sync_us: u64) -> TtfpSpec {
    TtfpSpec { payers: 1, jobs: 1, jitter_us: 0, poll_us: 0, ..on(machine(cpu_us, sync_us), 3_000) }
}

fn record(spec: &TtfpSpec, sync: SyncPolicy) -> (Vec<Call>, Outcome) {
    let recorder = Recorder::default();
    let outcome = run_virtual(spec, &recorder, sync).unwrap();
    let calls = recorder.calls.lock().unwrap().clone();
    (calls, outcome)
}

fn run(spec: &TtfpSpec, sync: SyncPolicy) -> Outcome {
    run_virtual(spec, &Typed, sync).unwrap()
}

/// Changes of tables that go-nitro syncs, made by steps of objectives of this kind, by party.
fn synced_sets(calls: &[Call], kind: &str) -> [usize; 3] {
    [0, 1, 2].map(|party| {
        let of_kind = |call: &&Call| call.value.as_deref().is_some_and(|value| value.starts_with(kind));
        let own = calls.iter().filter(|call| call.party == party && call.table != "chan_to_obj" && call.table != "vouchers");
        own.filter(of_kind).count()
    })
}

#[test]
fn store_calls_are_those_of_the_inventory() {
    // Arrivals in other orders make the same calls.
    for seed in 0..20 {
        let spec = TtfpSpec { seed, ..one_channel() };
        let (calls, outcome) = record(&spec, SyncPolicy::Always);
        assert_eq!(outcome.samples.len(), 1);
        let [hub, payer, payee] = synced_sets(&calls, "VirtualFund-");
        assert_eq!((payer, payee, hub), (18, 18, 20), "seed {seed}");
        let [hub_too, payer_too, payee_too] = synced_sets(&calls, "VirtualDefund-");
        assert_eq!((payer + payer_too, payee + payee_too, hub + hub_too), (29, 28, 35), "seed {seed}");

        // The hub funds a ledger with each of the two others; ten sets, the ledger, and the channel's end.
        let [hub, payer, payee] = synced_sets(&calls, "DirectFunding-");
        let ended = |party| calls.iter().filter(|c| c.party == party && c.table == "channels" && c.value.is_none()).count();
        assert_eq!((payer + ended(1), payee + ended(2), hub + ended(0)), (12, 12, 24));

        // Ownership is taken and given up once for each objective.
        for (party, objectives) in [(0, 4), (1, 3), (2, 3)] {
            let (taken, given): (Vec<&Call>, Vec<&Call>) =
                calls.iter().filter(|c| c.party == party && c.table == "chan_to_obj").partition(|c| c.value.is_some());
            assert_eq!((taken.len(), given.len()), (objectives, objectives), "party {party}");
        }
        // What was synced beyond the set-up: every set of the lifetime, nothing else.
        assert_eq!(outcome.syncs, 29 + 28 + 35);
        assert!(calls.iter().all(|c| !c.batched && c.table != "vouchers"));
    }
}

#[test]
fn the_fixed_variant_writes_no_channel_that_does_not_exist_and_syncs_ownership() {
    let (calls, outcome) = record(&TtfpSpec { bug_compatible: false, ..one_channel() }, SyncPolicy::Always);
    let nobody = format!("0x{:064x}", 0);
    assert!(calls.iter().all(|call| call.key != nobody));
    // Without the three at the payer and two at the payee, with two owners taken and given up each.
    assert_eq!(outcome.syncs, (29 - 3 + 4) + (28 - 2 + 4) + (35 + 4));
    let (calls, _) = record(&one_channel(), SyncPolicy::Always);
    assert_eq!(calls.iter().filter(|call| call.key == nobody).count(), 5);
}

#[test]
fn values_say_what_they_are_and_have_the_size_of_the_source() {
    let (calls, _) = record(&one_channel(), SyncPolicy::Never);
    for call in calls.iter().filter(|call| call.table != "chan_to_obj") {
        let Some(value) = &call.value else { continue };
        let words: Vec<&str> = value.split(' ').collect();
        assert_eq!(words[1], "step", "{value}");
        assert_eq!(words[5].parse(), Ok(value.len()), "{value}");
    }
    let ledgers = calls.iter().filter(|call| call.table == "consensus_channels" && call.value.is_some());
    let sizes: std::collections::BTreeSet<usize> = ledgers.map(|call| call.value.as_ref().unwrap().len()).collect();
    // That of nobody; bare; a guarantee; a queued proposal; both.
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [400, 1_000, 1_323, 1_629, 1_952]);
}

#[test]
fn vouchers_are_kept_when_asked_for() {
    let spec = TtfpSpec { persist_vouchers: true, more_payments_min: 2, more_payments_max: 2, ..one_channel() };
    let (calls, outcome) = record(&spec, SyncPolicy::Always);
    assert_eq!(outcome.payments, 3);
    for (party, set) in [(0, 1), (1, 4), (2, 4)] {
        let own: Vec<&Call> = calls.iter().filter(|call| call.party == party && call.table == "vouchers").collect();
        assert_eq!(own.iter().filter(|call| call.value.is_some()).count(), set, "party {party}");
        assert_eq!(own.last().unwrap().value, None, "party {party}");
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let spec = on(machine(2_000, 700), 2_000);
    for sync in [SyncPolicy::Never, SyncPolicy::EVERY_SECOND, SyncPolicy::Always] {
        assert_eq!(run(&spec, sync), run(&spec, sync));
    }
    assert_ne!(run(&spec, SyncPolicy::Never), run(&TtfpSpec { seed: 2, ..spec }, SyncPolicy::Never));
}

#[test]
fn an_idle_job_takes_five_hops() {
    let outcome = run(&single_job(0, 0), SyncPolicy::Never);
    assert!(outcome.samples.len() > 5);
    assert!(outcome.samples.iter().all(|sample| sample.ttfp_ns == 50_000_000 && sample.syncs == 0.0), "{outcome:?}");
    // A payer that looks every 7 ms sees it at 56 ms.
    let outcome = run(&TtfpSpec { poll_us: 7_000, ..single_job(0, 0) }, SyncPolicy::Never);
    assert!(outcome.samples.iter().all(|sample| sample.ttfp_ns == 56_000_000));
}

#[test]
fn a_single_job_waits_for_its_serial_syncs() {
    for disk in [Disk::Shared, Disk::Parallel] {
        for cpu in [0, 1_500] {
            let mut spec = single_job(cpu, 2_000);
            spec.simulated.as_mut().unwrap().disk = disk;
            let (never, always) = (run(&spec, SyncPolicy::Never), run(&spec, SyncPolicy::Always));
            assert!((24.0..=35.0).contains(&always.syncs_on_path()), "{} syncs", always.syncs_on_path());
            let check = check(&never, &always, 2_000_000);
            match disk {
                Disk::Parallel => {
                    assert_eq!(always.mean_sync_ns(), 2_000_000);
                    // Which of two messages comes first may change with the syncs: one turn's processor time.
                    let tolerance = 0.01 * check.expected_ns + cpu as f64 * 1e3;
                    assert!((check.observed_ns - check.expected_ns).abs() < tolerance, "{cpu} {check:?}");
                }
                // The others' syncs are in the way of those on the path.
                Disk::Shared => {
                    assert!(always.mean_sync_ns() > 2_000_000);
                    assert!(check.observed_ns > 1.1 * check.expected_ns, "{cpu} {check:?}");
                }
            }
        }
    }
}

#[test]
fn a_sync_of_an_interval_holds_its_party_up() {
    for cpu in [0, 1_500] {
        let spec = single_job(cpu, 50_000);
        let undisturbed = run(&spec, SyncPolicy::Never).median_ns();
        let outcome = run(&spec, SyncPolicy::Interval(Duration::from_millis(130)));
        assert!(outcome.samples.iter().any(|sample| sample.syncs > 0.2), "{outcome:?}");
        for sample in &outcome.samples {
            let expected = undisturbed + sample.syncs * 50e6;
            // Two messages that waited for the end of the sync are then taken one after the other.
            assert!((sample.ttfp_ns as f64 - expected).abs() <= 2.0 + 3e3 * cpu as f64, "{cpu} {sample:?} {expected}");
        }
    }
}

#[test]
fn a_batch_for_each_objective_saves_syncs() {
    let spec = single_job(0, 2_000);
    let single = run(&spec, SyncPolicy::Always);
    let batched = run(&TtfpSpec { batch: true, ..spec.clone() }, SyncPolicy::Always);
    assert!(batched.syncs_on_path() < single.syncs_on_path() / 2.0);
    assert!(batched.median_ns() < single.median_ns());
    // One for each storing of an objective, and nothing else: six and four at an end, five and five at the hub.
    let (calls, outcome) = record(&TtfpSpec { batch: true, ..one_channel() }, SyncPolicy::Always);
    assert_eq!(outcome.syncs, (6 + 4) + (6 + 4) + (5 + 5));
    assert!(calls.iter().filter(|call| call.table == "objectives").all(|call| call.batched));
}

#[test]
fn syncing_at_the_end_of_a_turn_syncs_once() {
    let (_, outcome) = record(&TtfpSpec { sync_at_end: true, ..one_channel() }, SyncPolicy::Manual);
    // As many as with batches, except that a new objective and its approval share a turn.
    assert_eq!(outcome.syncs, (6 + 4) + (5 + 3) + (4 + 4));
    let refused = run_virtual(&TtfpSpec { sync_at_end: true, ..one_channel() }, &Typed, SyncPolicy::Always);
    assert!(matches!(refused, Err(TtfpError::Spec(_))));
}

#[test]
fn a_table_can_have_a_policy_of_its_own() {
    let text = "per-store = { objectives = \"always\" }\nbug-compatible = true\n";
    let TtfpSpec { per_store, .. } = toml::from_str(text).unwrap();
    let (calls, outcome) = record(&TtfpSpec { per_store, ..one_channel() }, SyncPolicy::Never);
    let funded = calls.iter().filter(|call| call.table == "objectives" && !call.value.as_ref().unwrap().starts_with("Direct"));
    assert_eq!(outcome.syncs, funded.count() as u64);
    let misspelt = TtfpSpec {
        per_store: BTreeMap::from([("objective".to_owned(), harness::subject::SyncPolicyText(SyncPolicy::Never))]),
        ..one_channel()
    };
    let refused = misspelt.validate(SyncPolicy::Never).unwrap_err().to_string();
    assert!(refused.contains("did you mean \"objectives\"?"), "{refused}");
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    assert!(toml::from_str::<TtfpSpec>("hub = 1").is_err());
    let bad = [
        TtfpSpec { hubs: 0, ..TtfpSpec::default() },
        TtfpSpec { tick_ms: 0, ..TtfpSpec::default() },
        TtfpSpec { jitter_us: 20_000, ..TtfpSpec::default() },
        TtfpSpec { more_payments_min: 5, ..TtfpSpec::default() },
        TtfpSpec { duration_ms: u64::MAX, ..TtfpSpec::default() },
    ];
    for spec in bad {
        assert!(matches!(run_virtual(&spec, &Typed, SyncPolicy::Never), Err(TtfpError::Spec(_))), "{spec:?}");
    }
    let nothing = run_virtual(&on(machine(0, 0), 20), &Typed, SyncPolicy::Never);
    assert!(matches!(nothing, Err(TtfpError::Nothing)));
}

#[test]
fn messages_that_overtake_each_other_leave_nothing_open() {
    // Close to no pause before closing, and delays from nothing to twice the usual: proposals arrive
    // before the hub is ready for them, wishes to close before the channel is open.
    for cpu in [0, 3_000] {
        let spec = TtfpSpec { hold_ms: 0, poll_us: 0, jitter_us: 10_000, jobs: 8, tick_ms: 2, ..on(machine(cpu, 0), 3_000) };
        assert!(run(&spec, SyncPolicy::Never).samples.len() > 100);
    }
}

#[test]
fn hundreds_of_payers_are_simulated() {
    let spec = TtfpSpec { payers: 300, payees: 20, jobs: 1, ..on(machine(50, 20), 1_000) };
    let outcome = run(&spec, SyncPolicy::Always);
    assert!(outcome.samples.len() >= 300, "{}", outcome.samples.len());
    assert!(outcome.hub_busy > 0.5, "{}", outcome.hub_busy);
    let shown = outcome.to_result(&spec, SyncPolicy::Always);
    assert_eq!(shown.published_ns, None);
    assert!(shown.hub_queue_p99 > 0 && shown.model.is_some());
}

#[test]
fn two_fitted_numbers_predict_the_third_published_figure() {
    for disk in [Disk::Shared, Disk::Parallel] {
        let simulated = Some(Simulated { disk, duration_ms: 20_000, ..Simulated::default() });
        let fitted = fit(&TtfpSpec { simulated, ..TtfpSpec::default() }, &Typed).unwrap();

        assert!((fitted.never_ms / 84.1 - 1.0).abs() < 0.02, "{disk:?} {fitted:?}");
        assert!((fitted.always_ms / 247.0 - 1.0).abs() < 0.02, "{disk:?} {fitted:?}");
        assert!((fitted.every_second_ms / 86.5 - 1.0).abs() < 0.05, "{disk:?} {fitted:?}");
    }
}

#[test]
fn real_threads_open_channels_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let spec = TtfpSpec {
        duration_ms: 300,
        message_latency_us: 1_000,
        jitter_us: 100,
        hold_ms: 10,
        bug_compatible: true,
        ..TtfpSpec::default()
    };
    let outcome = run_real(&spec, &Typed, SyncPolicy::Always, dir.path()).unwrap();
    assert!(!outcome.samples.is_empty() && outcome.payments >= 2 * outcome.samples.len() as u64);
    assert!(outcome.samples.iter().all(|sample| sample.syncs >= 18.0 && sample.ttfp_ns >= 4_500_000), "{outcome:?}");
    assert!(outcome.mean_sync_ns() > 0);
    assert!(outcome.hub_busy > 0.0 && outcome.hub_busy <= 1.0);
    assert!(dir.path().join("party-7/typed.db").exists());
    let shown = outcome.to_result(&spec, SyncPolicy::Always);
    assert_eq!((shown.count, shown.model.is_none()), (outcome.samples.len() as u64, true));
}
