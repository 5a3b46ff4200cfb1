//! The init inside a microvm: the first and only program of its initramfs.
//!
//! ```text
//!  kernel ─► main ─► modules ─► port ──Setup──► root: layers, overlay, switch ─► volumes, network, sysctls
//!                                │                                                     │
//!                          └──Start, Exec, Files──► process ◄──frames──► agent (one loop, one thread)
//! ```
//!
//! - [`modules`]: loads kernel modules in order
//! - [`devices`]: finds disks and the host's port
//! - [`root`]: root file system and volumes
//! - [`network`]: addresses and routes, by netlink
//! - [`process`]: starts processes
//! - [`stream`]: input and output of one process
//! - [`files`]: work on files of the root, in processes of its own
//! - [`agent`]: talks to the host
//!
//! Everything here runs in a kernel of its own: what an image does to it stays inside. The host, in turn, does not trust
//! what this program says.

pub mod agent;
pub mod devices;
pub mod files;
pub mod modules;
pub mod network;
pub mod process;
pub mod root;
pub mod stream;

use std::io;

/// What went wrong, with the step that failed in front.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step.
    #[error("cannot {what}: {source}")]
    Step {
        /// What was attempted, to what.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A module that the initramfs should have.
    #[error("the initramfs has no kernel module {0}; run `biga setup` again")]
    Module(String),
    /// A device that never appeared.
    #[error("the {0} did not appear")]
    Device(String),
    /// A field of the configuration that makes no sense.
    #[error("{what} {value:?} is not valid")]
    Field {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: String,
    },
}

/// Names the step that failed.
pub(crate) trait Context<T> {
    /// `what` follows "cannot".
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Step {
            what: what(),
            source: e.into(),
        })
    }
}
