//! Containers: processes of an image in namespaces of their own, without a daemon and without threads.
//!
//! ```text
//!  shim ── Workload ──► ContainerWorkload ─ fork into namespaces ─► setup: control groups, rootfs, devices, pivot
//!                          │                                          │ confine: user, capabilities, seccomp
//!                          │ pidfd, pipes, pty master                 ▼ exec
//!                          └──────────────────────────────────────► the entrypoint
//! ```
//!
//! - [`workload`]: the [`biga_wire::workload::Workload`] that a shim holds
//! - [`pod`]: several of them, which share namespaces
//! - [`external`]: a container that another OCI runtime makes, from a bundle ([`oci_spec`]) written here
//! - [`cgroup`]: limits, freezing, counting, killing, on both versions of control groups
//! - [`setup`]: what the forked child does before the entrypoint
//! - [`rootfs`], [`mounts`], [`devices`]: the file system it sees
//! - [`view`]: the same file system where the container does not run, for one thread of the agent
//! - [`confine`]: user, capabilities, limits, filter, exec
//! - [`seccomp`], [`caps`], [`user`], [`labels`]: the parts of that
//! - [`criu`], [`restored`]: saving it and letting it go on, by CRIU
//! - [`namespaces`], [`userns`]: what it has of its own and what it shares; ids of its own
//!
//! Everything that was mounted lives in the container's own mount namespace, so that a crash at any point leaves no mount
//! on the host: it ends with the last process.

pub mod beneath;
pub mod caps;
pub mod cgroup;
pub mod confine;
pub mod copy;
pub mod criu;
pub mod devices;
pub mod external;
pub mod hooks;
pub mod init;
pub mod labels;
pub mod mounts;
pub mod namespaces;
pub mod oci_spec;
pub mod pod;
pub mod restored;
pub mod rootfs;
pub mod seccomp;
pub mod setup;
pub mod user;
pub mod userns;
pub mod view;
pub mod workload;

mod control;
mod error;
mod oom;
mod stream;

pub use cgroup::sweep;
pub use error::{Context, Error};
pub use external::ExternalWorkload;
pub use pod::PodWorkload;
pub use workload::ContainerWorkload;
