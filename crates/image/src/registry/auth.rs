//! Logins: what a registry demands by `WWW-Authenticate`, and how that is got.

use base64::Engine;
use reqwest::Url;
use serde::Deserialize;

use super::Auth;

/// What a registry demands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The first demand of a header that is understood.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let lower = header.to_ascii_lowercase();
    if let Some(at) = lower.find("bearer ") {
        let mut parameters = parameters(&header[at + "bearer ".len()..]);
        let mut get = |name: &str| {
            let i = parameters.iter().position(|(n, _)| n == name)?;
            Some(parameters.swap_remove(i).1)
        };
        return Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
        });
    }
    lower.contains("basic").then_some(Challenge::Basic)
}

/// `name="value", name=value`; commas within quotes belong to the value.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        all.push((name, value.trim().to_owned()));
        text = after;
    }
    all
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in a token service's answer.
pub(super) fn token(body: &[u8]) -> Option<String> {
    let reply: TokenReply = serde_json::from_slice(body).ok()?;
    reply.token.or(reply.access_token).filter(|t| !t.is_empty())
}

/// The value of `Authorization` for a name and password.
pub(super) fn basic(username: &str, password: &str) -> String {
    let both = format!("{username}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
}

/// The request to a token service: its address, the form to post (else it is a GET), and its `Authorization`.
pub(super) struct TokenRequest {
    pub url: Url,
    pub form: Option<String>,
    pub authorization: Option<String>,
}

/// What to ask the token service.
pub(super) fn token_request(realm: Url, service: Option<&str>, scope: &str, auth: &Auth) -> TokenRequest {
    let mut url = realm;
    if let Auth::Identity(refresh) = auth {
        let form = url_encode(&[
            ("grant_type", "refresh_token"),
            ("service", service.unwrap_or_default()),
            ("client_id", "biga"),
            ("scope", scope),
            ("refresh_token", refresh),
        ]);
        return TokenRequest {
            url,
            form: Some(form),
            authorization: None,
        };
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for one in scope.split(' ').filter(|s| !s.is_empty()) {
            query.append_pair("scope", one);
        }
        if let Auth::Basic { username, .. } = auth {
            query.append_pair("account", username);
        }
    }
    let authorization = match auth {
        Auth::Basic { username, password } => Some(basic(username, password)),
        _ => None,
    };
    TokenRequest {
        url,
        form: None,
        authorization,
    }
}

fn url_encode(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for b in value.bytes() {
            if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
                out.push(b.into());
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        assert_eq!(
            challenge(r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Bearer service=x"), None);
        assert_eq!(challenge("Digest realm=x"), None);
    }

    #[test]
    fn token_requests() {
        let realm: Url = "https://auth.example/token?x=1".parse().unwrap();
        let basic = Auth::Basic {
            username: "me".into(),
            password: "pw".into(),
        };
        let r = token_request(realm.clone(), Some("reg"), "repository:a:pull", &basic);
        assert_eq!(
            r.url.as_str(),
            "https://auth.example/token?x=1&service=reg&scope=repository%3Aa%3Apull&account=me"
        );
        assert_eq!(r.authorization.as_deref(), Some("Basic bWU6cHc="));
        let r = token_request(realm, Some("reg"), "s", &Auth::Identity("a+b".into()));
        assert!(r.form.unwrap().ends_with("refresh_token=a%2Bb"));
        assert!(r.authorization.is_none());
    }
}
