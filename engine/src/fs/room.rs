//! Small writes into a file's room, through memory.
//!
//! A `pwrite` of a hundred bytes costs a third of a microsecond, most of it for the way into the kernel and back. The
//! same bytes copied into a mapping of the file are as safe from the death of the process, because both end up in the
//! page cache, and cost a fifth of that.
//!
//! A store to a page for which the file system finds no place ends the process (`SIGBUS`), where a `pwrite` would have
//! returned an error. So only bytes are written in this way that have a place already, on file systems that write in
//! place. What is left are a device that fails to read a page back and a file that somebody else cuts: then the process
//! dies, and what it had acknowledged is as safe as after any other death.

use memmap2::{Advice, MmapOptions, MmapRaw};
use std::fs::File;
use std::ops::Range;

/// Bytes that are mapped at a time; what is mapped counts as memory of the process once it is written.
const WINDOW: u64 = 256 << 10;

/// More bytes than these are cheaper to write than to copy, because each new page of a mapping is a fault.
const SMALL: usize = 4 << 10;

/// What is known of a file's room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes that have a place on the device.
    placed: Range<u64>,
    /// Those of them that small writes are going to fill.
    expected: Range<u64>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    bytes: Range<u64>,
    map: MmapRaw,
}

impl Room {
    /// The file has bytes up to `len` now, or is about to. Those from `placed_from` on have just been given a place.
    pub(super) fn resized(&mut self, len: u64, placed_from: Option<u64>) {
        if let Some(from) = placed_from {
            self.placed.start = if self.placed.end == from { self.placed.start } else { from };
            self.placed.end = len;
        }
        self.placed.end = self.placed.end.min(len);
        self.expected.end = self.expected.end.min(len);
        if self.window.as_ref().is_some_and(|window| window.bytes.end > len) {
            self.window = None;
        }
    }

    /// Small writes are going to fill `range`, or what of it has a place.
    pub(super) fn expect(&mut self, range: Range<u64>) {
        self.expected = range.start.max(self.placed.start)..range.end.min(self.placed.end);
    }

    /// Writes bytes through memory; whether it could.
    pub(super) fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> bool {
        let end = offset + bytes.len() as u64;
        if bytes.len() > SMALL || offset < self.expected.start || end > self.expected.end {
            return false;
        }
        let covers = |window: &Window| window.bytes.start <= offset && end <= window.bytes.end;
        if !self.window.as_ref().is_some_and(covers) {
            self.window = map(file, offset..(offset + WINDOW).min(self.expected.end));
        }
        let Some(window) = self.window.as_ref().filter(|window| covers(window)) else {
            self.expected = 0..0;
            return false;
        };
        let at = (offset - window.bytes.start) as usize;
        // SAFETY: `covers` says that the bytes lie within the mapping, which is `window.bytes` long. It lies within the
        // file: before it gets shorter, `resized` lets go of a window that reaches further. Nobody holds a reference
        // to mapped memory, here or elsewhere, and it cannot overlap `bytes`, which are memory of a safe caller.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), window.map.as_mut_ptr().add(at), bytes.len()) }
        true
    }
}

fn map(file: &File, bytes: Range<u64>) -> Option<Window> {
    let map = MmapOptions::new().offset(bytes.start).len((bytes.end - bytes.start) as usize).map_raw(file).ok()?;
    // Read ahead, the room would be taken into memory in large folios, and each fault would walk all blocks of one.
    map.advise(Advice::Random).ok()?;
    Some(Window { bytes, map })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// A file of `len` bytes with a place for each of them, if its file system can give them one.
    fn file(len: u64) -> Option<(File, Room)> {
        let file = tempfile::tempfile().unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).ok()?;
        let mut room = Room::default();
        room.resized(len, Some(0));
        room.expect(10..len);
        Some((file, room))
    }

    #[test]
    fn what_is_written_through_memory_stands_in_the_file() {
        let Some((file, mut room)) = file(8 * WINDOW) else { return };
        let (mut model, mut offset) = (vec![0; 8 * WINDOW as usize], 10);
        for n in 0..600usize {
            let bytes = vec![n as u8 | 1; 1 + n * 7 % SMALL];
            assert!(room.write(&file, &bytes, offset as u64), "write {n} at {offset}");
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            offset += bytes.len();
        }
        let mut found = vec![1; model.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == model);
    }

    #[test]
    fn only_what_is_small_and_has_a_place_goes_through_memory() {
        let Some((file, mut room)) = file(100) else { return };
        assert!(!room.write(&file, &[1; 4], 9), "in front of the room");
        assert!(!room.write(&file, &[1; 4], 97), "behind it");
        assert!(!room.write(&file, &[1; SMALL + 1], 10), "too long");
        assert!(room.write(&file, &[1; 4], 96));
        file.set_len(50).unwrap();
        room.resized(50, None);
        assert!(!room.write(&file, &[1; 4], 50), "cut off");
        assert!(room.write(&file, &[1; 4], 46));
        file.set_len(200).unwrap();
        room.resized(200, None);
        room.expect(50..200);
        assert!(!room.write(&file, &[1; 4], 60), "a hole");
    }
}
