//! The oracle of queue stores.
//!
//! An entry is what it says: values are unique, so a recovered entry tells which push made it and a
//! delivered one which entry was taken. Identity is the index, order is a matter of its own: what is put in
//! front gets a new index like everything else. Whatever a call that nobody knows the end of may have done
//! is never held against the store: of a pop that failed or was in flight it is only known that it took one
//! entry at most, from the head.

use super::kv::{Judgement, Written};
use crate::history::{Outcome, Slot};
pub use crate::subject::End;
use engine::Durability;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An entry of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the store calls it, for as long as it lives.
    pub index: u64,
    /// What was pushed.
    pub value: String,
}

impl From<&(u64, String)> for Entry {
    fn from((index, value): &(u64, String)) -> Self {
        Self { index: *index, value: value.clone() }
    }
}

/// What a pop took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Took {
    /// Nobody knows: it failed, or was in flight when the process died.
    Unknown,
    /// Nothing: it said that the queue was empty.
    Nothing,
    /// This entry.
    Entry(Entry),
}

/// A call that changes a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Puts entries in, all or none.
    Push {
        /// Where.
        end: End,
        /// One, or a batch in the order in which a back push lines them up.
        values: Vec<String>,
        /// The indexes that the store gave them; empty when it did not say.
        indexes: Vec<u64>,
    },
    /// Takes the head out.
    Pop {
        /// What it returned.
        took: Took,
    },
    /// Hands the head out and leaves it in the queue: whatever comes of it, the entry must still be there.
    Hold {
        /// What it handed out, to be passed over by others.
        took: Took,
    },
    /// Takes out an entry that was handed out before, wherever it stands.
    Ack(Entry),
}

impl Call {
    /// Whether it changes nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self, Call::Pop { took: Took::Nothing } | Call::Hold { .. })
    }
}

impl Written {
    /// What it does to a queue; of a write of keys, nothing.
    fn call(&self) -> &Call {
        self.queue.as_ref().unwrap_or(&Call::Pop { took: Took::Nothing })
    }
}

/// A client and one of its calls.
type Id = (usize, usize);

/// An entry that was there before or that a client began to push.
struct Item<'a> {
    value: &'a str,
    /// Its push; none for what was there before.
    push: Option<Id>,
    front: bool,
    /// When its push began and was acknowledged; both zero for what was there before.
    begin: u64,
    acked: Option<u64>,
    /// Its index, and since when a client knows it. An index that nobody was told may still change.
    told: Option<(u64, u64)>,
    /// The calls that took it, or tried to.
    takes: Vec<Id>,
    /// When a call began that handed it out: pops pass it over from then on.
    held_from: Option<u64>,
    /// Another push has the same value, so it cannot be told what became of this one.
    vague: bool,
}

impl Item<'_> {
    fn describe(&self) -> String {
        format!("{:?}", brief(self.value))
    }
}

/// A pop of which nobody knows what it took: at most one entry, between these moments.
struct Blind {
    begin: u64,
    end: u64,
}

/// What the answers alone show to be wrong, whatever a crash leaves.
struct Contradiction {
    /// When the answer came that completes it.
    at: u64,
    phantom: bool,
    words: String,
}

/// The judge of one history. Made once, asked once for each recovered store.
pub struct Judge<'a> {
    calls: &'a [Vec<Written>],
    promised_from: &'a [Vec<Option<u64>>],
    keeps_prefix: bool,
    /// Those that were there before first, in their order.
    items: Vec<Item<'a>>,
    by_value: BTreeMap<&'a str, Vec<usize>>,
    by_index: BTreeMap<u64, Vec<usize>>,
    /// Whether what was there before had ascending indexes: not if something was once put in front of it.
    base_ascends: bool,
    blind: Vec<Blind>,
    /// When calls began that handed out nobody knows what.
    blind_holds: Vec<u64>,
    contradictions: Vec<Contradiction>,
}

