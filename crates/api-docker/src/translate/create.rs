//! Docker's create body → an instance. What the model cannot express is refused, or told in the warnings.

use biga_model::{
    ContainerSpec, EnvVar, Instance, InstanceSpec, InstanceVolume, Isolation, Kind, Memory, NetworkAttachment,
    NetworkLink, NetworkMode, Object, ObjectMeta, Power, RestartPolicy, RestartWhen, SecuritySpec, Ulimit, VolumeMount,
};
use serde_json::Value;

use super::ids::network_name;
use super::{devices, hostconfig, labels, mounts, sharing};
use crate::error::Error;
use crate::types::container::{CreateBody, HostConfig, RestartPolicy as DockerPolicy, Words};
use crate::types::is_zero;

/// The annotation that keeps what a client sent, so that `inspect` shows it as it was written.
pub const CREATED: &str = "docker.biga.dev/create";

/// What must be known beside the body.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Docker's name and id, and Biga's name, of every network.
    pub networks: Vec<KnownNetwork>,
    /// The image's own config: the object `config` of the OCI image config.
    pub image: Value,
    /// What `spec.image` shall say.
    pub image_reference: String,
    /// Names of the containers of `HostConfig.Links`, and what they are called inside.
    pub links: Vec<NetworkLink>,
    /// Volumes of the containers of `HostConfig.VolumesFrom`, and where they appear.
    pub volumes_from: Vec<(InstanceVolume, VolumeMount)>,
    /// Names for volumes that were given none; one is taken for each.
    pub volume_names: Vec<String>,
    /// Names of other containers, by the words that the body has for them.
    pub others: std::collections::BTreeMap<String, String>,
    /// Names of OCI runtimes beside Biga's own.
    pub runtimes: Vec<String>,
    /// Devices that the node knows by the Container Device Interface.
    pub cdi_devices: Vec<String>,
}

/// A network that exists.
#[derive(Debug, Clone, Default)]
pub struct KnownNetwork {
    /// Docker's id.
    pub id: String,
    /// Biga's name.
    pub name: String,
    /// The node's address on it, where it is known.
    pub gateway: String,
}

/// What becomes of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The instance, without a name.
    pub object: Object<Instance>,
    /// Volumes that go with it: they were given no name.
    pub anonymous: Vec<String>,
    /// Volumes that are made with it as somebody asked for them.
    pub volumes: Vec<mounts::MadeVolume>,
    /// What was not done as asked.
    pub warnings: Vec<String>,
}

/// Fields that are the client's own business, or said again elsewhere.
const QUIET: &[&str] = &["ConsoleSize", "ContainerIDFile"];
/// Fields that mean nothing on Linux, or nothing any more.
const WITHOUT_EFFECT: &[&str] = &[
    "Cgroup",
    "CpuCount",
    "CpuPercent",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "KernelMemory",
    "KernelMemoryTCP",
];

