//! Instances: one task owns each.
//!
//! - [`plan`]: what to do next, as a pure function
//! - [`pod`]: what to do next with the containers of one that has several
//! - [`task`]: the task: looks, plans, does one step, looks again
//! - [`health`]: health checks and their probes
//! - [`manager`]: gives every instance placed on this node its task
//! - [`merge`]: what the image wishes and what the spec wishes, made one

pub mod health;
pub mod manager;
pub mod merge;
pub mod plan;
pub mod pod;
pub mod task;

use std::sync::Arc;

use async_trait::async_trait;
use biga_model::{Instance, InstanceStatus, Isolation, Object};
use biga_runtime::Runtime;
use biga_wire::config::{Limits, ShimConfig};

/// What a task needs of its node: preparing and undoing. The engine implements it; tests put a fake in its place.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Makes image and volumes ready and fills `status.imageId`; runs nothing.
    async fn fetch(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<(), Failure>;

    /// Makes all ready for a run and fills addresses, ports and accelerator of `status`.
    async fn prepare(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<ShimConfig, Failure>;

    /// Makes a prepared run one that goes on from a checkpoint.
    fn restore(&self, name: &str, _config: &mut ShimConfig) -> Result<(), Failure> {
        let why = format!("there is no checkpoint {name} here");
        Err(Failure::new(crate::checkpoints::RESTORE_FAILED, why))
    }

    /// Undoes what a run needed; what the next run keeps (addresses, writable layer) stays.
    async fn after_run(&self, uid: &str);

    /// Undoes all that was ever made for it.
    async fn remove(&self, uid: &str);

    /// How it last ended, if its shim wrote that down.
    fn last_exit(&self, uid: &str) -> Option<biga_wire::shim::Exit>;

    /// How one of its containers last ended, if its shim wrote that down.
    fn last_exit_of(&self, _uid: &str, _container: &str) -> Option<biga_wire::shim::Exit> {
        None
    }

    /// Before a start of one of several containers: takes away what its last run wrote outside volumes.
    async fn fresh_root(&self, _uid: &str, _container: &str) -> Result<(), Failure> {
        Ok(())
    }

    /// The signal that stops it politely.
    fn stop_signal(&self, object: &Object<Instance>, status: &InstanceStatus) -> i32;

    /// Brings the networks of an instance to what its spec says, whether it runs or not, and notes them in `status`.
    async fn follow_networks(&self, _object: &Object<Instance>, _status: &mut InstanceStatus) -> Result<(), Failure> {
        Ok(())
    }

    /// The health check in force, of the spec and the image; `None` where there is none.
    fn health_check(&self, _object: &Object<Instance>, _status: &InstanceStatus) -> Option<health::Check> {
        None
    }

    /// The runtime of an isolation.
    fn runtime(&self, isolation: Isolation) -> Arc<dyn Runtime>;

    /// Tells people about an instance.
    fn event(&self, object: &Object<Instance>, warning: bool, reason: &str, message: &str);
}

/// Why something could not be made ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One word, for `status.reason`.
    pub reason: &'static str,
    /// A sentence: what happened, to what, and what to do.
    pub message: String,
    /// The exit code users of Docker know: 125 for the engine's own failures, 126 and 127 for the program.
    pub exit_code: i32,
}

impl Failure {
    /// A failure of the engine itself.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Failure {
        Failure {
            reason,
            message: message.into(),
            exit_code: 125,
        }
    }
}

/// The limits of a spec in the shim's words.
pub fn limits(object: &Object<Instance>) -> Limits {
    crate::translate::limits(&object.spec.resources)
}
