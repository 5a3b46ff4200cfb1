//! An instance → Docker's whole document of a container.

use biga_model::kinds::network::DEFAULT_NETWORK;
use biga_model::{Instance, InstanceSpec, InstanceStatus, NetworkMode, Object, Phase, PortMapping, Power, RestartWhen};
use biga_wire::config::{MASKED_PATHS, READ_ONLY_PATHS};
use serde_json::{Map, Value, json};

use super::create::sent;
use super::ids::{docker_id, docker_network, predefined_id, short};
use super::{familiar, labels, log, sharing, time};
use crate::types::container::CreateBody;

/// What must be known beside the instance.
#[derive(Debug, Clone, Default)]
pub struct Beside<'a> {
    /// The image's whole OCI config document; null where it is gone.
    pub image: Option<&'a Value>,
    /// Docker's ids of networks by Biga's name.
    pub networks: &'a [(String, String)],
    /// Where volumes are on the node, by name.
    pub volumes: &'a [(String, String)],
    /// Ids of running execs.
    pub execs: Vec<String>,
    /// Where the daemon keeps state.
    pub state_dir: &'a str,
}

/// Docker's word for where a container is in its life.
pub fn status_word(o: &Object<Instance>) -> &'static str {
    let s = o.status_or_default();
    match s.phase {
        _ if o.is_deleting() => "removing",
        Phase::Removing => "removing",
        Phase::Pending | Phase::Preparing | Phase::Created | Phase::Starting if s.restart_count > 0 => "restarting",
        Phase::Pending | Phase::Preparing | Phase::Created | Phase::Starting => "created",
        Phase::Running | Phase::Stopping => "running",
        Phase::Paused => "paused",
        Phase::Exited | Phase::Failed if will_restart(&o.spec, &s) => "restarting",
        // Docker leaves what could not be started as it was made.
        Phase::Failed if s.started_at.is_none() => "created",
        Phase::Exited | Phase::Failed => "exited",
    }
}

/// Whether the restart policy starts it again.
pub fn will_restart(spec: &InstanceSpec, s: &InstanceStatus) -> bool {
    if spec.power != Power::Running || s.stopped_by_user {
        return false;
    }
    match spec.restart_policy.policy {
        RestartWhen::No => false,
        RestartWhen::Always | RestartWhen::UnlessStopped => true,
        RestartWhen::OnFailure => {
            let max = spec.restart_policy.maximum_retry_count;
            (s.phase == Phase::Failed || s.exit_code.unwrap_or(0) != 0) && (max == 0 || s.restart_count < max)
        }
    }
}

/// The words of a config of an image.
fn words(config: Option<&Value>, field: &str) -> Vec<String> {
    let list = config.and_then(|c| c.get(field)).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_string))
        .collect()
}

/// Entrypoint and command in force.
pub fn command(spec: &InstanceSpec, config: Option<&Value>) -> (Vec<String>, Vec<String>) {
    let Some(c) = spec.containers.first() else {
        return (Vec::new(), Vec::new());
    };
    match (&c.command, &c.args) {
        (Some(e), a) => (e.clone(), a.clone().unwrap_or_default()),
        (None, Some(a)) => (words(config, "Entrypoint"), a.clone()),
        (None, None) => (words(config, "Entrypoint"), words(config, "Cmd")),
    }
}

/// The whole document.
pub fn container(o: &Object<Instance>, beside: &Beside) -> Value {
    let s = o.status_or_default();
    let sent = sent(&o.metadata);
    let (entrypoint, cmd) = command(&o.spec, beside.image.and_then(|i| i.get("config")));
    let mut all = entrypoint.iter().chain(&cmd);
    let path = all.next().cloned().unwrap_or_default();
    let args: Vec<&String> = all.collect();
    let dir = format!("{}/instances/{}", beside.state_dir, o.uid());
    let platform = beside
        .image
        .and_then(|i| i.get("os"))
        .and_then(Value::as_str)
        .unwrap_or("linux");
    json!({
        "Id": docker_id(o.uid()),
        "Created": time(super::created(o)),
        "Path": path,
        "Args": args,
        "State": state(o, &s),
        "Image": s.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": if log::is_readable(&o.spec.log) { format!("{dir}/log") } else { String::new() },
        "Name": format!("/{}", o.name()),
        "RestartCount": s.restart_count,
        "Driver": "erofs",
        "Platform": platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": o.spec.containers.first().map_or("", |c| &c.security.apparmor),
        "ExecIDs": match beside.execs.is_empty() { true => Value::Null, false => json!(beside.execs) },
        "HostConfig": host_config(o, &sent),
        "GraphDriver": {"Name": "erofs", "Data": null},
        "Mounts": mounts(o, &sent, beside),
        "Config": config(o, &sent, beside.image, &entrypoint, &cmd),
        "NetworkSettings": network_settings(o, &s, &sent, beside),
    })
}

