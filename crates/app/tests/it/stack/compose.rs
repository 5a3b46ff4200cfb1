//! docker-compose on a small application of several services.

use std::path::PathBuf;

use biga_testkit::{Daemon, Ran, eventually};
use serde_json::Value;

use super::daemon;
use super::docker::socket;

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

/// The `docker-compose` of this host: Debian's 1.29, or any other that is found first.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|d| d.join("docker-compose"))
        .find(|p| p.is_file())
}

struct Project {
    d: Daemon,
    program: String,
    dir: PathBuf,
}

impl Project {
    fn new(program: &std::path::Path) -> Project {
        let d = daemon();
        let dir = d.path().join("shop");
        std::fs::create_dir_all(dir.join("www")).unwrap();
        for (name, text) in [
            ("compose.yml", FILE),
            ("common.yml", COMMON),
            ("store.env", "WHO=the store\n"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let program = program.display().to_string();
        Project { d, program, dir }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let dir = self.dir.display().to_string();
        let host = format!("DOCKER_HOST=unix://{}", socket(&self.d));
        let config = format!("DOCKER_CONFIG={}", self.d.path().join("docker").display());
        // 1.29 would else leave `exec` and `run` to Docker's command line.
        let alone = "COMPOSE_INTERACTIVE_NO_CLI=1";
        let builder = "COMPOSE_DOCKER_CLI_BUILD=0";
        let before = [
            "env",
            "-C",
            &dir,
            &host,
            &config,
            alone,
            builder,
            "KIND=tested",
            "timeout",
            "120",
        ];
        let project = [&self.program, "-p", "shop", "-f", "compose.yml"];
        self.d.host(&[&before[..], &project, args].concat())
    }

    /// What the Docker API answers.
    fn get(&self, path: &str) -> Value {
        self.list(path, None)
    }

    /// What the Docker API lists of what has a label.
    fn list(&self, path: &str, label: Option<&str>) -> Value {
        let url = format!("http://localhost/v1.44{path}");
        let socket = socket(&self.d);
        let mut words = vec!["curl", "-sSf", "--unix-socket", &socket];
        let filters = label.map(|l| format!("filters={}", serde_json::json!({"label": [l]})));
        if let Some(f) = &filters {
            words.extend(["-G", "--data-urlencode", f]);
        }
        words.push(&url);
        serde_json::from_str(&self.d.host(&words).ok()).unwrap()
    }

    /// The names of a service's running containers.
    fn names(&self, service: &str) -> Vec<String> {
        let label = format!("com.docker.compose.service={service}");
        let name = |c: &Value| c["Names"][0].as_str().unwrap().trim_start_matches('/').to_string();
        let found = self.list("/containers/json", Some(&label));
        found.as_array().unwrap().iter().map(name).collect()
    }

    /// What a script says in the only container of a service.
    fn inside(&self, service: &str, script: &str) -> String {
        let names = self.names(service);
        assert_eq!(names.len(), 1, "{service}: {names:?}");
        self.d.biga(&["exec", &names[0], "sh", "-c", script]).out
    }
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
    assert_eq!(p.get("/containers/json?all=1"), serde_json::json!([]));
    let volumes = p.get("/volumes");
    assert!(volumes["Volumes"].as_array().is_none_or(Vec::is_empty), "{volumes}");
    let networks = p.get("/networks").to_string();
    assert!(!networks.contains("shop"), "{networks}");
    p.d.until_clean();
}

#[test]
fn compose_brings_up_and_down_what_it_is_told() {
    let Some(program) = program() else {
        println!("no docker-compose on this host: it is not tried");
        return;
    };
    let p = Project::new(&program);
    comes_up_in_order(&p);
    grows(&p);
    stops_and_goes(&p);
}

/// A service whose image is built.
#[test]
fn services_are_built() {
    let Some(program) = program() else {
        println!("no docker-compose on this host: it is not tried");
        return;
    };
    let p = Project::new(&program);
    let built = "services:\n  made:\n    image: made:1\n    build: {context: ./made, args: {A: composed}}\n    command: [cat, /a]\n";
    std::fs::create_dir(p.dir.join("made")).unwrap();
    std::fs::write(p.dir.join("compose.yml"), built).unwrap();
    std::fs::write(
        p.dir.join("made/Dockerfile"),
        "FROM busybox\nARG A\nCOPY part /part\nRUN cat /part > /a; echo $A >> /a\n",
    )
    .unwrap();
    std::fs::write(p.dir.join("made/part"), "of a context, ").unwrap();
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
