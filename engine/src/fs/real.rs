//! The operating system's files. Only here and in the two modules beside it the engine names `std::fs`.

use super::room::Room;
use super::write_back::write_back;
use super::{File, Fs, Lock, LockOutcome};
use rustix::fs::{FallocateFlags, FsWord, SeekFrom, fstatfs, seek};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

// File systems by their magic numbers (`statfs(2)`).
const EXT4: FsWord = 0xef53;
const XFS: FsWord = 0x5846_5342;
const BTRFS: FsWord = 0x9123_683e;
const TMPFS: FsWord = 0x0102_1994;

/// File systems whose word on holes is believed. A hole that is none hides acknowledged records, and there was such a file
/// system (OpenZFS issue 15526).
const KNOWS_HOLES: [FsWord; 4] = [EXT4, XFS, BTRFS, TMPFS];

/// File systems that write in place what has a place.
const WRITES_IN_PLACE: [FsWord; 2] = [EXT4, TMPFS];

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    /// Known once room was made; most files are only read, or written in large pieces.
    room: OnceLock<Mutex<Room>>,
}

impl RealFile {
    fn shared(file: fs::File) -> Arc<dyn File> {
        Arc::new(Self { file, room: OnceLock::new() })
    }

    /// Whether its file system is one of these.
    fn lies_on(&self, kinds: &[FsWord]) -> bool {
        fstatfs(&self.file).is_ok_and(|found| kinds.contains(&found.f_type))
    }
}

#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] fs::File);

impl Lock for RealLock {}

impl Fs for RealFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(RealFile::shared(file))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(RealFile::shared(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                // The pid is for whoever meets the lock; the lock itself is the kernel's `flock`.
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                Ok(LockOutcome::Held(Box::new(RealLock(file))))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(LockOutcome::Busy { pid: text.trim().parse().ok() })
            }
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        // Whoever else is at the room may be cutting it; there is always the other way.
        if let Some(Ok(mut room)) = self.room.get().map(Mutex::try_lock)
            && room.write(&self.file, bytes, offset)
        {
            return Ok(bytes.len());
        }
        // A bare system call: libc's own makes each `pwrite` a cancellation point.
        Ok(rustix::io::pwrite(&self.file, bytes, offset)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn written_len(&self) -> io::Result<u64> {
        if !self.lies_on(&KNOWS_HOLES) {
            return self.len();
        }
        // Moves the file's position, which nobody uses: reads and writes say where.
        let mut end = 0;
        loop {
            match seek(&self.file, SeekFrom::Data(end)).and_then(|data| seek(&self.file, SeekFrom::Hole(data))) {
                Ok(hole) if hole > end => end = hole,
                Err(Errno::NXIO) => return Ok(end),
                // It does not know after all.
                _ => return self.len(),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        if len <= before && self.room.get().is_none() {
            return self.file.set_len(len);
        }
        let mut room = self.room.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is mapped any more when bytes go.
        room.resized(len.min(before), None);
        // Zeros that have a place on the device: ext4 finds places for what was written to a hole when it is synced,
        // and keeps whoever writes to the file waiting meanwhile. Not every file system can, nor a full one.
        if len > before {
            if rustix::fs::fallocate(&self.file, FallocateFlags::empty(), before, len - before).is_ok() {
                room.resized(len, Some(before));
            } else {
                self.file.set_len(before)?;
            }
        }
        self.file.set_len(len)
    }

    fn will_fill(&self, range: Range<u64>) {
        if let Some(room) = self.room.get().filter(|_| self.lies_on(&WRITES_IN_PLACE)) {
            room.lock().unwrap_or_else(PoisonError::into_inner).expect(range);
        }
    }

    fn write_back(&self, range: Range<u64>) -> io::Result<()> {
        write_back(&self.file, range)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
