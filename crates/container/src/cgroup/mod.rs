//! Control groups: one group an instance, at the same path below every hierarchy.
//!
//! On version 2 there is one tree. On version 1 (and on hybrid hosts, whose version 2 tree has no controllers) each
//! controller is a tree of its own at `/sys/fs/cgroup/<controller>`; always used are those that count, freeze and
//! protect, and `cpu` and `cpuset` only where a limit asks for them.

pub mod hold;
mod limits;
mod raw;
mod realtime;
pub mod stats;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use biga_sys::device_filter::{self, Listed, Rule};
use biga_wire::config::Limits;
use rustix::fs::{Mode, OFlags};

pub(crate) use limits::{block_device, quota};

use crate::Error;
use crate::error::Context;

/// Where control groups are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Version 1 controllers every group has.
const ALWAYS: [&str; 6] = ["memory", "pids", "cpuacct", "freezer", "devices", "blkio"];

/// How long freezing, and emptying a group that was killed, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which version this host's controllers are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree a controller; also hybrid.
    V1,
    /// One tree.
    V2,
}

/// Looks at the host.
pub fn version() -> Version {
    const CGROUP2_MAGIC: i64 = 0x6367_7270;
    match rustix::fs::statfs(ROOT) {
        Ok(s) if s.f_type == CGROUP2_MAGIC => Version::V2,
        _ => Version::V1,
    }
}

/// The control group of one instance.
#[derive(Debug)]
pub struct Group {
    path: String,
    version: Version,
    /// Version 1: controllers with a directory for it.
    controllers: Vec<&'static str>,
    has_memory_limit: bool,
}

impl Group {
    /// Makes the group at `path` below the root(s), or takes over what is left of an older one, and applies limits. `devices` of `None` allows all.
    /// On failure nothing is left.
    pub fn create(path: &str, limits: &Limits, devices: Option<&[Rule]>) -> Result<Group, Error> {
        Group::create_for(path, limits, devices, None)
    }

    /// Like [`Group::create`]; with `manager`, an init system inside keeps groups of its own below it, as this user of the host.
    pub fn create_for(
        path: &str,
        limits: &Limits,
        devices: Option<&[Rule]>,
        manager: Option<u32>,
    ) -> Result<Group, Error> {
        let clean = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
        if path.is_empty() || !Path::new(path).components().all(clean) {
            return Err(Error::Field("the control group's path", path.to_owned()));
        }
        let mut group = Group {
            path: path.to_owned(),
            version: version(),
            controllers: Vec::new(),
            has_memory_limit: false,
        };
        match group.make(limits, devices, manager) {
            Ok(()) => Ok(group),
            Err(e) => {
                // What made it fail is more telling than what tidying up says.
                let _ = group.remove();
                Err(e)
            }
        }
    }

    fn make(&mut self, limits: &Limits, devices: Option<&[Rule]>, manager: Option<u32>) -> Result<(), Error> {
        match self.version {
            Version::V2 => {
                limits::delegate(Path::new(ROOT), &self.path);
                make_dir(&self.dir(""))?;
            }
            Version::V1 => {
                for controller in ALWAYS {
                    // A kernel may lack one: its figures or limits are then missing, nothing else.
                    if make_dir(&self.dir(controller)).is_ok() {
                        self.controllers.push(controller);
                    }
                }
                self.need_for(limits)?;
            }
        }
        if let Some(rules) = devices {
            self.set_devices(rules)?;
        }
        if let Some(owner) = manager {
            self.give_to_manager(owner)?;
        }
        self.apply(limits)
    }

    /// What an init system needs of it: on version 1 the tree without a controller, and the right to make groups.
    fn give_to_manager(&mut self, owner: u32) -> Result<(), Error> {
        if self.version == Version::V2 {
            return self.hand_over(owner);
        }
        if !Path::new(ROOT).join("systemd").exists() {
            return Err(Error::Field(
                "the control group",
                "an init system needs the tree name=systemd, which this host has not mounted: mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd".into(),
            ));
        }
        make_dir(&self.dir("systemd"))?;
        self.controllers.push("systemd");
        v1::hand_over(&self.dir("systemd"), owner)
    }

