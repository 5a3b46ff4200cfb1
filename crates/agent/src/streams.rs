//! The way round the store: what flows between a client and an instance (attach, exec, console, logs, samples).
//! One path for every isolation.

use std::sync::Arc;
use std::time::Duration;

use biga_model::{ContainerState, Instance, Object, Phase, Power};
use biga_runtime::{Error as RuntimeError, Runtime};
use biga_store::Store;
use biga_store::typed::{Error as StoreError, ObjectEvent, Objects};
use biga_wire::shim::{ErrorCode, Reply, Request, Stats};
use futures_util::StreamExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::engine::{Engine, Layout};
use crate::instance::Host;
use crate::logs::{Line, Query, Reader, Watcher};

/// Why a stream cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such instance.
    #[error("no instance named {0:?}: `biga ps -a` lists them")]
    NotFound(String),
    /// It has no such thing.
    #[error("{0}")]
    Missing(String),
    /// It is not in a state for this.
    #[error("{0}")]
    State(String),
    /// The instance said no.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// Something broke.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Error {
        match e {
            StoreError::NotFound { name, .. } => Error::NotFound(name),
            e => Error::Failed(e.to_string()),
        }
    }
}

impl From<RuntimeError> for Error {
    fn from(e: RuntimeError) -> Error {
        match e {
            RuntimeError::Refused { code, message } => Error::Refused { code, message },
            RuntimeError::Gone(_) => Error::State("it is not running any more".into()),
            e => Error::Failed(e.to_string()),
        }
    }
}

/// Streams of this node's instances. A cheap handle.
#[derive(Clone)]
pub struct Streams {
    engine: Arc<Engine>,
    objects: Objects<Instance>,
}

impl Streams {
    /// Over the engine and the objects of the store.
    pub fn new(engine: Arc<Engine>, store: Arc<dyn Store>) -> Streams {
        Streams {
            engine,
            objects: Objects::new(store),
        }
    }

    /// Opens a stream to the instance's shim; the request was sent, its reply was not read. Waits for an instance
    /// that is on its way.
    pub async fn open(&self, namespace: &str, name: &str, request: &Request) -> Result<UnixStream, Error> {
        if let Request::Of { container, .. } = request {
            // Said at once, not after a wait.
            addressed(&self.objects.get(namespace, name).await?, Some(container))?;
        }
        let object = self.live(namespace, name).await?;
        let container = match request {
            Request::Of { container, .. } => addressed(&object, Some(container))?,
            _ => None,
        };
        let runtime = self.engine.runtime(object.spec.isolation);
        let request = request.inner().clone().of(container);
        Ok(runtime.open(object.uid(), &request).await?)
    }

