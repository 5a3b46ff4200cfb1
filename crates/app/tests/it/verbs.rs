//! The other verbs on instances, images, volumes, networks.

use serde_json::{Value, json};

use crate::fake::{Done, Fake, biga};

#[test]
fn without_a_daemon_the_message_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let mut c = biga(&["ps"]);
    c.env("BIGA_HOST", &socket);
    let d = Done::of(c.output().unwrap()).code(6);
    assert_eq!(
        d.err,
        format!(
            "biga: cannot connect to the Biga daemon at unix://{}: is `biga serve` running?\n",
            socket.display()
        )
    );
    let d = Done::of(biga(&["--host", "ftp://x", "ps"]).output().unwrap()).code(2);
    assert!(d.err.contains("is no address of a daemon"), "{d:?}");
    let d = Done::of(biga(&["frobnicate"]).output().unwrap()).code(2);
    assert!(d.err.contains("unrecognized subcommand"), "{d:?}");
}

#[test]
fn lists_hide_what_does_not_run() {
    let f = Fake::start();
    f.running("web", json!({}));
    f.running("old", json!({"status": {"phase": "Exited", "exitCode": 1}}));
    f.running("else", json!({"metadata": {"namespace": "lab"}}));
    assert_eq!(f.biga(&["ps", "-q"]).code(0).out, "web\n");
    let mut all: Vec<String> = f.biga(&["ps", "-aq"]).out.lines().map(String::from).collect();
    all.sort();
    assert_eq!(all, ["old", "web"]);
    assert_eq!(f.biga(&["-n", "lab", "ps", "-q"]).out, "else\n");
    assert_eq!(f.biga(&["ps", "-q", "-f", "status=exited"]).out, "old\n");
    let d = f.biga(&["ps"]);
    assert!(d.out.starts_with("NAME   ISOLATION   IMAGE            STATUS"), "{d:?}");
    assert_eq!(f.biga(&["ps", "-o", "name"]).out, "instance/web\n");
    let v: Value = serde_json::from_str(&f.biga(&["ps", "-A", "-o", "json"]).out).unwrap();
    assert_eq!(v["items"].as_array().unwrap().len(), 2);
    f.biga(&["ps", "-f", "colour=red"]).code(2);
}

#[test]
fn inspect_finds_names_and_uids_and_helps_with_others() {
    let f = Fake::start();
    f.running(
        "web",
        json!({"metadata": {"uid": "abcdef01-2222-4333-8444-555566667777"}}),
    );
    let v: Value = serde_json::from_str(&f.biga(&["inspect", "web"]).code(0).out).unwrap();
    assert_eq!(v[0]["metadata"]["name"], "web");
    assert_eq!(
        f.biga(&["inspect", "abcd", "--field", "metadata.name"]).code(0).out,
        "web\n"
    );
    let d = f.biga(&["inspect", "wbe"]).code(3);
    assert_eq!(
        d.err,
        "biga: no instance named wbe in namespace default: did you mean web? `biga ps -a` lists them all\n"
    );
    assert_eq!(d.out, "[]\n");
    let d = f.biga(&["logs", "mail"]).code(3);
    assert_eq!(
        d.err,
        "biga: no instance named mail in namespace default: `biga ps -a` lists them\n"
    );
}

#[test]
fn power_follows_the_verbs() {
    let f = Fake::start();
    f.biga(&["run", "-d", "--name", "a", "busybox", "wait"]).code(0);
    let phase = || {
        f.get("instances", "a").unwrap()["status"]["phase"]
            .as_str()
            .unwrap()
            .to_string()
    };
    assert_eq!(f.biga(&["pause", "a"]).code(0).out, "a\n");
    assert_eq!(phase(), "Paused");
    f.biga(&["pause", "a"]).code(4);
    f.biga(&["resume", "a"]).code(0);
    assert_eq!(phase(), "Running");
    f.biga(&["restart", "a"]).code(0);
    assert_eq!(f.get("instances", "a").unwrap()["spec"]["restartRequest"], 1);
    let d = f.biga(&["rm", "a"]).code(4);
    assert!(d.err.contains("instance a is running: stop it first"), "{d:?}");
    assert_eq!(f.biga(&["stop", "-t", "3", "a"]).code(0).out, "a\n");
    assert_eq!(phase(), "Exited");
    assert_eq!(
        f.get("instances", "a").unwrap()["spec"]["stop"]["gracePeriodSeconds"],
        3
    );
    assert_eq!(f.biga(&["wait", "a"]).code(0).out, "143\n");
    f.biga(&["start", "a"]).code(0);
    assert_eq!(phase(), "Running");
    let d = f.biga(&["rm", "-f", "a", "nosuch"]).code(3);
    assert_eq!(d.out, "a\n");
    assert!(f.get("instances", "a").is_none());
    let last = f.requests().into_iter().rfind(|r| r.starts_with("DELETE")).unwrap();
    assert_eq!(last, "DELETE /apis/biga.dev/v1/namespaces/default/instances/a");
}

