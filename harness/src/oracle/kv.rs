//! The oracle of key-value stores.
//!
//! Clients own their keys, so for each key there is one sequence of versions: the base it had before
//! the round, then the calls of its client. The recovered value must be one of them, not older than the
//! newest promised one. Values say which write they are, so versions can be told apart, except that
//! all deletes look alike; what cannot be told for certain is never held against the store.

use super::queue;
use crate::history::{Outcome, Slot};
use crate::result::Verdict;
use crate::subject::Contents;
use crate::workload::stream::{Action, Answer, Call, OwnedChange};
use engine::Durability;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A write that a client began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Its changes; one, or a batch. None for a call on a queue.
    pub changes: Vec<OwnedChange>,
    /// What it does to a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<queue::Call>,
    /// The durability asked for.
    #[serde(with = "level_name")]
    pub level: Durability,
    /// When it began and how it ended.
    pub slot: Slot,
}

impl Written {
    /// What a call does, before it is known how it ends; `None` for a read. `due` is the entry of a queue that it is going
    /// to acknowledge.
    pub fn of(call: &Call, due: Option<&(u64, String)>) -> Option<Self> {
        let (changes, queue, level) = match &call.action {
            Action::Get { .. } => return None,
            Action::Write { changes, level } => (changes.clone(), None, *level),
            Action::Push { values, end, level } => {
                let push = queue::Call::Push { end: *end, values: values.clone(), indexes: Vec::new() };
                (Vec::new(), Some(push), *level)
            }
            Action::Pop { level, .. } => (Vec::new(), Some(queue::Call::Pop { took: queue::Took::Unknown }), *level),
            Action::Hold => (Vec::new(), Some(queue::Call::Hold { took: queue::Took::Unknown }), Durability::Async),
            Action::Acknowledge { level } => match due {
                Some(entry) => (Vec::new(), Some(queue::Call::Ack(entry.into())), *level),
                None => (Vec::new(), Some(queue::Call::Pop { took: queue::Took::Nothing }), Durability::Async),
            },
        };
        Some(Self { changes, queue, level, slot: Slot { begin: 0, outcome: Outcome::Unknown } })
    }

    /// Takes in what the call returned.
    pub fn answered(&mut self, call: &Call, answer: &Answer) {
        let Some(queue) = &mut self.queue else { return };
        match (queue, answer, &call.action) {
            (queue::Call::Push { values, indexes, .. }, Answer::Pushed(first), _) => {
                *indexes = (*first..).take(values.len()).collect();
            }
            (queue::Call::Hold { took }, Answer::Popped(handed), _) => {
                *took = handed.as_ref().map_or(queue::Took::Nothing, |entry| queue::Took::Entry(entry.into()));
            }
            (queue, Answer::Popped(taken), Action::Pop { acknowledged, .. }) => {
                let entry = taken.as_ref().map(queue::Entry::from);
                if entry.is_none() && *acknowledged {
                    // Nothing was handed out, so there was nothing to acknowledge, and nothing to make durable.
                    self.level = Durability::Async;
                }
                *queue = match entry {
                    None => queue::Call::Pop { took: queue::Took::Nothing },
                    Some(entry) if *acknowledged => queue::Call::Ack(entry),
                    Some(entry) => queue::Call::Pop { took: queue::Took::Entry(entry) },
                };
            }
            _ => {}
        }
    }
}

/// A level by its name in scenario files.
pub(super) mod level_name {
    use super::{Deserialize, Durability, Serialize};

    pub(crate) fn serialize<S: serde::Serializer>(level: &Durability, to: S) -> Result<S::Ok, S::Error> {
        level.to_string().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Durability, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the oracle found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Acknowledged writes.
    pub acked: u64,
    /// Acknowledged writes whose survival was promised.
    pub promised: u64,
    /// Promised writes that are missing.
    pub lost_promised: u64,
    /// Acknowledged writes that are missing, promised or not.
    pub lost_acked: u64,
    /// When the oldest missing write was acknowledged.
    pub oldest_lost: Option<u64>,
    /// What is there but should not be, or torn apart; one sentence each.
    pub wrong: Vec<String>,
    /// Values among `wrong` that nobody wrote.
    pub phantoms: u64,
    /// For each client, for each of its writes: whether it is certainly missing.
    pub missing: Vec<Vec<bool>>,
}

impl Judgement {
    /// The verdict that follows.
    pub fn verdict(&self) -> Verdict {
        if !self.wrong.is_empty() {
            Verdict::Corrupt
        } else if self.lost_promised > 0 {
            Verdict::Lost
        } else {
            Verdict::Survived
        }
    }
}

/// One version of a key: which write made it, and what the key was then.
struct Version<'a> {
    write: Option<(usize, usize)>,
    value: Option<&'a str>,
}

