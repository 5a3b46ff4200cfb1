//! From an instance's spec and its image to the one document its shim is started with.
//!
//! The single place where isolations part. What they share is prepared once; what differs is in the three
//! functions below [`run`].

mod pod;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use biga_image::ImageRecord;
use biga_model::{
    ContainerSpec, Instance, InstanceStatus, InstanceVolume, Isolation, LogDriver, NetworkMode, Object, Phase, Share,
    UserIds, VolumeMode,
};
use biga_wire::config::{
    Container, Device, Layer, Log, Machine, Microvm, Mount, MountSource, Namespace, NamespaceFile, Namespaces, Nic,
    OciRuntime, PodContainer, ShimConfig, Sink, Workload,
};

use crate::engine::{Engine, private_dir};
use crate::instance::{Failure, limits, merge};
use crate::links::{self, Linked};
use crate::log_sink;
use crate::networks::{Connection, any_made};
use crate::translate;
use crate::volumes::format_if_blank;

/// Annotation of an instance whose changes are asked for after its end ([`crate::files::Files::layer`]). A microvm then gives them to the
/// node when its main process ended with code 0; those of a container are there anyway.
pub const KEEP_CHANGES: &str = "biga.dev/keep-changes";

/// Directory below that of runs with what steps of builds are given for a moment; it outlives no reboot.
pub const BUILDS: &str = "builds";
/// Annotation: a file below [`BUILDS`] with variables of the main process, each ended by a zero byte. They stand in no object.
pub const ENV_FILE: &str = "biga.dev/env-file";

/// How long output waits for its first reader, in milliseconds.
const WAIT_ATTACH_MS: u64 = 10_000;
/// Size of `/dev/shm` where the spec names none.
const SHM_SIZE: u64 = 64 << 20;
/// Size of a microvm's writable layer: a sparse file, so this is a limit and no cost.
const RW_SIZE: u64 = 16 << 30;
/// Memory of a microvm where the spec names none.
const MICROVM_MEMORY: u64 = 256 << 20;
/// Memory of a machine where the spec names none.
const MACHINE_MEMORY: u64 = 1 << 30;

/// An instance on its way to a run.
struct Run<'a> {
    engine: &'a Engine,
    object: &'a Object<Instance>,
    record: &'a ImageRecord,
    connections: Vec<Connection>,
    hostname: String,
    /// Another runtime than ours.
    runtime: Option<OciRuntime>,
    /// The one of several containers that this is about.
    part: Option<&'a ContainerSpec>,
    /// Who gets the lines of its log beside the files.
    sink: Option<Sink>,
    /// In whose name layers are mounted.
    layer_user: String,
    /// Ids of the images that are volumes, in the spec's order.
    volume_images: Vec<String>,
}

/// Prepares a run: after this only the shim has to be started.
pub async fn run(
    engine: &Engine,
    object: &Object<Instance>,
    status: &mut InstanceStatus,
    records: &[ImageRecord],
) -> Result<ShimConfig, Failure> {
    let record = records.get(object.spec.init_containers.len());
    let record = record.ok_or_else(|| Failure::new("NoContainer", "the spec names nothing to run"))?;
    // Before anything is made for it.
    let runtime = object.spec.runtime.as_deref().map(|r| engine.oci.get(r)).transpose()?;
    let connections = match object.spec.network_mode {
        NetworkMode::Bridge => engine.networks.connections(object, status).await?,
        NetworkMode::None | NetworkMode::Host => Vec::new(),
    };
    let hostname = match (&object.spec.hostname, object.spec.network_mode) {
        (Some(h), _) => h.clone(),
        (None, _) if object.spec.namespaces.network.is_some() => shared_name(engine, object).await?,
        // As Docker: who shares the host's network goes by the host's name.
        (None, mode) if mode == NetworkMode::Host || object.spec.namespaces.uts == Share::Host => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        (None, _) => host_name(object.name()),
    };
    let run = Run {
        engine,
        object,
        record,
        connections,
        hostname,
        runtime,
        part: None,
        sink: sink(engine, object, record).await,
        layer_user: object.uid().to_owned(),
        volume_images: status.volume_image_ids.clone(),
    };
    let workload = match object.spec.isolation {
        Isolation::Container if object.spec.is_pod() => run.pod(records).await?,
        Isolation::Container => run.container().await?,
        Isolation::Microvm => run.microvm(status).await?,
        Isolation::Vm => run.machine(status).await?,
    };
    engine.networks.announce(object, &run.connections, status).await?;
    Ok(run.config(workload))
}

