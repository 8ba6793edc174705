//! The newest versions, in memory: a skip list that one thread writes and any number read meanwhile.
//!
//! Nodes live in an append-only vector and name each other by index, so that readers need neither locks nor
//! reference counts and the whole list is safe code. Nothing is ever removed: a memtable is dropped whole.
//! The structure is Pugh's ("Skip Lists: A Probabilistic Alternative to Balanced Trees", 1990) with one link in
//! four reaching a level higher.

use super::entry::{Tag, head};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Enough for 4^12 nodes.
const LEVELS: usize = 12;
/// Links that a node holds in place; one node in 64 has more.
const LOW: usize = 3;
/// What a node costs beside its bytes, the allocator's share included.
const NODE: usize = size_of::<Node>() + 24;

/// Index of a node plus one; zero for none.
type Link = u32;

#[derive(Debug)]
struct Node {
    head: u64,
    tag: Tag,
    /// The key, then the stored value.
    bytes: Box<[u8]>,
    key: u32,
    low: [AtomicU32; LOW],
    high: Box<[AtomicU32]>,
}

impl Node {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key as usize]
    }

    fn next(&self, level: usize) -> Option<&AtomicU32> {
        if level < LOW { Some(&self.low[level]) } else { self.high.get(level - LOW) }
    }

    /// Whether the node comes before this version.
    fn is_before(&self, head: u64, key: &[u8], tag: Tag) -> bool {
        match self.head.cmp(&head) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => match self.key().cmp(key) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => self.tag > tag,
            },
        }
    }
}

/// Versions in order.
#[derive(Debug)]
pub(super) struct Memtable {
    nodes: boxcar::Vec<Node>,
    first: [AtomicU32; LEVELS],
    writer: Mutex<Writer>,
    bytes: AtomicUsize,
}

/// Where the last version was put: the next one often comes right behind it.
#[derive(Debug)]
struct Writer {
    before: [Link; LEVELS],
    last: Link,
    height: usize,
    random: u64,
}

