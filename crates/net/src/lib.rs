//! Networks of one node: bridges, ends for containers and machines, addresses, published ports, names.
//!
//! [`Net`] is the cheap handle to all of it. A network is a bridge with a subnet; a container joins by a veth pair
//! into a network namespace of its own, a machine by a tap. Rules live in one nft table; a DNS and a DHCP server
//! listen on each bridge.
//!
//! # How to use it
//!
//! At the start of the daemon, in this order (all of it is idempotent, and nothing that runs is disturbed):
//! 1. [`Net::new`]
//! 2. [`Net::ensure_network`] for every network, with its last status; those that have one first, so that no new
//!    network takes the subnet of an old one
//! 3. for every instance with addresses: [`Net::restore`]; for those that run also [`Net::attach_container`] or
//!    [`Net::attach_machine`] with the same endpoints, [`Net::publish`] and [`Net::add_names`]
//! 4. [`Net::sweep`] with the uids of all instances that exist
//!
//! For a new instance: [`Net::endpoint`] for each network, then attach, publish, add names. When it stops:
//! [`Net::remove_names`], [`Net::unpublish`], [`Net::detach`]; when it is deleted also [`Net::release`].
//!
//! The network namespace of the thread that calls [`Net::new`] is "the host" here; it need not be the initial one.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use biga_model::kinds::instance::PortMapping;
use biga_model::{NetworkSpec, NetworkStatus};

mod attach;
mod bridge;
mod dhcp;
mod dns;
mod error;
mod ids;
mod inner;
mod ipam;
mod netlink;
mod network;
mod nft;
mod ports;
mod rewire;
mod subnet;

pub use dns::directory::Own;
pub use error::Error;
pub use ids::{MAX_ENDPOINTS, Mac};
pub use rewire::RESOLVER;
pub use subnet::Subnet;

/// How networks of this daemon look.
#[derive(Debug, Clone)]
pub struct Config {
    /// Begins every name in the kernel: bridges `<prefix>-<hash>`, nft table `<prefix>`. 1 to 8 lower-case letters
    /// and digits, first a letter. Two daemons on one host need two prefixes.
    pub prefix: String,
    /// Network namespaces are held at `<run_dir>/netns/<uid>`.
    pub run_dir: PathBuf,
    /// Where subnets are cut from for networks that name none.
    pub pools: Vec<Subnet>,
    /// Prefix length of the subnets cut from the pools.
    pub pool_prefix: u8,
    /// Resolvers asked for other names; those of `/etc/resolv.conf` (read again when it changes) where unset.
    pub upstreams: Option<Vec<SocketAddr>>,
}

impl Config {
    /// The usual: 10.88.0.0/16 and 172.28.0.0/14 in parts of 24 bits, the host's resolvers.
    pub fn new(prefix: impl Into<String>, run_dir: impl Into<PathBuf>) -> Config {
        Config {
            prefix: prefix.into(),
            run_dir: run_dir.into(),
            pools: vec![
                Subnet::containing(Ipv4Addr::new(10, 88, 0, 0), 16),
                Subnet::containing(Ipv4Addr::new(172, 28, 0, 0), 14),
            ],
            pool_prefix: 24,
            upstreams: None,
        }
    }
}

/// One end of an instance on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `metadata.uid` of the network.
    pub network_uid: String,
    /// Interface inside, as `eth0` (containers; machines name theirs themselves).
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet, in bits.
    pub prefix: u8,
    /// Router for everything else; none on internal networks. Where several endpoints have one, [`way_out`] says which is used.
    pub gateway: Option<Ipv4Addr>,
    /// How much it wants to be the one whose router is used.
    pub gateway_priority: i64,
    /// More addresses, of 169.254.0.0/16 (containers).
    pub link_local: Vec<Ipv4Addr>,
    /// Hardware address.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Host name that DHCP tells a machine.
    pub hostname: Option<String>,
    /// Number of its end on the host, below [`MAX_ENDPOINTS`]: no two of an instance have the same.
    pub slot: u8,
}

impl Endpoint {
    /// As `10.88.0.5/24`.
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }
}

/// Which endpoint leads to everything else: of those with a router the one of the highest priority, the first of several.
pub fn way_out<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Option<usize> {
    let leads = endpoints.into_iter().enumerate().filter(|(_, e)| e.gateway.is_some());
    let best = leads.max_by_key(|(i, e)| (e.gateway_priority, std::cmp::Reverse(*i)));
    best.map(|(i, _)| i)
}

