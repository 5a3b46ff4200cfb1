//! The policy: which images may come in and run, by where they come from and who signed them.
//!
//! ```yaml
//! default: reject                    # what no rule names
//! archives: accept                   # what comes by load and import and so from nowhere
//! rules:
//!   docker.io/library: accept
//!   "*.example.org": reject
//!   registry.example.org/team:
//!     signedBy:
//!       keys: [/etc/biga/keys/team.pub]
//! ```
//!
//! A rule's name is a registry, a part of a repository's path, a repository, or a repository with a tag; `*.` before a
//! host stands for all hosts below it. The most exact rule counts. A signature is one of cosign's "simple signing" form,
//! made with a key (ECDSA, Ed25519 or RSA): see [`signing`].
//!
//! Pulls are judged before a layer is fetched. What was verified stands in the image's record, so that a run is
//! judged again without asking a registry, also when the policy was changed meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use biga_model::Reference;
use serde::Deserialize;

use crate::record::Verified;
use crate::{Error, ImageRecord};

mod keys;
pub(crate) mod signing;

pub(crate) use keys::Key;

/// A policy as it stands in its file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// For images that no rule names.
    #[serde(default)]
    pub default: Option<RuleDocument>,
    /// For images of archives and of imported files; as `default` where it is left out, and refused where that demands a
    /// signature.
    #[serde(default)]
    pub archives: Option<ArchivesDocument>,
    /// By registry, path, repository, or repository and tag.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleDocument>,
}

/// A rule as it stands in the policy's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleDocument {
    /// Anything goes.
    Accept,
    /// Nothing goes.
    Reject,
    /// What one of these keys signed.
    SignedBy(SignedByDocument),
}

/// Whether archives are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ArchivesDocument {
    /// They are.
    Accept,
    /// They are not.
    Reject,
}

/// Which signatures count.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedByDocument {
    /// Files with a public key in PEM each; one of them must have signed. Relative paths are seen from the policy's file.
    pub keys: Vec<PathBuf>,
    /// The name that must have been signed; the image's own repository where it is left out, and `any` for any. For images
    /// that were copied with their signatures from elsewhere.
    #[serde(default)]
    pub identity: Option<String>,
}

/// A policy that was read with its keys.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    default: Rule,
    archives: bool,
    /// Most exact first.
    rules: Vec<(Scope, Rule)>,
    /// For messages.
    path: PathBuf,
}

#[derive(Debug, Clone, Default)]
enum Rule {
    #[default]
    Accept,
    Reject,
    SignedBy(SignedBy),
}

/// Signatures that are demanded.
#[derive(Debug, Clone)]
pub(crate) struct SignedBy {
    pub keys: Vec<Key>,
    identity: Identity,
}

#[derive(Debug, Clone)]
enum Identity {
    OwnRepository,
    Any,
    Exactly(String),
}

/// Where a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    /// `*.example.org` without its star.
    below_host: Option<String>,
    /// Or what a `registry/repository:tag` must be, or begin with at a slash.
    path: String,
}

/// What a rule asks for an image.
pub(crate) enum Demand<'p> {
    Nothing,
    Signature(&'p SignedBy),
}

impl Policy {
    /// That of a host without a policy: anything goes.
    pub fn accept_all() -> Policy {
        Policy {
            archives: true,
            ..Policy::default()
        }
    }

    /// Reads the keys that a document names. `path` is the document's file.
    pub fn new(document: PolicyDocument, path: &Path) -> Result<Policy, Error> {
        let bad = |why: String| Error::Settings {
            path: path.to_path_buf(),
            why,
        };
        let default = match document.default {
            Some(rule) => Rule::read(rule, path, "default")?,
            None => Rule::Accept,
        };
        let archives = match document.archives {
            Some(a) => a == ArchivesDocument::Accept,
            None => matches!(default, Rule::Accept),
        };
        let mut rules = Vec::new();
        for (name, rule) in document.rules {
            let scope = Scope::parse(&name).map_err(|why| bad(format!("the rule {name:?} names nothing: {why}")))?;
            rules.push((scope, Rule::read(rule, path, &name)?));
        }
        // Whole paths before stars, long ones before short ones: the first that fits is the most exact.
        rules.sort_by_key(|(s, _)| {
            let star = s.below_host.as_ref().map(String::len);
            (star.is_some(), std::cmp::Reverse(star.unwrap_or(s.path.len())))
        });
        Ok(Policy {
            default,
            archives,
            rules,
            path: path.to_path_buf(),
        })
    }

