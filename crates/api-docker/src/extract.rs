//! Reading requests: queries, filters, bodies, registry credentials.

use std::collections::{BTreeMap, HashMap};

use axum::body::Body;
use axum::extract::FromRequestParts;
use base64::Engine;
use biga_model::Timestamp;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::backend::RegistryAuth;
use crate::error::{Error, Result};

/// Largest JSON body.
const MAX_JSON: usize = 4 << 20;

/// A query string, read by hand as Docker does: unknown parameters are ignored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Query> {
        Ok(Query::parse(parts.uri.query().unwrap_or("")))
    }
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for part in text.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = part.split_once('=').unwrap_or((part, ""));
            all.entry(decode(k)).or_default().push(decode(v));
        }
        Query(all)
    }

    /// The first value; `None` where it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str).filter(|s| !s.is_empty())
    }

    /// Every value.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Docker's rule: everything is true but these.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same, with what it is where it was left out.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(v) => !matches!(v.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "none"),
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(v) = self.get(name) else { return Ok(None) };
        v.parse()
            .map(Some)
            .map_err(|_| Error::bad(format!("invalid value for {name}: {v:?} is no number in its range")))
    }

    /// A moment: seconds since 1970 with a fraction, or RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        match self.get(name) {
            None | Some("0") => Ok(None),
            Some(v) => parse_time(v).map(Some).ok_or_else(|| {
                Error::bad(format!(
                    "invalid value for \"{name}\": failed to parse {v:?} as a timestamp"
                ))
            }),
        }
    }

    /// The `filters` parameter.
    pub fn filters(&self) -> Result<Filters> {
        self.get("filters").map_or(Ok(Filters::default()), Filters::parse)
    }
}

/// `1136073845.000000001` or `2006-01-02T15:04:05Z`.
fn parse_time(v: &str) -> Option<Timestamp> {
    if v.contains('T') {
        return v.parse().ok();
    }
    let (whole, fraction) = v.split_once('.').unwrap_or((v, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanos).ok()
}

/// Percent-decoding of a query: `+` is a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' => match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                Some(b) => {
                    out.push(b);
                    i += 2;
                }
                None => out.push(b'%'),
            },
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Docker's filters: `{"status":["running"]}`, or as old clients write it `{"status":{"running":true}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Map(BTreeMap<String, bool>),
}

impl Filters {
    fn parse(text: &str) -> Result<Filters> {
        let map: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|e| Error::bad(format!("invalid filter: {e}")))?;
        let list = |v| match v {
            Values::List(l) => l,
            Values::Map(m) => m.into_iter().filter(|(_, on)| *on).map(|(k, _)| k).collect(),
        };
        Ok(Filters(map.into_iter().map(|(k, v)| (k, list(v))).collect()))
    }

    /// Refuses filters that are not among `known`.
    pub fn only(self, known: &[&str]) -> Result<Filters> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            Some(k) => Err(Error::bad(format!("invalid filter '{k}'"))),
            None => Ok(self),
        }
    }

    /// Whether no filter was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of one filter; `None` where it was not given.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice).filter(|l| !l.is_empty())
    }

    /// True where the filter was not given, or one of its values fits.
    pub fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.get(name).is_none_or(|l| l.iter().any(|v| fits(v)))
    }

    /// A filter of true or false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some([v]) => match v.as_str() {
                "1" | "true" | "True" => Ok(Some(true)),
                "0" | "false" | "False" => Ok(Some(false)),
                _ => Err(Error::bad(format!("invalid filter '{name}=[{v}]'"))),
            },
            Some(l) => Err(Error::bad(format!("invalid filter '{name}={l:?}': give one value"))),
        }
    }

    /// Whether labels fit every `label` and no `label!` filter (`key` or `key=value`).
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |want: &String| match want.split_once('=') {
            Some((k, v)) => labels.get(k).is_some_and(|have| have == v),
            None => labels.contains_key(want),
        };
        self.get("label").unwrap_or(&[]).iter().all(has) && !self.get("label!").unwrap_or(&[]).iter().any(has)
    }

    /// The moment of an `until` filter.
    pub fn until(&self) -> Result<Option<Timestamp>> {
        self.moment("until")
    }

    /// The moment of a filter: as in a query, or a duration before now (`10m`, `1h30m`).
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>> {
        let Some(l) = self.get(name) else { return Ok(None) };
        let [v] = l else {
            return Err(Error::bad(format!("more than one {name} filter specified")));
        };
        if let Some(t) = parse_time(v) {
            return Ok(Some(t));
        }
        let ago: jiff::SignedDuration = v
            .parse()
            .map_err(|_| Error::bad(format!("invalid filter '{name}={v}': no time and no duration")))?;
        Timestamp::now()
            .checked_sub(ago)
            .map(Some)
            .map_err(|_| Error::bad(format!("invalid filter '{name}={v}': too long ago")))
    }
}

