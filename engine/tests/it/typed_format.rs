//! The text format: what people and go-persist write, and what a changed byte may do.

use crate::support::{bytes, integers, mem, mem_with, open, pairs, path, quiet};
use engine::codec::{crc32c, crc32c_append, hex8};
use engine::typed::{Store, salvage};
use engine::{Error, Result};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn typed_log(records: &str) -> Vec<u8> {
    [b"typed-log 1\n", records.as_bytes()].concat()
}

fn try_open(bytes: &[u8]) -> Result<Store> {
    Store::open(path(), quiet(mem_with(bytes)))
}

fn refused(bytes: &[u8]) -> Error {
    match try_open(bytes) {
        Err(e) => e,
        Ok(store) => panic!("opened, with {:?}, from {:?}", store.stats().cut, String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn a_person_can_write_records() {
    let text = "S m:a\n1\n\nS m:b\n 2 \n\n\nD m:a\nB 2\ns m:c\n3\nd m:b\nB 0\nS own\n\"text\"\nS m:with space: and colon\n4\n";
    let store = try_open(&typed_log(text)).unwrap();
    assert_eq!(integers(&store, "m"), pairs(&[("c", 3), ("with space: and colon", 4)]));
    assert_eq!(store.get::<String>("own").unwrap().as_deref(), Some("text"));
    assert_eq!(store.stats().cut, None);
    assert_eq!(store.stats().records, 7, "blank lines are not records");
}

#[test]
fn records_by_hand_and_by_the_store_mix() {
    let fs = mem_with(&typed_log("S m:hand\n1\n"));
    open(&fs).map("m").unwrap().set("store", 2i64).unwrap();
    let both = [bytes(&fs), b"S m:again\n3\nD m:hand\n".to_vec()].concat();
    let fs = mem_with(&both);
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("store", 2), ("again", 3)]));
    open(&fs).shrink().unwrap();
    let text = String::from_utf8(bytes(&fs)).unwrap();
    assert!(!text.lines().any(|l| l.starts_with("S ")), "a shrink gives every record a checksum: {text}");
    assert_eq!(integers(&open(&fs), "m"), pairs(&[("store", 2), ("again", 3)]));
}

#[test]
fn a_key_that_reads_like_a_checksum_cannot_be_written_by_hand() {
    for line in ["S c0ffee12 key\n1\n", "S c0ffee12@1f key\n1\n", "D c0ffee12 key\n", "S 00000000 \n1\n"] {
        let behind = [typed_log(line), b"S m:a\n1\n".to_vec()].concat();
        let error = refused(&behind).to_string();
        assert!(error.contains("checksum"), "{error}");
    }
    // The store itself may write them.
    let fs = mem();
    open(&fs).set("c0ffee12 key", &1).unwrap();
    assert_eq!(open(&fs).get::<i64>("c0ffee12 key").unwrap(), Some(1));
}

/// What a person wrote is never taken for what a crash left: an error names the place, nothing is cut.
#[test]
fn a_mistake_of_the_hand_is_an_error_and_cuts_nothing() {
    let mistakes = [
        ("S m:a\n{oops\n", "the value is no JSON"),
        ("S m:a\n1", "the last newline is missing"),
        ("S m:a\n", "the value is missing"),
        ("B 2\ns m:a\n1\n", "a change is missing"),
        ("what is this\nS m:a\n1\n", "a stray line with a record by hand behind it"),
    ];
    for (line, what) in mistakes {
        let fs = mem();
        // Closed by a crash, not by hand, so that no mark stands behind what follows.
        let store = open(&fs);
        store.map("m").unwrap().set("k", 1i64).unwrap();
        let mut file = bytes(&fs);
        drop(store);
        file.extend_from_slice(line.as_bytes());
        assert!(matches!(refused(&file), Error::Corrupt { .. }), "{what}");
    }
}

#[test]
fn an_edited_value_is_an_error_that_says_how_to_accept_it() {
    for (what, closed) in [("at the end", false), ("under a mark", true)] {
        let fs = mem();
        let store = open(&fs);
        store.map("m").unwrap().set("k", 10i64).unwrap();
        if closed {
            store.map("m").unwrap().set_sync("l", 10i64).unwrap();
        }
        drop(store);
        let text = String::from_utf8(bytes(&fs)).unwrap();
        let token = text.lines().nth(1).unwrap().split_once(' ').unwrap().0[1..].to_owned();
        let edited = text.replacen("10\n", "1000\n", 1);
        let error = refused(edited.as_bytes()).to_string();
        assert!(error.contains(&token) && error.contains("delete"), "{what}: {error}");
        let accepted = edited.replacen(&token, "", 1);
        assert_eq!(integers(&try_open(accepted.as_bytes()).unwrap(), "m").get("k"), Some(&1000), "{what}");
    }
}

