//! The system call filter of a configuration.

use biga_container::caps::Caps;
use biga_container::seccomp::profile;
pub use biga_container::seccomp::{Filter, Listener};
use serde_json::{Value, json};

use crate::error::Error;

/// Compiles a filter; `None` where nothing is filtered.
pub fn filter(profile: Option<&Value>) -> Result<Option<Filter>, Error> {
    let Some(profile) = profile else { return Ok(None) };
    // Conditions on capabilities are Docker's own form: engines resolve them.
    Ok(Some(profile::compile(profile, Caps::default())?))
}

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// What is known of filters, for `features`.
pub fn features() -> Value {
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
        ],
        "archs": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        "knownFlags": FLAGS,
        "supportedFlags": FLAGS,
    })
}
