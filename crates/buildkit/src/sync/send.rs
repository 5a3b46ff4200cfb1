//! Files to the client: it hears all names, and asks for the bytes of those that it wants.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tonic::Streaming;
use tonic::metadata::MetadataMap;

use super::{MAX_NAMES, broken, mode};
use crate::ByteStream;
use crate::engine::{Fault, FaultKind};
use crate::proto::session::{Packet, PacketKind, Stat};
use crate::session::Session;

const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Bytes of one packet.
const PART: usize = 32 << 10;
/// Packets that may wait.
const QUEUE: usize = 32;

/// A path by its components.
type Parts = Vec<Vec<u8>>;

/// A tar that lies in a file, by its names in the order that clients want.
struct Tree {
    file: File,
    entries: Vec<(Stat, u64)>,
}

/// Sends what is in a tar into the client's directory.
pub async fn send(session: &Session, content: ByteStream) -> Result<(), Fault> {
    if !session.supports(SEND) {
        return Err(Fault::invalid("the client takes no files"));
    }
    let reader = SyncIoBridge::new(StreamReader::new(content));
    let read = tokio::task::spawn_blocking(move || Tree::read(reader));
    let tree = read.await.map_err(broken)?.map_err(broken)?;
    let tree = Arc::new(tree);
    let (tx, rx) = mpsc::channel::<Packet>(QUEUE);
    let names = {
        let (tree, tx) = (tree.clone(), tx.clone());
        async move {
            for (stat, _) in &tree.entries {
                let packet = Packet {
                    stat: Some(stat.clone()),
                    ..Packet::default()
                };
                put(&tx, packet).await?;
            }
            put(&tx, Packet::default()).await
        }
    };
    let answers = async move {
        let wrong = |s: tonic::Status| broken(s.message());
        let begun = session.stream(SEND, MetadataMap::new(), ReceiverStream::new(rx));
        let mut packets: Streaming<Packet> = begun.await.map_err(wrong)?;
        while let Some(packet) = packets.next().await {
            let packet = packet.map_err(wrong)?;
            match PacketKind::try_from(packet.kind) {
                Ok(PacketKind::Request) => tree.content(packet.id, &tx).await?,
                Ok(PacketKind::Finish) => {
                    let finish = Packet {
                        kind: PacketKind::Finish.into(),
                        ..Packet::default()
                    };
                    put(&tx, finish).await?;
                    break;
                }
                Ok(PacketKind::Error) => return Err(broken(String::from_utf8_lossy(&packet.data))),
                _ => return Err(broken(format!("a packet of kind {}", packet.kind))),
            }
        }
        // The client ends the call when all is on its disk.
        drop(tx);
        while let Some(packet) = packets.next().await {
            packet.map_err(wrong)?;
        }
        Ok(())
    };
    let (named, answered) = tokio::join!(names, answers);
    answered.and(named)
}

async fn put(tx: &mpsc::Sender<Packet>, packet: Packet) -> Result<(), Fault> {
    let gone = |_| Fault::new(FaultKind::Cancelled, "the client is gone");
    tx.send(packet).await.map_err(gone)
}

impl Tree {
    fn read(source: impl Read) -> std::io::Result<Tree> {
        let mut file = tempfile::tempfile()?;
        std::io::copy(&mut BufReader::with_capacity(256 << 10, source), &mut file)?;
        let mut archive = tar::Archive::new(BufReader::with_capacity(64 << 10, file.try_clone()?));
        std::io::Seek::rewind(&mut file)?;
        // Components in order, so that a directory stands right before what is in it.
        let mut all: BTreeMap<Parts, (Stat, u64)> = BTreeMap::new();
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let (parts, stat) = stat_of(&entry)?;
            if parts.is_empty() {
                continue;
            }
            if all.len() >= MAX_NAMES {
                return Err(std::io::Error::other("there are more names than can be sent"));
            }
            all.insert(parts, (stat, entry.raw_file_position()));
        }
        // Clients know no link to a name that comes later: there it is one more file of the same bytes.
        let targets: Vec<(Parts, Parts)> = all
            .iter()
            .filter(|(_, (s, _))| mode::kind(s.mode) == mode::Kind::File && !s.linkname.is_empty())
            .map(|(parts, (s, _))| (parts.clone(), plain(&s.linkname)))
            .filter(|(parts, target)| target > parts)
            .collect();
        for (parts, target) in targets {
            let Some((stat, at)) = all.get(&target).cloned() else {
                continue;
            };
            let path = parts.join(&b'/');
            all.insert(parts, (Stat { path, ..stat }, at));
        }
        Ok(Tree {
            file,
            entries: all.into_values().collect(),
        })
    }

    async fn content(self: &Arc<Self>, id: u32, tx: &mpsc::Sender<Packet>) -> Result<(), Fault> {
        let index = usize::try_from(id).map_err(broken)?;
        let entry = self.entries.get(index).filter(|(s, _)| super::is_plain(s));
        let (stat, start) = entry.ok_or_else(|| broken("the client asks for what is no file"))?;
        let size = u64::try_from(stat.size).unwrap_or(0);
        let mut at = 0;
        while at < size {
            let part = usize::try_from((size - at).min(PART as u64)).map_err(broken)?;
            let (tree, from) = (self.clone(), start + at);
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; part];
                tree.file.read_exact_at(&mut buffer, from).map(|()| Bytes::from(buffer))
            });
            let data = read.await.map_err(broken)?.map_err(broken)?;
            at += data.len() as u64;
            let packet = Packet {
                kind: PacketKind::Data.into(),
                id,
                data,
                ..Packet::default()
            };
            put(tx, packet).await?;
        }
        let end = Packet {
            kind: PacketKind::Data.into(),
            id,
            ..Packet::default()
        };
        put(tx, end).await
    }
}

fn plain(path: &[u8]) -> Parts {
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    parts.map(<[u8]>::to_vec).collect()
}

fn stat_of(entry: &tar::Entry<'_, impl Read>) -> std::io::Result<(Parts, Stat)> {
    let header = entry.header();
    let parts = plain(&entry.path_bytes());
    let link = entry.link_name_bytes().map(|l| l.to_vec()).unwrap_or_default();
    let (kind, linkname) = match header.entry_type() {
        tar::EntryType::Directory => (mode::Kind::Dir, Vec::new()),
        tar::EntryType::Symlink => (mode::Kind::Symlink, link),
        tar::EntryType::Link => (mode::Kind::File, plain(&link).join(&b'/')),
        tar::EntryType::Char => (mode::Kind::Char, Vec::new()),
        tar::EntryType::Block => (mode::Kind::Block, Vec::new()),
        tar::EntryType::Fifo => (mode::Kind::Fifo, Vec::new()),
        _ => (mode::Kind::File, Vec::new()),
    };
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    // Others leave the fields as they like.
    let device = |n: std::io::Result<Option<u32>>| match kind {
        mode::Kind::Char | mode::Kind::Block => n.map(|n| n.unwrap_or(0).into()),
        _ => Ok(0),
    };
    let stat = Stat {
        path: parts.join(&b'/'),
        mode: mode::bits(kind, header.mode()?),
        uid: number(header.uid()?),
        gid: number(header.gid()?),
        size: match kind {
            mode::Kind::File => i64::try_from(entry.size()).unwrap_or(0),
            _ => 0,
        },
        mod_time: i64::try_from(header.mtime()?)
            .unwrap_or(0)
            .saturating_mul(1_000_000_000),
        linkname,
        devmajor: device(header.device_major())?,
        devminor: device(header.device_minor())?,
        ..Stat::default()
    };
    Ok((parts, stat))
}
