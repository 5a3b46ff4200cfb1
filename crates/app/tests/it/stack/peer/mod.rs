//! Docker's command line against Biga and against Debian's dockerd: the same commands, as a user types them, and what came of them.
//!
//! The commands are in `*.commands` beside this file. Where the two engines do not say the same (ids, times, addresses and the like
//! apart), the difference stands in `docs/docker-differences.md` with its reason, word for word: what is not there fails the test,
//! and so does what is there and does not happen any more.

mod commands;
mod coverage;
mod differences;
mod normal;
mod side;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use biga_testkit::Peer;

use super::daemon;
use super::docker::has_docker;
use commands::Command;
use side::Side;

/// What users read, and what this test holds to be all.
const FILE: &str = "docs/docker-differences.md";

#[test]
fn docker_commands_answer_as_the_real_engine() {
    if !has_docker() {
        return;
    }
    let Some(peer) = Peer::start() else { return };
    let d = daemon();
    d.biga(&["image", "rm", "busybox"]).ok();
    let theirs = Side::new(peer.path(), &peer.socket(), peer.name(), |args| peer.host_command(args));
    let socket = d.run_root().join("docker.sock");
    let ours = Side::new(d.path(), &socket, d.prefix(), |args| d.host_command(args));
    let commands = commands::all();
    // At once: neither knows of the other.
    let (they_said, we_said) = std::thread::scope(|s| {
        let they = s.spawn(|| theirs.run(&commands));
        let we = ours.run(&commands);
        (they.join().expect("dockerd's side"), we)
    });
    drop((theirs, ours));
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for (command, (they, we)) in commands.iter().zip(they_said.iter().zip(&we_said)) {
        let diff = normal::diff(command.form, they, we);
        if !diff.is_empty() {
            found.insert(&command.line, diff);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(FILE)).expect("the file of differences");
    let problems = compare(&differences::parse(&text), &commands, &found);
    println!("{} command lines, {} of them differ", commands.len(), found.len());
    assert!(problems.is_empty(), "{problems}");
    d.until_clean();
}

/// What is not in the file and happens, and what is and does not.
fn compare(listed: &BTreeMap<String, String>, commands: &[Command], found: &BTreeMap<&str, String>) -> String {
    let mut problems = String::new();
    for command in commands {
        let line = command.line.as_str();
        match (listed.get(line), found.get(line)) {
            (Some(l), Some(f)) if l == f => {}
            (None, None) => {}
            (_, Some(f)) => write!(problems, "not in {FILE}, with its reason:\n$ {line}\n{f}\n").expect("a string"),
            (Some(l), None) => {
                write!(problems, "in {FILE}, but both answer the same:\n$ {line}\n{l}\n").expect("a string");
            }
        }
    }
    for line in listed.keys().filter(|l| !commands.iter().any(|c| c.line == **l)) {
        writeln!(problems, "in {FILE}, but nobody types it: {line}").expect("a string");
    }
    problems
}

#[test]
fn every_command_of_the_reference_is_typed() {
    if !has_docker() {
        return;
    }
    let missing = coverage::missing(&commands::all());
    assert!(
        missing.is_empty(),
        "not in any file of commands:\n{}",
        missing.join("\n")
    );
}
