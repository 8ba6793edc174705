//! The typed store as its users meet it: maps, levels, batches, faults, and the traps of go-persist,
//! the store whose file format it grew out of.

use crate::support::{Interrupted, LEVELS, bytes, integers, mem, mem_with, open, pairs, path, quiet, quiet_under};
use engine::fs::{CallKind, FailingFs, Fault, Fs, FsOp, MemFs, Plan, RealFs, TraceFs, write_all_at};
use engine::typed::{AutoShrink, Change, Map, Options, Store, salvage};
use engine::{Durability, Error, SyncPolicy};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
    tags: Vec<String>,
    note: Option<String>,
}

fn user(name: &str) -> User {
    User { name: name.to_owned(), age: 42, tags: vec!["a".to_owned(), "b c".to_owned()], note: None }
}

fn failing() -> (MemFs, FailingFs) {
    let fs = mem();
    (fs.clone(), FailingFs::new(Arc::new(fs)))
}

fn traced() -> (MemFs, TraceFs) {
    let fs = mem();
    (fs.clone(), TraceFs::new(Arc::new(fs)))
}

fn syncs(fs: &TraceFs) -> usize {
    let is_sync = |op: &FsOp| matches!(op, FsOp::SyncData { .. } | FsOp::SyncAll { .. });
    fs.recorder().entries().iter().filter(|e| e.ok && is_sync(&e.op)).count()
}

fn writes(fs: &TraceFs) -> usize {
    fs.recorder().entries().iter().filter(|e| matches!(e.op, FsOp::Write { .. })).count()
}

fn always(kind: CallKind, fault: Fault) -> Plan {
    Plan { kind, skip: 0, times: u64::MAX, fault }
}

// ---- The traps of go-persist, one test each ----

/// go-persist never cuts a torn tail: the next append is glued to it, and only the reopening after
/// that one fails or misreads.
#[test]
fn p01_a_torn_tail_is_cut_before_the_next_append() {
    let fs = mem();
    let store = open(&fs);
    store.map("m").unwrap().set("whole", 1).unwrap();
    drop(store);
    let whole = bytes(&fs);
    for torn in
        ["S", "S=", "S=0123", "S=01234567 m:torn", "S=01234567 m:torn\n", "S=01234567 m:torn\n12", "B=01234567 2\ns m:a\n1\n"]
    {
        let fs = mem_with(&[&whole, torn.as_bytes()].concat());
        let store = open(&fs);
        let cut = store.stats().cut.expect("a torn tail is reported");
        assert_eq!((cut.offset, cut.len), (whole.len() as u64, torn.len() as u64));
        store.map("m").unwrap().set("after", 2).unwrap();
        drop(store);
        for _ in 0..2 {
            let store = open(&fs);
            assert_eq!(integers(&store, "m"), pairs(&[("whole", 1), ("after", 2)]), "after {torn:?}");
            assert_eq!(store.stats().cut, None);
        }
    }
}

/// Later versions of go-persist cannot read back a line of 4096 bytes or more.
#[test]
fn p02_lines_may_be_long() {
    let fs = mem();
    for length in [4094, 4095, 4096, 4097, 8192, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
        let (key, value) = ("k".repeat(length), "v".repeat(length));
        open(&fs).map::<String>("m").unwrap().set(&key, value.clone()).unwrap();
        assert_eq!(open(&fs).map::<String>("m").unwrap().get(&key), Some(value), "{length}");
    }
}

/// In go-persist a key with a newline injects records into the file.
#[test]
fn p03_a_key_cannot_break_a_line() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let before = bytes(&fs);
    for key in ["a\nS m:b\n2", "\n", "\r", "a\0", "\u{7f}", "\u{85}", "tab\t"] {
        assert!(matches!(map.set(key, 1), Err(Error::InvalidKey { .. })), "{key:?}");
        assert!(map.set_async(key, 1).is_err() && map.set_sync(key, 1).is_err());
        assert!(map.delete(key).is_err() && map.delete_async(key).is_err());
        assert!(map.update(key, |_| (Change::Set(1), ())).is_err());
        assert!(store.batch().set(&map, key, 1).is_err() && store.batch().delete(&map, key).is_err());
        assert!(store.set(key, &1).is_err() && store.delete(key).is_err());
    }
    store.flush().unwrap();
    assert_eq!(bytes(&fs), before);
    assert!(map.is_empty());
}

/// In go-persist map `a` with key `b:x` and map `a:b` with key `x` are one entry, and the store's own
/// key `users:john` lands in map `users`.
#[test]
fn p04_no_two_names_mean_the_same_entry() {
    let fs = mem();
    let store = open(&fs);
    assert!(matches!(store.map::<i64>("a:b"), Err(Error::InvalidName { .. })));
    assert!(matches!(store.set("users:john", &1), Err(Error::InvalidKey { .. })));
    assert!(matches!(store.set("", &1), Err(Error::InvalidKey { .. })));
    store.map("a").unwrap().set("b:x", 1).unwrap();
    store.map("b").unwrap().set("x", 2).unwrap();
    store.map("").unwrap().set("a:b", 3).unwrap();
    store.map("").unwrap().set("", 4).unwrap();
    store.set("a", &5).unwrap();
    drop(store);
    let store = open(&fs);
    assert_eq!(integers(&store, "a"), pairs(&[("b:x", 1)]));
    assert_eq!(integers(&store, "b"), pairs(&[("x", 2)]));
    assert_eq!(integers(&store, ""), pairs(&[("a:b", 3), ("", 4)]));
    assert_eq!(store.get::<i64>("a").unwrap(), Some(5));
}

/// In go-persist one value of another type keeps the whole store from opening.
#[test]
fn p05_a_map_of_another_type_is_refused_and_nothing_is_lost() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<String>("m").unwrap();
    map.set("fits neither", "text".to_owned()).unwrap();
    store.map("other").unwrap().set("k", 1).unwrap();
    drop((store, map));
    let before = bytes(&fs);
    let store = open(&fs);
    match store.map::<i64>("m") {
        Err(Error::Value { map, key, .. }) => assert_eq!((map.as_str(), key.as_str()), ("m", "fits neither")),
        other => panic!("{other:?}"),
    }
    assert_eq!(bytes(&fs), before, "refusing a type changed the file");
    // The refusal concerns the type, not the store.
    assert_eq!(store.map::<String>("m").unwrap().get("fits neither").as_deref(), Some("text"));
    assert_eq!(integers(&store, "other"), pairs(&[("k", 1)]));
    match store.map::<i64>("m") {
        Err(Error::MapType { map, open }) => assert!(map == "m" && open.contains("String")),
        other => panic!("{other:?}"),
    }
}

/// go-persist decodes superseded values too, so an old type in the history of a key blocks opening.
#[test]
fn p05_only_the_last_value_must_fit() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<serde_json::Value>("m").unwrap();
    map.set("k", serde_json::json!("text")).unwrap();
    map.set("k", serde_json::json!(1)).unwrap();
    map.set("deleted", serde_json::json!("text")).unwrap();
    map.delete("deleted").unwrap();
    drop((store, map));
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 1)]));
}

/// Early go-persist gave two caches for a map opened twice, and flushed only the second.
#[test]
fn p06_a_map_opened_twice_is_one_map() {
    let fs = mem();
    let store = open(&fs);
    let (a, b) = (store.map::<i64>("m").unwrap(), store.map::<i64>("m").unwrap());
    a.set_async("from a", 1).unwrap();
    assert_eq!(b.get("from a"), Some(1));
    b.clone().set_async("from b", 2).unwrap();
    assert_eq!(a.get("from b"), Some(2));
    store.flush().unwrap();
    drop((a, b, store));
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("from a", 1), ("from b", 2)]));
}

