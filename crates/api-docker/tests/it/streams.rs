//! Attach, exec, logs and stats by raw HTTP.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, eventually, served};

async fn rest(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, io.read_to_end(&mut all))
        .await
        .expect("the stream ends")
        .unwrap();
    all
}

/// Cuts a multiplexed stream: the bytes of standard output and of standard error.
fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut out = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let len = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        assert_eq!(bytes[1..4], [0, 0, 0]);
        match bytes[0] {
            1 => out.0.extend_from_slice(&bytes[8..8 + len]),
            2 => out.1.extend_from_slice(&bytes[8..8 + len]),
            n => panic!("stream {n}"),
        }
        bytes = &bytes[8 + len..];
    }
    out
}

#[tokio::test]
async fn a_client_that_attached_before_the_start_misses_nothing() {
    let s = served().await;
    s.create("aa", &["lines", "50"]).await;
    let mut io = s.hijack("/containers/aa/attach?stream=1&stdout=1&stderr=1", None).await;
    s.call("POST", "/containers/aa/start", None).await.must(204);
    let (out, err) = demultiplex(&rest(&mut io).await);
    let want: String = (1..=50).map(|i| format!("line {i}\n")).collect();
    assert_eq!((String::from_utf8(out).unwrap(), err.len()), (want, 0));
}

/// docker-py's streams begin a little later: what ends meanwhile is not waited for again.
#[tokio::test]
async fn who_attached_to_a_run_is_let_go_at_its_end() {
    let s = served().await;
    s.run("ended", &["sleep"]).await;
    let path = "/containers/ended/attach?stream=1&stdout=1&stderr=1";
    let mut r = crate::support::Served::request("POST", path, None);
    for (k, v) in [
        ("connection", "Upgrade"),
        ("upgrade", "tcp"),
        ("user-agent", "docker-sdk-python/5.0.3"),
    ] {
        r.headers_mut().insert(k, v.parse().unwrap());
    }
    let response = s.open(r).await;
    assert_eq!(response.status(), 101);
    s.call("POST", "/containers/ended/kill", None).await.must(204);
    s.call("POST", "/containers/ended/wait", None).await.must(200);
    let mut io = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    assert!(rest(&mut io).await.is_empty());
}

#[tokio::test]
async fn megabytes_pass_through_in_order_and_half_closed() {
    let s = served().await;
    let body = json!({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true});
    s.post("/containers/create?name=cc", body).await.must(201);
    let io = s
        .hijack("/v1.40/containers/cc/attach?stream=1&stdin=1&stdout=1&stderr=1", None)
        .await;
    s.call("POST", "/containers/cc/start", None).await.must(204);
    let (mut r, mut w) = tokio::io::split(io);
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|i| (i as u16).to_le_bytes()).collect();
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        w.write_all(&sent).await.unwrap();
        w.shutdown().await.unwrap();
        w
    });
    let (out, err) = demultiplex(&rest(&mut r).await);
    assert!(
        out == data && err.is_empty(),
        "{} of {} bytes came back",
        out.len(),
        data.len()
    );
    writing.await.unwrap();
    assert_eq!(
        s.call("POST", "/containers/cc/wait", None).await.json()["StatusCode"],
        0
    );
}

/// An exec goes on without the client that left it by keys.
#[tokio::test]
async fn who_leaves_is_told() {
    let s = served().await;
    let body = json!({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "Tty": true});
    s.post("/containers/create?name=left", body).await.must(201);
    s.call("POST", "/containers/left/start", None).await.must(204);
    let mut io = s
        .hijack("/containers/left/attach?stream=1&stdin=1&stdout=1", None)
        .await;
    io.write_all(b"\x10\x11").await.unwrap();
    rest(&mut io).await;
    let exec = json!({"AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": ["cat"], "DetachKeys": "x,y"});
    let made = s.post("/containers/left/exec", exec).await.must(201).json();
    let id = made["Id"].as_str().unwrap();
    let start = json!({"Detach": false, "Tty": true});
    let mut io = s.hijack(&format!("/exec/{id}/start"), Some(start)).await;
    io.write_all(b"xy").await.unwrap();
    rest(&mut io).await;
    let told = eventually("both", async || {
        let told = s.told(json!({"event": ["detach", "exec_detach"]})).await;
        (told.len() == 2).then_some(told)
    })
    .await;
    assert_eq!(
        (&told[0]["Action"], &told[1]["Action"]),
        (&json!("detach"), &json!("exec_detach"))
    );
    assert_eq!(told[1]["Actor"]["Attributes"]["execID"], id);
    assert_eq!(s.get(&format!("/exec/{id}/json")).await.json()["Running"], true);
}

