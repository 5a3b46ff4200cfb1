//! Devices that vendors describe (the Container Device Interface), and the files of other images, by both command lines.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

/// A vendor's description of devices that are others on every host.
fn describe(dir: &Path) {
    let (cdi, share) = (dir.join("cdi"), dir.join("share"));
    for d in [&cdi, &share] {
        std::fs::create_dir(d).unwrap();
    }
    std::fs::write(share.join("lib"), "a library\n").unwrap();
    let hook = dir.join("hook");
    std::fs::write(
        &hook,
        "#!/bin/sh\nbundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\nroot=$(sed 's/.*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json)\necho $1 > $root/etc/linked\n",
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    // One that a container may not use anyway.
    let other = ["/dev/fuse", "/dev/net/tun", "/dev/kvm"].map(Path::new);
    let other = other.into_iter().find(|p| p.exists()).expect("a device of this host");
    let yaml = format!(
        "cdiVersion: 0.6.0
kind: vendor.test/card
devices:
- name: zero
  containerEdits:
    deviceNodes:
    - {{path: /dev/card0, hostPath: /dev/zero, permissions: rw, gid: 44, fileMode: 432}}
    - {{path: /dev/reads, hostPath: {other}, permissions: r}}
    env: [CARD=zero]
- name: full
  containerEdits:
    deviceNodes:
    - {{path: /dev/card1, hostPath: /dev/full}}
    env: [CARD=full]
containerEdits:
  env: [VENDOR=test]
  additionalGids: [44]
  mounts:
  - {{hostPath: {share}, containerPath: /opt/vendor, options: [ro, nosuid, nodev, rbind, rprivate]}}
  hooks:
  - {{hookName: createContainer, path: {hook}, args: [hook, said], env: ['PATH=/usr/bin:/bin']}}
",
        other = other.display(),
        share = share.display(),
        hook = hook.display(),
    );
    std::fs::write(cdi.join("card.yaml"), yaml).unwrap();
    let gpus = serde_json::json!({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "0", "containerEdits": {"env": ["GPU0=yes"], "deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
        {"name": "1", "containerEdits": {"env": ["GPU1=yes"]}},
        {"name": "all", "containerEdits": {"env": ["GPU=all"]}},
    ]});
    std::fs::write(cdi.join("gpu.json"), gpus.to_string()).unwrap();
}

fn with_cards() -> Daemon {
    let d = Daemon::start_with(env!("CARGO_BIN_EXE_biga"), |dir| {
        describe(dir);
        vec!["--cdi-dir".into(), dir.join("cdi").display().to_string()]
    });
    d.import_busybox();
    d
}

const LOOK: &str = "stat -c '%a %g' /dev/card0; head -c 2 /dev/card0 | wc -c; echo $VENDOR $CARD; id -G; cat /opt/vendor/lib /etc/linked; \
     touch /opt/vendor/x 2>/dev/null || echo read-only; (: < /dev/reads) && (: > /dev/reads) 2>/dev/null || echo unwritable";
const SEEN: &str = "660 44\n2\ntest zero\n0 44\na library\nsaid\nread-only\nunwritable";

#[test]
fn a_described_device_comes_with_all_it_needs() {
    let d = with_cards();
    let device = ["--device", "vendor.test/card=zero"];
    let shell = |script| ["busybox", "sh", "-c", script];
    let by_biga = d.biga(&[&["run", "--rm"], &device[..], &shell(LOOK)].concat()).ok();
    assert_eq!(by_biga, SEEN);

    let refused = d.biga(&["run", "--rm", "--device", "vendor.test/card=absent", "busybox", "true"]);
    assert!(
        refused.code == 125
            && refused.err.contains("unresolvable CDI devices vendor.test/card=absent")
            && refused.err.contains("vendor.test/card=zero"),
        "{refused:?}"
    );
    let refused = d.biga(&[
        "run",
        "--rm",
        "--isolation",
        "microvm",
        "--device",
        "vendor.test/card=zero",
        "busybox",
    ]);
    assert!(
        refused.code != 0 && refused.err.contains("cannot be given to a microvm"),
        "{refused:?}"
    );
    if has_docker() {
        let by_docker = docker(&d, &[&["run", "--rm"], &device[..], &shell(LOOK)].concat()).ok();
        assert_eq!(by_docker, by_biga);
        by_docker_alone(&d);
    }
    eventually("nothing to be left", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    d.until_clean();
}

fn by_docker_alone(d: &Daemon) {
    let two = [
        "--device",
        "vendor.test/card=full",
        "--device",
        "vendor.test/card=zero",
        "--device",
        "/dev/null:/dev/nil",
    ];
    let script = "echo $CARD; ls /dev/card0 /dev/card1 /dev/nil";
    let ran = docker(
        d,
        &[&["run", "--name", "two"], &two[..], &["busybox", "sh", "-c", script]].concat(),
    );
    assert_eq!(ran.ok(), "zero\n/dev/card0\n/dev/card1\n/dev/nil");
    let shown = docker(d, &["inspect", "-f", "{{json .HostConfig.DeviceRequests}}", "two"]).ok();
    assert!(
        shown.contains(r#""Driver":"cdi""#) && shown.contains("vendor.test/card=full"),
        "{shown}"
    );
    docker(d, &["rm", "two"]).ok();

    let gpus = |gpus: &str| {
        docker(
            d,
            &[
                "run",
                "--rm",
                "--gpus",
                gpus,
                "busybox",
                "sh",
                "-c",
                "echo $GPU $GPU0 $GPU1",
            ],
        )
    };
    assert_eq!(gpus("all").ok(), "all");
    assert_eq!(gpus("2").ok(), "yes yes");
    assert_eq!(gpus("device=1").ok(), "yes");
    let many = gpus("3");
    assert!(many.code == 125 && many.err.contains("nvidia.com/gpu=2"), "{many:?}");
    let refused = docker(d, &["run", "--rm", "--gpus", "driver=odd", "busybox", "true"]);
    assert!(
        refused.code == 125 && refused.err.contains("could not select device driver \"odd\""),
        "{refused:?}"
    );

    let info = docker(
        d,
        &["info", "--format", "{{json .CDISpecDirs}} {{json .DiscoveredDevices}}"],
    )
    .ok();
    assert!(
        info.starts_with(&format!("[\"{}\"]", d.path().join("cdi").display())),
        "{info}"
    );
}

#[test]
fn files_of_an_image_are_a_mount() {
    let mut d = daemon();
    if !has_docker() {
        return;
    }
    let file = d.path().join("Dockerfile");
    std::fs::write(
        &file,
        "FROM busybox\nRUN mkdir /tools && echo one > /tools/one\nRUN echo two > /tools/two\n",
    )
    .unwrap();
    d.biga(&["build", "-q", "-t", "tools:1", &d.path().display().to_string()])
        .ok();

    let script = "cat /t/tools/one /p/two; touch /t/x 2>/dev/null || echo read-only; sleep 1000";
    let mounts = [
        "--mount",
        "type=image,src=tools:1,dst=/t",
        "--mount",
        "type=image,src=tools:1,dst=/p,image-subpath=tools",
    ];
    d.biga(
        &[
            &["run", "-d", "--name", "ours"],
            &mounts[..],
            &["busybox", "sh", "-c", script],
        ]
        .concat(),
    )
    .ok();
    // The command line of the host may not know the option yet; its engine's interface has it.
    let body = serde_json::json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"Mounts": [
        {"Type": "image", "Source": "tools:1", "Target": "/t"},
        {"Type": "image", "Source": "tools:1", "Target": "/p", "ImageOptions": {"Subpath": "tools"}},
    ]}});
    post(&d, "/v1.48/containers/create?name=theirs", &body.to_string());
    docker(&d, &["start", "theirs"]).ok();
    for name in ["ours", "theirs"] {
        eventually("what it sees", || {
            (d.biga(&["logs", name]).ok() == "one\ntwo\nread-only").then_some(())
        });
    }
    let shown = docker(
        &d,
        &[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}};{{end}}",
            "theirs",
        ],
    )
    .ok();
    assert_eq!(shown, "image tools:1 /t false;image tools:1 /p false;");

    // It is in use by who mounts it, also for a daemon that was away.
    d.kill();
    d.serve();
    let refused = docker(&d, &["rmi", "tools:1"]);
    assert!(
        refused.code != 0 && refused.err.contains("image is being used by running container"),
        "{refused:?}"
    );
    docker(&d, &["image", "prune", "-af"]).ok();
    docker(&d, &["restart", "-t", "0", "theirs"]).ok();
    assert_eq!(docker(&d, &["exec", "theirs", "cat", "/p/two"]).ok(), "two");

    // At rest its files are those that it sees as it runs.
    docker(&d, &["kill", "theirs"]).ok();
    let out = d.path().join("copied");
    docker(&d, &["cp", "theirs:/p/one", &out.display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "one\n");
    let refused = d.biga(&[
        "run",
        "--rm",
        "--isolation",
        "microvm",
        "--mount",
        "type=image,src=tools:1,dst=/t",
        "busybox",
    ]);
    assert!(
        refused.code != 0 && refused.err.contains("only for isolation container"),
        "{refused:?}"
    );
    docker(&d, &["rm", "-f", "ours", "theirs"]).ok();
    docker(&d, &["rmi", "tools:1"]).ok();
    d.until_clean();
}

