//! Finding out which kinds a server has.

use serde::Deserialize;

use crate::http::request;
use crate::{Client, Error, ErrorKind, Resource};

#[derive(Debug, Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Debug, Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<ResourceEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceEntry {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    kind: String,
    #[serde(default)]
    short_names: Vec<String>,
}

impl Client {
    /// The kind a user means by `word`: `instance`, `instances`, `inst`, `instances.biga.dev`, `Instance`.
    /// Biga's own kinds are known; for others the server is asked.
    pub async fn find_resource(&self, word: &str) -> Result<Resource, Error> {
        if let Some(r) = Resource::known().into_iter().find(|r| r.answers_to(word)) {
            return Ok(r);
        }
        let all = self.resources().await?;
        all.iter().find(|r| r.answers_to(word)).cloned().ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|r| r.plural.as_str()).collect();
            Error::new(
                ErrorKind::NotFound,
                format!("there is no kind of resource {word:?}: there are {}", names.join(", ")),
            )
        })
    }

    /// The kind of an object by its `apiVersion` and `kind`.
    pub async fn resource_of(&self, api_version: &str, kind: &str) -> Result<Resource, Error> {
        let same = |r: &Resource| r.api_version == api_version && r.kind == kind;
        if let Some(r) = Resource::known().into_iter().find(same) {
            return Ok(r);
        }
        let all = self.resources().await?;
        all.into_iter().find(same).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the daemon has no kind {kind} in {api_version}"),
            )
        })
    }

    /// All kinds the server has.
    pub async fn resources(&self) -> Result<Vec<Resource>, Error> {
        let groups: Groups = self.json(request(http::Method::GET, "/apis")?).await?;
        let mut all = Vec::new();
        for g in groups.groups {
            let gv = g.preferred_version.group_version;
            let list: Resources = self.json(request(http::Method::GET, &format!("/apis/{gv}"))?).await?;
            // A slash marks a subresource.
            all.extend(
                list.resources
                    .into_iter()
                    .filter(|r| !r.name.contains('/'))
                    .map(|r| Resource {
                        api_version: gv.clone(),
                        singular: if r.singular_name.is_empty() {
                            r.kind.to_ascii_lowercase()
                        } else {
                            r.singular_name
                        },
                        kind: r.kind,
                        plural: r.name,
                        short_names: r.short_names,
                        namespaced: r.namespaced,
                    }),
            );
        }
        Ok(all)
    }
}
