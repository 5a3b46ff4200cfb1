//! The system call filter: Docker's default list, or a profile of the user's own, compiled to decision trees.
//!
//! - [`profile`]: profiles in the OCI form
//! - `table`: the default one
//! - [`document`]: either, written for another runtime
//! - [`Listener`]: the program that answers calls, where a profile names one
//! - `program`: from answers to a program of the kernel's

pub mod document;
mod listener;
mod names;
pub mod profile;
mod program;
mod table;

pub use listener::Listener;
pub use profile::Filter;

use crate::caps::Caps;
use program::{Answer, Table};
use table::{Condition, Rule};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Bit in the number of a call through the x32 interface.
const X32: u32 = 0x4000_0000;

/// The filter for a container with these capabilities.
///
/// 32-bit programs have the same calls allowed under their own numbers. Programs of any other architecture are refused with
/// EPERM. Calls newer than the list answer that the kernel does not have them, so that programs use older ones.
pub fn default_filter(caps: Caps) -> Filter {
    Filter {
        code: program::compile(&[table(caps, false), table(caps, true)], ERRNO | EPERM),
        flags: biga_sys::seccomp::SPEC_ALLOW,
        listener: None,
    }
}

fn table(caps: Caps, i386: bool) -> Table {
    let mut calls: Vec<(u32, Answer)> = Vec::with_capacity(450);
    for rule in table::RULES.iter().filter(|r| applies(r, caps)) {
        let answer = match &rule.action {
            table::Then::Allow => Answer::Always(ALLOW),
            table::Then::NoSys => Answer::Always(ERRNO | ENOSYS),
            table::Then::If(Condition::NoneOf(mask)) => Answer::NoneOf(*mask, ALLOW, ERRNO | EPERM),
            table::Then::If(Condition::OneOf(values)) => Answer::OneOf(values, ALLOW, ERRNO | EPERM),
        };
        if i386 {
            let narrow = |wide: &u16| {
                names::NARROW
                    .get(usize::from(*wide))
                    .copied()
                    .and_then(|n| u32::try_from(n).ok())
            };
            calls.extend(rule.calls.iter().filter_map(narrow).map(|n| (n, answer.clone())));
        } else {
            calls.extend(rule.calls.iter().map(|n| (u32::from(*n), answer.clone())));
        }
    }
    if i386 {
        let own = table::I386
            .iter()
            .filter(|(_, needs)| needs.is_empty() || caps.has(needs));
        calls.extend(
            own.flat_map(|(names, _)| *names)
                .filter_map(|name| Some((names::number(name, true)?, Answer::Always(ALLOW)))),
        );
    }
    // An unconditional permission comes before a conditional one of the same call.
    calls.sort_by_key(|(n, a)| (*n, *a != Answer::Always(ALLOW)));
    calls.dedup_by_key(|(n, _)| *n);
    Table {
        audit: if i386 { AUDIT_ARCH_I386 } else { AUDIT_ARCH_X86_64 },
        mask: None,
        default: ERRNO | EPERM,
        newer: Some((table::NEWER, ERRNO | ENOSYS)),
        calls,
    }
}

fn applies(rule: &Rule, caps: Caps) -> bool {
    let wanted = rule.needs.is_empty() || rule.needs.iter().any(|c| caps.has(c));
    wanted && !rule.lacks.iter().any(|c| caps.has(c))
}

#[cfg(test)]
mod tests {
    use super::program::tests::run;
    use super::*;

    /// What the table says, without the tree.
    fn expected(caps: Caps, number: u32, argument: u32) -> u32 {
        let mut result = ERRNO | if number >= table::NEWER { ENOSYS } else { EPERM };
        for r in table::RULES {
            if !applies(r, caps) || !r.calls.iter().any(|n| u32::from(*n) == number) {
                continue;
            }
            match &r.action {
                table::Then::Allow => return ALLOW,
                table::Then::NoSys => result = ERRNO | ENOSYS,
                table::Then::If(Condition::NoneOf(m)) if argument & m == 0 => return ALLOW,
                table::Then::If(Condition::OneOf(v)) if v.contains(&argument) => return ALLOW,
                table::Then::If(_) => {}
            }
        }
        result
    }

