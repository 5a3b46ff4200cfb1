//! Single calls.

use biga_client::{DeleteParams, ErrorKind, ListParams, Patch, StreamError};
use biga_model::{Object, Volume, VolumeSpec};
use biga_wire::shim::{ErrorCode, Reply, Request};
use biga_wire::{Frame, FrameKind};
use serde_json::json;

use crate::script::{Script, json as answer, lines};

#[tokio::test]
async fn pages_are_joined() {
    let item = |n: &str| json!({"apiVersion": "biga.dev/v1", "kind": "Volume", "metadata": {"name": n}});
    let s = Script::play(vec![
        answer(
            200,
            &json!({"metadata": {"resourceVersion": "7", "continue": "t 1"}, "items": [item("a")]}),
        ),
        answer(
            200,
            &json!({"metadata": {"resourceVersion": "7"}, "items": [item("b")]}),
        ),
    ]);
    let all = s
        .client()
        .api::<Volume>("lab")
        .list(&ListParams::default())
        .await
        .unwrap();
    let names: Vec<&str> = all.items.iter().map(|o| o.name()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        s.seen(),
        [
            "GET /apis/biga.dev/v1/namespaces/lab/volumes HTTP/1.1",
            "GET /apis/biga.dev/v1/namespaces/lab/volumes?continue=t%201 HTTP/1.1"
        ]
    );
}

#[tokio::test]
async fn errors_carry_their_kind() {
    let status = |code: u16, reason: &str| {
        answer(
            code,
            &json!({"kind": "Status", "reason": reason, "code": code, "message": "no"}),
        )
    };
    let s = Script::play(vec![
        status(404, "NotFound"),
        status(404, "NotFound"),
        status(409, "AlreadyExists"),
        status(409, "Conflict"),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"a\":".into(),
        "not http at all\r\n\r\n".into(),
    ]);
    let api = s.client().api::<Volume>("default");
    assert_eq!(api.get("x").await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(api.get_opt("x").await.unwrap(), None);
    let o = Object::<Volume>::new("x", VolumeSpec::default());
    assert_eq!(api.create(&o).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    let patch = Patch::Merge(json!({}));
    assert_eq!(api.patch("x", &patch).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(api.get("x").await.unwrap_err().kind, ErrorKind::Protocol);
    assert_eq!(api.get("x").await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn deletion_tells_gone_from_going() {
    let going = json!({"apiVersion": "biga.dev/v1", "kind": "Volume", "metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let s = Script::play(vec![
        answer(200, &going),
        answer(200, &json!({"kind": "Status", "status": "Success"})),
    ]);
    let api = s.client().api::<Volume>("default");
    let left = api.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(left.is_some_and(|o| o.is_deleting()));
    assert_eq!(api.delete("x", &DeleteParams::now()).await.unwrap(), None);
}

#[tokio::test]
async fn long_calls_give_progress_and_their_last_line() {
    let progress = json!({"progress": {"action": "uploading", "done": 1, "total": 2}});
    let s = Script::play(vec![
        lines(&[progress.clone(), json!({"result": {"removed": ["a"], "freedBytes": 5}})]),
        lines(&[json!({"error": {"kind": "Status", "reason": "NotFound", "code": 404, "message": "no such image"}})]),
        lines(&[progress]),
    ]);
    let c = s.client();
    let mut steps = 0;
    let r = c.prune(|_| steps += 1).await.unwrap();
    assert_eq!((steps, r.freed_bytes), (1, 5));
    assert_eq!(c.prune(|_| {}).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(c.prune(|_| {}).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_stream_that_is_refused_says_why() {
    let reply = Reply::Error {
        code: ErrorCode::NotExecutable,
        message: "is a directory".into(),
    };
    let mut bytes = Vec::new();
    Frame::json(FrameKind::Reply, &reply).encode(&mut bytes);
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: biga-stream\r\n\r\n";
    let upgraded = format!("{head}{}", String::from_utf8(bytes).unwrap());
    let missing = answer(
        404,
        &json!({"kind": "Status", "reason": "NotFound", "code": 404, "message": "no"}),
    );
    let s = Script::play(vec![upgraded, missing]);
    let open = || async {
        s.client()
            .open_stream("default", "x", "attach", &Request::Attach { stdin: true })
            .await
    };
    let e = open().await.unwrap_err();
    assert!(
        matches!(
            &e,
            StreamError::Refused {
                code: ErrorCode::NotExecutable,
                ..
            }
        ),
        "{e:?}"
    );
    let e = open().await.unwrap_err();
    assert!(matches!(&e, StreamError::Api(e) if e.is_not_found()), "{e:?}");
    assert_eq!(
        s.seen()[0],
        "POST /apis/biga.dev/v1/namespaces/default/instances/x/attach HTTP/1.1"
    );
}

/// Calls that can be made twice go over the connection of the one before; where the daemon closed that, over a new one.
#[tokio::test]
async fn connections_are_used_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let volume = |n: &str| {
        answer(
            200,
            &json!({"apiVersion": "biga.dev/v1", "kind": "Volume", "metadata": {"name": n}}),
        )
    };
    // How many requests each connection answers before it is closed.
    let server = tokio::spawn(async move {
        let mut methods = Vec::new();
        for (connection, requests) in [2, 1, 1].into_iter().enumerate() {
            let (mut c, _) = listener.accept().await.unwrap();
            for _ in 0..requests {
                let mut b = [0; 4096];
                let n = c.read(&mut b).await.unwrap();
                let method = String::from_utf8_lossy(&b[..n]).split(' ').next().unwrap().to_string();
                methods.push((connection, method));
                c.write_all(volume("x").as_bytes()).await.unwrap();
            }
        }
        methods
    });
    let client = biga_client::Client::new(biga_client::Endpoint::Unix(socket));
    let api = client.api::<Volume>("default");
    for _ in 0..3 {
        assert_eq!(api.get("x").await.unwrap().name(), "x");
    }
    // What changes something is sent once, so not on a connection that may be closed.
    let o = Object::<Volume>::new("x", VolumeSpec::default());
    assert_eq!(api.create(&o).await.unwrap().name(), "x");
    let made: Vec<(usize, String)> = server.await.unwrap();
    let made: Vec<(usize, &str)> = made.iter().map(|(c, m)| (*c, m.as_str())).collect();
    assert_eq!(made, [(0, "GET"), (0, "GET"), (1, "GET"), (2, "POST")]);
}
