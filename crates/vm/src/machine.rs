//! A machine: firmware, disks, any operating system.
//!
//! ```text
//!            start        QEMU runs            power button (again until it works)
//!  Created ─────────► On ──────────► Running ─────────────────────► Stopping
//!                      │                │  ▲ pause, resume              │
//!                      │ QEMU ended     ▼  │                            │ QEMU ended
//!                      │             Paused                             │
//!                      └───────────────────┴──────► Ended ◄─────────────┘
//! ```
//!
//! Its main stream is the serial console. The guest agent is asked once it opens its port: what system it is, where it can be
//! reached; then now and again. Commands run through it, with their output at the end.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use biga_wire::config::{Limits, Machine, ShimConfig};
use biga_wire::shim::{ErrorCode, Event, ExecSpec, Exit, Stats};
use biga_wire::workload::{Fault, Host, Interest, MAIN, Output, StreamId, Workload};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::duplex::{self, Duplex, Got};
use crate::microvm::usage::{self, Usage};
use crate::qemu::args::{self, Card, Disk, Fds, MachineArgs};
use crate::qemu::process::{Daemon, number};
use crate::qga::{News, Session};
use crate::qmp::{Message, Qmp};

const QEMU: u32 = 1;
const AGENT: u32 = 2;
const QMP: u32 = 3;
const SERIAL: u32 = 4;

const LOOK_TIMER: u32 = 1;
const BUTTON_TIMER: u32 = 2;
const ANSWER_TIMER: u32 = 3;
/// Plus the stream's number.
const EXEC_TIMER: u32 = 0x1_0000;

/// Wait for an answer of QEMU's monitor.
const QMP_TIME: Duration = Duration::from_secs(10);
/// A guest that still boots does not see the power button: it is pressed again so often.
const BUTTON_TIME: Duration = Duration::from_secs(4);
/// An agent that does not answer for so long is asked anew.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// First and longest time between two looks at the guest.
const LOOK_TIME: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// First and longest time between two looks at a command.
const EXEC_TIME: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Signals that press the power button: TERM, INT, QUIT, PWR, and what systemd takes for it.
const BUTTON: &[i32] = &[15, 2, 3, 30, 37];

/// Input that waits for a console that does not read, bytes.
const MAX_INPUT: usize = 64 << 10;

/// The shim's [`Workload`] for [`Machine`].
#[derive(Debug)]
pub struct MachineWorkload {
    uid: String,
    name: String,
    run_dir: PathBuf,
    limits: Limits,
    config: Machine,
    vm: Option<Vm>,
}

#[derive(Debug)]
struct Vm {
    qemu: Daemon,
    qmp: Qmp,
    serial: Duplex,
    agent: Duplex,
    session: Session,
    /// Id of the first question, while it is not answered.
    first: Option<u64>,
    started: bool,
    paused: bool,
    stopping: bool,
    killed: bool,
    /// The guest switched itself off.
    guest_off: bool,
    input_waits: bool,
    look: Duration,
    /// Execs: whether they were started, and when to look again.
    execs: BTreeMap<StreamId, (bool, Duration)>,
    usage: Usage,
}

impl MachineWorkload {
    /// Takes the configuration; makes nothing yet.
    pub fn new(shim: &ShimConfig, config: &Machine) -> MachineWorkload {
        MachineWorkload {
            uid: shim.uid.clone(),
            name: shim.name.clone(),
            run_dir: shim.run_dir.clone(),
            limits: shim.limits.clone(),
            config: config.clone(),
            vm: None,
        }
    }

    fn disks(&self) -> Vec<Disk> {
        let disk = |name: String, file: &PathBuf, format, read_only| Disk {
            name,
            file: file.clone(),
            format,
            read_only,
        };
        let mut disks = vec![disk("disk0".into(), &self.config.disk, "qcow2", false)];
        for (i, file) in self.config.disks.iter().enumerate() {
            disks.push(disk(format!("disk{}", i + 1), file, "raw", false));
        }
        if let Some(seed) = &self.config.seed {
            disks.push(disk("seed".into(), seed, "raw", true));
        }
        disks
    }

