//! The verbs that scripts call often, read without describing all others.
//!
//! To read a command line clap first builds what it knows of every verb, which takes longer than most verbs do. Where the
//! first word is one of these, only that verb is built. Whatever does not go smoothly here, help and mistakes among it, is
//! left to the whole command line: what users read comes from one place.

use std::ffi::OsString;

use clap::{Args, Parser};

use super::{Cli, Command, Global};

#[derive(Debug, Parser)]
#[command(name = "biga", no_binary_name = true, disable_help_flag = true)]
struct One<T: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    args: T,
}

/// Reads the words after the verb; `None` is no error, and says nothing.
fn one<T: Args>(words: &[OsString], command: impl FnOnce(T) -> Command) -> Option<Cli> {
    let One { global, args } = One::try_parse_from(words).ok()?;
    Some(Cli {
        global,
        command: command(args),
    })
}

/// Reads a command line whose first word is the program and whose second is a frequent verb.
pub(super) fn parse(words: &[OsString]) -> Option<Cli> {
    let (verb, rest) = words.get(1..)?.split_first()?;
    match verb.to_str()? {
        "run" => one(rest, |a| Command::Run(Box::new(a))),
        "create" => one(rest, |a| Command::Create(Box::new(a))),
        "start" => one(rest, Command::Start),
        "stop" => one(rest, Command::Stop),
        "kill" => one(rest, Command::Kill),
        "rm" => one(rest, Command::Rm),
        "ps" | "ls" => one(rest, Command::Ps),
        "inspect" => one(rest, Command::Inspect),
        "logs" => one(rest, Command::Logs),
        "exec" => one(rest, Command::Exec),
        "wait" => one(rest, Command::Wait),
        "stats" => one(rest, Command::Stats),
        "get" => one(rest, Command::Get),
        "apply" => one(rest, Command::Apply),
        "version" => one(rest, Command::Version),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        let words = shell_words::split(line).unwrap();
        std::iter::once("biga".to_string())
            .chain(words)
            .map(Into::into)
            .collect()
    }

    #[test]
    fn both_ways_read_the_same() {
        for line in [
            "run busybox",
            "run --rm --network none busybox true",
            "run -it --name a -p 8080:80 -v /a:/b -e A=1 --label x=y busybox sh -c 'echo --rm -h'",
            "run --host unix:///tmp/x.sock -n lab -d busybox",
            "run -m 128M --cpus 1.5 --isolation microvm busybox -- ls",
            "create --name x busybox",
            "start a b",
            "stop -t 3 a",
            "kill -s TERM a",
            "rm -f a b",
            "ps",
            "ls -a -o json",
            "inspect a",
            "logs -f --tail 10 a",
            "exec a true",
            "exec -it -u 0 -w / a sh -c 'ls -l'",
            "wait a b",
            "stats --no-stream",
            "get instances -o yaml",
            "apply -f x.yaml",
            "version",
        ] {
            let words = words(line);
            let quick = parse(&words);
            let whole = Cli::try_parse_from(&words).ok();
            assert!(whole.is_some(), "{line}: the whole command line does not take it");
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_needs_words_is_left_to_the_whole() {
        for line in [
            "",
            "run",
            "run --help",
            "run -h",
            "run --version busybox",
            "run --no-such-option busybox",
            "exec a",
            "-n lab ps",
            "--help",
            "image ls",
            "serve",
            "ps extra words",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
