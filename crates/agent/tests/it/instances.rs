//! What users ask of an instance, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use biga_agent::instance::manager::Manager;
use biga_agent::instance::{Failure, Host, limits};
use biga_model::{
    Instance, InstanceSpec, InstanceStatus, Isolation, Memory, Object, Phase, Power, RestartPolicy, RestartWhen,
};
use biga_runtime::Runtime;
use biga_runtime::fake::Fake;
use biga_store::Store;
use biga_store::typed::{DeleteOptions, ObjectEvent, Objects, SpecWriter};
use biga_wire::config::{Log, Pod, PodContainer, ShimConfig, Workload};
use biga_wire::shim::Exit;
use futures_util::StreamExt;
use parking_lot::Mutex;

pub const NODE: &str = "here";

/// A host that prepares nothing and remembers what it was asked.
pub struct FakeHost {
    pub runtime: Fake,
    fail_prepare: Mutex<Option<Failure>>,
    removed: Mutex<Vec<String>>,
    pub events: Mutex<Vec<String>>,
    last_exit: Mutex<Option<Exit>>,
}

#[async_trait]
impl Host for FakeHost {
    async fn fetch(&self, _: &Object<Instance>, status: &mut InstanceStatus) -> Result<(), Failure> {
        status.image_id = "sha256:fake".into();
        Ok(())
    }

    async fn prepare(&self, o: &Object<Instance>, status: &mut InstanceStatus) -> Result<ShimConfig, Failure> {
        if let Some(f) = self.fail_prepare.lock().take() {
            return Err(f);
        }
        status.image_id = "sha256:fake".into();
        Ok(ShimConfig {
            uid: o.uid().into(),
            name: o.name().into(),
            run_dir: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
            log: Log::default(),
            start: true,
            wait_attach_ms: 0,
            cgroup: "fake".into(),
            limits: limits(o),
            workload: match o.spec.is_pod() {
                true => Workload::Pod(Box::new(pod(o))),
                false => Workload::Container(Box::default()),
            },
        })
    }

    async fn after_run(&self, _: &str) {}

    async fn remove(&self, uid: &str) {
        self.removed.lock().push(uid.into());
    }

    fn last_exit(&self, _: &str) -> Option<Exit> {
        self.last_exit.lock().clone()
    }

    fn stop_signal(&self, _: &Object<Instance>, _: &InstanceStatus) -> i32 {
        15
    }

    fn runtime(&self, _: Isolation) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    fn event(&self, _: &Object<Instance>, _: bool, reason: &str, _: &str) {
        self.events.lock().push(reason.into());
    }
}

/// Containers of which only the names matter.
fn pod(o: &Object<Instance>) -> Pod {
    let named = |c: &biga_model::ContainerSpec| PodContainer {
        name: c.name.clone(),
        ..PodContainer::default()
    };
    Pod {
        containers: o.spec.all_containers().map(named).collect(),
        ..Pod::default()
    }
}

/// A node in one process.
pub struct Stack {
    store: Arc<dyn Store>,
    pub host: Arc<FakeHost>,
    objects: Objects<Instance>,
    specs: SpecWriter<Instance>,
    manager: tokio::task::JoinHandle<()>,
}

impl Stack {
    pub fn new() -> Stack {
        let store: Arc<dyn Store> = biga_store::memory::MemoryStore::new().unwrap();
        Stack::over(store, Fake::new(Isolation::Container))
    }

    pub fn over(store: Arc<dyn Store>, runtime: Fake) -> Stack {
        let host = Arc::new(FakeHost {
            runtime,
            fail_prepare: Mutex::default(),
            removed: Mutex::default(),
            events: Mutex::default(),
            last_exit: Mutex::default(),
        });
        let manager = tokio::spawn(Manager::new(NODE.into(), host.clone(), store.clone()).run());
        Stack {
            objects: Objects::new(store.clone()),
            specs: SpecWriter::new(store.clone()),
            store,
            host,
            manager,
        }
    }

    pub async fn create(&self, name: &str, spec: InstanceSpec) -> String {
        let spec = InstanceSpec {
            image: "busybox".into(),
            node_name: Some(NODE.into()),
            ..spec
        };
        self.specs.create(Object::new(name, spec)).await.unwrap().metadata.uid
    }

