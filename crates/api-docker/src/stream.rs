//! Hijacked connections: bytes between a client and the shim, in either of Docker's two forms.
//!
//! With a terminal the output goes raw. Without one it is multiplexed: each piece has a header of eight bytes,
//! `[stream, 0, 0, 0, length (big-endian)]`, stream 1 being standard output and 2 standard error.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use biga_wire::shim::{Exit, Reply};
use biga_wire::{Decoder, Frame, FrameKind};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::backend::BoxedIo;
use crate::error::Error;

/// How output is written to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The bytes as they are.
    Raw,
    /// With headers.
    Multiplexed,
}

impl Format {
    pub fn of_tty(tty: bool) -> Format {
        if tty { Format::Raw } else { Format::Multiplexed }
    }

    /// The content type; before API 1.42 there was but one.
    pub fn content_type(self, named: bool) -> &'static str {
        match self {
            Format::Multiplexed if named => "application/vnd.docker.multiplexed-stream",
            _ => "application/vnd.docker.raw-stream",
        }
    }

    /// One piece of output.
    pub fn encode(self, kind: FrameKind, payload: &[u8], out: &mut Vec<u8>) {
        if self == Format::Multiplexed {
            let stream = if kind == FrameKind::Stderr { 2 } else { 1 };
            out.extend_from_slice(&[stream, 0, 0, 0]);
            out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        }
        out.extend_from_slice(payload);
    }
}

/// What the client reads from us and writes to us.
pub(crate) type ClientRead = Box<dyn AsyncRead + Send + Unpin>;
/// What the client reads from us and writes to us.
pub(crate) type ClientWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// How long docker-py gets to read the headers of an answer.
const READS_HEADERS_WITHIN: std::time::Duration = std::time::Duration::from_millis(100);

/// docker-py (docker-compose 1 and Testcontainers for Python are made with it) reads headers through a buffer and then goes on without it: bytes that
/// came together with the headers are lost to it. Docker's daemon takes this long to start anything.
fn reads_ahead(headers: &http::HeaderMap) -> bool {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    ["docker-sdk-python/", "docker-py/", "tc-python/"]
        .iter()
        .any(|a| agent.contains(a))
}

