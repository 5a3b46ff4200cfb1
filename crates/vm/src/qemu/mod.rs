//! QEMU command lines and processes.
//!
//! - [`args`]: command lines, as data in and strings out
//! - [`process`]: starting QEMU and the virtiofs daemon with descriptors handed over

pub mod args;
pub mod process;

pub use process::version;
