//! The log beneath all stores: framings, the damage rule, group commit, and what faults leave.

use crate::support::{mem, path};
use engine::fs::{CallKind, FailingFs, Fault, File, FileLayer, Fs, MemFs, Plan, write_all_at};
use engine::log::{
    Framing, Header, Log, LogReader, MAX_RECORD, Mode, Parsed, Replayed, create_segment, identify, replay, segment_name,
    segment_number,
};
use engine::{Error, Result};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

const FRAMINGS: [(Framing, Header); 2] = [(Framing::Binary, Header::Wal), (Framing::Text, Header::TypedLog)];

type Records = Vec<(u8, Vec<u8>)>;

fn file_with(records: &[u8]) -> Arc<dyn File> {
    let file = mem().create(path()).unwrap();
    write_all_at(&*file, records, 0).unwrap();
    file
}

fn read_all(framing: Framing, records: &[u8], mode: Mode) -> Result<(Replayed, Records)> {
    let mut seen = Records::new();
    let file = file_with(records);
    let found = replay(&*file, path(), framing, 0..records.len() as u64, mode, |_, kind, body| {
        seen.push((kind, body.to_vec()));
        Ok(())
    })?;
    Ok((found, seen))
}

/// A body that either framing takes, as kind S.
fn body(n: u32) -> Vec<u8> {
    format!("m:key{n}\n{n}\n").into_bytes()
}

fn encode(framing: Framing, kind: u8, body: &[u8], mark: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    framing.encode(&mut out, kind, body, Framing::checksum(kind, body), mark);
    out
}

proptest! {
    #[test]
    fn binary_records_come_back(records in proptest::collection::vec((any::<u8>(), any::<Vec<u8>>(), any::<Option<u64>>()), 0..20)) {
        let mut bytes = Vec::new();
        for (kind, body, mark) in &records {
            // One less than the largest distance is the largest that can be told.
            let mark = mark.map(|m| m.min(u64::MAX - 1));
            let one = encode(Framing::Binary, *kind, body, mark);
            match Framing::Binary.parse(&one) {
                Parsed::Record(frame) => {
                    prop_assert_eq!((frame.kind, &one[frame.body.clone()], frame.mark, frame.len), (*kind, &body[..], mark, one.len()));
                }
                other => prop_assert!(false, "{:?}", other),
            }
            bytes.extend(one);
        }
        let seen = read_all(Framing::Binary, &bytes, Mode::Strict).unwrap().1;
        prop_assert_eq!(seen, records.into_iter().map(|(kind, body, _)| (kind, body)).collect::<Records>());
    }

    #[test]
    fn text_records_come_back(records in proptest::collection::vec(("\\PC*", any::<Option<String>>(), any::<Option<u64>>()), 0..20)) {
        let (mut bytes, mut expected) = (Vec::new(), Records::new());
        for (key, value, mark) in &records {
            let (kind, body) = match value {
                Some(value) => (b'S', format!("{key}\n{}\n", serde_json::to_string(value).unwrap())),
                None => (b'D', format!("{key}\n")),
            };
            let one = encode(Framing::Text, kind, body.as_bytes(), *mark);
            match Framing::Text.parse(&one) {
                Parsed::Record(frame) => {
                    prop_assert_eq!((frame.kind, &one[frame.body.clone()], frame.mark, frame.len), (kind, body.as_bytes(), *mark, one.len()));
                    prop_assert!(frame.checked);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            bytes.extend(one);
            expected.push((kind, body.into_bytes()));
        }
        prop_assert_eq!(read_all(Framing::Text, &bytes, Mode::Strict).unwrap().1, expected);
    }

    /// The body that the fuzz target runs, too.
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text: bool) {
        let framing = if text { Framing::Text } else { Framing::Binary };
        if let Ok((found, seen)) = read_all(framing, &bytes, Mode::Strict) {
            let kept = found.end as usize;
            let (again, seen_again) = read_all(framing, &bytes[..kept], Mode::Strict).unwrap();
            prop_assert_eq!((again.cut, seen_again), (None, seen));
        }
        read_all(framing, &bytes, Mode::Salvage).unwrap();
    }
}

#[test]
fn every_truncation_keeps_the_whole_records() {
    for (framing, _) in FRAMINGS {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for n in 0..6 {
            // Marks must not turn a truncation into rot.
            bytes.extend(encode(framing, b'S', &body(n), (n % 2 == 0).then_some(bytes.len() as u64 / 2)));
            ends.push(bytes.len());
        }
        for length in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            let (found, seen) = read_all(framing, &bytes[..length], Mode::Strict).unwrap();
            assert_eq!(seen, (0..whole as u32).map(|n| (b'S', body(n))).collect::<Records>(), "{framing:?}, {length} bytes");
            assert_eq!((found.end, found.records), (ends[whole] as u64, whole as u64));
            match found.cut {
                None => assert_eq!(length, ends[whole]),
                Some(cut) => assert_eq!((cut.offset, cut.len), (ends[whole] as u64, (length - ends[whole]) as u64)),
            }
        }
    }
}