/// Answers a request by a stream in both directions: the connection itself where the client asks for an upgrade, else
/// the request's and the answer's bodies. `run` gets the stream in a task of its own.
pub(crate) fn hijack<F, Fut>(request: Request, content_type: &'static str, run: F) -> Response
where
    F: FnOnce(ClientRead, ClientWrite) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (mut parts, body) = request.into_parts();
    let hasty = reads_ahead(&parts.headers);
    let wants = parts.headers.get(header::UPGRADE).is_some();
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| wants);
    let mut response = Response::new(Body::empty());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let Some(upgrade) = upgrade else {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let input = body.into_data_stream().map(|r| r.map_err(std::io::Error::other));
        let (read, taken) = tokio::sync::oneshot::channel();
        let ours = Piece {
            pipe: ours,
            taken: Some(taken),
        };
        tokio::spawn(async move { run(Box::new(StreamReader::new(input)), Box::new(ours)).await });
        let body = ReaderStream::new(theirs).inspect(move |_| {
            // Goes with the body.
            let _ = &read;
        });
        *response.body_mut() = Body::from_stream(body);
        return response;
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => {
                if hasty {
                    tokio::time::sleep(READS_HEADERS_WITHIN).await;
                }
                let (r, w) = tokio::io::split(TokioIo::new(io));
                run(Box::new(r), Box::new(w)).await;
            }
            Err(e) => tracing::debug!("a client left before its stream began: {e}"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response
        .headers_mut()
        .insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// The end of an answer's body that is written: it is shut down once the connection has taken all of it.
struct Piece {
    pipe: tokio::io::DuplexStream,
    taken: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl AsyncWrite for Piece {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.pipe).poll_shutdown(cx))?;
        if let Some(taken) = &mut self.taken {
            let _ = std::task::ready!(Pin::new(taken).poll(cx));
            self.taken = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream of the shim whose first answer was read.
pub(crate) struct ShimStream {
    io: BoxedIo,
    decoder: Decoder,
}

impl ShimStream {
    /// Reads the shim's answer to the first request.
    pub async fn begin(mut io: BoxedIo) -> std::io::Result<(Reply, ShimStream)> {
        let mut decoder = Decoder::new();
        match next_frame(&mut io, &mut decoder).await? {
            Some(f) if f.kind == FrameKind::Reply => Ok((f.parse()?, ShimStream { io, decoder })),
            Some(f) => Err(std::io::Error::other(format!(
                "the shim answered by a frame of kind {:?}",
                f.kind
            ))),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &Frame) -> std::io::Result<()> {
        send(&mut self.io, frame).await
    }
}

async fn next_frame(io: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> std::io::Result<Option<Frame>> {
    let mut buf = vec![0u8; 64 << 10];
    loop {
        if let Some(f) = decoder.next_frame()? {
            return Ok(Some(f));
        }
        match io.read(&mut buf).await? {
            0 => return Ok(None),
            n => decoder.push(&buf[..n]),
        }
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> std::io::Result<()> {
    let mut buf = Vec::new();
    frame.encode(&mut buf);
    io.write_all(&buf).await
}

/// What passes between a client and a process.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How output is written.
    pub format: Format,
    /// Whether the client wants standard output.
    pub stdout: bool,
    /// Whether the client wants standard error.
    pub stderr: bool,
    /// Whether the client's input goes to the process.
    pub stdin: bool,
    /// Whether the end of the client's input ends that of the process.
    pub stdin_eof: bool,
    /// Keys that leave the process alone, where the client has a terminal.
    pub detach: Option<Vec<u8>>,
    /// Whether to go on reading when the client is gone, to learn the exit code.
    pub drain: bool,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The process ended.
    Exit(Exit),
    /// The client typed the keys that leave it.
    Detached,
    /// The shim or the client is gone.
    Lost,
}

/// Copies until the process ends or the client leaves. `ended` is told how it went before the client sees the end of the
/// stream: who asks for an exit code then must find it. Where the plan drains it is told of a client that left, and then of the
/// end of the process.
pub(crate) async fn pump(
    shim: ShimStream,
    plan: &Plan,
    mut client_read: ClientRead,
    mut client_write: ClientWrite,
    frames: mpsc::Receiver<Frame>,
    mut ended: impl FnMut(&End),
) {
    let (mut from_shim, to_shim) = tokio::io::split(shim.io);
    let mut decoder = shim.decoder;
    let end = {
        let output = output(&mut from_shim, &mut decoder, plan, &mut client_write);
        let input = input(&mut client_read, to_shim, plan, frames);
        tokio::select! {
            end = output => end,
            () = input => End::Detached,
        }
    };
    if plan.drain && matches!(end, End::Detached) {
        ended(&end);
        let _ = client_write.shutdown().await;
        return ended(&drain(&mut from_shim, &mut decoder).await);
    }
    ended(&end);
    let _ = client_write.shutdown().await;
    tokio::spawn(read_away(client_read));
}

/// How long a client may take to see the end.
const SEES_THE_END_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Reads what a client typed ahead. A connection that is closed with something unread is reset, and the client would complain of
/// that rather than take the end for one.
async fn read_away(mut client: ClientRead) {
    let mut nowhere = tokio::io::sink();
    let reading = tokio::io::copy(&mut client, &mut nowhere);
    let _ = tokio::time::timeout(SEES_THE_END_WITHIN, reading).await;
}

async fn output(
    shim: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    plan: &Plan,
    client: &mut ClientWrite,
) -> End {
    let mut out = Vec::new();
    let mut gone = false;
    loop {
        let frame = match next_frame(shim, decoder).await {
            Ok(Some(f)) => f,
            Ok(None) | Err(_) => return End::Lost,
        };
        out.clear();
        match frame.kind {
            FrameKind::Stdout if plan.stdout => plan.format.encode(frame.kind, &frame.payload, &mut out),
            FrameKind::Stderr if plan.stderr => plan.format.encode(frame.kind, &frame.payload, &mut out),
            FrameKind::Exit => return frame.parse().map_or(End::Lost, End::Exit),
            FrameKind::Error => {
                plan.format.encode(FrameKind::Stderr, &frame.payload, &mut out);
                let _ = client.write_all(&out).await;
                return End::Lost;
            }
            _ => {}
        }
        if !gone && !out.is_empty() && write(client, &out).await.is_err() {
            if !plan.drain {
                return End::Lost;
            }
            gone = true;
        }
    }
}

async fn write(client: &mut ClientWrite, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await
}

/// Reads on without a client until the process ends.
pub(crate) async fn drain(shim: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> End {
    loop {
        match next_frame(shim, decoder).await {
            Ok(Some(f)) if f.kind == FrameKind::Exit => return f.parse().map_or(End::Lost, End::Exit),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return End::Lost,
        }
    }
}

/// Reads on without any client. `frames` still reach the process.
pub(crate) async fn run_detached(shim: ShimStream, mut frames: mpsc::Receiver<Frame>) -> End {
    let (mut from_shim, mut to_shim) = tokio::io::split(shim.io);
    let mut decoder = shim.decoder;
    let pass = async {
        while let Some(f) = frames.recv().await {
            if send(&mut to_shim, &f).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = drain(&mut from_shim, &mut decoder) => end,
        () = pass => End::Lost,
    }
}

/// Returns only when the client typed the keys to leave.
async fn input(
    client: &mut ClientRead,
    mut shim: impl AsyncWrite + Unpin,
    plan: &Plan,
    mut frames: mpsc::Receiver<Frame>,
) {
    let mut buf = vec![0u8; 32 << 10];
    let mut keys = plan.detach.as_deref().map(DetachKeys::new);
    let mut reading = plan.stdin || keys.is_some();
    let mut framing = true;
    while reading || framing {
        tokio::select! {
            // What is typed after a window was resized must find it so.
            biased;
            f = frames.recv(), if framing => match f {
                Some(f) => framing = send(&mut shim, &f).await.is_ok(),
                None => framing = false,
            },
            n = client.read(&mut buf), if reading => {
                let n = n.unwrap_or(0);
                if n == 0 {
                    reading = false;
                    if plan.stdin && plan.stdin_eof && send(&mut shim, &Frame::new(FrameKind::StdinEof, [])).await.is_err() {
                        break;
                    }
                    continue;
                }
                let (bytes, leave) = match &mut keys {
                    Some(k) => k.pass(&buf[..n]),
                    None => (buf[..n].to_vec(), false),
                };
                if plan.stdin && !bytes.is_empty() {
                    let mut failed = false;
                    for piece in bytes.chunks(biga_wire::MAX_DATA) {
                        failed |= send(&mut shim, &Frame::new(FrameKind::Stdin, piece)).await.is_err();
                    }
                    reading &= !failed;
                }
                if leave {
                    return;
                }
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Watches typed bytes for the keys that leave.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    held: usize,
}

/// Control-P, control-Q.
pub(crate) const DEFAULT_KEYS: &[u8] = &[16, 17];

impl DetachKeys {
    fn new(keys: &[u8]) -> DetachKeys {
        DetachKeys {
            keys: keys.to_vec(),
            held: 0,
        }
    }

    /// What passes on, and whether the keys were complete. Keys that begin a match are held back until it fails.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for b in typed {
            if self.keys.get(self.held) == Some(b) {
                self.held += 1;
                if self.held == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.held]);
            self.held = usize::from(self.keys.first() == Some(b));
            if self.held == 0 {
                out.push(*b);
            }
        }
        (out, false)
    }
}

/// Reads `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`.
pub(crate) fn parse_keys(text: &str) -> Result<Vec<u8>, Error> {
    let one = |word: &str| -> Option<u8> {
        if let Some(c) = word.strip_prefix("ctrl-") {
            let [c] = c.as_bytes() else { return None };
            return match c {
                b'a'..=b'z' => Some(c - b'a' + 1),
                b'@' => Some(0),
                b'[' => Some(27),
                b'\\' => Some(28),
                b']' => Some(29),
                b'^' => Some(30),
                b'_' => Some(31),
                _ => None,
            };
        }
        match word.as_bytes() {
            [b] => Some(*b),
            b"DEL" => Some(127),
            _ => None,
        }
    };
    text.split(',').map(one).collect::<Option<_>>().ok_or_else(|| {
        Error::bad(format!(
            "invalid detach keys ({text}) provided: write them as in ctrl-p,ctrl-q"
        ))
    })
}

/// Turns wire frames that come in any pieces into output for the client.
pub(crate) struct Recoder {
    decoder: Decoder,
    format: Format,
}

impl Recoder {
    pub fn new(format: Format) -> Recoder {
        Recoder {
            decoder: Decoder::new(),
            format,
        }
    }

    /// Output for the frames that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> std::io::Result<Bytes> {
        self.decoder.push(bytes);
        let mut out = Vec::new();
        while let Some(f) = self.decoder.next_frame()? {
            if matches!(f.kind, FrameKind::Stdout | FrameKind::Stderr) {
                self.format.encode(f.kind, &f.payload, &mut out);
            }
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_false_starts_pass() {
        let mut k = DetachKeys::new(DEFAULT_KEYS);
        assert_eq!(k.pass(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(k.pass(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(k.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(k.pass(b"\x11rest"), (Vec::new(), true));
        let mut none = DetachKeys::new(&[]);
        assert_eq!(none.pass(b"abc"), (b"abc".to_vec(), false));
    }

    #[test]
    fn detach_keys_by_name() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q").unwrap(), DEFAULT_KEYS);
        assert_eq!(parse_keys("a,ctrl-@,ctrl-]").unwrap(), [b'a', 0, 29]);
        for bad in ["", "ctrl-", "ctrl-1", "abc", "a,,b"] {
            assert!(parse_keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn frames_become_docker_s_pieces() {
        let mut bytes = Vec::new();
        Frame::new(FrameKind::Stdout, *b"hi").encode(&mut bytes);
        Frame::new(FrameKind::Stderr, *b"no").encode(&mut bytes);
        let mut r = Recoder::new(Format::Multiplexed);
        let mut out = Vec::new();
        for b in &bytes {
            out.extend_from_slice(&r.push(&[*b]).unwrap());
        }
        assert_eq!(out, b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x02no");
        assert_eq!(Recoder::new(Format::Raw).push(&bytes).unwrap(), &b"hino"[..]);
    }
}
