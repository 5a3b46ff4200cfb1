//! The life of a container, and the verbs.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bundle, PATIENCE, Runtime, mount, until};

fn sh(script: &str) -> Bundle {
    Bundle::sh(Runtime::Ours, script)
}

#[test]
fn created_started_ended_deleted() {
    let b = sh("echo started >/tmp/started; sleep 1000");
    b.write();
    let pid_file = b.dir.join("pid");
    b.must(&["create", "--pid-file", pid_file.to_str().unwrap(), &b.id]);
    let state = b.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], b.dir.to_str().unwrap());
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert!(!b.rootfs().join("tmp/started").exists());
    b.call(&["create", &b.id]).refused("already exists");
    b.must(&["start", &b.id]);
    until("the program", || b.rootfs().join("tmp/started").exists().then_some(()));
    assert_eq!(b.status(), "running");
    b.call(&["start", &b.id]).refused("already running");
    b.call(&["delete", &b.id]).refused("not stopped");
    b.must(&["kill", &b.id, "KILL"]);
    until("its end", || (b.status() == "stopped").then_some(()));
    b.call(&["start", &b.id]).refused("stopped");
    b.call(&["exec", &b.id, "true"]).refused("stopped");
    b.call(&["kill", &b.id, "KILL"]).refused("not running");
    b.must(&["delete", &b.id]);
    b.call(&["state", &b.id]).refused("does not exist");
    b.call(&["delete", &b.id]).refused("does not exist");
    b.must(&["delete", "--force", &b.id]);
    nothing_left(&b);
}

fn nothing_left(b: &Bundle) {
    assert!(!b.dir.join("state").join(&b.id).exists());
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    for root in roots.chain(["/sys/fs/cgroup".into()]) {
        assert!(!root.join(&b.id).exists(), "{}", root.join(&b.id).display());
    }
}

#[test]
fn one_that_somebody_stays_with_can_be_deleted() {
    let b = sh("echo up >/tmp/up; sleep 1000");
    b.write();
    let mut staying = b.command(&["run", &b.id]).spawn().unwrap();
    until("the program", || b.rootfs().join("tmp/up").exists().then_some(()));
    b.must(&["delete", "--force", &b.id]);
    assert_eq!(staying.wait().unwrap().code(), Some(137));
    nothing_left(&b);
}

#[test]
fn one_that_waits_can_be_deleted() {
    let b = sh("true");
    b.write();
    b.must(&["create", &b.id]);
    b.must(&["delete", &b.id]);
    nothing_left(&b);
}

#[test]
fn what_fails_leaves_nothing_and_says_why() {
    let b = sh("true").with(|c, _| c["process"]["args"] = json!(["nothing"]));
    b.run().refused("executable file not found in $PATH");
    nothing_left(&b);
    let b = sh("true").with(|c, _| c["process"]["args"] = json!(["/not/there"]));
    b.run().refused("no such file or directory");
    let b = sh("true").with(|c, _| c["linux"]["intelRdt"] = json!({"closID": "x"}));
    b.run().refused("intelRdt");
    let b = sh("true").with(|c, _| c["process"]["selinuxLabel"] = "x".into());
    b.run().refused("SELinux");
    let log = b.dir.join("log");
    let words = ["--log", log.to_str().unwrap(), "--log-format", "json", "run", &b.id];
    b.call(&words).refused("SELinux");
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("SELinux"));
    b.call(&["--systemd-cgroup", "run", &b.id]).refused("cgroupfs");
    b.call(&["checkpoint", &b.id]).refused("does not exist");
    nothing_left(&b);
}

