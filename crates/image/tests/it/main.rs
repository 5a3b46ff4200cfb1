//! Tests of the image store against real things: the kernel, GNU tar, `fsck.erofs`, Debian's registry, skopeo. They run
//! as root.

mod archives;
mod disks;
mod erofs;
mod fake;
mod files;
mod hostile;
mod registry;
mod resilience;
mod support;
