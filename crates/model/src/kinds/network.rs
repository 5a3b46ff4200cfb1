//! `Network`: a layer-2 segment with a subnet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kind::{Column, FieldError, Kind, column, wide};
use crate::object::{Condition, Object, Timestamp};

/// Marker of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Network;

/// The network that instances join where they name none.
pub const DEFAULT_NETWORK: &str = "default";

impl Kind for Network {
    const KIND: &'static str = "Network";
    const PLURAL: &'static str = "networks";
    const SINGULAR: &'static str = "network";
    const SHORT_NAMES: &'static [&'static str] = &["net"];
    const NAMESPACED: bool = false;
    const FINALIZERS: &'static [&'static str] = &[super::instance::AGENT_FINALIZER];
    const SUBRESOURCES: &'static [&'static str] = &["status"];
    type Spec = NetworkSpec;
    type Status = NetworkStatus;

    fn validate(o: &Object<Self>, old: Option<&Object<Self>>) -> Vec<FieldError> {
        let mut e = Vec::new();
        o.spec.check_bridge(&mut e);
        if let Some(old) = old {
            o.spec.check_kept(&old.spec, &mut e);
        }
        let subnet = o.spec.subnet.as_deref().map(parse_subnet);
        if let Some(Err(why)) = &subnet {
            e.push(FieldError::new("spec.subnet", why.clone()));
        }
        if let Some(g) = &o.spec.gateway {
            match (g.parse::<Ipv4Addr>(), &subnet) {
                (Err(_), _) => e.push(FieldError::new("spec.gateway", "is no IPv4 address")),
                (Ok(_), None) => e.push(FieldError::new("spec.gateway", "needs spec.subnet")),
                (Ok(g), Some(Ok((net, len)))) if u32::from(g) >> (32 - len) != u32::from(*net) >> (32 - len) => {
                    e.push(FieldError::new("spec.gateway", "is not in spec.subnet"));
                }
                _ => {}
            }
        }
        if let Some(range) = &o.spec.ip_range {
            let inside = match (range.split_once('/'), &subnet) {
                (Some((a, l)), Some(Ok((net, len)))) => match (a.parse::<Ipv4Addr>(), l.parse::<u8>()) {
                    (Ok(a), Ok(l)) => {
                        (*len..=32).contains(&l) && u32::from(a) >> (32 - len) == u32::from(*net) >> (32 - len)
                    }
                    _ => false,
                },
                _ => false,
            };
            if !inside {
                e.push(FieldError::new(
                    "spec.ipRange",
                    "is no part of spec.subnet, as in 10.89.0.128/25",
                ));
            }
        }
        for (name, address) in &o.spec.reserved {
            if address.parse::<Ipv4Addr>().is_err() {
                e.push(FieldError::new(format!("spec.reserved[{name}]"), "is no IPv4 address"));
            }
        }
        if old.is_some_and(|old| {
            old.spec.subnet.is_some() && (old.spec.subnet != o.spec.subnet || old.spec.gateway != o.spec.gateway)
        }) {
            e.push(FieldError::new(
                "spec.subnet",
                "cannot be changed: instances have addresses in it",
            ));
        }
        e
    }

    fn columns() -> &'static [Column] {
        &[
            const { column("Subnet", "Its addresses.") },
            const { column("Gateway", "The node's own address on it.") },
            const { column("Internal", "Whether it is cut off from outside.") },
            const { column("Status", "Whether it is there.") },
            const { wide("Bridge", "Its interface on the node.") },
        ]
    }

    fn cells(o: &Object<Self>, _now: Timestamp) -> Vec<Value> {
        let s = o.status_or_default();
        vec![
            json!(s.subnet),
            json!(s.gateway),
            json!(o.spec.internal.to_string()),
            json!(if s.ready {
                "Ready"
            } else if s.message.is_empty() {
                "Pending"
            } else {
                "Failed"
            }),
            json!(s.bridge),
        ]
    }
}

