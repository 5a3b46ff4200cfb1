//! Variables of a build: `ARG`s and what they are set to.

use std::collections::{BTreeMap, BTreeSet};

use biga_dockerfile::config;
use biga_image::Platform;
use serde_json::{Map, Value};

/// May be set without an `ARG`, and stand in no history unless there is one.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What `ARG`s before the first stage are, and what the request sets.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    given: BTreeMap<String, String>,
    declared: BTreeMap<String, Option<String>>,
    used: BTreeSet<String>,
}

impl Globals {
    /// With what the request sets, and the platform's own.
    pub fn new(given: BTreeMap<String, String>) -> Globals {
        let host = Platform::host();
        let whole = host.to_string();
        let mut declared = BTreeMap::new();
        for side in ["TARGET", "BUILD"] {
            for (name, value) in [
                ("PLATFORM", whole.as_str()),
                ("OS", host.os.as_str()),
                ("ARCH", host.architecture.as_str()),
                ("VARIANT", host.variant.as_deref().unwrap_or_default()),
            ] {
                declared.insert(format!("{side}{name}"), Some(value.to_owned()));
            }
        }
        Globals {
            given,
            declared,
            used: BTreeSet::new(),
        }
    }

    /// An `ARG` before the first stage.
    pub fn declare(&mut self, name: &str, default: Option<String>) {
        self.used.insert(name.to_owned());
        self.declared.insert(name.to_owned(), default);
    }

    /// A variable in a `FROM`.
    pub fn get(&self, name: &str) -> Option<String> {
        let own = self.declared.get(name)?;
        self.given.get(name).cloned().or_else(|| own.clone())
    }

    /// What was given and meant nothing to anybody.
    pub fn unused(&self) -> Vec<&str> {
        let known = |n: &&String| self.used.contains(*n) || PREDEFINED.contains(&n.as_str());
        self.given.keys().filter(|n| !known(n)).map(String::as_str).collect()
    }
}

/// The `ARG`s of one stage.
#[derive(Debug, Clone, Default)]
pub struct Args(BTreeMap<String, Option<String>>);

impl Args {
    /// An `ARG` in a stage: what the request sets goes before its default, and that before what is so for all stages.
    pub fn declare(&mut self, globals: &mut Globals, name: &str, default: Option<String>) {
        globals.used.insert(name.to_owned());
        let given = globals.given.get(name).cloned();
        let value = given.or(default).or_else(|| globals.get(name));
        self.0.insert(name.to_owned(), value);
    }

    /// A variable: the environment goes before `ARG`s.
    pub fn get(&self, config: &Map<String, Value>, name: &str) -> Option<String> {
        config::variable(config, name).or_else(|| self.0.get(name).cloned().flatten())
    }

    /// What `RUN` gets beside the environment, as `NAME=value` in order: declared, and so written into the history.
    pub fn of_run(&self, config: &Map<String, Value>) -> Vec<(String, String)> {
        let set = self.0.iter().filter_map(|(n, v)| Some((n.clone(), v.clone()?)));
        set.filter(|(n, _)| config::variable(config, n).is_none()).collect()
    }

    /// What it gets and no history tells.
    pub fn hidden(&self, globals: &Globals, config: &Map<String, Value>) -> Vec<(String, String)> {
        let known = |n: &str| self.0.contains_key(n) || config::variable(config, n).is_some();
        let given = PREDEFINED.into_iter().filter(|n| !known(n));
        given
            .filter_map(|n| Some((n.to_owned(), globals.given.get(n)?.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_before_whom() {
        let given = [("A", "given"), ("HTTP_PROXY", "p"), ("X", "unused")].map(|(k, v)| (k.into(), v.into()));
        let mut globals = Globals::new(given.into());
        globals.declare("G", Some("global".into()));
        globals.declare("A", Some("default".into()));
        assert_eq!(globals.get("A").as_deref(), Some("given"));
        assert_eq!(globals.get("X"), None);
        let mut args = Args::default();
        let mut config = Map::new();
        // Not before its ARG.
        assert_eq!(args.get(&config, "G"), None);
        for (name, default) in [
            ("G", None),
            ("A", Some("own")),
            ("N", None),
            ("D", Some("own")),
            ("E", Some("arg")),
        ] {
            args.declare(&mut globals, name, default.map(str::to_owned));
        }
        config::env(&mut config, "E", "env");
        let get = |n| args.get(&config, n);
        assert_eq!(get("G").as_deref(), Some("global"));
        assert_eq!(get("A").as_deref(), Some("given"));
        assert_eq!(
            (get("N"), get("D").as_deref(), get("E").as_deref()),
            (None, Some("own"), Some("env"))
        );
        let run: Vec<String> = args
            .of_run(&config)
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(run, ["A=given", "D=own", "G=global"]);
        assert_eq!(
            args.hidden(&globals, &config),
            [("HTTP_PROXY".to_string(), "p".to_string())]
        );
        assert_eq!(globals.unused(), ["X"]);
        let mut more = Args::default();
        more.declare(&mut globals, "HTTP_PROXY", None);
        assert!(more.hidden(&globals, &config).is_empty() && more.of_run(&config).len() == 1);
    }
}
