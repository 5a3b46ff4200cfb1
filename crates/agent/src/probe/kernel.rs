//! What the kernel offers containers: control groups, namespaces, filters, capabilities, overlay.

use biga_container::caps::NAMES as CAPABILITIES;
use std::path::Path;

use biga_model::Ability;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Resource, getrlimit};
use rustix::thread::UnshareFlags;

use super::erofs::{knows, private_tmpfs};
use super::host::{Host, apart};
use super::{degraded, missing, ok};

/// A controller, its v1 name where that differs, and what is lost without it.
const CONTROLLERS: [(&str, &str, &str); 5] = [
    ("cpu", "cpu", "processor limits"),
    ("memory", "memory", "memory limits and figures"),
    ("pids", "pids", "limits on the number of processes"),
    ("cpuset", "cpuset", "pinning to processors"),
    ("io", "blkio", "disk weights and limits"),
];

/// Needed in v1 only: v2 does their work without a controller.
const V1_ONLY: [(&str, &str); 3] = [
    ("devices", "the list of devices a container may open"),
    ("freezer", "pause and resume"),
    ("cpuacct", "figures of processor time"),
];

/// What is mounted under `/sys/fs/cgroup`.
struct Groups {
    version: &'static str,
    v1: Vec<String>,
    v2: Vec<String>,
}

fn groups(host: &Host) -> Groups {
    let (mut v1, mut v2, mut unified, mut root_is_v2) = (Vec::new(), Vec::new(), false, false);
    for line in host.read("/proc/self/mounts").unwrap_or_default().lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(target), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        match kind {
            "cgroup" => v1.extend(options.split(',').map(str::to_owned)),
            "cgroup2" => {
                unified = true;
                root_is_v2 |= target == "/sys/fs/cgroup";
                let list = host.read(&format!("{target}/cgroup.controllers")).unwrap_or_default();
                v2.extend(list.split_whitespace().map(str::to_owned));
            }
            _ => {}
        }
    }
    let version = match (root_is_v2, unified, v1.is_empty()) {
        (true, _, true) | (_, true, true) => "v2",
        (_, true, false) => "hybrid",
        (_, false, false) => "v1",
        (_, false, true) => "",
    };
    Groups { version, v1, v2 }
}

pub(super) fn cgroup_version(host: &Host) -> &'static str {
    groups(host).version
}

pub(super) fn cgroup(host: &Host) -> Ability {
    let found = groups(host);
    if found.version.is_empty() {
        let remedy = "mount cgroup2 at /sys/fs/cgroup (systemd does)";
        return missing(
            "cgroup",
            "no control groups are mounted",
            "containers cannot run",
            remedy,
        );
    }
    let has = |v2: &str, v1: &str| found.v2.iter().any(|c| c == v2) || found.v1.iter().any(|c| c == v1);
    let mut lacking: Vec<(&str, &str)> = CONTROLLERS
        .iter()
        .filter(|(v2, v1, _)| !has(v2, v1))
        .map(|(name, _, cost)| (*name, *cost))
        .collect();
    if found.version != "v2" {
        lacking.extend(V1_ONLY.iter().filter(|(name, _)| !has(name, name)));
    }
    if lacking.is_empty() {
        return ok("cgroup", found.version);
    }
    let names: Vec<_> = lacking.iter().map(|(name, _)| *name).collect();
    let costs: Vec<_> = lacking.iter().map(|(_, cost)| *cost).collect();
    degraded(
        "cgroup",
        format!("{}, without {}", found.version, names.join(", ")),
        format!("not to be had: {}", costs.join("; ")),
        "see /proc/cgroups, and cgroup_disable= on the kernel command line",
    )
}

pub(super) fn namespaces(host: &Host) -> Ability {
    let all = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    let lacking: Vec<_> = all
        .into_iter()
        .filter(|n| !host.exists(&format!("/proc/self/ns/{n}")))
        .collect();
    let users = host
        .read("/proc/sys/user/max_user_namespaces")
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0);
    match lacking.as_slice() {
        [] if users > 0 => ok("namespaces", "all, user namespaces too"),
        [] | ["user"] => degraded(
            "namespaces",
            "no user namespaces",
            "root in a container is root of the host, held only by capabilities and seccomp",
            "sysctl -w user.max_user_namespaces=65536",
        ),
        some => missing(
            "namespaces",
            format!("the kernel lacks {}", some.join(", ")),
            "containers cannot run",
            "use a distribution's kernel",
        ),
    }
}

