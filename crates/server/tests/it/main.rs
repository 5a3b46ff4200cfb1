//! The whole API in one process: memory store, resource machinery, server on a temporary unix socket and a TLS port.

mod backend;
mod errors;
mod kind;
mod kubectl;
mod stack;
mod streams;
mod tls;
mod verbs;
mod watch;
