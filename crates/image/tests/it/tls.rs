//! Registries that want to know who asks before they say a word: client certificates.

use std::fs;
use std::path::Path;

use biga_image::{Error, PullOptions, PushOptions};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::support::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = ca.self_signed(&key).unwrap().pem();
        Ca {
            issuer: Issuer::new(ca, key),
            pem,
        }
    }

    /// Writes a certificate and its key.
    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose, cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        fs::write(cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates() {
    let (server_ca, client_ca, stranger_ca) = (Ca::new("server CA"), Ca::new("client CA"), Ca::new("stranger CA"));
    let registry = Registry::start(|dir| {
        let (cert, key, ca) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("clients.pem"));
        server_ca.issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, &cert, &key);
        fs::write(&ca, &client_ca.pem).unwrap();
        format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
            str(&cert),
            str(&key),
            str(&ca)
        )
    });
    let name = registry.reference("app:1");
    let certs = tempfile::tempdir().unwrap();
    let dir = certs.path().join(&registry.host);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.crt"), &server_ca.pem).unwrap();
    let store = || Store::with(|o| (o.certs_dir, o.attempts) = (certs.path().to_path_buf(), 1));
    let push = async |s: &Store| {
        let image = s.import(TarBuilder::new().file("x", b"1").end(), "app").await;
        let options = PushOptions::default();
        s.store
            .push(&image.image_id, &name, &options, |_| {})
            .await
            .map(|_| image.image_id)
    };
    // Without one, and with one that the registry does not know.
    assert!(matches!(push(&store()).await, Err(Error::Unreachable { .. })));
    let (cert, key) = (dir.join("client.cert"), dir.join("client.key"));
    stranger_ca.issue("me", ExtendedKeyUsagePurpose::ClientAuth, &cert, &key);
    assert!(matches!(push(&store()).await, Err(Error::Unreachable { .. })));
    client_ca.issue("me", ExtendedKeyUsagePurpose::ClientAuth, &cert, &key);
    let id = push(&store()).await.unwrap();
    let pulled = store()
        .store
        .pull(&name, &PullOptions::default(), |_| {})
        .await
        .unwrap();
    assert_eq!(pulled.image_id, id);
    // A key that is missing or damaged is named.
    fs::write(&key, "no key").unwrap();
    let e = push(&store()).await.unwrap_err();
    assert!(matches!(&e, Error::Tls { path, .. } if *path == key), "{e}");
    fs::remove_file(&key).unwrap();
    assert!(matches!(push(&store()).await, Err(Error::Tls { .. })));
}