impl Query {
    /// The platform that is asked for, as `os/architecture[/variant]`: newer clients send the document of the OCI
    /// specification for it.
    pub fn platform(&self) -> Result<Option<String>> {
        let Some(text) = self.get("platform") else {
            return Ok(None);
        };
        if !text.starts_with('{') {
            let parts: Vec<&str> = text.split('/').collect();
            let word = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if parts.len() > 3 || !parts.iter().all(word) {
                return Err(Error::bad(format!(
                    "{text:?}: cannot parse platform specifier: it is os/architecture or os/architecture/variant"
                )));
            }
            return Ok(Some(text.to_ascii_lowercase()));
        }
        let doc: serde_json::Value =
            serde_json::from_str(text).map_err(|e| Error::bad(format!("invalid platform: {e}")))?;
        let part = |name: &str| doc.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (os, architecture, variant) = (part("os"), part("architecture"), part("variant"));
        if os.is_empty() || architecture.is_empty() {
            return Err(Error::bad(format!(
                "invalid platform {text}: it needs os and architecture"
            )));
        }
        let tail = if variant.is_empty() {
            String::new()
        } else {
            format!("/{variant}")
        };
        Ok(Some(format!("{os}/{architecture}{tail}")))
    }
}

/// A JSON body. `None` where there is none.
pub(crate) async fn json_or_none<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<Option<T>> {
    let bytes = axum::body::to_bytes(body, MAX_JSON).await.map_err(|e| {
        let message = e.to_string();
        match message.contains("length limit") {
            true => Error::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {MAX_JSON} bytes"),
            ),
            false => Error::bad(format!("the body cannot be read: {message}")),
        }
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Error::bad(format!(
            "unsupported Content-Type header ({kind}): must be 'application/json'"
        )));
    }
    // A list would be taken for the fields of a document in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::bad("invalid JSON: a list, where a document is wanted"));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::bad(format!("invalid JSON: {e}")))
}

/// A JSON body that must be there.
pub(crate) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T> {
    json_or_none(headers, body)
        .await?
        .ok_or_else(|| Error::bad("invalid JSON: got EOF while reading request body"))
}

/// The JSON of a header (base64url, of either alphabet); `None` where there is none.
fn encoded<T: DeserializeOwned>(headers: &HeaderMap, name: &str) -> Result<Option<T>> {
    let Some(text) = headers.get(name) else {
        return Ok(None);
    };
    let text = text.as_bytes().trim_ascii_end();
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |i| i + 1);
    if end == 0 {
        return Ok(None);
    }
    // Clients use either alphabet.
    let plain: Vec<u8> = text[..end]
        .iter()
        .map(|b| match b {
            b'+' => b'-',
            b'/' => b'_',
            b => *b,
        })
        .collect();
    let bad = |why: String| Error::bad(format!("invalid {name} header: {why}"));
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(plain)
        .map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))
}

/// Credentials of the header `X-Registry-Auth`; `None` where they name nobody.
pub(crate) fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>> {
    let auth: Option<RegistryAuth> = encoded(headers, "X-Registry-Auth")?;
    Ok(auth.filter(|a| !a.is_empty()))
}

/// Credentials of the header `X-Registry-Config`, by registry.
pub(crate) fn registry_auths(headers: &HeaderMap) -> Result<BTreeMap<String, RegistryAuth>> {
    let all: Option<BTreeMap<String, RegistryAuth>> = encoded(headers, "X-Registry-Config")?;
    Ok(all
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, a)| !a.is_empty())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_docker_does() {
        let q = Query::parse("all=1&size=false&name=a%2Fb+c&tail=&limit=-1&bad=%zz");
        assert!(q.flag("all") && !q.flag("size") && !q.flag("absent") && q.flag_or("absent", true));
        assert_eq!(q.get("name"), Some("a/b c"));
        assert_eq!((q.get("tail"), q.get("bad")), (None, Some("%zz")));
        assert_eq!(q.number::<i64>("limit").unwrap(), Some(-1));
        assert!(q.number::<u8>("limit").is_err());
    }

    #[test]
    fn times_have_two_spellings() {
        let t = |v: &str| parse_time(v).map(|t| t.to_string());
        assert_eq!(t("1136073845.5"), Some("2006-01-01T00:04:05.5Z".into()));
        assert_eq!(t("1136073845.000000001"), Some("2006-01-01T00:04:05.000000001Z".into()));
        assert_eq!(t("2006-01-01T00:04:05Z"), Some("2006-01-01T00:04:05Z".into()));
        assert_eq!((t("x"), t("1.-5"), t("")), (None, None, None));
    }

    #[test]
    fn filters_have_two_spellings() {
        let new = Filters::parse(r#"{"status":["running"],"label":["a=b","c"]}"#).unwrap();
        let old =
            Filters::parse(r#"{"status":{"running":true,"exited":false},"label":{"a=b":true,"c":true}}"#).unwrap();
        assert_eq!(new, old);
        let labels: BTreeMap<String, String> = [("a".into(), "b".into()), ("c".into(), String::new())].into();
        assert!(new.labels(&labels) && !new.labels(&BTreeMap::new()));
        assert!(new.clone().only(&["status"]).is_err() && new.only(&["status", "label"]).is_ok());
        assert!(Filters::parse("[1]").is_err());
    }

    #[test]
    fn credentials_in_either_alphabet() {
        let read = |v: &str| {
            let mut h = HeaderMap::new();
            h.insert("x-registry-auth", v.parse().unwrap());
            registry_auth(&h)
        };
        assert_eq!(read("e30=").unwrap(), None);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("bnVsbA==").unwrap(), None);
        let json = r#"{"username":"u?>","password":"p~~","serveraddress":"r"}"#;
        let standard = base64::engine::general_purpose::STANDARD.encode(json);
        assert_eq!(read(&standard).unwrap().unwrap().username, "u?>");
        assert!(read("!!!").is_err());
    }
}
