//! Which keys a table certainly does not hold: a Bloom filter cut into cache lines, so that a question touches
//! one of them (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).
//!
//! ```text
//! filter = line*; a line is 64 bytes, bit n of it is bit n % 8 of byte n / 8
//! hash   = XXH3-64 of the key; line = high half of hash x lines / 2^32
//! bits   = seven, nine bits each, from the low end of hash x 0x9e3779b97f4a7c15
//! ```

use xxhash_rust::xxh3::xxh3_64;

const LINE: usize = 64;
const PROBES: u32 = 7;

/// The hash under which a filter knows a key.
pub(in crate::lsm) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// A filter over these hashes with so many bits for each.
pub(super) fn build(hashes: &[u64], bits_per_key: usize) -> Vec<u8> {
    let lines = (hashes.len() * bits_per_key).div_ceil(LINE * 8).max(1);
    let mut bytes = vec![0; lines * LINE];
    for &hash in hashes {
        let line = line(hash, lines);
        for bit in bits(hash) {
            bytes[line + bit / 8] |= 1 << (bit % 8);
        }
    }
    bytes
}

/// Whether the filter may hold the key with this hash.
pub(super) fn may_hold(filter: &[u8], hash: u64) -> bool {
    let lines = filter.len() / LINE;
    if lines == 0 {
        return true;
    }
    let line = &filter[line(hash, lines)..][..LINE];
    bits(hash).all(|bit| line[bit / 8] & 1 << (bit % 8) != 0)
}

fn line(hash: u64, lines: usize) -> usize {
    (((hash >> 32) as usize * lines) >> 32) * LINE
}

fn bits(hash: u64) -> impl Iterator<Item = usize> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |n| (mixed >> (9 * n)) as usize & (LINE * 8 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_misses_and_rarely_errs() {
        let keys = 100_000u64;
        let hashes: Vec<u64> = (0..keys).map(|n| hash(&n.to_be_bytes())).collect();
        let filter = build(&hashes, 11);
        assert!(hashes.iter().all(|h| may_hold(&filter, *h)));
        let wrong = (keys..2 * keys).filter(|n| may_hold(&filter, hash(&n.to_be_bytes()))).count();
        assert!(wrong < keys as usize / 100, "{wrong} of {keys}");
    }
}
