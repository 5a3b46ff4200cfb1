//! Names: a DNS server on each network's gateway address.
//!
//! - [`zone`]: what the names of one network are; no I/O
//! - [`directory`]: what names mean to the one who asks
//! - [`message`]: from a packet to a reply or the decision to ask elsewhere; no I/O
//! - [`server`]: the sockets
//! - [`upstream`]: asking the host's resolvers

pub mod directory;
pub mod message;
pub mod server;
pub mod upstream;
pub mod zone;
