//! The parties of a run, each with a store in a directory of its own.

use super::party::{Party, fund_ledgers};
use super::spec::{TtfpError, TtfpSpec};
use crate::measure::counters::{Calls, CountingFs};
use crate::subject::{Site, Subject};
use engine::SyncPolicy;
use engine::fs::Fs;
use std::path::Path;
use std::sync::Arc;

/// The parties by number, ledgers funded, and what counts the calls of their stores.
pub(super) struct Cast {
    pub(super) parties: Vec<Party>,
    pub(super) counters: Vec<CountingFs>,
}

/// Where and how the stores are opened.
pub(super) struct Stage<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) sync: SyncPolicy,
    pub(super) dir: &'a Path,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) background: bool,
}

impl Cast {
    pub(super) fn assemble(spec: &TtfpSpec, stage: &Stage<'_>) -> Result<Self, TtfpError> {
        let tables = spec.tables();
        let (mut parties, mut counters) = (Vec::new(), Vec::new());
        for id in 0..spec.parties() {
            let dir = stage.dir.join(format!("party-{id}"));
            let failed = |source| TtfpError::Store { party: id, source };
            stage.fs.create_dir_all(&dir).map_err(|e| failed(e.into()))?;
            let counter = CountingFs::new(Arc::clone(&stage.fs));
            let site = Site {
                dir: &dir,
                fs: Arc::new(counter.clone()),
                sync: stage.sync,
                tables: &tables,
                background: stage.background,
            };
            let session = stage.subject.open(&site).map_err(failed)?;
            parties.push(Party::new(id, spec, session));
            counters.push(counter);
        }
        fund_ledgers(&mut parties, spec.hubs).map_err(|(party, source)| TtfpError::Store { party, source })?;
        Ok(Self { parties, counters })
    }
}

/// Syncs of files and directories.
pub(super) fn syncs(calls: Calls) -> u64 {
    calls.syncs + calls.dir_syncs
}

/// What all stores called for and acknowledged between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) syncs: u64,
    pub(super) bytes: u64,
    pub(super) writes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, calls: Calls, writes: u64) {
        self.syncs += syncs(calls);
        self.bytes += calls.bytes;
        self.writes += writes;
    }
}
