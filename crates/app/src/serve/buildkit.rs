//! This node's builder behind BuildKit's interface.

use std::sync::Arc;

use async_trait::async_trait;
use biga_build::{Client, Error, Parts};
use biga_buildkit::{Building, ByteStream, Engine, Fault, FaultKind, Form, Session, Source};
use biga_image::ArchiveFormat;
use biga_wire::build::Event;
use biga_wire::cache::{CacheFilter, CacheRecord};
use biga_wire::http::PruneResult;
use futures_util::StreamExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::build::Ready;
use super::node::{self, Node};

/// The node, as BuildKit's interface wants to see it.
pub struct Kit(pub Node);

fn fault(e: Error) -> Fault {
    let kind = match &e {
        Error::Invalid(_) => FaultKind::Invalid,
        Error::NotFound(_) => FaultKind::NotFound,
        Error::Unsupported(_) => FaultKind::Unsupported,
        Error::Cancelled => FaultKind::Cancelled,
        Error::Command { .. } | Error::Failed(_) => FaultKind::Failed,
    };
    let message = match &e {
        // In the words that BuildKit's clients know.
        Error::Command { command, code } => {
            format!("process \"{command}\" did not complete successfully: exit code: {code}")
        }
        other => other.to_string(),
    };
    Fault {
        line: line(&message),
        ..Fault::new(kind, message)
    }
}

/// The line that a message names.
fn line(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("dockerfile parse error on line ")?;
    rest.split(':').next()?.parse().ok()
}

fn of_node(f: node::Fault) -> Fault {
    let kind = match f.kind {
        node::FaultKind::Invalid => FaultKind::Invalid,
        node::FaultKind::NotFound => FaultKind::NotFound,
        node::FaultKind::Unsupported => FaultKind::Unsupported,
        _ => FaultKind::Failed,
    };
    Fault::new(kind, f.message)
}

/// The client of a session, as the builder asks it.
struct Asked(Arc<Session>);

fn not_answered(f: Fault) -> Error {
    match f.kind {
        FaultKind::Cancelled => Error::Cancelled,
        FaultKind::Invalid => Error::Invalid(f.message),
        _ => Error::Failed(f.message),
    }
}

#[async_trait]
impl Client for Asked {
    async fn credentials(&self, registry: &str) -> Result<Option<(String, String)>, Error> {
        self.0.credentials(registry).await.map_err(not_answered)
    }

    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.secret(id).await.map_err(not_answered)
    }

    async fn has_agent(&self, id: &str) -> Result<bool, Error> {
        self.0.has_agent(id).await.map_err(not_answered)
    }

    async fn forward_agent(&self, id: &str, io: UnixStream) -> Result<(), Error> {
        self.0.forward_agent(id, io).await.map_err(not_answered)
    }
}

#[async_trait]
impl Engine for Kit {
    async fn prepare(&self, source: Source) -> Result<Box<dyn Building>, Fault> {
        let client: Arc<dyn Client> = Arc::new(Asked(source.session));
        let parts = Parts {
            dockerfile: source.dockerfile,
            context: source.context,
            named: source.named,
            client: Some(client),
        };
        let prepared = self.0.builder().prepare_with(source.build, Default::default(), parts);
        Ok(Box::new(Ready::new(prepared.await.map_err(fault)?)))
    }

    async fn export(&self, image: &str, names: &[String], form: Form) -> Result<ByteStream, Fault> {
        let format = match form {
            Form::Files => return Ok(self.0.builder().files_of(image).await.map_err(fault)?.boxed()),
            Form::Docker => ArchiveFormat::Docker,
            Form::Oci => ArchiveFormat::Oci,
        };
        let bytes = self.0.save_as(image, names, format).await.map_err(of_node)?;
        Ok(bytes.map(|b| b.map_err(|f| std::io::Error::other(f.message))).boxed())
    }

    async fn usage(&self) -> Result<Vec<CacheRecord>, Fault> {
        self.0.build_cache().await.map_err(of_node)
    }

    async fn prune(&self, filter: CacheFilter) -> Result<PruneResult, Fault> {
        self.0.build_prune(&filter).await.map_err(of_node)
    }
}

#[async_trait]
impl Building for Ready {
    async fn run(self: Box<Self>, events: mpsc::Sender<Event>) -> Result<String, Fault> {
        let done = Ready::run(*self, events).await.map_err(fault)?;
        Ok(done.image_id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_words_of_buildkit() {
        let f = fault(Error::Command {
            command: "/bin/sh -c false".into(),
            code: 3,
        });
        let want = "process \"/bin/sh -c false\" did not complete successfully: exit code: 3";
        assert_eq!((f.message.as_str(), f.line), (want, None));
        let f = fault(Error::Invalid(
            "dockerfile parse error on line 12: unknown instruction: X".into(),
        ));
        assert_eq!((f.kind, f.line), (FaultKind::Invalid, Some(12)));
    }
}