    /// The instance once a shim holds it; an error where none will.
    async fn live(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Error> {
        let first = self.objects.get(namespace, name).await?;
        if let Some(answer) = settled(&first) {
            return answer.map(|()| first);
        }
        let from = first.metadata.resource_version.parse().ok();
        let mut events = self.objects.watch_one(namespace, name, from).await?;
        let uid = first.metadata.uid;
        while let Some(event) = events.next().await {
            match event? {
                ObjectEvent::Put { object, .. } if object.metadata.uid == uid => {
                    if let Some(answer) = settled(&object) {
                        return answer.map(|()| *object);
                    }
                }
                ObjectEvent::Deleted { object } if object.metadata.uid == uid => {
                    return Err(Error::NotFound(name.into()));
                }
                _ => {}
            }
        }
        Err(Error::Failed("the store closed".into()))
    }

    /// Sends a signal to the main process, or that of one of several containers.
    pub async fn signal(&self, namespace: &str, name: &str, container: Option<&str>, signal: i32) -> Result<(), Error> {
        let object = self.running(namespace, name).await?;
        let runtime = self.engine.runtime(object.spec.isolation);
        match addressed(&object, container)? {
            Some(c) => runtime
                .of(object.uid(), c, Request::Signal { signal })
                .await
                .map(drop)?,
            None => runtime.signal(object.uid(), signal).await?,
        }
        Ok(())
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.engine.layout
    }

    pub(crate) async fn object(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Error> {
        Ok(self.objects.get(namespace, name).await?)
    }

    /// Sends a request to the shim of an instance; its reply was not read.
    pub(crate) async fn ask(&self, object: &Object<Instance>, request: &Request) -> Result<UnixStream, Error> {
        let runtime = self.engine.runtime(object.spec.isolation);
        Ok(runtime.open(object.uid(), request).await?)
    }

    pub(crate) async fn running(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Error> {
        let object = self.objects.get(namespace, name).await?;
        let phase = object.status_or_default().phase;
        if !phase.is_live() {
            return Err(Error::State(format!(
                "instance {name} is not running: it is {}",
                phase.as_str().to_lowercase()
            )));
        }
        Ok(object)
    }

    /// Process ids inside, as the host sees them.
    pub async fn pids(&self, namespace: &str, name: &str) -> Result<Vec<u32>, Error> {
        let object = self.running(namespace, name).await?;
        let mut io = self.ask(&object, &Request::Pids).await?;
        match read_reply(&mut io).await? {
            Reply::Pids { pids } => Ok(pids),
            Reply::Error { code, message } => Err(Error::Refused { code, message }),
            _ => Err(Error::Failed("the shim gave another answer than was asked for".into())),
        }
    }

    /// Samples of the whole or of one of several containers: one, or one every second until it ends or the receiver is dropped.
    pub async fn stats(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        stream: bool,
    ) -> Result<mpsc::Receiver<Result<Stats, Error>>, Error> {
        let object = self.running(namespace, name).await?;
        let runtime = self.engine.runtime(object.spec.isolation);
        let uid = object.uid().to_string();
        let container = addressed(&object, container)?.map(str::to_owned);
        let (tx, rx) = mpsc::channel(4);
        let first = sample(&*runtime, &uid, container.as_deref()).await?;
        let _ = tx.try_send(Ok(first));
        if stream {
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1));
                tick.tick().await;
                loop {
                    tokio::select! {
                        _ = tick.tick() => {}
                        () = tx.closed() => return,
                    }
                    match sample(&*runtime, &uid, container.as_deref()).await {
                        Ok(s) => {
                            if tx.send(Ok(s)).await.is_err() {
                                return;
                            }
                        }
                        Err(_) => return,
                    }
                }
            });
        }
        Ok(rx)
    }

    /// Entries of its log, or of the log of one of several containers: the main one where none is named. With `follow`, until that
    /// has ended for good and all is read.
    pub async fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        query: Query,
    ) -> Result<mpsc::Receiver<Result<Vec<Line>, Error>>, Error> {
        let object = self.objects.get(namespace, name).await?;
        let main = || object.spec.containers.first().map(|c| c.name.as_str());
        let container = match addressed(&object, container)? {
            None if object.spec.is_pod() => main(),
            named => named,
        };
        let path = match container {
            Some(c) => self.engine.layout.container_log(object.uid(), c),
            None => self.engine.layout.log(object.uid()),
        };
        let broken = |e: std::io::Error| Error::Failed(format!("cannot read the log of {name}: {e}"));
        let follow = query.follow;
        // The directory exists once the instance was first prepared.
        let watcher = match follow && path.parent().is_some_and(|d| d.exists()) {
            true => Some(Watcher::new(&path).map_err(broken)?),
            false => None,
        };
        let reader = Reader::open(&path, query).map_err(broken)?;
        let (tx, rx) = mpsc::channel(16);
        let over = self.over(&object, container, follow).await?;
        tokio::spawn(pump(reader, watcher, over, tx));
        Ok(rx)
    }

    /// A receiver that is closed once the instance, or its container, does not run (any more).
    async fn over(
        &self,
        object: &Object<Instance>,
        container: Option<&str>,
        follow: bool,
    ) -> Result<mpsc::Receiver<()>, Error> {
        let (tx, rx) = mpsc::channel(1);
        let container = container.map(str::to_owned);
        let is_over = move |o: &Object<Instance>| is_over(o, container.as_deref());
        if !follow || is_over(object) {
            return Ok(rx);
        }
        let from = object.metadata.resource_version.parse().ok();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let mut events = self.objects.watch_one(namespace, object.name(), from).await?;
        let uid = object.metadata.uid.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tx.closed() => return,
                    event = events.next() => match event {
                        Some(Ok(ObjectEvent::Put { object, .. })) if object.metadata.uid == uid && is_over(&object) => return,
                        Some(Ok(ObjectEvent::Deleted { object })) if object.metadata.uid == uid => return,
                        Some(Ok(_)) => {}
                        _ => return,
                    },
                }
            }
        });
        Ok(rx)
    }
}

/// One sample, of the whole or of one of several containers.
async fn sample(runtime: &dyn Runtime, uid: &str, container: Option<&str>) -> Result<Stats, RuntimeError> {
    match container {
        None => runtime.stats(uid).await,
        Some(c) => match runtime.of(uid, c, Request::Stats).await? {
            Reply::Stats { stats } => Ok(*stats),
            _ => Ok(Stats::default()),
        },
    }
}

