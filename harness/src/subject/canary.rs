//! Stores broken on purpose. A run in which one of them survives judges nothing.
//!
//! All are the same small log of lines with one bug each, named by what it does wrong.

use super::{Change, Contents, Promise, Session, Site, Subject, SubjectError};
use crate::result::Role;
use engine::fs::{File, read_full_at, write_all_at};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bundled canaries.
pub fn all() -> Vec<Arc<dyn Subject>> {
    [Bug::AckEarly, Bug::TornBatch, Bug::AppendBehindTear, Bug::LostDelete]
        .map(|bug| Arc::new(Canary(bug)) as Arc<dyn Subject>)
        .into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Acknowledges while the change is in a buffer of the process.
    AckEarly,
    /// Writes a batch change by change, without an end.
    TornBatch,
    /// Reopens behind a torn line instead of cutting it, so that the next line is glued to it.
    AppendBehindTear,
    /// Never writes deletes.
    LostDelete,
}

struct Canary(Bug);

struct CanarySession {
    bug: Bug,
    file: Arc<dyn File>,
    tables: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    maps: Contents,
    end: u64,
    buffer: Vec<u8>,
    changes: u64,
}

impl Subject for Canary {
    fn name(&self) -> &str {
        match self.0 {
            Bug::AckEarly => "canary-ack-early",
            Bug::TornBatch => "canary-torn-batch",
            Bug::AppendBehindTear => "canary-append-behind-tear",
            Bug::LostDelete => "canary-lost-delete",
        }
    }

    fn version(&self) -> String {
        "-".to_owned()
    }

    fn about(&self) -> String {
        let bug = match self.0 {
            Bug::AckEarly => "acknowledges before it writes",
            Bug::TornBatch => "writes a batch in pieces",
            Bug::AppendBehindTear => "appends behind a torn tail",
            Bug::LostDelete => "never writes deletes",
        };
        format!("broken on purpose: {bug}")
    }

    fn role(&self) -> Role {
        Role::Canary
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == SyncPolicy::Never
    }

    fn promise(&self, _: SyncPolicy, level: Durability) -> Promise {
        if level == Durability::Async { Promise::None } else { Promise::Process }
    }

    fn keeps_prefix(&self) -> bool {
        true
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let path = site.dir.join("canary.log");
        let file = match site.fs.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => site.fs.create(&path)?,
            other => other?,
        };
        let mut bytes = vec![0; file.len()? as usize];
        read_full_at(&*file, &mut bytes, 0)?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
        let mut state = State { maps: vec![BTreeMap::new(); site.tables.len()], ..State::default() };
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            replay(&mut state.maps, line);
        }
        state.end = if self.0 == Bug::AppendBehindTear { bytes.len() } else { whole } as u64;
        if self.0 != Bug::AppendBehindTear {
            file.set_len(state.end)?;
        }
        Ok(Box::new(CanarySession { bug: self.0, file, tables: site.tables.len(), state: Mutex::new(state) }))
    }
}

/// One line is one atomic step: changes `table TAB key [TAB value]`, separated by the unit separator.
fn replay(maps: &mut Contents, line: &str) {
    for change in line.split('\u{1f}') {
        let mut fields = change.splitn(3, '\t');
        let table = fields.next().and_then(|t| t.parse::<usize>().ok()).and_then(|t| maps.get_mut(t));
        match (table, fields.next(), fields.next()) {
            (Some(table), Some(key), Some(value)) => drop(table.insert(key.to_owned(), value.to_owned())),
            (Some(table), Some(key), None) => drop(table.remove(key)),
            _ => {}
        }
    }
}

fn line(changes: &[Change<'_>]) -> String {
    let change = |c: &Change<'_>| match c.value {
        Some(value) => format!("{}\t{}\t{value}", c.table, c.key),
        None => format!("{}\t{}", c.table, c.key),
    };
    changes.iter().map(change).collect::<Vec<_>>().join("\u{1f}") + "\n"
}

impl CanarySession {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, state: &mut State) -> Result<(), SubjectError> {
        write_all_at(&*self.file, &state.buffer, state.end)?;
        state.end += state.buffer.len() as u64;
        state.buffer.clear();
        Ok(())
    }

    fn log(&self, changes: &[Change<'_>]) -> Result<(), SubjectError> {
        let mut state = self.state();
        state.changes += 1;
        let text = line(changes);
        replay(&mut state.maps, text.trim_end_matches('\n'));
        match self.bug {
            Bug::LostDelete if changes.iter().all(|c| c.value.is_none()) => return Ok(()),
            Bug::TornBatch => {
                for change in changes {
                    state.buffer.extend_from_slice(line(std::slice::from_ref(change)).as_bytes());
                    self.write_out(&mut state)?;
                }
            }
            _ => state.buffer.extend_from_slice(text.as_bytes()),
        }
        let late = self.bug == Bug::AckEarly && !state.changes.is_multiple_of(64);
        if late { Ok(()) } else { self.write_out(&mut state) }
    }
}

impl Session for CanarySession {
    fn apply(&self, change: Change<'_>, _: Durability) -> Result<(), SubjectError> {
        self.log(&[change])
    }

    fn batch(&self, changes: &[Change<'_>], _: Durability) -> Result<(), SubjectError> {
        self.log(changes)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        Ok(self.state().maps[table].get(key).map(|value| look(value)).is_some())
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.write_out(&mut self.state())?;
        Ok(self.file.sync_data()?)
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let maps = self.state().maps.clone();
        debug_assert_eq!(maps.len(), self.tables);
        Ok(maps)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        self.write_out(&mut self.state())
    }
}
