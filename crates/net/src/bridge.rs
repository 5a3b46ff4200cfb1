//! The bridge of a network on the host: one of our making, or one that was there before us.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use biga_model::NetworkSpec;

use crate::ids::{Mac, Names};
use crate::netlink::route::Link;
use crate::netlink::{Batch, Socket};
use crate::network::Plan;
use crate::{Error, attach};

/// Is there where the kernel can have packets between ports go through the rules of IPv4.
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The hardware address of the bridges that we make: by it we know them again.
fn mac(uid: &str) -> Mac {
    Mac::derive(uid, "bridge")
}

/// The name of a network's bridge.
pub fn name(names: &Names, uid: &str, spec: &NetworkSpec) -> String {
    spec.bridge_name.clone().unwrap_or_else(|| names.bridge(uid))
}

/// Refuses names that are ours for something else.
pub fn check_name(names: &Names, network: &str, spec: &NetworkSpec) -> Result<(), Error> {
    let taken = |n: &&String| n.starts_with(&names.bridge_prefix()) || names.stem_of(n).is_some() || n.as_str() == "lo";
    match spec.bridge_name.as_ref().filter(taken) {
        None => Ok(()),
        Some(name) => Err(invalid(
            network,
            name,
            "is a name that this node gives: choose another one",
        )),
    }
}

fn invalid(network: &str, bridge: &str, why: impl Into<String>) -> Error {
    Error::Invalid {
        network: network.to_owned(),
        field: "spec.bridgeName",
        value: bridge.to_owned(),
        why: why.into(),
    }
}

fn find(home: &mut Socket, bridge: &str) -> Result<Option<Link>, Error> {
    Ok(home.links()?.into_iter().find(|l| l.name == bridge))
}

/// What was made.
pub struct Made {
    /// Its number.
    pub index: u32,
    /// Whether its ports are to be isolated, for instances not to reach each other. Where packets between ports go through
    /// the rules, those keep them apart: isolated ports would keep from each other also what was translated on the way, which
    /// such a bridge passes on by itself.
    pub isolated_ports: bool,
}

/// Makes the bridge, or brings the one there into shape. One that is not of our making is only used.
pub fn make(home: &mut Socket, bridge: &str, uid: &str, plan: &Plan) -> Result<Made, Error> {
    let index = match find(home, bridge)? {
        Some(link) if link.mac != Some(mac(uid)) => {
            return Ok(Made {
                index: borrow(home, &link, plan)?,
                isolated_ports: plan.traffic.isolate,
            });
        }
        Some(link) => link.index,
        None => add(home, bridge, uid, plan)?,
    };
    let mut batch = Batch::new();
    for (holder, address, prefix) in home.addresses()? {
        if holder == index && (address, prefix) != (plan.gateway, plan.subnet.prefix()) {
            batch.del_address(index, address, prefix);
        }
    }
    batch.add_address(index, plan.gateway, plan.subnet.prefix());
    if let Some(mtu) = plan.mtu {
        batch.set_mtu(index, mtu);
    }
    batch.up(index);
    home.run(batch)?;
    let filtered = plan.traffic.isolate && Path::new(BRIDGE_NETFILTER).exists();
    if filtered {
        let mut batch = Batch::new();
        batch.filter_bridged(bridge);
        home.run(batch)?;
    }
    Ok(Made {
        index,
        isolated_ports: plan.traffic.isolate && !filtered,
    })
}

fn add(home: &mut Socket, bridge: &str, uid: &str, plan: &Plan) -> Result<u32, Error> {
    let mut batch = Batch::new();
    batch.add_bridge(bridge, mac(uid), plan.mtu);
    home.run(batch)?;
    let mut quiet = Batch::new();
    quiet.quiet(bridge);
    quiet.optional();
    home.run(quiet)?;
    home.index_of(bridge)?
        .ok_or_else(|| Error::netlink(format!("show bridge {bridge}"), rustix::io::Errno::NODEV))
}

/// Takes a bridge of somebody else's as it is.
fn borrow(home: &mut Socket, link: &Link, plan: &Plan) -> Result<u32, Error> {
    if !link.is_bridge {
        return Err(invalid(
            &plan.name,
            &link.name,
            "is an interface of this host that is no bridge",
        ));
    }
    let has = |(holder, address, prefix): &(u32, Ipv4Addr, u8)| {
        (*holder, *address, *prefix) == (link.index, plan.gateway, plan.subnet.prefix())
    };
    if !home.addresses()?.iter().any(has) {
        let why = format!(
            "is a bridge of this host without the address {}/{}: give it that address, or make the network with the subnet and the \
             gateway that it has",
            plan.gateway,
            plan.subnet.prefix()
        );
        return Err(invalid(&plan.name, &link.name, why));
    }
    let mut batch = Batch::new();
    batch.up(link.index);
    home.run(batch)?;
    Ok(link.index)
}

/// Removes the bridge, if it is of our making.
pub fn remove(home: &mut Socket, bridge: &str, uid: &str) -> Result<(), Error> {
    match find(home, bridge)? {
        Some(link) if link.mac == Some(mac(uid)) => attach::drop_links(home, &[bridge]),
        _ => Ok(()),
    }
}

/// What the kernel must allow: to forward, and to send packets from the host's loopback into the bridge.
pub fn allow_forwarding(bridge: &str) -> Result<(), Error> {
    turn_on(Path::new("/proc/sys/net/ipv4/ip_forward"))?;
    turn_on(&Path::new("/proc/sys/net/ipv4/conf").join(bridge).join("route_localnet"))
}

fn turn_on(path: &Path) -> Result<(), Error> {
    let now = fs::read_to_string(path).map_err(|e| Error::io("read the sysctl", path, e))?;
    if now.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1").map_err(|e| Error::io("set the sysctl", path, e))
}
