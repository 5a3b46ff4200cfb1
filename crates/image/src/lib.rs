//! Images: fetched from registries and archives, kept once on disk, ready to run.
//!
//! - [`store`]: [`ImageStore`], what is here and what may go
//! - [`registry`]: the distribution protocol: names, logins, blobs
//! - [`layer`]: one streaming pass from a compressed tar to a layer file
//! - [`erofs`]: writes that layer file, which the kernel mounts as it stands
//! - [`split`]: what a layer's tar has beside file contents, so that the very same tar can be built again
//! - [`files`]: trees of files as tars and back, and what a writable layer changed; [`tarstream`]: tars of any dialect
//! - [`layout_dir`]: archives as directories
//! - [`mounts`]: [`LayerMounts`], every layer mounted once for all who use it
//! - [`policy`]: which images may come in and run
//! - [`disk`]: disk images: formats and checks
//!
//! A layer is unpacked into no directory tree: it becomes one EROFS file, written front to back while the tar
//! arrives, so a pull costs little more than its decompression.

pub use biga_files as files;
pub use biga_files::tarstream;

pub mod disk;
pub mod erofs;
#[doc(hidden)]
pub mod fuzzing;
pub mod layer;
pub mod layout_dir;
pub mod mounts;
pub mod policy;
pub mod registry;
pub mod split;
pub mod store;

mod digest;
mod error;
mod platform;
mod record;
mod settings;

pub use error::Error;
pub use mounts::LayerMounts;
pub use platform::Platform;
pub use policy::Policy;
pub use record::{
    Built, DiskFormat, DiskRecord, History, ImageConfig, ImageId, ImageRecord, LayerRecord, Referrer, Verified,
};
pub use registry::{Auth, Fetched, docker_config};
pub use settings::Settings;
pub use store::{
    ArchiveFormat, Commit, Draft, GcReport, HeldImage, ImageStore, KeptBuild, KeptLayer, LayerState, Loaded, Options,
    Progress, PullOptions, PushOptions, Pushed, Remote, StepCache, Steps,
};
