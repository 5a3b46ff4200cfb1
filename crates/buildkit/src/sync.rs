//! Files from the client: it sends what is in a directory, one packet a name, and then the bytes of those that are asked for.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::{Status, Streaming};

use crate::ByteStream;
use crate::engine::{Fault, FaultKind};
use crate::proto::session::{Packet, PacketKind, Stat};
use crate::session::Session;

pub mod send;
pub mod tar;
#[cfg(test)]
mod tests;

/// Most names of one directory tree.
const MAX_NAMES: usize = 2 << 20;
/// What their names may take, in bytes.
const MAX_NAME_BYTES: usize = 256 << 20;
/// Longest path, and target of a link.
const MAX_PATH: usize = 4096;
/// A file of up to so many bytes is read whole before it is passed on, so that several can be asked for at once.
const SMALL: u64 = 1 << 20;
/// Small files that are asked for at once.
const AHEAD: usize = 16;
/// Pieces that may wait.
const QUEUE: usize = 64;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// Which files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The client's name of the directory.
    pub dir: String,
    /// Only these, and where they lead.
    pub follow: Vec<String>,
    /// Rules as in `.dockerignore`.
    pub exclude: Vec<String>,
}

/// What comes of it, in order: an entry, and behind a file's entry its bytes.
#[derive(Debug)]
pub enum Piece {
    /// A name.
    Entry {
        /// What is said of it.
        stat: Stat,
        /// How many bytes follow.
        size: u64,
    },
    /// Bytes.
    Data(Bytes),
    /// Nothing more comes.
    Failed(Fault),
}

/// Whether something is a file with bytes of its own.
pub(crate) fn is_plain(stat: &Stat) -> bool {
    mode::kind(stat.mode) == mode::Kind::File && stat.linkname.is_empty()
}

/// The bits of Go's `os.FileMode`.
pub mod mode {
    /// What something is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[expect(missing_docs, reason = "file types")]
    pub enum Kind {
        File,
        Dir,
        Symlink,
        Fifo,
        Char,
        Block,
        Other,
    }

    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const FIFO: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    const IRREGULAR: u32 = 1 << 19;

    /// Of these bits.
    pub fn kind(bits: u32) -> Kind {
        match bits & (DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR | IRREGULAR) {
            0 => Kind::File,
            DIR => Kind::Dir,
            SYMLINK => Kind::Symlink,
            FIFO => Kind::Fifo,
            DEVICE => Kind::Block,
            b if b == DEVICE | CHAR => Kind::Char,
            _ => Kind::Other,
        }
    }

    /// As the kernel has it, without the kind.
    pub fn permissions(bits: u32) -> u32 {
        let bit = |go: u32, kernel: u32| if bits & go != 0 { kernel } else { 0 };
        (bits & 0o777) | bit(SETUID, 0o4000) | bit(SETGID, 0o2000) | bit(STICKY, 0o1000)
    }

    /// Go's bits of a kind and the kernel's permissions.
    pub fn bits(kind: Kind, permissions: u32) -> u32 {
        let of_kind = match kind {
            Kind::File => 0,
            Kind::Dir => DIR,
            Kind::Symlink => SYMLINK,
            Kind::Fifo => FIFO,
            Kind::Char => DEVICE | CHAR,
            Kind::Block => DEVICE,
            Kind::Other => IRREGULAR,
        };
        let bit = |kernel: u32, go: u32| if permissions & kernel != 0 { go } else { 0 };
        of_kind | (permissions & 0o777) | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
    }
}

/// Whether a path stays where it belongs: relative, without `.` and `..`.
pub(crate) fn check_path(path: &[u8]) -> Result<(), Fault> {
    let odd = |part: &[u8]| matches!(part, b"" | b"." | b"..");
    let bad = path.len() > MAX_PATH || path.contains(&0) || path.split(|b| *b == b'/').any(odd);
    match bad {
        true => Err(Fault::invalid(format!(
            "the client sent a path that is refused: {:?}",
            String::from_utf8_lossy(&path[..path.len().min(200)])
        ))),
        false => Ok(()),
    }
}

