//! `RUN`: an instance like any other, whose changes become a layer.

use std::collections::BTreeMap;

use biga_agent::logs::Query;
use biga_agent::prepare::{ENV_FILE, KEEP_CHANGES};
use biga_dockerfile::config::shell;
use biga_image::{Built, Draft, KeptLayer};
use biga_model::kinds::network::DEFAULT_NETWORK;
use biga_model::kinds::runtime::Resources;
use biga_model::{
    ContainerSpec, DEFAULT_NAMESPACE, EnvVar, HostAlias, Instance, InstanceSpec, InstanceVolume, Memory,
    NetworkAttachment, NetworkMode, Object, Phase, PullPolicy, StopSpec, TmpfsSource, Ulimit, VolumeMount,
};
use biga_store::typed::{DeleteOptions, ObjectEvent, generate_name};
use biga_wire::build::{Build, Event};
use futures_util::StreamExt;

use crate::mounts::{From, Place, Ready};
use crate::prepare::blocking;
use crate::{Audience, Builder, Error, LABEL, Prepared};

/// Where a script with an interpreter of its own is mounted: beneath what is no part of the image.
const SCRIPT: &str = "/dev/pipes/script";

/// The node, in `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// What is run.
pub struct Job {
    /// The words.
    pub words: Vec<String>,
    /// Mounted and run instead.
    pub script: Option<String>,
    /// Beside the image's own.
    pub env: Vec<(String, String)>,
    /// `--network` of the instruction.
    pub network: Option<String>,
    /// What is mounted.
    pub mounted: Ready,
}

/// Removes an instance however its step ends.
struct Guard {
    builder: Builder,
    name: String,
    uid: String,
    armed: bool,
}

impl Guard {
    async fn remove(mut self) {
        self.armed = false;
        remove(&self.builder, &self.name, &self.uid).await;
    }

    /// It stays, to be looked at.
    fn leave(mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            let (builder, name, uid) = (self.builder.clone(), self.name.clone(), self.uid.clone());
            tokio::spawn(async move { remove(&builder, &name, &uid).await });
        }
    }
}

