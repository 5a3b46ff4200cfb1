//! `HostConfig.Devices` and `DeviceRequests`: device nodes by their paths, and devices that a driver finds. The one driver is the
//! Container Device Interface of the node.

use biga_model::DeviceSpec;
use serde_json::{Value, json};

use super::create::Around;
use crate::error::Error;
use crate::types::container::{Device, DeviceRequest, HostConfig};

/// The name of the driver.
const CDI: &str = "cdi";

/// Vendors whose GPUs are found without naming a driver, the word for them, and what else they are asked for.
const VENDORS: [(&str, &str, &[&str]); 2] = [
    (
        "nvidia",
        "nvidia.com/gpu",
        &["compute", "compat32", "graphics", "utility", "video", "display"],
    ),
    ("amd", "amd.com/gpu", &[]),
];

/// A node of the host.
pub fn node(d: &Device) -> DeviceSpec {
    let some = |s: &String| (!s.is_empty()).then(|| s.clone());
    DeviceSpec {
        host_path: d.path_on_host.clone(),
        path: some(&d.path_in_container),
        permissions: some(&d.cgroup_permissions),
    }
}

/// Names of the devices that are asked for, as the Container Device Interface has them.
pub fn requested(h: &HostConfig, around: &Around) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for r in &h.device_requests {
        let names = match r.driver.as_str() {
            CDI => by_name(r)?,
            _ => gpus(r, around)?,
        };
        for name in names {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    Ok(all)
}

fn by_name(r: &DeviceRequest) -> Result<Vec<String>, Error> {
    if r.count != 0 {
        return Err(Error::bad("unexpected count in CDI device request"));
    }
    if !r.options.is_empty() {
        return Err(Error::bad("unexpected options in CDI device request"));
    }
    for id in &r.device_ids {
        id.parse::<biga_model::CdiName>().map_err(Error::bad)?;
    }
    Ok(r.device_ids.clone())
}

/// GPUs of the vendor that is named, or of the first that describes some on this node.
fn gpus(r: &DeviceRequest, around: &Around) -> Result<Vec<String>, Error> {
    let described = |kind: &str| {
        let of = |name: &String| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('='));
        around.cdi_devices.iter().any(of)
    };
    let fits = |(word, kind, more): &&(&str, &str, &[&str])| {
        let has = |c: &String| c == "gpu" || c == word || more.contains(&c.as_str());
        // One of the sets is to be there as a whole.
        let capable = r.capabilities.iter().any(|set| !set.is_empty() && set.iter().all(has));
        let named = r.driver == *word;
        (named || r.driver.is_empty()) && (capable || (named && r.capabilities.is_empty())) && described(kind)
    };
    let Some((_, kind, _)) = VENDORS.iter().find(fits) else {
        return Err(unknown(r));
    };
    if r.count != 0 && !r.device_ids.is_empty() {
        return Err(Error::bad("cannot set both Count and DeviceIDs on device request"));
    }
    if let Some(option) = r.options.keys().next() {
        return Err(Error::missing(format!("option {option:?} of a request for GPUs")));
    }
    let ids: Vec<String> = match r.count {
        0 => r.device_ids.clone(),
        n if n < 0 => vec!["all".into()],
        n => (0..n).map(|i| i.to_string()).collect(),
    };
    // Clients may write the whole name.
    let prefix = format!("{kind}=");
    let names = ids
        .iter()
        .map(|id| format!("{prefix}{}", id.strip_prefix(&prefix).unwrap_or(id)));
    names
        .map(|name| match name.parse::<biga_model::CdiName>() {
            Ok(_) => Ok(name),
            Err(why) => Err(Error::bad(why)),
        })
        .collect()
}

/// In Docker's words.
fn unknown(r: &DeviceRequest) -> Error {
    let sets: Vec<String> = r.capabilities.iter().map(|s| format!("[{}]", s.join(" "))).collect();
    Error::bad(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        r.driver,
        sets.join(" ")
    ))
}

/// What `inspect` shows: as it was sent, or what was given by a name in Biga.
pub fn shown(names: &[String], sent: &[DeviceRequest]) -> Value {
    match (sent.is_empty(), names.is_empty()) {
        (false, _) => json!(sent),
        (true, true) => Value::Null,
        (true, false) => json!([{
            "Driver": CDI, "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: Value, described: &[&str]) -> Result<Vec<String>, String> {
        let h = HostConfig {
            device_requests: vec![serde_json::from_value(request).unwrap()],
            ..HostConfig::default()
        };
        let around = Around {
            cdi_devices: described.iter().map(|d| (*d).to_owned()).collect(),
            ..Around::default()
        };
        requested(&h, &around).map_err(|e| e.message)
    }

    #[test]
    fn gpus_are_found_by_who_describes_some() {
        let gpu = |more: Value| {
            let mut r = json!({"Capabilities": [["gpu"]]});
            r.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            r
        };
        let nvidia = ["nvidia.com/gpu=0", "nvidia.com/gpu=all"];
        assert_eq!(ask(gpu(json!({"Count": -1})), &nvidia).unwrap(), ["nvidia.com/gpu=all"]);
        assert_eq!(
            ask(gpu(json!({"Count": 2})), &nvidia).unwrap(),
            ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
        );
        assert_eq!(
            ask(gpu(json!({"DeviceIDs": ["GPU-1", "nvidia.com/gpu=3"]})), &nvidia).unwrap(),
            ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=3"]
        );
        assert_eq!(
            ask(gpu(json!({"Count": -1})), &["amd.com/gpu=0"]).unwrap(),
            ["amd.com/gpu=all"]
        );
        let wider = json!({"Count": -1, "Capabilities": [["tpu"], ["gpu", "utility"]]});
        assert_eq!(ask(wider.clone(), &nvidia).unwrap(), ["nvidia.com/gpu=all"]);
        assert!(
            ask(wider, &["amd.com/gpu=0"])
                .unwrap_err()
                .contains("[[tpu] [gpu utility]]")
        );
        assert_eq!(
            ask(gpu(json!({"Count": -1})), &["nvidia.com/gpux=0"]).unwrap_err(),
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
        assert!(
            ask(gpu(json!({"Driver": "amd", "Count": 1})), &nvidia)
                .unwrap_err()
                .contains("\"amd\"")
        );
        assert!(
            ask(gpu(json!({"Count": 1, "DeviceIDs": ["0"]})), &nvidia)
                .unwrap_err()
                .contains("both")
        );
    }

    #[test]
    fn devices_by_name_need_no_look() {
        let ids = json!({"Driver": "cdi", "DeviceIDs": ["v.com/c=0", "v.com/c=0", "v.com/c=1"]});
        assert_eq!(ask(ids, &[]).unwrap(), ["v.com/c=0", "v.com/c=1"]);
        let e = ask(json!({"Driver": "cdi", "Count": 1}), &[]).unwrap_err();
        assert!(e.contains("count"), "{e}");
        assert!(ask(json!({"Driver": "cdi", "DeviceIDs": ["/dev/null"]}), &[]).is_err());
    }
}
