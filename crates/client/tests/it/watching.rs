//! Watches that break, end and grow old.

use std::time::Duration;

use biga_client::{ErrorKind, ListParams, WatchEvent};
use biga_model::Volume;
use serde_json::{Value, json};

use crate::script::{Script, json as answer, lines};

fn volume(name: &str, rv: u64) -> Value {
    json!({"apiVersion": "biga.dev/v1", "kind": "Volume", "metadata": {"name": name, "namespace": "default", "resourceVersion": rv.to_string()}})
}

fn event(type_: &str, object: Value) -> Value {
    json!({"type": type_, "object": object})
}

fn list(rv: u64, items: &[Value]) -> String {
    answer(
        200,
        &json!({"metadata": {"resourceVersion": rv.to_string()}, "items": items}),
    )
}

fn show(e: &WatchEvent<Volume>) -> String {
    match e {
        WatchEvent::Listed(all) => {
            let names: Vec<&str> = all.iter().map(|o| o.name()).collect();
            format!("listed {}", names.join(","))
        }
        WatchEvent::Applied(o) => format!("applied {}", o.name()),
        WatchEvent::Deleted(o) => format!("deleted {}", o.name()),
    }
}

#[tokio::test]
async fn a_broken_watch_goes_on_and_an_old_one_lists_again() {
    let gone = json!({"kind": "Status", "reason": "Expired", "code": 410, "message": "too old"});
    let s = Script::play(vec![
        list(10, &[volume("a", 5)]),
        lines(&[event("ADDED", volume("b", 11)), event("BOOKMARK", volume("", 15))]),
        lines(&[event("MODIFIED", volume("b", 16)), event("DELETED", volume("a", 17))]),
        lines(&[event("ERROR", gone.clone())]),
        list(40, &[volume("c", 30)]),
        answer(410, &gone),
        list(50, &[volume("c", 30), volume("d", 45)]),
        lines(&[event("ADDED", volume("e", 51))]),
    ]);
    let mut w = s.client().api::<Volume>("default").watch(&ListParams::default());
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(show(&w.next_event().await.unwrap()));
    }
    assert_eq!(
        seen,
        [
            "listed a",
            "applied b",
            "applied b",
            "deleted a",
            "listed c",
            "listed c,d",
            "applied e"
        ]
    );
    let revisions: Vec<String> = s
        .seen()
        .iter()
        .map(|l| match l.split_once("resourceVersion=") {
            Some((_, r)) => r.split([' ', '&']).next().unwrap().to_string(),
            None => "list".into(),
        })
        .collect();
    assert_eq!(revisions, ["list", "10", "15", "17", "list", "40", "list", "50"]);
}

#[tokio::test]
async fn a_daemon_that_stays_away_is_given_up() {
    let s = Script::play(vec![list(1, &[])]);
    let client = s.client();
    let mut w = client
        .api::<Volume>("default")
        .watch(&ListParams::default())
        .give_up_after(Duration::from_millis(50));
    assert_eq!(show(&w.next_event().await.unwrap()), "listed ");
    let e = w.next_event().await.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unreachable, "{e}");
}

#[tokio::test]
async fn a_daemon_that_was_never_there_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = biga_client::Endpoint::Unix(dir.path().join("none"));
    let client = biga_client::Client::new(at);
    let mut w = client.api::<Volume>("default").watch(&ListParams::default());
    let e = w.next_event().await.unwrap_err();
    assert!(e.message.ends_with("is `biga serve` running?"), "{e}");
}

#[tokio::test]
async fn waiting_ends_when_the_condition_holds() {
    let s = Script::play(vec![
        list(1, &[]),
        lines(&[event("ADDED", volume("x", 2)), event("DELETED", volume("x", 3))]),
    ]);
    let mut states = Vec::new();
    s.client()
        .api::<Volume>("default")
        .wait_for("x", |o| {
            states.push(o.is_some());
            (states.len() == 3).then_some(())
        })
        .await
        .unwrap();
    assert_eq!(states, [false, true, false]);
    assert!(
        s.seen()[1].contains("fieldSelector=metadata.name%3Dx"),
        "{:?}",
        s.seen()
    );
}
