//! From the log into memory: records are kept raw per map until somebody says what type they are.

use super::name;
use super::table::Table;
use crate::background;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashSet};

/// Fewer records than this are decoded on one thread.
const PARALLEL: usize = 20_000;

/// The records of one map as they stood in the log, in order.
#[derive(Debug, Default)]
pub(super) struct RawMap {
    bytes: Vec<u8>,
    records: Vec<RawRecord>,
}

#[derive(Clone, Copy, Debug)]
struct RawRecord {
    /// Where the key starts in `bytes`; the JSON follows it.
    at: usize,
    key: u32,
    /// `None` for a delete.
    json: Option<u32>,
}

/// Everything a log held, sorted by map; the store's own keys under `None`.
pub(super) type RawMaps = BTreeMap<Option<String>, RawMap>;

/// Files a change of the log under its map. The key is UTF-8: the reader saw to it.
pub(super) fn add(maps: &mut RawMaps, last: &mut Option<String>, key: &[u8], json: Option<&[u8]>) {
    let key = String::from_utf8_lossy(key);
    let (map, key) = name::split(&key);
    if last.as_deref() != map {
        *last = map.map(str::to_owned);
    }
    let raw = match maps.get_mut(last) {
        Some(raw) => raw,
        None => maps.entry(last.clone()).or_default(),
    };
    raw.records.push(RawRecord { at: raw.bytes.len(), key: key.len() as u32, json: json.map(|j| j.len() as u32) });
    raw.bytes.extend_from_slice(key.as_bytes());
    raw.bytes.extend_from_slice(json.unwrap_or_default());
}

impl RawMap {
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    /// Decodes the last value of every live key. Superseded values are not looked at.
    ///
    /// # Errors
    /// [`Error::Value`] naming the first key, in file order from the end, whose value does not fit.
    pub(super) fn decode<V: DeserializeOwned + Send + Sync>(&self, map: &str, shards: usize) -> Result<Table<V>> {
        let table = Table::new(shards);
        let threads = if self.records.len() < PARALLEL { 1 } else { background::processors().min(shards) };
        let parts = (0..threads).map(|i| i * shards / threads..(i + 1) * shards / threads).collect();
        let results = background::in_parallel(parts, |part: std::ops::Range<usize>| {
            for shard in part.clone() {
                table.write(shard).reserve(self.records.len() / shards);
            }
            // From the end, so that only the last record of a key is decoded.
            let mut deleted: HashSet<&str> = HashSet::new();
            for record in self.records.iter().rev() {
                let key = self.text(record.at, record.key)?;
                let place = table.place(key);
                if !part.contains(&place.shard) || (!deleted.is_empty() && deleted.contains(key)) {
                    continue;
                }
                let mut shard = table.write(place.shard);
                match record.json {
                    Some(len) => {
                        let start = record.at + record.key as usize;
                        let json = &self.bytes[start..start + len as usize];
                        shard.load_with(place, || serde_json::from_slice(json)).map_err(|e| Error::Value {
                            map: map.to_owned(),
                            key: key.to_owned(),
                            why: e.to_string(),
                        })?;
                    }
                    None if shard.get(place).is_none() => {
                        deleted.insert(key);
                    }
                    None => {}
                }
            }
            Ok(())
        });
        results.into_iter().collect::<Result<()>>()?;
        Ok(table)
    }

    fn text(&self, at: usize, len: u32) -> Result<&str> {
        std::str::from_utf8(&self.bytes[at..at + len as usize]).map_err(|e| Error::Value {
            map: String::new(),
            key: String::new(),
            why: e.to_string(),
        })
    }
}
