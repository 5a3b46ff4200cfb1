//! `POST /containers/create`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use biga_model::{
    Instance, InstanceVolume, LogDriver, NetworkLink, NetworkMode, Object, Timestamp, Volume, VolumeMount, VolumeSpec,
    kind::is_resource_name, kinds::network::DEFAULT_NETWORK,
};
use biga_store::typed::{Error as StoreError, prepare_new};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::execs::new_id;
use crate::extract::{self, Query};
use crate::names;
use crate::state::DockerApi;
use crate::translate::create::{Around, Created, KnownNetwork, instance, link, sent};
use crate::translate::ids::{docker_id, short};
use crate::translate::{CREATED_AT, labels, volume};
use crate::types;
use crate::types::container::CreateBody;

impl DockerApi {
    /// Refuses limits for a container that this host cannot give. A microvm brings processors of its own.
    pub(super) fn has_processors(&self, spec: &biga_model::InstanceSpec) -> Result<()> {
        let have = self.inner.node.cpus;
        let r = &spec.resources;
        // How many there are may not be known.
        if have == 0 || spec.isolation != biga_model::Isolation::Container {
            return Ok(());
        }
        if (r.cpu_realtime_runtime.is_some() || r.cpu_realtime_period.is_some()) && !self.inner.node.realtime {
            return Err(Error::bad("kernel does not support CPU real-time scheduler"));
        }
        if r.cpus.is_some_and(|c| c.0 > have.saturating_mul(1000)) {
            return Err(Error::bad(format!(
                "Range of CPUs is from 0.01 to {have}.00, as there are only {have} CPUs available"
            )));
        }
        let Some(set) = &r.cpuset_cpus else { return Ok(()) };
        let last = |part: &str| part.rsplit('-').next().and_then(|n| n.trim().parse::<usize>().ok());
        match set.split(',').filter_map(last).any(|n| n >= have as usize) {
            true => Err(Error::bad(format!(
                "Requested CPUs are not available - requested {set}, available: 0-{}",
                have.saturating_sub(1)
            ))),
            false => Ok(()),
        }
    }
}

pub(super) async fn create(State(api): State<DockerApi>, q: Query, headers: HeaderMap, body: Body) -> Result<Response> {
    let value: Value = extract::json(&headers, body).await?;
    let body: CreateBody = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    let name = q.get("name").map(|n| n.strip_prefix('/').unwrap_or(n));
    name.map(checked_name).transpose()?;
    let around = around(&api, &body, q.platform()?.as_deref()).await?;
    let created = instance(&body, &around)?;
    api.has_processors(&created.object.spec)?;
    make_volumes(&api, &created).await?;
    let stored = store(&api, created.object, name).await?;
    if stored.spec.auto_remove {
        own(&api, &stored, &created.anonymous).await?;
    }
    let doc = json!({"Id": docker_id(stored.uid()), "Warnings": created.warnings});
    Ok(super::super::json(StatusCode::CREATED, &doc))
}

/// A name as Docker's rule wants it.
pub(super) fn checked_name(name: &str) -> Result<&str> {
    if !is_resource_name(name) || name.len() < 2 {
        let rule = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
        return Err(Error::bad(format!("Invalid container name ({name}), {rule}")));
    }
    Ok(name)
}

