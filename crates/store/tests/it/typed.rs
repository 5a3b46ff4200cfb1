//! The typed handles.

use std::sync::Arc;

use biga_model::{Instance, InstanceSpec, Node, Object, Phase, Power};
use biga_store::typed::{self, DeleteOptions, Deletion, Error, ObjectEvent};
use biga_store::{MemoryStore, Objects, Precondition, SpecWriter, StatusWriter, Store};
use futures_util::StreamExt;

fn handles() -> (
    Arc<dyn Store>,
    Objects<Instance>,
    SpecWriter<Instance>,
    StatusWriter<Instance>,
) {
    let s: Arc<dyn Store> = MemoryStore::new().unwrap();
    (
        s.clone(),
        Objects::new(s.clone()),
        SpecWriter::new(s.clone()),
        StatusWriter::new(s),
    )
}

fn web() -> Object<Instance> {
    Object::new(
        "web",
        InstanceSpec {
            image: "busybox".into(),
            ..InstanceSpec::default()
        },
    )
}

#[test]
fn keys_are_paths() {
    assert_eq!(
        typed::key::<Instance>("default", "web"),
        "/biga.dev/instances/default/web"
    );
    assert_eq!(typed::key::<Node>("ignored", "n1"), "/biga.dev/nodes/n1");
    assert_eq!(typed::prefix::<Instance>(None), "/biga.dev/instances/");
    assert_eq!(typed::prefix::<Instance>(Some("a")), "/biga.dev/instances/a/");
    assert_eq!(typed::prefix::<Node>(Some("a")), "/biga.dev/nodes/");
}

#[tokio::test]
async fn spec_and_status_have_writers_of_their_own() {
    let (store, objects, spec, status) = handles();
    let made = spec.create(web()).await.unwrap();
    assert_eq!((made.metadata.generation, made.metadata.finalizers.len()), (1, 1));
    assert_eq!(objects.get("default", "web").await.unwrap(), made);
    let stored = store.get("/biga.dev/instances/default/web").await.unwrap().unwrap();
    assert!(stored.value.starts_with(typed::head::<Instance>().as_bytes()));
    assert!(matches!(spec.create(web()).await, Err(Error::AlreadyExists { .. })));

    let uid = made.uid().to_string();
    let seen = status
        .modify_status("default", "web", &uid, |s| s.phase = Phase::Running)
        .await
        .unwrap();
    assert_eq!(
        (seen.metadata.generation, seen.status_or_default().phase),
        (1, Phase::Running)
    );
    let same = status
        .modify_status("default", "web", &uid, |s| s.phase = Phase::Running)
        .await
        .unwrap();
    assert_eq!(
        same.metadata.resource_version, seen.metadata.resource_version,
        "no write where nothing changed"
    );
    assert!(
        status
            .modify_status("default", "web", "other", |_| ())
            .await
            .unwrap_err()
            .is_not_found()
    );

    let mut stale = made.clone();
    stale.spec.power = Power::Stopped;
    assert!(spec.update(stale).await.unwrap_err().is_conflict());
    let mut fresh = seen.clone();
    fresh.spec.power = Power::Stopped;
    fresh.status = None;
    fresh.metadata.generation = 77;
    fresh.metadata.uid.clear();
    let updated = spec.update(fresh).await.unwrap();
    assert_eq!((updated.metadata.generation, updated.uid()), (2, uid.as_str()));
    assert_eq!(
        updated.status_or_default().phase,
        Phase::Running,
        "the spec's writer keeps the status"
    );
    let same = spec
        .modify("default", "web", |o| o.spec.power = Power::Stopped)
        .await
        .unwrap();
    assert_eq!(same, updated);
}

#[tokio::test]
async fn both_writers_at_once_lose_nothing() {
    let (_, objects, spec, status) = handles();
    let made = spec.create(web()).await.unwrap();
    let uid = made.uid().to_string();
    let specs = async {
        for i in 0..20 {
            spec.modify("default", "web", |o| o.spec.restart_request = i + 1)
                .await
                .unwrap();
        }
    };
    let statuses = async {
        for _ in 0..20 {
            status
                .modify_status("default", "web", &uid, |s| s.restart_count += 1)
                .await
                .unwrap();
        }
    };
    tokio::join!(specs, statuses);
    let end = objects.get("default", "web").await.unwrap();
    assert_eq!(
        (
            end.spec.restart_request,
            end.status_or_default().restart_count,
            end.metadata.generation
        ),
        (20, 20, 21)
    );
}

