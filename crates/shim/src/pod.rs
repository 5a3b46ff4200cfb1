//! The containers of a pod, as the shim keeps count of them: their logs, states and ends.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use biga_wire::config::{self, PodContainer, ShimConfig};
use biga_wire::shim::{ContainerStatus, ErrorCode, Exit, State};
use biga_wire::workload::{Fault, Output, StreamId, container_index, container_stream};

use crate::core::Core;
use crate::files::{now_ns, write_whole};
use crate::log::Log;

/// What the shim keeps of a pod's containers beside their states.
#[derive(Debug)]
pub struct Pod {
    held: Vec<Held>,
    main: usize,
}

#[derive(Debug)]
struct Held {
    log: Log,
    run_dir: PathBuf,
}

impl Pod {
    /// That of a configuration, and the first states; `None` where it is no pod.
    pub fn new(config: &ShimConfig) -> Option<(Pod, Vec<ContainerStatus>)> {
        let config::Workload::Pod(pod) = &config.workload else {
            return None;
        };
        let held = pod.containers.iter().map(|c| Held {
            log: Log::new(&c.log),
            run_dir: PodContainer::dir(&config.run_dir, &c.name),
        });
        let states = pod.containers.iter().map(|c| ContainerStatus {
            name: c.name.clone(),
            ..ContainerStatus::default()
        });
        let main = pod.containers.iter().position(|c| c.name == pod.main).unwrap_or(0);
        Some((
            Pod {
                held: held.collect(),
                main,
            },
            states.collect(),
        ))
    }

    /// Stream of the container that is meant where none is named.
    pub fn main(&self) -> Option<StreamId> {
        container_stream(self.main)
    }

    /// Adds output to the log of the container whose stream it is.
    pub fn log(&mut self, stream: StreamId, output: Output, bytes: &[u8]) {
        if let Some(held) = container_index(stream).and_then(|i| self.held.get_mut(i)) {
            held.log.add(output, bytes);
        }
    }

    /// Sends lines that wait for their receiver.
    pub fn flush_logs(&mut self) {
        self.held.iter_mut().for_each(|h| h.log.flush());
    }

    /// When lines are to be sent again.
    pub fn logs_wait(&self) -> Option<Duration> {
        self.held.iter().filter_map(|h| h.log.wait()).min()
    }
}

/// How a start that failed is counted: Docker's codes.
pub fn failed_start(fault: &Fault) -> Exit {
    Exit {
        code: match fault.code {
            ErrorCode::NotFound => 127,
            ErrorCode::NotExecutable => 126,
            _ => 128,
        },
        error: Some(fault.message.clone()),
        ..Exit::default()
    }
}

impl Core {
    /// State of the container whose entrypoint is this stream.
    pub fn container(&self, stream: StreamId) -> Option<&ContainerStatus> {
        self.status.containers.get(container_index(stream)?)
    }

    /// The stream of the entrypoint of the container with this name.
    pub fn container_named(&self, name: &str) -> Option<StreamId> {
        container_stream(self.status.containers.iter().position(|c| c.name == name)?)
    }

    /// A container's entrypoint was executed, or could not be.
    pub(crate) fn container_started(&mut self, stream: StreamId, result: Result<u32, Fault>) {
        let Some(state) = container_index(stream).and_then(|i| self.status.containers.get_mut(i)) else {
            return;
        };
        state.starts += 1;
        match result {
            Ok(pid) => {
                state.state = State::Running;
                state.pid = Some(pid);
                state.started_ns = Some(now_ns());
                if self.pod.as_ref().and_then(Pod::main) == Some(stream) {
                    self.status.pid = Some(pid);
                }
                self.set_state(self.status.state);
            }
            Err(fault) => {
                state.started_ns = None;
                self.container_ended(stream, failed_start(&fault));
            }
        }
    }

    /// A container ended: written down first, then told.
    pub(crate) fn container_ended(&mut self, stream: StreamId, mut exit: Exit) {
        let Some(index) = container_index(stream) else { return };
        let (Some(pod), Some(state)) = (&mut self.pod, self.status.containers.get_mut(index)) else {
            return;
        };
        if exit.at_ns == 0 {
            exit.at_ns = now_ns();
        }
        state.state = State::Exited;
        state.pid = None;
        state.exit = Some(exit.clone());
        state.last_started_ns = state.started_ns;
        if pod.main == index {
            self.status.pid = None;
        }
        if let Some(held) = pod.held.get_mut(index) {
            held.log.finish();
            // Without the file a client that is connected still hears it; nothing better can be done here.
            let _: io::Result<()> = write_whole(
                &held.run_dir.join("exit.json"),
                &serde_json::to_vec(&exit).unwrap_or_default(),
            );
        }
        self.poll.timer(crate::poll::Timer::GraceOf(stream), None);
        self.set_state(self.status.state);
        self.end_streams(stream, &exit);
    }
}
