//! Links and their variables, logs that go elsewhere, looking images up, imports: what Docker's older users still use.

use std::fs;
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use biga_testkit::{Daemon, eventually, images};

use super::daemon;
use super::docker::{docker, has_docker};
use super::registries::{HOST, Registry};

fn sleeper(d: &Daemon, name: &str, options: &[&str]) -> String {
    let tail = ["--stop-timeout", "0", "busybox", "sleep", "1000"];
    docker(d, &[&["run", "-d", "--name", name], options, &tail].concat()).ok()
}

#[test]
fn links_on_the_default_network_are_told_in_the_environment() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    sleeper(&d, "my-db", &["--expose", "5432", "-e", "SECRET=x"]);
    sleeper(&d, "web", &["--link", "my-db:store", "-e", "STORE_NAME=mine"]);
    let ip = docker(&d, &["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "my-db"]).ok();
    let env = docker(&d, &["exec", "web", "env"]).ok();
    let has = |line: &str| env.lines().any(|l| l == line);
    for line in [
        &format!("STORE_PORT=tcp://{ip}:5432"),
        &format!("STORE_PORT_5432_TCP=tcp://{ip}:5432"),
        &format!("STORE_PORT_5432_TCP_ADDR={ip}"),
        "STORE_PORT_5432_TCP_PORT=5432",
        "STORE_PORT_5432_TCP_PROTO=tcp",
        "STORE_ENV_SECRET=x",
        // What is said of it outright counts.
        "STORE_NAME=mine",
    ] {
        assert!(has(line), "{line}: {env}");
    }
    let links = |name: &str| docker(&d, &["inspect", "-f", "{{json .HostConfig.Links}}", name]).ok();
    assert_eq!(links("web"), "[\"/my-db:/web/store\"]");
    docker(&d, &["exec", "web", "ping", "-c", "1", "-W", "10", "store"]).ok();

    // The link goes, the container stays.
    let wrong = docker(&d, &["rm", "--link", "web/none"]);
    assert!(wrong.code != 0 && wrong.err.contains("No such link"), "{wrong:?}");
    docker(&d, &["rm", "--link", "web/store"]).ok();
    assert_eq!(links("web"), "null");
    // The names follow; no event tells when.
    let deadline = Instant::now() + Duration::from_secs(60);
    while docker(&d, &["exec", "web", "nslookup", "-type=a", "store"]).code == 0 {
        assert!(Instant::now() < deadline, "the link's name is still known");
    }
    docker(&d, &["exec", "web", "nslookup", "-type=a", "my-db"]).ok();
    // On a network of one's own there are names only.
    docker(&d, &["network", "create", "net"]).ok();
    sleeper(&d, "aa", &["--network", "net", "--expose", "80"]);
    sleeper(&d, "bb", &["--network", "net", "--link", "aa:x"]);
    let env = docker(&d, &["exec", "bb", "env"]).ok();
    assert!(!env.contains("X_PORT"), "{env}");
    docker(&d, &["rm", "-f", "my-db", "web", "aa", "bb"]).ok();
    docker(&d, &["network", "rm", "net"]).ok();
    d.until_clean();
}

/// The next datagram.
fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 8192];
    socket.set_read_timeout(Some(biga_testkit::PATIENCE)).unwrap();
    let n = socket.recv(&mut buffer).expect("a line in time");
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[test]
fn the_journal_gets_each_line_and_the_log_can_be_read_here_too() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let at = d.path().join("journal");
    let journal = UnixDatagram::bind(&at).unwrap();
    let opt = format!("journald-socket={}", at.display());
    let options = [
        "--log-driver",
        "journald",
        "--log-opt",
        &opt,
        "--log-opt",
        "tag=app/{{.Name}}",
    ];
    let labels = ["--log-opt", "labels=tier", "--label", "tier=front"];
    let script = "echo one; echo two >&2; sleep 1000";
    let run = ["run", "-d", "--name", "said", "--stop-timeout", "0"];
    let command = ["busybox", "sh", "-c", script];
    let id = docker(&d, &[&run[..], &options, &labels, &command].concat()).ok();
    for (priority, text) in [("6", "one"), ("3", "two")] {
        let entry = next(&journal);
        for line in [
            &format!("PRIORITY={priority}"),
            &format!("CONTAINER_ID_FULL={id}"),
            &format!("CONTAINER_ID={}", &id[..12]),
            "CONTAINER_NAME=said",
            "CONTAINER_TAG=app/said",
            "SYSLOG_IDENTIFIER=app/said",
            "TIER=front",
            &format!("MESSAGE={text}"),
        ] {
            assert!(entry.lines().any(|l| l == line), "{line}: {entry}");
        }
    }
    let logs = docker(&d, &["logs", "said"]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("one\n", "two\n"));
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.HostConfig.LogConfig.Type}}", "said"]).ok(),
        "journald"
    );

    // The journal goes: the container does not notice. It comes back: what was said meanwhile is told.
    drop(journal);
    fs::remove_file(&at).unwrap();
    docker(&d, &["rm", "-f", "said"]).ok();
    let script = "echo alone; until [ -e /tmp/go ]; do sleep 0.1; done; echo again; sleep 1000";
    docker(&d, &[&run[..], &options, &["busybox", "sh", "-c", script]].concat()).ok();
    eventually("its log here", || {
        (docker(&d, &["logs", "said"]).out == "alone\n").then_some(())
    });
    let journal = UnixDatagram::bind(&at).unwrap();
    docker(&d, &["exec", "said", "touch", "/tmp/go"]).ok();
    assert!(next(&journal).contains("MESSAGE=alone"));
    assert!(next(&journal).contains("MESSAGE=again"));
    docker(&d, &["rm", "-f", "said"]).ok();
    d.until_clean();
}

