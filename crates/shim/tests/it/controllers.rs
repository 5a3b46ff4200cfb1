//! Every controller, on whichever version of control groups the host has.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use biga_container::cgroup::{Version, version};
use biga_wire::config::{IoLimit, Limits};
use biga_wire::shim::{Reply, Request, Stats};

use crate::support::Rig;

fn v1() -> bool {
    version() == Version::V1
}

/// A file of the instance's group, as it was written.
fn file(rig: &Rig, controller: &str, name: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let root = if v1() { root.join(controller) } else { root.to_owned() };
    let path = root.join(&rig.config.cgroup).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_owned()
}

/// Whether the host has a controller at all: a guest's kernel, or a container around this host, may lack one.
fn has(controller: &str) -> bool {
    if v1() {
        return Path::new("/sys/fs/cgroup").join(controller).is_dir();
    }
    let text = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    text.split_whitespace().any(|c| c == controller)
}

fn disk() -> Option<(PathBuf, String)> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    names.sort();
    names.iter().find_map(|name| {
        let path = Path::new("/dev").join(name);
        let meta = std::fs::metadata(&path)
            .ok()
            .filter(|m| m.file_type().is_block_device())?;
        let number = std::fs::read_to_string(Path::new("/sys/block").join(name).join("dev")).ok()?;
        (meta.rdev() != 0).then(|| (path, number.trim().to_owned()))
    })
}

fn update(rig: &Rig, limits: Limits) -> Reply {
    rig.ask(Request::Update {
        limits: Box::new(limits),
    })
}

fn stats(rig: &Rig) -> Stats {
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => *stats,
        other => panic!("{other:?}"),
    }
}

#[test]
fn processors() {
    let rig = Rig::new(&["sh", "-c", "while :; do :; done"])
        .config(|c| {
            c.limits.cpu_quota = Some(10_000);
            c.limits.cpu_period = Some(50_000);
            c.limits.cpu_burst = Some(2000);
            c.limits.cpuset_mems = Some("0".into());
        })
        .up();
    let quota = || match v1() {
        true => format!(
            "{} {}",
            file(&rig, "cpu", "cpu.cfs_quota_us"),
            file(&rig, "cpu", "cpu.cfs_period_us")
        ),
        false => file(&rig, "", "cpu.max"),
    };
    let burst = || file(&rig, "cpu", if v1() { "cpu.cfs_burst_us" } else { "cpu.max.burst" });
    assert_eq!((quota(), burst()), ("10000 50000".into(), "2000".into()));
    assert_eq!(file(&rig, "cpuset", "cpuset.mems"), "0");
    crate::support::until("it to be held back", || {
        let s = stats(&rig);
        (s.throttled_periods > 0 && s.throttled_ns > 0 && s.cpu_periods >= s.throttled_periods).then_some(())
    });
    let lower = Limits {
        cpu_quota: Some(5000),
        cpu_burst: Some(0),
        ..Limits::default()
    };
    assert_eq!(update(&rig, lower), Reply::Ok);
    assert_eq!((quota(), burst()), ("5000 100000".into(), "0".into()));
    let none = Limits {
        cpu_quota: Some(-1),
        ..Limits::default()
    };
    assert_eq!(update(&rig, none), Reply::Ok);
    assert!(["-1 100000", "max 100000"].contains(&quota().as_str()), "{}", quota());
    let bad = Limits {
        cpuset_mems: Some("999".into()),
        ..Limits::default()
    };
    assert!(matches!(update(&rig, bad), Reply::Error { message, .. } if message.contains("cpuset.mems")));
}

#[test]
fn realtime() {
    let limits = |runtime, period| Limits {
        cpu_realtime_runtime: runtime,
        cpu_realtime_period: period,
        ..Limits::default()
    };
    if !v1() || !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let mut rig = Rig::new(&["true"]).config(|c| c.limits = limits(Some(1000), None));
        let refused = rig.launch();
        assert!(
            matches!(&refused, Reply::Error { message, .. } if message.contains("realtime")),
            "{refused:?}"
        );
        return;
    }
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| c.limits = limits(Some(1000), None))
        .up();
    let of = |rig: &Rig| {
        format!(
            "{} {}",
            file(rig, "cpu", "cpu.rt_runtime_us"),
            file(rig, "cpu", "cpu.rt_period_us")
        )
    };
    assert_eq!(of(&rig), "1000 1000000");
    assert_eq!(update(&rig, limits(Some(2000), Some(500_000))), Reply::Ok);
    assert_eq!(of(&rig), "2000 500000");
    assert_eq!(update(&rig, limits(Some(500), None)), Reply::Ok);
    assert_eq!(of(&rig), "500 500000");
    let more = update(&rig, limits(Some(2_000_000), Some(1_000_000)));
    assert!(
        matches!(&more, Reply::Error { message, .. } if message.contains("cpu.rt_")),
        "{more:?}"
    );
}

