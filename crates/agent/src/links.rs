//! Environment variables of links on the default network, as Docker has set them since before its networks had names:
//! `DB_PORT_5432_TCP_ADDR` and the like (<https://docs.docker.com/engine/network/links/#environment-variables>).

use biga_image::ImageConfig;
use biga_model::kinds::network::DEFAULT_NETWORK;
use biga_model::{Instance, NetworkLink, Object};

/// What of the other's environment says nothing to others.
const ITS_OWN: [&str; 2] = ["HOME", "PATH"];

/// Another instance, as a link to it tells of it.
#[derive(Debug, Default)]
pub(crate) struct Linked<'a> {
    /// Its name in the environment and in DNS.
    pub alias: &'a str,
    /// Its address on the default network.
    pub address: &'a str,
    /// Its ports, as `5432/tcp`.
    pub ports: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
}

/// The links of an instance on the default network.
pub(crate) fn of(object: &Object<Instance>) -> impl Iterator<Item = &NetworkLink> {
    let on_default = |n: &&biga_model::NetworkAttachment| n.network == DEFAULT_NETWORK;
    object.spec.networks.iter().filter(on_default).flat_map(|n| &n.links)
}

/// Address of an instance on the default network, where it runs there.
pub(crate) fn address(other: &Object<Instance>) -> Option<String> {
    let status = other.status_or_default();
    let end = status.networks.iter().find(|e| e.network == DEFAULT_NETWORK)?;
    let running = status.phase.is_live();
    running.then(|| end.address.split('/').next().unwrap_or_default().to_string())
}

/// Ports of an instance: those of its image, those it publishes, and those that the link names.
pub(crate) fn ports(other: &Object<Instance>, image: Option<&ImageConfig>, link: &NetworkLink) -> Vec<String> {
    let mut all: Vec<String> = image.iter().flat_map(|c| c.exposed_ports.iter().cloned()).collect();
    let published = other.spec.ports.iter();
    all.extend(published.map(|p| format!("{}/{}", p.port, p.protocol.as_str())));
    all.extend(link.ports.iter().cloned());
    all
}

/// Environment of an instance's main process: that of its image and its own.
pub(crate) fn environment(other: &Object<Instance>, image: Option<&ImageConfig>) -> Vec<String> {
    let mut all: Vec<String> = image.iter().flat_map(|c| c.env.iter().cloned()).collect();
    for v in other.spec.containers.iter().take(1).flat_map(|c| &c.env) {
        let name = format!("{}=", v.name);
        all.retain(|line| !line.starts_with(&name));
        all.push(format!("{name}{}", v.value));
    }
    all
}

/// The variables of one link, as `NAME=value`. `own` is the name of the one that links.
pub(crate) fn variables(own: &str, l: &Linked<'_>) -> Vec<String> {
    let alias = l.alias.replace('-', "_").to_uppercase();
    let ip = l.address;
    let mut out = Vec::new();
    let ports = sorted(&l.ports);
    if let Some((number, protocol)) = ports.first() {
        out.push(format!("{alias}_PORT={protocol}://{ip}:{number}"));
    }
    let mut at = 0;
    while let Some((first, protocol)) = ports.get(at) {
        let end = run_end(&ports, at);
        if end > at {
            let last = ports[end].0;
            let name = format!("{alias}_PORT_{first}_{}", protocol.to_uppercase());
            out.push(format!("{name}_START={protocol}://{ip}:{first}"));
            out.push(format!("{name}_ADDR={ip}"));
            out.push(format!("{name}_PROTO={protocol}"));
            out.push(format!("{name}_PORT_START={first}"));
            out.push(format!("{name}_END={protocol}://{ip}:{last}"));
            out.push(format!("{name}_PORT_END={last}"));
        }
        at = end + 1;
    }
    for (number, protocol) in &ports {
        let name = format!("{alias}_PORT_{number}_{}", protocol.to_uppercase());
        out.push(format!("{name}={protocol}://{ip}:{number}"));
        out.push(format!("{name}_ADDR={ip}"));
        out.push(format!("{name}_PORT={number}"));
        out.push(format!("{name}_PROTO={protocol}"));
    }
    out.push(format!("{alias}_NAME=/{own}/{}", l.alias));
    for line in &l.env {
        match line.split_once('=') {
            Some((name, value)) if !ITS_OWN.contains(&name) => out.push(format!("{alias}_ENV_{name}={value}")),
            _ => {}
        }
    }
    out
}

/// By number, TCP first; what is no port is left out.
fn sorted(ports: &[String]) -> Vec<(u16, String)> {
    let read = |p: &String| {
        let (number, protocol) = p.split_once('/').unwrap_or((p, "tcp"));
        Some((number.parse().ok()?, protocol.to_ascii_lowercase()))
    };
    let mut all: Vec<(u16, String)> = ports.iter().filter_map(read).collect();
    all.sort_by_key(|(n, p)| (*n, p != "tcp", p.clone()));
    all.dedup();
    all
}

/// The last of the ports that follow each other, of one protocol, from the one at `at`.
fn run_end(ports: &[(u16, String)], at: usize) -> usize {
    let mut end = at;
    while let (Some(a), Some(b)) = (ports.get(end), ports.get(end + 1))
        && b.0.checked_sub(1) == Some(a.0)
        && a.1 == b.1
    {
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_docker() {
        let l = Linked {
            alias: "my-db",
            address: "10.88.0.5",
            ports: vec!["5432/tcp".into(), "53/udp".into(), "53/tcp".into(), "odd".into()],
            env: vec!["A=b=c".into(), "PATH=/bin".into(), "HOME=/".into(), "bare".into()],
        };
        let want = [
            "MY_DB_PORT=tcp://10.88.0.5:53",
            "MY_DB_PORT_53_TCP=tcp://10.88.0.5:53",
            "MY_DB_PORT_53_TCP_ADDR=10.88.0.5",
            "MY_DB_PORT_53_TCP_PORT=53",
            "MY_DB_PORT_53_TCP_PROTO=tcp",
            "MY_DB_PORT_53_UDP=udp://10.88.0.5:53",
            "MY_DB_PORT_53_UDP_ADDR=10.88.0.5",
            "MY_DB_PORT_53_UDP_PORT=53",
            "MY_DB_PORT_53_UDP_PROTO=udp",
            "MY_DB_PORT_5432_TCP=tcp://10.88.0.5:5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.88.0.5",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b=c",
        ];
        assert_eq!(variables("web", &l), want);
    }

    #[test]
    fn ports_in_a_row_are_told_as_a_range_too() {
        let l = Linked {
            alias: "s",
            address: "1.2.3.4",
            ports: ["7/tcp", "8/tcp", "9/tcp", "9/udp"].map(String::from).into(),
            env: Vec::new(),
        };
        let all = variables("w", &l);
        for want in [
            "S_PORT_7_TCP_START=tcp://1.2.3.4:7",
            "S_PORT_7_TCP_PORT_START=7",
            "S_PORT_7_TCP_END=tcp://1.2.3.4:9",
            "S_PORT_7_TCP_PORT_END=9",
            "S_PORT_9_UDP_PORT=9",
        ] {
            assert!(all.iter().any(|v| v == want), "{want}: {all:?}");
        }
        assert!(!all.iter().any(|v| v.starts_with("S_PORT_9_UDP_START")));
    }

    #[test]
    fn a_link_without_ports_still_has_a_name() {
        let l = Linked {
            alias: "s",
            ..Linked::default()
        };
        assert_eq!(variables("w", &l), ["S_NAME=/w/s"]);
    }
}
