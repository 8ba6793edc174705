#![allow(clippy::all)]
use engine::fifo::*; use engine::*; use std::time::Instant;
fn main() {
    let dir = std::path::PathBuf::from("/work/fifo-scratch"); let _ = std::fs::remove_dir_all(&dir); std::fs::create_dir_all(&dir).unwrap();
    let n = 1_000_000usize; let v = vec![7u8; 100];
    let f = std::fs::File::create(dir.join("bare")).unwrap();
    use std::os::unix::fs::FileExt;
    let t = Instant::now(); for i in 0..n { f.write_at(&v, (i*100) as u64).unwrap(); } println!("bare {:.2} M/s", n as f64/t.elapsed().as_secs_f64()/1e6);
    for level in [Durability::Write, Durability::Async] {
        let d = dir.join(format!("{level}"));
        let s = Store::open(&d, Options { sync: SyncPolicy::Never, ..Options::default() }).unwrap();
        let t = Instant::now(); for _ in 0..n { s.write_at(&v, level).unwrap(); } println!("write {level} {:.2} M/s", n as f64/t.elapsed().as_secs_f64()/1e6);
        println!("{:?}", s.size().unwrap());
        let t = Instant::now(); s.close().unwrap(); println!("close {:?}", t.elapsed());
        let t = Instant::now(); let s = Store::open(&d, Options { sync: SyncPolicy::Never, ..Options::default() }).unwrap(); println!("open {:?} first {:?}", t.elapsed(), s.oldest().unwrap().unwrap().index);
        let t = Instant::now(); for _ in 0..n { s.pop(level).unwrap().unwrap(); } println!("pop {level} {:.2} M/s", n as f64/t.elapsed().as_secs_f64()/1e6);
        println!("{:?} {:?}", s.size().unwrap(), s.len());
        let batch = vec![&v[..]; 100];
        let t = Instant::now(); for _ in 0..n/100 { s.write_many(&batch, level).unwrap(); } println!("write 100 {level} {:.2} M/s", n as f64/t.elapsed().as_secs_f64()/1e6);
        let t = Instant::now(); for _ in 0..n/100 { s.pop_many(100, level).unwrap(); } println!("pop 100 {level} {:.2} M/s", n as f64/t.elapsed().as_secs_f64()/1e6);
    }
}
