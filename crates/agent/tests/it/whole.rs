//! Store, API, control and agent in one process, with a runtime without processes: what one layer writes, the next
//! reads, and nothing needs root.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use biga_api_kube::Registry;
use biga_control::{Driver, Options};
use biga_model::kinds::node::NodeStatus;
use biga_model::{Condition, Event, Instance, Isolation, Node, Object, Phase, Timestamp};
use biga_runtime::fake::Fake;
use biga_store::typed::{SpecWriter, StatusWriter};
use biga_store::{MemoryStore, Store};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tower::Service;

use crate::instances::{NODE, Stack};

const INSTANCES: &str = "/apis/biga.dev/v1/namespaces/default/instances";

struct Whole {
    api: Router,
    agent: Stack,
    _control: DropGuard,
}

impl Whole {
    async fn start() -> Whole {
        let store: Arc<dyn Store> = MemoryStore::new().unwrap();
        let node = Object::<Node>::new(NODE, Default::default());
        let made = SpecWriter::new(store.clone()).create(node).await.unwrap();
        let mut status = NodeStatus {
            isolations: vec!["container".into()],
            memory: 1 << 30,
            ..NodeStatus::default()
        };
        Condition::set(&mut status.conditions, "Ready", true, "Ready", "", Timestamp::now());
        StatusWriter::<Node>::new(store.clone())
            .replace(&made, status)
            .await
            .unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(Driver::new(store.clone(), Options::default()).run(stop.clone()));
        let api = Registry::new(store.clone())
            .with::<Instance>()
            .with::<Node>()
            .with::<Event>()
            .router();
        Whole {
            api,
            agent: Stack::over(store, Fake::new(Isolation::Container)),
            _control: stop.drop_guard(),
        }
    }

    async fn call(&self, method: &str, path: &str, media: &str, body: Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.api.clone().call(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{method} {path}: {status} {bytes:?}");
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn get(&self, name: &str) -> Value {
        self.call("GET", &format!("{INSTANCES}/{name}"), "application/json", Value::Null)
            .await
    }
}

#[tokio::test]
async fn a_request_goes_through_all_layers_and_back() {
    let w = Whole::start().await;
    let web = json!({"apiVersion": "biga.dev/v1", "kind": "Instance", "metadata": {"name": "web"},
        "spec": {"image": "busybox"}});
    let made = w.call("POST", INSTANCES, "application/json", web).await;
    assert_eq!(
        (&made["spec"]["nodeName"], &made["status"]),
        (&Value::Null, &Value::Null)
    );
    w.agent.until_phase("web", Phase::Running).await;
    let runs = w.get("web").await;
    assert_eq!(runs["spec"]["nodeName"], NODE, "control placed it");
    assert_eq!(runs["status"]["node"], NODE, "the agent says where it runs");
    let uid = runs["metadata"]["uid"].as_str().unwrap().to_string();
    assert_eq!(w.agent.host.runtime.held(), [uid]);

    let off = json!({"spec": {"power": "Stopped"}});
    let path = format!("{INSTANCES}/web");
    w.call("PATCH", &path, "application/merge-patch+json", off).await;
    w.agent.until_phase("web", Phase::Exited).await;
    assert_eq!(w.get("web").await["status"]["exitCode"], 143);

    w.call("DELETE", &path, "application/json", json!({})).await;
    w.agent.until("web", "its removal", |o| o.is_none()).await;
    assert!(w.agent.host.runtime.held().is_empty());
}

#[tokio::test]
async fn what_no_node_takes_is_told_and_can_be_deleted() {
    let w = Whole::start().await;
    let disk = json!({"metadata": {"name": "disk"}, "spec": {"image": "debian", "isolation": "vm"}});
    w.call("POST", INSTANCES, "application/json", disk).await;
    let told = |o: Option<&Object<Instance>>| {
        let conditions = o.map(|o| o.status_or_default().conditions).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Scheduled" && c.status == "False")
    };
    w.agent.until("disk", "why it waits", told).await;
    w.call("DELETE", &format!("{INSTANCES}/disk"), "application/json", json!({}))
        .await;
    w.agent.until("disk", "its removal", |o| o.is_none()).await;
}