/// The middle of a long key that never reached the device reads as zeros: torn, not edited.
#[test]
fn zeros_in_a_long_key_are_a_torn_tail() {
    let fs = mem();
    let store = open(&fs);
    let map = store.map("m").unwrap();
    map.set("a", 1i64).unwrap();
    map.set(&"k".repeat(9000), 2).unwrap();
    std::mem::forget((store, map));
    let mut torn = bytes(&fs);
    torn[4096..8192].fill(0);
    let store = try_open(&torn).unwrap();
    assert!(store.stats().cut.is_some());
    assert_eq!(integers(&store, "m"), pairs(&[("a", 1)]));
}

/// Garbage in place of an unsynced tail may end a line like a record by chance: torn, not edited, as neither
/// its bytes are text nor what follows is a line.
#[test]
fn garbage_that_ends_like_a_record_is_a_torn_tail() {
    for garbage in [&b"\x96\xe7\"\n\x98\xd3"[..], b"ab\"\n\x98\xd3", b"\x96\xe7\"\n"] {
        let fs = mem();
        let store = open(&fs);
        let map = store.map::<String>("m").unwrap();
        map.set("a", "1".to_owned()).unwrap();
        map.set("b", "a value that reaches into the next sector".to_owned()).unwrap();
        std::mem::forget((store, map));
        let mut torn = bytes(&fs);
        torn.truncate(torn.len() - 10);
        torn.extend_from_slice(garbage);
        let store = try_open(&torn).unwrap();
        assert!(store.stats().cut.is_some());
        assert_eq!(store.map::<String>("m").unwrap().len(), 1);
    }
}

/// A small history with every kind of record; the legal states with where they end.
fn history(close: bool) -> (Vec<u8>, Vec<BTreeMap<String, i64>>) {
    let fs = mem();
    let store = open(&fs);
    let map = store.map::<i64>("m").unwrap();
    let mut states = vec![BTreeMap::new()];
    map.set("a", 1).unwrap();
    states.push(integers(&store, "m"));
    map.set_sync("b c", 22).unwrap();
    states.push(integers(&store, "m"));
    map.delete("a").unwrap();
    states.push(integers(&store, "m"));
    let mut batch = store.batch();
    batch.set(&map, "a", 333).unwrap();
    batch.delete(&map, "b c").unwrap();
    batch.set(&map, "d", 4).unwrap();
    batch.commit_sync().unwrap();
    states.push(integers(&store, "m"));
    map.set("a", 5).unwrap();
    states.push(integers(&store, "m"));
    drop(map);
    if close {
        store.close().unwrap();
    } else {
        std::mem::forget(store);
    }
    (bytes(&fs), states)
}

#[test]
fn no_changed_byte_yields_what_was_never_written() {
    for close in [false, true] {
        let (whole, states) = history(close);
        let last_line = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        let synced = if close { last_line } else { whole.windows(3).position(|w| w == b"\nB=").unwrap() + 1 };
        for at in 0..whole.len() {
            for flip in 1..=255u8 {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let what = || format!("byte {at} of {:?}: {:?}", String::from_utf8_lossy(&whole), changed[at] as char);
                let Ok(store) = try_open(&changed) else { continue };
                assert!(at >= synced, "what was synced changed unnoticed: {}", what());
                let found = integers(&store, "m");
                assert!(states.contains(&found), "{}: {found:?}", what());
                assert!(store.stats().cut.is_some(), "a loss was not reported: {}", what());
                if close {
                    // Only the mark itself: nothing may be missing.
                    assert_eq!(found, *states.last().unwrap(), "{}", what());
                }
            }
        }
    }
}

