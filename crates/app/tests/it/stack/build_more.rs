//! What builds begin with and what their steps are given: repositories, archives of every kind, secrets, limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use biga_testkit::{Daemon, Ran, eventually};

use super::build::{Server, build, context, serve};
use super::buildkit::{self, buildx, has_buildx};
use super::daemon;
use super::docker::{docker, has_docker, socket};

/// `POST /build` of an address.
fn remote(d: &Daemon, address: &str) -> String {
    let address = address.replace('#', "%23").replace(':', "%3A");
    let url = format!("http://d/build?q=1&remote={address}");
    let api = socket(d);
    d.host(&["curl", "-s", "--unix-socket", &api, "-XPOST", &url]).ok()
}

/// The image of a build that said so.
#[track_caller]
fn image(said: &str) -> String {
    let v: serde_json::Value = serde_json::from_str(said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let id = v["stream"].as_str().unwrap_or_default().trim();
    assert!(id.starts_with("sha256:"), "{said}");
    id.to_owned()
}

/// Repositories below a directory: one with a submodule, a branch and a tag, and one that means no good.
const REPOSITORIES: &str = r#"set -e
cd "$0"; mkdir -p bare
export GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
new() { git init -q -b main "$1"; cd "$1"; }
publish() { git clone -q --bare . "../bare/$1"; git -C "../bare/$1" update-server-info; cd ..; }
new lib; echo library > l; git add -A; git commit -qm l; publish lib
new app
printf 'FROM busybox\nCOPY . /app/\n' > Dockerfile
printf 'left\n' > .dockerignore; echo x > left; echo first > file; ln -s /etc/passwd away
mkdir -p sub; printf 'FROM busybox\nCOPY f /f\n' > sub/Dockerfile; echo below > sub/f; ln -s ../../../../etc up
git -c protocol.file.allow=always submodule -q add "$0/lib" lib; git config -f .gitmodules submodule.lib.url git://127.0.0.1/lib
git add -A; git commit -qm one; git tag v1; git rev-parse HEAD > ../commit
echo second > file; git commit -qam two; git branch old v1
git checkout -q --detach; echo other > file; git commit -qam three; git branch other; git checkout -q main
publish app.git
new bad; printf 'FROM busybox\n' > Dockerfile
git -c protocol.file.allow=always submodule -q add "$0/lib" lib; git add -A; git commit -qm bad; publish bad.git
"#;

fn git_daemon(d: &Daemon, dir: &Path) -> Server {
    let base = format!("--base-path={}", dir.display());
    // Itself, and not by `git`, which would be another process.
    let program = format!("{}/git-daemon", d.host(&["git", "--exec-path"]).ok());
    let args = [&program, "--export-all", "--reuseaddr", "--listen=127.0.0.1", &base];
    let mut c = d.host_command(&args);
    // Who owns the repositories is not asked in a test.
    c.env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    let server = Server(c.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the server of repositories", || {
        (d.host(&["git", "ls-remote", "git://127.0.0.1/lib"]).code == 0).then_some(())
    });
    server
}

