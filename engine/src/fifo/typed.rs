//! Entries of a type: values of serde as JSON or as compact bytes, on top of the raw bytes of a store.

use super::reader::Entry;
use super::store::{Reader, Store};
use crate::error::{Error, Result};
use crate::sync_policy::Durability;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::ops::Range;

/// How a value becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON: readable, and readers need not know the type.
    #[default]
    Json,
    /// Postcard: a few bytes where JSON takes dozens; readers must know the very type.
    Compact,
}

impl Encoding {
    /// The bytes of a value.
    ///
    /// # Errors
    /// [`Error::Entry`] with the serialiser's words.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Vec<u8>> {
        match self {
            Encoding::Json => serde_json::to_vec(value).map_err(|e| refused(&e)),
            Encoding::Compact => postcard::to_stdvec(value).map_err(|e| refused(&e)),
        }
    }

    /// The value of these bytes, which it must take up wholly.
    ///
    /// # Errors
    /// [`Error::Entry`] with the deserialiser's words.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        match self {
            Encoding::Json => serde_json::from_slice(bytes).map_err(|e| refused(&e)),
            Encoding::Compact => match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(Error::Entry { why: format!("{} bytes are left over", rest.len()) }),
                Err(e) => Err(refused(&e)),
            },
        }
    }
}

fn refused(e: &dyn std::error::Error) -> Error {
    Error::Entry { why: e.to_string() }
}

/// A store as one of values of a type.
#[derive(Debug)]
pub struct Typed<'a, S, T> {
    store: &'a S,
    encoding: Encoding,
    of: PhantomData<fn(T) -> T>,
}

impl Store {
    /// The same store, for values of a type.
    pub fn typed<T>(&self, encoding: Encoding) -> Typed<'_, Store, T> {
        Typed { store: self, encoding, of: PhantomData }
    }
}

impl Reader {
    /// The same entries, as values of a type.
    pub fn typed<T>(&self, encoding: Encoding) -> Typed<'_, Reader, T> {
        Typed { store: self, encoding, of: PhantomData }
    }
}

impl<T: Serialize> Typed<'_, Store, T> {
    /// As [`Store::write_at`].
    ///
    /// # Errors
    /// As there, and [`Error::Entry`].
    pub fn write(&self, value: &T, level: Durability) -> Result<u64> {
        self.store.write_at(&self.encoding.encode(value)?, level)
    }

    /// As [`Store::write_many`]. If one value does not become bytes, none is written.
    pub fn write_many<'v>(&self, values: impl IntoIterator<Item = &'v T>, level: Durability) -> Result<Range<u64>>
    where
        T: 'v,
    {
        let entries = values.into_iter().map(|value| self.encoding.encode(value)).collect::<Result<Vec<_>>>()?;
        self.store.write_many(&entries, level)
    }
}

impl<S: AsRef<Reader>, T: DeserializeOwned> Typed<'_, S, T> {
    /// As [`Reader::read`].
    ///
    /// # Errors
    /// As there, and [`Error::Entry`]; the entry stays where it is.
    pub fn read(&self, index: u64) -> Result<T> {
        self.encoding.decode(&self.store.as_ref().read(index)?)
    }

    /// The oldest entry with its index; it stays where it is.
    pub fn oldest(&self) -> Result<Option<(u64, T)>> {
        self.store.as_ref().oldest()?.map(|entry| self.value(entry)).transpose()
    }

    /// As [`Reader::pop`]; an entry that is of another type stays where it is.
    pub fn pop(&self, level: Durability) -> Result<Option<(u64, T)>> {
        let reader = self.store.as_ref();
        let Some(entry) = reader.hold()? else { return Ok(None) };
        let index = entry.index;
        let taken = self.value(entry).and_then(|value| reader.delete(&[index], level).map(|()| value));
        if taken.is_err() {
            reader.release(index);
        }
        taken.map(Some)
    }

    fn value(&self, entry: Entry) -> Result<(u64, T)> {
        Ok((entry.index, self.encoding.decode(&entry.value)?))
    }
}

impl AsRef<Reader> for Store {
    fn as_ref(&self) -> &Reader {
        self
    }
}

impl AsRef<Reader> for Reader {
    fn as_ref(&self) -> &Reader {
        self
    }
}