#[test]
fn hooks_run_in_order_and_read_the_state() {
    let b = sh("echo program >>/hooks/log").with(|c, dir| {
        fs::create_dir(dir.join("hooks")).unwrap();
        // The same path on the host and inside.
        let script = dir.join("hooks/hook");
        let log = dir.join("hooks/log");
        let text = format!(
            "#!/bin/sh\nread -r all\nid=${{all#*\\\"status\\\":\\\"}}\necho $1 ${{id%%\\\"*}} >>{}\n",
            log.display()
        );
        fs::write(&script, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        mount(c, json!({"destination": dir.join("hooks"), "type": "bind", "source": dir.join("hooks"), "options": ["bind"]}));
        mount(c, json!({"destination": "/hooks", "type": "bind", "source": dir.join("hooks"), "options": ["bind"]}));
        let hook = |name: &str| json!([{"path": script, "args": ["hook", name], "env": ["PATH=/bin:/usr/bin"], "timeout": 60}]);
        c["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "createContainer": hook("createContainer"),
            "startContainer": hook("startContainer"), "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    b.run().ok();
    let log = fs::read_to_string(b.dir.join("hooks/log")).unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    // The program and the hook after its start run at the same time.
    let program = lines.iter().position(|l| *l == "program").unwrap();
    assert!(program >= 4, "{log}");
    lines.remove(program);
    assert_eq!(
        lines,
        [
            "prestart creating",
            "createRuntime creating",
            "createContainer creating",
            "startContainer created",
            "poststart running",
            "poststop stopped"
        ]
    );
}

#[test]
fn a_hook_that_fails_ends_it() {
    for name in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let b = sh("echo it ran").with(|c, _| {
            let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
            c["hooks"] = json!({name: hook});
        });
        let outcome = b.run();
        assert!(!outcome.out.contains("it ran"), "{name}");
        let words = outcome.refused(name);
        assert!(words.contains("because") && words.contains('3'), "{words}");
        nothing_left(&b);
    }
    let b = sh("true").with(|c, _| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
    });
    b.run().refused("longer than 1 seconds");
}

#[test]
fn one_more_process() {
    let b = sh("sleep 1000");
    b.up();
    assert_eq!(b.exec("exit 5").code, Some(5));
    let words = [
        "exec",
        "-u",
        "3:4",
        "-g",
        "9",
        "-e",
        "A=b",
        "--cwd",
        "/etc",
        "--no-new-privs",
        &b.id,
    ];
    let script = "id -u; id -g; id -G; echo $A; pwd; grep NoNewPrivs /proc/self/status";
    let out = b.call(&[&words[..], &["sh", "-c", script]].concat()).ok();
    assert_eq!(out, "3\n4\n4 9\nb\n/etc\nNoNewPrivs:\t1\n");
    b.call(&["exec", &b.id, "nothing"])
        .refused("executable file not found in $PATH");
    let file = b.dir.join("process.json");
    let process =
        json!({"args": ["sh", "-c", "id -u; pwd"], "cwd": "/tmp", "env": ["PATH=/bin"], "user": {"uid": 8, "gid": 8}});
    fs::write(&file, process.to_string()).unwrap();
    assert_eq!(b.call(&["exec", "-p", file.to_str().unwrap(), &b.id]).ok(), "8\n/tmp\n");
    let pid_file = b.dir.join("exec.pid");
    b.must(&[
        "exec",
        "-d",
        "--pid-file",
        pid_file.to_str().unwrap(),
        &b.id,
        "sleep",
        "1000",
    ]);
    let pid: u64 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let pids: Vec<u64> = serde_json::from_str(&b.must(&["ps", "--format", "json", &b.id])).unwrap();
    assert!(pids.contains(&pid) && pids.contains(&b.pid()), "{pids:?}");
    // All in its namespaces and control groups.
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let of = |pid: u64| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(of(pid), of(b.pid()), "{name}");
    }
    assert!(
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .unwrap()
            .contains(&b.id)
    );
}

#[test]
fn frozen_listed_changed_watched() {
    let b = sh("sleep 1000");
    b.up();
    b.must(&["pause", &b.id]);
    assert_eq!(b.status(), "paused");
    b.call(&["pause", &b.id]).refused("paused");
    b.call(&["exec", &b.id, "true"]).refused("paused");
    b.must(&["resume", &b.id]);
    assert_eq!(b.status(), "running");
    b.call(&["resume", &b.id]).refused("not paused");
    let all: Value = serde_json::from_str(&b.must(&["list", "--format", "json"])).unwrap();
    assert_eq!(all[0]["id"], b.id);
    assert!(b.must(&["list"]).contains("running"));
    assert_eq!(b.must(&["list", "-q"]).trim(), b.id);
    b.must(&["update", "--pids-limit", "50", "--memory", "100000000", &b.id]);
    let stats: Value = serde_json::from_str(&b.must(&["events", "--stats", &b.id])).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 50);
    assert_eq!(stats["data"]["pids"]["current"], 1);
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    let limit = stats["data"]["memory"]["usage"]["limit"].as_u64().unwrap();
    assert!((99_000_000..=100_000_000).contains(&limit), "{limit}");
    let file = b.dir.join("resources.json");
    fs::write(&file, r#"{"pids":{"limit":60},"cpu":{"shares":200}}"#).unwrap();
    b.must(&["update", "-r", file.to_str().unwrap(), &b.id]);
    let stats: Value = serde_json::from_str(&b.must(&["events", "--stats", &b.id])).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 60);
    b.must(&["kill", "--all", &b.id, "KILL"]);
    until("its end", || (b.status() == "stopped").then_some(()));
}

