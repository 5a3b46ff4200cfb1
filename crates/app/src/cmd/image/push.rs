//! `biga image push`.

use biga_model::Reference;
use biga_wire::http::Progress;
use indicatif::ProgressBar;

use crate::cmd::login;
use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::line;
use crate::wait;

/// Arguments of `image push`.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Also send what was fetched with it and refers to it: signatures, bills of materials
    #[arg(long)]
    referrers: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Under this name, as registry.example.com/app:1
    #[arg(value_name = "AS")]
    target: Option<String>,
}

/// Sends an image to a registry.
pub async fn push(cx: &Context, args: PushArgs) -> anyhow::Result<Code> {
    let o = cx.image(&args.image).await?;
    let target = args.target.as_deref().unwrap_or(&o.spec.reference);
    let reference: Reference = target.parse().map_err(|e: String| fail(Code::USAGE, e))?;
    let auth = login::kept(&reference.registry).await?;
    let mut shown = Shown::default();
    let result = cx
        .client
        .image_push(&o.spec.reference, target, args.referrers, auth.as_deref(), |p| {
            shown.show(p);
        })
        .await?;
    drop(shown);
    let digest = result.images.first().map(|i| i.digest.as_str()).unwrap_or_default();
    line(format!("{} {digest}", familiar(target)).trim_end())?;
    Ok(Code::OK)
}

/// One bar over all parts of a long call.
#[derive(Default)]
pub struct Shown {
    bar: Option<ProgressBar>,
    parts: std::collections::BTreeMap<String, (u64, u64)>,
}

impl Shown {
    /// Shows a step.
    pub fn show(&mut self, p: &Progress) {
        self.parts.insert(p.part.clone(), (p.done, p.total.max(p.done)));
        let bar = self.bar.get_or_insert_with(|| wait::begin(&p.action));
        bar.set_message(p.action.clone());
        bar.set_length(self.parts.values().map(|(_, t)| t).sum());
        bar.set_position(self.parts.values().map(|(d, _)| d).sum());
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(b) = self.bar.take() {
            b.finish_and_clear();
        }
    }
}
