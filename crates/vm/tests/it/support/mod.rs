//! What the tests stand on.
//!
//! - [`shim`]: a small shim around a workload, driven by the test
//! - [`guest`]: guest program, kernel and image layers, made once and kept

pub mod guest;
pub mod shim;

pub use guest::microvm;
pub use shim::{Shim, shell};
