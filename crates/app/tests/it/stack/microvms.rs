//! The same image under a kernel of its own.

use std::path::PathBuf;
use std::process::Command;

use biga_testkit::{Daemon, eventually};

use super::daemon;

/// Debian's cloud kernel package, fetched once for all tests.
fn kernel_package() -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kernel-package");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let find = || {
        let files = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path());
        files.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb"))
    };
    if find().is_none() {
        let script = "set -e; d=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1); apt-get download \"$d\"";
        let out = Command::new("sh")
            .args(["-c", script])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    find().expect("a kernel package").display().to_string()
}

pub(super) fn with_kernel() -> Daemon {
    let d = daemon();
    d.biga(&[
        "setup",
        "--state",
        &d.state().display().to_string(),
        "--kernel-deb",
        &kernel_package(),
    ])
    .ok();
    d
}

#[test]
fn one_image_as_container_and_as_microvm() {
    let d = with_kernel();
    let r = d.biga(&[
        "run",
        "--rm",
        "--isolation",
        "microvm",
        "busybox",
        "sh",
        "-c",
        "uname -r; echo err >&2; exit 3",
    ]);
    assert_eq!((r.code, r.err.as_str()), (3, "err\n"), "{r:?}");
    let host = d.host(&["uname", "-r"]).ok();
    assert_ne!(r.out.trim(), host, "it has a kernel of its own");

    let serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/var/www"];
    d.biga(&[&["run", "-d", "--name", "web"], &serve[..]].concat()).ok();
    d.biga(
        &[
            &[
                "run",
                "-d",
                "--name",
                "vmweb",
                "--isolation",
                "microvm",
                "-p",
                "8081:80",
            ],
            &serve[..],
        ]
        .concat(),
    )
    .ok();
    d.until_phase("vmweb", "Running");
    let get = |from: &str, to: &str| {
        eventually(&format!("{to} from {from}"), || {
            let url = format!("http://{to}/index.html");
            (d.biga(&["exec", from, "wget", "-q", "-O", "-", &url]).out == "hello from biga\n").then_some(())
        });
    };
    get("web", "vmweb");
    get("vmweb", "web");
    eventually("the published port", || {
        let r = d.host(&[
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8081/index.html",
        ]);
        (r.out == "hello from biga\n").then_some(())
    });
    assert_eq!(d.biga(&["exec", "vmweb", "sh", "-c", "exit 6"]).code, 6);
    assert!(d.biga(&["ps"]).ok().contains("microvm"));
    let sample: serde_json::Value =
        serde_json::from_str(&d.biga(&["stats", "--no-stream", "-o", "json", "vmweb"]).ok()).unwrap();
    let stats = &sample["stats"];
    assert!(
        stats["netRx"].as_u64() > Some(0) && stats["netTx"].as_u64() > Some(0),
        "its traffic is counted: {stats}"
    );

    // The dial: the same instance, the other way, with its address.
    let address = d.field("vmweb", &["status", "networks"]);
    d.biga(&["stop", "-t", "1", "vmweb"]).ok();
    d.until_phase("vmweb", "Exited");
    d.biga(&["update", "vmweb", "--isolation", "container"]).ok();
    d.biga(&["start", "vmweb"]).ok();
    d.until_phase("vmweb", "Running");
    assert_eq!(d.biga(&["exec", "vmweb", "uname", "-r"]).ok(), host);
    assert_eq!(d.field("vmweb", &["status", "networks"]), address);
    d.biga(&["rm", "-f", "web", "vmweb"]).ok();
    d.until_clean();
}

