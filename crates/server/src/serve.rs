//! Accepting connections and serving requests on them.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use biga_api_kube::ApiError;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::Error;
use crate::listen::{self, Tls, TlsOptions, Unix, UnixOptions};
use crate::peer::Peer;

/// How long the end of a server waits for running requests.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's head, and to shake hands.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where to listen.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A unix socket.
    pub unix: Option<UnixOptions>,
    /// An address with TLS.
    pub tls: Option<TlsOptions>,
    /// Whether a client may shut down its writing end and still read the answer. Docker's clients do; without it a
    /// client that went away is noticed at once.
    pub half_close: bool,
}

/// Who sends a request. Found in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `unix:UID`, or the common name of the client's certificate.
    pub user: String,
    /// The organizations of the client's certificate.
    pub groups: Vec<String>,
}

/// Ends when the server does. Found in the request's extensions, for upgraded connections.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(pub CancellationToken);

/// Listening sockets.
pub struct Server {
    unix: Vec<Unix>,
    tls: Option<Tls>,
    half_close: bool,
}

impl Server {
    /// Binds everything, so that clients can connect from now on.
    pub async fn bind(options: &Options) -> Result<Server, Error> {
        Ok(Server {
            unix: options.unix.iter().map(listen::unix).collect::<Result<_, _>>()?,
            tls: match &options.tls {
                Some(t) => Some(listen::tls(t).await?),
                None => None,
            },
            half_close: options.half_close,
        })
    }

    /// Listens also on one more unix socket.
    pub fn with_unix(mut self, options: &UnixOptions) -> Result<Server, Error> {
        self.unix.push(listen::unix(options)?);
        Ok(self)
    }

    /// Listens also on unix sockets that somebody else made, who keeps their files.
    pub fn with_passed(mut self, sockets: Vec<OwnedFd>) -> Result<Server, Error> {
        for socket in sockets {
            self.unix.push(listen::passed(socket)?);
        }
        Ok(self)
    }

    /// Where the unix sockets are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.unix.iter().filter_map(Unix::path).collect()
    }

    /// The address of the TLS listener, with the port it got.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref().and_then(|t| t.listener.local_addr().ok())
    }

    /// Serves `router` until `shutdown`; then running requests have five seconds, watches end at once.
    pub async fn run(self, router: Router, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let app = App {
            router,
            shutdown: shutdown.clone(),
            half_close: self.half_close,
            boot: uuid::Uuid::new_v4().as_fields().0,
            count: Arc::new(AtomicU64::new(0)),
            tasks: tasks.clone(),
        };
        tokio::join!(
            futures_util::future::join_all(self.unix.iter().map(|u| app.accept_unix(u))),
            async {
                if let Some(tls) = &self.tls {
                    app.accept_tls(tls).await;
                }
            },
            shutdown.cancelled(),
        );
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("requests were still running after the grace and are cut off");
        }
    }
}

#[derive(Clone)]
struct App {
    router: Router,
    shutdown: CancellationToken,
    half_close: bool,
    /// Makes request ids differ between starts.
    boot: u32,
    count: Arc<AtomicU64>,
    tasks: TaskTracker,
}

impl App {
    async fn accept_unix(&self, unix: &Unix) {
        while let Some(accepted) = self.accept(unix.listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let user = match stream.peer_cred() {
                Ok(c) => format!("unix:{}", c.uid()),
                Err(_) => "unix:unknown".into(),
            };
            let caller = Caller {
                user,
                groups: Vec::new(),
            };
            // Without half-closed connections hyper sees the end of a client by itself.
            let peer = match self.half_close {
                true => Peer::of(&stream),
                false => Peer::default(),
            };
            self.spawn(self.clone().connection(stream, caller, peer));
        }
    }

    async fn accept_tls(&self, tls: &Tls) {
        while let Some(accepted) = self.accept(tls.listener.accept()).await {
            let Ok((stream, peer)) = accepted else { continue };
            let _ = stream.set_nodelay(true);
            let (acceptor, app) = (tls.acceptor.clone(), self.clone());
            self.spawn(async move {
                let stream = match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(s)) => s,
                    Ok(Err(e)) => {
                        tracing::debug!(%peer, error = %e, "no TLS connection");
                        return;
                    }
                    Err(_) => return,
                };
                let certificates = stream.get_ref().1.peer_certificates();
                let subject = certificates.and_then(|c| c.first()).and_then(crate::pki::subject);
                // The verifier lets nobody in without a certificate; one without a name is not let in either.
                let Some((user, groups)) = subject else { return };
                app.connection(stream, Caller { user, groups }, Peer::default()).await;
            });
        }
    }

    /// The next connection; `None` when the server ends.
    async fn accept<T>(&self, accept: impl Future<Output = std::io::Result<T>>) -> Option<std::io::Result<T>> {
        tokio::select! {
            accepted = accept => {
                if let Err(e) = &accepted {
                    // Out of file descriptors, most likely: others have to end first.
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some(accepted)
            }
            () = self.shutdown.cancelled() => None,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    async fn connection<S>(self, stream: S, caller: Caller, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .half_close(self.half_close);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(60))
            .max_concurrent_streams(1000);
        let shutdown = self.shutdown.clone();
        let app = Arc::new(self);
        let caller = Arc::new(caller);
        let service = hyper::service::service_fn(move |request| {
            let (app, caller, peer) = (app.clone(), caller.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(app.request(request, &caller, peer).await) }
        });
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = done {
            tracing::debug!(error = %e, "a connection broke");
        }
    }

    async fn request(&self, request: Request<Incoming>, caller: &Caller, peer: Peer) -> Response {
        let id = format!("{:08x}-{}", self.boot, self.count.fetch_add(1, Ordering::Relaxed));
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(Shutdown(self.shutdown.clone()));
        let began = Instant::now();
        let answered = AssertUnwindSafe(self.router.clone().oneshot(request))
            .catch_unwind()
            .await;
        let mut response = match answered {
            Ok(Ok(r)) => r,
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!(%method, path, id, "a handler panicked");
                ApiError::internal(format!(
                    "the server failed on this request; its log has more under {id}"
                ))
                .into_response()
            }
        };
        let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
        if matches!(method, Method::GET | Method::HEAD) {
            tracing::debug!(%method, path, status, ms, id, user = caller.user, "request");
        } else {
            // The query and the headers may hold credentials and are left out.
            tracing::info!(target: "audit", user = caller.user, groups = caller.groups.join(","), %method, path, status, ms, id);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-request-id", id);
        }
        self.bounded(response, peer)
    }

    /// Ends endless bodies (watches, followed logs) with the server, and with their client.
    fn bounded(&self, response: Response, peer: Peer) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let shutdown = self.shutdown.clone().cancelled_owned();
        let over = Box::pin(async move {
            tokio::select! {
                () = shutdown => {}
                () = peer.gone() => {}
            }
        });
        response.map(|body| Body::from_stream(body.into_data_stream().take_until(over)))
    }
}
