//! Any method, path, query, header and body: no request may bring the API down, and every refusal is one that Docker's
//! clients can read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use biga_api_docker::{DockerApi, NodeInfo, router};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::node::Node;
use crate::support::PATIENCE;

/// Answers by status, so that it is seen whether the requests reach anything.
static ANSWERS: Mutex<BTreeMap<u16, usize>> = Mutex::new(BTreeMap::new());
/// Panics of any task, not only of the handlers.
static PANICS: AtomicUsize = AtomicUsize::new(0);

const PATHS: &[&str] = &[
    "/_ping",
    "/version",
    "/info",
    "/events",
    "/system/df",
    "/auth",
    "/containers/json",
    "/containers/create",
    "/containers/prune",
    "/containers/{}",
    "/containers/{}/json",
    "/containers/{}/start",
    "/containers/{}/stop",
    "/containers/{}/restart",
    "/containers/{}/kill",
    "/containers/{}/pause",
    "/containers/{}/unpause",
    "/containers/{}/wait",
    "/containers/{}/update",
    "/containers/{}/resize",
    "/containers/{}/attach",
    "/containers/{}/attach/ws",
    "/containers/{}/logs",
    "/containers/{}/top",
    "/containers/{}/stats",
    "/containers/{}/rename",
    "/containers/{}/changes",
    "/containers/{}/export",
    "/containers/{}/archive",
    "/containers/{}/checkpoints",
    "/containers/{}/checkpoints/{}",
    "/containers/{}/{}",
    "/containers/{}/exec",
    "/commit",
    "/exec/{}/start",
    "/exec/{}/resize",
    "/exec/{}/json",
    "/images/json",
    "/images/create",
    "/images/load",
    "/images/get",
    "/images/prune",
    "/images/search",
    "/images/{}/json",
    "/images/{}/history",
    "/images/{}/get",
    "/images/{}/tag",
    "/images/{}/push",
    "/images/{}",
    "/distribution/{}/json",
    "/networks",
    "/networks/create",
    "/networks/prune",
    "/networks/{}",
    "/networks/{}/connect",
    "/networks/{}/disconnect",
    "/volumes",
    "/volumes/create",
    "/volumes/prune",
    "/volumes/{}",
    "/swarm",
    "/swarm/init",
    "/nodes",
    "/nodes/{}",
    "/services",
    "/secrets/{}",
    "/configs",
    "/tasks",
    "/plugins",
    "/plugins/{}/json",
    "/build",
    "/build/prune",
    "/session",
    "/grpc",
];

/// Names, ids and beginnings of both; and what was never meant to be one.
const WORDS: &[&str] = &[
    "one",
    "two",
    "busybox",
    "busybox:latest",
    "default",
    "bridge",
    "host",
    "none",
    "data",
    "a",
    "ab",
    "0",
    "00",
    "f",
    "deadbeef",
    "sha256:00",
    "sha256:",
    "sha256:zz",
    "..",
    "%2e%2e",
    "%2F",
    "..%2F..%2Fetc%2Fpasswd",
    "%00",
    "a%00b",
    "%ff%fe",
    "%",
    "%zz",
    "-x",
    "_",
    ".",
    "%20",
    "%0d%0aX-Y:%20z",
    "%F0%9F%90%8B",
    "host:99999/x",
    "@",
    ":",
    "a@b",
    "//",
    "registry.example:5000/a/b/c:tag@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "'\"%3C%3E;$(id)",
    "{}",
    "*",
    "?",
];

const KEYS: &[&str] = &[
    "all",
    "filters",
    "limit",
    "since",
    "until",
    "before",
    "size",
    "name",
    "platform",
    "t",
    "signal",
    "condition",
    "v",
    "force",
    "link",
    "h",
    "w",
    "stream",
    "stdin",
    "stdout",
    "stderr",
    "logs",
    "detachKeys",
    "tail",
    "timestamps",
    "details",
    "one-shot",
    "ps_args",
    "path",
    "noOverwriteDirNonDir",
    "copyUIDGID",
    "container",
    "repo",
    "tag",
    "comment",
    "author",
    "pause",
    "changes",
    "fromImage",
    "fromSrc",
    "message",
    "names",
    "term",
    "dangling",
    "verbose",
    "type",
    "digests",
    "manifests",
    "shared-size",
    "quiet",
];

