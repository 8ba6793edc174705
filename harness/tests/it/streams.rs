//! Streams of calls, for any parameters: the same for the same seed, in keys of one's own, with values
//! that say which write they are. The judge of a crash builds on each of these.

use engine::Durability;
use harness::workload::Workload;
use harness::workload::commit::Commit;
use harness::workload::hub::{Hub, TABLES};
use harness::workload::mixed::Mixed;
use harness::workload::stream::{Action, Call, Meaning, OwnedChange};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const CALLS: usize = 600;

fn calls(workload: &Workload, seed: u64, round: u64, client: u64) -> Vec<Call> {
    workload.stream(Durability::Write, seed, round, client).unwrap().take(CALLS).collect()
}

fn changes(calls: &[Call]) -> impl Iterator<Item = &OwnedChange> {
    calls.iter().flat_map(|call| match &call.action {
        Action::Write { changes, .. } => &changes[..],
        _ => &[],
    })
}

fn commit() -> impl Strategy<Value = Workload> {
    (1u64..5, 0u64..200, 0u64..300)
        .prop_map(|(clients, keys, value_bytes)| Workload::Commit(Commit { clients, keys, value_bytes }))
}

fn mixed() -> impl Strategy<Value = Workload> {
    let shares = (0u64..=100, 0u64..=100, 0u64..=50, 0u64..=50);
    (1u64..5, 0u64..40, 0u64..300, shares).prop_map(|(clients, keys, value_bytes, shares)| {
        let (delete_percent, batch_percent, async_percent, sync_percent) = shares;
        Workload::Mixed(Mixed {
            clients,
            keys,
            value_bytes,
            big_every: 200,
            delete_percent,
            batch_percent,
            async_percent,
            sync_percent,
        })
    })
}

fn hub() -> impl Strategy<Value = Hub> {
    let parties = (1u64..4, 0u64..70, 1u64..20, 1u64..5);
    let bytes = (0u64..400, 0u64..2_500, 0u64..1_500, 0u64..1_000);
    (parties, 0.0..1.5, 0u64..6, any::<bool>(), bytes).prop_map(|(parties, skew, payments, batch, bytes)| {
        let (hubs, payers, payees, clients) = parties;
        let (voucher_bytes, channel_bytes, objective_bytes, ledger_bytes) = bytes;
        Hub { hubs, payers, payees, clients, skew, payments, batch, voucher_bytes, channel_bytes, objective_bytes, ledger_bytes }
    })
}

