//! Random operations on an LSM store against an ordered map: it must show the same, whatever was flushed, compacted,
//! collected or reopened meanwhile.

use crate::lsm_store::clock;
use engine::fs::MemFs;
use engine::lsm::{Batch, Compression, Iter, Options, Salvage, Snapshot, Store, Transaction};
use engine::{Durability, SyncPolicy};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

/// A value and when it ends; none for a delete.
type Change = (u8, Option<(u16, Option<u8>)>);

#[cfg(feature = "zstd")]
const COMPRESSIONS: &[Compression] = &[Compression::None, Compression::Lz4, Compression::Snappy, Compression::Zstd];
#[cfg(not(feature = "zstd"))]
const COMPRESSIONS: &[Compression] = &[Compression::None, Compression::Lz4, Compression::Snappy];

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<Change>, Durability),
    Flush,
    Compact,
    Step,
    Reopen,
    Abort,
    Snapshot,
    LetGo,
    Begin(Vec<Change>),
    Wait(u8),
    Range(Vec<u8>, Vec<u8>),
    DropPrefix(Vec<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    let value = (0u16..400, prop::option::weighted(0.2, 0u8..20));
    let change = (0u8..40, prop::option::weighted(0.75, value));
    let changes = prop::collection::vec(change, 1..6);
    let level = prop_oneof![Just(Durability::Async), Just(Durability::Write), Just(Durability::Sync)];
    prop_oneof![
        20 => (changes.clone(), level).prop_map(|(changes, level)| Op::Write(changes, level)),
        2 => Just(Op::Flush),
        1 => Just(Op::Compact),
        4 => Just(Op::Step),
        1 => Just(Op::Reopen),
        1 => Just(Op::Abort),
        1 => Just(Op::Snapshot),
        1 => Just(Op::LetGo),
        1 => changes.prop_map(Op::Begin),
        1 => (0u8..10).prop_map(Op::Wait),
        2 => (key_part(), key_part()).prop_map(|(a, b)| Op::Range(a, b)),
        1 => (0usize..5).prop_map(|len| Op::DropPrefix(b"kkkk"[..len].to_vec())),
    ]
}

fn key_part() -> impl Strategy<Value = Vec<u8>> {
    (0u8..40).prop_map(key)
}

/// Keys of several lengths, some of them the beginning of others.
fn key(n: u8) -> Vec<u8> {
    format!("{}{}", "k".repeat(1 + usize::from(n % 4)), n / 4).into_bytes()
}

fn value(n: u16) -> Vec<u8> {
    n.to_string().into_bytes().repeat(1 + usize::from(n) / 8)
}

fn options(fs: &MemFs, now: &Arc<AtomicU64>, compression: Compression) -> Options {
    Options {
        sync: SyncPolicy::Never,
        memtable_size: 2_000,
        memtables: 3,
        level0_tables: 2,
        level0_slow: 3,
        level0_stall: 4,
        level_multiplier: 2,
        base_level_size: 1_000,
        table_size: 100,
        value_threshold: 100,
        collect_ratio: 0.3,
        block_size: 128,
        compression,
        pack_log_from: 40,
        block_cache: 4_096,
        index_cache: 4_096,
        background: false,
        clock: clock(now),
        fs: Arc::new(fs.clone()),
        ..Options::default()
    }
}

/// What of a model is alive at a time.
fn alive(model: &Model, now: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.iter().filter(|(_, (_, end))| *end > now).map(|(k, (v, _))| (k.clone(), v.clone())).collect()
}

fn all(entries: engine::lsm::Iter) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries.collect::<Result<_, _>>().unwrap()
}

fn check(store: &Store, model: &Model, now: u64) {
    let wanted = alive(model, now);
    assert_eq!(all(store.iter()), wanted);
    let mut reverse = all(store.range_reverse::<&[u8]>(..));
    reverse.reverse();
    assert_eq!(reverse, wanted);
    for n in 0..40 {
        let key = key(n);
        let found = wanted.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
        assert_eq!(store.get(&key).unwrap(), found, "{:?}", String::from_utf8_lossy(&key));
    }
}

