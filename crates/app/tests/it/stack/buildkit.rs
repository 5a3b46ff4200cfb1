//! `docker build` with buildx, as users have it: BuildKit's interface over Docker's socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use biga_testkit::{Daemon, Ran, eventually};

use super::daemon;
use super::docker::{docker, has_docker, socket};
use super::registries::{HOST, Registry};

/// Where `scripts/setup-buildx` puts it.
const BUILDX: &str = "/usr/local/lib/buildx-debian13/docker-buildx";

pub(super) fn has_buildx() -> bool {
    let here = has_docker() && Path::new(BUILDX).exists();
    if !here {
        eprintln!("no buildx: run scripts/setup-buildx");
    }
    here
}

/// A directory with these files.
fn context(d: &Daemon, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = d.path().join(name);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Docker's command line with buildx, as it is where the plugin is installed.
pub(super) fn buildx(d: &Daemon, args: &[&str]) -> Command {
    let config = d.path().join("with-buildx");
    let plugins = config.join("cli-plugins");
    fs::create_dir_all(&plugins).unwrap();
    let _ = symlink(BUILDX, plugins.join("docker-buildx"));
    let host = format!("DOCKER_HOST=unix://{}", socket(d));
    let config = format!("DOCKER_CONFIG={}", config.display());
    d.host_command(&[&["env", &host, &config, "docker"], args].concat())
}

/// `docker build`, with plain progress.
pub(super) fn build(d: &Daemon, dir: &Path, args: &[&str]) -> Ran {
    let dir = dir.display().to_string();
    let args = [&["build", "--progress=plain"], args, &[&dir]].concat();
    Ran::from(buildx(d, &args).output().unwrap())
}

/// What a build told that succeeded.
#[track_caller]
pub(super) fn told(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran.err
}

pub(super) fn run(d: &Daemon, image: &str, command: &str) -> String {
    docker(d, &["run", "--rm", image, "sh", "-c", command]).ok()
}

#[test]
fn a_build_with_plain_progress() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox AS base\nARG WHO=nobody\nRUN echo hello $WHO | tee /made\n\
        FROM scratch AS unneeded\nCOPY none /never\nFROM base\nCOPY a.txt /a\nCMD cat /made /a\n";
    let dir = context(&d, "plain", &[("Dockerfile", file), ("a.txt", "text\n")]);
    let (iid, meta) = (d.path().join("iid"), d.path().join("meta"));
    let (iid_name, meta_name) = (iid.display().to_string(), meta.display().to_string());
    let options = [
        "-t",
        "kit:1",
        "-t",
        "kit:two",
        "--build-arg",
        "WHO=you",
        "--label",
        "l=v w",
        "--iidfile",
        &iid_name,
        "--metadata-file",
        &meta_name,
    ];
    let log = told(build(&d, &dir, &options));
    for line in [
        "[internal] load build definition from Dockerfile",
        "[internal] load build context",
        "[base 1/7] FROM busybox AS base",
        "[base 3/7] RUN echo hello $WHO | tee /made",
        "hello you",
        "[5/7] COPY a.txt /a",
        "exporting to image",
        "naming to kit:two",
        "DONE",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("never") && !log.contains("CACHED"), "{log}");
    assert_eq!(docker(&d, &["run", "--rm", "kit:1"]).ok(), "hello you\ntext");
    let id = docker(
        &d,
        &[
            "image",
            "inspect",
            "-f",
            "{{.Id}} {{index .Config.Labels \"l\"}}",
            "kit:two",
        ],
    )
    .ok();
    let iid = fs::read_to_string(iid).unwrap();
    assert_eq!(id, format!("{iid} v w"));
    assert!(fs::read_to_string(meta).unwrap().contains(&iid));
    // The same once more, by both builders.
    let log = told(build(&d, &dir, &options));
    assert!(log.matches("CACHED").count() >= 2, "{log}");
    let args = [
        "build",
        "-q",
        "--build-arg",
        "WHO=you",
        "--label",
        "l=v w",
        &dir.display().to_string(),
    ];
    assert_eq!(Ran::from(buildx(&d, &args).output().unwrap()).ok(), iid);
    let mut classic = buildx(&d, &args);
    assert_eq!(
        Ran::from(classic.env("DOCKER_BUILDKIT", "0").output().unwrap()).ok(),
        iid
    );
    let log = told(build(&d, &dir, &["--no-cache", "--target", "BASE", "-t", "kit:base"]));
    assert!(
        log.contains("hello nobody") && !log.contains("CACHED") && !log.contains("COPY"),
        "{log}"
    );
    let boxed = Ran::from(buildx(&d, &["buildx", "inspect"]).output().unwrap()).ok();
    assert!(
        boxed.contains("Status:           running") && boxed.contains("linux/amd64"),
        "{boxed}"
    );
    d.until_clean();
}

