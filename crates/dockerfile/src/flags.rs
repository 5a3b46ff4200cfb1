//! Options of instructions: `--name=value`, before everything else.

use crate::words::unquote;

/// Options of one instruction.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    /// Takes the options off the front of a text; gives the rest. Those that are not `known` are refused.
    pub(crate) fn take<'t>(text: &'t str, known: &[&str], escape: char) -> Result<(Flags, &'t str), String> {
        let mut all = Flags::default();
        let mut rest = text.trim_start();
        while rest.starts_with("--") {
            let (word, after) = split_word(rest, escape);
            rest = after;
            if word == "--" {
                break;
            }
            let bare = unquote(&word[2..], escape).ok_or_else(|| format!("a quote is not closed in {word}"))?;
            let (name, value) = match bare.split_once('=') {
                Some((n, v)) => (n.to_owned(), Some(v.to_owned())),
                None => (bare, None),
            };
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown flag: --{name}"));
            }
            if !["mount", "exclude"].contains(&name.as_str()) && all.0.iter().any(|(n, _)| *n == name) {
                return Err(format!("duplicate flag specified: {name}"));
            }
            all.0.push((name, value));
        }
        Ok((all, rest))
    }

    /// An option's value.
    pub(crate) fn value(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.iter().find(|(n, _)| n == name) {
            None => Ok(None),
            Some((_, Some(v))) => Ok(Some(v.clone())),
            Some((_, None)) => Err(format!("missing a value on flag: {name}")),
        }
    }

    /// All values of an option.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let own = self.0.iter().filter(|(n, _)| n == name);
        own.filter_map(|(_, v)| v.clone()).collect()
    }

    /// `--name` or `--name=true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        match self.0.iter().find(|(n, _)| n == name) {
            None => Ok(false),
            Some((_, None)) => Ok(true),
            Some((_, Some(v))) => match v.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => Ok(true),
                "false" | "0" | "f" => Ok(false),
                other => Err(format!("expecting boolean value for flag {name}, not: {other}")),
            },
        }
    }
}

/// The first word, where white space in quotes does not count, and the rest.
fn split_word(text: &str, escape: char) -> (&str, &str) {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (&text[..i], text[i..].trim_start()),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            (q, c) if c == escape && q != Some('\'') => drop(chars.next()),
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_first() {
        let (f, rest) = Flags::take("--a=1 --b --c=\"x y\" -- --d e", &["a", "b", "c"], '\\').unwrap();
        assert_eq!(rest, "--d e");
        assert_eq!(f.value("a").unwrap().as_deref(), Some("1"));
        assert_eq!(f.value("c").unwrap().as_deref(), Some("x y"));
        assert!(f.flag("b").unwrap() && f.value("b").is_err());
        let e = Flags::take("--x=1 y", &["a"], '\\').unwrap_err();
        assert_eq!(e, "unknown flag: --x");
        assert!(
            Flags::take("--a=1 --a=2 y", &["a"], '\\')
                .unwrap_err()
                .contains("duplicate")
        );
    }
}