#[test]
fn damage_below_the_highest_mark_is_an_error_and_above_it_a_cut() {
    for (framing, _) in FRAMINGS {
        let lengths: Vec<u64> = (0..6).map(|n| encode(framing, b'S', &body(n), None).len() as u64).collect();
        // The fifth record says that the first three were synced.
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for n in 0..6 {
            starts.push(bytes.len());
            bytes.extend(encode(framing, b'S', &body(n), (n == 4).then(|| lengths[3])));
        }
        assert_eq!(read_all(framing, &bytes, Mode::Strict).unwrap().0.synced, starts[3] as u64);
        for (n, start) in starts.iter().enumerate() {
            let mut damaged = bytes.clone();
            // A control character inside the body is damage in both framings, and nobody's edit.
            let at = bytes.windows(4).enumerate().filter(|(_, w)| w == b"m:ke").nth(n).unwrap().0;
            damaged[at + 1] = 0;
            let outcome = read_all(framing, &damaged, Mode::Strict);
            if n < 3 {
                match outcome {
                    Err(Error::Corrupt { offset, .. }) => assert_eq!(offset, *start as u64),
                    other => panic!("{framing:?}, record {n}: {other:?}"),
                }
            } else {
                let (found, seen) = outcome.unwrap();
                assert_eq!((found.cut.unwrap().offset, seen.len()), (*start as u64, n), "{framing:?}");
            }
            // Salvage keeps all the others.
            let (found, seen) = read_all(framing, &damaged, Mode::Salvage).unwrap();
            assert_eq!((seen.len(), found.dropped.len()), (5, 1), "{framing:?}, record {n}");
        }
    }
}

#[test]
fn a_reader_of_a_whole_log_refuses_anything_else() {
    for (framing, _) in FRAMINGS {
        let bytes = [encode(framing, b'S', &body(1), None), encode(framing, b'S', &body(2), None)].concat();
        for length in [bytes.len(), bytes.len() - 1] {
            let file = file_with(&bytes[..length]);
            let mut reader = LogReader::new(&*file, path(), framing, 0, length as u64);
            let (offset, frame, seen) = reader.next_record().unwrap().unwrap();
            assert_eq!((offset, frame.kind, seen.to_vec()), (0, b'S', body(1)));
            let second = reader.next_record().map(|r| r.map(|(_, _, b)| b.to_vec()));
            if length == bytes.len() {
                assert_eq!(second.unwrap(), Some(body(2)));
                assert!(reader.next_record().unwrap().is_none());
            } else {
                assert!(matches!(second, Err(Error::Corrupt { .. })));
            }
        }
    }
}

fn new_log(fs: &dyn Fs, framing: (Framing, Header)) -> Log {
    let file = create_segment(fs, path(), framing.1, b"", 0).unwrap();
    assert_eq!(identify(&*file, path()).unwrap(), Some(framing.1));
    let end = framing.1.line().len() as u64;
    Log::new(path(), framing.0, file, end, end)
}

