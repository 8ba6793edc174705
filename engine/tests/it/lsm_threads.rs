//! The LSM store among threads, with its own beside them. Names in brackets are Badger's tests of the same behaviour.

use crate::lsm_store::{DIR, SlowTables, all, files, key, options};
use engine::fs::{FsOp, MemFs, TraceFs};
use engine::lsm::{Batch, Options, Store};
use engine::{Durability, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

fn busy(fs: &MemFs) -> Options {
    Options { background: true, compactors: 2, ..options(fs) }
}

/// Does something again and again until it is told to stop.
fn until(stop: &AtomicBool, act: impl FnMut(u32)) {
    (0..).take_while(|_| !stop.load(Ordering::SeqCst)).for_each(act);
}

fn name(writer: usize, n: u32) -> Vec<u8> {
    format!("{}-{n:06}", ["a", "b", "bb"][writer]).into_bytes()
}

/// [`TestDropAllRace`, `TestDropPrefixRace`]
#[test]
fn what_is_dropped_beside_writers_was_there_before() {
    let fs = MemFs::new();
    let store = Store::open(DIR, busy(&fs)).unwrap();
    let (acknowledged, stop) = ([const { AtomicU32::new(0) }; 3], AtomicBool::new(false));
    let counts = || acknowledged.each_ref().map(|count| count.load(Ordering::SeqCst));
    // For each writer: below the first all is gone, from the second on nothing is.
    let mut drops = [(0, 0); 3];
    std::thread::scope(|scope| {
        for (writer, count) in acknowledged.iter().enumerate() {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                until(stop, |n| {
                    store.put(&name(writer, n), &vec![b'v'; if n % 5 == 0 { 300 } else { 30 }]).unwrap();
                    count.store(n + 1, Ordering::SeqCst);
                });
            });
        }
        for round in 0..30 {
            let before = counts();
            while counts().iter().zip(before).any(|(now, before)| *now < before + 20) {
                std::thread::yield_now();
            }
            let before = counts();
            // The second and the third, the third, or all.
            let prefix: &[u8] = [&b"b"[..], b"bb", b""][round % 3];
            if prefix.is_empty() {
                store.drop_all().unwrap()
            } else {
                store.drop_prefix(prefix).unwrap()
            }
            // One more may have begun before the end.
            let after = counts().map(|count| count + 1);
            for writer in (0..3).filter(|writer| name(*writer, 0).starts_with(prefix)) {
                drops[writer] = (before[writer], after[writer]);
            }
            let left = all(&store);
            for (writer, (gone, _)) in drops.iter().enumerate() {
                assert!((0..*gone).all(|n| !left.contains_key(&name(writer, n))), "round {round}, writer {writer}");
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let check = |store: &Store| {
        let left = all(store);
        for (writer, (gone, kept)) in drops.into_iter().enumerate() {
            assert!((0..gone).all(|n| !left.contains_key(&name(writer, n))), "writer {writer} below {gone}");
            assert!((kept..counts()[writer]).all(|n| left.contains_key(&name(writer, n))), "writer {writer} from {kept}");
        }
        left
    };
    let left = check(&store);
    store.close().unwrap();
    let store = Store::open(DIR, options(&fs)).unwrap();
    assert_eq!(check(&store), left);
    store.verify().unwrap();
}

/// [`TestConflict`]
#[test]
fn of_many_threads_that_create_a_key_one_wins() {
    let store = Store::open(DIR, busy(&MemFs::new())).unwrap();
    let (threads, conflicts) = (10, AtomicU32::new(0));
    let barrier = Barrier::new(threads);
    for n in 0..40 {
        let winners = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (store, barrier, winners, conflicts) = (&store, &barrier, &winners, &conflicts);
                scope.spawn(move || {
                    let mut txn = store.transaction();
                    let is_there = if n % 2 == 0 {
                        txn.get(&key(n)).unwrap().is_some()
                    } else {
                        !txn.range(key(n)..key(n + 1)).unwrap().is_empty()
                    };
                    // All have seen that it is not there.
                    barrier.wait();
                    assert!(!is_there);
                    txn.put(&key(n), thread.to_string().as_bytes()).unwrap();
                    match txn.commit(Durability::Write) {
                        Ok(()) => winners.fetch_add(1, Ordering::SeqCst),
                        Err(Error::Conflict) => conflicts.fetch_add(1, Ordering::SeqCst),
                        Err(e) => panic!("{e}"),
                    };
                });
            }
        });
        assert_eq!(winners.load(Ordering::SeqCst), 1, "key {n}");
    }
    assert_eq!(conflicts.load(Ordering::SeqCst), 40 * 9);
}

/// [`TestSyncForRace`]
#[test]
fn a_sync_covers_what_came_before_it_while_others_write() {
    let fs = MemFs::new();
    let trace = TraceFs::over(&fs);
    let store = Store::open(DIR, Options { fs: Arc::new(trace.clone()), ..busy(&fs) }).unwrap();
    let stop = AtomicBool::new(false);
    let mut spans = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                until(stop, |n| {
                    let level = if n % 3 == 0 { Durability::Async } else { Durability::Write };
                    store.put_at(&name(writer, n), &[b'v'; 100], level).unwrap();
                });
            });
        }
        for _ in 0..60 {
            let flushes = store.stats().flushes;
            let before = trace.recorder().entries().len();
            store.sync().unwrap();
            spans.push((before, trace.recorder().entries().len()));
            while store.stats().flushes == flushes {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let entries = trace.recorder().entries();
    let (mut logs, mut removed, mut of_name) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    for (at, entry) in entries.iter().enumerate() {
        match &entry.op {
            FsOp::Create { path, inode } => drop(of_name.insert(path.clone(), *inode)),
            FsOp::Link { from, to } | FsOp::Rename { from, to } => {
                let inode = of_name[from];
                of_name.insert(to.clone(), inode);
            }
            FsOp::Remove { path } => drop(of_name.get(path).map(|inode| removed.insert(*inode, at))),
            _ => {}
        }
        logs.extend(of_name.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "wal")).map(|(_, inode)| *inode));
    }
    assert!(removed.keys().any(|inode| logs.contains(inode)), "no segment was ever flushed");
    for (before, after) in spans {
        let mut open = BTreeSet::new();
        for (at, entry) in entries[..after].iter().enumerate() {
            match &entry.op {
                FsOp::Write { inode, .. } if at < before && logs.contains(inode) => drop(open.insert(*inode)),
                FsOp::SyncData { inode } | FsOp::SyncAll { inode } => drop(open.remove(inode)),
                _ => {}
            }
        }
        open.retain(|inode| removed.get(inode).is_none_or(|at| *at >= after));
        assert!(open.is_empty(), "a sync that ended at {after} left {open:?} unsynced");
    }
}

