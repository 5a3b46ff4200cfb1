//! Holding a container still for a moment, without its shim: for whoever reads its files and wants them to agree.

use super::{Group, version};
use crate::Error;

/// A frozen control group; it goes on when this is dropped.
#[derive(Debug)]
pub struct Held(Group);

/// Freezes the group at `path`, as the container's configuration names it.
pub fn hold(path: &str) -> Result<Held, Error> {
    let group = at(path);
    group.freeze()?;
    Ok(Held(group))
}

/// Thaws the group at `path`: an agent that was killed while it held it could not.
pub fn release(path: &str) -> Result<(), Error> {
    at(path).thaw()
}

fn at(path: &str) -> Group {
    Group {
        path: path.to_owned(),
        version: version(),
        controllers: vec!["freezer"],
        has_memory_limit: false,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails where the container ended meanwhile: then there is nothing to thaw.
        let _ = self.0.thaw();
    }
}