fn post(d: &Daemon, path: &str, body: &str) {
    let socket = super::docker::socket(d);
    let url = format!("http://d{path}");
    let ran = d.host(&[
        "curl",
        "-sS",
        "-f",
        "--unix-socket",
        &socket,
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        &url,
    ]);
    ran.ok();
}

#[test]
fn ipc_none_has_no_shared_memory() {
    let d = daemon();
    let ran = d.biga(&["run", "--rm", "--ipc", "none", "busybox", "ls", "/dev/shm"]);
    assert!(ran.code == 1 && ran.err.contains("No such file"), "{ran:?}");
    if has_docker() {
        let ran = docker(
            &d,
            &["run", "--name", "none", "--ipc", "none", "busybox", "ls", "/dev/shm"],
        );
        assert!(ran.code == 1 && ran.err.contains("No such file"), "{ran:?}");
        assert_eq!(
            docker(&d, &["inspect", "-f", "{{.HostConfig.IpcMode}}", "none"]).ok(),
            "none"
        );
        docker(&d, &["rm", "none"]).ok();
    }
    d.until_clean();
}

#[test]
fn the_gateway_of_the_highest_priority_leads_out() {
    let d = daemon();
    for (name, subnet) in [("front", "10.61.1.0/24"), ("back", "10.61.2.0/24")] {
        d.biga(&["network", "create", "--subnet", subnet, name]).ok();
    }
    let route = |name: &str| d.biga(&["exec", name, "ip", "route", "show", "default"]).ok();
    let joined = [
        "--network",
        "front",
        "--network",
        "back:gw-priority=5,link-local-ip=169.254.7.7",
    ];
    d.biga(
        &[
            &["run", "-d", "--name", "two"],
            &joined[..],
            &["busybox", "sleep", "1000"],
        ]
        .concat(),
    )
    .ok();
    assert!(route("two").starts_with("default via 10.61.2.1 "), "{}", route("two"));
    d.biga(&[
        "run",
        "-d",
        "--name",
        "near",
        "--network",
        "back:link-local-ip=169.254.7.8",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    d.biga(&["exec", "near", "ping", "-c", "1", "-W", "10", "169.254.7.7"])
        .ok();
    if has_docker() {
        docker(&d, &["network", "connect", "--gw-priority", "3", "front", "near"]).ok();
        assert!(route("near").starts_with("default via 10.61.1.1 "), "{}", route("near"));
        docker(&d, &["network", "disconnect", "front", "near"]).ok();
        assert!(route("near").starts_with("default via 10.61.2.1 "), "{}", route("near"));
        let shown = docker(&d, &["inspect", "-f", "{{.NetworkSettings.Networks.back.GwPriority}} {{.NetworkSettings.Networks.back.IPAMConfig.LinkLocalIPs}}", "two"]).ok();
        assert_eq!(shown, "5 [169.254.7.7]");
    }
    d.biga(&["rm", "-f", "two", "near"]).ok();
    d.biga(&["network", "rm", "front", "back"]).ok();
    d.until_clean();
}
