//! Image calls to the node.

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use biga_api_kube::ApiError;
use biga_api_kube::query::Query;
use futures_util::{StreamExt, TryStreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};

use crate::Streams;
use crate::backend::{ArchiveFormat, ImportFormat, RegistryAuth, Upload};
use crate::long;

/// Largest image config in a query, decoded.
const MAX_CONFIG: usize = 256 << 10;

/// Base64 of either alphabet, padded or not, decodes through one of these.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = general_purpose::GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// A call to the node that the path names, which is this one.
pub(crate) struct OnNode(Streams);

impl FromRequestParts<Streams> for OnNode {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, streams: &Streams) -> Result<OnNode, ApiError> {
        let path = Path::<String>::from_request_parts(parts, streams).await;
        let Path(node) = path.map_err(|e| ApiError::bad_request(e.body_text()))?;
        if node == "self" || *node == *streams.node {
            return Ok(OnNode(streams.clone()));
        }
        Err(ApiError::not_found("nodes", &node))
    }
}

fn query(raw: Option<&str>) -> Result<Query, ApiError> {
    Query::parse(raw.unwrap_or_default())
}

fn required(query: &Query, name: &'static str) -> Result<String, ApiError> {
    let value = query.get(name).map(String::from);
    value.ok_or_else(|| ApiError::bad_request(format!("the query needs {name}=")))
}

fn upload(body: Body) -> Upload {
    body.into_data_stream().map_err(std::io::Error::other).boxed()
}

/// Credentials of the header `X-Registry-Auth`: base64 of JSON, as Docker's clients send it.
fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>, ApiError> {
    let Some(value) = headers.get("x-registry-auth") else {
        return Ok(None);
    };
    if value.is_empty() {
        return Ok(None);
    }
    // The message must not repeat what was sent.
    let bad = || ApiError::bad_request("the header X-Registry-Auth is not the base64 of a JSON object");
    let bytes = base64(value.to_str().map_err(|_| bad())?).ok_or_else(bad)?;
    let auth: RegistryAuth = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    Ok((auth != RegistryAuth::default()).then_some(auth))
}

pub(crate) async fn load(OnNode(s): OnNode, body: Body) -> Result<Response, ApiError> {
    Ok(long::answer(move |report| async move {
        s.backend.image_load(upload(body), report).await
    }))
}

pub(crate) async fn save(OnNode(s): OnNode, RawQuery(raw): RawQuery) -> Result<Response, ApiError> {
    let q = query(raw.as_deref())?;
    let format = match q.get("format") {
        None | Some("docker") => ArchiveFormat::Docker,
        Some("oci") => ArchiveFormat::Oci,
        Some(other) => return Err(ApiError::bad_request(format!("format is docker or oci, not {other:?}"))),
    };
    required(&q, "reference")?;
    let references: Vec<String> = q.all("reference").map(String::from).collect();
    let stream = s.backend.image_save(&references, format).await?;
    let mut r = Response::new(Body::from_stream(stream));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(r)
}

pub(crate) async fn import(OnNode(s): OnNode, RawQuery(raw): RawQuery, body: Body) -> Result<Response, ApiError> {
    let q = query(raw.as_deref())?;
    let reference = required(&q, "reference")?;
    let format = match q.get("format") {
        None | Some("rootfs") => ImportFormat::Rootfs,
        Some("raw") => ImportFormat::Raw,
        Some("qcow2") => ImportFormat::Qcow2,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "format is rootfs, raw or qcow2, not {other:?}"
            )));
        }
    };
    let config = q.get("config").map(image_config).transpose()?;
    Ok(long::answer(move |report| async move {
        s.backend
            .image_import(&reference, format, config, upload(body), report)
            .await
    }))
}