const VALUES: &[&str] = &[
    "",
    "1",
    "0",
    "true",
    "false",
    "-1",
    "99999999999999999999",
    "9223372036854775807",
    "1.5",
    "NaN",
    "all",
    "busybox",
    "one",
    "2006-01-02T15:04:05Z",
    "1136073845.000000001",
    "{}",
    "[]",
    "null",
    "{\"status\":[\"running\"]}",
    "{\"label\":[\"a=b\"]}",
    "{\"id\":{\"x\":true}}",
    "{\"until\":[\"10m\"]}",
    "{\"until\":[\"-1e999s\"]}",
    "{\"since\":[\"one\"]}",
    "{\"before\":[\"none\"]}",
    "{\"reference\":[\"***************a\"]}",
    "{\"a\":1}",
    "[[[[",
    "SIGKILL",
    "SIGRTMAX+99",
    "removed",
    "ctrl-p,ctrl-q",
    "ctrl-",
    "../../etc",
    "/",
    "\u{0}",
    "%2525",
    "\u{10ffff}",
    "linux/amd64",
    "a/b/c/d",
    "-",
    "http://127.0.0.1:1/x",
    "CMD []",
    "container",
];

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        select(vec![0i64, 1, -1, 65535, 65536, i64::MAX, i64::MIN]).prop_map(Value::from),
        select(VALUES).prop_map(Value::from),
        select(WORDS).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!(1e300)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((select(FIELDS), inner), 0..4).prop_map(|l| l.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        ]
    })
}

const FIELDS: &[&str] = &[
    "Image",
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "HostConfig",
    "NetworkingConfig",
    "EndpointsConfig",
    "bridge",
    "IPAMConfig",
    "IPv4Address",
    "Aliases",
    "Links",
    "Healthcheck",
    "Test",
    "Interval",
    "StopTimeout",
    "StopSignal",
    "User",
    "WorkingDir",
    "Hostname",
    "Tty",
    "OpenStdin",
    "AttachStdin",
    "Binds",
    "PortBindings",
    "80/tcp",
    "HostIp",
    "HostPort",
    "Memory",
    "MemorySwap",
    "NanoCpus",
    "CpuQuota",
    "PidsLimit",
    "Mounts",
    "Type",
    "Source",
    "Target",
    "ReadOnly",
    "BindOptions",
    "VolumeOptions",
    "TmpfsOptions",
    "Propagation",
    "Ulimits",
    "Name",
    "Soft",
    "Hard",
    "Devices",
    "PathOnHost",
    "SecurityOpt",
    "Sysctls",
    "Tmpfs",
    "/tmp",
    "RestartPolicy",
    "MaximumRetryCount",
    "LogConfig",
    "Config",
    "VolumesFrom",
    "NetworkMode",
    "PidMode",
    "IpcMode",
    "UsernsMode",
    "Runtime",
    "Isolation",
    "DeviceRequests",
    "StorageOpt",
    "ShmSize",
    "Driver",
    "DriverOpts",
    "Options",
    "IPAM",
    "Subnet",
    "Gateway",
    "Internal",
    "EnableIPv6",
    "Container",
    "EndpointConfig",
    "Force",
    "Detach",
    "DetachKeys",
    "ConsoleSize",
    "username",
    "password",
    "serveraddress",
];

fn body() -> impl Strategy<Value = Vec<u8>> {
    let broken = (document(), any::<u16>()).prop_map(|(d, at)| {
        let mut text = d.to_string().into_bytes();
        text.truncate(usize::from(at) % (text.len() + 1));
        text
    });
    let create = document().prop_map(|d| {
        let mut all = json!({"Image": "busybox", "Cmd": ["sleep"]});
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), d) {
            all.extend(more);
        }
        all.to_string().into_bytes()
    });
    prop_oneof![
        Just(Vec::new()),
        document().prop_map(|d| d.to_string().into_bytes()),
        create,
        broken,
        vec(any::<u8>(), 0..64),
        (1usize..3000).prop_map(|n| "[".repeat(n).into_bytes()),
    ]
}

#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fn path() -> impl Strategy<Value = String> {
    let version = option::of(prop_oneof![select(vec![
        "/v1.51",
        "/v1.24",
        "/v1.99",
        "/v1.1",
        "/v",
        "/v1.x",
        "/v99999999999.1",
        "/v1.51/v1.51"
    ])]);
    let known = (select(PATHS), vec(select(WORDS), 2))
        .prop_map(|(p, words)| words.iter().fold(p.to_string(), |p, w| p.replacen("{}", w, 1)));
    let any = prop_oneof![8 => known, 1 => "(/[!-~&&[^#? ]]{0,9}){1,5}", 1 => vec(select(WORDS), 1..6).prop_map(|w| format!("/{}", w.join("/")))];
    (version, any).prop_map(|(v, p)| format!("{}{p}", v.unwrap_or("")))
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = select(vec![
        "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW",
    ]);
    let query = vec((select(KEYS), select(VALUES)), 0..4);
    let value = prop_oneof![
        select(vec![
            "application/json",
            "application/json; charset=utf-8",
            "text/plain",
            "application/x-tar",
            "Upgrade",
            "tcp",
            "websocket",
            "h2c",
            "e30=",
            "eyJ1c2VybmFtZSI6InUifQ==",
            "???",
            "bnVsbA==",
        ])
        .prop_map(|v: &str| v.as_bytes().to_vec()),
        vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..20),
    ];
    let name = select(vec![
        "content-type",
        "x-registry-auth",
        "x-registry-config",
        "connection",
        "upgrade",
        "accept",
        "sec-websocket-key",
        "sec-websocket-version",
        "user-agent",
        "x-meta-y",
    ]);
    (method, path(), query, vec((name, value), 0..4), body()).prop_map(|(method, path, query, headers, body)| {
        let query: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
        Asked {
            method: method.parse().unwrap(),
            uri: if query.is_empty() {
                path
            } else {
                format!("{path}?{}", query.join("&"))
            },
            headers: headers.into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
            body,
        }
    })
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._%".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