/// The document's `State`.
pub fn state(o: &Object<Instance>, s: &InstanceStatus) -> Value {
    let word = status_word(o);
    let running = matches!(word, "running" | "paused" | "restarting");
    let error = if s.phase == Phase::Failed {
        s.message.as_str()
    } else {
        ""
    };
    let mut doc = json!({
        "Status": word,
        "Running": running,
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": s.oom_killed,
        "Dead": false,
        "Pid": if s.phase.is_live() { s.pid.unwrap_or(0) } else { 0 },
        "ExitCode": if s.phase.is_live() { 0 } else { s.exit_code.unwrap_or(0) },
        "Error": error,
        "StartedAt": time(s.started_at),
        "FinishedAt": time(s.finished_at.filter(|_| s.started_at.is_some())),
    });
    let health = super::health::state(o);
    if !health.is_null() {
        doc["Health"] = health;
    }
    doc
}

fn config(
    o: &Object<Instance>,
    sent: &CreateBody,
    image: Option<&Value>,
    entrypoint: &[String],
    cmd: &[String],
) -> Value {
    let of_image = image.and_then(|i| i.get("config"));
    let own = |f: &str| of_image.and_then(|c| c.get(f)).cloned().unwrap_or(Value::Null);
    let own_text = |f: &str| own(f).as_str().unwrap_or("").to_string();
    let c = super::main_process(&o.spec);
    let mut env: Vec<String> = c.env.iter().map(|e| format!("{}={}", e.name, e.value)).collect();
    for line in words(of_image, "Env") {
        let name = line.split('=').next().unwrap_or("");
        if !c.env.iter().any(|e| e.name == name) {
            env.push(line);
        }
    }
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    let mut exposed = sent.exposed_ports.clone();
    if let Value::Object(m) = own("ExposedPorts") {
        exposed.extend(m);
    }
    exposed.extend(o.spec.ports.iter().map(|p| (port_key(p), json!({}))));
    let mut doc = json!({
        "Hostname": o.spec.hostname.clone().unwrap_or_else(|| o.name().into()),
        "Domainname": o.spec.domainname.clone().unwrap_or_default(),
        "User": c.user.clone().unwrap_or_else(|| own_text("User")),
        "AttachStdin": sent.attach_stdin,
        "AttachStdout": sent.attach_stdout,
        "AttachStderr": sent.attach_stderr,
        "Tty": c.tty,
        "OpenStdin": c.stdin,
        "StdinOnce": c.stdin_once,
        "Env": env,
        "Cmd": list(cmd),
        "Image": match sent.image.is_empty() { true => familiar(o.spec.main_image()), false => sent.image.clone() },
        "Volumes": match sent.volumes.is_empty() { true => own("Volumes"), false => json!(sent.volumes) },
        "WorkingDir": c.working_dir.clone().unwrap_or_else(|| own_text("WorkingDir")),
        "Entrypoint": list(entrypoint),
        "OnBuild": null,
        "Labels": labels::read(&o.metadata),
    });
    let check = super::health::config(sent, own("Healthcheck"));
    if !check.is_null() {
        doc["Healthcheck"] = check;
    }
    if !exposed.is_empty() {
        doc["ExposedPorts"] = json!(exposed);
    }
    let signal = o
        .spec
        .stop
        .signal
        .clone()
        .or_else(|| Some(own_text("StopSignal")).filter(|s| !s.is_empty()));
    if let Some(s) = signal {
        doc["StopSignal"] = s.into();
    }
    if let Some(t) = sent.stop_timeout {
        doc["StopTimeout"] = t.into();
    }
    doc
}

fn port_key(p: &PortMapping) -> String {
    format!("{}/{}", p.port, p.protocol.as_str())
}

