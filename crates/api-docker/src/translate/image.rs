//! Images as Docker shows them.

use biga_model::kinds::image::NAMELESS;
use biga_model::{Image, Object, Reference};
use serde_json::{Value, json};

use crate::version::ApiVersion;

/// All names of one image id.
pub struct Group<'a> {
    /// `sha256:…`
    pub id: &'a str,
    /// Every object that names it.
    pub objects: Vec<&'a Object<Image>>,
}

/// Images by id, in the order of their first name.
pub fn group(all: &[Object<Image>]) -> Vec<Group<'_>> {
    let mut out: Vec<(String, Vec<&Object<Image>>)> = Vec::new();
    for o in all {
        let id = o.status.as_ref().map_or("", |s| s.image_id.as_str());
        match out.iter_mut().find(|(k, _)| k == id) {
            Some((_, l)) => l.push(o),
            None => out.push((id.to_string(), vec![o])),
        }
    }
    let id = |o: &&'_ Object<Image>| o.uid().to_string();
    out.into_iter()
        .filter_map(|(_, mut l)| {
            l.sort_by_key(id);
            let id = l.first()?.status.as_ref()?.image_id.as_str();
            Some(Group { id, objects: l })
        })
        .collect()
}

/// Whether it was given no name: the one it has is made of its id, and not shown.
pub fn is_nameless(o: &Object<Image>) -> bool {
    o.metadata.annotations.contains_key(NAMELESS)
}

/// `busybox:latest` and the like.
pub fn tags(objects: &[&Object<Image>]) -> Vec<String> {
    let tag = |o: &&Object<Image>| {
        if is_nameless(o) {
            return None;
        }
        let r: Reference = o.spec.reference.parse().ok()?;
        r.tag.is_some().then(|| Reference { digest: None, ..r }.familiar())
    };
    let mut all: Vec<String> = objects.iter().filter_map(tag).collect();
    all.sort();
    all.dedup();
    all
}

/// `busybox@sha256:…` and the like.
pub fn digests(objects: &[&Object<Image>]) -> Vec<String> {
    let digest = |o: &&Object<Image>| {
        if is_nameless(o) {
            return None;
        }
        let r: Reference = o.spec.reference.parse().ok()?;
        let seen = o.status.as_ref().map(|s| s.digest.clone()).filter(|d| !d.is_empty());
        let digest = Some(r.digest.clone().or(seen)?);
        Some(Reference { tag: None, digest, ..r }.familiar())
    };
    let mut all: Vec<String> = objects.iter().filter_map(digest).collect();
    all.sort();
    all.dedup();
    all
}

/// When it was made, in seconds since 1970.
pub fn created(objects: &[&Object<Image>]) -> Option<biga_model::Timestamp> {
    objects.iter().find_map(|o| o.status.as_ref()?.created)
}

/// Bytes on the node's disk.
pub fn size(objects: &[&Object<Image>]) -> u64 {
    objects
        .iter()
        .filter_map(|o| o.status.as_ref())
        .map(|s| s.size)
        .max()
        .unwrap_or(0)
}

/// One entry of `GET /images/json`.
pub fn entry(g: &Group, labels: &Value, containers: i64) -> Value {
    json!({
        "Id": g.id,
        "ParentId": "",
        "RepoTags": tags(&g.objects),
        "RepoDigests": digests(&g.objects),
        "Created": created(&g.objects).map_or(0, |t| t.as_second()),
        "Size": size(&g.objects),
        "SharedSize": -1,
        "Labels": labels,
        "Containers": containers,
    })
}

/// The document of `GET /images/{name}/json`. `config` is the OCI image config.
pub fn inspect(id: &str, objects: &[&Object<Image>], config: &Value) -> Value {
    let platform = objects
        .first()
        .and_then(|o| o.status.as_ref())
        .map_or("", |s| s.platform.as_str());
    let mut parts = platform.split('/');
    let (os, arch) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let text = |f: &str, or: &str| config.get(f).and_then(Value::as_str).unwrap_or(or).to_string();
    let layers = objects
        .first()
        .and_then(|o| o.status.as_ref())
        .map(|s| s.layers.clone())
        .unwrap_or_default();
    let mut doc = json!({
        "Id": id,
        "RepoTags": tags(objects),
        "RepoDigests": digests(objects),
        "Parent": "",
        "Comment": comment(config),
        "Created": text("created", &super::time(created(objects))),
        "DockerVersion": "",
        "Author": text("author", ""),
        "Config": own_config(config),
        "Architecture": text("architecture", arch),
        "Os": text("os", os),
        "Size": size(objects),
        "GraphDriver": {"Name": "erofs", "Data": null},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": super::time(objects.iter().filter_map(|o| o.metadata.creation_timestamp).max())},
    });
    if let Some(v) = config.get("variant").and_then(Value::as_str) {
        doc["Variant"] = v.into();
    }
    doc
}

