//! `GET /containers/json` and `GET /containers/{id}/json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Object, Timestamp};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::extract::{Filters, Query};
use crate::seen::Known;
use crate::state::DockerApi;
use crate::translate::ids::network_name;
use crate::translate::inspect::status_word;
use crate::translate::{familiar, health, labels};

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

const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

pub(super) async fn list(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(FILTERS)?;
    if let Some(bad) = filters
        .get("status")
        .and_then(|l| l.iter().find(|s| !STATES.contains(&s.as_str())))
    {
        return Err(Error::bad(format!("invalid filter 'status={bad}'")));
    }
    if let Some(bad) = (filters.get("exited").into_iter().flatten()).find(|v| v.parse::<i32>().is_err()) {
        return Err(Error::bad(format!(
            "invalid filter 'exited={bad}': an exit code is a number"
        )));
    }
    if let Some(bad) = (filters.get("health").into_iter().flatten()).find(|v| !HEALTH.contains(&v.as_str())) {
        return Err(Error::bad(format!("Unrecognised filter value for health: {bad}")));
    }
    let (exposed, published) = (ports(&filters, "expose")?, ports(&filters, "publish")?);
    let limit = q
        .number::<i64>("limit")?
        .filter(|n| *n > 0)
        .and_then(|n| usize::try_from(n).ok());
    let all = q.flag("all") || limit.is_some() || ["status", "exited"].iter().any(|f| filters.get(f).is_some());
    let mut found = api.known().await?;
    // Newest first. Of what Docker's clients did not make, the times have whole seconds; within one take the name.
    found.sort_by(|a, b| {
        b.created
            .cmp(&a.created)
            .then_with(|| a.object.name().cmp(b.object.name()))
    });
    let found = between(&api, found, &filters).await?;
    let ancestors = ancestors(&api, &filters).await?;
    let of_images = match &exposed {
        Some(_) => image_ports(&api, &found).await,
        None => BTreeMap::new(),
    };
    let shown = |k: &Arc<Known>| {
        let o = &*k.object;
        (all || k.live)
            && matches(&filters, k)
            && of_image(&ancestors, o)
            && exposed.as_ref().is_none_or(|l| exposes(o, &of_images, l))
            && published.as_ref().is_none_or(|l| {
                // Ports of the host, as they are in force.
                let ports = o.status_or_default().ports;
                ports
                    .iter()
                    .any(|p| p.host_port.is_some_and(|h| l.iter().any(|r| r.holds(h, p.protocol))))
            })
    };
    let picked: Vec<Arc<Known>> = found
        .into_iter()
        .filter(shown)
        .take(limit.unwrap_or(usize::MAX))
        .collect();
    let sizes = match q.flag("size") {
        true => {
            let objects: Vec<&Object<Instance>> = picked.iter().map(|k| &*k.object).collect();
            super::super::usage::containers(&api, &objects).await?
        }
        false => Vec::new(),
    };
    lines(&api, &picked, &sizes).await
}

/// The answer: a line each, with its sizes where they were asked for.
async fn lines(api: &DockerApi, picked: &[Arc<Known>], sizes: &[(u64, u64)]) -> Result<Response> {
    let around = api.around().await?;
    let now = Timestamp::now();
    let mut out = Vec::with_capacity(picked.len() * 1024 + 2);
    out.push(b'[');
    for (at, k) in picked.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        k.write_line(&mut out, api, &around, now, sizes.get(at).copied()).await;
    }
    out.extend_from_slice(b"]\n");
    Ok(super::super::json_bytes(out))
}

/// Ports of one protocol.
#[derive(Debug, PartialEq)]
struct Range {
    from: u16,
    to: u16,
    protocol: String,
}

impl Range {
    fn holds(&self, port: u16, protocol: biga_model::Protocol) -> bool {
        (self.from..=self.to).contains(&port) && self.protocol == protocol.as_str()
    }

    /// `80`, `80/udp`, `8000-9000/tcp`.
    fn parse(text: &str) -> Option<Range> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(Range {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            protocol: protocol.to_ascii_lowercase(),
        })
    }
}

/// The values of the filter `expose` or `publish`.
fn ports(filters: &Filters, name: &str) -> Result<Option<Vec<Range>>> {
    let Some(words) = filters.get(name) else {
        return Ok(None);
    };
    let one = |w: &String| Range::parse(w).ok_or_else(|| Error::bad(format!("invalid filter '{name}={w}'")));
    words.iter().map(one).collect::<Result<_>>().map(Some)
}

