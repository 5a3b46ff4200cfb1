//! Sessions: connections on which the client answers us.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use biga_wire::build::MAX_SECRET;

use crate::MAX_MESSAGE;
use crate::engine::{Fault, FaultKind};
use crate::proto::session::{
    CheckAgentRequest, CredentialsRequest, CredentialsResponse, GetSecretRequest, GetSecretResponse,
};
use crate::proto::{BytesMessage, Empty};

/// How long a build waits for its session, and for what a client answers at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most sessions at a time.
const MAX_SESSIONS: usize = 1024;
/// Messages of one stream that may wait.
const QUEUE: usize = 16;

const ID: &str = "x-docker-expose-session-uuid";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client that answers.
pub struct Session {
    methods: HashSet<String>,
    channel: Channel,
    /// Cancelled when its connection ends.
    pub gone: CancellationToken,
}

/// The sessions that are open, by their ids.
#[derive(Default)]
pub struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    changed: watch::Sender<()>,
}

/// Takes a session off the list.
struct Listed<'a>(&'a Sessions, String);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0.open.lock().remove(&self.1) {
            session.gone.cancel();
        }
    }
}

impl Sessions {
    /// Holds a connection until it ends.
    pub async fn hold(&self, headers: &HeaderMap, io: impl Io + 'static) {
        let Some(id) = headers.get(ID).and_then(|v| v.to_str().ok()) else {
            tracing::debug!("a session without an id is refused");
            return;
        };
        let made = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(io));
        let (channel, connection) = match made.await {
            Ok(made) => made,
            Err(e) => {
                tracing::debug!("a session did not begin: {e}");
                return;
            }
        };
        let session = Session {
            methods: methods(headers),
            channel: Channel(channel),
            gone: CancellationToken::new(),
        };
        {
            let mut open = self.open.lock();
            if open.len() >= MAX_SESSIONS || open.contains_key(id) {
                tracing::warn!("a session is refused: there is one of its id, or too many are open");
                return;
            }
            open.insert(id.to_owned(), Arc::new(session));
        }
        let _listed = Listed(self, id.to_owned());
        self.changed.send_replace(());
        if let Err(e) = connection.await {
            tracing::debug!("a session ended: {e}");
        }
    }

    /// The session of this id, which may be about to begin.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, Fault> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(session) = self.open.lock().get(id) {
                    return session.clone();
                }
                // The sender lives as long as this does.
                let _ = changed.changed().await;
            }
        };
        let late = |_| Fault::new(FaultKind::Failed, format!("no active session for {id}"));
        tokio::time::timeout(PATIENCE, found).await.map_err(late)
    }
}

fn methods(headers: &HeaderMap) -> HashSet<String> {
    let all = headers.get_all(METHOD).into_iter().filter_map(|v| v.to_str().ok());
    all.map(str::to_ascii_lowercase).collect()
}

/// Sends requests.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn failed(what: &str, status: &Status) -> Fault {
    Fault::new(FaultKind::Failed, format!("{what}: {}", status.message()))
}

impl Session {
    /// Whether the client said that it answers this.
    pub fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    fn grpc(&self) -> Grpc<Channel> {
        let origin = http::Uri::from_static("http://localhost");
        Grpc::with_origin(self.channel.clone(), origin).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn unary<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + Default + 'static,
        A: Message + Send + Sync + Default + 'static,
    {
        let mut grpc = self.grpc();
        let call = async {
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            Ok(grpc.unary(Request::new(message), path, codec).await?.into_inner())
        };
        let late = |_| Status::deadline_exceeded("the client did not answer");
        tokio::time::timeout(PATIENCE, call).await.map_err(late)?
    }

    /// Begins a stream in both directions.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        metadata: MetadataMap,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + Sync + Default + 'static,
        A: Message + Send + Sync + Default + 'static,
    {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let mut request = Request::new(messages);
        *request.metadata_mut() = metadata;
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }

    /// User and password for a registry, where the client has any.
    pub async fn credentials(&self, registry: &str) -> Result<Option<(String, String)>, Fault> {
        const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
        if !self.supports(CREDENTIALS) {
            return Ok(None);
        }
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let asked = self.unary(CREDENTIALS, CredentialsRequest { host: host.into() });
        let answer: CredentialsResponse = match asked.await {
            Err(s) if matches!(s.code(), Code::Unimplemented | Code::NotFound) => return Ok(None),
            other => other.map_err(|s| failed(&format!("no credentials for {registry}"), &s))?,
        };
        Ok((!answer.secret.is_empty()).then_some((answer.username, answer.secret)))
    }

    /// A secret, where the client has it.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Fault> {
        const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
        if !self.supports(SECRET) {
            return Ok(None);
        }
        let asked = self.unary(SECRET, GetSecretRequest { id: id.into() });
        let answer: GetSecretResponse = match asked.await {
            Err(s) if matches!(s.code(), Code::Unimplemented | Code::NotFound) => return Ok(None),
            other => other.map_err(|s| failed(&format!("secret {id}"), &s))?,
        };
        match answer.data.len() > MAX_SECRET {
            true => Err(Fault::invalid(format!("secret {id} is larger than {MAX_SECRET} bytes"))),
            false => Ok(Some(answer.data)),
        }
    }

