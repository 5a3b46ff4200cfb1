//! A daemon without processes: objects in memory, an agent that answers each spec at once, streams by script.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use biga_wire::shim::{ErrorCode, Exit, Reply, Request as Ask};
use biga_wire::{Decoder, Frame, FrameKind};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::broadcast;

type Body = BoxBody<Bytes, Infallible>;
type Key = (String, String, String);

/// The daemon. Ends when dropped.
pub struct Fake {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<(u64, String, Value)>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, String, Value)>,
    requests: Vec<String>,
    attaches: u32,
    cut_watches: u32,
}

impl Fake {
    /// A daemon on a socket of its own.
    pub fn start() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            events: broadcast::channel(1000).0,
        });
        let listener = {
            let _in = runtime.enter();
            UnixListener::bind(dir.path().join("api.sock")).unwrap()
        };
        let s = shared.clone();
        runtime.spawn(async move {
            while let Ok((c, _)) = listener.accept().await {
                let s = s.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |r| {
                        let s = s.clone();
                        async move { Ok::<_, Infallible>(s.answer(r).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(c), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Fake {
            dir,
            shared,
            _runtime: runtime,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A command line against this daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = biga(args);
        c.env("BIGA_HOST", format!("unix://{}", self.socket().display()));
        c
    }

    /// Runs a command line to its end.
    pub fn biga(&self, args: &[&str]) -> Done {
        self.biga_with(args, b"")
    }

    /// The same with standard input.
    pub fn biga_with(&self, args: &[&str], input: &[u8]) -> Done {
        use std::io::Write;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A program that does not read ends before us.
            let _ = stdin.write_all(&input);
        });
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Done::of(out)
    }

    /// Stores an object as if it had been there.
    pub fn put(&self, plural: &str, object: Value) {
        self.shared.write(plural, object, "ADDED");
    }

    /// The object, if it is there.
    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let s = self.shared.state.lock().unwrap();
        s.objects
            .iter()
            .find(|(k, _)| k.0 == plural && k.2 == name)
            .map(|(_, v)| v.clone())
    }

    /// `METHOD path?query` of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// The next `n` watches end after their first event.
    pub fn cut_watches(&self, n: u32) {
        self.shared.state.lock().unwrap().cut_watches = n;
    }

    /// A running instance.
    pub fn running(&self, name: &str, extra: Value) {
        let mut o = json!({
            "apiVersion": "biga.dev/v1", "kind": "Instance",
            "metadata": {"name": name, "namespace": "default", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"image": "busybox:latest", "containers": [{"name": "main", "args": ["wait"]}]},
            "status": {"phase": "Running", "observedGeneration": 1, "startedAt": "2026-01-01T00:00:00Z", "pid": 1},
        });
        merge(&mut o, &extra);
        self.put("instances", o);
    }
}

/// A command line with an environment that does not depend on who runs the tests.
pub fn biga(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_biga"));
    c.args(args);
    c.env_remove("BIGA_NAMESPACE")
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0");
    c
}

/// What a command line gave.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(o: Output) -> Done {
        Done {
            code: o.status.code().unwrap_or(-1),
            out: String::from_utf8(o.stdout).unwrap(),
            err: String::from_utf8(o.stderr).unwrap(),
        }
    }

    /// Fails unless the code is `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

fn merge(to: &mut Value, patch: &Value) {
    json_patch::merge(to, patch);
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn answer(code: u16, v: &Value) -> Response<Body> {
    let mut r = Response::new(full(v.to_string()));
    *r.status_mut() = StatusCode::from_u16(code).unwrap();
    r
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let v = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message});
    answer(code, &v)
}

fn query<'a>(q: &'a str, key: &str) -> Option<&'a str> {
    q.split('&')
        .filter_map(|p| p.split_once('='))
        .find(|(k, _)| *k == key)
        .map(|(_, v)| v)
}

