//! A shim with a container on a root file system of busybox, and a client of its socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use biga_container::cgroup::Version;
use biga_wire::config::{self, Container, Layer, Limits, Log, OciRuntime, Pod, PodContainer, Process, ShimConfig};
use biga_wire::shim::{ContainerStatus, Event, ExecSpec, Exit, Reply, Request, State, Status};
use biga_wire::{Frame, FrameKind};

/// How long anything may take: long, for an init system in an emulated guest.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Capabilities Docker gives.
pub const DEFAULT_CAPS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Polls until it answers something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(t) = probe() {
            return t;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shim and all that belongs to it; everything goes when it is dropped.
pub struct Rig {
    pub config: ShimConfig,
    pub dir: PathBuf,
    pub prefix: String,
    shim: Option<Child>,
    _temp: tempfile::TempDir,
}

impl Rig {
    /// A container that runs `args`, not yet made.
    pub fn new(args: &[&str]) -> Rig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let temp = tempfile::Builder::new().prefix("shim").tempdir().unwrap();
        let dir = temp.path().to_owned();
        let uid = format!("u{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let prefix = format!("bigatest-{uid}");
        for d in ["run", "state", "layer/bin", "layer/etc", "layer/tmp", "layer/root"] {
            std::fs::create_dir_all(dir.join(d)).unwrap();
        }
        let layer = dir.join("layer");
        std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "true", "false", "cat", "echo", "id", "ls", "sleep", "env", "pwd", "dd", "head", "wc", "kill",
            "hostname", "mount", "umount", "stat", "ps", "seq", "tty", "stty", "touch", "chmod", "ln", "mkdir",
            "readlink", "unshare", "trap", "grep", "yes", "ip", "md5sum", "test", "printf", "mknod",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:44:web\n").unwrap();
        let container = Container {
            process: Process {
                args: args.iter().map(|a| (*a).to_owned()).collect(),
                env: vec!["PATH=/bin".into()],
                cwd: "/".into(),
                ..Process::default()
            },
            layers: vec![Layer {
                file: dir.join("layer.erofs"),
                mount: Some(layer),
            }],
            hostname: "box".into(),
            hosts: "127.0.0.1 localhost\n".into(),
            resolv_conf: "nameserver 192.0.2.1\n".into(),
            capabilities: DEFAULT_CAPS.iter().map(|c| (*c).to_owned()).collect(),
            seccomp: true,
            ..Container::default()
        };
        let config = ShimConfig {
            uid: uid.clone(),
            name: "test".into(),
            run_dir: dir.join("run"),
            state_dir: dir.join("state"),
            log: Log {
                path: Some(dir.join("log")),
                ..Log::default()
            },
            start: true,
            wait_attach_ms: 0,
            cgroup: format!("{prefix}/{uid}"),
            limits: Limits::default(),
            workload: config::Workload::Container(Box::new(container)),
        };
        Rig {
            config,
            dir,
            prefix,
            shim: None,
            _temp: temp,
        }
    }

    /// A pod of containers, each with a name and a shell script, that were not started.
    pub fn pod(containers: &[(&str, &str)]) -> Rig {
        let mut rig = Rig::new(&["true"]);
        let config::Workload::Container(first) = rig.config.workload.clone() else {
            unreachable!("the rig holds a container");
        };
        let of = |(name, script): &(&str, &str)| {
            for dir in ["run", "state"] {
                std::fs::create_dir_all(PodContainer::dir(&rig.dir.join(dir), name)).unwrap();
            }
            let mut container = (*first).clone();
            container.process.args = ["sh", "-c", script].map(str::to_owned).into();
            PodContainer {
                name: (*name).to_owned(),
                log: Log {
                    path: Some(rig.dir.join(format!("log-{name}"))),
                    ..Log::default()
                },
                container,
                ..PodContainer::default()
            }
        };
        let pod = Pod {
            containers: containers.iter().map(of).collect(),
            main: containers[0].0.to_owned(),
            hostname: "podbox".into(),
            ..Pod::default()
        };
        rig.config.log = Log::default();
        rig.config.workload = config::Workload::Pod(Box::new(pod));
        rig
    }

    /// Changes the pod before it is made.
    pub fn with_pod(mut self, change: impl FnOnce(&mut Pod)) -> Rig {
        match &mut self.config.workload {
            config::Workload::Pod(p) => change(p),
            _ => unreachable!("the rig holds no pod"),
        }
        self
    }

    /// Starts a container of the pod.
    pub fn start(&self, container: &str) {
        match self.ask(Request::Start.of(Some(container))) {
            Reply::Status { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// State of a container of the pod.
    pub fn container(&self, name: &str) -> ContainerStatus {
        let all = self.status().containers;
        all.into_iter().find(|c| c.name == name).unwrap()
    }

    /// Waits for the end of a container of the pod.
    pub fn wait_for(&self, name: &str) -> Exit {
        until(&format!("the end of {name}"), || {
            let c = self.container(name);
            c.exit.filter(|_| c.state == State::Exited)
        })
    }

    /// Runs a command in a container of the pod: exit and standard output.
    pub fn exec_in(&self, container: &str, args: &[&str]) -> (Exit, String) {
        let mut c = self.connect();
        let exec = Request::Exec {
            exec: Box::new(spec(args)),
        };
        match c.ask(&exec.of(Some(container))) {
            Reply::Exec { .. } => {
                let (exit, out, err) = c.collect();
                assert_eq!(err, "", "{args:?}");
                (exit, out)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Text of the log of a container of the pod.
    pub fn log_of(&self, name: &str) -> String {
        log_text(&self.dir.join(format!("log-{name}")))
    }

    /// A container that runs a shell script.
    pub fn sh(script: &str) -> Rig {
        Rig::new(&["sh", "-c", script])
    }

    /// Changes the container before it is made.
    pub fn with(mut self, change: impl FnOnce(&mut Container)) -> Rig {
        match &mut self.config.workload {
            config::Workload::Container(c) => change(c),
            _ => unreachable!("the rig holds a container"),
        }
        self
    }

    /// Changes the configuration before it is made.
    pub fn config(mut self, change: impl FnOnce(&mut ShimConfig)) -> Rig {
        change(&mut self.config);
        self
    }

    /// The image's directory.
    pub fn layer(&self) -> PathBuf {
        self.dir.join("layer")
    }

    /// Has another runtime make the container.
    pub fn by(self, path: impl AsRef<Path>) -> Rig {
        let runtime = runtime(path.as_ref());
        self.with(|c| c.runtime = Some(runtime))
    }

    /// Starts the shim and gives its first reply. With `BIGA_TEST_RUNTIME=/usr/sbin/runc` in the environment another runtime makes
    /// the containers, so that all these tests can be tried with one.
    pub fn launch(&mut self) -> Reply {
        if let (Ok(path), config::Workload::Container(c)) =
            (std::env::var("BIGA_TEST_RUNTIME"), &mut self.config.workload)
        {
            c.runtime.get_or_insert_with(|| runtime(Path::new(&path)));
        }
        let path = self.dir.join("run/shim.json");
        std::fs::write(&path, serde_json::to_vec(&self.config).unwrap()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_biga-shim"))
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.shim = Some(child);
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("first line {line:?}: {e}"))
    }

    /// Starts the shim; it must succeed.
    pub fn up(mut self) -> Rig {
        match self.launch() {
            Reply::Status { .. } => self,
            other => panic!("{other:?}"),
        }
    }

    /// Kills the shim itself.
    pub fn kill_shim(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    /// Waits for the end of the shim itself.
    pub fn shim_ends(&mut self) {
        let mut shim = self.shim.take().unwrap();
        until("the end of the shim", || shim.try_wait().unwrap());
    }

    /// A connection.
    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.dir.join("run/shim.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// One request, one reply.
    pub fn ask(&self, request: Request) -> Reply {
        self.connect().ask(&request)
    }

    /// A request that must be done.
    pub fn must(&self, request: Request) {
        assert_eq!(self.ask(request), Reply::Ok);
    }

    /// The state now.
    pub fn status(&self) -> Status {
        match self.ask(Request::Status) {
            Reply::Status { status } => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end of the entrypoint.
    pub fn wait(&self) -> Exit {
        let mut watch = self.connect();
        assert!(matches!(watch.ask(&Request::Watch), Reply::Status { .. }));
        let status = self.status();
        if status.state == State::Exited {
            return status.exit.unwrap();
        }
        loop {
            if let Event::Status { status } = watch.event()
                && status.state == State::Exited
            {
                return status.exit.unwrap();
            }
        }
    }

    /// Text of the log, without stamps and marks.
    pub fn log(&self) -> String {
        log_text(&self.dir.join("log"))
    }

    /// Runs to the end: exit and output.
    pub fn run(self) -> (Exit, String) {
        let rig = self.up();
        let exit = rig.wait();
        (exit, rig.log())
    }

    /// Runs a command in the running container: exit, standard output, standard error.
    pub fn exec(&self, args: &[&str]) -> (Exit, String, String) {
        let mut c = self.connect();
        match c.ask(&Request::Exec {
            exec: Box::new(spec(args)),
        }) {
            Reply::Exec { .. } => c.collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Directories of its control groups that exist.
    pub fn groups(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .collect();
        roots.push("/sys/fs/cgroup".into());
        roots
            .into_iter()
            .map(|r| r.join(&self.config.cgroup))
            .filter(|p| p.exists())
            .collect()
    }

    /// A file of its group: by controller and name on version 1, by `new` on version 2.
    pub fn group_file(&self, controller: &str, old: &str, new: &str) -> String {
        let path: PathBuf = match biga_container::cgroup::version() {
            Version::V1 => ["/sys/fs/cgroup", controller, &self.config.cgroup, old]
                .iter()
                .collect(),
            Version::V2 => ["/sys/fs/cgroup", &self.config.cgroup, new].iter().collect(),
        };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("its log:\n{}", self.log());
        }
        if let Some(mut shim) = self.shim.take() {
            if let Ok(stream) = UnixStream::connect(self.dir.join("run/shim.sock")) {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let mut client = Client { stream };
                client.send(&Frame::json(FrameKind::Request, &Request::Delete));
                let _ = Frame::read_from(&mut client.stream);
            }
            let _ = shim.kill();
            let _ = shim.wait();
        }
        let _ = biga_container::sweep(&self.prefix, &[]);
        for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(root.path().join(&self.prefix));
        }
    }
}

/// A runtime, called as its program.
pub fn runtime(path: &Path) -> OciRuntime {
    OciRuntime {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        path: path.to_owned(),
        patience_ms: None,
    }
}

/// Text of a log, without stamps and marks.
fn log_text(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut out = String::new();
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (_, _, mark, text) = (parts.next(), parts.next(), parts.next().unwrap(), parts.next().unwrap());
        out.push_str(text);
        if mark == "F" {
            out.push('\n');
        }
    }
    out
}

/// A command to be run by exec.
pub fn spec(args: &[&str]) -> ExecSpec {
    ExecSpec {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..ExecSpec::default()
    }
}

/// A connection to a shim.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    pub fn send(&mut self, frame: &Frame) {
        // A closed connection shows in what is read next.
        let _ = frame.write_to(&mut self.stream);
    }

    pub fn next(&mut self) -> Option<Frame> {
        Frame::read_from(&mut self.stream).unwrap()
    }

    pub fn ask(&mut self, request: &Request) -> Reply {
        self.send(&Frame::json(FrameKind::Request, request));
        let frame = self.next().expect("a reply");
        assert_eq!(frame.kind, FrameKind::Reply);
        frame.parse().unwrap()
    }

    pub fn event(&mut self) -> Event {
        let frame = self.next().expect("an event");
        assert_eq!(frame.kind, FrameKind::Event);
        frame.parse().unwrap()
    }

    pub fn stdin(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(biga_wire::MAX_DATA) {
            self.send(&Frame::new(FrameKind::Stdin, piece));
        }
        self.stream.flush().unwrap();
    }

    pub fn eof(&mut self) {
        self.send(&Frame::new(FrameKind::StdinEof, []));
    }

    /// All bytes until the exit, which must be the last frame.
    pub fn collect_bytes(&mut self) -> (Exit, Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let frame = self.next().expect("an exit");
            match frame.kind {
                FrameKind::Stdout => out.extend(frame.payload),
                FrameKind::Stderr => err.extend(frame.payload),
                FrameKind::Exit => {
                    assert_eq!(self.next(), None, "nothing after the exit");
                    return (frame.parse().unwrap(), out, err);
                }
                other => panic!("unexpected {other:?}: {:?}", String::from_utf8_lossy(&frame.payload)),
            }
        }
    }

    pub fn collect(&mut self) -> (Exit, String, String) {
        let (exit, out, err) = self.collect_bytes();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Reads output until it holds a text.
    pub fn read_until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let frame = self.next().unwrap_or_else(|| panic!("{wanted:?} in {seen:?}"));
            match frame.kind {
                FrameKind::Stdout | FrameKind::Stderr => seen.push_str(&String::from_utf8_lossy(&frame.payload)),
                other => panic!("{other:?} after {seen:?}: {}", String::from_utf8_lossy(&frame.payload)),
            }
        }
        seen
    }
}

/// Lines `name: value` of a status file.
pub fn fields(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
        .collect()
}

/// Whether a path is a mount point on the host.
pub fn mounts_below(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().unwrap();
    text.lines().filter(|l| l.contains(path)).map(str::to_owned).collect()
}
