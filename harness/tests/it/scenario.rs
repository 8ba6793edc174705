//! Scenarios: the bundled ones and the documented one are sound, merging does what is written, and cells
//! keep their names and seeds.

use crate::support::{TINY, root};
use engine::SyncPolicy;
use harness::result::{CellKind, Role};
use harness::runner;
use harness::scenario::{CellPlan, Filter, Plan, Profile, builtin, cells, load, names};
use harness::subject::Registry;
use harness::workload::Workload;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const PROFILES: [Profile; 3] = [Profile::Quick, Profile::Ci, Profile::Nightly];

/// Every file under `scenarios/`, those of regressions too.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in ["scenarios", "scenarios/regression", "harness/examples"] {
        let entries = std::fs::read_dir(root().join(dir)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "toml")));
    }
    files.sort();
    files
}

/// The scenario in a file of its own.
fn load_text(text: &str, profile: Profile) -> Result<Vec<Plan>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scenario.toml");
    std::fs::write(&path, text).unwrap();
    load(path.to_str().unwrap(), profile).map_err(|e| e.to_string())
}

fn cells_of(plans: &[Plan], filter: &Filter) -> Vec<CellPlan> {
    cells(plans, &Registry::new(vec![]), filter, 1).unwrap()
}

fn ids(cells: &[CellPlan]) -> Vec<&str> {
    cells.iter().map(|cell| cell.id.as_str()).collect()
}

#[test]
fn every_file_reads_under_every_profile() {
    assert!(files().len() > names().count(), "{:?}", files());
    for file in files() {
        for profile in PROFILES {
            let plans =
                load(file.to_str().unwrap(), profile).unwrap_or_else(|e| panic!("{} under {profile}: {e}", file.display()));
            assert!(!plans.is_empty(), "{} has nothing to run under {profile}", file.display());
        }
    }
}