/// Makes an instance of a body.
pub fn instance(body: &CreateBody, around: &Around) -> Result<Created, Error> {
    let h = &body.host_config;
    let mut warnings = Vec::new();
    refuse(body, &mut warnings)?;
    asked_for(body)?;
    let isolation = isolation(h)?;
    let runtime = runtime(h, around)?;
    let mut container = container(body, &mut warnings)?;
    container.cdi_devices = devices::requested(h, around)?;
    let made = mounts::volumes(body, around)?;
    container.volume_mounts = made.mounts;
    container.health_check = super::health::check(body)?;
    let (network_mode, mut networks) = networks(body, around)?;
    if network_mode == NetworkMode::Bridge && !around.links.is_empty() {
        if networks.is_empty() {
            networks.push(default_attachment());
        }
        let links = &mut networks[0].links;
        // Docker's command line sends each twice.
        links.retain(|l| {
            !around
                .links
                .iter()
                .any(|of| (&of.instance, &of.alias) == (&l.instance, &l.alias))
        });
        links.extend(around.links.iter().cloned());
    }
    let mut spec = InstanceSpec {
        isolation,
        runtime,
        image: around.image_reference.clone(),
        power: Power::Stopped,
        containers: vec![container],
        resources: hostconfig::resources(h, &mut warnings)?,
        network_mode,
        networks,
        ports: hostconfig::ports(body, &around.image)?,
        volumes: made.volumes,
        hostname: some(&body.hostname),
        domainname: some(&body.domainname),
        dns: biga_model::DnsSpec {
            servers: h.dns.clone(),
            search: h.dns_search.clone(),
            options: h.dns_options.clone(),
        },
        extra_hosts: hostconfig::extra_hosts(h, around)?,
        restart_policy: restart_policy(&h.restart_policy)?,
        auto_remove: h.auto_remove,
        log: super::log::spec(body, around, &mut warnings)?,
        sysctls: h.sysctls.clone(),
        shm_size: hostconfig::bytes("ShmSize", h.shm_size)?,
        namespaces: sharing::namespaces(h, around)?,
        cgroup_parent: some(&h.cgroup_parent),
        ..InstanceSpec::default()
    };
    if let Some(word) = h.network_mode.strip_prefix("container:") {
        spec.namespaces.network = Some(sharing::other(word, around)?);
        if spec.hostname.is_some() {
            return Err(Error::bad("conflicting options: hostname and the network mode"));
        }
    }
    spec.stop.signal = some(&body.stop_signal);
    spec.stop.grace_period_seconds = body.stop_timeout.map(grace);
    if network_mode != NetworkMode::Bridge && !spec.ports.is_empty() {
        spec.ports.clear();
        let mode = match network_mode {
            NetworkMode::Host => "host",
            _ if h.network_mode.starts_with("container:") => "container",
            _ => "none",
        };
        warnings.push(format!("Published ports are discarded when using {mode} network mode"));
    }
    // What an image says may not be known.
    if !around.image.is_null() && super::inspect::command(&spec, Some(&around.image)) == (Vec::new(), Vec::new()) {
        return Err(Error::bad("no command specified"));
    }
    let mut object = Object::<Instance>::new("x", spec);
    annotate(body, &around.image, &mut object.metadata);
    Instance::set_defaults(&mut object);
    let wrong = Instance::validate(&object, None);
    if !wrong.is_empty() {
        return Err(Error::invalid(&wrong));
    }
    Ok(Created {
        object,
        anonymous: made.anonymous,
        volumes: made.made,
        warnings,
    })
}

/// Linux's.
#[rustfmt::skip]
const CAPABILITIES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
    "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
    "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
];

/// Refuses, in Docker's words, what the model's validation would refuse in words of its own.
fn asked_for(body: &CreateBody) -> Result<(), Error> {
    let h = &body.host_config;
    if !body.working_dir.is_empty() && !body.working_dir.starts_with('/') {
        return Err(Error::bad(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            body.working_dir
        )));
    }
    for (field, list) in [("CapAdd", &h.cap_add), ("CapDrop", &h.cap_drop)] {
        for c in list.iter().map(|c| c.to_ascii_uppercase()) {
            let name = c.strip_prefix("CAP_").unwrap_or(&c);
            if name != "ALL" && !CAPABILITIES.contains(&name) {
                return Err(Error::bad(format!(
                    "invalid {field}: unknown capability: \"CAP_{name}\""
                )));
            }
        }
    }
    if h.annotations.contains_key("") {
        return Err(Error::bad(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    if !body.stop_signal.is_empty() && biga_model::parse_signal(&body.stop_signal).is_err() {
        return Err(Error::bad(format!("Invalid signal: {}", body.stop_signal)));
    }
    if !(-1000..=1000).contains(&h.oom_score_adj) {
        return Err(Error::bad(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            h.oom_score_adj
        )));
    }
    Ok(())
}

/// Docker's seconds: negative means to wait for ever.
pub fn grace(seconds: i64) -> u32 {
    u32::try_from(seconds).unwrap_or(if seconds < 0 { i32::MAX as u32 } else { u32::MAX })
}

fn some(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_string())
}

/// Refuses what cannot be done, and tells what is left out.
fn refuse(body: &CreateBody, warnings: &mut Vec<String>) -> Result<(), Error> {
    for (field, value) in body.host_config.rest.iter().filter(|(_, v)| !is_zero(v)) {
        match field.as_str() {
            f if QUIET.contains(&f) => {}
            f if WITHOUT_EFFECT.contains(&f) => {
                warnings.push(format!("HostConfig.{f} has no effect here and was left out"))
            }
            "VolumeDriver" => drop(mounts::known_driver(
                value.as_str().unwrap_or_default(),
                &Default::default(),
            )?),
            f => return Err(Error::missing(format!("HostConfig.{f}"))),
        }
    }
    if let Some(option) = body.host_config.storage_opt.keys().next() {
        // In Docker's words, where its own driver cannot do it either.
        let message = match option.as_str() {
            "size" => "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".to_owned(),
            other => format!("unknown option {other:?} of --storage-opt: containers have no such limit here"),
        };
        return Err(Error::new(http::StatusCode::NOT_IMPLEMENTED, message));
    }
    for field in body.rest.iter().filter(|(_, v)| !is_zero(v)).map(|(k, _)| k) {
        warnings.push(format!("the field {field} is not known and was left out"));
    }
    Ok(())
}

