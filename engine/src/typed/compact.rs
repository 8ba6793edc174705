//! Rewriting the log with one record per live key, beside those who read and write.
//!
//! The work needs only the log, not the maps: the prefix that exists now is read twice, first to find
//! the last change of each key, then to copy it; what was appended meanwhile is carried over as it is.
//! Only the last stretch of that, the sync and the rename happen with the log held.
//!
//! **Invariant:** until the rename the old log is whole; from the directory sync on the new one is. In
//! between a crash leaves one or the other, and nothing is appended.

use crate::error::{Error, Result};
use crate::fs::{File, Fs, parent, read_full_at, write_all_at};
use crate::log::{Framing, Header, Log, Mode, Replayed, beside, changes, remove_leftover, replay};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

const CHUNK: usize = 1 << 20;
/// Rounds of copying appended records without holding the log, before doing the rest with it held.
const ROUNDS: usize = 8;

/// What compacting did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compacted {
    /// Records of the prefix that was rewritten.
    pub(super) read: u64,
    /// Records that it became.
    pub(super) kept: u64,
}

/// The name of the log being written.
pub(super) fn draft(path: &Path) -> PathBuf {
    beside(path, "shrink")
}

/// Rewrites the log at `path`, whose file has the header `from`, and puts the new file in its place.
pub(super) fn compact(fs: &dyn Fs, path: &Path, from: Header, log: &Log) -> Result<Compacted> {
    let draft_path = draft(path);
    let result = write_draft(fs, path, &draft_path, from, log);
    if result.is_err() && log.check().is_ok() {
        // The draft has not taken the log's place; what kept it from being written is the error to report.
        let _ = remove_leftover(fs, &draft_path);
    }
    result
}

fn write_draft(fs: &dyn Fs, path: &Path, draft_path: &Path, from: Header, log: &Log) -> Result<Compacted> {
    log.commit_step()?;
    let (old, prefix) = log.snapshot();
    let created = fs.create(draft_path).map_err(|e| Error::io("create", draft_path, e))?;
    let mut draft = Draft { file: created, path: draft_path, end: 0, buffer: Header::TypedLog.line().to_vec() };
    let range = from.line().len() as u64..prefix;
    let (found, kept) = copy_live(&*old, path, from.framing(), range, Mode::Strict, &mut draft)?;
    if let Some(cut) = found.cut {
        return Err(Error::corrupt(path, cut.offset, cut.what));
    }
    let mut copied = prefix;
    for _ in 0..ROUNDS {
        let (_, end) = log.snapshot();
        if end - copied < CHUNK as u64 {
            break;
        }
        draft.copy(&*old, path, copied..end)?;
        copied = end;
    }
    draft.sync()?;
    log.replace(|old, end| {
        draft.copy(&**old, path, copied..end)?;
        // The file takes the name only after its sync, so whoever reads this mark reads the truth; without it
        // rot in the new file would pass for a torn tail until the next write.
        draft.append_mark();
        draft.sync()?;
        fs.rename(draft_path, path).map_err(|e| Error::io("rename", draft_path, e))?;
        // From here on the new file bears the name, but a crash may still bring back the old one.
        fs.sync_dir(parent(path)).map_err(|e| log.poison("sync of the directory", e))?;
        Ok((Arc::clone(&draft.file), draft.end))
    })?;
    Ok(Compacted { read: found.records, kept })
}

/// Copies the last value of every live key to the draft, in the order of their last change, each as a
/// checked record of its own. Returns what was found and how many records were written.
pub(super) fn copy_live(
    old: &dyn File,
    path: &Path,
    framing: Framing,
    range: Range<u64>,
    mode: Mode,
    draft: &mut Draft<'_>,
) -> Result<(Replayed, u64)> {
    // Keys by 128-bit digest: two keys of a store of 10^9 keys collide with a chance of 10^-21.
    let mut last: HashMap<u128, u64> = HashMap::new();
    let mut ordinal = 0;
    let found = replay(old, path, framing, range.clone(), mode, |_, kind, body| {
        for (key, json) in changes(kind, body) {
            match json {
                Some(_) => last.insert(xxh3_128(key), ordinal),
                None => last.remove(&xxh3_128(key)),
            };
            ordinal += 1;
        }
        Ok(())
    })?;
    let (mut ordinal, mut kept, mut body) = (0, 0, Vec::new());
    replay(old, path, framing, range, mode, |_, kind, record| {
        for (key, json) in changes(kind, record) {
            if let Some(json) = json
                && last.get(&xxh3_128(key)) == Some(&ordinal)
            {
                body.clear();
                body.extend_from_slice(key);
                body.push(b'\n');
                body.extend_from_slice(json);
                body.push(b'\n');
                draft.append(b'S', &body)?;
                kept += 1;
            }
            ordinal += 1;
        }
        Ok(())
    })?;
    Ok((found, kept))
}

/// A log file being written under another name.
pub(super) struct Draft<'p> {
    pub(super) file: Arc<dyn File>,
    pub(super) path: &'p Path,
    pub(super) end: u64,
    pub(super) buffer: Vec<u8>,
}

impl Draft<'_> {
    fn append(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        Framing::Text.encode(&mut self.buffer, kind, body, Framing::checksum(kind, body), None);
        if self.buffer.len() >= CHUNK { self.write_out() } else { Ok(()) }
    }

    /// Says that everything before is synced.
    pub(super) fn append_mark(&mut self) {
        Framing::Text.encode(&mut self.buffer, b'M', b"synced\n", Framing::checksum(b'M', b"synced\n"), Some(0));
    }

    /// Appends a stretch of another file as it is.
    fn copy(&mut self, from: &dyn File, from_path: &Path, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.write_out()?;
            self.buffer.resize(CHUNK.min((range.end - at) as usize), 0);
            let got = read_full_at(from, &mut self.buffer, at).map_err(|e| Error::io("read", from_path, e))?;
            self.buffer.truncate(got);
            if got == 0 {
                let what = format!("the file ends before byte {}", range.end);
                let remedy = "restore it from a copy".to_owned();
                return Err(Error::Corrupt { file: from_path.to_owned(), offset: at, what, remedy });
            }
            at += got as u64;
        }
        self.write_out()
    }

    fn write_out(&mut self) -> Result<()> {
        write_all_at(&*self.file, &self.buffer, self.end).map_err(|e| Error::io("write to", self.path, e))?;
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        self.file.sync_all().map_err(|e| Error::io("sync", self.path, e))
    }
}
