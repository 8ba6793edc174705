//! The house rules that a compiler does not know, read off the source as text.
//!
//! What a rule forbids and the code still does stands in an exception table with its reason; a row that
//! is no longer needed fails as well.

use crate::support::{Sandbox, root};
use harness::result::load;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Modules of the engine from the bytes up, each with those that it imports.
const ENGINE: [(&str, &[&str]); 9] = [
    ("codec", &[]),
    ("error", &[]),
    ("fs", &[]),
    ("sync_policy", &["error"]),
    ("background", &[]),
    ("log", &["codec", "error", "fs", "sync_policy"]),
    ("typed", &["codec", "error", "fs", "sync_policy", "background", "log"]),
    ("lsm", &["codec", "error", "fs", "sync_policy", "background", "log"]),
    ("fifo", &["codec", "error", "fs", "sync_policy", "background", "log"]),
];

/// Modules of the harness from values to verbs, each with those that it may import.
const HARNESS: [(&str, &[&str]); 13] = [
    ("exit_code", &[]),
    ("hint", &[]),
    ("result", &[]),
    ("report", &["result"]),
    ("measure", &["result"]),
    ("history", &["measure"]),
    ("subject", &["hint", "result"]),
    ("workload", &["hint", "result", "measure", "subject"]),
    ("oracle", &["result", "history", "subject", "workload"]),
    ("crash", &["workload"]),
    ("scenario", &["hint", "result", "crash", "subject", "workload"]),
    ("process", &["result", "history", "measure", "subject", "workload", "scenario"]),
    ("runner", &["exit_code", "result", "measure", "history", "subject", "workload", "oracle", "crash", "scenario", "process"]),
];

/// Imports against the order, each with why it is there still.
const AGAINST_THE_ORDER: [(&str, &str); 0] = [];

/// Files with lines of more than 140 characters: sentences and markup in one literal each, which
/// `rustfmt` leaves as they are.
const LONG_LINES: [&str; 13] = [
    "engine/src/error.rs",
    "engine/src/log/reader.rs",
    "engine/src/sync_policy.rs", // A row of a table in a comment.
    "engine/tests/it/log.rs",
    "engine/tests/it/typed_format.rs",
    "engine/tests/it/typed_store.rs",
    "harness/src/report/crash.rs",
    "harness/src/report/html.rs",
    "harness/src/report/svg.rs",
    "harness/src/report/tables.rs",
    "harness/src/report/words.rs",
    "harness/src/result/store.rs",
    "harness/src/runner/mod.rs",
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All Rust files below these folders, with their paths from the root.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != ".git") {
                    collect(&path, into);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| collect(&root().join(folder), &mut paths));
    let named = |path: PathBuf| (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), read(&path));
    let sources: BTreeMap<_, _> = paths.into_iter().map(named).collect();
    assert!(sources.len() > 5, "{folders:?} has hardly any source");
    sources
}

/// The lines of a file that are code, numbered; comments aside.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    lines.map(|(n, line)| (n, line.split("//").next().unwrap_or_default())).filter(|(_, line)| !line.trim().is_empty())
}

/// `crate::…` in these sources: (importing module, imported module, where).
fn imports(folder: &str) -> Vec<(String, String, String)> {
    let mut imports = Vec::new();
    for (path, text) in sources(&[folder]) {
        let module = path[folder.len() + 1..].split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        for (line, text) in code(&text) {
            for rest in text.split("crate::").skip(1) {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                assert!(end > 0, "{path}:{line}: imports of the crate are written one module a line");
                let target = match &rest[..end] {
                    "Error" | "Result" => "error",
                    "Durability" | "SyncPolicy" => "sync_policy",
                    module => module,
                };
                if target != module {
                    imports.push((module.clone(), target.to_owned(), format!("{path}:{line}")));
                }
            }
        }
    }
    imports
}

