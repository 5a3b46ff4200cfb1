//! The real `docker` command line.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::{PATIENCE, eventually, has_docker, served};

#[tokio::test]
async fn docker_version_info_ps() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    assert_eq!(
        s.cli_ok(&["version", "-f", "{{.Server.Version}} {{.Server.APIVersion}}"])
            .await,
        "0.1.0 1.51"
    );
    let info = s.cli_ok(&["info"]).await;
    assert!(info.contains("testnode"), "{info}");
    // The command line prints a map's keys in whatever order its language walks it.
    let runtimes = info.lines().find_map(|line| line.trim().strip_prefix("Runtimes: "));
    let mut runtimes: Vec<&str> = runtimes.unwrap_or_default().split(' ').collect();
    runtimes.sort_unstable();
    assert_eq!(runtimes, ["biga", "microvm"], "{info}");
    assert!(s.cli_ok(&["ps"]).await.starts_with("CONTAINER ID"));
    assert!(s.cli(&["swarm", "ca"]).await.err.contains("not a swarm manager"));
}

#[tokio::test]
async fn docker_run_in_the_foreground() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    assert_eq!(
        s.cli_ok(&["run", "--rm", "busybox", "echo", "hello", "world"]).await,
        "hello world"
    );
    let ran = s.cli(&["run", "busybox", "err", "oh no"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", "oh no\n"));
    assert_eq!(s.cli(&["run", "--rm", "busybox", "exit", "42"]).await.code, 42);
    let ran = s
        .cli_with(&["run", "--rm", "-i", "busybox", "cat"], b"through\nstdin\n")
        .await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "through\nstdin\n"));
    let big: Vec<u8> = (0..200_000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    let ran = s.cli_with(&["run", "--rm", "-i", "busybox", "cat"], &big).await;
    assert!(ran.out.as_bytes() == big, "{} of {} bytes", ran.out.len(), big.len());
    let ran = s.cli(&["run", "--rm", "busybox", "nosuch"]).await;
    assert_eq!(ran.code, 127, "{ran:?}");
    let ran = s
        .cli(&["run", "--health-cmd", "true", "--health-interval", "1us", "busybox"])
        .await;
    assert!(ran.code == 125 && ran.err.contains("1ms"), "{ran:?}");
    eventually("what was to go is gone", async || {
        (s.cli_ok(&["ps", "-aq"]).await.lines().count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn docker_run_pulls_what_is_missing() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    let ran = s.cli(&["run", "--rm", "alpine:3", "echo", "pulled"]).await;
    assert!(ran.code == 0 && ran.out.ends_with("pulled\n"), "{ran:?}");
    assert!(
        ran.err.contains("Unable to find image 'alpine:3' locally") && ran.err.contains("Downloaded newer image"),
        "{ran:?}"
    );
    let ran = s.cli(&["run", "missing:1"]).await;
    assert!(ran.code == 125 && ran.err.contains("not found"), "{ran:?}");
}

#[tokio::test]
async fn docker_life_of_a_background_container() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    let id = s
        .cli_ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "--runtime",
            "microvm",
            "-p",
            "8080:80",
            "busybox",
            "sleep",
        ])
        .await;
    assert_eq!(id.len(), 64);
    let ps = s
        .cli_ok(&["ps", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.State}} {{.Ports}}"])
        .await;
    assert_eq!(ps, format!("{} web busybox running 0.0.0.0:8080->80/tcp", &id[..12]));
    assert_eq!(
        s.cli_ok(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.HostConfig.Isolation}} {{.HostConfig.Runtime}}",
            "web"
        ])
        .await,
        "running vm microvm"
    );
    assert_eq!(s.cli_ok(&["port", "web"]).await, "80/tcp -> 0.0.0.0:8080");
    assert_eq!(s.cli_ok(&["pause", "web"]).await, "web");
    assert!(s.cli_ok(&["ps"]).await.contains("(Paused)"));
    s.cli_ok(&["unpause", "web"]).await;
    assert!(s.cli_ok(&["top", "web"]).await.contains("PID"));
    let stats = s
        .cli_ok(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.MemUsage}} {{.PIDs}}",
            "web",
        ])
        .await;
    assert_eq!(stats, "web 5MiB / 100MiB 3");
    s.cli_ok(&["update", "--memory", "64m", "--memory-swap", "64m", "web"])
        .await;
    s.cli_ok(&["restart", "-t", "1", "web"]).await;
    s.cli_ok(&["kill", "-s", "HUP", "web"]).await;
    assert_eq!(s.cli_ok(&["stop", "web"]).await, "web");
    assert_eq!(s.cli_ok(&["wait", "web"]).await, "143");
    s.cli_ok(&["start", "web"]).await;
    assert!(s.cli(&["rm", "web"]).await.err.contains("cannot remove container"));
    s.cli_ok(&["kill", "web"]).await;
    assert_eq!(s.cli_ok(&["inspect", "-f", "{{.State.ExitCode}}", "web"]).await, "137");
    assert_eq!(s.cli_ok(&["rm", "web"]).await, "web");
    s.cli_ok(&["create", "--name", "made", "busybox"]).await;
    assert!(
        s.cli_ok(&["container", "prune", "-f"])
            .await
            .contains("Deleted Containers")
    );
    assert_eq!(s.cli_ok(&["ps", "-aq"]).await, "");
}

