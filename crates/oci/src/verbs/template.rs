//! A configuration to begin with.

use std::path::Path;

use serde_json::{Value, json};

use crate::args::Options;
use crate::error::{Error, Step};

pub(super) fn spec(rest: Vec<String>) -> Result<i32, Error> {
    let o = Options::parse(rest, &[("bundle", "b", true), ("rootless", "", false)], false)?;
    o.at_most(0)?;
    if o.has("rootless") {
        return Err(Error::Usage(
            "containers without root are not supported by this runtime".into(),
        ));
    }
    let path = Path::new(o.get("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::Usage(format!("{} exists: remove it first", path.display())));
    }
    let text = serde_json::to_string_pretty(&document()).map_err(std::io::Error::from);
    let what = || format!("write {}", path.display());
    std::fs::write(&path, text.step(what)? + "\n").step(what)?;
    Ok(0)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// A shell, with what Docker calls the least.
fn document() -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let secure = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&secure[..], more].concat();
    json!({
        "ociVersion": super::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "biga",
        "mounts": [
            mount("/proc", "proc", "proc", &secure),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &with(&["mode=1777", "size=65536k"])),
            mount("/dev/mqueue", "mqueue", "mqueue", &secure),
            mount("/sys", "sysfs", "sysfs", &with(&["ro"])),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(&["relatime", "ro"])),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
                "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Wanted;
    use crate::{spec::Spec, state, validate};

    #[test]
    fn what_is_written_is_valid() {
        let spec: Spec = state::parse(document().to_string().as_bytes()).unwrap();
        validate::spec(&spec, &Wanted::read(&spec.linux.namespaces).unwrap()).unwrap();
    }
}
