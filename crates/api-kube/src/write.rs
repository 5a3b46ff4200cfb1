//! Create and update.

use axum::response::Response;
use biga_model::{FieldError, Kind, Object, Timestamp};
use biga_store::typed::{self, prepare_new};
use http::{StatusCode, header};
use serde_json::Value;

use crate::admission::Operation;
use crate::decode::{self, Decoded, FieldValidation};
use crate::error::{ApiError, ErrorKind};
use crate::metadata;
use crate::resource::{Call, Resource};

/// How often a generated name is drawn again where it is taken.
const NAME_TRIES: usize = 8;
/// How often a write that names no version is tried on a newer object where somebody came between.
pub(crate) const SWAP_TRIES: usize = 64;

impl<K: Kind> Resource<K> {
    pub async fn create(&self, call: &Call) -> Result<Response, ApiError> {
        let Decoded { mut object, warnings } = self.body(call)?;
        self.place(call, &mut object)?;
        if !object.metadata.resource_version.is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let draws_name = object.metadata.name.is_empty() && object.metadata.generate_name.is_some();
        let tries = if draws_name { NAME_TRIES } else { 1 };
        let mut result = Err(ApiError::internal("no name was tried"));
        for _ in 0..tries {
            result = self.create_once(call, object.clone()).await;
            if !matches!(&result, Err(e) if e.kind == ErrorKind::AlreadyExists) {
                break;
            }
        }
        self.answer(call, StatusCode::CREATED, &result?, &warnings)
    }

    async fn create_once(&self, call: &Call, mut object: Object<K>) -> Result<Object<K>, ApiError> {
        prepare_new(&mut object, Timestamp::now());
        self.check(&mut object, None)?;
        self.admit(Operation::Create, Some(&object), None).await?;
        if call.dry_run()? {
            let ns = object.metadata.namespace.as_deref().unwrap_or("");
            return match self.objects.find(ns, &object.metadata.name).await? {
                Some(_) => Err(typed::Error::AlreadyExists {
                    plural: K::PLURAL,
                    name: object.metadata.name,
                }
                .into()),
                None => Ok(object),
            };
        }
        Ok(self.spec.insert(object).await?)
    }

    pub async fn update(&self, call: &Call) -> Result<Response, ApiError> {
        let Decoded { mut object, warnings } = self.body(call)?;
        self.place(call, &mut object)?;
        // Without a resourceVersion the last writer wins, on whatever stands there by then.
        let unconditional = object.metadata.resource_version.is_empty() && object.metadata.uid.is_empty();
        let mut tries = 1;
        loop {
            let current = self.objects.get(call.ns(), call.name()).await?;
            match self.replace(call, &current, object.clone()).await {
                Err(e) if e.kind == ErrorKind::Conflict && unconditional && tries < SWAP_TRIES => tries += 1,
                other => return self.answer(call, StatusCode::OK, &other?, &warnings),
            }
        }
    }

    /// Makes `object` what stands under its name, if `current` still stands there.
    pub async fn replace(
        &self,
        call: &Call,
        current: &Object<K>,
        mut object: Object<K>,
    ) -> Result<Object<K>, ApiError> {
        same_version(current, &object)?;
        // Rules are checked on what would be stored, so what only the server writes is put in first.
        object.metadata.uid.clone_from(&current.metadata.uid);
        object.metadata.creation_timestamp = current.metadata.creation_timestamp;
        object.status.clone_from(&current.status);
        self.check(&mut object, Some(current))?;
        self.admit(Operation::Update, Some(&object), Some(current)).await?;
        if call.dry_run()? {
            return Ok(typed::merge(current, object));
        }
        Ok(self.spec.replace(current, object).await?)
    }

