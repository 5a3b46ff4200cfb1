//! Hooks: programs that run at points of a container's life and read its state from standard input.

use crate::error::Error;
use crate::spec::Hook;
use crate::state::State;

/// Runs hooks one after the other; the first that fails ends it.
pub fn run(hooks: &[Hook], stage: &'static str, state: &State, status: &str) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let document = state.document(status).to_string();
    let one = |h| biga_container::hooks::one(h, stage, document.as_bytes());
    Ok(hooks.iter().try_for_each(one)?)
}