    fn power_on(&mut self, host: &mut dyn Host) -> Result<Vm, Fault> {
        let failed = |what: &str, e: std::io::Error| Fault::failed(format!("cannot {what} of {}: {e}", self.name));
        let mut far: Vec<OwnedFd> = Vec::new();
        let mut near = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = duplex::pair().map_err(|e| failed("make the sockets", e))?;
            near.push(ours);
            far.push(theirs);
        }
        let taps = usage::open_taps(&self.config.nics)?;
        let fds = Fds {
            qmp: number(&far[0]),
            console: number(&far[1]),
            channel: number(&far[2]),
            taps: taps.iter().map(number).collect(),
        };
        far.extend(taps);
        let cards = self.config.nics.iter().map(|n| Card {
            mac: n.mac.clone(),
            mtu: n.mtu,
        });
        let line = args::machine(&MachineArgs {
            hypervisor: &self.config.hypervisor,
            name: &self.name,
            uuid: &self.uid,
            disks: self.disks(),
            cards: cards.collect(),
            uefi: self
                .config
                .uefi
                .as_ref()
                .map(|(code, vars)| (code.as_path(), vars.as_path())),
            fds,
        });
        let log = usage::log_file(&self.run_dir.join("qemu.log"))?;
        let qemu = Daemon::spawn_confined(&self.config.hypervisor.qemu, line, &far, log)
            .map_err(|e| failed("start the QEMU", e))?;
        drop(far);
        // A host without the controllers still runs it.
        let _ = host.cgroup_add(qemu.pid());
        host.accelerator(if self.config.hypervisor.kvm { "kvm" } else { "tcg" });
        let mut near = near.into_iter();
        let mut take = |token| near.next().map(|fd| Duplex::new(fd, token));
        let (Some(qmp), Some(mut serial), Some(mut agent)) = (take(QMP), take(SERIAL), take(AGENT)) else {
            return Err(Fault::failed("the sockets of QEMU are gone"));
        };
        serial.register(host).map_err(|e| failed("watch the console", e))?;
        agent.register(host).map_err(|e| failed("watch the guest agent", e))?;
        host.watch(qemu.as_fd(), QEMU, Interest::READ)
            .map_err(|e| failed("watch the QEMU", e))?;
        let mut qmp = Qmp::new(qmp, host).map_err(|e| failed("watch the monitor", e))?;
        let first = Some(qmp.send("query-status", Value::Null, host));
        Ok(Vm {
            qemu,
            qmp,
            serial,
            agent,
            session: Session::default(),
            first,
            started: false,
            paused: false,
            stopping: false,
            killed: false,
            guest_off: false,
            input_waits: false,
            look: LOOK_TIME.0,
            execs: BTreeMap::new(),
            usage: Usage::default(),
        })
    }

    fn on_qmp(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        for message in vm.qmp.messages(host).into_iter().flatten() {
            match message {
                Message::Return { id, .. } if vm.first == Some(id) => {
                    vm.first = None;
                    vm.started = true;
                    host.started(MAIN, Ok(vm.qemu.pid()));
                }
                Message::Event { name, data } => vm.on_event(&name, &data, host),
                _ => {}
            }
        }
    }

    fn on_agent(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        vm.agent.flush(host);
        let mut buf = [0; 16 << 10];
        loop {
            match vm.agent.read(&mut buf) {
                Got::Bytes(n) => {
                    for news in vm.session.receive(&buf[..n]) {
                        vm.on_news(news, host);
                    }
                }
                Got::Nothing => break,
                Got::End => {
                    vm.agent.close(host);
                    break;
                }
            }
        }
        vm.ask_agent(host);
    }

    fn on_serial(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        vm.serial.flush(host);
        if vm.input_waits && vm.serial.queued() < MAX_INPUT / 2 {
            vm.input_waits = false;
            host.input_room(MAIN);
        }
        let mut buf = [0; 16 << 10];
        loop {
            if host.room(MAIN) == 0 {
                return vm.serial.set_reading(false, host);
            }
            match vm.serial.read(&mut buf) {
                Got::Bytes(n) => host.output(MAIN, Output::Stdout, &buf[..n]),
                Got::Nothing => return,
                Got::End => return vm.serial.close(host),
            }
        }
    }

    fn on_qemu_end(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        let Some(status) = vm.qemu.try_wait() else { return };
        self.on_qmp(host);
        self.on_serial(host);
        let Some(mut vm) = self.take_vm(host) else { return };
        for (stream, (started, _)) in std::mem::take(&mut vm.execs) {
            match started {
                true => host.exited(stream, killed_exit()),
                false => host.started(stream, Err(Fault::state("the machine ended"))),
            }
        }
        let log = std::fs::read_to_string(self.run_dir.join("qemu.log")).unwrap_or_default();
        let words = format!("QEMU ended with {status}: {}", usage::last_lines(&log, 5));
        if !vm.started {
            let why = match vm.killed {
                true => Fault::state("the machine was killed while it started"),
                false => Fault::failed(format!("machine {} did not start: {words}", self.name)),
            };
            return host.started(MAIN, Err(why));
        }
        let exit = match (vm.killed, vm.guest_off || status.success()) {
            (true, _) => killed_exit(),
            (false, true) => Exit::default(),
            (false, false) => Exit {
                code: 1,
                error: Some(words),
                ..Exit::default()
            },
        };
        host.exited(MAIN, exit);
    }

    fn take_vm(&mut self, host: &mut dyn Host) -> Option<Vm> {
        let mut vm = self.vm.take()?;
        for timer in [LOOK_TIMER, BUTTON_TIMER, ANSWER_TIMER] {
            host.timer(timer, None);
        }
        for stream in vm.execs.keys() {
            host.timer(EXEC_TIMER + u32::from(*stream), None);
        }
        host.unwatch(vm.qemu.as_fd());
        vm.qmp.close(host);
        vm.serial.close(host);
        vm.agent.close(host);
        Some(vm)
    }

    fn vm(&mut self) -> Result<&mut Vm, Fault> {
        self.vm
            .as_mut()
            .ok_or_else(|| Fault::state(format!("machine {} is not running", self.name)))
    }

    fn monitor(&mut self, command: &str, arguments: Value, host: &mut dyn Host) -> Result<Value, Fault> {
        let answer = self.vm()?.qmp.call(command, arguments, QMP_TIME, host);
        self.on_qmp(host);
        answer.map_err(|e| Fault::failed(e.to_string()))
    }
}

