//! Limits in the files of version 2.

use std::path::Path;

use biga_wire::config::{IoLimit, Limits};

use super::limits::{self, Quota};
use super::write;
use crate::Error;
use crate::error::Context;

/// Writes the limits that are set into the group at `dir`.
pub(super) fn apply(dir: &Path, l: &Limits) -> Result<(), Error> {
    refuse(l)?;
    let set = |file: &str, value: String| {
        let path = dir.join(file);
        write(&path, &value).step(|| format!("write {value:?} to {}", path.display()))
    };
    if let Some(bytes) = l.memory {
        set("memory.max", bytes.to_string())?;
        if let Some(swap) = l.memory_swap {
            set("memory.swap.max", swap.saturating_sub(bytes).to_string())?;
        }
    }
    if let Some(bytes) = l.memory_reservation {
        set("memory.low", bytes.to_string())?;
    }
    if let Some(q) = Quota::of(l) {
        let quota = q.quota.map_or("max".to_owned(), |n| n.to_string());
        // A burst may never be over the quota.
        if l.cpu_burst.is_some() {
            let _ = write(&dir.join("cpu.max.burst"), "0");
        }
        set("cpu.max", format!("{quota} {}", q.period))?;
    }
    if let Some(burst) = l.cpu_burst {
        set("cpu.max.burst", burst.to_string())?;
    }
    if let Some(shares) = l.cpu_shares {
        set("cpu.weight", weight(shares).to_string())?;
    }
    if let Some(cpus) = &l.cpuset_cpus {
        set("cpuset.cpus", cpus.clone())?;
    }
    if let Some(nodes) = &l.cpuset_mems {
        set("cpuset.mems", nodes.clone())?;
    }
    if let Some(pids) = l.pids {
        set("pids.max", pids.to_string())?;
    }
    if let Some(weight) = l.io_weight {
        io_weight(dir, "default", weight)?;
    }
    l.io_devices.iter().try_for_each(|d| device(dir, d))?;
    for (size, bytes) in &l.hugetlb {
        limits::plain_file(size)?;
        set(&format!("hugetlb.{size}.max"), bytes.to_string())?;
    }
    for (file, value) in &l.unified {
        limits::plain_file(file)?;
        set(file, value.clone())?;
    }
    Ok(())
}

/// What version 2 has no word for.
fn refuse(l: &Limits) -> Result<(), Error> {
    let (what, why) = if l.oom_kill_disable == Some(true) {
        (
            "oomKillDisable",
            "control groups of version 2 always kill when memory runs out",
        )
    } else if l.cpu_realtime_runtime.is_some() || l.cpu_realtime_period.is_some() {
        (
            "cpuRealtimeRuntime",
            "control groups of version 2 share no realtime among groups",
        )
    } else if l.memory_swappiness.is_some() {
        (
            "memorySwappiness",
            "control groups of version 2 have none; limit swap by memorySwap",
        )
    } else {
        return Ok(());
    };
    Err(Error::Field(what, why.into()))
}

/// The budget scheduler has a file of its own, in the scale of version 1.
fn io_weight(dir: &Path, of: &str, weight: u16) -> Result<(), Error> {
    let (file, weight) = match ["io.bfq.weight", "io.weight"]
        .into_iter()
        .find(|f| dir.join(f).exists())
    {
        Some("io.bfq.weight") => ("io.bfq.weight", u64::from(weight)),
        Some(file) => (file, 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990),
        None => return Err(limits::no_weights()),
    };
    let path = dir.join(file);
    write(&path, &format!("{of} {weight}")).step(|| format!("write weight {weight} of {of} to {}", path.display()))
}