/// Who gets the lines of its log beside the files. Where that cannot be found out it runs all the same, and people are told.
async fn sink(engine: &Engine, object: &Object<Instance>, record: &ImageRecord) -> Option<Sink> {
    match log_sink::of(object, record).await {
        Ok(sink) => sink,
        Err(why) => {
            let message = format!("its log is kept in files only: {why}");
            engine.events.record(object, true, "LogFailed", &message);
            None
        }
    }
}

/// After a restart of the daemon: what a run that goes on needs is noted again, so that the sweep leaves it alone.
pub async fn readopt(engine: &Engine, object: &Object<Instance>) -> Result<(), Failure> {
    let mut status = object.status_or_default();
    let uid = object.uid();
    engine.runs.begin(uid).await;
    let connections = engine.networks.held_connections(object, &status).await?;
    match object.spec.isolation {
        Isolation::Container => {
            // A daemon that was killed while it held it for a moment.
            if status.phase == Phase::Running
                && let Err(e) = biga_container::cgroup::hold::release(&engine.group_of(uid))
            {
                tracing::warn!(uid, "it may be frozen: {e}");
            }
            for record in engine.images_of(&status) {
                let adopted = engine.mounts.adopt(&record.layers, uid);
                adopted.map_err(|e| Failure::new("LayerFailed", e.to_string()))?;
            }
            if !connections.is_empty() {
                engine.networks.namespace(uid, &connections).await?;
            }
        }
        Isolation::Microvm | Isolation::Vm if !connections.is_empty() => {
            engine.networks.taps(uid, &connections).await?;
        }
        Isolation::Microvm | Isolation::Vm => {}
    }
    engine.networks.announce_again(object, &connections, &mut status).await
}

/// The host name of the instance whose network is shared.
async fn shared_name(engine: &Engine, object: &Object<Instance>) -> Result<String, Failure> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.spec.namespaces.network.as_deref().unwrap_or_default();
    let other = engine.networks.instance(namespace, name).await?;
    Ok(other.spec.hostname.clone().unwrap_or_else(|| host_name(other.name())))
}

/// Who reaches the files of an instance of this isolation.
pub fn files_of(isolation: Isolation) -> FilesOf {
    match isolation {
        Isolation::Container => FilesOf::Outside,
        Isolation::Microvm => FilesOf::Inside,
        Isolation::Vm => FilesOf::Nobody(
            "is a machine: its files are on disks that only its own system reads. Copy them over its network, or attach a \
             volume",
        ),
    }
}

/// Who reaches the files of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesOf {
    /// The engine, from outside, whether it runs or not.
    Outside,
    /// Its own init, while it runs.
    Inside,
    /// Nobody, for this reason.
    Nobody(&'static str),
}

/// Why an instance of this isolation has no checkpoints, and what to do instead; `None` where it has.
pub fn no_checkpoints(isolation: Isolation) -> Option<&'static str> {
    match isolation {
        Isolation::Container => None,
        Isolation::Microvm => Some(
            "is a microvm: CRIU saves processes of this host, and its processes are its own kernel's. `biga pause` holds it still; \
             what it keeps in volumes outlives it",
        ),
        Isolation::Vm => Some(
            "is a machine: CRIU saves processes of this host, and its processes are its own system's. `biga pause` holds it still; \
             what is on its disks outlives it",
        ),
    }
}

/// The container of an instance that does not run, as far as its files go: without network, and with layers that are
/// still to be mounted. Those of images that are volumes are mounted in the name of `layer_user`.
pub(crate) async fn at_rest(
    engine: &Engine,
    object: &Object<Instance>,
    record: &ImageRecord,
    layer_user: &str,
) -> Result<Container, Failure> {
    engine.make_dirs(object.uid())?;
    let hostname = object.spec.hostname.clone().unwrap_or_else(|| host_name(object.name()));
    let run = Run {
        engine,
        object,
        record,
        connections: Vec::new(),
        hostname,
        runtime: None,
        part: object.spec.containers.first().filter(|_| object.spec.is_pod()),
        sink: None,
        layer_user: layer_user.to_owned(),
        volume_images: object.status_or_default().volume_image_ids,
    };
    let layout = &engine.layout;
    for dir in [layout.run_dir(object.uid()), layout.state_dir(object.uid())] {
        private_dir(&of_main(dir, object))?;
    }
    let spec = run.spec()?;
    let layers = record.layers.iter().map(|l| Layer {
        file: l.file.clone(),
        mount: None,
    });
    Ok(Container {
        layers: layers.collect(),
        mounts: run.mounts(spec).await?,
        hostname: run.hostname.clone(),
        hosts: run.hosts(),
        resolv_conf: run.resolv_conf(),
        read_only_root: spec.security.read_only_root,
        ..Container::default()
    })
}

