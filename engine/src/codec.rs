//! Integers, hexadecimal and CRC32C: bytes in, bytes out.
//!
//! CRC32C (Castagnoli) is the checksum of both log framings; the crate behind it uses the processor's
//! instruction where there is one.

/// CRC32C of what each byte is worth alone.
const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            // The polynomial 0x1EDC6F41 with its bits reversed (RFC 3720, appendix B.4).
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC32C of these bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

/// CRC32C of what `crc` stands for and these bytes behind it.
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // Each record has a kind and a mark of one byte: a call of the crate takes longer than a look at a table.
    if bytes.len() > 2 {
        return ::crc32c::crc32c_append(crc, bytes);
    }
    !bytes.iter().fold(!crc, |crc, byte| CRC_OF_BYTE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Eight lower-case hexadecimal digits, most significant first.
pub fn hex8(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    for (i, digit) in out.iter_mut().enumerate() {
        *digit = HEX[(value >> (28 - 4 * i)) as usize & 15];
    }
    out
}

/// Reads lower-case hexadecimal digits. Upper case is refused so that each value has one spelling.
/// `None` when empty, longer than 16 digits, or not hexadecimal.
pub fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &d| {
        let nibble = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(nibble))
    })
}

/// Appends `value` as hexadecimal without leading zeros; nothing at all for zero.
pub fn push_hex(out: &mut Vec<u8>, value: u64) {
    let digits = 16 - value.leading_zeros() as usize / 4;
    for i in (0..digits).rev() {
        out.push(HEX[(value >> (4 * i)) as usize & 15]);
    }
}

/// Appends `value` in LEB128: seven bits a byte, least significant first.
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a LEB128 integer and the bytes it took. `None` when cut short or longer than 64 bits.
#[inline]
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    if let Some(chunk) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            // All of it is in one word: drop what lies behind its last byte, then close the gap above every seven bits.
            let bits = ends.trailing_zeros() + 1;
            let word = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
            let pairs = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
            let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
            return Some((fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4, (bits / 8) as usize));
        }
    }
    let mut value = 0u64;
    for (i, &b) in bytes.iter().enumerate().take(10) {
        if i == 9 && b > 1 {
            return None;
        }
        value |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Reads a little-endian `u32` at `at`. `None` past the end.
pub fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crc_is_castagnoli() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        assert_eq!(&hex8(0xc0ff_ee12), b"c0ffee12");
        assert_eq!(parse_hex(b"C0"), None);
        assert_eq!(parse_hex(b""), None);
        assert_eq!(parse_hex(b"00000000000000001"), None);
    }

    proptest! {
        #[test]
        fn a_checksum_goes_on_where_it_was_left(bytes: Vec<u8>, cuts: (usize, usize)) {
            let (a, b) = (cuts.0 % (bytes.len() + 1), cuts.1 % (bytes.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            let parts = [&bytes[..a], &bytes[a..b], &bytes[b..]].into_iter().fold(0, crc32c_append);
            prop_assert_eq!(parts, ::crc32c::crc32c(&bytes));
            let bytewise = bytes.chunks(1).fold(0, crc32c_append);
            prop_assert_eq!(bytewise, ::crc32c::crc32c(&bytes));
        }

        #[test]
        fn integers_come_back(v: u64) {
            let mut hex = Vec::new();
            push_hex(&mut hex, v);
            prop_assert_eq!(if v == 0 { Some(0) } else { parse_hex(&hex) }, Some(v));
            let mut varint = Vec::new();
            push_varint(&mut varint, v);
            prop_assert_eq!(read_varint(&varint), Some((v, varint.len())));
            for v in [v, v >> (v % 64)] {
                let mut followed = Vec::new();
                push_varint(&mut followed, v);
                let len = followed.len();
                followed.extend([0xff; 9]);
                prop_assert_eq!(read_varint(&followed), Some((v, len)));
            }
            prop_assert_eq!(read_varint(&varint[..varint.len() - 1]), None);
        }
    }
}
