//! The example that the guide shows: a web server, a database and a cache of Debian's packages.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use biga_testkit::{Daemon, eventually};
use serde_json::Value;

use super::super::daemon;
use super::super::docker::socket;
use super::{Compose, Project, repository};

const PACKAGES: [&str; 3] = ["lighttpd", "postgresql", "redis-server"];

/// The image that the example's Dockerfiles begin with, as a tar: made once for all tests of this tree.
fn base() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let lock = std::fs::File::create(dir.join("debian.lock")).unwrap();
    lock.lock().unwrap();
    let tar = dir.join("debian.tar");
    let made = Command::new(repository().join("scripts/make-debian"))
        .arg(&tar)
        .args(PACKAGES)
        .status();
    let made = made.is_ok_and(|s| s.success());
    if !made {
        println!("Debian's packages cannot be had: the example is not tried");
    }
    made.then_some(tar)
}

/// A daemon that has it.
fn with_base() -> Option<Daemon> {
    let tar = base()?.display().to_string();
    let d = daemon();
    d.biga(&["image", "import", &tar, "debian:bookworm-slim"]).ok();
    Some(d)
}

fn project(kind: Compose) -> Option<Project> {
    kind.words()?;
    let p = Project::new(kind, with_base()?, "orders")?;
    let example = repository().join("docs/examples/orders/.");
    let copied = Command::new("cp").arg("-a").args([&example, &p.dir]).status();
    assert!(copied.unwrap().success());
    p.write(".env", "PORT=8081\nSHOP=Shop of the tests\n");
    Some(p)
}

impl Project {
    fn curl(&self, args: &[&str]) -> (u32, String) {
        let common = [
            "curl",
            "-s",
            "-m",
            "20",
            "-w",
            "\n%{http_code}",
            "http://127.0.0.1:8081/",
        ];
        let said = self.d.host(&[&common[..], args].concat()).out;
        let (body, code) = said.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), body.trim_end().to_string())
    }

    /// Waits until the page says what it shall; gives it.
    fn page(&self, what: &str, right: impl Fn(&str) -> bool) -> String {
        let mut last = (0, String::new());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                last = self.curl(&[]);
                (last.0 == 200 && right(&last.1)).then(|| last.1.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{what}: {last:?}\n{}", self.run(&["logs", "--no-color"]).out))
    }

    /// Waits until the page lists just these orders.
    fn lists(&self, what: &str, items: &[String]) {
        let sorted = |mut v: Vec<String>| {
            v.sort();
            v
        };
        let wanted = sorted(items.to_vec());
        let item = |l: &str| l.split_once(' ').unwrap_or_default().1.to_string();
        self.page(what, |p| sorted(p.lines().skip(1).map(item).collect()) == wanted);
    }

    fn order(&self, item: &str) {
        assert_eq!(self.curl(&["-d", item]), (202, format!("Ordered: {item}")));
    }

    fn sql(&self, query: &str) -> String {
        let words = ["exec", "-T", "db", "psql", "-h", "127.0.0.1", "-AtqXc", query];
        // docker-py may lose output that comes together with an answer's headers: asked again then.
        eventually("an answer of the database", || {
            Some(self.run(&words).ok()).filter(|s| !s.is_empty())
        })
    }
}

fn is_built_and_comes_up(p: &Project) {
    let config = p.run(&["config"]).ok();
    // Of `.env`, of the file of variables, and of the file that is extended.
    for word in ["Shop of the tests", "PGPASSWORD: not-for-production", "QUEUE: queue"] {
        assert!(config.contains(word), "{word}: {config}");
    }
    p.run(&["build"]).ok();
    p.run(&["up", "-d"]).ok();
    p.page("the first page", |t| t.starts_with("Shop of the tests, visit 1"));
    assert_eq!(p.run(&["port", "web", "80"]).ok(), "0.0.0.0:8081");
    for service in ["db", "cache"] {
        let doc = p.get(&format!("/containers/{}/json", p.id(service)));
        assert_eq!(doc["State"]["Health"]["Status"], "healthy", "{service}");
    }
    // What is exposed and not published is listed as well.
    let ports: Value = serde_json::json!([{"PrivatePort": 5432, "Type": "tcp"}]);
    assert_eq!(p.containers("db")[0]["Ports"], ports);
    let listed = p.run(&["ps"]).ok();
    for service in ["db", "cache", "web", "worker"] {
        assert!(listed.contains(&p.names(service)[0]), "{listed}");
    }
    assert!(!listed.contains("admin"), "its profile was not asked for: {listed}");
    let top = p.run(&["top", "db"]).ok();
    assert!(top.contains("postgres"), "{top}");
}