#[test]
fn waiting_survives_watches_that_end() {
    let f = Fake::start();
    f.cut_watches(3);
    f.biga(&["run", "-d", "--name", "a", "busybox", "wait"]).code(0);
    f.biga(&["stop", "a"]).code(0);
    f.biga(&["start", "a"]).code(0);
    assert_eq!(f.get("instances", "a").unwrap()["status"]["phase"], "Running");
}

#[test]
fn signals_are_sent_by_number() {
    let f = Fake::start();
    f.running("web", json!({}));
    f.biga(&["kill", "-s", "HUP", "web"]).code(0);
    let path = "POST /apis/biga.dev/v1/namespaces/default/instances/web/signal?signal=1";
    assert!(f.requests().iter().any(|r| r == path), "{:?}", f.requests());
    f.biga(&["kill", "-s", "NOPE", "web"]).code(2);
}

#[test]
fn logs_keep_both_streams_apart() {
    let f = Fake::start();
    f.running("web", json!({}));
    let d = f
        .biga(&["logs", "--tail", "5", "-t", "--since", "2026-01-01T00:00:00Z", "web"])
        .code(0);
    assert_eq!((d.out.as_str(), d.err.as_str()), ("line one\n", "line two\n"));
    let asked = f.requests().pop().unwrap();
    assert!(
        asked.ends_with("/log?format=frames&timestamps=true&tail=5&since=2026-01-01T00%3A00%3A00Z"),
        "{asked}"
    );
    f.biga(&["logs", "--tail", "x", "web"]).code(2);
}

#[test]
fn stats_show_shares() {
    let f = Fake::start();
    f.running("web", json!({}));
    let d = f.biga(&["stats", "--no-stream"]).code(0);
    assert!(d.out.contains("web    10.00%   1.00MiB / 4.00MiB   25.00%"), "{d:?}");
    let d = f.biga(&["stats", "-o", "json", "web"]).code(0);
    assert_eq!(d.out.lines().count(), 2, "{d:?}");
    let d = f.biga(&["stats", "-o", "yaml", "--no-stream"]).code(0);
    assert!(d.out.starts_with("---\nname: web\ncpuPercent: 10.0\n"), "{d:?}");
    let d = f.biga(&["stats", "-o", "name", "--no-stream"]).code(0);
    assert_eq!(d.out, "instance/web\n");
}

/// What the shell would be offered for the last of these words.
fn offered(f: &Fake, words: &[&str]) -> Vec<String> {
    let mut c = f.command(&["--", "biga"]);
    c.args(words)
        .env("BIGA_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n");
    let d = Done::of(c.output().unwrap()).code(0);
    d.out.lines().map(String::from).collect()
}

#[test]
fn completion_knows_names() {
    let f = Fake::start();
    f.running("web", json!({}));
    f.running("webby", json!({}));
    f.running("else", json!({"metadata": {"namespace": "lab"}}));
    f.biga(&["volume", "create", "data"]).code(0);
    assert_eq!(offered(&f, &["stop", "we"]), ["web", "webby"]);
    assert_eq!(offered(&f, &["logs", "-f", "webb"]), ["webby"]);
    assert_eq!(offered(&f, &["-n", "lab", "stop", "e"]), ["else"]);
    assert_eq!(offered(&f, &["volume", "rm", "d"]), ["data"]);
    assert_eq!(offered(&f, &["get", "vol"]), ["volumes"]);
    assert_eq!(offered(&f, &["get", "volumes", "d"]), ["data"]);
    assert_eq!(offered(&f, &["delete", "volume/d"]), ["volume/data"]);
    assert!(offered(&f, &["stop", "x"]).is_empty());
    // Nobody to ask is no error: the key was only pressed.
    assert!(offered(&f, &["--host", "unix:///nowhere/api.sock", "stop", "we"]).is_empty());
}

