//! What documents ask for, done to a container.

use std::path::PathBuf;

use biga_wire::config::{Container, Device, DeviceNumber, Hook, HookStage, Mount, MountHow, MountSource, Propagation};

use super::Cdi;
use super::document::{DeviceNode, Edits, HookEntry, MountEntry};
use crate::instance::Failure;

fn failed(why: impl Into<String>) -> Failure {
    Failure::new("DeviceFailed", format!("CDI device injection failed: {}", why.into()))
}

impl Cdi {
    /// Gives a container these devices.
    pub fn give(&self, names: &[String], container: &mut Container) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        for edits in self.edits(names)? {
            apply(&edits, container)?;
        }
        Ok(())
    }
}

fn apply(edits: &Edits, c: &mut Container) -> Result<(), Failure> {
    if !edits.net_devices.is_empty() {
        return Err(failed(
            "netDevices (interfaces of the host) are not given to containers by Biga yet",
        ));
    }
    if edits.intel_rdt.is_some() {
        return Err(failed("intelRdt (shares of caches) is not set by Biga yet"));
    }
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or_default();
        c.process.env.retain(|v| v.split('=').next() != Some(name));
        c.process.env.push(variable.clone());
    }
    for node in &edits.device_nodes {
        let new = device(node)?;
        c.devices.retain(|d| d.path != new.path);
        c.devices.push(new);
    }
    for entry in &edits.mounts {
        let new = mount(entry)?;
        c.mounts
            .retain(|m| m.target.trim_end_matches('/') != new.target.trim_end_matches('/'));
        c.mounts.push(new);
    }
    for entry in &edits.hooks {
        c.hooks.push(hook(entry)?);
    }
    for gid in edits.additional_gids.iter().filter(|g| **g != 0).map(u32::to_string) {
        if !c.process.additional_groups.contains(&gid) {
            c.process.additional_groups.push(gid);
        }
    }
    Ok(())
}

fn device(node: &DeviceNode) -> Result<Device, Failure> {
    if !node.path.starts_with('/') {
        return Err(failed(format!(
            "the path {:?} of a device node is not absolute",
            node.path
        )));
    }
    let host_path = PathBuf::from(if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    });
    let part = |n: i64| u32::try_from(n).map_err(|_| failed(format!("{n} is no number of a device ({})", node.path)));
    let number = match node.kind.as_str() {
        "" => None,
        // Without a number the node of the host says it.
        "b" | "c" | "u" if node.major == 0 => None,
        "b" | "c" | "u" => Some(DeviceNumber {
            block: node.kind == "b",
            major: part(node.major)?,
            minor: part(node.minor)?,
        }),
        other => {
            return Err(failed(format!(
                "device node {} of type {other:?}: b and c are made",
                node.path
            )));
        }
    };
    if !node.permissions.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
        return Err(failed(format!(
            "permissions {:?} of device node {}",
            node.permissions, node.path
        )));
    }
    // As the host has it, where the document says nothing.
    let of_host = || {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::metadata(&host_path).ok()?;
        Some(meta.permissions().mode() & 0o777)
    };
    Ok(Device {
        mode: node.file_mode.map(|m| m & 0o777).or_else(of_host),
        host_path,
        path: node.path.clone(),
        permissions: match node.permissions.as_str() {
            "" => "rwm".into(),
            some => some.into(),
        },
        number,
        uid: node.uid,
        gid: node.gid,
    })
}

fn mount(entry: &MountEntry) -> Result<Mount, Failure> {
    let target = &entry.container_path;
    if !target.starts_with('/') || target.trim_matches('/').is_empty() {
        return Err(failed(format!("nothing can be mounted at {target:?}")));
    }
    match entry.kind.as_str() {
        "" | "bind" | "none" => bind(entry),
        "tmpfs" => Ok(Mount {
            source: MountSource::Tmpfs {
                size: None,
                mode: 0o1777,
                options: entry.options.clone(),
            },
            target: target.clone(),
            read_only: false,
            copy_up: false,
            how: MountHow::default(),
        }),
        other => Err(failed(format!(
            "a mount of type {other:?} at {target}: bind and tmpfs are made"
        ))),
    }
}