fn device(dir: &Path, d: &IoLimit) -> Result<(), Error> {
    let number = limits::device_number(&d.device)?;
    if let Some(weight) = d.weight {
        io_weight(dir, &number, weight)?;
    }
    let rates = [
        ("rbps", d.read_bps),
        ("wbps", d.write_bps),
        ("riops", d.read_iops),
        ("wiops", d.write_iops),
    ];
    let text: Vec<String> = rates
        .iter()
        .filter_map(|(key, rate)| Some((key, (*rate)?)))
        .map(|(key, rate)| match rate {
            0 => format!("{key}=max"),
            n => format!("{key}={n}"),
        })
        .collect();
    if text.is_empty() {
        return Ok(());
    }
    let (path, line) = (dir.join("io.max"), format!("{number} {}", text.join(" ")));
    write(&path, &line).step(|| format!("write {line:?} to {}", path.display()))
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A directory with the files of a group, gone with this value.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str, files: &[&str]) -> Dir {
            let dir = std::env::temp_dir().join(format!("biga-v2-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            for f in files {
                fs::write(dir.join(f), "").unwrap();
            }
            Dir(dir)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn figures() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }

    #[test]
    fn every_limit_has_its_file() {
        let files = [
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "cpu.max",
            "cpu.max.burst",
            "cpu.weight",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
            "io.weight",
            "io.max",
            "hugetlb.2MB.max",
            "memory.high",
        ];
        let d = Dir::new("all", &files);
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            memory_reservation: Some(32 << 20),
            cpu_millis: Some(1500),
            cpu_period: Some(50_000),
            cpu_burst: Some(7),
            cpu_shares: Some(1024),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: Some("0".into()),
            pids: Some(9),
            io_weight: Some(500),
            hugetlb: [("2MB".to_owned(), 4 << 20)].into(),
            unified: [("memory.high".to_owned(), "48M".to_owned())].into(),
            ..Limits::default()
        };
        apply(&d.0, &limits).unwrap();
        let seen: Vec<String> = files.iter().map(|f| d.read(f)).collect();
        let (memory, swap, low) = ((64 << 20).to_string(), (32 << 20).to_string(), (32 << 20).to_string());
        let huge = (4 << 20).to_string();
        let expected: [&str; 13] = [
            &memory,
            &swap,
            &low,
            "75000 50000",
            "7",
            "39",
            "0-1",
            "0",
            "9",
            "default 4950",
            "",
            &huge,
            "48M",
        ];
        // The first write of a burst is a nought, which a real file replaces.
        assert_eq!(seen[4].trim_start_matches('0'), "7");
        for (i, (got, want)) in seen.iter().zip(expected).enumerate().filter(|(i, _)| *i != 4) {
            assert_eq!(got, want, "{}", files[i]);
        }
    }

    #[test]
    fn block_devices() {
        let d = Dir::new("io", &["io.bfq.weight", "io.max"]);
        let limit = |device: &str| Limits {
            io_devices: vec![IoLimit {
                device: device.into(),
                weight: Some(300),
                read_bps: Some(1 << 20),
                write_iops: Some(0),
                ..IoLimit::default()
            }],
            ..Limits::default()
        };
        let e = apply(&d.0, &limit("/dev/null")).unwrap_err().to_string();
        assert!(e.contains("no block device"), "{e}");
        if let Some(disk) = limits::any_disk() {
            let number = limits::device_number(&disk).unwrap();
            apply(&d.0, &limit(disk.to_str().unwrap())).unwrap();
            assert_eq!(d.read("io.bfq.weight"), format!("{number} 300"));
            assert_eq!(d.read("io.max"), format!("{number} rbps=1048576 wiops=max"));
        }
    }

    #[test]
    fn what_version_2_lacks_is_refused() {
        let d = Dir::new("refused", &[]);
        let swappiness = Limits {
            memory_swappiness: Some(10),
            ..Limits::default()
        };
        let oom = Limits {
            oom_kill_disable: Some(true),
            ..Limits::default()
        };
        let climb = Limits {
            unified: [("../x".to_owned(), "1".to_owned())].into(),
            ..Limits::default()
        };
        for l in [swappiness, oom, climb] {
            assert!(matches!(apply(&d.0, &l), Err(Error::Field(..))), "{l:?}");
        }
    }
}