    #[test]
    fn the_tree_says_what_the_table_says() {
        for caps in [
            Caps::default(),
            Caps::ALL,
            Caps::parse(["SYS_ADMIN"]).unwrap(),
            Caps::parse(["SYS_CHROOT"]).unwrap(),
        ] {
            let code = default_filter(caps).code;
            for number in (0..1200).chain([X32, u32::MAX]) {
                for argument in [0, 1, 8, 0x20008, u32::MAX, 0x1000_0000, 38, 40, 11] {
                    let got = run(&code, AUDIT_ARCH_X86_64, number, [argument.into(), 0, 0, 0, 0, 0]);
                    assert_eq!(
                        got,
                        expected(caps, number, argument),
                        "call {number} with {argument:#x}"
                    );
                }
            }
            assert_eq!(
                run(&code, 0xc000_00b7, 1, [0; 6]),
                ERRNO | EPERM,
                "another architecture"
            );
            assert!(code.len() < program::MAX / 2, "{} instructions", code.len());
        }
    }

    #[test]
    fn known_answers() {
        let none = default_filter(Caps::default()).code;
        let ask = |n: u32, arg: u64| run(&none, AUDIT_ARCH_X86_64, n, [arg, 0, 0, 0, 0, 0]);
        assert_eq!(ask(0, 0), ALLOW, "read");
        assert_eq!(ask(165, 0), ERRNO | EPERM, "mount");
        assert_eq!(ask(435, 0), ERRNO | ENOSYS, "clone3");
        assert_eq!(ask(56, 17), ALLOW, "clone of a plain process");
        assert_eq!(ask(56, 0x1000_0000), ERRNO | EPERM, "clone with a user namespace");
        assert_eq!(ask(41, 2), ALLOW, "an internet socket");
        assert_eq!(ask(41, 38), ERRNO | EPERM, "AF_ALG");
        assert_eq!(ask(425, 0), ERRNO | EPERM, "io_uring_setup");
    }

    #[test]
    fn programs_of_32_bits() {
        let none = default_filter(Caps::default()).code;
        let ask = |name: &str, arg: u64| {
            let n = names::number(name, true).unwrap();
            run(&none, AUDIT_ARCH_I386, n, [arg, 0, 0, 0, 0, 0])
        };
        for name in [
            "read",
            "mmap2",
            "stat64",
            "socketcall",
            "clock_gettime64",
            "waitpid",
            "exit_group",
            "chown32",
        ] {
            assert_eq!(ask(name, 0), ALLOW, "{name}");
        }
        for name in ["mount", "umount", "stime", "init_module", "io_uring_setup", "vm86"] {
            assert_eq!(ask(name, 0), ERRNO | EPERM, "{name}");
        }
        assert_eq!(ask("clone3", 0), ERRNO | ENOSYS);
        assert_eq!((ask("clone", 17), ask("clone", 0x1000_0000)), (ALLOW, ERRNO | EPERM));
        assert_eq!((ask("socket", 2), ask("socket", 38)), (ALLOW, ERRNO | EPERM));
        let time = default_filter(Caps::parse(["SYS_TIME"]).unwrap()).code;
        assert_eq!(
            run(&time, AUDIT_ARCH_I386, names::number("stime", true).unwrap(), [0; 6]),
            ALLOW
        );
    }

    #[test]
    fn the_names_are_sorted_and_agree_with_the_table() {
        assert!(names::NAMES.windows(2).all(|w| w[0].0 < w[1].0));
        for (wide, narrow, name) in [(0, 3, "read"), (435, 435, "clone3"), (41, 359, "socket")] {
            assert_eq!(names::number(name, false), Some(wide));
            assert_eq!(names::number(name, true), Some(narrow));
            assert_eq!(names::NARROW[wide as usize] as u32, narrow);
        }
        let own = table::I386.iter().flat_map(|(names, _)| *names);
        assert!(own.clone().all(|n| names::number(n, true).is_some()));
    }
}
