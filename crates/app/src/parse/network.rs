//! `--network`, `--add-host`.

use biga_model::{HostAlias, NetworkAttachment, NetworkMode};

/// What one `--network` says.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkArg {
    /// `none` or `host`.
    Mode(NetworkMode),
    /// The networks of another instance.
    Of(String),
    /// A network to join.
    Join(NetworkAttachment),
}

/// Reads `none`, `host`, `container:NAME`, `NAME` or `NAME:ip=…,mac=…,alias=…` (also Docker's `name=NAME,ip=…`).
pub fn network(s: &str) -> Result<NetworkArg, String> {
    match s {
        "none" => return Ok(NetworkArg::Mode(NetworkMode::None)),
        "host" => return Ok(NetworkArg::Mode(NetworkMode::Host)),
        "bridge" => {
            return Ok(NetworkArg::Join(NetworkAttachment {
                network: biga_model::kinds::network::DEFAULT_NETWORK.into(),
                ..NetworkAttachment::default()
            }));
        }
        _ => {}
    }
    if let Some(name) = s.strip_prefix("container:").or_else(|| s.strip_prefix("instance:")) {
        return match biga_model::kind::is_resource_name(name) {
            true => Ok(NetworkArg::Of(name.into())),
            false => Err(format!("{name:?} is no name of an instance")),
        };
    }
    let mut n = NetworkAttachment::default();
    let options = if s.starts_with("name=") {
        s
    } else {
        let (name, options) = s.split_once(':').unwrap_or((s, ""));
        n.network = name.into();
        options
    };
    for o in options.split(',').filter(|o| !o.is_empty()) {
        let (k, v) = o
            .split_once('=')
            .ok_or_else(|| format!("{s:?}: {o:?} is not KEY=VALUE"))?;
        match k {
            "name" => n.network = v.into(),
            "ip" => {
                let ip: std::net::IpAddr = v.parse().map_err(|_| format!("{s:?}: {v:?} is no IP address"))?;
                n.address = Some(ip.to_string());
            }
            "mac" | "mac-address" => n.mac = Some(v.into()),
            "alias" => n.aliases.push(v.into()),
            "link-local-ip" => n.link_local.push(v.into()),
            "gw-priority" => n.gateway_priority = v.parse().map_err(|_| format!("{s:?}: {v:?} is no number"))?,
            _ => {
                return Err(format!(
                    "{s:?}: {k:?} is no key of a network: use ip, mac, alias, link-local-ip, gw-priority"
                ));
            }
        }
    }
    if !biga_model::kind::is_resource_name(&n.network) {
        return Err(format!("{:?} is no name of a network", n.network));
    }
    Ok(NetworkArg::Join(n))
}

/// Reads `NAME:IP` (or `NAME=IP`).
pub fn add_host(s: &str) -> Result<HostAlias, String> {
    let (name, ip) = s
        .split_once('=')
        .or_else(|| s.split_once(':'))
        .ok_or_else(|| format!("{s:?} is not NAME:IP"))?;
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    let ip: std::net::IpAddr = bare.parse().map_err(|_| format!("{s:?}: {ip:?} is no IP address"))?;
    if name.is_empty() {
        return Err(format!("{s:?} has no name"));
    }
    Ok(HostAlias {
        ip: ip.to_string(),
        hostnames: vec![name.into()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_names_and_options() {
        assert_eq!(network("none"), Ok(NetworkArg::Mode(NetworkMode::None)));
        assert_eq!(network("host"), Ok(NetworkArg::Mode(NetworkMode::Host)));
        let join = NetworkAttachment {
            network: "lab".into(),
            address: Some("10.9.0.7".into()),
            mac: None,
            aliases: vec!["db".into(), "sql".into()],
            ..NetworkAttachment::default()
        };
        assert_eq!(
            network("lab:ip=10.9.0.7,alias=db,alias=sql"),
            Ok(NetworkArg::Join(join.clone()))
        );
        assert_eq!(
            network("name=lab,ip=10.9.0.7,alias=db,alias=sql"),
            Ok(NetworkArg::Join(join))
        );
        let NetworkArg::Join(first) = network("lab:gw-priority=-3,link-local-ip=169.254.1.9").unwrap() else {
            panic!("a network")
        };
        assert_eq!(
            (first.gateway_priority, first.link_local),
            (-3, vec!["169.254.1.9".to_owned()])
        );
        for bad in [
            "",
            "lab:ip",
            "lab:ip=x",
            "lab:gw-priority=x",
            "lab:speed=9",
            "a/b",
            "name=",
        ] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_may_be_of_either_family() {
        assert_eq!(add_host("db:10.0.0.2").unwrap().ip, "10.0.0.2");
        assert_eq!(add_host("db=::1").unwrap().ip, "::1");
        assert_eq!(add_host("db:[::1]").unwrap().hostnames, ["db"]);
        for bad in ["db", "db:", ":1.2.3.4", "db:nowhere"] {
            assert!(add_host(bad).is_err(), "{bad:?}");
        }
    }
}
