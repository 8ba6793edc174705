//! Each canary is red under the fault that its row names, and its store without the bug is green under all.
//!
//! The crashes here are few and made on the spot from a trace: enough to show that a bug is there. They are
//! harsh: names, lengths and sectors that are not synced are lost and kept independently of each other.

use engine::fs::{CallKind, FailingFs, Fault as Failure, Fs, FsOp, MemFs, Plan, Recorded, TraceFs};
use engine::{Durability, SyncPolicy};
use harness::subject::canary::{CANARIES, Fault};
use harness::subject::{Change, Contents, Registry, Session, Site, Subject, SubjectError, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Image = BTreeMap<PathBuf, Vec<u8>>;

const DIR: &str = "/store";
const SECTOR: usize = 512;
const CALLS: usize = 60;

fn opened(subject: &dyn Subject, fs: &Arc<dyn Fs>, sync: SyncPolicy) -> Result<Box<dyn Session>, SubjectError> {
    let tables = ["left", "right"].map(|name| Table { name: name.to_owned(), sync: None });
    fs.create_dir_all(Path::new(DIR))?;
    subject.open(&Site { dir: Path::new(DIR), fs: Arc::clone(fs), sync, tables: &tables, background: false })
}

/// One call: its changes, after how many calls of the file system it began, and when it was acknowledged.
struct Call {
    changes: Vec<(usize, String, Option<String>)>,
    begun: usize,
    acked: Option<usize>,
}

/// Puts, deletes and batches; values are all different, and some are larger than a sector.
fn calls(session: &dyn Session, first: usize, clock: &dyn Fn() -> usize) -> Vec<Call> {
    let mut calls = Vec::new();
    for n in first..first + CALLS {
        let value = |part: &str| Some(format!("{n}{part}-").repeat(if n % 5 == 0 { 130 } else { 12 }));
        let changes = match n % 8 {
            3 => vec![(0, format!("k{}", (n + 4) % 7), None)],
            1 | 6 => vec![(0, "both".to_owned(), value("")), (1, "both".to_owned(), value(""))],
            _ => vec![(0, format!("k{}", n % 7), value("x"))],
        };
        let borrowed: Vec<_> =
            changes.iter().map(|(table, key, value)| Change { table: *table, key, value: value.as_deref() }).collect();
        let begun = clock();
        let done = match &borrowed[..] {
            [one] => session.apply(*one, Durability::Write),
            many => session.batch(many, Durability::Write),
        };
        calls.push(Call { changes, begun, acked: done.is_ok().then(clock) });
        if n % 25 == 24 {
            let _ = session.shrink();
        }
    }
    calls
}

/// What is wrong with `contents` after a crash at `at`.
fn fault(base: &Contents, calls: &[Call], contents: &Contents, at: usize) -> Option<String> {
    if contents[0].get("both") != contents[1].get("both") {
        return Some("half a batch".to_owned());
    }
    let mut lawful: BTreeMap<(usize, &str), Vec<Option<&str>>> = BTreeMap::new();
    for (table, map) in base.iter().enumerate() {
        map.iter().for_each(|(key, value)| drop(lawful.insert((table, key), vec![Some(value)])));
    }
    for call in calls.iter().filter(|call| call.begun <= at) {
        for (table, key, value) in &call.changes {
            let versions = lawful.entry((*table, key)).or_insert_with(|| vec![None]);
            if call.acked.is_some_and(|acked| acked <= at) {
                versions.clear();
            }
            versions.push(value.as_deref());
        }
    }
    for (table, map) in contents.iter().enumerate() {
        if let Some(key) = map.keys().find(|key| !lawful.contains_key(&(table, key.as_str()))) {
            return Some(format!("{key} was never written"));
        }
    }
    let wrong =
        lawful.iter().find(|((table, key), versions)| !versions.contains(&contents[*table].get(*key).map(String::as_str)));
    wrong.map(|((_, key), _)| format!("{key} is not what it may be"))
}

/// The smallest thing that power loss takes or leaves.
#[derive(Clone, Debug)]
enum Atom {
    Name(PathBuf, Option<u64>),
    Rename(PathBuf, PathBuf, u64),
    Size(u64, usize),
    Cut(u64, usize),
    Sector(u64, usize, Vec<u8>),
}

impl Atom {
    fn inode(&self) -> Option<u64> {
        match self {
            Atom::Name(..) | Atom::Rename(..) => None,
            Atom::Size(inode, _) | Atom::Cut(inode, _) | Atom::Sector(inode, ..) => Some(*inode),
        }
    }
}

/// The atoms of a trace so far, each with whether it is durable, over the files that were there before.
#[derive(Default)]
struct Disk {
    base: BTreeMap<u64, Vec<u8>>,
    base_names: BTreeMap<PathBuf, u64>,
    names: BTreeMap<PathBuf, u64>,
    atoms: Vec<(Atom, bool)>,
    suspect: BTreeSet<usize>,
    /// The length of each file, as the running store sees it.
    lens: BTreeMap<u64, usize>,
}

impl Disk {
    fn take(&mut self, image: &Image, call: &Recorded) {
        let mut push = |atom| self.atoms.push((atom, false));
        match &call.op {
            FsOp::Open { path, inode } if !self.names.contains_key(path) => {
                let bytes = image.get(path).cloned().unwrap_or_default();
                self.lens.insert(*inode, bytes.len());
                self.base.insert(*inode, bytes);
                self.base_names.insert(path.clone(), *inode);
                self.names.insert(path.clone(), *inode);
            }
            FsOp::Create { path, inode } if call.ok => {
                push(Atom::Name(path.clone(), Some(*inode)));
                push(Atom::Cut(*inode, 0));
                self.lens.insert(*inode, 0);
                self.names.insert(path.clone(), *inode);
            }
            FsOp::Rename { from, to } if call.ok => {
                let inode = self.names.remove(from).unwrap();
                push(Atom::Rename(from.clone(), to.clone(), inode));
                self.names.insert(to.clone(), inode);
            }
            FsOp::Remove { path } if call.ok => {
                push(Atom::Name(path.clone(), None));
                self.names.remove(path);
            }
            FsOp::SetLen { inode, len } if call.ok => {
                let (len, old) = (*len as usize, self.lens.insert(*inode, *len as usize).unwrap_or_default());
                push(if len < old { Atom::Cut(*inode, len) } else { Atom::Size(*inode, len) });
            }
            FsOp::Write { inode, offset, bytes } if call.ok => {
                let mut at = *offset as usize;
                push(Atom::Size(*inode, at + bytes.len()));
                let len = self.lens.entry(*inode).or_default();
                *len = (*len).max(at + bytes.len());
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (sector, behind) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                    push(Atom::Sector(*inode, at, sector.to_vec()));
                    (at, rest) = (at + sector.len(), behind);
                }
            }
            FsOp::SyncDir { .. } if call.ok => {
                self.atoms.iter_mut().filter(|(atom, _)| atom.inode().is_none()).for_each(|(_, durable)| *durable = true);
            }
            FsOp::SyncData { inode } | FsOp::SyncAll { inode } => {
                for (n, (atom, durable)) in self.atoms.iter_mut().enumerate() {
                    if atom.inode() == Some(*inode) && !call.ok && !*durable {
                        // Marked clean without being written: no later sync makes it durable.
                        self.suspect.insert(n);
                    } else if atom.inode() == Some(*inode) && !self.suspect.contains(&n) {
                        *durable = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// What is there after power loss that kept these of the volatile atoms.
    fn image(&self, image: &Image, kept: &dyn Fn(usize, &Atom) -> bool) -> Image {
        let mut names = self.base_names.clone();
        let mut files = self.base.clone();
        for (n, (atom, durable)) in self.atoms.iter().enumerate() {
            // A cut that something later was built on is there too.
            let is_needed = matches!(atom, Atom::Cut(..))
                && self.atoms[n + 1..]
                    .iter()
                    .enumerate()
                    .any(|(later, (other, durable))| other.inode() == atom.inode() && (*durable || kept(n + 1 + later, other)));
            if !*durable && !is_needed && !kept(n, atom) {
                continue;
            }
            match atom {
                Atom::Name(path, Some(inode)) => drop(names.insert(path.clone(), *inode)),
                Atom::Name(path, None) => drop(names.remove(path)),
                Atom::Rename(from, to, inode) => {
                    names.remove(from);
                    names.insert(to.clone(), *inode);
                }
                Atom::Cut(inode, len) => files.entry(*inode).or_default().resize(*len, 0),
                Atom::Size(inode, len) => {
                    let file = files.entry(*inode).or_default();
                    file.resize(file.len().max(*len), 0);
                }
                Atom::Sector(inode, at, bytes) => {
                    let file = files.entry(*inode).or_default();
                    file.resize(file.len().max(at + bytes.len()), 0);
                    file[*at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        let untouched = image.iter().filter(|(path, _)| !self.base_names.contains_key(*path));
        let untouched = untouched.filter(|(path, _)| !names.contains_key(*path));
        let mut after: Image = untouched.map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
        after.extend(names.into_iter().map(|(path, inode)| (path, files.get(&inode).cloned().unwrap_or_default())));
        after
    }

    /// A few of the states that power loss can leave.
    fn states(&self, image: &Image, is_kill: bool) -> BTreeSet<Image> {
        let mut states = BTreeSet::from([self.image(image, &|_, _| true)]);
        if is_kill {
            return states;
        }
        states.insert(self.image(image, &|_, _| false));
        states.insert(self.image(image, &|_, atom| atom.inode().is_none()));
        states.insert(self.image(image, &|_, atom| atom.inode().is_some()));
        states.insert(self.image(image, &|_, atom| !matches!(atom, Atom::Sector(..))));
        let volatile = self.atoms.iter().enumerate().filter(|(_, (_, durable))| !durable).map(|(n, _)| n);
        for one in volatile.collect::<Vec<_>>().into_iter().rev().take(10) {
            states.insert(self.image(image, &|n, _| n == one));
            states.insert(self.image(image, &|n, _| n != one));
            states.insert(self.image(image, &|n, _| n < one));
        }
        states
    }
}

/// Lets the store live on a device that fails as planned, then without failures, and crashes it everywhere.
/// `again` crashes what came out of a crash once more.
fn crashed(
    subject: &dyn Subject,
    sync: SyncPolicy,
    image: &Image,
    plan: Option<Plan>,
    is_kill: bool,
    again: bool,
) -> Option<String> {
    let memory = MemFs::from_image(image);
    let failing = FailingFs::new(Arc::new(memory));
    let trace = TraceFs::new(Arc::new(failing.clone()));
    let fs: Arc<dyn Fs> = Arc::new(trace.clone());
    let clock = || trace.recorder().entries().len();
    let session = match opened(subject, &fs, sync) {
        Ok(session) => session,
        Err(e) => return Some(format!("does not open: {e}")),
    };
    let opened_at = clock();
    let base = session.contents().unwrap();
    if let Some(plan) = plan {
        failing.arm(plan);
    }
    let mut all = calls(&*session, 100, &clock);
    if plan.is_some() {
        drop(session);
        failing.disarm();
        match opened(subject, &fs, sync) {
            Ok(session) => all.extend(calls(&*session, 200, &clock)),
            Err(e) => return Some(format!("does not open after a failed call: {e}")),
        }
    }
    let mut disk = Disk::default();
    let (mut seconds, entries) = (0, trace.recorder().entries());
    for (n, call) in entries.iter().enumerate() {
        disk.take(image, call);
        let at = n + 1;
        for after in disk.states(image, is_kill) {
            let fs: Arc<dyn Fs> = Arc::new(MemFs::from_image(&after));
            let session = match opened(subject, &fs, sync) {
                Ok(session) => session,
                Err(e) => return Some(format!("does not open after a crash at {at}: {e}")),
            };
            let contents = match session.contents() {
                Ok(contents) => contents,
                Err(e) => return Some(format!("cannot be read after a crash at {at}: {e}")),
            };
            if let Some(wrong) = fault(&base, &all, &contents, at).filter(|_| at >= opened_at || !image.is_empty()) {
                return Some(format!("{wrong}, after a crash at {at}"));
            }
            if again && session.repaired().is_some() && seconds < 12 {
                seconds += 1;
                if let Some(wrong) = crashed(subject, sync, &after, None, is_kill, false) {
                    return Some(format!("second crash after one at {at}: {wrong}"));
                }
            }
            if again
                && is_kill
                && at % 40 == 0
                && let Some(wrong) = crashed(subject, sync, &after, None, is_kill, false)
            {
                return Some(format!("second kill after one at {at}: {wrong}"));
            }
        }
    }
    None
}

fn with_errors(subject: &dyn Subject, sync: SyncPolicy) -> Option<String> {
    let plans = [
        (CallKind::Sync, Failure::Eio),
        (CallKind::Write, Failure::Short(20)),
        (CallKind::Write, Failure::Enospc),
        (CallKind::SyncDir, Failure::Eio),
    ];
    let runs = plans.into_iter().flat_map(|(kind, fault)| [3, 14, 31].map(|skip| Plan { kind, skip, times: 1, fault }));
    runs.into_iter().find_map(|plan| {
        let found = crashed(subject, sync, &Image::new(), Some(plan), false, false);
        found.map(|wrong| format!("{plan:?}: {wrong}"))
    })
}

/// A store that was closed, and what it held.
fn closed(subject: &dyn Subject, sync: SyncPolicy) -> (MemFs, Contents) {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let session = opened(subject, &fs, sync).unwrap();
    calls(&*session, 0, &|| 0);
    session.apply(Change { table: 0, key: "k3", value: None }, Durability::Write).unwrap();
    let _ = session.shrink();
    for value in ["first", "second", "last"] {
        session.apply(Change { table: 1, key: value, value: Some(value) }, Durability::Write).unwrap();
    }
    let contents = session.contents().unwrap();
    session.close().unwrap();
    (memory, contents)
}

fn rotten(subject: &dyn Subject, sync: SyncPolicy) -> Option<String> {
    let (memory, contents) = closed(subject, sync);
    let image = memory.image();
    for (path, bytes) in &image {
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = image.clone();
            changed.get_mut(path).unwrap()[at] ^= 4;
            let fs: Arc<dyn Fs> = Arc::new(MemFs::from_image(&changed));
            if opened(subject, &fs, sync).is_ok_and(|session| session.contents().unwrap() != contents) {
                return Some(format!("shows rot at {at} of {}", path.display()));
            }
        }
    }
    None
}

/// A clean restart, and one during which a read fails.
fn restarted(subject: &dyn Subject, sync: SyncPolicy, does_fail: bool) -> Option<String> {
    let (memory, contents) = closed(subject, sync);
    for skip in 0..if does_fail { 6 } else { 1 } {
        let failing = FailingFs::new(Arc::new(memory.clone()));
        let fs: Arc<dyn Fs> = Arc::new(failing.clone());
        if does_fail {
            failing.arm(Plan { kind: CallKind::Read, skip, times: 1, fault: Failure::Eio });
        }
        let shown = opened(subject, &fs, sync).and_then(|session| session.contents());
        if shown.as_ref().map_or(!does_fail, |shown| *shown != contents) {
            return Some("a restart changes what is there".to_owned());
        }
    }
    None
}

fn convicted(subject: &dyn Subject, sync: SyncPolicy, fault: Fault) -> Option<String> {
    match fault {
        Fault::Restart => restarted(subject, sync, false),
        Fault::Kill => crashed(subject, sync, &Image::new(), None, true, true),
        Fault::Power => crashed(subject, sync, &Image::new(), None, false, true),
        Fault::Error => restarted(subject, sync, true).or_else(|| with_errors(subject, sync)),
        Fault::Rot => rotten(subject, sync),
    }
}

#[test]
fn a_canary_is_red_under_the_fault_of_its_row() {
    let registry = Registry::new(vec![]);
    // The lines have no checksums; children that are killed for real convict them.
    let got_away = CANARIES[4..].iter().filter(|canary| {
        let subject = registry.get(canary.name).unwrap();
        convicted(&*subject, canary.sync, canary.exposed_by).is_none()
    });
    assert_eq!(got_away.map(|canary| canary.name).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_control_is_green_under_every_fault() {
    let registry = Registry::new(vec![]);
    for name in ["control-log", "control-pages"] {
        let subject = registry.get(name).unwrap();
        for fault in [Fault::Restart, Fault::Kill, Fault::Power, Fault::Error, Fault::Rot] {
            assert_eq!(convicted(&*subject, SyncPolicy::Always, fault), None, "{name} under {fault}");
        }
        assert_eq!(convicted(&*subject, SyncPolicy::Never, Fault::Kill), None, "{name} under never");
    }
}