    /// Version 2: lets this user of the host make groups below it. Its own limits stay the host's to set.
    pub fn hand_over(&self, owner: u32) -> Result<(), Error> {
        match self.version {
            Version::V1 => Ok(()),
            Version::V2 => v1::hand_over(&self.dir(""), owner),
        }
    }

    /// Version 1: makes the directories of the controllers that only some limits need.
    fn need_for(&mut self, limits: &Limits) -> Result<(), Error> {
        let huge = !limits.hugetlb.is_empty();
        let own_huge = huge && Path::new(ROOT).join("hugetlb").exists();
        let cpu = limits.cpu_shares.is_some()
            || limits.cpu_burst.is_some()
            || limits.cpu_realtime_runtime.is_some()
            || limits.cpu_realtime_period.is_some()
            || limits::Quota::of(limits).is_some();
        let wanted = [
            ("cpu", cpu),
            ("cpuset", limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some()),
            ("hugetlb", own_huge),
            ("unified", (huge && !own_huge) || !limits.unified.is_empty()),
        ];
        for (controller, wanted) in wanted {
            if !wanted || self.controllers.contains(&controller) {
                continue;
            }
            if controller == "unified" {
                self.make_unified()?;
            } else {
                make_dir(&self.dir(controller))?;
            }
            if controller == "cpuset" {
                limits::inherit_cpuset(&self.path)?;
            }
            self.controllers.push(controller);
        }
        Ok(())
    }

    /// Its directory, of a controller on version 1.
    fn dir(&self, controller: &str) -> PathBuf {
        match self.version {
            Version::V1 => [ROOT, controller, &self.path].iter().collect(),
            Version::V2 => [ROOT, &self.path].iter().collect(),
        }
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> Result<(), Error> {
        let path = self.dir(controller).join(file);
        write(&path, value).step(|| format!("write {value:?} to {}", path.display()))
    }

    /// Files that a process writes `0` to, to move itself into the group.
    pub fn entrances(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![self.dir("").join("cgroup.procs")],
            Version::V1 => self
                .controllers
                .iter()
                .map(|c| self.dir(c).join("cgroup.procs"))
                .collect(),
        }
    }

    /// Whether it has a directory of this version 1 controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    /// As [`Group::entrances`] of version 1, each with the name of its controller; none on version 2, where a group with groups below
    /// takes no processes.
    pub fn named_entrances(&self) -> Vec<(String, PathBuf)> {
        let of = |c: &&str| (c.to_string(), self.dir(c).join("cgroup.procs"));
        self.controllers.iter().map(of).collect()
    }

    /// On version 2 its directory, for forking straight into it.
    pub fn directory(&self) -> Option<OwnedFd> {
        if self.version == Version::V1 {
            return None;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(self.dir(""), flags, Mode::empty()).ok()
    }

    /// On version 2 the directory in which a process of it is by now: in a group below it, if an init system moved it there.
    pub fn directory_with(&self, pid: u32) -> Option<OwnedFd> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
        if self.version == Version::V1 || !Path::new(path).starts_with(&self.path) {
            return self.directory();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(Path::new(ROOT).join(path), flags, Mode::empty()).ok()
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.entrances().iter().try_for_each(|p| write(p, &pid.to_string()))
    }

    fn set_devices(&self, rules: &[Rule]) -> Result<(), Error> {
        match self.version {
            Version::V1 => {
                if !self.controllers.contains(&"devices") {
                    return Ok(());
                }
                self.write("devices", "devices.deny", "a")?;
                rules
                    .iter()
                    .try_for_each(|r| self.write("devices", "devices.allow", &device_line(r)))
            }
            Version::V2 => self.filter_devices(rules, Listed::Allowed),
        }
    }

    /// Forbids these accesses to devices, of all that are allowed.
    pub fn forbid_devices(&self, rules: &[Rule]) -> Result<(), Error> {
        match self.version {
            Version::V1 => rules
                .iter()
                .try_for_each(|r| self.write("devices", "devices.deny", &device_line(r))),
            Version::V2 => self.filter_devices(rules, Listed::Forbidden),
        }
    }

    fn filter_devices(&self, rules: &[Rule], listed: Listed) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(self.dir(""), flags, Mode::empty())
            .step(|| format!("open control group {}", self.path))?;
        device_filter::attach(dir, rules, listed).step(|| "restrict devices of the control group".into())
    }