/// In early go-persist two concurrent writers of one key could reach the file in one order and memory
/// in the other.
#[test]
fn p07_file_and_memory_agree_on_the_order_of_racing_writers() {
    for round in 0..20 {
        let memory_fs = mem();
        let mut fs = Interrupted::new(memory_fs.clone());
        // While one thread writes, others gather; then they race.
        fs.on_write = Arc::new(|| std::thread::sleep(Duration::from_micros(100)));
        let store = open(&fs);
        let map = store.map::<i64>("m").unwrap();
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for t in 0..4 {
                let (map, barrier) = (&map, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for i in 0..10 {
                        map.set("k", t * 1000 + i).unwrap();
                    }
                });
            }
        });
        let memory = map.get("k");
        drop((map, store));
        assert_eq!(open(&memory_fs).map::<i64>("m").unwrap().get("k"), memory, "round {round}");
    }
}

/// In go-persist a background flush may append the old value of a key behind a newer, synced one.
#[test]
fn p08_a_flush_never_puts_an_older_value_behind_a_newer_one() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set_async("k", 1).unwrap();
    map.set_sync("k", 2).unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().records, 1, "the buffered value was superseded before it was logged");
    map.set_async("d", 1).unwrap();
    map.delete("d").unwrap();
    store.flush().unwrap();
    map.delete_async("k").unwrap();
    map.set("k", 3).unwrap();
    store.flush().unwrap();
    map.set_async("b", 4).unwrap();
    let mut batch = store.batch();
    batch.set(&map, "b", 5).unwrap();
    batch.commit().unwrap();
    store.flush().unwrap();
    drop((map, store));
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 3), ("b", 5)]));
}

#[test]
fn p08_a_racing_flush_loses_no_newer_value() {
    for _ in 0..20 {
        let fs = mem();
        let store = open(&fs);
        let map = store.map::<i64>("m").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    store.flush().unwrap();
                }
            });
            for i in 0..100 {
                map.set_async("k", 2 * i).unwrap();
                map.set("k", 2 * i + 1).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        drop((map, store));
        assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 199)]));
    }
}

/// A string set as a store's own value of go-persist is written without quotes by its shrink.
#[test]
fn p09_own_values_survive_shrinking_as_what_they_are() {
    let fs = mem();
    let store = open(&fs);
    store.set("text", &"abc").unwrap();
    store.set("number in text", &"12").unwrap();
    store.set("json in text", &"{\"a\":1}").unwrap();
    store.set("user", &user("ann")).unwrap();
    let check = |store: &Store| {
        assert_eq!(store.get::<String>("text").unwrap().as_deref(), Some("abc"));
        assert_eq!(store.get::<String>("number in text").unwrap().as_deref(), Some("12"));
        assert_eq!(store.get::<String>("json in text").unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(store.get::<User>("user").unwrap(), Some(user("ann")));
        assert!(matches!(store.get::<i64>("text"), Err(Error::Value { .. })));
        assert_eq!(store.get::<i64>("absent").unwrap(), None);
    };
    check(&store);
    store.shrink().unwrap();
    check(&store);
    drop(store);
    check(&open(&fs));
}

/// In go-persist a buffered change that cannot be written stays dirty for ever, or ends the process.
#[test]
fn p10_a_value_that_cannot_be_written_does_not_hold_up_the_others() {
    let fs = mem();
    let store = open(&fs);
    // JSON has no keys that are lists.
    let map = store.map::<HashMap<Vec<u8>, u8>>("bad").unwrap();
    let other = store.map::<i64>("other").unwrap();
    assert!(matches!(map.set("k", HashMap::from([(vec![1], 1)])), Err(Error::Value { .. })));
    assert_eq!(map.get("k"), None, "a refused value is not in memory");
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        map.set_async(key, HashMap::new()).unwrap();
        other.set_async(key, 1).unwrap();
    }
    let refused = map.set_async("d", HashMap::from([(vec![1], 1)]));
    // Whether the call or the flush says so, somebody does; and everything else reaches the file.
    let flushed = store.flush();
    assert!(refused.is_err() || matches!(&flushed, Err(Error::Value { key, .. }) if key == "d"), "{flushed:?}");
    store.map::<i64>("other").unwrap().set("still", 2).unwrap();
    drop((map, other));
    let _ = store.close();
    let store = open(&fs);
    assert_eq!(store.map::<i64>("other").unwrap().len(), 9);
    assert!(store.map::<HashMap<String, u8>>("bad").unwrap().len() >= 7);
}

/// go-persist writes a delete for the key of a cancelled update, even if it was never stored.
#[test]
fn p11_a_cancelled_update_writes_nothing() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let before = bytes(&fs);
    for level in LEVELS {
        assert_eq!(map.update_at("k", level, |v| (Change::Keep, v.copied())).unwrap(), None);
        assert!(!map.update_at("k", level, |v| (Change::Delete, v.is_some())).unwrap());
    }
    store.flush().unwrap();
    assert_eq!(bytes(&fs), before);
    assert_eq!(store.stats().records, 0);
}

/// Two processes can open one go-persist file, and a shrink in one leaves the other writing to nowhere.
#[test]
fn p12_a_store_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = || quiet(RealFs);
    let store = Store::open(&path, options()).unwrap();
    for error in [Store::open(&path, options()).map(drop).unwrap_err(), salvage(&path, &options()).map(drop).unwrap_err()] {
        match &error {
            Error::Locked { pid, .. } => assert_eq!(*pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
    store.shrink().unwrap();
    assert!(matches!(Store::open(&path, options()), Err(Error::Locked { .. })), "a shrink gave up the lock");
    store.close().unwrap();
    Store::open(&path, options()).unwrap();
}

/// The default error handler of go-persist ends the process, for instance when the disk is full; and
/// its `Set` changes memory although nothing was written.
#[test]
fn p13_a_full_disk_is_an_error_that_changes_nothing() {
    let (mem, fs) = failing();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set("k", 1).unwrap();
    let before = bytes(&mem);
    fs.arm(always(CallKind::Write, Fault::Enospc));
    for level in [Durability::Write, Durability::Sync] {
        assert!(matches!(map.set_at("k", 2, level), Err(Error::Full { .. })));
        assert!(matches!(map.set_at("new", 2, level), Err(Error::Full { .. })));
        assert!(matches!(map.delete_at("k", level), Err(Error::Full { .. })));
        assert!(matches!(map.update_at("k", level, |_| (Change::Set(2), ())), Err(Error::Full { .. })));
        let mut batch = store.batch();
        batch.set(&map, "k", 2).unwrap();
        batch.set(&map, "new", 2).unwrap();
        assert!(matches!(batch.commit_at(level), Err(Error::Full { .. })));
    }
    map.set_async("buffered", 3).unwrap();
    assert!(matches!(store.flush(), Err(Error::Full { .. })));
    assert_eq!(map.iter().collect::<BTreeMap<_, _>>(), pairs(&[("k", 1), ("buffered", 3)]));
    assert_eq!(bytes(&mem), before);
    fs.disarm();
    map.set("after", 4).unwrap();
    store.flush().unwrap();
    drop((map, store));
    assert_eq!(integers(&open(&mem), "m"), pairs(&[("k", 1), ("buffered", 3), ("after", 4)]));
}

/// A partial write on a full disk leaves torn bytes in the middle of a go-persist file once there is
/// room again.
#[test]
fn p14_a_short_write_leaves_nothing_behind() {
    for taken in 1..40 {
        let (mem, fs) = failing();
        let store = open(&fs);
        let map = store.map::<String>("m").unwrap();
        map.set("before", "1".to_owned()).unwrap();
        let before = bytes(&mem);
        fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Short(taken) });
        assert!(matches!(map.set("torn", "a long value of many words".to_owned()), Err(Error::Full { .. })));
        assert_eq!(bytes(&mem), before, "{taken} bytes were taken");
        map.set("after", "2".to_owned()).unwrap();
        drop((map, store));
        let map = open(&mem).map::<String>("m").unwrap();
        let all: BTreeMap<_, _> = map.iter().collect();
        assert_eq!(all, pairs(&[("before", "1".to_owned()), ("after", "2".to_owned())]));
    }
}

