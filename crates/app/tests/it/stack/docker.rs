//! Docker's own command line against the Docker API of a real daemon.

use std::path::Path;

use biga_testkit::{Daemon, Ran, eventually};

use super::daemon;

/// Whether there is a `docker` here; says so where there is none.
pub(super) fn has_docker() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|d| d.join("docker").is_file());
    if !found {
        println!("no docker on this host: its command line is not tried");
    }
    found
}

pub(super) fn socket(d: &Daemon) -> String {
    d.run_root().join("docker.sock").display().to_string()
}

/// `docker` with these arguments.
pub(super) fn docker(d: &Daemon, args: &[&str]) -> Ran {
    let host = format!("DOCKER_HOST=unix://{}", socket(d));
    // A directory of its own, so that nobody's settings or logins take part.
    let config = format!("DOCKER_CONFIG={}", d.path().join("docker").display());
    d.host(&[&["env", &host, &config, "docker"], args].concat())
}

#[test]
fn version_says_biga() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let platform = docker(&d, &["version", "-f", "{{.Server.Platform.Name}} {{.Server.Version}}"]).ok();
    assert_eq!(platform, format!("Biga {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(docker(&d, &["info", "-f", "{{.Name}} {{.Driver}}"]).ok(), "test erofs");
    assert_eq!(
        d.biga(&["docker-context"]).ok(),
        format!("export DOCKER_HOST=unix://{}", socket(&d))
    );
}

#[test]
fn run_carries_output_and_exit_code() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let ran = docker(
        &d,
        &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"],
    );
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    let ran = docker(
        &d,
        &[
            "run",
            "--rm",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "busybox",
            "sh",
            "-c",
            "echo $A; pwd",
        ],
    );
    assert_eq!(ran.ok(), "b\n/tmp");
    assert_eq!(docker(&d, &["run", "--rm", "busybox", "nonesuch"]).code, 127);
    eventually("nothing to be left", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    d.until_clean();
}

#[test]
fn one_list_for_both_command_lines() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    d.biga(&["run", "-d", "--name", "ours", "busybox", "sleep", "1000"])
        .ok();
    let script = "echo one; echo two >&2; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    let id = docker(&d, &["run", "-d", "--name", "theirs", "busybox", "sh", "-c", script]).ok();
    assert_eq!(id.len(), 64, "{id}");
    let mut names: Vec<String> = docker(&d, &["ps", "--format", "{{.Names}} {{.State}}"])
        .ok()
        .lines()
        .map(Into::into)
        .collect();
    names.sort();
    assert_eq!(names, ["ours running", "theirs running"]);
    assert!(d.biga(&["ps"]).ok().contains("theirs"));

    let ran = docker(
        &d,
        &["exec", "theirs", "sh", "-c", "echo inside; echo aside >&2; exit 7"],
    );
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (7, "inside\n", "aside\n")
    );
    assert_eq!(
        docker(&d, &["exec", "ours", "hostname"]).ok(),
        d.biga(&["exec", "ours", "hostname"]).ok()
    );
    eventually("both lines", || {
        let logs = docker(&d, &["logs", "theirs"]);
        (logs.out == "one\n" && logs.err == "two\n").then_some(())
    });
    let state = "{{.Name}} {{.State.Status}} {{.State.Pid}} {{.Config.Image}}";
    let pid = d.field("theirs", &["status", "pid"]);
    assert_eq!(
        docker(&d, &["inspect", "-f", state, &id[..12]]).ok(),
        format!("/theirs running {pid} busybox")
    );
    assert!(docker(&d, &["top", "theirs"]).ok().contains("sh"));

    docker(&d, &["stop", "theirs"]).ok();
    assert_eq!(
        docker(
            &d,
            &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "theirs"]
        )
        .ok(),
        "exited 5"
    );
    assert_eq!(d.field("theirs", &["status", "exitCode"]), "5");
    let refused = docker(&d, &["rm", "ours"]);
    assert!(
        refused.code != 0 && refused.err.contains("cannot remove container"),
        "{refused:?}"
    );
    docker(&d, &["rm", "theirs"]).ok();
    docker(&d, &["rm", "-f", "ours"]).ok();
    assert_eq!(d.biga(&["ps", "-aq"]).ok(), "");
    d.until_clean();
}

