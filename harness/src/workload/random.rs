//! Random numbers by a named algorithm, so that a seed means the same for ever.

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// The generator of all workloads: PCG XSL 128/64 (MCG), by O'Neill 2014.
pub type Rng = Pcg64Mcg;

/// A generator for one purpose: distinct `parts` give independent streams.
pub fn rng(seed: u64, parts: &[u64]) -> Rng {
    Rng::seed_from_u64(mix(seed, parts))
}

/// A seed derived from another one and a path of numbers (SplitMix64's finaliser, step by step).
pub fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(seed, |state, &part| {
        let mut z = (state ^ part.wrapping_mul(0xbf58_476d_1ce4_e5b9)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A seed derived from a name.
pub fn mix_name(seed: u64, name: &str) -> u64 {
    mix(seed, &name.bytes().map(u64::from).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut rng = rng(42, &[1, 2]);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, PINNED);
        assert_ne!(mix(42, &[1, 2]), mix(42, &[2, 1]));
        assert_ne!(mix_name(1, "hub"), mix_name(1, "ttfp"));
    }

    const PINNED: [u64; 3] = [691_462_897_125_874_338, 9_342_579_344_356_388_323, 212_426_069_612_626_038];
}
