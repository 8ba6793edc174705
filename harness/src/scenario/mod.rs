//! Scenarios: one question each, as typed in TOML, then as meant.
//!
//! `file` reads what was typed and resolves `extends`, variants and profiles; `matrix` turns it into a
//! stable list of cells. Only cells can be run.

mod file;
mod matrix;

pub use file::{BenchPlan, KillPlan, Plan, Profile, ScenarioError, builtin, load, names};
pub use matrix::{CellPlan, Filter, cells};

/// `; did you mean "x"?` for the name that comes closest, or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|k| (strsim::damerau_levenshtein(name, k), k)).min();
    match best {
        Some((distance, known)) if distance <= 1 + known.len() / 3 => format!("; did you mean {known:?}?"),
        _ => String::new(),
    }
}
