//! Making a network: its subnet, its bridge, its rules, its servers.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use biga_model::kinds::network::GatewayMode;
use biga_model::{NetworkSpec, NetworkStatus};
use tokio::task::JoinHandle;

use crate::dhcp::server::Leases;
use crate::dns::directory::Directory;
use crate::dns::upstream::Upstreams;
use crate::dns::zone::Zone;
use crate::ipam::Pool;
use crate::netlink::Socket;
use crate::nft::{Elements, Set};
use crate::{Config, Error, Subnet, dhcp, dns, subnet};

/// A network that was ensured.
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub bridge: String,
    /// That interface's number.
    pub index: u32,
    /// Whether its ports are isolated from each other.
    pub isolated_ports: bool,
    /// Whether it is cut off from outside.
    pub internal: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// How packets pass.
    pub traffic: Traffic,
    /// Its addresses.
    pub pool: Pool,
    /// Its names.
    pub zone: Arc<Zone>,
    /// Its DHCP clients.
    pub leases: Arc<Leases>,
    /// Its DNS and DHCP.
    pub servers: Servers,
}

/// Tasks that end with the network.
#[derive(Default)]
pub struct Servers {
    dns: Option<JoinHandle<()>>,
    dhcp: Option<JoinHandle<()>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for task in [&self.dns, &self.dhcp].into_iter().flatten() {
            task.abort();
        }
    }
}

impl Servers {
    /// Ends the tasks and waits until their sockets are closed.
    pub async fn stop(mut self) {
        for task in [self.dns.take(), self.dhcp.take()].into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
    }

    fn running(task: &Option<JoinHandle<()>>) -> bool {
        task.as_ref().is_some_and(|t| !t.is_finished())
    }
}

/// How packets of a network pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// How it is connected with the outside.
    pub mode: GatewayMode,
    /// Whether instances do not reach each other.
    pub isolate: bool,
    /// Whether packets to the outside get another source address.
    pub translate: bool,
    /// Which one, where it is not the host's usual one.
    pub source: Option<Ipv4Addr>,
    /// Address of the host for published ports that name none.
    pub bind: Option<Ipv4Addr>,
}

impl Traffic {
    fn of(spec: &NetworkSpec) -> Result<Traffic, (&'static str, String)> {
        let address = |field, text: &Option<String>| match text {
            None => Ok(None),
            Some(t) => t.parse().map(Some).map_err(|_| (field, t.clone())),
        };
        Ok(Traffic {
            mode: spec.gateway_mode,
            isolate: spec.isolate_instances,
            translate: spec.translates(),
            source: address("spec.sourceAddress", &spec.source_address)?,
            bind: address("spec.bindAddress", &spec.bind_address)?,
        })
    }
}

/// What a network looks like before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its range.
    pub subnet: Subnet,
    /// The node's own address.
    pub gateway: Ipv4Addr,
    /// Whether it is cut off from outside.
    pub internal: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// How packets pass.
    pub traffic: Traffic,
    /// Where free addresses are taken from.
    pub range: Option<Subnet>,
    /// Addresses nobody gets.
    pub reserved: Vec<Ipv4Addr>,
}

/// What others use already.
#[derive(Debug, Default)]
pub struct Taken {
    /// Other networks of ours: name and range.
    pub networks: Vec<(String, Subnet)>,
    /// Addresses of the host's interfaces, with their ranges.
    pub addresses: Vec<Subnet>,
    /// Destinations of the host's routes.
    pub routes: Vec<Subnet>,
    /// The range on our own bridge, if it is there from an earlier run.
    pub own: Option<(Subnet, Ipv4Addr)>,
}

