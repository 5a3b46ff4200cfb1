//! A served API on a socket of its own, and two clients: raw HTTP, and the real `docker`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use biga_api_docker::{DockerApi, NodeInfo, router, serve};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::node::Node;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Served {
    pub node: Node,
    dir: tempfile::TempDir,
}

/// Serves a fresh node.
pub async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let info = NodeInfo {
        name: "testnode".into(),
        id: "TEST:ID".into(),
        version: "0.1.0".into(),
        kernel: "6.1".into(),
        os: "Test Linux".into(),
        cpus: 2,
        memory: 1 << 30,
        cgroup_version: 2,
        state_dir: "/state".into(),
        microvms: true,
        realtime: true,
        ..NodeInfo::default()
    };
    let api = DockerApi::new(
        node.store.clone(),
        std::sync::Arc::new(node.clone()),
        info,
        biga_store::SpecWriter::new(node.store.clone()),
    );
    let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
    tokio::spawn(async move { serve(listener, router(api)).await });
    Served { node, dir }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Each line as JSON.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{self:?}"))
            .to_string()
    }

    #[track_caller]
    pub fn must(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Served {
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Sends a request and gives the answer without its body.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let io = TokioIo::new(UnixStream::connect(self.socket()).await.unwrap());
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(async move { connection.with_upgrades().await });
        tokio::time::timeout(PATIENCE, client.send_request(request))
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub fn request(method: &str, path: &str, body: Option<Value>) -> Request<Full<Bytes>> {
        let mut b = Request::builder().method(method).uri(path).header("host", "docker");
        if body.is_some() {
            b = b.header("content-type", "application/json");
        }
        b.body(Full::new(body.map(|b| b.to_string()).unwrap_or_default().into()))
            .unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("a body in time")
            .unwrap()
            .to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.send(Served::request(method, path, body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// Makes a container of busybox that runs `cmd`.
    /// What was told so far, with these filters.
    pub async fn told(&self, filters: Value) -> Vec<Value> {
        let filters: String = filters.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        let now = biga_model::Timestamp::now();
        let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        self.get(&format!("/events?since=0&until={until}&filters={filters}"))
            .await
            .must(200)
            .lines()
    }

    pub async fn create(&self, name: &str, cmd: &[&str]) -> String {
        let body = serde_json::json!({"Image": "busybox", "Cmd": cmd});
        let a = self
            .post(&format!("/containers/create?name={name}"), body)
            .await
            .must(201);
        a.json()["Id"].as_str().unwrap().to_string()
    }

    /// Makes one and starts it.
    pub async fn run(&self, name: &str, cmd: &[&str]) -> String {
        let id = self.create(name, cmd).await;
        self.call("POST", &format!("/containers/{id}/start"), None)
            .await
            .must(204);
        id
    }

    /// Opens a stream in both directions.
    pub async fn hijack(&self, path: &str, body: Option<Value>) -> TokioIo<hyper::upgrade::Upgraded> {
        let mut r = Served::request("POST", path, body);
        r.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        r.headers_mut().insert("upgrade", "tcp".parse().unwrap());
        let response = self.open(r).await;
        assert_eq!(response.status(), 101);
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }

    fn docker(&self, args: &[&str]) -> tokio::process::Command {
        let mut c = tokio::process::Command::new("docker");
        c.args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        c
    }

    /// Starts the real `docker`.
    pub fn spawn_cli(&self, args: &[&str]) -> tokio::process::Child {
        self.docker(args).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the real `docker` to its end.
    pub async fn cli_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.spawn_cli(args);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).await.unwrap();
        drop(stdin);
        let out = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let out = out.unwrap_or_else(|_| panic!("docker {args:?} hangs")).unwrap();
        Ran {
            args: args.join(" "),
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    pub async fn cli(&self, args: &[&str]) -> Ran {
        self.cli_with(args, b"").await
    }

    /// Runs it, and it must succeed. The output without the last newline.
    pub async fn cli_ok(&self, args: &[&str]) -> String {
        let ran = self.cli(args).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim_end().to_string()
    }
}

/// What the real `docker` did.
#[derive(Debug)]
pub struct Ran {
    #[allow(dead_code, reason = "shown where an assertion fails")]
    pub args: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Whether the real `docker` is here. Says so where it is not: then only the raw calls test the API.
pub fn has_docker() -> bool {
    let found = std::process::Command::new("docker")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!(
            "NOT RUN: there is no `docker` program on this host (Debian: docker-cli or docker.io); only raw HTTP is tested"
        );
    }
    found
}

/// Waits until `done` gives something.
pub async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(t) = done().await {
            return t;
        }
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
