//! Keys and map names: which are allowed, and how the two become one key of the log.
//!
//! In the log a key of map `m` is `m:key`; the store's own keys stand alone. So a map name may not
//! contain a colon, nor may the store's own keys; keys in maps may. Control characters would break
//! lines or hide in an editor.

use crate::error::{Error, Result};

pub(super) fn check_map(name: &str) -> Result<()> {
    let refuse = |why| Err(Error::InvalidName { name: name.to_owned(), why });
    if name.contains(':') {
        return refuse("a colon separates a map's name from its keys");
    }
    if has_control(name) {
        return refuse("control characters would break the lines of the file");
    }
    Ok(())
}

pub(super) fn check_key(key: &str) -> Result<()> {
    if has_control(key) {
        return Err(Error::InvalidKey { key: key.to_owned(), why: "control characters would break the lines of the file" });
    }
    Ok(())
}

/// The store's own keys.
pub(super) fn check_own_key(key: &str) -> Result<()> {
    let refuse = |why| Err(Error::InvalidKey { key: key.to_owned(), why });
    if key.is_empty() {
        return refuse("a key of the store itself cannot be empty");
    }
    if key.contains(':') {
        return refuse("a colon would make it a key of a map");
    }
    check_key(key)
}

fn has_control(text: &str) -> bool {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    !plain && text.chars().any(char::is_control)
}

/// Splits a key of the log into map and key; `None` for the store's own keys. The first colon decides.
pub(super) fn split(key: &str) -> (Option<&str>, &str) {
    match key.split_once(':') {
        Some((map, key)) => (Some(map), key),
        None => (None, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_alias_or_break_lines_is_refused() {
        for name in ["a:b", ":", "a\n", "a\r", "\u{7f}", "\u{85}"] {
            assert!(check_map(name).is_err(), "{name:?}");
        }
        for key in ["users:john", "", "a\tb"] {
            assert!(check_own_key(key).is_err(), "{key:?}");
        }
        for key in ["", "b:x", "with space", "grüße", "c0ffee12 key", " "] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
        assert_eq!(split("a:b:x"), (Some("a"), "b:x"));
        assert_eq!(split("plain"), (None, "plain"));
    }
}
