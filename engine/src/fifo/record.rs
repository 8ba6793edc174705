//! The records of a store: entries, the link at the start of a segment, deletes.
//!
//! ```text
//! B, F = first index - first of the segment, entries, length of each but the last, the entries   (all varints but the entries)
//! L    = first index of the segment; of the one before: number, index behind its last entry, end; front records:
//!        how many, then of each first index, entries, segment, offset
//! D    = ranges, each: first index - end of the range before, length
//! ```

use crate::codec::{push_varint, read_varint};
use std::ops::Range;

/// Entries behind all others.
pub(super) const BACK: u8 = b'B';
/// Entries in front of all others.
pub(super) const FRONT: u8 = b'F';
/// What came before a segment.
pub(super) const LINK: u8 = b'L';
/// Indexes whose entries are gone.
pub(super) const DELETE: u8 = b'D';
/// Says nothing but how far the log was synced.
pub(super) const MARK: u8 = b'M';

/// Reads varints one after another.
pub(super) struct Numbers<'a>(pub(super) &'a [u8]);

impl Iterator for Numbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (number, len) = read_varint(self.0)?;
        self.0 = &self.0[len..];
        Some(number)
    }
}

/// Puts the body of a record with these entries into `body`. `delta` is the first one's distance from the first index
/// of the segment.
pub(super) fn encode_entries<E: AsRef<[u8]>>(body: &mut Vec<u8>, delta: u64, entries: &[E]) {
    body.clear();
    push_varint(body, delta);
    push_varint(body, entries.len() as u64);
    let (_, but_last) = entries.split_last().unwrap_or((&entries[0], &[]));
    but_last.iter().for_each(|entry| push_varint(body, entry.as_ref().len() as u64));
    entries.iter().for_each(|entry| body.extend_from_slice(entry.as_ref()));
}

/// The entries of a record, one after another, without memory of their own: a batch may have a million of them.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// Distance of the next entry from the first index of the segment.
    pub(super) delta: u64,
    pub(super) left: u64,
    /// Where in the body the length of the next entry stands.
    length_at: usize,
    /// Where in the body the next entry stands.
    at: usize,
}

impl Entries {
    /// `None` for a body that is no such record.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (delta, a) = read_varint(body)?;
        let (count, b) = read_varint(&body[a..])?;
        let length_at = a + b;
        let but_last = usize::try_from(count.checked_sub(1)?).ok().filter(|n| *n < body.len())?;
        let mut numbers = Numbers(&body[length_at..]);
        let mut total: u64 = 0;
        for _ in 0..but_last {
            total = total.checked_add(numbers.next()?)?;
        }
        let at = body.len() - numbers.0.len();
        (total <= numbers.0.len() as u64).then_some(Self { delta, left: count, length_at, at })
    }

    /// Where in the body the next entry lies, and its distance from the first index of the segment.
    pub(super) fn next(&mut self, body: &[u8]) -> Option<(u64, Range<usize>)> {
        let delta = self.delta;
        let start = self.at;
        match self.left {
            0 => return None,
            1 => self.at = body.len(),
            _ => {
                let (len, digits) = read_varint(&body[self.length_at..])?;
                self.length_at += digits;
                self.at = start.checked_add(len as usize).filter(|end| *end <= body.len())?;
            }
        }
        self.left -= 1;
        self.delta += 1;
        Some((delta, start..self.at))
    }
}

/// Entries that were put in front, and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) first: u64,
    pub(super) count: u64,
    /// Number of the segment.
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What the first record of a segment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// The index of the first entry of the segment.
    pub(super) first: u64,
    /// The number of the segment before; 0 if there was none.
    pub(super) before: u64,
    /// The index behind its last entry. What lies between is used up, and was never there.
    pub(super) before_next: u64,
    /// Where it ended, whole and synced.
    pub(super) before_end: u64,
    /// What was put in front in the segments before.
    pub(super) fronts: Vec<Front>,
}

impl Link {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let fronts = self.fronts.iter().flat_map(|f| [f.first, f.count, f.segment, f.offset]);
        let head = [self.first, self.before, self.before_next, self.before_end, self.fronts.len() as u64];
        head.into_iter().chain(fronts).for_each(|number| push_varint(&mut body, number));
        body
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut numbers = Numbers(body);
        let (first, before) = (numbers.next()?, numbers.next()?);
        let before_next = numbers.next().filter(|next| *next <= first)?;
        let (before_end, count) = (numbers.next()?, numbers.next()?);
        let mut fronts = Vec::new();
        for _ in 0..count {
            let (first, count, segment, offset) = (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?);
            fronts.push(Front { first, count, segment, offset });
        }
        numbers.0.is_empty().then_some(Self { first, before, before_next, before_end, fronts })
    }
}

/// The body of a record that deletes these ranges, which ascend.
pub(super) fn encode_deletes(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<u8> {
    // Room for one range, which most have.
    let (mut body, mut end) = (Vec::with_capacity(20), 0);
    for range in ranges {
        push_varint(&mut body, range.start - end);
        push_varint(&mut body, range.end - range.start);
        end = range.end;
    }
    body
}

/// The ranges of such a body; `None` if it makes no sense.
pub(super) fn read_deletes(body: &[u8]) -> Option<Vec<Range<u64>>> {
    let (mut ranges, mut end) = (Vec::new(), 0u64);
    let mut numbers = Numbers(body);
    while !numbers.0.is_empty() {
        let start = end.checked_add(numbers.next()?)?;
        end = start.checked_add(numbers.next()?).filter(|end| *end > start)?;
        ranges.push(start..end);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut entries = Entries::read(body)?;
        let mut found = Vec::new();
        while let Some((delta, range)) = entries.next(body) {
            found.push((delta, body[range].to_vec()));
        }
        Some(found)
    }

    #[test]
    fn entries_come_back_one_by_one() {
        let mut body = Vec::new();
        for entries in [vec![&b"one"[..]], vec![&b""[..]], vec![b"a", b"", b"ccc"], vec![b"", b""]] {
            encode_entries(&mut body, 300, &entries);
            let expected: Vec<_> = entries.iter().enumerate().map(|(n, e)| (300 + n as u64, e.to_vec())).collect();
            assert_eq!(all(&body), Some(expected));
        }
    }

    #[test]
    fn a_body_that_makes_no_sense_is_refused() {
        for body in [&b""[..], b"\x01", b"\x01\x00", b"\x01\x03\x01", b"\x00\x02\x09abc", b"\x00\xff\xff\xff\xff\x0fabc"] {
            assert_eq!(all(body), None, "{body:?}");
        }
        assert_eq!(read_deletes(b"\x01"), None);
        assert_eq!(read_deletes(b"\x01\x00"), None);
        assert_eq!(Link::read(b"\x01\x00\x00\x00\x01"), None);
    }

    #[test]
    fn links_and_deletes_come_back() {
        let front = Front { first: 7, count: 2, segment: 3, offset: 1 << 40 };
        let link = Link {
            first: 1 << 50,
            before: 6,
            before_next: 1 << 49,
            before_end: 99,
            fronts: vec![front, Front { first: 9, ..front }],
        };
        assert_eq!(Link::read(&link.encode()), Some(link));
        let ranges = vec![0..3, 5..6, u64::MAX - 1..u64::MAX];
        assert_eq!(read_deletes(&encode_deletes(ranges.clone())), Some(ranges));
    }
}
