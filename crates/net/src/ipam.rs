//! Which instance has which address. Kept in memory only: after a restart the instances' own statuses say it again.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use crate::{Error, Subnet};

/// Who holds the addresses that nobody gets.
const RESERVED: &str = "";

/// The addresses of one network.
#[derive(Debug, Clone)]
pub struct Pool {
    subnet: Subnet,
    gateway: Ipv4Addr,
    holders: BTreeMap<u32, String>,
    addresses: HashMap<String, Ipv4Addr>,
    /// Free addresses are taken from here; the whole subnet where unset.
    range: Option<Subnet>,
    /// Where the search goes on: addresses come back late, so that those who remember an old holder forget it first.
    next: u32,
}

impl Pool {
    /// All free but the first, the last and the gateway's.
    pub fn new(subnet: Subnet, gateway: Ipv4Addr) -> Pool {
        Pool {
            subnet,
            gateway,
            holders: BTreeMap::new(),
            addresses: HashMap::new(),
            range: None,
            next: u32::from(subnet.first_host()),
        }
    }

    /// Gives free addresses only from `range`, and nobody those of `reserved`. What is given stays given.
    pub fn set_rules(&mut self, range: Option<Subnet>, reserved: &[Ipv4Addr]) {
        self.range = range;
        self.holders.retain(|_, holder| holder != RESERVED);
        for &address in reserved.iter().filter(|a| self.subnet.contains(**a)) {
            self.holders
                .entry(address.into())
                .or_insert_with(|| RESERVED.to_owned());
        }
    }

    /// Its range.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The node's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Gives the instance `wanted`, or what it has, or a free one.
    pub fn allocate(&mut self, instance: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        if let Some(&has) = self.addresses.get(instance) {
            return match wanted {
                Some(wanted) if wanted != has => Err(Error::HasAddress {
                    instance: instance.to_owned(),
                    has,
                    wanted,
                }),
                _ => Ok(has),
            };
        }
        let address = match wanted {
            Some(address) => self.check(instance, address)?,
            None => self.free().ok_or(Error::NoAddress { subnet: self.subnet })?,
        };
        self.take(instance, address);
        Ok(address)
    }

    /// Notes an address given earlier; the instance gives up any other it has here.
    pub fn restore(&mut self, instance: &str, address: Ipv4Addr) -> Result<(), Error> {
        self.check(instance, address)?;
        if self.addresses.get(instance) != Some(&address) {
            self.release(instance);
            self.take(instance, address);
        }
        Ok(())
    }

    /// Frees the instance's address.
    pub fn release(&mut self, instance: &str) {
        if let Some(address) = self.addresses.remove(instance) {
            self.holders.remove(&u32::from(address));
        }
    }

