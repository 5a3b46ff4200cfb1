//! Parts of `HostConfig` that are numbers, ports and host lines.

use std::collections::BTreeSet;

use biga_model::{Cpus, HostAlias, IoDevice, Memory, PortMapping, Protocol, Resources};
use serde_json::Value;

use super::create::Around;
use crate::error::Error;
use crate::types::container::{CreateBody, HostConfig, PortBinding, Resources as DockerResources};

/// Bytes, of which zero means nothing.
pub fn bytes(field: &str, n: i64) -> Result<Option<Memory>, Error> {
    match u64::try_from(n) {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(Memory(n))),
        Err(_) => Err(Error::bad(format!("{field} cannot be negative: {n}"))),
    }
}

/// Limits.
pub fn resources(h: &HostConfig, warnings: &mut Vec<String>) -> Result<Resources, Error> {
    let mut r = Resources::default();
    limits(&h.resources, &mut r, warnings)?;
    if h.oom_score_adj != 0 {
        r.oom_score_adj = Some(h.oom_score_adj);
    }
    Ok(r)
}

/// Writes the limits that are given; what is zero stays as it is.
pub fn limits(d: &DockerResources, r: &mut Resources, warnings: &mut Vec<String>) -> Result<(), Error> {
    processors(d, r)?;
    realtime(d, r)?;
    finer(d, r)?;
    if d.oom_kill_disable == Some(true) && d.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .into(),
        );
    }
    match d.cpu_shares {
        0 => {}
        n if n < 0 => return Err(Error::bad(format!("shares cannot be negative: {n}"))),
        n => r.cpu_shares = Some(n.unsigned_abs().clamp(2, 262_144)),
    }
    if !d.cpuset_cpus.is_empty() {
        r.cpuset_cpus = Some(d.cpuset_cpus.clone());
    }
    if let Some(m) = bytes("Memory", d.memory)? {
        if m.bytes() < 6 << 20 {
            return Err(Error::bad("Minimum memory limit allowed is 6MB"));
        }
        r.memory = Some(m);
    }
    match d.memory_swap {
        0 => {}
        -1 => {
            r.memory_swap = None;
            if r.memory.is_some() {
                warnings.push("MemorySwap -1: swap is left to the kernel's own limit".into());
            }
        }
        n => {
            let m = bytes("MemorySwap", n)?;
            if r.memory.is_none() {
                return Err(Error::bad(
                    "You should always set the Memory limit when using Memoryswap limit, see usage",
                ));
            }
            if m < r.memory {
                return Err(Error::bad(
                    "Minimum memoryswap limit should be larger than memory limit, see usage",
                ));
            }
            r.memory_swap = m;
        }
    }
    if let Some(m) = bytes("MemoryReservation", d.memory_reservation)? {
        r.memory_reservation = Some(m);
    }
    match d.pids_limit {
        None => {}
        Some(n) if n <= 0 => r.pids_limit = None,
        Some(n) => r.pids_limit = Some(u32::try_from(n).unwrap_or(u32::MAX)),
    }
    Ok(())
}

