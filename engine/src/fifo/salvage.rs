//! Reading a damaged store: every entry that is intact, and a report of the rest. Nothing is changed.

use super::indexes::Indexes;
use super::options::Options;
use super::place::{Place, Role};
use super::reader::{Entry, replay_deletes};
use super::record::{BACK, Entries, FRONT, MARK};
use super::segment::Segment;
use super::typed::Encoding;
use crate::error::{Error, Result};
use crate::log::{Dropped, Framing, Mode, replay};
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};

/// What was found in a damaged store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged<T = Entry> {
    /// What is intact, in the order of its indexes. What the log of deletes no longer tells of may be back.
    pub entries: Vec<T>,
    /// What is not.
    pub dropped: Vec<Loss>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes; 0 if that is not known.
    pub len: u64,
    /// What was found there.
    pub what: String,
}

impl Loss {
    fn at(file: &Path, dropped: Dropped) -> Self {
        Self { file: file.to_owned(), offset: dropped.offset, len: dropped.len, what: dropped.what }
    }

    fn of(e: Error) -> Result<Self> {
        match e {
            Error::Corrupt { file, offset, what, .. } => Ok(Self { file, offset, len: 0, what }),
            Error::Format { file, found } => Ok(Self { file, offset: 0, len: 0, what: format!("it starts with {found:?}") }),
            e => Err(e),
        }
    }
}

/// Reads what is intact, whatever it holds: of a store with entries of one kind or of many.
///
/// # Errors
/// [`Error::Locked`]; [`Error::Io`] when files cannot be read at all.
pub fn salvage(dir: impl AsRef<Path>, options: &Options) -> Result<Salvaged> {
    let place = Place::new(dir.as_ref(), options)?;
    let _held = (place.lock(Role::Writer)?, place.lock(Role::Reader)?);
    let mut found = Salvaged { entries: Vec::new(), dropped: Vec::new() };
    let deleted = deletes(&place, &mut found.dropped)?;
    for number in place.segments()? {
        if let Err(e) = read(&place, number, &deleted, &mut found) {
            found.dropped.push(Loss::of(e)?);
        }
    }
    Ok(found)
}

/// As [`salvage`], for entries of one type; one that is of another is dropped and reported.
///
/// # Errors
/// As there.
pub fn salvage_typed<T: DeserializeOwned>(
    dir: impl AsRef<Path>,
    options: &Options,
    encoding: Encoding,
) -> Result<Salvaged<(u64, T)>> {
    let Salvaged { entries, mut dropped } = salvage(&dir, options)?;
    let mut typed = Vec::new();
    for Entry { index, value } in entries {
        match encoding.decode(&value) {
            Ok(decoded) => typed.push((index, decoded)),
            Err(e) => dropped.push(Loss {
                file: dir.as_ref().to_owned(),
                offset: 0,
                len: value.len() as u64,
                what: format!("entry {index}: {e}"),
            }),
        }
    }
    Ok(Salvaged { entries: typed, dropped })
}

fn deletes(place: &Place, dropped: &mut Vec<Loss>) -> Result<Indexes> {
    let path = place.deletes();
    let file = match place.fs.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Indexes::default()),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    match replay_deletes(&*file, &path, Mode::Salvage) {
        Ok((deleted, replayed)) => {
            dropped.extend(replayed.dropped.into_iter().map(|loss| Loss::at(&path, loss)));
            Ok(deleted)
        }
        Err(e) => {
            dropped.push(Loss::of(e)?);
            Ok(Indexes::default())
        }
    }
}

fn read(place: &Place, number: u64, deleted: &Indexes, found: &mut Salvaged) -> Result<()> {
    let (segment, _) = Segment::open(place, number)?;
    let (path, first, len) = (&segment.path, segment.first, segment.len()?);
    let Salvaged { entries, dropped } = found;
    let replayed = replay(&*segment.file, path, Framing::Binary, segment.start..len, Mode::Salvage, |offset, kind, body| {
        if kind == MARK {
            return Ok(());
        }
        let mut wrong = |what: &str| {
            let len = body.len() as u64;
            dropped.push(Loss { file: path.clone(), offset, len, what: what.to_owned() });
        };
        let Some(mut record) = Entries::read(body).filter(|_| matches!(kind, BACK | FRONT)) else {
            wrong("a record that makes no sense");
            return Ok(());
        };
        while let Some((delta, range)) = record.next(body) {
            let index = first.saturating_add(delta);
            // A file may hold an old copy of another.
            if entries.last().is_some_and(|last| last.index >= index) {
                wrong("an entry that does not belong here");
                break;
            }
            if !deleted.contains(index) {
                entries.push(Entry { index, value: body[range].to_vec() });
            }
        }
        Ok(())
    })?;
    dropped.extend(replayed.dropped.into_iter().map(|loss| Loss::at(path, loss)));
    Ok(())
}
