//! Verbs that take several names.

use crate::exit::Code;
use crate::output::{line, note};

/// Several names.
#[derive(Debug, Clone, clap::Args)]
pub struct Names {
    /// Names, or beginnings of uids (four digits or more)
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Calls `f` for each name and prints what it gives; a failure does not stop the others. The code is that of the first failure.
pub async fn each<F>(names: &[String], mut f: impl FnMut(String) -> F) -> anyhow::Result<Code>
where
    F: Future<Output = anyhow::Result<String>>,
{
    let mut code = Code::OK;
    for name in names {
        match f(name.clone()).await {
            Ok(text) => line(text)?,
            Err(e) => {
                note(format!("biga: {e:#}"));
                if code == Code::OK {
                    code = Code::of_error(&e);
                }
            }
        }
    }
    Ok(code)
}
