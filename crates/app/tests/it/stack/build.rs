//! `docker build` with Docker's own command line and its classic builder, `biga build`, and contexts that mean no good.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use biga_testkit::{Daemon, Ran, eventually};

use super::daemon;
use super::docker::{docker, has_docker, socket};

/// A directory with these files.
pub(super) fn context(d: &Daemon, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = d.path().join(name);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// `docker build` as it is called by those who want the classic builder.
pub(super) fn build(d: &Daemon, dir: &Path, args: &[&str]) -> Ran {
    let dir = dir.display().to_string();
    let mut c = docker_build(d, &dir, args);
    Ran::from(c.output().unwrap())
}

fn docker_build(d: &Daemon, dir: &str, args: &[&str]) -> std::process::Command {
    let host = format!("DOCKER_HOST=unix://{}", socket(d));
    let config = format!("DOCKER_CONFIG={}", d.path().join("docker").display());
    let first = ["env", "DOCKER_BUILDKIT=0", &host, &config, "docker", "build"];
    d.host_command(&[&first[..], args, &[dir]].concat())
}

pub(super) fn inspect(d: &Daemon, image: &str, format: &str) -> String {
    docker(d, &["image", "inspect", "-f", format, image]).ok()
}

const WHOLE: &str = r##"# escape=\
ARG BASE=busybox
FROM ${BASE} AS build
ARG GREETING=hello
ENV TO=world MSG="${GREETING:+$GREETING you}"
WORKDIR /src
COPY --chown=app:extra --chmod=0640 a.txt dir/*.md ./
RUN <<EOF
set -e
echo "$GREETING $TO" > made
EOF
RUN ["/bin/sh", "-c", \
  # a comment in between
  "echo exec >> made"]
RUN <<EOF
#!/bin/awk -f
BEGIN { print "awk" >> "/src/made" }
EOF
COPY <<one <<"two" /docs/
$MSG
one
$MSG
two
ADD files.tar.gz /unpacked/
FROM scratch AS unneeded
COPY none /never
FROM busybox
MAINTAINER Ann
LABEL who="me and you"
COPY --from=build /src /src
COPY --from=0 --link /docs /docs
COPY --from=build /unpacked /unpacked
COPY --from=busybox /etc/passwd /from-image
SHELL ["/bin/busybox", "sh", "-c"]
RUN echo shelled > /shelled; mkdir /data; echo in > /data/volume
STOPSIGNAL SIGUSR1
VOLUME /data /more
RUN echo more >> /data/volume
USER app
EXPOSE 80/tcp 53/udp
HEALTHCHECK --interval=5m --retries=3 CMD true
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cd /src; cat made /docs/one /docs/two /shelled /unpacked/x /data/volume; stat -c '%U:%G %a' a.txt; ls"]
"##;

#[test]
fn a_dockerfile_with_everything() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let files = [
        ("Dockerfile", WHOLE),
        ("a.txt", "a"),
        ("dir/b.md", "b"),
        ("dir/c.txt", "c"),
        ("x", "archived\n"),
    ];
    let dir = context(&d, "whole", &files);
    let at = dir.display().to_string();
    let tar = format!("{at}/files.tar.gz");
    d.host(&[
        "tar",
        "-C",
        &at,
        "--owner=7",
        "--group=8",
        "--numeric-owner",
        "-czf",
        &tar,
        "x",
    ])
    .ok();
    let options = [
        "-t",
        "app:1",
        "-t",
        "app:two",
        "--build-arg",
        "GREETING=good day",
        "--label",
        "l=$x 'y'",
    ];
    let out = build(&d, &dir, &options).ok();
    assert!(out.contains("Step 2/29 : FROM ${BASE} AS build"), "{out}");
    assert!(
        out.contains(" ---> Running in ") && out.contains(" ---> Removed intermediate container "),
        "{out}"
    );
    assert!(
        out.contains("Successfully built ") && out.ends_with("Successfully tagged app:1\nSuccessfully tagged app:two"),
        "{out}"
    );
    assert!(!out.contains("never"), "a stage that nobody needs was built: {out}");
    let want =
        "good day world\nexec\nawk\ngood day you\n$MSG\nshelled\narchived\nin\nmore\nroot:root 640\na.txt\nb.md\nmade";
    assert_eq!(docker(&d, &["run", "--rm", "app:1"]).ok(), want);
    for (format, want) in [
        ("{{.Config.User}} {{.Config.StopSignal}} {{.Author}}", "app SIGUSR1 Ann"),
        ("{{json .Config.Volumes}}", r#"{"/data":{},"/more":{}}"#),
        ("{{json .Config.ExposedPorts}}", r#"{"53/udp":{},"80/tcp":{}}"#),
        (
            "{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}}",
            r#"["CMD","/bin/busybox","sh","-c","true"] 3"#,
        ),
        ("{{json .Config.Shell}}", r#"["/bin/busybox","sh","-c"]"#),
        (
            "{{index .Config.Labels \"who\"}} {{index .Config.Labels \"l\"}}",
            "me and you $x 'y'",
        ),
    ] {
        assert_eq!(inspect(&d, "app:1", format), want, "{format}");
    }
    let by = |image: &str| docker(&d, &["history", "--no-trunc", "--format", "{{.CreatedBy}}", image]).ok();
    let history = by("app:1");
    let lines: Vec<&str> = history.lines().collect();
    assert!(
        lines[1].starts_with(r#"/bin/busybox sh -c #(nop)  CMD ["cd "#),
        "{history}"
    );
    assert_eq!(lines[2], r#"/bin/busybox sh -c #(nop)  ENTRYPOINT ["/bin/sh" "-c"]"#);
    assert!(history.contains("\n/bin/sh -c #(nop) COPY dir:"), "{history}");
    assert!(
        history.contains("\n/bin/busybox sh -c echo more >> /data/volume"),
        "{history}"
    );
    // The first stage's argument is no part of this image.
    assert!(!history.contains("GREETING"), "{history}");
    // The owner of an archive's files is its own, of all else root or who was named.
    let target = build(&d, &dir, &["-q", "--target", "BUILD"]).ok();
    let script = "stat -c '%U:%G' /src/a.txt /src/made; stat -c '%u:%g' /unpacked/x; cat /src/made";
    let ran = docker(&d, &["run", "--rm", &target, "sh", "-c", script]).ok();
    assert_eq!(ran, "app:extra\nroot:root\n7:8\nhello world\nexec\nawk");
    assert!(by(&target).contains("|1 GREETING=hello /bin/sh -c set -e"));
    d.until_clean();
}

#[test]
fn what_was_done_is_used_again() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox\nARG V=1\nRUN echo $V > /v\nCOPY a /a\nRUN date +%N > /date\nCMD [\"cat\", \"/date\"]\n";
    let dir = context(&d, "cache", &[("Dockerfile", file), ("a", "one")]);
    let hits = |out: &str| out.matches(" ---> Using cache").count();
    let id = |args: &[&str]| build(&d, &dir, &[&["-q"], args].concat()).ok();
    let first = build(&d, &dir, &["-t", "c"]).ok();
    assert_eq!(hits(&first), 0, "{first}");
    let image = inspect(&d, "c", "{{.Id}}");
    let again = build(&d, &dir, &["-t", "c"]).ok();
    assert_eq!(
        (hits(&again), inspect(&d, "c", "{{.Id}}")),
        (5, image.clone()),
        "{again}"
    );
    // Times do not count, content does.
    d.host(&["touch", "-d", "2001-01-01", &dir.join("a").display().to_string()])
        .ok();
    assert_eq!(id(&[]), image);
    fs::write(dir.join("a"), "two").unwrap();
    let changed = build(&d, &dir, &["-t", "c2"]).ok();
    assert_eq!(hits(&changed), 2, "{changed}");
    assert_eq!(docker(&d, &["run", "--rm", "c2", "cat", "/a"]).ok(), "two");
    // Both are there to be used.
    fs::write(dir.join("a"), "one").unwrap();
    assert_eq!(id(&[]), image);
    assert_ne!(id(&["--build-arg", "V=2"]), image);
    assert_ne!(id(&["--no-cache"]), image);
    // A proxy is no reason to do anything again, and stands nowhere.
    let newest = id(&[]);
    assert_eq!(id(&["--build-arg", "HTTP_PROXY=http://p"]), newest);
    // By the images that are named alone.
    let from = build(&d, &dir, &["--cache-from", "c2"]).ok();
    assert_eq!(hits(&from), 2, "{from}");
    let from = build(&d, &dir, &["--cache-from", "none", "--cache-from", "c"]).ok();
    assert_eq!(hits(&from), 5, "{from}");
    // What other stages made is kept with the image.
    let stages = "FROM busybox AS one\nRUN date +%N > /one\nFROM busybox\nCOPY --from=one /one /two\n";
    let dir = context(&d, "stages", &[("Dockerfile", stages)]);
    build(&d, &dir, &["-t", "s"]).ok();
    docker(&d, &["image", "prune", "-f"]).ok();
    let again = build(&d, &dir, &["-t", "s"]).ok();
    assert_eq!(hits(&again), 2, "{again}");
    d.until_clean();
}

#[test]
fn steps_that_fail() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox\nRUN echo good > /good\nRUN echo why >&2; exit 3\n";
    let dir = context(&d, "fails", &[("Dockerfile", file)]);
    // Names that cannot be beginnings of ids.
    let failed = build(&d, &dir, &["-t", "not-built", "--force-rm"]);
    assert_eq!(failed.code, 3, "{failed:?}");
    let why = "The command '/bin/sh -c echo why >&2; exit 3' returned a non-zero code: 3";
    assert!(failed.err.contains(why) && failed.out.contains("why"), "{failed:?}");
    eventually("the step to be gone", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    assert_ne!(docker(&d, &["image", "inspect", "not-built"]).code, 0);
    // Quiet ones tell it, too, and what they wrote.
    let quiet = build(&d, &dir, &["-q", "--force-rm"]);
    assert!(quiet.code == 3 && quiet.err.contains(why), "{quiet:?}");
    // What was good is used when it is tried again.
    fs::write(dir.join("Dockerfile"), file.replace("exit 3", "true")).unwrap();
    let mended = build(&d, &dir, &["-t", "mended"]).ok();
    assert_eq!(mended.matches("Using cache").count(), 1, "{mended}");
    for (text, why) in [
        (
            "FROM busybox\nFOO x\n",
            "dockerfile parse error on line 2: unknown instruction: FOO",
        ),
        (
            "FROM busybox\n\nCOPY x\n",
            "parse error on line 3: COPY requires at least two arguments",
        ),
        (
            "FROM busybox\nCOPY none /x\n",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat none: file does not exist",
        ),
        (
            "FROM busybox\nCOPY Dockerfile Dockerfile /x\n",
            "the destination must be a directory and end with a /",
        ),
        ("FROM busybox\nRUN nonesuch-program\n", "returned a non-zero code: 127"),
        ("FROM busybox\nRUN [\"/nonesuch\"]\n", "nonesuch"),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "nobody-here"),
        (
            "FROM busybox\nRUN --mount=type=secret,id=x,required true\n",
            "secret x: not found",
        ),
        ("FROM busybox\nENV A=${B\n", "parse error on line 2"),
        (
            "FROM busybox\nADD --checksum=sha256:00 Dockerfile /\n",
            "checksum can't be specified for local sources",
        ),
        ("FROM 127.0.0.1:1/none:1\n", "127.0.0.1:1/none"),
        ("FROM --platform=linux/s390x busybox\n", "not for linux/s390x"),
    ] {
        fs::write(dir.join("Dockerfile"), text).unwrap();
        let failed = build(&d, &dir, &["--force-rm"]);
        assert!(failed.code != 0 && failed.err.contains(why), "{text}: {failed:?}");
    }
    fs::write(dir.join("Dockerfile"), file).unwrap();
    let failed = build(&d, &dir, &["--target", "none"]);
    assert!(
        failed.err.contains("target stage \"none\" could not be found"),
        "{failed:?}"
    );
    let api = socket(&d);
    let post = |path: &str| {
        let url = format!("http://d/{path}");
        d.host(&["curl", "-s", "--unix-socket", &api, "-XPOST", &url]).ok()
    };
    assert!(post("build?squash=1").contains("--squash"));
    assert!(post("build?version=2&session=x").contains("use buildx"));
    for path in ["session", "grpc"] {
        assert!(post(path).contains("no upgrade proto in request"), "{path}");
    }
    // Without --force-rm a step that failed stays to be looked at, as with Docker.
    let failed = build(&d, &dir, &[]);
    assert_eq!(failed.code, 3);
    let left = docker(&d, &["ps", "-aq"]).ok();
    assert!(docker(&d, &["logs", &left]).err.contains("why"), "{left}");
    docker(&d, &["rm", &left]).ok();
    d.until_clean();
}

#[test]
fn whoever_leaves_ends_the_build() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let dir = context(
        &d,
        "slow",
        &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")],
    );
    let at = dir.display().to_string();
    let mut docker = docker_build(&d, &at, &[]);
    let mut docker = docker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = || d.biga(&["ps", "-q"]).ok();
    let gone = || {
        eventually("the step to be gone", || {
            d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
        })
    };
    eventually("the step to run", || (!running().is_empty()).then_some(()));
    docker.kill().unwrap();
    docker.wait().unwrap();
    gone();
    // By its id.
    let tar = d.path().join("slow.tar").display().to_string();
    d.host(&["tar", "-C", &at, "-cf", &tar, "Dockerfile"]).ok();
    let api = socket(&d);
    let url = "http://d/build?buildid=b1&dockerfile=Dockerfile";
    let curl = ["curl", "-s", "--unix-socket", &api, "-T", &tar, "-XPOST", url];
    let calling = d.host_command(&curl).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the step to run", || (!running().is_empty()).then_some(()));
    let cancel = |id: &str| {
        let url = format!("http://d/build/cancel?id={id}");
        let head = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
            &api,
        ];
        d.host(&[&head[..], &["-XPOST", &url]].concat()).ok()
    };
    assert_eq!((cancel("other").as_str(), cancel("b1").as_str()), ("404", "200"));
    let told = Ran::from(calling.wait_with_output().unwrap());
    assert!(told.out.contains("the build was cancelled"), "{told:?}");
    gone();
    d.until_clean();
}

#[test]
fn a_daemon_that_died_leaves_no_step() {
    let mut d = daemon();
    let dir = context(&d, "slow", &[("Dockerfile", "FROM busybox\nRUN sleep 1000\n")]);
    let mut client = d.command(&["build", &dir.display().to_string()]);
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the step to run", || {
        (!d.biga(&["ps", "-q"]).ok().is_empty()).then_some(())
    });
    d.kill();
    assert!(!client.wait().unwrap().success());
    d.serve();
    eventually("the step to be gone", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    d.until_clean();
}

#[test]
fn contexts_that_mean_no_good() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let dir = context(&d, "bad", &[("Dockerfile", ""), ("plain", "x")]);
    symlink("/etc/shadow", dir.join("shadow")).unwrap();
    symlink("../../../../../../etc", dir.join("ups")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    fs::write(d.path().join("outside"), "secret").unwrap();
    symlink("../outside", dir.join("up")).unwrap();
    for (line, why) in [
        (
            "COPY ../outside /x",
            "forbidden path outside the build context: ../outside",
        ),
        ("COPY a/../../outside /x", "forbidden path outside the build context"),
        ("COPY shadow /x", "file does not exist"),
        ("COPY ups/passwd /x", "file does not exist"),
        ("COPY up /x", "file does not exist"),
        ("COPY loop /x", "symbolic links"),
        ("COPY --from=busybox ../../nonesuch /x", "file does not exist"),
        ("COPY plain /x/.wh.plain", ".wh."),
    ] {
        fs::write(dir.join("Dockerfile"), format!("FROM busybox\n{line}\n")).unwrap();
        let failed = build(&d, &dir, &[]);
        assert!(failed.code != 0 && failed.err.contains(why), "{line}: {failed:?}");
    }
    // Links of the image lead nowhere but within it; in a directory that is copied links stay links.
    let away = format!("biga-away-{}", d.prefix());
    let file = format!(
        "FROM busybox\nRUN ln -s /../../../tmp/{away} /out; mkdir -p /usr/real; ln -s real /usr/link\n\
         COPY plain /out/plain\nCOPY . /usr/link/\nCOPY plain /usr/link/sub/\n"
    );
    fs::write(dir.join("Dockerfile"), file).unwrap();
    build(&d, &dir, &["-t", "tame"]).ok();
    assert!(!Path::new("/tmp").join(&away).exists());
    let script = format!(
        "cat /tmp/{away}/plain; readlink /usr/link; readlink /usr/real/shadow; cat /usr/real/plain /usr/real/sub/plain"
    );
    let ran = docker(&d, &["run", "--rm", "tame", "sh", "-c", &script]).ok();
    assert_eq!(ran, "xreal\n/etc/shadow\nxx");
    // Tars that no client makes.
    let api = socket(&d);
    let send = |tar: &[u8]| {
        let path = d.path().join("bad.tar");
        fs::write(&path, tar).unwrap();
        let path = path.display().to_string();
        let url = "http://d/build?t=bad";
        d.host(&["curl", "-s", "--unix-socket", &api, "-XPOST", "-T", &path, url])
            .ok()
    };
    for name in ["../outside2", "a/../../outside2"] {
        let mut b = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        h.set_mode(0o644);
        h.set_size(0);
        h.set_cksum();
        b.append(&h, &b""[..]).unwrap();
        let said = send(&b.into_inner().unwrap());
        assert!(said.contains("would leave the directory"), "{said}");
    }
    assert!(send(&[7; 3000]).contains("the build context cannot be read"));
    assert!(send(b"").contains("Cannot locate specified Dockerfile"));
    d.until_clean();
}

/// A web server on the loopback of the daemon's network, for as long as this lives.
pub(super) struct Server(pub std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn serve(d: &Daemon, dir: &Path) -> Server {
    let at = dir.display().to_string();
    let mut c = d.host_command(&["python3", "-m", "http.server", "-d", &at, "-b", "127.0.0.1", "8123"]);
    let server = Server(c.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the server", || {
        (d.host(&["curl", "-sf", "http://127.0.0.1:8123"]).code == 0).then_some(())
    });
    server
}

#[test]
fn bases_with_triggers_and_addresses() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    // ONBUILD, and what is left out of a context.
    let parent = "FROM busybox\nWORKDIR /app\nONBUILD COPY . .\nONBUILD RUN ls -A > /listed\n";
    let files = [
        ("Dockerfile", parent),
        ("child", "FROM parent\nCMD [\"cat\", \"/listed\"]\n"),
        (".dockerignore", "*.log\n!keep.log\nsecret\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("secret/key", ""),
    ];
    let dir = context(&d, "onbuild", &files);
    build(&d, &dir, &["-t", "parent"]).ok();
    let child = dir.join("child").display().to_string();
    let out = build(&d, &dir, &["-t", "child", "-f", &child]).ok();
    assert!(out.contains("# Executing 2 build triggers"), "{out}");
    let ran = docker(&d, &["run", "--rm", "child"]).ok();
    assert_eq!(ran, ".dockerignore\nDockerfile\nchild\nkeep.log");
    assert_eq!(inspect(&d, "child", "{{json .Config.OnBuild}}"), "null");
    // Addresses.
    let served = context(
        &d,
        "served",
        &[
            ("file.txt", "fetched"),
            (
                "Dockerfile",
                "FROM busybox\nCOPY file.txt /\nCMD [\"cat\", \"/file.txt\"]\n",
            ),
        ],
    );
    let at = served.display().to_string();
    let tar = format!("{at}/context.tar.gz");
    d.host(&["tar", "-C", &at, "-czf", &tar, "Dockerfile", "file.txt"]).ok();
    let server = serve(&d, &served);
    let url = "http://127.0.0.1:8123";
    let sum = d.host(&["sha256sum", &format!("{at}/file.txt")]).ok();
    let sum = sum.split(' ').next().unwrap();
    let file = format!(
        "FROM busybox\nADD --checksum=sha256:{sum} {url}/file.txt /one\nADD {url}/file.txt {url}/context.tar.gz /dir/\n"
    );
    let dir = context(&d, "urls", &[("Dockerfile", &file)]);
    build(&d, &dir, &["-t", "urls"]).ok();
    let script = "cat /one /dir/file.txt; stat -c ' %a' /one; test -f /dir/context.tar.gz";
    let ran = docker(&d, &["run", "--rm", "urls", "sh", "-c", script]).ok();
    assert_eq!(ran, "fetchedfetched 600");
    fs::write(dir.join("Dockerfile"), file.replace(&sum[..8], "00000000")).unwrap();
    assert!(build(&d, &dir, &[]).err.contains("digest mismatch"));
    let api = socket(&d);
    let remote = |address: &str| {
        let url = format!("http://d/build?q=1&remote={address}");
        d.host(&["curl", "-s", "--unix-socket", &api, "-XPOST", &url]).ok()
    };
    let said = remote(&format!("{url}/context.tar.gz"));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let image = said["stream"].as_str().unwrap_or_default().trim();
    assert_eq!(docker(&d, &["run", "--rm", image]).ok(), "fetched", "{said}");
    drop(server);
    assert!(remote(&format!("{url}/context.tar.gz")).contains("failed to get the context"));
    d.until_clean();
}

#[test]
fn network_and_limits_of_steps() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox\nRUN ls /sys/class/net > /net\nRUN --network=none ls /sys/class/net > /none\n\
                RUN ulimit -n > /files; df -k /dev/shm | tail -n1 > /shm; cat /etc/hosts > /hosts\n";
    let dir = context(&d, "limits", &[("Dockerfile", file)]);
    let options = [
        "-q",
        "--ulimit",
        "nofile=300:400",
        "--shm-size",
        "8m",
        "--add-host",
        "there:10.9.8.7",
        "-m",
        "64m",
    ];
    let image = build(&d, &dir, &options).ok();
    let script = "cat /net; echo -; cat /none; echo -; cat /files; grep -c 8192 /shm; grep there /hosts";
    let ran = docker(&d, &["run", "--rm", &image, "sh", "-c", script]).ok();
    assert_eq!(ran, "eth0\nlo\n-\nlo\n-\n300\n1\n10.9.8.7\tthere");
    let none = build(&d, &dir, &["-q", "--network", "none", "--no-cache"]).ok();
    assert_eq!(docker(&d, &["run", "--rm", &none, "cat", "/net"]).ok(), "lo");
    // The host's network, and one of the user's.
    docker(&d, &["network", "create", "--subnet", "10.77.0.0/24", "own"]).ok();
    let look = "FROM busybox\nRUN ip -4 -o addr > /addr; cat /etc/hosts >> /addr\n";
    fs::write(dir.join("Dockerfile"), look).unwrap();
    let options = ["-q", "--network", "own", "--add-host", "node:host-gateway"];
    let own = build(&d, &dir, &options).ok();
    let seen = docker(&d, &["run", "--rm", &own, "cat", "/addr"]).ok();
    assert!(
        seen.contains("10.77.0.2/24") && seen.contains("10.77.0.1\tnode"),
        "{seen}"
    );
    let host = build(&d, &dir, &["-q", "--network", "host", "--no-cache"]).ok();
    let seen = docker(&d, &["run", "--rm", &host, "cat", "/addr"]).ok();
    let here = d.host(&["ip", "-4", "-o", "addr"]).ok();
    assert_eq!(
        seen.lines().filter(|l| l.contains(" inet ")).count(),
        here.lines().count(),
        "{seen}"
    );
    let missing = build(&d, &dir, &["--network", "nonesuch", "--no-cache"]);
    assert!(missing.code != 0 && missing.err.contains("nonesuch"), "{missing:?}");
    docker(&d, &["network", "rm", "own"]).ok();
    d.until_clean();
}

#[test]
fn biga_build_and_images_without_names() {
    let d = daemon();
    let file = "FROM busybox\nARG W\nCOPY a /\nRUN echo said $W\nCMD [\"cat\", \"/a\"]\n";
    let dir = context(&d, "ours", &[("Dockerfile", file), ("a", "ours")]);
    let at = dir.display().to_string();
    let options = ["--build-arg", "W=so", "--label", "k=v"];
    let built = d.biga(&[&["build", "-t", "ours:1"], &options[..], &[&at]].concat());
    assert!(
        built.err.contains("Step 4/6 : RUN echo said $W\nsaid so\n"),
        "{built:?}"
    );
    let id = built.ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(d.biga(&["run", "--rm", "ours:1"]).ok(), "ours");
    let again = d.biga(&[&["build", "-q"], &options[..], &[&at]].concat());
    assert_eq!((again.err.as_str(), again.out.trim()), ("", id.as_str()));
    let failed = d.biga_with_input(&["build", "-"], b"FROM busybox\nRUN exit 4\n");
    assert!(
        failed.code == 1 && failed.err.contains("returned a non-zero code: 4"),
        "{failed:?}"
    );
    eventually("the step to be gone", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    assert_eq!(d.biga(&["build", "/nonexistent"]).code, 2);
    if has_docker() {
        let nameless = b"FROM busybox\nRUN echo > /nameless\n";
        let nameless = d.biga_with_input(&["build", "-q", "-"], nameless).ok();
        let list = |filter: &str| docker(&d, &["images", "-q", "--no-trunc", "--filter", filter]).ok();
        assert_eq!(list("dangling=true"), nameless);
        let format = "{{.Repository}}:{{.Tag}} {{.ID}}";
        let all = docker(&d, &["images", "--no-trunc", "--format", format]).ok();
        assert!(all.contains(&format!("<none>:<none> {nameless}")), "{all}");
        docker(&d, &["run", "--rm", &nameless[7..19], "ls", "/nameless"]).ok();
        // The name that was made up for it becomes one when somebody gives it.
        let made_up = format!("built:{}", &nameless[7..19]);
        docker(&d, &["tag", &nameless, &made_up]).ok();
        assert_eq!(list("dangling=true"), "");
        let all = docker(&d, &["images", "--no-trunc", "--format", format]).ok();
        assert!(all.contains(&format!("{made_up} {nameless}")), "{all}");
        docker(&d, &["rmi", &made_up]).ok();
        let nameless = d.biga_with_input(&["build", "-q", "-"], b"FROM busybox\nRUN echo > /nameless\n");
        assert_eq!(list("dangling=true"), nameless.ok());
        docker(&d, &["image", "prune", "-f"]).ok();
        assert_eq!(list("dangling=true"), "");
        assert!(list("dangling=false").contains(&id));
        let pruned = docker(&d, &["builder", "prune", "-f"]);
        assert!(
            pruned.code == 0 && pruned.out.contains("Total reclaimed space"),
            "{pruned:?}"
        );
    }
    d.until_clean();
}
