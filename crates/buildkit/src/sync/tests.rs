//! Clients that keep the rules, and clients that do not.

use std::io::Read;

use futures_util::stream;
use proptest::prelude::*;

use super::*;

fn stat(path: &str, bits: u32, size: i64) -> Stat {
    Stat {
        path: path.into(),
        mode: bits,
        size,
        ..Stat::default()
    }
}

fn file(path: &str, size: i64) -> Stat {
    stat(path, 0o644, size)
}

fn of_stat(stat: Option<Stat>) -> Packet {
    Packet {
        stat,
        ..Packet::default()
    }
}

fn data(id: u32, bytes: &[u8]) -> Packet {
    Packet {
        kind: PacketKind::Data.into(),
        id,
        data: Bytes::copy_from_slice(bytes),
        ..Packet::default()
    }
}

/// What comes of packets that are sent whatever is asked.
async fn received(packets: Vec<Packet>) -> Result<Vec<Piece>, Fault> {
    let (requests, _asked) = mpsc::channel(1 << 10);
    let (out, mut pieces) = mpsc::channel(1 << 10);
    let bytes = AtomicU64::new(0);
    receive(stream::iter(packets.into_iter().map(Ok)), requests, &out, &bytes).await?;
    drop(out);
    let mut all = Vec::new();
    while let Some(p) = pieces.recv().await {
        all.push(p);
    }
    Ok(all)
}

/// A client with these files that answers what is asked, several at a time and in small pieces.
fn honest(files: Vec<(Stat, Vec<u8>)>) -> mpsc::Receiver<Piece> {
    let (requests, mut asked) = mpsc::channel::<Packet>(64);
    let (send, packets) = mpsc::channel::<Result<Packet, Status>>(8);
    let (out, pieces) = mpsc::channel(8);
    tokio::spawn(async move {
        for (stat, _) in &files {
            send.send(Ok(of_stat(Some(stat.clone())))).await.unwrap();
        }
        send.send(Ok(of_stat(None))).await.unwrap();
        while let Some(p) = asked.recv().await {
            if p.kind == i32::from(PacketKind::Finish) {
                send.send(Ok(p)).await.unwrap();
                return;
            }
            let (send, bytes) = (send.clone(), files[p.id as usize].1.clone());
            tokio::spawn(async move {
                for part in bytes.chunks(32 << 10) {
                    send.send(Ok(data(p.id, part))).await.unwrap();
                    tokio::task::yield_now().await;
                }
                send.send(Ok(data(p.id, b""))).await.unwrap();
            });
        }
    });
    tokio::spawn(async move {
        let bytes = AtomicU64::new(0);
        let packets = ReceiverStream::new(packets);
        if let Err(e) = receive(packets, requests, &out, &bytes).await {
            out.send(Piece::Failed(e)).await.unwrap();
        }
    });
    pieces
}

#[tokio::test]
async fn files_become_a_tar() {
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut link = stat("d/l", 0o777 | mode::bits(mode::Kind::Symlink, 0), 0);
    link.linkname = b"../../away".to_vec();
    let mut hard = file("d/same", 3);
    hard.linkname = b"d/a".to_vec();
    let long = format!("d/{}", "x".repeat(300));
    let mut files = vec![
        (stat("d", mode::bits(mode::Kind::Dir, 0o1755), 0), vec![]),
        (file("d/a", 3), b"abc".to_vec()),
        (file("d/empty", 0), vec![]),
        (file("d/large", 3_000_000), large.clone()),
        (link, vec![]),
        (hard, vec![]),
        (stat("d/s", 0o4755 & 0o777 | 1 << 23, 600), vec![b'y'; 600]),
        (file(&long, 1), b"z".to_vec()),
    ];
    for n in 0..60 {
        let text = format!("file {n}").into_bytes();
        files.push((file(&format!("e{n:02}"), text.len() as i64), text));
    }
    let mut bytes = Vec::new();
    let mut tar = as_tar(honest(files));
    while let Some(piece) = tar.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(bytes.len() % 512, 0);
    let mut archive = ::tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        match path.as_str() {
            "d/large" => assert!(text == large),
            "d/l" => assert_eq!(entry.link_name_bytes().unwrap().as_ref(), b"../../away"),
            "d/same" => assert_eq!(entry.link_name_bytes().unwrap().as_ref(), b"d/a"),
            "d/s" => assert!(entry.header().mode().unwrap() == 0o4755 && text.len() == 600),
            "d" => assert_eq!(entry.header().mode().unwrap(), 0o1755),
            p if p.starts_with('e') => assert_eq!(text, format!("file {}", p[1..].parse::<u32>().unwrap()).as_bytes()),
            p => assert!(p == "d/a" || p == "d/empty" || p == long, "{p}"),
        }
        seen.push(path);
    }
    assert_eq!(seen.len(), 68);
}

