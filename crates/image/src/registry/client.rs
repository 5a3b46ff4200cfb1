//! Connections to registries: which address, which certificates, how often to try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};

use super::tls;
use crate::{Error, Options};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The longest pause a registry may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Shared by all pulls and pushes.
pub(crate) struct Client {
    certs_dir: PathBuf,
    insecure: Vec<String>,
    mirrors: std::collections::BTreeMap<String, Vec<String>>,
    pub(super) attempts: u32,
    backoff: Duration,
    pub(super) stall: Duration,
    /// By `host[:port]`, as each may have its own certificates; and whether for uploads, which are answered late.
    connections: Mutex<HashMap<(String, bool), reqwest::Client>>,
}

/// One request that can be sent again.
#[derive(Clone)]
pub(super) struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body,
    /// Not to be made again by itself: after a failure it would not mean the same.
    pub once: bool,
}

/// What a request carries.
#[derive(Clone)]
pub(super) enum Body {
    None,
    Bytes(Bytes),
    /// A file, and a count of the bytes sent so far.
    File {
        path: PathBuf,
        len: u64,
        sent: std::sync::Arc<std::sync::atomic::AtomicU64>,
    },
}

impl Client {
    pub(crate) fn new(options: &Options) -> Result<Client, Error> {
        Ok(Client {
            certs_dir: options.certs_dir.clone(),
            insecure: options.insecure_registries.clone(),
            mirrors: options.mirrors.clone(),
            attempts: options.attempts.max(1),
            backoff: options.backoff,
            stall: options.stall_timeout,
            connections: Mutex::default(),
        })
    }

    /// Base addresses to ask before the registry itself.
    pub(super) fn mirrors(&self, registry: &str) -> &[String] {
        self.mirrors.get(registry).map_or(&[], Vec::as_slice)
    }

    /// Whether plain HTTP may be spoken with this `host[:port]`.
    pub(super) fn plain_allowed(&self, host: &str, insecure: bool) -> bool {
        insecure || is_loopback(host) || self.insecure.iter().any(|i| i == host)
    }

    /// The base address of a registry. Where plain HTTP is allowed, TLS is tried first.
    pub(super) async fn base(&self, registry: &str, insecure: bool) -> Result<Url, Error> {
        let host = if registry == "docker.io" {
            "registry-1.docker.io"
        } else {
            registry
        };
        let https = parse(&format!("https://{host}/"))?;
        if !self.plain_allowed(host, insecure) || tls::is_set_up(&self.certs_dir.join(host)) {
            return Ok(https);
        }
        let probe = parse(&format!("https://{host}/v2/"))?;
        match self.connection(host, false)?.get(probe).send().await {
            Ok(_) => Ok(https),
            Err(_) => parse(&format!("http://{host}/")),
        }
    }

    /// Sends until an answer comes that is worth having; follows redirects.
    pub(super) async fn send(&self, request: &Request, insecure: bool) -> Result<reqwest::Response, Error> {
        let mut attempt = 1;
        loop {
            let last = request.once || attempt >= self.attempts;
            let wait = match self.send_once(request, insecure).await {
                Ok(response) if !is_transient(response.status()) || last => return Ok(response),
                Ok(response) => retry_after(&response).unwrap_or_else(|| self.pause(attempt)),
                Err(e) if !e.retryable() || last => return Err(e),
                Err(e) => {
                    tracing::debug!("try {attempt} failed: {e}");
                    self.pause(attempt)
                }
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// The body of what stands at an address that somebody gave by hand: plain HTTP is theirs to choose.
    pub(crate) async fn fetch(&self, address: &str) -> Result<reqwest::Response, Error> {
        let url = parse(address)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Invalid {
                what: format!("the address {address}"),
                why: "only http:// and https:// are fetched from".into(),
            });
        }
        let request = Request {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Body::None,
            once: false,
        };
        let response = self.send(&request, true).await?;
        match response.status() {
            s if s.is_success() => Ok(response),
            status => Err(Error::Unreachable {
                url: show(&request.url),
                why: format!("it answers {status}"),
            }),
        }
    }

    /// How long to wait after this try.
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        self.backoff.saturating_mul(1 << (attempt - 1).min(10)).min(MAX_BACKOFF)
    }

