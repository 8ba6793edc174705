//! What a FIFO store keeps: the promises of durostore's README, and the traps that its code falls into (D1 to D15).

use engine::background::in_parallel;
use engine::fifo::{Encoding, Entry, Options, Reader, Store, Writer, salvage, salvage_typed};
use engine::fs::{CallKind, FailingFs, Fault, Fs, MemFs, Plan, RealFs, TraceFs};
use engine::{Durability, Error, SyncPolicy};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const WRITE: Durability = Durability::Write;

fn small(fs: impl Fs + 'static) -> Options {
    Options {
        max_files: 4,
        max_file_size: 4 << 10,
        max_chunk: 4 << 10,
        sync: SyncPolicy::Never,
        background: false,
        fs: Arc::new(fs),
        ..Options::default()
    }
}

fn open(fs: &MemFs) -> Store {
    Store::open("/q", small(fs.clone())).unwrap_or_else(|e| panic!("{e}"))
}

fn entry(n: u64) -> Vec<u8> {
    format!("entry {n} {}", "x".repeat(200)).into_bytes()
}

/// Writes entries with these indexes, one by one.
fn fill(store: &Store, indexes: std::ops::Range<u64>) {
    for n in indexes {
        assert_eq!(store.write(&entry(n)).unwrap(), n);
    }
}

fn all(reader: &Reader) -> Vec<u64> {
    let mut indexes = Vec::new();
    let look = |index, value: &[u8]| {
        assert_eq!(value, entry(index));
        indexes.push(index);
        Ok(())
    };
    reader.for_each(look).unwrap();
    indexes
}

fn files(fs: &MemFs) -> usize {
    fs.image().keys().filter(|path| path.extension().is_some_and(|e| e == "fifo")).count()
}

#[test]
fn what_is_written_is_read() {
    let fs = MemFs::new();
    let store = open(&fs);
    let index = store.write(b"some bytes").unwrap();
    assert_eq!(store.read(index).unwrap(), b"some bytes");
    assert_eq!(store.oldest().unwrap(), Some(Entry { index, value: b"some bytes".to_vec() }));
    assert_eq!(store.oldest().unwrap().unwrap().index, index, "reading takes nothing out");
    assert!(matches!(store.read(index + 1), Err(Error::NotFound { .. })));
}

#[test]
fn one_many_and_none_are_written() {
    let fs = MemFs::new();
    let trace = TraceFs::over(&fs);
    let store = Store::open("/q", small(trace.clone())).unwrap();
    assert_eq!(store.write(b"one").unwrap(), 0);
    let before = trace.recorder().entries().len();
    assert_eq!(store.write_many(&["two", "three"], Durability::Sync).unwrap(), 1..3);
    let calls: Vec<_> = trace.recorder().entries()[before..].iter().map(|e| format!("{:?}", e.op)).collect();
    assert_eq!(calls.len(), 2, "one write, one sync: {calls:?}");
    assert_eq!(store.write_many::<&[u8]>(&[], WRITE).unwrap(), 3..3);
    let expected: Vec<Vec<u8>> = vec![b"one".to_vec(), b"two".to_vec(), b"three".to_vec()];
    assert_eq!((0..3).map(|n| store.read(n).unwrap()).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_deleted_is_not_read() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..4);
    store.delete(&[1], WRITE).unwrap();
    assert!(matches!(store.read(1), Err(Error::NotFound { index: 1, .. })));
    assert!(matches!(store.delete(&[1], WRITE), Err(Error::NotFound { .. })));
    assert_eq!(all(&store), [0, 2, 3]);
    assert_eq!(store.len().unwrap(), 3);
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let e = Store::open(&path, Options { background: false, ..Options::default() }).unwrap_err();
    assert!(e.to_string().contains("file"), "{e}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let fs = MemFs::new();
    let bad = [
        Options { prefix: String::new(), ..small(fs.clone()) },
        Options { prefix: "a-b".to_owned(), ..small(fs.clone()) },
        Options { prefix: "../x".to_owned(), ..small(fs.clone()) },
        Options { max_files: 1, ..small(fs.clone()) },
        Options { max_file_size: 100, ..small(fs.clone()) },
        Options { max_file_size: 2 << 30, ..small(fs.clone()) },
        Options { max_chunk: 0, ..small(fs.clone()) },
        Options { indexer: Some(Duration::ZERO), ..small(fs.clone()) },
        Options { flush_interval: Duration::ZERO, ..small(fs.clone()) },
        Options { sync: SyncPolicy::Interval(Duration::ZERO), ..small(fs.clone()) },
    ];
    for options in bad {
        assert!(matches!(Store::open("/q", options.clone()), Err(Error::Option { .. })), "{options:?}");
    }
}

/// D1: the first write after reopening gets an index of its own.
#[test]
fn a_reopened_store_goes_on_behind_its_last_entry() {
    let fs = MemFs::new();
    for round in 0..4 {
        let store = open(&fs);
        assert_eq!(all(&store), (0..round * 10).collect::<Vec<_>>());
        fill(&store, round * 10..round * 10 + 10);
        store.close().unwrap();
    }
}

/// D2: a prune removes the files before the one that holds the index, and no other.
#[test]
fn a_prune_removes_what_lies_before_an_index() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..50);
    let before = files(&fs);
    assert_eq!(before, 3);
    assert_eq!(store.prune(Some(25), WRITE).unwrap(), 25);
    assert_eq!((all(&store), files(&fs)), ((25..50).collect(), before - 1));
    assert_eq!(store.prune(Some(10), WRITE).unwrap(), 0);
    store.close().unwrap();
    let store = open(&fs);
    assert_eq!(all(&store), (25..50).collect::<Vec<_>>());
    assert_eq!(store.prune(None, WRITE).unwrap(), 25);
    assert_eq!((all(&store), files(&fs)), (vec![], 1));
    fill(&store, 50..60);
}

