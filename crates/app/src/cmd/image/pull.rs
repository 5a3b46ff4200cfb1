//! `biga image pull`.

use biga_client::{ErrorKind, Patch};
use biga_model::{Image, ImagePhase, ImageSpec, Object, Reference};
use serde_json::json;

use super::push::Shown;
use crate::cmd::login;
use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::line;
use crate::wait::PullBar;

/// Arguments of `image pull`.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// Not the node's own platform, as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Also fetch what refers to it: signatures, bills of materials
    #[arg(long)]
    referrers: bool,
    /// Print nothing but the reference
    #[arg(short = 'q', long)]
    quiet: bool,
    /// What to fetch, as busybox:latest
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Asks the node to have the image, and follows it until it has.
pub async fn pull(cx: &Context, args: PullArgs) -> anyhow::Result<Code> {
    let reference: Reference = args.image.parse().map_err(|e: String| fail(Code::USAGE, e))?;
    // The node knows its own logins. Those of this user, and what an Image cannot say, go along with a call.
    let auth = login::kept(&reference.registry).await?;
    if auth.is_some() || args.referrers {
        return pull_by_call(cx, &args, &reference, auth.as_deref()).await;
    }
    let o = ask(cx, &reference, args.platform).await?;
    let wanted = o.spec.pull_request;
    let mut bar = (!args.quiet).then(|| PullBar::new(&args.image));
    let done = cx
        .api::<Image>()
        .wait_for(o.name(), |seen| {
            let Some(s) = seen else { return Some(None) };
            if let Some(b) = &mut bar {
                b.show(s);
            }
            let status = s.status_or_default();
            let settled = matches!(status.phase, ImagePhase::Ready | ImagePhase::Failed);
            (settled && status.observed_pull >= wanted).then(|| Some(s.clone()))
        })
        .await?;
    drop(bar);
    let name = familiar(&args.image);
    let Some(done) = done else {
        return Err(fail(Code::NOT_FOUND, format!("image {name} was removed meanwhile")));
    };
    let s = done.status_or_default();
    if s.phase == ImagePhase::Failed {
        let why = if s.message.is_empty() { s.reason } else { s.message };
        return Err(fail(Code::FAILED, format!("cannot pull {name}: {why}")));
    }
    line(&name)?;
    Ok(Code::OK)
}

async fn pull_by_call(
    cx: &Context,
    args: &PullArgs,
    reference: &Reference,
    auth: Option<&str>,
) -> anyhow::Result<Code> {
    let mut shown = Shown::default();
    let name = reference.to_string();
    let pulling = cx
        .client
        .image_pull(&name, args.platform.as_deref(), args.referrers, auth, |p| {
            if !args.quiet {
                shown.show(p);
            }
        })
        .await;
    drop(shown);
    let name = familiar(&args.image);
    pulling.map_err(|e| fail(Code::FAILED, format!("cannot pull {name}: {e}")))?;
    line(&name)?;
    Ok(Code::OK)
}

/// Creates the `Image`, or raises the pull request of the one that is there.
async fn ask(cx: &Context, reference: &Reference, platform: Option<String>) -> anyhow::Result<Object<Image>> {
    let api = cx.api::<Image>();
    let spec = ImageSpec {
        reference: reference.to_string(),
        platform: platform.clone(),
        pull_request: 1,
    };
    let mut o = Object::<Image>::new(reference.object_name(), spec);
    o.metadata.namespace = None;
    match api.create(&o).await {
        Err(e) if e.kind == ErrorKind::AlreadyExists => {}
        other => return Ok(other?),
    }
    let now = api.get(o.name()).await?;
    let mut spec = json!({"pullRequest": now.spec.pull_request + 1});
    if let Some(p) = platform {
        spec["platform"] = p.into();
    }
    Ok(api.patch(o.name(), &Patch::Merge(json!({ "spec": spec }))).await?)
}
