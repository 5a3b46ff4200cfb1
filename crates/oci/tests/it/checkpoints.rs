//! `checkpoint` and `restore` with the options of `runc`: the same by ours and by `runc`. Where CRIU does not work, its reason.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Bundle, Runtime, until};

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; echo $i >/data/n; sleep 0.02; done";

fn criu_works() -> bool {
    let check = Command::new("criu")
        .arg("check")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    check.is_ok_and(|s| s.success())
}

/// A container that counts into a pipe whose end is a file.
struct Counting {
    bundle: Bundle,
    pipes: Vec<std::process::Child>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.bundle.call(&["delete", "-f", &self.bundle.id]);
        for pipe in &mut self.pipes {
            // They end with the last process that writes to them.
            let _ = pipe.wait();
        }
    }
}

impl Counting {
    fn new(runtime: Runtime) -> Counting {
        let bundle = Bundle::sh(runtime, COUNT).with(|c, dir| {
            fs::create_dir_all(dir.join("data")).unwrap();
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({"destination": "/data", "type": "bind", "source": dir.join("data"), "options": ["bind", "rw"]}),
            );
        });
        Counting {
            bundle,
            pipes: Vec::new(),
        }
    }

    /// A command whose output goes through a pipe into the file. `runc` cannot save what writes to files of the host.
    fn by_pipe(&mut self, args: &[&str]) {
        let log = self.bundle.dir.join("log");
        let to = File::options().create(true).append(true).open(&log).unwrap();
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(to).spawn().unwrap();
        let pipe: OwnedFd = cat.stdin.take().unwrap().into();
        let also = pipe.try_clone().unwrap();
        let status = self.bundle.command(args).stdout(pipe).stderr(also).status().unwrap();
        self.pipes.push(cat);
        assert!(status.success(), "{args:?}: {}", fs::read_to_string(log).unwrap());
    }

    fn counted(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.bundle.dir.join("log")).unwrap_or_default();
        text.lines().filter_map(|l| l.parse().ok()).collect()
    }

    fn counts_beyond(&self, n: usize) -> usize {
        until("the count to go on", || Some(self.counted().len()).filter(|l| *l > n))
    }

    fn status(&self) -> Option<String> {
        let out = self.bundle.call(&["state", &self.bundle.id]).out;
        let state: serde_json::Value = serde_json::from_str(&out).ok()?;
        state["status"].as_str().map(str::to_owned)
    }
}

fn goes_on(runtime: Runtime) {
    let mut c = Counting::new(runtime);
    c.bundle.write();
    let id = c.bundle.id.clone();
    let bundle = c.bundle.dir.to_str().unwrap().to_owned();
    c.by_pipe(&["run", "-d", "--bundle", &bundle, &id]);
    c.counts_beyond(3);
    if !criu_works() {
        // Then it is said, and nothing else happens.
        c.bundle.call(&["checkpoint", &id]).refused("CRIU");
        c.counts_beyond(c.counted().len());
        return;
    }
    let image = c.bundle.dir.join("image");
    let work = c.bundle.dir.join("work");
    let paths = [
        "--image-path",
        image.to_str().unwrap(),
        "--work-path",
        work.to_str().unwrap(),
    ];
    let with = |verb: &'static str, more: &[&'static str]| -> Vec<String> {
        let words = std::iter::once(verb).chain(paths).chain(more.iter().copied());
        words.map(str::to_owned).chain([id.clone()]).collect()
    };
    let call = |words: &[String]| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        c.bundle.call(&words)
    };
    let left = call(&with("checkpoint", &["--leave-running"]));
    let said = fs::read_to_string(work.join("dump.log")).unwrap_or_default();
    let said: Vec<&str> = said.lines().filter(|l| l.contains("Error")).collect();
    assert_eq!(left.code, Some(0), "{left:?} {said:#?}");
    assert_eq!(c.status().as_deref(), Some("running"));
    c.counts_beyond(c.counted().len());
    fs::remove_dir_all(&image).unwrap();
    let saved = call(&with("checkpoint", &[]));
    assert_eq!(saved.code, Some(0), "{saved:?}");
    assert_eq!(c.status(), None, "it is gone");
    let at = c.counted().len();
    let pid_file = c.bundle.dir.join("pid");
    let bundle = c.bundle.dir.to_str().unwrap().to_owned();
    let mut words = with("restore", &["-d"]);
    words.pop();
    words.extend([
        "--bundle".into(),
        bundle,
        "--pid-file".into(),
        pid_file.to_str().unwrap().into(),
        id.clone(),
    ]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    c.by_pipe(&words);
    c.counts_beyond(at + 3);
    let all = c.counted();
    let wanted: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, wanted, "nothing is lost or said twice");
    assert_eq!(c.status().as_deref(), Some("running"));
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    // It is empty for a moment, each time it is written.
    let seen: u64 = until("the number in the bind", || {
        c.bundle.call(&["exec", &id, "cat", "/data/n"]).ok().trim().parse().ok()
    });
    assert!(seen > at as u64, "{seen} {at}");
}

#[test]
fn ours_goes_on() {
    goes_on(Runtime::Ours);
}

#[test]
fn runc_goes_on() {
    if criu_works() {
        goes_on(Runtime::Runc);
    }
}

#[test]
fn it_says_why_it_failed_and_leaves_it_running() {
    let mut c = Counting::new(Runtime::Ours);
    c.bundle.write();
    let id = c.bundle.id.clone();
    let dir = c.bundle.dir.clone();
    let bundle = dir.to_str().unwrap();
    let broken = dir.join("criu");
    fs::write(
        &broken,
        "#!/bin/sh\necho '(00.1) Error (criu/x.c:1): no room in here' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    c.by_pipe(&["run", "-d", "--bundle", bundle, &id]);
    c.counts_beyond(1);
    let with = |criu: &str, args: &[&str]| {
        let words: Vec<&str> = ["--criu", criu].into_iter().chain(args.iter().copied()).collect();
        c.bundle.call(&words)
    };
    let failed = with(broken.to_str().unwrap(), &["checkpoint", &id]);
    assert_ne!(failed.code, Some(0));
    assert!(
        failed.err.contains("CRIU cannot save it: no room in here"),
        "{failed:?}"
    );
    assert!(failed.err.contains("dump.log"), "{failed:?}");
    let missing = with("/nonexistent/criu", &["checkpoint", &id]);
    assert!(missing.err.contains("CRIU is not installed"), "{missing:?}");
    let absent = c.bundle.call(&["checkpoint", "--lazy-pages", &id]);
    assert!(absent.err.contains("--lazy-pages is not supported"), "{absent:?}");
    assert_eq!(c.status().as_deref(), Some("running"));
    c.counts_beyond(c.counted().len());
    let other = format!("{id}-other");
    let restored = with(
        broken.to_str().unwrap(),
        &["restore", "-d", "--image-path", "nothing", &other],
    );
    assert!(restored.err.contains("checkpoint.json"), "{restored:?}");
    assert_eq!(c.bundle.call(&["checkpoint", "--help"]).code, Some(0), "engines ask so");
}