#[test]
fn every_bundled_scenario_is_built_in_as_it_stands() {
    let stems: BTreeSet<String> = std::fs::read_dir(root().join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(stems, names().map(str::to_owned).collect());
    for name in names() {
        let text = std::fs::read_to_string(root().join(format!("scenarios/{name}.toml"))).unwrap();
        assert_eq!(builtin(name), Some(text.as_str()), "{name}");
    }
    assert_eq!(builtin("none"), None);
}

/// A name is a cell: two cells of one name could not be told apart in a report or a replay.
#[test]
fn cells_have_names_of_their_own() {
    for profile in PROFILES {
        let mut everything = Vec::new();
        for name in names().filter(|name| *name != "quick") {
            everything.extend(load(name, profile).unwrap());
        }
        let all = cells_of(&everything, &Filter::default());
        let mut seeds = BTreeMap::new();
        for cell in &all {
            let parts = cell.id.split('/').count();
            assert_eq!(parts, if cell.plan.variant.is_empty() { 5 } else { 6 }, "{}", cell.id);
            if let Some(other) = seeds.insert(cell.seed, &cell.id) {
                panic!("{profile}: {} and {other} have one seed", cell.id);
            }
        }
        assert_eq!(seeds.values().collect::<BTreeSet<_>>().len(), all.len(), "{profile}: two cells of one name");
        let suite = load("quick", profile).unwrap();
        assert!(ids(&cells_of(&suite, &Filter::default())).iter().all(|id| ids(&all).contains(id)), "{profile}");
    }
}

/// Seeds stand in published results: if this fails, `replay` no longer repeats what they found.
#[test]
fn names_and_seeds_stay_what_they_are() {
    let plans = load("quick", Profile::Quick).unwrap();
    let all = cells_of(&plans, &Filter::default());
    let seed = |id: &str| all.iter().find(|cell| cell.id == id).unwrap_or_else(|| panic!("no {id} in {:?}", ids(&all))).seed;
    for (id, expected) in PINNED {
        assert_eq!(seed(id), expected, "{id}");
    }
    // Of the run's seed and the name, and of nothing else.
    let few = Filter { kinds: vec![CellKind::Kill], sync: vec![SyncPolicy::Always], ..Filter::default() };
    for cell in cells_of(&plans, &few) {
        assert_eq!(cell.seed, seed(&cell.id), "{}", cell.id);
    }
    let other = cells(&plans, &Registry::new(vec![]), &Filter::default(), 2).unwrap();
    assert!(other.iter().zip(&all).all(|(a, b)| a.id == b.id && a.seed != b.seed));
}

const PINNED: [(&str, u64); 4] = [
    ("kill/typed/never/mixed/kill", 12_582_428_948_081_264_273),
    ("kill/canary-lost-delete/never/mixed/kill", 9_785_810_972_285_856_190),
    ("hub/batch/typed/interval:1s/write/bench", 17_901_251_323_529_112_108),
    ("go-persist/A/map-scc/never/async/bench", 16_385_529_905_550_216_769),
];

#[test]
fn roles_decide_what_a_subject_runs() {
    let text = TINY
        .replace("[\"bench\"]", "[\"bench\", \"kill\"]")
        .replace("[\"typed\"]", "[\"typed\", \"null\", \"map-scc\", \"bare-append\", \"canary-ack-early\"]")
        .replace("[\"never\"]", "[\"always\", \"never\"]")
        .replace("[\"write\"]", "[\"write\", \"sync\"]");
    let plans = load_text(&text, Profile::Quick).unwrap();
    let all = cells_of(&plans, &Filter::default());
    assert_eq!(
        ids(&all),
        [
            "tiny/typed/always/write/bench",
            "tiny/typed/always/sync/bench",
            "tiny/typed/never/write/bench",
            "tiny/typed/never/sync/bench",
            "tiny/typed/always/write/kill",
            "tiny/typed/always/sync/kill",
            "tiny/typed/never/write/kill",
            "tiny/typed/never/sync/kill",
            "tiny/null/never/write/bench",
            "tiny/map-scc/never/write/bench",
            "tiny/bare-append/always/write/bench",
            "tiny/canary-ack-early/never/write/kill",
        ]
    );
    // And so in every bundled scenario.
    for (name, profile) in names().flat_map(|name| PROFILES.map(|profile| (name, profile))) {
        for cell in cells_of(&load(name, profile).unwrap(), &Filter::default()) {
            match cell.role {
                Role::Store => {}
                Role::Baseline | Role::Null => assert_eq!(cell.kind, CellKind::Bench, "{}", cell.id),
                Role::Canary => assert_ne!(cell.kind, CellKind::Bench, "{}", cell.id),
            }
            assert!(Registry::new(vec![]).get(&cell.subject).unwrap().supports(cell.sync.0), "{}", cell.id);
            assert!(runner::steps(&[cell]) > 0);
        }
    }
}

#[test]
fn filters_narrow_and_keep_the_canaries() {
    let plans = load("quick", Profile::Quick).unwrap();
    let all = cells_of(&plans, &Filter::default());
    let canaries = all.iter().filter(|cell| cell.role == Role::Canary).count();
    assert!(canaries >= 4);
    let typed = cells_of(&plans, &Filter { subjects: vec!["typed".to_owned()], ..Filter::default() });
    assert!(typed.iter().all(|cell| cell.subject == "typed" || cell.role == Role::Canary));
    let always = cells_of(&plans, &Filter { sync: vec![SyncPolicy::Always], ..Filter::default() });
    assert!(always.iter().all(|cell| cell.role != Role::Store || cell.sync.0 == SyncPolicy::Always));
    let kills = cells_of(&plans, &Filter { kinds: vec![CellKind::Kill], ..Filter::default() });
    assert!(kills.iter().all(|cell| cell.kind == CellKind::Kill));
    for narrowed in [&typed, &always, &kills] {
        assert!(narrowed.len() < all.len());
        let kinds: Vec<CellKind> = narrowed.iter().map(|cell| cell.kind).collect();
        let kept = all.iter().filter(|cell| cell.role == Role::Canary && kinds.contains(&cell.kind)).count();
        assert!((4..=canaries).contains(&kept));
        assert_eq!(narrowed.iter().filter(|cell| cell.role == Role::Canary).count(), kept);
        let order: Vec<usize> = narrowed.iter().map(|cell| all.iter().position(|a| a.id == cell.id).unwrap()).collect();
        assert!(order.is_sorted(), "a narrowed matrix keeps its order");
    }
    let unknown = Filter { subjects: vec!["typo".to_owned()], ..Filter::default() };
    let refusal = cells(&plans, &Registry::new(vec![]), &unknown, 1).unwrap_err().to_string();
    assert!(refusal.contains("\"typo\"") && refusal.contains("did you mean \"typed\""), "{refusal}");
}

#[test]
fn a_variant_overrides_what_it_names_and_nothing_else() {
    let plain = load_text(TINY, Profile::Quick).unwrap().remove(0);
    let text = format!("{TINY}\n[[variant]]\nname = \"a\"\nworkload.keys = 99\n[[variant]]\nname = \"b\"\nsync = [\"always\"]\n");
    let [a, b] = &load_text(&text, Profile::Quick).unwrap()[..] else { panic!("two variants") };
    let mut expected = plain.clone();
    expected.variant = "a".to_owned();
    expected.source = a.source.clone();
    let Workload::Commit(spec) = &mut expected.workload else { panic!("{expected:?}") };
    spec.keys = 99;
    assert_eq!(*a, expected, "beside the keys, nothing is other");
    assert_eq!((b.variant.as_str(), &b.workload, &b.bench), ("b", &plain.workload, &plain.bench));
    assert_eq!(b.sync.iter().map(|policy| policy.0).collect::<Vec<_>>(), [SyncPolicy::Always], "lists are replaced");
}

#[test]
fn a_variant_of_another_workload_replaces_it() {
    let text = format!("{TINY}\n[[variant]]\nworkload = {{ kind = \"load\", per-collection = 7 }}\n");
    let plans = load_text(&text, Profile::Quick).unwrap();
    assert!(matches!(&plans[0].workload, Workload::Load(load) if load.per_collection == 7), "{plans:?}");
}

#[test]
fn later_words_win_key_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("below")).unwrap();
    write("base.toml", &format!("{TINY}\n[profile.ci.bench]\nrepetitions = 2\n[profile.nightly.kill]\nrandom = 1\n"));
    write("below/middle.toml", "extends = \"../base.toml\"\nname = \"middle\"\nbench.rate = 5.0\nkill.rounds = 2\n");
    let top = r#"
        extends = "below/middle.toml"
        bench.seconds = 3.0
        [[variant]]
        name = "v"
        profiles = ["ci", "nightly"]
        bench.repetitions = 4
        kill.random = 4
        profile.nightly.kill.random = 6
        [profile.ci.kill]
        random = 5
        [profile.nightly.kill]
        window-ms = 1
    "#;
    write("top.toml", top);
    let path = dir.path().join("top.toml");
    let plan = |profile| load(path.to_str().unwrap(), profile).unwrap();
    assert!(plan(Profile::Quick).is_empty(), "the only variant is for other profiles");
    let figures = |profile| {
        let [plan] = &plan(profile)[..] else { panic!("one variant") };
        assert_eq!((plan.name.as_str(), plan.title.as_str(), plan.schema), ("middle", "Does it run?", 1));
        let (bench, kill) = (&plan.bench, &plan.kill);
        assert_eq!((bench.rate, bench.seconds, bench.warm_up_seconds, kill.rounds), (5.0, 3.0, 0.0, 2));
        (bench.repetitions, kill.random, kill.window_ms)
    };
    assert_eq!(figures(Profile::Ci), (2, 5, 25), "the file's profile wins over the variant");
    assert_eq!(figures(Profile::Nightly), (4, 6, 1), "the variant's profile wins over the file's");
}

