//! Scenarios: one question each, as typed in TOML, then as meant.
//!
//! `file` reads what was typed and resolves `extends`, variants and profiles; `matrix` turns it into a
//! stable list of cells. Only cells can be run.

mod file;
mod matrix;

pub use file::{BenchPlan, CriterionPlan, KillPlan, Plan, Profile, ScenarioError, builtin, load, names};
pub use matrix::{CellPlan, Filter, cells};
