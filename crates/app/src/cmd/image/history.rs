//! `biga image history`, `inspect` and `referrers`: what an image is made of, and what is said of it.

use biga_model::{Memory, Reference};
use biga_wire::http::{ImageDetail, ImageReferrer};
use serde_json::{Value, json};

use super::{HistoryArgs, InspectImageArgs, ReferrersArgs};
use crate::cmd::{inspect, login};
use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::{Format, OutputArgs, TextTable, emit, json, line, note, yaml};

/// Longest command shown without `--no-trunc`.
const SHORT: usize = 60;

/// `history`.
pub async fn history(cx: &Context, args: HistoryArgs) -> anyhow::Result<Code> {
    let o = cx.image(&args.image).await?;
    let detail = cx.client.image_detail(&o.spec.reference).await?;
    if detail.disk.is_some() {
        note(format!("{} has no layers: it is a disk", familiar(&o.spec.reference)));
    }
    let steps = steps(&detail);
    if print_as_document(&steps, &args.output)? {
        return Ok(Code::OK);
    }
    let mut t = TextTable::new(["Layer", "Created", "Size", "Created by", "Comment"]);
    for s in &steps {
        let text = |f: &str| s[f].as_str().unwrap_or_default().to_owned();
        let cut = |text: String, len: usize| match text.char_indices().nth(len) {
            Some((end, _)) if !args.no_trunc => format!("{}…", &text[..end]),
            _ => text,
        };
        let digest = text("layer");
        let digest = match args.no_trunc {
            true => digest,
            false => cut(digest.trim_start_matches("sha256:").to_owned(), 12)
                .trim_end_matches('…')
                .to_owned(),
        };
        let size = s["size"].as_u64().map(|n| Memory(n).human()).unwrap_or_default();
        t.row([
            digest,
            text("created"),
            size,
            cut(text("createdBy"), SHORT),
            text("comment"),
        ]);
    }
    t.print()?;
    Ok(Code::OK)
}

/// The steps an image was made by, the newest first, each with the layer it made. Layers that no step tells of come first.
fn steps(detail: &ImageDetail) -> Vec<Value> {
    let none = Vec::new();
    let history = detail.config["history"].as_array().unwrap_or(&none);
    let mut layers = detail.layers.iter();
    let layer = |l: &biga_wire::http::ImageLayer| json!({"layer": l.diff_id, "blob": l.digest, "size": l.size});
    let mut out = Vec::new();
    for h in history {
        let mut step = match h["empty_layer"].as_bool() {
            Some(true) => json!({}),
            _ => layers.next().map_or(json!({}), layer),
        };
        let names = [
            ("created", "created"),
            ("created_by", "createdBy"),
            ("author", "author"),
            ("comment", "comment"),
        ];
        for (theirs, ours) in names {
            if let Some(text) = h[theirs].as_str().filter(|t| !t.is_empty()) {
                step[ours] = text.into();
            }
        }
        out.push(step);
    }
    out.extend(layers.map(layer));
    out.reverse();
    out
}

/// Prints a list as JSON, YAML or names where that was asked for.
fn print_as_document(all: &[Value], output: &OutputArgs) -> anyhow::Result<bool> {
    match output.get() {
        Format::Json => emit(&json(all)?)?,
        Format::Yaml => emit(&yaml(&all)?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// `inspect`.
pub async fn inspect_image(cx: &Context, args: InspectImageArgs) -> anyhow::Result<Code> {
    let with_detail = args.detail;
    inspect::inspect(args.inspect, |name| async move {
        let o = cx.image(&name).await?;
        let mut document = serde_json::to_value(&o).unwrap_or_default();
        if with_detail {
            let detail = cx.client.image_detail(&o.spec.reference).await?;
            document["detail"] = serde_json::to_value(detail).unwrap_or_default();
        }
        Ok(document)
    })
    .await
}

/// `referrers`.
pub async fn referrers(cx: &Context, args: ReferrersArgs) -> anyhow::Result<Code> {
    let o = cx.image(&args.image).await?;
    let name = &o.spec.reference;
    let found: Vec<ImageReferrer> = match args.local {
        true => cx.client.image_detail(name).await?.referrers,
        false => {
            let reference: Reference = name.parse().map_err(|e: String| fail(Code::INVALID, e))?;
            let auth = login::kept(&reference.registry).await?;
            cx.client.image_referrers(name, auth.as_deref()).await?
        }
    };
    let documents = found.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if print_as_document(&documents, &args.output)? {
        return Ok(Code::OK);
    }
    if args.output.get() == Format::Name {
        found.iter().try_for_each(|r| line(&r.digest))?;
        return Ok(Code::OK);
    }
    let mut t = TextTable::new(["Digest", "Type", "Subject", "Tag"]);
    for r in &found {
        let subject: String = r.subject.chars().take(19).collect();
        t.row([
            &r.digest,
            &r.artifact_type,
            &subject,
            r.tag.as_deref().unwrap_or_default(),
        ]);
    }
    t.print()?;
    Ok(Code::OK)
}

#[cfg(test)]
mod tests {
    use biga_wire::http::ImageLayer;

    use super::*;

    #[test]
    fn steps_and_layers_go_together() {
        let layer = |n: u64| ImageLayer {
            diff_id: format!("sha256:{n}"),
            size: n,
            ..ImageLayer::default()
        };
        let detail = ImageDetail {
            layers: vec![layer(1), layer(2), layer(3)],
            config: json!({"history": [
                {"created_by": "ADD base", "created": "2024-01-01T00:00:00Z"},
                {"created_by": "ENV A=b", "empty_layer": true},
                {"created_by": "RUN x", "comment": "c"},
            ]}),
            ..ImageDetail::default()
        };
        let all = steps(&detail);
        let seen: Vec<_> = all
            .iter()
            .map(|s| (s["size"].as_u64(), s["createdBy"].as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (Some(3), None),
                (Some(2), Some("RUN x")),
                (None, Some("ENV A=b")),
                (Some(1), Some("ADD base"))
            ]
        );
        assert!(steps(&ImageDetail::default()).is_empty());
    }
}