fn contents(fs: &MemFs, framing: (Framing, Header)) -> (Replayed, Records) {
    let bytes = &fs.image()[path()];
    let (mut seen, start) = (Records::new(), framing.1.line().len() as u64);
    let file = fs.open(path()).unwrap();
    let found = replay(&*file, path(), framing.0, start..bytes.len() as u64, Mode::Strict, |_, kind, body| {
        seen.push((kind, body.to_vec()));
        Ok(())
    });
    (found.unwrap(), seen)
}

#[test]
fn what_is_submitted_is_written_in_order_by_one_call() {
    for framing in FRAMINGS {
        let fs = mem();
        let log = new_log(&fs, framing);
        let tickets: Vec<_> = (0..5).map(|n| log.submit(b'S', &body(n)).unwrap()).collect();
        assert!(contents(&fs, framing).1.is_empty(), "submitting writes nothing");
        let mut tickets = tickets.into_iter().rev();
        let end = log.wait_written(tickets.next().unwrap()).unwrap();
        assert_eq!((log.written_through(), log.stats().writes, log.stats().records), (end, 1, 5));
        assert!(tickets.all(|t| log.wait_written(t).is_ok()));
        assert!(log.synced_through() < end);
        log.wait_synced(end).unwrap();
        assert_eq!((log.synced_through(), log.stats().syncs), (end, 1));
        log.wait_synced(end).unwrap();
        log.sync_step().unwrap();
        assert_eq!(log.stats().syncs, 1, "what is synced is not synced again");
        assert_eq!(contents(&fs, framing).1, (0..5).map(|n| (b'S', body(n))).collect::<Records>());
    }
}

#[test]
fn submitting_nothing_waits_for_nothing() {
    let log = new_log(&mem(), FRAMINGS[0]);
    let ticket = log.submit_all([]).unwrap();
    let position = log.wait_written(ticket).unwrap();
    log.wait_synced(position).unwrap();
    log.check().unwrap();
}

#[test]
fn a_record_that_could_not_be_read_is_not_written() {
    let fs = mem();
    let log = new_log(&fs, FRAMINGS[0]);
    // Zeroed memory that is never touched.
    let huge = vec![0; MAX_RECORD];
    assert!(matches!(log.submit(b'S', &huge), Err(Error::Io { .. })));
    assert!(matches!(log.submit_all([(b'S', &b"x"[..]), (b'S', &huge)]), Err(Error::Io { .. })));
    log.commit_step().unwrap();
    assert!(contents(&fs, FRAMINGS[0]).1.is_empty(), "records with one fate were separated");
}

#[test]
fn records_of_many_threads_lie_in_the_order_of_their_tickets() {
    for framing in FRAMINGS {
        let fs = mem();
        let log = new_log(&fs, framing);
        let acknowledged = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for t in 0..4u32 {
                let (log, acknowledged) = (&log, &acknowledged);
                scope.spawn(move || {
                    for i in 0..100 {
                        let ticket = log.submit(b'S', &body(t * 1000 + i)).unwrap();
                        let position = log.wait_written(ticket).unwrap();
                        if i % 3 == 0 {
                            log.wait_synced(position).unwrap();
                            assert!(log.synced_through() >= position);
                        }
                        assert_eq!(acknowledged.lock().unwrap().insert(position, (b'S', body(t * 1000 + i))), None);
                    }
                });
            }
        });
        let in_order: Records = acknowledged.into_inner().unwrap().into_values().collect();
        assert_eq!(contents(&fs, framing).1, in_order);
        let stats = log.stats();
        assert!(stats.writes <= 400 && stats.syncs <= 136 && stats.len == fs.image()[path()].len() as u64);
    }
}

#[test]
fn marks_tell_what_was_synced() {
    for framing in FRAMINGS {
        let fs = mem();
        let log = new_log(&fs, framing);
        let mut synced = 0;
        for n in 0..10 {
            let ticket = log.submit(b'S', &body(n)).unwrap();
            let position = log.wait_written(ticket).unwrap();
            assert_eq!(contents(&fs, framing).0.synced, synced, "{framing:?} record {n}");
            if n % 3 == 0 {
                log.wait_synced(position).unwrap();
                assert!(log.mark_is_due());
                synced = position;
            }
        }
    }
}

