//! Named places at which a test may end the process, to see what is left on the disk.

use std::sync::Arc;

/// Called before each step that changes what is on disk. Does nothing unless a test says otherwise.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<dyn Fn(&'static str) + Send + Sync>>);

impl Steps {
    /// Calls this before each step with the step's name.
    pub fn new(call: impl Fn(&'static str) + Send + Sync + 'static) -> Steps {
        Steps(Some(Arc::new(call)))
    }

    pub(super) fn at(&self, step: &'static str) {
        if let Some(call) = &self.0 {
            call(step);
        }
    }
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Steps(watched)" } else { "Steps" })
    }
}
