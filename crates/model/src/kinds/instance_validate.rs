//! Defaults and rules of an instance's spec.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::kind::{FieldError, is_resource_name};
use crate::object::Object;
use crate::{CdiName, ContainerSpec, Instance, InstanceSpec, Isolation, NetworkMode, Reference, Resources};

pub(super) fn set_defaults(o: &mut Object<Instance>) {
    let spec = &mut o.spec;
    if spec.isolation != Isolation::Vm && spec.containers.is_empty() {
        spec.containers.push(ContainerSpec::default());
    }
    if spec.isolation == Isolation::Vm && spec.machine.is_none() {
        spec.machine = Some(Default::default());
    }
    let single = spec.containers.len() == 1;
    for c in &mut spec.containers {
        if c.name.is_empty() && single {
            c.name = "main".into();
        }
        // Its console.
        c.tty |= c.system;
    }
    super::runtime_validate::set_defaults(&mut o.spec);
}

/// So many containers an instance can have, init containers with them.
const MAX_CONTAINERS: usize = 128;

pub(super) fn validate(o: &Object<Instance>, old: Option<&Object<Instance>>) -> Vec<FieldError> {
    let mut e = Errors(Vec::new());
    image(&o.spec, &mut e);
    containers(&o.spec, &mut e);
    networks(&o.spec, &mut e);
    ports(&o.spec, old.is_some(), &mut e);
    volumes(&o.spec, &mut e);
    rest(&o.spec, &mut e);
    super::checkpoint::validate(&o.spec, &mut e);
    super::runtime_validate::validate(&o.spec, &mut e);
    if let Some(old) = old {
        changes(o, old, &mut e);
    }
    e.0
}

pub(super) struct Errors(Vec<FieldError>);

impl Errors {
    pub(super) fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.0.push(FieldError::new(path, reason));
    }
}

fn image(spec: &InstanceSpec, e: &mut Errors) {
    if spec.image.is_empty() {
        let own = |c: &ContainerSpec| !c.image.is_empty();
        if spec.isolation == Isolation::Vm || !spec.all_containers().all(own) {
            e.add("spec.image", "is required: the image to run, as in busybox:latest");
        }
    } else if let Err(why) = spec.image.parse::<Reference>()
        && !is_image_id(&spec.image)
    {
        e.add("spec.image", why);
    }
}

/// `sha256:` and 64 digits, which names an image by its id.
fn is_image_id(s: &str) -> bool {
    s.strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(|c| c.is_ascii_hexdigit()))
}

fn containers(spec: &InstanceSpec, e: &mut Errors) {
    if spec.isolation == Isolation::Vm {
        if !spec.containers.is_empty() {
            e.add(
                "spec.containers",
                "must be empty with isolation vm: a machine runs what is on its disk",
            );
        }
        if !spec.init_containers.is_empty() {
            e.add("spec.initContainers", "must be empty with isolation vm");
        }
        return;
    }
    if spec.machine.is_some() {
        e.add(
            "spec.machine",
            format!("is only for isolation vm, not {}", spec.isolation),
        );
    }
    let volumes: BTreeSet<&str> = spec.volumes.iter().map(|v| v.name.as_str()).collect();
    for (i, c) in spec.init_containers.iter().enumerate() {
        container(c, &format!("spec.initContainers[{i}]"), &volumes, spec.isolation, e);
    }
    for (i, c) in spec.containers.iter().enumerate() {
        container(c, &format!("spec.containers[{i}]"), &volumes, spec.isolation, e);
    }
    pod(spec, e);
}