/// By the names of services and by aliases; and not what is on no network with it.
fn services_find_each_other(p: &Project) {
    p.order("a teapot");
    p.lists("the order", &["a teapot".into()]);
    assert_eq!(p.sql("select item from orders"), "a teapot");
    for name in ["db", "database", "cache", "queue", "worker"] {
        let found = p.inside("web", &format!("getent hosts {name}"));
        assert!(!found.is_empty(), "{name}");
    }
    assert_eq!(p.inside("worker", "getent hosts nonesuch"), "");
    let back = p.list("/networks", Some("com.docker.compose.network=back"));
    assert_eq!(back[0]["Internal"], true, "{back}");
    let admin = ["run", "--rm", "-T", "admin"];
    let query = "sleep 1; psql -AtXc 'select count(*) from orders'";
    eventually("a run of a service of a profile", || {
        let ran = p.run(&[&admin[..], &["sh", "-c", query]].concat());
        (ran.out.trim_end().lines().last() == Some("1")).then_some(())
    });
}

fn orders_are_shared_by_workers(p: &Project) -> Vec<String> {
    p.run(&["up", "-d", "--scale", "worker=3", "--no-recreate"]).ok();
    assert_eq!(p.names("worker").len(), 3);
    let mut all = vec!["a teapot".to_string()];
    for i in 0..20 {
        let item = format!("cup {i}, '\"; drop table orders; --");
        p.order(&item);
        all.push(item);
    }
    p.lists("each order once", &all);
    eventually("the log of all workers", || {
        let log = p.run(&["logs", "--no-color", "worker"]).ok();
        (log.matches("made: cup").count() == 20).then_some(())
    });
    let last = p.run(&["logs", "--no-color", "--tail", "1", "cache"]).ok();
    assert!(last.contains("Ready to accept connections"), "{last}");
    all
}

fn pauses_kills_and_restarts(p: &Project, all: &mut Vec<String>) {
    p.run(&["pause", "worker"]).ok();
    let states = p.containers("worker");
    assert!(states.iter().all(|c| c["State"] == "paused"), "{states:?}");
    p.order("a saucer");
    p.run(&["unpause", "worker"]).ok();
    all.push("a saucer".into());
    p.lists("what was ordered in the pause", all);

    p.run(&["kill", "-s", "SIGKILL", "cache"]).ok();
    assert!(p.names("cache").is_empty(), "who is killed by hand stays down");
    assert_eq!(p.curl(&[]).0, 503);
    p.run(&["start", "cache"]).ok();
    // The count began anew, and the web server found the cache again, wherever it is now.
    p.page("the first page of a new cache", |t| {
        t.lines().next().is_some_and(|l| l.ends_with("visit 1"))
    });
    let begun = |p: &Project| p.get(&format!("/containers/{}/json", p.id("db")))["State"]["StartedAt"].clone();
    let before = begun(p);
    p.run(&["restart", "db"]).ok();
    assert_ne!(begun(p), before);
    p.lists("what the database kept", all);
}

