//! The OCI runtime command line (`biga oci …`, or a program named `biga-oci`): containers from bundles, without a daemon, for
//! containerd, Podman, CRI-O and whoever else speaks to `runc`.
//!
//! ```text
//!   create ──► first process: namespaces, mounts, devices, pivot, user ──► waits
//!   start  ──► says go ──► hooks, filter, exec
//!   run    =   both, and stays until it ends
//!   exec   ──► joins namespaces of the first process
//! ```
//!
//! - [`args`], [`verbs`]: the command line
//! - [`spec`], [`validate`]: `config.json`, and what of it cannot be honoured
//! - [`create`], [`child`], [`exec`], [`descriptors`]: making processes
//! - [`mounts`], [`devices`], [`masks`], [`console`]: the file system they see
//! - [`confine`], [`seccomp`], [`limits`]: what they may do
//! - [`state`]: what is known between two commands
//!
//! Nothing here has a thread, and nothing needs one: a process that forks into namespaces must have one only.

pub mod args;
pub mod attend;
pub mod child;
pub mod confine;
pub mod console;
pub mod control;
pub mod create;
pub mod descriptors;
pub mod devices;
pub mod error;
pub mod exec;
pub mod hooks;
pub mod ids;
pub mod limits;
pub mod log;
pub mod masks;
pub mod mounts;
pub mod namespaces;
pub mod options;
pub mod own;
pub mod seccomp;
pub mod state;
pub mod validate;
pub mod verbs;

pub use biga_container::oci_spec as spec;
pub use error::Error;

/// Carries a command line (without the program's name) out, and gives the exit code.
pub fn main(args: Vec<String>) -> i32 {
    let invocation = match args::parse(args) {
        Ok(i) => i,
        Err(e) => {
            eprintln!("biga oci: {e}");
            return 1;
        }
    };
    let global = invocation.global.clone();
    match verbs::run(invocation) {
        Ok(code) => code,
        Err(e) => {
            log::failure(&global, &e.to_string());
            1
        }
    }
}
