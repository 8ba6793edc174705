//! The subjects of this build, by name.

use super::{Subject, baseline, canary, durostore, fifo, lsm, typed};
use std::sync::Arc;

/// Every subject that this binary has.
#[derive(Clone)]
pub struct Registry {
    subjects: Vec<Arc<dyn Subject>>,
}

/// A name that no subject has.
#[derive(Debug, thiserror::Error)]
#[error("there is no subject {name:?}{hint}; `harness list subjects` shows all")]
pub struct UnknownSubject {
    name: String,
    hint: String,
}

impl Registry {
    /// The bundled subjects and those of the caller, which win where names meet.
    pub fn new(own: Vec<Arc<dyn Subject>>) -> Self {
        let mut subjects: Vec<Arc<dyn Subject>> =
            vec![Arc::new(typed::Typed), Arc::new(lsm::Lsm::DEFAULT), Arc::new(lsm::Lsm::LZ4), Arc::new(lsm::Lsm::SMALL)];
        subjects.extend([fifo::Fifo::DEFAULT, fifo::Fifo::SMALL].map(|fifo| Arc::new(fifo) as Arc<dyn Subject>));
        subjects.extend(baseline::all());
        subjects.push(Arc::new(durostore::Durostore));
        subjects.extend(canary::controls());
        subjects.extend(canary::all());
        subjects.retain(|bundled| own.iter().all(|s| s.name() != bundled.name()));
        subjects.extend(own);
        Self { subjects }
    }

    /// The subject of this name.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Subject>, UnknownSubject> {
        self.subjects.iter().find(|s| s.name() == name).cloned().ok_or_else(|| UnknownSubject {
            name: name.to_owned(),
            hint: crate::hint::did_you_mean(name, self.subjects.iter().map(|s| s.name())),
        })
    }

    /// The names that a scenario's list means by this one: itself, or all that begin with what stands before a
    /// star.
    pub fn matching(&self, pattern: &str) -> Result<Vec<String>, UnknownSubject> {
        match pattern.strip_suffix('*') {
            None => self.get(pattern).map(|subject| vec![subject.name().to_owned()]),
            Some(start) => {
                Ok(self.subjects.iter().map(|s| s.name()).filter(|n| n.starts_with(start)).map(str::to_owned).collect())
            }
        }
    }

    /// All subjects, bundled ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Subject>> {
        self.subjects.iter()
    }
}
