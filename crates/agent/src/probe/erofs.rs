//! EROFS: whether the kernel mounts it, and straight from a file.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use biga_model::Ability;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::host::{Host, apart};
use super::{degraded, missing, ok};

/// The one block of the trial image.
const BLOCK: usize = 4096;

/// What is not zero in an image of one directory with one file `probe` that holds `biga\n`, sixteen bytes a row:
/// `mkfs.erofs -T0 -U00000000-0000-0000-0000-000000000000 --all-root` of erofs-utils 1.5.
const ROWS: &[(usize, [u8; 16])] = &[
    (
        1024,
        *b"\xe2\xe1\xf5\xe0\xac\x2b\x65\x92\x03\x00\x00\x00\x0c\x00\x24\x00",
    ),
    (1040, *b"\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    (1056, *b"\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0"),
    (1152, *b"\x04\0\0\0\xed\x41\x02\0\x2c\0\0\0\0\0\0\0"),
    (1168, *b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0"),
    (1184, *b"\x24\0\0\0\0\0\0\0\x24\0\x02\0\x24\0\0\0"),
    (1200, *b"\0\0\0\0\x25\0\x02\0\x27\0\0\0\0\0\0\0"),
    (1216, *b"\x27\0\x01\0...probe\0\0\0\0"),
    (1248, *b"\x04\0\0\0\xa4\x81\x01\0\x05\0\0\0\0\0\0\0"),
    (1264, *b"\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\0\0\0\0"),
    (1280, *b"biga\n\0\0\0\0\0\0\0\0\0\0\0"),
];

/// The trial image.
pub(super) fn image() -> Vec<u8> {
    let mut image = vec![0; BLOCK];
    for (offset, row) in ROWS {
        image[*offset..offset + row.len()].copy_from_slice(row);
    }
    image
}

/// Mounts the trial image from a file beside the state, where the layers will be, and reads the file in it.
pub(super) fn erofs(host: &Host, state: &Path) -> Ability {
    match mounted_from_file(state) {
        Ok(()) => ok("erofs", "mounts straight from a file"),
        Err(why) if knows(host, "erofs") => degraded(
            "erofs",
            format!("does not mount straight from a file: {why}"),
            "each image layer takes a loop device",
            "use Linux 6.12 or newer, and a state directory on a disk: it does not work from tmpfs",
        ),
        Err(why) => missing(
            "erofs",
            format!("the kernel does not mount it: {why}"),
            "containers cannot run: image layers are EROFS files",
            "load the module (`modprobe erofs`) or use a kernel that has it",
        ),
    }
}

/// Whether the kernel lists a file system, built in or loaded.
pub(super) fn knows(host: &Host, name: &str) -> bool {
    host.read("/proc/filesystems")
        .is_some_and(|list| list.lines().any(|l| l.split_whitespace().last() == Some(name)))
}

fn mounted_from_file(state: &Path) -> Result<(), String> {
    let dir = state.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
    let file = nameless(dir).map_err(|e| format!("cannot write a trial image in {}: {e}", dir.display()))?;
    apart(UnshareFlags::NEWNS, || {
        private_tmpfs().and_then(|dir| mount_and_read(&file, &dir))
    })
    .map_err(|e| format!("no mount namespace: {e}"))?
}

/// The trial image in a file that has no name, and so leaves nothing behind.
fn nameless(dir: &Path) -> std::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(&image())?;
    Ok(file)
}

/// A tmpfs on `/tmp` that only this thread's mount namespace sees, so that nothing is ever left on the host.
pub(super) fn private_tmpfs() -> Result<std::path::PathBuf, String> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|e| format!("cannot make mounts private: {e}"))?;
    rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), c"size=1m")
        .map_err(|e| format!("tmpfs: {e}"))?;
    Ok("/tmp".into())
}

fn mount_and_read(file: &File, dir: &Path) -> Result<(), String> {
    let target = dir.join("biga-probe");
    std::fs::create_dir(&target).map_err(|e| e.to_string())?;
    // The number holds in this thread too: descriptors are shared, only the mounts are not.
    let file = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::mount::mount(&file, &target, "erofs", MountFlags::RDONLY, None).map_err(|e| e.to_string())?;
    let text = std::fs::read_to_string(target.join("probe")).map_err(|e| e.to_string());
    rustix::mount::unmount(&target, UnmountFlags::DETACH).map_err(|e| e.to_string())?;
    match text?.as_str() {
        "biga\n" => Ok(()),
        other => Err(format!("reads wrong: {other:?}")),
    }
}
