//! `biga oci`: hands over to the small static program that is the OCI runtime.
//!
//! It is done before anything else of this program runs, since engines start a runtime several times a container; and from a
//! file that no container can write to.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What this program is called when it is to be the runtime only, for engines that take a path and no arguments.
const NAME: &str = "biga-oci";

/// Arguments of the runtime, if the command line (with the program's name) asks for it.
fn wanted(mut line: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let name = line.next()?;
    if Path::new(&name).file_name() == Some(OsStr::new(NAME)) {
        return Some(line.collect());
    }
    (line.next()? == "oci").then(|| line.collect())
}

/// Becomes the runtime if the command line asks for it; returns otherwise.
pub fn hand_over_if_wanted() {
    if let Some(args) = wanted(std::env::args_os()) {
        let e = hand_over(&args);
        eprintln!("biga oci: {e:#}");
        std::process::exit(1);
    }
}

/// Becomes the runtime; returns only on failure.
pub fn hand_over(args: &[OsString]) -> anyhow::Error {
    let program = match biga_payload::oci_program() {
        Ok(p) => p,
        Err(e) => return anyhow::Error::new(e).context("cannot make a file of the runtime"),
    };
    let mut command = Command::new(biga_payload::shim_path(&program));
    let e = command.arg0(NAME).args(args).exec();
    anyhow::Error::new(e).context("cannot run the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Vec<OsString>> {
        wanted(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn by_verb_and_by_name() {
        assert_eq!(
            of("biga oci run -b x y"),
            Some(["run", "-b", "x", "y"].map(OsString::from).to_vec())
        );
        assert_eq!(of("/usr/bin/biga-oci --version"), Some(vec!["--version".into()]));
        assert_eq!(of("biga run oci"), None);
        assert_eq!(of("biga"), None);
    }
}
