//! The only reader of the clock in measurements.

use std::time::{Duration, Instant};

/// Nanoseconds since the clock was started, monotonic.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Sleeps until `ns` after the start; returns at once if that is past.
    pub fn sleep_until(&self, ns: u64) {
        let now = self.now();
        if ns > now {
            std::thread::sleep(Duration::from_nanos(ns - now));
        }
    }
}

/// The system-wide monotonic clock, comparable between processes: nanoseconds since boot.
pub fn boot_ns() -> u64 {
    // `Instant` is CLOCK_MONOTONIC but hides its number; /proc/uptime is too coarse.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
