//! `biga get`: objects of any kind.

use biga_client::{ListParams, RawApi, Resource};
use serde_json::Value;

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{Format, OutputArgs, TextTable, note, print_objects, server_table};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// Only those with these labels, as app=web,tier!=db
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only those with these fields, as spec.isolation=vm
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Kind, as instances or inst; also KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Names; all where left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Splits `kind/name`.
pub fn split_kind(kind: &str, names: &[String]) -> (String, Vec<String>) {
    match kind.split_once('/') {
        Some((k, n)) => (
            k.into(),
            std::iter::once(n.to_string()).chain(names.iter().cloned()).collect(),
        ),
        None => (kind.into(), names.to_vec()),
    }
}

/// Objects of a kind in the namespace of the command line.
pub fn api_of(cx: &Context, resource: Resource, all: bool) -> RawApi {
    let namespace = (resource.namespaced && !all).then_some(cx.namespace.as_str());
    cx.client.raw(resource, namespace)
}

/// Prints objects.
pub async fn get(cx: &Context, args: GetArgs) -> anyhow::Result<Code> {
    let (kind, names) = split_kind(&args.kind, &args.names);
    let resource = cx.client.find_resource(&kind).await?;
    let api = api_of(cx, resource, args.all_namespaces);
    let params = ListParams {
        label_selector: args.selector.clone(),
        field_selector: args.field_selector.clone(),
        ..ListParams::default()
    };
    if !names.is_empty() {
        if args.all_namespaces || params != ListParams::default() {
            return Err(fail(
                Code::USAGE,
                "give names, or select with -l, --field-selector and -A, not both",
            ));
        }
        return named(&api, &names, args.output.get()).await;
    }
    let format = args.output.get();
    if matches!(format, Format::Table | Format::Wide) {
        let table = api.list_table(&params).await?;
        if table.rows.is_empty() {
            let plural = &api.resource().plural;
            note(format!("no {plural} found"));
            return Ok(Code::OK);
        }
        let with_namespace = args.all_namespaces && api.resource().namespaced;
        server_table(&table, format == Format::Wide, with_namespace).print()?;
        return Ok(Code::OK);
    }
    let list = api.list(&params).await?;
    print_objects(&whole(&api, list.items), false, format, |_| TextTable::default())?;
    Ok(Code::OK)
}

/// Items of a list may come without kind: put it back, so that each can be applied again.
fn whole(api: &RawApi, mut items: Vec<Value>) -> Vec<Value> {
    let r = api.resource();
    for i in &mut items {
        if i["kind"].is_null() {
            i["kind"] = r.kind.as_str().into();
            i["apiVersion"] = r.api_version.as_str().into();
        }
    }
    items
}

async fn named(api: &RawApi, names: &[String], format: Format) -> anyhow::Result<Code> {
    let mut code = Code::OK;
    if matches!(format, Format::Table | Format::Wide) {
        let mut all: Option<biga_client::Table> = None;
        for n in names {
            match (api.get_table(n).await, &mut all) {
                (Ok(t), None) => all = Some(t),
                (Ok(t), Some(a)) => a.rows.extend(t.rows),
                (Err(e), _) if e.is_not_found() => {
                    note(format!("biga: {e}"));
                    code = Code::NOT_FOUND;
                }
                (Err(e), _) => return Err(e.into()),
            }
        }
        if let Some(t) = all {
            server_table(&t, format == Format::Wide, false).print()?;
        }
        return Ok(code);
    }
    let mut found = Vec::new();
    for n in names {
        match api.get(n).await {
            Ok(o) => found.push(o),
            Err(e) if e.is_not_found() => {
                note(format!("biga: {e}"));
                code = Code::NOT_FOUND;
            }
            Err(e) => return Err(e.into()),
        }
    }
    print_objects(&found, names.len() == 1 && found.len() == 1, format, |_| {
        TextTable::default()
    })?;
    Ok(code)
}
