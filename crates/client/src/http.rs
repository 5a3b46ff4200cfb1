//! Requests and answers over the daemon's socket.
//!
//! A connection whose answer was read is kept for the next request that can take it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use biga_model::Kind;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{Api, Endpoint, Error, ErrorKind, RawApi, Resource};

/// Largest answer that is held in memory: a list of tens of thousands of objects.
const MAX_ANSWER: usize = 512 << 20;
/// Largest line of a stream of JSON lines: one object.
const MAX_LINE: usize = 16 << 20;

/// The body of a request.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// A connection to a daemon. Cheap to clone; connects at each call.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    user_agent: String,
    /// A connection that waits for a request.
    idle: Mutex<Option<Sender>>,
}

type Sender = hyper::client::conn::http1::SendRequest<Body>;

impl Client {
    /// A client of the daemon at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Client {
        Client {
            inner: Arc::new(Inner {
                endpoint,
                user_agent: format!("biga/{}", env!("CARGO_PKG_VERSION")),
                idle: Mutex::default(),
            }),
        }
    }

    /// A client of the daemon that `BIGA_HOST` names, or of the default one.
    pub fn from_env() -> Result<Client, Error> {
        Ok(Client::new(Endpoint::from_env()?))
    }

    /// Where the daemon is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Objects of kind `K` in `namespace` (ignored for kinds that have none).
    pub fn api<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::new(self.clone(), namespace)
    }

    /// Objects of kind `K` in all namespaces, to list and watch.
    pub fn api_all<K: Kind>(&self) -> Api<K> {
        Api::all(self.clone())
    }

    /// Objects of a kind known only at run time.
    pub fn raw(&self, resource: Resource, namespace: Option<&str>) -> RawApi {
        RawApi::new(self.clone(), resource, namespace.map(str::to_string))
    }

    /// Connects, without saying anything.
    pub async fn connect(&self) -> Result<UnixStream, Error> {
        let Endpoint::Unix(path) = &self.inner.endpoint;
        UnixStream::connect(path).await.map_err(|e| {
            let at = &self.inner.endpoint;
            let hint = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "is `biga serve` running?".to_string(),
                io::ErrorKind::PermissionDenied => "may you use its socket? It belongs to root.".to_string(),
                _ => e.to_string(),
            };
            Error::new(
                ErrorKind::Unreachable,
                format!("cannot connect to the Biga daemon at {at}: {hint}"),
            )
        })
    }

    /// Sends a request and gives its answer, whatever its status, and what sends the next one on its connection.
    async fn send(&self, mut request: Request<Body>) -> Result<(Response<Incoming>, Sender), Error> {
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("biga"));
        if let Ok(v) = HeaderValue::from_str(&self.inner.user_agent) {
            headers.insert(header::USER_AGENT, v);
        }
        if let Some(done) = self.send_again(&request).await {
            return Ok(done);
        }
        let stream = self.connect().await?;
        let broke = |e: hyper::Error| self.broken(&e);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        // Lives until the answer's body (or the upgraded stream) ends and nobody can send on it.
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!("connection to the daemon: {e}");
            }
        });
        let response = sender.send_request(request).await.map_err(broke)?;
        Ok((response, sender))
    }

    /// Sends a request on the connection of the one before. `None` where there is none or it broke: it may have been closed
    /// meanwhile, so only what can be sent twice goes this way.
    async fn send_again(&self, request: &Request<Body>) -> Option<(Response<Incoming>, Sender)> {
        let twice = request.method() == Method::GET || request.headers().contains_key(header::UPGRADE);
        let mut sender = twice.then(|| self.idle().take()).flatten()?;
        let mut copy = Request::new(empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        sender.ready().await.ok()?;
        let response = sender.send_request(copy).await.ok()?;
        Some((response, sender))
    }

    fn idle(&self) -> MutexGuard<'_, Option<Sender>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broken(&self, e: &dyn std::error::Error) -> Error {
        let mut text = e.to_string();
        let mut source = e.source();
        while let Some(s) = source {
            text = format!("{text}: {s}");
            source = s.source();
        }
        Error::new(
            ErrorKind::Unreachable,
            format!(
                "the connection to the Biga daemon at {} broke: {text}",
                self.inner.endpoint
            ),
        )
    }

    /// Sends a request and gives its answer if it succeeded, else the error it carries.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        Ok(self.exchange(request).await?.0)
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(Response<Incoming>, Sender), Error> {
        let (response, sender) = self.send(request).await?;
        let code = response.status();
        if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
            return Ok((response, sender));
        }
        let body = self.collect(response.into_body()).await?;
        Err(Error::from_response(code.as_u16(), &body))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Error> {
        let limited = http_body_util::Limited::new(body, MAX_ANSWER);
        match limited.collect().await {
            Ok(b) => Ok(b.to_bytes()),
            Err(e) => Err(self.broken(&*e)),
        }
    }

    /// Sends a request and reads its answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Error> {
        let what = format!("{} {}", request.method(), request.uri());
        let (response, sender) = self.exchange(request).await?;
        let body = self.collect(response.into_body()).await?;
        *self.idle() = Some(sender);
        serde_json::from_slice(&body).map_err(|e| {
            Error::protocol(format!(
                "the answer to {what} cannot be read ({e}): client and daemon may be of different versions"
            ))
        })
    }

    /// Sends a request and gives the bytes of its answer as they come.
    pub(crate) async fn bytes(&self, request: Request<Body>) -> Result<ByteStream, Error> {
        Ok(self.bytes_with_headers(request).await?.1)
    }

    /// The same, with the answer's headers.
    pub(crate) async fn bytes_with_headers(
        &self,
        request: Request<Body>,
    ) -> Result<(http::HeaderMap, ByteStream), Error> {
        let (parts, inner) = self.call(request).await?.into_parts();
        let client = self.clone();
        Ok((parts.headers, ByteStream { client, inner }))
    }

    /// `GET path` as text, for `/healthz` and `/version`.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let response = self.call(request(Method::GET, path)?).await?;
        let body = self.collect(response.into_body()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// `GET path` as JSON.
    pub async fn get_json(&self, path: &str) -> Result<Value, Error> {
        self.json(request(Method::GET, path)?).await
    }
}

