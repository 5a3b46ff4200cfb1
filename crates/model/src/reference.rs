//! Image references as users type them: `[registry/]name[:tag][@digest]`.
//!
//! Grammar and defaults are those of the Docker reference
//! (<https://pkg.go.dev/github.com/distribution/reference>): no registry means `docker.io`,
//! a single name there means `library/name`, no tag and no digest means `latest`.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A complete image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and optional port, as in `localhost:5000`.
    pub registry: String,
    /// Path in the registry, as in `library/busybox`.
    pub repository: String,
    /// The tag; `None` only where a digest is given without one.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

/// The registry that references without one mean.
pub const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// The spelling people use: without `docker.io/library/`, tag always shown.
    pub fn familiar(&self) -> String {
        let mut s = match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, Some(name)) if !name.contains('/') => name.to_string(),
            // What would be taken for a registry keeps the true one before it.
            (DEFAULT_REGISTRY, _) if !self.repository.split('/').next().is_some_and(looks_like_registry) => {
                self.repository.clone()
            }
            (r, _) => format!("{r}/{}", self.repository),
        };
        self.push_suffix(&mut s);
        s
    }

    /// A name for the `Image` object of this reference: readable, one path segment, unique by a hash.
    pub fn object_name(&self) -> String {
        let canonical = self.to_string();
        let hash = Sha256::digest(canonical.as_bytes());
        let readable: String = self
            .familiar()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                    c
                } else {
                    '-'
                }
            })
            .take(180)
            .collect();
        format!("{readable}-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
    }

    fn push_suffix(&self, s: &mut String) {
        if let Some(t) = &self.tag {
            s.push(':');
            s.push_str(t);
        }
        if let Some(d) = &self.digest {
            s.push('@');
            s.push_str(d);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = format!("{}/{}", self.registry, self.repository);
        self.push_suffix(&mut s);
        f.pad(&s)
    }
}

/// Whether the first part of a path is a host and no part of a name.
fn looks_like_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|c| c.is_ascii_uppercase())
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is no image reference: {why}");
        if text.is_empty() || text.len() > 1024 {
            return Err(bad("it is empty or too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((r, d)) => (r, Some(d.to_string())),
            None => (text, None),
        };
        if let Some(d) = &digest {
            let ok = d
                .strip_prefix("sha256:")
                .is_some_and(|h| h.len() == 64 && h.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')));
            if !ok {
                return Err(bad("the digest must be sha256: and 64 hexadecimal digits"));
            }
        }
        // A colon after the last slash starts a tag; before it, a port.
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (path, tag) = match rest[slash..].split_once(':') {
            Some((_, t)) => (&rest[..rest.len() - t.len() - 1], Some(t.to_string())),
            None => (rest, None),
        };
        if let Some(t) = &tag {
            let b = t.as_bytes();
            let ok = !b.is_empty()
                && b.len() <= 128
                && (b[0].is_ascii_alphanumeric() || b[0] == b'_')
                && b.iter()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
            if !ok {
                return Err(bad(
                    "a tag is up to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'",
                ));
            }
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, more)) if looks_like_registry(first) => (first.to_string(), more.to_string()),
            Some(_) => (DEFAULT_REGISTRY.to_string(), path.to_string()),
            None => (DEFAULT_REGISTRY.to_string(), format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY.to_string()
        } else {
            registry
        };
        // Written out or not, it is the same image.
        let repository = match registry.as_str() {
            DEFAULT_REGISTRY if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        let host_start = registry
            .as_bytes()
            .first()
            .is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'[');
        let host_chars = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
        if !host_start || !registry.bytes().all(host_chars) {
            return Err(bad("the registry is no host name"));
        }
        let component = |c: &str| {
            let b = c.as_bytes();
            !b.is_empty()
                && b.iter()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'.' | b'-'))
                && b[0].is_ascii_alphanumeric()
                && b[b.len() - 1].is_ascii_alphanumeric()
                && !c.contains("..")
        };
        if !repository.split('/').all(component) {
            return Err(bad(
                "the name is lower-case letters and digits, separated by '/', '.', '_' or '-'",
            ));
        }
        let tag = if tag.is_none() && digest.is_none() {
            Some("latest".into())
        } else {
            tag
        };
        Ok(Reference {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_dockers() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("me/app:1", "docker.io/me/app:1", "me/app:1"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b:latest",
                "localhost:5000/a/b:latest",
            ),
            ("ghcr.io/x/y:v1.2", "ghcr.io/x/y:v1.2", "ghcr.io/x/y:v1.2"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ] {
            let r: Reference = text.parse().unwrap();
            assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (canonical, familiar));
            assert_eq!(r.familiar().parse::<Reference>().unwrap(), r);
            assert!(crate::kind::is_resource_name(&r.object_name()), "{}", r.object_name());
        }
    }

    #[test]
    fn hostile_references_are_refused() {
        for bad in [
            "",
            "../etc",
            "a//b",
            "UPPER",
            "x:",
            "x:-t",
            "x@sha256:12",
            "a b",
            "x@md5:00",
            "a/../b",
            "-x",
            "localhost:5000/",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }
}
