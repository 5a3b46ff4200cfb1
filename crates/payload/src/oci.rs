//! The OCI runtime as a file to be executed. Engines start it several times a container, and writing two megabytes into memory
//! each time would be a third of what a container costs: the file is kept, and run from a mount of its own that is read-only, so
//! that no container can write to it.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use biga_sys::mount_attr::{self as attr, Change};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::OCI;

/// Where the file is kept until the host is started again.
const KEPT: &str = "/run/biga-oci/.program";

/// A descriptor of the OCI runtime's program that cannot be written through it; close-on-exec. Run it by [`crate::shim_path`] while it is
/// open.
pub fn program() -> io::Result<OwnedFd> {
    // Without the right to keep files or to mount, memory does as well.
    kept(Path::new(KEPT)).or_else(|_| biga_sys::fd::sealed("biga-oci", OCI))
}

fn kept(dir: &Path) -> io::Result<OwnedFd> {
    let path = dir.join(env!("BIGA_OCI_MARK"));
    let file = match open(&path) {
        Ok(file) => file,
        Err(_) => {
            write(dir, &path)?;
            open(&path)?
        }
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&file, "", flags)?;
    let change = Change {
        set: attr::RDONLY,
        // Distributions forbid programs in /run.
        clear: attr::NOEXEC,
        ..Change::default()
    };
    attr::change(&tree, &change, false)?;
    Ok(tree)
}

/// Opens the file if it is ours, whole, and nobody else's to change.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::statat(&file, "", rustix::fs::AtFlags::EMPTY_PATH)?;
    let good = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == 0
        && stat.st_mode & 0o022 == 0
        && stat.st_size as usize == OCI.len();
    if good {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is another file"))
    }
}

fn write(dir: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    let new = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let mut options = fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&new)
        .and_then(|mut file| file.write_all(OCI))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The failure is more telling than what tidying up says.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn it_is_kept_and_runs_and_cannot_be_written() {
        let dir = std::env::temp_dir().join(format!("biga-payload-{}", std::process::id()));
        for round in 0..2 {
            let program = kept(&dir).unwrap();
            let path = crate::shim_path(&program);
            let out = Command::new(&path).arg("--version").output().unwrap();
            assert!(
                String::from_utf8_lossy(&out.stdout).starts_with("biga-oci version"),
                "round {round}: {out:?}"
            );
            let refused = fs::OpenOptions::new().append(true).open(&path).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(30), "round {round}: {refused}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        // What is not whole is written again.
        fs::write(dir.join(env!("BIGA_OCI_MARK")), "x").unwrap();
        assert_eq!(fs::metadata(dir.join(env!("BIGA_OCI_MARK"))).unwrap().len(), 1);
        kept(&dir).unwrap();
        assert_eq!(
            fs::metadata(dir.join(env!("BIGA_OCI_MARK"))).unwrap().len(),
            OCI.len() as u64
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
