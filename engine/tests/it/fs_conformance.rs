//! One body of checks for every file system: what a store may rely on holds in memory as on disk.

use crate::support::{Image, Replay};
use engine::fs::{CallKind, FailingFs, Fault, Fs, FsOp, LockOutcome, MemFs, Plan, RealFs, TraceFs, read_full_at, write_all_at};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

fn content(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let file = fs.open(path).unwrap();
    let mut all = vec![0; file.len().unwrap() as usize];
    assert_eq!(read_full_at(&*file, &mut all, 0).unwrap(), all.len());
    all
}

fn conforms(fs: &dyn Fs, root: &Path) {
    files_read_what_was_written(fs, root);
    what_was_written_ends_behind_the_last_write(fs, root);
    a_renamed_or_removed_file_stays_readable(fs, root);
    a_linked_file_has_two_names(fs, root);
    directories_list_their_names(fs, root);
    errors_have_the_same_kinds(fs, root);
    a_lock_is_exclusive_until_dropped(fs, root);
}

fn files_read_what_was_written(fs: &dyn Fs, root: &Path) {
    let path = root.join("bytes");
    let file = fs.create(&path).unwrap();
    assert_eq!((file.len().unwrap(), file.is_empty_now()), (0, true));
    assert_eq!(file.write_at(b"hello", 0).unwrap(), 5);
    // A gap reads as zeros.
    write_all_at(&*file, b"end", 8).unwrap();
    assert_eq!(content(fs, &path), b"hello\0\0\0end");
    // Nothing written past the end leaves the length alone.
    assert_eq!(file.write_at(b"", 100).unwrap(), 0);
    assert_eq!(file.len().unwrap(), 11);
    let mut buf = [9; 8];
    assert_eq!(file.read_at(&mut buf, 8).unwrap(), 3);
    assert_eq!(&buf[..3], b"end");
    assert_eq!(file.read_at(&mut buf, 11).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
    file.set_len(4).unwrap();
    assert_eq!(content(fs, &path), b"hell");
    // What was cut does not come back when the file grows again.
    file.set_len(6).unwrap();
    assert_eq!(content(fs, &path), b"hell\0\0");
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    // What is on its way to the device is read and written as ever.
    for range in [0..6, 2..6, 3..3, 0..1 << 20] {
        file.write_back(range).unwrap();
        file.write_at(b"H", 0).unwrap();
        assert_eq!(content(fs, &path), b"Hell\0\0");
    }
    // Creating over a file empties it for the handles that are open, too.
    fs.create(&path).unwrap();
    assert_eq!(file.len().unwrap(), 0);
}

fn what_was_written_ends_behind_the_last_write(fs: &dyn Fs, root: &Path) {
    let file = fs.create(&root.join("room")).unwrap();
    file.set_len(1 << 20).unwrap();
    let mut last = 0;
    for at in [5, 300_000, 700_001, 9_000] {
        file.write_at(b"x", at).unwrap();
        last = last.max(at);
        // Later is right too, earlier would hide something.
        assert!((last + 1..=1 << 20).contains(&file.written_len().unwrap()), "written before a sync");
        file.sync_all().unwrap();
        assert!((last + 1..=1 << 20).contains(&file.written_len().unwrap()), "written and synced");
    }
}

fn a_renamed_or_removed_file_stays_readable(fs: &dyn Fs, root: &Path) {
    let (old, new) = (root.join("target"), root.join("source"));
    write_all_at(&*fs.create(&old).unwrap(), b"old", 0).unwrap();
    write_all_at(&*fs.create(&new).unwrap(), b"newer", 0).unwrap();
    let (before, moved) = (fs.open(&old).unwrap(), fs.open(&new).unwrap());
    fs.rename(&new, &old).unwrap();
    assert_eq!(content(fs, &old), b"newer");
    assert_eq!(kind(fs.open(&new)), Some(ErrorKind::NotFound));
    let mut buf = [0; 8];
    assert_eq!(before.read_at(&mut buf, 0).unwrap(), 3);
    write_all_at(&*moved, b"NEW", 0).unwrap();
    assert_eq!(content(fs, &old), b"NEWer");
    fs.remove(&old).unwrap();
    assert_eq!(kind(fs.open(&old)), Some(ErrorKind::NotFound));
    write_all_at(&*moved, b"!", 5).unwrap();
    assert_eq!(moved.len().unwrap(), 6);
}

fn a_linked_file_has_two_names(fs: &dyn Fs, root: &Path) {
    let (one, two) = (root.join("one"), root.join("two"));
    let file = fs.create(&one).unwrap();
    fs.link(&one, &two).unwrap();
    write_all_at(&*file, b"both", 0).unwrap();
    assert_eq!(content(fs, &two), b"both");
    assert_eq!(kind(fs.link(&one, &two)), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(fs.link(&root.join("nothing"), &root.join("three"))), Some(ErrorKind::NotFound));
    fs.remove(&one).unwrap();
    assert_eq!(content(fs, &two), b"both");
    fs.remove(&two).unwrap();
}

fn directories_list_their_names(fs: &dyn Fs, root: &Path) {
    let dir = root.join("a/b");
    fs.create_dir_all(&dir).unwrap();
    fs.create_dir_all(&dir).unwrap();
    for name in ["z", "a", "m"] {
        fs.create(&dir.join(name)).unwrap();
    }
    fs.create_dir_all(&dir.join("k/deeper")).unwrap();
    assert_eq!(fs.list(&dir).unwrap(), ["a", "k", "m", "z"]);
    fs.rename(&dir.join("z"), &dir.join("b")).unwrap();
    fs.remove(&dir.join("m")).unwrap();
    assert_eq!(fs.list(&dir).unwrap(), ["a", "b", "k"]);
    fs.sync_dir(&dir).unwrap();
}

fn errors_have_the_same_kinds(fs: &dyn Fs, root: &Path) {
    let (missing, dir, file) = (root.join("missing"), root.join("directory"), root.join("plain"));
    fs.create_dir_all(&dir).unwrap();
    fs.create(&file).unwrap();
    assert_eq!(kind(fs.open(&missing)), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.remove(&missing)), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.rename(&missing, &root.join("x"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.rename(&file, &missing.join("x"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.create(&missing.join("x"))), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.list(&missing)), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.sync_dir(&missing)), Some(ErrorKind::NotFound));
    assert_eq!(kind(fs.open(&dir)), Some(ErrorKind::IsADirectory));
    assert_eq!(kind(fs.create(&dir)), Some(ErrorKind::IsADirectory));
    assert_eq!(kind(fs.remove(&dir)), Some(ErrorKind::IsADirectory));
    assert_eq!(kind(fs.rename(&file, &dir)), Some(ErrorKind::IsADirectory));
    // A call that failed changed nothing.
    assert_eq!(content(fs, &file), b"");
}

fn a_lock_is_exclusive_until_dropped(fs: &dyn Fs, root: &Path) {
    let path = root.join("lock");
    let LockOutcome::Held(held) = fs.lock(&path).unwrap() else { panic!("nobody else has the lock") };
    match fs.lock(&path).unwrap() {
        LockOutcome::Busy { pid } => assert_eq!(pid, Some(std::process::id())),
        LockOutcome::Held(_) => panic!("two holders of one lock"),
    }
    drop(held);
    assert!(matches!(fs.lock(&path).unwrap(), LockOutcome::Held(_)));
    assert!(matches!(fs.lock(&path).unwrap(), LockOutcome::Held(_)), "a dropped lock was not released");
    assert_eq!(kind(fs.lock(&root.join("missing/lock"))), Some(ErrorKind::NotFound));
}

/// `len() == 0`, asked of a handle.
trait IsEmptyNow {
    fn is_empty_now(&self) -> bool;
}

impl IsEmptyNow for Arc<dyn engine::fs::File> {
    fn is_empty_now(&self) -> bool {
        self.len().unwrap() == 0
    }
}

fn mem() -> (MemFs, PathBuf) {
    let fs = MemFs::new();
    let root = PathBuf::from("/root");
    fs.create_dir_all(&root).unwrap();
    (fs, root)
}

#[test]
fn the_operating_system_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&RealFs, dir.path());
}

