//! One choice of surviving effects, and the disk image it makes.

use super::layout::{DataOp, Node, SECTOR};
use super::view::View;
use engine::fs::MemFs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Which effects survive. Stable effects survive whatever stands here, so a state means the same under
/// every model in whose view it is legal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// For each name operation that began before the crash: whether it survives.
    pub names: Vec<bool>,
    /// For each file.
    pub files: Vec<FileState>,
    /// What was never written inside a size holds bytes drawn from this seed instead of zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garbage: Option<u64>,
    /// One sector that survives in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tear: Option<Tear>,
}

/// How far the operations on one file survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Operations below this number have changed the size.
    pub size: u32,
    /// Operations below this number have changed the contents of every sector not named in `sectors`.
    pub data: u32,
    /// The same for single sectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sectors: BTreeMap<u32, u32>,
}

/// A sector of which only these bytes have the newest value that survives; the rest has the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tear {
    /// The file.
    pub file: usize,
    /// The sector.
    pub sector: u32,
    /// First byte within the sector.
    pub from: u16,
    /// First byte within the sector that is old again.
    pub to: u16,
}

impl FileState {
    /// The bound for one sector.
    pub fn at(&self, sector: usize) -> u32 {
        self.sectors.get(&(sector as u32)).copied().unwrap_or(self.data)
    }

    /// The largest bound of any sector.
    pub fn highest(&self) -> u32 {
        self.sectors.values().copied().fold(self.data, u32::max)
    }
}

impl State {
    /// The files and directories that are left.
    pub fn image(&self, view: &View<'_, '_>) -> (Vec<PathBuf>, Vec<(PathBuf, Vec<u8>)>) {
        let mut names = view.layout.initial.clone();
        for (number, op) in view.layout.names[..self.names.len()].iter().enumerate() {
            if self.names[number] || view.stable_names[number] {
                for (path, node) in &op.sets {
                    match node {
                        Some(node) => drop(names.insert(path.clone(), *node)),
                        None => drop(names.remove(path)),
                    }
                }
            }
        }
        let (mut dirs, mut files) = (Vec::new(), Vec::new());
        for (path, node) in &names {
            let parent = engine::fs::parent(path);
            let reachable = parent.as_os_str().is_empty()
                || parent == std::path::Path::new(".")
                || parent == std::path::Path::new("/")
                || matches!(names.get(parent), Some(Node::Dir));
            match node {
                _ if !reachable => {}
                Node::Dir => dirs.push(path.clone()),
                Node::File(file) => files.push((path.clone(), self.contents(view, *file))),
            }
        }
        (dirs, files)
    }

    /// A file system that holds the image.
    pub fn disk(&self, view: &View<'_, '_>) -> MemFs {
        let (dirs, files) = self.image(view);
        MemFs::with_files(dirs, files)
    }

    fn contents(&self, view: &View<'_, '_>, file: usize) -> Vec<u8> {
        let (log, known) = (&view.layout.files[file], &view.files[file]);
        let chosen = &self.files[file];
        let mut bytes = known.base.clone();
        let mut size = known.base.len() as u64;
        for (number, op) in (known.from..known.ops).map(|n| (n, &log.ops[n as usize])) {
            if number < chosen.size {
                size = op.size_after(size);
            }
            if chosen.sectors.is_empty() && self.tear.is_none() && number < chosen.data {
                apply(&mut bytes, op, 0, u64::MAX);
            } else if number < chosen.highest() {
                self.apply_in_part(&mut bytes, view, file, number, op);
            }
        }
        bytes.resize(size as usize, 0);
        if let Some(seed) = self.garbage {
            self.spoil(&mut bytes, view, file, seed);
        }
        bytes
    }

    fn apply_in_part(&self, bytes: &mut Vec<u8>, view: &View<'_, '_>, file: usize, number: u32, op: &DataOp<'_>) {
        let (log, chosen) = (&view.layout.files[file], &self.files[file]);
        let first = op.offset / SECTOR;
        let last = if op.bytes.is_some() { op.end() } else { bytes.len() as u64 }.div_ceil(SECTOR);
        for sector in first..last {
            let bound = chosen.at(sector as usize);
            if number >= bound {
                continue;
            }
            let (start, end) = (sector * SECTOR, (sector + 1) * SECTOR);
            match self.tear {
                Some(tear)
                    if tear.file == file
                        && u64::from(tear.sector) == sector
                        && log.last_touching(sector as usize, bound) == Some(number) =>
                {
                    apply(bytes, op, start + u64::from(tear.from), start + u64::from(tear.to));
                }
                _ => apply(bytes, op, start, end),
            }
        }
    }

    /// Fills sectors inside the size that no surviving operation ever reached.
    fn spoil(&self, bytes: &mut [u8], view: &View<'_, '_>, file: usize, seed: u64) {
        let (log, chosen) = (&view.layout.files[file], &self.files[file]);
        let first = (log.initial.len() as u64).div_ceil(SECTOR);
        for sector in first..(bytes.len() as u64).div_ceil(SECTOR) {
            if log.last_touching(sector as usize, chosen.at(sector as usize)).is_some() {
                continue;
            }
            let (start, end) = ((sector * SECTOR) as usize, ((sector + 1) * SECTOR).min(bytes.len() as u64) as usize);
            let mut state = seed ^ sector.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for byte in &mut bytes[start..end] {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
        }
    }
}

/// Applies what an operation does between two offsets.
pub(super) fn apply(bytes: &mut Vec<u8>, op: &DataOp<'_>, from: u64, to: u64) {
    match op.bytes {
        Some(new) => {
            let (start, end) = (op.offset.max(from), op.end().min(to));
            if start < end {
                if (bytes.len() as u64) < end {
                    bytes.resize(end as usize, 0);
                }
                let source = &new[(start - op.offset) as usize..(end - op.offset) as usize];
                bytes[start as usize..end as usize].copy_from_slice(source);
            }
        }
        // Bytes behind a truncation read zero if the file ever grows again.
        None => {
            let (start, end) = (op.offset.max(from).min(bytes.len() as u64), to.min(bytes.len() as u64));
            if start < end {
                bytes[start as usize..end as usize].fill(0);
            }
        }
    }
}
