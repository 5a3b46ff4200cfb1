//! Biga's own certificate authority: one per state directory, for the TLS listener and its clients.
//!
//! On disk there are only `pki/ca.crt` and `pki/ca.key` (mode 0600, directory 0700). The server's own certificate is
//! made anew at each start and lives in memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Years that the authority lives.
const CA_YEARS: i16 = 20;
/// Years that a server's or client's certificate lives.
const LEAF_YEARS: i16 = 5;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// One of the two files is there without the other.
    #[error("{} is missing while {} is there: restore it, or remove both to make a new authority", missing.display(), there.display())]
    Half {
        /// What is missing.
        missing: PathBuf,
        /// What is there.
        there: PathBuf,
    },
    /// The certificate or key is damaged, or cannot be made.
    #[error("cannot {what}")]
    Certificate {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
}

fn certificate(what: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Certificate { what, source }
}

/// The authority.
pub struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("ca_pem", &self.ca_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

/// A certificate with its key, for rustls.
pub(crate) struct ServerIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Opens the authority in `dir`, or makes it.
pub fn ensure_pki(dir: &Path) -> Result<Pki, Error> {
    let file = |what: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { what, path, source }
    };
    let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    match (crt.exists(), key.exists()) {
        (true, true) => {}
        (false, true) => {
            return Err(Error::Half {
                missing: crt,
                there: key,
            });
        }
        (true, false) => {
            return Err(Error::Half {
                missing: key,
                there: crt,
            });
        }
        (false, false) => {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(dir).map_err(file("make", dir))?;
            let (pem, pair) = new_ca()?;
            // The key first and by rename: a crash between the two leaves an error that says what to do.
            write_new(&key, &pair.serialize_pem(), 0o600).map_err(file("write", &key))?;
            write_new(&crt, &pem, 0o644).map_err(file("write", &crt))?;
        }
    }
    let ca_pem = fs::read_to_string(&crt).map_err(file("read", &crt))?;
    let key_pem = fs::read_to_string(&key).map_err(file("read", &key))?;
    let pair = KeyPair::from_pem(&key_pem).map_err(certificate("read the authority's key"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, pair).map_err(certificate("read the authority's certificate"))?;
    Ok(Pki { ca_pem, issuer })
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let mut f = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    f.write_all(text.as_bytes())?;
    f.sync_all()?;
    fs::rename(&temporary, path)
}

fn params(names: Vec<String>, common_name: &str, years: i16) -> Result<CertificateParams, Error> {
    let mut p = CertificateParams::new(names).map_err(certificate("name the certificate"))?;
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, common_name);
    let today = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date();
    let day = |d: jiff::civil::Date| rcgen::date_time_ymd(d.year().into(), d.month() as u8, d.day() as u8);
    // Clocks differ: valid since yesterday.
    p.not_before = day(today.yesterday().unwrap_or(today));
    p.not_after = day(today.saturating_add(jiff::Span::new().years(years)));
    Ok(p)
}

fn new_ca() -> Result<(String, KeyPair), Error> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate("make a key"))?;
    let mut p = params(Vec::new(), "biga", CA_YEARS)?;
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = p.self_signed(&pair).map_err(certificate("make the authority"))?;
    Ok((cert.pem(), pair))
}

impl Pki {
    /// The authority's certificate as PEM: what clients trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for a client: `user` is its common name, `groups` its organizations.
    pub fn issue_client_cert(&self, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        let mut p = params(Vec::new(), user, LEAF_YEARS)?;
        if !groups.is_empty() {
            // rcgen keeps one value per attribute type, so several groups share one, separated by commas.
            p.distinguished_name.push(DnType::OrganizationName, groups.join(","));
        }
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (cert, key) = self.sign(&p)?;
        Ok(Identity {
            certificate: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A certificate for the TLS listener, for these DNS names and addresses.
    pub(crate) fn issue_server_cert(&self, names: Vec<String>) -> Result<ServerIdentity, Error> {
        let mut p = params(names, "biga-server", LEAF_YEARS)?;
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (cert, key) = self.sign(&p)?;
        Ok(ServerIdentity {
            chain: vec![cert.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    fn sign(&self, p: &CertificateParams) -> Result<(rcgen::Certificate, KeyPair), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate("make a key"))?;
        let cert = p
            .signed_by(&key, &self.issuer)
            .map_err(certificate("sign a certificate"))?;
        Ok((cert, key))
    }

    /// A kubeconfig for `identity`: everything kubectl needs in one file. `server` is as in `https://127.0.0.1:7443`.
    pub fn kubeconfig(&self, server: &str, user: &str, identity: &Identity) -> String {
        let b64 = |s: &str| STANDARD.encode(s);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: biga\nclusters:\n- name: biga\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\ncontexts:\n- name: biga\n  context:\n    cluster: biga\n    user: {user}\n    \
             namespace: default\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {crt}\n    client-key-data: {key}\n",
            ca = b64(&self.ca_pem),
            crt = b64(&identity.certificate),
            key = b64(&identity.key),
        )
    }
}

/// Common name and organizations of a certificate.
pub(crate) fn subject(der: &CertificateDer<'_>) -> Option<(String, Vec<String>)> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = cert.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .flat_map(|o| o.split(','))
        .map(String::from)
        .collect();
    Some((user, groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_made_once_and_signs_who_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let pki_dir = dir.path().join("state/pki");
        let first = ensure_pki(&pki_dir).unwrap();
        let again = ensure_pki(&pki_dir).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&pki_dir.join("ca.key")), 0o600);
        assert_eq!(mode(&pki_dir), 0o700);
        let id = again.issue_client_cert("ann", &["biga:admins", "ops"]).unwrap();
        let pem = x509_parser::pem::parse_x509_pem(id.certificate.as_bytes()).unwrap().1;
        let der = CertificateDer::from(pem.contents);
        assert_eq!(
            subject(&der),
            Some(("ann".into(), vec!["biga:admins".into(), "ops".into()]))
        );
        fs::remove_file(pki_dir.join("ca.key")).unwrap();
        assert!(matches!(ensure_pki(&pki_dir), Err(Error::Half { .. })));
    }
}
