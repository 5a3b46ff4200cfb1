//! The rtnetlink messages we use: links, addresses, routes, neighbours.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Batch, Body, CREATE, NLM_F_ACK, REPLACE, Socket, attributes};
use crate::{Error, Mac, Subnet};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const OPERSTATE_UP: u8 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

const NDA_DST: u16 = 1;
const NTF_USE: u8 = 1;

const IFF_UP: u32 = 1;

/// Index of the loopback interface in every namespace.
pub const LOOPBACK: u32 = 1;

/// An interface, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The bridge it is in, by number.
    pub master: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Whether it is a bridge itself.
    pub is_bridge: bool,
}

/// A veth pair to be made.
pub struct Veth<'a> {
    /// Name of the end on this side.
    pub name: &'a str,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub mac: Mac,
    /// The other end's namespace.
    pub netns: BorrowedFd<'a>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut b = [0; 16];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    b[8..12].copy_from_slice(&flags.to_ne_bytes());
    b[12..16].copy_from_slice(&change.to_ne_bytes());
    b
}

/// Nothing speaks IPv6 here: without link-local addresses the kernel keeps quiet on the link.
fn no_link_local(b: &mut Body<'_>) {
    b.nest(IFLA_AF_SPEC, |b| {
        b.nest(AF_INET6, |b| b.attr(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]));
    });
}