/// Chooses subnet and gateway: the spec's, else those it had, else free ones.
pub fn plan(
    config: &Config,
    name: &str,
    spec: &NetworkSpec,
    previous: Option<&NetworkStatus>,
    taken: &Taken,
) -> Result<Plan, Error> {
    let invalid = |field, value: &str, why: String| Error::Invalid {
        network: name.to_owned(),
        field,
        value: value.to_owned(),
        why,
    };
    let had = previous
        .and_then(|p| Some((Subnet::parse(&p.subnet).ok()?, p.gateway.parse().ok()?)))
        .or(taken.own);
    let subnet = match &spec.subnet {
        Some(text) => {
            let subnet = Subnet::parse(text).map_err(|why| invalid("spec.subnet", text, why))?;
            if had.map(|h| h.0) != Some(subnet) {
                refuse_overlap(name, subnet, &taken.addresses, "an address of the host")?;
            }
            subnet
        }
        None => match had {
            Some((subnet, _)) => subnet,
            None => pick(config, name, taken)?,
        },
    };
    for (other, range) in &taken.networks {
        refuse_overlap(name, subnet, &[*range], &format!("network {other}"))?;
    }
    let gateway = match &spec.gateway {
        Some(text) => text
            .parse()
            .map_err(|_| invalid("spec.gateway", text, "is no IPv4 address".into()))?,
        None => had.filter(|h| h.0 == subnet).map_or(subnet.first_host(), |h| h.1),
    };
    if !subnet.contains(gateway) || gateway == subnet.address() || gateway == subnet.broadcast() {
        let why = format!("is no host address in {subnet}");
        return Err(invalid("spec.gateway", &gateway.to_string(), why));
    }
    let range = match &spec.ip_range {
        Some(text) => {
            let range = Subnet::read(text).map_err(|why| invalid("spec.ipRange", text, why))?;
            if !subnet.contains(range.address()) || range.prefix() < subnet.prefix() {
                return Err(invalid("spec.ipRange", text, format!("is not in {subnet}")));
            }
            Some(range)
        }
        None => None,
    };
    let mut reserved = Vec::new();
    for text in spec.reserved.values() {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| invalid("spec.reserved", text, "is no IPv4 address".into()))?;
        if !subnet.contains(address) {
            return Err(invalid("spec.reserved", text, format!("is not in {subnet}")));
        }
        reserved.push(address);
    }
    let traffic = Traffic::of(spec).map_err(|(field, text)| invalid(field, &text, "is no IPv4 address".into()))?;
    Ok(Plan {
        traffic,
        range,
        reserved,
        name: name.to_owned(),
        subnet,
        gateway,
        internal: spec.internal,
        mtu: spec.mtu,
    })
}

fn pick(config: &Config, name: &str, taken: &Taken) -> Result<Subnet, Error> {
    let networks = taken.networks.iter().map(|(_, s)| *s);
    let all: Vec<_> = networks
        .chain(taken.addresses.iter().copied())
        .chain(taken.routes.iter().copied())
        .collect();
    subnet::pick(&config.pools, config.pool_prefix, &all).ok_or_else(|| Error::NoSubnet {
        network: name.to_owned(),
    })
}

fn refuse_overlap(name: &str, subnet: Subnet, others: &[Subnet], what: &str) -> Result<(), Error> {
    match others.iter().find(|o| o.overlaps(subnet)) {
        None => Ok(()),
        Some(other) => Err(Error::Overlap {
            network: name.to_owned(),
            subnet,
            with: format!("{what} ({other})"),
        }),
    }
}

/// Asks the kernel what is taken, but for the bridge itself.
pub fn taken(home: &mut Socket, bridge: &str) -> Result<Taken, Error> {
    let own = home.index_of(bridge)?;
    let mut taken = Taken::default();
    for (index, address, prefix) in home.addresses()? {
        let subnet = Subnet::containing(address, prefix);
        if Some(index) == own {
            taken.own = Some((subnet, address));
        } else {
            taken.addresses.push(subnet);
        }
    }
    let routes = home.routes()?;
    taken.routes = routes
        .into_iter()
        .filter(|(oif, _)| oif.is_none() || *oif != own)
        .map(|(_, s)| s)
        .collect();
    Ok(taken)
}