fn any_workload() -> impl Strategy<Value = Workload> {
    prop_oneof![commit(), mixed(), hub().prop_map(Workload::Hub)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_seed_gives_the_same_calls(workload in any_workload(), seed: u64, round in 0u64..1_000) {
        for client in 0..workload.clients() {
            prop_assert_eq!(calls(&workload, seed, round, client), calls(&workload, seed, round, client));
        }
    }

    #[test]
    fn clients_own_their_keys(workload in any_workload(), seed: u64, round in 0u64..1_000) {
        let tables = workload.tables().len();
        let mut owner: BTreeMap<(usize, String), u64> = BTreeMap::new();
        for client in 0..workload.clients() {
            for change in changes(&calls(&workload, seed, round, client)) {
                prop_assert!(change.table < tables);
                let first = *owner.entry((change.table, change.key.clone())).or_insert(client);
                prop_assert_eq!(first, client, "{} of table {} belongs to two", &change.key, change.table);
            }
        }
    }

    #[test]
    fn a_value_says_which_write_it_is(workload in any_workload(), seed: u64, round in 0u64..1_000) {
        let mut seen = HashSet::new();
        for client in 0..workload.clients() {
            for change in changes(&calls(&workload, seed, round, client)) {
                if let Some(value) = &change.value {
                    prop_assert!(seen.insert(value.clone()), "{:?} is written twice", value);
                }
            }
        }
    }

    /// The next round goes on in the same store, so its values must not be those of the round before.
    #[test]
    fn rounds_share_no_value(workload in prop_oneof![mixed(), hub().prop_map(Workload::Hub)], seed: u64) {
        let values = |round| -> HashSet<String> {
            let all = (0..workload.clients()).flat_map(|client| calls(&workload, seed, round, client)).collect::<Vec<_>>();
            changes(&all).filter_map(|change| change.value.clone()).collect()
        };
        prop_assert!(values(3).is_disjoint(&values(4)));
    }

    #[test]
    fn operations_end_and_writes_are_not_empty(workload in any_workload(), seed: u64) {
        let calls = calls(&workload, seed, 0, 0);
        prop_assert!(calls.iter().filter(|call| call.last).count() > 1);
        for call in &calls {
            if let Action::Write { changes, .. } = &call.action {
                prop_assert!(!changes.is_empty());
            }
        }
    }

    #[test]
    fn mixed_levels_are_those_asked_for(spec in mixed(), seed: u64) {
        let Workload::Mixed(spec) = spec else { unreachable!() };
        let none = Mixed { async_percent: 0, sync_percent: 0, batch_percent: 0, ..spec.clone() };
        for call in calls(&Workload::Mixed(none), seed, 0, 0) {
            let plain = matches!(&call.action, Action::Write { changes, level: Durability::Write } if changes.len() == 1);
            prop_assert!(plain, "{:?}", call);
        }
        for call in calls(&Workload::Mixed(Mixed { batch_percent: 100, ..spec }), seed, 0, 0) {
            let Action::Write { changes, level } = &call.action else { panic!("{call:?}") };
            prop_assert!((2..=5).contains(&changes.len()) && *level >= Durability::Write, "a batch is never only buffered");
        }
    }

    #[test]
    fn channels_are_opened_paid_through_and_closed(spec in hub(), seed: u64, round in 0u64..1_000) {
        for client in 0..spec.clients {
            channels(&Hub { batch: false, ..spec.clone() }, seed, round, client)?;
            channels(&Hub { batch: true, ..spec.clone() }, seed, round, client)?;
        }
    }

    #[test]
    fn batches_hold_the_same_changes(spec in hub(), seed: u64) {
        let flat = |batch| {
            let workload = Workload::Hub(Hub { batch, ..spec.clone() });
            let calls = workload.stream(Durability::Sync, seed, 1, 0).unwrap();
            let each = calls.flat_map(|call| match call.action {
                Action::Write { changes, level } => {
                    assert_eq!(level, Durability::Sync);
                    changes.into_iter().map(|c| (call.op, Some(c), String::new())).collect()
                }
                Action::Get { key, .. } => vec![(call.op, None, key)],
                other => panic!("{other:?}"),
            });
            each.take(CALLS).collect::<Vec<_>>()
        };
        prop_assert_eq!(flat(false), flat(true));
    }
}

/// The first channels of a client, call by call, against what the workload's header says of them.
fn channels(spec: &Hub, seed: u64, round: u64, client: u64) -> Result<(), TestCaseError> {
    let workload = Workload::Hub(spec.clone());
    let mut stream = workload.stream(Durability::Write, seed, round, client).unwrap();
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let mut of: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
        let mut operations = Vec::new();
        loop {
            let call = stream.next().unwrap();
            let ended = call.last.then_some(call.op);
            of.entry(call.op).or_default().push(call);
            operations.extend(ended);
            if ended == Some("close") {
                break;
            }
        }
        let payments = operations.len() - 2;
        prop_assert_eq!(operations[0], "open");
        prop_assert!(operations[1..=payments].iter().all(|op| *op == "pay"), "{:?}", operations);
        prop_assert!((2..=spec.payments.max(1) as usize + 1).contains(&payments), "the first and 1 to {} more", spec.payments);
        // Opening: five steps of four writes, and ownership taken and given back. Closing: five of three.
        let table = |op: &str, table: usize| changes(&of[op]).filter(|change| change.table == table).collect::<Vec<_>>();
        let counts = |op: &str| (0..TABLES.len()).map(|t| table(op, t).len()).collect::<Vec<_>>();
        prop_assert_eq!(counts("open"), [5, 5, 10, 2, 0]);
        prop_assert_eq!(counts("close"), [5, 0, 10, 2, 2]);
        prop_assert_eq!(counts("pay"), [0, 0, 0, 0, 2 * payments]);
        let (open, close) = if spec.batch { (5, 5 + 2) } else { (5 * 4 + 2, 5 * 3 + 2 + 2) };
        prop_assert_eq!((of["open"].len(), of["close"].len(), of["pay"].len()), (open, close, 4 * payments));
        let id = &table("open", 1)[0].key;
        prop_assert!(ids.insert(id.clone()), "channel {} is opened twice", id);
        prop_assert!(table("open", 1).iter().all(|change| change.key == *id));
        for (op, objective) in [("open", format!("fund-{id}")), ("close", format!("defund-{id}"))] {
            prop_assert!(table(op, 0).iter().all(|change| change.key == objective), "{}", objective);
        }
        for op in ["open", "close"] {
            let owners = table(op, 3);
            prop_assert!(
                owners[0].key == *id && owners[0].value.is_some() && owners[1].value.is_none(),
                "taken, then given back"
            );
            prop_assert_eq!(table(op, 2).iter().map(|change| &change.key).collect::<BTreeSet<_>>().len(), 2, "two ledgers");
        }
        let vouchers: Vec<bool> = table("close", 4).iter().map(|change| change.value.is_none()).collect();
        prop_assert_eq!(vouchers, [true, true], "vouchers go with their channel");
        // A payment reads and writes the sender's side, then the receiver's; the latter is what counts.
        for payment in of["pay"].chunks(4) {
            let [get_payer, put_payer, get_payee, put_payee] = payment else { panic!("{payment:?}") };
            for (get, put, side) in [(get_payer, put_payer, "payer"), (get_payee, put_payee, "payee")] {
                let voucher = format!("{id}-{side}");
                prop_assert!(matches!(&get.action, Action::Get { table: 4, key } if *key == voucher), "{:?}", get);
                let written = changes(std::slice::from_ref(put)).next().unwrap();
                prop_assert_eq!((written.table, &written.key), (4, &voucher));
                let text = written.value.as_ref().unwrap();
                prop_assert!(text.len() >= spec.voucher_bytes as usize);
                if let Meaning::Voucher { wei } = put.meaning {
                    let tag = format!("voucher-{wei}|");
                    prop_assert!(side == "payee" && text.starts_with(&tag), "{} {:?}", wei, put);
                } else {
                    prop_assert_eq!(side, "payer");
                }
            }
        }
        prop_assert!(of["open"].iter().all(|call| call.meaning == Meaning::Objective));
    }
    Ok(())
}

