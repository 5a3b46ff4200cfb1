//! Get and list.

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use biga_model::{Kind, Object};
use biga_store::{Entry, ListOptions, Revision, typed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::accept::Representation;
use crate::error::{ApiError, Cause, ErrorKind};
use crate::query::Query;
use crate::render;
use crate::resource::{Call, Resource, json_response};
use crate::selection::Selection;

/// Where the next page of a list begins. Opaque to clients.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continue {
    /// Revision of the first page.
    rv: Revision,
    /// The last key of the page before.
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn decode(token: &str, prefix: &str) -> Result<Continue, ApiError> {
        let bad = || ApiError::bad_request("the continue token is not one that this server gave");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let c: Continue = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if c.after.starts_with(prefix) { Ok(c) } else { Err(bad()) }
    }
}

/// What a list's `resourceVersion` and `resourceVersionMatch` ask of the present revision.
pub(crate) fn check_revision(query: &Query, now: Revision) -> Result<(), ApiError> {
    let asked = revision_param(query)?;
    let kind = match (query.get("resourceVersionMatch"), asked) {
        (None, None) => return Ok(()),
        (Some(_), None) => {
            return Err(ApiError::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        (kind, Some(_)) => kind.unwrap_or("NotOlderThan"),
    };
    let asked = asked.unwrap_or(0);
    not_ahead(asked, now)?;
    match kind {
        "NotOlderThan" => Ok(()),
        "Exact" if asked == 0 => Err(ApiError::bad_request(
            "resourceVersionMatch \"Exact\" is forbidden with resourceVersion \"0\"",
        )),
        "Exact" if asked == now => Ok(()),
        "Exact" => Err(ApiError::new(
            ErrorKind::Expired,
            format!("the store keeps no past states: resourceVersion {asked} is not the present {now}"),
        )),
        other => Err(ApiError::bad_request(format!(
            "resourceVersionMatch is Exact or NotOlderThan, not {other:?}"
        ))),
    }
}

/// Refuses a revision of another life of the store: waiting for it would skip all that comes before it.
pub(crate) fn not_ahead(asked: Revision, now: Revision) -> Result<(), ApiError> {
    if asked <= now {
        return Ok(());
    }
    let message = format!("Too large resource version: {asked}, current: {now}");
    let mut e = ApiError::new(ErrorKind::Timeout, message).retry_after(1);
    e.causes.push(Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".into(),
        field: String::new(),
    });
    Err(e)
}

/// `resourceVersion` as a number.
pub(crate) fn revision_param(query: &Query) -> Result<Option<Revision>, ApiError> {
    query
        .get("resourceVersion")
        .map(|v| {
            v.parse()
                .map_err(|_| ApiError::bad_request(format!("invalid resource version {v:?}: it is no number")))
        })
        .transpose()
}

/// One page.
struct Page {
    entries: Vec<Entry>,
    meta: Value,
}

impl<K: Kind> Resource<K> {
    pub async fn get(&self, call: &Call) -> Result<Response, ApiError> {
        let key = typed::key::<K>(call.ns(), call.name());
        let style = call.style()?;
        let entry = self.store.get(&key).await?;
        let entry = entry.ok_or_else(|| ApiError::not_found(K::PLURAL, call.name()))?;
        if style.representation == Representation::Json {
            let mut out = Vec::new();
            render::splice::<K>(&mut out, &self.head, &entry)?;
            return Ok(json_response(out));
        }
        Ok(json_response(style.one(&typed::decode::<K>(&entry)?, true)?))
    }

    pub async fn list(&self, call: &Call) -> Result<Response, ApiError> {
        let style = call.style()?;
        let selection = Selection::parse::<K>(&call.query)?;
        let page = self.page(call, &selection).await?;
        if style.representation != Representation::Json {
            let objects: Vec<Object<K>> = page.entries.iter().filter_map(readable).collect();
            return Ok(json_response(style.list(&page.meta, &objects)?));
        }
        let size = page.entries.iter().map(|e| e.value.len() + 64).sum::<usize>();
        let mut out = Vec::with_capacity(size + 256);
        out.extend_from_slice(render::list_head::<K>(&page.meta).as_bytes());
        let start = out.len();
        for entry in &page.entries {
            let at = out.len();
            if at > start {
                out.push(b',');
            }
            if let Err(e) = render::splice::<K>(&mut out, &self.head, entry) {
                tracing::error!(error = %e, "left out of a list");
                out.truncate(at);
            }
        }
        out.extend_from_slice(b"]}");
        Ok(json_response(out))
    }

    async fn page(&self, call: &Call, selection: &Selection) -> Result<Page, ApiError> {
        let prefix = typed::prefix::<K>(call.namespace.as_deref());
        let limit = call.query.number::<usize>("limit")?.unwrap_or(0);
        let token = call.query.get("continue");
        let token = token.map(|t| Continue::decode(t, &prefix)).transpose()?;
        if token.is_some() && revision_param(&call.query)?.is_some_and(|rv| rv != 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let mut selection = selection.clone();
        // Whoever names one object does not pay for the others.
        let only = match token {
            None => Self::only_key(call, &mut selection),
            Some(_) => None,
        };
        let options = ListOptions {
            // With a selection the page is cut after it.
            limit: if selection.is_all() && only.is_none() { limit } else { 0 },
            after: token.as_ref().map(|t| t.after.clone()),
        };
        let mut listing = self.store.list(only.as_deref().unwrap_or(&prefix), options).await?;
        if let Some(key) = only {
            listing.entries.retain(|e| e.key == key);
        }
        let revision = match &token {
            None => {
                check_revision(&call.query, listing.revision)?;
                listing.revision
            }
            // Later pages show the present, and carry the first page's revision: whoever watches from there
            // sees every change that fell between the pages.
            Some(t) => self.still_known(t.rv, listing.revision).await?,
        };
        let mut remaining = listing.remaining;
        if !selection.is_all() {
            listing.entries.retain(|e| self.picker.selects(&selection, e));
            if limit > 0 && listing.entries.len() > limit {
                remaining = listing.entries.len() - limit;
                listing.entries.truncate(limit);
            }
        }
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if remaining > 0
            && let Some(last) = listing.entries.last()
        {
            let token = Continue {
                rv: revision,
                after: last.key.clone(),
            };
            meta["continue"] = json!(token.encode());
            if selection.is_all() {
                meta["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(Page {
            entries: listing.entries,
            meta,
        })
    }

    async fn still_known(&self, first: Revision, now: Revision) -> Result<Revision, ApiError> {
        if first > now {
            return Err(ApiError::bad_request(
                "the continue token is not one that this server gave",
            ));
        }
        match self.store.watch("\u{10ffff}", Some(first)).await {
            Ok(_) => Ok(first),
            Err(biga_store::Error::TooOld { .. }) => Err(ApiError::new(
                ErrorKind::Expired,
                "The provided continue parameter is too old to display a consistent list result: list again without it",
            )),
            Err(e) => Err(e.into()),
        }
    }

    /// The objects of a page, for verbs on collections.
    pub async fn selected(&self, call: &Call) -> Result<(Vec<Object<K>>, Value), ApiError> {
        let selection = Selection::parse::<K>(&call.query)?;
        let page = self.page(call, &selection).await?;
        Ok((page.entries.iter().filter_map(readable).collect(), page.meta))
    }
}

/// A damaged entry must not make the others unreadable.
fn readable<K: Kind>(entry: &Entry) -> Option<Object<K>> {
    typed::decode::<K>(entry)
        .inspect_err(|e| tracing::error!(error = %e, "left out of a list"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_foreign_ones_are_refused() {
        let c = Continue {
            rv: 7,
            after: "/biga.dev/volumes/default/é".into(),
        };
        assert_eq!(Continue::decode(&c.encode(), "/biga.dev/volumes/").unwrap(), c);
        assert!(Continue::decode(&c.encode(), "/biga.dev/images/").is_err());
        for bad in ["", "x", "e30", "!!!", "bnVsbA"] {
            assert!(Continue::decode(bad, "/").is_err(), "{bad}");
        }
    }

    #[test]
    fn revisions_asked_of_a_list() {
        let check = |q: &str| check_revision(&Query::parse(q).unwrap(), 10).map_err(|e| e.kind);
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("resourceVersion=0"), Ok(()));
        assert_eq!(check("resourceVersion=9"), Ok(()));
        assert_eq!(check("resourceVersion=10&resourceVersionMatch=Exact"), Ok(()));
        assert_eq!(
            check("resourceVersion=9&resourceVersionMatch=Exact"),
            Err(ErrorKind::Expired)
        );
        assert_eq!(check("resourceVersion=11"), Err(ErrorKind::Timeout));
        assert_eq!(check("resourceVersion=x"), Err(ErrorKind::BadRequest));
        assert_eq!(check("resourceVersionMatch=Exact"), Err(ErrorKind::BadRequest));
        assert_eq!(
            check("resourceVersion=9&resourceVersionMatch=Foo"),
            Err(ErrorKind::BadRequest)
        );
    }
}
