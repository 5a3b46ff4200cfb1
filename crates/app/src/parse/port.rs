//! `-p`.

use biga_model::{PortMapping, Protocol};

/// Reads `[[IP:][HOST_PORT]:]PORT[/tcp|/udp|/sctp]`, with ranges as `8000-8002:80-82`, or of which any
/// will do as `8000-8010:80`. Gives one mapping for each port inside.
pub fn publish(s: &str) -> Result<Vec<PortMapping>, String> {
    let (rest, protocol) = match s.rsplit_once('/') {
        None => (s, Protocol::Tcp),
        Some((r, "tcp")) => (r, Protocol::Tcp),
        Some((r, "udp")) => (r, Protocol::Udp),
        Some((r, "sctp")) => (r, Protocol::Sctp),
        Some((_, p)) => return Err(format!("{s:?}: {p:?} is no protocol: use tcp, udp or sctp")),
    };
    let (front, inside) = rest.rsplit_once(':').map_or((None, rest), |(f, i)| (Some(f), i));
    let inside = range(s, inside)?;
    let (host_ip, host) = match front {
        None => (None, None),
        Some(f) => match split_ip(s, f)? {
            (ip, "") => (ip, None),
            (ip, h) => (ip, Some(range(s, h)?)),
        },
    };
    // One port inside and several outside: any of them.
    let any_of = host.filter(|(a, b)| inside.0 == inside.1 && a != b);
    if let Some((a, b)) = host
        && any_of.is_none()
        && b - a != inside.1 - inside.0
    {
        return Err(format!("{s:?}: the two ranges must be of the same length"));
    }
    Ok((inside.0..=inside.1)
        .map(|port| PortMapping {
            port,
            host_port: host.map(|(a, _)| a + (port - inside.0)),
            host_port_end: any_of.map(|(_, b)| b),
            host_ip: host_ip.clone(),
            protocol,
        })
        .collect())
}

/// Cuts `IP:PORT`, `[IPv6]:PORT` or `PORT`.
fn split_ip<'a>(whole: &str, s: &'a str) -> Result<(Option<String>, &'a str), String> {
    let bad = |ip: &str| format!("{whole:?}: {ip:?} is no IP address");
    let (ip, port) = if let Some(r) = s.strip_prefix('[') {
        let (ip, r) = r.split_once(']').ok_or_else(|| bad(s))?;
        (ip, r.strip_prefix(':').unwrap_or(r))
    } else {
        match s.rsplit_once(':') {
            Some((ip, p)) => (ip, p),
            None if s.contains('.') => (s, ""),
            None => return Ok((None, s)),
        }
    };
    let address: std::net::IpAddr = ip.parse().map_err(|_| bad(ip))?;
    Ok((Some(address.to_string()), port))
}

fn range(whole: &str, s: &str) -> Result<(u16, u16), String> {
    let one = |p: &str| match p.parse::<u16>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("{whole:?}: {p:?} is no port: write 1 to 65535")),
    };
    let (a, b) = s.split_once('-').unwrap_or((s, s));
    let (a, b) = (one(a)?, one(b)?);
    if b < a {
        return Err(format!("{whole:?}: the range ends before it begins"));
    }
    Ok((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(s: &str) -> PortMapping {
        let v = publish(s).unwrap();
        assert_eq!(v.len(), 1, "{s}");
        v[0].clone()
    }

    #[test]
    fn dockers_spellings_are_read() {
        let p = |ip: Option<&str>, host, port, protocol| PortMapping {
            port,
            host_port: host,
            host_ip: ip.map(String::from),
            protocol,
            host_port_end: None,
        };
        assert_eq!(one("80"), p(None, None, 80, Protocol::Tcp));
        assert_eq!(one("8080:80"), p(None, Some(8080), 80, Protocol::Tcp));
        let any_of = PortMapping {
            host_port_end: Some(8010),
            ..p(None, Some(8000), 80, Protocol::Tcp)
        };
        assert_eq!(one("8000-8010:80"), any_of);
        assert_eq!(one("53:53/udp"), p(None, Some(53), 53, Protocol::Udp));
        assert_eq!(one("36412:36412/sctp"), p(None, Some(36412), 36412, Protocol::Sctp));
        assert_eq!(
            one("127.0.0.1:8080:80"),
            p(Some("127.0.0.1"), Some(8080), 80, Protocol::Tcp)
        );
        assert_eq!(one("127.0.0.1::80"), p(Some("127.0.0.1"), None, 80, Protocol::Tcp));
        assert_eq!(one("[::1]:8080:80"), p(Some("::1"), Some(8080), 80, Protocol::Tcp));
        let r = publish("8000-8002:80-82").unwrap();
        let pairs: Vec<_> = r.iter().map(|m| (m.host_port.unwrap(), m.port)).collect();
        assert_eq!(pairs, [(8000, 80), (8001, 81), (8002, 82)]);
    }

    #[test]
    fn wrong_ports_are_refused() {
        for bad in [
            "",
            "0",
            "70000",
            "a:80",
            "80:",
            "80/icmp",
            "1.2.3:80:80",
            "2-1",
            "1-3:1-2",
            "[::1:80",
            "-1",
            "1:2:3",
        ] {
            assert!(publish(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(s in "[0-9a-f:./\\[\\]-]{0,30}") {
            // Only that it ends, and that what it gives is in range.
            if let Ok(list) = publish(&s) {
                prop_assert!(list.iter().all(|p| p.port > 0 && p.host_port != Some(0)));
            }
        }
    }
}
