//! `linux.resources`, in the words of either version of control groups.

use biga_container::cgroup::{Group, Version};
use biga_container::{Error as ContainerError, cgroup};

use crate::devices::{self, Access};
use crate::error::{Error, Step};
use crate::spec::resources::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

/// Makes a container's control group, with its devices and limits. On failure nothing is left.
pub fn create(path: &str, resources: Option<&Resources>) -> Result<Group, Error> {
    let there = Group::open(path);
    // Taking over what has processes would end them with the container.
    let busy = there.all_pids().is_ok_and(|p| !p.is_empty());
    if there.exists() && busy {
        return Err(Error::invalid(
            "linux.cgroupsPath",
            format!("control group {path} has processes already"),
        ));
    }
    let list = resources.map_or(&[][..], |r| &r.devices);
    let access = devices::access(list)?;
    let rules = match &access {
        Access::Only(rules) => Some(rules.as_slice()),
        _ => None,
    };
    let mut group = Group::create(path, &Default::default(), rules)?;
    let forbidden = match &access {
        Access::Except(rules) => group.forbid_devices(rules).map_err(Error::from),
        _ => Ok(()),
    };
    let rest = forbidden.and_then(|()| resources.map_or(Ok(()), |r| apply(&mut group, r)));
    if let Err(e) = rest {
        // What made it fail is more telling than what tidying up says.
        let _ = group.remove();
        return Err(e);
    }
    Ok(group)
}

/// Applies limits; those that are not there stay as they are.
pub fn apply(group: &mut Group, r: &Resources) -> Result<(), Error> {
    if let Some(memory) = &r.memory {
        self::memory(group, memory)?;
    }
    if let Some(cpu) = &r.cpu {
        self::cpu(group, cpu)?;
    }
    if let Some(limit) = r.pids.as_ref().and_then(|p| p.limit) {
        let value = if limit > 0 { limit.to_string() } else { "max".into() };
        set(group, ("pids", "pids.max"), "pids.max", &value)?;
    }
    if let Some(io) = &r.block_io {
        block_io(group, io)?;
    }
    for limit in &r.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size);
        let new = format!("hugetlb.{}.max", limit.page_size);
        set(group, ("hugetlb", &file), &new, &limit.limit.to_string())?;
    }
    if let Some(network) = &r.network {
        if let Some(class) = network.class_id.filter(|c| *c != 0) {
            old(
                group,
                ("net_cls", "net_cls.classid"),
                "linux.resources.network.classID",
                &class.to_string(),
            )?;
        }
        for p in &network.priorities {
            let text = format!("{} {}", p.name, p.priority);
            old(
                group,
                ("net_prio", "net_prio.ifpriomap"),
                "linux.resources.network.priorities",
                &text,
            )?;
        }
    }
    for (device, limit) in &r.rdma {
        let mut text = device.clone();
        for (name, n) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
            text.push_str(&n.map_or(String::new(), |n| format!(" {name}={n}")));
        }
        set(group, ("rdma", "rdma.max"), "rdma.max", &text)?;
    }
    unified(group, r)
}

/// Files of version 2 by name.
fn unified(group: &Group, r: &Resources) -> Result<(), Error> {
    let field = "linux.resources.unified";
    if !r.unified.is_empty() && group.version() == Version::V1 {
        return Err(Error::unsupported(field, "this host's control groups are of version 1"));
    }
    for (file, value) in &r.unified {
        if file.contains('/') || file.starts_with("cgroup.") || !file.contains('.') {
            return Err(Error::invalid(field, format!("{file:?} is no limit")));
        }
        // A file may take a line a device.
        for line in value.lines().filter(|l| !l.is_empty()) {
            group.set("", file, line)?;
        }
    }
    Ok(())
}

/// Writes a limit to the file of either version; the other one's name is `new`.
fn set(group: &mut Group, (controller, file): (&str, &str), new: &str, value: &str) -> Result<(), Error> {
    group.need(controller)?;
    match group.version() {
        Version::V1 => group.set(controller, file, value)?,
        Version::V2 => group.set("", new, value)?,
    }
    Ok(())
}

/// Writes a limit that only version 1 has.
fn old(group: &mut Group, (controller, file): (&str, &str), field: &str, value: &str) -> Result<(), Error> {
    if group.version() == Version::V2 {
        return Err(Error::unsupported(
            field,
            "control groups of version 2 have no such limit",
        ));
    }
    group.need(controller)?;
    Ok(group.set(controller, file, value)?)
}

fn memory(group: &mut Group, m: &Memory) -> Result<(), Error> {
    let field = |name: &str| format!("linux.resources.memory.{name}");
    if m.kernel.is_some_and(|n| n > 0) {
        return Err(Error::unsupported(
            field("kernel"),
            "no kernel of today limits it apart",
        ));
    }
    if let (Some(limit), Some(swap)) = (m.limit, m.swap)
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::invalid(
            field("swap"),
            "memory and swap together are less than memory",
        ));
    }
    if m.use_hierarchy == Some(false) {
        return Err(Error::unsupported(
            field("useHierarchy"),
            "groups below are always counted",
        ));
    }
    if m.check_before_update == Some(true)
        && let Some(limit) = m.limit.filter(|n| *n > 0)
    {
        let used = match group.version() {
            Version::V1 => group.get("memory", "memory.usage_in_bytes"),
            Version::V2 => group.get("", "memory.current"),
        };
        let used: i64 = used.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        if used > limit {
            return Err(Error::State(format!(
                "cannot limit memory to {limit} bytes: {used} are in use, and checkBeforeUpdate is set"
            )));
        }
    }
    match group.version() {
        Version::V1 => memory_v1(group, m),
        Version::V2 => memory_v2(group, m),
    }
}

