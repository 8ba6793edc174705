//! The files of an LSM store, as `docs/lsm_format.md` describes them: a golden store opens, and the same calls
//! still write the same bytes.

use crate::support::hex;
use engine::fs::MemFs;
use engine::lsm::{Batch, Clock, Compression, Options, Store};
use engine::{Durability, SyncPolicy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GOLDEN: [(&str, &[u8]); 4] = [
    ("manifest", include_bytes!("../golden/lsm-1/manifest")),
    ("00000002.wal", include_bytes!("../golden/lsm-1/00000002.wal")),
    ("00000003.sst", include_bytes!("../golden/lsm-1/00000003.sst")),
    ("00000004.val", include_bytes!("../golden/lsm-1/00000004.val")),
];

/// A log with a batch that LZ4 has packed, and one that Snappy has.
const PACKED: [(&str, &[u8]); 2] = [
    ("manifest", include_bytes!("../golden/lsm-1-packed/manifest")),
    ("00000001.wal", include_bytes!("../golden/lsm-1-packed/00000001.wal")),
];

fn image_of(files: &[(&str, &[u8])]) -> MemFs {
    MemFs::from_image(&files.iter().map(|(name, bytes)| (Path::new("/db").join(name), bytes.to_vec())).collect())
}

fn open(fs: &MemFs) -> Store {
    let options = Options {
        sync: SyncPolicy::Never,
        value_threshold: 32,
        compression: Compression::None,
        background: false,
        clock: Clock::new(|| 1_700_000_000),
        fs: Arc::new(fs.clone()),
        ..Options::default()
    };
    Store::open("/db", options).unwrap()
}

/// What the documentation's example does.
fn written() -> BTreeMap<PathBuf, Vec<u8>> {
    let fs = MemFs::new();
    let store = open(&fs);
    store.put(b"alice", b"10").unwrap();
    let mut batch = Batch::new();
    batch.put_until(b"alina", b"guest", 1_800_000_000);
    batch.put(b"carol", "a value of forty bytes goes to value log".as_bytes());
    batch.delete(b"bob");
    store.write(batch, Durability::Write).unwrap();
    store.flush().unwrap();
    store.put_at(b"dave", b"5", Durability::Sync).unwrap();
    store.close().unwrap();
    fs.image()
}

#[test]
fn the_golden_store_opens_and_shows_what_was_written() {
    let store = open(&image_of(&GOLDEN));
    let shown: Vec<_> = store.iter().map(Result::unwrap).map(|(k, v)| [k, v].map(|b| String::from_utf8(b).unwrap())).collect();
    let wanted = [["alice", "10"], ["alina", "guest"], ["carol", "a value of forty bytes goes to value log"], ["dave", "5"]];
    assert_eq!(shown, wanted);
    store.verify().unwrap();
    assert!(store.stats().cut.is_none());
}

#[test]
fn the_same_calls_write_the_golden_bytes_and_the_documented_ones() {
    let page = include_str!("../../../docs/lsm_format.md");
    let image = written();
    assert_eq!(image.len(), GOLDEN.len(), "{:?}", image.keys());
    for (name, golden) in GOLDEN {
        let bytes = &image[&Path::new("/db").join(name)];
        assert_eq!(hex(bytes), hex(golden), "{name} is written in another way: that takes a new version of the format");
        assert!(page.contains(&hex(golden)), "docs/lsm_format.md shows another {name}");
    }
}

/// How a batch is packed may change with the crates that do it; what was packed must stay readable.
#[test]
fn golden_packed_writes_are_read() {
    let store = open(&image_of(&PACKED));
    let name = |n: u64| format!("{n:04}").into_bytes();
    let shown: Vec<_> = store.iter().map(Result::unwrap).collect();
    let wanted: Vec<_> = (0..200).map(|n| (name(n), [name(n), name(n + 1)].concat())).collect();
    assert_eq!(shown, wanted);
    let log = PACKED[1].1;
    assert!(log.len() < 200 * 17, "{} bytes hold it unpacked", log.len());
}

/// Another build reads the file: it is not damaged, and salvage must not leave it out.
#[cfg(not(feature = "zstd"))]
#[test]
fn a_log_that_needs_another_build_is_refused_as_that() {
    use engine::log::{Framing, Parsed};
    use engine::lsm::Salvage;
    let parsed = |bytes: &[u8]| match Framing::Binary.parse(bytes) {
        Parsed::Record(frame) => frame,
        other => panic!("{other:?}"),
    };
    let log = PACKED[1].1;
    let at = 6 + parsed(&log[6..]).len;
    let frame = parsed(&log[at..]);
    let mut body = log[at + frame.body.start..at + frame.body.end].to_vec();
    assert_eq!((frame.kind, body[12]), (b'P', 1));
    body[12] = 3;
    let mut changed = log[..at].to_vec();
    Framing::Binary.encode(&mut changed, b'P', &body, Framing::checksum(b'P', &body), frame.mark);
    let fs = image_of(&[PACKED[0], ("00000001.wal", &changed)]);
    let options = Options { fs: Arc::new(fs), background: false, ..Options::default() };
    let opened = Store::open("/db", options.clone()).err().map(|e| e.to_string());
    let salvaged = Salvage::open("/db", &options).err().map(|e| e.to_string());
    let why = "option compression = zstd is not valid: this build has no Zstandard; build the engine with its feature zstd";
    assert_eq!((opened.as_deref(), salvaged.as_deref()), (Some(why), Some(why)));
}
