//! Rewriting a log: whatever call the process dies after, and whatever call fails, nothing is lost.

use crate::support::{Image, bytes, integers, kill_images, mem, mem_with, open, pairs, path, quiet};
use engine::Error;
use engine::fs::{CallKind, FailingFs, Fault, MemFs, Plan, TraceFs};
use engine::typed::Store;
use std::collections::BTreeMap;
use std::sync::Arc;

const GO_PERSIST: &[u8] = b"go-persist 1\nS m:a\n1\nS m:b\n2\nD m:b\n\nS m:a\n3\nS m:c\n4\n";

/// A store with superseded records, deletes and a batch.
fn crowded() -> (Image, BTreeMap<String, i64>) {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    for i in 0..30 {
        map.set(&format!("k{}", i % 7), i).unwrap();
    }
    map.delete("k3").unwrap();
    let mut batch = store.batch();
    batch.set(&map, "k4", 100).unwrap();
    batch.delete(&map, "k5").unwrap();
    batch.commit_sync().unwrap();
    let expected = integers(&store, "m");
    drop(map);
    store.close().unwrap();
    (fs.image(), expected)
}

/// Runs `work` on a store that starts from `image`, then opens every image that SIGKILL may leave.
fn survives_kills(image: &Image, expected: &[BTreeMap<String, i64>], work: impl FnOnce(TraceFs)) {
    let inner = crate::support::copy(&MemFs::from_image(image));
    let traced = TraceFs::new(Arc::new(inner));
    work(traced.clone());
    let mut seen = 0;
    kill_images(image, &traced.recorder().entries(), |what, fs| {
        for _ in 0..2 {
            let store = Store::open(path(), quiet(fs.clone())).unwrap_or_else(|e| panic!("{what}: {e}"));
            let found = integers(&store, "m");
            assert!(expected.contains(&found), "{what}: {found:?}");
        }
        // And it goes on.
        open(&fs).map("m").unwrap().set("after", 1i64).unwrap();
        assert_eq!(integers(&open(&fs), "m").get("after"), Some(&1), "{what}");
        seen += 1;
    });
    assert!(seen > 5, "the trace is shorter than the work");
}

#[test]
fn a_kill_during_a_shrink_loses_nothing() {
    let (image, expected) = crowded();
    survives_kills(&image, &[expected], |fs| open(&fs).shrink().unwrap());
}

#[test]
fn a_kill_during_a_conversion_loses_nothing() {
    let image = mem_with(GO_PERSIST).image();
    let old = pairs(&[("a", 3), ("c", 4)]);
    let new = pairs(&[("a", 3), ("c", 4), ("new", 5)]);
    survives_kills(&image, &[old, new], |fs| open(&fs).map("m").unwrap().set("new", 5i64).unwrap());
}

#[test]
fn a_kill_during_creation_leaves_a_store_or_none() {
    survives_kills(&mem().image(), &[BTreeMap::new(), pairs(&[("k", 1)])], |fs| {
        open(&fs).map("m").unwrap().set_sync("k", 1i64).unwrap();
    });
}

#[test]
fn a_shrink_under_writes_can_be_killed_at_any_call() {
    let (image, _) = crowded();
    let inner = MemFs::from_image(&image);
    let traced = TraceFs::new(Arc::new(inner));
    let store = open(&traced);
    let map = store.map::<i64>("m").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| store.shrink().unwrap());
        for i in 0..40 {
            traced.recorder().note(format!("begin {i}"));
            map.set("counter", i).unwrap();
            traced.recorder().note(format!("end {i}"));
        }
    });
    let entries = traced.recorder().entries();
    for upto in 0..=entries.len() {
        let mut replay = crate::support::Replay::onto(&image);
        let (mut begun, mut ended) = (None, None);
        for entry in &entries[..upto] {
            replay.apply(entry);
            if let engine::fs::FsOp::Note { text } = &entry.op {
                let (what, n) = text.split_once(' ').unwrap();
                *(if what == "begin" { &mut begun } else { &mut ended }) = Some(n.parse::<i64>().unwrap());
            }
        }
        let found = open(&replay.fs).map::<i64>("m").unwrap().get("counter");
        assert!(found == begun || found == ended, "after {upto} calls: {found:?} is neither {begun:?} nor {ended:?}");
    }
}

const KINDS: [CallKind; 9] = [
    CallKind::Open,
    CallKind::Create,
    CallKind::Rename,
    CallKind::Remove,
    CallKind::SyncDir,
    CallKind::Read,
    CallKind::Write,
    CallKind::SetLen,
    CallKind::Sync,
];

/// Fails each call of each kind during `work` on an open store; the store must keep everything, go on
/// writing unless it is poisoned, and open again.
fn survives_faults(image: &Image, expected: &BTreeMap<String, i64>, work: impl Fn(&Store) -> engine::Result<()>) {
    for kind in KINDS {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short(7)] {
            for skip in 0.. {
                let inner = MemFs::from_image(image);
                let fs = FailingFs::new(Arc::new(inner.clone()));
                let store = open(&fs);
                let map = store.map::<i64>("m").unwrap();
                fs.arm(Plan { kind, skip, times: 1, fault });
                let outcome = work(&store);
                fs.disarm();
                let what = format!("{fault:?} at call {skip} of {kind:?}: {outcome:?}");
                let mut now = integers(&store, "m");
                now.remove("work");
                assert_eq!(now, *expected, "{what}");
                let wrote = map.set("after", 1);
                match &outcome {
                    Err(Error::Poisoned { .. }) => assert!(wrote.is_err(), "{what}"),
                    _ => wrote.as_ref().unwrap_or_else(|e| panic!("{what}: {e}")).to_owned(),
                }
                drop((map, store));
                for _ in 0..2 {
                    let mut found = integers(&open(&inner), "m");
                    found.remove("work");
                    assert_eq!(found.remove("after").is_some(), wrote.is_ok(), "{what}");
                    assert_eq!(found, *expected, "{what}, reopened");
                }
                assert!(inner.image().keys().all(|p| p == path()), "{what}: something was left behind");
                if outcome.is_ok() && skip > 2 {
                    break;
                }
                assert!(skip < 100, "{what}: there is no end to it");
            }
        }
    }
}

