//! What a container shares with the host or with another, and what is laid out otherwise than usual.

use std::path::{Path, PathBuf};

use biga_wire::config::{DeviceRule, Mount, MountHow, MountSource, Namespace, Propagation, TimeOffsets};
use biga_wire::shim::{Reply, Request, State};
use serde_json::json;

use crate::support::{Rig, until};

fn host(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn the_hosts_process_ids() {
    let rig = Rig::sh("readlink /proc/self/ns/pid; (sleep 1000 &) ; test -d /proc/1 && echo $$; exec sleep 1000")
        .with(|c| c.namespaces.pid = Namespace::Host)
        .up();
    until("its output", || (rig.log().lines().count() == 2).then_some(()));
    let pid = rig.status().pid.unwrap();
    assert_eq!(rig.log(), format!("{}\n{pid}\n", host("pid")));
    assert_eq!(rig.exec(&["readlink", "/proc/self/ns/pid"]).1.trim(), host("pid"));
    let group = rig.groups();
    let procs = || -> usize {
        let text = std::fs::read_to_string(group[0].join("cgroup.procs")).unwrap_or_default();
        text.lines().count()
    };
    assert_eq!(procs(), 2);
    rig.must(Request::Signal { signal: 9 });
    assert_eq!(rig.wait().code, 137);
    // What it left in the host's process ids goes with it.
    until("the end of its children", || (procs() == 0).then_some(()));
}

#[test]
fn process_ids_ipc_and_network_of_another() {
    let first = Rig::sh("echo shared > /dev/shm/note; hostname first; exec sleep 1000")
        .with(|c| c.capabilities.push("SYS_ADMIN".into()))
        .up();
    until("the note", || {
        let (exit, out, _) = first.exec(&["cat", "/dev/shm/note"]);
        (exit.code == 0 && out == "shared\n").then_some(())
    });
    let pid = first.status().pid.unwrap();
    let of = |kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
    let script = "cat /dev/shm/note; hostname; cat /proc/1/comm; for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done; exec sleep 1000";
    let second = Rig::sh(script)
        .with(|c| {
            c.namespaces.pid = Namespace::Of(of("pid").into());
            c.namespaces.ipc = Namespace::Of(of("ipc").into());
            c.namespaces.uts = Namespace::Of(of("uts").into());
            c.netns = Some(of("net").into());
        })
        .up();
    until("its output", || (second.log().lines().count() == 8).then_some(()));
    let log = second.log();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(&lines[..3], ["shared", "first", "sleep"]);
    for (line, kind) in lines[3..7].iter().zip(["pid", "ipc", "uts", "net"]) {
        assert_eq!(std::fs::read_link(of(kind)).unwrap().to_str(), Some(*line));
    }
    assert_ne!(std::fs::read_link(of("mnt")).unwrap().to_str(), Some(lines[7]));
    assert_eq!(second.exec(&["cat", "/proc/1/comm"]).1, "sleep\n");
    // The end of who is joined is the end of those in its process ids.
    first.must(Request::Signal { signal: 9 });
    assert_eq!(first.wait().code, 137);
    assert_eq!(second.wait().code, 137);
}

#[test]
fn the_hosts_names_ipc_and_control_groups() {
    let rig = Rig::sh("for n in uts ipc cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; hostname")
        .with(|c| {
            c.namespaces.uts = Namespace::Host;
            c.namespaces.ipc = Namespace::Host;
            c.namespaces.cgroup = Namespace::Host;
        });
    let own = rig.config.cgroup.clone();
    let (exit, log) = rig.run();
    assert_eq!(exit.code, 0, "{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(&lines[..3], [host("uts"), host("ipc"), host("cgroup")]);
    assert!(log.contains(&own), "its own control group is seen: {log}");
    assert_eq!(lines.last().copied(), rustix_hostname().as_deref());
}

fn rustix_hostname() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned())
}

#[test]
fn clocks_of_its_own() {
    let rig = Rig::sh("cut -d. -f1 /proc/uptime; exec sleep 1000").with(|c| {
        c.namespaces.time = Some(TimeOffsets {
            monotonic: 50_000_000,
            boottime: 80_000_000,
        });
    });
    std::os::unix::fs::symlink("busybox", rig.layer().join("bin/cut")).unwrap();
    let rig = rig.up();
    until("its uptime", || rig.log().ends_with('\n').then_some(()));
    let uptime: f64 = rig.log().trim().parse().unwrap();
    assert!(uptime > 80_000_000.0, "{uptime}");
    let text = rig.exec(&["cat", "/proc/uptime"]).1;
    assert!(
        text.split(' ').next().unwrap().parse::<f64>().unwrap() > 80_000_000.0,
        "{text}"
    );
}

