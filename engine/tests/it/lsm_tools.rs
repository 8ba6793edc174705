//! What an owner does with an LSM store besides reading and writing: salvage, checkpoints, dropping, export, statistics,
//! and changes while it is open. Names in brackets are Badger's tests of the same behaviour.

use crate::lsm_damage::{load_anything, open_damaged};
use crate::lsm_store::{DIR, all, alter, clock, files, key, open, options, settle};
use engine::fs::{CallKind, FailingFs, Fault, Fs, MemFs, Plan, TraceFs};
use engine::lsm::{Batch, Clock, Format, Loss, Options, Salvage, Salvaged, Store};
use engine::{Durability, Error, SyncPolicy};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every value that a key ever had, deletes among them.
type History = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

/// A store with a history in tables, in the value log and in memory, killed at its end.
fn with_history() -> (MemFs, History) {
    let fs = MemFs::new();
    let store = open(&fs);
    let mut history = History::new();
    for n in 0..400u32 {
        let key = key(n * 7 % 60);
        let value = (n % 9 != 0).then(|| vec![n as u8; if n % 11 == 0 { 300 } else { 30 }]);
        match &value {
            Some(value) => store.put(&key, value).unwrap(),
            None => store.delete(&key).unwrap(),
        }
        history.entry(key).or_default().push(value);
        if n % 90 == 89 {
            store.maintain(std::time::Duration::ZERO).unwrap();
        }
    }
    let killed = MemFs::from_image(&fs.image());
    (killed, history)
}

#[test]
fn salvage_of_a_whole_store_gives_all_of_it() {
    let (fs, history) = with_history();
    let salvage = Salvage::open(DIR, &options(&fs)).unwrap();
    assert_eq!(salvage.losses(), []);
    let found: Vec<Salvaged> = salvage.entries().unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len() as u64, salvage.len());
    let want: Vec<_> = history.iter().filter_map(|(key, values)| Some((key.clone(), values.last()?.clone()?))).collect();
    assert!(found.iter().all(|entry| entry.certain));
    assert_eq!(found.into_iter().map(|entry| (entry.key, entry.value)).collect::<Vec<_>>(), want);
    assert!(matches!(Store::open(DIR, options(&fs)), Err(Error::Locked { .. })), "it holds the lock");
    drop(salvage);
    assert_eq!(all(&open(&fs)).len(), want.len(), "nothing was changed");
}

#[test]
fn salvage_tells_of_a_segment_that_is_gone() {
    let fs = MemFs::new();
    let store = open(&fs);
    let mut n = 0;
    while files(&fs, "wal").len() < 3 {
        store.put(&key(n), &[1; 50]).unwrap();
        n += 1;
    }
    let middle = files(&fs, "wal").remove(1);
    // Gone, or nothing of it but its header, or zeros.
    for left in [None, Some(6), Some(0)] {
        let killed = MemFs::from_image(&fs.image());
        match left {
            None => killed.remove(&middle).unwrap(),
            Some(0) => alter(&killed, &middle, |bytes| bytes[6..].fill(0)),
            Some(left) => alter(&killed, &middle, |bytes| bytes.truncate(left)),
        }
        let salvage = Salvage::open(DIR, &options(&killed)).unwrap();
        assert_eq!(salvage.losses().iter().map(|loss| &loss.file).collect::<Vec<_>>(), [&middle], "{left:?}");
        assert!(salvage.entries().unwrap().all(|entry| !entry.unwrap().certain));
    }
}

