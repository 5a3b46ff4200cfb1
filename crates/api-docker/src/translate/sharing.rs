//! Namespaces and security options of `HostConfig`, and back.

use biga_model::{InstanceSpec, NamespaceSpec, SecuritySpec, Share, UserIds};
use biga_wire::config::{MASKED_PATHS, READ_ONLY_PATHS};

use super::create::Around;
use crate::error::Error;
use crate::types::container::{CreateBody, HostConfig};

/// The words of a body that name other containers, as `container:X`.
pub fn others(body: &CreateBody) -> Vec<&str> {
    let h = &body.host_config;
    let modes = [&h.pid_mode, &h.ipc_mode, &h.network_mode];
    modes.into_iter().filter_map(|m| m.strip_prefix("container:")).collect()
}

/// What is shared. The network is looked at elsewhere.
pub fn namespaces(h: &HostConfig, around: &Around) -> Result<NamespaceSpec, Error> {
    let share = |field: &str, mode: &str, private: &[&str]| match mode {
        m if private.contains(&m) => Ok(Share::Private),
        "host" => Ok(Share::Host),
        m => match m.strip_prefix("container:") {
            Some(word) => Ok(Share::Instance(other(word, around)?)),
            None if field == "IpcMode" => Err(Error::bad(format!("Invalid IPC mode: {m}"))),
            None => Err(Error::missing(format!("HostConfig.{field} {m:?}"))),
        },
    };
    let user = match h.userns_mode.as_str() {
        "" | "host" => UserIds::Host,
        "private" => UserIds::Private,
        m => return Err(Error::missing(format!("HostConfig.UsernsMode {m:?}"))),
    };
    Ok(NamespaceSpec {
        pid: share("PidMode", &h.pid_mode, &["", "private"])?,
        // Memory of a container can always be shared with others.
        ipc: share("IpcMode", &h.ipc_mode, &["", "private", "shareable", "none"])?,
        no_shm: h.ipc_mode == "none",
        uts: share("UTSMode", &h.uts_mode, &["", "private"])?,
        cgroup: share("CgroupnsMode", &h.cgroupns_mode, &["", "private"])?,
        user,
        network: None,
        time: None,
    })
}

/// The name of another container.
pub fn other(word: &str, around: &Around) -> Result<String, Error> {
    let known = around.others.get(word).cloned();
    known.ok_or_else(|| Error::not_found(format!("No such container: {word}")))
}

/// `SecurityOpt`, and the paths that go with it.
pub fn security(h: &HostConfig, warnings: &mut Vec<String>) -> Result<SecuritySpec, Error> {
    // Who makes a container as another is, sends the usual paths outright.
    let own = |paths: &Option<Vec<String>>, usual: &[&str]| paths.clone().filter(|p| p != usual);
    let mut s = SecuritySpec {
        masked_paths: own(&h.masked_paths, &MASKED_PATHS),
        read_only_paths: own(&h.readonly_paths, &READ_ONLY_PATHS),
        ..SecuritySpec::default()
    };
    if h.privileged {
        // They have none anyway, and clients send empty lists with it.
        (s.masked_paths, s.read_only_paths) = (None, None);
    }
    for o in &h.security_opt {
        let (key, value) = o.split_once(['=', ':']).unwrap_or((o, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => s.no_new_privileges = true,
            ("no-new-privileges", "false") => {}
            ("seccomp", "unconfined") => s.seccomp = "unconfined".into(),
            ("seccomp", "" | "builtin" | "default") => {}
            // Clients send the profile itself.
            ("seccomp", profile) => {
                let read = serde_json::from_str(profile);
                let read = read.map_err(|e| Error::bad(format!("Decoding seccomp profile failed: {e}")))?;
                s.seccomp_profile = Some(read);
            }
            ("apparmor", profile) => s.apparmor = profile.into(),
            ("label", "") => {}
            ("label", part) => s.selinux.push(part.into()),
            ("systempaths", "unconfined") => {
                (s.masked_paths, s.read_only_paths) = (Some(Vec::new()), Some(Vec::new()));
            }
            ("writable-cgroups", "false") => {}
            _ => return Err(Error::bad(format!("invalid --security-opt 2: {o:?}"))),
        }
    }
    if s.seccomp_profile.is_some() && h.privileged {
        warnings.push("a privileged container has no system call filter: the seccomp profile has no effect".into());
    }
    Ok(s)
}

/// How a namespace is shown: as it was sent where that says the same.
pub fn mode(share: &Share, sent: &str, private: &str) -> String {
    match share {
        Share::Private if matches!(sent, "shareable" | "none") => sent.to_owned(),
        Share::Private => private.to_owned(),
        Share::Host => "host".to_owned(),
        Share::Instance(_) if sent.starts_with("container:") => sent.to_owned(),
        Share::Instance(name) => format!("container:{name}"),
    }
}

/// The network mode of who shares another's.
pub fn network_of_another(spec: &InstanceSpec, sent: &str) -> Option<String> {
    let name = spec.namespaces.network.as_ref()?;
    Some(match sent.starts_with("container:") {
        true => sent.to_owned(),
        false => format!("container:{name}"),
    })
}