#[test]
fn block_devices() {
    let Some((device, number)) = disk().filter(|_| has(if v1() { "blkio" } else { "io" })) else {
        eprintln!("no block device, or nothing that limits them");
        return;
    };
    let limit = |read_bps, write_iops| IoLimit {
        device: device.clone(),
        read_bps,
        write_iops,
        ..IoLimit::default()
    };
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| c.limits.io_devices = vec![limit(Some(1 << 20), Some(50))])
        .up();
    let read = || match v1() {
        true => format!(
            "{}; {}",
            file(&rig, "blkio", "blkio.throttle.read_bps_device"),
            file(&rig, "blkio", "blkio.throttle.write_iops_device")
        ),
        false => file(&rig, "", "io.max"),
    };
    match v1() {
        true => assert_eq!(read(), format!("{number} 1048576; {number} 50")),
        false => assert_eq!(read(), format!("{number} rbps=1048576 wbps=max riops=max wiops=50")),
    }
    // A rate of 0 takes the limit away; what is not named stays.
    let changed = Limits {
        io_devices: vec![limit(Some(0), None)],
        ..Limits::default()
    };
    assert_eq!(update(&rig, changed), Reply::Ok);
    match v1() {
        true => assert_eq!(read(), format!("; {number} 50")),
        false => assert_eq!(read(), format!("{number} rbps=max wbps=max riops=max wiops=50")),
    }
    let odd = Limits {
        io_devices: vec![IoLimit {
            device: "/dev/null".into(),
            read_bps: Some(5),
            ..IoLimit::default()
        }],
        ..Limits::default()
    };
    assert!(matches!(update(&rig, odd), Reply::Error { message, .. } if message.contains("no block device")));
}

#[test]
fn weights_are_set_or_refused_by_name() {
    let mut rig = Rig::new(&["sleep", "1000"]).config(|c| c.limits.io_weight = Some(500));
    match rig.launch() {
        Reply::Status { .. } if v1() => {
            let dir = Path::new("/sys/fs/cgroup/blkio").join(&rig.config.cgroup);
            let name = if dir.join("blkio.bfq.weight").exists() {
                "blkio.bfq.weight"
            } else {
                "blkio.weight"
            };
            assert!(file(&rig, "blkio", name).contains("500"));
        }
        Reply::Status { .. } => {
            let bfq = Path::new("/sys/fs/cgroup")
                .join(&rig.config.cgroup)
                .join("io.bfq.weight")
                .exists();
            let text = file(&rig, "", if bfq { "io.bfq.weight" } else { "io.weight" });
            assert!(text.contains(if bfq { "500" } else { "4950" }), "{text}");
        }
        Reply::Error { message, .. } => {
            assert!(message.contains("bfq"), "{message}");
            assert_eq!(rig.groups(), Vec::<PathBuf>::new(), "nothing is left");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_finer() {
    if v1() {
        let rig = Rig::new(&["sleep", "1000"])
            .config(|c| {
                c.limits.memory_swappiness = Some(17);
                c.limits.oom_kill_disable = Some(true);
            })
            .up();
        assert_eq!(file(&rig, "memory", "memory.swappiness"), "17");
        assert!(file(&rig, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
        let changed = Limits {
            oom_kill_disable: Some(false),
            ..Limits::default()
        };
        assert_eq!(update(&rig, changed), Reply::Ok);
        assert!(file(&rig, "memory", "memory.oom_control").contains("oom_kill_disable 0"));
        return;
    }
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| c.limits.unified = [("memory.high".to_owned(), "67108864".to_owned())].into())
        .up();
    assert_eq!(file(&rig, "", "memory.high"), "67108864");
    for (limits, word) in [
        (
            Limits {
                oom_kill_disable: Some(true),
                ..Limits::default()
            },
            "oomKillDisable",
        ),
        (
            Limits {
                memory_swappiness: Some(5),
                ..Limits::default()
            },
            "memorySwappiness",
        ),
    ] {
        assert!(matches!(update(&rig, limits), Reply::Error { message, .. } if message.contains(word)));
    }
}

#[test]
fn huge_pages() {
    let hybrid = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    let there = has("hugetlb") || hybrid.split_whitespace().any(|c| c == "hugetlb");
    if !there || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        eprintln!("this host counts no huge pages of 2 MB");
        return;
    }
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| c.limits.hugetlb = [("2MB".to_owned(), 8 << 20)].into())
        .up();
    let read = || match (v1(), has("hugetlb")) {
        (true, true) => file(&rig, "hugetlb", "hugetlb.2MB.limit_in_bytes"),
        (true, false) => file(&rig, "unified", "hugetlb.2MB.max"),
        (false, _) => file(&rig, "", "hugetlb.2MB.max"),
    };
    assert_eq!(read(), (8 << 20).to_string());
    let more = Limits {
        hugetlb: [("2MB".to_owned(), 16 << 20)].into(),
        ..Limits::default()
    };
    assert_eq!(update(&rig, more), Reply::Ok);
    assert_eq!(read(), (16 << 20).to_string());
    assert!(stats(&rig).hugetlb.is_empty(), "none is in use");
}

#[test]
fn a_sample_has_every_figure_the_kernel_counts() {
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| c.limits.memory = Some(64 << 20))
        .up();
    let s = stats(&rig);
    assert!(s.cpu_ns > 0 && s.memory > 0 && s.pids >= 1, "{s:?}");
    assert_eq!(s.memory_limit, 64 << 20);
    let counted = !v1()
        && Path::new("/sys/fs/cgroup")
            .join(&rig.config.cgroup)
            .join("io.pressure")
            .exists();
    assert!(
        !counted || s.pressure.is_some() || std::fs::read("/proc/pressure/io").is_err(),
        "{s:?}"
    );
}
