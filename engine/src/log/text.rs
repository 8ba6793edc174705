//! The readable framing. The grammar with a worked example stands in `docs/typed_log.md`.
//!
//! ```text
//! record    = checked | unchecked | blank line
//! checked   = kind "=" crc8 [ "@" distance ] " " body        crc8 over kind, body, "@" distance
//! unchecked = kind " " body                                  written by hand
//! body of S = key LF json LF
//! body of D = key LF
//! body of B = count LF, then count times: "s " key LF json LF | "d " key LF
//! body of M = "synced" LF                                    only checked
//! ```
//!
//! **Invariant:** no change of one byte turns a checked record into an accepted unchecked one: an
//! unchecked key may not look like a token, `=` and ` ` are the only second bytes, and the lines of a
//! batch (`s`, `d`) mean nothing outside one.

use super::{Damage, Frame, Parsed};
use crate::codec::{crc32c, crc32c_append, hex8, parse_hex, push_hex};
use std::ops::Range;

pub(super) fn encode(out: &mut Vec<u8>, kind: u8, body: &[u8], crc: u32, mark: Option<u64>) {
    out.extend_from_slice(&[kind, b'=']);
    let token = out.len();
    out.extend_from_slice(&[0; 8]);
    if let Some(distance) = mark {
        out.push(b'@');
        push_hex(out, distance);
    }
    let crc = crc32c_append(crc, &out[token + 8..]);
    out[token..token + 8].copy_from_slice(&hex8(crc));
    out.push(b' ');
    out.extend_from_slice(body);
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = line(bytes, 0) else {
        return Parsed::Incomplete;
    };
    match bytes[header.clone()] {
        [] => Parsed::Record(Frame { kind: b'\n', body: 0..0, mark: None, checked: false, len: 1 }),
        [kind @ (b'S' | b'D' | b'B' | b'M'), b'=', ..] => parse_checked(bytes, kind),
        [kind @ (b'S' | b'D' | b'B'), b' ', ..] => parse_unchecked(bytes, kind),
        _ => Parsed::Damaged(Damage::new(format!("a line that starts with {:?}", excerpt(&bytes[header])))),
    }
}

/// go-persist has no checksums, lets keys be anything, and ends a delete with an empty line.
pub(super) fn parse_go_persist(bytes: &[u8]) -> Parsed {
    let Some(header) = line(bytes, 0) else {
        return Parsed::Incomplete;
    };
    match bytes[header.clone()] {
        [] => Parsed::Record(Frame { kind: b'\n', body: 0..0, mark: None, checked: false, len: 1 }),
        [kind @ (b'S' | b'D'), b' ', ..] => match extent(bytes, kind, 2) {
            Extent::Ends(end) => unchecked_frame(bytes, kind, end),
            Extent::Incomplete => Parsed::Incomplete,
            Extent::Damaged(damage) => Parsed::Damaged(damage),
        },
        _ => Parsed::Damaged(Damage::new(format!("a line that starts with {:?}", excerpt(&bytes[header])))),
    }
}

fn parse_checked(bytes: &[u8], kind: u8) -> Parsed {
    // A token is at most 8 + 1 + 16 digits; beyond that it is not one, whatever follows.
    let head = &bytes[2..bytes.len().min(2 + 8 + 1 + 16 + 1)];
    let Some(space) = head.iter().position(|&b| b == b' ') else {
        return Parsed::Damaged(Damage::new("a checksum that does not end"));
    };
    let token = &head[..space];
    let Some((crc, mark)) = parse_token(token) else {
        return Parsed::Damaged(Damage::new(format!("a checksum that reads {:?}", excerpt(token))));
    };
    let start = 2 + space + 1;
    let end = match extent(bytes, kind, start) {
        Extent::Ends(end) => end,
        Extent::Incomplete => return Parsed::Incomplete,
        Extent::Damaged(damage) => return Parsed::Damaged(damage),
    };
    let body = &bytes[start..end];
    if crc32c_append(crc32c_append(crc32c(&[kind]), body), &token[8..]) != crc {
        // Well-formed text under a checksum that disagrees is somebody's edit, if it stands among other lines: a
        // crash leaves zeros, nothing, or garbage in place of bytes. Garbage may begin and end a line by chance, but
        // not the next one too. Nobody edits a mark.
        let what = format!("the record of {:?} does not match its checksum", key_of(kind, body));
        let among_lines = matches!(bytes[end..], [] | [b'\n', ..] | [b'S' | b'D' | b'B' | b'M', b'=' | b' ', ..]);
        let is_text = std::str::from_utf8(body).is_ok() && !body.contains(&0);
        let edit = kind != b'M' && is_text && among_lines && well_formed(kind, body);
        let edited = edit.then(|| format!("={}", String::from_utf8_lossy(token)));
        return Parsed::Damaged(Damage { what, edited });
    }
    Parsed::Record(Frame { kind, body: start..end, mark, checked: true, len: end })
}

