//! Small writes, nothing else: what an acknowledgement costs, alone and among many.

use super::stream::{Call, Stream, value};
use engine::Durability;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Commit {
    /// Client threads.
    pub clients: u64,
    /// Keys each client writes in turn.
    pub keys: u64,
    /// Size of a value.
    pub value_bytes: u64,
}

/// The table.
pub const TABLES: [&str; 1] = ["commit"];

/// The calls of one client.
pub fn stream(spec: &Commit, level: Durability, round: u64, client: u64) -> Stream {
    let spec = spec.clone();
    let keys: Vec<String> = (0..spec.keys.max(1)).map(|k| format!("c{client:02}-k{k:05}")).collect();
    Box::new((0u64..).map(move |n| {
        let key = keys[(n % keys.len() as u64) as usize].clone();
        Call::write("put", level, 0, key, Some(value("v", round, client, n, spec.value_bytes as usize))).ends()
    }))
}