    /// Frees the addresses of all instances for which `keep` says no.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.holders.retain(|_, holder| holder == RESERVED || keep(holder));
        self.addresses.retain(|holder, _| keep(holder));
    }

    fn take(&mut self, instance: &str, address: Ipv4Addr) {
        self.holders.insert(address.into(), instance.to_owned());
        self.addresses.insert(instance.to_owned(), address);
        self.next = u32::from(address).wrapping_add(1);
    }

    fn check(&self, instance: &str, address: Ipv4Addr) -> Result<Ipv4Addr, Error> {
        let subnet = self.subnet;
        let bad = |why| Err(Error::BadAddress { address, why, subnet });
        if !subnet.contains(address) {
            return bad("is not in");
        }
        if self.reserved(address) {
            return bad("is reserved in");
        }
        match self.holders.get(&u32::from(address)) {
            Some(holder) if holder == RESERVED => bad("is reserved in"),
            Some(holder) if holder != instance => Err(Error::AddressInUse {
                address,
                holder: holder.clone(),
            }),
            _ => Ok(address),
        }
    }

    fn reserved(&self, address: Ipv4Addr) -> bool {
        address == self.subnet.address() || address == self.subnet.broadcast() || address == self.gateway
    }

    /// The first free address from `next` on, around the end. Walks the taken ones only, not the whole range.
    fn free(&self) -> Option<Ipv4Addr> {
        let range = self.range.unwrap_or(self.subnet);
        let first = (u32::from(self.subnet.address()) + 1).max(range.address().into());
        let last = (u32::from(self.subnet.broadcast()) - 1).min(range.broadcast().into());
        let start = if (first..=last).contains(&self.next) {
            self.next
        } else {
            first
        };
        self.free_in(start, last).or_else(|| self.free_in(first, start))
    }

    fn free_in(&self, from: u32, to: u32) -> Option<Ipv4Addr> {
        let gateway = u32::from(self.gateway);
        let mut candidate = from;
        for &taken in self.holders.range(from..=to).map(|(a, _)| a) {
            if candidate == gateway {
                candidate += 1;
            }
            if taken > candidate {
                break;
            }
            if taken == candidate {
                candidate += 1;
            }
        }
        if candidate == gateway {
            candidate += 1;
            while self.holders.contains_key(&candidate) {
                candidate += 1;
            }
        }
        (candidate <= to).then(|| candidate.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pool() -> Pool {
        let subnet = Subnet::parse("10.1.2.0/28").unwrap();
        Pool::new(subnet, subnet.first_host())
    }

    #[test]
    fn keeps_and_refuses() {
        let mut p = pool();
        let a = p.allocate("a", None).unwrap();
        assert_eq!(a, Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(p.allocate("a", None).unwrap(), a);
        assert!(matches!(p.allocate("b", Some(a)), Err(Error::AddressInUse { .. })));
        assert!(matches!(
            p.allocate("a", Some(Ipv4Addr::new(10, 1, 2, 9))),
            Err(Error::HasAddress { .. })
        ));
        for reserved in [0, 1, 15] {
            let r = p.allocate("c", Some(Ipv4Addr::new(10, 1, 2, reserved)));
            assert!(matches!(r, Err(Error::BadAddress { .. })), "{reserved}");
        }
        let r = p.allocate("c", Some(Ipv4Addr::new(10, 1, 3, 2)));
        assert!(matches!(r, Err(Error::BadAddress { .. })));
    }

    #[test]
    fn gives_every_address_once_and_then_says_so() {
        for gateway in [1u8, 2, 7, 13, 14] {
            let subnet = Subnet::parse("10.1.2.0/28").unwrap();
            let mut p = Pool::new(subnet, Ipv4Addr::new(10, 1, 2, gateway));
            let given: HashSet<_> = (0..13).map(|i| p.allocate(&i.to_string(), None).unwrap()).collect();
            assert_eq!(given.len(), 13);
            assert!(matches!(p.allocate("x", None), Err(Error::NoAddress { .. })));
            p.release("5");
            assert!(p.allocate("x", None).is_ok());
        }
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut p = pool();
        let a = p.allocate("a", None).unwrap();
        p.release("a");
        assert_ne!(p.allocate("b", None).unwrap(), a);
    }

    #[test]
    fn ranges_and_reserved_addresses_are_kept_to() {
        let subnet = Subnet::parse("10.1.2.0/24").unwrap();
        let ip = |n| Ipv4Addr::new(10, 1, 2, n);
        let mut p = Pool::new(subnet, ip(1));
        p.set_rules(Some(Subnet::parse("10.1.2.128/30").unwrap()), &[ip(129), ip(20)]);
        let given: HashSet<_> = (0..3).map(|i| p.allocate(&i.to_string(), None).unwrap()).collect();
        assert_eq!(given, [ip(128), ip(130), ip(131)].into());
        assert!(matches!(p.allocate("x", None), Err(Error::NoAddress { .. })));
        // By choice, the rest of the subnet can be had; what is reserved cannot.
        assert_eq!(p.allocate("x", Some(ip(9))).unwrap(), ip(9));
        assert!(matches!(p.allocate("y", Some(ip(20))), Err(Error::BadAddress { .. })));
        p.retain(|_| false);
        assert!(p.allocate("y", Some(ip(20))).is_err());
        p.set_rules(None, &[]);
        assert_eq!(p.allocate("y", Some(ip(20))).unwrap(), ip(20));
    }

    proptest! {
        #[test]
        fn no_two_hold_one_address(steps in prop::collection::vec((0u8..20, 0u8..4, 0u8..16), 1..200), gateway in 1u8..15) {
            let subnet = Subnet::parse("10.1.2.0/28").unwrap();
            let mut p = Pool::new(subnet, Ipv4Addr::new(10, 1, 2, gateway));
            let mut model: HashMap<String, Ipv4Addr> = HashMap::new();
            for (who, op, octet) in steps {
                let (who, address) = (who.to_string(), Ipv4Addr::new(10, 1, 2, octet));
                match op {
                    0 => { p.release(&who); model.remove(&who); }
                    1 => if p.restore(&who, address).is_ok() { model.insert(who, address); },
                    2 => if let Ok(got) = p.allocate(&who, Some(address)) {
                        prop_assert_eq!(got, address);
                        model.insert(who, got);
                    },
                    _ => match p.allocate(&who, None) {
                        Ok(got) => { model.insert(who, got); }
                        Err(e) => {
                            let full = matches!(e, Error::NoAddress { .. });
                            prop_assert!(full);
                            prop_assert_eq!(model.len(), 13);
                        }
                    },
                }
                let distinct: HashSet<_> = model.values().collect();
                prop_assert_eq!(distinct.len(), model.len());
                prop_assert_eq!(&p.addresses, &model);
                for a in model.values() {
                    prop_assert!(subnet.contains(*a) && !p.reserved(*a));
                }
            }
        }
    }
}
