//! The fault models: for each rule a state that it allows and one that it forbids, and the order of the models
//! by inclusion over runs made up at random.

use harness::crash::{Call, FileState, Layout, MODELS, Model, Op, State, Strategy, Trace, View};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

/// A trace under construction: calls one after the other, each done before the next begins.
#[derive(Clone, Default)]
struct Script {
    trace: Trace,
    files: usize,
}

impl Script {
    /// A run that begins with these files.
    fn with(files: &[(&str, usize)]) -> Self {
        let mut script = Self::default();
        script.trace.dirs = ["/d", "/e"].map(PathBuf::from).to_vec();
        script.trace.files = files.iter().map(|(path, len)| (PathBuf::from(path), vec![b'o'; *len])).collect();
        script.files = files.len();
        script
    }

    fn call(mut self, op: Op, ok: bool) -> Self {
        let begun = self.trace.end;
        self.trace.calls.push(Call { op, begun, ended: Some(begun + 1), ok });
        self.trace.end += 2;
        self
    }

    /// The last call never returned.
    fn in_flight(mut self) -> Self {
        self.trace.calls.last_mut().unwrap().ended = None;
        self
    }

    fn create(mut self, path: &str) -> Self {
        self.files += 1;
        let file = self.files - 1;
        self.call(Op::Create { path: path.into(), file }, true)
    }

    fn write(self, file: usize, offset: u64, len: usize) -> Self {
        let letter = b'a' + (self.trace.calls.len() % 26) as u8;
        self.call(Op::Write { file, offset, bytes: vec![letter; len] }, true)
    }

    fn set_len(self, file: usize, len: u64) -> Self {
        self.call(Op::SetLen { file, len }, true)
    }

    fn rename(self, from: &str, to: &str) -> Self {
        self.call(Op::Rename { from: from.into(), to: to.into() }, true)
    }

    fn remove(self, path: &str) -> Self {
        self.call(Op::Remove { path: path.into() }, true)
    }

    fn fsync(self, file: usize) -> Self {
        self.call(Op::Sync { file, data_only: false }, true)
    }

    fn fdatasync(self, file: usize) -> Self {
        self.call(Op::Sync { file, data_only: true }, true)
    }

    fn failed_sync(self, file: usize) -> Self {
        self.call(Op::Sync { file, data_only: true }, false)
    }

    fn sync_dir(self, dir: &str) -> Self {
        self.call(Op::SyncDir { dir: dir.into() }, true)
    }

    /// Names of the models that allow the state that `make` makes of everything and nothing surviving.
    fn allowed(&self, make: impl Fn(State, State) -> State) -> Vec<&'static str> {
        let layout = Layout::new(&self.trace);
        let allows = |model: &&Model| {
            let view = View::new(&layout, MODELS.iter().find(|m| m.name == model.name).unwrap(), self.trace.end);
            let lying = Model::named("lying-disk").unwrap();
            // Made in the widest view, where everything is volatile, so that it means the same in all.
            let widest = View::new(&layout, lying, self.trace.end);
            let state = make(widest.all(), widest.none());
            keeps_stable(&view, &state) && view.is_legal(&state)
        };
        MODELS.iter().filter(allows).map(|m| m.name).collect()
    }
}

/// Whether a state has everything that is stable in a view: a state without it is none of the view's.
fn keeps_stable(view: &View<'_, '_>, state: &State) -> bool {
    let names = view.stable_names.iter().zip(&state.names).all(|(stable, kept)| *kept || !stable);
    names
        && view.files.iter().zip(&state.files).all(|(known, chosen)| {
            let bounds = chosen.sectors.values().chain([&chosen.data, &chosen.size]);
            let last_stable = known.stable.iter().rposition(|stable| *stable).map_or(0, |n| n as u32 + 1);
            bounds.into_iter().all(|bound| *bound >= last_stable)
        })
}

const ALL: [&str; 7] = ["process", "ext4-ordered", "xfs", "btrfs", "posix", "torn", "lying-disk"];

fn file(state: &mut State, number: usize) -> &mut FileState {
    &mut state.files[number]
}

#[test]
fn c1_what_was_synced_survives() {
    let run = Script::with(&[("/d/a", 0)]).write(0, 0, 100);
    assert_eq!(run.allowed(|_, none| none), ALL[1..], "unsynced, it may go");
    assert_eq!(run.clone().fdatasync(0).allowed(|_, none| none), ["lying-disk"], "synced, it may not");
    assert_eq!(run.clone().fdatasync(0).allowed(|all, _| all), ALL);
    let early = Script::with(&[("/d/a", 0)]).fdatasync(0).write(0, 0, 100);
    assert_eq!(early.allowed(|_, none| none), ALL[1..], "a sync does not cover what comes after it");
    let unfinished = run.fdatasync(0).in_flight();
    assert_eq!(unfinished.allowed(|_, none| none), ALL[1..], "a sync in flight covers nothing yet");
}

