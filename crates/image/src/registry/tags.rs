//! The tags of a repository
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags>).

use reqwest::Method;
use serde::Deserialize;

use super::client::Body;
use super::referrers::next_page;
use super::repo::{MAX_MANIFEST, Repo, header};
use crate::Error;

/// Tags of one repository that are listed.
const MAX_TAGS: usize = 10_000;
/// Tags that are asked for at once.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// Some registries say null of none.
    tags: Option<Vec<String>>,
}

impl Repo<'_> {
    /// All tags, in the registry's order.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, Error> {
        let mut url = self.url(&format!("tags/list?n={PAGE}"))?;
        let mut all: Vec<String> = Vec::new();
        loop {
            let response = self.call(Method::GET, url.clone(), &[], Body::None).await?;
            let response = self.checked(response, "the tags of", &self.name).await?;
            let next = header(&response, "link").and_then(|l| next_page(&l));
            let bytes = self.body(response, MAX_MANIFEST, "the list of tags").await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|_| self.odd("its list of tags is none"))?;
            let before = all.len();
            all.extend(page.tags.unwrap_or_default());
            if all.len() > MAX_TAGS {
                return Err(self.odd(&format!(
                    "{} has more than {MAX_TAGS} tags: pull them by name",
                    self.name
                )));
            }
            match next.map(|n| url.join(&n)) {
                // A page without tags would lead nowhere.
                Some(Ok(next)) if all.len() > before => url = next,
                _ => return Ok(all),
            }
        }
    }
}
