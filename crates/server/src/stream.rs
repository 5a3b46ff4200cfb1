//! The streaming path to an instance: streams by upgrade, logs, stats, signals.
//!
//! After `101 Switching Protocols` the client's first frame is the request to the shim. The server looks at that one
//! frame only; then it copies bytes both ways until both ends are done. After the end of a process that was attached to, it adds one
//! frame once the instance's status tells of the end too, so that its client need not ask.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use biga_api_kube::query::Query;
use biga_api_kube::{ApiError, ErrorKind};
use biga_model::{Instance, Object, RestartWhen};
use biga_store::typed::{self, ObjectEvent, Objects};
use biga_wire::shim::{self, ErrorCode, Reply};
use biga_wire::{Decoder, Frame, FrameKind};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Streams;
use crate::backend::{BoxedIo, LogFormat, LogQuery};
use crate::long;
use crate::serve::Shutdown;

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "biga-stream";
/// How long the client may take to send its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// How long after the end of a stream its instance is waited for.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// Which stream a path opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Exec,
    Attach,
    Console,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Exec => "exec",
            Verb::Attach => "attach",
            Verb::Console => "console",
        }
    }

    fn takes(self, request: &shim::Request) -> bool {
        use shim::Request::*;
        matches!(
            (self, request.inner()),
            (Verb::Exec, Exec { .. }) | (Verb::Attach, Attach { .. }) | (Verb::Console, Console)
        )
    }
}

type InstancePath = Path<(String, String)>;

/// Refuses an instance that is not there, while an answer with a status is still possible.
async fn check_instance(s: &Streams, ns: &str, name: &str) -> Result<Object<Instance>, ApiError> {
    Ok(s.instances.get(ns, name).await?)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

pub(crate) async fn open(
    verb: Verb,
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrades = has_token(request.headers(), header::CONNECTION, "upgrade")
        && has_token(request.headers(), header::UPGRADE, PROTOCOL);
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (true, Some(on_upgrade)) = (upgrades, on_upgrade) else {
        return Err(ApiError::bad_request(format!(
            "{} needs an HTTP/1.1 connection with Connection: Upgrade and Upgrade: {PROTOCOL}",
            verb.as_str()
        )));
    };
    let object = check_instance(&s, &ns, &name).await?;
    let shutdown = request.extensions().get::<Shutdown>().cloned();
    tokio::spawn(async move {
        let stream = async {
            let client = on_upgrade.await.map_err(std::io::Error::other)?;
            serve(verb, &s, &object, TokioIo::new(client)).await
        };
        let ended = match shutdown {
            Some(Shutdown(token)) => token.run_until_cancelled(stream).await,
            None => Some(stream.await),
        };
        if let Some(Err(e)) = ended {
            tracing::debug!(instance = name, verb = verb.as_str(), error = %e, "a stream broke");
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

async fn serve<C>(verb: Verb, s: &Streams, object: &Object<Instance>, mut client: C) -> std::io::Result<()>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut rest = Vec::new();
    let first = match tokio::time::timeout(FIRST_FRAME, first_frame(&mut client, &mut rest)).await {
        Ok(first) => first?,
        Err(_) => return refuse(&mut client, ErrorCode::Invalid, "no request came for 30 seconds").await,
    };
    let ask = first.and_then(|f| (f.kind == FrameKind::Request).then(|| f.parse::<shim::Request>().ok())?);
    let Some(ask) = ask.filter(|r| verb.takes(r)) else {
        let message = format!("the first frame of this stream is a request for {}", verb.as_str());
        return refuse(&mut client, ErrorCode::Invalid, &message).await;
    };
    // The whole of an instance that is not started again comes to rest after its stream; its containers each by themselves do not.
    let whole = verb == Verb::Attach && matches!(ask, shim::Request::Attach { .. });
    let settles = whole && object.spec.restart_policy.policy == RestartWhen::No;
    let ns = object.metadata.namespace.as_deref().unwrap_or_default();
    let mut shim: BoxedIo = match s.backend.open(ns, object.name(), ask).await {
        Ok(io) => io,
        Err(e) => return refuse(&mut client, code_of(&e), &e.message).await,
    };
    shim.write_all(&rest).await?;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_shim, mut to_shim) = tokio::io::split(shim);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_shim).await?;
        to_shim.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_shim, &mut to_client).await?;
        let settled = async {
            let settled = tokio::time::timeout(SETTLES_WITHIN, settled(&s.instances, object));
            settles && matches!(settled.await, Ok(Ok(())))
        };
        if settled.await {
            let mut bytes = Vec::new();
            Frame::new(FrameKind::Settled, []).encode(&mut bytes);
            to_client.write_all(&bytes).await?;
        }
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

/// Waits until the end of an instance stands in its status, or until it is gone where it removes itself.
async fn settled(instances: &Objects<Instance>, object: &Object<Instance>) -> Result<(), typed::Error> {
    let ns = object.metadata.namespace.as_deref().unwrap_or_default();
    let over = |seen: &Object<Instance>| {
        let ended = seen.status.as_ref().is_some_and(|s| s.phase.is_ended());
        seen.uid() != object.uid() || (ended && !seen.spec.auto_remove)
    };
    let Some(seen) = instances.find(ns, object.name()).await? else {
        return Ok(());
    };
    if over(&seen) {
        return Ok(());
    }
    let from = seen.metadata.resource_version.parse().ok();
    let mut events = instances.watch_one(ns, object.name(), from).await?;
    while let Some(event) = events.next().await {
        match event? {
            ObjectEvent::Put { object } if !over(&object) => {}
            _ => return Ok(()),
        }
    }
    Err(biga_store::Error::Closed.into())
}

/// Reads one frame; what came after it is put into `rest`. `None` where the stream ends or carries none.
async fn first_frame<C: tokio::io::AsyncRead + Unpin>(
    client: &mut C,
    rest: &mut Vec<u8>,
) -> std::io::Result<Option<Frame>> {
    let mut decoder = Decoder::new();
    let mut all = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = client.read(&mut buffer).await?;
        if n == 0 {
            return Ok(None);
        }
        decoder.push(&buffer[..n]);
        all.extend_from_slice(&buffer[..n]);
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                rest.extend_from_slice(&all[all.len() - decoder.pending()..]);
                return Ok(Some(frame));
            }
            Ok(None) => {}
            Err(_) => return Ok(None),
        }
    }
}

