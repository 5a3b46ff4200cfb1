//! What a question means depends on who asks: an instance on several networks asks one of their servers and means the
//! names of all of them, and it may have names of its own for others (Docker's links).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;

use super::zone::{Answer, Zone};

/// Who can be asked about names.
pub trait Names {
    /// What is known about a name: without the final dot, in any case.
    fn look_up(&self, name: &str) -> Answer;
}

impl Names for Zone {
    fn look_up(&self, name: &str) -> Answer {
        Zone::look_up(self, name)
    }
}

/// The zones of all networks, and what single instances have of their own.
#[derive(Debug, Default)]
pub struct Directory {
    zones: RwLock<HashMap<String, Arc<Zone>>>,
    own: RwLock<HashMap<String, Own>>,
}

/// What one instance has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Names it has for others, lower-case, and the names those have in their networks.
    pub links: HashMap<String, String>,
    /// Resolvers that are asked for it instead of the host's; the host's where empty.
    pub upstreams: Vec<SocketAddr>,
}

impl Directory {
    /// Notes the zone of a network.
    pub fn add(&self, network: &str, zone: Arc<Zone>) {
        self.zones.write().insert(network.to_owned(), zone);
    }

    /// Forgets the zone of a network.
    pub fn remove(&self, network: &str) {
        self.zones.write().remove(network);
    }

    /// Notes what an instance has of its own.
    pub fn set_own(&self, instance: &str, own: Own) {
        match own == Own::default() {
            true => drop(self.own.write().remove(instance)),
            false => drop(self.own.write().insert(instance.to_owned(), own)),
        }
    }

    /// Forgets what an instance has of its own.
    pub fn forget(&self, instance: &str) {
        self.own.write().remove(instance);
    }

    /// Forgets all instances for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.own.write().retain(|instance, _| keep(instance));
    }

    /// Resolvers of the instance that has this address in `zone`; empty means the host's.
    pub fn upstreams(&self, zone: &Zone, asker: Ipv4Addr) -> Vec<SocketAddr> {
        let Some(instance) = zone.holder(asker) else {
            return Vec::new();
        };
        self.own
            .read()
            .get(&instance)
            .map(|o| o.upstreams.clone())
            .unwrap_or_default()
    }
}

/// The names as the instance with the address `asker` in `zone` sees them.
pub struct View<'a> {
    /// The zone whose server was asked.
    pub zone: &'a Zone,
    /// All zones.
    pub directory: &'a Directory,
    /// Who asks.
    pub asker: Ipv4Addr,
}

impl Names for View<'_> {
    fn look_up(&self, name: &str) -> Answer {
        let here = self.zone.look_up(name);
        let Some(instance) = self.zone.holder(self.asker) else {
            return here;
        };
        let target = self.target(&instance, name);
        // Its own names hide others'.
        let found = match &target {
            Some(target) => self.zone.look_up(target),
            None => here,
        };
        if matches!(found, Answer::Addresses(_) | Answer::Name(_)) {
            return found;
        }
        let name = target.as_deref().unwrap_or(name);
        let zones = self.directory.zones.read();
        let others = zones
            .values()
            .filter(|z| !std::ptr::eq(&***z, self.zone) && z.has(&instance));
        let mut answers = others.map(|z| z.look_up(name));
        let known = answers.find(|a| matches!(a, Answer::Addresses(_) | Answer::Name(_)));
        known.unwrap_or(found)
    }
}

impl View<'_> {
    fn target(&self, instance: &str, name: &str) -> Option<String> {
        let own = self.directory.own.read();
        let links = &own.get(instance)?.links;
        links.get(&name.to_ascii_lowercase()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subnet;

    fn zone(name: &str, subnet: &str) -> Arc<Zone> {
        let subnet = Subnet::parse(subnet).unwrap();
        Arc::new(Zone::new(name, subnet, subnet.first_host()))
    }

    #[test]
    fn an_instance_sees_the_names_of_all_its_networks() {
        let (front, back) = (zone("front", "10.1.0.0/24"), zone("back", "10.2.0.0/24"));
        let d = Directory::default();
        d.add("n1", front.clone());
        d.add("n2", back.clone());
        let (web, web2) = (Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 2, 0, 2));
        front.set("web", &["web".into()], web);
        back.set("web", &["web".into()], web2);
        let db = Ipv4Addr::new(10, 2, 0, 3);
        back.set("db", &["db".into()], db);
        let other = Ipv4Addr::new(10, 1, 0, 9);
        front.set("other", &["other".into()], other);
        let ask = |asker, name: &str| {
            let view = View {
                zone: &front,
                directory: &d,
                asker,
            };
            view.look_up(name)
        };
        assert_eq!(ask(web, "db"), Answer::Addresses(vec![db]));
        assert_eq!(ask(web, "db.back"), Answer::Addresses(vec![db]));
        assert_eq!(
            ask(web, "web"),
            Answer::Addresses(vec![web]),
            "the asked network's own first"
        );
        assert!(matches!(ask(web, "3.0.2.10.in-addr.arpa"), Answer::Name(_)));
        assert_eq!(ask(other, "db"), Answer::Nothing, "who is not on it does not see it");
        assert_eq!(
            ask(Ipv4Addr::new(10, 1, 0, 1), "db"),
            Answer::Nothing,
            "nor does the node"
        );
        assert_eq!(ask(web, "example.org"), Answer::Elsewhere);
        d.set_own(
            "web",
            Own {
                links: [("store".to_string(), "db".to_string()), ("other".into(), "db".into())].into(),
                upstreams: vec!["192.0.2.1:53".parse().unwrap()],
            },
        );
        assert_eq!(ask(web, "STORE"), Answer::Addresses(vec![db]));
        assert_eq!(
            ask(web, "other"),
            Answer::Addresses(vec![db]),
            "its own names hide others"
        );
        assert_eq!(ask(other, "store"), Answer::Nothing);
        assert_eq!(
            (d.upstreams(&front, web).len(), d.upstreams(&front, other).len()),
            (1, 0)
        );
        d.forget("web");
        assert_eq!(ask(web, "store"), Answer::Nothing);
        d.remove("n2");
        assert_eq!(ask(web, "db"), Answer::Nothing);
    }
}