    fn named(&self, reference: &Reference) -> Option<&(Scope, Rule)> {
        self.rules.iter().find(|(scope, _)| scope.holds(reference))
    }

    fn rule(&self, reference: &Reference) -> (&Rule, String) {
        match self.named(reference) {
            Some((scope, rule)) => (rule, format!("the rule {:?}", scope.name())),
            None => (&self.default, "its default".to_owned()),
        }
    }

    /// What is asked of an image that comes from this place.
    pub(crate) fn demand(&self, reference: &Reference) -> Result<Demand<'_>, Error> {
        match self.rule(reference) {
            (Rule::Accept, _) => Ok(Demand::Nothing),
            (Rule::SignedBy(s), _) => Ok(Demand::Signature(s)),
            (Rule::Reject, which) => Err(self.refused(reference.familiar(), format!("{which} says so"))),
        }
    }

    /// Whether archives and imported files may come in.
    pub(crate) fn allows_archives(&self) -> Result<(), Error> {
        if self.archives {
            return Ok(());
        }
        Err(self.refused(
            "the archive".into(),
            "it takes images from registries only (archives: reject)".into(),
        ))
    }

    pub(crate) fn refused(&self, what: String, why: String) -> Error {
        Error::Refused {
            what,
            why: format!("{why}, see {}", self.path.display()),
        }
    }

    /// Whether an image that is here may run under this name; where it is meant by its id alone, under one of those it came
    /// under.
    pub fn allows_run(&self, record: &ImageRecord, reference: Option<&Reference>) -> Result<(), Error> {
        if let Some(reference) = reference {
            // What came from nowhere may have any name that no rule is about.
            if record.sources.is_empty() && self.named(reference).is_none() {
                return self.allows_archives();
            }
            return self.allows_name(record, reference);
        }
        let sources = record.sources.iter().filter_map(|s| s.parse::<Reference>().ok());
        let mut last = None;
        for source in sources {
            match self.allows_name(record, &source) {
                Ok(()) => return Ok(()),
                Err(e) => last = Some(e),
            }
        }
        match last {
            Some(e) => Err(e),
            None => self.allows_archives(),
        }
    }

    fn allows_name(&self, record: &ImageRecord, reference: &Reference) -> Result<(), Error> {
        match self.demand(reference)? {
            Demand::Nothing => Ok(()),
            Demand::Signature(s) if record.verified.iter().any(|v| s.accepts(v, reference)) => Ok(()),
            Demand::Signature(_) => {
                let why = "no signature that it asks for was found when it came: pull it again";
                Err(self.refused(reference.familiar(), why.into()))
            }
        }
    }
}

impl SignedBy {
    /// Whether what was verified once is what is asked for.
    fn accepts(&self, v: &Verified, reference: &Reference) -> bool {
        self.keys.iter().any(|k| k.fingerprint == v.key) && self.names(&v.identity, reference)
    }

    /// Whether a signed name is the right one.
    pub(crate) fn names(&self, signed: &str, reference: &Reference) -> bool {
        match &self.identity {
            Identity::Any => true,
            Identity::Exactly(name) => signed == name,
            Identity::OwnRepository => {
                // With or without a tag; the hub has two names.
                signed
                    .parse::<Reference>()
                    .is_ok_and(|s| (&s.registry, &s.repository) == (&reference.registry, &reference.repository))
            }
        }
    }
}

impl Rule {
    fn read(document: RuleDocument, path: &Path, name: &str) -> Result<Rule, Error> {
        let SignedByDocument { keys, identity } = match document {
            RuleDocument::Accept => return Ok(Rule::Accept),
            RuleDocument::Reject => return Ok(Rule::Reject),
            RuleDocument::SignedBy(s) => s,
        };
        if keys.is_empty() {
            return Err(Error::Settings {
                path: path.to_path_buf(),
                why: format!("the rule {name:?} demands a signature and names no key"),
            });
        }
        let dir = path.parent().unwrap_or(path);
        let keys = keys.iter().map(|k| Key::read(&dir.join(k))).collect::<Result<_, _>>()?;
        let identity = match identity {
            None => Identity::OwnRepository,
            Some(i) if i == "any" => Identity::Any,
            Some(i) => Identity::Exactly(i),
        };
        Ok(Rule::SignedBy(SignedBy { keys, identity }))
    }
}

