//! One start of one isolation, measured from outside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use biga_client::{Client, DeleteParams};
use biga_model::{
    ContainerSpec, Instance, InstanceSpec, Isolation, Memory, NetworkAttachment, Object, Resources, Timestamp,
};

use super::probe::{self, Probes};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::procfs;
use crate::wait;

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In which isolation.
    pub isolation: Isolation,
    /// Of which image.
    pub image: String,
    /// Instead of the image's own command, unless empty.
    pub command: Vec<String>,
    /// With so much memory.
    pub memory: Memory,
    /// The comparison it belongs to.
    pub label: String,
}

/// The daemon's process.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    pid: u32,
}

impl Daemon {
    /// The process at the other end of the socket.
    pub async fn of(client: &Client) -> anyhow::Result<Daemon> {
        let peer = client.connect().await?.peer_cred()?;
        let pid = peer.pid().and_then(|p| u32::try_from(p).ok()).filter(|p| *p > 0);
        let pid = pid.ok_or_else(|| {
            fail(
                Code::FAILED,
                "the daemon runs in another pid namespace: nothing can be measured from here",
            )
        })?;
        Ok(Daemon { pid })
    }

    /// CPU time of the daemon and of helpers it waited for.
    fn cpu(self) -> Duration {
        procfs::cpu_exact(self.pid) + ended_children(self.pid)
    }
}

fn ended_children(pid: u32) -> Duration {
    procfs::Process::read(Path::new(&format!("/proc/{pid}"))).map_or(Duration::ZERO, |p| p.children_cpu)
}

/// What one start cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// From the request to the entrypoint's first instruction, nanoseconds.
    pub start_ns: Option<u64>,
    /// CPU time until then: daemon, shim, helpers, QEMU; nanoseconds.
    pub cpu_ns: u64,
    /// Proportional memory of its processes without pages of files; bytes.
    pub memory: Option<u64>,
    /// Proportional memory that is pages of files: programs and the image.
    pub file_pages: Option<u64>,
    /// Memory the kernel spends for it, where its cgroup says.
    pub kernel_memory: Option<u64>,
    /// Blocks in its state directory; bytes.
    pub disk: Option<u64>,
    /// Whether a system call filter applies to its main process.
    pub seccomp: Option<bool>,
    /// `kvm`, `tcg` or empty.
    pub accelerator: String,
    /// Work inside.
    pub probes: Option<Probes>,
}

impl Sample {
    /// What the host pays in memory: the processes' own pages and the kernel's, pages of files apart.
    pub fn host_memory(&self) -> Option<u64> {
        Some(self.memory? + self.kernel_memory.unwrap_or(0))
    }
}

/// Starts an instance, measures it, and removes it.
pub async fn run(cx: &Context, plan: &Plan, daemon: &Daemon, probes: bool) -> anyhow::Result<Sample> {
    let o = object(plan, &cx.namespace);
    let cpu_before = daemon.cpu();
    let asked = Timestamp::now();
    let o = cx.api::<Instance>().create(&o).await?;
    let result = started(cx, &o, daemon, cpu_before, asked, probes).await;
    let left = cx.api::<Instance>().delete(o.name(), &DeleteParams::now()).await;
    if left.is_ok_and(|l| l.is_some()) {
        wait::gone(cx, &o).await?;
    }
    result
}

fn object(plan: &Plan, namespace: &str) -> Object<Instance> {
    let name = format!("compare-{}-{}", crate::names::random(), plan.isolation);
    let container = ContainerSpec {
        name: "main".into(),
        args: (!plan.command.is_empty()).then(|| plan.command.clone()),
        // An open standard input keeps a shell waiting, so that there is something to measure.
        stdin: true,
        ..ContainerSpec::default()
    };
    let spec = InstanceSpec {
        isolation: plan.isolation,
        image: plan.image.clone(),
        containers: if plan.isolation == Isolation::Vm {
            Vec::new()
        } else {
            vec![container]
        },
        resources: Resources {
            memory: Some(plan.memory),
            ..Resources::default()
        },
        networks: vec![NetworkAttachment {
            network: biga_model::kinds::network::DEFAULT_NETWORK.into(),
            ..NetworkAttachment::default()
        }],
        ..InstanceSpec::default()
    };
    let mut o = Object::new(name, spec);
    o.metadata.namespace = Some(namespace.to_string());
    o.metadata.labels.insert(super::LABEL.into(), plan.label.clone());
    o
}

