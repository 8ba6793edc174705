use harness::{subject::*, workload::go_persist::*};
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let secs: f64 = a.get(1).map_or(0.0, |s| s.parse().unwrap());
    let only = a.get(2).cloned();
    let spec = GoPersist { keys: 100_000, operations: 1_000_000, seconds: secs, threads: 150, write_percent: 20, sample: 16 };
    let reg = Registry::new(vec![]);
    for round in 0..5 {
      for (name, level) in [("null","async"),("map-scc","async"),("map-dashmap","async"),("map-papaya","async"),("map-sharded","async"),("typed","async"),("typed","write")] {
        if let Some(o)=&only { if o != name && *o != format!("{name}-{level}") { continue } }
        let dir = tempfile::tempdir_in("/work").unwrap();
        let s = reg.get(name).unwrap();
        let sess = s.open(&Site { dir: dir.path(), fs: Arc::new(engine::fs::RealFs), sync: "never".parse().unwrap(), tables: &[], background: true }).unwrap();
        let level: engine::Durability = level.parse().unwrap();
        let r = sess.records().unwrap();
        prefill(&spec, r, level).unwrap();
        let u0 = harness::measure::process::usage();
        let p = run(&spec, r, level, round).unwrap();
        let u1 = harness::measure::process::usage();
        println!("{round} {name:12} {level:6} {:.2}M ops/s  {:.0} ns wall, cpu {:.0} ns/op", p.operations as f64 * 1e3 / p.duration_ns as f64, p.duration_ns as f64 / p.operations as f64, ((u1.cpu_user_ns+u1.cpu_system_ns-u0.cpu_user_ns-u0.cpu_system_ns) as f64)/p.operations as f64);
        sess.close().unwrap();
      }
    }
}
