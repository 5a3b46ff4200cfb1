//! The shim: one small process an instance, which holds its processes, streams and exit status and outlives the daemon.
//!
//! ```text
//!   Created ──start──► Running ◄──pause/resume──► Paused
//!      │                  │                          │
//!      └──────────────────┴────────► Exited ◄────────┘      Delete leads out of any state
//! ```
//!
//! It is started with the path of a [`biga_wire::config::ShimConfig`]. Once its socket listens and the instance is made (and
//! runs, with `start`), it writes one [`biga_wire::shim::Reply`] as a line to its standard output and lets go of it. It
//! ends after `Delete`, or by itself some seconds after the instance exited when nobody is connected: `exit.json` then says how.
//!
//! - [`server`]: the loop and what each request does
//! - [`core`]: clients, streams, timers and state, which a workload speaks to
//! - [`pod`]: the containers of an instance that has several
//! - [`client`], [`poll`], [`log`], [`sink`]: the parts of that

pub mod client;
pub mod core;
pub mod log;
pub mod pod;
pub mod poll;
pub mod server;
pub mod sink;

mod files;
mod spill;

use std::path::Path;

use biga_container::{ContainerWorkload, ExternalWorkload, PodWorkload};
use biga_wire::config::{self, ShimConfig};
use biga_wire::workload::{Fault, Workload};

/// Runs a shim to its end. Never panics on a bad configuration: it answers with an error on standard output.
pub fn run(config_path: &Path) -> Result<(), Fault> {
    let text = std::fs::read(config_path).map_err(|e| {
        Fault::failed(format!(
            "cannot read the shim's configuration {}: {e}",
            config_path.display()
        ))
    })?;
    let config: ShimConfig = serde_json::from_slice(&text).map_err(|e| {
        Fault::failed(format!(
            "the shim's configuration {} is not valid: {e}",
            config_path.display()
        ))
    })?;
    let workload = workload(&config)?;
    server::Server::new(config, workload)?.run()
}

/// The one place where a shim tells isolations apart.
fn workload(config: &ShimConfig) -> Result<Box<dyn Workload>, Fault> {
    Ok(match &config.workload {
        config::Workload::Container(c) if c.runtime.is_some() => {
            Box::new(ExternalWorkload::new(config.clone(), (**c).clone())?)
        }
        config::Workload::Container(c) => Box::new(ContainerWorkload::new(config.clone(), (**c).clone())?),
        config::Workload::Pod(p) => Box::new(PodWorkload::new(config.clone(), (**p).clone())?),
        config::Workload::Microvm(m) => Box::new(biga_vm::microvm::MicrovmWorkload::new(config, m)),
        config::Workload::Machine(m) => Box::new(biga_vm::machine::MachineWorkload::new(config, m)),
    })
}
