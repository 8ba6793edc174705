//! Seeded generators of operations, one file for each family of workloads.

pub mod commit;
pub mod db_bench;
pub mod go_persist;
pub mod growth;
pub mod hub;
pub mod load;
pub mod mixed;
pub mod outcome;
pub mod queue;
pub mod queue_bench;
pub mod random;
pub mod script;
pub mod stream;
pub mod ttfp;
pub mod ycsb;

use crate::subject::{SyncPolicyText, Table};
use engine::Durability;
use serde::{Deserialize, Serialize};
use stream::Stream;

/// A workload with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Workload {
    /// Puts, deletes and batches for crashing.
    Mixed(mixed::Mixed),
    /// Payment traffic through hubs.
    Hub(hub::Hub),
    /// Small writes.
    Commit(commit::Commit),
    /// go-persist's tables.
    GoPersist(go_persist::GoPersist),
    /// go-persist's load benchmark.
    Load(load::Load),
    /// LevelDB's benchmarks.
    DbBench(db_bench::DbBench),
    /// YCSB's core workloads.
    Ycsb(ycsb::Ycsb),
    /// Opening stores of several sizes after a kill.
    Recovery(growth::Recovery),
    /// Amplification at several sizes, measured and simulated.
    Compaction(growth::Compaction),
    /// Time to first payment.
    Ttfp(ttfp::TtfpSpec),
    /// Producers and consumers.
    Queue(queue::Queue),
    /// What a queue costs.
    QueueBench(queue_bench::QueueBench),
    /// Calls written down one by one.
    Script(script::Script),
}

impl Workload {
    /// The tables it uses.
    pub fn tables(&self) -> Vec<Table> {
        let names: &[&str] = match self {
            Workload::Script(spec) => return spec.tables(),
            Workload::Mixed(_) => &mixed::TABLES,
            Workload::Queue(_) => &queue::TABLES,
            Workload::Hub(_) => &hub::TABLES,
            Workload::Commit(_) => &commit::TABLES,
            Workload::GoPersist(_)
            | Workload::DbBench(_)
            | Workload::Ycsb(_)
            | Workload::QueueBench(_)
            | Workload::Recovery(_)
            | Workload::Compaction(_) => &[],
            Workload::Ttfp(_) => &ttfp::TABLES,
            Workload::Load(load) if load.records > 0 => &[],
            Workload::Load(_) => &load::TABLES,
        };
        names.iter().map(|name| Table { name: (*name).to_owned(), sync: None::<SyncPolicyText> }).collect()
    }

    /// Client threads.
    pub fn clients(&self) -> u64 {
        match self {
            Workload::Mixed(spec) => spec.clients.max(1),
            Workload::Queue(spec) => spec.clients(),
            Workload::Hub(spec) => spec.clients.max(1),
            Workload::Commit(spec) => spec.clients.max(1),
            Workload::GoPersist(spec) => spec.threads.max(1),
            Workload::Load(_) | Workload::Recovery(_) | Workload::Compaction(_) | Workload::QueueBench(_) => 1,
            Workload::DbBench(spec) => spec.threads.max(1),
            Workload::Ycsb(spec) => spec.threads.max(1),
            Workload::Script(spec) => spec.clients(),
            Workload::Ttfp(spec) => u64::from(spec.hubs + spec.payers + spec.payees),
        }
    }

    /// Bytes of the keys and values that are there when it is done, where that is known: of db_bench, if every key
    /// was written and none deleted.
    pub fn live_bytes(&self) -> Option<u64> {
        match self {
            Workload::DbBench(spec) => Some(spec.num * (16 + spec.value_bytes)),
            Workload::Ycsb(spec) => Some(spec.live_bytes()),
            _ => None,
        }
    }

    /// The calls of one client, for workloads that are streams of calls.
    pub fn stream(&self, level: Durability, seed: u64, round: u64, client: u64) -> Option<Stream> {
        match self {
            Workload::Mixed(spec) => Some(mixed::stream(spec, seed, round, client)),
            Workload::Queue(spec) => Some(queue::stream(spec, seed, round, client)),
            Workload::Hub(spec) => Some(hub::stream(spec, level, seed, round, client)),
            Workload::Commit(spec) => Some(commit::stream(spec, level, round, client)),
            Workload::Script(spec) => Some(script::stream(spec, client)),
            Workload::GoPersist(_)
            | Workload::Load(_)
            | Workload::DbBench(_)
            | Workload::Ycsb(_)
            | Workload::Recovery(_)
            | Workload::Compaction(_)
            | Workload::QueueBench(_)
            | Workload::Ttfp(_) => None,
        }
    }
}
