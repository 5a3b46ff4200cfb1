//! Settings and policy of images, as they stand in the daemon's files.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use biga_image::policy::PolicyDocument;
use biga_image::{Options, Policy, Settings};
use biga_model::Memory;
use serde::de::DeserializeOwned;

/// Read where no other file is named, and need not be there.
const SETTINGS: &str = "/etc/biga/images.yaml";
/// The same for the policy.
const POLICY: &str = "/etc/biga/policy.yaml";

/// Options out of both files; a budget that was given by itself stands over that of the settings.
pub fn options(settings: Option<&Path>, policy: Option<&Path>, budget: Option<Memory>) -> anyhow::Result<Options> {
    let (document, path) = read::<Settings>(settings, SETTINGS)?;
    let mut document = document.unwrap_or_default();
    document.disk_budget = budget.or(document.disk_budget);
    let mut options = document.options(&path)?;
    if options.credentials.is_none() {
        options.credentials = docker_config();
    }
    if let (Some(document), path) = read::<PolicyDocument>(policy, POLICY)? {
        options.policy = Policy::new(document, &path)?;
    }
    Ok(options)
}

/// A file that was named must be there.
fn read<T: DeserializeOwned>(named: Option<&Path>, default: &str) -> anyhow::Result<(Option<T>, PathBuf)> {
    let path = std::path::absolute(named.unwrap_or(Path::new(default)))?;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok((None, path)),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    if text
        .lines()
        .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
    {
        return Ok((None, path));
    }
    let document = serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    Ok((Some(document), path))
}

/// Where Docker keeps the logins of whoever runs the daemon.
pub fn docker_config() -> Option<PathBuf> {
    let own = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = own.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(dir.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(settings: &str, policy: &str) -> anyhow::Result<Options> {
        with_budget(settings, policy, None)
    }

    fn with_budget(settings: &str, policy: &str, budget: Option<&str>) -> anyhow::Result<Options> {
        let budget = budget.map(|b| b.parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let (s, p) = (dir.path().join("images.yaml"), dir.path().join("policy.yaml"));
        std::fs::write(&s, settings).unwrap();
        std::fs::write(&p, policy).unwrap();
        options(Some(&s), Some(&p), budget)
    }

    #[test]
    fn files_are_read() {
        let o = with(
            "registries:\n  docker.io:\n    mirrors: [\"https://mirror.example.org\"]\ndiskBudget: 50Gi\ncredentials: auth.json\n",
            "# only ours\ndefault: reject\nrules:\n  registry.example.org/team: accept\n",
        )
        .unwrap();
        assert_eq!((o.disk_budget, o.mirrors.len()), (Some(50 << 30), 1));
        assert!(o.credentials.unwrap().ends_with("auth.json"));
        assert!(with("# nothing\n", "\n").unwrap().disk_budget.is_none());
        // What the command line says stands over the file.
        for settings in ["diskBudget: 50Gi\n", "# nothing\n"] {
            let o = with_budget(settings, "", Some("2Gi")).unwrap();
            assert_eq!(o.disk_budget, Some(2u64 << 30), "{settings}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (settings, policy, word) in [
            ("diskBuget: 1Gi", "", "images.yaml"),
            ("", "rules: 5", "policy.yaml"),
            ("", "default: {signedBy: {keys: [none.pub]}}", "none.pub"),
        ] {
            let e = format!("{:#}", with(settings, policy).unwrap_err());
            assert!(e.contains(word), "{e}");
        }
        assert!(options(Some(Path::new("/nonexistent/images.yaml")), None, None).is_err());
    }
}
