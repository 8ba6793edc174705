//! A log of lines without checksums or segments, for bugs that show in any log. It has no control: a torn
//! line is all that it can tell.

use super::super::{Change, Contents, Session, Site, SubjectError};
use engine::Durability;
use engine::fs::{File, read_full_at, write_all_at};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Acknowledges while the change is in a buffer of the process.
    AckEarly,
    /// Writes a batch change by change, without an end.
    TornBatch,
    /// Reopens behind a torn line instead of cutting it, so that the next line is glued to it.
    AppendBehindTear,
    /// Never writes deletes.
    LostDelete,
}

struct LineSession {
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

/// Opens or creates the log.
pub(super) fn open(site: &Site<'_>, bug: Bug) -> Result<Box<dyn Session>, SubjectError> {
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
    state.end = if bug == Bug::AppendBehindTear { bytes.len() } else { whole } as u64;
    if bug != Bug::AppendBehindTear {
        file.set_len(state.end)?;
    }
    Ok(Box::new(LineSession { bug, file, tables: site.tables.len(), state: Mutex::new(state) }))
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

impl LineSession {
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

impl Session for LineSession {
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
