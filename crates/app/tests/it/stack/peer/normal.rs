//! What two engines never say alike, taken out of their answers; and what is different then.

use std::sync::LazyLock;

use biga_testkit::Ran;
use regex::Regex;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::commands::Form;

/// What stands for what, in this order.
const RULES: [(&str, &str); 21] = [
    // Colours.
    (r"\x1b\[[0-9;]*m", ""),
    (r"sha256:[0-9a-f]{64}", "sha256:<id>"),
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "<uid>",
    ),
    (r"\$PREFIX-[a-z0-9]+", "<bridge>"),
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\bsha256:[0-9a-f]{12}\b", "<id>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    // A year of this century: the year 1 stays, it means never.
    (r"\b2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
    (r"\b2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]+", "<time>"),
    (
        r"(Less than a second|About a minute|About an hour|\d+ (second|minute)s?)( ago)?",
        "<while>",
    ),
    (r#""(time|timeNano)":\d+"#, r#""$1":<time>"#),
    (r"(State\.Pid) = [1-9]\d*", "$1 = <pid>"),
    (r"execDuration=\d+", "execDuration=<while>"),
    (r"(Size) = \d{3,}", "$1 = <size>"),
    (r#"(size"?): \d+"#, "$1: <size>"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
    (r"\b\d+(\.\d+)?(e\+\d+)? ?(B|kB|MB|GB|KiB|MiB|GiB)\b", "<size>"),
    // Ports that the kernel picks.
    (
        r"\b(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b",
        "<port>",
    ),
    // How wide a column is depends on what stands in it.
    (r"[ \t]{2,}|\t", "  "),
    (r"[ \t]+(\r?\n)", "$1"),
    (r"\r", "␍"),
];

/// Addresses, but for those that somebody typed.
const ADDRESS: &str = r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b";
const TYPED: [&str; 8] = [
    "127.", "0.0.0.0", "10.123.", "10.124.", "10.125.", "10.9.9.9", "192.0.2.", "255.",
];

static COMPILED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let all = RULES
        .iter()
        .map(|(from, to)| (Regex::new(from).expect("a pattern"), *to));
    all.collect()
});
static ADDRESSES: LazyLock<Regex> = LazyLock::new(|| Regex::new(ADDRESS).expect("a pattern"));

fn normal(text: &str) -> String {
    let mut text = text.to_string();
    for (from, to) in COMPILED.iter() {
        text = from.replace_all(&text, *to).into_owned();
    }
    let addresses = |c: &regex::Captures<'_>| match TYPED.iter().any(|t| c[0].starts_with(t)) {
        true => c[0].to_string(),
        false => "<address>".into(),
    };
    ADDRESSES.replace_all(&text, addresses).into_owned()
}

/// A line for each value in a document, by its path.
fn flat(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, v) in fields {
                flat(&format!("{path}.{name}"), v, lines);
            }
        }
        // Words in no order.
        Value::Array(items) if items.iter().any(Value::is_string) => {
            lines.extend(items.iter().map(|v| format!("{path}[] = {v}")));
        }
        Value::Array(items) if !items.is_empty() => {
            for (n, v) in items.iter().enumerate() {
                flat(&format!("{path}[{n}]"), v, lines);
            }
        }
        v => lines.push(format!("{path} = {v}")),
    }
}

/// An answer as lines: what was said, what was complained of, how it ended.
fn lines(form: Form, ran: &Ran) -> String {
    let mut out: Vec<String> = match (form, serde_json::from_str::<Value>(&ran.out)) {
        (Form::Json, Ok(value)) => {
            let mut lines = Vec::new();
            flat("", &value, &mut lines);
            lines.iter().map(|l| normal(l)).collect()
        }
        _ => normal(&ran.out).lines().map(Into::into).collect(),
    };
    if form != Form::Lines {
        out.sort();
    }
    out.extend(normal(&ran.err).lines().map(|l| format!("stderr: {l}")));
    if ran.code != 0 {
        out.push(format!("exit code {}", ran.code));
    }
    out.join("\n") + "\n"
}

/// The lines that one of them says and the other does not. `-` is dockerd's, `+` is Biga's.
pub(super) fn diff(form: Form, theirs: &Ran, ours: &Ran) -> String {
    if matches!(form, Form::Prepares | Form::Awaits) {
        return String::new();
    }
    let (theirs, ours) = (lines(form, theirs), lines(form, ours));
    let diff = TextDiff::from_lines(&theirs, &ours);
    let mut text = String::new();
    for change in diff.iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        text.push(sign);
        text.push_str(change.value().trim_end());
        text.push('\n');
    }
    text
}
