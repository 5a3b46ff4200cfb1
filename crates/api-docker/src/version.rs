//! API versions: the prefix of the path, and what is accepted.

use http::Uri;
use http::uri::PathAndQuery;

use crate::error::{Error, Result};

/// The newest API version spoken.
pub const MAX_API: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest API version accepted.
pub const MIN_API: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// A version of the API, as `1.43`. Requests without one mean the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u32,
    /// Counts up.
    pub minor: u32,
}

impl ApiVersion {
    /// Whether it is `1.minor` or newer.
    pub fn at_least(self, minor: u32) -> bool {
        self >= ApiVersion { major: 1, minor }
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Takes `/v1.43` off the front of a path.
pub(crate) fn split(uri: &Uri) -> Result<(ApiVersion, Uri)> {
    let path = uri.path();
    let Some((version, rest)) = prefix(path) else {
        return Ok((MAX_API, uri.clone()));
    };
    if version > MAX_API {
        return Err(Error::bad(format!(
            "client version {version} is too new. Maximum supported API version is {MAX_API}"
        )));
    }
    if version < MIN_API {
        return Err(Error::bad(format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API}, please upgrade your client to a newer version"
        )));
    }
    let rest = match uri.query() {
        Some(q) => format!("{rest}?{q}"),
        None => rest.to_string(),
    };
    let rest: PathAndQuery = rest.parse().map_err(|_| Error::bad("the path is malformed"))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest);
    let uri = Uri::from_parts(parts).map_err(|_| Error::bad("the path is malformed"))?;
    Ok((version, uri))
}

fn prefix(path: &str) -> Option<(ApiVersion, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let (major, minor) = rest[..end].split_once('.')?;
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok()).flatten();
    let version = ApiVersion {
        major: number(major)?,
        minor: number(minor)?,
    };
    Some((version, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(path: &str) -> Result<(String, String)> {
        split(&path.parse().unwrap()).map(|(v, u)| (v.to_string(), u.to_string()))
    }

    #[test]
    fn prefixes_go_and_the_rest_stays() {
        assert_eq!(cut("/v1.43/a/b?c=d").unwrap(), ("1.43".into(), "/a/b?c=d".into()));
        assert_eq!(cut("/a/b?c=d").unwrap(), ("1.51".into(), "/a/b?c=d".into()));
        assert_eq!(cut("/version").unwrap().1, "/version");
        assert_eq!(cut("/volumes/x").unwrap().1, "/volumes/x");
        assert_eq!(cut("/v1.x/a").unwrap().1, "/v1.x/a");
        assert_eq!(cut("/v1.44").unwrap().1, "/v1.44");
    }

    #[test]
    fn versions_out_of_range_are_refused() {
        assert!(cut("/v1.23/info").unwrap_err().message.contains("too old"));
        assert!(cut("/v1.99/info").unwrap_err().message.contains("too new"));
        assert!(cut("/v2.0/info").unwrap_err().message.contains("too new"));
        assert_eq!(cut("/v1.99999999999999/info").unwrap().0, "1.51");
    }
}
