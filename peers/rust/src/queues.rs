//! Queues in Rust: yaque, queue-file and disk-queue, each with what it has for a level.
//!
//! yaque never syncs, and keeps where its reader has come to every 250 entries: that is its `Async`. To keep it for each
//! entry takes it a file and a rename. queue-file writes a header with each entry; a `Sync` is its own `set_sync_writes`. disk-queue writes through
//! mapped memory and syncs nothing: what it acknowledges survives the process because the pages are the kernel's.

use disk_queue::DiskQueue;
use engine::{Durability, SyncPolicy};
use harness::subject::{Contents, End, Fifo, Promise, Session, Site, Subject, SubjectError};
use queue_file::QueueFile;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A queue of somebody else.
pub(crate) struct Queue {
    name: &'static str,
    version: &'static str,
    open: fn(&Site<'_>) -> Result<Box<dyn Line>, SubjectError>,
}

/// The three of them.
pub(crate) const QUEUES: [Queue; 3] = [
    Queue { name: "yaque", version: "0.6.6", open: |site| Yaque::open(site).map(boxed) },
    Queue { name: "queue-file", version: "2.0.0", open: |site| InFile::open(site).map(boxed) },
    Queue { name: "disk-queue", version: "0.1.1", open: |site| Ok(boxed(Mapped::open(site))) },
];

/// One queue, used by one thread at a time.
trait Line: Send {
    fn push(&mut self, values: &[&[u8]], level: Durability) -> Result<(), SubjectError>;
    fn pop(&mut self, level: Durability) -> Result<Option<Vec<u8>>, SubjectError>;
}

fn boxed(line: impl Line + 'static) -> Box<dyn Line> {
    Box::new(line)
}

fn failed(e: impl std::fmt::Display) -> SubjectError {
    SubjectError::Store(e.to_string())
}

impl Subject for Queue {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> String {
        self.version.to_owned()
    }

    fn about(&self) -> String {
        format!("{}, a queue in Rust", self.name)
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        policy == SyncPolicy::Never
    }

    fn promise(&self, _: SyncPolicy, _: Durability) -> Promise {
        Promise::Process
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        Ok(Box::new(LineSession(Mutex::new((self.open)(site)?))))
    }
}

struct LineSession(Mutex<Box<dyn Line>>);

impl LineSession {
    fn line(&self) -> MutexGuard<'_, Box<dyn Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session for LineSession {
    fn sync(&self) -> Result<(), SubjectError> {
        Err(SubjectError::Unsupported("sync of what was written before"))
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        Err(SubjectError::Unsupported("listing without taking out"))
    }

    fn fifo(&self) -> Option<&dyn Fifo> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        Ok(())
    }
}

impl Fifo for LineSession {
    fn push(&self, values: &[&[u8]], end: End, level: Durability) -> Result<u64, SubjectError> {
        match end {
            // They give no indexes.
            End::Back => self.line().push(values, level).map(|()| 0),
            End::Front => Err(SubjectError::Unsupported("front")),
        }
    }

    fn pop(&self, most: usize, level: Durability, look: &mut dyn FnMut(u64, &[u8])) -> Result<usize, SubjectError> {
        let mut line = self.line();
        for taken in 0..most {
            let Some(value) = line.pop(level)? else { return Ok(taken) };
            look(0, &value);
        }
        Ok(most)
    }
}

struct Yaque {
    sender: yaque::Sender,
    receiver: yaque::Receiver,
}

impl Yaque {
    fn open(site: &Site<'_>) -> Result<Self, SubjectError> {
        let (sender, receiver) = yaque::channel(site.dir.join("yaque")).map_err(failed)?;
        Ok(Self { sender, receiver })
    }
}

impl Line for Yaque {
    fn push(&mut self, values: &[&[u8]], level: Durability) -> Result<(), SubjectError> {
        match (level, values) {
            (Durability::Sync, _) => Err(SubjectError::Unsupported("sync")),
            (_, [one]) => self.sender.try_send(one).map_err(|_| failed("the queue is full")),
            (_, many) => self.sender.try_send_batch(many).map_err(|_| failed("the queue is full")),
        }
    }

    fn pop(&mut self, level: Durability) -> Result<Option<Vec<u8>>, SubjectError> {
        if level > Durability::Async {
            return Err(SubjectError::Unsupported("position that is kept for each entry"));
        }
        let value = match self.receiver.try_recv() {
            Ok(guard) => guard.try_into_inner().map_err(failed)?,
            Err(yaque::TryRecvError::QueueEmpty) => return Ok(None),
            Err(yaque::TryRecvError::Io(e)) => return Err(failed(e)),
        };
        Ok(Some(value))
    }
}

struct InFile(QueueFile);

impl InFile {
    fn open(site: &Site<'_>) -> Result<Self, SubjectError> {
        let mut file = QueueFile::open(site.dir.join("queue")).map_err(failed)?;
        file.set_overwrite_on_remove(false);
        Ok(Self(file))
    }
}

impl Line for InFile {
    fn push(&mut self, values: &[&[u8]], level: Durability) -> Result<(), SubjectError> {
        self.0.set_sync_writes(level == Durability::Sync);
        match values {
            [one] => self.0.add(one),
            many => self.0.add_n(many),
        }
        .map_err(failed)
    }

    fn pop(&mut self, level: Durability) -> Result<Option<Vec<u8>>, SubjectError> {
        self.0.set_sync_writes(level == Durability::Sync);
        let value = self.0.peek().map_err(failed)?;
        if value.is_some() {
            self.0.remove().map_err(failed)?;
        }
        Ok(value)
    }
}

struct Mapped(DiskQueue);

impl Mapped {
    fn open(site: &Site<'_>) -> Self {
        Self(DiskQueue::open(&site.dir.join("queue.db").to_string_lossy()))
    }
}

impl Line for Mapped {
    fn push(&mut self, values: &[&[u8]], level: Durability) -> Result<(), SubjectError> {
        if level == Durability::Sync {
            return Err(SubjectError::Unsupported("sync"));
        }
        values.iter().for_each(|value| self.0.enqueue(value.to_vec()));
        Ok(())
    }

    fn pop(&mut self, level: Durability) -> Result<Option<Vec<u8>>, SubjectError> {
        if level == Durability::Sync { Err(SubjectError::Unsupported("sync")) } else { Ok(self.0.dequeue()) }
    }
}
