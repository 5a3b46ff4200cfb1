//! The small static programs that `biga` carries: the shim, the init of microvms, and the OCI runtime.
//!
//! The build script builds them with the profile `payload` into `target/payload`.

mod oci;

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Mutex;

/// The shim, an ELF program for this machine.
pub static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/biga-shim"));

/// The init of a microvm, an ELF program for its initramfs.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/biga-guest"));

pub use oci::program as oci_program;

/// The OCI runtime, an ELF program for this machine.
pub static OCI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/biga-oci"));

/// The sealed file in memory that holds the shim; made at the first call and kept.
static MEMFD: Mutex<Option<RawFd>> = Mutex::new(None);

/// A descriptor of a sealed file in memory with the shim, the same file at every call: all shims share its pages, and no container can
/// overwrite it through `/proc/PID/exe`. Close-on-exec; run it by [`shim_path`] while it is open.
pub fn shim_memfd() -> io::Result<OwnedFd> {
    let mut made = MEMFD.lock().unwrap_or_else(|e| e.into_inner());
    let number = match *made {
        Some(number) => number,
        None => {
            let number = biga_sys::fd::sealed("biga-shim", SHIM)?.into_raw_fd();
            *made = Some(number);
            number
        }
    };
    biga_sys::fd::duplicate(number)
}

/// The path by which this process, and a child of it before exec, can run a descriptor of [`shim_memfd`].
pub fn shim_path(memfd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", memfd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_static_programs() {
        for program in [SHIM, GUEST, OCI] {
            assert_eq!(&program[..4], b"\x7fELF");
            // No interpreter: nothing of the host or the guest is needed to run it.
            assert!(!program.windows(13).any(|w| w == b"/ld-linux-x86"));
            assert!(program.len() < 4 << 20, "{} bytes", program.len());
        }
    }

    #[test]
    fn the_shim_runs_from_memory_and_cannot_be_changed() {
        let fd = shim_memfd().unwrap();
        let out = std::process::Command::new(shim_path(&fd)).output().unwrap();
        assert_eq!(out.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&out.stderr).contains("shim.json"));
        let file = std::fs::File::options().write(true).open(shim_path(&fd));
        let refused = file.is_err() || io::Write::write(&mut file.unwrap(), b"x").is_err();
        assert!(refused);
        let again = shim_memfd().unwrap();
        let inode = |fd: &OwnedFd| {
            std::fs::metadata(shim_path(fd))
                .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
                .unwrap()
        };
        assert_eq!(inode(&fd), inode(&again), "one file for all");
    }
}
