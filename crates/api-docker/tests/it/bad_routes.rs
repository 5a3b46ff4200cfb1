//! Each family of routes with names, bodies and types that make no sense: the reference's status codes, with a message.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, PATIENCE, Served, served};

/// Routes below a container, and what they are called with.
const OF_CONTAINERS: &[(&str, &str)] = &[
    ("GET", "/json"),
    ("GET", "/top"),
    ("GET", "/logs?stdout=1"),
    ("GET", "/changes"),
    ("GET", "/export"),
    ("GET", "/stats?stream=0"),
    ("GET", "/archive?path=/"),
    ("HEAD", "/archive?path=/"),
    ("PUT", "/archive?path=/"),
    ("GET", "/attach/ws?stream=1"),
    ("POST", "/resize?h=1&w=1"),
    ("POST", "/start"),
    ("POST", "/stop"),
    ("POST", "/restart"),
    ("POST", "/kill"),
    ("POST", "/update"),
    ("POST", "/rename?name=other"),
    ("POST", "/pause"),
    ("POST", "/unpause"),
    ("POST", "/attach?stream=1"),
    ("POST", "/wait"),
    ("POST", "/exec"),
    ("GET", "/checkpoints"),
    ("POST", "/checkpoints"),
    ("DELETE", "/checkpoints/one"),
    ("DELETE", ""),
];

/// The others: a name goes where `@` is.
const OF_OTHERS: &[(&str, &str)] = &[
    ("GET", "/images/@/json"),
    ("GET", "/images/@/history"),
    ("GET", "/images/@/get"),
    ("POST", "/images/@/tag?repo=x"),
    ("DELETE", "/images/@"),
    ("GET", "/images/get?names=@"),
    ("POST", "/exec/@/start"),
    ("POST", "/exec/@/resize?h=1&w=1"),
    ("GET", "/exec/@/json"),
    ("GET", "/networks/@"),
    ("DELETE", "/networks/@"),
    ("POST", "/networks/@/connect"),
    ("POST", "/networks/@/disconnect"),
    ("GET", "/volumes/@"),
    ("DELETE", "/volumes/@"),
    ("POST", "/commit?container=@"),
    ("GET", "/plugins/@/json"),
];

/// A body that a route takes, so that the name is what is wrong.
fn body_of(path: &str) -> Option<Value> {
    let ends = |w: &str| path.split('?').next().unwrap_or("").ends_with(w);
    if path.starts_with("/exec/") && ends("/start") {
        return Some(json!({"Detach": true}));
    }
    if path.starts_with("/containers/") && ends("/exec") {
        return Some(json!({"Cmd": ["true"]}));
    }
    if ends("/update") {
        return Some(json!({"Memory": 64 << 20}));
    }
    if ends("/checkpoints") {
        return Some(json!({"CheckpointID": "one"}));
    }
    (ends("/connect") || ends("/disconnect")).then(|| json!({"Container": "nobody"}))
}

async fn about(s: &Served, method: &str, path: &str) -> Answer {
    let mut r = Served::request(method, path, body_of(path));
    if path.contains("/attach/ws") {
        for (k, v) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            r.headers_mut().insert(k, v.parse().unwrap());
        }
    }
    s.send(r).await
}

fn every_route(name: &str) -> Vec<(&'static str, String)> {
    let containers = OF_CONTAINERS
        .iter()
        .map(|(m, p)| (*m, format!("/containers/{name}{p}")));
    let others = OF_OTHERS.iter().map(|(m, p)| (*m, p.replace('@', name)));
    containers.chain(others).collect()
}

