//! Random operations on a FIFO store against a list: it must show the same, whatever was removed, reopened, killed or
//! handed out meanwhile, in one process or in two.

use engine::fifo::{Entry, Options, Reader, Store, Writer};
use engine::fs::MemFs;
use engine::{Durability, Error, SyncPolicy};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<u16>, Durability),
    Front(Vec<u16>, Durability),
    Pop(Durability),
    PopMany(usize, Durability),
    Delete(Vec<prop::sample::Index>, Durability),
    Prune(Option<prop::sample::Index>),
    Read(prop::sample::Index),
    Hold,
    Release(prop::sample::Index),
    Unload,
    Maintain(u8),
    Reopen,
    Abort,
}

fn op() -> impl Strategy<Value = Op> {
    let level = || prop_oneof![Just(Durability::Async), Just(Durability::Write), Just(Durability::Sync)];
    let at = any::<prop::sample::Index>;
    let sizes = || prop::collection::vec(0u16..900, 1..5);
    prop_oneof![
        10 => (sizes(), level()).prop_map(|(sizes, level)| Op::Write(sizes, level)),
        2 => (sizes(), level()).prop_map(|(sizes, level)| Op::Front(sizes, level)),
        8 => level().prop_map(Op::Pop),
        2 => (0usize..6, level()).prop_map(|(most, level)| Op::PopMany(most, level)),
        2 => (prop::collection::vec(at(), 0..4), level()).prop_map(|(at, level)| Op::Delete(at, level)),
        1 => prop::option::of(at()).prop_map(Op::Prune),
        4 => at().prop_map(Op::Read),
        3 => Just(Op::Hold),
        2 => at().prop_map(Op::Release),
        1 => Just(Op::Unload),
        4 => (0u8..40).prop_map(Op::Maintain),
        1 => Just(Op::Reopen),
        1 => Just(Op::Abort),
    ]
}

fn options(fs: &MemFs) -> Options {
    Options {
        max_files: 5,
        max_file_size: 4 << 10,
        max_chunk: 4 << 10,
        sync: SyncPolicy::EVERY_SECOND,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    }
}

/// A store, or its halves as in two processes.
enum Halves {
    One(Store),
    Two(Writer, Reader),
}

impl Halves {
    fn open(fs: &MemFs, two: bool) -> Self {
        if two {
            let reader = Reader::open("/q", options(fs)).unwrap();
            let writer = Writer::open("/q", options(fs)).unwrap();
            reader.update_indexes().unwrap();
            Halves::Two(writer, reader)
        } else {
            Halves::One(Store::open("/q", options(fs)).unwrap())
        }
    }

    fn write(&self, entries: &[Vec<u8>], front: bool, level: Durability) -> engine::Result<std::ops::Range<u64>> {
        match (self, front) {
            (Halves::One(store), false) => store.write_many(entries, level),
            (Halves::One(store), true) => store.write_in_front(entries, level),
            (Halves::Two(writer, reader), _) => {
                // What only waits in memory no other process can see.
                let level = level.max(Durability::Write);
                let written = if front { writer.write_in_front(entries, level) } else { writer.write_many(entries, level) };
                reader.update_indexes().unwrap();
                written
            }
        }
    }

    fn reader(&self) -> &Reader {
        match self {
            Halves::One(store) => store,
            Halves::Two(_, reader) => reader,
        }
    }

    fn sync(&self) {
        self.reader().sync().unwrap();
        if let Halves::Two(writer, _) = self {
            writer.sync().unwrap();
        }
    }

    fn close(self) {
        match self {
            Halves::One(store) => store.close().unwrap(),
            Halves::Two(writer, reader) => {
                writer.close().unwrap();
                reader.close().unwrap();
            }
        }
    }
}

struct Model {
    line: VecDeque<Entry>,
    held: BTreeSet<u64>,
    next: u64,
    values: u64,
}

impl Model {
    fn entries(&mut self, sizes: &[u16]) -> Vec<Vec<u8>> {
        let mut entry = |size: &u16| {
            self.values += 1;
            format!("{}|{}", self.values, "x".repeat(usize::from(*size))).into_bytes()
        };
        sizes.iter().map(&mut entry).collect()
    }

    fn wrote(&mut self, entries: Vec<Vec<u8>>, front: bool, indexes: std::ops::Range<u64>) {
        assert!(indexes.start >= self.next, "{indexes:?} was given before {}", self.next);
        assert_eq!(indexes.end - indexes.start, entries.len() as u64);
        self.next = indexes.end;
        let entries = indexes.zip(entries).map(|(index, value)| Entry { index, value });
        if front {
            entries.collect::<Vec<_>>().into_iter().rev().for_each(|entry| self.line.push_front(entry));
        } else {
            self.line.extend(entries);
        }
    }