fn bind(entry: &MountEntry) -> Result<Mount, Failure> {
    if !entry.host_path.starts_with('/') {
        return Err(failed(format!(
            "{:?}, mounted at {}, is not absolute",
            entry.host_path, entry.container_path
        )));
    }
    let mut how = MountHow::default();
    let mut read_only = false;
    for option in &entry.options {
        match option.as_str() {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nosuid" => how.no_suid = true,
            "nodev" => how.no_dev = true,
            "noexec" => how.no_exec = true,
            // An empty list is `rbind`, as here everywhere.
            "bind" => how.flat = true,
            "rbind" => how.flat = false,
            "private" | "rprivate" => how.propagation = Propagation::Private,
            "slave" | "rslave" => how.propagation = Propagation::Slave,
            "shared" | "rshared" => how.propagation = Propagation::Shared,
            "suid" | "dev" | "exec" | "relatime" | "defaults" => {}
            other => {
                let message = format!("option {other:?} of the mount at {} is not known", entry.container_path);
                return Err(failed(message));
            }
        }
    }
    Ok(Mount {
        source: MountSource::Bind {
            path: PathBuf::from(&entry.host_path),
            sub_path: None,
        },
        target: entry.container_path.clone(),
        read_only,
        copy_up: false,
        how,
    })
}

fn hook(entry: &HookEntry) -> Result<Hook, Failure> {
    let stage = match entry.hook_name.as_str() {
        "createContainer" => HookStage::CreateContainer,
        "startContainer" => HookStage::StartContainer,
        other => {
            return Err(failed(format!(
                "hook {} of {other:?}: those of createContainer and startContainer are run",
                entry.path
            )));
        }
    };
    if !entry.path.starts_with('/') {
        return Err(failed(format!("the path {:?} of a hook is not absolute", entry.path)));
    }
    Ok(Hook {
        stage,
        path: entry.path.clone(),
        args: entry.args.clone(),
        env: entry.env.clone(),
        timeout: entry.timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(json: serde_json::Value) -> Edits {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn everything_arrives() {
        let mut c = Container::default();
        c.process.env = vec!["A=image".into(), "B=1".into()];
        c.process.additional_groups = vec!["7".into()];
        let all = edits(serde_json::json!({
            "env": ["A=device"],
            "deviceNodes": [
                {"path": "/dev/v0", "hostPath": "/dev/null", "permissions": "rw", "uid": 5, "gid": 6, "fileMode": 0o600},
                {"path": "/dev/v1", "type": "c", "major": 1, "minor": 5},
            ],
            "mounts": [{"hostPath": "/usr/lib/v", "containerPath": "/lib/v", "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "timeout": 5}],
            "additionalGids": [0, 7, 8],
        }));
        apply(&all, &mut c).unwrap();
        assert_eq!(c.process.env, ["B=1", "A=device"]);
        assert_eq!(c.process.additional_groups, ["7", "8"]);
        assert_eq!(
            (c.devices[0].uid, c.devices[0].gid, c.devices[0].mode),
            (Some(5), Some(6), Some(0o600))
        );
        assert_eq!(c.devices[0].host_path, PathBuf::from("/dev/null"));
        let number = DeviceNumber {
            block: false,
            major: 1,
            minor: 5,
        };
        assert_eq!(
            (c.devices[1].number, c.devices[1].permissions.as_str()),
            (Some(number), "rwm")
        );
        let m = &c.mounts[0];
        assert!(m.read_only && m.how.no_suid && m.how.no_dev && !m.how.no_exec && !m.how.flat);
        assert_eq!(
            (c.hooks[0].stage, c.hooks[0].timeout),
            (HookStage::CreateContainer, Some(5))
        );
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (json, hint) in [
            (
                serde_json::json!({"netDevices": [{"hostInterfaceName": "e", "name": "f"}]}),
                "netDevices",
            ),
            (serde_json::json!({"intelRdt": {"closID": "x"}}), "intelRdt"),
            (serde_json::json!({"deviceNodes": [{"path": "dev/x"}]}), "not absolute"),
            (
                serde_json::json!({"deviceNodes": [{"path": "/dev/x", "type": "p"}]}),
                "type \"p\"",
            ),
            (
                serde_json::json!({"deviceNodes": [{"path": "/dev/x", "permissions": "q"}]}),
                "permissions",
            ),
            (
                serde_json::json!({"mounts": [{"hostPath": "/x", "containerPath": "/"}]}),
                "nothing can be mounted",
            ),
            (
                serde_json::json!({"mounts": [{"hostPath": "x", "containerPath": "/x"}]}),
                "not absolute",
            ),
            (
                serde_json::json!({"mounts": [{"containerPath": "/x", "type": "nfs"}]}),
                "nfs",
            ),
            (
                serde_json::json!({"mounts": [{"hostPath": "/x", "containerPath": "/x", "options": ["odd"]}]}),
                "odd",
            ),
            (
                serde_json::json!({"hooks": [{"hookName": "poststop", "path": "/x"}]}),
                "poststop",
            ),
            (
                serde_json::json!({"hooks": [{"hookName": "createContainer", "path": "x"}]}),
                "not absolute",
            ),
        ] {
            let e = apply(&edits(json.clone()), &mut Container::default()).unwrap_err();
            assert!(e.message.contains(hint), "{json}: {}", e.message);
        }
    }
}
