//! `POST /build`, as Docker's classic builder speaks it; `POST /build/prune` and `/build/cancel`.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use biga_wire::build::{Build, Event};
use biga_wire::cache::{CacheFilter, Expression};
use biga_wire::http::PruneResult;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::progress::{Lines, bar, stream};
use crate::backend::Building;
use crate::error::{Error, Result};
use crate::extract::{Query, registry_auths};
use crate::state::DockerApi;
use crate::translate::create::by_isolation;
use crate::translate::events::Message;
use crate::translate::ids::{docker_id, network_name, short};

/// Events that may wait for a slow client.
const QUEUE: usize = 64;
/// What a quiet build keeps for the case that it fails, in bytes.
const QUIET_LOG: usize = 1 << 20;

/// Bytes of a context that are read though nobody wants them.
const MOST_READ_AWAY: usize = 64 << 20;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/build", post(build))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(cancel))
}

async fn build(State(api): State<DockerApi>, q: Query, headers: HeaderMap, request: Request) -> Result<Response> {
    let asked = wanted(&q).and_then(|w| Ok((w, registry_auths(&headers)?)));
    let (wanted, auths) = match asked {
        Ok(asked) => asked,
        Err(e) => {
            read_away(request).await;
            return Err(e);
        }
    };
    let quiet = q.flag("q");
    let context = request
        .into_body()
        .into_data_stream()
        .map(|r| r.map_err(std::io::Error::other))
        .boxed();
    let prepared = api.backend().build_prepare(wanted, auths, context).await?;
    let id = q.get("buildid").map(str::to_owned);
    let token = CancellationToken::new();
    if let Some(id) = &id {
        api.inner.builds.lock().insert(id.clone(), token.clone());
    }
    Ok(stream(move |lines| async move {
        let telling = tell(prepared, &lines, quiet);
        tokio::select! {
            () = telling => {}
            () = lines.closed() => {}
            () = token.cancelled() => {
                lines.error(&Error::internal("the build was cancelled")).await;
            }
        }
        if let Some(id) = id {
            api.inner.builds.lock().remove(&id);
        }
    }))
}

/// Reads what a client sends before it looks at the answer: a connection that closes meanwhile hides what was answered.
async fn read_away(request: Request) {
    let mut body = request.into_body().into_data_stream();
    let mut left = MOST_READ_AWAY;
    while let Some(Ok(part)) = body.next().await {
        left = left.saturating_sub(part.len());
        if left == 0 {
            return;
        }
    }
}

async fn cancel(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let id = q.get("id").ok_or_else(|| Error::bad("build ID not provided"))?;
    let token = api.inner.builds.lock().get(id).cloned();
    token
        .ok_or_else(|| Error::not_found(format!("no build runs under the ID {id}")))?
        .cancel();
    Ok(super::empty(StatusCode::OK))
}

/// What `docker builder prune` may ask for, beside a time.
const FIELDS: [&str; 7] = ["id", "parent", "type", "description", "inuse", "shared", "private"];

async fn prune(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let (wanted, filters) = (pruned(&q)?, q.filters()?);
    // Nothing of it has labels, so there is nothing that has this one.
    let done = match filters.get("label") {
        Some(_) => PruneResult::default(),
        None => api.backend().build_prune(wanted).await?,
    };
    api.inner.events.publish(Message::prune("builder", done.freed_bytes));
    Ok(super::ok(
        &json!({"CachesDeleted": done.removed, "SpaceReclaimed": done.freed_bytes}),
    ))
}

fn pruned(q: &Query) -> Result<CacheFilter> {
    let filters = q
        .filters()?
        .only(&[&FIELDS[..], &["until", "unused-for", "label", "label!"]].concat())?;
    let mut fields = Vec::new();
    for field in FIELDS {
        match filters.get(field) {
            None => {}
            Some([value]) => fields.push((field, value.as_str())),
            Some(_) => return Err(Error::bad(format!("more than one filter {field}"))),
        }
    }
    let any = match fields.is_empty() {
        true => Vec::new(),
        false => vec![Expression::of(fields).map_err(Error::bad)?],
    };
    let until = match filters.until()? {
        Some(t) => Some(t),
        None => filters.moment("unused-for")?,
    };
    let age = |t: biga_model::Timestamp| biga_model::Timestamp::now().as_second() - t.as_second();
    let mut keep = None;
    // Its name changed with version 1.48.
    for name in ["keep-storage", "reserved-space"] {
        keep = keep.or(q.number::<u64>(name)?.filter(|n| *n > 0));
    }
    for name in ["max-used-space", "min-free-space"] {
        if q.number::<i64>(name)?.is_some_and(|n| n > 0) {
            return Err(Error::missing(format!("pruning the cache of builds by {name}")));
        }
    }
    Ok(CacheFilter {
        all: q.flag("all"),
        any,
        unused_for: until.map(|t| u64::try_from(age(t)).unwrap_or(0)),
        keep_bytes: keep,
    })
}

