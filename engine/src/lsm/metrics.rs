//! Statistics as OpenMetrics text, for whoever collects them.

use super::handle::Stats;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::borrow::Cow;

impl Stats {
    /// The statistics in the text format of OpenMetrics 1.0, every name with the prefix `lsm_`.
    pub fn open_metrics(&self) -> String {
        let mut registry = Registry::with_prefix("lsm");
        let counters = [
            ("flushes", "Memtables that became tables", self.flushes),
            ("compactions", "Compactions", self.compactions),
            ("collections", "Compactions that moved values out of value log files", self.collections),
            ("stalls", "Times that a write waited for room", self.stalls),
            ("slowed_writes", "Times that a write was slowed", self.slowed),
            ("cache_hits", "Blocks found in the cache", self.cache_hits),
            ("cache_misses", "Blocks read", self.cache_misses),
        ];
        for (name, help, value) in counters {
            registry.register(name, help, ConstCounter::new(value));
        }
        let written = [
            ("written", "What writes brought", self.written),
            ("flushed", "What flushes wrote", self.flushed),
            ("compacted", "What compactions wrote", self.compacted),
        ];
        for (name, help, value) in written {
            registry.register_with_unit(name, help, Unit::Bytes, ConstCounter::new(value));
        }
        let compacting = ConstCounter::new(self.compacting.as_secs_f64());
        registry.register_with_unit("compacting", "Time spent on compactions", Unit::Seconds, compacting);
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register("memtables", "Memtables in memory", gauge(self.memtables));
        let held = [
            ("memtable", "Memory of memtables", self.memtable_bytes),
            ("value_log", "Value log files", self.value_log),
            ("value_log_live", "What tables point to in value log files", self.value_log_live),
            ("cached_blocks", "Memory of blocks in the cache", self.cached_blocks),
            ("spare_blocks", "Memory kept for blocks to come", self.spare_blocks),
            ("cached_indexes", "Memory of indexes and filters in the cache", self.cached_indexes),
            ("pending_compaction", "Bytes above what levels should hold", self.pending),
        ];
        for (name, help, value) in held {
            registry.register_with_unit(name, help, Unit::Bytes, gauge(value));
        }
        let ratios = [
            ("write_amplification", "Bytes written for each byte that came", self.write_amplification()),
            ("read_amplification", "Sorted runs that a point read may have to ask", self.read_amplification() as f64),
            ("space_amplification", "Bytes in tables for each byte in the last level", self.space_amplification()),
        ];
        for (name, help, value) in ratios {
            registry.register(name, help, ConstGauge::new(value));
        }
        for (number, level) in self.levels.iter().enumerate() {
            let label = (Cow::Borrowed("level"), Cow::Owned(number.to_string()));
            let of_level = registry.sub_registry_with_label(label);
            of_level.register("level_tables", "Tables of a level", gauge(level.tables));
            of_level.register_with_unit("level", "Tables of a level", Unit::Bytes, gauge(level.bytes));
            of_level.register("level_entries", "Versions in a level", gauge(level.entries));
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