/// Replaces a network's elements in the rules.
pub fn write_elements(elements: &mut Elements, bridge: &str, plan: &Plan) {
    erase_elements(elements, bridge, Some(plan.subnet));
    let subnet = plan.subnet.to_string();
    let mut add = |set, key: String| elements.insert((set, key), String::new());
    add(Set::Bridges, bridge.to_owned());
    // Through the host they reach each other no more than along the bridge.
    if !plan.traffic.isolate {
        add(Set::Same, format!("{bridge} . {bridge}"));
    }
    add(Set::Subnets, subnet.clone());
    if plan.internal {
        add(Set::Internal, bridge.to_owned());
    }
    match plan.traffic.mode {
        GatewayMode::Nat => {}
        GatewayMode::NatUnprotected => drop(add(Set::Unprotected, bridge.to_owned())),
        GatewayMode::Routed => drop(add(Set::Routed, bridge.to_owned())),
        GatewayMode::Isolated => drop(add(Set::Isolated, bridge.to_owned())),
    }
    match plan.traffic.source {
        _ if plan.internal || !plan.traffic.translate => {}
        None => drop(add(Set::Nat, subnet)),
        Some(source) => drop(elements.insert((Set::Sources, subnet), source.to_string())),
    }
}

/// Removes a network's elements.
pub fn erase_elements(elements: &mut Elements, bridge: &str, subnet: Option<Subnet>) {
    let pair = format!("{bridge} . {bridge}");
    let subnet = subnet.map(|s| s.to_string());
    elements.retain(|(_, key), _| key != bridge && *key != pair && Some(key) != subnet.as_ref());
}

/// Starts the servers that do not run. A port taken by another program is no failure of the network: the text says
/// what is missing then.
pub fn start_servers(
    network: &mut Network,
    runtime: &tokio::runtime::Handle,
    directory: &Arc<Directory>,
    upstreams: &Arc<Upstreams>,
) -> String {
    let mut missing = Vec::new();
    let gateway = network.pool.gateway();
    if !Servers::running(&network.servers.dns) {
        match dns::server::bind(gateway) {
            Ok(bound) => {
                let served = dns::server::serve(bound, network.zone.clone(), directory.clone(), upstreams.clone());
                network.servers.dns = Some(runtime.spawn(log("DNS", network.bridge.clone(), served)));
            }
            Err(e) => missing.push(format!("no DNS: port 53 of {gateway} cannot be used ({e})")),
        }
    }
    if !Servers::running(&network.servers.dhcp) {
        match dhcp::server::bind(&network.bridge) {
            Ok(socket) => {
                let served = dhcp::server::serve(socket, network.leases.clone());
                network.servers.dhcp = Some(runtime.spawn(log("DHCP", network.bridge.clone(), served)));
            }
            Err(e) => missing.push(format!("no DHCP: port 67 on {} cannot be used ({e})", network.bridge)),
        }
    }
    for text in &missing {
        tracing::warn!(network = network.name, "{text}");
    }
    missing.join("; ")
}

