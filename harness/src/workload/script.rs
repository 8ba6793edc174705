//! Calls written down one by one: for regressions, and for questions that no generator asks.

use super::stream::{Call, OwnedChange, Stream};
use crate::subject::{End, Table};
use engine::Durability;
use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Script {
    /// The tables' names.
    pub tables: Vec<String>,
    /// What is done, in order.
    pub steps: Vec<ScriptStep>,
}

/// One thing to do. Exactly one of `changes`, `get`, `push`, `pop` and `owner` says what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ScriptStep {
    /// The client that does it.
    #[serde(skip_serializing_if = "is_zero")]
    pub client: usize,
    /// A write: one change, or several as one batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<OwnedChange>,
    /// The durability of the write; `write` if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// A read: table and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get: Option<(usize, String)>,
    /// Entries that are put into a queue, all or none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<String>,
    /// Where they are put.
    #[serde(skip_serializing_if = "is_back")]
    pub end: End,
    /// The oldest entry of a queue is taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pop: Option<Pop>,
    /// Something the owner does: `sync`, `shrink` or `reopen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// How the oldest entry of a queue is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pop {
    /// At once.
    Take,
    /// It is handed out, and taken out when that is acknowledged: one call.
    Acknowledge,
    /// It is handed out.
    Hold,
    /// Not the oldest, but what was handed out to this client is taken out.
    Held,
}

/// What the owner of a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Asks for everything to be made durable.
    Sync,
    /// Tells it to reclaim space.
    Shrink,
    /// Closes and opens it.
    Reopen,
}

fn is_back(end: &End) -> bool {
    *end == End::Back
}

fn is_zero(client: &usize) -> bool {
    *client == 0
}

impl ScriptStep {
    /// The call it makes; `None` if it is the owner's.
    pub fn call(&self) -> Option<Call> {
        if let Some((table, key)) = &self.get {
            return Some(Call::get("get", *table, key.clone()).ends());
        }
        let level = self.level.as_deref().map_or(Durability::Write, |l| l.parse().unwrap_or(Durability::Write));
        if !self.push.is_empty() {
            return Some(Call::push("push", level, self.push.clone(), self.end).ends());
        }
        if let Some(pop) = self.pop {
            let call = match pop {
                Pop::Take => Call::pop("pop", level, false),
                Pop::Acknowledge => Call::pop("pop", level, true),
                Pop::Hold => Call::hold("hold"),
                Pop::Held => Call::acknowledge("acknowledge", level),
            };
            return Some(call.ends());
        }
        (!self.changes.is_empty()).then(|| Call::batch("write", level, self.changes.clone()).ends())
    }
}

impl Script {
    /// The tables.
    pub fn tables(&self) -> Vec<Table> {
        self.tables.iter().map(|name| Table { name: name.clone(), sync: None }).collect()
    }

    /// How many clients there are.
    pub fn clients(&self) -> u64 {
        self.steps.iter().map(|s| s.client as u64 + 1).max().unwrap_or(1)
    }

    /// What is wrong with it, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        for (number, step) in self.steps.iter().enumerate() {
            let kinds =
                [!step.changes.is_empty(), step.get.is_some(), !step.push.is_empty(), step.pop.is_some(), step.owner.is_some()];
            if kinds.iter().filter(|k| **k).count() != 1 {
                return Err(format!("step {number} of the script must have exactly one of changes, get, push, pop and owner"));
            }
            if let Some(level) = &step.level
                && level.parse::<Durability>().is_err()
            {
                return Err(format!("step {number} of the script asks for level {level:?}: expected async, write or sync"));
            }
            let tables = step.changes.iter().map(|c| c.table).chain(step.get.iter().map(|(table, _)| *table));
            if let Some(table) = tables.into_iter().find(|t| *t >= self.tables.len()) {
                return Err(format!("step {number} of the script uses table {table}, but there are {}", self.tables.len()));
            }
        }
        Ok(())
    }
}

/// The calls of one client. Whoever runs a script as a whole takes its steps instead.
pub fn stream(spec: &Script, client: u64) -> Stream {
    let calls: Vec<Call> = spec.steps.iter().filter(|s| s.client as u64 == client).filter_map(ScriptStep::call).collect();
    Box::new(calls.into_iter())
}
