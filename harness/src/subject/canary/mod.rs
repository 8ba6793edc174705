//! Stores broken on purpose. A run in which one of them survives judges nothing.
//!
//! Each canary is a small store with one bug: a row of [`CANARIES`], and the place in its store where the
//! bug branches off. The same stores without a bug are [`controls`]: they must stay green, which shows that a
//! canary is red because of its bug and of nothing else.
//!
//! **Invariant:** a store differs from its control in what its bug says, and in nothing else.

mod bytes;
mod line_log;
mod log_store;
mod mutant;
mod page_store;
mod queue;

use super::{Promise, Session, Site, Subject, SubjectError};
use crate::result::{CellKind, Role};
use engine::{Durability, SyncPolicy};
use std::fmt;
use std::sync::Arc;

/// The weakest kind of fault that is counted on to expose a canary; ordered by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A clean close, and opening again.
    Restart,
    /// SIGKILL.
    Kill,
    /// Power loss: what was not synced is lost, kept or reordered.
    Power,
    /// A call that fails: EIO, ENOSPC, a short write.
    Error,
    /// Flipped bits in what was synced.
    Rot,
}

/// A store that is broken on purpose.
#[derive(Debug)]
pub struct Canary {
    /// Its name as a subject.
    pub name: &'static str,
    /// What it does wrong, in words that follow "broken on purpose:".
    pub about: &'static str,
    /// The weakest fault that exposes it.
    pub exposed_by: Fault,
    /// The only policy it runs under.
    pub sync: SyncPolicy,
    kind: Kind,
}

/// A store, and the bug in it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Lines(line_log::Bug),
    Log(Option<log_store::Bug>),
    Pages(Option<page_store::Bug>),
    /// A store of the engine, on a file system that leaves something out.
    Mutant(mutant::Victim, mutant::Bug),
    /// The FIFO store behind an interface that does something else.
    Queue(queue::Bug),
}

use Fault::{Error, Kill, Power, Restart, Rot};
use SyncPolicy::{Always, Never};
use line_log::Bug as Line;
use log_store::Bug as Log;
use mutant::{Bug as Mutant, Victim};
use page_store::Bug as Page;
use queue::Bug as Queue;

const fn lines(name: &'static str, about: &'static str, bug: Line) -> Canary {
    Canary { name, about, exposed_by: Kill, sync: Never, kind: Kind::Lines(bug) }
}

const fn log(name: &'static str, about: &'static str, exposed_by: Fault, sync: SyncPolicy, bug: Log) -> Canary {
    Canary { name, about, exposed_by, sync, kind: Kind::Log(Some(bug)) }
}

const fn pages(name: &'static str, about: &'static str, bug: Page) -> Canary {
    Canary { name, about, exposed_by: Power, sync: Always, kind: Kind::Pages(Some(bug)) }
}

const fn typed(name: &'static str, about: &'static str, exposed_by: Fault, sync: SyncPolicy, bug: Mutant) -> Canary {
    Canary { name, about, exposed_by, sync, kind: Kind::Mutant(Victim::Typed, bug) }
}

const fn lsm(name: &'static str, about: &'static str, sync: SyncPolicy, bug: Mutant) -> Canary {
    Canary { name, about, exposed_by: Power, sync, kind: Kind::Mutant(Victim::Lsm, bug) }
}

const fn fifo(name: &'static str, about: &'static str, sync: SyncPolicy, bug: Mutant) -> Canary {
    Canary { name, about, exposed_by: Power, sync, kind: Kind::Mutant(Victim::Fifo, bug) }
}

const fn queue(name: &'static str, about: &'static str, bug: Queue) -> Canary {
    Canary { name, about, exposed_by: Kill, sync: Never, kind: Kind::Queue(bug) }
}

