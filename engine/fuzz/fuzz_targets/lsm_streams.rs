//! Any bytes as a backup or an export of an LSM store: loading must not panic. The same body runs without nightly as a
//! property test, `lsm_tools::any_stream_is_survived`.

#![no_main]

#[path = "../../tests/it/lsm_damage.rs"]
mod lsm_damage;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| lsm_damage::load_anything(input));