#[test]
fn contexts_that_are_repositories() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let at = d.path().join("git");
    fs::create_dir(&at).unwrap();
    d.host(&["sh", "-c", REPOSITORIES, &at.display().to_string()]).ok();
    let commit = fs::read_to_string(at.join("commit")).unwrap().trim().to_owned();
    let bare = at.join("bare");
    let smart = git_daemon(&d, &bare);
    // This one cannot give one commit alone.
    let dumb = serve(&d, &bare);
    let cat = |image: &str, path: &str| docker(&d, &["run", "--rm", image, "cat", path]).ok();
    for base in ["git://127.0.0.1/app.git", "http://127.0.0.1:8123/app.git"] {
        for (fragment, want) in [
            ("", "second"),
            ("#main", "second"),
            ("#other", "other"),
            ("#v1", "first"),
            (&format!("#{commit}"), "first"),
            (&format!("#{}", &commit[..10]), "first"),
        ] {
            let image = image(&remote(&d, &format!("{base}{fragment}")));
            assert_eq!(cat(&image, "/app/file"), want, "{base}{fragment}");
        }
        let whole = image(&remote(&d, base));
        let look = "cd /app; ls -A; cat lib/l; readlink away; ls -A lib";
        let seen = docker(&d, &["run", "--rm", &whole, "sh", "-c", look]).ok();
        let want = ".dockerignore\n.gitmodules\nDockerfile\naway\nfile\nlib\nsub\nup\nlibrary\n/etc/passwd\n";
        // A submodule's `.git` is a file that leads nowhere any more.
        assert!(seen.starts_with(want) && seen.ends_with("\nl"), "{seen}");
        let below = image(&remote(&d, &format!("{base}#main:sub")));
        assert_eq!(cat(&below, "/f"), "below");
    }
    for (address, why) in [
        ("git://127.0.0.1/app.git#nonesuch", "cannot be fetched"),
        ("git://127.0.0.1/app.git#main:none", "there is no directory none in it"),
        ("git://127.0.0.1/app.git#main:up", "there is no directory up in it"),
        ("git://127.0.0.1/app.git#--upload-pack=x", "is no name of a branch"),
        ("git://127.0.0.1/none.git", "cannot be fetched"),
        ("git://127.0.0.1/bad.git", "transport 'file' not allowed"),
        ("git@127.0.0.1:x.git", "behind SSH"),
        (
            "http://me:hush@127.0.0.1:8123/none.git",
            "http://127.0.0.1:8123/none.git",
        ),
    ] {
        let said = remote(&d, address);
        assert!(said.contains(why) && !said.contains("hush"), "{address}: {said}");
    }
    // By the others, and as what is added or copied from.
    let built = d.biga(&["build", "-q", "-f", "sub/Dockerfile", "git://127.0.0.1/app.git#v1"]);
    assert!(built.code != 0 && built.err.contains("COPY failed"), "{built:?}");
    let id = d.biga(&["build", "-q", "git://127.0.0.1/app.git#v1:sub"]).ok();
    assert_eq!(cat(&id, "/f"), "below");
    let file =
        "FROM busybox\nADD git://127.0.0.1/app.git#v1 /one\nADD --keep-git-dir=true git://127.0.0.1/app.git /two/\n";
    let dir = context(&d, "adds", &[("Dockerfile", file)]);
    build(&d, &dir, &["-t", "adds"]).ok();
    let look = "cat /one/file /two/file /one/lib/l; test -d /two/.git && ! test -e /one/.git && echo kept";
    assert_eq!(
        docker(&d, &["run", "--rm", "adds", "sh", "-c", look]).ok(),
        "first\nsecond\nlibrary\nkept"
    );
    if has_buildx() {
        let address = "http://127.0.0.1:8123/app.git#other";
        let args = ["build", "--progress=plain", "-t", "kit:git", address];
        buildkit::told(Ran::from(buildx(&d, &args).output().unwrap()));
        assert_eq!(cat("kit:git", "/app/file"), "other");
        fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY --from=more file /\n").unwrap();
        let more = "more=http://127.0.0.1:8123/app.git#v1";
        buildkit::told(buildkit::build(&d, &dir, &["-t", "kit:more", "--build-context", more]));
        assert_eq!(cat("kit:more", "/file"), "first");
    }
    drop((smart, dumb));
    let left = fs::read_dir(d.state().join("images/tmp")).unwrap().count();
    assert_eq!(left, 0, "what was cloned is gone");
    d.until_clean();
}

