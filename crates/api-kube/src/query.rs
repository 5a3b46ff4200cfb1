//! The query of a request, and percent-encoding.

use crate::error::ApiError;

/// Decoded pairs, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`. What is no valid UTF-8 is refused.
    pub fn parse(raw: &str) -> Result<Query, ApiError> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |s: &str| {
                decode_percent(&s.replace('+', " "))
                    .ok_or_else(|| ApiError::bad_request(format!("the query {pair:?} is not valid UTF-8")))
            };
            pairs.push((decode(k)?, decode(v)?));
        }
        Ok(Query(pairs))
    }

    /// The first value under `name` that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().filter(|(k, _)| k == name);
        named.map(|(_, v)| v.as_str()).find(|v| !v.is_empty())
    }

    /// Every value under `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Whether `name` is there, even without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }

    /// `true`, `1` or nothing after the name; false where it is not there.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.all(name).next() {
            None | Some("false" | "0" | "False") => Ok(false),
            Some("" | "true" | "1" | "True") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!("{name} is true or false, not {other:?}"))),
        }
    }

    /// A number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|v| {
                v.parse()
                    .map_err(|_| ApiError::bad_request(format!("{name} is a number, not {v:?}")))
            })
            .transpose()
    }
}

/// Undoes percent-encoding; `None` where the result is no UTF-8.
pub fn decode_percent(s: &str) -> Option<String> {
    let b = s.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    let digit = |i: usize| b.get(i).and_then(|c| char::from(*c).to_digit(16));
    while i < b.len() {
        match (b[i], digit(i + 1), digit(i + 2)) {
            (b'%', Some(h), Some(l)) => {
                out.push((h * 16 + l) as u8);
                i += 3;
            }
            (c, _, _) => {
                out.push(c);
                i += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let q = Query::parse("labelSelector=a%3Db%2Cc+in+(d)&watch&limit=5&x=%zz&limit=").unwrap();
        assert_eq!(q.get("labelSelector"), Some("a=b,c in (d)"));
        assert!(q.flag("watch").unwrap());
        assert!(!q.flag("other").unwrap());
        assert_eq!(q.number::<u32>("limit").unwrap(), Some(5));
        assert_eq!(q.get("x"), Some("%zz"));
        assert!(Query::parse("a=%ff").is_err());
        assert!(Query::parse("limit=-1").unwrap().number::<u32>("limit").is_err());
    }
}