#[test]
fn updates_write_what_was_said() {
    let f = Fake::start();
    f.running("web", json!({"status": {"phase": "Exited"}}));
    f.biga(&[
        "update",
        "--isolation",
        "microvm",
        "--memory",
        "512m",
        "--cpus",
        "1.5",
        "--restart",
        "on-failure:3",
        "web",
    ])
    .code(0);
    let spec = f.get("instances", "web").unwrap()["spec"].clone();
    assert_eq!(spec["isolation"], "microvm");
    assert_eq!(spec["resources"], json!({"memory": "512Mi", "cpus": "1500m"}));
    assert_eq!(
        spec["restartPolicy"],
        json!({"policy": "on-failure", "maximumRetryCount": 3})
    );
    let d = f.biga(&["update", "web"]).code(2);
    assert!(d.err.contains("nothing to change"), "{d:?}");
    f.running("live", json!({}));
    let d = f.biga(&["update", "--isolation", "microvm", "live"]).code(4);
    assert!(d.err.contains("instance live runs: stop it first"), "{d:?}");
}

#[test]
fn images_are_pulled_and_failures_explained() {
    let f = Fake::start();
    let d = f.biga(&["image", "pull", "busybox"]).code(0);
    assert_eq!(d.out, "busybox:latest\n");
    let reference: biga_model::Reference = "busybox".parse().unwrap();
    let o = f.get("images", &reference.object_name()).unwrap();
    assert_eq!(
        o["spec"],
        json!({"reference": "docker.io/library/busybox:latest", "pullRequest": 1})
    );
    assert!(o["metadata"]["namespace"].is_null(), "{o}");
    f.biga(&["image", "pull", "busybox"]).code(0);
    assert_eq!(
        f.get("images", &reference.object_name()).unwrap()["spec"]["pullRequest"],
        2
    );
    let d = f.biga(&["image", "pull", "absent"]).code(1);
    assert!(
        d.err
            .ends_with("biga: cannot pull absent:latest: the registry has no such image\n"),
        "{d:?}"
    );
    let d = f.biga(&["image", "ls"]).code(0);
    assert!(d.out.contains("busybox:latest"), "{d:?}");
    assert_eq!(f.biga(&["image", "rm", "busybox"]).code(0).out, "busybox:latest\n");
    let d = f.biga(&["image", "inspect", "busybox"]).code(3);
    assert!(d.err.contains("no image named busybox"), "{d:?}");
}

#[test]
fn archives_go_in_and_out() {
    let f = Fake::start();
    f.biga(&["image", "pull", "busybox"]).code(0);
    let d = f.biga_with(&["image", "load"], b"archive").code(0);
    assert_eq!(d.out, "loaded:1\n");
    let d = f.biga_with(&["image", "load"], b"bad archive").code(5);
    assert!(d.err.ends_with("biga: this is no archive\n"), "{d:?}");
    assert_eq!(f.biga(&["image", "save", "busybox"]).code(0).out, "ARCHIVE");
    let file = f.dir().join("x.tar");
    f.biga(&["image", "save", "-o", file.to_str().unwrap(), "busybox"])
        .code(0);
    assert_eq!(std::fs::read(&file).unwrap(), b"ARCHIVE");
    let d = f.biga(&["image", "push", "busybox", "localhost:5000/b"]).code(0);
    assert_eq!(d.out, "localhost:5000/b:latest sha256:11\n");
    f.biga(&["image", "tag", "busybox", "mine:2"]).code(0);
    let asked = f.requests().pop().unwrap();
    assert!(
        asked.contains("image-tag?reference=docker.io%2Flibrary%2Fbusybox%3Alatest&as=mine%3A2"),
        "{asked}"
    );
    let d = f.biga(&["image", "prune"]).code(0);
    assert_eq!((d.out.as_str(), d.err.as_str()), ("a:1\n", "2.00KiB free again\n"));
}