/// Names of the runtimes that run a microvm.
const MICROVM: [&str; 2] = ["microvm", "biga-microvm"];

/// The OCI runtime that is named, if it is not Biga's own.
fn runtime(h: &HostConfig, around: &Around) -> Result<Option<String>, Error> {
    let name = match h.runtime.as_str() {
        "" | "biga" => return Ok(None),
        name if MICROVM.contains(&name) => return Ok(None),
        // What Docker calls runc under containerd.
        "io.containerd.runc.v2" => "runc",
        name => name,
    };
    match around.runtimes.iter().any(|r| r == name) {
        true => Ok(Some(name.to_string())),
        false => Err(Error::bad(format!("unknown or invalid runtime name: {}", h.runtime))),
    }
}

/// Where the dial stands.
pub fn isolation(h: &HostConfig) -> Result<Isolation, Error> {
    let by_runtime = match h.runtime.as_str() {
        "" => None,
        name if MICROVM.contains(&name) => Some(Isolation::Microvm),
        _ => Some(Isolation::Container),
    };
    let by_isolation = by_isolation(&h.isolation)?;
    match (by_runtime, by_isolation) {
        (Some(a), Some(b)) if a != b => Err(Error::bad(format!(
            "runtime {} and isolation {} contradict each other",
            h.runtime, h.isolation
        ))),
        (a, b) => Ok(a.or(b).unwrap_or_default()),
    }
}

/// What `--isolation` means, where it means anything.
pub fn by_isolation(word: &str) -> Result<Option<Isolation>, Error> {
    match word.to_ascii_lowercase().as_str() {
        "" | "default" => Ok(None),
        "process" | "container" => Ok(Some(Isolation::Container)),
        "hyperv" | "vm" | "microvm" => Ok(Some(Isolation::Microvm)),
        _ => Err(Error::bad(format!("invalid isolation: {word}"))),
    }
}

fn container(body: &CreateBody, warnings: &mut Vec<String>) -> Result<ContainerSpec, Error> {
    let h = &body.host_config;
    let (command, args) = command(body);
    let cap = |c: &String| {
        let c = c.to_ascii_uppercase();
        c.strip_prefix("CAP_").map(str::to_string).unwrap_or(c)
    };
    Ok(ContainerSpec {
        name: "main".into(),
        command,
        args,
        env: env(&body.env, warnings),
        working_dir: some(&body.working_dir),
        user: some(&body.user),
        additional_groups: h.group_add.clone(),
        tty: body.tty,
        stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        security: SecuritySpec {
            privileged: h.privileged,
            cap_add: h.cap_add.iter().map(cap).collect(),
            cap_drop: h.cap_drop.iter().map(cap).collect(),
            read_only_root: h.readonly_rootfs,
            ..sharing::security(h, warnings)?
        },
        ulimits: h
            .ulimits
            .iter()
            .map(|u| {
                (
                    u.name.to_ascii_lowercase(),
                    Ulimit {
                        soft: u.soft,
                        hard: u.hard,
                    },
                )
            })
            .collect(),
        devices: h.devices.iter().map(devices::node).collect(),
        device_rules: h.device_cgroup_rules.clone(),
        init: h.init.unwrap_or(false),
        ..ContainerSpec::default()
    })
}

/// Docker: an entrypoint drops the image's command; one empty word drops the image's entrypoint.
fn command(body: &CreateBody) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let list = |w: &Option<Words>| w.as_ref().map(Words::list).filter(|l| !l.is_empty());
    let args = list(&body.cmd);
    match list(&body.entrypoint) {
        Some(e) if e == [""] => (Some(Vec::new()), Some(args.unwrap_or_default())),
        Some(e) => (Some(e), Some(args.unwrap_or_default())),
        None => (None, args),
    }
}

