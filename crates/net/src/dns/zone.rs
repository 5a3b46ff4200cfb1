//! The names of one network.
//!
//! An instance `web` on the network `front` answers to `web`, `web.front`, `web.front.biga.internal` and
//! `web.biga.internal`; its aliases likewise. The node itself is `host.biga.internal`.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use parking_lot::RwLock;

use crate::Subnet;

/// The domain of all names of ours.
const DOMAIN: &str = "biga.internal";
/// The node's name.
const HOST: &str = "host.biga.internal";

/// What the names of one network are.
#[derive(Debug)]
pub struct Zone {
    network: String,
    subnet: Subnet,
    gateway: Ipv4Addr,
    records: RwLock<Records>,
}

#[derive(Debug, Default)]
struct Records {
    /// Lower-case name → instance → address. Several instances may share an alias.
    names: HashMap<String, BTreeMap<String, Ipv4Addr>>,
    /// Instance → its names.
    instances: HashMap<String, Vec<String>>,
    /// Address → instance and its first name.
    addresses: HashMap<Ipv4Addr, (String, String)>,
}

/// What is known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses; at least one.
    Addresses(Vec<Ipv4Addr>),
    /// The name of an address.
    Name(String),
    /// It would be ours and does not exist.
    Nothing,
    /// Not ours: others may know.
    Elsewhere,
}

impl Zone {
    /// Without instances.
    pub fn new(network: &str, subnet: Subnet, gateway: Ipv4Addr) -> Zone {
        Zone {
            network: network.to_ascii_lowercase(),
            subnet,
            gateway,
            records: RwLock::default(),
        }
    }

    /// Whether a question from this address is answered: the network's instances and the node itself.
    pub fn serves(&self, asker: Ipv4Addr) -> bool {
        self.subnet.contains(asker)
    }

    /// The instance that has this address.
    pub fn holder(&self, address: Ipv4Addr) -> Option<String> {
        self.records
            .read()
            .addresses
            .get(&address)
            .map(|(holder, _)| holder.clone())
    }

    /// Whether the instance is on this network.
    pub fn has(&self, instance: &str) -> bool {
        self.records.read().instances.contains_key(instance)
    }

    /// Where its server listens.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Replaces the names of an instance.
    pub fn set(&self, instance: &str, names: &[String], address: Ipv4Addr) {
        let mut records = self.records.write();
        records.forget(instance);
        let names: Vec<String> = names.iter().map(|n| n.to_ascii_lowercase()).collect();
        for name in &names {
            let holders = records.names.entry(name.clone()).or_default();
            holders.insert(instance.to_owned(), address);
        }
        if let Some(first) = names.first() {
            records.addresses.insert(address, (instance.to_owned(), first.clone()));
        }
        records.instances.insert(instance.to_owned(), names);
    }

    /// Forgets an instance.
    pub fn forget(&self, instance: &str) {
        self.records.write().forget(instance);
    }

    /// Forgets all instances for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut records = self.records.write();
        let gone: Vec<String> = records.instances.keys().filter(|i| !keep(i)).cloned().collect();
        for instance in gone {
            records.forget(&instance);
        }
    }

    /// Looks up a name: without the final dot, in any case.
    pub fn look_up(&self, name: &str) -> Answer {
        let name = name.to_ascii_lowercase();
        if name == HOST {
            return Answer::Addresses(vec![self.gateway]);
        }
        if let Some(address) = reverse(&name) {
            return self.name_of(address);
        }
        let records = self.records.read();
        let ours = name.strip_suffix(DOMAIN).and_then(|n| n.strip_suffix('.'));
        let local = ours.unwrap_or(&name);
        let mut found = records.addresses_of(local);
        if found.is_none() {
            let short = local.strip_suffix(&self.network).and_then(|n| n.strip_suffix('.'));
            found = short.and_then(|short| records.addresses_of(short));
        }
        match found {
            Some(addresses) => Answer::Addresses(addresses),
            // A word alone is no name of the public tree.
            None if ours.is_some() || name == DOMAIN || !name.contains('.') => Answer::Nothing,
            None => Answer::Elsewhere,
        }
    }

    fn name_of(&self, address: Ipv4Addr) -> Answer {
        if address == self.gateway {
            return Answer::Name(HOST.to_owned());
        }
        if !self.subnet.contains(address) {
            return Answer::Elsewhere;
        }
        match self.records.read().addresses.get(&address) {
            Some((_, name)) => Answer::Name(format!("{name}.{}.{DOMAIN}", self.network)),
            None => Answer::Nothing,
        }
    }
}

