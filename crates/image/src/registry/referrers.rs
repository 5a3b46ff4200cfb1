//! What refers to a manifest: by the registry's list, or by the tag that stands for it where the registry has no such list
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>).

use std::collections::HashSet;

use bytes::Bytes;
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, StatusCode};

use super::client::Body;
use super::repo::{Fetched, MAX_MANIFEST, Repo, header};
use crate::Error;
use crate::policy::signing::tag_of;
use crate::store::oci::{self, Descriptor, Document, Index};

/// Pages of a list that are read.
const MAX_PAGES: usize = 16;
/// Referrers of one manifest that are taken notice of.
const MAX_REFERRERS: usize = 512;

impl Repo<'_> {
    /// A manifest by tag or digest, or nothing where there is none.
    pub(crate) async fn manifest_if_there(&self, reference: &str) -> Result<Option<Fetched>, Error> {
        match self.manifest(reference).await {
            Ok(got) => Ok(Some(got)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All that refers to a manifest, from both lists, each once.
    pub(crate) async fn referrers(&self, digest: &str) -> Result<Vec<Descriptor>, Error> {
        let mut all = self.listed(digest).await?.unwrap_or_default();
        all.extend(self.tagged(digest).await?);
        let mut seen = HashSet::new();
        all.retain(|d| seen.insert(d.digest.clone()));
        all.truncate(MAX_REFERRERS);
        Ok(all)
    }

    /// By the registry's own list; `None` where it has no lists.
    async fn listed(&self, digest: &str) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut url = self.url(&format!("referrers/{digest}"))?;
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let accept = HeaderValue::from_static(oci::OCI_INDEX);
            let response = self
                .call(Method::GET, url.clone(), &[(ACCEPT, accept)], Body::None)
                .await?;
            // Registries that do not know the path answer in many ways.
            if matches!(
                response.status(),
                StatusCode::NOT_FOUND
                    | StatusCode::METHOD_NOT_ALLOWED
                    | StatusCode::BAD_REQUEST
                    | StatusCode::NOT_IMPLEMENTED
            ) {
                return Ok(None);
            }
            let response = self.checked(response, "the referrers of", digest).await?;
            let next = header(&response, "link").and_then(|l| next_page(&l));
            let bytes = self.body(response, MAX_MANIFEST, "the list of referrers").await?;
            match oci::document(&bytes, oci::OCI_INDEX, "the list of referrers")? {
                Document::Index(index) => all.extend(index.manifests),
                Document::Manifest(_) => return Err(self.odd("its list of referrers is no index")),
            }
            match next.map(|n| url.join(&n)) {
                Some(Ok(next)) if all.len() < MAX_REFERRERS => url = next,
                _ => break,
            }
        }
        Ok(Some(all))
    }

    /// By the tag that stands for the list.
    async fn tagged(&self, digest: &str) -> Result<Vec<Descriptor>, Error> {
        let Some(got) = self.manifest_if_there(&tag_of(digest, "")).await? else {
            return Ok(Vec::new());
        };
        match oci::document(&got.bytes, &got.media_type, "the list of referrers") {
            Ok(Document::Index(index)) => Ok(index.manifests),
            // Anybody may have given something else this name.
            _ => Ok(Vec::new()),
        }
    }

    /// Puts a manifest that refers to another, and into the list that stands under a tag if the registry keeps none itself.
    pub(crate) async fn put_referrer(&self, entry: &Descriptor, subject: &str, bytes: Bytes) -> Result<(), Error> {
        let listed = self.put_manifest(&entry.digest, &entry.media_type, bytes).await?;
        if listed {
            return Ok(());
        }
        let mut manifests = self.tagged(subject).await?;
        if manifests.iter().any(|d| d.digest == entry.digest) {
            return Ok(());
        }
        manifests.push(entry.clone());
        let index = Index {
            schema_version: 2,
            media_type: oci::OCI_INDEX.into(),
            manifests,
        };
        let list = Bytes::from(oci::json(&index)?);
        self.put_manifest(&tag_of(subject, ""), oci::OCI_INDEX, list).await?;
        Ok(())
    }
}

/// The target of `<…>; rel="next"`.
pub(super) fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|one| {
        let (target, parameters) = one.split_once(';')?;
        let is_next = parameters
            .split(';')
            .any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
        is_next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(
            next_page(r#"</v2/a/referrers/x?n=2>; rel="next""#).as_deref(),
            Some("/v2/a/referrers/x?n=2")
        );
        assert_eq!(next_page(r#"</a>; rel="prev", </b>; rel=next"#).as_deref(), Some("/b"));
        for none in ["", "</a>", "</a>; rel=\"prev\"", "/a; rel=\"next\""] {
            assert_eq!(next_page(none), None, "{none}");
        }
    }
}
