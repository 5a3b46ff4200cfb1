//! Addresses and routes by rtnetlink: a handful of fixed messages, written by hand.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use biga_wire::guest::GuestNic;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{Context, Error};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;

/// Brings up the loopback interface and each card.
pub fn setup(nics: &[GuestNic]) -> Result<(), Error> {
    let mut netlink = Netlink::open().step(|| "open a netlink socket".into())?;
    let lo = index("lo")?;
    netlink.link(lo, None, 0, true).step(|| "bring up lo".into())?;
    for nic in nics {
        let found = by_mac(&nic.mac)?;
        card(&mut netlink, nic, &found)?;
    }
    Ok(())
}

fn card(netlink: &mut Netlink, nic: &GuestNic, found: &str) -> Result<(), Error> {
    let index = index(found)?;
    let name = match nic.interface.as_str() {
        "" => found,
        name => name,
    };
    let what = |verb: &str| format!("{verb} network card {name}");
    if name != found {
        netlink.link(index, Some(name), 0, false).step(|| what("name"))?;
    }
    netlink.link(index, None, nic.mtu, true).step(|| what("bring up"))?;
    if !nic.address.is_empty() {
        let (address, prefix) = parse_address(&nic.address)?;
        netlink
            .address(index, address, prefix)
            .step(|| what(&format!("give {} to", nic.address)))?;
    }
    if !nic.gateway.is_empty() {
        let gateway = nic.gateway.parse().map_err(|_| Error::Field {
            what: "gateway",
            value: nic.gateway.clone(),
        })?;
        netlink
            .default_route(index, gateway)
            .step(|| what(&format!("set the router {} of", nic.gateway)))?;
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), Error> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok().filter(|p| *p <= 32)?))
    };
    parse().ok_or_else(|| Error::Field {
        what: "address",
        value: text.to_owned(),
    })
}

fn by_mac(mac: &str) -> Result<String, Error> {
    let class = Path::new("/sys/class/net");
    let entries = fs::read_dir(class).step(|| "list network cards".into())?;
    let mut names = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    let fits = |name: &String| {
        let address = fs::read_to_string(class.join(name).join("address")).unwrap_or_default();
        address.trim().eq_ignore_ascii_case(mac)
    };
    names
        .find(fits)
        .ok_or_else(|| Error::Device(format!("network card {mac}")))
}

fn index(name: &str) -> Result<u32, Error> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let text = fs::read_to_string(&path).step(|| format!("read {path}"))?;
    text.trim().parse().map_err(|_| Error::Field {
        what: "interface index",
        value: text,
    })
}

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Message {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Message(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        let len = 4 + value.len() as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> io::Result<Netlink> {
        // No protocol stands for the first, which is routing.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Netlink(socket))
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        rustix::net::send(&self.0, &message.finish(), SendFlags::empty())?;
        let mut buf = [0u8; 4096];
        let (n, _) = rustix::net::recv(&self.0, &mut buf, RecvFlags::empty())?;
        acknowledged(&buf[..n.min(4096)])
    }

    fn link(&mut self, index: u32, name: Option<&str>, mtu: u32, up: bool) -> io::Result<()> {
        let flags = if up { IFF_UP } else { 0 };
        let mut body = [0u8; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..16].copy_from_slice(&flags.to_ne_bytes());
        let mut message = Message::new(RTM_NEWLINK, 0, &body);
        if let Some(name) = name {
            let mut bytes = name.as_bytes().to_vec();
            bytes.push(0);
            message = message.attribute(IFLA_IFNAME, &bytes);
        }
        if mtu > 0 {
            message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.ask(message)
    }

    fn address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut body = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = u32::from(address) | host_bits;
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
            .attribute(IFA_LOCAL, &address.octets())
            .attribute(IFA_ADDRESS, &address.octets())
            .attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
        self.ask(message)
    }

    fn default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        // Main table, by an administrator at boot, everywhere, to one destination.
        let body = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE, &body)
            .attribute(RTA_GATEWAY, &gateway.octets())
            .attribute(RTA_OIF, &index.to_ne_bytes());
        match self.ask(message) {
            // A second card with a router: the first one's route stays.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
}

fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an answer of netlink that is none");
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer
        .get(16..20)
        .and_then(|b| b.try_into().ok())
        .map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_padded_and_counted() {
        let bytes = Message::new(RTM_NEWLINK, 0, &[0; 16])
            .attribute(IFLA_IFNAME, b"eth0\0")
            .finish();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 44);
        assert_eq!(u16::from_ne_bytes(bytes[32..34].try_into().unwrap()), 9);
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(
            parse_address("10.88.0.5/24").unwrap(),
            (Ipv4Addr::new(10, 88, 0, 5), 24)
        );
        for bad in ["", "10.0.0.1", "10.0.0.1/33", "x/8", "10.0.0/8"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_are_understood() {
        let mut answer = vec![0; 20];
        answer[4] = 2;
        assert!(acknowledged(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(acknowledged(&answer[..10]).is_err());
    }
}
