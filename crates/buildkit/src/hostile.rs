//! Any bytes on an upgraded connection, any message of a call: the builder answers or hangs up, and serves the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use biga_wire::http::PruneResult;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::engine::{Building, ByteStream, Engine, Fault, FaultKind, Form, Source};
use crate::proto::control::{Exporter, UsageRecord};
use crate::{About, BuildKit, attrs};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A builder that reads contexts and builds nothing.
struct Nothing;

fn nothing() -> Fault {
    Fault::new(FaultKind::Failed, "nothing is built here")
}

#[async_trait]
impl Engine for Nothing {
    async fn prepare(&self, _source: Source) -> Result<Box<dyn Building>, Fault> {
        Err(nothing())
    }
    async fn export(&self, _image: &str, _names: &[String], _form: Form) -> Result<ByteStream, Fault> {
        Err(nothing())
    }
    async fn usage(&self) -> Result<Vec<UsageRecord>, Fault> {
        Ok(Vec::new())
    }
    async fn prune(&self, _all: bool) -> Result<PruneResult, Fault> {
        Ok(PruneResult::default())
    }
}

const CALLS: &[&str] = &[
    "/moby.buildkit.v1.Control/Solve",
    "/moby.buildkit.v1.Control/Status",
    "/moby.buildkit.v1.Control/ListWorkers",
    "/moby.buildkit.v1.Control/DiskUsage",
    "/moby.buildkit.v1.Control/Prune",
    "/moby.buildkit.v1.frontend.LLBBridge/Ping",
    "/moby.buildkit.v1.frontend.LLBBridge/Solve",
    "/moby.buildkit.v1.frontend.LLBBridge/Return",
    "/grpc.health.v1.Health/Check",
    "/a/b",
    "/",
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fields of a message: tags, lengths and numbers that are mostly true to themselves.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        vec(any::<u8>(), 0..12),
        select(vec!["x", "dockerfile.v0", "gateway.v0", "docker", "\n\x01a\x12\x01b"]).prop_map(|t: &str| t.into()),
    ];
    let field = (1u8..15, 0u8..6, text).prop_map(|(tag, kind, mut bytes)| {
        let mut field = vec![tag << 3 | kind];
        if kind == 2 {
            field.push(bytes.len() as u8);
        }
        field.append(&mut bytes);
        field
    });
    let spoiled = vec(any::<u8>(), 0..60);
    prop_oneof![4 => vec(field, 0..6).prop_map(|f| f.concat()), 1 => spoiled]
}

fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

/// One call of a client that speaks HTTP/2; `None` where it was hung up on, or waits: for a session that is about to begin, say.
async fn call(kit: &BuildKit, path: &str, body: Vec<u8>) -> Option<http::StatusCode> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn({
        let kit = kit.clone();
        async move { kit.serve(theirs).await }
    });
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(ours));
    let (mut client, connection) = handshake.await.ok()?;
    let connection = tokio::spawn(connection);
    let body = tonic::body::Body::new(framed(body));
    let request = Request::post(format!("http://builder{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(20), client.send_request(request)).await;
    let status = answer.ok().and_then(|a| Some(a.ok()?.status()));
    connection.abort();
    assert!(
        !matches!(serving.await, Err(e) if e.is_panic()),
        "{path} made the builder panic"
    );
    status
}

/// A message in gRPC's frame.
fn framed(message: Vec<u8>) -> http_body_util::Full<bytes::Bytes> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    http_body_util::Full::new(bytes::Bytes::from(frame))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_on_a_connection(bytes in vec(any::<u8>(), 0..200), preface in any::<bool>(), session in any::<bool>()) {
        within(async {
            let kit = BuildKit::new(Arc::new(Nothing), About::default());
            let (mut ours, theirs) = tokio::io::duplex(64 << 10);
            let serving = tokio::spawn({
                let kit = kit.clone();
                async move {
                    match session {
                        false => kit.serve(theirs).await,
                        true => {
                            let mut headers = http::HeaderMap::new();
                            headers.insert("x-docker-expose-session-uuid", "one".parse().unwrap());
                            kit.hold(&headers, theirs).await;
                        }
                    }
                }
            });
            if preface {
                let _ = ours.write_all(PREFACE).await;
            }
            let _ = ours.write_all(&bytes).await;
            let _ = ours.shutdown().await;
            let mut answer = Vec::new();
            let _ = ours.read_to_end(&mut answer).await;
            drop(ours);
            serving.await.expect("no panic");
            let health = call(&kit, "/grpc.health.v1.Health/Check", Vec::new()).await;
            assert!(health.is_none_or(|s| s == http::StatusCode::OK), "{health:?}");
        });
    }

    #[test]
    fn any_message_of_any_call(path in select(CALLS), bytes in message()) {
        within(async {
            let kit = BuildKit::new(Arc::new(Nothing), About::default());
            let status = call(&kit, path, bytes).await;
            // What is wrong is in gRPC's own status.
            assert!(status.is_none_or(|s| s == http::StatusCode::OK), "{path}: {status:?}");
        });
    }

    #[test]
    fn any_attributes(
        all in vec((select(vec!["filename", "target", "platform", "ulimit", "shm-size", "add-hosts", "no-cache", "context:a",
            "build-arg:", ":", "label:x", "context", "contextkey", "multi-platform", "cgroup-parent", "attest:x"]), ".{0,12}"), 0..6),
        kind in select(vec!["", "local", "tar", "docker", "oci", "moby", "odd"]),
        value in ".{0,12}",
    ) {
        let all: HashMap<String, String> = all.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let _ = attrs::request(&all, &[]);
        let attrs = [("name", &value), ("tar", &value), ("push-by-digest", &value)];
        let exporter = Exporter {
            kind: kind.into(),
            attrs: attrs.map(|(k, v)| (k.to_string(), v.clone())).into(),
        };
        let _ = attrs::export(&[exporter]);
    }
}
