//! The text of the table.

use std::fmt::Write;

/// Table, sets, chains and rules. Written over what is there, it keeps elements of sets and connections.
pub fn base(table: &str) -> String {
    BASE.replace("TABLE", table)
}

/// A line that adds or deletes one element.
pub fn element(out: &mut String, table: &str, verb: &str, set: &str, key: &str, value: &str) {
    let key = key.split(" . ").map(quoted).collect::<Vec<_>>().join(" . ");
    let colon = if value.is_empty() { "" } else { " : " };
    let _ = writeln!(out, "{verb} element ip {table} {set} {{ {key}{colon}{value} }}");
}

/// Interface names are quoted, for the hyphen; addresses, protocols and ports are not.
fn quoted(part: &str) -> String {
    if part.contains('-') {
        format!("\"{part}\"")
    } else {
        part.to_owned()
    }
}

/// Notes on single rules:
/// - `early`: bridges have `route_localnet`, for ports published on 127.0.0.1; without this rule instances could
///   reach all that listens on the host's loopback.
/// - `prerouting`, `output`: published ports, from outside and from the host itself. A map element more or less is
///   all that publishing costs.
/// - `postrouting`: from loopback, an instance needs an address it can answer; an instance that comes by the host's
///   address to one of its own network (or to itself) would be answered directly, past the address translation;
///   instances on internal networks have no way back but to the gateway.
/// - `forward`: between networks only by published ports; into a network from outside only by published ports.
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
add chain ip TABLE early { type filter hook prerouting priority raw; policy accept; }
add chain ip TABLE prerouting { type nat hook prerouting priority -100; policy accept; }
add chain ip TABLE output { type nat hook output priority -100; policy accept; }
add chain ip TABLE postrouting { type nat hook postrouting priority 100; policy accept; }
add chain ip TABLE forward { type filter hook forward priority 0; policy accept; }
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
add rule ip TABLE forward iifname != @bridges oifname != @bridges accept
add rule ip TABLE forward ct state established,related accept
add rule ip TABLE forward iifname . oifname @same accept
add rule ip TABLE forward iifname @internal drop
add rule ip TABLE forward ct status dnat accept
add rule ip TABLE forward oifname @bridges drop
add rule ip TABLE redirects oifname @bridges icmp type redirect drop
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written() {
        let mut out = String::new();
        element(&mut out, "t", "add", "same", "t-aa . t-aa", "");
        element(&mut out, "t", "delete", "ports_any", "tcp . 80", "10.1.0.2 . 8080");
        assert_eq!(
            out,
            "add element ip t same { \"t-aa\" . \"t-aa\" }\ndelete element ip t ports_any { tcp . 80 : 10.1.0.2 . 8080 }\n"
        );
    }
}
