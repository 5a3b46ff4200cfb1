//! Limits as `config.json` and `update` have them.

use biga_sys::device_filter::Rule;
use biga_wire::config::{IoLimit, Limits};

use crate::Error;
use crate::cgroup;
use crate::oci_spec::resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources, ThrottleDevice, WeightDevice,
};

/// All limits; what is not limited is left out.
pub(super) fn resources(l: &Limits) -> Result<Resources, Error> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let processor = cgroup::quota(l);
    Ok(Resources {
        memory: Some(Memory {
            limit: l.memory.map(signed),
            swap: l.memory_swap.map(|s| signed(s.max(l.memory.unwrap_or(0)))),
            reservation: l.memory_reservation.map(signed),
            swappiness: l.memory_swappiness,
            disable_oom_killer: l.oom_kill_disable,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: l.cpu_shares,
            quota: processor.map(|(quota, _)| quota.map_or(-1, signed)),
            period: processor.map(|(_, period)| period),
            burst: l.cpu_burst,
            realtime_runtime: l.cpu_realtime_runtime.map(signed),
            realtime_period: l.cpu_realtime_period,
            cpus: l.cpuset_cpus.clone().unwrap_or_default(),
            mems: l.cpuset_mems.clone().unwrap_or_default(),
            ..Cpu::default()
        }),
        pids: l.pids.map(|n| Pids { limit: Some(n.into()) }),
        block_io: Some(disks(l)?),
        hugepage_limits: l
            .hugetlb
            .iter()
            .map(|(size, bytes)| HugepageLimit {
                page_size: size.clone(),
                limit: *bytes,
            })
            .collect(),
        unified: l.unified.clone(),
        ..Resources::default()
    })
}

fn disks(l: &Limits) -> Result<BlockIo, Error> {
    let mut all = BlockIo {
        weight: l.io_weight,
        ..BlockIo::default()
    };
    for device in &l.io_devices {
        let (major, minor) = number(device)?;
        if let Some(weight) = device.weight {
            all.weight_device.push(WeightDevice {
                major,
                minor,
                weight: Some(weight),
                leaf_weight: None,
            });
        }
        for (rate, list) in [
            (device.read_bps, &mut all.throttle_read_bps_device),
            (device.write_bps, &mut all.throttle_write_bps_device),
            (device.read_iops, &mut all.throttle_read_iops_device),
            (device.write_iops, &mut all.throttle_write_iops_device),
        ] {
            list.extend(rate.map(|rate| ThrottleDevice { major, minor, rate }));
        }
    }
    Ok(all)
}

fn number(limit: &IoLimit) -> Result<(i64, i64), Error> {
    let number = cgroup::block_device(&limit.device)?;
    Ok((rustix::fs::major(number).into(), rustix::fs::minor(number).into()))
}

/// Which devices can be used; all where there are no rules.
pub(super) fn devices(rules: Option<&[Rule]>) -> Vec<DeviceRule> {
    let all = |allow| DeviceRule {
        allow,
        access: "rwm".into(),
        ..DeviceRule::default()
    };
    let Some(rules) = rules else { return vec![all(true)] };
    let one = |r: &Rule| {
        let access = [(r.read, 'r'), (r.write, 'w'), (r.mknod, 'm')];
        DeviceRule {
            allow: true,
            kind: if r.block { "b" } else { "c" }.into(),
            major: r.major.map(i64::from),
            minor: r.minor.map(i64::from),
            access: access.iter().filter(|(on, _)| *on).map(|(_, c)| c).collect(),
        }
    };
    std::iter::once(all(false)).chain(rules.iter().map(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci_spec::bare;
    use serde_json::json;

    #[test]
    fn only_what_is_limited_is_said() {
        assert_eq!(bare(&resources(&Limits::default()).unwrap()).unwrap(), json!(null));
        let limits = Limits {
            cpu_millis: Some(1500),
            memory: Some(64 << 20),
            memory_swap: Some(1),
            pids: Some(50),
            ..Limits::default()
        };
        assert_eq!(
            bare(&resources(&limits).unwrap()).unwrap(),
            json!({
                "memory": {"limit": 64 << 20, "swap": 64 << 20},
                "cpu": {"quota": 150_000, "period": 100_000},
                "pids": {"limit": 50},
            })
        );
        let unlimited = Limits {
            cpu_quota: Some(-1),
            ..Limits::default()
        };
        assert_eq!(resources(&unlimited).unwrap().cpu.unwrap().quota, Some(-1));
    }

    #[test]
    fn devices_begin_with_a_refusal() {
        let rules = crate::devices::always();
        let all = bare(&devices(Some(&rules))).unwrap();
        assert_eq!(all[0], json!({"allow": false, "access": "rwm"}));
        assert_eq!(all[1], json!({"allow": true, "type": "c", "access": "m"}));
        assert_eq!(
            all[3],
            json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"})
        );
        assert_eq!(bare(&devices(None)).unwrap(), json!([{"allow": true, "access": "rwm"}]));
    }
}
