//! The files of a FIFO store, as `docs/fifo_format.md` describes them: a golden store opens, and the same calls still
//! write the same bytes.

use crate::support::hex;
use engine::fifo::{Options, Store};
use engine::fs::MemFs;
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GOLDEN: [(&str, &[u8]); 2] = [
    ("fifo-00000002.fifo", include_bytes!("../golden/fifo-1/fifo-00000002.fifo")),
    ("fifo.deletes", include_bytes!("../golden/fifo-1/fifo.deletes")),
];

fn open(fs: &MemFs) -> Store {
    let options = Options {
        max_file_size: 4 << 10,
        sync: SyncPolicy::Never,
        background: false,
        fs: Arc::new(fs.clone()),
        ..Options::default()
    };
    Store::open("/q", options).unwrap()
}

/// What the documentation's example does: when all is taken out, the first file gives way to the second.
fn written() -> BTreeMap<PathBuf, Vec<u8>> {
    let fs = MemFs::new();
    let store = open(&fs);
    store.write(b"one").unwrap();
    store.write_in_front(&["zero"], Durability::Write).unwrap();
    store.prune(None, Durability::Write).unwrap();
    store.write(b"two").unwrap();
    store.write_many(&["three", "four", ""], Durability::Sync).unwrap();
    store.write(b"six").unwrap();
    store.delete(&[4, 2], Durability::Sync).unwrap();
    store.close().unwrap();
    fs.image()
}

#[test]
fn the_golden_store_opens_and_shows_what_was_written() {
    let fs = MemFs::from_image(&GOLDEN.iter().map(|(name, bytes)| (Path::new("/q").join(name), bytes.to_vec())).collect());
    let store = open(&fs);
    let mut shown = Vec::new();
    let look = |index, value: &[u8]| {
        shown.push((index, String::from_utf8(value.to_vec()).unwrap()));
        Ok(())
    };
    store.for_each(look).unwrap();
    assert_eq!(shown, [(3, "three".to_owned()), (5, String::new()), (6, "six".to_owned())]);
    assert!(store.cut().is_empty());
    assert_eq!(store.write(b"seven").unwrap(), 7);
}

#[test]
fn the_same_calls_write_the_golden_bytes_and_the_documented_ones() {
    let page = include_str!("../../../docs/fifo_format.md");
    let image = written();
    assert_eq!(image.len(), GOLDEN.len(), "{:?}", image.keys());
    for (name, golden) in GOLDEN {
        let bytes = &image[&Path::new("/q").join(name)];
        assert_eq!(hex(bytes), hex(golden), "{name} is written in another way: that takes a new version of the format");
        assert!(page.contains(&hex(golden)), "docs/fifo_format.md shows another {name}");
    }
}
