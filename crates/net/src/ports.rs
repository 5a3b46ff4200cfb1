//! Published ports: who has which, and the sockets that hold them.
//!
//! Packets to a published port are translated before they reach any socket, so a port could be published and used by
//! another program at once, and the other would wonder. So each is also bound by a socket of ours, to which nothing
//! ever comes.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::sync::Arc;

use biga_model::kinds::instance::{PortMapping, Protocol};
use socket2::{Domain, Socket, Type};

use crate::Error;
use crate::nft::{Elements, Set};

/// The protocol's number.
const SCTP: i32 = 132;
/// Where ports are picked from.
const FIRST_PICKED: u16 = 32768;

/// What is published, by instance.
#[derive(Default)]
pub struct Ports {
    held: HashMap<String, Vec<Held>>,
}

#[derive(Clone)]
struct Held {
    /// None where the port is open at the instance's own address.
    at: Option<HostPort>,
    /// None where another program took the port while we were away; translation goes first all the same.
    _socket: Option<Arc<Socket>>,
    to: String,
}

impl Held {
    fn element(&self) -> ((Set, String), String) {
        match self.at {
            Some(at) => (at.element(), self.to.clone()),
            None => ((Set::PortsOpen, self.to.clone()), String::new()),
        }
    }

    fn clashes(&self, at: HostPort) -> bool {
        self.at.is_some_and(|own| own.clashes(at))
    }
}

/// How packets get to an instance's ports.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The instance's address.
    pub to: Ipv4Addr,
    /// The host's address for ports that name none.
    pub bind: Option<Ipv4Addr>,
    /// Whether the ports are open at the instance's own address, and the host's are not used.
    pub open: bool,
}

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostPort {
    address: Ipv4Addr,
    port: u16,
    protocol: Protocol,
}

impl HostPort {
    fn clashes(self, other: HostPort) -> bool {
        let (a, b) = (self.address, other.address);
        self.port == other.port
            && self.protocol == other.protocol
            && (a == b || a.is_unspecified() || b.is_unspecified())
    }

    /// The element that translates it.
    fn element(self) -> (Set, String) {
        let (protocol, port) = (self.protocol.as_str(), self.port);
        if self.address.is_unspecified() {
            (Set::PortsAny, format!("{protocol} . {port}"))
        } else {
            (Set::PortsIp, format!("{} . {protocol} . {port}", self.address))
        }
    }

    fn in_use(self, by: String) -> Error {
        Error::PortInUse {
            port: self.port,
            protocol: self.protocol.as_str(),
            by,
        }
    }
}

impl Ports {
    /// Takes the ports, all or none, in the place of what the instance held; returns the mappings with host ports
    /// filled in. `present` are the rules of the kernel.
    pub fn take(
        &mut self,
        uid: &str,
        way: Way,
        wanted: &[PortMapping],
        present: &Elements,
    ) -> Result<Vec<PortMapping>, Error> {
        let before = self.held.remove(uid).unwrap_or_default();
        let bound: Vec<PortMapping> = wanted.iter().map(|m| bound(m, way.bind)).collect();
        let taken = match way.open {
            true => Ok(bound.iter().map(|m| open(m, way.to)).collect()),
            false => self.take_all(way.to, &bound, &before, present),
        };
        let (holds, result) = match taken {
            Ok(now) => {
                let filled = now.iter().zip(bound).map(|(held, mapping)| PortMapping {
                    host_port: held.at.map(|at| at.port),
                    host_port_end: None,
                    ..mapping
                });
                let filled = filled.collect();
                (now, Ok(filled))
            }
            Err(e) => (before, Err(e)),
        };
        if !holds.is_empty() {
            self.held.insert(uid.to_owned(), holds);
        }
        result
    }

    fn take_all(
        &self,
        address: Ipv4Addr,
        wanted: &[PortMapping],
        before: &[Held],
        present: &Elements,
    ) -> Result<Vec<Held>, Error> {
        let mut now = Vec::new();
        for mapping in wanted {
            let to = format!("{address} . {}", mapping.port);
            let held = self.take_one(mapping, to, before, &now, present)?;
            now.push(held);
        }
        Ok(now)
    }