#[test]
fn salvage_gives_what_is_intact_and_says_what_is_not() {
    let (whole, history) = with_history();
    let (mut kept, mut doubtful, mut lost, mut unnoticed) = (0, 0, 0, 0);
    let salvaged = |salvage: &Salvage| salvage.entries().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let undamaged = salvaged(&Salvage::open(DIR, &options(&whole)).unwrap());
    let names: Vec<PathBuf> = whole.paths().into_iter().filter(|path| !path.ends_with("lock")).collect();
    // Nothing says that there was a last segment of the log, once its file is gone. One may wait behind it, not begun.
    let begun = |path: &PathBuf| whole.image()[path][b"wal 1\n".len()..].iter().any(|byte| *byte != 0);
    let last_segment = files(&whole, "wal").into_iter().rfind(begun);
    for path in &names {
        let len = whole.image()[path].len();
        // The file gone, cut, emptied, or a byte of it changed.
        let gone = (last_segment.as_ref() != Some(path)).then_some(None);
        for at in (0..len).step_by((len / 40).max(1)).map(Some).chain(gone) {
            for cut in [false, true] {
                let fs = MemFs::from_image(&whole.image());
                match at {
                    None => fs.remove(path).unwrap(),
                    Some(at) if cut => alter(&fs, path, |bytes| bytes.truncate(at)),
                    Some(at) => alter(&fs, path, |bytes| bytes[at] ^= 0x40),
                }
                let before = fs.image();
                let salvage = Salvage::open(DIR, &options(&fs)).unwrap();
                let case = format!("{} at {at:?}, cut: {cut}, losses: {:?}", path.display(), salvage.losses());
                let found = salvaged(&salvage);
                if cut && last_segment.as_ref() == Some(path) && salvage.losses().is_empty() && found != undamaged {
                    // A log that is cut between two records looks like a shorter one.
                    unnoticed += 1;
                    continue;
                }
                for entry in &found {
                    let values = &history[&entry.key];
                    let value = Some(entry.value.clone());
                    assert!(values.contains(&value), "{:?} was never written: {case}", entry.key);
                    assert!(!entry.certain || values.last() == Some(&value), "{:?} is not current: {case}", entry.key);
                    *if entry.certain { &mut kept } else { &mut doubtful } += 1;
                }
                for (key, values) in &history {
                    let is_missing = values.last().is_some_and(Option::is_some) && !found.iter().any(|entry| entry.key == *key);
                    let explained = |loss: &Loss| loss.keys.as_ref().is_none_or(|(first, last)| first <= key && key <= last);
                    assert!(!is_missing || salvage.losses().iter().any(explained), "{key:?} is missing: {case}");
                    lost += u32::from(is_missing);
                }
                drop(salvage);
                assert_eq!(fs.image(), before, "nothing was changed: {case}");
            }
        }
    }
    assert!(kept > 5_000 && doubtful > 1_000 && lost > 100, "{kept} certain, {doubtful} doubtful, {lost} lost");
    assert!(unnoticed <= 2, "{unnoticed} cuts of the last segment went unnoticed");
}

#[test]
fn a_checkpoint_is_a_store_of_its_own() {
    let fs = MemFs::new();
    let store = open(&fs);
    for n in 0..300 {
        store.put(&key(n), &[n as u8; 250]).unwrap();
    }
    store.checkpoint("/copy").unwrap();
    let before = all(&store);
    for n in 0..300 {
        store.delete(&key(n)).unwrap();
    }
    store.compact().unwrap();
    let copy = Store::open("/copy", options(&fs)).unwrap();
    assert_eq!(all(&copy), before);
    copy.put(b"later", b"1").unwrap();
    copy.compact().unwrap();
    copy.verify().unwrap();
    copy.close().unwrap();
    let copy = Store::open("/copy", options(&fs)).unwrap();
    assert_eq!(all(&copy).len(), before.len() + 1);
    assert_eq!(all(&store), BTreeMap::new());
    assert!(matches!(store.checkpoint("/copy"), Err(Error::Option { option: "dir", .. })));
}

