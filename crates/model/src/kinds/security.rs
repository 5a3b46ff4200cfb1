//! What a container may do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecuritySpec {
    /// All that the host has: capabilities, devices, no seccomp, no masked paths.
    #[serde(default, skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Capabilities beyond the default set, as `NET_ADMIN` or `ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set, or `ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// Mount the root file system read-only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only_root: bool,
    /// Forbid gaining privileges by set-user-id programs (`PR_SET_NO_NEW_PRIVS`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// `default` (also when empty) or `unconfined`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seccomp: String,
    /// A system call filter instead of the default one: a document in the form of the OCI runtime specification, or of Docker's
    /// profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<Value>,
    /// AppArmor profile, which must be loaded; left out where the host has no AppArmor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub apparmor: String,
    /// Parts of its SELinux label (`user:`, `role:`, `type:`, `level:`), or `disable`; left out where the host has no SELinux.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selinux: Vec<String>,
    /// Paths hidden from it instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    /// Paths it cannot write instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_paths: Option<Vec<String>>,
}