async fn log(what: &'static str, bridge: String, served: impl Future<Output = io::Result<()>>) {
    if let Err(error) = served.await {
        tracing::error!(%error, bridge, "{what} ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> Subnet {
        Subnet::parse(s).unwrap()
    }

    fn planned(spec: &NetworkSpec, previous: Option<&NetworkStatus>, taken: &Taken) -> Result<Plan, Error> {
        plan(&Config::new("t", "/run/t"), "n", spec, previous, taken)
    }

    #[test]
    fn a_free_subnet_is_picked_and_kept() {
        let taken = Taken {
            networks: vec![("a".into(), net("10.88.0.0/24"))],
            addresses: vec![net("10.88.1.0/24")],
            routes: vec![net("10.88.2.0/23")],
            own: None,
        };
        let p = planned(&NetworkSpec::default(), None, &taken).unwrap();
        assert_eq!(
            (p.subnet, p.gateway),
            (net("10.88.4.0/24"), Ipv4Addr::new(10, 88, 4, 1))
        );
        let previous = NetworkStatus {
            subnet: "10.88.2.0/24".into(),
            gateway: "10.88.2.9".into(),
            ..NetworkStatus::default()
        };
        let p = planned(&NetworkSpec::default(), Some(&previous), &taken).unwrap();
        assert_eq!(
            (p.subnet, p.gateway),
            (net("10.88.2.0/24"), Ipv4Addr::new(10, 88, 2, 9))
        );
        let taken = Taken {
            own: Some((net("10.88.9.0/24"), Ipv4Addr::new(10, 88, 9, 1))),
            ..taken
        };
        assert_eq!(
            planned(&NetworkSpec::default(), None, &taken).unwrap().subnet,
            net("10.88.9.0/24")
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let taken = Taken {
            networks: vec![("a".into(), net("10.88.0.0/24"))],
            addresses: vec![net("192.168.0.0/24")],
            routes: vec![net("10.0.0.0/8")],
            own: None,
        };
        let spec = |subnet: &str, gateway: Option<&str>| NetworkSpec {
            subnet: Some(subnet.into()),
            gateway: gateway.map(Into::into),
            ..NetworkSpec::default()
        };
        assert!(matches!(
            planned(&spec("10.88.0.0/16", None), None, &taken),
            Err(Error::Overlap { .. })
        ));
        assert!(matches!(
            planned(&spec("192.168.0.0/16", None), None, &taken),
            Err(Error::Overlap { .. })
        ));
        assert!(matches!(
            planned(&spec("10.1.0.1/16", None), None, &taken),
            Err(Error::Invalid { .. })
        ));
        for gateway in ["10.1.0.0", "10.1.0.255", "10.2.0.1", "x"] {
            let r = planned(&spec("10.1.0.0/24", Some(gateway)), None, &taken);
            assert!(matches!(r, Err(Error::Invalid { .. })), "{gateway}");
        }
        // Inside a wide route is fine when asked for by name.
        assert!(planned(&spec("10.1.0.0/24", None), None, &taken).is_ok());
        let full = Taken {
            routes: vec![net("10.0.0.0/8"), net("172.0.0.0/8")],
            ..Taken::default()
        };
        assert!(matches!(
            planned(&NetworkSpec::default(), None, &full),
            Err(Error::NoSubnet { .. })
        ));
    }

    #[test]
    fn options_choose_the_rules() {
        let has = |change: fn(&mut NetworkSpec)| {
            let mut spec = NetworkSpec::default();
            change(&mut spec);
            let mut elements = Elements::new();
            write_elements(&mut elements, "b", &planned(&spec, None, &Taken::default()).unwrap());
            let mut sets: Vec<Set> = elements.keys().map(|k| k.0).collect();
            sets.dedup();
            erase_elements(&mut elements, "b", Some(net("10.88.0.0/24")));
            assert!(elements.is_empty(), "{elements:?}");
            sets
        };
        let usual = [Set::Bridges, Set::Same, Set::Nat, Set::Subnets];
        assert_eq!(has(|_| {}), usual);
        assert_eq!(
            has(|s| s.isolate_instances = true),
            [Set::Bridges, Set::Nat, Set::Subnets]
        );
        assert_eq!(
            has(|s| s.masquerade = Some(false)),
            [Set::Bridges, Set::Same, Set::Subnets]
        );
        assert_eq!(
            has(|s| s.source_address = Some("192.0.2.7".into())),
            [Set::Bridges, Set::Same, Set::Subnets, Set::Sources]
        );
        assert_eq!(
            has(|s| s.gateway_mode = GatewayMode::Routed),
            [Set::Bridges, Set::Same, Set::Subnets, Set::Routed]
        );
        assert_eq!(
            has(|s| s.gateway_mode = GatewayMode::NatUnprotected),
            [Set::Bridges, Set::Same, Set::Nat, Set::Subnets, Set::Unprotected]
        );
    }

    #[test]
    fn elements_come_and_go() {
        let mut elements = Elements::new();
        elements.insert((Set::PortsAny, "tcp . 80".into()), "10.1.0.2 . 80".into());
        let mut plan = planned(&NetworkSpec::default(), None, &Taken::default()).unwrap();
        write_elements(&mut elements, "t-x", &plan);
        assert!(elements.contains_key(&(Set::Nat, "10.88.0.0/24".into())));
        plan.internal = true;
        write_elements(&mut elements, "t-x", &plan);
        assert!(!elements.contains_key(&(Set::Nat, "10.88.0.0/24".into())));
        assert!(elements.contains_key(&(Set::Internal, "t-x".into())));
        erase_elements(&mut elements, "t-x", Some(plan.subnet));
        assert_eq!(elements.len(), 1);
    }
}