/// D3: removing files leaves the locks alone, and whatever a crash does in the middle the store opens.
#[test]
fn a_prune_keeps_the_locks() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { max_file_size: 4 << 10, background: false, ..Options::default() };
    let store = Store::open(dir.path(), options()).unwrap();
    fill(&store, 0..100);
    store.prune(None, WRITE).unwrap();
    assert!(matches!(Store::open(dir.path(), options()), Err(Error::Locked { pid: Some(_), .. })));
    assert!(matches!(Writer::open(dir.path(), options()), Err(Error::Locked { .. })));
    assert!(matches!(Reader::open(dir.path(), options()), Err(Error::Locked { .. })));
    drop(store);
    let (_writer, _reader) = (Writer::open(dir.path(), options()).unwrap(), Reader::open(dir.path(), options()).unwrap());
}

/// D4: what is deleted in a later file stays deleted.
#[test]
fn deletes_in_later_files_stay() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..50);
    assert!(files(&fs) > 2);
    store.delete(&[45, 40, 20], WRITE).unwrap();
    store.close().unwrap();
    let expected: Vec<u64> = (0..50).filter(|n| ![45, 40, 20].contains(n)).collect();
    let store = open(&fs);
    assert_eq!(all(&store), expected);
    store.delete(&[49], WRITE).unwrap();
    drop(store);
    assert_eq!(all(&open(&fs)), &expected[..expected.len() - 1]);
}

/// Where that ends which was written: from there on there is but room.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// D5: a torn tail is cut off before anything follows it, in either log.
#[test]
fn a_torn_tail_is_cut() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..10);
    store.delete(&[0], WRITE).unwrap();
    store.delete(&[1], WRITE).unwrap();
    // As killed, without the mark that closing leaves.
    let image = fs.image();
    for (name, last) in [("/q/fifo-00000001.fifo", 9), ("/q/fifo.deletes", 1)] {
        // Bytes that are not there, or zeros in their place: the file had its length before it had them.
        for (torn, zeros) in (1..9).flat_map(|torn| [(torn, false), (torn, true)]) {
            let mut image = image.clone();
            let bytes = image.get_mut(Path::new(name)).unwrap();
            let (len, keep) = (bytes.len(), written(bytes) - torn);
            bytes.truncate(keep);
            if zeros {
                bytes.resize(len, 0);
            }
            let fs = MemFs::from_image(&image);
            let store = open(&fs);
            assert_eq!(store.cut().len(), 1, "{name}");
            let expected: Vec<u64> = if last == 9 { (2..9).collect() } else { (1..10).collect() };
            assert_eq!(all(&store), expected);
            let next = expected.last().unwrap() + 1;
            fill(&store, next..next + 3);
            store.delete(&[next], WRITE).unwrap();
            store.close().unwrap();
            let store = open(&fs);
            assert_eq!((store.cut().len(), store.len().unwrap()), (0, expected.len() as u64 + 2));
        }
    }
}

/// D6 and back-pressure: a full store says so before it writes anything, and takes more when there is room.
#[test]
fn a_full_store_says_so_before_it_writes() {
    let fs = MemFs::new();
    let store = open(&fs);
    let mut written = 0;
    let full = loop {
        let before = fs.image();
        match store.write(&entry(written)) {
            Ok(index) => assert_eq!(index, written),
            Err(e) => {
                assert_eq!(fs.image(), before);
                break e;
            }
        }
        written += 1;
    };
    assert!(matches!(full, Error::NoRoom { files: 4, .. }), "{full}");
    assert!(full.to_string().contains("max_files"), "{full}");
    assert!(fs.image().values().all(|bytes| bytes.len() <= 4 << 10));
    assert_eq!(all(&store), (0..written).collect::<Vec<_>>());
    assert!(matches!(store.write_many(&vec![entry(0); 30], WRITE), Err(Error::TooLarge { .. })));
    // The files that are emptied are found without anybody's asking.
    store.pop_many(30, WRITE).unwrap();
    assert_eq!(store.write(&entry(written)).unwrap(), written);
    store.close().unwrap();
    assert_eq!(all(&open(&fs)), (30..=written).collect::<Vec<_>>());
}

