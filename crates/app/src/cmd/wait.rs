//! `biga wait`.

use crate::cmd::many::{Names, each};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::wait;

/// Waits until each instance has ended and prints its exit code.
pub async fn wait(cx: &Context, names: Names) -> anyhow::Result<Code> {
    each(&names.names, |name| async move {
        let o = cx.instance(&name).await?;
        match wait::ended(cx, &o).await? {
            Some(s) => Ok(s
                .status_or_default()
                .exit_code
                .unwrap_or(Code::RUN_FAILED.0.into())
                .to_string()),
            None => Err(fail(
                Code::NOT_FOUND,
                format!("instance {} was removed before its exit code was seen", o.name()),
            )),
        }
    })
    .await
}
