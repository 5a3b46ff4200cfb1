//! What vendors' devices need: nodes with an owner, hooks; and what else is mounted of other images, or not at all.

use std::path::{Path, PathBuf};

use biga_wire::config::{Device, DeviceNumber, Hook, HookStage, Mount, MountHow, MountSource};
use biga_wire::shim::Reply;

use crate::support::Rig;

fn hook(stage: HookStage, path: &str, script: &str) -> Hook {
    Hook {
        stage,
        path: path.into(),
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin:/usr/bin".into(), "TOLD=env".into()],
        timeout: Some(60),
    }
}

#[test]
fn hooks_run_where_they_belong() {
    let rig = Rig::sh("cat /etc/hooked /etc/started; ls /etc");
    let (state, run) = (rig.dir.join("told"), rig.dir.join("run"));
    // The host's programs and files, in the container's mounts: its root is where the bundle says.
    let script = format!(
        "cat > {}; root=$(sed 's/.*\"path\":\"\\([^\"]*\\)\".*/\\1/' {}/config.json); echo $TOLD $(readlink $root/dev/core) > $root/etc/hooked",
        state.display(),
        run.display()
    );
    let all = vec![
        hook(
            HookStage::StartContainer,
            "/bin/busybox",
            "echo started by $$ > /etc/started",
        ),
        hook(HookStage::CreateContainer, "/bin/sh", &script),
    ];
    let rig = rig.with(|c| c.hooks = all).up();
    assert_eq!(rig.wait().code, 0, "{}", rig.log());
    assert!(rig.log().starts_with("env /proc/kcore\nstarted by "), "{}", rig.log());
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    assert_eq!(
        (&told["status"], &told["id"]),
        (
            &"creating".into(),
            &rig.config.run_dir.file_name().unwrap().to_str().unwrap().into()
        )
    );
    assert!(
        told["pid"].as_u64().is_some_and(|p| p > 1),
        "as the host counts: {told}"
    );
}

#[test]
fn a_hook_that_fails_ends_it() {
    let mut rig = Rig::sh("true").with(|c| {
        c.hooks = vec![hook(
            HookStage::CreateContainer,
            "/bin/sh",
            "echo no such card >&2; exit 3",
        )];
    });
    match rig.launch() {
        Reply::Error { message, .. } => {
            assert!(
                message.contains("hook /bin/sh of createContainer failed: it ended with 3: no such card"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nodes_have_the_owner_that_was_asked_for() {
    let rig =
        Rig::sh("stat -c '%n %a %u %g %t:%T' /dev/v0 /dev/v1 /opt/v2; echo x > /dev/v0 && head -c 1 /dev/v1 | wc -c")
            .with(|c| {
                let zero = DeviceNumber {
                    block: false,
                    major: 1,
                    minor: 5,
                };
                let node = |path: &str, number| Device {
                    host_path: "/dev/null".into(),
                    path: path.into(),
                    permissions: "rw".into(),
                    number,
                    ..Device::default()
                };
                c.devices = vec![
                    Device {
                        mode: Some(0o640),
                        uid: Some(33),
                        gid: Some(44),
                        ..node("/dev/v0", None)
                    },
                    Device {
                        // By its number nobody looks for it on the host.
                        host_path: "/dev/absent".into(),
                        ..node("/dev/v1", Some(zero))
                    },
                    Device {
                        gid: Some(7),
                        ..node("/opt/v2", None)
                    },
                ];
            });
    let (exit, log) = rig.run();
    assert_eq!(
        log, "/dev/v0 640 33 44 1:3\n/dev/v1 666 0 0 1:5\n/opt/v2 666 0 7 1:3\n1\n",
        "{exit:?}"
    );
}

fn image(layers: &[PathBuf], sub_path: Option<&str>, target: &str) -> Mount {
    Mount {
        source: MountSource::Image {
            layers: layers.to_vec(),
            sub_path: sub_path.map(str::to_owned),
        },
        target: target.into(),
        read_only: true,
        copy_up: false,
        how: MountHow::default(),
    }
}

/// Two layers, of which the upper one changes a file of the lower.
fn layers(dir: &Path) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = ["low", "high"].iter().map(|n| dir.join(n)).collect();
    for (dir, text) in all.iter().zip(["low", "high"]) {
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        std::fs::write(dir.join("etc/same"), format!("{text}\n")).unwrap();
        std::fs::write(dir.join("etc").join(text), format!("only {text}\n")).unwrap();
    }
    all
}

const SEEN: &str = "cat /i/etc/same /i/etc/low /part/high /one /single/etc/same; touch /i/new 2>&1; touch /part/new 2>&1; touch /single/x 2>&1";

fn with_images(rig: Rig) -> Rig {
    let all = layers(&rig.dir);
    rig.with(|c| {
        c.mounts = vec![
            image(&all, None, "/i"),
            image(&all, Some("etc"), "/part"),
            image(&all, Some("/etc/low"), "/one"),
            image(&all[..1], None, "/single"),
        ];
    })
}

fn shows_images(log: &str) {
    assert!(log.starts_with("high\nonly low\nonly high\nonly low\nlow\n"), "{log}");
    assert_eq!(log.matches("Read-only").count(), 3, "{log}");
}

#[test]
fn files_of_images_are_mounted_read_only() {
    let rig = with_images(Rig::sh(SEEN)).up();
    rig.wait();
    shows_images(&rig.log());
    // The layers are as they were, and nothing is left over them.
    assert_eq!(std::fs::read_to_string(rig.dir.join("low/etc/same")).unwrap(), "low\n");
    let mut rig = Rig::sh("true");
    let all = layers(&rig.dir);
    rig = rig.with(|c| c.mounts = vec![image(&all, Some("nowhere"), "/i")]);
    assert!(matches!(rig.launch(), Reply::Error { message, .. } if message.contains("find nowhere in the image")));
}

#[test]
fn another_runtime_gets_the_same() {
    let runtimes = crate::external::runtimes();
    for path in runtimes {
        let rig = with_images(Rig::sh(&format!(
            "{SEEN}; ls /etc/hooked; test -e /dev/shm || echo no shm"
        )));
        let script = "cat > /dev/null; touch /etc/hooked";
        let rig = rig
            .with(|c| {
                c.hooks = vec![hook(HookStage::StartContainer, "/bin/busybox", script)];
                c.no_shm = true;
                c.annotations = [("a/b".to_owned(), "c".to_owned())].into();
            })
            .by(&path)
            .up();
        rig.wait();
        let log = rig.log();
        shows_images(&log);
        assert!(log.contains("/etc/hooked\nno shm\n"), "{}: {log}", path.display());
    }
}

#[test]
fn without_shared_memory() {
    let rig = Rig::sh("ls -A /dev/shm 2>&1; ls -d /dev/mqueue; mount | grep -c ' /dev/shm '").with(|c| c.no_shm = true);
    let (_, log) = rig.run();
    assert!(
        log.contains("No such file") && log.ends_with("/dev/mqueue\n0\n"),
        "{log}"
    );
}
