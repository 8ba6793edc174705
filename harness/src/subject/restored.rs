//! A second LSM store beside the first, into which backups of the first are restored: for crashes to meet that.
//!
//! A restore takes the copy's marker away, brings the copy to what a backup holds (a whole one into a copy that is
//! emptied prefix by prefix, or an incremental one on top of the backup before), and puts a marker behind it that says
//! what the copy must hold from then on. So the copy judges itself whenever it is opened: under a marker stands exactly
//! what was backed up, nothing that was dropped, and no half of a restore.

use super::SubjectError;
use engine::fs::MemFs;
use engine::lsm::{Backup, Options, Store};
use engine::{Durability, codec};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// No table's name begins like this.
const MARKER: &[u8] = b"\0restored";

/// The copy of a store. It is open only while it is used.
pub(super) struct Restored {
    dir: PathBuf,
    options: Options,
    prefixes: Vec<String>,
    /// Restores of this session; two never run at once.
    count: Mutex<u64>,
}

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    /// The version of the first store that the copy holds.
    through: u64,
    /// A checksum over its keys and values.
    digest: u32,
}

impl Marker {
    fn encode(self) -> Vec<u8> {
        [&self.through.to_le_bytes()[..], &self.digest.to_le_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (through, digest) = bytes.split_first_chunk()?;
        Some(Self { through: u64::from_le_bytes(*through), digest: u32::from_le_bytes(digest.try_into().ok()?) })
    }
}

impl Restored {
    /// The copy that lies in `dir`; if it is there it must hold what its marker says.
    pub(super) fn open(dir: PathBuf, options: Options, prefixes: Vec<String>) -> Result<Self, SubjectError> {
        let there = options.fs.list(&dir).is_ok_and(|names| !names.is_empty());
        let restored = Self { dir, options, prefixes, count: Mutex::default() };
        if there {
            let copy = restored.store()?;
            restored.check(&copy)?;
            copy.close()?;
        }
        Ok(restored)
    }

    fn store(&self) -> Result<Store, SubjectError> {
        Ok(Store::open(&self.dir, self.options.clone())?)
    }

    fn check(&self, copy: &Store) -> Result<Option<Marker>, SubjectError> {
        let Some(bytes) = copy.get(MARKER)? else { return Ok(None) };
        let wrong = |why: String| SubjectError::Store(format!("a restored backup {why}"));
        let marker = Marker::read(&bytes).ok_or_else(|| wrong(format!("has {bytes:?} as its marker")))?;
        match digest(copy)? {
            found if found == marker.digest => Ok(Some(marker)),
            found => Err(wrong(format!("of version {} holds {found:08x} where {:08x} was", marker.through, marker.digest))),
        }
    }

    /// Backs `store` up and restores that into the copy; how often this session has done so.
    pub(super) fn renew(&self, store: &Store) -> Result<u64, SubjectError> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = self.store()?;
        let before = self.check(&copy)?;
        // Every third begins anew; what lies between goes on from the backup before, if the deletes since then are known.
        let part = before.filter(|_| *count % 3 != 2).and_then(|marker| taken(store, marker.through).ok());
        let (whole, stream) = taken(store, 0)?;
        // With writers beside them the two backups may be of two moments.
        let part = part.filter(|(part, _)| part.through == whole.through);
        copy.delete(MARKER)?;
        if part.is_none() {
            for prefix in &self.prefixes {
                copy.drop_prefix(prefix.as_bytes())?;
            }
        }
        copy.load(&mut part.as_ref().map_or(&stream, |(_, part)| part).as_slice(), Durability::Write)?;
        let marker = Marker { through: whole.through, digest: digest_of(whole, &stream)? };
        copy.put(MARKER, &marker.encode())?;
        self.check(&copy)?;
        copy.close()?;
        *count += 1;
        Ok(*count)
    }
}

fn taken(store: &Store, since: u64) -> Result<(Backup, Vec<u8>), SubjectError> {
    let mut stream = Vec::new();
    let backup = store.backup(&mut stream, since)?;
    Ok((backup, stream))
}

/// The checksum of a whole backup, by way of a store in memory.
fn digest_of(backup: Backup, stream: &[u8]) -> Result<u32, SubjectError> {
    let store = Store::open("/copy", Options { fs: Arc::new(MemFs::new()), background: false, ..Options::default() })?;
    store.load(&mut &stream[..], Durability::Async)?;
    match store.iter().count() as u64 {
        found if found == backup.records => digest(&store),
        found => Err(SubjectError::Store(format!("a backup of {} keys gives a store of {found}", backup.records))),
    }
}

/// A checksum over all keys and values but the marker.
fn digest(store: &Store) -> Result<u32, SubjectError> {
    let (mut entries, mut digest) = (store.iter(), 0);
    while let Some((key, value)) = entries.advance()? {
        if key != MARKER {
            for part in [&(key.len() as u64).to_le_bytes()[..], key, &(value.len() as u64).to_le_bytes(), value] {
                digest = codec::crc32c_append(digest, part);
            }
        }
    }
    Ok(digest)
}