/// Without this, a value that survived the round before can stand for one that was lost.
#[test]
fn rounds_of_commit_share_no_value() {
    let workload = Workload::Commit(Commit { clients: 1, keys: 10, value_bytes: 20 });
    let values = |round| -> HashSet<String> {
        changes(&calls(&workload, 1, round, 0)).filter_map(|change| change.value.clone()).collect()
    };
    assert!(values(0).is_disjoint(&values(1)));
}

/// A stream is pinned call by call: a change of the generator would make every published seed mean
/// something else.
#[test]
fn a_seed_means_the_same_calls_for_ever() {
    let digest = |workload: &Workload, round| {
        let calls = calls(workload, 42, round, 1);
        let each = changes(&calls).map(|c| format!("{} {} {}\n", c.table, c.key, c.value.as_deref().unwrap_or("-")));
        engine::codec::crc32c(each.collect::<String>().as_bytes())
    };
    let commit = Workload::Commit(Commit { clients: 2, keys: 10, value_bytes: 20 });
    let mixed = Workload::Mixed(Mixed {
        clients: 2,
        keys: 8,
        value_bytes: 100,
        big_every: 0,
        delete_percent: 15,
        batch_percent: 20,
        async_percent: 10,
        sync_percent: 5,
    });
    let hub: Hub = serde_json::from_str(r#"{"hubs": 2, "payers": 16, "payees": 4, "clients": 2, "skew": 1.0}"#).unwrap();
    assert_eq!([digest(&commit, 0), digest(&mixed, 7), digest(&Workload::Hub(hub), 7)], PINNED);
}

const PINNED: [u32; 3] = [345_124_128, 4_013_459_845, 814_567_503];

/// The oracle tells entries apart by their texts.
#[test]
fn no_two_entries_of_a_queue_are_the_same() {
    let shares = "batch-percent = 30\nfront-percent = 10\npop-percent = 20\nsync-percent = 5";
    let spec = format!("producers = 3\nconsumers = 1\nvalue-bytes = 60\nbatch = 4\n{shares}");
    let workload = Workload::Queue(toml::from_str(&spec).unwrap());
    assert_eq!(workload.clients(), 4);
    let (mut texts, mut taken) = (HashSet::new(), 0);
    for (round, client) in (0..3).flat_map(|round| (0..4).map(move |client| (round, client))) {
        let calls = calls(&workload, 7, round, client);
        assert_eq!(calls, self::calls(&workload, 7, round, client));
        for call in &calls {
            match &call.action {
                Action::Push { values, .. } => {
                    assert!(client < 3, "a consumer only takes out");
                    assert!(values.iter().all(|text| texts.insert(text.clone())), "{values:?}");
                }
                Action::Pop { .. } => taken += u64::from(client < 3),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(texts.len() > 3_000 && (500..1_600).contains(&taken), "{} {taken}", texts.len());
}