/// The document's `HostConfig`: what was sent where it is only an echo, what is in force everywhere else.
pub fn host_config(o: &Object<Instance>, sent: &CreateBody) -> Value {
    let spec = &o.spec;
    let (r, h, n) = (&spec.resources, &sent.host_config, &spec.namespaces);
    let c = spec.containers.first().cloned().unwrap_or_default();
    let b = |m: Option<biga_model::Memory>| m.map_or(0, |m| m.bytes());
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    let policy = match spec.restart_policy.policy {
        RestartWhen::No => "no",
        RestartWhen::Always => "always",
        RestartWhen::OnFailure => "on-failure",
        RestartWhen::UnlessStopped => "unless-stopped",
    };
    let hosts: Vec<String> = spec
        .extra_hosts
        .iter()
        .flat_map(|a| a.hostnames.iter().map(move |n| format!("{n}:{}", a.ip)))
        .collect();
    let ulimits: Vec<Value> = c
        .ulimits
        .iter()
        .map(|(k, u)| json!({"Name": k, "Hard": u.hard, "Soft": u.soft}))
        .collect();
    let devices: Vec<Value> = c
        .devices
        .iter()
        .map(|d| {
            json!({
                "PathOnHost": d.host_path,
                "PathInContainer": d.path.clone().unwrap_or_else(|| d.host_path.clone()),
                "CgroupPermissions": d.permissions.clone().unwrap_or_else(|| "rwm".into()),
            })
        })
        .collect();
    let mut doc = json!({
        "Binds": list(&h.binds),
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": log::driver(&spec.log, &h.log_config.driver),
            // As it was written (`1m`), where it says the same.
            "Config": Some(log::config(&spec.log)).filter(|c| !c.keys().eq(h.log_config.config.keys())).unwrap_or_else(|| h.log_config.config.clone()),
        },
        "NetworkMode": network_mode(spec, h.network_mode.as_str()),
        "PortBindings": port_bindings(&spec.ports),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": spec.restart_policy.maximum_retry_count},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": list(&h.volumes_from),
        "ConsoleSize": [0, 0],
        "CapAdd": list(&capabilities(&c.security.cap_add)),
        "CapDrop": list(&capabilities(&c.security.cap_drop)),
        "CgroupnsMode": sharing::mode(&n.cgroup, "", "private"),
        "Dns": spec.dns.servers,
        "DnsOptions": spec.dns.options,
        "DnsSearch": spec.dns.search,
        "ExtraHosts": list(&hosts),
        "GroupAdd": list(&c.additional_groups),
        "IpcMode": sharing::mode(&n.ipc, if n.no_shm { "none" } else { &h.ipc_mode }, "private"),
        "Cgroup": "",
        "Links": list(&host_links(o, h)),
        "OomScoreAdj": r.oom_score_adj.unwrap_or(0),
        "PidMode": sharing::mode(&n.pid, &h.pid_mode, ""),
        "Privileged": c.security.privileged,
        "PublishAllPorts": h.publish_all_ports,
        "ReadonlyRootfs": c.security.read_only_root,
        "SecurityOpt": list(&h.security_opt),
        "UTSMode": sharing::mode(&n.uts, "", ""),
        "UsernsMode": if n.user == biga_model::UserIds::Private { "private" } else { h.userns_mode.as_str() },
        "ShmSize": spec.shm_size.map_or(64 << 20, |m| m.bytes()),
        "Runtime": match &spec.runtime {
            Some(other) => other.as_str(),
            None if spec.isolation.is_virtual() => spec.isolation.as_str(),
            None => "biga",
        },
        "Isolation": if spec.isolation.is_virtual() { "vm" } else { "" },
        "CpuShares": r.cpu_shares.unwrap_or(0),
        "Memory": b(r.memory),
        "NanoCpus": r.cpus.map_or(0, |c| u64::from(c.millis()) * 1_000_000),
        "CgroupParent": spec.cgroup_parent.clone().unwrap_or_default(),
        "BlkioWeight": r.io_weight.unwrap_or(0),
        "BlkioWeightDevice": per_device(r, "Weight", |d| d.weight.map(u64::from)),
        "BlkioDeviceReadBps": per_device(r, "Rate", |d| d.read_bps.map(|m| m.bytes())),
        "BlkioDeviceWriteBps": per_device(r, "Rate", |d| d.write_bps.map(|m| m.bytes())),
        "BlkioDeviceReadIOps": per_device(r, "Rate", |d| d.read_iops),
        "BlkioDeviceWriteIOps": per_device(r, "Rate", |d| d.write_iops),
        "CpuPeriod": r.cpu_period.unwrap_or(0),
        "CpuQuota": r.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": r.cpu_realtime_period.unwrap_or(0),
        "CpuRealtimeRuntime": r.cpu_realtime_runtime.unwrap_or(0),
        "CpusetCpus": r.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": r.cpuset_mems.clone().unwrap_or_default(),
        "Devices": devices,
        "DeviceCgroupRules": list(&c.device_rules),
        "DeviceRequests": super::devices::shown(&c.cdi_devices, &h.device_requests),
        "MemoryReservation": b(r.memory_reservation),
        "MemorySwap": b(r.memory_swap),
        "MemorySwappiness": r.memory_swappiness,
        "OomKillDisable": r.oom_kill_disable,
    });
    doc["PidsLimit"] = r.pids_limit.map_or(Value::Null, Value::from);
    doc["Ulimits"] = json!(ulimits);
    doc["CpuCount"] = 0.into();
    doc["CpuPercent"] = 0.into();
    doc["IOMaximumIOps"] = 0.into();
    doc["IOMaximumBandwidth"] = 0.into();
    let usual = |own: Option<Vec<String>>, paths: &[&str]| match own {
        Some(own) => json!(own),
        // Of a kernel of its own nothing is hidden.
        None if c.security.privileged || spec.isolation.is_virtual() => Value::Null,
        None => json!(paths),
    };
    doc["MaskedPaths"] = usual(c.security.masked_paths.clone(), &MASKED_PATHS);
    doc["ReadonlyPaths"] = usual(c.security.read_only_paths.clone(), &READ_ONLY_PATHS);
    let more = [
        ("Mounts", json!(h.mounts), h.mounts.is_empty()),
        ("Tmpfs", json!(h.tmpfs), h.tmpfs.is_empty()),
        ("Sysctls", json!(spec.sysctls), spec.sysctls.is_empty()),
        ("Annotations", json!(h.annotations), h.annotations.is_empty()),
        ("Init", json!(true), !c.init),
    ];
    for (field, value, empty) in more {
        if !empty {
            doc[field] = value;
        }
    }
    doc
}

