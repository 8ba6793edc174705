//! Crash states: the disk images that a power loss may leave behind.
//!
//! `trace` holds a recorded run, `layout` resolves its calls into effects on names, sizes and sectors,
//! `model` says as data which of them a crash may take, `view` applies a model to one crash point, `state`
//! is one choice of surviving effects and the image it makes, `strategy` enumerates the choices.
//!
//! **Invariant:** the recorder keeps every call as issued; only here is decided what survives. No clocks,
//! threads or ambient randomness: a trace and a seed give the same states for ever.

mod layout;
mod model;
mod state;
mod strategy;
mod trace;
mod view;

pub use layout::{DataOp, FileLog, Layout, NameOp, Node, PAGE, SECTOR, SyncOf};
pub use model::{ASSUMPTIONS, MODELS, Model, Names, Sizes, minimal};
pub use state::{FileState, State, Tear};
pub use strategy::{Effect, Strategy, effects, omitting};
pub use trace::{Call, Files, Mark, Op, Trace};
pub use view::{FileView, View, Violation};
