//! Networks as Docker shows them, and networks of Docker's bodies.

use biga_model::kinds::network::GatewayMode;
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
    for (k, v) in in_force(&o.spec) {
        options.entry(format!("{OWN}{k}")).or_insert(v.into());
    }
    let driver = if o.spec.config_only { "null" } else { "bridge" };
    let mut doc = skeleton(docker_network(o.name()), &docker_id(o.uid()), driver);
    doc["ConfigOnly"] = o.spec.config_only.into();
    if let Some(from) = made_from(o) {
        doc["ConfigFrom"]["Network"] = from.into();
    }
    doc["Created"] = time(o.metadata.creation_timestamp).into();
    doc["Internal"] = o.spec.internal.into();
    doc["Attachable"] = (sent["Attachable"] == true).into();
    doc["IPAM"] = json!({"Driver": "default", "Options": {}, "Config": pools});
    doc["Options"] = Value::Object(options);
    doc["Labels"] = json!(labels::read(&o.metadata));
    doc["Containers"] = Value::Object(endpoints(o, containers));
    doc
}

/// Options in Docker's words: such as the native API made have them, too.
fn in_force(spec: &NetworkSpec) -> Vec<(&'static str, String)> {
    let mode = GatewayMode::ALL.iter().find(|(_, m)| *m == spec.gateway_mode);
    let mode = mode.filter(|(_, m)| *m != GatewayMode::Nat);
    [
        ("driver.mtu", spec.mtu.map(|m| m.to_string())),
        ("bridge.name", spec.bridge_name.clone()),
        ("bridge.enable_icc", spec.isolate_instances.then(|| "false".to_string())),
        ("bridge.enable_ip_masquerade", spec.masquerade.map(|m| m.to_string())),
        ("bridge.host_binding_ipv4", spec.bind_address.clone()),
        ("host_ipv4", spec.source_address.clone()),
        ("container_iface_prefix", spec.interface_prefix.clone()),
        ("bridge.gateway_mode_ipv4", mode.map(|(name, _)| name.to_string())),
    ]
    .into_iter()
    .filter_map(|(k, v)| Some((k, v?)))
    .collect()
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

/// The network whose settings this one was made with.
pub fn made_from(o: &Object<Network>) -> Option<String> {
    let sent = o.metadata.annotations.get(CREATED)?;
    let sent: Value = serde_json::from_str(sent).ok()?;
    sent["ConfigFrom"].as_str().map(str::to_string)
}

/// What begins messages about networks that hold settings only.
fn forbidden(message: &str) -> Error {
    Error::new(http::StatusCode::FORBIDDEN, message)
}

/// Reads a create body; `settings` is the network that it names for those.
pub fn create(body: &NetworkCreate, settings: Option<&Object<Network>>) -> Result<Object<Network>, Error> {
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
    if body.config_only && (body.internal || body.attachable) {
        return Err(forbidden(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | \
             attachable | scope ] are not supported.",
        ));
    }
    let own = !body.ipam.config.is_empty() || !body.options.is_empty() || body.enable_ipv6;
    if settings.is_some() && own {
        return Err(forbidden(
            "user-specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    if settings.is_some_and(|o| !o.spec.config_only) {
        return Err(forbidden(
            "only a configuration network can be the source of another's configuration",
        ));
    }
    if body.enable_ipv6 || body.enable_ipv4 == Some(false) {
        return Err(Error::missing("IPv6 networks"));
    }
    let mut spec = NetworkSpec {
        internal: body.internal,
        config_only: body.config_only,
        ..settings.map(|o| o.spec.clone()).unwrap_or_default()
    };
    if settings.is_none() {
        ipam(body, &mut spec)?;
    }
    for (k, v) in &body.options {
        option(&mut spec, k, v)?;
    }
    let mut o = Object::<Network>::new(body.name.clone(), spec);
    let mut all = settings.map(|s| labels::read(&s.metadata)).unwrap_or_default();
    all.extend(body.labels.clone());
    labels::write(&all, &mut o.metadata);
    let mut sent = json!({"Attachable": body.attachable, "Options": body.options});
    if let Some(from) = settings {
        sent["ConfigFrom"] = from.name().into();
    }
    o.metadata.annotations.insert(CREATED.into(), sent.to_string());
    Ok(o)
}

/// What begins the options that Docker's own drivers know.
const OWN: &str = "com.docker.network.";

/// Reads one option of the bridge driver. Those that neither Docker nor we know are kept and shown, as by Docker.
fn option(spec: &mut NetworkSpec, k: &str, v: &str) -> Result<(), Error> {
    let bad = || Error::bad(format!("invalid value for {k}: {v:?}"));
    let flag = || truth(v).ok_or_else(bad);
    let text = || Some(v.to_string()).filter(|v| !v.is_empty());
    match k.strip_prefix(OWN) {
        None => {}
        Some("driver.mtu") => spec.mtu = Some(v.parse().map_err(|_| bad())?),
        Some("bridge.name") => spec.bridge_name = text(),
        Some("bridge.enable_icc") => spec.isolate_instances = !flag()?,
        Some("bridge.enable_ip_masquerade") => spec.masquerade = Some(flag()?).filter(|on| !on),
        Some("bridge.host_binding_ipv4") => spec.bind_address = text().filter(|a| a != "0.0.0.0"),
        Some("host_ipv4") => spec.source_address = text(),
        Some("container_iface_prefix") => spec.interface_prefix = text(),
        Some("bridge.gateway_mode_ipv4") => spec.gateway_mode = v.parse().map_err(|_| bad())?,
        // What it would be anyway.
        Some("bridge.inhibit_ipv4" | "bridge.default_bridge" | "enable_ipv6") if !flag()? => {}
        Some("enable_ipv4") if flag()? => {}
        Some(_) => return Err(Error::missing(format!("network option {k}={v}"))),
    }
    Ok(())
}

/// A truth value, in the words of Go.
fn truth(v: &str) -> Option<bool> {
    match v {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The options that are kept and shown, and change nothing.
pub fn idle_options(body: &NetworkCreate) -> Vec<&str> {
    let keys = body.options.keys().map(String::as_str);
    keys.filter(|k| !k.starts_with(OWN)).collect()
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
