//! From answers for system calls to a program of classic BPF: a balanced decision tree for each architecture.
//!
//! The kernel runs the filter over every system call number when it is installed (to remember which are always
//! allowed), so a tree of depth 9 instead of a chain of 400 comparisons makes each start cheaper, too.

use biga_sys::seccomp::Insn;

// Opcodes of classic BPF.
pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQ: u16 = 0x15;
pub(super) const JUMP_GT: u16 = 0x25;
pub(super) const JUMP_GE: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data; arguments are eight bytes each, the low half first.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// The most instructions the kernel takes.
pub(super) const MAX: usize = 4096;

const fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// The argument under the mask `value` is `second`.
    MaskedEq,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub argument: u8,
    pub op: Op,
    pub value: u64,
    pub second: u64,
}

/// Comparisons that must all hold, and the answer then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch {
    pub tests: Vec<Test>,
    pub then: u32,
}

/// What a system call is answered with. Numbers are values of `SECCOMP_RET_*` with their data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Always(u32),
    /// The low half of the first argument is one of these.
    OneOf(&'static [u32], u32, u32),
    /// No bit of the mask is set in the low half of the first argument.
    NoneOf(u32, u32, u32),
    /// The first branch that holds, or else the number.
    Branches(Vec<Branch>, u32),
}

/// The answers of one architecture.
#[derive(Debug)]
pub(super) struct Table {
    /// `AUDIT_ARCH_*`.
    pub audit: u32,
    /// Bits taken off the number first: programs with the x32 interface mark theirs.
    pub mask: Option<u32>,
    /// For numbers without one of their own.
    pub default: u32,
    /// From this number on (calls newer than the list) another answer than `default`.
    pub newer: Option<(u32, u32)>,
    /// By number; a number stands there once.
    pub calls: Vec<(u32, Answer)>,
}

/// The whole program. Other architectures than those of `tables` get `other`.
pub(super) fn compile(tables: &[Table], other: u32) -> Vec<Insn> {
    let mut code = vec![insn(LOAD, 0, 0, ARCH)];
    for table in tables {
        let mut body = vec![insn(LOAD, 0, 0, NUMBER)];
        if let Some(mask) = table.mask {
            body.push(insn(AND, 0, 0, mask));
        }
        tree(&runs(table), &mut body);
        code.push(insn(JUMP_EQ, 1, 0, table.audit));
        code.push(insn(JUMP, 0, 0, body.len() as u32));
        code.append(&mut body);
    }
    code.push(insn(RETURN, 0, 0, other));
    code
}

/// Runs of numbers with one answer: each begins at its number and reaches to the next; the first begins at 0.
fn runs(table: &Table) -> Vec<(u32, Answer)> {
    let mut calls: Vec<&(u32, Answer)> = table.calls.iter().collect();
    calls.sort_by_key(|(n, _)| *n);
    let default = Answer::Always(table.default);
    let mut runs: Vec<(u32, Answer)> = vec![(0, default.clone())];
    let mut next = 0;
    for (n, answer) in calls {
        if *n > next {
            push(&mut runs, next, &default);
        }
        push(&mut runs, *n, answer);
        next = n + 1;
    }
    push(&mut runs, next, &default);
    if let Some((from, answer)) = table.newer {
        push(&mut runs, from.max(next), &Answer::Always(answer));
    }
    runs
}

fn push(runs: &mut Vec<(u32, Answer)>, from: u32, answer: &Answer) {
    match runs.last_mut() {
        Some((start, last)) if *start == from => *last = answer.clone(),
        Some((_, last)) if last == answer => {}
        _ => runs.push((from, answer.clone())),
    }
}

