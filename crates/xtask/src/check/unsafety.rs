//! `unsafe` only in `sys`, each block with a `SAFETY:` comment; every other crate forbids it by the workspace's lints.

use std::path::Path;

use anyhow::Result;

use super::{Problem, source};

/// The keyword, apart from what follows it in code, so that this file holds none of what it looks for.
const UNSAFE: &str = "unsafe";
const SYS: &str = "crates/sys/";
/// A comment may stand so many lines above the block it explains.
const REACH: usize = 8;

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for (path, text) in source::files(root, &["rs"])? {
        let path = path.display().to_string();
        if path.starts_with(SYS) {
            problems.extend(
                unexplained(&text)
                    .into_iter()
                    .map(|line| Problem::error(format!("{path}:{line} is unsafe without a SAFETY: comment above it"))),
            );
        } else if !path.starts_with("crates/xtask/") {
            problems.extend(
                unsafe_lines(&text)
                    .into_iter()
                    .map(|line| Problem::error(format!("{path}:{line} is unsafe; put a safe wrapper into crates/sys"))),
            );
        }
    }
    for (path, text) in source::files(&root.join("crates"), &["toml"])? {
        let whole = path.components().count() == 2 && path.ends_with("Cargo.toml");
        if whole && !path.starts_with("sys") && !text.contains("[lints]\nworkspace = true") {
            let text = format!("crates/{} does not take the workspace's lints", path.display());
            problems.push(Problem::error(text));
        }
    }
    Ok(problems)
}

/// Lines (from 1) that open something unsafe.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let code = source::without_comments(text);
    let opens = |line: &str| {
        ["{", "fn", "impl", "extern"]
            .iter()
            .any(|what| line.contains(&format!("{UNSAFE} {what}")))
    };
    code.lines()
        .enumerate()
        .filter(|(_, line)| opens(line))
        .map(|(n, _)| n + 1)
        .collect()
}

fn unexplained(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let explained = |line: usize| {
        let above = &lines[line.saturating_sub(1 + REACH)..line];
        above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"))
    };
    unsafe_lines(text)
        .into_iter()
        .filter(|line| !explained(*line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_above_or_beside_explains() {
        let none = [] as [usize; 0];
        assert_eq!(
            unexplained(&format!("// SAFETY: the pointer is ours\n{UNSAFE} {{ f() }}")),
            none
        );
        assert_eq!(
            unexplained(&format!("{UNSAFE} {{ f() }} // SAFETY: no arguments")),
            none
        );
        assert_eq!(unexplained(&format!("fn f() {{\n    {UNSAFE} {{ g() }}\n}}")), [2]);
    }

    #[test]
    fn words_in_comments_are_not_code() {
        let none = [] as [usize; 0];
        assert_eq!(unsafe_lines(&format!("// {UNSAFE} {{ f() }}\nlet x = 1;")), none);
        assert_eq!(unsafe_lines("unsafe_code = \"forbid\""), none);
    }

    #[test]
    fn all_that_opens_it_is_found() {
        for what in ["{ f() }", "fn f()", "impl Send for X", "extern \"C\" {"] {
            assert_eq!(unsafe_lines(&format!("{UNSAFE} {what}")), [1], "{what}");
        }
    }
}