#[test]
fn failures_say_where() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let dir = context(&d, "wrong", &[("a", "a")]);
    for (file, options, said) in [
        (
            "FROM busybox\n\nRUN echo why; exit 3\n",
            &[][..],
            &[
                "why",
                "Dockerfile:3",
                ">>> RUN echo why; exit 3",
                "did not complete successfully: exit code: 3",
            ][..],
        ),
        (
            "FROM busybox\nFOO x\n",
            &[],
            &["Dockerfile:2", "unknown instruction: FOO"],
        ),
        (
            "FROM busybox\nCOPY none /\n",
            &[],
            &["COPY failed", "none", "Dockerfile:2"],
        ),
        (
            "FROM busybox\n",
            &["--target", "none"],
            &["target stage \"none\" could not be found"],
        ),
        ("FROM busybox\n", &["-f", "other"], &["other"]),
        (
            "FROM busybox\n",
            &["--platform", "linux/s390x"],
            &["not for linux/s390x"],
        ),
        (
            "FROM busybox\n",
            &["--build-context", "x=https://127.0.0.1:1/x.git"],
            &["the repository https://127.0.0.1:1/x.git cannot be fetched"],
        ),
        (
            "FROM busybox\n",
            &["--cache-to", "type=local,dest=c"],
            &["--cache-to type=local"],
        ),
        ("FROM busybox\n", &["-o", "type=other"], &["type=other"]),
        (
            "FROM busybox\nRUN --mount=type=secret,id=s,required true\n",
            &[],
            &["secret s: not found"],
        ),
        (
            "FROM busybox\nRUN --mount=type=secret,id=s,env=S,required true\n",
            &[],
            &["secret s: not found"],
        ),
        (
            "FROM busybox\nRUN --mount=type=ssh,required true\n",
            &[],
            &["ssh agent default: not found"],
        ),
        ("FROM busybox\nRUN --mount=type=cache true\n", &[], &["needs a target"]),
    ] {
        fs::write(dir.join("Dockerfile"), file).unwrap();
        let ran = build(&d, &dir, options);
        assert_eq!(ran.code, 1, "{file} {options:?}: {}", ran.err);
        for part in said {
            assert!(ran.err.contains(part), "{file} {options:?}: {part}: {}", ran.err);
        }
    }
    d.until_clean();
}

