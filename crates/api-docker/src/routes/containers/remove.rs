//! `DELETE /containers/{id}` and `POST /containers/prune`.

use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Object, Volume};
use biga_store::typed::DeleteOptions;
use http::StatusCode;
use serde_json::json;

use super::rename;
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::lookup::brief;
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::ids::docker_id;
use crate::translate::inspect::status_word;
use crate::translate::{labels, volume};

pub(super) async fn remove(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    if q.flag("link") {
        return Err(Error::bad(format!(
            "invalid link {id:?}: name the container and the link's alias, as {id}/ALIAS"
        )));
    }
    let o = api.container(&id).await?;
    let force = q.flag("force");
    if o.status_or_default().phase.is_live() && !force {
        let (name, word) = (o.name(), status_word(&o));
        let what = match word {
            "paused" => "container is paused and must be unpaused first",
            _ => "stop the container before removing or force remove",
        };
        return Err(Error::conflict(format!(
            "cannot remove container \"/{name}\": container is {word}: {what}"
        )));
    }
    if o.is_deleting() && !force {
        return Err(Error::conflict(format!(
            "removal of container {} is already in progress",
            brief(&o)
        )));
    }
    take_away(&api, &o, force).await?;
    if q.flag("v") {
        remove_anonymous(&api, &o).await?;
    }
    Ok(super::super::empty(StatusCode::NO_CONTENT))
}

/// `DELETE /containers/{id}/{alias}?link=1`: takes a link away; the container that it leads to stays.
pub(super) async fn remove_link(
    State(api): State<DockerApi>,
    Path((id, alias)): Path<(String, String)>,
    q: Query,
) -> Result<Response> {
    if !q.flag("link") {
        return Err(Error::not_found(format!("No such container: {id}/{alias}")));
    }
    let o = api.container(&id).await?;
    let linked = |o: &Object<Instance>| o.spec.networks.iter().any(|n| n.links.iter().any(|l| l.alias == alias));
    if !linked(&o) {
        return Err(Error::not_found(format!("No such link: /{}/{alias}", o.name())));
    }
    let o = api
        .change(&o, |now| {
            for n in &mut now.spec.networks {
                n.links.retain(|l| l.alias != alias);
            }
        })
        .await?;
    rename::known(&api, &o).await?;
    Ok(super::super::empty(StatusCode::NO_CONTENT))
}

/// Deletes it and waits until it is gone.
async fn take_away(api: &DockerApi, o: &Object<Instance>, force: bool) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        grace_seconds: force.then_some(0),
        ..DeleteOptions::default()
    };
    match api.specs::<Instance>().delete(api.ns(), o.name(), &options).await {
        // Gone, or another of its name stands there: what was wanted is so.
        Err(e) if e.is_not_found() || e.is_conflict() => {}
        other => {
            other?;
        }
    }
    api.follow(o, |seen| seen.is_none().then_some(())).await?;
    api.inner.execs.forget(o.uid());
    Ok(())
}

/// Removes the volumes it had that were given no name.
async fn remove_anonymous(api: &DockerApi, o: &Object<Instance>) -> Result<()> {
    for name in o.spec.volumes.iter().filter_map(|v| v.volume.as_deref()) {
        let Some(v) = api.volumes().find(api.ns(), name).await? else {
            continue;
        };
        if !labels::read(&v.metadata).contains_key(volume::ANONYMOUS) {
            continue;
        }
        // Another may have borrowed it (volumes-from).
        let others = api.instances().list(Some(api.ns())).await?.items;
        if others
            .iter()
            .any(|i| i.uid() != o.uid() && super::super::volumes::uses(i, name))
        {
            continue;
        }
        match api
            .specs::<Volume>()
            .delete(api.ns(), name, &DeleteOptions::default())
            .await
        {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn prune(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(&["label", "label!", "until"])?;
    let until = filters.until()?;
    let (mut removed, mut freed) = (Vec::new(), 0);
    for o in api.instances().list(Some(api.ns())).await?.items {
        let over = matches!(status_word(&o), "created" | "exited" | "dead");
        let about_to = o.spec.power == biga_model::Power::Running && !o.status_or_default().phase.is_ended();
        let old = until.is_none_or(|t| o.metadata.creation_timestamp.is_some_and(|c| c < t));
        if !over || about_to || !old || !filters.labels(&labels::read(&o.metadata)) {
            continue;
        }
        freed += super::super::usage::containers(&api, &[&o])
            .await?
            .iter()
            .map(|s| s.0)
            .sum::<u64>();
        take_away(&api, &o, false).await?;
        removed.push(docker_id(o.uid()));
    }
    api.inner.events.publish(Message::prune("container", freed));
    Ok(super::super::ok(
        &json!({"ContainersDeleted": removed, "SpaceReclaimed": freed}),
    ))
}
