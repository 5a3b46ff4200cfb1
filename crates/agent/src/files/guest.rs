//! Files of a microvm that runs: its init works on them, and speaks over the channel that execs use.
//!
//! What it says is a guest's word: sizes are bounded, and a tar from it is passed on as any stranger's.

use std::io::{BufReader, Read};
use std::sync::Arc;

use biga_image::ImageRecord;
use biga_image::files::compression::decompress;
use biga_image::files::unpack::RATIO;
use biga_image::files::{Change, ChangeKind, Error as Tree, Stat};
use biga_model::{Instance, Object};
use biga_wire::files::{self as wire, FileFault, FileWork, PathStat};
use biga_wire::shim::{Exit, Reply, Request};
use biga_wire::{Decoder, Frame, FrameKind, MAX_DATA};
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::pipe::{self, Incoming, PIECE, Patience, Pieces};
use super::{Error, Files, Put};
use crate::engine::Engine;
use crate::prepare::{self, FilesOf};
use crate::streams::Error as StreamError;

/// Most bytes of a list of changes.
const MAX_LIST: usize = 256 << 20;
/// Most bytes of what stands at a path, with its line end.
const MAX_STAT: usize = 64 << 10;
/// Most bytes of a reason.
const MAX_FAULT: usize = 64 << 10;
const SIGKILL: u32 = 9;

/// A microvm whose files are asked for.
pub(super) struct Guest {
    pub object: Object<Instance>,
    files: Files,
    engine: Arc<Engine>,
}

impl Files {
    /// The instance, where its own init is who works on its files.
    pub(super) async fn guest(&self, namespace: &str, name: &str) -> Result<Option<Guest>, Error> {
        let object = self.kept(namespace, name).await?;
        let inside = prepare::files_of(object.spec.isolation) == FilesOf::Inside;
        Ok(inside.then(|| Guest {
            object,
            files: self.clone(),
            engine: self.engine.clone(),
        }))
    }
}

impl Guest {
    /// The image that it runs.
    pub(super) fn image(&self) -> Result<ImageRecord, Error> {
        let status = self.object.status_or_default();
        if status.image_id.is_empty() {
            return Err(must_run(&format!("instance {} is not running", self.object.name())));
        }
        Ok(self.engine.image_of(&status)?)
    }

    pub(super) async fn stat(self, path: &str) -> Result<Stat, Error> {
        let path = path.to_owned();
        let text = self.ask(FileWork::Stat { path }).await?.whole(MAX_STAT).await?;
        stat(&text)
    }

    pub(super) async fn read(self, path: &str) -> Result<(Stat, Pieces), Error> {
        let path = path.to_owned();
        let mut talk = self.ask(FileWork::Read { path }).await?;
        let mut head = Vec::new();
        loop {
            if let Some(end) = head.iter().position(|b| *b == b'\n') {
                let rest = head.split_off(end + 1);
                head.truncate(end);
                let found = stat(&head)?;
                return Ok((found, talk.pieces(rest)));
            }
            match talk.next().await? {
                Some(piece) if head.len() + piece.len() <= MAX_STAT + MAX_DATA => head.extend_from_slice(&piece),
                _ => return Err(nonsense()),
            }
        }
    }

    /// Work whose outcome is a tar.
    pub(super) async fn tar(self, work: FileWork) -> Result<Pieces, Error> {
        let mut talk = self.ask(work).await?;
        // A failure before the first byte is the answer, not a broken stream.
        let first = talk.next().await?.unwrap_or_default();
        Ok(talk.pieces(first))
    }

    pub(super) async fn changes(self) -> Result<Vec<Change>, Error> {
        let text = self.ask(FileWork::Changes).await?.whole(MAX_LIST).await?;
        let list: Vec<wire::Change> = serde_json::from_slice(&text).map_err(|_| nonsense())?;
        Ok(list.into_iter().map(change).collect())
    }

