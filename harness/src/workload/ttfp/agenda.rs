//! What is due when: first by time, then by the order in which it was noted down.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A queue of things by due time in nanoseconds.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    noted: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: u64,
    number: u64,
    thing: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), noted: 0 }
    }
}

impl<T> Agenda<T> {
    pub(super) fn note(&mut self, due: u64, thing: T) {
        self.noted += 1;
        self.heap.push(Entry { due, number: self.noted, thing });
    }

    /// When the next thing is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.due)
    }

    /// The next thing and when it was due.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|entry| (entry.due, entry.thing))
    }
}

impl<T> Ord for Entry<T> {
    /// Reversed: the heap gives its greatest, we want the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}
