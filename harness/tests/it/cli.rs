//! The command line from outside: what it prints where, how it refuses, and how it ends.

use crate::support::{Ended, Sandbox, TINY, cell_of};
use harness::exit_code;
use harness::result::{RunStatus, Verdict, load};
use harness::scenario::names;
use harness::subject::Registry;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// With the words that a refusal must contain.
fn refused(ended: &Ended, code: u8, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.out.is_empty(), "a refusal is not data: {ended:?}");
    assert!(ended.err.starts_with("error: "), "{ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "{word:?} is missing in {ended:?}");
    }
}

/// A refusal of the harness itself, not of its argument parser: one line.
fn refused_in_a_sentence(ended: &Ended, code: u8, words: &[&str]) {
    refused(ended, code, words);
    assert_eq!(ended.err.lines().count(), 1, "more than one line: {ended:?}");
}

/// Changes one place of a text that must be there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the text");
    text.replacen(from, to, 1)
}

#[test]
fn misspelt_arguments_are_refused_with_what_may_have_been_meant() {
    let sandbox = Sandbox::new();
    let no_scenario = sandbox.run(&["run", "kil"]);
    refused_in_a_sentence(&no_scenario, exit_code::USAGE, &["\"kil\"", "did you mean \"kill\"", "harness list scenarios"]);
    let no_subject = sandbox.run(&["run", "kill", "--subject", "typd"]);
    refused_in_a_sentence(&no_subject, exit_code::USAGE, &["\"typd\"", "did you mean \"typed\"", "harness list subjects"]);
    let policy = sandbox.run(&["run", "kill", "--sync", "alway"]);
    refused(&policy, exit_code::USAGE, &["unknown sync policy \"alway\"", "never, always, manual", "interval:10ms"]);
    let kind = sandbox.run(&["run", "kill", "--only", "kil"]);
    refused(&kind, exit_code::USAGE, &["'kil'", "bench, kill, power", "a similar value exists: 'kill'"]);
    let profile = sandbox.run(&["run", "kill", "--profile", "nigtly"]);
    refused(&profile, exit_code::USAGE, &["'nigtly'", "quick, ci, nightly", "a similar value exists: 'nightly'"]);
    refused(&sandbox.run(&["run", "--seed", "x"]), exit_code::USAGE, &["--seed"]);
    refused(&sandbox.run(&["run", "--format", "xml"]), exit_code::USAGE, &["text, json"]);
    refused(&sandbox.run(&["list", "subject"]), exit_code::USAGE, &["'subjects'"]);
    refused(&sandbox.run(&["rum"]), exit_code::USAGE, &["'rum'", "'run'"]);
    refused(&sandbox.run(&["completions", "bsh"]), exit_code::USAGE, &["bash"]);
    refused_in_a_sentence(&sandbox.run(&["show", "kil"]), exit_code::USAGE, &["\"kil\"", "did you mean \"kill\""]);
    assert!(sandbox.list(".").is_empty(), "a refusal leaves nothing behind: {:?}", sandbox.list("."));
}

