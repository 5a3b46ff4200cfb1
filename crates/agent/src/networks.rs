//! Networks on this node: makes what `Network` objects ask for, and connects instances to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use biga_model::kinds::network::DEFAULT_NETWORK;
use biga_model::{
    AGENT_FINALIZER, Condition, Instance, InstanceStatus, Network, NetworkAttachment, NetworkEndpoint, NetworkLink,
    NetworkSpec, NetworkStatus, Object, Timestamp,
};
use biga_net::{Endpoint, Net, Own};
use biga_store::Store;
use biga_store::typed::{Error as StoreError, Objects, SpecWriter, StatusWriter};

use crate::events::Recorder;
use crate::follow::{Follower, follow};
use crate::instance::Failure;
use crate::places::Places;

/// The networks of this node. A cheap handle.
#[derive(Clone)]
pub struct Networks {
    net: Net,
    objects: Objects<Network>,
    instances: Objects<Instance>,
    specs: SpecWriter<Network>,
    statuses: StatusWriter<Network>,
    events: Recorder,
}

/// An instance's end on a network, with what the rest of the agent needs of that network.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The end.
    pub endpoint: Endpoint,
    /// The network's name.
    pub network: String,
    /// The node's address on it: router and name server.
    pub gateway: Ipv4Addr,
    /// More names for DNS.
    pub aliases: Vec<String>,
    /// Names that only this instance has for others.
    pub links: Vec<NetworkLink>,
}

/// Whether one of them is a network that somebody made, where Docker's clients expect a name server at its address.
pub fn any_made(connections: &[Connection]) -> bool {
    connections.iter().any(|c| c.network != DEFAULT_NETWORK)
}

fn failure(reason: &'static str, e: impl std::fmt::Display) -> Failure {
    Failure::new(reason, e.to_string())
}

impl Networks {
    /// Over the kernel's side and the objects of the store.
    pub fn new(net: Net, store: Arc<dyn Store>, events: Recorder) -> Networks {
        Networks {
            net,
            objects: Objects::new(store.clone()),
            instances: Objects::new(store.clone()),
            specs: SpecWriter::new(store.clone()),
            statuses: StatusWriter::new(store),
            events,
        }
    }