    /// Waits until the instance's status pleases; `None` in the callback is an instance that is gone.
    pub async fn until(&self, name: &str, what: &str, ok: impl Fn(Option<&Object<Instance>>) -> bool) {
        let work = async {
            let list = self.objects.list(None).await.unwrap();
            let mut newest = list.items.into_iter().find(|o| o.name() == name);
            let mut events = self.objects.watch(None, Some(list.revision)).await.unwrap();
            while !ok(newest.as_ref()) {
                // What pleases may be of the runtime's, which no event tells of.
                let next = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
                match next.map(|event| event.unwrap().unwrap()) {
                    Ok(ObjectEvent::Put { object, .. }) if object.name() == name => newest = Some(*object),
                    Ok(ObjectEvent::Deleted { object }) if object.name() == name => newest = None,
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), work).await.is_err() {
            let now = self.objects.find("default", name).await.unwrap();
            panic!("{name}: {what} never came; it is {now:#?}");
        }
    }

    pub async fn until_phase(&self, name: &str, phase: Phase) {
        self.until(name, phase.as_str(), |o| {
            o.is_some_and(|o| o.status_or_default().phase == phase)
        })
        .await;
    }

    pub async fn status(&self, name: &str) -> InstanceStatus {
        self.objects.get("default", name).await.unwrap().status_or_default()
    }

    pub async fn modify(&self, name: &str, change: impl Fn(&mut InstanceSpec) + Send + Sync) {
        self.specs
            .modify("default", name, |o| change(&mut o.spec))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn it_runs_stops_and_starts_again() {
    let s = Stack::new();
    let uid = s.create("web", InstanceSpec::default()).await;
    s.until_phase("web", Phase::Running).await;
    let status = s.status("web").await;
    assert!(status.pid.is_some() && status.started_at.is_some());
    assert_eq!(status.node, NODE);
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    );

    s.modify("web", |s| s.power = Power::Stopped).await;
    s.until_phase("web", Phase::Exited).await;
    let status = s.status("web").await;
    assert_eq!((status.exit_code, status.stopped_by_user), (Some(143), true));
    assert!(
        status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "False")
    );

    s.modify("web", |s| s.power = Power::Running).await;
    s.until_phase("web", Phase::Running).await;
    assert_eq!(s.host.runtime.held(), [uid]);
}

#[tokio::test]
async fn what_ends_by_itself_stays_ended() {
    let s = Stack::new();
    let uid = s.create("job", InstanceSpec::default()).await;
    s.until_phase("job", Phase::Running).await;
    s.host.runtime.exit(&uid, 3);
    s.until_phase("job", Phase::Exited).await;
    let status = s.status("job").await;
    assert_eq!((status.exit_code, status.restart_count), (Some(3), 0));
    // A change of a label is no reason to run it again; a request is.
    s.modify("job", |s| s.restart_request = 1).await;
    s.until("job", "a second run", |o| {
        o.is_some_and(|o| o.status_or_default().observed_restart == 1 && o.status_or_default().phase == Phase::Running)
    })
    .await;
}

#[tokio::test]
async fn a_policy_starts_it_again_until_it_gives_up() {
    let s = Stack::new();
    let restart_policy = RestartPolicy {
        policy: RestartWhen::OnFailure,
        maximum_retry_count: 2,
    };
    let uid = s
        .create(
            "flaky",
            InstanceSpec {
                restart_policy,
                ..InstanceSpec::default()
            },
        )
        .await;
    for n in 0..3 {
        s.until("flaky", "the next run", |o| {
            o.is_some_and(|o| {
                let s = o.status_or_default();
                s.phase == Phase::Running && s.restart_count == n
            })
        })
        .await;
        s.host.runtime.exit(&uid, 1);
    }
    s.until("flaky", "the end", |o| {
        o.is_some_and(|o| o.status_or_default().phase == Phase::Exited && o.status_or_default().restart_count == 2)
    })
    .await;
}

#[tokio::test]
async fn deletion_stops_and_removes_everything() {
    let s = Stack::new();
    let uid = s.create("web", InstanceSpec::default()).await;
    s.until_phase("web", Phase::Running).await;
    s.specs
        .delete("default", "web", &DeleteOptions::default())
        .await
        .unwrap();
    s.until("web", "its end", |o| o.is_none()).await;
    assert_eq!(*s.host.removed.lock(), [uid]);
    assert!(s.host.runtime.held().is_empty());
}

#[tokio::test]
async fn auto_remove_takes_it_away_at_its_end() {
    let s = Stack::new();
    let uid = s
        .create(
            "once",
            InstanceSpec {
                auto_remove: true,
                ..InstanceSpec::default()
            },
        )
        .await;
    s.until_phase("once", Phase::Running).await;
    s.host.runtime.exit(&uid, 0);
    s.until("once", "its end", |o| o.is_none()).await;
    assert_eq!(*s.host.removed.lock(), [uid]);
}

#[tokio::test]
async fn auto_remove_takes_away_what_is_stopped() {
    let s = Stack::new();
    let restart_policy = RestartPolicy {
        policy: RestartWhen::Always,
        maximum_retry_count: 0,
    };
    let uid = s
        .create(
            "once",
            InstanceSpec {
                auto_remove: true,
                restart_policy,
                ..InstanceSpec::default()
            },
        )
        .await;
    s.until_phase("once", Phase::Running).await;
    s.modify("once", |s| s.power = Power::Stopped).await;
    s.until("once", "its end", |o| o.is_none()).await;
    assert_eq!(*s.host.removed.lock(), [uid]);
}

#[tokio::test]
async fn auto_remove_takes_away_what_cannot_start() {
    let s = Stack::new();
    *s.host.fail_prepare.lock() = Some(Failure::new("ImageNotPresent", "it is not here"));
    let uid = s
        .create(
            "once",
            InstanceSpec {
                auto_remove: true,
                ..InstanceSpec::default()
            },
        )
        .await;
    s.until("once", "its end", |o| o.is_none()).await;
    assert_eq!(*s.host.removed.lock(), [uid]);
    assert!(s.host.events.lock().iter().any(|e| e == "ImageNotPresent"));
}

#[tokio::test]
async fn what_ended_by_itself_and_was_turned_off_starts_again() {
    let s = Stack::new();
    let uid = s.create("job", InstanceSpec::default()).await;
    s.until_phase("job", Phase::Running).await;
    s.host.runtime.exit(&uid, 3);
    s.until_phase("job", Phase::Exited).await;
    assert!(!s.status("job").await.stopped_by_user);

    s.modify("job", |s| s.power = Power::Stopped).await;
    s.until("job", "the note", |o| {
        o.is_some_and(|o| o.status_or_default().stopped_by_user)
    })
    .await;
    let status = s.status("job").await;
    assert_eq!(
        (status.phase, status.exit_code),
        (Phase::Exited, Some(3)),
        "how it ended stays known"
    );

    s.modify("job", |s| s.power = Power::Running).await;
    s.until_phase("job", Phase::Running).await;
}

#[tokio::test]
async fn failures_say_why_and_a_mended_spec_is_tried_again() {
    let s = Stack::new();
    *s.host.fail_prepare.lock() = Some(Failure::new("ImageNotPresent", "it is not here"));
    s.create("web", InstanceSpec::default()).await;
    s.until_phase("web", Phase::Failed).await;
    let status = s.status("web").await;
    assert_eq!(
        (status.reason.as_str(), status.exit_code),
        ("ImageNotPresent", Some(125))
    );
    s.modify("web", |s| s.image = "busybox:2".into()).await;
    s.until_phase("web", Phase::Running).await;

    s.host.runtime.fail_next("create");
    s.create("other", InstanceSpec::default()).await;
    s.until_phase("other", Phase::Failed).await;
    assert_eq!(s.status("other").await.reason, "StartFailed");
}

#[tokio::test]
async fn created_is_not_started() {
    let s = Stack::new();
    s.create(
        "web",
        InstanceSpec {
            power: Power::Stopped,
            ..InstanceSpec::default()
        },
    )
    .await;
    s.until_phase("web", Phase::Created).await;
    assert!(s.host.runtime.calls().is_empty());
    s.modify("web", |s| s.power = Power::Running).await;
    s.until_phase("web", Phase::Running).await;
}

#[tokio::test]
async fn pause_and_limits_follow_the_spec() {
    let s = Stack::new();
    let uid = s.create("web", InstanceSpec::default()).await;
    s.until_phase("web", Phase::Running).await;
    s.modify("web", |s| s.power = Power::Paused).await;
    s.until_phase("web", Phase::Paused).await;
    s.modify("web", |s| {
        s.power = Power::Running;
        s.resources.memory = Some(Memory::mib(64));
    })
    .await;
    s.until_phase("web", Phase::Running).await;
    let updated = async {
        while s.host.runtime.limits(&uid).unwrap().memory != Some(64 << 20) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), updated).await.unwrap();
}

#[tokio::test]
async fn a_new_daemon_takes_over_what_runs() {
    let s = Stack::new();
    let (store, runtime) = (s.store.clone(), s.host.runtime.clone());
    let kept = s.create("kept", InstanceSpec::default()).await;
    let ended = s.create("ended", InstanceSpec::default()).await;
    let lost = s.create("lost", InstanceSpec::default()).await;
    for name in ["kept", "ended", "lost"] {
        s.until_phase(name, Phase::Running).await;
    }
    let pid = s.status("kept").await.pid;
    s.manager.abort();
    let _ = s.manager.await;
    // While nobody looked: one ended, one lost its shim.
    runtime.exit(&ended, 7);
    runtime.delete(&lost).await.unwrap();

    let s = Stack::over(store, runtime);
    s.until_phase("ended", Phase::Exited).await;
    assert_eq!(s.status("ended").await.exit_code, Some(7));
    s.until_phase("lost", Phase::Exited).await;
    assert_eq!(s.status("lost").await.exit_code, Some(137));
    assert_eq!(
        (s.status("kept").await.phase, s.status("kept").await.pid),
        (Phase::Running, pid)
    );
    s.host.runtime.exit(&kept, 0);
    s.until_phase("kept", Phase::Exited).await;
}
