//! Frames between client, agent, shim and guest.
//!
//! One framing serves three roads: the shim's unix socket, the upgraded HTTP connection of a
//! streaming call (the server copies bytes between the two without looking), and the virtio-serial
//! port of a microvm's guest, where several streams share one channel.
//!
//! ```text
//!  0      1      2        4             8
//!  ┌──────┬──────┬────────┬─────────────┬─────────────────┐
//!  │ kind │  0   │ stream │ length (LE) │ payload …       │
//!  └──────┴──────┴────────┴─────────────┴─────────────────┘
//! ```
//!
//! - [`frame`]: the framing, blocking read and write, and an incremental decoder
//! - [`shim`]: what agent and shim say to each other
//! - [`config`]: what a shim is told to run, with [`namespaces`]: what a container shares
//! - [`guest`]: what shim and the init inside a microvm say to each other
//! - [`checkpoint`]: what is saved of a container, and what goes on from it
//! - [`build`], [`files`], [`http`]: what calls of the native API take and answer
//! - [`workload`]: what a shim holds, behind one interface
//!
//! A connection begins with one [`shim::Request`] in a `Request` frame and is answered by one
//! [`shim::Reply`] in a `Reply` frame. After `Exec`, `Attach` and `Console` it carries a stream, after `Watch`
//! it carries events; after any other request the next one may follow.

pub mod build;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod files;
pub mod frame;
pub mod guest;
pub mod http;
pub mod namespaces;
pub mod shim;
pub mod workload;

pub use frame::{Decoder, Frame, FrameError, FrameKind, MAX_CONTROL, MAX_DATA};
