//! A store of your own under the harness: one line of JSON for each call, appended to one file.
//!
//! ```console
//! $ cargo run --release --example toy_store -- run kill --subject toy
//! $ cargo run --release --example toy_store -- run harness/examples/toy_store.toml
//! ```
//!
//! The second command runs a scenario of its own. `docs/subjects.md` says what each method must do.

use engine::fs::{File, read_full_at, write_all_at};
use engine::{Durability, SyncPolicy};
use harness::subject::{Change, Contents, Promise, Session, Site, Subject, SubjectError};
use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn main() -> std::process::ExitCode {
    harness::main_with(vec![Arc::new(Toy)])
}

/// The kind of store.
pub(crate) struct Toy;

/// An open one: what is in it, and where the file ends.
struct Opened {
    file: Arc<dyn File>,
    sync: SyncPolicy,
    state: Mutex<(Contents, u64)>,
}

/// A change as it stands in a line: table, key, and the value unless it is a delete.
type Line = (usize, String, Option<String>);

impl Subject for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn about(&self) -> String {
        "the example: a map in memory over a file with a line for each call".to_owned()
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        matches!(policy, SyncPolicy::Never | SyncPolicy::Always)
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        if policy.raise(level) == Durability::Sync { Promise::Power } else { Promise::Process }
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let path = site.dir.join("toy.log");
        let file = match site.fs.open(&path) {
            Err(e) if e.kind() == NotFound => site.fs.create(&path)?,
            opened => opened?,
        };
        site.fs.sync_dir(site.dir)?;
        let mut bytes = vec![0; file.len()? as usize];
        read_full_at(&*file, &mut bytes, 0)?;
        let (mut maps, mut end) = (vec![BTreeMap::new(); site.tables.len()], 0);
        for line in bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let Ok(changes) = serde_json::from_slice::<Vec<Line>>(line) else { break };
            changes.into_iter().for_each(|change| put(&mut maps, change));
            end += line.len() as u64;
        }
        // Whoever was killed while it wrote left a line without an end: nothing may be glued to it.
        file.set_len(end)?;
        Ok(Box::new(Opened { file, sync: site.sync, state: Mutex::new((maps, end)) }))
    }
}

fn put(maps: &mut Contents, (table, key, value): Line) {
    match value {
        Some(value) => drop(maps[table].insert(key, value)),
        None => drop(maps[table].remove(&key)),
    }
}

impl Opened {
    fn state(&self) -> MutexGuard<'_, (Contents, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session for Opened {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        self.batch(&[change], level)
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let own = |c: &Change<'_>| (c.table, c.key.to_owned(), c.value.map(str::to_owned));
        let changes: Vec<Line> = changes.iter().map(own).collect();
        let line = serde_json::to_string(&changes).map_err(|e| SubjectError::Store(e.to_string()))? + "\n";
        let mut state = self.state();
        let (maps, end) = &mut *state;
        write_all_at(&*self.file, line.as_bytes(), *end)?;
        if self.sync.raise(level) == Durability::Sync {
            self.file.sync_data()?;
        }
        *end += line.len() as u64;
        changes.into_iter().for_each(|change| put(maps, change));
        Ok(())
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        Ok(self.state().0[table].get(key).map(|value| look(value)).is_some())
    }

    fn sync(&self) -> Result<(), SubjectError> {
        Ok(self.file.sync_data()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Ok(self.state().0.clone())
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}
