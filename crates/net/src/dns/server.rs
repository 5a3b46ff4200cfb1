//! The sockets of one network's DNS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::directory::{Directory, View};
use super::message::{self, Verdict};
use super::upstream::{Upstreams, read_framed, write_framed};
use super::zone::Zone;

/// How long a TCP connection may say nothing.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// TCP connections of one network at once.
const TCP_AT_ONCE: usize = 64;
/// Questions of one network that wait for others' answers at once.
const WAITING: usize = 256;
/// Rest after an error that may repeat at once, as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Bound sockets, not yet served.
pub struct Bound {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

/// Binds both sockets to port 53 of the gateway's address, in the calling thread's network namespace.
pub fn bind(gateway: Ipv4Addr) -> io::Result<Bound> {
    let address = SocketAddr::from((gateway, 53)).into();
    // Shared with a resolver that listens on all addresses: the kernel prefers the more precise socket.
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    udp.set_reuse_address(true)?;
    udp.set_nonblocking(true)?;
    udp.bind(&address)?;
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    tcp.set_reuse_address(true)?;
    tcp.set_nonblocking(true)?;
    tcp.bind(&address)?;
    tcp.listen(128)?;
    Ok(Bound {
        udp: udp.into(),
        tcp: tcp.into(),
    })
}

/// Answers until dropped.
pub async fn serve(
    bound: Bound,
    zone: Arc<Zone>,
    directory: Arc<Directory>,
    upstreams: Arc<Upstreams>,
) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::from_std(bound.udp)?);
    let tcp = TcpListener::from_std(bound.tcp)?;
    let known = Known {
        zone,
        directory,
        upstreams,
    };
    tokio::join!(serve_udp(udp, known.clone()), serve_tcp(tcp, known));
    Ok(())
}

/// What answers are made of.
#[derive(Clone)]
struct Known {
    zone: Arc<Zone>,
    directory: Arc<Directory>,
    upstreams: Arc<Upstreams>,
}

impl Known {
    fn handle(&self, packet: &[u8], from: SocketAddr, udp: bool) -> Verdict {
        let view = View {
            zone: &self.zone,
            directory: &self.directory,
            asker: v4(from),
        };
        message::handle(&view, packet, udp)
    }

    async fn forward(&self, packet: &[u8], from: SocketAddr, udp: bool) -> Option<Vec<u8>> {
        let instead = self.directory.upstreams(&self.zone, v4(from));
        self.upstreams.ask(packet, udp, self.zone.gateway(), instead).await
    }

    fn serves(&self, from: SocketAddr) -> bool {
        from.is_ipv4() && self.zone.serves(v4(from))
    }
}

fn v4(from: SocketAddr) -> Ipv4Addr {
    match from.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, known: Known) {
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(got) => got,
            Err(e) => {
                tracing::debug!(error = %e, "DNS cannot receive");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        if !known.serves(from) {
            continue;
        }
        let packet = &buffer[..length];
        let reply = match known.handle(packet, from, true) {
            Verdict::Reply(reply) => Some(reply),
            Verdict::Ignore => None,
            Verdict::Forward if waiting.len() >= WAITING => message::server_failure(packet),
            Verdict::Forward => {
                let (socket, known, packet) = (socket.clone(), known.clone(), packet.to_vec());
                waiting.spawn(async move {
                    if let Some(reply) = forward_udp(&known, &packet, from).await {
                        send(&socket, &reply, from).await;
                    }
                });
                None
            }
        };
        if let Some(reply) = reply {
            send(&socket, &reply, from).await;
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send_to(reply, to).await {
        tracing::debug!(error = %e, %to, "a DNS reply was not sent");
    }
}

async fn forward_udp(known: &Known, packet: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    match known.forward(packet, from, true).await {
        Some(reply) if reply.len() > message::udp_room(packet) => message::truncated(&reply),
        Some(reply) => Some(reply),
        None => message::server_failure(packet),
    }
}

async fn serve_tcp(listener: TcpListener, known: Known) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= TCP_AT_ONCE {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) if known.serves(from) => {
                connections.spawn(converse(stream, from, known.clone()));
            }
            Ok(_) => {}
            Err(e) => {
                tracing::debug!(error = %e, "DNS cannot accept");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, from: SocketAddr, known: Known) {
    while let Ok(Ok(packet)) = tokio::time::timeout(TCP_IDLE, read_framed(&mut stream)).await {
        let reply = match known.handle(&packet, from, false) {
            Verdict::Reply(reply) => Some(reply),
            Verdict::Ignore => None,
            Verdict::Forward => match known.forward(&packet, from, false).await {
                Some(reply) => Some(reply),
                None => message::server_failure(&packet),
            },
        };
        let Some(reply) = reply else { return };
        if !matches!(
            tokio::time::timeout(TCP_IDLE, write_framed(&mut stream, &reply)).await,
            Ok(Ok(()))
        ) {
            return;
        }
    }
}
