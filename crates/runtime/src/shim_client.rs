//! The runtime of all three isolations: one shim a instance, spoken to over its socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use biga_model::Isolation;
use biga_wire::config::{Limits, ShimConfig};
use biga_wire::shim::{Event, Exit, Reply, Request, State, Stats, Status};
use biga_wire::{Decoder, Frame, FrameKind};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::{Error, Events, Runtime};

/// Name of the socket in an instance's run directory.
pub const SOCKET: &str = "shim.sock";
/// Name of the file that tells how the instance ended.
pub const EXIT_FILE: &str = "exit.json";
/// Name of the file with the shim's configuration.
pub const CONFIG_FILE: &str = "shim.json";

/// A runtime that holds each instance by a shim process.
pub struct ShimRuntime {
    isolation: Isolation,
    /// `<run>/instances`.
    instances: PathBuf,
    program: Arc<dyn AsRawFd + Send + Sync>,
}

impl ShimRuntime {
    /// A runtime for `isolation` whose instances have directories in `instances`; `program` is an
    /// open file (a sealed memfd) with the shim.
    pub fn new(isolation: Isolation, instances: PathBuf, program: Arc<dyn AsRawFd + Send + Sync>) -> ShimRuntime {
        ShimRuntime {
            isolation,
            instances,
            program,
        }
    }

    fn socket(&self, uid: &str) -> PathBuf {
        self.instances.join(uid).join(SOCKET)
    }

    async fn connect(&self, uid: &str) -> Result<Connection, Error> {
        let path = self.socket(uid);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Connection {
                stream,
                path,
                decoder: Decoder::new(),
            }),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(Error::Gone(uid.to_string()))
            }
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    async fn call(&self, uid: &str, request: &Request) -> Result<Reply, Error> {
        let mut c = self.connect(uid).await?;
        c.send(request).await?;
        c.reply().await
    }

    async fn call_ok(&self, uid: &str, request: &Request) -> Result<(), Error> {
        self.call(uid, request).await.map(|_| ())
    }

    async fn spawn(&self, config: &ShimConfig) -> Result<Status, Error> {
        let failed = |why: String| Error::Spawn {
            uid: config.uid.clone(),
            why,
        };
        let file = config.run_dir.join(CONFIG_FILE);
        write_private(&file, &serde_json::to_vec(config).unwrap_or_default())
            .map_err(|e| failed(format!("cannot write {}: {e}", file.display())))?;
        let _ = std::fs::remove_file(config.run_dir.join(EXIT_FILE));
        let errors = std::fs::File::create(config.run_dir.join("shim.err"))
            .map_err(|e| failed(format!("cannot write its error file: {e}")))?;
        let mut child = tokio::process::Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg0("biga-shim")
            .arg(&file)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let stdout = child.stdout.take();
        // Somebody has to reap it; the shim itself does not need us.
        tokio::spawn(async move { child.wait().await });
        let mut line = String::new();
        if let Some(out) = stdout {
            let read = BufReader::new(out.take(1 << 20)).read_line(&mut line).await;
            read.map_err(|e| failed(e.to_string()))?;
        }
        match serde_json::from_str::<Reply>(&line) {
            Ok(Reply::Status { status }) => Ok(status),
            Ok(Reply::Error { code, message }) => Err(Error::Refused { code, message }),
            _ => {
                let said = std::fs::read_to_string(config.run_dir.join("shim.err")).unwrap_or_default();
                let said = said.trim();
                let said = if said.is_empty() {
                    "it ended without a word"
                } else {
                    said
                };
                Err(failed(said.chars().take(2000).collect()))
            }
        }
    }
}

