//! Saving and loading results. A file is written whole under another name and renamed, so nobody ever
//! reads half of one.

use super::{Results, SCHEMA_VERSION};
use serde::Deserialize;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a result could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the result {}: {source}; name a folder that `harness run` wrote, or its result.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is not a result.
    #[error("{} is not a result of this harness: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// It was written by another version.
    #[error("{} has schema version {found}, this harness reads version {SCHEMA_VERSION}; render it with the harness that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

/// Writes `results` to `path` so that a reader sees the old file or the new one.
pub fn save(results: &Results, path: &Path) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(results).map_err(io::Error::other)?;
    json.push(b'\n');
    let draft = path.with_extension("json.part");
    let written = fs::File::create(&draft).and_then(|mut file| file.write_all(&json).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Reads the result in `path`, a run's folder or its `result.json`.
pub fn load(path: &Path) -> Result<Results, LoadError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    let path = if path.is_dir() { path.join("result.json") } else { path.to_owned() };
    let text = fs::read_to_string(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
    let format = |e: serde_json::Error| LoadError::Format { path: path.clone(), why: e.to_string() };
    let version: Versioned = serde_json::from_str(&text).map_err(format)?;
    if version.schema_version != u64::from(SCHEMA_VERSION) {
        return Err(LoadError::Version { path, found: version.schema_version });
    }
    serde_json::from_str(&text).map_err(format)
}
