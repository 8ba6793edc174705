//! A trace's calls resolved into effects: on which name, which size, which sectors, and in which order.
//! Computed once for a trace; models and crash points only look at it.

use super::trace::{Op, Trace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Smallest unit that a device writes as a whole.
pub const SECTOR: u64 = 512;
/// Unit in which a page cache writes back.
pub const PAGE: u64 = 4096;

/// The effects of a trace.
#[derive(Clone, Debug)]
pub struct Layout<'t> {
    /// Where the bytes are.
    pub trace: &'t Trace,
    /// Effects on names, in order.
    pub names: Vec<NameOp>,
    /// Effects on contents and sizes, by file.
    pub files: Vec<FileLog<'t>>,
    /// Directories that are synced or that hold a name, by number.
    dirs: Vec<PathBuf>,
    /// Syncs of directories.
    pub dir_syncs: Vec<SyncOf>,
    /// The names there were when the trace began.
    pub initial: BTreeMap<PathBuf, Node>,
    /// For each effect on names, those that set one of its paths or a directory above it.
    pub above: Vec<Vec<usize>>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file, by number.
    File(usize),
    /// A directory.
    Dir,
}

/// A call that changes names.
#[derive(Clone, Debug)]
pub struct NameOp {
    /// Index into the trace's calls.
    pub call: usize,
    /// Position of its beginning.
    pub begun: u64,
    /// Position of its end, `u64::MAX` if it never returned.
    pub ended: u64,
    /// The slots it sets: a path and what it stands for afterwards.
    pub sets: Vec<(PathBuf, Option<Node>)>,
    /// The file that was created, moved or linked.
    pub file: Option<usize>,
    /// For a rename: whether a file was replaced.
    pub replaces: bool,
    /// The directories of its slots, by number.
    pub dirs: Vec<usize>,
}

/// A sync of a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct SyncOf {
    /// The file or directory, by number.
    pub target: usize,
    /// Position of its beginning.
    pub begun: u64,
    /// Position of its end, `u64::MAX` if it never returned.
    pub ended: u64,
    /// Whether it succeeded.
    pub ok: bool,
    /// `fdatasync`, which leaves timestamps alone.
    pub data_only: bool,
}

/// Everything that was done to one file.
#[derive(Clone, Debug, Default)]
pub struct FileLog<'t> {
    /// What it held when the trace began.
    pub initial: &'t [u8],
    /// Writes, in pieces of a page, and truncations, in order.
    pub ops: Vec<DataOp<'t>>,
    /// Its syncs, in order.
    pub syncs: Vec<SyncOf>,
    /// For each sector, the operations that touch it, in order.
    pub sectors: Vec<Vec<u32>>,
}

/// A piece of a write, or a truncation.
#[derive(Clone, Copy, Debug)]
pub struct DataOp<'t> {
    /// Index into the trace's calls.
    pub call: usize,
    /// Position of its beginning.
    pub begun: u64,
    /// Position of its end, `u64::MAX` if it never returned.
    pub ended: u64,
    /// Where it starts; for a truncation the new length.
    pub offset: u64,
    /// What is written; `None` for a truncation or extension.
    pub bytes: Option<&'t [u8]>,
    /// Whether it changes the size.
    pub resizes: bool,
    /// Whether it makes the file shorter.
    pub cuts: bool,
}

impl DataOp<'_> {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.map_or(0, |b| b.len() as u64)
    }

    /// The file's size after it.
    pub fn size_after(&self, before: u64) -> u64 {
        if self.bytes.is_some() { before.max(self.end()) } else { self.offset }
    }

    /// The sectors it touches in a file that is `len` bytes long in memory: all behind a truncation.
    fn sectors(&self, len: u64) -> std::ops::Range<u64> {
        let end = if self.bytes.is_some() { self.end() } else { self.offset.max(len) };
        self.offset / SECTOR..end.div_ceil(SECTOR)
    }
}