    /// The kernel's side.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// At the start of the daemon: the default network exists, every network is up, and every instance has its
    /// addresses back.
    pub async fn start(&self) -> Result<(), StoreError> {
        if self.objects.find("", DEFAULT_NETWORK).await?.is_none() {
            let object = Object::new(DEFAULT_NETWORK, NetworkSpec::default());
            match self.specs.create(object).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let mut networks = self.objects.list(None).await?.items;
        // Those that have a subnet already come first, so that a new one cannot take it.
        networks.sort_by_key(|o| o.status_or_default().subnet.is_empty());
        let mut uids = BTreeMap::new();
        for o in &networks {
            uids.insert(o.metadata.name.clone(), o.metadata.uid.clone());
            if !o.is_deleting()
                && let Err(f) = self.ensure(o).await
            {
                tracing::error!(network = %o.metadata.name, "{f}");
            }
        }
        for instance in self.instances.list(None).await?.items {
            for e in instance.status_or_default().networks {
                if let (Some(uid), Some(address)) = (uids.get(&e.network), address_of(&e))
                    && let Err(err) = self.net.restore(uid, &instance.metadata.uid, address)
                {
                    tracing::warn!(instance = %instance.metadata.name, "address {address} not restored: {err}");
                }
            }
        }
        Ok(())
    }

    /// Follows `Network` objects until the task is dropped.
    pub async fn run(self) {
        follow(&self).await;
    }

    async fn ensure(&self, o: &Object<Network>) -> Result<NetworkStatus, Failure> {
        let m = &o.metadata;
        let result = match o.spec.config_only {
            true => Ok(NetworkStatus::default()),
            false => {
                self.net
                    .ensure_network(&m.uid, &m.name, &o.spec, o.status.as_ref())
                    .await
            }
        };
        let now = Timestamp::now();
        let made = match &result {
            Ok(s) => s.clone(),
            Err(e) => NetworkStatus {
                message: e.to_string(),
                ..o.status_or_default()
            },
        };
        let ok = result.is_ok();
        let set = |s: &mut NetworkStatus| {
            let conditions = std::mem::take(&mut s.conditions);
            *s = NetworkStatus {
                conditions,
                ready: ok,
                observed_generation: m.generation,
                ..made.clone()
            };
            let reason = if ok { "Up" } else { "NetworkFailed" };
            Condition::set(&mut s.conditions, "Ready", ok, reason, &made.message, now);
        };
        if let Err(e) = self.statuses.modify_status("", &m.name, &m.uid, set).await {
            tracing::debug!(network = %m.name, "status not written: {e}");
        }
        result.map_err(|e| Failure::new("NetworkFailed", format!("cannot bring up network {}: {e}", m.name)))
    }

    async fn remove(&self, o: &Object<Network>) -> bool {
        let m = &o.metadata;
        let users = match self.instances.list(None).await {
            Ok(l) => l.items,
            Err(_) => return false,
        };
        let uses = |i: &Object<Instance>| i.status_or_default().networks.iter().any(|e| e.network == m.name);
        if let Some(user) = users.iter().find(|i| uses(i)) {
            let message = format!(
                "it goes when instance {} is removed, which is connected to it",
                user.metadata.name
            );
            self.events.record(o, true, "NetworkInUse", &message);
            return false;
        }
        if let Err(e) = self.net.remove_network(&m.uid, &o.spec).await {
            self.events
                .record(o, true, "NetworkFailed", &format!("cannot be removed: {e}"));
            return false;
        }
        match self
            .statuses
            .remove_finalizer("", &m.name, &m.uid, AGENT_FINALIZER)
            .await
        {
            Ok(_) => true,
            Err(e) => e.is_not_found(),
        }
    }

    /// The ends of an instance on its networks, addresses allocated; nothing in the kernel yet. What its status
    /// remembers stays as it is.
    pub async fn connections(
        &self,
        object: &Object<Instance>,
        status: &InstanceStatus,
    ) -> Result<Vec<Connection>, Failure> {
        let wanted = self.attachments(object);
        let (mut all, mut places) = (Vec::with_capacity(wanted.len()), Places::default());
        for a in &wanted {
            all.push(self.connection(object, status, &mut places, a, None).await?);
        }
        Ok(all)
    }

    /// The networks an instance joins.
    pub(crate) fn attachments(&self, object: &Object<Instance>) -> Vec<NetworkAttachment> {
        if !object.spec.networks.is_empty() {
            return object.spec.networks.clone();
        }
        vec![NetworkAttachment {
            network: DEFAULT_NETWORK.into(),
            ..NetworkAttachment::default()
        }]
    }

    /// The objects of networks.
    pub(crate) fn objects(&self) -> &Objects<Network> {
        &self.objects
    }

    /// One end; `held` is the one it has already while it runs.
    pub(crate) async fn connection(
        &self,
        object: &Object<Instance>,
        status: &InstanceStatus,
        places: &mut Places,
        a: &NetworkAttachment,
        held: Option<&NetworkEndpoint>,
    ) -> Result<Connection, Failure> {
        let missing = || {
            let message = format!(
                "network {} does not exist: `biga network create {}`",
                a.network, a.network
            );
            Failure::new("NetworkNotFound", message)
        };
        let network = self
            .objects
            .find("", &a.network)
            .await
            .map_err(|e| failure("StoreFailed", e))?
            .ok_or_else(missing)?;
        if network.is_deleting() {
            return Err(Failure::new(
                "NetworkRemoved",
                format!("network {} is being removed", a.network),
            ));
        }
        if network.spec.config_only {
            return Err(Failure::new(
                "NetworkNotMade",
                format!(
                    "network {} only holds settings for other networks: nothing can join it",
                    a.network
                ),
            ));
        }
        let up = network.status_or_default();
        let up = if up.ready { up } else { self.ensure(&network).await? };
        let remembered = status.networks.iter().find(|e| e.network == a.network);
        let address = match &a.address {
            Some(text) => Some(text.parse().map_err(|_| {
                Failure::new(
                    "BadAddress",
                    format!("{text}: only IPv4 addresses can be chosen on {}", a.network),
                )
            })?),
            None => remembered.and_then(address_of),
        };
        let mac = match &a.mac {
            Some(m) => Some(m.parse().map_err(|e| failure("BadAddress", e))?),
            None => None,
        };
        let uid = &object.metadata.uid;
        if let (Some(wished), Some(had)) = (address, remembered.and_then(address_of))
            && wished != had
        {
            // It was given another address since it last ran.
            self.net.leave(&network.metadata.uid, uid);
        }
        let (interface, slot) = match held {
            Some(e) => (e.interface.clone(), Places::slot_of(e)),
            None => places.take(network.spec.interface_prefix.as_deref().unwrap_or("eth")),
        };
        let mut endpoint = self
            .net
            .endpoint(&network.metadata.uid, uid, &interface, address, mac)
            .map_err(|e| Failure::new("AddressFailed", format!("no address on network {}: {e}", a.network)))?;
        endpoint.hostname = Some(object.metadata.name.clone());
        endpoint.gateway_priority = a.gateway_priority;
        endpoint.link_local = a.link_local.iter().filter_map(|a| a.parse().ok()).collect();
        endpoint.slot = slot;
        let gateway = up.gateway.parse().map_err(|e| failure("NetworkFailed", e))?;
        Ok(Connection {
            endpoint,
            network: a.network.clone(),
            gateway,
            aliases: a.aliases.clone(),
            links: a.links.clone(),
        })
    }

    /// Publishes the instance's ports and names, and says what stands in its status.
    pub async fn announce(
        &self,
        object: &Object<Instance>,
        connections: &[Connection],
        status: &mut InstanceStatus,
    ) -> Result<(), Failure> {
        let uid = &object.metadata.uid;
        status.networks = connections.iter().map(endpoint_status).collect();
        self.name(object, connections)?;
        status.ports = Vec::new();
        if let (Some(first), false) = (connections.first(), object.spec.ports.is_empty()) {
            status.ports = self
                .net
                .publish(uid, first.endpoint.address, &object.spec.ports)
                .await
                .map_err(|e| failure("PortFailed", e))?;
        }
        Ok(())
    }

    /// Tells the name servers of it.
    pub(crate) fn name(&self, object: &Object<Instance>, connections: &[Connection]) -> Result<(), Failure> {
        let uid = &object.metadata.uid;
        let mut own = Own::default();
        for c in connections {
            let mut names = vec![object.metadata.name.clone()];
            names.extend(object.spec.hostname.clone());
            names.extend(c.aliases.iter().cloned());
            names.dedup();
            self.net
                .add_names(&c.endpoint.network_uid, uid, &names, c.endpoint.address)
                .map_err(|e| failure("NetworkFailed", e))?;
            let links = c
                .links
                .iter()
                .map(|l| (l.alias.to_ascii_lowercase(), l.instance.clone()));
            own.links.extend(links);
        }
        if any_made(connections) {
            // Its own resolvers are asked by the name server, which knows the others' names as well.
            let servers = object.spec.dns.servers.iter().filter_map(|s| s.parse().ok());
            own.upstreams = servers.map(|ip| SocketAddr::new(ip, 53)).collect();
        }
        self.net.set_own(uid, own);
        Ok(())
    }

    /// Has a container find the name server of its first network where Docker has its own.
    pub(crate) async fn redirect(&self, uid: &str, connections: &[Connection]) -> Result<(), Failure> {
        match connections.first().filter(|_| any_made(connections)) {
            Some(c) => self
                .net
                .redirect_dns(uid, c.gateway)
                .await
                .map_err(|e| failure("NetworkFailed", e)),
            None => Ok(()),
        }
    }

    /// As [`Networks::announce`] for a run that goes on: the ports stay those of its status.
    pub async fn announce_again(
        &self,
        object: &Object<Instance>,
        connections: &[Connection],
        status: &mut InstanceStatus,
    ) -> Result<(), Failure> {
        let mut same = object.clone();
        same.spec.ports.clone_from(&status.ports);
        self.announce(&same, connections, status).await
    }

    /// A network namespace for a container.
    pub async fn namespace(&self, uid: &str, connections: &[Connection]) -> Result<PathBuf, Failure> {
        self.namespace_in(uid, connections, None).await
    }

    /// Like [`Networks::namespace`], in a network namespace that was made already.
    pub async fn namespace_in(
        &self,
        uid: &str,
        connections: &[Connection],
        made: Option<OwnedFd>,
    ) -> Result<PathBuf, Failure> {
        let ends: Vec<Endpoint> = connections.iter().map(|c| c.endpoint.clone()).collect();
        let path = self
            .net
            .attach_container_in(uid, &ends, &BTreeMap::new(), made)
            .await
            .map_err(|e| failure("NetworkFailed", e))?;
        self.redirect(uid, connections).await?;
        Ok(path)
    }

    /// Another instance of the same namespace, if there is one of that name.
    pub(crate) async fn find_instance(
        &self,
        beside: &Object<Instance>,
        name: &str,
    ) -> Result<Option<Object<Instance>>, Failure> {
        let namespace = beside.metadata.namespace.as_deref().unwrap_or_default();
        self.instances
            .find(namespace, name)
            .await
            .map_err(|e| failure("StoreFailed", e))
    }

    /// Another instance, to share what it has.
    pub async fn instance(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Failure> {
        let found = self.instances.find(namespace, name).await;
        found
            .map_err(|e| failure("ShareFailed", e))?
            .ok_or_else(|| failure("ShareFailed", format!("there is no instance {name} to share with")))
    }

    /// Taps for a machine, one for each connection.
    pub async fn taps(&self, uid: &str, connections: &[Connection]) -> Result<Vec<String>, Failure> {
        let ends: Vec<Endpoint> = connections.iter().map(|c| c.endpoint.clone()).collect();
        self.net
            .attach_machine(uid, &ends)
            .await
            .map_err(|e| failure("NetworkFailed", e))
    }

    /// Undoes what a run needed. Addresses stay.
    pub async fn disconnect(&self, uid: &str) {
        self.net.remove_names(uid);
        for (what, result) in [
            ("ports", self.net.unpublish(uid).await),
            ("ends", self.net.detach(uid).await),
        ] {
            if let Err(e) = result {
                tracing::warn!(uid, "cannot undo its {what}: {e}");
            }
        }
    }

    /// Frees its addresses, too.
    pub async fn release(&self, uid: &str) {
        self.disconnect(uid).await;
        self.net.release(uid);
    }
}

impl Follower for Networks {
    type Kind = Network;

    fn objects(&self) -> &Objects<Network> {
        &self.objects
    }

    fn instances(&self) -> &Objects<Instance> {
        &self.instances
    }

    async fn look(&self, o: &Object<Network>) -> bool {
        if o.is_deleting() {
            return self.remove(o).await;
        }
        if o.status_or_default().observed_generation != o.metadata.generation
            && let Err(f) = self.ensure(o).await
        {
            self.events.record(o, true, f.reason, &f.message);
        }
        true
    }
}

fn address_of(e: &NetworkEndpoint) -> Option<Ipv4Addr> {
    e.address.split('/').next()?.parse().ok()
}

pub(crate) fn endpoint_status(c: &Connection) -> NetworkEndpoint {
    NetworkEndpoint {
        network: c.network.clone(),
        interface: c.endpoint.interface.clone(),
        address: c.endpoint.cidr(),
        gateway: c.endpoint.gateway.map(|g| g.to_string()).unwrap_or_default(),
        mac: c.endpoint.mac.to_string(),
        aliases: c.aliases.clone(),
        slot: Some(c.endpoint.slot).filter(|s| c.endpoint.interface != format!("eth{s}")),
    }
}
