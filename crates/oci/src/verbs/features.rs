//! What this runtime can do, in the form of the specification: by itself, whatever the host has.

use biga_container::caps;
use serde_json::json;

use super::{SPEC_VERSION, print};
use crate::error::Error;
use crate::namespaces::Kind;
use crate::options;

pub(super) fn features() -> Result<i32, Error> {
    let mut namespaces: Vec<&str> = Kind::ALL.iter().map(|(_, name, _)| *name).collect();
    namespaces.sort_unstable();
    let capabilities: Vec<String> = caps::NAMES.iter().map(|n| format!("CAP_{n}")).collect();
    print(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::names(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": crate::seccomp::features(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {
            "dev.biga.oci.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": [],
    }))?;
    Ok(0)
}
