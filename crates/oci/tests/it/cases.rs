//! The tables of [`crate::conformance`].

use std::path::Path;

use serde_json::{Value, json};

use crate::conformance::Case;
use crate::support::mount;

/// A change of a configuration; the path is the bundle's.
pub type Change = fn(&mut Value, &Path);

const NOTHING: Change = |_, _| {};

const fn case(name: &'static str, change: Change, script: &'static str) -> Case {
    Case { name, change, script }
}

/// Who a process is and what it may do.
pub const PROCESS: &[Case] = &[
    case(
        "plain",
        NOTHING,
        "id -u; id -g; pwd; env | sort; hostname; umask; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
    ),
    case(
        "user, groups and mask",
        |c, _| c["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27}),
        "id -u; id -g; id -G; umask; cat /proc/self/setgroups; touch /tmp/x 2>&1; grep Cap /proc/self/status",
    ),
    case(
        "no capabilities at all",
        |c, _| drop(c["process"].as_object_mut().unwrap().remove("capabilities")),
        "grep Cap /proc/self/status",
    ),
    case(
        "each set its own",
        |c, _| {
            c["process"]["capabilities"] = json!({
                "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"],
            })
        },
        "grep Cap /proc/self/status",
    ),
    case(
        "a user with ambient ones",
        |c, _| {
            c["process"]["user"] = json!({"uid": 7, "gid": 7});
            let all = ["CAP_KILL", "CAP_CHOWN"];
            c["process"]["capabilities"] = json!({
                "bounding": all, "permitted": all, "effective": all, "inheritable": all, "ambient": ["CAP_KILL"],
            })
        },
        "id -u; grep Cap /proc/self/status",
    ),
    case(
        "no new privileges",
        |c, _| c["process"]["noNewPrivileges"] = true.into(),
        "grep NoNewPrivs /proc/self/status",
    ),
    case(
        "limits",
        |c, _| {
            c["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_STACK", "soft": 1048576, "hard": 2097152},
            ])
        },
        "grep -E '(open files|core file|stack)' /proc/self/limits",
    ),
    case(
        "badness",
        |c, _| c["process"]["oomScoreAdj"] = 321.into(),
        "cat /proc/self/oom_score_adj",
    ),
    case(
        "a directory that is not there",
        |c, _| c["process"]["cwd"] = "/new/deep".into(),
        "pwd; stat -c '%a %u' /new/deep",
    ),
    case("an exit code", NOTHING, "exit 7"),
    case("a signal", NOTHING, "sh -c 'kill -9 $$'; echo $?"),
    case(
        "the environment is all there is",
        |c, _| c["process"]["env"] = json!(["PATH=/bin", "A=1", "B=two words"]),
        "env | sort",
    ),
    case("a session of its own", NOTHING, "cut -d' ' -f5,6 /proc/1/stat"),
];

/// Shows a mount without what differs from run to run.
macro_rules! shown {
    ($at:literal) => {
        concat!(
            "awk '$5 == \"",
            $at,
            "\" { s = $6; for (i = 7; $i != \"-\"; i++) { sub(/:.*/, \"\", $i); s = s \" \" $i } print s, $(i + 1) }' /proc/self/mountinfo"
        )
    };
}