/// The ports that images of containers expose, by the ids of the images.
async fn image_ports(api: &DockerApi, all: &[Arc<Known>]) -> BTreeMap<String, Vec<Range>> {
    let mut out = BTreeMap::new();
    for k in all {
        let id = k.object.status.as_ref().map_or("", |s| &s.image_id);
        if id.is_empty() || out.contains_key(id) {
            continue;
        }
        let config = api.image_config(id).await;
        let ports = config.pointer("/config/ExposedPorts").and_then(Value::as_object);
        let ranges = ports
            .into_iter()
            .flatten()
            .filter_map(|(t, _)| Range::parse(t))
            .collect();
        out.insert(id.to_owned(), ranges);
    }
    out
}

/// Whether one of the ports a container or its image exposes is among these; what it publishes it exposes.
fn exposes(o: &Object<Instance>, of_images: &BTreeMap<String, Vec<Range>>, wanted: &[Range]) -> bool {
    let sent = crate::translate::create::sent(&o.metadata);
    let words: Vec<Range> = sent.exposed_ports.keys().filter_map(|t| Range::parse(t)).collect();
    let of_image = o.status.as_ref().and_then(|s| of_images.get(&s.image_id));
    let said = words.iter().chain(of_image.into_iter().flatten()).any(|s| {
        wanted
            .iter()
            .any(|w| w.protocol == s.protocol && s.from <= w.to && w.from <= s.to)
    });
    said || o
        .spec
        .ports
        .iter()
        .any(|p| wanted.iter().any(|w| w.holds(p.port, p.protocol)))
}

/// The filters `before` and `since`: containers made before, or after, another.
async fn between(api: &DockerApi, mut all: Vec<Arc<Known>>, filters: &Filters) -> Result<Vec<Arc<Known>>> {
    for (name, newer) in [("before", false), ("since", true)] {
        for word in filters.get(name).unwrap_or(&[]) {
            let mark = api.container(word).await?;
            if let Some(at) = all.iter().position(|k| k.object.uid() == mark.uid()) {
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
    let id = o.status.as_ref().map_or("", |s| &s.image_id);
    ancestors.as_ref().is_none_or(|l| {
        l.iter()
            .any(|a| a == id || *a == familiar(o.spec.main_image()) || *a == o.spec.main_image())
    })
}

fn matches(f: &Filters, k: &Known) -> bool {
    let o = &*k.object;
    let exit_code = || o.status.as_ref().and_then(|s| s.exit_code).unwrap_or(0);
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
    f.any("id", |v| k.id.starts_with(v))
        && f.any("name", |v| name_fits(v, o.name()))
        && f.any("status", |v| v == status_word(o))
        && f.any("exited", |v| status_word(o) == "exited" && v.parse() == Ok(exit_code()))
        && f.any("network", on_network)
        && f.any("volume", has_volume)
        && f.any("isolation", |v| v == o.spec.isolation.as_str() || v == "default")
        && f.any("health", |v| v == health::word(o))
        && f.any("is-task", |v| matches!(v, "0" | "false"))
        && (f.is_empty() || f.labels(&labels::read(&o.metadata)))
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
    let k = api.known_container(&id).await?;
    let sizes = match q.flag("size") {
        true => super::super::usage::containers(&api, &[&k.object]).await?,
        false => Vec::new(),
    };
    let document = k.document(&api, &api.around().await?, sizes.first().copied()).await;
    Ok(super::super::json_bytes(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let r = |t| Range::parse(t);
        let range = |from, to, protocol: &str| {
            Some(Range {
                from,
                to,
                protocol: protocol.into(),
            })
        };
        assert_eq!(r("80"), range(80, 80, "tcp"));
        assert_eq!(r("80/UDP"), range(80, 80, "udp"));
        assert_eq!(r("8000-9000/tcp"), range(8000, 9000, "tcp"));
        assert_eq!((r("x"), r("80-"), r("")), (None, None, None));
    }

    #[test]
    fn names_fit_with_and_without_anchors() {
        assert!(name_fits("eb", "web") && !name_fits("^eb", "web") && name_fits("^/web$", "web"));
        assert!(name_fits("/web", "web-1") && !name_fits("/web$", "web-1") && name_fits("1$", "web-1"));
    }
}
