//! Which commands and options Docker's command line has, by its own help, and which of them nobody types here.

use std::collections::BTreeSet;
use std::process::Command as Process;

use super::commands::Command;

/// What is not for an engine on Linux to answer: the first words of a command, and why.
const APART: [(&str, &str); 4] = [
    ("trust", "signs at a Notary server; the engine has no part in it"),
    ("context", "settings of the command line itself"),
    ("buildx", "a plugin"),
    ("compose", "a plugin"),
];

/// Options that are not for an engine on Linux to answer, anywhere.
const OPTIONS_APART: [&str; 9] = [
    // Windows.
    "cpu-count",
    "cpu-percent",
    "io-maxbandwidth",
    "io-maxiops",
    "credential-spec",
    // Notary; and about the command line itself.
    "disable-content-trust",
    "help",
    "orchestrator",
    // An experiment: hands over the caller's own socket and logins.
    "use-api-socket",
];

fn help(words: &[String]) -> String {
    let out = Process::new("docker")
        .args(words)
        .arg("--help")
        .output()
        .expect("docker runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Names in the list below a heading.
fn subcommands(help: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in help.lines() {
        if line.ends_with("Commands:") {
            inside = true;
        } else if !line.starts_with("  ") {
            inside = inside && line.is_empty();
        } else if let (true, Some(name)) = (inside, line.split_whitespace().next()) {
            names.push(name.trim_end_matches('*').to_string());
        }
    }
    names
}

/// Options in its list: the long name and the short one.
fn options(help: &str) -> Vec<(String, Option<char>)> {
    let mut all = Vec::new();
    for line in help.lines().filter_map(|l| l.strip_prefix("  ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (short, long) = match words[..] {
            [s, l, ..] if s.len() == 3 && s.starts_with('-') && s.ends_with(',') => (s.chars().nth(1), l),
            [l, ..] => (None, l),
            [] => continue,
        };
        if let Some(long) = long.strip_prefix("--") {
            all.push((long.to_string(), short));
        }
    }
    all
}

/// All the ways to say a command.
fn aliases(help: &str, words: &[String]) -> BTreeSet<String> {
    let mut all = BTreeSet::from([words.join(" ")]);
    if let Some((_, rest)) = help.split_once("Aliases:\n") {
        let line = rest.lines().next().unwrap_or_default();
        all.extend(
            line.split(',')
                .filter_map(|a| a.trim().strip_prefix("docker "))
                .map(Into::into),
        );
    }
    all
}

/// What is typed of a command: each of its uses, up to where the shell takes over again.
fn uses<'a>(commands: &'a [Command], aliases: &'a BTreeSet<String>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for line in commands.iter().map(|c| c.line.as_str()) {
        for (at, _) in line.match_indices("docker ") {
            let rest = &line[at + "docker ".len()..];
            let named = |a: &String| {
                rest.strip_prefix(a.as_str())
                    .is_some_and(|r| !r.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
            };
            if aliases.iter().any(named) {
                all.push(rest);
            }
        }
    }
    all
}

fn typed(uses: &[&str], long: &str, short: Option<char>) -> bool {
    uses.iter().flat_map(|u| u.split_whitespace()).any(|word| {
        let named = word
            .strip_prefix("--")
            .is_some_and(|w| w.split('=').next() == Some(long));
        let brief = short.is_some_and(|s| {
            word.strip_prefix('-')
                .is_some_and(|w| !w.starts_with('-') && w.chars().all(char::is_alphabetic) && w.contains(s))
        });
        named || brief
    })
}

fn walk(commands: &[Command], words: &[String], missing: &mut Vec<String>) {
    let help = help(words);
    let below = subcommands(&help);
    for name in &below {
        let more = [words, std::slice::from_ref(name)].concat();
        if !APART.iter().any(|(a, _)| *a == more[0]) {
            walk(commands, &more, missing);
        }
    }
    if !below.is_empty() {
        return;
    }
    let mut aliases = aliases(&help, words);
    // They have the same options.
    let above = &words[..words.len() - 1];
    let made = words.last().is_some_and(|w| w == "run" || w == "create");
    if made && (above.is_empty() || above == ["container"]) {
        aliases.extend(["run".to_string(), "create".to_string()]);
    }
    let uses = uses(commands, &aliases);
    if uses.is_empty() {
        missing.push(format!("docker {}", words.join(" ")));
        return;
    }
    // What a swarm has is asked for once each: without one there is nothing that options could change.
    let swarm = ["swarm", "node", "service", "secret", "config", "stack", "plugin"];
    if swarm.contains(&words[0].as_str()) {
        return;
    }
    for (long, short) in options(&help) {
        if !OPTIONS_APART.contains(&long.as_str()) && !typed(&uses, &long, short) {
            missing.push(format!("docker {} --{long}", words.join(" ")));
        }
    }
}

/// Commands and options that are in none of the files.
pub(super) fn missing(commands: &[Command]) -> Vec<String> {
    let mut missing = Vec::new();
    walk(commands, &[], &mut missing);
    missing
}
