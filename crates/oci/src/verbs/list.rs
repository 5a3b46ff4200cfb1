//! What containers there are.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::{known, print};
use crate::args::{Global, Options};
use crate::error::{Error, Step};
use crate::state::{Place, State, Status};

fn document(place: &Place, state: &State) -> Value {
    let status = state.status(place);
    let owner = std::fs::metadata(&place.0).map_or(0, |m| m.uid());
    json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.pid },
        "status": status.word(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "annotations": state.annotations,
        "owner": if owner == 0 { "root".to_owned() } else { format!("#{owner}") },
    })
}

pub(super) fn state(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let (place, state) = known(global, rest)?;
    print(&document(&place, &state))?;
    Ok(0)
}

pub(super) fn list(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let options = Options::parse(rest, &[("format", "f", true), ("quiet", "q", false)], false)?;
    options.at_most(0)?;
    let all = all(global)?;
    if options.has("quiet") {
        all.iter().for_each(|v| println!("{}", text(v, "id")));
        return Ok(0);
    }
    match options.get("format").unwrap_or("table") {
        "json" => println!("{}", Value::Array(all)),
        "table" => {
            println!("{:<20} {:<8} {:<8} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE");
            for v in &all {
                println!(
                    "{:<20} {:<8} {:<8} {:<40} {}",
                    text(v, "id"),
                    v["pid"].to_string(),
                    text(v, "status"),
                    text(v, "bundle"),
                    text(v, "created")
                );
            }
        }
        other => return Err(Error::Usage(format!("unknown format {other:?}: it is table or json"))),
    }
    Ok(0)
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn all(global: &Global) -> Result<Vec<Value>, Error> {
    let entries = match std::fs::read_dir(&global.root) {
        Ok(e) => e,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).step(|| format!("list {}", global.root.display())),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        // One that is just being made or deleted has no state.
        if let Ok(place) = Place::of(&global.root, &name)
            && let Ok(state) = place.load()
        {
            all.push(document(&place, &state));
        }
    }
    Ok(all)
}
