//! What an instance shares with another that runs: found by that one's first process, which may end at any moment.

use std::path::PathBuf;

use biga_model::{Instance, Object, Phase};
use biga_runtime::Error as RuntimeError;
use biga_wire::config::NamespaceFile;
use biga_wire::shim::{Reply, Request, State, Status};

use crate::engine::Engine;
use crate::instance::{Failure, Host};
use crate::streams::{self, Error};

/// Another instance, which runs as a container.
#[derive(Debug)]
pub(crate) struct Other {
    /// It.
    pub object: Object<Instance>,
    pid: u32,
}

impl Engine {
    /// The first process of a container, as its shim tells; `None` where it does not run at this moment. The shim has not reaped
    /// a process that it says it runs: who opens something of it and then hears the same id again has opened it of that one.
    pub(crate) async fn first_process(&self, object: &Object<Instance>) -> Result<Option<u32>, Error> {
        let runtime = self.runtime(object.spec.isolation);
        let mut io = match runtime.open(object.uid(), &Request::Status).await {
            Ok(io) => io,
            // It goes at this moment, or has not come yet.
            Err(RuntimeError::Gone(_) | RuntimeError::Io { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        match streams::read_reply(&mut io).await {
            Ok(Reply::Status { status }) => Ok(pid(&status)),
            Ok(Reply::Error { code, message }) => Err(Error::Refused { code, message }),
            // It goes at this moment.
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Another instance whose things are to be shared.
    pub(crate) async fn other(&self, namespace: &str, name: &str) -> Result<Other, Failure> {
        let object = self.networks.instance(namespace, name).await?;
        let phase = object.status_or_default().phase;
        let runs = matches!(phase, Phase::Running | Phase::Paused) && !object.spec.isolation.is_virtual();
        let pid = match runs {
            true => self.first_process(&object).await.map_err(|e| failed(e.to_string()))?,
            false => None,
        };
        match pid {
            Some(pid) => Ok(Other { object, pid }),
            None => Err(failed(format!(
                "instance {name} does not run as a container: what it has cannot be shared"
            ))),
        }
    }

    /// A namespace of another instance; `kind` is its name in `/proc/PID/ns`.
    pub(crate) async fn namespace_of(&self, other: &Other, kind: &str) -> Result<NamespaceFile, Failure> {
        let path = PathBuf::from(format!("/proc/{}/ns/{kind}", other.pid));
        let name = other.object.name();
        let found = rustix::fs::stat(&path)
            .map_err(|e| failed(format!("cannot find the {kind} namespace of instance {name}: {e}")))?;
        let again = self.first_process(&other.object).await;
        match again.map_err(|e| failed(e.to_string()))? {
            Some(pid) if pid == other.pid => Ok(NamespaceFile {
                path,
                id: Some(found.st_ino),
            }),
            _ => Err(failed(format!(
                "instance {name} ended, and so what it shares: start it first"
            ))),
        }
    }
}

fn failed(why: String) -> Failure {
    Failure::new("ShareFailed", why)
}

fn pid(status: &Status) -> Option<u32> {
    match status.state {
        State::Running | State::Paused => status.pid.filter(|p| *p > 1),
        State::Created | State::Exited => None,
    }
}
