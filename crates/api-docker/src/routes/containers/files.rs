//! Files of containers: `archive` (which `docker cp` uses), `changes`, `export`, and `POST /commit`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biga_model::{Reference, Timestamp};
use biga_wire::files::{ChangeKind, Commit, PathStat, Put};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::super::{empty, json as answer, ok};
use crate::backend::ByteStream;
use crate::error::{Error, Result};
use crate::extract::{self, Query};
use crate::state::DockerApi;
use crate::translate::labels;

/// Go's bits for what a file is, which Docker's clients want in place of the kernel's.
const GO_MODES: [(u32, u32); 6] = [
    (0o040_000, 1 << 31),
    (0o120_000, 1 << 27),
    (0o060_000, 1 << 26),
    (0o010_000, 1 << 25),
    (0o140_000, 1 << 24),
    (0o020_000, 1 << 26 | 1 << 21),
];

/// The header's JSON, as Go writes a `container.PathStat`.
fn docker_stat(s: &PathStat) -> Value {
    let kind = GO_MODES
        .iter()
        .find(|(unix, _)| s.mode & 0o170_000 == *unix)
        .map_or(0, |m| m.1);
    let special: u32 = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)]
        .iter()
        .filter(|(unix, _)| s.mode & unix != 0)
        .map(|(_, go)| go)
        .sum();
    let mtime = Timestamp::new(s.mtime, i32::try_from(s.mtime_nsec).unwrap_or(0)).unwrap_or_default();
    json!({
        "name": s.name,
        "size": s.size,
        "mode": s.mode & 0o777 | kind | special,
        "mtime": mtime.to_string(),
        "linkTarget": s.link_target,
    })
}

fn with_stat(mut r: Response, stat: &PathStat) -> Result<Response> {
    let value = STANDARD.encode(docker_stat(stat).to_string());
    let value = HeaderValue::try_from(value).map_err(|e| Error::internal(e.to_string()))?;
    r.headers_mut().insert("X-Docker-Container-Path-Stat", value);
    Ok(r)
}

fn tar(stream: ByteStream) -> Response {
    let mut r = Response::new(Body::from_stream(stream.map(|b| b.map_err(std::io::Error::other))));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    r
}

fn path(q: &Query) -> Result<&str> {
    q.get("path")
        .ok_or_else(|| Error::bad("missing parameter: path: it cannot be empty"))
}

pub(super) async fn stat(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let stat = api.backend().files_stat(api.ns(), o.name(), path(&q)?).await?;
    with_stat(empty(StatusCode::OK), &stat)
}

pub(super) async fn read(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let (stat, stream) = api.backend().files_read(api.ns(), o.name(), path(&q)?).await?;
    api.tell(&o, "archive-path", &[]);
    with_stat(tar(stream), &stat)
}

pub(super) async fn write(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    q: Query,
    body: Body,
) -> Result<Response> {
    let o = api.container(&id).await?;
    let put = Put {
        keep_kinds: q.flag("noOverwriteDirNonDir"),
        to_user: q.flag("copyUIDGID"),
    };
    let content = body
        .into_data_stream()
        .map(|r| r.map_err(std::io::Error::other))
        .boxed();
    api.backend()
        .files_write(api.ns(), o.name(), path(&q)?, put, content)
        .await?;
    api.tell(&o, "extract-to-dir", &[]);
    Ok(empty(StatusCode::OK))
}

