//! The queue on top of a FIFO store: what go-queue's interfaces ask for, and what durostore's queue got wrong.

use engine::background::{in_parallel, pause};
use engine::fifo::{Delivery, Item, Options, Placement, Queue, QueueOptions};
use engine::fs::MemFs;
use engine::{Durability, Error, SyncPolicy};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

fn options(fs: &MemFs) -> QueueOptions {
    let store = Options {
        max_files: 8,
        max_file_size: 4 << 10,
        max_chunk: 4 << 10,
        sync: SyncPolicy::Never,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    };
    QueueOptions { store, ..QueueOptions::default() }
}

fn open(options: QueueOptions) -> Queue {
    Queue::open("/q", options).unwrap_or_else(|e| panic!("{e}"))
}

fn texts(items: impl IntoIterator<Item = Item>) -> Vec<String> {
    items.into_iter().map(|item| String::from_utf8(item.value).unwrap()).collect()
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let fs = MemFs::new();
    let bad = [
        QueueOptions { capacity: 0, ..options(&fs) },
        QueueOptions { placement: Placement::Memory(0), ..options(&fs) },
        QueueOptions { placement: Placement::Memory(5), delivery: Delivery::AtLeastOnce, ..options(&fs) },
    ];
    for options in bad {
        assert!(matches!(Queue::open("/q", options), Err(Error::Option { .. })));
    }
}

/// Ten items through a queue that holds one.
#[test]
fn a_queue_of_one_hands_on_ten() {
    for placement in [Placement::Durable, Placement::Memory(1), Placement::Memory(3)] {
        let fs = MemFs::new();
        let queue = open(QueueOptions { capacity: 1, placement, ..options(&fs) });
        for n in 0..10 {
            assert!(queue.enqueue(n.to_string().as_bytes()).unwrap());
            assert!(!queue.enqueue(b"too much").unwrap());
            assert_eq!(texts(queue.dequeue().unwrap()), [n.to_string()]);
            assert_eq!(queue.dequeue().unwrap(), None);
        }
    }
}

#[test]
fn items_are_peeked_counted_put_in_front_and_flushed() {
    for placement in [Placement::Durable, Placement::Memory(2), Placement::Memory(50)] {
        let fs = MemFs::new();
        let queue = open(QueueOptions { capacity: 6, placement, ..options(&fs) });
        assert_eq!(queue.enqueue_many(&["c", "d", "e"]).unwrap(), 3);
        assert!(queue.enqueue_in_front(b"b").unwrap() && queue.enqueue_in_front(b"a").unwrap());
        assert_eq!(texts(queue.peek().unwrap()), ["a"]);
        assert_eq!((queue.len(), queue.capacity(), queue.is_empty()), (5, 6, false));
        // A batch goes in as far as there is room: durostore's queue never returned.
        assert_eq!(queue.enqueue_many(&["f", "g", "h"]).unwrap(), 1);
        assert_eq!(texts(queue.enqueue_lossy(b"i").unwrap()), ["a"]);
        queue.resize(8);
        assert_eq!(queue.enqueue_many(&["j", "k", "l"]).unwrap(), 2);
        assert_eq!(texts(queue.dequeue_many(2).unwrap()), ["b", "c"]);
        // All of it, what lies in the store included.
        assert_eq!(texts(queue.flush().unwrap()), ["d", "e", "f", "i", "j", "k"]);
        assert!(queue.is_empty() && queue.peek().unwrap().is_none());
    }
}

#[test]
fn what_is_in_memory_reaches_the_store_when_the_queue_is_closed() {
    let fs = MemFs::new();
    let memory = || QueueOptions { placement: Placement::Memory(100), ..options(&fs) };
    let queue = open(memory());
    (0..50).for_each(|n| assert!(queue.enqueue(format!("{n} {}", "x".repeat(200)).as_bytes()).unwrap()));
    assert_eq!(queue.store().len().unwrap(), 0);
    queue.close().unwrap();
    let queue = open(memory());
    assert_eq!(queue.len(), 50);
    let taken = texts(queue.flush().unwrap());
    assert!(taken.iter().enumerate().all(|(n, text)| text.starts_with(&format!("{n} "))), "{taken:?}");
}

#[test]
fn at_least_once_delivers_again_what_was_not_acknowledged() {
    let fs = MemFs::new();
    let twice = || QueueOptions { delivery: Delivery::AtLeastOnce, ..options(&fs) };
    let queue = open(twice());
    queue.enqueue_many(&["a", "b", "c"]).unwrap();
    let (a, b) = (queue.dequeue().unwrap().unwrap(), queue.dequeue().unwrap().unwrap());
    assert_eq!(queue.len(), 3, "what is out is not gone");
    queue.acknowledge(a.index.unwrap()).unwrap();
    assert!(matches!(queue.acknowledge(a.index.unwrap()), Err(Error::NotFound { .. })));
    assert!(queue.give_back(b.index.unwrap()));
    assert_eq!(texts(queue.dequeue().unwrap()), ["b"]);
    drop(queue);
    let queue = open(twice());
    assert_eq!(texts(queue.dequeue_many(5).unwrap()), ["b", "c"]);
    assert_eq!(queue.len(), 2);
}

