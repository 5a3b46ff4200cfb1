//! Many clients at once, and slow ones.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PATIENCE, Served, served};

const CROWD: usize = 2000;

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// The first event of a stream.
async fn first(body: &mut Incoming) -> Value {
    let frame = in_time(body.frame()).await.expect("an event").unwrap();
    let bytes = frame.into_data().unwrap();
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_follow_events_and_thousands_wait() {
    let s = served().await;
    s.run("one", &["sleep"]).await;
    let filters = "%7B%22event%22%3A%5B%22die%22%5D%7D";
    let mut following = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..CROWD {
        let events = Served::request("GET", &format!("/events?filters={filters}"), None);
        let wait = Served::request("POST", "/containers/one/wait", None);
        let (e, w) = tokio::join!(s.open(events), s.open(wait));
        assert_eq!((e.status().as_u16(), w.status().as_u16()), (200, 200));
        following.push(e.into_body());
        waiting.push(w.into_body());
    }
    // They cost others nothing that is noticed.
    in_time(s.get("/_ping")).await.must(200);
    in_time(s.call("POST", "/containers/one/kill", None)).await.must(204);
    for body in waiting {
        let bytes = in_time(body.collect()).await.unwrap().to_bytes();
        let doc: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(doc["StatusCode"], 137);
    }
    for body in &mut following {
        assert_eq!(first(body).await["Action"], "die");
    }
    drop(following);
    in_time(s.get("/containers/json?all=1")).await.must(200);
}

/// One that reads nothing holds up neither others of the same container nor the container's other streams.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_nobody_else() {
    let s = served().await;
    s.run("talker", &["sleep"]).await;
    s.run("other", &["sleep"]).await;
    let exec = async |container: &str, cmd: &[&str]| {
        let body = json!({"AttachStdout": true, "AttachStdin": true, "Cmd": cmd});
        let made = s
            .post(&format!("/containers/{container}/exec"), body)
            .await
            .must(201)
            .json();
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        s.hijack(&path, Some(json!({"Detach": false, "Tty": false}))).await
    };
    // Much more than fits between the two: the one that is not read stands still.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut io = exec("talker", &["lines", "150000"]).await;
        let mut head = [0; 8];
        in_time(io.read_exact(&mut head)).await.unwrap();
        slow.push(io);
    }
    for container in ["talker", "other"] {
        let mut io = exec(container, &["lines", "2000"]).await;
        let mut all = Vec::new();
        in_time(io.read_to_end(&mut all)).await.unwrap();
        assert!(String::from_utf8_lossy(&all).contains("line 2000\n"), "{container}");
        in_time(s.get(&format!("/containers/{container}/json"))).await.must(200);
    }
    // And what it was sent before is all there when it reads at last.
    let mut io = slow.pop().unwrap();
    io.shutdown().await.unwrap();
    let mut all = Vec::new();
    in_time(io.read_to_end(&mut all)).await.unwrap();
    assert!(String::from_utf8_lossy(&all[all.len() - 40..]).ends_with("line 150000\n"));
    // One that goes away in the middle.
    drop(slow);
    tokio::time::sleep(Duration::from_millis(1)).await;
    in_time(s.get("/_ping")).await.must(200);
}
