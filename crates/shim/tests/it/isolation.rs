//! What a container cannot see or do.

use crate::support::Rig;

#[test]
fn namespaces_are_its_own() {
    let rig = Rig::sh("for n in pid mnt ipc uts net cgroup; do readlink /proc/self/ns/$n; done; ps | wc -l; cat /proc/self/cgroup; ip -o link | wc -l; ip -o link").run();
    let (exit, log) = rig;
    assert_eq!(exit.code, 0, "{log}");
    for (line, name) in log.lines().zip(["pid", "mnt", "ipc", "uts", "net", "cgroup"]) {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, host.to_str().unwrap(), "{name}");
        assert!(line.starts_with(name));
    }
    assert!(!log.contains("bigatest"), "the host's control groups are hidden: {log}");
    assert!(log.contains("lo:") && log.contains("UP"), "{log}");
}

#[test]
fn the_hosts_network_can_be_kept() {
    let (_, log) = Rig::new(&["readlink", "/proc/self/ns/net"])
        .with(|c| c.host_network = true)
        .run();
    assert_eq!(
        log.trim(),
        std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()
    );
}

#[test]
fn nothing_of_the_host_is_open() {
    let (_, log) = Rig::sh("ls /proc/self/fd").run();
    // The fourth is the directory that ls reads.
    assert_eq!(log, "0\n1\n2\n3\n");
    let rig = Rig::new(&["sleep", "1000"]).up();
    assert_eq!(rig.exec(&["ls", "/proc/self/fd"]).1, "0\n1\n2\n3\n");
}

#[test]
fn nothing_of_the_host_is_mounted() {
    let (_, log) = Rig::new(&["cat", "/proc/self/mountinfo"]).run();
    let root: Vec<&str> = log.lines().filter(|l| l.split(' ').nth(4) == Some("/")).collect();
    assert_eq!(root.len(), 1, "{log}");
    assert!(root[0].contains(" overlay "), "{log}");
    assert!(
        !log.lines().any(|l| l
            .split(' ')
            .nth(4)
            .is_some_and(|m| m.starts_with("/work") || m.starts_with("/var"))),
        "{log}"
    );
}

#[test]
fn kernel_files_are_masked_or_read_only() {
    let script =
        "for f in kcore keys timer_list interrupts; do test -e /proc/$f && test -s /proc/$f && echo shown $f; done
        head -c 1 /proc/timer_list | wc -c; ls /sys/firmware | wc -l
        mkdir /sys/x 2>&1; echo x 2>&1 > /proc/sys/kernel/hostname; grep -E ' /proc/(sys|irq|fs|bus) ' /proc/mounts";
    let (_, log) = Rig::sh(script).run();
    assert!(log.starts_with("0\n0\n"), "{log}");
    assert!(log.matches("Read-only").count() >= 2, "{log}");
    let protected: Vec<&str> = log
        .lines()
        .filter(|l| l.contains(" /proc/") && l.contains(" proc "))
        .collect();
    assert!(
        protected.len() >= 3 && protected.iter().all(|l| l.contains(" ro,")),
        "{log}"
    );
}

#[test]
fn the_filter_blocks_calls() {
    for seccomp in [true, false] {
        // With the capability, only the filter can refuse: unsharing a user namespace needs none.
        let (exit, log) = Rig::new(&["unshare", "-U", "true"]).with(|c| c.seccomp = seccomp).run();
        assert_eq!(exit.code == 0, !seccomp, "{log}");
    }
}

#[test]
fn privileged_has_all_the_host_has() {
    let (exit, log) = Rig::sh("grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg; touch /proc/sys/kernel/hostname && echo writable")
        .with(|c| c.privileged = true)
        .run();
    assert_eq!(exit.code, 0, "{log}");
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    let caps = host
        .lines()
        .find(|l| l.starts_with("CapPrm"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap();
    assert!(log.contains(caps), "{log}");
    assert!(
        log.contains("Seccomp:\t0") && log.contains("mounted") && log.contains("writable"),
        "{log}"
    );
}

#[test]
fn resource_limits_are_applied_and_clamped() {
    let (exit, log) = Rig::sh("ulimit -n; ulimit -c")
        .with(|c| {
            c.process.rlimits.insert("nofile".into(), (512, 1 << 30));
            c.process.rlimits.insert("core".into(), (0, 0));
        })
        .run();
    assert_eq!((exit.code, log.as_str()), (0, "512\n0\n"));
}

#[test]
fn kernel_parameters() {
    let (_, log) = Rig::new(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
        .with(|c| {
            c.sysctls
                .insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
        })
        .run();
    assert_eq!(log, "7\n");
    let mut rig = Rig::new(&["true"]).with(|c| {
        c.sysctls.insert("kernel.panic".into(), "1".into());
    });
    let reply = rig.launch();
    assert!(
        matches!(&reply, biga_wire::shim::Reply::Error { message, .. } if message.contains("kernel.panic")),
        "{reply:?}"
    );
}
