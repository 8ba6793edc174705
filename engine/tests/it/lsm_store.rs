//! What the LSM store promises, one test each. Names in brackets are Badger's tests of the same behaviour.

use engine::fs::{CallKind, FailingFs, Fault, File, Fs, FsLayer, FsOp, Lock, LockOutcome, MemFs, Plan, RealFs, TraceFs};
use engine::lsm::{Batch, Clock, Compression, Options, Store, Transaction};
use engine::{Durability, Error, SyncPolicy};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const DIR: &str = "/db";

pub(crate) fn options(fs: &MemFs) -> Options {
    Options {
        sync: SyncPolicy::Never,
        memtable_size: 4_000,
        memtables: 3,
        level0_tables: 3,
        level0_slow: 4,
        level0_stall: 6,
        level_multiplier: 4,
        base_level_size: 8_000,
        table_size: 2_000,
        value_threshold: 200,
        block_size: 256,
        block_cache: 1 << 20,
        index_cache: 1 << 20,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    }
}

pub(crate) fn open(fs: &MemFs) -> Store {
    Store::open(DIR, options(fs)).unwrap()
}

pub(crate) fn key(n: u32) -> Vec<u8> {
    format!("key-{n:05}").into_bytes()
}

fn text(store: &Store, key: &[u8]) -> Option<String> {
    store.get(key).unwrap().map(|v| String::from_utf8(v).unwrap())
}

pub(crate) fn all(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter().collect::<Result<_, _>>().unwrap()
}

pub(crate) fn files(fs: &MemFs, extension: &str) -> Vec<PathBuf> {
    fs.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

/// Does all that is due, a step at a time.
pub(crate) fn settle(store: &Store) {
    while store.maintain(Duration::ZERO).unwrap().is_zero() {}
}

/// A clock that stands at this time.
pub(crate) fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::new(move || now.load(Ordering::SeqCst))
}

/// Writes until there are two segments, since nothing flushes the first; how many keys that took.
fn fill_a_segment(fs: &MemFs, store: &Store, level: Durability) -> u32 {
    let mut n = 0;
    while files(fs, "wal").len() < 2 {
        store.put_at(&key(n), &[b'v'; 100], level).unwrap();
        n += 1;
    }
    n
}

/// The bytes of a file, changed.
pub(crate) fn alter(fs: &MemFs, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs.image().remove(path).unwrap();
    change(&mut bytes);
    let file = fs.create(path).unwrap();
    engine::fs::write_all_at(&*file, &bytes, 0).unwrap();
}

fn corrupt(opened: Result<Store, Error>) -> (PathBuf, u64, String) {
    match opened.map(drop) {
        Err(Error::Corrupt { file, offset, what, remedy }) => {
            assert!(remedy.contains("salvage"), "{remedy}");
            (file, offset, what)
        }
        other => panic!("{other:?}"),
    }
}

/// Takes the last bytes of what was written into a log; what is left of its room stays or goes too.
fn tear(fs: &MemFs, log: &Path, lost: usize, keeps_room: bool) {
    alter(fs, log, |bytes| {
        let len = bytes.len();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end - lost);
        bytes.resize(if keeps_room { len } else { end - lost }, 0);
    });
}

/// [`TestTruncateVlogNoClose`, `TestPartialAppendToWAL`]
#[test]
fn a_torn_tail_of_the_log_is_cut_and_told() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..5).for_each(|n| store.put(&key(n), b"value").unwrap());
    let image = fs.image();
    let wal = files(&fs, "wal").remove(0);
    for lost in (1..30).flat_map(|lost| [(lost, false), (lost, true)]) {
        let fs = MemFs::from_image(&image);
        tear(&fs, &wal, lost.0, lost.1);
        let store = open(&fs);
        assert_eq!(all(&store).len(), 4);
        assert_eq!(store.stats().cut.unwrap().0, wal);
        store.put(&key(9), b"later").unwrap();
        store.close().unwrap();
        assert_eq!(all(&open(&fs)).len(), 5);
    }
}

#[test]
fn of_a_torn_batch_nothing_is_left() {
    for (count, pack_log_from) in [(3, usize::MAX), (30, 100)] {
        let fs = MemFs::new();
        let store = Store::open(DIR, Options { pack_log_from, ..options(&fs) }).unwrap();
        store.put(b"before", b"value").unwrap();
        let mut batch = Batch::new();
        (0..count).for_each(|n| batch.put(&key(n), b"value"));
        batch.delete(b"before");
        store.write(batch, Durability::Write).unwrap();
        assert_eq!(all(&store).len(), count as usize);
        let image = fs.image();
        let wal = files(&fs, "wal").remove(0);
        for (lost, keeps_room) in (1..60).flat_map(|lost| [(lost, false), (lost, true)]) {
            let fs = MemFs::from_image(&image);
            tear(&fs, &wal, lost, keeps_room);
            assert_eq!(all(&open(&fs)).into_keys().collect::<Vec<_>>(), [b"before"]);
        }
    }
}

#[test]
fn damage_in_a_log_that_was_synced_is_refused() {
    let fs = MemFs::new();
    let store = open(&fs);
    for n in 0..5 {
        store.put_at(&key(n), b"value", Durability::Sync).unwrap();
    }
    drop(store);
    let wal = files(&fs, "wal").remove(0);
    alter(&fs, &wal, |bytes| bytes[80] ^= 1);
    let (file, offset, _) = corrupt(Store::open(DIR, options(&fs)));
    assert!(file == wal && offset <= 80, "{offset}");
}

#[test]
fn a_lost_end_of_an_earlier_segment_gives_up_the_later_one() {
    let fs = MemFs::new();
    let store = open(&fs);
    let n = fill_a_segment(&fs, &store, Durability::Write);
    store.put(&key(9_999), b"in the second").unwrap();
    let image = fs.image();
    let first = files(&fs, "wal").remove(0);
    let fs = MemFs::from_image(&image);
    tear(&fs, &first, 1, true);
    let store = open(&fs);
    let left = all(&store);
    assert!(!left.contains_key(&key(9_999)) && left.len() == n as usize - 2, "a prefix is left: {}", left.len());
    store.put(&key(n - 2), &[b'v'; 100]).unwrap();
    store.close().unwrap();
    assert!(text(&open(&fs), &key(9_999)).is_none(), "what was given up does not come back");
}

/// [`TestPenultimateMemCorruption`]
#[test]
fn a_lost_end_of_an_earlier_segment_that_was_synced_is_refused() {
    let fs = MemFs::new();
    let store = open(&fs);
    let n = fill_a_segment(&fs, &store, Durability::Sync);
    store.put_at(&key(n), b"in the second", Durability::Sync).unwrap();
    let image = fs.image();
    let names = files(&fs, "wal");
    for lost in 1..40 {
        let fs = MemFs::from_image(&image);
        tear(&fs, &names[0], lost, lost % 2 == 0);
        let before = fs.image();
        assert_eq!(corrupt(Store::open(DIR, options(&fs))).0, names[0], "{lost}");
        assert_eq!(fs.image(), before, "nothing is cut that was promised");
    }
}