/// A request without body.
pub(crate) fn request(method: Method, path: &str) -> Result<Request<Body>, Error> {
    build(method, path, None, empty())
}

/// A request with JSON.
pub(crate) fn request_json(
    method: Method,
    path: &str,
    content_type: &'static str,
    body: &impl Serialize,
) -> Result<Request<Body>, Error> {
    let body = serde_json::to_vec(body).map_err(|e| Error::protocol(format!("what is sent to {path}: {e}")))?;
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    build(method, path, Some(content_type), body)
}

/// A request whose body is a stream of bytes.
pub(crate) fn request_stream<S>(method: Method, path: &str, body: S) -> Result<Request<Body>, Error>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
{
    let body = BodyExt::boxed(StreamBody::new(body.map(|b| b.map(Frame::data))));
    build(method, path, Some("application/octet-stream"), body)
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed()
}

fn build(method: Method, path: &str, content_type: Option<&'static str>, body: Body) -> Result<Request<Body>, Error> {
    let mut r = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json");
    if let Some(t) = content_type {
        r = r.header(header::CONTENT_TYPE, t);
    }
    r.body(body)
        .map_err(|e| Error::new(ErrorKind::Usage, format!("{path:?} cannot be asked for: {e}")))
}

/// The bytes of an answer as they come.
#[derive(Debug)]
pub struct ByteStream {
    client: Client,
    inner: Incoming,
}

impl Stream for ByteStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        use hyper::body::Body as _;
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(self.client.broken(&e)))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

impl ByteStream {
    /// The lines of the answer, each as JSON.
    pub fn json_lines<T: DeserializeOwned>(self) -> JsonLines<T> {
        JsonLines {
            lines: Lines::new(),
            bytes: self,
            ended: false,
            item: std::marker::PhantomData,
        }
    }
}

/// Lines of JSON as they come.
#[derive(Debug)]
pub struct JsonLines<T> {
    lines: Lines,
    bytes: ByteStream,
    ended: bool,
    item: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(line) = self.lines.next_line(self.ended) {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| Error::protocol(format!("a line of the daemon's answer cannot be read: {e}")));
            }
            if self.ended {
                return Ok(None);
            }
            match self.bytes.next().await {
                None => self.ended = true,
                Some(b) => self.lines.push(&b?)?,
            }
        }
    }
}

/// Cuts bytes into lines, whatever pieces they arrive in.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// No newline in so many bytes from the start.
    searched: usize,
}

impl Lines {
    fn new() -> Lines {
        Lines::default()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > MAX_LINE && !self.buffer.contains(&b'\n') {
            return Err(Error::protocol(format!(
                "a line of the daemon's answer is longer than {MAX_LINE} bytes"
            )));
        }
        Ok(())
    }

    /// The next line without its newline; at the end also what is left without one.
    fn next_line(&mut self, ended: bool) -> Option<BytesMut> {
        match self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            Some(i) => {
                let mut line = self.buffer.split_to(self.searched + i + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                Some(line)
            }
            None if ended && !self.buffer.is_empty() => {
                self.searched = 0;
                Some(self.buffer.split())
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_arrive_whole_in_any_pieces(lines in prop::collection::vec("[a-z]{0,20}", 0..20), piece in 1usize..30, last in any::<bool>()) {
            let mut text = lines.join("\n");
            if last { text.push('\n'); }
            let mut expected: Vec<String> = text.split('\n').map(str::to_string).collect();
            if expected.last().is_some_and(String::is_empty) { expected.pop(); }
            let mut l = Lines::new();
            let mut got = Vec::new();
            for p in text.as_bytes().chunks(piece) {
                l.push(p).unwrap();
                while let Some(line) = l.next_line(false) { got.push(String::from_utf8(line.to_vec()).unwrap()); }
            }
            while let Some(line) = l.next_line(true) { got.push(String::from_utf8(line.to_vec()).unwrap()); }
            prop_assert_eq!(got, expected);
        }
    }
}
