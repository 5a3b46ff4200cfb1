//! The client of the OCI distribution protocol
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>).
//!
//! - [`client`]: connections, retries, redirects
//! - [`auth`]: challenges and tokens
//! - [`tls`]: roots, extra CAs and client certificates
//! - [`repo`]: manifests and blobs of one repository
//! - [`docker_config`]: credentials as Docker keeps them
//! - [`referrers`]: what refers to a manifest
//! - [`web`]: files from plain addresses, for builds
//! - [`fetch`]: one blob as a stream that survives broken connections
//!
//! Credentials are sent to the host they are for and to the token service it names, never along a redirect to
//! another host. Plain HTTP is spoken with this host itself and with registries that were marked insecure.

use std::path::PathBuf;

mod auth;
mod client;
pub mod docker_config;
mod fetch;
mod referrers;
mod repo;
mod tags;
mod tls;
mod web;

pub(crate) use client::Client;
pub(crate) use fetch::{Piece, fetch};
pub(crate) use repo::{Repo, Upload, mismatch};
pub use web::Fetched;

/// Who asks a registry.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// Name and password.
    Basic {
        /// Name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token, for the registry's token service.
    Identity(String),
    /// A token to be sent to the registry as it is.
    Bearer(String),
    /// Whoever Docker's config file (its path is given) names for the registry, by `auths`, `credHelpers` or `credsStore`.
    DockerConfig(PathBuf),
}

/// For the fuzzers.
pub(crate) fn fuzz_challenge(header: &str, body: &[u8]) {
    if let Some(auth::Challenge::Bearer { realm, service, scope }) = auth::challenge(header)
        && let Ok(realm) = realm.parse()
    {
        let asking = Auth::Identity("x".into());
        let scope = scope.unwrap_or_default();
        drop(auth::token_request(realm, service.as_deref(), &scope, &asking));
    }
    let _ = auth::token(body);
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Auth::Anonymous => f.write_str("Anonymous"),
            Auth::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Auth::Identity(_) => f.write_str("Identity"),
            Auth::Bearer(_) => f.write_str("Bearer"),
            Auth::DockerConfig(path) => write!(f, "DockerConfig({path:?})"),
        }
    }
}