pub(super) async fn changes(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    let o = api.container(&id).await?;
    let list = api.backend().changes(api.ns(), o.name()).await?;
    let number = |k| match k {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    let list: Vec<Value> = list
        .iter()
        .map(|c| json!({"Path": c.path, "Kind": number(c.kind)}))
        .collect();
    // As Go writes a list that was never filled.
    Ok(ok(&if list.is_empty() { Value::Null } else { list.into() }))
}

pub(super) async fn export(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    let o = api.container(&id).await?;
    let stream = api.backend().export(api.ns(), o.name()).await?;
    api.tell(&o, "export", &[]);
    Ok(tar(stream))
}

pub(super) async fn commit(State(api): State<DockerApi>, q: Query, headers: HeaderMap, body: Body) -> Result<Response> {
    let config: Option<Map<String, Value>> = extract::json_or_none(&headers, body).await?;
    let id = q
        .get("container")
        .ok_or_else(|| Error::bad("missing parameter: container"))?;
    let o = api.container(id).await?;
    let mut changes = written(config.unwrap_or_default())?;
    for text in q.all("changes") {
        // Several lines, as in a Dockerfile.
        changes.extend(
            text.lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(Into::into),
        );
    }
    let commit = Commit {
        reference: reference(&q)?,
        author: q.get("author").unwrap_or_default().into(),
        comment: q.get("comment").unwrap_or_default().into(),
        changes,
        labels: labels::read(&o.metadata),
        pause: q.flag_or("pause", true),
    };
    let made = api.backend().commit(api.ns(), o.name(), commit).await?;
    let image = made.images.into_iter().next().unwrap_or_default();
    let comment = q.get("comment").unwrap_or_default().to_owned();
    api.tell(&o, "commit", &[("comment", comment)]);
    Ok(answer(StatusCode::CREATED, &json!({"Id": image.image_id})))
}

fn reference(q: &Query) -> Result<Option<String>> {
    let Some(repo) = q.get("repo") else {
        return match q.get("tag") {
            None => Ok(None),
            Some(_) => Err(Error::bad("a tag needs a repository: repo is empty")),
        };
    };
    let text = match q.get("tag") {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    };
    let parsed: Reference = text
        .parse()
        .map_err(|e: String| Error::bad(format!("invalid reference format: {e}")))?;
    if parsed.digest.is_some() {
        return Err(Error::bad("an image that is being made has no digest yet"));
    }
    Ok(Some(parsed.to_string()))
}

/// The config of the request's body in the words of a Dockerfile. What is empty says nothing.
fn written(config: Map<String, Value>) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let quoted = |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""));
    for (key, value) in config {
        let empty = match &value {
            Value::Null | Value::Bool(_) => true,
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            Value::Number(_) => false,
        };
        if empty {
            continue;
        }
        let bad = || Error::bad(format!("invalid value for {key} of the config"));
        let text = || value.as_str().ok_or_else(bad);
        let names = || value.as_object().map(|o| o.keys()).ok_or_else(bad);
        match key.as_str() {
            // An entry point takes the arguments away, so it comes first.
            "Entrypoint" => out.insert(0, format!("ENTRYPOINT {value}")),
            "Cmd" => out.push(format!("CMD {value}")),
            "User" => out.push(format!("USER {}", text()?)),
            "WorkingDir" => out.push(format!("WORKDIR {}", text()?)),
            "StopSignal" => out.push(format!("STOPSIGNAL {}", text()?)),
            "ExposedPorts" => out.extend(names()?.map(|p| format!("EXPOSE {p}"))),
            "Volumes" => out.extend(names()?.map(|p| format!("VOLUME {}", json!([p])))),
            "Env" => {
                for line in value.as_array().ok_or_else(bad)? {
                    let (k, v) = line.as_str().and_then(|l| l.split_once('=')).ok_or_else(bad)?;
                    out.push(format!("ENV {k}={}", quoted(v)));
                }
            }
            "Labels" => {
                for (k, v) in value.as_object().ok_or_else(bad)? {
                    out.push(format!("LABEL {}={}", quoted(k), quoted(v.as_str().ok_or_else(bad)?)));
                }
            }
            "OnBuild" => {
                for line in value.as_array().ok_or_else(bad)? {
                    out.push(format!("ONBUILD {}", line.as_str().ok_or_else(bad)?));
                }
            }
            // These are the container's and no part of an image.
            "Hostname" | "Domainname" | "Image" | "MacAddress" | "StopTimeout" => {}
            other => return Err(Error::missing(format!("{other} in the config of a commit"))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s() {
        let mode = |m: u32| {
            let stat = PathStat {
                mode: m,
                mtime: 1_700_000_000,
                mtime_nsec: 5,
                ..PathStat::default()
            };
            docker_stat(&stat)["mode"].clone()
        };
        assert_eq!(mode(0o100_644), 0o644);
        assert_eq!(mode(0o040_755), 2_147_484_141u32);
        assert_eq!(mode(0o120_777), 134_218_239);
        assert_eq!(mode(0o041_777), (1u32 << 31) + (1 << 20) + 0o777);
        assert_eq!(mode(0o104_755), (1 << 23) + 0o755);
        assert_eq!(mode(0o020_600), (1 << 26) + (1 << 21) + 0o600);
        let stat = PathStat {
            mtime: 1_700_000_000,
            mtime_nsec: 5,
            ..PathStat::default()
        };
        assert_eq!(docker_stat(&stat)["mtime"], "2023-11-14T22:13:20.000000005Z");
    }

    #[test]
    fn a_body_becomes_instructions() {
        let Value::Object(config) = json!({
            "Cmd": ["a", "b"], "Entrypoint": ["/e"], "Env": ["A=x \"y\""], "Labels": {"k": "v w"},
            "Tty": false, "User": "", "Hostname": "h", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/d e": {}},
        }) else {
            panic!("an object");
        };
        let mut all = written(config).unwrap();
        assert_eq!(all.remove(0), r#"ENTRYPOINT ["/e"]"#);
        all.sort();
        let want = [
            r#"CMD ["a","b"]"#,
            r#"ENV A="x \"y\"""#,
            "EXPOSE 80/tcp",
            r#"LABEL "k"="v w""#,
            r#"VOLUME ["/d e"]"#,
        ];
        assert_eq!(all, want);
        let Value::Object(odd) = json!({"Healthcheck": {"Test": ["NONE"]}}) else {
            panic!("an object");
        };
        assert!(written(odd).is_err());
    }
}