/// How long after a detach the kernel has to end the namespace by itself.
const LINGER: Duration = Duration::from_millis(500);

/// The handle: cheap to clone, shared by all tasks of the agent.
///
/// `async` calls work in the kernel for some milliseconds, on a blocking thread, and need a tokio runtime.
#[derive(Clone)]
pub struct Net {
    inner: Arc<inner::Inner>,
}

impl Net {
    /// Remembers the calling thread's network namespace as the host's. Changes nothing in the kernel.
    pub fn new(config: Config) -> Result<Net, Error> {
        let inner = Arc::new(inner::Inner::new(config)?);
        Ok(Net { inner })
    }

    /// Makes the network, or repairs it: bridge with address, rules, DNS, DHCP. Keeps the subnet of `previous`.
    /// The status has `ready`, `bridge`, `subnet`, `gateway`; `message` says what is degraded (say, DNS whose port is
    /// taken); the rest is for the caller to fill.
    pub async fn ensure_network(
        &self,
        uid: &str,
        name: &str,
        spec: &NetworkSpec,
        previous: Option<&NetworkStatus>,
    ) -> Result<NetworkStatus, Error> {
        let (uid, name, spec, previous) = (uid.to_owned(), name.to_owned(), spec.clone(), previous.cloned());
        let runtime = tokio::runtime::Handle::current();
        self.blocking(move |inner| inner.ensure_network(&uid, &name, &spec, previous.as_ref(), &runtime))
            .await
    }

    /// Removes bridge, rules and servers of the network with this spec. Removing what is not there is no error.
    pub async fn remove_network(&self, uid: &str, spec: &NetworkSpec) -> Result<(), Error> {
        let (uid, spec) = (uid.to_owned(), spec.clone());
        if let Some(servers) = self.blocking(move |inner| inner.remove_network(&uid, &spec)).await? {
            servers.stop().await;
        }
        Ok(())
    }

    /// Allocates an address (or keeps the one it has) and describes the end: gateway, hardware address (`mac` or the
    /// derived one), MTU. Its slot is the number of an interface `eth<n>`, otherwise 0: the caller sets it. Nothing in the
    /// kernel.
    pub fn endpoint(
        &self,
        network_uid: &str,
        instance_uid: &str,
        interface: &str,
        wanted: Option<Ipv4Addr>,
        mac: Option<Mac>,
    ) -> Result<Endpoint, Error> {
        self.inner.endpoint(network_uid, instance_uid, interface, wanted, mac)
    }

    /// Gives the instance an address on the network: `wanted`, the one it has, or a free one.
    pub fn allocate(&self, network_uid: &str, instance_uid: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        self.inner.allocate(network_uid, instance_uid, wanted)
    }

    /// Takes note, after a restart, of an address given earlier.
    pub fn restore(&self, network_uid: &str, instance_uid: &str, address: Ipv4Addr) -> Result<(), Error> {
        self.inner.restore(network_uid, instance_uid, address)
    }

    /// Frees all addresses of the instance, on all networks.
    pub fn release(&self, instance_uid: &str) {
        self.inner.release(instance_uid);
    }

    /// Makes (or adopts, if it is there) the network namespace of a container with loopback and one interface for
    /// each endpoint, and returns its path. `sysctls` are names as `net.core.somaxconn` and values.
    pub async fn attach_container(
        &self,
        instance_uid: &str,
        endpoints: &[Endpoint],
        sysctls: &BTreeMap<String, String>,
    ) -> Result<PathBuf, Error> {
        self.attach_container_in(instance_uid, endpoints, sysctls, None).await
    }

    /// Like [`Net::attach_container`], with a network namespace that was made already: one that belongs to a user namespace.
    pub async fn attach_container_in(
        &self,
        instance_uid: &str,
        endpoints: &[Endpoint],
        sysctls: &BTreeMap<String, String>,
        made: Option<OwnedFd>,
    ) -> Result<PathBuf, Error> {
        let (uid, endpoints, sysctls) = (instance_uid.to_owned(), endpoints.to_vec(), sysctls.clone());
        self.blocking(move |inner| {
            let made = made.as_ref().map(AsFd::as_fd);
            inner.attach_container(&uid, &endpoints, &sysctls, made)
        })
        .await
    }