/// `events` of a project, as JSON, while something happens in it.
fn events_are_told(p: &Project) {
    let mut child = p
        .command(&[], &["events", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let (tx, rx) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in std::io::BufRead::lines(out).map_while(Result::ok) {
            let _ = tx.send(line);
        }
    });
    let mut seen = Vec::new();
    eventually("events of the cache", || {
        p.run(&["restart", "-t", "5", "cache"]).ok();
        while let Ok(line) = rx.recv_timeout(std::time::Duration::from_millis(300)) {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["type"], "container", "{event}");
            seen.push((
                event["service"].as_str().unwrap().to_string(),
                event["action"].as_str().unwrap().to_string(),
            ));
        }
        let all = ["die", "stop", "start", "restart"];
        all.iter()
            .all(|a| seen.iter().any(|(s, x)| s == "cache" && x == a))
            .then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
}

/// `up` after a change of the file makes anew what it concerns, and nothing else.
fn a_change_is_brought_up(p: &Project, all: &[String]) {
    let (db, web) = (p.id("db"), p.id("web"));
    p.write(".env", "PORT=8081\nSHOP=Another name\n");
    p.run(&["up", "-d"]).ok();
    assert_eq!(p.id("db"), db);
    assert_ne!(p.id("web"), web);
    p.page("the new name", |t| t.starts_with("Another name, visit "));
    p.lists("the old orders", all);
    let web = p.id("web");
    p.run(&["up", "-d", "--no-deps", "--force-recreate", "web"]).ok();
    assert_ne!(p.id("web"), web);
    // And what is built again: a page of another kind.
    let script = std::fs::read_to_string(p.dir.join("web/orders")).unwrap();
    p.write(
        "web/orders",
        &script.replace("$SHOP, visit", "$SHOP, built again, visit"),
    );
    p.run(&["up", "-d", "--build", "web"]).ok();
    p.page("the new page", |t| t.starts_with("Another name, built again, visit "));
}

fn data_survives_down(p: &Project, all: &[String]) {
    let images = |p: &Project| p.get("/images/json").as_array().unwrap().len();
    let before = images(p);
    p.run(&["down"]).ok();
    assert_eq!(p.get("/containers/json?all=1"), serde_json::json!([]));
    assert!(!p.get("/networks").to_string().contains("orders_back"));
    assert_eq!(images(p), before);
    p.run(&["up", "-d"]).ok();
    p.lists("the orders of before", all);
    let down = ["down", "-v", "--rmi", "local", "--remove-orphans"];
    p.run(&[&["--profile", "tools"], &down[..]].concat()).ok();
    let left = p.get("/images/json").to_string();
    assert!(!left.contains("orders"), "{left}");
    p.is_gone();
}

/// What only the plugin has.
fn more_of_version_2(p: &Project) {
    let listed: Value = serde_json::from_str(&p.run(&["ls", "--format", "json"]).ok()).unwrap();
    assert_eq!(listed[0]["Name"], "orders", "{listed}");
    p.run(&["cp", "db:/schema.sql", "copied"]).ok();
    let copied = std::fs::read_to_string(p.dir.join("copied")).unwrap();
    assert!(copied.contains("create table orders"));
    let stats = p
        .run(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"])
        .ok();
    assert!(
        stats
            .lines()
            .any(|l| l.starts_with("orders-db-1 ") && l.contains("MiB")),
        "{stats}"
    );
    p.run(&["scale", "worker=2"]).ok();
    assert_eq!(p.names("worker").len(), 2);
    let used = p.run(&["images", "--format", "json"]).ok();
    assert!(used.contains("orders-db"), "{used}");
    let ran = p.run(&["up", "-d", "--wait"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn whole_life(kind: Compose) {
    let Some(p) = project(kind) else { return };
    is_built_and_comes_up(&p);
    services_find_each_other(&p);
    let mut all = orders_are_shared_by_workers(&p);
    pauses_kills_and_restarts(&p, &mut all);
    events_are_told(&p);
    if p.kind == Compose::V2 {
        more_of_version_2(&p);
    }
    a_change_is_brought_up(&p, &all);
    data_survives_down(&p, &all);
}

/// The guide's section, block by block, in a directory that looks like the repository.
#[test]
fn what_the_guide_says_of_compose_2_runs_as_written() {
    let (Some(_), Some(tar)) = (Compose::V2.words(), base()) else {
        return;
    };
    let guide = std::fs::read_to_string(repository().join("docs/guides/docker.md")).unwrap();
    let section = guide.split("\n## ").find(|s| s.starts_with("Compose\n")).unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let script: String = blocks.map(|b| b.split("```").next().unwrap()).collect();
    assert!(script.contains("docker compose up"), "{script}");
    let d = daemon();
    let dir = d.path().join("repository");
    for part in ["scripts", "docs/examples", "target"] {
        std::fs::create_dir_all(dir.join(part)).unwrap();
    }
    let copy = |from: &std::path::Path, to: &str| {
        let copied = Command::new("cp").arg("-a").args([from, &dir.join(to)]).status();
        assert!(copied.unwrap().success());
    };
    copy(&repository().join("scripts/make-debian"), "scripts");
    copy(&repository().join("docs/examples/orders"), "docs/examples");
    std::os::unix::fs::symlink(&tar, dir.join("target/debian.tar")).unwrap();
    copy(&tar.with_extension("tar.packages"), "target");
    let mut c = d.host_command(&["timeout", "220", "bash", "-euxc", &script]);
    let ran: biga_testkit::Ran = c
        .current_dir(&dir)
        .env("DOCKER_HOST", format!("unix://{}", socket(&d)))
        .env("DOCKER_CONFIG", d.path().join("docker"))
        .output()
        .unwrap()
        .into();
    let said = ran.out.clone() + &ran.err;
    ran.ok();
    for text in ["Ordered: a teapot", "The shop, visit 1\n", "(1 row)", "1 a teapot"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let left = d.biga(&["ps", "-aq"]).ok() + &d.biga(&["volume", "ls", "-q"]).ok();
    assert_eq!(left, "");
    d.until_clean();
}

#[test]
fn compose_1_runs_a_web_server_a_database_and_a_cache() {
    whole_life(Compose::V1);
}

#[test]
fn compose_2_runs_a_web_server_a_database_and_a_cache() {
    whole_life(Compose::V2);
}
