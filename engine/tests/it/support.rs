//! What the tests share: stores without background threads, and images of a killed process.

use engine::fs::{File, FileLayer, Fs, FsLayer, FsOp, MemFs, Recorded};
use engine::typed::{Options, Store};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files with their bytes.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Bytes as a page of documentation shows them: sixteen a line, in hexadecimal and as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (n, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = line.iter().map(|b| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' }).collect();
        writeln!(out, "{:04x}  {:<47}  {text}", n * 16, hex.join(" ")).unwrap();
    }
    out
}

/// Where the store under test lies.
pub(crate) fn path() -> &'static Path {
    Path::new("/db/store")
}

/// An empty file system with the store's directory.
pub(crate) fn mem() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/db")).unwrap();
    fs
}

/// A file system whose store file has these bytes.
pub(crate) fn mem_with(bytes: &[u8]) -> MemFs {
    MemFs::from_image(&Image::from([(path().to_owned(), bytes.to_vec())]))
}

/// The same files and the store's directory, sharing nothing.
pub(crate) fn copy(fs: &MemFs) -> MemFs {
    let copy = MemFs::from_image(&fs.image());
    copy.create_dir_all(Path::new("/db")).unwrap();
    copy
}

/// The bytes of the store's file.
pub(crate) fn bytes(fs: &MemFs) -> Vec<u8> {
    fs.image().remove(path()).unwrap_or_default()
}

/// Nothing happens that the test did not ask for.
pub(crate) fn quiet(fs: impl Fs + 'static) -> Options {
    Options { sync: SyncPolicy::Never, background: false, auto_shrink: None, shards: 4, fs: Arc::new(fs), ..Options::default() }
}

pub(crate) fn quiet_under(sync: SyncPolicy, fs: impl Fs + 'static) -> Options {
    Options { sync, ..quiet(fs) }
}

/// Opens the store at the usual place.
pub(crate) fn open(fs: &(impl Fs + Clone + 'static)) -> Store {
    Store::open(path(), quiet(fs.clone())).unwrap_or_else(|e| panic!("{e}"))
}

/// Everything a map of integers holds.
pub(crate) fn integers(store: &Store, map: &str) -> BTreeMap<String, i64> {
    store.map::<i64>(map).unwrap_or_else(|e| panic!("{e}")).iter().collect()
}

pub(crate) fn pairs<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
}

/// All levels, weakest first.
pub(crate) const LEVELS: [Durability; 3] = [Durability::Async, Durability::Write, Durability::Sync];

/// Replays a trace onto copies of the files it started from.
pub(crate) struct Replay {
    pub(crate) fs: MemFs,
    handles: BTreeMap<u64, Arc<dyn File>>,
}

impl Replay {
    pub(crate) fn onto(image: &Image) -> Self {
        let fs = MemFs::from_image(image);
        fs.create_dir_all(Path::new("/db")).unwrap();
        Self { fs, handles: BTreeMap::new() }
    }

    /// Does what was done; a call that failed did nothing.
    pub(crate) fn apply(&mut self, entry: &Recorded) {
        if !entry.ok {
            return;
        }
        match &entry.op {
            FsOp::Open { path, inode } => drop(self.handles.insert(*inode, self.fs.open(path).unwrap())),
            FsOp::Create { path, inode } => drop(self.handles.insert(*inode, self.fs.create(path).unwrap())),
            FsOp::Rename { from, to } => self.fs.rename(from, to).unwrap(),
            FsOp::Link { from, to } => self.fs.link(from, to).unwrap(),
            FsOp::Remove { path } => self.fs.remove(path).unwrap(),
            FsOp::CreateDir { path } => self.fs.create_dir_all(path).unwrap(),
            FsOp::Write { inode, offset, bytes } => self.write(*inode, *offset, bytes),
            FsOp::SetLen { inode, len } => self.handles[inode].set_len(*len).unwrap(),
            FsOp::SyncDir { .. } | FsOp::SyncData { .. } | FsOp::SyncAll { .. } | FsOp::Note { .. } => {}
        }
    }

    fn write(&self, inode: u64, offset: u64, bytes: &[u8]) {
        engine::fs::write_all_at(&*self.handles[&inode], bytes, offset).unwrap();
    }
}

/// Every image that SIGKILL may leave while `entries` happen: all calls up to some point, and of a
/// write in flight any number of leading bytes (all of them for short writes, a few for long ones).
pub(crate) fn kill_images(start: &Image, entries: &[Recorded], mut check: impl FnMut(&str, MemFs)) {
    let mut before = Replay::onto(start);
    check("before the first call", copy(&before.fs));
    for (i, entry) in entries.iter().enumerate() {
        if let (FsOp::Write { bytes, inode, offset }, true) = (&entry.op, entry.ok) {
            let stride = (bytes.len() / 64).max(1);
            for kept in (0..bytes.len()).step_by(stride).skip(1) {
                let mut torn = Replay::onto(start);
                entries[..i].iter().for_each(|e| torn.apply(e));
                torn.write(*inode, *offset, &bytes[..kept]);
                check(&format!("{kept} bytes into call {i}"), torn.fs);
            }
        }
        before.apply(entry);
        check(&format!("after call {i}, {:?}", entry.op), copy(&before.fs));
    }
}

/// Runs something of the test in the middle of a call, where only another thread could be otherwise.
#[derive(Clone)]
pub(crate) struct Interrupted {
    inner: Arc<dyn Fs>,
    /// Called before a file is created, with its path.
    pub(crate) on_create: Arc<dyn Fn(&Path) + Send + Sync>,
    /// Called after each write.
    pub(crate) on_write: Arc<dyn Fn() + Send + Sync>,
}

impl Interrupted {
    pub(crate) fn new(inner: impl Fs + 'static) -> Self {
        Self { inner: Arc::new(inner), on_create: Arc::new(|_| ()), on_write: Arc::new(|| ()) }
    }
}

impl Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl FsLayer for Interrupted {
    fn below(&self) -> &dyn Fs {
        &*self.inner
    }

    fn over(&self, _: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(InterruptedFile { inner, on_write: Arc::clone(&self.on_write) })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        (self.on_create)(path);
        self.inner.create(path).map(|file| self.over(path, file))
    }
}

struct InterruptedFile {
    inner: Arc<dyn File>,
    on_write: Arc<dyn Fn() + Send + Sync>,
}

impl Debug for InterruptedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl FileLayer for InterruptedFile {
    fn below(&self) -> &dyn File {
        &*self.inner
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let taken = self.inner.write_at(bytes, offset);
        (self.on_write)();
        taken
    }
}