/// Reads `10.1.2.0/24`; the address must be the first of its range, the prefix 8 to 30 bits.
pub fn parse_subnet(s: &str) -> Result<(Ipv4Addr, u8), String> {
    let bad = || format!("{s:?} is no IPv4 subnet, as in 10.89.0.0/24");
    let (a, l) = s.split_once('/').ok_or_else(bad)?;
    let (a, l): (Ipv4Addr, u8) = (a.parse().map_err(|_| bad())?, l.parse().map_err(|_| bad())?);
    if !(8..=30).contains(&l) {
        return Err(format!("{s:?}: the prefix is 8 to 30 bits long"));
    }
    let base = u32::from(a) & (u32::MAX << (32 - l));
    if base != u32::from(a) {
        return Err(format!(
            "{s:?} has host bits set: did you mean {}/{l}?",
            Ipv4Addr::from(base)
        ));
    }
    Ok((a, l))
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// As `10.89.0.0/24`; the node picks a free one where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The node's own address; the first of the subnet where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The part of the subnet from which free addresses are taken, as `10.89.0.128/25`; all of it where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// Addresses that no instance gets, by the name of what has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, String>,
    /// No way out: no NAT, no default route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Largest packet; the kernel's default where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Nothing is made of it: it holds settings that other networks are made with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub config_only: bool,
    /// Name of its bridge; the node makes one up where unset. A bridge of that name that is there already is used, and
    /// left as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_name: Option<String>,
    /// Instances on it cannot reach each other, but by ports that are published on the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolate_instances: bool,
    /// Whether packets to the outside get the node's address as their source; they do where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// The source address that packets to the outside get, of those that the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Address of the node for published ports that name none; all where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<String>,
    /// What names of interfaces of containers begin with, before their number; `eth` where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_prefix: Option<String>,
    /// How it is connected with the outside.
    #[serde(default, skip_serializing_if = "GatewayMode::is_nat")]
    pub gateway_mode: GatewayMode,
}

/// How a network is connected with the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// By translation of addresses: in by ports published on the node, out with the node's address.
    #[default]
    Nat,
    /// As `nat`, and whoever has a route to the network reaches every port of its instances.
    NatUnprotected,
    /// Without translation: whoever has a route to the network reaches the published ports at the instances' own addresses.
    Routed,
    /// Not even with the node, but for names and addresses. The network is internal.
    Isolated,
}

impl GatewayMode {
    /// All of them, with their names.
    pub const ALL: [(&'static str, GatewayMode); 4] = [
        ("nat", GatewayMode::Nat),
        ("nat-unprotected", GatewayMode::NatUnprotected),
        ("routed", GatewayMode::Routed),
        ("isolated", GatewayMode::Isolated),
    ];

    fn is_nat(&self) -> bool {
        *self == GatewayMode::Nat
    }
}

impl std::str::FromStr for GatewayMode {
    type Err = String;

    fn from_str(s: &str) -> Result<GatewayMode, String> {
        let known = GatewayMode::ALL.iter().find(|(name, _)| *name == s);
        known
            .map(|(_, mode)| *mode)
            .ok_or_else(|| format!("{s:?} is no mode of a gateway: use nat, nat-unprotected, routed or isolated"))
    }
}

/// Longest name of an interface in Linux.
const INTERFACE_MAX: usize = 15;
/// Digits that the number after a prefix may have.
const NUMBER_MAX: usize = 2;

impl NetworkSpec {
    /// Whether packets to the outside get another source address.
    pub fn translates(&self) -> bool {
        let by_mode = matches!(self.gateway_mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        by_mode && !self.internal && self.masquerade != Some(false)
    }

    fn check_bridge(&self, e: &mut Vec<FieldError>) {
        let interface = |name: &str, most: usize| {
            let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '"' | '*');
            !name.is_empty() && name.len() <= most && name.is_ascii() && !name.contains(odd) && !name.starts_with('.')
        };
        if self.bridge_name.as_ref().is_some_and(|n| !interface(n, INTERFACE_MAX)) {
            e.push(FieldError::new(
                "spec.bridgeName",
                "is no name of an interface: at most 15 letters, digits and signs without spaces",
            ));
        }
        let prefix = self.interface_prefix.as_ref();
        if prefix.is_some_and(|n| !interface(n, INTERFACE_MAX - NUMBER_MAX)) {
            e.push(FieldError::new(
                "spec.interfacePrefix",
                "is no start of an interface's name: at most 13 letters, digits and signs without spaces",
            ));
        }
        if prefix.is_some_and(|n| n == "lo") {
            e.push(FieldError::new("spec.interfacePrefix", "is what loopback is called"));
        }
        for (field, address) in [
            ("spec.bindAddress", &self.bind_address),
            ("spec.sourceAddress", &self.source_address),
        ] {
            if address.as_ref().is_some_and(|a| a.parse::<Ipv4Addr>().is_err()) {
                e.push(FieldError::new(field, "is no IPv4 address"));
            }
        }
        if self.gateway_mode == GatewayMode::Isolated && !self.internal {
            e.push(FieldError::new(
                "spec.gatewayMode",
                "isolated is only for internal networks",
            ));
        }
    }