#[tokio::test]
async fn a_terminal_is_raw_has_a_size_and_can_be_left() {
    let s = served().await;
    let body = json!({"Image": "busybox", "Cmd": ["cat"], "OpenStdin": true, "Tty": true});
    s.post("/containers/create?name=tt", body).await.must(201);
    let mut io = s.hijack("/containers/tt/attach?stream=1&stdin=1&stdout=1", None).await;
    s.call("POST", "/containers/tt/start", None).await.must(204);
    s.call("POST", "/containers/tt/resize?h=40&w=120", None).await.must(200);
    io.write_all(b"hello\n").await.unwrap();
    let mut got = [0; 6];
    tokio::time::timeout(PATIENCE, io.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&got, b"hello\n");
    eventually("the size arrives", async || {
        s.node.windows().contains(&(40, 120)).then_some(())
    })
    .await;
    io.write_all(b"\x10\x11").await.unwrap();
    assert!(rest(&mut io).await.is_empty());
    assert_eq!(s.get("/containers/tt/json").await.json()["State"]["Running"], true);
    s.call("POST", "/containers/tt/resize?h=50&w=90", None).await.must(200);
    eventually("a size without a client", async || {
        s.node.windows().contains(&(50, 90)).then_some(())
    })
    .await;
    s.call("POST", "/containers/tt/resize?h=x&w=1", None).await.must(400);
    s.call("POST", "/containers/tt/attach?detachKeys=zzz", None)
        .await
        .must(400);
}

#[tokio::test]
async fn an_attach_can_begin_with_the_log() {
    let s = served().await;
    s.run("ll", &["lines", "3"]).await;
    s.call("POST", "/containers/ll/wait", None).await.must(200);
    let mut io = s.hijack("/containers/ll/attach?logs=1&stdout=1", None).await;
    assert_eq!(demultiplex(&rest(&mut io).await).0, b"line 1\nline 2\nline 3\n");
}

#[tokio::test]
async fn without_an_upgrade_the_answer_is_a_body() {
    let s = served().await;
    s.create("pp", &["echo", "hi"]).await;
    let request = crate::support::Served::request("POST", "/containers/pp/attach?stream=1&stdout=1", None);
    let response = s.open(request).await;
    assert_eq!(response.status(), 200);
    s.call("POST", "/containers/pp/start", None).await.must(204);
    use http_body_util::BodyExt;
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    assert_eq!(demultiplex(&body).0, b"hi\n");
}

#[tokio::test]
async fn logs_are_cut_as_asked() {
    let s = served().await;
    s.run("oo", &["lines", "5"]).await;
    s.run("ee", &["err", "bad"]).await;
    for n in ["oo", "ee"] {
        s.call("POST", &format!("/containers/{n}/wait"), None).await.must(200);
    }
    let logs = async |path: &str| demultiplex(&s.get(path).await.must(200).body);
    assert_eq!(logs("/containers/oo/logs?stdout=1&tail=2").await.0, b"line 4\nline 5\n");
    assert_eq!(logs("/containers/oo/logs?stdout=1&stderr=1&tail=all").await.0.len(), 35);
    assert_eq!(
        logs("/containers/ee/logs?stdout=1&stderr=1").await,
        (Vec::new(), b"bad\n".to_vec())
    );
    assert!(
        logs("/containers/oo/logs?stdout=1&timestamps=1&tail=1")
            .await
            .0
            .starts_with(b"2026-01-02T03:04:05.000000000Z line 5")
    );
    s.get("/containers/oo/logs").await.must(400);
    s.get("/containers/oo/logs?stdout=1&since=never").await.must(400);
    let kind = |a: crate::support::Answer| a.headers["content-type"].to_str().unwrap().to_string();
    assert_eq!(
        kind(s.get("/v1.42/containers/oo/logs?stdout=1").await),
        "application/vnd.docker.multiplexed-stream"
    );
    assert_eq!(
        kind(s.get("/v1.41/containers/oo/logs?stdout=1").await),
        "application/vnd.docker.raw-stream"
    );
}

