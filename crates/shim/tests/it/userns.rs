//! Containers whose root is nobody on the host.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use biga_wire::config::{IdMap, Mount, MountHow, MountSource};
use biga_wire::shim::{Reply, Request};

use crate::support::{Rig, until};

const IDS: IdMap = IdMap {
    base: 1_500_000,
    size: 65_536,
};

fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: path.to_owned(),
            sub_path: None,
        },
        target: target.into(),
        read_only: false,
        copy_up: false,
        how: MountHow::default(),
    }
}

fn mapped(script: &str) -> Rig {
    Rig::sh(script).with(|c| c.namespaces.user = Some(IDS))
}

#[test]
fn root_inside_is_nobody_outside() {
    let rig = mapped("id -u; cat /proc/self/uid_map; sleep 1000").up();
    until("its ids", || rig.log().contains("65536").then_some(()));
    let words: Vec<String> = rig.log().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["0", "0", "1500000", "65536"]);
    let pid = rig.status().pid.unwrap();
    let host = std::fs::metadata(format!("/proc/{pid}")).unwrap();
    // A process that may not be looked into shows root as its owner: its status tells.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t1500000\t1500000"), "{status} {}", host.uid());
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
}

#[test]
fn files_keep_their_owners_on_disk() {
    let script = "stat -c '%u %g' / /etc/passwd /mine /vol /vol/in; touch /new /vol/new; chown 33:34 /vol/new /new; \
                  echo x >> /etc/passwd; rm /mine; mkdir /opq; stat -c '%u' /vol/new; echo more > /etc/hostname; echo done";
    let rig = mapped(script);
    let vol = rig.dir.join("vol");
    std::fs::create_dir(&vol).unwrap();
    std::fs::write(vol.join("in"), "").unwrap();
    std::os::unix::fs::chown(vol.join("in"), Some(7), Some(8)).unwrap();
    std::fs::write(rig.layer().join("mine"), "").unwrap();
    std::os::unix::fs::chown(rig.layer().join("mine"), Some(33), Some(34)).unwrap();
    std::fs::copy("/bin/busybox", rig.layer().join("bin/chown")).unwrap();
    std::fs::copy("/bin/busybox", rig.layer().join("bin/rm")).unwrap();
    let rig = rig.with(|c| c.mounts.push(bind(&vol, "/vol"))).up();
    assert_eq!(rig.wait().code, 0, "{}", rig.log());
    assert_eq!(rig.log(), "0 0\n0 0\n33 34\n0 0\n7 8\n33\ndone\n");
    let owner = |p: &Path| {
        let m = std::fs::symlink_metadata(p).unwrap();
        (m.uid(), m.gid())
    };
    assert_eq!(owner(&vol.join("new")), (33, 34));
    let upper = rig.dir.join("state/upper");
    assert_eq!(owner(&upper.join("new")), (33, 34));
    assert_eq!(owner(&upper.join("etc/passwd")), (0, 0));
    assert_eq!(owner(&upper.join("opq")), (0, 0));
    assert_eq!(owner(&upper), (0, 0));
    assert!(!rig.layer().join("new").exists());
}

#[test]
fn exec_enters_it_and_other_users_work() {
    let rig = mapped("sleep 1000").up();
    let (exit, out, err) = rig.exec(&[
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; echo $$ > /tmp/pid; echo to >/dev/stdout",
    ]);
    assert_eq!(exit.code, 0, "{err}");
    assert!(
        out.starts_with("0\n") && out.contains("1500000") && out.ends_with("to\n"),
        "{out}"
    );
    let mut c = rig.connect();
    let spec = biga_wire::shim::ExecSpec {
        user: Some("web".into()),
        ..crate::support::spec(&["sh", "-c", "id; touch /tmp/x 2>&1; echo out > /dev/stdout"])
    };
    assert!(matches!(
        c.ask(&Request::Exec { exec: Box::new(spec) }),
        Reply::Exec { .. }
    ));
    let (exit, out, _) = c.collect();
    assert_eq!(exit.code, 0, "{out}");
    assert!(
        out.contains("uid=33(web) gid=34(web)") && out.contains("44(logs)") && out.ends_with("out\n"),
        "{out}"
    );
    // A terminal of the container's own.
    let mut t = rig.connect();
    let spec = biga_wire::shim::ExecSpec {
        tty: true,
        ..crate::support::spec(&["sh", "-c", "tty; stat -c %u $(tty)"])
    };
    assert!(matches!(
        t.ask(&Request::Exec { exec: Box::new(spec) }),
        Reply::Exec { .. }
    ));
    let (exit, out, _) = t.collect();
    assert_eq!((exit.code, out.as_str()), (0, "/dev/pts/0\r\n0\r\n"));
}

