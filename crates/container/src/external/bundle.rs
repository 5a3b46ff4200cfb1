//! A container's configuration as `config.json` of a bundle.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use biga_sys::device_filter::Rule;
use biga_wire::config::{Container, Mount, MountSource, Namespace, NamespaceFile, Propagation, ShimConfig};
use rustix::fs::FileType;

use super::limits;
use super::place::Place;
use crate::Error;
use crate::caps::Caps;
use crate::confine;
use crate::devices::{Node, Nodes};
use crate::hooks;
use crate::labels::Labels;
use crate::mounts::OWN_FILES;
use crate::namespaces;
use crate::oci_spec::linux::{Device, Linux, Namespace as SpecNamespace, TimeOffset};
use crate::oci_spec::{self as spec, Capabilities, ConsoleSize, Process, Rlimit, Root, Spec, User};
use crate::rootfs;
use crate::seccomp::{document, profile};
use crate::setup;
use crate::user::Identity;

/// The version of the specification that is written. Nothing is used that older runtimes do not know, but for what is asked for.
const VERSION: &str = "1.0.2";

/// Where an init is inside: where nothing of the image is changed by it.
pub(super) const INIT: &str = "/dev/init";

/// Everything that is known of a container.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    pub config: &'a ShimConfig,
    pub container: &'a Container,
    pub place: &'a Place,
    /// What it may have at most.
    pub caps: Caps,
    /// What a process of this host may have at most.
    pub host_caps: Caps,
}

/// What runs in it: the main process, or another.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub args: &'a [String],
    pub env: &'a [String],
    pub cwd: &'a str,
    pub user: &'a str,
    pub tty: bool,
    pub window: Option<(u16, u16)>,
    /// With all that the host has.
    pub privileged: bool,
}