impl<'a> Judge<'a> {
    /// A judge of queues that held `base`, in this order, before the clients made their `calls`. The effect of
    /// a call is promised from the moment that `promised_from` gives for it; other acknowledged pushes may be
    /// missing and other acknowledged pops undone, if `keeps_prefix` only from the end of either.
    pub fn new(
        base: &[(u64, &'a str)],
        calls: &'a [Vec<Written>],
        promised_from: &'a [Vec<Option<u64>>],
        keeps_prefix: bool,
    ) -> Self {
        let items = items(base, calls);
        let mut by_value: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            by_value.entry(item.value).or_default().push(i);
        }
        let base_ascends = base.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let mut judge = Self {
            calls,
            promised_from,
            keeps_prefix,
            items,
            by_value,
            by_index: BTreeMap::new(),
            base_ascends,
            blind: Vec::new(),
            blind_holds: Vec::new(),
            contradictions: Vec::new(),
        };
        for i in judge.by_value.values().filter(|same| same.len() > 1).flatten() {
            judge.items[*i].vague = true;
        }
        judge.read_takes();
        judge.read_indexes();
        judge.read_order_of_deliveries();
        judge
    }

    /// Judges what was recovered, in the order in which pops would deliver it, from a crash at the moment `until`:
    /// what began later never happened, what ended later was in flight.
    ///
    /// A call is lost when an entry that it pushed is missing, or one that it took is back. Where more entries are
    /// missing than pops of unknown result can have taken, the surplus is counted although nobody knows which
    /// they are; only calls that are lost for certain are marked as missing.
    pub fn judge(&self, found: &[Entry], until: u64) -> Judgement {
        let mut judgement =
            Judgement { missing: self.calls.iter().map(|c| vec![false; c.len()]).collect(), ..Judgement::default() };
        for contradiction in self.contradictions.iter().filter(|c| c.at < until) {
            judgement.wrong.push(contradiction.words.clone());
            judgement.phantoms += u64::from(contradiction.phantom);
        }
        let shown = self.identify(found, until, &mut judgement);
        self.check_order(found, &shown, until, &mut judgement);
        let mut present = vec![false; self.items.len()];
        shown.iter().for_each(|&(_, i)| present[i] = true);
        let fate = self.fate(&present, until);
        for i in &fate.lost {
            if self.items[*i].push.is_none() {
                let what = self.items[*i].describe();
                judgement.wrong.push(format!("entry {what} was there before and is missing although nobody took it"));
            }
        }
        self.check_batches(&present, &fate, until, &mut judgement);
        self.count(&present, &fate, until, &mut judgement);
        judgement
    }

    /// Says of every pop and acknowledgement which entry it took.
    fn read_takes(&mut self) {
        for (c, client) in self.calls.iter().enumerate() {
            for (w, called) in client.iter().enumerate() {
                let (entry, popped) = match called.call() {
                    Call::Hold { took: Took::Unknown } => {
                        self.blind_holds.push(called.slot.begin);
                        continue;
                    }
                    Call::Hold { took: Took::Entry(entry) } => {
                        for &i in self.by_value.get(entry.value.as_str()).map_or(&[][..], Vec::as_slice) {
                            let from = &mut self.items[i].held_from;
                            *from = Some(from.map_or(called.slot.begin, |at| at.min(called.slot.begin)));
                        }
                        continue;
                    }
                    Call::Pop { took: Took::Unknown } => {
                        let end = match called.slot.outcome {
                            Outcome::Acked(at) | Outcome::Failed(at) => at,
                            Outcome::Unknown => u64::MAX,
                        };
                        self.blind.push(Blind { begin: called.slot.begin, end });
                        continue;
                    }
                    Call::Pop { took: Took::Entry(entry) } => (entry, true),
                    Call::Ack(entry) => (entry, false),
                    _ => continue,
                };
                let at = called.slot.acked_by(u64::MAX);
                let same = self.by_value.get(entry.value.as_str()).map_or(&[][..], Vec::as_slice);
                if let Some(at) = at
                    && same.iter().all(|&i| self.items[i].begin >= at)
                {
                    let words = format!("a pop returned a value that nobody pushed: {:?}", brief(&entry.value));
                    self.contradictions.push(Contradiction { at, phantom: true, words });
                }
                let &[i] = same else { continue };
                if let Some(at) = at
                    && popped
                {
                    let took_it = |&(c, w): &Id| {
                        let earlier: &Written = &self.calls[c][w];
                        earlier.slot.acked_by(u64::MAX).filter(|_| matches!(earlier.call(), Call::Pop { .. }))
                    };
                    if let Some(other) = self.items[i].takes.iter().filter_map(took_it).min() {
                        let words = format!("entry {} was delivered twice", self.items[i].describe());
                        self.contradictions.push(Contradiction { at: at.max(other), phantom: false, words });
                    }
                }
                let item = &mut self.items[i];
                item.takes.push((c, w));
                match (at, item.told) {
                    (Some(at), Some((index, since))) if index != entry.index => {
                        let words = format!("entry {} has index {index} and was delivered as {}", item.describe(), entry.index);
                        self.contradictions.push(Contradiction { at: at.max(since), phantom: false, words });
                    }
                    (Some(at), told) => item.told = Some((entry.index, told.map_or(at, |(_, since)| since.min(at)))),
                    (None, _) => {}
                }
            }
        }
    }

    /// Looks for indexes that were given to two entries.
    fn read_indexes(&mut self) {
        for (i, item) in self.items.iter().enumerate() {
            if let Some((index, _)) = item.told {
                self.by_index.entry(index).or_default().push(i);
            }
        }
        for (index, same) in &self.by_index {
            let mut since: Vec<u64> = same.iter().filter_map(|&i| Some(self.items[i].told?.1)).collect();
            since.sort_unstable();
            if let [_, second, ..] = since[..] {
                let words = format!("index {index} was given to {} entries", since.len());
                self.contradictions.push(Contradiction { at: second, phantom: false, words });
            }
        }
    }

    /// Looks for pops that took an entry although one that certainly stood before it was there.
    fn read_order_of_deliveries(&mut self) {
        // Who acknowledges deliveries one by one is free to do so in any order, and what is handed out holds nobody up.
        if self.calls.iter().flatten().any(|called| matches!(called.call(), Call::Ack(_) | Call::Hold { .. })) {
            return;
        }
        let slot = |&(c, w): &Id| -> &Slot { &self.calls[c][w].slot };
        // A failed pop may have held an entry back for a while, and nobody knows which.
        let blind_from = self.blind.iter().map(|b| b.begin).min().unwrap_or(u64::MAX);
        // Entries at the back whose push was acknowledged, by that moment; those that were there before come first.
        let back = |i: &usize| !self.items[*i].front && !self.items[*i].vague;
        let mut line: Vec<usize> = (0..self.items.len()).filter(|i| back(i) && self.items[*i].acked.is_some()).collect();
        line.sort_by_key(|&i| (self.items[i].acked, i));
        // For each start of the line: until when all of it was certainly still there, for the one that stayed longest.
        let mut stays: Vec<u64> = Vec::with_capacity(line.len());
        for &i in &line {
            let taken = self.items[i].takes.iter().map(|id| slot(id).begin).min().unwrap_or(u64::MAX);
            stays.push(taken.max(stays.last().copied().unwrap_or(0)));
        }
        for (i, item) in self.items.iter().enumerate().filter(|(i, _)| back(i)) {
            let ahead = match item.push {
                None => line.partition_point(|&other| other < i),
                Some(_) => line.partition_point(|&other| self.items[other].acked < Some(item.begin)),
            };
            let Some(stayed) = ahead.checked_sub(1).map(|last| stays[last]) else { continue };
            let popped = item.takes.iter().filter_map(|id| slot(id).acked_by(u64::MAX)).min();
            if let Some(at) = popped.filter(|&at| at < stayed && at < blind_from) {
                let words = format!("entry {} was delivered before one that stood in front of it", item.describe());
                self.contradictions.push(Contradiction { at, phantom: false, words });
            }
        }
    }

    /// Says of every recovered entry which one it is: its place in the list and the item.
    fn identify(&self, found: &[Entry], until: u64, judgement: &mut Judgement) -> Vec<(usize, usize)> {
        let mut shown = Vec::new();
        let mut values: BTreeMap<&str, usize> = BTreeMap::new();
        let mut indexes = BTreeSet::new();
        for (at, entry) in found.iter().enumerate() {
            let what = || format!("{:?}", brief(&entry.value));
            if !indexes.insert(entry.index) {
                judgement.wrong.push(format!("index {} is there twice", entry.index));
            }
            let same = self.by_value.get(entry.value.as_str()).map_or(&[][..], Vec::as_slice);
            let begun = same.iter().filter(|&&i| self.items[i].begin < until).count();
            if begun == 0 {
                judgement.wrong.push(format!("entry {} has a value that nobody pushed: {}", entry.index, what()));
                judgement.phantoms += 1;
                continue;
            }
            let copies = values.entry(&entry.value).or_default();
            *copies += 1;
            if *copies > begun {
                judgement.wrong.push(format!("entry {} is there {copies} times and was pushed {begun} times", what()));
                continue;
            }
            let &[i] = same else { continue };
            let known = |i: usize| self.items[i].told.filter(|(_, since)| *since < until).map(|(index, _)| index);
            // An entry that was lost before its push was promised leaves an index that may be given again.
            let holds = |&&other: &&usize| {
                other != i && known(other).is_some() && self.items[other].push.is_none_or(|id| self.is_promised(id, until))
            };
            match known(i) {
                Some(index) if index != entry.index => {
                    judgement.wrong.push(format!("entry {} had index {index} and now has {}", what(), entry.index));
                }
                Some(_) => {}
                None => {
                    if let Some(other) = self.by_index.get(&entry.index).and_then(|same| same.iter().find(holds)) {
                        let other = self.items[*other].describe();
                        judgement.wrong.push(format!("index {} was entry {other} and is now {}", entry.index, what()));
                    }
                }
            }
            shown.push((at, i));
        }
        shown
    }

    /// Where the history says that one entry stands before another, so must the list.
    fn check_order(&self, found: &[Entry], shown: &[(usize, usize)], until: u64, judgement: &mut Judgement) {
        let begun = |&(c, w): &Id| self.calls[c][w].slot.begin < until;
        // Of what stands before the entry at hand: the last that was there before, the newest that was pushed to the
        // back, the one acknowledged first, the last of each client, the last that was not put in front.
        let mut base: Option<usize> = None;
        let mut newest: Option<usize> = None;
        let mut oldest: Option<usize> = None;
        let mut clients: BTreeMap<(usize, Option<usize>), usize> = BTreeMap::new();
        let mut last: Option<usize> = None;
        for &(at, i) in shown {
            let item = &self.items[i];
            let mut before = None;
            if item.push.is_none() {
                before = base.filter(|&other| other > i);
                base = base.max(Some(i));
            }
            // Everything that was there when another was put behind it stands before that one.
            before = before.or_else(|| newest.filter(|&other| item.acked.is_some_and(|acked| acked < self.items[other].begin)));
            if item.front {
                before = before.or_else(|| oldest.filter(|&other| self.items[other].acked < Some(item.begin)));
            }
            // A pop that was undone may put its entry back at the head, in front of what was put there meanwhile.
            if item.acked.is_some() && !item.takes.iter().any(begun) {
                oldest = oldest.filter(|&other| self.items[other].acked <= item.acked).or(Some(i));
            }
            if let Some((c, w)) = item.push.filter(|_| !item.front) {
                newest = newest.filter(|&other| self.items[other].begin >= item.begin).or(Some(i));
                // What failed may have come in at any later time, but a batch is in order by itself.
                let failed = matches!(self.calls[c][w].slot.outcome, Outcome::Failed(_));
                let other = clients.entry((c, failed.then_some(w))).or_insert(i);
                before = before.or(Some(*other).filter(|&other| other > i));
                *other = i.max(*other);
            }
            if let Some(other) = before {
                let (first, second) = (item.describe(), self.items[other].describe());
                judgement.wrong.push(format!("entry {first} stands behind {second}, which came after it"));
            }
            if !item.front && (item.push.is_some() || self.base_ascends) {
                if let Some(other) = last.filter(|&other| found[other].index >= found[at].index) {
                    let (low, high) = (found[other].index, found[at].index);
                    judgement.wrong.push(format!("index {high} stands behind index {low}: they do not ascend"));
                }
                last = Some(at);
            }
        }
    }

    /// What became of the entries that are not there.
    fn fate(&self, present: &[bool], until: u64) -> Fate {
        let pops: Vec<&Blind> = self.blind.iter().filter(|b| b.begin < until).collect();
        let passed_over = self.blind_holds.iter().filter(|&&begin| begin < until).count();
        let is_held = |i: usize| self.items[i].held_from.is_some_and(|from| from < until);
        let standing = |i: &usize| present[*i] && !self.items[*i].front && !self.is_taken(*i, until) && !is_held(*i);
        let mut acks: Vec<u64> = Vec::new();
        let mut base: Vec<usize> = Vec::new();
        if !pops.is_empty() {
            acks = (0..self.items.len()).filter(standing).filter_map(|i| self.items[i].acked).collect();
            acks.sort_unstable();
            base = (0..self.items.len()).filter(standing).filter(|&i| self.items[i].push.is_none()).collect();
        }
        // A pop takes the head: what stands before an entry must have been taken by other pops, and have come back, or
        // have been handed out.
        let may_take = |pop: &Blind, i: usize| {
            let item = &self.items[i];
            if item.begin >= pop.end {
                return false;
            }
            let ahead = match item.push {
                None => base.partition_point(|&other| other < i),
                Some(_) if item.front => 0,
                Some(id) => {
                    let batch = self.items[..i].iter().enumerate().rev().take_while(|(_, other)| other.push == Some(id));
                    let batch = if item.acked.is_some_and(|at| at < pop.begin) {
                        batch.filter(|(other, _)| standing(other)).count()
                    } else {
                        0
                    };
                    acks.partition_point(|&at| at < item.begin.min(pop.begin)) + batch
                }
            };
            ahead < pops.len() + passed_over
        };
        let gone = |i: &usize| {
            let item = &self.items[*i];
            item.begin < until && !present[*i] && !item.vague && !self.is_taken(*i, until)
        };
        let gone: Vec<usize> = (0..self.items.len()).filter(gone).collect();
        let takers: BTreeMap<usize, Vec<usize>> =
            gone.iter().map(|&i| (i, (0..pops.len()).filter(|&p| may_take(pops[p], i)).collect())).collect();
        // The worst first: the pops excuse what they can.
        let mut due: Vec<usize> = gone.into_iter().filter(|&i| self.items[i].acked.is_some_and(|at| at < until)).collect();
        let rank = |i: usize| match self.items[i].push {
            None => 0,
            Some(id) if self.is_promised(id, until) => 1,
            Some(_) => 2,
        };
        due.sort_by_key(|&i| (rank(i), self.items[i].begin, i));
        Fate { lost: unexcused(&due, &takers, pops.len()), takers, pops: pops.len() }
    }

    /// A batch must not be there in part.
    fn check_batches(&self, present: &[bool], fate: &Fate, until: u64, judgement: &mut Judgement) {
        let mut at = 0;
        while at < self.items.len() {
            let push = self.items[at].push;
            let end = at + self.items[at..].iter().take_while(|item| item.push == push).count();
            let whole = at..end;
            at = end;
            if push.is_none() || whole.len() < 2 || self.items[whole.start].begin >= until {
                continue;
            }
            let gone: Vec<usize> = whole.clone().filter(|i| fate.takers.contains_key(i)).collect();
            if whole.clone().any(|i| present[i]) && !unexcused(&gone, &fate.takers, fate.pops).is_empty() {
                let what = self.items[whole.start].describe();
                judgement.wrong.push(format!("a batch of {} entries that begins with {what} is there in part", whole.len()));
            }
        }
    }

    /// Counts what is lost, call by call, and holds it against what came later.
    fn count(&self, present: &[bool], fate: &Fate, until: u64, judgement: &mut Judgement) {
        // The call, and whether it is this one for certain.
        let mut lost: BTreeMap<Id, bool> = BTreeMap::new();
        for &i in &fate.lost {
            if let Some(id) = self.items[i].push {
                *lost.entry(id).or_default() |= fate.takers.get(&i).is_some_and(Vec::is_empty);
            }
        }
        let newest_push =
            self.items.iter().zip(present).filter(|(item, present)| **present && item.push.is_some()).map(|(item, _)| item.begin);
        let newest_push = newest_push.max().unwrap_or(0);
        let mut newest_pop = 0;
        for (i, item) in self.items.iter().enumerate() {
            let takes: Vec<Id> = item.takes.iter().copied().filter(|&id| self.called(id).slot.begin < until).collect();
            if present[i] {
                for id in takes.into_iter().filter(|&id| self.called(id).slot.acked_by(until).is_some()) {
                    lost.insert(id, true);
                    if self.is_promised(id, until) {
                        let what = item.describe();
                        judgement.wrong.push(format!("entry {what} is delivered again although its removal was promised"));
                    }
                }
                continue;
            }
            // An entry that was certainly in the queue and was taken once: that pop is there.
            let was_there = item.push.is_none_or(|id| {
                let in_front_of_newest = item.acked.is_some_and(|at| at < newest_push);
                self.is_promised(id, until)
                    || self.keeps_prefix && in_front_of_newest && self.called(id).level != Durability::Async
            });
            if let (true, &[id]) = (was_there, &takes[..]) {
                newest_pop = newest_pop.max(self.called(id).slot.begin);
            }
        }
        for (c, client) in self.calls.iter().enumerate() {
            for (w, called) in client.iter().enumerate() {
                let Some(at) = called.slot.acked_by(until) else { continue };
                if called.call().is_idle() {
                    continue;
                }
                judgement.acked += 1;
                let is_promised = self.is_promised((c, w), until);
                judgement.promised += u64::from(is_promised);
                let Some(&certain) = lost.get(&(c, w)) else { continue };
                judgement.missing[c][w] = certain;
                judgement.lost_acked += 1;
                judgement.lost_promised += u64::from(is_promised);
                judgement.oldest_lost = Some(judgement.oldest_lost.map_or(at, |oldest| oldest.min(at)));
                if !self.keeps_prefix || !certain || is_promised || called.level == Durability::Async {
                    continue;
                }
                match called.call() {
                    Call::Push { values, .. } if at < newest_push => {
                        let what = values.first().map_or("", |value| brief(value));
                        judgement.wrong.push(format!("entry {what:?} is missing although a later push is there"));
                    }
                    Call::Pop { took: Took::Entry(entry) } | Call::Ack(entry) if at < newest_pop => {
                        let what = brief(&entry.value);
                        judgement.wrong.push(format!("entry {what:?} is back although what was taken later is not"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn called(&self, (client, call): Id) -> &Written {
        &self.calls[client][call]
    }

    fn is_promised(&self, (client, call): Id, until: u64) -> bool {
        self.promised_from[client][call].is_some_and(|from| from < until)
    }

    /// Whether a call that began took it, or tried to.
    fn is_taken(&self, item: usize, until: u64) -> bool {
        self.items[item].takes.iter().any(|&id| self.called(id).slot.begin < until)
    }
}

/// What became of the entries that are not there and that no call is known to have taken.
struct Fate {
    /// For each of them the pops of unknown result that may have taken it.
    takers: BTreeMap<usize, Vec<usize>>,
    /// How many such pops there are.
    pops: usize,
    /// Those that had been acknowledged, or were there before, and that these pops cannot all have taken.
    lost: Vec<usize>,
}

/// What is left over when every pop takes one of the entries that it may have taken; the first of `due` are
/// given a pop before the later ones.
fn unexcused(due: &[usize], takers: &BTreeMap<usize, Vec<usize>>, pops: usize) -> Vec<usize> {
    fn assign(item: usize, takers: &BTreeMap<usize, Vec<usize>>, seen: &mut [bool], taken: &mut [Option<usize>]) -> bool {
        for &pop in takers.get(&item).map_or(&[][..], Vec::as_slice) {
            if std::mem::replace(&mut seen[pop], true) {
                continue;
            }
            // A pop that has an entry takes this one if another pop can take the other.
            if taken[pop].is_none_or(|other| assign(other, takers, seen, taken)) {
                taken[pop] = Some(item);
                return true;
            }
        }
        false
    }
    let mut taken = vec![None; pops];
    due.iter().copied().filter(|&item| !assign(item, takers, &mut vec![false; pops], &mut taken)).collect()
}

/// What was there before, then everything that the clients began to push, batches together.
fn items<'a>(base: &[(u64, &'a str)], calls: &'a [Vec<Written>]) -> Vec<Item<'a>> {
    let old = |&(index, value): &(u64, &'a str)| Item {
        value,
        push: None,
        front: false,
        begin: 0,
        acked: Some(0),
        told: Some((index, 0)),
        takes: Vec::new(),
        held_from: None,
        vague: false,
    };
    let mut items: Vec<Item<'a>> = base.iter().map(old).collect();
    for (c, client) in calls.iter().enumerate() {
        for (w, called) in client.iter().enumerate() {
            let Call::Push { end, values, indexes } = called.call() else { continue };
            let acked = called.slot.acked_by(u64::MAX);
            items.extend(values.iter().enumerate().map(|(place, value)| Item {
                value,
                push: Some((c, w)),
                front: *end == End::Front,
                begin: called.slot.begin,
                acked,
                told: acked.and_then(|at| Some((*indexes.get(place)?, at))),
                takes: Vec::new(),
                held_from: None,
                vague: false,
            }));
        }
    }
    items
}

/// As much of a value as a sentence holds.
fn brief(value: &str) -> &str {
    value.char_indices().nth(60).map_or(value, |(end, _)| &value[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::contract::{Promises, promised_from};
    use crate::result::Verdict;
    use crate::subject::Promise;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn entry(index: u64, value: &str) -> Entry {
        Entry { index, value: value.to_owned() }
    }

    fn entries(list: &[(u64, &str)]) -> Vec<Entry> {
        list.iter().map(|&(index, value)| entry(index, value)).collect()
    }

    fn pairs(entries: &[Entry]) -> Vec<(u64, &str)> {
        entries.iter().map(|entry| (entry.index, &entry.value[..])).collect()
    }

    fn called(call: Call, begin: u64, outcome: Outcome) -> Written {
        Written { changes: Vec::new(), queue: Some(call), level: Durability::Write, slot: Slot { begin, outcome } }
    }

    fn push_of(end: End, list: &[(u64, &str)], begin: u64, outcome: Outcome) -> Written {
        let values = list.iter().map(|&(_, value)| value.to_owned()).collect();
        let acked = matches!(outcome, Outcome::Acked(_));
        let indexes = list.iter().map(|&(index, _)| index).filter(|_| acked).collect();
        called(Call::Push { end, values, indexes }, begin, outcome)
    }

    fn push(index: u64, value: &str, begin: u64) -> Written {
        push_of(End::Back, &[(index, value)], begin, Outcome::Acked(begin + 4))
    }

    fn front(index: u64, value: &str, begin: u64) -> Written {
        push_of(End::Front, &[(index, value)], begin, Outcome::Acked(begin + 4))
    }

    fn pop(index: u64, value: &str, begin: u64) -> Written {
        called(Call::Pop { took: Took::Entry(entry(index, value)) }, begin, Outcome::Acked(begin + 4))
    }

    fn blind(begin: u64, outcome: Outcome) -> Written {
        called(Call::Pop { took: Took::Unknown }, begin, outcome)
    }

    fn from_of(calls: &[Vec<Written>], promise: Promise) -> Vec<Vec<Option<u64>>> {
        let of = |w: &Written| if w.level == Durability::Sync { Promise::Power } else { promise };
        promised_from(calls, &Promises { crash: Promise::Process, of: &of, keeps_prefix: true, syncs: &[] })
    }

    struct Case {
        base: Vec<Entry>,
        calls: Vec<Vec<Written>>,
        promise: Promise,
        keeps_prefix: bool,
    }

    impl Case {
        fn judge(&self, found: &[(u64, &str)], until: u64) -> Judgement {
            let from = from_of(&self.calls, self.promise);
            Judge::new(&pairs(&self.base), &self.calls, &from, self.keeps_prefix).judge(&entries(found), until)
        }

        #[track_caller]
        fn is(&self, found: &[(u64, &str)], verdict: Verdict) -> Judgement {
            let judgement = self.judge(found, 1_000);
            assert_eq!(judgement.verdict(), verdict, "{found:?}: {judgement:?}");
            judgement
        }

        #[track_caller]
        fn says(&self, found: &[(u64, &str)], words: &str) -> Judgement {
            let judgement = self.is(found, Verdict::Corrupt);
            assert!(judgement.wrong.iter().any(|w| w.contains(words)), "{:?} does not say {words:?}", judgement.wrong);
            judgement
        }
    }

    fn promised(calls: Vec<Vec<Written>>) -> Case {
        Case { base: Vec::new(), calls, promise: Promise::Process, keeps_prefix: true }
    }

    fn unpromised(calls: Vec<Vec<Written>>) -> Case {
        Case { promise: Promise::None, ..promised(calls) }
    }

    #[test]
    fn what_was_promised_is_in_the_queue() {
        let case = promised(vec![vec![push(1, "a", 10), push(2, "b", 20)]]);
        let all = case.is(&[(1, "a"), (2, "b")], Verdict::Survived);
        assert_eq!((all.acked, all.promised, all.lost_acked), (2, 2, 0));
        let gone = case.is(&[(1, "a")], Verdict::Lost);
        assert_eq!((gone.lost_promised, gone.lost_acked, gone.oldest_lost), (1, 1, Some(24)));
        assert_eq!(gone.missing, [[false, true]]);
    }

    #[test]
    fn what_was_there_before_stays() {
        let case = Case { base: entries(&[(1, "a"), (2, "b")]), ..promised(vec![vec![pop(1, "a", 10)]]) };
        case.is(&[(2, "b")], Verdict::Survived);
        case.says(&[], "missing although nobody took it");
    }

    #[test]
    fn nobody_pushed_it() {
        let case = promised(vec![vec![push(1, "a", 10)]]);
        case.is(&[(1, "a")], Verdict::Survived);
        assert_eq!(case.says(&[(1, "a"), (2, "ghost")], "nobody pushed").phantoms, 1);
        let case = promised(vec![vec![push(1, "a", 10), pop(1, "a", 20), pop(2, "ghost", 30)]]);
        assert_eq!(case.says(&[], "nobody pushed").phantoms, 1);
    }

    #[test]
    fn what_comes_after_the_crash_never_happened() {
        let case = promised(vec![vec![push(1, "a", 10), push(2, "b", 20), pop(1, "a", 30)]]);
        assert_eq!(case.judge(&[(1, "a")], 20).verdict(), Verdict::Survived);
        assert_eq!(case.judge(&[(1, "a"), (2, "b")], 20).verdict(), Verdict::Corrupt, "not begun");
        assert_eq!(case.judge(&[(1, "a")], 24).verdict(), Verdict::Survived, "in flight");
        assert_eq!(case.judge(&[(1, "a")], 25).verdict(), Verdict::Lost);
        assert_eq!(case.judge(&[(2, "b")], 30).verdict(), Verdict::Lost, "nobody had begun to take it");
        for found in [&[(1, "a"), (2, "b")][..], &[(2, "b")]] {
            assert_eq!(case.judge(found, 34).verdict(), Verdict::Survived, "the pop is in flight");
        }
        assert_eq!(case.judge(&[(1, "a")], 34).verdict(), Verdict::Lost, "the pop in flight takes another");
    }

    #[test]
    fn nothing_is_there_twice() {
        let case = promised(vec![vec![push(1, "a", 10)]]);
        case.says(&[(1, "a"), (2, "a")], "is there 2 times");
        case.says(&[(1, "a"), (1, "b")], "index 1 is there twice");
        // Two pushes of one value cannot be told apart, but three copies can.
        let twins = promised(vec![vec![push(1, "a", 10), push(2, "a", 20)]]);
        twins.is(&[(1, "a"), (2, "a")], Verdict::Survived);
        twins.is(&[(2, "a")], Verdict::Survived);
        twins.says(&[(1, "a"), (2, "a"), (3, "a")], "is there 3 times");
    }

    #[test]
    fn an_index_keeps_its_value() {
        let case =
            promised(vec![vec![push(1, "a", 10), pop(1, "a", 20)], vec![push_of(End::Back, &[(2, "b")], 30, Outcome::Unknown)]]);
        case.is(&[(2, "b")], Verdict::Survived);
        case.is(&[(7, "b")], Verdict::Survived);
        case.says(&[(1, "b")], "index 1 was entry");
        promised(vec![vec![push(3, "a", 10)]]).says(&[(4, "a")], "had index 3 and now has 4");
        // The push was lost before it was promised, so that the store cannot know of its index.
        let lost = Case { keeps_prefix: false, ..unpromised(vec![vec![push(1, "a", 10)], case.calls[1].clone()]) };
        lost.is(&[(1, "b")], Verdict::Survived);
        promised(vec![vec![push(1, "a", 10), push(1, "b", 20)]]).says(&[(1, "a")], "index 1 was given to 2 entries");
        promised(vec![vec![push(1, "a", 10), pop(2, "a", 20)]]).says(&[], "was delivered as 2");
    }

    #[test]
    fn indexes_ascend_except_in_front() {
        let case = promised(vec![vec![push(2, "a", 10)], vec![push(1, "b", 11)]]);
        case.says(&[(2, "a"), (1, "b")], "do not ascend");
        case.is(&[(1, "b"), (2, "a")], Verdict::Survived);
        let base = entries(&[(5, "o")]);
        let case = Case { base, ..promised(vec![vec![front(6, "a", 10), push(7, "b", 20)]]) };
        case.is(&[(6, "a"), (5, "o"), (7, "b")], Verdict::Survived);
        let base = entries(&[(6, "f"), (5, "o")]);
        Case { base, ..promised(vec![vec![push(7, "b", 20)]]) }.is(&[(6, "f"), (5, "o"), (7, "b")], Verdict::Survived);
        let base = entries(&[(5, "o")]);
        Case { base, ..promised(vec![vec![push(3, "b", 20)]]) }.says(&[(5, "o"), (3, "b")], "do not ascend");
    }

    #[test]
    fn a_promised_pop_is_not_undone() {
        let calls = || vec![vec![push(1, "a", 10), pop(1, "a", 20)]];
        promised(calls()).is(&[], Verdict::Survived);
        let again = promised(calls()).says(&[(1, "a")], "is delivered again");
        assert_eq!((again.lost_promised, again.lost_acked, again.oldest_lost), (1, 1, Some(24)));
        // Nothing was promised: it may come back, or its push may be missing.
        let undone = unpromised(calls()).is(&[(1, "a")], Verdict::Survived);
        assert_eq!((undone.acked, undone.promised, undone.lost_acked), (2, 0, 1));
        unpromised(calls()).is(&[], Verdict::Survived);
    }

    #[test]
    fn an_acknowledged_delivery_stays_away() {
        let ack = |outcome| called(Call::Ack(entry(2, "b")), 30, outcome);
        let case = |outcome| promised(vec![vec![push(1, "a", 10), push(2, "b", 20), ack(outcome)]]);
        case(Outcome::Acked(34)).is(&[(1, "a")], Verdict::Survived);
        case(Outcome::Acked(34)).says(&[(1, "a"), (2, "b")], "is delivered again");
        for outcome in [Outcome::Unknown, Outcome::Failed(34)] {
            case(outcome).is(&[(1, "a")], Verdict::Survived);
            case(outcome).is(&[(1, "a"), (2, "b")], Verdict::Survived);
            case(outcome).is(&[(2, "b")], Verdict::Lost);
        }
    }

    #[test]
    fn a_pop_of_unknown_result_takes_the_head_at_most() {
        for outcome in [Outcome::Unknown, Outcome::Failed(44)] {
            let case = promised(vec![vec![push(1, "a", 10), push(2, "b", 20), push(3, "c", 30)], vec![blind(40, outcome)]]);
            case.is(&[(1, "a"), (2, "b"), (3, "c")], Verdict::Survived);
            case.is(&[(2, "b"), (3, "c")], Verdict::Survived);
            let two = case.is(&[(3, "c")], Verdict::Lost);
            assert_eq!(two.lost_promised, 1, "one of two was taken");
            let behind = case.is(&[(1, "a"), (3, "c")], Verdict::Lost);
            assert_eq!(behind.missing[0], [false, true, false], "the head is there, so the second was not taken");
        }
        // What was pushed after the pop had failed cannot have been taken by it.
        let late = promised(vec![vec![blind(10, Outcome::Failed(14)), push(1, "a", 20)]]);
        late.is(&[], Verdict::Lost);
        promised(vec![vec![push(1, "a", 20)], vec![blind(10, Outcome::Unknown)]]).is(&[], Verdict::Survived);
        // Two pops may have taken two, and one of them may have been undone.
        let calls =
            vec![vec![push(1, "a", 10), push(2, "b", 20)], vec![blind(30, Outcome::Unknown)], vec![blind(31, Outcome::Unknown)]];
        promised(calls.clone()).is(&[], Verdict::Survived);
        promised(calls).is(&[(1, "a")], Verdict::Survived);
    }

    #[test]
    fn pops_excuse_the_worst_first() {
        let mut calls = vec![vec![push(1, "a", 10), push(2, "b", 20)], vec![blind(30, Outcome::Unknown)]];
        calls[0][0].level = Durability::Async;
        calls[0][1].level = Durability::Sync;
        let judgement = unpromised(calls).is(&[], Verdict::Survived);
        assert_eq!((judgement.promised, judgement.lost_promised, judgement.lost_acked), (1, 0, 1));
    }

    #[test]
    fn a_failed_push_has_two_outcomes() {
        for outcome in [Outcome::Unknown, Outcome::Failed(14)] {
            let case = promised(vec![vec![push_of(End::Back, &[(1, "a")], 10, outcome)]]);
            assert_eq!(case.is(&[(1, "a")], Verdict::Survived).acked, 0);
            case.is(&[], Verdict::Survived);
        }
    }

    #[test]
    fn first_in_stands_first() {
        let case = promised(vec![vec![push(1, "a", 10)], vec![push(2, "b", 20)]]);
        case.is(&[(1, "a"), (2, "b")], Verdict::Survived);
        case.says(&[(2, "b"), (1, "a")], "which came after it");
        // Pushes that overlap have no order.
        let outcome = Outcome::Unknown;
        let overlap = |a, b| {
            promised(vec![vec![push_of(End::Back, &[(1, "a")], a, outcome)], vec![push_of(End::Back, &[(2, "b")], b, outcome)]])
        };
        overlap(10, 11).is(&[(1, "b"), (2, "a")], Verdict::Survived);
        let old = Case { base: entries(&[(1, "o"), (2, "p")]), ..promised(vec![vec![push(3, "a", 10)]]) };
        old.is(&[(1, "o"), (2, "p"), (3, "a")], Verdict::Survived);
        old.says(&[(2, "p"), (1, "o"), (3, "a")], "which came after it");
        old.says(&[(1, "o"), (3, "a"), (2, "p")], "which came after it");
    }

    #[test]
    fn entries_of_one_client_stand_as_it_pushed_them() {
        let piped = |outcome| {
            let calls = vec![push_of(End::Back, &[(1, "a")], 10, outcome), push_of(End::Back, &[(2, "b")], 11, Outcome::Unknown)];
            promised(vec![calls])
        };
        piped(Outcome::Unknown).is(&[(1, "a"), (2, "b")], Verdict::Survived);
        piped(Outcome::Unknown).says(&[(1, "b"), (2, "a")], "which came after it");
        // What failed may have come in late.
        piped(Outcome::Failed(12)).is(&[(1, "b"), (2, "a")], Verdict::Survived);
    }

    #[test]
    fn what_is_put_in_front_stands_in_front() {
        let case = promised(vec![vec![push(1, "a", 10), front(2, "b", 20), front(3, "c", 30), push(4, "d", 40)]]);
        case.is(&[(3, "c"), (2, "b"), (1, "a"), (4, "d")], Verdict::Survived);
        case.says(&[(2, "b"), (3, "c"), (1, "a"), (4, "d")], "which came after it");
        case.says(&[(3, "c"), (1, "a"), (2, "b"), (4, "d")], "which came after it");
        case.says(&[(3, "c"), (1, "a"), (4, "d"), (2, "b")], "which came after it");
        // An undone pop may put its entry back in front of it.
        let undone = unpromised(vec![vec![push(1, "a", 10), pop(1, "a", 20), front(2, "b", 30)]]);
        undone.is(&[(1, "a"), (2, "b")], Verdict::Survived);
        undone.is(&[(2, "b"), (1, "a")], Verdict::Survived);
    }

    #[test]
    fn deliveries_come_in_order() {
        let pushes = vec![push(1, "a", 10), push(2, "b", 20)];
        promised(vec![pushes.clone(), vec![pop(1, "a", 30), pop(2, "b", 40)]]).is(&[], Verdict::Survived);
        let case = promised(vec![pushes.clone(), vec![pop(2, "b", 30), pop(1, "a", 40)]]);
        case.says(&[], "was delivered before one that stood in front of it");
        // A pop that failed may have held the first one back, and pops that overlap have no order.
        promised(vec![pushes.clone(), vec![pop(2, "b", 30), pop(1, "a", 40)], vec![blind(29, Outcome::Failed(41))]])
            .is(&[], Verdict::Survived);
        promised(vec![pushes.clone(), vec![pop(2, "b", 30)], vec![pop(1, "a", 31)]]).is(&[], Verdict::Survived);
        promised(vec![pushes, vec![pop(1, "a", 30)], vec![pop(1, "a", 40)]]).says(&[(2, "b")], "was delivered twice");
        let base = entries(&[(1, "o"), (2, "p")]);
        Case { base, ..promised(vec![vec![pop(2, "p", 10)]]) }.says(&[(1, "o")], "stood in front");
    }

    #[test]
    fn without_a_promise_only_the_last_pushes_may_be_missing() {
        let case = unpromised(vec![vec![push(1, "a", 10), push(2, "b", 20), push(3, "c", 30)]]);
        let end = case.is(&[(1, "a")], Verdict::Survived);
        assert_eq!((end.lost_acked, end.lost_promised, end.oldest_lost), (2, 0, Some(24)));
        case.says(&[(1, "a"), (3, "c")], "missing although a later push is there");
        let free = Case { keeps_prefix: false, ..unpromised(case.calls.clone()) };
        free.is(&[(1, "a"), (3, "c")], Verdict::Survived);
        let mut buffered = unpromised(case.calls.clone());
        buffered.calls[0][1].level = Durability::Async;
        buffered.is(&[(1, "a"), (3, "c")], Verdict::Survived);
        // A pop of unknown result may have taken it, if what stood before it is gone too.
        let mut calls = case.calls;
        calls.push(vec![pop(1, "a", 40), blind(50, Outcome::Unknown)]);
        unpromised(calls).is(&[(3, "c")], Verdict::Survived);
    }

    #[test]
    fn without_a_promise_only_the_last_pops_may_be_undone() {
        let base = || entries(&[(1, "a"), (2, "b"), (3, "c")]);
        let calls = vec![vec![pop(1, "a", 10), pop(2, "b", 20)]];
        let case = Case { base: base(), ..unpromised(calls.clone()) };
        case.is(&[(2, "b"), (3, "c")], Verdict::Survived);
        case.is(&[(1, "a"), (2, "b"), (3, "c")], Verdict::Survived);
        case.says(&[(1, "a"), (3, "c")], "is back although what was taken later is not");
        Case { base: base(), keeps_prefix: false, ..unpromised(calls) }.is(&[(1, "a"), (3, "c")], Verdict::Survived);
        // The second one may never have been pushed, for all that is known.
        let calls = vec![vec![push(1, "a", 10), push(2, "b", 20), pop(1, "a", 30), pop(2, "b", 40)]];
        unpromised(calls).is(&[(1, "a")], Verdict::Survived);
    }

    #[test]
    fn a_batch_is_pushed_whole_or_not() {
        for outcome in [Outcome::Unknown, Outcome::Failed(14), Outcome::Acked(14)] {
            let batch = push_of(End::Back, &[(1, "a"), (2, "b"), (3, "c")], 10, outcome);
            let case = unpromised(vec![vec![batch.clone()]]);
            case.is(&[(1, "a"), (2, "b"), (3, "c")], Verdict::Survived);
            case.is(&[], Verdict::Survived);
            case.says(&[(1, "a"), (3, "c")], "there in part");
            case.says(&[(2, "b"), (1, "a"), (3, "c")], "which came after it");
            unpromised(vec![vec![batch.clone()], vec![pop(1, "a", 12)]]).is(&[(2, "b"), (3, "c")], Verdict::Survived);
            let blind = unpromised(vec![vec![batch], vec![blind(20, Outcome::Unknown)]]);
            blind.is(&[(2, "b"), (3, "c")], Verdict::Survived);
            blind.says(&[(3, "c")], "there in part");
        }
        let front = push_of(End::Front, &[(1, "a"), (2, "b")], 10, Outcome::Acked(14));
        promised(vec![vec![front.clone()]]).is(&[(2, "b"), (1, "a")], Verdict::Survived);
        promised(vec![vec![front]]).says(&[(2, "b")], "there in part");
    }

    #[test]
    fn what_is_handed_out_stays_and_is_passed_over() {
        let base = || entries(&[(1, "a"), (2, "b")]);
        let hold = |took| called(Call::Hold { took }, 10, Outcome::Acked(14));
        let case = |calls| Case { base: base(), ..promised(calls) };
        let held = || hold(Took::Entry(entry(1, "a")));
        case(vec![vec![held()]]).is(&[(1, "a"), (2, "b")], Verdict::Survived);
        case(vec![vec![held()]]).says(&[(2, "b")], "was there before and is missing");
        // A pop of unknown result may have taken the one behind it, and only then.
        let pop = || blind(20, Outcome::Unknown);
        case(vec![vec![held(), pop()]]).is(&[(1, "a")], Verdict::Survived);
        case(vec![vec![hold(Took::Nothing), pop()]]).says(&[(1, "a")], "was there before and is missing");
        let unknown = called(Call::Hold { took: Took::Unknown }, 10, Outcome::Unknown);
        case(vec![vec![pop()], vec![unknown]]).is(&[(1, "a")], Verdict::Survived);
        let ack = called(Call::Ack(entry(1, "a")), 30, Outcome::Unknown);
        case(vec![vec![held(), ack]]).is(&[(2, "b")], Verdict::Survived);
    }

    #[test]
    fn an_empty_queue_is_no_write() {
        let empty = called(Call::Pop { took: Took::Nothing }, 10, Outcome::Acked(14));
        assert_eq!(promised(vec![vec![empty]]).is(&[], Verdict::Survived).acked, 0);
    }

    /// What a client of the reference queue does next: the client, the kind of call, its level, and how the call ends.
    type Step = (usize, u8, u8, u8);

    /// A queue in memory that logs its effects and, when it crashes, keeps a prefix of them.
    struct Reference {
        base: Vec<Entry>,
        calls: Vec<Vec<Written>>,
        /// When each effect came about, whether it was promised on return, and what it did.
        effects: Vec<(u64, Id, Effect)>,
    }

    enum Effect {
        Put(End, Vec<Entry>),
        Taken,
    }

    impl Reference {
        /// Runs the steps; calls of different clients overlap by up to a few steps.
        fn run(steps: &[Step]) -> Self {
            let base = entries(&[(1, "base-1"), (2, "base-2")]);
            let mut queue: VecDeque<Entry> = base.iter().cloned().collect();
            let mut calls: Vec<Vec<Written>> = vec![Vec::new(); 3];
            let (mut effects, mut next) = (Vec::new(), 3);
            for (n, &(c, kind, level, end)) in steps.iter().enumerate() {
                let begin = 100 + n as u64 * 10;
                // A client waits for its call, so an end that was put off comes before the next begins.
                if let Some(Written { slot: Slot { outcome: Outcome::Acked(at) | Outcome::Failed(at), .. }, .. }) =
                    calls[c].last_mut()
                {
                    *at = (*at).min(begin - 1);
                }
                let id = (c, calls[c].len());
                let failed = end % 16 == 0;
                let has_effect = !failed || end % 32 == 0;
                let at = begin + 6 + u64::from(end);
                let call = if kind < 5 {
                    let count = if kind == 0 { 3 } else { 1 };
                    let end = if kind == 4 { End::Front } else { End::Back };
                    let new: Vec<Entry> = (0..count).map(|i| entry(next + i, &format!("{c}-{n}-{i}"))).collect();
                    if has_effect {
                        next += count;
                        match end {
                            End::Back => queue.extend(new.iter().cloned()),
                            End::Front => new.iter().rev().for_each(|entry| queue.push_front(entry.clone())),
                        }
                        effects.push((begin + 5, id, Effect::Put(end, new.clone())));
                    }
                    let indexes = new.iter().map(|entry| entry.index).filter(|_| !failed).collect();
                    Call::Push { end, values: new.into_iter().map(|entry| entry.value).collect(), indexes }
                } else {
                    let taken = if has_effect { queue.pop_front() } else { None };
                    if taken.is_some() {
                        effects.push((begin + 5, id, Effect::Taken));
                    }
                    let took = if failed { Took::Unknown } else { taken.map_or(Took::Nothing, Took::Entry) };
                    Call::Pop { took }
                };
                let outcome = if failed { Outcome::Failed(at) } else { Outcome::Acked(at) };
                let level = if level == 0 { Durability::Sync } else { Durability::Write };
                calls[c].push(Written { changes: Vec::new(), queue: Some(call), level, slot: Slot { begin, outcome } });
            }
            Self { base, calls, effects }
        }

        fn promised(&self) -> Vec<Vec<Option<u64>>> {
            let of = |w: &Written| if w.level == Durability::Sync { Promise::Power } else { Promise::Process };
            promised_from(&self.calls, &Promises { crash: Promise::Power, of: &of, keeps_prefix: true, syncs: &[] })
        }

        /// The queue after a crash at `until` that keeps every promise and, of what is left, `share` of 256.
        fn crashed(&self, from: &[Vec<Option<u64>>], until: u64, share: u64) -> Vec<Entry> {
            let done = self.effects.iter().take_while(|(at, ..)| *at < until).count();
            let is_promised = |(_, (c, w), _): &(u64, Id, Effect)| from[*c][*w].is_some_and(|from| from < until);
            let least = self.effects[..done].iter().rposition(is_promised).map_or(0, |last| last + 1);
            let kept = least + (done - least) * share as usize / 255;
            let mut queue: VecDeque<Entry> = self.base.iter().cloned().collect();
            for (_, _, effect) in &self.effects[..kept] {
                match effect {
                    Effect::Put(End::Back, new) => queue.extend(new.iter().cloned()),
                    Effect::Put(End::Front, new) => new.iter().rev().for_each(|entry| queue.push_front(entry.clone())),
                    Effect::Taken => drop(queue.pop_front()),
                }
            }
            queue.into()
        }

        /// What a history knows that ends with a kill at `until`: not what a call in flight would have returned.
        fn killed(&self, until: u64) -> Vec<Vec<Written>> {
            let mut calls = self.calls.clone();
            for client in &mut calls {
                client.retain(|called| called.slot.begin < until);
                for called in client {
                    if let Outcome::Acked(at) | Outcome::Failed(at) = called.slot.outcome
                        && at >= until
                    {
                        called.slot.outcome = Outcome::Unknown;
                        match called.queue.as_mut().unwrap() {
                            Call::Push { indexes, .. } => indexes.clear(),
                            Call::Pop { took } => *took = Took::Unknown,
                            Call::Ack(_) | Call::Hold { .. } => {}
                        }
                    }
                }
            }
            calls
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0..3usize, 0..9u8, 0..4u8, 1..64u8), 0..40)
    }

    /// The same, and no call fails.
    fn whole_steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0..3usize, 0..9u8, 0..4u8, 1..16u8), 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_queue_that_keeps_its_promises_survives(steps in steps(), cut in 0..1000u64, share in 0..256u64) {
            let reference = Reference::run(&steps);
            let until = 100 + cut * (steps.len() as u64 * 10 + 70) / 1000;
            let from = reference.promised();
            let found = reference.crashed(&from, until, share);
            for keeps_prefix in [true, false] {
                let judgement = Judge::new(&pairs(&reference.base), &reference.calls, &from, keeps_prefix).judge(&found, until);
                prop_assert_eq!(judgement.verdict(), Verdict::Survived, "{:?}", judgement.wrong);
                if share == 255 {
                    prop_assert_eq!(judgement.lost_acked, 0);
                }
            }
            let calls = reference.killed(until);
            let judgement = Judge::new(&pairs(&reference.base), &calls, &from, true).judge(&found, until);
            prop_assert_eq!(judgement.verdict(), Verdict::Survived, "{:?}", judgement.wrong);
        }

        #[test]
        fn what_is_certainly_wrong_is_convicted(
            steps in whole_steps(), cut in 300..1000u64, share in 0..256u64, pick in any::<prop::sample::Index>(),
        ) {
            let reference = Reference::run(&steps);
            let until = 100 + cut * (steps.len() as u64 * 10 + 70) / 1000;
            let from = reference.promised();
            let found = reference.crashed(&from, until, share);
            let judge = Judge::new(&pairs(&reference.base), &reference.calls, &from, true);
            let is_promised = |(c, w): Id| from[c][w].is_some_and(|from| from < until);
            let convicted = |found: &[Entry], what: &str| {
                let judgement = judge.judge(found, until);
                prop_assert!(judgement.verdict() != Verdict::Survived, "{}: {:?} survived", what, found);
                Ok(())
            };
            let item = |entry: &Entry| {
                let i = judge.by_value[entry.value.as_str()][0];
                (i, &judge.items[i])
            };
            if !found.is_empty() {
                let at = pick.index(found.len());
                let mut twice = found.clone();
                twice.insert(at, found[at].clone());
                convicted(&twice, "twice")?;
                twice[at].index = 10_000;
                convicted(&twice, "twice under two indexes")?;
                let mut changed = found.clone();
                changed[at].value.push('x');
                convicted(&changed, "changed")?;
                let (i, dropped) = item(&found[at]);
                if dropped.push.is_none_or(is_promised) && !judge.is_taken(i, until) {
                    let mut less = found.clone();
                    less.remove(at);
                    convicted(&less, "dropped")?;
                }
            }
            if found.len() > 1 {
                let at = pick.index(found.len() - 1);
                let ((_, a), (_, b)) = (item(&found[at]), item(&found[at + 1]));
                let is_old = a.push.is_none() && b.push.is_none();
                if is_old || !b.front && a.acked.is_some_and(|acked| acked < b.begin) {
                    let mut swapped = found.clone();
                    swapped.swap(at, at + 1);
                    convicted(&swapped, "swapped")?;
                }
            }
            for (i, item) in judge.items.iter().enumerate() {
                if let Some(&id) = item.takes.first().filter(|&&id| is_promised(id)) {
                    let mut again = found.clone();
                    again.insert(0, Entry { index: item.told.unwrap().0, value: item.value.to_owned() });
                    let judgement = judge.judge(&again, until);
                    let said = judgement.wrong.iter().any(|words| words.contains("is delivered again"));
                    prop_assert!(said && judgement.missing[id.0][id.1], "{i} came back: {:?}", judgement.wrong);
                }
            }
        }
    }
}
