//! Sockets to listen on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::Error;
use crate::pki::Pki;

/// A unix socket to listen on.
#[derive(Debug, Clone)]
pub struct UnixOptions {
    /// Where. A socket that nobody listens on is replaced.
    pub path: PathBuf,
    /// Permission bits, as 0o660.
    pub mode: u32,
    /// Group that owns the socket, by name; where it does not exist the process's own group keeps it.
    pub group: Option<String>,
}

impl UnixOptions {
    /// A socket for root and its group, mode 0660.
    pub fn new(path: impl Into<PathBuf>) -> UnixOptions {
        UnixOptions {
            path: path.into(),
            mode: 0o660,
            group: None,
        }
    }
}

/// An address to listen on with TLS. Clients must show a certificate of the authority.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Where; port 0 takes a free one.
    pub address: SocketAddr,
    /// The authority that signs server and clients.
    pub pki: Arc<Pki>,
    /// More names and addresses that clients reach this server by; loopback is always among them.
    pub names: Vec<String>,
}

/// A bound unix socket. One that was made here is removed when dropped.
#[derive(Debug)]
pub(crate) struct Unix {
    pub listener: UnixListener,
    made: Option<Made>,
}

/// The file of a socket.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    inode: u64,
}

impl Drop for Made {
    fn drop(&mut self) {
        // Somebody who took the path over meanwhile keeps it.
        if inode(&self.path) == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket that somebody else made and keeps the file of.
pub(crate) fn passed(socket: OwnedFd) -> Result<Unix, Error> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    let listening = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener));
    Ok(Unix {
        listener: listening.map_err(Error::Passed)?,
        made: None,
    })
}

impl Unix {
    /// Where clients find it.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.made {
            Some(made) => Some(made.path.clone()),
            None => self.listener.local_addr().ok()?.as_pathname().map(Path::to_path_buf),
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|m| m.ino())
}

pub(crate) fn unix(options: &UnixOptions) -> Result<Unix, Error> {
    let path = &options.path;
    let error = |what: &'static str| {
        let path = path.clone();
        move |source: io::Error| Error::Socket { what, path, source }
    };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(error("make the directory of"))?;
    }
    refuse_taken(path)?;
    // Bound under another name and renamed, so that it never stands there with wider permissions.
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(error("listen on"))?;
    let prepared = set_owner(&temporary, options).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = prepared {
        let _ = std::fs::remove_file(&temporary);
        return Err(error("set permissions of")(e));
    }
    let made = Made {
        inode: inode(path).unwrap_or(0),
        path: path.clone(),
    };
    Ok(Unix {
        listener,
        made: Some(made),
    })
}

/// Refuses a path that is no socket, or one that somebody listens on.
fn refuse_taken(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(m) if !m.file_type().is_socket() => Err(Error::NotSocket(path.into())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(Error::Taken(path.into())),
            Err(_) => Ok(()),
        },
    }
}

fn set_owner(path: &Path, options: &UnixOptions) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode))?;
    if let Some(group) = &options.group {
        match group_id(&std::fs::read_to_string("/etc/group").unwrap_or_default(), group) {
            Some(gid) => std::os::unix::fs::chown(path, None, Some(gid))?,
            None => tracing::warn!(
                group,
                "there is no such group: the socket stays with this process's own"
            ),
        }
    }
    Ok(())
}

/// The id of a group in the text of `/etc/group`.
fn group_id(file: &str, name: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// A bound TLS listener.
pub(crate) struct Tls {
    pub listener: TcpListener,
    pub acceptor: TlsAcceptor,
}

pub(crate) async fn tls(options: &TlsOptions) -> Result<Tls, Error> {
    let mut names = vec!["127.0.0.1".to_string(), "::1".into(), "localhost".into()];
    if !options.address.ip().is_unspecified() && !options.address.ip().is_loopback() {
        names.push(options.address.ip().to_string());
    }
    names.extend(options.names.iter().cloned());
    let identity = options.pki.issue_server_cert(names)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for c in CertificateDer::pem_slice_iter(options.pki.ca_pem().as_bytes()) {
        let c = c.map_err(|e| Error::Tls(e.to_string()))?;
        roots.add(c).map_err(|e| Error::Tls(e.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| Error::Tls(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(|e| Error::Tls(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let address = options.address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Address { address, source })?;
    Ok(Tls {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let file = "root:x:0:\nbroken\nbiga:x:123:ann,bob\n";
        assert_eq!(group_id(file, "biga"), Some(123));
        assert_eq!(group_id(file, "bob"), None);
        assert_eq!(group_id(file, "broken"), None);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/api.sock");
        let options = UnixOptions::new(&path);
        let first = unix(&options).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(unix(&options), Err(Error::Taken(_))));
        drop(first);
        assert!(!path.exists(), "a closed server removes its socket");
        // What a killed daemon leaves: the file without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = unix(&options).unwrap();
        drop(second);
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(unix(&options), Err(Error::NotSocket(_))));
    }

    #[tokio::test]
    async fn a_passed_socket_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let owner = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let unix = passed(owner.try_clone().unwrap().into()).unwrap();
        assert_eq!(unix.path().as_deref(), Some(path.as_path()));
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        unix.listener.accept().await.unwrap();
        drop(unix);
        assert!(path.exists());
    }
}