/// -1 means no limit in the specification, 0 that nothing was said.
fn given(n: Option<i64>) -> Option<i64> {
    n.filter(|n| *n != 0)
}

fn memory_v1(group: &mut Group, m: &Memory) -> Result<(), Error> {
    group.need("memory")?;
    let both = "memory.memsw.limit_in_bytes";
    let set = |file: &str, n: i64| group.set("memory", file, &n.to_string());
    match (given(m.limit), given(m.swap)) {
        (Some(limit), Some(swap)) => {
            // Memory may never be over memory with swap: which comes first depends on the direction of the change.
            if set("memory.limit_in_bytes", limit).is_ok() {
                set(both, swap)?;
            } else {
                set(both, swap)?;
                set("memory.limit_in_bytes", limit)?;
            }
        }
        (Some(limit), None) => {
            if let Err(e) = set("memory.limit_in_bytes", limit) {
                // Without a limit at all there is none for both together either.
                if limit != -1 || set(both, -1).is_err() {
                    return Err(e.into());
                }
                set("memory.limit_in_bytes", limit)?;
            }
        }
        (None, Some(swap)) => set(both, swap)?,
        (None, None) => {}
    }
    if let Some(n) = given(m.reservation) {
        set("memory.soft_limit_in_bytes", n)?;
    }
    if let Some(n) = given(m.kernel_tcp) {
        set("memory.kmem.tcp.limit_in_bytes", n)?;
    }
    if let Some(n) = m.swappiness {
        if n > 100 {
            return Err(Error::invalid(
                "linux.resources.memory.swappiness",
                "it goes from 0 to 100",
            ));
        }
        group.set("memory", "memory.swappiness", &n.to_string())?;
    }
    if m.disable_oom_killer == Some(true) {
        group.set("memory", "memory.oom_control", "1")?;
    }
    Ok(())
}

fn memory_v2(group: &Group, m: &Memory) -> Result<(), Error> {
    let unsupported = |name: &str| {
        Err(Error::unsupported(
            format!("linux.resources.memory.{name}"),
            "control groups of version 2 have no such limit",
        ))
    };
    if given(m.kernel_tcp).is_some() {
        return unsupported("kernelTCP");
    }
    if m.swappiness.is_some() {
        return unsupported("swappiness");
    }
    if m.disable_oom_killer == Some(true) {
        return unsupported("disableOOMKiller");
    }
    let text = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    if let Some(swap) = given(m.swap) {
        let own = match given(m.limit) {
            _ if swap < 0 => swap,
            Some(limit) if limit > 0 => swap - limit,
            _ => {
                return Err(Error::invalid(
                    "linux.resources.memory.swap",
                    "without a limit of memory there is none of both",
                ));
            }
        };
        match group.set("", "memory.swap.max", &text(own)) {
            // A kernel without swap has nothing to limit.
            Err(ContainerError::Step { source, .. }) if source.kind() == std::io::ErrorKind::NotFound && own <= 0 => {}
            other => other?,
        }
    }
    if let Some(n) = given(m.limit) {
        group.set("", "memory.max", &text(n))?;
    }
    if let Some(n) = given(m.reservation) {
        group.set("", "memory.low", &text(n))?;
    }
    Ok(())
}