#[test]
fn memory_conforms() {
    let (fs, root) = mem();
    conforms(&fs, &root);
}

#[test]
fn wrappers_that_are_told_nothing_conform() {
    let (fs, root) = mem();
    conforms(&TraceFs::new(Arc::new(fs)), &root);
    let (fs, root) = mem();
    conforms(&FailingFs::new(Arc::new(fs)), &root);
    let (fs, root) = mem();
    conforms(&TraceFs::new(Arc::new(FailingFs::new(Arc::new(fs)))), &root);
}

#[test]
fn an_image_comes_back() {
    let (fs, root) = mem();
    write_all_at(&*fs.create(&root.join("x")).unwrap(), b"x", 0).unwrap();
    let image = fs.image();
    let copy = MemFs::from_image(&image);
    assert_eq!(copy.image(), image);
    write_all_at(&*copy.create(&root.join("y")).unwrap(), b"y", 0).unwrap();
    assert_eq!(fs.image(), image, "a copy shares nothing with its origin");
}

#[test]
fn a_trace_holds_calls_bytes_and_notes_in_order() {
    let (fs, root) = mem();
    let fs = TraceFs::new(Arc::new(fs));
    let path = root.join("x");
    let file = fs.create(&path).unwrap();
    fs.recorder().note("before");
    file.write_at(b"abc", 7).unwrap();
    file.sync_data().unwrap();
    file.set_len(8).unwrap();
    file.sync_all().unwrap();
    let again = fs.open(&path).unwrap();
    fs.rename(&path, &root.join("y")).unwrap();
    again.write_at(b"d", 0).unwrap();
    fs.sync_dir(&root).unwrap();
    assert!(fs.remove(&path).is_err());
    let entries = fs.recorder().entries();
    let (from, to) = (path.clone(), root.join("y"));
    let expected = [
        FsOp::Create { path: path.clone(), inode: 0 },
        FsOp::Note { text: "before".to_owned() },
        FsOp::Write { inode: 0, offset: 7, bytes: b"abc".to_vec() },
        FsOp::SyncData { inode: 0 },
        FsOp::SetLen { inode: 0, len: 8 },
        FsOp::SyncAll { inode: 0 },
        FsOp::Open { path: path.clone(), inode: 0 },
        FsOp::Rename { from, to },
        FsOp::Write { inode: 0, offset: 0, bytes: b"d".to_vec() },
        FsOp::SyncDir { dir: root.clone() },
        FsOp::Remove { path },
    ];
    assert_eq!(entries.iter().map(|e| e.op.clone()).collect::<Vec<_>>(), expected);
    let times: Vec<u64> = entries.iter().flat_map(|e| [e.begun, e.ended.unwrap()]).collect();
    assert_eq!(times, (0..22).collect::<Vec<_>>(), "one thread's calls follow each other");
    assert_eq!(entries.iter().map(|e| e.ok).collect::<Vec<_>>(), [[true; 10].as_slice(), &[false]].concat());
}