/// Runs a build and writes what it tells.
async fn tell(building: Box<dyn Building>, lines: &Lines, quiet: bool) {
    let (tx, mut rx) = mpsc::channel(QUEUE);
    let work = building.run(tx);
    tokio::pin!(work);
    let mut kept: Vec<Value> = Vec::new();
    let (mut size, mut image) = (0, String::new());
    let mut open = true;
    let outcome = loop {
        tokio::select! {
            biased;
            event = rx.recv(), if open => {
                let Some(event) = event else {
                    open = false;
                    continue;
                };
                if let Event::Built { image: id } = &event {
                    image.clone_from(id);
                }
                for line in lines_of(event) {
                    if !quiet {
                        lines.send(line).await;
                    } else if size < QUIET_LOG {
                        size += line.to_string().len();
                        kept.push(line);
                    }
                }
            }
            // All that was told has been read: the sender goes with the work.
            done = &mut work => break done,
        }
    };
    while let Ok(event) = rx.try_recv() {
        for line in lines_of(event) {
            if !quiet {
                lines.send(line).await;
            }
        }
    }
    match outcome {
        Ok(()) if quiet => {
            lines.send(json!({"stream": format!("{image}\n")})).await;
        }
        Ok(()) => {}
        Err(e) => {
            for line in kept {
                lines.send(line).await;
            }
            let detail = match e.code {
                Some(code) => json!({"code": code, "message": e.message}),
                None => json!({"message": e.message}),
            };
            lines.send(json!({"errorDetail": detail, "error": e.message})).await;
        }
    }
}

/// What Docker's builder writes.
fn lines_of(event: Event) -> Vec<Value> {
    let text = |t: String| json!({ "stream": t });
    match event {
        Event::Step {
            number, total, text: t, ..
        } => {
            vec![text(format!("Step {number}/{total} : {t}")), text("\n".into())]
        }
        Event::Of { event, .. } => lines_of(*event),
        Event::Broken => Vec::new(),
        Event::Cached => vec![text(" ---> Using cache\n".into())],
        Event::Running { instance } => vec![text(format!(" ---> Running in {}\n", short(&docker_id(&instance))))],
        Event::Output { stderr: false, text: t } => vec![text(t)],
        Event::Output { stderr: true, text: t } => vec![text(format!("\u{1b}[91m{t}\u{1b}[0m"))],
        Event::Removed { instance } => {
            vec![text(format!(
                " ---> Removed intermediate container {}\n",
                short(&docker_id(&instance))
            ))]
        }
        Event::Made { image } => vec![text(format!(" ---> {}\n", short(&image)))],
        Event::Pulling { progress: p, .. } => {
            let word = match p.action.as_str() {
                "downloading" => "Downloading",
                "exists" => "Already exists",
                "waiting" => "Waiting",
                "done" => "Pull complete",
                other => other,
            };
            vec![bar(word, &short(&p.part), p.done, p.total)]
        }
        Event::Note { text: t } => vec![text(t + "\n")],
        Event::Built { image } => {
            let done = text(format!("Successfully built {}\n", short(&image)));
            vec![json!({"aux": {"ID": image}}), done]
        }
        Event::Tagged { name } => vec![text(format!("Successfully tagged {name}\n"))],
    }
}

/// JSON in a parameter.
fn document<T: DeserializeOwned + Default>(q: &Query, name: &str) -> Result<T> {
    match q.get(name) {
        None => Ok(T::default()),
        Some(text) => {
            let read: Option<T> =
                serde_json::from_str(text).map_err(|e| Error::bad(format!("error reading {name}: {e}")))?;
            Ok(read.unwrap_or_default())
        }
    }
}