#[test]
fn what_a_scenario_says_wrong_is_refused_wherever_it_stands() {
    let sandbox = Sandbox::new();
    let table = |header: &str, line: &str| {
        if TINY.contains(header) {
            with(TINY, header, &format!("{header}\n{line}"))
        } else {
            format!("{TINY}\n{header}\n{line}\n")
        }
    };
    let cases = [
        (with(TINY, "title", "titel"), &["titel", "did you mean \"title\""][..]),
        (table("[workload]", "clints = 3"), &["clints", "did you mean \"clients\""]),
        (table("[bench]", "second = 3"), &["second", "did you mean \"seconds\""]),
        (table("[kill]", "radnom = 3"), &["radnom", "did you mean \"random\""]),
        (table("[[variant]]", "name = \"a\"\nsubject = [\"typed\"]"), &["subject", "did you mean \"subjects\""]),
        (table("[[variant]]", "name = \"a\"\nworkload.key = 3"), &["key", "did you mean \"keys\""]),
        (table("[profile.nigthly]", "sync = [\"never\"]"), &["nigthly", "did you mean \"nightly\""]),
        (table("[profile.quick]", "snyc = [\"never\"]"), &["snyc", "did you mean \"sync\""]),
        (table("[variant]", "name = \"a\""), &["[[variant]]"]),
        (with(TINY, "schema = 1", "schema = 2"), &["schema = 2", "reads schema = 1"]),
        (with(TINY, "schema = 1\n", ""), &["schema"]),
        (with(TINY, "\"typed\"", "\"typd\""), &["typd", "did you mean \"typed\""]),
        (with(TINY, "\"never\"", "\"nver\""), &["unknown sync policy \"nver\"", "expected never"]),
        (with(TINY, "\"write\"", "\"wirte\""), &["unknown level \"wirte\"", "did you mean \"write\""]),
        (with(TINY, "[\"bench\"]", "[\"bech\"]"), &["bech", "did you mean \"bench\""]),
        (with(TINY, "\"commit\"", "\"comit\""), &["comit", "did you mean \"commit\""]),
        (with(TINY, "repetitions = 1", "repetitions = 0"), &["repetitions", "at least 1"]),
        ("extends = \"missing.toml\"".to_owned(), &["missing.toml", "No such file"]),
        ("extends = \"bad.toml\"".to_owned(), &["bad.toml", "extend itself"]),
        ("extends = \"kil\"".to_owned(), &["\"kil\"", "did you mean \"kill\""]),
        ("extends = 3".to_owned(), &["extends must name a scenario"]),
        ("suite = [\"kil\"]".to_owned(), &["\"kil\"", "did you mean \"kill\""]),
    ];
    for (text, words) in cases {
        sandbox.write("bad.toml", &text);
        let ended = sandbox.run(&["run", "bad.toml", "--out", "out"]);
        refused_in_a_sentence(&ended, exit_code::USAGE, words);
    }
    // Not TOML at all: the parser points at the place, on lines of its own.
    sandbox.write("bad.toml", &with(TINY, "keys =", "[keys ="));
    refused(&sandbox.run(&["run", "bad.toml"]), exit_code::USAGE, &["bad.toml", "line 13"]);
    refused_in_a_sentence(&sandbox.run(&["run", "none.toml"]), exit_code::USAGE, &["none.toml", "No such file"]);
    assert_eq!(sandbox.list("."), ["bad.toml"], "nothing was run");
}

#[test]
fn what_another_profile_says_wrong_is_refused_too() {
    let sandbox = Sandbox::new();
    let cases = [
        ("[[variant]]\nname = \"a\"\nprofiles = [\"nigthly\"]", "nigthly"),
        ("[[variant]]\nname = \"a\"\nprofile.nigthly.sync = []", "nigthly"),
        ("[[variant]]\nname = \"a\"\nprofiles = [\"nightly\"]\nsnyc = [\"never\"]", "snyc"),
        ("[profile.nightly]\nsnyc = [\"never\"]", "snyc"),
    ];
    for (text, word) in cases {
        sandbox.write("bad.toml", &format!("{TINY}\n[[variant]]\nname = \"good\"\n{text}\n"));
        let ended = sandbox.run(&["run", "bad.toml", "--plan"]);
        refused_in_a_sentence(&ended, exit_code::USAGE, &[word, "did you mean"]);
    }
}

#[test]
fn directories_that_cannot_be_used_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    sandbox.write("file", "");
    // Permissions do not bind the root user; what lies below a file binds everybody.
    for args in [&["--out", "file/below"][..], &["--out", "out", "--dir", "file/below"], &["--out", "out", "--dir", "missing"]] {
        let ended = sandbox.run(&[&["run", "tiny.toml"], args].concat());
        refused_in_a_sentence(&ended, exit_code::USAGE, &[args[args.len() - 1], "--out or --dir"]);
    }
    refused_in_a_sentence(&sandbox.run(&["doctor", "--dir", "missing"]), exit_code::USAGE, &["missing"]);
    let on_a_file = sandbox.run(&["run", "tiny.toml", "--out", "file"]);
    assert!(matches!(on_a_file.code, Some(exit_code::USAGE | exit_code::HARNESS)), "{on_a_file:?}");
}

#[test]
fn a_result_is_never_overwritten() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    assert_eq!(sandbox.run(&["run", "tiny.toml", "--out", "out"]).code, Some(exit_code::OK));
    let before = std::fs::read(sandbox.path("out/result.json")).unwrap();
    let again = sandbox.run(&["run", "tiny.toml", "--out", "out"]);
    refused_in_a_sentence(&again, exit_code::USAGE, &["out already holds a result", "--out"]);
    assert_eq!(std::fs::read(sandbox.path("out/result.json")).unwrap(), before);
    assert_eq!(sandbox.list("out"), ["report.html", "report.md", "result.json"], "stores are cleared away");
    // Without --out each run has a folder of its own.
    for number in ["001", "002"] {
        assert_eq!(sandbox.run(&["run", "tiny.toml"]).code, Some(exit_code::OK));
        assert!(sandbox.path(&format!("reports/out/tiny-{number}/result.json")).exists(), "{number}");
    }
}