#[test]
fn paths_are_masked_as_wished() {
    let (_, log) = Rig::sh("head -c 1 /proc/cpuinfo | wc -c; head -c 1 /proc/interrupts | wc -c; ls /etc | wc -l; touch /tmp/x 2>&1; test -w /proc/sys && echo writable")
        .with(|c| {
            c.masked_paths = Some(vec!["/proc/cpuinfo".into(), "/etc".into(), "/nonesuch".into()]);
            c.read_only_paths = Some(vec!["/tmp".into()]);
        })
        .run();
    assert!(
        log.starts_with("0\n1\n0\n") && log.contains("Read-only") && log.ends_with("writable\n"),
        "{log}"
    );
}

#[test]
fn devices_by_rule() {
    let script = "mknod /tmp/kmsg c 1 11; cat /tmp/kmsg 2>&1 | head -c 100; echo x > /tmp/kmsg && echo wrote";
    let (_, log) = Rig::sh(script)
        .with(|c| {
            c.device_rules = vec![DeviceRule {
                kind: 'c',
                major: Some(1),
                minor: Some(11),
                access: "w".into(),
            }];
        })
        .run();
    assert!(log.contains("not permitted"), "{log}");
    assert!(log.ends_with("wrote\n"), "{log}");
}

fn bind(path: &Path, how: MountHow) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: path.to_owned(),
            sub_path: None,
        },
        target: "/data".into(),
        read_only: false,
        copy_up: false,
        how,
    }
}

/// A tmpfs with another one in it, both unmounted with this value.
struct Nest(PathBuf);

impl Nest {
    fn new(dir: &Path, propagation: &str) -> Nest {
        let top = dir.join("nest");
        std::fs::create_dir(&top).unwrap();
        let nest = Nest(top.clone());
        nest.mount("");
        run(&["mount", &format!("--make-{propagation}"), top.to_str().unwrap()]);
        nest.mount("below");
        nest
    }

    fn mount(&self, name: &str) {
        let point = self.0.join(name);
        std::fs::create_dir_all(&point).unwrap();
        run(&["mount", "-t", "tmpfs", "x", point.to_str().unwrap()]);
        std::fs::write(point.join("mark"), name).unwrap();
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .args(["-R", "-l"])
            .arg(&self.0)
            .status();
    }
}

fn run(args: &[&str]) {
    let out = std::process::Command::new(args[0]).args(&args[1..]).output().unwrap();
    assert!(out.status.success(), "{args:?}: {out:?}");
}

#[test]
fn binds_can_be_flat_and_read_only_in_part() {
    let script = "touch /data/x 2>&1 && echo top; touch /data/below/x 2>&1 && echo below; ls /data/below/mark 2>&1";
    for (how, read_only, expected) in [
        (MountHow::default(), false, &["top", "below", "/data/below/mark"][..]),
        (MountHow::default(), true, &["/data/below/mark"]),
        (
            MountHow {
                read_only_flat: true,
                ..MountHow::default()
            },
            true,
            &["below", "/data/below/mark"],
        ),
        (
            MountHow {
                flat: true,
                ..MountHow::default()
            },
            false,
            &["top", "below"],
        ),
    ] {
        let rig = Rig::sh(script);
        let nest = Nest::new(&rig.dir, "private");
        let (_, log) = rig
            .with(|c| {
                c.mounts = vec![Mount {
                    read_only,
                    ..bind(&nest.0, how)
                }];
            })
            .run();
        let good: Vec<&str> = log.lines().filter(|l| !l.contains(": ")).collect();
        assert_eq!(good, expected, "{how:?} {read_only}: {log}");
    }
}

