//! What stands behind the handle. All calls here may block; [`crate::Net`] moves them off the tasks' threads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use biga_model::kinds::instance::PortMapping;
use biga_model::kinds::network::GatewayMode;
use biga_model::{NetworkSpec, NetworkStatus};
use parking_lot::{Mutex, RwLock};

use crate::attach::{self, End};
use crate::dhcp::packet::Lease;
use crate::dhcp::server::Leases;
use crate::dns::directory::{Directory, Own};
use crate::dns::upstream::Upstreams;
use crate::dns::zone::Zone;
use crate::ids::{MAX_ENDPOINTS, Mac, Names};
use crate::ipam::Pool;
use crate::netlink::Socket;
use crate::network::{self, Network, Plan, Servers, Traffic};
use crate::nft::{Rules, Set, foreign};
use crate::ports::{Ports, Way};
use crate::{Config, Endpoint, Error, Subnet, Swept, bridge, rewire};

pub struct Inner {
    config: Config,
    names: Names,
    /// rtnetlink of the host's namespace.
    home: Mutex<Socket>,
    rules: Rules,
    networks: RwLock<HashMap<String, Network>>,
    /// One network is made or removed at a time, so that two cannot pick one subnet.
    making: Mutex<()>,
    ports: Mutex<Ports>,
    /// Links and endpoints of instances attached by this process.
    attached: Mutex<HashMap<String, Attached>>,
    /// Instances of which something may be in the kernel that is not in `attached`: known once a sweep has looked.
    leftovers: Mutex<Option<HashSet<String>>>,
    upstreams: Arc<Upstreams>,
    directory: Arc<Directory>,
}

#[derive(Clone)]
struct Attached {
    links: Vec<String>,
    endpoints: Vec<Endpoint>,
}

impl Inner {
    pub fn new(config: Config) -> Result<Inner, Error> {
        let names = Names::new(&config.prefix)?;
        let home = Socket::open().map_err(|e| Error::netlink("open a netlink socket", e))?;
        Ok(Inner {
            rules: Rules::new(names.table()),
            names,
            home: Mutex::new(home),
            networks: RwLock::default(),
            making: Mutex::new(()),
            ports: Mutex::default(),
            attached: Mutex::default(),
            leftovers: Mutex::default(),
            upstreams: Arc::new(Upstreams::new(config.upstreams.clone())),
            directory: Arc::default(),
            config,
        })
    }

    // --- networks -------------------------------------------------------------------------------------------------

