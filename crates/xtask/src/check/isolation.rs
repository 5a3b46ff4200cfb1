//! Isolation is matched in one place: one file of the agent, where a run is prepared. What differs between isolations
//! lies behind the `Runtime` trait and in the shim's workloads; a second place would be one to forget.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::{Problem, source};

/// The kinds' own methods (`as_str`, validation) are about the word itself.
const MODEL: &str = "crates/model/";
/// Where the one place may be.
const AGENT: &str = "crates/agent/";
const VARIANTS: [&str; 3] = ["Isolation::Container", "Isolation::Microvm", "Isolation::Vm"];

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let files = source::files(&root.join("crates"), &["rs"])?;
    let found: Vec<(String, usize)> = files
        .iter()
        .map(|(path, text)| (format!("crates/{}", path.display()), text))
        .filter(|(path, _)| !path.starts_with(MODEL) && !path.starts_with("crates/xtask/"))
        .flat_map(|(path, text)| matches(text).into_iter().map(move |line| (path.clone(), line)))
        .collect();
    Ok(judge(&found))
}

fn judge(found: &[(String, usize)]) -> Vec<Problem> {
    let (agent, elsewhere): (Vec<_>, Vec<_>) = found.iter().partition(|(path, _)| path.starts_with(AGENT));
    let mut problems: Vec<Problem> = elsewhere
        .iter()
        .map(|(path, line)| Problem::error(format!("{path}:{line} matches on isolation; only the agent may")))
        .collect();
    let places: BTreeSet<&str> = agent.iter().map(|(path, _)| path.as_str()).collect();
    if places.len() > 1 {
        let places: Vec<_> = agent.iter().map(|(path, line)| format!("{path}:{line}")).collect();
        let text = format!(
            "the agent matches on isolation in more than one file: {}",
            places.join(", ")
        );
        problems.push(Problem::error(text));
    }
    problems
}

/// Lines (from 1) on which a `match` with arms of `Isolation` begins. Tests at the end of a file are not looked at.
fn matches(text: &str) -> Vec<usize> {
    let code = source::without_comments(text);
    let mut found = Vec::new();
    // The last `match` seen and whether it was counted already.
    let mut last: Option<(usize, bool)> = None;
    for (number, line) in code.lines().enumerate() {
        if line.contains("#[cfg(test)]") {
            break;
        }
        if line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "match")
        {
            last = Some((number + 1, false));
        }
        let pattern = line.split_once("=>").map(|(pattern, _)| pattern);
        let arm = pattern.is_some_and(|p| VARIANTS.iter().any(|variant| p.contains(variant)));
        if arm && let Some((start, counted @ false)) = &mut last {
            found.push(*start);
            *counted = true;
        }
        if line.contains("matches!(") && line.contains("Isolation::") {
            found.push(number + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "fn pick(i: Isolation) {\n    match i {\n        Isolation::Container => a(),\n        Isolation::Microvm | Isolation::Vm => b(),\n    }\n}\n";

    #[test]
    fn a_match_is_found_once() {
        assert_eq!(matches(ONE), [2]);
        assert_eq!(matches(&format!("{ONE}{ONE}")), [2, 8]);
        assert_eq!(matches("let x = matches!(i, Isolation::Vm);"), [1]);
    }

    #[test]
    fn comments_tests_and_other_matches_are_not() {
        assert_eq!(matches("// match i { Isolation::Vm => () }"), [] as [usize; 0]);
        assert_eq!(
            matches(&format!("#[cfg(test)]\nmod tests {{ {ONE} }}")),
            [] as [usize; 0]
        );
        assert_eq!(
            matches("match x { Workload::Container(c) => c, _ => d }"),
            [] as [usize; 0]
        );
    }

    #[test]
    fn one_file_of_the_agent_may_and_nobody_else() {
        let at = |path: &str| (path.to_owned(), 1);
        assert_eq!(
            judge(&[at("crates/agent/src/pick.rs"), at("crates/agent/src/pick.rs")]),
            []
        );
        assert_eq!(
            judge(&[at("crates/agent/src/pick.rs"), at("crates/agent/src/other.rs")]).len(),
            1
        );
        assert_eq!(judge(&[at("crates/app/src/run.rs")]).len(), 1);
    }
}
