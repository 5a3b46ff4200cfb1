//! The same bundles run by our runtime and by `runc`, with the same outcome: what is seen inside, and how it ends.
//!
//! Known differences, kept out of the cases:
//!
//! - `runc` passes a program's output through pipes of its own; here the program has the caller's descriptors.
//! - On control groups of version 1 `runc` joins every hierarchy; here `cpu`, `cpuset` and others only where a limit asks for them.
//! - `runc` drops silently what it does not know in `process` (`scheduler`, `ioPriority`, `execCPUAffinity` in older ones), a
//!   `selinuxLabel` on a host without SELinux, and capabilities that the kernel has not; here the first are carried out, the label
//!   is refused, and a warning names the capabilities.
//! - `runc` before 1.2 has no time namespace and no `domainname`.
//! - A container without a mount namespace is refused here: `runc` makes its mounts on the host.
//! - Without `rootfsPropagation`, on a host whose root is shared, `runc`'s root follows the host's mounts (slave); here it is private.
//! - With `rootfsPropagation: rshared` the root is shared here, as by `crun`; `runc` leaves it private.
//! - The directory that holds the control groups of version 1 can be written under `runc`.
//! - Debian 12's `runc` leaves descriptors open in the container (CVE-2024-21626); here there are none but the three.
//! - `runc` hands on signals that its caller ignored; here a program begins with none.
//! - A masked file is read-only here; `runc`'s is a writable null device.
//! - With ids of its own and a writable view of its control group of version 2, a container may make groups below it here, as the
//!   specification has it; `runc` leaves the group to the host's root unless systemd makes it.
//! - `intelRdt` and control groups by systemd are refused here.

use std::path::Path;

use serde_json::Value;

use crate::cases;
use crate::support::{Bundle, Runtime};

/// One variation of the configuration and what to look at inside.
pub struct Case {
    pub name: &'static str,
    pub change: fn(&mut Value, &Path),
    pub script: &'static str,
}

/// Runs a table by both and compares. All of it, for a guest is slow to start again.
fn same(table: &[Case]) {
    let mut differences = String::new();
    for case in table {
        let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
            let bundle = Bundle::sh(runtime, case.script).with(case.change);
            let outcome = bundle.run();
            let own = |text: &str| {
                text.replace(&bundle.id, "ID")
                    .replace(&bundle.dir.display().to_string(), "DIR")
            };
            (outcome.code, own(&outcome.out), outcome.err)
        });
        if (ours.0, &ours.1) != (theirs.0, &theirs.1) {
            differences += &format!("{}:\n  ours:   {ours:?}\n  theirs: {theirs:?}\n", case.name);
        }
        assert!(
            !ours.1.is_empty() || ours.0 != Some(0),
            "{}: nothing was looked at",
            case.name
        );
    }
    assert!(differences.is_empty(), "{differences}");
}

/// Configurations that both refuse, without leaving anything.
fn both_refuse(table: &[(&str, cases::Change)]) {
    for (name, change) in table {
        for runtime in [Runtime::Ours, Runtime::Runc] {
            let bundle = Bundle::sh(runtime, "echo it ran").with(*change);
            let outcome = bundle.run();
            assert_ne!(outcome.code, Some(0), "{name} by {runtime:?}: {outcome:?}");
            assert!(!outcome.out.contains("it ran"), "{name} by {runtime:?}: {outcome:?}");
            if runtime == Runtime::Ours {
                assert!(!outcome.err.is_empty(), "{name}: no reason is given");
                let left = bundle.dir.join("state").join(&bundle.id);
                assert!(!left.exists(), "{name}: {} is left", left.display());
            }
        }
    }
}

#[test]
fn processes_are_the_same() {
    same(cases::PROCESS);
}

#[test]
fn mounts_are_the_same() {
    same(cases::MOUNTS);
}

#[test]
fn namespaces_are_the_same() {
    same(cases::NAMESPACES);
}

