//! Other hosts shown to the probe as small trees of files, and this host as it is.

use std::collections::HashSet;
use std::path::Path;

use super::*;

/// A host made of files.
struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Fake {
        Fake(tempfile::tempdir().expect("temporary directory"))
    }

    fn file(self, path: &str, text: &str) -> Fake {
        let path = self.0.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("directories");
        std::fs::write(path, text).expect("file");
        self
    }

    /// A shell script in the search path. Another process writes it: a program that this process holds open for
    /// writing, if only in a child that a parallel test is just forking, cannot be executed.
    fn script(self, name: &str, body: &str) -> Fake {
        let dir = self.0.path().join("bin");
        std::fs::create_dir_all(&dir).expect("directory");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
        let status = std::process::Command::new("sh")
            .args(["-c", write, "sh"])
            .arg(dir.join(name))
            .arg(body)
            .status();
        assert!(status.expect("sh").success());
        self
    }

    fn host(&self) -> Host {
        Host {
            root: self.0.path().into(),
            path: vec![self.0.path().join("bin")],
        }
    }
}

const V1: &str = "\
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/cpuacct cgroup rw,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0
";

#[test]
fn a_hybrid_host_lacks_what_neither_hierarchy_has() {
    let fake = Fake::new()
        .file(
            "/proc/self/mounts",
            &format!("{V1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"),
        )
        .file("/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
    let found = kernel::cgroup(&fake.host());
    assert_eq!(found.state, AbilityState::Degraded);
    assert_eq!(found.detail, "hybrid, without devices");
    assert!(found.cost.contains("devices a container may open"), "{}", found.cost);
}

#[test]
fn a_v1_host_with_every_controller_is_whole() {
    let mounts = format!("{V1}cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0\n");
    let fake = Fake::new().file("/proc/self/mounts", &mounts);
    assert_eq!(kernel::cgroup(&fake.host()), ok("cgroup", "v1"));
}

#[test]
fn a_v2_host_needs_no_v1_controllers() {
    let fake = Fake::new()
        .file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
        .file(
            "/sys/fs/cgroup/cgroup.controllers",
            "cpuset cpu io memory hugetlb pids rdma misc\n",
        );
    assert_eq!(kernel::cgroup(&fake.host()), ok("cgroup", "v2"));
    assert_eq!(cgroup_version(&fake.host()), "v2");
}

#[test]
fn a_v2_host_without_the_memory_controller_says_what_that_costs() {
    let fake = Fake::new()
        .file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
        .file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
    let found = kernel::cgroup(&fake.host());
    assert_eq!(
        (found.state, found.detail.as_str()),
        (AbilityState::Degraded, "v2, without memory")
    );
    assert_eq!(found.cost, "not to be had: memory limits and figures");
}

#[test]
fn a_host_without_control_groups_cannot_run_containers() {
    let fake = Fake::new().file("/proc/self/mounts", "proc /proc proc rw 0 0\nbroken line\n");
    assert_eq!(kernel::cgroup(&fake.host()).state, AbilityState::Missing);
    assert_eq!(cgroup_version(&fake.host()), "");
}

#[test]
fn capabilities_are_named() {
    let status = |mask: u64| format!("Name:\tx\nCapEff:\t{mask:016x}\nCapBnd:\t{mask:016x}\n");
    let all = (1u64 << 41) - 1;
    let with = |mask| {
        let fake = Fake::new()
            .file("/proc/self/status", &status(mask))
            .file("/proc/sys/kernel/cap_last_cap", "40\n");
        kernel::capabilities(&fake.host())
    };
    assert_eq!(with(all), ok("capabilities", "all"));
    let found = with(all & !(1 << 24));
    assert_eq!(
        (found.state, found.detail.as_str()),
        (AbilityState::Degraded, "this process lacks SYS_RESOURCE")
    );
    let found = with(all & !(1 << 21) & !(1 << 24));
    assert_eq!(
        (found.state, found.detail.as_str()),
        (AbilityState::Missing, "this process lacks SYS_ADMIN")
    );
}

#[test]
fn a_capability_newer_than_the_table_is_no_error() {
    let fake = Fake::new()
        .file(
            "/proc/self/status",
            "CapEff:\tffffffffffffffff\nCapBnd:\tffffffffffffffff\n",
        )
        .file("/proc/sys/kernel/cap_last_cap", "50\n");
    assert_eq!(kernel::capabilities(&fake.host()).state, AbilityState::Ok);
}

#[test]
fn versions_are_read_from_what_programs_really_say() {
    for (text, want) in [
        (
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)",
            Some(("7.2.22", (7, 2))),
        ),
        (
            "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright (c) 2003-2025",
            Some(("10.0.2", (10, 0))),
        ),
        ("Version: 4.1\n", Some(("4.1", (4, 1)))),
        ("no number", None),
        ("", None),
        (".. 1", None),
    ] {
        let found = tools::version_in(text);
        assert_eq!(found.as_ref().map(|(v, n)| (v.as_str(), *n)), want, "{text:?}");
    }
}

