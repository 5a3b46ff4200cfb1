//! Listeners, TLS, the streaming path.
//!
//! - [`Server`]: a unix socket and a TLS address on which a router is served; who calls, request ids, audit
//! - [`pki`]: the authority behind the TLS address, client certificates, kubeconfigs
//! - [`Backend`]: what the streaming path needs of the node; the program implements it
//! - [`routes`]: the resource machinery with the streaming routes beside it

pub mod backend;
mod checkpoints;
mod files;
mod listen;
mod long;
mod node;
mod peer;
pub mod pki;
mod serve;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use biga_api_kube::ApiError;
use biga_store::{Objects, Store};

pub use backend::Backend;
pub use listen::{TlsOptions, UnixOptions};
pub use serve::{Caller, Options, Server};

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server listens there.
    #[error("another daemon listens on {}: stop it, or choose another directory", .0.display())]
    Taken(PathBuf),
    /// Something else is at the socket's path.
    #[error("{} is there and is no socket: remove it, or choose another path", .0.display())]
    NotSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot {what} the socket {}", path.display())]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A socket that this process was started with cannot be used.
    #[error("cannot listen on the socket that the service manager passed")]
    Passed(#[source] std::io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No certificates.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// No TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// What the streaming routes share.
#[derive(Clone)]
pub(crate) struct Streams {
    backend: Arc<dyn Backend>,
    instances: Objects<biga_model::Instance>,
    node: Arc<str>,
}

/// The routes of `kube` (see [`biga_api_kube::Registry::router`]) and those of the streaming path beside them.
/// `node` is this node's name; requests may also call it `self`.
pub fn routes(kube: Router, store: Arc<dyn Store>, backend: Arc<dyn Backend>, node: &str) -> Router {
    const INSTANCE: &str = "/apis/biga.dev/v1/namespaces/{namespace}/instances/{name}";
    const NODE: &str = "/apis/biga.dev/v1/nodes/{node}";
    let streams = Streams {
        backend,
        instances: Objects::new(store),
        node: node.into(),
    };
    let mut router = Router::new();
    for verb in [stream::Verb::Exec, stream::Verb::Attach, stream::Verb::Console] {
        let open = move |state, path, request| stream::open(verb, state, path, request);
        router = router.route(&format!("{INSTANCE}/{}", verb.as_str()), post(open));
    }
    router
        .route(&format!("{INSTANCE}/log"), get(stream::log))
        .route(&format!("{INSTANCE}/stats"), get(stream::stats))
        .route(&format!("{INSTANCE}/signal"), post(stream::signal))
        .route(&format!("{INSTANCE}/files"), get(files::read).put(files::write))
        .route(&format!("{INSTANCE}/changes"), get(files::changes))
        .route(&format!("{INSTANCE}/export"), get(files::export))
        .route(&format!("{INSTANCE}/commit"), post(files::commit))
        .route(
            &format!("{INSTANCE}/checkpoints"),
            get(checkpoints::list).post(checkpoints::make),
        )
        .route(
            &format!("{INSTANCE}/checkpoints/{{checkpoint}}"),
            delete(checkpoints::remove),
        )
        .route(&format!("{NODE}/image-load"), post(node::load))
        .route(&format!("{NODE}/image-save"), get(node::save))
        .route(&format!("{NODE}/image-import"), post(node::import))
        .route(&format!("{NODE}/image-pull"), post(node::pull))
        .route(&format!("{NODE}/image-push"), post(node::push))
        .route(&format!("{NODE}/image-detail"), get(node::detail))
        .route(&format!("{NODE}/image-referrers"), get(node::referrers))
        .route(&format!("{NODE}/registry-login"), post(node::login))
        .route(&format!("{NODE}/image-tag"), post(node::tag))
        .route(&format!("{NODE}/build"), post(node::build))
        .route(&format!("{NODE}/prune"), post(node::prune))
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(streams)
        .fallback_service(kube)
}
