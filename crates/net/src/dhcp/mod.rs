//! DHCP for machines that configure their network that way.
//!
//! Only the hardware addresses of known ends are answered, always with the address they have: there is nothing to
//! allocate, expire or decline.
//!
//! - [`packet`]: the wire format; no I/O
//! - [`server`]: the socket, one a bridge

pub mod packet;
pub mod server;
