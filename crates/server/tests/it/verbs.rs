//! Each verb and what it answers.

use biga_model::{Instance, Phase};
use biga_store::{StatusWriter, Store, typed};
use serde_json::{Value, json};

use crate::stack::{INSTANCES, Stack};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_from_creation_to_removal() {
    let s = Stack::start().await;
    let made = s
        .post(
            INSTANCES,
            &json!({"metadata": {"name": "web"}, "spec": {"image": "busybox"}}),
        )
        .await;
    assert_eq!(made.code, 201);
    let o = made.json();
    let m = &o["metadata"];
    assert_eq!(m["uid"].as_str().unwrap().len(), 36);
    assert_eq!(
        (&m["generation"], &m["namespace"], &m["finalizers"][0]),
        (&json!(1), &json!("default"), &json!("biga.dev/agent"))
    );
    assert!(m["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(o["spec"]["containers"][0]["name"], "main", "defaults are filled in");
    let got = s.get(&format!("{INSTANCES}/web")).await.ok();
    assert_eq!(got, o, "what is read is what was answered");

    // Another spec raises the generation, other labels do not.
    let mut next = got.clone();
    next["metadata"]["labels"] = json!({"a": "b"});
    let labelled = s.put(&format!("{INSTANCES}/web"), &next).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 1);
    assert_ne!(labelled["metadata"]["resourceVersion"], m["resourceVersion"]);
    s.put(&format!("{INSTANCES}/web"), &next).await.fails(409, "Conflict");
    let mut next = labelled.clone();
    next["spec"]["power"] = json!("Stopped");
    next["status"] = json!({"phase": "Running"});
    let stopped = s.put(&format!("{INSTANCES}/web"), &next).await.ok();
    assert_eq!(stopped["metadata"]["generation"], 2);
    assert_eq!(stopped.get("status"), None, "the main resource does not write status");
    let same = s.put(&format!("{INSTANCES}/web"), &stopped).await.ok();
    assert_eq!(same, stopped, "an update that changes nothing writes nothing");

    // Deletion waits for the finalizer.
    let path = format!("{INSTANCES}/web?gracePeriodSeconds=5");
    let waiting = s.delete(&path).await.ok();
    assert_eq!(waiting["kind"], "Instance");
    assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let shorter = s.delete(&format!("{INSTANCES}/web?gracePeriodSeconds=1")).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 1);
    let status = StatusWriter::<Instance>::new(s.store.clone());
    let uid = m["uid"].as_str().unwrap();
    assert_eq!(
        status
            .remove_finalizer("default", "web", uid, "biga.dev/agent")
            .await
            .unwrap(),
        None
    );
    s.get(&format!("{INSTANCES}/web")).await.fails(404, "NotFound");
    s.delete(&format!("{INSTANCES}/web")).await.fails(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_without_finalizers_goes_at_once() {
    let s = Stack::start().await;
    s.post("nodes", &json!({"metadata": {"name": "n1"}})).await.ok();
    let uid = s.get("nodes/n1").await.ok()["metadata"]["uid"].clone();
    let gone = s.delete("nodes/n1").await.ok();
    assert_eq!(
        (&gone["kind"], &gone["status"], &gone["details"]["uid"]),
        (&json!("Status"), &json!("Success"), &uid)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_of_a_deletion() {
    let s = Stack::start().await;
    let o = s.post("nodes", &json!({"metadata": {"name": "n1"}})).await.ok();
    let options = |p: Value| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": p}).to_string();
    let other = options(json!({"uid": "x"}));
    s.raw("DELETE", "/apis/biga.dev/v1/nodes/n1", &[], other)
        .await
        .fails(409, "Conflict");
    let other = options(json!({"resourceVersion": "999"}));
    s.raw("DELETE", "/apis/biga.dev/v1/nodes/n1", &[], other)
        .await
        .fails(409, "Conflict");
    let dry = json!({"dryRun": ["All"]}).to_string();
    assert_eq!(s.raw("DELETE", "/apis/biga.dev/v1/nodes/n1", &[], dry).await.code, 200);
    let right = options(json!({"uid": o["metadata"]["uid"]}));
    assert_eq!(
        s.raw("DELETE", "/apis/biga.dev/v1/nodes/n1", &[], right).await.code,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_has_a_path_of_its_own() {
    let s = Stack::start().await;
    let o = s.instance("web", json!({})).await;
    let path = format!("{INSTANCES}/web/status");
    let mut with = o.clone();
    with["status"] = json!({"phase": "Running"});
    with["spec"]["image"] = json!("other");
    let wrote = s.put(&path, &with).await.ok();
    assert_eq!(
        (&wrote["status"]["phase"], &wrote["spec"]["image"]),
        (&json!("Running"), &json!("busybox"))
    );
    assert_eq!(wrote["metadata"]["generation"], 1);
    s.put(&path, &with).await.fails(409, "Conflict");
    let patched = s
        .merge(&path, &json!({"status": {"reason": "Because"}, "spec": {"image": "x"}}))
        .await
        .ok();
    assert_eq!(
        (&patched["status"]["reason"], &patched["spec"]["image"]),
        (&json!("Because"), &json!("busybox"))
    );
    assert_eq!(s.get(&path).await.ok(), patched);
    // And the typed handle of the agent writes only where something changed.
    let writer = StatusWriter::<Instance>::new(s.store.clone());
    let before = s.store.revision().await.unwrap();
    writer
        .modify_status("default", "web", "", |st| st.phase = Phase::Running)
        .await
        .unwrap();
    assert_eq!(s.store.revision().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches() {
    let s = Stack::start().await;
    s.instance("web", json!({"a": "1"})).await;
    let path = format!("/apis/biga.dev/v1/{INSTANCES}/web");
    let merged = s
        .merge(
            &path,
            &json!({"metadata": {"labels": {"a": null, "b": "2"}}, "spec": {"power": "Stopped"}}),
        )
        .await
        .ok();
    assert_eq!(merged["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(merged["metadata"]["generation"], 2);
    let ops = json!([
        {"op": "test", "path": "/spec/power", "value": "Stopped"},
        {"op": "replace", "path": "/spec/power", "value": "Running"},
        {"op": "add", "path": "/metadata/annotations", "value": {"x/y": "z"}},
    ]);
    let json_patch = [("content-type", "application/json-patch+json")];
    let done = s.raw("PATCH", &path, &json_patch, ops.to_string()).await.ok();
    assert_eq!(
        (&done["spec"]["power"], &done["metadata"]["annotations"]["x/y"]),
        (&json!("Running"), &json!("z"))
    );
    s.raw("PATCH", &path, &json_patch, ops.to_string())
        .await
        .fails(422, "Invalid");
    s.raw("PATCH", &path, &json_patch, "{}").await.fails(400, "BadRequest");
    s.merge(
        &path,
        &json!({"metadata": {"resourceVersion": "1"}, "spec": {"power": "Stopped"}}),
    )
    .await
    .fails(409, "Conflict");
    s.merge(&path, &json!({"metadata": {"name": "other"}}))
        .await
        .fails(400, "BadRequest");
    s.merge(&path, &json!({"spec": {"nope": 1}}))
        .await
        .fails(400, "BadRequest");
    for (media, word) in [
        ("application/strategic-merge-patch+json", "merge-patch"),
        ("application/apply-patch+yaml", "server-side apply"),
        ("text/plain", "merge-patch"),
    ] {
        let e = s
            .raw("PATCH", &path, &[("content-type", media)], "{}")
            .await
            .fails(415, "UnsupportedMediaType");
        assert!(e["message"].as_str().unwrap().contains(word), "{e}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_at_the_same_time_all_arrive() {
    let s = std::sync::Arc::new(Stack::start().await);
    s.instance("web", json!({})).await;
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let s = s.clone();
            tokio::spawn(async move {
                let label = json!({"metadata": {"labels": {format!("l{i}"): "x"}}});
                s.merge(&format!("{INSTANCES}/web"), &label).await.ok();
            })
        })
        .collect();
    for t in tasks {
        t.await.unwrap();
    }
    let o = s.get(&format!("{INSTANCES}/web")).await.ok();
    assert_eq!(o["metadata"]["labels"].as_object().unwrap().len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_select_and_page() {
    let s = Stack::start().await;
    for i in 0..7 {
        let tier = if i % 2 == 0 { "front" } else { "back" };
        s.instance(&format!("i{i}"), json!({"tier": tier, "n": i.to_string()}))
            .await;
    }
    let other = json!({"metadata": {"name": "far"}, "spec": {"image": "b", "nodeName": "n2"}});
    s.post("namespaces/other/instances", &other).await.ok();
    let names = |v: &Value| -> Vec<String> {
        v["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().into())
            .collect()
    };
    let all = s.get("instances").await.ok();
    assert_eq!((all["kind"].as_str(), names(&all).len()), (Some("InstanceList"), 8));
    assert_eq!(
        all["metadata"]["resourceVersion"],
        json!(s.store.revision().await.unwrap().to_string())
    );
    assert_eq!(names(&s.get(INSTANCES).await.ok()).len(), 7);
    for (query, expect) in [
        ("labelSelector=tier%3Dback", vec!["i1", "i3", "i5"]),
        ("labelSelector=tier+in+(back,x),n+notin+(1),n", vec!["i3", "i5"]),
        ("labelSelector=n%3E4", vec!["i5", "i6"]),
        ("fieldSelector=metadata.name%3Di2", vec!["i2"]),
        (
            "fieldSelector=metadata.name!%3Di2,metadata.namespace%3Ddefault&labelSelector=tier%3Dfront",
            vec!["i0", "i4", "i6"],
        ),
        ("fieldSelector=status.phase%3DPending&labelSelector=n%3D0", vec!["i0"]),
    ] {
        assert_eq!(
            names(&s.get(&format!("{INSTANCES}?{query}")).await.ok()),
            expect,
            "{query}"
        );
    }
    assert_eq!(
        names(&s.get("instances?fieldSelector=spec.nodeName%3Dn2").await.ok()),
        ["far"]
    );

    for selector in ["", "&labelSelector=n"] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        let first_revision = s.store.revision().await.unwrap().to_string();
        loop {
            let page = s
                .get(&format!("{INSTANCES}?limit=3{selector}&continue={token}"))
                .await
                .ok();
            assert!(names(&page).len() <= 3);
            assert_eq!(page["metadata"]["resourceVersion"], json!(first_revision));
            seen.extend(names(&page));
            // A write between the pages neither loses nor repeats what was there.
            s.merge("nodes/none", &json!({})).await.fails(404, "NotFound");
            match page["metadata"]["continue"].as_str() {
                Some(t) => token = t.into(),
                None => break,
            }
        }
        assert_eq!(seen, ["i0", "i1", "i2", "i3", "i4", "i5", "i6"], "{selector}");
    }
    let first = s.get(&format!("{INSTANCES}?limit=3")).await.ok();
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    let token = first["metadata"]["continue"].as_str().unwrap();
    s.instance("late", json!({})).await;
    s.store.compact(s.store.revision().await.unwrap()).await.unwrap();
    s.get(&format!("{INSTANCES}?limit=3&continue={token}"))
        .await
        .fails(410, "Expired");

    let gone = s.delete(&format!("{INSTANCES}?labelSelector=tier%3Dback")).await.ok();
    assert_eq!(gone["items"].as_array().unwrap().len(), 3);
    assert!(s.get(&format!("{INSTANCES}/i1")).await.ok()["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_metadata_only() {
    let s = Stack::start().await;
    s.instance("web", json!({"a": "b"})).await;
    let t = s.get_as(INSTANCES, TABLE).await.ok();
    let names: Vec<&str> = t["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(&names[..4], ["Name", "Isolation", "Image", "Status"]);
    let narrow = t["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["priority"] == 0)
        .count();
    assert_eq!(names[narrow - 1], "Age");
    let row = &t["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap().len(), names.len());
    assert_eq!(
        (&row["cells"][0], &row["cells"][1]),
        (&json!("web"), &json!("container"))
    );
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"]["labels"]["a"], "b");
    let whole = s.get_as(&format!("{INSTANCES}?includeObject=Object"), TABLE).await.ok();
    assert_eq!(whole["rows"][0]["object"]["spec"]["image"], "busybox");
    let none = s
        .get_as(&format!("{INSTANCES}/web?includeObject=None"), TABLE)
        .await
        .ok();
    assert_eq!(none["rows"][0].get("object"), None);
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let p = s.get_as(INSTANCES, partial).await.ok();
    assert_eq!(
        (&p["kind"], &p["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("web"))
    );
    assert_eq!(p["items"][0].get("spec"), None);
    s.get_as(INSTANCES, "text/html").await.fails(406, "NotAcceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated_and_dry_runs_write_nothing() {
    let s = Stack::start().await;
    let body = json!({"metadata": {"generateName": "job-"}, "spec": {"image": "b"}});
    let a = s.post(INSTANCES, &body).await.ok()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_string();
    let b = s.post(INSTANCES, &body).await.ok()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_string();
    assert!(a.starts_with("job-") && a.len() == 9 && a != b, "{a} {b}");
    let before = s.store.revision().await.unwrap();
    let dry = s
        .post(
            &format!("{INSTANCES}?dryRun=All"),
            &json!({"metadata": {"name": "dry"}, "spec": {"image": "b"}}),
        )
        .await;
    assert_eq!(dry.code, 201);
    let dry = s
        .merge(
            &format!("{INSTANCES}/{a}?dryRun=All"),
            &json!({"spec": {"power": "Stopped"}}),
        )
        .await
        .ok();
    assert_eq!(dry["metadata"]["generation"], 2);
    assert_eq!(s.store.revision().await.unwrap(), before);
    s.post(&format!("{INSTANCES}?dryRun=Some"), &body)
        .await
        .fails(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_hides_no_other() {
    let s = Stack::start().await;
    s.instance("good", json!({})).await;
    let key = typed::key::<Instance>("default", "bad");
    s.store
        .put(&key, "{not json".into(), biga_store::Precondition::None, None)
        .await
        .unwrap();
    let names = s.get(INSTANCES).await.ok();
    assert_eq!(names["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        s.get_as(INSTANCES, TABLE).await.ok()["rows"].as_array().unwrap().len(),
        1
    );
    s.get(&format!("{INSTANCES}/bad")).await.fails(500, "InternalError");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_core_group_are_there_to_be_read() {
    let s = Stack::start().await;
    let events = "/apis/biga.dev/v1/namespaces/default/events";
    for (name, kind, reason, type_) in [
        ("web", "Instance", "Started", "Normal"),
        ("web", "Instance", "Exited", "Warning"),
        ("other", "Instance", "Started", "Normal"),
        ("web", "Volume", "Made", "Normal"),
    ] {
        let regarding = json!({"kind": kind, "namespace": "default", "name": name, "uid": format!("uid-{name}")});
        let event = json!({"metadata": {"generateName": format!("{name}.")},
            "spec": {"reason": reason, "type": type_, "message": "m", "regarding": regarding, "time": "2026-01-02T03:04:05Z"}});
        s.post(events, &event).await.ok();
    }
    let core = "/api/v1/namespaces/default/events";
    let reasons = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        let mut all: Vec<String> = items.map(|i| i["reason"].as_str().unwrap().into()).collect();
        all.sort();
        all
    };
    let about = "involvedObject.kind%3DInstance%2CinvolvedObject.name%3Dweb%2CinvolvedObject.namespace%3Ddefault";
    let list = s
        .get(&format!(
            "{core}?fieldSelector={about}%2CinvolvedObject.uid%3Duid-web&limit=500"
        ))
        .await
        .ok();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("EventList"), &json!("v1"))
    );
    let first = &list["items"][0];
    assert_eq!(first["involvedObject"]["apiVersion"], "biga.dev/v1");
    assert_eq!(
        (&first["lastTimestamp"], &first["count"]),
        (&json!("2026-01-02T03:04:05Z"), &json!(1))
    );
    assert_eq!(reasons(list), ["Exited", "Started"]);
    let normal = s
        .get(&format!("{core}?fieldSelector={about}%2Ctype!%3DWarning"))
        .await
        .ok();
    assert_eq!(reasons(normal), ["Started"]);
    assert_eq!(s.get("/api/v1/events").await.ok()["items"].as_array().unwrap().len(), 4);
    let elsewhere = s.get("/api/v1/namespaces/lab/events").await.ok();
    assert_eq!(elsewhere["items"], json!([]));
    s.get(&format!("{core}?fieldSelector=spec.x%3D1"))
        .await
        .fails(400, "BadRequest");
    s.get(&format!("{core}?watch=1")).await.fails(405, "MethodNotAllowed");
    s.post(core, &json!({})).await.fails(405, "MethodNotAllowed");
    // Discovery does not name them: `kubectl get events` is to find the kind that can be written.
    assert_eq!(s.get("/api").await.ok()["versions"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_another_name_and_a_volume_does_not() {
    let s = Stack::start().await;
    let new = |name: &str| json!({"metadata": {"name": name}, "spec": {"image": "busybox"}});
    let made = s.post(INSTANCES, &new("web")).await.json();
    s.post(INSTANCES, &new("other")).await;
    let at = format!("{INSTANCES}/web/rename");
    s.post(&at, &json!({"name": "other"})).await.fails(409, "AlreadyExists");
    s.post(&at, &json!({"name": "-x"})).await.fails(422, "Invalid");
    s.post(&at, &json!({"title": "x"})).await.fails(400, "BadRequest");
    let stale = json!({"name": "site", "uid": "another"});
    s.post(&at, &stale).await.fails(409, "Conflict");
    s.get(&at).await.fails(405, "MethodNotAllowed");
    let dry = s.post(&format!("{at}?dryRun=All"), &json!({"name": "site"})).await.ok();
    assert_eq!(dry["metadata"]["name"], "site");
    s.get(&format!("{INSTANCES}/web")).await.ok();

    let uid = &made["metadata"]["uid"];
    let now = s.post(&at, &json!({"name": "site", "uid": uid})).await.ok();
    assert_eq!(
        (&now["metadata"]["uid"], &now["metadata"]["generation"]),
        (uid, &json!(2))
    );
    assert_eq!(s.get(&format!("{INSTANCES}/site")).await.ok(), now);
    s.get(&format!("{INSTANCES}/web")).await.fails(404, "NotFound");
    s.post(&at, &json!({"name": "again"})).await.fails(404, "NotFound");
    let volumes = INSTANCES.replace("/instances", "/volumes");
    s.post(&volumes, &json!({"metadata": {"name": "data"}, "spec": {}}))
        .await;
    let refused = s
        .post(&format!("{volumes}/data/rename"), &json!({"name": "more"}))
        .await;
    assert_eq!(refused.code, 404, "volumes are named by those who use them");
}