impl Batch {
    /// Makes a bridge, down.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: Option<u32>) {
        self.message(format!("make bridge {name}"), RTM_NEWLINK, CREATE | NLM_F_ACK, |b| {
            b.raw(&ifinfo(0, 0, 0));
            b.attr_str(IFLA_IFNAME, name);
            b.attr(IFLA_ADDRESS, &mac.0);
            if let Some(mtu) = mtu {
                b.attr_u32(IFLA_MTU, mtu);
            }
            b.nest(IFLA_LINKINFO, |b| {
                b.attr_str(IFLA_INFO_KIND, "bridge");
                b.nest(IFLA_INFO_DATA, |b| b.attr_u32(IFLA_BR_FORWARD_DELAY, 0));
            });
        });
    }

    /// Has IPv4 packets that a bridge passes between its ports go through the rules, too.
    pub fn filter_bridged(&mut self, bridge: &str) {
        self.message(
            format!("filter what passes bridge {bridge}"),
            RTM_NEWLINK,
            NLM_F_ACK,
            |b| {
                b.raw(&ifinfo(0, 0, 0));
                b.attr_str(IFLA_IFNAME, bridge);
                b.nest(IFLA_LINKINFO, |b| {
                    b.attr_str(IFLA_INFO_KIND, "bridge");
                    b.nest(IFLA_INFO_DATA, |b| b.attr(IFLA_BR_NF_CALL_IPTABLES, &[1]));
                });
            },
        );
    }

    /// Makes a veth pair, both ends down, the other in its namespace.
    pub fn add_veth(&mut self, veth: &Veth<'_>) {
        self.message(
            format!("make veth {}", veth.name),
            RTM_NEWLINK,
            CREATE | NLM_F_ACK,
            |b| {
                b.raw(&ifinfo(0, 0, 0));
                b.attr_str(IFLA_IFNAME, veth.name);
                if let Some(mtu) = veth.mtu {
                    b.attr_u32(IFLA_MTU, mtu);
                }
                b.nest(IFLA_LINKINFO, |b| {
                    b.attr_str(IFLA_INFO_KIND, "veth");
                    b.nest(IFLA_INFO_DATA, |b| {
                        b.nest(VETH_INFO_PEER, |b| {
                            b.raw(&ifinfo(0, 0, 0));
                            b.attr_str(IFLA_IFNAME, veth.peer);
                            b.attr(IFLA_ADDRESS, &veth.mac.0);
                            if let Some(mtu) = veth.mtu {
                                b.attr_u32(IFLA_MTU, mtu);
                            }
                            b.attr_u32(IFLA_NET_NS_FD, veth.netns.as_raw_fd() as u32);
                        });
                    });
                });
            },
        );
    }

    /// Turns off IPv6 link-local addresses of a link that is down.
    pub fn quiet(&mut self, name: &str) {
        self.message(format!("configure IPv6 on {name}"), RTM_SETLINK, NLM_F_ACK, |b| {
            b.raw(&ifinfo(0, 0, 0));
            b.attr_str(IFLA_IFNAME, name);
            no_link_local(b);
        });
    }

    /// Sets a link up, by number.
    pub fn up(&mut self, index: u32) {
        self.message(format!("set link {index} up"), RTM_SETLINK, NLM_F_ACK, |b| {
            b.raw(&ifinfo(index, IFF_UP, IFF_UP));
        });
    }

    /// Puts a link into a bridge and sets it up. Frames may go back out of the port they came from: with the kernel's
    /// bridge netfilter, that is the way of an instance to its own published port. An isolated port reaches none of the
    /// other isolated ones.
    pub fn join(&mut self, name: &str, master: u32, mtu: Option<u32>, isolated: bool) {
        self.message(format!("put {name} into its bridge"), RTM_SETLINK, NLM_F_ACK, |b| {
            b.raw(&ifinfo(0, IFF_UP, IFF_UP));
            b.attr_str(IFLA_IFNAME, name);
            b.attr_u32(IFLA_MASTER, master);
            if let Some(mtu) = mtu {
                b.attr_u32(IFLA_MTU, mtu);
            }
        });
        self.message(
            format!("set the modes of {name} in its bridge"),
            RTM_NEWLINK,
            NLM_F_ACK,
            |b| {
                b.raw(&ifinfo(0, 0, 0));
                b.attr_str(IFLA_IFNAME, name);
                b.nest(IFLA_LINKINFO, |b| {
                    b.attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
                    b.nest(IFLA_INFO_SLAVE_DATA, |b| {
                        b.attr(IFLA_BRPORT_MODE, &[1]);
                        b.attr(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)]);
                    });
                });
            },
        );
    }

    /// Changes a link's largest packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) {
        self.message(format!("set the MTU of link {index}"), RTM_SETLINK, NLM_F_ACK, |b| {
            b.raw(&ifinfo(index, 0, 0));
            b.attr_u32(IFLA_MTU, mtu);
        });
    }

    /// Removes a link by name; its veth peer goes with it.
    pub fn del_link(&mut self, name: &str) {
        self.message(format!("remove link {name}"), RTM_DELLINK, NLM_F_ACK, |b| {
            b.raw(&ifinfo(0, 0, 0));
            b.attr_str(IFLA_IFNAME, name);
        });
    }

    /// Gives a link an address.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) {
        let broadcast = Subnet::containing(address, prefix).broadcast();
        let what = format!("give link {index} the address {address}/{prefix}");
        self.message(what, RTM_NEWADDR, REPLACE | NLM_F_ACK, |b| {
            b.raw(&ifaddr(index, prefix));
            b.attr(IFA_LOCAL, &address.octets());
            b.attr(IFA_ADDRESS, &address.octets());
            b.attr(IFA_BROADCAST, &broadcast.octets());
        });
    }

    /// Takes an address from a link.
    pub fn del_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) {
        let what = format!("take the address {address}/{prefix} from link {index}");
        self.message(what, RTM_DELADDR, NLM_F_ACK, |b| {
            b.raw(&ifaddr(index, prefix));
            b.attr(IFA_LOCAL, &address.octets());
        });
    }

    /// Sends everything that has no other route to `gateway`.
    pub fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        let what = format!("set the default route to {gateway}");
        self.message(what, RTM_NEWROUTE, REPLACE | NLM_F_ACK, |b| {
            b.raw(&[
                AF_INET,
                0,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_STATIC,
                0,
                RTN_UNICAST,
                0,
                0,
                0,
                0,
            ]);
            b.attr(RTA_GATEWAY, &gateway.octets());
            b.attr_u32(RTA_OIF, index);
        });
    }

    /// Has the kernel ask for the hardware address of a neighbour. The question tells all others on the segment
    /// ours, so those who remember an earlier holder of our address learn of the change.
    pub fn announce_to(&mut self, index: u32, neighbour: Ipv4Addr) {
        let what = format!("look up neighbour {neighbour}");
        self.message(what, RTM_NEWNEIGH, REPLACE | NLM_F_ACK, |b| {
            let mut ndmsg = [0; 12];
            ndmsg[0] = AF_INET;
            ndmsg[4..8].copy_from_slice(&index.to_ne_bytes());
            ndmsg[10] = NTF_USE;
            b.raw(&ndmsg);
            b.attr(NDA_DST, &neighbour.octets());
        });
    }
}

