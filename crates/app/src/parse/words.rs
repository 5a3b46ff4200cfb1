//! `--ulimit`, `--device`, `--restart`, `--security-opt`, `--log-opt`.

use biga_model::{
    CdiName, ClockOffsets, DeviceSpec, LogDriver, LogSpec, RestartPolicy, RestartWhen, SecuritySpec, Ulimit,
};

/// Reads `nofile=1024[:2048]`; `-1` or `unlimited` is no limit.
pub fn ulimit(s: &str) -> Result<(String, Ulimit), String> {
    const NAMES: &[&str] = &[
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, value) = s
        .split_once('=')
        .ok_or_else(|| format!("{s:?} is not NAME=SOFT[:HARD], as in nofile=1024:2048"))?;
    if !NAMES.contains(&name) {
        return Err(format!(
            "{name:?} is no resource limit: use one of {}",
            NAMES.join(", ")
        ));
    }
    let number = |v: &str| match v {
        "unlimited" | "-1" => Ok(-1),
        _ => match v.parse::<i64>() {
            Ok(n) if n >= 0 => Ok(n),
            _ => Err(format!("{s:?}: {v:?} is no number")),
        },
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft < 0 || soft > hard) {
        return Err(format!("{s:?}: the soft limit is above the hard limit"));
    }
    Ok((name.into(), Ulimit { soft, hard }))
}

/// A device by its node, or by the name that its vendor gave it.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceArg {
    /// A node of the host.
    Node(DeviceSpec),
    /// One of the Container Device Interface.
    Described(CdiName),
}

/// Reads `/dev/x[:/dev/y][:rwm]`.
pub fn device(s: &str) -> Result<DeviceArg, String> {
    match s.starts_with('/') || !s.contains('=') {
        true => node(s).map(DeviceArg::Node),
        false => s.parse().map(DeviceArg::Described),
    }
}

fn node(s: &str) -> Result<DeviceSpec, String> {
    let parts: Vec<&str> = s.split(':').collect();
    let is_permissions = |p: &str| !p.is_empty() && p.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'));
    let (path, permissions) = match parts[1..] {
        [] => (None, None),
        [p] if is_permissions(p) => (None, Some(p)),
        [p] => (Some(p), None),
        [p, m] if is_permissions(m) => (Some(p), Some(m)),
        _ => return Err(format!("{s:?} is no device: write /dev/x[:/dev/y][:rwm]")),
    };
    if !parts[0].starts_with('/') || path.is_some_and(|p| !p.starts_with('/')) {
        return Err(format!("{s:?} is no device: paths must be absolute"));
    }
    Ok(DeviceSpec {
        host_path: parts[0].into(),
        path: path.map(Into::into),
        permissions: permissions.map(Into::into),
    })
}

/// Reads `no`, `always`, `unless-stopped` or `on-failure[:MAX]`.
pub fn restart(s: &str) -> Result<RestartPolicy, String> {
    let (word, max) = s.split_once(':').map_or((s, None), |(w, m)| (w, Some(m)));
    let policy = match word {
        "no" | "" => RestartWhen::No,
        "always" => RestartWhen::Always,
        "unless-stopped" => RestartWhen::UnlessStopped,
        "on-failure" => RestartWhen::OnFailure,
        _ => {
            return Err(format!(
                "{s:?} is no restart policy: use no, always, unless-stopped or on-failure[:MAX]"
            ));
        }
    };
    let maximum_retry_count = match max {
        None => 0,
        Some(m) if policy == RestartWhen::OnFailure => m.parse().map_err(|_| format!("{s:?}: {m:?} is no number"))?,
        Some(_) => return Err(format!("{s:?}: only on-failure takes a number")),
    };
    Ok(RestartPolicy {
        policy,
        maximum_retry_count,
    })
}

/// Applies one `--security-opt`. A seccomp profile is read from its file.
pub fn security_opt(s: &str, to: &mut SecuritySpec) -> Result<(), String> {
    match s.split_once(['=', ':']).unwrap_or((s, "")) {
        ("no-new-privileges", "" | "true") => to.no_new_privileges = true,
        ("no-new-privileges", "false") => to.no_new_privileges = false,
        ("seccomp", v @ ("unconfined" | "default" | "builtin")) => {
            to.seccomp = if v == "unconfined" { v } else { "default" }.into();
            to.seccomp_profile = None;
        }
        ("seccomp", file) => {
            to.seccomp = String::new();
            to.seccomp_profile = Some(profile(file)?);
        }
        ("apparmor", profile) => to.apparmor = profile.into(),
        ("label", part) if !part.is_empty() => to.selinux.push(part.into()),
        ("systempaths", "unconfined") => {
            to.masked_paths = Some(Vec::new());
            to.read_only_paths = Some(Vec::new());
        }
        _ => {
            return Err(format!(
                "{s:?} is no security option: use seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, \
                 label=type:TYPE or systempaths=unconfined"
            ));
        }
    }
    Ok(())
}

