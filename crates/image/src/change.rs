//! Changes of an image's config in the words of a Dockerfile: what `commit --change` and `import --change` take.
//!
//! The config is JSON as it stands in the image, so that what we do not know of it is kept.

use serde_json::{Map, Value, json};

/// Why an instruction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one of those that change a config.
    #[error(
        "{0} is not a change of a config: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR are"
    )]
    Unknown(String),
    /// Nothing after its name.
    #[error("{0} needs a value")]
    Empty(&'static str),
    /// What comes after its name makes no sense.
    #[error("{name} {value}: {why}")]
    Invalid {
        /// The instruction.
        name: &'static str,
        /// What came after it.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Applies one instruction, as `CMD ["sh"]`, to the `config` object of an image.
pub fn apply(config: &mut Map<String, Value>, instruction: &str) -> Result<(), Error> {
    let text = instruction.trim();
    let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let value = value.trim();
    match name.to_ascii_uppercase().as_str() {
        "CMD" => set(config, "Cmd", command("CMD", value, &shell(config))?),
        "ENTRYPOINT" => {
            set(config, "Entrypoint", command("ENTRYPOINT", value, &shell(config))?);
            // As in a Dockerfile: arguments for another program are of no use.
            set(config, "Cmd", Value::Null);
        }
        "ENV" => {
            for (k, v) in pairs("ENV", value)? {
                env(config, &k, &v);
            }
        }
        "LABEL" => {
            let labels = pairs("LABEL", value)?;
            extend(config, "Labels", labels.into_iter().map(|(k, v)| (k, Value::String(v))));
        }
        "EXPOSE" => {
            let ports: Vec<String> = some("EXPOSE", value)?
                .split_whitespace()
                .map(port)
                .collect::<Result<_, _>>()?;
            extend(config, "ExposedPorts", ports.into_iter().map(|p| (p, json!({}))));
        }
        "VOLUME" => {
            let paths = match list(value) {
                Some(paths) => paths,
                None => some("VOLUME", value)?.split_whitespace().map(str::to_owned).collect(),
            };
            if paths.iter().any(|p| p.trim().is_empty()) {
                return Err(invalid("VOLUME", value, "a path is empty"));
            }
            extend(config, "Volumes", paths.into_iter().map(|p| (p, json!({}))));
        }
        "USER" => set(config, "User", some("USER", value)?.into()),
        "WORKDIR" => {
            let dir = workdir(config, some("WORKDIR", value)?);
            set(config, "WorkingDir", dir.into());
        }
        "STOPSIGNAL" => {
            let signal = some("STOPSIGNAL", value)?;
            biga_model::parse_signal(signal).map_err(|_| invalid("STOPSIGNAL", value, "there is no such signal"))?;
            set(config, "StopSignal", signal.into());
        }
        "ONBUILD" => onbuild(config, some("ONBUILD", value)?)?,
        "HEALTHCHECK" => {
            let check = healthcheck(value, &shell(config))?;
            set(config, "Healthcheck", check);
        }
        _ => return Err(Error::Unknown(name.to_owned())),
    }
    Ok(())
}

fn invalid(name: &'static str, value: &str, why: &'static str) -> Error {
    Error::Invalid {
        name,
        value: value.to_owned(),
        why,
    }
}

fn some<'v>(name: &'static str, value: &'v str) -> Result<&'v str, Error> {
    if value.is_empty() {
        Err(Error::Empty(name))
    } else {
        Ok(value)
    }
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

/// The shell of commands that are not lists.
fn shell(config: &Map<String, Value>) -> Vec<Value> {
    match config.get("Shell") {
        Some(Value::Array(words)) if !words.is_empty() => words.clone(),
        _ => vec!["/bin/sh".into(), "-c".into()],
    }
}

/// `["a", "b"]`; nothing else is a list, as in a Dockerfile.
fn list(value: &str) -> Option<Vec<String>> {
    value.starts_with('[').then(|| serde_json::from_str(value).ok())?
}

fn command(name: &'static str, value: &str, shell: &[Value]) -> Result<Value, Error> {
    if let Some(words) = list(value) {
        return Ok(json!(words));
    }
    let mut words = shell.to_vec();
    words.push(some(name, value)?.into());
    Ok(Value::Array(words))
}

/// `80`, `80/udp`, `8000-8010`.
fn port(text: &str) -> Result<String, Error> {
    let bad = || {
        invalid(
            "EXPOSE",
            text,
            "a port is a number of 1 to 65535, with /tcp, /udp or /sctp",
        )
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
fn workdir(config: &Map<String, Value>, value: &str) -> String {
    let base = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
    let whole = if value.starts_with('/') {
        value.to_owned()
    } else {
        format!("{base}/{value}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn onbuild(config: &mut Map<String, Value>, value: &str) -> Result<(), Error> {
    let name = value.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if ["ONBUILD", "FROM", "MAINTAINER"].contains(&name.as_str()) {
        return Err(invalid("ONBUILD", value, "this cannot be done in a later build"));
    }
    let slot = config.entry("OnBuild").or_insert(Value::Null);
    match slot {
        Value::Array(all) => all.push(value.into()),
        other => *other = json!([value]),
    }
    Ok(())
}

fn healthcheck(value: &str, shell: &[Value]) -> Result<Value, Error> {
    let bad = |why| invalid("HEALTHCHECK", value, why);
    let mut check = Map::new();
    let mut rest = value;
    while let Some(option) = rest.strip_prefix("--") {
        let (word, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (key, number) = word.split_once('=').ok_or_else(|| bad("an option has no value"))?;
        let key = match key {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => {
                return Err(bad(
                    "it knows --interval, --timeout, --start-period, --start-interval and --retries",
                ));
            }
        };
        let number = match key {
            "Retries" => number.parse::<u32>().ok().filter(|n| *n > 0).map(u64::from),
            _ => duration(number),
        };
        check.insert(
            key.into(),
            number.ok_or_else(|| bad("an option's value makes no sense"))?.into(),
        );
        rest = after.trim_start();
    }
    let (kind, test) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let words = match kind.to_ascii_uppercase().as_str() {
        "NONE" if test.trim().is_empty() && check.is_empty() => vec!["NONE".into()],
        "CMD" => match list(test.trim()) {
            Some(words) if !words.is_empty() => {
                let words = words.into_iter().map(Value::String);
                std::iter::once(Value::from("CMD")).chain(words).collect()
            }
            _ if test.trim().is_empty() => return Err(bad("CMD needs a command")),
            // Docker runs this form by the image's shell, which the word says; another shell has to be spelled out.
            _ if shell.first() == Some(&"/bin/sh".into()) => vec!["CMD-SHELL".into(), test.trim().into()],
            _ => {
                let shell = std::iter::once(Value::from("CMD")).chain(shell.iter().cloned());
                shell.chain([test.trim().into()]).collect()
            }
        },
        _ => return Err(bad("it ends with CMD and a command, or is NONE")),
    };
    check.insert("Test".into(), Value::Array(words));
    Ok(Value::Object(check))
}

/// Nanoseconds of a Go duration, as `1m30s` or `500ms`.
fn duration(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let scale = match &after[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total = total.checked_add((number * scale) as u64)?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// `a=b "c d"=e`, or in the old form `a the whole rest`.
fn pairs(name: &'static str, value: &str) -> Result<Vec<(String, String)>, Error> {
    let words = words(some(name, value)?).ok_or_else(|| invalid(name, value, "a quote is not closed"))?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (key, rest) = value
            .split_once(char::is_whitespace)
            .ok_or_else(|| invalid(name, value, "it needs a name and a value"))?;
        return Ok(vec![(key.to_owned(), rest.trim().to_owned())]);
    }
    let pair = |w: &String| match w.split_once('=') {
        Some(("", _)) | None => Err(invalid(name, value, "it takes NAME=value, each in one word")),
        Some((k, v)) => Ok((k.to_owned(), v.to_owned())),
    };
    words.iter().map(pair).collect()
}

/// Words with quotes and backslashes taken off. `None` where a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    quote.is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(instructions: &[&str]) -> Value {
        let mut config = Map::new();
        for i in instructions {
            apply(&mut config, i).unwrap_or_else(|e| panic!("{i}: {e}"));
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
            "ENV B=3",
        ]);
        assert_eq!(c["Env"], json!(["A=second value", "B=3", "C=th ree"]));
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
            "HEALTHCHECK --retries=0 CMD y",
            "HEALTHCHECK MAYBE",
            "VOLUME",
            r#"VOLUME [" "]"#,
        ] {
            assert!(apply(&mut Map::new(), bad).is_err(), "{bad:?}");
        }
    }
}
