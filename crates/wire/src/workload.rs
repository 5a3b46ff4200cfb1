//! What a shim holds: the one interface behind which a container, a microvm and a machine differ.
//!
//! A shim is one thread around one `epoll`. It owns the socket, its clients, the log, the timers and the
//! state; a [`Workload`] owns processes and their file descriptors. The workload never blocks for long, and it
//! speaks back through [`Host`].
//!
//! ```text
//!   clients ◄──frames──► shim (loop, log, exit.json) ◄──Host── Workload ◄──► processes, pty, QMP, guest channel
//!                                                    ──calls──►
//! ```
//!
//! Order of calls: [`Workload::create`] once, [`Workload::start`] at most once, anything while it runs,
//! [`Workload::delete`] once and last.
//!
//! Streams: every process with input and output is a stream. [`MAIN`] is the entrypoint (the serial console of a
//! machine, which has no entrypoint), [`CONSOLE`] the kernel console of a microvm, and the shim numbers
//! execs from [`FIRST_EXEC`]. The entrypoints of a pod's containers are numbered from [`FIRST_CONTAINER`], and a pod has no [`MAIN`]. For each stream the workload calls [`Host::started`] once, then [`Host::output`]
//! any number of times, and [`Host::exited`] once and last. [`CONSOLE`] has only output and input.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::checkpoint::CheckpointSpec;
use crate::config::Limits;
use crate::files::FileWork;
use crate::shim::{ErrorCode, Event, ExecSpec, Exit, Stats};

/// Number of a stream; fits the stream field of a frame.
pub type StreamId = u16;

/// The entrypoint of a container or microvm; a machine's serial console.
pub const MAIN: StreamId = 0;
/// The kernel console of a microvm.
pub const CONSOLE: StreamId = 1;
/// Execs are numbered from here, by the shim; a number is used again only after [`Host::exited`].
pub const FIRST_EXEC: StreamId = 2;

/// The entrypoints of a pod's containers are numbered from here, in the order of the configuration; execs stay below.
pub const FIRST_CONTAINER: StreamId = 0xff00;
/// So many containers a pod can have.
pub const MAX_CONTAINERS: usize = 0x100;

/// The stream of the entrypoint of a pod's container, by its place in the configuration.
pub fn container_stream(index: usize) -> Option<StreamId> {
    (index < MAX_CONTAINERS).then(|| FIRST_CONTAINER + index as StreamId)
}

/// The place in the configuration of the container whose entrypoint this stream is.
pub fn container_index(stream: StreamId) -> Option<usize> {
    stream.checked_sub(FIRST_CONTAINER).map(usize::from)
}

/// Why a workload said no; becomes [`crate::shim::Reply::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened, to what, and what to do.
    pub message: String,
}

impl Fault {
    /// A fault of any kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Fault {
        Fault {
            code,
            message: message.into(),
        }
    }

    /// [`ErrorCode::Failed`].
    pub fn failed(message: impl Into<String>) -> Fault {
        Fault::new(ErrorCode::Failed, message)
    }

    /// [`ErrorCode::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Fault {
        Fault::new(ErrorCode::Unsupported, message)
    }

    /// [`ErrorCode::State`].
    pub fn state(message: impl Into<String>) -> Fault {
        Fault::new(ErrorCode::State, message)
    }
}

/// Which of a process's two outputs. A terminal has only [`Output::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// File descriptor 1, and all of a terminal.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// What to wait for on a file descriptor. Hang-up and error are always reported, as readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Until it can be read.
    pub read: bool,
    /// Until it can be written.
    pub write: bool,
}

impl Interest {
    /// Until it can be read.
    pub const READ: Interest = Interest {
        read: true,
        write: false,
    };
    /// Until it can be written.
    pub const WRITE: Interest = Interest {
        read: false,
        write: true,
    };
    /// Either.
    pub const BOTH: Interest = Interest {
        read: true,
        write: true,
    };
}

/// What a workload can ask of its shim. All calls return at once and call nothing back.
pub trait Host {
    /// Waits (level-triggered) on a file descriptor; [`Workload::ready`] is then called with `token`. Called again
    /// for the same descriptor it changes token and interest. The workload keeps owning the descriptor.
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Waits no more. Must be called before the descriptor is closed.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);

    /// Calls [`Workload::timer`] with `token` once after so long. A token has one timer: setting it again moves it,
    /// `None` cancels it.
    fn timer(&mut self, token: u32, after: Option<Duration>);

    /// A stream's process was executed (its id on the host, or inside a guest), or could not be.
    /// After an error the stream is gone: no [`Host::exited`] follows.
    fn started(&mut self, stream: StreamId, result: Result<u32, Fault>);

    /// Bytes that `output` would take now without growing beyond the bound of a slow client. At 0 stop reading the
    /// source; [`Workload::output_room`] is called when there is room again. A stream without a client always has room.
    fn room(&self, stream: StreamId) -> usize;

    /// Bytes of a process, for its clients and (of [`MAIN`]) its log. Always takes all.
    fn output(&mut self, stream: StreamId, output: Output, bytes: &[u8]);

    /// [`Workload::input`] took less than offered and would now take more.
    fn input_room(&mut self, stream: StreamId);

    /// The stream's process ended and all its output was handed over. `at_ns` 0 is filled in by the shim.
    /// Of [`MAIN`]: the instance ended.
    fn exited(&mut self, stream: StreamId, exit: Exit);

    /// What [`Workload::checkpoint`] began is done, or failed and the processes go on.
    /// Called by workloads that can do it only.
    fn checkpointed(&mut self, _result: Result<(), Fault>) {}

    /// Something the watchers should know. State changes are announced by the shim itself.
    fn event(&mut self, event: Event);

    /// Names the accelerator in the status: `kvm` or `tcg`.
    fn accelerator(&mut self, name: &str);

    /// Moves a child process of a machine into the instance's control group, which the first call makes with the
    /// configuration's limits for processor and processes. (Memory is the guest's size, so it is not limited there.) A container makes its own group.
    fn cgroup_add(&mut self, pid: u32) -> io::Result<()>;

    /// Changes the limits (processor, processes) of the group made by [`Host::cgroup_add`].
    fn cgroup_limits(&mut self, limits: &Limits) -> io::Result<()>;

    /// A sample of the group made by [`Host::cgroup_add`]; zeros where there is none.
    fn cgroup_stats(&mut self) -> Stats;
}

