//! `GET /containers/json` and `GET /containers/{id}/json`.

use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Object, Timestamp};
use serde_json::Value;

use super::Surroundings;
use crate::error::{Error, Result};
use crate::extract::{Filters, Query};
use crate::state::DockerApi;
use crate::translate::ids::{docker_id, network_name};
use crate::translate::inspect::{container, status_word};
use crate::translate::list::entry;
use crate::translate::{familiar, labels};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

pub(super) async fn list(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(FILTERS)?;
    if let Some(bad) = filters
        .get("status")
        .and_then(|l| l.iter().find(|s| !STATES.contains(&s.as_str())))
    {
        return Err(Error::bad(format!("invalid filter 'status={bad}'")));
    }
    if filters.get("expose").is_some() || filters.get("publish").is_some() {
        return Err(Error::missing("the filters expose and publish"));
    }
    let limit = q
        .number::<i64>("limit")?
        .filter(|n| *n > 0)
        .and_then(|n| usize::try_from(n).ok());
    let all = q.flag("all") || limit.is_some() || ["status", "exited"].iter().any(|f| filters.get(f).is_some());
    let mut found = api.instances().list(Some(api.ns())).await?.items;
    // Newest first. Times have whole seconds; within one the order of creation is unknown, so take the name.
    found.sort_by(|a, b| {
        let key = |o: &Object<Instance>| o.metadata.creation_timestamp;
        key(b).cmp(&key(a)).then_with(|| a.name().cmp(b.name()))
    });
    let found = between(&api, found, &filters).await?;
    let ancestors = ancestors(&api, &filters).await?;
    let shown = |o: &&Object<Instance>| {
        (all || o.status_or_default().phase.is_live()) && matches(&filters, o) && of_image(&ancestors, o)
    };
    let picked: Vec<&Object<Instance>> = found.iter().filter(shown).take(limit.unwrap_or(usize::MAX)).collect();
    let around = Surroundings::read(&api).await?;
    let now = Timestamp::now();
    let mut out = Vec::with_capacity(picked.len());
    for o in picked {
        let image = api.image_config(&o.status_or_default().image_id).await;
        let mut e = entry(o, &around.beside(&api, o, &image), now);
        if q.flag("size") {
            // Not measured; Docker's clients show it as 0B.
            e["SizeRw"] = 0.into();
            e["SizeRootFs"] = 0.into();
        }
        out.push(e);
    }
    Ok(super::super::ok(&Value::Array(out)))
}

/// The filters `before` and `since`: containers made before, or after, another.
async fn between(api: &DockerApi, mut all: Vec<Object<Instance>>, filters: &Filters) -> Result<Vec<Object<Instance>>> {
    for (name, newer) in [("before", false), ("since", true)] {
        for word in filters.get(name).unwrap_or(&[]) {
            let mark = api.container(word).await?;
            if let Some(at) = all.iter().position(|o| o.uid() == mark.uid()) {
                // Newest first.
                all = if newer {
                    all[..at].to_vec()
                } else {
                    all[at + 1..].to_vec()
                };
            }
        }
    }
    Ok(all)
}

/// Image ids of the filter `ancestor`; `None` where it was not given.
async fn ancestors(api: &DockerApi, filters: &Filters) -> Result<Option<Vec<String>>> {
    let Some(words) = filters.get("ancestor") else {
        return Ok(None);
    };
    let mut ids = Vec::new();
    for w in words {
        match api.image(w).await {
            Ok(i) => ids.push(i.id),
            // The image may be gone while its containers are still here.
            Err(_) => ids.push(familiar(w)),
        }
    }
    Ok(Some(ids))
}

fn of_image(ancestors: &Option<Vec<String>>, o: &Object<Instance>) -> bool {
    let id = o.status_or_default().image_id;
    ancestors.as_ref().is_none_or(|l| {
        l.iter()
            .any(|a| *a == id || *a == familiar(o.spec.main_image()) || *a == o.spec.main_image())
    })
}

fn matches(f: &Filters, o: &Object<Instance>) -> bool {
    let id = docker_id(o.uid());
    let s = o.status_or_default();
    let on_network = |v: &str| {
        let name = network_name(v);
        let mode = o.spec.network_mode;
        match v {
            "none" => mode == biga_model::NetworkMode::None,
            "host" => mode == biga_model::NetworkMode::Host,
            _ if mode != biga_model::NetworkMode::Bridge => false,
            _ if o.spec.networks.is_empty() => name == network_name("bridge"),
            _ => o.spec.networks.iter().any(|n| n.network == name),
        }
    };
    let has_volume = |v: &str| {
        let mounts = o.spec.containers.iter().flat_map(|c| &c.volume_mounts);
        o.spec
            .volumes
            .iter()
            .any(|x| x.volume.as_deref() == Some(v) || x.host_path.as_deref() == Some(v))
            || mounts.into_iter().any(|m| m.mount_path == v)
    };
    f.any("id", |v| id.starts_with(v))
        && f.any("name", |v| name_fits(v, o.name()))
        && f.any("status", |v| v == status_word(o))
        && f.any("exited", |v| {
            status_word(o) == "exited" && v.parse() == Ok(s.exit_code.unwrap_or(0))
        })
        && f.any("network", on_network)
        && f.any("volume", has_volume)
        && f.any("isolation", |v| v == o.spec.isolation.as_str() || v == "default")
        && f.any("health", |v| v == "none")
        && f.any("is-task", |v| matches!(v, "0" | "false"))
        && f.labels(&labels::read(&o.metadata))
}

/// Docker takes a regular expression here; plain words with the anchors `^`, `/` and `$` are what is used.
fn name_fits(pattern: &str, name: &str) -> bool {
    let (begins, p) = match pattern.strip_prefix('^') {
        Some(p) => (true, p),
        None => (false, pattern),
    };
    let (begins, p) = match p.strip_prefix('/') {
        Some(p) => (true, p),
        None => (begins, p),
    };
    let (ends, p) = match p.strip_suffix('$') {
        Some(p) => (true, p),
        None => (false, p),
    };
    match (begins, ends) {
        (true, true) => name == p,
        (true, false) => name.starts_with(p),
        (false, true) => name.ends_with(p),
        (false, false) => name.contains(p),
    }
}

pub(super) async fn inspect(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let around = Surroundings::read(&api).await?;
    let image = api.image_config(&o.status_or_default().image_id).await;
    let mut doc = container(&o, &around.beside(&api, &o, &image));
    if q.flag("size") {
        doc["SizeRw"] = 0.into();
        doc["SizeRootFs"] = 0.into();
    }
    Ok(super::super::ok(&doc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_with_and_without_anchors() {
        assert!(name_fits("eb", "web") && !name_fits("^eb", "web") && name_fits("^/web$", "web"));
        assert!(name_fits("/web", "web-1") && !name_fits("/web$", "web-1") && name_fits("1$", "web-1"));
    }
}