#[test]
fn what_is_given_up_is_removed_before_anything_is_written() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill_a_segment(&fs, &store, Durability::Write);
    let image = fs.image();
    let names = files(&fs, "wal");
    let fs = MemFs::from_image(&image);
    tear(&fs, &names[0], 1, false);
    let store = open(&fs);
    assert_eq!(files(&fs, "wal"), names[..1]);
    drop(store);
}

#[test]
fn a_sync_waits_for_every_segment_before_its_own() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
    fill_a_segment(&fs, &store, Durability::Write);
    // The first sync is the older segment's, and the second this one's own.
    failing.arm(Plan { kind: CallKind::Sync, skip: 1, times: 1, fault: Fault::Eio });
    assert!(matches!(store.put_at(b"last", b"v", Durability::Sync), Err(Error::Poisoned { .. })));
    assert_eq!(failing.fired(), 1);
}

#[test]
fn a_value_of_another_key_is_not_shown() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..2).for_each(|n| store.put(&key(n), &[b'a' + n as u8; 300]).unwrap());
    store.flush().unwrap();
    store.close().unwrap();
    let values = files(&fs, "val").remove(0);
    alter(&fs, &values, |bytes| {
        // Two records of one length behind the header, in each other's place.
        let half = (bytes.len() - 9) / 2;
        bytes[9..].rotate_left(half);
    });
    let store = open(&fs);
    for n in 0..2 {
        assert!(matches!(store.get(&key(n)), Err(Error::Corrupt { .. })));
    }
}

/// [`TestManifestChecksum`, `TestManifestMagic`]
#[test]
fn every_flipped_byte_of_a_closed_store_is_detected_or_harmless() {
    let fs = MemFs::new();
    let store = open(&fs);
    for n in 0..40 {
        let len = if n % 7 == 0 { 300 } else { 60 };
        store.put(&key(n), &vec![b'a' + (n % 20) as u8; len]).unwrap();
    }
    store.delete(&key(3)).unwrap();
    store.flush().unwrap();
    store.put(&key(50), b"in the log").unwrap();
    let truth = all(&store);
    store.close().unwrap();
    let image = fs.image();
    let mut detected = 0;
    for (path, bytes) in &image {
        for at in 0..bytes.len() {
            let fs = MemFs::from_image(&image);
            alter(&fs, path, |bytes| bytes[at] ^= 0x40);
            let shown = Store::open(DIR, options(&fs)).and_then(|store| store.iter().collect::<Result<BTreeMap<_, _>, _>>());
            match shown {
                Err(Error::Corrupt { .. } | Error::Format { .. }) => detected += 1,
                Err(e) => panic!("{}: {e}", path.display()),
                Ok(shown) => {
                    assert_eq!(shown, truth, "byte {at} of {}", path.display());
                    // Of the manifest only the mark of a clean end may go.
                    assert!(!path.ends_with("manifest") || at >= bytes.len() - 12, "byte {at} of {}", bytes.len());
                }
            }
        }
    }
    assert!(detected > 1_000, "{detected}");
}

/// [`TestManifestMagic`, `TestManifestVersion`, `TestValueLogTruncate`]
#[test]
fn a_file_of_another_program_or_version_is_refused_by_its_name_and_left_alone() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..4).for_each(|n| store.put(&key(n), &[b'v'; 300]).unwrap());
    store.flush().unwrap();
    store.put(&key(5), b"in the log").unwrap();
    store.close().unwrap();
    let image = fs.image();
    for path in image.keys() {
        for foreign in [&b"another program's"[..], b"manifest 2\n", b"wal 2\n", b""] {
            let is_read_at_once = path.ends_with("manifest") || path.extension().is_some_and(|e| e == "wal");
            if foreign.len() == 6 && !is_read_at_once {
                continue;
            }
            let fs = MemFs::from_image(&image);
            alter(&fs, path, |bytes| match foreign {
                b"" => bytes.clear(),
                _ => drop(bytes.splice(..foreign.len(), foreign.iter().copied())),
            });
            let changed = fs.image();
            // Tables and values say so when they are read.
            let read = |store: Store| (0..6).try_for_each(|n| store.get(&key(n)).map(drop));
            match Store::open(DIR, options(&fs)).and_then(read) {
                Err(Error::Corrupt { file, .. } | Error::Format { file, .. }) => assert_eq!(&file, path),
                other => panic!("{} that begins {foreign:?}: {other:?}", path.display()),
            }
            assert_eq!(fs.image()[path], changed[path]);
            if is_read_at_once {
                assert_eq!(fs.image(), changed, "nothing is made or removed beside it");
            }
        }
    }
}

/// [`TestManifestRewrite`]
#[test]
fn the_manifest_is_rewritten_when_it_has_grown() {
    let fs = MemFs::new();
    let store = open(&fs);
    let mut lengths = Vec::new();
    for n in 0..500 {
        store.put(&key(n % 10), format!("{n}").as_bytes()).unwrap();
        store.flush().unwrap();
        settle(&store);
        lengths.push(fs.image()[Path::new("/db/manifest")].len());
    }
    assert!(lengths.windows(2).any(|w| w[1] < w[0]), "it never got shorter: {:?}", lengths.last());
    store.close().unwrap();
    assert_eq!(text(&open(&fs), &key(9)).as_deref(), Some("499"));
}

/// The disk is full from the moment at which a rewritten manifest got its name.
#[derive(Debug)]
struct FullAtRewrite {
    pub(crate) inner: MemFs,
    renamed: AtomicU64,
}

