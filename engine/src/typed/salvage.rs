//! Keeping what can be read of a damaged store.
//!
//! The damaged file is copied aside and synced before the repaired one takes its name, so that no
//! crash and no mistake of the salvage itself can cost more than the damage did.

use super::compact::{Draft, copy_live, draft};
use super::store::Options;
use crate::error::{Error, Result};
use crate::fs::{Fs, read_full_at, write_all_at};
use crate::log::{Dropped, Header, Mode, beside, identify, publish, take_lock};
use std::path::{Path, PathBuf};

/// What a salvage kept and what it had to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Live keys in the repaired file.
    pub kept: u64,
    /// Stretches of the damaged file that could not be read, in order.
    pub dropped: Vec<Dropped>,
    /// Where the damaged file lies now, byte for byte.
    pub original: PathBuf,
}

/// Repairs the store in the file `path`: keeps every record that can be read, drops the rest, and says
/// what it dropped. A dropped delete lets its key come back; the report names the place.
///
/// # Errors
/// [`Error::Locked`], [`Error::Format`] when not even the header is whole, [`Error::Io`], [`Error::Full`].
/// On error the file is as it was.
pub fn salvage(path: impl AsRef<Path>, options: &Options) -> Result<Salvaged> {
    let path = path.as_ref();
    let fs = &*options.fs;
    let _lock = take_lock(fs, &beside(path, "lock"), path)?;
    let file = fs.open(path).map_err(|e| Error::io("open", path, e))?;
    let header = match identify(&*file, path)? {
        Some(header @ (Header::TypedLog | Header::GoPersist)) => header,
        _ => {
            return Err(Error::Format { file: path.to_owned(), found: String::new() });
        }
    };
    let len = file.len().map_err(|e| Error::io("read", path, e))?;
    let original = copy_aside(fs, path)?;
    let draft_path = draft(path);
    let created = fs.create(&draft_path).map_err(|e| Error::io("create", &draft_path, e))?;
    let mut draft = Draft { file: created, path: &draft_path, end: 0, buffer: Header::TypedLog.line().to_vec() };
    let range = header.line().len() as u64..len;
    let (found, kept) = copy_live(&*file, path, header.framing(), range, Mode::Salvage, &mut draft)?;
    draft.append_mark();
    draft.sync()?;
    publish(fs, &draft_path, path)?;
    Ok(Salvaged { kept, dropped: found.dropped, original })
}

/// Copies the file to the first free name `<path>.damaged`, `<path>.damaged-2`, …
fn copy_aside(fs: &dyn Fs, path: &Path) -> Result<PathBuf> {
    let names = std::iter::once("damaged".to_owned()).chain((2..).map(|n| format!("damaged-{n}")));
    let aside = names.map(|name| beside(path, &name)).find(|p| fs.open(p).is_err()).unwrap_or_else(|| beside(path, "damaged"));
    let from = fs.open(path).map_err(|e| Error::io("open", path, e))?;
    let to = fs.create(&aside).map_err(|e| Error::io("create", &aside, e))?;
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let got = read_full_at(&*from, &mut chunk, at).map_err(|e| Error::io("read", path, e))?;
        if got == 0 {
            break;
        }
        write_all_at(&*to, &chunk[..got], at).map_err(|e| Error::io("write to", &aside, e))?;
        at += got as u64;
    }
    to.sync_all().map_err(|e| Error::io("sync", &aside, e))?;
    fs.sync_dir(crate::fs::parent(&aside)).map_err(|e| Error::io("sync", &aside, e))?;
    Ok(aside)
}
