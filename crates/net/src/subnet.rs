//! IPv4 subnets: reading, overlap, choosing a free one.

use std::fmt;
use std::net::Ipv4Addr;

/// A range of IPv4 addresses, as `10.88.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The subnet of this prefix length (at most 32) that holds `address`.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.min(32);
        Subnet {
            base: u32::from(address) & mask(prefix),
            prefix,
        }
    }

    /// Reads `10.88.0.0/24`; 8 to 30 bits, no host bits set. The error is for people.
    pub fn parse(text: &str) -> Result<Subnet, String> {
        let (address, prefix) = biga_model::kinds::network::parse_subnet(text)?;
        Ok(Subnet::containing(address, prefix))
    }

    /// Reads any range, as `10.88.0.128/25`; no host bits set. The error is for people.
    pub fn read(text: &str) -> Result<Subnet, String> {
        let bad = || format!("{text:?} is no IPv4 range, as in 10.88.0.128/25");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix = prefix.parse().ok().filter(|p| (1..=32).contains(p)).ok_or_else(bad)?;
        let subnet = Subnet::containing(address, prefix);
        if subnet.address() != address {
            return Err(format!("{text:?} has host bits set: did you mean {subnet}?"));
        }
        Ok(subnet)
    }

    /// Its first address, which names the subnet.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base | !mask(self.prefix))
    }

    /// The netmask, as 255.255.255.0.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix))
    }

    /// Its second address, the usual router.
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base.saturating_add(1))
    }

    /// Whether the address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Subnet) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.base & shorter == other.base & shorter
    }

    /// Its parts of `prefix` bits, in order.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Subnet> {
        let prefix = prefix.clamp(self.prefix, 32);
        let count = 1u64 << (prefix - self.prefix);
        let step = 1u64 << (32 - prefix);
        (0..count).map(move |i| Subnet {
            base: (u64::from(self.base) + i * step) as u32,
            prefix,
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// The first part of the pools, cut to `prefix` bits, that overlaps nothing taken.
pub fn pick(pools: &[Subnet], prefix: u8, taken: &[Subnet]) -> Option<Subnet> {
    pools
        .iter()
        .flat_map(|pool| pool.split(prefix))
        .find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(s: &str) -> Subnet {
        Subnet::parse(s).unwrap()
    }

    #[test]
    fn picks_the_first_free_one() {
        let pools = [net("10.88.0.0/16")];
        assert_eq!(pick(&pools, 24, &[]), Some(net("10.88.0.0/24")));
        assert_eq!(
            pick(&pools, 24, &[net("10.88.0.0/23"), net("10.88.3.0/24")]),
            Some(net("10.88.2.0/24"))
        );
        assert_eq!(pick(&pools, 24, &[net("10.0.0.0/8")]), None);
    }

    proptest! {
        #[test]
        fn overlap_agrees_with_membership(a: u32, la in 8u8..=30, b: u32, lb in 8u8..=30) {
            let (x, y) = (Subnet::containing(a.into(), la), Subnet::containing(b.into(), lb));
            let expected = x.contains(y.address()) || y.contains(x.address());
            prop_assert_eq!(x.overlaps(y), expected);
            prop_assert_eq!(y.overlaps(x), expected);
            prop_assert!(x.contains(x.broadcast()) && x.contains(x.first_host()));
            prop_assert_eq!(Subnet::parse(&x.to_string()), Ok(x));
        }

        #[test]
        fn parts_are_disjoint_and_inside(a: u32, l in 8u8..=20, more in 0u8..=6) {
            let whole = Subnet::containing(a.into(), l);
            let parts: Vec<_> = whole.split(l + more).collect();
            prop_assert_eq!(parts.len(), 1 << more);
            for (i, p) in parts.iter().enumerate() {
                prop_assert!(whole.contains(p.address()) && whole.contains(p.broadcast()));
                prop_assert!(!parts[..i].iter().any(|q| q.overlaps(*p)));
            }
        }
    }
}
