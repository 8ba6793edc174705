//! A queue on top of a store: a capacity, waiting, delivery once at most or once at least, and memory first if wanted.
//!
//! A queue that is *durable* writes every item to the store. One that is *memory first* writes only what does not fit
//! into memory, and what is left at [`Queue::close`]: a crash takes what is in memory. Either way the order is kept:
//! when memory is full all of it goes to the store, which is emptied first.

use super::options::Options;
use super::reader::Entry;
use super::store::Store;
use super::writer::lock;
use crate::error::{Error, Result};
use crate::sync_policy::Durability;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// How a queue behaves.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Items that it holds at most; at least 1. Default: no limit but the store's.
    pub capacity: u64,
    /// Where items are before they are in the store.
    pub placement: Placement,
    /// How often an item is delivered.
    pub delivery: Delivery,
    /// How durable an item is when it is in, and how surely it is gone when it is out. At-most-once and at-least-once
    /// hold as far as this goes: an item whose dequeue was only `Async` may come again after SIGKILL, one whose dequeue
    /// was `Write` after power loss. Default: `Write`.
    pub level: Durability,
    /// The store beneath.
    pub store: Options,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            capacity: u64::MAX,
            placement: Placement::Durable,
            delivery: Delivery::AtMostOnce,
            level: Durability::Write,
            store: Options::default(),
        }
    }
}

/// Where items are before they are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Nowhere: every item is in the store when it is in.
    Durable,
    /// In memory, so many at most; the store takes what does not fit.
    Memory(usize),
}

/// How often an item is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is gone before the consumer sees it: a consumer that dies with it has lost it.
    AtMostOnce,
    /// It is gone when [`Queue::acknowledge`] says so: a consumer that dies with it leaves it to the next. Needs a
    /// durable queue.
    AtLeastOnce,
}

/// An item of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What the store calls it; `None` for one that never was in the store.
    pub index: Option<u64>,
    /// What was put in.
    pub value: Vec<u8>,
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self { index: Some(entry.index), value: entry.value }
    }
}

/// A queue. All methods may be called from many threads.
#[derive(Debug)]
pub struct Queue {
    store: Store,
    options: QueueOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    memory: VecDeque<Vec<u8>>,
    capacity: u64,
    /// Items in the store.
    stored: u64,
}

impl Queue {
    /// Opens or creates the queue in the directory `dir`.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Option`].
    pub fn open(dir: impl AsRef<Path>, options: QueueOptions) -> Result<Self> {
        let refuse = |option, value: String, why| Err(Error::Option { option, value, why });
        if options.capacity == 0 {
            return refuse("capacity", "0".to_owned(), "a queue holds at least one item");
        }
        match (options.placement, options.delivery) {
            (Placement::Memory(0), _) => {
                return refuse("placement", "Memory(0)".to_owned(), "memory takes at least one item; use Durable for none");
            }
            (Placement::Memory(_), Delivery::AtLeastOnce) => {
                let why = "what is only in memory cannot come again after a crash; use a durable queue";
                return refuse("delivery", "AtLeastOnce".to_owned(), why);
            }
            _ => {}
        }
        let store = Store::open(dir, options.store.clone())?;
        let state = State { memory: VecDeque::new(), capacity: options.capacity, stored: store.len()? };
        Ok(Self { store, options, state: Mutex::new(state) })
    }

    /// Puts an item behind all others; `false` if the queue is full, and then nothing was changed.
    ///
    /// # Errors
    /// As [`Store::write_at`].
    pub fn enqueue(&self, value: &[u8]) -> Result<bool> {
        self.put(&[value], false).map(|put| put == 1)
    }

    /// Puts in as many items, in their order, as there is room for; how many those are.
    pub fn enqueue_many<E: AsRef<[u8]>>(&self, values: &[E]) -> Result<usize> {
        self.put(values, false)
    }

    /// Puts an item in front of all others; `false` if the queue is full.
    pub fn enqueue_in_front(&self, value: &[u8]) -> Result<bool> {
        self.put(&[value], true).map(|put| put == 1)
    }

    /// Puts an item behind all others, and takes out as many of the oldest as it must to make room; those.
    pub fn enqueue_lossy(&self, value: &[u8]) -> Result<Vec<Item>> {
        let mut lost = Vec::new();
        // Others may take the room that was made.
        while !self.enqueue(value)? {
            lost.extend(self.dequeue_now()?);
        }
        Ok(lost)
    }

