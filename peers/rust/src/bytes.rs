//! Any store of ordered bytes as a session: tables are prefixes of keys.

use engine::Durability;
use harness::subject::{Change, Contents, Ordered, Session, SubjectError, Table};
use std::collections::BTreeMap;

/// What a store of bytes has to offer besides [`Ordered`].
pub(crate) trait Bytes: Ordered {
    /// Makes changes that happen together or not at all; `None` deletes.
    fn change(&self, changes: &[(Vec<u8>, Option<&str>)], level: Durability) -> Result<(), SubjectError>;

    /// Makes everything durable.
    fn sync(&self) -> Result<(), SubjectError>;
}

/// A session of such a store.
pub(crate) struct ByteSession<S> {
    store: S,
    prefixes: Vec<String>,
}

impl<S: Bytes> ByteSession<S> {
    pub(crate) fn new(store: S, tables: &[Table]) -> Self {
        Self { store, prefixes: tables.iter().map(|table| format!("{}/", table.name)).collect() }
    }

    fn key(&self, table: usize, key: &str) -> Vec<u8> {
        [self.prefixes[table].as_bytes(), key.as_bytes()].concat()
    }
}

impl<S: Bytes> Session for ByteSession<S> {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        let key = self.key(change.table, change.key);
        match change.value {
            Some(value) => self.store.put(&key, value.as_bytes(), level),
            None => self.store.delete(&key, level),
        }
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let changes: Vec<_> = changes.iter().map(|c| (self.key(c.table, c.key), c.value)).collect();
        self.store.change(&changes, level)
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        self.store.get(&self.key(table, key), &mut |value| {
            if let Ok(text) = std::str::from_utf8(value) {
                look(text);
            }
        })
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.store.sync()
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let mut contents: Contents = vec![BTreeMap::new(); self.prefixes.len()];
        let mut strange = None;
        self.store.scan(b"", usize::MAX, false, &mut |key, value| {
            let found = self.prefixes.iter().position(|prefix| key.starts_with(prefix.as_bytes()));
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
            match found.and_then(|table| Some((table, text(&key[self.prefixes[table].len()..])?, text(value)?))) {
                Some((table, key, value)) => drop(contents[table].insert(key, value)),
                None => strange = Some(String::from_utf8_lossy(key).into_owned()),
            }
        })?;
        match strange {
            None => Ok(contents),
            Some(key) => Err(SubjectError::Store(format!("key {key:?} was never written"))),
        }
    }

    fn ordered(&self) -> Option<&dyn Ordered> {
        Some(&self.store)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        self.store.sync()
    }
}
