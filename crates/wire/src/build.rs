//! How an image is built, and what is told meanwhile, as the APIs speak of it.
//!
//! `POST nodes/self/build?options=` ([`Build`], base64 of JSON) with the values of [`Build::secrets`], if there are any, and then the
//! context's tar as body answers with lines
//! ([`crate::http::Line`]): any number with `build` (an [`Event`]), then one with `result`
//! ([`crate::http::ImageResult`]) or `error`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How an image is built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Build {
    /// Path of the Dockerfile in the context; `Dockerfile` where empty.
    pub dockerfile: String,
    /// An address to fetch the context from, instead of what is sent: an archive, a Dockerfile, or a repository
    /// (`https://….git#REF:DIRECTORY`).
    pub remote: String,
    /// Keep `.git` of a context that is a repository.
    pub keep_git_dir: bool,
    /// Names for the image; without any it is kept without a name.
    pub tags: Vec<String>,
    /// The stage to build; the last where empty.
    pub target: String,
    /// Values of `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// Labels on top of those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Use nothing of earlier builds.
    pub no_cache: bool,
    /// Stages that use nothing of earlier builds, by name.
    pub no_cache_stages: Vec<String>,
    /// Images that `FROM` and `--from` mean by these names.
    pub contexts: BTreeMap<String, String>,
    /// Archives and repositories that `--from` means by these names, as addresses.
    pub remotes: BTreeMap<String, String>,
    /// Ask registries for images that are here, too.
    pub pull: bool,
    /// Leave the containers of steps that succeeded.
    pub keep_containers: bool,
    /// Remove those of steps that failed, too.
    pub force_remove: bool,
    /// Use again only what these images have.
    pub cache_from: Vec<String>,
    /// What `RUN` runs in: `container` (where empty) or `microvm`.
    pub isolation: String,
    /// Network of `RUN`: `default`, `none`, `host`, `container:NAME`, or the name of one.
    pub network: String,
    /// Bytes of memory of each step.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<u64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time a period.
    pub cpu_quota: Option<i64>,
    /// Processors, as `0-3`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Soft and hard limit by name.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Control group above those of the steps.
    pub cgroup_parent: Option<String>,
    /// `os/architecture`; must be the node's own.
    pub platform: String,
    /// The image gets no name and goes after a while: somebody takes what is in it, or only wants to know that it can be built.
    pub discard: bool,
    /// Secrets for `RUN --mount=type=secret`. Their values come in the body before the context, in this order.
    pub secrets: Vec<Secret>,
    /// Agents of SSH for `RUN --mount=type=ssh`: sockets of the node, by the ids that mounts name.
    pub agents: BTreeMap<String, String>,
    /// Build stages that do not need each other at the same time; what happens then is told with its stage ([`Event::Of`]).
    pub parallel: bool,
}

/// Largest secret, in bytes: BuildKit's own limit.
pub const MAX_SECRET: usize = 500 << 10;

/// A secret whose value comes in the body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// What mounts call it.
    pub id: String,
    /// Its bytes.
    pub size: usize,
}

/// What happens in a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Event {
    /// An instruction begins.
    Step {
        /// From 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// As it was written.
        text: String,
        /// Its line in the Dockerfile; 0 where it has none.
        #[serde(default)]
        line: usize,
        /// Name of its stage; empty where it has none.
        #[serde(default)]
        stage: String,
    },
    /// It failed, and with it the build.
    Broken,
    /// Happens in one of several stages that are built at the same time.
    Of {
        /// The stage's number.
        stage: usize,
        /// What happens.
        event: Box<Event>,
    },
    /// Its outcome is that of an earlier build.
    Cached,
    /// It runs in this instance (its uid).
    Running {
        /// The uid.
        instance: String,
    },
    /// What it writes.
    Output {
        /// To its standard error.
        stderr: bool,
        /// Text, lossily made UTF-8.
        text: String,
    },
    /// The instance is removed.
    Removed {
        /// The uid.
        instance: String,
    },
    /// The instruction is done; the image it would be.
    Made {
        /// `sha256:…`
        image: String,
    },
    /// A base is pulled.
    Pulling {
        /// Its name.
        reference: String,
        /// How far it is.
        progress: crate::http::Progress,
    },
    /// For people.
    Note {
        /// A line.
        text: String,
    },
    /// All is done.
    Built {
        /// `sha256:…`
        image: String,
    },
    /// It has a name now.
    Tagged {
        /// As users type it.
        name: String,
    },
}