impl FsLayer for FullAtRewrite {
    fn below(&self) -> &dyn Fs {
        &self.inner
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if path.ends_with("manifest.new") && self.renamed.load(Ordering::SeqCst) > 1 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        self.renamed.fetch_add(u64::from(to.ends_with("manifest")), Ordering::SeqCst);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.renamed.compare_exchange(2, 3, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.inner.sync_dir(dir)
    }
}

#[test]
fn a_manifest_that_was_replaced_is_not_written_any_more() {
    let fs = MemFs::new();
    let full = Arc::new(FullAtRewrite { inner: fs.clone(), renamed: AtomicU64::new(0) });
    let store = Store::open(DIR, Options { manifest_size: 300, fs: full.clone(), ..options(&fs) }).unwrap();
    let mut acked = 0;
    for n in 0..24 {
        if store.put(&key(n), b"v").is_ok() {
            acked += 1;
        }
        let _ = store.flush();
    }
    assert_eq!(full.renamed.load(Ordering::SeqCst), 3, "the manifest was rewritten, and its name not synced");
    assert!(acked > 0);
    drop(store);
    let found = all(&open(&fs));
    assert!((0..acked).all(|n| found.contains_key(&key(n))), "{} of {acked} are left", found.len());
}

#[test]
fn a_manifest_whose_rewriting_fails_loses_no_edit() {
    let (mut failed, mut went_on) = (0, 0);
    for (kind, fault) in [
        (CallKind::SyncDir, Fault::Enospc),
        (CallKind::SyncDir, Fault::Eio),
        (CallKind::Rename, Fault::Enospc),
        (CallKind::Rename, Fault::Eio),
        (CallKind::Create, Fault::Enospc),
        (CallKind::Sync, Fault::Eio),
    ] {
        for skip in 0..60 {
            let fs = MemFs::new();
            let failing = FailingFs::new(Arc::new(fs.clone()));
            let small = Options { manifest_size: 300, fs: Arc::new(failing.clone()), ..options(&fs) };
            let store = Store::open(DIR, small).unwrap();
            failing.arm(Plan { kind, skip, times: 1, fault });
            let mut acked = BTreeMap::new();
            for n in 0..24 {
                if store.put(&key(n), b"v").is_ok() {
                    acked.insert(key(n), b"v".to_vec());
                }
                let _ = store.flush();
            }
            failed += failing.fired();
            went_on += u64::from(store.put(b"last", b"v").is_ok());
            drop(store);
            let found = all(&open(&fs));
            assert!(acked.iter().all(|(k, v)| found.get(k) == Some(v)), "{kind:?} {fault:?} after {skip}");
        }
    }
    assert!(failed > 200 && went_on > 60, "{failed} failures, {went_on} stores went on");
}

#[test]
fn a_file_that_the_manifest_names_must_be_there() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..40).for_each(|n| store.put(&key(n), &[b'x'; 250]).unwrap());
    store.flush().unwrap();
    store.close().unwrap();
    let image = fs.image();
    for path in image.keys().filter(|path| path.extension().is_some_and(|e| e != "lock") || path.ends_with("manifest")) {
        let fs = MemFs::from_image(&image);
        fs.remove(path).unwrap();
        let (file, ..) = corrupt(Store::open(DIR, options(&fs)));
        assert_eq!(&file, path);
    }
}

#[test]
fn what_a_crash_left_unfinished_is_removed() {
    let fs = MemFs::new();
    open(&fs).close().unwrap();
    for name in ["00000077.sst", "00000078.val", "00000079.wal.new", "manifest.new"] {
        fs.create(&Path::new(DIR).join(name)).unwrap();
    }
    fs.create(Path::new("/db/notes.txt")).unwrap();
    let store = open(&fs);
    let names: Vec<_> = fs.paths().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(
        names.contains(&"notes.txt".to_owned()) && !names.iter().any(|n| n.starts_with("0000007") || n.ends_with(".new")),
        "{names:?}"
    );
    // Numbers of what was removed are not given away again.
    (0..60).for_each(|n| store.put(&key(n), &[b'x'; 100]).unwrap());
    store.flush().unwrap();
    assert!(files(&fs, "sst").iter().all(|p| p.file_stem().unwrap().to_str().unwrap().parse::<u32>().unwrap() > 79));
}

/// [`TestPidFile`]
#[test]
fn a_second_opening_is_refused_with_the_holders_pid() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { fs: Arc::new(RealFs), ..Options::default() };
    let store = Store::open(dir.path(), options()).unwrap();
    match Store::open(dir.path(), options()).map(drop) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    store.close().unwrap();
    Store::open(dir.path(), options()).unwrap();
}

