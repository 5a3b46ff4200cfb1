//! Rules of what an instance shares and of the finer limits.

use super::instance_validate::{Errors, is_clean_absolute};
use super::runtime::{DeviceRule, NamespaceSpec, Resources, Share, UserIds};
use crate::kind::is_resource_name;
use crate::{ContainerSpec, InstanceSpec, Isolation, NetworkMode};

/// What Biga's own runtime is called where a name is asked for.
const OWN: &str = "biga";

/// Naming Biga's own runtime means to name none.
pub(super) fn set_defaults(spec: &mut InstanceSpec) {
    spec.runtime = spec.runtime.take().filter(|r| !r.is_empty() && r != OWN);
}

/// Looks at all of it.
pub(super) fn validate(spec: &InstanceSpec, e: &mut Errors) {
    namespaces(spec, e);
    if let Some(runtime) = &spec.runtime {
        other_runtime(spec, runtime, e);
    }
    limits(&spec.resources, "spec.resources", e);
    if let Some(parent) = &spec.cgroup_parent
        && (!parent
            .trim_matches('/')
            .split('/')
            .all(|p| !p.is_empty() && !p.starts_with('.'))
            || parent.contains('\0'))
    {
        e.add("spec.cgroupParent", "is a path of plain names, as in \"tenants/a\"");
    }
    if spec.isolation != Isolation::Container {
        only_containers(spec, e);
    }
    for (i, c) in spec.init_containers.iter().enumerate() {
        let at = format!("spec.initContainers[{i}]");
        container(spec, c, &at, e);
        limits(&c.resources, &format!("{at}.resources"), e);
    }
    for (i, c) in spec.containers.iter().enumerate() {
        let at = format!("spec.containers[{i}]");
        container(spec, c, &at, e);
        limits(&c.resources, &format!("{at}.resources"), e);
    }
    for (i, v) in spec.volumes.iter().enumerate() {
        let odd = |o: &&String| o.is_empty() || o.contains([',', '\0']);
        if v.tmpfs.as_ref().is_some_and(|t| t.options.iter().any(|o| odd(&o))) {
            e.add(
                format!("spec.volumes[{i}].tmpfs.options"),
                "are options of mount(8), one each",
            );
        }
    }
}

/// Another runtime makes one container from one document: what is more than that only ours does.
fn other_runtime(spec: &InstanceSpec, runtime: &str, e: &mut Errors) {
    let at = "spec.runtime";
    if !is_resource_name(runtime) && !is_clean_absolute(runtime) {
        e.add(
            at,
            format!("{runtime:?} is neither the name nor the absolute path of a runtime"),
        );
    }
    if spec.isolation != Isolation::Container {
        e.add(at, format!("is only for isolation container, not {}", spec.isolation));
        return;
    }
    let only_own = [
        (spec.is_pod(), "several containers in an instance"),
        (spec.containers.iter().any(|c| c.system), "system"),
        (spec.namespaces.user == UserIds::Private, "namespaces.user private"),
    ];
    for (_, what) in only_own.iter().filter(|(asked, _)| *asked) {
        e.add(
            at,
            format!("{what} is only done by Biga's own runtime: leave the runtime out"),
        );
    }
}

fn namespaces(spec: &InstanceSpec, e: &mut Errors) {
    let n = &spec.namespaces;
    let at = |field: &str| format!("spec.namespaces.{field}");
    for (field, share) in [("pid", &n.pid), ("ipc", &n.ipc), ("uts", &n.uts), ("cgroup", &n.cgroup)] {
        match share {
            Share::Instance(_) if field == "cgroup" => e.add(at(field), "is private or host"),
            Share::Instance(name) if !is_resource_name(name) => {
                e.add(at(field), format!("{name:?} is no valid name of an instance"));
            }
            _ => {}
        }
    }
    if let Some(name) = &n.network {
        if !is_resource_name(name) {
            e.add(at("network"), format!("{name:?} is no valid name of an instance"));
        }
        if spec.network_mode != NetworkMode::None {
            e.add(
                at("network"),
                "needs networkMode none: it has that instance's networks and none of its own",
            );
        }
    }
    if n.no_shm && (n.ipc != Share::Private || spec.shm_size.is_some()) {
        e.add(at("noShm"), "needs ipc private and no shmSize");
    }
    if n.uts != Share::Private && spec.hostname.is_some() {
        e.add("spec.hostname", "belongs to whom namespaces.uts names");
    }
    if n.user == UserIds::Private {
        private_ids(spec, n, e);
    }
}

