//! Any bytes behind a header: opening must not panic, and what opens keeps a write and all else.
//! The same body runs without nightly as a property test, `typed_format::arbitrary_bytes_never_panic`.

#![no_main]

use engine::fs::MemFs;
use engine::typed::{Options, Store};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let Some((choice, records)) = input.split_first() else { return };
    let header: &[u8] = if choice % 2 == 0 { b"typed-log 1\n" } else { b"go-persist 1\n" };
    let path = PathBuf::from("/db/store");
    let fs = MemFs::from_image(&BTreeMap::from([(path.clone(), [header, records].concat())]));
    let options = || Options { background: false, auto_shrink: None, shards: 1, fs: Arc::new(fs.clone()), ..Options::default() };
    let Ok(store) = Store::open(&path, options()) else { return };
    let own = |store: &Store| store.get::<i64>("written after opening").unwrap();
    store.set("written after opening", &7).unwrap();
    let records = store.stats().records;
    drop(store);
    let store = Store::open(&path, options()).unwrap();
    assert_eq!(store.stats().cut, None);
    assert_eq!(store.stats().records, records);
    assert_eq!(own(&store), Some(7));
});
