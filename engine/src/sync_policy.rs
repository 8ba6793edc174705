//! When a log is synced, and what a call may ask for.
//!
//! | call | `never` | `interval:d` | `always` | `manual` |
//! |---|---|---|---|---|
//! | `Async` | nothing until the next background flush puts it in the kernel | the same, and on the device at most d after that flush | the flush syncs too | the flush puts it in the kernel, `sync()` on the device |
//! | `Write` | in the kernel: survives SIGKILL | and on the device at most d later | on the device | and on the device after `sync()` |
//! | `Sync` | on the device | on the device | on the device | on the device |
//!
//! The stronger of policy and call wins; `never` raises nothing.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When a log is synced without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncPolicy {
    /// Only when a call asks for `Sync`. Power loss may take everything else.
    Never,
    /// At most this long after a write. Power loss may take the writes of one interval.
    Interval(Duration),
    /// Before any `Write` returns. Power loss takes nothing acknowledged by `Write` or `Sync`.
    Always,
    /// When the owner calls `sync()`, for instance at the end of a run loop.
    Manual,
}

/// What one call asks for; ordered by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// Buffered in memory until the next flush.
    Async,
    /// In the kernel when the call returns: survives the process.
    Write,
    /// On the device when the call returns: survives power loss.
    Sync,
}

impl SyncPolicy {
    /// `interval:1s` by its usual name.
    pub const EVERY_SECOND: SyncPolicy = SyncPolicy::Interval(Duration::from_secs(1));

    /// Refuses an interval of zero: a sync that is always due would keep a thread spinning.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self == SyncPolicy::Interval(Duration::ZERO) {
            let why = "an interval must be longer than zero; use always to sync before each write returns";
            return Err(Error::Option { option: "sync", value: self.to_string(), why });
        }
        Ok(())
    }

    /// The level that a call of level `asked` really gets before it returns.
    pub fn raise(self, asked: Durability) -> Durability {
        match (self, asked) {
            (SyncPolicy::Always, Durability::Write) => Durability::Sync,
            _ => asked,
        }
    }

    /// Whether unsynced bytes, the oldest of them written at `oldest`, must be synced at `now`.
    /// Both are durations since the store was opened.
    pub fn due(self, oldest: Option<Duration>, now: Duration) -> bool {
        match (self, oldest) {
            (SyncPolicy::Interval(d), Some(oldest)) => now.saturating_sub(oldest) >= d,
            _ => false,
        }
    }

    /// The stricter of two policies of one log. A log that holds records under several policies syncs
    /// as its strictest demands.
    pub fn stricter(self, other: SyncPolicy) -> SyncPolicy {
        fn rank(p: SyncPolicy) -> (u8, std::cmp::Reverse<Duration>) {
            match p {
                SyncPolicy::Never => (0, std::cmp::Reverse(Duration::ZERO)),
                SyncPolicy::Manual => (1, std::cmp::Reverse(Duration::ZERO)),
                SyncPolicy::Interval(d) => (2, std::cmp::Reverse(d)),
                SyncPolicy::Always => (3, std::cmp::Reverse(Duration::ZERO)),
            }
        }
        if rank(other) > rank(self) { other } else { self }
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncPolicy::Never => f.write_str("never"),
            SyncPolicy::Always => f.write_str("always"),
            SyncPolicy::Manual => f.write_str("manual"),
            SyncPolicy::Interval(d) if d.subsec_nanos() == 0 => {
                write!(f, "interval:{}s", d.as_secs())
            }
            SyncPolicy::Interval(d) if d.subsec_nanos() % 1_000_000 == 0 => {
                write!(f, "interval:{}ms", d.as_millis())
            }
            SyncPolicy::Interval(d) => write!(f, "interval:{}us", d.as_micros()),
        }
    }
}

impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "unknown sync policy {text:?}: expected never, always, manual, every-second or interval:<duration> such as interval:10ms"
            )
        };
        match text {
            "never" => return Ok(SyncPolicy::Never),
            "always" => return Ok(SyncPolicy::Always),
            "manual" => return Ok(SyncPolicy::Manual),
            "every-second" => return Ok(SyncPolicy::EVERY_SECOND),
            _ => {}
        }
        let duration = text.strip_prefix("interval:").ok_or_else(expected)?;
        let digits = duration.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
        let (number, unit) = duration.split_at(digits);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let nanos = match unit {
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000u64,
            _ => return Err(expected()),
        };
        match number.checked_mul(nanos) {
            Some(n) if n > 0 => Ok(SyncPolicy::Interval(Duration::from_nanos(n))),
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Async => "async",
            Durability::Write => "write",
            Durability::Sync => "sync",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "async" => Ok(Durability::Async),
            "write" => Ok(Durability::Write),
            "sync" => Ok(Durability::Sync),
            _ => Err(format!("unknown durability level {text:?}: expected async, write or sync")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for name in ["never", "always", "manual", "interval:1s", "interval:10ms", "interval:250us"] {
            assert_eq!(name.parse::<SyncPolicy>().unwrap().to_string(), name);
        }
        assert_eq!("every-second".parse::<SyncPolicy>().unwrap().to_string(), "interval:1s");
        for bad in
            ["", "interval", "interval:", "interval:0s", "interval:1", "interval:1h", "Always", "interval:99999999999999999999s"]
        {
            assert!(bad.parse::<SyncPolicy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_stronger_of_policy_and_call_wins() {
        assert_eq!(SyncPolicy::Always.raise(Durability::Write), Durability::Sync);
        assert_eq!(SyncPolicy::Always.raise(Durability::Async), Durability::Async);
        for weak in [SyncPolicy::Never, SyncPolicy::Manual, SyncPolicy::EVERY_SECOND] {
            for level in [Durability::Async, Durability::Write, Durability::Sync] {
                assert_eq!(weak.raise(level), level);
            }
        }
    }

    #[test]
    fn only_an_interval_falls_due() {
        let (now, old) = (Duration::from_secs(10), Some(Duration::from_secs(9)));
        assert!(SyncPolicy::EVERY_SECOND.due(old, now));
        assert!(!SyncPolicy::EVERY_SECOND.due(old, now - Duration::from_nanos(1)));
        assert!(!SyncPolicy::EVERY_SECOND.due(None, now));
        assert!(!SyncPolicy::Never.due(old, now) && !SyncPolicy::Manual.due(old, now));
    }

    #[test]
    fn the_strictest_policy_rules_a_shared_log() {
        let ms = |n| SyncPolicy::Interval(Duration::from_millis(n));
        assert_eq!(SyncPolicy::Never.stricter(ms(5)), ms(5));
        assert_eq!(ms(10).stricter(ms(5)), ms(5));
        assert_eq!(ms(5).stricter(SyncPolicy::Manual), ms(5));
        assert_eq!(ms(5).stricter(SyncPolicy::Always), SyncPolicy::Always);
    }
}
