//! Networks.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use biga_model::{Instance, Kind, Network, NetworkMode, Object, kind::is_resource_name};
use biga_store::typed::{DeleteOptions, Error as StoreError};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{empty, ok};
use crate::error::{Error, Result};
use crate::extract::{self, Filters, Query};
use crate::follow::follow;
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::ids::{docker_id, docker_network, network_name, predefined_id};
use crate::translate::{labels, network};
use crate::types;
use crate::types::network::NetworkCreate;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
}

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];

fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default")
}

async fn instances(api: &DockerApi) -> Result<Vec<Object<Instance>>> {
    Ok(api.instances().list(Some(api.ns())).await?.items)
}

/// Whether a container is, or would be, on a network.
pub(super) fn on(c: &Object<Instance>, name: &str) -> bool {
    if c.spec.network_mode != NetworkMode::Bridge {
        return false;
    }
    match c.spec.networks.is_empty() {
        true => name == network_name("bridge"),
        false => c.spec.networks.iter().any(|n| n.network == name),
    }
}

async fn list(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(FILTERS)?;
    if let Some(bad) =
        (filters.get("type").into_iter().flatten()).find(|t| !["builtin", "custom"].contains(&t.as_str()))
    {
        return Err(Error::bad(format!("invalid filter 'type={bad}'")));
    }
    let dangling = filters.flag("dangling")?;
    let containers = instances(&api).await?;
    let objects = api.networks().list(None).await?.items;
    let mut out = Vec::new();
    for o in objects.iter().filter(|o| !o.is_deleting()) {
        let free = !is_predefined(docker_network(o.name())) && !containers.iter().any(|c| on(c, o.name()));
        if dangling.is_none_or(|d| d == free) {
            // The list does not tell who is on a network.
            out.push((network::inspect(o, &[]), labels::read(&o.metadata)));
        }
    }
    if dangling != Some(true) {
        out.extend(["host", "none"].map(|n| (network::predefined(n), Default::default())));
    }
    let shown: Vec<Value> = out
        .into_iter()
        .filter(|(doc, l)| fits(&filters, doc) && filters.labels(l))
        .map(|(d, _)| d)
        .collect();
    Ok(ok(&Value::Array(shown)))
}

fn fits(f: &Filters, doc: &Value) -> bool {
    let text = |k: &str| doc[k].as_str().unwrap_or("");
    let builtin = is_predefined(text("Name"));
    f.any("name", |v| text("Name").contains(v))
        && f.any("id", |v| text("Id").starts_with(v))
        && f.any("driver", |v| text("Driver") == v)
        && f.any("scope", |v| text("Scope") == v)
        && f.any("type", |v| (v == "builtin") == builtin)
}

async fn inspect(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    if let Some(scope) = q.get("scope")
        && scope != "local"
    {
        return Err(Error::not_found(format!("network {id} not found")));
    }
    for name in ["host", "none"] {
        let known = predefined_id(name);
        if id == name || (id.len() >= 12 && known.starts_with(&id)) {
            return Ok(ok(&network::predefined(name)));
        }
    }
    let o = api.network(&id).await?;
    Ok(ok(&network::inspect(&o, &instances(&api).await?)))
}

async fn create(State(api): State<DockerApi>, headers: HeaderMap, body: Body) -> Result<Response> {
    let value: Value = extract::json(&headers, body).await?;
    let body: NetworkCreate = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    if is_predefined(&body.name) {
        let message = format!("operation is not permitted on predefined {} network ", body.name);
        return Err(Error::new(StatusCode::FORBIDDEN, message));
    }
    if !is_resource_name(&body.name) {
        return Err(Error::bad(format!(
            "invalid network name {:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            body.name
        )));
    }
    let settings = settings(&api, &body).await?;
    let o = network::create(&body, settings.as_ref())?;
    let wrong = Network::validate(&o, None);
    if !wrong.is_empty() {
        return Err(Error::invalid(&wrong));
    }
    let stored = match api.specs::<Network>().create(o).await {
        Err(StoreError::AlreadyExists { .. }) => {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                body.name
            )));
        }
        other => other?,
    };
    ready(&api, &stored).await?;
    let idle = network::idle_options(&body);
    let warning = match idle.is_empty() {
        true => String::new(),
        false => format!(
            "the bridge driver has no options {}: they are kept and change nothing",
            idle.join(", ")
        ),
    };
    let doc = json!({"Id": docker_id(stored.uid()), "Warning": warning});
    Ok(super::json(StatusCode::CREATED, &doc))
}