#[test]
fn no_changed_byte_in_damaged_files_stops_salvage() {
    let (whole, _) = history(true);
    for at in 12..whole.len() {
        for flip in [1, 0x20, 0x7f, 0xff, whole[at] ^ b'\n', whole[at] ^ b' '] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            let fs = mem_with(&changed);
            let salvaged = salvage(path(), &quiet(fs.clone())).unwrap_or_else(|e| panic!("byte {at}: {e}"));
            assert_eq!(fs.image()[&salvaged.original], changed);
            let lost: u64 = salvaged.dropped.iter().map(|d| d.len).sum();
            assert!(lost < 100, "byte {at}: one changed byte cost {lost} bytes");
            let found = integers(&open(&fs), "m");
            let legal = [("a", &[1, 333, 5][..]), ("b c", &[22]), ("d", &[4])];
            assert!(found.iter().all(|(k, v)| legal.iter().any(|(l, vs)| l == k && vs.contains(v))), "byte {at}: {found:?}");
        }
    }
}

#[test]
fn marks_are_believed_only_with_their_checksum() {
    // A torn record, then a mark that claims everything: forged without, and true with a checksum.
    let torn = "S=01234567 m:torn\nnot JSON\n";
    let forged = typed_log(&format!("{torn}M=01234567@ synced\n"));
    assert!(try_open(&forged).unwrap().stats().cut.is_some());
    let crc = crc32c_append(crc32c_append(crc32c(b"M"), b"synced\n"), b"@");
    let token = String::from_utf8(hex8(crc).to_vec()).unwrap();
    let believed = typed_log(&format!("{torn}M={token}@ synced\n"));
    assert!(matches!(refused(&believed), Error::Corrupt { offset: 12, .. }));
    // A key that reads like a mark is a key.
    let in_a_key = typed_log(&format!("S=01234567 m:torn M={token}@ synced\n1 torn\n"));
    assert!(try_open(&in_a_key).unwrap().stats().cut.is_some());
    assert!(try_open(&typed_log("M synced\n")).unwrap().stats().cut.is_some(), "marks are never written by hand");
}

// ---- go-persist ----

fn go_persist(records: &[u8]) -> Vec<u8> {
    [b"go-persist 1\n", records].concat()
}

#[test]
fn a_go_persist_file_opens_with_every_record_and_converts_at_the_first_write() {
    let old = go_persist("S m:a\n1\nS m:b\n2\nD m:b\n\nS m:a\n3\nS own\n\"x\"\nS m:tab\tkey\n4\nS m:c0ffee12 key\n5\nS c0ffee12 own\n6\nS :single\n7\nS \n8\n".as_bytes());
    let fs = mem_with(&old);
    let all = pairs(&[("a", 3), ("tab\tkey", 4), ("c0ffee12 key", 5)]);
    let check = |store: &Store, all: &BTreeMap<String, i64>| {
        assert_eq!(integers(store, "m"), *all);
        assert_eq!(store.get::<String>("own").unwrap().as_deref(), Some("x"));
        assert_eq!(store.get::<i64>("c0ffee12 own").unwrap(), Some(6));
        assert_eq!(integers(store, ""), pairs(&[("single", 7)]));
    };
    let store = open(&fs);
    check(&store, &all);
    store.close().unwrap();
    assert_eq!(bytes(&fs), old, "reading leaves the file to go-persist");
    let store = open(&fs);
    store.map("m").unwrap().set("new", 9i64).unwrap();
    let mut all = all;
    all.insert("new".to_owned(), 9);
    check(&store, &all);
    drop(store);
    assert!(bytes(&fs).starts_with(b"typed-log 1\n"));
    assert!(bytes(&fs).windows(3).any(|w| w == b" \n8"), "a key that our rules refuse is kept all the same");
    check(&open(&fs), &all);
}

#[test]
fn each_way_of_writing_converts() {
    let changes: [fn(&Store) -> Result<()>; 5] = [
        |store| store.shrink(),
        |store| store.set("own", &1),
        |store| store.map::<i64>("m")?.delete("a").map(drop),
        |store| store.map::<i64>("m")?.set_async("new", 1).and_then(|()| store.flush()),
        |store| {
            let mut batch = store.batch();
            batch.set(&store.map("m")?, "new", 1i64)?;
            batch.commit_sync()
        },
    ];
    for change in changes {
        let fs = mem_with(&go_persist(b"S m:a\n1\nS m:b\n2\n"));
        let store = open(&fs);
        change(&store).unwrap();
        let memory = integers(&store, "m");
        drop(store);
        assert!(bytes(&fs).starts_with(b"typed-log 1\n"));
        assert_eq!(integers(&open(&fs), "m"), memory);
    }
}

