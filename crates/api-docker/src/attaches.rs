//! Clients attached to main processes, and those that wait for one to start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use biga_wire::Frame;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

/// How long who waits for an end waits for those who read the output, as with dockerd.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Who is attached to what.
#[derive(Clone, Default)]
pub(crate) struct Attaches(Arc<All>);

#[derive(Default)]
struct All {
    /// Clients that came so far, and those that are there by their instance's uid.
    clients: Mutex<(u64, HashMap<String, Vec<Client>>)>,
    left: Notify,
}

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
        let mut clients = self.0.clients.lock();
        let (came, all) = &mut *clients;
        *came += 1;
        let number = *came;
        all.entry(uid.to_string()).or_default().push(Client {
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
        self.any(uid, |c| c.waiting)
    }

    fn any(&self, uid: &str, is: impl FnMut(&Client) -> bool) -> bool {
        let clients = self.0.clients.lock();
        clients.1.get(uid).is_some_and(|l| l.iter().any(is))
    }

    /// Waits until the clients of a run that ended have its output, for some libraries forget it once they know the end; not
    /// longer than a moment, for some read slowly.
    pub async fn have_read(&self, uid: &str) {
        self.have_read_within(uid, READ_WITHIN).await;
    }

    async fn have_read_within(&self, uid: &str, time: Duration) {
        let readers: Vec<u64> = match self.0.clients.lock().1.get(uid) {
            Some(all) => all.iter().filter(|c| !c.waiting).map(|c| c.number).collect(),
            None => return,
        };
        let gone = async {
            loop {
                let left = self.0.left.notified();
                if !self.any(uid, |c| readers.contains(&c.number)) {
                    return;
                }
                left.await;
            }
        };
        let _ = tokio::time::timeout(time, gone).await;
    }

    /// Gives a frame to one client's stream. False where there is none.
    pub fn send(&self, uid: &str, frame: Frame) -> bool {
        self.any(uid, |c| c.frames.try_send(frame.clone()).is_ok())
    }
}

impl Attached {
    /// The process runs, and this client has its stream.
    pub fn connected(&self) {
        let mut clients = self.all.0.clients.lock();
        let mine = clients.1.get_mut(&self.uid).into_iter().flatten();
        mine.filter(|c| c.number == self.number).for_each(|c| c.waiting = false);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut clients = self.all.0.clients.lock();
        let all = &mut clients.1;
        if let Some(list) = all.get_mut(&self.uid) {
            list.retain(|c| c.number != self.number);
            if list.is_empty() {
                all.remove(&self.uid);
            }
        }
        drop(clients);
        self.all.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_the_readers_of_that_run() {
        let all = Attaches::default();
        let join = |waiting| all.join("u", waiting, mpsc::channel(1).0);
        let (reader, next) = (join(false), join(true));
        let mut end = std::pin::pin!(all.have_read("u"));
        assert!(futures_util::poll!(end.as_mut()).is_pending());
        // Who comes later reads another run.
        let _later = join(false);
        drop(reader);
        end.await;
        assert!(all.is_awaited("u"));
        drop(next);
        assert!(!all.is_awaited("u"));
        all.have_read("nobody").await;
    }

    #[tokio::test]
    async fn a_slow_reader_holds_nobody_up_for_long() {
        let all = Attaches::default();
        let _reader = all.join("u", false, mpsc::channel(1).0);
        all.have_read_within("u", Duration::from_millis(1)).await;
    }
}
