//! Micro-benchmarks of the typed store on files in memory: what the code costs without a device.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::fs::MemFs;
use engine::log::Framing;
use engine::typed::{Options, Store};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::Arc;

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    field1: i64,
    field2: String,
}

fn record(i: u64) -> Record {
    Record { field1: i as i64, field2: "example struct".to_owned() }
}

fn store(keys: u64) -> Store {
    let fs = MemFs::new();
    let store = Store::open("/bench.db", Options { background: false, fs: Arc::new(fs), ..Options::default() });
    let store = store.unwrap_or_else(|e| panic!("{e}"));
    let map = store.map::<Record>("bench").unwrap_or_else(|e| panic!("{e}"));
    (0..keys).for_each(|i| drop(map.set(&i.to_string(), record(i))));
    store
}

fn framings(c: &mut Criterion) {
    let body = b"test_struct:12345\n{\"field1\":12345,\"field2\":\"example struct\"}\n";
    for framing in [Framing::Text, Framing::Binary] {
        let crc = Framing::checksum(b'S', body);
        let mut bytes = Vec::new();
        framing.encode(&mut bytes, b'S', body, crc, None);
        c.bench_function(&format!("{framing:?}/parse"), |b| b.iter(|| framing.parse(black_box(&bytes))));
        c.bench_function(&format!("{framing:?}/encode"), |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(128),
                |out| framing.encode(out, b'S', black_box(body), Framing::checksum(b'S', body), None),
                BatchSize::SmallInput,
            );
        });
    }
}

fn map(c: &mut Criterion) {
    let store = store(10_000);
    let map = store.map::<Record>("bench").unwrap_or_else(|e| panic!("{e}"));
    let keys: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let mut next = (0..keys.len()).cycle();
    let mut key = move || next.next().unwrap_or(0);
    c.bench_function("map/get_with", |b| b.iter(|| map.get_with(&keys[key()], |r| r.field1)));
    c.bench_function("map/set_async", |b| b.iter(|| map.set_async(&keys[7], record(7))));
    c.bench_function("map/set", |b| b.iter(|| map.set(&keys[9], record(9))));
    c.bench_function("map/flush of 1000", |b| {
        b.iter_batched(
            || keys[..1000].iter().for_each(|k| drop(map.set_async(k, record(1)))),
            |()| store.flush(),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, framings, map);
criterion_main!(benches);
