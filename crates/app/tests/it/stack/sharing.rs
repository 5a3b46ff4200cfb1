//! What instances share, what they have of their own, and the finer limits: from the command line to the kernel.

use std::os::unix::fs::MetadataExt;

use biga_testkit::{Daemon, eventually};

use super::daemon;

/// Runs a shell script in a running instance.
fn sh(d: &Daemon, name: &str, script: &str) -> String {
    d.biga(&["exec", name, "sh", "-c", script]).ok()
}

#[test]
fn ids_of_its_own_with_network_and_volume() {
    let d = daemon();
    let run = |name: &str| {
        let page = "echo $(id -u) > /data/made-by-$HOSTNAME; cd /var/www; exec httpd -f -p 80";
        let args = [
            "--userns",
            "private",
            "--hostname",
            name,
            "-v",
            "data:/data",
            "-m",
            "64m",
        ];
        d.biga(
            &[
                &["run", "-d", "--name", name][..],
                &args,
                &["busybox", "sh", "-c", page],
            ]
            .concat(),
        )
        .ok();
        d.until_phase(name, "Running");
    };
    run("one");
    run("two");
    let base = |name: &str| -> u64 {
        let map = sh(&d, name, "cat /proc/self/uid_map");
        let words: Vec<u64> = map.split_whitespace().map(|w| w.parse().unwrap()).collect();
        assert_eq!((words[0], words[2]), (0, 65_536));
        words[1]
    };
    let (one, two) = (base("one"), base("two"));
    assert!(one.abs_diff(two) >= 65_536 && one >= 65_536, "{one} {two}");
    let pid = d.field("one", &["status", "pid"]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{one}\t{one}")), "{status}");

    // It serves a port that only root may, on the bridge.
    let networks: serde_json::Value = serde_json::from_str(&d.field("one", &["status", "networks"])).unwrap();
    let address = networks[0]["address"].as_str().unwrap();
    let url = format!("http://{}/", address.split('/').next().unwrap());
    let page = eventually("the page", || {
        let r = d.biga(&["exec", "two", "wget", "-q", "-O", "-", &url]);
        (r.code == 0).then_some(r.out)
    });
    assert_eq!(page.trim(), "hello from biga");
    assert!(sh(&d, "one", "ip -o addr").contains("eth0"));

    // Both see root's files on the volume as root's; on the host's disk they are root's, too.
    assert_eq!(sh(&d, "two", "stat -c %u /data/made-by-one /data/made-by-two"), "0\n0");
    let file = eventually("the file on disk", || {
        let found = std::process::Command::new("find")
            .arg(d.state())
            .args(["-name", "made-by-one"])
            .output()
            .unwrap();
        let path = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        (!path.is_empty()).then_some(path)
    });
    assert_eq!(std::fs::metadata(file).unwrap().uid(), 0);

    // The range stays over a restart, and is free again when the instance is gone.
    d.biga(&["restart", "-t", "0", "one"]).ok();
    eventually("another process", || {
        let now = d.field("one", &["status", "pid"]);
        (!now.is_empty() && now != pid).then_some(())
    });
    d.until_phase("one", "Running");
    assert_eq!(base("one"), one);
    d.biga(&["rm", "-f", "one", "two"]).ok();
    d.until_clean();
}

#[test]
fn ids_of_its_own_outlive_the_daemon() {
    let mut d = daemon();
    d.biga(&[
        "run", "-d", "--userns", "private", "--name", "u", "busybox", "sleep", "1000",
    ])
    .ok();
    let map = sh(&d, "u", "cat /proc/self/uid_map");
    let pid = d.field("u", &["status", "pid"]);
    d.kill();
    d.serve();
    d.until_phase("u", "Running");
    assert_eq!(d.field("u", &["status", "pid"]), pid);
    assert_eq!(
        sh(&d, "u", "cat /proc/self/uid_map; ip -o link | grep -c eth0"),
        format!("{map}\n1")
    );
    d.biga(&[
        "run",
        "-d",
        "--userns",
        "private",
        "--name",
        "v",
        "--network",
        "none",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    assert_ne!(sh(&d, "v", "cat /proc/self/uid_map"), map);
    d.biga(&["rm", "-f", "u", "v"]).ok();
    d.until_clean();
}

#[test]
fn network_process_ids_and_memory_of_another() {
    let d = daemon();
    let serve = "echo note > /dev/shm/note; cd /var/www; exec httpd -f -p 8080";
    d.biga(&[
        "run",
        "-d",
        "--name",
        "db",
        "--hostname",
        "dbhost",
        "busybox",
        "sh",
        "-c",
        serve,
    ])
    .ok();
    d.until_phase("db", "Running");
    eventually("the note", || {
        d.biga(&["exec", "db", "cat", "/dev/shm/note"])
            .code
            .eq(&0)
            .then_some(())
    });
    let shared = [
        "run",
        "--rm",
        "--network",
        "container:db",
        "--pid",
        "container:db",
        "--ipc",
        "container:db",
        "busybox",
        "sh",
        "-c",
    ];
    let script =
        "cat /dev/shm/note; hostname; cat /proc/1/comm; grep -c dbhost /etc/hosts; wget -q -O - http://127.0.0.1:8080/";
    let out = eventually("the page", || {
        let r = d.biga(&[&shared[..], &[script]].concat());
        (r.code == 0).then_some(r.out)
    });
    assert_eq!(out, "note\ndbhost\nhttpd\n1\nhello from biga\n");
    let r = d.biga(&["run", "--rm", "--network", "container:absent", "busybox", "true"]);
    assert!(r.code == 125 && r.err.contains("no instance absent"), "{r:?}");
    let host = d.biga(&[
        "run",
        "--rm",
        "--pid",
        "host",
        "--uts",
        "host",
        "busybox",
        "sh",
        "-c",
        "readlink /proc/self/ns/pid; readlink /proc/self/ns/uts",
    ]);
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .display()
            .to_string()
    };
    assert_eq!(host.ok(), format!("{}\n{}", own("pid"), own("uts")));
}

#[test]
fn security_options_reach_the_kernel() {
    let d = daemon();
    let profile = d.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#,
    )
    .unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let r = d.biga(&["run", "--rm", "--security-opt", &seccomp, "busybox", "mkdir", "/x"]);
    assert!(r.code != 0 && r.err.contains("No space left"), "{r:?}");
    // One that has calls answered by another program, for the first process and for an exec.
    let socket = d.path().join("agent.sock");
    let text = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "{}", "syscalls": [{{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}}]}}"#,
        socket.display()
    );
    std::fs::write(&profile, text).unwrap();
    let agent = biga_testkit::answers::Answers::at(&socket, 18);
    d.biga(&[
        "run",
        "-d",
        "--name",
        "asks",
        "--security-opt",
        &seccomp,
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let r = d.biga(&["exec", "asks", "mkdir", "/x"]);
    assert!(r.code != 0 && r.err.contains("cross-device"), "{r:?}");
    assert_eq!((agent.states().len(), agent.calls()), (2, 1));
    let paths = [
        "run",
        "--rm",
        "--security-opt",
        "systempaths=unconfined",
        "busybox",
        "sh",
        "-c",
    ];
    assert_eq!(
        d.biga(&[&paths[..], &["head -c 1 /proc/interrupts | wc -c"]].concat())
            .ok(),
        "1"
    );
    let rule = ["run", "--rm", "--device-cgroup-rule", "c 1:11 w", "busybox", "sh", "-c"];
    let out = d.biga(
        &[
            &rule[..],
            &["mknod /k c 1 11; echo x > /k && echo wrote; head -c 1 /k 2>&1"],
        ]
        .concat(),
    );
    assert!(
        out.out.contains("wrote") && out.out.contains("not permitted"),
        "{out:?}"
    );
    let tmpfs = d.biga(&[
        "run",
        "--rm",
        "--tmpfs",
        "/t:uid=1000,size=64k",
        "busybox",
        "sh",
        "-c",
        "stat -c %u /t; grep -c ' /t .*noexec' /proc/mounts",
    ]);
    assert_eq!(tmpfs.ok(), "1000\n1");
    let r = d.biga(&["run", "--rm", "--userns", "private", "--privileged", "busybox", "true"]);
    assert!(r.code != 0 && r.err.contains("exclude each other"), "{r:?}");
}

#[test]
fn finer_limits_are_set_and_changed_while_it_runs() {
    let d = daemon();
    let limits = [
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
        "--cpuset-mems",
        "0",
        "--cgroup-parent",
        "tenants-of-test/a",
    ];
    d.biga(
        &[
            &["run", "-d", "--name", "l"][..],
            &limits,
            &["busybox", "sleep", "1000"],
        ]
        .concat(),
    )
    .ok();
    d.until_phase("l", "Running");
    let pid = d.field("l", &["status", "pid"]);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let below = format!("/tenants-of-test/a/{}/", d.prefix());
    let path = groups
        .lines()
        .find_map(|l| l.split(':').nth(2).filter(|p| p.contains(&below)))
        .expect(&groups)
        .to_owned();
    let v1 = biga_container::cgroup::version() == biga_container::cgroup::Version::V1;
    let read = |controller: &str, file: &str| {
        let root = if v1 {
            format!("/sys/fs/cgroup/{controller}")
        } else {
            "/sys/fs/cgroup".to_owned()
        };
        std::fs::read_to_string(format!("{root}{path}/{file}"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let quota = || match v1 {
        true => format!(
            "{} {}",
            read("cpu", "cpu.cfs_quota_us"),
            read("cpu", "cpu.cfs_period_us")
        ),
        false => read("", "cpu.max"),
    };
    assert_eq!(quota(), "50000 100000");
    assert_eq!(read("cpuset", "cpuset.mems"), "0");
    d.biga(&["update", "--cpu-quota", "20000", "--cpu-burst", "5000", "l"])
        .ok();
    eventually("the new quota", || (quota() == "20000 100000").then_some(()));
    let burst = if v1 {
        ("cpu", "cpu.cfs_burst_us")
    } else {
        ("", "cpu.max.burst")
    };
    eventually("the burst", || (read(burst.0, burst.1) == "5000").then_some(()));
    if v1 {
        d.biga(&["update", "--memory-swappiness", "10", "--oom-kill-disable", "l"])
            .ok();
        eventually("swappiness", || {
            (read("memory", "memory.swappiness") == "10").then_some(())
        });
        assert!(read("memory", "memory.oom_control").contains("oom_kill_disable 1"));
    } else {
        let r = d.biga(&["run", "--rm", "--oom-kill-disable", "busybox", "true"]);
        assert!(r.code == 125 && r.err.contains("version 2"), "{r:?}");
    }
    d.biga(&["rm", "-f", "l"]).ok();
    d.until_clean();
    eventually("its groups to go", || {
        let root = if v1 { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
        (!std::path::Path::new(&format!("{root}{below}")).exists()).then_some(())
    });
}

#[test]
fn an_init_system_is_stopped_as_it_wants() {
    let d = daemon();
    let init = "trap 'echo halted; exit 0' 37; mkdir -p /sys/fs/cgroup/systemd/x 2>/dev/null || mkdir /sys/fs/cgroup/x; echo $container; \
                stat -f -c %T /run /tmp; test -t 0 && echo console; while :; do sleep 0.1; done";
    for more in [&[][..], &["--userns", "private"]] {
        let run = [
            &["run", "-d", "--system", "--name", "m"][..],
            more,
            &["busybox", "sh", "-c", init],
        ]
        .concat();
        d.biga(&run).ok();
        let log = || d.biga(&["logs", "m"]).out.replace('\r', "");
        eventually("it to be up", || log().contains("console").then_some(()));
        assert_eq!(log(), "biga\ntmpfs\ntmpfs\nconsole\n", "{more:?}");
        let rights = sh(&d, "m", "grep CapEff /proc/self/status");
        let bits = u64::from_str_radix(rights.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(
            bits >> 21 & 1 == 1,
            !more.is_empty(),
            "SYS_ADMIN only among ids of its own: {rights}"
        );
        d.biga(&["stop", "-t", "60", "m"]).ok();
        assert_eq!(d.field("m", &["status", "exitCode"]), "0");
        assert!(log().ends_with("halted\n"));
        d.biga(&["rm", "m"]).ok();
        eventually("it to go", || d.biga(&["ps", "-aq"]).ok().is_empty().then_some(()));
    }
    d.until_clean();
}