/// go-persist's synced delete of an absent key appends a record and then says that there was no key.
#[test]
fn p15_deleting_an_absent_key_writes_nothing() {
    let (_, fs) = traced();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let before = writes(&fs);
    assert!(!map.delete("absent").unwrap());
    assert!(!map.delete_sync("absent").unwrap());
    assert!(!map.delete_async("absent").unwrap());
    assert!(!store.delete("absent").unwrap());
    store.flush().unwrap();
    assert_eq!(writes(&fs), before);
}

/// Reading the store's own values costs a scan of the whole file in early go-persist.
#[test]
fn p16_reading_does_not_touch_the_file() {
    let (_, fs) = failing();
    let store = open(&fs);
    store.set("own", &1).unwrap();
    let map = store.map::<i64>("m").unwrap();
    map.set("k", 2).unwrap();
    fs.arm(always(CallKind::Read, Fault::Eio));
    assert_eq!(store.get::<i64>("own").unwrap(), Some(1));
    assert_eq!((map.get("k"), map.len(), map.iter().count()), (Some(2), 1, 1));
}

// ---- What go-persist's own tests hold it to ----

#[test]
fn values_are_set_read_and_deleted() {
    let fs = mem();
    let store = open(&fs);
    store.set("user", &user("ann")).unwrap();
    assert_eq!(store.get::<User>("user").unwrap(), Some(user("ann")));
    assert!(store.delete("user").unwrap());
    assert_eq!(store.get::<User>("user").unwrap(), None);
    let map = store.map::<User>("users").unwrap();
    map.set("bob", user("bob")).unwrap();
    assert_eq!(map.get("bob"), Some(user("bob")));
    assert!(map.contains("bob") && !map.contains("ann"));
    assert!(map.delete("bob").unwrap());
    assert_eq!(map.get("bob"), None);
    assert!(!map.delete("bob").unwrap());
}

#[test]
fn a_shrink_keeps_the_last_value_of_each_key() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    for (key, value) in [("a", 0), ("b", 1), ("c", 2), ("a", 100)] {
        map.set(key, value).unwrap();
    }
    map.delete("b").unwrap();
    store.set("own", &"kept").unwrap();
    assert_eq!(store.stats().records, 6);
    store.shrink().unwrap();
    assert_eq!((store.stats().records, store.stats().live), (3, 3));
    assert_eq!(integers(&store, "m"), pairs(&[("a", 100), ("c", 2)]));
    map.set("d", 3).unwrap();
    drop((map, store));
    let text = String::from_utf8(bytes(&fs)).unwrap();
    let order: Vec<_> = text.lines().filter(|l| l.starts_with("S=")).map(|l| l.split_once(' ').unwrap().1).collect();
    assert_eq!(order, ["m:c", "m:a", "own", "m:d"], "in order of last change");
    let store = open(&fs);
    assert_eq!(integers(&store, "m"), pairs(&[("a", 100), ("c", 2), ("d", 3)]));
    assert_eq!(store.get::<String>("own").unwrap().as_deref(), Some("kept"));
}

#[test]
fn a_shrink_keeps_maps_that_nobody_opened() {
    let fs = mem();
    let store = open(&fs);
    store.map("m").unwrap().set("k", 1).unwrap();
    store.set("own", &2).unwrap();
    drop(store);
    open(&fs).shrink().unwrap();
    let store = open(&fs);
    assert_eq!(integers(&store, "m"), pairs(&[("k", 1)]));
    assert_eq!(store.get::<i64>("own").unwrap(), Some(2));
}

#[test]
fn buffered_changes_survive_a_shrink() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set("gone", 1).unwrap();
    map.set("old", 1).unwrap();
    map.delete_async("gone").unwrap();
    map.set_async("old", 2).unwrap();
    map.set_async("new", 3).unwrap();
    store.shrink().unwrap();
    assert_eq!(integers(&store, "m"), pairs(&[("old", 2), ("new", 3)]));
    store.flush().unwrap();
    drop((map, store));
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("old", 2), ("new", 3)]));
}

#[test]
fn twenty_threads_with_keys_of_their_own() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    std::thread::scope(|scope| {
        for t in 0..20 {
            let (map, store) = (&map, &store);
            scope.spawn(move || {
                for i in 0..10 {
                    map.set(&format!("{t}-{i}"), t * 10 + i).unwrap();
                    store.set(&format!("{t}-{i}"), &(t * 10 + i)).unwrap();
                }
            });
        }
    });
    drop((map, store));
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    for n in 0..200 {
        let key = format!("{}-{}", n / 10, n % 10);
        assert_eq!((map.get(&key), store.get::<i64>(&key).unwrap()), (Some(n), Some(n)));
    }
}

/// Many threads set and delete few keys at random; then memory, a reopened store and a shrunken one
/// must say the same.
#[test]
fn twenty_threads_on_ten_keys() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    std::thread::scope(|scope| {
        for t in 0..20u64 {
            let map = &map;
            scope.spawn(move || {
                let mut random = Random(t + 1);
                for i in 0..50 {
                    let key = format!("key{}", random.below(10));
                    if random.below(2) == 0 {
                        map.set(&key, i).unwrap();
                    } else {
                        map.delete(&key).unwrap();
                    }
                }
            });
        }
    });
    for n in 0..10 {
        let key = format!("key{n}");
        if n % 2 == 0 { map.set(&key, n).unwrap() } else { assert!(map.delete(&key).is_ok()) }
    }
    let expected = pairs(&[("key0", 0), ("key2", 2), ("key4", 4), ("key6", 6), ("key8", 8)]);
    assert_eq!(integers(&store, "m"), expected);
    drop((map, store));
    let store = open(&fs);
    assert_eq!(integers(&store, "m"), expected);
    store.shrink().unwrap();
    drop(store);
    assert_eq!(integers(&open(&fs), "m"), expected);
}

#[test]
fn maps_of_several_types_share_a_store() {
    let fs = mem();
    let store = open(&fs);
    let (texts, numbers) = (store.map::<String>("texts").unwrap(), store.map::<i64>("numbers").unwrap());
    texts.set("a", "x".to_owned()).unwrap();
    texts.set("b", "y".to_owned()).unwrap();
    numbers.set("a", 1).unwrap();
    numbers.set("b", 2).unwrap();
    texts.delete("a").unwrap();
    numbers.delete("b").unwrap();
    drop((texts, numbers, store));
    let store = open(&fs);
    let texts: BTreeMap<_, _> = store.map::<String>("texts").unwrap().iter().collect();
    assert_eq!(texts, pairs(&[("b", "y".to_owned())]));
    assert_eq!(integers(&store, "numbers"), pairs(&[("a", 1)]));
}

#[test]
fn updates_read_and_change_in_one_step() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    for level in LEVELS {
        let count = |v: Option<&i64>| (Change::Set(v.copied().unwrap_or(0) + 1), v.copied());
        let before = map.get("k");
        assert_eq!(map.update_at("k", level, count).unwrap(), before);
        assert_eq!(map.update_at("k", level, |v| (Change::Keep, *v.unwrap())).unwrap(), before.unwrap_or(0) + 1);
        map.set("d", 1).unwrap();
        assert_eq!(map.update_at("d", level, |v| (Change::Delete, v.copied())).unwrap(), Some(1));
        assert!(!map.contains("d"));
    }
    assert_eq!(map.get("k"), Some(3));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    map.update("k", |v| (Change::Set(v.unwrap() + 1), ())).unwrap();
                }
            });
        }
    });
    store.flush().unwrap();
    drop((map, store));
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 403)]));
}