#[test]
fn results_that_cannot_be_read_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    assert_eq!(sandbox.run(&["run", "tiny.toml", "--out", "out"]).code, Some(exit_code::OK));
    let whole = std::fs::read_to_string(sandbox.path("out/result.json")).unwrap();
    let cases = [
        (with(&whole, "\"schema_version\": 1", "\"schema_version\": 9"), &["schema version 9", "reads version 1"][..]),
        (whole[..whole.len() / 2].to_owned(), &["is not a result", "EOF"]),
        (String::new(), &["is not a result"]),
        ("{}".to_owned(), &["is not a result", "schema_version"]),
        (with(&whole, "\"bench\"", "\"bensch\""), &["is not a result", "bensch"]),
    ];
    for (text, words) in cases {
        sandbox.write("result.json", &text);
        for args in [&["report", "."][..], &["report", "result.json"], &["replay", ".", "x#0"]] {
            refused_in_a_sentence(&sandbox.run(args), exit_code::USAGE, words);
        }
    }
    refused_in_a_sentence(&sandbox.run(&["report", "none"]), exit_code::USAGE, &["none", "harness run"]);
    refused_in_a_sentence(&sandbox.run(&["replay", "none", "x#0"]), exit_code::USAGE, &["none", "harness run"]);
    for id in ["x#0", "tiny/typed/never/write/bench", "tiny/typed/never/write/bench#x", ""] {
        refused_in_a_sentence(&sandbox.run(&["replay", "out", id]), exit_code::USAGE, &["no finding", id]);
    }
}

#[test]
fn a_report_is_rendered_again() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    assert_eq!(sandbox.run(&["run", "tiny.toml", "--out", "out"]).code, Some(exit_code::OK));
    let page = std::fs::read(sandbox.path("out/report.html")).unwrap();
    std::fs::remove_file(sandbox.path("out/report.html")).unwrap();
    let ended = sandbox.run(&["report", "out"]);
    assert_eq!(ended.code, Some(exit_code::OK), "{ended:?}");
    assert!(ended.out.contains("typed") && ended.err.contains("report.html"), "{ended:?}");
    assert_eq!(std::fs::read(sandbox.path("out/report.html")).unwrap(), page, "the same page as the run wrote");
    assert_eq!(sandbox.run(&["report", "out/result.json", "--out", "elsewhere"]).code, Some(exit_code::OK));
    assert_eq!(sandbox.list("elsewhere"), ["report.html", "report.md"]);
}

#[test]
fn nothing_selected_has_a_code_of_its_own() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    for args in [&["run", "tiny.toml", "--only", "kill"][..], &["run", "kill", "--subject", "canary-ack-early"]] {
        refused_in_a_sentence(&sandbox.run(args), exit_code::NOTHING, &["nothing to run", "--plan"]);
    }
    assert_eq!(sandbox.list("."), ["tiny.toml"]);
}

#[test]
fn a_plan_is_printed_and_not_run() {
    let sandbox = Sandbox::new();
    let kinds = with(TINY, "[\"bench\"]", "[\"bench\", \"kill\"]");
    let both = with(&kinds, "[\"typed\"]", "[\"typed\", \"null\", \"canary-lost-delete\"]");
    sandbox.write("both.toml", &with(&both, "\"never\"", "\"never\", \"always\""));
    sandbox.write("tiny.toml", &with(TINY, "\"tiny\"", "\"other\""));
    let ended = sandbox.run(&["run", "both.toml", "tiny.toml", "--plan", "--sync", "always,never", "--subject", "typed"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(exit_code::OK), ""));
    let ids: Vec<&str> = ended.out.lines().collect();
    let both = [
        "tiny/typed/never/write/bench",
        "tiny/typed/always/write/bench",
        "tiny/typed/never/write/kill",
        "tiny/typed/always/write/kill",
        "tiny/canary-lost-delete/never/write/kill",
    ];
    assert_eq!(ids, [&both[..], &["other/typed/never/write/bench"]].concat());
    assert_eq!(sandbox.list("."), ["both.toml", "tiny.toml"]);
}

