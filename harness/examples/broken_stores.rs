//! What the harness does when a store fails: each of these is a store with one flaw, or with none in the
//! place where one is needed.
//!
//! ```console
//! $ cargo run --release --example broken_stores -- run harness/examples/broken_stores.toml --subject forgets
//! ```
//!
//! `forgets` acknowledges what it never writes, `moody` opens once, `slow` does not end opening, `silent`
//! shows less at each opening; all end with exit code 4. `innocent` is a canary without a flaw: a run that
//! has it among its subjects cannot convict it, and ends with 1.

use engine::{Durability, SyncPolicy};
use harness::result::Role;
use harness::subject::{Change, Contents, Promise, Session, Site, Subject, SubjectError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "toy_store.rs"]
#[allow(dead_code, reason = "its main is the other example's")]
mod toy_store;

use toy_store::Toy;

fn main() -> std::process::ExitCode {
    use Flaw::{Forgets, Innocent, Moody, Silent, Slow};
    harness::main_with([Forgets, Moody, Slow, Silent, Innocent].map(|flaw| Arc::new(Flawed(flaw)) as Arc<dyn Subject>).into())
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    Forgets,
    Moody,
    Slow,
    Silent,
    Innocent,
}

/// The toy store with a flaw.
struct Flawed(Flaw);

struct Opened {
    inner: Box<dyn Session>,
    flaw: Flaw,
    calls: AtomicU64,
}

impl Subject for Flawed {
    fn name(&self) -> &str {
        match self.0 {
            Flaw::Forgets => "forgets",
            Flaw::Moody => "moody",
            Flaw::Slow => "slow",
            Flaw::Silent => "silent",
            Flaw::Innocent => "innocent",
        }
    }

    fn version(&self) -> String {
        Toy.version()
    }

    fn about(&self) -> String {
        let flaw = match self.0 {
            Flaw::Forgets => "acknowledges every tenth call without writing it",
            Flaw::Moody => "does not open a store that exists",
            Flaw::Slow => "does not end opening a store that exists",
            Flaw::Silent => "shows less at each opening",
            Flaw::Innocent => "a canary that is not broken",
        };
        flaw.to_owned()
    }

    fn role(&self) -> Role {
        if self.0 == Flaw::Innocent { Role::Canary } else { Role::Store }
    }

    fn supports(&self, policy: SyncPolicy) -> bool {
        Toy.supports(policy)
    }

    fn promise(&self, policy: SyncPolicy, level: Durability) -> Promise {
        Toy.promise(policy, level)
    }

    fn open(&self, site: &Site<'_>) -> Result<Box<dyn Session>, SubjectError> {
        let exists = site.fs.open(&site.dir.join("toy.log")).is_ok();
        match self.0 {
            Flaw::Moody if exists => return Err(SubjectError::Store("not today".to_owned())),
            Flaw::Slow if exists => loop {
                std::thread::park();
            },
            _ => {}
        }
        Ok(Box::new(Opened { inner: Toy.open(site)?, flaw: self.0, calls: AtomicU64::new(0) }))
    }
}

impl Session for Opened {
    fn apply(&self, change: Change<'_>, level: Durability) -> Result<(), SubjectError> {
        self.batch(&[change], level)
    }

    fn batch(&self, changes: &[Change<'_>], level: Durability) -> Result<(), SubjectError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.flaw == Flaw::Forgets && number.is_multiple_of(10) { Ok(()) } else { self.inner.batch(changes, level) }
    }

    fn get(&self, table: usize, key: &str, look: &mut dyn FnMut(&str)) -> Result<bool, SubjectError> {
        self.inner.get(table, key, look)
    }

    fn sync(&self) -> Result<(), SubjectError> {
        self.inner.sync()
    }

    fn contents(&self) -> Result<Contents, SubjectError> {
        let contents = self.inner.contents()?;
        let first = contents.iter().enumerate().find_map(|(table, keys)| Some((table, keys.keys().next()?.clone())));
        if let (Flaw::Silent, Some((table, key))) = (self.flaw, first) {
            self.inner.apply(Change { table, key: &key, value: None }, Durability::Write)?;
        }
        Ok(contents)
    }

    fn close(self: Box<Self>) -> Result<(), SubjectError> {
        self.inner.close()
    }
}
