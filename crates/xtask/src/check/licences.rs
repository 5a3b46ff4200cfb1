//! Everything that is linked may be given away under Apache-2.0.

use std::path::Path;

use anyhow::Result;

use super::{Problem, metadata};

const ALLOWED: [&str; 19] = [
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "NCSA",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "WTFPL",
    "Zlib",
    // As a BSD licence, of the one library.
    "bzip2-1.0.6",
];

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let metadata = metadata::load(root, true)?;
    Ok(metadata
        .packages
        .iter()
        .filter_map(|p| judge(&p.name, &p.version, p.license.as_deref()))
        .collect())
}

fn judge(name: &str, version: &str, license: Option<&str>) -> Option<Problem> {
    let Some(license) = license else {
        return Some(Problem::error(format!("{name} {version} names no licence")));
    };
    match allowed(license) {
        Some(true) => None,
        Some(false) => Some(Problem::error(format!(
            "{name} {version} is under {license}, which is not on the list"
        ))),
        None => Some(Problem::error(format!(
            "{name} {version}: {license:?} is no licence expression"
        ))),
    }
}

/// Whether an SPDX expression can be met by what is allowed; `None` where it is none.
fn allowed(expression: &str) -> Option<bool> {
    // Before SPDX expressions, cargo took `A/B` for a choice.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let result = parser.any()?;
    parser.words.is_empty().then_some(result)
}

struct Parser<'a> {
    words: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn any(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.take("OR") {
            result |= self.all()?;
        }
        Some(result)
    }

    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("AND") {
            result &= self.one()?;
        }
        Some(result)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let result = self.any()?;
            return self.take(")").then_some(result);
        }
        let (id, rest) = self.words.split_first()?;
        if matches!(*id, "OR" | "AND" | "WITH" | ")") {
            return None;
        }
        self.words = rest;
        if self.take("WITH") {
            // An exception only ever allows more.
            let (_, rest) = self.words.split_first()?;
            self.words = rest;
        }
        Some(ALLOWED.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        for (expression, want) in [
            ("MIT", Some(true)),
            ("GPL-3.0-only", Some(false)),
            ("MIT OR GPL-3.0-only", Some(true)),
            ("MIT AND GPL-3.0-only", Some(false)),
            ("GPL-2.0-only OR MIT AND ISC", Some(true)),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", Some(true)),
            ("Apache-2.0 WITH LLVM-exception", Some(true)),
            ("GPL-3.0-only WITH Classpath-exception-2.0", Some(false)),
            ("MIT/Apache-2.0", Some(true)),
            ("ISC AND (Apache-2.0 OR ISC) AND LGPL-3.0", Some(false)),
            ("", None),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT MIT", None),
            ("AND MIT", None),
        ] {
            assert_eq!(allowed(expression), want, "{expression:?}");
        }
    }

    #[test]
    fn a_package_without_a_licence_is_refused() {
        assert!(judge("x", "1.0.0", None).is_some());
        assert!(judge("x", "1.0.0", Some("MIT")).is_none());
    }
}
