//! Against Debian's registry, with images of skopeo's and of our own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use biga_image::{Auth, Error, LayerState, Progress, PullOptions, PushOptions};
use parking_lot::Mutex;

use crate::support::*;

fn tar() -> Vec<u8> {
    TarBuilder::new()
        .dir("bin")
        .file("bin/app", &noise(200_000, 1))
        .file("etc/conf", b"x=1")
        .symlink("bin/sh", "app")
        .end()
}

fn basic(password: &str) -> Auth {
    Auth::Basic {
        username: "me".into(),
        password: password.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn push_and_pull() {
    let registry = Registry::plain();
    let (a, b) = (Store::new(), Store::new());
    let image = a.import(tar(), "app").await;
    let name = registry.reference("team/app:1");
    let seen = Mutex::new(Vec::new());
    let pushed = a
        .store
        .push(&image.image_id, &name, &PushOptions::default(), |p| seen.lock().push(p))
        .await
        .unwrap();
    assert!(seen.lock().iter().any(|p| matches!(
        p,
        Progress::Layer {
            state: LayerState::Done,
            ..
        }
    )));

    let seen = Mutex::new(Vec::new());
    let pulled = b
        .store
        .pull(&name, &PullOptions::default(), |p| seen.lock().push(p))
        .await
        .unwrap();
    assert_eq!(pulled.image_id, image.image_id);
    assert_eq!(pulled.manifest_digest, pushed.manifest_digest);
    assert_eq!(pulled.config, image.config);
    assert_eq!(pulled.layers[0].diff_id, image.layers[0].diff_id);
    assert_eq!(
        fs::read(&pulled.layers[0].file).unwrap(),
        fs::read(&image.layers[0].file).unwrap()
    );
    assert!(matches!(&seen.lock()[0], Progress::Resolved { layers, .. } if layers.len() == 1));
    assert_eq!(b.store.get(&pulled.image_id).unwrap(), pulled);
    assert_eq!(b.store.list().unwrap(), std::slice::from_ref(&pulled));

    // What is here is not fetched again; by digest it is the same image.
    let seen = Mutex::new(Vec::new());
    let by_digest = registry.reference(&format!("team/app@{}", pushed.manifest_digest));
    b.store
        .pull(&by_digest, &PullOptions::default(), |p| seen.lock().push(p))
        .await
        .unwrap();
    assert!(!seen.lock().iter().any(|p| matches!(
        p,
        Progress::Layer {
            state: LayerState::Transferring,
            ..
        }
    )));

    // Pushed to another name in the same registry, it keeps its manifest, and nothing is sent.
    let seen = Mutex::new(Vec::new());
    let again = b
        .store
        .push(
            &pulled.image_id,
            &registry.reference("other/app:2"),
            &PushOptions::default(),
            |p| seen.lock().push(p),
        )
        .await
        .unwrap();
    assert_eq!(again, pushed);
    assert!(seen.lock().iter().all(|p| matches!(
        p,
        Progress::Layer {
            state: LayerState::Exists,
            ..
        }
    )));
    let config = run(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--config",
            &format!("docker://{}/other/app:2", registry.host),
        ],
    );
    assert!(config.contains(&image.layers[0].diff_id), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushes() {
    let registry = Registry::plain();
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let archive = a.dir.path().join("a.tar");
    let file = tokio::fs::File::create(&archive).await.unwrap();
    a.store
        .save(
            &[(image.image_id.clone(), vec!["app:1".parse().unwrap()])],
            file,
            biga_image::ArchiveFormat::Oci,
        )
        .await
        .unwrap();
    let from = format!("oci-archive:{}", str(&archive));
    for (name, flags) in [
        ("schema2", &["--format=v2s2"][..]),
        (
            "zstd",
            &["--format=oci", "--dest-compress-format=zstd", "--dest-compress"],
        ),
        (
            "gzip",
            &["--format=oci", "--dest-compress-format=gzip", "--dest-compress"],
        ),
    ] {
        let to = format!("docker://{}/{name}:1", registry.host);
        let mut args = vec!["copy", "--dest-tls-verify=false"];
        args.extend(flags);
        args.extend([from.as_str(), to.as_str()]);
        run("skopeo", &args);
        let b = Store::new();
        let pulled = b
            .store
            .pull(
                &registry.reference(&format!("{name}:1")),
                &PullOptions::default(),
                |_| {},
            )
            .await
            .unwrap();
        assert_eq!(pulled.layers[0].diff_id, image.layers[0].diff_id, "{name}");
        assert_eq!(pulled.config.cmd, ["app"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords() {
    let registry = Registry::with_password();
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let name = registry.reference("app:1");
    let push = |auth| PushOptions {
        auth,
        ..PushOptions::default()
    };
    for wrong in [Auth::Anonymous, basic("wrong")] {
        let e = a
            .store
            .push(&image.image_id, &name, &push(wrong), |_| {})
            .await
            .unwrap_err();
        assert!(matches!(e, Error::Denied { .. }), "{e}");
        assert!(!e.retryable());
    }
    a.store
        .push(&image.image_id, &name, &push(basic("secret")), |_| {})
        .await
        .unwrap();

    // The same from Docker's config file.
    let b = Store::new();
    let config = b.dir.path().join("config.json");
    let entry = base64(b"me:secret");
    fs::write(
        &config,
        format!(r#"{{"auths":{{"{}":{{"auth":"{entry}"}}}}}}"#, registry.host),
    )
    .unwrap();
    let pull = PullOptions {
        auth: Auth::DockerConfig(config.clone()),
        ..PullOptions::default()
    };
    b.store.pull(&name, &pull, |_| {}).await.unwrap();
    fs::write(&config, r#"{"auths":{"other.example":{}}}"#).unwrap();
    assert!(b.store.pull(&name, &pull, |_| {}).await.is_err());
}

/// Passes connections on to a registry, and breaks the first two that bring much.
fn flaky(to: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let left = Arc::new(AtomicUsize::new(2));
    let (to, breaks) = (to.to_owned(), left.clone());
    // It ends with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { return };
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            let breaks = breaks.clone();
            std::thread::spawn(move || pass_on(client, server, &breaks));
        }
    });
    (host, left)
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, breaks: &AtomicUsize) {
    let (mut piece, mut passed) = (vec![0; 16 << 10], 0);
    while let Ok(n @ 1..) = client.read(&mut piece) {
        passed += n;
        let breaks_now = passed > 100_000
            && breaks
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        if breaks_now || server.write_all(&piece[..n]).is_err() {
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_is_made_again() {
    let registry = Registry::plain();
    let (host, left) = flaky(&registry.host);
    let (a, b) = (Store::new(), Store::new());
    let image = a.import(tar(), "app").await;
    let name = format!("{host}/team/app:1").parse().unwrap();
    a.store
        .push(&image.image_id, &name, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert_eq!(left.load(Ordering::SeqCst), 0, "nothing broke");
    let direct = registry.reference("team/app:1");
    let pulled = b.store.pull(&direct, &PullOptions::default(), |_| {}).await.unwrap();
    assert_eq!(pulled.image_id, image.image_id);
}

fn base64(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("base64")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// A CA, and a certificate for 127.0.0.1 with its key.
fn certificates(dir: &Path) -> String {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
    let ca_key = KeyPair::generate().unwrap();
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    ca_cert.pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_ca_of_its_own() {
    let ca = Mutex::new(String::new());
    let registry = Registry::start(|dir| {
        *ca.lock() = certificates(dir);
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        format!("  tls:\n    certificate: {}\n    key: {}\n", str(&cert), str(&key))
    });
    let certs = tempfile::tempdir().unwrap();
    let name = registry.reference("app:1");
    let stranger = Store::with(|o| o.certs_dir = certs.path().to_path_buf());
    let image = stranger.import(tar(), "app").await;
    let e = stranger
        .store
        .push(&image.image_id, &name, &PushOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(!matches!(e, Error::NotFound { .. }), "{e}");

    let dir = certs.path().join(&registry.host);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.crt"), ca.lock().as_str()).unwrap();
    let a = Store::with(|o| o.certs_dir = certs.path().to_path_buf());
    let image = a.import(tar(), "app").await;
    a.store
        .push(&image.image_id, &name, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let b = Store::with(|o| o.certs_dir = certs.path().to_path_buf());
    assert_eq!(
        b.store
            .pull(&name, &PullOptions::default(), |_| {})
            .await
            .unwrap()
            .image_id,
        image.image_id
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let registry = Registry::plain();
    let a = Store::new();
    let e = a
        .store
        .pull(&registry.reference("nothing:1"), &PullOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(matches!(e, Error::NotFound { .. }), "{e}");
    assert_eq!(e.reason(), "ImageNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_travel() {
    let registry = Registry::plain();
    let (a, b) = (Store::new(), Store::new());
    let raw = [noise(300_000, 3), vec![0; 1 << 20], noise(512, 4)].concat();
    let disk = a
        .store
        .import_disk(std::io::Cursor::new(raw.clone()), biga_image::DiskFormat::Raw)
        .await
        .unwrap();
    let name = registry.reference("disks/debian:12");
    a.store
        .push(&disk.image_id, &name, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let pulled = b.store.pull(&name, &PullOptions::default(), |_| {}).await.unwrap();
    assert_eq!(pulled.image_id, disk.image_id);
    let file = pulled.disk.as_ref().unwrap();
    assert_eq!(
        (file.format, file.virtual_size),
        (biga_image::DiskFormat::Raw, raw.len() as u64)
    );
    assert!(fs::read(&file.file).unwrap() == raw);
    assert!(b.files("layers").is_empty(), "the disk is kept once");
    // It is known by its manifest: pulling again fetches nothing, pushing again keeps it.
    let again = b.store.pull(&name, &PullOptions::default(), |_| {}).await.unwrap();
    assert_eq!(again.manifest_digest, pulled.manifest_digest);
    let pushed = b
        .store
        .push(
            &pulled.image_id,
            &registry.reference("disks/copy:1"),
            &PushOptions::default(),
            |_| {},
        )
        .await
        .unwrap();
    assert_eq!(pushed.manifest_digest, pulled.manifest_digest);
}