#[test]
fn a_checkpoint_that_fails_is_no_store() {
    let mut failed = 0;
    for kind in [CallKind::Link, CallKind::Create, CallKind::SyncDir, CallKind::Sync, CallKind::Rename] {
        for skip in 0..12 {
            let fs = MemFs::new();
            let failing = FailingFs::new(Arc::new(fs.clone()));
            let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
            (0..200).for_each(|n| store.put(&key(n), &[7; 40]).unwrap());
            store.flush().unwrap();
            failing.arm(Plan { kind, skip, times: 1, fault: Fault::Eio });
            let made = store.checkpoint("/copy");
            if made.is_ok() {
                assert_eq!(all(&Store::open("/copy", options(&fs)).unwrap()).len(), 200);
                continue;
            }
            failed += 1;
            // Only a failure behind the last rename leaves a store, and then it is whole.
            if let Ok(copy) = Store::open("/copy", options(&fs)) {
                let found = all(&copy).len();
                assert!(
                    found == 200
                        || (found == 0
                            && fs
                                .paths()
                                .iter()
                                .all(|path| !path.starts_with("/copy") || path.extension().is_none_or(|e| e != "sst"))),
                    "{kind:?} after {skip}: {found}"
                );
            }
        }
    }
    assert!(failed > 8, "{failed}");
}

/// [`TestDropAll`, `TestDropAllTwice`, `TestDropPrefix`]
#[test]
fn dropping_a_prefix_takes_its_keys_and_no_others() {
    let fs = MemFs::new();
    let store = open(&fs);
    let put = |from: u32| {
        for n in from..from + 300 {
            let name = format!("{}-{n:05}", ["a", "b", "bb", "c"][n as usize % 4]);
            store.put(name.as_bytes(), &vec![n as u8; if n % 7 == 0 { 300 } else { 20 }]).unwrap();
        }
    };
    put(0);
    store.flush().unwrap();
    put(300);
    let mut want = all(&store);
    let snapshot = store.snapshot();
    let mut open_transaction = store.transaction();
    open_transaction.get(b"c-00003").unwrap();
    open_transaction.put(b"c-00003", b"stale").unwrap();
    store.drop_prefix(b"b").unwrap();
    want.retain(|key, _| !key.starts_with(b"b"));
    assert_eq!(all(&store), want);
    assert!(matches!(open_transaction.commit(Durability::Write), Err(Error::Conflict)));
    drop(snapshot);
    store.verify().unwrap();
    store.put(b"b-new", b"1").unwrap();
    want.insert(b"b-new".to_vec(), b"1".to_vec());
    drop(store);
    let store = open(&fs);
    assert_eq!(all(&store), want);
    store.drop_prefix(b"nothing").unwrap();
    assert_eq!(all(&store), want);
    store.drop_all().unwrap();
    store.drop_all().unwrap();
    assert_eq!(all(&store), BTreeMap::new());
    assert_eq!((files(&fs, "sst"), files(&fs, "val")), (vec![], vec![]));
    store.put(b"x", b"1").unwrap();
    drop(store);
    assert_eq!(all(&open(&fs)).len(), 1);
}

/// [`TestDropAllWithPendingTxn`, `TestDropPrefixWithPendingTxn`]
#[test]
fn what_was_begun_before_a_drop_is_read_to_its_end() {
    for prefix in [&b"key-000"[..], b""] {
        let fs = MemFs::new();
        let store = open(&fs);
        (0..60).for_each(|n| store.put(&key(n), &vec![b'v'; if n % 2 == 0 { 300 } else { 20 }]).unwrap());
        store.flush().unwrap();
        let (before, dropped) = (all(&store), files(&fs, "val"));
        let mut iter = store.iter();
        let first = iter.advance().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap();
        if prefix.is_empty() {
            store.drop_all().unwrap()
        } else {
            store.drop_prefix(prefix).unwrap()
        }
        assert_eq!(all(&store).len(), 0);
        store.put(&key(7), b"later").unwrap();
        let shown: BTreeMap<_, _> = [Ok(first)].into_iter().chain(iter).collect::<Result<_, _>>().unwrap();
        assert_eq!(shown, before);
        settle(&store);
        store.compact().unwrap();
        assert!(!files(&fs, "val").iter().any(|path| dropped.contains(path)), "nobody reads them any more");
        drop(store);
        assert_eq!(all(&open(&fs)).len(), 1);
    }
}