/// D7: memory for entries is a limit on memory, not on what can be read.
#[test]
fn a_small_chunk_reads_everything() {
    let fs = MemFs::new();
    let options = || Options { max_file_size: 1 << 20, max_chunk: 4 << 10, ..small(fs.clone()) };
    let store = Store::open("/q", options()).unwrap();
    for n in 0..1_024u64 {
        store.write(&n.to_le_bytes()).unwrap();
    }
    let large = vec![7; 100_000];
    store.write(&large).unwrap();
    store.close().unwrap();
    let store = Store::open("/q", options()).unwrap();
    for n in (0..1_024u64).rev() {
        assert_eq!(store.read(n).unwrap(), n.to_le_bytes());
    }
    for n in 0..1_024u64 {
        assert_eq!(store.pop(WRITE).unwrap().unwrap().value, n.to_le_bytes());
        let memory = store.size().unwrap().memory;
        assert!(memory < (4 << 10) + 1_024 * 32, "{memory}");
    }
    assert_eq!(store.pop(WRITE).unwrap().unwrap().value, large);
    fill_more(&store);
    let memory = store.size().unwrap().memory;
    assert!(memory < (8 << 10) + 1_100 * 32, "{memory}");
}

fn fill_more(store: &Store) {
    for _ in 0..50 {
        store.write(&[1; 100]).unwrap();
        store.pop(WRITE).unwrap().unwrap();
    }
}

/// D8: a delete over several files is one change.
#[test]
fn a_delete_over_several_files_is_one_change() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..50);
    assert!(files(&fs) > 2);
    let e = store.delete(&[3, 30, 48, 50], WRITE).unwrap_err();
    assert!(matches!(e, Error::NotFound { index: 50, .. }));
    assert_eq!(store.len().unwrap(), 50);
    store.delete(&[48, 3, 30, 3], WRITE).unwrap();
    assert_eq!(store.len().unwrap(), 47);
    drop(store);
    assert_eq!(open(&fs).len().unwrap(), 47);
}

/// D9: a prefix that begins like another one is another one.
#[test]
fn prefixes_that_begin_alike_are_apart() {
    let fs = MemFs::new();
    let named = |prefix: &str| Store::open("/q", Options { prefix: prefix.to_owned(), ..small(fs.clone()) }).unwrap();
    fs.create_dir_all(Path::new("/q")).unwrap();
    fs.create(Path::new("/q/duro-notes.txt")).unwrap();
    fs.create(Path::new("/q/duro-1.fifo")).unwrap();
    let (one, two) = (named("duro"), named("duro2"));
    fill(&one, 0..3);
    fill(&two, 0..5);
    one.prune(None, WRITE).unwrap();
    assert_eq!((all(&one), all(&two)), (vec![], (0..5).collect()));
}

/// D10: numbering goes on when everything was deleted, across reopening.
#[test]
fn indexes_are_never_given_again() {
    let fs = MemFs::new();
    let mut next = 0;
    for round in 0..12u64 {
        let store = open(&fs);
        fill(&store, next..next + 7);
        next += 7;
        match round % 3 {
            0 => assert_eq!(store.prune(None, WRITE).unwrap(), 7),
            1 => store.delete(&(next - 7..next).collect::<Vec<_>>(), WRITE).unwrap(),
            _ => assert_eq!(store.pop_many(100, WRITE).unwrap().len(), 7),
        }
        store.maintain(Duration::from_secs(round)).unwrap();
        assert_eq!(store.len().unwrap(), 0);
    }
}

/// D11: files are left by their bytes, not by the number of their entries.
#[test]
fn large_and_small_entries_fill_files_alike() {
    let fs = MemFs::new();
    let store = Store::open("/q", Options { max_files: 100, ..small(fs.clone()) }).unwrap();
    for _ in 0..3_000 {
        store.write(b"x").unwrap();
    }
    let many = files(&fs);
    assert!((8..=12).contains(&many), "{many}");
    for _ in 0..10 {
        store.write(&[7; 3_000]).unwrap();
    }
    assert!((9..=10).contains(&(files(&fs) - many)), "{}", files(&fs));
}

