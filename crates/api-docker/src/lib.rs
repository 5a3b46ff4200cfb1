//! The Docker Engine API (<https://docs.docker.com/reference/api/engine/>) over Biga's own objects.
//!
//! There is no second engine behind it: a Docker container is an `Instance`, an image an `Image`, a network a
//! `Network`, a volume a `Volume`, all of them in the store, where the node's agent finds them. A handler writes
//! what is wanted and waits on the store's watch until the agent has answered.
//!
//! ```text
//!  docker CLI ──► version prefix off ──► routes ──► translate (pure) ──► store ──► agent
//!                                          │                              │
//!                                          │◄──────────── watch ──────────┘
//!                                          └──► Backend (streams: attach, exec, logs, stats, archives)
//! ```
//!
//! - [`Backend`]: what the node must offer; the program implements it over the agent
//! - [`translate`]: pure functions between Docker's documents and the model
//! - [`types`]: the documents that are read
//! - [`serve`]: the connection loop (HTTP/1 with upgrades and half-closed connections, as hijacked streams need)
//!
//! What is missing answers 501 and names what is missing.

#![recursion_limit = "256"]

mod attaches;
pub mod backend;
mod error;
mod events;
mod execs;
mod extract;
mod follow;
mod lookup;
mod names;
mod routes;
mod seen;
mod serve;
mod state;
mod stream;
pub mod translate;
pub mod types;
mod version;

pub use backend::{Backend, Fault, FaultKind, Reporter};
pub use error::Error;
pub use routes::router;
pub use serve::serve;
pub use state::{DockerApi, NodeInfo};
pub use version::{MAX_API, MIN_API};
