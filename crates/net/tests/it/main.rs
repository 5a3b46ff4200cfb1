//! Tests as root. Each has a network namespace of its own as "the host", and a mount namespace, so that nothing is
//! left however it ends.

mod dhcp;
mod dns;
mod life;
mod options;
mod ports;
mod reach;
mod support;