/// The network whose settings are to be used.
async fn settings(api: &DockerApi, body: &NetworkCreate) -> Result<Option<Object<Network>>> {
    let name = match body.config_from.get("Network").and_then(Value::as_str) {
        None | Some("") => return Ok(None),
        Some(name) => name,
    };
    let missing = || Error::not_found(format!("configuration network {name:?} does not exist"));
    match api.network(name).await {
        Err(e) if e.status == StatusCode::NOT_FOUND => Err(missing()),
        other => other.map(Some),
    }
}

/// Waits until the node made it; what cannot be made is taken away again.
async fn ready(api: &DockerApi, o: &Object<Network>) -> Result<()> {
    let end = follow::<Network, _>(&api.inner.store, "", o.name(), o.uid(), |seen| {
        let Some(o) = seen else {
            return Some(Err("it was removed meanwhile".to_string()));
        };
        let s = o.status_or_default();
        if s.ready {
            return Some(Ok(()));
        }
        (!s.message.is_empty() && s.observed_generation >= o.metadata.generation).then_some(Err(s.message))
    })
    .await?;
    let Err(why) = end else { return Ok(()) };
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        ..DeleteOptions::default()
    };
    let _ = api.specs::<Network>().delete("", o.name(), &options).await;
    Err(Error::new(
        StatusCode::FORBIDDEN,
        format!("cannot make network {}: {why}", o.name()),
    ))
}

async fn remove(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    if is_predefined(&id) {
        return Err(Error::new(
            StatusCode::FORBIDDEN,
            format!("{id} is a pre-defined network and cannot be removed"),
        ));
    }
    let o = api.network(&id).await?;
    if o.name() == network_name("bridge") {
        return Err(Error::new(
            StatusCode::FORBIDDEN,
            "bridge is a pre-defined network and cannot be removed",
        ));
    }
    if o.spec.config_only {
        let all = api.networks().list(None).await?.items;
        if all.iter().any(|n| network::made_from(n).as_deref() == Some(o.name())) {
            let message = format!("configuration network {:?} is in use", o.name());
            return Err(Error::new(StatusCode::FORBIDDEN, message));
        }
    }
    let active = instances(&api)
        .await?
        .into_iter()
        .find(|c| on(c, o.name()) && c.status_or_default().phase.is_live());
    if let Some(c) = active {
        return Err(Error::new(
            StatusCode::FORBIDDEN,
            format!(
                "error while removing network: network {} has active endpoints (name:\"{}\")",
                o.name(),
                c.name()
            ),
        ));
    }
    delete(&api, &o).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn delete(api: &DockerApi, o: &Object<Network>) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        ..DeleteOptions::default()
    };
    match api.specs::<Network>().delete("", o.name(), &options).await {
        Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
        other => {
            other?;
        }
    }
    let end = follow::<Network, _>(&api.inner.store, "", o.name(), o.uid(), |seen| match seen {
        None => Some(None),
        Some(o) => {
            let s = o.status_or_default();
            (o.is_deleting() && !s.message.is_empty()).then_some(Some(s.message))
        }
    });
    match end.await? {
        None => Ok(()),
        Some(why) => Err(Error::new(
            StatusCode::FORBIDDEN,
            format!("error while removing network {}: {why}", o.name()),
        )),
    }
}

async fn prune(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let containers = instances(&api).await?;
    let mut removed = Vec::new();
    for o in api.networks().list(None).await?.items {
        let old = until.is_none_or(|t| o.metadata.creation_timestamp.is_some_and(|c| c < t));
        let kept = o.spec.config_only || is_predefined(docker_network(o.name()));
        let used = kept || containers.iter().any(|c| on(c, o.name()));
        if !used && old && !o.is_deleting() && filters.labels(&labels::read(&o.metadata)) {
            delete(&api, &o).await?;
            removed.push(o.name().to_string());
        }
    }
    api.inner.events.publish(Message::prune("network", 0));
    Ok(ok(&json!({"NetworksDeleted": removed})))
}
