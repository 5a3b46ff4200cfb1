//! The part of DHCP (RFC 2131, 2132) that a server with fixed addresses needs. Every packet is taken for hostile.

use std::net::Ipv4Addr;

use crate::{Mac, Subnet};

const FIXED: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Old clients drop packets that are shorter.
const LEAST: usize = 300;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;

const PAD: u8 = 0;
const NETMASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const HOSTNAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const BROADCAST: u8 = 28;
const REQUESTED: u8 = 50;
const LEASE: u8 = 51;
const TYPE: u8 = 53;
const SERVER: u8 = 54;
const RENEW: u8 = 58;
const REBIND: u8 = 59;
const END: u8 = 255;

/// Seconds a lease lasts. It never changes, but clients insist.
const LEASE_SECONDS: u32 = 24 * 3600;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Discover,
    /// May I have this?
    Request,
    /// I have an address; tell me the rest.
    Inform,
}

/// A client's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What it wants.
    pub kind: Kind,
    /// Who it is.
    pub mac: Mac,
    /// The address it has and uses.
    pub client: Ipv4Addr,
    /// The address it asks for.
    pub requested: Option<Ipv4Addr>,
    /// The server it chose.
    pub server: Option<Ipv4Addr>,
    id: [u8; 4],
    flags: [u8; 2],
}

/// What an end is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its subnet.
    pub subnet: Subnet,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// The node's own address: DHCP and DNS server.
    pub server: Ipv4Addr,
    /// Its name.
    pub hostname: Option<String>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// Reads a client's packet; none where it is none of those we answer.
pub fn read(packet: &[u8]) -> Option<Query> {
    let head = packet.get(..FIXED)?;
    if head[0] != REQUEST || head[1] != ETHERNET || head[2] != 6 || packet.get(FIXED..FIXED + 4)? != MAGIC {
        return None;
    }
    let (mut kind, mut requested, mut server) = (None, None, None);
    for (tag, value) in options(&packet[FIXED + 4..]) {
        match tag {
            TYPE => kind = value.first().copied(),
            REQUESTED => requested = ipv4(value),
            SERVER => server = ipv4(value),
            _ => {}
        }
    }
    let kind = match kind? {
        1 => Kind::Discover,
        3 => Kind::Request,
        8 => Kind::Inform,
        _ => return None,
    };
    Some(Query {
        kind,
        mac: Mac(head[28..34].try_into().ok()?),
        client: ipv4(&head[12..16])?,
        requested,
        server,
        id: head[4..8].try_into().ok()?,
        flags: head[10..12].try_into().ok()?,
    })
}

fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (&tag, rest) = bytes.split_first()?;
            bytes = rest;
            match tag {
                PAD => continue,
                END => return None,
                _ => {}
            }
            let (&length, rest) = bytes.split_first()?;
            let value = rest.get(..usize::from(length))?;
            bytes = &rest[usize::from(length)..];
            return Some((tag, value));
        }
    })
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// The reply to a query, or none where another server is meant.
pub fn answer(query: &Query, lease: &Lease) -> Option<Vec<u8>> {
    if query.server.is_some_and(|s| s != lease.server) {
        return None;
    }
    match query.kind {
        Kind::Discover => Some(write(query, lease, Says::Offer)),
        Kind::Inform => Some(write(query, lease, Says::Inform)),
        Kind::Request => {
            let wanted = query.requested.unwrap_or(query.client);
            let says = if wanted == lease.address { Says::Ack } else { Says::Nak };
            Some(write(query, lease, says))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Offer,
    Ack,
    Nak,
    Inform,
}

fn write(query: &Query, lease: &Lease, says: Says) -> Vec<u8> {
    let mut p = vec![0; FIXED];
    p[0] = REPLY;
    p[1] = ETHERNET;
    p[2] = 6;
    p[4..8].copy_from_slice(&query.id);
    p[10..12].copy_from_slice(&query.flags);
    if says == Says::Ack || says == Says::Inform {
        p[12..16].copy_from_slice(&query.client.octets());
    }
    if says == Says::Offer || says == Says::Ack {
        p[16..20].copy_from_slice(&lease.address.octets());
        p[20..24].copy_from_slice(&lease.server.octets());
    }
    p[28..34].copy_from_slice(&query.mac.0);
    p.extend_from_slice(&MAGIC);
    let code = match says {
        Says::Offer => 2,
        Says::Ack | Says::Inform => 5,
        Says::Nak => 6,
    };
    option(&mut p, TYPE, &[code]);
    option(&mut p, SERVER, &lease.server.octets());
    if says == Says::Offer || says == Says::Ack {
        option(&mut p, LEASE, &LEASE_SECONDS.to_be_bytes());
        option(&mut p, RENEW, &(LEASE_SECONDS / 2).to_be_bytes());
        option(&mut p, REBIND, &(LEASE_SECONDS / 8 * 7).to_be_bytes());
    }
    if says != Says::Nak {
        parameters(&mut p, lease);
    }
    p.push(END);
    if p.len() < LEAST {
        p.resize(LEAST, PAD);
    }
    p
}

fn parameters(p: &mut Vec<u8>, lease: &Lease) {
    option(p, NETMASK, &lease.subnet.netmask().octets());
    option(p, BROADCAST, &lease.subnet.broadcast().octets());
    if let Some(router) = lease.router {
        option(p, ROUTER, &router.octets());
    }
    option(p, DNS, &lease.server.octets());
    option(p, DOMAIN, b"biga.internal");
    if let Some(name) = &lease.hostname {
        option(p, HOSTNAME, name.as_bytes());
    }
    if let Some(mtu) = lease.mtu.and_then(|m| u16::try_from(m).ok()) {
        option(p, MTU, &mtu.to_be_bytes());
    }
}

fn option(p: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let value = &value[..value.len().min(255)];
    p.push(tag);
    p.push(value.len() as u8);
    p.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(kind: u8, more: &[u8]) -> Vec<u8> {
        let mut p = vec![0; FIXED];
        p[..3].copy_from_slice(&[1, 1, 6]);
        p[4..8].copy_from_slice(&[1, 2, 3, 4]);
        p[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        p.extend_from_slice(&MAGIC);
        p.extend_from_slice(&[PAD, TYPE, 1, kind]);
        p.extend_from_slice(more);
        p.push(END);
        p
    }

    fn lease() -> Lease {
        let subnet = Subnet::parse("10.88.0.0/24").unwrap();
        Lease {
            address: Ipv4Addr::new(10, 88, 0, 5),
            subnet,
            router: Some(subnet.first_host()),
            server: subnet.first_host(),
            hostname: Some("vm1".into()),
            mtu: Some(1400),
        }
    }

    fn sent(reply: &[u8]) -> Vec<(u8, Vec<u8>)> {
        options(&reply[FIXED + 4..]).map(|(t, v)| (t, v.to_vec())).collect()
    }

    #[test]
    fn a_discover_is_offered_its_address() {
        let query = read(&packet(1, &[])).unwrap();
        assert_eq!((query.kind, query.mac), (Kind::Discover, Mac([2, 0, 0, 0, 0, 9])));
        let reply = answer(&query, &lease()).unwrap();
        assert!(reply.len() >= LEAST);
        assert_eq!(reply[4..8], [1, 2, 3, 4]);
        assert_eq!(reply[16..20], [10, 88, 0, 5]);
        let options = sent(&reply);
        for expected in [
            (TYPE, vec![2]),
            (NETMASK, vec![255, 255, 255, 0]),
            (ROUTER, vec![10, 88, 0, 1]),
            (DNS, vec![10, 88, 0, 1]),
            (HOSTNAME, b"vm1".to_vec()),
            (MTU, vec![5, 120]),
        ] {
            assert!(options.contains(&expected), "{expected:?} in {options:?}");
        }
    }

    #[test]
    fn a_request_is_granted_or_not() {
        let right = read(&packet(3, &[REQUESTED, 4, 10, 88, 0, 5])).unwrap();
        assert!(sent(&answer(&right, &lease()).unwrap()).contains(&(TYPE, vec![5])));
        let wrong = read(&packet(3, &[REQUESTED, 4, 10, 88, 0, 6])).unwrap();
        let refusal = answer(&wrong, &lease()).unwrap();
        assert!(sent(&refusal).contains(&(TYPE, vec![6])));
        assert_eq!(refusal[16..20], [0; 4]);
        let other = read(&packet(3, &[REQUESTED, 4, 10, 88, 0, 5, SERVER, 4, 10, 88, 0, 9])).unwrap();
        assert_eq!(answer(&other, &lease()), None);
    }

    #[test]
    fn others_are_not_read() {
        let good = packet(1, &[]);
        for (at, with) in [(0, 2), (1, 6), (2, 16), (FIXED, 0)] {
            let mut bad = good.clone();
            bad[at] = with;
            assert_eq!(read(&bad), None, "{at}");
        }
        assert_eq!(read(&packet(7, &[])), None);
        assert_eq!(read(&good[..good.len() - 4]), None);
        assert_eq!(read(&packet(1, &[REQUESTED, 200, 1])).map(|q| q.requested), Some(None));
    }

    proptest! {
        #[test]
        fn never_panics(packet in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&packet);
        }

        #[test]
        fn any_options_are_survived(more in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(query) = read(&packet(3, &more)) {
                let _ = answer(&query, &lease());
            }
        }
    }
}
