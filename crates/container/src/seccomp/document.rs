//! Filters as documents in the form of the OCI runtime specification, for runtimes that compile them themselves.

use serde_json::{Value, json};

use super::table::{self, Condition, Then};
use super::{ENOSYS, EPERM, applies, names};
use crate::caps::Caps;

/// The default filter for a container with these capabilities.
pub fn default_document(caps: Caps) -> Value {
    let mut rules = Vec::new();
    for rule in table::RULES.iter().filter(|r| applies(r, caps)) {
        let names: Vec<&str> = rule.calls.iter().filter_map(|n| name(*n)).collect();
        match &rule.action {
            Then::Allow => rules.push(json!({"names": names, "action": "SCMP_ACT_ALLOW"})),
            Then::NoSys => rules.push(json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})),
            Then::If(condition) => rules.extend(
                tests(condition)
                    .into_iter()
                    .map(|test| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": [test]})),
            ),
        }
    }
    let narrow = table::I386
        .iter()
        .filter(|(_, needs)| needs.is_empty() || caps.has(needs));
    let narrow: Vec<&str> = narrow.flat_map(|(names, _)| names.iter().copied()).collect();
    rules.push(json!({"names": narrow, "action": "SCMP_ACT_ALLOW"}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    })
}

/// Conditions of which one must hold.
fn tests(condition: &Condition) -> Vec<Value> {
    match condition {
        Condition::NoneOf(mask) => vec![json!({"index": 0, "value": mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"})],
        Condition::OneOf(values) => values
            .iter()
            .map(|v| json!({"index": 0, "value": v, "op": "SCMP_CMP_EQ"}))
            .collect(),
    }
}

fn name(number: u16) -> Option<&'static str> {
    let found = names::NAMES
        .iter()
        .find(|(_, wide, _)| u16::try_from(*wide) == Ok(number));
    found.map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::run;
    use super::super::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, default_filter, profile};
    use super::*;

    #[test]
    fn every_call_of_the_table_has_a_name() {
        let calls = table::RULES.iter().flat_map(|r| r.calls);
        for n in calls {
            assert!(name(*n).is_some(), "{n}");
        }
    }

    /// The document says what the table says, to a compiler that knows only documents.
    #[test]
    fn the_document_says_what_the_filter_says() {
        for caps in [
            Caps::default(),
            Caps::ALL,
            Caps::parse(["SYS_CHROOT", "SYS_ADMIN"]).unwrap(),
        ] {
            let (own, read) = (
                default_filter(caps).code,
                profile::compile(&default_document(caps), caps).unwrap().code,
            );
            for (_, wide, narrow) in names::NAMES {
                for (arch, number) in [(AUDIT_ARCH_X86_64, *wide), (AUDIT_ARCH_I386, *narrow)] {
                    let Ok(number) = u32::try_from(number) else { continue };
                    if number >= table::NEWER {
                        // What a compiler answers to calls newer than the document is its own matter.
                        continue;
                    }
                    for argument in [0u32, 1, 8, 0x20008, u32::MAX, 0x1000_0000, 38, 40, 11] {
                        let arguments = [argument.into(), 0, 0, 0, 0, 0];
                        let (a, b) = (run(&own, arch, number, arguments), run(&read, arch, number, arguments));
                        assert_eq!(a, b, "call {number} of {arch:#x} with {argument:#x}");
                    }
                }
            }
        }
    }
}