fn wanted(q: &Query) -> Result<Build> {
    if q.get("version") == Some("2") || q.get("session").is_some() {
        return Err(no_buildkit());
    }
    if q.flag("squash") {
        return Err(Error::missing("squashing layers (--squash)"));
    }
    let isolation = by_isolation(q.get("isolation").unwrap_or_default())?;
    if q.get("outputs").is_some_and(|o| !matches!(o, "[]" | "null")) {
        return Err(Error::missing("writing the outcome of a build elsewhere (--output)"));
    }
    // A word for each, or a list.
    if q.all("securityopt")
        .iter()
        .any(|s| !matches!(s.as_str(), "" | "[]" | "null"))
    {
        return Err(Error::missing("security options of a build (--security-opt)"));
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }
    let ulimits: Vec<Ulimit> = document(q, "ulimits")?;
    let args: BTreeMap<String, Option<String>> = document(q, "buildargs")?;
    let positive = |name: &str| -> Result<Option<u64>> {
        let n = q.number::<i64>(name)?.filter(|n| *n != 0 && *n != -1);
        n.map(|n| u64::try_from(n).map_err(|_| Error::bad(format!("{name} cannot be negative: {n}"))))
            .transpose()
    };
    let word = |name: &str| q.get(name).unwrap_or_default().to_owned();
    let some = |name: &str| q.get(name).filter(|t| !t.is_empty()).map(str::to_owned);
    Ok(Build {
        dockerfile: word("dockerfile"),
        remote: word("remote"),
        tags: q.all("t").iter().filter(|t| !t.is_empty()).cloned().collect(),
        target: word("target"),
        build_args: args.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
        labels: document(q, "labels")?,
        no_cache: q.flag("nocache"),
        pull: q.flag("pull"),
        keep_containers: !q.flag_or("rm", true),
        force_remove: q.flag("forcerm"),
        cache_from: document(q, "cachefrom")?,
        isolation: isolation.unwrap_or_default().to_string(),
        network: network_name(&word("networkmode")).to_owned(),
        memory: positive("memory")?,
        memory_swap: positive("memswap")?,
        cpu_shares: positive("cpushares")?.map(|n| n.clamp(2, 262_144)),
        cpu_period: positive("cpuperiod")?,
        cpu_quota: q.number::<i64>("cpuquota")?.filter(|n| *n != 0),
        cpuset_cpus: some("cpusetcpus"),
        cpuset_mems: some("cpusetmems"),
        shm_size: positive("shmsize")?,
        ulimits: ulimits
            .into_iter()
            .map(|u| (u.name.to_ascii_lowercase(), (u.soft, u.hard)))
            .collect(),
        // Docker's clients send one after the other, parted by commas, or as a list.
        extra_hosts: hosts(q)?,
        cgroup_parent: some("cgroupparent"),
        platform: word("platform"),
        ..Build::default()
    })
}

fn hosts(q: &Query) -> Result<Vec<String>> {
    match q.get("extrahosts") {
        Some(text) if text.starts_with('{') => {
            let map: BTreeMap<String, String> = document(q, "extrahosts")?;
            Ok(map.into_iter().map(|(k, v)| format!("{k}:{v}")).collect())
        }
        Some(text) if text.starts_with('[') => document(q, "extrahosts"),
        _ => Ok(q
            .all("extrahosts")
            .iter()
            .flat_map(|t| t.split(','))
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect()),
    }
}