    pub(super) async fn write<S>(self, path: &str, tar: S, put: Put) -> Result<(), Error>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let work = FileWork::Write {
            path: path.to_owned(),
            keep_kinds: put.keep_kinds,
            to_user: put.to_user,
        };
        let hold = Arc::new(self.engine.runs.hold(self.object.uid()).await);
        let patience = Patience::new(tokio::runtime::Handle::current(), hold);
        let Talk { mut from, to, .. } = self.ask(work).await?;
        let (packed, incoming) = mpsc::channel(pipe::QUEUE);
        let plain = unpacked(incoming, patience)?;
        let giving = async {
            let (fed, sent) = tokio::join!(pipe::feed(tar, packed), send_all(to, plain));
            let () = fed;
            sent
        };
        let hearing = from.end();
        tokio::pin!(giving, hearing);
        // The outcome counts, whether or not all was read; what broke on the way is more telling than what the guest makes of it.
        let broken = tokio::select! {
            done = &mut hearing => return done,
            sent = &mut giving => sent.err(),
        };
        let heard = hearing.await;
        broken.map_or(heard, Err)
    }

    /// Begins work inside; waits for one that starts at this moment.
    async fn ask(&self, work: FileWork) -> Result<Talk, Error> {
        let permit = self.files.permit().await?;
        let (namespace, name) = (self.object.metadata.namespace.as_deref(), self.object.name());
        let opened = self
            .files
            .streams
            .open(namespace.unwrap_or_default(), name, &Request::Files { work })
            .await;
        let io = opened.map_err(|e| match e {
            StreamError::State(why) => must_run(&why),
            e => e.into(),
        })?;
        let mut talk = Talk::new(io, permit);
        match talk.from.frame().await? {
            Some(f) if f.kind == FrameKind::Reply => match f.parse::<Reply>().map_err(|_| nonsense())? {
                Reply::Exec { .. } => Ok(talk),
                Reply::Error { code, message } => Err(StreamError::Refused { code, message }.into()),
                _ => Err(nonsense()),
            },
            _ => Err(nonsense()),
        }
    }
}

fn must_run(why: &str) -> Error {
    Error::State(format!(
        "{why}. The files of a microvm are on a disk that only its own kernel reads: it must run"
    ))
}

fn nonsense() -> Error {
    Error::Failed("the microvm's init gave an answer that makes no sense".into())
}

fn stat(text: &[u8]) -> Result<Stat, Error> {
    let s: PathStat = serde_json::from_slice(text).map_err(|_| nonsense())?;
    Ok(Stat {
        name: s.name,
        size: s.size,
        mode: s.mode,
        mtime: (s.mtime, s.mtime_nsec),
        link_target: s.link_target,
    })
}

fn change(c: wire::Change) -> Change {
    let kind = match c.kind {
        wire::ChangeKind::Modified => ChangeKind::Modified,
        wire::ChangeKind::Added => ChangeKind::Added,
        wire::ChangeKind::Deleted => ChangeKind::Deleted,
    };
    Change::told(c.path.trim_start_matches('/').as_bytes().to_vec(), kind)
}

