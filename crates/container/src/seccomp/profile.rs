//! Profiles in the form of the OCI runtime specification, and in Docker's, which adds conditions on whole rules.

use biga_sys::seccomp::Insn;
use serde::Deserialize;
use serde_json::{Value, json};

use super::listener::Listener;
use super::names::number;
use super::program::{self, Answer, Branch, Op, Table, Test};
use super::{ALLOW, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, ENOSYS, EPERM, ERRNO, X32};
use crate::Error;
use crate::caps::Caps;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const NOTIFY: u32 = 0x7fc0_0000;

/// A filter ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub code: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Who answers calls, where it has some answered.
    pub listener: Option<Listener>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    listener_metadata: String,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// Docker's older form.
    #[serde(default)]
    name: String,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filters>,
    #[serde(default)]
    excludes: Option<Filters>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filters {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

fn bad(what: impl Into<String>) -> Error {
    Error::Field("the seccomp profile", what.into())
}

/// Compiles a profile for a container with these capabilities. Names of system calls that do not exist here are passed over, as
/// every runtime does: profiles name calls of all architectures and of newer kernels.
pub fn compile(document: &Value, caps: Caps) -> Result<Filter, Error> {
    let profile = Profile::deserialize(document).map_err(|e| bad(e.to_string()))?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let rules = applying(&profile, caps)?;
    let wanted = architectures(&profile)?;
    let mut tables = Vec::new();
    for (audit, i386) in [(AUDIT_ARCH_X86_64, false), (AUDIT_ARCH_I386, true)] {
        // The host's own is always in, whatever the profile names.
        if !i386 || wanted.i386 {
            tables.push(table(&rules, default, audit, i386, wanted.x32)?);
        }
    }
    let code = program::compile(&tables, KILL_PROCESS);
    if code.len() > program::MAX {
        return Err(bad(format!(
            "it needs {} instructions, and the kernel takes {}: use fewer conditions",
            code.len(),
            program::MAX
        )));
    }
    let listener = listener(&profile, default, &rules)?;
    Ok(Filter {
        code,
        flags: flags(&profile.flags, listener.is_some())?,
        listener,
    })
}

/// Whether a profile has calls answered by another program.
pub fn asks(document: &Value) -> bool {
    let rules = document.get("syscalls").and_then(Value::as_array);
    rules.is_some_and(|all| all.iter().any(|r| r["action"] == "SCMP_ACT_NOTIFY"))
}

/// Who answers calls; `None` where no rule asks for it, whatever is said of a listener.
fn listener(profile: &Profile, default: u32, rules: &[&Rule]) -> Result<Option<Listener>, Error> {
    let asks = |r: &&&Rule| r.action == "SCMP_ACT_NOTIFY";
    if default == NOTIFY {
        return Err(bad(
            "SCMP_ACT_NOTIFY cannot be the default action: name the calls that are to be answered",
        ));
    }
    let Some(first) = rules.iter().find(asks) else {
        return Ok(None);
    };
    let mut names = rules.iter().filter(asks).flat_map(|r| r.names.iter().chain([&r.name]));
    if names.any(|n| n == "write") {
        // It is by this call that the runtime hears where the listener is.
        return Err(bad("SCMP_ACT_NOTIFY cannot be used for the system call write"));
    }
    if profile.listener_path.is_empty() {
        let calls = first.names.join(", ");
        return Err(bad(format!(
            "SCMP_ACT_NOTIFY (for {calls}) needs listenerPath: the unix socket of the program that answers"
        )));
    }
    Listener::new(&profile.listener_path, &profile.listener_metadata).map(Some)
}

/// A profile for these capabilities in the plain form of the specification: what Docker's form says of when rules apply is settled.
pub fn plain(document: &Value, caps: Caps) -> Result<Value, Error> {
    // What is wrong with it is said here, in the same words as elsewhere.
    compile(document, caps)?;
    let profile = Profile::deserialize(document).map_err(|e| bad(e.to_string()))?;
    let wanted = architectures(&profile)?;
    let all = [("X86_64", true), ("X86", wanted.i386), ("X32", wanted.x32)];
    let architectures = all
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| format!("SCMP_ARCH_{name}"));
    let arg = |a: &Arg| json!({"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op});
    let rule = |r: &Rule| {
        let names = r.names.iter().chain((!r.name.is_empty()).then_some(&r.name));
        let mut rule = json!({"names": names.collect::<Vec<_>>(), "action": r.action});
        if let Some(errno) = r.errno_ret {
            rule["errnoRet"] = errno.into();
        }
        if let Some(args) = r.args.as_ref().filter(|a| !a.is_empty()) {
            rule["args"] = args.iter().map(arg).collect();
        }
        rule
    };
    let mut plain = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures.collect::<Vec<_>>(),
        "syscalls": applying(&profile, caps)?.into_iter().map(rule).collect::<Vec<_>>(),
    });
    if let Some(errno) = profile.default_errno_ret {
        plain["defaultErrnoRet"] = errno.into();
    }
    if !profile.flags.is_empty() {
        plain["flags"] = profile.flags.into();
    }
    for (name, value) in [
        ("listenerPath", profile.listener_path),
        ("listenerMetadata", profile.listener_metadata),
    ] {
        if !value.is_empty() {
            plain[name] = value.into();
        }
    }
    Ok(plain)
}

