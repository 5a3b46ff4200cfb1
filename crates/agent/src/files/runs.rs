//! Who may touch the files of an instance that does not run.
//!
//! While it runs its own overlay is mounted; while it does not, whoever copies files mounts one for the moment. Never both:
//! two overlays must not share their upper directory. So a run begins only once such work is done, and such work begins only
//! while there is no run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

#[derive(Debug, Default)]
struct Entry {
    /// Held by work on files, and for the moment in which a run begins.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// A run was begun and not ended.
    running: AtomicBool,
    /// So many wait for the lock that work on files holds.
    waiting: AtomicUsize,
    /// Wakes work that should hurry.
    hurry: Notify,
}

/// All instances of this node, by uid.
#[derive(Debug, Default)]
pub struct Runs {
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

/// As long as this lives the instance is not started.
#[derive(Debug)]
pub struct Still {
    entry: Arc<Entry>,
    _guard: OwnedMutexGuard<()>,
}

impl Runs {
    fn entry(&self, uid: &str) -> Arc<Entry> {
        self.entries.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// A run begins. Waits for work on its files; that is told to hurry.
    pub async fn begin(&self, uid: &str) {
        let entry = self.entry(uid);
        let _guard = entry.take().await;
        entry.running.store(true, Ordering::SeqCst);
    }

    /// The run is over and its file system gone.
    pub fn end(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.running.store(false, Ordering::SeqCst);
        }
    }

    /// The instance goes: waits for work on its files.
    pub async fn forget(&self, uid: &str) {
        let entry = self.entries.lock().remove(uid);
        if let Some(entry) = entry {
            drop(entry.take().await);
        }
    }

    /// Keeps an instance from being started; `None` while it runs. Waits for other such work.
    pub async fn still(&self, uid: &str) -> Option<Still> {
        let entry = self.entry(uid);
        let guard = entry.take().await;
        if entry.running.load(Ordering::SeqCst) {
            return None;
        }
        Some(Still { entry, _guard: guard })
    }
}

impl Entry {
    async fn take(&self) -> OwnedMutexGuard<()> {
        if let Ok(guard) = self.lock.clone().try_lock_owned() {
            return guard;
        }
        /// Counts down even where the waiting is given up.
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        self.hurry.notify_waiters();
        self.lock.clone().lock_owned().await
    }
}

impl Still {
    /// Returns once somebody waits for this to end.
    pub async fn wanted(&self) {
        loop {
            let woken = self.entry.hurry.notified();
            tokio::pin!(woken);
            // From here on no call is missed.
            woken.as_mut().enable();
            if self.entry.waiting.load(Ordering::SeqCst) > 0 {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_and_work_on_files_exclude_each_other() {
        let runs = Arc::new(Runs::default());
        let still = runs.still("u").await.unwrap();
        let begun = tokio::spawn({
            let runs = runs.clone();
            async move { runs.begin("u").await }
        });
        still.wanted().await;
        assert!(!begun.is_finished());
        drop(still);
        begun.await.unwrap();
        assert!(runs.still("u").await.is_none());
        assert!(runs.still("other").await.is_some());
        runs.end("u");
        let still = runs.still("u").await.unwrap();
        let forgotten = tokio::spawn({
            let runs = runs.clone();
            async move { runs.forget("u").await }
        });
        still.wanted().await;
        drop(still);
        forgotten.await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_wants_nothing_any_more() {
        let runs = Runs::default();
        let still = runs.still("u").await.unwrap();
        tokio::select! {
            biased;
            _ = runs.still("u") => panic!("it is held"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(still.entry.waiting.load(Ordering::SeqCst), 0);
    }
}