    /// Freezes all its processes and waits until they are.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true)
    }

    /// Thaws them.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        let (file, value, state, seen) = match (self.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN\n"),
            (Version::V1, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED\n"),
            (Version::V2, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1\n"),
            (Version::V2, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0\n"),
        };
        let dir = self.dir("freezer");
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Version 1 may miss a process that is just being made: writing again catches it.
            self.write("freezer", file, value)?;
            let now =
                fs::read_to_string(dir.join(state)).step(|| format!("read {state} of control group {}", self.path))?;
            if now.contains(seen) {
                return Ok(());
            }
            if Instant::now() > deadline {
                // Half frozen is worse than not at all.
                let _ = self.write(
                    "freezer",
                    if file == "cgroup.freeze" { file } else { "freezer.state" },
                    if file == "cgroup.freeze" { "0" } else { "THAWED" },
                );
                return Err(io::Error::from(io::ErrorKind::TimedOut))
                    .step(|| format!("freeze control group {}: a process is stuck in the kernel", self.path));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ids of its processes as the host sees them, with those of groups that were made inside.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let controller = self.controllers.first().copied().unwrap_or_default();
        let mut pids = Vec::new();
        pids_below(&self.dir(controller), &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills all its processes, frozen or not.
    pub fn kill(&self) {
        let dirs: Vec<PathBuf> = match self.version {
            Version::V2 => vec![self.dir("")],
            Version::V1 => self.controllers.iter().map(|c| self.dir(c)).collect(),
        };
        kill_all(&dirs);
    }

    /// Removes it; it must be empty, or become so within seconds.
    pub fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        let controllers = match self.version {
            Version::V2 => &[""][..],
            Version::V1 => &self.controllers[..],
        };
        for c in controllers {
            result = result.and(remove_tree(&self.dir(c)));
        }
        result
    }
}

/// A rule as the devices controller of version 1 reads it.
pub fn device_line(r: &Rule) -> String {
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let mut line = format!(
        "{} {}:{} ",
        if r.block { 'b' } else { 'c' },
        number(r.major),
        number(r.minor)
    );
    let access = [(r.read, 'r'), (r.write, 'w'), (r.mknod, 'm')];
    line.extend(access.iter().filter(|(on, _)| *on).map(|(_, c)| c));
    line
}

/// Writes without creating or truncating, as files of control groups want it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(fd, value.as_bytes())?;
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    open_dir(path).step(|| format!("make control group {}", path.display()))
}

/// Makes a directory that all may walk through, whatever the umask: root of a user namespace is nobody here, and the kernel
/// walks down to its group with its rights when it mounts the view of it.
fn open_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            open_dir(path.parent().ok_or(e)?)?;
            open_dir(path)
        }
        Err(e) => Err(e),
    }
}

fn pids_in(dir: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    let mut pids: Vec<u32> = text
        .lines()
        .filter_map(|l| l.parse().ok())
        .filter(|p| *p != 0)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn pids_below(dir: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    pids.extend(pids_in(dir)?);
    for entry in fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        // A group made inside may go while it is looked at.
        let _ = pids_below(&entry.path(), pids);
    }
    Ok(())
}