/// Nothing depends on bytes being on their way to the device, but what fails there is a sync that failed.
#[test]
fn what_is_sent_to_the_device_is_in_a_trace_only_when_it_fails() {
    let (fs, root) = mem();
    let failing = FailingFs::new(Arc::new(fs));
    let fs = TraceFs::new(Arc::new(failing.clone()));
    let file = fs.create(&root.join("x")).unwrap();
    failing.arm(Plan { kind: CallKind::Sync, skip: 1, times: 1, fault: Fault::Eio });
    assert_eq!([0..1, 1..2, 2..3].map(|range| file.write_back(range).is_ok()), [true, false, true]);
    let seen: Vec<_> = fs.recorder().entries().into_iter().skip(1).map(|e| (e.op, e.ok)).collect();
    assert_eq!(seen, [(FsOp::SyncData { inode: 0 }, false)]);
}

#[test]
fn a_replayed_trace_gives_the_same_files() {
    let (inner, root) = mem();
    let fs = TraceFs::new(Arc::new(inner.clone()));
    let a = fs.create(&root.join("a")).unwrap();
    write_all_at(&*a, b"first", 0).unwrap();
    let b = fs.create(&root.join("b")).unwrap();
    write_all_at(&*b, b"second", 3).unwrap();
    fs.rename(&root.join("b"), &root.join("a")).unwrap();
    write_all_at(&*a, b"to nobody", 0).unwrap();
    write_all_at(&*b, b"!", 20).unwrap();
    // A name that is used again is another file.
    write_all_at(&*fs.create(&root.join("b")).unwrap(), b"third", 0).unwrap();
    fs.create(&root.join("a")).unwrap().write_at(b"emptied first", 0).unwrap();
    fs.create(&root.join("gone")).unwrap();
    fs.remove(&root.join("gone")).unwrap();
    let mut replay = Replay::onto(&Image::new());
    replay.fs.create_dir_all(&root).unwrap();
    fs.recorder().entries().iter().for_each(|e| replay.apply(e));
    assert_eq!(replay.fs.image(), inner.image());
}

