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
//! - `SCMP_ACT_NOTIFY`, `intelRdt`, control groups by systemd, and checkpoints are refused here.

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

/// Runs a table by both and compares.
fn same(table: &[Case]) {
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
        assert_eq!(
            (ours.0, &ours.1),
            (theirs.0, &theirs.1),
            "{}: ours first\nour errors: {}\ntheir errors: {}",
            case.name,
            ours.2,
            theirs.2
        );
        assert!(
            !ours.1.is_empty() || ours.0 != Some(0),
            "{}: nothing was looked at",
            case.name
        );
    }
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