#[test]
fn root_file_systems_are_imported_with_their_config() {
    let f = Fake::start();
    let (tar, config) = (f.dir().join("root.tar"), f.dir().join("config.json"));
    let mut bytes = vec![0u8; 2048];
    bytes[257..262].copy_from_slice(b"ustar");
    std::fs::write(&tar, bytes).unwrap();
    std::fs::write(&config, r#"{"config": {"Cmd": ["/bin/sh"]}}"#).unwrap();
    let (tar, config) = (tar.to_str().unwrap(), config.to_str().unwrap());
    let d = f.biga(&["image", "import", "--config", config, tar, "mine:1"]).code(0);
    assert_eq!((d.out.as_str(), d.err.as_str()), ("mine:1\n", "2048 bytes\n"));
    let asked = f.requests().pop().unwrap();
    assert!(asked.contains("reference=mine%3A1&format=rootfs&config="), "{asked}");
    let d = f
        .biga_with(&["image", "import", "-", "mine:1"], b"what is this")
        .code(2);
    assert!(d.err.contains("say what it is with --format"), "{d:?}");
}

#[test]
fn volumes_and_networks_are_made_and_removed() {
    let f = Fake::start();
    assert_eq!(f.biga(&["volume", "create", "data"]).code(0).out, "data\n");
    assert_eq!(
        f.biga(&["volume", "create", "--mode", "block", "--size", "1g", "disk"])
            .code(0)
            .out,
        "disk\n"
    );
    assert_eq!(
        f.get("volumes", "disk").unwrap()["spec"],
        json!({"mode": "block", "size": "1Gi"})
    );
    assert_eq!(f.biga(&["volume", "ls", "-q"]).out, "data\ndisk\n");
    assert_eq!(
        f.biga(&["network", "create", "--subnet", "10.9.0.0/24", "lab"])
            .code(0)
            .out,
        "lab\n"
    );
    let d = f.biga(&["network", "rm", "lba"]).code(3);
    assert!(d.err.contains("did you mean lab?"), "{d:?}");
    f.biga(&["network", "rm", "lab"]).code(0);
    assert!(f.get("networks", "lab").is_none());
    f.biga(&["volume", "create", "--size", "1g", "x"]).code(2);
}

#[test]
fn what_instances_use_is_not_removed() {
    let f = Fake::start();
    for name in ["data", "free"] {
        f.biga(&["volume", "create", name]).code(0);
        f.biga(&["network", "create", name]).code(0);
    }
    for name in ["a", "b", "c", "d"] {
        f.running(
            name,
            json!({"spec": {"volumes": [{"name": "v", "volume": "data"}]},
                "status": {"networks": [{"network": "data", "interface": "eth0", "address": "10.9.0.2/24", "gateway": "10.9.0.1", "mac": "02:00:00:00:00:01"}]}}),
        );
    }
    let d = f.biga(&["volume", "rm", "data", "free"]).code(4);
    assert_eq!(d.out, "free\n");
    assert_eq!(
        d.err,
        "biga: volume data is used by instances a, b, c and 1 more: remove them first\n"
    );
    let d = f.biga(&["network", "rm", "free", "data"]).code(4);
    assert_eq!(d.out, "free\n");
    assert!(
        d.err.starts_with("biga: network data is used by instances a, b, c"),
        "{d:?}"
    );
    let d = f.biga(&["network", "rm", "default"]).code(4);
    assert!(d.err.contains("it cannot be removed"), "{d:?}");
    assert!(f.get("volumes", "data").is_some() && f.get("networks", "data").is_some());
}

#[test]
fn events_are_printed_in_order() {
    let f = Fake::start();
    for (name, time) in [("b", "2026-01-01T00:00:02Z"), ("a", "2026-01-01T00:00:01Z")] {
        f.put(
            "events",
            json!({"apiVersion": "biga.dev/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
                   "spec": {"reason": "Started", "message": name, "regarding": {"kind": "Instance", "name": "web"}, "time": time}}),
        );
    }
    let d = f.biga(&["events", "--no-stream"]).code(0);
    assert_eq!(
        d.out,
        "2026-01-01T00:00:01Z Normal Started instance/web a\n2026-01-01T00:00:02Z Normal Started instance/web b\n"
    );
}

#[test]
fn versions_and_completions_are_printed() {
    let f = Fake::start();
    assert_eq!(f.biga(&["version"]).code(0).out, "biga 0.1.0\ndaemon 0.1.0\n");
    for shell in ["bash", "zsh", "fish"] {
        let d = f.biga(&["completion", shell]).code(0);
        assert!(d.out.contains("BIGA_COMPLETE"), "{shell}: {d:?}");
    }
}
