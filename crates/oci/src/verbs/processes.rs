//! Processes of a container: one more, and which there are.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::Command;

use super::living;
use crate::args::{Global, Known, Options};
use crate::error::{Error, Step};
use crate::exec::{self, Request};
use crate::spec::{Capabilities, Process};
use crate::{attend, state};

const EXEC: [Known; 18] = [
    ("console-socket", "", true),
    ("cwd", "", true),
    ("env", "e", true),
    ("tty", "t", false),
    ("user", "u", true),
    ("additional-gids", "g", true),
    ("process", "p", true),
    ("detach", "d", false),
    ("pid-file", "", true),
    ("process-label", "", true),
    ("apparmor", "", true),
    ("no-new-privs", "", false),
    ("cap", "c", true),
    ("preserve-fds", "", true),
    ("cgroup", "", true),
    ("ignore-paused", "", false),
    // Waits for nothing of a subreaper here.
    ("no-subreaper", "", false),
    ("init", "", false),
];

pub(super) fn exec(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let o = Options::parse(rest, &EXEC, true)?;
    let id = o.id()?;
    let (_, state, spec) = exec::running(global, id, o.has("ignore-paused"))?;
    let mut process = match o.get("process") {
        Some(path) => from_file(path)?,
        None => from_options(&o, spec.process.clone().unwrap_or_default())?,
    };
    if process.terminal && !o.has("console-socket") {
        process.console_size = process.console_size.or_else(attend::size);
    }
    let request = Request {
        global,
        id,
        process,
        console_socket: o.get("console-socket").filter(|p| !p.is_empty()).map(PathBuf::from),
        pid_file: o.get("pid-file").filter(|p| !p.is_empty()).map(PathBuf::from),
        preserve: o.number::<RawFd>("preserve-fds")?.unwrap_or(0),
        groups: o.all("cgroup").map(group).collect(),
        ignore_paused: o.has("ignore-paused"),
    };
    if !(0..=1000).contains(&request.preserve) {
        return Err(Error::Usage("--preserve-fds takes 0 to 1000".into()));
    }
    let detach = o.has("detach");
    if detach && request.process.terminal && request.console_socket.is_none() {
        return Err(Error::Usage(
            "a detached process with a terminal needs --console-socket, where its master is to be sent".into(),
        ));
    }
    let signals = if detach {
        None
    } else {
        Some(attend::signals().step(|| "wait for signals".into())?)
    };
    let running = exec::start(&request, &state, &spec)?;
    let Some(signals) = signals else { return Ok(0) };
    let ended = attend::wait(&running.child, &signals, running.terminal.as_ref());
    Ok(ended.step(|| "wait for the process".into())?.code())
}

/// Controller and path: `memory:sub`, or `sub` for all.
fn group(text: &str) -> (String, String) {
    let (controller, path) = text.split_once(':').unwrap_or(("", text));
    (controller.to_owned(), path.to_owned())
}

fn from_file(path: &str) -> Result<Process, Error> {
    let text = std::fs::read(path).step(|| format!("read {path}"))?;
    state::parse(&text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

/// What the command line says, over what the container's own process has.
fn from_options(o: &Options, mut p: Process) -> Result<Process, Error> {
    p.args = o.words[1..].to_vec();
    if p.args.is_empty() {
        return Err(Error::Usage("the command is missing".into()));
    }
    p.terminal = o.has("tty");
    p.console_size = None;
    // Of the container's own process only.
    p.exec_cpu_affinity = None;
    if let Some(cwd) = o.get("cwd") {
        p.cwd = cwd.to_owned();
    }
    p.env.extend(o.all("env").map(str::to_owned));
    if let Some(label) = o.get("process-label") {
        p.selinux_label = label.to_owned();
    }
    if let Some(profile) = o.get("apparmor") {
        p.apparmor_profile = profile.to_owned();
    }
    p.no_new_privileges |= o.has("no-new-privs");
    if let Some(user) = o.get("user") {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            text.parse()
                .map_err(|_| Error::Usage(format!("{text:?} is no id: a bundle has no names")))
        };
        p.user.uid = number(uid)?;
        if !gid.is_empty() {
            p.user.gid = number(gid)?;
        }
    }
    for gid in o.all("additional-gids") {
        let gid = gid
            .parse()
            .map_err(|_| Error::Usage(format!("{gid:?} is no group id")))?;
        p.user.additional_gids.push(gid);
    }
    let more: Vec<String> = o.all("cap").map(str::to_owned).collect();
    if !more.is_empty() {
        let caps = p.capabilities.get_or_insert_with(Capabilities::default);
        for name in more {
            let known = biga_container::caps::Caps::parse([name.as_str()]);
            if !name.starts_with("CAP_") || known.is_err() {
                return Err(Error::Usage(format!("there is no capability {name:?}")));
            }
            // Not inheritable: a program that gained that could pass it on to any other.
            for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
                set.push(name.clone());
            }
        }
    }
    Ok(p)
}

pub(super) fn ps(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let o = Options::parse(rest, &[("format", "f", true)], true)?;
    let (_, state, _) = living(global, o.id()?)?;
    let pids = state
        .group()
        .all_pids()
        .step(|| "list the container's processes".into())?;
    match o.get("format").unwrap_or("table") {
        "json" => println!("{}", serde_json::json!(pids)),
        "table" => table(&pids, &o.words[1..])?,
        other => return Err(Error::Usage(format!("unknown format {other:?}: it is table or json"))),
    }
    Ok(0)
}

/// What the host's `ps` says of these.
fn table(pids: &[u32], words: &[String]) -> Result<(), Error> {
    let standard = ["-ef".to_owned()];
    let words = if words.is_empty() { &standard[..] } else { words };
    let out = Command::new("ps")
        .args(words)
        .output()
        .step(|| "run the host's ps".into())?;
    if !out.status.success() {
        return Err(Error::Usage(format!(
            "ps failed: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        )));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|c| c == "PID") else {
        return Err(Error::Usage("ps shows no PID with these options".into()));
    };
    println!("{header}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|p: u32| pids.contains(&p)) {
            println!("{line}");
        }
    }
    Ok(())
}
