//! The example's store: it keeps what it says, so that whoever starts from it starts well.

use crate::support::{KILLS, Sandbox, cell_of};
use engine::fs::{Fs, MemFs, RealFs};
use engine::{Durability, SyncPolicy};
use harness::exit_code;
use harness::result::Verdict;
use harness::subject::{Change, Contents, Promise, Session, Site, Subject, Table};
use std::path::Path;
use std::sync::Arc;

#[path = "../../examples/toy_store.rs"]
#[allow(dead_code, reason = "its main runs as an example only")]
mod toy_store;

use toy_store::Toy;

fn open(dir: &Path, fs: Arc<dyn Fs>) -> Box<dyn Session> {
    let table = |name: &str| Table { name: name.to_owned(), sync: None };
    let tables = [table("left"), table("right")];
    Toy.open(&Site { dir, fs, sync: SyncPolicy::Never, tables: &tables, background: true }).unwrap()
}

fn put(table: usize, key: &'static str, value: &'static str) -> Change<'static> {
    Change { table, key, value: Some(value) }
}

fn contents(left: &[(&str, &str)], right: &[(&str, &str)]) -> Contents {
    [left, right].map(|table| table.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()).into()
}

#[test]
fn what_was_written_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Arc::new(RealFs));
    store.apply(put(0, "a", "1"), Durability::Write).unwrap();
    store.apply(put(0, "b\n\"\t", "line\nbreak \u{1f980}"), Durability::Write).unwrap();
    let gone = Change { table: 0, key: "a", value: None };
    store.batch(&[put(1, "a", "2"), gone, put(1, "a", "3")], Durability::Sync).unwrap();
    let expected = contents(&[("b\n\"\t", "line\nbreak \u{1f980}")], &[("a", "3")]);
    assert_eq!(store.contents().unwrap(), expected);
    let mut seen = String::new();
    assert!(store.get(1, "a", &mut |text| seen = text.to_owned()).unwrap());
    assert_eq!(seen, "3");
    assert!(!store.get(0, "a", &mut |_| panic!("it was deleted")).unwrap());
    store.close().unwrap();
    assert_eq!(open(dir.path(), Arc::new(RealFs)).contents().unwrap(), expected);
}

/// Cuts the file at every length: what remains are whole calls, and one can write on.
#[test]
fn a_torn_line_is_cut() {
    let fs = Arc::new(MemFs::new());
    let (dir, path) = (Path::new("/store"), Path::new("/store/toy.log"));
    fs.create_dir_all(dir).unwrap();
    let store = open(dir, fs.clone());
    let mut states = vec![(0, store.contents().unwrap())];
    let file = fs.open(path).unwrap();
    for changes in [&[put(0, "a", "1")][..], &[put(0, "a", "2"), put(1, "b", "\u{e4}")], &[put(1, "c", "3")]] {
        store.batch(changes, Durability::Write).unwrap();
        states.push((file.len().unwrap(), store.contents().unwrap()));
    }
    drop(store);
    let mut whole = vec![0; file.len().unwrap() as usize];
    engine::fs::read_full_at(&*file, &mut whole, 0).unwrap();
    for cut in 0..=whole.len() as u64 {
        file.set_len(0).unwrap();
        engine::fs::write_all_at(&*file, &whole[..cut as usize], 0).unwrap();
        let (end, expected) = states.iter().rfind(|(end, _)| *end <= cut).unwrap();
        let store = open(dir, fs.clone());
        assert_eq!(&store.contents().unwrap(), expected, "cut at {cut}");
        assert_eq!(file.len().unwrap(), *end, "cut at {cut}");
        store.apply(put(0, "later", "4"), Durability::Write).unwrap();
        assert_eq!(open(dir, fs.clone()).contents().unwrap(), store.contents().unwrap(), "written on behind {cut}");
    }
}

#[test]
fn it_promises_what_it_does() {
    assert!(Toy.supports(SyncPolicy::Never) && Toy.supports(SyncPolicy::Always) && !Toy.supports(SyncPolicy::Manual));
    assert_eq!(Toy.promise(SyncPolicy::Never, Durability::Async), Promise::Process);
    assert_eq!(Toy.promise(SyncPolicy::Never, Durability::Sync), Promise::Power);
    assert_eq!(Toy.promise(SyncPolicy::Always, Durability::Write), Promise::Power);
}

#[test]
fn it_survives_the_kills_of_its_program() {
    let sandbox = Sandbox::of_example("toy_store");
    sandbox.write("toy.toml", &format!("subjects = [\"toy\"]\nsync = [\"never\"]\n{KILLS}\n[kill]\nrandom = 4\naimed = 2\n"));
    let ended = sandbox.run(&["run", "toy.toml", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    let results = sandbox.result("out");
    let cell = cell_of(&results, "toy");
    let crash = cell.crash.as_ref().unwrap();
    assert_eq!((cell.verdict, crash.cases, crash.findings.len()), (Verdict::Survived, 12, 0), "{crash:?}");
    assert!(crash.promised > 0 && crash.promised == crash.acked, "{crash:?}");
    let aimed: Vec<&str> = crash.aimed.keys().map(String::as_str).collect();
    assert_eq!(aimed, ["after-creation", "before-write", "inside-1mib-write", "inside-recovery"], "it does not shrink");
}

#[test]
fn both_commands_of_its_header_run_it_beside_all_canaries() {
    let sandbox = Sandbox::of_example("toy_store");
    let file = crate::support::root().join("harness/examples/toy_store.toml");
    let plan = sandbox.run(&["run", file.to_str().unwrap(), "--plan"]);
    assert_eq!(plan.code, Some(exit_code::OK), "{plan:?}");
    assert!(plan.out.contains("toy/toy/never/mixed/kill") && plan.out.contains("toy/toy/always/mixed/kill"), "{plan:?}");
    // Asked for by name it joins a scenario that does not list it, as the example's first command has it.
    let joined = sandbox.run(&["run", "kill", "--subject", "toy", "--plan"]);
    assert_eq!(joined.code, Some(exit_code::OK), "{joined:?}");
    assert!(joined.out.contains("kill/toy/never/mixed/kill") && !joined.out.contains("/typed/"), "{joined:?}");
    let bundled = Sandbox::new().run(&["run", "kill", "--plan"]);
    let canaries = |out: &str| out.lines().filter(|id| id.contains("/canary-")).count();
    assert_eq!(canaries(&plan.out), canaries(&bundled.out));
    assert!(sandbox.run(&["list", "subjects"]).out.contains("\ntoy "), "its own subject stands beside the bundled ones");
}
