//! A microvm: an OCI image under a kernel of its own.
//!
//! ```text
//!            start            Setup, Start answered          main process ended
//!  Created ─────────► Booting ─────────────────────► Running ─────────────────► (Keeping, ) Ending
//!                        │                              │                                    │ Shutdown answered,
//!                        │ QEMU ended, or no answer     │ QEMU ended                         │ or no answer in time
//!                        └──────────────► Ended ◄───────┴────────────────────────────────────┘
//! ```
//!
//! QEMU starts with [`Workload::start`], so a created microvm costs nothing. The instance has ended when QEMU has: then
//! its disks are whole and free. Inside runs our init ([`biga_wire::guest`] is what it is told).
//!
//! - [`boot`]: disks, shared directories and what the guest is told of them
//! - [`share`]: virtiofs daemons
//! - [`changes`]: what a step of a build changed

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use biga_wire::config::{Limits, Microvm, ShimConfig};
use biga_wire::files::FileWork;
use biga_wire::guest;
use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Reply, Stats};
use biga_wire::workload::{CONSOLE, Fault, Host, Interest, MAIN, Output, StreamId, Workload};
use biga_wire::{Frame, FrameKind};
use rustix::process::Signal;
use serde_json::Value;

use crate::channel::{Channel, Incoming};
use crate::duplex::{self, Duplex, Got};
use crate::qemu::args::{self, Card, Fds, MicrovmArgs};
use crate::qemu::process::{Daemon, number};
use crate::qmp::{Message, Qmp};

pub mod boot;
pub mod changes;
pub mod share;
pub(crate) mod usage;

use boot::Boot;
use changes::Changes;
use usage::Usage;

const QEMU: u32 = 1;
const CHANNEL: u32 = 2;
const QMP: u32 = 3;
const SERIAL: u32 = 4;

const BOOT_TIMER: u32 = 1;
const KILL_TIMER: u32 = 2;
const SHUTDOWN_TIMER: u32 = 3;
const CHANGES_TIMER: u32 = 4;

/// A guest that says nothing for so long after power-on does not boot.
const BOOT_TIME: Duration = Duration::from_secs(180);
/// A guest that does not kill its main process within this is switched off.
const KILL_TIME: Duration = Duration::from_secs(5);
/// A guest that does not write its disks within this is switched off.
const SHUTDOWN_TIME: Duration = Duration::from_secs(20);
/// Wait for an answer of QEMU's monitor.
const QMP_TIME: Duration = Duration::from_secs(10);
/// Bytes of console kept to explain a boot that fails.
const TAIL: usize = 4 << 10;

/// The shim's [`Workload`] for [`Microvm`].
#[derive(Debug)]
pub struct MicrovmWorkload {
    name: String,
    run_dir: PathBuf,
    state_dir: PathBuf,
    limits: Limits,
    config: Microvm,
    boot: Option<Boot>,
    vm: Option<Vm>,
    console_tail: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Booting,
    Running,
    /// The main process ended so; the guest sends what it changed.
    Keeping(Exit, Changes),
    /// The main process ended so; the guest was told to write its disks.
    Ending(Exit),
}

/// What there is while QEMU runs.
#[derive(Debug)]
struct Vm {
    qemu: Daemon,
    channel: Channel,
    qmp: Qmp,
    serial: Duplex,
    phase: Phase,
    paused: bool,
    /// SIGKILL was wanted.
    killed: bool,
    /// Execs: whether they were started.
    execs: BTreeMap<StreamId, bool>,
    /// Why the conversation ended, where it did.
    broken: Option<String>,
    usage: Usage,
}

/// The stream of the guest's channel; 0 is control there.
fn wire(stream: StreamId) -> u16 {
    stream.saturating_add(guest::MAIN_STREAM)
}

