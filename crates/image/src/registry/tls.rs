//! TLS as Docker sets it up: the system's roots, and for a registry the files in `certs.d/HOST[:PORT]/`:
//! `*.crt` are further roots, `NAME.cert` with `NAME.key` is a client certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// The configuration for one registry.
pub(super) fn config(certs: &Path) -> Result<rustls::ClientConfig, Error> {
    let mut roots = system_roots().clone();
    let files = files(certs)?;
    for path in with_extension(&files, "crt") {
        for cert in certificates(path)? {
            roots.add(cert).map_err(|e| bad(path, e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(certs, e))?
        .with_root_certificates(roots);
    let mut config = match with_extension(&files, "cert").next() {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let key_path = path.with_extension("key");
            let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|e| bad(&key_path, e))?;
            builder
                .with_client_auth_cert(certificates(path)?, key)
                .map_err(|e| bad(path, e))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether anything is set up for a registry.
pub(super) fn is_set_up(certs: &Path) -> bool {
    files(certs).is_ok_and(|f| {
        with_extension(&f, "crt")
            .chain(with_extension(&f, "cert"))
            .next()
            .is_some()
    })
}

fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for e in &found.errors {
            tracing::warn!("cannot read a root certificate of this system: {e}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(bad(dir, e)),
    };
    let mut files = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(dir, e))?;
    files.sort();
    Ok(files)
}

fn with_extension<'f>(files: &'f [PathBuf], wanted: &'static str) -> impl Iterator<Item = &'f PathBuf> {
    files.iter().filter(move |f| f.extension().is_some_and(|e| e == wanted))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| bad(path, e))?.collect();
    all.map_err(|e| bad(path, e))
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Tls {
        path: path.to_path_buf(),
        why: why.to_string(),
    }
}
