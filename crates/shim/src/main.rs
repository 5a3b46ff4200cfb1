//! The shim as a program; see the library.

use std::io::Write;
use std::path::Path;

use biga_wire::shim::{ErrorCode, Reply};

fn main() {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("biga-shim is started by the biga daemon with the path of an instance's shim.json");
        std::process::exit(64);
    };
    if path == biga_container::init::INIT {
        let args: Vec<String> = std::env::args().skip(2).collect();
        let e = biga_container::init::as_program(&args);
        eprintln!("{e}");
        std::process::exit(match e.code() {
            ErrorCode::NotFound => 127,
            ErrorCode::NotExecutable => 126,
            _ => 125,
        });
    }
    if path == biga_container::userns::HOLD {
        if let Err(e) = biga_container::userns::hold_for_parent() {
            // Its parent reads this instead of the word it waits for.
            println!("{e}");
            std::process::exit(1);
        }
        return;
    }
    if let Err(fault) = biga_shim::run(Path::new(&path)) {
        let reply = Reply::Error {
            code: fault.code,
            message: fault.message,
        };
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        // Without a reader there is nobody to tell.
        let _ = std::io::stdout().write_all(&line);
        std::process::exit(1);
    }
}