impl MicrovmWorkload {
    /// Takes the configuration; makes nothing yet.
    pub fn new(shim: &ShimConfig, config: &Microvm) -> MicrovmWorkload {
        MicrovmWorkload {
            name: shim.name.clone(),
            run_dir: shim.run_dir.clone(),
            state_dir: shim.state_dir.clone(),
            limits: shim.limits.clone(),
            config: config.clone(),
            boot: None,
            vm: None,
            console_tail: Vec::new(),
        }
    }

    /// QEMU with everything it needs. On failure all that was made goes away by itself.
    fn power_on(&mut self, host: &mut dyn Host) -> Result<Vm, Fault> {
        let boot = match &mut self.boot {
            Some(boot) => boot,
            none => none.insert(Boot::prepare(&self.config, &self.run_dir, &self.state_dir)?),
        };
        let shares = boot.start_shares(&self.config, host)?;
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
        let line = args::microvm(&MicrovmArgs {
            hypervisor: &self.config.hypervisor,
            name: &self.name,
            kernel: &self.config.kernel,
            initrd: &self.config.initrd,
            disks: boot.disks.clone(),
            shares,
            cards: cards.collect(),
            fds,
            tsc_khz: args::tsc_khz(),
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
        let (Some(qmp), Some(serial), Some(channel)) = (take(QMP), take(SERIAL), take(CHANNEL)) else {
            return Err(Fault::failed("the sockets of QEMU are gone"));
        };
        let mut serial = serial;
        serial.register(host).map_err(|e| failed("watch the console", e))?;
        host.watch(qemu.as_fd(), QEMU, Interest::READ)
            .map_err(|e| failed("watch the QEMU", e))?;
        Ok(Vm {
            qmp: Qmp::new(qmp, host).map_err(|e| failed("watch the monitor", e))?,
            channel: Channel::new(channel, host).map_err(|e| failed("watch the guest channel", e))?,
            qemu,
            serial,
            phase: Phase::Booting,
            paused: false,
            killed: false,
            execs: BTreeMap::new(),
            broken: None,
            usage: Usage::default(),
        })
    }

    fn on_channel(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        match vm.channel.messages(host) {
            Ok(messages) => {
                for message in messages {
                    self.on_message(message, host);
                }
            }
            Err(e) => {
                vm.broken = Some(e.to_string());
                vm.channel.close(host);
                vm.qemu.kill(Signal::KILL);
            }
        }
    }

    fn on_message(&mut self, message: Incoming, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        match message {
            Incoming::Reply(0, reply) => vm.on_control(reply),
            Incoming::Reply(guest::CHANGES_STREAM, Reply::Exec { .. }) => {}
            Incoming::Reply(guest::CHANGES_STREAM, reply) => {
                let error = match reply {
                    Reply::Error { message, .. } => message,
                    _ => "the guest gave an answer that fits no work on files".to_owned(),
                };
                let code = 1;
                self.on_changes_end(
                    &Exit {
                        code,
                        error: Some(error),
                        ..Exit::default()
                    },
                    host,
                );
            }
            Incoming::Data(guest::CHANGES_STREAM, output, bytes) => self.on_changes(output, &bytes, host),
            Incoming::Exit(guest::CHANGES_STREAM, exit) => self.on_changes_end(&exit, host),
            Incoming::Reply(id, reply) => self.on_started(id - guest::MAIN_STREAM, reply, host),
            Incoming::Data(id, output, bytes) => {
                let stream = id - guest::MAIN_STREAM;
                host.output(stream, output, &bytes);
                vm.channel.handed(id, bytes.len());
                if host.room(stream) > 0 {
                    vm.channel.credit(id, host);
                }
            }
            Incoming::Credit(id) if id != 0 => host.input_room(id - guest::MAIN_STREAM),
            Incoming::Credit(_) => {}
            Incoming::Exit(guest::MAIN_STREAM, exit) => self.on_main_exit(exit, host),
            Incoming::Exit(id, exit) => {
                vm.channel.close_stream(id);
                if vm.execs.remove(&(id - guest::MAIN_STREAM)).is_some() {
                    host.exited(id - guest::MAIN_STREAM, exit);
                }
            }
            Incoming::Error(id, text) => {
                let exit = Exit {
                    code: 255,
                    error: Some(text),
                    ..Exit::default()
                };
                self.on_message(Incoming::Exit(id, exit), host);
            }
            // QEMU's end tells the rest.
            Incoming::End => {}
        }
    }

    fn on_started(&mut self, stream: StreamId, reply: Reply, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        let result = match reply {
            Reply::Exec { pid } => Ok(pid),
            Reply::Error { code, message } => Err(Fault::new(code, message)),
            _ => Err(Fault::failed(
                "the guest gave an answer that fits no start of a process",
            )),
        };
        if stream == MAIN {
            // After a failed set-up the answer to the start says nothing new: the end of QEMU tells the cause.
            if !matches!(vm.phase, Phase::Booting) || vm.broken.is_some() {
                return;
            }
            host.timer(BOOT_TIMER, None);
            match result {
                Ok(_) => {
                    vm.phase = Phase::Running;
                    host.started(MAIN, Ok(vm.qemu.pid()));
                }
                Err(fault) => self.fail_start(fault, host),
            }
            return;
        }
        match (vm.execs.get_mut(&stream), result) {
            (Some(started @ false), Ok(pid)) => {
                *started = true;
                host.started(stream, Ok(pid));
            }
            (Some(false), Err(fault)) => {
                vm.execs.remove(&stream);
                vm.channel.close_stream(wire(stream));
                host.started(stream, Err(fault));
            }
            _ => {}
        }
    }

    /// The entrypoint could not be run.
    fn fail_start(&mut self, fault: Fault, host: &mut dyn Host) {
        self.power_off(host);
        host.started(MAIN, Err(fault));
    }

    fn on_main_exit(&mut self, exit: Exit, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        if !matches!(vm.phase, Phase::Running) {
            return;
        }
        host.timer(KILL_TIMER, None);
        let ended_well = exit.code == 0 && exit.error.is_none() && !vm.killed;
        let Some(without) = self.config.keep_changes.clone().filter(|_| ended_well) else {
            return vm.shut_down(exit, host);
        };
        match Changes::begin(&self.state_dir, self.config.rw_size.saturating_mul(2)) {
            Ok(changes) => {
                vm.phase = Phase::Keeping(exit, changes);
                host.timer(CHANGES_TIMER, Some(changes::PATIENCE));
                let work = FileWork::Layer { without };
                vm.channel
                    .request(guest::CHANGES_STREAM, &guest::Request::Files { work }, host);
            }
            Err(e) => {
                let error = Some(format!("what it changed was not kept: {e}"));
                vm.shut_down(Exit { error, ..exit }, host);
            }
        }
    }

    fn on_changes(&mut self, output: Output, bytes: &[u8], host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        let Phase::Keeping(_, changes) = &mut vm.phase else {
            return;
        };
        if !changes.take(output, bytes) {
            return self.on_changes_end(&Exit::default(), host);
        }
        host.timer(CHANGES_TIMER, Some(changes::PATIENCE));
        vm.channel.handed(guest::CHANGES_STREAM, bytes.len());
        vm.channel.credit(guest::CHANGES_STREAM, host);
    }

    fn on_changes_end(&mut self, how: &Exit, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        match std::mem::replace(&mut vm.phase, Phase::Running) {
            Phase::Keeping(exit, changes) => {
                host.timer(CHANGES_TIMER, None);
                vm.channel.close_stream(guest::CHANGES_STREAM);
                let error = changes.end(how).or(exit.error);
                vm.shut_down(Exit { error, ..exit }, host);
            }
            other => vm.phase = other,
        }
    }

    fn on_qmp(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        for message in vm.qmp.messages(host).into_iter().flatten() {
            match message {
                // Under emulation the guest's opening of its port does not wake the loop of QEMU that would now read what we
                // sent; any command does. Without it a guest that is idle at once is never spoken to.
                Message::Event { name, data } if name == "VSERPORT_CHANGE" && data["id"] == args::GUEST_PORT => {
                    vm.qmp.send("query-status", Value::Null, host);
                }
                Message::Event { name, .. } if name == "STOP" => vm.paused = true,
                Message::Event { name, .. } if name == "RESUME" => vm.paused = false,
                Message::Event { name, data } if name == "GUEST_PANICKED" => {
                    vm.broken = Some(format!(
                        "the guest's kernel panicked ({})",
                        data["action"].as_str().unwrap_or("")
                    ));
                }
                _ => {}
            }
        }
    }

    fn on_serial(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        let mut buf = [0; 16 << 10];
        loop {
            if host.room(CONSOLE) == 0 {
                return vm.serial.set_reading(false, host);
            }
            match vm.serial.read(&mut buf) {
                Got::Bytes(n) => {
                    usage::keep_tail(&mut self.console_tail, &buf[..n], TAIL);
                    host.output(CONSOLE, Output::Stdout, &buf[..n]);
                }
                Got::Nothing => return,
                Got::End => return vm.serial.close(host),
            }
        }
    }

    /// QEMU ended: everything that still waits is told.
    fn on_qemu_end(&mut self, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        let Some(status) = vm.qemu.try_wait() else { return };
        // What it sent last is still in the sockets.
        self.on_channel(host);
        self.on_serial(host);
        let Some(mut vm) = self.take_vm(host) else { return };
        for (stream, started) in std::mem::take(&mut vm.execs) {
            match started {
                true => host.exited(stream, killed_exit()),
                false => host.started(stream, Err(Fault::state("the microvm ended"))),
            }
        }
        match vm.phase {
            Phase::Ending(exit) => host.exited(MAIN, exit),
            Phase::Keeping(exit, _) => {
                let error = Some(format!("QEMU ended before what it changed was kept ({status})"));
                host.exited(MAIN, Exit { error, ..exit });
            }
            Phase::Booting if vm.killed => {
                host.started(MAIN, Err(Fault::state("the microvm was killed while it booted")))
            }
            Phase::Booting => host.started(MAIN, Err(self.boot_fault(&vm, &status.to_string()))),
            Phase::Running => {
                let error = match vm.killed {
                    true => None,
                    false => Some(
                        vm.broken
                            .unwrap_or_else(|| format!("QEMU ended unexpectedly ({status})")),
                    ),
                };
                host.exited(MAIN, Exit { error, ..killed_exit() });
            }
        }
    }

    fn boot_fault(&self, vm: &Vm, status: &str) -> Fault {
        let log = std::fs::read_to_string(self.run_dir.join("qemu.log")).unwrap_or_default();
        let why = vm.broken.clone().unwrap_or_else(|| format!("QEMU ended with {status}"));
        let mut message = format!("microvm {} did not boot: {why}", self.name);
        for (title, text) in [
            ("QEMU said", log.as_str()),
            ("console", &String::from_utf8_lossy(&self.console_tail)),
        ] {
            if !text.trim().is_empty() {
                message.push_str(&format!("; {title}: {}", usage::last_lines(text, 8)));
            }
        }
        Fault::failed(message)
    }

    /// Takes the machine's parts out of the loop.
    fn take_vm(&mut self, host: &mut dyn Host) -> Option<Vm> {
        let mut vm = self.vm.take()?;
        for timer in [BOOT_TIMER, KILL_TIMER, SHUTDOWN_TIMER, CHANGES_TIMER] {
            host.timer(timer, None);
        }
        host.unwatch(vm.qemu.as_fd());
        vm.channel.close(host);
        vm.qmp.close(host);
        vm.serial.close(host);
        if let Some(boot) = &mut self.boot {
            boot.stop_shares();
        }
        Some(vm)
    }

    /// Switches it off at once.
    fn power_off(&mut self, host: &mut dyn Host) {
        if let Some(mut vm) = self.take_vm(host) {
            vm.qemu.end();
        }
    }

    fn vm(&mut self) -> Result<&mut Vm, Fault> {
        self.vm
            .as_mut()
            .ok_or_else(|| Fault::state(format!("microvm {} is not running", self.name)))
    }

    /// Asks the guest for another process.
    fn begin(&mut self, stream: StreamId, request: &guest::Request, host: &mut dyn Host) -> Result<(), Fault> {
        let name = self.name.clone();
        let vm = self.vm()?;
        if !matches!(vm.phase, Phase::Running) || vm.paused {
            return Err(Fault::state(format!(
                "microvm {name} does not run a process now: it is paused, booting or ending"
            )));
        }
        vm.execs.insert(stream, false);
        vm.channel.request(wire(stream), request, host);
        Ok(())
    }

    fn monitor(&mut self, command: &str, host: &mut dyn Host) -> Result<Value, Fault> {
        let vm = self.vm()?;
        let answer = vm.qmp.call(command, Value::Null, QMP_TIME, host);
        self.on_qmp(host);
        answer.map_err(|e| Fault::failed(e.to_string()))
    }
}

impl Vm {
    /// The guest writes its disks, and that is its end.
    fn shut_down(&mut self, exit: Exit, host: &mut dyn Host) {
        host.timer(SHUTDOWN_TIMER, Some(SHUTDOWN_TIME));
        self.phase = Phase::Ending(exit);
        self.channel.request(0, &guest::Request::Shutdown, host);
    }

    fn on_control(&mut self, reply: Reply) {
        match (&self.phase, reply) {
            // All is on disk: nothing is left to do inside.
            (Phase::Ending(_), _) => self.qemu.kill(Signal::KILL),
            (_, Reply::Error { message, .. }) => {
                self.broken = Some(format!("its init: {message}"));
                self.qemu.kill(Signal::KILL);
            }
            _ => {}
        }
    }
}

fn killed_exit() -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        ..Exit::default()
    }
}