impl Scope {
    fn parse(name: &str) -> Result<Scope, &'static str> {
        if name.contains("://") || name.contains(char::is_whitespace) {
            return Err("write a registry or a repository, as registry.example.org/team");
        }
        if name.contains('@') {
            return Err("rules do not name digests");
        }
        if let Some(host) = name.strip_prefix("*.") {
            if host.is_empty() || host.contains(['*', '/']) {
                return Err("a star stands before the last parts of a host alone, as *.example.org");
            }
            return Ok(Scope {
                below_host: Some(format!(".{host}")),
                path: String::new(),
            });
        }
        let path = name.trim_end_matches('/');
        if path.is_empty() || path.contains('*') {
            return Err("it is empty or has a star in it");
        }
        let host = path.split('/').next().unwrap_or(path);
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err("begin with the registry, as docker.io/library");
        }
        Ok(Scope {
            below_host: None,
            path: path.to_owned(),
        })
    }

    fn holds(&self, r: &Reference) -> bool {
        if let Some(host) = &self.below_host {
            let name = r.registry.split(':').next().unwrap_or(&r.registry);
            return name.ends_with(host.as_str());
        }
        let repository = format!("{}/{}", r.registry, r.repository);
        match repository.strip_prefix(self.path.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => r.tag.as_ref().is_some_and(|t| self.path == format!("{repository}:{t}")),
        }
    }

    fn name(&self) -> String {
        match &self.below_host {
            Some(host) => format!("*{host}"),
            None => self.path.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        Policy::new(serde_json::from_str(json).unwrap(), Path::new("/etc/p.yaml")).unwrap()
    }

    fn taken(p: &Policy, name: &str) -> bool {
        p.demand(&name.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_most_exact_rule_counts() {
        let p = policy(
            r#"{"default":"reject","rules":{"docker.io/library":"accept","r.example.org":"accept","r.example.org/bad":"reject",
            "r.example.org/bad/but:good":"accept","*.trusted.org":"accept","x.trusted.org":"reject","localhost:5000":"accept"}}"#,
        );
        for yes in [
            "busybox",
            "r.example.org/app",
            "r.example.org/badly:1",
            "r.example.org/bad/but:good",
            "a.trusted.org/x",
            "a.trusted.org:5000/x",
            "localhost:5000/x",
        ] {
            assert!(taken(&p, yes), "{yes}");
        }
        for no in [
            "ann/app",
            "r.example.org/bad/app",
            "r.example.org/bad/but:other",
            "other.example.org/x",
            "x.trusted.org/x",
            "trusted.org/x",
            "localhost:5001/x",
            "docker.io/libraryx/y",
        ] {
            assert!(!taken(&p, no), "{no}");
        }
        let e = p
            .demand(&"r.example.org/bad/app".parse().unwrap())
            .err()
            .unwrap()
            .to_string();
        assert!(e.contains("r.example.org/bad") && e.contains("/etc/p.yaml"), "{e}");
    }

    #[test]
    fn archives_follow_the_default() {
        for (json, taken) in [
            ("{}", true),
            (r#"{"default":"accept"}"#, true),
            (r#"{"default":"reject"}"#, false),
            (r#"{"default":"reject","archives":"accept"}"#, true),
            (r#"{"archives":"reject"}"#, false),
        ] {
            assert_eq!(policy(json).allows_archives().is_ok(), taken, "{json}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"{"rules":{"https://x":"accept"}}"#,
            r#"{"rules":{"library":"accept"}}"#,
            r#"{"rules":{"a.b/*":"accept"}}"#,
            r#"{"rules":{"":"accept"}}"#,
            r#"{"rules":{"a.b/c@sha256:00":"accept"}}"#,
            r#"{"rules":{"a.b":{"signedBy":{"keys":[]}}}}"#,
            r#"{"rules":{"a.b":{"signedBy":{"keys":["/nonexistent.pub"]}}}}"#,
        ] {
            let document = serde_json::from_str(json).unwrap();
            assert!(Policy::new(document, Path::new("/p")).is_err(), "{json}");
        }
        for json in [
            r#"{"defaults":"accept"}"#,
            r#"{"default":"maybe"}"#,
            r#"{"rules":{"a.b":{"signedBy":{"key":"x"}}}}"#,
        ] {
            assert!(serde_json::from_str::<PolicyDocument>(json).is_err(), "{json}");
        }
    }
}
