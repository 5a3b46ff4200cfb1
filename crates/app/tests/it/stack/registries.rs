//! Images and registries, through the whole program: logins, policy, budget, a daemon that is killed while it pulls.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use biga_testkit::{Daemon, Ran, eventually, images};

use super::daemon;

/// Where registries listen in the network namespace of their daemon, which nobody shares.
pub(super) const HOST: &str = "127.0.0.1:5000";

/// Debian's registry in a daemon's network.
pub(super) struct Registry(Child);

impl Registry {
    /// `more` are further lines of its configuration.
    pub(super) fn start(d: &Daemon, more: &str) -> Registry {
        let file = d.path().join("registry.yml");
        let data = d.path().join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {HOST}\n{more}",
            data.display()
        );
        fs::write(&file, text).unwrap();
        let child = d
            .host_command(&["docker-registry", "serve", &file.display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry(child);
        eventually("the registry's first answer", || {
            // The shell's own connection: it fails where nobody listens.
            let probe = d.host(&["bash", "-c", ": < /dev/tcp/127.0.0.1/5000"]);
            (probe.code == 0).then_some(())
        });
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `biga` for a user whose logins are in a directory of the test.
fn with_logins(d: &Daemon, args: &[&str], input: Option<&str>) -> Ran {
    let mut c = d.command(args);
    c.env("DOCKER_CONFIG", d.path().join("logins"));
    match input {
        None => Ran::from(c.output().unwrap()),
        Some(text) => {
            let mut child = c
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            Ran::from(child.wait_with_output().unwrap())
        }
    }
}

#[test]
fn a_login_opens_a_registry() {
    let d = daemon();
    // `secret` as bcrypt with the lowest cost that the registry takes.
    let hash = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let file = d.path().join("htpasswd");
    fs::write(&file, hash).unwrap();
    let _registry = Registry::start(
        &d,
        &format!("auth:\n  htpasswd:\n    realm: x\n    path: {}\n", file.display()),
    );
    let name = format!("{HOST}/team/app:1");
    let biga = |args: &[&str]| with_logins(&d, args, None);

    let denied = biga(&["image", "push", "busybox", &name]);
    assert!(denied.code != 0 && denied.err.contains("refused access"), "{denied:?}");
    let wrong = with_logins(&d, &["login", "-u", "me", "--password-stdin", HOST], Some("wrong\n"));
    assert!(wrong.code == 8 && wrong.err.contains("not logged in"), "{wrong:?}");
    assert!(!d.path().join("logins").exists(), "what was refused is not kept");
    let login = with_logins(&d, &["login", "-u", "me", "--password-stdin", HOST], Some("secret\n"));
    assert_eq!(login.ok(), format!("logged in at {HOST}"));
    let pushed = biga(&["image", "push", "busybox", &name]).ok();
    assert!(pushed.starts_with(&name) && pushed.contains("sha256:"), "{pushed}");
    d.biga(&["image", "rm", "busybox"]).ok();
    biga(&["image", "pull", "-q", &name]).ok();
    assert_eq!(
        d.biga(&["run", "--rm", "--pull", "never", &name, "echo", "hello"]).ok(),
        "hello"
    );

    // What it is made of, and that nothing refers to it yet.
    let history = d.biga(&["image", "history", &name]).ok();
    assert!(history.contains("imported") && history.contains("MiB"), "{history}");
    let detail = d
        .biga(&["image", "inspect", "--detail", "--field", "detail.sources.0", &name])
        .ok();
    assert_eq!(detail, format!("{HOST}/team/app"));
    let digest = d
        .biga(&[
            "image",
            "inspect",
            "--detail",
            "--field",
            "detail.manifest.layers.0.mediaType",
            &name,
        ])
        .ok();
    assert!(digest.contains("tar+gzip"), "{digest}");
    assert_eq!(biga(&["image", "referrers", "-o", "name", &name]).ok(), "");

    // Docker's command line asks through us, and keeps it where we then find it.
    if d.host(&["docker", "--version"]).code == 0 {
        let socket = d.run_root().join("docker.sock").display().to_string();
        let (host, config) = (
            format!("DOCKER_HOST=unix://{socket}"),
            d.path().join("docker").display().to_string(),
        );
        let config = format!("DOCKER_CONFIG={config}");
        let docker = |args: &[&str]| d.host(&[&["env", &host, &config, "docker"], args].concat());
        let wrong = docker(&["login", "-u", "me", "-p", "wrong", HOST]);
        assert!(wrong.code != 0, "{wrong:?}");
        assert!(
            docker(&["login", "-u", "me", "-p", "secret", HOST])
                .ok()
                .contains("Login Succeeded")
        );
        docker(&["push", "-q", &name]).ok();
        let sizes = docker(&["history", "--format", "{{.Size}}", &name]).ok();
        assert!(sizes.contains("MB"), "{sizes}");
    }

    assert_eq!(biga(&["logout", HOST]).ok(), format!("logged out of {HOST}"));
    assert_eq!(biga(&["logout", HOST]).code, 3);
    assert_ne!(biga(&["image", "push", &name]).code, 0);
}

#[test]
fn archives_as_directories() {
    let d = daemon();
    d.biga(&["image", "tag", "busybox", "other:v1"]).ok();
    let dir = d.path().join("layout").display().to_string();
    d.biga(&[
        "image", "save", "--format", "oci-dir", "-o", &dir, "busybox", "other:v1",
    ])
    .ok();
    assert!(Path::new(&dir).join("oci-layout").exists());
    let again = d.biga(&["image", "save", "--format", "oci-dir", "-o", &dir, "busybox"]);
    assert!(again.code != 0 && again.err.contains("not empty"), "{again:?}");
    let tags = d.host(&["skopeo", "inspect", "--raw", &format!("oci:{dir}:v1")]).ok();
    assert!(tags.contains("application/vnd.oci.image.manifest"), "{tags}");
    for name in ["busybox", "other:v1"] {
        d.biga(&["image", "rm", name]).ok();
    }
    let loaded = d.biga(&["image", "load", "-i", &dir]).ok();
    assert_eq!(loaded, "busybox:latest\nother:v1");
    assert_eq!(d.biga(&["run", "--rm", "other:v1", "echo", "back"]).ok(), "back");
    // From standard input, as skopeo packs it.
    let tar = d.path().join("theirs.tar").display().to_string();
    let (from, to) = (format!("oci:{dir}:v1"), format!("docker-archive:{tar}:theirs:7"));
    d.host(&["skopeo", "copy", "--quiet", &from, &to]).ok();
    let loaded = d.biga_with_input(&["image", "load"], &fs::read(&tar).unwrap()).ok();
    assert_eq!(loaded, "theirs:7");
    let empty = d.path().join("nothing");
    fs::create_dir(&empty).unwrap();
    let e = d.biga(&["image", "load", "-i", &empty.display().to_string()]);
    assert_ne!(e.code, 0);
}

#[test]
fn policy_and_budget() {
    let mut d = Daemon::start_with(env!("CARGO_BIN_EXE_biga"), |dir| {
        let (settings, policy) = (dir.join("images.yaml"), dir.join("policy.yaml"));
        fs::write(&settings, "loopDevices: true\n").unwrap();
        fs::write(
            &policy,
            format!("default: reject\narchives: accept\nrules:\n  {HOST}/good: accept\n  {HOST}/bad: reject\n"),
        )
        .unwrap();
        let text = |p: &Path| p.display().to_string();
        vec![
            "--image-config".into(),
            text(&settings),
            "--image-policy".into(),
            text(&policy),
        ]
    });
    let _registry = Registry::start(&d, "");
    let tar = images::busybox_tar(d.path());
    for name in ["a", "b"] {
        // Images of their own, with nothing to share.
        fs::write(d.path().join(name), name).unwrap();
        let own = d.path().join(format!("{name}.tar"));
        fs::copy(&tar, &own).unwrap();
        let own = own.display().to_string();
        d.host(&["tar", "-C", &d.path().display().to_string(), "-rf", &own, name])
            .ok();
        d.biga(&["image", "import", &own, &format!("{HOST}/good/{name}:1")])
            .ok();
        d.biga(&["image", "push", &format!("{HOST}/good/{name}:1")]).ok();
    }
    d.biga(&["image", "push", &format!("{HOST}/good/a:1"), &format!("{HOST}/bad/a:1")])
        .ok();
    let (a, b, bad) = (
        format!("{HOST}/good/a:1"),
        format!("{HOST}/good/b:1"),
        format!("{HOST}/bad/a:1"),
    );

    // The policy: from the registry, by a name that is given here, and at a run.
    let refused = d.biga(&["image", "pull", &bad]);
    assert!(refused.code != 0 && refused.err.contains("policy"), "{refused:?}");
    d.biga(&["image", "tag", &a, &bad]).ok();
    let refused = d.biga(&["run", "--rm", &bad, "true"]);
    assert!(refused.code == 125 && refused.err.contains("policy"), "{refused:?}");
    assert_eq!(d.biga(&["run", "--rm", &a, "cat", "/a"]).ok(), "a");
    d.biga(&["image", "rm", &bad]).ok();

    // A budget for one of them. Imported ones cannot be had again, so they stay; pulled ones go.
    for name in [&a, &b] {
        d.biga(&["image", "rm", name]).ok();
    }
    d.terminate();
    let budget = 3 * fs::metadata(&tar).unwrap().len() / 2;
    fs::write(
        d.path().join("images.yaml"),
        format!("diskBudget: {budget}\nloopDevices: true\n"),
    )
    .unwrap();
    d.serve();
    let names = || d.biga(&["image", "ls"]).ok();
    d.biga(&["image", "pull", "-q", &a]).ok();
    assert!(names().contains("good/a"));
    d.biga(&["image", "pull", "-q", &b]).ok();
    eventually("the older one's end", || (!names().contains("good/a")).then_some(()));
    assert!(names().contains("good/b"));
    // Events are written behind what they tell of.
    eventually("the event", || {
        d.biga(&["get", "events", "-o", "json"])
            .ok()
            .contains("Evicted")
            .then_some(())
    });
    // What an instance names is never taken, and what just came neither.
    d.biga(&["run", "-d", "--name", "user", &b, "sleep", "1000"]).ok();
    d.biga(&["image", "pull", "-q", &a]).ok();
    let both = names();
    assert!(both.contains("good/a") && both.contains("good/b"), "{both}");
    assert_eq!(d.biga(&["exec", "user", "cat", "/b"]).ok(), "b");
    d.biga(&["rm", "-f", "user"]).ok();
}

/// An image of one plain layer, served in a daemon's network; its first blob stops half-way.
struct Halting {
    halted: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Halting {
    fn start(d: &Daemon, layer: Vec<u8>) -> Halting {
        let sum = |bytes: &[u8]| {
            let file = d.path().join("to-sum");
            fs::write(&file, bytes).unwrap();
            let out = d.host(&["sha256sum", &file.display().to_string()]).ok();
            format!("sha256:{}", out.split(' ').next().unwrap())
        };
        let layer_digest = sum(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
        );
        let config_digest = sum(config.as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{}}}]}}"#,
            config.len(),
            layer.len()
        );
        let (halted, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (h, s) = (halted.clone(), stop.clone());
        let netns = fs::File::open(d.netns()).unwrap();
        std::thread::spawn(move || {
            let kind_of = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(kind_of)).unwrap();
            let listener = TcpListener::bind(HOST).unwrap();
            listener.set_nonblocking(true).unwrap();
            while !s.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let (layer, config, manifest) = (layer.clone(), config.clone(), manifest.clone());
                let (h, s, digest) = (h.clone(), s.clone(), layer_digest.clone());
                std::thread::spawn(move || {
                    let path = asked(&stream)?;
                    let (body, kind) = match path {
                        p if p.contains("/manifests/") => (manifest.into_bytes(), kind),
                        p if p.ends_with(&digest) => (layer, "application/octet-stream"),
                        p if p.contains("/blobs/") => (config.into_bytes(), "application/octet-stream"),
                        _ => (Vec::new(), "text/plain"),
                    };
                    let large = body.len() > 100_000;
                    answer(&stream, kind, &body, large && !h.load(Ordering::Relaxed), &h, &s)
                });
            }
        });
        Halting { halted, stop }
    }
}

