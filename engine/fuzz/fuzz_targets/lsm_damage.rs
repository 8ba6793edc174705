//! Any damage to the files of an LSM store: opening and salvage must not panic nor show what was never written. The
//! same body runs without nightly as a property test, `lsm_tools::any_damage_is_survived`.

#![no_main]

#[path = "../../tests/it/lsm_damage.rs"]
mod lsm_damage;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| lsm_damage::open_damaged(input));
