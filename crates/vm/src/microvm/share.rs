//! Directories shared into a microvm by virtiofs daemons.
//!
//! Each daemon serves a mount that is made for it: `fs/N` in the run directory, in a mount namespace of the shim's own, so that
//! read-only is the kernel's word, a single file can be shared without its neighbours, and nothing is left when the shim ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use biga_sys::process::Namespaces;
use biga_wire::workload::Fault;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::usage::log_file;
use crate::qemu::process::{Daemon, number};

/// Name under which a shared file lies in its directory.
pub const FILE: &str = "file";

/// A running daemon and its mount.
#[derive(Debug)]
pub struct ShareDaemon {
    daemon: Daemon,
    socket: PathBuf,
    view: PathBuf,
    file: bool,
}

impl ShareDaemon {
    /// Shares `source` (or what lies at `sub_path` beneath it) as number `number`.
    pub fn start(
        program: &Path,
        run_dir: &Path,
        number: usize,
        source: &Path,
        sub_path: Option<&str>,
        read_only: bool,
    ) -> Result<ShareDaemon, Fault> {
        let failed = |e: io::Error| Fault::failed(format!("cannot share {} into the microvm: {e}", source.display()));
        if number == 0 {
            own_namespace().map_err(failed)?;
        }
        // Opened after that: only mounts of one's own namespace can be copied.
        let tree = open_beneath(source, sub_path).map_err(failed)?;
        let file = !rustix::fs::fstat(&tree)
            .map(|s| is_dir(s.st_mode))
            .map_err(|e| failed(e.into()))?;
        let view = run_dir.join("fs").join(number.to_string());
        mount_view(tree, &view, file, read_only).map_err(failed)?;
        // From here on the mount is undone by dropping.
        let mut mounted = Mounted {
            view,
            file,
            keep: false,
        };
        let socket = run_dir.join(format!("fs{number}.sock"));
        let _ = fs::remove_file(&socket);
        let listener: OwnedFd = UnixListener::bind(&socket).map_err(failed)?.into();
        let log = log_file(&run_dir.join(format!("fs{number}.log")))?;
        let args = arguments(is_rust(program), self::number(&listener), &mounted.view);
        let daemon = Daemon::spawn(program, args, &[listener], log).map_err(failed)?;
        mounted.keep = true;
        Ok(ShareDaemon {
            daemon,
            socket,
            view: mounted.view.clone(),
            file,
        })
    }

    /// Where QEMU connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

impl Drop for ShareDaemon {
    fn drop(&mut self) {
        self.daemon.end();
        let _ = fs::remove_file(&self.socket);
        unmount(&self.view, self.file);
    }
}

struct Mounted {
    view: PathBuf,
    file: bool,
    keep: bool,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.keep {
            unmount(&self.view, self.file);
        }
    }
}

fn unmount(view: &Path, file: bool) {
    // Best effort: the mount lives in our own namespace and goes with it.
    let target = if file { view.join(FILE) } else { view.to_owned() };
    let _ = rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    if file {
        let _ = fs::remove_file(&target);
    }
    let _ = fs::remove_dir(view);
}

fn is_dir(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory
}

/// Opens what is to be shared. A sub-path never leaves its volume; a missing one is made.
fn open_beneath(source: &Path, sub_path: Option<&str>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, source, flags, Mode::empty())?;
    let Some(sub_path) = sub_path else { return Ok(at) };
    for part in Path::new(sub_path).components() {
        let part = match part {
            Component::Normal(part) => part,
            Component::CurDir | Component::RootDir => continue,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a sub-path may not contain ..",
                ));
            }
        };
        let open = |at: &OwnedFd| rustix::fs::openat2(at, part, flags, Mode::empty(), ResolveFlags::BENEATH);
        at = match open(&at) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755))?;
                open(&at)?
            }
            other => other?,
        };
    }
    Ok(at)
}

/// Puts the shim into a mount namespace of its own, into which the host's later mounts still come.
fn own_namespace() -> io::Result<()> {
    biga_sys::namespace::unshare(Namespaces::MOUNT)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", slave)?)
}

fn mount_view(tree: OwnedFd, view: &Path, file: bool, read_only: bool) -> io::Result<()> {
    fs::create_dir_all(view)?;
    let target = match file {
        true => {
            let target = view.join(FILE);
            File::create(&target)?;
            target
        }
        false => view.to_owned(),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(&tree, "", flags)?;
    if read_only {
        biga_sys::mount::set_attributes(mount.as_fd(), biga_sys::mount::RDONLY, true)?;
    }
    rustix::mount::move_mount(&mount, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Whether it is the daemon written in Rust, whose options differ from those of QEMU 7.2's.
fn is_rust(program: &Path) -> bool {
    let help = Command::new(program).arg("--help").stdin(Stdio::null()).output();
    help.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("--shared-dir"))
}

fn arguments(rust: bool, fd: i32, view: &Path) -> Vec<String> {
    let view = view.to_string_lossy();
    let mut args = vec![format!("--fd={fd}")];
    let more: &[&str] = match rust {
        true => &[
            "--sandbox=namespace",
            "--cache=auto",
            "--xattr",
            "--announce-submounts",
            "--log-level=warn",
        ],
        false => &[
            "-f",
            "-o",
            "sandbox=namespace,cache=auto,xattr,announce_submounts,flock,posix_lock,log_level=warn",
        ],
    };
    match rust {
        true => args.push(format!("--shared-dir={view}")),
        false => args.extend(["-o".to_owned(), format!("source={view}")]),
    }
    args.extend(more.iter().map(|s| s.to_string()));
    args
}

/// Removes the directory of views.
pub fn remove_dir(run_dir: &Path) -> Result<(), Fault> {
    let dir = run_dir.join("fs");
    match fs::remove_dir(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Fault::failed(format!("cannot remove {}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}