#[test]
fn mounts_travel_as_wished() {
    let how = |propagation| MountHow {
        propagation,
        ..MountHow::default()
    };
    for (propagation, comes, goes) in [
        (Propagation::Private, false, false),
        (Propagation::Slave, true, false),
        (Propagation::Shared, true, true),
    ] {
        let rig = Rig::new(&["sleep", "1000"]);
        let nest = Nest::new(&rig.dir, "rshared");
        let rig = rig
            .with(|c| {
                c.capabilities.push("SYS_ADMIN".into());
                c.mounts = vec![bind(&nest.0, how(propagation))];
            })
            .up();
        nest.mount("later");
        assert_eq!(
            rig.exec(&["cat", "/data/later/mark"]).0.code == 0,
            comes,
            "{propagation:?}"
        );
        let inside = "mkdir /data/inside && mount -t tmpfs x /data/inside && touch /data/inside/here";
        let (exit, _, err) = rig.exec(&["sh", "-c", inside]);
        assert_eq!(exit.code, 0, "{err}");
        assert_eq!(nest.0.join("inside/here").exists(), goes, "{propagation:?}");
    }
    // What is not shared on the host cannot be.
    let rig = Rig::new(&["true"]);
    let nest = Nest::new(&rig.dir, "private");
    let mut rig = rig.with(|c| c.mounts = vec![bind(&nest.0, how(Propagation::Shared))]);
    match rig.launch() {
        Reply::Error { message, .. } => assert!(message.contains("shared mount"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_of_memory() {
    let tmpfs = |options: &[&str]| Mount {
        source: MountSource::Tmpfs {
            size: None,
            mode: 0o755,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        },
        ..bind(Path::new("/"), MountHow::default())
    };
    let (exit, log) = Rig::sh("grep ' /data ' /proc/mounts; stat -c '%u %g %a' /data")
        .with(|c| c.mounts = vec![tmpfs(&["noexec", "dev", "size=64k", "uid=33", "gid=34", "mode=700"])])
        .run();
    assert_eq!(exit.code, 0, "{log}");
    assert!(
        log.contains("nosuid,noexec,relatime") && !log.contains("nodev") && log.contains("size=64k"),
        "{log}"
    );
    assert!(log.ends_with("33 34 700\n"), "{log}");
    let mut rig = Rig::new(&["true"]).with(|c| c.mounts = vec![tmpfs(&["colour=red"])]);
    assert!(matches!(rig.launch(), Reply::Error { message, .. } if message.contains("colour")));
}

#[test]
fn a_profile_of_ones_own() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4,
             "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]},
        ],
    });
    let script = "mkdir /x 2>&1; kill -12 $$ 2>&1; kill -0 $$ && echo zero; hostname x; echo $?; unshare -U true && echo unshared";
    let (exit, log) = Rig::sh(script).with(|c| c.seccomp_profile = Some(profile)).run();
    assert_eq!(exit.code, 0, "{log}");
    assert!(log.contains("No space left"), "{log}");
    assert!(log.contains("Interrupted") && log.contains("zero"), "{log}");
    assert!(log.contains("159\n"), "killed by SIGSYS: {log}");
    assert!(log.ends_with("unshared\n"), "{log}");
    let mut rig = Rig::new(&["true"]).with(|c| c.seccomp_profile = Some(json!({"defaultAction": "ALLOW"})));
    assert!(matches!(rig.launch(), Reply::Error { message, .. } if message.contains("seccomp profile")));
}

