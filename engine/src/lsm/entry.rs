//! What a store keeps of a key: versions, each with the sequence number of the write that made it.
//!
//! Order: by key, and versions of one key from the newest to the oldest.

use super::options::Compression;
use super::packing::{Packer, compression_of, decompress, unpacked_len};
use crate::codec::{push_varint, read_varint};
use std::cmp::Ordering;

/// What a version says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was deleted.
    Delete,
    /// It has this value.
    Value,
    /// It has the value that lies at this place of the value log.
    Pointer,
}

const EXPIRES: u8 = 0x80;

/// Sequence number and kind of a version in one integer, so that later versions have greater tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u64);

impl Tag {
    /// The greatest tag of a sequence number: versions that a snapshot of this number may see are not above it.
    pub(super) fn newest_of(seq: u64) -> Self {
        Self(seq << 8 | 0xff)
    }

    pub(super) fn new(seq: u64, kind: Kind, expires: bool) -> Self {
        Self(seq << 8 | u64::from(kind_byte(kind, expires)))
    }

    pub(super) fn seq(self) -> u64 {
        self.0 >> 8
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 as u8 & !EXPIRES {
            0 => Kind::Delete,
            1 => Kind::Value,
            _ => Kind::Pointer,
        }
    }

    /// Whether the value begins with the time of its end.
    pub(super) fn expires(self) -> bool {
        self.0 as u8 & EXPIRES != 0
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// `None` for bits that no tag has.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        is_kind(bits as u8).then_some(Self(bits))
    }
}

fn kind_byte(kind: Kind, expires: bool) -> u8 {
    let byte = match kind {
        Kind::Delete => 0,
        Kind::Value => 1,
        Kind::Pointer => 2,
    };
    if expires { byte | EXPIRES } else { byte }
}

fn is_kind(byte: u8) -> bool {
    matches!(byte, 0..=2 | 0x81 | 0x82)
}