#[test]
fn a_trace_of_many_threads_has_one_total_order() {
    let (inner, root) = mem();
    let fs = TraceFs::new(Arc::new(inner));
    let file = fs.create(&root.join("x")).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            let (file, recorder) = (Arc::clone(&file), fs.recorder().clone());
            scope.spawn(move || {
                for i in 0..50 {
                    file.write_at(&[t as u8], t * 50 + i).unwrap();
                    recorder.note("acknowledged");
                }
            });
        }
    });
    let entries = fs.recorder().entries();
    let mut times: Vec<u64> = entries.iter().flat_map(|e| [e.begun, e.ended.unwrap()]).collect();
    assert!(entries.iter().all(|e| e.begun < e.ended.unwrap()));
    times.sort_unstable();
    assert_eq!(times, (0..times.len() as u64).collect::<Vec<_>>(), "no position is given twice");
}

#[test]
fn only_the_planned_calls_fail() {
    let (inner, root) = mem();
    let fs = FailingFs::new(Arc::new(inner.clone()));
    let path = root.join("x");
    let file = fs.create(&path).unwrap();
    fs.arm(Plan { kind: CallKind::Write, skip: 2, times: 2, fault: Fault::Enospc });
    let outcomes: Vec<bool> = (0..6).map(|i| file.write_at(&[b'0' + i], u64::from(i)).is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, false, true, true]);
    assert_eq!(content(&inner, &path), b"01\x00\x0045", "a failed write does nothing");
    // Arming counts anew, and only calls of its kind.
    fs.arm(Plan { kind: CallKind::Sync, skip: 1, times: 1, fault: Fault::Eio });
    file.write_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    let e = file.sync_all().unwrap_err();
    assert_ne!(e.kind(), ErrorKind::StorageFull);
    file.sync_data().unwrap();
    fs.arm(Plan { kind: CallKind::Sync, skip: 0, times: u64::MAX, fault: Fault::Eio });
    fs.disarm();
    file.sync_all().unwrap();
}

#[test]
fn every_kind_of_call_can_be_made_to_fail() {
    use CallKind as K;
    for kind in [K::Open, K::Create, K::Rename, K::Link, K::Remove, K::SyncDir, K::Read, K::Write, K::SetLen, K::Sync] {
        for (fault, expected) in [(Fault::Eio, ErrorKind::Other), (Fault::Enospc, ErrorKind::StorageFull)] {
            let (inner, root) = mem();
            let fs = FailingFs::new(Arc::new(inner.clone()));
            let path = root.join("x");
            let file = fs.create(&path).unwrap();
            file.write_at(b"kept", 0).unwrap();
            let before = inner.image();
            fs.arm(Plan { kind, skip: 0, times: 1, fault });
            let failed = match kind {
                K::Open => fs.open(&path).map(drop),
                K::Create => fs.create(&path).map(drop),
                K::Rename => fs.rename(&path, &root.join("y")),
                K::Link => fs.link(&path, &root.join("y")),
                K::Remove => fs.remove(&path),
                K::SyncDir => fs.sync_dir(&root),
                K::Read => file.read_at(&mut [0; 4], 0).map(drop),
                K::Write => file.write_at(b"lost", 0).map(drop),
                K::SetLen => file.set_len(1),
                K::Sync => file.sync_data(),
            };
            assert_eq!(failed.map_err(|e| e.kind()), Err(expected), "{kind:?}");
            assert_eq!(inner.image(), before, "{kind:?} did something although it failed");
        }
    }
}

#[test]
fn a_short_write_is_followed_by_a_full_disk() {
    let (inner, root) = mem();
    let fs = FailingFs::new(Arc::new(inner.clone()));
    let path = root.join("x");
    let file = fs.create(&path).unwrap();
    fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Short(3) });
    assert_eq!(write_all_at(&*file, b"abcdef", 0).map_err(|e| e.kind()), Err(ErrorKind::StorageFull));
    assert_eq!(content(&inner, &path), b"abc", "what was taken is in the file");
    write_all_at(&*file, b"def", 3).unwrap();
    fs.arm(Plan { kind: CallKind::Write, skip: 0, times: 1, fault: Fault::Short(100) });
    assert_eq!(file.write_at(b"ghi", 6).unwrap(), 2, "never all of it");
}