#[test]
fn c1b_a_failed_sync_is_not_mended_by_a_later_one() {
    let run = Script::with(&[("/d/a", 0)]).write(0, 0, 100).failed_sync(0).fdatasync(0);
    assert_eq!(run.allowed(|_, none| none), ALL[1..]);
    let later = run.write(0, 100, 100).fdatasync(0);
    let layout = Layout::new(&later.trace);
    let view = View::new(&layout, Model::named("torn").unwrap(), later.trace.end);
    assert_eq!(view.files[0].stable, [false, true], "what came after the failure is covered as ever");
    // Both lie in one sector, and a sector holds what the page cache had: with the second survives the first.
    assert!(view.none().image(&view).1[0].1.iter().all(|b| *b != 0));
    let apart = Script::with(&[("/d/a", 0)]).write(0, 0, 100).failed_sync(0).write(0, 4096, 100).fdatasync(0);
    let layout = Layout::new(&apart.trace);
    let view = View::new(&layout, Model::named("posix").unwrap(), apart.trace.end);
    let (_, files) = view.settle(view.none()).image(&view);
    assert!(files[0].1[..100].iter().all(|b| *b == 0) && files[0].1[4096] != 0, "the first page is lost for ever");
}

#[test]
fn e4_and_x3_a_size_without_its_data() {
    // An append of two fresh pages.
    let run = Script::with(&[("/d/a", 0)]).write(0, 0, 8192);
    let size_only = |mut all: State, _| {
        file(&mut all, 0).data = 0;
        all
    };
    assert_eq!(run.allowed(size_only), ["posix", "torn", "lying-disk"]);
    let second_page = |mut all: State, _| {
        file(&mut all, 0).sectors.extend((0..8).map(|s| (s, 0)));
        all
    };
    assert_eq!(run.allowed(second_page), ["xfs", "btrfs", "posix", "torn", "lying-disk"], "XFS and btrfs may leave a hole");
    // The tail of a block that exists already is written in place, and ext4 keeps no order there.
    let tail = Script::with(&[("/d/a", 100)]).write(0, 100, 100);
    assert_eq!(tail.allowed(size_only), ["ext4-ordered", "posix", "torn", "lying-disk"]);
}

#[test]
fn c4_sizes_come_in_their_order() {
    let run = Script::with(&[("/d/a", 2000)]).set_len(0, 500).write(0, 500, 100);
    let cut_lost = |mut all: State, _| {
        file(&mut all, 0).size = 0;
        all
    };
    assert_eq!(run.allowed(cut_lost), [""; 0], "what was written behind a truncation needs the truncation");
    let both_lost = |_, none: State| none;
    assert_eq!(run.allowed(both_lost), ALL[1..]);
}

#[test]
fn e6_and_b4_overwrites_tear_by_sector_or_page() {
    let run = Script::with(&[("/d/a", 8192)]).write(0, 0, 8192);
    let torn = |mut all: State, _| {
        file(&mut all, 0).sectors.insert(3, 0);
        all
    };
    assert_eq!(run.allowed(torn), ["ext4-ordered", "xfs", "posix", "torn", "lying-disk"]);
    let page = |mut all: State, _| {
        file(&mut all, 0).sectors.extend((0..8).map(|s| (s, 0)));
        all
    };
    assert_eq!(run.allowed(page), ALL[1..]);
    // A page that is new comes whole under every model but those that tear.
    let fresh = Script::with(&[("/d/a", 0)]).write(0, 0, 4096);
    assert_eq!(fresh.allowed(torn), ["torn", "lying-disk"]);
}

#[test]
fn e1_and_p1_names_in_order_or_not() {
    let run = Script::with(&[("/d/a", 10), ("/d/b", 10)]).rename("/d/a", "/d/x").rename("/d/b", "/d/y");
    let second_only = |mut all: State, _| {
        all.names[0] = false;
        all
    };
    assert_eq!(run.allowed(second_only), ["posix", "torn", "lying-disk"]);
    let first_only = |mut all: State, _| {
        all.names[1] = false;
        all
    };
    assert_eq!(run.allowed(first_only), ALL[1..]);
    assert_eq!(run.sync_dir("/d").allowed(first_only), ["lying-disk"]);
}

