//! `inspect` of every noun.

use anyhow::Context as _;
use serde_json::Value;

use crate::exit::{Code, fail};
use crate::output::{Format, OutputArgs, cell, emit, json, line, note, object_name, yaml};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Print only this field, as status.networks.0.address
    #[arg(long, value_name = "PATH", conflicts_with = "format")]
    field: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    /// What to show
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Fetches each name with `get` and prints all of them: a JSON array where nothing else was asked for.
pub async fn inspect<F, T>(args: InspectArgs, mut get: impl FnMut(String) -> F) -> anyhow::Result<Code>
where
    F: Future<Output = Result<T, biga_client::Error>>,
    T: serde::Serialize,
{
    let mut found = Vec::new();
    let mut code = Code::OK;
    for name in &args.names {
        match get(name.clone()).await {
            Ok(o) => found.push(serde_json::to_value(&o)?),
            Err(e) if e.is_not_found() => {
                note(format!("biga: {e}"));
                code = Code::NOT_FOUND;
            }
            Err(e) => return Err(e.into()),
        }
    }
    print(&found, &args)?;
    Ok(code)
}

fn print(found: &[Value], args: &InspectArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.field {
        return found.iter().try_for_each(|o| line(cell(field(o, path)?)));
    }
    match args.output.format {
        None | Some(Format::Json) => emit(&json(found)?),
        Some(Format::Name) => found.iter().try_for_each(|o| line(object_name(o))),
        Some(_) => {
            for (i, o) in found.iter().enumerate() {
                if i > 0 {
                    emit("---\n")?;
                }
                emit(&yaml(o)?)?;
            }
            Ok(())
        }
    }
}

/// Follows a path of names and numbers.
fn field<'a>(o: &'a Value, path: &str) -> anyhow::Result<&'a Value> {
    let mut at = o;
    for step in path.split('.').filter(|s| !s.is_empty()) {
        let next = match at {
            Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get(i)),
            other => other.get(step),
        };
        at = next
            .ok_or_else(|| fail(Code::NOT_FOUND, format!("there is no {step}")))
            .with_context(|| format!("field {path} of {}", object_name(o)))?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_number() {
        let o = serde_json::json!({"kind": "Instance", "metadata": {"name": "x"}, "status": {"networks": [{"address": "10.0.0.1/24"}]}});
        assert_eq!(field(&o, "status.networks.0.address").unwrap(), "10.0.0.1/24");
        let e = format!("{:#}", field(&o, "status.pid").unwrap_err());
        assert_eq!(e, "field status.pid of instance/x: there is no pid");
        assert!(field(&o, "status.networks.1").is_err());
    }
}
