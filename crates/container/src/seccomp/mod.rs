//! The default system call filter: Docker's list, compiled to a balanced decision tree.
//!
//! The kernel runs the filter over every system call number when it is installed (to remember which are always
//! allowed), so a tree of depth 8 instead of a chain of 350 comparisons makes each start cheaper, too.

mod table;

use biga_sys::seccomp::Insn;

use crate::caps::Caps;
use table::{Condition, Rule};

// Opcodes of classic BPF.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

const fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

/// What to do with a run of system call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Deny,
    Allow,
    NoSys,
    If(Condition),
}

/// The filter for a container with these capabilities.
///
/// Programs of another architecture (32-bit) are refused with EPERM: their system calls have other numbers.
pub fn default_filter(caps: Caps) -> Vec<Insn> {
    let ranges = ranges(caps);
    let mut code = vec![
        insn(LOAD, 0, 0, ARCH),
        insn(JUMP_EQ, 1, 0, AUDIT_ARCH_X86_64),
        insn(RETURN, 0, 0, ERRNO | EPERM),
        insn(LOAD, 0, 0, NUMBER),
    ];
    tree(&ranges, &mut code);
    code
}

/// Runs of numbers with one action: each begins at its number and reaches to the next; the first begins at 0.
fn ranges(caps: Caps) -> Vec<(u32, Action)> {
    let mut actions: Vec<(u32, Action)> = Vec::with_capacity(420);
    for Rule {
        calls,
        needs,
        lacks,
        action,
    } in table::RULES
    {
        let wanted = needs.is_empty() || needs.iter().any(|c| caps.has(c));
        if !wanted || lacks.iter().any(|c| caps.has(c)) {
            continue;
        }
        let action = match action {
            table::Then::Allow => Action::Allow,
            table::Then::NoSys => Action::NoSys,
            table::Then::If(c) => Action::If(*c),
        };
        actions.extend(calls.iter().map(|n| (*n as u32, action)));
    }
    // An unconditional permission comes before a conditional one of the same call.
    actions.sort_unstable_by_key(|(n, a)| (*n, *a != Action::Allow));
    actions.dedup_by_key(|(n, _)| *n);
    let mut runs: Vec<(u32, Action)> = vec![(0, Action::Deny)];
    let mut next = 0;
    for (n, action) in actions {
        if n > next {
            push(&mut runs, next, Action::Deny);
        }
        push(&mut runs, n, action);
        next = n + 1;
    }
    push(&mut runs, next, Action::Deny);
    runs
}

fn push(runs: &mut Vec<(u32, Action)>, from: u32, action: Action) {
    match runs.last_mut() {
        Some((start, last)) if *start == from => *last = action,
        Some((_, last)) if *last == action => {}
        _ => runs.push((from, action)),
    }
}

fn tree(runs: &[(u32, Action)], code: &mut Vec<Insn>) {
    if let [(_, action)] = runs {
        leaf(*action, code);
        return;
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let mut left = Vec::new();
    tree(low, &mut left);
    // Numbers from the pivot on skip the left part; a long way needs a jump of its own.
    if let Ok(skip) = u8::try_from(left.len()) {
        code.push(insn(JUMP_GE, skip, 0, high[0].0));
    } else {
        code.push(insn(JUMP_GE, 0, 1, high[0].0));
        code.push(insn(JUMP, 0, 0, left.len() as u32));
    }
    code.append(&mut left);
    tree(high, code);
}

fn leaf(action: Action, code: &mut Vec<Insn>) {
    match action {
        Action::Allow => code.push(insn(RETURN, 0, 0, ALLOW)),
        Action::Deny => code.push(insn(RETURN, 0, 0, ERRNO | EPERM)),
        Action::NoSys => code.push(insn(RETURN, 0, 0, ERRNO | ENOSYS)),
        Action::If(Condition::NoneOf(mask)) => code.extend([
            insn(LOAD, 0, 0, ARGUMENT),
            insn(AND, 0, 0, mask),
            insn(JUMP_EQ, 0, 1, 0),
            insn(RETURN, 0, 0, ALLOW),
            insn(RETURN, 0, 0, ERRNO | EPERM),
        ]),
        Action::If(Condition::OneOf(values)) => {
            code.push(insn(LOAD, 0, 0, ARGUMENT));
            for (i, v) in values.iter().enumerate() {
                // To the permission behind the refusal behind the other comparisons.
                code.push(insn(JUMP_EQ, (values.len() - i) as u8, 0, *v));
            }
            code.push(insn(RETURN, 0, 0, ERRNO | EPERM));
            code.push(insn(RETURN, 0, 0, ALLOW));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use biga_sys::seccomp::Insn;

    /// A small interpreter of the opcodes used.
    fn run(code: &[Insn], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut pc, mut acc) = (0, 0);
        loop {
            let i = code[pc];
            pc += 1;
            match i.code {
                LOAD => {
                    acc = match i.k {
                        NUMBER => number,
                        ARCH => arch,
                        ARGUMENT => argument,
                        k => panic!("load of {k}"),
                    }
                }
                AND => acc &= i.k,
                JUMP => pc += i.k as usize,
                JUMP_EQ => pc += if acc == i.k { i.jt } else { i.jf } as usize,
                JUMP_GE => pc += if acc >= i.k { i.jt } else { i.jf } as usize,
                RETURN => return i.k,
                c => panic!("opcode {c:#x}"),
            }
        }
    }

    /// What the table says, without the tree.
    fn expected(caps: Caps, number: u32, argument: u32) -> u32 {
        let mut result = ERRNO | EPERM;
        for r in table::RULES {
            let applies =
                (r.needs.is_empty() || r.needs.iter().any(|c| caps.has(c))) && !r.lacks.iter().any(|c| caps.has(c));
            if !applies || !r.calls.iter().any(|n| *n as u32 == number) {
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
            let code = default_filter(caps);
            for number in (0..1200).chain([0x4000_0000, u32::MAX]) {
                for argument in [0, 1, 8, 0x20008, u32::MAX, 0x1000_0000, 38, 40, 11] {
                    let got = run(&code, AUDIT_ARCH_X86_64, number, argument);
                    assert_eq!(
                        got,
                        expected(caps, number, argument),
                        "call {number} with {argument:#x}"
                    );
                }
            }
            assert_eq!(run(&code, 0x4000_0003, 1, 0), ERRNO | EPERM, "another architecture");
        }
    }

    #[test]
    fn known_answers() {
        let none = default_filter(Caps::default());
        let ask = |n: u32, arg| run(&none, AUDIT_ARCH_X86_64, n, arg);
        assert_eq!(ask(0, 0), ALLOW, "read");
        assert_eq!(ask(165, 0), ERRNO | EPERM, "mount");
        assert_eq!(ask(435, 0), ERRNO | ENOSYS, "clone3");
        assert_eq!(ask(56, 17), ALLOW, "clone of a plain process");
        assert_eq!(ask(56, 0x1000_0000), ERRNO | EPERM, "clone with a user namespace");
        assert_eq!(ask(41, 2), ALLOW, "an internet socket");
        assert_eq!(ask(41, 38), ERRNO | EPERM, "AF_ALG");
        assert_eq!(ask(425, 0), ERRNO | EPERM, "io_uring_setup");
    }
}
