//! The manifest: a log of edits, each synced before anything relies on it.
//!
//! A record is an [`Edit`] as JSON in the binary framing, kind E. The file is rewritten as one edit when it has
//! grown, under another name that is synced before it is renamed.
//!
//! **Invariant:** a file is removed only after the edit that lets go of it is durable, and named only after its
//! bytes and its name are.

use super::version::{Edit, Levels};
use crate::error::{Error, Result};
use crate::fs::{File, Fs, parent};
use crate::log::{Framing, Header, Log, Mode, Replayed, draft_segment, identify, publish_segment, replay};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The manifest of an open store.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    log: Log,
    pub(super) levels: Levels,
    /// Length of the file when it was last rewritten or opened.
    whole: u64,
}

/// Where the manifest of a store lies.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}

impl Manifest {
    /// Makes the manifest of a store whose files are all durable.
    pub(super) fn create(fs: &dyn Fs, dir: &Path, levels: Levels) -> Result<()> {
        Self::draft(fs, path(dir), levels)?;
        publish_segment(fs, &path(dir))
    }

    /// Reads the manifest.
    pub(super) fn open(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let path = path(dir);
        let file = fs.open(&path).map_err(|e| Error::io("open", &path, e))?;
        Self::read(fs, path, file)
    }

    /// A manifest of one edit that has no name yet.
    fn draft(fs: &dyn Fs, path: PathBuf, levels: Levels) -> Result<Self> {
        let body = encode(&levels.whole());
        let mut content = Vec::new();
        Framing::Binary.encode(&mut content, b'E', &body, Framing::checksum(b'E', &body), None);
        let file = draft_segment(fs, &path, Header::Manifest, &content, 0)?;
        let end = (Header::Manifest.line().len() + content.len()) as u64;
        Ok(Self { log: Log::new(&path, Framing::Binary, file, end, end), path, levels, whole: end })
    }

    /// What the manifest says, changing nothing. A torn tail is an error here: the last edit may have been whole once.
    pub(super) fn peek(fs: &dyn Fs, dir: &Path) -> Result<Levels> {
        let path = path(dir);
        match fs.open(&path) {
            Ok(file) => match Self::replay(&path, &*file)? {
                (_, Replayed { cut: Some(cut), .. }) => Err(Error::corrupt(&path, cut.offset, cut.what)),
                (levels, _) => Ok(levels),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::corrupt(&path, 0, "the file is not there")),
            Err(e) => Err(Error::io("open", &path, e)),
        }
    }

    fn replay(path: &Path, file: &dyn File) -> Result<(Levels, Replayed)> {
        let Some(Header::Manifest) = identify(file, path)? else {
            return Err(Error::Format { file: path.to_owned(), found: "something else than a manifest".to_owned() });
        };
        let start = Header::Manifest.line().len() as u64;
        let len = file.len().map_err(|e| Error::io("read", path, e))?;
        let mut levels = Levels::new();
        let found = replay(file, path, Framing::Binary, start..len, Mode::Strict, |offset, _, body| {
            let edit: Edit = serde_json::from_slice(body).map_err(|e| corrupt(path, offset, &e.to_string()))?;
            levels = levels.apply(&edit).map_err(|why| corrupt(path, offset, &why))?;
            Ok(())
        })?;
        if found.records == 0 {
            // A manifest is created with its first record in it.
            return Err(corrupt(path, start, "no record is left"));
        }
        Ok((levels, found))
    }

    fn read(fs: &dyn Fs, path: PathBuf, file: Arc<dyn File>) -> Result<Self> {
        // The name may be in the kernel only, if a process died right behind a rename.
        fs.sync_dir(parent(&path)).map_err(|e| Error::io("sync", parent(&path), e))?;
        let (levels, found) = Self::replay(&path, &*file)?;
        if found.cut.is_some() {
            file.set_len(found.end).and_then(|()| file.sync_all()).map_err(|e| Error::io("cut", &path, e))?;
        }
        let log = Log::new(&path, Framing::Binary, file, found.synced.max(Header::Manifest.line().len() as u64), found.end);
        // What stands here is relied on from now on, whoever wrote it and whether or not it was synced.
        log.sync_step()?;
        Ok(Self { path, log, levels, whole: found.end })
    }

    /// Makes an edit durable. After [`Error::Full`] nothing of it holds and it can be tried again; any other failure
    /// is the end. A manifest of more than `size` bytes is rewritten now and then.
    pub(super) fn apply(&mut self, fs: &dyn Fs, edit: &Edit, size: u64) -> Result<()> {
        let levels = self.levels.apply(edit).map_err(|why| corrupt(&self.path, self.whole, &why))?;
        let ticket = self.log.submit(b'E', &encode(edit))?;
        self.log.wait_written(ticket)?;
        self.log.sync_step()?;
        self.levels = levels;
        let len = self.log.stats().len;
        if len > size && len > 4 * self.whole {
            self.rewrite(fs)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, fs: &dyn Fs) -> Result<()> {
        // Without a successor the old one is as good.
        let Ok(fresh) = Self::draft(fs, self.path.clone(), self.levels.clone()) else { return Ok(()) };
        if let Err(e) = publish_segment(fs, &self.path) {
            // Which of the two has the name now, only opening tells: what is written into the other one is lost.
            return Err(self.log.poison("rename", std::io::Error::other(e)));
        }
        *self = fresh;
        Ok(())
    }

    /// A clean end: a mark that vouches for every edit, so that rot in the last of them is told from a torn tail.
    pub(super) fn close(&self) -> Result<()> {
        if self.log.mark_is_due() {
            let ticket = self.log.submit(b'E', &encode(&Edit::default()))?;
            self.log.wait_written(ticket)?;
        }
        self.log.close()
    }
}

fn encode(edit: &Edit) -> Vec<u8> {
    // Plain numbers, strings and maps with number keys: there is nothing that JSON could refuse.
    serde_json::to_vec(edit).unwrap_or_default()
}

fn corrupt(path: &Path, offset: u64, what: &str) -> Error {
    Error::corrupt(path, offset, format!("an edit that cannot be: {what}"))
}