#[test]
fn dropping_a_prefix_happens_wholly_or_not_at_all() {
    let (mut before, mut after) = (0, 0);
    for (kind, fault) in [(CallKind::Write, Fault::Enospc), (CallKind::Sync, Fault::Eio), (CallKind::SyncDir, Fault::Eio)] {
        for skip in 0..24 {
            let fs = MemFs::new();
            let failing = FailingFs::new(Arc::new(fs.clone()));
            let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
            for n in 0..200u32 {
                store.put(format!("{}-{n}", n % 3).as_bytes(), &[1; 60]).unwrap();
            }
            failing.arm(Plan { kind, skip, times: 1, fault });
            let dropped = store.drop_prefix(b"1-");
            drop(store);
            let left = all(&open(&fs)).keys().filter(|key| key.starts_with(b"1-")).count();
            assert!(left == 67 || left == 0, "{kind:?} {fault:?} after {skip}: {left}");
            assert!(dropped.is_err() || left == 0);
            *if left == 0 { &mut after } else { &mut before } += 1;
        }
    }
    assert!(before > 10 && after > 10, "{before} before, {after} after");
}

#[test]
fn an_incremental_backup_knows_of_a_dropped_prefix() {
    let fs = MemFs::new();
    let store = open(&fs);
    store.put(b"a", b"1").unwrap();
    let whole = store.backup(&mut Vec::new(), 0).unwrap();
    store.drop_all().unwrap();
    assert!(matches!(store.backup(&mut Vec::new(), whole.through), Err(Error::Option { option: "since", .. })));
    let again = store.backup(&mut Vec::new(), 0).unwrap();
    assert!(store.backup(&mut Vec::new(), again.through).is_ok());
}