type Span = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Ranges of a store or of a moment, read by `forward` and `reverse`.
fn check_range(
    forward: impl Fn(Span) -> Iter,
    reverse: impl Fn(Span) -> Iter,
    wanted: &[(Vec<u8>, Vec<u8>)],
    a: &[u8],
    b: &[u8],
) {
    let bounds = |from: Bound<&'static ()>, key: &[u8]| match from {
        Bound::Included(()) => Bound::Included(key.to_vec()),
        Bound::Excluded(()) => Bound::Excluded(key.to_vec()),
        Bound::Unbounded => Bound::Unbounded,
    };
    for start in [Bound::Included(&()), Bound::Excluded(&()), Bound::Unbounded] {
        for end in [Bound::Included(&()), Bound::Excluded(&()), Bound::Unbounded] {
            let range = (bounds(start, a), bounds(end, b));
            let inside = |key: &Vec<u8>| std::ops::RangeBounds::contains(&range, key);
            let wanted: Vec<_> = wanted.iter().filter(|(key, _)| inside(key)).cloned().collect();
            assert_eq!(all(forward(range.clone())), wanted, "{range:?}");
            let mut reverse = all(reverse(range.clone()));
            reverse.reverse();
            assert_eq!(reverse, wanted, "reverse {range:?}");
        }
    }
}

fn check_prefix(store: &Store, model: &Model, now: u64, prefix: &[u8]) {
    let wanted: Vec<_> = alive(model, now).into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
    assert_eq!(all(store.prefix(prefix)), wanted);
}

/// A transaction in which something was changed, and nothing committed.
struct Open {
    transaction: Transaction,
    /// What it began with.
    model: Model,
    changed: BTreeMap<Vec<u8>, Option<(Vec<u8>, u64)>>,
}

impl Open {
    fn begin(store: &Store, model: &Model, changes: Vec<Change>, now: u64) -> Self {
        let mut open = Self { transaction: store.transaction(), model: model.clone(), changed: BTreeMap::new() };
        for (n, change) in changes {
            let key = key(n);
            let put = change.map(|(n, ttl)| (value(n), ttl.map_or(u64::MAX, |ttl| now + u64::from(ttl))));
            match &put {
                Some((value, u64::MAX)) => open.transaction.put(&key, value).unwrap(),
                Some((value, end)) => open.transaction.put_until(&key, value, *end).unwrap(),
                None => open.transaction.delete(&key).unwrap(),
            }
            open.changed.insert(key, put);
        }
        open
    }

    fn check(&mut self, now: u64) {
        let mut wanted = self.model.clone();
        for (key, change) in &self.changed {
            match change {
                Some(put) => drop(wanted.insert(key.clone(), put.clone())),
                None => drop(wanted.remove(key)),
            }
        }
        let wanted = alive(&wanted, now);
        assert_eq!(self.transaction.range::<&[u8]>(..).unwrap(), wanted);
        for n in (0..40).step_by(3) {
            let found = wanted.iter().find(|(k, _)| *k == key(n)).map(|(_, v)| v.clone());
            assert_eq!(self.transaction.get(&key(n)).unwrap(), found);
        }
        let (a, b) = (key(8), key(31));
        let inside: Vec<_> = wanted.into_iter().filter(|(key, _)| (&a..&b).contains(&key)).collect();
        assert_eq!(self.transaction.range(a.clone()..b.clone()).unwrap(), inside);
    }
}

