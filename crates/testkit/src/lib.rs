//! A whole Biga on a host of its own, for tests: a daemon in a network namespace and directories that are thrown away.
//!
//! - [`Daemon`]: starts `biga serve`, runs the command line against it, kills and restarts it, cleans up
//! - [`images`]: root file systems made of what the machine has
//! - [`apparmor`]: profiles that are loaded for a test
//! - [`Peer`]: Debian's dockerd, the real engine, beside it
//! - [`answers`]: a program that answers system calls

pub mod answers;
pub mod apparmor;
pub mod daemon;
pub mod images;
pub mod peer;

pub use daemon::{Daemon, Ran};
pub use peer::Peer;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: machines that test are busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Calls `ready` until it answers something.
///
/// # Panics
/// When [`PATIENCE`] is over; `what` says what never came.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(t) = ready() {
            return t;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