/// The file system.
pub const MOUNTS: &[Case] = &[
    case(
        "the list",
        NOTHING,
        "awk '$5 !~ /cgroup/ && $5 !~ /^.proc.(kcore|keys|timer_list|scsi)$/ && $5 != \"/sys/firmware\" { print $5, $6 }' /proc/self/mountinfo",
    ),
    case(
        "a tmpfs",
        |c, _| {
            mount(
                c,
                json!({"destination": "/a/b", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=64k", "mode=700"]}),
            )
        },
        concat!(
            shown!("/a/b"),
            "; stat -c %a /a/b; grep -o size=64k /proc/mounts; touch /a/b/x && ls /a/b"
        ),
    ),
    case(
        "a read-only tmpfs",
        |c, _| {
            mount(
                c,
                json!({"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid", "nodev"]}),
            )
        },
        concat!(shown!("/a"), "; touch /a/x 2>&1"),
    ),
    case(
        "a copy of what is there",
        |c, dir| {
            std::fs::create_dir(dir.join("rootfs/full")).unwrap();
            std::fs::write(dir.join("rootfs/full/x"), "text").unwrap();
            mount(
                c,
                json!({"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
            )
        },
        "cat /full/x; echo more >/full/x; cat /full/x; stat -f -c %T /full",
    ),
    case(
        "a directory",
        |c, dir| {
            std::fs::create_dir(dir.join("data")).unwrap();
            std::fs::write(dir.join("data/x"), "text").unwrap();
            mount(
                c,
                json!({"destination": "/data", "type": "bind", "source": dir.join("data"), "options": ["rbind", "rprivate"]}),
            )
        },
        concat!(shown!("/data"), "; cat /data/x; touch /data/y && ls /data"),
    ),
    case(
        "a read-only directory",
        |c, dir| {
            std::fs::create_dir(dir.join("data")).unwrap();
            mount(
                c,
                json!({"destination": "/data", "type": "none", "source": "data", "options": ["bind", "ro", "nosuid", "noexec"]}),
            )
        },
        concat!(shown!("/data"), "; touch /data/y 2>&1"),
    ),
    case(
        "a file",
        |c, dir| {
            std::fs::write(dir.join("file"), "text").unwrap();
            mount(
                c,
                json!({"destination": "/etc/deep/file", "type": "bind", "source": dir.join("file"), "options": ["bind"]}),
            )
        },
        "cat /etc/deep/file; stat -c %F /etc/deep/file",
    ),
    case(
        "a link of the image stays inside",
        |c, dir| {
            std::os::unix::fs::symlink("/etc", dir.join("rootfs/link")).unwrap();
            std::os::unix::fs::symlink("../../../../../../etc", dir.join("rootfs/up")).unwrap();
            std::fs::create_dir(dir.join("data")).unwrap();
            std::fs::write(dir.join("data/x"), "text").unwrap();
            for at in ["/link/one", "/up/two"] {
                mount(
                    c,
                    json!({"destination": at, "type": "bind", "source": dir.join("data"), "options": ["bind"]}),
                )
            }
        },
        "cat /etc/one/x /etc/two/x; ls /etc",
    ),
    case(
        "propagation of mounts",
        |c, dir| {
            for name in ["shared", "slave", "private", "unbindable"] {
                let data = dir.join(name);
                std::fs::create_dir(&data).unwrap();
                mount(
                    c,
                    json!({"destination": format!("/{name}"), "type": "bind", "source": data, "options": ["bind", name]}),
                );
            }
        },
        concat!(shown!("/shared"), ";", shown!("/private"), ";", shown!("/unbindable")),
    ),
    case(
        "a private root",
        |c, _| c["linux"]["rootfsPropagation"] = "rprivate".into(),
        shown!("/"),
    ),
    case(
        "a read-only root",
        |c, _| {
            c["root"]["readonly"] = true.into();
            // Left out, it differs where the host's root is shared: see the list of differences.
            c["linux"]["rootfsPropagation"] = "private".into();
        },
        concat!(shown!("/"), "; touch /x 2>&1; touch /dev/shm/x && echo shm"),
    ),
    case(
        "hidden and protected paths",
        |c, dir| {
            std::fs::create_dir(dir.join("rootfs/secret")).unwrap();
            std::fs::write(dir.join("rootfs/secret/x"), "text").unwrap();
            std::fs::write(dir.join("rootfs/etc/key"), "text").unwrap();
            std::fs::create_dir(dir.join("rootfs/fixed")).unwrap();
            let masked = ["/proc/kcore", "/proc/keys", "/secret", "/etc/key", "/not/there"];
            c["linux"]["maskedPaths"] = json!(masked);
            c["linux"]["readonlyPaths"] = json!(["/proc/sys", "/fixed", "/not/there"]);
        },
        "cat /proc/kcore /proc/keys /etc/key | wc -c; ls /secret | wc -l; touch /secret/y 2>&1; touch /fixed/x 2>&1; \
         echo 1 2>&1 >/proc/sys/net/ipv4/ip_forward || echo no",
    ),
    case(
        "links of /dev",
        NOTHING,
        "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; ls /dev | grep -v core",
    ),
    case(
        "the root is left for good",
        NOTHING,
        "ls / | sort | tr '\\n' ' '; cd /..; pwd; cat /proc/self/mountinfo | wc -l | grep -c .",
    ),
];

/// Which namespaces are its own: `ours`/`host` for each.
const COMPARE: &str = "for n in pid net ipc uts mnt cgroup user; do \
     [ \"$(readlink /proc/self/ns/$n)\" = \"$(eval echo \\$HOST_$n)\" ] && echo $n host || echo $n own; done";

/// Ids of its own, and a root that these can use.
pub fn map_ids(c: &mut Value, dir: &Path) {
    let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 5000}]);
    c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 5000}]);
    // Its root must be able to look at its own root file system.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    for d in ["rootfs/tmp", "rootfs", "rootfs/etc"] {
        std::os::unix::fs::chown(dir.join(d), Some(100_000), Some(200_000)).unwrap();
    }
}