#[test]
fn lists_and_explanations_name_everything() {
    let sandbox = Sandbox::new();
    let registry = Registry::new(vec![]);
    let subjects: Vec<&str> = registry.iter().map(|subject| subject.name()).collect();
    let codes: Vec<String> = exit_code::ALL.iter().map(|(code, _)| code.to_string()).collect();
    let expected: [(&str, Vec<&str>); 5] = [
        ("scenarios", names().collect()),
        ("subjects", subjects),
        ("policies", vec!["never", "interval:<d>", "every-second", "always", "manual"]),
        ("warnings", harness::runner::WARNINGS.iter().map(|(code, _)| *code).collect()),
        ("exit-codes", codes.iter().map(String::as_str).collect()),
    ];
    for (what, names) in expected {
        let text = sandbox.run(&["list", what]);
        assert_eq!((text.code, text.err.as_str()), (Some(exit_code::OK), ""), "{what}");
        let first: Vec<&str> = text.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(first, names, "{what}");
        let json = sandbox.run(&["list", what, "--format", "json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json.out).unwrap();
        let first: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(first, names, "{what} as JSON");
        assert!(rows.iter().all(|row| row["about"].as_str().is_some_and(|about| !about.is_empty())), "{rows:?}");
        if matches!(what, "scenarios" | "subjects" | "warnings") {
            for name in names {
                let shown = sandbox.run(&["show", name]);
                assert_eq!(shown.code, Some(exit_code::OK), "{name}");
                assert!(shown.out.len() > 20 && shown.err.is_empty(), "{shown:?}");
            }
        }
    }
    assert_eq!(sandbox.run(&["show", "exit-codes"]).out, sandbox.run(&["list", "exit-codes"]).out);
    let schema: serde_json::Value = serde_json::from_str(&sandbox.run(&["show", "schema"]).out).unwrap();
    assert_eq!(schema["title"], "Results");
    assert!(sandbox.run(&["show", "kill"]).out.contains("kinds = [\"kill\"]"), "a scenario is shown as it is written");
}

#[test]
fn the_small_verbs_work() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = sandbox.run(&["completions", shell]);
        assert_eq!(ended.code, Some(exit_code::OK), "{shell}");
        assert!(ended.out.contains("replay") && ended.err.is_empty(), "{shell}");
    }
    let doctor = sandbox.run(&["doctor"]);
    assert_eq!(doctor.code, Some(exit_code::OK), "{doctor:?}");
    for word in ["built with rustc ", "system", "processor", "directory", "fdatasync", "p99"] {
        assert!(doctor.out.contains(word), "{word} is missing in {doctor:?}");
    }
    assert!(sandbox.list(".").is_empty(), "doctor clears away what it wrote: {:?}", sandbox.list("."));
    let help = sandbox.run(&["--help"]);
    assert_eq!(help.code, Some(exit_code::OK));
    assert!(!help.out.contains("child"), "what the harness runs in its children is nobody's verb");
    assert_eq!(sandbox.run(&[]).code, Some(exit_code::USAGE));
    assert_eq!(sandbox.run(&["--version"]).out, format!("harness {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn data_goes_to_stdout_and_words_to_stderr() {
    let sandbox = Sandbox::new();
    sandbox.write("tiny.toml", TINY);
    let run = sandbox.run(&["run", "tiny.toml", "--out", "out", "--format", "json", "--seed", "7"]);
    assert_eq!(run.code, Some(exit_code::OK), "{run:?}");
    let printed: harness::result::Results = serde_json::from_str(&run.out).unwrap();
    let saved = sandbox.result("out");
    assert_eq!(serde_json::to_value(&printed).unwrap(), serde_json::to_value(&saved).unwrap());
    assert_eq!((saved.run.status, saved.run.seed, saved.run.cells_planned), (RunStatus::Complete, 7, 1));
    assert!(saved.host.rustc.starts_with("rustc "), "{:?}", saved.host);
    let (version, commit) = (env!("CARGO_PKG_VERSION"), saved.run.version.split_once(" ("));
    assert!(if Path::new("../.git").exists() { commit.is_some_and(|(v, _)| v == version) } else { saved.run.version == version });
    assert_eq!(saved.run.argv, ["run", "tiny.toml", "--out", "out", "--format", "json", "--seed", "7"]);
    let cell = cell_of(&saved, "typed");
    assert_eq!((cell.id.as_str(), cell.verdict), ("tiny/typed/never/write/bench", Verdict::Survived));
    assert!(run.err.contains(&cell.id) && run.err.contains("report: out/report.html"), "{run:?}");
    let again = sandbox.run(&["report", "out", "--format", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again.out).unwrap(), serde_json::to_value(&saved).unwrap());
}

#[test]
fn what_cannot_be_tried_is_inconclusive_only_when_asked() {
    // A store that does not open the files that it is to begin with cannot be crashed.
    let sandbox = Sandbox::new();
    let files = "[power.files]\n\"typed.db\" = \"no log at all\"\n";
    sandbox.write("power.toml", &(with(TINY, "[\"bench\"]", "[\"power\"]") + files));
    let strict = sandbox.run(&["run", "power.toml", "--out", "strict", "--strict"]);
    assert_eq!(strict.code, Some(exit_code::INCONCLUSIVE), "{strict:?}");
    assert_eq!(cell_of(&sandbox.result("strict"), "typed").verdict, Verdict::NotMeasured);
    assert_eq!(sandbox.run(&["run", "power.toml", "--out", "lenient"]).code, Some(exit_code::OK));
}

/// Waits until something is there; a test that waits for ever says what for.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for {what}");
}

/// The processes that a process started, by its number.
fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter(|&pid| stat(pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

#[test]
fn an_interrupted_run_leaves_a_whole_result() {
    let long = with(TINY, "repetitions = 1", "repetitions = 5000");
    for (signal, code) in [(Signal::SIGINT, exit_code::INTERRUPTED), (Signal::SIGTERM, exit_code::TERMINATED)] {
        let sandbox = Sandbox::new();
        sandbox.write("long.toml", &long);
        let mut run = sandbox.start(&["run", "long.toml", "--out", "out"]);
        wait_for("a repetition", || children(run.id()).first().copied());
        kill(Pid::from_raw(run.id() as i32), signal).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(code.into()), "{signal}");
        let results = sandbox.result("out");
        assert_eq!(results.run.status, RunStatus::Interrupted);
        assert_eq!(sandbox.list("out"), ["report.html", "report.md", "result.json"], "{signal}");
        for cell in &results.cells {
            assert_eq!(cell.verdict, Verdict::Survived, "what is there is whole");
            assert!(cell.bench.as_ref().is_some_and(|bench| bench.repetitions < 5000));
        }
        assert_eq!(sandbox.run(&["report", "out"]).code, Some(exit_code::OK));
    }
}

#[test]
fn a_canary_that_was_interrupted_convicts_nobody() {
    let sandbox = Sandbox::of_example("broken_stores");
    let scenario = crate::support::KILLS.to_owned() + "[kill]\nrandom = 1\naimed = 0\n";
    let scenario = with(&scenario, "levels", "subjects = [\"innocent\", \"typed\"]\nsync = [\"never\"]\nlevels");
    sandbox.write("canary.toml", &scenario);
    let mut run = sandbox.start(&["run", "canary.toml", "--out", "out"]);
    wait_for("a kill", || children(run.id()).first().copied());
    kill(Pid::from_raw(run.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(exit_code::INTERRUPTED.into()));
    let results = sandbox.result("out");
    assert_eq!(results.run.status, RunStatus::Interrupted);
    assert!(results.cells.iter().all(|cell| cell.verdict != Verdict::HarnessBroken), "{:?}", results.cells);
}

/// Whether a process has started threads, which a child does once it is set up.
fn is_at_work(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse::<u32>().ok());
    threads.is_some_and(|threads| threads > 1)
}

#[test]
fn a_killed_harness_takes_its_children_along() {
    let long = with(TINY, "[\"never\"]", "[\"never\", \"manual\"]")
        + "[[variant]]\nname = \"short\"\n[[variant]]\nname = \"long\"\nbench.seconds = 60.0\n";
    // Before anything is saved, and after the first cells were.
    for saved in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.write("long.toml", &if saved { long.clone() } else { with(&long, "\"short\"", "\"shy\"\nbench.seconds = 60.0") });
        let mut run = sandbox.start(&["run", "long.toml", "--out", "out"]);
        if saved {
            wait_for("two cells", || load(&sandbox.path("out")).ok().filter(|results| results.cells.len() == 2));
        }
        let child = wait_for("a child", || children(run.id()).into_iter().find(|&child| is_at_work(child)));
        run.kill().unwrap();
        run.wait().unwrap();
        wait_for("the end of its child", || (!is_alive(child)).then_some(()));
        assert_eq!(sandbox.path("out/result.json").exists(), saved);
        if saved {
            let results = sandbox.result("out");
            assert_eq!((results.run.status, results.run.cells_planned), (RunStatus::Partial, 4));
            assert_eq!(results.cells.len(), 2);
            assert_eq!(sandbox.run(&["report", "out"]).code, Some(exit_code::OK), "a partial result can be looked at");
        }
    }
}

#[test]
fn a_child_born_as_the_harness_is_killed_dies_too() {
    let long = with(TINY, "seconds = 0.02", "seconds = 60.0");
    for _ in 0..20 {
        let sandbox = Sandbox::new();
        sandbox.write("long.toml", &long);
        let mut run = sandbox.start(&["run", "long.toml", "--out", "out"]);
        let child = wait_for("a child", || children(run.id()).first().copied());
        run.kill().unwrap();
        run.wait().unwrap();
        let ended = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !is_alive(child)
        });
        if !ended {
            // Nobody else would.
            kill(Pid::from_raw(child as i32), Signal::SIGKILL).unwrap();
        }
        assert!(ended, "process {child} outlived the harness");
    }
}