fn broken(why: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Failed, format!("the client's files cannot be read: {why}"))
}

fn metadata(files: &Files) -> Result<MetadataMap, Fault> {
    let mut map = MetadataMap::new();
    let lists = [
        ("dir-name", std::slice::from_ref(&files.dir)),
        ("followpaths", &files.follow[..]),
        ("exclude-patterns", &files.exclude[..]),
    ];
    for (key, values) in lists {
        let encode = values.iter().any(|v| !v.bytes().all(|b| (b' '..=b'~').contains(&b)));
        for value in values {
            let value = match encode {
                true => escaped(value),
                false => value.clone(),
            };
            let value = MetadataValue::try_from(value).map_err(|_| broken(format!("bad pattern in {key}")))?;
            map.append(key, value);
        }
        if encode {
            let name = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes()).map_err(broken)?;
            map.insert(name, MetadataValue::from_static("1"));
        }
    }
    Ok(map)
}

/// As in the query of an address.
fn escaped(text: &str) -> String {
    let one = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
        b' ' => "+".into(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Asks for files. Pieces come as they arrive; `bytes` counts them.
pub fn ask(session: Arc<Session>, files: Files, bytes: Arc<AtomicU64>) -> mpsc::Receiver<Piece> {
    let (tx, rx) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = exchange(&session, &files, &tx, &bytes) => outcome,
            // Nobody listens any more.
            () = tx.closed() => return,
            () = session.gone.cancelled() => Err(Fault::new(FaultKind::Cancelled, "the client is gone")),
        };
        if let Err(e) = outcome {
            let _ = tx.send(Piece::Failed(e)).await;
        }
    });
    rx
}

async fn exchange(session: &Session, files: &Files, out: &mpsc::Sender<Piece>, bytes: &AtomicU64) -> Result<(), Fault> {
    let (tx, rx) = mpsc::channel::<Packet>(AHEAD * 2);
    let begun = session.stream(DIFF_COPY, metadata(files)?, ReceiverStream::new(rx));
    let packets: Streaming<Packet> = begun.await.map_err(|s| broken(s.message()))?;
    receive(packets, tx, out, bytes).await
}

/// The exchange of packets, whatever they come by.
async fn receive(
    packets: impl Stream<Item = Result<Packet, Status>> + Unpin,
    requests: mpsc::Sender<Packet>,
    out: &mpsc::Sender<Piece>,
    bytes: &AtomicU64,
) -> Result<(), Fault> {
    let mut client = Client {
        packets,
        requests,
        open: HashMap::new(),
        bytes,
    };
    let stats = client.stats().await?;
    client.pass_on(stats, out).await?;
    let finish = Packet {
        kind: PacketKind::Finish.into(),
        ..Packet::default()
    };
    client.send(finish).await?;
    // It says that it is done, too; whoever goes without a word is done as well.
    while let Some(Ok(p)) = client.packets.next().await {
        if p.kind == i32::from(PacketKind::Finish) {
            break;
        }
    }
    Ok(())
}

/// A client that sends.
struct Client<'a, S> {
    packets: S,
    requests: mpsc::Sender<Packet>,
    /// Small files that were asked for: what came of them, and whether it is all.
    open: HashMap<u32, (Vec<u8>, bool)>,
    bytes: &'a AtomicU64,
}