/// D12: a first file without anything alive does not stop the queue.
#[test]
fn a_first_file_that_is_empty_does_not_jam() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..50);
    store.delete(&(0..40).collect::<Vec<_>>(), WRITE).unwrap();
    let image = fs.image();
    drop(store);
    // As killed: nothing was removed.
    let fs = MemFs::from_image(&image);
    let store = open(&fs);
    assert_eq!(store.oldest().unwrap().unwrap().index, 40);
    assert_eq!(store.pop(WRITE).unwrap().unwrap().index, 40);
    store.maintain(Duration::ZERO).unwrap();
    assert!(files(&fs) < 3);
    assert_eq!(all(&store), (41..50).collect::<Vec<_>>());
}

/// D13: bytes that are missing or wrong are an error, never zeros.
#[test]
fn damage_is_an_error() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..50);
    store.close().unwrap();
    let image = fs.image();
    for name in ["/q/fifo-00000001.fifo", "/q/fifo-00000002.fifo"] {
        let len = image[Path::new(name)].len();
        for cut in [1, 100, len / 2, len - 5] {
            let mut image = image.clone();
            image.get_mut(Path::new(name)).unwrap().truncate(len - cut);
            let opened = Store::open("/q", small(MemFs::from_image(&image)));
            assert!(matches!(opened, Err(Error::Corrupt { .. } | Error::Format { .. })), "{name} {cut}: {opened:?}");
        }
    }
    for name in ["/q/fifo-00000001.fifo", "/q/fifo-00000002.fifo"] {
        let mut image = image.clone();
        image.remove(Path::new(name));
        let opened = Store::open("/q", small(MemFs::from_image(&image)));
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
    }
}

/// D14: a delete that was not written did not happen, and neither did an entry.
#[test]
fn what_was_not_written_did_not_happen() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open("/q", small(failing.clone())).unwrap();
    fill(&store, 0..5);
    failing.arm(Plan { kind: CallKind::Write, skip: 0, times: u64::MAX, fault: Fault::Enospc });
    assert!(matches!(store.delete(&[0], WRITE), Err(Error::Full { .. })));
    assert!(matches!(store.pop(WRITE), Err(Error::Full { .. })));
    assert!(matches!(store.pop_many(3, WRITE), Err(Error::Full { .. })));
    assert!(matches!(store.write(b"x"), Err(Error::Full { .. })));
    assert_eq!(all(&store), [0, 1, 2, 3, 4]);
    failing.disarm();
    assert_eq!(store.pop(WRITE).unwrap().unwrap().index, 0);
    assert_eq!(store.pop_many(2, WRITE).unwrap().len(), 2);
    fill(&store, 5..7);
    assert_eq!(all(&store), [3, 4, 5, 6]);
}

/// D15, and the test of durostore that has a writer and a reader on one directory.
#[test]
fn a_reader_sees_what_another_process_writes() {
    let fs = MemFs::new();
    let reader = Reader::open("/q", small(fs.clone())).unwrap();
    assert_eq!(reader.oldest().unwrap(), None);
    let writer = Writer::open("/q", small(fs.clone())).unwrap();
    let mut next = 0;
    for round in 0..10 {
        let range = writer.write_many(&[entry(next), entry(next + 1)], WRITE).unwrap();
        assert_eq!(range, next..next + 2);
        next += 2;
        assert_eq!(reader.update_indexes().unwrap(), next - round);
        assert_eq!(reader.pop(WRITE).unwrap().unwrap().index, round);
        let last = reader.read(next - 1).unwrap();
        assert_eq!(last, entry(next - 1));
    }
    assert_eq!(all(&reader), (10..20).collect::<Vec<_>>());
    drop(reader);
    let reader = Reader::open("/q", small(fs.clone())).unwrap();
    assert_eq!(all(&reader), (10..20).collect::<Vec<_>>());
}

/// A reader in another process meets a record that is still on its way.
#[test]
fn half_a_record_is_waited_for() {
    let fs = MemFs::new();
    let writer = Writer::open("/q", small(fs.clone())).unwrap();
    let reader = Reader::open("/q", small(fs.clone())).unwrap();
    writer.write_at(&entry(0), WRITE).unwrap();
    let path = Path::new("/q/fifo-00000001.fifo");
    let before = written(&fs.image()[path]);
    writer.write_at(&entry(1), WRITE).unwrap();
    let whole = fs.image()[path].clone();
    let file = fs.open(path).unwrap();
    assert!(before + 200 < written(&whole) && written(&whole) < whole.len(), "a record, and room behind it");
    for len in before..written(&whole) {
        // Before the file had its length, and in its room.
        for room in [len, whole.len()] {
            file.set_len(len as u64).unwrap();
            file.set_len(room as u64).unwrap();
            assert_eq!(reader.update_indexes().unwrap(), 1, "{len} of {room}");
        }
    }
    engine::fs::write_all_at(&*file, &whole[before..], before as u64).unwrap();
    assert_eq!(reader.update_indexes().unwrap(), 2);
    assert_eq!(all(&reader), [0, 1]);
}

