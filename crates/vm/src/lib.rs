//! Microvms and machines under QEMU.
//!
//! What the shim holds, one of:
//! - [`microvm::MicrovmWorkload`]: an OCI image under a kernel of its own, with our init inside
//! - [`machine::MachineWorkload`]: a disk that boots by itself
//!
//! Both stand on
//! - [`qemu`]: command lines and the QEMU process
//! - [`qmp`]: QEMU's control protocol
//! - [`duplex`]: a socket that never blocks
//!
//! What the agent and the command line need on the host:
//! - [`setup`]: the guest kernel and its initramfs
//! - [`seed`]: a machine's cloud-init seed
//! - [`disk`]: clones and sizes of disks
//! - [`kvm`]: whether KVM runs a guest here
//!
//! Nothing in this crate starts a thread.

pub mod channel;
pub mod disk;
pub mod duplex;
pub mod kvm;
pub mod machine;
pub mod microvm;
pub mod qemu;
pub mod qga;
pub mod qmp;
pub mod seed;
pub mod setup;