/// 409: another has the name.
pub(super) async fn taken(api: &DockerApi, name: &str) -> Error {
    let by = match api.instances().find(api.ns(), name).await {
        Ok(found) => found.map(|o| docker_id(o.uid())).unwrap_or_default(),
        Err(e) => return e.into(),
    };
    Error::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// Another container that is missing: clients take any 404 for an image that is missing, and would pull.
fn not_an_image(e: Error) -> Error {
    match e.status {
        StatusCode::NOT_FOUND => Error::bad(e.message),
        _ => e,
    }
}

async fn around(api: &DockerApi, body: &CreateBody, platform: Option<&str>) -> Result<Around> {
    if body.image.is_empty() {
        return Err(Error::bad("invalid reference format: no image was named"));
    }
    let image = api.image(&body.image).await.map_err(|e| match e.status {
        // By this sentence clients know that they should pull.
        StatusCode::NOT_FOUND => {
            Error::not_found(format!("No such image: {}", crate::translate::familiar(&body.image)))
        }
        _ => e,
    })?;
    if let Some(p) = platform {
        let have = image
            .objects
            .first()
            .map(|o| o.status_or_default().platform)
            .unwrap_or_default();
        if !have.is_empty() && !have.starts_with(p) {
            let message = format!(
                "image with reference {} was found but its platform ({have}) does not match the specified platform ({p})",
                body.image
            );
            return Err(Error::not_found(message));
        }
    }
    for m in body
        .host_config
        .mounts
        .iter()
        .filter(|m| m.kind == "image" && !m.source.is_empty())
    {
        api.image(&m.source).await.map_err(not_an_image)?;
    }
    let config = api.image_config(&image.id).await;
    let mut others = std::collections::BTreeMap::new();
    for word in crate::translate::sharing::others(body) {
        let found = api.container(word).await.map_err(not_an_image)?;
        others.insert(word.to_string(), found.name().to_string());
    }
    let networks = api.networks().list(None).await?.items;
    let known = |n: &Object<biga_model::Network>| KnownNetwork {
        id: docker_id(n.uid()),
        name: n.name().to_string(),
        gateway: n.status_or_default().gateway,
    };
    let own_volumes = config["config"]["Volumes"].as_object().map_or(0, |v| v.len());
    Ok(Around {
        networks: networks.iter().map(known).collect(),
        image: match config.get("config") {
            None if config.is_null() => Value::Null,
            set => set.cloned().unwrap_or_else(|| json!({})),
        },
        // An id stays an id: its name may mean another image tomorrow.
        image_reference: image
            .named()
            .map_or_else(|| image.id.clone(), |o| crate::translate::familiar(&o.spec.reference)),
        links: links(api, body).await?,
        volumes_from: volumes_from(api, body).await?,
        volume_names: std::iter::repeat_with(new_id)
            .take(crate::translate::mounts::anonymous_at_most(body, own_volumes))
            .collect(),
        others,
        runtimes: api.backend().runtimes().into_iter().map(|(name, _)| name).collect(),
        // Documents are read for this only where somebody asks for what they describe.
        cdi_devices: match body.host_config.device_requests.is_empty() {
            true => Vec::new(),
            false => api.backend().devices().devices,
        },
    })
}

/// The volumes of other containers, as `name`, `name:ro` or `name:rw`.
async fn volumes_from(api: &DockerApi, body: &CreateBody) -> Result<Vec<(InstanceVolume, VolumeMount)>> {
    let mut all = Vec::new();
    for text in &body.host_config.volumes_from {
        let (word, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = match mode {
            "" | "rw" | "z" | "Z" => false,
            "ro" => true,
            _ => return Err(Error::bad(format!("invalid mode for volumes-from: {mode}"))),
        };
        let o = api.container(word).await.map_err(not_an_image)?;
        for m in o.spec.containers.iter().flat_map(|c| &c.volume_mounts) {
            let Some(v) = o.spec.volumes.iter().find(|v| v.name == m.name) else {
                continue;
            };
            // Memory belongs to one container.
            if v.tmpfs.is_none() {
                let mut m = m.clone();
                m.read_only |= read_only;
                all.push((v.clone(), m));
            }
        }
    }
    Ok(all)
}

/// The containers that are linked to, by the names they have now.
async fn links(api: &DockerApi, body: &CreateBody) -> Result<Vec<NetworkLink>> {
    let mut all = Vec::new();
    for text in &body.host_config.links {
        let (word, alias) = link(text)?;
        let found = api.container(&word).await;
        let found = found.map_err(|e| Error::bad(format!("could not get container for {word}: {}", e.message)))?;
        let on_default = match found.spec.networks.is_empty() {
            true => found.spec.network_mode == NetworkMode::Bridge,
            false => (found.spec.networks.iter()).any(|n| n.network == DEFAULT_NETWORK),
        };
        if matches!(body.host_config.network_mode.as_str(), "" | "default" | "bridge") && !on_default {
            return Err(Error::bad(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                found.name()
            )));
        }
        let instance = found.name().to_string();
        all.push(NetworkLink {
            instance,
            alias,
            ports: sent(&found.metadata).exposed_ports.into_keys().collect(),
        });
    }
    Ok(all)
}

/// Makes the volumes that need marks of their own; all others are made by the node when they are first used.
async fn make_volumes(api: &DockerApi, created: &Created) -> Result<()> {
    let plain = |n: &&String| !created.volumes.iter().any(|v| v.name == **n);
    for name in created.anonymous.iter().filter(plain) {
        let mut v = new_volume(api, name);
        labels::write(
            &[(volume::ANONYMOUS.to_string(), String::new())].into(),
            &mut v.metadata,
        );
        api.specs::<Volume>().create(v).await?;
    }
    for made in &created.volumes {
        let mut v = new_volume(api, &made.name);
        v.spec.mount.clone_from(&made.mount);
        let mut wanted = made.labels.clone();
        if created.anonymous.contains(&made.name) {
            wanted.insert(volume::ANONYMOUS.to_string(), String::new());
        }
        labels::write(&wanted, &mut v.metadata);
        match api.specs::<Volume>().create(v).await {
            // It keeps the labels it has, as Docker's do.
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn new_volume(api: &DockerApi, name: &str) -> Object<Volume> {
    let mut v = Object::<Volume>::new(name, VolumeSpec::default());
    v.metadata.namespace = Some(api.ns().to_string());
    v
}

async fn store(api: &DockerApi, mut o: Object<Instance>, name: Option<&str>) -> Result<Object<Instance>> {
    let n = &o.spec.namespaces;
    let own_name = n.uts == biga_model::Share::Private && n.network.is_none();
    let ask_hostname = o.spec.hostname.is_none() && own_name && o.spec.network_mode != NetworkMode::Host;
    let sent_elsewhere = matches!(o.spec.log.driver, LogDriver::Journald | LogDriver::Syslog);
    for attempt in 0..64 {
        o.metadata.name = name.map_or_else(|| names::random(attempt), str::to_string);
        o.metadata.namespace = Some(api.ns().to_string());
        let now = Timestamp::now();
        prepare_new(&mut o, now);
        o.metadata.annotations.insert(CREATED_AT.into(), now.to_string());
        // Whoever reads its lines elsewhere knows it by Docker's id.
        o.spec.log.id = Some(docker_id(o.uid())).filter(|_| sent_elsewhere);
        if ask_hostname {
            o.spec.hostname = Some(short(&docker_id(o.uid())));
        }
        match api.inner.new_instances.insert(o.clone()).await {
            Err(StoreError::AlreadyExists { .. }) if name.is_none() => {}
            Err(StoreError::AlreadyExists { name, .. }) => return Err(taken(api, &name).await),
            other => return Ok(other?),
        }
    }
    Err(Error::internal("no free name was found: give one"))
}

/// Volumes without a name go with the container that goes by itself.
async fn own(api: &DockerApi, o: &Object<Instance>, volumes: &[String]) -> Result<()> {
    let owner = biga_model::OwnerReference {
        api_version: o.api_version.clone(),
        kind: o.kind.clone(),
        name: o.name().to_string(),
        uid: o.uid().to_string(),
        controller: None,
        block_owner_deletion: None,
    };
    for name in volumes {
        let owned = api
            .specs::<Volume>()
            .modify(api.ns(), name, |v| v.metadata.owner_references.push(owner.clone()))
            .await;
        match owned {
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
