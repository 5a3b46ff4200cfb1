//! Where the daemon is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// The socket of a daemon that was started without options.
pub const DEFAULT_SOCKET: &str = "/run/biga/api.sock";
/// The variable that names another.
pub const HOST_VARIABLE: &str = "BIGA_HOST";

/// Where the daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket of this host.
    Unix(PathBuf),
}

impl Endpoint {
    /// What [`HOST_VARIABLE`] says, or [`DEFAULT_SOCKET`].
    pub fn from_env() -> Result<Endpoint, Error> {
        match std::env::var(HOST_VARIABLE) {
            Ok(v) if !v.is_empty() => v.parse(),
            _ => Ok(Endpoint::default()),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Endpoint::Unix(DEFAULT_SOCKET.into())
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let path = s.strip_prefix("unix://").unwrap_or(s);
        if path.starts_with('/') {
            return Ok(Endpoint::Unix(path.into()));
        }
        Err(Error::new(
            ErrorKind::Usage,
            format!("{s:?} is no address of a daemon: write unix:///path/to/api.sock"),
        ))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(p) => write!(f, "unix://{}", p.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let e: Endpoint = "unix:///run/x/api.sock".parse().unwrap();
        assert_eq!(e, Endpoint::Unix("/run/x/api.sock".into()));
        assert_eq!("/run/x/api.sock".parse::<Endpoint>().unwrap(), e);
        assert_eq!(e.to_string(), "unix:///run/x/api.sock");
        for bad in ["", "tcp://1.2.3.4", "relative/path", "unix://relative"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