/// A file system in memory that is soon full; absent where it cannot be mounted.
struct Tiny<'s> {
    sandbox: &'s Sandbox,
}

impl<'s> Tiny<'s> {
    fn mount(sandbox: &'s Sandbox, size: &str) -> Option<Self> {
        std::fs::create_dir(sandbox.path("full")).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(sandbox.path("full"));
        let done = mount.output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self { sandbox });
        }
        let _ = writeln!(std::io::stderr(), "skipped: no tmpfs can be mounted here, which takes privileges");
        None
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.sandbox.path("full")).status();
    }
}

/// A workload that fills any small disk.
fn greedy(kind: &str) -> String {
    let text = with(&with(TINY, "value-bytes = 10", "value-bytes = 20_000"), "keys = 10", "keys = 1_000");
    with(&with(&text, "seconds = 0.02", "seconds = 1.0"), "\"bench\"", kind)
}

#[test]
fn a_full_disk_is_a_budget_and_not_a_fault() {
    let sandbox = Sandbox::new();
    let Some(_full) = Tiny::mount(&sandbox, "256k") else { return };
    sandbox.write("tiny.toml", TINY);
    let stores = sandbox.run(&["run", "tiny.toml", "--dir", "full", "--out", "out"]);
    refused_in_a_sentence(&stores, exit_code::BUDGET, &["no space left in full", "--out or --dir"]);
    // The folder of the run itself.
    std::fs::write(sandbox.path("full/ballast"), vec![0; 240 << 10]).unwrap();
    let reports = sandbox.run(&["run", "tiny.toml", "--dir", ".", "--out", "full/out"]);
    assert_eq!(reports.code, Some(exit_code::BUDGET), "{reports:?}");
    assert!(reports.err.contains("error: no space left in") && reports.err.contains("--out or --dir"), "{reports:?}");
}

