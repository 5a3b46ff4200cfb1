//! Telling the service manager how we are (`sd_notify(3)`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// We answer requests from now on.
pub fn ready() {
    send("READY=1");
}

/// We are on our way out.
pub fn stopping() {
    send("STOPPING=1");
}

/// Without a service manager there is nobody to tell.
fn send(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(e) = send_to(&path.to_string_lossy(), message) {
        tracing::warn!("the service manager was not told {message}: {e}");
    }
}

/// `@` begins an abstract address.
fn send_to(path: &str, message: &str) -> std::io::Result<()> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let manager = UnixDatagram::bind(&path).unwrap();
        let name = format!("biga-test-{}", std::process::id());
        let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, path) in [(manager, path), (abstract_one, format!("@{name}"))] {
            send_to(&path, "READY=1").unwrap();
            let mut buf = [0; 16];
            assert_eq!(socket.recv(&mut buf).unwrap(), 7);
        }
        assert!(send_to("/nonexistent/notify", "READY=1").is_err());
    }
}
