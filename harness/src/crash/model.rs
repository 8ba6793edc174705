//! Fault models as data: what a power loss may leave of a trace, and under which assumptions.
//!
//! The rules that read these fields are in `view`. The models are ordered by inclusion:
//! `process` ⊂ {`ext4-ordered`, `xfs`, `btrfs`} ⊂ `posix` ⊂ `torn` ⊂ `lying-disk`; of the three file
//! systems none contains another.

/// A fault model.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name in scenarios and reports.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The numbers of its assumptions in [`ASSUMPTIONS`].
    pub assumptions: &'static [&'static str],
    /// Which name operations may survive without which.
    pub names: Names,
    /// When a size may survive.
    pub sizes: Sizes,
    /// Whether a rename over an existing file brings the new file's contents along.
    pub rename_flushes: bool,
    /// Whether an overwritten page survives only together with all earlier names.
    pub data_needs_names: bool,
    /// Whether overwritten pages may survive sector by sector.
    pub overwrites_tear: bool,
    /// Whether anything may survive sector by sector, a sector may survive in part, and what was never
    /// written inside the size may hold garbage.
    pub torn: bool,
    /// Whether every call that returned survives.
    pub keeps_completed: bool,
    /// Whether syncs do nothing.
    pub syncs_lie: bool,
    /// Models that allow a part of what this one allows: the nearest ones.
    pub contains: &'static [&'static str],
}

/// Which name operations may survive without which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// One journal: an operation survives only with all earlier ones; a sync that needs a commit commits
    /// everything before it.
    Journal,
    /// One log that a sync forces only as far as the file or directory synced was last touched.
    Log,
    /// Whole commits, and on top of them what syncs logged: the names of the synced file or the entries of
    /// the synced directory.
    CommitAndTree,
    /// Each slot of a directory for itself; only a sync of the directory makes it durable.
    Slots,
}

/// When a size may survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// When blocks are allocated: what it covers of new blocks holds the data written.
    Allocation,
    /// When the write that set it has reached the disk: earlier bytes may still read zero.
    Completion,
    /// Any time.
    Free,
}

/// What all models and each of them take for granted. Sources: the documentation and code of the file
/// systems, as gathered in `docs/fault_model.md`.
pub const ASSUMPTIONS: [(&str, &str); 22] = [
    ("C1", "What a sync covered that began after a write returned, and ended with success before the crash, survives."),
    ("C1b", "What a failed sync covered may be missing even if a later sync succeeds."),
    ("C2", "A sector holds its last durable value or its value after any later write, as the page cache had it."),
    ("C3", "fdatasync makes data and size durable as fsync does, but promises no names."),
    ("C4", "Sizes survive in their order; bytes inside the size that were never written read zero."),
    ("C5", "Of calls in flight any part may survive, page by page, as of writes that returned."),
    ("C6", "A file that no surviving name reaches is gone."),
    ("C7", "Nothing from after the crash survives."),
    ("C10", "A killed process leaves everything that returned; a write in flight may have got as far as any page."),
    ("E1", "Metadata is journalled in one order for the whole file system, and a crash leaves a prefix of it."),
    ("E2", "A sync that needs a commit commits all metadata before it; fdatasync of a pure overwrite does not."),
    ("E3", "The size of an append enters the journal when its blocks are allocated, at any time from the write on."),
    ("E4", "New blocks inside a surviving size hold the data that was written to them."),
    ("E5", "A rename over an existing file allocates the new file's blocks first."),
    ("E6", "Overwritten blocks reach the disk in any order, sector by sector."),
    ("E8", "A truncation is journalled whole, in its place."),
    ("X2", "A sync forces the log as far as the file or directory was last touched."),
    ("X3", "A size survives only after the write that set it reached the disk; blocks before it may read zero."),
    ("B2", "A sync logs the file's data and size, the names it has, and what stood in their way."),
    ("B4", "Pages are copied on write: old or new, never torn."),
    ("P1", "A name is durable only after a sync of its directory; until then each slot is for itself."),
    ("T1", "A sector may survive in part, and what was never written inside the size may hold garbage."),
];