/// What comes from a client, unpacked by a thread: a guest under an emulator is slow at that.
fn unpacked(
    from: mpsc::Receiver<std::io::Result<Bytes>>,
    patience: Patience,
) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, Error> {
    let (to, plain) = mpsc::channel(pipe::QUEUE);
    super::thread(move || {
        let incoming = BufReader::new(Incoming {
            from,
            patience,
            piece: Bytes::new(),
        });
        let mut source = match decompress(incoming, RATIO) {
            Ok(source) => source,
            Err(e) => return drop(to.blocking_send(Err(e))),
        };
        loop {
            let mut piece = vec![0; PIECE];
            let read = match source.read(&mut piece) {
                Ok(0) => return,
                Ok(n) => {
                    piece.truncate(n);
                    Ok(piece.into())
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let last = read.is_err();
            if to.blocking_send(read).is_err() || last {
                return;
            }
        }
    })?;
    Ok(plain)
}

/// Gives all of a tar to the guest. Where it breaks, the work is ended: half a tar may look whole.
async fn send_all(mut to: OwnedWriteHalf, mut plain: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = plain.recv().await {
        bytes.clear();
        match piece {
            Ok(piece) => Frame::new(FrameKind::Stdin, piece).encode(&mut bytes),
            Err(e) => {
                Frame::with_number(FrameKind::Signal, SIGKILL).encode(&mut bytes);
                // It may have ended by itself.
                let _ = to.write_all(&bytes).await;
                return Err(Error::Files(Tree::Stream(e)));
            }
        }
        if to.write_all(&bytes).await.is_err() {
            // Its end says why.
            return Ok(());
        }
    }
    bytes.clear();
    Frame::new(FrameKind::StdinEof, []).encode(&mut bytes);
    let _ = to.write_all(&bytes).await;
    // Half-closed, the connection would not take an answer.
    to.forget();
    Ok(())
}

/// A conversation with an init that works on files.
struct Talk {
    from: Heard,
    to: OwnedWriteHalf,
}

struct Heard {
    io: OwnedReadHalf,
    decoder: Decoder,
    /// The reason of a failure, as far as it came.
    fault: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Talk {
    fn new(io: UnixStream, permit: OwnedSemaphorePermit) -> Talk {
        let (io, to) = io.into_split();
        let from = Heard {
            io,
            decoder: Decoder::new(),
            fault: Vec::new(),
            _permit: permit,
        };
        Talk { from, to }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.from.next().await
    }

    /// All of a small output.
    async fn whole(mut self, max: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
            if all.len() > max {
                return Err(nonsense());
            }
        }
        Ok(all)
    }

    /// The output as it comes; an error is the last piece. Whoever leaves ends the work.
    fn pieces(mut self, first: Vec<u8>) -> Pieces {
        let (tx, pieces) = mpsc::channel(pipe::QUEUE);
        tokio::spawn(async move {
            let mut next = Ok(Some(first));
            loop {
                let sent = match next {
                    Ok(Some(piece)) if piece.is_empty() => Ok(()),
                    Ok(Some(piece)) => tx.send(Ok(piece.into())).await,
                    Ok(None) => return,
                    Err(e) => return drop(tx.send(Err(e)).await),
                };
                if sent.is_err() {
                    break;
                }
                next = tokio::select! {
                    next = self.next() => next,
                    () = tx.closed() => break,
                };
            }
            let mut bytes = Vec::new();
            Frame::with_number(FrameKind::Signal, SIGKILL).encode(&mut bytes);
            let _ = self.to.write_all(&bytes).await;
        });
        pieces
    }
}

impl Heard {
    async fn frame(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(f) = self.decoder.next_frame().map_err(|_| nonsense())? {
                return Ok(Some(f));
            }
            let mut buf = vec![0; PIECE];
            match self.io.read(&mut buf).await {
                Ok(0) => return Ok(None),
                Ok(n) => self.decoder.push(&buf[..n]),
                Err(e) => return Err(Error::Failed(format!("the connection to the microvm broke: {e}"))),
            }
        }
    }

    /// The next output; nothing after the work was done.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(f) = self.frame().await? {
            match f.kind {
                FrameKind::Stdout => return Ok(Some(f.payload)),
                FrameKind::Stderr if self.fault.len() + f.payload.len() <= MAX_FAULT => {
                    self.fault.extend_from_slice(&f.payload);
                }
                FrameKind::Exit => {
                    let exit: Exit = f.parse().map_err(|_| nonsense())?;
                    return match exit.code {
                        0 => Ok(None),
                        _ => Err(self.reason(&exit)),
                    };
                }
                _ => {}
            }
        }
        Err(Error::State("the microvm ended meanwhile".into()))
    }

    /// Waits for the end of work without output.
    async fn end(&mut self) -> Result<(), Error> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    fn reason(&self, exit: &Exit) -> Error {
        let Ok(fault) = serde_json::from_slice::<FileFault>(&self.fault) else {
            let why = exit.error.clone().unwrap_or_else(|| format!("code {}", exit.code));
            return Error::State(format!(
                "the work on files in the microvm was ended ({why}): does it still run?"
            ));
        };
        Error::Files(match fault {
            FileFault::NotFound(p) => Tree::NotFound(p),
            FileFault::NotADirectory(p) => Tree::NotADirectory(p),
            FileFault::InTheWay(p) => Tree::InTheWay(p),
            FileFault::ReadOnly(p) => Tree::ReadOnly(p),
            FileFault::Escape(p) => Tree::Escape(p),
            FileFault::Kernel(p) => Tree::Kernel(p),
            FileFault::TooMuch(p) => Tree::TooMuch(p),
            FileFault::Invalid(why) => return Error::Invalid(why),
            FileFault::Failed(why) => return Error::Failed(why),
        })
    }
}