#[test]
fn the_empty_key_is_a_key() {
    let fs = mem();
    let store = open(&fs);
    store.map("m").unwrap().set("", 1).unwrap();
    drop(store);
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("", 1)]));
}

// ---- Values ----

fn comes_back<V>(value: V)
where
    V: Serialize + serde::de::DeserializeOwned + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static,
{
    let fs = mem();
    let store = open(&fs);
    store.map("m").unwrap().set("k", value.clone()).unwrap();
    store.set("own", &value).unwrap();
    store.shrink().unwrap();
    drop(store);
    let store = open(&fs);
    assert_eq!(store.map::<V>("m").unwrap().get("k"), Some(value.clone()));
    assert_eq!(store.get::<V>("own").unwrap(), Some(value));
}

#[test]
fn big_numbers_come_back() {
    comes_back(100 * i64::MAX as u128);
    comes_back(u128::MAX);
    comes_back(i128::MIN);
    comes_back((i64::MIN, u64::MAX));
}

proptest::proptest! {
    /// A fast parser may be off by one unit in the last place; a store may not.
    #[test]
    fn fractions_come_back_bit_for_bit(values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL, 1..100)) {
        let fs = mem();
        let store = open(&fs);
        store.map("m").unwrap().set("k", values.clone()).unwrap();
        drop(store);
        let back: Vec<f64> = open(&fs).map::<Vec<f64>>("m").unwrap().get("k").unwrap();
        let bits = |v: &[f64]| v.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
        proptest::prop_assert_eq!(bits(&back), bits(&values));
    }

    #[test]
    fn any_text_comes_back(key in "\\PC*", value: String, chars: Vec<char>) {
        let fs = mem();
        let store = open(&fs);
        let map = store.map::<(String, Vec<char>)>("m").unwrap();
        map.set(&key, (value.clone(), chars.clone())).unwrap();
        drop((map, store));
        proptest::prop_assert_eq!(open(&fs).map::<(String, Vec<char>)>("m").unwrap().get(&key), Some((value, chars)));
    }
}

#[test]
fn every_kind_of_unicode_comes_back() {
    let kinds = [
        "",
        " ",
        "\0\u{1}\n\r\t",
        "\u{7f}\u{85}",
        "\u{2028}\u{2029}",
        "\u{feff}bom",
        "<>&",
        "\"\\/",
        "e\u{301}",
        "😀👩‍👩‍👧",
        "\u{10ffff}",
        "العربية",
        "\u{202e}rtl",
        "\u{fffd}",
    ];
    comes_back(kinds.map(str::to_owned).to_vec());
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("größe 😀").unwrap();
    let allowed = kinds.iter().filter(|k| !k.chars().any(char::is_control));
    for key in allowed.clone() {
        map.set(key, 1).unwrap();
    }
    drop((map, store));
    let store = open(&fs);
    let map = store.map::<i64>("größe 😀").unwrap();
    assert!(allowed.clone().all(|key| map.get(key) == Some(1)));
    assert_eq!(map.len(), allowed.count());
}

#[test]
fn a_value_of_64_mib_comes_back() {
    let fs = mem();
    let store = open(&fs);
    let big = "x".repeat(64 << 20);
    let map = store.map::<String>("m").unwrap();
    map.set("big", big.clone()).unwrap();
    map.set("small", "y".to_owned()).unwrap();
    drop((map, store));
    let store = open(&fs);
    let map = store.map::<String>("m").unwrap();
    assert_eq!(map.get_with("big", |v| *v == big), Some(true));
    assert_eq!(map.get("small").as_deref(), Some("y"));
}

/// JSON has no NaN: serde_json writes `null`, which is no number when it is read. The store takes what
/// the serialiser gives; a map of numbers that was given NaN says at its next opening which key it is.
#[test]
fn nan_is_written_as_null() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<f64>("m").unwrap();
    map.set("k", f64::NAN).unwrap();
    assert!(map.get("k").unwrap().is_nan());
    drop((map, store));
    let store = open(&fs);
    assert!(matches!(store.map::<f64>("m"), Err(Error::Value { key, .. }) if key == "k"));
    assert_eq!(store.map::<Option<f64>>("m").unwrap().get("k"), Some(None));
}

#[test]
fn json_over_several_lines_is_refused() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<Box<RawValue>>("m").unwrap();
    let before = bytes(&fs);
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let lines = raw("{\n\"a\": 1}");
    assert!(matches!(map.set("k", lines.clone()), Err(Error::Value { .. })));
    assert!(matches!(store.set("own", &lines), Err(Error::Value { .. })));
    let mut batch = store.batch();
    batch.set(&map, "first", raw("1")).unwrap();
    assert!(matches!(batch.set(&map, "k", lines), Err(Error::Value { .. })));
    assert_eq!(bytes(&fs), before);
    assert!(map.is_empty());
    // A refused change leaves the batch as it was.
    batch.set(&map, "second", raw("{ \"b\" : 2 }")).unwrap();
    batch.commit().unwrap();
    drop((map, store));
    let map = open(&fs).map::<serde_json::Value>("m").unwrap();
    assert_eq!(
        map.iter().collect::<BTreeMap<_, _>>(),
        pairs(&[("first", serde_json::json!(1)), ("second", serde_json::json!({"b": 2}))])
    );
}

// ---- Handles ----

#[test]
fn values_can_be_looked_at_without_copying() {
    struct NotClone(i64);
    impl Serialize for NotClone {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(s)
        }
    }
    impl<'de> Deserialize<'de> for NotClone {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            i64::deserialize(d).map(NotClone)
        }
    }
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<NotClone>("m").unwrap();
    map.set("k", NotClone(7)).unwrap();
    map.set("l", NotClone(8)).unwrap();
    assert_eq!(map.get_with("k", |v| v.0), Some(7));
    assert_eq!(map.get_with("absent", |v| v.0), None);
    let mut sum = 0;
    map.for_each(|_, v| sum += v.0);
    assert_eq!((sum, map.len()), (15, 2));
}

#[test]
fn a_handle_that_outlives_its_store_is_closed() {
    for background in [false, true] {
        let fs = mem();
        let options = || Options { background, ..quiet(fs.clone()) };
        let store = Store::open(path(), options()).unwrap();
        let map = store.map::<i64>("m").unwrap();
        map.set("k", 1).unwrap();
        let mut batch = store.batch();
        batch.set(&map, "k", 2).unwrap();
        store.close().unwrap();
        let closed = bytes(&fs);
        // Nothing would flush or sync what is written now, so it is refused.
        assert!(map.set("k", 3).is_err());
        assert!(map.set_async("k", 3).is_err());
        assert!(map.set_sync("k", 3).is_err());
        assert!(map.delete("k").is_err());
        assert!(batch.commit().is_err());
        assert_eq!(map.get("k"), Some(1), "what is in memory can still be read");
        assert_eq!(bytes(&fs), closed);
        // And the file is free for the next one.
        let next = Store::open(path(), options()).unwrap();
        assert_eq!(integers(&next, "m"), pairs(&[("k", 1)]));
    }
}

#[test]
fn closing_writes_one_mark_and_opening_none() {
    for background in [false, true] {
        let fs = mem();
        let options = || Options { background, ..quiet(fs.clone()) };
        let store = Store::open(path(), options()).unwrap();
        store.map("m").unwrap().set("k", 1).unwrap();
        store.close().unwrap();
        let closed = bytes(&fs);
        let marks = String::from_utf8(closed.clone()).unwrap().lines().filter(|l| l.starts_with("M=")).count();
        assert_eq!(marks, 1);
        Store::open(path(), options()).unwrap().close().unwrap();
        assert_eq!(bytes(&fs), closed, "a store that was only looked at did not change");
    }
}