/// Positions go on growing when a group is lost to a full disk; marks must tell of the file.
#[test]
fn marks_after_a_full_disk_cover_all_that_was_synced() {
    for framing in FRAMINGS {
        let mem = mem();
        let fs = FailingFs::new(Arc::new(mem.clone()));
        let log = new_log(&fs, framing);
        let ticket = log.submit(b'S', &body(0)).unwrap();
        let position = log.wait_written(ticket).unwrap();
        log.wait_synced(position).unwrap();
        fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Enospc });
        let ticket = log.submit(b'S', &body(1)).unwrap();
        assert!(matches!(log.wait_written(ticket), Err(Error::Full { .. })));
        let before = mem.image()[path()].len() as u64;
        let ticket = log.submit(b'S', &body(2)).unwrap();
        log.wait_written(ticket).unwrap();
        assert_eq!(contents(&mem, framing).0.synced, before, "{framing:?}");
    }
}

#[test]
fn a_full_disk_cuts_back_and_goes_on() {
    for framing in FRAMINGS {
        for fault in (1..30).map(Fault::Short).chain([Fault::Enospc]) {
            for skip in 0..4 {
                let mem = mem();
                let fs = FailingFs::new(Arc::new(mem.clone()));
                let log = new_log(&fs, framing);
                fs.arm(Plan { kind: CallKind::Write, skip, times: 1, fault });
                let mut expected = Records::new();
                for n in 0..6 {
                    let before = mem.image()[path()].clone();
                    let ticket = log.submit(b'S', &body(n)).unwrap();
                    match log.wait_written(ticket) {
                        Ok(_) => expected.push((b'S', body(n))),
                        Err(Error::Full { .. }) => assert_eq!(mem.image()[path()], before, "{fault:?}"),
                        Err(e) => panic!("{e}"),
                    }
                }
                assert_eq!(expected.len(), 5, "{fault:?} at write {skip}");
                assert_eq!(contents(&mem, framing).1, expected);
            }
        }
    }
}

#[test]
fn room_is_made_in_steps_and_never_read() {
    let framing = FRAMINGS[0];
    // Without a fault, with one of the lengthening itself, and with writes that find the device full.
    let faults = [None, Some((CallKind::SetLen, Fault::Eio)), Some((CallKind::Write, Fault::Enospc))];
    for fault in faults {
        let mem = mem();
        let fs = FailingFs::new(Arc::new(mem.clone()));
        let log = new_log(&fs, framing).with_room(0, 200);
        if let Some((kind, fault)) = fault {
            fs.arm(Plan { kind, skip: 2, times: 2, fault });
        }
        let (mut expected, mut lengths) = (Records::new(), BTreeSet::new());
        for n in 0..100 {
            match log.append(b'S', &body(n)) {
                Ok(written) => {
                    expected.push((b'S', body(n)));
                    let len = mem.image()[path()].len() as u64;
                    assert!((written.end..=written.end + 200).contains(&len), "{fault:?}: {len} of {}", written.end);
                    lengths.insert(len);
                }
                Err(e) => assert!(matches!(e, Error::Full { .. }) && matches!(fault, Some((CallKind::Write, _))), "{e}"),
            }
            let (found, seen) = contents(&mem, framing);
            assert_eq!((found.end, found.cut, &seen), (log.stats().len, None, &expected), "{fault:?}");
        }
        assert!(expected.len() >= 98 && lengths.len() < 20, "{fault:?}: {} records, {lengths:?}", expected.len());
    }
}

#[test]
fn room_ends_where_it_must_and_records_need_not() {
    let mem = mem();
    let log = new_log(&mem, FRAMINGS[0]).with_room(0, 200).at_most(300);
    let mut lengths = BTreeSet::new();
    for n in 0..30 {
        let written = log.append(b'S', &body(n)).unwrap();
        let len = mem.image()[path()].len() as u64;
        assert!(len <= written.end.max(300), "{len} of {}", written.end);
        lengths.insert(len);
    }
    assert!(lengths.contains(&300) && lengths.last() > Some(&400), "{lengths:?}");
}

