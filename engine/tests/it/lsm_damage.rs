//! What the fuzz targets and the property tests do with bytes that are no store's: nothing panics, and nothing is
//! shown that was never written.

use engine::fs::{Fs, MemFs, write_all_at};
use engine::lsm::{Format, Options, Salvage, Store};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Every value that a key ever had, deletes among them.
type History = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

fn options(fs: &MemFs) -> Options {
    Options {
        sync: SyncPolicy::Never,
        memtable_size: 3_000,
        level0_tables: 2,
        level0_slow: 4,
        level0_stall: 6,
        base_level_size: 4_000,
        table_size: 1_000,
        value_threshold: 120,
        block_size: 200,
        pack_log_from: 100,
        block_cache: 1 << 16,
        index_cache: 1 << 16,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    }
}

/// A store that was killed, with tables, values and a log, and what was written to it.
fn whole() -> &'static (BTreeMap<PathBuf, Vec<u8>>, History) {
    static WHOLE: OnceLock<(BTreeMap<PathBuf, Vec<u8>>, History)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let (fs, mut history) = (MemFs::new(), History::new());
        let store = Store::open("/db", options(&fs)).unwrap();
        for n in 0..150u32 {
            let key = format!("key-{:02}", n * 7 % 30).into_bytes();
            let value = (n % 8 != 0).then(|| vec![n as u8; if n % 6 == 0 { 150 } else { 20 }]);
            match &value {
                Some(value) => store.put(&key, value).unwrap(),
                None => store.delete(&key).unwrap(),
            }
            history.entry(key).or_default().push(value);
            store.maintain(std::time::Duration::ZERO).unwrap();
        }
        (fs.image(), history)
    })
}

/// Changes files as the input says, five bytes a change: which file, where, how, and with what.
fn damaged(input: &[u8]) -> MemFs {
    let fs = MemFs::from_image(&whole().0);
    for change in input.chunks_exact(5) {
        let paths = fs.paths();
        let Some(path) = paths.get(usize::from(change[0]) % paths.len().max(1)) else { break };
        let mut bytes = fs.image().remove(path).unwrap();
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % (bytes.len() + 1);
        match change[3] % 5 {
            0 if at < bytes.len() => bytes[at] ^= change[4],
            1 => bytes.truncate(at),
            2 => bytes.insert(at, change[4]),
            3 => bytes[at..].fill(change[4]),
            _ => {
                fs.remove(path).unwrap();
                continue;
            }
        }
        write_all_at(&*fs.create(path).unwrap(), &bytes, 0).unwrap();
    }
    fs
}

/// Opens a damaged store, strictly and for salvage.
pub(crate) fn open_damaged(input: &[u8]) {
    let (fs, history) = (damaged(input), &whole().1);
    let was_written = |key: &[u8], value: &[u8]| history.get(key).is_some_and(|all| all.contains(&Some(value.to_vec())));
    if let Ok(salvage) = Salvage::open("/db", &options(&fs)) {
        for entry in salvage.entries().unwrap() {
            let entry = entry.unwrap();
            assert!(was_written(&entry.key, &entry.value), "salvage shows {:?}, which was never written", entry.key);
        }
    }
    if let Ok(store) = Store::open("/db", options(&fs)) {
        for (key, value) in store.iter().map_while(Result::ok) {
            assert!(was_written(&key, &value), "{key:?} has a value that was never written");
        }
        let _ = (store.verify(), store.put(b"key-00", b"later"), store.compact());
    }
}

/// Loads any bytes as a backup and as exports.
pub(crate) fn load_anything(input: &[u8]) {
    let fresh = || Store::open("/db", options(&MemFs::new())).unwrap();
    let _ = fresh().load(&mut &input[..], Durability::Async);
    let _ = fresh().import(&mut &input[..], Format::JsonLines, Durability::Async);
    let _ = fresh().import(&mut &input[..], Format::Protobuf, Durability::Async);
    let headed = [&b"lsm-backup 1\n"[..], input].concat();
    let _ = fresh().load(&mut &headed[..], Durability::Async);
}