#[test]
fn a_map_opens_inside_an_update_while_others_ask_for_statistics() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let done = AtomicBool::new(false);
    // Taking the registry and a shard in both orders would stop this test for ever.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.stats();
            }
        });
        for _ in 0..2000 {
            map.update("k", |_| (Change::Set(store.map::<i64>("other").unwrap().len() as i64), ())).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

// ---- Options, opening ----

#[test]
fn options_that_make_no_sense_are_refused() {
    let bad = |change: fn(&mut Options)| {
        let mut options = quiet(mem());
        change(&mut options);
        match Store::open(path(), options) {
            Err(Error::Option { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bad(|o| o.shards = 0), "shards");
    assert_eq!(bad(|o| o.shards = 3), "shards");
    assert_eq!(bad(|o| o.flush_interval = Duration::ZERO), "flush_interval");
    assert_eq!(bad(|o| o.auto_shrink = Some(AutoShrink { ratio: 1.0, min_bytes: 0 })), "auto_shrink.ratio");
    assert_eq!(bad(|o| o.auto_shrink = Some(AutoShrink { ratio: f64::NAN, min_bytes: 0 })), "auto_shrink.ratio");
    // A sync that is due again at once would keep a thread spinning.
    assert_eq!(bad(|o| o.sync = SyncPolicy::Interval(Duration::ZERO)), "sync");
    let store = open(&mem());
    assert!(matches!(
        store.map_with_sync::<i64>("m", SyncPolicy::Interval(Duration::ZERO)),
        Err(Error::Option { option: "sync", .. })
    ));
}

#[test]
fn a_folder_or_a_foreign_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open(dir.path(), quiet(RealFs)), Err(Error::Io { .. })));
    assert!(matches!(Store::open(dir.path().join("missing/store"), quiet(RealFs)), Err(Error::Io { .. })));
    for content in
        ["typed-log 2\n", "typed-log 1", "TYPED-LOG 1\n", "\n", "{}", "wal 1\n", "go-persist 2\n", " typed-log 1\n", "\0\0\0\0"]
    {
        let fs = mem_with(content.as_bytes());
        match Store::open(path(), quiet(fs.clone())) {
            Err(e @ Error::Format { .. }) => assert!(e.to_string().contains("/db/store"), "{e}"),
            other => panic!("{content:?}: {other:?}"),
        }
        assert_eq!(bytes(&fs), content.as_bytes());
        assert!(salvage(path(), &quiet(fs.clone())).is_err());
        assert_eq!(bytes(&fs), content.as_bytes());
    }
}

#[test]
fn an_empty_file_becomes_a_store() {
    let fs = mem_with(b"");
    open(&fs).map("m").unwrap().set("k", 1).unwrap();
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 1)]));
}

#[test]
fn leftovers_of_an_interrupted_shrink_are_removed() {
    let fs = mem();
    open(&fs).map("m").unwrap().set("k", 1).unwrap();
    for leftover in ["/db/store.new", "/db/store.shrink"] {
        write_all_at(&*fs.create(Path::new(leftover)).unwrap(), b"typed-log 1\nS m:k\n2\n", 0).unwrap();
    }
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 1)]));
    assert_eq!(fs.list(Path::new("/db")).unwrap(), ["store"]);
}

#[test]
fn any_truncation_opens_with_a_prefix_of_the_history() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let mut states = vec![(bytes(&fs).len(), BTreeMap::new())];
    for step in 0..8 {
        match step {
            2 => assert!(map.delete("a").unwrap()),
            4 => {
                let mut batch = store.batch();
                batch.set(&map, "a", 40).unwrap();
                batch.set(&map, "b", 41).unwrap();
                batch.delete(&map, "k1").unwrap();
                batch.commit().unwrap();
            }
            // Marks must not keep a truncated log from opening.
            5 => store.sync().unwrap(),
            _ => map.set(if step == 0 { "a" } else { "k1" }, step).unwrap(),
        }
        states.push((bytes(&fs).len(), integers(&store, "m")));
    }
    drop((map, store));
    let all = bytes(&fs);
    for length in states[0].0..=all.len() {
        let cut = mem_with(&all[..length]);
        let store = open(&cut);
        let (whole, expected) = states.iter().rev().find(|(end, _)| *end <= length).unwrap();
        assert_eq!(integers(&store, "m"), *expected, "{length} bytes");
        let torn = *whole != length && length < states.last().unwrap().0;
        assert!(!torn || store.stats().cut.is_some(), "{length} bytes: a cut must be reported");
        // The store goes on, and what it writes then is read behind the cut.
        store.map::<i64>("m").unwrap().set("after", 1).unwrap();
        drop(store);
        let mut expected = expected.clone();
        expected.insert("after".to_owned(), 1);
        assert_eq!(integers(&open(&cut), "m"), expected, "{length} bytes, reopened");
    }
}

#[test]
fn random_truncations_between_writes_never_keep_a_store_from_opening() {
    let fs = mem();
    let mut random = Random(7);
    for round in 0..300 {
        let store = open(&fs);
        let map = store.map::<String>("m").unwrap();
        for _ in 0..random.below(6) {
            let key = format!("k{}", random.below(20));
            match random.below(4) {
                0 => assert!(map.delete(&key).is_ok()),
                1 => map.set_sync(&key, "s".repeat(random.below(200) as usize)).unwrap(),
                _ => map.set(&key, "v".repeat(random.below(50) as usize)).unwrap(),
            }
        }
        if random.below(10) == 0 {
            store.shrink().unwrap();
        }
        drop((map, store));
        let file = fs.open(path()).unwrap();
        let length = file.len().unwrap();
        file.set_len((length - random.below(40).min(length)).max(12)).unwrap();
        Store::open(path(), quiet(fs.clone())).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
}

#[test]
fn what_is_deleted_and_inserted_again_is_there() {
    for levels in LEVELS.iter().flat_map(|a| LEVELS.iter().map(move |b| (*a, *b))) {
        let fs = mem();
        let store = open(&fs);
        let map = store.map::<i64>("m").unwrap();
        map.set("k", 1).unwrap();
        map.delete_at("k", levels.0).unwrap();
        map.set_at("k", 2, levels.1).unwrap();
        map.set_at("d", 2, levels.0).unwrap();
        map.delete_at("d", levels.1).unwrap();
        store.flush().unwrap();
        drop((map, store));
        assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 2)]), "{levels:?}");
    }
}

/// A delete that survives the process must do so even if a buffered delete came first.
#[test]
fn a_delete_of_a_key_whose_delete_is_only_buffered_is_written() {
    for level in [Durability::Write, Durability::Sync] {
        let fs = mem();
        let store = open(&fs);
        let map = store.map::<i64>("m").unwrap();
        map.set("k", 1).unwrap();
        map.delete_async("k").unwrap();
        assert!(!map.delete_at("k", level).unwrap());
        let killed = mem_with(&bytes(&fs));
        assert_eq!(integers(&open(&killed), "m"), BTreeMap::new());
    }
}

// ---- Shrinking ----

#[test]
fn a_second_shrink_runs_after_the_first_or_is_refused() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    (0..100).for_each(|i| map.set(&format!("k{}", i % 10), i).unwrap());
    let expected = integers(&store, "m");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    match store.shrink() {
                        Ok(()) | Err(Error::ShrinkInProgress { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    drop((map, store));
    assert_eq!(integers(&open(&fs), "m"), expected);
}

#[test]
fn records_are_counted_through_batches_and_shrinks() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let mut batch = store.batch();
    (0..10).for_each(|i| batch.set(&map, &format!("k{i}"), i).unwrap());
    batch.commit().unwrap();
    // A batch is one record; a shrink makes a record of each of its keys.
    for _ in 0..3 {
        store.shrink().unwrap();
        assert_eq!(store.stats().records, 10);
    }
    drop((map, store));
    assert_eq!(open(&fs).stats().records, 10);
}

#[test]
fn a_store_shrinks_by_itself_when_it_is_crowded() {
    let fs = mem();
    let rule = AutoShrink { ratio: 2.0, min_bytes: 1 };
    let options = Options { background: true, auto_shrink: Some(rule), ..quiet(fs.clone()) };
    let store = Store::open(path(), options).unwrap();
    let map = store.map::<i64>("m").unwrap();
    // Wait as long as it takes: a slow machine is no error, a store that never shrinks hangs here.
    let mut n = 0;
    for i in 0..1000 {
        map.set("k", i).unwrap();
    }
    while store.stats().records > 500 {
        n += 1;
        std::thread::sleep(Duration::from_millis(10));
        assert!(n < 6000, "it did not shrink in a minute");
    }
    assert_eq!(map.get("k"), Some(999));
    store.close().unwrap();
    drop(map);
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("k", 999)]));
}

