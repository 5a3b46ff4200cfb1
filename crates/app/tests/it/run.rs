//! Instances in the foreground and in the background, and further processes.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::json;

use crate::fake::Fake;

#[test]
fn output_and_exit_code_of_the_process_are_ours() {
    let f = Fake::start();
    let d = f.biga(&["run", "--name", "a", "busybox", "exit", "3"]).code(3);
    assert_eq!(d.out, "to out\n");
    assert_eq!(d.err, "to err\n");
    let o = f.get("instances", "a").unwrap();
    assert_eq!(o["spec"]["containers"][0]["waitAttach"], true);
    assert_eq!(o["spec"]["containers"][0]["args"], json!(["exit", "3"]));
    assert_eq!(o["status"]["phase"], "Exited");
}

#[test]
fn a_removed_instance_is_gone_when_run_ends() {
    let f = Fake::start();
    f.biga(&["run", "--rm", "--name", "a", "busybox", "exit", "0"]).code(0);
    assert!(f.get("instances", "a").is_none());
    f.biga(&["run", "--rm", "--name", "a", "busybox", "exit", "0"]).code(0);
}

#[test]
fn input_goes_to_the_process_whole() {
    let f = Fake::start();
    let input = vec![b'x'; 1_000_000];
    let d = f.biga_with(&["run", "-i", "busybox", "cat"], &input).code(0);
    assert_eq!(d.out.len(), "ready\n".len() + input.len());
}

#[test]
fn a_broken_connection_is_made_again() {
    let f = Fake::start();
    let d = f.biga(&["run", "busybox", "drop-once"]).code(5);
    assert_eq!(d.out, "before\nafter\n");
}

#[test]
fn signals_go_to_the_process() {
    let f = Fake::start();
    let mut c = f
        .command(&["run", "busybox", "wait"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(c.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&c);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "signal 10\n");
    assert_eq!(c.wait().unwrap().code(), Some(138));
}

#[test]
fn what_cannot_start_is_125_and_says_why() {
    let f = Fake::start();
    let d = f.biga(&["run", "--name", "a", "absent", "exit", "0"]).code(125);
    assert_eq!(d.err, "biga: cannot start a: the registry has no image absent\n");
    let d = f.biga(&["run", "-d", "--name", "b", "absent"]).code(125);
    assert_eq!(d.err, "biga: cannot start b: the registry has no image absent\n");
    let d = f.biga(&["run", "--name", "c", "broken image", "x"]).code(125);
    assert_eq!(
        d.err,
        "biga: Instance \"x\" is invalid:\n  spec.image: bad\n  spec.ports[0].port: is 1 to 65535\n"
    );
}

#[test]
fn detached_runs_print_the_name_and_taken_names_are_refused() {
    let f = Fake::start();
    let d = f.biga(&["run", "-d", "--name", "a", "busybox", "wait"]).code(0);
    assert_eq!(d.out, "a\n");
    let o = f.get("instances", "a").unwrap();
    assert_ne!(o["spec"]["containers"][0]["waitAttach"], true);
    let d = f.biga(&["create", "--name", "a", "busybox"]).code(4);
    assert!(d.err.contains("an instance named a exists already"), "{d:?}");
    let made_up = f.biga(&["create", "busybox"]).code(0).out;
    let o = f.get("instances", made_up.trim()).unwrap();
    assert_eq!(o["spec"]["power"], "Stopped");
}

#[test]
fn further_processes_have_their_own_code() {
    let f = Fake::start();
    f.running("web", json!({}));
    let d = f.biga(&["exec", "web", "exit", "4"]).code(4);
    assert_eq!((d.out.as_str(), d.err.as_str()), ("to out\n", "to err\n"));
    let d = f.biga(&["exec", "web", "nothing"]).code(127);
    assert!(d.err.contains("not found in $PATH"), "{d:?}");
    let d = f
        .biga(&["exec", "-e", "A=1", "-w", "/srv", "-u", "1:2", "web", "show", "-x"])
        .code(0);
    let ask: serde_json::Value = serde_json::from_str(&d.out).unwrap();
    assert_eq!(
        ask,
        json!({"do": "exec", "exec": {"args": ["show", "-x"], "env": ["A=1"], "cwd": "/srv", "user": "1:2", "tty": false, "stdin": false, "privileged": false, "window": null}})
    );
    let d = f.biga_with(&["exec", "-i", "web", "cat"], b"hello").code(0);
    assert_eq!(d.out, "ready\nhello");
    f.biga(&["exec", "-t", "-i", "web", "sh"]).code(2);
}

#[test]
fn what_ended_can_be_started_attached_again() {
    let f = Fake::start();
    f.biga(&["run", "--name", "a", "busybox", "exit", "3"]).code(3);
    let d = f.biga(&["start", "-a", "a"]).code(3);
    assert_eq!(d.out, "to out\n");
    let o = f.get("instances", "a").unwrap();
    assert_eq!(o["spec"]["restartRequest"], 1);
    let d = f.biga(&["attach", "a"]).code(4);
    assert!(d.err.contains("it is exited; `biga start -a a` starts it"), "{d:?}");
}

#[test]
fn consoles_are_for_machines() {
    let f = Fake::start();
    f.running("c", json!({}));
    f.running("m", json!({"spec": {"isolation": "vm", "containers": null}}));
    let d = f.biga(&["console", "c"]).code(4);
    assert!(d.err.contains("a container has no console"), "{d:?}");
    let d = f.biga_with(&["console", "m"], b"root\n").code(0);
    assert_eq!(d.out, "ready\nroot\n");
}
