//! Who gets in at the TLS port.

use std::sync::Arc;

use biga_server::pki::{Identity, ensure_pki};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stack::{PATIENCE, Stack};

/// Asks for `/version` and gives back all that came, or why nothing came.
async fn ask(
    s: &Stack,
    identity: Option<&Identity>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(s.pki.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(id) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(id.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(id.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let talk = async {
        let mut io = connector.connect(name, TcpStream::connect(s.tls).await?).await?;
        io.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        io.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_the_authority_get_in() {
    let s = Stack::start().await;
    let ours = s.pki.issue_client_cert("ann", &[]).unwrap();
    let other = ensure_pki(&s.dir.path().join("other")).unwrap();
    let foreign = other.issue_client_cert("mallory", &[]).unwrap();
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let answer = ask(&s, Some(&ours), versions).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("gitVersion"),
            "{answer}"
        );
        for nobody in [None, Some(&foreign)] {
            let refused = ask(&s, nobody, versions).await;
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}
