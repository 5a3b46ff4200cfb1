//! Label and field selectors (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).

use std::collections::BTreeMap;
use std::fmt;

/// A conjunction of requirements on labels; without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    op: Op,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

/// A selector that is none; the text says what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse selector {selector:?}: {why}")]
pub struct Error {
    /// The whole selector.
    pub selector: String,
    /// What is wrong.
    pub why: String,
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<LabelSelector, Error> {
        let mut p = Parser { rest: text.trim() };
        p.selector().map_err(|why| Error {
            selector: text.into(),
            why,
        })
    }

    /// Whether it selects everything.
    pub fn is_all(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            match &r.op {
                Op::Exists => value.is_some(),
                Op::Missing => value.is_none(),
                Op::In(set) => value.is_some_and(|v| set.contains(v)),
                Op::NotIn(set) => value.is_none_or(|v| !set.contains(v)),
                Op::Greater(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
                Op::Less(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let k = &r.key;
            match &r.op {
                Op::Exists => write!(f, "{k}")?,
                Op::Missing => write!(f, "!{k}")?,
                Op::In(v) if v.len() == 1 => write!(f, "{k}={}", v[0])?,
                Op::NotIn(v) if v.len() == 1 => write!(f, "{k}!={}", v[0])?,
                Op::In(v) => write!(f, "{k} in ({})", v.join(","))?,
                Op::NotIn(v) => write!(f, "{k} notin ({})", v.join(","))?,
                Op::Greater(n) => write!(f, "{k}>{n}")?,
                Op::Less(n) => write!(f, "{k}<{n}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn selector(&mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        if self.rest.is_empty() {
            return Ok(LabelSelector { requirements });
        }
        loop {
            requirements.push(self.requirement()?);
            self.space();
            match self.take(",") {
                true => {}
                false if self.rest.is_empty() => return Ok(LabelSelector { requirements }),
                false => return Err(format!("found {:?}, expected a comma or the end", self.rest)),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        self.space();
        let missing = self.take("!");
        self.space();
        let key = self.word().to_string();
        check_key(&key)?;
        self.space();
        let op = if missing { Op::Missing } else { self.op(&key)? };
        Ok(Requirement { key, op })
    }

    fn op(&mut self, key: &str) -> Result<Op, String> {
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Op::Exists);
        }
        if self.take("==") || self.take("=") {
            return Ok(Op::In(vec![self.value()?]));
        }
        if self.take("!=") {
            return Ok(Op::NotIn(vec![self.value()?]));
        }
        if self.take(">") {
            return Ok(Op::Greater(self.number()?));
        }
        if self.take("<") {
            return Ok(Op::Less(self.number()?));
        }
        match self.word() {
            "in" => Ok(Op::In(self.set()?)),
            "notin" => Ok(Op::NotIn(self.set()?)),
            other => Err(format!(
                "found {other:?} after {key:?}, expected =, !=, in, notin, < or >"
            )),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        self.space();
        let v = self.word();
        check_value(v)?;
        Ok(v.into())
    }

    fn number(&mut self) -> Result<i64, String> {
        let v = self.value()?;
        v.parse().map_err(|_| format!("{v:?} is no whole number"))
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.space();
        if !self.take("(") {
            return Err("expected ( after in or notin".into());
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.space();
            if self.take(")") {
                values.sort();
                values.dedup();
                return Ok(values);
            }
            if !self.take(",") {
                return Err("expected , or ) in a set of values".into());
            }
        }
    }

    /// All up to a separator.
    fn word(&mut self) -> &'a str {
        let stop = |c: char| c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ',');
        let end = self.rest.find(stop).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// A label's key: an optional DNS prefix and `/`, then a name of at most 63 bytes.
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((p, n)) => (Some(p), n),
        None => (None, key),
    };
    let dns = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let prefix_ok = prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253 && p.bytes().all(dns));
    if !prefix_ok || name.is_empty() || !is_label_text(name) {
        return Err(format!(
            "{key:?} is no label key: an optional DNS name and /, then 1 to 63 letters, digits, -, _ and ."
        ));
    }
    Ok(())
}

/// A label's value: empty, or at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
pub fn check_value(value: &str) -> Result<(), String> {
    if !is_label_text(value) {
        return Err(format!(
            "{value:?} is no label value: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends"
        ));
    }
    Ok(())
}

fn is_label_text(s: &str) -> bool {
    let b = s.as_bytes();
    let end = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    b.len() <= 63
        && end(b.first())
        && end(b.last())
        && b.iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A conjunction of comparisons of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Its path, as `metadata.name`.
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// Whether it must be equal, or differ.
    pub equal: bool,
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; a backslash takes the meaning from a comma, an equals sign or a backslash in a value.
    pub fn parse(text: &str) -> Result<FieldSelector, Error> {
        let error = |why: String| Error {
            selector: text.into(),
            why,
        };
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.trim().is_empty() {
                continue;
            }
            let (at, op) = ["!=", "==", "="]
                .iter()
                .filter_map(|op| term.find(op).map(|at| (at, *op)))
                .min_by_key(|(at, op)| (*at, std::cmp::Reverse(op.len())))
                .ok_or_else(|| error(format!("{term:?} has no =, == or !=")))?;
            let field = term[..at].trim();
            if field.is_empty() {
                return Err(error(format!("{term:?} names no field")));
            }
            terms.push(FieldTerm {
                field: field.into(),
                value: unescape(&term[at + op.len()..]).map_err(error)?,
                equal: op != "!=",
            });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether it selects everything.
    pub fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Takes out the first comparison that asks for one value of `field`, and gives that value.
    pub fn take(&mut self, field: &str) -> Option<String> {
        let at = self.terms.iter().position(|t| t.equal && t.field == field)?;
        Some(self.terms.remove(at).value)
    }

    /// The comparisons.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            '\\' => escaped = !escaped,
            ',' if !escaped => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => escaped = false,
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => return Err(format!("a backslash before {other:?} in {value:?}")),
            },
            '=' => return Err(format!("an equals sign in {value:?}: write \\=")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn each_operator_selects() {
        let have = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app = web",
            "!missing",
            "app!=db",
            "missing!=x",
            "app in (db, web)",
            "app notin (db)",
            "missing notin (a,b)",
            "n>4",
            "n<6",
            "app=web,tier=front,!x",
            "empty=",
            "empty in (,a)",
            "  app  ,  tier in ( front )  ",
        ] {
            assert!(LabelSelector::parse(yes).unwrap().matches(&have), "{yes:?}");
        }
        for no in [
            "x",
            "app=db",
            "!app",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "n>5",
            "n<5",
            "app<5",
            "app=web,x",
        ] {
            assert!(!LabelSelector::parse(no).unwrap().matches(&have), "{no:?}");
        }
        for bad in [
            "=",
            "a=b=c",
            "a in",
            "a in (",
            "a in (b",
            "a in b",
            "!",
            "!!a",
            ",",
            "a,",
            "a b",
            "a>x",
            "-a",
            "a=-b",
            "/a",
            "A.b/c",
            "a/b/c",
            "a()",
            "a in (b))",
            "é",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fields() {
        let s = FieldSelector::parse("metadata.name=a\\,b,spec.nodeName!=,x==y").unwrap();
        let t = s.terms();
        assert_eq!(
            (t[0].field.as_str(), t[0].value.as_str(), t[0].equal),
            ("metadata.name", "a,b", true)
        );
        assert_eq!((t[1].value.as_str(), t[1].equal), ("", false));
        assert_eq!((t[2].value.as_str(), t[2].equal), ("y", true));
        assert!(FieldSelector::parse("").unwrap().is_all());
        for bad in ["a", "=b", "a=b=c", "a=\\x", "a=\\"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn soup_never_panics(text in "[ab=!<>(),/ in not\\\\]{0,40}") {
            if let Ok(s) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
            }
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn printed_selectors_mean_the_same(
            requirements in proptest::collection::vec(("[a-z]([a-z0-9.]{0,8}[a-z])?", 0..6usize, proptest::collection::btree_set("[a-z0-9]{0,5}", 1..4)), 0..5),
            have in proptest::collection::btree_map("[a-z]", "[a-z0-9]{0,3}", 0..4),
        ) {
            let text: Vec<String> = requirements.iter().map(|(k, op, set)| {
                let all = set.iter().cloned().collect::<Vec<_>>();
                match op {
                    0 => k.clone(),
                    1 => format!("!{k}"),
                    2 => format!("{k} in ({})", all.join(" , ")),
                    3 => format!("{k}  notin({})", all.join(",")),
                    4 => format!("{k}=={}", all[0]),
                    _ => format!("{k}!={}", all[0]),
                }
            }).collect();
            let s = LabelSelector::parse(&text.join(" , ")).unwrap();
            let again = LabelSelector::parse(&s.to_string()).unwrap();
            prop_assert_eq!(s.matches(&have), again.matches(&have));
            prop_assert_eq!(s, again);
        }
    }
}