fn image_config(text: &str) -> Result<serde_json::Value, ApiError> {
    let bad = || ApiError::bad_request("config is the base64 of the JSON of an OCI image config's object \"config\"");
    // A plus sign in a query is a space once decoded.
    let bytes = base64(&text.replace(' ', "+")).ok_or_else(bad)?;
    if bytes.len() > MAX_CONFIG {
        return Err(ApiError::bad_request(format!(
            "config is larger than {MAX_CONFIG} bytes"
        )));
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    if value.is_object() { Ok(value) } else { Err(bad()) }
}

pub(crate) async fn push(OnNode(s): OnNode, RawQuery(raw): RawQuery, headers: HeaderMap) -> Result<Response, ApiError> {
    let q = query(raw.as_deref())?;
    let reference = required(&q, "reference")?;
    let target = q.get("as").map_or_else(|| reference.clone(), String::from);
    let referrers = q.flag("referrers")?;
    let auth = registry_auth(&headers)?;
    Ok(long::answer(move |report| async move {
        s.backend.image_push(&reference, &target, referrers, auth, report).await
    }))
}

pub(crate) async fn pull(OnNode(s): OnNode, RawQuery(raw): RawQuery, headers: HeaderMap) -> Result<Response, ApiError> {
    let q = query(raw.as_deref())?;
    let (reference, referrers) = (required(&q, "reference")?, q.flag("referrers")?);
    let platform = q.get("platform").map(String::from);
    let auth = registry_auth(&headers)?;
    Ok(long::answer(move |report| async move {
        s.backend
            .image_pull(&reference, platform.as_deref(), referrers, auth, report)
            .await
    }))
}

/// Largest options of a build in a query, decoded.
const MAX_BUILD: usize = 256 << 10;

pub(crate) async fn build(
    OnNode(s): OnNode,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bad =
        |why: String| ApiError::bad_request(format!("options is the base64 of the JSON of a build's options: {why}"));
    let text = required(&query(raw.as_deref())?, "options")?;
    // A plus sign in a query is a space once decoded.
    let bytes = base64(&text.replace(' ', "+")).ok_or_else(|| bad("it is no base64".into()))?;
    if bytes.len() > MAX_BUILD {
        return Err(bad(format!("they are larger than {MAX_BUILD} bytes")));
    }
    let wanted = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    let auths = registry_auths(&headers)?;
    Ok(long::answer(move |report| async move {
        s.backend.build(wanted, auths, upload(body), report).await
    }))
}

/// Credentials of the header `X-Registry-Config`: base64 of JSON, by registry.
fn registry_auths(headers: &HeaderMap) -> Result<std::collections::BTreeMap<String, RegistryAuth>, ApiError> {
    let Some(value) = headers.get("x-registry-config") else {
        return Ok(Default::default());
    };
    // The message must not repeat what was sent.
    let bad = || ApiError::bad_request("the header X-Registry-Config is not the base64 of a JSON object");
    let bytes = base64(value.to_str().map_err(|_| bad())?).ok_or_else(bad)?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

pub(crate) async fn detail(OnNode(s): OnNode, RawQuery(raw): RawQuery) -> Result<Response, ApiError> {
    let reference = required(&query(raw.as_deref())?, "reference")?;
    Ok(Json(s.backend.image_detail(&reference).await?).into_response())
}

pub(crate) async fn referrers(
    OnNode(s): OnNode,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reference = required(&query(raw.as_deref())?, "reference")?;
    let auth = registry_auth(&headers)?;
    Ok(Json(s.backend.image_referrers(&reference, auth).await?).into_response())
}

pub(crate) async fn login(OnNode(s): OnNode, headers: HeaderMap) -> Result<Response, ApiError> {
    let auth = registry_auth(&headers)?.filter(|a| !a.server_address.is_empty());
    let auth = auth.ok_or_else(|| ApiError::bad_request("the header X-Registry-Auth must name a serveraddress"))?;
    s.backend.registry_login(auth).await?;
    Ok(Json(serde_json::json!({})).into_response())
}

pub(crate) async fn tag(OnNode(s): OnNode, RawQuery(raw): RawQuery) -> Result<Response, ApiError> {
    let q = query(raw.as_deref())?;
    let (reference, target) = (required(&q, "reference")?, required(&q, "as")?);
    Ok(Json(s.backend.image_tag(&reference, &target).await?).into_response())
}

pub(crate) async fn prune(OnNode(s): OnNode) -> Result<Response, ApiError> {
    Ok(long::answer(move |report| async move { s.backend.prune(report).await }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_never_shown() {
        let mut h = HeaderMap::new();
        assert_eq!(registry_auth(&h).unwrap(), None);
        for text in [
            r#"{"username":"ann","password":"s3cret?>","serveraddress":"r.example"}"#,
            r#"{"username":"ann","password":"s3cret?>","serveraddress":"r.example","email":""}"#,
        ] {
            for encoded in [
                general_purpose::STANDARD.encode(text),
                general_purpose::URL_SAFE.encode(text),
                general_purpose::URL_SAFE_NO_PAD.encode(text),
            ] {
                h.insert("x-registry-auth", encoded.parse().unwrap());
                let auth = registry_auth(&h).unwrap().unwrap();
                assert_eq!((auth.username.as_str(), auth.password.as_str()), ("ann", "s3cret?>"));
                assert!(!format!("{auth:?}").contains("s3cret"));
            }
        }
        h.insert(
            "x-registry-auth",
            general_purpose::STANDARD.encode("{}").parse().unwrap(),
        );
        assert_eq!(registry_auth(&h).unwrap(), None);
        h.insert("x-registry-auth", "c2VjcmV0".parse().unwrap());
        assert!(!registry_auth(&h).unwrap_err().message.contains("c2VjcmV0"));
    }
}