/// An image's own config; what is empty in it is shown as Docker shows what is not there.
fn own_config(config: &Value) -> Value {
    let mut own = config.get("config").cloned().unwrap_or_else(|| json!({}));
    let empty = |v: &Value| match v {
        Value::Array(l) => l.is_empty(),
        Value::Object(o) => o.is_empty(),
        v => v.is_null(),
    };
    if let Some(fields) = own.as_object_mut() {
        fields.retain(|_, v| !empty(v));
        for name in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    own
}

/// Adds to the document of an image what older versions of the API had. `ContainerConfig` says nothing, as Docker's does of images
/// that its newer builder made.
pub fn of_version(doc: &mut Value, version: ApiVersion) {
    if !version.at_least(45) {
        doc["Container"] = "".into();
        doc["ContainerConfig"] = json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
        });
    }
    line_of_version(doc, version);
}

/// The same for the line of an image in a list.
pub fn line_of_version(doc: &mut Value, version: ApiVersion) {
    if !version.at_least(44) {
        doc["VirtualSize"] = doc["Size"].clone();
    }
}

/// What there is under an image's name: here always one manifest.
pub fn manifests(objects: &[&Object<Image>], containers: Vec<String>) -> Value {
    let Some(s) = objects.iter().find_map(|o| o.status.as_ref()) else {
        return json!([]);
    };
    let mut platform = json!({});
    for (name, value) in ["os", "architecture", "variant"].iter().zip(s.platform.split('/')) {
        platform[*name] = value.into();
    }
    let size = size(objects);
    json!([{
        "ID": s.digest,
        "Descriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": s.digest,
            "size": 0,
            "platform": platform,
        },
        "Available": true,
        "Size": {"Content": size, "Total": size},
        "Kind": "image",
        "ImageData": {"Platform": platform, "Containers": containers, "Size": {"Unpacked": size}},
    }])
}

/// The image's own remark, or that of its last step.
fn comment(config: &Value) -> &str {
    let steps = config.get("history").and_then(Value::as_array);
    let all = [Some(config), steps.and_then(|h| h.last())];
    let mut texts = all.into_iter().flatten().filter_map(|v| v.get("comment")?.as_str());
    texts.find(|c| !c.is_empty()).unwrap_or_default()
}

/// The document of `GET /images/{name}/history`: newest step first. `sizes` are those of the layers, lowest first.
pub fn history(id: &str, objects: &[&Object<Image>], config: &Value, sizes: &[u64]) -> Vec<Value> {
    let steps = config
        .get("history")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let made_layer = |h: &Value| !h.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
    let known = steps.iter().filter(|h| made_layer(h)).count() == sizes.len();
    let mut left = sizes.iter();
    let of_steps: Vec<u64> = steps
        .iter()
        .map(|h| match known && made_layer(h) {
            true => left.next().copied().unwrap_or(0),
            false => 0,
        })
        .collect();
    let mut out: Vec<Value> = steps
        .iter()
        .zip(of_steps)
        .rev()
        .map(|(h, bytes)| {
            let text = |f: &str| h.get(f).and_then(Value::as_str).unwrap_or("");
            let created = text("created")
                .parse::<biga_model::Timestamp>()
                .map_or(0, |t| t.as_second());
            json!({
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": text("created_by"),
                "Tags": null,
                "Size": bytes,
                "Comment": text("comment"),
            })
        })
        .collect();
    if out.is_empty() {
        let created = created(objects).map_or(0, |t| t.as_second());
        out.push(json!({"Created": created, "CreatedBy": "", "Comment": ""}));
    }
    if let Some(top) = out.first_mut() {
        top["Id"] = id.into();
        top["Tags"] = json!(tags(objects));
        // Where steps and layers do not go together, the whole is told with the newest step.
        if !known || steps.is_empty() {
            top["Size"] = size(objects).into();
        }
    }
    out
}
