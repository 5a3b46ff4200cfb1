//! Who may touch the files of an instance, and how.
//!
//! While it runs its own overlay is mounted; while it does not, whoever copies files mounts one for the moment. Never both,
//! and never one of an old run beside one of a new: two overlays must not share their upper directory. So a run begins only
//! once work on files of the time before is done, and a mount for such work is made only while there is no run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

#[derive(Debug, Default)]
struct Entry {
    /// Held for reading by work on files of a run, for writing by work without one, and for the moment in which a run
    /// begins.
    lock: Arc<RwLock<()>>,
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

/// As long as this lives no run begins.
#[derive(Debug)]
pub struct Hold {
    entry: Arc<Entry>,
    running: bool,
    _guard: Guard,
}

#[derive(Debug)]
enum Guard {
    Shared(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

impl Runs {
    fn entry(&self, uid: &str) -> Arc<Entry> {
        self.entries.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// A run begins. Waits for work on its files; that is told to hurry.
    pub async fn begin(&self, uid: &str) {
        let entry = self.entry(uid);
        let _guard = entry.alone().await;
        entry.running.store(true, Ordering::SeqCst);
    }

    /// The run is over.
    pub fn end(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.running.store(false, Ordering::SeqCst);
        }
    }

    /// The instance goes: waits for work on its files.
    pub async fn forget(&self, uid: &str) {
        let entry = self.entries.lock().remove(uid);
        if let Some(entry) = entry {
            drop(entry.alone().await);
        }
    }

    /// Keeps things as they are: a run may end, and none begins. Without a run it is the only one.
    pub async fn hold(&self, uid: &str) -> Hold {
        let entry = self.entry(uid);
        loop {
            let running = entry.running.load(Ordering::SeqCst);
            let guard = match running {
                true => Guard::Shared(entry.shared().await),
                false => Guard::Alone(entry.alone().await),
            };
            if entry.running.load(Ordering::SeqCst) == running {
                return Hold {
                    entry,
                    running,
                    _guard: guard,
                };
            }
        }
    }
}

impl Entry {
    async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        if let Ok(guard) = self.lock.clone().try_write_owned() {
            return guard;
        }
        let _waiting = self.wait();
        self.lock.clone().write_owned().await
    }

    async fn shared(&self) -> OwnedRwLockReadGuard<()> {
        if let Ok(guard) = self.lock.clone().try_read_owned() {
            return guard;
        }
        let _waiting = self.wait();
        self.lock.clone().read_owned().await
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.hurry.notify_waiters();
        Waiting(&self.waiting)
    }
}

/// Counts down even where the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hold {
    /// Whether there was a run when this was taken.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether somebody waits for this to end.
    pub fn is_wanted(&self) -> bool {
        self.entry.waiting.load(Ordering::SeqCst) > 0
    }

    /// Returns once somebody waits for this to end.
    pub async fn wanted(&self) {
        loop {
            let woken = self.entry.hurry.notified();
            tokio::pin!(woken);
            // From here on no call is missed.
            woken.as_mut().enable();
            if self.is_wanted() {
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
        let hold = runs.hold("u").await;
        assert!(!hold.is_running());
        let begun = tokio::spawn({
            let runs = runs.clone();
            async move { runs.begin("u").await }
        });
        hold.wanted().await;
        assert!(!begun.is_finished());
        drop(hold);
        begun.await.unwrap();
        // Any number while it runs; the next run waits for all of them.
        let (one, two) = (runs.hold("u").await, runs.hold("u").await);
        assert!(one.is_running() && two.is_running() && !one.is_wanted());
        runs.end("u");
        let again = tokio::spawn({
            let runs = runs.clone();
            async move { runs.begin("u").await }
        });
        one.wanted().await;
        drop(one);
        two.wanted().await;
        assert!(!again.is_finished());
        drop(two);
        again.await.unwrap();
        runs.end("u");
        let hold = runs.hold("u").await;
        assert!(!hold.is_running());
        let forgotten = tokio::spawn({
            let runs = runs.clone();
            async move { runs.forget("u").await }
        });
        hold.wanted().await;
        drop(hold);
        forgotten.await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_wants_nothing_any_more() {
        let runs = Runs::default();
        let hold = runs.hold("u").await;
        tokio::select! {
            biased;
            _ = runs.hold("u") => panic!("it is held"),
            () = tokio::task::yield_now() => {}
        }
        assert!(!hold.is_wanted());
        assert!(!runs.hold("other").await.is_running());
    }
}
