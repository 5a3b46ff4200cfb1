//! docker-compose: Debian 12's 1.29 in Python, and Compose v2, the plugin of Docker's command line.

mod orders;
mod small;

use std::path::{Path, PathBuf};

use biga_testkit::{Daemon, Ran};
use serde_json::Value;

use super::docker::socket;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Compose {
    V1,
    V2,
}

impl Compose {
    /// How it is called; none where this host has none, which is said.
    fn words(self) -> Option<&'static [&'static str]> {
        let (words, wanted): (&[&str], &str) = match self {
            Compose::V1 => (&["docker-compose"], " 1."),
            Compose::V2 => (&["docker", "compose"], " v2.\n 2."),
        };
        let version = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg("version")
            .output();
        let said = version.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
        let first = said.lines().next().unwrap_or_default();
        let found = wanted.lines().any(|w| first.contains(w));
        if !found {
            println!("no Compose {self:?} on this host: it is not tried");
        }
        found.then_some(words)
    }
}

/// A project on a daemon.
struct Project {
    d: Daemon,
    kind: Compose,
    words: &'static [&'static str],
    name: &'static str,
    dir: PathBuf,
}

impl Project {
    /// Below the daemon's directory; its files are for the test to write.
    fn new(kind: Compose, d: Daemon, name: &'static str) -> Option<Project> {
        let dir = d.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let words = kind.words()?;
        Some(Project {
            d,
            kind,
            words,
            name,
            dir,
        })
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Compose, ready to be started; `before` is what starts it.
    fn command(&self, before: &[&str], args: &[&str]) -> std::process::Command {
        let words = [before, self.words, &["-p", self.name, "-f", "compose.yml"], args].concat();
        let mut c = self.d.host_command(&words);
        c.current_dir(&self.dir)
            .env("DOCKER_HOST", format!("unix://{}", socket(&self.d)))
            .env("DOCKER_CONFIG", self.d.path().join("docker"))
            // The classic builder. 1.29 would else leave `build`, `exec` and `run` to Docker's command line.
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0")
            .env("COMPOSE_INTERACTIVE_NO_CLI", "1")
            .env("KIND", "tested");
        c
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.command(&["timeout", "120"], args).output().unwrap().into()
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

    /// The running containers of a service, as they are listed.
    fn containers(&self, service: &str) -> Vec<Value> {
        let label = format!("com.docker.compose.service={service}");
        let found = self.list("/containers/json", Some(&label));
        found.as_array().unwrap().clone()
    }

    /// The names of a service's running containers.
    fn names(&self, service: &str) -> Vec<String> {
        let name = |c: &Value| c["Names"][0].as_str().unwrap().trim_start_matches('/').to_string();
        self.containers(service).iter().map(name).collect()
    }

    /// The id of a service's only running container.
    fn id(&self, service: &str) -> String {
        let found = self.containers(service);
        assert_eq!(found.len(), 1, "{service}: {found:?}");
        found[0]["Id"].as_str().unwrap().to_string()
    }

    /// What a script says in the only container of a service.
    fn inside(&self, service: &str, script: &str) -> String {
        let names = self.names(service);
        assert_eq!(names.len(), 1, "{service}: {names:?}");
        self.d.biga(&["exec", &names[0], "sh", "-c", script]).out
    }

    /// Nothing of the project is left.
    fn is_gone(&self) {
        assert_eq!(self.get("/containers/json?all=1"), serde_json::json!([]));
        let volumes = self.get("/volumes");
        assert!(volumes["Volumes"].as_array().is_none_or(Vec::is_empty), "{volumes}");
        let networks = self.get("/networks").to_string();
        assert!(!networks.contains(self.name), "{networks}");
        self.d.until_clean();
    }
}

/// The repository's root.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}