    async fn send_once(&self, request: &Request, insecure: bool) -> Result<reqwest::Response, Error> {
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let host = host_of(&url);
            if url.scheme() != "https" && !self.plain_allowed(&host, insecure && host == host_of(&request.url)) {
                return Err(Error::PlainHttp { url: show(&url) });
            }
            let upload = matches!(request.body, Body::File { .. });
            let mut builder = self
                .connection(&host, upload)?
                .request(request.method.clone(), url.clone());
            builder = builder.headers(headers.clone());
            builder = request.body.attach(builder).await?;
            let response = builder.send().await.map_err(|e| unreachable(&url, e))?;
            let may_follow = matches!(request.method, Method::GET | Method::HEAD)
                || response.status() == StatusCode::TEMPORARY_REDIRECT;
            let target = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            match target {
                Some(target) if response.status().is_redirection() && may_follow => {
                    let next = url.join(target).map_err(|e| Error::Invalid {
                        what: format!("the redirect from {}", show(&url)),
                        why: e.to_string(),
                    })?;
                    if host_of(&next) != host || next.scheme() != url.scheme() {
                        headers.remove(AUTHORIZATION);
                    }
                    url = next;
                }
                _ => return Ok(response),
            }
        }
        Err(Error::Invalid {
            what: show(&request.url),
            why: "it redirects without end".into(),
        })
    }

    /// The pool of connections to a `host[:port]`.
    pub(super) fn connection(&self, host: &str, upload: bool) -> Result<reqwest::Client, Error> {
        let key = (host.to_owned(), upload);
        if let Some(client) = self.connections.lock().get(&key) {
            return Ok(client.clone());
        }
        let certs = self.certs_dir.join(host);
        let mut builder = reqwest::Client::builder();
        if !upload {
            builder = builder.read_timeout(self.stall);
        }
        let client = builder
            .tls_backend_preconfigured(tls::config(&certs)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(15))
            .user_agent(concat!("biga/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::Unreachable {
                url: host.to_owned(),
                why: chain(&e),
            })?;
        Ok(self.connections.lock().entry(key).or_insert(client).clone())
    }
}

impl Body {
    async fn attach(&self, builder: reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, Error> {
        use futures_util::StreamExt;
        Ok(match self {
            Body::None => builder,
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::File { path, len, sent } => {
                let file = tokio::fs::File::open(path).await.map_err(Error::io("read", path))?;
                let sent = sent.clone();
                sent.store(0, std::sync::atomic::Ordering::Relaxed);
                let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).inspect(move |piece| {
                    if let Ok(piece) = piece {
                        sent.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    }
                });
                builder
                    .header(reqwest::header::CONTENT_LENGTH, *len)
                    .body(reqwest::Body::wrap_stream(stream))
            }
        })
    }
}

fn parse(text: &str) -> Result<Url, Error> {
    text.parse().map_err(|e| Error::Invalid {
        what: format!("the address {text}"),
        why: format!("{e}"),
    })
}

/// `host[:port]` of an address.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address for messages: without its query, which may hold a signature.
pub(super) fn show(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// Whether `host[:port]` is this host itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

pub(super) fn unreachable(url: &Url, e: reqwest::Error) -> Error {
    Error::Unreachable {
        url: show(url),
        why: chain(&e.without_url()),
    }
}

/// An error with all its causes.
pub(super) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = c.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for yes in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "localhost.example.org",
            "10.0.0.1",
            "[::2]:1",
            "127.0.0.1.example.org",
            "example.org",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let options = Options {
            backoff: Duration::from_millis(100),
            ..Options::default()
        };
        let client = Client::new(&options).unwrap();
        let all: Vec<u64> = (1..=5).map(|n| client.pause(n).as_millis() as u64).collect();
        assert_eq!(all, [100, 200, 400, 800, 1600]);
        assert_eq!((client.pause(9), client.pause(u32::MAX)), (MAX_BACKOFF, MAX_BACKOFF));
    }

    #[test]
    fn messages_hide_signatures() {
        let url: Url = "https://cdn.example/blob?X-Signature=secret".parse().unwrap();
        assert_eq!(show(&url), "https://cdn.example/blob");
    }
}
