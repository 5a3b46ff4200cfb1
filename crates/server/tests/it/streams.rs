//! The streaming path against a fake node.

use std::time::Duration;

use base64::Engine;
use biga_model::{AGENT_FINALIZER, Instance, InstanceStatus, Phase};
use biga_store::StatusWriter;
use biga_wire::shim::{ErrorCode, ExecSpec, Reply, Request as Ask};
use biga_wire::{Decoder, Frame, FrameKind};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stack::{INSTANCES, PATIENCE, Stack};

/// Sends frames into a stream, ends the input, and gives back all frames that come.
async fn talk(s: &Stack, name: &str, verb: &str, frames: &[Frame]) -> Vec<Frame> {
    let r = Request::post(format!("/apis/biga.dev/v1/{INSTANCES}/{name}/{verb}"))
        .header("host", "biga")
        .header("connection", "Upgrade")
        .header("upgrade", "biga-stream")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = s.send(r).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "biga-stream");
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut bytes = Vec::new();
    frames.iter().for_each(|f| f.encode(&mut bytes));
    io.write_all(&bytes).await.unwrap();
    io.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, io.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let mut d = Decoder::new();
    d.push(&answer);
    let mut all = Vec::new();
    while let Some(f) = d.next_frame().unwrap() {
        all.push(f);
    }
    all
}