#[test]
fn images_networks_and_volumes() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    docker(&d, &["tag", "busybox", "other:v1"]).ok();
    let images = docker(&d, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert!(
        images.contains("busybox:latest") && images.contains("other:v1"),
        "{images}"
    );
    assert_eq!(
        docker(&d, &["image", "inspect", "-f", "{{index .Config.Env 1}}", "other:v1"]).ok(),
        "FLAVOR=plain"
    );
    let tar = d.path().join("saved.tar").display().to_string();
    docker(&d, &["save", "-o", &tar, "other:v1"]).ok();
    docker(&d, &["rmi", "other:v1"]).ok();
    assert!(docker(&d, &["load", "-i", &tar]).ok().contains("other:v1"));
    assert_eq!(docker(&d, &["run", "--rm", "other:v1", "echo", "back"]).ok(), "back");

    docker(&d, &["network", "create", "--subnet", "10.123.7.0/24", "front"]).ok();
    let networks = docker(&d, &["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(
        networks.lines().any(|n| n == "bridge") && networks.lines().any(|n| n == "front"),
        "{networks}"
    );
    let address = docker(&d, &["run", "--rm", "--network", "front", "busybox", "hostname", "-i"]).ok();
    assert!(address.starts_with("10.123.7."), "{address}");
    docker(&d, &["network", "rm", "front"]).ok();

    assert_eq!(docker(&d, &["volume", "create", "data"]).ok(), "data");
    docker(
        &d,
        &[
            "run",
            "--rm",
            "-v",
            "data:/data",
            "busybox",
            "sh",
            "-c",
            "echo kept > /data/file",
        ],
    )
    .ok();
    assert_eq!(
        d.biga(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/file"])
            .ok(),
        "kept"
    );
    docker(&d, &["volume", "rm", "data"]).ok();
    assert_eq!(docker(&d, &["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn a_runtime_is_an_isolation() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    docker(
        &d,
        &[
            "create",
            "--name",
            "small",
            "--runtime",
            "microvm",
            "-m",
            "128m",
            "busybox",
            "true",
        ],
    )
    .ok();
    assert_eq!(d.field("small", &["spec", "isolation"]), "microvm");
    assert_eq!(
        docker(
            &d,
            &["inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}}", "small"]
        )
        .ok(),
        "microvm created"
    );
    let refused = docker(&d, &["create", "--runtime", "nonesuch", "busybox", "true"]);
    assert!(refused.code != 0 && refused.err.contains("nonesuch"), "{refused:?}");
    // What is not here says so.
    let refused = docker(&d, &["create", "--gpus", "all", "busybox", "true"]);
    assert!(
        refused.code != 0 && refused.err.contains("could not select device driver"),
        "{refused:?}"
    );
    docker(&d, &["rm", "small"]).ok();
    assert_eq!(d.biga(&["ps", "-aq"]).ok(), "");
}

#[test]
fn the_socket_goes_and_comes_with_the_daemon() {
    use std::os::unix::fs::PermissionsExt;
    if !has_docker() {
        return;
    }
    let mut d = daemon();
    let path = socket(&d);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let id = docker(&d, &["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]).ok();
    d.kill();
    assert!(Path::new(&path).exists(), "a killed daemon leaves its socket");
    d.serve();
    assert_eq!(docker(&d, &["ps", "-q", "--no-trunc"]).ok(), id);
    d.terminate();
    assert!(!Path::new(&path).exists(), "a daemon that ends takes its socket along");
    d.serve();
    docker(&d, &["rm", "-f", "stays"]).ok();
    d.until_clean();
}

#[test]
fn sharing_and_security_options() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let serve = "echo note > /dev/shm/note; cd /var/www; exec httpd -f -p 8080";
    let id = docker(&d, &["run", "-d", "--name", "db", "busybox", "sh", "-c", serve]).ok();
    eventually("the note", || {
        (docker(&d, &["exec", "db", "cat", "/dev/shm/note"]).code == 0).then_some(())
    });
    // By name and by the beginning of the id.
    let network = format!("container:{}", &id[..12]);
    let share = [
        "run",
        "--rm",
        "--network",
        &network,
        "--pid",
        "container:db",
        "--ipc",
        "container:db",
    ];
    let script = "cat /dev/shm/note /proc/1/comm; wget -q -O - http://127.0.0.1:8080/";
    let page = eventually("the page", || {
        let r = docker(&d, &[&share[..], &["busybox", "sh", "-c", script]].concat());
        (r.code == 0).then_some(r.out)
    });
    assert_eq!(page, "note\nhttpd\nhello from biga\n");

    let profile = d.path().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&profile, text).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let r = docker(
        &d,
        &["run", "--rm", "--security-opt", &seccomp, "busybox", "mkdir", "/x"],
    );
    assert!(r.code != 0 && r.err.contains("No space left"), "{r:?}");
    let options = [
        "--security-opt",
        "systempaths=unconfined",
        "--uts",
        "host",
        "--cgroupns",
        "host",
        "--device-cgroup-rule",
        "c 1:11 w",
        "--tmpfs",
        "/t:uid=1000",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
    ];
    let run = [
        &["run", "-d", "--name", "opts"][..],
        &options,
        &["busybox", "sleep", "1000"],
    ]
    .concat();
    docker(&d, &run).ok();
    let inside = "head -c 1 /proc/interrupts | wc -c; stat -c %u /t; mknod /k c 1 11; echo x > /k && echo wrote";
    assert_eq!(docker(&d, &["exec", "opts", "sh", "-c", inside]).ok(), "1\n1000\nwrote");
    let shown = docker(
        &d,
        &[
            "inspect",
            "-f",
            "{{.HostConfig.CpuQuota}} {{.HostConfig.UTSMode}} {{.HostConfig.CgroupnsMode}}",
            "opts",
        ],
    );
    assert_eq!(shown.ok(), "50000 host host");
    docker(&d, &["update", "--cpu-quota", "20000", "opts"]).ok();
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.HostConfig.CpuQuota}}", "opts"]).ok(),
        "20000"
    );
    docker(&d, &["rm", "-f", "opts", "db"]).ok();
    d.until_clean();
}

#[test]
fn a_start_that_finds_no_place_says_so() {
    if !has_docker() {
        return;
    }
    // No guest kernel is set up here.
    let d = daemon();
    let run = docker(
        &d,
        &[
            "run",
            "-d",
            "--name",
            "small",
            "--runtime",
            "microvm",
            "busybox",
            "true",
        ],
    );
    assert_eq!(run.code, 125, "{run:?}");
    for word in [
        "cannot start container",
        "does not offer isolation microvm",
        "biga doctor",
    ] {
        assert!(run.err.contains(word), "{word}: {run:?}");
    }
    // It is there as Docker leaves it, and nothing starts it later.
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.State.Status}}", "small"]).ok(),
        "created"
    );
    assert_eq!(d.field("small", &["spec", "power"]), "Stopped");
    docker(&d, &["rm", "small"]).ok();
}