/// Which of a key's versions the recovered store may be showing.
struct Shown {
    /// The oldest version that looks like what was found and is not older than what was promised.
    low: usize,
    /// The newest that looks like it.
    high: usize,
}

/// The judge of one history. Made once, asked once for each recovered store.
pub struct Judge<'a> {
    writes: &'a [Vec<Written>],
    promised_from: &'a [Vec<Option<u64>>],
    keeps_prefix: bool,
    /// The versions of every key that was there before or was written.
    versions: BTreeMap<(usize, &'a str), Vec<Version<'a>>>,
}

impl<'a> Judge<'a> {
    /// A judge of stores that had `base` before the clients made their `writes`. A write is promised from
    /// the moment that `promised_from` gives for it; other acknowledged writes may be missing, if
    /// `keeps_prefix` only from the end.
    pub fn new(
        base: &'a Contents,
        writes: &'a [Vec<Written>],
        promised_from: &'a [Vec<Option<u64>>],
        keeps_prefix: bool,
    ) -> Self {
        Self { writes, promised_from, keeps_prefix, versions: versions(base, writes) }
    }

    /// The writes that it judges.
    pub fn writes(&self) -> &'a [Vec<Written>] {
        self.writes
    }

    /// Judges what was recovered from a crash at the moment `until`: what began later never happened, what
    /// ended later was in flight.
    pub fn judge(&self, contents: &Contents, until: u64) -> Judgement {
        let writes = self.writes;
        let mut judgement = Judgement { missing: writes.iter().map(|w| vec![false; w.len()]).collect(), ..Judgement::default() };
        for (table, keys) in contents.iter().enumerate() {
            for (key, value) in keys {
                if !self.versions.contains_key(&(table, key.as_str())) {
                    judgement.wrong.push(phantom(table, key, Some(value)));
                    judgement.phantoms += 1;
                }
            }
        }
        // The newest version of each key that a write must be compared with.
        let mut shown: BTreeMap<(usize, &str), Shown> = BTreeMap::new();
        for (&(table, key), list) in &self.versions {
            let begun = list.partition_point(|v| v.write.is_none_or(|(c, w)| writes[c][w].slot.begin < until));
            let list = &list[..begun];
            let found = contents.get(table).and_then(|t| t.get(key)).map(String::as_str);
            let is_promised = |v: &Version<'_>| v.write.is_some_and(|id| self.is_promised(id, until));
            let newest_promised = list.iter().rposition(is_promised).unwrap_or(0);
            let mut matching = (0..list.len()).filter(|&i| list[i].value == found);
            let low = matching.clone().find(|&i| i >= newest_promised);
            match (low, matching.next_back()) {
                (Some(low), Some(high)) => drop(shown.insert((table, key), Shown { low, high })),
                // Older than promised: counted below, write by write.
                (None, Some(high)) => drop(shown.insert((table, key), Shown { low: high, high })),
                _ => {
                    judgement.wrong.push(phantom(table, key, found));
                    judgement.phantoms += u64::from(found.is_some());
                }
            }
        }
        let mut visible_until = 0;
        let mut states = Vec::new();
        for (c, client) in writes.iter().enumerate() {
            for (w, write) in client.iter().enumerate().take_while(|(_, write)| write.slot.begin < until) {
                let acked = write.slot.acked_by(until).is_some();
                let state = visibility((c, w), write, acked, &self.versions, &shown);
                if state.torn() {
                    let changes = write.changes.len();
                    judgement.wrong.push(format!("a batch of {changes} changes is there in part: {}", describe(write)));
                }
                if state.surely_there {
                    visible_until = visible_until.max(write.slot.begin);
                }
                states.push(((c, w), state));
            }
        }
        for ((c, w), state) in states {
            let write = &writes[c][w];
            let Some(at) = write.slot.acked_by(until) else { continue };
            judgement.acked += 1;
            let is_promised = self.is_promised((c, w), until);
            judgement.promised += u64::from(is_promised);
            if !state.surely_missing {
                continue;
            }
            judgement.missing[c][w] = true;
            judgement.lost_acked += 1;
            judgement.lost_promised += u64::from(is_promised);
            judgement.oldest_lost = Some(judgement.oldest_lost.map_or(at, |oldest| oldest.min(at)));
            if self.keeps_prefix && !is_promised && write.level != Durability::Async && at < visible_until {
                judgement.wrong.push(format!("a write is missing although a later one is there: {}", describe(write)));
            }
        }
        judgement
    }

    fn is_promised(&self, (client, write): (usize, usize), until: u64) -> bool {
        self.promised_from[client][write].is_some_and(|from| from < until)
    }
}