fn per_device(r: &biga_model::Resources, key: &str, of: impl Fn(&biga_model::IoDevice) -> Option<u64>) -> Value {
    let one = |d: &biga_model::IoDevice| Some(json!({"Path": d.path, key: of(d)?}));
    r.io_devices.iter().filter_map(one).collect()
}

fn link_words(links: &[biga_model::NetworkLink]) -> Vec<String> {
    links.iter().map(|l| format!("{}:{}", l.instance, l.alias)).collect()
}

/// As Docker shows links: the other's path, and the alias below one's own.
fn host_links(o: &Object<Instance>, h: &crate::types::container::HostConfig) -> Vec<String> {
    let sent = h.links.iter().filter_map(|l| super::create::link(l).ok());
    // The others' names may be new ones, and a link may be gone.
    // Those on other networks are shown with the network, as Docker does.
    let first = o.spec.networks.first().filter(|n| n.network == DEFAULT_NETWORK);
    let links = first.map(|n| &n.links[..]).unwrap_or_default();
    let now = |alias: &str| links.iter().find(|l| l.alias == alias);
    sent.filter_map(|(_, alias)| now(&alias))
        .map(|l| format!("/{}:/{}/{}", l.instance, o.name(), l.alias))
        .collect()
}

fn network_mode(spec: &InstanceSpec, asked: &str) -> String {
    if let Some(of) = sharing::network_of_another(spec, asked) {
        return of;
    }
    match spec.network_mode {
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Bridge => {
            let first = spec.networks.first().map_or("bridge", |n| docker_network(&n.network));
            // An id that was sent stays an id.
            if asked.is_empty() || asked == "default" || first == "bridge" {
                first.into()
            } else {
                asked.into()
            }
        }
    }
}