/// [`TestInvalidKey`]
#[test]
fn keys_that_make_no_sense_are_refused() {
    let fs = MemFs::new();
    let store = open(&fs);
    let long = vec![b'k'; 1 << 16];
    for key in [&b""[..], &long] {
        assert!(matches!(store.put(key, b"v"), Err(Error::InvalidKey { .. })));
        assert!(matches!(store.delete(key), Err(Error::InvalidKey { .. })));
        let mut batch = Batch::new();
        batch.put(b"good", b"v");
        batch.put(key, b"v");
        assert!(matches!(store.write(batch, Durability::Write), Err(Error::InvalidKey { .. })));
    }
    assert_eq!(all(&store).len(), 0);
    store.put(&long[1..], b"v").unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let fs = MemFs::new();
    type Change = fn(&mut Options);
    let wrong: [(&str, Change); 6] = [
        ("memtables", |o| o.memtables = 1),
        ("level0_slow", |o| o.level0_slow = 1),
        ("level_multiplier", |o| o.level_multiplier = 1),
        ("table_size", |o| o.table_size = 1 << 40),
        ("collect_ratio", |o| o.collect_ratio = 0.0),
        ("sync", |o| o.sync = SyncPolicy::Interval(Duration::ZERO)),
    ];
    for (name, change) in wrong {
        let mut options = options(&fs);
        change(&mut options);
        match Store::open(DIR, options).map(drop) {
            Err(Error::Option { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// [`TestWriteAfterClose`]
#[test]
fn a_closed_store_is_read_to_the_end_and_not_written() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..50).for_each(|n| store.put(&key(n), b"v").unwrap());
    let mut iter = store.iter();
    let snapshot = store.snapshot();
    let mut transaction = store.transaction();
    iter.advance().unwrap();
    store.close().unwrap();
    assert_eq!(iter.count(), 49);
    assert_eq!(snapshot.get(&key(7)).unwrap().as_deref(), Some(&b"v"[..]));
    transaction.put(&key(1), b"w").unwrap();
    assert!(matches!(transaction.commit(Durability::Write), Err(Error::Closed { .. })));
}

/// [`TestTxnWriteSkew`]
#[test]
fn write_skew_is_caught() {
    let fs = MemFs::new();
    let store = open(&fs);
    store.put(b"ax", b"100").unwrap();
    store.put(b"ay", b"100").unwrap();
    let spend = |txn: &mut Transaction, from: &[u8]| {
        let sum: u32 = [b"ax", b"ay"]
            .iter()
            .map(|k| String::from_utf8(txn.get(*k).unwrap().unwrap()).unwrap().parse::<u32>().unwrap())
            .sum();
        assert_eq!(sum, 200);
        txn.put(from, b"0").unwrap();
    };
    let (mut one, mut two) = (store.transaction(), store.transaction());
    spend(&mut one, b"ax");
    spend(&mut two, b"ay");
    one.commit(Durability::Write).unwrap();
    assert!(matches!(two.commit(Durability::Write), Err(Error::Conflict)));
    assert_eq!((text(&store, b"ax").as_deref(), text(&store, b"ay").as_deref()), (Some("0"), Some("100")));
}

#[test]
fn of_two_that_create_a_key_one_wins() {
    let fs = MemFs::new();
    let store = open(&fs);
    let (mut one, mut two, three) = (store.transaction(), store.transaction(), store.transaction());
    for txn in [&mut one, &mut two] {
        assert_eq!(txn.get(b"new").unwrap(), None);
        txn.put(b"new", b"mine").unwrap();
    }
    two.commit(Durability::Write).unwrap();
    assert!(matches!(one.commit(Durability::Write), Err(Error::Conflict)));
    // One that read nothing of it, and one that begins now, do not conflict.
    three.commit(Durability::Write).unwrap();
    let mut four = store.transaction();
    assert_eq!(four.get(b"new").unwrap().as_deref(), Some(&b"mine"[..]));
    four.delete(b"new").unwrap();
    four.commit(Durability::Sync).unwrap();
    assert_eq!(text(&store, b"new"), None);
}

#[test]
fn a_key_that_appears_in_a_range_that_was_read_is_a_conflict() {
    let fs = MemFs::new();
    let store = open(&fs);
    store.put(b"b", b"1").unwrap();
    let read = |range: std::ops::Range<&str>| {
        let mut txn = store.transaction();
        let found = txn.range(range).unwrap();
        txn.put(b"sum", found.len().to_string().as_bytes()).unwrap();
        txn
    };
    let (inside, outside) = (read("a".."c"), read("c".."d"));
    store.put(b"bb", b"1").unwrap();
    assert!(matches!(inside.commit(Durability::Write), Err(Error::Conflict)));
    outside.commit(Durability::Write).unwrap();
}

/// [`TestTxnVersions`, `TestTxnIterationEdgeCase`]
#[test]
fn a_transaction_sees_its_moment_and_itself() {
    let fs = MemFs::new();
    let store = open(&fs);
    store.put(b"a", b"1").unwrap();
    store.put(b"b", b"1").unwrap();
    let mut txn = store.transaction();
    txn.put(b"b", b"2").unwrap();
    txn.put(b"c", b"2").unwrap();
    txn.delete(b"a").unwrap();
    store.put(b"d", b"later").unwrap();
    store.flush().unwrap();
    store.compact().unwrap();
    let seen = txn.range::<&[u8]>(..).unwrap();
    assert_eq!(seen, [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"2".to_vec())]);
    assert_eq!(txn.get(b"a").unwrap(), None);
    drop(txn);
    assert_eq!(all(&store).len(), 3, "dropped, it changed nothing");
}

/// [the "bank" consistency tool]
#[test]
fn transfers_between_threads_keep_the_sum() {
    let fs = MemFs::new();
    let store = Store::open(DIR, Options { background: true, ..options(&fs) }).unwrap();
    let accounts = 8u32;
    (0..accounts).for_each(|n| store.put(&key(n), b"100").unwrap());
    let sum = |entries: Vec<(Vec<u8>, Vec<u8>)>| -> i64 {
        entries.iter().map(|(_, v)| String::from_utf8_lossy(v).parse::<i64>().unwrap()).sum()
    };
    let conflicts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (store, conflicts) = (&store, &conflicts);
            scope.spawn(move || {
                for n in 0..300u32 {
                    let (from, to) = ((n * 7 + thread) % accounts, (n * 5 + thread * 3 + 1) % accounts);
                    if from == to {
                        continue;
                    }
                    let mut txn = store.transaction();
                    let mut amount = |n| String::from_utf8(txn.get(&key(n)).unwrap().unwrap()).unwrap().parse::<i64>().unwrap();
                    let (a, b) = (amount(from) - 1, amount(to) + 1);
                    txn.put(&key(from), a.to_string().as_bytes()).unwrap();
                    txn.put(&key(to), b.to_string().as_bytes()).unwrap();
                    match txn.commit(Durability::Write) {
                        Ok(()) => {}
                        Err(Error::Conflict) => drop(conflicts.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                let seen = store.snapshot().range::<&[u8]>(..).collect::<Result<Vec<_>, _>>().unwrap();
                assert_eq!(sum(seen), 800);
            }
        });
    });
    assert_eq!(sum(all(&store).into_iter().collect()), 800);
}

#[test]
fn a_transaction_sees_nothing_of_its_own_that_has_ended() {
    let now = Arc::new(AtomicU64::new(100));
    let store = Store::open(DIR, Options { clock: clock(&now), ..options(&MemFs::new()) }).unwrap();
    store.put(b"key", b"before").unwrap();
    let mut txn = store.transaction();
    txn.put_until(b"key", b"for ten seconds", 110).unwrap();
    let mut seen = || (txn.get(b"key").unwrap(), txn.range::<&[u8]>(..).unwrap().len());
    assert_eq!(seen(), (Some(b"for ten seconds".to_vec()), 1));
    now.store(110, Ordering::Relaxed);
    assert_eq!(seen(), (None, 0), "nor what it hides");
}

/// [`TestExpiry`, `TestExpiryImproperDBClose`]
#[test]
fn a_value_ends_at_its_time_wherever_it_lies() {
    let fs = MemFs::new();
    let now = Arc::new(AtomicU64::new(100));
    let open = || Store::open(DIR, Options { clock: clock(&now), ..options(&fs) }).unwrap();
    let store = open();
    let mut batch = Batch::new();
    batch.put(b"short", b"older");
    batch.put_until(b"short", b"v", 110);
    batch.put_until(b"large", &[b'v'; 500], 120);
    store.write(batch, Durability::Write).unwrap();
    let shown = |store: &Store| all(store).keys().map(|k| String::from_utf8(k.clone()).unwrap()).collect::<Vec<_>>();
    assert_eq!(shown(&store), ["large", "short"]);
    drop(store);
    let store = open();
    now.store(110, Ordering::Relaxed);
    assert_eq!(shown(&store), ["large"], "what it hid does not come back");
    store.flush().unwrap();
    assert_eq!((store.get(b"short").unwrap(), shown(&store).len()), (None, 1));
    now.store(120, Ordering::Relaxed);
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!(stats.levels.iter().map(|l| l.entries).sum::<u64>() + stats.value_log, 0, "nothing is kept of it");
}

/// [`TestValueGC`]
#[test]
fn collected_values_leave_the_disk_and_deleted_keys_stay_away() {
    let fs = MemFs::new();
    let store = open(&fs);
    for n in 0..60 {
        store.put(&key(n), &[b'a' + (n % 26) as u8; 400]).unwrap();
    }
    store.flush().unwrap();
    (0..60).filter(|n| n % 3 != 0).for_each(|n| store.delete(&key(n)).unwrap());
    let held = store.snapshot();
    store.flush().unwrap();
    settle(&store);
    drop(held);
    store.compact().unwrap();
    let stats = store.stats();
    assert_eq!(all(&store).len(), 20);
    assert!(stats.value_log < 20 * 500 && stats.value_log_live <= stats.value_log, "{stats:?}");
    assert_eq!(files(&fs, "val").len(), 1, "files without a pointer are gone");
    store.close().unwrap();
    let store = open(&fs);
    assert!((0..60).all(|n| store.get(&key(n)).unwrap().is_some() == (n % 3 == 0)));
    store.verify().unwrap();
}

#[test]
fn a_full_level_0_holds_writes_up_until_it_is_compacted() {
    let fs = MemFs::new();
    let store = open(&fs);
    for n in 0..2_000u32 {
        store.put(&key(n.wrapping_mul(7_919) % 500), &[b'x'; 120]).unwrap();
        let stats = store.stats();
        assert!(stats.levels[0].tables <= 6 && stats.memtables <= 3, "{stats:?}");
    }
    assert!(store.stats().stalls > 0 && store.stats().compactions > 0);
    assert_eq!(all(&store).len(), 500);
}

#[test]
fn what_nobody_waited_for_outlives_a_full_disk() {
    type Call = fn(&Store) -> engine::Result<()>;
    // Who meets the full disk, and who has to make good for it.
    let meets: [Call; 2] = [Store::flush_log, |store| store.put(b"refused", b"1")];
    let makes_good: [Call; 4] = [Store::flush_log, Store::sync, |store| store.put(b"next", b"1"), |store| store.delete(b"none")];
    for meet in meets {
        for make_good in makes_good {
            for fails in 1..=3 {
                let fs = MemFs::new();
                let failing = FailingFs::new(Arc::new(fs.clone()));
                let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
                store.put(b"before", b"1").unwrap();
                store.put_at(b"unwaited", b"1", Durability::Async).unwrap();
                failing.arm(Plan { kind: CallKind::Write, skip: 0, times: fails, fault: Fault::Enospc });
                let met = meet(&store);
                assert!(matches!(met, Err(Error::Full { .. })), "{met:?}");
                assert_eq!(text(&store, b"unwaited").as_deref(), Some("1"));
                // A write that cannot make good for it is refused before it is anywhere.
                failing.arm(Plan { kind: CallKind::Write, skip: 1, times: fails, fault: Fault::Enospc });
                assert!(matches!(store.put(b"early", b"1"), Err(Error::Full { .. })));
                assert_eq!(text(&store, b"early"), None);
                let outcomes: Vec<_> = (0..3).map(|_| make_good(&store)).collect();
                assert!(outcomes[fails as usize - 1..].iter().all(Result::is_ok), "{outcomes:?}");
                let killed = open(&MemFs::from_image(&fs.image()));
                assert_eq!(text(&killed, b"unwaited").as_deref(), Some("1"));
                assert_eq!(text(&killed, b"refused"), None);
                store.put_at(b"unwaited too", b"1", Durability::Async).unwrap();
                failing.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Enospc });
                let met = meet(&store);
                assert!(matches!(met, Err(Error::Full { .. })), "{fails} {met:?} {outcomes:?}");
                store.close().unwrap();
                assert_eq!(text(&open(&fs), b"unwaited too").as_deref(), Some("1"));
            }
        }
    }
}