fn processors(d: &DockerResources, r: &mut Resources) -> Result<(), Error> {
    let range = || Error::bad("range of CPUs is from 0.01 to the number of processors");
    for (what, given) in [("CPU Period", d.cpu_period != 0), ("CPU Quota", d.cpu_quota != 0)] {
        if d.nano_cpus != 0 && given {
            return Err(Error::bad(format!(
                "Conflicting options: Nano CPUs and {what} cannot both be set"
            )));
        }
    }
    if d.nano_cpus != 0 {
        match u32::try_from(d.nano_cpus / 1_000_000) {
            Ok(0) | Err(_) => return Err(range()),
            Ok(m) => r.cpus = Some(Cpus(m)),
        }
        (r.cpu_quota, r.cpu_period) = (None, None);
    }
    match d.cpu_quota {
        0 => {}
        q if q != -1 && q < 1000 => return Err(Error::bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")),
        q => (r.cpu_quota, r.cpus) = (Some(q), None),
    }
    match d.cpu_period {
        0 => {}
        p if !(1000..=1_000_000).contains(&p) => {
            return Err(Error::bad(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ));
        }
        p => r.cpu_period = Some(p.unsigned_abs()),
    }
    Ok(())
}

/// Whether the kernel shares any is looked at where it is known.
fn realtime(d: &DockerResources, r: &mut Resources) -> Result<(), Error> {
    let (runtime, period) = (d.cpu_realtime_runtime, d.cpu_realtime_period);
    if runtime != 0 && period != 0 && runtime > period {
        return Err(Error::bad(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    for (n, to) in [
        (runtime, &mut r.cpu_realtime_runtime),
        (period, &mut r.cpu_realtime_period),
    ] {
        match u64::try_from(n) {
            Ok(0) => {}
            Ok(n) => *to = Some(n),
            Err(_) => return Err(Error::bad(format!("microseconds of realtime cannot be negative: {n}"))),
        }
    }
    Ok(())
}

/// Memory nodes, swappiness, and block devices.
fn finer(d: &DockerResources, r: &mut Resources) -> Result<(), Error> {
    if !d.cpuset_mems.is_empty() {
        r.cpuset_mems = Some(d.cpuset_mems.clone());
    }
    match d.memory_swappiness {
        None | Some(-1) => {}
        Some(n) if (0..=100).contains(&n) => r.memory_swappiness = Some(n.unsigned_abs()),
        Some(n) => {
            return Err(Error::bad(format!(
                "Invalid value: {n}, valid memory swappiness range is 0-100"
            )));
        }
    }
    if d.oom_kill_disable == Some(true) {
        r.oom_kill_disable = Some(true);
    }
    if d.blkio_weight != 0 {
        r.io_weight = Some(d.blkio_weight);
    }
    let mut of = |path: &str| -> usize {
        let at = r.io_devices.iter().position(|d| d.path == path);
        at.unwrap_or_else(|| {
            r.io_devices.push(IoDevice {
                path: path.to_owned(),
                ..IoDevice::default()
            });
            r.io_devices.len() - 1
        })
    };
    let weights: Vec<(usize, u16)> = d.blkio_weight_device.iter().map(|w| (of(&w.path), w.weight)).collect();
    let mut rates = Vec::new();
    let lists = [
        &d.blkio_device_read_bps,
        &d.blkio_device_write_bps,
        &d.blkio_device_read_iops,
        &d.blkio_device_write_iops,
    ];
    for (kind, list) in lists.into_iter().enumerate() {
        rates.extend(list.iter().map(|t| (kind, of(&t.path), t.rate)));
    }
    for (i, weight) in weights {
        r.io_devices[i].weight = Some(weight);
    }
    for (kind, i, rate) in rates {
        let device = &mut r.io_devices[i];
        match kind {
            0 => device.read_bps = Some(Memory(rate)),
            1 => device.write_bps = Some(Memory(rate)),
            2 => device.read_iops = Some(rate),
            _ => device.write_iops = Some(rate),
        }
    }
    Ok(())
}

/// A port as `80/tcp`; `None` where it is none, or of a protocol that cannot be published.
fn port(text: &str) -> Result<(u16, Protocol), Error> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(Error::bad(format!("invalid port specification: {text:?}"))),
    };
    match number.parse() {
        Ok(n) if n > 0 => Ok((n, protocol)),
        _ => Err(Error::bad(format!("invalid port specification: {text:?}"))),
    }
}

/// Published ports.
pub fn ports(body: &CreateBody, image: &Value) -> Result<Vec<PortMapping>, Error> {
    let h = &body.host_config;
    let mut out = Vec::new();
    let mut bound = BTreeSet::new();
    for (text, bindings) in &h.port_bindings {
        let (number, protocol) = port(text)?;
        bound.insert((number, protocol.as_str()));
        let any = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|b| !b.is_empty()).unwrap_or(&any);
        for b in bindings {
            let (host_port, host_port_end) = host_port(&b.host_port)?;
            out.push(PortMapping {
                port: number,
                host_port,
                host_port_end,
                host_ip: host_ip(&b.host_ip),
                protocol,
            });
        }
    }
    if h.publish_all_ports {
        for text in exposed(body, image) {
            let Ok((number, protocol)) = port(&text) else { continue };
            if bound.insert((number, protocol.as_str())) {
                out.push(PortMapping {
                    port: number,
                    host_port: None,
                    host_port_end: None,
                    host_ip: None,
                    protocol,
                });
            }
        }
    }
    // `-p 80:80` of clients that bind both address families comes twice, and once with the address that stands for all.
    let mut seen = Vec::new();
    out.retain(|p| {
        let mut plain = p.clone();
        plain.host_ip = plain.host_ip.filter(|ip| ip != "0.0.0.0");
        let fresh = !seen.contains(&plain);
        seen.push(plain);
        fresh
    });
    Ok(out)
}

/// Ports the image or the client exposes.
pub fn exposed(body: &CreateBody, image: &Value) -> BTreeSet<String> {
    let own = image.get("ExposedPorts").and_then(Value::as_object);
    let own = own.into_iter().flat_map(|m| m.keys().cloned());
    own.chain(body.exposed_ports.keys().cloned()).collect()
}

fn host_ip(text: &str) -> Option<String> {
    match text {
        "" => None,
        ip => Some(ip.trim_matches(['[', ']']).to_string()),
    }
}

/// One port, or the ends of a range of which one is picked.
fn host_port(text: &str) -> Result<(Option<u16>, Option<u16>), Error> {
    let bad = || Error::bad(format!("invalid port specification: {text:?}"));
    let one = |t: &str| t.parse::<u16>().map_err(|_| bad());
    match text.split_once('-') {
        Some((first, last)) => match (one(first)?, one(last)?) {
            (0, _) => Err(bad()),
            (a, b) if a > b => Err(bad()),
            (a, b) => Ok((Some(a), Some(b).filter(|b| *b != a))),
        },
        None if matches!(text, "" | "0") => Ok((None, None)),
        None => one(text).map(|n| (Some(n), None)),
    }
}

/// Lines of `/etc/hosts`, as `name:address`; `host-gateway` is the node itself.
pub fn extra_hosts(h: &HostConfig, around: &Around) -> Result<Vec<HostAlias>, Error> {
    let mut out = Vec::new();
    for line in &h.extra_hosts {
        let (name, ip) = line
            .split_once([':', '='])
            .ok_or_else(|| Error::bad(format!("bad format for add-host: {line:?}")))?;
        let ip = match ip {
            "host-gateway" => gateway(h, around)?,
            ip => ip.trim_matches(['[', ']']).to_string(),
        };
        out.push(HostAlias {
            ip,
            hostnames: vec![name.to_string()],
        });
    }
    Ok(out)
}

fn gateway(h: &HostConfig, around: &Around) -> Result<String, Error> {
    let name = super::ids::network_name(match h.network_mode.as_str() {
        "" | "default" => "bridge",
        m => m,
    });
    let known = around.networks.iter().find(|n| n.name == name || n.id == name);
    match known.map(|n| n.gateway.clone()).filter(|g| !g.is_empty()) {
        Some(g) => Ok(g),
        None => Err(Error::missing("host-gateway before the network was first used")),
    }
}
