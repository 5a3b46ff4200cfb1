//! Any bytes after the head of a request that takes its connection over: attach, attach by WebSocket, exec.

use std::time::Duration;

use base64::Engine as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{PATIENCE, Served, served};

/// How the connection is taken over.
#[derive(Debug, Clone, Copy)]
enum Way {
    Attach,
    AttachKeys,
    WebSocket,
    OldWebSocket,
    Exec,
}

const WAYS: [Way; 5] = [
    Way::Attach,
    Way::AttachKeys,
    Way::WebSocket,
    Way::OldWebSocket,
    Way::Exec,
];

/// Pieces of what comes after the head: frames of a WebSocket, keys to leave by, and noise.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let frame =
        (any::<u8>(), 0u8..=127, any::<bool>(), vec(any::<u8>(), 0..40)).prop_map(|(first, len, true_len, data)| {
            let length = if true_len { data.len() as u8 } else { len };
            [&[first, 0x80 | length, 1, 2, 3, 4][..], &data].concat()
        });
    // One that says that it is huge.
    let huge = any::<u64>().prop_map(|n| [&[0x82, 0xff][..], &n.to_be_bytes(), &[0; 4]].concat());
    prop_oneof![
        4 => frame,
        1 => huge,
        2 => vec(any::<u8>(), 0..80),
        1 => Just(vec![16, 17]),
        1 => Just(vec![16, 16, 16, 17, 0, 255]),
    ]
}

fn head(way: Way, exec: &str) -> String {
    let plain = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let socket = |version: &str| {
        let key = base64::engine::general_purpose::STANDARD.encode([7; 16]);
        format!(
            "GET {version}/containers/one/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    };
    match way {
        Way::Attach => plain("/containers/one/attach?stream=1&stdin=1&stdout=1&stderr=1", ""),
        Way::AttachKeys => plain("/containers/one/attach?stream=1&stdin=1&stdout=1&detachKeys=a,b", ""),
        Way::WebSocket => socket("/v1.51"),
        Way::OldWebSocket => socket("/v1.24"),
        Way::Exec => plain(&format!("/exec/{exec}/start"), r#"{"Detach":false,"Tty":false}"#),
    }
}

async fn judge(s: &Served, way: Way, pieces: &[Vec<u8>], half: bool) -> Result<(), String> {
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Cmd": ["cat"]});
    let made = s.post("/containers/one/exec", body).await.must(201).json();
    let mut io = UnixStream::connect(s.socket()).await.map_err(|e| e.to_string())?;
    let head = head(way, made["Id"].as_str().unwrap());
    io.write_all(head.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut first = [0; 12];
    let read = tokio::time::timeout(PATIENCE, io.read_exact(&mut first)).await;
    read.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())?;
    if &first != b"HTTP/1.1 101" {
        return Err(format!("not taken over: {}", String::from_utf8_lossy(&first)));
    }
    for p in pieces {
        // It may be hung up on at any moment.
        if io.write_all(p).await.is_err() {
            break;
        }
    }
    if half {
        let _ = io.shutdown().await;
        let mut some = [0; 1024];
        let _ = tokio::time::timeout(Duration::from_millis(5), io.read(&mut some)).await;
    }
    drop(io);
    s.get("/containers/one/json").await.must(200);
    Ok(())
}

#[test]
fn no_bytes_on_a_connection_that_was_taken_over_break_anything() {
    let panics = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let usual = std::panic::take_hook();
    let counted = panics.clone();
    std::panic::set_hook(Box::new(move |info| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        usual(info);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let s = runtime.block_on(async {
        let s = served().await;
        let body = json!({"Image": "busybox", "Cmd": ["sleep"], "OpenStdin": true, "Tty": true});
        s.post("/containers/create?name=one", body).await.must(201);
        s.call("POST", "/containers/one/start", None).await.must(204);
        s
    });
    let asked = std::env::var("PROPTEST_CASES").ok();
    let config = ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(250),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let run = (select(&WAYS[..]), vec(piece(), 0..5), any::<bool>());
    let run = proptest::test_runner::TestRunner::new(config).run(&run, |(way, pieces, half)| {
        let judged = runtime.block_on(judge(&s, way, &pieces, half));
        let seen = panics.load(std::sync::atomic::Ordering::Relaxed);
        prop_assert_eq!(seen, 0, "a task panicked");
        judged.map_err(|why| TestCaseError::fail(format!("{way:?}: {why}")))
    });
    drop(std::panic::take_hook());
    if let Err(e) = run {
        panic!("{e}");
    }
}