#[tokio::test]
async fn a_deletion_waits_for_the_finalizer() {
    let (_, objects, spec, status) = handles();
    let made = spec.create(web()).await.unwrap();
    let uid = made.uid().to_string();
    let kept = status
        .remove_finalizer("default", "web", &uid, "no/such")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept, made);
    let wrong = DeleteOptions {
        uid: Some("x".into()),
        ..DeleteOptions::default()
    };
    assert!(spec.delete("default", "web", &wrong).await.unwrap_err().is_conflict());
    let options = DeleteOptions {
        grace_seconds: Some(3),
        ..DeleteOptions::default()
    };
    let Deletion::Waiting(marked) = spec.delete("default", "web", &options).await.unwrap() else {
        panic!("it went without its finalizer");
    };
    assert_eq!(
        (marked.is_deleting(), marked.metadata.deletion_grace_period_seconds),
        (true, Some(3))
    );
    let again = spec.delete("default", "web", &DeleteOptions::default()).await.unwrap();
    assert!(
        matches!(again, Deletion::Waiting(o) if o == marked),
        "asking twice changes nothing"
    );
    let added = spec
        .modify("default", "web", |o| o.metadata.finalizers.push("late/one".into()))
        .await
        .unwrap();
    assert_eq!(
        added.metadata.finalizers, marked.metadata.finalizers,
        "too late for another finalizer"
    );
    assert_eq!(
        status
            .remove_finalizer("default", "web", &uid, "biga.dev/agent")
            .await
            .unwrap(),
        None
    );
    assert_eq!(objects.find("default", "web").await.unwrap(), None);
    assert_eq!(
        status
            .remove_finalizer("default", "web", &uid, "biga.dev/agent")
            .await
            .unwrap(),
        None
    );
    let second = spec.create(web()).await.unwrap();
    spec.delete("default", "web", &DeleteOptions::default()).await.unwrap();
    let mut bare = objects.get("default", "web").await.unwrap();
    bare.metadata.finalizers.clear();
    spec.update(bare).await.unwrap();
    assert_eq!(
        objects.find("default", "web").await.unwrap(),
        None,
        "the last finalizer may also go by an update"
    );
    assert_ne!(second.uid(), uid);
}

#[tokio::test]
async fn watches_are_typed_and_survive_damaged_entries() {
    let (store, objects, spec, status) = handles();
    let list = objects.list(None).await.unwrap();
    let mut w = objects.watch(Some("default"), Some(list.revision)).await.unwrap();
    let made = spec.create(web()).await.unwrap();
    let bad = typed::key::<Instance>("default", "bad");
    store.put(&bad, "{".into(), Precondition::None, None).await.unwrap();
    status
        .modify_status("default", "web", "", |s| s.phase = Phase::Running)
        .await
        .unwrap();
    spec.modify("default", "web", |o| o.metadata.finalizers.clear())
        .await
        .unwrap();
    spec.delete("default", "web", &DeleteOptions::default()).await.unwrap();
    let Some(Ok(ObjectEvent::Put { object })) = w.next().await else {
        panic!()
    };
    assert_eq!(*object, made);
    assert!(matches!(w.next().await, Some(Err(Error::Damaged { .. }))));
    let Some(Ok(ObjectEvent::Put { object })) = w.next().await else {
        panic!()
    };
    assert_eq!(object.status_or_default().phase, Phase::Running);
    assert!(matches!(w.next().await, Some(Ok(ObjectEvent::Put { .. }))));
    let Some(Ok(ObjectEvent::Deleted { object })) = w.next().await else {
        panic!()
    };
    assert_eq!(object.name(), "web");
    assert_eq!(
        objects.list(None).await.unwrap().items,
        [],
        "what cannot be read is left out"
    );
}

#[tokio::test]
async fn a_watch_of_one_object_hears_of_no_other() {
    let (_, objects, spec, status) = handles();
    let mut w = objects.watch_one("default", "web", None).await.unwrap();
    let mut removed = objects.watch_removals(None, None).await.unwrap();
    let mut other = web();
    other.metadata.name = "web-2".into();
    spec.create(other).await.unwrap();
    let made = spec.create(web()).await.unwrap();
    assert!(
        status
            .remove_finished("default", "web-2", "", biga_model::AGENT_FINALIZER)
            .await
            .unwrap()
    );
    let finalizer = biga_model::AGENT_FINALIZER;
    assert!(
        status
            .remove_finished("default", "web", made.uid(), finalizer)
            .await
            .unwrap()
    );
    let Some(Ok(ObjectEvent::Put { object })) = w.next().await else {
        panic!()
    };
    assert_eq!(*object, made);
    let Some(Ok(ObjectEvent::Deleted { object })) = w.next().await else {
        panic!()
    };
    assert_eq!(object.name(), "web");
    for name in ["web-2", "web"] {
        let Some(Ok(ObjectEvent::Deleted { object })) = removed.next().await else {
            panic!()
        };
        assert_eq!(object.name(), name);
    }
}

