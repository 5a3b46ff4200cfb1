//! Talks to the host: one loop, one thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use biga_wire::files::FileWork;
use biga_wire::guest::{self, MAIN_STREAM, Request, Setup};
use biga_wire::shim::{Exit, Reply};
use biga_wire::workload::Fault;
use biga_wire::{Decoder, Frame, FrameKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec};

use crate::modules::Modules;
use crate::process::{Plan, Running};
use crate::root::{self, Mounted};
use crate::stream::{End, Stream};
use crate::{Context, Error, devices, files, network};

/// Bytes that may wait for the host before processes are no longer read.
const HIGH: usize = 256 << 10;
/// After `Shutdown` was answered the host switches the machine off; if it does not, we do.
const LINGER: Duration = Duration::from_secs(10);
const SIGCHLD: i32 = 17;

/// Everything from the kernel's first call to the end.
pub fn run() -> Result<(), Error> {
    root::early()?;
    let mut modules = Modules::open(Path::new("/modules"))?;
    for name in ["virtio_mmio", "virtio_console"] {
        modules.load(name)?;
    }
    let port = devices::port(guest::PORT)?;
    let children = biga_sys::signal::descriptor(&[SIGCHLD]).step(|| "watch for children".into())?;
    let mut agent = Agent {
        port,
        children,
        decoder: Decoder::new(),
        out: Vec::new(),
        sent: 0,
        modules: Some(modules),
        setup: Setup::default(),
        mounted: None,
        streams: BTreeMap::new(),
        state: State::Booting,
    };
    agent.serve()
}

