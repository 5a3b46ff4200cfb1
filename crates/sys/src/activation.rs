//! Sockets that the service manager listens on and hands over at the start (`sd_listen_fds(3)`).

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::fd;

/// Number of the first descriptor handed over.
const FIRST: RawFd = 3;
/// More than that is no number of sockets.
const MOST: RawFd = 64;
/// What tells of them, and what newer managers say beside.
const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// Takes the listening unix sockets that this process was started with, closed by exec from now on, and takes what tells of them
/// out of the environment, so that no child takes them for its own. Call it before anything else opens descriptors.
///
/// Refuses other descriptors than listening unix stream sockets, and a process that has more than one thread.
pub fn take() -> io::Result<Vec<OwnedFd>> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let wanted = count(|name| std::env::var(name).ok(), pid);
    if VARIABLES.iter().any(|v| std::env::var_os(v).is_some()) {
        forget()?;
    }
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + wanted? {
        let socket = fd::inherited(number)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        if !listens(&socket) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("descriptor {number} is no listening unix stream socket"),
            ));
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// How many are meant for the process `pid`.
fn count(variable: impl Fn(&str) -> Option<String>, pid: i32) -> io::Result<RawFd> {
    // What was meant for a parent is not ours.
    let (Some(of), Some(n)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else {
        return Ok(0);
    };
    if of.parse() != Ok(pid) {
        return Ok(0);
    }
    match n.parse() {
        Ok(n @ 0..=MOST) => Ok(n),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("LISTEN_FDS={n} is no number of sockets up to {MOST}"),
        )),
    }
}

fn listens(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(socket) == Ok(true)
}

fn forget() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there are threads already"));
    }
    for name in VARIABLES {
        // SAFETY: this is the process's only thread, so nothing reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pid: Option<&str>, n: Option<&str>) -> io::Result<RawFd> {
        let get = |name: &str| match name {
            "LISTEN_PID" => pid.map(String::from),
            "LISTEN_FDS" => n.map(String::from),
            _ => None,
        };
        count(get, 7)
    }

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        assert_eq!(with(None, None).unwrap(), 0);
        assert_eq!(with(Some("7"), None).unwrap(), 0);
        assert_eq!(with(Some("8"), Some("2")).unwrap(), 0);
        assert_eq!(with(Some("8"), Some("odd")).unwrap(), 0);
        assert_eq!(with(Some("7"), Some("2")).unwrap(), 2);
        for odd in ["", "-1", "65", "99999999999", "two"] {
            assert!(with(Some("7"), Some(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_does_not_listen_is_known() {
        let dir = std::env::temp_dir().join(format!("biga-activation-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let listener = std::os::unix::net::UnixListener::bind(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert!(listens(&listener.into()));
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!listens(&end.into()));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!listens(&tcp.into()));
        assert!(!listens(&std::fs::File::open("/dev/null").unwrap().into()));
    }
}
