//! Any bytes as a binary log: reading must not panic, and what it keeps reads the same again.
//! The same body runs without nightly as a property test, `log::arbitrary_bytes_never_panic`.

#![no_main]

use engine::fs::{Fs, MemFs, write_all_at};
use engine::log::{Framing, Mode, Replayed, replay};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

type Records = Vec<(u8, Vec<u8>)>;

fn read(bytes: &[u8], mode: Mode) -> engine::Result<(Replayed, Records)> {
    let path = Path::new("log");
    let file = MemFs::new().create(path).unwrap();
    write_all_at(&*file, bytes, 0).unwrap();
    let mut seen = Records::new();
    let found = replay(&*file, path, Framing::Binary, 0..bytes.len() as u64, mode, |_, kind, body| {
        seen.push((kind, body.to_vec()));
        Ok(())
    })?;
    Ok((found, seen))
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok((found, seen)) = read(bytes, Mode::Strict) {
        let (again, seen_again) = read(&bytes[..found.end as usize], Mode::Strict).unwrap();
        assert_eq!((again.cut, seen_again), (None, seen));
    }
    read(bytes, Mode::Salvage).unwrap();
});
