//! Adding a kind is one file and one registration: this is the file, and `with` is the registration.

use axum::Router;
use axum::body::Body;
use biga_api_kube::Registry;
use biga_model::kind::{Column, FieldError, column};
use biga_model::{Kind, Object, Timestamp};
use biga_store::MemoryStore;
use http::Request;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::Service;

#[derive(Debug, Clone, PartialEq)]
struct Lamp;

impl Kind for Lamp {
    const KIND: &'static str = "Lamp";
    const PLURAL: &'static str = "lamps";
    const SINGULAR: &'static str = "lamp";
    const SHORT_NAMES: &'static [&'static str] = &["lp"];
    const NAMESPACED: bool = true;
    const SUBRESOURCES: &'static [&'static str] = &["status"];
    type Spec = LampSpec;
    type Status = LampStatus;

    fn set_defaults(o: &mut Object<Self>) {
        o.spec.watts.get_or_insert(5);
    }

    fn validate(o: &Object<Self>, _old: Option<&Object<Self>>) -> Vec<FieldError> {
        match o.spec.watts {
            Some(0) => vec![FieldError::new("spec.watts", "gives no light: at least 1")],
            _ => Vec::new(),
        }
    }

    fn columns() -> &'static [Column] {
        &[const { column("Watts", "How bright.") }]
    }

    fn cells(o: &Object<Self>, _now: Timestamp) -> Vec<Value> {
        vec![json!(o.spec.watts)]
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LampSpec {
    watts: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LampStatus {
    #[serde(default)]
    lit: bool,
}

const LAMPS: &str = "/apis/biga.dev/v1/namespaces/default/lamps";

/// `media` is that of the body, and of the answer where nothing is sent.
async fn call(router: &Router, method: &str, path: &str, media: &str, body: &Value) -> (u16, Value) {
    let accept = if body.is_null() { media } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .header("accept", accept)
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.clone().call(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_kind_of_ones_own_is_served_whole() {
    let router = Registry::new(MemoryStore::with_history(100).unwrap())
        .with::<Lamp>()
        .router();
    let json = "application/json";
    let lamp = |name: &str, spec: Value| json!({"apiVersion": "biga.dev/v1", "kind": "Lamp", "metadata": {"name": name}, "spec": spec});
    let (code, made) = call(&router, "POST", LAMPS, json, &lamp("desk", json!({}))).await;
    assert_eq!((code, &made["spec"]["watts"]), (201, &json!(5)), "{made}");
    for (spec, code, word) in [
        (json!({"watts": 0}), 422, "spec.watts"),
        (json!({"volts": 1}), 400, "spec.volts"),
    ] {
        let (got, refused) = call(&router, "POST", LAMPS, json, &lamp("other", spec)).await;
        assert_eq!(got, code, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(word), "{refused}");
    }
    let desk = format!("{LAMPS}/desk");
    let patch = json!({"spec": {"watts": 9}, "status": {"lit": true}});
    let (_, changed) = call(&router, "PATCH", &desk, "application/merge-patch+json", &patch).await;
    assert_eq!(
        (&changed["spec"]["watts"], &changed["metadata"]["generation"]),
        (&json!(9), &json!(2))
    );
    assert_eq!(changed["status"], Value::Null, "the status has a door of its own");
    let lit = json!({"status": {"lit": true}});
    let (_, lit) = call(
        &router,
        "PATCH",
        &format!("{desk}/status"),
        "application/merge-patch+json",
        &lit,
    )
    .await;
    assert_eq!(lit["status"], json!({"lit": true}), "{lit}");
    let (code, conflict) = call(&router, "PUT", &desk, json, &made).await;
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (_, table) = call(&router, "GET", LAMPS, table, &Value::Null).await;
    let headings: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(headings, ["Name", "Watts", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 9);
    let (_, discovered) = call(&router, "GET", "/apis/biga.dev/v1", json, &Value::Null).await;
    assert_eq!(
        (
            &discovered["resources"][0]["name"],
            &discovered["resources"][0]["shortNames"]
        ),
        (&json!("lamps"), &json!(["lp"]))
    );
    let (code, _) = call(&router, "DELETE", &desk, json, &json!({})).await;
    assert_eq!(code, 200);
    assert_eq!(call(&router, "GET", &desk, json, &Value::Null).await.0, 404);
}
