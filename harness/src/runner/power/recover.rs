//! Opening a crash state: what the store makes of it, once and again, and what its recovery did meanwhile.
//!
//! Panics are caught, so that one bad image does not end the campaign; a store that never ends or eats memory
//! ends its cell, which runs in a process of its own.

use super::record::Opener;
use crate::crash::Trace;
use crate::result::Verdict;
use crate::subject::Contents;
use engine::fs::{Fs, MemFs, TraceFs};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

/// What a store made of a crash state.
pub(crate) struct Recovered {
    /// What it shows, or why it cannot.
    pub(crate) contents: Result<Contents, (Verdict, String)>,
    /// What a second opening finds wrong with the first.
    pub(crate) second: Option<String>,
    /// What opening had to cut off or repair.
    pub(crate) repaired: Option<String>,
    /// The calls of the recovery, if it changed anything.
    pub(crate) recovery: Option<Trace>,
}

/// Opens the store on this disk, reads it, closes it, opens it again.
pub(crate) fn recover(opener: &Opener<'_>, disk: &MemFs) -> Recovered {
    // As they are before the store looks: also which directories there are, so that equal images stay equal.
    let (dirs, files) = (disk.dirs(), disk.image());
    let fs = TraceFs::over(disk);
    let open = |fs: Arc<dyn Fs>| opener.open(fs).map_err(|e| (Verdict::Unopenable, e.to_string()));
    let first = guarded(|| {
        let session = open(Arc::new(fs.clone()))?;
        let entries = fs.recorder().entries();
        let contents = session.contents().map_err(|e| (Verdict::Corrupt, e.to_string()))?;
        Ok((contents, session.repaired(), entries, session))
    });
    let (contents, repaired, entries, session) = match first {
        Ok(opened) => opened,
        Err(why) => return Recovered { contents: Err(why), second: None, repaired: None, recovery: None },
    };
    let changed = entries.iter().any(|e| e.ok && e.op.changes());
    let recovery = changed.then(|| Trace::new(dirs, files, entries));
    let again = guarded(|| {
        session.close().map_err(|e| (Verdict::Corrupt, format!("closing after recovery: {e}")))?;
        let session = open(Arc::new(disk.clone()))?;
        session.contents().map_err(|e| (Verdict::Corrupt, e.to_string()))
    });
    let second = match again {
        Ok(found) if found == contents => None,
        Ok(_) => Some("a second opening finds something else".to_owned()),
        Err((_, words)) => Some(format!("a second opening fails: {words}")),
    };
    Recovered { contents: Ok(contents), second, repaired, recovery }
}

/// Calls something that may panic.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, (Verdict, String)>) -> Result<T, (Verdict, String)> {
    quiet_panics();
    GUARDED.with(|g| g.set(true));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.with(|g| g.set(false));
    result.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err((Verdict::Unopenable, format!("it panicked: {}", words.unwrap_or_default())))
    })
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics that are caught here off the terminal; all others are told as ever.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.with(Cell::get) {
                usual(info);
            }
        }));
    });
}
