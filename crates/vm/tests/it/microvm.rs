//! What a process sees inside a microvm, and its input and output.

use biga_sys::process::Namespaces;
use biga_wire::config::{Layer, Nic};
use biga_wire::shim::{ErrorCode, ExecSpec};
use biga_wire::workload::{CONSOLE, MAIN};

use crate::support::{Shim, guest, microvm, shell};

#[test]
fn the_entrypoint_runs_as_configured() {
    let mut image = microvm(
        "echo out; echo err >&2; id; pwd; echo $GREETING $HOME; umask; ulimit -n; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; exit 7",
    );
    let p = &mut image.config.process;
    p.user = "web".into();
    p.cwd = "/data/new".into();
    p.env.push("GREETING=hello".into());
    p.umask = Some(0o27);
    p.rlimits.insert("nofile".into(), (100, 200));
    image.config.no_new_privileges = true;
    image.config.capabilities = vec!["CHOWN".into(), "KILL".into()];
    let mut shim = Shim::boot(image.workload());
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal), (7, None), "{exit:?}");
    let expected = "out\nuid=33(web) gid=33(web) groups=33(web),44(logs)\n/data/new\nhello /var/www\n0027\n100\nCapBnd:\t0000000000000021\nNoNewPrivs:\t1\n";
    // busybox's id may or may not repeat the main group.
    assert_eq!(
        shim.main().out().replace("groups=44(logs)", "groups=33(web),44(logs)"),
        expected
    );
    assert_eq!(shim.main().err(), "err\n");
    assert_eq!(shim.host.accelerator, "tcg");
    assert_eq!(shim.host.in_group.len(), 1);
    shim.delete();
    shim.delete();
}