#[test]
fn archives_of_every_kind() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let file = "FROM busybox\nADD a.tar.bz2 b.tar.xz c.tar.gz d.tar /out/\nADD --unpack=false b.tar.xz /kept\nADD broken.tar.xz single.bz2 /\n";
    let dir = context(&d, "archives", &[("Dockerfile", file)]);
    let at = dir.display().to_string();
    for (name, option) in [
        ("a.tar.bz2", "-j"),
        ("b.tar.xz", "-J"),
        ("c.tar.gz", "-z"),
        ("d.tar", "-p"),
    ] {
        let inner = &name[..1];
        fs::write(dir.join(inner), inner).unwrap();
        d.host(&["tar", "-C", &at, option, "-cf", &format!("{at}/{name}"), inner])
            .ok();
        fs::remove_file(dir.join(inner)).unwrap();
    }
    fs::write(dir.join("broken.tar.xz"), b"\xfd7zXZ\0rest").unwrap();
    d.host(&["sh", "-c", "echo single > $0/single && bzip2 $0/single", &at])
        .ok();
    build(&d, &dir, &["-t", "archives"]).ok();
    let look = "cat /out/a /out/b /out/c /out/d; test -f /kept && test -f /broken.tar.xz && test -f /single.bz2 && echo ' files'";
    assert_eq!(
        docker(&d, &["run", "--rm", "archives", "sh", "-c", look]).ok(),
        "abcd files"
    );
    // As contexts, and as what is loaded and imported.
    for option in ["--bzip2", "--xz", "--zstd", "--gzip"] {
        let tar = format!("{at}/../context");
        d.host(&["tar", "-C", &at, option, "-cf", &tar, "."]).ok();
        let url = "http://d/build?t=sent&nocache=1";
        let send = ["curl", "-s", "--unix-socket", &socket(&d), "-XPOST", "-T", &tar, url];
        let said = d.host(&send).ok();
        assert!(said.contains("Successfully tagged sent"), "{option}: {said}");
        let piped = d.biga_with_input(&["build", "-q", "-t", "piped", "-"], &fs::read(&tar).unwrap());
        assert_eq!(piped.code, 0, "{option}: {piped:?}");
    }
    let saved = format!("{at}/../saved.tar");
    docker(&d, &["save", "-o", &saved, "archives"]).ok();
    for (program, ending) in [("bzip2", "bz2"), ("xz", "xz")] {
        docker(&d, &["rmi", "-f", "archives"]).ok();
        d.host(&["sh", "-c", "$0 -kf $1", program, &saved]).ok();
        let packed = format!("{saved}.{ending}");
        let loaded = docker(&d, &["load", "-i", &packed]).ok();
        assert!(loaded.contains("archives"), "{program}: {loaded}");
        let flat = docker(&d, &["import", &format!("{at}/b.tar.xz")]).ok();
        assert!(flat.starts_with("sha256:"), "{flat}");
    }
    d.until_clean();
}

/// Limits of a step, as its control groups have them: seen from outside, whatever version they are of.
#[test]
fn limits_of_steps_are_in_force() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let dir = context(&d, "limits", &[("Dockerfile", "FROM busybox\nRUN sleep 1000\n")]);
    let at = dir.display().to_string();
    let running = || {
        eventually("the step to run", || {
            let id = docker(&d, &["ps", "-q"]).ok();
            (id.lines().count() == 1).then_some(id)
        })
    };
    let parent = format!("builds-{}", d.prefix());
    let limits = [
        "--cpu-shares",
        "300",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--cgroup-parent",
        &parent,
        "--memory",
        "48m",
        "--memory-swap",
        "96m",
    ];
    let classic = [&["env", "DOCKER_BUILDKIT=0", "docker", "build"], &limits[..], &[&at]].concat();
    let host = format!("unix://{}", socket(&d));
    let mut docker_build = d.host_command(&classic);
    docker_build.env("DOCKER_HOST", host);
    let own = d.command(&[&["build"], &limits[..], &[&at]].concat());
    for mut client in [docker_build, own] {
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let id = running();
        let format = "{{.State.Pid}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuShares}} \
            {{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpusetCpus}} {{.HostConfig.CpusetMems}}";
        let seen = docker(&d, &["inspect", "-f", format, &id]).ok();
        let (pid, seen) = seen.split_once(' ').unwrap();
        assert_eq!(seen, "50331648 100663296 300 50000 25000 0 0");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(groups.contains(&format!("/{parent}/")), "{groups}");
        let memory = groups.lines().find(|l| l.contains(":memory:"));
        if let Some(path) = memory.and_then(|l| l.rsplit(':').next()) {
            let group = format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes");
            assert_eq!(fs::read_to_string(group).unwrap().trim(), "50331648");
        }
        client.kill().unwrap();
        client.wait().unwrap();
        eventually("the step to be gone", || {
            docker(&d, &["ps", "-aq"]).ok().is_empty().then_some(())
        });
    }
    // What takes more is killed.
    let hog = "FROM busybox\nRUN dd if=/dev/zero of=/dev/shm/x bs=1M count=60\n";
    fs::write(dir.join("Dockerfile"), hog).unwrap();
    let killed = build(
        &d,
        &dir,
        &["-m", "24m", "--memory-swap", "24m", "--shm-size", "100m", "--force-rm"],
    );
    assert!(killed.code == 137, "{killed:?}");
    let fits = build(&d, &dir, &["-m", "200m", "--shm-size", "100m", "-q"]);
    assert_eq!(fits.code, 0, "{fits:?}");
    d.until_clean();
}