/// All versions of every key that was there before or was written.
fn versions<'a>(base: &'a Contents, writes: &'a [Vec<Written>]) -> BTreeMap<(usize, &'a str), Vec<Version<'a>>> {
    let mut versions: BTreeMap<(usize, &str), Vec<Version<'_>>> = BTreeMap::new();
    for (table, keys) in base.iter().enumerate() {
        for (key, value) in keys {
            versions.insert((table, key.as_str()), vec![Version { write: None, value: Some(value) }]);
        }
    }
    for (c, client) in writes.iter().enumerate() {
        for (w, write) in client.iter().enumerate() {
            for change in &write.changes {
                let list = versions
                    .entry((change.table, change.key.as_str()))
                    .or_insert_with(|| vec![Version { write: None, value: None }]);
                if list.last().is_some_and(|v| v.write == Some((c, w))) {
                    // A batch that writes a key twice: the last change counts, nobody may see the first.
                    list.pop();
                }
                list.push(Version { write: Some((c, w)), value: change.value.as_deref() });
            }
        }
    }
    versions
}

struct Visibility {
    surely_there: bool,
    surely_missing: bool,
    some_there: bool,
    some_missing: bool,
}

impl Visibility {
    fn torn(&self) -> bool {
        self.some_there && self.some_missing
    }
}

/// A later version shows that an acknowledged write was there before it; of one that failed or was in flight
/// only its own version tells.
fn visibility(
    id: (usize, usize),
    write: &Written,
    acked: bool,
    versions: &BTreeMap<(usize, &str), Vec<Version<'_>>>,
    shown: &BTreeMap<(usize, &str), Shown>,
) -> Visibility {
    let (mut some_there, mut some_missing, mut all_missing) = (false, false, true);
    for change in &write.changes {
        let place = (change.table, change.key.as_str());
        let (Some(list), Some(shown)) = (versions.get(&place), shown.get(&place)) else { continue };
        let Some(at) = list.iter().position(|v| v.write == Some(id)) else { continue };
        some_there |= if acked { shown.low >= at } else { shown.low == at && shown.high == at };
        some_missing |= shown.high < at;
        all_missing &= shown.high < at;
    }
    Visibility { surely_there: some_there, surely_missing: some_missing && all_missing, some_there, some_missing }
}

fn phantom(table: usize, key: &str, found: Option<&str>) -> String {
    match found {
        Some(value) => format!(
            "key {key:?} of table {table} has a value that nobody wrote: {:?}",
            value.chars().take(60).collect::<String>()
        ),
        None => format!("key {key:?} of table {table} is missing although nobody deleted it"),
    }
}

