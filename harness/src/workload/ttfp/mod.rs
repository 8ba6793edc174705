//! Time to first payment: go-nitro's benchmark of its durable store, without go-nitro.
//!
//! Payers open payment channels through a hub to payees. Every party has a store and one engine loop;
//! each message that the loop takes makes the store calls of go-nitro at the time of its ADR on
//! durability, and its answers leave after the last of them returned. TTFP runs from a payer's wish to
//! open a channel to the moment its first payment is on its way.
//!
//! The protocol ([`party`]) knows neither time nor threads. [`run_real`] drives it with a thread for
//! each party on a real disk, [`run_virtual`] in virtual time on a modelled disk and processor, the
//! stores in memory; [`fit`] finds the disk and processor that explain the published figures.
//!
//! What is simplified, and why it does not matter to the figure: go-nitro's scans of a table are one
//! look-up here, their cost being part of the processor time of a message; the four files of a party
//! are four tables of one store; the chain answers at once and only to those concerned, while the
//! ledgers are funded, before the clock starts.

mod agenda;
mod books;
mod cast;
mod fit;
mod jobs;
mod metered;
mod outcome;
mod party;
mod real;
mod simulated;
mod spec;

pub use books::TABLES;
pub use fit::{Fitted, fit};
pub use outcome::{Outcome, Sample, check, published_ns};
pub use real::run_real;
pub use simulated::run_virtual;
pub use spec::{Disk, Simulated, TtfpError, TtfpSpec};