#[test]
fn two_processes_meet_over_many_files() {
    let fs = MemFs::new();
    let writer = Writer::open("/q", small(fs.clone())).unwrap();
    let reader = Reader::open("/q", small(fs.clone())).unwrap();
    let mut taken = 0;
    let mut written = 0;
    for round in 0..400 {
        match writer.write_at(&entry(written), WRITE) {
            Ok(index) => {
                assert_eq!(index, written);
                written += 1;
            }
            Err(Error::NoRoom { .. }) => {}
            Err(e) => panic!("{e}"),
        }
        if round % 3 != 0 {
            reader.update_indexes().unwrap();
            for entry in reader.pop_many(2, WRITE).unwrap() {
                assert_eq!(entry.index, taken);
                taken += 1;
            }
        }
        if round % 7 == 0 {
            reader.maintain(Duration::from_millis(round)).unwrap();
        }
    }
    assert!(written > 200 && written - taken < 80, "{written} {taken}");
}

/// Entries that were taken out and then lost by a power loss: nobody else gets their indexes.
#[test]
fn an_index_that_was_taken_is_used_up_even_if_its_entry_was_lost() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..6);
    store.delete(&[0, 1, 5], WRITE).unwrap();
    let mut image = fs.image();
    drop(store);
    // The power fails: the deletes were on the device, the last three entries not.
    let bytes = image.get_mut(Path::new("/q/fifo-00000001.fifo")).unwrap();
    let keep = written(bytes) - 3 * (written(bytes) / 6);
    bytes.truncate(keep);
    let fs = MemFs::from_image(&image);
    let store = open(&fs);
    let left = all(&store);
    assert!(left.iter().all(|n| (2..4).contains(n)), "{left:?}");
    let next = store.write(b"new").unwrap();
    assert_eq!(next, 6);
    assert_eq!(store.len().unwrap(), left.len() as u64 + 1);
    store.close().unwrap();
    let store = open(&fs);
    assert_eq!(store.len().unwrap(), left.len() as u64 + 1);
    assert_eq!(store.read(6).unwrap(), b"new");
    assert_eq!(store.pop_many(9, WRITE).unwrap().len(), left.len() + 1);
}

#[test]
fn entries_in_front_come_first_and_keep_their_order() {
    let fs = MemFs::new();
    let store = open(&fs);
    store.write_many(&["c", "d"], WRITE).unwrap();
    assert_eq!(store.write_in_front(&["a", "b"], WRITE).unwrap(), 2..4);
    store.write(b"e").unwrap();
    assert_eq!(store.write_in_front(&["0"], Durability::Async).unwrap(), 5..6);
    let values = |reader: &Reader| {
        let mut values = String::new();
        let look = |_, value: &[u8]| {
            values.push_str(std::str::from_utf8(value).unwrap());
            Ok(())
        };
        reader.for_each(look).unwrap();
        values
    };
    assert_eq!(values(&store), "0abcde");
    // Many files later they are still known, also to a reader that was not there.
    for n in 0..40 {
        store.write(&entry(n)).unwrap();
    }
    store.close().unwrap();
    let store = open(&fs);
    let taken: Vec<u8> = store.pop_many(6, WRITE).unwrap().into_iter().flat_map(|e| e.value).collect();
    assert_eq!(taken, b"0abcde");
    assert_eq!(store.pop(WRITE).unwrap().unwrap().value, entry(0));
}

#[test]
fn what_is_handed_out_comes_again_after_release_or_reopening() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..4);
    let next = |store: &Store| store.hold().unwrap().map(|entry| entry.index);
    assert_eq!((next(&store), next(&store), next(&store)), (Some(0), Some(1), Some(2)));
    store.delete(&[1], WRITE).unwrap();
    assert!(store.release(0) && !store.release(1));
    assert_eq!((next(&store), next(&store), next(&store)), (Some(0), Some(3), None));
    drop(store);
    let store = open(&fs);
    assert_eq!((next(&store), next(&store), next(&store), next(&store)), (Some(0), Some(2), Some(3), None));
}

#[test]
fn many_threads_write_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { max_file_size: 16 << 10, ..Options::default() }).unwrap();
    let (writers, each) = (4u64, 200);
    let taken = in_parallel((0..2 * writers).collect(), |n| {
        let mut taken = Vec::new();
        if n < writers {
            for i in 0..each {
                store.write(format!("{n} {i}").as_bytes()).unwrap();
            }
        } else {
            let bell = Duration::from_secs(30);
            let mut left = each;
            while left > 0 {
                if let Some(entry) = store.pop(WRITE).unwrap() {
                    taken.push((entry.index, String::from_utf8(entry.value).unwrap()));
                    left -= 1;
                } else {
                    engine::background::pause(bell / 30_000);
                }
            }
        }
        taken
    });
    for list in &taken {
        assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0), "each consumer sees them in order");
    }
    let values: BTreeSet<&String> = taken.iter().flatten().map(|(_, value)| value).collect();
    let indexes: BTreeSet<u64> = taken.iter().flatten().map(|(index, _)| *index).collect();
    assert_eq!((values.len() as u64, indexes.len() as u64), (writers * each, writers * each));
    assert!(store.is_empty().unwrap());
}

