//! The world of a test: a host, an outside, instances, and ways to talk between them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use biga_net::{Config, Endpoint, Net};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tempfile::TempDir;

/// Longest wait for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long a connection that must not come about is tried.
pub const REFUSAL: Duration = Duration::from_secs(2);

#[allow(deprecated)] // Unsound only with flags for file descriptors.
fn unshare(flags: UnshareFlags) {
    rustix::thread::unshare(flags).expect("the tests need root");
}

/// Runs a test in a world of its own.
pub fn world(test: impl AsyncFnOnce(World) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { test(World::new()).await });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Names in a test's own namespaces need not be unique.
pub const PREFIX: &str = "tbiga";

pub struct World {
    pub net: Net,
    pub run_dir: TempDir,
}

impl World {
    fn new() -> World {
        let run_dir = TempDir::new().unwrap();
        let net = Net::new(config(run_dir.path())).unwrap();
        World { net, run_dir }
    }

    /// As after a restart of the daemon: a new handle that knows nothing.
    pub fn restart(&mut self) {
        self.net = Net::new(config(self.run_dir.path())).unwrap();
    }

    /// A plain network with this uid and name.
    pub async fn network(&self, name: &str) -> biga_model::NetworkStatus {
        self.with(name, &Default::default()).await
    }

    /// A network with these options.
    pub async fn with(&self, name: &str, spec: &biga_model::NetworkSpec) -> biga_model::NetworkStatus {
        let made = self.net.ensure_network(&uid_of(name), name, spec, None).await;
        let status = made.unwrap();
        assert!(status.ready);
        assert_eq!(status.message, "");
        status
    }

    /// A container on these networks, by name.
    pub async fn instance(&self, uid: &str, networks: &[&str]) -> Instance {
        let endpoints: Vec<Endpoint> = networks
            .iter()
            .enumerate()
            .map(|(i, name)| {
                self.net
                    .endpoint(&uid_of(name), uid, &format!("eth{i}"), None, None)
                    .unwrap()
            })
            .collect();
        let netns = self
            .net
            .attach_container(uid, &endpoints, &BTreeMap::new())
            .await
            .unwrap();
        Instance { netns, endpoints }
    }

    pub fn netns_file(&self, uid: &str) -> PathBuf {
        self.run_dir.path().join("netns").join(uid)
    }
}

pub fn config(run_dir: &Path) -> Config {
    Config {
        upstreams: Some(vec![SocketAddr::from((OUTSIDE, 53))]),
        ..Config::new(PREFIX, run_dir)
    }
}

pub fn uid_of(network: &str) -> String {
    format!("uid-of-{network}")
}

pub struct Instance {
    pub netns: PathBuf,
    pub endpoints: Vec<Endpoint>,
}

impl Instance {
    pub fn ip(&self) -> Ipv4Addr {
        self.endpoints[0].address
    }
}

/// The host's address towards outside.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The outside's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Another machine beside the host. It has no route to the instances' addresses.
pub struct Outside {
    _file: File,
    pub netns: PathBuf,
}

impl Outside {
    pub fn new() -> Outside {
        let outside = Outside::unconnected();
        let path = outside.netns.to_str().unwrap();
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "out0"]);
        run("ip", &["link", "set", "out0", "netns", path]);
        run("ip", &["addr", "add", &format!("{HOST}/24"), "dev", "up0"]);
        run("ip", &["link", "set", "up0", "up"]);
        outside.exec("ip", &["addr", "add", &format!("{OUTSIDE}/24"), "dev", "out0"]);
        outside.exec("ip", &["link", "set", "out0", "up"]);
        outside
    }

    pub fn unconnected() -> Outside {
        let file = std::thread::spawn(|| {
            unshare(UnshareFlags::NEWNET);
            run("ip", &["link", "set", "lo", "up"]);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let file = file.join().unwrap();
        let netns = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        Outside { _file: file, netns }
    }

    pub fn exec(&self, program: &str, args: &[&str]) -> String {
        exec(&self.netns, program, args)
    }
}

/// Runs a program; its output on success, a panic with it otherwise.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = try_run(program, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub fn try_run(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a program in another network namespace.
pub fn exec(netns: &Path, program: &str, args: &[&str]) -> String {
    let net = format!("--net={}", netns.display());
    run("nsenter", &[&[net.as_str(), program], args].concat())
}

pub fn try_exec(netns: &Path, program: &str, args: &[&str]) -> Output {
    let net = format!("--net={}", netns.display());
    try_run("nsenter", &[&[net.as_str(), program], args].concat())
}

/// Runs code in another network namespace.
pub fn within<T: Send>(netns: &Path, code: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            code()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A TCP server that tells everybody its name and their address. Ends with the test's process.
pub fn serve_tcp(netns: &Path, port: u16, name: &'static str) {
    let listener = within(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    answer_tcp(listener, name);
}

pub fn answer_tcp(listener: TcpListener, name: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|p| p.ip().to_string()).unwrap_or_default();
            let _ = write!(stream, "{name} {peer}");
        }
    });
}

pub fn serve_udp(netns: &Path, port: u16, name: &'static str) {
    let socket = within(netns, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
        }
    });
}

fn say(to: SocketAddrV4, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What the server at an address says to one in a namespace.
#[track_caller]
pub fn ask_tcp(netns: &Path, ip: Ipv4Addr, port: u16) -> String {
    within(netns, || ask_tcp_here(ip, port))
}

/// What it says to the host.
pub fn ask_tcp_here(ip: Ipv4Addr, port: u16) -> String {
    let start = Instant::now();
    loop {
        match say(SocketAddrV4::new(ip, port), DEADLINE) {
            Ok(text) => return text,
            Err(e) if start.elapsed() > DEADLINE => panic!("{ip}:{port} does not answer: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether it cannot be reached.
pub fn refused_tcp(netns: &Path, ip: Ipv4Addr, port: u16) -> bool {
    within(netns, || say(SocketAddrV4::new(ip, port), REFUSAL).is_err())
}

pub fn ask_udp_here(ip: Ipv4Addr, port: u16) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((ip, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 64];
    loop {
        let answer = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(length) => return String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(e) if start.elapsed() > DEADLINE => panic!("{ip}:{port} does not answer: {e}"),
            Err(_) => {}
        }
    }
}

/// Names of the host's interfaces that are ours.
pub fn our_links() -> Vec<String> {
    let text = run("ip", &["-o", "link"]);
    let names = text.lines().filter_map(|l| l.split(": ").nth(1)?.split('@').next());
    names.filter(|n| n.starts_with(PREFIX)).map(Into::into).collect()
}

/// Waits until there are so many.
#[track_caller]
pub fn links_become(count: usize) {
    let start = Instant::now();
    while our_links().len() != count {
        assert!(start.elapsed() < DEADLINE, "{count} expected: {:?}", our_links());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The host's rules.
pub fn ruleset() -> String {
    run("nft", &["list", "ruleset"])
}
