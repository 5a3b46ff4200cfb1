//! The driver upon a store in memory.

use std::sync::Arc;
use std::time::Duration;

use biga_control::schedule::AtBirth;
use biga_control::{Action, Driver, Options};
use biga_model::{Event, Instance, Isolation, Node, Object, OwnerReference, Timestamp, Volume, VolumeSpec};
use biga_store::typed::{DeleteOptions, Propagation};
use biga_store::{MemoryStore, Objects, SpecWriter, StatusWriter, Store};
use tokio_util::sync::CancellationToken;

use crate::plans::{instance, node};

const PATIENCE: Duration = Duration::from_secs(60);

fn store() -> Arc<dyn Store> {
    MemoryStore::new().unwrap()
}

async fn add_node(store: &Arc<dyn Store>, n: Object<Node>) {
    let status = n.status.clone().unwrap();
    let made = SpecWriter::new(store.clone()).create(n).await.unwrap();
    StatusWriter::<Node>::new(store.clone())
        .replace(&made, status)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_instance_waits_for_a_node_and_gets_it() {
    let store = store();
    let mut driver = Driver::new(store.clone(), Options::default());
    let objects = Objects::<Instance>::new(store.clone());
    let made = SpecWriter::new(store.clone())
        .create(instance("web", Isolation::Vm, 0, None))
        .await
        .unwrap();
    driver.round(Timestamp::now()).await.unwrap();
    let waits = objects.get("default", "web").await.unwrap();
    let c = &waits.status_or_default().conditions[0];
    assert_eq!(
        (c.type_.as_str(), c.status.as_str(), c.reason.as_str()),
        ("Scheduled", "False", "Unschedulable")
    );
    let told = Objects::<Event>::new(store.clone()).list(None).await.unwrap().items;
    assert_eq!((told.len(), &told[0].spec.regarding.uid), (1, &made.metadata.uid));
    assert_eq!(driver.round(Timestamp::now()).await.unwrap(), [], "it is told once");

    add_node(&store, node("n1", 8, &["vm"], true, false)).await;
    driver.round(Timestamp::now()).await.unwrap();
    let placed = objects.get("default", "web").await.unwrap();
    assert_eq!(placed.spec.node_name.as_deref(), Some("n1"));
    assert_eq!(placed.metadata.generation, 2);
    assert_eq!(placed.status_or_default().conditions[0].status, "True");
    assert_eq!(driver.round(Timestamp::now()).await.unwrap(), []);
}

#[tokio::test]
async fn an_only_node_is_taken_in_the_write_that_makes_the_instance() {
    let store = store();
    let specs = SpecWriter::new(store.clone()).completed_by(Arc::new(AtBirth::new(store.clone())));
    let made = |name: &'static str, on: Option<&'static str>| {
        let mut i = instance(name, Isolation::Vm, 0, None);
        i.spec.node_name = on.map(str::to_owned);
        specs.create(i)
    };
    let place = |o: Object<Instance>| (o.spec.node_name, o.metadata.generation);
    assert_eq!(
        place(made("early", None).await.unwrap()),
        (None, 1),
        "there is no node yet"
    );
    add_node(&store, node("n1", 8, &["vm"], true, false)).await;
    add_node(&store, node("other", 8, &["container"], true, false)).await;
    assert_eq!(place(made("web", None).await.unwrap()), (Some("n1".into()), 1));
    assert_eq!(
        place(made("own", Some("other")).await.unwrap()),
        (Some("other".into()), 1)
    );
    add_node(&store, node("n2", 8, &["vm"], true, false)).await;
    assert_eq!(
        place(made("choice", None).await.unwrap()),
        (None, 1),
        "the scheduler weighs two"
    );
    let mut driver = Driver::new(store.clone(), Options::default());
    assert_eq!(driver.round(Timestamp::now()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_running_driver_reacts_to_changes() {
    let store = store();
    add_node(&store, node("n1", 8, &["container"], true, false)).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(Driver::new(store.clone(), Options::default()).run(stop.clone()));
    SpecWriter::new(store.clone())
        .create(instance("web", Isolation::Container, 0, None))
        .await
        .unwrap();
    let objects = Objects::<Instance>::new(store.clone());
    let placed = async {
        while objects.get("default", "web").await.unwrap().spec.node_name.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, placed).await.unwrap();
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}

/// An owner without finalizers of its kind, and a volume that it owns.
async fn family(store: &Arc<dyn Store>) -> (SpecWriter<Node>, Objects<Volume>) {
    let nodes = SpecWriter::<Node>::new(store.clone());
    let owner = nodes.create(Object::new("owner", Default::default())).await.unwrap();
    let mut child = Object::<Volume>::new("child", VolumeSpec::default());
    child.metadata.owner_references = vec![OwnerReference {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.metadata.name.clone(),
        uid: owner.metadata.uid.clone(),
        controller: None,
        block_owner_deletion: None,
    }];
    SpecWriter::new(store.clone()).create(child).await.unwrap();
    (nodes, Objects::new(store.clone()))
}

async fn delete(nodes: &SpecWriter<Node>, propagation: Propagation) {
    let options = DeleteOptions {
        propagation,
        ..DeleteOptions::default()
    };
    nodes.delete("", "owner", &options).await.unwrap();
}

async fn settle(driver: &mut Driver) {
    for _ in 0..10 {
        if driver.round(Timestamp::now()).await.unwrap().is_empty() {
            return;
        }
    }
    panic!("the controllers do not come to rest");
}

#[tokio::test]
async fn deletions_propagate_as_asked() {
    for propagation in [Propagation::Background, Propagation::Foreground, Propagation::Orphan] {
        let store = store();
        let mut driver = Driver::new(store.clone(), Options::default());
        let (nodes, volumes) = family(&store).await;
        assert_eq!(driver.round(Timestamp::now()).await.unwrap(), []);
        delete(&nodes, propagation).await;
        settle(&mut driver).await;
        let owner = Objects::<Node>::new(store.clone()).find("", "owner").await.unwrap();
        let child = volumes.get("default", "child").await.unwrap();
        match propagation {
            Propagation::Orphan => {
                assert_eq!(owner, None);
                assert!(!child.is_deleting() && child.metadata.owner_references.is_empty());
                continue;
            }
            Propagation::Background => assert_eq!(owner, None),
            Propagation::Foreground => assert!(owner.is_some_and(|o| o.is_deleting()), "it waits for its dependent"),
        }
        assert!(child.is_deleting());
        let agent = StatusWriter::<Volume>::new(store.clone());
        agent
            .remove_finalizer("default", "child", "", "biga.dev/agent")
            .await
            .unwrap();
        settle(&mut driver).await;
        assert_eq!(
            Objects::<Node>::new(store.clone()).find("", "owner").await.unwrap(),
            None
        );
        assert_eq!(volumes.find("default", "child").await.unwrap(), None);
    }
}

#[tokio::test]
async fn old_history_is_forgotten() {
    let store = store();
    let mut driver = Driver::new(store.clone(), Options::default());
    let nodes = SpecWriter::<Node>::new(store.clone());
    nodes.create(Object::new("a", Default::default())).await.unwrap();
    nodes.create(Object::new("b", Default::default())).await.unwrap();
    let at = |s: i64| Timestamp::from_second(1_000_000 + s).unwrap();
    assert_eq!(driver.round(at(0)).await.unwrap(), []);
    assert!(store.watch("/", Some(1)).await.is_ok());
    assert_eq!(driver.round(at(300)).await.unwrap(), [Action::Compact { revision: 2 }]);
    assert!(matches!(
        store.watch("/", Some(1)).await,
        Err(biga_store::Error::TooOld { .. })
    ));
    assert!(store.watch("/", Some(2)).await.is_ok());
}