fn propagation(m: &biga_model::VolumeMount) -> &'static str {
    match m.propagation {
        biga_model::MountPropagation::Private => "rprivate",
        biga_model::MountPropagation::Slave => "rslave",
        biga_model::MountPropagation::Shared => "rshared",
    }
}

fn port_bindings(ports: &[PortMapping]) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for p in ports {
        let binding = json!({
            "HostIp": p.host_ip.clone().unwrap_or_default(),
            "HostPort": p.host_port.map(|n| n.to_string()).unwrap_or_default(),
        });
        push(&mut all, port_key(p), binding);
    }
    Value::Object(all)
}

fn push(all: &mut Map<String, Value>, key: String, value: Value) {
    if let Value::Array(l) = all.entry(key).or_insert_with(|| json!([])) {
        l.push(value);
    }
}

/// The document's `Mounts`.
pub fn mounts(o: &Object<Instance>, sent: &CreateBody, beside: &Beside) -> Vec<Value> {
    let mounts = o
        .spec
        .containers
        .first()
        .map(|c| c.volume_mounts.clone())
        .unwrap_or_default();
    let find = |m: &biga_model::VolumeMount| o.spec.volumes.iter().find(|v| v.name == m.name).cloned();
    mounts
        .iter()
        .filter_map(|m| Some((m, find(m)?)))
        .map(|(m, v)| {
            let mut doc = json!({"Destination": m.mount_path, "Mode": "", "RW": !m.read_only, "Propagation": ""});
            match (&v.volume, &v.host_path) {
                (Some(name), _) => {
                    let source = beside
                        .volumes
                        .iter()
                        .find(|(n, _)| n == name)
                        .map_or("", |(_, p)| p.as_str());
                    doc["Type"] = "volume".into();
                    doc["Name"] = name.clone().into();
                    doc["Source"] = source.into();
                    doc["Driver"] = "local".into();
                    doc["Mode"] = "z".into();
                }
                (None, Some(path)) => {
                    doc["Type"] = "bind".into();
                    doc["Source"] = path.clone().into();
                    doc["Propagation"] = propagation(m).into();
                    let given = sent
                        .host_config
                        .binds
                        .iter()
                        .find(|b| b.split(':').nth(1) == Some(m.mount_path.as_str()));
                    doc["Mode"] = given.and_then(|b| b.split(':').nth(2)).unwrap_or("").into();
                }
                (None, None) if v.image.is_some() => {
                    doc["Type"] = "image".into();
                    doc["Source"] = v.image.clone().into();
                }
                // A directory that goes with the instance; where it is on the host is nobody's matter.
                (None, None) if v.empty_dir.is_some() => {
                    doc["Type"] = "bind".into();
                    doc["Source"] = "".into();
                }
                (None, None) => {
                    doc["Type"] = "tmpfs".into();
                    doc["Source"] = "".into();
                }
            }
            doc
        })
        .collect()
}

fn network_settings(o: &Object<Instance>, s: &InstanceStatus, sent: &CreateBody, beside: &Beside) -> Value {
    let live = s.phase.is_live();
    let networks = networks(o, s, beside);
    let mut ports = Map::new();
    if live {
        for text in super::hostconfig::exposed(sent, beside.image.and_then(|i| i.get("config")).unwrap_or(&Value::Null))
        {
            ports.insert(text, Value::Null);
        }
        for p in &s.ports {
            if let Some(n) = p.host_port {
                let ip = p.host_ip.clone().unwrap_or_else(|| "0.0.0.0".into());
                let key = port_key(p);
                if ports.get(&key).is_some_and(Value::is_null) {
                    ports.remove(&key);
                }
                push(&mut ports, key, json!({"HostIp": ip, "HostPort": n.to_string()}));
            }
        }
    }
    let bridge = networks.get("bridge").cloned().unwrap_or_else(|| json!({}));
    let text = |f: &str| bridge.get(f).cloned().unwrap_or_else(|| "".into());
    json!({
        "Bridge": "",
        "SandboxID": if live { docker_id(&format!("{}/sandbox", o.uid())) } else { String::new() },
        "SandboxKey": "",
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": text("EndpointID"),
        "Gateway": text("Gateway"),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": text("IPAddress"),
        "IPPrefixLen": bridge.get("IPPrefixLen").cloned().unwrap_or_else(|| 0.into()),
        "IPv6Gateway": "",
        "MacAddress": text("MacAddress"),
        "Networks": networks,
    })
}