/// Kills and removes; the agent does the rest.
async fn remove(builder: &Builder, name: &str, uid: &str) {
    let options = DeleteOptions {
        uid: Some(uid.to_owned()),
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    match builder.specs.delete(DEFAULT_NAMESPACE, name, &options).await {
        Err(e) if !e.is_not_found() && !e.is_conflict() => tracing::warn!("instance {name} of a build stays: {e}"),
        _ => {}
    }
}

impl Builder {
    /// Removes instances of builds that a daemon before this one left.
    pub async fn sweep(&self) {
        let all = match self.objects.list(Some(DEFAULT_NAMESPACE)).await {
            Ok(all) => all.items,
            Err(e) => {
                tracing::warn!("instances of broken builds stay: {e}");
                return;
            }
        };
        let left = |o: &&Object<Instance>| o.metadata.annotations.get(LABEL).is_some_and(|id| **id != *self.id);
        for o in all.iter().filter(left) {
            remove(self, o.name(), o.uid()).await;
        }
    }
}

impl Prepared {
    /// Runs a step from a draft. Gives what it changed.
    pub(crate) async fn run_step(&self, draft: &Draft, job: Job, audience: &Audience) -> Result<KeptLayer, Error> {
        let builder = &self.builder;
        // What the image says of its own command does not matter here; its volumes would swallow what the step writes there.
        let mut from = draft.clone();
        let mut config = from.config();
        for key in ["Volumes", "Healthcheck", "Entrypoint", "Cmd"] {
            config.remove(key);
        }
        from.set_config(config);
        // Until the step ended: it has no name, and somebody may prune what builds leave.
        let _held = builder.store().hold_image(&from.id()?);
        let record = builder.store().keep_draft(&from, Built::default()).await?;
        builder.store().touch(&record.image_id);
        let script = job.script.as_deref().map(script_file).transpose()?;
        let mut spec = self.spec(record.image_id.to_string(), &job, script.as_ref().map(|f| f.path()))?;
        spec.extra_hosts = self.extra_hosts(&spec).await?;
        let mut object = Object::<Instance>::new(generate_name("build-"), spec);
        object.metadata.namespace = Some(DEFAULT_NAMESPACE.into());
        let notes = &mut object.metadata.annotations;
        notes.insert(LABEL.into(), builder.id.to_string());
        notes.insert(KEEP_CHANGES.into(), String::new());
        if let Some(file) = &job.mounted.env_file {
            notes.insert(ENV_FILE.into(), file.clone());
        }
        let object = builder.specs.create(object).await?;
        let guard = Guard {
            builder: builder.clone(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            armed: true,
        };
        let instance = guard.uid.clone();
        audience
            .tell(Event::Running {
                instance: instance.clone(),
            })
            .await?;
        let ended = audience.wait(self.follow(&object, audience)).await?;
        let s = ended.status_or_default();
        let failed = s.phase == Phase::Failed || s.exit_code != Some(0);
        if failed {
            match self.request.force_remove {
                true => {
                    guard.remove().await;
                    audience.tell(Event::Removed { instance }).await?;
                }
                // As Docker leaves it: its log and its files may tell why. It is no longer swept away.
                false => {
                    let taken = builder.specs.modify(DEFAULT_NAMESPACE, object.name(), |o| {
                        o.metadata.annotations.remove(LABEL);
                    });
                    match taken.await {
                        Ok(_) => guard.leave(),
                        Err(_) => guard.remove().await,
                    }
                }
            }
            let command = job.words.join(" ");
            return Err(match (s.phase, s.exit_code) {
                (Phase::Failed, _) | (_, None) => Error::Failed(match s.message.is_empty() {
                    true => s.reason,
                    false => s.message,
                }),
                (_, Some(code)) => Error::Command { command, code },
            });
        }
        let tar = builder
            .files
            .layer(DEFAULT_NAMESPACE, object.name(), job.mounted.made())
            .await;
        let tar = tar.map_err(|e| Error::Failed(format!("what the step changed cannot be read: {e}")))?;
        let store = builder.store().clone();
        let layer = blocking(move || Ok(store.write_layer(tar)?)).await?;
        match self.request.keep_containers {
            true => guard.leave(),
            false => {
                guard.remove().await;
                audience.tell(Event::Removed { instance }).await?;
            }
        }
        Ok(layer)
    }

    /// Tells what it writes until it has ended.
    async fn follow(&self, object: &Object<Instance>, audience: &Audience) -> Result<Object<Instance>, Error> {
        let builder = &self.builder;
        let from = object.metadata.resource_version.parse().ok();
        let mut events = builder
            .objects
            .watch_one(DEFAULT_NAMESPACE, object.name(), from)
            .await?;
        let removed = || Error::Failed("the step's instance was removed while it ran".into());
        let mut told = false;
        loop {
            let now = match events.next().await {
                Some(Ok(ObjectEvent::Put { object: o, .. })) if o.uid() == object.uid() => *o,
                Some(Ok(ObjectEvent::Deleted { object: o })) if o.uid() == object.uid() => return Err(removed()),
                Some(Ok(_)) => continue,
                Some(Err(e)) => return Err(e.into()),
                None => return Err(Error::Failed("the store closed".into())),
            };
            if now.is_deleting() {
                return Err(removed());
            }
            let phase = now.status_or_default().phase;
            // Before it lives there is no log to follow.
            if !told && (phase.is_live() || phase.is_ended()) {
                told = true;
                self.tell_output(object.name(), audience).await?;
            }
            if phase.is_ended() {
                return Ok(now);
            }
        }
    }

    /// Its log, to its end.
    async fn tell_output(&self, name: &str, audience: &Audience) -> Result<(), Error> {
        let query = Query {
            follow: true,
            ..Query::default()
        };
        let failed = |e: biga_agent::streams::Error| Error::Failed(format!("what the step writes cannot be read: {e}"));
        let mut lines = self
            .builder
            .streams
            .logs(DEFAULT_NAMESPACE, name, None, query)
            .await
            .map_err(failed)?;
        while let Some(batch) = lines.recv().await {
            let mut batch = batch.map_err(failed)?.into_iter().peekable();
            while let Some(line) = batch.next() {
                let stderr = line.stderr;
                let mut text = line.text;
                if line.whole {
                    text.push(b'\n');
                }
                while let Some(more) = batch.next_if(|l| l.stderr == stderr && text.len() < 16 << 10) {
                    text.extend_from_slice(&more.text);
                    if more.whole {
                        text.push(b'\n');
                    }
                }
                let text = String::from_utf8_lossy(&text).into_owned();
                audience.tell(Event::Output { stderr, text }).await?;
            }
        }
        Ok(())
    }

    /// `--add-host`, where `host-gateway` is the node as the step's network sees it.
    async fn extra_hosts(&self, spec: &InstanceSpec) -> Result<Vec<HostAlias>, Error> {
        let list = &self.request.extra_hosts;
        let mut gateway = None;
        if list.iter().any(|t| t.ends_with(HOST_GATEWAY)) {
            let name = spec.networks.first().map_or(DEFAULT_NETWORK, |n| n.network.as_str());
            let network = self.builder.networks.get("", name).await;
            let found = network
                .ok()
                .map(|n| n.status_or_default().gateway)
                .filter(|g| !g.is_empty());
            gateway = Some(found.ok_or_else(|| {
                Error::Failed(format!(
                    "add-host: the network {name} has no {HOST_GATEWAY} before it was first used"
                ))
            })?);
        }
        extra_hosts(list, gateway.as_deref())
    }

    fn spec(&self, image: String, job: &Job, script: Option<&std::path::Path>) -> Result<InstanceSpec, Error> {
        let r = &self.request;
        let mut main = ContainerSpec {
            name: "main".into(),
            command: Some(job.words.clone()),
            args: Some(Vec::new()),
            env: job
                .env
                .iter()
                .map(|(name, value)| EnvVar {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            ulimits: r
                .ulimits
                .iter()
                .map(|(n, (soft, hard))| {
                    (
                        n.clone(),
                        Ulimit {
                            soft: *soft,
                            hard: *hard,
                        },
                    )
                })
                .collect(),
            ..ContainerSpec::default()
        };
        let mut spec = InstanceSpec {
            image,
            isolation: self.isolation,
            image_pull_policy: PullPolicy::Never,
            resources: resources(r),
            shm_size: r.shm_size.map(Memory),
            cgroup_parent: r.cgroup_parent.clone(),
            stop: StopSpec {
                grace_period_seconds: Some(0),
                ..StopSpec::default()
            },
            ..InstanceSpec::default()
        };
        if let Some(path) = script {
            main.command = Some(vec![SCRIPT.into()]);
            spec.volumes.push(InstanceVolume {
                name: "script".into(),
                host_path: Some(path.display().to_string()),
                ..InstanceVolume::default()
            });
            main.volume_mounts.push(VolumeMount {
                name: "script".into(),
                mount_path: SCRIPT.into(),
                read_only: true,
                ..VolumeMount::default()
            });
        }
        mount(&mut spec, &mut main, &job.mounted.places);
        spec.containers.push(main);
        match job.network.as_deref().unwrap_or(&r.network) {
            "" | "default" | "bridge" => {}
            "none" => spec.network_mode = NetworkMode::None,
            "host" => spec.network_mode = NetworkMode::Host,
            other => match other.strip_prefix("container:") {
                Some(name) => {
                    spec.network_mode = NetworkMode::None;
                    spec.namespaces.network = Some(name.into());
                }
                None => spec.networks.push(NetworkAttachment {
                    network: other.into(),
                    ..NetworkAttachment::default()
                }),
            },
        }
        Ok(spec)
    }
}

/// Puts places of the node into an instance.
fn mount(spec: &mut InstanceSpec, main: &mut ContainerSpec, places: &[Place]) {
    for (i, place) in places.iter().enumerate() {
        let name = format!("mount-{i}");
        let mut volume = InstanceVolume {
            name: name.clone(),
            ..InstanceVolume::default()
        };
        match &place.from {
            From::Node(path) => volume.host_path = Some(path.display().to_string()),
            From::Memory(size) => {
                volume.tmpfs = Some(TmpfsSource {
                    size: size.map(Memory),
                    ..TmpfsSource::default()
                });
            }
        }
        spec.volumes.push(volume);
        main.volume_mounts.push(VolumeMount {
            name,
            mount_path: place.target.clone(),
            read_only: place.read_only,
            ..VolumeMount::default()
        });
    }
}

/// A program of its own, for as long as the file is held.
fn script_file(text: &str) -> Result<tempfile::NamedTempFile, Error> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| Error::Failed(format!("the script of a step cannot be written: {e}"));
    let mut file = tempfile::Builder::new()
        .prefix("biga-build-")
        .tempfile()
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o755))
        .map_err(failed)?;
    // A program that is open for writing cannot be executed.
    let (_, path) = file.into_parts();
    let again = std::fs::File::open(&path).map_err(failed)?;
    Ok(tempfile::NamedTempFile::from_parts(again, path))
}

fn resources(r: &Build) -> Resources {
    Resources {
        memory: r.memory.map(Memory),
        memory_swap: r.memory_swap.map(Memory),
        cpu_shares: r.cpu_shares,
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        ..Resources::default()
    }
}

fn extra_hosts(list: &[String], gateway: Option<&str>) -> Result<Vec<HostAlias>, Error> {
    let mut by_address: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in list {
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = split.ok_or_else(|| Error::Invalid(format!("bad format for add-host: {text:?}")))?;
        let address = match gateway {
            Some(gateway) if address == HOST_GATEWAY => gateway,
            _ => address.trim_start_matches('[').trim_end_matches(']'),
        };
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::Invalid(format!("invalid IP address in add-host: {address:?}")));
        }
        by_address.entry(address.to_owned()).or_default().push(name.to_owned());
    }
    Ok(by_address
        .into_iter()
        .map(|(ip, hostnames)| HostAlias { ip, hostnames })
        .collect())
}

/// How Docker writes a step into the history: with the `ARG`s that it saw.
pub fn created_by(words: &[String], args: &[(String, String)]) -> String {
    let command = words.join(" ");
    if args.is_empty() {
        return command;
    }
    let args: Vec<String> = args.iter().map(|(n, v)| format!("{n}={v}")).collect();
    format!("|{} {} {command}", args.len(), args.join(" "))
}

/// How Docker writes what ran nothing.
pub fn nothing_run(config: &serde_json::Map<String, serde_json::Value>, remark: &str) -> String {
    format!("{} #(nop) {remark}", shell(config).join(" "))
}
