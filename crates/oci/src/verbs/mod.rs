//! The verbs, and which does what.

mod checkpoint;
mod events;
mod features;
mod life;
mod list;
mod processes;
mod template;
mod update;

use std::path::{Path, PathBuf};

use crate::args::{Global, Invocation, Options};
use crate::error::{Error, Step};
use crate::state::{Place, State, Status};

const HELP: &str = "\
biga oci: containers from OCI bundles, without a daemon

usage: biga oci [OPTION...] VERB [OPTION...] [ID] [WORD...]

  --root DIR             where state is kept (/run/biga-oci)
  --criu PROGRAM         CRIU, for checkpoint and restore (criu)
  --log FILE             write failures and warnings there too
  --log-format FORMAT    text or json
  --version, --help

verbs:
  create  [-b BUNDLE] [--console-socket PATH] [--pid-file PATH] [--no-pivot]
          [--no-new-keyring] [--preserve-fds N] ID
  start   ID
  run     like create, and: [-d] [--keep] ID
  exec    [-t] [-d] [-p FILE] [--cwd DIR] [-e NAME=VALUE] [-u UID[:GID]] [-g GID] [-c CAP]
          [--no-new-privs] [--cgroup PATH] [--ignore-paused] [--console-socket PATH]
          [--pid-file PATH] [--preserve-fds N] ID COMMAND...
  state   ID
  kill    [-a] ID [SIGNAL]
  delete  [-f] ID
  list    [-f table|json] [-q]
  ps      [-f table|json] ID
  pause   ID
  resume  ID
  update  [-r FILE] [--memory N] ... ID
  events  [--stats] [--interval TIME] ID
  checkpoint, restore    by CRIU: `biga oci checkpoint --help`
  features
  spec    [-b BUNDLE]
";

/// Version of the specification that is followed.
pub const SPEC_VERSION: &str = "1.2.0";

/// Carries out what the command line asks for, and gives the exit code.
pub fn run(i: Invocation) -> Result<i32, Error> {
    let (global, rest) = (i.global, i.rest);
    match i.verb.as_str() {
        "--help" | "help" => {
            print!("{HELP}");
            Ok(0)
        }
        "--version" | "version" => {
            println!("biga-oci version {}\nspec: {SPEC_VERSION}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        "create" => life::create(&global, rest),
        "start" => life::start(&global, rest),
        "run" => life::run(&global, rest),
        "kill" => life::kill(&global, rest),
        "delete" => life::delete(&global, rest),
        "pause" => life::freeze(&global, rest, true),
        "resume" => life::freeze(&global, rest, false),
        "exec" => processes::exec(&global, rest),
        "ps" => processes::ps(&global, rest),
        "state" => list::state(&global, rest),
        "list" => list::list(&global, rest),
        "update" => update::update(&global, rest),
        "events" => events::events(&global, rest),
        "features" => features::features(),
        "spec" => template::spec(rest),
        "checkpoint" => checkpoint::checkpoint(&global, rest),
        "restore" => checkpoint::restore(&global, rest),
        other => Err(Error::Usage(format!(
            "unknown verb {other:?}: `biga oci --help` lists what there is"
        ))),
    }
}

/// The one container a verb without options of its own is about.
fn known(global: &Global, rest: Vec<String>) -> Result<(Place, State), Error> {
    let options = Options::parse(rest, &[], false)?;
    options.at_most(1)?;
    find(global, options.id()?)
}

fn find(global: &Global, id: &str) -> Result<(Place, State), Error> {
    let place = Place::of(&global.root, id)?;
    let state = place.load()?;
    Ok((place, state))
}

/// As [`find`], and it must not have ended.
fn living(global: &Global, id: &str) -> Result<(Place, State, Status), Error> {
    let (place, state) = find(global, id)?;
    let status = state.status(&place);
    if status == Status::Stopped {
        return Err(Error::State(format!("container not running: {id} is stopped")));
    }
    Ok((place, state, status))
}

/// An existing directory or file, absolute.
fn absolute(path: &str) -> Result<PathBuf, Error> {
    std::fs::canonicalize(Path::new(path)).step(|| format!("find {path}"))
}

/// Prints a document.
fn print(value: &serde_json::Value) -> Result<(), Error> {
    println!(
        "{}",
        serde_json::to_string_pretty(value)
            .map_err(std::io::Error::from)
            .step(|| "print".into())?
    );
    Ok(())
}