    fn take_one(
        &self,
        mapping: &PortMapping,
        to: String,
        before: &[Held],
        now: &[Held],
        present: &Elements,
    ) -> Result<Held, Error> {
        let address = host_address(mapping)?;
        let protocol = mapping.protocol;
        let Some(port) = mapping.host_port.filter(|p| *p != 0) else {
            return self.pick(address, protocol, to, now, FIRST_PICKED..=u16::MAX);
        };
        if let Some(end) = mapping.host_port_end {
            return self.pick(address, protocol, to, now, port..=end);
        }
        let at = HostPort {
            address,
            port,
            protocol,
        };
        if let Some(holder) = self.holder(at) {
            return Err(at.in_use(format!("published by instance {holder}")));
        }
        if now.iter().any(|h| h.clashes(at)) {
            return Err(at.in_use("published by the same instance".into()));
        }
        if let Some(held) = before.iter().find(|h| h.at == Some(at)) {
            return Ok(Held { to, ..held.clone() });
        }
        let socket = match bind(at) {
            Ok(socket) => socket.map(Arc::new),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && present.get(&at.element()) == Some(&to) => {
                tracing::warn!(
                    port,
                    "another program listens on a port that was published before the restart"
                );
                None
            }
            Err(e) => return Err(refused(at, mapping.port, e)),
        };
        Ok(Held {
            at: Some(at),
            _socket: socket,
            to,
        })
    }

    fn pick(
        &self,
        address: Ipv4Addr,
        protocol: Protocol,
        to: String,
        now: &[Held],
        from: RangeInclusive<u16>,
    ) -> Result<Held, Error> {
        for port in from.clone() {
            let at = HostPort {
                address,
                port,
                protocol,
            };
            if self.holder(at).is_some() || now.iter().any(|h| h.clashes(at)) {
                continue;
            }
            match bind(at) {
                Ok(socket) => {
                    return Ok(Held {
                        at: Some(at),
                        _socket: socket.map(Arc::new),
                        to,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                Err(e) => return Err(refused(at, port, e)),
            }
        }
        Err(Error::NoPort {
            protocol: protocol.as_str(),
            from: *from.start(),
            to: *from.end(),
        })
    }

    fn holder(&self, at: HostPort) -> Option<&str> {
        let mut all = self.held.iter();
        all.find_map(|(uid, held)| held.iter().any(|h| h.clashes(at)).then_some(uid.as_str()))
    }

    /// Frees the instance's ports.
    pub fn free(&mut self, uid: &str) {
        self.held.remove(uid);
    }

    /// Frees the ports of all instances for which `keep` says no.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.held.retain(|uid, _| keep(uid));
    }

    /// The elements of one instance.
    pub fn elements_of(&self, uid: &str) -> Elements {
        let held = self.held.get(uid).into_iter().flatten();
        held.map(Held::element).collect()
    }

    /// The elements of all.
    pub fn elements(&self) -> Elements {
        let held = self.held.values().flatten();
        held.map(Held::element).collect()
    }
}

/// A mapping with the address of the host that the network chose, where it names none.
fn bound(mapping: &PortMapping, address: Option<Ipv4Addr>) -> PortMapping {
    let named = mapping.host_ip.clone().filter(|t| !t.is_empty());
    PortMapping {
        host_ip: named.or_else(|| address.map(|a| a.to_string())),
        ..mapping.clone()
    }
}

fn open(mapping: &PortMapping, address: Ipv4Addr) -> Held {
    Held {
        at: None,
        _socket: None,
        to: format!("{address} . {} . {}", mapping.protocol.as_str(), mapping.port),
    }
}

fn host_address(mapping: &PortMapping) -> Result<Ipv4Addr, Error> {
    let Some(text) = mapping.host_ip.as_deref().filter(|t| !t.is_empty()) else {
        return Ok(Ipv4Addr::UNSPECIFIED);
    };
    text.parse().map_err(|_| Error::HostIp {
        address: text.to_owned(),
        port: mapping.port,
        protocol: mapping.protocol.as_str(),
        why: "is no IPv4 address".into(),
    })
}

fn refused(at: HostPort, port: u16, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::AddrInUse => at.in_use("in use by another program".into()),
        io::ErrorKind::AddrNotAvailable => Error::HostIp {
            address: at.address.to_string(),
            port,
            protocol: at.protocol.as_str(),
            why: "is not an address of this host".into(),
        },
        _ => Error::HostIp {
            address: at.address.to_string(),
            port,
            protocol: at.protocol.as_str(),
            why: format!("cannot be bound: {e}"),
        },
    }
}

/// Binds the port; nothing where the kernel has no such sockets, so that nobody else could bind it.
fn bind(at: HostPort) -> io::Result<Option<Socket>> {
    let address = SocketAddrV4::new(at.address, at.port).into();
    let made = match at.protocol {
        Protocol::Tcp => Socket::new(Domain::IPV4, Type::STREAM, None),
        Protocol::Udp => Socket::new(Domain::IPV4, Type::DGRAM, None),
        Protocol::Sctp => Socket::new(Domain::IPV4, Type::STREAM, Some(SCTP.into())),
    };
    let socket = match made {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PROTONOSUPPORT.raw_os_error()) => return Ok(None),
        made => made?,
    };
    if at.protocol == Protocol::Tcp {
        // Or connections that ended a minute ago would keep it from us; others cannot share a listening port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address)?;
    if at.protocol != Protocol::Udp {
        socket.listen(1)?;
    }
    Ok(Some(socket))
}
