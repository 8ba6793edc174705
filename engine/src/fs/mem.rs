//! Files and directories in memory.
//!
//! **Invariant:** it never loses anything. What a crash may take is decided elsewhere, from a trace.

use super::{File, Fs, Lock, LockOutcome};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// A file system in memory. Clones share their files.
#[derive(Clone, Debug, Default)]
pub struct MemFs {
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct MemFile(RwLock<Vec<u8>>);

#[derive(Debug)]
struct MemLock {
    path: PathBuf,
    names: Arc<Mutex<Names>>,
}

impl MemFs {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file system that holds these files and the directories above them.
    pub fn from_image(image: &BTreeMap<PathBuf, Vec<u8>>) -> Self {
        let fs = Self::new();
        {
            let mut names = fs.names();
            for (path, bytes) in image {
                names.add_dirs(super::parent(path));
                names.files.insert(path.clone(), Arc::new(MemFile(RwLock::new(bytes.clone()))));
            }
        }
        fs
    }

    /// A file system that holds these files in these directories, and those above them. The files' bytes
    /// are taken over, not copied.
    pub fn with_files(dirs: impl IntoIterator<Item = PathBuf>, files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        let fs = Self::new();
        {
            let mut names = fs.names();
            for dir in dirs {
                names.add_dirs(&dir);
            }
            for (path, bytes) in files {
                names.files.insert(path, Arc::new(MemFile(RwLock::new(bytes))));
            }
        }
        fs
    }

    /// The path of every file, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.names().files.keys().cloned().collect()
    }

    /// Every directory.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.names().dirs.iter().cloned().collect()
    }

    /// Every file with its bytes, lock files left out.
    pub fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = self.names();
        let bytes = |f: &MemFile| f.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        names.files.iter().map(|(path, file)| (path.clone(), bytes(file))).collect()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn add_dirs(&mut self, dir: &Path) {
        self.dirs.extend(dir.ancestors().filter(|a| !a.as_os_str().is_empty()).map(Path::to_owned));
    }

    fn has_dir(&self, dir: &Path) -> bool {
        dir == Path::new(".") || dir == Path::new("/") || self.dirs.contains(dir)
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Fs for MemFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let names = self.names();
        if names.dirs.contains(path) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let file = names.files.get(path).ok_or_else(not_found)?;
        Ok(Arc::clone(file) as Arc<dyn File>)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut names = self.names();
        if names.dirs.contains(path) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !names.has_dir(super::parent(path)) {
            return Err(not_found());
        }
        let file = Arc::clone(names.files.entry(path.to_owned()).or_default());
        drop(names);
        file.set_len(0)?;
        Ok(file as Arc<dyn File>)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if !names.has_dir(super::parent(to)) {
            return Err(not_found());
        }
        if names.dirs.contains(to) && names.files.contains_key(from) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let file = names.files.remove(from).ok_or_else(not_found)?;
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if !names.has_dir(super::parent(to)) {
            return Err(not_found());
        }
        if names.dirs.contains(to) || names.files.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = Arc::clone(names.files.get(from).ok_or_else(not_found)?);
        names.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.dirs.contains(path) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        names.files.remove(path).map(drop).ok_or_else(not_found)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.names().add_dirs(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let names = self.names();
        if !names.has_dir(dir) {
            return Err(not_found());
        }
        let children = names.files.keys().chain(&names.dirs).filter(|p| p.as_path() != dir && super::parent(p) == dir);
        let mut list: Vec<_> = children.filter_map(|p| p.file_name()).map(OsString::from).collect();
        list.sort();
        Ok(list)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.names().has_dir(dir) { Ok(()) } else { Err(not_found()) }
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let mut names = self.names();
        if !names.has_dir(super::parent(path)) {
            return Err(not_found());
        }
        if !names.locked.insert(path.to_owned()) {
            return Ok(LockOutcome::Busy { pid: Some(std::process::id()) });
        }
        Ok(LockOutcome::Held(Box::new(MemLock { path: path.to_owned(), names: Arc::clone(&self.names) })))
    }
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).locked.remove(&self.path);
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        let end = start + new.len();
        if new.is_empty() {
            return Ok(0);
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(new);
        Ok(new.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}
