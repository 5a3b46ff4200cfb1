//! BuildKit's interface, as buildx and Compose speak it to a Docker engine, over a builder of images.
//!
//! ```text
//!  client ── POST /grpc ───► rpc ──► control (Solve, Status) and gateway (LLBBridge: Solve, Return)
//!     ▲                                   │ attrs: what is wanted ──► Build
//!     │                                   ▼
//!     └── POST /session ◄── session ── solve ──► Engine (the node's builder) ── events ──► progress ──► Status
//!          files, secrets,   sync
//!          credentials, ssh
//! ```
//!
//! On the second connection the client is the server: it is asked for the context's files, for credentials, secrets and agents,
//! and it takes what is exported. Nothing of a client is trusted: messages, paths, numbers and sizes are bounded.
//!
//! - [`proto`]: the messages
//! - [`attrs`][]: what a frontend's attributes mean
//! - [`sync`][]: files from the client, and to it
//! - [`progress`][]: what happens, as a graph of vertexes
//!
//! There is no graph solver: the one frontend is that of Dockerfiles, done by the [`Engine`]; others are refused.

pub mod attrs;
pub mod engine;
pub mod progress;
pub mod proto;
pub mod session;
pub mod sync;

mod control;
mod fault;
#[cfg(test)]
mod hostile;
mod jobs;
mod rpc;
mod solve;

use std::sync::Arc;

pub use engine::{Building, ByteStream, Engine, Fault, FaultKind, Form, Source};
pub use session::{Io, Session};

/// Largest message of a client, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// What is said of this builder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Biga's version.
    pub version: String,
    /// Commit it was built of.
    pub revision: String,
    /// Identity of the node.
    pub id: String,
    /// As `linux`.
    pub os: String,
    /// As `amd64`.
    pub architecture: String,
}

/// BuildKit's interface of one node. A cheap handle.
#[derive(Clone)]
pub struct BuildKit {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    about: About,
    sessions: session::Sessions,
    jobs: jobs::Jobs,
}

impl BuildKit {
    /// Over a builder.
    pub fn new(engine: Arc<dyn Engine>, about: About) -> BuildKit {
        BuildKit {
            inner: Arc::new(Inner {
                engine,
                about,
                sessions: session::Sessions::default(),
                jobs: jobs::Jobs::default(),
            }),
        }
    }

    /// Serves a connection that was upgraded for gRPC, to its end.
    pub async fn serve(&self, io: impl Io + 'static) {
        rpc::serve(self.clone(), io).await;
    }

    /// Holds a session for as long as its connection lives.
    pub async fn hold(&self, headers: &http::HeaderMap, io: impl Io + 'static) {
        self.inner.sessions.hold(headers, io).await;
    }
}