#[test]
fn an_old_qemu_is_degraded_and_a_broken_one_missing() {
    let old = Fake::new().script("qemu-system-x86_64", "echo QEMU emulator version 4.2.1");
    assert_eq!(tools::qemu(&old.host())[0].state, AbilityState::Degraded);
    let broken = Fake::new().script("qemu-system-x86_64", "echo cannot load libfoo >&2; exit 127");
    let found = &tools::qemu(&broken.host())[0];
    assert_eq!(
        (found.state, found.detail.as_str()),
        (AbilityState::Missing, "cannot load libfoo")
    );
    let none = Fake::new();
    assert_eq!(tools::qemu(&none.host())[0].detail, "no qemu-system-x86_64");
}

#[test]
fn dockers_forward_drop_is_noticed() {
    let docker = Fake::new()
        .script("iptables", "echo '-P FORWARD DROP'; echo '-A FORWARD -j DOCKER-USER'")
        .file("/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n");
    let found = net::bridge_filter(&docker.host());
    assert_eq!(found.state, AbilityState::Degraded);
    assert!(found.cost.contains("each other"), "{}", found.cost);
    let open = Fake::new().script("iptables", "echo '-P FORWARD ACCEPT'");
    assert_eq!(net::bridge_filter(&open.host()).state, AbilityState::Ok);
    let nft = Fake::new().script(
        "nft",
        "echo 'chain FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    assert_eq!(net::bridge_filter(&nft.host()).state, AbilityState::Degraded);
}

#[test]
fn refused_rules_are_told_in_nfts_own_words() {
    let fake = Fake::new()
        .script(
            "nft",
            "cat >/dev/null; echo 'Error: Could not process rule: No such file or directory' >&2; exit 1",
        )
        .script("ip", "cat >/dev/null");
    let found = net::trials(&fake.host());
    assert_eq!(found[0].state, AbilityState::Missing);
    assert!(
        found[0].detail.contains("Could not process rule"),
        "{}",
        found[0].detail
    );
    assert_eq!(found[1], ok("bridge", "with veth pairs"));
}

#[test]
fn a_program_with_much_to_say_does_not_block_the_probe() {
    let fake = Fake::new().script("criu", "head -c 3000000 /dev/zero | tr '\\0' x; echo Version: 4.1");
    // Its version lies beyond what is read; that it ends at all is the point.
    assert_eq!(tools::criu(&fake.host()).state, AbilityState::Degraded);
}

#[test]
fn criu_is_asked_whether_it_works_here() {
    let check = |answer: &str| format!("case $1 in check) {answer};; *) echo Version: 3.17.1;; esac");
    let fails = check("echo 'Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds' >&2; exit 1");
    let broken = tools::criu(&Fake::new().script("criu", &fails).host());
    assert_eq!(broken.state, AbilityState::Degraded);
    assert!(
        broken.detail.contains("3.17.1") && broken.detail.contains("Unexpected rt vDSO area bounds"),
        "{broken:?}"
    );
    let works = tools::criu(&Fake::new().script("criu", &check("exit 0")).host());
    assert_eq!(works.state, AbilityState::Ok, "{works:?}");
    assert_eq!(tools::criu(&Fake::new().host()).state, AbilityState::Missing);
}

#[test]
fn kvm_says_why_it_does_not_run() {
    assert_eq!(machine::kvm(Kvm::Runs).state, AbilityState::Ok);
    let broken = machine::kvm(Kvm::Broken("emulation failure".into()));
    assert_eq!(broken.state, AbilityState::Degraded);
    assert!(
        broken.detail.ends_with("emulation failure") && broken.cost.contains("TCG"),
        "{broken:?}"
    );
    assert_eq!(
        machine::kvm(Kvm::Absent("no /dev/kvm".into())).state,
        AbilityState::Missing
    );
}

#[test]
fn space_is_looked_for_where_the_state_will_be() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let found = machine::disk_space(&dir.path().join("not/yet/there"));
    assert_ne!(found.state, AbilityState::Missing);
    assert!(
        found.detail.ends_with(&dir.path().display().to_string()),
        "{}",
        found.detail
    );
}