#[test]
fn a_store_that_fills_the_disk_is_a_budget() {
    let sandbox = Sandbox::new();
    let Some(_full) = Tiny::mount(&sandbox, "4m") else { return };
    sandbox.write("greedy.toml", &greedy("\"bench\""));
    let ended = sandbox.run(&["run", "greedy.toml", "--dir", "full", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::BUDGET), "{ended:?}");
    assert!(ended.err.contains("no space left"), "{ended:?}");
}

#[test]
fn a_full_disk_under_the_history_ends_nobody() {
    let sandbox = Sandbox::new();
    let Some(_full) = Tiny::mount(&sandbox, "4m") else { return };
    sandbox.write("greedy.toml", &with(&greedy("\"kill\""), "random = 2", "random = 12"));
    let ended = sandbox.run(&["run", "greedy.toml", "--dir", "full", "--out", "out"]);
    assert_eq!(ended.code, Some(exit_code::BUDGET), "{ended:?}");
    assert!(ended.err.contains("no space left"), "{ended:?}");
}

#[test]
fn children_are_told_what_is_wrong_too() {
    let sandbox = Sandbox::new();
    let missing = sandbox.run(&["child", "none.json"]);
    refused(&missing, exit_code::HARNESS, &[]);
    sandbox.write("task.json", "{\"task\": \"dance\"}");
    refused(&sandbox.run(&["child", "task.json"]), exit_code::HARNESS, &["task file", "dance"]);
}