    fn put<E: AsRef<[u8]>>(&self, values: &[E], front: bool) -> Result<usize> {
        let mut state = lock(&self.state);
        let room = state.capacity.saturating_sub(state.stored + state.memory.len() as u64);
        let values = &values[..values.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if values.is_empty() {
            return Ok(0);
        }
        let level = self.options.level;
        let store = || if front { self.store.write_in_front(values, level) } else { self.store.write_many(values, level) };
        let Placement::Memory(most) = self.options.placement else {
            state.stored += values.len() as u64;
            drop(state);
            // Out of the lock: many producers share one sync.
            return match store() {
                Ok(_) => Ok(values.len()),
                Err(e) => {
                    lock(&self.state).stored -= values.len() as u64;
                    Err(e)
                }
            };
        };
        let fits = state.memory.len() + values.len() <= most && !(front && state.stored > 0);
        if !fits {
            self.spill(&mut state)?;
        }
        if !fits && (front || values.len() > most) {
            store()?;
            state.stored += values.len() as u64;
            return Ok(values.len());
        }
        let values = || values.iter().map(|value| value.as_ref().to_vec());
        if front {
            values().rev().for_each(|value| state.memory.push_front(value));
        } else {
            state.memory.extend(values());
        }
        drop(state);
        self.store.news().ring();
        Ok(values().count())
    }

    /// Moves what is in memory to the store, in parts that a file surely holds.
    fn spill(&self, state: &mut State) -> Result<()> {
        let most = self.options.store.max_file_size / 2;
        while !state.memory.is_empty() {
            let mut bytes = 0;
            let fits = |value: &&Vec<u8>| {
                bytes += value.len() as u64 + 16;
                bytes <= most
            };
            let part = state.memory.iter().take_while(fits).count().max(1);
            self.store.write_many(&state.memory.make_contiguous()[..part], self.options.level)?;
            state.memory.drain(..part);
            state.stored += part as u64;
        }
        Ok(())
    }

    /// Takes out the oldest item, or hands it out under at-least-once; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Full`], [`Error::Poisoned`].
    pub fn dequeue(&self) -> Result<Option<Item>> {
        match self.options.delivery {
            Delivery::AtMostOnce => self.dequeue_now(),
            Delivery::AtLeastOnce => Ok(self.store.hold()?.map(Item::from)),
        }
    }

    /// Takes out so many of the oldest items at most.
    pub fn dequeue_many(&self, most: usize) -> Result<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        if (self.options.placement, self.options.delivery) == (Placement::Durable, Delivery::AtMostOnce) {
            items.extend(self.store.pop_many(most, self.options.level)?.into_iter().map(Item::from));
            lock(&self.state).stored -= items.len() as u64;
            self.store.news().ring();
            return Ok(items);
        }
        while items.len() < most
            && let Some(item) = self.dequeue()?
        {
            items.push(item);
        }
        Ok(items)
    }

    fn dequeue_now(&self) -> Result<Option<Item>> {
        let taken = match self.options.placement {
            // Out of the lock: consumers share one sync.
            Placement::Durable => {
                let taken = self.store.pop(self.options.level)?;
                lock(&self.state).stored -= u64::from(taken.is_some());
                taken.map(Item::from)
            }
            Placement::Memory(_) => {
                let mut state = lock(&self.state);
                let stored = if state.stored > 0 { self.store.pop(self.options.level)? } else { None };
                state.stored -= u64::from(stored.is_some());
                stored.map(Item::from).or_else(|| state.memory.pop_front().map(|value| Item { index: None, value }))
            }
        };
        if taken.is_some() {
            self.store.news().ring();
        }
        Ok(taken)
    }

    /// Says that a delivered item is done with: it never comes again, as far as the queue's level goes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was acknowledged before.
    pub fn acknowledge(&self, index: u64) -> Result<()> {
        self.store.delete(&[index], self.options.level)?;
        lock(&self.state).stored -= 1;
        self.store.news().ring();
        Ok(())
    }

    /// Gives a delivered item back: it is the next to be delivered; whether it was out.
    pub fn give_back(&self, index: u64) -> bool {
        self.store.release(index)
    }

    /// The oldest item, which stays where it is.
    pub fn peek(&self) -> Result<Option<Item>> {
        let oldest = self.store.oldest()?.map(Item::from);
        Ok(oldest.or_else(|| lock(&self.state).memory.front().map(|value| Item { index: None, value: value.clone() })))
    }

    /// Takes out everything; in order.
    pub fn flush(&self) -> Result<Vec<Item>> {
        let mut all = Vec::new();
        while let Some(item) = self.dequeue_now()? {
            all.push(item);
        }
        Ok(all)
    }

    /// How many items there are, those among them that are handed out.
    pub fn len(&self) -> u64 {
        let state = lock(&self.state);
        state.stored + state.memory.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items it holds at most.
    pub fn capacity(&self) -> u64 {
        lock(&self.state).capacity
    }

    /// Changes the capacity; at least 1. Items beyond it stay, and none comes in until they are out.
    pub fn resize(&self, capacity: u64) {
        lock(&self.state).capacity = capacity.max(1);
        self.store.news().ring();
    }

    /// Waits until there is something to take out, but no longer than `patience`; whether there is.
    pub fn wait_for_item(&self, patience: Duration) -> Result<bool> {
        self.wait(patience, || Ok(self.peek()?.is_some()))
    }

    /// Waits until there is room for another item, but no longer than `patience`; whether there is.
    pub fn wait_for_room(&self, patience: Duration) -> Result<bool> {
        self.wait(patience, || Ok(self.len() < self.capacity()))
    }

    fn wait(&self, patience: Duration, met: impl Fn() -> Result<bool>) -> Result<bool> {
        let bell = self.store.news();
        let mut seen = bell.count();
        // The bell also rings for others; only silence ends the waiting.
        while !met()? {
            let count = bell.wait(seen, patience);
            if count == seen {
                return met();
            }
            seen = count;
        }
        Ok(true)
    }

    /// The store beneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts what is in memory into the store and closes it.
    pub fn close(self) -> Result<()> {
        let written = self.spill(&mut lock(&self.state));
        written.and(self.store.close())
    }
}
