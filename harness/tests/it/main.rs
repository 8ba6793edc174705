//! The harness from outside.

mod report;