/// Those that are queues, for workloads of queues.
#[rustfmt::skip]
pub static QUEUE_CANARIES: &[Canary] = &[
    queue("fifo-canary-pop-early", "acknowledges a dequeue before it is in the kernel", Queue::PopEarly),
    queue("fifo-canary-push-early", "acknowledges an enqueue before it is in the kernel", Queue::PushEarly),
    queue("fifo-canary-torn-batch", "puts a batch in entry by entry", Queue::TornBatch),
    queue("fifo-canary-front-at-back", "puts at the back what is to go in front", Queue::FrontAtBack),
    queue("fifo-canary-hold-takes", "takes out what it should only hand out", Queue::HoldTakes),
    fifo("fifo-canary-without-entry-syncs", "is the FIFO store without syncs of entries", Always, Mutant::FileSync(".fifo")),
    fifo("fifo-canary-without-delete-syncs", "is the FIFO store that acknowledges a dequeue before it is on the device",
        Always, Mutant::FileSync(".deletes")),
    fifo("fifo-canary-without-dir-syncs", "is the FIFO store without syncs of its directory", Always, Mutant::DirSync),
    fifo("fifo-canary-late-delete-sync", "is the FIFO store that removes a file before the deletes of its entries are durable",
        Never, Mutant::LateFileSync(".deletes")),
    fifo("fifo-canary-late-entry-sync", "is the FIFO store that begins a file before the one in front is durable",
        Always, Mutant::LateFileSync(".fifo")),
    fifo("backlog-canary-without-cuts", "is the FIFO store that does not cut torn tails off", Never, Mutant::Truncate),
];

/// The bundled canaries. A canary whose weakest fault is a kill promises to survive kills and runs under
/// `never`; the others promise to survive power loss and run under `always`.
#[rustfmt::skip]
pub static CANARIES: &[Canary] = &[
    lines("canary-ack-early", "acknowledges before it writes", Line::AckEarly),
    lines("canary-torn-batch", "writes a batch in pieces", Line::TornBatch),
    lines("canary-append-behind-tear", "appends behind a torn tail", Line::AppendBehindTear),
    lines("canary-lost-delete", "never writes deletes", Line::LostDelete),
    log("canary-commit-on-close", "writes changes out only when it is closed", Kill, Never, Log::CommitOnClose),
    log("canary-file-number-reused", "forgets file numbers at a crash, so that a new segment overwrites a live one",
        Kill, Never, Log::FileNumberReused),
    log("canary-tombstone-dropped", "compacts deletes away while an older snapshot still has the value",
        Restart, Always, Log::TombstoneDropped),
    log("canary-ack-before-sync", "acknowledges after the write and syncs later", Power, Always, Log::AckBeforeSync),
    log("canary-flush-instead-of-sync", "flushes a buffer that is not there, where it should sync",
        Power, Always, Log::FlushInsteadOfSync),
    log("canary-follower-acked-early", "counts one record too many as covered by the leader's sync",
        Power, Always, Log::FollowerAckedEarly),
    log("canary-no-dir-sync-after-create", "does not sync the directory after creating a segment",
        Power, Always, Log::NoDirSyncAfterCreate),
    log("canary-no-dir-sync-after-rename", "does not sync the directory after renaming the manifest, and removes what the old one names",
        Power, Always, Log::NoDirSyncAfterRename),
    log("canary-rename-without-sync", "renames snapshot and manifest into place without syncing them",
        Power, Always, Log::RenameWithoutSync),
    log("canary-manifest-in-place", "empties the manifest and writes it again where it stands", Power, Always, Log::ManifestInPlace),
    log("canary-wal-removed-before-manifest", "removes old segments before the snapshot and the manifest that replace them are durable",
        Power, Always, Log::WalRemovedBeforeManifest),
    log("canary-unchecked-record", "takes a record whose length fits without looking at its checksum",
        Power, Always, Log::UncheckedRecord),
    log("canary-batch-without-end", "writes a batch as records without an end", Power, Always, Log::BatchWithoutEnd),
    log("canary-batch-split-over-segments", "lets a batch begin in one segment and end in the next",
        Power, Always, Log::BatchSplitOverSegments),
    log("canary-truncate-not-synced", "does not sync the cut of a torn tail before it goes on in the next segment",
        Power, Always, Log::TruncateNotSynced),
    log("canary-recovery-not-synced", "takes what it finds when opening for durable, and syncs neither it nor its names",
        Power, Always, Log::RecoveryNotSynced),
    pages("canary-one-sync-for-pages-and-root", "writes pages and the root that names them under one sync", Page::OneSync),
    pages("canary-size-trusted", "writes a root that counts on a file length which is not durable yet", Page::SizeTrusted),
    pages("canary-freed-page-reused", "reuses the pages that a commit frees before it is durable", Page::FreedPageReused),
    log("canary-sync-error-ignored", "ignores a failed sync and goes on", Error, Always, Log::SyncErrorIgnored),
    log("canary-sync-error-retried", "tries a failed sync again and believes the second answer", Error, Always, Log::SyncErrorRetried),
    log("canary-partial-record-left", "leaves a part of a record on a full disk and appends behind it",
        Error, Always, Log::PartialRecordLeft),
    log("canary-read-error-as-end", "takes a failed read of the log for its end", Error, Always, Log::ReadErrorAsEnd),
    typed("canary-typed-without-syncs", "is the typed store without syncs of files", Power, Always, Mutant::FileSync("")),
    typed("canary-typed-without-dir-syncs", "is the typed store without syncs of its directory", Power, Always, Mutant::DirSync),
    typed("canary-typed-without-cuts", "is the typed store that does not cut torn tails off", Power, Never, Mutant::Truncate),
    typed("canary-typed-without-renames", "is the typed store without renames", Power, Always, Mutant::Rename),
    typed("canary-typed-without-checksums", "is the typed store without the comparison of checksums", Rot, Always, Mutant::Checksum),
    lsm("canary-lsm-without-log-syncs", "is the LSM store without syncs of its log", Always, Mutant::FileSync(".wal")),
    lsm("canary-lsm-without-table-syncs", "is the LSM store with a manifest that names tables which were not synced",
        Always, Mutant::FileSync(".sst")),
    lsm("canary-lsm-without-value-syncs", "is the LSM store with tables that point to values which were not synced",
        Always, Mutant::FileSync(".val")),
    lsm("canary-lsm-without-manifest-syncs", "is the LSM store without syncs of its manifest", Always, Mutant::FileSync("manifest")),
    lsm("canary-lsm-without-dir-syncs", "is the LSM store without syncs of its directory", Always, Mutant::DirSync),
    lsm("canary-lsm-late-dir-sync", "is the LSM store that removes its inputs before the names of the outputs are durable",
        Always, Mutant::LateDirSync),
    lsm("canary-lsm-late-manifest-sync", "is the LSM store that removes its inputs before the manifest that lets go of them is durable",
        Always, Mutant::LateFileSync("manifest")),
    lsm("canary-lsm-without-cuts", "is the LSM store that does not cut torn tails off", Never, Mutant::Truncate),
    log("canary-rot-as-torn-tail", "takes rot inside the log for a torn tail and cuts there", Rot, Always, Log::RotAsTornTail),
    log("canary-snapshot-unchecked", "takes a snapshot without looking at its checksum", Rot, Always, Log::UncheckedSnapshot),
];

