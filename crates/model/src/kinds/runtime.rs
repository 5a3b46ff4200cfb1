//! What an instance shares, and the finer limits: fields of an instance's spec that few need.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Cpus, Memory};

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// Whose a namespace is: `private`, `host`, or `instance:NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another instance of the same namespace, which must run.
    Instance(String),
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Private => f.write_str("private"),
            Share::Host => f.write_str("host"),
            Share::Instance(name) => write!(f, "instance:{name}"),
        }
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(s: &str) -> Result<Share, String> {
        match (s, s.split_once(':')) {
            ("private", _) => Ok(Share::Private),
            ("host", _) => Ok(Share::Host),
            // Docker's word is taken, too.
            (_, Some(("instance" | "container", name))) if !name.is_empty() => Ok(Share::Instance(name.into())),
            _ => Err(format!("{s:?} is none of private, host, instance:NAME")),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;
    fn try_from(s: String) -> Result<Share, String> {
        s.parse()
    }
}

impl From<Share> for String {
    fn from(s: Share) -> String {
        s.to_string()
    }
}

/// Whose user ids an instance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserIds {
    /// The host's: root inside is root outside, with few of its rights.
    #[default]
    Host,
    /// 65536 of its own: root inside is nobody outside.
    Private,
}

/// What an instance shares; only with isolation `container`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSpec {
    /// Process ids.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: Share,
    /// System V IPC, message queues, `/dev/shm`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: Share,
    /// Without `/dev/shm`; needs IPC of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_shm: bool,
    /// Host name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uts: Share,
    /// View of control groups: `private` or `host`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cgroup: Share,
    /// The instance whose network it shares, with `networkMode: none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// User ids.
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: UserIds,
    /// Clocks that differ from the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<ClockOffsets>,
}

/// Seconds that clocks inside are ahead of the host's; negative ones are behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClockOffsets {
    /// Of the monotonic clock.
    #[serde(default)]
    pub monotonic: i64,
    /// Of the clock since boot, which `uptime` shows.
    #[serde(default)]
    pub boottime: i64,
}

/// How mounts that are made later travel between host and container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountPropagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways.
    Shared,
}

/// Limits of containers, size of machines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Containers: at most this much CPU. Machines: so many virtual processors (rounded up).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Relative weight, 2 to 262144; 1024 is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Processors it may run on, as `0-3,7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Containers: at most this much memory. Machines: their memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Memory and swap together; equal to `memory` forbids swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<Memory>,
    /// Soft limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Memory>,
    /// At most so many processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// Added to the kernel's badness score, -1000 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Microseconds of processor time a period, instead of `cpus`; -1 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period, 1000 to 1000000; 100000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// Microseconds of unused processor time that may be saved up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst: Option<u64>,
    /// Microseconds a period that its realtime processes may run; only with control groups of version 1, and a kernel that
    /// shares realtime among groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_realtime_runtime: Option<u64>,
    /// Microseconds of that period; 1000000 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_realtime_period: Option<u64>,
    /// Memory nodes it may use, as `0-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// How gladly its memory is swapped, 0 to 100; only with control groups of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// Let processes wait instead of killing one when memory runs out; only with control groups of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    /// Weight among others for block devices, 10 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
    /// Limits on single block devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub io_devices: Vec<IoDevice>,
    /// Huge pages at most, by their size as the kernel names it: `2MB`, `1GB`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hugepages: BTreeMap<String, Memory>,
    /// Files of control groups of version 2, and what is written to them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

/// A limit on a block device of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IoDevice {
    /// Its node, as `/dev/sda`.
    pub path: String,
    /// Weight among others, 10 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// So much may be read a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<Memory>,
    /// So much may be written a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<Memory>,
    /// Reads a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    /// Writes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
}

/// One entry of a list of devices: `b`, `c` or `a`, the two numbers, and what may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `b`, `c`, or `a` for both.
    pub kind: char,
    /// Any where unset.
    pub major: Option<u32>,
    /// Any where unset.
    pub minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

impl FromStr for DeviceRule {
    type Err = String;
    fn from_str(s: &str) -> Result<DeviceRule, String> {
        let bad = || format!("{s:?} is no rule for devices: write it as in \"c 1:3 rwm\" or \"b 8:* r\"");
        let words: Vec<&str> = s.split_whitespace().collect();
        let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else {
            return Err(bad());
        };
        let number = |n: &str| match n {
            "*" => Ok(None),
            n => n.parse().map(Some).map_err(|_| bad()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
        if access.is_empty() || !access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
            return Err(bad());
        }
        Ok(DeviceRule {
            kind: kind.chars().next().unwrap_or('a'),
            major: number(major)?,
            minor: number(minor)?,
            access: access.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_words() {
        for (text, share) in [
            ("private", Share::Private),
            ("host", Share::Host),
            ("instance:db", Share::Instance("db".into())),
        ] {
            assert_eq!(text.parse(), Ok(share.clone()));
            assert_eq!(serde_json::to_value(&share).unwrap(), text);
        }
        assert_eq!("container:db".parse(), Ok(Share::Instance("db".into())));
        assert!("instance:".parse::<Share>().is_err());
        assert!(serde_json::from_value::<Share>("public".into()).is_err());
    }

    #[test]
    fn device_rules() {
        let r: DeviceRule = "c 188:* rw".parse().unwrap();
        assert_eq!(
            (r.kind, r.major, r.minor, r.access.as_str()),
            ('c', Some(188), None, "rw")
        );
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 rx", "c -1:3 r"] {
            assert!(bad.parse::<DeviceRule>().is_err(), "{bad:?}");
        }
    }
}