#[tokio::test]
async fn what_is_missing_is_404_everywhere() {
    let s = served().await;
    for (method, path) in every_route("nonesuch") {
        let a = about(&s, method, &path).await;
        assert_eq!(a.status, 404, "{method} {path}: {}", a.text());
        if method != "HEAD" {
            assert!(a.message().contains("nonesuch"), "{method} {path}: {}", a.text());
        }
    }
    let word = |path: &'static str| {
        let s = &s;
        async move { s.get(path).await.must(404).message() }
    };
    assert_eq!(word("/containers/nonesuch/json").await, "No such container: nonesuch");
    assert_eq!(word("/images/nonesuch/json").await, "No such image: nonesuch:latest");
    assert_eq!(word("/exec/nonesuch/json").await, "No such exec instance: nonesuch");
    assert_eq!(word("/networks/nonesuch").await, "network nonesuch not found");
    assert_eq!(word("/volumes/nonesuch").await, "get nonesuch: no such volume");
}

#[tokio::test]
async fn hostile_names_find_nothing_and_break_nothing() {
    let s = served().await;
    s.create("real", &["true"]).await;
    let long = "a".repeat(5000);
    let id = "f".repeat(65);
    let names = [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "a%00b",
        "a%0d%0aX-Header:%20b",
        "%f0%9f%90%8b",
        "%ff%fe",
        "%7B%7B.%7D%7D",
        "a%20b%20--rm",
        "';drop%20table%20x;--",
        "-",
        "%25s%25n",
        "sha256:",
        "sha256:zz",
        "REAL",
        &long,
        &id,
    ];
    for name in names {
        for (method, path) in every_route(name) {
            let a = about(&s, method, &path).await;
            let status = a.status.as_u16();
            let what = format!("{method} {}", &path[..path.len().min(100)]);
            assert!(matches!(status, 400 | 404 | 405 | 409), "{what}: {status} {}", a.text());
            if method != "HEAD" {
                assert!(!a.message().is_empty(), "{what}");
            }
        }
    }
    s.get("/containers/real/json").await.must(200);
}

#[tokio::test]
async fn beginnings_of_ids_that_fit_several_are_refused() {
    let s = served().await;
    let mut ids = Vec::new();
    // With seventeen, two begin with the same digit.
    for i in 0..17 {
        ids.push(s.create(&format!("name{i}"), &["true"]).await);
    }
    let shared = ids
        .iter()
        .map(|id| &id[..1])
        .find(|d| ids.iter().filter(|i| i.starts_with(d)).count() > 1)
        .unwrap();
    for (method, path) in [
        ("GET", "json"),
        ("POST", "start"),
        ("POST", "kill"),
        ("POST", "wait"),
        ("GET", "logs?stdout=1"),
    ] {
        let a = s.call(method, &format!("/containers/{shared}/{path}"), None).await;
        let text = a.must(400).message();
        assert!(text.to_lowercase().contains("multiple ids found"), "{text}");
    }
    s.call("DELETE", &format!("/containers/{shared}"), None).await.must(400);
    for len in [12, 63, 64] {
        let doc = s
            .get(&format!("/containers/{}/json", &ids[3][..len]))
            .await
            .must(200)
            .json();
        assert_eq!(doc["Id"], json!(ids[3]));
    }
    // A name comes before the beginning of an id.
    let beginning = &ids[0][..2];
    let named = s.create(beginning, &["true"]).await;
    let doc = s.get(&format!("/containers/{beginning}/json")).await.must(200).json();
    assert_eq!(doc["Id"], json!(named));
}

const BODIES: &[&str] = &[
    "/containers/create",
    "/containers/real/update",
    "/containers/real/exec",
    "/networks/create",
    "/networks/bridge/connect",
    "/networks/bridge/disconnect",
    "/volumes/create",
    "/auth",
];

