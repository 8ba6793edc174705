//! What one repetition of a workload measured, on its way from the process that ran it.

use crate::measure::counters::Calls;
use crate::measure::histogram::{Latencies, Samples};
use crate::result::{Projection, Whole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One repetition, phase by phase.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Repetition {
    /// Measured stretches in order.
    pub phases: Vec<PhaseSample>,
    /// What is said of larger stores.
    #[serde(default)]
    pub projections: Vec<Projection>,
    /// What its process used.
    #[serde(default)]
    pub whole: Whole,
}

/// One measured stretch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseSample {
    /// `prefill`, `run`, `close`, …
    pub name: String,
    /// Wall time.
    pub duration_ns: u64,
    /// Operations.
    pub operations: u64,
    /// Acknowledged writes among them.
    pub writes: u64,
    /// Calls of the store that the operations took.
    pub calls: u64,
    /// Latencies by operation.
    pub ops: BTreeMap<String, OpSample>,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Bytes handed to the operating system.
    pub bytes_written: u64,
    /// Bytes meant for the device.
    pub device_bytes: u64,
    /// Processor time in the program.
    pub cpu_user_ns: u64,
    /// Processor time in the kernel.
    pub cpu_system_ns: u64,
    /// Largest resident set so far.
    pub rss_peak: u64,
    /// Resident set at the end.
    pub rss_end: u64,
    /// Apparent and allocated size at the end.
    pub space: Option<(u64, u64)>,
    /// Apparent size after a shrink.
    pub shrunk: Option<u64>,
    /// Time to first payment, where there are payments.
    pub ttfp: Option<crate::result::Ttfp>,
}

/// Latencies of one kind of operation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpSample {
    /// Failed operations.
    pub errors: u64,
    /// From the start of the call.
    pub service: Samples,
    /// From the intended start, under a rate.
    pub response: Option<Samples>,
}

impl PhaseSample {
    /// A stretch of so many operations, nothing else measured yet.
    pub fn new(name: impl Into<String>, duration_ns: u64, operations: u64) -> Self {
        Self { name: name.into(), duration_ns, operations, ..Self::default() }
    }

    /// Adds the counters of the store's calls.
    pub fn with_calls(mut self, calls: Calls) -> Self {
        self.syncs = calls.syncs + calls.dir_syncs;
        self.bytes_written = calls.bytes;
        self
    }

    /// Adds one kind of operation.
    pub fn with_op(mut self, name: &str, service: &Latencies, response: Option<&Latencies>, errors: u64) -> Self {
        if service.count() > 0 || errors > 0 {
            let op = OpSample { errors, service: service.into(), response: response.map(Samples::from) };
            self.ops.insert(name.to_owned(), op);
        }
        self
    }
}
