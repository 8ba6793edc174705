//! The binary framing.
//!
//! ```text
//! record = length: u32 LE, crc: u32 LE, kind: u8, mark: varint, body
//! length = bytes of kind, mark and body
//! crc    = CRC32C over kind, body, mark, in this order
//! mark   = 0, or 1 + distance back to the end of what was synced
//! ```

use super::{Damage, Frame, MAX_RECORD, Parsed};
use crate::codec::{crc32c, crc32c_append, push_varint, read_u32, read_varint};

const HEAD: usize = 8;

pub(super) fn encode(out: &mut Vec<u8>, kind: u8, body: &[u8], crc: u32, mark: Option<u64>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.push(kind);
    push_varint(out, mark.map_or(0, |d| d.saturating_add(1)));
    let crc = crc32c_append(crc, &out[start + HEAD + 1..]);
    out.extend_from_slice(body);
    let length = (out.len() - start - HEAD) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let (Some(length), Some(crc)) = (read_u32(bytes, 0), read_u32(bytes, 4)) else {
        return Parsed::Incomplete;
    };
    let length = length as usize;
    if !(2..=MAX_RECORD).contains(&length) {
        return Parsed::Damaged(Damage::new(format!("a record cannot be {length} bytes long")));
    }
    let Some(content) = bytes.get(HEAD..HEAD + length) else {
        return Parsed::Incomplete;
    };
    let Some((mark, mark_len)) = read_varint(&content[1..]) else {
        return Parsed::Damaged(Damage::new("a mark that is not a number"));
    };
    let (mark_bytes, body) = content[1..].split_at(mark_len);
    if crc32c_append(crc32c_append(crc32c(&content[..1]), body), mark_bytes) != crc {
        return Parsed::Damaged(Damage::new("the checksum of a record does not match"));
    }
    Parsed::Record(Frame {
        kind: content[0],
        body: HEAD + 1 + mark_len..HEAD + length,
        mark: mark.checked_sub(1),
        checked: true,
        len: HEAD + length,
    })
}
