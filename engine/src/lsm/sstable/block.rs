//! Versions in order, keys shortened by what they share with the key before.
//!
//! ```text
//! block   = entry*, restart: u32 LE *, restarts: u32 LE
//! entry   = shared: varint, unshared: varint, stored length: varint, tag: varint, unshared bytes of the key, stored value
//! restart = offset of an entry whose key is written out
//! ```
//!
//! The entry at every sixteenth place is a restart, so that a search halves its way to one and walks from there.

use super::super::entry::{Tag, order};
use super::super::packing::KEPT;
use crate::codec::{push_varint, read_u32, read_varint};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Collects the entries of a block.
#[derive(Debug)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    interval: usize,
    entries: usize,
    last: Vec<u8>,
}

impl BlockBuilder {
    pub(super) fn new(interval: usize) -> Self {
        Self { bytes: Vec::new(), restarts: Vec::new(), interval, entries: 0, last: Vec::new() }
    }

    pub(super) fn add(&mut self, key: &[u8], tag: Tag, stored: &[u8]) {
        let shared = if self.entries.is_multiple_of(self.interval) {
            self.restarts.push(self.bytes.len() as u32);
            0
        } else {
            self.last.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        for number in [shared as u64, (key.len() - shared) as u64, stored.len() as u64, tag.to_bits()] {
            push_varint(&mut self.bytes, number);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(stored);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        self.entries += 1;
    }

    /// Length in bytes if it ended here.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + 4
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn last_key(&self) -> &[u8] {
        &self.last
    }

    /// Ends the block; its bytes. The next one begins when the builder is cleared.
    pub(super) fn finish(&mut self) -> &[u8] {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.restarts.clear();
        self.entries = 0;
        self.last.clear();
    }
}

/// A block in memory, in one piece. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::lsm) struct Block {
    bytes: Arc<[u8]>,
    /// Where the entries end.
    end: usize,
    restarts: usize,
}

/// An entry as it lies in a block.
struct Entry {
    shared: usize,
    unshared: Range<usize>,
    tag: Tag,
    stored: Range<usize>,
}

impl Block {
    /// The block in the first `len` of these bytes. `None` if the restarts are not where they say.
    pub(super) fn new(bytes: Arc<[u8]>, len: usize) -> Option<Self> {
        let restarts = read_u32(&bytes, len.checked_sub(4)?)? as usize;
        let end = len.checked_sub(4 + restarts.checked_mul(4)?)?;
        (restarts > 0).then_some(Self { bytes, end, restarts })
    }

    /// Memory in bytes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Its memory, if nobody shares it.
    pub(super) fn into_memory(mut self) -> Option<Arc<[u8]>> {
        Arc::get_mut(&mut self.bytes).is_some().then_some(self.bytes)
    }

    fn restart(&self, n: usize) -> Option<usize> {
        read_u32(&self.bytes, self.end + 4 * n).map(|at| at as usize)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let bytes = &self.bytes[..self.end];
        let mut here = at;
        let number = |here: &mut usize| {
            let (value, len) = read_varint(bytes.get(*here..)?)?;
            *here += len;
            Some(value)
        };
        let lengths = match bytes.get(at..).and_then(|rest| rest.first_chunk::<3>()) {
            // Mostly they are short, and one look at all three tells.
            Some(&[shared, unshared, stored]) if shared | unshared | stored < 0x80 => {
                here += 3;
                [shared, unshared, stored].map(usize::from)
            }
            _ => [number(&mut here)?, number(&mut here)?, number(&mut here)?].map(|length| length as usize),
        };
        let ([shared, unshared, stored], bits) = (lengths, number(&mut here)?);
        let middle = here.checked_add(unshared)?;
        let end = middle.checked_add(stored)?;
        if end > self.end {
            return None;
        }
        Some(Entry { shared, unshared: here..middle, tag: Tag::from_bits(bits)?, stored: middle..end })
    }

    /// The version at the n-th restart, whose key is written out.
    pub(super) fn whole(&self, n: usize) -> Option<(&[u8], Tag)> {
        if n >= self.restarts {
            return None;
        }
        let entry = self.entry(self.restart(n)?)?;
        (entry.shared == 0).then(|| (&self.bytes[entry.unshared], entry.tag))
    }

