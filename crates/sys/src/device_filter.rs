//! The device program of a control group of version 2: what `devices.allow` is on version 1.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::check;

/// One kind of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Block device; character device otherwise.
    pub block: bool,
    /// Major number; any where unset.
    pub major: Option<u32>,
    /// Minor number; any where unset.
    pub minor: Option<u32>,
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making a node.
    pub mknod: bool,
}

/// What the rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// All that is allowed.
    Allowed,
    /// What is forbidden of all.
    Forbidden,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;

#[derive(Clone, Copy)]
#[repr(C)]
struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: dst | src << 4,
        offset,
        immediate,
    }
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REG: u8 = 0xbc;
const MOVE_IMM: u8 = 0xb4;
const AND_IMM: u8 = 0x54;
const RSH_IMM: u8 = 0x74;
const JEQ_IMM: u8 = 0x16;
const JNE_IMM: u8 = 0x56;
const EXIT: u8 = 0x95;

const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

/// The program: the context holds access<<16|type, major, minor. r2 type, r3 access, r4 major, r5 minor.
fn program(rules: &[Rule], listed: Listed) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOVE_REG, 3, 2, 0, 0),
        insn(AND_IMM, 2, 0, 0, 0xffff),
        insn(RSH_IMM, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let named = [
            (rule.mknod, ACCESS_MKNOD),
            (rule.read, ACCESS_READ),
            (rule.write, ACCESS_WRITE),
        ]
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |all, (_, bit)| all | bit);
        let mut checks = vec![(2, if rule.block { 1 } else { 2 })];
        checks.extend(rule.major.map(|n| (4, n as i32)));
        checks.extend(rule.minor.map(|n| (5, n as i32)));
        // Each failed check skips the rest of this rule: remaining checks, three for the access bits, two for the answer.
        let total = checks.len() as i16;
        for (i, (register, value)) in (0i16..).zip(checks) {
            code.push(insn(JNE_IMM, register, 0, total - i - 1 + 5, value));
        }
        code.push(insn(MOVE_REG, 1, 3, 0, 0));
        // Allowed is what asks for nothing but what is named, forbidden what asks for any of it.
        let (bits, other, answer) = match listed {
            Listed::Allowed => (!named & 7, JNE_IMM, 1),
            Listed::Forbidden => (named, JEQ_IMM, 0),
        };
        code.push(insn(AND_IMM, 1, 0, 0, bits));
        code.push(insn(other, 1, 0, 2, 0));
        code.push(insn(MOVE_IMM, 0, 0, 0, answer));
        code.push(insn(EXIT, 0, 0, 0, 0));
    }
    code.push(insn(MOVE_IMM, 0, 0, 0, i32::from(listed == Listed::Forbidden)));
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

#[repr(C, align(8))]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 13],
}

#[repr(C, align(8))]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    rest: [u64; 14],
}

/// Allows processes of a control group (its directory) only these accesses to devices, or all but these.
pub fn attach(cgroup: impl AsFd, rules: &[Rule], listed: Listed) -> io::Result<()> {
    let code = program(rules, listed);
    let load = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 13],
    };
    // SAFETY: `load` describes `code`, which outlives the call; unused fields are zero as the kernel demands.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &load, size_of::<LoadAttr>()) })?;
    // SAFETY: a new descriptor that nobody else owns. The attachment keeps the program alive after it is closed.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach = AttachAttr {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_bpf_fd: fd.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI,
        rest: [0; 14],
    };
    // SAFETY: `attach` outlives the call; unused fields are zero.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attach, size_of::<AttachAttr>()) }).map(drop)
}
