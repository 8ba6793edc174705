//! Any damage to the files of a FIFO store: opening and salvage must not panic nor show what was never written. The
//! same body runs without nightly as a property test, `fifo_store::any_damage_is_survived`.

#![no_main]

#[path = "../../tests/it/fifo_damage.rs"]
mod fifo_damage;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| fifo_damage::open_damaged(input));
