//! The text of the table.

use std::fmt::Write;

use super::Set;

/// Table, sets, chains and rules. Written over what is there, it keeps elements of sets and connections.
pub fn base(table: &str) -> String {
    BASE.replace("TABLE", table)
}

/// A line that adds or deletes one element.
pub fn element(out: &mut String, table: &str, verb: &str, set: Set, key: &str, value: &str) {
    let word = |part: &str| match set.is_bridges() {
        // Names of interfaces are quoted: they may look like numbers or words of nft.
        true => format!("\"{part}\""),
        false => part.to_owned(),
    };
    let key = key.split(" . ").map(word).collect::<Vec<_>>().join(" . ");
    let colon = if value.is_empty() { "" } else { " : " };
    let _ = writeln!(
        out,
        "{verb} element ip {table} {} {{ {key}{colon}{value} }}",
        set.name()
    );
}

/// Notes on single rules:
/// - `early`: bridges have `route_localnet`, for ports published on 127.0.0.1; without this rule instances could
///   reach all that listens on the host's loopback.
/// - `prerouting`, `output`: published ports, from outside and from the host itself. A map element more or less is
///   all that publishing costs.
/// - `postrouting`: from loopback, an instance needs an address it can answer; an instance that comes by the host's
///   address to one of its own network (or to itself) would be answered directly, past the address translation;
///   instances on internal networks have no way back but to the gateway.
/// - `forward`: between networks only by published ports; into a network from outside only by published ports, but into
///   one that has no protection, or that is routed, whose ports are open at the instances' own addresses.
/// - `input`, `redirects`: isolated networks have the node's name server and DHCP, and nothing else of it.
/// - `redirects`: for packets that come back into the segment they came from, the kernel would tell the sender of a
///   shorter way, which does not exist after translation.
const BASE: &str = r#"add table ip TABLE
add set ip TABLE bridges { type ifname; }
add set ip TABLE internal { type ifname; }
add set ip TABLE same { type ifname . ifname; }
add set ip TABLE nat { type ipv4_addr; flags interval; }
add set ip TABLE subnets { type ipv4_addr; flags interval; }
add map ip TABLE ports_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map ip TABLE ports_ip { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add set ip TABLE ports_open { type ipv4_addr . inet_proto . inet_service; }
add map ip TABLE sources { type ipv4_addr : ipv4_addr; flags interval; }
add set ip TABLE unprotected { type ifname; }
add set ip TABLE routed { type ifname; }
add set ip TABLE isolated { type ifname; }
add chain ip TABLE early { type filter hook prerouting priority raw; policy accept; }
add chain ip TABLE prerouting { type nat hook prerouting priority -100; policy accept; }
add chain ip TABLE output { type nat hook output priority -100; policy accept; }
add chain ip TABLE postrouting { type nat hook postrouting priority 100; policy accept; }
add chain ip TABLE forward { type filter hook forward priority 0; policy accept; }
add chain ip TABLE input { type filter hook input priority 0; policy accept; }
add chain ip TABLE redirects { type filter hook output priority 0; policy accept; }
flush table ip TABLE
add rule ip TABLE early iifname @bridges ip daddr 127.0.0.0/8 drop
add rule ip TABLE prerouting fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports_ip
add rule ip TABLE prerouting fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
add rule ip TABLE output fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports_ip
add rule ip TABLE output fib daddr type local dnat ip to meta l4proto . th dport map @ports_any
add rule ip TABLE postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule ip TABLE postrouting ct status dnat oifname @bridges ip saddr @subnets masquerade
add rule ip TABLE postrouting ct status dnat oifname @internal masquerade
add rule ip TABLE postrouting ip saddr @nat oifname != @bridges masquerade
add rule ip TABLE postrouting oifname != @bridges snat to ip saddr map @sources
add rule ip TABLE forward iifname != @bridges oifname != @bridges accept
add rule ip TABLE forward ct state established,related accept
add rule ip TABLE forward iifname . oifname @same accept
add rule ip TABLE forward iifname @internal drop
add rule ip TABLE forward ct status dnat accept
add rule ip TABLE forward ip daddr . meta l4proto . th dport @ports_open accept
add rule ip TABLE forward oifname @routed meta l4proto icmp accept
add rule ip TABLE forward iifname != @bridges oifname @unprotected accept
add rule ip TABLE forward oifname @bridges drop
add rule ip TABLE redirects oifname @bridges icmp type redirect drop
add rule ip TABLE input iifname @isolated meta l4proto { tcp, udp } th dport 53 accept
add rule ip TABLE input iifname @isolated udp dport 67 accept
add rule ip TABLE input iifname @isolated drop
add rule ip TABLE redirects oifname @isolated ct direction reply accept
add rule ip TABLE redirects oifname @isolated udp sport 67 accept
add rule ip TABLE redirects oifname @isolated drop
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written() {
        let mut out = String::new();
        element(&mut out, "t", "add", Set::Same, "t-aa . t-aa", "");
        element(&mut out, "t", "delete", Set::PortsAny, "tcp . 80", "10.1.0.2 . 8080");
        assert_eq!(
            out,
            "add element ip t same { \"t-aa\" . \"t-aa\" }\ndelete element ip t ports_any { tcp . 80 : 10.1.0.2 . 8080 }\n"
        );
    }
}
