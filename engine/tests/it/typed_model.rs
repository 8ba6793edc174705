//! The typed store against a model: a map of what memory holds, and one of what the file holds.

use crate::support::{LEVELS, integers, mem, path, quiet};
use engine::Durability;
use engine::fs::Fs;
use engine::typed::{Change, Options, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Set(u8, i64, Durability),
    Delete(u8, Durability),
    Add(u8, i64, Durability),
    Batch(Vec<(u8, Option<i64>)>),
    Shrink,
    Flush,
    Close,
    /// The process dies: what is buffered is gone.
    Kill,
    /// It dies, and the last write loses this many of its bytes.
    Tear(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..6u8;
    let level = || proptest::sample::select(&LEVELS[..]);
    prop_oneof![
        8 => (key(), any::<i64>(), level()).prop_map(|(k, v, l)| Op::Set(k, v, l)),
        4 => (key(), level()).prop_map(|(k, l)| Op::Delete(k, l)),
        4 => (key(), -9..9i64, level()).prop_map(|(k, v, l)| Op::Add(k, v, l)),
        3 => proptest::collection::vec((key(), any::<Option<i64>>()), 0..5).prop_map(Op::Batch),
        1 => Just(Op::Shrink),
        2 => Just(Op::Flush),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        2 => (1..60usize).prop_map(Op::Tear),
    ]
}

type Model = BTreeMap<String, i64>;

fn apply(model: &mut Model, key: &str, value: Option<i64>) {
    match value {
        Some(value) => drop(model.insert(key.to_owned(), value)),
        None => drop(model.remove(key)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_store_does_as_the_model(ops in proptest::collection::vec(op(), 1..60), shards in proptest::sample::select(vec![1usize, 2, 16])) {
        let fs = mem();
        let reopen = || Store::open(path(), Options { shards, ..quiet(fs.clone()) }).unwrap();
        let length = || fs.image()[path()].len();
        let mut store = Some(reopen());
        let mut memory = Model::new();
        // What the file holds up to each length: a file torn below a length holds at most what stands before.
        let mut states = vec![(length(), Model::new())];
        for op in ops {
            let open = store.as_ref().unwrap();
            let map = open.map::<i64>("m").unwrap();
            let mut logged = states.last().unwrap().1.clone();
            let name = |k: u8| format!("k{k}");
            match op {
                Op::Set(k, v, level) => {
                    map.set_at(&name(k), v, level).unwrap();
                    apply(&mut memory, &name(k), Some(v));
                    if level > Durability::Async { apply(&mut logged, &name(k), Some(v)); }
                }
                Op::Delete(k, level) => {
                    prop_assert_eq!(map.delete_at(&name(k), level).unwrap(), memory.contains_key(&name(k)));
                    apply(&mut memory, &name(k), None);
                    if level > Durability::Async { apply(&mut logged, &name(k), None); }
                }
                Op::Add(k, n, level) => {
                    let sum = memory.get(&name(k)).map(|v| v.wrapping_add(n));
                    let answer = map.update_at(&name(k), level, |v| match v {
                        Some(v) => (Change::Set(v.wrapping_add(n)), true),
                        None => (Change::Keep, false),
                    }).unwrap();
                    prop_assert_eq!(answer, sum.is_some());
                    if sum.is_some() {
                        apply(&mut memory, &name(k), sum);
                        if level > Durability::Async { apply(&mut logged, &name(k), sum); }
                    }
                }
                Op::Batch(changes) => {
                    let mut batch = open.batch();
                    for (k, v) in &changes {
                        match v {
                            Some(v) => batch.set(&map, &name(*k), *v).unwrap(),
                            None => batch.delete(&map, &name(*k)).unwrap(),
                        }
                    }
                    batch.commit().unwrap();
                    for (k, v) in changes {
                        apply(&mut memory, &name(k), v);
                        apply(&mut logged, &name(k), v);
                    }
                }
                Op::Shrink => {
                    open.shrink().unwrap();
                    // Tearing the new file would tear what was synced, which no crash does.
                    states = vec![(length(), logged.clone())];
                }
                Op::Flush => {
                    open.flush().unwrap();
                    logged = memory.clone();
                    // A flush is several records; a tear among them loses whole keys in no order.
                    states = vec![(length(), logged.clone())];
                }
                Op::Close => {
                    drop(map);
                    store.take().unwrap().close().unwrap();
                    store = Some(reopen());
                    prop_assert_eq!(&store.as_ref().unwrap().stats().cut, &None);
                    prop_assert_eq!(integers(store.as_ref().unwrap(), "m"), memory.clone());
                    logged = memory.clone();
                    states = vec![(length(), logged.clone())];
                }
                Op::Kill | Op::Tear(_) => {
                    let mut image = fs.image();
                    if let Op::Tear(lost) = op {
                        let bytes = image.get_mut(path()).unwrap();
                        bytes.truncate((bytes.len() - lost.min(bytes.len())).max(states[0].0));
                    }
                    let left = image[path()].clone();
                    drop(map);
                    drop(store.take());
                    let file = fs.open(path()).unwrap();
                    file.set_len(0).unwrap();
                    engine::fs::write_all_at(&*file, &left, 0).unwrap();
                    states.retain(|(end, _)| *end <= left.len());
                    logged = states.last().unwrap().1.clone();
                    memory = logged.clone();
                    store = Some(reopen());
                    prop_assert_eq!(integers(store.as_ref().unwrap(), "m"), memory.clone());
                }
            }
            if states.last().unwrap().0 != length() || states.last().unwrap().1 != logged {
                states.push((length(), logged));
            }
            prop_assert_eq!(integers(store.as_ref().unwrap(), "m"), memory.clone());
            prop_assert_eq!(store.as_ref().unwrap().stats().live, memory.len() as u64);
        }
    }
}