impl Workload for MicrovmWorkload {
    fn create(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        self.boot = Some(Boot::prepare(&self.config, &self.run_dir, &self.state_dir)?);
        Ok(())
    }

    fn start(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        if self.vm.is_some() {
            return Err(Fault::state(format!("microvm {} runs already", self.name)));
        }
        let mut vm = match self.power_on(host) {
            Ok(vm) => vm,
            Err(fault) => {
                if let Some(boot) = &mut self.boot {
                    boot.stop_shares();
                }
                return Err(fault);
            }
        };
        // A guest that was created with lower limits begins with the present ones.
        let _ = host.cgroup_limits(&self.limits);
        host.timer(BOOT_TIMER, Some(BOOT_TIME));
        let setup = match &self.boot {
            Some(boot) => Box::new(boot.setup(&self.config)),
            None => Box::default(),
        };
        vm.channel.request(0, &guest::Request::Setup { setup }, host);
        vm.channel.request(guest::MAIN_STREAM, &guest::Request::Start, host);
        self.vm = Some(vm);
        Ok(())
    }

    fn exec(&mut self, stream: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<(), Fault> {
        let exec = Box::new(spec.clone());
        self.begin(stream, &guest::Request::Exec { exec }, host)
    }

    fn files(&mut self, stream: StreamId, work: &FileWork, host: &mut dyn Host) -> Result<(), Fault> {
        self.begin(stream, &guest::Request::Files { work: work.clone() }, host)
    }

    fn signal(&mut self, stream: StreamId, signal: i32, host: &mut dyn Host) -> Result<(), Fault> {
        let vm = self.vm()?;
        let kill = signal == Signal::KILL.as_raw();
        if stream == MAIN && kill {
            vm.killed = true;
            if matches!(vm.phase, Phase::Booting | Phase::Keeping(..)) || vm.paused {
                vm.qemu.kill(Signal::KILL);
                return Ok(());
            }
            host.timer(KILL_TIMER, Some(KILL_TIME));
        }
        let number =
            u32::try_from(signal).map_err(|_| Fault::new(ErrorCode::Invalid, format!("no signal {signal}")))?;
        let frame = Frame::with_number(FrameKind::Signal, number).on(wire(stream));
        vm.channel.send(frame, host);
        Ok(())
    }

    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize {
        match &mut self.vm {
            // The kernel console takes no input: nothing inside reads it.
            Some(vm) if stream != CONSOLE => vm.channel.input(wire(stream), bytes, host),
            _ => bytes.len(),
        }
    }

    fn close_input(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(vm) = &mut self.vm
            && stream != CONSOLE
        {
            vm.channel
                .send(Frame::new(FrameKind::StdinEof, []).on(wire(stream)), host);
        }
    }

    fn resize(&mut self, stream: StreamId, rows: u16, cols: u16, host: &mut dyn Host) {
        if let Some(vm) = &mut self.vm
            && stream != CONSOLE
        {
            vm.channel.send(Frame::resize(rows, cols).on(wire(stream)), host);
        }
    }

    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        if stream == CONSOLE {
            vm.serial.set_reading(true, host);
        } else {
            vm.channel.credit(wire(stream), host);
        }
    }