#[test]
fn e2_x2_b2_and_p1_what_a_sync_of_a_file_does_for_names() {
    let run = Script::with(&[]).create("/d/x").create("/d/a").write(1, 0, 100).fsync(1);
    let lose = |name: usize| {
        move |mut all: State, _| {
            all.names[name] = false;
            all
        }
    };
    assert_eq!(run.allowed(lose(1)), ["posix", "torn", "lying-disk"], "POSIX promises no name");
    // Without the first name the second would be out of order; so both are dropped, which btrfs forbids too.
    let neither = |mut all: State, _| {
        all.names = vec![false, false];
        all
    };
    assert_eq!(run.allowed(neither), ["posix", "torn", "lying-disk"]);
    let layout = Layout::new(&run.trace);
    let stable = |name: &str| View::new(&layout, Model::named(name).unwrap(), run.trace.end).stable_names;
    assert_eq!(stable("ext4-ordered"), [true, true], "the whole journal");
    assert_eq!(stable("btrfs"), [false, true], "the names of this file only");
    // Overwriting what is there needs no commit.
    let over = Script::with(&[("/d/a", 100)]).create("/d/x").write(0, 0, 100).fdatasync(0);
    let layout = Layout::new(&over.trace);
    let stable = |name: &str| View::new(&layout, Model::named(name).unwrap(), over.trace.end).stable_names;
    assert_eq!((stable("ext4-ordered"), stable("xfs")), (vec![false], vec![false]));
    // XFS forces its log as far as the directory was touched, ext4 all of it.
    let two = Script::with(&[]).create("/d/x").create("/e/y").sync_dir("/d");
    let layout = Layout::new(&two.trace);
    let stable = |name: &str| View::new(&layout, Model::named(name).unwrap(), two.trace.end).stable_names;
    assert_eq!((stable("ext4-ordered"), stable("xfs")), (vec![true, true], vec![true, false]));
    assert_eq!(stable("posix"), [true, false]);
}

#[test]
fn e5_a_rename_over_a_file_brings_its_contents() {
    let over = Script::with(&[("/d/a", 100)]).create("/d/new").write(1, 0, 100).rename("/d/new", "/d/a");
    let empty = |mut all: State, _| {
        (file(&mut all, 1).data, file(&mut all, 1).size) = (0, 0);
        all
    };
    assert_eq!(over.allowed(empty), ["xfs", "btrfs", "posix", "torn", "lying-disk"]);
    let fresh = Script::with(&[]).create("/d/new").write(0, 0, 100).rename("/d/new", "/d/a");
    let empty = |mut all: State, _| {
        (file(&mut all, 0).data, file(&mut all, 0).size) = (0, 0);
        all
    };
    assert_eq!(fresh.allowed(empty), ALL[1..], "a rename to a new name does not");
}

#[test]
fn e8_a_truncation_has_its_place_among_the_names() {
    let run = Script::with(&[("/d/a", 1000), ("/d/b", 10)]).set_len(0, 10).remove("/d/b");
    let uncut = |mut all: State, _| {
        (file(&mut all, 0).data, file(&mut all, 0).size) = (0, 0);
        all
    };
    assert_eq!(run.allowed(uncut), ["posix", "torn", "lying-disk"]);
    let kept = |mut all: State, _| {
        all.names[0] = false;
        all
    };
    assert_eq!(run.allowed(kept), ALL[1..]);
}

#[test]
fn c10_a_killed_process_leaves_what_returned() {
    let run = Script::with(&[("/d/a", 0)]).write(0, 0, 100).write(0, 100, 12_000).in_flight();
    assert_eq!(run.allowed(|_, none| none), ALL[1..]);
    let part = |mut all: State, _| {
        (file(&mut all, 0).data, file(&mut all, 0).size) = (2, 2);
        all
    };
    assert!(run.allowed(part).contains(&"process"), "the write in flight may have got as far as any page");
    let hole = |mut all: State, _| {
        file(&mut all, 0).sectors.extend((0..8).map(|s| (s, 0)));
        all
    };
    assert!(!run.allowed(hole).contains(&"process"));
}

#[test]
fn t1_garbage_and_torn_sectors_are_for_models_that_tear() {
    let run = Script::with(&[("/d/a", 0)]).write(0, 0, 1000);
    let garbage = |mut all: State, _| {
        file(&mut all, 0).data = 0;
        all.garbage = Some(7);
        all
    };
    assert_eq!(run.allowed(garbage), ["torn", "lying-disk"]);
    let layout = Layout::new(&run.trace);
    let view = View::new(&layout, Model::named("torn").unwrap(), run.trace.end);
    let (_, files) = garbage(view.all(), view.none()).image(&view);
    assert!(files[0].1.len() == 1000 && files[0].1.iter().any(|b| *b != 0 && !b.is_ascii_lowercase()));
}