#[test]
fn async_entries_are_there_when_they_are_flushed() {
    let fs = MemFs::new();
    let store = open(&fs);
    (0..5).for_each(|n| assert_eq!(store.write_at(&entry(n), Durability::Async).unwrap(), n));
    assert_eq!(open_copy(&fs).len().unwrap(), 0);
    store.maintain(Duration::from_secs(1)).unwrap();
    assert_eq!(open_copy(&fs).len().unwrap(), 5);
    store.pop(Durability::Async).unwrap().unwrap();
    assert_eq!((store.len().unwrap(), open_copy(&fs).len().unwrap()), (4, 5));
    store.maintain(Duration::from_secs(2)).unwrap();
    assert_eq!(open_copy(&fs).len().unwrap(), 4);
}

fn open_copy(fs: &MemFs) -> Store {
    open(&MemFs::from_image(&fs.image()))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    to: String,
    wei: u64,
}

#[test]
fn values_of_a_type_come_back() {
    let fs = MemFs::new();
    let store = open(&fs);
    let payment = |n: u64| Payment { to: format!("hub {n}"), wei: n };
    for encoding in [Encoding::Json, Encoding::Compact] {
        let typed = store.typed::<Payment>(encoding);
        let index = typed.write(&payment(1), WRITE).unwrap();
        typed.write_many(&[payment(2), payment(3)], WRITE).unwrap();
        assert_eq!(typed.read(index + 1).unwrap(), payment(2));
        assert_eq!(typed.oldest().unwrap(), Some((index, payment(1))));
        assert_eq!(typed.pop(WRITE).unwrap(), Some((index, payment(1))));
        assert_eq!(store.pop_many(2, WRITE).unwrap().len(), 2);
        // An entry of another type stays where it is.
        store.write(b"\xff\xff").unwrap();
        assert!(matches!(typed.pop(WRITE), Err(Error::Entry { .. })));
        assert_eq!(store.pop(WRITE).unwrap().unwrap().value, b"\xff\xff");
    }
}

#[test]
fn salvage_gives_what_is_intact_and_says_what_is_not() {
    let fs = MemFs::new();
    let store = open(&fs);
    let typed = store.typed::<Payment>(Encoding::Json);
    for wei in 0..60 {
        typed.write(&Payment { to: "x".repeat(100), wei }, WRITE).unwrap();
    }
    store.write(b"no payment").unwrap();
    store.delete(&[0, 7], WRITE).unwrap();
    store.close().unwrap();
    let mut image = fs.image();
    let bytes = image.get_mut(Path::new("/q/fifo-00000002.fifo")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let fs = MemFs::from_image(&image);
    let store = Store::open("/q", small(fs.clone()));
    if let Ok(store) = &store {
        let read: engine::Result<()> = (0..61).try_for_each(|_| store.pop(WRITE).map(drop));
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    }
    drop(store);
    let fs = MemFs::from_image(&image);
    let raw = salvage("/q", &small(fs.clone())).unwrap();
    assert_eq!((raw.entries.len(), raw.dropped.len()), (58, 1), "{:?}", raw.dropped);
    assert!(raw.entries.windows(2).all(|pair| pair[0].index < pair[1].index));
    let typed = salvage_typed::<Payment>("/q", &small(fs.clone()), Encoding::Json).unwrap();
    assert_eq!((typed.entries.len(), typed.dropped.len()), (57, 2));
    assert!(typed.entries.iter().all(|(index, payment)| *index == payment.wei));
    assert_eq!(fs.image(), image, "nothing was changed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the files hold: an answer, no panic, and nothing that was not written.
    #[test]
    fn damaged_files_are_read_without_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), file in any::<prop::sample::Index>(), cut in prop::bool::weighted(0.2)
    ) {
        let fs = MemFs::new();
        let store = open(&fs);
        fill(&store, 0..40);
        store.delete(&[0, 1, 2, 9, 30], WRITE).unwrap();
        store.close().unwrap();
        let mut image = fs.image();
        let names: Vec<_> = image.keys().filter(|p| !p.to_string_lossy().ends_with("lock")).cloned().collect();
        let bytes = image.get_mut(&names[file.index(names.len())]).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= byte };
        let fs = MemFs::from_image(&image);
        let shown = Store::open("/q", small(fs.clone())).and_then(|store| {
            let mut shown = Vec::new();
            store.for_each(|index, value| { shown.push((index, value.to_vec())); Ok(()) })?;
            Ok(shown)
        });
        if let Ok(shown) = shown {
            let expected: Vec<_> = (0..40).filter(|n| ![0, 1, 2, 9, 30].contains(n)).map(|n| (n, entry(n))).collect();
            // A file that ends early, at its last sync's expense, cannot be told from one that never was longer.
            let same = if cut { shown.iter().all(|(index, value)| *value == entry(*index)) } else { shown == expected };
            prop_assert!(same, "synced entries are there, or there is an error");
        }
        let found = salvage("/q", &small(MemFs::from_image(&image))).unwrap();
        prop_assert!(found.entries.iter().all(|e| e.value == entry(e.index)));
    }
}