#[test]
fn it_may_do_inside_what_the_host_forbids_outside() {
    let script = "hostname changed && hostname; mount -t tmpfs x /tmp && echo mounted; ip addr add 10.9.9.1/24 dev lo && echo net
        echo x > /dev/null && head -c 2 /dev/zero | wc -c; mknod /tmp/sda b 8 0 2>&1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        umount /proc/kcore 2>&1; test -s /proc/timer_list || echo masked; echo 1 > /proc/sys/kernel/panic 2>&1; exit 4";
    let (exit, log) = mapped(script)
        .with(|c| {
            c.capabilities.extend(["SYS_ADMIN".into(), "NET_ADMIN".into()]);
            c.seccomp = false;
            c.sysctls
                .insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
        })
        .config(|c| c.limits.oom_score_adj = Some(300))
        .run();
    assert_eq!(exit.code, 4, "{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(&lines[..4], ["changed", "mounted", "net", "2"], "{log}");
    assert!(log.contains("mknod") && log.contains("not permitted"), "{log}");
    assert!(log.contains("\n77\n") && log.contains("masked"), "{log}");
}

#[test]
fn limits_of_the_host_reach_it() {
    let rig = mapped("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; sleep 1000")
        .with(|c| {
            c.process.rlimits.insert("nofile".into(), (700, 800));
        })
        .config(|c| {
            c.limits.oom_score_adj = Some(300);
            c.limits.pids = Some(33);
        })
        .up();
    until("its output", || (rig.log().lines().count() == 3).then_some(()));
    assert_eq!(rig.log(), "700\n800\n300\n");
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => assert_eq!((stats.pids_limit, stats.pids >= 1), (33, true)),
        other => panic!("{other:?}"),
    }
    rig.must(Request::Pause);
    rig.must(Request::Resume);
    rig.must(Request::Signal { signal: 15 });
    rig.must(Request::Signal { signal: 9 });
    assert_eq!(rig.wait().code, 137);
}

#[test]
fn memory_devices_and_an_init_work() {
    let rig = mapped("echo $$; ls -l /dev/fuse; touch /mem/x /dev/shm/y && stat -c %u /mem/x; (sleep 0.01 &); exit 3")
        .with(|c| {
            c.process.init = true;
            c.devices.push(biga_wire::config::Device {
                host_path: "/dev/null".into(),
                path: "/dev/fuse".into(),
                permissions: "rwm".into(),
                ..Default::default()
            });
            c.mounts.push(Mount {
                source: MountSource::Tmpfs {
                    size: Some(1 << 20),
                    mode: 0o1777,
                    options: vec!["noexec".into()],
                },
                ..bind(Path::new("/"), "/mem")
            });
        });
    let (exit, log) = rig.run();
    assert_eq!(exit.code, 3, "{log}");
    assert!(log.starts_with("2\ncrw-rw-rw-") && log.ends_with("\n0\n"), "{log}");
}

#[test]
fn what_cannot_be_mapped_is_named() {
    // procfs takes no mapped ids on any kernel.
    let mut rig = mapped("true").with(|c| c.mounts.push(bind(Path::new("/proc/self/net"), "/net")));
    match rig.launch() {
        Reply::Error { message, .. } => assert!(
            message.contains("cannot be mapped") && message.contains("--userns host"),
            "{message}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.groups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn images_of_erofs_work() {
    let rig = mapped("stat -c '%u %a' /bin/sh /etc/passwd; echo n > /etc/new; cat /etc/new");
    let (file, point) = (rig.dir.join("layer.erofs"), rig.dir.join("erofs"));
    std::fs::create_dir(&point).unwrap();
    let made = std::process::Command::new("mkfs.erofs")
        .arg("--all-root")
        .arg(&file)
        .arg(rig.layer())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "erofs", "-o", "ro"])
        .arg(&file)
        .arg(&point)
        .output()
        .unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let guard = Unmount(point.clone());
    let (exit, log) = rig.with(|c| c.layers[0].mount = Some(point.clone())).run();
    assert_eq!((exit.code, log.as_str()), (0, "0 777\n0 644\nn\n"));
    drop(guard);
}