#[test]
fn c6_a_file_without_a_name_is_gone() {
    let run = Script::with(&[]).create("/d/a").write(0, 0, 100).fsync(0);
    let layout = Layout::new(&run.trace);
    let view = View::new(&layout, Model::named("posix").unwrap(), run.trace.end);
    assert!(view.none().image(&view).1.is_empty());
    assert_eq!(view.all().image(&view).1[0].1.len(), 100);
}

/// One call of a run made up at random.
fn any_call() -> impl proptest::strategy::Strategy<Value = (u8, usize, u64, usize, usize)> {
    (0..10u8, 0..3usize, 0..20_000u64, 1..9_000usize, 0..4usize)
}

/// Makes a run of them: only calls that make sense where they stand.
fn run_of(calls: &[(u8, usize, u64, usize, usize)]) -> Trace {
    let mut script = Script::with(&[("/d/0", 5000), ("/d/1", 0)]);
    let mut names: Vec<String> = vec!["/d/0".into(), "/d/1".into()];
    for &(kind, pick, offset, len, slot) in calls {
        let file = pick % script.files;
        let path = format!("/{}/{slot}", if slot % 2 == 0 { "d" } else { "e" });
        let taken = names.iter().position(|n| *n == path);
        script = match kind {
            0..=2 => script.write(file, offset, len),
            3 => script.set_len(file, offset),
            4 => script.fsync(file),
            5 => script.fdatasync(file),
            6 => script.sync_dir(if slot % 2 == 0 { "/d" } else { "/e" }),
            7 if taken.is_none() && script.files < 5 => {
                names.push(path.clone());
                script.create(&path)
            }
            8 if !names.is_empty() => {
                let from = names.swap_remove(pick % names.len());
                names.retain(|n| *n != path);
                names.push(path.clone());
                if from == path { script } else { script.rename(&from, &path) }
            }
            9 => match taken {
                Some(at) => script.remove(&names.swap_remove(at)),
                None => script,
            },
            _ => script,
        };
    }
    script.trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever a model leaves, every model above it in the order may leave too, and it is the same image.
    #[test]
    fn the_order_of_the_models_holds(calls in prop::collection::vec(any_call(), 1..14), seed in 0..1000u64) {
        let trace = run_of(&calls);
        let layout = Layout::new(&trace);
        for at in [trace.end, trace.end / 2] {
            for model in &MODELS {
                let view = View::new(&layout, model, at);
                for strategy in Strategy::ALL {
                    for state in strategy.states(&view, seed, 8).take(40) {
                        let broken = view.violation(&state);
                        prop_assert!(broken.is_none(), "{strategy:?} is not settled under {}: {broken:?}", model.name);
                        let image = state.image(&view);
                        for wider in MODELS.iter().filter(|m| m.includes(model)) {
                            let wide = View::new(&layout, wider, at);
                            let broken = wide.violation(&state);
                            let names = (model.name, wider.name);
                            prop_assert!(broken.is_none(), "{strategy:?} of the first under the second {names:?}: {broken:?}");
                            prop_assert!(state.image(&wide) == image, "{strategy:?} makes another image: {names:?}");
                        }
                    }
                }
            }
        }
    }

    /// Nothing that was there when the run began, and was not touched, is ever missing.
    #[test]
    fn untouched_files_stay(calls in prop::collection::vec(any_call(), 1..10)) {
        let mut trace = run_of(&calls);
        trace.files.insert("/d/zz".into(), b"quiet".to_vec());
        // The new file stands last, so the others keep their numbers only if files are created behind it.
        let shifted = |file: &mut usize| if *file >= 2 { *file += 1 };
        for call in &mut trace.calls {
            match &mut call.op {
                Op::Write { file, .. } | Op::SetLen { file, .. } | Op::Sync { file, .. } | Op::Create { file, .. } => shifted(file),
                _ => {}
            }
        }
        let layout = Layout::new(&trace);
        for model in &MODELS {
            let view = View::new(&layout, model, trace.end);
            for state in Strategy::Random.states(&view, 1, 10) {
                let found = state.image(&view).1.into_iter().find(|(path, _)| path == Path::new("/d/zz"));
                prop_assert_eq!(found.map(|(_, bytes)| bytes), Some(b"quiet".to_vec()));
            }
        }
    }
}
