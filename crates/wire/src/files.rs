//! Files of instances, as the APIs speak of them.
//!
//! | call on `instances/NAME` | body | answer |
//! |---|---|---|
//! | `GET files?path=&stat=true` | | [`PathStat`] |
//! | `GET files?path=` | | the same in the header [`STAT_HEADER`] as base64 of JSON, and a tar whose names begin with the path's last component |
//! | `PUT files?path=&keepKinds=&toUser=` | tar: plain, gzip, bzip2, xz or zstd | |
//! | `GET changes` | | a list of [`Change`] |
//! | `GET export` | | a tar of the root file system |
//! | `POST commit` | [`Commit`] | [`crate::http::ImageResult`] |

use serde::{Deserialize, Serialize};

/// The header that carries a [`PathStat`].
pub const STAT_HEADER: &str = "x-biga-path-stat";

/// What stands at a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    /// Last component as it was asked for; `/` for the root.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Type and permission bits, as `st_mode` has them.
    pub mode: u32,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds.
    #[serde(default)]
    pub mtime_nsec: u32,
    /// Of a symbolic link: the absolute path inside that it leads to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link_target: String,
}

impl PathStat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }
}

/// How a tar is unpacked into an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Put {
    /// Refuse to put a directory where something else stands, and the other way round.
    pub keep_kinds: bool,
    /// Give it to the user and group that the instance runs as, whatever the tar says.
    pub to_user: bool,
}

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Absolute.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// Content, attributes, or something in the directory changed.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// How an image is made of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Commit {
    /// Its name; `committed:` and the beginning of its id where unset.
    pub reference: Option<String>,
    /// By whom.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// Instructions of a Dockerfile that change the config, as `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// Labels beside those of the image it was made of.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Freeze the instance meanwhile, so that its files agree with each other.
    pub pause: bool,
}

/// Work on files that the init of a microvm does itself, on the root file system as its processes see it. It is a stream as an exec
/// is: what is asked for comes as output, a tar to unpack goes as input (never compressed), and after a failure, with another exit
/// code than 0, a [`FileFault`] as error output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FileWork {
    /// What stands at a path: a [`PathStat`].
    Stat {
        /// As a client gave it.
        path: String,
    },
    /// The same, a line end, and the tar of it and all beneath it.
    Read {
        /// As a client gave it.
        path: String,
    },
    /// Unpack a tar into a directory.
    Write {
        /// As a client gave it.
        path: String,
        /// See [`Put::keep_kinds`].
        keep_kinds: bool,
        /// See [`Put::to_user`].
        to_user: bool,
    },
    /// A tar of the root, without what is mounted over it.
    Export,
    /// What the writable layer changed of the image: a list of [`Change`].
    Changes,
    /// The same as the tar of a layer.
    Layer {
        /// Paths without a slash in front: what was made there only to mount something on it is no part of the layer.
        #[serde(default)]
        without: Vec<String>,
    },
}

/// Why work on files was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileFault {
    /// Nothing stands at this path.
    NotFound(String),
    /// This is no directory.
    NotADirectory(String),
    /// A directory and something else stand in each other's way.
    InTheWay(String),
    /// This is on a read-only file system.
    ReadOnly(String),
    /// An entry of a tar wants to leave its directory.
    Escape(String),
    /// This is made by the kernel.
    Kernel(String),
    /// Deeper, longer or more than is allowed.
    TooMuch(String),
    /// The request makes no sense.
    Invalid(String),
    /// Anything else.
    Failed(String),
}
