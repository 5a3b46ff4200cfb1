//! What builds leave for later ones, and which of it is meant.

use serde::{Deserialize, Serialize};

/// Something that is kept for later builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// In BuildKit's words: `exec.cachemount`, or `regular` for the files of steps.
    pub kind: String,
    /// What it is, for people.
    pub description: String,
    /// Bytes on disk.
    pub size: u64,
    /// Whether a build uses it now.
    pub in_use: bool,
    /// It belongs to an image that stays: pruned only where everything is.
    pub shared: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// When it was used last: seconds since 1970.
    pub used: i64,
}

/// Which records are pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// Also what belongs to images that stay.
    pub all: bool,
    /// Expressions of which one must be true of it, where there are any.
    pub any: Vec<Expression>,
    /// Only what was not used for so many seconds.
    pub unused_for: Option<u64>,
    /// So many bytes may stay: what was used least recently goes first.
    pub keep_bytes: Option<u64>,
}

/// All of these must be true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expression(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Present,
    Equal,
    Different,
    Contains,
}

impl Expression {
    /// `type==regular,id~=abc,inuse`, as containerd's filters are written.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let terms = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        terms.map(Term::parse).collect::<Result<_, _>>().map(Expression)
    }

    /// Of fields and values that all must be the same. A value without one asks whether it is so at all.
    pub fn of<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Expression, String> {
        let one = |(field, value): (&str, &str)| match (field, value) {
            (field, "") => Term::parse(field),
            ("id", value) => Term::parse(&format!("id~={value}")),
            (field, value) => Term::parse(&format!("{field}=={value}")),
        };
        fields.into_iter().map(one).collect::<Result<_, _>>().map(Expression)
    }

    /// Whether it is true of a record.
    pub fn fits(&self, r: &CacheRecord) -> bool {
        self.0.iter().all(|t| t.fits(r))
    }
}

impl Term {
    fn parse(text: &str) -> Result<Term, String> {
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::Different),
            ("~=", Operator::Contains),
        ];
        let found = operators
            .iter()
            .find_map(|(word, o)| text.split_once(word).map(|(field, value)| (field, *o, value)));
        let (field, operator, value) = found.unwrap_or((text, Operator::Present, ""));
        match field {
            "id" | "type" | "description" | "inuse" | "shared" | "private" | "mutable" | "immutable" | "parent"
            | "parents" => Ok(Term {
                field: field.to_owned(),
                operator,
                value: value.trim_matches('"').to_owned(),
            }),
            _ => Err(format!(
                "{field:?} is nothing that the cache of builds can be filtered by"
            )),
        }
    }

    fn fits(&self, r: &CacheRecord) -> bool {
        let flag = |yes: bool| match yes {
            true => "true".to_owned(),
            false => String::new(),
        };
        let has = match self.field.as_str() {
            "id" => r.id.clone(),
            "type" => r.kind.clone(),
            "description" => r.description.clone(),
            "inuse" => flag(r.in_use),
            "shared" => flag(r.shared),
            "private" => flag(!r.shared),
            // What steps write is not changed any more; a cache is by each of its steps.
            "mutable" => flag(r.kind == "exec.cachemount"),
            "immutable" => flag(r.kind != "exec.cachemount"),
            _ => String::new(),
        };
        let wanted = match (self.field.as_str(), self.value.as_str()) {
            ("inuse" | "shared" | "private" | "mutable" | "immutable", "false" | "0") => "",
            ("inuse" | "shared" | "private" | "mutable" | "immutable", "1") => "true",
            (_, value) => value,
        };
        match self.operator {
            Operator::Present => !has.is_empty(),
            Operator::Equal => has == wanted,
            Operator::Different => has != wanted,
            Operator::Contains => has.contains(wanted),
        }
    }
}

impl CacheFilter {
    /// Those of the records that go, at this time (seconds since 1970).
    pub fn choose(&self, records: &[CacheRecord], now: i64) -> Vec<CacheRecord> {
        let old = |r: &CacheRecord| {
            self.unused_for
                .is_none_or(|s| now.saturating_sub(r.used) >= i64::try_from(s).unwrap_or(i64::MAX))
        };
        let meant = |r: &&CacheRecord| {
            !r.in_use
                && (self.all || !r.shared)
                && old(r)
                && (self.any.is_empty() || self.any.iter().any(|e| e.fits(r)))
        };
        let mut chosen: Vec<CacheRecord> = records.iter().filter(meant).cloned().collect();
        if let Some(keep) = self.keep_bytes {
            let mut left: u64 = records.iter().map(|r| r.size).sum();
            chosen.sort_by_key(|r| r.used);
            chosen.retain(|r| {
                let goes = left > keep;
                left -= if goes { r.size } else { 0 };
                goes
            });
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, kind: &str, size: u64, used: i64) -> CacheRecord {
        CacheRecord {
            id: id.into(),
            kind: kind.into(),
            size,
            used,
            ..CacheRecord::default()
        }
    }

    fn ids(filter: &CacheFilter) -> Vec<String> {
        let shared = CacheRecord {
            shared: true,
            ..record("stage", "regular", 30, 50)
        };
        let busy = CacheRecord {
            in_use: true,
            ..record("busy", "exec.cachemount", 5, 10)
        };
        let all = [
            record("abc", "exec.cachemount", 10, 100),
            record("abd", "regular", 20, 200),
            shared,
            busy,
        ];
        filter.choose(&all, 300).into_iter().map(|r| r.id).collect()
    }

    #[test]
    fn what_is_meant() {
        let by = |text: &str| CacheFilter {
            any: vec![Expression::parse(text).unwrap()],
            all: true,
            ..CacheFilter::default()
        };
        assert_eq!(ids(&CacheFilter::default()), ["abc", "abd"]);
        for (text, want) in [
            ("type==regular", &["abd", "stage"][..]),
            ("type!=regular", &["abc"]),
            ("id~=ab", &["abc", "abd"]),
            ("id~=ab,type==regular", &["abd"]),
            ("shared", &["stage"]),
            ("shared==false", &["abc", "abd"]),
            ("private", &["abc", "abd"]),
            ("inuse", &[]),
            ("inuse==false", &["abc", "abd", "stage"]),
            ("mutable", &["abc"]),
            ("description==\"x\"", &[]),
        ] {
            assert_eq!(ids(&by(text)), want, "{text}");
        }
        assert!(Expression::parse("colour==red").is_err());
        let of = Expression::of([("id", "ab"), ("inuse", "")]).unwrap();
        assert_eq!(of, Expression::parse("id~=ab,inuse").unwrap());
    }

    #[test]
    fn what_is_old_or_too_much() {
        let old = CacheFilter {
            unused_for: Some(150),
            ..CacheFilter::default()
        };
        assert_eq!(ids(&old), ["abc"]);
        let keep = |bytes| CacheFilter {
            keep_bytes: Some(bytes),
            all: true,
            ..CacheFilter::default()
        };
        // 65 bytes in all; what is in use counts and stays.
        assert_eq!(ids(&keep(65)), [] as [&str; 0]);
        assert_eq!(ids(&keep(64)), ["stage"]);
        assert_eq!(ids(&keep(30)), ["stage", "abc"]);
        assert_eq!(ids(&keep(0)), ["stage", "abc", "abd"]);
    }
}
