//! What is wrong with a configuration, before anything is made: what makes no sense, and what this runtime or host cannot do.
//! Nothing of it is dropped silently.

use crate::confine;
use crate::error::Error;
use crate::namespaces::{Kind, Wanted};
use crate::options;
use crate::spec::{Hook, Hooks, Linux, Process, Spec};

/// Checks a configuration for a new container.
pub fn spec(spec: &Spec, wanted: &Wanted) -> Result<(), Error> {
    version(&spec.oci_version)?;
    let Some(process) = &spec.process else {
        return Err(Error::invalid("process", "it is missing: there is nothing to run"));
    };
    process_fields(process)?;
    if spec.root.as_ref().is_none_or(|r| r.path.is_empty()) {
        return Err(Error::invalid("root.path", "it is missing"));
    }
    for (name, there) in [
        ("windows", &spec.windows),
        ("solaris", &spec.solaris),
        ("vm", &spec.vm),
        ("zos", &spec.zos),
    ] {
        if there.is_some() {
            return Err(Error::unsupported(name, "it is for another platform"));
        }
    }
    if (!spec.hostname.is_empty() || !spec.domainname.is_empty()) && !wanted.has(Kind::Uts) {
        return Err(Error::invalid(
            "hostname",
            "it would be the host's: the container needs a uts namespace",
        ));
    }
    hooks(&spec.hooks)?;
    mounts(spec)?;
    linux(&spec.linux, wanted)
}

/// Versions before 1 differ; those of a next major one are not known.
fn version(text: &str) -> Result<(), Error> {
    if text.split('.').next() == Some("1") {
        return Ok(());
    }
    Err(Error::invalid("ociVersion", format!("{text:?} is not of version 1")))
}

/// Checks a process, of a container or of an exec.
pub fn process_fields(p: &Process) -> Result<(), Error> {
    if p.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args", "there is nothing to run"));
    }
    if !p.cwd.starts_with('/') {
        return Err(Error::invalid("process.cwd", format!("{:?} is not absolute", p.cwd)));
    }
    if !p.command_line.is_empty() || !p.user.username.is_empty() {
        return Err(Error::unsupported(
            "process.commandLine, process.user.username",
            "they are for another platform",
        ));
    }
    for variable in &p.env {
        if variable.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(Error::invalid("process.env", format!("{variable:?} is not NAME=value")));
        }
    }
    if p.args.iter().chain(&p.env).any(|s| s.contains('\0')) {
        return Err(Error::invalid("process", "an argument or variable holds a zero byte"));
    }
    if p.oom_score_adj.is_some_and(|n| !(-1000..=1000).contains(&n)) {
        return Err(Error::invalid("process.oomScoreAdj", "it goes from -1000 to 1000"));
    }
    Ok(())
}

fn hooks(all: &Hooks) -> Result<(), Error> {
    let lists: [(&str, &[Hook]); 6] = [
        ("prestart", &all.prestart),
        ("createRuntime", &all.create_runtime),
        ("createContainer", &all.create_container),
        ("startContainer", &all.start_container),
        ("poststart", &all.poststart),
        ("poststop", &all.poststop),
    ];
    for (name, list) in lists {
        for hook in list {
            if !hook.path.starts_with('/') {
                return Err(Error::invalid(
                    format!("hooks.{name}"),
                    format!("{:?} is not absolute", hook.path),
                ));
            }
            if hook.timeout.is_some_and(|t| t <= 0) {
                return Err(Error::invalid(format!("hooks.{name}"), "a timeout must be over 0"));
            }
        }
    }
    Ok(())
}

fn mounts(spec: &Spec) -> Result<(), Error> {
    for mount in &spec.mounts {
        if mount.destination.is_empty() {
            return Err(Error::invalid("mounts.destination", "it is empty"));
        }
        let read = options::Options::read(&mount.kind, &mount.options)?;
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if mapped != read.ids.is_some() && (read.ids.is_some() || read.bind.is_some()) {
            return Err(Error::invalid(
                "mounts.uidMappings",
                format!(
                    "{}: mappings and the option idmap or ridmap go together",
                    mount.destination
                ),
            ));
        }
        if mapped && read.bind.is_none() {
            return Err(Error::unsupported(
                "mounts.uidMappings",
                format!("{}: only what is bound can show other owners", mount.destination),
            ));
        }
        if read.copy_up && mount.kind != "tmpfs" {
            return Err(Error::invalid(
                "mounts.options",
                format!("{}: tmpcopyup is for tmpfs", mount.destination),
            ));
        }
    }
    Ok(())
}