#[test]
fn a_system_is_around_it() {
    let mut image = microvm("sleep 1000");
    image.config.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    image.config.domainname = Some("example".into());
    let mut shim = Shim::boot(image.workload());
    assert_eq!(
        shim.sh("hostname; cat /etc/hostname /etc/hosts").1,
        "box\nbox\n127.0.0.1 localhost\n"
    );
    assert_eq!(shim.sh("cat /etc/resolv.conf").1, "nameserver 10.9.8.7\n");
    assert_eq!(
        shim.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname")
            .1,
        "1\nexample\n"
    );
    // Kernel parameters are sealed, memory for sharing has its size, the clock is right.
    assert_ne!(shim.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").0, 0);
    assert_eq!(shim.sh("df -k /dev/shm | tail -1 | awk '{print $2}'").1, "1024\n");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let inside: u64 = shim.sh("date +%s").1.trim().parse().unwrap();
    assert!(inside.abs_diff(now) < 120, "{inside} against {now}");
    assert_eq!(
        shim.sh(
            "ping -c1 -W5 127.0.0.1 >/dev/null && test -w /dev/null -a -e /dev/pts/ptmx -a -d /sys/class && echo fine"
        )
        .1,
        "fine\n"
    );
    assert_eq!(
        shim.sh("ls -A /dev/.volumes 2>/dev/null; grep -c rw.img /proc/mounts")
            .1,
        "0\n"
    );
    // An orphan is taken care of.
    assert_eq!(shim.sh("(sleep 0.2 &) ; true").0, 0);
    assert_eq!(shim.sh("sleep 1; ps -o stat | grep -c Z").1, "0\n");
    // What cannot be run says why.
    let missing = ExecSpec {
        args: vec!["nonsense".into()],
        ..ExecSpec::default()
    };
    assert_eq!(shim.exec(missing).unwrap_err().code, ErrorCode::NotFound);
    let data = ExecSpec {
        args: vec!["/etc/passwd".into()],
        ..ExecSpec::default()
    };
    assert_eq!(shim.exec(data).unwrap_err().code, ErrorCode::NotExecutable);
    let nobody = ExecSpec {
        user: Some("nobody".into()),
        ..shell("true")
    };
    assert_eq!(shim.exec(nobody).unwrap_err().code, ErrorCode::Invalid);
}

#[test]
fn an_entrypoint_that_is_missing_says_so() {
    let mut image = microvm("");
    image.config.process.args = vec!["/bin/nothing".into()];
    let mut shim = Shim::new(image.workload());
    shim.workload.create(&mut shim.host).unwrap();
    shim.workload.start(&mut shim.host).unwrap();
    let started = shim.until("answer", |host| host.streams.get(&MAIN)?.started.clone());
    let fault = started.unwrap_err();
    assert_eq!(fault.code, ErrorCode::NotFound, "{fault}");
    assert!(fault.message.contains("/bin/nothing"), "{fault}");
    shim.delete();
}

#[test]
fn input_and_output_flow_in_both_directions() {
    let mut image = microvm("cat; echo done >&2");
    image.config.process.stdin = true;
    let mut shim = Shim::boot(image.workload());
    // Several at once: two that talk, one with a terminal, one that is only read slowly.
    let (a, b) = (
        shim.exec(shell("sleep 0.5; echo a; exit 3")).unwrap(),
        shim.exec(shell("echo b >&2; exit 4")).unwrap(),
    );
    let terminal = ExecSpec {
        tty: true,
        stdin: true,
        window: Some((40, 100)),
        env: vec!["PS1=> ".into()],
        ..shell("tty; stty size; read x; stty size; echo got $x $TERM")
    };
    let tty = shim.exec(terminal).unwrap();
    shim.bound_next(64 << 10);
    let slow = shim
        .exec(shell("dd if=/dev/zero bs=64k count=48 2>/dev/null; echo end"))
        .unwrap();

    // Megabytes through the main process and back, in order.
    let bytes: Vec<u8> = (0..6u32 << 20).map(|i| (i ^ (i >> 11)) as u8).collect();
    shim.input(MAIN, &bytes);
    shim.until("everything back", |host| {
        (host.streams[&MAIN].stdout.len() == bytes.len()).then_some(())
    });
    assert!(shim.main().stdout == bytes, "bytes were changed on the way");

    shim.until("size", |host| host.streams[&tty].out().contains("40 100").then_some(()));
    shim.workload.resize(tty, 50, 120, &mut shim.host);
    shim.input(tty, b"word\n");
    assert_eq!(shim.wait_exit(tty).code, 0);
    let out = shim.host.streams[&tty].out();
    assert!(
        out.starts_with("/dev/pts/") && out.contains("50 120") && out.contains("got word xterm"),
        "{out}"
    );

    assert_eq!((shim.wait_exit(a).code, shim.wait_exit(b).code), (3, 4));
    assert_eq!(
        (shim.host.streams[&a].out(), shim.host.streams[&b].err()),
        ("a\n".into(), "b\n".into())
    );

    // The slow one was held back by credit, not dropped and not kept in memory.
    let held = shim.host.streams[&slow].stdout.len();
    assert!(
        held <= (64 << 10) + biga_wire::guest::WINDOW as usize,
        "{held} bytes came to a client without room"
    );
    shim.host.streams.get_mut(&slow).unwrap().bound = None;
    shim.workload.output_room(slow, &mut shim.host);
    assert_eq!(shim.wait_exit(slow).code, 0);
    assert_eq!(shim.host.streams[&slow].stdout.len(), 48 * (64 << 10) + 4);

    shim.workload.close_input(MAIN, &mut shim.host);
    assert_eq!(shim.wait_exit(MAIN).code, 0);
    assert_eq!(shim.main().err(), "done\n");
}

#[test]
fn an_entrypoint_with_a_terminal_and_much_output() {
    let mut image = microvm("tty; seq 1 200000; test -t 1 && echo terminal");
    image.config.process.tty = true;
    let mut shim = Shim::boot(image.workload());
    assert_eq!(shim.wait_exit(MAIN).code, 0);
    let out = shim.main().out();
    let lines: Vec<&str> = out.split("\r\n").collect();
    assert_eq!(
        (lines[0], lines[1], lines[200000], lines[200001]),
        ("/dev/pts/0", "1", "200000", "terminal")
    );
    // The kernel's words are on its console and not among the program's.
    assert!(!out.contains("Linux version"));
    assert!(
        shim.host
            .streams
            .get(&CONSOLE)
            .is_none_or(|c| !c.out().contains("terminal"))
    );
}

#[test]
fn an_image_of_forty_layers() {
    let mut image = microvm("cat /n/* | tr '\\n' ' '; cat /same");
    for n in 0..40 {
        let file = image.dir.path().join(format!("{n}.erofs"));
        guest::layer(
            &file,
            &[
                (&format!("n/{n:02}"), &format!("{n}\n")),
                ("same", &format!("top is {n}\n")),
            ],
            false,
        );
        image.config.layers.push(Layer { file, mount: None });
    }
    let mut shim = Shim::boot(image.workload());
    assert_eq!(shim.wait_exit(MAIN).code, 0);
    let numbers: String = (0..40).map(|n| format!("{n} ")).collect();
    assert_eq!(shim.main().out(), numbers + "top is 39\n");
}

fn ip(args: &str) {
    let out = std::process::Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn a_network_card_is_configured() {
    // This test's thread gets a network of its own, which ends with it.
    biga_sys::namespace::unshare(Namespaces::NET).unwrap();
    for line in [
        "link set lo up",
        "link add br0 type bridge",
        "addr add 10.99.0.1/24 dev br0",
        "link set br0 up",
        "tuntap add tap7 mode tap",
        "link set tap7 master br0 up",
    ] {
        ip(line);
    }
    let mut image = microvm("sleep 1000");
    image.config.nics.push(Nic {
        tap: "tap7".into(),
        mac: "52:54:00:12:34:56".into(),
        interface: "net5".into(),
        address: "10.99.0.5/24".into(),
        gateway: "10.99.0.1".into(),
        mtu: 1400,
        dns: vec![],
    });
    let mut shim = Shim::boot(image.workload());
    let (code, out) = shim.sh("ping -c3 -W20 10.99.0.1; ip addr show net5; ip route");
    assert_eq!(code, 0, "{out}");
    for expected in [
        "0% packet loss",
        "52:54:00:12:34:56",
        "10.99.0.5/24",
        "10.99.0.255",
        "mtu 1400",
        "default via 10.99.0.1 dev net5",
    ] {
        assert!(out.contains(expected), "{expected} is not in\n{out}");
    }
    // A tap that another has open is named.
    let mut second = microvm("true");
    second.config.nics = image.config.nics.clone();
    let mut other = Shim::new(second.workload());
    other.workload.create(&mut other.host).unwrap();
    let fault = other.workload.start(&mut other.host).unwrap_err();
    assert!(fault.message.contains("tap7"), "{fault}");
}
