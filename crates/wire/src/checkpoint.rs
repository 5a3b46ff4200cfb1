//! Checkpoints of containers: what is asked for, and what is kept beside the images that CRIU writes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// File in a checkpoint's directory that holds [`Saved`]. It is written last: a directory without it is no checkpoint.
pub const SAVED_FILE: &str = "checkpoint.json";
/// Directory of CRIU's images in a checkpoint's directory.
pub const IMAGES_DIR: &str = "images";

/// What to save, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointSpec {
    /// CRIU's program.
    pub program: PathBuf,
    /// The checkpoint's directory. It does not exist; the one it lies in does.
    pub dir: PathBuf,
    /// Let the processes go on afterwards.
    pub leave_running: bool,
    /// Save connections of TCP, too: refused where there are any otherwise.
    pub tcp_established: bool,
}

/// A checkpoint to go on from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// CRIU's program.
    pub program: PathBuf,
    /// The checkpoint's directory.
    pub dir: PathBuf,
}

/// What is known of a checkpoint beside CRIU's images, to put the container together around them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// When; nanoseconds since 1970.
    pub created_ns: u64,
    /// Whether the processes went on afterwards.
    pub left_running: bool,
    /// Whether connections of TCP are in it.
    pub tcp_established: bool,
    /// Keys of the pipes of standard input, output and error, as `pipe:[123]`, where they were open.
    pub streams: [Option<String>; 3],
    /// Keys of `/dev/null` of the host where processes had it open, as `file[18:3]`.
    pub nulls: Vec<String>,
    /// Whether it had a network namespace, which stands outside of the images.
    pub network: bool,
    /// Mounts that stand outside of the images; their keys are their places here.
    pub external: Vec<External>,
}

/// A mount that is not in the images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Where it was, as the container sees it.
    pub point: String,
    /// What is there.
    pub source: Outside,
}

/// What stands behind an external mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outside {
    /// The mount of the configuration with this target.
    Mount {
        /// As configured.
        target: String,
    },
    /// A file that the engine writes for the container.
    Own {
        /// Its name in the run directory.
        name: String,
    },
    /// Its control group.
    Group {
        /// Of this controller on version 1; empty on version 2.
        controller: String,
    },
    /// Something mounted below another external mount.
    Below {
        /// Place of that in [`Saved::external`].
        of: usize,
        /// Relative path there.
        path: String,
    },
}

/// What a call of the native API asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CheckpointWanted {
    /// The checkpoint's name.
    pub name: String,
    /// Let the processes go on afterwards.
    pub leave_running: bool,
    /// Save connections of TCP, too.
    pub tcp_established: bool,
}

/// A checkpoint as lists show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Its name, unique in the instance.
    pub name: String,
    /// When it was made; nanoseconds since 1970.
    pub created_ns: u64,
    /// Bytes on disk.
    pub size: u64,
}
