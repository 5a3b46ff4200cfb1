//! Streams into an instance: wire frames in both directions over an upgraded HTTP/1.1 connection.
//!
//! ```text
//! POST …/instances/web/exec HTTP/1.1      HTTP/1.1 101 Switching Protocols
//! Connection: Upgrade                     Connection: Upgrade
//! Upgrade: biga-stream                    Upgrade: biga-stream
//!
//! [Request {"do":"exec", …}]        ──►
//!                                   ◄──   [Reply {"is":"exec","pid":42}]
//! [Stdin …] [Resize …] [StdinEof]   ──►
//!                                   ◄──   [Stdout …] [Stderr …] [Exit {"code":0}]
//! ```

use std::io;

use biga_model::Instance;
use biga_wire::shim::{ErrorCode, Reply, Request};
use biga_wire::{Decoder, Frame, FrameKind, MAX_DATA};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::http::request;
use crate::{Client, Error, ErrorKind, Resource};

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "biga-stream";

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// The daemon said no, or could not be reached.
    #[error(transparent)]
    Api(#[from] Error),
    /// The instance said no.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// An open stream.
#[derive(Debug)]
pub struct Duplex {
    /// The instance's answer: `Ok`, or `Exec` with the process id.
    pub reply: Reply,
    /// Frames that come.
    pub reader: Reader,
    /// Frames that go.
    pub writer: Writer,
}

/// Frames that come.
#[derive(Debug)]
pub struct Reader {
    io: ReadHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    buffer: Vec<u8>,
}

/// Frames that go.
#[derive(Debug)]
pub struct Writer {
    io: WriteHalf<TokioIo<Upgraded>>,
}

impl Client {
    /// Opens a stream into an instance. `verb` is `exec`, `attach` or `console`. Waits until the instance answered.
    pub async fn open_stream(
        &self,
        namespace: &str,
        name: &str,
        verb: &str,
        ask: &Request,
    ) -> Result<Duplex, StreamError> {
        let path = format!(
            "{}/{verb}",
            Resource::of::<Instance>().path(Some(namespace), Some(name))
        );
        let mut r = request(Method::POST, &path)?;
        r.headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        r.headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        let response = self.call(r).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::protocol(format!("the daemon did not open a stream for {verb}")).into());
        }
        let io = hyper::upgrade::on(response).await.map_err(|e| self.broken(&e))?;
        let (read, write) = tokio::io::split(TokioIo::new(io));
        let mut reader = Reader {
            io: read,
            decoder: Decoder::new(),
            buffer: vec![0; MAX_DATA],
        };
        let mut writer = Writer { io: write };
        let lost = |e: io::Error| StreamError::Api(self.broken(&e));
        let sent = writer.send(&Frame::json(FrameKind::Request, ask)).await;
        let reply = match reader.next().await.map_err(lost)? {
            Some(f) if f.kind == FrameKind::Reply => f.parse::<Reply>().map_err(lost)?,
            Some(f) if f.kind == FrameKind::Error => {
                return Err(StreamError::Api(Error::new(
                    ErrorKind::Internal,
                    String::from_utf8_lossy(&f.payload).into_owned(),
                )));
            }
            Some(f) => return Err(Error::protocol(format!("a stream began with a frame of kind {:?}", f.kind)).into()),
            // An answer that came before the request was read stands; only without one it matters that sending failed.
            None => {
                sent.map_err(lost)?;
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    format!("instance {name} closed the stream before it answered"),
                )
                .into());
            }
        };
        if let Reply::Error { code, message } = reply {
            return Err(StreamError::Refused { code, message });
        }
        Ok(Duplex { reply, reader, writer })
    }
}

impl Reader {
    /// The next frame; `None` where the stream ended.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(f) = self.decoder.next_frame()? {
                return Ok(Some(f));
            }
            match self.io.read(&mut self.buffer).await? {
                0 if self.decoder.pending() == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.decoder.push(&self.buffer[..n]),
            }
        }
    }
}

impl Writer {
    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(frame.payload.len() + biga_wire::frame::HEADER);
        frame.encode(&mut bytes);
        self.io.write_all(&bytes).await?;
        self.io.flush().await
    }

    /// Sends bytes for the process, in as many frames as they need.
    pub async fn stdin(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(MAX_DATA) {
            self.send(&Frame::new(FrameKind::Stdin, piece)).await?;
        }
        Ok(())
    }
}
