//! From what a store promises to the moment from which each write must survive.

use super::kv::Written;
use crate::history::Slot;
use crate::subject::Promise;
use engine::Durability;

/// What a store promises, held against one kind of crash.
pub struct Promises<'a> {
    /// The crash: what survives [`Promise::Process`] is held against a kill, [`Promise::Power`] against power loss.
    pub crash: Promise,
    /// What an acknowledged write survives.
    pub of: &'a dyn Fn(&Written) -> Promise,
    /// Whether a write that survives carries every earlier one along, buffered ones aside.
    pub keeps_prefix: bool,
    /// Calls of `sync`, which carry everything that was acknowledged before them.
    pub syncs: &'a [Slot],
}

/// For each write the moment from which it must survive such a crash; `None` for never.
pub fn promised_from(writes: &[Vec<Written>], promises: &Promises<'_>) -> Vec<Vec<Option<u64>>> {
    let acked = |slot: &Slot| slot.acked_by(u64::MAX);
    let promised = |w: &Written| (promises.of)(w) >= promises.crash;
    // (when it began, when it was done, whether it carries buffered writes too)
    let mut carriers: Vec<(u64, u64, bool)> =
        promises.syncs.iter().filter_map(|slot| Some((slot.begin, acked(slot)?, true))).collect();
    if promises.keeps_prefix {
        let strong = writes.iter().flatten().filter(|w| promised(w) && w.level != Durability::Async);
        carriers.extend(strong.filter_map(|w| Some((w.slot.begin, acked(&w.slot)?, false))));
    }
    carriers.sort_by_key(|(_, done, _)| *done);
    let from = |w: &Written| {
        let at = acked(&w.slot)?;
        if promised(w) {
            return Some(at);
        }
        let buffered = w.level == Durability::Async;
        carriers.iter().find(|(begin, _, all)| *begin > at && (*all || !buffered)).map(|(_, done, _)| *done)
    };
    writes.iter().map(|client| client.iter().map(from).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    fn write(level: Durability, begin: u64, acked: u64) -> Written {
        Written { changes: Vec::new(), queue: None, level, slot: Slot { begin, outcome: Outcome::Acked(acked) } }
    }

    fn power(writes: Vec<Written>, syncs: &[Slot], keeps_prefix: bool) -> Vec<Option<u64>> {
        let of = |w: &Written| if w.level == Durability::Sync { Promise::Power } else { Promise::Process };
        promised_from(&[writes], &Promises { crash: Promise::Power, of: &of, keeps_prefix, syncs }).remove(0)
    }

    #[test]
    fn a_synced_write_carries_the_earlier_ones() {
        use Durability::{Async, Sync, Write};
        let writes = || vec![write(Write, 1, 2), write(Async, 3, 4), write(Sync, 5, 6), write(Write, 7, 8)];
        assert_eq!(power(writes(), &[], true), [Some(6), None, Some(6), None]);
        assert_eq!(power(writes(), &[], false), [None, None, Some(6), None]);
        let sync = [Slot { begin: 9, outcome: Outcome::Acked(10) }];
        assert_eq!(power(writes(), &sync, false), [Some(10), Some(10), Some(6), Some(10)]);
    }

    #[test]
    fn what_overlaps_a_sync_is_not_carried() {
        let writes = vec![write(Durability::Write, 1, 5)];
        assert_eq!(power(writes.clone(), &[Slot { begin: 4, outcome: Outcome::Acked(9) }], true), [None]);
        assert_eq!(power(writes, &[Slot { begin: 6, outcome: Outcome::Unknown }], true), [None]);
    }
}