    /// Instances have been given interfaces by these.
    fn check_kept(&self, old: &NetworkSpec, e: &mut Vec<FieldError>) {
        let same = [
            ("spec.configOnly", self.config_only == old.config_only),
            ("spec.bridgeName", self.bridge_name == old.bridge_name),
            ("spec.isolateInstances", self.isolate_instances == old.isolate_instances),
            ("spec.interfacePrefix", self.interface_prefix == old.interface_prefix),
            ("spec.gatewayMode", self.gateway_mode == old.gateway_mode),
        ];
        let changed = same.into_iter().filter(|(_, same)| !same);
        e.extend(changed.map(|(field, _)| FieldError::new(field, "cannot be changed: make another network")));
    }
}

/// What is seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkStatus {
    /// Whether it is there.
    #[serde(default)]
    pub ready: bool,
    /// The `metadata.generation` this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Interface on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bridge: String,
    /// The subnet in use.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// The node's own address on it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Why it is not there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(spec: NetworkSpec, old: Option<NetworkSpec>) -> Vec<String> {
        let old = old.map(|s| Object::<Network>::new("n", s));
        let errors = Network::validate(&Object::new("n", spec), old.as_ref());
        errors.into_iter().map(|e| e.path).collect()
    }

    #[test]
    fn options_of_the_bridge_are_checked() {
        let spec = NetworkSpec::default;
        let name = |n: &str| NetworkSpec {
            bridge_name: Some(n.into()),
            ..spec()
        };
        for good in ["br0", "br-lan.12", "a23456789012345"] {
            assert!(wrong(name(good), None).is_empty(), "{good}");
        }
        for bad in ["", "a234567890123456", "a b", "a/b", "br*", "..", "a\"b", "br\u{e9}"] {
            assert_eq!(wrong(name(bad), None), ["spec.bridgeName"], "{bad}");
        }
        let prefix = |n: &str| NetworkSpec {
            interface_prefix: Some(n.into()),
            ..spec()
        };
        assert!(wrong(prefix("net"), None).is_empty());
        for bad in ["", "lo", "a2345678901234"] {
            assert_eq!(wrong(prefix(bad), None), ["spec.interfacePrefix"], "{bad}");
        }
        let isolated = NetworkSpec {
            gateway_mode: GatewayMode::Isolated,
            ..spec()
        };
        assert_eq!(wrong(isolated.clone(), None), ["spec.gatewayMode"]);
        let inside = NetworkSpec {
            internal: true,
            ..isolated
        };
        assert!(wrong(inside.clone(), None).is_empty());
        assert_eq!(wrong(inside, Some(spec())), ["spec.gatewayMode"]);
        assert_eq!(wrong(name("br1"), Some(name("br0"))), ["spec.bridgeName"]);
        let bind = NetworkSpec {
            bind_address: Some("::1".into()),
            source_address: Some("x".into()),
            ..spec()
        };
        assert_eq!(wrong(bind, None), ["spec.bindAddress", "spec.sourceAddress"]);
    }

    #[test]
    fn only_nat_translates() {
        let mode = |gateway_mode, masquerade| NetworkSpec {
            gateway_mode,
            masquerade,
            ..NetworkSpec::default()
        };
        assert!(mode(GatewayMode::Nat, None).translates());
        assert!(mode(GatewayMode::NatUnprotected, Some(true)).translates());
        assert!(!mode(GatewayMode::Nat, Some(false)).translates());
        assert!(!mode(GatewayMode::Routed, None).translates());
        for (name, mode) in GatewayMode::ALL {
            assert_eq!(name.parse(), Ok(mode));
            assert_eq!(json!(mode), json!(name));
        }
        assert!("none".parse::<GatewayMode>().is_err());
    }
}
