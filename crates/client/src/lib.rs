//! Typed client over the native API, used by the command line, by tests and by remote agents.
//!
//! - [`Client`]: where the daemon is, and plain requests
//! - [`Api`]: get, list, create, update, patch, delete and watch objects of one kind
//! - [`RawApi`]: the same for kinds known only at run time, over JSON values
//! - [`watch`]: a stream of changes that survives lost connections and compaction
//! - [`stream`]: `exec`, `attach` and `console`: wire frames in both directions
//! - [`node`]: images in and out, logs, stats, signals
//! - [`Error`]: what went wrong, as the server's `Status` says it
//!
//! ```no_run
//! # async fn f() -> Result<(), biga_client::Error> {
//! use biga_client::{Client, ListParams};
//! use biga_model::Instance;
//! let client = Client::from_env()?;
//! for i in client.api::<Instance>("default").list(&ListParams::default()).await?.items {
//!     println!("{}", i.name());
//! }
//! # Ok(())
//! # }
//! ```

pub mod api;
mod checkpoints;
pub mod discovery;
mod endpoint;
mod error;
mod files;
mod http;
pub mod node;
mod params;
pub mod raw;
pub mod stream;
pub mod watch;

pub use api::Api;
pub use endpoint::{DEFAULT_SOCKET, Endpoint, HOST_VARIABLE};
pub use error::{Cause, Error, ErrorKind};
pub use http::{ByteStream, Client, JsonLines};
pub use params::{DeleteParams, ListParams, Patch, Preconditions, encode_query, encode_segment};
pub use raw::{List, RawApi, Resource, Table, TableColumn, TableRow};
pub use stream::{Duplex, Reader, StreamError, Writer};
pub use watch::{WatchEvent, Watcher};