// ---- Batches ----

#[test]
fn a_batch_changes_several_maps_or_nothing() {
    let fs = mem();
    let store = open(&fs);
    let (a, b) = (store.map::<i64>("a").unwrap(), store.map::<String>("b").unwrap());
    a.set("old", 1).unwrap();
    let mut batch = store.batch();
    batch.set(&a, "x", 1).unwrap();
    batch.set(&b, "y", "text".to_owned()).unwrap();
    batch.delete(&a, "old").unwrap();
    batch.delete(&a, "absent").unwrap();
    batch.set(&a, "x", 2).unwrap();
    assert_eq!((a.get("x"), b.get("y"), a.get("old")), (None, None, Some(1)), "nothing happens before it is committed");
    batch.commit().unwrap();
    let check = |store: &Store| {
        assert_eq!(integers(store, "a"), pairs(&[("x", 2)]));
        assert_eq!(store.map::<String>("b").unwrap().get("y").as_deref(), Some("text"));
    };
    check(&store);
    store.batch().commit().unwrap();
    drop(store.batch());
    drop((a, b, store));
    check(&open(&fs));
}

#[test]
fn a_torn_batch_never_happened() {
    let fs = mem();
    let store = open(&fs);
    let (a, b) = (store.map::<i64>("a").unwrap(), store.map::<i64>("b").unwrap());
    a.set("k", 1).unwrap();
    let before = bytes(&fs).len();
    let mut batch = store.batch();
    batch.set(&a, "k", 2).unwrap();
    batch.set(&b, "k", 2).unwrap();
    batch.delete(&b, "l").unwrap();
    batch.commit().unwrap();
    let all = bytes(&fs);
    for length in before..all.len() {
        let store = open(&mem_with(&all[..length]));
        assert_eq!((integers(&store, "a"), integers(&store, "b")), (pairs(&[("k", 1)]), BTreeMap::new()), "{length} bytes");
    }
}

#[test]
#[should_panic(expected = "was given a map of")]
fn a_batch_cannot_span_two_stores() {
    let (one, other) = (open(&mem()), open(&mem()));
    let _ = one.batch().set(&other.map::<i64>("m").unwrap(), "k", 1);
}

#[test]
fn batches_that_cross_each_other_do_not_wait_for_each_other() {
    let fs = mem();
    let store = open(&fs);
    let (a, b) = (store.map::<i64>("a").unwrap(), store.map::<i64>("b").unwrap());
    std::thread::scope(|scope| {
        for t in 0..4i64 {
            let (store, a, b) = (&store, &a, &b);
            scope.spawn(move || {
                for i in 0..100 {
                    let mut batch = store.batch();
                    let mut maps = [a, b];
                    if t % 2 == 0 {
                        maps.reverse();
                    }
                    for map in maps {
                        for key in ["x", "y", "z"] {
                            batch.set(map, key, t * 1000 + i).unwrap();
                        }
                    }
                    batch.commit().unwrap();
                }
            });
        }
    });
    let all: Vec<i64> = a.iter().chain(b.iter()).map(|(_, v)| v).collect();
    assert!(all.iter().all(|v| *v == all[0]), "the last batch wins everywhere: {all:?}");
}

// ---- Durability ----

/// How many syncs happen before a call of each level returns.
fn syncs_of(policy: SyncPolicy, change: impl Fn(&Store, &Map<i64>, Durability)) -> [usize; 3] {
    LEVELS.map(|level| {
        let (_, fs) = traced();
        let store = Store::open(path(), quiet_under(policy, fs.clone())).unwrap();
        let map = store.map::<i64>("m").unwrap();
        map.set("k", 0).unwrap();
        let before = syncs(&fs);
        change(&store, &map, level);
        let during = syncs(&fs) - before;
        std::mem::forget(store);
        during
    })
}

#[test]
fn each_level_syncs_as_the_policy_says() {
    let changes: [fn(&Store, &Map<i64>, Durability); 3] = [
        |_, map, level| map.set_at("k", 1, level).unwrap(),
        |_, map, level| assert!(map.delete_at("k", level).unwrap()),
        |_, map, level| map.update_at("k", level, |_| (Change::Set(1), ())).unwrap(),
    ];
    for change in changes {
        assert_eq!(syncs_of(SyncPolicy::Never, change), [0, 0, 1]);
        assert_eq!(syncs_of(SyncPolicy::Manual, change), [0, 0, 1]);
        assert_eq!(syncs_of(SyncPolicy::EVERY_SECOND, change), [0, 0, 1]);
        assert_eq!(syncs_of(SyncPolicy::Always, change), [0, 1, 1]);
    }
    let batch = |store: &Store, map: &Map<i64>, level| {
        let mut batch = store.batch();
        batch.set(map, "k", 1).unwrap();
        batch.commit_at(level).unwrap();
    };
    assert_eq!(syncs_of(SyncPolicy::Never, batch), [0, 0, 1]);
    assert_eq!(syncs_of(SyncPolicy::Always, batch), [1, 1, 1], "a batch is never buffered");
}

#[test]
fn the_sync_comes_after_the_write_it_covers() {
    let (_, fs) = traced();
    let store = Store::open(path(), quiet_under(SyncPolicy::Always, fs.clone())).unwrap();
    let map = store.map::<i64>("m").unwrap();
    for i in 0..5 {
        map.set("k", i).unwrap();
        fs.recorder().note("acknowledged");
    }
    let mut unsynced = false;
    for entry in fs.recorder().entries() {
        match entry.op {
            FsOp::Write { .. } => unsynced = true,
            FsOp::SyncData { .. } | FsOp::SyncAll { .. } => unsynced = false,
            FsOp::Note { .. } => assert!(!unsynced, "acknowledged before it was synced"),
            _ => {}
        }
    }
}

#[test]
fn buffered_changes_reach_the_file_at_the_flush() {
    for (policy, synced) in [(SyncPolicy::Never, 0), (SyncPolicy::Always, 1)] {
        let (mem, fs) = traced();
        let store = Store::open(path(), quiet_under(policy, fs.clone())).unwrap();
        let map = store.map::<i64>("m").unwrap();
        let (empty, before) = (bytes(&mem), syncs(&fs));
        (0..10).for_each(|i| map.set_async("k", i).unwrap());
        assert_eq!(bytes(&mem), empty);
        store.flush().unwrap();
        assert_eq!(store.stats().records, 1, "only the last value of a key is logged");
        assert_eq!(syncs(&fs) - before, synced);
        store.flush().unwrap();
        assert_eq!(syncs(&fs) - before, synced, "nothing new, nothing done");
        assert_eq!(integers(&open(&mem_with(&bytes(&mem))), "m"), pairs(&[("k", 9)]));
    }
}

