//! The harness from outside, one file for each part.

mod canary;
mod cli;
mod crash_model;
mod kill;
mod power;
mod report;
mod scenario;
mod streams;
mod support;
mod tidy;
mod toy;
mod ttfp;
