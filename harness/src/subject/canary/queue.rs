//! The engine's FIFO store behind an interface that does something else than it says.

use crate::subject::fifo::Fifo;
use crate::subject::{Contents, End, Fifo as Interface, Session, Site, Subject, SubjectError};
use engine::Durability;
use std::time::Duration;

/// What it does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Acknowledges a dequeue that is still in memory.
    PopEarly,
    /// Acknowledges an enqueue that is still in memory.
    PushEarly,
    /// Puts a batch in entry by entry.
    TornBatch,
    /// Puts at the back what is to go in front.
    FrontAtBack,
    /// Takes out what it should only hand out.
    HoldTakes,
}

pub(super) fn open(site: &Site<'_>, bug: Bug) -> Result<Box<dyn Session>, SubjectError> {
    Ok(Box::new(Queue { inner: Fifo::SMALL.open(site)?, bug }))
}

struct Queue {
    inner: Box<dyn Session>,
    bug: Bug,
}

impl Queue {
    fn fifo(&self) -> Result<&dyn Interface, SubjectError> {
        self.inner.fifo().ok_or(SubjectError::Unsupported("queue"))
    }
}

impl Session for Queue {
    fn sync(&self) -> Result<(), SubjectError> {
        self.inner.sync()
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        self.inner.contents()
    }

    fn shrink(&self) -> Result<bool, SubjectError> {
        self.inner.shrink()
    }

    fn maintain(&self, now: Duration) -> Result<Option<Duration>, SubjectError> {
        self.inner.maintain(now)
    }

    fn fifo(&self) -> Option<&dyn Interface> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        self.inner.close()
    }
}

impl Interface for Queue {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        let end = if self.bug == Bug::FrontAtBack { End::Back } else { end };
        let level = if self.bug == Bug::PushEarly { Durability::Async } else { level };
        if self.bug == Bug::TornBatch && end == End::Back {
            let mut first = None;
            for value in values {
                // Long enough for a kill to fall in between.
                std::thread::sleep(Duration::from_micros(200));
                let index = self.fifo()?.push(&[value], end, level)?;
                first.get_or_insert(index);
            }
            return first.ok_or(SubjectError::Unsupported("empty batch"));
        }
        self.fifo()?.push(values, end, level)
    }

    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        let level = if self.bug == Bug::PopEarly { Durability::Async } else { level };
        self.fifo()?.pop(most, level, look)
    }

    fn hold(&self, look: &mut dyn FnMut(u64, &[u8])) -> Result<bool, SubjectError> {
        if self.bug == Bug::HoldTakes {
            return Ok(self.fifo()?.pop(1, Durability::Write, look)? > 0);
        }
        self.fifo()?.hold(look)
    }

    fn acknowledge(&self, index: u64, level: Durability) -> Result<(), SubjectError> {
        if self.bug == Bug::HoldTakes {
            return Ok(());
        }
        self.fifo()?.acknowledge(index, level)
    }
}
