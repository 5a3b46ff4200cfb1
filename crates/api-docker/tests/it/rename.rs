//! Other names for containers.

use serde_json::{Value, json};

use crate::support::{Served, eventually, served};

#[tokio::test]
async fn a_name_is_changed_and_found() {
    let s = served().await;
    let id = s.create("old", &["sleep"]).await;
    s.create("other", &["true"]).await;
    let beside = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {"NetworkMode": "container:old"}});
    s.post("/containers/create?name=beside", beside).await.must(201);
    s.call("POST", "/containers/old/start", None).await.must(204);
    let ends = s.open(Served::request("POST", "/containers/old/wait", None)).await;

    s.call("POST", "/containers/old/rename?name=new", None).await.must(204);
    s.get("/containers/old/json").await.must(404);
    let doc = s.get("/containers/new/json").await.must(200).json();
    assert_eq!((doc["Name"].as_str(), doc["Id"].as_str()), (Some("/new"), Some(&*id)));
    assert_eq!(doc["State"]["Status"], "running");
    let doc = s.get(&format!("/containers/{id}/json")).await.must(200).json();
    assert_eq!(doc["Name"], "/new");
    // A reference to it is one to the container, not to whoever takes the name.
    s.create("old", &["true"]).await;
    let spec = s.get("/containers/beside/json").await.must(200).json();
    assert_eq!(spec["HostConfig"]["NetworkMode"], "container:old", "as it was sent");
    let stored = biga_store::Objects::<biga_model::Instance>::new(s.node.store.clone())
        .get("default", "beside")
        .await
        .unwrap();
    assert_eq!(stored.spec.namespaces.network.as_deref(), Some("new"));

    // Who waits for its end goes on waiting.
    s.call("POST", &format!("/containers/{}/kill", &id[..12]), None)
        .await
        .must(204);
    let body = http_body_util::BodyExt::collect(ends.into_body());
    let body = tokio::time::timeout(crate::support::PATIENCE, body)
        .await
        .unwrap()
        .unwrap();
    let doc: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(doc["StatusCode"], 137);
    // A stopped one, with a slash in front as Docker's own names have it.
    s.call("POST", "/containers/new/rename?name=%2Fnewer", None)
        .await
        .must(204);
    s.call("DELETE", "/containers/newer", None).await.must(204);
}

#[tokio::test]
async fn what_cannot_be_a_name_is_refused() {
    let s = served().await;
    let id = s.create("one", &["sleep"]).await;
    s.create("two", &["sleep"]).await;
    let rename = async |path: &str| s.call("POST", path, None).await;
    let a = rename("/containers/two/rename?name=one").await.must(409);
    let want = format!(
        "Error when allocating new name: Conflict. The container name \"/one\" is already in use by container \"{id}\""
    );
    assert!(a.message().starts_with(&want), "{a:?}");
    for (name, status) in [
        ("", 400),
        ("one", 400),
        ("-x", 400),
        ("a%2Fb", 400),
        ("x", 400),
        ("a%20b", 400),
    ] {
        rename(&format!("/containers/one/rename?name={name}"))
            .await
            .must(status);
    }
    rename("/containers/one/rename").await.must(400);
    let a = rename("/containers/none/rename?name=three").await.must(404);
    assert_eq!(a.message(), "No such container: none");
    s.get("/containers/one/json").await.must(200);
}

#[tokio::test]
async fn a_rename_is_told_once() {
    let s = served().await;
    s.create("before", &["true"]).await;
    s.call("POST", "/containers/before/rename?name=after", None)
        .await
        .must(204);
    s.call("DELETE", "/containers/after", None).await.must(204);
    let lines = eventually("its end", async || {
        let now = biga_model::Timestamp::now().as_second();
        let path = format!("/events?since=1&until={now}&filters=%7B%22type%22%3A%5B%22container%22%5D%7D");
        let lines = s.get(&path).await.must(200).lines();
        lines.iter().any(|l| l["Action"] == "destroy").then_some(lines)
    })
    .await;
    let told: Vec<&str> = lines.iter().map(|l| l["Action"].as_str().unwrap()).collect();
    assert_eq!(told, ["create", "rename", "destroy"]);
    let about = &lines[1]["Actor"]["Attributes"];
    assert_eq!(
        (about["name"].as_str(), about["oldName"].as_str()),
        (Some("after"), Some("/before"))
    );
    assert_eq!(lines[2]["Actor"]["Attributes"]["name"], "after");
}