#[test]
fn a_failed_call_during_a_shrink_loses_nothing() {
    let (image, expected) = crowded();
    survives_faults(&image, &expected, Store::shrink);
}

#[test]
fn a_failed_call_during_a_conversion_loses_nothing() {
    let image = mem_with(GO_PERSIST).image();
    survives_faults(&image, &pairs(&[("a", 3), ("c", 4)]), |store| store.map("m")?.set("work", 1i64));
}

#[test]
fn a_failed_call_during_opening_changes_nothing() {
    let (image, expected) = crowded();
    let torn = [image[path()].as_slice(), b"S=01234567 m:to"].concat();
    for start in [image.clone(), mem_with(&torn).image()] {
        for kind in KINDS {
            for fault in [Fault::Eio, Fault::Enospc] {
                for skip in 0..6 {
                    let inner = MemFs::from_image(&start);
                    let fs = FailingFs::new(Arc::new(inner.clone()));
                    fs.arm(Plan { kind, skip, times: 1, fault });
                    drop(Store::open(path(), quiet(fs.clone())));
                    assert_eq!(integers(&open(&inner), "m"), expected, "{fault:?} at call {skip} of {kind:?}");
                }
            }
        }
    }
}

#[test]
fn a_failed_call_during_creation_leaves_a_store_or_none() {
    for kind in KINDS {
        for skip in 0..4 {
            let inner = mem();
            let fs = FailingFs::new(Arc::new(inner.clone()));
            fs.arm(Plan { kind, skip, times: 1, fault: Fault::Enospc });
            drop(Store::open(path(), quiet(fs.clone())));
            assert!(bytes(&inner).is_empty() || bytes(&inner) == b"typed-log 1\n");
            assert_eq!(integers(&open(&inner), "m"), BTreeMap::new(), "call {skip} of {kind:?}");
        }
    }
}

/// Power loss may take whatever was not synced, so the bytes must be on the device before a file gets
/// the log's name, and the name before anything is appended.
#[test]
fn a_new_log_is_durable_before_it_is_built_on() {
    use engine::fs::FsOp;
    type Work = fn(&Store);
    let works: [(Image, Work); 3] = [
        (crowded().0, |store| store.shrink().unwrap()),
        (mem_with(GO_PERSIST).image(), |store| store.shrink().unwrap()),
        (Image::new(), |_| ()),
    ];
    for (image, work) in works {
        let traced = TraceFs::new(Arc::new(crate::support::copy(&MemFs::from_image(&image))));
        let store = open(&traced);
        work(&store);
        store.map("m").unwrap().set("after", 1i64).unwrap();
        let (mut unsynced, mut nameless, mut renames) = (false, false, 0);
        for entry in traced.recorder().entries() {
            match entry.op {
                FsOp::Write { .. } | FsOp::SetLen { .. } => {
                    assert!(!nameless, "appended before the name was durable");
                    unsynced = true;
                }
                FsOp::SyncData { .. } | FsOp::SyncAll { .. } => unsynced = false,
                FsOp::Rename { .. } => {
                    assert!(!unsynced, "renamed before the bytes were durable");
                    (nameless, renames) = (true, renames + 1);
                }
                FsOp::SyncDir { .. } => nameless = false,
                _ => {}
            }
        }
        assert_eq!(renames, 1);
    }
}

/// What is written after the shrink began to read must be carried over, and synced with the rest.
#[test]
fn what_is_written_during_a_shrink_is_carried_over_and_durable() {
    use engine::fs::FsOp;
    use std::sync::{Mutex, PoisonError};
    let (image, mut expected) = crowded();
    let inner = MemFs::from_image(&image);
    let traced = TraceFs::new(Arc::new(inner.clone()));
    let during: Arc<Mutex<Option<engine::typed::Map<i64>>>> = Arc::default();
    let mut fs = crate::support::Interrupted::new(traced.clone());
    let handle = Arc::clone(&during);
    fs.on_create = Arc::new(move |created| {
        if let (Some("shrink"), Some(map)) = (created.extension().and_then(|e| e.to_str()), handle.lock().unwrap().take()) {
            map.set("during", 1).unwrap();
            map.delete("k1").unwrap();
        }
    });
    let store = open(&fs);
    *during.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.map("m").unwrap());
    store.shrink().unwrap();
    expected.insert("during".to_owned(), 1);
    expected.remove("k1");
    assert_eq!(integers(&store, "m"), expected);
    let copy = crate::support::copy(&inner);
    assert_eq!(integers(&open(&copy), "m"), expected);
    let entries = traced.recorder().entries();
    let renamed = entries.iter().position(|e| matches!(e.op, FsOp::Rename { .. })).unwrap();
    let last = entries[..renamed].iter().rev().find(|e| matches!(e.op, FsOp::Write { .. } | FsOp::SyncAll { .. }));
    assert!(matches!(last.unwrap().op, FsOp::SyncAll { .. }), "renamed before the bytes were durable");
}