fn tell_host(c: &mut Value) {
    for n in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{n}")).unwrap();
        let line = format!("HOST_{n}={}", link.display());
        c["process"]["env"].as_array_mut().unwrap().push(line.into());
    }
}

/// Namespaces.
pub const NAMESPACES: &[Case] = &[
    case("all", |c, _| tell_host(c), COMPARE),
    case(
        "the least",
        |c, _| {
            tell_host(c);
            drop(c.as_object_mut().unwrap().remove("hostname"));
            c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
            // The host's network cannot be seen by a new sysfs.
            c["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|m| !m["destination"].as_str().unwrap().starts_with("/sys"));
        },
        COMPARE,
    ),
    case(
        "processes of the host",
        |c, _| {
            tell_host(c);
            c["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|n| n["type"] != "pid");
        },
        "[ $$ != 1 ] && echo not first; test -d /proc/2 && echo sees others",
    ),
    case(
        "the network of the host, by path",
        |c, _| {
            tell_host(c);
            for n in c["linux"]["namespaces"].as_array_mut().unwrap() {
                if n["type"] == "network" {
                    n["path"] = format!("/proc/{}/ns/net", std::process::id()).into();
                }
            }
        },
        COMPARE,
    ),
    case(
        "ipc and names of the host, by path",
        |c, _| {
            tell_host(c);
            drop(c.as_object_mut().unwrap().remove("hostname"));
            for n in c["linux"]["namespaces"].as_array_mut().unwrap() {
                let name = n["type"].as_str().unwrap().to_owned();
                if ["ipc", "uts"].contains(&name.as_str()) {
                    n["path"] = format!("/proc/{}/ns/{name}", std::process::id()).into();
                }
            }
        },
        COMPARE,
    ),
    case(
        "its own network",
        NOTHING,
        "ip -o link | cut -d: -f2; ip -o addr show lo | grep -c 127.0.0.1",
    ),
    case("first of its processes", NOTHING, "echo $$; cat /proc/1/comm"),
    case(
        "ids of its own",
        map_ids,
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x && stat -c '%u %g' /tmp/x /bin/busybox; \
         echo x >/dev/null && echo null; stat -c %t:%T /dev/null; hostname; grep CapEff /proc/self/status",
    ),
    case(
        "parameters of its own",
        |c, _| c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456"}),
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
    ),
];

/// Devices and limits.
pub const RESOURCES: &[Case] = &[
    case(
        "nodes",
        |c, _| {
            c["linux"]["devices"] = json!([
                {"type": "c", "path": "/dev/deep/zero", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
                {"type": "p", "path": "/dev/pipe", "fileMode": 0o600},
            ])
        },
        "stat -c '%F %a %u %g %t:%T' /dev/deep/zero; stat -c '%F %a' /dev/pipe; head -c 3 /dev/deep/zero | wc -c; \
         for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done",
    ),
    case(
        "only the usual devices can be used",
        NOTHING,
        "mknod /dev/k c 1 11 && echo made; head -c 1 /dev/k 2>&1; mknod /dev/z c 1 5; head -c 1 /dev/z | wc -c",
    ),
    // The control device of loop devices: who may open it needs no capability.
    case(
        "and those that are allowed",
        |c, _| {
            let list = c["linux"]["resources"]["devices"].as_array_mut().unwrap();
            list.push(json!({"allow": true, "type": "c", "major": 10, "minor": 237, "access": "rm"}));
        },
        "mknod /dev/k c 10 237 && sh -c ': </dev/k' && echo read; sh -c ': >>/dev/k' 2>&1",
    ),
    case(
        "all devices",
        |c, _| c["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]),
        "mknod /dev/k c 10 237 && sh -c ': </dev/k' && echo read",
    ),
    case(
        "limits of every kind",
        |c, _| {
            c["linux"]["resources"] = json!({
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728},
                "cpu": {"shares": 300, "quota": 50_000, "period": 100_000, "cpus": "0"},
                "pids": {"limit": 77},
            })
        },
        "cd /sys/fs/cgroup; if [ -d memory ]; then cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes \
         memory/memory.memsw.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
         cpuset/cpuset.cpus pids/pids.max; else cat memory.max cpu.weight cpu.max cpuset.cpus pids.max; fi; \
         grep Cpus_allowed_list /proc/self/status",
    ),
    case(
        "control groups are seen, not changed",
        NOTHING,
        "mkdir /sys/fs/cgroup/memory/x 2>&1",
    ),
    case(
        "its group is the root of what it sees",
        NOTHING,
        // Version 2 has one line without controllers.
        "{ grep -E ':(memory|pids|devices):' /proc/self/cgroup || cat /proc/self/cgroup; } | cut -d: -f3 | sort -u",
    ),
];

/// A disk of the host: `MAJOR, MINOR`.
fn disk() -> (u64, u64) {
    let mut names: Vec<_> = std::fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    names.sort();
    let is_loop = |p: &&std::path::PathBuf| p.to_string_lossy().contains("/loop");
    let disk = names.iter().find(|p| !is_loop(p)).expect("a disk");
    let number = std::fs::read_to_string(disk.join("dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

/// The container's own control group, with the right to make some below it.
pub fn own_groups(c: &mut Value) {
    for m in c["mounts"].as_array_mut().unwrap() {
        if m["type"] == "cgroup" {
            m["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        }
    }
}

/// Limits in the words of control groups of version 2.
pub const VERSION_2: &[Case] = &[
    case(
        "nothing is limited",
        NOTHING,
        "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max; cat cgroup.controllers",
    ),
    case(
        "limits that say that there is none",
        |c, _| {
            c["linux"]["resources"] = json!({
                "memory": {"limit": -1, "swap": -1, "reservation": -1}, "cpu": {"quota": -1, "period": 50_000}, "pids": {"limit": -1},
            })
        },
        "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low cpu.max pids.max",
    ),
    case(
        "memory with swap without end",
        |c, _| c["linux"]["resources"]["memory"] = json!({"limit": 50_331_648, "swap": -1}),
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max",
    ),
    case(
        "memory without swap",
        |c, _| c["linux"]["resources"]["memory"] = json!({"limit": 50_331_648, "swap": 50_331_648}),
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max",
    ),
    case(
        "the least share",
        |c, _| c["linux"]["resources"]["cpu"] = json!({"shares": 2}),
        "cat /sys/fs/cgroup/cpu.weight",
    ),
    case(
        "the usual share",
        |c, _| c["linux"]["resources"]["cpu"] = json!({"shares": 1024}),
        "cat /sys/fs/cgroup/cpu.weight",
    ),
    case(
        "the most of a share",
        |c, _| c["linux"]["resources"]["cpu"] = json!({"shares": 262_144}),
        "cat /sys/fs/cgroup/cpu.weight",
    ),
    case(
        "processors and nodes",
        |c, _| c["linux"]["resources"]["cpu"] = json!({"cpus": "1", "mems": "0"}),
        "cat /sys/fs/cgroup/cpuset.cpus.effective /sys/fs/cgroup/cpuset.mems.effective; grep _allowed_list /proc/self/status",
    ),
    case(
        "rates of a disk",
        |c, _| {
            let (major, minor) = disk();
            let rate = |n: u64| json!([{"major": major, "minor": minor, "rate": n}]);
            c["linux"]["resources"]["blockIO"] = json!({
                "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
                "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
            })
        },
        "cat /sys/fs/cgroup/io.max",
    ),
    case(
        "huge pages",
        |c, _| c["linux"]["resources"]["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]),
        "cat /sys/fs/cgroup/hugetlb.2MB.max",
    ),
    case(
        "files by name",
        |c, _| {
            c["linux"]["resources"]["unified"] =
                json!({"memory.high": "50331648", "cpu.weight": "77", "pids.max": "33", "memory.oom.group": "1"})
        },
        "cd /sys/fs/cgroup; cat memory.high cpu.weight pids.max memory.oom.group",
    ),
    case(
        "too many processes",
        |c, _| c["linux"]["resources"]["pids"] = json!({"limit": 3}),
        "(sleep 9 & sleep 9 & sleep 9 & sleep 9) 2>/dev/null; echo $?; cat /sys/fs/cgroup/pids.events",
    ),
    case(
        "all devices but some",
        |c, _| {
            c["linux"]["resources"]["devices"] = json!([
                {"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 10, "minor": 237, "access": "w"},
                {"allow": false, "type": "b", "major": 7, "access": "rw"},
            ])
        },
        "mknod /dev/k c 10 237 && sh -c ': </dev/k' && echo read; sh -c ': >>/dev/k' 2>&1; mknod /dev/l b 7 0; \
         sh -c ': </dev/l' 2>&1; mknod /dev/f c 1 7 && head -c 2 /dev/f | wc -c",
    ),
    case(
        "groups of its own below",
        |c, _| own_groups(c),
        "cd /sys/fs/cgroup; stat -c '%u %n' . cgroup.procs pids.max; mkdir a b && echo $$ >a/cgroup.procs && \
         echo +pids >cgroup.subtree_control && echo 5 >b/pids.max && cat b/pids.max /proc/self/cgroup",
    ),
    case(
        "memory runs out",
        |c, _| c["linux"]["resources"]["memory"] = json!({"limit": 8_388_608, "swap": 8_388_608}),
        // How many are killed is the kernel's choice.
        "(cat /dev/zero | head -c 100000000 | tail >/dev/null) 2>/dev/null; grep -q '^oom_kill [1-9]' /sys/fs/cgroup/memory.events && echo killed",
    ),
];

/// System call filters.
pub const FILTERS: &[Case] = &[
    case(
        "one call is refused",
        |c, _| {
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
            })
        },
        "mkdir /tmp/x 2>&1; touch /tmp/y && echo touched; grep Seccomp: /proc/self/status",
    ),
    case(
        "one call is the end",
        |c, _| {
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
            })
        },
        "sh -c 'mkdir /tmp/x'; echo $?",
    ),
    case(
        "an argument decides",
        |c, _| {
            c["process"]["noNewPrivileges"] = true.into();
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}],
            })
        },
        "trap 'echo got it' USR2; kill -USR1 $$ 2>&1; kill -USR2 $$; echo end",
    ),
    case(
        "a user with a filter and no right to install one",
        |c, _| {
            c["process"]["user"] = json!({"uid": 5, "gid": 5});
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            })
        },
        "uname -r 2>&1; id -u",
    ),
];