#[tokio::test]
async fn bodies_that_are_none_are_400_everywhere() {
    let s = served().await;
    s.run("real", &["sleep"]).await;
    let raw = async |path: &str, kind: &str, body: Vec<u8>| {
        let r = Request::post(path)
            .header("host", "d")
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        s.send(r).await
    };
    let json = "application/json";
    for path in BODIES {
        for body in [
            "{",
            "nonsense",
            "[]",
            "\"text\"",
            "{} trailing",
            "{\"a\":1}{\"b\":2}",
            "\u{feff}{}",
            "{\"Labels\": 7, \"Name\": 7, \"Container\": 7, \"Memory\": \"x\", \"Cmd\": 7, \"username\": 7}",
        ] {
            let a = raw(path, json, body.into()).await;
            assert_eq!(a.status, 400, "{path} {body}: {}", a.text());
            assert!(!a.message().is_empty());
        }
        let a = raw(path, json, b"{\"Name\": \"\xff\xfe\", \"username\": \"\xff\"}".to_vec()).await;
        assert_eq!(a.status, 400, "{path}: {}", a.text());
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/xml",
            "nonsense",
        ] {
            let a = raw(path, kind, b"{}".to_vec()).await;
            assert_eq!(a.status, 400, "{path} {kind}: {}", a.text());
        }
        assert_eq!(raw(path, json, vec![b' '; 5 << 20]).await.status, 413, "{path}");
        let nested = [b"{\"a\":".repeat(5000), b"1".to_vec(), b"}".repeat(5000)].concat();
        let deep = [b"{\"username\":".to_vec(), nested, b"}".to_vec()].concat();
        assert_eq!(raw(path, json, deep).await.status, 400, "{path}");
    }
    // With a charset it is still JSON.
    let made = raw(
        "/volumes/create",
        "application/json; charset=utf-8",
        b"{\"Name\": \"vol\"}".to_vec(),
    )
    .await;
    made.must(201);
    s.get("/containers/real/json").await.must(200);
}

#[tokio::test]
async fn queries_that_make_no_sense_are_400() {
    let s = served().await;
    s.run("real", &["sleep"]).await;
    let filters = |json: &str| {
        format!(
            "filters={}",
            json.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")
        )
    };
    for path in ["/containers/json", "/images/json", "/networks", "/volumes", "/events"] {
        for bad in [
            "nonsense",
            "{\"label\":7}",
            "[\"label\"]",
            "{\"label\":[7]}",
            "{\"nonesuch\":[\"x\"]}",
        ] {
            let a = s.get(&format!("{path}?{}&until=1", filters(bad))).await;
            // Docker takes any key for events.
            let lenient = path == "/events" && bad.contains("nonesuch");
            let wanted: &[u16] = if lenient { &[200, 400] } else { &[400] };
            assert!(
                wanted.contains(&a.status.as_u16()),
                "{path} {bad}: {} {}",
                a.status,
                a.text()
            );
        }
    }
    for path in [
        "/containers/prune",
        "/images/prune",
        "/networks/prune",
        "/volumes/prune",
    ] {
        for bad in ["nonsense", "{\"nonesuch\":[\"x\"]}"] {
            s.call("POST", &format!("{path}?{}", filters(bad)), None)
                .await
                .must(400);
        }
    }
    s.call(
        "POST",
        &format!("/containers/prune?{}", filters("{\"until\":[\"never\"]}")),
        None,
    )
    .await
    .must(400);
    for (method, path) in [
        ("GET", "/containers/json?limit=many"),
        ("GET", "/containers/real/logs"),
        ("GET", "/containers/real/logs?stdout=1&since=x"),
        ("GET", "/containers/real/logs?stdout=1&until=x"),
        ("POST", "/containers/real/resize?h=-1&w=1"),
        ("POST", "/containers/real/resize?h=1"),
        ("POST", "/containers/real/wait?condition=someday"),
        ("POST", "/containers/real/kill?signal=NONE"),
        ("POST", "/containers/real/kill?signal=999"),
        ("POST", "/containers/real/stop?t=soon"),
        ("POST", "/containers/real/restart?t=soon"),
        ("POST", "/containers/real/rename"),
        ("POST", "/containers/real/rename?name=a/b"),
        ("POST", "/containers/real/attach?stream=1&detachKeys=nonsense"),
        ("GET", "/containers/real/archive"),
        ("PUT", "/containers/real/archive"),
        ("POST", "/images/create"),
        ("POST", "/images/create?fromImage=busyBOX"),
        ("POST", "/images/busybox/tag"),
        ("POST", "/images/busybox/tag?repo=UPPER"),
        ("POST", "/images/busybox/tag?repo=x&tag=no%20tag"),
        ("GET", "/events?since=never"),
        ("GET", "/events?since=5&until=never"),
        ("POST", "/build?buildargs=nonsense"),
        ("POST", "/build?labels=nonsense"),
        ("POST", "/build?ulimits=nonsense"),
    ] {
        let a = s.call(method, path, None).await;
        assert_eq!(a.status, 400, "{method} {path}: {}", a.text());
        assert!(!a.message().is_empty());
    }
}

