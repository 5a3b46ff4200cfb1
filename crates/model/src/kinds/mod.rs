//! One file a kind. See `CONTRIBUTING.md`, "Adding a kind".

pub mod checkpoint;
pub mod container_status;
pub mod event;
pub mod health;
pub mod image;
pub mod instance;
mod instance_table;
mod instance_validate;
pub mod log;
pub mod network;
pub mod node;
pub mod runtime;
mod runtime_validate;
pub mod security;
pub mod volume;