fn profile(file: &str) -> Result<serde_json::Value, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read the seccomp profile {file}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("the seccomp profile {file} is no JSON: {e}"))
}

/// Reads `monotonic=N,boottime=N`.
pub fn clocks(s: &str) -> Result<ClockOffsets, String> {
    let mut offsets = ClockOffsets::default();
    for pair in s.split(',') {
        let bad = || format!("{s:?} is not monotonic=SECONDS,boottime=SECONDS");
        let (clock, seconds) = pair.split_once('=').ok_or_else(bad)?;
        let seconds = seconds.parse().map_err(|_| bad())?;
        match clock {
            "monotonic" => offsets.monotonic = seconds,
            "boottime" => offsets.boottime = seconds,
            _ => return Err(bad()),
        }
    }
    Ok(offsets)
}

/// Applies one `--log-opt`.
pub fn log_opt(s: &str, to: &mut LogSpec) -> Result<(), String> {
    match s.split_once('=') {
        Some(("max-size", v)) => to.max_size = Some(super::size::size(v)?),
        Some(("max-file", v)) => {
            to.max_files = Some(v.parse().map_err(|_| format!("{s:?}: {v:?} is no number"))?);
        }
        Some((name, value)) if matches!(to.driver, LogDriver::Journald | LogDriver::Syslog) => {
            to.options.insert(name.into(), value.into());
        }
        _ => return Err(format!("{s:?} is no log option: use max-size=16m or max-file=3")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        assert_eq!(ulimit("nofile=5"), Ok(("nofile".into(), Ulimit { soft: 5, hard: 5 })));
        assert_eq!(
            ulimit("core=0:unlimited"),
            Ok(("core".into(), Ulimit { soft: 0, hard: -1 }))
        );
        for bad in [
            "nofile",
            "nofile=",
            "files=1",
            "nofile=9:3",
            "nofile=-1:3",
            "nofile=-7",
            "nofile=x",
        ] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices() {
        let d = node("/dev/fuse:/dev/f:rw").unwrap();
        assert_eq!(
            (d.host_path.as_str(), d.path.as_deref(), d.permissions.as_deref()),
            ("/dev/fuse", Some("/dev/f"), Some("rw"))
        );
        assert_eq!(node("/dev/fuse:r").unwrap().permissions.as_deref(), Some("r"));
        assert_eq!(node("/dev/fuse").unwrap().path, None);
        let described = DeviceArg::Described("v.com/gpu=0".parse().unwrap());
        assert_eq!(device("v.com/gpu=0"), Ok(described));
        assert!(device("v.com=0").unwrap_err().contains("vendor.com/class=device"));
        for bad in ["", "fuse", "/dev/x:y", "/dev/x:/y:q", "/a:/b:r:w"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn restart_policies() {
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, 3);
        assert_eq!(restart("unless-stopped").unwrap().policy, RestartWhen::UnlessStopped);
        for bad in ["sometimes", "always:3", "on-failure:x"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_security_and_log() {
        let mut s = SecuritySpec::default();
        security_opt("seccomp=unconfined", &mut s).unwrap();
        security_opt("no-new-privileges", &mut s).unwrap();
        assert_eq!((s.seccomp.as_str(), s.no_new_privileges), ("unconfined", true));
        assert!(
            security_opt("seccomp=/nonexistent.json", &mut s)
                .unwrap_err()
                .contains("cannot read")
        );
        let file = std::env::temp_dir().join(format!("biga-profile-{}.json", std::process::id()));
        std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        security_opt(&format!("seccomp={}", file.display()), &mut s).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(s.seccomp_profile.as_ref().unwrap()["defaultAction"], "SCMP_ACT_ALLOW");
        for o in [
            "apparmor=mine",
            "label=type:x_t",
            "label:level:s0",
            "systempaths=unconfined",
        ] {
            security_opt(o, &mut s).unwrap();
        }
        assert_eq!(
            (s.apparmor.as_str(), s.selinux.len(), s.masked_paths.clone()),
            ("mine", 2, Some(vec![]))
        );
        assert_eq!(
            clocks("boottime=-5,monotonic=7").map(|c| (c.monotonic, c.boottime)),
            Ok((7, -5))
        );
        assert!(clocks("realtime=5").is_err());
        assert!(security_opt("magic", &mut s).is_err());
        let mut l = LogSpec::default();
        log_opt("max-size=1m", &mut l).unwrap();
        log_opt("max-file=5", &mut l).unwrap();
        assert_eq!((l.max_size, l.max_files), (Some(biga_model::Memory::mib(1)), Some(5)));
        assert!(log_opt("compress=true", &mut l).is_err());
    }
}
