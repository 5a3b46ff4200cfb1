//! What the server serves, in the forms old and new clients ask for it.

use biga_model::{API_VERSION, GROUP, VERSION};
use serde_json::{Value, json};

use crate::registry::VersionInfo;
use crate::resource::About;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn subresource_verbs(name: &str) -> &'static [&'static str] {
    match name {
        "status" => &["get", "patch", "update"],
        "log" | "stats" => &["get"],
        _ => &["create"],
    }
}

/// `GET /api`: the core group, which has no kinds here.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []})
}

fn group() -> Value {
    let version = json!({"groupVersion": API_VERSION, "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `GET /apis`.
pub(crate) fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

/// `GET /apis/GROUP`.
pub(crate) fn one_group() -> Value {
    let mut g = group();
    g["kind"] = json!("APIGroup");
    g["apiVersion"] = json!("v1");
    g
}

/// `GET /apis/GROUP/VERSION`.
pub(crate) fn resources(kinds: &[About]) -> Value {
    let mut all = Vec::new();
    for k in kinds {
        let mut main = json!({
            "name": k.plural,
            "singularName": k.singular,
            "namespaced": k.namespaced,
            "kind": k.kind,
            "verbs": VERBS,
            "categories": ["biga"],
        });
        if !k.short_names.is_empty() {
            main["shortNames"] = json!(k.short_names);
        }
        all.push(main);
        for s in k.subresources {
            all.push(json!({
                "name": format!("{}/{s}", k.plural),
                "singularName": "",
                "namespaced": k.namespaced,
                "kind": k.kind,
                "verbs": subresource_verbs(s),
            }));
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": all})
}

/// `GET /apis` (or `/api`, without kinds) as aggregated discovery.
pub(crate) fn aggregated(kinds: Option<&[About]>, version: &str) -> Value {
    let items: Vec<Value> = kinds
        .map(|kinds| {
            let resources: Vec<Value> = kinds.iter().map(aggregated_resource).collect();
            json!({
                "metadata": {"name": GROUP, "creationTimestamp": null},
                "versions": [{"version": VERSION, "freshness": "Current", "resources": resources}],
            })
        })
        .into_iter()
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(k: &About) -> Value {
    let response_kind = json!({"group": GROUP, "version": VERSION, "kind": k.kind});
    let subresources: Vec<Value> = k
        .subresources
        .iter()
        .map(|s| json!({"subresource": s, "responseKind": response_kind, "verbs": subresource_verbs(s)}))
        .collect();
    let mut r = json!({
        "resource": k.plural,
        "responseKind": response_kind,
        "scope": if k.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": k.singular,
        "verbs": VERBS,
        "categories": ["biga"],
    });
    if !k.short_names.is_empty() {
        r["shortNames"] = json!(k.short_names);
    }
    if !subresources.is_empty() {
        r["subresources"] = json!(subresources);
    }
    r
}

/// `GET /version`. Clients compare `major` and `minor` with their own: this is the version of the Kubernetes API
/// that the forms here follow; `gitVersion` also names Biga's.
pub(crate) fn version(info: &VersionInfo) -> Value {
    json!({
        "major": "1",
        "minor": "32",
        "gitVersion": format!("v1.32.0+biga.{}", info.version),
        "gitCommit": info.commit,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", info.arch),
    })
}