#[test]
fn what_builds_leave_is_listed_and_pruned() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let failing = "FROM busybox\nRUN dd if=/dev/urandom of=/large bs=1M count=3\nRUN exit 3\n";
    let staged = "FROM busybox AS one\nRUN --mount=type=cache,id=kept,target=/c echo cached > /c/f; dd if=/dev/urandom of=/stage bs=1M count=2\n\
        FROM busybox\nCOPY --from=one /etc/passwd /x\n";
    let dir = context(&d, "leaves", &[("failing", failing), ("staged", staged)]);
    let file = |name: &str| dir.join(name).display().to_string();
    assert_eq!(build(&d, &dir, &["-f", &file("failing"), "--force-rm"]).code, 3);
    build(&d, &dir, &["-f", &file("staged"), "-t", "staged"]).ok();
    let cache = || -> Vec<serde_json::Value> {
        let api = socket(&d);
        let said = d
            .host(&[
                "curl",
                "-s",
                "--unix-socket",
                &api,
                "http://d/system/df?type=build-cache",
            ])
            .ok();
        let v: serde_json::Value = serde_json::from_str(&said).unwrap();
        v["BuildCache"].as_array().unwrap().clone()
    };
    let all = cache();
    let of = |what: &str| {
        let found = all.iter().find(|r| r["Description"].as_str().unwrap().contains(what));
        found.unwrap_or_else(|| panic!("{what}: {all:?}"))
    };
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(
        (&of("of=/large")["Type"], &of("of=/large")["Shared"]),
        (&"regular".into(), &false.into())
    );
    assert!(of("of=/large")["Size"].as_u64() > Some(3 << 20), "{all:?}");
    assert!(
        of("of=/stage")["Shared"] == true && of("of=/stage")["Size"].as_u64() > Some(2 << 20),
        "{all:?}"
    );
    assert_eq!(of("cached mount kept")["Type"], "exec.cachemount");
    let df = docker(&d, &["system", "df"]).ok();
    let row = df.lines().find(|l| l.starts_with("Build Cache")).unwrap();
    assert!(row.contains("Build Cache     3         0"), "{df}");
    assert!(docker(&d, &["system", "df", "-v"]).ok().contains("exec.cachemount"));
    // What was used a moment ago is not old, and what is named is what goes.
    let prune = |args: &[&str]| docker(&d, &[&["builder", "prune", "-f"], args].concat());
    assert!(
        prune(&["--filter", "until=1h"])
            .ok()
            .contains("Total reclaimed space: 0B")
    );
    assert!(
        prune(&["--filter", "type=frontend"])
            .ok()
            .contains("Total reclaimed space: 0B")
    );
    assert_ne!(prune(&["--filter", "colour=red"]).code, 0);
    assert_eq!(cache().len(), 3);
    let id = of("of=/large")["ID"].as_str().unwrap();
    let told = prune(&["--filter", &format!("id={}", &id[7..20])]).ok();
    assert!(told.contains(id) && told.contains("MB"), "{told}");
    assert_eq!(cache().len(), 2);
    let again = build(&d, &dir, &["-f", &file("failing"), "--force-rm"]);
    assert!(again.code == 3 && !again.out.contains("Using cache"), "{again:?}");
    // Without --all what images were built of stays.
    prune(&[]).ok();
    let left = cache();
    assert!(left.len() == 1 && left[0]["Shared"] == true, "{left:?}");
    let told = prune(&["-a"]).ok();
    assert!(told.contains("MB"), "{told}");
    assert!(cache().is_empty());
    let anew = build(&d, &dir, &["-f", &file("staged"), "-t", "staged"]).ok();
    assert!(!anew.contains("Using cache"), "{anew}");
    if has_buildx() {
        let client = |args: &[&str]| Ran::from(buildx(&d, args).output().unwrap());
        let du = client(&["buildx", "du", "--verbose"]).ok();
        assert!(du.contains("cached mount kept") && du.contains("Shared:"), "{du}");
        let one = client(&["buildx", "du", "--verbose", "--filter", "type=exec.cachemount"]).ok();
        assert!(one.contains("cached mount kept") && !one.contains("of=/stage"), "{one}");
        let none = client(&["buildx", "prune", "-f", "--filter", "until=1h"]).ok();
        assert!(none.contains("0B"), "{none}");
        let gone = client(&["buildx", "prune", "-f", "--filter", "type=exec.cachemount"]).ok();
        assert!(gone.contains("Total:"), "{gone}");
        assert_eq!(cache().len(), 1);
        client(&["buildx", "prune", "-af"]).ok();
        assert!(cache().is_empty());
    }
    d.until_clean();
}

