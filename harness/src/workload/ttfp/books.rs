//! The store calls of one party, as go-nitro's durable store makes them.
//!
//! Storing an objective is: the objective, its channels, a look at who owns the channel, and the
//! ownership if it is new. Each is a change of its own unless batches are asked for. Values are texts
//! that say what they are, filled up to the size that the source's JSON has.

use super::spec::TtfpSpec;
use crate::subject::{Change, Session, SubjectError};
use engine::Durability;
use std::fmt::Write as _;

/// The tables of a party's store.
pub const TABLES: [&str; 5] = ["objectives", "channels", "consensus_channels", "chan_to_obj", "vouchers"];

const OBJECTIVES: usize = 0;
const CHANNELS: usize = 1;
const CONSENSUS_CHANNELS: usize = 2;
const CHAN_TO_OBJ: usize = 3;
const VOUCHERS: usize = 4;

/// Sizes of values in bytes, estimated from the source's JSON structs.
const PAYMENT_CHANNEL: usize = 2_400;
const LEDGER_CHANNEL: usize = 2_200;
const CONSENSUS_CHANNEL: usize = 1_000;
const GUARANTEE: usize = 323;
const QUEUED_PROPOSAL: usize = 629;
const EMPTY_CONSENSUS_CHANNEL: usize = 400;
const VOUCHER: usize = 390;

/// What an objective is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    DirectFund,
    VirtualFund,
    VirtualDefund,
}

impl Kind {
    fn objective(self, channel: &str) -> String {
        let name = match self {
            Kind::DirectFund => "DirectFunding",
            Kind::VirtualFund => "VirtualFund",
            Kind::VirtualDefund => "VirtualDefund",
        };
        format!("{name}-{channel}")
    }

    fn size(self, hub: bool) -> usize {
        match (self, hub) {
            (Kind::DirectFund, _) => 385,
            (Kind::VirtualFund, false) => 900,
            (Kind::VirtualFund, true) => 1_500,
            (Kind::VirtualDefund, false) => 5_000,
            (Kind::VirtualDefund, true) => 7_000,
        }
    }
}

/// A ledger channel as it is stored with an objective.
#[derive(Clone, Debug)]
pub(super) struct LedgerEntry {
    pub(super) key: String,
    pub(super) guarantees: usize,
    pub(super) queued: usize,
}

/// Everything that is stored with one objective.
#[derive(Clone, Debug)]
pub(super) struct Filing<'a> {
    pub(super) kind: Kind,
    /// The key of the channel that the objective is about.
    pub(super) channel: &'a str,
    pub(super) ledgers: &'a [LedgerEntry],
    /// The hub's objectives are larger.
    pub(super) hub: bool,
    /// How often this objective was stored before.
    pub(super) step: u32,
    /// Whether the objective becomes the channel's owner now.
    pub(super) take_ownership: bool,
    /// Whether the objective was loaded from the store, which makes it write a consensus channel that
    /// does not exist.
    pub(super) reloaded: bool,
}

/// A party's store with the rules by which it is used.
pub(super) struct Books {
    session: Box<dyn Session>,
    bug_compatible: bool,
    persist_vouchers: bool,
    batch: bool,
    sync_at_end: bool,
    writes: u64,
    dirty: bool,
}

impl Books {
    pub(super) fn new(spec: &TtfpSpec, session: Box<dyn Session>) -> Self {
        Self {
            session,
            bug_compatible: spec.bug_compatible,
            persist_vouchers: spec.persist_vouchers,
            batch: spec.batch,
            sync_at_end: spec.sync_at_end,
            writes: 0,
            dirty: false,
        }
    }

    pub(super) fn session(&self) -> &dyn Session {
        &*self.session
    }

    pub(super) fn close(self) -> Result<(), SubjectError> {
        self.session.close()
    }

    /// Acknowledged changes so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Loads an objective and what belongs to it; whether it is there.
    pub(super) fn load(&self, kind: Kind, channel: &str, ledgers: &[LedgerEntry]) -> Result<bool, SubjectError> {
        if !self.look(OBJECTIVES, &kind.objective(channel))? {
            return Ok(false);
        }
        if kind != Kind::VirtualDefund {
            self.look(CHANNELS, channel)?;
        }
        for ledger in ledgers {
            self.look(CONSENSUS_CHANNELS, &ledger.key)?;
        }
        Ok(true)
    }