/// Orders versions: by key, then from the newest to the oldest.
pub(super) fn order(a: (&[u8], Tag), b: (&[u8], Tag)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

/// The first sixteen bytes of a key as two numbers that order like it: most comparisons end here.
pub(super) type Head = [u64; 2];

/// The head of a key; one that is shorter is filled up with zeros.
pub(super) fn head(key: &[u8]) -> Head {
    let number = |bytes: [u8; 16]| {
        let number = u128::from_be_bytes(bytes);
        [(number >> 64) as u64, number as u64]
    };
    match key.first_chunk::<16>() {
        Some(bytes) => number(*bytes),
        None => {
            let mut bytes = [0; 16];
            bytes[..key.len()].copy_from_slice(key);
            number(bytes)
        }
    }
}

/// The value of a version and the Unix time in seconds at which it ends, read from its stored form.
pub(super) fn unpack(tag: Tag, stored: &[u8]) -> Option<(Option<u64>, &[u8])> {
    if !tag.expires() {
        return Some((None, stored));
    }
    let (expires, len) = read_varint(stored)?;
    Some((Some(expires), &stored[len..]))
}

/// Whether a version that ends then has ended by now; both are Unix times in seconds.
pub(super) fn has_ended(expires: Option<u64>, now: u64) -> bool {
    expires.is_some_and(|at| at <= now)
}

/// The time at which a version ends, in front of its value.
pub(super) fn push_expiry(out: &mut Vec<u8>, expires: Option<u64>) {
    if let Some(expires) = expires {
        push_varint(out, expires);
    }
}

/// Room for sequence number and count at the start of a write's body.
const WRITE_HEAD: usize = 12;
/// The record of a write, and of one whose changes are compressed.
pub(super) const WRITE: u8 = b'W';
pub(super) const PACKED: u8 = b'P';
/// Bytes of changes that are compressed at most: it takes as many again for a moment.
const PACKED_AT_MOST: usize = 16 << 20;

/// The body of a log record that holds one write: the changes that happen together or not at all.
///
/// ```text
/// body   = first sequence number: u64 LE, changes: u32 LE, change*
/// packed = first sequence number: u64 LE, changes: u32 LE, compression: u8, change*, compressed
/// change = kind: u8, key length: varint, key, [value length: varint, value]
/// ```
#[derive(Clone, Debug)]
pub(super) struct Changes {
    body: Vec<u8>,
    /// The packed body, if it is worth it.
    packed: Option<Vec<u8>>,
    count: u32,
}

impl Default for Changes {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Changes {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut body = Vec::with_capacity(WRITE_HEAD + bytes);
        body.resize(WRITE_HEAD, 0);
        Self { body, packed: None, count: 0 }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expires: Option<u64>) {
        self.head(key, kind_byte(Kind::Value, expires.is_some()));
        let mut prefix = Vec::new();
        push_expiry(&mut prefix, expires);
        push_varint(&mut self.body, (prefix.len() + value.len()) as u64);
        self.body.extend_from_slice(&prefix);
        self.body.extend_from_slice(value);
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.head(key, kind_byte(Kind::Delete, false));
    }

    fn head(&mut self, key: &[u8], kind: u8) {
        self.body.push(kind);
        push_varint(&mut self.body, key.len() as u64);
        self.body.extend_from_slice(key);
        self.count += 1;
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// Bytes of the body as it is.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Compresses what will be written into the log. Nothing must be added afterwards.
    pub(super) fn pack(&mut self, packer: &mut Packer) {
        if self.body.len() > PACKED_AT_MOST {
            return;
        }
        let (changes, compression) = packer.pack(&self.body[WRITE_HEAD..]);
        if compression != Compression::None {
            self.packed = Some([&[0; WRITE_HEAD][..], &[compression.byte()], changes].concat());
        }
    }

    /// The record that holds the changes, numbered from `first` on: its kind and body.
    pub(super) fn number(&mut self, first: u64) -> (u8, &[u8]) {
        let (kind, body) = match &mut self.packed {
            Some(packed) => (PACKED, packed),
            None => (WRITE, &mut self.body),
        };
        body[..8].copy_from_slice(&first.to_le_bytes());
        body[8..WRITE_HEAD].copy_from_slice(&self.count.to_le_bytes());
        (kind, body)
    }

    /// The changes, with their keys and stored values.
    pub(super) fn iter(&self) -> ChangeIter<'_> {
        ChangeIter { rest: &self.body[WRITE_HEAD..] }
    }
}

/// The compression of a packed body, if it is one of ours.
pub(super) fn packed_with(packed: &[u8]) -> Option<Compression> {
    Compression::from_byte(*packed.get(WRITE_HEAD)?)
}

/// The body of a write whose packed one is this, as it was before.
pub(super) fn unpack_write(packed: &[u8]) -> Result<Vec<u8>, String> {
    let (head, rest) = packed.split_at_checked(WRITE_HEAD).ok_or("it is too short")?;
    let (compression, changes) = rest.split_first().ok_or("it is too short")?;
    let compression = compression_of(*compression)?;
    let len = unpacked_len(compression, changes)?;
    if len > PACKED_AT_MOST {
        return Err(format!("{} bytes that say they were {len}", changes.len()));
    }
    let (changes, len) = decompress(compression, changes, |len| vec![0; len].into())?;
    Ok([head, &changes[..len]].concat())
}

/// The first sequence number of a write's body and its changes. `None` for bytes that are no such body.
pub(super) fn read_write(body: &[u8]) -> Option<(u64, u32, ChangeIter<'_>)> {
    let first = u64::from_le_bytes(*body.first_chunk()?);
    let count = crate::codec::read_u32(body, 8)?;
    let changes = ChangeIter { rest: &body[WRITE_HEAD..] };
    let mut check = changes.clone();
    let whole = (&mut check).count() == count as usize && check.rest.is_empty();
    whole.then_some((first, count, changes))
}

/// Changes of a write: kind byte, key, stored value. Ends at the first that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct ChangeIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ChangeIter<'a> {
    type Item = (ChangeKind, &'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.rest.split_first()?;
        if !is_kind(kind) {
            return None;
        }
        let (key, rest) = sized(rest)?;
        let (value, rest) = if kind == 0 { (&rest[..0], rest) } else { sized(rest)? };
        self.rest = rest;
        Some((ChangeKind(kind), key, value))
    }
}