/// Kills whatever is in these directories (one group, seen by each controller). Twice over, since a process may fork meanwhile.
fn kill_all(dirs: &[PathBuf]) {
    for dir in dirs {
        // Version 2 does it in one step.
        if write(&dir.join("cgroup.kill"), "1").is_ok() {
            continue;
        }
        for _ in 0..100 {
            let pids = pids_in(dir).unwrap_or_default();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                // Gone meanwhile is fine; anything else shows when the group cannot be removed.
                let _ = biga_sys::process::signal_pid(pid, 9);
            }
            thaw_all(dirs);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A frozen process dies only when thawed.
fn thaw_all(dirs: &[PathBuf]) {
    for dir in dirs {
        // Only the freezer's directory has the file.
        let _ = write(&dir.join("freezer.state"), "THAWED");
    }
}

/// Removes a group and those below it (a container may have made some).
fn remove_tree(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let e = match rustix::fs::rmdir(dir) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(e) => e,
        };
        if e != rustix::io::Errno::BUSY || Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "cannot remove control group {}: {e}",
                dir.display()
            )));
        }
        // Whoever is still there was missed by everything else.
        if !pids_in(dir).unwrap_or_default().is_empty() {
            kill_all(&[dir.to_owned()]);
        }
        if let Ok(entries) = fs::read_dir(dir) {
            for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
                kill_all(&[entry.path()]);
                remove_tree(&entry.path())?;
            }
        }
        if rustix::fs::rmdir(dir).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills and removes every group right below `prefix` whose name is not in `live`: what shims left that were killed. Answers
/// the names found.
pub fn sweep(prefix: &str, live: &[&str]) -> io::Result<Vec<String>> {
    let roots = roots()?;
    let mut found: Vec<String> = Vec::new();
    for root in &roots {
        let Ok(entries) = fs::read_dir(root.join(prefix)) else {
            continue;
        };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !live.contains(&name.as_str()) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found.iter().try_for_each(|name| take_away(&roots, prefix, name))?;
    Ok(found)
}

/// Kills and removes the group `name` right below `prefix`, if there is one: what one shim left that was killed.
pub fn clear(prefix: &str, name: &str) -> io::Result<()> {
    take_away(&roots()?, prefix, name)
}

/// Removes groups without anything in them along a path, the lowest first: what was made for a group below that is gone.
pub fn prune(path: &str) {
    for root in roots().unwrap_or_default() {
        let mut at = Some(Path::new(path));
        while let Some(p) = at.filter(|p| !p.as_os_str().is_empty()) {
            if rustix::fs::rmdir(root.join(p)).is_err() {
                break;
            }
            at = p.parent();
        }
    }
}

/// Where groups of ours can be: the roots of all hierarchies.
fn roots() -> io::Result<Vec<PathBuf>> {
    match version() {
        Version::V1 => Ok(fs::read_dir(ROOT)?.flatten().map(|e| e.path()).collect()),
        _ => Ok(vec![PathBuf::from(ROOT)]),
    }
}

fn take_away(roots: &[PathBuf], prefix: &str, name: &str) -> io::Result<()> {
    let at = |r: &PathBuf| r.join(prefix).join(name);
    let dirs: Vec<PathBuf> = roots.iter().map(at).filter(|d| d.exists()).collect();
    // A frozen group may hold its processes in groups below.
    thaw_all(&dirs);
    kill_all(&dirs);
    dirs.iter().try_for_each(|d| remove_tree(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_must_stay_below_the_root() {
        for path in ["", "/", "../x", "a/../../b"] {
            assert!(
                matches!(Group::create(path, &Limits::default(), None), Err(Error::Field(..))),
                "{path:?}"
            );
        }
    }

    #[test]
    fn device_lines() {
        let r = Rule {
            block: false,
            major: Some(1),
            minor: None,
            read: true,
            write: false,
            mknod: true,
        };
        assert_eq!(device_line(&r), "c 1:* rm");
    }
}