    pub fn ensure_network(
        &self,
        uid: &str,
        name: &str,
        spec: &NetworkSpec,
        previous: Option<&NetworkStatus>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<NetworkStatus, Error> {
        let _making = self.making.lock();
        bridge::check_name(&self.names, name, spec)?;
        let bridge = bridge::name(&self.names, uid, spec);
        self.refuse_shared(uid, name, &bridge)?;
        let plan = self.plan(uid, name, spec, previous, &bridge)?;
        let made = bridge::make(&mut self.home.lock(), &bridge, uid, &plan)?;
        bridge::allow_forwarding(&bridge)?;
        self.rules.distrust()?;
        let before = self.networks.read().get(uid).map(|n| n.pool.subnet());
        self.rules.change(|elements| {
            network::erase_elements(elements, &bridge, before);
            network::write_elements(elements, &bridge, &plan);
        })?;
        self.rules.sync()?;
        self.let_through(Some(&bridge))?;

        let mut networks = self.networks.write();
        // Names, addresses and servers stay unless subnet or gateway changed.
        let kept = networks.remove(uid).filter(|n| same_shape(n, &plan));
        let mut network = match kept {
            Some(kept) => Network {
                index: made.index,
                isolated_ports: made.isolated_ports,
                internal: plan.internal,
                mtu: plan.mtu,
                traffic: plan.traffic,
                ..kept
            },
            None => Network {
                name: name.to_owned(),
                bridge: bridge.clone(),
                index: made.index,
                isolated_ports: made.isolated_ports,
                internal: plan.internal,
                mtu: plan.mtu,
                traffic: plan.traffic,
                pool: Pool::new(plan.subnet, plan.gateway),
                zone: Arc::new(Zone::new(name, plan.subnet, plan.gateway)),
                leases: Arc::new(Leases::default()),
                servers: Servers::default(),
            },
        };
        network.pool.set_rules(plan.range, &plan.reserved);
        self.directory.add(uid, network.zone.clone());
        let message = network::start_servers(&mut network, runtime, &self.directory, &self.upstreams);
        networks.insert(uid.to_owned(), network);
        Ok(NetworkStatus {
            ready: true,
            bridge,
            subnet: plan.subnet.to_string(),
            gateway: plan.gateway.to_string(),
            message,
            ..NetworkStatus::default()
        })
    }

    fn plan(
        &self,
        uid: &str,
        name: &str,
        spec: &NetworkSpec,
        previous: Option<&NetworkStatus>,
        bridge: &str,
    ) -> Result<Plan, Error> {
        let mut taken = network::taken(&mut self.home.lock(), bridge)?;
        for (other, network) in self.networks.read().iter() {
            let range = network.pool.subnet();
            if other == uid {
                taken.own = Some((range, network.pool.gateway()));
            } else {
                // Its addresses are on the host too; the network's name says more.
                taken.addresses.retain(|a| *a != range);
                taken.networks.push((network.name.clone(), range));
            }
        }
        network::plan(&self.config, name, spec, previous, &taken)
    }

    /// Two networks cannot have one bridge.
    fn refuse_shared(&self, uid: &str, name: &str, bridge: &str) -> Result<(), Error> {
        let networks = self.networks.read();
        let other = networks.iter().find(|(other, n)| *other != uid && n.bridge == bridge);
        match other {
            None => Ok(()),
            Some((_, other)) => Err(Error::Invalid {
                network: name.to_owned(),
                field: "spec.bridgeName",
                value: bridge.to_owned(),
                why: format!("is the bridge of network {}: choose another one", other.name),
            }),
        }
    }

    /// Has other people's firewalls let packets of our bridges through, and of this one.
    fn let_through(&self, another: Option<&str>) -> Result<(), Error> {
        let prefix = self.names.bridge_prefix();
        let mut named: BTreeSet<String> = self.networks.read().values().map(|n| n.bridge.clone()).collect();
        named.extend(another.map(str::to_owned));
        named.retain(|n| !n.starts_with(&prefix));
        foreign::let_through(&prefix, &named)
    }

    /// Gives back the servers, for the caller to stop.
    pub fn remove_network(&self, uid: &str, spec: &NetworkSpec) -> Result<Option<Servers>, Error> {
        let _making = self.making.lock();
        let gone = self.networks.write().remove(uid);
        self.directory.remove(uid);
        let bridge = match &gone {
            Some(network) => network.bridge.clone(),
            None => bridge::name(&self.names, uid, spec),
        };
        let subnet = match &gone {
            Some(network) => Some(network.pool.subnet()),
            None => network::taken(&mut self.home.lock(), &bridge)?.own.map(|own| own.0),
        };
        bridge::remove(&mut self.home.lock(), &bridge, uid)?;
        self.forget_bridge(&bridge, subnet)?;
        if spec.bridge_name.is_some() {
            self.let_through(None)?;
        }
        Ok(gone.map(|n| n.servers))
    }

    fn forget_bridge(&self, bridge: &str, subnet: Option<Subnet>) -> Result<(), Error> {
        let last = self.rules.change(|elements| {
            network::erase_elements(elements, bridge, subnet);
            !elements.keys().any(|(set, _)| *set == Set::Bridges)
        })?;
        if !last {
            return self.rules.sync();
        }
        self.rules.delete()?;
        foreign::withdraw(&self.names.bridge_prefix())
    }

    fn network<T>(&self, uid: &str, f: impl FnOnce(&mut Network) -> Result<T, Error>) -> Result<T, Error> {
        let mut networks = self.networks.write();
        f(networks.get_mut(uid).ok_or_else(|| Error::NoNetwork(uid.to_owned()))?)
    }

    // --- addresses ------------------------------------------------------------------------------------------------

    pub fn endpoint(
        &self,
        network_uid: &str,
        instance_uid: &str,
        interface: &str,
        wanted: Option<Ipv4Addr>,
        mac: Option<Mac>,
    ) -> Result<Endpoint, Error> {
        self.network(network_uid, |network| {
            let address = network.pool.allocate(instance_uid, wanted)?;
            Ok(Endpoint {
                network_uid: network_uid.to_owned(),
                interface: interface.to_owned(),
                address,
                prefix: network.pool.subnet().prefix(),
                gateway: (!network.internal).then(|| network.pool.gateway()),
                gateway_priority: 0,
                link_local: Vec::new(),
                mac: mac.unwrap_or_else(|| Mac::derive(instance_uid, network_uid)),
                mtu: network.mtu,
                hostname: None,
                slot: slot_of(interface),
            })
        })
    }

    pub fn allocate(&self, network: &str, instance: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        self.network(network, |n| n.pool.allocate(instance, wanted))
    }

    pub fn restore(&self, network: &str, instance: &str, address: Ipv4Addr) -> Result<(), Error> {
        self.network(network, |n| n.pool.restore(instance, address))
    }

    pub fn release(&self, instance: &str) {
        for network in self.networks.write().values_mut() {
            network.pool.release(instance);
        }
    }

    // --- ends -----------------------------------------------------------------------------------------------------

    pub fn attach_container(
        &self,
        uid: &str,
        endpoints: &[Endpoint],
        sysctls: &BTreeMap<String, String>,
        made: Option<BorrowedFd<'_>>,
    ) -> Result<PathBuf, Error> {
        attach::check(uid, endpoints)?;
        let ends = self.ends(endpoints)?;
        let path = attach::netns_path(&self.config.run_dir, uid);
        let links = attach::veths(&self.names, uid, &ends);
        let attached = Attached {
            links,
            endpoints: endpoints.to_vec(),
        };
        if attach::holds_netns(&path) && self.adopt(uid, &attached, &ends) {
            return Ok(path);
        }
        // What is there, if anything, is the rest of a broken-off attempt or of other endpoints.
        if path.exists() {
            self.clear(uid)?;
        }
        // Known before it is made, so that nobody takes its links for leftovers.
        self.attached.lock().insert(uid.to_owned(), attached);
        let made = attach::make_container(&mut self.home.lock(), &self.names, &path, uid, &ends, sysctls, made);
        if let Err(e) = made {
            if let Err(undo) = self.clear(uid) {
                tracing::warn!(uid, error = %undo, "a half-made network namespace stays until the next sweep");
            }
            return Err(e);
        }
        Ok(path)
    }

    /// Whether what is there already is what is wanted.
    fn adopt(&self, uid: &str, wanted: &Attached, ends: &[End<'_>]) -> bool {
        let known = self.attached.lock().get(uid).cloned();
        if known.is_some_and(|known| known.endpoints != wanted.endpoints) {
            return false;
        }
        if attach::rejoin(&mut self.home.lock(), &wanted.links, ends).is_err() {
            return false;
        }
        self.attached.lock().insert(uid.to_owned(), wanted.clone());
        true
    }

    /// Brings the ends of a running container to `wanted`.
    pub fn rewire(&self, uid: &str, wanted: &[Endpoint]) -> Result<(), Error> {
        attach::check(uid, wanted)?;
        let path = attach::netns_path(&self.config.run_dir, uid);
        let known = self.attached.lock().get(uid).cloned();
        let known = known.ok_or_else(|| Error::NotAttached(path.clone()))?;
        let same = |a: &Endpoint, b: &Endpoint| {
            (&a.network_uid, &a.interface, a.address, a.mac) == (&b.network_uid, &b.interface, b.address, b.mac)
        };
        let is_in = |e: &Endpoint, all: &[Endpoint]| all.iter().any(|o| same(e, o));
        let gone = known.links.iter().zip(&known.endpoints);
        let gone: Vec<&String> = gone.filter(|(_, e)| !is_in(e, wanted)).map(|(l, _)| l).collect();
        let added: Vec<Endpoint> = wanted.iter().filter(|e| !is_in(e, &known.endpoints)).cloned().collect();
        let (all, ends) = (self.ends(wanted)?, self.ends(&added)?);
        attach::drop_links(&mut self.home.lock(), &gone)?;
        let made = match added.is_empty() {
            true => Ok(()),
            false => rewire::plug(&mut self.home.lock(), &self.names, &path, uid, &ends),
        };
        if let Err(e) = made {
            // What could not be made whole is taken away again; what was there before stays.
            attach::drop_links(&mut self.home.lock(), &attach::veths(&self.names, uid, &ends))?;
            let mut kept = known.clone();
            kept.endpoints.retain(|o| is_in(o, wanted));
            kept.links = attach::veths(&self.names, uid, &self.ends(&kept.endpoints)?);
            self.attached.lock().insert(uid.to_owned(), kept);
            return Err(e);
        }
        let attached = Attached {
            links: attach::veths(&self.names, uid, &all),
            endpoints: wanted.to_vec(),
        };
        self.attached.lock().insert(uid.to_owned(), attached);
        rewire::reroute(&path, wanted)
    }

    pub fn redirect_dns(&self, uid: &str, server: Ipv4Addr) -> Result<(), Error> {
        crate::ids::check_uid(uid)?;
        rewire::redirect(&attach::netns_path(&self.config.run_dir, uid), server)
    }

    pub fn attach_machine(&self, uid: &str, endpoints: &[Endpoint]) -> Result<Vec<String>, Error> {
        attach::check(uid, endpoints)?;
        let ends = self.ends(endpoints)?;
        let taps = attach::make_machine(&mut self.home.lock(), &self.names, uid, &ends);
        let taps = match taps {
            Ok(taps) => taps,
            Err(e) => {
                if let Err(undo) = self.clear(uid) {
                    tracing::warn!(uid, error = %undo, "half-made taps stay until the next sweep");
                    if let Some(left) = self.leftovers.lock().as_mut() {
                        left.insert(uid.to_owned());
                    }
                }
                return Err(e);
            }
        };
        for endpoint in endpoints {
            self.network(&endpoint.network_uid, |network| {
                network.leases.set(endpoint.mac, uid, lease(endpoint, network));
                Ok(())
            })?;
        }
        let attached = Attached {
            links: taps.clone(),
            endpoints: endpoints.to_vec(),
        };
        self.attached.lock().insert(uid.to_owned(), attached);
        Ok(taps)
    }

    fn ends<'a>(&self, endpoints: &'a [Endpoint]) -> Result<Vec<End<'a>>, Error> {
        let networks = self.networks.read();
        let end = |endpoint: &'a Endpoint| {
            let network = networks.get(&endpoint.network_uid);
            let network = network.ok_or_else(|| Error::NoNetwork(endpoint.network_uid.clone()))?;
            Ok(End {
                endpoint,
                bridge: network.index,
                router: network.pool.gateway(),
                isolated: network.isolated_ports,
            })
        };
        endpoints.iter().map(end).collect()
    }

    /// Whether there is nothing to undo: it was not attached, and the last sweep found nothing of it. Asks no kernel.
    pub fn holds_nothing(&self, uid: &str) -> bool {
        let clean = self.leftovers.lock().as_ref().is_some_and(|left| !left.contains(uid));
        clean && !self.attached.lock().contains_key(uid)
    }

    /// Undoes an attach and gives back the links to look after: where nothing runs in a namespace any more, the
    /// kernel ends it with its links by itself, in a third of the time that removing them by hand takes.
    pub fn detach(&self, uid: &str) -> Result<Vec<String>, Error> {
        crate::ids::check_uid(uid)?;
        let path = attach::netns_path(&self.config.run_dir, uid);
        let known = self.attached.lock().get(uid).cloned();
        let Some(known) = known.filter(|_| attach::holds_netns(&path)) else {
            self.clear(uid)?;
            return Ok(Vec::new());
        };
        attach::drop_netns(&path)?;
        self.attached.lock().remove(uid);
        Ok(known.links)
    }

    /// Removes links of a detached instance that are still there: somebody holds the namespace. Not where it has
    /// been attached anew.
    pub fn reap(&self, uid: &str, links: &[String]) -> Result<(), Error> {
        let mut home = self.home.lock();
        if self.attached.lock().contains_key(uid) {
            return Ok(());
        }
        attach::drop_links(&mut home, links)
    }

    /// Removes all there is of an instance, at once.
    fn clear(&self, uid: &str) -> Result<(), Error> {
        crate::ids::check_uid(uid)?;
        for network in self.networks.read().values() {
            network.leases.retain(|instance| instance != uid);
        }
        let path = attach::netns_path(&self.config.run_dir, uid);
        let mut home = self.home.lock();
        let known = self.attached.lock().remove(uid);
        let links = match known {
            Some(known) => known.links,
            None => {
                let stems = self.names.stems(uid);
                let ours = |name: &str| {
                    self.names
                        .stem_of(name)
                        .is_some_and(|stem| stems.iter().any(|s| s == stem))
                };
                home.links()?.into_iter().map(|l| l.name).filter(|n| ours(n)).collect()
            }
        };
        attach::drop_links(&mut home, &links)?;
        attach::drop_netns(&path)?;
        if let Some(left) = self.leftovers.lock().as_mut() {
            left.remove(uid);
        }
        Ok(())
    }

    // --- ports ----------------------------------------------------------------------------------------------------

    pub fn publish(&self, uid: &str, address: Ipv4Addr, wanted: &[PortMapping]) -> Result<Vec<PortMapping>, Error> {
        if wanted.is_empty() {
            self.unpublish(uid)?;
            return Ok(Vec::new());
        }
        let traffic = self.traffic_at(address);
        let way = Way {
            to: address,
            bind: traffic.and_then(|t| t.bind),
            open: traffic.is_some_and(|t| t.mode == GatewayMode::Routed),
        };
        let filled = self.rules.change(|elements| {
            let mut ports = self.ports.lock();
            let before = ports.elements_of(uid);
            let filled = ports.take(uid, way, wanted, elements)?;
            elements.retain(|key, _| !before.contains_key(key));
            elements.extend(ports.elements_of(uid));
            Ok(filled)
        })??;
        if let Err(e) = self.rules.sync() {
            self.forget_ports(uid)?;
            return Err(e);
        }
        Ok(filled)
    }

    /// How packets pass on the network that an address belongs to.
    fn traffic_at(&self, address: Ipv4Addr) -> Option<Traffic> {
        let networks = self.networks.read();
        let network = networks.values().find(|n| n.pool.subnet().contains(address));
        network.map(|n| n.traffic)
    }

    /// Whether it has published ports.
    pub fn publishes(&self, uid: &str) -> bool {
        !self.ports.lock().elements_of(uid).is_empty()
    }

    pub fn unpublish(&self, uid: &str) -> Result<(), Error> {
        if self.forget_ports(uid)? {
            self.rules.sync()
        } else {
            Ok(())
        }
    }

    /// Whether there were any.
    fn forget_ports(&self, uid: &str) -> Result<bool, Error> {
        let mut ports = self.ports.lock();
        let gone = ports.elements_of(uid);
        ports.free(uid);
        drop(ports);
        if gone.is_empty() {
            return Ok(false);
        }
        self.rules
            .change(|elements| elements.retain(|key, _| !gone.contains_key(key)))?;
        Ok(true)
    }

    // --- names ----------------------------------------------------------------------------------------------------

    pub fn add_names(&self, network: &str, instance: &str, names: &[String], address: Ipv4Addr) -> Result<(), Error> {
        self.network(network, |n| {
            n.zone.set(instance, names, address);
            Ok(())
        })
    }

    pub fn set_own(&self, instance: &str, own: Own) {
        self.directory.set_own(instance, own);
    }

    pub fn remove_names(&self, instance: &str) {
        self.directory.forget(instance);
        for network in self.networks.read().values() {
            network.zone.forget(instance);
        }
    }

    pub fn leave(&self, network: &str, instance: &str) {
        if let Some(network) = self.networks.write().get_mut(network) {
            network.zone.forget(instance);
            network.pool.release(instance);
        }
    }

    // --- after a crash --------------------------------------------------------------------------------------------

    pub fn sweep(&self, live: &HashSet<String>) -> Result<Swept, Error> {
        let _making = self.making.lock();
        let alive = |uid: &str| live.contains(uid);
        let mut swept = Swept::default();
        self.attached.lock().retain(|uid, _| alive(uid));
        self.ports.lock().retain(alive);
        self.directory.retain(alive);
        let mut bridges = HashSet::new();
        for network in self.networks.write().values_mut() {
            network.pool.retain(alive);
            network.zone.retain(alive);
            network.leases.retain(alive);
            bridges.insert(network.bridge.clone());
        }
        let mut left = HashSet::new();
        swept.links = self.sweep_links(live, &bridges, &mut left)?;
        swept.namespaces = self.sweep_namespaces(live, &mut left)?;
        *self.leftovers.lock() = Some(left);
        swept.ports = self.sweep_rules(&bridges)?;
        Ok(swept)
    }

    fn sweep_namespaces(&self, live: &HashSet<String>, left: &mut HashSet<String>) -> Result<usize, Error> {
        let dir = self.config.run_dir.join("netns");
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(|e| Error::io("list", &dir, e))?,
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", &dir, e))?;
            match entry.file_name().to_str() {
                Some(uid) if live.contains(uid) => {
                    left.insert(uid.to_owned());
                }
                _ => {
                    attach::drop_netns(&entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Removes links of nobody; notes in `left` whose links stay.
    fn sweep_links(
        &self,
        live: &HashSet<String>,
        bridges: &HashSet<String>,
        left: &mut HashSet<String>,
    ) -> Result<usize, Error> {
        let own = |uid: &String| {
            self.names
                .stems(uid)
                .into_iter()
                .map(|s| (s, uid.clone()))
                .collect::<Vec<_>>()
        };
        let stems: HashMap<String, String> = live.iter().flat_map(own).collect();
        let prefix = self.names.bridge_prefix();
        let mut home = self.home.lock();
        let dead = |name: &str| match self.names.stem_of(name) {
            Some(stem) => !stems.contains_key(stem),
            None => name.starts_with(&prefix) && !bridges.contains(name),
        };
        let present: Vec<String> = home.links()?.into_iter().map(|l| l.name).collect();
        left.extend(
            present
                .iter()
                .filter_map(|n| stems.get(self.names.stem_of(n)?))
                .cloned(),
        );
        let names: Vec<String> = present.into_iter().filter(|n| dead(n)).collect();
        attach::drop_links(&mut home, &names)?;
        Ok(names.len())
    }

    /// Rules exist for what this process ensured and published, and nothing else.
    fn sweep_rules(&self, bridges: &HashSet<String>) -> Result<usize, Error> {
        let ports = self.ports.lock().elements();
        let subnets: HashSet<String> = self
            .networks
            .read()
            .values()
            .map(|n| n.pool.subnet().to_string())
            .collect();
        let removed = self.rules.change(|elements| {
            let before = elements.keys().filter(|(set, _)| set.is_ports()).count();
            elements.retain(|(set, key), _| match set {
                Set::PortsAny | Set::PortsIp | Set::PortsOpen => ports.contains_key(&(*set, key.clone())),
                Set::Nat | Set::Subnets | Set::Sources => subnets.contains(key),
                Set::Bridges | Set::Internal | Set::Same | Set::Unprotected | Set::Routed | Set::Isolated => {
                    key.split(" . ").next().is_some_and(|bridge| bridges.contains(bridge))
                }
            });
            before - elements.keys().filter(|(set, _)| set.is_ports()).count()
        })?;
        if bridges.is_empty() {
            self.rules.delete()?;
            foreign::withdraw(&self.names.bridge_prefix())?;
        } else {
            self.rules.sync()?;
        }
        Ok(removed)
    }
}

/// The number in `eth3`.
fn slot_of(interface: &str) -> u8 {
    let digits = interface.strip_prefix("eth").unwrap_or_default();
    digits
        .parse()
        .ok()
        .filter(|n| usize::from(*n) < MAX_ENDPOINTS)
        .unwrap_or(0)
}

fn same_shape(network: &Network, plan: &Plan) -> bool {
    network.name == plan.name && network.pool.subnet() == plan.subnet && network.pool.gateway() == plan.gateway
}

fn lease(endpoint: &Endpoint, network: &Network) -> Lease {
    Lease {
        address: endpoint.address,
        subnet: Subnet::containing(endpoint.address, endpoint.prefix),
        router: endpoint.gateway,
        server: network.pool.gateway(),
        hostname: endpoint.hostname.clone(),
        mtu: endpoint.mtu,
    }
}