impl<'t> Layout<'t> {
    /// Resolves a trace. Failed calls have no effects.
    pub fn new(trace: &'t Trace) -> Self {
        let file_nodes = trace.files.keys().enumerate().map(|(i, p)| (p.clone(), Node::File(i)));
        let initial: BTreeMap<_, _> = trace.dirs.iter().map(|d| (d.clone(), Node::Dir)).chain(file_nodes).collect();
        let files = trace.files.values().map(|bytes| FileLog { initial: bytes, ..FileLog::default() }).collect();
        let mut layout = Self {
            trace,
            names: Vec::new(),
            files,
            dirs: Vec::new(),
            dir_syncs: Vec::new(),
            initial: initial.clone(),
            above: Vec::new(),
        };
        let mut now = initial;
        // Sizes as whoever looks at the running system sees them.
        let mut sizes: Vec<u64> = trace.files.values().map(|b| b.len() as u64).collect();
        for (number, call) in trace.calls.iter().enumerate() {
            let (begun, ended) = (call.begun, call.ended.unwrap_or(u64::MAX));
            if let Op::Sync { file, data_only } = call.op {
                layout.grow(file, &mut sizes);
                layout.files[file].syncs.push(SyncOf { target: file, begun, ended, ok: call.ok, data_only });
                continue;
            }
            if let Op::SyncDir { dir } = &call.op {
                let target = layout.dir(dir);
                layout.dir_syncs.push(SyncOf { target, begun, ended, ok: call.ok, data_only: false });
                continue;
            }
            if call.ended.is_some() && !call.ok {
                continue;
            }
            match &call.op {
                Op::Write { file, offset, bytes } => {
                    layout.grow(*file, &mut sizes);
                    let mut at = 0;
                    while at < bytes.len() {
                        let start = offset + at as u64;
                        let until = (at as u64 + PAGE - start % PAGE).min(bytes.len() as u64) as usize;
                        let piece = Some(&bytes[at..until]);
                        let op = DataOp { call: number, begun, ended, offset: start, bytes: piece, resizes: false, cuts: false };
                        layout.files[*file].push(op, &mut sizes[*file]);
                        at = until;
                    }
                }
                Op::SetLen { file, len } => {
                    layout.grow(*file, &mut sizes);
                    let op = DataOp { call: number, begun, ended, offset: *len, bytes: None, resizes: false, cuts: false };
                    layout.files[*file].push(op, &mut sizes[*file]);
                }
                Op::Create { path, file } => {
                    layout.grow(*file, &mut sizes);
                    layout.name(number, &mut now, vec![(path.clone(), Some(Node::File(*file)))], Some(*file), false);
                }
                Op::Rename { from, to } => {
                    let node = now.get(from).copied();
                    let file = if let Some(Node::File(file)) = node { Some(file) } else { None };
                    let replaces = matches!(now.get(to), Some(Node::File(_)));
                    layout.name(number, &mut now, vec![(from.clone(), None), (to.clone(), node)], file, replaces);
                }
                Op::Link { from, to } => {
                    let node = now.get(from).copied();
                    let file = if let Some(Node::File(file)) = node { Some(file) } else { None };
                    layout.name(number, &mut now, vec![(to.clone(), node)], file, false);
                }
                Op::Remove { path } => layout.name(number, &mut now, vec![(path.clone(), None)], None, false),
                Op::CreateDir { path } => {
                    let missing = path.ancestors().filter(|p| !p.as_os_str().is_empty() && !now.contains_key(*p));
                    let sets: Vec<_> = missing.map(|p| (p.to_owned(), Some(Node::Dir))).collect();
                    if !sets.is_empty() {
                        layout.name(number, &mut now, sets, None, false);
                    }
                }
                Op::Sync { .. } | Op::SyncDir { .. } => {}
            }
        }
        layout.above = above(&layout.names);
        layout
    }

    fn grow(&mut self, file: usize, sizes: &mut Vec<u64>) {
        while self.files.len() <= file {
            self.files.push(FileLog::default());
            sizes.push(0);
        }
    }

    fn dir(&mut self, dir: &Path) -> usize {
        if let Some(number) = self.dirs.iter().position(|d| d == dir) {
            return number;
        }
        self.dirs.push(dir.to_owned());
        self.dirs.len() - 1
    }

    fn name(
        &mut self,
        call: usize,
        now: &mut BTreeMap<PathBuf, Node>,
        sets: Vec<(PathBuf, Option<Node>)>,
        file: Option<usize>,
        replaces: bool,
    ) {
        let parents: BTreeSet<usize> = sets.iter().map(|(path, _)| self.dir(engine::fs::parent(path))).collect();
        for (path, node) in &sets {
            match node {
                Some(node) => drop(now.insert(path.clone(), *node)),
                None => drop(now.remove(path)),
            }
        }
        let recorded = &self.trace.calls[call];
        let (begun, ended) = (recorded.begun, recorded.ended.unwrap_or(u64::MAX));
        self.names.push(NameOp { call, begun, ended, sets, file, replaces, dirs: parents.into_iter().collect() });
    }

    /// The path of a directory by number.
    pub fn dir_path(&self, number: usize) -> &Path {
        &self.dirs[number]
    }
}

impl<'t> FileLog<'t> {
    fn push(&mut self, mut op: DataOp<'t>, size: &mut u64) {
        let index = self.ops.len() as u32;
        let touched = op.sectors(*size);
        op.resizes = op.size_after(*size) != *size;
        op.cuts = op.size_after(*size) < *size;
        *size = op.size_after(*size);
        if self.sectors.len() < touched.end as usize {
            self.sectors.resize(touched.end as usize, Vec::new());
        }
        touched.for_each(|s| self.sectors[s as usize].push(index));
        self.ops.push(op);
    }

    /// The last operation below `bound` that touches a sector.
    pub fn last_touching(&self, sector: usize, bound: u32) -> Option<u32> {
        let ops = self.sectors.get(sector)?;
        ops[..ops.partition_point(|&op| op < bound)].last().copied()
    }
}

/// For each effect, those that set one of its paths or a directory above it.
fn above(names: &[NameOp]) -> Vec<Vec<usize>> {
    let mut setters: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    for (number, op) in names.iter().enumerate() {
        op.sets.iter().for_each(|(path, _)| setters.entry(path).or_default().push(number));
    }
    let of = |op: &NameOp| {
        let paths = op.sets.iter().flat_map(|(path, _)| path.ancestors());
        let found: BTreeSet<usize> = paths.filter_map(|path| setters.get(path)).flatten().copied().collect();
        found.into_iter().collect()
    };
    names.iter().map(of).collect()
}