#[test]
fn an_isolation_is_offered_only_with_all_it_needs() {
    let list = |names: &[&str]| names.iter().map(|n| ok(n, "")).collect::<Vec<_>>();
    let container = list(&["cgroup", "namespaces", "overlay", "erofs"]);
    assert_eq!(isolations(&container), [Isolation::Container]);
    assert_eq!(isolations(&list(&["qemu", "qemu-img", "tun"])), [Isolation::Vm]);
    let mut less = container.clone();
    less[0].state = AbilityState::Degraded;
    assert_eq!(isolations(&less), [Isolation::Container]);
    less[0].state = AbilityState::Missing;
    assert_eq!(isolations(&less), []);
    assert_eq!(accelerator(&list(&["qemu", "kvm"])), "kvm");
    assert_eq!(accelerator(&list(&["qemu"])), "tcg");
    assert_eq!(accelerator(&list(&["kvm"])), "");
}

#[test]
fn this_host_is_probed_and_nothing_is_left_behind() {
    let options = Options {
        host: Host::default(),
        state: "/var/lib/biga".into(),
        guest_kernel: "/nonexistent/vmlinux".into(),
        kvm: &|| Kvm::Absent("not tried here".into()),
    };
    let found = probe(&options);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains("biga-probe"), "{mounts}");
    assert!(!Path::new("/sys/class/net/bp0").exists());

    let names: HashSet<_> = found.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names.len(), found.len(), "a name stands twice");
    for needed in NEEDS.iter().flat_map(|(_, needs)| *needs) {
        assert!(names.contains(needed), "{needed} is needed and not looked at");
    }
    for ability in &found {
        let whole = ability.state == AbilityState::Ok;
        assert_eq!(ability.cost.is_empty(), whole, "{ability:?}");
        assert_eq!(ability.remedy.is_empty(), whole, "{ability:?}");
        assert!(!ability.detail.is_empty(), "{ability:?}");
    }
    assert!(
        !isolations(&found).contains(&Isolation::Microvm),
        "there is no guest kernel"
    );
}

/// The trials need root, as all of Biga does; a host that runs these tests runs containers.
#[test]
fn what_this_host_can_do_is_found_to_work() {
    for ability in [
        kernel::overlay(&Host::default()),
        erofs::erofs(&Host::default(), Path::new("/var/lib/biga")),
    ] {
        assert_ne!(ability.state, AbilityState::Missing, "{ability:?}");
    }
    for ability in net::trials(&Host::default()) {
        assert_eq!(ability.state, AbilityState::Ok, "{ability:?}");
    }
}

#[test]
fn the_trial_image_is_whole() {
    let image = erofs::image();
    assert_eq!(image.len(), 4096);
    // Magic number at 1024, little endian; see `fs/erofs/erofs_fs.h`.
    assert_eq!(image[1024..1028], 0xE0F5_E1E2u32.to_le_bytes());
}
