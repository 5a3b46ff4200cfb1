//! A runtime without processes: the whole stack runs on it in tests, without root, in milliseconds.
//!
//! In automatic mode everything succeeds at once; [`Fake::fail_next`] makes the next call of one name fail,
//! [`Fake::exit`] ends an instance. Streams echo: what comes in on stdin goes out on stdout.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use biga_model::Isolation;
use biga_wire::config::{Limits, ShimConfig, Workload};
use biga_wire::shim::{ContainerStatus, ErrorCode, Event, Exit, Reply, Request, State, Stats, Status};
use biga_wire::{Decoder, Frame, FrameKind};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::{Error, Events, Runtime};

/// The runtime; a cheap handle.
#[derive(Clone)]
pub struct Fake {
    isolation: Isolation,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    instances: HashMap<String, Held>,
    failing: HashSet<&'static str>,
    calls: Vec<String>,
    next_pid: u32,
}

struct Held {
    status: Status,
    watchers: Vec<mpsc::Sender<Event>>,
    exit: watch::Sender<Option<Exit>>,
    limits: Limits,
}

impl Fake {
    /// A fake of `isolation` with nothing in it.
    pub fn new(isolation: Isolation) -> Fake {
        Fake {
            isolation,
            shared: Arc::default(),
        }
    }

    /// Makes the next call of the method `name` fail with [`ErrorCode::Failed`].
    pub fn fail_next(&self, name: &'static str) {
        self.shared.lock().failing.insert(name);
    }

    /// Ends an instance as if its process had ended.
    pub fn exit(&self, uid: &str, code: i32) {
        self.change(uid, |s| end(s, code, None));
    }

    /// Ends a container of a pod as if its process had ended.
    pub fn exit_of(&self, uid: &str, container: &str, code: i32) {
        self.change(uid, |s| {
            if let Some(c) = s.containers.iter_mut().find(|c| c.name == container) {
                end_container(c, code, None);
            }
        });
    }

    /// The instance is gone without a word, as if its shim had been killed.
    pub fn lose(&self, uid: &str) {
        self.shared.lock().instances.remove(uid);
    }

    /// All calls so far, as `create web`, `stop 9f0c`.
    pub fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.clone()
    }

    /// Limits now in force.
    pub fn limits(&self, uid: &str) -> Option<Limits> {
        self.shared.lock().instances.get(uid).map(|h| h.limits.clone())
    }

    /// Ids of the instances held.
    pub fn held(&self) -> Vec<String> {
        let mut all: Vec<String> = self.shared.lock().instances.keys().cloned().collect();
        all.sort();
        all
    }

    fn enter(&self, name: &'static str, uid: &str) -> Result<(), Error> {
        let mut s = self.shared.lock();
        s.calls.push(format!("{name} {uid}"));
        if s.failing.remove(name) {
            return Err(Error::Refused {
                code: ErrorCode::Failed,
                message: format!("{name} was told to fail"),
            });
        }
        Ok(())
    }

    fn change(&self, uid: &str, f: impl FnOnce(&mut Status)) -> Option<Status> {
        let mut shared = self.shared.lock();
        let held = shared.instances.get_mut(uid)?;
        f(&mut held.status);
        let status = held.status.clone();
        held.watchers
            .retain(|w| w.try_send(Event::Status { status: status.clone() }).is_ok());
        if let Some(exit) = &status.exit {
            held.exit.send_replace(Some(exit.clone()));
        }
        Some(status)
    }

    fn require(&self, uid: &str, f: impl FnOnce(&mut Status)) -> Result<Status, Error> {
        self.change(uid, f).ok_or_else(|| Error::Gone(uid.to_string()))
    }
}

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

fn end(s: &mut Status, code: i32, signal: Option<i32>) {
    s.state = State::Exited;
    s.pid = None;
    s.exit = Some(Exit {
        code,
        signal,
        at_ns: now_ns(),
        ..Exit::default()
    });
}

fn end_container(c: &mut ContainerStatus, code: i32, signal: Option<i32>) {
    c.state = State::Exited;
    c.pid = None;
    c.last_started_ns = c.started_ns;
    c.exit = Some(Exit {
        code,
        signal,
        at_ns: now_ns(),
        ..Exit::default()
    });
}

#[async_trait]
impl Runtime for Fake {
    fn isolation(&self) -> Isolation {
        self.isolation
    }

    async fn create(&self, config: &ShimConfig) -> Result<Status, Error> {
        self.enter("create", &config.uid)?;
        {
            let mut s = self.shared.lock();
            s.next_pid += 1;
            let containers = match &config.workload {
                Workload::Pod(pod) => pod.containers.iter().map(|c| c.name.clone()).collect(),
                _ => Vec::new(),
            };
            let named = |name| ContainerStatus {
                name,
                ..ContainerStatus::default()
            };
            let status = Status {
                pid: Some(100_000 + s.next_pid),
                containers: containers.into_iter().map(named).collect(),
                ..Status::default()
            };
            let held = Held {
                status,
                watchers: Vec::new(),
                exit: watch::Sender::new(None),
                limits: config.limits.clone(),
            };
            s.instances.insert(config.uid.clone(), held);
        }
        if config.start {
            self.start(&config.uid).await
        } else {
            self.require(&config.uid, |_| ())
        }
    }

    async fn start(&self, uid: &str) -> Result<Status, Error> {
        self.enter("start", uid)?;
        self.require(uid, |s| {
            s.state = State::Running;
            s.started_ns = Some(now_ns());
        })
    }