/// Ends the machine.
pub fn power_off() {
    rustix::fs::sync();
    // QEMU is told not to start again, so a restart ends it; the microvm machine has no other way.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

#[derive(Debug, PartialEq)]
enum State {
    /// `Setup` did not come yet.
    Booting,
    /// All is made.
    Ready,
    /// The disks are whole: nothing more to do.
    Closed(Instant),
}

struct Agent {
    port: File,
    children: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    modules: Option<Modules>,
    setup: Setup,
    mounted: Option<Mounted>,
    streams: BTreeMap<u16, Stream>,
    state: State,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Port,
    Children,
    Stream(u16, End),
}

impl Agent {
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.flush();
            let ready = self.wait().step(|| "wait for events".into())?;
            for (source, flags) in ready {
                match source {
                    Source::Port => {
                        if !self.read_port()? || flags.contains(PollFlags::HUP) {
                            // The host is gone: nobody is left to run for.
                            return self.close(None);
                        }
                    }
                    Source::Children => self.reap_orphans(),
                    Source::Stream(id, end) => self.stream_ready(id, end),
                }
            }
            self.finish();
            if let State::Closed(since) = self.state
                && since.elapsed() > LINGER
            {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let waiting = self.out.len() - self.sent;
        let mut port = PollFlags::IN;
        if waiting > 0 {
            port |= PollFlags::OUT;
        }
        let mut sources = vec![Source::Port, Source::Children];
        let mut fds = vec![
            PollFd::new(&self.port, port),
            PollFd::new(&self.children, PollFlags::IN),
        ];
        for (id, stream) in &self.streams {
            for (end, fd) in stream.interests() {
                let flags = match end {
                    End::Stdin => PollFlags::OUT,
                    // A host that is slow holds the processes back.
                    End::Stdout | End::Stderr if waiting > HIGH => continue,
                    _ => PollFlags::IN,
                };
                sources.push(Source::Stream(*id, end));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = match self.state {
            State::Closed(_) => Some(Timespec { tv_sec: 1, tv_nsec: 0 }),
            _ => None,
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        }
        let ready = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn flush(&mut self) {
        while self.sent < self.out.len() {
            match rustix::io::write(&self.port, &self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
        self.out.clear();
        self.sent = 0;
    }

    /// Reads what the host sent. Whether the host is still there.
    fn read_port(&mut self) -> Result<bool, Error> {
        let mut buf = vec![0; 64 << 10];
        loop {
            match rustix::io::read(&self.port, &mut buf) {
                Ok(0) => return Ok(false),
                Ok(n) => self.decoder.push(&buf[..n]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(_) => return Ok(false),
            }
        }
        loop {
            let next = self.decoder.next_frame().map_err(io::Error::from);
            match next.step(|| "understand the host".into())? {
                Some(frame) => self.frame(frame),
                None => return Ok(true),
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        if frame.kind != FrameKind::Request {
            if let Some(stream) = self.streams.get_mut(&frame.stream) {
                stream.frame(&frame, &mut self.out);
            }
            return;
        }
        let id = frame.stream;
        let reply = match frame.parse::<Request>() {
            Ok(Request::Setup { setup }) => self.setup(*setup).map_err(|e| Fault::failed(e.to_string())),
            Ok(Request::Start) => self.start(id, Plan::main),
            Ok(Request::Exec { exec }) => self.start(id, |setup| Plan::exec(setup, &exec)),
            Ok(Request::Files { work }) => self.files(id, &work),
            Ok(Request::Pids) => Ok(Reply::Pids { pids: pids() }),
            Ok(Request::Shutdown) => {
                // Answers by itself: the answer is the last thing that happens.
                if let Err(e) = self.close(Some(id)) {
                    eprintln!("biga-guest: {e}");
                }
                return;
            }
            Err(e) => Err(Fault::failed(format!("the guest does not know this request: {e}"))),
        };
        let reply = reply.unwrap_or_else(|fault| Reply::Error {
            code: fault.code,
            message: fault.message,
        });
        self.send(Frame::json(FrameKind::Reply, &reply).on(id));
    }

    fn send(&mut self, frame: Frame) {
        frame.encode(&mut self.out);
    }

    fn setup(&mut self, setup: Setup) -> Result<Reply, Error> {
        let Some(mut modules) = self.modules.take() else {
            return Err(Error::Field {
                what: "request",
                value: "a second Setup".into(),
            });
        };
        set_clock(setup.clock_ns)?;
        let mut wanted = vec!["virtio_blk", "erofs", "overlay", "ext4"];
        if !setup.nics.is_empty() {
            wanted.push("virtio_net");
        }
        if setup
            .mounts
            .iter()
            .any(|m| matches!(m.source, guest::GuestSource::Share { .. }))
        {
            wanted.push("virtiofs");
        }
        for name in wanted {
            modules.load(name)?;
        }
        modules.discard();
        self.mounted = Some(root::build(&setup)?);
        network::setup(&setup.nics)?;
        root::sysctls(&setup)?;
        root::seal(&setup)?;
        self.setup = setup;
        self.state = State::Ready;
        Ok(Reply::Ok)
    }

    fn start(&mut self, id: u16, plan: impl FnOnce(&Setup) -> Result<Plan, Fault>) -> Result<Reply, Fault> {
        self.takes(id)?;
        let running = plan(&self.setup)?.start()?;
        Ok(self.follow(id, running))
    }

    /// Works on files in a process of its own, so that all else goes on meanwhile.
    fn files(&mut self, id: u16, work: &FileWork) -> Result<Reply, Fault> {
        self.takes(id)?;
        let changed = match (work, &self.mounted) {
            (FileWork::Changes | FileWork::Layer { .. }, Some(mounted)) => {
                Some(mounted.layers().map_err(|e| Fault::failed(e.to_string()))?)
            }
            _ => None,
        };
        let running = files::start(work, &self.setup, changed)?;
        Ok(self.follow(id, running))
    }

    fn takes(&self, id: u16) -> Result<(), Fault> {
        match self.state != State::Ready || id == 0 || self.streams.contains_key(&id) {
            true => Err(Fault::state("the guest cannot start a process now")),
            false => Ok(()),
        }
    }

    fn follow(&mut self, id: u16, running: Running) -> Reply {
        let stream = Stream::new(id, running);
        let pid = stream.pid();
        self.streams.insert(id, stream);
        Reply::Exec { pid }
    }

    fn stream_ready(&mut self, id: u16, end: End) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match end {
            End::Stdin => stream.write(&mut self.out),
            End::Stdout | End::Stderr => {
                stream.read(end, &mut self.out);
            }
            End::Child => {
                // With the main process everything ends.
                if stream.reap() && id == MAIN_STREAM {
                    kill_all();
                }
            }
        }
    }

    /// Processes whose parents ended become ours. Our own children are waited for by their streams.
    fn reap_orphans(&mut self) {
        while let Ok(Some(_)) = biga_sys::signal::read(&self.children) {}
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.stream_ready(id, End::Child);
        }
        if self.streams.values().all(Stream::ended) {
            while let Ok(Some(_)) = biga_sys::process::reap_any() {}
            return;
        }
        reap_others(&self.streams.values().map(Stream::pid).collect::<Vec<_>>());
    }

    /// Sends the last frame of each stream that is over.
    fn finish(&mut self) {
        let mut over = Vec::new();
        for (id, stream) in &mut self.streams {
            if self.out.len() - self.sent <= HIGH
                && let Some(exit) = stream.finish(&mut self.out)
            {
                over.push((*id, exit));
            }
        }
        for (id, exit) in over {
            self.streams.remove(&id);
            self.send(Frame::json::<Exit>(FrameKind::Exit, &exit).on(id));
        }
    }

    /// Ends everything and leaves the disks whole.
    fn close(&mut self, answer: Option<u16>) -> Result<(), Error> {
        kill_all();
        if let Some(mounted) = self.mounted.take() {
            mounted.close();
        }
        self.state = State::Closed(Instant::now());
        if let Some(id) = answer {
            self.send(Frame::json(FrameKind::Reply, &Reply::Ok).on(id));
            self.flush();
        }
        Ok(())
    }
}

/// Kills every process but this one and waits until they are gone.
fn kill_all() {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let others: Vec<u32> = pids().into_iter().filter(|p| *p != 1).collect();
        if others.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in &others {
            // It may have ended at this moment.
            let _ = biga_sys::process::signal_pid(*pid, 9);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processes with memory of their own, zombies left out; the kernel's threads have none.
fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| is_alive(*pid)).collect()
}

fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // After the name, which may hold anything: state, parent, …; the 21st is the size in memory pages.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    fields.first() != Some(&"Z") && fields.get(20).is_some_and(|size| *size != "0")
}

/// Reaps ended children that are none of `ours`.
fn reap_others(ours: &[u32]) {
    let path = "/proc/self/task/1/children";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    for pid in text.split_whitespace().filter_map(|p| p.parse::<u32>().ok()) {
        if !ours.contains(&pid)
            && let Some(pid) = rustix::process::Pid::from_raw(pid as i32)
        {
            // One that still runs is left alone.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        }
    }
}

fn set_clock(ns: u64) -> Result<(), Error> {
    if ns == 0 {
        return Ok(());
    }
    let time = Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as _,
    };
    rustix::time::clock_settime(ClockId::Realtime, time).step(|| "set the clock".into())
}