impl<S: Stream<Item = Result<Packet, Status>> + Unpin> Client<'_, S> {
    async fn send(&self, packet: Packet) -> Result<(), Fault> {
        self.requests.send(packet).await.map_err(|_| broken("it went away"))
    }

    async fn next(&mut self) -> Result<Packet, Fault> {
        let packet = self.packets.next().await;
        let packet = packet
            .ok_or_else(|| broken("it went away"))?
            .map_err(|s| broken(s.message()))?;
        match PacketKind::try_from(packet.kind) {
            Ok(PacketKind::Error) => Err(broken(String::from_utf8_lossy(&packet.data))),
            Ok(_) => Ok(packet),
            Err(_) => Err(broken(format!("a packet of kind {}", packet.kind))),
        }
    }

    /// All names, with their numbers.
    async fn stats(&mut self) -> Result<Vec<Stat>, Fault> {
        let mut all = Vec::new();
        let mut size = 0;
        loop {
            let packet = self.next().await?;
            if packet.kind != i32::from(PacketKind::Stat) {
                return Err(broken("it sent bytes that nobody asked for"));
            }
            let Some(stat) = packet.stat else { return Ok(all) };
            check(&stat)?;
            let xattrs: usize = stat.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
            size += stat.path.len() + stat.linkname.len() + xattrs + 64;
            if all.len() >= MAX_NAMES || size > MAX_NAME_BYTES {
                return Err(broken("there are more names than can be kept"));
            }
            all.push(stat);
        }
    }

    async fn request(&self, id: u32) -> Result<(), Fault> {
        let packet = Packet {
            kind: PacketKind::Request.into(),
            id,
            ..Packet::default()
        };
        self.send(packet).await
    }

    /// Bytes of a file; nothing at its end.
    async fn data(&mut self) -> Result<(u32, Bytes), Fault> {
        let packet = self.next().await?;
        if packet.kind != i32::from(PacketKind::Data) {
            return Err(broken("it sent something else than the bytes that were asked for"));
        }
        self.bytes.fetch_add(packet.data.len() as u64, Ordering::Relaxed);
        Ok((packet.id, packet.data))
    }

    /// Bytes of a small file that was asked for.
    fn take_in(&mut self, id: u32, data: &Bytes) -> Result<(), Fault> {
        let file = self.open.get_mut(&id).filter(|(_, done)| !done);
        let (bytes, done) = file.ok_or_else(|| broken("it sent bytes of a file that nobody asked for"))?;
        *done = data.is_empty();
        bytes.extend_from_slice(data);
        match bytes.len() as u64 > 4 * SMALL {
            true => Err(broken("a file grows while it is sent")),
            false => Ok(()),
        }
    }

    /// Takes in bytes of small files until this one is whole.
    async fn whole(&mut self, id: u32) -> Result<Vec<u8>, Fault> {
        while !self.open.get(&id).is_some_and(|(_, done)| *done) {
            let (of, data) = self.data().await?;
            self.take_in(of, &data)?;
        }
        Ok(self.open.remove(&id).map(|(bytes, _)| bytes).unwrap_or_default())
    }

    async fn pass_on(&mut self, stats: Vec<Stat>, out: &mpsc::Sender<Piece>) -> Result<(), Fault> {
        let put = async |piece| out.send(piece).await.map_err(|_| broken("nobody reads them"));
        let mut small: VecDeque<u32> = VecDeque::new();
        for (i, stat) in stats.iter().enumerate() {
            if is_plain(stat) && size_of(stat) <= SMALL {
                small.push_back(u32::try_from(i).map_err(broken)?);
            }
        }
        for (i, stat) in stats.into_iter().enumerate() {
            let id = u32::try_from(i).map_err(broken)?;
            if !is_plain(&stat) {
                put(Piece::Entry { stat, size: 0 }).await?;
                continue;
            }
            let wanted = size_of(&stat);
            if wanted > SMALL {
                self.large(id, stat, out).await?;
                continue;
            }
            while self.open.len() < AHEAD
                && let Some(next) = small.pop_front()
            {
                self.open.insert(next, (Vec::new(), false));
                self.request(next).await?;
            }
            let bytes = self.whole(id).await?;
            if bytes.is_empty() && wanted > 0 {
                return Err(unreadable(&stat));
            }
            let size = bytes.len() as u64;
            put(Piece::Entry { stat, size }).await?;
            if !bytes.is_empty() {
                put(Piece::Data(bytes.into())).await?;
            }
        }
        Ok(())
    }

    /// One file whose bytes are passed on as they come. Small ones that were asked for may come in between.
    async fn large(&mut self, id: u32, stat: Stat, out: &mpsc::Sender<Piece>) -> Result<(), Fault> {
        let put = async |piece| out.send(piece).await.map_err(|_| broken("nobody reads them"));
        let wanted = size_of(&stat);
        let gone = unreadable(&stat);
        self.request(id).await?;
        put(Piece::Entry { stat, size: wanted }).await?;
        let mut left = wanted;
        loop {
            let (of, data) = self.data().await?;
            if of != id {
                self.take_in(of, &data)?;
                continue;
            }
            if data.is_empty() {
                break;
            }
            let part = u64::try_from(data.len()).map_err(broken)?;
            left = left
                .checked_sub(part)
                .ok_or_else(|| broken("a file grows while it is sent"))?;
            put(Piece::Data(data)).await?;
        }
        match left {
            0 => Ok(()),
            _ => Err(gone),
        }
    }
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.size).unwrap_or(0)
}