#[test]
fn a_map_may_have_a_policy_of_its_own() {
    let (_, fs) = traced();
    let store = Store::open(path(), quiet_under(SyncPolicy::Never, fs.clone())).unwrap();
    let careful = store.map_with_sync::<i64>("careful", SyncPolicy::Always).unwrap();
    let careless = store.map::<i64>("careless").unwrap();
    let before = syncs(&fs);
    careless.set("k", 1).unwrap();
    assert_eq!(syncs(&fs) - before, 0);
    careful.set("k", 1).unwrap();
    assert_eq!(syncs(&fs) - before, 1);
    let mut batch = store.batch();
    batch.set(&careless, "k", 2).unwrap();
    batch.commit().unwrap();
    assert_eq!(syncs(&fs) - before, 1);
    let mut batch = store.batch();
    batch.set(&careless, "k", 3).unwrap();
    batch.set(&careful, "k", 3).unwrap();
    batch.commit().unwrap();
    assert_eq!(syncs(&fs) - before, 2, "a batch is as durable as its strictest map");
    careless.set_async("k", 4).unwrap();
    store.flush().unwrap();
    assert_eq!(syncs(&fs) - before, 2);
    careful.set_async("k", 4).unwrap();
    store.flush().unwrap();
    assert_eq!(syncs(&fs) - before, 3);
}

#[test]
fn maintenance_by_hand_flushes_and_syncs_when_due() {
    let (mem, fs) = traced();
    let policy = SyncPolicy::Interval(Duration::from_secs(10));
    let options = Options { flush_interval: Duration::from_secs(3), ..quiet_under(policy, fs.clone()) };
    let store = Store::open(path(), options).unwrap();
    let map = store.map::<i64>("m").unwrap();
    let at = Duration::from_secs;
    let (empty, before) = (bytes(&mem).len(), syncs(&fs));
    map.set_async("k", 1).unwrap();
    assert_eq!(store.maintain(at(0)).unwrap(), at(3));
    assert_eq!(store.maintain(at(2)).unwrap(), at(3));
    assert_eq!(bytes(&mem).len(), empty);
    assert_eq!(store.maintain(at(3)).unwrap(), at(6));
    assert!(bytes(&mem).len() > empty);
    assert_eq!(syncs(&fs), before);
    assert_eq!(store.maintain(at(9)).unwrap(), at(10));
    assert_eq!(syncs(&fs), before);
    assert_eq!(store.maintain(at(10)).unwrap(), at(12));
    assert_eq!(syncs(&fs), before + 1);
    assert_eq!(store.maintain(at(25)).unwrap(), at(28));
    assert_eq!(syncs(&fs), before + 1, "a clean log is not synced");
    map.set("k", 2).unwrap();
    store.maintain(at(35)).unwrap();
    assert_eq!(syncs(&fs), before + 2);
}

#[test]
fn under_manual_the_owner_syncs() {
    let (_, fs) = traced();
    let store = Store::open(path(), quiet_under(SyncPolicy::Manual, fs.clone())).unwrap();
    let map = store.map::<i64>("m").unwrap();
    let before = syncs(&fs);
    map.set("a", 1).unwrap();
    map.set_async("b", 2).unwrap();
    store.maintain(Duration::from_secs(3600)).unwrap();
    assert_eq!(syncs(&fs), before);
    map.set_async("c", 3).unwrap();
    store.sync().unwrap();
    assert_eq!(syncs(&fs), before + 1);
    assert_eq!(store.stats().records, 3, "what was buffered is synced too");
    store.sync().unwrap();
    assert_eq!(syncs(&fs), before + 1);
}

#[test]
fn an_interval_of_the_background_syncs_what_was_written() {
    let (_, fs) = traced();
    let policy = SyncPolicy::Interval(Duration::from_millis(5));
    let options = Options { background: true, flush_interval: Duration::from_millis(5), ..quiet_under(policy, fs.clone()) };
    let store = Store::open(path(), options).unwrap();
    let map = store.map::<i64>("m").unwrap();
    map.set_async("k", 1).unwrap();
    // A store that never syncs hangs here; a slow one does not fail.
    while store.stats().records == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = syncs(&fs);
    map.set("k", 2).unwrap();
    while syncs(&fs) == before {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(map);
    store.close().unwrap();
}

/// After a crash of the process the name of the file may be in the kernel only: it was renamed, and the
/// process died before the directory was synced. Whoever opens it then builds on that name, so it
/// must be durable before the first synced write is acknowledged.
#[test]
fn opening_makes_the_name_durable_before_anything_is_acknowledged() {
    for policy in [SyncPolicy::Never, SyncPolicy::Always] {
        let fs = mem();
        drop(open(&fs));
        let traced = TraceFs::new(Arc::new(fs));
        let store = Store::open(path(), quiet_under(policy, traced.clone())).unwrap();
        store.map("m").unwrap().set_sync("k", 1).unwrap();
        let synced =
            traced.recorder().entries().iter().any(|e| matches!(&e.op, FsOp::SyncDir { dir } if dir == Path::new("/db")));
        assert!(synced, "under {policy} the name of the log was never synced");
    }
}

#[test]
fn a_new_store_syncs_its_directory_once() {
    let (_, fs) = traced();
    drop(open(&fs));
    let synced = fs.recorder().entries().iter().filter(|e| matches!(e.op, FsOp::SyncDir { .. })).count();
    assert_eq!(synced, 1);
}

/// A process whose sync failed leaves pages that the kernel holds for clean. Another process cannot know, and its
/// sync would write nothing: so it writes them again, all that no mark vouches for and nothing else.
#[test]
fn a_failed_sync_is_not_inherited() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set_sync("synced", 1).unwrap();
    map.set("marked", 2).unwrap();
    map.set("not", 3).unwrap();
    let whole = bytes(&fs);
    std::mem::forget((store, map));
    let fs = MemFs::from_image(&fs.image());
    let traced = TraceFs::new(Arc::new(fs.clone()));
    let store = Store::open(path(), quiet_under(SyncPolicy::Never, traced.clone())).unwrap();
    assert_eq!(writes(&traced), 0, "nobody has asked for a sync yet");
    store.sync().unwrap();
    let entries = traced.recorder().entries();
    let rewritten: Vec<(u64, Vec<u8>)> = entries
        .iter()
        .filter_map(|e| if let FsOp::Write { offset, bytes, .. } = &e.op { Some((*offset, bytes.clone())) } else { None })
        .collect();
    let [(offset, tail)] = &rewritten[..] else { panic!("one stretch is written again: {rewritten:?}") };
    // The mark in the second record vouches for the first.
    assert_eq!((*tail).as_slice(), &whole[*offset as usize..]);
    assert!(String::from_utf8_lossy(tail).starts_with("S=") && tail.windows(6).any(|w| w == b"marked"), "{tail:?}");
    assert!(!tail.windows(8).any(|w| w == b"m:synced"), "what a mark vouches for stays as it is");
    assert_eq!(bytes(&fs), whole, "nothing has changed");
    store.sync().unwrap();
    assert_eq!(writes(&traced), 1, "once is enough");
}

#[test]
fn a_failed_sync_stops_the_store() {
    let (mem, fs) = failing();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set_sync("k", 1).unwrap();
    fs.arm(Plan { kind: CallKind::Sync, skip: 0, times: 1, fault: Fault::Eio });
    assert!(matches!(map.set_sync("k", 2), Err(Error::Poisoned { op: "sync", .. })));
    // The next sync would succeed, and lie.
    assert!(matches!(map.set_sync("k", 3), Err(Error::Poisoned { .. })));
    assert!(matches!(map.set("k", 3), Err(Error::Poisoned { .. })));
    assert!(matches!(map.set_async("k", 3), Err(Error::Poisoned { .. })));
    assert!(matches!(map.delete("k"), Err(Error::Poisoned { .. })));
    assert!(matches!(map.delete_async("k"), Err(Error::Poisoned { .. })));
    assert!(matches!(map.update("k", |_| (Change::Set(3), ())), Err(Error::Poisoned { .. })));
    assert!(matches!(map.update_async("k", |_| (Change::Set(3), ())), Err(Error::Poisoned { .. })));
    assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(store.shrink(), Err(Error::Poisoned { .. })));
    assert_eq!(map.get("k"), Some(2), "the value is in memory and in the kernel");
    drop(map);
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    assert_eq!(integers(&open(&mem), "m"), pairs(&[("k", 2)]));
}

