//! Root file systems for tests, made of Debian's busybox-static, and the smallest disk that boots.

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

/// A boot sector that writes `disk boots` to the serial line, sends back what it reads there, and switches the machine off at a
/// `q` and when the power button is pressed:
///
/// ```text
/// start: outw 602, 100 (enable the button); print text
/// loop:  inw 600, bit 8 (pressed)? -> off; inb 3fd, bit 0 (input)? read 3f8; q -> off; else write it back
/// off:   outw 604, 2000 (sleep state 5)
/// ```
#[rustfmt::skip]
const BOOT_SECTOR: [u8; 95] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xbe, 0x52,
    0x7c, 0xac, 0x84, 0xc0, 0x74, 0x05, 0xe8, 0x2a, 0x00, 0xeb, 0xf6, 0xba, 0x00, 0x06, 0xed, 0xa9,
    0x00, 0x01, 0x75, 0x15, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xef, 0xba, 0xf8, 0x03, 0xec,
    0x3c, 0x71, 0x74, 0x05, 0xe8, 0x0c, 0x00, 0xeb, 0xe2, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef,
    0xf4, 0xeb, 0xfd, 0x50, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x58, 0xba, 0xf8, 0x03,
    0xee, 0xc3, 0x64, 0x69, 0x73, 0x6b, 0x20, 0x62, 0x6f, 0x6f, 0x74, 0x73, 0x0d, 0x0a, 0x00,
];

/// A raw disk below `dir` whose boot sector is its whole operating system: it writes `disk boots` to the serial line
/// and heeds the power button.
///
/// # Panics
/// Where `dir` cannot be written.
pub fn boot_disk(dir: &Path) -> PathBuf {
    let mut bytes = vec![0; 1 << 20];
    bytes[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let disk = dir.join("boot.raw");
    fs::write(&disk, bytes).expect("write a disk");
    disk
}
