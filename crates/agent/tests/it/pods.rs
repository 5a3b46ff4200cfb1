//! Instances of several containers: what starts when, what is started again, and how it all ends.

use biga_model::{InstanceSpec, InstanceStatus, Phase, Power};

use crate::instances::Stack;

fn spec(policy: &str) -> InstanceSpec {
    serde_json::from_value(serde_json::json!({
        "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "web"}, {"name": "job"}],
        "restartPolicy": {"policy": policy},
        "stop": {"gracePeriodSeconds": 5},
    }))
    .unwrap()
}

/// As `init=Completed side=r web=r job=CrashLoopBackOff`.
fn text(s: &InstanceStatus) -> String {
    use biga_model::ContainerState::*;
    let of = |c: &biga_model::ContainerStatus| {
        let state = match &c.state {
            Running(_) => "r",
            Waiting(w) => &w.reason,
            Terminated(t) => &t.reason,
        };
        format!("{}={state}", c.name)
    };
    let all = s.init_container_statuses.iter().chain(&s.container_statuses);
    all.map(of).collect::<Vec<_>>().join(" ")
}

async fn until_text(s: &Stack, name: &str, wanted: &str) {
    s.until(name, wanted, |o| {
        o.is_some_and(|o| text(&o.status_or_default()) == wanted)
    })
    .await;
}

/// Starts and stops so far, in their order.
fn calls(s: &Stack, uid: &str) -> Vec<String> {
    let all = s.host.runtime.calls();
    let of_containers = all.iter().filter_map(|c| {
        let (verb, what) = c.split_once(' ')?;
        let container = what.strip_prefix(uid)?.strip_prefix('/')?;
        Some(format!("{verb} {container}"))
    });
    of_containers.collect()
}

#[tokio::test]
async fn containers_come_up_in_order_and_go_down_in_order() {
    let s = Stack::new();
    let uid = s.create("pod", spec("no")).await;
    until_text(
        &s,
        "pod",
        "init=r side=PodInitializing web=PodInitializing job=PodInitializing",
    )
    .await;
    assert_eq!(s.status("pod").await.phase, Phase::Starting);
    s.host.runtime.exit_of(&uid, "init", 0);
    s.until_phase("pod", Phase::Running).await;
    until_text(&s, "pod", "init=Completed side=r web=r job=r").await;
    assert_eq!(calls(&s, &uid), ["start init", "start side", "start web", "start job"]);

    s.modify("pod", |s| s.power = Power::Stopped).await;
    s.until_phase("pod", Phase::Exited).await;
    assert_eq!(calls(&s, &uid)[4..], ["stop web", "stop job", "stop side"]);
    let status = s.status("pod").await;
    assert_eq!((status.exit_code, status.stopped_by_user), (Some(143), true));
    assert_eq!(text(&status), "init=Completed side=Error web=Error job=Error");
    s.until("pod", "no shim", |_| s.host.runtime.held().is_empty()).await;

    s.modify("pod", |s| s.power = Power::Running).await;
    s.until("pod", "a new begin", |_| calls(&s, &uid).len() > 7).await;
    assert_eq!(calls(&s, &uid)[7], "start init", "init containers run again");
}

#[tokio::test]
async fn one_is_started_again_and_the_end_of_all_is_the_end() {
    let s = Stack::new();
    let uid = s.create("pod", spec("on-failure")).await;
    s.until("pod", "init", |_| calls(&s, &uid).len() == 1).await;
    s.host.runtime.exit_of(&uid, "init", 1);
    s.until("pod", "a second try", |_| calls(&s, &uid).len() == 2).await;
    s.host.runtime.exit_of(&uid, "init", 0);
    until_text(&s, "pod", "init=Completed side=r web=r job=r").await;
    s.host.runtime.exit_of(&uid, "web", 7);
    s.until("pod", "a restart", |o| {
        let status = o.unwrap().status_or_default();
        status
            .container("web")
            .is_some_and(|c| c.state.is_running() && c.restart_count == 1)
    })
    .await;
    let status = s.status("pod").await;
    assert_eq!(status.container("job").unwrap().restart_count, 0);
    let last = status.container("web").unwrap().last_termination.clone().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (7, "Error"));
    s.host.runtime.exit_of(&uid, "web", 0);
    s.host.runtime.exit_of(&uid, "job", 0);
    s.until_phase("pod", Phase::Exited).await;
    let status = s.status("pod").await;
    assert_eq!((status.exit_code, status.stopped_by_user), (Some(0), false));
    assert_eq!(
        calls(&s, &uid).last().unwrap(),
        "stop side",
        "the sidecar is not waited for"
    );
    assert_eq!(text(&status), "init=Completed side=Error web=Completed job=Completed");
}

#[tokio::test]
async fn a_failed_init_container_ends_it_where_nothing_is_tried_again() {
    let s = Stack::new();
    let uid = s.create("pod", spec("no")).await;
    s.until("pod", "init", |_| calls(&s, &uid).len() == 1).await;
    s.host.runtime.exit_of(&uid, "init", 3);
    s.until_phase("pod", Phase::Exited).await;
    let status = s.status("pod").await;
    assert_eq!(status.exit_code, Some(3));
    assert_eq!(status.message, "container init: it ended with code 3");
    assert_eq!(calls(&s, &uid), ["start init"]);
}

#[tokio::test]
async fn a_container_that_cannot_be_started_is_tried_after_a_while() {
    let s = Stack::new();
    let uid = s.create("pod", spec("no")).await;
    s.until("pod", "init", |_| calls(&s, &uid).len() == 1).await;
    s.host.runtime.fail_next("start");
    s.host.runtime.exit_of(&uid, "init", 0);
    until_text(&s, "pod", "init=Completed side=r web=r job=r").await;
    assert!(s.host.events.lock().iter().any(|e| e == "StartFailed"));
    assert_eq!(calls(&s, &uid).iter().filter(|c| *c == "start side").count(), 2);
}

#[tokio::test]
async fn a_lost_shim_takes_all_and_the_policy_begins_anew() {
    let s = Stack::new();
    let uid = s.create("pod", spec("always")).await;
    s.until("pod", "init", |_| calls(&s, &uid).len() == 1).await;
    s.host.runtime.exit_of(&uid, "init", 0);
    until_text(&s, "pod", "init=Completed side=r web=r job=r").await;
    s.host.runtime.lose(&uid);
    s.until("pod", "a new run", |o| {
        let status = o.unwrap().status_or_default();
        text(&status).starts_with("init=r") && status.phase == Phase::Starting
    })
    .await;
    assert!(s.host.events.lock().iter().any(|e| e == "Exited"));
}