#[tokio::test]
async fn execs_have_output_input_and_exit_codes() {
    let s = served().await;
    s.run("xx", &["sleep"]).await;
    let exec = async |body: serde_json::Value| {
        s.post("/containers/xx/exec", body).await.must(201).json()["Id"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let id = exec(json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true})).await;
    let doc = s.get(&format!("/exec/{id}/json")).await.must(200).json();
    assert_eq!((&doc["Running"], &doc["ExitCode"]), (&json!(false), &json!(null)));
    let mut io = s
        .hijack(&format!("/exec/{id}/start"), Some(json!({"Detach": false})))
        .await;
    io.write_all(b"abc").await.unwrap();
    let mut got = [0; 11];
    tokio::time::timeout(PATIENCE, io.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&got, b"\x01\0\0\0\0\0\0\x03abc");
    assert_eq!(s.get("/containers/xx/json").await.json()["ExecIDs"], json!([id]));
    s.call("POST", &format!("/exec/{id}/resize?h=9&w=8"), None)
        .await
        .must(200);
    s.post(&format!("/exec/{id}/start"), json!({})).await.must(409);
    io.shutdown().await.unwrap();
    assert!(rest(&mut io).await.is_empty());
    let code = async |id: &str| {
        eventually("the exec ends", async || {
            let doc = s.get(&format!("/exec/{id}/json")).await.json();
            (doc["Running"] == false).then(|| doc["ExitCode"].clone())
        })
        .await
    };
    assert_eq!(code(&id).await, 0);

    let id = exec(json!({"Cmd": ["exit", "9"], "AttachStdout": true})).await;
    rest(&mut s.hijack(&format!("/exec/{id}/start"), Some(json!({}))).await).await;
    assert_eq!(code(&id).await, 9);

    let id = exec(json!({"Cmd": ["nosuch"], "AttachStdout": true})).await;
    let out = rest(&mut s.hijack(&format!("/exec/{id}/start"), Some(json!({}))).await).await;
    assert!(String::from_utf8_lossy(&out).contains("executable file not found in $PATH"));
    assert_eq!(code(&id).await, 127);

    let id = exec(json!({"Cmd": ["echo", "x"]})).await;
    s.post(&format!("/exec/{id}/start"), json!({"Detach": true}))
        .await
        .must(200);
    assert_eq!(code(&id).await, 0);

    s.post("/containers/xx/exec", json!({"Cmd": []})).await.must(400);
    s.post("/exec/absent/start", json!({})).await.must(404);
    s.create("idle", &["true"]).await;
    s.post("/containers/idle/exec", json!({"Cmd": ["true"]}))
        .await
        .must(409);
}

#[tokio::test]
async fn statistics_and_processes() {
    let s = served().await;
    s.run("st", &["sleep"]).await;
    let one = s.get("/containers/st/stats?stream=0").await.must(200).json();
    assert_eq!(
        (
            &one["cpu_stats"]["cpu_usage"]["total_usage"],
            &one["precpu_stats"]["cpu_usage"]["total_usage"]
        ),
        (&json!(1_000_000_000u64), &json!(500_000_000))
    );
    assert_eq!(one["memory_stats"]["usage"].as_u64(), Some(6 << 20));
    let shot = s.get("/containers/st/stats?stream=0&one-shot=1").await.must(200).json();
    assert_eq!(shot["precpu_stats"]["cpu_usage"]["total_usage"], 0);
    assert_eq!(s.get("/containers/st/stats").await.must(200).lines().len(), 3);
    let top = s.get("/containers/st/top").await.must(200).json();
    assert_eq!(top["Processes"].as_array().unwrap().len(), 1);
    assert_eq!(top["Processes"][0][1], json!(std::process::id().to_string()));
    s.get("/containers/st/top?ps_args=--no-such-option").await.must(500);
    s.create("idle", &["true"]).await;
    s.get("/containers/idle/top").await.must(409);
    assert_eq!(
        s.get("/containers/idle/stats?stream=0").await.must(200).json()["memory_stats"],
        json!({})
    );
}