    /// Brings the interfaces of a running container to these endpoints: those it has stay as they are, by interface and
    /// network. To be called only while it is attached.
    pub async fn rewire_container(&self, instance_uid: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
        let (uid, endpoints) = (instance_uid.to_owned(), endpoints.to_vec());
        self.blocking(move |inner| inner.rewire(&uid, &endpoints)).await
    }

    /// Has an attached container find the name server at `server` also at [`RESOLVER`].
    pub async fn redirect_dns(&self, instance_uid: &str, server: Ipv4Addr) -> Result<(), Error> {
        let uid = instance_uid.to_owned();
        self.blocking(move |inner| inner.redirect_dns(&uid, server)).await
    }

    /// Frees the instance's address on one network and forgets its names there.
    pub fn leave(&self, network_uid: &str, instance_uid: &str) {
        self.inner.leave(network_uid, instance_uid);
    }

    /// Names and resolvers that only this instance has. Replaces what it had; [`Net::remove_names`] forgets them.
    pub fn set_own(&self, instance_uid: &str, own: Own) {
        self.inner.set_own(instance_uid, own);
    }

    /// Makes (or adopts) one persistent tap for each endpoint, in its bridge, and returns their names in order. DHCP
    /// answers the endpoints' hardware addresses from now on.
    pub async fn attach_machine(&self, instance_uid: &str, endpoints: &[Endpoint]) -> Result<Vec<String>, Error> {
        let (uid, endpoints) = (instance_uid.to_owned(), endpoints.to_vec());
        self.blocking(move |inner| inner.attach_machine(&uid, &endpoints)).await
    }

    /// Undoes either attach; to be called when nothing runs in it any more. Addresses stay allocated. Detaching what
    /// is not attached is no error. Links of a container may stay some milliseconds longer.
    pub async fn detach(&self, instance_uid: &str) -> Result<(), Error> {
        if self.inner.holds_nothing(instance_uid) {
            return Ok(());
        }
        let uid = instance_uid.to_owned();
        let links = self.blocking(move |inner| inner.detach(&uid)).await?;
        if !links.is_empty() {
            tokio::spawn(self.clone().reap(instance_uid.to_owned(), links));
        }
        Ok(())
    }

    /// Publishes ports of the instance at `address` on the host and returns them with host ports filled in. Replaces
    /// what the instance published before.
    pub async fn publish(
        &self,
        instance_uid: &str,
        address: Ipv4Addr,
        ports: &[PortMapping],
    ) -> Result<Vec<PortMapping>, Error> {
        let (uid, ports) = (instance_uid.to_owned(), ports.to_vec());
        self.blocking(move |inner| inner.publish(&uid, address, &ports)).await
    }

    /// Withdraws all published ports of the instance.
    pub async fn unpublish(&self, instance_uid: &str) -> Result<(), Error> {
        if !self.inner.publishes(instance_uid) {
            return Ok(());
        }
        let uid = instance_uid.to_owned();
        self.blocking(move |inner| inner.unpublish(&uid)).await
    }

    /// Lets the network's DNS answer `names` (instance name, aliases) with `address`. Replaces the instance's
    /// earlier names on this network.
    pub fn add_names(
        &self,
        network_uid: &str,
        instance_uid: &str,
        names: &[String],
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        self.inner.add_names(network_uid, instance_uid, names, address)
    }

    /// Forgets the instance's names on all networks.
    pub fn remove_names(&self, instance_uid: &str) {
        self.inner.remove_names(instance_uid);
    }

    /// Removes what a crash left: namespaces, veths, taps, published ports and addresses of instances not in `live`,
    /// and bridges of networks that were not ensured since the start.
    pub async fn sweep(&self, live: &HashSet<String>) -> Result<Swept, Error> {
        let live = live.clone();
        self.blocking(move |inner| inner.sweep(&live)).await
    }

    async fn reap(self, uid: String, links: Vec<String>) {
        tokio::time::sleep(LINGER).await;
        if let Err(error) = self.blocking(move |inner| inner.reap(&uid, &links)).await {
            tracing::warn!(%error, "links of a detached instance stay until the next sweep");
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&inner::Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or(Err(Error::Task("network")))
    }
}

/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files of network namespaces.
    pub namespaces: usize,
    /// Interfaces.
    pub links: usize,
    /// Published ports.
    pub ports: usize,
}
