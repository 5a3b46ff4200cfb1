//! What this host offers and lacks, what each lack costs the user, and what to do about it.
//!
//! `biga doctor` prints it and the agent reports it in the node's status. Nothing is assumed from a version: where
//! a thing can be tried it is tried, in namespaces that are thrown away. Only the KVM trial may take longer than a
//! few tenths of a second; it belongs to the `vm` crate and comes in as a function.

mod erofs;
mod host;
mod kernel;
mod machine;
mod net;
mod tools;

use std::path::PathBuf;

use biga_model::{Ability, AbilityState, Isolation};

pub use host::Host;

/// What `probe` needs to know.
pub struct Options<'a> {
    /// Where the host's files and programs are looked for.
    pub host: Host,
    /// The state root: its file system and free space are looked at. Need not exist.
    pub state: PathBuf,
    /// The kernel for microvms that `biga setup` fetched, whether or not it exists.
    pub guest_kernel: PathBuf,
    /// Tries whether KVM really runs a guest.
    pub kvm: &'a (dyn Fn() -> Kvm + Sync),
}

/// What came of trying KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// A guest ran to its end.
    Runs,
    /// The device is there and no guest runs; the reason.
    Broken(String),
    /// There is no device, or it may not be opened; the reason.
    Absent(String),
}

/// Looks at everything, some of it at the same time. The order of the answer is fixed: what runs instances first,
/// then network, storage, and what only some users miss.
pub fn probe(options: &Options<'_>) -> Vec<Ability> {
    let host = &options.host;
    // Each entry is slow because it starts programs or mounts; the rest only reads files.
    std::thread::scope(|scope| {
        let kvm = scope.spawn(|| machine::kvm((options.kvm)()));
        let qemu = scope.spawn(|| tools::qemu(host));
        let network = scope.spawn(|| net::trials(host));
        let storage = scope.spawn(|| vec![kernel::overlay(host), erofs::erofs(host, &options.state)]);
        let programs = scope.spawn(|| {
            vec![
                tools::qemu_img(host),
                tools::virtiofsd(host),
                tools::mkfs_ext4(host),
                tools::criu(host),
            ]
        });

        let mut found = vec![
            kernel::cgroup(host),
            kernel::namespaces(host),
            kernel::seccomp(host),
            kernel::capabilities(host),
            kernel::open_files(),
        ];
        found.extend(joined(kvm, "kvm"));
        found.extend(joined_all(qemu, "qemu"));
        found.push(machine::guest_kernel(&options.guest_kernel));
        found.extend(joined_all(network, "network"));
        found.extend([
            net::tun(host),
            net::vhost_net(host),
            net::ip_forward(host),
            net::bridge_filter(host),
        ]);
        found.extend(joined_all(storage, "storage"));
        found.push(machine::disk_space(&options.state));
        found.extend(joined_all(programs, "programs"));
        found.extend([kernel::bpf(host), kernel::io_uring(host), kernel::security_module(host)]);
        found
    })
}

/// What each isolation cannot do without, by the names of abilities.
const NEEDS: [(Isolation, &[&str]); 3] = [
    (Isolation::Container, &["cgroup", "namespaces", "overlay", "erofs"]),
    (Isolation::Microvm, &["qemu", "guest-kernel", "mkfs.ext4", "tun"]),
    (Isolation::Vm, &["qemu", "qemu-img", "tun"]),
];

/// The isolations for which everything needed is there. Without KVM machines still run, only slower.
pub fn isolations(found: &[Ability]) -> Vec<Isolation> {
    let usable = |name: &&str| {
        found
            .iter()
            .any(|a| a.name == **name && a.state != AbilityState::Missing)
    };
    NEEDS
        .iter()
        .filter(|(_, needs)| needs.iter().all(usable))
        .map(|(isolation, _)| *isolation)
        .collect()
}

/// What an isolation needs and this host does not have.
pub fn lacking(found: &[Ability], isolation: Isolation) -> impl Iterator<Item = &Ability> {
    let needs = NEEDS
        .iter()
        .filter(move |(i, _)| *i == isolation)
        .flat_map(|(_, needs)| *needs);
    needs.filter_map(|name| {
        found
            .iter()
            .find(|a| a.name == *name && a.state == AbilityState::Missing)
    })
}

/// What runs the processors of machines: `kvm`, `tcg`, or nothing where there is no QEMU.
pub fn accelerator(found: &[Ability]) -> &'static str {
    let state = |name: &str| found.iter().find(|a| a.name == name).map(|a| a.state);
    match (state("qemu"), state("kvm")) {
        (None | Some(AbilityState::Missing), _) => "",
        (_, Some(AbilityState::Ok)) => "kvm",
        _ => "tcg",
    }
}

/// `v1`, `v2` or `hybrid`; empty where no control groups are mounted.
pub fn cgroup_version(host: &Host) -> &'static str {
    kernel::cgroup_version(host)
}

fn joined(handle: std::thread::ScopedJoinHandle<'_, Ability>, name: &str) -> Vec<Ability> {
    handle.join().map(|a| vec![a]).unwrap_or_else(|_| vec![crashed(name)])
}

fn joined_all(handle: std::thread::ScopedJoinHandle<'_, Vec<Ability>>, name: &str) -> Vec<Ability> {
    handle.join().unwrap_or_else(|_| vec![crashed(name)])
}

fn crashed(name: &str) -> Ability {
    missing(
        name,
        "the check itself failed",
        "unknown",
        "please report it with the log of `biga doctor`",
    )
}

fn ok(name: &str, detail: impl Into<String>) -> Ability {
    Ability {
        name: name.into(),
        state: AbilityState::Ok,
        detail: detail.into(),
        ..Default::default()
    }
}

fn degraded(name: &str, detail: impl Into<String>, cost: impl Into<String>, remedy: impl Into<String>) -> Ability {
    Ability {
        name: name.into(),
        state: AbilityState::Degraded,
        detail: detail.into(),
        cost: cost.into(),
        remedy: remedy.into(),
    }
}

fn missing(name: &str, detail: impl Into<String>, cost: impl Into<String>, remedy: impl Into<String>) -> Ability {
    Ability {
        state: AbilityState::Missing,
        ..degraded(name, detail, cost, remedy)
    }
}

#[cfg(test)]
mod tests;
