//! A real terminal: raw mode and its end, the window, the keys that leave.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::fake::Fake;

struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    seen: String,
}

impl Pty {
    fn open() -> Pty {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let pty = Pty {
            master,
            slave,
            seen: String::new(),
        };
        pty.resize(40, 100);
        pty
    }

    fn resize(&self, rows: u16, cols: u16) {
        let w = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.slave, w).unwrap();
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    fn spawn(&self, f: &Fake, args: &[&str]) -> Running {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        let child = f
            .command(args)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Running(child)
    }

    fn type_(&self, keys: &[u8]) {
        File::from(self.master.try_clone().unwrap()).write_all(keys).unwrap();
    }

    /// Reads the screen until it shows `text`.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut file = File::from(self.master.try_clone().unwrap());
        while !self.seen.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.seen);
            let mut fds = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0 {
                let mut b = [0; 4096];
                let n = file.read(&mut b).unwrap();
                self.seen.push_str(&String::from_utf8_lossy(&b[..n]));
            }
        }
    }
}

struct Running(Child);

impl Running {
    fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(s) = self.0.try_wait().unwrap() {
                return s.code();
            }
            assert!(Instant::now() < deadline, "biga does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, s: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), s).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn same(a: &Termios, b: &Termios) -> bool {
    (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
        == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
}

/// A process that shows its keys, running in raw mode.
fn raw(f: &Fake) -> (Pty, Running, Termios) {
    let mut pty = Pty::open();
    let before = pty.mode();
    assert!(before.local_modes.contains(LocalModes::ICANON));
    let child = pty.spawn(f, &["run", "-it", "--name", "a", "busybox", "keys"]);
    pty.wait_for("window (40, 100)");
    assert!(!pty.mode().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    (pty, child, before)
}

#[test]
fn keys_and_window_reach_the_process_and_the_mode_comes_back() {
    let f = Fake::start();
    let (mut pty, child, before) = raw(&f);
    pty.type_(&[3]);
    pty.wait_for("[3]");
    pty.resize(50, 120);
    // The terminal is not its controlling one here, so the kernel does not tell it.
    child.signal(rustix::process::Signal::WINCH);
    pty.wait_for("window (50, 120)");
    pty.type_(b"q");
    assert_eq!(child.end(), Some(9));
    assert!(same(&pty.mode(), &before));
}

#[test]
fn the_detach_keys_leave_the_process_alone() {
    let f = Fake::start();
    let (mut pty, child, before) = raw(&f);
    pty.type_(b"\x10\x11");
    pty.wait_for("`biga attach a` comes back");
    assert_eq!(child.end(), Some(0));
    assert!(same(&pty.mode(), &before));
    assert_eq!(f.get("instances", "a").unwrap()["status"]["phase"], "Running");
    let child = pty.spawn(&f, &["attach", "a"]);
    pty.seen.clear();
    pty.wait_for("window (40, 100)");
    pty.type_(b"q");
    assert_eq!(child.end(), Some(9));
    assert!(same(&pty.mode(), &before));
}

#[test]
fn the_mode_comes_back_when_a_signal_ends_us() {
    let f = Fake::start();
    let (pty, child, before) = raw(&f);
    child.signal(rustix::process::Signal::TERM);
    assert_eq!(child.end(), Some(143));
    assert!(same(&pty.mode(), &before));
}

#[test]
fn the_mode_comes_back_when_the_instance_is_gone() {
    let f = Fake::start();
    f.running("m", json!({"spec": {"isolation": "vm", "containers": null}}));
    let mut pty = Pty::open();
    let before = pty.mode();
    let child = pty.spawn(&f, &["console", "m"]);
    pty.wait_for("window (40, 100)");
    drop(f);
    assert_eq!(child.end(), Some(6));
    assert!(same(&pty.mode(), &before));
    let _ = pty.slave.as_fd();
}