    /// The last restart whose version is before the sought one, or the first of all.
    fn restart_before(&self, key: &[u8], tag: Tag) -> Option<usize> {
        let (mut low, mut high) = (0, self.restarts);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let entry = self.entry(self.restart(middle)?)?;
            if order((&self.bytes[entry.unshared], entry.tag), (key, tag)) == Ordering::Less {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.restart(low)
    }
}

impl Block {
    /// The newest version of a key that is not above `tag`: its tag, and where its value lies.
    ///
    /// Keys are not put together on the way: what an entry shares with the one before it says whether it can be
    /// the sought one, so that only bytes that may decide are looked at.
    pub(super) fn find(&self, key: &[u8], tag: Tag) -> Result<Option<(Tag, &[u8])>, Nonsense> {
        let mut at = self.restart_before(key, tag).ok_or(Nonsense)?;
        // How far the entry before, which comes before the sought one, agrees with it.
        let mut agrees = 0;
        while at < self.end {
            let entry = self.entry(at).ok_or(Nonsense)?;
            at = entry.stored.end;
            if entry.shared > agrees {
                continue;
            }
            // Less than that is shared where the keys part, and at a restart.
            let (found, sought) = (&self.bytes[entry.unshared], &key[entry.shared..]);
            let common = found.iter().zip(sought).take_while(|(a, b)| a == b).count();
            match found[common..].first().cmp(&sought[common..].first()) {
                Ordering::Greater => return Ok(None),
                Ordering::Less => agrees = entry.shared + common,
                Ordering::Equal if entry.tag > tag => agrees = entry.shared + common,
                Ordering::Equal => return Ok(Some((entry.tag, &self.bytes[entry.stored]))),
            }
        }
        Ok(None)
    }
}

/// What went wrong within a block: its bytes were checked, but they make no sense.
#[derive(Debug)]
pub(super) struct Nonsense;

/// A place in a block.
#[derive(Debug)]
pub(super) struct BlockCursor {
    block: Block,
    /// Offset of the current entry; the end when there is none.
    at: usize,
    next: usize,
    key: Vec<u8>,
    tag: Tag,
    stored: Range<usize>,
    /// Entries right before the current one, with where their keys begin in `keys`. Empty unless the last step was back.
    before: Vec<(usize, usize)>,
    keys: Vec<u8>,
}

impl BlockCursor {
    /// Nowhere in the block yet.
    pub(super) fn new(block: Block) -> Self {
        let end = block.end;
        let (before, keys) = Default::default();
        Self { block, at: end, next: end, key: Vec::new(), tag: Tag::newest_of(0), stored: 0..0, before, keys }
    }

    /// Takes another block, keeping the memory of its key; the one before.
    pub(super) fn reset(&mut self, block: Block) -> Block {
        (self.at, self.next) = (block.end, block.end);
        self.forget_before();
        std::mem::replace(&mut self.block, block)
    }

    /// The block that it was in.
    pub(super) fn into_block(self) -> Block {
        self.block
    }

    fn forget_before(&mut self) {
        self.before.clear();
        self.keys.clear();
    }

    pub(super) fn current(&self) -> Option<(&[u8], Tag, &[u8])> {
        (self.at < self.block.end).then(|| (&self.key[..], self.tag, &self.block.bytes[self.stored.clone()]))
    }

