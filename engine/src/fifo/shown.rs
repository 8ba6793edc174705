//! How far readers of the writer's process may read: told after each entry, and so without a lock.
//!
//! A sequence lock: an odd turn says that the three numbers are being changed, and a reader who saw the turn change
//! looks again (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012).

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The end of what is in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The number of the last segment.
    pub(super) segment: u64,
    /// Where it ends.
    pub(super) offset: u64,
    /// The index behind its last entry.
    pub(super) next: u64,
}

/// Where one writer tells any number of readers the end.
#[derive(Debug, Default)]
pub(super) struct Shown {
    turn: AtomicU64,
    segment: AtomicU64,
    offset: AtomicU64,
    next: AtomicU64,
}

impl Shown {
    pub(super) fn at(end: End) -> Self {
        let shown = Self::default();
        shown.show(end);
        shown
    }

    /// To be called by one thread at a time.
    pub(super) fn show(&self, end: End) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.segment.store(end.segment, Ordering::Relaxed);
        self.offset.store(end.offset, Ordering::Relaxed);
        self.next.store(end.next, Ordering::Relaxed);
        self.turn.store(turn + 2, Ordering::Release);
    }

    pub(super) fn get(&self) -> End {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let end = End {
                segment: self.segment.load(Ordering::Relaxed),
                offset: self.offset.load(Ordering::Relaxed),
                next: self.next.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn {
                return end;
            }
            // Three stores away, unless the writer has just lost its processor: then a little longer.
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn readers_never_see_half_of_a_change() {
        let (shown, done) = (Shown::default(), AtomicBool::new(false));
        crate::background::in_parallel(vec![true, false, false], |writes| {
            if writes {
                (1..=200_000).for_each(|n| shown.show(End { segment: n, offset: n * 3, next: n * 7 }));
                return done.store(true, Ordering::Release);
            }
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let end = shown.get();
                assert_eq!((end.offset, end.next), (end.segment * 3, end.segment * 7));
                assert!(end.segment >= last, "it went back from {last} to {}", end.segment);
                last = end.segment;
            }
        });
        assert_eq!(shown.get(), End { segment: 200_000, offset: 600_000, next: 1_400_000 });
    }
}