/// A user namespace owns the others: what belongs to the host or to another instance is out of its reach.
fn private_ids(spec: &InstanceSpec, n: &NamespaceSpec, e: &mut Errors) {
    let own = [&n.pid, &n.ipc, &n.uts, &n.cgroup]
        .into_iter()
        .all(|s| *s == Share::Private);
    if !own || n.network.is_some() || spec.network_mode == NetworkMode::Host {
        e.add(
            "spec.namespaces.user",
            "private needs namespaces of its own: those of the host and of other instances are not its users'",
        );
    }
    if spec.all_containers().any(|c| c.security.privileged) {
        e.add(
            "spec.namespaces.user",
            "private and privileged exclude each other: privileged means the host's own rights",
        );
    }
}

fn limits(l: &Resources, at: &str, e: &mut Errors) {
    if l.cpu_period.is_some_and(|p| !(1000..=1_000_000).contains(&p)) {
        e.add(format!("{at}.cpuPeriod"), "is 1000 to 1000000 microseconds");
    }
    if l.cpu_quota.is_some_and(|q| q != -1 && q < 1000) {
        e.add(
            format!("{at}.cpuQuota"),
            "is at least 1000 microseconds, or -1 for no limit",
        );
    }
    let period = l.cpu_realtime_period.unwrap_or(1_000_000);
    if period == 0 || l.cpu_realtime_runtime.is_some_and(|r| r > period) {
        e.add(
            format!("{at}.cpuRealtimeRuntime"),
            "is not more than cpuRealtimePeriod, which is 1000000 microseconds where unset",
        );
    }
    if l.memory_swappiness.is_some_and(|n| n > 100) {
        e.add(format!("{at}.memorySwappiness"), "is 0 to 100");
    }
    let weight = |w: Option<u16>| w.is_some_and(|w| !(10..=1000).contains(&w));
    if weight(l.io_weight) {
        e.add(format!("{at}.ioWeight"), "is 10 to 1000");
    }
    for (i, d) in l.io_devices.iter().enumerate() {
        if !is_clean_absolute(&d.path) {
            e.add(
                format!("{at}.ioDevices[{i}].path"),
                "is the absolute path of a block device",
            );
        }
        if weight(d.weight) {
            e.add(format!("{at}.ioDevices[{i}].weight"), "is 10 to 1000");
        }
    }
    let plain = |k: &String| !k.is_empty() && !k.starts_with('.') && !k.contains(['/', '\0']);
    if !l.hugepages.keys().all(plain) {
        e.add(
            format!("{at}.hugepages"),
            "are sizes as the kernel names them, as in 2MB",
        );
    }
    if !l.unified.keys().all(plain) {
        e.add(
            format!("{at}.unified"),
            "are names of files of a control group, as in memory.high",
        );
    }
}

fn only_containers(spec: &InstanceSpec, e: &mut Errors) {
    if spec.namespaces != NamespaceSpec::default() {
        e.add(
            "spec.namespaces",
            format!(
                "is only for isolation container: a {} has a kernel of its own",
                spec.isolation
            ),
        );
    }
    for (i, c) in spec.containers.iter().enumerate() {
        let s = &c.security;
        let given = [
            ("system", c.system),
            ("deviceRules", !c.device_rules.is_empty()),
            ("security.seccompProfile", s.seccomp_profile.is_some()),
            ("security.apparmor", !s.apparmor.is_empty()),
            ("security.selinux", !s.selinux.is_empty()),
            ("security.maskedPaths", s.masked_paths.is_some()),
            ("security.readOnlyPaths", s.read_only_paths.is_some()),
        ];
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            e.add(
                format!("spec.containers[{i}].{field}"),
                format!("is only for isolation container, not {}", spec.isolation),
            );
        }
        if c.volume_mounts
            .iter()
            .any(|m| m.propagation != Default::default() || m.non_recursive)
        {
            e.add(
                format!("spec.containers[{i}].volumeMounts"),
                "propagation and nonRecursive are only for isolation container",
            );
        }
    }
    let r = &spec.resources;
    if r.cpu_realtime_runtime.is_some() || r.cpu_realtime_period.is_some() {
        e.add(
            "spec.resources.cpuRealtimeRuntime",
            "is only for isolation container: a kernel of its own shares its processors itself",
        );
    }
    for (i, v) in spec.volumes.iter().enumerate() {
        if v.tmpfs.as_ref().is_some_and(|t| !t.options.is_empty()) {
            e.add(
                format!("spec.volumes[{i}].tmpfs.options"),
                "are only for isolation container",
            );
        }
        if v.image.is_some() {
            e.add(
                format!("spec.volumes[{i}].image"),
                format!(
                    "is only for isolation container, not {}: copy the files into a volume",
                    spec.isolation
                ),
            );
        }
    }
}

