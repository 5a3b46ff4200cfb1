//! Files in and out of instances, and images made of them, by `biga`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use biga_testkit::{Daemon, eventually};

use super::daemon;

/// A directory of the test's own on the host.
fn desk(d: &Daemon) -> PathBuf {
    let dir = d.path().join("desk");
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn sh(d: &Daemon, name: &str, script: &str) -> String {
    d.biga(&["exec", name, "sh", "-ec", script]).ok()
}

/// Both states of a container: `run` runs it, or it was only made.
fn container(d: &Daemon, name: &str, runs: bool, more: &[&str]) {
    let verb: &[&str] = if runs { &["run", "-d"] } else { &["create"] };
    d.biga(&[verb, &["--name", name], more, &["busybox", "sleep", "1000"]].concat())
        .ok();
}

#[test]
fn copies_in_and_out_of_what_runs_and_what_does_not() {
    let d = daemon();
    let desk = desk(&d);
    let at = |p: &str| desk.join(p).display().to_string();
    fs::create_dir_all(desk.join("tree/sub")).unwrap();
    fs::write(desk.join("tree/sub/file"), "content").unwrap();
    symlink("sub/file", desk.join("tree/link")).unwrap();
    std::os::unix::fs::chown(desk.join("tree/sub/file"), Some(1000), Some(2000)).unwrap();
    fs::set_permissions(desk.join("tree/sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    d.biga(&["volume", "create", "data"]).ok();
    for (name, runs) in [("up", true), ("down", false)] {
        container(&d, name, runs, &["-v", "data:/data", "--tmpfs", "/mem"]);
        let inside = |p: &str| format!("{name}:{p}");
        // A directory into one that is there, and as one that is not; its content; a file.
        d.biga(&["cp", &at("tree"), &inside("/tmp")]).ok();
        d.biga(&["cp", "-a", &at("tree"), &inside("/root/new")]).ok();
        d.biga(&["cp", &at("tree/."), &inside("/home")]).ok();
        d.biga(&["cp", "-q", &at("tree/sub/file"), &inside("/var/renamed")])
            .ok();
        d.biga(&["cp", &at("tree/sub/file"), &inside("/data/")]).ok();
        d.biga(&["cp", "-L", &at("tree/link"), &inside("/var/www")]).ok();
        let refused = d.biga(&["cp", &at("tree"), &inside("/etc/passwd")]);
        assert!(
            refused.code == 1 && refused.err.contains("cannot copy a directory over"),
            "{refused:?}"
        );
        let refused = d.biga(&["cp", &at("tree/sub/file"), &inside("/none/")]);
        assert!(refused.code == 1 && refused.err.contains("no directory"), "{refused:?}");
        let refused = d.biga(&["cp", &at("tree/sub/file"), &inside("/none/file")]);
        assert!(refused.code == 3, "{refused:?}");
        // And out again.
        let back = desk.join(name);
        fs::create_dir(&back).unwrap();
        let to = back.display().to_string();
        for path in ["/tmp/tree", "/root/new", "/var/renamed", "/data/file", "/var/www/link"] {
            d.biga(&["cp", "-a", &inside(path), &to]).ok();
        }
        d.biga(&["cp", &inside("/home/sub/."), &format!("{to}/only")]).ok();
        let owner = |p: &str| {
            let m = fs::symlink_metadata(back.join(p)).unwrap();
            (m.uid(), m.gid(), m.mode() & 0o7777)
        };
        assert_eq!(owner("tree/sub/file"), (0, 0, 0o4750));
        assert_eq!(owner("new/sub/file"), (1000, 2000, 0o4750));
        assert_eq!(
            fs::read_link(back.join("tree/link")).unwrap().to_str(),
            Some("sub/file")
        );
        for file in ["renamed", "file", "link", "only/file", "new/link"] {
            assert_eq!(fs::read_to_string(back.join(file)).unwrap(), "content", "{file}");
        }
        // A link in the instance leads where it leads inside.
        d.biga(&["cp", "-L", &inside("/home/link"), &format!("{to}/followed")])
            .ok();
        assert!(fs::symlink_metadata(back.join("followed")).unwrap().is_file());
        // Tars.
        let tar = d.command(&["cp", &inside("/home/sub"), "-"]).output().unwrap().stdout;
        let put = d.biga_with_input(&["cp", "-", &inside("/mem")], &tar);
        // What is in memory goes with it where it does not run.
        put.ok();
        let none = d.biga(&["cp", &inside("/none"), &to]);
        assert!(none.code == 3 && none.err.contains("/none"), "{none:?}");
        if runs {
            assert_eq!(sh(&d, name, "cat /mem/sub/file /data/file"), "contentcontent");
        }
    }
    // What was put into a container that did not run is there when it does, and the volume is one.
    d.biga(&["start", "down"]).ok();
    assert_eq!(sh(&d, "down", "cat /tmp/tree/sub/file /data/file"), "contentcontent");
    assert_eq!(sh(&d, "down", "ls /mem"), "");
    // Between two instances a pipe does it.
    let refused = d.biga(&["cp", "up:/tmp", "down:/tmp"]);
    assert!(
        refused.code == 2 && refused.err.contains("both sides are instances"),
        "{refused:?}"
    );
    d.biga(&["rm", "-f", "up", "down"]).ok();
    d.until_clean();
}

#[test]
fn a_hostile_container_leads_nowhere() {
    let d = daemon();
    let desk = desk(&d);
    fs::write(desk.join("secret"), "of the host").unwrap();
    fs::write(desk.join("new"), "from the host").unwrap();
    let host = desk.join("secret").display().to_string();
    let new = desk.join("new").display().to_string();
    // It swaps a directory for a link to the host's while files are copied.
    let script = format!(
        "mkdir /a /a/dir; ln -s {} /a/link; mv /a/dir /swap; \
         while :; do mv /swap /a/dir; mv /a/link /swap; mv /swap /a/link; mv /a/dir /swap; done",
        desk.display()
    );
    d.biga(&["run", "-d", "--name", "evil", "busybox", "sh", "-c", &script])
        .ok();
    eventually("the swapping to begin", || {
        (d.biga(&["exec", "evil", "ls", "/a"]).code == 0).then_some(())
    });
    for n in 0..25 {
        let out = d.command(&["cp", "evil:/swap/secret", "-"]).output().unwrap();
        assert!(
            !String::from_utf8_lossy(&out.stdout).contains("of the host"),
            "round {n}"
        );
        d.biga(&["cp", &new, "evil:/swap/secret"]);
        assert_eq!(fs::read_to_string(&host).unwrap(), "of the host", "round {n}");
    }
    // What the kernel makes is not copied, and not by a link either.
    sh(
        &d,
        "evil",
        "ln -s /proc/self/root /up; ln -s /proc /p; ln -s /proc/1/environ /e",
    );
    for path in [
        "/proc/1/environ",
        "/p/1/environ",
        "/sys/kernel",
        "/proc/self/root/etc",
        "/up/etc/passwd",
    ] {
        let out = d.biga(&["cp", &format!("evil:{path}"), "-"]);
        assert!(out.code != 0, "{path}: {out:?}");
        let put = d.biga(&["cp", &new, &format!("evil:{path}")]);
        assert!(put.code != 0, "{path}: {put:?}");
    }
    let whole = d.command(&["export", "evil"]).output().unwrap();
    assert!(whole.status.success());
    assert!(!whole.stdout.windows(11).any(|w| w == b"of the host"));
    d.biga(&["rm", "-f", "evil"]).ok();
    d.until_clean();
}

#[test]
fn what_is_read_only_says_so() {
    let d = daemon();
    let desk = desk(&d);
    fs::write(desk.join("f"), "x").unwrap();
    let f = desk.join("f").display().to_string();
    let bind = format!("{}:/ro:ro", desk.display());
    for (name, runs) in [("up", true), ("down", false)] {
        container(&d, name, runs, &["--read-only", "-v", &bind, "--tmpfs", "/mem"]);
        for path in ["/tmp", "/ro/new"] {
            let refused = d.biga(&["cp", &f, &format!("{name}:{path}")]);
            assert!(
                refused.code == 8 && refused.err.contains("read-only"),
                "{name} {path}: {refused:?}"
            );
        }
        d.biga(&["cp", &f, &format!("{name}:/mem")]).ok();
    }
    assert!(!desk.join("new").exists());
    d.biga(&["rm", "-f", "up", "down"]).ok();
}

#[test]
fn changes_become_an_image() {
    let d = daemon();
    for runs in [true, false] {
        d.biga(&[
            "run", "-d", "--name", "work", "-v", "vol:/vol", "-e", "A=1", "busybox", "sleep", "1000",
        ])
        .ok();
        assert_eq!(d.biga(&["diff", "work"]).ok(), "A /vol");
        sh(
            &d,
            "work",
            "echo more >> /etc/passwd; rm /var/www/index.html; mkdir /new; echo n > /new/f; echo v > /vol/f",
        );
        if !runs {
            d.biga(&["stop", "-t", "0", "work"]).ok();
        }
        let want = "C /etc\nC /etc/passwd\nA /new\nA /new/f\nC /var\nC /var/www\nD /var/www/index.html\nA /vol";
        assert_eq!(d.biga(&["diff", "work"]).ok(), want);
        d.biga(&[
            "commit",
            "-m",
            "why",
            "-a",
            "Ann",
            "-c",
            r#"CMD ["cat", "/new/f"]"#,
            "-c",
            "ENV B=2",
            "-c",
            "LABEL x=y",
            "work",
            "made:1",
        ])
        .ok();
        assert_eq!(d.biga(&["run", "--rm", "made:1"]).ok(), "n");
        let script = "echo $A$B$FLAVOR; tail -n1 /etc/passwd; ls /var/www /vol";
        let seen = d.biga(&["run", "--rm", "made:1", "sh", "-c", script]).ok();
        assert_eq!(seen, "12plain\nmore\n/var/www:\n\n/vol:");
        let bad = d.biga(&["commit", "-c", "RUN x", "work", "bad:1"]);
        assert!(bad.err.contains("RUN is not a change"), "{bad:?}");
        // It goes to an archive and comes back.
        let tar = d.path().join("made.tar").display().to_string();
        d.biga(&["image", "save", "-o", &tar, "made:1"]).ok();
        d.biga(&["rm", "-f", "work"]).ok();
        d.biga(&["image", "rm", "made:1"]).ok();
        d.biga(&["image", "load", "-i", &tar]).ok();
        assert_eq!(d.biga(&["run", "--rm", "made:1"]).ok(), "n");
        d.biga(&["image", "rm", "made:1"]).ok();
    }
    d.until_clean();
}

#[test]
fn an_image_of_an_image_of_an_image() {
    let d = daemon();
    let mut from = "busybox".to_string();
    for n in 0..4 {
        d.biga(&[
            "run",
            "--name",
            "step",
            &from,
            "sh",
            "-c",
            &format!("rm -f /gone; echo {n} > /step{n}; echo x > /gone"),
        ])
        .ok();
        from = format!("step:{n}");
        d.biga(&["commit", "--pause=false", "step", &from]).ok();
        d.biga(&["rm", "step"]).ok();
    }
    assert_eq!(
        d.biga(&[
            "run",
            "--rm",
            "step:3",
            "sh",
            "-c",
            "cat /step0 /step1 /step2 /step3 /gone"
        ])
        .ok(),
        "0\n1\n2\n3\nx"
    );
    d.biga(&["create", "--name", "last", "step:3", "true"]).ok();
    assert_eq!(d.biga(&["diff", "last"]).ok(), "");
}

#[test]
fn exports_hold_the_root_and_no_volumes() {
    let d = daemon();
    for (name, runs) in [("up", true), ("down", false)] {
        container(&d, name, true, &["-v", "vol:/vol", "--tmpfs", "/mem"]);
        sh(
            &d,
            name,
            "echo v > /vol/f; echo m > /mem/f; echo r > /root/f; rm /var/www/index.html",
        );
        if !runs {
            d.biga(&["stop", "-t", "0", name]).ok();
        }
        let file = d.path().join(format!("{name}.tar"));
        d.biga(&["export", "-o", &file.display().to_string(), name]).ok();
        let list = d.host(&["tar", "-tf", &file.display().to_string()]).ok();
        let has = |n: &str| list.lines().any(|l| l == n);
        assert!(
            has("root/f") && has("bin/busybox") && has("vol/") && has("proc/") && has("etc/hosts"),
            "{list}"
        );
        let bad = ["vol/f", "mem/f", "var/www/index.html", "dev/null"];
        assert!(bad.iter().all(|n| !has(n)) && !list.contains("proc/1"), "{list}");
        // It makes an image.
        let image = format!("exported:{name}");
        d.biga(&["image", "import", &file.display().to_string(), &image]).ok();
        assert_eq!(d.biga(&["run", "--rm", &image, "cat", "/root/f"]).ok(), "r");
    }
    d.biga(&["rm", "-f", "up", "down"]).ok();
    d.until_clean();
}

#[test]
fn starts_and_copies_do_not_meet() {
    let d = daemon();
    container(&d, "c", false, &[]);
    // A tar that stops half-way keeps the instance from starting only for a while.
    let dir = desk(&d);
    fs::write(dir.join("a-first"), "x").unwrap();
    fs::write(dir.join("b-second"), vec![7; 2 << 20]).unwrap();
    let tar = dir.join("x.tar").display().to_string();
    d.host(&[
        "tar",
        "-C",
        &dir.display().to_string(),
        "-cf",
        &tar,
        "a-first",
        "b-second",
    ])
    .ok();
    let half = fs::read(&tar).unwrap()[..1 << 20].to_vec();
    let mut slow = d.command(&["cp", "-", "c:/tmp"]);
    slow.stdin(std::process::Stdio::piped());
    slow.stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut slow = slow.spawn().unwrap();
    let mut input = slow.stdin.take().unwrap();
    input.write_all(&half).unwrap();
    let uid = d.field("c", &["metadata", "uid"]);
    let first = d.state().join("instances").join(uid).join("upper/tmp/a-first");
    eventually("the copy to begin", || first.exists().then_some(()));
    d.biga(&["start", "c"]).ok();
    eventually("the slow copy to be ended", || slow.try_wait().unwrap());
    drop(input);
    assert_eq!(sh(&d, "c", "echo runs"), "runs");
    sh(&d, "c", "rm /tmp/*");
    // Many at once, while it starts and stops.
    let f = dir.join("f");
    fs::write(&f, "x").unwrap();
    std::thread::scope(|s| {
        for n in 0..4 {
            let (d, f) = (&d, &f);
            s.spawn(move || {
                for m in 0..4 {
                    let to = format!("c:/tmp/{n}-{m}");
                    d.biga(&["cp", &f.display().to_string(), &to]).ok();
                }
            });
        }
        for _ in 0..3 {
            d.biga(&["restart", "-t", "0", "c"]).ok();
        }
    });
    assert_eq!(sh(&d, "c", "ls /tmp | wc -l"), "16");
    d.biga(&["rm", "-f", "c"]).ok();
    d.until_clean();
}

#[test]
fn a_machines_files_are_out_of_reach_and_it_says_what_to_do() {
    let d = daemon();
    let f = desk(&d).join("f");
    fs::write(&f, vec![0; 1 << 20]).unwrap();
    let f = f.display().to_string();
    d.biga(&["image", "import", "--format", "raw", &f, "disk:1"]).ok();
    d.biga(&["create", "--name", "machine", "--isolation", "vm", "disk:1"])
        .ok();
    d.biga(&["create", "--name", "small", "--isolation", "microvm", "busybox", "true"])
        .ok();
    // A microvm's are within its own reach alone, while it runs.
    for (name, words) in [
        ("machine", ["is a machine", "volume"]),
        ("small", ["is not running", "must run"]),
    ] {
        let refusals = [
            d.biga(&["cp", &format!("{name}:/etc/passwd"), "-"]),
            d.biga(&["cp", &f, &format!("{name}:/tmp")]),
            d.biga(&["diff", name]),
            d.biga(&["export", "-o", &format!("{f}.tar"), name]),
            d.biga(&["commit", name, "x:1"]),
        ];
        for r in refusals {
            assert!(r.code != 0 && words.iter().all(|w| r.err.contains(w)), "{r:?}");
        }
        d.biga(&["rm", name]).ok();
    }
}

#[test]
fn the_user_of_a_container_can_be_given_what_is_copied() {
    let d = daemon();
    let uid = "app";
    d.biga(&["run", "-d", "--name", "c", "-u", uid, "busybox", "sleep", "1000"])
        .ok();
    let dir = desk(&d);
    fs::write(dir.join("f"), "x").unwrap();
    d.host(&[
        "tar",
        "-C",
        &dir.display().to_string(),
        "-czf",
        &format!("{}/f.tgz", dir.display()),
        "f",
    ])
    .ok();
    let api = d.run_root().join("api.sock").display().to_string();
    let url = "http://biga/apis/biga.dev/v1/namespaces/default/instances/c/files?path=/tmp&toUser=true";
    let tgz = format!("@{}/f.tgz", dir.display());
    d.host(&["curl", "-sf", "--unix-socket", &api, "-T", &tgz[1..], url])
        .ok();
    assert_eq!(
        d.biga(&["exec", "-u", "0", "c", "stat", "-c", "%u:%g", "/tmp/f"]).ok(),
        "1000:1000"
    );
}

#[test]
fn ids_of_its_own_are_told_as_the_container_knows_them() {
    let d = daemon();
    let desk = desk(&d);
    fs::write(desk.join("f"), "x").unwrap();
    std::os::unix::fs::chown(desk.join("f"), Some(1000), Some(2000)).unwrap();
    let f = desk.join("f").display().to_string();
    let options = ["--userns", "private", "--tmpfs", "/mem", "-v", "vol:/vol"];
    container(&d, "own", true, &options);
    for dir in ["tmp", "mem", "vol"] {
        d.biga(&["cp", "-a", &f, &format!("own:/{dir}")]).ok();
        d.biga(&["cp", &f, &format!("own:/{dir}/root")]).ok();
        let seen = sh(&d, "own", &format!("stat -c %u:%g /{dir}/f /{dir}/root"));
        assert_eq!(seen, "1000:2000\n0:0", "{dir}");
        d.biga(&[
            "cp",
            "-a",
            &format!("own:/{dir}/f"),
            &format!("{}/{dir}", desk.display()),
        ])
        .ok();
        let m = fs::metadata(desk.join(dir)).unwrap();
        assert_eq!((m.uid(), m.gid()), (1000, 2000), "{dir}");
    }
    assert_eq!(
        d.biga(&["diff", "own"]).ok(),
        "A /mem\nC /tmp\nA /tmp/f\nA /tmp/root\nA /vol"
    );
    // The same where it does not run, and in an image of it, whose containers may have the host's ids.
    d.biga(&["stop", "-t", "0", "own"]).ok();
    d.biga(&["cp", "-a", &f, "own:/var"]).ok();
    d.biga(&["commit", "own", "made:1"]).ok();
    d.biga(&["start", "own"]).ok();
    assert_eq!(sh(&d, "own", "stat -c %u:%g /var/f /tmp/f"), "1000:2000\n1000:2000");
    let seen = d
        .biga(&["run", "--rm", "made:1", "stat", "-c", "%u:%g", "/tmp/f", "/var/f"])
        .ok();
    assert_eq!(seen, "1000:2000\n1000:2000");
    let out = d.command(&["export", "own"]).output().unwrap();
    let tar = desk.join("own.tar");
    fs::write(&tar, out.stdout).unwrap();
    let list = d
        .host(&[
            "tar",
            "--numeric-owner",
            "-tvf",
            &tar.display().to_string(),
            "var/f",
            "bin/busybox",
        ])
        .ok();
    assert!(list.contains("1000/2000") && list.contains("0/0"), "{list}");
    d.biga(&["rm", "-f", "own"]).ok();
    d.until_clean();
}
