//! Where a store lies, and what lies there.

use super::options::Options;
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock};
use crate::log::{remove_leftover, take_lock};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory and the prefix of a store's files in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    prefix: String,
}

/// Who may be there only once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Writer,
    Reader,
}

impl Place {
    /// The place, made if it is not there.
    pub(super) fn new(dir: &Path, options: &Options) -> Result<Self> {
        options.check()?;
        let place = Self { fs: options.fs.clone(), dir: dir.to_owned(), prefix: options.prefix.clone() };
        place.fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        Ok(place)
    }

    /// The file with the entries from some index on.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}-{number:08}.fifo", self.prefix))
    }

    /// The log of deletes.
    pub(super) fn deletes(&self) -> PathBuf {
        self.dir.join(format!("{}.deletes", self.prefix))
    }

    /// The number of a segment, if the name is one of this store's: all of the name counts, so that no other prefix
    /// that begins alike is taken for this one.
    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(".fifo")?;
        (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    }

    /// The numbers of the segments, ascending.
    pub(super) fn segments(&self) -> Result<Vec<u64>> {
        let names = self.fs.list(&self.dir).map_err(|e| Error::io("list", &self.dir, e))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| self.number(name.to_str()?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes drafts that never got their name: those of the writer, or those of the reader.
    pub(super) fn remove_drafts(&self, role: Role) -> Result<()> {
        let deletes = format!("{}.deletes", self.prefix);
        for name in self.fs.list(&self.dir).map_err(|e| Error::io("list", &self.dir, e))? {
            let Some(draft) = name.to_str().and_then(|name| name.strip_suffix(".new")) else { continue };
            let ours = match role {
                Role::Writer => self.number(draft).is_some(),
                Role::Reader => draft == deletes,
            };
            if ours {
                remove_leftover(&*self.fs, &self.dir.join(&name))?;
            }
        }
        Ok(())
    }

    /// Takes the lock of a role.
    pub(super) fn lock(&self, role: Role) -> Result<Box<dyn Lock>> {
        let role = match role {
            Role::Writer => "writer",
            Role::Reader => "reader",
        };
        take_lock(&*self.fs, &self.dir.join(format!("{}.{role}.lock", self.prefix)), &self.dir)
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.fs.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))
    }
}