/// At most once holds as far as the dequeue's level: a crash image taken after each.
#[test]
fn at_most_once_holds_as_far_as_the_level_of_the_dequeue() {
    for (level, comes_again) in [(Durability::Write, false), (Durability::Async, true)] {
        let fs = MemFs::new();
        let queue = open(QueueOptions { level, ..options(&fs) });
        queue.enqueue(b"once").unwrap();
        queue.store().sync().unwrap();
        queue.dequeue().unwrap().unwrap();
        let killed = MemFs::from_image(&fs.image());
        assert_eq!(open(options(&killed)).dequeue().unwrap().is_some(), comes_again, "{level}");
    }
}

#[test]
fn a_full_store_refuses_and_loses_nothing() {
    for placement in [Placement::Durable, Placement::Memory(3)] {
        let fs = MemFs::new();
        let queue = open(QueueOptions { placement, ..options(&fs) });
        let mut put = 0;
        let refused = loop {
            match queue.enqueue(format!("{put} {}", "x".repeat(900)).as_bytes()) {
                Ok(in_now) => put += u64::from(in_now),
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
        assert_eq!(queue.len(), put);
        let taken = texts(queue.flush().unwrap());
        assert!(taken.len() as u64 == put && taken.iter().enumerate().all(|(n, t)| t.starts_with(&format!("{n} "))));
        assert!(queue.enqueue(b"room again").unwrap());
    }
}

#[test]
fn producers_and_consumers_wait_for_each_other() {
    for placement in [Placement::Durable, Placement::Memory(4)] {
        let dir = tempfile::tempdir().unwrap();
        let options = QueueOptions { capacity: 8, placement, ..QueueOptions::default() };
        let queue = Queue::open(dir.path(), options).unwrap();
        let (patience, each) = (Duration::from_secs(60), 300u64);
        let taken = in_parallel((0..4u64).collect(), |n| {
            let mut taken = Vec::new();
            if n < 2 {
                for i in 0..each {
                    while !queue.enqueue(format!("{n} {i}").as_bytes()).unwrap() {
                        assert!(queue.wait_for_room(patience).unwrap());
                    }
                }
            } else {
                while (taken.len() as u64) < each {
                    assert!(queue.wait_for_item(patience).unwrap());
                    taken.extend(texts(queue.dequeue().unwrap()));
                }
            }
            taken
        });
        let mut all: Vec<&String> = taken.iter().flatten().collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len() as u64, 2 * each);
        for (list, n) in taken.iter().flat_map(|list| [(list, 0), (list, 1)]) {
            let own: Vec<u64> = list.iter().filter_map(|t| t.strip_prefix(&format!("{n} "))?.parse().ok()).collect();
            assert!(own.is_sorted(), "a consumer sees the items of a producer in their order");
        }
        assert!(!queue.wait_for_item(Duration::from_millis(1)).unwrap());
        pause(Duration::ZERO);
    }
}

proptest! {
    #[test]
    fn a_queue_is_a_list(
        ops in prop::collection::vec((0u8..8, 1usize..5, 0u16..500), 1..150),
        memory in prop::option::of(1usize..6),
        capacity in 1u64..12,
    ) {
        let fs = MemFs::new();
        let placement = memory.map_or(Placement::Durable, Placement::Memory);
        let open_it = || open(QueueOptions { placement, capacity, ..options(&fs) });
        let (mut queue, mut model, mut value) = (open_it(), VecDeque::new(), 0);
        for (op, count, size) in ops {
            let mut next = || { value += 1; format!("{value} {}", "x".repeat(usize::from(size))).into_bytes() };
            let room = (capacity as usize).saturating_sub(model.len());
            match op {
                0 | 1 => {
                    let values: Vec<Vec<u8>> = (0..count).map(|_| next()).collect();
                    prop_assert_eq!(queue.enqueue_many(&values).unwrap(), room.min(count));
                    model.extend(values.into_iter().take(room));
                }
                2 => {
                    let front = next();
                    prop_assert_eq!(queue.enqueue_in_front(&front).unwrap(), room > 0);
                    if room > 0 { model.push_front(front); }
                }
                3 => {
                    let last = next();
                    let lost = queue.enqueue_lossy(&last).unwrap();
                    let expected: Vec<Vec<u8>> = (room == 0).then(|| model.pop_front().unwrap()).into_iter().collect();
                    prop_assert_eq!(lost.into_iter().map(|item| item.value).collect::<Vec<_>>(), expected);
                    model.push_back(last);
                }
                4 | 5 => prop_assert_eq!(queue.dequeue().unwrap().map(|item| item.value), model.pop_front()),
                6 => {
                    let taken: Vec<Vec<u8>> = queue.dequeue_many(count).unwrap().into_iter().map(|item| item.value).collect();
                    let expected: Vec<Vec<u8>> = (0..count).map_while(|_| model.pop_front()).collect();
                    prop_assert_eq!(taken, expected);
                }
                _ => {
                    queue.close().unwrap();
                    queue = open_it();
                }
            }
            prop_assert_eq!(queue.len(), model.len() as u64);
            prop_assert_eq!(queue.peek().unwrap().map(|item| item.value), model.front().cloned());
        }
    }
}