/// What concerns instances of several containers, and what only they may have.
fn pod(spec: &InstanceSpec, e: &mut Errors) {
    let init = spec.init_containers.iter().map(|c| (true, c)).enumerate();
    let main = spec.containers.iter().map(|c| (false, c)).enumerate();
    let mut names = BTreeSet::new();
    for (i, (is_init, c)) in init.chain(main) {
        let at = format!("spec.{}[{i}]", if is_init { "initContainers" } else { "containers" });
        if !is_resource_name(&c.name) {
            e.add(format!("{at}.name"), format!("{:?} is no valid name", c.name));
        }
        if !names.insert(&c.name) {
            e.add(format!("{at}.name"), format!("{:?} is there twice", c.name));
        }
        if !c.image.is_empty() && c.image.parse::<Reference>().is_err() && !is_image_id(&c.image) {
            e.add(
                format!("{at}.image"),
                format!("{:?} is no reference of an image", c.image),
            );
        }
        if c.restart_policy.is_some() && !is_init {
            e.add(
                format!("{at}.restartPolicy"),
                "is only for init containers, which it makes sidecars: spec.restartPolicy holds for the others",
            );
        }
        resources(&c.resources, &format!("{at}.resources"), e);
        if !spec.is_pod() && c.resources != Default::default() {
            e.add(
                format!("{at}.resources"),
                "is for instances of several containers: give the limits of this one in spec.resources",
            );
        }
    }
    if spec.share_process_namespace && !spec.is_pod() {
        e.add("spec.shareProcessNamespace", "needs several containers");
    }
    if !spec.is_pod() {
        return;
    }
    if spec.namespaces != Default::default() {
        e.add(
            "spec.namespaces",
            "are for an instance of one container: several share the instance's own",
        );
    }
    if spec.all_containers().any(|c| c.system) {
        e.add(
            "spec.containers",
            "an init system (system: true) needs an instance of its own",
        );
    }
    if spec.isolation != Isolation::Container {
        let message = format!(
            "a {} runs one container: several need isolation container",
            spec.isolation
        );
        e.add(
            if spec.containers.len() > 1 {
                "spec.containers"
            } else {
                "spec.initContainers"
            },
            message,
        );
    }
    if names.len() > MAX_CONTAINERS {
        e.add(
            "spec.containers",
            format!("at most {MAX_CONTAINERS} with the init containers"),
        );
    }
}

fn container(c: &ContainerSpec, at: &str, volumes: &BTreeSet<&str>, isolation: Isolation, e: &mut Errors) {
    for (i, v) in c.env.iter().enumerate() {
        if v.name.is_empty() || v.name.contains(['=', '\0']) || v.value.contains('\0') {
            e.add(
                format!("{at}.env[{i}].name"),
                "must not be empty, nor hold '=' or a zero byte",
            );
        }
    }
    for (field, list) in [("command", &c.command), ("args", &c.args)] {
        for (i, w) in list.iter().flatten().enumerate() {
            if w.contains('\0') {
                e.add(format!("{at}.{field}[{i}]"), "must not hold a zero byte");
            }
        }
    }
    if let Some(d) = &c.working_dir
        && !is_clean_absolute(d)
    {
        e.add(format!("{at}.workingDir"), "must be an absolute path without '..'");
    }
    for (i, m) in c.volume_mounts.iter().enumerate() {
        if !volumes.contains(m.name.as_str()) {
            e.add(
                format!("{at}.volumeMounts[{i}].name"),
                format!("{:?} is not in spec.volumes", m.name),
            );
        }
        if !is_clean_absolute(&m.mount_path) || m.mount_path == "/" {
            e.add(
                format!("{at}.volumeMounts[{i}].mountPath"),
                "must be an absolute path other than '/', without '..'",
            );
        }
        if m.sub_path
            .as_deref()
            .is_some_and(|p| p.starts_with('/') || p.split('/').any(|s| s == ".."))
        {
            e.add(
                format!("{at}.volumeMounts[{i}].subPath"),
                "must be relative and stay below the volume",
            );
        }
    }
    if !matches!(c.security.seccomp.as_str(), "" | "default" | "unconfined") {
        e.add(format!("{at}.security.seccomp"), "is 'default' or 'unconfined'");
    }
    for (field, caps) in [("capAdd", &c.security.cap_add), ("capDrop", &c.security.cap_drop)] {
        for (i, cap) in caps.iter().enumerate() {
            if !cap
                .bytes()
                .all(|b| b.is_ascii_alphabetic() || b == b'_' || b.is_ascii_digit())
                || cap.is_empty()
            {
                e.add(
                    format!("{at}.security.{field}[{i}]"),
                    format!("{cap:?} is no capability name, as in NET_ADMIN"),
                );
            }
        }
    }
    if isolation == Isolation::Microvm && !c.devices.is_empty() {
        e.add(
            format!("{at}.devices"),
            "device nodes of the host cannot be given to a microvm: it has a kernel of its own",
        );
    }
    for (i, name) in c.cdi_devices.iter().enumerate() {
        if let Err(why) = name.parse::<CdiName>() {
            e.add(format!("{at}.cdiDevices[{i}]"), why);
        }
    }
    if isolation == Isolation::Microvm && !c.cdi_devices.is_empty() {
        e.add(
            format!("{at}.cdiDevices"),
            "devices of the host cannot be given to a microvm: it has a kernel of its own",
        );
    }
    if let Some(h) = &c.health_check {
        e.0.extend(h.validate(&format!("{at}.healthCheck")));
    }
    if let Some(u) = &c.umask
        && u32::from_str_radix(u, 8).map_or(true, |m| m > 0o777)
    {
        e.add(format!("{at}.umask"), "is an octal number up to 0777");
    }
}

