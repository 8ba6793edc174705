//! go-durostore's own scheme, ported: an index file and a data file, one write to each for every entry, files opened and
//! the size of all of them asked for in every call. It keeps its promises no better than the original; it is here to be
//! compared with.

use super::{Contents, End, Fifo, Promise, Session, Site, Subject, SubjectError};
use crate::result::Role;
use engine::fs::{Fs, read_full_at, write_all_at};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The baseline.
#[derive(Clone, Copy, Debug)]
pub struct Durostore;

/// Bytes of an index record: deleted, index, start, finish.
const RECORD: u64 = 25;

struct DuroSession {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    end: u64,
    /// Where each entry lies, as the original's map has it.
    live: BTreeMap<u64, (u64, u64)>,
}

impl Subject for Durostore {
    fn name(&self) -> &str {
        "durostore-port"
    }

    fn version(&self) -> String {
        "ce5a1b8".to_owned()
    }

    fn about(&self) -> String {
        "go-durostore's scheme: one data and one index write for each entry, nothing synced".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == SyncPolicy::Never
    }

    fn promise(&self, _: SyncPolicy, _: Durability) -> Promise {
        Promise::None
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let session = DuroSession { fs: Arc::clone(&site.fs), dir: site.dir.to_owned(), state: Mutex::default() };
        for name in ["duro_001.idx", "duro_001.dat"] {
            match site.fs.open(&site.dir.join(name)) {
                Ok(_) => {}
                Err(_) => drop(site.fs.create(&site.dir.join(name))?),
            }
        }
        session.load()?;
        Ok(Box::new(session))
    }
}

impl DuroSession {
    fn load(&self) -> Result<(), SubjectError> {
        let index = self.fs.open(&self.dir.join("duro_001.idx"))?;
        let mut bytes = vec![0; index.len()? as usize];
        read_full_at(&*index, &mut bytes, 0)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for record in bytes.chunks_exact(RECORD as usize) {
            let number = |at: usize| record[at..at + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
            state.next = number(1) + 1;
            state.end = number(17);
            if record[0] == 0 {
                state.live.insert(number(1), (number(9), number(17)));
            }
        }
        Ok(())
    }

    /// The original sums up the sizes of all data files before it writes.
    fn size(&self) -> Result<u64, SubjectError> {
        let mut size = 0;
        for name in self.fs.list(&self.dir)? {
            if name.to_string_lossy().ends_with(".dat") {
                size += self.fs.open(&self.dir.join(name))?.len()?;
            }
        }
        Ok(size)
    }
}

fn record(deleted: bool, index: u64, start: u64, finish: u64) -> Vec<u8> {
    let numbers = [index, start, finish];
    std::iter::once(u8::from(deleted)).chain(numbers.into_iter().flat_map(u64::to_be_bytes)).collect()
}

impl Session for DuroSession {
    fn sync(&self) -> Result<(), SubjectError> {
        Err(SubjectError::Unsupported("sync"))
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Err(SubjectError::Unsupported("contents"))
    }

    fn fifo(&self) -> Option<&dyn Fifo> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}

impl Fifo for DuroSession {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        if end == End::Front || level == Durability::Sync {
            return Err(SubjectError::Unsupported("front, and no sync"));
        }
        self.size()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, data) = (self.fs.open(&self.dir.join("duro_001.idx"))?, self.fs.open(&self.dir.join("duro_001.dat"))?);
        let first = state.next;
        write_all_at(&*data, &values.concat(), state.end)?;
        for value in values {
            let (number, start) = (state.next, state.end);
            let finish = start + value.len() as u64;
            write_all_at(&*index, &record(false, number, start, finish), number * RECORD)?;
            state.live.insert(number, (start, finish));
            (state.next, state.end) = (number + 1, finish);
        }
        Ok(first)
    }

    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        if level == Durability::Sync {
            return Err(SubjectError::Unsupported("sync"));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        while taken < most
            && let Some((&index, &(start, finish))) = state.live.first_key_value()
        {
            let data = self.fs.open(&self.dir.join("duro_001.dat"))?;
            let mut value = vec![0; (finish - start) as usize];
            read_full_at(&*data, &mut value, start)?;
            let file = self.fs.open(&self.dir.join("duro_001.idx"))?;
            write_all_at(&*file, &record(true, index, start, finish), index * RECORD)?;
            state.live.remove(&index);
            look(index, &value);
            taken += 1;
        }
        Ok(taken)
    }
}