fn tree(runs: &[(u32, Answer)], code: &mut Vec<Insn>) {
    if let [(_, answer)] = runs {
        leaf(answer, code);
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

fn leaf(answer: &Answer, code: &mut Vec<Insn>) {
    match answer {
        Answer::Always(r) => code.push(insn(RETURN, 0, 0, *r)),
        Answer::NoneOf(mask, yes, no) => code.extend([
            insn(LOAD, 0, 0, ARGUMENTS),
            insn(AND, 0, 0, *mask),
            insn(JUMP_EQ, 0, 1, 0),
            insn(RETURN, 0, 0, *yes),
            insn(RETURN, 0, 0, *no),
        ]),
        Answer::OneOf(values, yes, no) => {
            code.push(insn(LOAD, 0, 0, ARGUMENTS));
            for (i, v) in values.iter().enumerate() {
                // To the permission behind the refusal behind the other comparisons.
                code.push(insn(JUMP_EQ, (values.len() - i) as u8, 0, *v));
            }
            code.push(insn(RETURN, 0, 0, *no));
            code.push(insn(RETURN, 0, 0, *yes));
        }
        Answer::Branches(branches, otherwise) => {
            for b in branches {
                branch(b, code);
            }
            code.push(insn(RETURN, 0, 0, *otherwise));
        }
    }
}

/// Where a jump of a comparison leads.
#[derive(Clone, Copy, PartialEq)]
enum To {
    /// So many instructions on.
    Skip(u8),
    /// Behind this branch.
    Fail,
}

fn branch(branch: &Branch, code: &mut Vec<Insn>) {
    use To::{Fail, Skip};
    let mut steps: Vec<(u16, To, To, u32)> = Vec::new();
    for t in &branch.tests {
        let low = ARGUMENTS + u32::from(t.argument) * 8;
        let (high_value, low_value) = ((t.value >> 32) as u32, t.value as u32);
        let next = Skip(0);
        let load = |at: u32| (LOAD, next, next, at);
        match t.op {
            Op::Eq => steps.extend([
                load(low + 4),
                (JUMP_EQ, next, Fail, high_value),
                load(low),
                (JUMP_EQ, next, Fail, low_value),
            ]),
            Op::Ne => steps.extend([
                load(low + 4),
                (JUMP_EQ, next, Skip(2), high_value),
                load(low),
                (JUMP_EQ, Fail, next, low_value),
            ]),
            Op::MaskedEq => steps.extend([
                load(low + 4),
                (AND, next, next, high_value),
                (JUMP_EQ, next, Fail, (t.second >> 32) as u32),
                load(low),
                (AND, next, next, low_value),
                (JUMP_EQ, next, Fail, t.second as u32),
            ]),
            // The high half decides unless both are the same.
            Op::Ge | Op::Gt => steps.extend([
                load(low + 4),
                (JUMP_GT, Skip(3), next, high_value),
                (JUMP_EQ, next, Fail, high_value),
                load(low),
                (if t.op == Op::Ge { JUMP_GE } else { JUMP_GT }, next, Fail, low_value),
            ]),
            Op::Lt | Op::Le => steps.extend([
                load(low + 4),
                (JUMP_GT, Fail, next, high_value),
                (JUMP_EQ, next, Skip(2), high_value),
                load(low),
                (if t.op == Op::Lt { JUMP_GE } else { JUMP_GT }, Fail, next, low_value),
            ]),
        }
    }
    let total = steps.len();
    for (i, (op, yes, no, k)) in steps.into_iter().enumerate() {
        // Six arguments of at most six steps each: always within a byte.
        let way = |to| match to {
            Skip(n) => n,
            Fail => (total - i) as u8,
        };
        code.push(insn(op, way(yes), way(no), k));
    }
    code.push(insn(RETURN, 0, 0, branch.then));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small interpreter of the opcodes used.
    pub fn run(code: &[Insn], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut pc, mut acc) = (0, 0);
        loop {
            let i = code[pc];
            pc += 1;
            let jump = |yes: bool| (if yes { i.jt } else { i.jf }) as usize;
            match i.code {
                LOAD => {
                    acc = match i.k {
                        NUMBER => number,
                        ARCH => arch,
                        k if (ARGUMENTS..64).contains(&k) => {
                            let word = arguments[((k - ARGUMENTS) / 8) as usize];
                            if k % 8 == 0 { word as u32 } else { (word >> 32) as u32 }
                        }
                        k => panic!("load of {k}"),
                    }
                }
                AND => acc &= i.k,
                JUMP => pc += i.k as usize,
                JUMP_EQ => pc += jump(acc == i.k),
                JUMP_GT => pc += jump(acc > i.k),
                JUMP_GE => pc += jump(acc >= i.k),
                RETURN => return i.k,
                c => panic!("opcode {c:#x}"),
            }
        }
    }

    fn holds(t: &Test, a: u64) -> bool {
        match t.op {
            Op::Ne => a != t.value,
            Op::Lt => a < t.value,
            Op::Le => a <= t.value,
            Op::Eq => a == t.value,
            Op::Ge => a >= t.value,
            Op::Gt => a > t.value,
            Op::MaskedEq => a & t.value == t.second,
        }
    }

    #[test]
    fn every_comparison_looks_at_all_64_bits() {
        let values = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, 7 << 32, u64::MAX];
        for op in [Op::Ne, Op::Lt, Op::Le, Op::Eq, Op::Ge, Op::Gt, Op::MaskedEq] {
            for value in values {
                for second in [0, value, 4] {
                    let first = Test {
                        argument: 2,
                        op,
                        value,
                        second,
                    };
                    let also = Test {
                        argument: 5,
                        op: Op::Ne,
                        value: 9,
                        second: 0,
                    };
                    let branches = vec![Branch {
                        tests: vec![first.clone(), also],
                        then: 1,
                    }];
                    let table = Table {
                        audit: 7,
                        mask: None,
                        default: 3,
                        newer: None,
                        calls: vec![(10, Answer::Branches(branches, 2))],
                    };
                    let code = compile(&[table], 4);
                    for a in values {
                        let ask = |last| run(&code, 7, 10, [0, 0, a, 0, 0, last]);
                        assert_eq!(
                            ask(0),
                            if holds(&first, a) { 1 } else { 2 },
                            "{op:?} {value:#x} {second:#x} of {a:#x}"
                        );
                        assert_eq!(ask(9), 2, "all must hold");
                    }
                    assert_eq!(run(&code, 7, 11, [0; 6]), 3);
                    assert_eq!(run(&code, 8, 10, [0; 6]), 4);
                }
            }
        }
    }
}
