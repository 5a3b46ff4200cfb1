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