/// A file of which its file system says how far it was written, and to which its writer, in another process, may append
/// after the first look at its records.
#[derive(Debug)]
struct Shared {
    file: Arc<dyn File>,
    written: usize,
    appends: Mutex<Option<Log>>,
}

impl FileLayer for Shared {
    fn below(&self) -> &dyn File {
        &*self.file
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let got = self.file.read_at(buf, offset)?;
        if let Some(log) = self.appends.lock().unwrap().take() {
            // Synced, and the last record says so, behind the page to which the file was written.
            log.append(b'S', b"small").unwrap();
            log.append(b'S', &[7; PAGE]).unwrap();
            log.sync_step().unwrap();
            log.append(b'S', b"last").unwrap();
        }
        Ok(got)
    }

    fn written_len(&self) -> std::io::Result<u64> {
        Ok(self.written as u64)
    }
}

const PAGE: usize = 4096;

/// What was read as room, and has been written, synced and vouched for since, is no rot.
#[test]
fn a_log_that_grows_while_it_is_read_is_not_taken_for_rot() {
    let mebibyte = 1 << 20;
    // The first record, the room, and how far the file is written: room behind the page; more of it to come; and what the
    // reader reads at once ending in between.
    for (first, room, written) in [(5, 4 * PAGE, PAGE), (5, PAGE, PAGE), (mebibyte - PAGE, 2 * mebibyte, 2 * mebibyte)] {
        // What stood behind the record when it was read: nothing, or the first bytes of one that is on its way.
        for torn in [0, 3] {
            let record = encode(Framing::Binary, b'S', &vec![7; first], None);
            let file = file_with(&record);
            file.set_len(room as u64).unwrap();
            file.write_at(&[1; 3][..torn], record.len() as u64).unwrap();
            let log = Log::new(path(), Framing::Binary, Arc::clone(&file), 0, record.len() as u64);
            let log = log.with_room(room as u64, 4 * PAGE as u64);
            let busy = Shared { file, written, appends: Mutex::new(Some(log)) };
            let mut seen = Vec::new();
            let mut read = |file: &dyn File, from| {
                let to = file.len().unwrap();
                let found = replay(file, path(), Framing::Binary, from..to, Mode::Strict, |_, _, body| {
                    seen.push(body.len());
                    Ok(())
                });
                found.unwrap().end
            };
            let end = read(&busy, 0);
            // Whatever was not seen is seen next time.
            read(&*busy.file, end);
            assert_eq!(seen, [first, 5, PAGE, 4], "{torn} bytes, {room} of room");
        }
    }
}

#[test]
fn a_record_that_ends_in_a_hole_is_read_whole() {
    let first = encode(Framing::Binary, b'S', b"first", None);
    let last = encode(Framing::Binary, b'S', &[&b"last"[..], &[0; 100]].concat(), None);
    let (ends, all) = (first.len() + last.len(), [&first[..], &last, &[0; 50]].concat());
    // As a copy that leaves zeros out makes it.
    for written in [ends - 100, ends - 1, ends, all.len()] {
        let file = Shared { file: file_with(&all), written, appends: Mutex::new(None) };
        let mut seen = Vec::new();
        let found = replay(&file, path(), Framing::Binary, 0..all.len() as u64, Mode::Strict, |_, _, body| {
            seen.push(body.len());
            Ok(())
        });
        assert_eq!(
            (seen, found.map(|found| (found.end, found.cut)).ok()),
            (vec![5, 104], Some((ends as u64, None))),
            "{written}"
        );
    }
}

/// What an earlier process left unsynced may be on no device, however clean its pages are. A cut behind a full disk
/// syncs it, and may say so only if it was written once more.
#[test]
fn a_cut_vouches_for_what_an_earlier_process_left_only_if_that_was_written_again() {
    for (failures, vouches) in [(1, true), (2, false)] {
        let fs = FailingFs::new(Arc::new(mem()));
        let (framing, header) = FRAMINGS[0];
        let left = encode(framing, b'S', &body(0), None);
        let file = create_segment(&fs, path(), header, &left, 0).unwrap();
        let start = header.line().len() as u64;
        let log = Log::new(path(), framing, file, start, start + left.len() as u64);
        fs.arm(Plan { kind: CallKind::Write, skip: 0, times: failures, fault: Fault::Enospc });
        assert!(matches!(log.append(b'S', &body(1)), Err(Error::Full { .. })));
        assert_eq!(log.synced_through() > start, vouches, "{failures} writes that find no room");
        log.append(b'S', &body(2)).unwrap();
        log.sync_step().unwrap();
        assert_eq!(log.synced_through(), log.written_through());
    }
}

