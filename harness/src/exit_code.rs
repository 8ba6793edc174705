//! How the program ends. Stable: scripts and CI rely on these.

/// All holds.
pub const OK: u8 = 0;
/// The harness itself failed.
pub const HARNESS: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 2;
/// A performance gate failed.
pub const GATE: u8 = 3;
/// Durability was violated; wins over a failed gate.
pub const DURABILITY: u8 = 4;
/// Inconclusive, and `--strict` was given.
pub const INCONCLUSIVE: u8 = 5;
/// The machine is unfit, and `--require-quiet` was given.
pub const UNFIT: u8 = 6;
/// A subject or fault is not available here.
pub const UNAVAILABLE: u8 = 7;
/// Nothing was selected.
pub const NOTHING: u8 = 8;
/// A budget was hit, such as a full disk; partial results are written.
pub const BUDGET: u8 = 9;
/// Interrupted by Ctrl-C; partial results are valid.
pub const INTERRUPTED: u8 = 130;
/// Terminated; partial results are valid.
pub const TERMINATED: u8 = 143;

/// Each code with its meaning, for `harness show exit-codes`.
pub const ALL: [(u8, &str); 12] = [
    (OK, "all holds"),
    (HARNESS, "the harness itself failed"),
    (USAGE, "usage or configuration"),
    (GATE, "a performance gate failed"),
    (DURABILITY, "durability violated (wins over 3)"),
    (INCONCLUSIVE, "inconclusive, with --strict"),
    (UNFIT, "machine unfit, with --require-quiet"),
    (UNAVAILABLE, "subject or fault not available here"),
    (NOTHING, "nothing selected"),
    (BUDGET, "budget hit, partial results written"),
    (INTERRUPTED, "interrupted, partial results valid"),
    (TERMINATED, "terminated, partial results valid"),
];
