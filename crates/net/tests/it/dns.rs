//! Names, as resolvers of instances see them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::support::*;

/// A resolver outside that knows everything: each name is 203.0.113.7; names that begin with `big` have a hundred
/// addresses, which need TCP.
fn serve_dns(outside: &Outside) {
    let (udp, tcp) = within(&outside.netns, || {
        (
            UdpSocket::bind((OUTSIDE, 53)).unwrap(),
            TcpListener::bind((OUTSIDE, 53)).unwrap(),
        )
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let reply = known(&buffer[..length]);
            let reply = if reply.answers.len() > 1 {
                reply.truncate()
            } else {
                reply
            };
            let _ = udp.send_to(&reply.to_vec().unwrap(), from);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let query = read_framed(&mut stream);
            write_framed(&mut stream, &known(&query).to_vec().unwrap());
        }
    });
}

fn known(query: &[u8]) -> Message {
    let query = Message::from_vec(query).unwrap();
    let name = query.queries[0].name().clone();
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.add_query(query.queries[0].clone());
    let count = if name.to_ascii().starts_with("big") { 100 } else { 1 };
    for i in 0..count {
        let ip = Ipv4Addr::new(203, 0, 113, 7 + i);
        reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A(ip))));
    }
    reply
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(message).unwrap();
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut m = Message::new(4711, MessageType::Query, OpCode::Query);
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    m.to_vec().unwrap()
}

/// Asks over UDP until there is an answer. Blocks: the server must run on another thread or task.
fn ask(netns: &Path, server: Ipv4Addr, name: &str, kind: RecordType) -> Message {
    let reply = within(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((server, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let start = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let got = socket
                .send(&question(name, kind))
                .and_then(|_| socket.recv(&mut buffer));
            match got {
                Ok(length) => return buffer[..length].to_vec(),
                Err(e) if start.elapsed() > DEADLINE => panic!("no answer about {name}: {e}"),
                Err(_) => {}
            }
        }
    });
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.id, 4711);
    reply
}

fn ask_tcp(netns: &Path, server: Ipv4Addr, name: &str) -> Message {
    let reply = within(netns, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((server, 53)), DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write_framed(&mut stream, &question(name, RecordType::A));
        read_framed(&mut stream)
    });
    Message::from_vec(&reply).unwrap()
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let a = |r: &Record| match r.data {
        RData::A(A(ip)) => Some(ip),
        _ => None,
    };
    message.answers.iter().filter_map(a).collect()
}

/// Blocking work beside the servers, which run on the test's only runtime thread.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[test]
fn instances_find_each_other_by_name() {
    world(async |w| {
        let gateway: Ipv4Addr = w.network("front").await.gateway.parse().unwrap();
        w.network("back").await;
        let (x, y) = (w.instance("x", &["front"]).await, w.instance("y", &["front"]).await);
        let other = w.instance("other", &["back"]).await;
        let front = uid_of("front");
        w.net
            .add_names(&front, "y", &["Web".into(), "www".into()], y.ip())
            .unwrap();
        let ip = y.ip();
        let from = x.netns.clone();
        beside(move || {
            for name in ["web", "web.front", "web.front.biga.internal", "www"] {
                let said = exec(&from, "busybox", &["nslookup", name, &gateway.to_string()]);
                assert!(said.contains(&ip.to_string()), "{name}: {said}");
            }
            let reply = ask(&from, gateway, "WEB.biga.internal.", RecordType::A);
            assert_eq!(addresses(&reply), [ip]);
            assert_eq!(addresses(&ask_tcp(&from, gateway, "web.")), [ip]);
            let reply = ask(&from, gateway, "web.", RecordType::AAAA);
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            assert!(reply.answers.is_empty());
            let reply = ask(&from, gateway, "host.biga.internal.", RecordType::A);
            assert_eq!(addresses(&reply), [gateway]);
            let reply = ask(&from, gateway, "nobody.biga.internal.", RecordType::A);
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
            let [a, b, c, d] = ip.octets();
            let reply = ask(
                &from,
                gateway,
                &format!("{d}.{c}.{b}.{a}.in-addr.arpa."),
                RecordType::PTR,
            );
            assert_eq!(reply.answers[0].data.to_string(), "web.front.biga.internal.");
        })
        .await;
        // Names of one network are not known on another, and strangers are not answered.
        let back: Ipv4Addr = other.endpoints[0].gateway.unwrap();
        let (from, stranger) = (other.netns.clone(), other.netns.clone());
        beside(move || {
            let reply = ask(&from, back, "web.", RecordType::A);
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
            within(&stranger, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect((gateway, 53)).unwrap();
                socket.set_read_timeout(Some(REFUSAL)).unwrap();
                socket.send(&question("web.", RecordType::A)).unwrap();
                assert!(socket.recv(&mut [0; 512]).is_err());
            });
        })
        .await;
        w.net.remove_names("y");
        let from = x.netns.clone();
        beside(move || {
            let reply = ask(&from, gateway, "web.", RecordType::A);
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        })
        .await;
    });
}

#[test]
fn other_names_come_from_outside() {
    world(async |w| {
        let outside = Outside::new();
        serve_dns(&outside);
        let gateway: Ipv4Addr = w.network("a").await.gateway.parse().unwrap();
        let x = w.instance("x", &["a"]).await;
        beside(move || {
            let seven = Ipv4Addr::new(203, 0, 113, 7);
            let reply = ask(&x.netns, gateway, "Example.org.", RecordType::A);
            assert_eq!(addresses(&reply), [seven]);
            let reply = ask(&x.netns, gateway, "big.example.org.", RecordType::A);
            assert!(reply.metadata.truncation);
            assert_eq!(addresses(&ask_tcp(&x.netns, gateway, "big.example.org.")).len(), 100);
            let said = exec(
                &x.netns,
                "busybox",
                &["nslookup", "-type=a", "example.org", &gateway.to_string()],
            );
            assert!(said.contains("203.0.113.7"), "{said}");
        })
        .await;
    });
}

#[test]
fn without_a_resolver_it_says_so() {
    world(async |w| {
        // Nobody has the upstream's address, and there is no route to it.
        let gateway: Ipv4Addr = w.network("a").await.gateway.parse().unwrap();
        let x = w.instance("x", &["a"]).await;
        beside(move || {
            let reply = ask(&x.netns, gateway, "example.org.", RecordType::A);
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
            assert_eq!(
                ask_tcp(&x.netns, gateway, "example.org.").metadata.response_code,
                ResponseCode::ServFail
            );
            // Nonsense does not stop it.
            within(&x.netns, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for length in [0usize, 1, 11, 12, 40, 512] {
                    socket.send_to(&vec![0xc0; length], (gateway, 53)).unwrap();
                    socket.send_to(&vec![0; length], (gateway, 53)).unwrap();
                }
            });
            let reply = ask(&x.netns, gateway, "host.biga.internal.", RecordType::A);
            assert_eq!(addresses(&reply), [gateway]);
        })
        .await;
    });
}

#[test]
fn a_taken_port_53_is_reported() {
    world(async |w| {
        let spec = biga_model::NetworkSpec {
            subnet: Some("10.5.0.0/24".into()),
            ..Default::default()
        };
        // Another program that will not share, on all addresses.
        let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let status = w.net.ensure_network("u", "a", &spec, None).await.unwrap();
        assert!(status.ready);
        assert!(
            status.message.contains("no DNS: port 53 of 10.5.0.1"),
            "{}",
            status.message
        );
        drop(_udp);
        let status = w.net.ensure_network("u", "a", &spec, Some(&status)).await.unwrap();
        assert_eq!(status.message, "");
    });
}
