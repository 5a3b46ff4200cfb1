//! Networks as Docker shows them, and networks of Docker's bodies.

use biga_model::{Instance, Network, NetworkSpec, Object};
use serde_json::{Map, Value, json};

use super::ids::{docker_id, docker_network, predefined_id};
use super::{labels, time};
use crate::error::Error;
use crate::types::network::NetworkCreate;

/// The annotation that keeps what a client sent and no field of ours holds.
const CREATED: &str = "docker.biga.dev/create";

/// The document of a network. `containers` are those that run on it.
pub fn inspect(o: &Object<Network>, containers: &[Object<Instance>]) -> Value {
    let s = o.status_or_default();
    let subnet = if s.subnet.is_empty() {
        o.spec.subnet.clone().unwrap_or_default()
    } else {
        s.subnet.clone()
    };
    let gateway = if s.gateway.is_empty() {
        o.spec.gateway.clone().unwrap_or_default()
    } else {
        s.gateway.clone()
    };
    let mut pool = Map::new();
    for (k, v) in [("Subnet", subnet), ("Gateway", gateway)] {
        if !v.is_empty() {
            pool.insert(k.into(), v.into());
        }
    }
    if let Some(range) = &o.spec.ip_range {
        pool.insert("IPRange".into(), range.clone().into());
    }
    if !o.spec.reserved.is_empty() {
        pool.insert("AuxiliaryAddresses".into(), json!(o.spec.reserved));
    }
    let pools = if pool.is_empty() {
        Vec::new()
    } else {
        vec![Value::Object(pool)]
    };
    let sent = o
        .metadata
        .annotations
        .get(CREATED)
        .and_then(|t| serde_json::from_str::<Value>(t).ok());
    let sent = sent.unwrap_or_default();
    let mut options = sent["Options"].as_object().cloned().unwrap_or_default();
    // Compose takes an option that nobody asked for as a change.
    if !s.bridge.is_empty() && docker_network(o.name()) == "bridge" {
        options.insert("com.docker.network.bridge.name".into(), s.bridge.clone().into());
    }
    if let Some(m) = o.spec.mtu {
        options.insert("com.docker.network.driver.mtu".into(), m.to_string().into());
    }
    let mut doc = skeleton(docker_network(o.name()), &docker_id(o.uid()), "bridge");
    doc["Created"] = time(o.metadata.creation_timestamp).into();
    doc["Internal"] = o.spec.internal.into();
    doc["Attachable"] = (sent["Attachable"] == true).into();
    doc["IPAM"] = json!({"Driver": "default", "Options": {}, "Config": pools});
    doc["Options"] = Value::Object(options);
    doc["Labels"] = json!(labels::read(&o.metadata));
    doc["Containers"] = Value::Object(endpoints(o, containers));
    doc
}

fn endpoints(o: &Object<Network>, containers: &[Object<Instance>]) -> Map<String, Value> {
    let mut all = Map::new();
    for c in containers {
        let s = c.status_or_default();
        if let Some(e) = s
            .networks
            .iter()
            .find(|e| e.network == o.name())
            .filter(|_| s.phase.is_live())
        {
            let doc = json!({
                "Name": c.name(),
                "EndpointID": docker_id(&format!("{}/{}", c.uid(), e.network)),
                "MacAddress": e.mac,
                "IPv4Address": e.address,
                "IPv6Address": "",
            });
            all.insert(docker_id(c.uid()), doc);
        }
    }
    all
}

fn skeleton(name: &str, id: &str, driver: &str) -> Value {
    json!({
        "Name": name,
        "Id": id,
        "Created": time(None),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": []},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    })
}

/// `host` or `none`.
pub fn predefined(name: &str) -> Value {
    skeleton(name, &predefined_id(name), if name == "none" { "null" } else { "host" })
}

/// Reads a create body.
pub fn create(body: &NetworkCreate) -> Result<Object<Network>, Error> {
    match body.driver.as_str() {
        "" | "bridge" => {}
        d @ ("overlay" | "macvlan" | "ipvlan" | "host" | "null") => {
            return Err(Error::missing(format!("networks of driver {d:?}")));
        }
        d => {
            return Err(Error::not_found(format!(
                "could not find plugin {d} in v1 plugin registry: plugin not found"
            )));
        }
    }
    if body.ingress || !matches!(body.scope.as_str(), "" | "local") {
        return Err(Error::missing("swarm networks"));
    }
    if body.config_only || !body.config_from.values().all(crate::types::is_zero) {
        return Err(Error::missing("config-only networks"));
    }
    if body.enable_ipv6 || body.enable_ipv4 == Some(false) {
        return Err(Error::missing("IPv6 networks"));
    }
    let mut spec = NetworkSpec {
        internal: body.internal,
        ..NetworkSpec::default()
    };
    ipam(body, &mut spec)?;
    for (k, v) in &body.options {
        match (k.as_str(), v.as_str()) {
            ("com.docker.network.driver.mtu", n) => {
                spec.mtu = Some(
                    n.parse()
                        .map_err(|_| Error::bad(format!("invalid value for {k}: {v:?}")))?,
                );
            }
            ("com.docker.network.bridge.enable_icc" | "com.docker.network.bridge.enable_ip_masquerade", "true") => {}
            _ => return Err(Error::missing(format!("network option {k}={v}"))),
        }
    }
    let mut o = Object::<Network>::new(body.name.clone(), spec);
    labels::write(&body.labels, &mut o.metadata);
    let sent = json!({"Attachable": body.attachable, "Options": body.options});
    o.metadata.annotations.insert(CREATED.into(), sent.to_string());
    Ok(o)
}

fn ipam(body: &NetworkCreate, spec: &mut NetworkSpec) -> Result<(), Error> {
    if !matches!(body.ipam.driver.as_str(), "" | "default") || !body.ipam.options.is_empty() {
        return Err(Error::missing("IPAM drivers and their options"));
    }
    match &body.ipam.config[..] {
        [] => Ok(()),
        [one] => {
            let some = |s: &String| (!s.is_empty()).then(|| s.clone());
            (spec.subnet, spec.gateway) = (some(&one.subnet), some(&one.gateway));
            (spec.ip_range, spec.reserved) = (some(&one.ip_range), one.auxiliary_addresses.clone());
            Ok(())
        }
        _ => Err(Error::missing("more than one subnet of a network")),
    }
}
