//! Which namespaces are new, joined, or the host's.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use biga_sys::process::Namespaces;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Error, Step};
use crate::spec::linux::Namespace;

/// One kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Users and groups.
    User,
    /// Process ids.
    Pid,
    /// Network.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control groups.
    Cgroup,
    /// Clocks.
    Time,
}

impl Kind {
    /// All, and their names in `config.json` and in `/proc/PID/ns`.
    pub const ALL: [(Kind, &'static str, &'static str); 8] = [
        (Kind::User, "user", "user"),
        (Kind::Pid, "pid", "pid"),
        (Kind::Network, "network", "net"),
        (Kind::Mount, "mount", "mnt"),
        (Kind::Ipc, "ipc", "ipc"),
        (Kind::Uts, "uts", "uts"),
        (Kind::Cgroup, "cgroup", "cgroup"),
        (Kind::Time, "time", "time"),
    ];

    /// The bit that makes a new one.
    pub fn bit(self) -> Namespaces {
        match self {
            Kind::User => Namespaces::USER,
            Kind::Pid => Namespaces::PID,
            Kind::Network => Namespaces::NET,
            Kind::Mount => Namespaces::MOUNT,
            Kind::Ipc => Namespaces::IPC,
            Kind::Uts => Namespaces::UTS,
            Kind::Cgroup => Namespaces::CGROUP,
            Kind::Time => Namespaces::TIME,
        }
    }

    fn link(self) -> LinkNameSpaceType {
        match self {
            Kind::User => LinkNameSpaceType::User,
            Kind::Pid => LinkNameSpaceType::ProcessID,
            Kind::Network => LinkNameSpaceType::Network,
            Kind::Mount => LinkNameSpaceType::Mount,
            Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Kind::Cgroup => LinkNameSpaceType::ControlGroup,
            Kind::Time => LinkNameSpaceType::Time,
        }
    }
}

/// A namespace of another, held open.
#[derive(Debug)]
pub struct Joined {
    /// Which.
    pub kind: Kind,
    path: PathBuf,
    file: OwnedFd,
}

impl Joined {
    /// Its file once more.
    pub fn file(&self) -> Result<OwnedFd, Error> {
        let what = || format!("open namespace {}", self.path.display());
        self.file.try_clone().step(what)
    }

    /// Moves this process into it; of process ids and clocks, its children.
    pub fn enter(&self) -> Result<(), Error> {
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&self.file), Some(self.kind.link()))
            .step(|| format!("join namespace {}", self.path.display()))
    }
}

/// What the configuration wants. What is in neither list stays the host's.
#[derive(Debug, Default)]
pub struct Wanted {
    /// New.
    pub new: Vec<Kind>,
    /// Another's.
    pub joined: Vec<Joined>,
}

impl Wanted {
    /// Reads the configuration and opens what is to be joined.
    pub fn read(list: &[Namespace]) -> Result<Wanted, Error> {
        let mut wanted = Wanted::default();
        for namespace in list {
            let field = "linux.namespaces";
            let Some((kind, ..)) = Kind::ALL.iter().find(|(_, name, _)| *name == namespace.kind) else {
                return Err(Error::invalid(
                    field,
                    format!("there is no namespace of type {:?}", namespace.kind),
                ));
            };
            if wanted.has(*kind) {
                return Err(Error::invalid(field, format!("{:?} is there twice", namespace.kind)));
            }
            if namespace.path.is_empty() {
                wanted.new.push(*kind);
                continue;
            }
            let path = PathBuf::from(&namespace.path);
            if !path.is_absolute() {
                return Err(Error::invalid(field, format!("{} is not absolute", path.display())));
            }
            let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step(|| format!("open namespace {}", path.display()))?;
            wanted.joined.push(Joined {
                kind: *kind,
                path,
                file,
            });
        }
        Ok(wanted)
    }

    /// Whether it is not the host's.
    pub fn has(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.joined(kind).is_some()
    }

    /// Whether it is made.
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// The one that is joined.
    pub fn joined(&self, kind: Kind) -> Option<&Joined> {
        self.joined.iter().find(|j| j.kind == kind)
    }

    /// Bits of the new ones among these.
    pub fn bits(&self, among: &[Kind]) -> Namespaces {
        let wanted = among.iter().filter(|k| self.is_new(**k));
        wanted.fold(Namespaces::NONE, |all, k| all.and(k.bit()))
    }
}