impl Drop for Halting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The path of a request.
fn asked(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            return first.split(' ').nth(1).map(str::to_owned);
        }
    }
}

/// Answers, or half of it and then nothing until the other side is gone.
fn answer(
    mut stream: &TcpStream,
    kind: &str,
    body: &[u8],
    halt: bool,
    halted: &AtomicBool,
    stop: &AtomicBool,
) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    if !halt {
        return stream.write_all(body).ok();
    }
    stream.write_all(&body[..body.len() / 2]).ok()?;
    halted.store(true, Ordering::Relaxed);
    stream
        .set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .ok()?;
    while !stop.load(Ordering::Relaxed) {
        match (&mut stream).read(&mut [0]) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            _ => return None,
        }
    }
    None
}

#[test]
fn killed_while_it_pulls() {
    let mut d = daemon();
    let images = d.state().join("images");
    let files = |dir: &str| {
        let all = fs::read_dir(images.join(dir)).unwrap();
        let mut names: Vec<String> = all
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let before: Vec<Vec<String>> = ["layers", "blobs/sha256", "images"].map(files).into();
    let own = d.path().join("own.tar").display().to_string();
    let tar = images::busybox_tar(d.path());
    fs::copy(&tar, &own).unwrap();
    fs::write(d.path().join("mark"), "pulled").unwrap();
    d.host(&["tar", "-C", &d.path().display().to_string(), "-rf", &own, "mark"])
        .ok();
    let server = Halting::start(&d, fs::read(&own).unwrap());
    let name = format!("{HOST}/app:1");
    let mut pulling = d.command(&["image", "pull", "-q", &name]);
    let mut pulling = pulling.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("half a layer", || {
        (server.halted.load(Ordering::Relaxed) && !files("tmp").is_empty()).then_some(())
    });
    d.kill();
    // It would wait for the next daemon.
    pulling.kill().unwrap();
    pulling.wait().unwrap();
    assert!(!files("tmp").is_empty(), "the kill came too late to leave anything");
    assert_eq!(before, ["layers", "blobs/sha256", "images"].map(files));

    // The next daemon clears what was half done, and goes on with what was asked for, without being asked again.
    d.serve();
    eventually("the image", || {
        let phase = d.biga(&["image", "inspect", "--field", "status.phase", &name]).out;
        (phase.trim() == "Ready").then_some(())
    });
    assert_eq!(
        d.biga(&["run", "--rm", "--pull", "never", &name, "cat", "/mark"]).ok(),
        "pulled"
    );
    eventually("no temporary files", || files("tmp").is_empty().then_some(()));
    // Exactly one image more: three files of its layer, its manifest and config, its record.
    let more: Vec<usize> = ["layers", "blobs/sha256", "images"].map(|n| files(n).len()).into();
    let had: Vec<usize> = before.iter().map(Vec::len).collect();
    assert_eq!(more, [had[0] + 3, had[1] + 2, had[2] + 1]);
}

#[test]
fn an_image_of_127_layers_runs() {
    let d = daemon();
    let dir = d.path().join("deep");
    fs::create_dir(&dir).unwrap();
    let at = |n: &str| dir.join(n).display().to_string();
    fs::rename(images::busybox_tar(d.path()), dir.join("layer-000.tar")).unwrap();
    for i in 1..127 {
        let (file, tar) = (format!("own-{i}"), at(&format!("layer-{i:03}.tar")));
        fs::write(dir.join("top"), format!("{i}")).unwrap();
        fs::write(dir.join(&file), "x").unwrap();
        fs::write(dir.join(format!(".wh.own-{}", i - 1)), "").unwrap();
        let status = Command::new("tar")
            .args([
                "--owner=0",
                "--group=0",
                "-C",
                &dir.display().to_string(),
                "-cf",
                &tar,
                "top",
                &file,
            ])
            .arg(format!(".wh.own-{}", i - 1))
            .status()
            .unwrap();
        assert!(status.success());
    }
    let names: Vec<String> = (0..127).map(|i| format!("layer-{i:03}.tar")).collect();
    let paths: Vec<String> = names.iter().map(|n| at(n)).collect();
    let args: Vec<&str> = std::iter::once("sha256sum")
        .chain(paths.iter().map(String::as_str))
        .collect();
    let sums = d.host(&args).ok();
    let ids: Vec<String> = sums
        .lines()
        .map(|l| format!("\"sha256:{}\"", l.split(' ').next().unwrap()))
        .collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    fs::write(dir.join("config.json"), config).unwrap();
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    let list = format!(
        r#"[{{"Config":"config.json","RepoTags":["deep:1"],"Layers":[{}]}}]"#,
        quoted.join(",")
    );
    fs::write(dir.join("manifest.json"), list).unwrap();
    assert_eq!(
        d.biga(&["image", "load", "-i", &dir.display().to_string()]).ok(),
        "deep:1"
    );
    let script = "cat /top; echo; ls / | grep -c own-; ls -d /own-126; touch /new && ls /new";
    let out = d.biga(&["run", "--rm", "deep:1", "sh", "-c", script]).ok();
    assert_eq!(out, "126\n1\n/own-126\n/new");
    // A second one shares the mounts, and when both are gone so are they.
    assert_eq!(d.biga(&["run", "--rm", "deep:1", "cat", "/top"]).ok(), "126");
    d.until_clean();
}
