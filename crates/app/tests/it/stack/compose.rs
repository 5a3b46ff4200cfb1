//! docker-compose on a small application of several services.

use std::path::Path;

use biga_testkit::{Daemon, Ran, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

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

/// The programs there are: Debian's docker-compose, and Compose as a plugin of `docker`.
fn programs() -> Vec<Vec<String>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let standalone = std::env::split_paths(&path)
        .map(|d| d.join("docker-compose"))
        .find(|p| p.is_file());
    let given = std::env::var("BIGA_TEST_COMPOSE").ok().map(Into::into);
    let mut all: Vec<Vec<String>> = [standalone, given]
        .into_iter()
        .flatten()
        .map(|p| vec![p.display().to_string()])
        .collect();
    let dirs = ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"];
    if dirs
        .iter()
        .any(|d| Path::new(d).join("docker/cli-plugins/docker-compose").is_file())
    {
        all.push(vec!["docker".into(), "compose".into()]);
    }
    all
}

struct Project<'a> {
    d: &'a Daemon,
    program: &'a [String],
    dir: String,
}

impl Project<'_> {
    fn run(&self, args: &[&str]) -> Ran {
        let host = format!("DOCKER_HOST=unix://{}", self.d.run_root().join("docker.sock").display());
        let config = format!("DOCKER_CONFIG={}", self.d.path().join("docker").display());
        let mut words = vec!["env", "-C", &self.dir, &host, &config, "KIND=tested", "timeout", "150"];
        words.extend(self.program.iter().map(String::as_str));
        words.extend(["-p", "shop", "-f", "compose.yml"]);
        words.extend(args);
        self.d.host(&words)
    }

    fn ids(&self, service: &str) -> Vec<String> {
        self.run(&["ps", "-q", service]).ok().lines().map(Into::into).collect()
    }
}

fn try_out(d: &Daemon, program: &[String]) {
    let dir = d.path().join("shop");
    std::fs::create_dir_all(dir.join("www")).unwrap();
    std::fs::write(dir.join("compose.yml"), FILE).unwrap();
    std::fs::write(dir.join("common.yml"), COMMON).unwrap();
    std::fs::write(dir.join("store.env"), "WHO=the store\n").unwrap();
    let p = Project {
        d,
        program,
        dir: dir.display().to_string(),
    };
    let services = p.run(&["config", "--services"]).ok();
    assert!(services.contains("store") && services.contains("worker"), "{services}");
    p.run(&["up", "-d"]).ok();
    // It came up in order: the page was made of what the healthy store gave.
    eventually("the page", || {
        let page = d.host(&["wget", "-q", "-T", "5", "-O", "-", "http://127.0.0.1:8080/"]);
        (page.out == "the store\n").then_some(())
    });
    let health = docker(d, &["inspect", "-f", "{{.State.Health.Status}}", &p.ids("store")[0]]).ok();
    assert_eq!(health, "healthy");
    assert!(p.ids("debug").is_empty(), "its profile was not asked for");
    let seen = p
        .run(&["exec", "-T", "web", "sh", "-c", "echo $KIND; cat /www/index.html"])
        .ok();
    assert_eq!(seen, "tested\nthe store");
    let logs = p.run(&["logs", "--no-color", "worker"]).ok();
    assert!(logs.contains("the store"), "{logs}");

    p.run(&["up", "-d", "--scale", "worker=3", "--no-recreate"]).ok();
    assert_eq!(p.ids("worker").len(), 3);
    let asked = p.run(&["exec", "-T", "web", "nslookup", "-type=a", "worker"]).ok();
    let found = asked.lines().filter(|l| l.starts_with("Address: ")).count();
    assert_eq!(found, 3, "one name, three addresses: {asked}");
    assert_eq!(p.ids("web").len(), 1);
    let inside = p.run(&["exec", "-T", "web", "cat", "/etc/resolv.conf"]).ok();
    assert!(inside.contains("127.0.0.11"), "{inside}");
    p.run(&["--profile", "debug", "up", "-d", "debug"]).ok();
    let debug = docker(d, &["ps", "-q", "--filter", "label=com.docker.compose.service=debug"]).ok();
    assert_eq!(debug.lines().count(), 1);
    // Its network has no way to the store's.
    let blocked = docker(
        d,
        &["exec", &debug, "wget", "-q", "-T", "2", "-O", "-", "http://db:8080/who"],
    );
    assert_ne!(blocked.code, 0, "{blocked:?}");
    let once = p.run(&["run", "--rm", "-T", "worker", "echo", "once"]);
    assert!(once.out.contains("once"), "{once:?}");

    p.run(&["restart", "-t", "1", "worker"]).ok();
    p.run(&["stop", "-t", "1"]).ok();
    p.run(&["start"]).ok();
    assert_eq!(p.ids("worker").len(), 3);
    p.run(&["kill", "worker"]).ok();
    p.run(&["rm", "-f", "worker"]).ok();
    p.run(&["--profile", "debug", "down", "-v", "-t", "1"]).ok();
    assert_eq!(docker(d, &["ps", "-aq"]).ok(), "");
    assert_eq!(docker(d, &["volume", "ls", "-q"]).ok(), "");
    assert!(
        !docker(d, &["network", "ls", "--format", "{{.Name}}"])
            .ok()
            .contains("shop")
    );
    d.until_clean();
}

#[test]
fn compose_brings_up_and_down_what_it_is_told() {
    if !has_docker() {
        return;
    }
    let programs = programs();
    if programs.is_empty() {
        println!("no docker-compose on this host: it is not tried");
        return;
    }
    let d = daemon();
    for program in &programs {
        try_out(&d, program);
    }
}
