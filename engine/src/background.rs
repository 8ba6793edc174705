//! The only file that starts threads and reads the clock.
//!
//! A core says what is due at a given time; a worker calls it when the time has come. Tests and
//! simulations leave the workers out and make the same calls by hand.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Niceness at which Linux gives a thread about a tenth of what one at 0 gets (see sched(7)).
const BEHIND: i32 = 10;

/// Threads that call a task whenever it says it is due next. Dropping this stops and joins them.
#[derive(Debug)]
pub struct Workers {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
    start: Instant,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// Wakes workers before their time. Clones ring the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Rings>);

#[derive(Debug, Default)]
struct Rings {
    count: AtomicU64,
    waiting: AtomicUsize,
    turn: Mutex<()>,
    changed: Condvar,
}

impl Bell {
    /// Tells all who wait, and those who begin to wait with an earlier count.
    pub fn ring(&self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        // To wake costs a system call even if nobody sleeps. Who begins to wait says so before he looks at the count.
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.turn());
            self.0.changed.notify_all();
        }
    }

    /// How often it rang.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Waits until it has rung more than `seen` times, but no longer than `patience`; how often it rang.
    pub fn wait(&self, seen: u64, patience: Duration) -> u64 {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.0.changed.wait_timeout_while(self.turn(), patience, |()| self.count() <= seen));
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.count()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// No workers yet; their clock starts now.
    #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
    pub fn new() -> Self {
        Self { stop: Arc::default(), threads: Vec::new(), start: Instant::now() }
    }

    /// Starts a thread that calls `task` with the time since the workers were made. The task answers
    /// when it wants to be called next, or `None` to end.
    pub fn start(&mut self, task: impl FnMut(Duration) -> Option<Duration> + Send + 'static) {
        self.start_at(0, task);
    }

    /// As [`Workers::start`], for work that nobody waits for: when all processors are wanted, the thread gets a tenth of what
    /// others get.
    pub fn start_behind(&mut self, task: impl FnMut(Duration) -> Option<Duration> + Send + 'static) {
        self.start_at(BEHIND, task);
    }

    #[expect(clippy::disallowed_methods, reason = "this file is where threads start")]
    fn start_at(&mut self, niceness: i32, mut task: impl FnMut(Duration) -> Option<Duration> + Send + 'static) {
        let (stop, start) = (Arc::clone(&self.stop), self.start);
        self.threads.push(thread::spawn(move || {
            if niceness > 0 {
                // Linux has it by thread. Where it is refused, the thread runs like all others.
                let _ = rustix::process::nice(niceness);
            }
            let mut next = Duration::ZERO;
            while stop.sleep_until(start, next) {
                match task(start.elapsed()) {
                    Some(time) => next = time,
                    None => break,
                }
            }
        }));
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// False when told to stop.
    fn sleep_until(&self, start: Instant, time: Duration) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return true;
            }
            stopped = self.changed.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A worker may itself be the last user of the store and drop it.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Runs the parts of a job on as many threads as there are processors and returns their results in order.
pub fn in_parallel<T: Send, R: Send>(parts: Vec<T>, job: impl Fn(T) -> R + Sync) -> Vec<R> {
    if parts.len() < 2 {
        // A thread costs more than a small part takes.
        return parts.into_iter().map(job).collect();
    }
    thread::scope(|scope| {
        let job = &job;
        let running: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || job(part))).collect();
        running.into_iter().map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Seconds since 1970, for values that expire.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Lets a thread rest.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// How many threads are worth having.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn work_that_nobody_waits_for_gets_less_of_the_processors() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let here = niceness();
        let (tell, told) = mpsc::channel();
        let mut workers = Workers::new();
        let task = move |_| {
            tell.send(niceness()).unwrap();
            None
        };
        workers.start(task.clone());
        assert_eq!(told.recv().unwrap(), here);
        workers.start_behind(task);
        assert_eq!(told.recv().unwrap(), (here + BEHIND).min(19));
        assert_eq!(niceness(), here, "of the thread alone");
    }
}
