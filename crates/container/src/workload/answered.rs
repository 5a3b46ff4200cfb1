//! System calls that another program answers: the listener of each process's filter is handed to it.

use biga_wire::workload::MAIN;
use serde_json::{Value, json};

use super::{ContainerWorkload, Pending};
use crate::control::{self, Message};
use crate::error::{Context, Error};
use crate::seccomp::Listener;

/// The runtime specification whose words are used towards programs that answer system calls.
const SPEC_VERSION: &str = "1.2.0";

impl ContainerWorkload {
    /// Who answers system calls, with the state of the container as the specification has it.
    pub(super) fn listening(&self, status: &str) -> Option<(Listener, Value)> {
        let listener = self.filter.as_ref()?.listener.clone()?;
        let pid = self.streams.get(&MAIN).map_or(0, |s| s.child.pid);
        let state = json!({
            "ociVersion": SPEC_VERSION, "id": self.config.uid, "status": status, "pid": pid, "bundle": self.config.run_dir,
            "annotations": {"dev.biga.name": self.config.name},
        });
        Some((listener, state))
    }
}

impl Pending {
    /// Hands the listener of its filter over, and lets it go on.
    pub(super) fn hand_over(&self, number: i32) -> Result<(), Error> {
        let Some((listener, state)) = &self.listening else {
            return Err(Error::State("it speaks of a listener that nobody asked for"));
        };
        let mut state = state.clone();
        if state["pid"] == 0 {
            // It is the first one.
            state["pid"] = self.child.pid.into();
        }
        listener.hand_over(&self.child, number, SPEC_VERSION, &state)?;
        control::send(&self.socket, &Message::Listener(number), None).step(|| "speak to the container's process".into())
    }
}