    fn go(&mut self, at: usize) -> Result<(), Nonsense> {
        self.at = at;
        if at >= self.block.end {
            (self.at, self.next) = (self.block.end, self.block.end);
            return Ok(());
        }
        let entry = self.block.entry(at).ok_or(Nonsense)?;
        if entry.shared > self.key.len() {
            return Err(Nonsense);
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(&self.block.bytes[entry.unshared]);
        self.tag = entry.tag;
        self.next = entry.stored.end;
        self.stored = entry.stored;
        Ok(())
    }

    fn jump(&mut self, restart: usize) -> Result<(), Nonsense> {
        self.forget_before();
        self.key.clear();
        self.go(restart)
    }

    pub(super) fn first(&mut self) -> Result<(), Nonsense> {
        self.jump(self.block.restart(0).ok_or(Nonsense)?)
    }

    pub(super) fn last(&mut self) -> Result<(), Nonsense> {
        self.jump(self.block.restart(self.block.restarts - 1).ok_or(Nonsense)?)?;
        while self.next < self.block.end {
            self.go(self.next)?;
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<(), Nonsense> {
        if !self.before.is_empty() {
            self.forget_before();
        }
        self.go(self.next)
    }

    /// To the first version at or behind this one.
    pub(super) fn seek(&mut self, key: &[u8], tag: Tag) -> Result<(), Nonsense> {
        self.jump(self.block.restart_before(key, tag).ok_or(Nonsense)?)?;
        while self.at < self.block.end && order((&self.key, self.tag), (key, tag)) == Ordering::Less {
            self.go(self.next)?;
        }
        Ok(())
    }

    /// To the last version before this one.
    pub(super) fn seek_before(&mut self, key: &[u8], tag: Tag) -> Result<(), Nonsense> {
        self.jump(self.block.restart_before(key, tag).ok_or(Nonsense)?)?;
        if order((&self.key, self.tag), (key, tag)) != Ordering::Less {
            return self.go(self.block.end);
        }
        while self.next < self.block.end {
            let entry = self.block.entry(self.next).ok_or(Nonsense)?;
            let (known, fresh) = (self.key.get(..entry.shared).ok_or(Nonsense)?, &self.block.bytes[entry.unshared]);
            let ordered = known.iter().chain(fresh).cmp(key).then(tag.cmp(&entry.tag));
            if ordered != Ordering::Less {
                break;
            }
            self.go(self.next)?;
        }
        Ok(())
    }

    pub(super) fn prev(&mut self) -> Result<(), Nonsense> {
        if self.before.is_empty() {
            self.gather_before()?;
        }
        let Some((at, start)) = self.before.pop() else { return self.go(self.block.end) };
        self.key.clear();
        self.key.extend_from_slice(&self.keys[start..]);
        self.keys.truncate(start);
        let entry = self.block.entry(at).ok_or(Nonsense)?;
        (self.at, self.next, self.tag, self.stored) = (at, entry.stored.end, entry.tag, entry.stored);
        Ok(())
    }

    /// Notes the entries between the last restart before the cursor and the cursor: keys can only be put together forward,
    /// and whoever goes back goes on.
    fn gather_before(&mut self) -> Result<(), Nonsense> {
        let here = self.at;
        let restart = (0..self.block.restarts).rev().find_map(|n| self.block.restart(n).filter(|at| *at < here));
        let Some(restart) = restart else { return Ok(()) };
        self.jump(restart)?;
        loop {
            self.before.push((self.at, self.keys.len()));
            self.keys.extend_from_slice(&self.key);
            if self.next >= here {
                return Ok(());
            }
            self.go(self.next)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::entry::Kind;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_searched_like_a_sorted_list(
            keys in prop::collection::btree_set((prop::collection::vec(0u8..3, 0..6), 0u64..4), 1..60),
            interval in 1usize..5,
            sought in prop::collection::vec(0u8..3, 0..6),
            seq in 0u64..5,
            steps: Vec<bool>,
        ) {
            let versions: BTreeSet<_> = keys.into_iter().map(|(key, seq)| (key, std::cmp::Reverse(seq))).collect();
            let tag = |seq| Tag::new(seq, Kind::Value, false);
            let mut builder = BlockBuilder::new(interval);
            for (key, seq) in &versions {
                builder.add(key, tag(seq.0), &seq.0.to_be_bytes());
            }
            let len = builder.len();
            let bytes = builder.finish().to_vec();
            prop_assert_eq!(bytes.len(), len);
            let versions: Vec<_> = versions.into_iter().collect();
            let mut cursor = BlockCursor::new(Block::new(bytes.into(), len).unwrap());
            let here = |c: &BlockCursor| c.current().map(|(k, t, v)| {
                assert_eq!(v, t.seq().to_be_bytes());
                (k.to_vec(), std::cmp::Reverse(t.seq()))
            });
            let target = (sought.clone(), std::cmp::Reverse(seq));
            let found = cursor.block.find(&sought, tag(seq)).unwrap().map(|(tag, stored)| {
                assert_eq!(stored, tag.seq().to_be_bytes());
                tag.seq()
            });
            prop_assert_eq!(found, versions.iter().find(|v| **v >= target && v.0 == sought).map(|v| v.1.0));
            cursor.seek(&sought, tag(seq)).unwrap();
            prop_assert_eq!(here(&cursor), versions.iter().find(|v| **v >= target).cloned());
            cursor.seek_before(&sought, tag(seq)).unwrap();
            prop_assert_eq!(here(&cursor), versions.iter().rfind(|v| **v < target).cloned());
            cursor.first().unwrap();
            let mut forward = Vec::new();
            while let Some(version) = here(&cursor) {
                forward.push(version);
                cursor.next().unwrap();
            }
            cursor.last().unwrap();
            let mut backward = Vec::new();
            while let Some(version) = here(&cursor) {
                backward.push(version);
                cursor.prev().unwrap();
            }
            backward.reverse();
            prop_assert_eq!(&forward, &versions);
            prop_assert_eq!(&backward, &versions);
            let mut at = versions.len() / 2;
            let (key, seq) = &versions[at];
            cursor.seek(key, tag(seq.0)).unwrap();
            for back in steps {
                at = if back { at.saturating_sub(1) } else { (at + 1).min(versions.len() - 1) };
                match here(&cursor).as_ref().cmp(&Some(&versions[at])) {
                    Ordering::Less => cursor.next().unwrap(),
                    Ordering::Greater => cursor.prev().unwrap(),
                    Ordering::Equal => {}
                }
                prop_assert_eq!(here(&cursor), Some(versions[at].clone()));
            }
        }

        #[test]
        fn bytes_that_are_no_block_are_told(bytes: Vec<u8>) {
            if let Some(block) = Block::new(bytes[..].into(), bytes.len()) {
                let mut cursor = BlockCursor::new(block);
                let _ = cursor.block.find(b"key", Tag::newest_of(3));
                let _ = cursor.seek(b"key", Tag::newest_of(3));
                let _ = cursor.seek_before(b"key", Tag::newest_of(3));
                let _ = cursor.last();
                let mut steps = cursor.first();
                for _ in 0..1000 {
                    if steps.is_err() || cursor.current().is_none() {
                        break;
                    }
                    steps = cursor.next();
                }
                let mut steps = cursor.last();
                for _ in 0..1000 {
                    if steps.is_err() || cursor.current().is_none() {
                        break;
                    }
                    steps = cursor.prev();
                }
            }
        }
    }
}
