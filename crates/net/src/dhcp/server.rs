//! The DHCP socket of one bridge.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;

use super::packet::{self, Lease};
use crate::Mac;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Rest after an error that may repeat at once.
const REST: Duration = Duration::from_millis(100);

/// The ends of one network that are answered: hardware address → instance and what it is told.
#[derive(Default)]
pub struct Leases {
    known: RwLock<HashMap<Mac, (String, Lease)>>,
}

impl Leases {
    /// Answers this hardware address from now on.
    pub fn set(&self, mac: Mac, instance: &str, lease: Lease) {
        self.known.write().insert(mac, (instance.to_owned(), lease));
    }

    /// Forgets all instances for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.known.write().retain(|_, (instance, _)| keep(instance));
    }

    fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let query = packet::read(packet)?;
        let known = self.known.read();
        let (_, lease) = known.get(&query.mac)?;
        packet::answer(&query, lease)
    }
}

/// Binds to the server's port on one bridge, in the calling thread's network namespace.
pub fn bind(bridge: &str) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT)).into())?;
    Ok(socket.into())
}

/// Answers until dropped. Replies are broadcast: a client without an address hears nothing else.
pub async fn serve(socket: std::net::UdpSocket, leases: Arc<Leases>) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let everyone = SocketAddr::from((Ipv4Addr::BROADCAST, CLIENT_PORT));
    let mut buffer = vec![0; 2048];
    loop {
        let result = match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => match leases.answer(&buffer[..length]) {
                Some(reply) => socket.send_to(&reply, everyone).await.map(drop),
                None => Ok(()),
            },
            Err(e) => Err(e),
        };
        if let Err(e) = result {
            tracing::debug!(error = %e, "DHCP");
            tokio::time::sleep(REST).await;
        }
    }
}
