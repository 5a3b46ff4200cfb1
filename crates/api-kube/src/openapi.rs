//! The smallest OpenAPI documents that make clients work: kinds are objects with free contents.
//!
//! kubectl reads version 2 as protobuf (to validate before it sends) and version 3 as JSON (to learn whether the
//! server takes `fieldValidation` and `dryRun`, and for `explain`). The server itself is what validates.

use biga_model::{GROUP, VERSION};
use serde_json::{Value, json};

use crate::resource::About;

/// Media type of version 2 in protobuf. Clients ask for it with `@v1.0`, which is no valid media type in an answer.
pub(crate) const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

fn schema_name(kind: &str) -> String {
    format!("dev.biga.{VERSION}.{kind}")
}

fn gvk(kind: &str) -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": kind})
}

fn free_object(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

fn schema(kind: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("{kind} of {GROUP}/{VERSION}."),
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version."},
            "kind": {"type": "string", "description": "The kind."},
            "metadata": free_object("Name, labels, revision."),
            "spec": free_object("What is wanted."),
            "status": free_object("What is seen."),
        },
        "x-kubernetes-group-version-kind": [gvk(kind)],
    })
}

/// `GET /openapi/v2` as JSON.
pub(crate) fn v2(kinds: &[About], version: &str) -> Value {
    let definitions: serde_json::Map<String, Value> =
        kinds.iter().map(|k| (schema_name(k.kind), schema(k.kind))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Biga", "version": version},
        "paths": {},
        "definitions": definitions,
    })
}

/// `GET /openapi/v2` as protobuf (`openapi.v2.Document`): header and no paths. A client that finds no schema for a
/// kind leaves validation to the server.
pub(crate) fn v2_protobuf(version: &str) -> Vec<u8> {
    let mut info = Vec::new();
    field(&mut info, 1, b"Biga");
    field(&mut info, 2, version.as_bytes());
    let mut document = Vec::new();
    field(&mut document, 1, b"2.0");
    field(&mut document, 2, &info);
    field(&mut document, 8, b"");
    document
}

/// A length-delimited field. Numbers and lengths here fit into one byte.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    let len = bytes.len().min(127);
    out.push(number << 3 | 2);
    out.push(len as u8);
    out.extend_from_slice(&bytes[..len]);
}

/// `GET /openapi/v3`.
pub(crate) fn v3_root() -> Value {
    let path = format!("apis/{GROUP}/{VERSION}");
    let url = format!("/openapi/v3/{path}");
    json!({"paths": {path: {"serverRelativeURL": url}}})
}

/// `GET /openapi/v3/apis/GROUP/VERSION`.
pub(crate) fn v3(kinds: &[About], version: &str) -> Value {
    let schemas: serde_json::Map<String, Value> = kinds.iter().map(|k| (schema_name(k.kind), schema(k.kind))).collect();
    let mut paths = serde_json::Map::new();
    for k in kinds {
        let ns = if k.namespaced { "namespaces/{namespace}/" } else { "" };
        let base = format!("/apis/{GROUP}/{VERSION}/{ns}{}", k.plural);
        paths.insert(
            base.clone(),
            json!({
                "get": operation(k, "list"),
                "post": operation(k, "post"),
                "delete": operation(k, "deletecollection"),
            }),
        );
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": operation(k, "get"),
                "put": operation(k, "put"),
                "patch": operation(k, "patch"),
                "delete": operation(k, "delete"),
            }),
        );
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Biga", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(k: &About, action: &str) -> Value {
    let query = |name: &str, description: &str| json!({"name": name, "in": "query", "description": description, "schema": {"type": "string", "uniqueItems": true}});
    let mut parameters = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        parameters.push(query("dryRun", "All: check and do not write."));
        parameters.push(query("fieldValidation", "Ignore, Warn or Strict."));
    }
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(k.kind))});
    json!({
        "operationId": format!("{action}Biga{}", k.kind),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(k.kind),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
    })
}
