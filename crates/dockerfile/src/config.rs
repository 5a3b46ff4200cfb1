//! What instructions make of the `config` object of an image, and how Docker writes them into its history.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::instruction::{Command, Health, Instruction};
use crate::show_duration;

/// Why an instruction changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one of those that change a config.
    #[error(
        "{0} is not a change of a config: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR are"
    )]
    Unknown(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Applies the text of one instruction, as `CMD ["sh"]`, as a commit does.
pub fn apply_text(config: &mut Map<String, Value>, text: &str) -> Result<(), Error> {
    let name = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    const CHANGES: [&str; 11] = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !CHANGES.contains(&name.as_str()) {
        return Err(Error::Unknown(name));
    }
    let read = Instruction::alone(text).map_err(Error::Invalid)?;
    if matches!(&read, Instruction::Cmd(Command::Shell(line)) if line.is_empty()) {
        return Err(Error::Invalid("CMD needs a value".into()));
    }
    let vars = |name: &str| variable(config, name);
    let expanded = read.expand('\\', &vars).map_err(Error::Invalid)?;
    apply(config, &expanded)
}

/// Applies an instruction whose variables are expanded. Those that concern files change nothing.
pub fn apply(config: &mut Map<String, Value>, instruction: &Instruction) -> Result<(), Error> {
    match instruction {
        Instruction::Cmd(c) => {
            let words = c.words(config);
            set(config, "Cmd", json!(words));
        }
        Instruction::Entrypoint(c) => {
            let words = c.words(config);
            set(config, "Entrypoint", json!(words));
            // Arguments for another program are of no use.
            set(config, "Cmd", Value::Null);
        }
        Instruction::Env(list) => list.iter().for_each(|(k, v)| env(config, k, v)),
        Instruction::Label(list) => {
            extend(
                config,
                "Labels",
                list.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))),
            );
        }
        Instruction::Expose(list) => {
            let ports = list.iter().map(|p| port(p)).collect::<Result<Vec<_>, _>>()?;
            extend(config, "ExposedPorts", ports.into_iter().map(|p| (p, json!({}))));
        }
        Instruction::Volume(list) => extend(config, "Volumes", list.iter().map(|p| (p.clone(), json!({})))),
        Instruction::User(user) => set(config, "User", user.as_str().into()),
        Instruction::Workdir(dir) => {
            let dir = workdir(config, dir)?;
            set(config, "WorkingDir", dir.into());
        }
        Instruction::Stopsignal(signal) => {
            biga_model::parse_signal(signal).map_err(|_| Error::Invalid(format!("invalid signal: {signal}")))?;
            set(config, "StopSignal", signal.as_str().into());
        }
        Instruction::Shell(words) => set(config, "Shell", json!(words)),
        Instruction::Onbuild(text) => match config.entry("OnBuild").or_insert(Value::Null) {
            Value::Array(all) => all.push(text.as_str().into()),
            other => *other = json!([text]),
        },
        Instruction::Healthcheck(h) => {
            let check = healthcheck(h, config);
            set(config, "Healthcheck", check);
        }
        Instruction::From { .. }
        | Instruction::Arg(_)
        | Instruction::Run(_)
        | Instruction::Copy(_)
        | Instruction::Maintainer(_) => {}
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// Adds to an object of the config, made where it is missing or `null`.
fn extend(config: &mut Map<String, Value>, key: &str, more: impl IntoIterator<Item = (String, Value)>) {
    let mut map = match config.remove(key) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.extend(more);
    config.insert(key.to_owned(), Value::Object(map));
}

/// Sets a variable in a list of `NAME=value`, in its old place where it has one.
pub fn env(config: &mut Map<String, Value>, name: &str, value: &str) {
    let slot = config.entry("Env").or_insert(Value::Null);
    if !slot.is_array() {
        *slot = json!([]);
    }
    let line = Value::String(format!("{name}={value}"));
    if let Value::Array(list) = slot {
        let same = |v: &Value| v.as_str().and_then(|v| v.split('=').next()) == Some(name);
        match list.iter_mut().find(|v| same(v)) {
            Some(old) => *old = line,
            None => list.push(line),
        }
    }
}

