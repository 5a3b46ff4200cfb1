//! Builds that clients speak of, by the names that they give them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::progress::Feed;
use crate::proto::control::{CacheEntry, Exporter};
use crate::proto::gateway::ReturnRequest;

/// How long a build is known to which no call belongs just now.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Most builds at a time.
const MAX_JOBS: usize = 1024;

/// What `Control.Solve` said of a build.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The session's id.
    pub session: String,
    /// What comes of it.
    pub exporters: Vec<Exporter>,
    /// Where its steps are kept for others.
    pub cache_exports: Vec<CacheEntry>,
}

/// What was built: an image under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `sha256:…`
    pub image: String,
    /// Its names, as users type them.
    pub names: Vec<String>,
}

/// One build.
pub struct Job {
    /// Its progress.
    pub feed: Feed,
    /// Cancelled when its client goes.
    pub cancel: CancellationToken,
    /// What is wanted, once that was said.
    pub wanted: watch::Sender<Option<Wanted>>,
    /// What the client returned from its own function.
    pub returned: watch::Sender<Option<ReturnRequest>>,
    /// What was built, by references.
    pub outcomes: Mutex<HashMap<String, Outcome>>,
}

impl Job {
    fn new() -> Job {
        Job {
            feed: Feed::default(),
            cancel: CancellationToken::new(),
            wanted: watch::Sender::new(None),
            returned: watch::Sender::new(None),
            outcomes: Mutex::default(),
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Jobs(Mutex<HashMap<String, Weak<Job>>>);

impl Jobs {
    /// The build of this name; whoever asks first makes it. `None` where there are too many.
    pub fn get(&self, name: &str) -> Option<Arc<Job>> {
        let mut all = self.0.lock();
        if let Some(job) = all.get(name).and_then(Weak::upgrade) {
            return Some(job);
        }
        all.retain(|_, j| j.strong_count() > 0);
        if all.len() >= MAX_JOBS {
            return None;
        }
        let job = Arc::new(Job::new());
        all.insert(name.to_owned(), Arc::downgrade(&job));
        Some(job)
    }
}

/// Ends a build however its call ends.
pub struct Ending(pub Arc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.cancel.cancel();
        self.0.feed.end();
        linger(self.0.clone());
    }
}

/// Keeps a build known for a while, though nobody holds it: its calls come in any order.
pub fn linger(job: Arc<Job>) {
    tokio::spawn(async move {
        tokio::time::sleep(KNOWN_FOR).await;
        drop(job);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_of_a_build_come_in_any_order() {
        let jobs = Jobs::default();
        let first = jobs.get("a").unwrap();
        first.returned.send_replace(Some(ReturnRequest::default()));
        linger(first);
        tokio::task::yield_now().await;
        assert!(jobs.get("a").unwrap().returned.borrow().is_some());
        // Of others nothing is known, and there is an end to them.
        assert!(jobs.get("b").unwrap().returned.borrow().is_none());
        let held: Vec<_> = (1..MAX_JOBS).map(|n| jobs.get(&n.to_string()).unwrap()).collect();
        assert!(jobs.get("more").is_none());
        drop(held);
        assert!(jobs.get("more").is_some());
    }
}
