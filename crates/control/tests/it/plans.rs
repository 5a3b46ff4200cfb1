//! Golden plans.

use std::fmt::Write;

use biga_control::events::SeenEvent;
use biga_control::garbage::Seen;
use biga_control::{Action, Id, Resource, compaction, events, garbage, schedule};
use biga_model::{
    Condition, Instance, InstanceSpec, Isolation, Memory, Node, NodeSpec, NodeStatus, Object, OwnerReference, Timestamp,
};

pub fn node(name: &str, memory_gib: u64, isolations: &[&str], ready: bool, unschedulable: bool) -> Object<Node> {
    let mut n = Object::<Node>::new(name, NodeSpec { unschedulable });
    let mut status = NodeStatus {
        memory: memory_gib << 30,
        isolations: isolations.iter().map(|s| s.to_string()).collect(),
        ..NodeStatus::default()
    };
    Condition::set(&mut status.conditions, "Ready", ready, "", "", Timestamp::UNIX_EPOCH);
    n.status = Some(status);
    n
}

pub fn instance(name: &str, isolation: Isolation, memory_gib: u64, on: Option<&str>) -> Object<Instance> {
    let mut spec = InstanceSpec {
        isolation,
        image: "busybox".into(),
        node_name: on.map(String::from),
        ..InstanceSpec::default()
    };
    spec.resources.memory = (memory_gib > 0).then(|| Memory::mib(memory_gib << 10));
    let mut i = Object::new(name, spec);
    i.metadata.uid = format!("uid-{name}");
    i
}

fn all<T>(list: &[T]) -> Vec<&T> {
    list.iter().collect()
}

fn text(actions: &[Action]) -> String {
    actions.iter().fold(String::new(), |mut t, a| {
        writeln!(t, "{a}").unwrap();
        t
    })
}

#[test]
fn instances_go_where_they_can_and_fit_best() {
    let nodes = [
        node("big", 64, &["container", "microvm"], true, false),
        node("small", 16, &["container", "microvm", "vm"], true, false),
        node("down", 512, &["container", "vm"], false, false),
        node("cordoned", 512, &["container"], true, true),
    ];
    let instances = [
        instance("placed", Isolation::Container, 30, Some("big")),
        instance("a", Isolation::Container, 20, None),
        instance("b", Isolation::Container, 4, None),
        instance("c", Isolation::Container, 4, None),
        instance("machine", Isolation::Vm, 2, None),
    ];
    insta::assert_snapshot!(text(&schedule::plan(&all(&instances), &all(&nodes))), @r"
    place Instance default/a on big
    place Instance default/b on small
    place Instance default/c on big
    place Instance default/machine on small
    ");
}

#[test]
fn what_cannot_be_placed_is_told_why_once() {
    let nodes = [
        node("n1", 8, &["container"], true, false),
        node("n2", 8, &["container"], true, false),
        node("n3", 8, &["vm"], false, false),
        node("n4", 8, &["vm"], true, true),
    ];
    let mut vm = instance("vm", Isolation::Vm, 1, None);
    let plan = schedule::plan(&[&vm], &all(&nodes));
    insta::assert_snapshot!(text(&plan), @"unschedulable Instance default/vm: 2 nodes: each does not offer isolation vm; node n3 is not ready; node n4 takes no new instances");
    let Action::Unschedulable { message, .. } = &plan[0] else {
        panic!()
    };
    let mut status = vm.status_or_default();
    Condition::set(
        &mut status.conditions,
        schedule::CONDITION,
        false,
        schedule::REASON,
        message,
        Timestamp::UNIX_EPOCH,
    );
    vm.status = Some(status);
    assert_eq!(schedule::plan(&[&vm], &all(&nodes)), []);
    insta::assert_snapshot!(text(&schedule::plan(&[&vm], &[])), @"unschedulable Instance default/vm: there are no nodes");
    vm.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(schedule::plan(&[&vm], &[]), []);
    vm.metadata.finalizers = vec!["biga.dev/agent".into()];
    insta::assert_snapshot!(text(&schedule::plan(&[&vm], &[])), @"remove finalizer biga.dev/agent of Instance default/vm");
}

fn seen(name: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> Seen {
    let owner = |uid: &&str| OwnerReference {
        api_version: "biga.dev/v1".into(),
        kind: "Instance".into(),
        name: uid.to_string(),
        uid: uid.to_string(),
        controller: None,
        block_owner_deletion: None,
    };
    Seen {
        id: Id {
            resource: Resource::Volume,
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
        },
        owners: owners.iter().map(owner).collect(),
        finalizers: finalizers.iter().map(|f| f.to_string()).collect(),
        deleting,
    }
}

#[test]
fn dependents_follow_their_owners() {
    let all = [
        seen("owner", &[], &[], false),
        seen("kept", &["owner", "gone"], &[], false),
        seen("orphan", &["gone"], &[], false),
        seen("going", &["gone"], &["x"], true),
        seen("free", &[], &[], false),
        seen("fg", &[], &["foregroundDeletion"], true),
        seen("fg-child", &["fg"], &[], false),
        seen("fg-child-going", &["fg"], &["x"], true),
        seen("fg-done", &[], &["foregroundDeletion", "x"], true),
        seen("or", &[], &["orphan"], true),
        seen("or-child", &["or"], &[], false),
        seen("or-done", &[], &["orphan"], true),
        seen("not-deleted", &[], &["orphan", "foregroundDeletion"], false),
    ];
    insta::assert_snapshot!(text(&garbage::plan(&all.iter().collect::<Vec<_>>())), @r"
    delete Volume default/orphan
    delete Volume default/fg-child
    remove finalizer foregroundDeletion of Volume default/fg-done
    remove owner or of Volume default/or-child
    remove finalizer orphan of Volume default/or-done
    ");
    let mut foreign = seen("foreign", &["gone"], &[], false);
    foreign.owners[0].kind = "Deployment".into();
    foreign.owners[0].api_version = "apps/v1".into();
    assert_eq!(
        garbage::plan(&[&foreign]),
        [],
        "an owner of a kind we do not serve counts as there"
    );
}

#[test]
fn events_live_an_hour() {
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    let event = |name: &str, time: i64| SeenEvent {
        id: Id {
            resource: Resource::Event,
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
        },
        time: at(time),
    };
    let all = [
        event("old", 999),
        event("edge", 1000),
        event("new", 1001),
        event("future", 9999),
    ];
    insta::assert_snapshot!(text(&events::plan(all.iter(), at(4600))), @r"
    delete Event default/edge
    delete Event default/old
    ");
    let many: Vec<_> = (0..events::MAX_EVENTS + 2)
        .map(|i| event(&format!("e{i:05}"), 4000 + i as i64 / 1000))
        .collect();
    assert_eq!(events::plan(many.iter(), at(4600)).len(), 2);
}

#[test]
fn history_is_kept_for_five_minutes() {
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    let marks: compaction::Marks = [(at(0), 10), (at(100), 20), (at(200), 30)].into();
    assert_eq!(compaction::plan(&marks, 0, at(299)), None);
    assert_eq!(
        compaction::plan(&marks, 0, at(300)),
        Some(Action::Compact { revision: 10 })
    );
    assert_eq!(
        compaction::plan(&marks, 0, at(450)),
        Some(Action::Compact { revision: 20 })
    );
    assert_eq!(compaction::plan(&marks, 20, at(450)), None);
}
