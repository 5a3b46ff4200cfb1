//! Several containers in one instance.

use biga_testkit::{Daemon, eventually};
use serde_json::{Value, json};

use super::{daemon, docker};

/// Applies an instance of this name and spec.
fn apply(d: &Daemon, name: &str, spec: &Value) {
    let file = d.path().join(format!("{name}.yaml"));
    let object = json!({"apiVersion": "biga.dev/v1", "kind": "Instance", "metadata": {"name": name}, "spec": spec});
    // JSON is YAML.
    std::fs::write(&file, object.to_string()).unwrap();
    d.biga(&["apply", "-f", file.to_str().unwrap()]).ok();
}

fn status(d: &Daemon, name: &str) -> Value {
    let text = d.biga(&["get", "instances", name, "-o", "json"]).ok();
    serde_json::from_str::<Value>(&text).unwrap()["status"].take()
}

/// What the status says of a container.
fn container(d: &Daemon, name: &str, container: &str) -> Value {
    let s = status(d, name);
    let lists = ["initContainerStatuses", "containerStatuses"];
    let all = lists.iter().flat_map(|l| s[*l].as_array().cloned().unwrap_or_default());
    all.into_iter().find(|c| c["name"] == container).unwrap_or_default()
}

fn runs(c: &Value) -> bool {
    c["state"]["running"].is_object()
}

/// The file in the volume `d` to which containers write what they do.
fn journal(d: &Daemon, name: &str) -> Vec<String> {
    let uid = d.field(name, &["metadata", "uid"]);
    let file = d.state().join("instances").join(uid).join("empty/d/journal");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A container that notes its begin and its polite end, and does `work` between.
fn noting(name: &str, work: &str) -> Value {
    let script = format!(
        "trap 'echo end-{name} >> /d/journal; exit 0' TERM; echo {name} >> /d/journal; {work}; while :; do sleep 1000 & wait $!; done"
    );
    json!({
        "name": name,
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "d", "mountPath": "/d"}],
    })
}

