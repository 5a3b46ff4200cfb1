//! The resource machinery: serves any [`Kind`](biga_model::Kind) in the form of the Kubernetes API
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
//!
//! ```no_run
//! # use biga_api_kube::Registry;
//! # use biga_model::{Event, Image, Instance, Network, Node, Volume};
//! # fn f(store: std::sync::Arc<dyn biga_store::Store>) -> axum::Router {
//! Registry::new(store)
//!     .with::<Instance>()
//!     .with::<Image>()
//!     .router()
//! # }
//! ```
//!
//! One request goes: `registry` (path to verb) → `resource` (dispatch) → `list`, `watch`, `write`, `rename`, `patch`,
//! `delete` → the typed handles of [`biga_store`] → `render`. What comes from outside is read by `query`, `accept`,
//! [`selector`] and `decode`, none of which can panic; failures are [`ApiError`]s, written as `Status`.

mod accept;
mod admission;
mod core_events;
mod decode;
mod delete;
mod discovery;
mod error;
mod list;
mod metadata;
mod openapi;
mod patch;
mod pick;
pub mod query;
mod registry;
mod rename;
mod render;
mod resource;
mod selection;
pub mod selector;
mod watch;
mod write;

pub use admission::{Admission, Operation, Review};
pub use decode::MAX_BODY;
pub use error::{ApiError, Cause, ErrorKind};
pub use metadata::is_namespace;
pub use registry::{Registry, VersionInfo};
