//! A program that answers system calls (`SCMP_ACT_NOTIFY`), as one runs beside an engine.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use biga_sys::seccomp::{answer, next_call};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// Answers every call of every process that is handed to it with one error number, until it is dropped.
#[derive(Debug)]
pub struct Answers {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    states: Vec<Value>,
    calls: usize,
}

impl Answers {
    /// Listens at a path.
    ///
    /// # Panics
    /// Where that cannot be.
    pub fn at(path: &Path, error: i32) -> Answers {
        let socket = UnixListener::bind(path).expect("listen");
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let (s, all) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || serve(&socket, error, &s, &all));
        Answers {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// The states of processes that came so far.
    pub fn states(&self) -> Vec<Value> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).states.clone()
    }

    /// How many calls were answered so far.
    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).calls
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One thread waits for connections and for calls.
fn serve(socket: &UnixListener, error: i32, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let mut listeners: Vec<OwnedFd> = Vec::new();
    let short = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !stop.load(Ordering::SeqCst) {
        let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
        fds.extend(listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)));
        if poll(&mut fds, Some(&short)).is_err() {
            continue;
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        for (listener, _) in listeners
            .iter()
            .zip(&ready[1..])
            .filter(|(_, flags)| flags.contains(PollFlags::IN))
        {
            // Its caller may have been killed meanwhile. Who is answered finds it counted.
            if let Ok(call) = next_call(listener) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.calls += usize::from(answer(listener, &call, Err(error)).is_ok());
            }
        }
        // One whose processes have all ended says so.
        let mut at = 0;
        listeners.retain(|_| {
            at += 1;
            !ready[at].contains(PollFlags::HUP)
        });
        if ready[0].contains(PollFlags::IN)
            && let Ok((stream, _)) = socket.accept()
            && let Some((state, listener)) = receive(&stream)
        {
            seen.lock().unwrap_or_else(PoisonError::into_inner).states.push(state);
            listeners.push(listener);
        }
    }
}

/// One message, as such programs read it.
fn receive(stream: &UnixStream) -> Option<(Value, OwnedFd)> {
    let mut buf = vec![0; 64 << 10];
    let (n, mut fds) = biga_sys::fd::receive(stream.as_fd(), &mut buf).ok()?;
    Some((serde_json::from_slice(&buf[..n]).ok()?, fds.pop()?))
}
