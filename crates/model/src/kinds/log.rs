//! Where the output of an instance goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Memory;

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSpec {
    /// Kept in files only, dropped, or sent to the journal or to syslog as well.
    #[serde(default)]
    pub driver: LogDriver,
    /// Start a new file at this size; 16 MiB where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Memory>,
    /// Keep so many files; 3 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
    /// Keep no files where it is sent elsewhere: it can then not be read here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_files: bool,
    /// Options of the driver, by the names Docker has for them. journald: `tag`, `labels`, `env`, and the path of another
    /// `journald-socket`. syslog: `syslog-address`, `syslog-facility`, `syslog-format`, `tag`, `labels`, `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What is told of the instance beside each line, where the driver can; what `labels` and `env` name comes on top.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// How the instance is identified there; its uid where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogDriver {
    /// Files on the node.
    #[default]
    File,
    /// Nowhere.
    None,
    /// The journal of systemd.
    Journald,
    /// A syslog daemon.
    Syslog,
}

/// Where syslog listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// Where programs of the host look for it.
    Local,
    /// A socket of the host.
    Unix(String),
    /// `host:port`, by datagrams.
    Udp(String),
    /// `host:port`, by a connection.
    Tcp(String),
}

/// Form of a message, by Docker's names.
pub const SYSLOG_FORMATS: [&str; 4] = ["", "rfc3164", "rfc5424", "rfc5424micro"];

/// Facilities by number (RFC 5424, 6.2.1), as Docker names them.
const FACILITIES: [&str; 12] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
];

const JOURNALD: [&str; 4] = ["tag", "labels", "env", "journald-socket"];
const SYSLOG: [&str; 6] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "tag",
    "labels",
    "env",
];

/// The words of a tag's template, as `{{.Name}}`.
pub const TAG_WORDS: [&str; 7] = [
    "ID",
    "FullID",
    "Name",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "DaemonName",
];