fn exec() -> Frame {
    let exec = ExecSpec {
        args: vec!["sh".into(), "-c".into()],
        ..ExecSpec::default()
    };
    Frame::json(FrameKind::Request, &Ask::Exec { exec: Box::new(exec) })
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_with_half_close() {
    let s = Stack::start().await;
    s.instance("web", json!({})).await;
    let input = Frame::new(FrameKind::Stdin, vec![b'x'; 60_000]);
    let got = talk(&s, "web", "exec", &[exec(), input.clone(), input]).await;
    assert_eq!(got[0].parse::<Reply>().unwrap(), Reply::Exec { pid: 2 });
    assert_eq!(got[1..3].iter().map(|f| f.payload.len()).sum::<usize>(), 120_000);
    assert_eq!(
        got.last().unwrap().kind,
        FrameKind::Exit,
        "the answer goes on after the client's end"
    );
    // Settled, so that nothing is waited for after the end.
    let status = StatusWriter::<Instance>::new(s.store.clone());
    let ended = |s: &mut InstanceStatus| s.phase = Phase::Exited;
    status.modify_status("default", "web", "", ended).await.unwrap();
    let attach = Frame::json(FrameKind::Request, &Ask::Attach { stdin: true });
    assert_eq!(
        talk(&s, "web", "attach", &[attach]).await[0].parse::<Reply>().unwrap(),
        Reply::Ok
    );
    let console = Frame::json(FrameKind::Request, &Ask::Console);
    assert_eq!(
        talk(&s, "web", "console", &[console]).await[0]
            .parse::<Reply>()
            .unwrap(),
        Reply::Ok
    );
}

/// After the end of a process that was attached to, the stream says when the status tells of it too.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_stream_ends_when_the_instance_has_settled() {
    let s = Stack::start().await;
    for (name, more) in [
        ("web", json!({"image": "busybox", "autoRemove": true})),
        ("kept", json!({"image": "busybox"})),
        (
            "again",
            json!({"image": "busybox", "restartPolicy": {"policy": "always"}}),
        ),
    ] {
        s.post(INSTANCES, &json!({"metadata": {"name": name}, "spec": more}))
            .await
            .ok();
    }
    let attach = || [Frame::json(FrameKind::Request, &Ask::Attach { stdin: true })];
    let kinds = |frames: Vec<Frame>| frames.iter().map(|f| f.kind).collect::<Vec<_>>();
    use FrameKind::{Exit, Reply as Answer, Settled};
    assert_eq!(kinds(talk(&s, "again", "attach", &attach()).await), [Answer, Exit]);

    let status = StatusWriter::<Instance>::new(s.store.clone());
    let ended = |s: &mut InstanceStatus| s.phase = Phase::Exited;
    // One that is kept has settled when its status says so; one that removes itself has not.
    for (name, removed) in [("kept", false), ("web", true)] {
        let whole = attach();
        let mut talk = std::pin::pin!(talk(&s, name, "attach", &whole));
        // Nothing can be waited for: what must not happen has a moment to happen.
        let moment = tokio::time::sleep(Duration::from_millis(100));
        tokio::select! {
            early = &mut talk => panic!("{name} has not settled: {early:?}"),
            () = moment => {}
        }
        status.modify_status("default", name, "", ended).await.unwrap();
        if removed {
            let moment = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                early = &mut talk => panic!("{name} has not gone: {early:?}"),
                () = moment => {}
            }
            assert!(
                status
                    .remove_finished("default", name, "", AGENT_FINALIZER)
                    .await
                    .unwrap()
            );
        }
        assert_eq!(kinds(talk.await), [Answer, Exit, Settled], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_do_not_open() {
    let s = Stack::start().await;
    s.instance("web", json!({})).await;
    s.instance("stopped", json!({})).await;
    let code = |frames: Vec<Frame>| match frames[0].parse::<Reply>().unwrap() {
        Reply::Error { code, message } => (code, message),
        other => panic!("{other:?}"),
    };
    let (c, message) = code(talk(&s, "stopped", "exec", &[exec()]).await);
    assert_eq!(
        (c, message.as_str()),
        (ErrorCode::State, "instance stopped is not running")
    );
    for first in [
        exec(),
        Frame::new(FrameKind::Request, *b"{}"),
        Frame::new(FrameKind::Stdin, *b"hi"),
    ] {
        assert_eq!(code(talk(&s, "web", "console", &[first]).await).0, ErrorCode::Invalid);
    }
    assert_eq!(code(talk(&s, "web", "exec", &[]).await).0, ErrorCode::Invalid);
    let path = |n: &str| format!("/apis/biga.dev/v1/{INSTANCES}/{n}/exec");
    s.raw("POST", &path("web"), &[], "").await.fails(400, "BadRequest");
    let upgrade = [("connection", "upgrade"), ("upgrade", "biga-stream")];
    s.raw("POST", &path("none"), &upgrade, "").await.fails(404, "NotFound");
    let other = [("connection", "upgrade"), ("upgrade", "websocket")];
    s.raw("POST", &path("web"), &other, "").await.fails(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_stats_and_signals() {
    let s = Stack::start().await;
    s.instance("web", json!({})).await;
    let log = s.get(&format!("{INSTANCES}/web/log?tail=3")).await;
    assert_eq!(&log.bytes[..], b"tail Some(3)\n");
    assert_eq!(log.headers["content-type"], "text/plain; charset=utf-8");
    s.get(&format!("{INSTANCES}/web/log?tail=x"))
        .await
        .fails(400, "BadRequest");
    s.get(&format!("{INSTANCES}/none/log")).await.fails(404, "NotFound");
    let lines = |b: &Bytes| b.split(|c| *c == b'\n').filter(|l| !l.is_empty()).count();
    assert_eq!(lines(&s.get(&format!("{INSTANCES}/web/stats")).await.bytes), 1);
    assert_eq!(
        lines(&s.get(&format!("{INSTANCES}/web/stats?stream=true")).await.bytes),
        3
    );
    let signal = |q: &str| format!("/apis/biga.dev/v1/{INSTANCES}/web/signal{q}");
    assert_eq!(s.raw("POST", &signal("?signal=9"), &[], "").await.code, 204);
    s.raw("POST", &signal("?signal=15"), &[], "")
        .await
        .fails(409, "Conflict");
    s.raw("POST", &signal(""), &[], "").await.fails(400, "BadRequest");
    s.raw("POST", &signal("?signal=99"), &[], "")
        .await
        .fails(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_logs_end_with_the_server() {
    let mut s = Stack::start().await;
    s.instance("web", json!({})).await;
    let r = Request::get(format!("/apis/biga.dev/v1/{INSTANCES}/web/log?follow=1"))
        .header("host", "biga")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut body = s.send(r).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"tail None\n");
    s.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap();
    assert!(end.is_none(), "the body is complete: {end:?}");
    tokio::time::timeout(PATIENCE, s.task.take().unwrap())
        .await
        .unwrap()
        .unwrap();
}

fn result(bytes: &Bytes) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = bytes
        .split(|c| *c == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    (lines, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn image_calls() {
    let s = Stack::start().await;
    let node = |v: &str| format!("/apis/biga.dev/v1/nodes/self/{v}");
    let (progress, last) = result(&s.raw("POST", &node("image-load"), &[], vec![1; 4 << 20]).await.bytes);
    assert_eq!(progress[0]["progress"]["action"], "loading");
    assert_eq!(
        last["result"]["images"][0]["reference"], "loaded:4194304",
        "uploads have no limit"
    );
    let (_, last) = result(
        &s.raw("POST", "/apis/biga.dev/v1/nodes/here/image-load", &[], "")
            .await
            .bytes,
    );
    assert_eq!(
        (&last["error"]["kind"], &last["error"]["reason"]),
        (&json!("Status"), &json!("BadRequest"))
    );
    s.raw("POST", "/apis/biga.dev/v1/nodes/there/image-load", &[], "x")
        .await
        .fails(404, "NotFound");
    assert_eq!(
        &s.get(&node("image-save?reference=a&format=oci")).await.bytes[..],
        b"a Oci"
    );
    s.get(&node("image-save?reference=missing"))
        .await
        .fails(404, "NotFound");
    s.get(&node("image-save")).await.fails(400, "BadRequest");
    let config = base64::engine::general_purpose::STANDARD.encode(r#"{"Cmd":["a"]}"#);
    let (_, last) = result(
        &s.raw(
            "POST",
            &node(&format!("image-import?reference=a&format=rootfs&config={config}")),
            &[],
            "x",
        )
        .await
        .bytes,
    );
    assert_eq!(last["result"]["images"][0]["reference"], r#"a Rootfs {"Cmd":["a"]}"#);
    s.raw("POST", &node("image-import?reference=a&config=x"), &[], "x")
        .await
        .fails(400, "BadRequest");
    let auth = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"ann","password":"p"}"#);
    let (_, last) = result(
        &s.raw(
            "POST",
            &node("image-push?reference=a&as=b"),
            &[("x-registry-auth", &auth)],
            "",
        )
        .await
        .bytes,
    );
    assert_eq!(last["result"]["images"][0]["reference"], "a b ann");
    s.raw(
        "POST",
        &node("image-push?reference=a"),
        &[("x-registry-auth", "!!")],
        "",
    )
    .await
    .fails(400, "BadRequest");
    assert_eq!(
        s.raw("POST", &node("image-tag?reference=a&as=b"), &[], "").await.ok()["images"][0]["reference"],
        "a b"
    );
    let (_, last) = result(&s.raw("POST", &node("prune"), &[], "").await.bytes);
    assert_eq!(last["result"]["freedBytes"], 5);
}
