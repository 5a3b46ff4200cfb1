//! The options of `run` and `create`, and the object they describe.

use std::path::PathBuf;

use biga_model::{
    CloudInit, ContainerSpec, Cpus, EnvVar, Firmware, HealthCheck, Instance, InstanceSpec, Isolation, LogDriver,
    MachineSpec, Memory, NetworkAttachment, NetworkMode, Object, Power, PullPolicy, RestartPolicy, SecuritySpec,
};
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

use crate::cmd::limit_options::FineLimits;
use crate::cmd::namespace_options::NamespaceOptions;
use crate::exit::{Code, fail};
use crate::names;
use crate::parse::size::size;
use crate::parse::{env, mount, network, port, signal, time, words};

/// What to run and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunOptions {
    /// Name; made up where left out
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What stands between the instance and the host
    #[arg(long, value_name = "ISOLATION", default_value = "container", value_parser = isolation())]
    pub isolation: Isolation,
    /// Another OCI runtime than Biga's own: runc, crun, one that the daemon was given, or the path of one
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,
    /// Keep standard input open and send ours
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give the process a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Remove the instance when it ends
    #[arg(long)]
    pub rm: bool,
    /// When to ask the registry for the image
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["missing", "always", "never"])]
    pub pull: String,
    /// Restart when it ends: no, always, unless-stopped, on-failure[:MAX]
    #[arg(long, value_name = "POLICY", value_parser = words::restart)]
    pub restart: Option<RestartPolicy>,

    #[command(flatten, next_help_heading = "Process")]
    process: ProcessOptions,
    #[command(flatten, next_help_heading = "Storage")]
    storage: StorageOptions,
    #[command(flatten, next_help_heading = "Network")]
    net: NetworkOptions,
    #[command(flatten, next_help_heading = "Limits")]
    limits: LimitOptions,
    #[command(flatten, next_help_heading = "Security")]
    security: SecurityOptions,
    #[command(flatten, next_help_heading = "Sharing")]
    sharing: NamespaceOptions,
    #[command(flatten, next_help_heading = "Life")]
    life: LifeOptions,
    #[command(flatten, next_help_heading = "Health")]
    health: HealthOptions,
    #[command(flatten, next_help_heading = "Machines (--isolation vm)")]
    machine: MachineOptions,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct ProcessOptions {
    /// Set a variable, or pass ours on where there is no value
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// One more group, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run a small init that reaps processes and forwards signals
    #[arg(long)]
    init: bool,
    /// File mode creation mask, as 0022
    #[arg(long, value_name = "MASK")]
    umask: Option<String>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct StorageOptions {
    /// Mount a volume or a directory of the host (options: ro, nocopy, rslave, rshared)
    #[arg(short = 'v', long, value_name = "SOURCE:/PATH[:OPTIONS]", value_parser = mount::volume)]
    volume: Vec<mount::MountArg>,
    /// Mount memory (options: size=, mode=, uid=, gid=, ro, exec, …)
    #[arg(long, value_name = "/PATH[:OPTIONS]", value_parser = mount::tmpfs)]
    tmpfs: Vec<mount::MountArg>,
    /// Mount, in Docker's long form
    #[arg(long, value_name = "type=TYPE,source=…,target=…", value_parser = mount::mount)]
    mount: Vec<mount::MountArg>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<Memory>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct NetworkOptions {
    /// Publish a port of the instance on the host
    #[arg(short = 'p', long, value_name = "[[IP:]PORT:]PORT[/udp]")]
    publish: Vec<String>,
    /// Join a network: none, host, container:NAME, or a name with ip=…, mac=…, alias=…
    #[arg(long, alias = "net", value_name = "NETWORK[:KEY=VALUE,…]", value_parser = network::network)]
    network: Vec<network::NetworkArg>,
    /// Another name on its network
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
    /// A fixed address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<std::net::IpAddr>,
    /// A fixed hardware address on its network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Host name inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// NIS domain name inside
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Name server instead of the network's own
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<std::net::IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// One more line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = network::add_host)]
    add_host: Vec<biga_model::HostAlias>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct LimitOptions {
    /// Memory: at most so much, or a machine's size
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = size)]
    memory: Option<Memory>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_swap: Option<Memory>,
    /// Memory it is pushed back to when the host has little
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_reservation: Option<Memory>,
    /// Processors: at most so much, or a machine's number
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Weight among others; 1024 is usual
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Processors it may run on, as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// At most so many processes
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<u32>,
    #[command(flatten)]
    fine: FineLimits,
    /// Added to the kernel's badness score, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// Resource limit of its processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = words::ulimit)]
    ulimit: Vec<(String, biga_model::Ulimit)>,
    /// Kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = env::key_value)]
    sysctl: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct SecurityOptions {
    /// Give a capability, as NET_ADMIN or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability, as CHOWN or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Give all the host has: capabilities, devices, no system call filter
    #[arg(long)]
    privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, apparmor=…, label=…, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give a device of the host, or one that its vendor describes (the Container Device Interface)
    #[arg(long, value_name = "/DEV[:/DEV][:rwm]|VENDOR/CLASS=NAME", value_parser = words::device)]
    device: Vec<words::DeviceArg>,
    /// Allow devices by number, as "c 188:* rwm"
    #[arg(long, value_name = "RULE", value_parser = device_rule)]
    device_cgroup_rule: Vec<String>,
}

fn device_rule(s: &str) -> Result<String, String> {
    s.parse::<biga_model::DeviceRule>().map(|_| s.to_owned())
}

#[derive(Debug, Clone, Default, clap::Args)]
struct LifeOptions {
    /// Set a label
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]", value_parser = env::key_value)]
    label: Vec<(String, String)>,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL", value_parser = signal::name)]
    stop_signal: Option<String>,
    /// Seconds until it is killed after that
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Where its output goes; to the journal or to syslog it goes beside files
    #[arg(long, value_name = "DRIVER", value_parser = ["file", "json-file", "local", "none", "journald", "syslog"])]
    log_driver: Option<String>,
    /// max-size=SIZE, max-file=NUMBER; tag, labels, env; syslog-address, syslog-facility, syslog-format
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
}

#[derive(Debug, Clone, Default, clap::Args)]
struct HealthOptions {
    /// Command that the shell runs inside to see whether it does its work
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two of them, as 30s or 500ms
    #[arg(long, value_name = "DURATION", value_parser = time::millis)]
    health_interval: Option<u64>,
    /// Time one may take
    #[arg(long, value_name = "DURATION", value_parser = time::millis)]
    health_timeout: Option<u64>,
    /// Time from the start in which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = time::millis)]
    health_start_period: Option<u64>,
    /// Time between two of them in the start period
    #[arg(long, value_name = "DURATION", value_parser = time::millis)]
    health_start_interval: Option<u64>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Do without the image's health check
    #[arg(long, conflicts_with_all = ["health_cmd", "restart_unhealthy"])]
    no_healthcheck: bool,
    /// Restart it when it becomes unhealthy
    #[arg(long)]
    restart_unhealthy: bool,
}

impl HealthOptions {
    fn into_check(self) -> Option<HealthCheck> {
        let test = match (self.no_healthcheck, self.health_cmd) {
            (true, _) => vec!["NONE".into()],
            (false, Some(line)) => vec!["CMD-SHELL".into(), line],
            (false, None) => Vec::new(),
        };
        let check = HealthCheck {
            test,
            interval_ms: self.health_interval,
            timeout_ms: self.health_timeout,
            start_period_ms: self.health_start_period,
            start_interval_ms: self.health_start_interval,
            retries: self.health_retries,
            restart: self.restart_unhealthy,
        };
        (check != HealthCheck::default()).then_some(check)
    }
}

#[derive(Debug, Clone, Default, clap::Args)]
struct MachineOptions {
    /// Grow the first disk to this size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disk_size: Option<Memory>,
    /// How it boots
    #[arg(long, value_name = "FIRMWARE", value_parser = ["bios", "uefi"])]
    firmware: Option<String>,
    /// cloud-init user data
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// Public key (or a file of one) that may log in
    #[arg(long, value_name = "KEY|FILE")]
    ssh_key: Vec<String>,
}

/// Reads an isolation and lists the three in help and completion.
pub fn isolation() -> impl TypedValueParser<Value = Isolation> {
    PossibleValuesParser::new(Isolation::ALL.map(Isolation::as_str)).try_map(|s| s.parse::<Isolation>())
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    fail(Code::USAGE, message)
}

impl RunOptions {
    /// The instance that these options, `image` and `command` describe, stopped.
    pub fn into_object(self, image: &str, command: &[String]) -> anyhow::Result<Object<Instance>> {
        let vm = self.isolation == Isolation::Vm;
        self.check(vm, command)?;
        let name = self.name.clone().unwrap_or_else(names::random);
        let mut spec = InstanceSpec {
            isolation: self.isolation,
            runtime: self.runtime.clone(),
            image: image.to_string(),
            image_pull_policy: match self.pull.as_str() {
                "always" => PullPolicy::Always,
                "never" => PullPolicy::Never,
                _ => PullPolicy::IfNotPresent,
            },
            power: Power::Stopped,
            auto_remove: self.rm,
            restart_policy: self.restart.clone().unwrap_or_default(),
            ..InstanceSpec::default()
        };
        let labels = self.life.label.iter().cloned().collect();
        let mut container = self.process(command)?;
        self.storage(&mut spec, &mut container);
        self.network(&mut spec)?;
        self.limits(&mut spec, &mut container);
        self.security(&mut container)?;
        self.sharing.apply(&mut spec, &mut container);
        self.life(&mut spec)?;
        if vm {
            spec.machine = Some(self.machine()?);
        } else {
            container.health_check = self.health.clone().into_check();
            spec.containers = vec![container];
        }
        let mut o = Object::new(name, spec);
        o.metadata.labels = labels;
        Ok(o)
    }

    /// What cannot be honoured is refused, not dropped.
    fn check(&self, vm: bool, command: &[String]) -> anyhow::Result<()> {
        let m = &self.machine;
        let machine_only = [
            ("--disk-size", m.disk_size.is_some()),
            ("--firmware", m.firmware.is_some()),
            ("--user-data", m.user_data.is_some()),
            ("--ssh-key", !m.ssh_key.is_empty()),
        ];
        if !vm && let Some((option, _)) = machine_only.iter().find(|(_, given)| *given) {
            return Err(usage(format!("{option} is only for --isolation vm")));
        }
        let (p, s, x) = (&self.process, &self.storage, &self.security);
        let process_only = [
            ("a command", !command.is_empty()),
            ("--tty", self.tty),
            ("--interactive", self.interactive),
            ("--env", !p.env.is_empty() || !p.env_file.is_empty()),
            ("--workdir", p.workdir.is_some()),
            ("--user", p.user.is_some()),
            ("--entrypoint", p.entrypoint.is_some()),
            ("--init", p.init),
            ("--runtime", self.runtime.is_some()),
            ("--tmpfs", !s.tmpfs.is_empty()),
            ("--read-only", s.read_only),
            ("--privileged", x.privileged),
            ("--cap-add", !x.cap_add.is_empty()),
            ("--cap-drop", !x.cap_drop.is_empty()),
            ("--device", !x.device.is_empty() || !x.device_cgroup_rule.is_empty()),
            ("--pid, --ipc, --uts, --userns and the like", self.sharing.given()),
            ("--ulimit", !self.limits.ulimit.is_empty()),
            ("--health-cmd", self.health.clone().into_check().is_some()),
        ];
        if vm && let Some((what, _)) = process_only.iter().find(|(_, given)| *given) {
            return Err(usage(format!(
                "{what} is not for --isolation vm: a machine runs what is on its disk"
            )));
        }
        Ok(())
    }

    fn process(&self, command: &[String]) -> anyhow::Result<ContainerSpec> {
        let p = &self.process;
        let mut vars: Vec<EnvVar> = Vec::new();
        for f in &p.env_file {
            vars.extend(env::file(f).map_err(usage)?);
        }
        for e in &p.env {
            vars.extend(env::variable(e).map_err(usage)?);
        }
        let args = (!command.is_empty()).then(|| command.to_vec());
        let (entrypoint, args) = match p.entrypoint.as_deref() {
            None => (None, args),
            // Docker: an empty entrypoint removes the image's, so that the command is all.
            Some("") if args.is_none() => {
                return Err(usage("with an empty --entrypoint, say what to run after the image"));
            }
            Some("") => (args, Some(Vec::new())),
            Some(e) => (Some(vec![e.to_string()]), Some(args.unwrap_or_default())),
        };
        Ok(ContainerSpec {
            name: "main".into(),
            command: entrypoint,
            args,
            env: env::merge(vars),
            working_dir: p.workdir.clone(),
            user: p.user.clone(),
            additional_groups: p.group_add.clone(),
            tty: self.tty,
            stdin: self.interactive,
            init: p.init,
            umask: p.umask.clone(),
            ..ContainerSpec::default()
        })
    }

    fn storage(&self, spec: &mut InstanceSpec, container: &mut ContainerSpec) {
        let s = &self.storage;
        spec.shm_size = s.shm_size;
        container.security.read_only_root = s.read_only;
        for (i, m) in s.volume.iter().chain(&s.tmpfs).chain(&s.mount).enumerate() {
            let (mut volume, mount) = m.clone().into_spec(i);
            if let Some(t) = &mut volume.tmpfs
                && self.isolation == Isolation::Container
                && !t.options.iter().any(|o| o == "exec" || o == "noexec")
            {
                // As Docker's: no programs, unless asked for.
                t.options.push("noexec".into());
            }
            // One volume may be mounted at several places.
            if !spec.volumes.contains(&volume) {
                spec.volumes.push(volume);
            }
            container.volume_mounts.push(mount);
        }
    }

    fn network(&self, spec: &mut InstanceSpec) -> anyhow::Result<()> {
        let n = &self.net;
        for arg in &n.network {
            match arg {
                network::NetworkArg::Mode(_) if n.network.len() > 1 => {
                    return Err(usage("--network none and --network host stand alone"));
                }
                network::NetworkArg::Of(_) if n.network.len() > 1 => {
                    return Err(usage("--network container:NAME stands alone"));
                }
                network::NetworkArg::Of(name) => {
                    spec.network_mode = NetworkMode::None;
                    spec.namespaces.network = Some(name.clone());
                }
                network::NetworkArg::Mode(m) => spec.network_mode = *m,
                network::NetworkArg::Join(a) => spec.networks.push(a.clone()),
            }
        }
        let extra = n.ip.is_some() || n.mac_address.is_some() || !n.network_alias.is_empty();
        if extra {
            if spec.network_mode != NetworkMode::Bridge {
                return Err(usage("--ip, --mac-address and --network-alias need a network"));
            }
            if spec.networks.is_empty() {
                spec.networks.push(NetworkAttachment {
                    network: biga_model::kinds::network::DEFAULT_NETWORK.into(),
                    ..NetworkAttachment::default()
                });
            }
            let first = &mut spec.networks[0];
            first.address = n.ip.map(|a| a.to_string()).or(first.address.take());
            first.mac = n.mac_address.clone().or(first.mac.take());
            first.aliases.extend(n.network_alias.iter().cloned());
        }
        for p in &n.publish {
            spec.ports.extend(port::publish(p).map_err(usage)?);
        }
        spec.hostname = n.hostname.clone();
        spec.domainname = n.domainname.clone();
        spec.dns.servers = n.dns.iter().map(ToString::to_string).collect();
        spec.dns.search = n.dns_search.clone();
        spec.dns.options = n.dns_option.clone();
        spec.extra_hosts = n.add_host.clone();
        Ok(())
    }

    fn limits(&self, spec: &mut InstanceSpec, container: &mut ContainerSpec) {
        let l = &self.limits;
        spec.resources = biga_model::Resources {
            cpus: l.cpus,
            cpu_shares: l.cpu_shares,
            cpuset_cpus: l.cpuset_cpus.clone(),
            memory: l.memory,
            memory_swap: l.memory_swap,
            memory_reservation: l.memory_reservation,
            pids_limit: l.pids_limit,
            oom_score_adj: l.oom_score_adj,
            ..biga_model::Resources::default()
        };
        l.fine.apply(&mut spec.resources);
        spec.sysctls = l.sysctl.iter().cloned().collect();
        container.ulimits = l.ulimit.iter().cloned().collect();
    }

    fn security(&self, container: &mut ContainerSpec) -> anyhow::Result<()> {
        let x = &self.security;
        let cap = |c: &String| {
            let upper = c.to_ascii_uppercase();
            upper.strip_prefix("CAP_").unwrap_or(&upper).to_string()
        };
        for d in &x.device {
            match d {
                words::DeviceArg::Node(node) => container.devices.push(node.clone()),
                words::DeviceArg::Described(name) => container.cdi_devices.push(name.to_string()),
            }
        }
        container.device_rules = x.device_cgroup_rule.clone();
        let s: &mut SecuritySpec = &mut container.security;
        s.privileged = x.privileged;
        s.cap_add = x.cap_add.iter().map(cap).collect();
        s.cap_drop = x.cap_drop.iter().map(cap).collect();
        for o in &x.security_opt {
            words::security_opt(o, s).map_err(usage)?;
        }
        Ok(())
    }

    fn life(&self, spec: &mut InstanceSpec) -> anyhow::Result<()> {
        let l = &self.life;
        spec.stop.signal = l.stop_signal.clone();
        spec.stop.grace_period_seconds = l.stop_timeout;
        spec.log.driver = match l.log_driver.as_deref() {
            Some("none") => LogDriver::None,
            Some("journald") => LogDriver::Journald,
            Some("syslog") => LogDriver::Syslog,
            _ => LogDriver::File,
        };
        for o in &l.log_opt {
            words::log_opt(o, &mut spec.log).map_err(usage)?;
        }
        Ok(())
    }

    fn machine(&self) -> anyhow::Result<MachineSpec> {
        let m = &self.machine;
        let user_data = match &m.user_data {
            None => None,
            Some(p) => {
                Some(std::fs::read_to_string(p).map_err(|e| usage(format!("cannot read {}: {e}", p.display())))?)
            }
        };
        let keys = m
            .ssh_key
            .iter()
            .map(|k| read_key(k))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if user_data.is_some() && !keys.is_empty() {
            return Err(usage(
                "--ssh-key works without --user-data: put the keys into the user data",
            ));
        }
        Ok(MachineSpec {
            firmware: match m.firmware.as_deref() {
                Some("uefi") => Firmware::Uefi,
                _ => Firmware::Bios,
            },
            disk_size: m.disk_size,
            cloud_init: (user_data.is_some() || !keys.is_empty()).then_some(CloudInit {
                user_data,
                ssh_authorized_keys: keys,
            }),
        })
    }
}

/// A public key, given itself or as a file.
fn read_key(k: &str) -> anyhow::Result<String> {
    if k.contains(' ') {
        return Ok(k.trim().to_string());
    }
    let text = std::fs::read_to_string(k)
        .map_err(|e| usage(format!("--ssh-key {k} is neither a public key nor a file of one: {e}")))?;
    if text.contains("PRIVATE KEY") {
        return Err(usage(format!("{k} is a private key: give the public one, {k}.pub")));
    }
    Ok(text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: RunOptions,
        #[arg(required = true, trailing_var_arg = true)]
        words: Vec<String>,
    }

    fn object(line: &str) -> anyhow::Result<Object<Instance>> {
        let words = shell_words::split(line).unwrap();
        let cli = Cli::try_parse_from(std::iter::once("run".to_string()).chain(words))?;
        cli.options.into_object(&cli.words[0], &cli.words[1..])
    }

    #[test]
    fn a_rich_command_line_becomes_a_spec() {
        let o = object(
            "--name web --isolation microvm -it --rm -e A=1 -e A=2 -w /srv -u 1000:1000 -v data:/data:ro -v data:/again \
             -v /etc/ssl:/ssl --tmpfs /run:size=16m -p 127.0.0.1:8080:80 -p 53/udp --network lab:alias=db --ip 10.9.0.9 \
             --add-host db:10.0.0.1 --dns 1.1.1.1 -m 256m --cpus 1.5 --pids-limit 64 --ulimit nofile=10:20 \
             --cap-add cap_net_admin --security-opt no-new-privileges --init --label tier=web --stop-signal INT \
             --stop-timeout 3 --log-opt max-size=1m --sysctl net.ipv4.ip_forward=1 nginx:1 -g 'daemon off;' --rm",
        )
        .unwrap();
        insta::assert_json_snapshot!(o);
        assert_eq!(Instance::validate_all(&o), Vec::<String>::new());
    }

    #[test]
    fn sharing_and_finer_limits_become_a_spec() {
        let o = object(
            "--name n --pid host --ipc container:db --uts host --cgroupns host --network container:db --time-offset boottime=60 \
             --cgroup-parent tenants/a --cpu-quota 50000 --cpu-period 100000 --cpu-burst 1000 --cpuset-mems 0 \
             --memory-swappiness 10 --oom-kill-disable --blkio-weight 500 --blkio-weight-device /dev/sda:300 \
             --device-read-bps /dev/sda:1m --device-write-bps /dev/sda:2m --device-read-iops /dev/sda:10 \
             --device-write-iops /dev/sda:20 --hugetlb 2MB=64m --cgroup-conf memory.high=1G \
             --device-cgroup-rule 'c 188:* rwm' --security-opt systempaths=unconfined --security-opt apparmor=mine \
             --security-opt label=type:x_t -v /srv:/srv:rshared --tmpfs /run:uid=33 x",
        )
        .unwrap();
        insta::assert_json_snapshot!(o);
        assert_eq!(Instance::validate_all(&o), Vec::<String>::new());
        let o = object("--name n --userns private --system x").unwrap();
        assert_eq!(Instance::validate_all(&o), Vec::<String>::new());
        assert!(o.spec.containers[0].system && o.spec.namespaces.user == biga_model::UserIds::Private);
    }

    #[test]
    fn a_machine_takes_its_own_options() {
        let o = object("--name m --isolation vm --disk-size 8g --firmware uefi --ssh-key 'ssh-ed25519 AAAA me' -m 1g --cpus 2 disk")
            .unwrap();
        insta::assert_json_snapshot!(o);
        assert_eq!(Instance::validate_all(&o), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (line, hint) in [
            ("--disk-size 8g x", "only for --isolation vm"),
            ("--isolation vm x sh", "a machine runs what is on its disk"),
            ("--isolation vm --tty x", "a machine runs"),
            ("--network none --ip 1.2.3.4 x", "need a network"),
            ("--network none --network lab x", "stand alone"),
            (
                "--security-opt seccomp=/nonexistent.json x",
                "cannot read the seccomp profile",
            ),
            ("--network container:a --network b x", "stands alone"),
            ("--device-cgroup-rule 'x 1:3 r' x", "no rule for devices"),
            ("--pid elsewhere x", "private, host"),
            ("--isolation vm --userns private x", "a machine runs"),
            ("--isolation jail x", "invalid value"),
            ("-p 99999 x", "is no port"),
            ("--isolation vm --ssh-key /nonexistent x", "neither a public key"),
        ] {
            let e = format!("{:#}", object(line).unwrap_err());
            assert!(e.contains(hint), "{line}: {e}");
        }
    }

    #[test]
    fn the_entrypoint_follows_docker() {
        let c = |line: &str| object(line).unwrap().spec.containers.remove(0);
        let plain = c("x a b");
        assert_eq!((plain.command, plain.args), (None, Some(vec!["a".into(), "b".into()])));
        let none = c("x");
        assert_eq!((none.command, none.args), (None, None));
        let replaced = c("--entrypoint /bin/sh x -c ls");
        assert_eq!(replaced.command, Some(vec!["/bin/sh".into()]));
        assert_eq!(replaced.args, Some(vec!["-c".into(), "ls".into()]));
        let cleared = c("--entrypoint '' x ls");
        assert_eq!((cleared.command, cleared.args), (Some(vec!["ls".into()]), Some(vec![])));
    }

    /// What the server would say.
    trait ValidateAll {
        fn validate_all(o: &Object<Instance>) -> Vec<String>;
    }
    impl ValidateAll for Instance {
        fn validate_all(o: &Object<Instance>) -> Vec<String> {
            <Instance as biga_model::Kind>::validate(o, None)
                .iter()
                .map(ToString::to_string)
                .collect()
        }
    }
}