    /// Stores an objective and what belongs to it.
    pub(super) fn file(&mut self, filing: &Filing<'_>) -> Result<(), SubjectError> {
        let Filing { kind, channel, .. } = *filing;
        let objective = kind.objective(channel);
        let text = |what: &str, size| describe(&objective, filing.step, what, size);
        let mut sets = vec![(OBJECTIVES, objective.clone(), text("objective", kind.size(filing.hub)))];
        match kind {
            Kind::DirectFund => sets.push((CHANNELS, channel.to_owned(), text("channel", LEDGER_CHANNEL))),
            Kind::VirtualFund => sets.push((CHANNELS, channel.to_owned(), text("channel", PAYMENT_CHANNEL))),
            Kind::VirtualDefund => {}
        }
        for ledger in filing.ledgers {
            let size = CONSENSUS_CHANNEL + GUARANTEE * ledger.guarantees + QUEUED_PROPOSAL * ledger.queued;
            sets.push((CONSENSUS_CHANNELS, ledger.key.clone(), text("ledger", size)));
        }
        if self.bug_compatible && kind == Kind::VirtualDefund && filing.reloaded && !filing.hub {
            let nobody = format!("0x{:064x}", 0);
            sets.push((CONSENSUS_CHANNELS, nobody, text("ledger", EMPTY_CONSENSUS_CHANNEL)));
        }
        let owner = filing.take_ownership.then(|| (CHAN_TO_OBJ, channel.to_owned(), objective.clone()));
        if self.batch {
            self.look(CHAN_TO_OBJ, channel)?;
            sets.extend(owner);
            let changes: Vec<Change<'_>> =
                sets.iter().map(|(table, key, value)| Change { table: *table, key, value: Some(value) }).collect();
            self.session.batch(&changes, Durability::Write)?;
            self.note_writes(changes.len() as u64);
            return Ok(());
        }
        for (table, key, value) in &sets {
            self.set(*table, key, value)?;
        }
        self.look(CHAN_TO_OBJ, channel)?;
        owner.map_or(Ok(()), |(table, key, value)| self.set(table, &key, &value))
    }

    /// Looks at who owns a channel.
    pub(super) fn look_for_owner(&self, channel: &str) -> Result<(), SubjectError> {
        self.look(CHAN_TO_OBJ, channel).map(drop)
    }

    /// Looks at a channel, as a payment does.
    pub(super) fn look_at_channel(&self, channel: &str) -> Result<(), SubjectError> {
        self.look(CHANNELS, channel).map(drop)
    }

    /// Looks for the ledger channels that an objective needs.
    pub(super) fn look_for_ledgers(&self, ledgers: &[LedgerEntry]) -> Result<(), SubjectError> {
        ledgers.iter().try_for_each(|ledger| self.look(CONSENSUS_CHANNELS, &ledger.key).map(drop))
    }

    /// Gives a channel up for the next objective.
    pub(super) fn release(&mut self, channel: &str) -> Result<(), SubjectError> {
        self.delete(CHAN_TO_OBJ, channel)
    }

    /// Turns a funded channel into a ledger.
    pub(super) fn open_ledger(&mut self, key: &str) -> Result<(), SubjectError> {
        let text = describe(&Kind::DirectFund.objective(key), u32::MAX, "ledger", CONSENSUS_CHANNEL);
        self.set(CONSENSUS_CHANNELS, key, &text)?;
        self.delete(CHANNELS, key)
    }

    /// Notes what was paid through a channel, where vouchers are kept at all.
    pub(super) fn note_voucher(&mut self, channel: &str, paid: u64) -> Result<(), SubjectError> {
        if !self.persist_vouchers {
            return Ok(());
        }
        self.look(VOUCHERS, channel)?;
        let mut head = String::with_capacity(VOUCHER);
        let _ = write!(head, "voucher {channel} amount {paid} ");
        self.set(VOUCHERS, channel, &fill(head, channel, VOUCHER))
    }

    /// Forgets the vouchers of a channel, where they are kept at all.
    pub(super) fn forget_vouchers(&mut self, channel: &str) -> Result<(), SubjectError> {
        if self.persist_vouchers { self.delete(VOUCHERS, channel) } else { Ok(()) }
    }

    /// The end of a turn of the loop; answers leave after it.
    pub(super) fn end_turn(&mut self) -> Result<(), SubjectError> {
        if std::mem::take(&mut self.dirty) && self.sync_at_end { self.session.sync() } else { Ok(()) }
    }

    fn look(&self, table: usize, key: &str) -> Result<bool, SubjectError> {
        self.session.get(table, key, &mut |value| {
            std::hint::black_box(value.len());
        })
    }

    fn set(&mut self, table: usize, key: &str, value: &str) -> Result<(), SubjectError> {
        self.session.apply(Change { table, key, value: Some(value) }, Durability::Write)?;
        self.note_writes(1);
        Ok(())
    }

    fn delete(&mut self, table: usize, key: &str) -> Result<(), SubjectError> {
        self.session.apply(Change { table, key, value: None }, Durability::Write)?;
        self.note_writes(1);
        Ok(())
    }

    fn note_writes(&mut self, n: u64) {
        self.writes += n;
        self.dirty = true;
    }
}

/// A value that says which step of which objective wrote it.
fn describe(objective: &str, step: u32, what: &str, size: usize) -> String {
    let mut head = String::with_capacity(size.max(160));
    let _ = write!(head, "{objective} step {step} {what} size {size} ");
    fill(head, objective, size)
}

fn fill(mut text: String, with: &str, size: usize) -> String {
    while text.len() < size {
        let room = size - text.len();
        text.push_str(with.get(..room).unwrap_or(with));
    }
    text
}