fn parse_unchecked(bytes: &[u8], kind: u8) -> Parsed {
    let end = match extent(bytes, kind, 2) {
        Extent::Ends(end) => end,
        Extent::Incomplete => return Parsed::Incomplete,
        Extent::Damaged(damage) => return Parsed::Damaged(damage),
    };
    if is_token_like(&bytes[2..end]) {
        return Parsed::Damaged(Damage::new(
            "a line whose key looks like a checksum: a checked record that lost its \"=\", or a key that cannot be written by hand",
        ));
    }
    unchecked_frame(bytes, kind, end)
}

fn unchecked_frame(bytes: &[u8], kind: u8, end: usize) -> Parsed {
    if !well_formed(kind, &bytes[2..end]) {
        let key = key_of(kind, &bytes[2..end]);
        return Parsed::Damaged(Damage::new(format!(
            "the record of {key:?}, written without a checksum, holds a value that is not JSON or a key that is not UTF-8"
        )));
    }
    Parsed::Record(Frame { kind, body: 2..end, mark: None, checked: false, len: end })
}

/// Whether a line's key could be a damaged checksum: eight hexadecimal digits, then a space or a mark.
fn is_token_like(key: &[u8]) -> bool {
    key.len() > 8 && parse_hex(&key[..8]).is_some() && matches!(key[8], b' ' | b'@')
}

/// Whether bytes are one JSON value.
fn validate_json(json: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}

fn parse_token(token: &[u8]) -> Option<(u32, Option<u64>)> {
    let crc = parse_hex(token.get(..8)?)? as u32;
    match &token[8..] {
        [] => Some((crc, None)),
        [b'@'] => Some((crc, Some(0))),
        [b'@', distance @ ..] => Some((crc, Some(parse_hex(distance)?))),
        _ => None,
    }
}

enum Extent {
    Ends(usize),
    Incomplete,
    Damaged(Damage),
}

/// Where a body of this kind that starts at `start` ends.
fn extent(bytes: &[u8], kind: u8, start: usize) -> Extent {
    let lines = |from: usize, count: usize| (0..count).try_fold(from, |at, _| line(bytes, at).map(|l| l.end + 1));
    let end = match kind {
        b'S' => lines(start, 2),
        b'D' | b'M' => lines(start, 1),
        _ => {
            let Some(first) = line(bytes, start) else {
                return Extent::Incomplete;
            };
            let digits = &bytes[first.clone()];
            let count = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let Some(count) = count.and_then(|d| d.parse::<u32>().ok()) else {
                return Extent::Damaged(Damage::new(format!("a batch of {:?} changes", excerpt(digits))));
            };
            let mut at = first.end + 1;
            for _ in 0..count {
                let Some(prefix) = bytes.get(at..at + 2) else {
                    return Extent::Incomplete;
                };
                let size = match prefix {
                    b"s " => 2,
                    b"d " => 1,
                    _ => {
                        return Extent::Damaged(Damage::new("a batch whose changes are neither \"s\" nor \"d\""));
                    }
                };
                match lines(at, size) {
                    Some(end) => at = end,
                    None => return Extent::Incomplete,
                }
            }
            Some(at)
        }
    };
    end.map_or(Extent::Incomplete, Extent::Ends)
}

/// The line at `from`, without its newline. `None` when it does not end.
fn line(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let rest = bytes.get(from..)?;
    memchr_newline(rest).map(|n| from..from + n)
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    // serde_json already brings `memchr` in.
    memchr::memchr(b'\n', bytes)
}

/// The changes that a body of kind S, D or B stands for, in order: key, and JSON or `None` for a delete.
pub(crate) fn changes(kind: u8, body: &[u8]) -> Changes<'_> {
    match kind {
        b'S' => Changes { rest: body, lower: false, left: 1, kind },
        b'D' => Changes { rest: body, lower: false, left: 1, kind },
        b'B' => {
            let first = memchr_newline(body).unwrap_or(0);
            let count = std::str::from_utf8(&body[..first]).ok().and_then(|d| d.parse().ok()).unwrap_or(0);
            Changes { rest: body.get(first + 1..).unwrap_or_default(), lower: true, left: count, kind }
        }
        _ => Changes { rest: &[], lower: false, left: 0, kind },
    }
}

pub(crate) struct Changes<'a> {
    rest: &'a [u8],
    lower: bool,
    left: u32,
    kind: u8,
}

impl<'a> Iterator for Changes<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut kind = self.kind;
        if self.lower {
            kind = self.rest.first()?.to_ascii_uppercase();
            self.rest = self.rest.get(2..)?;
        }
        let end = memchr_newline(self.rest)?;
        let (key, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        if kind != b'S' {
            self.rest = rest;
            return Some((key, None));
        }
        let end = memchr_newline(rest)?;
        self.rest = &rest[end + 1..];
        Some((key, Some(&rest[..end])))
    }
}

fn well_formed(kind: u8, body: &[u8]) -> bool {
    kind == b'M' || changes(kind, body).all(|(key, json)| std::str::from_utf8(key).is_ok() && json.is_none_or(validate_json))
}

fn key_of(kind: u8, body: &[u8]) -> String {
    match kind {
        b'B' => "a batch".to_owned(),
        b'M' => "a mark".to_owned(),
        _ => excerpt(&body[..memchr_newline(body).unwrap_or(body.len())]),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(40)];
    String::from_utf8_lossy(cut).into_owned()
}