#[test]
fn secrets_and_agents_of_biga_build() {
    let d = daemon();
    let secret = format!("hush-{}-hush", std::process::id());
    let file = "FROM busybox\nENV NAME=public\nRUN --mount=type=secret,id=token --mount=type=secret,id=word,env=NAME \
        wc -c < /run/secrets/token > /seen; echo ${#NAME} >> /seen; ls /run/secrets >> /seen\n\
        RUN --mount=type=secret,id=token,env=BOTH,target=/t test \"$(cat /t)\" = \"$BOTH\" && echo same >> /seen\n\
        RUN echo $NAME$BOTH >> /seen\nRUN --mount=type=secret,id=none,env=GONE echo \"<$GONE>\" >> /seen\n";
    let dir = context(&d, "secrets", &[("Dockerfile", file), ("../token", &secret)]);
    let at = dir.display().to_string();
    let source = format!("id=token,src={}", d.path().join("token").display());
    let options = ["-t", "own:1", "--secret", &source, "--secret", "id=word,env=WORD"];
    let mut c = d.command(&[&["build"], &options[..], &[&at]].concat());
    let built = Ran::from(c.env("WORD", format!("{secret}!")).output().unwrap());
    assert_eq!(built.code, 0, "{built:?}");
    let n = secret.len();
    let seen = d.biga(&["run", "--rm", "own:1", "cat", "/seen"]).ok();
    assert_eq!(seen, format!("{n}\n{}\ntoken\nsame\npublic\n<>", n + 1));
    // In no store, log or file.
    for place in [d.state(), d.run_root()] {
        let found = d.host(&["grep", "-rlaF", &secret, &place.display().to_string()]);
        assert_eq!(found.out, "", "{found:?}");
    }
    assert!(!d.log().contains(&secret) && !built.err.contains(&secret));
    for (text, options, why) in [
        (
            "RUN --mount=type=secret,id=x,env=A,required true",
            &[][..],
            "secret x: not found",
        ),
        (
            "RUN --mount=type=secret,id=token,env=A=B true",
            &["--secret", &source],
            "no name of a variable",
        ),
        (
            "RUN --mount=type=ssh,required true",
            &[],
            "ssh agent default: not found",
        ),
        ("RUN true", &["--ssh", "default=/dev/null"], "is no socket of an agent"),
        (
            "RUN true",
            &["--secret", "id=x,src=/none/such"],
            "cannot read /none/such",
        ),
    ] {
        fs::write(dir.join("Dockerfile"), format!("FROM busybox\n{text}\n")).unwrap();
        let failed = d.biga(&[&["build"], options, &[&at]].concat());
        assert!(failed.code != 0 && failed.err.contains(why), "{text}: {failed:?}");
    }
    agent(&d, &dir);
    d.until_clean();
}