#[test]
fn a_link_behind_a_full_disk_says_what_of_the_file_was_synced() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
    store.put(b"synced", b"1").unwrap();
    failing.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Enospc });
    // The cut syncs what is there, and the position moves on by a thousand bytes that are nowhere.
    assert!(store.put(b"refused", &[1; 1_000]).is_err());
    let [first] = &files(&fs, "wal")[..] else { panic!("one segment") };
    let synced = fs.image()[first].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut n = 0;
    while files(&fs, "wal").len() < 2 {
        store.put(&key(n), &[b'1'; 30]).unwrap();
        n += 1;
    }
    // Power is lost: of the first segment only what was synced is there.
    let after = MemFs::from_image(&fs.image());
    alter(&after, first, |bytes| bytes.truncate(synced + 10));
    let store = open(&after);
    assert_eq!(text(&store, b"synced").as_deref(), Some("1"));
}

#[test]
fn a_full_disk_stops_nothing_for_good() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
    let mut refused = 0;
    for n in 0..300 {
        if n % 10 == 0 {
            failing.arm(Plan { kind: CallKind::Write, skip: n / 10 % 3, times: 1, fault: Fault::Enospc });
        }
        match store.put(&key(n as u32), &[b'x'; 100]) {
            Ok(()) => {}
            Err(Error::Full { .. }) => {
                refused += 1;
                assert_eq!(store.get(&key(n as u32)).unwrap(), None, "what was refused is not there");
                store.put(&key(n as u32), &[b'x'; 100]).unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(all(&store).len(), 300);
    store.close().unwrap();
    assert_eq!(all(&open(&fs)).len(), 300);
}

#[test]
fn whoever_waits_for_a_worker_to_merge_everything_is_told_that_it_cannot() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open(DIR, Options { background: true, fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
    (0..300).for_each(|n| store.put(&key(n), &[b'x'; 100]).unwrap());
    store.flush().unwrap();
    failing.arm(Plan { kind: CallKind::Create, skip: 0, times: u64::MAX, fault: Fault::Enospc });
    assert!(matches!(store.compact(), Err(Error::Full { .. })));
    failing.disarm();
    store.compact().unwrap();
    let held = store.stats().levels.iter().map(|level| level.tables.min(1)).sum::<u64>();
    assert_eq!((held, all(&store).len()), (1, 300));
}

/// [`TestSyncForReadingTheEntriesThatWereSynced`]
#[test]
fn a_failed_sync_stops_the_store_until_it_is_opened_again() {
    let fs = MemFs::new();
    for kind in [CallKind::Sync, CallKind::SyncDir] {
        let failing = FailingFs::new(Arc::new(fs.clone()));
        let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..options(&fs) }).unwrap();
        store.put(b"before", b"1").unwrap();
        failing.arm(Plan { kind, skip: 0, times: 1, fault: Fault::Eio });
        assert!(matches!(store.flush(), Err(Error::Poisoned { .. })));
        assert!(matches!(store.put(b"after", b"1"), Err(Error::Poisoned { .. })));
        assert!(matches!(store.put_at(b"after", b"1", Durability::Sync), Err(Error::Poisoned { .. })));
        assert_eq!(text(&store, b"before").as_deref(), Some("1"), "reads go on");
        drop(store);
        assert_eq!(all(&open(&fs)).len(), 1);
    }
}

/// A large table goes to the device bit by bit, and what goes wrong on its way went wrong with the table.
#[test]
fn a_table_that_fails_on_its_way_to_the_device_is_not_used() {
    // How many syncs can fail, and how many of these failures leave no table.
    let failures = |count: u32, len: usize| {
        let (mut failed, mut removed) = (0, 0);
        loop {
            let fs = MemFs::new();
            let failing = FailingFs::new(Arc::new(fs.clone()));
            let compression = Compression::None;
            let large = Options { memtable_size: 8 << 20, value_threshold: 1 << 20, compression, ..options(&fs) };
            let store = Store::open(DIR, Options { fs: Arc::new(failing.clone()), ..large.clone() }).unwrap();
            (0..count).for_each(|n| store.put(&key(n), &vec![b'v'; len]).unwrap());
            failing.arm(Plan { kind: CallKind::Sync, skip: failed, times: 1, fault: Fault::Eio });
            let flushed = store.flush();
            if failing.fired() == 0 {
                return [failed, removed];
            }
            failed += 1;
            removed += u64::from(files(&fs, "sst").is_empty());
            assert!(matches!(flushed, Err(Error::Poisoned { .. })), "sync {failed}: {flushed:?}");
            drop(store);
            let store = Store::open(DIR, large).unwrap();
            store.verify().unwrap();
            assert_eq!(all(&store).len(), count as usize, "sync {failed}");
        }
    };
    let [large, small] = [failures(40, 100_000), failures(1, 100)];
    assert_eq!(large, small.map(|n| n + 3), "three more on the way of four megabytes");
}

/// [`TestBackupRestore1` to `3`]
#[test]
fn a_chain_of_backups_gives_the_same_store() {
    let (fs, copy) = (MemFs::new(), MemFs::new());
    let (store, restored) = (open(&fs), open(&copy));
    let mut since = 0;
    for round in 0..6u32 {
        for n in 0..60 {
            let n = (n * 7 + round * 13) % 80;
            match n % 4 {
                0 => store.delete(&key(n)).unwrap(),
                _ => store.put(&key(n), &vec![b'a' + round as u8; if n % 9 == 0 { 300 } else { 20 }]).unwrap(),
            }
        }
        if round % 2 == 0 {
            store.compact().unwrap();
        }
        let mut stream = Vec::new();
        let held = store.snapshot();
        let backup = store.backup(&mut stream, since).unwrap();
        store.put(b"later", b"not in it").unwrap();
        assert_eq!((backup.since, backup.through > since), (since, true));
        assert_eq!(restored.load(&mut &stream[..], Durability::Write).unwrap(), backup);
        let wanted: BTreeMap<_, _> = held.range::<&[u8]>(..).collect::<Result<_, _>>().unwrap();
        assert_eq!(all(&restored), wanted, "round {round}");
        since = backup.through;
        // Deletes behind the last backup are kept for the next one, also by a compaction.
        store.delete(&key(round + 1)).unwrap();
        store.compact().unwrap();
    }
    store.close().unwrap();
    let store = open(&fs);
    store.compact().unwrap();
    let mut stream = Vec::new();
    store.backup(&mut stream, since).unwrap();
    restored.load(&mut &stream[..], Durability::Sync).unwrap();
    assert_eq!(all(&restored), all(&store));
}

/// [`TestBackupLoadIncremental`]
#[test]
fn a_backup_knows_when_values_end() {
    let now = Arc::new(AtomicU64::new(100));
    let at = |fs: &MemFs| Store::open(DIR, Options { clock: clock(&now), ..options(fs) }).unwrap();
    let (store, restored) = (at(&MemFs::new()), at(&MemFs::new()));
    let mut since = 0;
    let mut carry = |store: &Store| {
        let mut stream = Vec::new();
        since = store.backup(&mut stream, since).unwrap().through;
        restored.load(&mut &stream[..], Durability::Write).unwrap();
        assert_eq!(all(&restored), all(store));
    };
    let put_until = |key: &[u8], len, end| {
        let mut batch = Batch::new();
        batch.put_until(key, &vec![b'v'; len], end);
        store.write(batch, Durability::Write).unwrap();
    };
    store.put(b"hidden", b"without an end").unwrap();
    carry(&store);
    put_until(b"hidden", 5, 110);
    put_until(b"long", 500, 120);
    put_until(b"short", 5, 120);
    carry(&store);
    put_until(b"unseen", 5, 110);
    now.store(110, Ordering::Relaxed);
    // What has ended meanwhile deletes, and what has not yet keeps its end.
    carry(&store);
    assert_eq!(all(&restored).into_keys().collect::<Vec<_>>(), [&b"long"[..], b"short"]);
    restored.compact().unwrap();
    assert_eq!(all(&restored).len(), 2);
    now.store(120, Ordering::Relaxed);
    assert!(all(&restored).is_empty());
}

/// A version that a crash took is given again: an incremental backup behind it would miss what came then.
#[test]
fn a_backup_is_never_ahead_of_what_a_crash_leaves() {
    let (fs, copy) = (MemFs::new(), MemFs::new());
    let (store, restored) = (open(&fs), open(&copy));
    (0..10).for_each(|n| store.put_at(&key(n), b"before", Durability::Async).unwrap());
    let mut whole = Vec::new();
    let since = store.backup(&mut whole, 0).unwrap().through;
    let killed = MemFs::from_image(&fs.image());
    drop(store);
    let store = open(&killed);
    (5..25).for_each(|n| store.put(&key(n), b"after").unwrap());
    let mut part = Vec::new();
    store.backup(&mut part, since).unwrap();
    restored.load(&mut &whole[..], Durability::Write).unwrap();
    restored.load(&mut &part[..], Durability::Write).unwrap();
    assert_eq!(all(&restored), all(&store));
}

/// The same after a power loss.
#[test]
fn a_backup_waits_for_the_device() {
    let fs = MemFs::new();
    let trace = TraceFs::over(&fs);
    let store = Store::open(DIR, Options { fs: Arc::new(trace.clone()), ..options(&fs) }).unwrap();
    store.put(b"key", b"not on the device").unwrap();
    let before = trace.recorder().entries();
    let log = before.iter().rev().find_map(|entry| match &entry.op {
        FsOp::Write { inode, .. } => Some(*inode),
        _ => None,
    });
    store.backup(&mut Vec::new(), 0).unwrap();
    let since = trace.recorder().entries().split_off(before.len());
    let synced = since.iter().any(|entry| matches!(&entry.op, FsOp::SyncData { inode } if Some(*inode) == log));
    assert!(synced, "{since:?}");
}

#[test]
fn a_backup_that_would_miss_deletes_is_refused() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..10).for_each(|n| store.put(&key(n), b"v").unwrap());
    store.delete(&key(3)).unwrap();
    store.compact().unwrap();
    match store.backup(&mut Vec::new(), 5) {
        Err(Error::Option { option: "since", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.backup(&mut Vec::new(), 0).unwrap().records, 9);
}

#[test]
fn no_changed_byte_of_a_backup_is_loaded() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..5).for_each(|n| store.put(&key(n), b"value").unwrap());
    let mut stream = Vec::new();
    store.backup(&mut stream, 0).unwrap();
    let truth = all(&store);
    for at in 0..stream.len() {
        for cut in [false, true] {
            let mut bad = stream.clone();
            if cut {
                bad.truncate(at)
            } else {
                bad[at] ^= 0x20
            };
            let target = open(&MemFs::new());
            match target.load(&mut &bad[..], Durability::Write) {
                Err(Error::Corrupt { .. } | Error::Format { .. }) => {
                    assert!(all(&target).iter().all(|(k, v)| truth.get(k) == Some(v)));
                }
                other => panic!("byte {at}, cut {cut}: {other:?}"),
            }
        }
    }
}