async fn refuse<C: tokio::io::AsyncWrite + Unpin>(
    client: &mut C,
    code: ErrorCode,
    message: &str,
) -> std::io::Result<()> {
    let reply = Reply::Error {
        code,
        message: message.into(),
    };
    let mut bytes = Vec::new();
    Frame::json(FrameKind::Reply, &reply).encode(&mut bytes);
    client.write_all(&bytes).await?;
    client.shutdown().await
}

/// The shim's word for an error of the API. `NotFound` there means the program to run, not the instance.
fn code_of(e: &ApiError) -> ErrorCode {
    match e.kind {
        ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Unavailable => ErrorCode::State,
        ErrorKind::BadRequest | ErrorKind::Invalid => ErrorCode::Invalid,
        ErrorKind::Unsupported | ErrorKind::MethodNotAllowed => ErrorCode::Unsupported,
        _ => ErrorCode::Failed,
    }
}

pub(crate) async fn log(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let query = log_query(&Query::parse(raw.as_deref().unwrap_or_default())?)?;
    check_instance(&s, &ns, &name).await?;
    let media = match query.format {
        LogFormat::Text => "text/plain; charset=utf-8",
        LogFormat::Frames => "application/vnd.biga.frames",
    };
    let stream = s.backend.logs(&ns, &name, query).await?;
    let mut r = Response::new(Body::from_stream(stream));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(r)
}

fn log_query(q: &Query) -> Result<LogQuery, ApiError> {
    let time = |name: &str| {
        let parse = |v: &str| {
            v.parse()
                .map_err(|_| ApiError::bad_request(format!("{name} is an RFC 3339 time, not {v:?}")))
        };
        q.get(name).map(parse).transpose()
    };
    // Each stream is wanted unless it is said not to be.
    let wanted = |name: &str| if q.has(name) { q.flag(name) } else { Ok(true) };
    Ok(LogQuery {
        container: q.get("container").map(str::to_owned),
        follow: q.flag("follow")?,
        tail: q.number("tail")?,
        since: time("since")?,
        until: time("until")?,
        timestamps: q.flag("timestamps")?,
        stdout: wanted("stdout")?,
        stderr: wanted("stderr")?,
        format: match q.get("format") {
            None | Some("text") => LogFormat::Text,
            Some("frames") => LogFormat::Frames,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "format is text or frames, not {other:?}"
                )));
            }
        },
    })
}

pub(crate) async fn stats(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let q = Query::parse(raw.as_deref().unwrap_or_default())?;
    let follow = q.flag("stream")?;
    check_instance(&s, &ns, &name).await?;
    let samples = s.backend.stats(&ns, &name, q.get("container"), follow).await?;
    let lines = samples.map(|sample| sample.map(|s| long::encode(&s)));
    Ok(long::json_lines(Body::from_stream(lines)))
}

pub(crate) async fn signal(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let q = Query::parse(raw.as_deref().unwrap_or_default())?;
    let signal = q.number::<i32>("signal")?.filter(|n| (1..=64).contains(n));
    let signal = signal.ok_or_else(|| ApiError::bad_request("the query needs signal=, a number of 1 to 64"))?;
    check_instance(&s, &ns, &name).await?;
    s.backend.signal(&ns, &name, q.get("container"), signal).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_queries() {
        let q = |s: &str| log_query(&Query::parse(s).unwrap());
        let d = q("").unwrap();
        assert!(d.stdout && d.stderr && !d.follow && d.format == LogFormat::Text);
        assert_eq!(q("container=web").unwrap().container.as_deref(), Some("web"));
        let d = q("follow=true&tail=3&stderr=false&since=2026-01-01T00:00:00Z&format=frames").unwrap();
        assert!(d.follow && d.stdout && !d.stderr && d.tail == Some(3) && d.since.is_some());
        for bad in ["tail=x", "since=yesterday", "format=xml", "follow=maybe"] {
            assert!(q(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn bytes_after_the_first_frame_are_kept() {
        let mut bytes = Vec::new();
        Frame::json(FrameKind::Request, &shim::Request::Console).encode(&mut bytes);
        bytes.extend_from_slice(b"the rest");
        let mut rest = Vec::new();
        let frame = first_frame(&mut &bytes[..], &mut rest).await.unwrap().unwrap();
        assert_eq!(frame.kind, FrameKind::Request);
        assert_eq!(rest, b"the rest");
        assert!(
            first_frame(&mut &b"garbage and more"[..], &mut rest)
                .await
                .unwrap()
                .is_none()
        );
    }
}
