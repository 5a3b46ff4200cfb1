//! The execs of this daemon: a bounded table in memory. An exec lives as long as the daemon does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use biga_wire::Frame;
use biga_wire::shim::ExecSpec;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Execs kept after their end, so that clients can read exit codes.
const KEPT: usize = 4096;

/// The table.
#[derive(Clone, Default)]
pub(crate) struct Execs(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    all: HashMap<String, Exec>,
    /// Oldest first.
    order: VecDeque<String>,
}

/// One exec.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The instance's uid.
    pub uid: String,
    /// The instance's name.
    pub name: String,
    /// What to run.
    pub spec: ExecSpec,
    /// Which of its outputs the client wants.
    pub stdout: bool,
    /// Which of its outputs the client wants.
    pub stderr: bool,
    /// Keys that leave it, as given.
    pub detach_keys: Option<String>,
    /// How far it is.
    pub state: ExecState,
    /// Where frames (window sizes) go while it runs.
    pub frames: Option<mpsc::Sender<Frame>>,
}

/// How far an exec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecState {
    /// Made, not started.
    Created,
    /// Being started.
    Starting,
    /// It runs under this process id.
    Running(u32),
    /// It ended, or never ran.
    Ended(i32),
}

impl Execs {
    /// Adds one. The oldest that does not run goes where there are too many.
    pub fn add(&self, exec: Exec) {
        let mut t = self.0.lock();
        while t.order.len() >= KEPT {
            let idle = |id: &String| {
                !t.all
                    .get(id)
                    .is_some_and(|e| matches!(e.state, ExecState::Running(_) | ExecState::Starting))
            };
            let Some(i) = t.order.iter().position(idle) else { break };
            if let Some(id) = t.order.remove(i) {
                t.all.remove(&id);
            }
        }
        t.order.push_back(exec.id.clone());
        t.all.insert(exec.id.clone(), exec);
    }

    /// The exec of this id, or of the unique beginning of one.
    pub fn get(&self, id: &str) -> Option<Exec> {
        let t = self.0.lock();
        if let Some(e) = t.all.get(id) {
            return Some(e.clone());
        }
        let mut found = t.all.values().filter(|e| !id.is_empty() && e.id.starts_with(id));
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }

    /// Changes one.
    pub fn change<T>(&self, id: &str, f: impl FnOnce(&mut Exec) -> T) -> Option<T> {
        self.0.lock().all.get_mut(id).map(f)
    }

    /// Takes the right to start it: true once.
    pub fn begin(&self, id: &str) -> bool {
        self.change(id, |e| {
            let first = e.state == ExecState::Created;
            if first {
                e.state = ExecState::Starting;
            }
            first
        })
        .unwrap_or(false)
    }

    /// Ids of the running execs of an instance.
    pub fn running(&self, uid: &str) -> Vec<String> {
        let t = self.0.lock();
        let live = |id: &&String| {
            t.all
                .get(*id)
                .is_some_and(|e| e.uid == uid && matches!(e.state, ExecState::Running(_)))
        };
        t.order.iter().filter(live).cloned().collect()
    }

    /// Forgets the execs of an instance that is gone.
    pub fn forget(&self, uid: &str) {
        let mut t = self.0.lock();
        t.all.retain(|_, e| e.uid != uid);
        let Table { all, order } = &mut *t;
        order.retain(|id| all.contains_key(id));
    }
}

/// A new id: 64 hexadecimal digits.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