/// The container as the shim knows it: one that is alone has no name there. An error where the instance has none of that name.
fn addressed<'a>(o: &Object<Instance>, container: Option<&'a str>) -> Result<Option<&'a str>, Error> {
    let Some(name) = container else { return Ok(None) };
    if o.spec.container(name).is_some() {
        return Ok(o.spec.is_pod().then_some(name));
    }
    let all: Vec<&str> = o.spec.all_containers().map(|c| c.name.as_str()).collect();
    Err(Error::Refused {
        code: ErrorCode::Invalid,
        message: format!(
            "instance {} has no container {name:?}: it has {}",
            o.name(),
            all.join(", ")
        ),
    })
}

/// Whether it, or this one of its containers, does not run and is not about to.
fn is_over(o: &Object<Instance>, container: Option<&str>) -> bool {
    let s = o.status_or_default();
    let ended = |c: &str| matches!(s.container(c).map(|c| &c.state), Some(ContainerState::Terminated(_)));
    container.is_some_and(ended) || s.phase.is_ended() || (s.phase == Phase::Created && o.spec.power == Power::Stopped)
}

/// Whether a shim holds it (`Ok`), or none will (`Err`); `None` where that is not yet known.
fn settled(o: &Object<Instance>) -> Option<Result<(), Error>> {
    let s = o.status_or_default();
    let name = o.name();
    match s.phase {
        Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping => Some(Ok(())),
        // Ended before, and asked to run again: on its way.
        Phase::Exited | Phase::Failed
            if s.observed_generation < o.metadata.generation && o.spec.power != Power::Stopped =>
        {
            None
        }
        Phase::Failed => Some(Err(Error::State(s.message))),
        Phase::Exited => Some(Err(Error::State(format!(
            "instance {name} is not running: it has ended"
        )))),
        Phase::Removing => Some(Err(Error::State(format!("instance {name} is being removed")))),
        Phase::Created | Phase::Pending | Phase::Preparing if o.spec.power == Power::Stopped => Some(Err(
            Error::State(format!("instance {name} is not running: `biga start {name}` starts it")),
        )),
        Phase::Pending => unplaced(&s).map(|why| Err(Error::State(format!("{name} cannot be placed: {why}")))),
        Phase::Created | Phase::Preparing => None,
    }
}

/// Why the scheduler found no node for it.
fn unplaced(s: &biga_model::InstanceStatus) -> Option<String> {
    let scheduled = s
        .conditions
        .iter()
        .find(|c| c.type_ == "Scheduled" && c.status == "False")?;
    Some(scheduled.message.clone())
}

async fn pump(
    mut reader: Reader,
    mut watcher: Option<Watcher>,
    mut over: mpsc::Receiver<()>,
    tx: mpsc::Sender<Result<Vec<Line>, Error>>,
) {
    let mut ended = false;
    loop {
        match reader.read() {
            Ok(lines) if !lines.is_empty() => {
                if tx.send(Ok(lines)).await.is_err() {
                    return;
                }
            }
            Ok(_) if ended || reader.is_done() => return,
            Ok(_) => match &mut watcher {
                None => {
                    // Without a directory there is nothing to watch yet; with no wish to follow, nothing to wait for.
                    let _ = over.recv().await;
                    ended = true;
                }
                Some(w) => tokio::select! {
                    changed = w.changed() => if changed.is_err() { return },
                    // The last lines were written before the end was seen: read once more, then stop.
                    _ = over.recv() => ended = true,
                    () = tx.closed() => return,
                },
            },
            Err(e) => {
                let _ = tx.send(Err(Error::Failed(format!("cannot read the log: {e}")))).await;
                return;
            }
        }
    }
}

pub(crate) async fn read_reply(io: &mut UnixStream) -> Result<Reply, Error> {
    use tokio::io::AsyncReadExt;
    let broken = |e: std::io::Error| Error::Failed(format!("the shim does not answer: {e}"));
    let mut decoder = biga_wire::Decoder::new();
    let mut buf = [0u8; 16 << 10];
    loop {
        if let Some(f) = decoder.next_frame().map_err(|e| broken(e.into()))? {
            return f.parse().map_err(broken);
        }
        match io.read(&mut buf).await.map_err(broken)? {
            0 => return Err(broken(std::io::ErrorKind::UnexpectedEof.into())),
            n => decoder.push(&buf[..n]),
        }
    }
}