impl Records {
    fn forget(&mut self, instance: &str) {
        for name in self.instances.remove(instance).unwrap_or_default() {
            if let Some(holders) = self.names.get_mut(&name) {
                holders.remove(instance);
                if holders.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        self.addresses.retain(|_, (holder, _)| holder != instance);
    }

    fn addresses_of(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        Some(self.names.get(name)?.values().copied().collect())
    }
}

/// The address in `2.0.88.10.in-addr.arpa`.
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let backwards: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = backwards.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let subnet = Subnet::parse("10.88.0.0/24").unwrap();
        Zone::new("Front", subnet, subnet.first_host())
    }

    fn ip(d: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 0, d)
    }

    #[test]
    fn all_forms_of_a_name_answer() {
        let z = zone();
        z.set("u1", &["Web".into(), "www".into()], ip(2));
        for name in [
            "web",
            "WEB",
            "www",
            "web.front",
            "web.FRONT.biga.internal",
            "www.biga.internal",
        ] {
            assert_eq!(z.look_up(name), Answer::Addresses(vec![ip(2)]), "{name}");
        }
        assert_eq!(z.look_up("host.biga.internal"), Answer::Addresses(vec![ip(1)]));
        for name in [
            "nobody",
            "nobody.biga.internal",
            "web.back.biga.internal",
            "biga.internal",
        ] {
            assert_eq!(z.look_up(name), Answer::Nothing, "{name}");
        }
        for name in ["example.org", "web.back", "notbiga.internal", "nobody.front"] {
            assert_eq!(z.look_up(name), Answer::Elsewhere, "{name}");
        }
    }

    #[test]
    fn a_name_with_dots_answers() {
        let z = zone();
        z.set("u1", &["db.1".into()], ip(3));
        assert_eq!(z.look_up("db.1"), Answer::Addresses(vec![ip(3)]));
        assert_eq!(z.look_up("db.1.front"), Answer::Addresses(vec![ip(3)]));
    }

    #[test]
    fn a_shared_alias_has_all_addresses_until_they_go() {
        let z = zone();
        z.set("u1", &["a".into(), "pool".into()], ip(2));
        z.set("u2", &["b".into(), "pool".into()], ip(3));
        assert_eq!(z.look_up("pool"), Answer::Addresses(vec![ip(2), ip(3)]));
        z.forget("u1");
        assert_eq!(z.look_up("pool"), Answer::Addresses(vec![ip(3)]));
        z.set("u2", &["b".into()], ip(4));
        assert_eq!(z.look_up("pool"), Answer::Nothing);
        z.retain(|_| false);
        assert_eq!(z.look_up("b"), Answer::Nothing);
    }

    #[test]
    fn addresses_have_names() {
        let z = zone();
        z.set("u1", &["web".into()], ip(2));
        assert_eq!(
            z.look_up("2.0.88.10.in-addr.arpa"),
            Answer::Name("web.front.biga.internal".into())
        );
        assert_eq!(z.look_up("1.0.88.10.in-addr.arpa"), Answer::Name(HOST.into()));
        assert_eq!(z.look_up("9.0.88.10.in-addr.arpa"), Answer::Nothing);
        assert_eq!(z.look_up("1.1.1.1.in-addr.arpa"), Answer::Elsewhere);
        z.forget("u1");
        assert_eq!(z.look_up("2.0.88.10.in-addr.arpa"), Answer::Nothing);
    }
}