fn linux(l: &Linux, wanted: &Wanted) -> Result<(), Error> {
    if !wanted.has(Kind::Mount) {
        return Err(Error::unsupported(
            "linux.namespaces",
            "a container needs a mount namespace: without one its mounts would be the host's",
        ));
    }
    let maps = !l.uid_mappings.is_empty() || !l.gid_mappings.is_empty();
    if wanted.is_new(Kind::User) && (l.uid_mappings.is_empty() || l.gid_mappings.is_empty()) {
        return Err(Error::invalid(
            "linux.uidMappings",
            "a new user namespace needs uidMappings and gidMappings",
        ));
    }
    if maps && !wanted.has(Kind::User) {
        return Err(Error::invalid(
            "linux.uidMappings",
            "there are mappings, and no user namespace",
        ));
    }
    if !l.time_offsets.is_empty() && !wanted.is_new(Kind::Time) {
        return Err(Error::invalid("linux.timeOffsets", "they need a new time namespace"));
    }
    if let Some(clock) = l
        .time_offsets
        .keys()
        .find(|k| !["monotonic", "boottime"].contains(&k.as_str()))
    {
        return Err(Error::invalid(
            "linux.timeOffsets",
            format!("there is no clock {clock:?}"),
        ));
    }
    for name in l.sysctl.keys() {
        if !confine::own_sysctl(name, |k| wanted.has(k)) {
            return Err(Error::invalid(
                "linux.sysctl",
                format!("{name:?} belongs to the host, not to a namespace of the container"),
            ));
        }
    }
    if !l.rootfs_propagation.is_empty() && options::propagation(&l.rootfs_propagation).is_none() {
        return Err(Error::invalid(
            "linux.rootfsPropagation",
            format!("there is no {:?}", l.rootfs_propagation),
        ));
    }
    if !l.mount_label.is_empty() && !biga_container::labels::has_selinux() {
        return Err(Error::unsupported(
            "linux.mountLabel",
            "this host has no SELinux: leave it out",
        ));
    }
    if l.intel_rdt
        .as_ref()
        .is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty()))
    {
        return Err(Error::unsupported(
            "linux.intelRdt",
            "cache and memory bandwidth are not shared out by this runtime",
        ));
    }
    if !l.net_devices.is_empty() {
        return Err(Error::unsupported(
            "linux.netDevices",
            "network devices are not moved by this runtime",
        ));
    }
    if l.memory_policy.is_some() {
        return Err(Error::unsupported(
            "linux.memoryPolicy",
            "it is not set by this runtime",
        ));
    }
    paths("linux.maskedPaths", &l.masked_paths)?;
    paths("linux.readonlyPaths", &l.readonly_paths)
}

fn paths(field: &str, all: &[String]) -> Result<(), Error> {
    match all.iter().find(|p| !p.starts_with('/')) {
        Some(p) => Err(Error::invalid(field, format!("{p:?} is not absolute"))),
        None => Ok(()),
    }
}

/// The execution domain's number.
pub fn personality(l: &Linux) -> Result<Option<u64>, Error> {
    let Some(p) = &l.personality else { return Ok(None) };
    if !p.flags.is_empty() {
        return Err(Error::unsupported("linux.personality.flags", "none is defined"));
    }
    match p.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => Err(Error::invalid("linux.personality", format!("there is no {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::parse;

    const GOOD: &str = r#"{"ociVersion":"1.2.0","process":{"args":["true"],"cwd":"/"},"root":{"path":"rootfs"},
        "linux":{"namespaces":[{"type":"mount"},{"type":"network"},{"type":"ipc"}]}}"#;

    fn check(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), Error> {
        let mut value: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        change(&mut value);
        let read: Spec = parse(&serde_json::to_vec(&value).unwrap()).unwrap();
        spec(&read, &Wanted::read(&read.linux.namespaces)?)
    }

    #[test]
    fn the_least_is_enough() {
        check(|_| {}).unwrap();
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let cases: [(&str, serde_json::Value, &str); 14] = [
            ("/ociVersion", "2.0.0".into(), "ociVersion"),
            ("/process/args", serde_json::json!([]), "process.args"),
            ("/process/cwd", "x".into(), "process.cwd"),
            ("/process/env", serde_json::json!(["A"]), "process.env"),
            ("/process/commandLine", "x".into(), "commandLine"),
            ("/hostname", "x".into(), "hostname"),
            ("/windows", serde_json::json!({"x": 1}), "windows"),
            ("/linux/intelRdt", serde_json::json!({"closID": "x"}), "intelRdt"),
            ("/linux/namespaces", serde_json::json!([]), "namespaces"),
            (
                "/linux/sysctl",
                serde_json::json!({"kernel.core_pattern": "x"}),
                "core_pattern",
            ),
            ("/linux/rootfsPropagation", "odd".into(), "rootfsPropagation"),
            (
                "/linux/timeOffsets",
                serde_json::json!({"boottime": {"secs": 1}}),
                "timeOffsets",
            ),
            ("/linux/maskedPaths", serde_json::json!(["x"]), "maskedPaths"),
            ("/linux/netDevices", serde_json::json!({"eth0": {}}), "netDevices"),
        ];
        for (path, value, word) in cases {
            let (parent, name) = path.rsplit_once('/').unwrap();
            let error = check(|v| v.pointer_mut(parent).unwrap()[name] = value)
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{path}: {error}");
        }
    }

    #[test]
    fn kernel_parameters_follow_their_namespace() {
        let set = |name: &str| check(|v| v["linux"]["sysctl"] = serde_json::json!({name: "1"}));
        set("net.ipv4.ip_forward").unwrap();
        set("kernel.shmmax").unwrap();
        set("net/ipv4/ip_forward").unwrap();
        for name in [
            "kernel.hostname",
            "vm.swappiness",
            "net/../kernel/core_pattern",
            "net...x",
        ] {
            assert!(set(name).is_err(), "{name}");
        }
    }
}
