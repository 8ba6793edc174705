//! Long values of the LSM store: who still sees them, when they move, and what is said of them. Names in brackets are Badger's
//! tests of the same behaviour.

use crate::lsm_store::{DIR, all, files, key, open, options, settle};
use engine::fs::MemFs;
use engine::lsm::{Options, Store};
use engine::{Durability, Error};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn long(n: u32) -> Vec<u8> {
    vec![b'a' + (n % 26) as u8; 400]
}

/// Sixty long values in tables and in one file of values.
fn with_values(options: Options) -> Store {
    let store = Store::open(DIR, options).unwrap();
    (0..60).for_each(|n| store.put(&key(n), &long(n)).unwrap());
    store.flush().unwrap();
    settle(&store);
    store
}

/// Deletes two of three, until no table points to their values any more.
fn delete_most(store: &Store) {
    (0..60).filter(|n| n % 3 != 0).for_each(|n| store.delete(&key(n)).unwrap());
    // Level 0 is merged when it has three tables.
    for _ in 0..3 {
        store.put(b"key", b"short").unwrap();
        store.put(b"key-9", b"short").unwrap();
        store.flush().unwrap();
    }
    settle(store);
}

/// [`TestValueGC3`]
#[test]
fn an_iterator_outlives_the_collection_of_what_it_shows() {
    let fs = MemFs::new();
    let store = with_values(options(&fs));
    let (before, values) = (all(&store), files(&fs, "val"));
    let mut iter = store.iter();
    let first: Vec<_> = (0..3).map(|_| iter.advance().unwrap().map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    delete_most(&store);
    assert!(store.stats().collections > 0, "{:?}", store.stats());
    store.compact().unwrap();
    assert!(values.iter().all(|path| files(&fs, "val").contains(path)), "somebody reads them");
    let shown: BTreeMap<_, _> = first.into_iter().map(Ok).chain(iter).collect::<Result<_, _>>().unwrap();
    assert_eq!(shown, before);
    settle(&store);
    assert!(!values.iter().any(|path| files(&fs, "val").contains(path)), "nobody reads them any more");
    assert_eq!(all(&store).len(), 22);
}

/// [`TestPersistLFDiscardStats`, `TestReloadDiscardStats`]
#[test]
fn what_is_dead_among_the_values_is_known_after_reopening() {
    let fs = MemFs::new();
    let store = with_values(Options { collect_ratio: 0.95, ..options(&fs) });
    delete_most(&store);
    let of = |store: &Store| (store.stats().value_log, store.stats().value_log_live);
    let (all_values, live) = of(&store);
    assert!(store.stats().collections == 0 && live < all_values / 2 && live >= 20 * 400, "{live} of {all_values}");
    let killed = fs.image();
    store.close().unwrap();
    for image in [killed, fs.image()] {
        let fs = MemFs::from_image(&image);
        let store = open(&fs);
        assert_eq!(of(&store), (all_values, live));
        settle(&store);
        assert!(store.stats().collections > 0 && store.stats().value_log < all_values / 2, "{:?}", store.stats());
        assert_eq!(all(&store).len(), 22);
        store.verify().unwrap();
    }
}

/// [`TestAssertValueLogIsNotWrittenToOnStartup`]
#[test]
fn opening_and_reading_change_no_table_and_no_value() {
    let fs = MemFs::new();
    let store = with_values(options(&fs));
    (60..64).for_each(|n| store.put(&key(n), &long(n)).unwrap());
    let killed = fs.image();
    let shown = all(&store);
    store.close().unwrap();
    let kept = |image: BTreeMap<PathBuf, Vec<u8>>| -> Vec<_> {
        image.into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "sst" || e == "val")).collect()
    };
    for image in [killed, fs.image()] {
        let fs = MemFs::from_image(&image);
        let store = open(&fs);
        assert_eq!(all(&store), shown);
        assert_eq!(kept(fs.image()), kept(image.clone()));
        drop(store);
        assert_eq!(kept(fs.image()), kept(image));
    }
}

/// [`TestBackupBitClear`]
#[test]
fn a_backup_is_loaded_where_other_values_are_long() {
    for (from, to) in [(200, 1_000), (1_000, 200), (1, 1_000)] {
        let (fs, copy) = (MemFs::new(), MemFs::new());
        let store = with_values(Options { value_threshold: from, ..options(&fs) });
        let restored = Store::open(DIR, Options { value_threshold: to, ..options(&copy) }).unwrap();
        let mut stream = Vec::new();
        store.backup(&mut stream, 0).unwrap();
        restored.load(&mut &stream[..], Durability::Write).unwrap();
        restored.flush().unwrap();
        assert_eq!(all(&restored), all(&store));
        assert_eq!(files(&copy, "val").is_empty(), to > 400, "{:?}", files(&copy, "val"));
        restored.close().unwrap();
        // With another threshold values move when they are merged.
        let restored = Store::open(DIR, Options { value_threshold: from, ..options(&copy) }).unwrap();
        restored.compact().unwrap();
        assert!(from > 400 || !files(&copy, "val").is_empty());
        assert_eq!(all(&restored), all(&store));
    }
}

/// [`TestTruncateVlogWithClose`]
#[test]
fn what_lay_behind_the_end_of_a_cut_file_is_an_error_and_the_rest_is_shown() {
    let fs = MemFs::new();
    let store = Store::open(DIR, options(&fs)).unwrap();
    (0..6).for_each(|n| store.put(&key(n), if n % 2 == 0 { b"short" } else { &[b'v'; 250] }).unwrap());
    store.flush().unwrap();
    store.close().unwrap();
    let image = fs.image();
    let mut opened = 0;
    for extension in ["sst", "val"] {
        let path = files(&fs, extension).remove(0);
        for len in 0..image[&path].len() {
            let mut image = image.clone();
            image.get_mut(&path).unwrap().truncate(len);
            let fs = MemFs::from_image(&image);
            let said = |e: Error| match e {
                Error::Corrupt { file, .. } | Error::Format { file, .. } => assert_eq!(file, path),
                e => panic!("{extension} of {len}: {e}"),
            };
            let store = match Store::open(DIR, options(&fs)) {
                Ok(store) => store,
                Err(e) => {
                    said(e);
                    continue;
                }
            };
            opened += 1;
            let mut missing = 0;
            for n in 0..6 {
                match store.get(&key(n)) {
                    Ok(value) => assert_eq!(value.unwrap().len(), if n % 2 == 0 { 5 } else { 250 }, "{extension} of {len}"),
                    Err(e) => {
                        said(e);
                        missing += 1;
                    }
                }
            }
            assert!(missing > 0, "{extension} of {len}");
            store.put(b"later", b"value").unwrap();
            store.close().unwrap();
            assert_eq!(Store::open(DIR, options(&fs)).unwrap().get(b"later").unwrap().as_deref(), Some(&b"value"[..]));
        }
    }
    assert!(opened > 100, "{opened}");
}