#[test]
fn background_threads_flush_and_compact_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let small = options(&MemFs::new());
    let store = Store::open(dir.path(), Options { background: true, fs: Arc::new(RealFs), ..small }).unwrap();
    for n in 0..5_000u32 {
        store.put(&key(n.wrapping_mul(7_919) % 1_000), &[b'x'; 60]).unwrap();
    }
    assert_eq!(all(&store).len(), 1_000);
    let stats = store.stats();
    assert!(stats.flushes > 10 && stats.compactions > 0 && stats.background_error.is_none(), "{stats:?}");
    store.close().unwrap();
    let store = Store::open(dir.path(), Options { fs: Arc::new(RealFs), ..Options::default() }).unwrap();
    assert_eq!(all(&store).len(), 1_000);
    store.verify().unwrap();
}

#[test]
fn what_overlaps_nothing_is_not_written_again() {
    let fs = MemFs::new();
    let now = Arc::new(AtomicU64::new(100));
    let store = Store::open(DIR, Options { table_size: 500, clock: clock(&now), ..options(&fs) }).unwrap();
    let fill = |keys: std::ops::Range<u32>, value: u8, until: Option<u64>| {
        for n in keys {
            let value: Vec<u8> = (0..100).map(|at| (value as u32 + at * n) as u8).collect();
            let mut batch = Batch::new();
            match until {
                Some(until) => batch.put_until(&key(n), &value, until),
                None => batch.put(&key(n), &value),
            }
            store.write(batch, Durability::Write).unwrap();
        }
    };
    let compacted = || {
        let before = all(&store);
        store.compact().unwrap();
        assert_eq!(all(&store), before);
        let stats = store.stats();
        assert_eq!(stats.levels[..6].iter().map(|level| level.tables).sum::<u64>(), 0);
        (files(&fs, "sst"), stats.compacted)
    };
    for from in [0, 100, 200] {
        fill(from..from + 30, b'a', None);
        store.flush().unwrap();
    }
    let in_order = files(&fs, "sst");
    assert_eq!(compacted(), (in_order.clone(), 0));
    assert_eq!(compacted(), (in_order.clone(), 0), "nothing is left to do");

    // What overlaps is merged.
    store.put(&key(50), b"before").unwrap();
    store.put(&key(110), b"inside").unwrap();
    store.put(&key(150), b"behind").unwrap();
    let (merged, written) = compacted();
    assert!(written > 0 && merged.contains(&in_order[0]) && !merged.contains(&in_order[1]) && merged.contains(&in_order[2]));
    // What comes of it does not reach across what lies between.
    store.put(&key(90), b"before").unwrap();
    store.flush().unwrap();
    store.put(&key(250), b"behind").unwrap();
    assert!(compacted().0.contains(&in_order[2]));

    // What is alone but holds what nobody sees is written again: older versions, and what has ended.
    let entries = || store.stats().levels.iter().map(|level| level.entries).sum::<u64>();
    let kept = || {
        let files = compacted().0;
        assert!(files.contains(&in_order[0]) && files.contains(&in_order[2]));
        entries()
    };
    assert_eq!(kept(), 94);
    fill(300..310, b'a', None);
    let held = store.snapshot();
    fill(300..310, b'b', None);
    assert_eq!(kept(), 114);
    drop(held);
    assert_eq!(kept(), 104);
    fill(400..410, b'c', Some(110));
    assert_eq!(kept(), 114);
    now.store(110, Ordering::Relaxed);
    assert_eq!(kept(), 104);
}