#[test]
fn an_export_comes_back_in_either_format() {
    let fs = MemFs::new();
    let store = Store::open(DIR, Options { clock: Clock::new(|| 100), ..options(&fs) }).unwrap();
    for n in 0..200u32 {
        store.put(&key(n), &vec![n as u8; if n % 10 == 0 { 400 } else { 12 }]).unwrap();
    }
    store.put(b"text", "Grüße \"1\"\n".as_bytes()).unwrap();
    store.put(&[0xff, 0, 1], b"").unwrap();
    let mut batch = Batch::new();
    batch.put_until(b"ends", b"soon", 200);
    batch.put_until(b"ended", b"long ago", 50);
    store.write(batch, Durability::Write).unwrap();
    store.delete(&key(3)).unwrap();
    let want = all(&store);
    for format in [Format::JsonLines, Format::Protobuf] {
        let mut bytes = Vec::new();
        assert_eq!(store.export(&mut bytes, format).unwrap(), want.len() as u64);
        if format == Format::JsonLines {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(r#"{"key":"text","value":"Grüße \"1\"\n"}"#), "{text}");
            assert!(text.contains(r#"{"key":"ends","value":"soon","end":200}"#), "{text}");
            assert!(text.contains(r#"{"key64":"/wAB","value":""}"#), "{text}");
        }
        let other = MemFs::new();
        let later = Arc::new(AtomicU64::new(100));
        let copy = Store::open(DIR, Options { clock: clock(&later), ..options(&other) }).unwrap();
        assert_eq!(copy.import(&mut &bytes[..], format, Durability::Write).unwrap(), want.len() as u64);
        assert_eq!(all(&copy), want);
        later.store(300, Ordering::SeqCst);
        assert_eq!(copy.get(b"ends").unwrap(), None);
        // Any end is an end of the export or is refused.
        for cut in (0..bytes.len()).step_by(37) {
            match open(&MemFs::new()).import(&mut &bytes[..cut], format, Durability::Write) {
                Ok(count) => assert!(count < want.len() as u64),
                Err(e) => assert!(matches!(e, Error::Corrupt { .. }), "{e}"),
            }
        }
    }
    let no = |text: &str| {
        open(&MemFs::new()).import(&mut text.as_bytes(), Format::JsonLines, Durability::Write).unwrap_err().to_string()
    };
    assert!(no("{}").contains("entry 1 cannot be read: it must have either key or key64"), "{}", no("{}"));
    assert!(no("\n{\"key\":\"a\",\"value64\":\"?\"}").contains("no Base64"));
    let lies = [0xff, 0xff, 0xff, 0xff, 0x7f, 1];
    assert!(open(&MemFs::new()).import(&mut &lies[..], Format::Protobuf, Durability::Write).is_err());
}

#[test]
fn statistics_are_shown_as_open_metrics() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..500).for_each(|n| store.put(&key(n), &[1; 30]).unwrap());
    store.compact().unwrap();
    let text = store.stats().open_metrics();
    let stats = store.stats();
    for line in [
        "# TYPE lsm_flushes counter".to_owned(),
        format!("lsm_flushes_total {}", stats.flushes),
        format!("lsm_written_bytes_total {}", stats.written),
        format!("lsm_level_bytes{{level=\"6\"}} {}", stats.levels[6].bytes),
        format!("lsm_write_amplification {}", stats.write_amplification()),
        "lsm_pending_compaction_bytes 0".to_owned(),
        "lsm_read_amplification 2.0".to_owned(),
        "lsm_space_amplification 1.0".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(stats.write_amplification() > 0.0);
}

#[test]
fn the_sync_policy_changes_while_the_store_is_open() {
    let fs = MemFs::new();
    let trace = TraceFs::over(&fs);
    let store = Store::open(DIR, Options { fs: Arc::new(trace.clone()), ..options(&fs) }).unwrap();
    let seen = trace.recorder().entries().len();
    let syncs = || trace.recorder().syncs_since(seen).0;
    store.put(b"a", b"1").unwrap();
    assert_eq!(syncs(), 0, "never");
    store.set_sync_policy(SyncPolicy::Always).unwrap();
    assert_eq!(syncs(), 1, "what was written before counts too");
    store.put(b"a", b"2").unwrap();
    assert_eq!(syncs(), 2);
    store.set_sync_policy(SyncPolicy::Never).unwrap();
    store.put(b"a", b"3").unwrap();
    assert_eq!(syncs(), 2);
    store.set_sync_policy(SyncPolicy::EVERY_SECOND).unwrap();
    store.put(b"a", b"4").unwrap();
    store.maintain(std::time::Duration::from_secs(1)).unwrap();
    assert!(syncs() >= 4);
    assert!(matches!(
        store.set_sync_policy(SyncPolicy::Interval(std::time::Duration::ZERO)),
        Err(Error::Option { option: "sync", .. })
    ));
}

#[test]
fn a_compaction_can_be_slowed_and_let_go() {
    let fs = MemFs::new();
    let store = Store::open(DIR, Options { compaction_rate: 1, ..options(&fs) }).unwrap();
    (0..3_000).for_each(|n| store.put_at(&key(n), &[1; 2], Durability::Async).unwrap());
    // At a byte a second it would take an hour.
    engine::background::in_parallel(vec![true, false], |compacts| {
        if compacts {
            store.compact().unwrap();
        } else {
            store.set_compaction_rate(0);
        }
    });
    assert_eq!(all(&store).len(), 3_000);
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_build_without_zstandard_says_so() {
    let fs = MemFs::new();
    let said = Store::open(DIR, Options { compression: engine::lsm::Compression::Zstd, ..options(&fs) }).unwrap_err().to_string();
    assert_eq!(
        said,
        "option compression = zstd is not valid: this build has no Zstandard; build the engine with its feature zstd"
    );
}

proptest! {
    /// The body that the fuzz target runs, too.
    #[test]
    fn any_damage_is_survived(input in prop::collection::vec(any::<u8>(), 5..40)) {
        open_damaged(&input);
    }

    /// The body that the fuzz target runs, too.
    #[test]
    fn any_stream_is_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
        load_anything(&input);
    }
}