    pub async fn update_status(&self, call: &Call) -> Result<Response, ApiError> {
        let Decoded { mut object, warnings } = self.body(call)?;
        self.place(call, &mut object)?;
        let unconditional = object.metadata.resource_version.is_empty() && object.metadata.uid.is_empty();
        let mut tries = 1;
        loop {
            let current = self.objects.get(call.ns(), call.name()).await?;
            match self.replace_status(call, &current, object.clone()).await {
                Err(e) if e.kind == ErrorKind::Conflict && unconditional && tries < SWAP_TRIES => tries += 1,
                other => return self.answer(call, StatusCode::OK, &other?, &warnings),
            }
        }
    }

    /// Makes the status of `object` that of the object, if `current` still stands there.
    pub async fn replace_status(
        &self,
        call: &Call,
        current: &Object<K>,
        object: Object<K>,
    ) -> Result<Object<K>, ApiError> {
        same_version(current, &object)?;
        let status = object.status.unwrap_or_default();
        if call.dry_run()? {
            let mut dry = current.clone();
            dry.status = Some(status);
            return Ok(dry);
        }
        Ok(self.status.replace(current, status).await?)
    }

    /// The object in the body.
    fn body(&self, call: &Call) -> Result<Decoded<K>, ApiError> {
        let media = content_type(call);
        if !matches!(media.as_str(), "" | "application/json") {
            return Err(unsupported(&media, "application/json"));
        }
        decode::object(decode::json(&call.body)?, self.validation(call)?)
    }

    pub fn validation(&self, call: &Call) -> Result<FieldValidation, ApiError> {
        FieldValidation::parse(call.query.get("fieldValidation"))
    }

    /// Name and namespace of the path must be those of the body, where that names them.
    pub fn place(&self, call: &Call, object: &mut Object<K>) -> Result<(), ApiError> {
        let m = &mut object.metadata;
        match (&call.namespace, &m.namespace) {
            (Some(path), Some(body)) if path != body => {
                return Err(ApiError::bad_request(format!(
                    "the namespace of the provided object does not match the namespace sent on the request: {body:?} and {path:?}"
                )));
            }
            _ => m.namespace.clone_from(&call.namespace),
        }
        if let Some(name) = &call.name {
            if m.name.is_empty() {
                m.name.clone_from(name);
            } else if m.name != *name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    m.name
                )));
            }
        }
        Ok(())
    }

    /// Fills in defaults, and refuses what breaks the rules.
    fn check(&self, object: &mut Object<K>, old: Option<&Object<K>>) -> Result<(), ApiError> {
        K::set_defaults(object);
        let mut errors: Vec<FieldError> = metadata::check(object);
        errors.extend(K::validate(object, old));
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(K::KIND, K::PLURAL, &object.metadata.name, &errors))
    }
}

/// Refuses an object that was read at another version, or is another object of the same name.
pub(crate) fn same_version<K: Kind>(current: &Object<K>, object: &Object<K>) -> Result<(), ApiError> {
    let (have, want) = (&current.metadata, &object.metadata);
    let why = if !want.uid.is_empty() && want.uid != have.uid {
        "Precondition failed: UID in precondition and in object meta differ"
    } else if !want.resource_version.is_empty() && want.resource_version != have.resource_version {
        "the object has been modified; please apply your changes to the latest version and try again"
    } else {
        return Ok(());
    };
    Err(typed::Error::Conflict {
        plural: K::PLURAL,
        name: have.name.clone(),
        why,
    }
    .into())
}

/// The media type of the body, without parameters.
pub(crate) fn content_type(call: &Call) -> String {
    let value = call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = value.unwrap_or_default().split(';').next().unwrap_or_default();
    media.trim().to_ascii_lowercase()
}

pub(crate) fn unsupported(media: &str, taken: &str) -> ApiError {
    ApiError::new(
        ErrorKind::UnsupportedMediaType,
        format!("the body of the request was in an unknown format ({media:?}) - accepted media types include: {taken}"),
    )
}

/// An object as JSON, for patches.
pub(crate) fn to_value<K: Kind>(object: &Object<K>) -> Result<Value, ApiError> {
    serde_json::to_value(object).map_err(|e| ApiError::internal(format!("the object cannot be written: {e}")))
}
