//! The files of commands: a line each, as a user types it in a shell.
//!
//! | a line begins with | |
//! |---|---|
//! | `#` | a remark |
//! | `shell:` | what only prepares; it has to succeed, and nobody compares what it says |
//! | `until:` | is tried until it succeeds |
//! | `clean` | all containers, networks and volumes are removed |
//! | `sort:` | the order of the answer's lines does not count |
//! | `json:` | the answer is compared field by field |
//! | anything else | the answer is compared line by line |
//!
//! `$T` is a directory of the engine's own, below which `work` is where commands run.

use std::path::Path;

/// The files, in the order in which they are typed.
const FILES: [&str; 3] = ["images", "containers", "things"];

/// How the answer of a command is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Sorted,
    Json,
    /// Not at all: it prepares what comes after it.
    Prepares,
    /// Not at all: it is tried until it succeeds.
    Awaits,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) form: Form,
    pub(super) line: String,
}

const CLEAN: &str = "for c in $(docker ps -aq); do docker rm -fv $c; done >/dev/null; for v in $(docker volume ls -q); do docker volume rm $v; done >/dev/null; docker network prune -f >/dev/null";

fn command(line: &str) -> Command {
    let forms = [
        ("shell: ", Form::Prepares),
        ("until: ", Form::Awaits),
        ("sort: ", Form::Sorted),
        ("json: ", Form::Json),
    ];
    for (prefix, form) in forms {
        if let Some(line) = line.strip_prefix(prefix) {
            return Command {
                form,
                line: line.trim().into(),
            };
        }
    }
    match line {
        "clean" => Command {
            form: Form::Prepares,
            line: CLEAN.into(),
        },
        _ => Command {
            form: Form::Lines,
            line: line.into(),
        },
    }
}

/// Every command, in order.
pub(super) fn all() -> Vec<Command> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stack/peer");
    let read = |f: &&str| std::fs::read_to_string(dir.join(f).with_extension("commands")).expect("a file of commands");
    let text: String = FILES.iter().map(read).collect();
    let lines = text.lines().map(str::trim);
    let all: Vec<Command> = lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(command)
        .collect();
    for (n, c) in all.iter().enumerate() {
        // The file of differences names a command by its line. One that is typed twice says which it is by a remark.
        let compared = !matches!(c.form, Form::Prepares | Form::Awaits);
        let again = all[..n].iter().any(|o| o.line == c.line);
        assert!(!compared || !again, "typed twice: {}", c.line);
    }
    all
}
