//! `docker events`: every action of the reference that happens here, and what their filters let through.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker, socket};

/// `Type Action` of all events so far, with more arguments.
fn events(d: &Daemon, more: &[&str]) -> Vec<String> {
    let all = [
        "events",
        "--since",
        "0",
        "--until",
        "0s",
        "--format",
        "{{.Type}} {{.Action}}",
    ];
    let text = docker(d, &[&all, more].concat()).ok();
    text.lines().map(String::from).collect()
}

fn post(d: &Daemon, path: &str) {
    let mut s = UnixStream::connect(socket(d)).unwrap();
    write!(
        s,
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    s.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
}

/// What Docker's reference lists of containers, images, volumes, networks and the builder, and happens here; pushes and pulls are
/// with the registries, `oom` and `health_status` with what brings them about, detaching with the streams.
const TOLD: &[&str] = &[
    "container archive-path",
    "container attach",
    "container commit",
    "container create",
    "container destroy",
    "container die",
    "container exec_create: true",
    "container exec_die",
    "container exec_start: true",
    "container export",
    "container extract-to-dir",
    "container kill",
    "container pause",
    "container prune",
    "container rename",
    "container resize",
    "container restart",
    "container start",
    "container stop",
    "container top",
    "container unpause",
    "container update",
    "image delete",
    "image import",
    "image load",
    "image prune",
    "image save",
    "image tag",
    "image untag",
    "network connect",
    "network create",
    "network destroy",
    "network disconnect",
    "network prune",
    "volume create",
    "volume destroy",
    "volume mount",
    "volume prune",
    "volume unmount",
    "builder prune",
];

#[test]
fn every_action_is_told_and_filters_choose() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let ok = |args: &[&str]| docker(&d, args).ok();
    let file = |name: &str| d.path().join(name).display().to_string();
    ok(&["volume", "create", "--label", "kind=store", "data"]);
    ok(&["network", "create", "--subnet", "10.123.9.0/24", "front"]);
    let front = ok(&["network", "inspect", "-f", "{{.Id}}", "front"]);
    let run = [
        "run",
        "-dt",
        "--name",
        "one",
        "--label",
        "team=a",
        "-v",
        "data:/data",
        "--network",
        "front",
    ];
    let id = ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    ok(&["exec", "one", "true"]);
    post(&d, "/containers/one/resize?h=40&w=100");
    ok(&["pause", "one"]);
    ok(&["unpause", "one"]);
    ok(&["top", "one"]);
    ok(&["update", "-m", "100m", "--memory-swap", "-1", "one"]);
    ok(&["rename", "one", "uno"]);
    std::fs::write(file("a"), "a").unwrap();
    ok(&["cp", &file("a"), "uno:/tmp/a"]);
    ok(&["cp", "uno:/tmp/a", &file("b")]);
    ok(&["export", "-o", &file("root.tar"), "uno"]);
    ok(&["commit", "uno", "made:1"]);
    ok(&["network", "connect", "bridge", "uno"]);
    ok(&["network", "disconnect", "bridge", "uno"]);
    ok(&["restart", "-t", "0", "uno"]);
    ok(&["stop", "-t", "0", "uno"]);
    ok(&["run", "--rm", "busybox", "true"]);
    ok(&["tag", "made:1", "made:2"]);
    ok(&["save", "-o", &file("made.tar"), "made:1"]);
    ok(&["rmi", "made:1"]);
    let made = ok(&["image", "inspect", "-f", "{{.Id}}", "made:2"]);
    ok(&["rmi", "made:2"]);
    ok(&["load", "-i", &file("made.tar")]);
    ok(&["import", &file("root.tar"), "imported:1"]);
    ok(&["container", "prune", "-f"]);
    ok(&["volume", "prune", "-af"]);
    ok(&["network", "prune", "-f"]);
    ok(&["image", "prune", "-f"]);
    ok(&["builder", "prune", "-f"]);

    // The command line sends whole seconds: what this one brought is told in the next.
    eventually("every action", || {
        let told = events(&d, &[]);
        let missing: Vec<_> = TOLD.iter().filter(|t| !told.iter().any(|e| e == *t)).collect();
        println!("missing: {missing:?}");
        missing.is_empty().then_some(())
    });

    // In the order in which they happened.
    let of_one = [
        "--filter",
        &format!("container={id}"),
        "--filter",
        "event=start",
        "--filter",
        "event=die",
    ];
    let life = events(&d, &of_one);
    assert_eq!(
        life,
        ["container start", "container die", "container start", "container die"]
    );
    let data = events(&d, &["--filter", "volume=data"]);
    let twice = ["volume mount", "volume unmount", "volume mount", "volume unmount"].map(String::from);
    assert_eq!(
        data,
        [&["volume create".into()], &twice[..], &["volume destroy".into()]].concat()
    );
    let gone = events(&d, &["--filter", &format!("image={made}")]);
    assert_eq!(
        gone.iter().filter(|e| *e == "image delete").count(),
        1,
        "with its last name: {gone:?}"
    );

    // A network is found by its name and by its id.
    let by_name = events(&d, &["--filter", "network=front", "--filter", "type=network"]);
    assert_eq!(by_name, events(&d, &["--filter", &format!("network={front}")]));
    assert!(
        by_name.contains(&"network connect".into()) && by_name.contains(&"network destroy".into()),
        "{by_name:?}"
    );

    for (filter, only) in [
        ("type=builder", "builder prune"),
        ("event=rename", "container rename"),
        ("event=exec_create", "container exec_create: true"),
        ("image=imported", "image tag"),
        ("label=kind=store", ""),
        ("daemon=test", ""),
        ("scope=swarm", ""),
        ("node=one", ""),
    ] {
        let told = events(&d, &["--filter", filter]);
        match only {
            "" => assert!(told.is_empty(), "{filter}: {told:?}"),
            only => assert_eq!(told, [only], "{filter}"),
        }
    }
    let labelled = events(&d, &["--filter", "label=team=a"]);
    assert!(
        labelled.len() > 15 && labelled.iter().all(|e| e.starts_with("container ")),
        "{labelled:?}"
    );
    assert_eq!(
        labelled,
        events(&d, &["--filter", "label=team", "--filter", "scope=local"])
    );
    // Of the container's image without its tag.
    let starts = ["--filter", "image=busybox", "--filter", "event=start"];
    assert_eq!(events(&d, &starts).len(), 3);
    // An end before the beginning, and a time that is none.
    let odd = docker(&d, &["events", "--since", "20", "--until", "10"]);
    assert!(odd.err.contains("cannot be after"), "{odd:?}");
    assert_ne!(docker(&d, &["events", "--since", "never", "--until", "0s"]).code, 0);
    // Each form of a time reaches back to the beginning.
    let all = events(&d, &[]).len();
    for since in [
        "1h",
        "2006-01-02T15:04:05",
        "2006-01-02T15:04:05Z",
        "2006-01-02",
        "1136073845.5",
    ] {
        let told = docker(&d, &["events", "--since", since, "--until", "0s"]).ok();
        assert_eq!(told.lines().count(), all, "{since}");
    }
    d.until_clean();
}