/// All models, each behind those it contains.
pub const MODELS: [Model; 7] = [
    Model {
        name: "process",
        about: "the process dies, the machine does not: every call that returned survives",
        assumptions: &["C5", "C7", "C10"],
        names: Names::Journal,
        sizes: Sizes::Completion,
        rename_flushes: true,
        data_needs_names: false,
        overwrites_tear: false,
        torn: false,
        keeps_completed: true,
        syncs_lie: false,
        contains: &[],
    },
    Model {
        name: "ext4-ordered",
        about: "ext4 as mounted by default: data=ordered, delayed allocation",
        assumptions: &["C1", "C1b", "C2", "C3", "C4", "C5", "C6", "C7", "E1", "E2", "E3", "E4", "E5", "E6", "E8"],
        names: Names::Journal,
        sizes: Sizes::Allocation,
        rename_flushes: true,
        data_needs_names: false,
        overwrites_tear: true,
        torn: false,
        keeps_completed: false,
        syncs_lie: false,
        contains: &["process"],
    },
    Model {
        name: "xfs",
        about: "XFS as mounted by default: one ordered log, sizes grow when data has arrived",
        assumptions: &["C1", "C1b", "C2", "C3", "C4", "C5", "C6", "C7", "E1", "X2", "X3", "E6", "E8"],
        names: Names::Log,
        sizes: Sizes::Completion,
        rename_flushes: false,
        data_needs_names: false,
        overwrites_tear: true,
        torn: false,
        keeps_completed: false,
        syncs_lie: false,
        contains: &["process"],
    },
    Model {
        name: "btrfs",
        about: "btrfs as mounted by default: copy on write, whole commits and a log tree for syncs",
        assumptions: &["C1", "C1b", "C2", "C3", "C4", "C5", "C6", "C7", "E1", "X3", "E8", "B2", "B4"],
        names: Names::CommitAndTree,
        sizes: Sizes::Completion,
        rename_flushes: false,
        data_needs_names: true,
        overwrites_tear: false,
        torn: false,
        keeps_completed: false,
        syncs_lie: false,
        contains: &["process"],
    },
    Model {
        name: "posix",
        about: "any file system that keeps no more than POSIX asks: unsynced data, sizes and names in any order",
        assumptions: &["C1", "C1b", "C2", "C3", "C4", "C5", "C6", "C7", "E6", "P1"],
        names: Names::Slots,
        sizes: Sizes::Free,
        rename_flushes: false,
        data_needs_names: false,
        overwrites_tear: true,
        torn: false,
        keeps_completed: false,
        syncs_lie: false,
        contains: &["ext4-ordered", "xfs", "btrfs"],
    },
    Model {
        name: "torn",
        about: "as posix, and unsynced sectors may be torn or hold garbage",
        assumptions: &["C1", "C1b", "C2", "C3", "C4", "C5", "C6", "C7", "P1", "T1"],
        names: Names::Slots,
        sizes: Sizes::Free,
        rename_flushes: false,
        data_needs_names: false,
        overwrites_tear: true,
        torn: true,
        keeps_completed: false,
        syncs_lie: false,
        contains: &["posix"],
    },
    Model {
        name: "lying-disk",
        about: "as torn, and syncs do nothing; no policy's contract covers it",
        assumptions: &["C2", "C4", "C5", "C6", "C7", "T1"],
        names: Names::Slots,
        sizes: Sizes::Free,
        rename_flushes: false,
        data_needs_names: false,
        overwrites_tear: true,
        torn: true,
        keeps_completed: false,
        syncs_lie: true,
        contains: &["torn"],
    },
];

impl Model {
    /// The model of this name.
    pub fn named(name: &str) -> Option<&'static Model> {
        MODELS.iter().find(|m| m.name == name)
    }

    /// Whether every state of `other` is a state of this model too.
    pub fn includes(&self, other: &Model) -> bool {
        self.name == other.name || self.contains.iter().filter_map(|n| Model::named(n)).any(|m| m.includes(other))
    }

    /// Whether a store's contract must hold under it.
    pub fn is_covered(&self) -> bool {
        !self.syncs_lie
    }
}

/// Those of the models that contain none of the others.
pub fn minimal<'m>(models: &[&'m Model]) -> Vec<&'m Model> {
    models.iter().filter(|m| !models.iter().any(|other| other.name != m.name && m.includes(other))).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_one_of_inclusion() {
        let get = |name| Model::named(name).unwrap();
        assert!(get("posix").includes(get("process")) && get("lying-disk").includes(get("btrfs")));
        for (a, b) in [("ext4-ordered", "xfs"), ("xfs", "btrfs"), ("btrfs", "ext4-ordered")] {
            assert!(!get(a).includes(get(b)) && !get(b).includes(get(a)));
        }
        let all: Vec<&Model> = MODELS.iter().collect();
        assert_eq!(minimal(&all), [get("process")]);
        assert_eq!(minimal(&[get("xfs"), get("posix"), get("ext4-ordered")]), [get("xfs"), get("ext4-ordered")]);
    }

    #[test]
    fn every_assumption_is_explained_and_used() {
        for model in &MODELS {
            for number in model.assumptions {
                assert!(ASSUMPTIONS.iter().any(|(n, _)| n == number), "{}: {number}", model.name);
            }
        }
        for (number, _) in ASSUMPTIONS {
            assert!(MODELS.iter().any(|m| m.assumptions.contains(&number)), "{number}");
        }
    }
}