proptest! {
    #[test]
    fn it_shows_what_an_ordered_map_shows(
        ops in prop::collection::vec(op(), 1..120),
        compression in prop::sample::select(COMPRESSIONS),
    ) {
        let (mut fs, now) = (MemFs::new(), Arc::new(AtomicU64::new(1_000)));
        let open = |fs: &MemFs| Store::open("/db", options(fs, &now, compression)).unwrap();
        let mut store = open(&fs);
        let mut model = Model::new();
        let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
        let mut transactions: Vec<Open> = Vec::new();
        for op in ops {
            let time = now.load(Ordering::Relaxed);
            match op {
                Op::Write(changes, level) => {
                    let mut batch = Batch::new();
                    for (n, change) in changes {
                        let key = key(n);
                        match change {
                            Some((n, ttl)) => {
                                let end = ttl.map(|ttl| time + u64::from(ttl));
                                match end {
                                    Some(end) => batch.put_until(&key, &value(n), end),
                                    None => batch.put(&key, &value(n)),
                                }
                                model.insert(key, (value(n), end.unwrap_or(u64::MAX)));
                            }
                            None => {
                                batch.delete(&key);
                                model.remove(&key);
                            }
                        }
                    }
                    store.write(batch, level).unwrap();
                }
                Op::Flush => store.flush().unwrap(),
                Op::Compact => store.compact().unwrap(),
                Op::Step => drop(store.maintain(std::time::Duration::ZERO).unwrap()),
                Op::Reopen => {
                    snapshots.clear();
                    transactions.clear();
                    store.close().unwrap();
                    store = open(&fs);
                }
                // A process that died: what is in the kernel stays.
                Op::Abort => {
                    snapshots.clear();
                    transactions.clear();
                    store.flush_log().unwrap();
                    let image = fs.image();
                    drop(store);
                    fs = MemFs::from_image(&image);
                    let salvage = Salvage::open("/db", &options(&fs, &now, compression)).unwrap();
                    prop_assert_eq!(salvage.losses(), &[]);
                    let found = salvage.entries().unwrap().map(|entry| entry.map(|e| (e.key, e.value)));
                    prop_assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), alive(&model, time));
                    drop(salvage);
                    store = open(&fs);
                }
                Op::Snapshot => snapshots.push((store.snapshot(), model.clone())),
                Op::LetGo => drop((snapshots.pop(), transactions.pop())),
                Op::Begin(changes) => transactions.push(Open::begin(&store, &model, changes, time)),
                Op::Wait(seconds) => drop(now.fetch_add(u64::from(seconds), Ordering::Relaxed)),
                Op::Range(a, b) => {
                    check_range(|r| store.range(r), |r| store.range_reverse(r), &alive(&model, time), &a, &b);
                    check_prefix(&store, &model, time, &a);
                    for (at, model) in &snapshots {
                        check_range(|r| at.range(r), |r| at.range_reverse(r), &alive(model, time), &a, &b);
                    }
                }
                // Reaches into the past, too.
                Op::DropPrefix(prefix) => {
                    store.drop_prefix(&prefix).unwrap();
                    let begun = transactions.iter_mut().map(|open| &mut open.model);
                    let models = snapshots.iter_mut().map(|(_, model)| model).chain(begun).chain([&mut model]);
                    models.for_each(|model| model.retain(|key, _| !key.starts_with(&prefix)));
                }
            }
            let time = now.load(Ordering::Relaxed);
            check(&store, &model, time);
            for (snapshot, model) in &snapshots {
                let wanted = alive(model, time);
                prop_assert_eq!(&all(snapshot.range::<&[u8]>(..)), &wanted);
                for n in (0..40).step_by(5) {
                    let found = wanted.iter().find(|(k, _)| *k == key(n)).map(|(_, v)| v.clone());
                    prop_assert_eq!(snapshot.get(&key(n)).unwrap(), found);
                }
            }
            transactions.iter_mut().for_each(|open| open.check(time));
        }
        drop((snapshots, transactions));
        store.verify().unwrap();
        store.compact().unwrap();
        check(&store, &model, now.load(Ordering::Relaxed));
        let stats = store.stats();
        // Compacted, nothing is left but what is alive.
        prop_assert_eq!(stats.levels.iter().map(|l| l.entries).sum::<u64>(), alive(&model, now.load(Ordering::Relaxed)).len() as u64);
        prop_assert_eq!(stats.value_log_live == 0, stats.value_log == 0);
    }
}
