//! Services of busybox: order, health, aliases, profiles, scaling.

use biga_testkit::eventually;

use super::super::daemon;
use super::{Compose, Project};

const FILE: &str = r#"
services:
  store:
    image: busybox
    command: ["sh", "-c", "echo $$WHO > /data/who; touch /tmp/ready; exec httpd -f -p 8080 -h /data"]
    env_file: [store.env]
    volumes: ["data:/data"]
    networks:
      back: {aliases: [db]}
    healthcheck: {test: ["CMD", "test", "-f", "/tmp/ready"], interval: 1s, timeout: 20s, retries: 60}
    stop_grace_period: 1s
    stop_signal: SIGKILL
  worker:
    extends: {file: common.yml, service: base}
    command: ["sh", "-c", "wget -q -O - http://db:8080/who; exec sleep 1000"]
    depends_on:
      store: {condition: service_healthy}
    networks: [back]
  web:
    extends: {file: common.yml, service: base}
    command: ["sh", "-c", "wget -q -O /www/index.html http://db:8080/who && exec httpd -f -p 80 -h /www"]
    depends_on:
      store: {condition: service_healthy}
    ports: ["8080:80"]
    volumes: ["./www:/www"]
    networks: [front, back]
  debug:
    extends: {file: common.yml, service: base}
    command: ["sleep", "1000"]
    profiles: [debug]
    networks: [front]
networks:
  front: {}
  back:
    internal: true
    ipam:
      config: [{subnet: 10.125.0.0/24}]
volumes:
  data:
    labels: {of: store}
"#;

const COMMON: &str = r#"
services:
  base:
    image: busybox
    environment: {KIND: "${KIND:-none}"}
    stop_grace_period: 1s
    stop_signal: SIGKILL
"#;

fn project(kind: Compose) -> Option<Project> {
    let p = Project::new(kind, daemon(), "shop")?;
    std::fs::create_dir(p.dir.join("www")).unwrap();
    for (name, text) in [
        ("compose.yml", FILE),
        ("common.yml", COMMON),
        ("store.env", "WHO=the store\n"),
    ] {
        p.write(name, text);
    }
    Some(p)
}

fn comes_up_in_order(p: &Project) {
    let services = p.run(&["config", "--services"]).ok();
    let mut services: Vec<&str> = services.split_whitespace().collect();
    services.retain(|s| *s != "debug");
    services.sort_unstable();
    assert_eq!(services, ["store", "web", "worker"]);
    p.run(&["up", "-d"]).ok();
    // The page was made of what the healthy store gave.
    eventually("the page", || {
        let page =
            p.d.host(&["wget", "-q", "-T", "5", "-O", "-", "http://127.0.0.1:8080/"]);
        (page.out == "the store\n").then_some(())
    });
    let store = p.get(&format!("/containers/{}/json", p.names("store")[0]));
    assert_eq!(store["State"]["Health"]["Status"], "healthy");
    assert!(p.names("debug").is_empty(), "its profile was not asked for");
    assert_eq!(p.inside("web", "echo $KIND"), "tested\n");
    let volumes = p.list("/volumes", Some("of=store"));
    assert_eq!(volumes["Volumes"].as_array().unwrap().len(), 1, "{volumes}");
    // docker-py may lose output that comes together with an answer's headers (see `reads_ahead`): asked again then.
    eventually("an exec", || {
        let ran = p.run(&["exec", "-T", "web", "cat", "/www/index.html"]);
        (ran.ok() == "the store").then_some(())
    });
    eventually("the log", || {
        p.run(&["logs", "--no-color", "worker"])
            .ok()
            .contains("the store")
            .then_some(())
    });
}

fn grows(p: &Project) {
    p.run(&["up", "-d", "--scale", "worker=3", "--no-recreate"]).ok();
    assert_eq!(p.names("worker").len(), 3);
    eventually("one name with three addresses", || {
        let asked = p.inside("web", "nslookup -type=a worker");
        (asked.lines().filter(|l| l.starts_with("Address: ")).count() == 3).then_some(())
    });
    let mut listed = 0;
    p.run(&["ps", "-q", "worker"])
        .ok()
        .lines()
        .for_each(|l| listed += usize::from(l.len() == 64));
    assert_eq!(listed, 3);
    p.run(&["--profile", "debug", "up", "-d", "debug"]).ok();
    // Its network has no way to the store's.
    let page = "wget -q -T 5 -O - http://db:8080/who || echo no way";
    assert_eq!(p.inside("debug", page), "no way\n");
    eventually("a container that runs once", || {
        // 1.29 attaches after it has started it.
        let ran = p.run(&["run", "--rm", "-T", "worker", "sh", "-c", "sleep 2; echo once"]);
        ran.ok().contains("once").then_some(())
    });
    assert_eq!(p.names("worker").len(), 3);
}

fn stops_and_goes(p: &Project) {
    p.run(&["restart", "-t", "1", "worker"]).ok();
    assert_eq!(p.names("worker").len(), 3);
    p.run(&["--profile", "debug", "stop", "-t", "1"]).ok();
    assert_eq!(p.get("/containers/json"), serde_json::json!([]));
    p.run(&["start"]).ok();
    assert_eq!(p.names("worker").len(), 3);
    p.run(&["kill", "worker"]).ok();
    p.run(&["rm", "-f", "worker"]).ok();
    assert_eq!(p.names("web").len(), 1);
    p.run(&["--profile", "debug", "down", "-v", "-t", "1"]).ok();
    p.is_gone();
}

fn brings_up_and_down(kind: Compose) {
    let Some(p) = project(kind) else { return };
    comes_up_in_order(&p);
    grows(&p);
    stops_and_goes(&p);
}

#[test]
fn compose_1_brings_up_and_down_what_it_is_told() {
    brings_up_and_down(Compose::V1);
}

#[test]
fn compose_2_brings_up_and_down_what_it_is_told() {
    brings_up_and_down(Compose::V2);
}

/// A service whose image is built.
fn builds(kind: Compose) {
    let Some(p) = project(kind) else { return };
    let built = "services:\n  made:\n    image: made:1\n    build: {context: ./made, args: {A: composed}}\n    command: [cat, /a]\n";
    p.write("compose.yml", built);
    p.write(
        "made/Dockerfile",
        "FROM busybox\nARG A\nCOPY part /part\nRUN cat /part > /a; echo $A >> /a\n",
    );
    p.write("made/part", "of a context, ");
    p.run(&["build"]).ok();
    assert_eq!(
        p.d.biga(&["run", "--rm", "made:1", "cat", "/a"]).ok(),
        "of a context, composed"
    );
    p.run(&["up", "-d"]).ok();
    eventually("the log", || {
        p.run(&["logs", "--no-color", "made"])
            .ok()
            .contains("composed")
            .then_some(())
    });
    p.run(&["down"]).ok();
    p.d.until_clean();
}

#[test]
fn compose_1_builds_services() {
    builds(Compose::V1);
}

#[test]
fn compose_2_builds_services() {
    builds(Compose::V2);
}