impl Shared {
    fn write(&self, plural: &str, mut o: Value, type_: &str) -> Value {
        let mut s = self.state.lock().unwrap();
        s.revision += 1;
        let rv = s.revision;
        let m = &mut o["metadata"];
        m["resourceVersion"] = rv.to_string().into();
        if m["uid"].is_null() {
            m["uid"] = format!("{rv:08x}-0000-4000-8000-000000000000").into();
        }
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let key = (plural.to_string(), text(&m["namespace"]), text(&m["name"]));
        if type_ == "DELETED" {
            s.objects.remove(&key);
        } else {
            s.objects.insert(key, o.clone());
        }
        let line = json!({"type": type_, "object": o});
        s.history.push((rv, plural.to_string(), line.clone()));
        let _ = self.events.send((rv, plural.to_string(), line));
        o
    }

    async fn answer(self: Arc<Shared>, r: Request<Incoming>) -> Response<Body> {
        let (path, q) = (
            r.uri().path().to_string(),
            r.uri().query().unwrap_or_default().to_string(),
        );
        let text = format!("{} {}", r.method(), r.uri());
        self.state.lock().unwrap().requests.push(text);
        if path == "/version" {
            return answer(
                200,
                &json!({"gitVersion": "v1.32.0+biga.0.1.0", "bigaVersion": "0.1.0"}),
            );
        }
        if path == "/apis" {
            return answer(
                200,
                &json!({"groups": [{"name": "biga.dev", "preferredVersion": {"groupVersion": "biga.dev/v1"}}]}),
            );
        }
        if path == "/apis/biga.dev/v1" {
            let list = json!([{"name": "instances", "kind": "Instance", "namespaced": true}, {"name": "gadgets", "kind": "Gadget", "namespaced": false}]);
            return answer(200, &json!({"resources": list}));
        }
        let Some(rest) = path.strip_prefix("/apis/biga.dev/v1/") else {
            return status(404, "NotFound", "no such path");
        };
        let mut parts: Vec<String> = rest.split('/').map(String::from).collect();
        let mut ns = String::new();
        if parts[0] == "namespaces" {
            ns = parts[1].clone();
            parts.drain(..2);
        }
        match &parts[..] {
            [node, me, verb] if node == "nodes" && me == "self" => self.node(verb, &q, r).await,
            [_, name, sub] => self.sub(&ns, name, sub, &q, r).await,
            [plural] => self.collection(plural, &ns, &q, r).await,
            [plural, name] => self.object(plural, &ns, name, r).await,
            _ => status(404, "NotFound", "no such path"),
        }
    }

    async fn collection(self: Arc<Shared>, plural: &str, ns: &str, q: &str, r: Request<Incoming>) -> Response<Body> {
        if r.method() == Method::POST {
            let mut o: Value = body(r).await;
            if o["spec"]["image"] == "broken image" {
                let mut v = json!({"kind": "Status", "reason": "Invalid", "code": 422, "message": "Instance \"x\" is invalid: spec.image: bad; spec.ports[0].port: is 1 to 65535"});
                v["details"] = json!({"name": "x", "causes": [{"field": "spec.image", "message": "bad"}, {"field": "spec.ports[0].port", "message": "is 1 to 65535"}]});
                return answer(422, &v);
            }
            let name = o["metadata"]["name"].as_str().unwrap().to_string();
            let key = (plural.to_string(), ns.to_string(), name.clone());
            if self.state.lock().unwrap().objects.contains_key(&key) {
                return status(409, "AlreadyExists", &format!("{plural} {name:?} already exists"));
            }
            o["metadata"]["generation"] = 1.into();
            o["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            if !ns.is_empty() {
                o["metadata"]["namespace"] = ns.into();
            }
            let o = self.write(plural, o, "ADDED");
            self.clone().agent(plural, &o);
            return answer(201, &o);
        }
        let named = query(q, "fieldSelector")
            .and_then(|f| f.strip_prefix("metadata.name%3D"))
            .map(String::from);
        let ns = ns.to_string();
        let wanted = move |o: &Value| {
            (ns.is_empty() || o["metadata"]["namespace"] == ns.as_str())
                && named.as_deref().is_none_or(|n| o["metadata"]["name"] == n)
        };
        if query(q, "watch") == Some("true") {
            return self.watch(
                plural.to_string(),
                query(q, "resourceVersion").unwrap().parse().unwrap(),
                wanted,
            );
        }
        let table = r.headers()["accept"].to_str().unwrap().contains("as=Table");
        let s = self.state.lock().unwrap();
        let items: Vec<Value> = s
            .objects
            .iter()
            .filter(|(k, v)| k.0 == plural && wanted(v))
            .map(|(_, v)| v.clone())
            .collect();
        let meta = json!({"resourceVersion": s.revision.to_string()});
        if table {
            return answer(200, &table_of(&items, meta));
        }
        answer(200, &json!({"kind": "List", "metadata": meta, "items": items}))
    }

