//! A real init system in a container: systemd, of the host's own files.

use std::path::Path;

use biga_container::caps;
use biga_wire::config::{IdMap, Mount, MountHow, MountSource};
use biga_wire::shim::{Reply, Request};

use crate::support::{Rig, until};

const SYSTEMD: &str = "/lib/systemd/systemd";

fn mount(source: MountSource, target: &str, read_only: bool) -> Mount {
    Mount {
        source,
        target: target.into(),
        read_only,
        copy_up: false,
        how: MountHow::default(),
    }
}

fn memory(target: &str, mode: u32) -> Mount {
    let options = vec!["nosuid".into(), "nodev".into()];
    mount(
        MountSource::Tmpfs {
            size: None,
            mode,
            options,
        },
        target,
        false,
    )
}

/// The host's `/usr` with an `/etc` of its own, in which one unit has something to say.
fn machine(ids: Option<IdMap>) -> Rig {
    let rig = Rig::new(&[SYSTEMD, "--unit=it.target"]);
    let layer = rig.layer();
    for name in ["lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), layer.join(name)).unwrap();
    }
    let units = layer.join("etc/systemd/system");
    for dir in ["usr", "var/log", "var/lib", "run", "sys", "proc", "dev"] {
        std::fs::create_dir_all(layer.join(dir)).unwrap();
    }
    std::fs::create_dir_all(&units).unwrap();
    std::fs::write(layer.join("etc/machine-id"), "").unwrap();
    std::fs::write(units.join("it.target"), "[Unit]\nRequires=basic.target hello.service\n").unwrap();
    let hello = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                 ExecStart=/bin/sh -c 'echo hello from a unit > /dev/console; grep -c hello.service /proc/self/cgroup > /dev/console'\n";
    std::fs::write(units.join("hello.service"), hello).unwrap();
    // What of the host's units has nothing to do with this.
    for unit in ["systemd-udevd.service", "systemd-journald-audit.socket", "dbus.socket"] {
        std::os::unix::fs::symlink("/dev/null", units.join(unit)).unwrap();
    }
    rig.with(|c| {
        let usr = MountSource::Bind {
            path: "/usr".into(),
            sub_path: None,
        };
        c.mounts = vec![
            memory("/run", 0o755),
            memory("/run/lock", 0o1777),
            memory("/tmp", 0o1777),
            mount(usr, "/usr", true),
        ];
        c.system = true;
        c.process.tty = true;
        c.process.env = ["PATH=/usr/sbin:/usr/bin:/bin", "container=biga", "SYSTEMD_COLORS=0"]
            .map(str::to_owned)
            .to_vec();
        c.namespaces.user = ids;
        if ids.is_some() {
            c.read_only_paths = Some(Vec::new());
            let of_the_host = [
                "MAC_ADMIN",
                "MAC_OVERRIDE",
                "SYS_BOOT",
                "SYS_MODULE",
                "SYS_RAWIO",
                "SYS_TIME",
            ];
            let names = caps::NAMES.iter().filter(|n| !of_the_host.contains(n));
            c.capabilities = names.map(|n| (*n).to_owned()).collect();
        }
    })
}

fn boots_and_halts(ids: Option<IdMap>) {
    if !Path::new(SYSTEMD).exists() {
        eprintln!("no systemd on this host: it is not tried in a container");
        return;
    }
    let mut rig = machine(ids);
    match rig.launch() {
        Reply::Status { .. } => {}
        Reply::Error { message, .. }
            if ids.is_some()
                && message.contains("cannot be mapped")
                && std::env::var_os("BIGA_GUEST_TESTS").is_none() =>
        {
            eprintln!("the host's /usr cannot be mapped: {message}");
            return;
        }
        other => panic!("{other:?}"),
    }
    until("the unit's word", || {
        let log = rig.log();
        log.contains("hello from a unit").then_some(()).or_else(|| {
            assert!(rig.status().exit.is_none(), "it ended: {log}");
            None
        })
    });
    until("the unit to be active", || {
        let (exit, ..) = rig.exec(&["/usr/bin/systemctl", "is-active", "hello.service"]);
        (exit.code == 0).then_some(())
    });
    assert!(
        rig.log().replace('\r', "").contains("hello from a unit\n1\n"),
        "in a group of its own: {}",
        rig.log()
    );
    // As `biga stop` does: SIGRTMIN+3.
    rig.must(Request::Signal { signal: 37 });
    let exit = rig.wait();
    assert_eq!((exit.code, exit.signal), (0, None), "{}", rig.log());
    rig.must(Request::Delete);
    assert_eq!(rig.groups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn systemd_boots_and_halts() {
    boots_and_halts(None);
}

#[test]
fn systemd_boots_and_halts_with_ids_of_its_own() {
    boots_and_halts(Some(IdMap {
        base: 1_700_000_000,
        size: 65_536,
    }));
}