#[test]
fn contexts_of_every_kind() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let large: String = (0..500_000).map(|n| format!("{n}\n")).collect();
    let file = "FROM busybox\nCOPY . /c/\n";
    let files = [
        ("Dockerfile", file),
        (".dockerignore", "out\n*.log\n!keep.log\nDockerfile\n"),
        ("out/x", "x"),
        ("a.log", "x"),
        ("keep.log", "kept"),
        ("dir/deep/file", "deep"),
        ("dir/empty", ""),
        ("large", &large),
        ("other.file", "FROM busybox\nCOPY . /o/\n"),
        ("other.file.dockerignore", "*\n!a.log\n"),
        ("script", "#!/bin/sh\necho ran\n"),
    ];
    let dir = context(&d, "contexts", &files);
    for n in 0..300 {
        fs::write(dir.join(format!("dir/n{n}")), n.to_string()).unwrap();
    }
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("deep/file", dir.join("dir/link")).unwrap();
    symlink("/etc/passwd", dir.join("dir/away")).unwrap();
    fs::hard_link(dir.join("keep.log"), dir.join("same.log2")).unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd-\xff");
    fs::write(dir.join(odd), "odd").unwrap();
    told(build(&d, &dir, &["-t", "kit:context"]));
    let look = "cd /c; ls -A . | grep -v odd; ls dir | wc -l; cat dir/link keep.log same.log2; readlink dir/away; ./script; \
        tail -n 1 large; cat odd-*; stat -c '%u %a' script";
    let want = ".dockerignore\ndir\nkeep.log\nlarge\nother.file\nother.file.dockerignore\nsame.log2\nscript\n304\n\
        deepkeptkept/etc/passwd\nran\n499999\nodd0 755";
    assert_eq!(run(&d, "kit:context", look), want);
    let other = dir.join("other.file").display().to_string();
    told(build(&d, &dir, &["-t", "kit:other", "-f", &other]));
    assert_eq!(run(&d, "kit:other", "ls /o"), "a.log");
    // On standard input: a Dockerfile with a directory, one alone, and an archive.
    let at = dir.display().to_string();
    let piped = |shell: &str, args: &[&str]| {
        let args = [&["build", "--progress=plain"], args].concat();
        let c = buildx(&d, &args);
        let words: Vec<String> = std::iter::once(c.get_program())
            .chain(c.get_args())
            .map(|w| format!("'{}'", w.to_str().unwrap()))
            .collect();
        told(d.host(&["sh", "-c", &format!("{shell} | {}", words.join(" "))]))
    };
    piped(
        "printf 'FROM busybox\\nCOPY keep.log /k\\n'",
        &["-t", "kit:piped", "-f", "-", &at],
    );
    assert_eq!(run(&d, "kit:piped", "cat /k"), "kept");
    piped(
        "printf 'FROM busybox\\nRUN echo alone > /x\\n'",
        &["-t", "kit:alone", "-"],
    );
    assert_eq!(run(&d, "kit:alone", "cat /x"), "alone");
    piped(
        &format!("tar -C {at} -cf - ."),
        &["-t", "kit:tar", "-f", "other.file", "-"],
    );
    assert_eq!(run(&d, "kit:tar", "cat /o/keep.log"), "kept");
    d.until_clean();
}

#[test]
fn what_becomes_of_a_build() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox AS made\nRUN mkdir -p /out/d && echo text > /out/d/f && ln /out/d/f /out/d/a && ln -s f /out/d/l \
        && chmod 640 /out/d/f\nFROM scratch\nCOPY --from=made /out /\n";
    let dir = context(&d, "outputs", &[("Dockerfile", file)]);
    let to = d.path().join("to");
    let to = to.display().to_string();
    let log = told(build(&d, &dir, &["-o", &to]));
    assert!(
        log.contains("exporting to client directory") && !log.contains("writing image"),
        "{log}"
    );
    let looked = d.host(&[
        "sh",
        "-c",
        &format!("cd {to}; ls d; cat d/f d/a d/l; stat -c %a d/f; readlink d/l"),
    ]);
    assert_eq!(looked.ok(), "a\nf\nl\ntext\ntext\ntext\n640\nf");
    let out = |kind: &str| format!("type={kind},dest={to}.{kind}");
    told(build(&d, &dir, &["-o", &out("tar")]));
    assert_eq!(d.host(&["tar", "-xOf", &format!("{to}.tar"), "d/f"]).ok(), "text");
    // Nobody asked for an image.
    assert_eq!(docker(&d, &["images", "-q"]).ok().lines().count(), 1);
    for kind in ["docker", "oci"] {
        told(build(&d, &dir, &["-t", "kit:out", "-o", &out(kind)]));
        let loaded = docker(&d, &["load", "-i", &format!("{to}.{kind}")]).ok();
        assert!(loaded.contains("kit:out"), "{kind}: {loaded}");
        docker(&d, &["rmi", "kit:out"]).ok();
    }
    told(build(&d, &dir, &["-t", "kit:loaded", "--load"]));
    docker(&d, &["image", "inspect", "kit:loaded"]).ok();
    d.until_clean();
}

