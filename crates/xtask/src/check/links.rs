//! Documents link to files that are there.

use std::path::Path;

use anyhow::Result;

use super::{Problem, source};

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for (path, text) in source::files(root, &["md"])? {
        let dir = root.join(&path).parent().unwrap_or(root).to_path_buf();
        for (line, target) in links(&text) {
            if !dir.join(target).exists() {
                let text = format!("{}:{line} links to {target}, which does not exist", path.display());
                problems.push(Problem::error(text));
            }
        }
    }
    Ok(problems)
}

/// Relative targets of `[text](target)` and `[name]: target`, with their lines (from 1), without anchors. Code is skipped.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece lies between backticks.
        for prose in line.split('`').step_by(2) {
            found.extend(
                prose
                    .split("](")
                    .skip(1)
                    .filter_map(|rest| rest.split(')').next())
                    .map(|t| (number + 1, t)),
            );
        }
        // Backticks inside the text of a link split it; look at the whole line for those.
        found.extend(
            line.split("`](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
                .map(|t| (number + 1, t)),
        );
        if let Some((_, target)) = line.strip_prefix('[').and_then(|l| l.split_once("]: ")) {
            found.push((number + 1, target.trim()));
        }
    }
    let relative = |target: &&str| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
    let mut found: Vec<_> = found
        .into_iter()
        .map(|(line, target)| (line, target.split(['#', ' ']).next().unwrap_or_default()))
        .filter(|(_, target)| relative(target))
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_code_is_not() {
        let text = "See [a](a.md) and [b](../b.md#part \"title\"), [`c`](c.rs).\n\
                    [web](https://example.org) [here](#anchor) `[x](y)`\n\
                    ```\n[no](no.md)\n```\n[ref]: docs/ref.md\n";
        let found: Vec<_> = links(text).into_iter().map(|(_, target)| target).collect();
        assert_eq!(found, ["a.md", "../b.md", "c.rs", "docs/ref.md"]);
    }

    #[test]
    fn lines_are_told() {
        assert_eq!(links("one\ntwo [x](y.md)"), [(2, "y.md")]);
    }
}
