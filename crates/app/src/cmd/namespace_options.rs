//! What an instance shares with the host and with others.

use biga_model::{ClockOffsets, ContainerSpec, InstanceSpec, NamespaceSpec, Share, UserIds};

use crate::parse::words;

/// Options on namespaces.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NamespaceOptions {
    /// Process ids: private, host, or container:NAME
    #[arg(long, value_name = "WHOSE")]
    pid: Option<Share>,
    /// Shared memory and message queues: private, shareable, host, container:NAME, or none (no /dev/shm)
    #[arg(long, value_name = "WHOSE", value_parser = ipc)]
    ipc: Option<Ipc>,
    /// Host name: private, host, or container:NAME
    #[arg(long, value_name = "WHOSE")]
    uts: Option<Share>,
    /// View of control groups: private or host
    #[arg(long, value_name = "WHOSE", value_parser = ["private", "host"])]
    cgroupns: Option<String>,
    /// User ids: host, or private, with which root inside is nobody outside
    #[arg(long, value_name = "WHOSE", value_parser = ["host", "private", "auto"])]
    userns: Option<String>,
    /// Seconds that its clocks are ahead of the host's
    #[arg(long, value_name = "monotonic=N,boottime=N", value_parser = words::clocks)]
    time_offset: Option<ClockOffsets>,
    /// Control group below which its own is made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Its program is an init system, as systemd
    #[arg(long)]
    system: bool,
}

/// Whose memory is shared, if there is any.
#[derive(Debug, Clone)]
enum Ipc {
    Of(Share),
    None,
}

/// An instance's memory can always be shared, so that Docker's word for that changes nothing.
fn ipc(s: &str) -> Result<Ipc, String> {
    match s {
        "shareable" => Ok(Ipc::Of(Share::Private)),
        "none" => Ok(Ipc::None),
        s => s.parse().map(Ipc::Of),
    }
}

impl NamespaceOptions {
    /// Whether anything was given that is only for containers.
    pub fn given(&self) -> bool {
        self.system || self.spec() != NamespaceSpec::default()
    }

    fn spec(&self) -> NamespaceSpec {
        NamespaceSpec {
            pid: self.pid.clone().unwrap_or_default(),
            ipc: match &self.ipc {
                Some(Ipc::Of(share)) => share.clone(),
                _ => Share::Private,
            },
            no_shm: matches!(self.ipc, Some(Ipc::None)),
            uts: self.uts.clone().unwrap_or_default(),
            cgroup: match self.cgroupns.as_deref() {
                Some("host") => Share::Host,
                _ => Share::Private,
            },
            user: match self.userns.as_deref() {
                Some("private" | "auto") => UserIds::Private,
                _ => UserIds::Host,
            },
            time: self.time_offset,
            network: None,
        }
    }

    /// Writes what was given; the network is written by its own options.
    pub fn apply(&self, spec: &mut InstanceSpec, container: &mut ContainerSpec) {
        let network = spec.namespaces.network.take();
        spec.namespaces = NamespaceSpec { network, ..self.spec() };
        spec.cgroup_parent.clone_from(&self.cgroup_parent);
        container.system = self.system;
    }
}
