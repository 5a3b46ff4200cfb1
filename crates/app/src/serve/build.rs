//! Building images, done by this node's builder once for both APIs.

use std::collections::HashMap;

use async_trait::async_trait;
use biga_api_docker::backend::{BuildFault, Building};
use biga_build::{Audience, Error, Prepared};
use biga_image::{Auth, ImageRecord};
use biga_wire::build::{Build, Event};
use biga_wire::cache::{CacheFilter, CacheRecord};
use biga_wire::http::PruneResult;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::node::{Credentials, Fault, FaultKind, Node, Upload};

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        let kind = match e {
            Error::Invalid(_) => FaultKind::Invalid,
            Error::NotFound(_) => FaultKind::NotFound,
            Error::Unsupported(_) => FaultKind::Unsupported,
            Error::Command { .. } | Error::Cancelled | Error::Failed(_) => FaultKind::Failed,
        };
        Fault {
            kind,
            message: e.to_string(),
        }
    }
}

impl Node {
    /// Reads a build's context and Dockerfile. Credentials are by registry.
    pub async fn build_prepare(
        &self,
        build: Build,
        auths: impl IntoIterator<Item = (String, Credentials)>,
        context: Upload,
    ) -> Result<Ready, Fault> {
        let auths: HashMap<String, Auth> = auths.into_iter().map(|(k, c)| (k, c.into())).collect();
        Ok(Ready(self.builder().prepare(build, auths, context).await?))
    }

    /// What is kept for later builds beside images.
    pub async fn build_cache(&self) -> Result<Vec<CacheRecord>, Fault> {
        Ok(self.builder().records().await?)
    }

    /// Forgets what builds left for later ones, and removes what nobody needs any more.
    pub async fn build_prune(&self, filter: &CacheFilter) -> Result<PruneResult, Fault> {
        let (removed, bytes) = self.builder().forget(filter).await?;
        let done = self.prune().await?;
        Ok(PruneResult {
            removed,
            freed_bytes: done.freed_bytes + bytes,
        })
    }
}

/// A build that can begin.
pub struct Ready(Prepared);

impl Ready {
    /// Of this.
    pub fn new(prepared: Prepared) -> Ready {
        Ready(prepared)
    }

    /// Builds. Dropping the call ends the build: its step is killed and removed.
    pub async fn run(self, events: mpsc::Sender<Event>) -> Result<ImageRecord, Error> {
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let audience = Audience::new(events, cancel);
        // In a task of its own: what has to be undone is undone whether or not the client stays.
        let work = tokio::spawn(async move { self.0.run(&audience).await });
        work.await
            .map_err(|e| Error::Failed(format!("the build crashed: {e}")))?
    }
}

#[async_trait]
impl Building for Ready {
    async fn run(self: Box<Self>, events: mpsc::Sender<Event>) -> Result<(), BuildFault> {
        let done = Ready::run(*self, events).await;
        done.map(drop).map_err(|e| BuildFault {
            message: e.to_string(),
            code: match e {
                Error::Command { code, .. } => Some(code),
                _ => None,
            },
        })
    }
}
