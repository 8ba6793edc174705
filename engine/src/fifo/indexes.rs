//! Sets of indexes: few ranges, however many indexes there are.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of indexes as ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Indexes {
    pub(super) fn contains(&self, index: u64) -> bool {
        self.range_of(index).is_some()
    }

    /// The range that an index lies in.
    pub(super) fn range_of(&self, index: u64) -> Option<Range<u64>> {
        // Mostly it is asked for what is about to be taken out, behind all that was.
        if index >= self.end() {
            return None;
        }
        let (start, end) = self.ranges.range(..=index).next_back()?;
        (index < *end).then_some(*start..*end)
    }

    pub(super) fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.range_of(range.start).is_some_and(|found| range.end <= found.end)
    }

    /// How many indexes of a range are in the set.
    pub(super) fn count_in(&self, range: Range<u64>) -> u64 {
        let first = self.range_of(range.start).map_or(0, |found| found.end.min(range.end) - range.start);
        let inside = self.ranges.range(range.start.saturating_add(1)..range.end.max(range.start.saturating_add(1)));
        first + inside.map(|(start, end)| (*end).min(range.end) - start).sum::<u64>()
    }

    /// The first index from `from` on that is not in the set.
    pub(super) fn next_gap(&self, from: u64) -> u64 {
        self.range_of(from).map_or(from, |found| found.end)
    }

    /// How many indexes there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The index behind the greatest.
    pub(super) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// The ranges, ascending.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Nothing behind it, right behind the last range: what is taken out in order lengthens that.
        if let Some(mut last) = self.ranges.last_entry().filter(|last| *last.get() == start) {
            self.count += end - start;
            *last.get_mut() = end;
            return;
        }
        let before = self.ranges.range(..=start).next_back().map(|(s, e)| (*s, *e));
        if let Some((s, e)) = before.filter(|(_, e)| *e >= start) {
            start = s;
            end = end.max(e);
        }
        while let Some((s, e)) = self.ranges.range(start..=end).next().map(|(s, e)| (*s, *e)) {
            self.ranges.remove(&s);
            self.count -= e - s;
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        self.count += end - start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(calls in prop::collection::vec((0..40u64, 0..8u64), 0..60)) {
            let (mut set, mut model) = (Indexes::default(), BTreeSet::new());
            for (start, len) in calls {
                set.insert(start..start + len);
                model.extend(start..start + len);
                prop_assert_eq!(set.ranges().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.count_in(start..start + 5), model.range(start..start + 5).count() as u64);
                prop_assert_eq!(set.covers(start..start + 3), (start..start + 3).all(|i| model.contains(&i)));
                prop_assert_eq!(set.next_gap(start), (start..).find(|i| !model.contains(i)).unwrap());
                let apart: Vec<_> = set.ranges().collect();
                prop_assert!(apart.windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", apart);
            }
        }
    }
}