fn shop() -> Value {
    let mut side = noting("side", "echo from side");
    side["restartPolicy"] = "Always".into();
    json!({
        "image": "busybox",
        "restartPolicy": {"policy": "always"},
        "stop": {"gracePeriodSeconds": 60},
        "volumes": [{"name": "d", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "init",
                "command": ["sh", "-c", "echo page > /d/page; echo init >> /d/journal"],
                "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            },
            side,
        ],
        "containers": [
            noting("web", "httpd -p 80 -h /d; echo from web"),
            noting("job", "[ -e /tmp/mine ] && echo stale; touch /tmp/mine; echo from job"),
        ],
    })
}

#[test]
fn a_pod_comes_up_in_order_shares_and_goes_down_in_order() {
    let d = daemon();
    apply(&d, "shop", &shop());
    d.until_phase("shop", "Running");
    eventually("all to run", || {
        ["side", "web", "job"]
            .iter()
            .all(|c| runs(&container(&d, "shop", c)))
            .then_some(())
    });
    let init = container(&d, "shop", "init");
    assert_eq!(init["state"]["terminated"]["reason"], "Completed", "{init}");
    assert_eq!(init["image"], "busybox");
    assert!(init["imageId"].as_str().unwrap().starts_with("sha256:"), "{init}");
    eventually("all to have begun", || (journal(&d, "shop").len() == 4).then_some(()));
    assert_eq!(journal(&d, "shop")[..2], ["init", "side"]);
    assert!(d.biga(&["ps", "-o", "wide"]).ok().contains("3/3"));

    // One network, one volume, and logs of their own.
    eventually("the page by localhost", || {
        let get = [
            "exec",
            "shop",
            "-c",
            "job",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1/page",
        ];
        (d.biga(&get).out == "page\n").then_some(())
    });
    assert_eq!(d.biga(&["exec", "shop", "-c", "side", "hostname"]).ok(), "shop");
    for c in ["side", "web", "job"] {
        eventually("its log", || {
            (d.biga(&["logs", "shop", "-c", c]).out == format!("from {c}\n")).then_some(())
        });
    }
    assert_eq!(
        d.biga(&["logs", "shop"]).ok(),
        "from web",
        "the first of the containers"
    );
    let wrong = d.biga(&["exec", "shop", "-c", "nobody", "true"]);
    assert!(
        wrong.code != 0 && wrong.err.contains("init, side, web, job"),
        "{}",
        wrong.err
    );
    assert_ne!(d.biga(&["logs", "shop", "-c", "nobody"]).code, 0);

    if docker::has_docker() {
        let seen = docker::docker(&d, &["ps", "--format", "{{.Names}} {{.Image}}"]).ok();
        assert_eq!(seen, "shop busybox:latest", "one entry");
        assert_eq!(docker::docker(&d, &["exec", "shop", "cat", "/d/page"]).ok(), "page");
        assert_eq!(docker::docker(&d, &["logs", "shop"]).ok(), "from web");
    }

    d.biga(&["stop", "shop"]).ok();
    let ends: Vec<String> = journal(&d, "shop")[4..].to_vec();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(ends[2], "end-side", "sidecars end last: {ends:?}");
    assert_eq!(d.field("shop", &["status", "exitCode"]), "0");
    assert!(!runs(&container(&d, "shop", "web")));
    // Out of it yes; into it nothing that the next start would throw away.
    let page = d.path().join("page").display().to_string();
    d.biga(&["cp", "shop:/etc/passwd", &page]).ok();
    let refused = d.biga(&["cp", &page, "shop:/tmp/page"]);
    assert!(
        refused.code != 0 && refused.err.contains("does not run") && refused.err.contains("fresh files"),
        "{refused:?}"
    );

    d.biga(&["start", "shop"]).ok();
    eventually("a new begin", || (journal(&d, "shop").len() == 11).then_some(()));
    assert_eq!(journal(&d, "shop")[7..9], ["init", "side"]);
    d.biga(&["cp", &page, "shop:/tmp/page"]).ok();
    assert!(d.biga(&["exec", "shop", "cat", "/tmp/page"]).ok().contains("root"));
    d.biga(&["rm", "-f", "shop"]).ok();
    d.until_clean();
}

#[test]
fn one_is_started_again_also_after_the_daemon_was_killed() {
    let mut d = daemon();
    apply(&d, "shop", &shop());
    d.until_phase("shop", "Running");
    eventually("all to have begun", || (journal(&d, "shop").len() == 4).then_some(()));
    let web = container(&d, "shop", "web")["pid"].clone();
    assert!(web.is_u64());

    d.biga(&["kill", "shop", "-c", "job"]).ok();
    eventually("the job again", || {
        let job = container(&d, "shop", "job");
        (runs(&job) && job["restartCount"] == 1).then_some(())
    });
    let job = container(&d, "shop", "job");
    assert_eq!(job["lastTermination"]["signal"], 9, "{job}");
    assert_eq!(container(&d, "shop", "web")["pid"], web, "the other went on");
    eventually("its second line", || {
        (d.biga(&["logs", "shop", "-c", "job"]).out == "from job\nfrom job\n").then_some(())
    });

    // It ends while nobody looks.
    d.kill();
    let pid = job["pid"].as_u64().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    d.serve();
    eventually("the job a third time", || {
        let job = container(&d, "shop", "job");
        (runs(&job) && job["restartCount"] == 2).then_some(())
    });
    assert_eq!(container(&d, "shop", "web")["pid"], web);
    assert_eq!(container(&d, "shop", "web")["restartCount"], 0);
    eventually("its third line", || {
        let log = d.biga(&["logs", "shop", "-c", "job"]).out;
        (log == "from job\nfrom job\nfrom job\n").then_some(())
    });
    assert_eq!(d.biga(&["exec", "shop", "cat", "/d/page"]).ok(), "page");
    d.biga(&["rm", "-f", "shop"]).ok();
    d.until_clean();
}

#[test]
fn it_ends_with_what_it_is_there_for() {
    let d = daemon();
    let mut spec = shop();
    spec["restartPolicy"] = json!({"policy": "on-failure"});
    // The first try of each fails.
    let try_twice = |name: &str| format!("if [ -e /d/{name} ]; then echo done; else touch /d/{name}; exit 4; fi");
    spec["initContainers"][0]["command"] = json!(["sh", "-c", try_twice("init")]);
    for (i, name) in [(0, "web"), (1, "job")] {
        spec["containers"][i]["command"] = json!(["sh", "-c", try_twice(name)]);
    }
    apply(&d, "work", &spec);
    d.until_phase("work", "Exited");
    assert_eq!(d.field("work", &["status", "exitCode"]), "0");
    for c in ["init", "web", "job"] {
        let seen = container(&d, "work", c);
        assert_eq!(
            (&seen["restartCount"], &seen["state"]["terminated"]["exitCode"]),
            (&json!(1), &json!(0)),
            "{seen}"
        );
    }
    assert_eq!(journal(&d, "work"), ["side", "end-side"]);

    spec["restartPolicy"] = json!({"policy": "no"});
    spec["initContainers"][0]["command"] = json!(["sh", "-c", "echo no luck; exit 3"]);
    apply(&d, "fails", &spec);
    d.until_phase("fails", "Exited");
    assert_eq!(d.field("fails", &["status", "exitCode"]), "3");
    assert_eq!(
        d.field("fails", &["status", "message"]),
        "container init: it ended with code 3"
    );
    assert_eq!(d.biga(&["logs", "fails", "-c", "init"]).ok(), "no luck");
    assert_eq!(journal(&d, "fails"), Vec::<String>::new(), "nothing came after it");
    d.biga(&["rm", "-f", "work", "fails"]).ok();
    d.until_clean();
}

#[test]
fn a_killed_shim_loses_the_run_and_the_policy_begins_anew() {
    let d = daemon();
    apply(&d, "shop", &shop());
    d.until_phase("shop", "Running");
    eventually("all to have begun", || (journal(&d, "shop").len() == 4).then_some(()));
    let uid = d.field("shop", &["metadata", "uid"]);
    let shim = std::fs::read_to_string(d.run_root().join("instances").join(uid).join("shim.pid")).unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", shim.trim()])
            .status()
            .unwrap()
            .success()
    );
    eventually("a new begin", || (journal(&d, "shop").len() == 8).then_some(()));
    assert_eq!(journal(&d, "shop")[4..6], ["init", "side"]);
    d.until_phase("shop", "Running");
    d.biga(&["rm", "-f", "shop"]).ok();
    d.until_clean();
}