    /// Whether the client forwards this agent of SSH.
    pub async fn has_agent(&self, id: &str) -> Result<bool, Fault> {
        const CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
        if !self.supports(CHECK) {
            return Ok(false);
        }
        let asked = self.unary::<_, Empty>(CHECK, CheckAgentRequest { id: id.into() });
        match asked.await {
            Ok(_) => Ok(true),
            Err(s) if matches!(s.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => {
                Err(failed(&format!("agent of SSH {id}"), &s))
            }
            // Clients have no code of their own for an agent that they were not told of.
            Err(s) => {
                tracing::debug!("no agent of SSH {id}: {}", s.message());
                Ok(false)
            }
        }
    }

    /// Passes a connection on to an agent until either side ends it.
    pub async fn forward_agent(&self, id: &str, io: impl Io + 'static) -> Result<(), Fault> {
        let wrong = |s: Status| failed(&format!("agent of SSH {id}"), &s);
        let mut metadata = MetadataMap::new();
        let name = MetadataValue::try_from(id).map_err(|_| Fault::invalid(format!("bad id of an agent: {id:?}")))?;
        metadata.insert("buildkit.ssh.id", name);
        let (mut read, mut write) = tokio::io::split(io);
        let (tx, rx) = mpsc::channel(QUEUE);
        let sending = async move {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(n @ 1..) = read.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..n]);
                if tx.send(BytesMessage { data }).await.is_err() {
                    return;
                }
            }
        };
        let receiving = async move {
            const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
            let begun = self.stream(FORWARD, metadata, ReceiverStream::new(rx));
            let mut answers: Streaming<BytesMessage> = begun.await.map_err(wrong)?;
            while let Some(message) = answers.next().await {
                if write.write_all(&message.map_err(wrong)?.data).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // The end of what is asked does not end what is answered.
        let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
        tokio::select! {
            done = &mut receiving => done,
            () = &mut sending => receiving.await,
        }
    }

    /// Sends a file that the client keeps where it wants.
    pub async fn send_file(&self, mut content: crate::ByteStream) -> Result<(), Fault> {
        const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
        if !self.supports(SEND) {
            return Err(Fault::invalid("the client takes no files"));
        }
        let (tx, rx) = mpsc::channel(QUEUE);
        let wrong = |s: Status| failed("the client did not take what was exported", &s);
        let sending = async move {
            while let Some(piece) = content.next().await {
                let piece = piece.map_err(|e| Fault::new(FaultKind::Failed, format!("the export failed: {e}")))?;
                for start in (0..piece.len()).step_by(1 << 20) {
                    let data = piece.slice(start..piece.len().min(start + (1 << 20)));
                    if tx.send(BytesMessage { data }).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        let receiving = async move {
            let begun = self.stream(SEND, MetadataMap::new(), ReceiverStream::new(rx));
            let mut answers: Streaming<BytesMessage> = begun.await.map_err(wrong)?;
            while let Some(message) = answers.next().await {
                message.map_err(wrong)?;
            }
            Ok(())
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent.and(received)
    }
}

/// A stream that is read as a file is.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

impl Session {
    /// What the client sends as the context from its standard input.
    pub(crate) async fn pull(&self, address: &http::Uri) -> Result<Pieces, Fault> {
        const PULL: &str = "/moby.upload.v1.Upload/Pull";
        let wrong = |s: Status| failed("the client does not send its standard input", &s);
        let mut metadata = MetadataMap::new();
        for (key, value) in [
            ("urlpath", address.path()),
            ("urlhost", address.host().unwrap_or_default()),
        ] {
            let value = MetadataValue::try_from(value).map_err(|_| Fault::invalid("bad address of a context"))?;
            metadata.insert(key, value);
        }
        let none = futures_util::stream::pending::<BytesMessage>();
        let answers: Streaming<BytesMessage> = self.stream(PULL, metadata, none).await.map_err(wrong)?;
        Ok(Box::pin(
            answers.map(|m| m.map(|m| m.data).map_err(std::io::Error::other)),
        ))
    }
}
