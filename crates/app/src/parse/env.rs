//! `-e`, `--env-file`, `--label` and `--label-file`.

use biga_model::EnvVar;

/// Reads `NAME=value`; `NAME` alone takes the value of our own environment and is left out where that has none.
pub fn variable(s: &str) -> Result<Option<EnvVar>, String> {
    let (name, value) = match s.split_once('=') {
        Some((n, v)) => (n, Some(v.to_string())),
        None => (s, std::env::var(s).ok()),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("{s:?} is no variable: write NAME=value"));
    }
    Ok(value.map(|value| EnvVar {
        name: name.into(),
        value,
    }))
}

/// Reads a file of one variable a line; `#` begins a comment.
pub fn file(path: &std::path::Path) -> Result<Vec<EnvVar>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let var = variable(line).map_err(|e| format!("{}:{}: {e}", path.display(), i + 1))?;
        out.extend(var);
    }
    Ok(out)
}

/// Later ones replace earlier ones of the same name, in place.
pub fn merge(list: impl IntoIterator<Item = EnvVar>) -> Vec<EnvVar> {
    let mut out: Vec<EnvVar> = Vec::new();
    for v in list {
        match out.iter_mut().find(|o| o.name == v.name) {
            Some(o) => *o = v,
            None => out.push(v),
        }
    }
    out
}

/// Reads `key=value` or `key`.
pub fn key_value(s: &str) -> Result<(String, String), String> {
    let (k, v) = s.split_once('=').unwrap_or((s, ""));
    if k.is_empty() {
        return Err(format!("{s:?} is not KEY=VALUE"));
    }
    Ok((k.into(), v.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_flags_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "# comment\nA=1\n\n  B=x y=z\nBIGA_TEST_SURELY_UNSET\n").unwrap();
        let mut all = file(&path).unwrap();
        all.extend(variable("A=2").unwrap());
        let got: Vec<_> = merge(all)
            .into_iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect();
        assert_eq!(got, ["A=2", "B=x y=z"]);
        std::fs::write(&path, "A=1\n=bad\n").unwrap();
        assert!(file(&path).unwrap_err().contains("env:2: "));
    }

    #[test]
    fn names_are_needed() {
        assert!(variable("=x").is_err());
        assert!(variable("a b=x").is_err());
        assert!(key_value("=x").is_err());
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a"), Ok(("a".into(), String::new())));
    }
}
