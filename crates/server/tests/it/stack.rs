//! A server for one test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use biga_api_kube::{Admission, ApiError, ErrorKind, Operation, Registry, Review};
use biga_model::{Event, Image, Instance, Network, Node, Volume};
use biga_server::pki::{Pki, ensure_pki};
use biga_server::{Options, Server, TlsOptions, UnixOptions, routes};
use biga_store::{MemoryStore, Store};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::backend::FakeBackend;

/// Longer than anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stack {
    pub dir: tempfile::TempDir,
    pub store: Arc<MemoryStore>,
    pub socket: PathBuf,
    pub tls: std::net::SocketAddr,
    pub pki: Arc<Pki>,
    pub shutdown: CancellationToken,
    pub task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A rule that needs no more than a name to be seen at work.
struct NothingForbidden;

#[async_trait::async_trait]
impl Admission for NothingForbidden {
    async fn review(&self, review: &Review<'_>) -> Result<(), ApiError> {
        let image = |o: &biga_model::Object<Instance>| o.spec.image == "forbidden";
        let refused = match review.operation {
            Operation::Create | Operation::Update => review.object::<Instance>().is_some_and(image),
            Operation::Delete => review
                .old::<Instance>()
                .is_some_and(|o| o.metadata.labels.contains_key("keep")),
        };
        match refused {
            true => Err(ApiError::new(
                ErrorKind::Forbidden,
                format!("{} may not be", review.name),
            )),
            false => Ok(()),
        }
    }
}

pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    /// The answer is a failure of this code and reason, as a whole `Status`.
    #[track_caller]
    pub fn fails(&self, code: u16, reason: &str) -> Value {
        assert_eq!(self.code, code, "{:?}", self.bytes);
        let v = self.json();
        assert_eq!(v["kind"], "Status", "{v}");
        assert_eq!(v["apiVersion"], "v1", "{v}");
        assert_eq!(v["status"], "Failure", "{v}");
        assert_eq!(v["code"], code, "{v}");
        assert_eq!(v["reason"], reason, "{v}");
        assert!(!v["message"].as_str().unwrap().is_empty(), "{v}");
        v
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.code), "{} {:?}", self.code, self.bytes);
        self.json()
    }
}

impl Stack {
    pub async fn start() -> Stack {
        Stack::with_history(10_000).await
    }

    pub async fn with_history(events: usize) -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::with_history(events).unwrap();
        let pki = Arc::new(ensure_pki(&dir.path().join("pki")).unwrap());
        let socket = dir.path().join("biga.sock");
        let options = Options {
            unix: Some(UnixOptions::new(&socket)),
            tls: Some(TlsOptions {
                address: "127.0.0.1:0".parse().unwrap(),
                pki: pki.clone(),
                names: Vec::new(),
            }),
            half_close: false,
        };
        let kube = Registry::new(store.clone())
            .with::<Instance>()
            .with::<Image>()
            .with::<Volume>()
            .with::<Network>()
            .with::<Node>()
            .with::<Event>()
            .admission(Arc::new(NothingForbidden))
            .router();
        let backend = Arc::new(FakeBackend);
        let dynamic: Arc<dyn Store> = store.clone();
        let router = routes(kube, dynamic, backend, "here");
        let server = Server::bind(&options).await.unwrap();
        let tls = server.tls_address().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.run(router, shutdown.clone()));
        Stack {
            dir,
            store,
            socket,
            tls,
            pki,
            shutdown,
            task: Some(task),
        }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    pub async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut r = Request::builder().method(method).uri(path).header("host", "biga");
        for (k, v) in headers {
            r = r.header(*k, *v);
        }
        let response = self.send(r.body(Full::new(body.into())).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            bytes,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw("GET", &api(path), &[], "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.raw("GET", &api(path), &[("accept", accept)], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.raw("POST", &api(path), &json, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.raw("PUT", &api(path), &json, body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        let media = [("content-type", "application/merge-patch+json")];
        self.raw("PATCH", &api(path), &media, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.raw("DELETE", &api(path), &[], "").await
    }

    /// Makes an instance with these labels.
    pub async fn instance(&self, name: &str, labels: Value) -> Value {
        let body = serde_json::json!({"metadata": {"name": name, "labels": labels}, "spec": {"image": "busybox"}});
        self.post(INSTANCES, &body).await.ok()
    }
}

pub const INSTANCES: &str = "namespaces/default/instances";

fn api(path: &str) -> String {
    match path.starts_with('/') {
        true => path.into(),
        false => format!("/apis/biga.dev/v1/{path}"),
    }
}

/// Reads a watch line by line.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    pub async fn open(stack: &Stack, path: &str, accept: &str) -> Lines {
        let r = Request::builder()
            .uri(api(path))
            .header("host", "biga")
            .header("accept", accept);
        let response = stack.send(r.body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), 200);
        Lines {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("the watch said nothing for too long");
            self.buffer.extend_from_slice(&frame?.ok()?.into_data().ok()?);
        }
    }

    /// Type and object name of the next event.
    pub async fn event(&mut self) -> (String, String) {
        let e = self.next().await.expect("the watch ended");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        (text(&e["type"]), text(&e["object"]["metadata"]["name"]))
    }
}