/// The bundled canaries as subjects.
pub fn all() -> Vec<Arc<dyn Subject>> {
    CANARIES.iter().chain(QUEUE_CANARIES).map(|canary| Arc::new(canary) as Arc<dyn Subject>).collect()
}

/// The canaries' stores without a bug.
pub fn controls() -> Vec<Arc<dyn Subject>> {
    vec![
        Arc::new(Control { name: "control-log", kind: Kind::Log(None) }),
        Arc::new(Control { name: "control-pages", kind: Kind::Pages(None) }),
    ]
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restart => "restart",
            Kill => "kill",
            Power => "power",
            Error => "error",
            Rot => "rot",
        })
    }
}

impl Kind {
    fn open(self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        match self {
            Kind::Lines(bug) => line_log::open(site, bug),
            Kind::Log(bug) => log_store::open(site, bug),
            Kind::Pages(bug) => page_store::open(site, bug),
            Kind::Mutant(victim, bug) => mutant::open(site, victim, bug),
            Kind::Queue(bug) => queue::open(site, bug),
        }
    }

    fn shrinks(self) -> bool {
        matches!(self, Kind::Log(_) | Kind::Mutant(..) | Kind::Queue(_))
    }
}

impl Subject for &'static Canary {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> String {
        "-".to_owned()
    }

    fn about(&self) -> String {
        format!("broken on purpose: {}", self.about)
    }

    fn role(&self) -> Role {
        Role::Canary
    }

    fn convicted_by(&self) -> Option<CellKind> {
        Some(match self.exposed_by {
            // The state in which everything survives is what a restart finds.
            Restart | Power => CellKind::Power,
            Kill => CellKind::Kill,
            Error => CellKind::Error,
            Rot => CellKind::Rot,
        })
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == self.sync
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        let most = if self.exposed_by == Kill { Promise::Process } else { Promise::Power };
        Promise::of_contract(policy, level).min(most)
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn shrinks(&self) -> bool {
        self.kind.shrinks()
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        self.kind.open(site)
    }
}