/// The networks a container is on, by Docker's names.
pub fn networks(o: &Object<Instance>, s: &InstanceStatus, beside: &Beside) -> Map<String, Value> {
    let mut all = Map::new();
    let alone = match o.spec.network_mode {
        NetworkMode::Bridge => None,
        // It has left its last network.
        NetworkMode::None if left(o) => return all,
        NetworkMode::None => Some("none"),
        NetworkMode::Host => Some("host"),
    };
    if let Some(name) = alone {
        all.insert(name.into(), endpoint(&predefined_id(name), "", None, None));
        return all;
    }
    let mut wanted = o.spec.networks.clone();
    if wanted.is_empty() {
        let network = super::ids::network_name("bridge").to_string();
        wanted.push(biga_model::NetworkAttachment {
            network,
            ..Default::default()
        });
    }
    for w in wanted {
        let id = beside
            .networks
            .iter()
            .find(|(n, _)| *n == w.network)
            .map_or("", |(_, id)| id.as_str());
        let end = s
            .networks
            .iter()
            .find(|e| e.network == w.network)
            .filter(|_| s.phase.is_live());
        let endpoint_id = docker_id(&format!("{}/{}", o.uid(), w.network));
        let mut doc = endpoint(id, &endpoint_id, end, Some(&w));
        if w.network != super::ids::network_name("bridge") {
            let mut names = vec![o.name().to_string()];
            names.extend(w.aliases.iter().cloned());
            names.push(short(&docker_id(o.uid())));
            names.dedup();
            doc["DNSNames"] = json!(names);
        }
        all.insert(docker_network(&w.network).into(), doc);
    }
    all
}

/// Whether it was made with networks and has none any more.
pub fn left(o: &Object<Instance>) -> bool {
    let body = sent(&o.metadata);
    let none = o.spec.network_mode == NetworkMode::None && o.spec.namespaces.network.is_none();
    none && !body.network_disabled
        && body.host_config.network_mode != "none"
        && o.metadata.annotations.contains_key(super::create::CREATED)
}

fn endpoint(
    network_id: &str,
    endpoint_id: &str,
    end: Option<&biga_model::NetworkEndpoint>,
    wanted: Option<&biga_model::NetworkAttachment>,
) -> Value {
    let (ip, prefix) = end.map_or(("", 0), |e| match e.address.split_once('/') {
        Some((ip, len)) => (ip, len.parse::<u8>().unwrap_or(0)),
        None => (e.address.as_str(), 0),
    });
    let mut ipam = wanted
        .and_then(|w| w.address.as_ref())
        .map_or(Value::Null, |a| json!({"IPv4Address": a}));
    if let Some(w) = wanted.filter(|w| !w.link_local.is_empty()) {
        ipam["LinkLocalIPs"] = json!(w.link_local);
    }
    let aliases = wanted
        .filter(|w| !w.aliases.is_empty())
        .map_or(Value::Null, |w| json!(w.aliases));
    let links = wanted
        .filter(|w| !w.links.is_empty())
        .map_or(Value::Null, |w| json!(link_words(&w.links)));
    json!({
        "IPAMConfig": ipam,
        "Links": links,
        "Aliases": aliases,
        "MacAddress": end.map_or("", |e| e.mac.as_str()),
        "DriverOpts": null,
        "GwPriority": wanted.map_or(0, |w| w.gateway_priority),
        "NetworkID": network_id,
        "EndpointID": if end.is_some() { endpoint_id } else { "" },
        "Gateway": end.map_or("", |e| e.gateway.as_str()),
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

/// A port as `docker ps` lists it.
pub fn port_summary(p: &PortMapping) -> Value {
    let mut doc = json!({
        "PrivatePort": p.port,
        "Type": p.protocol.as_str(),
    });
    if let Some(n) = p.host_port {
        doc["IP"] = p.host_ip.clone().unwrap_or_else(|| "0.0.0.0".into()).into();
        doc["PublicPort"] = n.into();
    }
    doc
}
/// As Linux has them.
fn capabilities(names: &[String]) -> Vec<String> {
    let full = |n: &String| match n.as_str() {
        "ALL" => n.clone(),
        n => format!("CAP_{n}"),
    };
    names.iter().map(full).collect()
}
