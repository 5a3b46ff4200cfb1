//! Which representation a client wants.

use http::{HeaderMap, header};

use crate::error::{ApiError, ErrorKind};

/// A representation of objects and lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// Whole objects.
    Json,
    /// Rows of cells, in `meta.k8s.io/v1` or `v1beta1`.
    Table(&'static str),
    /// `metadata` only.
    Partial(&'static str),
}

/// One media range of an `Accept` header.
struct Range {
    media: String,
    params: Vec<(String, String)>,
    quality: f32,
}

impl Range {
    fn parse(text: &str) -> Range {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let params: Vec<(String, String)> = parts
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().trim_matches('"').to_string()))
            .collect();
        let quality = params
            .iter()
            .find(|(k, _)| k == "q")
            .and_then(|(_, v)| v.parse().ok())
            .unwrap_or(1.0);
        Range { media, params, quality }
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    fn is_json(&self) -> bool {
        matches!(self.media.as_str(), "application/json" | "application/*" | "*/*")
    }

    fn meta_version(&self) -> Option<&'static str> {
        if self.param("g") != Some("meta.k8s.io") {
            return None;
        }
        match self.param("v") {
            Some("v1") => Some("meta.k8s.io/v1"),
            Some("v1beta1") => Some("meta.k8s.io/v1beta1"),
            _ => None,
        }
    }
}

fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let mut ranges: Vec<Range> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter(|t| !t.trim().is_empty())
        .take(64)
        .map(Range::parse)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// The first representation the client accepts.
pub fn representation(headers: &HeaderMap) -> Result<Representation, ApiError> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Representation::Json);
    }
    for r in ranges.iter().filter(|r| r.is_json() && r.quality > 0.0) {
        match (r.param("as"), r.meta_version()) {
            (None, _) => return Ok(Representation::Json),
            (Some("Table"), Some(v)) => return Ok(Representation::Table(v)),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some(v)) => {
                return Ok(Representation::Partial(v));
            }
            _ => {}
        }
    }
    Err(ApiError::new(
        ErrorKind::NotAcceptable,
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
    ))
}

/// The version of aggregated discovery the client prefers to the plain one.
pub fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    for r in ranges(headers).iter().filter(|r| r.is_json()) {
        match (r.param("g"), r.param("v"), r.param("as")) {
            (Some("apidiscovery.k8s.io"), Some("v2"), Some("APIGroupDiscoveryList")) => return Some("v2"),
            (Some("apidiscovery.k8s.io"), Some("v2beta1"), Some("APIGroupDiscoveryList")) => return Some("v2beta1"),
            (None, None, None) => return None,
            _ => {}
        }
    }
    None
}

/// Whether the client asks for protobuf first (kubectl's way to read `/openapi/v2`).
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    ranges(headers).first().is_some_and(|r| r.media.contains("protobuf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> HeaderMap {
        let mut h = HeaderMap::new();
        h.insert(header::ACCEPT, accept.parse().unwrap());
        h
    }

    #[test]
    fn what_kubectl_sends() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            representation(&of(table)).unwrap(),
            Representation::Table("meta.k8s.io/v1")
        );
        let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, */*";
        assert_eq!(
            representation(&of(list)).unwrap(),
            Representation::Partial("meta.k8s.io/v1")
        );
        assert_eq!(
            representation(&of("application/yaml, */*;q=0.5")).unwrap(),
            Representation::Json
        );
        assert_eq!(representation(&HeaderMap::new()).unwrap(), Representation::Json);
        assert!(representation(&of("text/html")).is_err());
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_discovery(&of(aggregated)), Some("v2"));
        assert_eq!(aggregated_discovery(&of("application/json")), None);
    }
}