#[tokio::test]
async fn what_others_wait_for_is_not_removed_in_one_step() {
    let (_, objects, spec, status) = handles();
    let mut o = web();
    o.metadata.finalizers.push("somebody/else".into());
    let uid = spec.create(o).await.unwrap().metadata.uid;
    let finalizer = biga_model::AGENT_FINALIZER;
    assert!(!status.remove_finished("default", "web", &uid, finalizer).await.unwrap());
    assert!(objects.find("default", "web").await.unwrap().is_some());
    // Another object of that name is none of its business, and one that is gone is gone.
    assert!(
        status
            .remove_finished("default", "web", "another", finalizer)
            .await
            .unwrap()
    );
    assert!(objects.find("default", "web").await.unwrap().is_some());
}

#[tokio::test]
async fn a_rename_keeps_all_but_the_name_and_takes_those_along_that_refer_to_it() {
    let (_, objects, spec, status) = handles();
    let made = spec.create(web()).await.unwrap();
    let uid = made.uid().to_string();
    status
        .modify_status("default", "web", &uid, |s| s.phase = Phase::Running)
        .await
        .unwrap();
    let mut beside = web();
    beside.metadata.name = "beside".into();
    beside.spec.namespaces.network = Some("web".into());
    spec.create(beside).await.unwrap();
    let mut stranger = web();
    stranger.metadata.name = "stranger".into();
    let stranger = spec.create(stranger).await.unwrap();
    let mut changes = objects.watch(None, None).await.unwrap();
    let mut one = objects.watch_one("default", "web", None).await.unwrap();

    assert!(matches!(
        spec.rename(&made, "stranger").await,
        Err(Error::AlreadyExists { name, .. }) if name == "stranger"
    ));
    let now = spec.rename(&made, "site").await.unwrap();
    assert_eq!(objects.get("default", "site").await.unwrap(), now);
    assert!(objects.find("default", "web").await.unwrap().is_none());
    assert_eq!((now.uid(), now.metadata.generation), (uid.as_str(), 2));
    assert_eq!(now.status_or_default().phase, Phase::Running);
    let beside = objects.get("default", "beside").await.unwrap();
    assert_eq!(beside.spec.namespaces.network.as_deref(), Some("site"));
    assert_eq!(beside.metadata.generation, 2);
    assert_eq!(objects.get("default", "stranger").await.unwrap(), stranger);

    // Whoever keeps uids hears of the new name before the old one goes.
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(match changes.next().await.unwrap().unwrap() {
            ObjectEvent::Put { object } => format!("+{}", object.name()),
            ObjectEvent::Deleted { object } => format!("-{}", object.name()),
        });
    }
    assert_eq!(told, ["+site", "-web", "+beside"]);
    // Who watches the one goes on under its new name.
    let Some(Ok(ObjectEvent::Put { object })) = one.next().await else {
        panic!("not told as a change")
    };
    assert_eq!((object.name(), object.uid()), ("site", uid.as_str()));

    // Writers that know only the old name reach it, and end its life.
    let seen = status
        .modify_status("default", "web", &uid, |s| s.phase = Phase::Exited)
        .await
        .unwrap();
    assert_eq!(seen.name(), "site");
    let Some(Ok(ObjectEvent::Put { object })) = one.next().await else {
        panic!("no change")
    };
    assert_eq!(object.status_or_default().phase, Phase::Exited);
    let finalizer = biga_model::AGENT_FINALIZER;
    assert!(status.remove_finished("default", "web", &uid, finalizer).await.unwrap());
    assert!(objects.find("default", "site").await.unwrap().is_none());
    assert!(matches!(one.next().await, Some(Ok(ObjectEvent::Deleted { .. }))));
    assert!(spec.rename(&now, "again").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_rename_beside_other_writers_loses_nothing() {
    let (_, objects, spec, status) = handles();
    let made = spec.create(web()).await.unwrap();
    let uid = made.uid().to_string();
    let (writer, of) = (status.clone(), uid.clone());
    let busy = tokio::spawn(async move {
        for n in 1..=200u64 {
            writer
                .modify_status("default", "web", &of, |s| s.observed_restart = n)
                .await
                .unwrap();
        }
    });
    let mut at = made;
    for n in 0..50 {
        at = spec.rename(&at, &format!("web-{n}")).await.unwrap();
        tokio::task::yield_now().await;
    }
    busy.await.unwrap();
    let all = objects.list(None).await.unwrap().items;
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].name(), all[0].uid()), ("web-49", uid.as_str()));
    assert_eq!(all[0].status_or_default().observed_restart, 200);
}

#[tokio::test]
async fn what_is_being_removed_keeps_its_name() {
    let (_, _, spec, _) = handles();
    let made = spec.create(web()).await.unwrap();
    spec.delete("default", "web", &DeleteOptions::default()).await.unwrap();
    assert!(spec.rename(&made, "site").await.unwrap_err().is_conflict());
}
