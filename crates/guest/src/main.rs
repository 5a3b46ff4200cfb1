//! `/init` of a microvm.

use std::process::ExitCode;

use biga_guest::agent;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("biga-guest is the init of a microvm and runs only as process 1 of one");
        return ExitCode::FAILURE;
    }
    if let Err(e) = agent::run() {
        // The console is all there is to say it to.
        eprintln!("biga-guest: {e}");
    }
    agent::power_off();
    ExitCode::FAILURE
}
