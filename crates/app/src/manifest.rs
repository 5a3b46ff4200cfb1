//! Objects in files: YAML or JSON, one or several documents.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exit::{Code, fail};

/// An object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it came from, for messages.
    pub source: String,
    /// The object.
    pub object: Value,
}

/// Reads files, directories (their `.yaml`, `.yml` and `.json`) and `-`, which is standard input.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut out = Vec::new();
    for p in paths {
        if p == Path::new("-") {
            let text = std::io::read_to_string(std::io::stdin())?;
            out.extend(parse(&text, "standard input")?);
            continue;
        }
        for file in files_of(p)? {
            let name = file.display().to_string();
            let text =
                std::fs::read_to_string(&file).map_err(|e| fail(Code::FAILED, format!("cannot read {name}: {e}")))?;
            out.extend(parse(&text, &name)?);
        }
    }
    if out.is_empty() {
        return Err(fail(Code::USAGE, "the files hold no objects"));
    }
    Ok(out)
}

fn files_of(p: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !p.is_dir() {
        return Ok(vec![p.to_path_buf()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(p)?
        .flatten()
        .map(|e| e.path())
        .filter(|f| f.extension().is_some_and(|x| x == "yaml" || x == "yml" || x == "json"))
        .collect();
    files.sort();
    Ok(files)
}

/// Reads the documents of one text. Lists are taken apart.
pub fn parse(text: &str, source: &str) -> anyhow::Result<Vec<Document>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| fail(Code::USAGE, format!("{source} is neither YAML nor JSON: {e}")))?;
    let mut out = Vec::new();
    for (i, d) in documents.into_iter().enumerate() {
        let at = format!("{source}, document {}", i + 1);
        flatten(d, &at, &mut out)?;
    }
    Ok(out)
}

fn flatten(v: Value, at: &str, out: &mut Vec<Document>) -> anyhow::Result<()> {
    if v.is_null() {
        return Ok(());
    }
    let kind = v["kind"].as_str().unwrap_or_default().to_string();
    if kind.ends_with("List")
        && let Value::Object(mut o) = v
    {
        if let Some(Value::Array(items)) = o.remove("items") {
            for (i, item) in items.into_iter().enumerate() {
                flatten(item, &format!("{at}, item {}", i + 1), out)?;
            }
        }
        return Ok(());
    }
    for field in ["apiVersion", "kind"] {
        if !v[field].is_string() {
            return Err(fail(Code::USAGE, format!("{at} has no {field}: it is no object")));
        }
    }
    let named = |f: &str| v["metadata"][f].as_str().is_some_and(|n| !n.is_empty());
    if !named("name") && !named("generateName") {
        return Err(fail(Code::USAGE, format!("{at} has no metadata.name")));
    }
    out.push(Document {
        source: at.to_string(),
        object: v,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_lists_are_read() {
        let text = "\
---
# a comment
apiVersion: biga.dev/v1
kind: Volume
metadata: {name: a}
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: biga.dev/v1, kind: Network, metadata: {name: b}}
- {apiVersion: biga.dev/v1, kind: Network, metadata: {name: c}, spec: {mtu: 1400, internal: true, subnet: \"10.1.0.0/24\"}}
";
        let docs = parse(text, "f.yaml").unwrap();
        let names: Vec<_> = docs
            .iter()
            .map(|d| d.object["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            docs[2].object["spec"],
            serde_json::json!({"mtu": 1400, "internal": true, "subnet": "10.1.0.0/24"})
        );
        let json =
            r#"{"apiVersion": "biga.dev/v1", "kind": "Volume", "metadata": {"name": "j"}, "spec": {"size": "1Gi"}}"#;
        assert_eq!(parse(json, "f.json").unwrap()[0].object["spec"]["size"], "1Gi");
    }

    #[test]
    fn errors_name_the_place() {
        let e = |t: &str| parse(t, "f.yaml").unwrap_err().to_string();
        assert!(e("a: [").starts_with("f.yaml is neither YAML nor JSON"));
        assert_eq!(e("kind: X"), "f.yaml, document 1 has no apiVersion: it is no object");
        assert_eq!(e("apiVersion: v1\nkind: X"), "f.yaml, document 1 has no metadata.name");
    }
}