async fn started(
    cx: &Context,
    o: &Object<Instance>,
    daemon: &Daemon,
    cpu_before: Duration,
    asked: Timestamp,
    probes: bool,
) -> anyhow::Result<Sample> {
    let o = wait::running(cx, o).await?;
    let status = o.status_or_default();
    let mut first = status.started_at;
    if o.spec.isolation == Isolation::Vm {
        // QEMU runs at once; the machine is of use when its system is up.
        probe::answers(cx, &o).await?;
        first = Some(Timestamp::now());
    }
    // CPU first: what follows must not be counted.
    let processes = Processes::of(status.pid);
    let cpu = daemon.cpu().saturating_sub(cpu_before) + processes.cpu();
    let mut sample = Sample {
        start_ns: first.and_then(|s| nanoseconds_between(asked, s)),
        cpu_ns: cpu.as_nanos() as u64,
        accelerator: status.accelerator.clone(),
        ..Sample::default()
    };
    if !status.phase.is_live() {
        return Err(fail(
            Code::FAILED,
            "the command ended at once: give one that stays, as in `biga compare IMAGE -- sleep 600`",
        ));
    }
    if let Some(p) = processes.memory() {
        sample.memory = Some(p.total - p.file.min(p.total));
        sample.file_pages = Some(p.file);
    }
    sample.kernel_memory = status.pid.and_then(kernel_memory);
    sample.seccomp = status.pid.and_then(seccomp);
    sample.disk = processes.state_dir().map(|d| disk_use(&d));
    if probes {
        sample.probes = Some(probe::run(cx, &o).await?);
    }
    Ok(sample)
}

/// From the request to the first instruction. A clock that was set back gives nothing rather than nonsense.
fn nanoseconds_between(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.as_nanosecond() - from.as_nanosecond()).ok()
}

/// The shim of an instance and all below it.
struct Processes {
    shim: Option<u32>,
    pids: Vec<u32>,
}

impl Processes {
    fn of(main: Option<u32>) -> Processes {
        let all = procfs::all();
        let parent = main.and_then(|p| all.get(&p)).map(|p| p.parent).filter(|p| *p > 1);
        let root = parent.or(main);
        Processes {
            shim: parent,
            pids: root.map(|r| procfs::tree(&all, r)).unwrap_or_default(),
        }
    }

    fn cpu(&self) -> Duration {
        self.pids
            .iter()
            .map(|p| procfs::cpu_exact(*p) + ended_children(*p))
            .sum()
    }

    fn memory(&self) -> Option<procfs::Pss> {
        let each: Vec<procfs::Pss> = self.pids.iter().filter_map(|p| procfs::pss(*p)).collect();
        (!each.is_empty()).then(|| procfs::Pss {
            total: each.iter().map(|p| p.total).sum(),
            file: each.iter().map(|p| p.file).sum(),
        })
    }

    /// The instance's state directory, from the config the shim was started with.
    fn state_dir(&self) -> Option<PathBuf> {
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", self.shim?)).ok()?;
        let config = cmdline
            .split(|b| *b == 0)
            .map(String::from_utf8_lossy)
            .find(|w| w.ends_with(".json"))?;
        let text = std::fs::read(config.as_ref()).ok()?;
        let v: serde_json::Value = serde_json::from_slice(&text).ok()?;
        v["stateDir"].as_str().map(PathBuf::from)
    }
}

/// Bytes of blocks below `dir`, without following links or leaving the file system.
fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(top) = std::fs::symlink_metadata(dir) else {
        return 0;
    };
    let device = top.dev();
    let mut total = 0;
    let mut next = vec![dir.to_path_buf()];
    while let Some(p) = next.pop() {
        // What goes while we look is not counted.
        let Ok(m) = std::fs::symlink_metadata(&p) else { continue };
        if m.dev() != device {
            continue;
        }
        total += m.blocks() * 512;
        if m.is_dir()
            && let Ok(entries) = std::fs::read_dir(&p)
        {
            next.extend(entries.flatten().map(|e| e.path()));
        }
    }
    total
}

/// Memory the kernel spends for the cgroup of a process.
fn kernel_memory(pid: u32) -> Option<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = |controller: &str| {
        groups.lines().find_map(|l| {
            let mut f = l.splitn(3, ':').skip(1);
            (f.next()?.split(',').any(|c| c == controller)).then(|| f.next())?
        })
    };
    if let Some(p) = path("memory") {
        let file = format!("/sys/fs/cgroup/memory{p}/memory.kmem.usage_in_bytes");
        return std::fs::read_to_string(file).ok()?.trim().parse().ok();
    }
    let stat = std::fs::read_to_string(format!("/sys/fs/cgroup{}/memory.stat", path("")?)).ok()?;
    stat.lines()
        .find_map(|l| l.strip_prefix("kernel "))?
        .trim()
        .parse()
        .ok()
}

/// Whether a system call filter applies to a process.
fn seccomp(pid: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mode = status.lines().find_map(|l| l.strip_prefix("Seccomp:"))?;
    Some(mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_below_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), vec![7u8; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("out")).unwrap();
        let n = disk_use(dir.path());
        assert!((1 << 20..4 << 20).contains(&n), "{n}");
        assert_eq!(disk_use(&dir.path().join("missing")), 0);
    }

    #[test]
    fn times_never_run_backwards() {
        let t = |s: &str| s.parse::<Timestamp>().unwrap();
        let (a, b) = (t("2026-01-01T00:00:00.5Z"), t("2026-01-01T00:00:01Z"));
        assert_eq!(nanoseconds_between(a, b), Some(500_000_000));
        assert_eq!(nanoseconds_between(b, a), None);
    }

    #[test]
    fn our_own_process_can_be_measured() {
        let me = std::process::id();
        assert!(seccomp(me).is_some());
        let p = Processes::of(Some(me));
        assert!(p.pids.contains(&me));
        assert!(p.memory().is_some_and(|m| m.total > 0));
    }
}