#[test]
fn imports_go_one_way() {
    for (folder, order) in [("engine/src", &ENGINE[..]), ("harness/src", &HARNESS[..])] {
        // The table itself has an order: nothing imports what stands below it.
        for (at, (module, allowed)) in order.iter().enumerate() {
            for other in *allowed {
                assert!(order[..at].iter().any(|(above, _)| above == other), "{module} stands above {other}");
            }
        }
        let modules: BTreeSet<&str> = order.iter().map(|(module, _)| *module).collect();
        let lib = read(&root().join(folder).join("lib.rs"));
        let declared = code(&lib).filter_map(|(_, line)| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
        assert_eq!(declared.filter(|module| *module != "cli").collect::<BTreeSet<_>>(), modules, "{folder}");
        for (module, target, place) in imports(folder) {
            if ["cli", "lib", "main"].contains(&module.as_str()) {
                continue;
            }
            let (_, allowed) = order.iter().find(|(name, _)| *name == module).unwrap();
            let excepted = folder == "harness/src" && AGAINST_THE_ORDER.contains(&(&module, &target));
            assert!(allowed.contains(&target.as_str()) || excepted, "{place}: {module} imports {target}");
        }
    }
    let all = imports("harness/src");
    for (module, target) in AGAINST_THE_ORDER {
        assert!(all.iter().any(|(m, t, _)| m == module && t == target), "{module} no longer imports {target}: strike the row");
    }
}

/// Where each of these words may stand in code: in no other file.
#[test]
fn words_stand_where_they_belong() {
    let rules: [(&str, &[&str], &[&str]); 12] = [
        (
            "engine/src",
            &["std::fs", "rustix::fs", "rustix::io", "libc::"],
            &["engine/src/fs/real.rs", "engine/src/fs/room.rs", "engine/src/fs/write_back.rs"],
        ),
        ("engine/src", &["rustix::process"], &["engine/src/background.rs"]),
        ("engine/src", &["OpenOptions"], &["engine/src/fs/real.rs"]),
        ("engine/src", &["std::thread", "thread::", "Instant", "SystemTime"], &["engine/src/background.rs"]),
        ("engine/src", &["rand::", "fail_point", "cfg!(test)", "std::env"], &[]),
        ("engine/src", &["feature ="], &["engine/src/lsm/packing.rs"]),
        ("harness/src", &["Instant", "SystemTime", "clock_gettime"], &["harness/src/measure/clock.rs"]),
        ("harness/src", &["unsafe {"], &["harness/src/history/mod.rs"]),
        ("harness/src/oracle", &["std::fs", "std::io", "std::process", "std::thread", "engine::fs", "File"], &[]),
        ("harness/src/report", &["std::fs", "std::env", "std::process", "std::thread", "engine::"], &[]),
        ("harness/src/result", &["engine::", "std::process", "std::thread"], &[]),
        ("engine/src", &["unsafe "], &["engine/src/fs/room.rs", "engine/src/fs/write_back.rs"]),
    ];
    for (folder, words, homes) in rules {
        let mut at_home = BTreeSet::new();
        let sources = match folder {
            "harness/src/oracle" | "harness/src/result" => {
                sources(&["harness/src"]).into_iter().filter(|(path, _)| path.starts_with(folder)).collect()
            }
            _ => sources(&[folder]),
        };
        assert!(!sources.is_empty(), "{folder}");
        for (path, text) in &sources {
            for (line, text) in code(text) {
                for word in words.iter().filter(|word| text.contains(**word)) {
                    assert!(homes.contains(&path.as_str()), "{path}:{line} names {word}");
                    at_home.insert(path.as_str());
                }
            }
        }
        assert_eq!(at_home, homes.iter().copied().collect(), "{words:?}: a home that is none");
    }
}

/// The engine does not know that it is being tested: `cfg(test)` opens a file's tests and nothing else.
#[test]
fn test_code_stands_at_the_end_of_its_file() {
    let mut seen = 0;
    for (path, text) in sources(&["engine/src", "harness/src"]) {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in code(&text).filter(|(_, line)| line.contains("cfg(test)")) {
            let at = n - 1;
            assert_eq!((line, lines.get(n)), ("#[cfg(test)]", Some(&"mod tests {")), "{path}:{n}");
            let end = lines[at..].iter().position(|line| *line == "}").map(|n| at + n + 1);
            assert_eq!(end, Some(lines.len()), "{path}: something follows the tests");
            seen += 1;
        }
    }
    assert!(seen > 5, "the rule has nothing to hold: {seen}");
}

#[test]
fn lines_are_neither_ragged_nor_endless() {
    let mut long = BTreeMap::new();
    for (path, text) in sources(&["engine", "harness"]) {
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path} ends in one newline");
        for (n, line) in text.lines().enumerate() {
            assert!(!line.contains('\t'), "{path}:{} has a tab", n + 1);
            assert!(!line.ends_with(char::is_whitespace), "{path}:{} ends in blanks", n + 1);
            if line.chars().count() > 140 {
                long.insert(path.clone(), n + 1);
            }
        }
    }
    for path in LONG_LINES {
        assert!(long.remove(path).is_some(), "{path} has no long line any more: strike the row");
    }
    assert!(long.is_empty(), "lines of more than 140 characters, by file: {long:?}");
}

