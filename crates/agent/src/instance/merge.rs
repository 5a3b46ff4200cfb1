//! What the image wishes and what the spec wishes, made one.

use std::collections::BTreeSet;

use biga_container::caps::NAMES as ALL_CAPABILITIES;
use biga_image::ImageConfig;
use biga_model::{ContainerSpec, HostAlias, NetworkEndpoint};
use biga_wire::config::Process;

use super::Failure;

/// Docker's default set of capabilities.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The main process of `spec` under an image with `config`. `hostname` becomes `HOSTNAME`.
pub fn process(config: &ImageConfig, spec: &ContainerSpec, hostname: &str) -> Result<Process, Failure> {
    let args = arguments(config, spec);
    if args.is_empty() {
        return Err(Failure::new(
            "NoCommand",
            "the image names no command: give one after the image's name",
        ));
    }
    let umask = spec.umask.as_deref().and_then(|m| u32::from_str_radix(m, 8).ok());
    Ok(Process {
        args,
        env: environment(config, spec, hostname),
        cwd: first_non_empty([spec.working_dir.as_deref().unwrap_or(""), &config.working_dir, "/"]),
        user: first_non_empty([spec.user.as_deref().unwrap_or(""), &config.user, "0"]),
        additional_groups: spec.additional_groups.clone(),
        tty: spec.tty,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        rlimits: spec
            .ulimits
            .iter()
            .map(|(k, v)| (k.clone(), (v.soft, v.hard)))
            .collect(),
        umask,
        init: spec.init,
    })
}

fn first_non_empty(choices: [&str; 3]) -> String {
    choices
        .into_iter()
        .find(|c| !c.is_empty())
        .unwrap_or_default()
        .to_string()
}

/// A command of the spec drops the image's arguments with its entrypoint, as in Docker and Kubernetes.
fn arguments(config: &ImageConfig, spec: &ContainerSpec) -> Vec<String> {
    match (&spec.command, &spec.args) {
        (Some(c), a) => c.iter().chain(a.iter().flatten()).cloned().collect(),
        (None, Some(a)) => config.entrypoint.iter().chain(a).cloned().collect(),
        (None, None) => config.entrypoint.iter().chain(&config.cmd).cloned().collect(),
    }
}

fn environment(config: &ImageConfig, spec: &ContainerSpec, hostname: &str) -> Vec<String> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    env.set("HOSTNAME", hostname);
    if spec.tty {
        env.set("TERM", "xterm");
    }
    for line in &config.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        env.set(name, value);
    }
    for v in &spec.env {
        env.set(&v.name, &v.value);
    }
    env.0.into_iter().map(|(n, v)| format!("{n}={v}")).collect()
}

/// Variables in the order they came in; a later value takes the earlier one's place.
#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value.to_string(),
            None => self.0.push((name.to_string(), value.to_string())),
        }
    }
}

/// The capabilities of a container, sorted, without `CAP_`.
pub fn capabilities(spec: &ContainerSpec) -> Result<Vec<String>, Failure> {
    let s = &spec.security;
    if s.privileged {
        return Ok(ALL_CAPABILITIES.iter().map(|c| c.to_string()).collect());
    }
    let mut set: BTreeSet<&str> = DEFAULT_CAPABILITIES.into();
    let added = known(&s.cap_add)?;
    let dropped = known(&s.cap_drop)?;
    // ALL first, so that single names refine it whichever side they stand on.
    if dropped.contains(&"ALL") {
        set.clear();
    }
    if added.contains(&"ALL") {
        set.extend(ALL_CAPABILITIES);
    }
    set.extend(added.iter().filter(|c| **c != "ALL"));
    dropped.iter().for_each(|c| {
        set.remove(c);
    });
    Ok(set.into_iter().map(str::to_string).collect())
}

fn known(names: &[String]) -> Result<Vec<&'static str>, Failure> {
    let find = |name: &String| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match ALL_CAPABILITIES.into_iter().find(|c| *c == bare) {
            Some(c) => Ok(c),
            None if bare == "ALL" => Ok("ALL"),
            None => Err(Failure::new(
                "BadCapability",
                format!("{name:?} is no capability of Linux"),
            )),
        }
    };
    names.iter().map(find).collect()
}

/// Content of `/etc/hosts`.
pub fn hosts(hostname: &str, domain: Option<&str>, endpoints: &[NetworkEndpoint], extra: &[HostAlias]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let names = match domain {
        Some(d) => format!("{hostname}.{d} {hostname}"),
        None => hostname.to_string(),
    };
    match endpoints {
        [] => text += &format!("127.0.1.1\t{names}\n"),
        all => {
            for e in all {
                let address = e.address.split('/').next().unwrap_or_default();
                text += &format!("{address}\t{names}\n");
            }
        }
    }
    for alias in extra {
        text += &format!("{}\t{}\n", alias.ip, alias.hostnames.join(" "));
    }
    text
}

/// Content of `/etc/resolv.conf`.
pub fn resolv_conf(servers: &[String], search: &[String], options: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    for s in servers {
        text += &format!("nameserver {s}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use biga_model::{EnvVar, SecuritySpec};

    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into(), "-v".into()],
            env: vec!["A=image".into(), "PATH=/bin".into(), "B".into()],
            user: "www".into(),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn commands_are_merged_as_docker_does() {
        let words = |s: &[&str]| Some(s.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        for (command, args, expected) in [
            (None, None, "/entry serve -v"),
            (None, words(&["x"]), "/entry x"),
            (words(&["sh"]), None, "sh"),
            (words(&["sh"]), words(&["-c", "true"]), "sh -c true"),
        ] {
            let spec = ContainerSpec {
                command,
                args,
                ..ContainerSpec::default()
            };
            assert_eq!(process(&image(), &spec, "h").unwrap().args.join(" "), expected);
        }
        assert_eq!(
            process(&ImageConfig::default(), &ContainerSpec::default(), "h")
                .unwrap_err()
                .reason,
            "NoCommand"
        );
    }

    #[test]
    fn the_spec_wins_over_the_image() {
        let spec = ContainerSpec {
            env: vec![EnvVar {
                name: "A".into(),
                value: "spec".into(),
            }],
            user: Some("0:0".into()),
            ..ContainerSpec::default()
        };
        let p = process(&image(), &spec, "h").unwrap();
        assert_eq!(p.env, ["PATH=/bin", "HOSTNAME=h", "A=spec", "B="]);
        assert_eq!((p.user.as_str(), p.cwd.as_str()), ("0:0", "/srv"));
    }

    #[test]
    fn capabilities_add_up() {
        let caps = |add: &[&str], drop: &[&str]| {
            let list = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
            let security = SecuritySpec {
                cap_add: list(add),
                cap_drop: list(drop),
                ..SecuritySpec::default()
            };
            capabilities(&ContainerSpec {
                security,
                ..ContainerSpec::default()
            })
        };
        assert_eq!(caps(&[], &[]).unwrap().len(), 14);
        assert_eq!(caps(&["cap_net_admin"], &["ALL"]).unwrap(), ["NET_ADMIN"]);
        assert_eq!(caps(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), 40);
        assert!(!caps(&[], &["chown"]).unwrap().contains(&"CHOWN".to_string()));
        assert_eq!(caps(&["FLY"], &[]).unwrap_err().reason, "BadCapability");
    }
}