#[test]
fn syslog_over_every_transport() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let run = |address: &str, more: &[&str]| {
        let address = format!("syslog-address={address}");
        let options = [
            "run",
            "--rm",
            "--log-driver",
            "syslog",
            "--log-opt",
            &address,
            "--log-opt",
            "tag=t",
        ];
        let command = ["busybox", "echo", "hello"];
        docker(&d, &[&options[..], more, &command].concat()).ok()
    };
    let at = d.path().join("log");
    let unix = UnixDatagram::bind(&at).unwrap();
    assert_eq!(
        run(
            &format!("unixgram://{}", at.display()),
            &["--log-opt", "syslog-facility=local1"]
        ),
        "hello"
    );
    let line = next(&unix);
    assert!(
        line.starts_with("<142>") && line.contains(" t[") && line.ends_with("]: hello\n"),
        "{line}"
    );

    let stream = d.path().join("stream");
    let listener = UnixListener::bind(&stream).unwrap();
    run(
        &format!("unix://{}", stream.display()),
        &["--log-opt", "syslog-format=rfc5424"],
    );
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("<30>1 ") && text.ends_with(" t - hello\n"), "{text}");

    // In the daemon's network, where nobody else listens: what comes is written to files.
    let udp = d.path().join("udp");
    let script = format!("exec socat -u UDP-RECV:5514,bind=127.0.0.1 CREATE:{}", udp.display());
    let receiver = d.host_command(&["sh", "-c", &script]).spawn();
    if let Ok(mut receiver) = receiver
        && d.host(&["sh", "-c", "command -v socat"]).code == 0
    {
        let arrived = eventually("a datagram", || {
            run("udp://127.0.0.1:5514", &["--log-opt", "syslog-format=rfc3164"]);
            fs::read_to_string(&udp).ok().filter(|t| !t.is_empty())
        });
        let _ = receiver.kill();
        let _ = receiver.wait();
        assert!(arrived.starts_with("<30>") && arrived.contains(" t["), "{arrived}");
    }
    // Nobody is there, and a log that is kept nowhere else.
    assert_eq!(run("tcp://127.0.0.1:5515", &[]), "hello");
    assert_eq!(run("udp://nowhere.invalid:514", &[]), "hello");
    let kept_nowhere = [
        "create",
        "--name",
        "gone",
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-address=tcp://127.0.0.1:5515",
        "--log-opt",
        "cache-disabled=true",
        "busybox",
        "echo",
        "x",
    ];
    docker(&d, &kept_nowhere).ok();
    docker(&d, &["start", "gone"]).ok();
    let refused = docker(&d, &["logs", "gone"]);
    assert!(
        refused.code != 0 && refused.err.contains("does not support reading"),
        "{refused:?}"
    );
    for bad in [
        "syslog-address=tcp+tls://h:1",
        "syslog-facility=odd",
        "syslog-format=odd",
        "odd=1",
        "tag={{.Odd}}",
    ] {
        let refused = docker(&d, &["create", "--log-driver", "syslog", "--log-opt", bad, "busybox"]);
        assert!(refused.code != 0, "{bad}: {refused:?}");
    }
    docker(&d, &["rm", "gone"]).ok();
    d.until_clean();
}

