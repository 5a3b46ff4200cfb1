//! Reading what users type after Docker-like options.

pub mod env;
pub mod fine;
pub mod mount;
pub mod network;
pub mod port;
pub mod signal;
pub mod size;
pub mod time;
pub mod words;