#[test]
fn mounts_of_a_step() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox AS tools\nRUN mkdir /t && echo tool > /t/x && chown 5:6 /t/x\n\
        FROM busybox\nARG DIR=cache\nWORKDIR /app\n\
        RUN --mount=type=cache,target=/$DIR,mode=0700,uid=3 echo run >> /cache/count; wc -l < /cache/count > /counted; stat -c '%u %a' /cache >> /counted\n\
        RUN --mount=target=in,rw --mount=from=tools,source=/t,target=/t --mount=src=a.txt,target=/one \
        cat in/a.txt /one > /bound; stat -c '%u:%g' /t/x >> /bound; echo lost > in/lost; (echo no > /t/x) 2>/dev/null || echo kept >> /bound\n\
        RUN --mount=type=tmpfs,target=/mem,size=1m echo x > /mem/x && grep ' /mem ' /proc/mounts | cut -d ' ' -f 3 > /memory\n";
    let dir = context(&d, "mounts", &[("Dockerfile", file), ("a.txt", "a\n")]);
    let made = "cat /counted /bound /memory; ls -d /cache /t /one /mem /app/in 2>/dev/null; ls -A /app";
    let want = "a\na\n5:6\nkept\ntmpfs";
    told(build(&d, &dir, &["-t", "kit:mounts"]));
    assert_eq!(run(&d, "kit:mounts", made), format!("1\n3 700\n{want}"));
    told(build(&d, &dir, &["-t", "kit:mounts", "--no-cache"]));
    assert_eq!(run(&d, "kit:mounts", made), format!("2\n3 700\n{want}"));
    // Files of the context count, and where nothing changed nothing runs.
    fs::write(dir.join("a.txt"), "b\n").unwrap();
    let log = told(build(&d, &dir, &["-t", "kit:mounts"]));
    assert!(log.contains("CACHED"), "{log}");
    assert!(run(&d, "kit:mounts", "cat /bound").starts_with("b\nb\n"));
    // The others know them, too.
    let at = dir.display().to_string();
    let mut classic = buildx(&d, &["build", "--no-cache", "-t", "kit:classic", &at]);
    Ran::from(classic.env("DOCKER_BUILDKIT", "0").output().unwrap()).ok();
    assert!(run(&d, "kit:classic", "cat /counted").starts_with("3\n"));
    let usage = Ran::from(buildx(&d, &["buildx", "du", "--verbose"]).output().unwrap()).ok();
    assert!(usage.contains("cached mount /cache"), "{usage}");
    let pruned = Ran::from(buildx(&d, &["buildx", "prune", "-f"]).output().unwrap()).ok();
    assert!(pruned.contains("Total:"), "{pruned}");
    d.biga(&["build", "--no-cache", "-t", "kit:own", &at]).ok();
    assert!(run(&d, "kit:own", "cat /counted").starts_with("1\n"));
    let left = fs::read_dir(d.state().join("images/tmp")).unwrap().count();
    assert_eq!(left, 0, "what was laid out for a mount is gone");
    d.until_clean();
}

