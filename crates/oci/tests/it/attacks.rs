//! What was done to runtimes before, each in the form that worked against one: none may work here.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Bundle, Outcome, Runtime, mount, until};

fn sh(script: &str) -> Bundle {
    Bundle::sh(Runtime::Ours, script)
}

/// Runs a bundle by a caller that holds the host's root open, as descriptors 7 and 8.
fn with_open_root(bundle: &Bundle, words: &str) -> Outcome {
    bundle.write();
    let line = format!(
        "exec 7</ 8</etc; exec {} --root {}/state {words}",
        env!("CARGO_BIN_EXE_biga-oci"),
        bundle.dir.display()
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(&bundle.dir)
        .output()
        .unwrap();
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// CVE-2024-21626: the working directory is somebody's open directory.
#[test]
fn the_working_directory_is_never_outside() {
    for n in 3..16 {
        let bundle = sh("pwd; ls").with(|c, _| c["process"]["cwd"] = format!("/proc/self/fd/{n}").into());
        let outcome = with_open_root(&bundle, &format!("run {}", bundle.id));
        assert_ne!(outcome.code, Some(0), "descriptor {n}: {outcome:?}");
    }
    let bundle = sh("sleep 1000");
    bundle.up();
    for n in 3..16 {
        for path in [format!("/proc/self/fd/{n}"), format!("/proc/1/fd/{n}/..")] {
            let outcome = with_open_root(&bundle, &format!("exec --cwd {path} {} ls", bundle.id));
            assert_ne!(outcome.code, Some(0), "{path}: {outcome:?}");
        }
    }
}

/// CVE-2024-21626, CVE-2016-9962: what the runtime or its caller has open.
#[test]
fn no_descriptor_leaks() {
    // The shell itself has one more open while it lists them.
    let script = "echo /proc/$$/fd/*; for n in 4 5 6 7 8 9 11 12 13 14 15; do [ -e /proc/$$/fd/$n ] && echo leaked $n; done; echo end";
    let check = |seen: &str| {
        let (first, rest) = seen.split_once('\n').unwrap();
        let numbers = first.split(' ').map(|p| p.rsplit('/').next().unwrap());
        assert!(
            numbers.clone().all(|n| ["0", "1", "2", "3", "10"].contains(&n)),
            "{seen}"
        );
        assert_eq!(rest, "end\n");
    };
    let bundle = sh(script);
    check(&with_open_root(&bundle, &format!("run {}", bundle.id)).ok());
    let bundle = sh("sleep 1000");
    bundle.up();
    let words = format!("exec {} sh -c '{script}'", bundle.id);
    check(&with_open_root(&bundle, &words).ok());
}

/// CVE-2019-5736: the runtime's own program, written to through `/proc`.
#[test]
fn the_program_cannot_be_overwritten() {
    let bundle = sh("sleep 1000");
    let program = bundle.dir.join("runtime");
    fs::copy(env!("CARGO_BIN_EXE_biga-oci"), &program).unwrap();
    let before = fs::read(&program).unwrap();
    bundle.write();
    let call = |words: &[&str]| {
        let root = bundle.dir.join("state");
        let status = Command::new(&program)
            .arg("--root")
            .arg(root)
            .args(words)
            .current_dir(&bundle.dir)
            .status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    call(&["create", &bundle.id]);
    // The waiting process is the runtime's program: held open by somebody who waits until it is not executed any more.
    let held = fs::File::open(format!("/proc/{}/exe", bundle.pid())).unwrap();
    let inside = bundle.exec(": >>/proc/1/exe");
    assert_ne!(inside.code, Some(0), "{inside:?}");
    call(&["start", &bundle.id]);
    let exe = format!("/proc/{}/exe", bundle.pid());
    until("the program", || {
        fs::read_link(&exe).unwrap().ends_with("busybox").then_some(())
    });
    let refused = fs::OpenOptions::new()
        .append(true)
        .open(format!("/proc/self/fd/{}", held.as_raw_fd()));
    assert_eq!(
        refused.unwrap_err().raw_os_error(),
        Some(30),
        "it must be on a read-only mount"
    );
    assert!(fs::read(&program).unwrap() == before, "the program changed");

    // And as the program that is run: what the image calls its shell is the runtime itself.
    let evil = sh("true").with(|c, dir| {
        symlink("/proc/self/exe", dir.join("rootfs/bin/evil")).unwrap();
        c["process"]["args"] = json!(["/bin/evil", "--version"]);
    });
    let outcome = evil.run();
    assert!(!outcome.out.contains("it ran"), "{outcome:?}");
    assert!(fs::read(&program).unwrap() == before, "the program changed");
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: what is masked, or labelled, is not the kernel's `/proc`.
#[test]
fn proc_and_sys_are_where_they_are_said_to_be() {
    for name in ["proc", "sys"] {
        let bundle = sh("echo it ran").with(|_, dir| {
            let at = dir.join("rootfs").join(name);
            fs::remove_dir(&at).unwrap();
            fs::create_dir(dir.join("rootfs/elsewhere")).unwrap();
            symlink("/elsewhere", at).unwrap();
        });
        bundle.run().refused("ordinary directory");
    }
    // The link comes with the image, and what it leads to with a volume, mounted before.
    for name in ["proc", "sys"] {
        let bundle = sh("echo it ran").with(|c, dir| {
            let at = dir.join("rootfs").join(name);
            fs::remove_dir(&at).unwrap();
            symlink(format!("../volume/{name}"), at).unwrap();
            fs::create_dir_all(dir.join("volume").join(name)).unwrap();
            let volume =
                json!({"destination": "/volume", "type": "bind", "source": dir.join("volume"), "options": ["bind"]});
            c["mounts"].as_array_mut().unwrap().insert(0, volume);
        });
        bundle.run().refused("ordinary directory");
    }
    let bundle = sh("echo it ran").with(|c, dir| {
        fs::create_dir_all(dir.join("fake/self/attr")).unwrap();
        mount(
            c,
            json!({"destination": "/proc", "type": "bind", "source": dir.join("fake"), "options": ["bind"]}),
        );
    });
    bundle.run().refused("/proc");
    let bundle = sh("echo it ran").with(|c, dir| {
        symlink("/proc", dir.join("rootfs/alias")).unwrap();
        mount(
            c,
            json!({"destination": "/alias/self/attr", "type": "tmpfs", "source": "tmpfs"}),
        );
    });
    bundle.run().refused("/proc");
}

/// CVE-2021-30465, CVE-2024-45310: a directory of a shared volume becomes a link while something is mounted in it, and what is
/// made there to mount on, directories and empty files.
#[test]
fn a_destination_that_is_exchanged_leads_nowhere() {
    let bundle = sh("cat /proc/self/mountinfo | wc -l >/dev/null; echo it ran").with(|c, dir| {
        fs::create_dir_all(dir.join("rootfs/volume/dir")).unwrap();
        fs::create_dir(dir.join("outside")).unwrap();
        symlink(dir.join("outside"), dir.join("rootfs/volume/link")).unwrap();
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("file"), "data").unwrap();
        for n in 0..6 {
            let (at, source) = match n % 2 {
                0 => (format!("/volume/dir/deep{n}/deeper"), "data"),
                _ => (format!("/volume/dir/files{n}/file"), "file"),
            };
            mount(
                c,
                json!({"destination": at, "type": "bind", "source": dir.join(source), "options": ["bind"]}),
            );
        }
    });
    bundle.write();
    let stop = AtomicBool::new(false);
    let (volume, outside) = (bundle.rootfs().join("volume"), bundle.dir.join("outside"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // One is taken for the other at any time.
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    volume.join("dir"),
                    rustix::fs::CWD,
                    volume.join("link"),
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        for n in 0..25 {
            // It may be refused or not: what counts is where it leads.
            let id = format!("{}-{n}", bundle.id);
            bundle.call(&["run", &id]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let found: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
    assert!(found.is_empty(), "made outside the root: {found:?}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(bundle.dir.to_str().unwrap()), "mounted on the host");
}

/// CVE-2025-31133: the null device that hides files is a link to a file worth writing.
#[test]
fn files_are_hidden_by_the_null_device_only() {
    for target in ["/proc/sys/kernel/core_pattern", "/dev/zero"] {
        let bundle = sh("echo it ran").with(|c, dir| {
            let dev = dir.join("dev");
            fs::create_dir_all(dev.join("pts")).unwrap();
            fs::create_dir_all(dev.join("shm")).unwrap();
            fs::create_dir_all(dev.join("mqueue")).unwrap();
            symlink(target, dev.join("null")).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                dev.join("zero"),
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::Mode::from_raw_mode(0o666),
                rustix::fs::makedev(1, 5),
            )
            .unwrap();
            let list = c["mounts"].as_array_mut().unwrap();
            list.retain(|m| m["destination"] != "/dev");
            list.insert(
                1,
                json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}),
            );
        });
        bundle.run().refused("null device");
    }
    // A path that is to be hidden is followed inside the kernel's file systems only.
    let bundle = sh("cat /etc/real; echo x >/etc/real; cat /etc/real").with(|c, dir| {
        fs::write(dir.join("rootfs/etc/real"), "seen").unwrap();
        symlink("/etc/real", dir.join("rootfs/etc/hidden")).unwrap();
        c["linux"]["maskedPaths"] = json!(["/etc/hidden", "/proc/self/../kcore"]);
    });
    let outcome = bundle.run();
    assert_eq!(outcome.out, "", "{outcome:?}");
}

/// CVE-2025-52565: the console is a link to a file worth covering.
#[test]
fn the_console_is_no_link() {
    let bundle = sh("echo it ran").with(|c, dir| {
        let dev = dir.join("dev");
        for d in ["pts", "shm", "mqueue"] {
            fs::create_dir_all(dev.join(d)).unwrap();
        }
        symlink("/proc/sys/kernel/core_pattern", dev.join("console")).unwrap();
        c["process"]["terminal"] = true.into();
        c["linux"]["maskedPaths"] = json!([]);
        let list = c["mounts"].as_array_mut().unwrap();
        list.retain(|m| m["destination"] != "/dev");
        list.insert(
            1,
            json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}),
        );
    });
    bundle.run().refused("/dev/console");
    // Something else where the terminal's multiplexer is looked for.
    let bundle = sh("echo it ran").with(|c, dir| {
        c["process"]["terminal"] = true.into();
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/dev/pts");
        let pts = dir.join("pts");
        fs::create_dir(&pts).unwrap();
        fs::write(pts.join("ptmx"), "").unwrap();
        mount(
            c,
            json!({"destination": "/dev/pts", "type": "bind", "source": pts, "options": ["bind"]}),
        );
    });
    bundle.run().refused("multiplexer");
}

/// CVE-2025-52881: writes that are meant for `/proc` end elsewhere.
#[test]
fn kernel_parameters_are_written_to_the_kernel() {
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let bundle = sh("cat /proc/sys/net/ipv4/ip_forward").with(|c, dir| {
        fs::create_dir_all(dir.join("rootfs/proc/sys/net/ipv4")).unwrap();
        fs::write(dir.join("target"), "untouched").unwrap();
        symlink(dir.join("target"), dir.join("rootfs/proc/sys/net/ipv4/ip_forward")).unwrap();
        // Without a /proc of the kernel in the container, the image's is all there is.
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/proc");
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
        c["process"]["oomScoreAdj"] = 500.into();
    });
    bundle.run();
    assert_eq!(fs::read_to_string(bundle.dir.join("target")).unwrap(), "untouched");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
}

/// CVE-2016-9962: a process on its way in is looked at by one inside that may trace all.
#[test]
fn a_process_on_its_way_in_shows_nothing_of_the_host() {
    let script = "own=$(stat -L -c %d:%i /proc/1/root); echo ready >/tmp/ready; while :; do for p in /proc/[0-9]*; do \
                  r=$(stat -L -c %d:%i $p/root 2>/dev/null); [ -n \"$r\" ] && [ \"$r\" != \"$own\" ] && echo \"root $p $r $own\" >>/tmp/seen; \
                  ls -l $p/fd 2>/dev/null | grep -E 'cgroup|state|rootfs|config' >>/tmp/seen; done; done";
    let bundle = sh(script).with(|c, _| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap()
                .push("CAP_SYS_PTRACE".into());
        }
    });
    bundle.up();
    until("the looking", || {
        bundle.rootfs().join("tmp/ready").exists().then_some(())
    });
    for _ in 0..20 {
        bundle.exec("true").ok();
    }
    let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap_or_default();
    assert_eq!(seen, "");
}

/// The same, for what the runtime or its caller has open: a directory leads to the host's root.
#[test]
fn a_process_on_its_way_in_has_nothing_open() {
    // Beneath the host's root lies this test, beneath a container's it does not.
    let mark = std::env::current_exe().unwrap();
    let script = format!(
        "echo ready >/tmp/ready; while :; do for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; \
         for f in $p/fd/*; do for way in {} /config.json /rootfs; do \
         [ -e $f$way ] && echo $way >>/tmp/seen; done; done; done; done",
        mark.display()
    );
    let bundle = sh(&script).with(|c, _| {
        for set in ["bounding", "effective", "permitted"] {
            let all = c["process"]["capabilities"][set].as_array_mut().unwrap();
            all.push("CAP_SYS_PTRACE".into());
        }
    });
    bundle.up();
    until("the looking", || {
        bundle.rootfs().join("tmp/ready").exists().then_some(())
    });
    for _ in 0..60 {
        with_open_root(&bundle, &format!("exec {} true", bundle.id)).ok();
    }
    let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap_or_default();
    assert_eq!(seen, "");
}

/// CVE-2022-29162: capabilities that any program would pass on.
#[test]
fn nothing_is_inheritable_by_itself() {
    let bundle = sh("sleep 1000");
    bundle.up();
    let caps = bundle.exec("grep CapInh /proc/self/status").ok();
    assert_eq!(caps, "CapInh:\t0000000000000000\n");
    let words = [
        "exec",
        "--cap",
        "CAP_NET_RAW",
        &bundle.id,
        "grep",
        "Cap",
        "/proc/self/status",
    ];
    let caps = bundle.call(&words).ok();
    assert!(caps.contains("CapInh:\t0000000000000000"), "{caps}");
    assert!(caps.contains("CapEff:\t00000000080020e3"), "{caps}");
}

/// CVE-2023-25809 and its like: control groups that can be written from inside.
#[test]
fn control_groups_cannot_be_written() {
    for own in [true, false] {
        let script = "for f in $(ls -d /sys/fs/cgroup /sys/fs/cgroup/*/); do mkdir $f/x 2>/dev/null && echo made $f; done; \
                      for f in /sys/fs/cgroup/*/cgroup.procs; do ( echo $$ >$f ) 2>/dev/null && echo wrote $f; done; echo end";
        let bundle = sh(script).with(|c, _| {
            if !own {
                c["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|n| n["type"] != "cgroup");
            }
        });
        assert_eq!(bundle.run().ok(), "end\n", "with a namespace of its own: {own}");
    }
}
