//! What this process used, from `/proc` and `getrusage`.

use std::fs;
use std::path::Path;

/// Processor time and memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in the program, all threads.
    pub cpu_user_ns: u64,
    /// Processor time in the kernel, all threads.
    pub cpu_system_ns: u64,
    /// Resident set now.
    pub rss: u64,
    /// Largest resident set so far.
    pub rss_peak: u64,
    /// Bytes meant for the device, by all threads, whichever way they were written: pages are counted when they become
    /// dirty, and not when they are dropped before they are written (`write_bytes` and `cancelled_write_bytes` of
    /// `/proc/self/io`).
    pub device_bytes: u64,
}

/// Reads the usage of this process. Figures the system does not give are zero.
pub fn usage() -> Usage {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let times = getrusage(UsageWho::RUSAGE_SELF).ok();
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (status, io) = (read("/proc/self/status"), read("/proc/self/io"));
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    Usage {
        cpu_user_ns: times.map_or(0, |t| t.user_time().num_microseconds() as u64 * 1000),
        cpu_system_ns: times.map_or(0, |t| t.system_time().num_microseconds() as u64 * 1000),
        rss: number(&status, "VmRSS:") * 1024,
        rss_peak: number(&status, "VmHWM:") * 1024,
        device_bytes: number(&io, "write_bytes:").saturating_sub(number(&io, "cancelled_write_bytes:")),
    }
}

/// Apparent and allocated bytes of all files below `dir`, lock files left out.
pub fn space(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return (0, 0) };
    entries.flatten().filter(|e| e.path().extension().is_none_or(|x| x != "lock")).fold((0, 0), |(apparent, allocated), entry| {
        let (a, b) = match entry.metadata() {
            Ok(meta) if meta.is_dir() => space(&entry.path()),
            Ok(meta) => (meta.len(), meta.blocks() * 512),
            Err(_) => (0, 0),
        };
        (apparent + a, allocated + b)
    })
}