#[test]
fn images_are_looked_up_where_they_are() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let _registry = Registry::start(&d, "");
    let name = format!("{HOST}/team/app:1");
    docker(&d, &["tag", "busybox", &name]).ok();
    let pushed = docker(&d, &["push", &name]).ok();
    let socket = super::docker::socket(&d);
    let get = |path: &str| {
        let url = format!("http://d/{path}");
        d.host(&["curl", "-s", "--unix-socket", &socket, &url]).ok()
    };
    let found: serde_json::Value = serde_json::from_str(&get(&format!("distribution/{name}/json"))).unwrap();
    let digest = found["Descriptor"]["digest"].as_str().unwrap();
    assert!(pushed.contains(digest), "{pushed}: {found}");
    assert_eq!(found["Platforms"][0]["os"], "linux");
    let missing = get(&format!("distribution/{HOST}/team/none/json"));
    assert!(missing.contains("message"), "{missing}");
    // Docker's own command line asks the registry itself.
    let manifest = docker(&d, &["manifest", "inspect", "--insecure", &name]).ok();
    assert!(manifest.contains("layers"), "{manifest}");
    let search = docker(&d, &["search", "busybox"]);
    assert!(
        search.code != 0 && search.err.contains("search is not offered"),
        "{search:?}"
    );
}

#[test]
fn import_from_an_address_with_changes() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let tar = images::busybox_tar(d.path());
    let tar = tar.display().to_string();
    let id = docker(
        &d,
        &[
            "import",
            "-c",
            "CMD [\"echo\",\"changed\"]",
            "-c",
            "ENV A=b",
            "-m",
            "why",
            &tar,
        ],
    )
    .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(docker(&d, &["run", "--rm", &id]).ok(), "changed");
    let look = "{{.Comment}} {{index .Config.Env 0}}";
    assert_eq!(docker(&d, &["image", "inspect", "-f", look, &id]).ok(), "why A=b");
    let bad = docker(&d, &["import", "-c", "RUN x", &tar, "bad:1"]);
    assert!(bad.code != 0 && bad.err.contains("RUN is not a change"), "{bad:?}");

    let script = "cd \"$0\" && exec python3 -m http.server --bind 127.0.0.1 8099";
    let dir = d.path().display().to_string();
    let mut web = d.host_command(&["sh", "-c", script, &dir]);
    let mut web = web
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the server's first answer", || {
        (d.host(&["curl", "-s", "-o", "/dev/null", "http://127.0.0.1:8099/"])
            .code
            == 0)
            .then_some(())
    });
    docker(&d, &["import", "http://127.0.0.1:8099/busybox.tar", "far:1"]).ok();
    let missing = docker(&d, &["import", "http://127.0.0.1:8099/none.tar", "none:1"]);
    let _ = web.kill();
    let _ = web.wait();
    assert!(missing.code != 0 && missing.err.contains("none.tar"), "{missing:?}");
    assert_eq!(
        docker(&d, &["run", "--rm", "far:1", "echo", "from afar"]).ok(),
        "from afar"
    );
    let out = d.path().join("arm.tar").display().to_string();
    let other = docker(&d, &["image", "save", "--platform", "linux/arm64", "-o", &out, "far:1"]);
    assert!(other.code != 0 && other.err.contains("linux/arm64"), "{other:?}");
}

#[test]
fn any_port_of_a_range() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    // Somebody has the first.
    let script = "import socket,time\ns=socket.create_server(('0.0.0.0',8000))\ntime.sleep(1000)";
    let mut taken = d.host_command(&["python3", "-c", script]).spawn().unwrap();
    eventually("the first port to be taken", || {
        (d.host(&["bash", "-c", ": < /dev/tcp/127.0.0.1/8000"]).code == 0).then_some(())
    });
    sleeper(&d, "web", &["-p", "8000-8002:80"]);
    assert_eq!(docker(&d, &["port", "web", "80/tcp"]).ok(), "0.0.0.0:8001");
    let _ = taken.kill();
    let _ = taken.wait();
    docker(&d, &["rm", "-f", "web"]).ok();
    let gpus = docker(&d, &["run", "--gpus", "all", "busybox"]);
    assert!(
        gpus.code == 125 && gpus.err.contains("could not select device driver"),
        "{gpus:?}"
    );
}