#[tokio::test]
async fn pages_and_methods_that_are_not_there_are_404() {
    let s = served().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1.44"),
        ("GET", "/v1.44/"),
        ("GET", "/v1/info"),
        ("GET", "/vx.y/info"),
        ("GET", "/containers"),
        ("GET", "/containers/"),
        ("GET", "/containers/a/nonesuch"),
        ("GET", "/containers/a/json/more"),
        ("POST", "/containers/json"),
        ("PUT", "/containers/create"),
        ("DELETE", "/volumes"),
        ("PATCH", "/networks/a"),
        ("OPTIONS", "/info"),
        ("TRACE", "/info"),
        ("BREW", "/info"),
        ("GET", "/nonesuch?x=y"),
        ("GET", "/info/"),
        ("GET", "//info"),
    ] {
        let a = s.call(method, path, None).await;
        assert_eq!(a.status, 404, "{method} {path}: {}", a.text());
        assert_eq!(a.message(), "page not found", "{method} {path}");
    }
    s.get("/v1.23/info").await.must(400);
    s.get("/v1.999/info").await.must(400);
    s.get("/v2.0/info").await.must(400);
}

/// A body that a route has no use for, and that comes after its head, leaves the connection to the next request.
#[tokio::test]
async fn unwanted_bodies_leave_the_connection() {
    let s = served().await;
    s.run("real", &["sleep"]).await;
    let mut io = tokio::net::UnixStream::connect(s.socket()).await.unwrap();
    for path in [
        "/containers/nonesuch/kill",
        "/nonesuch",
        "/containers/real/pause",
        "/containers/real/unpause",
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n");
        io.write_all(head.as_bytes()).await.unwrap();
        // Long enough for an answer, if it did not wait for the body.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        io.write_all(b"{}").await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
            let read = tokio::time::timeout(PATIENCE, io.read_buf(&mut answer));
            assert_ne!(
                read.await.expect("an answer").unwrap(),
                0,
                "{path}: the connection ended"
            );
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let length = text
            .split("content-length: ")
            .nth(1)
            .and_then(|t| t.lines().next()?.parse().ok());
        let wanted = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4 + length.unwrap_or(0);
        while answer.len() < wanted {
            assert_ne!(
                io.read_buf(&mut answer).await.unwrap(),
                0,
                "{path}: the connection ended"
            );
        }
        assert!(!text.contains("connection: close"), "{text}");
    }
}

/// What is no HTTP ends its own connection and nothing else.
#[tokio::test]
async fn what_is_no_http_ends_its_connection() {
    let s = served().await;
    let huge = format!("GET /info HTTP/1.1\r\nHost: d\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /info HTTP/1.1\r\nHost: d\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let line = format!("GET /{} HTTP/1.1\r\nHost: d\r\n\r\n", "a".repeat(1 << 20));
    for bytes in [
        "\0\0\0\0\r\n\r\n".as_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /info\r\n\r\n",
        b"GET /info HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: -5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}",
        huge.as_bytes(),
        many.as_bytes(),
        line.as_bytes(),
    ] {
        let mut io = tokio::net::UnixStream::connect(s.socket()).await.unwrap();
        // It may be closed before all of it is written.
        let _ = io.write_all(bytes).await;
        let _ = io.shutdown().await;
        let mut answer = Vec::new();
        let read = io.read_to_end(&mut answer);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
            "{answer}"
        );
    }
    s.get("/_ping").await.must(200);
}