#[test]
fn calls_that_another_program_answers() {
    use biga_testkit::answers::Answers;
    let asking = |rig: Rig| {
        let socket = rig.dir.join("agent.sock");
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "of a test",
            // What the shim's child says itself must be heard without these.
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"},
                         {"names": ["sendmsg", "recvmsg", "sendto"], "action": "SCMP_ACT_ERRNO"}],
        });
        (socket, rig.with(|c| c.seccomp_profile = Some(profile)))
    };
    let script = "mkdir /x 2>&1; ls -d /x 2>&1; echo up; sleep 1000";
    for strict in [false, true] {
        let (socket, rig) = asking(Rig::sh(script));
        let agent = Answers::at(&socket, 18);
        let rig = rig.with(|c| c.no_new_privileges = strict).up();
        until("what it says", || rig.log().contains("up").then_some(()));
        assert!(
            rig.log().contains("cross-device") && rig.log().contains("No such file"),
            "{}",
            rig.log()
        );
        let (exit, out, err) = rig.exec(&["mkdir", "/y"]);
        assert!(exit.code == 1 && err.contains("cross-device"), "{out}{err}");
        let states = agent.states();
        let words: Vec<_> = states.iter().map(|s| s["state"]["status"].as_str().unwrap()).collect();
        assert_eq!((words, agent.calls()), (vec!["creating", "running"], 2));
        for s in &states {
            assert_eq!(
                (s["metadata"].as_str(), s["state"]["id"].as_str()),
                (Some("of a test"), Some(&*rig.config.uid))
            );
            assert_eq!(s["state"]["pid"], states[0]["pid"], "{s}");
        }
    }
    // Nobody listens, and what cannot be together.
    let (_, mut rig) = asking(Rig::sh(script));
    match rig.launch() {
        Reply::Error { message, .. } => assert!(message.contains("agent.sock"), "{message}"),
        other => panic!("{other:?}"),
    }
    let (_, rig) = asking(Rig::sh(script));
    match rig.with(|c| c.process.init = true).launch() {
        Reply::Error { message, .. } => assert!(message.contains("--init"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn programs_of_32_bits_run_under_the_default_filter() {
    let rig = Rig::sh("/prog; echo $?");
    // mount(NULL, …) must be refused with EPERM, then: write(1, "32\n", 3); exit(mount's answer negated).
    let code: &[u8] = &[
        0xb8, 21, 0, 0, 0, // mov eax, 21 (mount)
        0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff, // ebx = ecx = edx = esi = edi = 0
        0xcd, 0x80, // int 0x80
        0x89, 0xc5, // mov ebp, eax
        0xb8, 4, 0, 0, 0, // mov eax, 4 (write)
        0xbb, 1, 0, 0, 0, // mov ebx, 1
        0xb9, 0x88, 0x80, 0x04, 0x08, // mov ecx, text
        0xba, 3, 0, 0, 0, // mov edx, 3
        0xcd, 0x80, // int 0x80
        0x89, 0xeb, 0xf7, 0xdb, // mov ebx, ebp; neg ebx
        0xb8, 1, 0, 0, 0, // mov eax, 1 (exit)
        0xcd, 0x80, // int 0x80
    ];
    let base: u32 = 0x0804_8000;
    let (header, text) = (84usize, b"32\n");
    assert_eq!(header + code.len(), 0x88, "where the text is");
    let size = (header + code.len() + text.len()) as u32;
    let mut elf: Vec<u8> = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 3] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, base + header as u32, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 40, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf.extend(text);
    let path = rig.layer().join("prog");
    std::fs::write(&path, elf).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let plain = std::process::Command::new(&path).status();
    if plain.is_err() {
        eprintln!("this kernel runs no 32-bit programs");
        return;
    }
    let (exit, log) = rig.run();
    assert_eq!((exit.code, log.as_str()), (0, "32\n1\n"));
}

#[test]
fn an_init_system_manages_groups_of_its_own() {
    let script = "test -t 1 && echo terminal
        for d in /sys/fs/cgroup/systemd /sys/fs/cgroup; do mkdir $d/inner.scope 2>/dev/null && echo $$ > $d/inner.scope/cgroup.procs && echo moved && break; done
        grep -c inner.scope /proc/self/cgroup; exec </dev/null >/dev/null 2>&1; sleep 0.1; echo later > /dev/console; exec sleep 1000";
    for ids in [
        None,
        Some(biga_wire::config::IdMap {
            base: 1_600_000,
            size: 65_536,
        }),
    ] {
        let rig = Rig::sh(script)
            .with(|c| {
                c.system = true;
                c.process.tty = true;
                c.namespaces.user = ids;
            })
            .up();
        until("its output", || (rig.log().lines().count() >= 4).then_some(()));
        assert_eq!(rig.log().replace('\r', ""), "terminal\nmoved\n1\nlater\n", "{ids:?}");
        let (exit, out, err) = rig.exec(&["sh", "-c", "ls -l /dev/console; echo in"]);
        assert_eq!(exit.code, 0, "{err}");
        assert!(out.starts_with("crw") && out.ends_with("in\n"), "{out}");
        match rig.ask(Request::Pids) {
            Reply::Pids { pids } => assert!(pids.contains(&rig.status().pid.unwrap()), "{pids:?}"),
            other => panic!("{other:?}"),
        }
        rig.must(Request::Signal { signal: 9 });
        assert_eq!(rig.wait().code, 137);
        assert_eq!(rig.status().state, State::Exited);
        rig.must(Request::Delete);
        assert_eq!(rig.groups(), Vec::<PathBuf>::new());
    }
}