/// A canary's store without a bug.
struct Control {
    name: &'static str,
    kind: Kind,
}

impl Subject for Control {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> String {
        "-".to_owned()
    }

    fn about(&self) -> String {
        "the canaries' store without a bug: must stay green".to_owned()
    }

    fn supports(&self, _: SyncPolicy) -> bool {
        true
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        Promise::of_contract(policy, level)
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn shrinks(&self) -> bool {
        self.kind.shrinks()
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        self.kind.open(site)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Contents, Table};
    use super::*;
    use engine::fs::{CallKind, FailingFs, Fault as Failure, Fs, MemFs, Plan, RealFs};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    type Image = BTreeMap<PathBuf, Vec<u8>>;

    const DIR: &str = "/store";
    const TABLES: usize = 2;

    fn control(name: &str) -> Kind {
        if name == "control-log" { Kind::Log(None) } else { Kind::Pages(None) }
    }

    const CONTROLS: [&str; 2] = ["control-log", "control-pages"];

    fn opened(kind: Kind, fs: Arc<dyn Fs>, sync: SyncPolicy) -> Result<Box<dyn Session>, SubjectError> {
        let tables = ["left", "right"].map(|name| Table { name: name.to_owned(), sync: None });
        fs.create_dir_all(Path::new(DIR)).unwrap();
        kind.open(&Site { dir: Path::new(DIR), fs, sync, tables: &tables, background: false })
    }

    fn put(session: &dyn Session, key: &str, value: &str) -> Result<(), SubjectError> {
        session.apply(Change { table: 0, key, value: Some(value) }, Durability::Write)
    }

    /// A store with some history: overwritten, deleted, batched, over several segments; closed.
    fn grown(kind: Kind) -> (MemFs, Contents) {
        let fs = MemFs::new();
        let session = opened(kind, Arc::new(fs.clone()), Always).unwrap();
        for n in 0..60 {
            let (key, value) = (format!("k{}", n % 17), format!("{n}").repeat(40));
            put(&*session, &key, &value).unwrap();
            if n % 9 == 4 {
                session.apply(Change { table: 0, key: &key, value: None }, Durability::Write).unwrap();
                let both = [0, 1].map(|table| Change { table, key: "both", value: Some(&value) });
                session.batch(&both, Durability::Write).unwrap();
            }
        }
        let contents = session.contents().unwrap();
        session.close().unwrap();
        (fs, contents)
    }

    fn shown(kind: Kind, image: &Image) -> Result<Contents, SubjectError> {
        opened(kind, Arc::new(MemFs::from_image(image)), Always)?.contents()
    }

    #[test]
    fn each_canary_has_a_name_and_a_row_in_the_documentation() {
        let page = include_str!("../../../../docs/fault_model.md");
        let mut names = BTreeSet::new();
        for canary in CANARIES.iter().chain(QUEUE_CANARIES) {
            let queue = QUEUE_CANARIES.iter().any(|other| other.name == canary.name);
            // Scenarios of stores of keys take all that begins like this.
            assert!(names.insert(canary.name) && canary.name.starts_with("canary-") != queue, "{}", canary.name);
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", canary.name)));
            let row = row.unwrap_or_else(|| panic!("docs/fault_model.md has no row for {}", canary.name));
            assert!(row.ends_with(&format!("| {} |", canary.exposed_by)), "{row}");
            assert!(canary.supports(canary.sync) && !canary.about.ends_with('.'), "{}", canary.name);
        }
    }

    #[test]
    fn a_control_shows_again_what_it_was_told() {
        for name in CONTROLS {
            let (fs, contents) = grown(control(name));
            let image = fs.image();
            let session = opened(control(name), Arc::new(fs.clone()), Always).unwrap();
            assert_eq!((session.contents().unwrap(), session.repaired()), (contents, None), "{name}");
            assert!(session.get(0, "both", &mut |value| assert!(!value.is_empty())).unwrap(), "{name}");
            session.close().unwrap();
            assert_eq!(fs.image(), image, "{name}: opening and closing changes nothing");
        }
    }

    #[test]
    fn a_log_compacts_by_itself_and_keeps_few_files() {
        let (fs, _) = grown(Kind::Log(None));
        let names: Vec<PathBuf> = fs.image().into_keys().collect();
        assert!(names.iter().any(|name| name.to_string_lossy().contains("snapshot-")), "{names:?}");
        assert!(names.len() <= 6, "{names:?}");
    }

    #[test]
    fn real_files_do_as_well() {
        for name in CONTROLS {
            let dir = tempfile::tempdir().unwrap();
            let tables = [Table { name: "one".to_owned(), sync: None }];
            let site = Site { dir: dir.path(), fs: Arc::new(RealFs), sync: Always, tables: &tables, background: true };
            let session = control(name).open(&site).unwrap();
            engine::background::in_parallel((0..4).collect(), |client: usize| {
                for n in 0..20 {
                    put(&*session, &format!("{client}-{n}"), "value").unwrap();
                }
            });
            assert_eq!(session.repaired(), None, "{name}");
            session.close().unwrap();
            assert_eq!(control(name).open(&site).unwrap().contents().unwrap()[0].len(), 80, "{name}");
        }
    }

    /// A change, a batch, or something that must change nothing.
    #[derive(Clone, Debug)]
    enum Op {
        Write(Vec<(usize, u8, Option<u8>)>, Durability),
        Sync,
        Shrink,
        Maintain,
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        let change = (0..TABLES, 0..12u8, proptest::option::weighted(0.7, any::<u8>()));
        let level = prop_oneof![Just(Durability::Async), Just(Durability::Write), Just(Durability::Sync)];
        let write = (proptest::collection::vec(change, 1..4), level).prop_map(|(changes, level)| Op::Write(changes, level));
        prop_oneof![12 => write, 1 => Just(Op::Sync), 1 => Just(Op::Shrink), 1 => Just(Op::Maintain), 1 => Just(Op::Reopen)]
    }

    fn policy() -> impl Strategy<Value = SyncPolicy> {
        prop_oneof![Just(Always), Just(Never), Just(SyncPolicy::Manual), Just(SyncPolicy::EVERY_SECOND)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_control_is_a_map(ops in proptest::collection::vec(op(), 1..120), sync in policy(), log: bool) {
            let kind = if log { Kind::Log(None) } else { Kind::Pages(None) };
            let fs = MemFs::new();
            let mut session = opened(kind, Arc::new(fs.clone()), sync).unwrap();
            let mut model = vec![BTreeMap::new(); TABLES];
            let mut now = Duration::ZERO;
            let mut written = true;
            for op in ops {
                match op {
                    Op::Write(changes, level) => {
                        let text = |(t, k, v): &(usize, u8, Option<u8>)| (*t, format!("key {k}"), v.map(|v| format!("{v}-").repeat(20)));
                        let texts: Vec<_> = changes.iter().map(text).collect();
                        let refs: Vec<_> =
                            texts.iter().map(|(table, key, value)| Change { table: *table, key, value: value.as_deref() }).collect();
                        match &refs[..] {
                            [one] => session.apply(*one, level).unwrap(),
                            many => session.batch(many, level).unwrap(),
                        }
                        for (table, key, value) in texts {
                            match value {
                                Some(value) => drop(model[table].insert(key, value)),
                                None => drop(model[table].remove(&key)),
                            }
                        }
                        written = level != Durability::Async;
                    }
                    Op::Sync => {
                        session.sync().unwrap();
                        written = true;
                    }
                    Op::Shrink => {
                        session.shrink().unwrap();
                    }
                    Op::Maintain => {
                        let next = session.maintain(now).unwrap().unwrap();
                        prop_assert!(next > now);
                        now = next;
                    }
                    Op::Reopen => {
                        session.close().unwrap();
                        session = opened(kind, Arc::new(fs.clone()), sync).unwrap();
                        now = Duration::ZERO;
                        written = true;
                    }
                }
                prop_assert_eq!(session.contents().unwrap(), model.clone());
                if written {
                    // As the files are now: what a kill leaves.
                    let killed = opened(kind, Arc::new(MemFs::from_image(&fs.image())), sync).unwrap();
                    prop_assert_eq!(killed.contents().unwrap(), model.clone());
                }
            }
            session.close().unwrap();
            prop_assert_eq!(shown(kind, &fs.image()).unwrap(), model);
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_makes_opening_panic_or_lie() {
        for name in CONTROLS {
            let (fs, contents) = grown(control(name));
            let image = fs.image();
            for (path, bytes) in &image {
                let step = 1 + bytes.len() / 700;
                for at in (0..bytes.len()).step_by(step) {
                    let mut changed = image.clone();
                    changed.insert(path.clone(), bytes[..at].to_vec());
                    let _ = shown(control(name), &changed);
                    let mut rotten = bytes.clone();
                    rotten[at] ^= 1 << (at % 8);
                    changed.insert(path.clone(), rotten);
                    // Rot in what was closed is told, or does no harm.
                    if let Ok(shown) = shown(control(name), &changed) {
                        assert_eq!(shown, contents, "{name}: {} at {at}", path.display());
                    }
                }
                let mut gone = image.clone();
                gone.remove(path);
                let _ = shown(control(name), &gone);
            }
        }
    }

    /// No canary may panic on any bytes either: that would convict it of something else than its bug.
    #[test]
    fn canaries_do_not_panic_on_damage() {
        for canary in CANARIES {
            let (fs, _) = grown(canary.kind);
            let image = fs.image();
            for (path, bytes) in &image {
                for at in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
                    let mut changed = image.clone();
                    changed.insert(path.clone(), bytes[..at].to_vec());
                    let _ = shown(canary.kind, &changed);
                    let mut rotten = bytes.clone();
                    rotten[at] ^= 1 << (at % 8);
                    changed.insert(path.clone(), rotten);
                    let _ = shown(canary.kind, &changed);
                }
            }
        }
    }

    /// Every call fails once, in every way; what was acknowledged is there when the store is opened again.
    #[test]
    fn a_failed_call_costs_a_control_nothing_acknowledged() {
        let kinds = [CallKind::Create, CallKind::Rename, CallKind::Remove, CallKind::SyncDir, CallKind::Write, CallKind::SetLen];
        let faults = [Failure::Eio, Failure::Enospc, Failure::Short(5)];
        let plans = kinds.into_iter().chain([CallKind::Sync]).flat_map(|kind| faults.map(|fault| (kind, fault)));
        for (name, (kind, fault)) in CONTROLS.into_iter().flat_map(|name| plans.clone().map(move |plan| (name, plan))) {
            for skip in 0..40 {
                let (memory, mut sure) = (MemFs::new(), BTreeMap::new());
                let failing = FailingFs::new(Arc::new(memory.clone()));
                let session = opened(control(name), Arc::new(failing.clone()), Always).unwrap();
                failing.arm(Plan { kind, skip, times: 1, fault });
                let mut open = BTreeSet::new();
                for n in 0..60 {
                    let (key, value) = (format!("k{}", n % 7), format!("{n:-<90}"));
                    match put(&*session, &key, &value) {
                        Ok(()) => {
                            open.remove(&key);
                            sure.insert(key, value);
                        }
                        Err(e) => {
                            let is_full = matches!(e, SubjectError::Full(_));
                            assert!(
                                is_full || fault == Failure::Eio || kind != CallKind::Write,
                                "{name} {kind:?} {fault:?}: {e}"
                            );
                            open.insert(key);
                        }
                    }
                }
                drop(session);
                let shown =
                    shown(control(name), &memory.image()).unwrap_or_else(|e| panic!("{name} {kind:?} {fault:?} {skip}: {e}"));
                for (key, value) in &sure {
                    let found = shown[0].get(key);
                    assert!(found == Some(value) || open.contains(key), "{name} {kind:?} {fault:?} {skip}: {key} is {found:?}");
                }
            }
        }
    }
}