#[tokio::test]
async fn docker_exec_and_logs() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    s.cli_ok(&["run", "-d", "--name", "xx", "busybox", "sleep"]).await;
    assert_eq!(s.cli_ok(&["exec", "xx", "echo", "inside"]).await, "inside");
    assert_eq!(s.cli(&["exec", "xx", "exit", "5"]).await.code, 5);
    let ran = s.cli_with(&["exec", "-i", "xx", "cat"], b"typed").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "typed"));
    let ran = s.cli(&["exec", "xx", "nosuch"]).await;
    assert!(
        ran.code == 127 && ran.out.contains("executable file not found"),
        "{ran:?}"
    );
    s.cli_ok(&["exec", "-d", "xx", "true"]).await;
    s.cli_ok(&["run", "-d", "-i", "--name", "talks", "busybox", "cat"])
        .await;
    let mut logs = s.spawn_cli(&["logs", "-f", "talks"]);
    let mut out = BufReader::new(logs.stdout.take().unwrap());
    let ran = s.cli_with(&["attach", "--no-stdin=false", "--sig-proxy=false", "talks"], b"one\n");
    let attach = async { tokio::time::timeout(PATIENCE, ran).await.unwrap() };
    let mut line = String::new();
    let read = async {
        tokio::time::timeout(PATIENCE, out.read_line(&mut line))
            .await
            .unwrap()
            .unwrap()
    };
    // Without --interactive's close of stdin the container goes on, so the client stays until it is stopped.
    let stop = async {
        read.await;
        s.cli_ok(&["stop", "talks"]).await;
    };
    let (ran, ()) = tokio::join!(attach, stop);
    assert!(ran.out.contains("one"), "{ran:?}");
    assert_eq!(line, "one\n");
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, out.read_to_string(&mut rest))
        .await
        .expect("logs -f ends")
        .unwrap();
    assert!(logs.wait().await.unwrap().success());
}