fn ifaddr(index: u32, prefix: u8) -> [u8; 8] {
    let mut b = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    b
}

fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn ipv4_of(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}

impl Socket {
    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        self.dump("list interfaces", RTM_GETLINK, &ifinfo(0, 0, 0), |body| {
            let (Some(index), Some(rest)) = (body.get(4..8).and_then(u32_of), body.get(16..)) else {
                return;
            };
            let (mut name, mut master, mut mac, mut is_bridge) = (String::new(), None, None, false);
            for (tag, value) in attributes(rest) {
                match tag {
                    IFLA_IFNAME => {
                        name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
                    }
                    IFLA_MASTER => master = u32_of(value),
                    IFLA_ADDRESS => mac = value.try_into().ok().map(Mac),
                    IFLA_LINKINFO => is_bridge = attributes(value).any(|a| a == (IFLA_INFO_KIND, b"bridge\0")),
                    _ => {}
                }
            }
            links.push(Link {
                index,
                name,
                master,
                mac,
                is_bridge,
            });
        })?;
        Ok(links)
    }

    /// All IPv4 addresses with the number of their interface.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>, Error> {
        let mut found = Vec::new();
        let fixed = [AF_INET, 0, 0, 0, 0, 0, 0, 0];
        self.dump("list addresses", RTM_GETADDR, &fixed, |body| {
            let (Some(index), Some(rest)) = (body.get(4..8).and_then(u32_of), body.get(8..)) else {
                return;
            };
            let local = attributes(rest).find(|(tag, _)| *tag == IFA_LOCAL);
            if let Some(address) = local.and_then(|(_, v)| ipv4_of(v)) {
                found.push((index, address, body[1]));
            }
        })?;
        Ok(found)
    }

    /// All IPv4 routes but default ones and those to our own addresses, with the number of their interface.
    pub fn routes(&mut self) -> Result<Vec<(Option<u32>, Subnet)>, Error> {
        let mut found = Vec::new();
        let fixed = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.dump("list routes", RTM_GETROUTE, &fixed, |body| {
            let (Some(&prefix), Some(rest)) = (body.get(1), body.get(12..)) else {
                return;
            };
            let (mut table, mut oif, mut dst) = (u32::from(body[4]), None, None);
            for (tag, value) in attributes(rest) {
                match tag {
                    RTA_TABLE => table = u32_of(value).unwrap_or(table),
                    RTA_OIF => oif = u32_of(value),
                    RTA_DST => dst = ipv4_of(value),
                    _ => {}
                }
            }
            if let Some(dst) = dst.filter(|_| table != RT_TABLE_LOCAL && prefix > 0) {
                found.push((oif, Subnet::containing(dst, prefix)));
            }
        })?;
        Ok(found)
    }

    /// Whether an interface carries traffic: it and the other end are up, and the kernel has told its bridge so.
    pub fn carries(&mut self, name: &str) -> Result<bool, Error> {
        let mut state = 0;
        let body = |b: &mut Body<'_>| {
            b.raw(&ifinfo(0, 0, 0));
            b.attr_str(IFLA_IFNAME, name);
        };
        self.ask("look at an interface", RTM_GETLINK, NLM_F_ACK, body, |answer| {
            let mut all = attributes(answer.get(16..).unwrap_or_default());
            state = all
                .find(|(tag, _)| *tag == IFLA_OPERSTATE)
                .and_then(|(_, v)| v.first().copied())
                .unwrap_or(0);
        })?;
        Ok(state == OPERSTATE_UP)
    }

    /// The number of an interface, where it exists.
    pub fn index_of(&mut self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.links()?.into_iter().find(|l| l.name == name).map(|l| l.index))
    }
}