#[test]
fn a_failed_write_stops_the_store() {
    let (mem, fs) = failing();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set("k", 1).unwrap();
    fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Eio });
    assert!(matches!(map.set("k", 2), Err(Error::Poisoned { op: "write", .. })));
    assert_eq!(map.get("k"), Some(1));
    assert!(matches!(map.set("k", 3), Err(Error::Poisoned { .. })));
    drop((map, store));
    assert_eq!(integers(&open(&mem), "m"), pairs(&[("k", 1)]));
}

#[test]
fn a_failed_flush_keeps_what_is_buffered() {
    let (mem, fs) = failing();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    map.set("d", 1).unwrap();
    map.delete_async("d").unwrap();
    (0..20).for_each(|i| map.set_async(&format!("k{i}"), i).unwrap());
    let expected = integers(&store, "m");
    for n in 0..4 {
        fs.arm(Plan { kind: CallKind::Write, skip: n, times: 1, fault: Fault::Short(5) });
        assert!(matches!(store.flush(), Err(Error::Full { .. })) || n > 0);
        fs.disarm();
    }
    store.flush().unwrap();
    drop((map, store));
    assert_eq!(integers(&open(&mem), "m"), expected);
}

// ---- Races ----

/// A small generator of its own, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Everything at once on few keys: whatever order the threads took, the file must tell what memory
/// told last.
#[test]
fn a_reopened_store_equals_its_memory_after_any_race() {
    for round in 0..40u64 {
        let fs = mem();
        let options = || Options { shards: [1, 4, 64][round as usize % 3], ..quiet(fs.clone()) };
        let store = Store::open(path(), options()).unwrap();
        let (a, b) = (store.map::<i64>("a").unwrap(), store.map::<i64>("b").unwrap());
        std::thread::scope(|scope| {
            for t in 0..4 {
                let (store, a, b) = (&store, &a, &b);
                scope.spawn(move || {
                    let mut random = Random(round * 4 + t + 1);
                    for i in 0..60 {
                        let (key, other) = (format!("k{}", random.below(4)), format!("k{}", random.below(4)));
                        let map = if random.below(2) == 0 { a } else { b };
                        let value = (t * 1000 + i) as i64;
                        let level = LEVELS[random.below(3) as usize];
                        match random.below(12) {
                            0 | 1 => assert!(map.delete_at(&key, level).is_ok()),
                            2 | 3 => map.update_at(&key, level, |v| (Change::Set(v.copied().unwrap_or(0) + 1), ())).unwrap(),
                            4 | 5 => {
                                let mut batch = store.batch();
                                batch.set(a, &key, value).unwrap();
                                batch.set(b, &other, value).unwrap();
                                batch.delete(b, &key).unwrap();
                                batch.commit_at(level).unwrap();
                            }
                            6 => store.flush().unwrap(),
                            7 => match store.shrink() {
                                Ok(()) | Err(Error::ShrinkInProgress { .. }) => {}
                                Err(e) => panic!("{e}"),
                            },
                            _ => map.set_at(&key, value, level).unwrap(),
                        }
                    }
                });
            }
        });
        let memory = (integers(&store, "a"), integers(&store, "b"));
        drop((a, b));
        store.close().unwrap();
        let store = Store::open(path(), options()).unwrap();
        assert_eq!((integers(&store, "a"), integers(&store, "b")), memory, "round {round}");
        assert_eq!(store.stats().cut, None);
    }
}

// ---- Salvage ----

#[test]
fn salvage_keeps_what_can_be_read_and_reports_the_rest() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    for (i, key) in ["a", "b", "c", "d"].iter().enumerate() {
        map.set(key, i as i64).unwrap();
    }
    let mut batch = store.batch();
    batch.set(&map, "e", 4).unwrap();
    batch.set(&map, "f", 5).unwrap();
    batch.commit().unwrap();
    drop(map);
    store.close().unwrap();
    let mut damaged = bytes(&fs);
    let at = damaged.windows(4).position(|w| w == b"m:b\n").unwrap();
    damaged[at + 2] = b'B';
    let fs = mem_with(&damaged);
    let offset = match Store::open(path(), quiet(fs.clone())) {
        Err(e @ Error::Corrupt { offset, .. }) => {
            assert!(e.to_string().contains("salvage"), "{e}");
            offset
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(&fs), damaged, "refusing a damaged file changed it");
    let salvaged = salvage(path(), &quiet(fs.clone())).unwrap();
    assert_eq!(salvaged.kept, 5);
    assert_eq!(salvaged.dropped.len(), 1);
    assert_eq!((salvaged.dropped[0].offset, salvaged.dropped[0].len), (offset, "S=01234567 m:b\n1\n".len() as u64));
    assert_eq!(salvaged.original, Path::new("/db/store.damaged"));
    assert_eq!(fs.image()[&salvaged.original], damaged, "the original is kept byte for byte");
    let store = open(&fs);
    assert_eq!(integers(&store, "m"), pairs(&[("a", 0), ("c", 2), ("d", 3), ("e", 4), ("f", 5)]));
    drop(store);
    // A second salvage keeps both originals.
    let again = salvage(path(), &quiet(fs.clone())).unwrap();
    assert_eq!((again.kept, again.dropped.len()), (5, 0));
    assert_eq!(again.original, Path::new("/db/store.damaged-2"));
    assert_eq!(fs.image()[Path::new("/db/store.damaged")], damaged);
}

#[test]
fn salvage_that_fails_leaves_the_store_as_it_was() {
    use CallKind as K;
    let fs = mem();
    open(&fs).map("m").unwrap().set("k", 1).unwrap();
    let start = fs.image();
    for kind in [K::Open, K::Create, K::Rename, K::SyncDir, K::Read, K::Write, K::Sync] {
        for skip in 0.. {
            let mem = MemFs::from_image(&start);
            let fs = FailingFs::new(Arc::new(mem.clone()));
            fs.arm(Plan { kind, skip, times: 1, fault: Fault::Eio });
            let outcome = salvage(path(), &quiet(fs.clone()));
            fs.disarm();
            assert_eq!(integers(&open(&mem), "m"), pairs(&[("k", 1)]), "{kind:?} {skip}");
            if outcome.is_ok() && skip > 0 {
                break;
            }
            assert!(skip < 100);
        }
    }
}

/// What checksums and marks add to a file: at most twelve bytes a record beyond what go-persist writes
/// for the same changes, before a shrink and after it.
#[test]
fn a_record_costs_at_most_twelve_bytes_more_than_go_persists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("size.db");
    let store = Store::open(&path, Options { auto_shrink: None, ..Options::with_sync(SyncPolicy::Always) }).unwrap();
    let map = store.map::<serde_json::Value>("test_struct").unwrap();
    let (mut theirs, mut theirs_live) = (0, 0);
    let records = 300;
    for i in 0..records {
        let (key, value) = ((i % 100).to_string(), serde_json::json!({ "field1": i, "field2": "updated struct" }));
        // `S test_struct:KEY` and the value, each on a line.
        let theirs_record = 2 + "test_struct:".len() + key.len() + 1 + value.to_string().len() + 1;
        theirs += theirs_record;
        theirs_live += if i >= 200 { theirs_record } else { 0 };
        // The worst case: every record is synced on its own and carries a mark.
        map.set_sync(&key, value).unwrap();
    }
    let size = || std::fs::metadata(&path).unwrap().len() as usize;
    let headers = "go-persist 1\n".len();
    assert!(size() <= headers + theirs + 12 * records, "{} against {theirs}", size());
    store.shrink().unwrap();
    assert!(size() <= headers + theirs_live + 12 * 100, "{} against {theirs_live}", size());
}