/// Absolute, no `..`, no zero byte.
pub(super) fn is_clean_absolute(p: &str) -> bool {
    p.starts_with('/') && !p.contains('\0') && p.split('/').all(|s| s != "..")
}

fn networks(spec: &InstanceSpec, e: &mut Errors) {
    if spec.network_mode != NetworkMode::Bridge && !spec.networks.is_empty() {
        e.add("spec.networks", "only with networkMode bridge");
    }
    if spec.network_mode == NetworkMode::Host && spec.isolation != Isolation::Container {
        e.add(
            "spec.networkMode",
            format!(
                "host is only for isolation container: a {} has a network stack of its own",
                spec.isolation
            ),
        );
    }
    let mut seen = BTreeSet::new();
    for (i, n) in spec.networks.iter().enumerate() {
        let at = format!("spec.networks[{i}]");
        if !is_resource_name(&n.network) {
            e.add(format!("{at}.network"), "is required: the name of a Network");
        }
        if !seen.insert(&n.network) {
            e.add(format!("{at}.network"), format!("{:?} is there twice", n.network));
        }
        if n.address.as_deref().is_some_and(|a| a.parse::<IpAddr>().is_err()) {
            e.add(format!("{at}.address"), "is no IP address");
        }
        if n.mac.as_deref().is_some_and(|m| !is_mac(m)) {
            e.add(
                format!("{at}.mac"),
                "is no unicast hardware address, as in 52:54:00:12:34:56",
            );
        }
        let local = |a: &String| a.parse::<Ipv4Addr>().is_ok_and(|a| a.is_link_local());
        if !n.link_local.iter().all(local) {
            e.add(format!("{at}.linkLocal"), "are addresses of 169.254.0.0/16");
        }
        if !n.link_local.is_empty() && spec.isolation != Isolation::Container {
            e.add(
                format!("{at}.linkLocal"),
                format!("are only for isolation container, not {}", spec.isolation),
            );
        }
        for (j, a) in n.aliases.iter().enumerate() {
            if !is_resource_name(a) {
                e.add(format!("{at}.aliases[{j}]"), format!("{a:?} is no valid name"));
            }
        }
        for (j, l) in n.links.iter().enumerate() {
            if !is_resource_name(&l.instance) || !is_resource_name(&l.alias) {
                e.add(format!("{at}.links[{j}]"), "names an instance and an alias");
            }
        }
    }
    for (i, s) in spec.dns.servers.iter().enumerate() {
        if s.parse::<IpAddr>().is_err() {
            e.add(format!("spec.dns.servers[{i}]"), "is no IP address");
        }
    }
    for (i, h) in spec.extra_hosts.iter().enumerate() {
        if h.ip.parse::<IpAddr>().is_err() {
            e.add(format!("spec.extraHosts[{i}].ip"), "is no IP address");
        }
        if h.hostnames
            .iter()
            .any(|n| n.is_empty() || n.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            e.add(format!("spec.extraHosts[{i}].hostnames"), "must be host names");
        }
    }
}

fn is_mac(m: &str) -> bool {
    let parts: Vec<_> = m
        .split(':')
        .map(|p| (p.len() == 2).then(|| u8::from_str_radix(p, 16).ok()).flatten())
        .collect();
    parts.len() == 6 && parts.iter().all(Option::is_some) && parts[0].is_some_and(|b| b & 1 == 0)
}