#[test]
fn devices_and_limits_are_the_same() {
    same(cases::RESOURCES);
}

#[test]
fn filters_are_the_same() {
    same(cases::FILTERS);
}

#[test]
fn what_is_refused_is_the_same() {
    both_refuse(cases::REFUSED);
}

/// Whether this host's control groups are of version 2; `scripts/guest-tests` has a host of that kind.
fn version_2() -> bool {
    let v2 = biga_container::cgroup::version() == biga_container::cgroup::Version::V2;
    if !v2 {
        eprintln!("this host's control groups are of version 1");
    }
    v2
}

#[test]
fn control_groups_of_version_2_are_the_same() {
    if version_2() {
        same(cases::VERSION_2);
    }
}

/// Words of a container that runs, after each change of its life.
#[test]
fn changes_on_version_2_are_the_same() {
    if !version_2() {
        return;
    }
    let read = "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max; cat /proc/self/cgroup";
    let first = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":16777216},"cpu":{"shares":300,"quota":50000,"period":100000,
        "cpus":"0"},"pids":{"limit":40}}"#;
    let second = r#"{"memory":{"limit":134217728,"swap":134217728},"cpu":{"shares":1024,"quota":-1,"period":100000},"pids":{"limit":-1}}"#;
    let [ours, theirs] = [Runtime::Ours, Runtime::Runc].map(|runtime| {
        let b = Bundle::sh(runtime, "sleep 1000");
        b.up();
        let mut words = Vec::new();
        for change in [first, second] {
            std::fs::write(b.dir.join("change"), change).unwrap();
            b.must(&["update", "-r", b.dir.join("change").to_str().unwrap(), &b.id]);
            words.push(b.exec(read).ok());
        }
        let frozen = || {
            let events = format!("/sys/fs/cgroup/{}/cgroup.events", b.id);
            std::fs::read_to_string(events)
                .unwrap()
                .contains("frozen 1")
                .to_string()
        };
        for verb in ["pause", "resume"] {
            b.must(&[verb, &b.id]);
            words.extend([frozen(), b.status()]);
        }
        let stats: Value = serde_json::from_str(&b.must(&["events", "--stats", &b.id])).unwrap();
        for field in ["/data/pids/current", "/data/memory/usage/limit", "/data/cpu/throttling"] {
            let value = stats.pointer(field);
            words.push(format!("{field}: {}", value.is_some()));
        }
        // Frozen or not: all of it ends.
        b.must(&["exec", "-d", &b.id, "sleep", "2000"]);
        b.must(&["pause", &b.id]);
        b.must(&["delete", "--force", &b.id]);
        words.push(Path::new("/sys/fs/cgroup").join(&b.id).exists().to_string());
        words
    });
    assert_eq!(ours, theirs, "ours first");
    assert_eq!(ours.last().map(String::as_str), Some("false"), "nothing is left");
}

#[test]
fn ids_of_its_own_may_make_groups_below() {
    if !version_2() {
        return;
    }
    let script = "cd /sys/fs/cgroup; stat -c '%u %n' . cgroup.procs cgroup.subtree_control cgroup.threads pids.max; \
        mkdir a b && echo $$ >a/cgroup.procs && echo +pids >cgroup.subtree_control && echo 5 >b/pids.max && cat b/pids.max; \
        cat /proc/self/cgroup; (echo 3 >pids.max) 2>&1";
    let bundle = Bundle::sh(Runtime::Ours, script).with(|c, dir| {
        cases::own_groups(c);
        cases::map_ids(c, dir);
    });
    let outcome = bundle.run();
    let own = "0 .\n0 cgroup.procs\n0 cgroup.subtree_control\n0 cgroup.threads\n65534 pids.max\n5\n0::/a\n";
    assert_eq!(
        outcome.out,
        format!("{own}sh: can't create pids.max: Permission denied\n"),
        "{outcome:?}"
    );
}
