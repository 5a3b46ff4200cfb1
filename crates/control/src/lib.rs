//! Schedulers and controllers: pure plans, and the driver that carries them out.
//!
//! Each controller is a synchronous function of what it is shown, without clock and without I/O:
//!
//! - [`schedule`]: places instances on nodes
//! - [`garbage`]: removes what lost its owner, and keeps the promises of foreground and orphaning deletions
//! - [`events`]: removes events that are older than an hour
//! - [`compaction`]: forgets old history of the store
//!
//! [`Driver`] keeps a copy of the store by list and watch, shows it to them whenever it changed and at least once a
//! minute, and executes the [`Action`]s they answer. A plan on stale facts does no harm: every action is conditional (on a uid, or on what
//! the plan saw), and the next round plans again.

mod action;
pub mod compaction;
mod driver;
pub mod events;
mod execute;
pub mod garbage;
pub mod schedule;
mod view;

pub use action::{Action, Id, Resource};
pub use driver::{Driver, Options};
pub use execute::Error;