impl Default for Memtable {
    fn default() -> Self {
        Self {
            nodes: boxcar::Vec::new(),
            first: Default::default(),
            writer: Mutex::new(Writer { before: [0; LEVELS], last: 0, height: 1, random: 0x9e37_79b9_7f4a_7c15 }),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Memtable {
    /// Puts a version in its place. Readers see it whole or not at all.
    pub(super) fn insert(&self, key: &[u8], tag: Tag, stored: &[u8]) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let head = head(key);
        if !self.follows_last(&writer, head, key, tag) {
            self.find(head, key, tag, &mut writer);
        }
        let height = writer.draw_height();
        let mut bytes = Vec::with_capacity(key.len() + stored.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(stored);
        let link = |level: usize| AtomicU32::new(self.after(writer.before[level], level));
        let node = Node {
            head,
            tag,
            bytes: bytes.into_boxed_slice(),
            key: key.len() as u32,
            low: std::array::from_fn(|level| if level < height { link(level) } else { AtomicU32::new(0) }),
            high: (LOW..height).map(link).collect(),
        };
        let number = self.nodes.push(node) as Link + 1;
        // From the bottom up: whoever meets the node on a level finds it on all levels below.
        for level in 0..height {
            self.link(writer.before[level], level).store(number, Ordering::Release);
            writer.before[level] = number;
        }
        writer.last = number;
        writer.height = writer.height.max(height);
        self.bytes.fetch_add(NODE + key.len() + stored.len(), Ordering::Relaxed);
    }

    /// Whether the version belongs right behind the last one, so that the last search still holds.
    fn follows_last(&self, writer: &Writer, head: u64, key: &[u8], tag: Tag) -> bool {
        let Some(last) = self.node(writer.last) else { return false };
        last.is_before(head, key, tag) && self.node(self.after(writer.last, 0)).is_none_or(|next| !next.is_before(head, key, tag))
    }

    fn find(&self, head: u64, key: &[u8], tag: Tag, writer: &mut Writer) {
        let mut at = 0;
        for level in (0..LEVELS).rev() {
            if level < writer.height {
                at = self.walk(at, level, head, key, tag);
            }
            writer.before[level] = at;
        }
    }

    /// The last node on a level, from `at` on, that comes before this version.
    fn walk(&self, mut at: Link, level: usize, head: u64, key: &[u8], tag: Tag) -> Link {
        loop {
            let next = self.after(at, level);
            match self.node(next) {
                Some(node) if node.is_before(head, key, tag) => at = next,
                _ => return at,
            }
        }
    }

    fn node(&self, link: Link) -> Option<&Node> {
        self.nodes.get((link as usize).checked_sub(1)?)
    }

    fn link(&self, at: Link, level: usize) -> &AtomicU32 {
        self.node(at).and_then(|node| node.next(level)).unwrap_or(&self.first[level])
    }

    fn after(&self, at: Link, level: usize) -> Link {
        self.link(at, level).load(Ordering::Acquire)
    }

    /// The last node before this version, zero if there is none.
    fn last_before(&self, key: &[u8], tag: Tag) -> Link {
        let head = head(key);
        (0..LEVELS).rev().fold(0, |at, level| self.walk(at, level, head, key, tag))
    }

    /// The newest version of a key that is not above `tag`.
    pub(super) fn get(&self, key: &[u8], tag: Tag) -> Option<(Tag, &[u8])> {
        let node = self.node(self.after(self.last_before(key, tag), 0))?;
        (node.key() == key).then(|| (node.tag, &node.bytes[node.key as usize..]))
    }

    /// Memory in bytes, overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.count() == 0
    }

    /// The place of the first version at or behind this one.
    pub(super) fn seek(&self, key: &[u8], tag: Tag) -> Place {
        Place(self.after(self.last_before(key, tag), 0))
    }

    /// The place of the last version before this one.
    pub(super) fn seek_before(&self, key: &[u8], tag: Tag) -> Place {
        Place(self.last_before(key, tag))
    }

    /// The place of the first version.
    pub(super) fn first(&self) -> Place {
        Place(self.after(0, 0))
    }

    /// The place of the last version.
    pub(super) fn last(&self) -> Place {
        let mut at = 0;
        for level in (0..LEVELS).rev() {
            loop {
                match self.after(at, level) {
                    0 => break,
                    next => at = next,
                }
            }
        }
        Place(at)
    }

    pub(super) fn next(&self, place: Place) -> Place {
        Place(self.after(place.0, 0))
    }

    pub(super) fn prev(&self, place: Place) -> Place {
        self.node(place.0).map_or(Place(0), |node| self.seek_before(node.key(), node.tag))
    }

    /// The version at a place: key, tag, stored value. `None` past either end.
    pub(super) fn at(&self, place: Place) -> Option<(&[u8], Tag, &[u8])> {
        let node = self.node(place.0)?;
        Some((node.key(), node.tag, &node.bytes[node.key as usize..]))
    }
}

/// A place in a memtable, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(Link);

impl Writer {
    /// Each level holds a quarter of the one below (xorshift64, fixed seed: a run of the same writes gives
    /// the same list).
    fn draw_height(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (1 + self.random.trailing_zeros() as usize / 2).min(LEVELS)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tag(seq: u64) -> Tag {
        Tag::new(seq, Kind::Value, false)
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_of_versions(keys in prop::collection::vec(prop::collection::vec(0u8..4, 0..11), 0..200)) {
            let table = Memtable::default();
            let mut model = BTreeMap::new();
            for (seq, key) in keys.iter().enumerate() {
                let (seq, value) = (seq as u64 + 1, seq.to_string().into_bytes());
                table.insert(key, tag(seq), &value);
                model.insert((key.clone(), std::cmp::Reverse(seq)), value);
            }
            let mut forward = Vec::new();
            let mut place = table.first();
            while let Some((key, tag, value)) = table.at(place) {
                forward.push(((key.to_vec(), std::cmp::Reverse(tag.seq())), value.to_vec()));
                place = table.next(place);
            }
            prop_assert_eq!(&forward, &model.clone().into_iter().collect::<Vec<_>>());
            let mut backward = Vec::new();
            let mut place = table.last();
            while let Some((key, tag, value)) = table.at(place) {
                backward.push(((key.to_vec(), std::cmp::Reverse(tag.seq())), value.to_vec()));
                place = table.prev(place);
            }
            backward.reverse();
            prop_assert_eq!(&forward, &backward);
            for (n, key) in keys.iter().enumerate() {
                let newest = keys[..=n].iter().rposition(|k| k == key).unwrap() as u64 + 1;
                prop_assert_eq!(table.get(key, Tag::newest_of(n as u64 + 1)).map(|(t, _)| t.seq()), Some(newest));
                prop_assert_eq!(table.get(&[9], Tag::newest_of(9)), None);
            }
        }
    }

    #[test]
    fn readers_see_whole_versions_while_one_writes() {
        let table = Memtable::default();
        let keys = 2_000u32;
        crate::background::in_parallel(vec![true, false, false], |writes| {
            if writes {
                for n in 0..keys {
                    let key = n.wrapping_mul(0x9e37_79b1).to_be_bytes();
                    table.insert(&key, tag(1), &key);
                }
                return;
            }
            let mut met = 0;
            while met < keys {
                let (mut place, mut last) = (table.first(), None);
                met = 0;
                while let Some((key, _, value)) = table.at(place) {
                    assert_eq!(key, value);
                    assert!(last.replace(key.to_vec()).is_none_or(|last| &last[..] < key));
                    place = table.next(place);
                    met += 1;
                }
            }
        });
    }
}