fn describe(write: &Written) -> String {
    let change = |c: &OwnedChange| match &c.value {
        Some(value) => format!("{}={:?}", c.key, value.chars().take(24).collect::<String>()),
        None => format!("{} deleted", c.key),
    };
    write.changes.iter().take(4).map(change).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::contract::{Promises, promised_from};
    use crate::subject::Promise;

    fn write(changes: &[(&str, Option<&str>)], outcome: Outcome, begin: u64) -> Written {
        let change =
            |&(key, value): &(&str, Option<&str>)| OwnedChange { table: 0, key: key.into(), value: value.map(Into::into) };
        let changes = changes.iter().map(change).collect();
        Written { changes, queue: None, level: Durability::Write, slot: Slot { begin, outcome } }
    }

    fn contents(entries: &[(&str, &str)]) -> Contents {
        vec![entries.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()]
    }

    fn check(base: &[(&str, &str)], writes: Vec<Written>, found: &[(&str, &str)], promise: Promise) -> Judgement {
        let writes = [writes];
        let promises = Promises { crash: Promise::Process, of: &|_| promise, keeps_prefix: true, syncs: &[] };
        let from = promised_from(&writes, &promises);
        Judge::new(&contents(base), &writes, &from, true).judge(&contents(found), 1_000)
    }

    #[test]
    fn what_was_promised_must_be_there() {
        let writes =
            || vec![write(&[("a", Some("1"))], Outcome::Acked(10), 5), write(&[("a", Some("2"))], Outcome::Acked(20), 15)];
        assert_eq!(check(&[], writes(), &[("a", "2")], Promise::Process).verdict(), Verdict::Survived);
        let stale = check(&[], writes(), &[("a", "1")], Promise::Process);
        assert_eq!((stale.verdict(), stale.lost_promised, stale.oldest_lost), (Verdict::Lost, 1, Some(20)));
        let gone = check(&[], writes(), &[], Promise::Process);
        assert_eq!((gone.verdict(), gone.lost_promised), (Verdict::Lost, 2));
    }

    #[test]
    fn in_flight_and_failed_writes_have_two_legal_outcomes() {
        for outcome in [Outcome::Unknown, Outcome::Failed(9)] {
            for found in [&[("a", "0")][..], &[("a", "1")]] {
                let j = check(&[("a", "0")], vec![write(&[("a", Some("1"))], outcome, 5)], found, Promise::Process);
                assert_eq!((j.verdict(), j.acked), (Verdict::Survived, 0), "{outcome:?} {found:?}");
            }
        }
    }

    #[test]
    fn nobody_wrote_it() {
        let j = check(&[("a", "0")], vec![write(&[("a", Some("1"))], Outcome::Acked(9), 5)], &[("a", "other")], Promise::Process);
        assert_eq!(j.verdict(), Verdict::Corrupt);
        assert_eq!(check(&[], vec![], &[("ghost", "x")], Promise::None).verdict(), Verdict::Corrupt);
        assert_eq!(check(&[("a", "0")], vec![], &[], Promise::None).verdict(), Verdict::Corrupt);
    }

    #[test]
    fn what_comes_after_the_crash_never_happened() {
        let writes = [vec![write(&[("a", Some("1"))], Outcome::Acked(9), 5), write(&[("a", Some("2"))], Outcome::Acked(19), 15)]];
        let from = vec![vec![Some(9), Some(19)]];
        let base = contents(&[]);
        let judge = Judge::new(&base, &writes, &from, true);
        assert_eq!(judge.judge(&contents(&[("a", "1")]), 15).verdict(), Verdict::Survived);
        assert_eq!(judge.judge(&contents(&[("a", "2")]), 15).verdict(), Verdict::Corrupt);
        assert_eq!(judge.judge(&contents(&[("a", "1")]), 19).verdict(), Verdict::Survived, "in flight");
        assert_eq!(judge.judge(&contents(&[("a", "1")]), 20).verdict(), Verdict::Lost);
        assert_eq!(judge.judge(&contents(&[]), 9).verdict(), Verdict::Survived, "in flight");
    }

    #[test]
    fn a_deleted_key_stays_deleted() {
        let writes = vec![write(&[("a", None)], Outcome::Acked(9), 5)];
        assert_eq!(check(&[("a", "0")], writes.clone(), &[], Promise::Process).verdict(), Verdict::Survived);
        assert_eq!(check(&[("a", "0")], writes, &[("a", "0")], Promise::Process).verdict(), Verdict::Lost);
    }

    #[test]
    fn a_batch_is_there_or_not() {
        let batch = || vec![write(&[("a", Some("1")), ("b", Some("1"))], Outcome::Unknown, 5)];
        assert_eq!(check(&[], batch(), &[("a", "1"), ("b", "1")], Promise::Process).verdict(), Verdict::Survived);
        assert_eq!(check(&[], batch(), &[], Promise::Process).verdict(), Verdict::Survived);
        assert_eq!(check(&[], batch(), &[("b", "1")], Promise::Process).verdict(), Verdict::Corrupt);
        // Deleting what was not there cannot be told from not having happened.
        let vague = vec![write(&[("a", None), ("b", Some("1"))], Outcome::Unknown, 5)];
        assert_eq!(check(&[], vague, &[], Promise::Process).verdict(), Verdict::Survived);
        // A batch that was overwritten in part was still there whole.
        let over = vec![
            write(&[("a", Some("1")), ("b", Some("1"))], Outcome::Acked(9), 5),
            write(&[("a", Some("2"))], Outcome::Acked(12), 10),
        ];
        assert_eq!(check(&[], over, &[("a", "2"), ("b", "1")], Promise::Process).verdict(), Verdict::Survived);
    }

    #[test]
    fn a_failed_batch_that_was_overwritten_tells_nothing() {
        let writes = |outcome| {
            vec![write(&[("a", Some("1")), ("b", Some("1"))], outcome, 5), write(&[("a", Some("2"))], Outcome::Acked(12), 10)]
        };
        assert_eq!(check(&[], writes(Outcome::Failed(9)), &[("a", "2")], Promise::Process).verdict(), Verdict::Survived);
        assert_eq!(check(&[], writes(Outcome::Acked(9)), &[("a", "2")], Promise::None).verdict(), Verdict::Corrupt);
    }

    #[test]
    fn without_a_promise_only_the_end_may_be_missing() {
        let writes = || {
            vec![
                write(&[("a", Some("1"))], Outcome::Acked(9), 5),
                write(&[("b", Some("1"))], Outcome::Acked(19), 15),
                write(&[("c", Some("1"))], Outcome::Acked(29), 25),
            ]
        };
        let end = check(&[], writes(), &[("a", "1")], Promise::None);
        assert_eq!((end.verdict(), end.lost_acked, end.lost_promised), (Verdict::Survived, 2, 0));
        assert_eq!(check(&[], writes(), &[("a", "1"), ("c", "1")], Promise::None).verdict(), Verdict::Corrupt);
        let mut buffered = writes();
        buffered[1].level = Durability::Async;
        assert_eq!(check(&[], buffered, &[("a", "1"), ("c", "1")], Promise::None).verdict(), Verdict::Survived);
    }
}