impl Bundle<'_> {
    /// The whole document. What others' namespaces are named by in it holds as long as the descriptors are kept.
    pub fn spec(&self, process: Process, rules: Option<&[Rule]>) -> Result<(Spec, Vec<OwnedFd>), Error> {
        let c = self.container;
        let (namespaces, joined) = namespaces(c)?;
        let own_names = c.namespaces.uts.is_own();
        let nodes = Nodes::find(c)?;
        let mut resources = limits::resources(&self.config.limits)?;
        resources.devices = limits::devices(rules);
        let time = c.namespaces.time.map(|t| {
            let offset = |secs| TimeOffset { secs, nanosecs: 0 };
            [("monotonic", offset(t.monotonic)), ("boottime", offset(t.boottime))]
        });
        let mut sysctl = c.sysctls.clone();
        if let (Some(domain), true) = (&c.domainname, own_names) {
            // Older runtimes do not know the document's own word for it.
            sysctl.insert("kernel.domainname".into(), domain.clone());
        }
        let spec = Spec {
            oci_version: VERSION.into(),
            process: Some(process),
            root: Some(Root {
                path: text(&self.place.root)?,
                readonly: c.read_only_root,
            }),
            hostname: if own_names { c.hostname.clone() } else { String::new() },
            mounts: self.mounts()?,
            linux: Linux {
                sysctl,
                resources: Some(resources),
                cgroups_path: format!("/{}", self.config.cgroup),
                namespaces,
                devices: nodes.all().iter().map(device).collect(),
                seccomp: self.filter()?,
                rootfs_propagation: propagation(c).into(),
                masked_paths: rootfs::masked_paths(c),
                readonly_paths: rootfs::read_only_paths(c),
                mount_label: c.mount_label.clone().unwrap_or_default(),
                time_offsets: time.into_iter().flatten().map(|(k, v)| (k.to_owned(), v)).collect(),
                ..Linux::default()
            },
            hooks: hooks::document(c),
            annotations: c.annotations.clone(),
            ..Spec::default()
        };
        Ok((spec, joined))
    }

    /// A process in it.
    pub fn process(&self, wish: &Wish<'_>) -> Result<Process, Error> {
        let c = self.container;
        let identity = setup::identity(wish.user, &c.process.additional_groups, self.place.root_fd().as_fd())?;
        let cwd = if wish.cwd.is_empty() { "/" } else { wish.cwd };
        if !cwd.starts_with('/') {
            return Err(Error::Field("the working directory", cwd.to_owned()));
        }
        if wish.args.first().is_none_or(String::is_empty) {
            return Err(Error::Field("the command", "it is empty".into()));
        }
        let caps = if wish.privileged { self.host_caps } else { self.caps };
        let labels = Labels::on_this_host(c.apparmor.as_deref(), c.selinux.as_deref());
        Ok(Process {
            terminal: wish.tty,
            console_size: wish.window.map(|(rows, columns)| ConsoleSize {
                height: rows,
                width: columns,
            }),
            args: wish.args.to_vec(),
            env: setup::environment(wish.env, wish.tty, &identity.home),
            cwd: cwd.to_owned(),
            capabilities: Some(capabilities(caps, &identity)),
            rlimits: self.rlimits()?,
            no_new_privileges: c.no_new_privileges,
            apparmor_profile: labels.apparmor.unwrap_or_default(),
            selinux_label: labels.selinux.unwrap_or_default(),
            oom_score_adj: self.config.limits.oom_score_adj.map(|score| self.oom_score(score)),
            user: User {
                uid: identity.uid,
                gid: identity.gid,
                umask: Some(c.process.umask.unwrap_or(0o022)),
                additional_gids: identity.groups,
                ..User::default()
            },
            ..Process::default()
        })
    }

    /// Runtimes fail where a limit cannot be raised so far; ours leaves a hard limit as high as it is.
    fn rlimits(&self) -> Result<Vec<Rlimit>, Error> {
        let may_raise = self.host_caps.has("SYS_RESOURCE");
        let one = |(name, (soft, hard)): (&String, &(i64, i64))| {
            let what = confine::resource(name)?;
            let most = match may_raise {
                true => u64::MAX,
                false => rustix::process::getrlimit(what).maximum.unwrap_or(u64::MAX),
            };
            let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX).min(most);
            Ok(Rlimit {
                kind: format!("RLIMIT_{}", name.to_ascii_uppercase().trim_start_matches("RLIMIT_")),
                soft: value(*soft),
                hard: value(*hard),
            })
        };
        self.container.process.rlimits.iter().map(one).collect()
    }

    /// Below the host's own score needs a capability that hosts may lack: the score then stays.
    fn oom_score(&self, wished: i32) -> i32 {
        if self.host_caps.has("SYS_RESOURCE") {
            return wished;
        }
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        own.trim().parse().map_or(wished, |own: i32| wished.max(own))
    }

    fn filter(&self) -> Result<Option<serde_json::Value>, Error> {
        let c = self.container;
        match &c.seccomp_profile {
            _ if !c.seccomp || c.privileged => Ok(None),
            Some(own) => profile::plain(own, self.caps).map(Some),
            None => Ok(Some(document::default_document(self.caps))),
        }
    }

    fn mounts(&self) -> Result<Vec<spec::Mount>, Error> {
        let c = self.container;
        let mut all = self.usual_mounts()?;
        for (name, target) in OWN_FILES {
            if c.mounts.iter().any(|m| m.target == target) {
                continue;
            }
            let mut options = vec!["rbind", "rprivate"];
            options.extend(c.read_only_root.then_some("ro"));
            all.push(mount(target, "bind", &text(&self.config.run_dir.join(name))?, &options));
        }
        if c.process.init {
            let file = self.config.run_dir.join(super::DIR).join(super::INIT_FILE);
            all.push(mount(INIT, "bind", &text(&file)?, &["rbind", "rprivate", "ro"]));
        }
        for (i, m) in c.mounts.iter().enumerate() {
            if !m.target.starts_with('/') || m.target.trim_matches('/').is_empty() {
                return Err(Error::Field("the mount's target", m.target.clone()));
            }
            all.push(match (self.place.sources.get(i), &m.source) {
                (Some(Some(path)), _) => bound(m, &text(path)?),
                (_, MountSource::Tmpfs { size, mode, options }) => memory(m, *size, *mode, options),
                _ => return Err(Error::Field("the mount", format!("nothing to mount at {}", m.target))),
            });
        }
        Ok(all)
    }

    /// The kernel's own file systems.
    fn usual_mounts(&self) -> Result<Vec<spec::Mount>, Error> {
        let c = self.container;
        let secure = ["nosuid", "noexec", "nodev"];
        let guarded: Vec<&str> = secure.into_iter().chain((!c.privileged).then_some("ro")).collect();
        let size = format!("size={}", rootfs::shm_size(c));
        let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
        let memory = ["nosuid", "noexec", "nodev", "mode=1777", size.as_str()];
        let shared = |path: &Option<std::path::PathBuf>| path.as_deref().map(text).transpose();
        let bind = ["rbind", "rprivate"];
        let mut all = vec![
            mount("/proc", "proc", "proc", &secure),
            mount("/dev", "tmpfs", "tmpfs", &dev),
            mount("/dev/pts", "devpts", "devpts", &pts),
            match shared(&self.place.mqueue)? {
                Some(path) => mount("/dev/mqueue", "bind", &path, &bind),
                None => mount("/dev/mqueue", "mqueue", "mqueue", &secure),
            },
            mount("/sys", "sysfs", "sysfs", &guarded),
            mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &[&guarded[..], &["relatime"]].concat(),
            ),
        ];
        match shared(&self.place.shm)? {
            Some(path) => all.push(mount("/dev/shm", "bind", &path, &bind)),
            None if c.no_shm => {}
            None => all.push(mount("/dev/shm", "tmpfs", "shm", &memory)),
        }
        Ok(all)
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> spec::Mount {
    spec::Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..spec::Mount::default()
    }
}