impl Asked {
    /// `None` where the words make no HTTP request at all.
    fn request(&self) -> Option<Request<Body>> {
        let mut r = Request::builder().method(self.method.clone()).uri(&self.uri);
        for (k, v) in &self.headers {
            r = r.header(HeaderName::try_from(k).ok()?, HeaderValue::from_bytes(v).ok()?);
        }
        // Most clients say what they send.
        if !self.headers.iter().any(|(k, _)| k == "content-type") {
            r = r.header(header::CONTENT_TYPE, "application/json");
        }
        r.body(Body::from(self.body.clone())).ok()
    }
}

/// Sends it; what is wrong with the answer.
async fn judge(router: axum::Router, asked: &Asked) -> Result<(), String> {
    let Some(request) = asked.request() else { return Ok(()) };
    let answered = tokio::time::timeout(PATIENCE, router.oneshot(request)).await;
    let answer = answered.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())?;
    let status = answer.status();
    *ANSWERS.lock().unwrap().entry(status.as_u16()).or_default() += 1;
    if PANICS.load(Ordering::Relaxed) > 0 {
        return Err(format!("a task panicked; the answer was {status}"));
    }
    if status.as_u16() < 400 || asked.method == Method::HEAD {
        // A stream may never end: its first piece is looked at, and it is let go.
        let mut body = answer.into_body();
        let _ = tokio::time::timeout(Duration::from_millis(5), http_body_util::BodyExt::frame(&mut body)).await;
        return Ok(());
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20)
        .await
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let json: Value = serde_json::from_slice(&bytes).map_err(|e| format!("{status}: {e}: {text:?}"))?;
    if kind.as_ref().map(HeaderValue::as_bytes) != Some(b"application/json") {
        return Err(format!("{status} of type {kind:?}: {text}"));
    }
    if json["message"].as_str().is_none_or(str::is_empty) {
        return Err(format!("{status} without a message: {text}"));
    }
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        return Err(format!("a request brought about an internal error: {text}"));
    }
    Ok(())
}

#[test]
fn no_request_brings_the_api_down() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (node, router) = runtime.block_on(async {
        let node = Node::start().await;
        let api = DockerApi::new(
            node.store.clone(),
            std::sync::Arc::new(node.clone()),
            NodeInfo::default(),
            biga_store::SpecWriter::new(node.store.clone()),
        );
        let router = router(api);
        for name in ["one", "two"] {
            let body = json!({"Image": "busybox", "Cmd": ["sleep"], "OpenStdin": true}).to_string();
            let r = Request::post(format!("/containers/create?name={name}"))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .unwrap();
            assert_eq!(router.clone().oneshot(r).await.unwrap().status(), 201);
        }
        (node, router)
    });
    let config = ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let run = runner.run(&asked(), |asked| {
        let judged = runtime.block_on(judge(router.clone(), &asked));
        judged.map_err(|why| TestCaseError::fail(format!("{} {}: {why}", asked.method, asked.uri)))
    });
    drop(std::panic::take_hook());
    if let Err(e) = run {
        panic!("{e}");
    }
    // After all that it still serves.
    let alive = runtime.block_on(async {
        let r = Request::get("/containers/json?all=1").body(Body::empty()).unwrap();
        router.oneshot(r).await.unwrap().status()
    });
    assert_eq!((alive, PANICS.load(Ordering::Relaxed)), (StatusCode::OK, 0));
    drop(node);
    let answers = ANSWERS.lock().unwrap();
    println!("{answers:?}");
    let all: usize = answers.values().sum();
    assert!(all * 2 > cases() as usize, "most are requests at all: {answers:?}");
    for status in [200, 400, 404, 501] {
        assert!(answers.contains_key(&status), "{status}: {answers:?}");
    }
}

/// So many requests; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(3000)
}
