//! Bad input of every kind gets a `Status` and harms nothing.

use serde_json::json;

use crate::stack::{INSTANCES, Stack};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies() {
    let s = Stack::start().await;
    let path = format!("/apis/biga.dev/v1/{INSTANCES}");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"kind\":\"Volume\"}",
        "{\"apiVersion\":\"v2\"}",
        "\u{0}",
        "{\"spec\":{\"a\":1}}",
    ] {
        s.raw("POST", &path, &JSON, body).await.fails(400, "BadRequest");
    }
    let deep = format!("{{\"spec\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    s.raw("POST", &path, &JSON, deep).await.fails(400, "BadRequest");
    let deep = format!("{{\"spec\":{}1{}}}", "{\"a\":".repeat(100), "}".repeat(100));
    s.raw("POST", &path, &JSON, deep).await.fails(400, "BadRequest");
    s.raw("POST", &path, &JSON, vec![0xff, 0xfe])
        .await
        .fails(400, "BadRequest");
    s.raw("POST", &path, &JSON, vec![b' '; 4 << 20])
        .await
        .fails(413, "RequestEntityTooLarge");
    s.raw("POST", &path, &[("content-type", "application/yaml")], "a: b")
        .await
        .fails(415, "UnsupportedMediaType");
    assert_eq!(s.get(INSTANCES).await.ok()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_by_path() {
    let s = Stack::start().await;
    let body = json!({"metadata": {"name": "a"}, "spec": {"image": "b", "foo": 1}});
    let e = s.post(INSTANCES, &body).await.fails(400, "BadRequest");
    assert!(
        e["message"]
            .as_str()
            .unwrap()
            .contains("strict decoding error: unknown field \"spec.foo\""),
        "{e}"
    );
    let warned = s.post(&format!("{INSTANCES}?fieldValidation=Warn"), &body).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.foo\\\"\"");
    let quiet = s
        .post(
            &format!("{INSTANCES}?fieldValidation=Ignore"),
            &json!({"metadata": {"name": "b"}, "spec": {"image": "b", "foo": 1}}),
        )
        .await;
    assert!(quiet.code == 201 && !quiet.headers.contains_key("warning"));
    s.post(&format!("{INSTANCES}?fieldValidation=Loud"), &body)
        .await
        .fails(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_values_by_path() {
    let s = Stack::start().await;
    let body = json!({"metadata": {"name": "a", "labels": {"-x": "y"}}, "spec": {"image": "",
        "containers": [{"env": [{"name": ""}]}]}});
    let e = s.post(INSTANCES, &body).await.fails(422, "Invalid");
    let fields: Vec<&str> = e["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["field"].as_str().unwrap())
        .collect();
    for f in ["metadata.labels", "spec.image"] {
        assert!(fields.contains(&f), "{f}: {e}");
    }
    assert_eq!(
        (&e["details"]["kind"], &e["details"]["group"]),
        (&json!("instances"), &json!("biga.dev"))
    );
    let e = s
        .post(
            INSTANCES,
            &json!({"metadata": {"name": "a"}, "spec": {"image": "b", "power": "Half"}}),
        )
        .await
        .fails(422, "Invalid");
    assert_eq!(e["details"]["causes"][0]["field"], "spec.power");
    for name in ["", "-a", "a/b", "ä", &"x".repeat(300)] {
        let body = json!({"metadata": {"name": name}, "spec": {"image": "b"}});
        s.post(INSTANCES, &body).await.fails(422, "Invalid");
    }
    s.instance("a", json!({})).await;
    s.post(INSTANCES, &json!({"metadata": {"name": "a"}, "spec": {"image": "b"}}))
        .await
        .fails(409, "AlreadyExists");
    let elsewhere = json!({"metadata": {"name": "c", "namespace": "other"}, "spec": {"image": "b"}});
    s.post(INSTANCES, &elsewhere).await.fails(400, "BadRequest");
    let versioned = json!({"metadata": {"name": "c", "resourceVersion": "5"}, "spec": {"image": "b"}});
    s.post(INSTANCES, &versioned).await.fails(400, "BadRequest");
    s.put(
        &format!("{INSTANCES}/b"),
        &json!({"metadata": {"name": "a"}, "spec": {"image": "b"}}),
    )
    .await
    .fails(400, "BadRequest");
    s.put(
        &format!("{INSTANCES}/b"),
        &json!({"metadata": {"name": "b"}, "spec": {"image": "b"}}),
    )
    .await
    .fails(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_queries() {
    let s = Stack::start().await;
    for q in [
        "labelSelector=%3D",
        "labelSelector=a+in",
        "labelSelector=%ff",
        "fieldSelector=a",
        "fieldSelector=spec.image%3Db",
        "limit=-1",
        "limit=x",
        "continue=zzz",
        "continue=e30",
        "resourceVersion=abc",
        "watch=maybe",
        "resourceVersionMatch=Exact",
        "watch=1&resourceVersion=x",
        "watch=1&timeoutSeconds=x",
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=Exact",
        "includeObject=Some",
    ] {
        s.get(&format!("{INSTANCES}?{q}")).await.fails(400, "BadRequest");
    }
    s.get(&format!("{INSTANCES}?resourceVersion=999999"))
        .await
        .fails(504, "Timeout");
    s.get(&format!("{INSTANCES}?watch=1&resourceVersion=999999"))
        .await
        .fails(504, "Timeout");
    s.raw("DELETE", &format!("/apis/biga.dev/v1/{INSTANCES}/a"), &[], "{x")
        .await
        .fails(400, "BadRequest");
    s.delete(&format!("{INSTANCES}/a?propagationPolicy=Sideways"))
        .await
        .fails(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods() {
    let s = Stack::start().await;
    s.instance("a", json!({})).await;
    for path in [
        "/nope",
        "/apis/other",
        "/apis/biga.dev/v2",
        "/apis/biga.dev/v1/things",
        "/api/v1/pods",
        "/apis/biga.dev/v1/instances/a",
        "/apis/biga.dev/v1/namespaces/default/nodes",
        "/apis/biga.dev/v1/namespaces/default/instances/a/nope",
        "/apis/biga.dev/v1/namespaces/default/instances/a/status/b",
        "/apis/biga.dev/v1/namespaces/default/instances/a%2Fb",
        "/apis/biga.dev/v1/namespaces/default/instances/..%2Fa",
    ] {
        s.raw("GET", path, &[], "").await.fails(404, "NotFound");
    }
    s.raw("GET", "/apis/biga.dev/v1/namespaces/a%2Fb/instances", &[], "")
        .await
        .fails(400, "BadRequest");
    for (method, path) in [
        ("PUT", "namespaces/default/instances"),
        ("POST", "namespaces/default/instances/a"),
        ("POST", "instances"),
        ("DELETE", "instances"),
        ("PATCH", "namespaces/default/instances"),
        ("DELETE", "namespaces/default/instances/a/status"),
        ("GET", "namespaces/default/instances/a/exec"),
        ("POST", "namespaces/default/instances/a/log"),
        ("GET", "nodes/self/prune"),
        ("POST", "/version"),
        ("DELETE", "/healthz"),
        ("BREW", "namespaces/default/instances/a"),
    ] {
        let path = if path.starts_with('/') {
            path.into()
        } else {
            format!("/apis/biga.dev/v1/{path}")
        };
        s.raw(method, &path, &JSON, "{}").await.fails(405, "MethodNotAllowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_documents() {
    let s = Stack::start().await;
    for path in ["/healthz", "/readyz", "/livez", "/readyz/etcd"] {
        let a = s.raw("GET", path, &[], "").await;
        assert_eq!((a.code, &a.bytes[..]), (200, &b"ok"[..]));
    }
    assert_eq!(s.get("/api").await.ok()["kind"], "APIVersions");
    assert_eq!(s.get("/apis").await.ok()["groups"][0]["name"], "biga.dev");
    assert_eq!(
        s.get("/apis/biga.dev").await.ok()["preferredVersion"]["groupVersion"],
        "biga.dev/v1"
    );
    let r = s.get("/apis/biga.dev/v1").await.ok();
    let names: Vec<&str> = r["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    for n in ["instances", "instances/status", "instances/exec", "nodes", "events"] {
        assert!(names.contains(&n), "{names:?}");
    }
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let a = s.get_as("/apis", accept).await;
    assert_eq!(
        a.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(
        a.json()["items"][0]["versions"][0]["resources"][0]["resource"],
        "instances"
    );
    assert_eq!(s.get("/version").await.ok()["major"], "1");
    assert_eq!(s.get("/openapi/v2").await.ok()["swagger"], "2.0");
    let v3 = s.get("/openapi/v3").await.ok();
    let url = v3["paths"]["apis/biga.dev/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_string();
    assert_eq!(s.get(&url).await.ok()["openapi"], "3.0.0");
    assert!(s.get("/version").await.headers.contains_key("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_is_asked_before_each_write() {
    let s = Stack::start().await;
    let forbidden = json!({"metadata": {"name": "a"}, "spec": {"image": "forbidden"}});
    s.post(INSTANCES, &forbidden).await.fails(403, "Forbidden");
    s.instance("a", json!({"keep": "yes"})).await;
    let mut other = s.get(&format!("{INSTANCES}/a")).await.ok();
    other["spec"]["image"] = json!("forbidden");
    s.put(&format!("{INSTANCES}/a"), &other).await.fails(403, "Forbidden");
    s.merge(&format!("{INSTANCES}/a"), &json!({"spec": {"image": "forbidden"}}))
        .await
        .fails(403, "Forbidden");
    s.delete(&format!("{INSTANCES}/a")).await.fails(403, "Forbidden");
    s.delete(INSTANCES).await.fails(403, "Forbidden");
    assert!(
        s.get(&format!("{INSTANCES}/a")).await.ok()["metadata"]
            .get("deletionTimestamp")
            .is_none()
    );
}
