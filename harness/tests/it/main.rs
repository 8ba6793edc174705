//! The harness from outside, one file for each part.

mod report;
mod ttfp;