#[test]
fn a_torn_tail_of_go_persist_is_ignored() {
    for torn in ["S", "S incomplete", "S incomplete\n", "S incomplete\n12", "D m:whole"] {
        let fs = mem_with(&go_persist(format!("S m:whole\n1\n{torn}").as_bytes()));
        for _ in 0..2 {
            assert_eq!(integers(&open(&fs), "m"), pairs(&[("whole", 1)]), "{torn:?}");
        }
        open(&fs).map("m").unwrap().set("after", 2i64).unwrap();
        assert_eq!(integers(&open(&fs), "m"), pairs(&[("whole", 1), ("after", 2)]), "{torn:?}");
    }
}

#[test]
fn garbage_in_the_middle_of_a_go_persist_file_is_an_error() {
    for garbage in ["garbage\n", "X m:x\n1\n", "S m:x\nnot JSON\n", "S m:x\n1S m:glued\n2\n"] {
        let damaged = go_persist(format!("S m:first\n1\n{garbage}S m:later\n3\n").as_bytes());
        let fs = mem_with(&damaged);
        assert!(matches!(Store::open(path(), quiet(fs.clone())), Err(Error::Corrupt { .. })), "{garbage:?}");
        assert_eq!(bytes(&fs), damaged);
        salvage(path(), &quiet(fs.clone())).unwrap();
        let found = integers(&open(&fs), "m");
        assert_eq!((found.get("first"), found.get("later")), (Some(&1), Some(&3)), "{garbage:?}");
    }
}

// ---- Any bytes ----

/// The body that the fuzz target runs, too: nothing panics, and what opens goes on.
fn any_bytes_open_or_not(header: &[u8], records: &[u8]) {
    let fs = mem_with(&[header, records].concat());
    let Ok(store) = Store::open(path(), quiet(fs.clone())) else { return };
    let before = store.map::<serde_json::Value>("m").map(|map| map.iter().collect::<BTreeMap<_, _>>());
    store.set("written after opening", &7).unwrap();
    let cut = store.stats().cut;
    drop(store);
    let store = Store::open(path(), quiet(fs)).unwrap_or_else(|e| panic!("{cut:?}: {e}"));
    assert_eq!(store.stats().cut, None);
    assert_eq!(store.get::<i64>("written after opening").unwrap(), Some(7));
    if let Ok(before) = before {
        assert_eq!(store.map::<serde_json::Value>("m").unwrap().iter().collect::<BTreeMap<_, _>>(), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(records: Vec<u8>, go: bool) {
        any_bytes_open_or_not(if go { b"go-persist 1\n" } else { b"typed-log 1\n" }, &records);
    }

    #[test]
    fn arbitrary_lines_never_panic(
        records in proptest::collection::vec(
            prop_oneof![
                "[SDBM][= ]([0-9a-f]{8}(@[0-9a-f]{0,3})? )?[am:0-9 ]{0,6}",
                "[sd] m:[ab]",
                "[0-9]{1,3}|\"[a-c]*\"|\\{\\}",
                "\\PC{0,8}",
            ],
            0..12,
        ),
        go: bool,
        end: bool,
    ) {
        let text = records.join("\n") + if end { "\n" } else { "" };
        any_bytes_open_or_not(if go { b"go-persist 1\n" } else { b"typed-log 1\n" }, text.as_bytes());
    }

    #[test]
    fn changed_files_never_panic(close: bool, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6)) {
        let mut file = history(close).0.split_off(12);
        for (at, byte, what) in changes {
            let at = at.index(file.len().max(1)).min(file.len());
            match what {
                0 if at < file.len() => file[at] = byte,
                1 if at < file.len() => drop(file.remove(at)),
                _ => file.insert(at, byte),
            }
        }
        any_bytes_open_or_not(b"typed-log 1\n", &file);
    }
}

/// Files that version 1 wrote stay readable, and the documented example is such a file.
#[test]
fn the_golden_file_opens_and_is_the_documented_one() {
    let golden = include_str!("../golden/typed-log-1.db");
    assert!(include_str!("../../../docs/typed_log.md").contains(golden), "docs/typed_log.md shows another example");
    let store = try_open(golden.as_bytes()).unwrap();
    assert_eq!(integers(&store, "balances"), pairs(&[("alice", 5)]));
    assert_eq!(store.get::<String>("greeting").unwrap().as_deref(), Some("hello"));
    assert_eq!(store.stats().cut, None);
}