/// A step that asks an agent.
fn agent(d: &Daemon, dir: &Path) {
    let (at, key) = (dir.display().to_string(), d.path().join("key").display().to_string());
    let sock: PathBuf = d.path().join("agent");
    let copy = "cp /usr/bin/ssh-add /lib64/ld-linux-x86-64.so.2 $0/ && mv $0/ld-linux-x86-64.so.2 $0/ld.so && \
        cp $(ldd /usr/bin/ssh-add | awk '/=> \\// {print $3}') $0/";
    d.host(&["sh", "-c", copy, &at]).ok();
    d.host(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key])
        .ok();
    let mut agent = Command::new("ssh-agent");
    let agent = agent
        .args(["-D", "-a", &sock.display().to_string()])
        .stdout(Stdio::null());
    let _agent = Server(agent.spawn().unwrap());
    eventually("an agent", || sock.exists().then_some(()));
    let set = format!("SSH_AUTH_SOCK={}", sock.display());
    d.host(&["env", &set, "ssh-add", "-q", &key]).ok();
    let file = "FROM busybox\nCOPY . /x/\nRUN --mount=type=ssh /x/ld.so --library-path /x /x/ssh-add -l > /keys\n";
    fs::write(dir.join("Dockerfile"), file).unwrap();
    let mut c = d.command(&["build", "-t", "own:ssh", "--ssh", "default", &at]);
    let built = Ran::from(c.env("SSH_AUTH_SOCK", &sock).output().unwrap());
    assert_eq!(built.code, 0, "{built:?}");
    let keys = d.biga(&["run", "--rm", "own:ssh", "cat", "/keys"]).ok();
    assert!(keys.contains("ED25519"), "{keys}");
}

#[test]
fn a_terminal_shows_each_step_as_it_is() {
    let d = daemon();
    let file = "FROM busybox\nRUN echo begun; sleep 1; echo more\nRUN echo why; exit 4\n";
    let dir = context(&d, "live", &[("Dockerfile", file)]);
    let command = format!(
        "stty rows 40 cols 120; {} build {}",
        env!("CARGO_BIN_EXE_biga"),
        dir.display()
    );
    let shown = || {
        let mut c = d.host_command(&["script", "-qec", &command, "/dev/null"]);
        c.env(
            "BIGA_HOST",
            format!("unix://{}", d.run_root().join("api.sock").display()),
        );
        Ran::from(c.env("TERM", "xterm").stdin(Stdio::null()).output().unwrap())
    };
    let first = shown();
    assert_eq!(first.code, 1, "{first:?}");
    // While it runs, what it writes stands below it; then one line is left of it.
    for part in [
        "    begun",
        "✓ [1/3] FROM busybox",
        "✓ [2/3] RUN echo begun; sleep 1; echo more",
        "✗ [3/3] RUN echo why; exit 4",
        "why",
        "returned a non-zero code: 4",
    ] {
        assert!(first.out.contains(part), "{part}: {first:?}");
    }
    let again = shown();
    assert!(
        again.out.contains("= [2/3] RUN echo begun; sleep 1; echo more cached"),
        "{again:?}"
    );
    d.until_clean();
}