/// The directory of the main container of several, below that of the instance.
pub(crate) fn of_main(dir: PathBuf, object: &Object<Instance>) -> PathBuf {
    match object.spec.containers.first() {
        Some(main) if object.spec.is_pod() => PodContainer::dir(&dir, &main.name),
        _ => dir,
    }
}

/// A host name made of an instance's name: what is no part of a host name becomes `-`; at most 63 bytes.
fn host_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c == '_' { '-' } else { c }).take(63).collect();
    clean.trim_end_matches(['-', '.']).to_string()
}

impl Run<'_> {
    fn uid(&self) -> &str {
        self.object.uid()
    }

    fn config(&self, workload: Workload) -> ShimConfig {
        let spec = &self.object.spec;
        let layout = &self.engine.layout;
        let log = match workload {
            // Each container has one of its own.
            Workload::Pod(_) => Log::default(),
            _ => self.log(layout.log(self.uid())),
        };
        let wait = !spec.is_pod() && spec.containers.first().is_some_and(|c| c.wait_attach);
        ShimConfig {
            uid: self.uid().to_string(),
            name: self.object.name().to_string(),
            run_dir: layout.run_dir(self.uid()),
            state_dir: layout.state_dir(self.uid()),
            log,
            start: true,
            wait_attach_ms: if wait { WAIT_ATTACH_MS } else { 0 },
            cgroup: match &spec.cgroup_parent {
                Some(parent) => format!("{}/{}/{}", parent.trim_matches('/'), layout.prefix, self.uid()),
                None => format!("{}/{}", layout.prefix, self.uid()),
            },
            limits: limits(self.object),
            workload,
        }
    }

    fn log(&self, path: PathBuf) -> Log {
        let spec = &self.object.spec.log;
        let keeps = match spec.driver {
            LogDriver::File => true,
            LogDriver::None => false,
            LogDriver::Journald | LogDriver::Syslog => !spec.no_files,
        };
        Log {
            path: keeps.then_some(path),
            max_size: spec.max_size.map_or(16 << 20, |m| m.bytes()),
            max_files: spec.max_files.unwrap_or(3),
            sink: self.sink.clone(),
        }
    }

    /// The container that this is about.
    fn spec(&self) -> Result<&ContainerSpec, Failure> {
        self.part
            .or_else(|| self.object.spec.containers.first())
            .ok_or_else(|| Failure::new("NoContainer", "the spec names no container"))
    }

    async fn container(&self) -> Result<Workload, Failure> {
        let spec = self.spec()?;
        let s = &self.object.spec;
        let host_network = s.network_mode == NetworkMode::Host;
        let mounted = self.engine.mounts.mount_all(&self.record.layers, self.uid());
        let mounted = mounted.map_err(|e| Failure::new("LayerFailed", e.to_string()))?;
        let layers = self.record.layers.iter().zip(mounted);
        let (namespaces, netns) = self.namespaces().await?;
        let devices = spec.devices.iter().map(|d| Device {
            host_path: PathBuf::from(&d.host_path),
            path: d.path.clone().unwrap_or_else(|| d.host_path.clone()),
            permissions: d.permissions.clone().unwrap_or_else(|| "rwm".into()),
            ..Device::default()
        });
        let privileged = spec.security.privileged;
        let mut capabilities = merge::capabilities(spec)?;
        let own_ids = namespaces.user.is_some();
        if spec.system && own_ids && spec.security.cap_drop.is_empty() {
            // Within ids of its own an init system may do all: none of it reaches the host. Some it has no use for there, and would try.
            let names = biga_container::caps::NAMES.into_iter();
            capabilities = names
                .filter(|c| !translate::OF_THE_HOST.contains(c))
                .map(str::to_owned)
                .collect();
        }
        let mut process = merge::process(&self.record.config, spec, &self.hostname)?;
        self.tell_links(&mut process.env).await?;
        self.tell_secrets(&mut process.env)?;
        let mut mounts = self.mounts(spec).await?;
        if spec.system {
            translate::system(&mut process, &mut mounts, self.uid());
        }
        let (hosts, resolv_conf) = self.name_files().await?;
        let mut container = Container {
            process,
            layers: layers
                .map(|(l, m)| Layer {
                    file: l.file.clone(),
                    mount: Some(m),
                })
                .collect(),
            mounts,
            netns,
            host_network,
            hostname: self.hostname.clone(),
            domainname: s.domainname.clone(),
            hosts,
            resolv_conf,
            shm_size: s.shm_size.map_or(SHM_SIZE, |m| m.bytes()),
            capabilities,
            privileged,
            read_only_root: spec.security.read_only_root,
            no_new_privileges: spec.security.no_new_privileges,
            seccomp: !privileged && spec.security.seccomp != "unconfined",
            sysctls: s.sysctls.clone(),
            devices: devices.collect(),
            namespaces,
            runtime: self.runtime.clone(),
            no_shm: s.namespaces.no_shm,
            annotations: self.annotations(),
            ..Container::default()
        };
        self.engine.cdi.give(&spec.cdi_devices, &mut container)?;
        translate::fill(&mut container, s, spec)?;
        if spec.system && own_ids && container.read_only_paths.is_none() {
            // The kernel keeps what is not its own from it anyway.
            container.read_only_paths = Some(Vec::new());
        }
        Ok(Workload::Container(Box::new(container)))
    }

    /// What another runtime is told: all that the user noted, and nothing of Biga's own.
    fn annotations(&self) -> BTreeMap<String, String> {
        let own = |key: &str| {
            key.split('/')
                .next()
                .is_some_and(|d| d == "biga.dev" || d.ends_with(".biga.dev"))
        };
        let all = self.object.metadata.annotations.iter();
        match self.runtime {
            Some(_) => all
                .filter(|(k, _)| !own(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            None => BTreeMap::new(),
        }
    }

    /// Adds what its links on the default network are told by, where it has no variable of that name itself.
    async fn tell_links(&self, env: &mut Vec<String>) -> Result<(), Failure> {
        for link in links::of(self.object) {
            let Some(other) = self.engine.networks.find_instance(self.object, &link.instance).await? else {
                continue;
            };
            let Some(address) = links::address(&other) else {
                continue;
            };
            let images = self.engine.images_of(&other.status_or_default());
            let config = images.first().map(|r| &r.config);
            let linked = Linked {
                alias: &link.alias,
                address: &address,
                ports: links::ports(&other, config, link),
                env: links::environment(&other, config),
            };
            for line in links::variables(self.object.name(), &linked) {
                let name = line.split_inclusive('=').next().unwrap_or_default();
                if !env.iter().any(|have| have.starts_with(name)) {
                    env.push(line);
                }
            }
        }
        Ok(())
    }

    /// Adds the variables of a step that are secrets.
    fn tell_secrets(&self, env: &mut Vec<String>) -> Result<(), Failure> {
        let Some(name) = self.object.metadata.annotations.get(ENV_FILE) else {
            return Ok(());
        };
        let failed = |why: String| Failure::new("EnvironmentFailed", format!("its variables cannot be read: {why}"));
        let mut parts = Path::new(name).components();
        if !parts.all(|c| matches!(c, Component::Normal(_))) {
            return Err(failed(format!("{name:?} leads elsewhere")));
        }
        let text = std::fs::read(self.engine.layout.run.join(BUILDS).join(name)).map_err(|e| failed(e.to_string()))?;
        for variable in text.split(|b| *b == 0).filter(|v| !v.is_empty()) {
            let variable = String::from_utf8_lossy(variable).into_owned();
            let of = |v: &str| v.split('=').next().map(str::to_owned);
            env.retain(|v| of(v) != of(&variable));
            env.push(variable);
        }
        Ok(())
    }

    /// What it shares, its user ids, and its network namespace.
    async fn namespaces(&self) -> Result<(Namespaces, Option<NamespaceFile>), Failure> {
        let n = &self.object.spec.namespaces;
        let mut all = Namespaces::default();
        if self.part.is_some() {
            // One of several containers joins what they share.
            return Ok((all, None));
        }
        for (share, kind, place) in [
            (&n.pid, "pid", &mut all.pid),
            (&n.ipc, "ipc", &mut all.ipc),
            (&n.uts, "uts", &mut all.uts),
            (&n.cgroup, "cgroup", &mut all.cgroup),
        ] {
            *place = match share {
                Share::Private => Namespace::Own,
                Share::Host => Namespace::Host,
                Share::Instance(name) => Namespace::Of(self.namespace_of(name, kind).await?),
            };
        }
        let mut owned = None;
        if n.user == UserIds::Private {
            let ids = self.engine.idmaps.range(self.uid())?;
            all.user = Some(ids);
            if self.object.spec.network_mode == NetworkMode::Bridge {
                owned = Some(self.engine.idmaps.network(ids).await?);
            }
        }
        let netns = match (self.object.spec.network_mode, &n.network) {
            (NetworkMode::Bridge, _) => {
                let networks = &self.engine.networks;
                let made = networks.namespace_in(self.uid(), &self.connections, owned).await?;
                Some(made.into())
            }
            (_, Some(name)) => Some(self.namespace_of(name, "net").await?),
            _ => None,
        };
        Ok((all, netns))
    }

    /// A namespace of another instance that runs.
    async fn namespace_of(&self, name: &str, kind: &str) -> Result<NamespaceFile, Failure> {
        let namespace = self.object.metadata.namespace.as_deref().unwrap_or_default();
        let other = self.engine.other(namespace, name).await?;
        self.engine.namespace_of(&other, kind).await
    }

    /// Content of `/etc/hosts` and `/etc/resolv.conf`: those of whom it shares the network with.
    async fn name_files(&self) -> Result<(String, String), Failure> {
        let Some(name) = &self.object.spec.namespaces.network else {
            return Ok((self.hosts(), self.resolv_conf()));
        };
        let namespace = self.object.metadata.namespace.as_deref().unwrap_or_default();
        let other = self.engine.networks.instance(namespace, name).await?;
        let dir = self.engine.layout.run_dir(other.uid());
        let dir = of_main(dir, &other);
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        Ok((read("hosts"), read("resolv.conf")))
    }

    async fn microvm(&self, status: &mut InstanceStatus) -> Result<Workload, Failure> {
        let spec = self.spec()?;
        let s = &self.object.spec;
        let memory = s.resources.memory.map_or(MICROVM_MEMORY, |m| m.bytes());
        let hypervisor = self.engine.hypervisors.get(s.resources.cpus, memory).await?;
        status.accelerator = accelerator(hypervisor.kvm);
        let (kernel, initrd) = self.engine.hypervisors.kernel(&self.engine.layout.kernel())?;
        let layers = self.record.layers.iter().map(|l| Layer {
            file: l.file.clone(),
            mount: None,
        });
        let mut process = merge::process(&self.record.config, spec, &self.hostname)?;
        self.tell_secrets(&mut process.env)?;
        Ok(Workload::Microvm(Box::new(Microvm {
            hypervisor,
            kernel,
            initrd,
            process,
            layers: layers.collect(),
            rw_size: RW_SIZE,
            mounts: self.mounts(spec).await?,
            nics: self.nics().await?,
            hostname: self.hostname.clone(),
            domainname: s.domainname.clone(),
            hosts: self.hosts(),
            resolv_conf: self.resolv_conf(),
            shm_size: s.shm_size.map_or(SHM_SIZE, |m| m.bytes()),
            capabilities: merge::capabilities(spec)?,
            privileged: spec.security.privileged,
            read_only_root: spec.security.read_only_root,
            no_new_privileges: spec.security.no_new_privileges,
            sysctls: s.sysctls.clone(),
            keep_changes: self.keeps_changes().then(|| mounted_at(spec)),
        })))
    }

    fn keeps_changes(&self) -> bool {
        self.object.metadata.annotations.contains_key(KEEP_CHANGES)
    }

    async fn machine(&self, status: &mut InstanceStatus) -> Result<Workload, Failure> {
        let s = &self.object.spec;
        let machine = s.machine.clone().unwrap_or_default();
        let memory = s.resources.memory.map_or(MACHINE_MEMORY, |m| m.bytes());
        let hypervisor = self.engine.hypervisors.get(s.resources.cpus, memory).await?;
        status.accelerator = accelerator(hypervisor.kvm);
        let dir = self.engine.layout.state_dir(self.uid());
        let nics = self.nics().await?;
        let disk = self.engine.hypervisors.clone_disk(self.record, &machine, &dir).await?;
        let seed = self
            .engine
            .hypervisors
            .seed(self.object, &self.hostname, &nics, &dir)
            .await?;
        let uefi = self.engine.hypervisors.firmware(&machine, &dir)?;
        let mut disks = Vec::new();
        for v in &s.volumes {
            match self.volume(v).await?.0 {
                MountSource::Block { path } => disks.push(path),
                _ => {
                    let message = format!(
                        "volume {} is a directory: a machine takes volumes of mode block",
                        v.name
                    );
                    return Err(Failure::new("VolumeFailed", message));
                }
            }
        }
        Ok(Workload::Machine(Box::new(Machine {
            hypervisor,
            disk,
            disks,
            seed: Some(seed),
            nics,
            uefi,
        })))
    }

    async fn nics(&self) -> Result<Vec<Nic>, Failure> {
        if self.connections.is_empty() {
            return Ok(Vec::new());
        }
        let taps = self.engine.networks.taps(self.uid(), &self.connections).await?;
        let dns = self.dns().0;
        let ends = self.connections.iter().map(|c| &c.endpoint);
        let way_out = biga_net::way_out(ends.clone());
        // Without priorities all are told, and the first is the one.
        let told = |at: usize| ends.clone().all(|e| e.gateway_priority == 0) || way_out == Some(at);
        let nic = |(at, (c, tap)): (usize, (&Connection, String))| Nic {
            tap,
            mac: c.endpoint.mac.to_string(),
            interface: c.endpoint.interface.clone(),
            address: c.endpoint.cidr(),
            gateway: c
                .endpoint
                .gateway
                .filter(|_| told(at))
                .map(|g| g.to_string())
                .unwrap_or_default(),
            mtu: c.endpoint.mtu.unwrap_or(1500),
            dns: dns.clone(),
        };
        Ok(self.connections.iter().zip(taps).enumerate().map(nic).collect())
    }

    fn hosts(&self) -> String {
        let ends: Vec<_> = self
            .connections
            .iter()
            .map(|c| biga_model::NetworkEndpoint {
                address: c.endpoint.cidr(),
                ..Default::default()
            })
            .collect();
        merge::hosts(
            &self.hostname,
            self.object.spec.domainname.as_deref(),
            &ends,
            &self.object.spec.extra_hosts,
        )
    }

    /// Name servers and search domains.
    fn dns(&self) -> (Vec<String>, Vec<String>) {
        let d = &self.object.spec.dns;
        let made = any_made(&self.connections);
        let servers = match self.object.spec.isolation {
            _ if !made && !d.servers.is_empty() => d.servers.clone(),
            Isolation::Container if made => vec![biga_net::RESOLVER.to_string()],
            // Each of them knows the names of all of the instance's networks.
            _ => self.connections.iter().map(|c| c.gateway.to_string()).collect(),
        };
        (servers, d.search.clone())
    }

    fn resolv_conf(&self) -> String {
        if self.object.spec.network_mode == NetworkMode::Host && self.object.spec.dns.servers.is_empty() {
            return std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        }
        let (servers, search) = self.dns();
        let mut options = self.object.spec.dns.options.clone();
        // A name without a dot is one of the network first, and not of a search domain.
        let own = servers.iter().any(|s| *s == biga_net::RESOLVER.to_string());
        if own && !options.iter().any(|o| o.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
        merge::resolv_conf(&servers, &search, &options)
    }

    /// The files of an image, whose layers stay mounted as long as whoever uses them here.
    fn image_files(&self, volume: &str, image: &str) -> Result<MountSource, Failure> {
        let mut all = self.object.spec.volumes.iter().filter(|v| v.image.is_some());
        let id = all
            .position(|v| v.name == volume)
            .and_then(|i| self.volume_images.get(i));
        let missing = || {
            Failure::new(
                "ImageNotPresent",
                format!("image {image}, which is mounted, is not here"),
            )
        };
        let id = id.and_then(|id| id.parse().ok()).ok_or_else(missing)?;
        let record = self.engine.images.files().get(&id).map_err(|_| missing())?;
        let layers = self.engine.mounts.mount_all(&record.layers, &self.layer_user);
        Ok(MountSource::Image {
            layers: layers.map_err(|e| Failure::new("LayerFailed", e.to_string()))?,
            sub_path: None,
        })
    }

    /// What is mounted, the image's own wishes for volumes first.
    async fn mounts(&self, spec: &ContainerSpec) -> Result<Vec<Mount>, Failure> {
        let mut all = Vec::new();
        let taken = |path: &str| {
            spec.volume_mounts
                .iter()
                .any(|m| m.mount_path.trim_end_matches('/') == path)
        };
        for (i, target) in self.record.config.volumes.iter().enumerate() {
            if taken(target.trim_end_matches('/')) || !target.starts_with('/') {
                continue;
            }
            let dir = self.engine.layout.state_dir(self.uid());
            let dir = match self.part {
                Some(c) => PodContainer::dir(&dir, &c.name),
                None => dir,
            };
            let path = dir.join("volumes").join(i.to_string());
            private_dir(&path)?;
            let source = MountSource::Bind { path, sub_path: None };
            all.push(Mount {
                source,
                target: target.clone(),
                read_only: false,
                copy_up: true,
                how: Default::default(),
            });
        }
        for m in &spec.volume_mounts {
            let named = self.object.spec.volumes.iter().find(|v| v.name == m.name);
            let volume =
                named.ok_or_else(|| Failure::new("VolumeFailed", format!("no volume {} in the spec", m.name)))?;
            let (mut source, ours) = self.volume(volume).await?;
            match (&mut source, &m.sub_path) {
                (MountSource::Bind { sub_path, .. } | MountSource::Image { sub_path, .. }, Some(p)) => {
                    *sub_path = Some(p.clone());
                }
                (_, Some(_)) => {
                    let message = format!("subPath {:?}: only a directory has paths below it", m.sub_path);
                    return Err(Failure::new("VolumeFailed", message));
                }
                _ => {}
            }
            if let MountSource::Block { path } = &source {
                format_if_blank(path).await?;
            }
            let copy_up = ours && m.sub_path.is_none() && !m.no_copy;
            all.push(Mount {
                source,
                target: m.mount_path.clone(),
                read_only: m.read_only || volume.image.is_some(),
                copy_up,
                how: translate::how(m),
            });
        }
        Ok(all)
    }

    /// What is mounted, and whether it is a volume of the node's own, which is filled from the image while it is empty.
    async fn volume(&self, v: &InstanceVolume) -> Result<(MountSource, bool), Failure> {
        if let Some(name) = &v.volume {
            let ns = self.object.metadata.namespace.as_deref().unwrap_or_default();
            let (mode, path, mounted) = self.engine.volumes.open(ns, name).await?;
            let source = match mode {
                VolumeMode::Directory => MountSource::Bind { path, sub_path: None },
                VolumeMode::Block => MountSource::Block { path },
            };
            return Ok((source, !mounted));
        }
        if let Some(path) = &v.host_path {
            // As Docker's -v: a directory that is not there is made.
            std::fs::symlink_metadata(path)
                .map(drop)
                .or_else(|_| std::fs::create_dir_all(path))
                .map_err(|e| Failure::new("VolumeFailed", format!("cannot make {path}: {e}")))?;
            let source = MountSource::Bind {
                path: PathBuf::from(path),
                sub_path: None,
            };
            return Ok((source, false));
        }
        if let Some(image) = &v.image {
            return Ok((self.image_files(&v.name, image)?, false));
        }
        if v.empty_dir.is_some() {
            return Ok((self.empty_dir(&v.name)?, false));
        }
        Ok((translate::tmpfs(&v.tmpfs.clone().unwrap_or_default())?, false))
    }
}

/// Where something is mounted, without a slash in front.
fn mounted_at(spec: &ContainerSpec) -> Vec<String> {
    let path = |m: &biga_model::VolumeMount| m.mount_path.trim_matches('/').to_owned();
    spec.volume_mounts.iter().map(path).collect()
}

fn accelerator(kvm: bool) -> String {
    if kvm { "kvm".into() } else { "tcg".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_host_names() {
        assert_eq!(host_name("web_1"), "web-1");
        assert_eq!(host_name(&"x".repeat(100)).len(), 63);
        assert_eq!(host_name("a-"), "a");
    }
}
