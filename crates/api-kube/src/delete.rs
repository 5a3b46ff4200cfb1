//! Delete, of one object and of a collection.

use axum::response::Response;
use biga_model::{Kind, Object};
use biga_store::typed::{self, Deletion, Propagation};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::decode;
use crate::error::ApiError;
use crate::resource::{Call, Resource, dry_run, json_response};

/// `metav1.DeleteOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// The options of body and query together; the query wins, as in Kubernetes.
fn read(call: &Call) -> Result<(typed::DeleteOptions, bool), ApiError> {
    let body: Options = decode::options(&call.body)?;
    let policy = call
        .query
        .get("propagationPolicy")
        .or(body.propagation_policy.as_deref());
    let propagation = match (policy, body.orphan_dependents) {
        (None | Some(""), Some(true)) | (Some("Orphan"), _) => Propagation::Orphan,
        (None | Some(""), _) | (Some("Background"), _) => Propagation::Background,
        (Some("Foreground"), _) => Propagation::Foreground,
        (Some(other), _) => {
            return Err(ApiError::bad_request(format!(
                "propagationPolicy is Background, Foreground or Orphan, not {other:?}"
            )));
        }
    };
    let grace_seconds = match call.query.number("gracePeriodSeconds")? {
        Some(n) => Some(n),
        None => body.grace_period_seconds,
    };
    if grace_seconds.is_some_and(|s| s < 0) {
        return Err(ApiError::bad_request("gracePeriodSeconds is 0 or more"));
    }
    let preconditions = body.preconditions.unwrap_or_default();
    let from_body = body.dry_run.iter().flatten().map(String::as_str);
    let dry = dry_run(call.query.all("dryRun").chain(from_body))?;
    let options = typed::DeleteOptions {
        uid: preconditions.uid,
        resource_version: preconditions.resource_version,
        grace_seconds,
        propagation,
    };
    Ok((options, dry))
}

impl<K: Kind> Resource<K> {
    pub async fn delete(&self, call: &Call) -> Result<Response, ApiError> {
        let (options, dry) = read(call)?;
        let current = self.objects.get(call.ns(), call.name()).await?;
        self.admit(Operation::Delete, None, Some(&current)).await?;
        if dry {
            return Ok(json_response(success::<K>(&current).to_string()));
        }
        let body = match self.spec.delete(call.ns(), call.name(), &options).await? {
            Deletion::Gone(o) => success::<K>(&o).to_string().into_bytes(),
            Deletion::Waiting(o) => call.style()?.one(&o, true)?,
        };
        Ok(json_response(body))
    }

    pub async fn delete_collection(&self, call: &Call) -> Result<Response, ApiError> {
        let (mut options, dry) = read(call)?;
        options.uid = None;
        options.resource_version = None;
        let style = call.style()?;
        let (objects, meta) = self.selected(call).await?;
        let mut deleted = Vec::with_capacity(objects.len());
        for object in objects {
            self.admit(Operation::Delete, None, Some(&object)).await?;
            if dry {
                deleted.push(object);
                continue;
            }
            let ns = object.metadata.namespace.as_deref().unwrap_or("");
            match self.spec.delete(ns, &object.metadata.name, &options).await {
                Ok(Deletion::Gone(o) | Deletion::Waiting(o)) => deleted.push(*o),
                // Somebody else was faster.
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(json_response(style.list(&meta, &deleted)?))
    }
}

/// `Status` of a deletion that is complete.
fn success<K: Kind>(object: &Object<K>) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": object.metadata.name,
            "group": biga_model::GROUP,
            "kind": K::PLURAL,
            "uid": object.metadata.uid,
        },
    })
}