/// The kind of a change that has no sequence number yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeKind(u8);

impl ChangeKind {
    pub(super) fn tag(self, seq: u64) -> Tag {
        Tag(seq << 8 | u64::from(self.0))
    }
}

/// Bytes behind their length, and the rest.
pub(super) fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, at) = read_varint(bytes)?;
    let len = usize::try_from(len).ok()?;
    bytes[at..].split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn newer_versions_come_first() {
        let tag = |seq| Tag::new(seq, Kind::Value, false);
        assert_eq!(order((b"a", tag(2)), (b"a", tag(1))), Ordering::Less);
        assert_eq!(order((b"a", tag(1)), (b"b", tag(9))), Ordering::Less);
        assert!(Tag::newest_of(7) > Tag::new(7, Kind::Pointer, true) && Tag::newest_of(7) < tag(8));
    }

    #[test]
    fn a_write_is_packed_if_that_is_worth_it_and_not_too_long() {
        let packed = |key: &[u8], value: &[u8]| {
            let mut write = Changes::default();
            write.put(key, value, None);
            let before = write.number(7).1.to_vec();
            write.pack(&mut Packer::new(Compression::Snappy));
            let (kind, body) = write.number(7);
            let body = if kind == PACKED { unpack_write(body).unwrap() } else { body.to_vec() };
            assert_eq!(body, before);
            kind == PACKED
        };
        assert!(packed(b"key", &[7; 5000]));
        assert!(!packed(b"key", b"short"));
        assert!(!packed(b"key", &vec![7; PACKED_AT_MOST]));
    }

    proptest! {
        #[test]
        fn heads_that_differ_order_like_keys(a in prop::collection::vec(0u8..3, 0..20), b in prop::collection::vec(0u8..3, 0..20)) {
            let heads = head(&a).cmp(&head(&b));
            prop_assert!(heads == Ordering::Equal || heads == a.cmp(&b));
            prop_assert!(heads != Ordering::Equal || a == b || a.len() != b.len() || a.len() > size_of::<Head>());
        }

        #[test]
        fn a_write_comes_back(changes: Vec<(Vec<u8>, Option<(Vec<u8>, Option<u64>)>)>, first in 0u64..1 << 56) {
            let mut write = Changes::default();
            for (key, value) in &changes {
                match value {
                    Some((value, expires)) => write.put(key, value, *expires),
                    None => write.delete(key),
                }
            }
            let (kind, body) = write.number(first);
            prop_assert_eq!(kind, WRITE);
            let body = body.to_vec();
            write.pack(&mut Packer::new(Compression::Lz4));
            if let (PACKED, packed) = write.number(first) {
                prop_assert!(packed.len() < body.len());
                let unpacked = unpack_write(packed);
                prop_assert_eq!(unpacked.as_ref(), Ok(&body));
                for cut in 0..packed.len() {
                    let unpacked = unpack_write(&packed[..cut]);
                    prop_assert!(unpacked.as_ref() != Ok(&body));
                }
            }
            let (seq, count, read) = read_write(&body).unwrap();
            prop_assert_eq!((seq, count as usize), (first, changes.len()));
            for ((kind, key, stored), (wanted, value)) in read.zip(&changes) {
                let tag = kind.tag(first);
                prop_assert_eq!(key, &wanted[..]);
                match value {
                    Some((value, expires)) => prop_assert_eq!(unpack(tag, stored), Some((*expires, &value[..]))),
                    None => prop_assert_eq!(tag.kind(), Kind::Delete),
                }
            }
            for cut in 0..body.len() {
                prop_assert!(read_write(&body[..cut]).is_none());
            }
        }
    }
}
