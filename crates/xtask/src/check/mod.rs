//! The rules. A rule reads the repository and returns what breaks it; it never changes anything.

mod banned;
mod isolation;
mod layers;
mod licences;
mod links;
mod metadata;
mod modules;
mod sizes;
mod source;
mod unsafety;

use std::path::Path;

use anyhow::{Result, bail};

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Warnings are printed and do not fail the check.
    pub warning: bool,
    /// Where, what, and what to do.
    pub text: String,
}

impl Problem {
    fn error(text: impl Into<String>) -> Problem {
        Problem {
            warning: false,
            text: text.into(),
        }
    }

    fn warning(text: impl Into<String>) -> Problem {
        Problem {
            warning: true,
            text: text.into(),
        }
    }
}

type Rule = fn(&Path) -> Result<Vec<Problem>>;

const RULES: [(&str, Rule); 8] = [
    ("layers", layers::check),
    ("sizes", sizes::check),
    ("isolation", isolation::check),
    ("unsafe", unsafety::check),
    ("modules", modules::check),
    ("licences", licences::check),
    ("banned", banned::check),
    ("links", links::check),
];

/// Applies the named rules, or all.
pub fn run(root: &Path, wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|w| !RULES.iter().any(|(name, _)| name == w)) {
        bail!(
            "no rule {unknown}; there are {}",
            RULES.map(|(name, _)| name).join(", ")
        );
    }
    let mut errors = 0;
    for (name, rule) in RULES
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        let problems = rule(root)?;
        for problem in &problems {
            eprintln!(
                "{}: {name}: {}",
                if problem.warning { "warning" } else { "error" },
                problem.text
            );
        }
        let broken = problems.iter().filter(|p| !p.warning).count();
        errors += broken;
        println!(
            "{name:<10} {}",
            if broken == 0 {
                "ok".to_owned()
            } else {
                format!("{broken} broken")
            }
        );
    }
    if errors > 0 {
        bail!("{errors} breaches of the repository's rules");
    }
    Ok(())
}
