//! What agent and shim say to each other. The guest of a microvm is asked in the same words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointSpec;
use crate::config::Limits;
use crate::files::FileWork;

/// First frame of a connection to the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// Answered by [`Reply::Status`].
    Status,
    /// Start the entrypoint of a created instance. [`Reply::Status`] when the entrypoint was executed.
    Start,
    /// Send a signal to the main process (a machine takes only SIGKILL and SIGTERM, its ACPI button).
    Signal {
        /// Number.
        signal: i32,
    },
    /// Stop: first signal (or ACPI), and SIGKILL after the grace. Answered at once with [`Reply::Ok`]; the end comes as an event.
    Stop {
        /// First signal.
        signal: i32,
        /// Milliseconds of grace.
        grace_ms: u64,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Change limits while running.
    Update {
        /// The new limits.
        limits: Box<Limits>,
    },
    /// Answered by [`Reply::Stats`].
    Stats,
    /// Start another process inside; the connection becomes its stream. Answered by [`Reply::Exec`].
    Exec {
        /// What to run.
        exec: Box<ExecSpec>,
    },
    /// Work on the files of a microvm, done inside; the connection becomes its stream. Answered by [`Reply::Exec`].
    Files {
        /// What.
        work: FileWork,
    },
    /// The connection becomes a stream of the main process's input and output from now on
    /// (from the beginning where the instance waited for its first client). Answered by [`Reply::Ok`].
    Attach {
        /// Whether this client's input goes to the process.
        stdin: bool,
    },
    /// The connection becomes a stream of the machine's serial console (the kernel console of a microvm). Answered by [`Reply::Ok`].
    Console,
    /// Answered by [`Reply::Status`], the state now; [`Event`]s of what comes after it follow until the connection closes.
    Watch,
    /// Ids of processes inside, as the host sees them. Answered by [`Reply::Pids`].
    Pids,
    /// Kill what runs, undo what was made, exit. Answered by [`Reply::Ok`] when all is undone.
    Delete,
    /// The request is about one container of a pod: `Start` (the first time, or again after it ended), `Stop`, `Signal`, `Exec`,
    /// `Attach`, `Stats`, `Pids`, `Update`. Answered as the request alone. Requests that name no container mean the whole pod;
    /// `Signal`, `Exec` and `Attach` its main container.
    Of {
        /// Its name.
        container: String,
        /// What about it.
        request: Box<Request>,
    },
    /// Save the processes of a container. Answered by [`Reply::Ok`] when the checkpoint is whole; unless they are left running, the
    /// instance then ends, with [`Exit::checkpointed`].
    Checkpoint {
        /// Where and how.
        checkpoint: CheckpointSpec,
    },
    /// A pod is over: what still runs in it is killed, and this is how the instance ended. Answered by [`Reply::Ok`].
    Finish {
        /// How.
        exit: Exit,
    },
}

impl Request {
    /// This request about the container `name` of a pod; about the instance where there is no name.
    pub fn of(self, name: Option<&str>) -> Request {
        match name {
            Some(container) => Request::Of {
                container: container.into(),
                request: Box::new(self),
            },
            None => self,
        }
    }

    /// The request without the container it is about.
    pub fn inner(&self) -> &Request {
        match self {
            Request::Of { request, .. } => request,
            plain => plain,
        }
    }
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reply {
    /// Done.
    Ok,
    /// Not done.
    Error {
        /// One of a few words a program can act on.
        code: ErrorCode,
        /// A sentence for people.
        message: String,
    },
    /// State of the instance.
    Status {
        /// The state.
        status: Status,
    },
    /// A sample.
    Stats {
        /// The sample.
        stats: Box<Stats>,
    },
    /// The process was started.
    Exec {
        /// Its id on the host, or inside a guest.
        pid: u32,
    },
    /// Processes.
    Pids {
        /// Their ids.
        pids: Vec<u32>,
    },
}

/// Why a request failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// The request makes no sense in this state.
    State,
    /// The program to run does not exist (Docker's 127).
    NotFound,
    /// The program to run cannot be executed (Docker's 126).
    NotExecutable,
    /// The request is malformed.
    Invalid,
    /// This isolation or host cannot do it.
    Unsupported,
    /// Anything else; the message says what.
    Failed,
}

