//! The machine, and what a sync costs in the very directory that the stores will use.

use super::clock::Clock;
use super::histogram::Latencies;
use crate::result::{Calibration, Host, Storage};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// The harness's version, and the commit it was built from where that is known.
pub fn version() -> String {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("HARNESS_COMMIT"));
    if commit.is_empty() { version.to_owned() } else { format!("{version} ({commit})") }
}

/// Reads what the system says of itself. What it does not say is empty.
pub fn host() -> Host {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let kib = field(&read("/proc/meminfo"), "MemTotal");
    Host {
        os: field(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME").trim_matches('"').to_owned(),
        kernel: read("/proc/sys/kernel/osrelease"),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cores: engine::background::processors() as u64,
        memory_bytes: kib.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024,
        rustc: env!("HARNESS_RUSTC").to_owned(),
    }
}

/// Describes the file system of `dir` and measures `fdatasync` there with `syncs` appended pages.
pub fn storage(dir: &Path, syncs: u32) -> io::Result<Storage> {
    let (filesystem, mount) = mount_of(dir);
    let probe = dir.join("calibration.tmp");
    let latencies = time_syncs(&probe, syncs);
    let _ = fs::remove_file(&probe);
    let fdatasync_4k = latencies?.percentiles();
    Ok(Storage { filesystem, mount, calibration: Calibration { fdatasync_4k_p50_ns: fdatasync_4k.p50, fdatasync_4k } })
}

fn time_syncs(probe: &Path, syncs: u32) -> io::Result<Latencies> {
    let mut file = fs::File::create(probe)?;
    let mut latencies = Latencies::default();
    for _ in 0..syncs {
        file.write_all(&[0x5a; 4096])?;
        let clock = Clock::start();
        file.sync_data()?;
        latencies.record(clock.now());
    }
    Ok(latencies)
}

/// Type and options of the file system that holds `dir`.
pub fn mount_of(dir: &Path) -> (String, String) {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = |line: &str| {
        let f: Vec<String> = line.split(' ').map(str::to_owned).collect();
        (f.len() >= 4).then(|| (f[1].clone(), f[2].clone(), f[3].clone()))
    };
    let holding = mounts.lines().filter_map(fields).filter(|(point, ..)| dir.starts_with(point));
    holding.max_by_key(|(point, ..)| point.len()).map_or((String::new(), String::new()), |(_, kind, options)| (kind, options))
}
