//! The judge: whether a recovered store keeps what was promised.
//!
//! **Invariant:** pure. It gets the history and the recovered contents and does no I/O, so every check
//! can be tried on made-up cases.

pub mod contract;
pub mod kv;
pub mod queue;

use crate::subject::{Contents, entries_of};
use kv::{Judgement, Written};

/// The judge of one history, of keys or of a queue. Made once, asked once for each recovered store.
pub enum Judge<'a> {
    /// Of keys.
    Keys(kv::Judge<'a>),
    /// Of a queue.
    Queue(queue::Judge<'a>, &'a [Vec<Written>]),
}

impl<'a> Judge<'a> {
    /// A judge of stores that had `base` before the clients made their `writes`; see [`kv::Judge::new`] and
    /// [`queue::Judge::new`].
    pub fn new(
        base: &'a Contents,
        writes: &'a [Vec<Written>],
        promised_from: &'a [Vec<Option<u64>>],
        keeps_prefix: bool,
    ) -> Self {
        if writes.iter().flatten().any(|write| write.queue.is_some()) {
            return Judge::Queue(queue::Judge::new(&entries_of(base), writes, promised_from, keeps_prefix), writes);
        }
        Judge::Keys(kv::Judge::new(base, writes, promised_from, keeps_prefix))
    }

    /// The writes that it judges.
    pub fn writes(&self) -> &'a [Vec<Written>] {
        match self {
            Judge::Keys(judge) => judge.writes(),
            Judge::Queue(_, writes) => writes,
        }
    }

    /// Judges what was recovered from a crash at the moment `until`: what began later never happened, what
    /// ended later was in flight.
    pub fn judge(&self, contents: &Contents, until: u64) -> Judgement {
        match self {
            Judge::Keys(judge) => judge.judge(contents, until),
            Judge::Queue(judge, _) => {
                let entry = |(index, value): (u64, &str)| queue::Entry { index, value: value.to_owned() };
                judge.judge(&entries_of(contents).into_iter().map(entry).collect::<Vec<_>>(), until)
            }
        }
    }
}