pub(super) fn seccomp(host: &Host) -> Ability {
    match host.read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.split_whitespace().any(|a| a == "errno") => ok("seccomp", "filters"),
        _ => missing(
            "seccomp",
            "the kernel does not filter system calls",
            "containers reach every system call of the host's kernel; those that ask for the default profile do not start",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

/// Without these no instance of any isolation starts.
const VITAL: [&str; 6] = ["CHOWN", "NET_ADMIN", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT"];

pub(super) fn capabilities(host: &Host) -> Ability {
    let status = host.read("/proc/self/status").unwrap_or_default();
    let set = |name: &str| {
        let value = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(value.trim(), 16).ok()
    };
    let (Some(bounding), Some(effective)) = (set("CapBnd"), set("CapEff")) else {
        return degraded(
            "capabilities",
            "/proc/self/status does not tell them",
            "unknown",
            "mount /proc",
        );
    };
    let last = host
        .read("/proc/sys/kernel/cap_last_cap")
        .and_then(|n| n.parse().ok())
        .unwrap_or(CAPABILITIES.len() - 1);
    let lacking = |set: u64| -> Vec<&str> {
        CAPABILITIES
            .iter()
            .enumerate()
            .take(last + 1)
            .filter(|(n, _)| set >> n & 1 == 0)
            .map(|(_, name)| *name)
            .collect()
    };
    let absent = lacking(bounding & effective);
    let vital: Vec<_> = absent.iter().copied().filter(|c| VITAL.contains(c)).collect();
    if !vital.is_empty() {
        let detail = format!("this process lacks {}", vital.join(", "));
        return missing(
            "capabilities",
            detail,
            "instances cannot be started",
            "run `biga serve` as root",
        );
    }
    if absent.is_empty() {
        return ok("capabilities", "all");
    }
    degraded(
        "capabilities",
        format!("this process lacks {}", absent.join(", ")),
        "a container that asks for them, or for all, gets what is left",
        "grant them to the service, or to the container or machine this host is",
    )
}

/// Each running instance holds a handful of descriptors.
pub(super) fn open_files() -> Ability {
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(n) if n < 65_536 => degraded(
            "open-files",
            format!("at most {n}"),
            "containers cannot ask for a higher limit, and some hundreds of instances exhaust it",
            "LimitNOFILE= of the service, or the hard limit of the login",
        ),
        Some(n) => ok("open-files", format!("at most {n}")),
        None => ok("open-files", "unlimited"),
    }
}

pub(super) fn overlay(host: &Host) -> Ability {
    let cost = "containers cannot run: a container's root is an overlay of its image's layers";
    let trial = apart(UnshareFlags::NEWNS, || {
        private_tmpfs().and_then(|dir| mount_overlay(&dir))
    });
    match trial.unwrap_or_else(|e| Err(format!("no mount namespace: {e}"))) {
        Ok(()) => ok("overlay", "mounts"),
        // Stacking on the tmpfs of the trial may be forbidden where stacking on a disk is not.
        Err(why) if knows(host, "overlay") => degraded("overlay", why, cost, "run `biga serve` as root"),
        Err(why) => missing("overlay", why, cost, "load the module: `modprobe overlay`"),
    }
}

fn mount_overlay(dir: &Path) -> Result<(), String> {
    for name in ["lower", "upper", "work", "biga-probe-merged"] {
        std::fs::create_dir(dir.join(name)).map_err(|e| e.to_string())?;
    }
    let options = format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", dir.display());
    let options = std::ffi::CString::new(options).map_err(|e| e.to_string())?;
    let merged = dir.join("biga-probe-merged");
    rustix::mount::mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|e| format!("the kernel does not mount it: {e}"))?;
    let written = std::fs::write(merged.join("file"), "x").map_err(|e| format!("it cannot be written to: {e}"));
    rustix::mount::unmount(&merged, UnmountFlags::DETACH).map_err(|e| e.to_string())?;
    written
}

pub(super) fn bpf(host: &Host) -> Ability {
    match host.read("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Some(_) => ok("bpf", "system call present"),
        None => missing(
            "bpf",
            "the kernel has no bpf()",
            "on cgroup v2 the devices a container may open cannot be restricted",
            "use a kernel with CONFIG_BPF_SYSCALL",
        ),
    }
}

pub(super) fn io_uring(host: &Host) -> Ability {
    let cost = "machine disks use threads in place of io_uring: a little slower";
    match host.read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => ok("io_uring", "enabled"),
        Some("1") => ok("io_uring", "enabled for root"),
        Some(_) => degraded("io_uring", "switched off", cost, "sysctl -w kernel.io_uring_disabled=0"),
        // The switch came with Linux 6.6; the calls are older.
        None => degraded("io_uring", "the kernel does not say", cost, "use Linux 6.6 or newer"),
    }
}

pub(super) fn security_module(host: &Host) -> Ability {
    if host.read("/sys/module/apparmor/parameters/enabled").as_deref() == Some("Y") {
        return ok("security-module", "AppArmor");
    }
    match host.read("/sys/fs/selinux/enforce").as_deref() {
        Some("1") => ok("security-module", "SELinux, enforcing"),
        Some(_) => degraded(
            "security-module",
            "SELinux, permissive",
            "one wall less around containers",
            "setenforce 1",
        ),
        None => missing(
            "security-module",
            "neither AppArmor nor SELinux",
            "one wall less around containers; capabilities and seccomp remain",
            "boot with security=apparmor where the kernel has it",
        ),
    }
}
