//! A node without processes: plays the agent's part in the store, and the backend's in the streams.
//!
//! Programs it knows: `true`, `exit N`, `echo …`, `err …`, `cat` (copies its input), `lines N`, `sleep` (until it is
//! killed). `nosuch` does not exist.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use biga_api_docker::backend::{
    Backend, BoxedIo, ByteStream, Distribution, Fault, FaultKind, Import, LogQuery, Platform, RegistryAuth, Reporter,
    Upload,
};
use biga_model::{
    AGENT_FINALIZER, Image, ImagePhase, ImageSpec, Instance, Network, NetworkEndpoint, NetworkMode, Object, Phase,
    Power, Reference, Timestamp, Volume,
};
use biga_store::typed::{DeleteOptions, ObjectEvent};
use biga_store::{MemoryStore, Objects, SpecWriter, StatusWriter, Store};
use biga_wire::http::{ImageLine, ImageResult, Progress, PruneResult};
use biga_wire::shim::{Request, Stats};
use biga_wire::{Frame, FrameKind};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::process::{Process, program, serve_attach, serve_exec};

/// The node. A cheap handle.
#[derive(Clone)]
pub struct Node {
    pub store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

pub struct Shared {
    processes: Mutex<HashMap<String, Arc<Process>>>,
    exits: mpsc::UnboundedSender<(String, i32)>,
    pub windows: Mutex<Vec<(u16, u16)>>,
    imported: Mutex<Vec<Import>>,
    pushed: Mutex<Vec<Option<RegistryAuth>>>,
}

pub fn sha(text: &str) -> String {
    let hex: String = Sha256::digest(text.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

impl Node {
    /// A node with the image `busybox:latest`.
    pub async fn start() -> Node {
        let store: Arc<dyn Store> = MemoryStore::new().unwrap();
        let (exits, ended) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            processes: Mutex::default(),
            exits,
            windows: Mutex::default(),
            pushed: Mutex::default(),
            imported: Mutex::default(),
        });
        let node = Node { store, shared };
        node.make_image("busybox:latest", "busybox:latest").await;
        let network = Object::<Network>::new("default", Default::default());
        SpecWriter::new(node.store.clone()).create(network).await.unwrap();
        tokio::spawn(node.clone().agent(ended));
        tokio::spawn(
            node.clone()
                .follow::<Image, _, _>(|n, o| async move { n.image(o).await }),
        );
        tokio::spawn(
            node.clone()
                .follow::<Network, _, _>(|n, o| async move { n.network(o).await }),
        );
        tokio::spawn(
            node.clone()
                .follow::<Volume, _, _>(|n, o| async move { n.volume(o).await }),
        );
        node
    }

    /// Window sizes that reached a process.
    pub fn windows(&self) -> Vec<(u16, u16)> {
        self.shared.windows.lock().clone()
    }

    /// What imports asked for.
    pub fn imported(&self) -> Vec<Import> {
        self.shared.imported.lock().clone()
    }

    /// Credentials of each push.
    pub fn pushed(&self) -> Vec<Option<RegistryAuth>> {
        self.shared.pushed.lock().clone()
    }

    /// Gives a name to the image whose content is `content`.
    pub async fn make_image(&self, reference: &str, content: &str) -> ImageLine {
        let r: Reference = reference.parse().unwrap();
        let spec = ImageSpec {
            reference: r.to_string(),
            platform: None,
            pull_request: 0,
        };
        let o = Object::<Image>::new(r.object_name(), spec);
        let name = o.name().to_string();
        let _ = SpecWriter::new(self.store.clone()).create(o).await;
        self.ready(&name, content, 0).await;
        ImageLine {
            reference: r.familiar(),
            image_id: sha(content),
            digest: sha(&format!("m{content}")),
            ..ImageLine::default()
        }
    }

    async fn ready(&self, name: &str, content: &str, pull: u64) {
        let w = StatusWriter::<Image>::new(self.store.clone());
        w.modify_status("", name, "", |s| {
            s.phase = ImagePhase::Ready;
            s.image_id = sha(content);
            s.digest = sha(&format!("m{content}"));
            s.platform = "linux/amd64".into();
            s.size = 4_000_000;
            s.layers = vec![sha("layer")];
            s.created = Timestamp::from_second(1_700_000_000).ok();
            s.observed_pull = pull;
        })
        .await
        .unwrap();
    }

    async fn follow<K: biga_model::Kind, F, Fut>(self, look: F)
    where
        F: Fn(Node, Object<K>) -> Fut,
        Fut: Future<Output = ()>,
    {
        let objects = Objects::<K>::new(self.store.clone());
        let list = objects.list(None).await.unwrap();
        for o in list.items {
            look(self.clone(), o).await;
        }
        let mut watch = objects.watch(None, Some(list.revision)).await.unwrap();
        while let Some(Ok(event)) = watch.next().await {
            if let ObjectEvent::Put { object, .. } = event {
                look(self.clone(), *object).await;
            }
        }
    }

    async fn image(&self, o: Object<Image>) {
        let w = StatusWriter::<Image>::new(self.store.clone());
        if o.is_deleting() {
            w.remove_finalizer("", o.name(), o.uid(), AGENT_FINALIZER)
                .await
                .unwrap();
            return;
        }
        let pull = o.spec.pull_request;
        if pull <= o.status_or_default().observed_pull {
            return;
        }
        if o.spec.reference.contains("missing") {
            let done = w.modify_status("", o.name(), o.uid(), |s| {
                s.phase = ImagePhase::Failed;
                s.message = format!("manifest for {} not found", o.spec.reference);
                s.observed_pull = pull;
            });
            done.await.unwrap();
            return;
        }
        for done in [10, 60, 100] {
            let step = w.modify_status("", o.name(), o.uid(), |s| {
                (s.phase, s.done_bytes, s.total_bytes) = (ImagePhase::Pulling, done, 100);
            });
            step.await.unwrap();
        }
        let content = o.spec.reference.parse::<Reference>().unwrap().familiar();
        self.ready(o.name(), &content, pull).await;
    }

    async fn network(&self, o: Object<Network>) {
        let w = StatusWriter::<Network>::new(self.store.clone());
        if o.is_deleting() {
            w.remove_finalizer("", o.name(), o.uid(), AGENT_FINALIZER)
                .await
                .unwrap();
            return;
        }
        let subnet = o.spec.subnet.clone().unwrap_or_else(|| "10.88.0.0/24".into());
        let gateway = o.spec.gateway.clone().unwrap_or_else(|| subnet.replace(".0/24", ".1"));
        let done = w.modify_status("", o.name(), o.uid(), |s| {
            (s.ready, s.observed_generation) = (true, o.metadata.generation);
            (s.bridge, s.subnet, s.gateway) = ("biga0".into(), subnet.clone(), gateway.clone());
        });
        let _ = done.await;
    }

    async fn volume(&self, o: Object<Volume>) {
        let w = StatusWriter::<Volume>::new(self.store.clone());
        if o.is_deleting() {
            w.remove_finalizer("default", o.name(), o.uid(), AGENT_FINALIZER)
                .await
                .unwrap();
            return;
        }
        let done = w.modify_status("default", o.name(), o.uid(), |s| {
            (s.ready, s.path) = (true, format!("/state/volumes/{}", o.name()));
        });
        let _ = done.await;
    }

    async fn agent(self, mut ended: mpsc::UnboundedReceiver<(String, i32)>) {
        let objects = Objects::<Instance>::new(self.store.clone());
        let mut watch = objects.watch(None, Some(0)).await.unwrap();
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(ObjectEvent::Put { object, .. })) => self.look(object.name(), object.uid()).await,
                    Some(Ok(_)) => {}
                    _ => return,
                },
                Some((uid, code)) = ended.recv() => {
                    let all = objects.list(None).await.unwrap().items;
                    if let Some(o) = all.into_iter().find(|o| o.uid() == uid) {
                        self.exited(&o, code).await;
                    }
                }
            }
        }
    }

    async fn status(&self, o: &Object<Instance>, mut change: impl FnMut(&mut biga_model::InstanceStatus) + Send) {
        let w = StatusWriter::<Instance>::new(self.store.clone());
        let (generation, uid) = (o.metadata.generation, o.uid().to_string());
        let done = w.modify_status("default", o.name(), &uid, |s| {
            s.observed_generation = generation;
            change(s);
        });
        let _ = done.await;
    }

    async fn exited(&self, o: &Object<Instance>, code: i32) {
        if !o.status_or_default().phase.is_live() {
            return;
        }
        let by_user = o.spec.power == Power::Stopped;
        self.shared.processes.lock().get(o.uid()).inspect(|p| p.end(code));
        self.status(o, |s| {
            (s.phase, s.pid, s.exit_code, s.stopped_by_user) = (Phase::Exited, None, Some(code), by_user);
            s.finished_at = Some(Timestamp::now());
        })
        .await;
        if o.spec.auto_remove && !by_user {
            let w = SpecWriter::<Instance>::new(self.store.clone());
            let _ = w.delete("default", o.name(), &DeleteOptions::default()).await;
        }
    }

    async fn look(&self, name: &str, uid: &str) {
        let objects = Objects::<Instance>::new(self.store.clone());
        let Ok(Some(o)) = objects.find("default", name).await else {
            return;
        };
        if o.uid() != uid {
            return;
        }
        if o.is_deleting() {
            if let Some(p) = self.shared.processes.lock().remove(uid) {
                p.end(137);
            }
            if o.status_or_default().phase.is_live() {
                self.status(&o, |s| (s.phase, s.exit_code) = (Phase::Exited, Some(137)))
                    .await;
            }
            let w = StatusWriter::<Instance>::new(self.store.clone());
            let _ = w.remove_finalizer("default", name, uid, AGENT_FINALIZER).await;
            return;
        }
        let s = o.status_or_default();
        let restart = o.spec.restart_request > s.observed_restart && o.spec.power != Power::Stopped;
        match (s.phase, o.spec.power) {
            (Phase::Pending, Power::Stopped) => {
                self.status(&o, |s| (s.phase, s.image_id) = (Phase::Created, image_id(&o)))
                    .await;
            }
            (Phase::Pending | Phase::Created, Power::Running) => self.launch(&o).await,
            (Phase::Exited | Phase::Failed, _) if restart => self.launch(&o).await,
            (Phase::Running | Phase::Paused, Power::Running) if restart => {
                self.exited(&o, 143).await;
                self.launch(&o).await;
            }
            (Phase::Running | Phase::Paused, Power::Stopped) => self.exited(&o, 143).await,
            (Phase::Running, Power::Paused) => self.status(&o, |s| s.phase = Phase::Paused).await,
            (Phase::Paused, Power::Running) => self.status(&o, |s| s.phase = Phase::Running).await,
            _ if s.observed_generation != o.metadata.generation => {
                let (generation, now) = (o.metadata.generation, Timestamp::now());
                self.status(&o, |s| {
                    s.observed_networks = generation;
                    let why = "this node joins nothing while it runs";
                    biga_model::Condition::set(&mut s.conditions, "Networks", false, "Fixed", why, now);
                })
                .await;
            }
            _ => {}
        }
    }

    async fn launch(&self, o: &Object<Instance>) {
        let c = o.spec.containers[0].clone();
        let words: Vec<String> = c
            .command
            .iter()
            .flatten()
            .chain(c.args.iter().flatten())
            .cloned()
            .collect();
        let request = o.spec.restart_request;
        let now = Timestamp::now();
        if words.first().is_some_and(|w| w == "nosuch") {
            self.status(o, |s| {
                (s.phase, s.exit_code, s.observed_restart) = (Phase::Failed, Some(127), request);
                s.message = "exec: \"nosuch\": executable file not found in $PATH".into();
            })
            .await;
            if o.spec.auto_remove {
                let w = SpecWriter::<Instance>::new(self.store.clone());
                let _ = w.delete("default", o.name(), &DeleteOptions::default()).await;
            }
            return;
        }
        let (stdin, input) = mpsc::unbounded_channel();
        let process = Arc::new(Process {
            log: Mutex::default(),
            written: watch::Sender::new(0),
            attached: watch::Sender::new(!c.wait_attach),
            exit: watch::Sender::new(None),
            stdin,
            held: c.wait_attach,
        });
        self.shared
            .processes
            .lock()
            .insert(o.uid().to_string(), process.clone());
        let networks = match o.spec.network_mode {
            NetworkMode::Bridge => vec![NetworkEndpoint {
                network: o.spec.networks.first().map_or("default", |n| n.network.as_str()).into(),
                interface: "eth0".into(),
                address: "10.88.0.2/24".into(),
                gateway: "10.88.0.1".into(),
                mac: "52:54:00:00:00:02".into(),
                aliases: Vec::new(),
                slot: None,
            }],
            _ => Vec::new(),
        };
        let mut ports = o.spec.ports.clone();
        ports
            .iter_mut()
            .for_each(|p| p.host_port = p.host_port.or(Some(40_000)));
        self.status(o, |s| {
            (s.phase, s.pid, s.exit_code) = (Phase::Running, Some(std::process::id()), None);
            (s.started_at, s.finished_at, s.observed_restart) = (Some(now), None, request);
            (s.networks, s.ports, s.image_id) = (networks.clone(), ports.clone(), image_id(o));
            s.stopped_by_user = false;
        })
        .await;
        let (uid, exits) = (o.uid().to_string(), self.shared.exits.clone());
        tokio::spawn(async move {
            let mut attached = process.attached.subscribe();
            let _ = tokio::time::timeout(Duration::from_secs(10), attached.wait_for(|a| *a)).await;
            let mut exit = process.exit.subscribe();
            let p = process.clone();
            let code = tokio::select! {
                code = program(&words, input, |kind, bytes| p.write(kind, bytes)) => code,
                _ = exit.wait_for(Option::is_some) => return,
            };
            process.end(code);
            let _ = exits.send((uid, code));
        });
    }

    fn process(&self, name: &str, uid: &str) -> Result<Arc<Process>, Fault> {
        let found = self.shared.processes.lock().get(uid).cloned();
        found.ok_or_else(|| Fault::new(FaultKind::Conflict, format!("{name} does not run")))
    }

    async fn uid(&self, name: &str) -> Result<String, Fault> {
        let o = Objects::<Instance>::new(self.store.clone()).get("default", name).await;
        o.map(|o| o.uid().to_string())
            .map_err(|e| Fault::new(FaultKind::NotFound, e.to_string()))
    }

    /// Waits for the instance to have a process, as the real node does.
    async fn wait_process(&self, name: &str) -> Result<Arc<Process>, Fault> {
        for _ in 0..3000 {
            let uid = self.uid(name).await?;
            if let Ok(p) = self.process(name, &uid) {
                return Ok(p);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Fault::new(FaultKind::Conflict, format!("{name} was not started")))
    }
}

