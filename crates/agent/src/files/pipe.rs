//! Bytes between a thread that works on files and the tasks that carry them.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Error;
use super::runs::Hold;

/// Bytes of one piece.
pub(super) const PIECE: usize = 64 << 10;
/// Pieces on their way.
pub(super) const QUEUE: usize = 4;
/// How long work on files may keep a run from beginning: work without a run while its client does not move, work on the
/// files of a run that is over in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pieces that a thread makes; an error is the last.
pub type Pieces = mpsc::Receiver<Result<Bytes, Error>>;

/// Who is kept waiting by a slow client.
#[derive(Clone)]
pub(super) struct Patience {
    handle: Handle,
    hold: Arc<Hold>,
    /// When somebody was first seen waiting.
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn new(handle: Handle, hold: Arc<Hold>) -> Patience {
        Patience {
            handle,
            hold,
            since: None,
        }
    }

    /// Before each piece: whether the work may go on.
    fn check(&mut self) -> io::Result<()> {
        if !self.hold.is_running() || !self.hold.is_wanted() {
            return Ok(());
        }
        match self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            true => Err(over()),
            false => Ok(()),
        }
    }

    /// Runs to the end what waits for a client, unless others wait too long for that.
    fn wait<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        let others = async {
            self.hold.wanted().await;
            tokio::time::sleep(PATIENCE).await;
        };
        self.handle.block_on(async {
            tokio::select! {
                biased;
                done = work => Ok(done),
                () = others => Err(over()),
            }
        })
    }
}

fn over() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "it took too long while the instance was to be started or removed",
    )
}

/// The thread's end of an outgoing stream.
pub(super) struct Outgoing {
    pub to: mpsc::Sender<Result<Bytes, Error>>,
    pub patience: Patience,
    buffer: BytesMut,
}

impl Outgoing {
    pub(super) fn new(to: mpsc::Sender<Result<Bytes, Error>>, patience: Patience) -> Outgoing {
        Outgoing {
            to,
            patience,
            buffer: BytesMut::with_capacity(PIECE),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.patience.check()?;
        let piece = self.buffer.split().freeze();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match self.to.try_send(Ok(piece)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
            Err(mpsc::error::TrySendError::Full(piece)) => self.patience.wait(self.to.send(piece))?.map_err(|_| gone()),
        }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// The thread's end of an incoming stream.
pub(super) struct Incoming {
    pub from: mpsc::Receiver<io::Result<Bytes>>,
    pub patience: Patience,
    pub piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            self.patience.check()?;
            let next = match self.from.try_recv() {
                Ok(next) => Some(next),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => self.patience.wait(self.from.recv())?,
            };
            match next {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(out.len());
        out[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}

/// Passes on what comes from a client, as far as it is wanted.
pub(super) async fn feed<S>(tar: S, to: mpsc::Sender<io::Result<Bytes>>)
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    let mut tar = std::pin::pin!(tar);
    while let Some(piece) = tar.next().await {
        if to.send(piece).await.is_err() {
            // It was refused; the rest is of no use.
            return;
        }
    }
}

/// An outgoing stream as something to read from, for another thread.
pub(super) struct Piped {
    pub from: Pieces,
    pub piece: Bytes,
}

impl Read for Piped {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(out.len());
        out[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}