/// For clients from before buildx that speak BuildKit, and nodes without a builder for it.
pub(super) fn no_buildkit() -> Error {
    Error::new(
        StatusCode::NOT_IMPLEMENTED,
        "sessions of BuildKit are not supported here: use buildx, or set DOCKER_BUILDKIT=0, and docker build uses the classic builder",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_dockers() {
        let text = "t=a&t=b%3A1&dockerfile=D&nocache=1&rm=1&memory=0&memswap=-1&cpushares=1&buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D\
            &labels=%7B%22l%22%3A%22v%22%7D&ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Hard%22%3A9%2C%22Soft%22%3A8%7D%5D\
            &cachefrom=null&networkmode=bridge&extrahosts=h%3A10.0.0.1&version=1&shmsize=1048576";
        let b = wanted(&Query::parse(text)).unwrap();
        assert_eq!(
            (b.tags.len(), b.dockerfile.as_str(), b.no_cache, b.keep_containers),
            (2, "D", true, false)
        );
        assert_eq!(
            (b.memory, b.memory_swap, b.cpu_shares, b.shm_size),
            (None, None, Some(2), Some(1 << 20))
        );
        assert_eq!(
            b.build_args.into_iter().collect::<Vec<_>>(),
            [("A".to_string(), "1".to_string())]
        );
        for (word, isolation) in [("default", "container"), ("hyperv", "microvm"), ("microvm", "microvm")] {
            let b = wanted(&Query::parse(&format!("isolation={word}"))).unwrap();
            assert_eq!(b.isolation, isolation, "{word}");
        }
        assert_eq!((b.ulimits["nofile"], b.labels["l"].as_str()), ((8, 9), "v"));
        assert_eq!(
            (b.network.as_str(), b.extra_hosts),
            (
                biga_model::kinds::network::DEFAULT_NETWORK,
                vec!["h:10.0.0.1".to_string()]
            )
        );
    }

    #[test]
    fn what_is_pruned() {
        let of = |text: &str| pruned(&Query::parse(text));
        assert_eq!(of("").unwrap(), CacheFilter::default());
        let f = of("all=1&keep-storage=7&filters=%7B%22type%22%3A%5B%22regular%22%5D%2C%22inuse%22%3A%5B%22%22%5D%2C%22until%22%3A%5B%2210m%22%5D%7D").unwrap();
        let any = vec![Expression::parse("type==regular,inuse").unwrap()];
        assert!(f.all && f.any == any && f.keep_bytes == Some(7), "{f:?}");
        assert!(f.unused_for.is_some_and(|s| (599..=601).contains(&s)), "{f:?}");
        let f = of("filters=%7B%22unused-for%22%3A%5B%221h%22%5D%7D").unwrap();
        assert!(f.unused_for.is_some_and(|s| (3599..=3601).contains(&s)), "{f:?}");
        for bad in [
            "filters=%7B%22colour%22%3A%5B%22a%22%5D%7D",
            "filters=%7B%22until%22%3A%5B%22x%22%5D%7D",
            "max-used-space=5",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (text, word) in [
            ("version=2", "DOCKER_BUILDKIT=0"),
            ("session=x", "DOCKER_BUILDKIT=0"),
            ("squash=1", "--squash"),
            ("outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D", "--output"),
        ] {
            let e = wanted(&Query::parse(text)).unwrap_err();
            assert!(
                e.status == StatusCode::NOT_IMPLEMENTED && e.message.contains(word),
                "{e}"
            );
        }
        for bad in [
            "buildargs=x",
            "labels=%5B%5D",
            "memory=-5",
            "ulimits=%7B%7D",
            "isolation=jail",
        ] {
            assert_eq!(
                wanted(&Query::parse(bad)).unwrap_err().status,
                StatusCode::BAD_REQUEST,
                "{bad}"
            );
        }
    }

    #[test]
    fn the_stream_is_that_of_the_classic_builder() {
        let all = [
            Event::Step {
                number: 1,
                total: 2,
                text: "FROM a".into(),
                line: 1,
                stage: String::new(),
            },
            Event::Made {
                image: format!("sha256:{}", "a".repeat(64)),
            },
            Event::Cached,
            Event::Output {
                stderr: true,
                text: "e\n".into(),
            },
            Event::Built {
                image: format!("sha256:{}", "b".repeat(64)),
            },
            Event::Tagged {
                name: "x:latest".into(),
            },
        ];
        let lines: Vec<Value> = all.into_iter().flat_map(lines_of).collect();
        let streams: String = lines.iter().filter_map(|l| l["stream"].as_str()).collect();
        let want = "Step 1/2 : FROM a\n ---> aaaaaaaaaaaa\n ---> Using cache\n\u{1b}[91me\n\u{1b}[0mSuccessfully built bbbbbbbbbbbb\n\
            Successfully tagged x:latest\n";
        assert_eq!(streams, want);
        assert!(
            lines
                .iter()
                .any(|l| l["aux"]["ID"].as_str().is_some_and(|id| id.ends_with('b')))
        );
    }
}
