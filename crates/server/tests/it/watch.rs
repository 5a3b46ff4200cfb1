//! Watches over HTTP.

use biga_store::Store;
use serde_json::{Value, json};

use crate::stack::{INSTANCES, Lines, Stack};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn pair(a: &str, b: &str) -> (String, String) {
    (a.into(), b.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_after_a_revision() {
    let s = Stack::start().await;
    s.instance("before", json!({})).await;
    let list = s.get(INSTANCES).await.ok();
    let rv = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=1&resourceVersion={rv}"), "*/*").await;
    let made = s.instance("web", json!({})).await;
    s.merge(&format!("{INSTANCES}/web"), &json!({"spec": {"power": "Stopped"}}))
        .await
        .ok();
    s.post("nodes", &json!({"metadata": {"name": "n"}})).await.ok();
    s.merge(&format!("{INSTANCES}/web"), &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    s.delete(&format!("{INSTANCES}/web")).await.ok();
    let first = w.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]), (&json!("ADDED"), &made));
    assert_eq!(w.event().await, pair("MODIFIED", "web"));
    assert_eq!(w.event().await, pair("MODIFIED", "web"));
    let gone = w.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    let now = s.store.revision().await.unwrap().to_string();
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"],
        json!(now),
        "a deletion carries its own revision"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_revision_the_present_comes_first() {
    let s = Stack::start().await;
    s.instance("a", json!({})).await;
    s.instance("b", json!({})).await;
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=true"), "*/*").await;
    assert_eq!(w.event().await, pair("ADDED", "a"));
    assert_eq!(w.event().await, pair("ADDED", "b"));
    s.instance("c", json!({})).await;
    assert_eq!(w.event().await, pair("ADDED", "c"));
    let q =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=0";
    let mut w = Lines::open(&s, &format!("{INSTANCES}?{q}"), "*/*").await;
    for n in ["a", "b", "c"] {
        assert_eq!(w.event().await, pair("ADDED", n));
    }
    let mark = w.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entering_and_leaving_a_selection() {
    let s = Stack::start().await;
    s.instance("in", json!({"app": "x"})).await;
    s.instance("out", json!({})).await;
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=1&labelSelector=app%3Dx"), "*/*").await;
    assert_eq!(w.event().await, pair("ADDED", "in"));
    let label = |v: Value| json!({"metadata": {"labels": {"app": v}}});
    s.merge(&format!("{INSTANCES}/out"), &label(json!("y"))).await.ok();
    s.merge(&format!("{INSTANCES}/out"), &label(json!("x"))).await.ok();
    assert_eq!(
        w.event().await,
        pair("ADDED", "out"),
        "a change outside the selection is not seen"
    );
    s.merge(&format!("{INSTANCES}/out"), &json!({"spec": {"power": "Stopped"}}))
        .await
        .ok();
    assert_eq!(w.event().await, pair("MODIFIED", "out"));
    s.merge(&format!("{INSTANCES}/in"), &label(json!(null))).await.ok();
    assert_eq!(w.event().await, pair("DELETED", "in"));
    s.delete(&format!("{INSTANCES}/in")).await.ok();
    s.merge(&format!("{INSTANCES}/out"), &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(w.event().await, pair("MODIFIED", "out"));
    s.delete(&format!("{INSTANCES}/out")).await.ok();
    assert_eq!(w.event().await, pair("DELETED", "out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_revisions_are_gone() {
    let s = Stack::with_history(4).await;
    for i in 0..10 {
        s.instance(&format!("i{i}"), json!({})).await;
    }
    s.get(&format!("{INSTANCES}?watch=1&resourceVersion=1"))
        .await
        .fails(410, "Expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_carry_their_heading_once() {
    let s = Stack::start().await;
    s.instance("a", json!({})).await;
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=1"), TABLE).await;
    let first = w.next().await.unwrap();
    assert_eq!(
        (&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]),
        (&json!("Table"), &json!("a"))
    );
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    s.instance("b", json!({})).await;
    let second = w.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_time_and_a_bookmark() {
    let s = Stack::start().await;
    s.instance("a", json!({})).await;
    let rv = s.store.revision().await.unwrap();
    s.post("nodes", &json!({"metadata": {"name": "n"}})).await.ok();
    let q = format!("watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={rv}");
    let mut w = Lines::open(&s, &format!("{INSTANCES}?{q}"), "*/*").await;
    let mark = w.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    let now = s.store.revision().await.unwrap().to_string();
    assert_eq!(
        mark["object"]["metadata"]["resourceVersion"],
        json!(now),
        "others' writes move the bookmark"
    );
    assert_eq!(w.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_with_the_server() {
    let mut s = Stack::start().await;
    s.instance("a", json!({})).await;
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=1"), "*/*").await;
    assert_eq!(w.event().await, pair("ADDED", "a"));
    s.shutdown.cancel();
    assert_eq!(w.next().await, None);
    let task = s.task.take().unwrap();
    tokio::time::timeout(crate::stack::PATIENCE, task)
        .await
        .unwrap()
        .unwrap();
    assert!(!s.socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_told_to_list_again() {
    let s = Stack::with_history(4).await;
    s.instance("a", json!({})).await;
    let mut w = Lines::open(&s, &format!("{INSTANCES}?watch=1"), "*/*").await;
    assert_eq!(w.event().await, pair("ADDED", "a"));
    // Far more than all buffers on the way hold.
    for i in 0..60 {
        let note = json!({"metadata": {"annotations": {"n": format!("{i}{}", "x".repeat(200_000))}}});
        s.merge(&format!("{INSTANCES}/a"), &note).await.ok();
    }
    let last = loop {
        match w.next().await {
            Some(e) if e["type"] == "MODIFIED" => {}
            other => break other.unwrap(),
        }
    };
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(
        (&last["object"]["kind"], &last["object"]["reason"]),
        (&json!("Status"), &json!("Expired"))
    );
    assert_eq!(w.next().await, None);
}