    fn console(&self) -> Option<StreamId> {
        Some(CONSOLE)
    }

    fn pause(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.monitor("stop", host)?;
        self.vm()?.paused = true;
        Ok(())
    }

    fn resume(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.monitor("cont", host)?;
        self.vm()?.paused = false;
        Ok(())
    }

    fn update(&mut self, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault> {
        if limits.memory != self.limits.memory && limits.memory.is_some_and(|m| m != self.config.hypervisor.memory) {
            return Err(Fault::unsupported(
                "a microvm's memory is the size of its machine: stop it, change it, start it",
            ));
        }
        host.cgroup_limits(limits)
            .map_err(|e| Fault::failed(format!("cannot change the limits of microvm {}: {e}", self.name)))?;
        self.limits = limits.clone();
        Ok(())
    }

    fn stats(&mut self, host: &mut dyn Host) -> Result<Stats, Fault> {
        let nics = &self.config.nics;
        let memory = self.config.hypervisor.memory;
        let vm = self
            .vm
            .as_mut()
            .ok_or_else(|| Fault::state(format!("microvm {} is not running", self.name)))?;
        let pid = vm.qemu.pid();
        let stats = vm.usage.sample(&mut vm.qmp, pid, nics, memory, host);
        self.on_qmp(host);
        Ok(stats)
    }

    fn pids(&mut self, _host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        let mut pids = vec![self.vm()?.qemu.pid()];
        pids.extend(self.boot.iter().flat_map(Boot::share_pids));
        Ok(pids)
    }

    fn ready(&mut self, token: u32, _ready: Interest, host: &mut dyn Host) {
        match token {
            CHANNEL => self.on_channel(host),
            QMP => self.on_qmp(host),
            SERIAL => {
                if let Some(vm) = &mut self.vm {
                    vm.serial.flush(host);
                }
                self.on_serial(host);
            }
            QEMU => self.on_qemu_end(host),
            _ => {}
        }
    }

    fn timer(&mut self, token: u32, _host: &mut dyn Host) {
        let Some(vm) = &mut self.vm else { return };
        if token == BOOT_TIMER {
            vm.broken = Some(format!("the guest said nothing within {} s", BOOT_TIME.as_secs()));
        }
        if let (SHUTDOWN_TIMER, Phase::Ending(exit)) = (token, &mut vm.phase) {
            exit.error = Some("the guest did not write its disks in time and was switched off".to_owned());
        }
        vm.qemu.kill(Signal::KILL);
    }

    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.power_off(host);
        match self.boot.take() {
            Some(mut boot) => boot.remove(),
            None => Ok(()),
        }
    }
}