/// What comes in order is written into tables once.
#[test]
fn a_fill_in_order_is_not_compacted() {
    let fs = MemFs::new();
    let store = Store::open(DIR, Options { compression: Compression::None, ..options(&fs) }).unwrap();
    for n in 0..2_000 {
        store.put(&key(n), &[b'x'; 100]).unwrap();
        settle(&store);
    }
    let stats = store.stats();
    assert!(stats.levels[0].tables < 3 && stats.flushes > 40, "{stats:?}");
    assert_eq!((stats.compacted, all(&store).len()), (0, 2_000));
    store.verify().unwrap();
}

#[test]
fn what_was_read_of_a_table_goes_with_it() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..100).for_each(|n| store.put(&key(n), &[b'x'; 100]).unwrap());
    store.flush().unwrap();
    let whole = all(&store);
    let cached = store.stats().cached_blocks;
    assert!(cached > 8_000, "{cached}");
    store.compact().unwrap();
    // Nobody reads the old table any more once the store has looked whether somebody does.
    store.maintain(Duration::ZERO).unwrap();
    let stats = store.stats();
    assert_eq!(stats.cached_blocks, 0);
    assert!(stats.spare_blocks >= cached && stats.spare_blocks < 2 * cached, "{stats:?}");
    assert_eq!(all(&store), whole);
    let again = store.stats().cached_blocks;
    assert!(again > cached / 2 && again < cached * 3 / 2, "{cached}, then {again}");
}

/// A scan looks into each table of level 0, so enough of them are worth a compaction that is not due otherwise.
#[test]
fn scans_have_level_0_emptied() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..50).for_each(|n| store.put(&key(n), b"old").unwrap());
    store.flush().unwrap();
    store.compact().unwrap();
    (10..20).for_each(|n| store.put(&key(n), b"new").unwrap());
    store.flush().unwrap();
    let level_0 = || {
        store.maintain(Duration::ZERO).unwrap();
        store.stats().levels[0].tables
    };
    (0..50).for_each(|n| drop(store.get(&key(n)).unwrap()));
    assert_eq!(level_0(), 1, "gets have filters");
    let before = all(&store);
    assert_eq!(level_0(), 0);
    assert_eq!((all(&store), store.stats().levels[0].tables), (before, 0));
}

#[test]
fn reads_that_miss_touch_no_block() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..100).for_each(|n| store.put(&key(2 * n), b"v").unwrap());
    store.flush().unwrap();
    store.compact().unwrap();
    let before = store.stats();
    (0..100).for_each(|n| assert_eq!(store.get(&key(2 * n + 1)).unwrap(), None));
    let after = store.stats();
    let looked = after.cache_hits + after.cache_misses - before.cache_hits - before.cache_misses;
    assert!(looked <= 3, "{looked} blocks for 100 keys that are not there");
}

/// Takes its time to create or to remove tables, and tells whether the store's lock was let go of meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct SlowTables {
    pub(crate) inner: MemFs,
    create: Duration,
    remove: Duration,
    creating: Arc<AtomicU64>,
    released: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Told(Arc<AtomicU64>);

impl Lock for Told {}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(1, Ordering::SeqCst);
    }
}

impl SlowTables {
    pub(crate) fn new(create: Duration, remove: Duration) -> Self {
        let [creating, released, late] = std::array::from_fn(|_| Arc::default());
        Self { inner: MemFs::new(), create, remove, creating, released, late }
    }

    pub(crate) fn options(&self) -> Options {
        Options { background: true, fs: Arc::new(self.clone()), ..options(&self.inner) }
    }

    fn store(&self) -> Store {
        Store::open(DIR, self.options()).unwrap()
    }
}

