//! Events as the core group has them, to be read only.
//!
//! `kubectl describe` asks for `events` of `v1`, whatever the kind it describes, and looks for no discovery before.
//! So the lists are answered here, and discovery does not name them: a `kubectl get events` finds this API's own
//! kind, which can be written and watched too.

use axum::response::Response;
use biga_model::{Event, EventType, Object};
use biga_store::Objects;
use http::Method;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::query::Query;
use crate::resource::json_response;
use crate::selector::FieldSelector;

/// The namespace of an event on `path`, where it is that of a list of core events.
pub(crate) fn namespace_of<'a>(path: &[&'a str]) -> Option<Option<&'a str>> {
    match *path {
        ["api", "v1", "events"] => Some(None),
        ["api", "v1", "namespaces", namespace, "events"] => Some(Some(namespace)),
        _ => None,
    }
}

/// `GET /api/v1/[namespaces/NS/]events`, with field selectors. A list is never cut: events are kept for an hour only.
pub(crate) async fn list(
    events: &Objects<Event>,
    namespace: Option<&str>,
    method: &Method,
    query: &Query,
) -> Result<Response, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) || query.flag("watch")? {
        return Err(ApiError::method_not_allowed());
    }
    let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let blank = Object::<Event>::new("", Default::default());
    if let Some(t) = fields.terms().iter().find(|t| field(&blank, &t.field).is_none()) {
        return Err(ApiError::bad_request(format!("field label not supported: {}", t.field)));
    }
    let all = events.list(namespace).await?;
    let selected = |o: &&Object<Event>| {
        let is = |f: &str, v: &str| field(o, f).as_deref() == Some(v);
        fields.terms().iter().all(|t| is(&t.field, &t.value) == t.equal)
    };
    let items: Vec<Value> = all.items.iter().filter(selected).map(core).collect();
    let list = json!({
        "kind": "EventList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": all.revision.to_string()},
        "items": items,
    });
    Ok(json_response(list.to_string()))
}

fn field(o: &Object<Event>, path: &str) -> Option<String> {
    let about = &o.spec.regarding;
    Some(match path {
        "metadata.name" => o.metadata.name.clone(),
        "metadata.namespace" => o.metadata.namespace.clone().unwrap_or_default(),
        "involvedObject.kind" => about.kind.clone(),
        "involvedObject.namespace" => about.namespace.clone(),
        "involvedObject.name" => about.name.clone(),
        "involvedObject.uid" => about.uid.clone(),
        "involvedObject.apiVersion" => biga_model::API_VERSION.into(),
        "reason" => o.spec.reason.clone(),
        "type" => type_of(o.spec.type_).into(),
        _ => return None,
    })
}

fn type_of(t: EventType) -> &'static str {
    match t {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    }
}

/// An event in the form of `v1`.
fn core(o: &Object<Event>) -> Value {
    let (s, about) = (&o.spec, &o.spec.regarding);
    let first = o.metadata.creation_timestamp;
    let last = s.time.or(first);
    json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": o.metadata,
        "involvedObject": {
            "apiVersion": biga_model::API_VERSION,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": type_of(s.type_),
        "reason": s.reason,
        "message": s.message,
        "count": s.count.max(1),
        "firstTimestamp": first,
        "lastTimestamp": last,
        "source": {"component": "biga"},
        "reportingComponent": "biga",
        "reportingInstance": "",
    })
}
