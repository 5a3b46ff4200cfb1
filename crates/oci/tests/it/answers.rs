//! System calls that another program answers (`SCMP_ACT_NOTIFY`), by our runtime and by `runc`.

use biga_testkit::answers::Answers;
use serde_json::{Value, json};

use crate::support::{Bundle, Runtime};

/// `EXDEV`, which no `mkdir` fails with by itself.
const ERROR: i32 = 18;

/// A bundle whose directories are made, or not, by whoever listens in it.
fn asking(runtime: Runtime, script: &str, no_new_privileges: bool) -> Bundle {
    Bundle::sh(runtime, script).with(|c, dir| {
        c["process"]["noNewPrivileges"] = no_new_privileges.into();
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": dir.join("agent.sock"),
            "listenerMetadata": "whose it is",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
        c["annotations"] = json!({"a": "b"});
    })
}

/// What differs from run to run is checked, and put out of sight.
fn plain(bundle: &Bundle, mut state: Value) -> Value {
    let pid = state["pid"].as_u64().unwrap();
    assert!(pid > 1 && state["state"]["pid"].as_u64().unwrap() > 1, "{state}");
    assert_eq!(state["state"]["id"], *bundle.id);
    assert_eq!(state["state"]["bundle"], *bundle.dir.display().to_string());
    if state["state"]["status"] == "creating" {
        assert_eq!(state["pid"], state["state"]["pid"], "{state}");
    }
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    for pointer in [
        "/pid",
        "/ociVersion",
        "/state/pid",
        "/state/id",
        "/state/bundle",
        "/state/ociVersion",
    ] {
        *state.pointer_mut(pointer).unwrap() = Value::Null;
    }
    state
}

#[test]
fn calls_are_answered_as_under_runc() {
    for no_new_privileges in [false, true] {
        let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
            let b = asking(runtime, "mkdir /tmp/first 2>&1; echo $?; sleep 1000", no_new_privileges);
            let agent = Answers::at(&b.dir.join("agent.sock"), ERROR);
            b.up();
            let exec =
                b.exec("mkdir /tmp/second 2>&1; echo $?; touch /tmp/third && ls /tmp; grep Seccomp: /proc/self/status");
            assert!(agent.calls() >= 2, "{}", agent.calls());
            let states: Vec<Value> = agent.states().into_iter().map(|s| plain(&b, s)).collect();
            (exec.code, exec.out, states)
        });
        assert_eq!(ours, theirs, "ours first");
        assert!(ours.1.contains("cross-device"), "{ours:?}");
        let want = |status: &str| {
            json!({
                "ociVersion": null, "fds": ["seccompFd"], "pid": null, "metadata": "whose it is",
                "state": {"ociVersion": null, "id": null, "status": status, "pid": null, "bundle": null, "annotations": {"a": "b"}},
            })
        };
        assert_eq!(ours.2, [want("creating"), want("running")]);
    }
}

#[test]
fn one_that_nobody_answers_for_does_not_run() {
    for runtime in [Runtime::Ours, Runtime::Runc] {
        let b = asking(runtime, "echo it ran", false);
        let outcome = b.run();
        assert!(
            outcome.code != Some(0) && !outcome.out.contains("it ran"),
            "{runtime:?}: {outcome:?}"
        );
        if runtime == Runtime::Ours {
            assert!(
                outcome.err.contains("agent.sock") && outcome.err.contains("does it run"),
                "{outcome:?}"
            );
            assert!(!b.dir.join("state").join(&b.id).exists());
        }
    }
}

/// Where no rule asks anybody, a listener means nothing.
#[test]
fn a_listener_without_a_question_is_ignored() {
    for runtime in [Runtime::Ours, Runtime::Runc] {
        let b = asking(runtime, "mkdir /tmp/x && echo made", false)
            .with(|c, _| c["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_LOG".into());
        assert_eq!(b.run().ok(), "made\n", "{runtime:?}");
    }
}

#[test]
fn who_asks_can_be_killed_only() {
    let b = asking(Runtime::Ours, "mkdir /tmp/x 2>&1; echo $?", true).with(|c, _| {
        c["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_LOG"]);
    });
    let agent = Answers::at(&b.dir.join("agent.sock"), ERROR);
    let outcome = b.run();
    assert!(outcome.clone().ok().ends_with("1\n"), "{outcome:?}");
    assert_eq!(agent.calls(), 1);
}

/// After a restore nobody would answer.
#[test]
fn it_cannot_be_checkpointed() {
    let b = asking(Runtime::Ours, "sleep 1000", false);
    let _agent = Answers::at(&b.dir.join("agent.sock"), ERROR);
    b.up();
    b.call(&["--criu", "/bin/false", "checkpoint", &b.id])
        .refused("system calls that another program answers");
    assert_eq!(b.status(), "running");
}