/// A variable of the config's environment.
pub fn variable(config: &Map<String, Value>, name: &str) -> Option<String> {
    let list = config.get("Env")?.as_array()?;
    let mut pairs = list.iter().filter_map(|v| v.as_str()?.split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
}

/// The shell of lines.
pub fn shell(config: &Map<String, Value>) -> Vec<String> {
    let own = config.get("Shell").and_then(Value::as_array);
    let words: Vec<String> = own
        .into_iter()
        .flatten()
        .filter_map(|w| w.as_str().map(str::to_owned))
        .collect();
    match words.is_empty() {
        true => vec!["/bin/sh".into(), "-c".into()],
        false => words,
    }
}

/// `80`, `80/udp`, `8000-8010`.
fn port(text: &str) -> Result<String, Error> {
    let bad = || {
        Error::Invalid(format!(
            "EXPOSE {text}: invalid containerPort: a port is a number of 1 to 65535, with /tcp, /udp or /sctp"
        ))
    };
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(bad);
    if number(first)? > number(last)? || !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    Ok(format!("{range}/{protocol}"))
}

/// One below the directory so far where it is not absolute.
fn workdir(config: &Map<String, Value>, value: &str) -> Result<String, Error> {
    if value.is_empty() {
        return Err(Error::Invalid("cannot normalize nothing: WORKDIR is empty".into()));
    }
    let base = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
    let whole = if value.starts_with('/') {
        value.to_owned()
    } else {
        format!("{base}/{value}")
    };
    Ok(clean(&whole))
}

/// An absolute path without `.`, `..` and doubled slashes.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Words as Docker's health checks have them: the first says how the rest is run.
fn test_words(h: &Health, config: &Map<String, Value>) -> Vec<String> {
    match &h.test {
        None => vec!["NONE".into()],
        Some(Command::Exec(words)) => [vec!["CMD".into()], words.clone()].concat(),
        // Docker runs this form by the usual shell, which the word says; another one has to be spelled out.
        Some(Command::Shell(line)) => match shell(config) {
            own if own[0] == "/bin/sh" => vec!["CMD-SHELL".into(), line.clone()],
            own => [vec!["CMD".into()], own, vec![line.clone()]].concat(),
        },
    }
}

fn healthcheck(h: &Health, config: &Map<String, Value>) -> Value {
    let mut check = Map::new();
    check.insert("Test".into(), json!(test_words(h, config)));
    for (name, value) in [
        ("Interval", h.interval),
        ("Timeout", h.timeout),
        ("StartPeriod", h.start_period),
        ("StartInterval", h.start_interval),
        ("Retries", u64::from(h.retries)),
    ] {
        if value > 0 {
            check.insert(name.into(), value.into());
        }
    }
    Value::Object(check)
}

/// How Docker writes into the history that an instruction changed the config, as `CMD ["sh"]`. `config` is as it is after
/// the change. `None` for those that make layers, whose entries say what went into them.
pub fn remark(instruction: &Instruction, config: &Map<String, Value>) -> Option<String> {
    let pairs = |name: &str, list: &[(String, String)]| {
        list.iter()
            .fold(name.to_owned(), |text, (k, v)| format!("{text} {k}={v}"))
    };
    let words = |key: &str| {
        let list = config.get(key).and_then(Value::as_array);
        let all: Vec<String> = list
            .into_iter()
            .flatten()
            .filter_map(|w| Some(quoted(w.as_str()?)))
            .collect();
        format!("[{}]", all.join(" "))
    };
    Some(match instruction {
        Instruction::Cmd(_) => format!("CMD {}", words("Cmd")),
        Instruction::Entrypoint(_) => format!("ENTRYPOINT {}", words("Entrypoint")),
        Instruction::Env(list) => pairs("ENV", list),
        Instruction::Label(list) => pairs("LABEL", list),
        Instruction::Expose(list) => format!("EXPOSE {}", list.join(" ")),
        Instruction::Volume(list) => format!("VOLUME [{}]", list.join(" ")),
        Instruction::User(user) => format!("USER {user}"),
        Instruction::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        Instruction::Shell(list) => format!("SHELL [{}]", list.join(" ")),
        Instruction::Onbuild(text) => format!("ONBUILD {text}"),
        Instruction::Maintainer(name) => format!("MAINTAINER {name}"),
        Instruction::Arg(list) => list.iter().fold("ARG".to_owned(), |text, (k, v)| match v {
            Some(v) => format!("{text} {k}={v}"),
            None => format!("{text} {k}"),
        }),
        Instruction::Healthcheck(h) => {
            let test: Vec<String> = test_words(h, config).iter().map(|w| quoted(w)).collect();
            let times = [h.interval, h.timeout, h.start_period, h.start_interval].map(|t| quoted(&show_duration(t)));
            // Go's %q of a number is the character of that number.
            let retries = char::from_u32(h.retries).unwrap_or('\u{fffd}');
            let retries = match retries {
                c if (c as u32) < 0x20 => format!("'\\x{:02x}'", c as u32),
                c => format!("'{c}'"),
            };
            format!("HEALTHCHECK &{{[{}] {} {retries}}}", test.join(" "), times.join(" "))
        }
        Instruction::From { .. } | Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => return None,
    })
}

/// As Go's `%q` writes a string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(instructions: &[&str]) -> Value {
        let mut config = Map::new();
        for i in instructions {
            apply_text(&mut config, i).unwrap_or_else(|e| panic!("{i}: {e}"));
        }
        Value::Object(config)
    }

    #[test]
    fn commands_in_both_forms() {
        assert_eq!(after(&[r#"CMD ["a", "b c"]"#])["Cmd"], json!(["a", "b c"]));
        assert_eq!(
            after(&["cmd echo $HOME"])["Cmd"],
            json!(["/bin/sh", "-c", "echo $HOME"])
        );
        let both = after(&["CMD x", r#"ENTRYPOINT ["/init"]"#]);
        assert_eq!((&both["Entrypoint"], &both["Cmd"]), (&json!(["/init"]), &Value::Null));
    }

    #[test]
    fn names_and_values() {
        let c = after(&[
            "ENV A=1 B=\"two words\" C=th\\ ree",
            "ENV A second value",
            "LABEL org.x='it''s' y=",
            "ENV B=3 D=$A",
        ]);
        assert_eq!(c["Env"], json!(["A=second value", "B=3", "C=th ree", "D=second value"]));
        assert_eq!(c["Labels"], json!({"org.x": "its", "y": ""}));
    }

    #[test]
    fn ports_volumes_and_the_rest() {
        let c = after(&[
            "EXPOSE 80 53/UDP 8000-8010",
            r#"VOLUME ["/a b", "/c"]"#,
            "VOLUME /d /e",
            "USER app:staff",
            "WORKDIR /srv",
            "WORKDIR www/../html",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN make",
            "ONBUILD COPY . /src",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost || exit 1",
        ]);
        assert_eq!(
            c["ExposedPorts"],
            json!({"80/tcp": {}, "53/udp": {}, "8000-8010/tcp": {}})
        );
        assert_eq!(c["Volumes"], json!({"/a b": {}, "/c": {}, "/d": {}, "/e": {}}));
        assert_eq!(
            (&c["User"], &c["WorkingDir"]),
            (&json!("app:staff"), &json!("/srv/html"))
        );
        assert_eq!(c["StopSignal"], "SIGUSR1");
        assert_eq!(c["OnBuild"], json!(["RUN make", "COPY . /src"]));
        let check =
            json!({"Interval": 90_000_000_000u64, "Retries": 3, "Test": ["CMD-SHELL", "curl -f localhost || exit 1"]});
        assert_eq!(c["Healthcheck"], check);
        assert_eq!(after(&["HEALTHCHECK NONE"])["Healthcheck"], json!({"Test": ["NONE"]}));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "RUN x",
            "COPY a b",
            "CMD",
            "ENV",
            "ENV A",
            "ENV A=1 B",
            "ENV A=\"open",
            "LABEL =x",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "EXPOSE 90-80",
            "EXPOSE 70000",
            "USER",
            "STOPSIGNAL SIGNONE",
            "ONBUILD FROM x",
            "WORKDIR",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK --interval=1ns CMD y",
            "HEALTHCHECK --retries=-1 CMD y",
            "HEALTHCHECK MAYBE",
            "VOLUME",
            r#"VOLUME [" "]"#,
        ] {
            assert!(apply_text(&mut Map::new(), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn remarks_are_dockers() {
        let mut config = Map::new();
        for (text, want) in [
            (r#"CMD ["a", "b \"c\""]"#, r#"CMD ["a" "b \"c\""]"#),
            ("CMD echo hi", r#"CMD ["/bin/sh" "-c" "echo hi"]"#),
            (r#"ENTRYPOINT ["/x"]"#, r#"ENTRYPOINT ["/x"]"#),
            ("ENV A=1 B='2 3'", "ENV A=1 B=2 3"),
            ("LABEL x=y", "LABEL x=y"),
            ("EXPOSE 80 53/udp", "EXPOSE 80 53/udp"),
            ("VOLUME /a /b", "VOLUME [/a /b]"),
            ("USER app", "USER app"),
            ("STOPSIGNAL 9", "STOPSIGNAL 9"),
            ("ONBUILD RUN x", "ONBUILD RUN x"),
            (
                "HEALTHCHECK --interval=5m --retries=3 CMD true",
                r#"HEALTHCHECK &{["CMD-SHELL" "true"] "5m0s" "0s" "0s" "0s" '\x03'}"#,
            ),
        ] {
            let i = Instruction::alone(text).unwrap().expand('\\', &|_| None).unwrap();
            apply(&mut config, &i).unwrap();
            assert_eq!(remark(&i, &config).as_deref(), Some(want));
        }
    }
}