#[test]
fn secrets_are_seen_by_their_step_alone() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let secret = format!("hush-{}-hush", std::process::id());
    let file = "FROM busybox\nRUN --mount=type=secret,id=token,mode=0440,uid=7 \
        wc -c < /run/secrets/token > /size; stat -c '%u %a' /run/secrets/token >> /size; grep -c hush /run/secrets/token >> /size\n\
        RUN --mount=type=secret,id=token,target=/etc/t wc -c < /etc/t >> /size\n\
        RUN --mount=type=secret,id=none ls /run/secrets 2>/dev/null | wc -l >> /size\n\
        RUN ls /run/secrets /etc/t 2>/dev/null | wc -l >> /size\n\
        RUN --mount=type=secret,id=token,env=TOKEN echo ${#TOKEN} >> /size; ls /run/secrets 2>/dev/null | wc -l >> /size\n\
        RUN echo \"<$TOKEN>\" >> /size\n";
    let dir = context(&d, "secrets", &[("Dockerfile", file), ("../token", &secret)]);
    let source = format!("id=token,src={}", d.path().join("token").display());
    let log = told(build(&d, &dir, &["-t", "kit:secret", "--secret", &source]));
    let n = secret.len();
    assert_eq!(
        run(&d, "kit:secret", "cat /size"),
        format!("{n}\n7 440\n1\n{n}\n0\n0\n{n}\n0\n<>")
    );
    assert!(!log.contains(&secret));
    assert_eq!(
        run(&d, "kit:secret", "find / -xdev -name token -o -path /etc/t | wc -l"),
        "0"
    );
    // Nowhere in the state, in no log, and in nothing that a build left.
    for place in [d.state(), d.run_root()] {
        let place = place.display().to_string();
        let found = d.host(&["grep", "-rlaF", &secret, &place]);
        assert_eq!(found.out, "", "{found:?}");
    }
    assert!(!d.log().contains(&secret));
    // Another secret is no reason to do a step again.
    fs::write(d.path().join("token"), "other").unwrap();
    let log = told(build(&d, &dir, &["-t", "kit:secret", "--secret", &source]));
    assert_eq!(log.matches("CACHED").count(), 6, "{log}");
    d.until_clean();
}

#[test]
fn an_agent_of_ssh_is_forwarded() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox\nCOPY . /x/\n\
        RUN --mount=type=ssh /x/ld.so --library-path /x /x/ssh-add -l > /keys; echo $SSH_AUTH_SOCK >> /keys; \
        /x/ld.so --library-path /x /x/ssh-add -l >> /keys\n";
    let dir = context(&d, "ssh", &[("Dockerfile", file)]);
    let (at, key) = (dir.display().to_string(), d.path().join("key").display().to_string());
    let sock = d.path().join("agent").display().to_string();
    let copy = "cp /usr/bin/ssh-add /lib64/ld-linux-x86-64.so.2 $0/ && mv $0/ld-linux-x86-64.so.2 $0/ld.so && \
        cp $(ldd /usr/bin/ssh-add | awk '/=> \\// {print $3}') $0/";
    d.host(&["sh", "-c", copy, &at]).ok();
    d.host(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key])
        .ok();
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &sock])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("an agent", || Path::new(&sock).exists().then_some(()));
    d.host(&["env", &format!("SSH_AUTH_SOCK={sock}"), "ssh-add", "-q", &key])
        .ok();
    let ran = build(&d, &dir, &["-t", "kit:ssh", "--ssh", &format!("default={sock}")]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    told(ran);
    let keys = run(&d, "kit:ssh", "cat /keys; ls /run/buildkit 2>/dev/null | wc -l");
    let lines: Vec<&str> = keys.lines().collect();
    assert!(lines[0].contains("ED25519") && lines[0] == lines[2], "{keys}");
    assert_eq!((lines[1], lines[3]), ("/run/buildkit/ssh_agent.0", "0"), "{keys}");
    d.until_clean();
}