    async fn signal(&self, uid: &str, signal: i32) -> Result<(), Error> {
        self.enter("signal", uid)?;
        self.require(uid, |s| {
            if signal == 9 || signal == 15 {
                end(s, 128 + signal, Some(signal));
            }
        })
        .map(drop)
    }

    async fn stop(&self, uid: &str, signal: i32, _grace_ms: u64) -> Result<(), Error> {
        self.enter("stop", uid)?;
        self.require(uid, |s| end(s, 128 + signal, Some(signal))).map(drop)
    }

    async fn pause(&self, uid: &str) -> Result<(), Error> {
        self.enter("pause", uid)?;
        self.require(uid, |s| s.state = State::Paused).map(drop)
    }

    async fn resume(&self, uid: &str) -> Result<(), Error> {
        self.enter("resume", uid)?;
        self.require(uid, |s| s.state = State::Running).map(drop)
    }

    async fn update(&self, uid: &str, limits: &Limits) -> Result<(), Error> {
        self.enter("update", uid)?;
        match self.shared.lock().instances.get_mut(uid) {
            Some(h) => {
                h.limits = limits.clone();
                Ok(())
            }
            None => Err(Error::Gone(uid.to_string())),
        }
    }

    async fn stats(&self, uid: &str) -> Result<Stats, Error> {
        self.enter("stats", uid)?;
        self.require(uid, |_| ())?;
        Ok(Stats {
            at_ns: now_ns(),
            memory: 1 << 20,
            pids: 1,
            ..Stats::default()
        })
    }

    async fn open(&self, uid: &str, request: &Request) -> Result<UnixStream, Error> {
        self.enter("open", uid)?;
        let exit = match self.shared.lock().instances.get(uid) {
            Some(h) => h.exit.subscribe(),
            None => return Err(Error::Gone(uid.to_string())),
        };
        let (ours, theirs) = UnixStream::pair().map_err(|source| Error::Io {
            path: "socketpair".into(),
            source,
        })?;
        let is_exec = matches!(request, Request::Exec { .. });
        tokio::spawn(echo(ours, exit, is_exec));
        Ok(theirs)
    }

    async fn of(&self, uid: &str, container: &str, request: Request) -> Result<Reply, Error> {
        let call = match &request {
            Request::Start => "start",
            Request::Stop { .. } => "stop",
            _ => "of",
        };
        self.enter(call, &format!("{uid}/{container}"))?;
        let status = self.require(uid, |s| {
            let Some(c) = s.containers.iter_mut().find(|c| c.name == container) else {
                return;
            };
            match request {
                Request::Start => {
                    c.state = State::Running;
                    c.started_ns = Some(now_ns());
                    c.starts += 1;
                }
                Request::Stop { signal, .. } | Request::Signal { signal } if c.state == State::Running => {
                    end_container(c, 128 + signal, Some(signal));
                }
                _ => {}
            }
        })?;
        Ok(Reply::Status { status })
    }

    async fn finish(&self, uid: &str, exit: &Exit) -> Result<(), Error> {
        self.enter("finish", uid)?;
        self.require(uid, |s| {
            for c in s.containers.iter_mut().filter(|c| c.state == State::Running) {
                end_container(c, 137, Some(9));
            }
            end(s, exit.code, exit.signal);
            s.exit = Some(Exit {
                at_ns: now_ns(),
                ..exit.clone()
            });
        })
        .map(drop)
    }

    async fn adopt(&self, uid: &str) -> Result<(Status, Events), Error> {
        let (tx, rx) = mpsc::channel(64);
        let mut s = self.shared.lock();
        let held = s.instances.get_mut(uid).ok_or_else(|| Error::Gone(uid.to_string()))?;
        held.watchers.push(tx);
        Ok((held.status.clone(), rx))
    }

    async fn delete(&self, uid: &str) -> Result<(), Error> {
        self.enter("delete", uid)?;
        self.change(uid, |s| {
            if s.state != State::Exited {
                end(s, 137, Some(9));
            }
        });
        self.shared.lock().instances.remove(uid);
        Ok(())
    }
}

/// Echoes stdin to stdout; an exec ends at the end of its input, an attach when the instance ends.
async fn echo(mut io: UnixStream, mut exit: watch::Receiver<Option<Exit>>, is_exec: bool) -> std::io::Result<()> {
    let reply = if is_exec { Reply::Exec { pid: 7 } } else { Reply::Ok };
    send(&mut io, Frame::json(FrameKind::Reply, &reply)).await?;
    let mut decoder = Decoder::new();
    let mut buf = [0u8; 4096];
    let ended = loop {
        while let Some(f) = decoder.next_frame()? {
            match f.kind {
                FrameKind::Stdin => send(&mut io, Frame::new(FrameKind::Stdout, f.payload)).await?,
                FrameKind::StdinEof if is_exec => {
                    return send(&mut io, Frame::json(FrameKind::Exit, &Exit::default())).await;
                }
                _ => {}
            }
        }
        let over = exit.borrow().clone();
        if let Some(e) = over {
            break e;
        }
        tokio::select! {
            n = io.read(&mut buf) => match n? {
                0 => return Ok(()),
                n => decoder.push(&buf[..n]),
            },
            changed = exit.changed() => if changed.is_err() { break Exit { code: 137, ..Exit::default() } },
        }
    };
    send(&mut io, Frame::json(FrameKind::Exit, &ended)).await
}

async fn send(io: &mut UnixStream, frame: Frame) -> std::io::Result<()> {
    let mut buf = Vec::new();
    frame.encode(&mut buf);
    io.write_all(&buf).await
}