#[test]
fn what_it_can_do_and_a_configuration_to_begin_with() {
    let b = sh("true");
    let features: Value = serde_json::from_str(&b.must(&["features"])).unwrap();
    assert!(
        features["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .contains(&json!("time"))
    );
    assert!(features["mountOptions"].as_array().unwrap().contains(&json!("rro")));
    for system in ["apparmor", "selinux", "seccomp"] {
        assert_eq!(features["linux"][system]["enabled"], true, "{system}");
    }
    let seccomp = &features["linux"]["seccomp"];
    assert!(
        seccomp["actions"]
            .as_array()
            .unwrap()
            .contains(&json!("SCMP_ACT_NOTIFY"))
    );
    assert_eq!(
        features["annotations"]["org.opencontainers.runc.checkpoint.enabled"],
        "true"
    );
    assert!(b.must(&["--version"]).starts_with("biga-oci version "));
    let dir = b.dir.join("new");
    fs::create_dir(&dir).unwrap();
    b.must(&["spec", "-b", dir.to_str().unwrap()]);
    let made: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(made["process"]["args"], json!(["sh"]));
    b.call(&["spec", "-b", dir.to_str().unwrap()]).refused("exists");
}

/// The master of a terminal, as an engine gets it.
fn master(listener: &UnixListener) -> OwnedFd {
    let (socket, _) = listener.accept().unwrap();
    let (_, mut fds) = biga_sys::fd::receive(&socket, &mut [0u8; 64]).unwrap();
    fds.pop().unwrap()
}

fn read_until(master: &OwnedFd, word: &str) -> String {
    let mut text = String::new();
    let patience = rustix::event::Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    while !text.contains(word) {
        let mut fds = [rustix::event::PollFd::new(master, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&patience)).unwrap() == 0 {
            break;
        }
        let mut buf = [0u8; 1000];
        match rustix::io::read(master, &mut buf) {
            Ok(0) | Err(_) => break,
            Ok(n) => text.push_str(&String::from_utf8_lossy(&buf[..n])),
        }
    }
    text
}

#[test]
fn a_terminal_is_handed_over() {
    let b = sh("tty; stty size; echo to-console >/dev/console; echo end; sleep 1000").with(|c, _| {
        c["process"]["terminal"] = true.into();
        c["process"]["consoleSize"] = json!({"height": 33, "width": 44});
    });
    b.write();
    let path = b.dir.join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    b.must(&["create", "--console-socket", path.to_str().unwrap(), &b.id]);
    let terminal = master(&listener);
    b.must(&["start", &b.id]);
    let text = read_until(&terminal, "end");
    assert!(
        text.contains("/dev/pts/0") && text.contains("33 44") && text.contains("to-console"),
        "{text:?}"
    );
    let words = [
        "exec",
        "-d",
        "-t",
        "--console-socket",
        path.to_str().unwrap(),
        &b.id,
        "sh",
        "-c",
        "tty; echo end; sleep 1000",
    ];
    b.must(&words);
    let second = master(&listener);
    let text = read_until(&second, "end");
    assert!(text.contains("/dev/pts/1"), "{text:?}");
}

/// A terminal of the caller's own: its master, and the side that programs get.
fn own_terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

#[test]
fn the_callers_terminal_is_passed_through() {
    let b = sh("stty size; read line; echo got $line; exit 6").with(|c, _| c["process"]["terminal"] = true.into());
    b.write();
    let (master, slave) = own_terminal();
    let size = rustix::termios::Winsize {
        ws_row: 21,
        ws_col: 43,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let side = || std::process::Stdio::from(slave.try_clone().unwrap());
    let mut command = b.command(&["run", &b.id]);
    let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    drop((command, slave));
    let first = read_until(&master, "21 43");
    assert!(first.contains("21 43"), "{first:?}");
    rustix::io::write(&master, b"words\r").unwrap();
    let rest = read_until(&master, "got words");
    assert!(rest.contains("got words"), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn namespaces_of_another() {
    let first = sh("sleep 1000");
    first.up();
    let pid = first.pid();
    let second = sh("ps; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done").with(|c, _| {
        c.as_object_mut().unwrap().remove("hostname");
        for n in c["linux"]["namespaces"].as_array_mut().unwrap() {
            let (kind, file) = match n["type"].as_str().unwrap() {
                "network" => ("network", "net"),
                "ipc" => ("ipc", "ipc"),
                "uts" => ("uts", "uts"),
                "pid" => ("pid", "pid"),
                _ => continue,
            };
            *n = json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
        }
    });
    let out = second.run().ok();
    assert!(out.contains("sleep 1000"), "{out}");
    for name in ["net", "ipc", "uts", "pid"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert!(out.contains(link.to_str().unwrap()), "{name}: {out}");
    }
}

/// Ids that the container's root may use.
fn own_ids(c: &mut Value, dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    c["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    c["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(dir.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
}

#[test]
fn ids_of_its_own_with_a_mapped_volume() {
    let b = sh("stat -c '%u %g' /data/file; touch /data/new; echo $(id -u); sleep 1000").with(|c, dir| {
        own_ids(c, dir);
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("data/file"), "").unwrap();
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        mount(
            c,
            json!({"destination": "/data", "type": "bind", "source": dir.join("data"), "options": ["bind", "idmap"],
                        "uidMappings": map, "gidMappings": map}),
        );
    });
    b.up();
    use std::os::unix::fs::MetadataExt;
    until("the file", || fs::metadata(b.dir.join("data/new")).ok());
    assert_eq!(
        fs::metadata(b.dir.join("data/new")).unwrap().uid(),
        0,
        "on the host it is root's"
    );
    assert_eq!(
        b.exec("stat -c '%u %g' /data/new; id -u; cat /proc/self/uid_map | tr -s ' '")
            .ok(),
        "0 0\n0\n 0 100000 1000\n"
    );
    // Another one joins its ids, and its network, which belongs to them.
    let pid = b.pid();
    let other = sh("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net").with(|c, dir| {
        own_ids(c, dir);
        for n in c["linux"]["namespaces"].as_array_mut().unwrap() {
            match n["type"].as_str().unwrap() {
                "user" => n["path"] = format!("/proc/{pid}/ns/user").into(),
                "network" => n["path"] = format!("/proc/{pid}/ns/net").into(),
                _ => {}
            }
        }
    });
    let out = other.run().ok();
    for name in ["user", "net"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert!(out.contains(link.to_str().unwrap()), "{out}");
    }
}

#[test]
fn what_runc_of_today_does_not_do_everywhere() {
    let b = sh("cat /proc/self/timens_offsets | tr -s ' '; uname -m; cat /proc/sys/kernel/domainname; cut -d' ' -f19,41 /proc/self/stat")
        .with(|c, _| {
            c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 5000, "nanosecs": 7}});
            c["linux"]["personality"] = json!({"domain": "LINUX32"});
            c["domainname"] = "example".into();
            c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        });
    let out = b.run().ok();
    assert!(out.contains("boottime 5000 7"), "{out}");
    assert!(out.contains("i686"), "{out}");
    assert!(out.contains("\nexample\n"), "{out}");
    assert!(out.ends_with("5 3\n"), "{out}");
}

#[test]
fn a_shared_root_is_shared() {
    let b = sh("awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo").with(|c, _| {
        c["linux"]["rootfsPropagation"] = "rshared".into();
    });
    assert!(b.run().ok().starts_with("shared:"));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(b.dir.to_str().unwrap()), "it is mounted on the host");
}

#[test]
fn descriptors_are_passed_on_when_asked() {
    let b = sh("cat <&3; for n in 3 4 5 6 7; do [ -e /proc/$$/fd/$n ] && echo $n; done; echo end");
    b.write();
    fs::write(b.dir.join("text"), "passed ").unwrap();
    let line = format!(
        "exec 3<text 4<text; exec {} --root {}/state run --preserve-fds 1 {}",
        env!("CARGO_BIN_EXE_biga-oci"),
        b.dir.display(),
        b.id
    );
    let out = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(&b.dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(text, "passed 3\nend\n", "{out:?}");
}

#[test]
fn without_pivot_root() {
    let b = sh("ls / | tr '\\n' ' '; cd /..; pwd");
    b.write();
    let out = b.call(&["run", "--no-pivot", &b.id]).ok();
    assert_eq!(out, "bin dev etc proc root sys tmp /\n");
}

/// A file system on the host that shares what is mounted in it.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(dir: &Path) -> Shared {
        let path = dir.join("shared");
        fs::create_dir(&path).unwrap();
        let shared = Shared(path);
        let at = shared.0.to_str().unwrap();
        for args in [&["-t", "tmpfs", "x", at][..], &["--make-shared", at]] {
            assert!(
                std::process::Command::new("mount")
                    .args(args)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .args(["-R", "-l"])
            .arg(&self.0)
            .status();
    }
}

#[test]
fn mounts_made_inside_travel_as_far_as_the_mount_they_are_in() {
    for runtime in [Runtime::Ours, Runtime::Runc] {
        for (propagation, goes) in [("rshared", true), ("rslave", false), ("rprivate", false)] {
            let script = "mkdir /data/inside && mount -t tmpfs x /data/inside && touch /data/inside/here";
            let b = Bundle::sh(runtime, script).with(|c, dir| {
                for set in ["bounding", "effective", "permitted"] {
                    let all = c["process"]["capabilities"][set].as_array_mut().unwrap();
                    all.push("CAP_SYS_ADMIN".into());
                }
                let source = dir.join("shared");
                let options = ["rbind", propagation];
                mount(
                    c,
                    json!({"destination": "/data", "type": "bind", "source": source, "options": options}),
                );
                c["linux"]["rootfsPropagation"] = propagation.into();
            });
            let shared = Shared::new(&b.dir);
            b.run().ok();
            assert_eq!(shared.0.join("inside/here").exists(), goes, "{runtime:?} {propagation}");
        }
    }
}