impl LogSpec {
    /// What is wrong with it: the field's name below `spec.log`, and why.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        if self.max_files == Some(0) {
            all.push(("maxFiles".to_string(), "is at least 1".to_string()));
        }
        if self.max_size.is_some_and(|m| m.bytes() < 4096) {
            all.push(("maxSize".into(), "is at least 4Ki".into()));
        }
        let known: &[&str] = match self.driver {
            LogDriver::Journald => &JOURNALD,
            LogDriver::Syslog => &SYSLOG,
            LogDriver::File | LogDriver::None => &[],
        };
        if known.is_empty() && self.no_files {
            all.push(("noFiles".into(), "is for journald and syslog".into()));
        }
        for name in self.options.keys().filter(|k| !known.contains(&k.as_str())) {
            let why = match known {
                [] => "this driver has no options of its own".to_string(),
                some => format!("is no option of this driver: it has {}", some.join(", ")),
            };
            all.push((format!("options.{name}"), why));
        }
        let mut check = |name: &str, result: Result<(), String>| {
            if let Err(why) = result {
                all.push((format!("options.{name}"), why));
            }
        };
        check("syslog-address", self.syslog_address().map(drop));
        check("syslog-facility", self.syslog_facility().map(drop));
        check("syslog-format", self.syslog_format().map(drop));
        check("tag", self.tag(|_| String::new()).map(drop));
        all
    }

    fn option(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// Where syslog listens.
    pub fn syslog_address(&self) -> Result<SyslogAddress, String> {
        let text = self.option("syslog-address");
        let with_port = |rest: &str| match rest.rsplit_once(':') {
            // As Docker: syslog's own port where none is given.
            _ if rest.is_empty() => Err(format!("{text:?} names no host")),
            Some((_, port)) if !port.ends_with(']') => match port.parse::<u16>() {
                Ok(_) => Ok(rest.to_string()),
                Err(_) => Err(format!("{text:?}: {port:?} is no port")),
            },
            _ => Ok(format!("{rest}:514")),
        };
        match text.split_once("://") {
            None if text.is_empty() => Ok(SyslogAddress::Local),
            Some(("unix" | "unixgram", path)) if path.starts_with('/') => Ok(SyslogAddress::Unix(path.into())),
            Some(("udp", rest)) => with_port(rest).map(SyslogAddress::Udp),
            Some(("tcp", rest)) => with_port(rest).map(SyslogAddress::Tcp),
            Some(("tcp+tls", _)) => Err("syslog over TLS is not supported: use tcp:// to a relay on this host".into()),
            _ => Err(format!(
                "{text:?} is no address of syslog: unix:///PATH, unixgram:///PATH, udp://HOST:PORT or tcp://HOST:PORT"
            )),
        }
    }

    /// Number of the facility; that of daemons where none is named.
    pub fn syslog_facility(&self) -> Result<u8, String> {
        let text = self.option("syslog-facility");
        let by_name = FACILITIES
            .iter()
            .position(|f| *f == text)
            .and_then(|n| u8::try_from(n).ok());
        let local = || {
            text.strip_prefix("local")?
                .parse::<u8>()
                .ok()
                .filter(|n| *n < 8)
                .map(|n| n + 16)
        };
        let number = || text.parse::<u8>().ok().filter(|n| *n < 24);
        match by_name.or_else(local).or_else(number) {
            Some(n) => Ok(n),
            None if text.is_empty() => Ok(3),
            None => Err(format!(
                "{text:?} is no facility of syslog: a name, as daemon or local0, or 0 to 23"
            )),
        }
    }

    /// Form of a message: one of [`SYSLOG_FORMATS`].
    pub fn syslog_format(&self) -> Result<&'static str, String> {
        let text = self.option("syslog-format");
        let found = SYSLOG_FORMATS.iter().find(|f| **f == text);
        found.copied().ok_or_else(|| {
            format!("{text:?} is no form of a message: one of rfc3164, rfc5424, rfc5424micro, or none at all")
        })
    }

    /// The tag, its words replaced by what `value` says of them; the short id where none is given.
    pub fn tag(&self, value: impl Fn(&str) -> String) -> Result<String, String> {
        let mut rest = match self.options.get("tag") {
            Some(t) => t.as_str(),
            None => "{{.ID}}",
        };
        let mut out = String::new();
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let (word, after) = after
                .split_once("}}")
                .ok_or_else(|| "a {{ is never closed".to_string())?;
            let name = word.trim().strip_prefix('.').unwrap_or_default();
            if !TAG_WORDS.contains(&name) {
                return Err(format!("{{{{{word}}}}} is not known: {} are", TAG_WORDS.join(", ")));
            }
            out.push_str(&value(name));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Names in an option that is a list, as `labels`.
    pub fn listed<'a>(&'a self, option: &str) -> impl Iterator<Item = &'a str> {
        self.option(option).split(',').map(str::trim).filter(|n| !n.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: LogDriver, options: &[(&str, &str)]) -> LogSpec {
        LogSpec {
            driver,
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..LogSpec::default()
        }
    }

    #[test]
    fn addresses_have_a_port() {
        let read = |a| with(LogDriver::Syslog, &[("syslog-address", a)]).syslog_address();
        assert_eq!(read(""), Ok(SyslogAddress::Local));
        assert_eq!(read("unix:///dev/log"), Ok(SyslogAddress::Unix("/dev/log".into())));
        assert_eq!(read("udp://h"), Ok(SyslogAddress::Udp("h:514".into())));
        assert_eq!(read("tcp://[::1]:6514"), Ok(SyslogAddress::Tcp("[::1]:6514".into())));
        assert_eq!(read("tcp://[::1]"), Ok(SyslogAddress::Tcp("[::1]:514".into())));
        for bad in [
            "x",
            "udp://",
            "udp://h:x",
            "unix://relative",
            "tcp+tls://h:1",
            "http://h",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn facilities_by_name_and_number() {
        let read = |f| with(LogDriver::Syslog, &[("syslog-facility", f)]).syslog_facility();
        for (text, number) in [("", 3), ("kern", 0), ("authpriv", 10), ("local7", 23), ("16", 16)] {
            assert_eq!(read(text), Ok(number), "{text}");
        }
        for bad in ["local8", "24", "-1", "x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_templates() {
        let tag = |t| with(LogDriver::Syslog, &[("tag", t)]).tag(|w| w.to_ascii_lowercase());
        assert_eq!(with(LogDriver::Syslog, &[]).tag(str::to_string), Ok("ID".into()));
        assert_eq!(tag("a/{{.Name}}-{{ .ID }}"), Ok("a/name-id".into()));
        assert_eq!(tag("plain"), Ok("plain".into()));
        for bad in ["{{.Name", "{{Name}}", "{{.Command}}", "{{}}"] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_driver_does_not_have_is_refused() {
        let wrong = |l: LogSpec| l.problems().into_iter().map(|(f, _)| f).collect::<Vec<_>>();
        assert_eq!(
            wrong(with(LogDriver::Journald, &[("tag", "x"), ("labels", "a,b")])),
            Vec::<String>::new()
        );
        assert_eq!(wrong(with(LogDriver::Journald, &[("syslog-format", "x")])).len(), 2);
        assert_eq!(wrong(with(LogDriver::File, &[("tag", "x")])), ["options.tag"]);
        let mut none = with(LogDriver::None, &[]);
        none.no_files = true;
        assert_eq!(wrong(none), ["noFiles"]);
    }
}