fn unreadable(stat: &Stat) -> Fault {
    let path = String::from_utf8_lossy(&stat.path).into_owned();
    broken(format!("{path} cannot be read, or became shorter meanwhile"))
}

fn check(stat: &Stat) -> Result<(), Fault> {
    check_path(&stat.path)?;
    if stat.size < 0 {
        return Err(broken("a file has less than no bytes"));
    }
    match mode::kind(stat.mode) {
        mode::Kind::Symlink if stat.linkname.len() > MAX_PATH || stat.linkname.contains(&0) => {
            Err(broken("a link leads nowhere"))
        }
        mode::Kind::File if !stat.linkname.is_empty() => check_path(&stat.linkname),
        _ => Ok(()),
    }
}

/// A few small files, by path, and links with where they lead.
#[derive(Debug, Default)]
pub struct Few {
    files: HashMap<Vec<u8>, Vec<u8>>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Few {
    /// Reads them all; together no larger than this.
    pub async fn read(mut pieces: mpsc::Receiver<Piece>, limit: usize) -> Result<Few, Fault> {
        let mut few = Few::default();
        let mut at = Vec::new();
        let mut left = limit;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Entry { stat, .. } if is_plain(&stat) => {
                    at.clone_from(&stat.path);
                    few.files.insert(stat.path, Vec::new());
                }
                Piece::Entry { stat, .. } if mode::kind(stat.mode) == mode::Kind::Symlink => {
                    few.links.insert(stat.path, stat.linkname);
                }
                Piece::Entry { .. } => {}
                Piece::Data(data) => {
                    left = left
                        .checked_sub(data.len())
                        .ok_or_else(|| Fault::invalid(format!("files of the build are larger than {limit} bytes")))?;
                    few.files.entry(at.clone()).or_default().extend_from_slice(&data);
                }
                Piece::Failed(e) => return Err(e),
            }
        }
        Ok(few)
    }

    /// A file, through a link or a few.
    pub fn find(&self, path: &str) -> Option<&[u8]> {
        let mut at = path.as_bytes().to_vec();
        for _ in 0..8 {
            if let Some(found) = self.files.get(&at) {
                return Some(found);
            }
            let target = self.links.get(&at)?;
            let dir = at.iter().rposition(|b| *b == b'/').map_or(&b""[..], |i| &at[..=i]);
            at = plain_path(&match target.first() {
                Some(b'/') => target.clone(),
                _ => [dir, target].concat(),
            });
        }
        None
    }
}

fn plain_path(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// The tar of what comes.
pub fn as_tar(pieces: mpsc::Receiver<Piece>) -> ByteStream {
    tar::stream(pieces)
}
