//! What of a spec goes word for word into the shim's document.

use std::path::PathBuf;

use biga_container::labels;
use biga_model::{
    ContainerSpec, Instance, InstanceSpec, MountPropagation, Object, Resources, TmpfsSource, VolumeMount,
};
use biga_wire::config::{
    Container, DeviceRule, IoLimit, Limits, Mount, MountHow, MountSource, Process, Propagation, TimeOffsets,
};

use crate::instance::Failure;

/// The signal that asks an init system to shut down: SIGRTMIN+3.
pub const SYSTEM_STOP: i32 = 37;

/// Capabilities that mean nothing in a user namespace, and by which init systems judge whether to mount `debugfs`, load modules,
/// set the clock, and halt the host instead of ending.
pub const OF_THE_HOST: [&str; 6] = [
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// Limits in the shim's words.
pub fn limits(r: &Resources) -> Limits {
    let device = |d: &biga_model::IoDevice| IoLimit {
        device: PathBuf::from(&d.path),
        weight: d.weight,
        read_bps: d.read_bps.map(|m| m.bytes()),
        write_bps: d.write_bps.map(|m| m.bytes()),
        read_iops: d.read_iops,
        write_iops: d.write_iops,
    };
    Limits {
        cpu_millis: r.cpus.map(|c| c.millis()),
        cpu_shares: r.cpu_shares,
        cpuset_cpus: r.cpuset_cpus.clone(),
        memory: r.memory.map(|m| m.bytes()),
        memory_swap: r.memory_swap.map(|m| m.bytes()),
        memory_reservation: r.memory_reservation.map(|m| m.bytes()),
        pids: r.pids_limit,
        oom_score_adj: r.oom_score_adj,
        cpu_quota: r.cpu_quota,
        cpu_period: r.cpu_period,
        cpu_burst: r.cpu_burst,
        cpu_realtime_runtime: r.cpu_realtime_runtime,
        cpu_realtime_period: r.cpu_realtime_period,
        cpuset_mems: r.cpuset_mems.clone(),
        memory_swappiness: r.memory_swappiness,
        oom_kill_disable: r.oom_kill_disable,
        io_weight: r.io_weight,
        io_devices: r.io_devices.iter().map(device).collect(),
        hugetlb: r.hugepages.iter().map(|(k, m)| (k.clone(), m.bytes())).collect(),
        unified: r.unified.clone(),
    }
}

/// How a volume is mounted.
pub fn how(m: &VolumeMount) -> MountHow {
    MountHow {
        flat: m.non_recursive,
        read_only_flat: m.read_only_non_recursive,
        propagation: match m.propagation {
            MountPropagation::Private => Propagation::Private,
            MountPropagation::Slave => Propagation::Slave,
            MountPropagation::Shared => Propagation::Shared,
        },
        ..MountHow::default()
    }
}

/// A file system in memory.
pub fn tmpfs(t: &TmpfsSource) -> Result<MountSource, Failure> {
    let mode = t.mode.as_deref().map_or(Ok(0o1777), |m| u32::from_str_radix(m, 8));
    let mode = mode.map_err(|_| Failure::new("VolumeFailed", format!("tmpfs mode {:?} is not octal", t.mode)))?;
    Ok(MountSource::Tmpfs {
        size: t.size.map(|s| s.bytes()),
        mode,
        options: t.options.clone(),
    })
}

/// Fills what of a container depends on nothing else. Its namespaces of other instances, ids and mounts are the caller's.
pub fn fill(container: &mut Container, instance: &InstanceSpec, spec: &ContainerSpec) -> Result<(), Failure> {
    let s = &spec.security;
    container.seccomp_profile = s.seccomp_profile.clone();
    container.masked_paths = s.masked_paths.clone();
    container.read_only_paths = s.read_only_paths.clone();
    container.device_rules = device_rules(&spec.device_rules)?;
    container.apparmor = Some(s.apparmor.clone()).filter(|p| !p.is_empty());
    if labels::has_selinux()
        && let Some((process, mount)) = selinux(&s.selinux)
    {
        (container.selinux, container.mount_label) = (Some(process), Some(mount));
    }
    container.namespaces.time = instance.namespaces.time.map(|t| TimeOffsets {
        monotonic: t.monotonic,
        boottime: t.boottime,
    });
    container.system = spec.system;
    Ok(())
}

fn device_rules(texts: &[String]) -> Result<Vec<DeviceRule>, Failure> {
    let one = |t: &String| {
        let rule: biga_model::DeviceRule = t.parse().map_err(|e: String| Failure::new("BadDeviceRule", e))?;
        Ok(DeviceRule {
            kind: rule.kind,
            major: rule.major,
            minor: rule.minor,
            access: rule.access,
        })
    };
    texts.iter().map(one).collect()
}

/// Labels of processes and of mounts, from parts as Docker's `--security-opt label=…` has them. None without parts.
fn selinux(parts: &[String]) -> Option<(String, String)> {
    if parts.is_empty() || parts.iter().any(|p| p == "disable") {
        return None;
    }
    let part = |key: &str, usual: &str| {
        let found = parts.iter().rev().find_map(|p| p.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or(usual).to_owned()
    };
    let (user, level) = (part("user", "system_u"), part("level", "s0"));
    let process = format!(
        "{user}:{}:{}:{level}",
        part("role", "system_r"),
        part("type", "container_t")
    );
    Some((
        process,
        format!("{user}:object_r:{}:{level}", part("filetype", "container_file_t")),
    ))
}

/// What a spec wishes of the host that this host cannot do, in sentences for people.
pub fn left_out(object: &Object<Instance>) -> Vec<String> {
    let mut out = Vec::new();
    for c in object.spec.all_containers() {
        let s = &c.security;
        if !matches!(s.apparmor.as_str(), "" | "unconfined") && !labels::has_apparmor() {
            out.push(format!(
                "AppArmor profile {:?} was left out: this host has no AppArmor",
                s.apparmor
            ));
        }
        if selinux(&s.selinux).is_some() && !labels::has_selinux() {
            out.push("the SELinux label was left out: this host has no SELinux".to_owned());
        }
    }
    out
}

/// What an init system finds: a console, a name for what it runs in, and memory where it expects some.
pub fn system(process: &mut Process, mounts: &mut Vec<Mount>, uid: &str) {
    process.tty = true;
    for (name, value) in [("container", "biga"), ("container_uuid", uid)] {
        if !process.env.iter().any(|v| v.split('=').next() == Some(name)) {
            process.env.push(format!("{name}={value}"));
        }
    }
    let wanted = [("/run", 0o755), ("/run/lock", 0o1777), ("/tmp", 0o1777)];
    let memory = |(target, mode): (&str, u32)| Mount {
        source: MountSource::Tmpfs {
            size: None,
            mode,
            options: vec!["nosuid".into(), "nodev".into()],
        },
        target: target.to_owned(),
        read_only: false,
        copy_up: false,
        how: MountHow::default(),
    };
    let free = |target: &str| !mounts.iter().any(|m| m.target.trim_end_matches('/') == target);
    let new: Vec<Mount> = wanted.into_iter().filter(|(t, _)| free(t)).map(memory).collect();
    // First, so that what the user mounts below lies on top.
    mounts.splice(0..0, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_put_together() {
        let list = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        assert_eq!(selinux(&list(&[])), None);
        assert_eq!(selinux(&list(&["type:x_t", "disable"])), None);
        assert_eq!(
            selinux(&list(&["type:x_t", "level:s0:c1,c2"])),
            Some((
                "system_u:system_r:x_t:s0:c1,c2".into(),
                "system_u:object_r:container_file_t:s0:c1,c2".into()
            ))
        );
    }

    #[test]
    fn an_init_system_keeps_what_the_user_mounts() {
        let mut process = Process {
            env: vec!["container=mine".into()],
            ..Process::default()
        };
        let own = Mount {
            source: MountSource::Bind {
                path: "/srv".into(),
                sub_path: None,
            },
            target: "/tmp/".into(),
            read_only: false,
            copy_up: false,
            how: MountHow::default(),
        };
        let mut mounts = vec![own.clone()];
        system(&mut process, &mut mounts, "u-1");
        assert!(process.tty);
        assert_eq!(process.env, ["container=mine", "container_uuid=u-1"]);
        let targets: Vec<&str> = mounts.iter().map(|m| m.target.as_str()).collect();
        assert_eq!(targets, ["/run", "/run/lock", "/tmp/"]);
        assert_eq!(mounts[2], own);
    }
}
