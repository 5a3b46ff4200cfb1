//! `biga apply`: make objects as files say.
//!
//! What was applied last is kept in an annotation, the one kubectl uses, so that both can take turns. A field that was in
//! the last file and is not in this one is removed; what others wrote stays.

use std::path::PathBuf;

use biga_client::{Client, Error, Patch, RawApi};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::exit::Code;
use crate::manifest::{self, Document};
use crate::output::{line, note, object_name};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// File, directory, or "-" for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// kubectl's annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Makes each object as its file says.
pub async fn apply(cx: &Context, args: ApplyArgs) -> anyhow::Result<Code> {
    let mut code = Code::OK;
    for d in manifest::read(&args.files)? {
        match apply_one(cx, &d).await {
            Ok(what) => line(format!("{} {what}", object_name(&d.object)))?,
            Err(e) => {
                note(format!("biga: {} ({}): {e}", object_name(&d.object), d.source));
                if code == Code::OK {
                    code = Code::of_error(&e.into());
                }
            }
        }
    }
    Ok(code)
}

/// The place of an object: its own namespace, or that of the command line.
pub async fn place(client: &Client, namespace: &str, o: &Value) -> Result<RawApi, Error> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let resource = client.resource_of(&text(&o["apiVersion"]), &text(&o["kind"])).await?;
    let own = o["metadata"]["namespace"].as_str().unwrap_or(namespace);
    let namespace = resource.namespaced.then_some(own);
    Ok(client.raw(resource, namespace))
}

async fn apply_one(cx: &Context, d: &Document) -> Result<&'static str, Error> {
    let api = place(&cx.client, &cx.namespace, &d.object).await?;
    let mut wanted = d.object.clone();
    if let Value::Object(o) = &mut wanted {
        o.remove("status");
    }
    if let Some(Value::Object(m)) = wanted.get_mut("metadata") {
        // A revision in a file is that of a day long gone.
        for f in [
            "resourceVersion",
            "uid",
            "generation",
            "creationTimestamp",
            "managedFields",
        ] {
            m.remove(f);
        }
    }
    let applied = wanted.to_string();
    wanted["metadata"]["annotations"][LAST_APPLIED] = applied.into();
    let Some(name) = wanted["metadata"]["name"].as_str().map(str::to_string) else {
        api.create(&wanted).await?;
        return Ok("created");
    };
    match api.get_opt(&name).await? {
        None => {
            api.create(&wanted).await?;
            Ok("created")
        }
        Some(now) => {
            let patch = three_way(&now, &wanted);
            if patch == json!({}) {
                return Ok("unchanged");
            }
            api.patch(&name, &Patch::Merge(patch)).await?;
            Ok("configured")
        }
    }
}

/// The merge patch from `now` to `wanted`, with what the last file had and this one has not removed.
fn three_way(now: &Value, wanted: &Value) -> Value {
    let last = now["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|t| serde_json::from_str(t).ok())
        .unwrap_or(Value::Null);
    let mut patch = difference(now, wanted, &last);
    if let Value::Object(p) = &mut patch {
        p.remove("status");
    }
    patch
}

fn difference(now: &Value, wanted: &Value, last: &Value) -> Value {
    let mut patch = Map::new();
    if let Value::Object(w) = wanted {
        for (k, v) in w {
            match (v, &now[k]) {
                (Value::Object(_), have @ Value::Object(_)) => {
                    let inner = difference(have, v, &last[k]);
                    if inner != json!({}) {
                        patch.insert(k.clone(), inner);
                    }
                }
                (v, have) if v == have => {}
                (v, _) => {
                    patch.insert(k.clone(), v.clone());
                }
            }
        }
    }
    if let (Value::Object(l), Value::Object(n)) = (last, now) {
        for k in l.keys() {
            if wanted.get(k).is_none() && n.contains_key(k) {
                patch.insert(k.clone(), Value::Null);
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_file_goes_and_what_others_wrote_stays() {
        let last = json!({"spec": {"image": "a:1", "hostname": "x", "resources": {"cpus": "1", "memory": "1Gi"}}});
        let now = json!({
            "metadata": {"annotations": {LAST_APPLIED: last.to_string()}, "labels": {"by": "hand"}},
            "spec": {"image": "a:1", "hostname": "x", "nodeName": "n1", "restartRequest": 2, "resources": {"cpus": "1", "memory": "1Gi"}},
            "status": {"phase": "Running"},
        });
        let wanted = json!({"spec": {"image": "a:2", "resources": {"cpus": "1"}}});
        assert_eq!(
            three_way(&now, &wanted),
            json!({"spec": {"image": "a:2", "resources": {"memory": null}, "hostname": null}})
        );
        assert_eq!(three_way(&now, &last), json!({}));
    }
}
