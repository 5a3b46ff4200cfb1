//! Lists are kept as they were rendered: none may be older than what it shows.

use serde_json::{Value, json};

use crate::support::{Served, served};

async fn lines(s: &Served) -> Vec<Value> {
    let answer = s.get("/containers/json?all=1").await.must(200).json();
    answer.as_array().cloned().unwrap_or_default()
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|l| l["Names"][0].as_str()).collect()
}

#[tokio::test]
async fn a_list_is_as_new_as_what_it_shows() {
    let s = served().await;
    let id = s.run("one", &["sleep", "9"]).await;
    let first = lines(&s).await;
    assert_eq!((names(&first), &first[0]["State"]), (vec!["/one"], &json!("running")));
    assert_eq!(lines(&s).await, first, "the same again");

    s.post("/containers/one/rename", json!({})).await.must(400);
    s.post("/containers/one/rename?name=two", json!(null)).await.must(204);
    assert_eq!(names(&lines(&s).await), ["/two"]);

    s.post("/containers/two/stop?t=0", json!(null)).await.must(204);
    let stopped = lines(&s).await;
    assert_eq!(stopped[0]["State"], "exited");
    assert!(
        stopped[0]["Status"].as_str().unwrap().starts_with("Exited ("),
        "{stopped:?}"
    );
    assert!(
        s.get("/containers/json")
            .await
            .must(200)
            .json()
            .as_array()
            .unwrap()
            .is_empty()
    );

    s.call("DELETE", "/containers/two", None).await.must(204);
    assert!(lines(&s).await.is_empty());
    // Another of that name is another.
    let again = s.create("two", &["true"]).await;
    assert_ne!(again, id);
    assert_eq!(lines(&s).await[0]["Id"], json!(again));
}

#[tokio::test]
async fn sizes_and_times_are_of_the_moment() {
    let s = served().await;
    s.create("sized", &["true"]).await;
    assert_eq!(lines(&s).await[0].get("SizeRw"), None);
    let with = s.get("/containers/json?all=1&size=1").await.must(200).json();
    assert!(with[0]["SizeRw"].is_u64() && with[0]["SizeRootFs"].is_u64(), "{with}");
    assert_eq!(lines(&s).await[0].get("SizeRw"), None);
}

#[tokio::test]
async fn networks_made_anew_are_shown_by_their_new_ids() {
    let s = served().await;
    let make = async || {
        let made = s
            .post("/networks/create", json!({"Name": "net"}))
            .await
            .must(201)
            .json();
        made["Id"].as_str().unwrap().to_string()
    };
    let old = make().await;
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "net"}});
    s.post("/containers/create?name=on", body).await.must(201);
    let shown = async || lines(&s).await[0]["NetworkSettings"]["Networks"]["net"]["NetworkID"].clone();
    assert_eq!(shown().await, json!(old));
    s.call("DELETE", "/networks/net", None).await.must(204);
    assert_eq!(shown().await, json!(""));
    let new = make().await;
    assert_ne!(old, new);
    assert_eq!(shown().await, json!(new));
}

#[tokio::test]
async fn ids_lead_to_what_is_there_now() {
    let s = served().await;
    let id = s.create("here", &["true"]).await;
    for word in [&id, &id[..12], "here"] {
        let doc = s.get(&format!("/containers/{word}/json")).await.must(200).json();
        assert_eq!((&doc["Id"], &doc["Name"]), (&json!(id), &json!("/here")));
    }
    s.call("DELETE", &format!("/containers/{}", &id[..12]), None)
        .await
        .must(204);
    s.get(&format!("/containers/{id}/json")).await.must(404);
    s.get(&format!("/containers/{}/json", &id[..12])).await.must(404);
}

#[tokio::test]
async fn a_document_is_as_new_as_what_it_shows() {
    let s = served().await;
    let id = s.run("one", &["sleep", "9"]).await;
    let document = async || s.get(&format!("/containers/{id}/json")).await.must(200).json();
    let first = document().await;
    assert_eq!(document().await, first, "the same again");
    assert_eq!(
        (&first["State"]["Status"], &first["ExecIDs"]),
        (&json!("running"), &json!(null))
    );

    let body = json!({"Cmd": ["sleep", "9"], "AttachStdout": true});
    let exec = s.post("/containers/one/exec", body).await.must(201).json();
    let exec = exec["Id"].as_str().unwrap().to_string();
    s.post(&format!("/exec/{exec}/start"), json!({"Detach": true}))
        .await
        .must(200);
    let now = document().await;
    assert!(now["ExecIDs"].is_null() || now["ExecIDs"] == json!([exec]), "{now}");

    s.post("/containers/one/stop?t=0", json!(null)).await.must(204);
    assert_eq!(document().await["State"]["Status"], "exited");
    let sized = s.get("/containers/one/json?size=1").await.must(200).json();
    assert!(sized["SizeRw"].is_u64(), "{sized}");
    assert_eq!(document().await.get("SizeRw"), None);
}