#[test]
fn a_cut_that_fails_poisons() {
    for kind in [CallKind::SetLen, CallKind::Sync] {
        let inner = mem();
        let short = FailingFs::new(Arc::new(inner.clone()));
        // One plan each: the write that does not fit, and the repair that fails.
        let outer = FailingFs::new(Arc::new(short.clone()));
        let log = new_log(&outer, FRAMINGS[0]);
        short.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Short(3) });
        outer.arm(Plan { kind, skip: 0, times: 1, fault: Fault::Eio });
        let ticket = log.submit(b'S', &body(0)).unwrap();
        assert!(matches!(log.wait_written(ticket), Err(Error::Poisoned { op: "cut", .. })), "{kind:?}");
        assert!(matches!(log.submit(b'S', &body(1)), Err(Error::Poisoned { .. })));
    }
}

#[test]
fn a_failed_write_or_sync_poisons() {
    for framing in FRAMINGS {
        let inner = mem();
        let fs = FailingFs::new(Arc::new(inner.clone()));
        let log = new_log(&fs, framing);
        let first = log.submit(b'S', &body(0)).unwrap();
        let position = log.wait_written(first).unwrap();
        fs.arm(Plan { kind: CallKind::Sync, skip: 0, times: 1, fault: Fault::Eio });
        let later = log.submit(b'S', &body(1)).unwrap();
        assert!(matches!(log.wait_synced(position), Err(Error::Poisoned { op: "sync", .. })));
        // The device would now say yes; nobody may believe it.
        assert!(log.wait_synced(position).is_err() && log.sync_step().is_err());
        assert!(log.wait_written(later).is_err(), "acknowledged after the poisoning");
        assert!(log.submit(b'S', &body(2)).is_err() && log.submit_all([]).is_err() && log.check().is_err());
        assert_eq!(contents(&inner, framing).1, [(b'S', body(0))]);

        let fs = FailingFs::new(Arc::new(mem()));
        let log = new_log(&fs, framing);
        fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Eio });
        let ticket = log.submit(b'S', &body(0)).unwrap();
        assert!(matches!(log.wait_written(ticket), Err(Error::Poisoned { op: "write", .. })));
        assert!(log.submit(b'S', &body(1)).is_err());
    }
}

#[test]
fn every_waiter_of_a_failed_sync_hears_of_it() {
    let fs = FailingFs::new(Arc::new(mem()));
    let log = new_log(&fs, FRAMINGS[0]);
    fs.arm(Plan { kind: CallKind::Sync, skip: 3, times: 1, fault: Fault::Eio });
    let poisoned = std::thread::scope(|scope| {
        let work = |t: u32| {
            let log = &log;
            move || {
                (0..50).any(|i| {
                    let outcome = log.submit(b'S', &body(t * 100 + i)).and_then(|ticket| log.wait_written(ticket));
                    outcome.and_then(|position| log.wait_synced(position)).is_err()
                })
            }
        };
        let threads: Vec<_> = (0..4).map(|t| scope.spawn(work(t))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(poisoned, [true; 4]);
}

#[test]
fn segments_have_names_that_sort_as_their_numbers() {
    for n in [0, 1, 9, 10, 4_294_967_296, 9_999_999_999] {
        assert_eq!(segment_number(&segment_name(n)), Some(n));
        assert!(n == 0 || segment_name(n - 1) < segment_name(n));
    }
    for name in
        ["", ".log", "1.log", "00000000001.log", "000000000x.log", "0000000001.LOG", "0000000001.log.new", "+000000001.log"]
    {
        assert_eq!(segment_number(name), None, "{name:?}");
    }
}
