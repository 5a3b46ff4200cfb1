//! Why a call failed.

use std::io;
use std::path::{Path, PathBuf};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the store could not be read or written.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried, as `read`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the image store {0} is in use by another process: stop it or choose another state directory")]
    Locked(PathBuf),
    /// No such image here.
    #[error("no image {0} is in the store: pull or load it first")]
    NoImage(String),
    /// A text is no image id.
    #[error("{0:?} is no image id: it must be sha256: and 64 hexadecimal digits")]
    BadId(String),
    /// The registry has no such thing.
    #[error("{what} is not in the registry {registry}, or its access needs a login")]
    NotFound {
        /// Name of the image or blob.
        what: String,
        /// Host.
        registry: String,
    },
    /// The registry refused the credentials, or wanted some.
    #[error("the registry {registry} refused access to {what}: {why}; log in with an account that may do this")]
    Denied {
        /// Name of the image or blob.
        what: String,
        /// Host.
        registry: String,
        /// The registry's words.
        why: String,
    },
    /// The registry answered with an error.
    #[error("the registry {registry} answered {status} to {request}: {why}")]
    Registry {
        /// Host.
        registry: String,
        /// HTTP status code.
        status: u16,
        /// Method and path.
        request: String,
        /// The registry's words.
        why: String,
    },
    /// The registry could not be reached, or the connection broke more often than was retried.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The cause with all its causes.
        why: String,
    },
    /// Plain HTTP, or a redirect to it, where it is not allowed.
    #[error("{url} is plain HTTP, which is only used for this host itself or where the registry is marked insecure")]
    PlainHttp {
        /// The address.
        url: String,
    },
    /// Credentials could not be read.
    #[error("cannot get credentials for {registry}: {why}")]
    Credentials {
        /// Host.
        registry: String,
        /// The cause.
        why: String,
    },
    /// A certificate or key could not be used.
    #[error("cannot use {path} for TLS: {why}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// What came is not what was named.
    #[error("{what} does not match: expected {expected}, got {actual}; it was damaged or replaced on the way")]
    Mismatch {
        /// What was checked, as `the digest of layer sha256:…`.
        what: String,
        /// What was named.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A manifest, index or config breaks the rules.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// Which document.
        what: String,
        /// The broken rule.
        why: String,
    },
    /// The policy forbids it.
    #[error("the image policy refuses {what}: {why}")]
    Refused {
        /// Which image.
        what: String,
        /// The rule, and what is missing.
        why: String,
    },
    /// A policy, a key or the settings of images cannot be used.
    #[error("{path} cannot be used: {why}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// It cannot be sent under the manifest it came with, so what refers to that manifest would refer to nothing.
    #[error("{what} cannot be sent as it is: {why}; push it without what refers to it, or pull it again first")]
    NotExact {
        /// Which image.
        what: String,
        /// The cause.
        why: String,
    },
    /// No image for the wanted platform.
    #[error("{what} has no image for {wanted}; it has: {available}")]
    NoPlatform {
        /// The reference.
        what: String,
        /// `os/architecture[/variant]`.
        wanted: String,
        /// Those it has.
        available: String,
    },
    /// A layer's contents break the rules or the limits.
    #[error("the layer {layer} cannot be used: {source}")]
    Layer {
        /// Its digest or name.
        layer: String,
        /// The broken rule.
        source: crate::layer::Error,
    },
    /// A disk image breaks the rules.
    #[error("the disk image cannot be used: {0}")]
    Disk(#[from] crate::disk::Error),
    /// A layer or disk file was changed or removed behind the store's back.
    #[error("{path} is damaged: {why}; remove the image and pull it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The reader or writer the caller gave failed.
    #[error("the stream broke")]
    Stream(#[source] io::Error),
    /// The work was cancelled, as when the daemon ends.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { what, path, source }
    }

    /// One word for programs, as `status.reason` of an Image.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Io { .. } => "StoreError",
            Error::Locked(_) => "StoreLocked",
            Error::NoImage(_) | Error::NotFound { .. } => "ImageNotFound",
            Error::BadId(_) => "InvalidImageID",
            Error::Denied { .. } => "AccessDenied",
            Error::Registry { .. } => "RegistryError",
            Error::Unreachable { .. } => "RegistryUnreachable",
            Error::PlainHttp { .. } => "PlainHTTPRefused",
            Error::Credentials { .. } => "CredentialsError",
            Error::Tls { .. } => "TLSError",
            Error::Mismatch { .. } => "DigestMismatch",
            Error::Invalid { .. } => "InvalidManifest",
            Error::Refused { .. } => "PolicyRefused",
            Error::Settings { .. } => "SettingsInvalid",
            Error::NotExact { .. } => "NotExact",
            Error::NoPlatform { .. } => "NoMatchingPlatform",
            Error::Layer { .. } => "InvalidLayer",
            Error::Disk(_) => "InvalidDisk",
            Error::Damaged { .. } => "StoreDamaged",
            Error::Stream(_) => "StreamBroken",
            Error::Cancelled => "Cancelled",
        }
    }

    /// Whether trying again later may help without anybody changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Stream(_) | Error::Cancelled => true,
            Error::Registry { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