fn cpu(group: &mut Group, c: &Cpu) -> Result<(), Error> {
    let field = |name: &str| format!("linux.resources.cpu.{name}");
    if group.version() == Version::V2
        && (c.realtime_period.is_some_and(|n| n != 0) || c.realtime_runtime.is_some_and(|n| n != 0))
    {
        return Err(Error::unsupported(
            field("realtimeRuntime"),
            "control groups of version 2 have no such limit",
        ));
    }
    if let Some(shares) = c.shares.filter(|n| *n != 0) {
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        if group.version() == Version::V1 {
            set(group, ("cpu", "cpu.shares"), "", &shares.to_string())?;
        } else {
            group.set("", "cpu.weight", &weight.to_string())?;
        }
    }
    let (quota, period) = (c.quota.filter(|n| *n != 0), c.period.filter(|n| *n != 0));
    match group.version() {
        Version::V1 => {
            if let Some(n) = period {
                set(group, ("cpu", "cpu.cfs_period_us"), "", &n.to_string())?;
            }
            if let Some(n) = quota {
                set(group, ("cpu", "cpu.cfs_quota_us"), "", &n.to_string())?;
            }
        }
        Version::V2 if quota.is_some() || period.is_some() => {
            let quota = quota.filter(|n| *n > 0).map_or("max".to_owned(), |n| n.to_string());
            group.set("", "cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)))?;
        }
        Version::V2 => {}
    }
    if let Some(n) = c.burst {
        set(group, ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst", &n.to_string())?;
    }
    if let Some(n) = c.realtime_period.filter(|n| *n != 0) {
        set(group, ("cpu", "cpu.rt_period_us"), "", &n.to_string())?;
    }
    if let Some(n) = c.realtime_runtime.filter(|n| *n != 0) {
        set(group, ("cpu", "cpu.rt_runtime_us"), "", &n.to_string())?;
    }
    if let Some(n) = c.idle {
        set(group, ("cpu", "cpu.idle"), "cpu.idle", &n.to_string())?;
    }
    if !c.cpus.is_empty() {
        set(group, ("cpuset", "cpuset.cpus"), "cpuset.cpus", &c.cpus)?;
    }
    if !c.mems.is_empty() {
        set(group, ("cpuset", "cpuset.mems"), "cpuset.mems", &c.mems)?;
    }
    Ok(())
}

fn block_io(group: &mut Group, io: &BlockIo) -> Result<(), Error> {
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        if group.version() == Version::V1 {
            weight_v1(group, "weight", &weight.to_string())?;
        } else {
            weight_v2(group, None, weight)?;
        }
    }
    if let Some(weight) = io.leaf_weight.filter(|w| *w != 0) {
        old(
            group,
            ("blkio", "blkio.leaf_weight"),
            "linux.resources.blockIO.leafWeight",
            &weight.to_string(),
        )?;
    }
    for d in &io.weight_device {
        if let Some(weight) = d.weight.filter(|w| *w != 0) {
            if group.version() == Version::V1 {
                weight_v1(group, "weight_device", &format!("{}:{} {weight}", d.major, d.minor))?;
            } else {
                weight_v2(group, Some((d.major, d.minor)), weight)?;
            }
        }
        if let Some(weight) = d.leaf_weight.filter(|w| *w != 0) {
            let text = format!("{}:{} {weight}", d.major, d.minor);
            let field = "linux.resources.blockIO.weightDevice.leafWeight";
            old(group, ("blkio", "blkio.leaf_weight_device"), field, &text)?;
        }
    }
    let lists: [(&[ThrottleDevice], &str, &str); 4] = [
        (&io.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
        (&io.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
        (
            &io.throttle_read_iops_device,
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            &io.throttle_write_iops_device,
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ];
    for (list, file, word) in lists {
        for d in list {
            if group.version() == Version::V1 {
                set(
                    group,
                    ("blkio", file),
                    "",
                    &format!("{}:{} {}", d.major, d.minor, d.rate),
                )?;
            } else {
                let rate = if d.rate == 0 {
                    "max".to_owned()
                } else {
                    d.rate.to_string()
                };
                group.set("", "io.max", &format!("{}:{} {word}={rate}", d.major, d.minor))?;
            }
        }
    }
    Ok(())
}

/// The file's name depends on the scheduler that offers it.
fn weight_v1(group: &mut Group, name: &str, text: &str) -> Result<(), Error> {
    group.need("blkio")?;
    let bfq = format!("blkio.bfq.{name}");
    if group.get("blkio", &bfq).is_some() {
        return Ok(group.set("blkio", &bfq, text)?);
    }
    Ok(group.set("blkio", &format!("blkio.{name}"), text)?)
}

/// Weights of version 1 go from 10 to 1000, those of version 2 from 1 to 10000.
fn weight_v2(group: &Group, device: Option<(i64, i64)>, weight: u16) -> Result<(), Error> {
    let scaled = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
    let of = |n: u64| device.map_or(n.to_string(), |(a, b)| format!("{a}:{b} {n}"));
    if group.get("", "io.bfq.weight").is_some() {
        return Ok(group.set("", "io.bfq.weight", &of(u64::from(weight)))?);
    }
    Ok(group.set("", "io.weight", &of(scaled))?)
}

/// Path below the root(s) of a container's control group.
pub fn path(id: &str, cgroups_path: &str) -> Result<String, Error> {
    let path = cgroups_path.trim_matches('/');
    if path.is_empty() {
        return Ok(format!("biga-oci-{id}"));
    }
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(Error::invalid(
            "linux.cgroupsPath",
            format!("{cgroups_path:?} is not plain"),
        ));
    }
    Ok(path.to_owned())
}

/// Ends whatever still runs in a group, and removes it.
pub fn remove(group: &Group) -> Result<(), Error> {
    if group.all_pids().is_ok_and(|p| !p.is_empty()) {
        group.kill();
    }
    group.remove().step(|| format!("remove control group {}", group.path()))
}

/// Which version this host is on, for `features`.
pub fn is_v2() -> bool {
    cgroup::version() == Version::V2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path("web", "").unwrap(), "biga-oci-web");
        assert_eq!(path("web", "/a/b").unwrap(), "a/b");
        assert_eq!(path("web", "a").unwrap(), "a");
        assert!(path("web", "/a/../b").is_err() && path("web", "//").is_ok());
    }
}