/// One that `exists` may leave its last network, and keeps its ports for the next.
fn ports(spec: &InstanceSpec, exists: bool, e: &mut Errors) {
    let has_left = exists && spec.network_mode == NetworkMode::None;
    if !spec.ports.is_empty() && spec.network_mode != NetworkMode::Bridge && !has_left {
        e.add("spec.ports", "only with networkMode bridge");
    }
    let mut seen = BTreeSet::new();
    for (i, p) in spec.ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        if p.host_port_end
            .is_some_and(|end| p.host_port.is_none_or(|first| first == 0 || first > end))
        {
            e.add(
                format!("{at}.hostPortEnd"),
                "is the last of a range that begins with hostPort",
            );
        }
        if p.port == 0 {
            e.add(format!("{at}.port"), "is 1 to 65535");
        }
        if p.host_port == Some(0) {
            e.add(format!("{at}.hostPort"), "is 1 to 65535; leave it out for a free one");
        }
        if p.host_ip.as_deref().is_some_and(|a| a.parse::<IpAddr>().is_err()) {
            e.add(format!("{at}.hostIp"), "is no IP address");
        }
        if let Some(h) = p.host_port
            && !seen.insert((p.host_ip.clone(), h, p.protocol.as_str()))
        {
            e.add(format!("{at}.hostPort"), format!("{h} is there twice"));
        }
    }
}

fn volumes(spec: &InstanceSpec, e: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, v) in spec.volumes.iter().enumerate() {
        let at = format!("spec.volumes[{i}]");
        if !is_resource_name(&v.name) {
            e.add(format!("{at}.name"), format!("{:?} is no valid name", v.name));
        }
        if !seen.insert(&v.name) {
            e.add(format!("{at}.name"), format!("{:?} is there twice", v.name));
        }
        let sources = [
            v.volume.is_some(),
            v.host_path.is_some(),
            v.tmpfs.is_some(),
            v.empty_dir.is_some(),
            v.image.is_some(),
        ];
        if sources.iter().filter(|s| **s).count() != 1 {
            e.add(&at, "give exactly one of volume, hostPath, tmpfs, emptyDir, image");
        }
        if v.volume.as_deref().is_some_and(|n| !is_resource_name(n)) {
            e.add(format!("{at}.volume"), "is no valid name of a Volume");
        }
        if v.host_path.as_deref().is_some_and(|p| !is_clean_absolute(p)) {
            e.add(format!("{at}.hostPath"), "must be an absolute path without '..'");
        }
        if let Some(image) = &v.image
            && image.parse::<Reference>().is_err()
            && !is_image_id(image)
        {
            e.add(format!("{at}.image"), format!("{image:?} is no reference of an image"));
        }
        if spec.isolation == Isolation::Vm && v.volume.is_none() {
            e.add(&at, "a machine takes only volumes of mode block");
        }
    }
}

fn resources(r: &Resources, at: &str, e: &mut Errors) {
    if r.memory.is_some_and(|m| m.bytes() < 6 << 20) {
        e.add(format!("{at}.memory"), "must be at least 6Mi");
    }
    if let (Some(m), Some(s)) = (r.memory, r.memory_swap)
        && s < m
    {
        e.add(
            format!("{at}.memorySwap"),
            "is memory and swap together: not less than memory",
        );
    }
    if r.memory_swap.is_some() && r.memory.is_none() {
        e.add(format!("{at}.memorySwap"), format!("needs {at}.memory"));
    }
    if r.cpu_shares.is_some_and(|s| !(2..=262_144).contains(&s)) {
        e.add(format!("{at}.cpuShares"), "is 2 to 262144");
    }
    if r.oom_score_adj.is_some_and(|s| !(-1000..=1000).contains(&s)) {
        e.add(format!("{at}.oomScoreAdj"), "is -1000 to 1000");
    }
    if r.pids_limit == Some(0) {
        e.add(format!("{at}.pidsLimit"), "is at least 1; leave it out for no limit");
    }
}

fn rest(spec: &InstanceSpec, e: &mut Errors) {
    resources(&spec.resources, "spec.resources", e);
    if let Some(h) = &spec.hostname
        && (h.is_empty()
            || h.len() > 64
            || h.contains(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))))
    {
        e.add("spec.hostname", "is up to 64 letters, digits, '-', '.'");
    }
    if let Some(Err(why)) = spec.stop.signal.as_deref().map(crate::parse_signal) {
        e.add("spec.stop.signal", why);
    }
    for (field, why) in spec.log.problems() {
        e.add(format!("spec.log.{field}"), why);
    }
    if spec.auto_remove && spec.restart_policy.policy != crate::RestartWhen::No {
        e.add("spec.autoRemove", "cannot be together with a restart policy");
    }
    sysctls(spec, e);
}

