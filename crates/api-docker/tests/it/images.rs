//! Images for a platform, and imports with all that an import can say.

use serde_json::{Value, json};

use crate::support::{Served, served};

/// A JSON platform as newer clients send it, in a query.
const ARM: &str = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22arm64%22%7D";
const AMD: &str = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";

async fn send(s: &Served, path: &str, body: &'static str) -> Vec<Value> {
    let r = http::Request::post(path)
        .header("host", "d")
        .body(http_body_util::Full::new(body.into()))
        .unwrap();
    s.send(r).await.must(200).lines()
}

#[tokio::test]
async fn one_platform_of_an_image() {
    let s = served().await;
    for path in [
        "/images/busybox/json",
        "/images/busybox/history",
        "/images/busybox/get",
        "/images/get?names=busybox",
    ] {
        let at = |p: &str| format!("{path}{}platform={p}", if path.contains('?') { '&' } else { '?' });
        s.get(&at(AMD)).await.must(200);
        let a = s.get(&at(ARM)).await.must(404);
        assert!(
            a.message().contains("linux/arm64") && a.message().contains("linux/amd64"),
            "{a:?}"
        );
        s.get(&at("%7B")).await.must(400);
        s.get(&at("%7B%7D")).await.must(400);
    }
    s.call("POST", &format!("/images/busybox/push?platform={ARM}"), None)
        .await
        .must(404);
    s.call("POST", &format!("/images/busybox/push?platform={AMD}"), None)
        .await
        .must(200);
    let loaded = send(&s, &format!("/images/load?platform={AMD}"), "archive of x").await;
    assert_eq!(loaded.last().unwrap()["stream"], "Loaded image: loaded:1\n");
    let refused = send(&s, &format!("/images/load?platform={ARM}"), "archive of x").await;
    assert_eq!(refused.last().unwrap()["error"], "this is no archive for that platform");
}

#[tokio::test]
async fn the_one_manifest_is_listed_where_that_is_asked_for() {
    let s = served().await;
    s.create("user", &["true"]).await;
    assert!(s.get("/images/json").await.json()[0].get("Manifests").is_none());
    for doc in [
        s.get("/images/json?manifests=1").await.must(200).json()[0].clone(),
        s.get("/images/busybox/json?manifests=1").await.must(200).json(),
    ] {
        let m = &doc["Manifests"][0];
        assert_eq!((&m["Kind"], &m["Available"]), (&json!("image"), &json!(true)));
        assert_eq!(
            m["ImageData"]["Platform"],
            json!({"os": "linux", "architecture": "amd64"})
        );
    }
}

#[tokio::test]
async fn an_import_can_have_changes_a_remark_a_platform_and_no_name() {
    let s = served().await;
    let made = send(&s, "/images/create?fromSrc=-", "12345").await;
    assert!(made.last().unwrap()["status"].as_str().unwrap().starts_with("sha256:"));
    send(
        &s,
        "/images/create?fromSrc=-&repo=made&tag=2&message=why&platform=linux/arm64&changes=CMD%20x&changes=ENV%20a=b",
        "1",
    )
    .await;
    let from = send(&s, "/images/create?fromSrc=files.test/a.tar&repo=far", "").await;
    assert_eq!(from[0]["status"], "Downloading from http://files.test/a.tar");
    let all = s.node.imported();
    assert_eq!((all[0].reference.as_deref(), all[0].changes.len()), (None, 0));
    assert_eq!(all[1].reference.as_deref(), Some("docker.io/library/made:2"));
    assert_eq!(all[1].changes, ["CMD x", "ENV a=b"]);
    assert_eq!(
        (all[1].message.as_deref(), all[1].platform.as_deref()),
        (Some("why"), Some("linux/arm64"))
    );
    assert_eq!(all[2].address.as_deref(), Some("http://files.test/a.tar"));
}

#[tokio::test]
async fn older_versions_have_the_fields_of_their_time() {
    let s = served().await;
    let at = async |version: &str| {
        let path = format!("/v1.{version}/images/busybox/json");
        s.get(&path).await.must(200).json()
    };
    let (old, new) = (at("43").await, at("45").await);
    assert!(
        old["ContainerConfig"].is_object() && old["VirtualSize"] == old["Size"],
        "{old}"
    );
    assert!(at("44").await["ContainerConfig"].is_object());
    for field in ["Container", "ContainerConfig", "VirtualSize"] {
        assert!(new.get(field).is_none(), "{field}");
    }
    for (version, has) in [("43", true), ("44", false)] {
        let list = s.get(&format!("/v1.{version}/images/json")).await.must(200).json();
        assert_eq!(list[0].get("VirtualSize").is_some(), has, "{version}");
    }
    for (version, has) in [("41", true), ("42", false)] {
        let df = s.get(&format!("/v1.{version}/system/df")).await.must(200).json();
        assert_eq!(df.get("BuilderSize").is_some(), has, "{version}");
        assert!(df["Images"][0]["VirtualSize"].is_u64(), "{df}");
    }
    let mut compose = Served::request("GET", "/v1.51/images/busybox/json", None);
    let agent = "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1".parse().unwrap();
    compose.headers_mut().insert("user-agent", agent);
    assert!(s.send(compose).await.json()["ContainerConfig"].is_object());
}