/// Refused by both.
pub const REFUSED: &[(&str, Change)] = &[
    ("no arguments", |c, _| c["process"]["args"] = json!([])),
    ("a namespace that does not exist", |c, _| {
        c["linux"]["namespaces"][0]["type"] = "odd".into()
    }),
    ("a namespace twice", |c, _| {
        c["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "pid"}))
    }),
    ("a path that is no namespace", |c, _| {
        c["linux"]["namespaces"][1]["path"] = "/etc/passwd".into()
    }),
    ("a kernel parameter of the host", |c, _| {
        c["linux"]["sysctl"] = json!({"kernel.pid_max": "100"})
    }),
    ("a limit that does not exist", |c, _| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_ODD", "soft": 1, "hard": 1}])
    }),
    ("a program that is not there", |c, _| {
        c["process"]["args"] = json!(["nothing"])
    }),
    ("a program that cannot be executed", |c, dir| {
        std::fs::write(dir.join("rootfs/etc/text"), "text").unwrap();
        c["process"]["args"] = json!(["/etc/text"]);
    }),
    ("a root that is not there", |c, _| c["root"]["path"] = "nowhere".into()),
    ("a source that is not there", |c, _| {
        mount(
            c,
            json!({"destination": "/x", "type": "bind", "source": "/not/there", "options": ["bind"]}),
        )
    }),
    ("a file system that does not exist", |c, _| {
        mount(c, json!({"destination": "/x", "type": "oddfs", "source": "x"}))
    }),
    ("something over /proc", |c, _| {
        mount(c, json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}))
    }),
    ("something inside /proc", |c, dir| {
        mount(
            c,
            json!({"destination": "/proc/self", "type": "bind", "source": dir, "options": ["bind"]}),
        )
    }),
    ("a device of no type", |c, _| {
        c["linux"]["devices"] = json!([{"type": "z", "path": "/dev/x", "major": 1, "minor": 1}])
    }),
    ("a file where a directory is needed", |c, dir| {
        std::fs::write(dir.join("rootfs/etc/file"), "").unwrap();
        mount(
            c,
            json!({"destination": "/etc/file", "type": "tmpfs", "source": "tmpfs"}),
        )
    }),
    ("a filter of no action", |c, _| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ODD"})
    }),
    (
        "every call answered by somebody",
        |c, _| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/not/there.sock"}),
    ),
    ("the runtime's own word answered by somebody", |c, _| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/not/there.sock",
            "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}],
        })
    }),
    (
        "an answer that nobody gives",
        |c, _| {
            c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})
        },
    ),
    ("less memory and swap than memory", |c, _| {
        c["linux"]["resources"]["memory"] = json!({"limit": 67_108_864, "swap": 33_554_432})
    }),
];
