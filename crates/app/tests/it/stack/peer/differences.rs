//! `docs/docker-differences.md`: blocks of `diff` with commands (`$ …`) and what is different, each below its reason.

use std::collections::BTreeMap;

/// What is different, by command.
pub(super) fn parse(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```diff" => inside = true,
            "```" => inside = false,
            _ if !inside || line.is_empty() => continue,
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    keep(&mut all, current.replace((command.into(), String::new())));
                } else if let Some((_, diff)) = &mut current {
                    diff.push_str(line);
                    diff.push('\n');
                }
            }
        }
    }
    keep(&mut all, current);
    all
}

fn keep(all: &mut BTreeMap<String, String>, one: Option<(String, String)>) {
    if let Some((command, diff)) = one {
        let before = all.insert(command.clone(), diff);
        assert!(before.is_none(), "listed twice: {command}");
    }
}
