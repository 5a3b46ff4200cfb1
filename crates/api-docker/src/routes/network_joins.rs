//! `POST /networks/{id}/connect` and `/disconnect`, of containers that run and of such that do not.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use biga_model::{Instance, InstanceSpec, Kind, NetworkAttachment, NetworkEndpoint, NetworkMode, Object};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::empty;
use super::networks::on;
use crate::error::{Error, Result};
use crate::extract;
use crate::follow::follow;
use crate::state::DockerApi;
use crate::translate::create::attachment;
use crate::translate::ids::{docker_id, docker_network, network_name};
use crate::translate::inspect::left;
use crate::types;
use crate::types::network::NetworkConnect;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

fn forbidden(message: impl Into<String>) -> Error {
    Error::new(StatusCode::FORBIDDEN, message)
}

/// The container of a call, and the network's name.
async fn joint(
    api: &DockerApi,
    id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Object<Instance>, String, NetworkConnect)> {
    let value: Value = extract::json(headers, body).await?;
    let body: NetworkConnect = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    let network = match id {
        "host" | "none" => {
            let message = format!("container cannot be connected to or disconnected from {id} network");
            return Err(forbidden(message));
        }
        _ => api.network(id).await?.name().to_string(),
    };
    let c = api.container(&body.container).await?;
    if c.spec.namespaces.network.is_some() {
        return Err(forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    match c.spec.network_mode {
        NetworkMode::Bridge => {}
        // It has left its last network, and may join one again.
        NetworkMode::None if left(&c) => {}
        NetworkMode::None => {
            return Err(forbidden(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        NetworkMode::Host => {
            return Err(forbidden(
                "container cannot be disconnected from host network or connected to another network: it shares the host's network",
            ));
        }
    }
    Ok((c, network, body))
}

async fn connect(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let (c, network, body) = joint(&api, &id, &headers, body).await?;
    if on(&c, &network) {
        let message = format!(
            "endpoint with name {} already exists in network {}",
            c.name(),
            docker_network(&network)
        );
        return Err(forbidden(message));
    }
    let new = attachment(network, &body.endpoint_config)?;
    let name = new.network.clone();
    let undo = move |o: &mut Object<Instance>| leave(o, &name);
    let name = new.network.clone();
    let done = move |s: &[NetworkEndpoint]| s.iter().any(|e| e.network == name);
    carry_out(api, c, move |o| join(o, &new), undo, done).await?;
    Ok(empty(StatusCode::OK))
}

fn join(o: &mut Object<Instance>, new: &NetworkAttachment) {
    match o.spec.network_mode {
        NetworkMode::None => o.spec.network_mode = NetworkMode::Bridge,
        _ if o.spec.networks.is_empty() => {
            let network = network_name("bridge").to_string();
            o.spec.networks.push(NetworkAttachment {
                network,
                ..Default::default()
            });
        }
        _ => {}
    }
    if !o.spec.networks.iter().any(|n| n.network == new.network) {
        o.spec.networks.push(new.clone());
    }
}

fn leave(o: &mut Object<Instance>, network: &str) {
    o.spec.networks.retain(|n| n.network != network);
    if o.spec.networks.is_empty() {
        o.spec.network_mode = NetworkMode::None;
    }
}

async fn disconnect(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let (c, network, _) = joint(&api, &id, &headers, body).await?;
    if !on(&c, &network) {
        let message = format!(
            "container {} is not connected to network {}",
            docker_id(c.uid()),
            docker_network(&network)
        );
        return Err(forbidden(message));
    }
    let before = c.spec.clone();
    let left = network.clone();
    let undo = move |o: &mut Object<Instance>| rejoin(o, &before, &left);
    let left = network.clone();
    let done = move |s: &[NetworkEndpoint]| !s.iter().any(|e| e.network == left);
    carry_out(api, c, move |o| leave(o, &network), undo, done).await?;
    Ok(empty(StatusCode::OK))
}

/// Puts a network back in its place; what others changed meanwhile stays.
fn rejoin(o: &mut Object<Instance>, before: &InstanceSpec, network: &str) {
    o.spec.network_mode = before.network_mode;
    let was = before.networks.iter().enumerate().find(|(_, a)| a.network == network);
    if let Some((place, attachment)) = was
        && !o.spec.networks.iter().any(|n| n.network == network)
    {
        let place = place.min(o.spec.networks.len());
        o.spec.networks.insert(place, attachment.clone());
    }
}

/// Changes the spec and waits until the node has done it; what it cannot do is undone, and its reason is the answer.
/// Goes on to its end also when the client does not wait for it.
async fn carry_out<C, U, D>(api: DockerApi, c: Object<Instance>, change: C, undo: U, done: D) -> Result<()>
where
    C: Fn(&mut Object<Instance>) + Send + Sync + 'static,
    U: Fn(&mut Object<Instance>) + Send + Sync + 'static,
    D: Fn(&[NetworkEndpoint]) -> bool + Send + Sync + 'static,
{
    let mut wanted = c.clone();
    change(&mut wanted);
    let wrong = Instance::validate(&wanted, Some(&c));
    if !wrong.is_empty() {
        return Err(Error::invalid(&wrong));
    }
    let work = tokio::spawn(async move { change_running(&api, &c, change, undo, done).await });
    work.await.map_err(|e| {
        Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("changing the networks crashed: {e}"),
        )
    })?
}

async fn change_running(
    api: &DockerApi,
    c: &Object<Instance>,
    change: impl Fn(&mut Object<Instance>) + Send + Sync,
    undo: impl Fn(&mut Object<Instance>) + Send + Sync,
    done: impl Fn(&[NetworkEndpoint]) -> bool + Send + Sync,
) -> Result<()> {
    let specs = api.specs::<Instance>();
    let stored = specs.modify(api.ns(), c.name(), &change).await?;
    if !c.status_or_default().phase.is_live() {
        return Ok(());
    }
    let generation = stored.metadata.generation;
    let end = follow::<Instance, _>(&api.inner.store, api.ns(), c.name(), c.uid(), |seen| {
        let Some(o) = seen else { return Some(Ok(())) };
        let s = o.status_or_default();
        if done(&s.networks) || !s.phase.is_live() {
            return Some(Ok(()));
        }
        let why = s
            .conditions
            .iter()
            .find(|c| c.type_ == "Networks" && c.status == "False");
        let why = why.map(|c| c.message.clone());
        (s.observed_networks >= generation)
            .then(|| Err(why.unwrap_or_else(|| "the node did not change its networks".into())))
    });
    let Err(why) = end.await? else { return Ok(()) };
    specs.modify(api.ns(), c.name(), &undo).await?;
    Err(forbidden(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(networks: &[&str]) -> Object<Instance> {
        let mut o = Object::new("c", InstanceSpec::default());
        for n in networks {
            join(
                &mut o,
                &NetworkAttachment {
                    network: (*n).into(),
                    ..Default::default()
                },
            );
        }
        o
    }

    fn names(o: &Object<Instance>) -> Vec<&str> {
        o.spec.networks.iter().map(|n| n.network.as_str()).collect()
    }

    #[test]
    fn undoing_keeps_what_others_did_meanwhile() {
        let mut o = joined(&["a", "b"]);
        let before = o.spec.clone();
        leave(&mut o, "a");
        join(
            &mut o,
            &NetworkAttachment {
                network: "c".into(),
                ..Default::default()
            },
        );
        rejoin(&mut o, &before, "a");
        let all = names(&o);
        assert!(
            all.iter().position(|n| *n == "a") < all.iter().position(|n| *n == "b"),
            "{all:?}"
        );
        assert!(all.contains(&"c"), "{all:?}");
        rejoin(&mut o, &before, "a");
        assert_eq!(names(&o).iter().filter(|n| **n == "a").count(), 1);
        // The last one, left and taken back.
        let mut o = joined(&["a"]);
        let before = o.spec.clone();
        before.networks.iter().for_each(|n| leave(&mut o, &n.network));
        assert_eq!(o.spec.network_mode, NetworkMode::None);
        rejoin(&mut o, &before, "a");
        assert_eq!(o.spec.network_mode, NetworkMode::Bridge);
        assert!(names(&o).contains(&"a"));
    }
}