    fn oldest(&self) -> Option<&Entry> {
        self.line.iter().find(|entry| !self.held.contains(&entry.index))
    }

    fn take(&mut self) -> Option<Entry> {
        let at = self.line.iter().position(|entry| !self.held.contains(&entry.index))?;
        self.line.remove(at)
    }

    fn delete(&mut self, gone: impl Fn(u64) -> bool) {
        self.line.retain(|entry| !gone(entry.index));
        self.held.retain(|index| !gone(*index));
    }
}

fn check(ops: Vec<Op>, two: bool) {
    let mut fs = MemFs::new();
    let mut store = Halves::open(&fs, two);
    let mut model = Model { line: VecDeque::new(), held: BTreeSet::new(), next: 0, values: 0 };
    let mut now = Duration::ZERO;
    for op in ops {
        let reader = store.reader();
        match op {
            Op::Write(ref sizes, level) | Op::Front(ref sizes, level) => {
                let entries = model.entries(sizes);
                let front = matches!(op, Op::Front(..));
                match store.write(&entries, front, level) {
                    Ok(indexes) => model.wrote(entries, front, indexes),
                    Err(Error::NoRoom { files, .. }) => assert_eq!(files, 5),
                    Err(e) => panic!("{e}"),
                }
            }
            Op::Pop(level) => assert_eq!(reader.pop(level).unwrap(), model.take()),
            Op::PopMany(most, level) => {
                let expected: Vec<Entry> = (0..most).map_while(|_| model.take()).collect();
                assert_eq!(reader.pop_many(most, level).unwrap(), expected);
            }
            Op::Delete(at, level) => {
                let indexes: Vec<u64> = at.iter().map(|at| at.index(model.next as usize + 2) as u64).collect();
                let there = |index: &u64| model.line.iter().any(|entry| entry.index == *index);
                match reader.delete(&indexes, level) {
                    Ok(()) => {
                        assert!(indexes.iter().all(there));
                        model.delete(|index| indexes.contains(&index));
                    }
                    Err(Error::NotFound { index, .. }) => assert!(indexes.contains(&index) && !there(&index)),
                    Err(e) => panic!("{e}"),
                }
            }
            Op::Prune(at) => {
                let below = at.map(|at| at.index(model.next as usize + 2) as u64);
                let before = model.line.len();
                model.delete(|index| below.is_none_or(|below| index < below));
                assert_eq!(reader.prune(below, Durability::Write).unwrap(), (before - model.line.len()) as u64);
            }
            Op::Read(at) => {
                let index = at.index(model.next as usize + 2) as u64;
                let expected = model.line.iter().find(|entry| entry.index == index);
                match reader.read(index) {
                    Ok(value) => assert_eq!(Some(&value), expected.map(|entry| &entry.value)),
                    Err(Error::NotFound { .. }) => assert_eq!(expected, None),
                    Err(e) => panic!("{e}"),
                }
            }
            Op::Hold => {
                let held = reader.hold().unwrap();
                assert_eq!(held.as_ref(), model.oldest());
                model.held.extend(held.map(|entry| entry.index));
            }
            Op::Release(at) => {
                let held: Vec<u64> = model.held.iter().copied().collect();
                if held.is_empty() {
                    assert!(!reader.release(at.index(100) as u64));
                } else {
                    let index = held[at.index(held.len())];
                    assert!(reader.release(index) && !reader.release(index));
                    model.held.remove(&index);
                }
            }
            Op::Unload => reader.unload(),
            Op::Maintain(tenths) => {
                now += Duration::from_millis(u64::from(tenths) * 100);
                reader.maintain(now).unwrap();
                if let Halves::Two(writer, _) = &store {
                    writer.maintain(now).unwrap();
                }
            }
            Op::Reopen | Op::Abort => {
                if matches!(op, Op::Reopen) {
                    store.close();
                } else {
                    store.sync();
                    fs = MemFs::from_image(&fs.image());
                }
                store = Halves::open(&fs, two);
                model.held.clear();
                now = Duration::ZERO;
            }
        }
        let reader = store.reader();
        assert_eq!(reader.oldest().unwrap().as_ref(), model.oldest());
        assert_eq!(reader.len().unwrap(), model.line.len() as u64);
    }
    let mut shown = VecDeque::new();
    let look = |index, value: &[u8]| {
        shown.push_back(Entry { index, value: value.to_vec() });
        Ok(())
    };
    store.reader().for_each(look).unwrap();
    assert_eq!(shown, model.line);
}

proptest! {
    #[test]
    fn a_store_is_a_list(ops in prop::collection::vec(op(), 1..120)) {
        check(ops, false);
    }

    #[test]
    fn two_halves_are_a_list(ops in prop::collection::vec(op(), 1..120)) {
        check(ops, true);
    }
}