    fn watch(
        self: Arc<Shared>,
        plural: String,
        from: u64,
        wanted: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Response<Body> {
        let (past, live, cut) = {
            let mut s = self.state.lock().unwrap();
            let live = self.events.subscribe();
            let cut = s.cut_watches > 0;
            s.cut_watches = s.cut_watches.saturating_sub(1);
            (
                s.history.iter().filter(|h| h.0 > from).cloned().collect::<Vec<_>>(),
                live,
                cut,
            )
        };
        let live = futures_util::stream::unfold(live, |mut l| async move { l.recv().await.ok().map(|e| (e, l)) });
        let lines = futures_util::stream::iter(past)
            .chain(live)
            .filter(move |(_, p, v)| std::future::ready(*p == plural && wanted(&v["object"])))
            .take(if cut { 1 } else { usize::MAX })
            .map(|(_, _, v)| Ok(hyper::body::Frame::data(Bytes::from(format!("{v}\n")))));
        Response::new(BodyExt::boxed(StreamBody::new(lines.boxed_sync())))
    }

    async fn object(self: Arc<Shared>, plural: &str, ns: &str, name: &str, r: Request<Incoming>) -> Response<Body> {
        let key = (plural.to_string(), ns.to_string(), name.to_string());
        let found = self.state.lock().unwrap().objects.get(&key).cloned();
        let Some(mut o) = found else {
            return status(404, "NotFound", &format!("{plural}.biga.dev {name:?} not found"));
        };
        let before = o["spec"].clone();
        match r.method().as_str() {
            "GET" if r.headers()["accept"].to_str().unwrap().contains("as=Table") => {
                return answer(200, &table_of(&[o], json!({})));
            }
            "GET" => return answer(200, &o),
            "DELETE" => {
                o["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                let o = self.write(plural, o, "MODIFIED");
                let (me, gone, plural) = (self.clone(), o.clone(), plural.to_string());
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    me.write(&plural, gone, "DELETED");
                });
                return answer(200, &o);
            }
            "PUT" => {
                let new = body(r).await;
                if new["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"] {
                    return status(409, "Conflict", "the object has been modified");
                }
                o["spec"] = new["spec"].clone();
                o["metadata"]["labels"] = new["metadata"]["labels"].clone();
            }
            _ => {
                let json_patch = r.headers()["content-type"] == "application/json-patch+json";
                let p = body(r).await;
                if json_patch {
                    let p: json_patch::Patch = serde_json::from_value(p).unwrap();
                    json_patch::patch(&mut o, &p).unwrap();
                } else {
                    merge(&mut o, &p);
                }
            }
        }
        if o["spec"] != before {
            o["metadata"]["generation"] = (o["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
        let o = self.write(plural, o, "MODIFIED");
        self.agent(plural, &o);
        answer(200, &o)
    }

    /// Answers a spec with a status, a moment later.
    fn agent(self: Arc<Shared>, plural: &str, o: &Value) {
        let (plural, o) = (plural.to_string(), o.clone());
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            let key = |o: &Value| {
                let t = |v: &Value| v.as_str().unwrap_or_default().to_string();
                (
                    plural.clone(),
                    t(&o["metadata"]["namespace"]),
                    t(&o["metadata"]["name"]),
                )
            };
            let now = self.state.lock().unwrap().objects.get(&key(&o)).cloned();
            let Some(mut now) = now else { return };
            let mut s = now["status"].clone();
            s["observedGeneration"] = now["metadata"]["generation"].clone();
            match plural.as_str() {
                "instances" => instance_status(&now, &mut s),
                "images" => {
                    s["observedPull"] = now["spec"]["pullRequest"].clone();
                    let bad = now["spec"]["reference"].as_str().is_some_and(|r| r.contains("absent"));
                    let pulling = json!({"phase": "Pulling", "doneBytes": 10, "totalBytes": 100});
                    let mut first = now.clone();
                    first["status"] = pulling;
                    self.write(&plural, first, "MODIFIED");
                    s["phase"] = if bad { "Failed" } else { "Ready" }.into();
                    s["message"] = if bad { "the registry has no such image" } else { "" }.into();
                }
                _ => s["ready"] = true.into(),
            }
            now["status"] = s;
            self.write(&plural, now, "MODIFIED");
        });
    }

    async fn node(&self, verb: &str, q: &str, r: Request<Incoming>) -> Response<Body> {
        let bytes = r.into_body().collect().await.unwrap().to_bytes();
        let line = |v: Value| format!("{v}\n");
        let image = json!({"images": [{"reference": "docker.io/library/loaded:1", "imageId": "sha256:00", "digest": "sha256:11"}]});
        match verb {
            "image-load" if bytes.starts_with(b"bad") => Response::new(full(
                line(json!({"progress": {"action": "loading", "done": 1, "total": 2}}))
                    + &line(
                        json!({"error": {"kind": "Status", "reason": "BadRequest", "code": 400, "message": "this is no archive"}}),
                    ),
            )),
            "image-load" | "image-push" => Response::new(full(
                line(json!({"progress": {"action": "working", "done": bytes.len(), "total": 10}}))
                    + &line(json!({"result": image})),
            )),
            "image-import" => {
                assert!(query(q, "config").is_some(), "{q}");
                Response::new(full(line(
                    json!({"result": {"images": [{"imageId": format!("{} bytes", bytes.len())}]}}),
                )))
            }
            "image-save" => Response::new(full("ARCHIVE")),
            "image-tag" => answer(200, &image),
            "prune" => Response::new(full(line(json!({"result": {"removed": ["a:1"], "freedBytes": 2048}})))),
            _ => status(404, "NotFound", "no such call"),
        }
    }

    async fn sub(
        self: Arc<Shared>,
        ns: &str,
        name: &str,
        sub: &str,
        q: &str,
        mut r: Request<Incoming>,
    ) -> Response<Body> {
        let key = ("instances".to_string(), ns.to_string(), name.to_string());
        let found = self.state.lock().unwrap().objects.get(&key).cloned();
        let Some(o) = found else {
            return status(404, "NotFound", &format!("instances.biga.dev {name:?} not found"));
        };
        match sub {
            "log" => {
                let mut out = Vec::new();
                Frame::new(FrameKind::Stdout, *b"line one\n").encode(&mut out);
                Frame::new(FrameKind::Stderr, *b"line two\n").encode(&mut out);
                Response::new(full(out))
            }
            "stats" => {
                let sample = |n: u64| json!({"atNs": n * 1_000_000_000, "cpuNs": n * 100_000_000, "memory": 1048576, "memoryLimit": 4194304, "pids": 2});
                let n = self.state.lock().unwrap().requests.len() as u64;
                let lines: String = match query(q, "stream") {
                    Some("true") => (n..n + 2).map(|i| format!("{}\n", sample(i))).collect(),
                    _ => format!("{}\n", sample(n)),
                };
                Response::new(full(lines))
            }
            "signal" => {
                let mut r = Response::new(full(""));
                *r.status_mut() = StatusCode::NO_CONTENT;
                r
            }
            "exec" | "attach" | "console" => {
                assert_eq!(r.headers()["upgrade"], "biga-stream");
                let upgrade = hyper::upgrade::on(&mut r);
                tokio::spawn(async move {
                    let io = TokioIo::new(upgrade.await.unwrap());
                    // A client that leaves early is part of some tests.
                    let _ = self.stream(io, o).await;
                });
                let mut r = Response::new(full(""));
                *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                r.headers_mut().insert("upgrade", "biga-stream".parse().unwrap());
                r.headers_mut().insert("connection", "Upgrade".parse().unwrap());
                r
            }
            _ => status(404, "NotFound", "no such subresource"),
        }
    }

    /// Plays the process that the first word of its arguments names.
    async fn stream(&self, io: TokioIo<hyper::upgrade::Upgraded>, o: Value) -> std::io::Result<()> {
        let mut s = Frames {
            io,
            decoder: Decoder::new(),
        };
        let Some(first) = s.next().await? else { return Ok(()) };
        let ask: Ask = first.parse()?;
        let live = o["status"]["phase"] == "Running";
        if !live {
            let message = "instance has no shim yet".to_string();
            return s
                .send(&Frame::json(
                    FrameKind::Reply,
                    &Reply::Error {
                        code: ErrorCode::State,
                        message,
                    },
                ))
                .await;
        }
        let words: Vec<String> = match &ask {
            Ask::Exec { exec } => exec.args.clone(),
            Ask::Console => vec!["console".into()],
            _ => serde_json::from_value(o["spec"]["containers"][0]["args"].clone()).unwrap_or_default(),
        };
        if words[0] == "nothing" {
            let message = "exec: \"nothing\": not found in $PATH".to_string();
            return s
                .send(&Frame::json(
                    FrameKind::Reply,
                    &Reply::Error {
                        code: ErrorCode::NotFound,
                        message,
                    },
                ))
                .await;
        }
        let reply = if matches!(ask, Ask::Exec { .. }) {
            Reply::Exec { pid: 7 }
        } else {
            Reply::Ok
        };
        s.send(&Frame::json(FrameKind::Reply, &reply)).await?;
        let main = matches!(ask, Ask::Attach { .. });
        if words[0] == "drop-once" {
            let n = {
                let mut st = self.state.lock().unwrap();
                st.attaches += 1;
                st.attaches
            };
            if n == 1 {
                s.send(&Frame::new(FrameKind::Stdout, *b"before\n")).await?;
                return Ok(());
            }
            s.send(&Frame::new(FrameKind::Stdout, *b"after\n")).await?;
            return self.end(&mut s, &o, main, 5).await;
        }
        let code = play(&mut s, &words, &ask).await?;
        self.end(&mut s, &o, main, code).await
    }

    /// The last frame, and the end in the status.
    async fn end(&self, s: &mut Frames, o: &Value, main: bool, code: i32) -> std::io::Result<()> {
        if main {
            let mut ended = o.clone();
            ended["status"]["phase"] = "Exited".into();
            ended["status"]["exitCode"] = code.into();
            let type_ = if o["spec"]["autoRemove"] == true {
                "DELETED"
            } else {
                "MODIFIED"
            };
            self.write("instances", ended, type_);
        }
        let exit = Exit {
            code,
            ..Exit::default()
        };
        s.send(&Frame::json(FrameKind::Exit, &exit)).await
    }
}

struct Frames {
    io: TokioIo<hyper::upgrade::Upgraded>,
    decoder: Decoder,
}

impl Frames {
    async fn next(&mut self) -> std::io::Result<Option<Frame>> {
        let mut b = vec![0; 65536];
        loop {
            if let Some(f) = self.decoder.next_frame()? {
                return Ok(Some(f));
            }
            match self.io.read(&mut b).await? {
                0 => return Ok(None),
                n => self.decoder.push(&b[..n]),
            }
        }
    }