proptest! {
    #[test]
    fn any_damage_is_survived(input in prop::collection::vec(any::<u8>(), 0..40)) {
        crate::fifo_damage::open_damaged(&input);
    }
}

/// Real files, real flocks: the writer and the reader in two stores of one process.
#[test]
fn halves_on_real_files_meet_through_the_indexer() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { indexer: Some(Duration::from_millis(1)), fs: Arc::new(RealFs), ..Options::default() };
    let reader = Reader::open(dir.path(), options()).unwrap();
    let writer = Writer::open(dir.path(), options()).unwrap();
    for n in 0..20 {
        writer.write_at(&entry(n), WRITE).unwrap();
    }
    let mut patience = 30_000;
    while reader.oldest().unwrap().is_none() && patience > 0 {
        engine::background::pause(Duration::from_millis(1));
        patience -= 1;
    }
    reader.update_indexes().unwrap();
    assert_eq!(reader.pop_many(20, WRITE).unwrap().len(), 20);
}

/// Whoever prunes may meet the store's own worker at the same work.
#[test]
fn files_are_removed_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(dir.path(), Options { max_file_size: 4 << 10, sync: SyncPolicy::Never, ..Options::default() }).unwrap();
    let outcomes = in_parallel((0..3).collect(), |n: u64| {
        (0..200).try_for_each(|_| {
            if n == 0 {
                store.write(&entry(n))?;
                store.pop(WRITE)?;
            }
            store.prune(Some(0), WRITE).map(drop)
        })
    });
    outcomes.into_iter().for_each(|outcome: engine::Result<()>| outcome.unwrap());
}

/// A process that died may have left names that are not on the device: of the file that was begun, of the shortened log
/// of deletes. What is written there is lost with the name.
#[test]
fn names_that_an_earlier_process_left_are_made_durable() {
    let fs = MemFs::new();
    fill(&open(&fs), 0..3);
    for half in ["writer", "reader"] {
        let trace = TraceFs::over(&MemFs::from_image(&fs.image()));
        if half == "writer" {
            drop(Writer::open("/q", small(trace.clone())).unwrap());
        } else {
            drop(Reader::open("/q", small(trace.clone())).unwrap());
        }
        let calls: Vec<_> = trace.recorder().entries().iter().map(|e| format!("{:?}", e.op)).collect();
        assert!(calls.iter().any(|call| call.starts_with("SyncDir")), "{half}: {calls:?}");
    }
}

#[test]
fn an_index_that_was_told_is_not_given_again_after_a_full_disk() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open("/q", small(failing.clone())).unwrap();
    fill(&store, 0..3);
    // Told, and then not written with the write that was to carry it.
    assert_eq!(store.write_at(&entry(3), Durability::Async).unwrap(), 3);
    failing.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Enospc });
    assert!(matches!(store.write(&entry(4)), Err(Error::Full { .. })));
    assert_eq!(store.write(&entry(4)).unwrap(), 4);
    assert_eq!((all(&store), store.len().unwrap()), (vec![0, 1, 2, 3, 4], 5));
    store.close().unwrap();
    assert_eq!(all(&open(&fs)), [0, 1, 2, 3, 4]);
}

/// What was buffered when the disk was full is written as soon as it is not, and no sync returns without it.
#[test]
fn what_was_buffered_outlives_a_full_disk() {
    for fault in [Fault::Enospc, Fault::Short(7)] {
        let fs = MemFs::new();
        let failing = FailingFs::new(Arc::new(fs.clone()));
        let store = Store::open("/q", small(failing.clone())).unwrap();
        fill(&store, 0..2);
        (2..6).for_each(|n| assert_eq!(store.write_at(&entry(n), Durability::Async).unwrap(), n));
        failing.arm(Plan { kind: CallKind::Write, skip: 0, times: 2, fault });
        assert!(matches!(store.sync(), Err(Error::Full { .. })), "{fault:?}");
        assert_eq!(store.write_at(&entry(6), Durability::Async).unwrap(), 6);
        assert!(matches!(store.write(&entry(7)), Err(Error::Full { .. })), "{fault:?}");
        store.sync().unwrap();
        // As killed.
        let killed = MemFs::from_image(&fs.image());
        assert_eq!(all(&open(&killed)), (0..7).collect::<Vec<_>>());
        assert_eq!(store.write(&entry(7)).unwrap(), 7);
        store.close().unwrap();
        assert_eq!(all(&open(&fs)), (0..8).collect::<Vec<_>>());
    }
}