struct Architectures {
    i386: bool,
    x32: bool,
}

fn architectures(profile: &Profile) -> Result<Architectures, Error> {
    let mapped = profile
        .arch_map
        .iter()
        .filter(|m| m.architecture == "SCMP_ARCH_X86_64")
        .flat_map(|m| m.sub_architectures.iter().flatten());
    let all: Vec<&str> = profile.architectures.iter().chain(mapped).map(String::as_str).collect();
    if let Some(odd) = all.iter().find(|a| !a.starts_with("SCMP_ARCH_")) {
        return Err(bad(format!("{odd:?} is no architecture, as in SCMP_ARCH_X86_64")));
    }
    Ok(Architectures {
        i386: all.contains(&"SCMP_ARCH_X86"),
        x32: all.contains(&"SCMP_ARCH_X32"),
    })
}

/// Rules that apply to this host and these capabilities.
fn applying(profile: &Profile, caps: Caps) -> Result<Vec<&Rule>, Error> {
    let has = |name: &String| {
        let upper = name.to_ascii_uppercase();
        caps.has(upper.strip_prefix("CAP_").unwrap_or(&upper))
    };
    let here = |arch: &String| matches!(arch.as_str(), "amd64" | "x32" | "x86");
    let mut out = Vec::new();
    for rule in profile.syscalls.iter().flatten() {
        if let Some(f) = &rule.includes {
            let arch = f.arches.is_empty() || f.arches.iter().any(here);
            let kernel = f.min_kernel.is_empty() || kernel_at_least(&f.min_kernel)?;
            if !arch || !kernel || !f.caps.iter().all(has) {
                continue;
            }
        }
        if let Some(f) = &rule.excludes {
            let kernel = !f.min_kernel.is_empty() && kernel_at_least(&f.min_kernel)?;
            if f.arches.iter().any(here) || kernel || f.caps.iter().any(has) {
                continue;
            }
        }
        out.push(rule);
    }
    Ok(out)
}

fn kernel_at_least(wanted: &str) -> Result<bool, Error> {
    let parse = |text: &str| -> Option<(u32, u32)> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let wanted = parse(wanted).ok_or_else(|| bad(format!("{wanted:?} is no kernel version")))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(parse(&release).is_none_or(|have| have >= wanted))
}

fn table(rules: &[&Rule], default: u32, audit: u32, i386: bool, x32: bool) -> Result<Table, Error> {
    let mut calls: std::collections::BTreeMap<u32, Answer> = Default::default();
    let mut newest = 0;
    for rule in rules {
        let then = action(&rule.action, rule.errno_ret)?;
        let branches = branches(rule, then)?;
        let old = (!rule.name.is_empty()).then_some(&rule.name);
        for n in rule.names.iter().chain(old).filter_map(|name| number(name, i386)) {
            newest = newest.max(n);
            if then == default {
                continue;
            }
            match (calls.get_mut(&n), branches.is_empty()) {
                // A rule without conditions is the last word, and the first of them.
                (Some(Answer::Always(_)), _) => {}
                (Some(Answer::Branches(all, _)), false) => all.extend(branches.clone()),
                (_, true) => drop(calls.insert(n, Answer::Always(then))),
                (_, false) => drop(calls.insert(n, Answer::Branches(branches.clone(), default))),
            }
        }
    }
    // Programs that try a call newer than the profile fall back to an older one only when told that the kernel lacks it.
    let refuses = !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
    Ok(Table {
        audit,
        mask: (!i386 && x32).then_some(!X32),
        default,
        newer: (refuses && newest > 0).then_some((newest + 1, ERRNO | ENOSYS)),
        calls: calls.into_iter().collect(),
    })
}

