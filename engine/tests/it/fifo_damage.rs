//! What the fuzz target and the property test do with a FIFO store's files: nothing panics, and nothing is shown that was
//! never written.

use engine::fifo::{Options, Reader, Store, Writer, salvage};
use engine::fs::MemFs;
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

fn options(fs: &MemFs) -> Options {
    Options {
        max_file_size: 4 << 10,
        max_chunk: 4 << 10,
        sync: SyncPolicy::Never,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    }
}

fn entry(n: u64) -> Vec<u8> {
    format!("entry {n} {}", "x".repeat(n as usize % 7 * 40)).into_bytes()
}

/// A store that was killed, with several files, batches and entries in front.
fn whole() -> &'static BTreeMap<PathBuf, Vec<u8>> {
    static WHOLE: OnceLock<BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let fs = MemFs::new();
        let store = Store::open("/q", options(&fs)).unwrap();
        let mut next = 0;
        while next < 90 {
            let level = if next % 11 == 0 { Durability::Sync } else { Durability::Write };
            let entries: Vec<Vec<u8>> = (next..next + 1 + next % 4).map(entry).collect();
            let written = if next % 9 == 0 { store.write_in_front(&entries, level) } else { store.write_many(&entries, level) };
            assert_eq!(written.unwrap(), next..next + entries.len() as u64);
            next += entries.len() as u64;
            if next % 3 == 0 {
                store.pop(level).unwrap();
            }
        }
        fs.image()
    })
}

/// Changes files as the input says, five bytes a change (which file, where, how, and with what), and opens the store in
/// every way there is.
pub(crate) fn open_damaged(input: &[u8]) {
    let mut image = whole().clone();
    for change in input.chunks_exact(5) {
        let which = usize::from(change[0]) % image.len();
        let Some(bytes) = image.values_mut().nth(which) else { break };
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % (bytes.len() + 1);
        match change[3] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, change[4]),
            2 => bytes.extend(std::iter::repeat_n(change[4], at)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change[4]),
        }
    }
    let disk = || MemFs::from_image(&image);
    let check = |index: u64, value: &[u8]| assert_eq!(value, entry(index), "nobody wrote this");
    if let Ok(store) = Store::open("/q", options(&disk())) {
        let _ = store.for_each(|index, value| {
            check(index, value);
            Ok(())
        });
        for index in (0..100).rev() {
            let _ = store.read(index).inspect(|value| check(index, value));
        }
        while let Ok(Some(taken)) = store.pop(Durability::Write) {
            check(taken.index, &taken.value);
        }
        let _ = store.write(b"goes on").map(|index| assert!(index >= 60 || input.len() >= 5, "{index}"));
    }
    let fs = disk();
    let halves = (Reader::open("/q", options(&fs)), Writer::open("/q", options(&fs)));
    if let Ok(reader) = &halves.0 {
        let _ = reader.update_indexes();
        let _ = reader.pop_many(200, Durability::Write).inspect(|all| all.iter().for_each(|e| check(e.index, &e.value)));
    }
    if let Ok(found) = salvage("/q", &options(&disk())) {
        found.entries.iter().for_each(|e| check(e.index, &e.value));
    }
}
