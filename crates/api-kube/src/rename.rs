//! `POST …/NAME/rename`: another name for an object of a kind that can have one.

use axum::response::Response;
use biga_model::{FieldError, Kind};
use http::StatusCode;
use serde::Deserialize;

use crate::admission::Operation;
use crate::decode;
use crate::error::ApiError;
use crate::resource::{Call, Resource};
use crate::write::{content_type, same_version, unsupported};

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The new name.
    name: String,
    /// Only the object with this uid.
    uid: Option<String>,
}

impl<K: Kind> Resource<K> {
    pub async fn rename(&self, call: &Call) -> Result<Response, ApiError> {
        let media = content_type(call);
        if !matches!(media.as_str(), "" | "application/json") {
            return Err(unsupported(&media, "application/json"));
        }
        let wish: Wish = serde_json::from_value(decode::json(&call.body)?)
            .map_err(|e| ApiError::bad_request(format!("the body is {{\"name\": NEW}}, perhaps with \"uid\": {e}")))?;
        if !K::valid_name(&wish.name) {
            let why = format!("{:?} is no name of a {}", wish.name, K::SINGULAR);
            let wrong = [FieldError::new("name", why)];
            return Err(ApiError::invalid(K::KIND, K::PLURAL, call.name(), &wrong));
        }
        let current = self.objects.get(call.ns(), call.name()).await?;
        let mut new = current.clone();
        new.metadata.uid = wish.uid.unwrap_or(new.metadata.uid);
        same_version(&current, &new)?;
        new.metadata.name.clone_from(&wish.name);
        self.admit(Operation::Update, Some(&new), Some(&current)).await?;
        if !call.dry_run()? && current.metadata.name != wish.name {
            new = self.spec.rename(&current, &wish.name).await?;
        }
        self.answer(call, StatusCode::OK, &new, &[])
    }
}
