//! No file grows beyond what one can hold in the head. There are no exceptions: split it.

use std::path::Path;

use anyhow::Result;

use super::{Problem, source};

const LIMIT: usize = 800;
const WARN: usize = 600;

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let files = source::files(root, &["rs", "ts", "svelte"])?;
    Ok(files
        .iter()
        .filter_map(|(path, text)| judge(&path.display().to_string(), text.lines().count()))
        .collect())
}

fn judge(path: &str, lines: usize) -> Option<Problem> {
    match lines {
        n if n > LIMIT => Some(Problem::error(format!(
            "{path} has {n} lines, more than {LIMIT}: split it"
        ))),
        n if n > WARN => Some(Problem::warning(format!(
            "{path} has {n} lines; think of splitting it before {LIMIT}"
        ))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_inclusive() {
        assert_eq!(judge("a.rs", 600), None);
        assert!(judge("a.rs", 601).is_some_and(|p| p.warning));
        assert!(judge("a.rs", 800).is_some_and(|p| p.warning));
        assert!(judge("a.rs", 801).is_some_and(|p| !p.warning));
    }
}