impl FsLayer for SlowTables {
    fn below(&self) -> &dyn Fs {
        &self.inner
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if path.extension().is_some_and(|e| e == "sst") {
            self.creating.store(1, Ordering::SeqCst);
            std::thread::sleep(self.create);
            self.late.fetch_add(self.released.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.inner.create(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.extension().is_some_and(|e| e == "sst") {
            std::thread::sleep(self.remove);
        }
        self.inner.remove(path)
    }

    fn lock(&self, _: &Path) -> io::Result<LockOutcome> {
        Ok(LockOutcome::Held(Box::new(Told(self.released.clone()))))
    }
}

#[test]
fn a_store_keeps_its_lock_until_its_workers_are_done() {
    let fs = SlowTables::new(Duration::from_millis(50), Duration::ZERO);
    let store = fs.store();
    let mut n = 0;
    while fs.creating.load(Ordering::SeqCst) == 0 {
        store.put(&key(n), &[b'v'; 100]).unwrap();
        n += 1;
    }
    store.close().unwrap();
    assert_eq!((fs.released.load(Ordering::SeqCst), fs.late.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn writes_are_slowed_while_flushes_do_not_keep_up() {
    let fs = SlowTables::new(Duration::from_millis(50), Duration::ZERO);
    // Level 0 is out of it.
    let options = Options { level0_tables: 1_000, level0_slow: 2_000, level0_stall: 3_000, ..fs.options() };
    let store = Store::open(DIR, options).unwrap();
    let mut n = 0;
    while store.stats().slowed == 0 {
        store.put(&key(n), &[b'v'; 100]).unwrap();
        n += 1;
        assert!(n < 10_000, "{:?}", store.stats());
    }
    // What was slowed is there, and goes on.
    (n..n + 200).for_each(|n| store.put(&key(n), &[b'v'; 100]).unwrap());
    assert_eq!(all(&store).len() as u32, n + 200);
    assert!(store.stats().memtables <= 3);
    store.close().unwrap();
}

#[test]
fn nothing_is_left_of_a_store_of_deletes_once_it_is_compacted() {
    let fs = SlowTables::new(Duration::ZERO, Duration::from_millis(2));
    let store = fs.store();
    for round in 0..20 {
        (0..200).for_each(|n| store.put(&key(n), &[b'v'; 100]).unwrap());
        (0..200).for_each(|n| store.delete(&key(n)).unwrap());
        store.compact().unwrap();
        let left = files(&fs.inner, "sst");
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

#[test]
fn a_log_has_its_length_from_the_start_and_gives_it_back() {
    let fs = MemFs::new();
    let store = open(&fs);
    let wal = files(&fs, "wal").remove(0);
    let len = |fs: &MemFs| fs.image()[&wal].len();
    assert_eq!(len(&fs), 4_000);
    store.put_at(b"a", b"1", Durability::Sync).unwrap();
    assert_eq!(len(&fs), 4_000, "a sync has no length to make durable");
    // Killed and opened again, it goes on where its records end.
    let fs = MemFs::from_image(&fs.image());
    let again = open(&fs);
    assert_eq!(again.stats().cut, None);
    again.put(b"b", b"2").unwrap();
    let fs = MemFs::from_image(&fs.image());
    let again = open(&fs);
    assert_eq!(all(&again).len(), 2);
    again.close().unwrap();
    assert!(len(&fs) < 300, "{}", len(&fs));
    assert_eq!(all(&open(&fs)).len(), 2);
}

/// A store whose second segment was made in advance, and holds one write that was never synced.
fn in_a_spare() -> (MemFs, Vec<PathBuf>, u32) {
    let fs = MemFs::new();
    let store = open(&fs);
    let mut n = 0;
    let put = |n: u32| store.put(&key(n), &[b'v'; 100]).unwrap();
    while store.stats().memtable_bytes < 2_500 {
        put(n);
        n += 1;
    }
    assert_eq!(files(&fs, "wal").len(), 1);
    settle(&store);
    assert_eq!(files(&fs, "wal").len(), 2, "made in advance");
    while store.stats().memtables < 2 {
        put(n);
        n += 1;
    }
    let image = fs.image();
    assert_eq!(files(&fs, "wal").len(), 2, "and used");
    let fs = MemFs::from_image(&image);
    let names = files(&fs, "wal");
    (fs, names, n)
}

#[test]
fn the_next_segment_is_made_in_advance_without_a_sync_at_the_turn() {
    let fs = MemFs::new();
    let trace = TraceFs::over(&fs);
    let store = Store::open(DIR, Options { fs: Arc::new(trace.clone()), ..options(&fs) }).unwrap();
    let mut n = 0;
    while store.stats().memtable_bytes < 3_000 {
        store.put(&key(n), &[b'v'; 100]).unwrap();
        n += 1;
    }
    settle(&store);
    let seen = trace.recorder().entries().len();
    while store.stats().memtables < 2 {
        store.put(&key(n), &[b'v'; 100]).unwrap();
        n += 1;
    }
    assert_eq!(trace.recorder().syncs_since(seen).0, 0, "nobody waits for the device");
    store.close().unwrap();
    assert_eq!(all(&open(&fs)).len(), n as usize);
}

#[test]
fn a_spare_segment_is_found_and_left_out() {
    let (fs, names, n) = in_a_spare();
    let store = open(&fs);
    assert_eq!((store.stats().cut, all(&store).len()), (None, n as usize));
    drop(store);
    // Made and never begun.
    let (fs, _, n) = in_a_spare();
    let room = fs.image()[&names[1]].len();
    alter(&fs, &names[1], |bytes| {
        bytes.truncate(6);
        bytes.resize(room, 0);
    });
    let store = open(&fs);
    assert_eq!((store.stats().cut, all(&store).len()), (None, n as usize - 1));
    assert_eq!(files(&fs, "wal").len(), 1, "it is removed");
    store.put(&key(n + 9), b"later").unwrap();
    drop(store);
    assert_eq!(all(&open(&fs)).len(), n as usize);
}

#[test]
fn a_segment_whose_link_is_lost_was_never_promised() {
    let (fs, names, n) = in_a_spare();
    // The link is gone, a write behind it survives.
    alter(&fs, &names[1], |bytes| bytes[6..40].fill(0));
    let store = open(&fs);
    assert_eq!(all(&store).len(), n as usize - 1);
    assert_eq!(store.stats().cut.unwrap().0, names[1]);
    drop(store);
    // The same, and the manifest names no other: the first segment was flushed.
    let fs = MemFs::new();
    let store = open(&fs);
    let mut n = 0;
    while store.stats().flushes == 0 {
        store.put(&key(n), &[b'v'; 100]).unwrap();
        n += 1;
        store.maintain(Duration::ZERO).unwrap();
    }
    let image = fs.image();
    drop(store);
    for torn in [false, true] {
        let fs = MemFs::from_image(&image);
        let names = files(&fs, "wal");
        let end = if torn { 40 } else { fs.image()[&names[0]].len() };
        alter(&fs, &names[0], |bytes| bytes[6..end].fill(0));
        let store = open(&fs);
        let left = all(&store).len();
        assert!(left > 10 && left < n as usize, "{left} of {n}");
        store.put_at(b"later", b"1", Durability::Sync).unwrap();
        drop(store);
        assert_eq!(all(&open(&fs)).len(), left + 1);
    }
}

#[test]
fn damage_to_the_link_of_a_synced_segment_is_refused() {
    let (fs, names, _) = in_a_spare();
    let store = open(&fs);
    store.put_at(b"x", b"1", Durability::Sync).unwrap();
    store.put_at(b"y", b"1", Durability::Sync).unwrap();
    let image = fs.image();
    drop(store);
    for at in 0..40 {
        let fs = MemFs::from_image(&image);
        alter(&fs, &names[1], |bytes| bytes[at] ^= 1);
        match Store::open(DIR, options(&fs)) {
            Err(Error::Corrupt { .. } | Error::Format { .. }) => {}
            other => panic!("byte {at}: {:?}", other.map(|store| all(&store).len())),
        }
    }
}