#[tokio::test]
async fn docker_images() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    let pull = s.cli_ok(&["pull", "alpine:3"]).await;
    assert!(
        pull.contains("3: Pulling from library/alpine") && pull.contains("Status: Downloaded newer image for alpine:3"),
        "{pull}"
    );
    s.cli_ok(&["tag", "alpine:3", "registry.example/team/app:v1"]).await;
    let images = s.cli_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).await;
    let mut images: Vec<&str> = images.lines().collect();
    images.sort_unstable();
    assert_eq!(images, ["alpine:3", "busybox:latest", "registry.example/team/app:v1"]);
    assert!(s.cli_ok(&["history", "alpine:3"]).await.contains("COPY busybox"));
    assert!(
        s.cli_ok(&["push", "registry.example/team/app:v1"])
            .await
            .contains("v1: digest: sha256:")
    );
    assert_eq!(s.node.pushed(), [None]);
    let rmi = s.cli_ok(&["rmi", "registry.example/team/app:v1"]).await;
    assert!(
        rmi.contains("Untagged: registry.example/team/app:v1") && !rmi.contains("Deleted"),
        "{rmi}"
    );
    assert!(s.cli_ok(&["rmi", "alpine:3"]).await.contains("Deleted: sha256:"));
    let saved = s.cli(&["save", "busybox"]).await;
    assert!(saved.out.starts_with("archive of "), "{saved:?}");
    let loaded = s.cli_with(&["load"], saved.out.as_bytes()).await;
    assert_eq!(loaded.out, "Loaded image: loaded:1\n", "{loaded:?}");
    assert!(
        s.cli_with(&["import", "-", "made:1"], b"tar")
            .await
            .out
            .starts_with("sha256:")
    );
    assert!(
        s.cli_ok(&["image", "prune", "-f"])
            .await
            .contains("Total reclaimed space")
    );
    assert!(s.cli_ok(&["system", "df"]).await.contains("Images"));
}

#[tokio::test]
async fn docker_networks_and_volumes() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    s.cli_ok(&[
        "network",
        "create",
        "--subnet",
        "10.7.0.0/24",
        "--label",
        "a=b",
        "front",
    ])
    .await;
    let names = s.cli_ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).await;
    assert_eq!(names, "bridge bridge\nfront bridge\nhost host\nnone null");
    assert_eq!(
        s.cli_ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "front"])
            .await,
        "10.7.0.0/24"
    );
    s.cli_ok(&[
        "run",
        "-d",
        "--name",
        "nn",
        "--network",
        "front",
        "--network-alias",
        "web",
        "busybox",
        "sleep",
    ])
    .await;
    let on = s
        .cli_ok(&[
            "inspect",
            "-f",
            "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{$v.Aliases}}{{end}}",
            "nn",
        ])
        .await;
    assert_eq!(on, "front [web]");
    assert!(
        s.cli(&["network", "rm", "front"])
            .await
            .err
            .contains("active endpoints")
    );
    s.cli_ok(&["rm", "-f", "nn"]).await;
    s.cli_ok(&["network", "rm", "front"]).await;
    assert_eq!(s.cli_ok(&["volume", "create", "data"]).await, "data");
    s.cli_ok(&[
        "run",
        "-v",
        "data:/data",
        "-v",
        "/srv:/srv:ro",
        "--mount",
        "type=tmpfs,dst=/t",
        "--name",
        "vv",
        "busybox",
        "true",
    ])
    .await;
    let mounts = s
        .cli_ok(&[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}",
            "vv",
        ])
        .await;
    let mut mounts: Vec<&str> = mounts.split_terminator(';').collect();
    // The client sends a set, in any order.
    mounts.sort_unstable();
    assert_eq!(mounts, ["bind /srv false", "tmpfs /t true", "volume /data true"]);
    assert!(s.cli(&["volume", "rm", "data"]).await.err.contains("volume is in use"));
    s.cli_ok(&["rm", "vv"]).await;
    s.cli_ok(&["volume", "rm", "data"]).await;
    assert_eq!(s.cli_ok(&["volume", "ls", "-q"]).await, "");
}

#[tokio::test]
async fn docker_events() {
    if !has_docker() {
        return;
    }
    let s = served().await;
    s.cli_ok(&["run", "--rm", "--name", "seen", "busybox", "true"]).await;
    let events = eventually("all events", async || {
        let until = biga_model::Timestamp::now().as_second().to_string();
        let out = s
            .cli_ok(&[
                "events",
                "--since",
                "1",
                "--until",
                &until,
                "--filter",
                "container=seen",
                "--format",
                "{{.Action}}",
            ])
            .await;
        out.contains("destroy").then_some(out)
    })
    .await;
    let words: Vec<&str> = events.lines().collect();
    assert_eq!(words, ["create", "attach", "start", "die", "destroy"]);
}