fn image_id(o: &Object<Instance>) -> String {
    if o.spec.image.starts_with("sha256:") {
        o.spec.image.clone()
    } else {
        sha(&o.spec.image)
    }
}

#[async_trait]
impl Backend for Node {
    async fn open(&self, _namespace: &str, name: &str, first: Request) -> Result<BoxedIo, Fault> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Fault::new(FaultKind::Failed, e.to_string()))?;
        let p = self.wait_process(name).await?;
        match first {
            Request::Attach { stdin } => drop(tokio::spawn(serve_attach(ours, p, stdin, self.shared.clone()))),
            Request::Exec { exec } => drop(tokio::spawn(serve_exec(ours, *exec, self.shared.clone()))),
            other => return Err(Fault::new(FaultKind::Invalid, format!("{other:?} is no stream"))),
        }
        Ok(Box::new(theirs))
    }

    async fn logs(&self, _namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, Fault> {
        let uid = self.uid(name).await?;
        let Ok(p) = self.process(name, &uid) else {
            return Ok(futures_util::stream::empty().boxed());
        };
        let (tx, rx) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut written = p.written.subscribe();
            let mut exit = p.exit.subscribe();
            let total = p.log.lock().len();
            let mut at = query.tail.map_or(0, |n| total.saturating_sub(n as usize));
            loop {
                let over = exit.borrow_and_update().is_some();
                let news: Vec<_> = p.log.lock()[at..].to_vec();
                at += news.len();
                for (kind, bytes) in news {
                    if (kind == FrameKind::Stdout && !query.stdout) || (kind == FrameKind::Stderr && !query.stderr) {
                        continue;
                    }
                    let mut text = Vec::new();
                    if query.timestamps {
                        text.extend_from_slice(b"2026-01-02T03:04:05.000000000Z ");
                    }
                    text.extend_from_slice(&bytes);
                    let mut out = Vec::new();
                    text.chunks(biga_wire::MAX_DATA)
                        .for_each(|c| Frame::new(kind, c).encode(&mut out));
                    if tx.send(Ok(Bytes::from(out))).await.is_err() {
                        return;
                    }
                }
                if over || !query.follow {
                    return;
                }
                tokio::select! {
                    _ = written.wait_for(|n| *n > at) => {}
                    _ = exit.changed() => {}
                    () = tx.closed() => return,
                }
            }
        });
        Ok(futures_util::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|b| (b, rx)) }).boxed())
    }

    async fn stats(
        &self,
        _namespace: &str,
        name: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Stats, Fault>>, Fault> {
        self.uid(name).await?;
        let sample = |n: u64| {
            Ok(Stats {
                at_ns: 1_700_000_000_000_000_000 + n * 1_000_000_000,
                cpu_ns: n * 500_000_000,
                memory: 5 << 20,
                memory_cache: 1 << 20,
                memory_limit: 100 << 20,
                pids: 3,
                ..Stats::default()
            })
        };
        let samples = (1..).map(sample).take(if stream { 3 } else { 1 });
        Ok(futures_util::stream::iter(samples).boxed())
    }

    async fn signal(&self, _namespace: &str, name: &str, signal: i32) -> Result<(), Fault> {
        let uid = self.uid(name).await?;
        let p = self.process(name, &uid)?;
        if matches!(signal, 9 | 15) {
            p.end(128 + signal);
            let _ = self.shared.exits.send((uid, 128 + signal));
        }
        Ok(())
    }

    async fn pids(&self, _namespace: &str, _name: &str) -> Result<Vec<u32>, Fault> {
        Ok(vec![std::process::id()])
    }

    async fn image_config(&self, _reference: &str) -> Result<serde_json::Value, Fault> {
        Ok(serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"from": "image"}, "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": [sha("layer")]},
            "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "COPY busybox /bin"}, {"created_by": "CMD [\"sh\"]"}],
        }))
    }

    async fn image_load(
        &self,
        mut archive: Upload,
        platform: Option<&str>,
        _report: Reporter,
    ) -> Result<ImageResult, Fault> {
        let mut all = Vec::new();
        while let Some(b) = archive.next().await {
            all.extend_from_slice(&b.map_err(|e| Fault::new(FaultKind::Invalid, e.to_string()))?);
        }
        if platform.is_some_and(|p| p != "linux/amd64") {
            return Err(Fault::new(FaultKind::Invalid, "this is no archive for that platform"));
        }
        if !all.starts_with(b"archive of ") {
            return Err(Fault::new(FaultKind::Invalid, "this is no archive of images"));
        }
        let line = self.make_image("loaded:1", "loaded").await;
        Ok(ImageResult { images: vec![line] })
    }

    async fn image_save(&self, references: &[String]) -> Result<ByteStream, Fault> {
        let bytes = Bytes::from(format!("archive of {}", references.join(" ")));
        Ok(futures_util::stream::iter([Ok(bytes)]).boxed())
    }

    async fn image_import(&self, wanted: Import, mut content: Upload, _report: Reporter) -> Result<ImageResult, Fault> {
        self.shared.imported.lock().push(wanted.clone());
        let mut n = 0;
        while let Some(b) = content.next().await {
            n += b.map_err(|e| Fault::new(FaultKind::Invalid, e.to_string()))?.len();
        }
        let reference = wanted.reference.as_deref().unwrap_or("imported:1");
        let line = self.make_image(reference, &format!("import of {n} bytes")).await;
        Ok(ImageResult { images: vec![line] })
    }

    async fn image_push(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, Fault> {
        self.shared.pushed.lock().push(auth);
        for done in [0, 50, 100] {
            report.progress(Progress {
                part: sha("layer"),
                action: "uploading".into(),
                done,
                total: 100,
            });
        }
        if reference.contains("refused") {
            return Err(Fault::new(FaultKind::Unauthorized, "authentication required"));
        }
        let line = ImageLine {
            reference: reference.into(),
            image_id: sha(reference),
            digest: sha("pushed"),
            manifest_size: 527,
        };
        Ok(ImageResult { images: vec![line] })
    }

    async fn distribution(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Distribution, Fault> {
        if reference.contains("missing") {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!("{reference} is not there: missing"),
            ));
        }
        if reference.contains("private") && auth.is_none_or(|a| a.username != "u") {
            return Err(Fault::new(FaultKind::Unauthorized, "who are you?"));
        }
        let platform = |architecture: &str, variant: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        Ok(Distribution {
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            digest: sha(reference),
            size: 7,
            platforms: vec![platform("amd64", ""), platform("arm", "v7")],
        })
    }

    async fn tags(&self, reference: &str, _auth: Option<RegistryAuth>) -> Result<Vec<String>, Fault> {
        if reference.contains("missing") {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!("the tags of {reference} are not found"),
            ));
        }
        match reference.contains("many") {
            true => Ok(["1", "2", "latest"].map(String::from).to_vec()),
            false => Ok(vec!["latest".into()]),
        }
    }

    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, Fault> {
        let content = reference
            .parse::<Reference>()
            .map_or_else(|_| reference.to_string(), |r| r.familiar());
        let line = self.make_image(target, &content).await;
        Ok(ImageResult { images: vec![line] })
    }

    async fn prune(&self, _report: Reporter) -> Result<PruneResult, Fault> {
        Ok(PruneResult {
            removed: Vec::new(),
            freed_bytes: 7,
        })
    }
}
