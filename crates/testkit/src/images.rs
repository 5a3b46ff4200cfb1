//! Root file systems for tests, made of Debian's busybox-static.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's busybox-static puts the program.
const BUSYBOX: &str = "/bin/busybox";

/// Makes a root file system with busybox and a few users below `dir`.
///
/// # Panics
/// Where busybox-static is not installed or `dir` cannot be written.
pub fn busybox_root(dir: &Path) {
    for d in ["bin", "etc", "tmp", "root", "home/app", "var/www", "dev", "proc", "sys"] {
        fs::create_dir_all(dir.join(d)).expect("make a directory");
    }
    fs::copy(BUSYBOX, dir.join("bin/busybox")).expect("busybox-static is installed");
    let list = Command::new(BUSYBOX).arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|a| *a != "busybox")
    {
        symlink("busybox", dir.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    fs::write(dir.join("etc/passwd"), passwd).expect("write passwd");
    fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").expect("write group");
    fs::write(dir.join("var/www/index.html"), "hello from biga\n").expect("write a page");
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
}

/// The tar of [`busybox_root`] below `dir`.
///
/// # Panics
/// As [`busybox_root`].
pub fn busybox_tar(dir: &Path) -> PathBuf {
    let root = dir.join("busybox-root");
    busybox_root(&root);
    let tar = dir.join("busybox.tar");
    let status = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status()
        .expect("tar runs");
    assert!(status.success());
    fs::remove_dir_all(&root).expect("remove the tree");
    tar
}