#[tokio::test]
async fn who_breaks_the_rules_is_refused() {
    let end = || of_stat(None);
    let one = |s: Stat| vec![of_stat(Some(s)), end()];
    let mut hard = file("a", 0);
    hard.linkname = b"../b".to_vec();
    let mut nul = stat("l", mode::bits(mode::Kind::Symlink, 0o777), 0);
    nul.linkname = b"x\0y".to_vec();
    let wrong = Packet {
        kind: PacketKind::Error.into(),
        data: Bytes::from_static(b"disk on fire"),
        ..Packet::default()
    };
    let odd = Packet {
        kind: 77,
        ..Packet::default()
    };
    let a = || of_stat(Some(file("a", 4)));
    let grown = vec![b'x'; (4 * SMALL + 1) as usize];
    let large = || of_stat(Some(file("a", 2 << 20)));
    for (packets, said) in [
        (one(file("../a", 0)), "path that is refused"),
        (one(file("/a", 0)), "path that is refused"),
        (one(file("a//b", 0)), "path that is refused"),
        (one(file("a/./b", 0)), "path that is refused"),
        (one(file("", 0)), "path that is refused"),
        (one(file("a\0b", 0)), "path that is refused"),
        (one(file(&"x/".repeat(4000), 0)), "path that is refused"),
        (one(hard), "path that is refused"),
        (one(nul), "leads nowhere"),
        (one(file("a", -1)), "less than no bytes"),
        (vec![wrong], "disk on fire"),
        (vec![odd], "kind 77"),
        (vec![a()], "went away"),
        (vec![a(), end()], "went away"),
        (vec![data(0, b"x")], "nobody asked for"),
        (vec![a(), end(), data(7, b"x")], "nobody asked for"),
        (vec![a(), end(), a()], "something else"),
        (vec![a(), end(), data(0, b"")], "cannot be read"),
        (vec![a(), end(), data(0, &grown)], "grows"),
        (vec![large(), end(), data(0, b"short"), data(0, b"")], "became shorter"),
        (vec![large(), end(), data(0, &grown)], "grows"),
    ] {
        let e = received(packets).await.unwrap_err();
        assert!(e.message.contains(said), "{said}: {e}");
    }
    let good = received(vec![a(), end(), data(0, b"ab"), data(0, b"cdef"), data(0, b"")])
        .await
        .unwrap();
    // As long as it was when it was sent.
    assert!(matches!(&good[0], Piece::Entry { size: 6, .. }), "{good:?}");
}

#[tokio::test]
async fn a_few_files_and_where_links_lead() {
    let mut link = stat("Dockerfile", mode::bits(mode::Kind::Symlink, 0o777), 0);
    link.linkname = b"sub/../real".to_vec();
    let mut circle = stat("circle", mode::bits(mode::Kind::Symlink, 0o777), 0);
    circle.linkname = b"circle".to_vec();
    let files = vec![(link, vec![]), (circle, vec![]), (file("real", 2), b"hi".to_vec())];
    let few = Few::read(honest(files.clone()), 2).await.unwrap();
    assert_eq!(few.find("Dockerfile"), Some(&b"hi"[..]));
    assert_eq!((few.find("circle"), few.find("none")), (None, None));
    assert!(Few::read(honest(files), 1).await.is_err());
}

#[test]
fn patterns_travel_in_headers() {
    let files = Files {
        dir: "context".into(),
        follow: vec!["plain name".into()],
        exclude: vec!["*.log".into(), "!über/*".into()],
    };
    let map = metadata(&files).unwrap();
    let all = |k: &str| -> Vec<String> { map.get_all(k).iter().map(|v| v.to_str().unwrap().to_owned()).collect() };
    assert_eq!(all("dir-name"), ["context"]);
    assert_eq!(all("followpaths"), ["plain name"]);
    assert_eq!(all("exclude-patterns"), ["%2A.log", "%21%C3%BCber%2F%2A"]);
    assert_eq!(all("exclude-patterns-encoded"), ["1"]);
    assert!(all("followpaths-encoded").is_empty());
}

#[test]
fn modes_there_and_back() {
    use mode::Kind;
    for kind in [
        Kind::File,
        Kind::Dir,
        Kind::Symlink,
        Kind::Fifo,
        Kind::Char,
        Kind::Block,
    ] {
        let bits = mode::bits(kind, 0o7751);
        assert_eq!((mode::kind(bits), mode::permissions(bits)), (kind, 0o7751));
    }
    assert_eq!(mode::kind(1 << 24), Kind::Other);
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let stat = (
        prop_oneof!["[a-c]{1,2}(/[a-c]){0,2}", "[./a\\PC]{0,6}"],
        any::<u32>(),
        -2i64..3_000_000,
        prop_oneof![Just(String::new()), "[./a]{0,5}"],
    )
        .prop_map(|(path, mode, size, linkname)| Stat {
            path: path.into(),
            mode: if mode % 3 == 0 { mode } else { mode & 0o777 },
            size,
            linkname: linkname.into(),
            ..Stat::default()
        });
    let kind = prop_oneof![4 => Just(0), 4 => Just(2), 1 => 0i32..9];
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    (kind, proptest::option::of(stat), 0u32..4, bytes).prop_map(|(kind, stat, id, data)| Packet {
        kind,
        stat,
        id,
        data: data.into(),
    })
}

proptest! {
    #[test]
    fn any_packets(packets in proptest::collection::vec(any_packet(), 0..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let Ok(pieces) = received(packets).await else { return };
            let (tx, rx) = mpsc::channel(1 << 10);
            for p in pieces {
                tx.try_send(p).unwrap();
            }
            drop(tx);
            let mut tar = as_tar(rx);
            while let Some(Ok(_)) = tar.next().await {}
        });
    }
}
