//! Work on files, by a process of this very program: nothing of the image is executed for it, and paths are resolved by the kernel
//! beneath the root.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use biga_container::user;
use biga_files::changes::{self, ChangeKind};
use biga_files::{Crossing, Error, Ids, Owner, Packer, Unpack, stat, unpack};
use biga_sys::process::{Fork, Namespaces, exit_now};
use biga_wire::files::{self as wire, FileFault, FileWork, PathStat};
use biga_wire::guest::Setup;
use biga_wire::workload::Fault;
use rustix::fs::{Mode, OFlags};

use crate::process::{Running, pipes};

/// Numbers of the writable layer and the image below it, in the process that works.
const UPPER: RawFd = 3;
const LOWER: RawFd = 4;
/// Beyond all numbers that are placed.
const HIGH: RawFd = 64;
/// Bytes written at once.
const PIECE: usize = 64 << 10;

/// Starts work on files. `changed` are the writable layer and the image, where the work is about what differs.
pub fn start(work: &FileWork, setup: &Setup, changed: Option<(OwnedFd, OwnedFd)>) -> Result<Running, Fault> {
    let failed = |e: io::Error| Fault::failed(format!("cannot begin to work on files: {e}"));
    let (ours, theirs) = pipes(true).map_err(failed)?;
    let child = match biga_sys::process::fork(Namespaces::NONE, None).map_err(failed)? {
        Fork::Parent(child) => child,
        Fork::Child => match settle(theirs, changed) {
            Ok(()) => run(work, setup),
            Err(_) => exit_now(1),
        },
    };
    let (stdin, stdout, stderr) = ours;
    Ok(Running {
        child,
        stdin,
        stdout,
        stderr,
        tty: false,
    })
}

/// Nothing stays open but what the work needs: an end of another process's pipe would keep that from ending.
fn settle(streams: [OwnedFd; 3], changed: Option<(OwnedFd, OwnedFd)>) -> io::Result<()> {
    biga_sys::signal::reset_all();
    let trees = changed.into_iter().flat_map(|(upper, lower)| [upper, lower]);
    let high: Vec<OwnedFd> = streams
        .into_iter()
        .chain(trees)
        .map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, HIGH)?))
        .collect::<io::Result<_>>()?;
    for (number, fd) in (0..).zip(&high) {
        biga_sys::fd::place(fd.as_fd(), number)?;
    }
    let count = high.len() as RawFd;
    // Their numbers are closed now.
    std::mem::forget(high);
    biga_sys::fd::close_from(count)
}

fn run(work: &FileWork, setup: &Setup) -> ! {
    let Err(fault) = perform(work, setup) else { exit_now(0) };
    let text = serde_json::to_vec(&fault).unwrap_or_default();
    // With the host gone there is nobody to tell.
    let _ = take(2).and_then(|fd| File::from(fd).write_all(&text));
    exit_now(1)
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    biga_sys::fd::inherited(number)
}

fn perform(work: &FileWork, setup: &Setup) -> Result<(), FileFault> {
    let output = || {
        Ok::<_, FileFault>(io::BufWriter::with_capacity(
            PIECE,
            File::from(take(1).map_err(broken)?),
        ))
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| broken(e.into()))?;
    let root = root.as_fd();
    match work {
        FileWork::Stat { path } => {
            let found = stat::stat(root, &stat::find(root, path).map_err(fault)?).map_err(fault)?;
            say(&mut output()?, &told(found))
        }
        FileWork::Read { path } => {
            let place = stat::find(root, path).map_err(fault)?;
            let mut out = output()?;
            say(&mut out, &told(stat::stat(root, &place).map_err(fault)?))?;
            out.write_all(b"\n").map_err(broken)?;
            let mut packer = Packer::new(out, Crossing::Enter);
            packer.add(&place).map_err(fault)?;
            packer.finish().map(drop).map_err(fault)
        }
        FileWork::Write {
            path,
            keep_kinds,
            to_user,
        } => {
            let options = Unpack {
                owner: match to_user {
                    true => owner(setup)?,
                    false => Owner::Archive,
                },
                keep_kinds: *keep_kinds,
                rename: None,
                ids: Ids::default(),
            };
            let tar = BufReader::with_capacity(PIECE, File::from(take(0).map_err(broken)?));
            unpack::plain(root, path, tar, options).map_err(fault)
        }
        FileWork::Export => {
            let mut packer = Packer::new(output()?, Crossing::Stay);
            packer.add_content(root).map_err(fault)?;
            packer.finish().map(drop).map_err(fault)
        }
        FileWork::Changes => {
            let (upper, lower) = (take(UPPER).map_err(broken)?, take(LOWER).map_err(broken)?);
            let list = changes::list(upper.as_fd(), Some(lower.as_fd())).map_err(fault)?;
            say(&mut output()?, &list.iter().map(change).collect::<Vec<_>>())
        }
        FileWork::Layer { without } => {
            let (upper, lower) = (take(UPPER).map_err(broken)?, take(LOWER).map_err(broken)?);
            let without: Vec<Vec<u8>> = without.iter().map(|p| p.as_bytes().to_vec()).collect();
            let list = changes::list_without(upper.as_fd(), Some(lower.as_fd()), &without).map_err(fault)?;
            let out = output()?;
            changes::write_layer(upper.as_fd(), &list, out).map(drop).map_err(fault)
        }
    }
}

fn say(out: &mut impl Write, what: &impl serde::Serialize) -> Result<(), FileFault> {
    serde_json::to_writer(&mut *out, what).map_err(|e| broken(e.into()))?;
    out.flush().map_err(broken)
}

fn told(s: biga_files::Stat) -> PathStat {
    PathStat {
        name: s.name,
        size: s.size,
        mode: s.mode,
        mtime: s.mtime.0,
        mtime_nsec: s.mtime.1,
        link_target: s.link_target,
    }
}

fn change(c: &biga_files::Change) -> wire::Change {
    wire::Change {
        path: format!("/{}", String::from_utf8_lossy(&c.path)),
        kind: match c.kind {
            ChangeKind::Modified => wire::ChangeKind::Modified,
            ChangeKind::Added => wire::ChangeKind::Added,
            ChangeKind::Deleted => wire::ChangeKind::Deleted,
        },
    }
}

/// The user and group that the main process runs as, looked up in the image's own files.
fn owner(setup: &Setup) -> Result<Owner, FileFault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| broken(e.into()))?;
    let read = |path| biga_container::beneath::read(root.as_fd(), path).unwrap_or_default();
    let found = user::resolve(&setup.process.user, &[], &read("/etc/passwd"), &read("/etc/group"));
    let identity = found.map_err(|e| FileFault::Invalid(e.to_string()))?;
    Ok(Owner::Fixed(identity.uid, identity.gid))
}

fn broken(e: io::Error) -> FileFault {
    FileFault::Failed(format!("the guest's own streams broke: {e}"))
}

fn fault(e: Error) -> FileFault {
    match e {
        Error::NotFound(p) => FileFault::NotFound(p),
        Error::NotADirectory(p) => FileFault::NotADirectory(p),
        Error::InTheWay(p) => FileFault::InTheWay(p),
        Error::ReadOnly(p) => FileFault::ReadOnly(p),
        Error::Escape(p) => FileFault::Escape(p),
        Error::Kernel(p) => FileFault::Kernel(p),
        Error::TooMuch(p) => FileFault::TooMuch(p),
        Error::Tar(e) => FileFault::Invalid(e.to_string()),
        e @ (Error::Io { .. } | Error::Stream(_)) => FileFault::Failed(e.to_string()),
    }
}