impl Vm {
    fn on_event(&mut self, name: &str, data: &Value, host: &mut dyn Host) {
        match name {
            "STOP" => self.paused = true,
            "RESUME" => self.paused = false,
            "SHUTDOWN" => self.guest_off = data["guest"].as_bool() == Some(true),
            "VSERPORT_CHANGE" if data["id"] == args::AGENT_PORT => {
                if data["open"].as_bool() == Some(true) {
                    self.resync(true, host);
                    // Wakes QEMU's loop, which would not look at the port by itself (see the microvm's).
                    self.qmp.send("query-status", Value::Null, host);
                } else {
                    host.timer(ANSWER_TIMER, None);
                    host.timer(LOOK_TIMER, None);
                    for news in self.session.closed() {
                        self.on_news(news, host);
                    }
                }
            }
            _ => {}
        }
    }

    fn resync(&mut self, opened: bool, host: &mut dyn Host) {
        let (hello, news) = match opened {
            true => (self.session.opened(), Vec::new()),
            false => self.session.resync(),
        };
        for news in news {
            self.on_news(news, host);
        }
        self.agent.send(&hello, host);
        host.timer(ANSWER_TIMER, Some(ANSWER_TIME));
    }

    fn on_news(&mut self, news: News, host: &mut dyn Host) {
        match news {
            News::Ready => {
                self.session.look();
                self.look = LOOK_TIME.0;
                host.timer(LOOK_TIMER, Some(self.look));
            }
            News::Guest(guest) => host.event(Event::Guest { guest }),
            News::Started(stream, result) => {
                match &result {
                    Ok(_) => {
                        self.execs.insert(stream, (true, EXEC_TIME.0));
                        host.timer(EXEC_TIMER + u32::from(stream), Some(EXEC_TIME.0));
                    }
                    Err(_) => {
                        self.execs.remove(&stream);
                    }
                }
                host.started(stream, result);
            }
            News::StillRuns(stream) => {
                if let Some((_, wait)) = self.execs.get_mut(&stream) {
                    *wait = (*wait * 3 / 2).min(EXEC_TIME.1);
                    host.timer(EXEC_TIMER + u32::from(stream), Some(*wait));
                }
            }
            News::Ended(stream, out, err, exit) => {
                if self.execs.remove(&stream).is_some() {
                    host.timer(EXEC_TIMER + u32::from(stream), None);
                    host.output(stream, Output::Stdout, &out);
                    host.output(stream, Output::Stderr, &err);
                    host.exited(stream, exit);
                }
            }
        }
    }

    fn ask_agent(&mut self, host: &mut dyn Host) {
        while let Some(bytes) = self.session.next_command() {
            self.agent.send(&bytes, host);
        }
        host.timer(ANSWER_TIMER, self.session.is_waiting().then_some(ANSWER_TIME));
    }
}

fn killed_exit() -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        ..Exit::default()
    }
}

impl Workload for MachineWorkload {
    fn create(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        let seed = self.config.seed.iter();
        for path in seed.chain([&self.config.disk]).chain(&self.config.disks) {
            if let Err(e) = std::fs::metadata(path) {
                return Err(Fault::failed(format!("cannot read the disk {}: {e}", path.display())));
            }
        }
        Ok(())
    }

    fn start(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        if self.vm.is_some() {
            return Err(Fault::state(format!("machine {} runs already", self.name)));
        }
        self.vm = Some(self.power_on(host)?);
        // The group was made with the limits of the creation; these may be newer.
        let _ = host.cgroup_limits(&self.limits);
        Ok(())
    }

