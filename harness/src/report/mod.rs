//! Showing results: one format a file, `&Results` in, text out.
//!
//! `tables` decides what is said, `words` how a figure is written, `svg` draws; the formats only lay out.
//!
//! **Invariant:** imports nothing of the harness but `result`. No figure is made up here: what was not
//! measured is "n/a" in every format, and no input makes a report panic.

mod crash;
mod html;
mod json;
mod markdown;
mod svg;
mod tables;
mod terminal;
mod tradeoff;
pub mod words;

pub use html::html;
pub use json::{json, schema};
pub use markdown::markdown;
pub use terminal::terminal;
pub use tradeoff::chart;