#[test]
fn whoever_leaves_ends_the_build() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let dir = context(
        &d,
        "leaves",
        &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")],
    );
    for signal in ["-INT", "-KILL"] {
        let args = [
            "build",
            "--progress=plain",
            "-t",
            "kit:never",
            &dir.display().to_string(),
        ];
        let mut client = buildx(&d, &args).stderr(Stdio::null()).spawn().unwrap();
        eventually("a step", || {
            (docker(&d, &["ps", "-q"]).ok().lines().count() == 1).then_some(())
        });
        // The plugin is a process of its own.
        let of = format!("pkill {signal} -P {0}; kill {signal} {0}", client.id());
        d.host(&["sh", "-c", &of]);
        let _ = client.wait();
        eventually("no step", || docker(&d, &["ps", "-aq"]).ok().is_empty().then_some(()));
    }
    d.until_clean();
}

#[test]
fn contexts_beside_the_main_one() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    let file = "FROM base AS one\nRUN echo one > /one; cat /proc/uptime > /when\nFROM busybox AS two\nRUN echo two > /two; cat /proc/uptime > /when\n\
        FROM busybox\nCOPY --from=more . /more/\nCOPY --from=one /one /when /ones/\nCOPY --from=two /two /when /twos/\n\
        RUN --mount=from=more,target=/m cat /m/sub/file > /mounted\n";
    let dir = context(&d, "main", &[("Dockerfile", file)]);
    let more = context(
        &d,
        "more",
        &[("sub/file", "beside"), ("left", "x"), (".dockerignore", "left\n")],
    );
    let named = format!("more={}", more.display());
    let options = [
        "-t",
        "kit:named",
        "--build-context",
        &named,
        "--build-context",
        "base=docker-image://busybox",
    ];
    let log = told(build(&d, &dir, &options));
    assert!(
        log.contains("[one 1/9] FROM base AS one") && log.contains("[two 3/9] FROM busybox AS two"),
        "{log}"
    );
    let look = "cat /more/sub/file /mounted /ones/one /twos/two; ls -A /more";
    assert_eq!(run(&d, "kit:named", look), "besidebesideone\ntwo\n.dockerignore\nsub");
    let times = |d: &Daemon| {
        let all = run(d, "kit:named", "cat /ones/when /twos/when");
        all.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = times(&d);
    // One stage anew, the other as it was.
    let log = told(build(&d, &dir, &[&options[..], &["--no-cache-filter", "one"]].concat()));
    assert!(log.contains("CACHED"), "{log}");
    let after = times(&d);
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?} {after:?}");
    d.until_clean();
}

#[test]
fn a_base_that_needs_a_login() {
    if !has_buildx() {
        return;
    }
    let d = daemon();
    // `secret` as bcrypt with the lowest cost that the registry takes.
    let file = d.path().join("htpasswd");
    fs::write(
        &file,
        "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
    )
    .unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: x\n    path: {}\n", file.display());
    let registry = Registry::start(&d, &auth);
    let (base, out) = (format!("{HOST}/team/base:1"), format!("{HOST}/team/out:1"));
    let client = |args: &[&str]| Ran::from(buildx(&d, args).output().unwrap());
    client(&["login", "-u", "me", "-p", "secret", HOST]).ok();
    client(&["tag", "busybox", &base]).ok();
    client(&["push", "-q", &base]).ok();
    client(&["rmi", &base, "busybox"]).ok();
    let dir = context(
        &d,
        "private",
        &[("Dockerfile", &format!("FROM {base}\nRUN echo built > /x\n"))],
    );
    let log = told(build(&d, &dir, &["-t", &out, "--push"]));
    assert!(
        log.contains("sha256:") && log.contains(&format!("pushing {out} with docker")),
        "{log}"
    );
    client(&["rmi", &out, &base]).ok();
    client(&["pull", "-q", &out]).ok();
    assert_eq!(run(&d, &out, "cat /x"), "built");
    client(&["logout", HOST]).ok();
    client(&["rmi", &out]).ok();
    let denied = build(&d, &dir, &["--pull"]);
    assert!(
        denied.code == 1 && denied.err.contains("pull access denied"),
        "{}",
        denied.err
    );
    drop(registry);
    d.until_clean();
}
