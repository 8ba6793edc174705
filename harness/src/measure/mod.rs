//! Measuring: the clock, latencies, what the process and the store used, and the machine.

pub mod clock;
pub mod counters;
pub mod histogram;
pub mod host;
pub mod process;