/// The conditions of a rule: all must hold. Two on the same argument are alternatives, as runc and crun read them.
fn branches(rule: &Rule, then: u32) -> Result<Vec<Branch>, Error> {
    let args = rule.args.as_deref().unwrap_or_default();
    let tests = args.iter().map(test).collect::<Result<Vec<Test>, _>>()?;
    let twice = tests
        .iter()
        .enumerate()
        .any(|(i, t)| tests[..i].iter().any(|o| o.argument == t.argument));
    Ok(match (tests.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, false) => vec![Branch { tests, then }],
        (false, true) => tests.into_iter().map(|t| Branch { tests: vec![t], then }).collect(),
    })
}

fn test(arg: &Arg) -> Result<Test, Error> {
    if arg.index > 5 {
        return Err(bad(format!("a system call has arguments 0 to 5, not {}", arg.index)));
    }
    let op = match arg.op.as_str() {
        "SCMP_CMP_NE" => Op::Ne,
        "SCMP_CMP_LT" => Op::Lt,
        "SCMP_CMP_LE" => Op::Le,
        "SCMP_CMP_EQ" => Op::Eq,
        "SCMP_CMP_GE" => Op::Ge,
        "SCMP_CMP_GT" => Op::Gt,
        "SCMP_CMP_MASKED_EQ" => Op::MaskedEq,
        other => return Err(bad(format!("{other:?} is no comparison, as in SCMP_CMP_EQ"))),
    };
    Ok(Test {
        argument: arg.index,
        op,
        value: arg.value,
        second: arg.value_two,
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, Error> {
    let data = errno.unwrap_or(EPERM);
    if data > 0xffff {
        return Err(bad(format!("error number {data} is too large")));
    }
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_TRACE" => TRACE | data,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        other => return Err(bad(format!("{other:?} is no action, as in SCMP_ACT_ERRNO"))),
    })
}

fn flags(names: &[String], listens: bool) -> Result<u32, Error> {
    if names.is_empty() {
        return Ok(biga_sys::seccomp::SPEC_ALLOW);
    }
    // One thread installs it before there is a second, so to synchronise threads is done already.
    names.iter().try_fold(0, |all, name| {
        Ok(all
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => 2,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
                // Of a filter without a listener it says nothing, and the kernel would refuse it.
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if !listens => 0,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => biga_sys::seccomp::WAIT_KILLABLE,
                other => return Err(bad(format!("{other:?} is no flag of a filter"))),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::run;
    use super::*;

    fn ask(profile: &Value, caps: Caps, arch: u32, name: &str, arguments: [u64; 6]) -> u32 {
        let filter = compile(profile, caps).unwrap();
        run(
            &filter.code,
            arch,
            number(name, arch == AUDIT_ARCH_I386).unwrap(),
            arguments,
        )
    }

    #[test]
    fn actions_conditions_and_architectures() {
        let p = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["read", "nonesuch", "stat64"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 1, "value": 0x5413, "op": "SCMP_CMP_EQ"}]},
                {"names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": [
                    {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 0x7e020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["futex"], "action": "SCMP_ACT_TRAP"},
                {"names": ["socket"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            ],
        });
        let none = Caps::default();
        let x = |name, a, b| ask(&p, none, AUDIT_ARCH_X86_64, name, [a, b, 0, 0, 0, 0]);
        assert_eq!(x("read", 0, 0), ALLOW);
        assert_eq!(x("kill", 0, 0), KILL_PROCESS);
        assert_eq!(x("mkdir", 0, 0), ERRNO | 28);
        assert_eq!(x("open", 0, 0), ERRNO | 13);
        assert_eq!(
            (x("ioctl", 0, 0x5413), x("ioctl", 0, 2), x("ioctl", 0, 3)),
            (ALLOW, LOG, ERRNO | 13)
        );
        assert_eq!((x("clone", 17, 0), x("clone", 0x1000_0000, 0)), (ALLOW, ERRNO | 13));
        assert_eq!((x("futex", 0, 0), x("socket", 0, 0)), (TRAP, TRACE | 7));
        assert_eq!(x("file_setattr", 0, 0), ERRNO | ENOSYS, "newer than the profile");
        assert_eq!(ask(&p, none, AUDIT_ARCH_I386, "stat64", [0; 6]), ALLOW);
        let code = compile(&p, none).unwrap().code;
        assert_eq!(
            run(&code, 0x4000_00b7, 1, [0; 6]),
            KILL_PROCESS,
            "an architecture that is not in it"
        );
    }

    #[test]
    fn the_form_of_docker() {
        let p = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
                        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
            "syscalls": [
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
                {"names": ["cacheflush", "sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
                {"name": "getpid", "action": "SCMP_ACT_ALLOW", "args": null},
            ],
        });
        let (none, admin) = (Caps::default(), Caps::parse(["SYS_ADMIN"]).unwrap());
        let x = |caps, name| ask(&p, caps, AUDIT_ARCH_X86_64, name, [0; 6]);
        assert_eq!(x(none, "ptrace"), ALLOW);
        assert_eq!(x(none, "bpf"), ERRNO | EPERM);
        assert_eq!((x(none, "mount"), x(admin, "mount")), (ERRNO | EPERM, ALLOW));
        assert_eq!((x(none, "clone3"), x(admin, "clone3")), (ERRNO | 38, ERRNO | ENOSYS));
        assert_eq!(
            (x(none, "arch_prctl"), x(none, "sync"), x(none, "getpid")),
            (ALLOW, ERRNO | EPERM, ALLOW)
        );
        let code = compile(&p, none).unwrap().code;
        let getpid = number("getpid", false).unwrap();
        assert_eq!(run(&code, AUDIT_ARCH_X86_64, getpid | X32, [0; 6]), ALLOW, "x32");
        // In the plain form nothing is left to be judged, and it means the same.
        for caps in [none, admin] {
            let plain = plain(&p, caps).unwrap();
            let text = plain.to_string();
            assert!(!text.contains("cludes") && !text.contains("archMap"), "{text}");
            assert_eq!(compile(&plain, Caps::default()).unwrap(), compile(&p, caps).unwrap());
        }
    }

    #[test]
    fn listeners() {
        let with = |action: &str, flags: &[&str]| {
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock", "listenerMetadata": "of mine",
                "flags": flags, "syscalls": [{"names": ["mkdir"], "action": action}],
            })
        };
        let killable = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
        let p = with("SCMP_ACT_NOTIFY", &killable);
        let filter = compile(&p, Caps::default()).unwrap();
        assert_eq!(filter.flags, biga_sys::seccomp::WAIT_KILLABLE);
        assert_eq!(
            filter.listener,
            Some(Listener::new("/run/agent.sock", "of mine").unwrap())
        );
        assert_eq!(ask(&p, Caps::default(), AUDIT_ARCH_X86_64, "mkdir", [0; 6]), NOTIFY);
        assert_eq!(plain(&p, Caps::default()).unwrap()["listenerPath"], "/run/agent.sock");
        // Nobody is asked: the rest means nothing.
        let filter = compile(&with("SCMP_ACT_LOG", &killable), Caps::default()).unwrap();
        assert_eq!((filter.listener, filter.flags), (None, 0));
    }

    #[test]
    fn mistakes_are_named() {
        for (p, hint) in [
            (json!({}), "defaultAction"),
            (json!({"defaultAction": "ALLOW"}), "no action"),
            (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "cannot be the default"),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
                "(for mkdir) needs listenerPath",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent.sock",
                       "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
                "absolute",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent.sock",
                       "syscalls": [{"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
                "system call write",
            ),
            (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}), "no flag"),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}),
                "no architecture",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                       "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
                "arguments 0 to 5",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                       "args": [{"index": 0, "value": 0, "op": "=="}]}]}),
                "no comparison",
            ),
        ] {
            let e = compile(&p, Caps::default()).unwrap_err().to_string();
            assert!(e.contains(hint), "{p}: {e}");
        }
    }
}