#[test]
fn a_microvm_outlives_the_daemon() {
    let mut d = with_kernel();
    let script = "echo up; while [ ! -e /root/go ]; do sleep 0.1; done; exit 11";
    d.biga(&[
        "run",
        "-d",
        "--name",
        "vm",
        "--isolation",
        "microvm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    eventually("its first line", || {
        (d.biga(&["logs", "vm"]).out == "up\n").then_some(())
    });
    let pid = d.field("vm", &["status", "pid"]);
    d.kill();
    d.serve();
    assert_eq!(
        (d.field("vm", &["status", "phase"]), d.field("vm", &["status", "pid"])),
        ("Running".into(), pid)
    );
    d.biga(&[
        "exec",
        "vm",
        "sh",
        "-c",
        "echo from the guest > /data/note; touch /root/go",
    ])
    .ok();
    d.until_phase("vm", "Exited");
    assert_eq!(d.field("vm", &["status", "exitCode"]), "11");
    // The volume is the same data for the other isolation.
    assert_eq!(
        d.biga(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/note"])
            .ok(),
        "from the guest"
    );
}

/// Its init works on its files, as the engine does on a container's.
#[test]
fn files_of_a_microvm_go_in_and_out() {
    let d = with_kernel();
    // Two layers, so that what changed is told against both.
    let script = "echo two >/two; ln -s /two /link; mkdir /dir; touch /dir/x";
    d.biga(&["run", "--name", "base", "busybox", "sh", "-c", script]).ok();
    d.biga(&["commit", "base", "two:1"]).ok();
    d.biga(&["rm", "base"]).ok();
    let options = ["--isolation", "microvm", "-v", "data:/data", "-u", "app"];
    d.biga(
        &[
            &["run", "-d", "--name", "vm"],
            &options[..],
            &["two:1", "sleep", "10000"],
        ]
        .concat(),
    )
    .ok();
    d.until_phase("vm", "Running");
    let sh = |script: &str| d.biga(&["exec", "-u", "0", "vm", "sh", "-c", script]).ok();

    let desk = d.path().join("desk");
    std::fs::create_dir_all(desk.join("tree/sub")).unwrap();
    let at = |name: &str| desk.join(name).display().to_string();
    // Many times what may be on its way at once, in both directions.
    let large: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(at("large"), &large).unwrap();
    std::fs::write(at("tree/sub/f"), "in a tree").unwrap();
    std::os::unix::fs::symlink("sub/f", at("tree/l")).unwrap();
    std::os::unix::fs::chown(at("tree/sub/f"), Some(1234), Some(4321)).unwrap();

    d.biga(&["cp", &at("large"), "vm:/tmp/large"]).ok();
    let sum = |text: String| text.split(' ').next().unwrap().to_owned();
    let here = d.host(&["md5sum", &at("large")]).ok();
    assert_eq!(sum(sh("md5sum /tmp/large")), sum(here));
    d.biga(&["cp", "vm:/tmp/large", &at("back")]).ok();
    assert!(std::fs::read(at("back")).unwrap() == large);
    d.biga(&["cp", "-a", &at("tree"), "vm:/dir"]).ok();
    d.biga(&["cp", &format!("{}/.", at("tree")), "vm:/data"]).ok();
    let seen = sh("cat /dir/tree/l /data/sub/f; echo; readlink /data/l; stat -c %u:%g /dir/tree/sub/f /data/sub/f");
    assert_eq!(seen, "in a treein a tree\nsub/f\n1234:4321\n0:0");
    // What is in a volume is there for all.
    assert_eq!(
        d.biga(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/l"])
            .ok(),
        "in a tree"
    );
    let packed = at("tree.tgz");
    d.host(&["tar", "-C", &at(""), "-czf", &packed, "tree"]).ok();
    let tgz = std::fs::read(&packed).unwrap();
    d.biga_with_input(&["cp", "-", "vm:/root"], &tgz).ok();
    assert_eq!(sh("cat /root/tree/sub/f"), "in a tree");
    // For its user, by the API.
    let api = d.run_root().join("api.sock").display().to_string();
    let url = "http://biga/apis/biga.dev/v1/namespaces/default/instances/vm/files?path=/var&toUser=true";
    d.host(&["curl", "-sf", "--unix-socket", &api, "-T", &packed, url]).ok();
    assert_eq!(sh("stat -c %u:%g /var/tree/sub/f"), "1000:1000");

    // Out, links as what they are or followed.
    d.biga(&["cp", "vm:/link", &at("link")]).ok();
    assert_eq!(std::fs::read_link(at("link")).unwrap(), std::path::Path::new("/two"));
    d.biga(&["cp", "-L", "vm:/link", &at("followed")]).ok();
    assert_eq!(std::fs::read_to_string(at("followed")).unwrap(), "two\n");
    let tar = d.command(&["cp", "vm:/dir/tree", "-"]).output().unwrap();
    assert!(tar.status.success());
    std::fs::write(at("out.tar"), tar.stdout).unwrap();
    let list = d.host(&["tar", "-tf", &at("out.tar")]).ok();
    assert_eq!(list, "tree/\ntree/l\ntree/sub/\ntree/sub/f");
    for (args, word) in [
        (vec!["cp", "vm:/none", "-"], "no such file"),
        (vec!["cp", "vm:/proc/cpuinfo", "-"], "made by the kernel"),
        (vec!["cp", &packed, "vm:/two/x"], "not a directory"),
    ] {
        let r = d.biga(&args);
        assert!(r.code != 0 && r.err.to_lowercase().contains(word), "{args:?}: {r:?}");
    }
    // Half a tar is no success, and says so.
    let r = d.biga_with_input(&["cp", "-", "vm:/root"], &tgz[..tgz.len() / 2]);
    assert_ne!(r.code, 0, "{r:?}");

    if d.host(&["docker", "--version"]).code == 0 {
        let socket = format!("DOCKER_HOST=unix://{}", d.run_root().join("docker.sock").display());
        let docker = |args: &[&str]| d.host(&[&["env", &socket, "docker"], args].concat());
        docker(&["cp", &at("followed"), "vm:/tmp/docker"]).ok();
        assert_eq!(sh("cat /tmp/docker"), "two");
        docker(&["cp", "vm:/dir/tree/sub/f", &at("docker")]).ok();
        assert_eq!(std::fs::read_to_string(at("docker")).unwrap(), "in a tree");
        assert!(docker(&["diff", "vm"]).ok().contains("A /tmp/docker"));
    }

    // What differs from the image, as a list and as an image; and all of it.
    sh("rm -r /two /tmp/docker /root/tree /var/tree; rm /dir/x; echo more >/dir/more");
    let diff = d.biga(&["diff", "vm"]).ok();
    let want = "A /data\nC /dir\nA /dir/more\nA /dir/tree\nA /dir/tree/l\nA /dir/tree/sub\nA /dir/tree/sub/f\nD /dir/x\nC /root\nC /tmp\nA /tmp/large\nD /two\nC /var";
    assert_eq!(diff, want);
    d.biga(&["commit", "-c", "CMD [\"cat\", \"/dir/more\"]", "vm", "made:1"])
        .ok();
    assert_eq!(d.biga(&["run", "--rm", "-u", "0", "made:1"]).ok(), "more");
    assert_ne!(d.biga(&["run", "--rm", "made:1", "ls", "/two"]).code, 0);
    d.biga(&["export", "-o", &at("all.tar"), "vm"]).ok();
    let all = d.host(&["tar", "-tf", &at("all.tar")]).ok();
    let has = |name: &str| all.lines().any(|l| l == name);
    assert!(
        has("bin/busybox") && has("dir/more") && has("data/") && !has("data/l") && !has("two"),
        "{all}"
    );

    // Who leaves before the end leaves nothing behind inside.
    let processes = "ls -d /proc/[0-9]* | while read p; do [ -s $p/cmdline ] && echo; done | wc -l";
    let before = sh(processes);
    let export = format!("{} export vm | head -c 100000 | wc -c", env!("CARGO_BIN_EXE_biga"));
    let mut leaving = d.host_command(&["sh", "-c", &export]);
    leaving.env("BIGA_HOST", format!("unix://{api}"));
    assert!(leaving.status().unwrap().success());
    eventually("the end of the work", || (sh(processes) == before).then_some(()));

    d.biga(&["pause", "vm"]).ok();
    let r = d.biga(&["cp", "vm:/link", "-"]);
    assert!(r.code != 0 && r.err.contains("paused"), "{r:?}");
    d.biga(&["unpause", "vm"]).ok();
    d.biga(&["rm", "-f", "vm"]).ok();
    d.until_clean();
}
