//! Networks of an instance that change while it exists.
//!
//! A running container gets and loses interfaces. A microvm and a machine keep the cards they were started with: a
//! change is for their next start, and told as such. What does not run only lets go of addresses it wants no more.

use biga_model::{Instance, InstanceStatus, Isolation, NetworkAttachment, NetworkMode, Object};

use crate::instance::Failure;
use crate::networks::{Connection, Networks, endpoint_status};
use crate::places::Places;

impl Networks {
    /// Brings the networks of an instance to what its spec says and notes them in `status`.
    pub async fn follow_spec(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<(), Failure> {
        if object.spec.namespaces.network.is_some() {
            return Ok(());
        }
        let wanted = match object.spec.network_mode {
            NetworkMode::Bridge => self.attachments(object),
            // What an instance has in its status it was started with: it has left the last one.
            NetworkMode::None => Vec::new(),
            NetworkMode::Host => return Ok(()),
        };
        let has = |name: &str| status.networks.iter().any(|e| e.network == name);
        let fresh: Vec<&NetworkAttachment> = wanted.iter().filter(|a| !has(&a.network)).collect();
        let gone: Vec<String> = status
            .networks
            .iter()
            .map(|e| e.network.clone())
            .filter(|n| !wanted.iter().any(|a| a.network == *n))
            .collect();
        if !status.phase.is_live() {
            status.networks.retain(|e| !gone.contains(&e.network));
            self.leave(object.uid(), &gone).await;
            return Ok(());
        }
        let same_names = wanted.iter().all(|a| {
            let known = status.networks.iter().find(|e| e.network == a.network);
            known.is_some_and(|e| e.aliases == a.aliases)
        });
        let changed = !(fresh.is_empty() && gone.is_empty());
        if changed && object.spec.isolation != Isolation::Container {
            let message = format!(
                "a {} keeps the network cards it was started with: stop it to change its networks",
                object.spec.isolation
            );
            return Err(Failure::new("NetworksFixed", message));
        }
        if !changed && same_names {
            // Its own name and its links may be others: they are told again. Where that fails it stays as it is.
            if let Err(f) = self.change(object, status, &wanted, false).await {
                tracing::debug!(uid = object.uid(), "its names were not told again: {f}");
            }
            return Ok(());
        }
        let fresh: Vec<String> = fresh.into_iter().map(|a| a.network.clone()).collect();
        let result = self.change(object, status, &wanted, changed).await;
        self.leave(object.uid(), if result.is_ok() { &gone } else { &fresh })
            .await;
        result
    }

    async fn change(
        &self,
        object: &Object<Instance>,
        status: &mut InstanceStatus,
        wanted: &[NetworkAttachment],
        changed: bool,
    ) -> Result<(), Failure> {
        let connections = self.live_connections(object, status, wanted).await?;
        if changed {
            let ends: Vec<_> = connections.iter().map(|c| c.endpoint.clone()).collect();
            let rewired = self.net().rewire_container(object.uid(), &ends).await;
            rewired.map_err(|e| Failure::new("NetworkFailed", e.to_string()))?;
        }
        let first = |c: &[Connection]| c.first().map(|c| c.endpoint.address);
        let before = status.networks.first().map(|e| e.address.clone());
        let moved = before.as_deref() != connections.first().map(|c| c.endpoint.cidr()).as_deref();
        if moved && first(&connections).is_some() {
            self.redirect(object.uid(), &connections).await?;
        }
        if moved && connections.is_empty() {
            status.networks.clear();
            status.ports.clear();
            let withdrawn = self.net().unpublish(object.uid()).await;
            withdrawn.map_err(|e| Failure::new("PortFailed", e.to_string()))
        } else if moved && status.ports.is_empty() {
            self.announce(object, &connections, status).await
        } else if moved {
            // The ports lead to its first address.
            self.announce_again(object, &connections, status).await
        } else {
            self.name(object, &connections)?;
            status.networks = connections.iter().map(endpoint_status).collect();
            Ok(())
        }
    }

    /// Connections of one that runs: what it has keeps its interface and address.
    async fn live_connections(
        &self,
        object: &Object<Instance>,
        status: &InstanceStatus,
        wanted: &[NetworkAttachment],
    ) -> Result<Vec<Connection>, Failure> {
        let mut places = Places::of(&status.networks);
        let mut all = Vec::with_capacity(wanted.len());
        for a in wanted {
            let known = status.networks.iter().find(|e| e.network == a.network);
            let kept = known.map(|e| NetworkAttachment {
                address: None,
                mac: Some(e.mac.clone()),
                ..a.clone()
            });
            let a = kept.as_ref().unwrap_or(a);
            all.push(self.connection(object, status, &mut places, a, known).await?);
        }
        Ok(all)
    }

    /// The connections that a running instance has, as its status tells.
    pub async fn held_connections(
        &self,
        object: &Object<Instance>,
        status: &InstanceStatus,
    ) -> Result<Vec<Connection>, Failure> {
        let attachment = |e: &biga_model::NetworkEndpoint| {
            let wished = object.spec.networks.iter().find(|a| a.network == e.network);
            let mut a = wished.cloned().unwrap_or_default();
            a.network.clone_from(&e.network);
            a.aliases.clone_from(&e.aliases);
            a
        };
        let held: Vec<NetworkAttachment> = status.networks.iter().map(attachment).collect();
        self.live_connections(object, status, &held).await
    }

    async fn leave(&self, uid: &str, networks: &[String]) {
        for name in networks {
            if let Ok(Some(network)) = self.objects().find("", name).await {
                self.net().leave(&network.metadata.uid, uid);
            }
        }
    }
}
