//! The files of the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", "node_modules", ".git", "dist-web"];

/// Every file with one of these endings, in order, with its path below `root`.
pub fn files(root: &Path, endings: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !FOREIGN.contains(&name.as_str()) {
                left.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| endings.iter().any(|w| e == *w)) {
                let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
                found.push((path.strip_prefix(root)?.to_path_buf(), text));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Rust with comments blanked out (lines keep their numbers); strings stay. Enough to look for words in code.
pub fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| match line.find("//") {
            // `://` stands in addresses inside strings.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}