/// The quick start is run by whoever checks the project, word for word.
#[test]
fn the_quick_start_is_what_is_run() {
    let readme = read(&root().join("README.md"));
    let start = readme.split("## Quick start").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let commands: Vec<&str> = start.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let commands: Vec<&str> = commands.iter().map(|line| line.split(" #").next().unwrap().trim_end()).collect();
    assert_eq!(commands, ["cargo run --release -- run", "cargo test --workspace"]);
    let ci = root().join(".ci/run");
    if ci.is_file() {
        let script = read(&ci);
        for command in commands {
            assert!(script.contains(command), ".ci/run does not contain {command:?}");
        }
    }
}

/// The pages of documentation, by their paths from the root.
fn pages() -> BTreeMap<String, String> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(str::to_owned).into_iter().chain(docs);
    pages.map(|page| (page.clone(), read(&root().join(&page)))).collect()
}

/// What stands between backticks on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn files_that_documents_name_exist() {
    let mut seen = 0;
    for (page, text) in pages() {
        for name in quoted(&text) {
            let is_path = name.contains('/') && [".rs", ".toml", ".md", ".py", ".json"].iter().any(|e| name.ends_with(e));
            if !is_path || name.contains(['*', '<', '{', ' ']) {
                continue;
            }
            let places = ["", "engine/src", "harness/src", "harness", "engine"];
            assert!(places.iter().any(|place| root().join(place).join(name).exists()), "{page} names {name}, which is not there");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn verbs_that_documents_name_exist() {
    let help = Sandbox::new().run(&["--help"]).out;
    let verbs: BTreeSet<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    let mut seen = 0;
    for (page, text) in pages() {
        let quoted = quoted(&text).filter_map(|words| words.strip_prefix("harness "));
        let typed = text.lines().filter_map(|line| line.strip_prefix("$ cargo run --release -- "));
        for verb in quoted.chain(typed).filter_map(|words| words.split_whitespace().next()).filter(|verb| !verb.starts_with('-'))
        {
            assert!(verbs.contains(verb), "{page} names the verb {verb}, which is none of {verbs:?}");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

/// The track record says which test keeps a bug out.
#[test]
fn tests_that_the_track_record_names_exist() {
    let everything: String = sources(&["engine", "harness"]).into_values().collect();
    let readme = read(&root().join("README.md"));
    let record = readme.split("## Track record").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let rows: Vec<Vec<&str>> = record.lines().filter(|l| l.starts_with("| ")).map(|l| l.split(" | ").collect()).skip(1).collect();
    assert!(rows.len() > 5);
    for row in rows {
        let test = row[2].trim_matches('`');
        let is_there = everything.contains(&format!("fn {test}(")) || (test.ends_with(".toml") && root().join(test).exists());
        assert!(is_there, "{test} keeps out nothing: it does not exist");
    }
}

#[test]
fn published_results_can_be_read() {
    let Ok(reports) = std::fs::read_dir(root().join("reports")) else { return };
    for report in reports.map(|entry| entry.unwrap().path()).filter(|path| path.join("result.json").exists()) {
        let results = load(&report).unwrap_or_else(|e| panic!("{e}"));
        assert!(!results.cells.is_empty(), "{} is empty", report.display());
    }
}