/// State of an instance as its shim sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The state.
    pub state: State,
    /// Main process on the host: the entrypoint, or QEMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Set once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// When the entrypoint was executed; nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<u64>,
    /// `kvm` or `tcg` for machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accelerator: String,
    /// Of a pod: its containers, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerStatus>,
}

/// State of one container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// `Created` before its first start, `Running`, or `Exited`.
    pub state: State,
    /// Its entrypoint on the host, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When its entrypoint was last executed; nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ns: Option<u64>,
    /// How it last ended, also while it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// When the run before that end began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_started_ns: Option<u64>,
    /// How often it was started, in vain or not.
    #[serde(default)]
    pub starts: u32,
}

/// States of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// All is made, the entrypoint was not executed.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It ended.
    Exited,
}

/// How a process ended. Also written as `exit.json` into the instance's run directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// 0 to 255; 128+n after signal n.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed something of it for memory.
    #[serde(default)]
    pub oom: bool,
    /// When; nanoseconds since 1970.
    #[serde(default)]
    pub at_ns: u64,
    /// It was ended because it was saved: see [`Request::Checkpoint`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpointed: bool,
    /// Why it never ran, where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something that happened; "look again" for the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The state changed.
    Status {
        /// The state now.
        status: Status,
    },
    /// The kernel killed a process for memory while the instance goes on.
    Oom,
    /// What the guest agent of a machine says; sent when it changes.
    Guest {
        /// The news.
        guest: Guest,
    },
}

/// What the guest agent of a machine says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// Pretty name of the system.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Host name.
    pub hostname: String,
    /// Addresses with prefix length, loopback left out.
    pub addresses: Vec<String>,
}

/// A further process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the instance's environment, `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory; the instance's where unset.
    #[serde(default)]
    pub cwd: Option<String>,
    /// User as in the instance's spec; the instance's where unset.
    #[serde(default)]
    pub user: Option<String>,
    /// Give it a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether this connection's input goes to the process; `/dev/null` otherwise.
    #[serde(default)]
    pub stdin: bool,
    /// With all the host's capabilities.
    #[serde(default)]
    pub privileged: bool,
    /// First window: rows and columns.
    #[serde(default)]
    pub window: Option<(u16, u16)>,
}

/// A sample of what an instance uses. Counters count from its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// When sampled; nanoseconds since 1970.
    pub at_ns: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Of it, in user mode.
    pub cpu_user_ns: u64,
    /// Of it, in the kernel.
    pub cpu_system_ns: u64,
    /// Periods in which it was held back.
    pub throttled_periods: u64,
    /// Bytes of memory in use, page cache that can be dropped at once left out.
    pub memory: u64,
    /// Bytes of page cache that can be dropped at once (`inactive_file`).
    pub memory_cache: u64,
    /// Bytes it may use at most; the host's memory where there is no limit.
    pub memory_limit: u64,
    /// Highest use so far, 0 where the kernel does not say.
    pub memory_peak: u64,
    /// Processes and threads.
    pub pids: u64,
    /// At most so many, 0 for no limit.
    pub pids_limit: u64,
    /// Bytes read from block devices.
    pub block_read: u64,
    /// Bytes written to block devices.
    pub block_write: u64,
    /// Bytes received on its networks.
    pub net_rx: u64,
    /// Bytes sent on its networks.
    pub net_tx: u64,
    /// Processes killed for memory.
    pub oom_kills: u64,
    /// Periods of its processor limit that passed.
    pub cpu_periods: u64,
    /// Nanoseconds it was held back.
    pub throttled_ns: u64,
    /// Bytes in swap.
    pub memory_swap: u64,
    /// Reads from block devices.
    pub block_reads: u64,
    /// Writes to block devices.
    pub block_writes: u64,
    /// Bytes in huge pages, by their size as the kernel names it.
    pub hugetlb: BTreeMap<String, u64>,
    /// What waits for processors, memory and block devices; only where the kernel counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Microseconds in which processes had to wait, since the start (`Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pressure {
    /// Some of them for a processor.
    pub cpu_some_us: u64,
    /// Some of them for memory.
    pub memory_some_us: u64,
    /// All of them for memory.
    pub memory_full_us: u64,
    /// Some of them for a block device.
    pub io_some_us: u64,
    /// All of them for a block device.
    pub io_full_us: u64,
}