/// What was buffered when the device failed is gone, and nobody is shown it: not by the call that fails, and not later.
#[test]
fn what_was_buffered_when_the_device_failed_is_never_shown() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open("/q", small(failing.clone())).unwrap();
    fill(&store, 0..2);
    (2..6).for_each(|n| assert_eq!(store.write_at(&entry(n), Durability::Async).unwrap(), n));
    failing.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Eio });
    for _ in 0..3 {
        assert!(matches!(store.len(), Err(Error::Poisoned { .. })));
        assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
    }
    drop(store);
    assert_eq!(all(&open(&fs)), [0, 1]);
}

/// A disk that stays full: buffered entries are taken as far as the buffer goes, and refused before they are taken then.
#[test]
fn a_disk_that_stays_full_refuses_what_it_does_not_take() {
    let fs = MemFs::new();
    let failing = FailingFs::new(Arc::new(fs.clone()));
    let store = Store::open("/q", Options { max_file_size: 1 << 20, ..small(failing.clone()) }).unwrap();
    failing.arm(Plan { kind: CallKind::Write, skip: 0, times: u64::MAX, fault: Fault::Enospc });
    let mut taken = 0;
    let full = loop {
        match store.write_at(&entry(taken), Durability::Async) {
            Ok(index) => assert_eq!(index, taken),
            Err(e) => break e,
        }
        taken += 1;
    };
    assert!(matches!(full, Error::Full { .. }) && (100..1_000).contains(&taken), "{full} after {taken}");
    failing.disarm();
    assert_eq!(store.write(&entry(taken)).unwrap(), taken);
    store.close().unwrap();
    assert_eq!(all(&open(&fs)), (0..=taken).collect::<Vec<_>>());
}

#[test]
fn rot_in_a_shortened_log_of_deletes_is_refused() {
    let fs = MemFs::new();
    let store = open(&fs);
    fill(&store, 0..40);
    (0..35).for_each(|n| store.delete(&[n], WRITE).unwrap());
    let path = Path::new("/q/fifo.deletes");
    let before = fs.image()[path].len();
    store.maintain(Duration::ZERO).unwrap();
    let mut image = fs.image();
    assert!(image[path].len() < before, "it is written anew");
    // As killed, with nothing behind it.
    for at in 10..image[path].len() - 10 {
        image.get_mut(path).unwrap()[at] ^= 0xff;
        let opened = Store::open("/q", small(MemFs::from_image(&image)));
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{at}: {opened:?}");
        image.get_mut(path).unwrap()[at] ^= 0xff;
    }
}

#[test]
fn a_call_that_finds_nothing_to_do_carries_the_earlier_ones() {
    let synced = |call: &dyn Fn(&Store)| {
        let trace = TraceFs::over(&MemFs::new());
        let store = Store::open("/q", small(trace.clone())).unwrap();
        fill(&store, 0..2);
        store.pop_many(2, WRITE).unwrap();
        let before = trace.recorder().entries().len();
        call(&store);
        let calls: Vec<_> = trace.recorder().entries()[before..].iter().map(|e| format!("{:?}", e.op)).collect();
        calls.iter().filter(|call| call.starts_with("SyncData")).count()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(synced(&|store| assert_eq!(store.pop(Durability::Sync).unwrap(), None)), 2);
    assert_eq!(synced(&|store| assert!(store.pop_many(5, Durability::Sync).unwrap().is_empty())), 2);
    assert_eq!(synced(&|store| store.delete(&[], Durability::Sync).unwrap()), 2);
    assert_eq!(synced(&|store| assert_eq!(store.write_many(&nothing, Durability::Sync).unwrap(), 2..2)), 2);
    assert_eq!(synced(&|store| assert_eq!(store.pop(WRITE).unwrap(), None)), 0);
}

/// A dequeue that carries what was written may meet the change of files.
#[test]
fn a_synced_dequeue_meets_the_change_of_files() {
    let fs = MemFs::new();
    let store = Store::open("/q", Options { max_files: 100_000, ..small(fs.clone()) }).unwrap();
    let outcomes = in_parallel((0..3).collect(), |n: u64| {
        (0..3_000).try_for_each(|_| if n == 0 { store.write(&entry(n)).map(drop) } else { store.pop(Durability::Sync).map(drop) })
    });
    outcomes.into_iter().for_each(|outcome: engine::Result<()>| outcome.unwrap());
}