fn env(all: &[String], warnings: &mut Vec<String>) -> Vec<EnvVar> {
    let mut out: Vec<EnvVar> = Vec::new();
    for word in all {
        match word.split_once('=') {
            // The last of a name counts.
            Some((name, value)) => match out.iter_mut().find(|e| e.name == name) {
                Some(e) => e.value = value.into(),
                None => out.push(EnvVar {
                    name: name.into(),
                    value: value.into(),
                }),
            },
            None => warnings.push(format!(
                "environment variable {word} has no value; taking a variable away from the image is not supported"
            )),
        }
    }
    out
}

/// Reads a restart policy.
pub fn restart_policy(p: &DockerPolicy) -> Result<RestartPolicy, Error> {
    let policy = match p.name.as_str() {
        "" | "no" => RestartWhen::No,
        "always" => RestartWhen::Always,
        "unless-stopped" => RestartWhen::UnlessStopped,
        "on-failure" => RestartWhen::OnFailure,
        other => {
            return Err(Error::bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    let count = u32::try_from(p.maximum_retry_count)
        .map_err(|_| Error::bad("invalid restart policy: maximum retry count cannot be negative"))?;
    if count > 0 && policy != RestartWhen::OnFailure {
        return Err(Error::bad(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok(RestartPolicy {
        policy,
        maximum_retry_count: count,
    })
}

/// `10m`, `1g`, `512k`: binary units, as Docker means them.
pub fn size(text: &str) -> Option<Memory> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match lower.strip_suffix(['k', 'm', 'g', 't']) {
        Some(n) => (
            n,
            match lower.as_bytes().last() {
                Some(b'k') => 10,
                Some(b'm') => 20,
                Some(b'g') => 30,
                _ => 40,
            },
        ),
        None => (lower, 0),
    };
    let n: f64 = number.trim().parse().ok()?;
    (n.is_finite() && n >= 0.0).then(|| Memory((n * (1u64 << shift) as f64) as u64))
}

fn networks(body: &CreateBody, around: &Around) -> Result<(NetworkMode, Vec<NetworkAttachment>), Error> {
    let h = &body.host_config;
    let endpoints = &body.networking_config.endpoints_config;
    let first = match h.network_mode.as_str() {
        "" | "default" => endpoints.keys().next().map_or("bridge", String::as_str),
        m => m,
    };
    let mode = match first {
        _ if body.network_disabled => NetworkMode::None,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        m if m.starts_with("container:") => {
            shares(body)?;
            NetworkMode::None
        }
        _ => NetworkMode::Bridge,
    };
    let other = |k: &&String| !matches!(k.as_str(), "none" | "host" | "default");
    if mode != NetworkMode::Bridge {
        if let Some(k) = endpoints.keys().find(other) {
            return Err(Error::bad(format!(
                "conflicting options: network {k} cannot be joined with network mode {first}"
            )));
        }
        return Ok((mode, Vec::new()));
    }
    let mut out: Vec<NetworkAttachment> = Vec::new();
    let all = std::iter::once(first).chain(endpoints.keys().map(String::as_str).filter(|k| *k != "default"));
    for word in all {
        let network = resolve(word, around)?;
        if out.iter().any(|a| a.network == network) {
            continue;
        }
        let settings = endpoints
            .iter()
            .find(|(k, _)| *k == word || resolve(k, around).is_ok_and(|n| n == network));
        let e = settings.and_then(|(_, e)| e.clone()).unwrap_or_default();
        out.push(attachment(network, &e)?);
    }
    if let Some(a) = out.first_mut()
        && a.mac.is_none()
    {
        a.mac = some(&body.mac_address);
    }
    // The default network alone, with nothing special, is what an instance has anyway.
    if out == [default_attachment()] {
        out.clear();
    }
    Ok((mode, out))
}

fn default_attachment() -> NetworkAttachment {
    NetworkAttachment {
        network: network_name("bridge").into(),
        ..Default::default()
    }
}

/// What cannot be together with the network of another container.
fn shares(body: &CreateBody) -> Result<(), Error> {
    let h = &body.host_config;
    for (what, given) in [
        ("hostname", !body.hostname.is_empty()),
        ("links", !h.links.is_empty()),
        ("dns", !h.dns.is_empty()),
        ("custom host-to-IP mapping", !h.extra_hosts.is_empty()),
        ("mac-address", !body.mac_address.is_empty()),
        ("port publishing", !h.port_bindings.is_empty() || h.publish_all_ports),
        ("port exposing", !body.exposed_ports.is_empty()),
    ] {
        if given {
            let mode = if what == "hostname" {
                "network mode"
            } else {
                "container type network mode"
            };
            return Err(Error::bad(format!("conflicting options: {what} and the {mode}")));
        }
    }
    Ok(())
}

/// `name:alias`, or `name` alone; a name may begin with a slash.
pub fn link(text: &str) -> Result<(String, String), Error> {
    let bad = || Error::bad(format!("invalid link format {text:?}: want name:alias"));
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let bare = |s: &str| {
        s.trim_start_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_string()
    };
    match (bare(name), bare(alias)) {
        (n, a) if n.is_empty() || a.is_empty() => Err(bad()),
        both => Ok(both),
    }
}

/// How an instance joins a network.
pub fn attachment(network: String, e: &crate::types::container::Endpoint) -> Result<NetworkAttachment, Error> {
    let mut links = Vec::new();
    for text in &e.links {
        let (instance, alias) = link(text)?;
        links.push(NetworkLink {
            instance,
            alias,
            ports: Vec::new(),
        });
    }
    if !e.ipam_config.ipv6.is_empty()
        || e.ipam_config
            .link_local
            .iter()
            .any(|a| a.parse::<std::net::Ipv6Addr>().is_ok())
    {
        return Err(Error::missing("IPv6 addresses"));
    }
    if let Some(bad) = e
        .ipam_config
        .link_local
        .iter()
        .find(|a| a.parse::<std::net::Ipv4Addr>().is_err())
    {
        return Err(Error::bad(format!("invalid link-local IP address: {bad}")));
    }
    if !e.driver_opts.is_empty() {
        return Err(Error::missing(
            "driver options of an endpoint (EndpointsConfig.DriverOpts)",
        ));
    }
    Ok(NetworkAttachment {
        network,
        address: some(&e.ipam_config.ipv4),
        mac: some(&e.mac_address).map(|m| m.to_ascii_lowercase()),
        aliases: e.aliases.clone(),
        links,
        link_local: e.ipam_config.link_local.clone(),
        gateway_priority: e.gw_priority,
    })
}

fn resolve(word: &str, around: &Around) -> Result<String, Error> {
    let name = network_name(word);
    let by_name = around.networks.iter().find(|n| n.name == name);
    let by_id = || {
        around
            .networks
            .iter()
            .find(|n| word.len() >= 12 && n.id.starts_with(word))
    };
    match by_name.or_else(by_id) {
        Some(n) => Ok(n.name.clone()),
        // The node makes it when it is first used.
        None if name == biga_model::kinds::network::DEFAULT_NETWORK => Ok(name.to_string()),
        // Where it is still missing at the start, that is said then, as Docker does.
        None => Ok(name.to_string()),
    }
}

/// Labels, and what `inspect` shows as it was sent.
fn annotate(body: &CreateBody, image: &Value, meta: &mut ObjectMeta) {
    let mut all: std::collections::BTreeMap<String, String> = Default::default();
    if let Some(own) = image.get("Labels").and_then(Value::as_object) {
        all.extend(
            own.iter()
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))),
        );
    }
    all.extend(body.labels.clone());
    labels::write(&all, meta);
    meta.annotations.extend(body.host_config.annotations.clone());
    let mut sent = body.clone();
    // These are shown from where they are in force.
    sent.env.clear();
    sent.labels.clear();
    sent.rest.clear();
    let mut json = serde_json::to_value(&sent).unwrap_or_default();
    drop_zeros(&mut json);
    meta.annotations.insert(CREATED.into(), json.to_string());
}

fn drop_zeros(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|k, v| {
            // Sets are maps of empty objects, and a port may be bound to nothing in particular.
            let keep = matches!(k.as_str(), "ExposedPorts" | "Volumes" | "PortBindings");
            if !keep {
                drop_zeros(v);
            }
            if k == "StopTimeout" {
                // None and nought are not the same.
                return !v.is_null();
            }
            if keep {
                v.as_object().is_some_and(|o| !o.is_empty())
            } else {
                !is_zero(v)
            }
        });
    }
}

/// What the client sent, as far as it was kept.
pub fn sent(meta: &ObjectMeta) -> CreateBody {
    meta.annotations
        .get(CREATED)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}
