//! The biga program: the command line, and the daemon (`biga serve`).
//!
//! - [`cli`]: the command line and which verb does what
//! - [`complete`]: names that the shell's completion offers
//! - [`cmd`]: the verbs, a file each; they use nothing but the public API
//! - [`serve`]: the daemon
//! - [`oci`]: the OCI runtime, a program of its own that this one carries
//! - [`exit`]: what exit codes mean

mod cli;
mod cmd;
mod complete;
mod context;
mod exit;
mod manifest;
mod names;
mod oci;
mod output;
mod parse;
mod procfs;
mod serve;
mod session;
mod term;
mod wait;

use crate::exit::Code;

fn main() {
    oci::hand_over_if_wanted();
    clap_complete::CompleteEnv::with_factory(complete::command)
        .var("BIGA_COMPLETE")
        .complete();
    let code = match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(e) => report(&e),
    };
    std::process::exit(code.0.into());
}

/// Prints an error and gives its code.
fn report(e: &anyhow::Error) -> Code {
    let broken_pipe = e
        .chain()
        .filter_map(|c| c.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
    if broken_pipe {
        // The reader of our output has gone: as if the signal had ended us.
        return Code(128 + 13);
    }
    let text = format!("{e:#}");
    if !text.is_empty() {
        output::note(format!("biga: {text}"));
    }
    Code::of_error(e)
}