fn sysctls(spec: &InstanceSpec, e: &mut Errors) {
    for k in spec.sysctls.keys() {
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
            .iter()
            .any(|p| k.starts_with(p));
        let net = k.starts_with("net.");
        if !(ipc || net || k == "kernel.domainname") || k.contains("..") {
            e.add(
                format!("spec.sysctls[{k}]"),
                "is not a parameter of the instance's own namespaces",
            );
        }
        let shared_network = spec.network_mode == NetworkMode::Host || spec.namespaces.network.is_some();
        if (net && shared_network) || (ipc && spec.namespaces.ipc != Default::default()) {
            e.add(
                format!("spec.sysctls[{k}]"),
                "belongs to the host or instance whose namespace is shared",
            );
        }
    }
}

/// Names of the containers in their order, and which are sidecars; all alike where there is one.
fn shape(spec: &InstanceSpec) -> Vec<(&str, bool)> {
    let all = spec.all_containers().map(|c| (c.name.as_str(), c.is_sidecar()));
    if spec.is_pod() { all.collect() } else { Vec::new() }
}

fn changes(o: &Object<Instance>, old: &Object<Instance>, e: &mut Errors) {
    let vm = |i: Isolation| i == Isolation::Vm;
    if vm(o.spec.isolation) != vm(old.spec.isolation) {
        e.add(
            "spec.isolation",
            "an OCI image and a machine's disk are different things: only container and microvm can be exchanged",
        );
    } else if shape(&o.spec) != shape(&old.spec) && old.status_or_default().phase.is_live() {
        e.add(
            "spec.containers",
            "containers can be added, removed, renamed and moved only while the instance is stopped",
        );
    } else if o.spec.isolation != old.spec.isolation && old.status_or_default().phase.is_live() {
        e.add("spec.isolation", "can be changed only while the instance is stopped");
    } else if o.spec.runtime != old.spec.runtime && old.status_or_default().phase.is_live() {
        e.add("spec.runtime", "can be changed only while the instance is stopped");
    }
    if old.spec.node_name.is_some() && o.spec.node_name != old.spec.node_name {
        e.add("spec.nodeName", "cannot be changed once set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::*;

    fn spec(json: serde_json::Value) -> Vec<String> {
        let mut o: Object<Instance> = Object::new("x", serde_json::from_value(json).unwrap());
        Instance::set_defaults(&mut o);
        Instance::validate(&o, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_instance_is_fine() {
        assert_eq!(spec(serde_json::json!({"image": "busybox"})), Vec::<String>::new());
        assert_eq!(
            spec(serde_json::json!({"image": "debian-disk", "isolation": "vm"})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_error_names_its_field() {
        let errors = spec(serde_json::json!({
            "image": "b",
            "isolation": "microvm",
            "networkMode": "host",
            "containers": [{"workingDir": "../x", "env": [{"name": "a=b"}], "volumeMounts": [{"name": "v", "mountPath": "/"}]}],
            "ports": [{"port": 0}],
            "resources": {"memory": "1Ki"},
        }));
        let paths: Vec<_> = errors.iter().map(|e| e.split(':').next().unwrap()).collect();
        for p in [
            "spec.containers[0].env[0].name",
            "spec.containers[0].workingDir",
            "spec.containers[0].volumeMounts[0].name",
            "spec.containers[0].volumeMounts[0].mountPath",
            "spec.networkMode",
            "spec.ports",
            "spec.ports[0].port",
            "spec.resources.memory",
        ] {
            assert!(paths.contains(&p), "{p} is not in {paths:?}");
        }
    }

    #[test]
    fn several_containers_are_fine() {
        let pod = serde_json::json!({
            "initContainers": [{"name": "setup", "image": "busybox"}, {"name": "log", "image": "b", "restartPolicy": "Always"}],
            "containers": [
                {"name": "web", "image": "nginx", "volumeMounts": [{"name": "d", "mountPath": "/d"}], "resources": {"memory": "32Mi"}},
                {"name": "app", "image": "app"},
            ],
            "volumes": [{"name": "d", "emptyDir": {}}],
            "shareProcessNamespace": true,
        });
        assert_eq!(spec(pod), Vec::<String>::new());
        let one = serde_json::json!({"containers": [{"image": "nginx"}]});
        assert_eq!(spec(one), Vec::<String>::new(), "one container may name the image, too");
    }

    #[test]
    fn what_several_containers_cannot_be() {
        let wrong = |json: serde_json::Value, path: &str| {
            let errors = spec(json);
            assert!(
                errors.iter().any(|e| e.starts_with(&format!("{path}: "))),
                "{path}: {errors:?}"
            );
        };
        let two = |isolation: &str| serde_json::json!({"image": "b", "isolation": isolation, "containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(spec(two("container")), Vec::<String>::new());
        wrong(two("microvm"), "spec.containers");
        wrong(two("vm"), "spec.containers");
        wrong(
            serde_json::json!({"image": "b", "isolation": "microvm", "initContainers": [{"name": "i"}]}),
            "spec.initContainers",
        );
        wrong(
            serde_json::json!({"image": "b", "initContainers": [{"name": "a"}], "containers": [{"name": "a"}]}),
            "spec.containers[0].name",
        );
        wrong(
            serde_json::json!({"image": "b", "containers": [{"name": "a"}, {}]}),
            "spec.containers[1].name",
        );
        wrong(
            serde_json::json!({"containers": [{"name": "a", "image": "b"}, {"name": "c"}]}),
            "spec.image",
        );
        wrong(
            serde_json::json!({"image": "b", "containers": [{"image": "A B"}]}),
            "spec.containers[0].image",
        );
        wrong(
            serde_json::json!({"image": "b", "containers": [{"restartPolicy": "Always"}]}),
            "spec.containers[0].restartPolicy",
        );
        wrong(
            serde_json::json!({"image": "b", "containers": [{"resources": {"memory": "32Mi"}}]}),
            "spec.containers[0].resources",
        );
        wrong(
            serde_json::json!({"image": "b", "containers": [{"name": "a", "resources": {"memory": "1"}}, {"name": "b"}]}),
            "spec.containers[0].resources.memory",
        );
        let mut host = two("container");
        host["namespaces"] = serde_json::json!({"pid": "host"});
        wrong(host, "spec.namespaces");
        let mut system = two("container");
        system["containers"][1]["system"] = true.into();
        wrong(system, "spec.containers");
        wrong(
            serde_json::json!({"image": "b", "shareProcessNamespace": true}),
            "spec.shareProcessNamespace",
        );
    }

    #[test]
    fn what_runs_keeps_its_containers() {
        let object = |names: &[&str]| {
            let all: Vec<_> = names
                .iter()
                .map(|n| serde_json::json!({"name": n, "image": "b"}))
                .collect();
            Object::<Instance>::new(
                "x",
                serde_json::from_value(serde_json::json!({"containers": all})).unwrap(),
            )
        };
        let mut old = object(&["a", "b"]);
        assert!(Instance::validate(&object(&["b", "a"]), Some(&old)).is_empty());
        old.status = Some(InstanceStatus {
            phase: Phase::Running,
            ..Default::default()
        });
        assert!(Instance::validate(&object(&["a", "b"]), Some(&old)).is_empty());
        for names in [&["a"][..], &["b", "a"], &["a", "c"]] {
            assert_eq!(Instance::validate(&object(names), Some(&old)).len(), 1, "{names:?}");
        }
    }

    #[test]
    fn the_dial_turns_only_while_stopped_and_never_to_a_machine() {
        let mut old: Object<Instance> =
            Object::new("x", serde_json::from_value(serde_json::json!({"image": "b"})).unwrap());
        Instance::set_defaults(&mut old);
        let mut new = old.clone();
        new.spec.isolation = Isolation::Microvm;
        assert!(Instance::validate(&new, Some(&old)).is_empty());
        old.status = Some(InstanceStatus {
            phase: Phase::Running,
            ..Default::default()
        });
        assert_eq!(Instance::validate(&new, Some(&old)).len(), 1);
        new.spec.isolation = Isolation::Vm;
        assert!(!Instance::validate(&new, Some(&old)).is_empty());
    }
}