/// How the instance whose run directory is `run_dir` ended, if its shim wrote that down.
pub fn read_exit(run_dir: &Path) -> Option<Exit> {
    let bytes = std::fs::read(run_dir.join(EXIT_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What the shim with the run directory `run_dir` was last started with.
pub fn read_config(run_dir: &Path) -> Option<ShimConfig> {
    let bytes = std::fs::read(run_dir.join(CONFIG_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut f = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    f.write_all(bytes)
}

struct Connection {
    stream: UnixStream,
    path: PathBuf,
    decoder: Decoder,
}

impl Connection {
    fn broken(&self, source: io::Error) -> Error {
        Error::Io {
            path: self.path.clone(),
            source,
        }
    }

    async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let mut buf = Vec::new();
        Frame::json(FrameKind::Request, request).encode(&mut buf);
        self.stream.write_all(&buf).await.map_err(|e| self.broken(e))
    }

    async fn frame(&mut self) -> Result<Option<Frame>, Error> {
        let mut buf = [0u8; 16 << 10];
        loop {
            if let Some(f) = self.decoder.next_frame().map_err(|e| self.broken(e.into()))? {
                return Ok(Some(f));
            }
            match self.stream.read(&mut buf).await {
                Ok(0) => return Ok(None),
                Ok(n) => self.decoder.push(&buf[..n]),
                Err(e) => return Err(self.broken(e)),
            }
        }
    }

    async fn reply(&mut self) -> Result<Reply, Error> {
        let frame = self
            .frame()
            .await?
            .ok_or_else(|| self.broken(io::ErrorKind::UnexpectedEof.into()))?;
        match frame.parse::<Reply>().map_err(|e| self.broken(e))? {
            Reply::Error { code, message } => Err(Error::Refused { code, message }),
            reply => Ok(reply),
        }
    }
}

fn as_status(reply: Reply) -> Status {
    match reply {
        Reply::Status { status } => status,
        _ => Status::default(),
    }
}

#[async_trait]
impl Runtime for ShimRuntime {
    fn isolation(&self) -> Isolation {
        self.isolation
    }

    async fn create(&self, config: &ShimConfig) -> Result<Status, Error> {
        self.spawn(config).await
    }

    async fn start(&self, uid: &str) -> Result<Status, Error> {
        self.call(uid, &Request::Start).await.map(as_status)
    }

    async fn signal(&self, uid: &str, signal: i32) -> Result<(), Error> {
        self.call_ok(uid, &Request::Signal { signal }).await
    }

    async fn stop(&self, uid: &str, signal: i32, grace_ms: u64) -> Result<(), Error> {
        self.call_ok(uid, &Request::Stop { signal, grace_ms }).await
    }

    async fn pause(&self, uid: &str) -> Result<(), Error> {
        self.call_ok(uid, &Request::Pause).await
    }

    async fn resume(&self, uid: &str) -> Result<(), Error> {
        self.call_ok(uid, &Request::Resume).await
    }

    async fn update(&self, uid: &str, limits: &Limits) -> Result<(), Error> {
        let limits = Box::new(limits.clone());
        self.call_ok(uid, &Request::Update { limits }).await
    }

    async fn stats(&self, uid: &str) -> Result<Stats, Error> {
        match self.call(uid, &Request::Stats).await? {
            Reply::Stats { stats } => Ok(*stats),
            _ => Ok(Stats::default()),
        }
    }

    async fn open(&self, uid: &str, request: &Request) -> Result<UnixStream, Error> {
        let mut c = self.connect(uid).await?;
        c.send(request).await?;
        Ok(c.stream)
    }

    async fn of(&self, uid: &str, container: &str, request: Request) -> Result<Reply, Error> {
        self.call(uid, &request.of(Some(container))).await
    }

    async fn finish(&self, uid: &str, exit: &Exit) -> Result<(), Error> {
        self.call_ok(uid, &Request::Finish { exit: exit.clone() }).await
    }

    async fn adopt(&self, uid: &str) -> Result<(Status, Events), Error> {
        let mut c = self.connect(uid).await?;
        // The answer is the state from which the events go on: no change falls between the two.
        c.send(&Request::Watch).await?;
        let status = as_status(c.reply().await?);
        let (tx, rx) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = c.frame().await {
                let Ok(event) = frame.parse::<Event>() else { continue };
                if tx.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok((status, rx))
    }

    async fn delete(&self, uid: &str) -> Result<(), Error> {
        match self.call_ok(uid, &Request::Delete).await {
            Ok(()) | Err(Error::Gone(_)) => Ok(()),
            // It ended while we asked.
            Err(Error::Io { .. }) if self.connect(uid).await.is_err() => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Whether `status` says that nothing will run any more.
pub fn is_over(status: &Status) -> bool {
    status.state == State::Exited
}
