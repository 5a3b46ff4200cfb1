//! Printing: data on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use biga_client::Table;
use biga_model::{Kind, Object, Timestamp};
use serde::Serialize;
use serde_json::Value;

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Aligned columns, all of them
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Only kind and name, as instance/web
    Name,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OutputArgs {
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

impl OutputArgs {
    /// What was asked for, or a table.
    pub fn get(self) -> Format {
        self.format.unwrap_or_default()
    }
}

/// Writes to standard output.
pub fn emit(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard output.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    emit(&format!("{text}\n"))
}

/// Says something to the user on standard error.
pub fn note(text: impl std::fmt::Display) {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether standard output takes colours.
pub fn colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Whether moving lines may be drawn on standard error.
pub fn draws() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Text in one of the terminal's colours.
pub fn paint(text: &str, colour: Colour, on: bool) -> String {
    if on {
        format!("\x1b[{}m{text}\x1b[0m", colour as u8)
    } else {
        text.to_string()
    }
}

/// Colours of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Colour {
    /// Bad.
    Red = 31,
    /// Good.
    Green = 32,
    /// In between.
    Yellow = 33,
}

/// Columns of text.
#[derive(Debug, Clone, Default)]
pub struct TextTable {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with these headings.
    pub fn new<S: AsRef<str>>(headings: impl IntoIterator<Item = S>) -> TextTable {
        TextTable {
            headings: headings.into_iter().map(|h| h.as_ref().to_uppercase()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Line breaks and control characters in cells are made visible: they could redraw the terminal.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|c| clean(c.as_ref())).collect());
    }

    /// The table without its first column.
    pub fn without_first(mut self) -> TextTable {
        for r in std::iter::once(&mut self.headings).chain(&mut self.rows) {
            if !r.is_empty() {
                r.remove(0);
            }
        }
        self
    }

    /// The table as text, three spaces between columns.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|h| width(h)).collect();
        for r in &self.rows {
            for (i, c) in r.iter().enumerate().take(widths.len()) {
                widths[i] = widths[i].max(width(c));
            }
        }
        let mut out = String::new();
        for r in std::iter::once(&self.headings).chain(&self.rows) {
            let mut text = String::new();
            for (c, w) in r.iter().zip(&widths) {
                text.push_str(c);
                text.extend(std::iter::repeat_n(' ', w - width(c) + 3));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }

    /// Prints it.
    pub fn print(&self) -> anyhow::Result<()> {
        emit(&self.render())
    }
}

/// How many columns of the terminal `text` takes: one a character, colours none.
fn width(text: &str) -> usize {
    let mut n = 0;
    let mut in_escape = false;
    for c in text.chars() {
        match c {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ => n += 1,
        }
    }
    n
}

/// Makes control characters visible, apart from the colours we set ourselves.
pub fn clean(text: &str) -> String {
    let ours = |rest: &str| {
        ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
            .iter()
            .any(|e| rest.starts_with(e))
    };
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.char_indices() {
        if c.is_control() && !ours(&text[i..]) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A cell as text.
pub fn cell(v: &Value) -> String {
    match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// The table of typed objects, with the kind's own columns.
pub fn object_table<K: Kind>(objects: &[Object<K>], wide: bool, namespace: bool, now: Timestamp) -> TextTable {
    let columns = K::columns();
    let shown = |i: usize| wide || !columns[i].wide;
    let mut headings = Vec::new();
    if namespace && K::NAMESPACED {
        headings.push("Namespace");
    }
    headings.push("Name");
    headings.extend(
        columns
            .iter()
            .enumerate()
            .filter(|(i, _)| shown(*i))
            .map(|(_, c)| c.name),
    );
    headings.push("Age");
    let mut t = TextTable::new(headings);
    for o in objects {
        let mut row = Vec::new();
        if namespace && K::NAMESPACED {
            row.push(o.metadata.namespace.clone().unwrap_or_default());
        }
        row.push(o.name().to_string());
        let cells = K::cells(o, now);
        row.extend(
            cells
                .iter()
                .enumerate()
                .filter(|(i, _)| shown(*i))
                .map(|(_, v)| cell(v)),
        );
        row.push(biga_model::kind::age(o.metadata.creation_timestamp, now));
        t.row(row);
    }
    t
}

/// A table the server made.
pub fn server_table(table: &Table, wide: bool, namespace: bool) -> TextTable {
    let shown: Vec<usize> = (0..table.column_definitions.len())
        .filter(|i| wide || table.column_definitions[*i].priority == 0)
        .collect();
    let mut headings: Vec<&str> = Vec::new();
    if namespace {
        headings.push("Namespace");
    }
    headings.extend(shown.iter().map(|i| table.column_definitions[*i].name.as_str()));
    let mut t = TextTable::new(headings);
    for r in &table.rows {
        let mut row = Vec::new();
        if namespace {
            row.push(cell(&r.object["metadata"]["namespace"]));
        }
        row.extend(shown.iter().map(|i| r.cells.get(*i).map(cell).unwrap_or_default()));
        t.row(row);
    }
    t
}

/// Values as pretty JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A value as YAML.
pub fn yaml<T: Serialize>(value: &T) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Prints objects: `table` is called only where a table is wanted. One object is printed by itself, several as a list.
pub fn print_objects(
    objects: &[Value],
    single: bool,
    format: Format,
    table: impl FnOnce(bool) -> TextTable,
) -> anyhow::Result<()> {
    let whole = || match (objects, single) {
        ([one], true) => one.clone(),
        _ => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    };
    match format {
        Format::Table => table(false).print(),
        Format::Wide => table(true).print(),
        Format::Json => emit(&json(&whole())?),
        Format::Yaml => emit(&yaml(&whole())?),
        Format::Name => objects.iter().try_for_each(|o| line(object_name(o))),
    }
}

/// `instance/web`.
pub fn object_name(o: &Value) -> String {
    let kind = o["kind"].as_str().unwrap_or("object").to_lowercase();
    format!("{kind}/{}", o["metadata"]["name"].as_str().unwrap_or_default())
}

/// Objects as values.
pub fn values<K: Kind>(objects: &[Object<K>]) -> anyhow::Result<Vec<Value>> {
    Ok(objects.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use biga_model::Instance;

    fn instances() -> Vec<Object<Instance>> {
        let list = serde_json::json!([
            {"apiVersion": "biga.dev/v1", "kind": "Instance",
             "metadata": {"name": "web", "namespace": "default", "uid": "11112222-0000", "creationTimestamp": "2026-01-01T00:00:00Z"},
             "spec": {"image": "nginx:1", "ports": [{"port": 80, "hostPort": 8080}], "containers": [{"name": "main", "args": ["a", "b"]}]},
             "status": {"phase": "Running", "startedAt": "2026-01-01T00:01:00Z", "pid": 42, "node": "n1",
                        "networks": [{"network": "default", "interface": "eth0", "address": "10.88.0.5/24", "mac": "52:54:00:00:00:01"}]}},
            {"apiVersion": "biga.dev/v1", "kind": "Instance",
             "metadata": {"name": "a-longer-name", "namespace": "default", "uid": "33334444-0000", "creationTimestamp": "2026-01-01T00:03:00Z"},
             "spec": {"image": "debian", "isolation": "vm"},
             "status": {"phase": "Failed", "reason": "ImageNotFound", "accelerator": "tcg"}},
        ]);
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn instances_are_aligned() {
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        insta::assert_snapshot!("instances", object_table(&instances(), false, false, now).render());
        insta::assert_snapshot!("instances_wide", object_table(&instances(), true, true, now).render());
    }

    #[test]
    fn hostile_cells_cannot_redraw_the_terminal() {
        let mut t = TextTable::new(["a", "b"]);
        t.row(["x\x1b[2J\ny", &paint("ok", Colour::Green, true)]);
        t.row(["longer than that", "z"]);
        assert_eq!(
            t.render(),
            "A                  B\nx\\u{1b}[2J\\ny      \x1b[32mok\x1b[0m\nlonger than that   z\n"
        );
    }

    #[test]
    fn yaml_and_json_hold_the_same() {
        let v = serde_json::json!({"a": "yes", "n": 1, "l": ["x: y", "", "0123", "~"], "m": {"k": null}, "t": "two\nlines\n"});
        let back: Value = serde_saphyr::from_str(&yaml(&v).unwrap()).unwrap();
        assert_eq!(back, v);
        let back: Value = serde_json::from_str(&json(&v).unwrap()).unwrap();
        assert_eq!(back, v);
    }
}
