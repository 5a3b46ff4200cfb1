//! Clients attached to main processes, and those that wait for one to start.

use std::collections::HashMap;
use std::sync::Arc;

use biga_wire::Frame;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Who is attached to what. Keyed by the instance's uid.
#[derive(Clone, Default)]
pub(crate) struct Attaches(Arc<Mutex<HashMap<String, Vec<Client>>>>);

struct Client {
    number: u64,
    /// Whether the process did not run yet when it came.
    waiting: bool,
    frames: mpsc::Sender<Frame>,
}

/// One attached client; leaves when dropped.
pub(crate) struct Attached {
    all: Attaches,
    uid: String,
    number: u64,
}

impl Attaches {
    /// Adds a client that takes frames for the process (window sizes).
    pub fn join(&self, uid: &str, waiting: bool, frames: mpsc::Sender<Frame>) -> Attached {
        let mut all = self.0.lock();
        let list = all.entry(uid.to_string()).or_default();
        let number = list.iter().map(|c| c.number + 1).max().unwrap_or(0);
        list.push(Client {
            number,
            waiting,
            frames,
        });
        Attached {
            all: self.clone(),
            uid: uid.to_string(),
            number,
        }
    }

    /// Whether a client waits for the process to start.
    pub fn is_awaited(&self, uid: &str) -> bool {
        self.0.lock().get(uid).is_some_and(|l| l.iter().any(|c| c.waiting))
    }

    /// Gives a frame to one client's stream. False where there is none.
    pub fn send(&self, uid: &str, frame: Frame) -> bool {
        let all = self.0.lock();
        all.get(uid)
            .is_some_and(|l| l.iter().any(|c| c.frames.try_send(frame.clone()).is_ok()))
    }
}

impl Attached {
    /// The process runs, and this client has its stream.
    pub fn connected(&self) {
        if let Some(c) = self
            .all
            .0
            .lock()
            .get_mut(&self.uid)
            .and_then(|l| l.iter_mut().find(|c| c.number == self.number))
        {
            c.waiting = false;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(list) = all.get_mut(&self.uid) {
            list.retain(|c| c.number != self.number);
            if list.is_empty() {
                all.remove(&self.uid);
            }
        }
    }
}
