//! What Biga is about: the kinds, their spec and status, and the rules they obey.
//!
//! No I/O and no async: everything here can be tested by calling a function. Vocabulary is the
//! project's own (see `ARCHITECTURE.md`); the object form is that of the Kubernetes API
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
//!
//! - [`object`]: metadata and the generic [`Object`](object::Object)
//! - [`kind`]: the [`Kind`](kind::Kind) trait: adding a kind is one file in [`kinds`] and one registration
//! - [`kinds`]: `Instance`, `Image`, `Volume`, `Network`, `Node`, `Event`
//! - [`quantity`]: memory and CPU amounts
//! - [`reference`]: image references as users type them
//! - [`signal`]: signals by name
//! - [`cdi`]: names of devices that vendors describe
//! - [`phase`]: the states of an instance and the legal moves between them

pub mod cdi;
pub mod kind;
pub mod kinds;
pub mod object;
pub mod phase;
pub mod quantity;
pub mod reference;
pub mod signal;

pub use cdi::CdiName;
pub use kind::{Column, ColumnType, FieldError, Kind};
pub use kinds::checkpoint::checkpoint_name_fault;
pub use kinds::container_status::{ContainerRestart, ContainerState, ContainerStatus, Running, Terminated, Waiting};
pub use kinds::event::{Event, EventSpec, EventStatus, EventType, ObjectRef};
pub use kinds::health::{Health, HealthCheck, HealthResult, HealthStatus};
pub use kinds::image::{Image, ImageFormat, ImagePhase, ImageSpec, ImageStatus, PullPolicy};
pub use kinds::instance::*;
pub use kinds::log::{LogDriver, LogSpec, SyslogAddress};
pub use kinds::network::{Network, NetworkSpec, NetworkStatus};
pub use kinds::node::{Ability, AbilityState, Node, NodeRuntime, NodeSpec, NodeStatus};
pub use kinds::runtime::*;
pub use kinds::security::SecuritySpec;
pub use kinds::volume::{LocalMount, Volume, VolumeMode, VolumeSpec, VolumeStatus};
pub use object::{Condition, Object, ObjectMeta, OwnerReference, Timestamp};
pub use phase::Phase;
pub use quantity::{Cpus, Memory};
pub use reference::Reference;
pub use signal::{parse_signal, signal_name};

/// The API group of Biga's own kinds.
pub const GROUP: &str = "biga.dev";
/// The one version of that group.
pub const VERSION: &str = "v1";
/// `group/version`, as it stands in `apiVersion`.
pub const API_VERSION: &str = "biga.dev/v1";
/// The namespace used where the user names none.
pub const DEFAULT_NAMESPACE: &str = "default";