fn container(spec: &InstanceSpec, c: &ContainerSpec, at: &str, e: &mut Errors) {
    for (i, rule) in c.device_rules.iter().enumerate() {
        if let Err(why) = rule.parse::<DeviceRule>() {
            e.add(format!("{at}.deviceRules[{i}]"), why);
        }
    }
    let s = &c.security;
    if let Some(profile) = &s.seccomp_profile {
        if profile.get("defaultAction").and_then(|a| a.as_str()).is_none() {
            e.add(
                format!("{at}.security.seccompProfile"),
                "is a document in the OCI form, with a defaultAction",
            );
        }
        if s.seccomp == "unconfined" {
            e.add(
                format!("{at}.security.seccompProfile"),
                "has no meaning with seccomp unconfined",
            );
        }
    }
    for (field, paths) in [("maskedPaths", &s.masked_paths), ("readOnlyPaths", &s.read_only_paths)] {
        if paths.iter().flatten().any(|p| !is_clean_absolute(p)) {
            e.add(format!("{at}.security.{field}"), "are absolute paths without '..'");
        }
    }
    for (i, m) in c.volume_mounts.iter().enumerate() {
        if m.read_only_non_recursive && !m.read_only {
            e.add(format!("{at}.volumeMounts[{i}].readOnlyNonRecursive"), "needs readOnly");
        }
    }
    if c.system && (c.init || spec.namespaces.pid != Share::Private || spec.namespaces.cgroup != Share::Private) {
        e.add(
            format!("{at}.system"),
            "an init system is process 1 itself and keeps control groups: without init, and with pid and cgroup private",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kind::Kind;
    use crate::{Instance, Object};

    fn errors(json: serde_json::Value) -> Vec<String> {
        let mut o: Object<Instance> = Object::new("x", serde_json::from_value(json).unwrap());
        Instance::set_defaults(&mut o);
        Instance::validate(&o, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_makes_sense_is_fine() {
        let all = json!({
            "image": "b", "networkMode": "none", "cgroupParent": "/tenants/a",
            "namespaces": {"pid": "instance:db", "ipc": "host", "uts": "host", "network": "db", "time": {"boottime": -5}},
            "resources": {"cpuQuota": 50000, "cpuPeriod": 100000, "ioWeight": 500, "hugepages": {"2MB": "4Mi"},
                "ioDevices": [{"path": "/dev/sda", "readBps": "1Mi", "writeIops": 100}], "unified": {"memory.high": "1G"}},
            "containers": [{"deviceRules": ["c 1:3 rwm"],
                "security": {"seccompProfile": {"defaultAction": "SCMP_ACT_ALLOW"}, "maskedPaths": [], "apparmor": "x"}}],
        });
        assert_eq!(errors(all), Vec::<String>::new());
        let mapped = json!({"image": "b", "namespaces": {"user": "private"}, "containers": [{"system": true}]});
        assert_eq!(errors(mapped), Vec::<String>::new());
    }

    #[test]
    fn another_runtime_makes_plain_containers() {
        for fine in [
            json!({"image": "b", "runtime": "runc"}),
            json!({"image": "b", "runtime": "/usr/bin/crun"}),
            // Ours.
            json!({"image": "b", "runtime": "biga", "isolation": "microvm"}),
        ] {
            assert_eq!(errors(fine.clone()), Vec::<String>::new(), "{fine}");
        }
        for (odd, hint) in [
            (json!({"image": "b", "runtime": "../runc"}), "neither the name nor"),
            (json!({"image": "b", "runtime": "runc --debug"}), "neither the name nor"),
            (
                json!({"image": "b", "runtime": "runc", "isolation": "microvm"}),
                "only for isolation container",
            ),
            (
                json!({"image": "b", "runtime": "runc", "containers": [{"name": "a"}, {"name": "b"}]}),
                "several containers",
            ),
            (
                json!({"image": "b", "runtime": "runc", "containers": [{"system": true}]}),
                "system",
            ),
            (
                json!({"image": "b", "runtime": "runc", "namespaces": {"user": "private"}}),
                "user private",
            ),
        ] {
            let all = errors(odd.clone());
            let named = |e: &String| e.contains("spec.runtime") && e.contains(hint);
            assert!(all.iter().any(named), "{odd}: {all:?}");
        }
    }

    #[test]
    fn what_does_not_is_named() {
        for (spec, field) in [
            (
                json!({"namespaces": {"cgroup": "instance:x"}}),
                "spec.namespaces.cgroup",
            ),
            (json!({"namespaces": {"network": "x"}}), "spec.namespaces.network"),
            (json!({"namespaces": {"uts": "host"}, "hostname": "h"}), "spec.hostname"),
            (
                json!({"namespaces": {"user": "private", "pid": "host"}}),
                "spec.namespaces.user",
            ),
            (
                json!({"namespaces": {"user": "private"}, "networkMode": "host"}),
                "spec.namespaces.user",
            ),
            (
                json!({"namespaces": {"user": "private"}, "containers": [{"security": {"privileged": true}}]}),
                "spec.namespaces.user",
            ),
            (
                json!({"namespaces": {"pid": "host"}, "isolation": "microvm"}),
                "spec.namespaces",
            ),
            (
                json!({"containers": [{"system": true}], "isolation": "microvm"}),
                "spec.containers[0].system",
            ),
            (
                json!({"containers": [{"system": true, "init": true}]}),
                "spec.containers[0].system",
            ),
            (
                json!({"containers": [{"deviceRules": ["x"]}]}),
                "spec.containers[0].deviceRules[0]",
            ),
            (
                json!({"containers": [{"security": {"seccompProfile": {}}}]}),
                "spec.containers[0].security.seccompProfile",
            ),
            (json!({"resources": {"cpuPeriod": 1}}), "spec.resources.cpuPeriod"),
            (
                json!({"resources": {"cpuRealtimeRuntime": 7, "cpuRealtimePeriod": 6}}),
                "spec.resources.cpuRealtimeRuntime",
            ),
            (
                json!({"namespaces": {"noShm": true}, "shmSize": "1Mi"}),
                "spec.namespaces.noShm",
            ),
            (
                json!({"volumes": [{"name": "i", "image": "A B"}]}),
                "spec.volumes[0].image",
            ),
            (
                json!({"volumes": [{"name": "i", "image": "b"}], "isolation": "microvm"}),
                "spec.volumes[0].image",
            ),
            (
                json!({"containers": [{"cdiDevices": ["/dev/null"]}]}),
                "spec.containers[0].cdiDevices[0]",
            ),
            (
                json!({"containers": [{"cdiDevices": ["v.com/c=d"]}], "isolation": "microvm"}),
                "spec.containers[0].cdiDevices",
            ),
            (json!({"resources": {"cpuQuota": 5}}), "spec.resources.cpuQuota"),
            (json!({"resources": {"ioWeight": 5}}), "spec.resources.ioWeight"),
            (
                json!({"resources": {"unified": {"../x": "1"}}}),
                "spec.resources.unified",
            ),
            (json!({"cgroupParent": "../x"}), "spec.cgroupParent"),
        ] {
            let mut spec = spec;
            spec["image"] = "b".into();
            let found = errors(spec.clone());
            assert!(
                found.iter().any(|f| f.starts_with(&format!("{field}:"))),
                "{spec}: {found:?}"
            );
        }
    }
}
