//! Noticing that a client went away while an answer without an end is sent to it.
//!
//! Where clients may shut down their writing end and still read, hyper stops reading once it has a request, and so does
//! not see that the client is gone. A watch on a quiet object would then live on, and look at every change of the store,
//! until something has to be written to it. A unix socket tells the two apart.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::net::UnixStream;

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer(Option<Arc<OwnedFd>>);

impl Peer {
    /// The other end of a unix socket.
    pub fn of(socket: impl AsFd) -> Peer {
        // Without a descriptor to spare the end is noticed later, by the next thing that is written.
        Peer(socket.as_fd().try_clone_to_owned().ok().map(Arc::new))
    }

    /// Waits until the client has gone altogether. Waits for ever where that cannot be told, as after it sent more, or
    /// stopped writing only.
    pub async fn gone(self) {
        if let Some(fd) = self.0
            && let Ok(fd) = fd.try_clone()
            && let Ok(socket) = UnixStream::from_std(fd.into())
            && socket.readable().await.is_ok()
            && has_hung_up(&socket)
        {
            return;
        }
        std::future::pending().await
    }
}

/// Whether the other end is closed in both directions.
fn has_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Does not wait, so it cannot be interrupted.
    let _ = rustix::event::poll(&mut fds, Some(&now));
    fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn who_only_stops_writing_is_still_there() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.shutdown().await.unwrap();
        let mut gone = std::pin::pin!(Peer::of(&ours).gone());
        // Nothing can be waited for: what must not happen has a moment to happen.
        tokio::select! {
            () = &mut gone => panic!("it still reads"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
        Peer::of(&ours).gone().await;
    }

    #[tokio::test]
    async fn an_end_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let gone = tokio::spawn(Peer::of(&ours).gone());
        tokio::task::yield_now().await;
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .unwrap()
            .unwrap();
    }
}