    async fn send(&mut self, f: &Frame) -> std::io::Result<()> {
        let mut b = Vec::new();
        f.encode(&mut b);
        self.io.write_all(&b).await?;
        self.io.flush().await
    }

    async fn say(&mut self, text: String) -> std::io::Result<()> {
        self.send(&Frame::new(FrameKind::Stdout, text)).await
    }
}

/// The process: `exit N` writes to both streams and ends; anything else reacts to frames until its input ends.
async fn play(s: &mut Frames, words: &[String], ask: &Ask) -> std::io::Result<i32> {
    if words[0] == "exit" {
        s.send(&Frame::new(FrameKind::Stdout, *b"to out\n")).await?;
        s.send(&Frame::new(FrameKind::Stderr, *b"to err\n")).await?;
        return Ok(words[1].parse().unwrap());
    }
    if words[0] == "show" {
        s.say(format!("{}\n", serde_json::to_string(ask)?)).await?;
        return Ok(0);
    }
    s.say("ready\n".into()).await?;
    while let Some(f) = s.next().await? {
        match f.kind {
            FrameKind::Stdin if words[0] == "keys" => {
                s.say(format!("{:?}\r\n", f.payload)).await?;
                if f.payload.contains(&b'q') {
                    return Ok(9);
                }
            }
            FrameKind::Stdin => s.send(&Frame::new(FrameKind::Stdout, f.payload)).await?,
            FrameKind::StdinEof => return Ok(0),
            FrameKind::Resize => s.say(format!("window {:?}\r\n", f.window().unwrap())).await?,
            FrameKind::Signal => {
                let n = f.number().unwrap() as i32;
                s.say(format!("signal {n}\n")).await?;
                return Ok(128 + n);
            }
            _ => {}
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn instance_status(o: &Value, s: &mut Value) {
    let was = s["phase"].as_str().unwrap_or("Pending").to_string();
    s["observedRestart"] = o["spec"]["restartRequest"].as_u64().unwrap_or(0).into();
    let image = o["spec"]["image"].as_str().unwrap_or_default();
    let phase = match o["spec"]["power"].as_str().unwrap_or("Running") {
        "Running" if image == "absent" => {
            s["reason"] = "ImageNotFound".into();
            s["message"] = "the registry has no image absent".into();
            "Failed"
        }
        "Running" => "Running",
        "Paused" => "Paused",
        _ if was == "Running" || was == "Paused" => {
            s["exitCode"] = 143.into();
            "Exited"
        }
        _ if was == "Exited" => "Exited",
        _ => "Created",
    };
    s["phase"] = phase.into();
    if phase == "Running" {
        s["startedAt"] = "2026-01-01T00:00:00Z".into();
    }
}

fn table_of(items: &[Value], meta: Value) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|o| json!({"cells": [o["metadata"]["name"], "on", "detail"], "object": {"metadata": o["metadata"]}}))
        .collect();
    json!({"kind": "Table", "metadata": meta, "rows": rows, "columnDefinitions": [
        {"name": "Name", "type": "string", "priority": 0}, {"name": "State", "type": "string", "priority": 0},
        {"name": "More", "type": "string", "priority": 1}]})
}

async fn body(r: Request<Incoming>) -> Value {
    let b = r.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&b).unwrap()
}

trait BoxedSync: futures_util::Stream + Sized {
    /// A stream that the body may hold: it is used by one task only, which `Sync` cannot see.
    fn boxed_sync(self) -> std::pin::Pin<Box<dyn futures_util::Stream<Item = Self::Item> + Send + Sync>>
    where
        Self: Send + 'static,
        Self::Item: Send + 'static,
    {
        let (tx, rx) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut s = Box::pin(self);
            while let Some(i) = s.next().await {
                if tx.send(i).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(futures_util::stream::unfold(rx, |mut rx| async move {
            rx.recv().await.map(|i| (i, rx))
        }))
    }
}

impl<S: futures_util::Stream> BoxedSync for S {}
