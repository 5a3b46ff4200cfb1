//! `.dockerignore`: what of a context is not sent.
//!
//! Rules are looked at in order and the last that fits decides; `!` takes back. A rule that fits a directory fits all in it.

use crate::glob::Pattern;

/// Most lines.
const MAX_LINES: usize = 10_000;

/// The rules of one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    back: bool,
    text: String,
    pattern: Pattern,
}

impl Ignore {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Ignore, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if i >= MAX_LINES {
                return Err(format!("the .dockerignore has more than {MAX_LINES} lines"));
            }
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (back, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if line.is_empty() {
                if back {
                    return Err(format!(
                        "line {} of .dockerignore: illegal exclusion pattern: \"!\"",
                        i + 1
                    ));
                }
                continue;
            }
            let text = clean(line);
            let pattern = Pattern::of_ignore(&text)
                .ok_or_else(|| format!("line {} of .dockerignore: syntax error in pattern", i + 1))?;
            rules.push(Rule { back, text, pattern });
        }
        Ok(Ignore { rules })
    }

    /// Whether a path (relative, with slashes, without one in front) stays out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut out = false;
        for rule in &self.rules {
            // One that says what is so anyway need not be tried.
            if rule.back == out && parents(path).any(|p| rule.pattern.matches(p)) {
                out = !rule.back;
            }
        }
        out
    }

    /// Whether all in an excluded directory stays out, so that nobody has to look into it.
    pub fn excludes_all_in(&self, dir: &str) -> bool {
        let inside = format!("{dir}/");
        // One that takes back may fit in there where it begins like it, or begins with a pattern.
        let may_fit = |r: &Rule| {
            let plain = r.text.split(['*', '?', '[', '\\']).next().unwrap_or_default();
            plain.starts_with(&inside) || inside.starts_with(plain) && plain.len() < r.text.len() || dir == r.text
        };
        self.excludes(dir) && !self.rules.iter().any(|r| r.back && may_fit(r))
    }

    /// The rules, one a line as they were read.
    pub fn patterns(&self) -> Vec<String> {
        let back = |r: &Rule| if r.back { "!" } else { "" };
        self.rules.iter().map(|r| format!("{}{}", back(r), r.text)).collect()
    }

    /// Whether it has no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// A path and the directories above it, longest last.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(i, _)| i).chain([path.len()]);
    ends.map(|end| &path[..end])
}

/// As Go's `filepath.Clean`, without a slash in front.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => ".".into(),
        false => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_rules() {
        let i = Ignore::parse(
            "# no\n*/temp*\n*.md\n!README*.md\nREADME-secret.md\n /build/ \n**/*.o\nkeep/*\n!keep/this\n",
        )
        .unwrap();
        for (path, out) in [
            ("a/temporary", true),
            ("a/temporary/file", true),
            ("a/b/temp", false),
            ("x.md", true),
            ("README.md", false),
            ("README-secret.md", true),
            ("build", true),
            ("build/x/y", true),
            ("rebuild", false),
            ("a/b/c.o", true),
            ("c.o", true),
            ("keep", false),
            ("keep/that", true),
            ("keep/this", false),
        ] {
            assert_eq!(i.excludes(path), out, "{path}");
        }
        assert!(i.excludes_all_in("build"));
        let all = Ignore::parse("*\n!src/**\n!x").unwrap();
        assert!(all.excludes("a/b") && !all.excludes("src/main.rs") && !all.excludes("x"));
        assert!(!all.excludes_all_in("src") && all.excludes_all_in("target"), "{all:?}");
        assert!(Ignore::parse("!").is_err() && Ignore::parse("[").is_err());
        assert!(Ignore::parse("\n#x\n").unwrap().is_empty());
    }

    #[test]
    fn the_order_decides() {
        let i = Ignore::parse("a\n!a/b\na/b/c").unwrap();
        assert!(i.excludes("a/x") && !i.excludes("a/b") && i.excludes("a/b/c") && !i.excludes("a/b/d"));
        assert_eq!(clean("/a//./b/../c/"), "a/c");
        assert_eq!(clean("../x"), "../x");
    }

    proptest! {
        #[test]
        fn whole_directories_hold_nothing_that_is_sent(
            lines in proptest::collection::vec("!?[ab*?/]{1,6}", 0..6),
            dir in "[ab](/[ab])?",
            below in "[ab](/[ab]){0,2}",
        ) {
            if let Ok(i) = Ignore::parse(&lines.join("\n"))
                && i.excludes_all_in(&dir)
            {
                let path = format!("{}/{}", dir, below);
                prop_assert!(i.excludes(&path), "{lines:?} {path}");
            }
        }

        #[test]
        fn nothing_panics(text in "[!a*\\[\\]/\\\\\n#. ]{0,60}", path in "[a/.]{0,20}") {
            if let Ok(i) = Ignore::parse(&text) {
                let _ = i.excludes(&path);
            }
        }
    }
}