/// What was mounted for it already, with all that was asked for but its propagation.
fn bound(m: &Mount, source: &str) -> spec::Mount {
    let travels = match m.how.propagation {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
        Propagation::Shared => "rshared",
    };
    let mut options = vec!["rbind", travels];
    options.extend(m.read_only.then_some("ro"));
    mount(&m.target, "bind", source, &options)
}

fn memory(m: &Mount, size: Option<u64>, mode: u32, options: &[String]) -> spec::Mount {
    let (mode, size) = (format!("mode={:o}", mode & 0o7777), size.map(|s| format!("size={s}")));
    let mut all = vec!["nosuid", "nodev", &mode];
    all.extend(size.as_deref());
    all.extend(options.iter().map(String::as_str));
    all.extend(m.read_only.then_some("ro"));
    mount(&m.target, "tmpfs", "tmpfs", &all)
}

/// The root's: as far as any of its mounts wants to travel.
fn propagation(c: &Container) -> &'static str {
    let any = |p| c.mounts.iter().any(|m| m.how.propagation == p);
    if any(Propagation::Shared) {
        "rshared"
    } else if any(Propagation::Slave) {
        "rslave"
    } else {
        "rprivate"
    }
}

/// Those of others are opened here, where it is looked that they are the ones that are meant, and named by these descriptors.
fn namespaces(c: &Container) -> Result<(Vec<SpecNamespace>, Vec<OwnedFd>), Error> {
    let n = &c.namespaces;
    let of = |kind: &str, path: String| SpecNamespace {
        kind: kind.into(),
        path,
    };
    let mut held = Vec::new();
    let mut join = |file: &NamespaceFile| -> Result<String, Error> {
        let fd = namespaces::open(file)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        held.push(fd);
        Ok(path)
    };
    let mut all = vec![of("mount", String::new())];
    for (kind, which) in [("pid", &n.pid), ("ipc", &n.ipc), ("uts", &n.uts), ("cgroup", &n.cgroup)] {
        match which {
            Namespace::Own => all.push(of(kind, String::new())),
            Namespace::Of(file) => all.push(of(kind, join(file)?)),
            Namespace::Host => {}
        }
    }
    match &c.netns {
        Some(file) => all.push(of("network", join(file)?)),
        None if !c.host_network => all.push(of("network", String::new())),
        None => {}
    }
    if n.time.is_some() {
        all.push(of("time", String::new()));
    }
    Ok((all, held))
}

fn device(node: &Node) -> Device {
    Device {
        kind: if node.kind == FileType::BlockDevice { "b" } else { "c" }.into(),
        path: node.path.clone(),
        major: Some(rustix::fs::major(node.number).into()),
        minor: Some(rustix::fs::minor(node.number).into()),
        file_mode: Some(node.mode),
        uid: Some(node.uid),
        gid: Some(node.gid),
    }
}

/// As ours: who is not root has none in force, and none can be gained beyond these.
fn capabilities(caps: Caps, identity: &Identity) -> Capabilities {
    let own = if identity.uid == 0 { caps.names() } else { Vec::new() };
    Capabilities {
        bounding: caps.names(),
        effective: own.clone(),
        permitted: own,
        ..Capabilities::default()
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Field("a path", format!("{} is not UTF-8", path.display())))
}