/// What `docs/scenarios.md` shows is what the program reads.
#[test]
fn documented_scenarios_read_as_documented() {
    let mut blocks = Vec::new();
    for page in ["docs/scenarios.md", "docs/subjects.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        for block in text.split("```toml\n").skip(1) {
            blocks.push((page, block.split("```").next().unwrap().to_owned()));
        }
    }
    assert!(blocks.len() >= 2, "{blocks:?}");
    for (page, block) in &blocks {
        for profile in PROFILES {
            let plans = load_text(block, profile).unwrap_or_else(|e| panic!("{page}: {e}"));
            assert!(!plans.is_empty(), "{page}");
        }
    }
    let all = cells_of(&load_text(&blocks[0].1, Profile::Quick).unwrap(), &Filter::default());
    let text = std::fs::read_to_string(root().join("docs/scenarios.md")).unwrap();
    let named = text.split("Its cells have names such as `").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    assert!(ids(&all).contains(&named), "{named} is none of {:?}", ids(&all));
    // The page lists the defaults of each table.
    let plan = load_text(&TINY.replace("repetitions = 1", "").replace("seconds = 0.02", ""), Profile::Quick).unwrap().remove(0);
    let default = |key: &str| {
        let row =
            text.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).unwrap_or_else(|| panic!("no row for {key}"));
        row.trim_end_matches(" |").rsplit_once("| ").unwrap().1.to_owned()
    };
    assert_eq!(default("repetitions"), plan.bench.repetitions.to_string());
    assert_eq!(default("seconds"), format!("{:?}", plan.bench.seconds));
    let kill = harness::scenario::KillPlan::default();
    let documented = ["random", "aimed", "rounds", "window-ms", "timeout-ms"].map(default);
    assert_eq!(documented, [kill.random, kill.aimed, kill.rounds, kill.window_ms, kill.timeout_ms].map(|n| n.to_string()));
}

#[test]
fn work_beside_operations_needs_a_rate() {
    let text = "extends = \"ycsb\"\nworkload.beside = [\"backup\"]\n";
    let refused = load_text(text, Profile::Quick).unwrap_err();
    assert!(refused.contains("beside needs a rate-share"), "{refused}");
    load_text(&format!("{text}workload.rate-share = 0.5\n"), Profile::Quick).unwrap();
}
