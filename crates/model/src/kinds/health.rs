//! Health checks: what is run to see whether an instance does its work, and what came of it.

use serde::{Deserialize, Serialize};

use crate::kind::FieldError;
use crate::object::Timestamp;

/// Milliseconds between two probes where nothing else is said.
pub const DEFAULT_INTERVAL_MS: u64 = 30_000;
/// Milliseconds a probe may take where nothing else is said.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds between two probes of the start period where nothing else is said.
pub const DEFAULT_START_INTERVAL_MS: u64 = 5_000;
/// Failures in a row that make an instance unhealthy where nothing else is said.
pub const DEFAULT_RETRIES: u32 = 3;
/// Results that are kept.
pub const HEALTH_LOG: usize = 5;
/// Bytes of a probe's output that are kept.
pub const HEALTH_OUTPUT: usize = 4096;

/// A command that is run again and again inside a container or microvm. What is unset is taken from the image's own
/// check, and then from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// `CMD` and a program with its arguments; `CMD-SHELL` and one line for the shell; `NONE` for no check, not even
    /// the image's; empty for the image's. Exit code 0 means healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Milliseconds between the end of a probe and the next; 30000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Milliseconds after which a probe is killed and counts as failed; 30000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds from the start in which failures do not count; none where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// Milliseconds between probes of the start period; 5000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval_ms: Option<u64>,
    /// Failures in a row that make it unhealthy; 3 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Restart the instance when it becomes unhealthy, whatever its restart policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

impl HealthCheck {
    /// What is wrong with it; `at` is its path in the spec.
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut e = Vec::new();
        match self.test.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _] => {}
            _ => e.push(FieldError::new(
                format!("{at}.test"),
                "is CMD and a program, CMD-SHELL and one line, or NONE",
            )),
        }
        if self.test.iter().any(|w| w.contains('\0')) {
            e.push(FieldError::new(format!("{at}.test"), "must not hold a zero byte"));
        }
        for (field, value) in [
            ("intervalMs", self.interval_ms),
            ("timeoutMs", self.timeout_ms),
            ("startIntervalMs", self.start_interval_ms),
        ] {
            if value == Some(0) {
                e.push(FieldError::new(format!("{at}.{field}"), "is at least 1 millisecond"));
            }
        }
        if self.retries == Some(0) {
            e.push(FieldError::new(format!("{at}.retries"), "is at least 1"));
        }
        e
    }
}

/// What the probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No probe has succeeded yet, and not enough have failed.
    #[default]
    Starting,
    /// The last one that counts succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

impl Health {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

/// What is seen of an instance's health.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthStatus {
    /// What the probes say.
    #[serde(default)]
    pub status: Health,
    /// Failures in a row.
    #[serde(default)]
    pub failing_streak: u32,
    /// The last results, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<HealthResult>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// The command's exit code; -1 where it was killed for time or could not be run.
    pub exit_code: i32,
    /// What it wrote to both its outputs, cut.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_three_forms() {
        let errors = |words: &[&str]| {
            let test = words.iter().map(|w| w.to_string()).collect();
            let check = HealthCheck {
                test,
                ..HealthCheck::default()
            };
            check.validate("h").len()
        };
        for good in [&[][..], &["NONE"], &["CMD", "true"], &["CMD-SHELL", "a | b"]] {
            assert_eq!(errors(good), 0, "{good:?}");
        }
        for bad in [
            &["true"][..],
            &["CMD"],
            &["CMD-SHELL"],
            &["CMD-SHELL", "a", "b"],
            &["NONE", "x"],
        ] {
            assert_eq!(errors(bad), 1, "{bad:?}");
        }
        let zero = HealthCheck {
            interval_ms: Some(0),
            retries: Some(0),
            ..HealthCheck::default()
        };
        assert_eq!(zero.validate("h").len(), 2);
    }
}
