//! Tests of the image store against real things: the kernel, GNU tar, `fsck.erofs`, Debian's registry, skopeo. They run
//! as root.

mod archives;
mod budget;
mod crash;
mod credentials;
mod disks;
mod erofs;
mod fake;
mod files;
mod fuzz;
mod hostile;
mod policy;
mod referrers;
mod registry;
mod resilience;
mod shapes;
mod signer;
mod support;
mod tls;