/// What a shim holds.
pub trait Workload {
    /// Makes all that can be made before the entrypoint runs, and nothing on failure.
    fn create(&mut self, host: &mut dyn Host) -> Result<(), Fault>;

    /// Begins to run the entrypoint; the result comes by [`Host::started`] of [`MAIN`], in this call or later. An `Err` here
    /// means the same as one given there.
    fn start(&mut self, host: &mut dyn Host) -> Result<(), Fault>;

    /// Begins another process as `stream`; the result comes by [`Host::started`], in this call or later. An `Err` here means the
    /// same as one given there.
    fn exec(&mut self, stream: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<(), Fault>;

    /// As [`Workload::exec`], for work on files that is done inside.
    fn files(&mut self, _stream: StreamId, _work: &FileWork, _host: &mut dyn Host) -> Result<(), Fault> {
        Err(Fault::unsupported(
            "only the init of a microvm works on files: those of a container are reached from outside, those of a machine not at all",
        ))
    }

    /// Sends a signal to the process of a stream. Of [`MAIN`] of a machine: SIGTERM presses its power button, SIGKILL ends it.
    fn signal(&mut self, stream: StreamId, signal: i32, host: &mut dyn Host) -> Result<(), Fault>;

    /// Offers input; answers how many bytes were taken. After a short answer the rest is offered again once [`Host::input_room`] was called. A process
    /// that closed its input takes and drops everything.
    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize;

    /// No more input: closes the pipe, after what was taken went out. On a terminal it does nothing.
    fn close_input(&mut self, stream: StreamId, host: &mut dyn Host);

    /// Sets a terminal's size; ignored where there is none.
    fn resize(&mut self, stream: StreamId, rows: u16, cols: u16, host: &mut dyn Host);

    /// There is room for output again (see [`Host::room`]).
    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host);

    /// Which stream [`crate::shim::Request::Console`] shows; `None` where there is no console.
    fn console(&self) -> Option<StreamId>;

    /// Freezes it.
    fn pause(&mut self, host: &mut dyn Host) -> Result<(), Fault>;

    /// Thaws it.
    fn resume(&mut self, host: &mut dyn Host) -> Result<(), Fault>;

    /// Changes limits while it runs.
    fn update(&mut self, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault>;

    /// A sample. `at_ns` 0 is filled in by the shim.
    fn stats(&mut self, host: &mut dyn Host) -> Result<Stats, Fault>;

    /// Ids of processes on the host.
    fn pids(&mut self, host: &mut dyn Host) -> Result<Vec<u32>, Fault>;

    /// A watched descriptor is ready.
    fn ready(&mut self, token: u32, ready: Interest, host: &mut dyn Host);

    /// A timer ended.
    fn timer(&mut self, token: u32, host: &mut dyn Host);

    /// Kills what runs and undoes what was made; may wait a few seconds for the kernel. Also called after [`MAIN`]
    /// exited, to give everything back; calling it twice is harmless.
    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault>;

    /// Begins to save the processes; the result comes by [`Host::checkpointed`] later. An `Err` here means the same as one given
    /// there.
    fn checkpoint(&mut self, _spec: &CheckpointSpec, _host: &mut dyn Host) -> Result<(), Fault> {
        Err(Fault::unsupported(
            "only a container of one program can be checkpointed, not what has a kernel of its own or several containers",
        ))
    }

    /// What a workload of several containers can do beyond this; `None` where there is one program.
    fn containers(&mut self) -> Option<&mut dyn Containers> {
        None
    }
}

/// A workload of several containers, each known by the stream of its entrypoint (see [`FIRST_CONTAINER`]).
///
/// [`Workload::create`] makes what they share, and [`Workload::start`] is not called. [`Workload::pause`], [`Workload::resume`],
/// [`Workload::update`], [`Workload::stats`] and [`Workload::pids`] are about all of them together. [`Host::exited`] of an entrypoint comes
/// when nothing of its container is left.
pub trait Containers {
    /// Makes a container and runs its entrypoint, for the first time or after it ended; the result comes by [`Host::started`], in
    /// this call or later. An `Err` here means the same as one given there: nothing is left of it.
    fn start(&mut self, container: StreamId, host: &mut dyn Host) -> Result<(), Fault>;

    /// As [`Workload::exec`], in a container that runs.
    fn exec(
        &mut self,
        container: StreamId,
        stream: StreamId,
        spec: &ExecSpec,
        host: &mut dyn Host,
    ) -> Result<(), Fault>;

    /// Changes the limits of a container that runs.
    fn update(&mut self, container: StreamId, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault>;

    /// A sample of a container that runs. `at_ns` 0 is filled in by the shim.
    fn stats(&mut self, container: StreamId, host: &mut dyn Host) -> Result<Stats, Fault>;

    /// Ids of a container's processes on the host.
    fn pids(&mut self, container: StreamId, host: &mut dyn Host) -> Result<Vec<u32>, Fault>;
}
