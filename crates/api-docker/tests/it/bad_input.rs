//! Requests that make no sense, or are meant to hurt.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::support::served;

#[tokio::test]
async fn bad_requests_get_docker_s_status_and_a_message() {
    let s = served().await;
    let raw = async |path: &str, kind: &str, body: Bytes| {
        let r = Request::post(path)
            .header("host", "d")
            .header("content-type", kind)
            .body(Full::new(body))
            .unwrap();
        s.send(r).await
    };
    let json = "application/json";
    let a = raw("/containers/create", json, Bytes::from_static(b"{\"Image\":"))
        .await
        .must(400);
    assert!(a.message().starts_with("invalid JSON"));
    raw("/containers/create", json, Bytes::from_static(b"[1]"))
        .await
        .must(400);
    raw("/containers/create", json, Bytes::from_static(b"{\"Image\": 5}"))
        .await
        .must(400);
    raw(
        "/containers/create",
        json,
        Bytes::from_static(b"{\"Image\": \"b\", \"Env\": {}}"),
    )
    .await
    .must(400);
    raw("/containers/create", "text/plain", Bytes::from_static(b"{}"))
        .await
        .must(400);
    raw("/containers/create", json, Bytes::new()).await.must(400);
    raw("/containers/create", json, vec![b' '; 5 << 20].into())
        .await
        .must(413);
    let deep = "[".repeat(100_000);
    raw("/networks/create", json, deep.into()).await.must(400);
    assert_eq!(s.get("/nothing/here").await.must(404).message(), "page not found");
    assert_eq!(
        s.call("PATCH", "/containers/json", None).await.must(404).message(),
        "page not found"
    );
    s.get("/v1.12/info").await.must(400);
    assert!(s.get("/v1.99/info").await.must(400).message().contains("too new"));
    s.get("/containers/json?filters=notjson").await.must(400);
    s.get("/containers/json?limit=abc").await.must(400);
    s.get("/containers/%ff%fe/json").await.must(400).message();
    s.get("/containers/..%2F..%2Fetc/json").await.must(404);
    s.get("/volumes/..%2Fx").await.must(404);
    s.get("/images//json").await.must(404);
    s.get("/images/a%00b/json").await.must(404);
    s.post("/containers/create?name=-bad", json!({"Image": "busybox"}))
        .await
        .must(400);
    s.post("/containers/create?name=a/b", json!({"Image": "busybox"}))
        .await
        .must(400);
    s.post("/containers/create?name=x", json!({"Image": "busybox"}))
        .await
        .must(400);
    s.post("/containers/create", json!({"Image": ""})).await.must(400);
    s.post("/containers/create", json!({"Image": "busybox", "Env": ["=x"]}))
        .await
        .must(400);
    s.post("/containers/create", json!({"Image": "busybox", "Cmd": ["a\u{0}b"]}))
        .await
        .must(400);
    s.create("ok", &["sleep"]).await;
    s.call("POST", "/containers/ok/kill?signal=SIGNONE", None)
        .await
        .must(400);
    s.call("POST", "/containers/ok/stop?t=abc", None).await.must(400);
    s.call("POST", "/containers/ok/stop?signal=zzz", None).await.must(400);
    for (method, path) in [
        ("GET", "json"),
        ("POST", "start"),
        ("POST", "stop"),
        ("POST", "attach"),
        ("GET", "logs?stdout=1"),
        ("GET", "stats"),
        ("POST", "wait"),
    ] {
        let a = s
            .call(method, &format!("/containers/absent/{path}"), None)
            .await
            .must(404);
        assert_eq!(a.message(), "No such container: absent", "{path}");
    }
    s.call("DELETE", "/containers/absent", None).await.must(404);
    let mut r = crate::support::Served::request("POST", "/images/create?fromImage=busybox", None);
    r.headers_mut().insert("x-registry-auth", "???".parse().unwrap());
    s.send(r).await.must(400);
    s.get("/_ping").await.must(200);
}
