//! Asking the host's resolvers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::message;

/// Where the host's resolvers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long what we read there is believed.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long one resolver has to answer over UDP.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one resolver has to answer over TCP.
const PATIENCE_TCP: Duration = Duration::from_secs(5);
/// How often every resolver is asked.
const ROUNDS: usize = 2;
/// As in resolv.conf(5).
const MOST_SERVERS: usize = 3;
/// Questions under way at once, of all networks together.
const AT_ONCE: usize = 256;

/// The resolvers, and the bound on questions to them.
pub struct Upstreams {
    fixed: Option<Vec<SocketAddr>>,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    room: Semaphore,
}

impl Upstreams {
    /// These, or those of the host where none.
    pub fn new(fixed: Option<Vec<SocketAddr>>) -> Upstreams {
        Upstreams {
            fixed,
            read: Mutex::new(None),
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// Asks them one after the other, in two rounds. None where nobody answered, or too many ask already. `own` is
    /// the address of the server that asks, lest it ask itself.
    ///
    /// `instead`, where it is not empty, are asked in their place.
    pub async fn ask(&self, packet: &[u8], udp: bool, own: Ipv4Addr, instead: Vec<SocketAddr>) -> Option<Vec<u8>> {
        let _room = self.room.try_acquire().ok()?;
        let mut servers = if instead.is_empty() { self.servers() } else { instead };
        servers.retain(|s| s.ip() != own);
        for _ in 0..ROUNDS {
            for &server in &servers {
                let answer = if udp {
                    tokio::time::timeout(PATIENCE, ask_udp(server, packet)).await
                } else {
                    tokio::time::timeout(PATIENCE_TCP, ask_tcp(server, packet)).await
                };
                match answer {
                    Ok(Ok(reply)) => return Some(reply),
                    Ok(Err(e)) => tracing::debug!(%server, error = %e, "a resolver failed"),
                    Err(_) => tracing::debug!(%server, "a resolver did not answer"),
                }
            }
        }
        None
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let mut read = self.read.lock();
        if let Some((when, servers)) = &*read
            && when.elapsed() < BELIEVED
        {
            return servers.clone();
        }
        let servers = read_resolv_conf(Path::new(RESOLV_CONF));
        *read = Some((Instant::now(), servers.clone()));
        servers
    }
}

fn read_resolv_conf(path: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    parse_resolv_conf(&text)
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    servers.take(MOST_SERVERS).collect()
}

/// The packet with an identifier nobody can guess; the socket's port is as random.
fn disguised(packet: &[u8]) -> Vec<u8> {
    let mut sent = packet.to_vec();
    let id: [u8; 2] = rand::random();
    sent[..2].copy_from_slice(&id);
    sent
}

/// The reply with the asker's identifier; none where it is no reply to what was sent.
fn recognised(sent: &[u8], mut reply: Vec<u8>, id: &[u8]) -> Option<Vec<u8>> {
    let same = reply.len() >= message::HEADER
        && reply[..2] == sent[..2]
        && message::is_response(&reply)
        && match (message::question(sent), message::question(&reply)) {
            (Some(asked), Some(answered)) => asked.eq_ignore_ascii_case(answered),
            _ => false,
        };
    if !same {
        return None;
    }
    reply[..2].copy_from_slice(&id[..2]);
    Some(reply)
}

async fn ask_udp(server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let sent = disguised(packet);
    socket.send(&sent).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let got = socket.recv(&mut buffer).await?;
        // Anything else is somebody's guess: wait on for the real one.
        if let Some(reply) = recognised(&sent, buffer[..got].to_vec(), packet) {
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, packet: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let sent = disguised(packet);
    write_framed(&mut stream, &sent).await?;
    let reply = read_framed(&mut stream).await?;
    recognised(&sent, reply, packet).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Reads a message with its length before it, as over TCP.
pub async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length before it.
pub async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read() {
        let text = "# c\nsearch x\nnameserver 192.0.2.1\nnameserver\tfd00::1 \nnameserver bad\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected: Vec<SocketAddr> = ["192.0.2.1:53", "[fd00::1]:53", "192.0.2.2:53"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert_eq!(parse_resolv_conf(text), expected);
    }

    #[test]
    fn only_true_replies_are_recognised() {
        let sent = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let mut reply = sent.to_vec();
        assert_eq!(recognised(&sent, reply.clone(), &[9, 9]), None);
        reply[2] |= 0x80;
        reply[13] = b'A';
        assert_eq!(recognised(&sent, reply.clone(), &[9, 9]).unwrap()[..2], [9, 9]);
        for (at, with) in [(0, 7), (13, b'b'), (16, 28)] {
            let mut forged = reply.clone();
            forged[at] = with;
            assert_eq!(recognised(&sent, forged, &[9, 9]), None, "{at}");
        }
        assert_eq!(recognised(&sent, reply[..11].to_vec(), &[9, 9]), None);
    }
}