/// [`TestL0Stall`]
#[test]
fn a_full_level_0_holds_up_writers_beside_slow_compactions() {
    let fs = SlowTables::new(Duration::from_millis(3), Duration::ZERO);
    let store = Store::open(DIR, Options { level0_tables: 2, level0_slow: 3, level0_stall: 4, ..fs.options() }).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let store = &store;
            scope.spawn(move || (0..1_500).for_each(|n| store.put(&name(writer, n), &[b'v'; 100]).unwrap()));
        }
    });
    let stats = store.stats();
    assert!(stats.stalls > 0 && stats.compactions > 0, "{stats:?}");
    assert_eq!(all(&store).len(), 3_000);
}

/// [`TestBackupConsistentSnapshot`]
#[test]
fn a_backup_beside_writers_is_of_one_moment() {
    let fs = MemFs::new();
    let store = Store::open(DIR, busy(&fs)).unwrap();
    let (written, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let ends = |n: u32| [b"a", b"z"].map(|end| [&end[..], &key(n)].concat());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until(&stop, |n| {
                let mut batch = Batch::new();
                ends(n % 500).iter().for_each(|end| batch.put(end, &n.to_le_bytes()));
                store.write(batch, Durability::Write).unwrap();
                written.store(n + 1, Ordering::SeqCst);
            });
        });
        for _ in 0..10 {
            let before = written.load(Ordering::SeqCst);
            while written.load(Ordering::SeqCst) < before + 100 {
                std::thread::yield_now();
            }
            let before = written.load(Ordering::SeqCst);
            let mut stream = Vec::new();
            store.backup(&mut stream, 0).unwrap();
            let after = written.load(Ordering::SeqCst);
            let restored = Store::open(DIR, options(&MemFs::new())).unwrap();
            restored.load(&mut &stream[..], Durability::Write).unwrap();
            let last = (0..500).filter_map(|n| {
                let [a, z] = ends(n).map(|key| restored.get(&key).unwrap());
                assert_eq!(a, z, "{n}");
                a.map(|value| u32::from_le_bytes(value.try_into().unwrap()))
            });
            let last = last.max().unwrap();
            assert!((before - 1..=after).contains(&last), "{last} between {before} and {after}");
        }
        stop.store(true, Ordering::SeqCst);
    });
}

/// [`TestConcurrentManifestCompaction`]
#[test]
fn a_manifest_is_rewritten_beside_compactions() {
    let fs = SlowTables::new(Duration::from_millis(1), Duration::ZERO);
    let store = Store::open(DIR, Options { manifest_size: 300, compactors: 3, table_size: 500, ..fs.options() }).unwrap();
    let put = |store: &Store, from: usize| {
        (0..2_000u32).filter(|n| *n as usize % 3 == from).for_each(|n| {
            store.put(&key(n.wrapping_mul(7_919) % 2_000), &n.to_le_bytes().repeat(20)).unwrap();
        });
    };
    std::thread::scope(|scope| {
        for from in 0..3 {
            let (store, put) = (&store, &put);
            scope.spawn(move || put(store, from));
        }
    });
    let stats = store.stats();
    assert!(stats.compactions > 10 && stats.background_error.is_none(), "{stats:?}");
    let shown = all(&store);
    assert_eq!(shown.len(), 2_000);
    store.close().unwrap();
    let store = Store::open(DIR, options(&fs.inner)).unwrap();
    assert_eq!(all(&store), shown);
    store.verify().unwrap();
}

/// [`TestCloseDBWhileReading`]
#[test]
fn readers_go_on_while_the_store_is_closed() {
    for round in 0..10 {
        let fs = MemFs::new();
        let store = Store::open(DIR, busy(&fs)).unwrap();
        (0..400).for_each(|n| store.put(&key(n), &vec![b'v'; if n % 5 == 0 { 300 } else { 50 }]).unwrap());
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (snapshot, iter, barrier) = (store.snapshot(), store.iter(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    assert_eq!(iter.map(Result::unwrap).count(), 400, "round {round}");
                    for n in (reader..400).step_by(2) {
                        assert!(snapshot.get(&key(n)).unwrap().is_some());
                    }
                    assert_eq!(snapshot.range_reverse::<&[u8]>(..).map(Result::unwrap).count(), 400);
                });
            }
            barrier.wait();
            // Compactions are at work.
            (0..100).for_each(|n| store.put(&key(n), b"later").unwrap());
            store.close().unwrap();
        });
        let store = Store::open(DIR, options(&fs)).unwrap();
        assert_eq!((all(&store).len(), store.get(&key(99)).unwrap().as_deref()), (400, Some(&b"later"[..])));
        store.verify().unwrap();
        assert!(!files(&fs, "sst").is_empty());
    }
}