    fn exec(&mut self, stream: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<(), Fault> {
        let vm = self.vm()?;
        vm.session.exec(stream, spec)?;
        vm.execs.insert(stream, (false, EXEC_TIME.0));
        vm.ask_agent(host);
        Ok(())
    }

    fn signal(&mut self, stream: StreamId, signal: i32, host: &mut dyn Host) -> Result<(), Fault> {
        let vm = self.vm()?;
        if stream != MAIN {
            vm.session.kill(stream, signal);
            vm.ask_agent(host);
            return Ok(());
        }
        if signal == Signal::KILL.as_raw() {
            vm.killed = true;
            vm.qemu.kill(Signal::KILL);
            return Ok(());
        }
        if !BUTTON.contains(&signal) {
            return Err(Fault::new(
                ErrorCode::Unsupported,
                format!(
                    "a machine has no process to send signal {signal} to; TERM presses its power button, KILL switches it off"
                ),
            ));
        }
        vm.stopping = true;
        host.timer(BUTTON_TIMER, Some(BUTTON_TIME));
        if vm.paused {
            self.monitor("cont", Value::Null, host)?;
        }
        self.monitor("system_powerdown", Value::Null, host).map(drop)
    }

    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize {
        let Some(vm) = self.vm.as_mut().filter(|_| stream == MAIN) else {
            return bytes.len();
        };
        let take = bytes.len().min(MAX_INPUT.saturating_sub(vm.serial.queued()));
        vm.serial.send(&bytes[..take], host);
        vm.input_waits = take < bytes.len();
        take
    }

    fn close_input(&mut self, _stream: StreamId, _host: &mut dyn Host) {
        // A console has no end of input, and commands get none.
    }

    fn resize(&mut self, _stream: StreamId, _rows: u16, _cols: u16, _host: &mut dyn Host) {
        // A serial line knows no size.
    }

    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(vm) = self.vm.as_mut().filter(|_| stream == MAIN) {
            vm.serial.set_reading(true, host);
        }
    }

    fn console(&self) -> Option<StreamId> {
        Some(MAIN)
    }

    fn pause(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.monitor("stop", Value::Null, host)?;
        self.vm()?.paused = true;
        Ok(())
    }

    fn resume(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.monitor("cont", Value::Null, host)?;
        self.vm()?.paused = false;
        Ok(())
    }

    fn update(&mut self, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault> {
        let size = self.config.hypervisor.memory;
        if limits.memory != self.limits.memory
            && let Some(memory) = limits.memory
        {
            if memory > size {
                return Err(Fault::unsupported(format!(
                    "machine {} was started with {} MiB and cannot get more while it runs: stop it, change it, start it",
                    self.name,
                    size >> 20
                )));
            }
            // The guest gives the rest back by its balloon.
            self.monitor("balloon", json!({ "value": memory }), host)?;
        }
        host.cgroup_limits(limits)
            .map_err(|e| Fault::failed(format!("cannot change the limits of machine {}: {e}", self.name)))?;
        self.limits = limits.clone();
        Ok(())
    }

    fn stats(&mut self, host: &mut dyn Host) -> Result<Stats, Fault> {
        self.vm()?;
        let (nics, memory) = (&self.config.nics, self.config.hypervisor.memory);
        let Some(vm) = &mut self.vm else {
            return Ok(Stats::default());
        };
        let pid = vm.qemu.pid();
        let stats = vm.usage.sample(&mut vm.qmp, pid, nics, memory, host);
        self.on_qmp(host);
        Ok(stats)
    }

    fn pids(&mut self, _host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        Ok(vec![self.vm()?.qemu.pid()])
    }

    fn ready(&mut self, token: u32, _ready: Interest, host: &mut dyn Host) {
        match token {
            QEMU => self.on_qemu_end(host),
            AGENT => self.on_agent(host),
            QMP => self.on_qmp(host),
            SERIAL => self.on_serial(host),
            _ => {}
        }
    }

    fn timer(&mut self, token: u32, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        match token {
            LOOK_TIMER => {
                vm.session.look();
                vm.look = (vm.look * 2).min(LOOK_TIME.1);
                host.timer(LOOK_TIMER, Some(vm.look));
            }
            ANSWER_TIMER => vm.resync(false, host),
            BUTTON_TIMER if vm.stopping => {
                host.timer(BUTTON_TIMER, Some(BUTTON_TIME));
                vm.qmp.send("system_powerdown", Value::Null, host);
            }
            _ if token >= EXEC_TIMER => vm.session.poll((token - EXEC_TIMER) as StreamId),
            _ => {}
        }
        vm.ask_agent(host);
    }

    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        if let Some(mut vm) = self.take_vm(host) {
            vm.qemu.end();
        }
        let log = self.run_dir.join("qemu.log");
        match std::fs::remove_file(&log) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Fault::failed(format!("cannot remove {}: {e}", log.display())))
            }
            _ => Ok(()),
        }
    }
}
